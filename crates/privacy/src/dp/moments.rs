//! Moments of the privacy loss of the Poisson-subsampled Gaussian, by quadrature.
//!
//! With N₀ = N(0, σ²) for the data without the subject, N₁ = N(1, σ²) for those with it, and r = (1 − q) + q·N₁/N₀, the loss of
//! removing the subject is ln r under (1 − q)·N₀ + q·N₁, and that of adding it −ln r under N₀ (Mironov, Talwar, Zhang 2019,
//! "Rényi differential privacy of the sampled Gaussian mechanism", section 3). All moments of both are E[r^a] under N₀.

/// One sampled Gaussian: sampling rate and noise multiplier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampled {
    pub(super) rate: f64,
    pub(super) sigma: f64,
}

/// How many standard deviations around all modes are integrated over: what is left out is below 1e-30.
const REACH: f64 = 12.0;

impl Sampled {
    /// ln r at x.
    pub(super) fn log_ratio(&self, x: f64) -> f64 {
        let exponent = (2.0 * x - 1.0) / (2.0 * self.sigma * self.sigma);
        if self.rate == 1.0 {
            exponent
        } else if exponent > 0.0 {
            exponent + libm::log(self.rate + (1.0 - self.rate) * libm::exp(-exponent))
        } else {
            libm::log1p(self.rate * libm::expm1(exponent))
        }
    }

    /// The x at which ln r has this value; −∞ where it is lower nowhere.
    pub(super) fn place(&self, log_ratio: f64) -> f64 {
        let variance = self.sigma * self.sigma;
        if self.rate == 1.0 {
            return variance * log_ratio + 0.5;
        }
        let log = if log_ratio > 0.0 {
            log_ratio + libm::log1p(-(1.0 - self.rate) * libm::exp(-log_ratio))
        } else {
            let above = libm::expm1(log_ratio) + self.rate;
            if above <= 0.0 {
                return f64::NEG_INFINITY;
            }
            libm::log(above)
        };
        variance * (log - libm::log(self.rate)) + 0.5
    }

    /// ln E[r^a] under N₀.
    ///
    /// The trapezoidal rule converges exponentially here (Trefethen, Weideman 2014, "The exponentially convergent
    /// trapezoidal rule"): a step of σ/8, or σ²/8 where the branch points of r^a at a distance of πσ² are nearer, leaves no error
    /// above rounding. E[r] = 1 is taken off before the sum, which has no cancellation then, however rare the sampling.
    pub(super) fn log_moment(&self, a: f64) -> f64 {
        if self.rate == 1.0 {
            return a * (a - 1.0) / (2.0 * self.sigma * self.sigma);
        }
        let step = self.sigma * self.sigma.min(1.0) / 8.0;
        // Modes are where x = a·p(x), with p(x) = q·N₁/(r·N₀) for the chance that N₁ was drawn, which grows with x.
        let chance = 1.0 - (1.0 - self.rate) * libm::exp(-self.log_ratio(0.0));
        let (low, high) = (a.min(0.0) * chance - REACH * self.sigma, a.max(1.0) + REACH * self.sigma);
        let points = ((high - low) / step).ceil();
        let weight = step / (self.sigma * (2.0 * std::f64::consts::PI).sqrt());
        let (mut sum, mut x, mut number) = (0.0, low, 0.0);
        // The largest term comes in front of the sum, so that nothing overflows.
        let most = self.largest_exponent(a, low, high);
        while number <= points {
            let log_ratio = self.log_ratio(x);
            let density = -x * x / (2.0 * self.sigma * self.sigma);
            let power = a * log_ratio;
            sum += if power.abs() < 1.0 {
                (libm::expm1(power) - a * libm::expm1(log_ratio)) * libm::exp(density - most)
            } else {
                let at = |exponent: f64| libm::exp(density + exponent - most);
                at(power) - at(0.0) - a * (at(log_ratio) - at(0.0))
            };
            number += 1.0;
            x = low + number * step;
        }
        let excess = sum * weight;
        // E[r^a] = 1 + e^most·excess.
        if most > 30.0 { most + libm::log(excess + libm::exp(-most)) } else { libm::log1p(libm::exp(most) * excess) }
    }

    /// About the largest of −x²/2σ² + a·ln r(x), and at least 0.
    fn largest_exponent(&self, a: f64, low: f64, high: f64) -> f64 {
        let steps = 128.0;
        let at = |number: f64| {
            let x = low + (high - low) * number / steps;
            -x * x / (2.0 * self.sigma * self.sigma) + a * self.log_ratio(x)
        };
        let (mut most, mut number) = (0.0f64, 0.0);
        while number <= steps {
            most = most.max(at(number));
            number += 1.0;
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_ratio_is_found_again() {
        for (rate, sigma) in [(1e-4, 0.8), (0.3, 2.0), (0.999, 5.0), (1.0, 3.0)] {
            let sampled = Sampled { rate, sigma };
            for x in [-3.0, -0.5, 0.0, 0.5, 1.0, 4.0] {
                let again = sampled.place(sampled.log_ratio(x));
                assert!((again - x).abs() < 1e-7 * (1.0 + x.abs()) / rate.min(0.1), "{rate} {sigma} {x}: {again}");
            }
            assert!(rate == 1.0 || sampled.place(libm::log1p(-rate) - 1e-9) == f64::NEG_INFINITY);
        }
    }

    #[test]
    fn second_moments_are_known_in_closed_form() {
        // E[r²] = 1 + q²(e^(1/σ²) − 1).
        for (rate, sigma) in [(1e-9, 1.0), (1e-4, 0.3), (0.01, 0.7), (0.5, 2.0), (0.5, 300.0), (1.0, 5.0)] {
            let sampled = Sampled { rate, sigma };
            let wanted = libm::log1p(rate * rate * libm::expm1(1.0 / (sigma * sigma)));
            let found = sampled.log_moment(2.0);
            assert!((found / wanted - 1.0).abs() < 1e-6, "{rate} {sigma}: {found} {wanted}");
            assert!(sampled.log_moment(1.0).abs() < 1e-12 && sampled.log_moment(0.0).abs() < 1e-12);
        }
    }
}
