//! A plan's trainings as the accountants see them: the one place in which a plan's constants become noise and ε, for
//! coordinator and site alike.

use hospes_protocol::plan::model::{Inputs, parameters};
use hospes_protocol::plan::{self, Dp, DpNoise, NnTrain, Plan};

use super::{Delta, DiscreteGaussian, Epsilons, Release, epsilon, lattice, noise_multiplier};
use crate::PrivacyError;

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
                noise_multiplier(target - 2.0 * taken, left, dp.sampling_rate, times)?
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

/// The bound for the patients of one site that all trainings with differential privacy of some plans have together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promise {
    /// ε.
    pub epsilon: f64,
    /// δ, the least that one of them names.
    pub delta: f64,
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
            plan::with_dp(plan).map(move |(task, train, dp)| {
                (*dp, train.steps(), parameters(&train.model, plan::inputs(plan, task)))
            })
        });
        let found: Vec<(Dp, u64, u64)> = found.collect();
        let Some(delta) = found.iter().map(|(dp, ..)| dp.delta).reduce(f64::min) else { return Ok(None) };
        if let [(dp, ..)] = found.as_slice()
            && let DpNoise::Epsilon(epsilon) = dp.noise
        {
            return Ok(Some(Self { epsilon, delta }));
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
        Ok(Some(Self { epsilon: epsilon(&releases, Delta::new(delta)?).worst(), delta }))
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
        assert_eq!(Promise::of([&plan]).unwrap(), Some(Promise { epsilon: found, delta: 1e-5 }));
        let two = Promise::of([&plan, &plan]).unwrap().unwrap();
        assert!(two.epsilon > found && two.epsilon < 2.0 * found, "{two:?}");
    }

    #[test]
    fn the_noise_for_an_epsilon_is_the_least_that_keeps_it() {
        let plan = plan("epsilon: 2.0");
        let found = training(&plan);
        let epsilon = found.epsilons().worst();
        assert!(epsilon <= 2.0 + 1e-12 && epsilon > 1.999, "{epsilon}");
        assert_eq!(Promise::of([&plan]).unwrap(), Some(Promise { epsilon: 2.0, delta: 1e-5 }));
        let noise = found.noise(1_000.0).unwrap();
        let wanted = found.release().noise_multiplier() * 1_000.0;
        assert!(noise.sigma() * noise.sigma() >= (wanted * wanted + 2.0) * (1.0 - 1e-12), "{noise:?}");
        assert!(found.noise(0.5).is_err() && found.noise(1e12).is_err());
    }
}
