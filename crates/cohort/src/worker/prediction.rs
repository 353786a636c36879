//! The other work of a child: what a model gives for each row of a dataset, in a file for the site's own people.
//!
//! As for a round, the child does not believe that it is allowed to: it asks the site's policy for leave itself.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Instant;

use hospes_protocol::approval::{LeaveToPredict, Refusal};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::plan::Plan;
use hospes_protocol::policy::Policy;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::{EVENT_BYTES, Failure, ORDER_BYTES, Pace, VERSION, read_frame, read_model, write_frame};
use crate::cohort::{Predicted, Prediction, predict_file};
use crate::error::CohortError;
use crate::opt_out::OptOuts;
use crate::snapshot::{Snapshot, SnapshotDocument, SnapshotKey};
use crate::train::{Progress, Pulse};

/// What a child is to predict. `Debug` shows neither keys nor people.
#[derive(Debug, Clone)]
pub struct PredictionOrder {
    /// The site's policy, which the child asks for leave.
    pub policy: Policy,
    /// The plan of the run that the model comes from.
    pub plan: Canonical<Plan>,
    /// The task of it that trained the model.
    pub task: String,
    /// The digest by which the run names the model.
    pub model: Digest,
    /// The model's file.
    pub model_path: PathBuf,
    /// The snapshot of the rows.
    pub rows: Snapshot,
    /// The key that opens it.
    pub key: SnapshotKey,
    /// The snapshot that this site trained on, where something was learned from it, and its key.
    pub trained_on: Option<(Snapshot, SnapshotKey)>,
    /// The site's opt-out list as of now.
    pub opt_outs: OptOuts,
    /// Lines that stand above the table.
    pub head: Vec<String>,
    /// Where the table goes: a file that is there, so that its maker decided who may read it.
    pub output_path: PathBuf,
    /// When it has to be done.
    pub deadline: Timestamp,
    /// Percent of the time in which it computes.
    pub share: u8,
}

/// The form in which an order goes through the pipe.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderOnTheWire {
    version: u32,
    policy: Policy,
    plan: Canonical<Plan>,
    task: String,
    model: Digest,
    model_path: PathBuf,
    rows: SnapshotOnTheWire,
    trained_on: Option<SnapshotOnTheWire>,
    #[serde(with = "serde_bytes")]
    opt_outs: Vec<u8>,
    head: Vec<String>,
    output_path: PathBuf,
    deadline: Timestamp,
    share: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotOnTheWire {
    document: Canonical<SnapshotDocument>,
    path: PathBuf,
    #[serde(with = "serde_bytes")]
    key: Vec<u8>,
}

impl SnapshotOnTheWire {
    fn of(snapshot: &Snapshot, key: &SnapshotKey) -> Self {
        Self { document: snapshot.document.clone(), path: snapshot.path.clone(), key: key.bytes().to_vec() }
    }

    fn opened(mut self) -> Result<(Snapshot, SnapshotKey), CohortError> {
        let key = <[u8; 32]>::try_from(self.key.as_slice()).map(SnapshotKey::from_bytes);
        self.key.zeroize();
        let wrong = |_| CohortError::Format { what: "order", reason: "a key has 32 bytes".into() };
        Ok((Snapshot { document: self.document, path: self.path }, key.map_err(wrong)?))
    }
}

/// What a child says that predicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PredictionEvent {
    /// Work goes on.
    Progress(Progress),
    /// The file is durable; nothing more comes.
    Done(Predicted),
    /// The policy gives no leave; nothing more comes.
    Refused(Refusal),
    /// It failed; nothing more comes.
    Failed(Failure),
}

impl PredictionOrder {
    /// Writes the order for a child.
    ///
    /// # Errors
    /// [`CohortError::Pipe`] if the pipe broke, [`CohortError::Format`] if the order is too long.
    ///
    /// # Disclosure
    /// The bytes hold snapshots' keys: they go through a pipe to the same binary and nowhere else.
    pub fn write(&self, output: &mut impl Write) -> Result<(), CohortError> {
        let mut wire = OrderOnTheWire {
            version: VERSION,
            policy: self.policy.clone(),
            plan: self.plan.clone(),
            task: self.task.clone(),
            model: self.model,
            model_path: self.model_path.clone(),
            rows: SnapshotOnTheWire::of(&self.rows, &self.key),
            trained_on: self.trained_on.as_ref().map(|(snapshot, key)| SnapshotOnTheWire::of(snapshot, key)),
            opt_outs: self.opt_outs.to_bytes(),
            head: self.head.clone(),
            output_path: self.output_path.clone(),
            deadline: self.deadline,
            share: self.share,
        };
        let written = write_frame(output, &wire, ORDER_BYTES);
        wire.rows.key.zeroize();
        wire.trained_on.iter_mut().for_each(|snapshot| snapshot.key.zeroize());
        written
    }

    /// Reads an order in the child.
    ///
    /// # Errors
    /// [`CohortError::Format`] if the bytes are no order.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn read(input: &mut impl Read) -> Result<Self, CohortError> {
        let wrong = |reason: &str| CohortError::Format { what: "order", reason: reason.to_owned() };
        let wire: OrderOnTheWire = read_frame(input, ORDER_BYTES, "order")?.ok_or_else(|| wrong("nothing came"))?;
        if wire.version != VERSION {
            return Err(wrong("it is of another version; the program was replaced while it ran"));
        }
        let (rows, key) = wire.rows.opened()?;
        Ok(Self {
            policy: wire.policy,
            plan: wire.plan,
            task: wire.task,
            model: wire.model,
            model_path: wire.model_path,
            rows,
            key,
            trained_on: wire.trained_on.map(SnapshotOnTheWire::opened).transpose()?,
            opt_outs: OptOuts::from_bytes(&wire.opt_outs)?,
            head: wire.head,
            output_path: wire.output_path,
            deadline: wire.deadline,
            share: wire.share.clamp(1, 100),
        })
    }
}

impl PredictionEvent {
    /// Writes an event for the parent.
    ///
    /// # Errors
    /// [`CohortError::Pipe`] if the pipe broke.
    ///
    /// # Disclosure
    /// What the event holds: counts for the site's own people.
    pub fn write(&self, output: &mut impl Write) -> Result<(), CohortError> {
        write_frame(output, self, EVENT_BYTES)
    }

    /// Reads the next event in the parent; `None` if the child closed its end.
    ///
    /// # Errors
    /// [`CohortError::Format`] if the bytes are no event, as after a crash in the middle of one.
    ///
    /// # Disclosure
    /// What the event holds.
    pub fn read(input: &mut impl Read) -> Result<Option<Self>, CohortError> {
        read_frame(input, EVENT_BYTES, "event")
    }
}

/// The whole life of a child that predicts: reads one order, carries it out, writes events. Returns whether it ended as
/// asked (done or refused), for the exit status.
///
/// # Errors
/// [`CohortError::Pipe`] if the parent is gone; every other failure goes to the parent as [`PredictionEvent::Failed`].
///
/// # Disclosure
/// Writes events, and of rows only into the order's file: see [`predict_file`].
pub fn run_prediction(
    input: &mut impl Read,
    output: &mut impl Write,
    clock: &dyn Fn() -> Timestamp,
) -> Result<bool, CohortError> {
    crate::forbid_core_dumps();
    let last = match PredictionOrder::read(input) {
        Ok(order) => {
            let mut broken = None;
            let mut pace = Pace { share: order.share, since: Instant::now() };
            let last =
                predict(&order, clock, &mut |progress| match PredictionEvent::Progress(progress).write(output) {
                    Ok(()) => pace.rest(),
                    Err(error) => {
                        broken = Some(error);
                        false
                    }
                });
            if let Some(error) = broken {
                return Err(error);
            }
            last
        }
        Err(error) => PredictionEvent::Failed(Failure::from(&error)),
    };
    last.write(output)?;
    Ok(matches!(last, PredictionEvent::Done(_) | PredictionEvent::Refused(_)))
}

/// Carries out an order in this thread and returns the last event. For the child, and for tests.
///
/// # Disclosure
/// As [`predict_file`].
pub fn predict(
    order: &PredictionOrder,
    clock: &dyn Fn() -> Timestamp,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> PredictionEvent {
    let document = &order.rows.document;
    match LeaveToPredict::under(&order.policy, document.digest(), document.public) {
        Err(refusal) => PredictionEvent::Refused(refusal),
        Ok(leave) => match predicted(order, leave, &mut Pulse { now: clock, progress }) {
            Ok(done) => PredictionEvent::Done(done),
            Err(error) => PredictionEvent::Failed(Failure::from(&error)),
        },
    }
}

fn predicted(order: &PredictionOrder, leave: LeaveToPredict, pulse: &mut Pulse<'_>) -> Result<Predicted, CohortError> {
    let file = read_model(&order.model_path)?;
    let prediction = Prediction {
        plan: &order.plan,
        task: &order.task,
        file: &file,
        model: order.model,
        rows: (&order.rows, &order.key),
        trained_on: order.trained_on.as_ref().map(|(snapshot, key)| (snapshot, key)),
        opt_outs: &order.opt_outs,
        head: &order.head,
        deadline: order.deadline,
    };
    predict_file(leave, &prediction, &order.output_path, pulse)
}
