//! The released model of a run, as a site has it: its card, its copy here, the file that it was written to, and its use.

use hospes_protocol::id::{DatasetId, Digest, Timestamp};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::Interval;

/// What stands wherever a model or what it gives is shown.
pub const RESEARCH_ONLY: &str = "Research use only, not for diagnosis or treatment.";

/// What this site has of the released model of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ModelCopy {
    /// How far it is.
    pub state: CopyState,
    /// Its card, once it is here.
    pub card: Option<ModelCard>,
    /// Bytes that came so far and in all, while it comes.
    pub moved: Option<(u64, u64)>,
    /// Why it did not come.
    pub reason: Option<String>,
}

/// How far the copy of a released model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum CopyState {
    /// Nobody here has asked for it.
    None,
    /// The coordinator is asked for its card.
    Asked,
    /// Its file is on its way.
    Coming,
    /// Card and file are here.
    Here,
    /// It did not come.
    Failed,
}

/// What one should know of a model before using it. Title, purpose, requester, recipients, retention and columns are those of
/// the study that this site approved; the rest is what the coordinator says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ModelCard {
    /// Digest of the model; none where the run ended with tables of regressions alone.
    pub model: Option<Digest>,
    /// Title of the study.
    pub title: String,
    /// Purpose in plain words.
    pub purpose: String,
    /// Who asked.
    pub requester: String,
    /// Who gets the results.
    pub recipients: Vec<String>,
    /// How long the model is kept and how it is withdrawn.
    pub retention: Option<String>,
    /// Columns that the sites read, but for the one that tells patients apart.
    pub columns: Vec<String>,
    /// Sites whose updates are in it.
    pub parties: Vec<ModelParty>,
    /// How the sites' data were protected, in words.
    pub privacy: String,
    /// How the sites' updates became this model.
    pub strategy: String,
    /// Tensors that the model needs and does not have: each site has its own, which never left it.
    pub kept_at_sites: Vec<String>,
    /// Task that trained it.
    pub task: String,
    /// Rounds that are in it.
    pub rounds: u32,
    /// When it was made.
    pub at: Timestamp,
    /// Figures of the run's evaluations: of this site, and of all together.
    pub figures: Vec<ModelFigures>,
    /// Tables of the run's regressions, over the rows of all sites together.
    pub fits: Vec<FitView>,
    /// What to know of the figure by which it was chosen among several, in words.
    pub note: Option<String>,
}

/// A site whose updates are in a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ModelParty {
    /// Its name.
    pub name: String,
    /// Its organisation.
    pub organisation: String,
    /// Rounds that it is in.
    pub rounds: u32,
}

/// Figures of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ModelFigures {
    /// Task.
    pub task: String,
    /// Whether they are of this site alone; otherwise of all sites together.
    pub here: bool,
    /// Each figure that is known.
    pub figures: Vec<ModelFigure>,
    /// The same of subgroups.
    pub subgroups: Vec<ModelSubgroup>,
}

/// Figures of the rows with one code of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ModelSubgroup {
    /// Column.
    pub column: String,
    /// Its code.
    pub code: String,
    /// Sites whose rows are in it; the others have none of it, or withhold it.
    pub sites: u32,
    /// Each figure that is known.
    pub figures: Vec<ModelFigure>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ModelFigure {
    /// Its name, of a closed list.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its 95 % interval, where its standard error is known.
    pub interval: Option<Interval>,
    /// The most by which it can be off because it comes from a histogram, where that is known.
    pub bound: Option<f64>,
}

/// A regression as it is published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct FitView {
    /// Task.
    pub task: String,
    /// `gaussian`, `binomial`, `poisson` or `cox`.
    pub family: String,
    /// How many sites' rows are in it.
    pub sites: u32,
    /// Rows.
    pub rows: f64,
    /// Rows with the event (binomial, cox).
    pub events: Option<f64>,
    /// Coefficients: the intercept first, then the features in the plan's order.
    pub coefficients: Vec<CoefficientView>,
    /// `z`, or `t` where the dispersion is estimated.
    pub statistic: String,
    /// Level of the intervals, as a share.
    pub confidence: f64,
    /// Log likelihood; of cox the partial one.
    pub log_likelihood: f64,
    /// The same of the model without features.
    pub null_log_likelihood: f64,
    /// Akaike's criterion.
    pub aic: f64,
    /// Deviance (not of cox).
    pub deviance: Option<f64>,
    /// The same of the model without features.
    pub null_deviance: Option<f64>,
    /// Harrell's C, over pairs of rows of the same site (cox).
    pub c_index: Option<f64>,
    /// Rounds that it took.
    pub iterations: u32,
    /// Whether it converged.
    pub converged: bool,
}

/// One coefficient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct CoefficientView {
    /// `(intercept)` or the feature.
    pub name: String,
    /// Estimate.
    pub estimate: f64,
    /// Standard error.
    pub error: f64,
    /// Estimate over standard error.
    pub statistic: f64,
    /// Two-sided p value of its being 0.
    pub p: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// The effect as a ratio (not of gaussian models and intercepts).
    pub ratio: Option<RatioView>,
}

/// An effect as a ratio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct RatioView {
    /// `odds`, `rate` or `hazard`.
    pub of: String,
    /// Its value; none where it is too large to be a number.
    pub value: Option<f64>,
    /// Lower end of its interval; none where it is too large.
    pub low: Option<f64>,
    /// Upper end of its interval; none where it is too large.
    pub high: Option<f64>,
}

/// The table of a regression that was written to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct TableExport {
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, as the log has it.
    pub digest: Digest,
}

/// A model that was written to a file, with its card beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ModelExport {
    /// Digest of the model: that of the run, of which the file was checked to be.
    pub model: Digest,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, as other programs reckon it.
    pub digest: Digest,
    /// SHA-256 of the card's file.
    pub card: Digest,
}

/// What it takes to use the released model of a run on data of this site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PredictionOffer {
    /// Whether the site's policy allows predictions.
    pub allowed: bool,
    /// Why this model cannot be used here, in words; nothing where it can.
    pub against: Option<String>,
    /// Datasets, the oldest first.
    pub datasets: Vec<PredictionDataset>,
    /// Hundredths done of the prediction that is being made, of whatever model; nothing where none is.
    pub under_way: Option<u32>,
}

/// A dataset on which a model may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PredictionDataset {
    /// Which.
    pub dataset: DatasetId,
    /// Its name.
    pub name: String,
    /// Columns that the model needs and the dataset lacks.
    pub missing: Vec<String>,
}

/// What a model gives for each row of a dataset, written to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PredictionMade {
    /// [`RESEARCH_ONLY`].
    pub notice: String,
    /// Digest of the model.
    pub model: Digest,
    /// Purpose of its study, in plain words.
    pub purpose: String,
    /// Rows with an output.
    pub rows: u64,
    /// Rows that lack a value which the model needs, and so an output.
    pub incomplete: u64,
    /// Rows of people who opted out; they are not in the file.
    pub opted_out: u64,
    /// Patients who opted out since this site trained the model, where rows are scaled or filled by what was learned from
    /// its training rows: that was learned again without them.
    pub opted_out_since: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, as the log has it.
    pub digest: Digest,
}
