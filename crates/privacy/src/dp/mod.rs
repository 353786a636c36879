//! Differential privacy: noise that is exactly what the theorems are about, and what releases with it cost.
//!
//! The unit is the subject, the adjacency *add or remove one subject*, and batches are Poisson samples: each subject is in one
//! with the sampling rate, independently. Sums are clipped per subject before noise of `noise_multiplier` times the clip
//! is added. Only what was released in this way may be accounted here; what trains on other batches, or other steps, than
//! it accounts for has another ε (specs/differential-privacy.md).
//!
//! - [`DiscreteGaussian`] draws noise, in whole steps of a lattice, from a [`Source`] of secret random bytes.
//! - [`epsilon()`] is the number that is reported: the privacy loss distribution, an upper bound whatever its grid.
//! - [`Curve`] is the independent cross-check, and what a ledger keeps: Rényi divergences at fixed orders, which add up over
//!   steps, studies and federations; [`Budget`] enforces with it, also where each step is chosen after the last was seen.
//! - [`noise_multiplier()`] and [`most_times()`] find what a target allows.
//! - [`Training`] and [`Promise`] say all this of a plan.
//! - [`Lattice`] is noise that several sites add together under secure aggregation.
//!
//! How and why so: docs/adr/0034-differential-privacy-accounting.md.

mod calibrate;
mod filter;
mod fourier;
mod gaussian;
mod lattice;
mod moments;
mod noise;
mod pld;
mod rdp;
mod source;
#[cfg(test)]
mod tests;
mod training;

pub use calibrate::{most_times, noise_multiplier};
pub use filter::Budget;
pub use lattice::{Lattice, price};
pub use noise::DiscreteGaussian;
pub use pld::{Epsilons, delta, epsilon};
pub use rdp::{Bound, Curve};
pub use source::Source;
pub use training::{Promise, Training};

use serde::{Deserialize, Serialize};

use crate::PrivacyError;

/// Smallest and largest noise multiplier that is accounted for.
const NOISE: std::ops::RangeInclusive<f64> = 0.1..=1e6;
/// Most releases of one kind.
const TIMES: u64 = 1 << 32;
/// Smallest δ.
const LEAST_DELTA: f64 = 1e-50;

/// The chance with which the loss may be larger than ε.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Delta(f64);

impl Delta {
    /// A δ.
    ///
    /// # Errors
    /// [`PrivacyError::Account`] if it is not below 1, or below 1e-50.
    pub fn new(delta: f64) -> Result<Self, PrivacyError> {
        if (LEAST_DELTA..1.0).contains(&delta) {
            Ok(Self(delta))
        } else {
            Err(PrivacyError::Account { place: "delta", reason: "must be at least 1e-50 and below 1" })
        }
    }

    /// The number.
    pub fn value(self) -> f64 {
        self.0
    }
}

/// The same release many times: a sum over a Poisson sample of subjects, each clipped, with Gaussian noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    sampling_rate: f64,
    noise_multiplier: f64,
    times: u64,
    /// How far, in max-divergence, one release is from one with noise of a continuous Gaussian ([`Lattice`]).
    distance: f64,
}

impl Release {
    /// So many releases.
    ///
    /// # Units
    /// `sampling_rate`: chance of each subject to be in one; 1 if all always are. `noise_multiplier`: standard deviation of the
    /// noise over the largest Euclidean norm of what one subject adds.
    ///
    /// # Errors
    /// [`PrivacyError::Account`] if the sampling rate is not above 0 and at most 1, the noise multiplier is not from 0.1 to a
    /// million, or the number of times is not from 1 to 2^32.
    pub fn new(sampling_rate: f64, noise_multiplier: f64, times: u64) -> Result<Self, PrivacyError> {
        let wrong = |place, reason| Err(PrivacyError::Account { place, reason });
        if !(sampling_rate > 0.0 && sampling_rate <= 1.0) {
            return wrong("sampling_rate", "must be above 0 and at most 1");
        }
        if !NOISE.contains(&noise_multiplier) {
            return wrong("noise_multiplier", "must be from 0.1 to a million");
        }
        if !(1..=TIMES).contains(&times) {
            return wrong("times", "must be from 1 to 2^32");
        }
        Ok(Self { sampling_rate, noise_multiplier, times, distance: 0.0 })
    }

    /// So many times as many: the same in each of so many rounds.
    ///
    /// # Disclosure
    /// Nothing about patients.
    #[must_use]
    pub fn repeated(self, rounds: u64) -> Self {
        Self { times: self.times.saturating_mul(rounds), ..self }
    }

    /// Chance of each subject to be in one.
    pub fn sampling_rate(&self) -> f64 {
        self.sampling_rate
    }

    /// Standard deviation of the noise over the largest norm of what one subject adds.
    pub fn noise_multiplier(&self) -> f64 {
        self.noise_multiplier
    }

    /// How many.
    pub fn times(&self) -> u64 {
        self.times
    }
}
