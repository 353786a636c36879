//! Members of the federation: invitations, sites, roster.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hospes_protocol::id::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::extract::{Id, Operator, Someone, Strict};
use super::{Answer, Problem};
use crate::schedule::{Command, Reply};
use crate::serve::Shared;
use crate::store::{InvitationRow, SiteRow, SiteState};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(federation))
        .routes(routes!(invite, invitations))
        .routes(routes!(withdraw))
        .routes(routes!(sites))
        .routes(routes!(site))
        .routes(routes!(revoke))
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(roster))
}

/// The federation and who asks.
#[derive(Serialize, ToSchema)]
struct Federation {
    /// Id, the digest of `identity`.
    federation: String,
    /// Name.
    name: String,
    /// The coordinator's identity key, hexadecimal.
    identity: String,
    /// SHA-256 of the coordinator's CA certificate.
    ca: String,
    /// The same as words, to be read to a site over the telephone.
    ca_words: String,
    /// Incarnation of the coordinator.
    epoch: u64,
    /// Software name and version.
    software: &'static str,
    /// Name of the token that asks.
    caller: String,
    /// Its role: `operator` or `researcher`.
    role: &'static str,
}

/// What is asked for when a site is invited.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Invite {
    /// Name of the site, unique in the federation.
    name: String,
    /// How long the invitation is good, in seconds; 24 hours if not said.
    #[serde(default = "one_day")]
    seconds: u32,
}

fn one_day() -> u32 {
    86_400
}

/// A new invitation, with its secret; it is shown this once.
#[derive(Serialize, ToSchema)]
struct NewInvitation {
    /// What the site pastes.
    invitation: String,
    /// SHA-256 of the coordinator's CA certificate as words, to be told over a second channel.
    ca_words: String,
    /// About it.
    #[serde(flatten)]
    about: InvitationView,
}

/// An invitation.
#[derive(Serialize, ToSchema)]
struct InvitationView {
    /// Id.
    id: Uuid,
    /// Name of the site.
    name: String,
    /// `open`, `used`, `revoked` or `expired`.
    state: &'static str,
    /// Name of the token that made it.
    created_by: String,
    /// When it was made (RFC 3339).
    created: String,
    /// When it ends (RFC 3339).
    expires: String,
    /// Site that used it.
    used_by: Option<String>,
}

impl InvitationView {
    fn new(row: &InvitationRow, now: Timestamp) -> Self {
        Self {
            id: row.id,
            name: row.name.clone(),
            state: row.state(now),
            created_by: row.created_by.clone(),
            created: row.created.to_string(),
            expires: row.expires.to_string(),
            used_by: row.used_by.map(|s| s.to_string()),
        }
    }
}

/// A site.
#[derive(Serialize, ToSchema)]
struct SiteView {
    /// Id.
    site: String,
    /// Name.
    name: String,
    /// Organisation.
    organisation: String,
    /// Identity key, hexadecimal.
    identity: String,
    /// `enrolled` (never connected), `active`, `suspended` or `revoked`.
    state: &'static str,
    /// Why it is suspended or revoked.
    reason: Option<String>,
    /// When it joined (RFC 3339).
    enrolled: String,
    /// When it was last heard of (RFC 3339).
    last_seen: Option<String>,
    /// Since when its session is open (RFC 3339); `null` while it is offline.
    online_since: Option<String>,
    /// Software that it last said it runs.
    software: Option<String>,
}

impl SiteView {
    fn new(row: &SiteRow, online: &BTreeMap<SiteId, Timestamp>) -> Self {
        Self {
            site: row.site.to_string(),
            name: row.name.clone(),
            organisation: row.organisation.clone(),
            identity: row.identity.to_string(),
            state: row.state.as_str(),
            reason: row.reason.clone(),
            enrolled: row.enrolled.to_string(),
            last_seen: row.last_seen.map(|t| t.to_string()),
            online_since: online.get(&row.site).map(ToString::to_string),
            software: row.software.clone(),
        }
    }
}

/// A site with its certificates.
#[derive(Serialize, ToSchema)]
struct SiteDetails {
    /// The site.
    #[serde(flatten)]
    site: SiteView,
    /// Its client certificates, newest first.
    certificates: Vec<CertificateView>,
}

/// A client certificate.
#[derive(Serialize, ToSchema)]
struct CertificateView {
    /// Serial number, hexadecimal.
    serial: String,
    /// When it was issued (RFC 3339).
    issued: String,
    /// When it ends (RFC 3339).
    expires: String,
    /// When it was revoked (RFC 3339).
    revoked: Option<String>,
}

/// A reason that a person gives.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    /// In words.
    pub(super) reason: String,
}

/// The members as the coordinator states them.
#[derive(Serialize, ToSchema)]
struct RosterView {
    /// Version.
    version: u64,
    /// When it was made (RFC 3339).
    at: String,
    /// Digest of the document.
    digest: String,
    /// The signed document, base64 of CBOR.
    document: String,
    /// Members.
    members: Vec<MemberView>,
}

/// A member.
#[derive(Serialize, ToSchema)]
struct MemberView {
    /// Id.
    site: String,
    /// Name.
    name: String,
    /// Organisation.
    organisation: String,
    /// Identity key, hexadecimal.
    identity: String,
}

/// The federation, its key and CA, and who asks.
#[utoipa::path(get, path = "/api/v1/federation", tag = "federation",
    responses((status = 200, body = Federation), (status = 401, body = Problem)))]
async fn federation(State(shared): State<Arc<Shared>>, Someone(caller): Someone) -> Json<Federation> {
    Json(Federation {
        federation: shared.federation().to_string(),
        name: shared.home.settings.name.clone(),
        identity: shared.home.key.public().to_string(),
        ca: shared.home.ca.fingerprint().to_string(),
        ca_words: ca_words(&shared),
        epoch: shared.epoch,
        software: crate::SOFTWARE,
        caller: caller.name,
        role: caller.role.as_str(),
    })
}

fn ca_words(shared: &Shared) -> String {
    hospes_protocol::words::of_digest(&shared.home.ca.fingerprint())
}

/// Invites a site. The invitation is shown this once; only a hash of its secret is stored.
#[utoipa::path(post, path = "/api/v1/invitations", tag = "federation", request_body = Invite,
    responses((status = 201, body = NewInvitation), (status = 401, body = Problem), (status = 403, body = Problem),
              (status = 422, body = Problem)))]
async fn invite(
    State(shared): State<Arc<Shared>>,
    Operator(caller): Operator,
    Strict(ask): Strict<Invite>,
) -> Answer<(StatusCode, Json<NewInvitation>)> {
    let (row, invitation) = shared.register.invite(&ask.name, ask.seconds, &caller).await??;
    let about = InvitationView::new(&row, shared.now());
    let view = NewInvitation { invitation: invitation.to_string(), ca_words: ca_words(&shared), about };
    Ok((StatusCode::CREATED, Json(view)))
}

/// The last 1,000 invitations, newest first.
#[utoipa::path(get, path = "/api/v1/invitations", tag = "federation",
    responses((status = 200, body = Vec<InvitationView>), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn invitations(State(shared): State<Arc<Shared>>, _: Operator) -> Answer<Json<Vec<InvitationView>>> {
    let now = shared.now();
    let rows = shared.register.store.invitations().await?;
    Ok(Json(rows.iter().map(|row| InvitationView::new(row, now)).collect()))
}

/// Takes an invitation back.
#[utoipa::path(delete, path = "/api/v1/invitations/{id}", tag = "federation", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn withdraw(
    State(shared): State<Arc<Shared>>,
    Operator(caller): Operator,
    Id(id): Id<Uuid>,
) -> Answer<StatusCode> {
    shared.register.withdraw_invitation(id, &caller).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// All sites, by name.
#[utoipa::path(get, path = "/api/v1/sites", tag = "federation",
    responses((status = 200, body = Vec<SiteView>), (status = 401, body = Problem)))]
async fn sites(State(shared): State<Arc<Shared>>, _: Someone) -> Answer<Json<Vec<SiteView>>> {
    let online = shared.online().await?;
    let rows = shared.register.store.sites().await?;
    Ok(Json(rows.iter().map(|row| SiteView::new(row, &online)).collect()))
}

/// One site, with its certificates.
#[utoipa::path(get, path = "/api/v1/sites/{site}", tag = "federation", params(("site" = String, Path)),
    responses((status = 200, body = SiteDetails), (status = 401, body = Problem), (status = 404, body = Problem)))]
async fn site(State(shared): State<Arc<Shared>>, _: Someone, Id(site): Id<SiteId>) -> Answer<Json<SiteDetails>> {
    let store = &shared.register.store;
    let row = store.site(site).await?.ok_or_else(|| Problem::not_found(format!("there is no site {site}")))?;
    let certificates = store.certificates(site).await?;
    let view = |c: crate::store::CertificateRow| CertificateView {
        serial: c.serial,
        issued: c.issued.to_string(),
        expires: c.expires.to_string(),
        revoked: c.revoked.map(|t| t.to_string()),
    };
    let online = shared.online().await?;
    let certificates = certificates.into_iter().map(view).collect();
    Ok(Json(SiteDetails { site: SiteView::new(&row, &online), certificates }))
}

/// Locks a site out for good: its certificates are revoked and it leaves the roster. Only a new enrolment brings it back.
#[utoipa::path(post, path = "/api/v1/sites/{site}/revoke", tag = "federation", params(("site" = String, Path)),
    request_body = Reason,
    responses((status = 204), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
async fn revoke(
    State(shared): State<Arc<Shared>>,
    Operator(caller): Operator,
    Id(site): Id<SiteId>,
    Strict(Reason { reason }): Strict<Reason>,
) -> Answer<StatusCode> {
    shared.register.set_state(site, SiteState::Revoked, &reason, &caller).await??;
    shared.lock_out(site, &format!("the operator revoked this site: {reason}")).await;
    shared.roster_changed().await;
    Ok(StatusCode::NO_CONTENT)
}

/// Locks a site out for now.
#[utoipa::path(post, path = "/api/v1/sites/{site}/suspend", tag = "federation", params(("site" = String, Path)),
    request_body = Reason,
    responses((status = 204), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
async fn suspend(
    State(shared): State<Arc<Shared>>,
    Operator(caller): Operator,
    Id(site): Id<SiteId>,
    Strict(Reason { reason }): Strict<Reason>,
) -> Answer<StatusCode> {
    shared.register.set_state(site, SiteState::Suspended, &reason, &caller).await??;
    shared.lock_out(site, &format!("the operator suspended this site: {reason}")).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a suspended site in again.
#[utoipa::path(post, path = "/api/v1/sites/{site}/resume", tag = "federation", params(("site" = String, Path)),
    responses((status = 204), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
async fn resume(
    State(shared): State<Arc<Shared>>,
    Operator(caller): Operator,
    Id(site): Id<SiteId>,
) -> Answer<StatusCode> {
    shared.register.set_state(site, SiteState::Active, "", &caller).await??;
    // The schedule reads anew what this site approved.
    shared.roster_changed().await;
    Ok(StatusCode::NO_CONTENT)
}

/// The newest roster.
#[utoipa::path(get, path = "/api/v1/roster", tag = "federation",
    responses((status = 200, body = RosterView), (status = 401, body = Problem), (status = 404, body = Problem)))]
async fn roster(State(shared): State<Arc<Shared>>, _: Someone) -> Answer<Json<RosterView>> {
    let signed = shared.register.store.roster().await?;
    let signed = signed.ok_or_else(|| Problem::not_found("no site has enrolled yet"))?;
    let bytes = signed.to_bytes().map_err(crate::Error::from)?;
    let roster = &signed.document;
    let members = roster.members.iter().map(|m| MemberView {
        site: m.site.to_string(),
        name: m.name.clone(),
        organisation: m.organisation.clone(),
        identity: m.identity.to_string(),
    });
    Ok(Json(RosterView {
        version: roster.version,
        at: roster.at.to_string(),
        digest: roster.digest().to_string(),
        document: data_encoding::BASE64.encode(&bytes),
        members: members.collect(),
    }))
}

impl Shared {
    /// Sites with an open session, and since when.
    async fn online(&self) -> Answer<BTreeMap<SiteId, Timestamp>> {
        match self.command(Command::Sessions).await? {
            Reply::Sessions(sessions) => Ok(sessions.into_iter().collect()),
            _ => Ok(BTreeMap::new()),
        }
    }

    /// The store has a newer roster; those connected get it. If the schedule stops just now they get it on reconnection.
    pub(super) async fn roster_changed(&self) {
        if let Err(rejection) = self.command(Command::RosterChanged).await {
            tracing::warn!(%rejection, "the new roster was not sent");
        }
    }

    /// The store has locked a site out: its session ends and it drops out of what runs.
    async fn lock_out(&self, site: SiteId, reason: &str) {
        self.sessions.end(site, reason);
        self.transfers.end(site);
        let command = Command::SiteLocked { site, reason: reason.to_owned() };
        if let Err(rejection) = self.command(command).await {
            tracing::warn!(%site, %rejection, "the schedule was not told of a locked site");
        }
    }
}
