//! Jobs: runs of studies.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hospes_protocol::id::{JobId, StudyId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Ask, Id, Someone, Strict};
use super::fleet::Reason;
use super::studies::{Started, unexpected};
use super::{Answer, Problem};
use crate::aggregate::newton::Fit;
use crate::schedule::{Command, Reply};
use crate::serve::Shared;
use crate::store::jobs::{JobRow, TaskRow, TaskState};

/// Rounds of a job that are shown.
const ROUNDS: u32 = 1_000;

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(jobs))
        .routes(routes!(job))
        .routes(routes!(fits))
        .routes(routes!(cancel))
        .routes(routes!(rerun))
}

/// Which jobs.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Those of this study only.
    study: Option<StudyText>,
}

/// An id of a study in a question.
#[derive(Deserialize)]
#[serde(transparent)]
struct StudyText(StudyId);

impl utoipa::PartialSchema for StudyText {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

impl ToSchema for StudyText {}

/// A run of a study.
#[derive(Serialize, ToSchema)]
pub(super) struct JobView {
    /// Id.
    job: String,
    /// Study.
    study: String,
    /// `ready`, `waiting`, `running`, `paused`, `success`, `failed`, `timeout` or `cancelled`.
    state: &'static str,
    /// What goes on, in words.
    detail: String,
    /// Why it ended as it did.
    reason: Option<String>,
    /// Name of the token that made it, or `automatic start`.
    created_by: String,
    /// When it was made (RFC 3339).
    created: String,
    /// When its rounds began (RFC 3339).
    started: Option<String>,
    /// When it ended (RFC 3339).
    ended: Option<String>,
    /// Digest of its final model.
    model: Option<String>,
    /// Which setting of its study it runs, from 1, where that has many.
    setting: Option<u32>,
    /// Its tasks in the order in which they run.
    tasks: Vec<TaskView>,
}

/// A task of a job.
#[derive(Serialize, ToSchema)]
struct TaskView {
    /// Name in the plan.
    task: String,
    /// Component.
    component: String,
    /// `waiting`, `running`, `success`, `skipped`, `failed`, `timeout` or `cancelled`.
    state: &'static str,
    /// Why it ended as it did.
    reason: Option<String>,
    /// Rounds that it takes; 0 for one that stays at the sites.
    rounds: u32,
    /// Rounds that are done.
    done: u32,
}

/// A job with its members and rounds.
#[derive(Serialize, ToSchema)]
struct JobDetails {
    /// The job.
    #[serde(flatten)]
    job: JobView,
    /// Its members.
    members: Vec<JobMemberView>,
    /// Its newest 1,000 rounds in the order in which they were opened.
    rounds: Vec<RoundView>,
}

/// A member of a job.
#[derive(Serialize, ToSchema)]
struct JobMemberView {
    /// Site.
    site: String,
    /// Its name.
    name: String,
    /// `asked`, `reserved` or `refused`.
    state: &'static str,
    /// Why not.
    reason: Option<String>,
    /// When its people released the results (RFC 3339).
    released: Option<String>,
}

/// A round.
#[derive(Serialize, ToSchema)]
struct RoundView {
    /// Task.
    task: String,
    /// Round, from 1.
    round: u32,
    /// Attempt, from 1.
    attempt: u32,
    /// `open`, `committed`, `published`, `abandoned` or `failed`.
    state: &'static str,
    /// Why it ended without a result.
    reason: Option<String>,
    /// When it was opened (RFC 3339).
    opened: String,
    /// When it was closed (RFC 3339).
    closed: Option<String>,
    /// Names of the sites whose inputs are in it.
    included: Vec<String>,
    /// Sites that are out, and why.
    out: Vec<OutView>,
}

/// A site that is out of a round.
#[derive(Serialize, ToSchema)]
struct OutView {
    /// Its name.
    name: String,
    /// Why.
    reason: String,
}

impl JobView {
    /// A job with its tasks.
    pub(super) async fn load(shared: &Shared, job: &JobRow) -> Answer<Self> {
        let tasks = shared.register.store.tasks(job.job).await?;
        Ok(Self {
            job: job.job.to_string(),
            study: job.study.to_string(),
            state: job.state.as_str(),
            detail: detail(&tasks),
            reason: job.reason.clone(),
            created_by: job.created_by.clone(),
            created: job.created.to_string(),
            started: job.started.map(|t| t.to_string()),
            ended: job.ended.map(|t| t.to_string()),
            model: job.model.map(|m| m.to_string()),
            setting: job.setting,
            tasks: tasks.into_iter().map(TaskView::new).collect(),
        })
    }
}

impl TaskView {
    fn new(row: TaskRow) -> Self {
        Self {
            task: row.task,
            component: row.component,
            state: row.state.as_str(),
            reason: row.reason,
            rounds: row.rounds,
            done: row.done,
        }
    }
}

/// `train 3/15` while a task with rounds runs.
fn detail(tasks: &[TaskRow]) -> String {
    tasks
        .iter()
        .find(|t| t.state == TaskState::Running && t.rounds > 0)
        .map(|t| format!("{} {}/{}", t.task, t.done, t.rounds))
        .unwrap_or_default()
}

/// Of the newest 1,000 jobs those of studies that the caller may see, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(Which),
    responses((status = 200, body = Vec<JobView>), (status = 401, body = Problem)))]
async fn jobs(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Ask(which): Ask<Which>,
) -> Answer<Json<Vec<JobView>>> {
    let store = &shared.register.store;
    let mut rows = store.jobs(which.study.map(|s| s.0)).await?;
    rows.sort_by_key(|job| std::cmp::Reverse((job.created, job.job)));
    let mut seen = BTreeMap::new();
    let mut views = Vec::new();
    for row in rows.iter().take(1_000) {
        let may_see = match seen.get(&row.study).copied() {
            Some(known) => known,
            None => {
                let found = store.study(row.study).await?.is_some_and(|study| caller.may_see(&study));
                seen.insert(row.study, found);
                found
            }
        };
        if may_see {
            views.push(JobView::load(&shared, row).await?);
        }
    }
    Ok(Json(views))
}

/// One job, with its members and rounds.
#[utoipa::path(get, path = "/api/v1/jobs/{job}", tag = "jobs", params(("job" = String, Path)),
    responses((status = 200, body = JobDetails), (status = 401, body = Problem), (status = 403, body = Problem),
              (status = 404, body = Problem)))]
async fn job(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Id(job): Id<JobId>,
) -> Answer<Json<JobDetails>> {
    let row = shared.job(job).await?;
    shared.own(&caller, row.study).await?;
    let names = shared.names().await?;
    let name = |site| names.get(&site).cloned().unwrap_or_default();
    let store = &shared.register.store;
    let members = store.job_members(job).await?.into_iter().map(|m| JobMemberView {
        site: m.site.to_string(),
        name: name(m.site),
        state: m.state.as_str(),
        reason: m.reason,
        released: m.released.map(|t| t.to_string()),
    });
    let rounds = store.rounds(job, ROUNDS).await?.into_iter().map(|r| RoundView {
        task: r.key.task,
        round: r.key.round,
        attempt: r.key.attempt,
        state: r.state.as_str(),
        reason: r.reason,
        opened: r.opened.to_string(),
        closed: r.closed.map(|t| t.to_string()),
        included: r.included.unwrap_or_default().into_iter().map(name).collect(),
        out: r.outs.into_iter().map(|(site, reason)| OutView { name: name(site), reason }).collect(),
    });
    let (members, rounds) = (members.collect(), rounds.collect());
    Ok(Json(JobDetails { job: JobView::load(&shared, &row).await?, members, rounds }))
}

/// The regressions of a job as tables: coefficients with errors, intervals and p values, and how well each fits. They are
/// held until every site that took part has released the results.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/fits", tag = "jobs", params(("job" = String, Path)),
    responses((status = 200, body = Vec<Fit>), (status = 401, body = Problem), (status = 403, body = Problem),
              (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn fits(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Id(job): Id<JobId>,
) -> Answer<Json<Vec<Fit>>> {
    shared.may_use(&caller, job).await?;
    let fits = shared.register.store.fits(job).await?;
    if !fits.is_empty() {
        shared.taken(&caller, job, None, "the tables of its regressions".to_owned()).await?;
    }
    Ok(Json(fits))
}

/// Stops a job.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/cancel", tag = "jobs", params(("job" = String, Path)),
    request_body = Reason,
    responses((status = 204), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
async fn cancel(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Id(job): Id<JobId>,
    Strict(Reason { reason }): Strict<Reason>,
) -> Answer<StatusCode> {
    shared.own(&caller, shared.job(job).await?.study).await?;
    let reason = crate::enrol::printable(&reason);
    shared.command(Command::Cancel { job, by: caller, reason }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Runs a job that failed or timed out again, from its first task that is not done.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/rerun", tag = "jobs", params(("job" = String, Path)),
    responses((status = 200, body = Started), (status = 401, body = Problem), (status = 403, body = Problem),
              (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn rerun(
    State(shared): State<Arc<Shared>>,
    Someone(caller): Someone,
    Id(job): Id<JobId>,
) -> Answer<Json<Started>> {
    shared.own(&caller, shared.job(job).await?.study).await?;
    match shared.command(Command::Rerun { job, by: caller }).await? {
        Reply::Job(job) => Ok(Json(Started { job: job.to_string() })),
        other => Err(unexpected(&other)),
    }
}

impl Shared {
    async fn job(&self, job: JobId) -> Answer<JobRow> {
        let found = self.register.store.job(job).await?;
        found.ok_or_else(|| Problem::not_found(format!("there is no job {job}")))
    }
}
