//! A dry run of a request: what this site would send in the first round of each task, seen by its own people only.

use std::collections::BTreeMap;

use hospes_protocol::id::{DatasetId, Digest, StudyId, Timestamp};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::{Attack, Preview, TaskState};

/// A dry run, under way or ended. It is gone with the engine's process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct DryRunView {
    /// Study.
    pub study: StudyId,
    /// Dataset that it is made on.
    pub dataset: DatasetId,
    /// Its name.
    pub dataset_name: String,
    /// Who began it.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Whether attacks are tried on what training would send.
    pub attack: bool,
    /// How far it is.
    pub state: DryRunState,
    /// Why it was stopped or failed.
    pub reason: Option<String>,
    /// What it waits for.
    pub waits: Option<DryRunWait>,
    /// What to know about the work under way, such as that a graphics card failed and the processor goes on.
    pub note: Option<String>,
    /// Steps done and in all, of the task under way.
    pub progress: Option<(u32, u32)>,
    /// Runs that the study asks for; of more than one, the first was tried.
    pub runs: u32,
    /// What would leave, task by task in their order.
    pub messages: Vec<DryMessage>,
    /// Bytes of all that was made.
    pub bytes: u64,
}

/// How far a dry run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum DryRunState {
    /// It has not its turn.
    Waiting,
    /// A task is computed.
    Running,
    /// Every task was tried.
    Done,
    /// Somebody or a rule stopped it.
    Stopped,
    /// It could not go on.
    Failed,
}

impl DryRunState {
    /// Whether nothing more comes of it.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Stopped | Self::Failed)
    }
}

/// What a dry run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum DryRunWait {
    /// The end of quiet hours.
    QuietHours {
        /// When that is.
        until: Timestamp,
    },
    /// The end of work on a round, which goes first.
    Rounds,
}

/// What one task would send in its first round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct DryMessage {
    /// Task.
    pub task: String,
    /// Its component, such as `nn_train`.
    pub component: String,
    /// How far it is.
    pub state: TaskState,
    /// Rounds of it in one run: so often something like it leaves.
    pub rounds: u32,
    /// What the round was computed from.
    pub start: DryStart,
    /// What would leave; `None` where nothing was made.
    pub made: Option<DryPayload>,
    /// Why nothing was made, for this site's people.
    pub failure: Option<String>,
}

/// What a first round was computed from, where there is no coordinator to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum DryStart {
    /// From the rows alone.
    Rows,
    /// From the model that the plan begins with, as the first round of a run is.
    Plan,
    /// The plan begins with a model of the coordinator's, which is not here before an approval; values that the plan's seed
    /// gives stood in for it.
    StandIn,
    /// The model that it judges is trained by all sites in a run; here it judged the one that training begins with.
    Untrained,
}

/// What would leave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct DryPayload {
    /// SHA-256 of the bytes that would travel.
    pub digest: Digest,
    /// How many they are.
    pub bytes: u64,
    /// How many numbers they hold.
    pub values: u64,
    /// What a disclosure rule holds back, with the rule.
    pub withheld: BTreeMap<String, String>,
    /// Numbers of an update that moved by more than the plan allows in one round, and were cut.
    pub cut: u64,
    /// What is in them.
    pub preview: Preview,
    /// What attacks on it found, where they were tried.
    pub attack: Option<Attack>,
    /// What it was computed on: `cpu`, or a card's name.
    pub device: String,
}
