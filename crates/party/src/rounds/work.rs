//! Work on a round's rows: the model that it starts from comes first, then its turn, then a worker process, then what became
//! of it. One worker at a time: processor, memory and rows of a site are the same for all federations.

use std::collections::HashSet;
use std::path::PathBuf;

use hospes_cohort::device::Place;
use hospes_cohort::worker::{DeviceFailure, Order};
use hospes_ledger::{Action, Actor, ObjectKind};
use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::id::{Digest, FederationId, RoundKey, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::message::{FromSite, RoundReply};
use hospes_protocol::plan::{self, Coefficients, Component, Plan};
use hospes_protocol::round::site::{Event, State};
use sqlx::sqlite::SqliteConnection;

use super::Job;
use super::state::RoundRow;
use super::worker::{Running, WorkEvent, start};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::link::LinkCommand;
use crate::store::{At as _, parse};
use crate::view::{Notice, ResultView};

/// Time between two words about the progress of one round: enough for its deadline, and no flood.
const PROGRESS_MS: i64 = 1_000;

/// Work on one round: under way, or waiting for what it needs.
pub(crate) struct Working {
    federation: FederationId,
    phase: Phase,
    progress: Option<(u32, u32)>,
    /// When the coordinator was last told of it.
    told: Option<Timestamp>,
    /// Subjects left in the dataset when the work began; what is computed holds exactly their rows.
    subjects: Option<u64>,
    /// What the site's people should know about it.
    note: Option<String>,
}

/// How far the work is.
enum Phase {
    /// The model that the round starts from is on its way.
    AwaitsModel(Digest),
    /// Another round's work runs.
    Queued,
    /// It runs; it stops when this is dropped.
    Running(Running),
    /// It ended, and that could not be recorded yet.
    Ended(Box<WorkEvent>),
}

impl Working {
    fn new(federation: FederationId, phase: Phase) -> Self {
        Self { federation, phase, progress: None, told: None, subjects: None, note: None }
    }

    pub(crate) fn progress(&self) -> Option<(u32, u32)> {
        self.progress
    }

    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    pub(super) fn federation(&self) -> FederationId {
        self.federation
    }

    pub(super) fn subjects(&self) -> Option<u64> {
        self.subjects
    }
}

/// Longest file of the model that a task's round starts from, in bytes; `None` for a task that starts from none.
pub(crate) fn longest_model(plan: &Plan, task: &str) -> Option<u64> {
    let found = plan.tasks.get(task)?;
    let trained = match &found.component {
        Component::Evaluation(_) => plan::source(plan, found, "model")?.task,
        _ => task,
    };
    let tensors = match (&plan.tasks.get(trained)?.component, Coefficients::of(plan, trained)) {
        // What is evaluated is the model that the task ended with; a round starts from what belongs to training besides.
        (Component::NnTrain(train), _) if trained == task => plan::tensors(train, plan::inputs(plan, trained)),
        (Component::NnTrain(train), _) => plan::model_tensors(train, plan::inputs(plan, trained)),
        // The file of a round has more than the model that comes of it.
        (_, Some(coefficients)) => coefficients.tensors(),
        _ => return None,
    };
    let parameters = tensors.iter().fold(0u64, |sum, t| sum.saturating_add(t.len()));
    Some(parameters.saturating_mul(4).saturating_add(limits::MODEL_HEADER_BYTES))
}

impl Engine {
    /// Takes up the work that a permit allows: it waits for its model, then for its turn.
    pub(super) fn begin_work(&mut self, row: &RoundRow, plan: &Plan) {
        let missing = row.header.model.filter(|m| !self.model_path(row.federation, *m).exists());
        let phase = match (missing, longest_model(plan, &row.key.task)) {
            (Some(model), Some(most_bytes)) => {
                self.download(row.federation, model, most_bytes);
                Phase::AwaitsModel(model)
            }
            _ => Phase::Queued,
        };
        self.working.insert(row.key.clone(), Working::new(row.federation, phase));
    }

    pub(super) fn download(&mut self, federation: FederationId, digest: Digest, most_bytes: u64) {
        self.downloads.insert((federation, digest));
        let to = self.model_path(federation, digest);
        self.command(federation, LinkCommand::Download { digest, to, most_bytes });
    }

    /// After each event: starts the oldest work that waits for its turn, if none runs and nobody here waits for a prediction,
    /// and stops what nobody waits for.
    pub(crate) async fn go_on(&mut self) -> Result<(), PartyError> {
        self.forget_downloads();
        if self.share.pause().is_some() || self.predicting.strong_count() > 0 {
            return Ok(());
        }
        let runs = |w: &Working| matches!(w.phase, Phase::Running(_));
        let queued = |w: &Working| matches!(w.phase, Phase::Queued);
        while self.working.values().any(queued) && !self.working.values().any(runs) {
            let mut conn = self.reader().await?;
            let open = RoundRow::open(&mut conn).await?;
            let next = open.into_iter().find(|row| self.working.get(&row.key).is_some_and(queued));
            let Some(row) = next else {
                self.working.retain(|_, w| !queued(w));
                break;
            };
            let plan = Job::read(&mut conn, row.key.job).await?.plan;
            drop(conn);
            self.begin_work(&row, &plan);
            if self.working.get(&row.key).is_some_and(queued) {
                Box::pin(self.run_work(row)).await?;
            }
        }
        Ok(())
    }

    /// Whether work on a round runs, or has its turn.
    pub(crate) fn has_work(&self) -> bool {
        let may_begin = self.share.pause().is_none();
        self.working.values().any(|work| match work.phase {
            Phase::Running(_) => true,
            Phase::Queued => may_begin,
            Phase::AwaitsModel(_) | Phase::Ended(_) => false,
        })
    }

    async fn run_work(&mut self, row: RoundRow) -> Result<(), PartyError> {
        // What a federation waits for goes before what somebody here only looks at.
        self.dry_run_gives_way();
        let key = &row.key;
        // PRIVACY: an update that is to be masked never lies where payloads are sent from.
        let payload_path = if row.header.is_secure() { self.levels_path(key) } else { self.payload_path(key) };
        self.erase_payload(key);
        self.erase_kept(key);
        let mut tx = self.store.begin("start the work").await?;
        let leave = match self.ask(tx.conn(), row.federation, &row.header, row.approval, self.now()).await? {
            Ok(leave) => *leave,
            Err(refusal) => {
                drop(tx);
                return self.withdraw(key, refusal).await;
            }
        };
        let subjects = leave.circumstances.snapshot.subjects;
        let model = row.header.model.filter(|_| longest_model(&leave.circumstances.plan, &key.task).is_some());
        let kept = self.kept_before(tx.conn(), &row, &leave.circumstances.plan, subjects).await?;
        let snapshot = self.snapshot(&leave.dataset);
        let opt_outs = self.opt_outs(tx.conn()).await?;
        let read = leave.permit.snapshot();
        let entry = self.round_entry(Actor::Engine, Action::TrainingStarted, &row);
        self.append(&mut tx, &entry.object(ObjectKind::Snapshot, read, Some(read))).await?;
        let order = Order {
            dry: false,
            attack: false,
            site: leave.stored.approval.document.envelope.site,
            approval: leave.stored.approval,
            circumstances: leave.circumstances,
            key: self.snapshot_key(&leave.dataset).await?,
            snapshot: snapshot.document,
            snapshot_path: snapshot.path,
            opt_outs,
            model_path: model.map(|m| self.model_path(row.federation, m)),
            payload_path,
            state_in: kept,
            state_out: Some(self.kept_path(key)),
            place: Place::Processor,
            share: self.share.limits().share,
        };
        tx.commit().await?;
        let threads = self.share.limits().threads;
        let events = self.work_events.clone();
        let phase = match start(&self.config, threads, &self.devices, &self.seam, key.clone(), order, events) {
            Ok(running) => Phase::Running(running),
            Err(error) => Phase::Ended(Box::new(WorkEvent::Crashed(format!("it could not be started: {error}")))),
        };
        let failed = matches!(phase, Phase::Ended(_));
        let working = Working { subjects: Some(subjects), ..Working::new(row.federation, phase) };
        self.working.insert(key.clone(), working);
        if failed { self.finish(key).await } else { Ok(()) }
    }

    /// Goes on with a round that is offered again: a model may have been lost with the connection.
    pub(super) async fn resume(&mut self, row: &RoundRow) -> Result<(), PartyError> {
        self.repeat_downloads(row.federation).await?;
        self.send_waiting(Some(&row.key)).await
    }

    /// Work under way.
    pub(super) fn running(&self) -> impl Iterator<Item = (&RoundKey, &Running)> {
        self.working.iter().filter_map(|(key, work)| match &work.phase {
            Phase::Running(running) => Some((key, running)),
            _ => None,
        })
    }

    /// Models that did not come before the connection was cut are asked for again.
    pub(super) async fn repeat_downloads(&mut self, federation: FederationId) -> Result<(), PartyError> {
        let waits = |w: &Working| w.federation == federation && matches!(w.phase, Phase::AwaitsModel(_));
        let keys: Vec<RoundKey> = self.working.iter().filter(|(_, w)| waits(w)).map(|(k, _)| k.clone()).collect();
        for key in keys {
            let mut conn = self.reader().await?;
            let row = RoundRow::read(&mut conn, &key).await?;
            let plan = Job::read(&mut conn, key.job).await?.plan;
            drop(conn);
            self.begin_work(&row, &plan);
        }
        Ok(())
    }

    /// Stops downloads that no round waits for any more, and deletes what came of them.
    fn forget_downloads(&mut self) {
        let wanted = |(federation, digest): &(FederationId, Digest)| {
            !self.waiting_for(*federation, *digest).is_empty()
                || self.fetching.values().any(|fetching| fetching.wants(*federation, *digest))
        };
        let idle: Vec<_> = self.downloads.iter().copied().filter(|d| !wanted(d)).collect();
        for (federation, digest) in idle {
            self.command(federation, LinkCommand::Forget { digest });
            self.end_download(federation, digest);
        }
    }

    /// Deletes what a download left behind.
    fn end_download(&mut self, federation: FederationId, digest: Digest) {
        self.downloads.remove(&(federation, digest));
        // It may be gone, or whole already; what is written once more after this is swept at the next start.
        let _ = std::fs::remove_file(self.model_path(federation, digest).with_extension("safetensors.part"));
    }

    pub(crate) async fn on_downloaded(&mut self, federation: FederationId, model: Digest) -> Result<(), PartyError> {
        self.downloads.remove(&(federation, model));
        for key in self.waiting_for(federation, model) {
            let mut tx = self.store.begin("take a model").await?;
            let row = RoundRow::read(tx.conn(), &key).await?;
            let entry = self.round_entry(Actor::peer(federation), Action::ModelReceived, &row);
            self.append(&mut tx, &entry.object(ObjectKind::Model, model.short(), Some(model))).await?;
            tx.commit().await?;
            self.working.insert(key, Working::new(federation, Phase::Queued));
        }
        self.on_fetched(federation, model).await
    }

    pub(crate) async fn on_download_failed(
        &mut self,
        federation: FederationId,
        model: Digest,
        reason: String,
    ) -> Result<(), PartyError> {
        self.end_download(federation, model);
        self.on_fetch_failed(federation, model, &reason);
        for key in self.waiting_for(federation, model) {
            let words = "the model that the round starts from could not be fetched";
            self.fail(&key, &format!("{words}: {reason}"), words).await?;
        }
        Ok(())
    }

    fn waiting_for(&self, federation: FederationId, model: Digest) -> Vec<RoundKey> {
        let waits =
            |w: &Working| w.federation == federation && matches!(&w.phase, Phase::AwaitsModel(m) if *m == model);
        self.working.iter().filter(|(_, w)| waits(w)).map(|(k, _)| k.clone()).collect()
    }

    /// Tells coordinators that rounds which wait for a model or their turn, or are worked on, are not forgotten: a site
    /// that says nothing counts as silent, and only training tells of its steps. What people's need of the machine puts
    /// off is not told.
    pub(crate) fn say_working(&mut self) {
        let paused = self.share.pause().is_some();
        let told = |w: &Working| match &w.phase {
            Phase::AwaitsModel(_) | Phase::Queued => !paused,
            Phase::Running(running) => !running.rests(),
            Phase::Ended(_) => false,
        };
        let rounds: Vec<(RoundKey, FederationId)> =
            self.working.iter().filter(|(_, w)| told(w)).map(|(k, w)| (k.clone(), w.federation)).collect();
        for (round, federation) in rounds {
            self.say(federation, FromSite::RoundReply { round, reply: RoundReply::Working });
        }
    }

    /// A task has one open attempt here: older ones, of whose end nothing was heard, are over.
    pub(super) async fn end_older(&mut self, newer: &RoundKey) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let open = RoundRow::open(&mut conn).await?;
        drop(conn);
        let same = |k: &RoundKey| k.job == newer.job && k.task == newer.task && k != newer;
        let ends = |s: &State| {
            let undone = matches!(s, State::Offered | State::Working | State::Advertised | State::Shared);
            undone || matches!(s, State::Committed(_))
        };
        let over = Refusal::new(RefusalCode::TooLate, "a newer round of the task was opened");
        let older = open.into_iter().filter(|r| same(&r.key) && ends(&r.state));
        self.withdraw_all(older.map(|r| (r.key, over.clone())).collect()).await
    }

    pub(crate) async fn on_work(&mut self, key: RoundKey, event: WorkEvent) -> Result<(), PartyError> {
        if self.awaits_dry_run(&key) {
            return Box::pin(self.on_dry_work(event)).await;
        }
        let now = self.now();
        let Some(working) = self.working.get_mut(&key) else {
            // What was stopped may still say a last word; nobody waits for it, nor for what it made.
            if let WorkEvent::Done(_) = event {
                self.erase_payload(&key);
                self.erase_kept(&key);
            }
            return Ok(());
        };
        if let WorkEvent::Progress { done, total } = event {
            working.progress = Some((done, total));
            let is_due = working.told.is_none_or(|told| now.since(told) >= PROGRESS_MS);
            if done > 0 && is_due {
                working.told = Some(now);
                let federation = working.federation;
                self.say(federation, FromSite::Progress { round: key, done, total });
                self.notify(Notice::Jobs);
            }
            return Ok(());
        }
        if let WorkEvent::Note(note) = event {
            tracing::warn!(round = %key, note, "work on a round");
            self.notes.add(&key, now, &note);
            working.note = Some(note);
            self.notify(Notice::Jobs);
            return Ok(());
        }
        working.phase = Phase::Ended(Box::new(event));
        self.finish(&key).await
    }

    /// Records how work ended. If that fails, it is tried again until it succeeds or the deadline passes: with each tick on a
    /// full disk, once a minute where the keychain is why (see `Rest`); nothing leaves before.
    async fn finish(&mut self, key: &RoundKey) -> Result<(), PartyError> {
        let Some(Working { phase: Phase::Ended(event), subjects, .. }) = self.working.get(key) else { return Ok(()) };
        // Work that never began has no result; no dataset has so many subjects.
        let subjects = subjects.unwrap_or(u64::MAX);
        match WorkEvent::clone(event) {
            WorkEvent::Progress { .. } | WorkEvent::Note(_) => {}
            WorkEvent::Done(done) => self.commit_payload(key, *done, subjects).await?,
            WorkEvent::Refused(refusal) => self.withdraw(key, refusal).await?,
            WorkEvent::Failed(failure) => self.fail(key, &failure.local, failure.outward.words()).await?,
            WorkEvent::Crashed(reason) | WorkEvent::DeviceFailed(DeviceFailure { reason, .. }) => {
                let reason = format!("the worker process failed: {reason}");
                self.fail(key, &reason, hospes_cohort::Outward::Engine.words()).await?;
            }
        }
        self.working.remove(key);
        Ok(())
    }

    /// Records endings that could not be recorded before. One that still cannot be does not keep the others.
    pub(super) async fn finish_ended(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        if !self.unrecorded.is_over(now) {
            return Ok(());
        }
        let ended: Vec<RoundKey> =
            self.working.iter().filter(|(_, w)| matches!(w.phase, Phase::Ended(_))).map(|(k, _)| k.clone()).collect();
        let mut result = Ok(());
        for key in ended {
            result = result.and(self.finish(&key).await);
        }
        self.unrecorded.note(now, &result);
        result
    }

    /// The work failed: in full for those of the site's people who may see figures of its data, in a fixed sentence for
    /// the coordinator and for the ledger, which auditors read and which is exported.
    pub(super) async fn fail(&mut self, key: &RoundKey, local: &str, outward: &str) -> Result<(), PartyError> {
        let mut tx = self.store.begin("record a failure").await?;
        let mut row = RoundRow::read(tx.conn(), key).await?;
        let actions = row.step(&mut tx, Event::Failed(outward.to_owned()), self.now()).await?;
        if local != outward {
            row.show(&mut tx, self.sealed_view(&ResultView::Failure(local.to_owned())).await?).await?;
        }
        let entry = self.round_entry(Actor::Engine, Action::TrainingFailed, &row).failed(outward);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.working.remove(key);
        self.erase_payload(key);
        self.erase_kept(key);
        self.act(&row, actions);
        Ok(())
    }

    /// What was being computed when the process ended is lost; it ends as a failure (invariant I7).
    pub(crate) async fn end_interrupted_work(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let open = RoundRow::open(&mut conn).await?;
        drop(conn);
        for row in open.iter().filter(|r| matches!(r.state, State::Offered | State::Working)) {
            let words = "the site was restarted while it worked";
            if row.header.is_secure() {
                self.erase_seed(&row.key).await?;
            }
            self.fail(&row.key, words, words).await?;
        }
        Ok(())
    }

    /// Where a model of a federation lies. Each has files of its own: a coordinator must not learn, by what is not asked of
    /// it, what another one sent, nor write into it.
    pub(super) fn model_path(&self, federation: FederationId, model: Digest) -> PathBuf {
        self.config.models().join(format!("{federation}-{model}.safetensors"))
    }

    /// Files of models that are still needed: results with their cards, and those that rounds of runs under way start from.
    pub(super) async fn models_needed(&self, conn: &mut SqliteConnection) -> Result<HashSet<PathBuf>, PartyError> {
        let results: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT jobs.job, jobs.model, studies.federation FROM jobs JOIN studies ON studies.study = jobs.study
             WHERE jobs.model IS NOT NULL",
        )
        .fetch_all(&mut *conn)
        .await
        .at("read results")?;
        let mut needed = HashSet::new();
        for (job, model, federation) in &results {
            needed.insert(self.model_path(parse(federation, "federation")?, parse(model, "model")?));
            needed.insert(self.card_path(parse(job, "job")?));
        }
        for job in Job::unfinished(conn).await?.iter().filter(|job| !job.is_over()) {
            let rounds = RoundRow::of_job(conn, &job.job.to_string()).await?;
            needed.extend(rounds.iter().filter_map(|r| r.header.model).map(|m| self.model_path(job.federation, m)));
        }
        Ok(needed)
    }

    /// Models of a job that has ended are no longer needed here, but for its result and what other jobs need.
    pub(super) async fn drop_models(&self, job: &Job) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let needed = self.models_needed(&mut conn).await?;
        for row in RoundRow::of_job(&mut conn, &job.job.to_string()).await? {
            let path = row.header.model.map(|m| self.model_path(job.federation, m));
            if let Some(path) = path.filter(|p| !needed.contains(p)) {
                // A file that is gone already does no harm.
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(())
    }
}
