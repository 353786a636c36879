//! What needs no token: enrolment (by the secret of an invitation), renewal (by the present client certificate), the
//! federation's name and key, and signs of life.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use hospes_protocol::enrol::{EnrolAnswer, EnrolRequest, FederationInfo, RenewAnswer, RenewRequest};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;

use super::extract::Strict;
use super::{Answer, Problem};
use crate::serve::Shared;
use crate::serve::listen::Connection;

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    // These belong to the link between sites and coordinator (docs/protocol.md), not to the operators' API.
    OpenApiRouter::new()
        .route("/federation", get(federation))
        .route("/enrol", post(enrol))
        .route("/renew", post(renew))
        .routes(utoipa_axum::routes!(healthz))
        .routes(utoipa_axum::routes!(readyz))
}

async fn federation(State(shared): State<Arc<Shared>>) -> Json<FederationInfo> {
    Json(shared.register.info())
}

async fn enrol(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Connection>,
    Strict(request): Strict<EnrolRequest>,
) -> Answer<(StatusCode, Json<EnrolAnswer>)> {
    if !shared.enrolments.take(connection.address, Instant::now()) {
        return Err(Problem::too_many());
    }
    let answer = shared.register.enrol(&request).await?.inspect_err(|rejection| {
        tracing::warn!(from = %connection.address, reason = rejection.message, "enrolment refused");
    })?;
    tracing::info!(site = %answer.site, from = %connection.address, "site enrolled");
    // A session of the same site under its old certificate does not outlive it.
    shared.sessions.end(answer.site, "this site has enrolled again");
    shared.transfers.end(answer.site);
    shared.roster_changed().await;
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn renew(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Connection>,
    Strict(request): Strict<RenewRequest>,
) -> Answer<Json<RenewAnswer>> {
    if let Err(reason) = shared.admit(connection.peer.as_ref()).await? {
        return Err(Problem::forbidden(reason));
    }
    let peer = connection.peer.ok_or_else(|| Problem::forbidden("a client certificate is needed"))?;
    if !shared.openings.take(peer.site, Instant::now()) {
        return Err(Problem::too_many());
    }
    let answer = shared.register.renew(&peer, &request.csr_pem).await??;
    tracing::info!(site = %peer.site, expires = %answer.expires, "certificate renewed");
    Ok(Json(answer))
}

/// Whether the process runs.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = String)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the coordinator can do its work: its database answers and its schedule runs.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, body = String), (status = 503, body = Problem)))]
async fn readyz(State(shared): State<Arc<Shared>>) -> Answer<&'static str> {
    shared.ready().await?;
    Ok("ready\n")
}
