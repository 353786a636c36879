//! What a step with differential privacy costs against one without, on noise in place of rows.

use std::time::Instant;

use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::model::{Inputs, initial};
use hospes_protocol::plan::{Feature, Loss, Model, Optimizer, Schedule};
use rand_core::Rng as _;

use super::sampling::Subjects;
use super::{Course, Noise, Rules, Secret};
use crate::component::{Matrix, Pixels};
use crate::device::{Compute, Place};
use crate::error::CohortError;
use crate::train::{Correction, Draws, Goal, Network, Pulse, Step, Work, stream};

/// Batches of which a data set is made, that a step draws one of on average.
const BATCHES: u32 = 16;
/// Steps before the time runs.
const WARM_UP: u32 = 3;
/// Times that everything is timed; the shortest one counts.
const TRIES: u32 = 3;

/// What is timed.
pub struct Trial<'a> {
    /// The network.
    pub model: &'a Model,
    /// What a row gives it.
    pub inputs: Inputs,
    /// The loss: of yes and no, of classes, or of numbers.
    pub loss: Loss,
    /// Rows of a batch, each of another subject; with differential privacy, on average.
    pub batch: u32,
    /// Steps that are timed.
    pub steps: u32,
    /// Where it computes.
    pub place: Place,
}

/// Seconds that one step takes.
#[derive(Debug, Clone, Copy)]
pub struct StepTimes {
    /// Without differential privacy.
    pub plain_s: f64,
    /// With it, the noise included.
    pub private_s: f64,
}

/// Times steps on random numbers. `noise`: adds noise to a sum in whole steps of a grid, in which one subject changes no
/// more than the second argument.
///
/// # Errors
/// [`CohortError::Model`] if the model does not fit the inputs; [`CohortError::Plan`] if it mixes the rows of a batch;
/// [`CohortError::Device`] if a card cannot be opened or fails.
///
/// # Disclosure
/// Nothing about patients; there are none in it.
pub fn step_times(trial: &Trial<'_>, noise: &mut dyn FnMut(&mut [i64], f64)) -> Result<StepTimes, CohortError> {
    let compute = trial.place.open()?;
    let data = random_rows(trial);
    let mut times = StepTimes { plain_s: f64::INFINITY, private_s: f64::INFINITY };
    for _ in 0..TRIES {
        times.plain_s = times.plain_s.min(seconds(trial, &data, &compute, None)?);
        times.private_s = times.private_s.min(seconds(trial, &data, &compute, Some(&mut *noise))?);
    }
    Ok(times)
}

/// Seconds of a step, with differential privacy if there is noise.
fn seconds(
    trial: &Trial<'_>,
    data: &Matrix,
    compute: &Compute,
    mut noise: Option<&mut Noise<'_>>,
) -> Result<f64, CohortError> {
    let start = initial(trial.model, trial.inputs, 1);
    let mut network = Network::new(trial.model, data, &start, compute)?;
    let mut step = Step::new(&Optimizer::Sgd { lr: 0.01, momentum: 0.0 }, 1.0);
    let (goal, task) = (Goal::new(trial.loss, &[]), "timing");
    let rows: Vec<usize> = (0..data.rows).collect();
    let (subjects, secret) = (Subjects::of(&rows), Secret::from_bytes([0; 32]));
    let rules = Rules::new(1.0, 1.0 / f64::from(BATCHES), f64::from(trial.batch), task)?;
    let (now, deadline) = (|| Timestamp::from_millis(0), Timestamp::from_millis(1));
    let mut take = |steps: u32| -> Result<(), CohortError> {
        let work = Work { units: steps, steps: 1 };
        let mut pulse = Pulse { now: &now, progress: &mut |_| true };
        let (goal, schedule) = (&goal, &Schedule::Constant);
        match &mut noise {
            Some(noise) => {
                let (subjects, secret) = (&subjects, &secret);
                let course = Course { goal, augment: None, work, schedule, task, rules, subjects, secret };
                super::train(&mut network, &mut step, data, &course, &mut **noise, deadline, &mut pulse)?;
            }
            None => {
                let draws = Draws { seed: 1, site: b"site", task, round: 1 };
                let (batch, correction) = (trial.batch, Correction::None);
                let course = crate::train::Course { goal, augment: None, batch, work, schedule, draws, correction };
                crate::train::train(&mut network, &mut step, data, course, deadline, &mut pulse)?;
            }
        }
        compute.settle()
    };
    take(WARM_UP)?;
    let (start, steps) = (Instant::now(), trial.steps.max(1));
    take(steps)?;
    Ok(start.elapsed().as_secs_f64() / f64::from(steps))
}

/// Noise in the shape of rows, with labels that fit any loss but `cox`.
fn random_rows(trial: &Trial<'_>) -> Matrix {
    let rows = trial.batch.max(1) as usize * BATCHES as usize;
    let mut draws = stream("timing", 0, b"device", "noise", 0);
    let columns: Vec<Feature> =
        (0..trial.inputs.features).map(|i| Feature { name: format!("x{i}"), codes: None }).collect();
    let mut bytes = vec![0u8; rows * columns.len()];
    draws.fill_bytes(&mut bytes);
    let images = trial.inputs.image.map(|shape| {
        let shape = shape.map(|side| usize::try_from(side).unwrap_or(usize::MAX));
        let mut bytes = vec![0u8; rows * shape.iter().product::<usize>()];
        draws.fill_bytes(&mut bytes);
        Pixels { shape, bytes }
    });
    Matrix {
        rows,
        columns,
        values: bytes.iter().map(|byte| f32::from(*byte) / 128.0 - 1.0).collect(),
        labels: (0..rows).map(|row| f32::from(row % 3 == 0)).collect(),
        times: Vec::new(),
        images,
        origin: vec![0; rows],
    }
}
