//! Studies: validate, submit, watch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use hospes_protocol::id::{SiteId, StudyId};
use hospes_protocol::limits::PLAN_FILE_BYTES;
use hospes_protocol::message::Decision;
use hospes_protocol::plan;
use hospes_protocol::study::{StudyFile, Sweep, Terms, egress_in_all};
use serde::{Deserialize, Serialize};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Id, Someone, Strict};
use super::fleet::Reason;
use super::jobs::JobView;
use super::sweep::SweepView;
use super::{Answer, Mistake, Problem};
use crate::schedule::{self, Command, Live, Reply};
use crate::serve::Shared;
use crate::store::{Caller, MemberDecision, StudyRow};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(validate))
        .routes(routes!(submit, studies))
        .layer(DefaultBodyLimit::max(2 * PLAN_FILE_BYTES))
        .routes(routes!(study))
        .routes(routes!(document))
        .routes(routes!(start))
        .routes(routes!(withdraw))
        .routes(routes!(events))
}

/// A study as it is submitted: the fields `terms` and `plan` of a study file.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Submission {
    /// Purpose, people and basis; JSON Schema: `hospesctl study schema`.
    #[schema(value_type = Object)]
    terms: serde_json::Value,
    /// The plan as an object, or as text in YAML or JSON.
    #[schema(value_type = Object)]
    plan: serde_json::Value,
    /// Settings to try, as in a study file: `grid` or `settings`, `rank`, `parallel`.
    #[schema(value_type = Option<Object>)]
    #[serde(default)]
    sweep: Option<serde_json::Value>,
}

/// A study that was checked.
#[derive(Serialize, ToSchema)]
struct Checked {
    /// Always true: what is not valid is answered with 422.
    valid: bool,
    /// Digest of the plan.
    plan: String,
    /// Sites that it would be offered to.
    members: Vec<MemberName>,
    /// Columns that it reads.
    columns: Vec<String>,
    /// Runs: one, or one for each setting.
    runs: u32,
    /// What leaves a site in all of them.
    egress: Vec<EgressView>,
}

/// A member by its name.
#[derive(Serialize, ToSchema)]
struct MemberName {
    /// Id.
    site: String,
    /// Name.
    name: String,
}

/// Something that leaves a site when the plan runs.
#[derive(Serialize, ToSchema)]
struct EgressView {
    /// Task that sends it.
    task: String,
    /// Its name, such as `0.weight` or `confusion`.
    name: String,
    /// Shape of a tensor, or the number of figures.
    shape: Vec<u64>,
    /// Bytes each time.
    bytes: u64,
    /// How many times in all runs.
    times: u32,
}

/// A study that was submitted.
#[derive(Serialize, ToSchema)]
struct Submitted {
    /// Id.
    study: String,
}

/// A job that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct Started {
    /// Id.
    pub(super) job: String,
}

/// A study in a list.
#[derive(Serialize, ToSchema)]
struct StudyView {
    /// Id.
    study: String,
    /// Title.
    title: String,
    /// `offered` or `withdrawn`.
    state: &'static str,
    /// Name of the token that submitted it.
    submitted_by: String,
    /// When (RFC 3339).
    submitted: String,
    /// Digest of the plan.
    plan: String,
}

impl StudyView {
    fn new(row: &StudyRow) -> Self {
        Self {
            study: row.study.to_string(),
            title: row.title.clone(),
            state: row.state.as_str(),
            submitted_by: row.submitted_by.clone(),
            submitted: row.submitted.to_string(),
            plan: row.plan.to_string(),
        }
    }
}

/// A study with what its members decided and its runs.
#[derive(Serialize, ToSchema)]
struct StudyDetails {
    /// The study.
    #[serde(flatten)]
    study: StudyView,
    /// What each member decided.
    decisions: Vec<DecisionView>,
    /// Its settings, where it has many.
    sweep: Option<SweepView>,
    /// Its runs, oldest first.
    jobs: Vec<JobView>,
}

/// What a member decided.
#[derive(Serialize, ToSchema)]
struct DecisionView {
    /// Site.
    site: String,
    /// Its name.
    name: String,
    /// `waiting`, `approved`, `refused`, `suspended`, `revoked` or `expired`.
    decision: &'static str,
    /// Reason that the site chose to give.
    reason: Option<String>,
    /// Until when an approval is in force (RFC 3339).
    expires: Option<String>,
    /// Whether one person only signed.
    one_person: bool,
    /// When it was told (RFC 3339).
    at: Option<String>,
}

impl DecisionView {
    fn new(row: MemberDecision, names: &BTreeMap<SiteId, String>) -> Self {
        let (mut reason, mut expires, mut one) = (None, None, false);
        let decision = match row.decision {
            None => "waiting",
            Some(Decision::Approved { expires: until, one_person, .. }) => {
                (expires, one) = (Some(until.to_string()), one_person);
                "approved"
            }
            Some(Decision::Refused(refusal)) => {
                reason = Some(crate::enrol::printable(&refusal.detail));
                "refused"
            }
            Some(Decision::Suspended) => "suspended",
            Some(Decision::Revoked) => "revoked",
            Some(Decision::Expired) => "expired",
        };
        Self {
            site: row.site.to_string(),
            name: names.get(&row.site).cloned().unwrap_or_default(),
            decision,
            reason,
            expires,
            one_person: one,
            at: row.decided.map(|t| t.to_string()),
        }
    }
}

/// Something that happened in a study, as the stream of events has it.
#[derive(Serialize, ToSchema)]
struct Happening {
    /// When (RFC 3339).
    at: String,
    /// Job, where it is about one.
    job: Option<String>,
    /// What happened, such as `job running` or `round published`.
    what: &'static str,
    /// Details in words.
    detail: String,
    /// Model that came of it.
    model: Option<String>,
}

/// Checks a study and says what it would read, and what would leave each site. Nothing is stored.
#[utoipa::path(post, path = "/api/v1/studies/validate", tag = "studies", request_body = Submission,
    responses((status = 200, body = Checked), (status = 401, body = Problem), (status = 422, body = Problem)))]
async fn validate(
    State(shared): State<Arc<Shared>>,
    _: Someone,
    Strict(submission): Strict<Submission>,
) -> Answer<Json<Checked>> {
    let Parts { terms, plan, sweep } = submission.parts()?;
    let sites = shared.register.store.sites().await?;
    let (plan, members) = schedule::check(&terms, &plan, sweep.as_ref(), &sites)?;
    let members = sites.iter().filter(|row| members.contains(&row.site));
    let runs = match &sweep {
        Some(sweep) => sweep.plans(&plan).map_err(|e| mistakes("", e.problems))?,
        None => vec![plan.clone()],
    };
    let egress = egress_in_all(&runs).into_iter().map(|e| EgressView {
        task: e.task,
        name: e.name,
        shape: e.shape,
        bytes: e.bytes,
        times: e.times,
    });
    Ok(Json(Checked {
        valid: true,
        members: members.map(|row| MemberName { site: row.site.to_string(), name: row.name.clone() }).collect(),
        columns: plan::columns_read(&plan).into_iter().collect(),
        runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
        egress: egress.collect(),
        plan: plan.digest().to_string(),
    }))
}

impl Submission {
    /// Terms, the text of the plan and the settings, all checked.
    fn parts(self) -> Answer<Parts> {
        let plan = match self.plan {
            serde_json::Value::String(text) => text,
            value => value.to_string(),
        };
        let tree = plan::read(&plan).map_err(|e| mistakes("plan", e.problems))?;
        let whole = serde_json::json!({ "terms": self.terms, "plan": tree, "sweep": self.sweep });
        let study = StudyFile::read(&whole.to_string()).map_err(|e| mistakes("", e.problems))?;
        Ok(Parts { terms: study.terms, plan, sweep: study.sweep })
    }
}

/// A submission that was read.
struct Parts {
    terms: Terms,
    plan: String,
    sweep: Option<Sweep>,
}

fn mistakes(below: &str, problems: Vec<plan::Problem>) -> Problem {
    let place = |place: String| match (below, place.as_str()) {
        ("", _) => place,
        (below, "") => below.to_owned(),
        (below, place) => format!("{below}.{place}"),
    };
    let problems = problems.into_iter().map(|p| Mistake { place: place(p.place), reason: p.reason }).collect();
    Problem::invalid("the study has mistakes", problems)
}

/// Submits a study: it is checked, signed and offered to its members.
#[utoipa::path(post, path = "/api/v1/studies", tag = "studies", request_body = Submission,
    responses((status = 201, body = Submitted), (status = 401, body = Problem), (status = 409, body = Problem),
              (status = 422, body = Problem)))]
async fn submit(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Strict(submission): Strict<Submission>,
) -> Answer<(StatusCode, Json<Submitted>)> {
    let Parts { terms, plan, sweep } = submission.parts()?;
    let command = Command::Submit { terms: Box::new(terms), plan, sweep: sweep.map(Box::new), by: caller };
    match shared.command(command).await? {
        Reply::Study(study) => Ok((StatusCode::CREATED, Json(Submitted { study: study.to_string() }))),
        other => Err(unexpected(&other)),
    }
}

/// Of the newest 1,000 studies those that the caller may see, newest first: a researcher's own, for operators all.
#[utoipa::path(get, path = "/api/v1/studies", tag = "studies",
    responses((status = 200, body = Vec<StudyView>), (status = 401, body = Problem)))]
async fn studies(State(shared): State<Arc<Shared>>, Someone(caller): Someone) -> Answer<Json<Vec<StudyView>>> {
    let rows = shared.register.store.studies().await?;
    Ok(Json(rows.iter().filter(|row| caller.may_see(row)).map(StudyView::new).collect()))
}

/// One study, with what its members decided and its runs.
#[utoipa::path(get, path = "/api/v1/studies/{study}", tag = "studies", params(("study" = String, Path)),
    responses((status = 200, body = StudyDetails), (status = 401, body = Problem), (status = 403, body = Problem),
              (status = 404, body = Problem)))]
async fn study(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Id(study): Id<StudyId>,
) -> Answer<Json<StudyDetails>> {
    let row = shared.own(&caller, study).await?;
    let names = shared.names().await?;
    let decisions = shared.register.store.decisions(study).await?;
    let decisions = decisions.into_iter().map(|d| DecisionView::new(d, &names)).collect();
    let mut jobs = Vec::new();
    let mut rows = shared.register.store.jobs(Some(study)).await?;
    rows.sort_by_key(|job| (job.created, job.job));
    for job in &rows {
        jobs.push(JobView::load(&shared, job).await?);
    }
    let sweep = SweepView::load(&shared, &row, &rows).await?;
    Ok(Json(StudyDetails { study: StudyView::new(&row), decisions, sweep, jobs }))
}

/// The signed document of a study, as the sites get it: CBOR.
#[utoipa::path(get, path = "/api/v1/studies/{study}/document", tag = "studies", params(("study" = String, Path)),
    responses((status = 200, content_type = "application/cbor", body = Vec<u8>), (status = 401, body = Problem),
              (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn document(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Id(study): Id<StudyId>,
) -> Answer<([(&'static str, &'static str); 1], Vec<u8>)> {
    let row = shared.own(&caller, study).await?;
    Ok(([("content-type", "application/cbor")], row.document))
}

/// Starts a run with the members that have approved so far.
#[utoipa::path(post, path = "/api/v1/studies/{study}/start", tag = "studies", params(("study" = String, Path)),
    responses((status = 201, body = Started), (status = 401, body = Problem), (status = 403, body = Problem),
              (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn start(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Id(study): Id<StudyId>,
) -> Answer<(StatusCode, Json<Started>)> {
    shared.own(&caller, study).await?;
    match shared.command(Command::Start { study, by: caller }).await? {
        Reply::Job(job) => Ok((StatusCode::CREATED, Json(Started { job: job.to_string() }))),
        other => Err(unexpected(&other)),
    }
}

/// Takes a study back; what runs of it is cancelled.
#[utoipa::path(post, path = "/api/v1/studies/{study}/withdraw", tag = "studies", params(("study" = String, Path)),
    request_body = Reason,
    responses((status = 204), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
async fn withdraw(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Id(study): Id<StudyId>,
    Strict(Reason { reason }): Strict<Reason>,
) -> Answer<StatusCode> {
    shared.own(&caller, study).await?;
    let reason = crate::enrol::printable(&reason);
    shared.command(Command::Withdraw { study, by: caller, reason }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What happens in a study from now on, as server-sent events. A slow reader misses some; `GET` the study for its state.
#[utoipa::path(get, path = "/api/v1/studies/{study}/events", tag = "studies", params(("study" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", body = Happening), (status = 401, body = Problem),
              (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn events(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Id(study): Id<StudyId>,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let live = shared.live.subscribe();
    shared.own(&caller, study).await?;
    let stop = shared.stop.clone();
    let stream = BroadcastStream::new(live).filter_map(move |live| match live {
        Ok(live) if live.study == study => Some(Ok(happening(&live))),
        Ok(_) => None,
        Err(_) => Some(Ok(Event::default().event("missed").data("{}"))),
    });
    let stream = futures::StreamExt::take_until(stream, stop.cancelled_owned());
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(20))))
}

fn happening(live: &Live) -> Event {
    let view = Happening {
        at: live.at.to_string(),
        job: live.job.map(|j| j.to_string()),
        what: live.what,
        detail: live.detail.clone(),
        model: live.model.map(|m| m.to_string()),
    };
    Event::default().event("happening").json_data(&view).unwrap_or_default()
}

pub(super) fn unexpected(reply: &Reply) -> Problem {
    crate::Error::corrupt("answer of the schedule", format!("{reply:?}")).into()
}

impl Shared {
    async fn study(&self, study: StudyId) -> Answer<StudyRow> {
        let found = self.register.store.study(study).await?;
        found.ok_or_else(|| Problem::not_found(format!("there is no study {study}")))
    }

    /// The study, for the one who submitted it and for operators.
    pub(super) async fn own(&self, caller: &Caller, study: StudyId) -> Answer<StudyRow> {
        let row = self.study(study).await?;
        if caller.may_see(&row) {
            Ok(row)
        } else {
            let by = row.submitted_by;
            Err(Problem::forbidden(format!("this study is '{by}''s; only they and operators may do this")))
        }
    }

    /// Names of all sites.
    pub(super) async fn names(&self) -> Answer<BTreeMap<SiteId, String>> {
        Ok(self.register.store.sites().await?.into_iter().map(|s| (s.site, s.name)).collect())
    }
}
