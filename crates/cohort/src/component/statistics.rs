//! Counts, sums and sums of squares of features.

use std::collections::{BTreeMap, HashMap};

use super::frame::{Feature, Frame};

/// Sums of one feature over the rows in which it is there.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, ts_rs::TS)]
pub struct FeatureStatistics {
    /// Feature.
    pub name: String,
    /// Rows in which it is there.
    pub present: u64,
    /// Sum.
    pub sum: f64,
    /// Sum of squares.
    pub sum_of_squares: f64,
}

pub(crate) fn statistics(frame: &Frame) -> Vec<FeatureStatistics> {
    let of = |feature: &Feature| {
        let present: Vec<f64> = feature.values.iter().copied().filter(|v| !v.is_nan()).collect();
        FeatureStatistics {
            name: feature.name.clone(),
            present: present.len() as u64,
            sum: present.iter().sum(),
            sum_of_squares: present.iter().map(|v| v * v).sum(),
        }
    };
    frame.features.iter().map(of).collect()
}

/// Distinct values up to which the sums of a feature can be solved for the rows with each of them.
const FEW_VALUES: usize = 10;

/// Rows by value, for each category and each other feature with few values. The indicators of one category count
/// together, so that the code without an indicator is among them.
pub(crate) fn level_counts(frame: &Frame) -> Vec<Vec<u64>> {
    let mut groups: BTreeMap<&str, Vec<&Feature>> = BTreeMap::new();
    for feature in &frame.features {
        groups.entry(feature.category.as_deref().unwrap_or(&feature.name)).or_default().push(feature);
    }
    groups.values().filter_map(|group| levels(group, frame.rows())).collect()
}

fn levels(group: &[&Feature], rows: usize) -> Option<Vec<u64>> {
    let category = group.iter().any(|f| f.codes.is_some() || f.category.is_some());
    let mut counts: HashMap<Vec<u64>, u64> = HashMap::new();
    for row in 0..rows {
        if group.iter().any(|f| f.values[row].is_nan()) {
            continue;
        }
        // Zero has two signs and is one value.
        *counts.entry(group.iter().map(|f| (f.values[row] + 0.0).to_bits()).collect()).or_default() += 1;
        if !category && counts.len() > FEW_VALUES {
            return None;
        }
    }
    Some(counts.into_values().collect())
}

/// Rows by value and by pair of values, for everything in a regression that takes few values: features, label, times, and
/// offset and weights, which are its extra columns. At the coefficients 0 the sums of a regression are these counts, those of pairs included.
pub(crate) fn cells<'a>(frame: &'a Frame, extras: impl Iterator<Item = &'a String>) -> Vec<Vec<u64>> {
    let mut groups: BTreeMap<(u8, &str), Vec<&[f64]>> = BTreeMap::new();
    for feature in &frame.features {
        groups.entry((0, feature.category.as_deref().unwrap_or(&feature.name))).or_default().push(&feature.values);
    }
    groups.insert((1, "label"), vec![&frame.label]);
    if !frame.times.is_empty() {
        groups.insert((1, "time"), vec![&frame.times]);
    }
    for (name, values) in extras.filter_map(|name| frame.extras.get_key_value(name)) {
        groups.insert((2, name), vec![values]);
    }
    let coded: Vec<Coded> = groups.values().filter_map(|group| Coded::new(group, frame.rows())).collect();
    let mut cells: Vec<Vec<u64>> = Vec::new();
    for (index, one) in coded.iter().enumerate() {
        for other in &coded[index..] {
            let mut counts = vec![0u64; one.levels * other.levels];
            one.codes.iter().zip(&other.codes).for_each(|(a, b)| counts[a * other.levels + b] += 1);
            cells.push(counts);
        }
    }
    cells
}

/// Columns that together take few values, by the number of each value.
struct Coded {
    levels: usize,
    codes: Vec<usize>,
}

impl Coded {
    /// `None` where there are many values; those of a category are always counted.
    fn new(group: &[&[f64]], rows: usize) -> Option<Self> {
        let mut known: HashMap<Vec<u64>, usize> = HashMap::new();
        let mut codes = Vec::with_capacity(rows);
        for row in 0..rows {
            let value: Vec<u64> = group.iter().map(|values| (values[row] + 0.0).to_bits()).collect();
            let next = known.len();
            codes.push(*known.entry(value).or_insert(next));
            if group.len() == 1 && known.len() > FEW_VALUES {
                return None;
            }
        }
        Some(Self { levels: known.len(), codes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(name: &str, category: Option<&str>, values: &[f64]) -> Feature {
        let (name, category) = (name.to_owned(), category.map(str::to_owned));
        Feature { name, codes: None, category, bounds: None, values: values.to_vec() }
    }

    #[test]
    fn values_are_counted_where_they_are_few_or_codes() {
        let many: Vec<f64> = (0..12).map(f64::from).collect();
        let frame = Frame {
            label: vec![0.0; 12],
            features: vec![
                feature("many", None, &many),
                feature("sex", None, &[[1.0; 9].as_slice(), &[2.0, 2.0, f64::NAN]].concat()),
                feature("kind_b", Some("kind"), &[[1.0; 4].as_slice(), &[0.0; 8]].concat()),
                feature("kind_c", Some("kind"), &[[0.0; 4].as_slice(), &[1.0; 7], &[-0.0]].concat()),
            ],
            ..Frame::default()
        };
        let mut counts = level_counts(&frame);
        counts.iter_mut().for_each(|levels| levels.sort_unstable());
        // Neither b nor c: the code that has no indicator.
        assert_eq!(counts, [vec![1, 4, 7], vec![2, 9]]);
    }

    #[test]
    fn pairs_of_values_are_counted_with_the_label_and_the_weights() {
        let many: Vec<f64> = (0..12).map(f64::from).collect();
        let half = [[0.0; 6], [1.0; 6]].concat();
        let frame = Frame {
            label: [[1.0; 3], [0.0; 3], [0.0; 3], [0.0; 3]].concat(),
            extras: [("weight".to_owned(), vec![2.0; 12]), ("log_time".to_owned(), many.clone())].into(),
            features: vec![feature("many", None, &many), feature("sex", None, &half)],
            ..Frame::default()
        };
        // sex, sex × label, sex × weight, label, label × weight, weight.
        let wanted = [vec![6, 0, 0, 6], vec![3, 3, 0, 6], vec![6, 6], vec![3, 0, 0, 9], vec![3, 9], vec![12]];
        let own = ["weight", "log_time"].map(str::to_owned);
        assert_eq!(cells(&frame, own.iter()), wanted);
        // Those of another task are not in the sums.
        assert_eq!(cells(&frame, own[1..].iter()).len(), 3);
    }
}
