//! Rényi differential privacy: the independent cross-check, and what a ledger adds up.

use serde::{Deserialize, Serialize};

use super::moments::Sampled;
use super::{Delta, Release};
use crate::PrivacyError;

/// Orders at which divergences are kept: 1.1 to 10.9 in tenths, 11 to 63, 128, 256, 512, 1024.
pub(super) const ORDERS: usize = 99 + 53 + 4;

/// The order with this index.
pub(super) fn order(index: usize) -> f64 {
    match index {
        0..99 => 1.0 + (index + 1) as f64 / 10.0,
        99..152 => (index - 88) as f64,
        _ => (128usize << (index - 152).min(3)) as f64,
    }
}

/// The ε that an order gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// ε.
    pub epsilon: f64,
    /// The order at which it is least.
    pub order: f64,
}

/// Rényi divergences of what was released, at fixed orders, an upper bound for adding and for removing a subject.
///
/// A curve is what a pool of subjects has spent: it adds up over steps, studies and federations, also where each was chosen after
/// the last was seen, if a [`Budget`](super::Budget) admitted it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct Curve(Vec<f64>);

impl Default for Curve {
    /// Nothing was released.
    fn default() -> Self {
        Self(vec![0.0; ORDERS])
    }
}

impl TryFrom<Vec<f64>> for Curve {
    type Error = PrivacyError;

    fn try_from(divergences: Vec<f64>) -> Result<Self, PrivacyError> {
        if divergences.len() != ORDERS || divergences.iter().any(|value| value.is_nan() || *value < 0.0) {
            return Err(PrivacyError::Account {
                place: "curve",
                reason: "is not one of divergences at the fixed orders",
            });
        }
        Ok(Self(divergences))
    }
}

impl From<Curve> for Vec<f64> {
    fn from(curve: Curve) -> Self {
        curve.0
    }
}

impl Curve {
    /// The curve of some releases.
    ///
    /// # Disclosure
    /// A function of parameters, not of rows.
    pub fn of(releases: &[Release]) -> Self {
        let mut curve = Self::default();
        for release in releases {
            let Release { sampling_rate: rate, noise_multiplier: sigma, times, distance } = *release;
            let sampled = Sampled { rate, sigma };
            for (index, sum) in curve.0.iter_mut().enumerate() {
                let order = order(index);
                // Discrete noise moves each probability by a factor of at most e^(±distance), in both powers.
                let moved = distance * (2.0 * order - 1.0) / (order - 1.0);
                *sum += times as f64 * (divergence(&sampled, order) + moved);
            }
        }
        curve
    }

    /// What two curves cost together: one after the other on the same subjects, or on pools that share some.
    ///
    /// # Disclosure
    /// What the site spent, for its own people.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a + b).collect())
    }

    /// What two pools without a subject in common have spent when they become one: no subject paid more than one of them.
    ///
    /// # Disclosure
    /// What the site spent, for its own people.
    #[must_use]
    pub fn maximum(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a.max(*b)).collect())
    }

    /// The least ε over all orders: ρ + ln((α − 1)/α) − (ln δ + ln α)/(α − 1) (Balle, Barthe, Gaboardi, Hsu,
    /// Sato 2020, "Hypothesis testing interpretations and Rényi differential privacy", theorem 21).
    ///
    /// # Disclosure
    /// What the site spent, for its own people.
    pub fn epsilon(&self, delta: Delta) -> Bound {
        let nothing = Bound { epsilon: f64::INFINITY, order: order(0) };
        self.0.iter().enumerate().fold(nothing, |best, (index, divergence)| {
            let order = order(index);
            let epsilon = (divergence + conversion(order, delta)).max(0.0);
            if epsilon < best.epsilon { Bound { epsilon, order } } else { best }
        })
    }

    pub(super) fn at(&self, index: usize) -> f64 {
        self.0.get(index).copied().unwrap_or(f64::INFINITY)
    }
}

/// What comes to a divergence of this order to make it an ε.
pub(super) fn conversion(order: f64, delta: Delta) -> f64 {
    libm::log1p(-1.0 / order) - (libm::log(delta.value()) + libm::log(order)) / (order - 1.0)
}

/// Rényi divergence of one release, the larger of both directions, which is that of removing a subject (Mironov, Talwar,
/// Zhang 2019, "Rényi differential privacy of the sampled Gaussian mechanism", theorem 5 and section 3.3): at whole orders by
/// their binomial sum, between them by quadrature, which is exact, too.
pub(super) fn divergence(sampled: &Sampled, order: f64) -> f64 {
    let Sampled { rate, sigma } = *sampled;
    let log_moment =
        if rate < 1.0 && order.fract() == 0.0 { binomial(rate, sigma, order) } else { sampled.log_moment(order) };
    log_moment.max(0.0) / (order - 1.0)
}

/// ln Σ_k C(α, k)·(1 − q)^(α − k)·q^k·e^((k² − k)/2σ²).
fn binomial(rate: f64, sigma: f64, order: f64) -> f64 {
    let term = |k: f64| {
        let ways = libm::lgamma(order + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(order - k + 1.0);
        ways + (order - k) * libm::log1p(-rate) + k * libm::log(rate) + (k * k - k) / (2.0 * sigma * sigma)
    };
    let (mut terms, mut k) = (Vec::new(), 0.0);
    while k <= order {
        terms.push(term(k));
        k += 1.0;
    }
    let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + libm::log(terms.iter().map(|term| libm::exp(term - most)).sum())
}
