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

/// How far work is. It goes to the coordinator, so it counts in hundredths: steps would tell the number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Hundredths done.
    pub done: u32,
    /// Always 100.
    pub total: u32,
}

/// What a long computation asks between two steps: the time, and whether to go on.
pub struct Pulse<'a> {
    /// The clock.
    pub now: &'a dyn Fn() -> Timestamp,
    /// Takes news of progress; says whether to go on.
    pub progress: &'a mut dyn FnMut(Progress) -> bool,
}

/// How much is to be done: `units` that the plan names, each of so many steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) units: u32,
    pub(crate) steps: u32,
}

impl Work {
    fn total(self) -> u64 {
        u64::from(self.units) * u64::from(self.steps)
    }

    /// Hundredths done after so many steps. Steps within a unit show only where hundredths hide how many there are.
    fn hundredths(self, step: u64) -> u32 {
        let steps = u64::from(self.steps).max(1);
        let within = if steps >= 100 { step % steps * 100 / steps } else { 0 };
        let done = (step / steps * 100 + within) / u64::from(self.units).max(1);
        u32::try_from(done).unwrap_or(100).min(100)
    }
}

/// Takes optimiser steps over reshuffled epochs.
pub(crate) fn train(
    network: &mut Network,
    step: &mut Step,
    data: &Matrix,
    mut batches: Batches,
    work: Work,
    deadline: Timestamp,
    pulse: &mut Pulse<'_>,
) -> Result<(), CohortError> {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for taken in 1..=work.total() {
        x.clear();
        y.clear();
        for row in batches.next_batch() {
            x.extend_from_slice(&data.values[row * data.columns..(row + 1) * data.columns]);
            y.push(data.labels[*row]);
        }
        network.step(step, &x, &y);
        if (pulse.now)() >= deadline {
            return Err(CohortError::TooLate);
        }
        let done = work.hundredths(taken);
        if done > work.hundredths(taken - 1) && !(pulse.progress)(Progress { done, total: 100 }) {
            return Err(CohortError::Cancelled);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_the_same_for_any_number_of_rows() {
        let told = |work: Work| -> Vec<u32> {
            let mut told: Vec<u32> = (1..=work.total()).map(|step| work.hundredths(step)).collect();
            told.dedup();
            told.retain(|done| *done > 0);
            told
        };
        let epochs = |steps| told(Work { units: 50, steps });
        assert_eq!(epochs(1), (1..=50).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(epochs(7), epochs(99));
        assert_eq!(epochs(1_000), epochs(12_345));
        assert_eq!(epochs(1_000), (1..=100).collect::<Vec<_>>());
        assert_eq!(told(Work { units: 3, steps: 1 }), [33, 66, 100]);
    }
}
