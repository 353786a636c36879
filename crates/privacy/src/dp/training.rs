//! A plan's trainings as the accountants see them: the one place in which a plan's constants become noise and ε, for
//! coordinator and site alike.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use hospes_protocol::plan::model::{Inputs, parameters};
use hospes_protocol::plan::{self, Dp, DpMode, DpNoise, NnTrain, Plan, Quantise};

use super::{Delta, DiscreteGaussian, Epsilons, Release, epsilon, lattice, noise_multiplier};
use crate::PrivacyError;

/// Smallest and largest deviation of the noise that sites share, in steps of the quantiser: a part of 128 sites is far above
/// what [`Lattice`](super::Lattice) takes for a Gaussian, and that of one site is what can be drawn.
const SHARED: std::ops::RangeInclusive<f64> = 128.0..=268_435_456.0;

/// Answers of a search for noise that are kept.
const KEPT: usize = 256;

/// A training with differential privacy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// All steps of the task.
    all: Release,
    delta: Delta,
}

impl Training {
    /// What a plan's parameters say; `None` without differential privacy. Where they name an ε, the noise is found from it, which
    /// takes about ten times as long as [`epsilon()`] does; every machine finds the same.
    ///
    /// # Errors
    /// [`PrivacyError::Account`] if a number cannot be accounted for, or no noise reaches the ε; of a plan that was checked,
    /// the latter only.
    ///
    /// # Disclosure
    /// A function of parameters, not of rows.
    pub fn of(train: &NnTrain, inputs: Inputs) -> Result<Option<Self>, PrivacyError> {
        let Some(dp) = &train.dp else { return Ok(None) };
        Self::with(dp, train.steps(), parameters(&train.model, inputs)).map(Some)
    }

    fn with(dp: &Dp, times: u64, parameters: u64) -> Result<Self, PrivacyError> {
        let (delta, distance) = (Delta::new(dp.delta)?, lattice::distance_alone(parameters));
        let multiplier = match dp.noise {
            DpNoise::NoiseMultiplier(multiplier) => multiplier,
            DpNoise::Epsilon(target) => {
                // What the lattice takes of ε and δ, as in `pld`.
                let taken = times as f64 * distance;
                let left = Delta::new(dp.delta * libm::exp(-taken))?;
                found(target - 2.0 * taken, left, dp.sampling_rate, times)?
            }
        };
        let all = Release { distance, ..Release::new(dp.sampling_rate, multiplier, times)? };
        Ok(Self { all, delta })
    }

    /// What all its steps release.
    pub fn release(&self) -> Release {
        self.all
    }

    /// What so many of its steps release, such as those of one round.
    ///
    /// # Errors
    /// As [`Release::new`].
    ///
    /// # Disclosure
    /// A function of parameters, not of rows.
    pub fn part(&self, steps: u64) -> Result<Release, PrivacyError> {
        let Release { sampling_rate, noise_multiplier, distance, .. } = self.all;
        Ok(Release { distance, ..Release::new(sampling_rate, noise_multiplier, steps)? })
    }

    /// The δ that its ε is for.
    pub fn delta(&self) -> Delta {
        self.delta
    }

    /// The ε of all its steps, for the patients of one site.
    pub fn epsilons(&self) -> Epsilons {
        epsilon(&[self.all], self.delta)
    }

    /// The deviation that the noise of a round's sum keeps, whoever is missing or takes their part off, where the sites share
    /// it; `None` where they do not.
    ///
    /// What a site sends is a constant times a sum on the grid, weighed, cut to the quantiser's clip, and rounded to its
    /// steps. One patient moves it by what they move the sum, and by what rounding to 32 bits and to steps adds. Sums,
    /// products and roots only, so that every machine finds the same.
    ///
    /// # Units
    /// Steps of the quantiser.
    ///
    /// # Errors
    /// As [`Training::of`], and [`PrivacyError::Account`] if the noise has too few or too many steps.
    ///
    /// # Disclosure
    /// A function of parameters, not of rows.
    pub fn shared(train: &NnTrain, inputs: Inputs) -> Result<Option<f64>, PrivacyError> {
        let Some(dp) = train.dp.filter(|dp| dp.mode == DpMode::Distributed) else { return Ok(None) };
        let Some(training) = Self::of(train, inputs)? else { return Ok(None) };
        let Quantise { clip, bits, n_max } = &train.quantise;
        let levels = 1u64.checked_shl(u32::from(*bits)).unwrap_or(0);
        let (most, n_max) = (levels.saturating_sub(1) as f64, f64::from(*n_max));
        let weight = (dp.weight() as f64).min(n_max) / n_max;
        let moved = weight * train.optimizer.lr() * dp.clip_norm_l2 / dp.expected_batch * most / (2.0 * clip);
        // Two numbers that are each rounded to 24 bits below the clip differ by 2^-23 of it more: 256 steps of 32 bits. Two
        // steps for the rounding to steps and in between.
        let rounded = (parameters(&train.model, inputs) as f64).sqrt() * (2.0 + 256.0 * weight);
        let sigma = lattice::wider(training.all.noise_multiplier * (moved + rounded));
        if SHARED.contains(&sigma) {
            return Ok(Some(sigma));
        }
        Err(PrivacyError::Account { place: "quantise.clip", reason: "gives the noise too few or too many steps" })
    }

    /// The noise of one step for sums on a grid.
    ///
    /// # Units
    /// `sensitivity`: by how much one patient changes a sum at most, as a Euclidean length in steps of the grid.
    ///
    /// # Errors
    /// [`PrivacyError::Account`] if the noise is below 2 or above 2^28 steps wide.
    ///
    /// # Disclosure
    /// A function of parameters, not of rows.
    pub fn noise(&self, sensitivity: f64) -> Result<DiscreteGaussian, PrivacyError> {
        lattice::alone(self.all.noise_multiplier * sensitivity)
    }
}

type Found = Result<f64, PrivacyError>;

/// The noise for an ε. A site asks for it with every permit, and the search takes as long as ten accounts, so that the last
/// few are kept, also where there is none.
fn found(epsilon: f64, delta: Delta, sampling_rate: f64, times: u64) -> Result<f64, PrivacyError> {
    static FOUND: Mutex<VecDeque<([u64; 4], Found)>> = Mutex::new(VecDeque::new());
    let asked = [epsilon.to_bits(), delta.value().to_bits(), sampling_rate.to_bits(), times];
    let kept = || FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, noise)) = kept().iter().find(|(known, _)| *known == asked) {
        return noise.clone();
    }
    let noise = noise_multiplier(epsilon, delta, sampling_rate, times);
    let mut kept = kept();
    kept.truncate(KEPT - 1);
    kept.push_front((asked, noise.clone()));
    noise
}

/// The bound for the patients of one site that all trainings with differential privacy of some plans have together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promise {
    /// ε.
    pub epsilon: f64,
    /// δ, the least that one of them names.
    pub delta: f64,
    /// Whether it is a promise about sums over sites, to which each adds a part of the noise.
    pub shared: bool,
}

impl Promise {
    /// Of these plans; `None` if none of them trains with differential privacy. A single training that names an ε promises
    /// that one, which its noise is found for.
    ///
    /// # Errors
    /// As [`Training::of`].
    ///
    /// # Disclosure
    /// A function of parameters, not of rows.
    pub fn of<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> Result<Option<Self>, PrivacyError> {
        let found = plans.into_iter().flat_map(|plan| {
            plan::with_dp(plan)
                .map(move |(task, train, dp)| (*dp, train.steps(), parameters(&train.model, plan::inputs(plan, task))))
        });
        let found: Vec<(Dp, u64, u64)> = found.collect();
        let Some(delta) = found.iter().map(|(dp, ..)| dp.delta).reduce(f64::min) else { return Ok(None) };
        let shared = found.iter().any(|(dp, ..)| dp.mode == DpMode::Distributed);
        if let [(dp, ..)] = found.as_slice()
            && let DpNoise::Epsilon(epsilon) = dp.noise
        {
            return Ok(Some(Self { epsilon, delta, shared }));
        }
        // The runs of a search mostly differ in what is no matter of noise, which takes long to find.
        let mut known: Vec<(Dp, u64, u64, Release)> = Vec::new();
        let mut releases = Vec::new();
        for (dp, steps, parameters) in found {
            let before = known.iter().find(|(d, s, p, _)| (*d, *s, *p) == (dp, steps, parameters));
            let release = match before {
                Some((.., release)) => *release,
                None => Training::with(&dp, steps, parameters)?.all,
            };
            known.push((dp, steps, parameters, release));
            releases.push(release);
        }
        Ok(Some(Self { epsilon: epsilon(&releases, Delta::new(delta)?).worst(), delta, shared }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(noise: &str) -> Plan {
        let text = format!(
            "schema: hospes/plan/v1
name: p
data: {{ subject: id, label: {{ column: y, positive: '> 0' }}, columns: [a, b] }}
tasks:
  read: {{ component: reader }}
  train:
    component: nn_train
    inputs: {{ train: read }}
    params:
      model: [{{ linear: {{ out: 1 }} }}]
      loss: binary_cross_entropy
      optimizer: {{ sgd: {{ lr: 0.1 }} }}
      rounds: 20
      local: {{ updates: 5, batch: 8 }}
      strategy: {{ fed_avg: {{}} }}
      privacy: {{ plain: {{}} }}
      dp: {{ mode: local, {noise}, delta: 1.0e-5, clip_norm_l2: 1.0, sampling_rate: 0.1, expected_batch: 8 }}
"
        );
        plan::read(&text).unwrap()
    }

    fn training(plan: &Plan) -> Training {
        let (task, train, _) = plan::with_dp(plan).next().unwrap();
        Training::of(train, plan::inputs(plan, task)).unwrap().unwrap()
    }

    #[test]
    fn steps_of_all_rounds_are_accounted_and_those_of_parts_are_they_together() {
        let plan = plan("noise_multiplier: 2.0");
        let all = training(&plan);
        assert_eq!((all.release().times(), all.release().noise_multiplier()), (100, 2.0));
        let plain = epsilon(&[Release::new(0.1, 2.0, 100).unwrap()], Delta::new(1e-5).unwrap()).worst();
        let found = all.epsilons().worst();
        assert!(found >= plain && found < plain + 1e-9, "{found} {plain}");
        let rounds = vec![all.part(5).unwrap(); 20];
        assert!((epsilon(&rounds, all.delta()).worst() - found).abs() < 1e-9);
        assert_eq!(Promise::of([&plan]).unwrap(), Some(Promise { epsilon: found, delta: 1e-5, shared: false }));
        let two = Promise::of([&plan, &plan]).unwrap().unwrap();
        assert!(two.epsilon > found && two.epsilon < 2.0 * found, "{two:?}");
    }

    #[test]
    fn the_noise_for_an_epsilon_is_the_least_that_keeps_it() {
        let plan = plan("epsilon: 2.0");
        let found = training(&plan);
        let epsilon = found.epsilons().worst();
        assert!(epsilon <= 2.0 + 1e-12 && epsilon > 1.999, "{epsilon}");
        assert_eq!(Promise::of([&plan]).unwrap(), Some(Promise { epsilon: 2.0, delta: 1e-5, shared: false }));
        let noise = found.noise(1_000.0).unwrap();
        let wanted = found.release().noise_multiplier() * 1_000.0;
        assert!(noise.sigma() * noise.sigma() >= (wanted * wanted + 2.0) * (1.0 - 1e-12), "{noise:?}");
        assert!(found.noise(0.5).is_err() && found.noise(1e12).is_err());
    }

    #[test]
    fn shared_noise_is_as_wide_as_what_a_patient_moves_of_what_is_sent() {
        let mut plan = plan("noise_multiplier: 2.0");
        let hospes_protocol::plan::Component::NnTrain(train) = &mut plan.tasks.get_mut("train").unwrap().component
        else {
            panic!("no training")
        };
        assert_eq!(Training::shared(train, 2u64.into()).unwrap(), None, "each adds its own");
        train.dp.as_mut().unwrap().mode = DpMode::Distributed;
        // A weight of 80 of 10,000, a rate of 0.1, an eighth of the clip of 1, in steps of 8 / (2^32 − 1).
        let moved = 0.008 * 0.1 / 8.0 / 8.0 * 4_294_967_295.0;
        let found = Training::shared(train, 2u64.into()).unwrap().unwrap();
        assert!(found > 2.0 * moved && found < 2.0 * (moved + 16.0), "{found} {moved}");
        train.quantise.clip = 1e6;
        assert!(Training::shared(train, 2u64.into()).is_err(), "steps that are too coarse");
        train.quantise.clip = 1e-6;
        assert!(Training::shared(train, 2u64.into()).is_err(), "steps that are too fine");
    }
}
