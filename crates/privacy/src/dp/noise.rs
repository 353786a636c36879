//! The discrete Gaussian, exactly, by integers alone (Canonne, Kamath, Steinke 2020, "The discrete Gaussian for
//! differential privacy", algorithms 1 to 3).
//!
//! Floating-point Gaussians have gaps and clusters that tell what noise was added to (Mironov 2012, "On significance of the
//! least significant bits for differential privacy"); here every number has the probability of the definition, as a ratio of
//! integers decides each coin.

use super::source::Source;
use crate::PrivacyError;

/// Largest numerator of σ² while it has a fraction: 2^29, with which the coins of small σ fit into 64 bits.
const NUMERATOR: f64 = 536_870_912.0;
/// Smallest and largest σ.
const SIGMA: std::ops::RangeInclusive<f64> = 0.5..=268_435_456.0;

/// Noise in whole numbers: P[x] ∝ exp(−x²/2σ²).
///
/// **Tails are not cut** as far as any release can tell: what would be beyond 64 bits of the computation is drawn anew, and
/// its probability is below exp(−20,000). In a ring the noise wraps, which harms accuracy and never privacy.
///
/// **Time.** How long a draw takes depends on the number drawn: the samplers reject. Memory is not addressed by secrets.
/// A site sends once a whole vector is noisy, and what can be seen from outside is the sum of the times of all its
/// coordinates behind that of training; it is not protected against somebody who measures single draws on the same machine (Jin
/// et al. 2022, "Are we there yet? Timing and floating-point attacks on differential privacy systems").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscreteGaussian {
    /// σ² = `variance` / `unit`, with a power of two below.
    variance: u64,
    unit: u64,
    /// ⌊σ⌋ + 1: scale of the discrete Laplace that is drawn from.
    scale: u64,
}

impl DiscreteGaussian {
    /// Noise of at least this standard deviation: σ² is rounded up to a fraction, by less than 2^-28 of it.
    ///
    /// # Units
    /// `sigma`: in steps of the lattice.
    ///
    /// # Errors
    /// [`PrivacyError::Account`] if σ is not from 0.5 to 2^28 steps. Finer lattices than that bring nothing: round coarser.
    pub fn new(sigma: f64) -> Result<Self, PrivacyError> {
        if !SIGMA.contains(&sigma) {
            return Err(PrivacyError::Account { place: "sigma", reason: "must be from 0.5 to 2^28 steps" });
        }
        // Against the rounding of the square itself.
        let square = sigma * sigma * (1.0 + 4.0 * f64::EPSILON);
        let mut unit = 1u64;
        while square * (2 * unit) as f64 <= NUMERATOR {
            unit *= 2;
        }
        // Both are below 2^57.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let (variance, scale) = ((square * unit as f64).ceil() as u64, sigma.floor() as u64 + 1);
        Ok(Self { variance, unit, scale })
    }

    /// The standard deviation of the Gaussian of the same density: σ.
    ///
    /// # Units
    /// Steps of the lattice.
    pub fn sigma(&self) -> f64 {
        (self.variance as f64 / self.unit as f64).sqrt()
    }

    /// Draws a number.
    ///
    /// # Disclosure
    /// Noise: whoever learns it takes it off. It is added, and forgotten.
    pub fn draw(&self, source: &mut Source) -> i64 {
        loop {
            let (magnitude, is_negative) = laplace(self.scale, source);
            if self.accepts(magnitude, source) {
                return if is_negative { -magnitude.cast_signed() } else { magnitude.cast_signed() };
            }
        }
    }

    /// Adds a number to each of these, modulo 2^64 and so modulo every smaller power of two.
    ///
    /// # Disclosure
    /// The same values with noise. What they tell about a subject is what [`epsilon()`](super::epsilon()) says of the
    /// release, if what one subject adds was clipped.
    pub fn add(&self, values: &mut [u64], source: &mut Source) {
        for value in values {
            // PRIVACY: the noise of one coordinate.
            *value = value.wrapping_add(self.draw(source).cast_unsigned());
        }
    }

    /// Whether a number of the discrete Laplace is one of the discrete Gaussian: with probability exp(−γ),
    /// γ = (|y| − σ²/t)²/2σ² (algorithm 3).
    fn accepts(&self, magnitude: u64, source: &mut Source) -> bool {
        let Some((above, below)) = self.exponent(magnitude) else { return false };
        let (whole, rest) = match (u64::try_from(above), u64::try_from(below)) {
            (Ok(above), Ok(below)) => (u128::from(above / below), u128::from(above % below)),
            _ => (above / below, above % below),
        };
        (0..whole).all(|_| falls(1, 1, source)) && falls(rest, below, source)
    }

    /// γ as a fraction; `None` where it does not fit into 128 bits, which is beyond 200 σ.
    fn exponent(&self, magnitude: u64) -> Option<(u128, u128)> {
        let (variance, unit, scale) = (u128::from(self.variance), u128::from(self.unit), u128::from(self.scale));
        let off = u128::from(magnitude).checked_mul(unit * scale)?.abs_diff(variance);
        // At most 18 · 2^112: the scale is at most 3σ, and σ²·unit below 2^57.
        Some((off.checked_mul(off)?, 2 * variance * unit * scale * scale))
    }
}

/// A number of the discrete Laplace of scale t as magnitude and sign: P[x] ∝ exp(−|x|/t) (algorithm 2 with s = 1).
fn laplace(scale: u64, source: &mut Source) -> (u64, bool) {
    loop {
        let rest = source.below(scale);
        if !falls(u128::from(rest), u128::from(scale), source) {
            continue;
        }
        let mut whole = 0u64;
        while falls(1, 1, source) {
            whole += 1;
        }
        // At most a few dozen times the scale; 2^35 of them would take longer than anybody waits.
        let magnitude = rest + whole * scale;
        let is_negative = source.bits() & 1 == 1;
        // Zero would be counted twice.
        if !(is_negative && magnitude == 0) {
            return (magnitude, is_negative);
        }
    }
}

/// True with probability exp(−γ), for γ = `above`/`below` from 0 to 1 (algorithm 1): the first k at which a coin of γ/k falls
/// to the other side is odd.
fn falls(above: u128, below: u128, source: &mut Source) -> bool {
    let mut k = 1u64;
    loop {
        // γ/k as two independent coins, of 1/k and of γ.
        let goes_on = (k == 1 || source.below(k) == 0) && (above == below || source.below_wide(below) < above);
        if !goes_on {
            return k % 2 == 1;
        }
        k += 1;
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use hospes_protocol::id::Digest;
    use zeroize::Zeroizing;

    use super::*;

    fn source(context: &str) -> Source {
        Source::new(&Zeroizing::new([7; 32]), &Digest::of(context.as_bytes()))
    }

    /// χ² of draws in cells of `width` numbers, and the degrees of freedom.
    fn chi_square(sigma: f64, width: i64, draws: u32) -> (f64, f64) {
        let noise = DiscreteGaussian::new(sigma).unwrap();
        let mut source = source("chi-square");
        let cells = 2 * (7.0 * sigma / width as f64).ceil() as i64;
        let (mut seen, mut wanted) = (vec![0.0; cells as usize], vec![0.0; cells as usize]);
        let cell = |x: i64| usize::try_from(x.div_euclid(width) + cells / 2).ok().filter(|c| *c < cells as usize);
        let reach = cells / 2 * width;
        let density = |x: i64| libm::exp(-((x * x) as f64) / (2.0 * sigma * sigma));
        let all: f64 = (-2 * reach..2 * reach).map(density).sum();
        for x in -reach..reach {
            wanted[cell(x).unwrap()] += f64::from(draws) * density(x) / all;
        }
        for _ in 0..draws {
            if let Some(cell) = cell(noise.draw(&mut source)) {
                seen[cell] += 1.0;
            }
        }
        let used = seen.iter().zip(&wanted).filter(|(_, wanted)| **wanted >= 5.0);
        let terms: Vec<f64> = used.map(|(seen, wanted)| (seen - wanted) * (seen - wanted) / wanted).collect();
        (terms.iter().sum(), terms.len() as f64 - 1.0)
    }

    #[test]
    fn draws_have_the_probabilities_of_the_definition() {
        for (sigma, width) in [(0.5, 1), (0.7, 1), (2.3, 1), (40.0, 10), (40_000.0, 8_000)] {
            let (chi, freedom) = chi_square(sigma, width, 60_000);
            // A false alarm in less than 1 of 10^4 seeds for 4 to 60 degrees of freedom.
            assert!(chi < freedom + 4.0 * (2.0 * freedom).sqrt() + 12.0, "sigma {sigma}: {chi} of {freedom}");
        }
    }

    #[test]
    fn mean_and_variance_are_those_of_the_density_at_the_largest_sigma_too() {
        for sigma in [3.0, 1e5, 268_435_456.0] {
            let noise = DiscreteGaussian::new(sigma).unwrap();
            let mut source = source("moments");
            let draws: Vec<f64> = (0..40_000).map(|_| noise.draw(&mut source) as f64 / sigma).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let square = draws.iter().map(|x| x * x).sum::<f64>() / draws.len() as f64;
            // Five standard errors, 1/200 and √2/200: a false alarm in 1 of 10^6 seeds.
            assert!(mean.abs() < 0.025 && (square - 1.0).abs() < 0.036, "{sigma}: {mean} {square}");
        }
    }

    #[test]
    fn a_coin_falls_with_the_exponential_of_its_fraction() {
        let mut source = source("coins");
        let large = 1u128 << 100;
        for (above, below) in [(0, 1), (1, 3), (9, 10), (1, 1), (large / 2, large)] {
            let fallen = (0..40_000).filter(|_| falls(above, below, &mut source)).count();
            let wanted = libm::exp(-(above as f64) / below as f64);
            let deviation = (wanted * (1.0 - wanted) / 40_000.0).sqrt();
            assert!((fallen as f64 / 40_000.0 - wanted).abs() <= 5.0 * deviation, "{above}/{below}: {fallen}");
        }
    }

    #[test]
    fn numbers_are_accepted_by_the_fraction_of_the_paper() {
        for sigma in [0.5, 1.0, 2.5, 1e3, 1e6, 268_435_456.0] {
            let noise = DiscreteGaussian::new(sigma).unwrap();
            let (exact, scale) = (noise.sigma(), noise.scale as f64);
            assert!(exact >= sigma && exact < sigma * (1.0 + 1e-8), "{sigma} {exact}");
            for magnitude in [0u64, 1, 7, (5.0 * sigma) as u64, (20.0 * sigma) as u64] {
                let (above, below) = noise.exponent(magnitude).unwrap();
                let off = magnitude as f64 - exact * exact / scale;
                let wanted = off * off / (2.0 * exact * exact);
                let found = above as f64 / below as f64;
                assert!((found - wanted).abs() <= 1e-9 * wanted.max(1e-3), "{sigma} {magnitude}: {found} {wanted}");
            }
        }
        // Beyond 2^64 of the computation, and far beyond what is ever drawn.
        let widest = DiscreteGaussian::new(268_435_456.0).unwrap();
        assert!(widest.exponent(60 << 28).is_some() && widest.exponent(u64::MAX).is_none());
    }

    #[test]
    fn noise_wraps_in_the_ring_and_comes_off_again_by_the_same_source() {
        let noise = DiscreteGaussian::new(1e3).unwrap();
        let mut values = vec![0u64, 1, u64::MAX, 1 << 63];
        noise.add(&mut values, &mut source("ring"));
        assert_ne!(values, [0, 1, u64::MAX, 1 << 63]);
        let mut again = source("ring");
        for value in &mut values {
            *value = value.wrapping_sub(noise.draw(&mut again).cast_unsigned());
        }
        assert_eq!(values, [0, 1, u64::MAX, 1 << 63]);
    }

    #[test]
    fn deviations_out_of_bounds_are_refused() {
        for sigma in [0.0, 0.49, -1.0, 3e8, f64::NAN, f64::INFINITY] {
            assert!(matches!(DiscreteGaussian::new(sigma), Err(PrivacyError::Account { place: "sigma", .. })));
        }
    }
}
