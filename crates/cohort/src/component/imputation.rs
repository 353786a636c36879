//! Missing values are dropped or filled.

use std::collections::BTreeSet;

use hospes_protocol::plan::ImputationMethod;

use super::frame::Frame;
use crate::error::CohortError;

/// What to put in place of a missing value, feature by feature: nothing for a category. `None` where rows are dropped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImputationFit {
    fill: Option<Vec<Option<f64>>>,
}

pub(crate) fn fit(frame: &Frame, method: &ImputationMethod, task: &str) -> Result<ImputationFit, CohortError> {
    let each = |of: &dyn Fn(&[f64]) -> Option<f64>| {
        let fill = frame.features.iter().map(|feature| {
            if feature.codes.is_some() {
                return Ok(None);
            }
            let present: Vec<f64> = feature.values.iter().copied().filter(|v| !v.is_nan()).collect();
            let all_missing = || CohortError::AllMissing { task: task.to_owned(), column: feature.name.clone() };
            of(&present).ok_or_else(all_missing).map(Some)
        });
        fill.collect::<Result<Vec<Option<f64>>, CohortError>>()
    };
    let fill = match method {
        ImputationMethod::DropRows => None,
        ImputationMethod::Mean => Some(each(&mean)?),
        ImputationMethod::Median => Some(each(&median)?),
        ImputationMethod::Constant(value) => Some(each(&|_: &[f64]| Some(*value))?),
    };
    Ok(ImputationFit { fill })
}

/// The table without missing numbers, or without the rows in which anything is missing; of these also those without one of
/// the columns that later tasks need.
pub(crate) fn apply(
    frame: &Frame,
    fit: &ImputationFit,
    task: &str,
    needed: &BTreeSet<&String>,
) -> Result<Frame, CohortError> {
    match &fit.fill {
        None => drop_rows(frame, task, needed),
        Some(fill) => Ok(filled(frame.clone(), fill)),
    }
}

/// The table with missing features filled, and all its rows: one that would be dropped loses its label instead, so that no
/// later step makes a complete row of it.
pub(crate) fn fill(mut frame: Frame, fit: &ImputationFit) -> Frame {
    if let Some(fill) = &fit.fill {
        return filled(frame, fill);
    }
    for row in 0..frame.rows() {
        if !frame.is_complete(row, &BTreeSet::new()) {
            frame.label[row] = f64::NAN;
        }
    }
    frame
}

fn filled(mut frame: Frame, fill: &[Option<f64>]) -> Frame {
    for (feature, value) in frame.features.iter_mut().zip(fill) {
        let Some(value) = value else { continue };
        feature.values.iter_mut().filter(|v| v.is_nan()).for_each(|v| *v = *value);
    }
    frame
}

fn drop_rows(frame: &Frame, task: &str, needed: &BTreeSet<&String>) -> Result<Frame, CohortError> {
    let rows: Vec<usize> = (0..frame.rows()).filter(|row| frame.is_complete(*row, needed)).collect();
    if rows.is_empty() {
        let empty = frame.features.iter().filter(|f| f.missing() == frame.rows());
        let empty_columns = empty.map(|f| f.name.clone()).collect();
        return Err(CohortError::NoRowsLeft { task: task.to_owned(), empty_columns });
    }
    Ok(frame.take(&rows))
}

#[allow(clippy::cast_precision_loss)]
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some((sorted[sorted.len() / 2 - 1] + upper) / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::Feature;

    #[test]
    fn a_row_that_training_would_drop_is_not_completed_by_a_later_step() {
        let values = vec![1.0, f64::NAN];
        let feature = Feature { name: "x".into(), codes: None, category: None, bounds: None, values };
        let frame = Frame { features: vec![feature], label: vec![0.0; 2], ..Frame::default() };
        let dropping = fill(frame, &ImputationFit { fill: None });
        let filled = fill(dropping, &ImputationFit { fill: Some(vec![Some(5.0)]) });
        assert_eq!(filled.features[0].values, [1.0, 5.0]);
        assert_eq!([0, 1].map(|row| filled.is_complete(row, &BTreeSet::new())), [true, false]);
    }

    #[test]
    fn numbers_are_filled_and_categories_are_left_alone() {
        let feature = |name: &str, codes: Option<Vec<String>>, values: &[f64]| Feature {
            name: name.to_owned(),
            codes,
            category: None,
            bounds: None,
            values: values.to_vec(),
        };
        let codes = || Some(vec!["a".to_owned(), "b".to_owned()]);
        let features = vec![
            feature("age", None, &[f64::NAN, 2.0, 4.0]),
            feature("ward", codes(), &[1.0, f64::NAN, 0.0]),
            // Nobody has one: there is nothing to learn, and nothing to fill.
            feature("bed", codes(), &[f64::NAN; 3]),
        ];
        let frame = Frame { features, label: vec![0.0; 3], ..Frame::default() };
        for (method, filled) in [(ImputationMethod::Mean, 3.0), (ImputationMethod::Constant(-1.0), -1.0)] {
            let fit = fit(&frame, &method, "fill").unwrap();
            let full = apply(&frame, &fit, "fill", &BTreeSet::new()).unwrap();
            assert_eq!(full.features[0].values, [filled, 2.0, 4.0]);
            assert_eq!(full.features.iter().map(Feature::missing).collect::<Vec<_>>(), [0, 1, 3]);
            assert_eq!((full.features[1].values[0], full.features[1].values[2]), (1.0, 0.0));
        }
    }

    #[test]
    fn mean_and_median_of_nothing_are_nothing() {
        assert_eq!((mean(&[]), median(&[])), (None, None));
        assert_eq!((mean(&[1.0, 2.0, 6.0]), median(&[6.0, 1.0, 2.0])), (Some(3.0), Some(2.0)));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
