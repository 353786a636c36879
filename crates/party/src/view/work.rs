//! A run as a screen draws it: its states, its tasks, its log, and what the site's own people see of its rounds.

use std::fmt;

use hospes_cohort::evaluate::Compared;
use hospes_cohort::{ReportView, TrainingView};
use hospes_protocol::id::{Digest, FederationId, JobId, RoundKey, StudyId, Timestamp};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::PeerLine;
use crate::rounds::DeviceChoice;

/// A run of a study at this site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct JobView {
    /// Job.
    pub job: JobId,
    /// Study.
    pub study: StudyId,
    /// Title of the study.
    pub title: String,
    /// Federation.
    pub federation: FederationId,
    /// State.
    pub state: JobState,
    /// Why it ended as it did.
    pub reason: Option<String>,
    /// Why this site sits its rounds out, if its people have paused it.
    pub paused: Option<String>,
    /// When it came, or the coordinator last asked whether there is room for it.
    pub since: Timestamp,
    /// Rounds in order, a page of them: first the newest.
    pub rounds: Vec<RoundView>,
    /// Rounds in all.
    pub rounds_in_all: u32,
    /// The plan's tasks, by name; lists leave them out.
    pub tasks: Vec<TaskView>,
    /// What protects what leaves; lists leave it out.
    pub protection: Vec<String>,
    /// The other sites, with how far its rounds trust their keys: as now, and no further than when it was approved. Lists leave
    /// them out.
    pub others: Vec<PeerLine>,
    /// *This site alone* against *federated*, where the rounds above hold both; it stays here, and lists leave it out.
    pub comparisons: Vec<Comparison>,
    /// Digest of the final model.
    pub model: Option<Digest>,
    /// Whether results are released, and when.
    pub released: Option<Timestamp>,
    /// Whether results are held until a person releases them.
    pub held: bool,
}

/// Two models on the same rows: the one trained at this site alone, and a federated one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct Comparison {
    /// Task that trained and judged the one; none where the plan has no such task, and this site trained the plan's network by
    /// itself.
    pub alone: Option<String>,
    /// Task that judged the other.
    pub federated: String,
    /// Figure by figure, with 95 % intervals.
    pub figures: Vec<Compared>,
}

/// A round of a job at this site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct RoundView {
    /// Which.
    pub round: RoundKey,
    /// State.
    pub state: RoundState,
    /// Reason of a refusal, a failure or a withdrawal.
    pub reason: Option<String>,
    /// Steps done and in all.
    pub progress: Option<(u32, u32)>,
    /// What to know about the work under way, such as that a graphics card failed and the processor goes on.
    pub note: Option<String>,
    /// What the site's own people see of the result (rows, loss, metrics), or in full why it failed (`failure`); it stays
    /// here, and lists leave it out.
    pub view: Option<ResultView>,
    /// Quality of the network that was trained here alone, beside an evaluation; it goes into the comparisons of the run.
    #[serde(skip)]
    #[ts(skip)]
    pub alone: Option<ReportView>,
    /// When it was opened.
    pub at: Timestamp,
}

/// Something that left, waits to leave, or was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct EgressView {
    /// Federation.
    pub federation: FederationId,
    /// Study.
    pub study: StudyId,
    /// Round.
    pub round: RoundKey,
    /// What it is: update or figures.
    pub kind: String,
    /// SHA-256 of the payload.
    pub digest: Digest,
    /// Bytes.
    pub bytes: u64,
    /// State: waiting, sent, withdrawn, refused; the last two with *may have arrived* where it was let go and no receipt
    /// came.
    pub state: String,
    /// When its first byte was let go. Without a receipt it may have arrived since.
    pub left: Option<Timestamp>,
    /// When it was made.
    pub at: Timestamp,
    /// When it was sent or withdrawn.
    pub ended: Option<Timestamp>,
    /// What keeps its receiver from reading it.
    pub protection: Protection,
    /// Whether it was made under the public-data policy.
    pub public_data: bool,
}

/// A closed list of words, which reads as its word.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $( $(#[$doc:meta])* $variant:ident = $word:literal ),* $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $( $(#[$doc])* $variant, )*
        }

        impl $name {
            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
            /// What a word stands for.
            pub fn named(word: &str) -> Option<Self> {
                match word { $( $word => Some(Self::$variant), )* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, word: &&str) -> bool {
                self.as_str() == *word
            }
        }
    };
}

words! {
    /// What keeps the receiver of something that left from reading it.
    Protection {
        /// Nothing: it leaves unmasked, and the coordinator can read it.
        Unmasked = "unmasked",
        /// Secure aggregation: the coordinator can read the sum over all sites, and not this site's part.
        Masked = "masked",
    }
}

words! {
    /// State of a run at this site.
    JobState {
        /// There is no room for it yet.
        Ready = "ready",
        /// Reserved; the coordinator has not started it.
        Waiting = "waiting",
        /// Under way.
        Running = "running",
        /// Ended well.
        Success = "success",
        /// Ended without a result.
        Failed = "failed",
        /// Nothing was heard of it any more.
        Timeout = "timeout",
        /// Stopped by people, here or at the coordinator.
        Cancelled = "cancelled",
    }
}

words! {
    /// State of a round at this site.
    RoundState {
        /// Opened; not answered yet.
        Offered = "offered",
        /// Being computed.
        Working = "working",
        /// Computed and recorded; waits to leave.
        Committed = "committed",
        /// Received by the coordinator.
        Acknowledged = "acknowledged",
        /// Its result was published.
        Published = "published",
        /// The coordinator gave it up.
        Abandoned = "abandoned",
        /// This site refused it.
        Refused = "refused",
        /// It failed here.
        Failed = "failed",
        /// This site took it back.
        Withdrawn = "withdrawn",
    }
}

/// A task of a run's plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct TaskView {
    /// Name in the plan.
    pub name: String,
    /// Its component, such as `nn_train`.
    pub component: String,
    /// What it takes from other tasks.
    pub inputs: Vec<TaskInput>,
    /// How far it is; `None` for a task without rounds of its own, which is computed within those that take from it.
    pub state: Option<TaskState>,
    /// Rounds of it at this site.
    pub rounds: u32,
}

/// What a task takes from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct TaskInput {
    /// Its port.
    pub port: String,
    /// The other task.
    pub task: String,
    /// The other task's port.
    pub output: String,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Not begun.
    Waiting,
    /// Under way, or between two rounds.
    Working,
    /// Done.
    Done,
    /// Its last round failed, or was refused or withdrawn here.
    Failed,
    /// The run ended before its turn came.
    Skipped,
}

/// What the site's own people see of a round's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum ResultView {
    /// Of training.
    Training(Box<TrainingView>),
    /// Of figures.
    Report(Box<ReportView>),
    /// In full why it failed.
    Failure(String),
}

/// A line of a run's log. It names no value of the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub level: LogLevel,
    /// Task and round, where it is about one: `train 3`.
    pub place: Option<String>,
    /// In words.
    pub words: String,
}

/// How much a line of a log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// As it should be.
    Info,
    /// To be looked at.
    Warning,
    /// It failed.
    Error,
}

/// A study that a dataset was approved for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct DatasetUse {
    /// Study.
    pub study: StudyId,
    /// Its title.
    pub title: String,
    /// Name of its federation.
    pub federation_name: String,
    /// State of the approval: `partly_approved`, `active`, `suspended`, `revoked`, `expired`, `superseded`.
    pub state: String,
    /// When it was given.
    pub at: Timestamp,
    /// Until when it holds.
    pub expires: Timestamp,
    /// Runs that used it.
    pub runs: u32,
    /// Bytes that left of it, with what may have.
    pub bytes_left: u64,
}

/// On what networks are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct DeviceSetting {
    /// What was chosen.
    pub choice: DeviceChoice,
    /// Who decided it.
    pub decided_by: DecidedBy,
}

/// Who decided what networks are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum DecidedBy {
    /// The site's people, or nobody yet.
    People,
    /// Whoever started the engine, on its command line or in its environment.
    Start,
    /// The hospital's IT.
    It,
}

/// What this machine trains on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct DeviceView {
    /// What was chosen.
    pub choice: DeviceChoice,
    /// Who decided it.
    pub decided_by: DecidedBy,
    /// The graphics cards, as its drivers list them.
    pub cards: Vec<CardView>,
    /// The one that large work runs on; `None` for the processor.
    pub used: Option<String>,
    /// Why no card is used, in words.
    pub reason: Option<String>,
    /// Most memory of one worker, in bytes; `None` for no limit.
    pub worker_memory_bytes: Option<u64>,
    /// Runs of one federation that are taken at a time.
    pub runs_at_a_time: u32,
}

/// A graphics card and how it did when it was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct CardView {
    /// What it is chosen by, such as `discrete:0`.
    pub card: String,
    /// Its name.
    pub name: String,
    /// How many times as fast as the processor; `None` if it was not tried or failed.
    pub speed: Option<f64>,
    /// Why it cannot be used, in words.
    pub reason: Option<String>,
}

/// What a changed policy would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PolicyPreview {
    /// Value by value.
    pub changes: Vec<PolicyChange>,
    /// What it would allow that is not allowed now, in words.
    pub loosens: Vec<String>,
    /// What it would allow that the hospital's IT does not, in words: with any of it, it cannot be set.
    pub below: Vec<String>,
    /// Whether a second person has to sign it.
    pub needs_second_signature: bool,
    /// Approvals that would not hold any more: each names the policy under which it was given.
    pub ends: Vec<EndedApproval>,
}

/// A value of a policy that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PolicyChange {
    /// Place in the file, such as `disclosure.min_subjects`.
    pub place: String,
    /// Now; `None` where it is left out.
    pub before: Option<String>,
    /// Then.
    pub after: Option<String>,
    /// What it does.
    pub effect: PolicyEffect,
}

/// What a change of a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum PolicyEffect {
    /// It allows more.
    Loosens,
    /// It allows less.
    Tightens,
    /// Neither: a name.
    Neither,
}

/// An approval that a changed policy would end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct EndedApproval {
    /// Study.
    pub study: StudyId,
    /// Its title.
    pub title: String,
    /// Runs of it that are under way.
    pub running: u32,
}
