//! The card of a model, as the coordinator tells it: read with care, and held against what this site approved and ran.

use std::collections::BTreeSet;

use hospes_protocol::id::{Digest, JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::study::Study;
use hospes_protocol::text::shown;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Job;
use super::fit::Fit;
use crate::view::{Interval, ModelCard, ModelFigure, ModelFigures, ModelParty, ModelSubgroup};

/// Characters of a name and of a text that are shown.
const NAME_CHARS: usize = 200;
const TEXT_CHARS: usize = 1_000;
/// Entries of a list that are shown; the card in full is in its file.
const LISTED: usize = 200;
/// The 97.5th percentile of the normal distribution.
const NORMAL_95: f64 = 1.959_963_984_540_054;
/// Figures that are shown, in this order.
const FIGURES: &[&str] = &[
    "n",
    "auc",
    "accuracy",
    "average_precision",
    "ks",
    "macro_f1",
    "brier",
    "calibration_slope",
    "calibration_intercept",
    "rmse",
    "mae",
    "r_squared",
    "c_index",
    "loss",
];

/// What is read of a card. It is no signed document: what a newer coordinator says besides is for whoever reads the file.
#[derive(Deserialize)]
pub(super) struct Card {
    #[serde(default)]
    model: Option<Digest>,
    #[serde(default)]
    parties: Vec<Party>,
    #[serde(default)]
    privacy: String,
    #[serde(default)]
    strategy: String,
    #[serde(default)]
    kept_at_sites: Vec<Tensor>,
    #[serde(default)]
    metrics: Vec<Metrics>,
    #[serde(default)]
    fits: Vec<Fit>,
    lineage: Lineage,
}

#[derive(Deserialize)]
struct Party {
    name: String,
    organisation: String,
    rounds: u32,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
}

#[derive(Deserialize)]
struct Metrics {
    task: String,
    site: Option<SiteId>,
    #[serde(default)]
    subgroups: Vec<Subgroup>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct Subgroup {
    column: String,
    code: String,
    sites: u32,
    metrics: Map<String, Value>,
}

#[derive(Deserialize)]
struct Lineage {
    study: StudyId,
    study_digest: Digest,
    plan: Digest,
    job: JobId,
    task: String,
    #[serde(default)]
    rounds: Vec<Digest>,
    at: Timestamp,
    #[serde(default)]
    sweep: Option<Sweep>,
}

#[derive(Deserialize)]
struct Sweep {
    #[serde(default)]
    note: String,
}

impl Card {
    /// Reads the card of a job's model. It must be of the study and plan that ran here: a card of anything else would make
    /// people trust a model that they know nothing of.
    pub(super) fn read(bytes: &[u8], job: &Job, model: Option<Digest>, study: Digest) -> Result<Self, String> {
        let mut card: Self = serde_json::from_slice(bytes).map_err(|e| format!("the card cannot be read ({e})"))?;
        let lineage = &card.lineage;
        let other = [
            ("model", card.model != model),
            ("run", lineage.job != job.job),
            ("study", lineage.study != job.study || lineage.study_digest != study),
            ("plan", lineage.plan != job.plan.digest()),
        ];
        if let Some((what, _)) = other.iter().find(|(_, other)| *other) {
            return Err(format!("the coordinator's card is of another {what} than the one that ran here"));
        }
        card.fits.retain(|fit| fit.is_of(&job.plan));
        card.check_fits(&job.plan)?;
        Ok(card)
    }

    /// Each regression has one table, which is as the plan has it.
    fn check_fits(&self, plan: &Plan) -> Result<(), String> {
        let mut tasks = BTreeSet::new();
        for fit in &self.fits {
            fit.check(plan)?;
            if !tasks.insert(fit.task()) {
                return Err(format!("the coordinator's card has two tables of '{}'", fit.task()));
            }
        }
        Ok(())
    }

    /// The task that trained the model.
    pub(super) fn task(&self) -> &str {
        &self.lineage.task
    }

    /// The table of a regression of the plan.
    pub(super) fn fit(&self, task: &str) -> Option<&Fit> {
        self.fits.iter().find(|fit| fit.task() == task)
    }

    /// The card as people see it. `site` is this one in its federation.
    pub(super) fn view(self, job: &Job, study: &Study, site: SiteId) -> ModelCard {
        let (name, text) = (|t: &str| shown(t, NAME_CHARS), |t: &str| shown(t, TEXT_CHARS));
        let (terms, subject) = (&study.terms, &job.plan.data.subject);
        let columns = plan::columns_read(&job.plan).into_iter().filter(|column| column != subject);
        // Somebody else's figures are not for this site, whatever the coordinator sends.
        let metrics = self.metrics.iter().filter(|m| m.site.is_none_or(|of| of == site));
        ModelCard {
            model: self.model,
            title: name(&terms.title),
            purpose: text(&terms.purpose),
            requester: name(&format!("{}, {}", terms.requester.name, terms.requester.organisation)),
            recipients: terms.recipients.iter().take(LISTED).map(|r| text(r)).collect(),
            retention: terms.retention.as_deref().map(text),
            columns: columns.take(LISTED).map(|column| name(&column)).collect(),
            parties: self.parties.iter().take(LISTED).map(Party::view).collect(),
            privacy: text(&self.privacy),
            strategy: name(&self.strategy),
            kept_at_sites: self.kept_at_sites.iter().take(LISTED).map(|tensor| name(&tensor.name)).collect(),
            task: name(&self.lineage.task),
            rounds: u32::try_from(self.lineage.rounds.len()).unwrap_or(u32::MAX),
            at: self.lineage.at,
            figures: metrics.take(LISTED).map(Metrics::view).collect(),
            fits: self.fits.iter().map(Fit::view).collect(),
            note: self.lineage.sweep.as_ref().map(|sweep| text(&sweep.note)).filter(|note| !note.is_empty()),
        }
    }
}

impl Party {
    fn view(&self) -> ModelParty {
        let name = |text: &str| shown(text, NAME_CHARS);
        ModelParty { name: name(&self.name), organisation: name(&self.organisation), rounds: self.rounds }
    }
}

impl Metrics {
    fn view(&self) -> ModelFigures {
        ModelFigures {
            task: shown(&self.task, NAME_CHARS),
            here: self.site.is_some(),
            figures: figures(&self.rest),
            subgroups: self.subgroups.iter().take(LISTED).map(Subgroup::view).collect(),
        }
    }
}

impl Subgroup {
    fn view(&self) -> ModelSubgroup {
        let name = |text: &str| shown(text, NAME_CHARS);
        let (column, code) = (name(&self.column), name(&self.code));
        ModelSubgroup { column, code, sites: self.sites, figures: figures(&self.metrics) }
    }
}

/// The figures that are shown, each with how sure it is, as far as the card says so.
fn figures(of: &Map<String, Value>) -> Vec<ModelFigure> {
    let number = |name: &str| of.get(name).and_then(Value::as_f64);
    let figure = |name: &str| {
        let value = number(name)?;
        // The normal approximation, as with the regressions: ± 1.96 standard errors.
        let interval = number(&format!("{name}_error")).and_then(|error| {
            let reach = NORMAL_95 * error;
            let (low, high) = (value - reach, value + reach);
            // What is no number would reach the page as none, and be drawn as 0.
            (error >= 0.0 && low.is_finite() && high.is_finite()).then_some(Interval { low, high })
        });
        let bound = number(&format!("{name}_bound")).filter(|bound| *bound >= 0.0);
        Some(ModelFigure { name: name.to_owned(), value, interval, bound })
    };
    FIGURES.iter().filter_map(|name| figure(name)).collect()
}
