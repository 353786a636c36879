//! The plan language: what a researcher asks the sites to compute. A plan is data, never code.
//!
//! [`Plan`] is the typed form. [`read`] reads the YAML or JSON that a person wrote, fills in the defaults, checks
//! everything that can be known without data, and says exactly where something is wrong. The canonical bytes of the
//! result are what is signed, hashed and sent; sites read only those.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canon::Document;

mod check;
mod columns;
mod dp;
mod egress;
mod graph;
mod label;
mod layer;
pub mod masks;
pub mod model;
mod preset;
mod problem;
mod read;
mod regress;
mod schema;
mod select;
mod task;
mod train;
mod tree;
mod typed;
mod update;

pub use check::check;
pub use columns::{Feature, Subgroups, columns_read, features, inputs, needed_behind, predictors, subgroups};
pub use dp::{Dp, DpMode, DpNoise, with_dp, without_dp};
pub use egress::{
    CHUNK_ENTRIES, CHUNK_HEAD_BYTES, Egress, Figure, ROW_WEIGHT_BYTES, SCORE_BINS, check_figures, egress, figure,
    figures, figures_of_whole, round_figures,
};
pub use graph::{
    Input, PortType, Source, ancestors, order, predecessors, preparation, rows_at, source, subjects_at_most, trained_by,
};
pub use label::{Comparison, LabelKind, code};
pub use layer::{
    BatchNorm, Conv, Dropout, Embedding, Graph, GroupNorm, Init, Layer, Linear, Model, Node, Pool, Reshape,
};
pub use problem::{PlanError, Problem};
pub use read::read;
pub(crate) use read::{read_part, read_text, read_tree};
pub use regress::{Coefficients, Cox, Family, Glm, INTERCEPT, Newton, Ties, TimeGrid, triangle};
pub use schema::json_schema;
pub(crate) use schema::pretty as pretty_schema;
pub use select::Select;
pub use task::Task;
pub use train::{
    Adaptive, Augment, BestSoFar, EarlyStop, LocalBaseline, LocalWork, Loss, NnTrain, Optimizer, Privacy, Quantise,
    Schedule, Sees, Start, Strategy,
};
pub use update::{
    CONTROL, Part, VALIDATION_LOSS, initial, initial_kept, kept, model_tensors, parts, starting_seed, tensors,
    update_tensors,
};

/// A study's computation: parties, data and a directed acyclic graph of components.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Always `hospes/plan/v1`.
    pub schema: PlanSchema,
    /// Short name, for people.
    pub name: String,
    /// Who takes part.
    #[serde(default)]
    pub parties: Parties,
    /// Variables that the computation needs.
    pub data: DataNeeds,
    /// Seed of everything random in the run.
    #[serde(default)]
    pub seed: u64,
    /// Tasks by name; inputs make the graph.
    pub tasks: BTreeMap<String, Task>,
}

impl Document for Plan {
    const KIND: &'static str = "plan";
    const VERSION: u32 = 1;
}

/// The `schema` field of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PlanSchema {
    /// Version 1.
    #[serde(rename = "hospes/plan/v1")]
    V1,
}

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parties {
    /// Site selectors: `site:*`, or `site:<name>`.
    pub members: Vec<String>,
}

impl Default for Parties {
    fn default() -> Self {
        Self { members: vec!["site:*".to_owned()] }
    }
}

/// Variables that the computation needs. Columns not named here are never read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataNeeds {
    /// Column that tells patients apart.
    pub subject: String,
    /// What is predicted.
    pub label: Label,
    /// Features, in this order; none where the model sees images only.
    #[serde(default)]
    pub columns: Vec<String>,
    /// An image in each row. Its pixels come to the model as numbers from 0 to 1.
    #[serde(default)]
    pub image: Option<Image>,
    /// What is known of single columns (features and others such as the fold); those not named are numbers.
    #[serde(default)]
    pub variables: BTreeMap<String, Variable>,
}

/// What is predicted: a column, and how its values are read. With `positive` it is yes or no, with `classes` one of
/// several, with `time` a time to an event; with none of them a number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Column of the outcome; with `time`, the column that tells whether the event was seen.
    pub column: String,
    /// Which values are positive (with `time`: an event), as a comparison with a number: `"> 0"`, `"== 1"`.
    #[serde(default)]
    pub positive: Option<String>,
    /// The codes of the classes, in the order of the model's outputs.
    #[serde(default)]
    #[schemars(schema_with = "schema::codes")]
    pub classes: Vec<String>,
    /// Column of the time until the event or the end of observation.
    #[serde(default)]
    pub time: Option<String>,
}

/// An image in each row, of the same size in all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its column.
    pub column: String,
    /// Channels: 1 for grey, 3 for colour.
    pub channels: u32,
    /// Rows of pixels.
    pub height: u32,
    /// Pixels in a row.
    pub width: u32,
}

/// Type of a column, as the study's data dictionary gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Variable {
    /// A number, optionally within bounds.
    Number {
        /// Smallest plausible value.
        #[serde(default)]
        min: Option<f64>,
        /// Largest plausible value.
        #[serde(default)]
        max: Option<f64>,
        /// Unit, for people.
        #[serde(default)]
        unit: Option<String>,
    },
    /// One of a fixed list of codes, in this order. Codes are compared as text after trimming; `1.0` reads as `1`.
    Category {
        /// The codes.
        #[schemars(schema_with = "schema::codes")]
        codes: Vec<String>,
    },
}

impl Default for Variable {
    fn default() -> Self {
        Self::Number { min: None, max: None, unit: None }
    }
}

/// The components of this version. Each is a fixed piece of code at the site; a plan only sets its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "component", content = "params", rename_all = "snake_case", deny_unknown_fields)]
pub enum Component {
    /// Reads the approved columns of the approved snapshot. Outputs: `data`.
    Reader(Reader),
    /// Fills or drops missing values. Inputs: `data`, or `data` and `fitted`. Outputs: `data`, `fitted`.
    Imputation(Imputation),
    /// Turns categories into indicator columns. Inputs: `data`. Outputs: `data`.
    OneHot(OneHot),
    /// Splits rows. Inputs: `data`. Outputs: `train`, `test`.
    DataSplit(DataSplit),
    /// Centres and scales numeric features. Inputs: `data`, or `data` and `fitted`. Outputs: `data`, `fitted`.
    FeatureScale(FeatureScale),
    /// Counts, means and spreads of the features, as sums over sites. Inputs: `data`. Outputs: `statistics`. Federated,
    /// one round.
    Statistics(Statistics),
    /// Trains a network in rounds. Inputs: `train`, optional `validate`. Outputs: `model`. Federated.
    NnTrain(Box<NnTrain>),
    /// Evaluates a model. Inputs: `model`, `data`. Outputs: `metrics`. Federated, one round.
    Evaluation(Evaluation),
    /// Fits a generalised linear model in rounds. Inputs: `train`. Outputs: `model`, `fit`. Federated.
    Glm(Glm),
    /// Fits Cox's proportional hazards model in rounds. Inputs: `train`. Outputs: `fit`. Federated.
    Cox(Cox),
    /// Trains the same model on this site's rows alone and evaluates it here. Inputs: `train`, `data`. Outputs:
    /// `metrics`. Federated, one round.
    LocalBaseline(LocalBaseline),
}

/// Parameters of `reader`: none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reader {}

/// Parameters of `imputation`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Imputation {
    /// What happens to a missing value.
    pub method: ImputationMethod,
}

/// What happens to a missing value. A category is never filled: only `drop_rows` deals with a missing one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ImputationMethod {
    /// The row is left out.
    #[default]
    DropRows,
    /// The site's own mean of the column (numbers).
    Mean,
    /// The site's own median of the column (numbers).
    Median,
    /// This number.
    Constant(f64),
}

/// Parameters of `one_hot`. The columns must be categories with codes in `data.variables`, so that the number of
/// features is known from the plan alone and the same at every site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OneHot {
    /// Columns to expand; each becomes `<column>_<code>`, appended after the other features in this order.
    pub columns: Vec<String>,
    /// Which indicator is left out.
    #[serde(default)]
    pub drop: DropLevel,
}

/// Which indicator is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropLevel {
    /// None.
    #[default]
    None,
    /// That of the first code.
    First,
}

/// Parameters of `data_split`: exactly one of the two ways.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataSplit {
    /// A column with the values `train` and `test`; rows with any other value are left out.
    pub by_column: Option<String>,
    /// Fraction of the subjects that go to `test`, drawn by seed; all rows of a subject go together.
    pub test_fraction: Option<f64>,
}

/// Parameters of `feature_scale`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FeatureScale {
    /// How values are scaled.
    pub method: ScaleMethod,
    /// Whose rows the scale is fitted on.
    pub scope: ScaleScope,
}

/// How values are scaled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleMethod {
    /// Mean 0, standard deviation 1 (ddof = 1); a constant column is only centred.
    #[default]
    Standard,
    /// From 0 to 1 within the bounds of `data.variables`.
    Bounds,
}

/// Whose rows the scale is fitted on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleScope {
    /// Each site's own.
    #[default]
    Site,
}

/// Parameters of `statistics`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Statistics {
    /// How its figures travel.
    // Not written where it is the default: plans from before there was one keep their bytes and their digest.
    #[serde(skip_serializing_if = "Privacy::is_plain")]
    pub privacy: Privacy,
}

/// Parameters of `evaluation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Evaluation {
    /// Score from which a row counts as predicted positive.
    pub threshold: f64,
    /// Bins of the calibration curve.
    pub calibration_bins: u32,
    /// A category; everything is reported for the rows of each of its codes as well.
    pub subgroup: Option<String>,
    /// How its figures travel.
    // Not written where it is the default: plans from before there was one keep their bytes and their digest.
    #[serde(skip_serializing_if = "Privacy::is_plain")]
    pub privacy: Privacy,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self { threshold: 0.5, calibration_bins: 10, subgroup: None, privacy: Privacy::Plain {} }
    }
}
