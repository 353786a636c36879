//! Intervals by resampling subjects (the percentile bootstrap of Efron 1979), for the site's own view.

use std::collections::BTreeMap;

use hospes_protocol::id::Digest;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::opt_out::SubjectHash;

/// An interval that holds the middle 95 % of a figure over resamples of the subjects.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// Resamples.
const RESAMPLES: usize = 1_000;
/// Most rows for which intervals are computed: a thousand passes over more would take longer than a round should.
const ROWS: usize = 200_000;
/// Share of the resamples in which a figure must be defined.
const DEFINED: f64 = 0.9;

/// Intervals of some figures. `figures` gives their values where each row counts as often as its weight says, in the
/// order of `names`; a figure can be undefined in a resample, where a class is missing in it. None without a key, for what
/// nobody sees.
///
/// # Shapes
/// `subjects`: one for each row; all rows of a subject are drawn together, as often as the subject is drawn.
pub(crate) fn intervals(
    subjects: &[SubjectHash],
    key: Option<Digest>,
    names: &[&'static str],
    figures: &dyn Fn(&[u32]) -> Vec<Option<f64>>,
) -> BTreeMap<String, Interval> {
    let Some(key) = key.filter(|_| !subjects.is_empty() && subjects.len() <= ROWS) else { return BTreeMap::new() };
    let mut numbers: BTreeMap<SubjectHash, usize> = BTreeMap::new();
    let of_row: Vec<usize> = subjects
        .iter()
        .map(|subject| {
            let next = numbers.len();
            *numbers.entry(*subject).or_insert(next)
        })
        .collect();
    let count = numbers.len();
    let mut stream = ChaCha20Rng::from_seed(*key.as_bytes());
    let mut drawn = vec![0u32; count];
    let mut weights = vec![0u32; subjects.len()];
    let mut values: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); names.len()];
    for _ in 0..RESAMPLES {
        drawn.fill(0);
        for _ in 0..count {
            // The bias of the product is below 2⁻⁴⁶ for as many subjects as there can be.
            let product = u128::from(stream.next_u64()) * count as u128;
            drawn[usize::try_from(product >> 64).unwrap_or_default()] += 1;
        }
        weights.iter_mut().zip(&of_row).for_each(|(weight, subject)| *weight = drawn[*subject]);
        for (list, value) in values.iter_mut().zip(figures(&weights)) {
            list.extend(value.filter(|v| v.is_finite()));
        }
    }
    names.iter().zip(values).filter_map(|(name, list)| Some(((*name).to_owned(), percentiles(list)?))).collect()
}

/// The middle 95 % of the values; `None` if the figure was undefined too often.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn percentiles(mut values: Vec<f64>) -> Option<Interval> {
    if (values.len() as f64) < RESAMPLES as f64 * DEFINED {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    Some(Interval { low: at(0.025), high: at(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(n: u32) -> SubjectHash {
        let mut hash = [0; 16];
        hash[..4].copy_from_slice(&n.to_le_bytes());
        hash
    }

    /// Mean of the numbers 0 to 99: its standard error is √(833.25 / 100) = 2.887, so the interval is 49.5 ± 5.66. With a
    /// fixed seed the test always passes or always fails.
    #[test]
    fn the_interval_of_a_mean_is_that_of_theory() {
        let subjects: Vec<SubjectHash> = (0..100).map(subject).collect();
        let mean = |weights: &[u32]| {
            let sum: f64 = weights.iter().zip(0u32..).map(|(w, x)| f64::from(*w) * f64::from(x)).sum();
            vec![Some(sum / 100.0), None]
        };
        let seed = Some(Digest::of(b"seed"));
        let found = intervals(&subjects, seed, &["mean", "never"], &mean);
        let interval = found["mean"];
        assert!(
            (interval.low - (49.5 - 5.66)).abs() < 0.7 && (interval.high - (49.5 + 5.66)).abs() < 0.7,
            "{interval:?}"
        );
        assert_eq!(found.len(), 1);
        assert_eq!(intervals(&subjects, seed, &["mean", "never"], &mean), found);
        assert_ne!(intervals(&subjects, Some(Digest::of(b"other")), &["mean", "never"], &mean), found);
        assert!(intervals(&subjects, None, &["mean", "never"], &mean).is_empty());
    }

    #[test]
    fn rows_of_one_subject_are_drawn_together() {
        let subjects = [subject(1), subject(2), subject(1)];
        let together = |weights: &[u32]| vec![Some(f64::from(u8::from(weights[0] == weights[2])))];
        let found = intervals(&subjects, Some(Digest::of(b"seed")), &["same"], &together);
        assert_eq!(found["same"], Interval { low: 1.0, high: 1.0 });
    }
}
