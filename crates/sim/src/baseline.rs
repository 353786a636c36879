//! What pooled data would give, and what each site learns alone: the two figures that federation is measured by.

use anyhow::{Result, ensure};
use hospes_cohort::Cohort;
use hospes_cohort::evaluate::Metrics;
use hospes_cohort::train::{Progress, Pulse};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::Plan;
use serde::Serialize;

use crate::federation::Federation;

/// Accuracy over some seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Mean.
    pub mean: f64,
    /// Standard deviation (ddof = 1); 0 for one seed.
    pub sd: f64,
}

/// One way of training, judged at every site.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// `pooled`, or the site that trained alone.
    pub method: String,
    /// Accuracy on each site's test rows, in the order of the sites.
    pub sites: Vec<Summary>,
    /// Accuracy on all test rows, each scaled by its own site.
    pub all: Summary,
    /// Accuracy on all test rows, scaled together like pooled training rows. FLamby judges this way.
    pub all_scaled_together: Summary,
    /// Area under the ROC curve on all test rows, scaled together; none where there is one class only.
    pub auc_all_scaled_together: Option<Summary>,
}

/// The table of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Baseline {
    /// Always `simulation`.
    pub kind: &'static str,
    /// Sites.
    pub sites: Vec<String>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Pooled first, then each site alone.
    pub rows: Vec<Row>,
}

/// Trains pooled and at each site alone, seed by seed, and judges every model at every site.
///
/// With `only`, the row of that name alone. Every model is judged twice, at the task's threshold: on each site's test rows
/// as that site scales them, and on all of them scaled together. A site's test rows are the same wherever its rows are.
///
/// # Errors
/// What is wrong with data or plan.
pub fn baseline(
    federation: &Federation,
    plan: &Plan,
    task: &str,
    only: Option<&str>,
    seeds: &[u64],
    progress: &mut dyn FnMut(&str),
) -> Result<Baseline> {
    let sites: Vec<String> = federation.members().iter().map(|m| m.name.clone()).collect();
    let methods: Vec<String> =
        std::iter::once("pooled".to_owned()).chain(sites.iter().map(|s| format!("{s} alone"))).collect();
    let wanted: Vec<usize> = (0..methods.len()).filter(|m| only.is_none_or(|only| methods[*m] == only)).collect();
    ensure!(!wanted.is_empty(), "there is no row '{}'; there is {}", only.unwrap_or_default(), methods.join(", "));
    let mut apart: Vec<Vec<Vec<Metrics>>> = vec![Vec::new(); methods.len()];
    let mut together: Vec<Vec<Metrics>> = vec![Vec::new(); methods.len()];
    for seed in seeds {
        let plan = Canonical::new(Plan { seed: *seed, ..plan.clone() })?;
        let header = federation.header(&plan, task, 1, None)?;
        let open = |site: usize| federation.open(&federation.members()[site], &plan, &header);
        let pool = || Ok::<_, anyhow::Error>(Cohort::pool((0..sites.len()).map(open).collect::<Result<_>>()?)?);
        for method in wanted.iter().copied() {
            progress(&format!("seed {seed}: {}", methods[method]));
            let trained = if method == 0 { fit(pool()?, task)? } else { fit(open(method - 1)?, task)? };
            let judge = |site: usize| Ok(open(site)?.assess(task, &trained.parameters)?.by_table);
            let judged = (0..sites.len()).map(judge).collect::<Result<Vec<_>>>()?;
            apart[method].push(judged.into_iter().flatten().collect());
            together[method].push(pool()?.assess(task, &trained.parameters)?.all);
        }
    }
    let rows = wanted.iter().map(|m| (&methods[*m], &apart[*m], &together[*m])).map(|(method, apart, together)| Row {
        method: method.clone(),
        sites: (0..sites.len()).map(|site| summary(apart.iter().map(|run| run[site].accuracy()))).collect(),
        all: summary(apart.iter().map(|run| over_all(run))),
        all_scaled_together: summary(together.iter().map(Metrics::accuracy)),
        auc_all_scaled_together: together
            .iter()
            .map(|run| run.auc)
            .collect::<Option<Vec<f64>>>()
            .map(|all| summary(all.into_iter())),
    });
    let rows = rows.collect();
    Ok(Baseline { kind: "simulation", sites, seeds: seeds.to_vec(), rows })
}

fn fit(cohort: Cohort, task: &str) -> Result<hospes_cohort::Fit> {
    let now = || Timestamp::from_millis(0);
    let mut go_on = |_: Progress| true;
    Ok(cohort.fit(task, &mut Pulse { now: &now, progress: &mut go_on })?)
}

/// Accuracy on the rows of all tables.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn over_all(run: &[Metrics]) -> f64 {
    let (correct, rows) = run.iter().fold((0, 0), |(c, n), m| (c + m.correct, n + m.rows));
    correct as f64 / (rows as f64).max(1.0)
}

#[allow(clippy::cast_precision_loss)]
fn summary(values: impl Iterator<Item = f64>) -> Summary {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Summary { mean, sd: if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 } }
}
