//! REST for operators and researchers under `/api/v1`, enrolment of sites, and signs of life. The OpenAPI document is
//! made from the handlers themselves, served at `/api/v1/openapi.json` and committed as `openapi.json`.

mod entry;
mod extract;
mod fleet;
mod jobs;
mod ledger;
mod models;
mod problem;
mod studies;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use super::Shared;

pub(crate) use problem::log;
pub use problem::{Answer, Mistake, Problem};

/// Bytes of a body, where a path does not say otherwise.
const BODY_BYTES: usize = 64 << 10;
/// Time in which a handler must begin its answer.
const ANSWER: Duration = Duration::from_secs(60);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hospes coordinator",
        description = "REST API of a federation's coordinator, for operators and researchers. Errors are RFC 9457 problem \
                       details with a reference for the operator's log.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "federation", description = "Members, invitations, roster"),
        (name = "studies", description = "Studies: validate, submit, watch"),
        (name = "jobs", description = "Runs of studies"),
        (name = "models", description = "Models that came of jobs"),
        (name = "ledger", description = "The coordinator's audit ledger"),
        (name = "health", description = "Signs of life"),
    ),
    security(("token" = []))
)]
struct Document;

fn api() -> OpenApiRouter<Arc<Shared>> {
    let mut document = Document::openapi();
    // The crate's licence text would name a path; name and identifier are enough.
    let components = document.components.get_or_insert_with(Default::default);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("hospes_…").build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    OpenApiRouter::with_openapi(document)
        .merge(fleet::routes())
        .merge(studies::routes())
        .merge(jobs::routes())
        .merge(models::routes())
        .merge(ledger::routes())
        .merge(entry::routes())
}

/// The OpenAPI document, pretty-printed, with a line break at its end.
pub fn openapi() -> String {
    let document = api().into_openapi();
    serde_json::to_string_pretty(&document).map(|text| text + "\n").unwrap_or_default()
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let (router, document) = api().split_for_parts();
    let document = Arc::new(document);
    router
        .route("/api/v1/openapi.json", get(move || async move { Json((*document).clone()) }))
        .fallback(|| async { Problem::not_found("there is no such path; see /api/v1/openapi.json") })
        .method_not_allowed_fallback(|| async { Problem::method() })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn(guard))
        .with_state(shared)
}

/// Time-out, and headers that keep answers out of caches and browsers' guesses.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = match tokio::time::timeout(ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::slow().into_response(),
    };
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
