//! Training with Burn: the network of a plan, its batches, its steps.
//!
//! Everything random comes from our own seeded stream, so that the same plan, site, round and rows give the same bytes
//! for any number of threads.

mod augment;
mod batches;
mod convolution;
pub mod dp;
mod layers;
mod local;
mod loss;
mod network;
mod norms;
mod optimizer;
pub(crate) mod payload;
mod processor;
mod start;
mod state;

pub(crate) use batches::{Batches, stream};
pub(crate) use local::{Local, Source};
pub(crate) use loss::Goal;
pub(crate) use network::Network;
pub(crate) use optimizer::Step;
pub(crate) use start::starting_model;
pub(crate) use state::{SiteState, keyed, open as open_state, seal as seal_state};

use burn::tensor::{Tensor, TensorData};
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::{Augment, Schedule};
use serde::{Deserialize, Serialize};

use self::augment::Changes;
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

/// Steps that a card may be told ahead of what it has computed: what waits for it holds its rows in memory.
const STEPS_AHEAD: u64 = 16;

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

    /// The unit, from 1, that a step, from 1, is the first of; `None` for any other step.
    fn begun_by(self, step: u64) -> Option<u32> {
        let (before, steps) = (step.saturating_sub(1), u64::from(self.steps).max(1));
        before.is_multiple_of(steps).then(|| u32::try_from(before / steps + 1).unwrap_or(u32::MAX))
    }

    /// Hundredths done after so many steps. Steps within a unit show only where hundredths hide how many there are.
    fn hundredths(self, step: u64) -> u32 {
        let steps = u64::from(self.steps).max(1);
        let within = if steps >= 100 { step % steps * 100 / steps } else { 0 };
        let done = (step / steps * 100 + within) / u64::from(self.units).max(1);
        u32::try_from(done).unwrap_or(100).min(100)
    }
}

/// Where the randomness of one task at one site in one round comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws<'a> {
    pub(crate) seed: u64,
    pub(crate) site: &'a [u8],
    pub(crate) task: &'a str,
    pub(crate) round: u32,
}

/// How a network is trained, but for when it has to end.
pub(crate) struct Course<'a> {
    pub(crate) goal: &'a Goal,
    pub(crate) augment: Option<&'a Augment>,
    pub(crate) batch: u32,
    pub(crate) work: Work,
    /// How the learning rate changes from unit to unit of the work.
    pub(crate) schedule: &'a Schedule,
    pub(crate) draws: Draws<'a>,
    pub(crate) correction: Correction,
}

/// What a strategy adds to each gradient at the site.
pub(crate) enum Correction {
    /// Nothing.
    None,
    /// μ·(w − w₀), the gradient of μ/2·‖w − w₀‖² (Li et al. 2020, FedProx).
    Proximal { mu: f64 },
    /// c − cᵢ (Karimireddy et al. 2020, SCAFFOLD, Algorithm 1), one number for each trained parameter.
    Control(Vec<f32>),
}

/// Takes optimiser steps over reshuffled epochs.
pub(crate) fn train(
    network: &mut Network,
    step: &mut Step,
    data: &Matrix,
    course: Course<'_>,
    deadline: Timestamp,
    pulse: &mut Pulse<'_>,
) -> Result<(), CohortError> {
    let Course { goal, augment, batch, work, schedule, draws, correction } = course;
    let Draws { seed, site, task, round } = draws;
    network.check(data, task)?;
    let mut batches = Batches::new(seed, site, task, round, data.rows, batch);
    let mut masks = stream("dropout", seed, site, task, round);
    let mut changes = augment.map(|what| Changes::new(what, stream("augment", seed, site, task, round)));
    let compute = network.compute().clone();
    let (start, shift) = match correction {
        Correction::None => (None, None),
        Correction::Proximal { mu } => (Some((mu, network.trained().clone())), None),
        Correction::Control(shift) => {
            let length = shift.len();
            (None, Some(Tensor::<1>::from_data(TensorData::new(shift, [length]), &compute.device)))
        }
    };
    pace(work, schedule, step, deadline, pulse, |step, taken| {
        let rows = batches.next_batch();
        let mut gradient = network.descent(data, rows, changes.as_mut(), goal, &mut masks);
        if let Some((mu, start)) = &start {
            gradient = gradient + (network.trained().clone() - start.clone()).mul_scalar(*mu);
        }
        if let Some(shift) = &shift {
            gradient = gradient + shift.clone();
        }
        network.step(step, gradient);
        if taken % STEPS_AHEAD == 0 || taken == work.total() {
            compute.settle()?;
        }
        Ok(())
    })
}

/// Takes all steps of some work, from 1, with the learning rate of each, as long as there is time and nobody says stop.
fn pace(
    work: Work,
    schedule: &Schedule,
    step: &mut Step,
    deadline: Timestamp,
    pulse: &mut Pulse<'_>,
    mut take: impl FnMut(&mut Step, u64) -> Result<(), CohortError>,
) -> Result<(), CohortError> {
    for taken in 1..=work.total() {
        if let Some(unit) = work.begun_by(taken) {
            step.scale(schedule.factor(unit, work.units));
        }
        take(step, taken)?;
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
mod tests;
