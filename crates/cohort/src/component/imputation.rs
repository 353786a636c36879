//! Missing values are dropped or filled.

use std::collections::BTreeSet;

use hospes_protocol::plan::ImputationMethod;

use super::frame::Frame;
use crate::error::CohortError;

/// What to put in place of a missing value, feature by feature; nothing for rows that are dropped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImputationFit {
    fill: Option<Vec<f64>>,
}

pub(crate) fn fit(frame: &Frame, method: &ImputationMethod, task: &str) -> Result<ImputationFit, CohortError> {
    let each = |of: &dyn Fn(&[f64]) -> Option<f64>| {
        let fill = frame.features.iter().map(|feature| {
            let present: Vec<f64> = feature.values.iter().copied().filter(|v| !v.is_nan()).collect();
            of(&present).ok_or_else(|| CohortError::AllMissing { task: task.to_owned(), column: feature.name.clone() })
        });
        fill.collect::<Result<Vec<f64>, _>>()
    };
    let fill = match method {
        ImputationMethod::DropRows => None,
        ImputationMethod::Mean => Some(each(&mean)?),
        ImputationMethod::Median => Some(each(&median)?),
        ImputationMethod::Constant(value) => Some(vec![*value; frame.features.len()]),
    };
    Ok(ImputationFit { fill })
}

/// The table without missing features; where rows are dropped, those without one of the columns that later tasks need go
/// too.
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

/// The table with missing features filled; where rows with one would be dropped, as it is.
pub(crate) fn fill(frame: Frame, fit: &ImputationFit) -> Frame {
    match &fit.fill {
        None => frame,
        Some(fill) => filled(frame, fill),
    }
}

fn filled(mut frame: Frame, fill: &[f64]) -> Frame {
    for (feature, value) in frame.features.iter_mut().zip(fill) {
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

    #[test]
    fn mean_and_median_of_nothing_are_nothing() {
        assert_eq!((mean(&[]), median(&[])), (None, None));
        assert_eq!((mean(&[1.0, 2.0, 6.0]), median(&[6.0, 1.0, 2.0])), (Some(3.0), Some(2.0)));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
