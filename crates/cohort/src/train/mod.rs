//! Training with Burn: the network of a plan, its batches, its steps.
//!
//! Everything random comes from our own seeded stream, so that the same plan, site, round and rows give the same bytes
//! for any number of threads.

mod batches;
mod network;
pub(crate) mod payload;

pub(crate) use batches::Batches;
pub(crate) use network::{Network, Step};

use hospes_protocol::id::Timestamp;
use serde::{Deserialize, Serialize};

use crate::component::Matrix;
use crate::error::CohortError;

/// How far work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
}

/// What a long computation asks between two steps: the time, and whether to go on.
pub struct Pulse<'a> {
    /// The clock.
    pub now: &'a dyn Fn() -> Timestamp,
    /// Takes news of progress; says whether to go on.
    pub progress: &'a mut dyn FnMut(Progress) -> bool,
}

impl Pulse<'_> {
    pub(crate) fn beat(&mut self, deadline: Timestamp, progress: Progress) -> Result<(), CohortError> {
        if (self.now)() >= deadline {
            return Err(CohortError::TooLate);
        }
        // At most about a hundred messages for a task.
        let every = (progress.total / 100).max(1);
        let news = progress.done.is_multiple_of(every) || progress.done == progress.total;
        if news && !(self.progress)(progress) { Err(CohortError::Cancelled) } else { Ok(()) }
    }
}

/// Takes `updates` optimiser steps over reshuffled epochs.
pub(crate) fn train(
    network: &mut Network,
    step: &mut Step,
    data: &Matrix,
    mut batches: Batches,
    updates: u32,
    deadline: Timestamp,
    pulse: &mut Pulse<'_>,
) -> Result<(), CohortError> {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for done in 1..=updates {
        x.clear();
        y.clear();
        for row in batches.next_batch() {
            x.extend_from_slice(&data.values[row * data.columns..(row + 1) * data.columns]);
            y.push(data.labels[*row]);
        }
        network.step(step, &x, &y);
        pulse.beat(deadline, Progress { done, total: updates })?;
    }
    Ok(())
}
