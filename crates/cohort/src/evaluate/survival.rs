//! How good a model is that ranks patients by the risk of an event.

use std::collections::BTreeMap;

use hospes_protocol::id::Digest;
use hospes_protocol::plan::figure;
use hospes_protocol::quality::concordance;
use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, intervals};
use crate::opt_out::SubjectHash;

/// Quality of predicted risks on the rows of one site. Pairs are of two rows of this site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct SurvivalMetrics {
    /// Rows.
    pub rows: u64,
    /// Rows with an event.
    pub events: u64,
    /// Pairs of which the earlier event is known.
    pub comparable: u64,
    /// Those in which the earlier event has the higher risk.
    pub concordant: u64,
    /// Those with equal risks.
    pub tied: u64,
    /// Share of comparable pairs in the right order, ties counted half; `None` without such pairs.
    pub c_index: Option<f64>,
    /// 95 % interval of it.
    pub intervals: BTreeMap<String, Interval>,
}

impl SurvivalMetrics {
    /// # Shapes
    /// `risks` (higher: earlier), `events` (0 or 1), `times`, `subjects`: one for each row.
    pub(crate) fn new(
        risks: &[f32],
        events: &[f64],
        times: &[f64],
        subjects: &[SubjectHash],
        key: Option<Digest>,
    ) -> Self {
        let pairs = Pairs::new(risks, events, times);
        let [comparable, concordant, tied] = pairs.count(&vec![1; risks.len()]);
        let of = |[comparable, concordant, tied]: [u64; 3]| {
            #[allow(clippy::cast_precision_loss)]
            concordance(concordant as f64, tied as f64, comparable as f64)
        };
        Self {
            rows: events.len() as u64,
            events: events.iter().filter(|e| **e > 0.5).count() as u64,
            comparable,
            concordant,
            tied,
            c_index: of([comparable, concordant, tied]),
            intervals: intervals(subjects, key, &["c_index"], &|weights| vec![of(pairs.count(weights))]),
        }
    }

    /// The same figures as sums, before any disclosure rule.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn sums(&self) -> BTreeMap<&'static str, Vec<f64>> {
        BTreeMap::from([
            (figure::N, vec![self.rows as f64]),
            (figure::EVENTS, vec![self.events as f64]),
            (figure::PAIRS_COMPARABLE, vec![self.comparable as f64]),
            (figure::PAIRS_CONCORDANT, vec![self.concordant as f64]),
            (figure::PAIRS_TIED, vec![self.tied as f64]),
        ])
    }
}

/// Rows in the order in which pairs are counted: the latest first.
struct Pairs {
    /// Row, whether it has an event, and the rank of its risk.
    order: Vec<(usize, bool, usize)>,
    /// Where each time ends in the order.
    ends: Vec<usize>,
    ranks: usize,
}

impl Pairs {
    fn new(risks: &[f32], events: &[f64], times: &[f64]) -> Self {
        let mut sorted: Vec<f32> = risks.to_vec();
        sorted.sort_by(f32::total_cmp);
        sorted.dedup();
        let rank = |row: usize| sorted.partition_point(|r| *r < risks[row]);
        let mut rows: Vec<usize> = (0..times.len()).collect();
        // At one time those censored come first: they were seen to live longer than those with an event.
        rows.sort_by(|a, b| times[*b].total_cmp(&times[*a]).then(events[*a].total_cmp(&events[*b])));
        let order: Vec<_> = rows.iter().map(|row| (*row, events[*row] > 0.5, rank(*row))).collect();
        let is_end = |i: &usize| {
            rows.get(*i).is_none_or(|next| {
                let last = rows[*i - 1];
                times[*next] != times[last] || events[*next] != events[last]
            })
        };
        let ends = (1..=rows.len()).filter(is_end).collect();
        Self { order, ends, ranks: sorted.len() }
    }

    /// Comparable, concordant and tied pairs, each row as often as its weight says, in n·log n with a tree of partial sums
    /// (Fenwick 1994) over the risks of the rows that are known to have lived longer.
    fn count(&self, weights: &[u32]) -> [u64; 3] {
        let mut tree = vec![0u64; self.ranks + 1];
        let below = |tree: &[u64], rank: usize| {
            let (mut at, mut sum) = (rank, 0);
            while at > 0 {
                sum += tree[at];
                at &= at - 1;
            }
            sum
        };
        let (mut all, mut start) = (0u64, 0);
        let mut pairs = [0u64; 3];
        for end in &self.ends {
            let same = &self.order[start..*end];
            for (row, event, rank) in same {
                let weight = u64::from(weights[*row]);
                if *event && weight > 0 {
                    let (lower, not_higher) = (below(&tree, *rank), below(&tree, *rank + 1));
                    pairs[0] += weight * all;
                    pairs[1] += weight * lower;
                    pairs[2] += weight * (not_higher - lower);
                }
            }
            // Rows with an event at one time are not compared with each other: which came first is not known.
            for (row, _, rank) in same {
                let weight = u64::from(weights[*row]);
                all += weight;
                let mut at = rank + 1;
                while at < tree.len() {
                    tree[at] += weight;
                    at += at & at.wrapping_neg();
                }
            }
            start = *end;
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, pair by pair (Harrell et al. 1982).
    fn pair_by_pair(risks: &[f32], events: &[f64], times: &[f64], weights: &[u32]) -> [u64; 3] {
        let mut pairs = [0; 3];
        for i in 0..risks.len() {
            for j in 0..risks.len() {
                let later = times[j] > times[i] || (times[j] == times[i] && events[j] < 0.5);
                if events[i] > 0.5 && i != j && later {
                    let weight = u64::from(weights[i]) * u64::from(weights[j]);
                    pairs[0] += weight;
                    pairs[1] += if risks[i] > risks[j] { weight } else { 0 };
                    pairs[2] += if risks[i] == risks[j] { weight } else { 0 };
                }
            }
        }
        pairs
    }

    #[test]
    fn c_index_is_one_half_for_equal_risks_and_one_for_the_right_order() {
        let subjects: Vec<SubjectHash> = (0..4u8).map(|n| [n; 16]).collect();
        let of = |risks: [f32; 4]| {
            let metrics = SurvivalMetrics::new(&risks, &[1.0, 1.0, 0.0, 1.0], &[1.0, 2.0, 3.0, 4.0], &subjects, None);
            (metrics.c_index, metrics.events, metrics.comparable)
        };
        assert_eq!(of([4.0, 3.0, 2.0, 1.0]), (Some(1.0), 3, 5));
        assert_eq!(of([1.0; 4]).0, Some(0.5));
        assert_eq!(of([1.0, 2.0, 3.0, 4.0]).0, Some(0.0));
        let none = SurvivalMetrics::new(&[1.0], &[0.0], &[1.0], &subjects[..1], None);
        assert_eq!((none.c_index, none.comparable), (None, 0));
    }

    proptest! {
        #[test]
        fn pairs_are_those_of_the_definition(
            rows in prop::collection::vec((0u8..6, any::<bool>(), 0u8..6, 0u32..3), 0..40),
        ) {
            let risks: Vec<f32> = rows.iter().map(|r| f32::from(r.0)).collect();
            let events: Vec<f64> = rows.iter().map(|r| f64::from(u8::from(r.1))).collect();
            let times: Vec<f64> = rows.iter().map(|r| f64::from(r.2)).collect();
            let weights: Vec<u32> = rows.iter().map(|r| r.3).collect();
            let found = Pairs::new(&risks, &events, &times).count(&weights);
            prop_assert_eq!(found, pair_by_pair(&risks, &events, &times, &weights));
        }
    }
}
