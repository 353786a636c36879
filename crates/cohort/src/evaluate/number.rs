//! How good a model is that predicts a number.

use std::collections::BTreeMap;

use hospes_protocol::id::Digest;
use hospes_protocol::plan::figure;
use hospes_protocol::quality::{NumberSums, errors};
use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, intervals};
use crate::opt_out::SubjectHash;
use crate::regress::sharing;

/// Quality of predictions of a number on the rows of one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct NumberMetrics {
    /// Rows.
    pub rows: u64,
    /// Sum of |label − prediction|.
    pub absolute_error_sum: f64,
    /// Sum of (label − prediction)².
    pub squared_error_sum: f64,
    /// Sum of the labels.
    pub label_sum: f64,
    /// Sum of their squares.
    pub label_square_sum: f64,
    /// Root of the mean squared error.
    pub rmse: Option<f64>,
    /// Mean absolute error.
    pub mae: Option<f64>,
    /// Share of the label's variance that is explained; `None` if it is constant.
    pub r_squared: Option<f64>,
    /// 95 % intervals of the three.
    pub intervals: BTreeMap<String, Interval>,
    /// How many rows have a part in the sum of the squared errors, for the rule on what leaves.
    #[serde(skip)]
    pub(crate) effective_rows: f64,
}

impl NumberMetrics {
    /// # Shapes
    /// `predictions`, `labels`, `subjects`: one for each row.
    pub(crate) fn new(predictions: &[f64], labels: &[f64], subjects: &[SubjectHash], key: Option<Digest>) -> Self {
        let sums = |origin: f64, weight: &dyn Fn(usize) -> f64| {
            let mut sums = NumberSums::default();
            for (row, (prediction, label)) in predictions.iter().zip(labels).enumerate() {
                let (weight, error, label) = (weight(row), label - prediction, label - origin);
                sums.rows += weight;
                sums.absolute += weight * error.abs();
                sums.squared += weight * error * error;
                sums.label += weight * label;
                sums.label_squared += weight * label * label;
            }
            sums
        };
        // What leaves is of the labels as they are: an origin of its own at each site would make no sum over sites.
        let all = sums(0.0, &|_| 1.0);
        // The one in the middle is near the others, and one that is the same in all rows leaves exactly nothing.
        let mut sorted = labels.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let origin = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        let found = errors(sums(origin, &|_| 1.0));
        let intervals = intervals(subjects, key, &["rmse", "mae", "r_squared"], &|weights| {
            let found = errors(sums(origin, &|row| f64::from(weights[row])));
            vec![found.map(|e| e.rmse), found.map(|e| e.mae), found.and_then(|e| e.r_squared)]
        });
        let squares: Vec<f64> = predictions.iter().zip(labels).map(|(p, l)| (l - p) * (l - p)).collect();
        Self {
            rows: labels.len() as u64,
            absolute_error_sum: all.absolute,
            squared_error_sum: all.squared,
            label_sum: all.label,
            label_square_sum: all.label_squared,
            rmse: found.map(|e| e.rmse),
            mae: found.map(|e| e.mae),
            r_squared: found.and_then(|e| e.r_squared),
            intervals,
            effective_rows: sharing(&squares),
        }
    }

    /// The same figures as sums, before any disclosure rule.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn sums(&self) -> BTreeMap<&'static str, Vec<f64>> {
        BTreeMap::from([
            (figure::N, vec![self.rows as f64]),
            (figure::ABSOLUTE_ERROR_SUM, vec![self.absolute_error_sum]),
            (figure::SQUARED_ERROR_SUM, vec![self.squared_error_sum]),
            (figure::LABEL_SUM, vec![self.label_sum]),
            (figure::LABEL_SQUARE_SUM, vec![self.label_square_sum]),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_sums_agree() {
        let subjects: Vec<SubjectHash> = (0..4u8).map(|n| [n; 16]).collect();
        let m = NumberMetrics::new(&[1.0, 2.0, 5.0, 4.0], &[1.0, 2.0, 3.0, 4.0], &subjects, Some(Digest::of(b"seed")));
        assert_eq!((m.rmse, m.mae, m.r_squared), (Some(1.0), Some(0.5), Some(1.0 - 4.0 / 5.0)));
        assert_eq!(m.sums()[figure::LABEL_SQUARE_SUM], [30.0]);
        // One row has all of the error; no error at all is everybody's.
        assert_eq!(m.effective_rows, 1.0);
        let right = NumberMetrics::new(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.0, 4.0], &subjects, None);
        assert!(right.effective_rows == 4.0 && right.intervals.is_empty());
        assert!(m.intervals["mae"].low <= 0.5 && m.intervals["mae"].high >= 0.5);
    }

    /// Labels whose squares differ in the last digits of a double only, as days of the Julian calendar do.
    #[test]
    fn a_label_far_from_zero_is_explained_as_well_as_one_near_it() {
        let noise = |n: u32| (f64::from(n) * 0.618_033_988_749_895).fract();
        let of = |origin: f64, label: &dyn Fn(u32) -> f64| {
            let labels: Vec<f64> = (0..200).map(|n| origin + label(n)).collect();
            let predictions: Vec<f64> = (0..200).map(|n| origin + label(n) + 0.1 * noise(7 * n + 3)).collect();
            let subjects: Vec<SubjectHash> = (0..200u8).map(|n| [n; 16]).collect();
            NumberMetrics::new(&predictions, &labels, &subjects, Some(Digest::of(b"seed")))
        };
        let (near, far) = (of(0.0, &noise), of(2.45e6, &noise));
        let (wanted, found) = (near.r_squared.unwrap(), far.r_squared.unwrap());
        assert!(wanted < 0.99 && (found - wanted).abs() < 1e-6, "{found} instead of {wanted}");
        let (wanted, found) = (near.intervals["r_squared"], far.intervals["r_squared"]);
        assert!((found.low - wanted.low).abs() < 1e-6 && (found.high - wanted.high).abs() < 1e-6, "{found:?}");
        // What leaves is of the labels as they are.
        assert!((far.sums()[figure::LABEL_SUM][0] - 200.0 * 2.45e6 - near.label_sum).abs() < 1e-3);
        for origin in [0.1, 2.45e6 / 3.0] {
            assert_eq!(of(origin, &|_| 0.0).r_squared, None, "a constant label has no variance");
        }
        // One row, and be it the first, does not make the others alike in the resamples that it is not in.
        let apart = of(0.0, &|n| if n == 0 { 1e9 } else { noise(n) });
        assert!(apart.intervals.contains_key("r_squared"), "{:?}", apart.intervals);
    }
}
