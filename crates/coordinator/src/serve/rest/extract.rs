//! What handlers take: the caller by bearer token, strictly read bodies, ids and questions. Whatever does not fit
//! becomes a [`Problem`] before the handler runs.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Problem;
use crate::serve::Shared;
use crate::store::{Caller, Role};

/// Somebody with a valid token.
pub(crate) struct Someone(pub(crate) Caller);

/// Somebody with the token of an operator.
pub(crate) struct Operator(pub(crate) Caller);

/// A JSON body in which every field is known.
pub(crate) struct Strict<T>(pub(crate) T);

/// An id in the path.
pub(crate) struct Id<T>(pub(crate) T);

/// The question part of the URL, in which every field is known.
pub(crate) struct Ask<T>(pub(crate) T);

impl FromRequestParts<Arc<Shared>> for Someone {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok());
        let token = header.and_then(|h| {
            let (scheme, token) = h.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = token.ok_or_else(Problem::unauthenticated)?;
        let caller = shared.register.store.caller(token, shared.now()).await?;
        caller.map(Self).ok_or_else(Problem::unauthenticated)
    }
}

impl FromRequestParts<Arc<Shared>> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let Someone(caller) = Someone::from_request_parts(parts, shared).await?;
        if caller.role == Role::Operator {
            Ok(Self(caller))
        } else {
            Err(Problem::forbidden(format!("this needs an operator's token; '{}' is a {}'s", caller.name, caller.role)))
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Strict<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|h| h.to_str().ok()).unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            return Err(Problem::unreadable("send JSON, with the header Content-Type: application/json"));
        }
        let bytes = bytes::Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
                Problem::too_large("the body is larger than this path takes")
            } else {
                Problem::unreadable(rejection.body_text())
            }
        })?;
        read(&bytes).map(Self).map_err(Problem::unreadable)
    }
}

/// Reads JSON; the error names the place.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let place = error.path().to_string();
        let reason = crate::enrol::printable(&error.inner().to_string());
        if place == "." { reason } else { format!("{place}: {reason}") }
    })?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

impl<T, S> FromRequestParts<S> for Id<T>
where
    T: FromStr + Send,
    T::Err: Display,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::unreadable(rejection.body_text()))?;
        let text: String = text.chars().take(200).collect();
        text.parse().map(Self).map_err(|error: T::Err| Problem::unreadable(crate::enrol::printable(&error.to_string())))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Ask<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(value) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::unreadable(crate::enrol::printable(&rejection.body_text())))?;
        Ok(Self(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[allow(dead_code)]
        inner: Inner,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        number: u32,
    }

    #[test]
    fn unknown_fields_wrong_types_and_trailing_bytes_are_named() {
        assert!(read::<Body>(br#"{"inner":{"number":1}}"#).is_ok());
        assert!(read::<Body>(br#"{"inner":{"number":"1"}}"#).unwrap_err().starts_with("inner.number: "));
        assert!(read::<Body>(br#"{"inner":{"number":1,"x":2}}"#).unwrap_err().contains("unknown field `x`"));
        assert!(read::<Body>(br#"{"inner":{"number":1}} x"#).is_err());
        assert!(read::<Body>(br#"{"inner":{"number":NaN}}"#).is_err());
    }
}
