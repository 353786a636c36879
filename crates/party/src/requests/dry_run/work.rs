//! The turns of a dry run: its tasks are computed one after the other by the worker that rounds have, which goes to rounds
//! first, and not in quiet hours. What comes of each is in the log before somebody sees it.

use hospes_cohort::Outward;
use hospes_cohort::device::Place;
use hospes_cohort::worker::{DeviceFailure, Done, Failure, Order};
use hospes_ledger::{Action, Actor, Entry, ObjectKind, Purpose};
use hospes_protocol::id::{RoundKey, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::message::UploadKind;
use hospes_protocol::plan;
use hospes_protocol::text::{in_bytes, shown};
use sqlx::sqlite::SqliteConnection;

use super::draft::{Draft, DryLeave, Tried};
use super::{DryRun, Over, Phase, Scratch};
use crate::audit::Because as _;
use crate::datasets;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::requests::policy;
use crate::rounds::worker::{WorkEvent, start};
use crate::view::{Notice, Pause};

/// Time between two words about the progress of a task, in milliseconds.
const PROGRESS_MS: i64 = 1_000;
/// Why a dry run ends whose rows are not those of the dataset any more.
const CHANGED: &str = "the dataset was removed, or somebody opted out, since the rows were read; make it anew";
/// Why a dry run ends that was made under other rules than those of now.
const OTHER_RULES: &str = "this site's policy changed since it was begun; make it anew";
/// Why a dry run ends that never gets through.
const TOO_OFTEN: &str = "rounds or quiet hours came in between ten times (limit ROUND_ATTEMPTS); make it anew when the \
                         machine has more time";
/// Why a dry run ends that takes too long.
const TOO_LONG: &str = "it computed for half an hour, the longest time that a dry run may take (limit DRY_RUN_MS)";

impl DryRun {
    /// Stops what is computed; the time that it took is used up.
    fn rest(&mut self, now: Timestamp) {
        if matches!(self.phase, Phase::Running(_)) {
            self.left_ms -= now.since(self.since).max(0);
            self.phase = Phase::Waiting;
            self.progress = None;
        }
    }

    fn tried(&self, attempt: u32, now: Timestamp) -> Option<Tried<'_>> {
        let deadline = now.plus_millis(self.left_ms.max(1));
        self.task().map(|task| Tried { job: self.job, task, attempt, deadline })
    }
}

impl Engine {
    pub(crate) fn awaits_dry_run(&self, key: &RoundKey) -> bool {
        self.dry_run.as_ref().is_some_and(|dry| dry.awaits(key))
    }

    /// Work on a round begins: a dry run that is computed is stopped, and begins its task anew when it has its turn again.
    pub(crate) fn dry_run_gives_way(&mut self) {
        let now = self.now();
        let runs = |dry: &&mut DryRun| matches!(dry.phase, Phase::Running(_));
        if let Some(dry) = self.dry_run.as_mut().filter(runs) {
            dry.rest(now);
            self.notify(Notice::DryRun);
        }
    }

    /// After each event: begins the next task, if the machine is free, and stops where it must not be used.
    ///
    /// That somebody works at the machine stops no dry run: whoever waits for it works there.
    pub(crate) async fn go_on_with_dry_run(&mut self) -> Result<(), PartyError> {
        let is_quiet = matches!(self.share.pause(), Some(Pause::QuietHours { .. }));
        match self.dry_run.as_ref().map(|dry| &dry.phase) {
            Some(Phase::Running(_)) if is_quiet => self.dry_run_gives_way(),
            Some(Phase::Waiting) if !is_quiet && !self.has_work() => {
                if let Err(error) = Box::pin(self.try_next_task()).await {
                    // It would fail again after each event.
                    let words = format!("it could not be started: {error}");
                    self.end_dry_run(Over::Failed(words)).await?;
                    return Err(error);
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn try_next_task(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        let Some(dry) = &self.dry_run else { return Ok(()) };
        let attempt = dry.attempt + 1;
        let Some(tried) = dry.tried(attempt, now) else { return self.end_dry_run(Over::Done).await };
        if dry.left_ms <= 0 {
            return self.end_dry_run(Over::Stopped(TOO_LONG.to_owned(), None)).await;
        }
        if attempt > limits::ROUND_ATTEMPTS {
            return self.end_dry_run(Over::Stopped(TOO_OFTEN.to_owned(), None)).await;
        }
        let mut conn = self.reader().await?;
        let leave = match Box::pin(self.ask_dry(&mut conn, &dry.draft, tried)).await? {
            Ok(leave) if leave.circumstances.snapshot.subjects == dry.draft.subjects => leave,
            Ok(_) => {
                drop(conn);
                return self.end_dry_run(Over::Stopped(CHANGED.to_owned(), None)).await;
            }
            Err(refusal) => {
                drop(conn);
                return self.end_dry_run(Over::Stopped(refusal.detail, None)).await;
            }
        };
        let opt_outs = self.opt_outs(&mut conn).await?;
        drop(conn);
        let DryLeave { circumstances, dataset } = *leave;
        let key = circumstances.header.key();
        let snapshot = self.snapshot(&dataset);
        // What a strategy keeps here is what the evaluation of its model goes on from.
        let trained = plan::trained_by(&dry.draft.plan, &key.task).unwrap_or(&key.task);
        let at = dry.draft.tasks.iter().position(|task| task == trained);
        let kept = at.and_then(|at| dry.scratch.paths.get(at)).cloned();
        let (state_in, state_out) = match trained == key.task {
            true => (None, kept),
            false => (kept.filter(|path| path.exists()), None),
        };
        if let Some(path) = &state_out {
            // Left by an attempt that gave way; that there is none is fine.
            let _ = std::fs::remove_file(path);
        }
        let order = Order {
            approval: dry.draft.approval.clone(),
            dry: true,
            attack: dry.attack,
            site: dry.draft.approval.document.envelope.site,
            circumstances,
            key: self.snapshot_key(&dataset).await?,
            snapshot: snapshot.document,
            snapshot_path: snapshot.path,
            opt_outs,
            model_path: None,
            payload_path: self.config.scratch().join("never-written"),
            state_in,
            state_out,
            place: Place::Processor,
            share: self.share.limits().share,
        };
        let threads = self.share.limits().threads;
        let events = self.work_events.clone();
        let started = start(&self.config, threads, &self.devices, &self.seam, key, order, events);
        let Some(dry) = &mut self.dry_run else { return Ok(()) };
        (dry.attempt, dry.since, dry.progress) = (attempt, now, None);
        match started {
            Ok(running) => dry.phase = Phase::Running(running),
            Err(error) => return self.end_dry_run(Over::Failed(format!("it could not be started: {error}"))).await,
        }
        self.notify(Notice::DryRun);
        Ok(())
    }

    /// What the worker says about the task that is computed.
    pub(crate) async fn on_dry_work(&mut self, event: WorkEvent) -> Result<(), PartyError> {
        let now = self.now();
        match event {
            WorkEvent::Progress { done, total } => {
                let Some(dry) = &mut self.dry_run else { return Ok(()) };
                dry.progress = Some((done, total));
                if now.since(dry.told).abs() >= PROGRESS_MS {
                    dry.told = now;
                    self.notify(Notice::DryRun);
                }
                Ok(())
            }
            WorkEvent::Note(note) => {
                tracing::warn!(note, "work on a dry run");
                if let Some(dry) = &mut self.dry_run {
                    dry.note = Some(note);
                }
                self.notify(Notice::DryRun);
                Ok(())
            }
            WorkEvent::Done(done) => self.keep_tried(Ok(done)).await,
            WorkEvent::Failed(failure) if failure.outward == Outward::TooLate => {
                self.end_dry_run(Over::Stopped(TOO_LONG.to_owned(), None)).await
            }
            WorkEvent::Failed(failure) => self.keep_tried(Err(failure)).await,
            WorkEvent::Refused(refusal) => self.end_dry_run(Over::Stopped(refusal.detail, None)).await,
            WorkEvent::Crashed(reason) | WorkEvent::DeviceFailed(DeviceFailure { reason, .. }) => {
                self.end_dry_run(Over::Failed(format!("the worker process failed: {reason}"))).await
            }
        }
    }

    /// Keeps what a task gave, or why it gave nothing, which is what would become of it in a run: the others are tried all the
    /// same.
    async fn keep_tried(&mut self, made: Result<Box<Done>, Failure>) -> Result<(), PartyError> {
        let now = self.now();
        let Some(dry) = &mut self.dry_run else { return Ok(()) };
        let task = shown(dry.task().unwrap_or_default(), 100);
        dry.rest(now);
        let mut entry = self.dry_entry();
        match &made {
            Ok(done) => {
                let kind = match done.kind {
                    UploadKind::Update => ObjectKind::Update,
                    UploadKind::Figures => ObjectKind::Figures,
                };
                entry.engine.device = Some(shown(&done.device, 100));
                entry = entry
                    .object(kind, done.digest.short(), Some(done.digest))
                    .because(format!("'{task}': {} were made; nothing left", in_bytes(done.bytes)));
            }
            Err(failure) => entry = entry.failed(format!("'{task}': {}", failure.outward.words())),
        }
        // PRIVACY: what the log does not have, nobody is shown.
        if let Err(error) = self.record("enter what a dry run made", &entry).await {
            let words = "what it made could not be entered in the log, and is not shown";
            if let Some(dry) = &mut self.dry_run {
                dry.phase = Phase::Over(Over::Failed(words.to_owned()));
                dry.scratch = Scratch::default();
            }
            self.notify(Notice::DryRun);
            return Err(error);
        }
        let Some(dry) = &mut self.dry_run else { return Ok(()) };
        dry.made.push(made);
        (dry.attempt, dry.note) = (0, None);
        if dry.task().is_none() {
            return self.end_dry_run(Over::Done).await;
        }
        self.notify(Notice::DryRun);
        Ok(())
    }

    /// An entry about the dry run, on behalf of whoever began it.
    fn dry_entry(&self) -> Entry {
        let mut entry = self.entry(Actor::Engine, Action::DryRun);
        if let Some(dry) = &self.dry_run {
            let study = dry.draft.study;
            entry = entry
                .object(ObjectKind::Study, study, None)
                .object(ObjectKind::Dataset, dry.draft.dataset, None)
                .purpose(Purpose { study: Some(study), ..Purpose::default() });
            entry.on_behalf = Some(dry.by.clone());
        }
        entry
    }

    /// Ends a dry run that is under way. What is computed stops, whether that can be entered or not.
    pub(super) async fn end_dry_run(&mut self, over: Over) -> Result<(), PartyError> {
        let now = self.now();
        let mut entry = self.dry_entry();
        let Some(dry) = self.dry_run.as_mut().filter(|dry| dry.is_under_way()) else { return Ok(()) };
        dry.rest(now);
        entry = match &over {
            Over::Done => entry.because(format!("ended: {}", dry.sum())),
            Over::Stopped(words, None) => entry.refused(words),
            Over::Stopped(_, Some(actor)) => {
                (entry.actor, entry.on_behalf) = (actor.clone(), None);
                entry.because(format!("stopped: {}", dry.sum()))
            }
            // In full for people who may see figures of the data; the log is exported.
            Over::Failed(_) => entry.failed(Outward::Engine.words()),
        };
        dry.phase = Phase::Over(over);
        // Nothing goes on from it any more.
        dry.scratch = Scratch::default();
        self.notify(Notice::DryRun);
        self.record("end a dry run", &entry).await
    }

    /// Why nobody may see any more what came of a dry run, if so.
    async fn outdated(&self, conn: &mut SqliteConnection, draft: &Draft) -> Result<Option<&'static str>, PartyError> {
        let dataset = datasets::all(conn).await?.into_iter().find(|found| found.id == draft.dataset);
        // PRIVACY: somebody who opted out since is in it.
        if dataset.map(|found| found.subjects_left) != Some(draft.subjects) {
            return Ok(Some(CHANGED));
        }
        // PRIVACY: the rules of now may hold back what those before let through.
        let policy = policy::current(conn).await?.digest()?;
        Ok((policy != draft.approval.document.envelope.policy).then_some(OTHER_RULES))
    }

    /// After a decision, a policy, the data or the opt-out list changed: what may not go on ends, and what was made of
    /// other rows than those that are left, or under other rules, is forgotten.
    pub(crate) async fn recheck_dry_run(&mut self) -> Result<(), PartyError> {
        let Some(dry) = &self.dry_run else { return Ok(()) };
        let mut conn = self.reader().await?;
        if let Some(why) = self.outdated(&mut conn, &dry.draft).await? {
            drop(conn);
            let ended = self.end_dry_run(Over::Stopped(why.to_owned(), None)).await;
            if let Some(dry) = &mut self.dry_run {
                dry.made.clear();
                dry.phase = Phase::Over(Over::Stopped(why.to_owned(), None));
            }
            self.notify(Notice::DryRun);
            return ended;
        }
        let tried = dry.tried(dry.attempt.max(1), self.now()).filter(|_| dry.is_under_way());
        let Some(tried) = tried else { return Ok(()) };
        let refused = Box::pin(self.ask_dry(&mut conn, &dry.draft, tried)).await?.err();
        drop(conn);
        match refused {
            Some(refusal) => self.end_dry_run(Over::Stopped(refusal.detail, None)).await,
            None => Ok(()),
        }
    }

    /// Looks at what time changes in a dry run.
    pub(crate) async fn tick_dry_run(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        let is_over = |dry: &DryRun| matches!(dry.phase, Phase::Running(_)) && now.since(dry.since) >= dry.left_ms;
        match self.dry_run.as_ref().is_some_and(is_over) {
            true => self.end_dry_run(Over::Stopped(TOO_LONG.to_owned(), None)).await,
            false => Ok(()),
        }
    }
}
