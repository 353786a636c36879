//! How well it can be told whether a patient was trained on.
//!
//! Every candidate is in half of the models, so that whoever guesses is right every second time. Scores of candidates, be they
//! in or not, are compared under the same models, and whatever makes a candidate easy or hard is on both sides.

use std::cmp::Ordering;

use hospes_protocol::id::Digest;

use super::{Guard, Membership, Told};
use crate::evaluate::{Interval, intervals};
use crate::opt_out::SubjectHash;

/// A loss beyond this is taken for it; infinities have no mean.
const MOST_LOSS: f64 = 1e9;

/// Losses of each candidate, pair by pair of models.
#[derive(Default)]
pub(super) struct Losses {
    /// By the model that had it.
    inside: Vec<Vec<f64>>,
    /// By the one that had not.
    outside: Vec<Vec<f64>>,
}

/// Scores of each candidate, pair by pair; the higher, the likelier it was trained on.
struct Scores {
    inside: Vec<Vec<f64>>,
    outside: Vec<Vec<f64>>,
}

/// A loss as a number.
pub(super) fn bounded(loss: f64) -> f64 {
    if loss.is_nan() { MOST_LOSS } else { loss.clamp(-MOST_LOSS, MOST_LOSS) }
}

impl Losses {
    /// Those of one pair. `sides`: of all subjects; `people`: which of them the candidates are; `found`: by the model of
    /// either side.
    pub(super) fn push(&mut self, sides: &[bool], people: &[usize], found: &[Vec<f64>; 2]) {
        let of = |is_inside: bool| {
            let loss = |(at, person): (usize, &usize)| found[usize::from(sides[*person] == is_inside)][at];
            people.iter().enumerate().map(loss).collect()
        };
        self.inside.push(of(true));
        self.outside.push(of(false));
    }

    /// By the loss alone (Yeom et al. 2018): members have the smaller ones.
    fn alone(&self) -> Scores {
        let negated = |losses: &[Vec<f64>]| -> Vec<Vec<f64>> {
            losses.iter().map(|of_pair| of_pair.iter().map(|loss| -loss).collect()).collect()
        };
        Scores { inside: negated(&self.inside), outside: negated(&self.outside) }
    }

    /// By the ratio of likelihoods under two normal distributions of one variance, whose means are those of the other pairs'
    /// models with and without the candidate (Carlini et al. 2022, Algorithm 1). Of its logarithm a constant factor is left
    /// out.
    fn compared(&self) -> Scores {
        let sums = |losses: &[Vec<f64>]| -> Vec<f64> {
            let candidates = losses.first().map_or(0, Vec::len);
            (0..candidates).map(|at| losses.iter().map(|of_pair| of_pair[at]).sum()).collect()
        };
        let (with, without) = (sums(&self.inside), sums(&self.outside));
        let others = self.inside.len().saturating_sub(1).max(1) as f64;
        let score = |pair: usize, at: usize, loss: f64| {
            let mean_with = (with[at] - self.inside[pair][at]) / others;
            let mean_without = (without[at] - self.outside[pair][at]) / others;
            (mean_with - mean_without) * (2.0 * loss - mean_with - mean_without)
        };
        let all = |losses: &[Vec<f64>]| -> Vec<Vec<f64>> {
            let of_pair = |(pair, losses): (usize, &Vec<f64>)| {
                losses.iter().enumerate().map(|(at, loss)| score(pair, at, *loss)).collect()
            };
            losses.iter().enumerate().map(of_pair).collect()
        };
        Scores { inside: all(&self.inside), outside: all(&self.outside) }
    }
}

/// What both scores tell. `key`: of the resamples. The order of the candidates is random.
pub(super) fn judge(guard: Guard, losses: &Losses, subjects: &[SubjectHash], key: Digest) -> Membership {
    Membership { guard, by_loss: losses.alone().told(subjects, key), compared: losses.compared().told(subjects, key) }
}

/// A score with whose it is, and whether it is that of a member.
#[derive(Clone, Copy)]
struct Score {
    value: f64,
    candidate: usize,
    is_member: bool,
}

impl Scores {
    fn told(&self, subjects: &[SubjectHash], key: Digest) -> Told {
        let all = self.sorted(0..subjects.len());
        let ones = vec![1u32; subjects.len()];
        let auc_of = |weights: &[u32]| vec![area(&all, weights)];
        let auc_interval = intervals(subjects, Some(key), &["auc"], &auc_of).remove("auc");
        let (choosing, judged) = subjects.split_at(subjects.len() / 2);
        let threshold = best_threshold(&self.sorted(0..choosing.len()));
        let each: Vec<f64> = (choosing.len()..subjects.len()).map(|at| self.advantage(at, threshold)).collect();
        let mean_of = |weights: &[u32]| {
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let sum: f64 = weights.iter().zip(&each).map(|(weight, each)| f64::from(*weight) * each).sum();
            vec![(total > 0.0).then(|| sum / total)]
        };
        let advantage_interval = intervals(judged, Some(key), &["advantage"], &mean_of).remove("advantage");
        Told {
            auc: area(&all, &ones).unwrap_or(0.5),
            auc_interval: auc_interval.unwrap_or(Interval { low: 0.0, high: 1.0 }),
            advantage: each.iter().sum::<f64>() / each.len().max(1) as f64,
            advantage_interval: advantage_interval.unwrap_or(Interval { low: -1.0, high: 1.0 }),
        }
    }

    /// Of some candidates, from the highest.
    fn sorted(&self, candidates: std::ops::Range<usize>) -> Vec<Score> {
        let mut all = Vec::new();
        for (is_member, pairs) in [(true, &self.inside), (false, &self.outside)] {
            for scores in pairs {
                let score = |candidate: usize| Score { value: scores[candidate], candidate, is_member };
                all.extend(candidates.clone().map(score));
            }
        }
        all.sort_by(|a, b| b.value.total_cmp(&a.value));
        all
    }

    /// In how many of the models with a candidate it is taken for a member, less in how many of those without it, as a part
    /// of all pairs.
    fn advantage(&self, candidate: usize, threshold: f64) -> f64 {
        let taken = |pairs: &[Vec<f64>]| pairs.iter().filter(|scores| scores[candidate] >= threshold).count() as f64;
        (taken(&self.inside) - taken(&self.outside)) / self.inside.len().max(1) as f64
    }
}

/// The area under the ROC curve where each candidate counts as often as its weight says: the chance that a member has the
/// higher score, ties by half.
fn area(sorted: &[Score], weights: &[u32]) -> Option<f64> {
    let (mut members, mut others, mut above) = (0.0, 0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.value.total_cmp(&b.value) == Ordering::Equal) {
        let (mut members_here, mut others_here) = (0.0, 0.0);
        for score in tied {
            let weight = f64::from(weights[score.candidate]);
            match score.is_member {
                true => members_here += weight,
                false => others_here += weight,
            }
        }
        above += others_here * (members + 0.5 * members_here);
        members += members_here;
        others += others_here;
    }
    (members > 0.0 && others > 0.0).then(|| above / (members * others))
}

/// The score from which on most more members than others are found; nobody is, where none finds more.
fn best_threshold(sorted: &[Score]) -> f64 {
    let (mut found, mut best) = (0i64, (0i64, f64::INFINITY));
    for tied in sorted.chunk_by(|a, b| a.value.total_cmp(&b.value) == Ordering::Equal) {
        found += tied.iter().map(|score| if score.is_member { 1 } else { -1 }).sum::<i64>();
        if found > best.0 {
            best = (found, tied.first().map_or(f64::INFINITY, |score| score.value));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(count: u8) -> Vec<SubjectHash> {
        (0..count).map(|n| [n; 16]).collect()
    }

    /// Candidates are hard or easy, which tells nothing; those that a model had lose a little less.
    fn losses(count: usize, gain: f64) -> Losses {
        let hard = |at: usize| (at * 7 % 11) as f64;
        let wobble = |pair: usize, at: usize| 0.01 * ((pair * 31 + at * 17) % 13) as f64;
        let all = |gain: f64, shift: usize| -> Vec<Vec<f64>> {
            (0..8).map(|pair| (0..count).map(|at| hard(at) - gain + wobble(pair + shift, at)).collect()).collect()
        };
        Losses { inside: all(gain, 0), outside: all(0.0, 5) }
    }

    #[test]
    fn comparing_finds_what_the_loss_alone_hides() {
        let told = judge(Guard::None, &losses(60, 0.5), &hashes(60), Digest::of(b"key"));
        assert!(told.compared.auc > 0.99 && told.compared.advantage_interval.low > 0.9, "{told:?}");
        assert!(told.by_loss.auc < 0.6, "{told:?}");
    }

    #[test]
    fn what_does_not_depend_on_membership_is_not_told() {
        let mut same = losses(60, 0.0);
        same.outside = same.inside.clone();
        let told = judge(Guard::None, &same, &hashes(60), Digest::of(b"key"));
        for found in [told.by_loss, told.compared] {
            assert!((found.auc - 0.5).abs() < 1e-12 && found.advantage.abs() < 1e-12, "{found:?}");
        }
    }

    #[test]
    fn the_area_counts_ties_by_half_and_weights_as_often_as_they_say() {
        let score = |value, candidate, is_member| Score { value, candidate, is_member };
        let sorted = [score(3.0, 0, true), score(2.0, 1, true), score(2.0, 0, false), score(1.0, 1, false)];
        // Of four pairs, three are right and one is tied.
        assert_eq!(area(&sorted, &[1, 1]), Some(3.5 / 4.0));
        // Members 3, 3, 2 against others 2, 2, 1: two of nine are tied.
        assert_eq!(area(&sorted, &[2, 1]), Some(8.0 / 9.0));
        assert_eq!(area(&sorted, &[0, 0]), None);
        assert_eq!(best_threshold(&sorted), 3.0);
        assert_eq!(best_threshold(&[score(1.0, 0, false), score(0.0, 0, true)]), f64::INFINITY);
    }
}
