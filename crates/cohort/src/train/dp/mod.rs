//! Training with differential privacy for patients: DP-SGD (Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang 2016,
//! Algorithm 1).
//!
//! In each step every subject is drawn by itself with the same probability, the gradients of those that were drawn are
//! clipped one by one, their sum gets noise, and what comes of it is divided by a constant. What of this decides over the
//! privacy that an accountant computes for it:
//!
//! - Whom a step draws is known to nobody: the draws are a secret of the site and have nothing to do with the plan's seed
//!   (`Secret`). So are masks of dropout and changes to images: were they a known function of a row's place in its batch,
//!   one more patient would change those of all others, and with them their gradients.
//! - The number of subjects in a step is as it is drawn, 0 among others, and every step is taken and gets noise: the steps
//!   that are counted are the steps that were taken.
//! - The divisor is declared, not counted: the number of patients and of those drawn are of the patients.
//! - One patient changes the sum by no more than the clip, whatever its rows hold: `Network::clipped_sum` clips rows of one
//!   subject together, leaves out what is no number, and refuses layers and losses that mix rows. The sum is rounded to a
//!   grid, on which the noise is a whole number; what rounding adds is taken off the clip.
//!
//! Here no noise is drawn and nothing is accounted: the noise comes as an argument.

mod grid;
mod sampling;
mod timing;

pub use timing::{StepTimes, Trial, step_times};

use burn::tensor::{Tensor, TensorData};
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::{Augment, Schedule};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use zeroize::Zeroizing;

use self::grid::Grid;
use self::sampling::Poisson;
pub(crate) use self::sampling::Subjects;
use super::augment::Changes;
use super::loss::Goal;
use super::network::{Clipped, Fresh, Network, values};
use super::optimizer::Step;
use super::{Pulse, Work, pace};
use crate::component::Matrix;
use crate::error::CohortError;

/// Adds a draw of noise to each number of a sum. The second argument is by how much one subject can change the sum at most,
/// as a Euclidean length in the same steps of a grid: noise of standard deviation σ times that is what an accountant calls a
/// noise multiplier of σ.
pub(crate) type Noise<'n> = dyn FnMut(&mut [i64], f64) + 'n;

/// The constants of a run, as they were agreed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    clip_norm_l2: f64,
    sampling_rate: f64,
    expected_batch: f64,
}

impl Rules {
    /// `sampling_rate`: the probability of each subject in each step. `expected_batch`: what the noisy sum is divided by.
    ///
    /// # Errors
    /// [`CohortError::Plan`] if one of them is not finite and above 0, or the rate is above 1.
    pub(crate) fn new(
        clip_norm_l2: f64,
        sampling_rate: f64,
        expected_batch: f64,
        task: &str,
    ) -> Result<Self, CohortError> {
        let all = [clip_norm_l2, sampling_rate, expected_batch];
        if all.iter().all(|value| value.is_normal() && *value > 0.0) && sampling_rate <= 1.0 {
            return Ok(Self { clip_norm_l2, sampling_rate, expected_batch });
        }
        let reason = "clip, sampling rate and expected batch must be finite numbers above 0, and the rate at most 1";
        Err(CohortError::Plan { place: format!("tasks.{task}.params"), reason: reason.to_owned() })
    }
}

/// Random bytes of this site that nobody else knows, for one task in one round: from them follow whom each step draws,
/// masks and changes. Fixed ones are for tests. It has no `Debug`.
pub(crate) struct Secret(Zeroizing<[u8; 32]>);

/// What is drawn from a secret; each has a stream of its own.
#[derive(Clone, Copy)]
enum Purpose {
    Batches = 0,
    Masks = 1,
    Changes = 2,
}

impl Secret {
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    fn stream(&self, purpose: Purpose) -> ChaCha20Rng {
        let mut stream = ChaCha20Rng::from_seed(*self.0);
        stream.set_stream(purpose as u64);
        stream
    }
}

/// How a network is trained with differential privacy, but for the noise and for when it has to end.
pub(crate) struct Course<'a> {
    pub(crate) goal: &'a Goal,
    pub(crate) augment: Option<&'a Augment>,
    pub(crate) work: Work,
    /// How the learning rate changes from unit to unit of the work.
    pub(crate) schedule: &'a Schedule,
    pub(crate) task: &'a str,
    pub(crate) rules: Rules,
    /// Which rows are whose.
    pub(crate) subjects: &'a Subjects,
    pub(crate) secret: &'a Secret,
}

/// By how many steps of the grid one subject changes a sum at most, where this network is trained by these rules.
pub(crate) fn sensitivity(network: &Network, rules: Rules) -> f64 {
    Grid::new(rules.clip_norm_l2, network.trained().dims()[0]).sensitivity()
}

/// Takes all steps of the work; says how many these were, which is how often one subject may have been in the sum.
///
/// # Errors
/// [`CohortError::Plan`] if the rows do not fit the network, or if a layer or the loss mixes subjects;
/// [`CohortError::TooLate`] and [`CohortError::Cancelled`] as everywhere.
///
/// # Panics
/// If the subjects are those of other rows.
pub(crate) fn train(
    network: &mut Network,
    step: &mut Step,
    data: &Matrix,
    course: &Course<'_>,
    noise: &mut Noise<'_>,
    deadline: Timestamp,
    pulse: &mut Pulse<'_>,
) -> Result<u64, CohortError> {
    assert_eq!(course.subjects.rows_in_all(), data.rows, "each row is of one subject");
    network.check(data, course.task)?;
    network.keeps_subjects_apart(course.goal, course.task)?;
    let mut steps = Steps::new(course, network.trained().dims()[0]);
    pace(course.work, course.schedule, step, deadline, pulse, |step, _| steps.take(network, step, data, noise))?;
    Ok(steps.taken)
}

/// The steps of one run.
struct Steps<'a> {
    course: &'a Course<'a>,
    grid: Grid,
    batches: Poisson,
    masks: ChaCha20Rng,
    changes: Option<Changes>,
    taken: u64,
}

impl<'a> Steps<'a> {
    /// `parameters`: how many are trained.
    fn new(course: &'a Course<'a>, parameters: usize) -> Self {
        let Course { rules, subjects, secret, .. } = course;
        let changes = course.augment.map(|what| Changes::new(what, secret.stream(Purpose::Changes)));
        Self {
            course,
            grid: Grid::new(rules.clip_norm_l2, parameters),
            batches: Poisson::new(rules.sampling_rate, subjects.len(), secret.stream(Purpose::Batches)),
            masks: secret.stream(Purpose::Masks),
            changes,
            taken: 0,
        }
    }

    /// Draws subjects, adds up their clipped gradients and the noise, and lets the optimiser take its step.
    fn take(
        &mut self,
        network: &mut Network,
        step: &mut Step,
        data: &Matrix,
        noise: &mut Noise<'_>,
    ) -> Result<(), CohortError> {
        let course = self.course;
        let drawn = self.batches.draw();
        let drawn: Vec<&[usize]> = drawn.into_iter().map(|subject| course.subjects.rows(subject)).collect();
        let what = Clipped { data, subjects: &drawn, goal: course.goal, clip_norm_l2: self.grid.clip_norm_l2() };
        let mut fresh = Fresh { changes: self.changes.as_mut(), masks: &mut self.masks };
        let sum = network.clipped_sum(what, &mut fresh, course.task)?;
        let mut sum = self.grid.rounded(&values(&sum));
        // PRIVACY: from here on, nothing but the noisy sum is known of the rows.
        noise(&mut sum, self.grid.sensitivity());
        self.taken += 1;
        let gradient = self.grid.divided(&sum, course.rules.expected_batch);
        let length = gradient.len();
        let gradient = Tensor::<1>::from_data(TensorData::new(gradient, [length]), &network.compute().device);
        network.step(step, gradient);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
