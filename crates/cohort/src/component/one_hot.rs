//! Categories become indicators, by the codes of the plan, so that every site has the same features.

use hospes_protocol::plan::{DropLevel, OneHot};

use super::frame::{Feature, Frame};
use crate::error::CohortError;

pub(crate) fn apply(frame: &Frame, params: &OneHot, task: &str) -> Result<Frame, CohortError> {
    let mut expanded = frame.clone();
    for column in &params.columns {
        let wrong = |reason: &str| CohortError::Plan {
            place: format!("tasks.{task}.params.columns"),
            reason: format!("'{column}' {reason}"),
        };
        let at =
            expanded.features.iter().position(|f| f.name == *column).ok_or_else(|| wrong("does not arrive here"))?;
        let feature = expanded.features.remove(at);
        let codes = feature.codes.ok_or_else(|| wrong("has no codes"))?;
        let dropped = usize::from(params.drop == DropLevel::First);
        for (index, code) in codes.iter().enumerate().skip(dropped) {
            #[allow(clippy::cast_precision_loss)]
            let wanted = index as f64;
            let indicator = |v: &f64| if v.is_nan() { f64::NAN } else { f64::from(u8::from(*v == wanted)) };
            expanded.features.push(Feature {
                name: format!("{column}_{code}"),
                codes: None,
                category: Some(column.clone()),
                bounds: Some((0.0, 1.0)),
                values: feature.values.iter().map(indicator).collect(),
            });
        }
    }
    Ok(expanded)
}
