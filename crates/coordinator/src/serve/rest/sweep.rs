//! The settings of a study, as the API shows them.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use crate::serve::Shared;
use crate::store::StudyRow;
use crate::store::jobs::JobRow;
use crate::store::results::Access;

/// Settings of a study: how far they are, and which is the best.
#[derive(Serialize, ToSchema)]
pub(super) struct SweepView {
    /// `waiting`, `running`, `success`, `failed` or `cancelled`.
    state: &'static str,
    /// Why it ended as it did.
    reason: Option<String>,
    /// Evaluation whose figure decides.
    task: String,
    /// The figure: `accuracy`, `auc`, `brier` or `loss`.
    metric: &'static str,
    /// Whether the best is the `highest` or the `lowest`.
    direction: &'static str,
    /// Runs that are wanted at a time.
    parallel: u32,
    /// Number of the best setting, once all are through.
    best: Option<u32>,
    /// Whether every site that took part has released the results; before, no figure is shown.
    released: bool,
    /// Its settings in their order.
    settings: Vec<SettingView>,
}

/// One setting.
#[derive(Serialize, ToSchema)]
pub(super) struct SettingView {
    /// Its number, from 1.
    setting: u32,
    /// Its numbers by place in the plan.
    values: BTreeMap<String, f64>,
    /// Job that runs it, once there is one.
    job: Option<String>,
    /// State of that job; `waiting` before there is one.
    state: &'static str,
    /// Why it ended as it did, or why its figure is not compared.
    reason: Option<String>,
    /// The figure by which it is ranked, once the results are released.
    figure: Option<f64>,
    /// Whether it is the best.
    best: bool,
}

impl SweepView {
    /// The settings of a study; `None` if it has none.
    pub(super) async fn load(shared: &Shared, row: &StudyRow, jobs: &[JobRow]) -> Answer<Option<Self>> {
        let study = row.signed()?.document;
        let Some(sweep) = &study.sweep else { return Ok(None) };
        let store = &shared.register.store;
        let state = store.sweep(row.study).await?;
        let best = jobs.iter().find(|job| job.chosen.is_some());
        // Figures are results: they are held like the model that was chosen by them.
        let released = match best {
            Some(job) => store.access(job.job).await? == Access::Released,
            None => false,
        };
        let setting = |(number, values): (u32, &BTreeMap<String, f64>)| {
            let job = jobs.iter().find(|job| job.setting == Some(number));
            SettingView {
                setting: number,
                values: values.clone(),
                job: job.map(|job| job.job.to_string()),
                state: job.map_or("waiting", |job| job.state.as_str()),
                reason: job.and_then(|job| job.reason.clone()),
                figure: job.filter(|_| released).and_then(figure),
                best: job.is_some_and(|job| job.chosen.is_some()),
            }
        };
        Ok(Some(Self {
            state: state.as_ref().map_or("waiting", |sweep| sweep.state.as_str()),
            reason: state.and_then(|sweep| sweep.reason),
            task: sweep.rank.task.clone(),
            metric: sweep.rank.metric.as_str(),
            direction: sweep.rank.direction.as_str(),
            parallel: sweep.parallel,
            best: best.and_then(|job| job.setting),
            released,
            settings: (1u32..).zip(&sweep.settings).map(setting).collect(),
        }))
    }
}

/// The figure of a setting.
pub(super) fn figure(job: &JobRow) -> Option<f64> {
    job.figure.as_deref().and_then(|figure| figure.parse().ok())
}
