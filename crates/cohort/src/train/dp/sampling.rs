//! Whose rows a step takes: every subject by itself, with one probability.
//!
//! This is what an accountant calls Poisson sampling, and what its bound holds for. Batches of one size out of reshuffled
//! rows, as training without differential privacy takes them, are another mechanism, whose privacy can be much worse (Chua,
//! Ghazi, Kamath, Kumar, Manurangsi, Sinha, Zhang 2024).

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_core::Rng as _;

/// Which rows are of which subject. It has no `Debug`.
pub(crate) struct Subjects(Vec<Vec<usize>>);

impl Subjects {
    /// `keys`: for each row, whose it is.
    pub(crate) fn of<K: Ord>(keys: &[K]) -> Self {
        let mut rows: BTreeMap<&K, Vec<usize>> = BTreeMap::new();
        for (row, key) in keys.iter().enumerate() {
            rows.entry(key).or_default().push(row);
        }
        Self(rows.into_values().collect())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The rows of one of them.
    pub(super) fn rows(&self, subject: usize) -> &[usize] {
        &self.0[subject]
    }

    /// The rows of all of them.
    pub(super) fn rows_in_all(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

/// Draws subjects, step by step.
pub(super) struct Poisson {
    stream: ChaCha20Rng,
    subjects: usize,
    /// A number of 64 random bits below this is a yes.
    below: u128,
}

impl Poisson {
    /// `rate`: above 0 and at most 1. It is rounded down to a multiple of 2⁻⁶⁴, so that no subject is drawn more often than
    /// accounted for.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn new(rate: f64, subjects: usize, stream: ChaCha20Rng) -> Self {
        Self { stream, subjects, below: (rate * 2f64.powi(64)) as u128 }
    }

    /// The subjects of the next step; it may be none.
    pub(super) fn draw(&mut self) -> Vec<usize> {
        (0..self.subjects).filter(|_| u128::from(self.stream.next_u64()) < self.below).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Purpose, Secret};
    use super::*;
    use crate::train::Batches;

    const SUBJECTS: usize = 50;
    const STEPS: usize = 2_000;
    const RATE: f64 = 0.1;

    /// How far the sizes of batches, and how often each subject and each pair of neighbours was drawn, are off what Poisson
    /// sampling gives, in standard deviations of a sum of squares over that many binomial counts.
    fn deviations(mut next: impl FnMut() -> Vec<usize>) -> [f64; 3] {
        let (mut sizes, mut counts, mut pairs) = (Vec::new(), [0f64; SUBJECTS], [0f64; SUBJECTS]);
        for _ in 0..STEPS {
            let drawn = next();
            sizes.push(drawn.len() as f64);
            let mut is_in = [false; SUBJECTS];
            drawn.iter().for_each(|subject| is_in[*subject] = true);
            for subject in 0..SUBJECTS {
                counts[subject] += f64::from(is_in[subject]);
                pairs[subject] += f64::from(is_in[subject] && is_in[(subject + 1) % SUBJECTS]);
            }
        }
        // χ² with n degrees of freedom has mean n and variance 2n.
        let off = |counts: &[f64], trials: f64, p: f64| {
            let n = counts.len() as f64;
            let sum: f64 = counts.iter().map(|c| (c - trials * p).powi(2) / (trials * p * (1.0 - p))).sum();
            (sum - n) / (2.0 * n).sqrt()
        };
        [off(&sizes, SUBJECTS as f64, RATE), off(&counts, STEPS as f64, RATE), off(&pairs, STEPS as f64, RATE * RATE)]
    }

    /// With fixed bytes the draws are the same each time; over random ones each of the three would be off by five deviations
    /// with a probability below 10⁻⁴.
    #[test]
    fn every_subject_is_drawn_by_itself_at_the_rate() {
        let mut poisson = Poisson::new(RATE, SUBJECTS, Secret::from_bytes([7; 32]).stream(Purpose::Batches));
        let found = deviations(|| poisson.draw());
        assert!(found.iter().all(|off| off.abs() < 5.0), "{found:?}");
    }

    #[test]
    fn batches_out_of_reshuffled_rows_are_not_taken_for_poisson_sampling() {
        let mut batches = Batches::new(1, b"site", "train", 1, SUBJECTS, 5);
        let [sizes, counts, _] = deviations(|| batches.next_batch().to_vec());
        // All of one size, and every subject equally often.
        assert!(sizes < -20.0 && counts < -4.0, "{sizes} {counts}");
    }

    #[test]
    fn draws_follow_from_the_secret_and_reach_from_nobody_to_everybody() {
        let draw = |byte: u8, rate: f64| {
            let mut poisson = Poisson::new(rate, 200, Secret::from_bytes([byte; 32]).stream(Purpose::Batches));
            (poisson.draw(), poisson.draw())
        };
        assert_eq!(draw(1, 0.5), draw(1, 0.5));
        assert_ne!(draw(1, 0.5), draw(2, 0.5));
        let (first, second) = draw(1, 0.5);
        assert_ne!(first, second);
        let all: Vec<usize> = (0..200).collect();
        assert_eq!(draw(1, 1.0), (all.clone(), all));
        assert_eq!(draw(1, 1e-12), (Vec::new(), Vec::new()));
    }

    #[test]
    fn rows_of_one_subject_are_found_wherever_they_stand() {
        let subjects = Subjects::of(&["b", "a", "b", "c", "b"]);
        let rows: Vec<&[usize]> = (0..subjects.len()).map(|subject| subjects.rows(subject)).collect();
        assert_eq!(rows, [&[1][..], &[0, 2, 4][..], &[3][..]]);
        assert_eq!(subjects.rows_in_all(), 5);
    }
}
