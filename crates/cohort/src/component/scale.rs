//! Numbers are centred and scaled with what was fitted on the site's own training rows.

use hospes_protocol::plan::{FeatureScale, ScaleMethod};

use super::frame::Frame;
use crate::error::CohortError;

/// x becomes (x − shift) / scale, feature by feature.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ScaleFit {
    shift: Vec<f64>,
    scale: Vec<f64>,
}

pub(crate) fn fit(frame: &Frame, params: &FeatureScale, task: &str) -> Result<ScaleFit, CohortError> {
    let mut fit = ScaleFit { shift: Vec::new(), scale: Vec::new() };
    for feature in &frame.features {
        let (shift, scale) = match (&feature.codes, params.method) {
            (Some(_), _) => (0.0, 1.0),
            (None, ScaleMethod::Standard) => standard(&feature.values)
                .ok_or_else(|| CohortError::AllMissing { task: task.to_owned(), column: feature.name.clone() })?,
            (None, ScaleMethod::Bounds) => {
                let (min, max) = feature.bounds.ok_or_else(|| CohortError::Plan {
                    place: format!("tasks.{task}.params.method"),
                    reason: format!("'{}' has no bounds in data.variables", feature.name),
                })?;
                (min, max - min)
            }
        };
        fit.shift.push(shift);
        fit.scale.push(scale);
    }
    Ok(fit)
}

/// Mean and standard deviation (ddof = 1) of the values that are there; a constant is only centred.
#[allow(clippy::cast_precision_loss)]
fn standard(values: &[f64]) -> Option<(f64, f64)> {
    let present = || values.iter().filter(|v| !v.is_nan());
    let n = present().count();
    if n == 0 {
        return None;
    }
    let mean = present().sum::<f64>() / n as f64;
    let squares = present().map(|v| (v - mean).powi(2)).sum::<f64>();
    let sd = if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 };
    Some((mean, if sd > 1e-12 * mean.abs().max(1e-300) && sd > 0.0 { sd } else { 1.0 }))
}

pub(crate) fn apply(frame: &Frame, fit: &ScaleFit, task: &str) -> Result<Frame, CohortError> {
    if fit.shift.len() != frame.features.len() {
        let reason = "was fitted on other features".to_owned();
        return Err(CohortError::Plan { place: format!("tasks.{task}.inputs.fitted"), reason });
    }
    let mut scaled = frame.clone();
    for ((feature, shift), scale) in scaled.features.iter_mut().zip(&fit.shift).zip(&fit.scale) {
        feature.values.iter_mut().for_each(|v| *v = (*v - shift) / scale);
    }
    Ok(scaled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_has_one_degree_of_freedom_less_and_spares_constants() {
        assert_eq!(standard(&[1.0, 3.0, f64::NAN]), Some((2.0, 2f64.sqrt())));
        assert_eq!(standard(&[0.1, 0.1, 0.1]).map(|(_, sd)| sd), Some(1.0));
        assert_eq!(standard(&[5.0]), Some((5.0, 1.0)));
        assert_eq!(standard(&[f64::NAN]), None);
    }
}
