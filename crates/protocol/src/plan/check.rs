//! Everything that can be known about a plan without data, and where exactly it is wrong.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::TensorShape;
use super::{NnTrain, Plan};
use crate::policy::EgressKind;

/// One thing wrong with a plan: the place, what is wrong, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Place, such as `tasks.scale.inputs.data`.
    pub place: String,
    /// What is wrong, and a remedy where one is known.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// A plan that was refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PlanError {
    /// At least one problem, in the order of the plan.
    pub problems: Vec<Problem>,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// A feature that reaches the model: its name after `one_hot`, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Name, such as `age` or `cp_2`.
    pub name: String,
}

/// Something that leaves the site when the plan runs, as the reviewer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Task that sends it.
    pub task: String,
    /// Its kind, which the policy allows or not.
    pub kind: EgressKind,
    /// Its name, such as `0.weight` or `confusion matrix`.
    pub name: String,
    /// Shape of a tensor, or the number of figures.
    pub shape: Vec<u64>,
    /// Bytes each time.
    pub bytes: u64,
    /// How many times in one run.
    pub times: u32,
    /// To whom.
    pub to: String,
}

/// One figure of a report: a name and the number of values under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Name, such as `confusion`.
    pub name: &'static str,
    /// Number of values.
    pub values: u64,
    /// Kind for the policy.
    pub kind: EgressKind,
}

/// Reads a plan from YAML or JSON, fills in the defaults and checks it.
///
/// # Errors
/// [`PlanError`] lists everything that is wrong, each with its place.
pub fn read(_text: &str) -> Result<Plan, PlanError> {
    Err(PlanError { problems: Vec::new() })
}

/// Checks a typed plan: the graph, ports and types, columns, shapes, numbers, limits.
///
/// # Errors
/// [`PlanError`] lists everything that is wrong, each with its place.
pub fn check(_plan: &Plan) -> Result<(), PlanError> {
    Ok(())
}

/// Every column of the data that the plan reads: subject, label, features, fold.
pub fn columns_read(plan: &Plan) -> BTreeSet<String> {
    plan.data.columns.iter().cloned().collect()
}

/// The features that reach the task's model, in order.
pub fn features(_plan: &Plan, _task: &str) -> Vec<Feature> {
    Vec::new()
}

/// Tensors of an update of this training task, in order.
pub fn tensors(_train: &NnTrain, _inputs: u64) -> Vec<TensorShape> {
    Vec::new()
}

/// What leaves a site in one run, item by item.
pub fn egress(_plan: &Plan) -> Vec<Egress> {
    Vec::new()
}

/// JSON Schema of plan files, pretty-printed.
pub fn json_schema() -> String {
    String::new()
}
