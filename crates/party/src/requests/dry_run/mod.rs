//! A dry run of a request: before anybody signs, this site's own worker computes on its own data what it would send in the
//! first round of each task, and its people look at it. Nothing leaves.
//!
//! `draft` is what would be signed and asked, `work` gives each task its turn and hears what became of it. There is one dry
//! run at a time; it lies in memory only, and an outbox row or a permit to send is never made: the worker asks for a
//! [`DryPermit`](hospes_protocol::approval::DryPermit), and its payload is written nowhere.

use std::path::PathBuf;

use futures::FutureExt as _;
use hospes_cohort::worker::{Done, Failure, LocalView};
use hospes_ledger::{Action, Actor, ObjectKind, Purpose};
use hospes_protocol::approval::Refusal;
use hospes_protocol::id::{DatasetId, Digest, JobId, RoundKey, StudyId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::plan::{Component, Start};
use hospes_protocol::policy::LocalViews;
use hospes_protocol::text::in_bytes;

use super::sign::Case;
use super::{approval, policy};
use crate::audit::Because as _;
use crate::datasets::VIEWERS;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::Handle;
use crate::keys::random;
use crate::people::{Acting, Session, name_of};
use crate::rounds::worker::Running;
use crate::store::Tx;
use crate::view::{
    DryMessage, DryPayload, DryRunState, DryRunView, DryRunWait, DryStart, Notice, Pause, RequestState, TaskState,
};

mod draft;
mod work;

use draft::Draft;

/// What the answers to the checklist call it.
pub(super) const ANSWER: &str = "Dry run on this machine";

/// A dry run, under way or ended.
pub(crate) struct DryRun {
    draft: Draft,
    /// Whether attacks are tried on what training would send.
    attack: bool,
    /// Stands for the run of which it is none.
    job: JobId,
    by: Actor,
    by_name: String,
    at: Timestamp,
    phase: Phase,
    /// So often the task whose turn it is was begun.
    attempt: u32,
    /// When it was begun last.
    since: Timestamp,
    /// Time that may still be computed, in milliseconds.
    left_ms: i64,
    progress: Option<(u32, u32)>,
    /// When the last word about that was passed on.
    told: Timestamp,
    note: Option<String>,
    /// What became of the tasks so far, in their order.
    made: Vec<Result<Box<Done>, Failure>>,
    /// After the work that may write there.
    scratch: Scratch,
}

enum Phase {
    /// Something else has the machine.
    Waiting,
    /// A task is computed; it stops when this is dropped.
    Running(#[expect(dead_code, reason = "held, because dropping it ends the process")] Running),
    /// Nothing more comes.
    Over(Over),
}

/// How a dry run ended.
enum Over {
    /// Every task was tried.
    Done,
    /// By a person, where one is named, or by a rule, in words.
    Stopped(String, Option<Actor>),
    /// It could not go on; why, in words.
    Failed(String),
}

/// Files of one dry run among those that are swept, gone when it ends: what a strategy keeps at the site, which the worker
/// seals.
#[derive(Default)]
struct Scratch {
    paths: Vec<PathBuf>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in &self.paths {
            // Most tasks keep nothing; the next start sweeps what cannot be removed.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Handle {
    /// Begins a dry run of a request that waits for a decision (data steward, data-access approver, privacy officer); without
    /// a dataset, on that of its approval or the only one that fits. What comes of it shows [`Handle::dry_run`]. `attack`: try
    /// attacks on what training would send, too.
    ///
    /// # Errors
    /// [`PartyError::Refused`] by what would refuse the first signature or the first round; [`PartyError::Input`] without a
    /// dataset; [`PartyError::State`] if the request does not wait, or another dry run is under way; [`PartyError::Denied`].
    pub async fn start_dry_run(
        &self,
        session: &Session,
        study: StudyId,
        dataset: Option<DatasetId>,
        attack: bool,
    ) -> Result<(), PartyError> {
        let s = session.clone();
        self.ask(move |e| e.start_dry_run(s, study, dataset, attack).boxed()).await
    }

    /// The dry run of a request, if there is one since the engine started.
    ///
    /// # Disclosure
    /// What would leave in the first round of each task, to people of this site who may see its figures.
    ///
    /// # Errors
    /// [`PartyError::Denied`].
    pub async fn dry_run(&self, session: &Session, study: StudyId) -> Result<Option<DryRunView>, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.dry_run(s, study).boxed()).await
    }

    /// Stops the dry run of a request, or forgets what came of one that has ended.
    ///
    /// # Errors
    /// [`PartyError::NotFound`] if there is none, [`PartyError::Denied`].
    pub async fn stop_dry_run(&self, session: &Session, study: StudyId) -> Result<(), PartyError> {
        let s = session.clone();
        self.ask(move |e| e.stop_dry_run(s, study).boxed()).await
    }
}

impl Engine {
    pub(crate) async fn start_dry_run(
        &mut self,
        session: Session,
        id: StudyId,
        dataset: Option<DatasetId>,
        attack: bool,
    ) -> Result<(), PartyError> {
        let acting = self.inside(&session, "make a dry run", VIEWERS).await?;
        if self.dry_run.as_ref().is_some_and(DryRun::is_under_way) {
            return Err(PartyError::state("a dry run is under way at this site; wait for its end, or stop it first"));
        }
        let mut tx = self.store.begin("begin a dry run").await?;
        let case = Case::read(tx.conn(), id, dataset).await?;
        let state = case.offered.state(approval(tx.conn(), id).await?.as_ref());
        if !waits(state) {
            let words = format!("the request is {}; a dry run is of one that waits for a decision", state.word());
            return Err(PartyError::state(words));
        }
        let Some(dataset) = case.dataset() else {
            return Err(PartyError::input("dataset", "name the dataset; none, or more than one, has all columns"));
        };
        let job = JobId::new(self.now(), random()?);
        let draft = match self.draft(tx.conn(), &case, dataset, job).await? {
            Ok(draft) => draft,
            Err(refusal) => return self.refuse_dry_run(tx, &acting, id, refusal).await,
        };
        let snapshot = draft.approval.document.envelope.data.snapshot;
        let by_name = name_of(tx.conn(), acting.person).await?;
        let entry = self
            .entry(acting.actor(), Action::DryRun)
            .object(ObjectKind::Study, id, Some(case.offered.study.digest()))
            .object(ObjectKind::Dataset, draft.dataset, None)
            .object(ObjectKind::Snapshot, snapshot, Some(snapshot))
            .purpose(Purpose { study: Some(id), ..Purpose::default() })
            .because(match attack {
                true => format!("begun with attacks on it, {} tasks; nothing leaves", draft.tasks.len()),
                false => format!("begun, {} tasks; nothing leaves", draft.tasks.len()),
            });
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        let now = self.now();
        let kept = |number: usize| self.config.scratch().join(format!("dry-{job}-{number}.kept"));
        let paths = (0..draft.tasks.len()).map(kept).collect();
        self.dry_run = Some(DryRun {
            draft,
            attack,
            job,
            by: acting.actor(),
            by_name,
            at: now,
            phase: Phase::Waiting,
            attempt: 0,
            since: now,
            left_ms: limits::DRY_RUN_MS,
            progress: None,
            told: now,
            note: None,
            made: Vec::new(),
            scratch: Scratch { paths },
        });
        self.notify(Notice::Audit);
        self.notify(Notice::DryRun);
        Ok(())
    }

    /// A dry run that is refused is in the log like one that is made.
    async fn refuse_dry_run(
        &self,
        mut tx: Tx,
        acting: &Acting,
        id: StudyId,
        refusal: Refusal,
    ) -> Result<(), PartyError> {
        let entry = self
            .entry(acting.actor(), Action::DryRun)
            .object(ObjectKind::Study, id, None)
            .purpose(Purpose { study: Some(id), ..Purpose::default() })
            .refused(&refusal);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Audit);
        Err(refusal.into())
    }

    pub(crate) async fn dry_run(&mut self, session: Session, id: StudyId) -> Result<Option<DryRunView>, PartyError> {
        self.inside(&session, "see a dry run", VIEWERS).await?;
        let mut conn = self.reader().await?;
        let in_full = policy::current(&mut conn).await?.disclosure.local_views == LocalViews::Full;
        let waits = match self.share.pause() {
            Some(Pause::QuietHours { until }) => Some(DryRunWait::QuietHours { until }),
            _ => self.has_work().then_some(DryRunWait::Rounds),
        };
        Ok(self.dry_run.as_ref().filter(|dry| dry.draft.study == id).map(|dry| dry.view(waits, in_full)))
    }

    pub(crate) async fn stop_dry_run(&mut self, session: Session, id: StudyId) -> Result<(), PartyError> {
        let acting = self.inside(&session, "stop a dry run", VIEWERS).await?;
        let found = self.dry_run.as_ref().filter(|dry| dry.draft.study == id);
        match found.map(DryRun::is_under_way) {
            None => return Err(PartyError::NotFound("dry run of this request".into())),
            Some(true) => {
                let words = "somebody of this site stopped it".to_owned();
                self.end_dry_run(Over::Stopped(words, Some(acting.actor()))).await?;
            }
            Some(false) => self.dry_run = None,
        }
        self.notify(Notice::DryRun);
        Ok(())
    }

    /// What a signature says of the dry run that was made on this dataset under this policy, as an answer to the checklist.
    pub(super) fn dry_run_words(&self, study: StudyId, dataset: DatasetId, policy: Digest) -> Option<(String, String)> {
        let of_this = |dry: &&DryRun| {
            let draft = &dry.draft;
            draft.study == study && draft.dataset == dataset && draft.approval.document.envelope.policy == policy
        };
        let dry = self.dry_run.as_ref().filter(of_this)?;
        matches!(dry.phase, Phase::Over(Over::Done)).then(|| (ANSWER.to_owned(), format!("{}: {}", dry.at, dry.sum())))
    }
}

impl DryRun {
    fn is_under_way(&self) -> bool {
        !matches!(self.phase, Phase::Over(_))
    }

    /// The task whose turn it is.
    fn task(&self) -> Option<&str> {
        self.draft.tasks.get(self.made.len()).map(String::as_str)
    }

    /// Whether this is the round that is computed.
    fn awaits(&self, key: &RoundKey) -> bool {
        let runs = matches!(self.phase, Phase::Running(_));
        runs && key.job == self.job && key.attempt == self.attempt && Some(key.task.as_str()) == self.task()
    }

    fn payloads(&self) -> impl Iterator<Item = &Done> {
        self.made.iter().filter_map(|made| made.as_deref().ok())
    }

    /// What was made, in one line: how many messages of how many bytes, and the digest of their digests.
    fn sum(&self) -> String {
        let digests: Vec<u8> = self.payloads().flat_map(|done| *done.digest.as_bytes()).collect();
        let refused = self.made.iter().filter(|made| made.is_err()).count();
        let of = if self.draft.runs > 1 { format!("the first of {} runs, ", self.draft.runs) } else { String::new() };
        format!(
            "{of}{} messages of {}, {refused} tasks that gave none, result {}; nothing left",
            self.payloads().count(),
            in_bytes(self.bytes()),
            Digest::of(&digests)
        )
    }

    fn bytes(&self) -> u64 {
        self.payloads().fold(0, |sum, done| sum.saturating_add(done.bytes))
    }

    fn state(&self) -> DryRunState {
        match &self.phase {
            Phase::Waiting => DryRunState::Waiting,
            Phase::Running(_) => DryRunState::Running,
            Phase::Over(Over::Done) => DryRunState::Done,
            Phase::Over(Over::Stopped(..)) => DryRunState::Stopped,
            Phase::Over(Over::Failed(_)) => DryRunState::Failed,
        }
    }

    fn view(&self, waits: Option<DryRunWait>, in_full: bool) -> DryRunView {
        let draft = &self.draft;
        let reason = match &self.phase {
            Phase::Over(Over::Stopped(words, _) | Over::Failed(words)) => Some(words.clone()),
            _ => None,
        };
        let messages = draft.tasks.iter().enumerate().map(|(at, task)| self.message(at, task, in_full)).collect();
        DryRunView {
            study: draft.study,
            dataset: draft.dataset,
            dataset_name: draft.dataset_name.clone(),
            by: self.by_name.clone(),
            at: self.at,
            attack: self.attack,
            state: self.state(),
            reason,
            waits: waits.filter(|_| matches!(self.phase, Phase::Waiting)),
            note: self.note.clone(),
            progress: self.progress,
            runs: draft.runs,
            messages,
            bytes: self.bytes(),
        }
    }

    fn message(&self, at: usize, task: &str, in_full: bool) -> DryMessage {
        let component = self.draft.plan.tasks.get(task).map(|found| &found.component);
        let made = self.made.get(at);
        let state = match (made, self.is_under_way()) {
            (Some(Ok(_)), _) => TaskState::Done,
            (Some(Err(_)), _) => TaskState::Failed,
            (None, false) => TaskState::Skipped,
            (None, true) if at == self.made.len() && matches!(self.phase, Phase::Running(_)) => TaskState::Working,
            (None, true) => TaskState::Waiting,
        };
        DryMessage {
            task: task.to_owned(),
            component: component.map(|component| component.name().to_owned()).unwrap_or_default(),
            state,
            rounds: component.map_or(0, Component::rounds),
            start: component.map_or(DryStart::Rows, start_of),
            made: made.and_then(|made| made.as_deref().ok()).and_then(payload),
            // What it says in full can hold counts of the site's own.
            failure: made.and_then(|made| made.as_ref().err()).map(|failure| match in_full {
                true => failure.local.clone(),
                false => failure.outward.words().to_owned(),
            }),
        }
    }
}

/// Whether somebody has still to decide on a request.
fn waits(state: RequestState) -> bool {
    matches!(state, RequestState::Received | RequestState::UnderReview | RequestState::PartlyApproved)
}

/// What a first round is computed from.
fn start_of(component: &Component) -> DryStart {
    match component {
        Component::NnTrain(train) if matches!(train.init, Start::Safetensors(_)) => DryStart::StandIn,
        Component::NnTrain(_) | Component::Glm(_) | Component::Cox(_) => DryStart::Plan,
        Component::Evaluation(_) => DryStart::Untrained,
        _ => DryStart::Rows,
    }
}

fn payload(done: &Done) -> Option<DryPayload> {
    let preview = done.preview.as_deref()?.clone();
    Some(DryPayload {
        digest: done.digest,
        bytes: done.bytes,
        values: preview.values(),
        withheld: done.withheld.clone(),
        cut: match &done.view {
            LocalView::Training(view) => view.clipped,
            LocalView::Report(_) => 0,
        },
        preview,
        attack: done.attack.as_deref().cloned(),
        device: done.device.clone(),
    })
}
