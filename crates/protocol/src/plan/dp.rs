//! Differential privacy of a training, as a plan asks for it.
//!
//! What it costs is computed in `privacy::dp`; what it is computed from, and what a site keeps to when it trains, are these
//! constants and no number that depends on patients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Component, NnTrain, Plan};

/// Differential privacy for the patients of each site, in one task.
///
/// The unit is the patient, with all of their rows; two datasets are neighbours if one has a patient more. In each of the
/// task's steps every patient of a site is drawn by themselves with the sampling rate, their gradient is clipped, and the sum
/// gets noise of the noise multiplier times the clip.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Written", into = "Written")]
pub struct Dp {
    /// Who adds the noise.
    pub mode: DpMode,
    /// How much of it, or how much privacy.
    pub noise: DpNoise,
    /// The chance with which the privacy loss may be larger than ε.
    pub delta: f64,
    /// Longest gradient of one patient; a longer one is scaled down to it.
    pub clip_norm_l2: f64,
    /// The chance of each patient to be drawn in a step.
    pub sampling_rate: f64,
    /// What the noisy sum of a step is divided by: the number of patients that a step is expected to draw at a site, as it is
    /// declared here for all sites alike.
    pub expected_batch: f64,
}

/// Who adds the noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DpMode {
    /// Each site all of it, at every step, by itself: what it sends is protected whoever reads it.
    Local,
    /// Each site a part of it, once a round, under masks: the sum over the sites is protected, and no single update.
    Distributed,
}

/// How much noise, or how much privacy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DpNoise {
    /// Standard deviation of a step's noise over the clip.
    NoiseMultiplier(f64),
    /// The ε that all steps of the task have together at δ; the least noise is found from it.
    Epsilon(f64),
}

/// Differential privacy for the patients of each site, as it is written: with `noise_multiplier` or `epsilon`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Who adds the noise.
    mode: DpMode,
    /// Standard deviation of a step's noise over the clip; or `epsilon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    noise_multiplier: Option<f64>,
    /// The ε that all steps of the task have together at δ; or `noise_multiplier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    /// The chance with which the privacy loss may be larger than ε.
    delta: f64,
    /// Longest gradient of one patient; a longer one is scaled down to it.
    clip_norm_l2: f64,
    /// The chance of each patient to be drawn in a step.
    sampling_rate: f64,
    /// What the noisy sum of a step is divided by: the number of patients that a step is expected to draw at a site.
    expected_batch: f64,
}

impl TryFrom<Written> for Dp {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let noise = match (written.noise_multiplier, written.epsilon) {
            (Some(multiplier), None) => DpNoise::NoiseMultiplier(multiplier),
            (None, Some(epsilon)) => DpNoise::Epsilon(epsilon),
            _ => return Err("needs either noise_multiplier or epsilon: one follows from the other"),
        };
        let Written { mode, delta, clip_norm_l2, sampling_rate, expected_batch, .. } = written;
        Ok(Self { mode, noise, delta, clip_norm_l2, sampling_rate, expected_batch })
    }
}

impl From<Dp> for Written {
    fn from(dp: Dp) -> Self {
        let (noise_multiplier, epsilon) = match dp.noise {
            DpNoise::NoiseMultiplier(multiplier) => (Some(multiplier), None),
            DpNoise::Epsilon(epsilon) => (None, Some(epsilon)),
        };
        let Dp { mode, delta, clip_norm_l2, sampling_rate, expected_batch, .. } = dp;
        Self { mode, noise_multiplier, epsilon, delta, clip_norm_l2, sampling_rate, expected_batch }
    }
}

impl Dp {
    /// What a site's update says in place of its number of rows, by which it is weighed: the number of patients that follows
    /// from the plan, the same for every site. The real one is of the patients, and no noise covers it.
    #[must_use]
    pub fn weight(&self) -> u64 {
        // Casts of numbers beyond saturate.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let patients = (self.expected_batch / self.sampling_rate).round() as u64;
        patients.max(1)
    }
}

impl NnTrain {
    /// Optimiser steps that one site takes at most, in all rounds together.
    #[must_use]
    pub fn steps(&self) -> u64 {
        u64::from(self.rounds) * u64::from(self.local.updates)
    }
}

/// Trainings with differential privacy, by their tasks.
pub fn with_dp(plan: &Plan) -> impl Iterator<Item = (&str, &NnTrain, &Dp)> {
    plan.tasks.iter().filter_map(|(name, task)| match &task.component {
        Component::NnTrain(train) => train.dp.as_ref().map(|dp| (name.as_str(), train.as_ref(), dp)),
        _ => None,
    })
}

/// Tasks that send something without differential privacy.
pub fn without_dp(plan: &Plan) -> Vec<&str> {
    let sends = plan.tasks.iter().filter(|(_, task)| task.component.rounds() > 0);
    let without = sends.filter(|(_, task)| match &task.component {
        Component::NnTrain(train) => train.dp.is_none(),
        _ => true,
    });
    without.map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_written_as_a_multiplier_or_as_what_it_is_for() {
        let text = |noise: &str| {
            format!(
                r#"{{"mode":"local",{noise}"delta":1e-6,"clip_norm_l2":1.5,"sampling_rate":0.1,"expected_batch":8.0}}"#
            )
        };
        let read = |noise: &str| serde_json::from_str::<Dp>(&text(noise));
        let dp = read(r#""epsilon":4.0,"#).unwrap();
        assert_eq!((dp.noise, dp.weight()), (DpNoise::Epsilon(4.0), 80));
        assert_eq!(serde_json::to_string(&dp).unwrap(), text(r#""epsilon":4.0,"#));
        let dp = read(r#""noise_multiplier":1.1,"#).unwrap();
        assert_eq!(dp.noise, DpNoise::NoiseMultiplier(1.1));
        assert_eq!(serde_json::from_str::<Dp>(&serde_json::to_string(&dp).unwrap()).unwrap(), dp);
        for neither in ["", r#""noise_multiplier":1.1,"epsilon":4.0,"#] {
            let words = read(neither).unwrap_err().to_string();
            assert!(words.contains("either noise_multiplier or epsilon"), "{words}");
        }
        assert!(read(r#""sigma":1.1,"epsilon":1.0,"#).is_err());
    }
}
