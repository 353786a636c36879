//! The card of a job's model, made when the job is over.

use std::collections::BTreeMap;

use hospes_ledger::Ledger;
use hospes_protocol::id::JobId;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::plan::{self, Component, Plan};
use hospes_protocol::study::Study;

use super::driver::Driver;
use super::figures;
use crate::Error;
use crate::models::{CHOSEN_NOTE, Card, CardEarlyStop, CardParty, CardSweep, Layout, Lineage, NOTICE, protection};
use crate::store::jobs::{JobRow, JobState};
use crate::store::results::ModelState;
use crate::store::rounds::{RoundRow, RoundState};

/// Rounds of a job that are looked at; evaluations come after training.
const ROUNDS: u32 = 1_000;

impl Driver {
    /// Makes the card of a job's model. If that fails, the job has ended all the same; it is tried again later.
    pub(super) async fn card(&mut self, job: JobId) {
        if let Err(error) = self.make_card(job).await {
            tracing::error!(error = &error as &dyn std::error::Error, %job, "no card yet; it is tried again later");
            self.cards_due = Some(self.context.now().plus_millis(self.context.settings.checkpoint_ms));
        }
    }

    /// Makes the cards that are missing.
    ///
    /// # Errors
    /// [`Error`] if the store cannot be read.
    pub(super) async fn missing_cards(&mut self) -> Result<(), Error> {
        self.cards_due = None;
        for job in self.context.store.jobs_without_card().await? {
            self.card(job).await;
        }
        Ok(())
    }

    /// Makes and keeps the card of a successful job's final model; a job without one has no card.
    async fn make_card(&mut self, job: JobId) -> Result<(), Error> {
        let store = &self.context.store;
        let Some(row) = store.job(job).await?.filter(|row| row.state == JobState::Success) else { return Ok(()) };
        let Some(model) = row.model else { return Ok(()) };
        if row.setting.is_some() && row.chosen.is_none() {
            return Ok(());
        }
        let models = store.models_of(job).await?;
        let last = models.iter().rev().find(|m| m.model == model && m.state == ModelState::Final);
        let Some(last) = last else { return Ok(()) };
        let study = store.study(row.study).await?.ok_or_else(|| Error::corrupt("study", "it is gone"))?.signed()?;
        let checkpoint = {
            let mut connection = store.read().await?;
            Ledger::on(&mut *connection).own_checkpoint(self.context.federation()).await?
        };
        // Of many settings, the plan with the numbers of the one that was run.
        let plan = study.document.run(row.setting).map_err(|e| Error::corrupt("study", e))?;
        let read = plan::columns_read(&plan);
        let subject = &plan.data.subject;
        let columns: Vec<String> = read.into_iter().filter(|column| column != subject).collect();
        let (strategy, kept_at_sites) = made_by(&plan, &last.task);
        let mut rounds = store.published_rounds(job, &last.task).await?;
        let early_stop = self.stopped_early(&plan, job, &last.task, rounds.len()).await?;
        if let Some(stop) = &early_stop {
            // Those after it have no part in the model.
            rounds.truncate(usize::try_from(stop.round).unwrap_or(usize::MAX));
        }
        let card = Card {
            model: Some(model),
            notice: NOTICE.to_owned(),
            title: study.document.terms.title.clone(),
            purpose: study.document.terms.purpose.clone(),
            requester: format!(
                "{}, {}",
                study.document.terms.requester.name, study.document.terms.requester.organisation
            ),
            recipients: study.document.terms.recipients.clone(),
            retention: study.document.terms.retention.clone(),
            columns,
            parties: self.parties(job, &last.task, last.round).await?,
            privacy: protection(&plan, &last.task),
            metrics: figures::card(&store.figures(job).await?, &plan, &self.summed(job).await?),
            fits: store.fits(job).await?,
            tensors: Layout::read(&self.context.models.path(model))?.tensors,
            strategy,
            kept_at_sites,
            lineage: Lineage {
                study: row.study,
                study_digest: study.document.digest(),
                plan: plan.digest(),
                job,
                task: last.task.clone(),
                rounds,
                early_stop,
                initial: store.initial_model(job, &last.task).await?,
                at: last.at,
                checkpoint: checkpoint.map(|c| c.checkpoint().text()).unwrap_or_default(),
                sweep: self.sweep_of(&study.document, &row).await?,
            },
        };
        let json = serde_json::to_string_pretty(&card).map_err(|e| Error::corrupt("card", e))?;
        let mut tx = store.begin("card").await?;
        tx.set_card(job, &last.task, last.round, &json).await?;
        tx.commit().await
    }

    /// Sites in the last published round of each task: of masked figures nothing else says how many they are of.
    async fn summed(&self, job: JobId) -> Result<BTreeMap<String, u32>, Error> {
        let mut rounds = self.context.store.rounds(job, ROUNDS).await?;
        rounds.retain(|round| round.state == RoundState::Published);
        rounds.sort_by_key(|round| (round.key.round, round.key.attempt));
        let sites = |round: RoundRow| {
            let count = round.included.map_or(0, |included| included.len());
            (round.key.task, u32::try_from(count).unwrap_or(u32::MAX))
        };
        Ok(rounds.into_iter().map(sites).collect())
    }

    /// How training ended, if it ended before its last round.
    async fn stopped_early(
        &self,
        plan: &Plan,
        job: JobId,
        task: &str,
        rounds: usize,
    ) -> Result<Option<CardEarlyStop>, Error> {
        let Some(Component::NnTrain(train)) = plan.tasks.get(task).map(|t| &t.component) else { return Ok(None) };
        let Some(stop) = &train.early_stop else { return Ok(None) };
        let best = stop.judge(&self.context.store.losses(job, task).await?).filter(|best| best.stop);
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        Ok(best.map(|best| CardEarlyStop { round: best.round, loss: best.loss, rounds, planned: train.rounds }))
    }

    /// The search of which a job is the best.
    async fn sweep_of(&self, study: &Study, row: &JobRow) -> Result<Option<CardSweep>, Error> {
        let (Some(sweep), Some(setting)) = (&study.sweep, row.setting) else { return Ok(None) };
        let jobs = self.context.store.jobs(Some(study.id)).await?;
        let done = || jobs.iter().filter(|job| job.state == JobState::Success);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let index = usize::try_from(setting).unwrap_or(usize::MAX).wrapping_sub(1);
        Ok(Some(CardSweep {
            setting,
            settings: sweep.len(),
            done: count(done().count()),
            compared: count(done().filter(|job| job.is_compared()).count()),
            values: sweep.settings.get(index).cloned().unwrap_or_default(),
            rank: sweep.rank.clone(),
            figure: row.figure.as_deref().and_then(|figure| figure.parse().ok()),
            note: CHOSEN_NOTE.to_owned(),
        }))
    }

    async fn parties(&self, job: JobId, task: &str, last: u32) -> Result<Vec<CardParty>, Error> {
        let counts = self.context.store.took_part(job, Some((task, last))).await?;
        let mut parties = Vec::with_capacity(counts.len());
        for (site, rounds) in counts {
            let known = self.context.store.site(site).await?;
            let (name, organisation) = known.map(|s| (s.name, s.organisation)).unwrap_or_default();
            parties.push(CardParty { site, name, organisation, rounds });
        }
        Ok(parties)
    }
}

/// The strategy of a task that trains, and the tensors that stay at the sites with it.
fn made_by(plan: &Plan, task: &str) -> (String, Vec<TensorShape>) {
    match plan.tasks.get(task).map(|t| &t.component) {
        Some(Component::NnTrain(train)) => {
            (train.strategy.name().to_owned(), plan::kept(train, plan::inputs(plan, task)))
        }
        _ => Default::default(),
    }
}
