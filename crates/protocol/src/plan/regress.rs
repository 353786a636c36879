//! Parameters of the regressions that hospitals publish: generalised linear models and Cox's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
/// of its own.
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
    /// It ends when the largest step, in standard errors, is below this.
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
