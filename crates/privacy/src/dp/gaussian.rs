//! The normal distribution's tails, and the Gaussian mechanism in closed form.

/// P[Z > z] for a standard normal Z.
pub(super) fn tail(z: f64) -> f64 {
    0.5 * libm::erfc(z / std::f64::consts::SQRT_2)
}

fn density(z: f64) -> f64 {
    libm::exp(-0.5 * z * z) / (2.0 * std::f64::consts::PI).sqrt()
}

/// Mills' ratio P[Z > z]/φ(z) for z ≥ 0: Laplace's continued fraction in the tail, where the quotient would be 0/0.
fn mills(z: f64) -> f64 {
    if z < 10.0 {
        return tail(z) / density(z);
    }
    (1..=40).rev().fold(z, |rest, k| z + f64::from(k) / rest).recip()
}

/// δ of a Gaussian whose mean differs by `shift` standard deviations, at ε ≥ 0: Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ)
/// (Balle, Wang 2018, "Improving the Gaussian mechanism for differential privacy", theorem 8), with e^ε·φ(b) = φ(a).
pub(super) fn delta(shift: f64, epsilon: f64) -> f64 {
    let (a, b) = (shift / 2.0 - epsilon / shift, -shift / 2.0 - epsilon / shift);
    let exact = if a < 0.0 { density(a) * (mills(-a) - mills(-b)) } else { tail(-a) - density(a) * mills(-b) };
    // Above what was lost to cancellation for shifts down to 1e-6.
    exact.max(0.0) * (1.0 + 1e-8)
}

/// The least ε with this δ.
pub(super) fn epsilon(shift: f64, delta_wanted: f64) -> f64 {
    if delta(shift, 0.0) <= delta_wanted {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, shift * shift / 2.0 + shift * (-2.0 * libm::log(delta_wanted)).sqrt());
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        (low, high) = if delta(shift, middle) <= delta_wanted { (low, middle) } else { (middle, high) };
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_and_ratios_are_those_of_the_normal_distribution() {
        // P[Z > 1], P[Z > 5].
        assert!((tail(1.0) - 0.158_655_253_931).abs() < 1e-12);
        assert!((tail(5.0) / 2.866_515_718_79e-7 - 1.0).abs() < 1e-11);
        // Both ways agree where they meet; asymptotically the ratio is 1/z.
        assert!((mills(9.999_999) / mills(10.0) - 1.0).abs() < 1e-6);
        assert!((mills(1e4) * 1e4 - 1.0).abs() < 2e-8);
    }

    #[test]
    fn the_analytic_gaussian_has_its_published_values() {
        // specs/differential-privacy.md, after Balle, Wang 2018.
        assert!((epsilon(1.0, 1e-5) - 4.377_178_096).abs() < 1e-7, "{}", epsilon(1.0, 1e-5));
        assert!((epsilon(1.0 / 4.224_678_889, 1e-6) - 1.0).abs() < 1e-7);
        assert!((epsilon(1.0 / 3.730_631_635, 1e-5) - 1.0).abs() < 1e-7);
        assert_eq!(epsilon(1e-6, 1e-5), 0.0);
        // Of 10,000 deviations nothing overflows.
        let far = epsilon(1e4, 1e-5);
        assert!(far.is_finite() && (far / 5e7 - 1.0).abs() < 1e-2, "{far}");
    }
}
