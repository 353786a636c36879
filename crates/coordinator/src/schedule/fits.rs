//! Rounds of regressions: each report moves Newton's method on, and gives the next coefficients or the fit.

use std::collections::BTreeMap;

use hospes_privacy::secagg::Unmasker;
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId, Timestamp};
use hospes_protocol::plan::Coefficients;
use hospes_protocol::round::RoundHeader;

use super::Context;
use super::driver::Driver;
use super::job::LiveRound;
use super::rounds::model_row;
use super::step::Step;
use super::work::{Made, Outcome, keep};
use crate::Error;
use crate::aggregate::newton::{Fit, Newton, Next, Regression, Stop};
use crate::aggregate::reduce::{self, Input, Pooled};
use crate::models::{Models, Written};
use crate::store::Tx;
use crate::store::jobs::JobState;
use crate::store::results::ModelState;

/// A round of a regression that gave something.
pub(super) struct Fitted {
    pub newton: Newton,
    /// Coefficients of the next round, or the model that it ends with.
    pub made: Option<Made>,
    /// Once there is one, and nothing more is to come.
    pub fit: Option<Fit>,
    /// The sums that it was made of, once it converged.
    pub sums: Option<Pooled>,
}

/// A regression that does not go on.
pub(super) struct Stopped {
    pub task: String,
    pub newton: Newton,
    pub stop: Stop,
}

impl Fitted {
    /// Writes what a round gave: coefficients or the model, where the method stands, and the fit. Returns what was made,
    /// and the files that nobody needs any more.
    ///
    /// # Errors
    /// [`Error`] if it cannot be written.
    pub(super) async fn keep(
        self,
        tx: &mut Tx,
        round: &RoundKey,
        now: Timestamp,
    ) -> Result<(Option<Made>, Vec<Digest>), Error> {
        let Self { newton, made, fit, sums } = self;
        let (job, task) = (round.job, round.task.as_str());
        tx.put_newton(job, task, &newton, fit.as_ref()).await?;
        if let Some(pooled) = &sums {
            // The sums over all sites are the fit's own; those of each site have served, and are not kept.
            tx.put_figures(job, task, None, &pooled.sum).await?;
        }
        if let Some(made) = made {
            let state = if fit.is_some() { ModelState::Final } else { ModelState::Checkpoint };
            tx.insert_model(&model_row(job, task, round.round, made, state, now)).await?;
        }
        // What the round started from has served too.
        let before = if made.is_some() { round.round } else { round.round.saturating_add(1) };
        let mut free = tx.drop_models(job, task, before, None).await?;
        free.retain(|model| Some(*model) != made.map(|made| made.model));
        Ok((made, free))
    }
}

/// Takes the sites' reports of a round.
///
/// # Errors
/// [`Error`] if a file or the store cannot be read or written.
pub(super) async fn advance(
    context: &Context,
    regression: Regression,
    header: &RoundHeader,
    figures: &[hospes_protocol::plan::Figure],
    (inputs, unmasker): (&[Input], Option<Unmasker>),
    absent: &[(SiteId, String)],
) -> Result<Outcome, Error> {
    if !absent.is_empty() {
        return Ok(Outcome::Incomplete(missing(context, absent).await?));
    }
    let kept = context.store.newton(header.job, &regression.task).await?;
    let mut newton = kept.unwrap_or_else(|| Newton::start(&regression.coefficients));
    let pooled = match unmasker {
        Some(unmasker) => reduce::pool_masked(figures, inputs, unmasker)?,
        None => reduce::pool(figures, inputs)?,
    };
    let stopped = |newton, stop| Ok(Outcome::Stopped(Box::new(Stopped { task: header.task.clone(), newton, stop })));
    match newton.advance(&regression, &pooled) {
        Err(stop) => stopped(newton, stop),
        Ok(Next::Done(fit)) => {
            let made = match regression.makes_model() {
                true => Some(model(context, &regression.coefficients, newton.point()).await?),
                false => None,
            };
            // What a last round of its own gave is in the fit.
            let sums = (header.round <= regression.steps()).then_some(pooled);
            Ok(Outcome::Fitted(Box::new(Fitted { newton, made, fit: Some(*fit), sums })))
        }
        Ok(Next::Round) if header.round >= regression.steps() => {
            let reason = newton.unfinished(&regression);
            stopped(newton, Stop::Failed(reason))
        }
        Ok(next) => {
            let written = coefficients(&context.models, &regression.coefficients, newton.point())?;
            let made = Some(keep(context, written).await?);
            let sums = (next == Next::Last).then_some(pooled);
            Ok(Outcome::Fitted(Box::new(Fitted { newton, made, fit: None, sums })))
        }
    }
}

/// A fit over the others would be another fit, so the round is tried again.
pub(super) async fn missing(context: &Context, absent: &[(SiteId, String)]) -> Result<String, Error> {
    let mut words = Vec::with_capacity(absent.len());
    for (site, reason) in absent {
        let name = context.store.site(*site).await?.map_or_else(|| site.to_string(), |row| row.name);
        words.push(if reason.is_empty() { name } else { format!("{name} ({reason})") });
    }
    Ok(format!("a fit needs the sums of every site of the round, and there are none of {}", words.join(", ")))
}

/// The file that a round starts from.
///
/// # Errors
/// [`Error`] if it cannot be written.
pub(super) fn coefficients(models: &Models, of: &Coefficients, values: &[f64]) -> Result<Written, Error> {
    let mut writer = models.write(&of.tensors())?;
    writer.push(of.file_values(values))?;
    writer.finish()
}

async fn model(context: &Context, of: &Coefficients, values: &[f64]) -> Result<Made, Error> {
    let mut writer = context.models.write(&of.model_tensors())?;
    writer.push(of.model_values(values))?;
    keep(context, writer.finish()?).await
}

/// Members of a round that are not among its inputs, each with its reason.
pub(super) fn absent(round: &LiveRound) -> Vec<(SiteId, String)> {
    let included = round.machine.included();
    let reasons: BTreeMap<SiteId, &str> = round.machine.out().collect();
    let roster = round.header.document.roster.iter().map(|entry| entry.site);
    let gone = roster.filter(|site| !included.contains(site));
    gone.map(|site| (site, reasons.get(&site).map_or_else(String::new, |r| (*r).to_owned()))).collect()
}

impl Driver {
    /// Ends the job of a regression that does not go on, with words for the researcher.
    pub(super) async fn stop_fit(&mut self, step: &mut Step, job: JobId, stopped: Stopped) -> Result<(), Error> {
        let Stopped { task, newton, stop } = stopped;
        let context = self.context.clone();
        if let Stop::Others { .. } = stop {
            // The next run begins anew with the report of this very round.
            step.job(&context, job).await?.put_newton(job, &task, &newton, None).await?;
        }
        let reason = match stop {
            Stop::Failed(reason) => reason,
            Stop::Withheld(sites) => format!(
                "{} withheld the sums under a disclosure rule, and a fit over the others would be another fit; leave out \
                 features with rare values, or run it without them",
                self.names_of(&sites).await?
            ),
            Stop::Others { missing, new } => {
                let (missing, new) = (self.names_of(&missing).await?, self.names_of(&new).await?);
                format!(
                    "other sites reported than in the rounds before (missing: {missing}; new: {new}), and each fit is of \
                     the same rows from its first round to its last; run the job again to begin with those that are there"
                )
            }
        };
        self.end_job(step, job, JobState::Failed, &format!("{task}: {reason}"), None).await
    }

    async fn names_of(&self, sites: &[SiteId]) -> Result<String, Error> {
        let mut names = Vec::with_capacity(sites.len());
        for site in sites {
            names.push(self.name(*site).await?);
        }
        Ok(if names.is_empty() { "nobody".to_owned() } else { names.join(", ") })
    }
}
