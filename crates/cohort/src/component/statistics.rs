//! Counts, sums and sums of squares of features.

use super::frame::Frame;

/// Sums of one feature over the rows in which it is there.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FeatureStatistics {
    /// Feature.
    pub name: String,
    /// Rows in which it is there.
    pub present: u64,
    /// Sum.
    pub sum: f64,
    /// Sum of squares.
    pub sum_of_squares: f64,
    /// Whether it takes the values 0 and 1 only, so that its sum is a count of rows.
    pub indicator: bool,
}

pub(crate) fn statistics(frame: &Frame) -> Vec<FeatureStatistics> {
    let of = |feature: &super::frame::Feature| {
        let present: Vec<f64> = feature.values.iter().copied().filter(|v| !v.is_nan()).collect();
        FeatureStatistics {
            name: feature.name.clone(),
            present: present.len() as u64,
            sum: present.iter().sum(),
            sum_of_squares: present.iter().map(|v| v * v).sum(),
            indicator: present.iter().all(|v| *v == 0.0 || *v == 1.0),
        }
    };
    frame.features.iter().map(of).collect()
}
