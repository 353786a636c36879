//! A task: a component with its parameters, and where its inputs come from.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::problem::Problems;
use super::typed::typed;
use super::{Component, Privacy};

/// One node of the graph: a component with its parameters, and where its inputs come from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawTask")]
pub struct Task {
    /// What runs.
    pub component: Component,
    /// Input port → `task` or `task.output`.
    pub inputs: BTreeMap<String, String>,
}

/// A task as it is written: `{ component: name, inputs: {…}, params: {…} }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTask {
    component: String,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    #[serde(default)]
    params: serde_json::Map<String, serde_json::Value>,
}

impl Component {
    /// Name as written in a plan.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reader(_) => "reader",
            Self::Imputation(_) => "imputation",
            Self::OneHot(_) => "one_hot",
            Self::DataSplit(_) => "data_split",
            Self::FeatureScale(_) => "feature_scale",
            Self::Statistics(_) => "statistics",
            Self::NnTrain(_) => "nn_train",
            Self::Evaluation(_) => "evaluation",
            Self::Glm(_) => "glm",
            Self::Cox(_) => "cox",
            Self::LocalBaseline(_) => "local_baseline",
        }
    }

    /// Rounds that this component takes over the network; 0 for one that stays at the site.
    pub fn rounds(&self) -> u32 {
        match self {
            Self::NnTrain(train) => train.rounds,
            Self::Glm(glm) => glm.newton.rounds,
            // One more for what leaves once, after the fit.
            Self::Cox(cox) => cox.newton.rounds.saturating_add(1),
            Self::Statistics(_) | Self::Evaluation(_) | Self::LocalBaseline(_) => 1,
            Self::Reader(_) | Self::Imputation(_) | Self::OneHot(_) | Self::DataSplit(_) | Self::FeatureScale(_) => 0,
        }
    }

    /// How what it sends travels; `None` for one that sends nothing.
    pub fn privacy(&self) -> Option<&Privacy> {
        match self {
            Self::NnTrain(train) => Some(&train.privacy),
            Self::Statistics(statistics) => Some(&statistics.privacy),
            Self::Evaluation(evaluation) => Some(&evaluation.privacy),
            Self::Glm(glm) => Some(&glm.privacy),
            Self::Cox(cox) => Some(&cox.privacy),
            Self::LocalBaseline(baseline) => Some(&baseline.privacy),
            Self::Reader(_) | Self::Imputation(_) | Self::OneHot(_) | Self::DataSplit(_) | Self::FeatureScale(_) => {
                None
            }
        }
    }

    /// Whether what it sends is masked.
    pub fn is_masked(&self) -> bool {
        self.privacy() == Some(&Privacy::SecureAggregation {})
    }

    /// Whether it sends figures, and no update of a model.
    pub fn reports_figures(&self) -> bool {
        self.rounds() > 0 && !matches!(self, Self::NnTrain(_))
    }
}

impl TryFrom<RawTask> for Task {
    type Error = String;
    fn try_from(raw: RawTask) -> Result<Self, String> {
        let component = serde_json::json!({ "component": raw.component, "params": raw.params });
        let component = serde_json::from_value(component).map_err(|e| e.to_string())?;
        Ok(Self { component, inputs: raw.inputs })
    }
}

/// Written by hand, not through a JSON value: that would turn NaN into null, and the canonical form must see and refuse
/// it.
impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut task = serializer.serialize_struct("Task", 3)?;
        task.serialize_field("component", self.component.name())?;
        task.serialize_field("inputs", &self.inputs)?;
        match &self.component {
            Component::Reader(params) => task.serialize_field("params", params),
            Component::Imputation(params) => task.serialize_field("params", params),
            Component::OneHot(params) => task.serialize_field("params", params),
            Component::DataSplit(params) => task.serialize_field("params", params),
            Component::FeatureScale(params) => task.serialize_field("params", params),
            Component::Statistics(params) => task.serialize_field("params", params),
            Component::NnTrain(params) => task.serialize_field("params", params),
            Component::Evaluation(params) => task.serialize_field("params", params),
            Component::Glm(params) => task.serialize_field("params", params),
            Component::Cox(params) => task.serialize_field("params", params),
            Component::LocalBaseline(params) => task.serialize_field("params", params),
        }?;
        task.end()
    }
}

/// Names of all components.
pub(super) const COMPONENTS: [&str; 11] = [
    "reader",
    "imputation",
    "one_hot",
    "data_split",
    "feature_scale",
    "statistics",
    "nn_train",
    "evaluation",
    "glm",
    "cox",
    "local_baseline",
];

/// Reads the parameters of the component with this name.
pub(super) fn component(name: &str, place: &str, params: Value, problems: &mut Problems) -> Option<Component> {
    Some(match name {
        "reader" => Component::Reader(typed(place, params, problems)?),
        "imputation" => Component::Imputation(typed(place, params, problems)?),
        "one_hot" => Component::OneHot(typed(place, params, problems)?),
        "data_split" => Component::DataSplit(typed(place, params, problems)?),
        "feature_scale" => Component::FeatureScale(typed(place, params, problems)?),
        "statistics" => Component::Statistics(typed(place, params, problems)?),
        "nn_train" => Component::NnTrain(typed(place, params, problems)?),
        "evaluation" => Component::Evaluation(typed(place, params, problems)?),
        "glm" => Component::Glm(typed(place, params, problems)?),
        "cox" => Component::Cox(typed(place, params, problems)?),
        "local_baseline" => Component::LocalBaseline(typed(place, params, problems)?),
        _ => return None,
    })
}
