//! Runs as the site's people see them: states, tasks, results, the log of a run, the machine's devices.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hospes_cohort::ReportView;
use hospes_cohort::worker::{Done, LocalView};
use hospes_ledger::{Filter, Ledger, ObjectKind, Outcome, Record};
use hospes_protocol::approval::{Peer, Trust};
use hospes_protocol::id::{JobId, RoundKey, Timestamp};
use hospes_protocol::plan;
use hospes_protocol::policy::LocalViews;
use hospes_protocol::round::site::State;
use hospes_protocol::text::shown;
use sqlx::sqlite::SqliteConnection;

use super::state::{RoundRow, of_tasks, round_state, state_reason};
use super::{Devices, Job, Working, compare, pause};
use crate::datasets::{DATA_KEY, VIEWERS, seal, unseal};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::memberships;
use crate::people::Session;
use crate::requests;
use crate::store::{At as _, bad_column, to_json};
use crate::view::{
    DecidedBy, DeviceView, JobState, JobView, LogLevel, LogLine, Page, PeerLine, ResultView, RoundState, RoundView,
    TaskInput, TaskState, TaskView,
};

/// What a sealed local view is authenticated as.
const LOCAL_VIEW: &[u8] = b"local-view";
/// Lines of a run's log that are shown.
const LOG_LINES: usize = 300;
/// Notes that are kept of one run, and runs of which some are kept.
const NOTES: usize = 100;
const NOTED_RUNS: usize = 64;

/// What to know about the work of runs besides what the ledger has: that a card failed, where work goes on. It is gone
/// with the process.
#[derive(Default)]
pub(crate) struct Notes(HashMap<JobId, VecDeque<LogLine>>);

impl Notes {
    pub(super) fn add(&mut self, round: &RoundKey, at: Timestamp, words: &str) {
        if self.0.len() >= NOTED_RUNS && !self.0.contains_key(&round.job) {
            let oldest = self.0.iter().min_by_key(|(_, lines)| lines.back().map(|line| line.at)).map(|(job, _)| *job);
            oldest.map(|job| self.0.remove(&job));
        }
        let lines = self.0.entry(round.job).or_default();
        if lines.len() >= NOTES {
            lines.pop_front();
        }
        let place = Some(format!("{} {}", round.task, round.round));
        lines.push_back(LogLine { at, level: LogLevel::Warning, place, words: shown(words, 400) });
    }
}

/// What this machine trains on, to be found out outside the loop: cards are tried, which takes seconds.
pub(crate) struct DeviceOrder {
    devices: Arc<Devices>,
    decided_by: DecidedBy,
    worker_memory_bytes: Option<u64>,
    runs_at_a_time: usize,
}

impl DeviceOrder {
    pub(crate) fn run(self) -> DeviceView {
        let (cards, used) = self.devices.cards(self.decided_by == DecidedBy::People);
        let (used, reason) = match used {
            Ok(name) => (Some(name), None),
            Err(reason) => (None, Some(reason)),
        };
        DeviceView {
            choice: self.devices.choice(),
            decided_by: self.decided_by,
            cards,
            used,
            reason,
            worker_memory_bytes: self.worker_memory_bytes,
            runs_at_a_time: u32::try_from(self.runs_at_a_time).unwrap_or(u32::MAX),
        }
    }
}

/// The tasks of a run's plan, with how far each is at this site.
async fn tasks(conn: &mut SqliteConnection, job: &Job) -> Result<Vec<TaskView>, PartyError> {
    let begun = of_tasks(conn, job.job).await?;
    let newest = begun.values().map(|(_, _, at)| *at).max();
    let view = |(name, task): (&String, &plan::Task)| {
        let state = match begun.get(name) {
            Some((state, _, at)) => Some(task_state(state, job.is_over() || newest > Some(*at))),
            None if task.component.rounds() == 0 => None,
            None if job.is_over() => Some(TaskState::Skipped),
            None => Some(TaskState::Waiting),
        };
        let inputs = task.inputs.keys().filter_map(|port| {
            let source = plan::source(&job.plan, task, port)?;
            Some(TaskInput { port: port.clone(), task: source.task.to_owned(), output: source.output.to_owned() })
        });
        TaskView {
            name: name.clone(),
            component: task.component.name().to_owned(),
            inputs: inputs.collect(),
            state,
            rounds: begun.get(name).map_or(0, |(_, rounds, _)| *rounds),
        }
    };
    Ok(job.plan.tasks.iter().map(view).collect())
}

/// The other sites of a run as its rounds take them: those that were approved, each trusted as far as then and now.
async fn others(conn: &mut SqliteConnection, job: &Job) -> Result<Vec<Peer>, PartyError> {
    let Some(stored) = requests::approval_in_force(conn, job.study).await? else { return Ok(Vec::new()) };
    let membership = memberships::by_id(conn, job.federation).await?;
    let now = memberships::roster::trust(conn, &membership).await?;
    let mut peers = stored.approval.document.envelope.roster.clone();
    for peer in &mut peers {
        peer.trust = peer.trust.min(now.get(&peer.site).copied().unwrap_or(Trust::AssertedOnly));
    }
    Ok(peers)
}

/// How far a task is whose last round is in this state. `went_on`: another task came after it, or the run has ended.
fn task_state(state: &State, went_on: bool) -> TaskState {
    match round_state(state) {
        RoundState::Refused | RoundState::Failed | RoundState::Withdrawn => TaskState::Failed,
        RoundState::Published if went_on => TaskState::Done,
        RoundState::Abandoned if went_on => TaskState::Failed,
        _ => TaskState::Working,
    }
}

impl Engine {
    pub(crate) async fn device_order(&mut self, session: Session) -> Result<DeviceOrder, PartyError> {
        self.acting(&session, "see the devices", &[]).await?;
        Ok(DeviceOrder {
            devices: self.devices.clone(),
            decided_by: self.device_decided_by(),
            worker_memory_bytes: self.config.worker_memory_bytes,
            runs_at_a_time: self.config.runs_at_a_time,
        })
    }

    /// The newest lines about a run: what the ledger has of it, and notes of this process, oldest first.
    pub(crate) async fn job_log(&mut self, session: Session, job: JobId) -> Result<Vec<LogLine>, PartyError> {
        self.inside(&session, "see a run's log", &[]).await?;
        let mut conn = self.reader().await?;
        Job::read(&mut conn, job).await?;
        let filter = Filter { job: Some(job), ..Filter::default() };
        let mut lines: Vec<LogLine> = Vec::new();
        let mut before = None;
        while lines.len() < LOG_LINES {
            let page = Ledger::on(&mut *conn).page(&Filter { before, ..filter.clone() }, u32::MAX).await;
            let page = page.at("read a run's log")?;
            lines.extend(page.records.iter().map(log_line));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        lines.extend(self.notes.0.get(&job).into_iter().flatten().cloned());
        lines.sort_by_key(|line| std::cmp::Reverse(line.at));
        lines.truncate(LOG_LINES);
        lines.reverse();
        Ok(lines)
    }

    /// Runs without what the site's own people see of their results.
    pub(crate) async fn jobs(&mut self, session: Session, page: Page) -> Result<Vec<JobView>, PartyError> {
        self.inside(&session, "see runs", &[]).await?;
        let mut conn = self.reader().await?;
        let mut views = Vec::new();
        for job in Job::page(&mut conn, page).await? {
            views.push(self.job_view(&mut conn, &job, Page::default(), None).await?);
        }
        Ok(views)
    }

    /// A run with its results, as the site's own people see them; nobody else does.
    pub(crate) async fn job(&mut self, session: Session, job: JobId, page: Page) -> Result<JobView, PartyError> {
        self.inside(&session, "see a run's results", VIEWERS).await?;
        let mut conn = self.reader().await?;
        let policy = requests::policy::current(&mut conn).await?;
        let shown = policy.disclosure.local_views == LocalViews::Full;
        let key = if shown { Some(self.secret32(DATA_KEY).await?) } else { None };
        let job = Job::read(&mut conn, job).await?;
        let mut view = self.job_view(&mut conn, &job, page, key.as_deref()).await?;
        view.tasks = tasks(&mut conn, &job).await?;
        let others = others(&mut conn, &job).await?;
        if !others.is_empty() {
            view.protection = requests::protection(&job.plan, &policy, &others);
        }
        let line = |p: Peer| PeerLine { site: p.site, name: p.name, organisation: p.organisation, trust: p.trust };
        view.others = others.into_iter().map(line).collect();
        Ok(view)
    }

    async fn job_view(
        &self,
        conn: &mut SqliteConnection,
        job: &Job,
        page: Page,
        key: Option<&[u8; 32]>,
    ) -> Result<JobView, PartyError> {
        let title = shown(&requests::study(conn, job.study).await?.study.terms.title, 200);
        let (rows, rounds_in_all) = RoundRow::page(conn, job.job, page).await?;
        let rounds = rows.into_iter().map(|row| self.round_view(row, key)).collect::<Result<Vec<_>, _>>()?;
        // Of a run that has ended nothing is sat out any more.
        let paused = if job.is_over() { None } else { pause::paused(conn, job.job).await? };
        Ok(JobView {
            job: job.job,
            study: job.study,
            title,
            federation: job.federation,
            state: JobState::named(&job.state).ok_or_else(|| bad_column("state"))?,
            reason: job.reason.as_ref().map(|r| shown(r, 400)),
            paused: paused.map(|r| shown(&r, 400)),
            since: job.at,
            comparisons: compare::comparisons(&job.plan, &rounds),
            rounds,
            rounds_in_all,
            tasks: Vec::new(),
            protection: Vec::new(),
            others: Vec::new(),
            model: job.model,
            released: job.released,
            held: job.release == "held",
        })
    }

    /// What the site's own people see of a round, as it is kept.
    pub(super) async fn sealed_view(&self, view: &impl serde::Serialize) -> Result<Vec<u8>, PartyError> {
        let key = self.secret32(DATA_KEY).await?;
        seal(&key, LOCAL_VIEW, to_json(view).as_bytes())
    }

    /// The same of what the worker made.
    pub(super) async fn sealed_result(&self, done: &Done) -> Result<Vec<u8>, PartyError> {
        self.sealed_view(&Kept { view: &done.view, alone: done.alone.as_deref() }).await
    }

    fn round_view(&self, row: RoundRow, key: Option<&[u8; 32]>) -> Result<RoundView, PartyError> {
        let mut kept: Option<serde_json::Value> = match (key, &row.view) {
            (Some(key), Some(sealed)) => serde_json::from_slice(&unseal(key, LOCAL_VIEW, sealed)?).ok(),
            _ => None,
        };
        let alone = kept.as_mut().and_then(|kept| kept.as_object_mut()?.remove(ALONE));
        let alone = alone.and_then(|alone| serde_json::from_value(alone).ok());
        let view = kept.and_then(|kept| serde_json::from_value(kept).ok());
        let cut = matches!(&view, Some(ResultView::Training(training)) if training.clipped > 0).then_some(CUT);
        Ok(RoundView {
            state: round_state(&row.state),
            reason: state_reason(&row.state).map(|r| shown(&r, 400)),
            progress: self.working.get(&row.key).and_then(Working::progress),
            note: self.working.get(&row.key).and_then(Working::note).or(cut).map(str::to_owned),
            view,
            alone,
            round: row.key,
            at: row.at,
        })
    }
}

/// A result and what stands beside it, in one object: a result alone is kept as it is.
#[derive(serde::Serialize)]
struct Kept<'a> {
    #[serde(flatten)]
    view: &'a LocalView,
    #[serde(skip_serializing_if = "Option::is_none")]
    alone: Option<&'a ReportView>,
}

/// Its field.
const ALONE: &str = "alone";

/// What is said of a round whose update was cut: nothing else shows that the model learns less than it could.
const CUT: &str = "some numbers of the update moved by more than the plan allows in one round and were cut; the researcher \
                   can allow more (quantise.clip)";

/// An entry of the ledger as a line of its run's log.
fn log_line(record: &Record) -> LogLine {
    let round = record.objects.iter().find(|object| object.kind == ObjectKind::Round);
    let action = record.action.map_or_else(|| "erased".to_owned(), |action| action.to_string().replace('_', " "));
    let words = match &record.reason {
        Some(reason) => format!("{action}: {reason}"),
        None => action,
    };
    let level = match record.outcome {
        Some(Outcome::Failed) => LogLevel::Error,
        Some(Outcome::Refused) => LogLevel::Warning,
        _ => LogLevel::Info,
    };
    LogLine {
        at: record.when.as_ref().map_or(Timestamp::from_millis(0), |when| when.at),
        level,
        place: round.and_then(|object| place_of(&object.id)),
        words: shown(&words, 400),
    }
}

/// Task and round out of the id of a round, `job/task/epoch.round.attempt`.
fn place_of(id: &str) -> Option<String> {
    let (rest, numbers) = id.rsplit_once('/')?;
    let (_, task) = rest.split_once('/')?;
    let round = numbers.split('.').nth(1)?;
    Some(format!("{task} {round}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_kept_with_what_stands_beside_it_and_alone_as_before() {
        let report = || ReportView::Regression { rows: 7, log_likelihood: -1.5 };
        let view = LocalView::Report(report());
        assert_eq!(to_json(&Kept { view: &view, alone: None }), to_json(&view));
        let both = to_json(&Kept { view: &view, alone: Some(&report()) });
        let mut kept: serde_json::Value = serde_json::from_str(&both).unwrap();
        let alone = kept.as_object_mut().unwrap().remove(ALONE).unwrap();
        assert_eq!(serde_json::from_value::<ReportView>(alone).unwrap(), report());
        assert_eq!(serde_json::from_value::<ResultView>(kept).unwrap(), ResultView::Report(Box::new(report())));
    }

    #[test]
    fn a_round_is_shown_by_its_task_and_number() {
        let job = JobId::new(Timestamp::from_millis(1_790_000_000_000), [7; 10]);
        let key = RoundKey { job, task: "train".into(), epoch: 1, round: 12, attempt: 2 };
        assert_eq!(place_of(&key.to_string()).as_deref(), Some("train 12"));
        assert_eq!(place_of("what/else"), None);
    }

    #[test]
    fn notes_of_the_oldest_runs_are_dropped_first() {
        let mut notes = Notes::default();
        let job = |i: usize| JobId::new(Timestamp::from_millis(1_790_000_000_000), [u8::try_from(i).unwrap(); 10]);
        for i in 0..=NOTED_RUNS {
            let key = RoundKey { job: job(i), task: "train".into(), epoch: 1, round: 1, attempt: 1 };
            for at in 0..=NOTES {
                let at = i64::try_from(i * 1_000 + at).unwrap();
                notes.add(&key, Timestamp::from_millis(at), "the graphics card failed");
            }
        }
        assert_eq!(notes.0.len(), NOTED_RUNS);
        assert!(!notes.0.contains_key(&job(0)));
        assert!(notes.0.values().all(|lines| lines.len() == NOTES));
    }
}
