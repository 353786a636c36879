//! Generalised linear models with their canonical links (McCullagh, Nelder 1989, chapter 2): score Σ w(y − μ)x and
//! information Σ w·v(μ)·x xᵀ, which for a canonical link is both the observed and the expected one.

use std::f64::consts::{LN_2, PI};

use hospes_protocol::plan::{Family, figure};

use super::{Rows, Sums, add_square, dot, effective, sharing};

/// Bounds of the linear predictor, so that sums stay finite where a step went too far; the coordinator then sees how far
/// the likelihood fell, and takes a shorter one. No fit lies there.
const FARTHEST: f64 = 300.0;

/// One row at its linear predictor: mean, variance function, log likelihood, deviance, squared Pearson residual.
struct Row {
    mean: f64,
    variance: f64,
    log_likelihood: f64,
    deviance: f64,
    pearson: f64,
}

pub(super) fn sums(rows: &Rows, family: Family, point: &[f64]) -> Sums {
    let mut sums = Sums::new(rows.width);
    let (mut deviance, mut pearson) = (0.0, 0.0);
    let (mut shares, mut surprises, mut squares) = (Vec::new(), Vec::new(), Vec::new());
    for (row, (y, (offset, weight))) in rows.y.iter().zip(rows.other.iter().zip(&rows.weights)).enumerate() {
        let x = rows.row(row);
        let predictor = offset + dot(x, point);
        let at = match family {
            Family::Gaussian => gaussian(*y, predictor, *weight),
            Family::Binomial => binomial(*y, predictor.clamp(-FARTHEST, FARTHEST)),
            Family::Poisson => poisson(*y, predictor.clamp(-FARTHEST, FARTHEST)),
        };
        let residual = weight * (y - at.mean);
        sums.score.iter_mut().zip(x).for_each(|(sum, x)| *sum += residual * x);
        add_square(&mut sums.information, x, weight * at.variance);
        shares.push(weight * at.variance);
        sums.log_likelihood += match family {
            Family::Gaussian => at.log_likelihood,
            Family::Binomial | Family::Poisson => weight * at.log_likelihood,
        };
        surprises.push(weight * at.deviance);
        squares.push(weight * at.pearson);
        deviance += weight * at.deviance;
        pearson += weight * at.pearson;
    }
    sums.effective_rows = effective(&shares);
    // PRIVACY: a row that the coefficients put far on its wrong side weighs next to nothing in the information, and may be
    // all of the likelihood, or of Pearson's statistic, which has e^(∓η) for it. The likelihood of counts is linear in them
    // but for their means, which are the information's weights; that of a gaussian model follows from it and the score.
    if family == Family::Binomial {
        sums.effective_rows = sums.effective_rows.min(sharing(&surprises));
    }
    if family != Family::Gaussian {
        sums.pearson_rows = sharing(&squares);
    }
    sums.others.insert(figure::WEIGHTS, vec![rows.weights.iter().sum()]);
    sums.others.insert(figure::DEVIANCE, vec![deviance]);
    sums.others.insert(figure::PEARSON, vec![pearson]);
    // The plan announces it for a binomial model only.
    let events = rows.y.iter().filter(|y| **y > 0.5).count();
    sums.others.insert(figure::EVENTS, vec![super::whole(events)]);
    sums
}

/// The density of a row with weight w has the variance 1/w; the coordinator puts the dispersion in.
fn gaussian(y: f64, predictor: f64, weight: f64) -> Row {
    let square = (y - predictor) * (y - predictor);
    let log_likelihood = 0.5 * (weight.ln() - (2.0 * PI).ln() - weight * square);
    Row { mean: predictor, variance: 1.0, log_likelihood, deviance: square, pearson: square }
}

fn binomial(y: f64, predictor: f64) -> Row {
    let mean = 1.0 / (1.0 + (-predictor).exp());
    // −log of the probability of what was seen is log(1 + e^(∓η)).
    let against = if y > 0.5 { -predictor } else { predictor };
    let surprise = against.max(0.0) + (-against.abs()).exp().ln_1p();
    Row {
        mean,
        variance: mean * (1.0 / (1.0 + predictor.exp())),
        log_likelihood: -surprise,
        deviance: 2.0 * surprise,
        // (y − μ)²/(μ(1 − μ)) is e^(∓η).
        pearson: against.exp(),
    }
}

fn poisson(y: f64, predictor: f64) -> Row {
    let mean = predictor.exp();
    let ratio = if y > 0.0 { y * (y.ln() - predictor) } else { 0.0 };
    Row {
        mean,
        variance: mean,
        log_likelihood: y * predictor - mean - ln_factorial(y),
        deviance: 2.0 * (ratio - (y - mean)),
        pearson: (y - mean) * (y - mean) / mean,
    }
}

/// log n!, for whole numbers: as a sum up to 20, beyond by Stirling's series (Abramowitz, Stegun 1964, 6.1.41), whose
/// fourth term there is below 1e-12 and whose fifth is left out.
fn ln_factorial(n: f64) -> f64 {
    if n <= 20.0 {
        let mut product = 1.0;
        let mut factor = 2.0;
        while factor <= n {
            product *= factor;
            factor += 1.0;
        }
        return product.ln();
    }
    let (x, x2) = (n + 1.0, (n + 1.0) * (n + 1.0));
    let series = (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1_260.0 - 1.0 / (1_680.0 * x2)) / x2) / x2) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (PI.ln() + LN_2) + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factorials_meet_where_the_series_takes_over() {
        assert_eq!([0.0, 1.0, 2.0].map(ln_factorial), [0.0, 0.0, LN_2]);
        let sum = |n: u32| (2..=n).map(|k| f64::from(k).ln()).sum::<f64>();
        for n in [5, 20, 21, 22, 60, 1_000] {
            let (found, wanted) = (ln_factorial(f64::from(n)), sum(n));
            assert!((found - wanted).abs() < 1e-12 * wanted, "{n}: {found} {wanted}");
        }
    }

    #[test]
    fn no_predictor_however_far_gives_anything_but_numbers() {
        for predictor in [-FARTHEST, 0.0, FARTHEST] {
            for y in [0.0, 1.0] {
                for row in [binomial(y, predictor), poisson(y, predictor)] {
                    let all = [row.mean, row.variance, row.log_likelihood, row.deviance, row.pearson];
                    assert!(all.iter().all(|v| v.is_finite()), "{y} {predictor}: {all:?}");
                }
            }
        }
    }
}
