//! Parameters of the regressions that hospitals publish: generalised linear models and Cox's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layer::{Init, Layer, Linear, Model};
use super::model::TensorShape;
use super::train::Privacy;
use super::{Component, Plan};

/// Parameters of `glm`: a generalised linear model, fitted by Newton steps on sums over sites (iteratively reweighted
/// least squares; McCullagh, Nelder 1989). It gives the coefficients of the fit on all rows together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Glm {
    /// Distribution of the label, with its canonical link.
    pub family: Family,
    /// Whether there is an intercept.
    #[serde(default = "yes")]
    pub intercept: bool,
    /// Column that is added to the linear predictor with the coefficient 1, such as the logarithm of an exposure.
    #[serde(default)]
    pub offset: Option<String>,
    /// Column of the rows' weights.
    #[serde(default)]
    pub weights: Option<String>,
    /// When it ends.
    #[serde(default)]
    pub newton: Newton,
    /// Level of the confidence intervals.
    #[serde(default = "level")]
    pub confidence: f64,
    /// How its sums travel.
    // Not written where it is the default: plans from before there was one keep their bytes and their digest.
    #[serde(default, skip_serializing_if = "Privacy::is_plain")]
    pub privacy: Privacy,
}

/// Distribution of the label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// A number; identity link.
    Gaussian,
    /// Yes or no; logit link.
    Binomial,
    /// A count; log link.
    Poisson,
}

/// Parameters of `cox`: the proportional hazards model (Cox 1972), stratified by site: each site has a baseline hazard
/// of its own. Once it is fitted, its last round asks for the pairs of Harrell's C and the time grid at the coefficients
/// that were found, and for nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cox {
    /// What is done with events at the same time.
    #[serde(default)]
    pub ties: Ties,
    /// Width of the intervals over which the pooled baseline hazard is reported; left out: it is not.
    #[serde(default)]
    pub time_grid: Option<TimeGrid>,
    /// When it ends.
    #[serde(default)]
    pub newton: Newton,
    /// Level of the confidence intervals.
    #[serde(default = "level")]
    pub confidence: f64,
    /// How its sums travel.
    // Not written where it is the default: plans from before there was one keep their bytes and their digest.
    #[serde(default, skip_serializing_if = "Privacy::is_plain")]
    pub privacy: Privacy,
}

/// Intervals of time, coarse enough that a count in one tells of nobody.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeGrid {
    /// Length of one interval, in the unit of the time column.
    pub width: f64,
    /// Number of intervals; later events are left out of the baseline.
    pub intervals: u32,
}

/// What is done with events at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// Efron 1977.
    #[default]
    Efron,
    /// Breslow 1974.
    Breslow,
}

/// When Newton's method ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Newton {
    /// Most rounds.
    pub rounds: u32,
    /// It ends when the largest step, in standard errors, is below this, and these have settled; at most 1e-5.
    pub tolerance: f64,
}

impl Default for Newton {
    fn default() -> Self {
        Self { rounds: 25, tolerance: 1e-6 }
    }
}

fn yes() -> bool {
    true
}

fn level() -> f64 {
    0.95
}

impl Glm {
    /// The fitted model as layers, for an evaluation: without the link, which the loss applies.
    pub fn model(&self) -> Model {
        let linear = Linear { out: 1, bias: self.intercept, init: Init::default() };
        Model::Layers(vec![Layer::Linear(linear)])
    }
}

/// Name of the intercept among the coefficients; no feature can be written so.
pub const INTERCEPT: &str = "(intercept)";
/// What the names of the tensors end with that hold what an `f32` leaves of a coefficient.
const REST: &str = ".rest";

/// The coefficients of a `glm` or `cox` task in order, and how they travel: a file holds each as the sum of two `f32`
/// (Dekker 1971), so that sites compute at the point that the coordinator means, to 48 bits, and the last step is no
/// longer than what double precision leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coefficients {
    /// Names: [`INTERCEPT`] first, if there is one, then the features.
    pub names: Vec<String>,
    /// Whether the first is the intercept.
    pub intercept: bool,
}

impl Coefficients {
    /// Those of a task; `None` for a task that is no regression.
    pub fn of(plan: &Plan, task: &str) -> Option<Self> {
        let intercept = match &plan.tasks.get(task)?.component {
            Component::Glm(glm) => glm.intercept,
            Component::Cox(_) => false,
            _ => return None,
        };
        let features = super::features(plan, task).into_iter().map(|feature| feature.name);
        Some(Self { names: intercept.then(|| INTERCEPT.to_owned()).into_iter().chain(features).collect(), intercept })
    }

    /// Number of coefficients.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Tensors of the model that a `glm` ends with: those of [`Glm::model`].
    pub fn model_tensors(&self) -> Vec<TensorShape> {
        let features = (self.len() - usize::from(self.intercept)) as u64;
        let mut list = vec![TensorShape { name: "0.weight".to_owned(), shape: vec![features, 1] }];
        if self.intercept {
            list.push(TensorShape { name: "0.bias".to_owned(), shape: vec![1] });
        }
        list
    }

    /// Tensors of the file that a round starts from: the model's, then what is left of each.
    pub fn tensors(&self) -> Vec<TensorShape> {
        let model = self.model_tensors();
        let rest = model.iter().map(|t| TensorShape { name: format!("{}{REST}", t.name), shape: t.shape.clone() });
        model.iter().cloned().chain(rest).collect()
    }

    /// Values of [`Coefficients::model_tensors`], one after the other.
    pub fn model_values(&self, values: &[f64]) -> Vec<f32> {
        self.in_file(values).map(narrow).collect()
    }

    /// Values of [`Coefficients::tensors`], one after the other.
    pub fn file_values(&self, values: &[f64]) -> Vec<f32> {
        let rest = self.in_file(values).map(|value| narrow(value - f64::from(narrow(value))));
        self.in_file(values).map(narrow).chain(rest).collect()
    }

    /// The coefficients in such a file; `None` if it has another number of values.
    pub fn from_file(&self, values: &[f32]) -> Option<Vec<f64>> {
        if values.len() != 2 * self.len() {
            return None;
        }
        let (high, low) = values.split_at(self.len());
        let mut joined: Vec<f64> = high.iter().zip(low).map(|(h, l)| f64::from(*h) + f64::from(*l)).collect();
        joined.rotate_right(usize::from(self.intercept));
        Some(joined)
    }

    /// The weights first, then the bias, as a model has them.
    fn in_file<'a>(&self, values: &'a [f64]) -> impl Iterator<Item = f64> + use<'a> {
        let (first, rest) = values.split_at(usize::from(self.intercept).min(values.len()));
        rest.iter().chain(first).copied()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what is cut off travels beside it")]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// Number of entries of the upper triangle of a symmetric matrix of this order.
pub const fn triangle(order: u64) -> u64 {
    order.saturating_mul(order.saturating_add(1)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_survive_the_file_to_48_bits() {
        for intercept in [true, false] {
            let names = ["a", "b", "c"].map(str::to_owned).to_vec();
            let coefficients = Coefficients { names, intercept };
            let values = [-41.123_456_789_012_345, 1.0 / 3.0, 1e-9];
            let file = coefficients.file_values(&values);
            assert_eq!(file.len() as u64, coefficients.tensors().iter().map(TensorShape::len).sum::<u64>());
            for (found, value) in coefficients.from_file(&file).unwrap().iter().zip(values) {
                assert!((found - value).abs() <= value.abs() * 2f64.powi(-47), "{found} {value}");
            }
            let last = coefficients.model_values(&values)[2];
            assert!((f64::from(last) - values[if intercept { 0 } else { 2 }]).abs() < 1e-5);
            assert_eq!(coefficients.from_file(&file[1..]), None);
        }
    }
}
