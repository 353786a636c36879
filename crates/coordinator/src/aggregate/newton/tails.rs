//! Tails of the normal and of Student's t distribution, for p values and confidence intervals.

/// The probability that a standard normal value lies farther from 0 than this.
pub(super) fn normal(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// The probability that a value of Student's t distribution lies farther from 0 than this: the incomplete beta function
/// I_x(ν/2, 1/2) at x = ν/(ν + t²) (DLMF 8.17; Abramowitz, Stegun 1964, 26.7.1).
pub(super) fn student(t: f64, freedom: f64) -> f64 {
    let square = t * t;
    if !square.is_finite() {
        return 0.0;
    }
    let (a, b) = (freedom / 2.0, 0.5);
    let (x, rest) = (freedom / (freedom + square), square / (freedom + square));
    // The fraction converges fast on one side of the mean, and the function mirrors.
    if x < (a + 1.0) / (a + b + 2.0) { beta(a, b, x, rest) } else { 1.0 - beta(b, a, rest, x) }
}

/// The value farther from 0 than which lies this probability, by bisection: tails fall without a break.
pub(super) fn quantile(tail: impl Fn(f64) -> f64, probability: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while tail(high) > probability && high < 1e300 {
        (low, high) = (high, high * 2.0);
    }
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if tail(middle) > probability { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// The regularised incomplete beta function by its continued fraction (DLMF 8.17.22) with Lentz's method; `rest` is
/// 1 − x, so that nothing of it is lost.
fn beta(a: f64, b: f64, x: f64, rest: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let front = a * x.ln() + b * rest.ln() + libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b);
    let least = 1e-300;
    let away = |v: f64| if v.abs() < least { least } else { v };
    let (mut c, mut d) = (1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for step in 1..10_000 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    front.exp() * fraction / a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-12 * wanted.abs(), "{found} instead of {wanted}");
    }

    #[test]
    fn tails_have_their_known_values() {
        // Two-sided tails in closed form: t with 1 degree is Cauchy's, with 2 it is 1 − t/√(2 + t²).
        for t in [0.1f64, 1.0, 3.0, 40.0, 1e4] {
            close(student(t, 1.0), 2.0 / std::f64::consts::PI * (1.0 / t).atan());
            close(student(t, 2.0), 2.0 / ((2.0 + t * t).sqrt() * (t + (2.0 + t * t).sqrt())));
        }
        assert_eq!((student(0.0, 7.0), normal(0.0)), (1.0, 1.0));
        close(normal(1.959_963_984_540_054), 0.05);
        // With many degrees it is the normal one.
        assert!((student(1.7, 1e7) - normal(1.7)).abs() < 1e-7);
    }

    #[test]
    fn quantiles_undo_tails() {
        close(quantile(normal, 0.05), 1.959_963_984_540_054);
        close(quantile(|t| student(t, 1.0), 0.5), 1.0);
        for (freedom, p) in [(3.0, 0.05), (28.0, 0.01), (700.0, 0.1)] {
            close(student(quantile(|t| student(t, freedom), p), freedom), p);
        }
    }
}
