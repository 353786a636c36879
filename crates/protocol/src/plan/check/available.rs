//! What the plan language can say and no site or coordinator of this version can do yet. A line goes when its code comes.

use super::super::problem::Problems;
use super::super::regress::Family;
use super::super::{Component, Plan, graph};

const NOT_YET: &str = "not available in this version";

/// Notes everything in a plan that is not available yet.
pub(super) fn check(plan: &Plan, problems: &mut Problems) {
    for (name, task) in &plan.tasks {
        if let Component::Evaluation(_) = &task.component {
            check_judged(plan, name, problems);
        }
    }
}

/// An evaluation knows nothing of an offset, and judges regressions of what says yes or no.
fn check_judged(plan: &Plan, name: &str, problems: &mut Problems) {
    let source = graph::source(plan, &plan.tasks[name], "model").and_then(|source| plan.tasks.get(source.task));
    let Some(Component::Glm(glm)) = source.map(|task| &task.component) else { return };
    let place = format!("tasks.{name}.inputs.model");
    problems.require(glm.offset.is_none(), &place, format!("judging a model with an offset is {NOT_YET}"));
    let binomial = glm.family == Family::Binomial;
    problems.require(binomial, place, format!("judging a regression that is not binomial is {NOT_YET}"));
}
