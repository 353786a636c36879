//! The work of a prediction: one child process, as for a round, for which somebody waits.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hospes_cohort::Outward;
use hospes_cohort::train::Progress;
use hospes_cohort::worker::{Failure, PredictionEvent, PredictionOrder, predict};
use tokio::sync::broadcast;

use crate::config::{Clock, Executor};
use crate::rounds::child::Slot;
use crate::rounds::worker::{PREDICT, command};
use crate::view::Notice;

/// The one prediction that is made at a time: how far it is, and the way to stop it. It is over when nobody holds this.
#[derive(Default)]
pub(crate) struct Turn {
    slot: Slot,
    hundredths: AtomicU32,
}

impl Turn {
    /// Hundredths done.
    pub(super) fn hundredths(&self) -> u32 {
        self.hundredths.load(Ordering::Relaxed)
    }

    /// Stops it for good.
    pub(crate) fn stop(&self) {
        self.slot.stop();
    }

    /// Lets it rest for a while, or go on.
    pub(crate) fn pause(&self, paused: bool) {
        self.slot.pause(paused);
    }
}

/// Where work is done, and within which limits.
pub(super) struct Bench {
    pub(super) executor: Executor,
    pub(super) memory_bytes: Option<u64>,
    pub(super) threads: Option<u16>,
    pub(super) clock: Clock,
    pub(super) notices: broadcast::Sender<Notice>,
    pub(super) turn: Arc<Turn>,
}

impl Bench {
    /// Carries an order out; the last word about it, which is no progress. It blocks its thread.
    pub(super) fn run(&self, order: &PredictionOrder) -> PredictionEvent {
        let last = match &self.executor {
            Executor::Child { program } => self.in_child(program, order),
            Executor::Thread => Ok(predict(order, &*self.clock, &mut |progress| self.heard(progress))),
        };
        let failed = |local: String, outward| PredictionEvent::Failed(Failure { local, outward });
        match last {
            // Whatever is still said, or not said, by what was stopped: nobody wants it any more.
            _ if self.turn.slot.is_stopped() => failed("it was stopped".to_owned(), Outward::Cancelled),
            Ok(last) => last,
            Err(reason) => failed(format!("the worker process failed: {reason}"), Outward::Engine),
        }
    }

    fn in_child(&self, program: &Path, order: &PredictionOrder) -> Result<PredictionEvent, String> {
        let mut command = command(program);
        command
            .envs(self.threads.map(|threads| ("RAYON_NUM_THREADS", threads.to_string())))
            .args(self.memory_bytes.map(|bytes| bytes.to_string()))
            .arg(PREDICT)
            .stderr(Stdio::inherit());
        let started = self.turn.slot.start(&mut command);
        let (mut input, mut output) = started.map_err(|error| format!("it could not be started: {error}"))?;
        // A child that dies before it has read everything shows in what it says, or does not say.
        let _ = order.write(&mut input);
        drop(input);
        let last = loop {
            match PredictionEvent::read(&mut output) {
                Ok(Some(PredictionEvent::Progress(progress))) => {
                    self.heard(progress);
                }
                Ok(Some(last)) => break Ok(last),
                Ok(None) => break Err("it ended without a result".to_owned()),
                Err(error) => break Err(error.to_string()),
            }
        };
        match (last, self.turn.slot.end()) {
            (Err(reason), Some(status)) => Err(format!("{reason} ({status})")),
            (last, _) => last,
        }
    }

    /// Work goes on; whether it should.
    fn heard(&self, progress: Progress) -> bool {
        let done = progress.done.min(100);
        if self.turn.hundredths.swap(done, Ordering::Relaxed) != done {
            // Nobody need be listening.
            let _ = self.notices.send(Notice::Jobs);
        }
        !self.turn.slot.is_stopped()
    }
}
