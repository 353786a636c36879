//! What the plan language can say and no site or coordinator of this version can do yet. A line goes when its code comes.

use super::super::problem::Problems;
use super::super::{Component, Plan};

const NOT_YET: &str = "not available in this version";

/// Notes everything in a plan that is not available yet.
pub(super) fn check(plan: &Plan, problems: &mut Problems) {
    for (name, task) in &plan.tasks {
        if let Component::Glm(_) | Component::Cox(_) = &task.component {
            problems.add(format!("tasks.{name}.component"), NOT_YET);
        }
    }
}
