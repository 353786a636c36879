//! Errors as the API says them: RFC 9457 problem details with a reference under which the log says more.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::schedule::{Rejection, RejectionCode};
use crate::{Error, random};

/// Something did not happen (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Kind, a URN.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Kind in words.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// What happened and what to do, in words.
    detail: String,
    /// Reference for the operator's log.
    reference: String,
    /// Mistakes in what was sent, each with its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Mistake>,
}

/// A mistake and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Mistake {
    /// Place, such as `tasks.scale.inputs.data`.
    pub place: String,
    /// What is wrong with it, and a remedy where one is known.
    pub reason: String,
}

/// What a handler returns.
pub type Answer<T> = Result<T, Problem>;

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let problems = Vec::new();
        Self { kind, title, status: status.as_u16(), detail: detail.into(), reference: reference(), problems }
    }

    /// What was sent cannot be read.
    pub fn unreadable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "urn:hospes:problem:unreadable", "The request cannot be read", detail)
    }

    /// The bearer token is missing or not good.
    pub fn unauthenticated() -> Self {
        let detail = "a valid token is needed: Authorization: Bearer hospes_…";
        Self::new(StatusCode::UNAUTHORIZED, "urn:hospes:problem:unauthenticated", "Not signed in", detail)
    }

    /// The token is good but does not allow this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "urn:hospes:problem:forbidden", "Not allowed", detail)
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "urn:hospes:problem:not-found", "Not found", detail)
    }

    /// The path is known, the method is not.
    pub fn method() -> Self {
        let detail = "this path does not know that method; see /api/v1/openapi.json";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "urn:hospes:problem:method", "Method not allowed", detail)
    }

    /// More than allowed was sent.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "urn:hospes:problem:too-large", "Too large", detail)
    }

    /// Too often.
    pub fn too_many() -> Self {
        let detail = "too many attempts from this address; wait a minute";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "urn:hospes:problem:too-many", "Too many attempts", detail)
    }

    /// It took too long.
    pub fn slow() -> Self {
        let detail = "the coordinator did not answer in time; try again";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "urn:hospes:problem:slow", "No answer in time", detail)
    }

    /// It does not go together with the state of things.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "urn:hospes:problem:conflict", "Does not fit the present state", detail)
    }

    /// What was sent is wrong in itself.
    pub fn invalid(detail: impl Into<String>, problems: Vec<Mistake>) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let problem = Self::new(status, "urn:hospes:problem:invalid", "Not valid", detail);
        Self { problems, ..problem }
    }

    /// Whether it is for somebody else.
    pub(super) fn is_forbidden(&self) -> bool {
        self.status == StatusCode::FORBIDDEN.as_u16()
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let Rejection { code, message, problems } = rejection;
        match code {
            RejectionCode::NotFound => Self::not_found(message),
            RejectionCode::Forbidden => Self::forbidden(message),
            RejectionCode::Invalid => {
                let problems = problems.into_iter().map(|p| Mistake { place: p.place, reason: p.reason }).collect();
                Self::invalid(message, problems)
            }
            RejectionCode::Conflict => Self::conflict(message),
            RejectionCode::Unavailable => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:hospes:problem:unavailable",
                "Not available now",
                message,
            ),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let reference = log(&error);
        let problem = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "urn:hospes:problem:internal",
            "The coordinator failed",
            format!("the coordinator failed; the operator finds the reason in the log under {reference}"),
        );
        Self { reference, ..problem }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        response
    }
}

/// Logs a failure with all its causes; returns the reference under which it can be found.
pub(crate) fn log(error: &Error) -> String {
    let reference = reference();
    let mut causes = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        source = cause.source();
    }
    tracing::error!(reference, error = causes, "failed");
    reference
}

fn reference() -> String {
    random::<5>().map_or_else(|_| "unknown".into(), |r| data_encoding::BASE32_NOPAD.encode(&r).to_ascii_lowercase())
}
