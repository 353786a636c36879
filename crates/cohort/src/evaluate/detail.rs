//! What a site sees of a yes/no score besides the sums: curves, tables, recalibration, intervals.

use std::collections::BTreeMap;

use hospes_protocol::id::Digest;
use hospes_protocol::quality::{Group, Ranking, ranking};
use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, intervals};
use crate::opt_out::SubjectHash;

/// A yes/no score in full, from exact scores.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Detail {
    /// Largest distance between the score's distributions in both classes; `None`, as the next three, for one class.
    pub ks: Option<f64>,
    /// Score from which rows count as positive where that distance is reached.
    pub ks_score: Option<f64>,
    /// Average precision.
    pub average_precision: Option<f64>,
    /// Recall and precision, at most two hundred points.
    pub precision_recall: Vec<(f64, f64)>,
    /// For each tenth of the rows with the highest scores: share of the rows, share of the positive ones, lift.
    pub gains: Vec<(f64, f64, f64)>,
    /// Slope and intercept of the logistic recalibration; `None` if it has no finite solution.
    pub calibration: Option<Calibration>,
    /// 95 % intervals by figure.
    pub intervals: BTreeMap<String, Interval>,
}

/// The model logit P(y) = intercept + slope · logit(score) (Cox 1958). A slope below 1 means scores that are too extreme.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// 1 for a calibrated score.
    pub slope: f64,
    /// 0 for a calibrated score.
    pub intercept: f64,
}

/// Most points of a curve in a view.
const POINTS: usize = 200;
/// Newton's steps for the recalibration; a problem with a finite solution takes about ten.
const NEWTON_STEPS: usize = 50;

impl Detail {
    /// # Shapes
    /// `logits`, `labels` (0 or 1) and `subjects`: one for each row.
    pub(crate) fn new(logits: &[f32], labels: &[f32], subjects: &[SubjectHash], threshold: f64, key: Digest) -> Self {
        let ranks = Ranks::new(logits);
        let every = vec![1; logits.len()];
        let ranking = ranking(&ranks.groups(labels, &every));
        let intervals =
            intervals(subjects, key, &["auc", "accuracy", "brier", "average_precision", "ks"], &|weights| {
                let groups = ranks.groups(labels, weights);
                let ranking = self::ranking(&groups);
                let (accuracy, brier) = means(logits, labels, weights, threshold);
                let of = |figure: fn(&Ranking) -> f64| ranking.as_ref().map(figure);
                let precision = of(|r| r.average_precision.value);
                vec![area(&groups), accuracy, brier, precision, of(|r| r.ks.value)]
            });
        let calibration = recalibration(logits, labels);
        let Some(found) = ranking else { return Self { calibration, intervals, ..Self::default() } };
        let thin = found.precision_recall.len().div_ceil(POINTS).max(1);
        let last = found.precision_recall.len() - 1;
        let points = found.precision_recall.iter().enumerate().filter(|(i, _)| i % thin == 0 || *i == last);
        Self {
            ks: Some(found.ks.value),
            ks_score: ranks.logit(logits, found.ks_group).map(sigmoid),
            average_precision: Some(found.average_precision.value),
            precision_recall: points.map(|(_, point)| *point).collect(),
            gains: found.gains.iter().map(|g| (g.share, g.gain, g.lift)).collect(),
            calibration,
            intervals,
        }
    }
}

/// Rows by score, the highest first, with where each score ends.
struct Ranks {
    order: Vec<usize>,
    ends: Vec<usize>,
}

impl Ranks {
    fn new(logits: &[f32]) -> Self {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let is_end = |i: &usize| order.get(*i).is_none_or(|next| logits[*next] != logits[order[*i - 1]]);
        let ends = (1..=order.len()).filter(is_end).collect();
        Self { order, ends }
    }

    /// One group for each score.
    fn groups(&self, labels: &[f32], weights: &[u32]) -> Vec<Group> {
        let mut start = 0;
        let group = |end: &usize| {
            let mut group = Group::default();
            for row in &self.order[start..*end] {
                let weight = f64::from(weights[*row]);
                if labels[*row] > 0.5 {
                    group.positives += weight;
                } else {
                    group.negatives += weight;
                }
            }
            start = *end;
            group
        };
        self.ends.iter().map(group).collect()
    }

    fn logit(&self, logits: &[f32], group: usize) -> Option<f64> {
        self.ends.get(group).map(|end| f64::from(logits[self.order[end - 1]]))
    }
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// Area under the ROC curve by pairs, ties counted half; groups from the highest score to the lowest.
pub(super) fn area(groups: &[Group]) -> Option<f64> {
    let (mut above, mut right, mut negatives) = (0.0, 0.0, 0.0);
    for group in groups {
        right += group.negatives * (above + group.positives / 2.0);
        above += group.positives;
        negatives += group.negatives;
    }
    let pairs = above * negatives;
    (pairs > 0.0).then(|| right / pairs)
}

fn means(logits: &[f32], labels: &[f32], weights: &[u32], threshold: f64) -> (Option<f64>, Option<f64>) {
    let (mut rows, mut correct, mut squares) = (0.0, 0.0, 0.0);
    for ((logit, label), weight) in logits.iter().zip(labels).zip(weights) {
        let (weight, score, positive) = (f64::from(*weight), sigmoid(f64::from(*logit)), *label > 0.5);
        rows += weight;
        correct += weight * f64::from(u8::from((score >= threshold) == positive));
        squares += weight * (score - f64::from(u8::from(positive))).powi(2);
    }
    if rows > 0.0 { (Some(correct / rows), Some(squares / rows)) } else { (None, None) }
}

/// Fits slope and intercept by Newton's method from the flat model, with steps halved while they make the fit worse. Where the score separates the classes, or is constant, there is no finite
/// solution.
fn recalibration(logits: &[f32], labels: &[f32]) -> Option<Calibration> {
    // Sum of the negative log-likelihood, in the form that does not overflow.
    let loss = |intercept: f64, slope: f64| -> f64 {
        let one = |(logit, label): (&f32, &f32)| {
            let z = intercept + slope * f64::from(*logit);
            z.max(0.0) - if *label > 0.5 { z } else { 0.0 } + (-z.abs()).exp().ln_1p()
        };
        logits.iter().zip(labels).map(one).sum()
    };
    let (mut intercept, mut slope) = (0.0f64, 0.0f64);
    let mut now = loss(intercept, slope);
    for _ in 0..NEWTON_STEPS {
        let (mut g0, mut g1, mut h00, mut h01, mut h11) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (logit, label) in logits.iter().zip(labels) {
            let z = f64::from(*logit);
            let p = sigmoid(intercept + slope * z);
            let (rest, weight) = (f64::from(u8::from(*label > 0.5)) - p, p * (1.0 - p));
            g0 += rest;
            g1 += rest * z;
            h00 += weight;
            h01 += weight * z;
            h11 += weight * z * z;
        }
        let determinant = h00 * h11 - h01 * h01;
        // Relative to its terms: what is left of a constant score is rounding.
        if determinant.is_nan() || determinant <= 1e-9 * h00 * h11 {
            return None;
        }
        let (d0, d1) = ((h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant);
        let mut part = 1.0;
        let mut next = loss(intercept + d0, slope + d1);
        while next > now + 1e-9 * now.abs() && part > 1e-6 {
            part /= 2.0;
            next = loss(intercept + part * d0, slope + part * d1);
        }
        (intercept, slope, now) = (intercept + part * d0, slope + part * d1, next);
        if d0.abs() < 1e-9 && d1.abs() < 1e-9 {
            return Some(Calibration { slope, intercept });
        }
        if intercept.abs() > 1e3 || slope.abs() > 1e3 {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(rows: u8) -> Vec<SubjectHash> {
        (0..rows).map(|n| [n; 16]).collect()
    }

    /// Scores whose odds are those of the labels: 3 of 4 rows at odds of 3, 1 of 4 at odds of 1/3.
    fn calibrated() -> (Vec<f32>, Vec<f32>) {
        let z = 3f32.ln();
        (vec![z, z, z, z, -z, -z, -z, -z], vec![1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    }

    #[test]
    fn a_calibrated_score_has_slope_one_and_an_extreme_one_less() {
        let (logits, labels) = calibrated();
        let found = recalibration(&logits, &labels).unwrap();
        assert!((found.slope - 1.0).abs() < 1e-6 && found.intercept.abs() < 1e-6, "{found:?}");
        let extreme: Vec<f32> = logits.iter().map(|z| 2.0 * z + 1.0).collect();
        let found = recalibration(&extreme, &labels).unwrap();
        assert!((found.slope - 0.5).abs() < 1e-6 && (found.intercept + 0.5).abs() < 1e-6, "{found:?}");
        assert_eq!(recalibration(&[0.3; 4], &[0.0, 1.0, 1.0, 0.0]), None);
        assert_eq!(recalibration(&[-1.0, -2.0, 1.0, 2.0], &[0.0, 0.0, 1.0, 1.0]), None);
    }

    #[test]
    fn detail_agrees_with_the_figures_by_hand_and_holds_them_in_its_intervals() {
        let (logits, labels) = calibrated();
        let detail = Detail::new(&logits, &labels, &subjects(8), 0.5, Digest::of(b"seed"));
        // Of both groups: 3 of 4 positives and 1 of 4 negatives are above.
        assert_eq!((detail.ks, detail.average_precision), (Some(0.5), Some(0.75 * 0.75 + 0.25 * 0.5)));
        assert!((detail.ks_score.unwrap() - 0.75).abs() < 1e-6);
        assert_eq!(detail.gains[4], (0.5, 0.75, 1.5));
        let held = |name: &str, value: f64| {
            let interval = detail.intervals[name];
            assert!(
                interval.low <= value && value <= interval.high && interval.low < interval.high,
                "{name} {interval:?}"
            );
        };
        held("auc", 0.75);
        held("accuracy", 0.75);
        held("brier", 0.1875);
        let one = Detail::new(&[1.0, 2.0], &[1.0, 1.0], &subjects(2), 0.5, Digest::of(b"seed"));
        assert_eq!((one.ks, one.average_precision, one.calibration), (None, None, None));
        assert!(!one.intervals.contains_key("auc") && one.intervals.contains_key("brier"));
    }

    #[test]
    fn area_counts_ties_half_like_the_ranks_do() {
        let logits = [0.1f32, 0.4, 0.4, 0.8, 0.8];
        let labels = [0.0f32, 0.0, 1.0, 1.0, 0.0];
        let area = area(&Ranks::new(&logits).groups(&labels, &[1; 5])).unwrap();
        assert!((area - super::super::auc(&logits, &labels).unwrap()).abs() < 1e-12);
    }
}
