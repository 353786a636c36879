//! What the plan language can say and no site or coordinator of this version can do yet. A line goes when its code comes.

use super::super::label::LabelKind;
use super::super::problem::Problems;
use super::super::{Component, Plan};

const NOT_YET: &str = "not available in this version";

/// Notes everything in a plan that is not available yet.
pub(super) fn check(plan: &Plan, problems: &mut Problems) {
    let data = &plan.data;
    let is_other = data.label.kind().is_ok_and(|kind| !matches!(kind, LabelKind::YesNo(_)));
    if is_other {
        problems.add("data.label", format!("labels other than yes or no are {NOT_YET}"));
    }
    problems.require(data.image.is_none(), "data.image", NOT_YET);
    for (name, task) in &plan.tasks {
        match &task.component {
            Component::Glm(_) | Component::Cox(_) => problems.add(format!("tasks.{name}.component"), NOT_YET),
            Component::Evaluation(_) | Component::LocalBaseline(_) => {
                let reason = "judging a model of a label other than yes or no is";
                problems.require(!is_other, format!("tasks.{name}.component"), format!("{reason} {NOT_YET}"));
            }
            _ => {}
        }
    }
}
