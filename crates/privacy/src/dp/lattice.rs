//! Discrete noise, of one site or of several together, as the accountants see it.

use super::{DiscreteGaussian, Release};
use crate::PrivacyError;

/// Least σ of one site's noise in steps.
const LEAST_STEPS: f64 = 2.0;
/// Variance, in steps², by which the continuous Gaussian is narrower than the noise of the lattice.
const ROUNDED: f64 = 2.0;

/// Discrete Gaussian noise that some sites add, each by itself, to the same coordinates.
///
/// The accountants know continuous Gaussians; this bounds how far lattice noise is from one, in max-divergence of one release:
///
/// - A sum of n discrete Gaussians of variance s² is within τ = 10·Σ_{0<k<n} exp(−2π²s²k/(k + 1)) per coordinate of one of
///   variance n·s² (Kairouz, Liu, Steinke 2021, "The distributed discrete Gaussian mechanism for federated
///   learning with secure aggregation").
/// - A discrete Gaussian of variance v is what comes of a continuous one of variance v − 2 that is rounded to the lattice by a
///   discrete Gaussian of variance 2 around it, up to a factor within e^(±3·exp(−4π²)) per coordinate: by Poisson's summation
///   each of the two sums over the lattice differs from its integral by at most 2.01·exp(−2π²·2). Rounding is
///   post-processing, so that what is accounted is the continuous Gaussian of variance v − 2.
///
/// A shift by one subject's contribution is a vector of whole steps, as contributions are quantised before noise is added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lattice {
    /// Variance of the sum.
    variance: f64,
    distance: f64,
}

impl Lattice {
    /// Noise of so many sites.
    ///
    /// # Units
    /// `sites`: those whose noise surely is in the sum and is not known to who looks, |U2| − `d_max` − max(c, 1); 1 for a site
    /// that adds all noise by itself. `sigma_each`: of one site, in steps. `coordinates`: of the whole vector.
    ///
    /// # Errors
    /// [`PrivacyError::Account`] if there is no site, or σ is below 2 steps.
    pub fn new(sites: u32, sigma_each: f64, coordinates: u64) -> Result<Self, PrivacyError> {
        if sites == 0 {
            return Err(PrivacyError::Account { place: "sites", reason: "must be at least 1" });
        }
        if !(sigma_each >= LEAST_STEPS && sigma_each.is_finite()) {
            return Err(PrivacyError::Account { place: "sigma", reason: "must be at least 2 steps of the lattice" });
        }
        let squared = std::f64::consts::PI * std::f64::consts::PI;
        let term = |k: u32| libm::exp(-2.0 * squared * sigma_each * sigma_each * f64::from(k) / (f64::from(k) + 1.0));
        let summed = 10.0 * (1..sites).map(term).sum::<f64>();
        let variance = f64::from(sites) * sigma_each * sigma_each;
        Ok(Self { variance, distance: coordinates as f64 * (summed + rounded()) })
    }

    /// What is accounted: releases with this noise.
    ///
    /// # Units
    /// `sensitivity`: largest Euclidean norm of what one subject adds, in steps, after quantising.
    ///
    /// # Errors
    /// [`PrivacyError::Account`] if the sensitivity is not above 0, or as [`Release::new`].
    ///
    /// # Disclosure
    /// A function of parameters, not of rows.
    pub fn release(&self, sampling_rate: f64, sensitivity: f64, times: u64) -> Result<Release, PrivacyError> {
        if !(sensitivity > 0.0 && sensitivity.is_finite()) {
            return Err(PrivacyError::Account { place: "sensitivity", reason: "must be above 0 and finite" });
        }
        let continuous = (self.variance - ROUNDED).sqrt() / sensitivity;
        Ok(Release { distance: self.distance, ..Release::new(sampling_rate, continuous, times)? })
    }
}

/// How far, in max-divergence and for each coordinate, one discrete Gaussian is from what is accounted for it.
fn rounded() -> f64 {
    let squared = std::f64::consts::PI * std::f64::consts::PI;
    3.0 * libm::exp(-2.0 * squared * ROUNDED)
}

/// The distance of a release with the noise of one site, of so many coordinates: that of [`Lattice::new`] for one site.
pub(super) fn distance_alone(coordinates: u64) -> f64 {
    coordinates as f64 * rounded()
}

/// The noise that one site adds by itself, for what is accounted as a continuous Gaussian of this deviation: as much wider as
/// [`Lattice::release`] takes it to be narrower.
pub(super) fn alone(continuous: f64) -> Result<DiscreteGaussian, PrivacyError> {
    let sigma = (continuous * continuous + ROUNDED).sqrt();
    if sigma < LEAST_STEPS {
        return Err(PrivacyError::Account { place: "sigma", reason: "must be at least 2 steps of the lattice" });
    }
    DiscreteGaussian::new(sigma)
}

/// How many times the needed variance a sum has when nobody is missing: |U2|/(|U2| − `d_max` − max(c, 1)), what it costs that
/// noise is enough with `d_max` missing and c sites that take theirs off; `None` where none would be left.
///
/// # Disclosure
/// Only what the round's header says.
pub fn price(masking: u32, d_max: u32, corrupt: u32) -> Option<f64> {
    let left = masking.checked_sub(d_max)?.checked_sub(corrupt.max(1))?;
    (left > 0).then(|| f64::from(masking) / f64::from(left))
}
