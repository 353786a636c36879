//! What can be known without data about a regression.

use super::super::label::LabelKind;
use super::super::model::Inputs;
use super::super::problem::Problems;
use super::super::regress::{Cox, Family, Glm, Newton};
use super::super::{Plan, Variable};
use super::check_count;
use crate::{limits, text};

pub(super) fn check_glm(plan: &Plan, name: &str, glm: &Glm, inputs: Inputs, problems: &mut Problems) {
    let params = format!("tasks.{name}.params");
    check_common(&params, &glm.newton, glm.confidence, inputs, problems);
    let (fits, wanted) = match (glm.family, plan.data.label.kind()) {
        (_, Err(_)) => return,
        (Family::Binomial, Ok(kind)) => (matches!(kind, LabelKind::YesNo(_)), "a label with data.label.positive"),
        (Family::Gaussian | Family::Poisson, Ok(kind)) => (kind == LabelKind::Number, "a number as label"),
    };
    problems.require(fits, format!("{params}.family"), format!("needs {wanted}"));
    for (field, column) in [("offset", &glm.offset), ("weights", &glm.weights)] {
        let Some(column) = column else { continue };
        let place = format!("{params}.{field}");
        if let Err(reason) = text::check_name(column) {
            problems.add(&place, format!("the column's name {reason}"));
        }
        let data = &plan.data;
        let taken =
            data.columns.contains(column) || data.label.columns().any(|c| c == column) || data.subject == *column;
        problems.require(!taken, &place, format!("'{column}' is a feature, the label or the subject"));
        let number = !matches!(data.variables.get(column), Some(Variable::Category { .. }));
        problems.require(number, &place, format!("'{column}' is a category, and must be a number"));
    }
    if glm.offset.is_some() && glm.offset == glm.weights {
        problems.add(format!("{params}.weights"), "is the column of the offset too");
    }
}

pub(super) fn check_cox(plan: &Plan, name: &str, cox: &Cox, inputs: Inputs, problems: &mut Problems) {
    let params = format!("tasks.{name}.params");
    check_common(&params, &cox.newton, cox.confidence, inputs, problems);
    if let Ok(kind) = plan.data.label.kind() {
        let fits = matches!(kind, LabelKind::Survival(_));
        let reason = format!("the label is {}; cox needs data.label.time and data.label.positive", kind.words());
        problems.require(fits, format!("tasks.{name}"), reason);
    }
    if let Some(grid) = &cox.time_grid {
        let good = grid.width > 0.0 && grid.width.is_finite();
        problems.require(good, format!("{params}.time_grid.width"), format!("is {}; it must be above 0", grid.width));
        check_count(format!("{params}.time_grid.intervals"), grid.intervals, limits::TIME_INTERVALS, problems);
    }
}

fn check_common(params: &str, newton: &Newton, confidence: f64, inputs: Inputs, problems: &mut Problems) {
    check_count(format!("{params}.newton.rounds"), newton.rounds, limits::NEWTON_ROUNDS, problems);
    let good = newton.tolerance > 0.0 && newton.tolerance <= limits::NEWTON_TOLERANCE;
    let reason = format!("is {}; it must be above 0 and at most {}", newton.tolerance, limits::NEWTON_TOLERANCE);
    problems.require(good, format!("{params}.newton.tolerance"), reason);
    let good = confidence > 0.0 && confidence < 1.0;
    problems.require(good, format!("{params}.confidence"), format!("is {confidence}; it must lie between 0 and 1"));
    // One is left for the intercept.
    let (count, most) = (inputs.features, limits::COEFFICIENTS - 1);
    problems.require(count <= most, params, format!("{count} features, more than the {most} allowed"));
    problems.require(inputs.image.is_none(), params, "a regression is fitted on features; the plan has an image");
}
