//! How good a model is on some rows: for the site's own view in full, for the outside as sums under the policy.

mod bootstrap;
mod classes;
mod compare;
mod detail;
mod judged;
mod number;
mod survival;

use std::collections::BTreeMap;

use hospes_privacy::disclosure::border::{Table, WITHHELD, at_border};
use hospes_protocol::id::Digest;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::{self, Figure, SCORE_BINS, figure};
use hospes_protocol::policy::Disclosure;
use serde::{Deserialize, Serialize};

pub use bootstrap::Interval;
pub(crate) use bootstrap::intervals;
pub use classes::ClassMetrics;
pub use compare::{Compared, compare};
pub use detail::{Calibration, Detail};
pub(crate) use judged::{Asked, Judged, label_levels};
pub use number::NumberMetrics;
pub use survival::SurvivalMetrics;

use crate::opt_out::SubjectHash;
use crate::regress::sharing;

/// Quality of a model on the rows of one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Rows.
    pub rows: u64,
    /// Positive rows.
    pub positives: u64,
    /// Rows predicted rightly at the threshold.
    pub correct: u64,
    /// Sum of the loss over the rows.
    pub loss_sum: f64,
    /// Sum of (score − label)² over the rows.
    pub brier_sum: f64,
    /// True positives, false positives, true negatives, false negatives.
    pub confusion: [u64; 4],
    /// Area under the ROC curve, exactly; `None` is *undefined, one class*.
    pub auc: Option<f64>,
    /// Positive rows by score in bins of equal width.
    pub scores_positive: Vec<u64>,
    /// Negative rows by score in the same bins.
    pub scores_negative: Vec<u64>,
    /// Calibration curve.
    pub calibration: Vec<CalibrationBin>,
    /// Slope and intercept with their precision, for the sums; the site sees them in `detail`.
    #[serde(skip)]
    pub(crate) recalibration: Option<detail::Recalibration>,
    /// How many rows have a part in the sums of the loss and of the Brier score: the least of the two's, for the rule on what
    /// leaves.
    #[serde(skip)]
    pub(crate) effective_rows: f64,
    /// Curves and intervals, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
}

/// Rows with scores in one bin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct CalibrationBin {
    /// Rows.
    pub rows: u64,
    /// Sum of their scores.
    pub score_sum: f64,
    /// Positive ones among them.
    pub positives: u64,
}

impl Metrics {
    /// Compares scores with labels.
    ///
    /// # Shapes
    /// `logits` and `labels` (0 or 1): one for each row.
    pub(crate) fn new(logits: &[f32], labels: &[f32], threshold: f64, calibration_bins: u32) -> Self {
        let bins = usize::try_from(SCORE_BINS).unwrap_or(usize::MAX);
        let mut metrics = Self {
            rows: labels.len() as u64,
            positives: 0,
            correct: 0,
            loss_sum: 0.0,
            brier_sum: 0.0,
            confusion: [0; 4],
            auc: None,
            scores_positive: vec![0; bins],
            scores_negative: vec![0; bins],
            calibration: vec![CalibrationBin::default(); calibration_bins as usize],
            recalibration: None,
            effective_rows: 0.0,
            detail: None,
        };
        let rows = logits.iter().zip(labels);
        let terms = rows.map(|(logit, label)| metrics.add(f64::from(*logit), *label > 0.5, threshold));
        let (losses, squares): (Vec<f64>, Vec<f64>) = terms.unzip();
        metrics.effective_rows = sharing(&losses).min(sharing(&squares));
        metrics.auc = auc(logits, labels);
        metrics
    }

    /// Adds the recalibration of the same scores and labels.
    pub(crate) fn with_recalibration(self, logits: &[f32], labels: &[f32]) -> Self {
        Self { recalibration: detail::recalibration(logits, labels), ..self }
    }

    /// Adds curves and intervals from the same scores and labels, with the subject of each row.
    pub(crate) fn with_detail(
        self,
        logits: &[f32],
        labels: &[f32],
        subjects: &[SubjectHash],
        threshold: f64,
        key: Option<Digest>,
    ) -> Self {
        Self { detail: Some(Detail::new(logits, labels, subjects, threshold, key)), ..self }
    }

    /// Adds a row, and gives what it adds to the loss and to the Brier score.
    fn add(&mut self, logit: f64, positive: bool, threshold: f64) -> (f64, f64) {
        let score = 1.0 / (1.0 + (-logit).exp());
        let label = f64::from(u8::from(positive));
        let predicted = score >= threshold;
        self.positives += u64::from(positive);
        self.correct += u64::from(predicted == positive);
        // −y·log σ(z) − (1−y)·log(1−σ(z)) in the form that does not overflow.
        let loss = logit.max(0.0) - logit * label + (-logit.abs()).exp().ln_1p();
        let square = (score - label).powi(2);
        self.loss_sum += loss;
        self.brier_sum += square;
        self.confusion[match (predicted, positive) {
            (true, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (false, true) => 3,
        }] += 1;
        let histogram = if positive { &mut self.scores_positive } else { &mut self.scores_negative };
        let at = bin(score, histogram.len());
        histogram[at] += 1;
        if !self.calibration.is_empty() {
            let at = bin(score, self.calibration.len());
            let cell = &mut self.calibration[at];
            cell.rows += 1;
            cell.score_sum += score;
            cell.positives += u64::from(positive);
        }
        (loss, square)
    }

    /// Share of rows predicted rightly.
    ///
    /// # Disclosure
    /// A ratio over the rows, for the site's own view.
    #[allow(clippy::cast_precision_loss)]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.rows.max(1) as f64
    }

    /// Mean loss.
    ///
    /// # Disclosure
    /// A mean over the rows, for the site's own view.
    #[allow(clippy::cast_precision_loss)]
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.rows.max(1) as f64
    }

    /// Brier score (Brier 1950).
    ///
    /// # Disclosure
    /// A mean over the rows, for the site's own view.
    #[allow(clippy::cast_precision_loss)]
    pub fn brier(&self) -> f64 {
        self.brier_sum / self.rows.max(1) as f64
    }

    /// Whether only one class is there, so that the ROC curve is undefined.
    ///
    /// # Disclosure
    /// Together with the number of rows it tells all labels; for the site's own view.
    pub fn is_one_class(&self) -> bool {
        self.positives == 0 || self.positives == self.rows
    }

    /// The same figures as sums, before any disclosure rule.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn sums(&self) -> BTreeMap<&'static str, Vec<f64>> {
        let counts = |list: &[u64]| list.iter().map(|n| *n as f64).collect::<Vec<_>>();
        let bins = |of: &dyn Fn(&CalibrationBin) -> f64| self.calibration.iter().map(of).collect::<Vec<_>>();
        let mut sums = BTreeMap::from([
            (figure::N, vec![self.rows as f64]),
            (figure::CORRECT, vec![self.correct as f64]),
            (figure::LOSS_SUM, vec![self.loss_sum]),
            (figure::BRIER_SUM, vec![self.brier_sum]),
            (figure::CONFUSION, counts(&self.confusion)),
            (figure::SCORES_POSITIVE, counts(&self.scores_positive)),
            (figure::SCORES_NEGATIVE, counts(&self.scores_negative)),
            (figure::CALIBRATION_ROWS, bins(&|b| b.rows as f64)),
            (figure::CALIBRATION_SCORES, bins(&|b| b.score_sum)),
            (figure::CALIBRATION_POSITIVES, bins(&|b| b.positives as f64)),
        ]);
        if let Some(found) = &self.recalibration {
            sums.insert(figure::RECALIBRATION_INFORMATION, found.information.to_vec());
            sums.insert(figure::RECALIBRATION_WEIGHTED, found.weighted().to_vec());
        }
        sums
    }
}

/// Bin of a score from 0 to 1; the last bin is closed.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn bin(score: f64, bins: usize) -> usize {
    ((score * bins as f64) as usize).min(bins - 1)
}

/// Area under the ROC curve by ranks, ties counted half (Mann, Whitney 1947); `None` for one class.
#[allow(clippy::cast_precision_loss)]
fn auc(logits: &[f32], labels: &[f32]) -> Option<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    let positives = labels.iter().filter(|l| **l > 0.5).count();
    let negatives = labels.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut rank_sum = 0.0;
    let mut start = 0;
    while start < order.len() {
        let tied = order[start..].iter().take_while(|i| logits[**i] == logits[order[start]]).count();
        let tied = tied.max(1);
        let mean_rank = start as f64 + (tied as f64 + 1.0) / 2.0;
        let hits = order[start..start + tied].iter().filter(|i| labels[**i] > 0.5).count();
        rank_sum += mean_rank * hits as f64;
        start += tied;
    }
    let (p, n) = (positives as f64, negatives as f64);
    Some((rank_sum - p * (p + 1.0) / 2.0) / (p * n))
}

/// What leaves of some sums: exactly the figures that the plan announces, each there or withheld under the rules.
pub(crate) fn leaving(
    announced: &[Figure],
    mut sums: BTreeMap<&'static str, Vec<f64>>,
    table: Table<'_>,
    rules: &Disclosure,
) -> FigureSet {
    let mut set = FigureSet { sums: BTreeMap::new(), withheld: BTreeMap::new() };
    let empty = |name| sums.get(name).is_some_and(|bins: &Vec<f64>| bins.iter().all(|n| *n == 0.0));
    // PRIVACY: with one class only the ROC curve is undefined, and its histograms are all labels; under every policy,
    // that of public data too, they leave as *withheld*.
    let classes =
        |cells: &Vec<f64>| cells.chunks(cells.len().isqrt().max(1)).filter(|c| c.iter().any(|n| *n > 0.0)).count();
    let one_class = empty(figure::SCORES_POSITIVE)
        || empty(figure::SCORES_NEGATIVE)
        || sums.get(figure::CLASS_CONFUSION).is_some_and(|cells| classes(cells) < 2);
    let scores = [
        figure::SCORES_POSITIVE,
        figure::SCORES_NEGATIVE,
        figure::CLASS_SCORES_POSITIVE,
        figure::CLASS_SCORES_NEGATIVE,
    ];
    for item in announced {
        let of_scores = scores.iter().any(|name| *name == item.name);
        match sums.remove(&*item.name) {
            Some(values) if !(one_class && of_scores) => _ = set.sums.insert(item.name.to_string(), values),
            _ => _ = set.withheld.insert(item.name.to_string(), WITHHELD.to_owned()),
        }
    }
    let set = at_border(rules, table, set);
    debug_assert_eq!(plan::check_figures(announced, &set), Ok(()));
    set
}

#[cfg(test)]
mod tests {
    use hospes_protocol::policy::Policy;

    use super::*;

    #[test]
    fn auc_counts_ties_half_and_is_undefined_for_one_class() {
        assert_eq!(auc(&[0.1, 0.4, 0.35, 0.8], &[0.0, 0.0, 1.0, 1.0]), Some(0.75));
        assert_eq!(auc(&[0.5; 4], &[0.0, 1.0, 0.0, 1.0]), Some(0.5));
        assert_eq!(auc(&[1.0, 2.0], &[1.0, 1.0]), None);
        assert_eq!(auc(&[], &[]), None);
    }

    #[test]
    fn sums_agree_with_each_other() {
        let logits = [-2.0, -0.1, 0.0, 0.3, 5.0];
        let labels = [0.0, 1.0, 1.0, 0.0, 1.0];
        let m = Metrics::new(&logits, &labels, 0.5, 4);
        assert_eq!(m.confusion, [2, 1, 1, 1]);
        assert_eq!(m.correct, m.confusion[0] + m.confusion[2]);
        assert_eq!(m.scores_positive.iter().sum::<u64>(), m.positives);
        assert_eq!(m.calibration.iter().map(|b| b.rows).sum::<u64>(), m.rows);
        let expected: f64 = logits
            .iter()
            .zip(labels)
            .map(|(z, y)| {
                let p = 1.0 / (1.0 + (-f64::from(*z)).exp());
                if y > 0.5 { -p.ln() } else { -(1.0 - p).ln() }
            })
            .sum();
        assert!((m.loss_sum - expected).abs() < 1e-9, "{} {expected}", m.loss_sum);
        assert_eq!(bin(1.0, 256), 255);
    }

    #[test]
    fn one_class_withholds_what_the_curve_is_made_from_under_every_policy() {
        let some = |positives: usize, negatives: usize| {
            let logits = [vec![2.0f32; positives], vec![-2.0; negatives]].concat();
            let labels = [vec![1.0f32; positives], vec![0.0; negatives]].concat();
            Metrics::new(&logits, &labels, 0.5, 2)
        };
        let sums = some(20, 20).sums();
        let announced: Vec<Figure> = sums
            .iter()
            .map(|(name, v)| Figure {
                name: (*name).into(),
                values: v.len() as u64,
                kind: hospes_protocol::policy::EgressKind::Metrics,
            })
            .collect();
        let left = |m: &Metrics, policy: Policy| {
            let table = Table { subjects: m.rows, parts_allowed: true, levels: &[] };
            leaving(&announced, m.sums(), table, &policy.disclosure)
        };
        let held = |set: FigureSet| set.withheld.into_keys().collect::<Vec<_>>();
        let scores = [figure::SCORES_NEGATIVE, figure::SCORES_POSITIVE];
        assert_eq!(held(left(&some(40, 0), Policy::public_data())), scores);
        assert!(held(left(&some(39, 1), Policy::public_data())).is_empty());
        // Everything but the number of rows, and the same words as for a small count.
        let strict = left(&some(40, 0), Policy::strict());
        assert_eq!(strict.sums.keys().collect::<Vec<_>>(), [figure::N]);
        assert!(strict.withheld.values().all(|words| words == WITHHELD));
        assert!(left(&some(40, 30), Policy::strict()).sums.contains_key(figure::CONFUSION));
    }
}
