//! What a site sees of a yes/no score besides the sums: curves, tables, recalibration, intervals.

use std::collections::BTreeMap;

use hospes_protocol::id::Digest;
use hospes_protocol::quality::{Group, Ranking, ranking};
use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, intervals};
use crate::opt_out::SubjectHash;
use crate::regress::effective;

/// A yes/no score in full, from exact scores.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ts_rs::TS)]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// 1 for a calibrated score.
    pub slope: f64,
    /// 0 for a calibrated score.
    pub intercept: f64,
    /// Standard error of the slope.
    pub slope_error: f64,
    /// Standard error of the intercept.
    pub intercept_error: f64,
}

/// A recalibration with what leaves of it: sums that say how precise it is, so that those of several sites can be put
/// together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Recalibration {
    pub(crate) fit: Calibration,
    /// Σw, Σwz and Σwz² over the rows, with z the logit of the score and w = p(1 − p) at the solution.
    pub(crate) information: [f64; 3],
    /// How many rows have a part in these sums, and in Σw(z − z̄)², which the slope comes from: the least of all.
    pub(crate) effective_rows: f64,
}

impl Recalibration {
    /// The information times the solution, intercept first.
    pub(crate) fn weighted(&self) -> [f64; 2] {
        let ([w, wz, wzz], Calibration { slope, intercept, .. }) = (self.information, self.fit);
        [w * intercept + wz * slope, wz * intercept + wzz * slope]
    }

    /// # Shapes
    /// `weights`: p(1 − p) of each row at the solution.
    fn new(fit: Calibration, weights: &[f64], logits: &[f32]) -> Self {
        let shifted: Vec<f64> = weights.iter().zip(logits).map(|(w, z)| w * f64::from(*z)).collect();
        let squared: Vec<f64> = shifted.iter().zip(logits).map(|(wz, z)| wz * f64::from(*z)).collect();
        let information = [weights, &shifted[..], &squared[..]].map(|terms| terms.iter().sum::<f64>());
        let mean = information[1] / information[0];
        // PRIVACY: of scores that lie together but for a few, those decide the slope, wherever all of them lie.
        let apart: Vec<f64> = weights.iter().zip(logits).map(|(w, z)| w * (f64::from(*z) - mean).powi(2)).collect();
        let effective_rows = effective(weights).min(effective(&squared)).min(effective(&apart));
        Self { fit, information, effective_rows }
    }
}

/// Most points of a curve in a view.
const POINTS: usize = 200;
/// Newton's steps for the recalibration; a problem with a finite solution takes about ten.
const NEWTON_STEPS: usize = 50;

impl Detail {
    /// # Shapes
    /// `logits`, `labels` (0 or 1) and `subjects`: one for each row.
    pub(crate) fn new(
        logits: &[f32],
        labels: &[f32],
        subjects: &[SubjectHash],
        threshold: f64,
        key: Option<Digest>,
    ) -> Self {
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
        let calibration = recalibration(logits, labels).map(|found| found.fit);
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

/// Fits slope and intercept by Newton's method from the flat model, with steps halved while they make the fit worse, on
/// logits in units of their spread: a score that varies little has as good a slope as any, only a large one. Where the score
/// separates the classes, or is constant, there is no finite solution.
pub(super) fn recalibration(logits: &[f32], labels: &[f32]) -> Option<Recalibration> {
    let (centre, unit) = middle(logits)?;
    let scaled: Vec<f64> = logits.iter().map(|logit| (f64::from(*logit) - centre) / unit).collect();
    let rows = || scaled.iter().zip(labels).map(|(z, label)| (*z, *label > 0.5));
    // Sum of the negative log-likelihood, in the form that does not overflow.
    let loss = |intercept: f64, slope: f64| -> f64 {
        let one = |(z, positive): (f64, bool)| {
            let z = intercept + slope * z;
            z.max(0.0) - if positive { z } else { 0.0 } + (-z.abs()).exp().ln_1p()
        };
        rows().map(one).sum()
    };
    let (mut intercept, mut slope) = (0.0f64, 0.0f64);
    let mut now = loss(intercept, slope);
    for _ in 0..NEWTON_STEPS {
        let predictor = |z: f64| intercept + slope * z;
        let weights: Vec<f64> = scaled.iter().map(|z| sigmoid(predictor(*z)) * sigmoid(-predictor(*z))).collect();
        // Around the mean by weight, level and slope are solved for one by one.
        let sum = weights.iter().sum::<f64>();
        let mean = weights.iter().zip(&scaled).map(|(w, z)| w * z).sum::<f64>() / sum;
        let squares = weights.iter().zip(&scaled).map(|(w, z)| w * (z - mean).powi(2)).sum::<f64>();
        let (mut level, mut tilt) = (0.0, 0.0);
        for (z, positive) in rows() {
            let rest = if positive { sigmoid(-predictor(z)) } else { -sigmoid(predictor(z)) };
            level += rest;
            tilt += rest * (z - mean);
        }
        let d1 = tilt / squares;
        let d0 = level / sum - d1 * mean;
        if !(d0.is_finite() && d1.is_finite()) {
            return None;
        }
        let mut part = 1.0;
        let mut next = loss(intercept + d0, slope + d1);
        while next > now + 1e-9 * now.abs() && part > 1e-6 {
            part /= 2.0;
            next = loss(intercept + part * d0, slope + part * d1);
        }
        (intercept, slope, now) = (intercept + part * d0, slope + part * d1, next);
        let is_small = |step: f64, of: f64| step.abs() < 1e-9 * of.abs().max(1.0);
        if is_small(d0, intercept) && is_small(d1, slope) {
            let away = mean + centre / unit;
            let fit = Calibration {
                slope: slope / unit,
                intercept: intercept - slope * centre / unit,
                slope_error: squares.sqrt().recip() / unit,
                intercept_error: (sum.recip() + away * away / squares).sqrt(),
            };
            let found = Recalibration::new(fit, &weights, logits);
            let Calibration { slope_error, intercept_error, .. } = fit;
            let mut numbers =
                found.information.into_iter().chain(found.weighted()).chain([slope_error, intercept_error]);
            return numbers.all(f64::is_finite).then_some(found);
        }
    }
    None
}

/// The median, and the width of the middle half, or of all where that is nothing; `None` if all are the same.
fn middle(logits: &[f32]) -> Option<(f64, f64)> {
    let mut sorted: Vec<f64> = logits.iter().copied().map(f64::from).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let range = sorted.last()? - sorted.first()?;
    let quarter = |of: usize| sorted[sorted.len() * of / 4];
    let half = quarter(3) - quarter(1);
    (range > 0.0).then(|| (quarter(2), if half > 0.0 { half } else { range }))
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
        let all = recalibration(&logits, &labels).unwrap();
        let found = all.fit;
        assert!((found.slope - 1.0).abs() < 1e-6 && found.intercept.abs() < 1e-6, "{found:?}");
        // Eight rows with p(1 − p) = 3/16 and z = ±log 3: the errors are those of a logistic regression.
        assert!((found.intercept_error - 1.5f64.sqrt().recip()).abs() < 1e-6, "{found:?}");
        assert!((found.slope_error - 1.5f64.sqrt().recip() / 3f64.ln()).abs() < 1e-6, "{found:?}");
        let [intercept, slope] = all.weighted();
        assert!(intercept.abs() < 1e-6 && (slope - 1.5 * 3f64.ln().powi(2)).abs() < 1e-6);
        assert!((all.effective_rows - 8.0).abs() < 1e-6);
        let extreme: Vec<f32> = logits.iter().map(|z| 2.0 * z + 1.0).collect();
        let found = recalibration(&extreme, &labels).unwrap().fit;
        assert!((found.slope - 0.5).abs() < 1e-6 && (found.intercept + 0.5).abs() < 1e-6, "{found:?}");
        // Scores of half a percent around one half, or around another, are sorted as well, and need a larger slope.
        let narrow: Vec<f32> = logits.iter().map(|z| 1e-5 * z).collect();
        let found = recalibration(&narrow, &labels).unwrap().fit;
        assert!((found.slope / 1e5 - 1.0).abs() < 1e-6 && found.intercept.abs() < 1e-6, "{found:?}");
        assert!((found.slope_error / 1e5 * 1.5f64.sqrt() * 3f64.ln() - 1.0).abs() < 1e-6, "{found:?}");
        let aside: Vec<f32> = logits.iter().map(|z| 4.0 + 0.125 * z.signum() / 1024.0).collect();
        let found = recalibration(&aside, &labels).unwrap().fit;
        assert!((found.slope / (8192.0 * 3f64.ln()) - 1.0).abs() < 1e-6, "{found:?}");
        assert!((found.intercept / (-4.0 * found.slope) - 1.0).abs() < 1e-6, "{found:?}");
        assert_eq!(recalibration(&[0.3; 4], &[0.0, 1.0, 1.0, 0.0]), None);
        assert_eq!(recalibration(&[-1.0, -2.0, 1.0, 2.0], &[0.0, 0.0, 1.0, 1.0]), None);
    }

    #[test]
    fn of_scores_that_lie_together_but_for_two_the_slope_is_that_of_the_two() {
        let (mut logits, mut labels) = (vec![4.0f32; 98], [1.0f32, 0.0].repeat(49));
        logits.extend([4.5; 2]);
        labels.extend([1.0, 0.0]);
        let found = recalibration(&logits, &labels).unwrap();
        assert!(found.effective_rows < 3.0, "{found:?}");
    }

    /// Two sites with half of the rows each: their solutions, weighed by their precision, lie near that of all rows, much
    /// nearer than its standard error.
    #[test]
    fn what_leaves_of_a_recalibration_adds_up_to_nearly_that_of_all_rows() {
        use hospes_protocol::quality::recalibration as put_together;
        let logits: Vec<f32> = (0..600u16).map(|n| f32::from(n % 97) / 24.0 - 2.0).collect();
        // Yes where a fixed sequence that is spread evenly over 0 to 1 lies below the probability of a slope of 0.7.
        let golden = |n: u16| (f64::from(n) * 0.618_033_988_749_895).fract();
        let yes = |n: u16, z: f32| f32::from(u8::from(golden(n) < sigmoid(0.7 * f64::from(z) - 0.2)));
        let labels: Vec<f32> = (0..600u16).zip(&logits).map(|(n, z)| yes(n, *z)).collect();
        let all = recalibration(&logits, &labels).unwrap().fit;
        assert!((all.slope - 0.7).abs() < 0.1, "{all:?}");
        let halves = [0..300, 300..600].map(|half| recalibration(&logits[half.clone()], &labels[half]).unwrap());
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
        let information = sum(&halves[0].information, &halves[1].information).try_into().unwrap();
        let weighted = sum(&halves[0].weighted(), &halves[1].weighted()).try_into().unwrap();
        let found = put_together(information, weighted).unwrap();
        assert!((found.slope - all.slope).abs() < 0.1 * all.slope_error, "{found:?} {all:?}");
        assert!((found.intercept - all.intercept).abs() < 0.1 * all.intercept_error, "{found:?} {all:?}");
        assert!((found.slope_error / all.slope_error - 1.0).abs() < 0.02, "{found:?} {all:?}");
        // One site's own sums give its own solution back.
        let own = put_together(halves[0].information, halves[0].weighted()).unwrap();
        assert!((own.slope - halves[0].fit.slope).abs() < 1e-12);
        assert!((own.slope_error - halves[0].fit.slope_error).abs() < 1e-12, "{own:?}");
        assert!((own.intercept_error - halves[0].fit.intercept_error).abs() < 1e-12, "{own:?}");
    }

    #[test]
    fn detail_agrees_with_the_figures_by_hand_and_holds_them_in_its_intervals() {
        let (logits, labels) = calibrated();
        let detail = Detail::new(&logits, &labels, &subjects(8), 0.5, Some(Digest::of(b"seed")));
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
        let one = Detail::new(&[1.0, 2.0], &[1.0, 1.0], &subjects(2), 0.5, Some(Digest::of(b"seed")));
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
