//! How good a model is that tells several classes apart.

use std::collections::BTreeMap;

use hospes_protocol::id::Digest;
use hospes_protocol::plan::{SCORE_BINS, figure};
use hospes_protocol::quality::{Group, macro_f1};
use serde::{Deserialize, Serialize};

use super::bin;
use super::bootstrap::{Interval, intervals};
use super::detail::area;
use crate::opt_out::SubjectHash;
use crate::regress::sharing;

/// Quality of a model of several classes on the rows of one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct ClassMetrics {
    /// Rows.
    pub rows: u64,
    /// Classes.
    pub classes: usize,
    /// Rows predicted rightly: the class with the highest output is the prediction, the first of several.
    pub correct: u64,
    /// Sum of the cross entropy over the rows.
    pub loss_sum: f64,
    /// Rows of each class by predicted class, row after row.
    pub confusion: Vec<u64>,
    /// Mean of the classes' F1; `None` without rows.
    pub macro_f1: Option<f64>,
    /// Area under the ROC curve of each class against all others, exactly; `None` is *undefined, one class*.
    pub auc: Vec<Option<f64>>,
    /// 95 % intervals of accuracy and macro F1.
    pub intervals: BTreeMap<String, Interval>,
    /// For each class, rows of it by its probability in bins of equal width, and rows of others. They are for the sums
    /// only.
    #[serde(skip)]
    scores: [Vec<u64>; 2],
    /// How many rows have a part in the sum of the loss, for the rule on what leaves.
    #[serde(skip)]
    pub(crate) effective_rows: f64,
}

impl ClassMetrics {
    /// # Shapes
    /// `outputs`: for each row one for each class, before the softmax; `labels`: the index of the class of each row.
    pub(crate) fn new(
        outputs: &[f32],
        labels: &[f64],
        classes: usize,
        subjects: &[SubjectHash],
        key: Option<Digest>,
    ) -> Self {
        let bins = usize::try_from(SCORE_BINS).unwrap_or(usize::MAX);
        let mut metrics = Self {
            rows: labels.len() as u64,
            classes,
            correct: 0,
            loss_sum: 0.0,
            confusion: vec![0; classes * classes],
            macro_f1: None,
            auc: Vec::new(),
            intervals: BTreeMap::new(),
            scores: [vec![0; classes * bins], vec![0; classes * bins]],
            effective_rows: 0.0,
        };
        let mut losses = Vec::with_capacity(labels.len());
        let mut cells = Vec::with_capacity(labels.len());
        let mut probabilities = Vec::with_capacity(outputs.len());
        for (row, label) in outputs.chunks_exact(classes).zip(labels) {
            let truth = index(*label, classes);
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|z| f64::from(z - most).exp()).sum();
            let predicted = row.iter().position(|z| *z == most).unwrap_or_default();
            let loss = total.ln() - f64::from(row[truth] - most);
            metrics.loss_sum += loss;
            losses.push(loss);
            metrics.correct += u64::from(predicted == truth);
            metrics.confusion[truth * classes + predicted] += 1;
            cells.push(truth * classes + predicted);
            for (class, z) in row.iter().enumerate() {
                let probability = f64::from(z - most).exp() / total;
                metrics.scores[usize::from(class != truth)][class * bins + bin(probability, bins)] += 1;
                probabilities.push(probability);
            }
        }
        metrics.effective_rows = sharing(&losses);
        metrics.macro_f1 = macro_f1(&counts(&metrics.confusion), classes);
        metrics.auc = (0..classes).map(|class| one_against_rest(&probabilities, labels, classes, class)).collect();
        metrics.intervals = intervals(subjects, key, &["accuracy", "macro_f1"], &|weights| {
            let mut confusion = vec![0.0; classes * classes];
            cells.iter().zip(weights).for_each(|(cell, weight)| confusion[*cell] += f64::from(*weight));
            let (rows, right) =
                (confusion.iter().sum::<f64>(), (0..classes).map(|c| confusion[c * (classes + 1)]).sum::<f64>());
            vec![(rows > 0.0).then(|| right / rows), macro_f1(&confusion, classes)]
        });
        metrics
    }

    /// The same figures as sums, before any disclosure rule.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn sums(&self) -> BTreeMap<&'static str, Vec<f64>> {
        BTreeMap::from([
            (figure::N, vec![self.rows as f64]),
            (figure::CORRECT, vec![self.correct as f64]),
            (figure::LOSS_SUM, vec![self.loss_sum]),
            (figure::CLASS_CONFUSION, counts(&self.confusion)),
            (figure::CLASS_SCORES_POSITIVE, counts(&self.scores[0])),
            (figure::CLASS_SCORES_NEGATIVE, counts(&self.scores[1])),
        ])
    }
}

#[allow(clippy::cast_precision_loss)]
fn counts(list: &[u64]) -> Vec<f64> {
    list.iter().map(|n| *n as f64).collect()
}

/// A label as the index that it is; the table was checked to hold nothing else.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn index(label: f64, classes: usize) -> usize {
    (label as usize).min(classes - 1)
}

fn one_against_rest(probabilities: &[f64], labels: &[f64], classes: usize, class: usize) -> Option<f64> {
    let score = |row: usize| probabilities[row * classes + class];
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    let mut groups: Vec<Group> = Vec::new();
    let mut last = None;
    for row in order {
        if last != Some(score(row)) {
            groups.push(Group::default());
            last = Some(score(row));
        }
        if let Some(group) = groups.last_mut() {
            let here = index(labels[row], classes) == class;
            *(if here { &mut group.positives } else { &mut group.negatives }) += 1.0;
        }
    }
    area(&groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_judged_as_by_hand() {
        // Three rows of three classes: right, right, and the third taken for the first.
        let outputs = [2.0f32, 0.0, 0.0, 0.0, 3.0, 0.0, 1.0, 0.0, 0.5];
        let labels = [0.0, 1.0, 2.0];
        let subjects = [[1; 16], [2; 16], [3; 16]];
        let m = ClassMetrics::new(&outputs, &labels, 3, &subjects, Some(Digest::of(b"seed")));
        assert_eq!((m.correct, m.confusion.clone()), (2, vec![1, 0, 0, 0, 1, 0, 1, 0, 0]));
        let softmax = |row: [f64; 3], k: usize| -(row[k].exp() / row.iter().map(|z| z.exp()).sum::<f64>()).ln();
        let loss = softmax([2.0, 0.0, 0.0], 0) + softmax([0.0, 3.0, 0.0], 1) + softmax([1.0, 0.0, 0.5], 2);
        assert!((m.loss_sum - loss).abs() < 1e-6);
        assert!((m.macro_f1.unwrap() - (2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
        // Probability of the third class: highest in the third row.
        assert_eq!(m.auc, [Some(1.0), Some(1.0), Some(1.0)]);
        let sums = m.sums();
        assert_eq!(sums[figure::CLASS_SCORES_POSITIVE].iter().sum::<f64>(), 3.0);
        assert_eq!(sums[figure::CLASS_SCORES_NEGATIVE].iter().sum::<f64>(), 6.0);
        assert!(m.intervals["accuracy"].low < m.intervals["accuracy"].high);
        let one = ClassMetrics::new(&outputs[..3], &[0.0], 3, &subjects[..1], None);
        assert_eq!(one.auc, [None, None, None]);
    }
}
