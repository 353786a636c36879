//! The card of a job's model, made when the job is over.

use hospes_ledger::Ledger;
use hospes_protocol::id::JobId;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::figure;

use super::driver::Driver;
use crate::Error;
use crate::models::{Card, CardMetrics, CardParty, Layout, Lineage, PLAIN_PRIVACY};
use crate::store::jobs::JobState;
use crate::store::results::ModelState;

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
        let models = store.models_of(job).await?;
        let last = models.iter().rev().find(|m| m.model == model && m.state == ModelState::Final);
        let Some(last) = last else { return Ok(()) };
        let study = store.study(row.study).await?.ok_or_else(|| Error::corrupt("study", "it is gone"))?.signed()?;
        let checkpoint = {
            let mut connection = store.read().await?;
            Ledger::on(&mut *connection).own_checkpoint(self.context.federation()).await?
        };
        let mut columns: Vec<String> = study.document.plan.data.columns.clone();
        columns.push(study.document.plan.data.label.column.clone());
        let card = Card {
            model,
            title: study.document.terms.title.clone(),
            purpose: study.document.terms.purpose.clone(),
            requester: format!(
                "{}, {}",
                study.document.terms.requester.name, study.document.terms.requester.organisation
            ),
            columns,
            parties: self.parties(job, &last.task).await?,
            privacy: PLAIN_PRIVACY.to_owned(),
            metrics: self.metrics(job).await?,
            fits: store.fits(job).await?,
            tensors: Layout::read(&self.context.models.path(model))?.tensors,
            lineage: Lineage {
                study: row.study,
                study_digest: study.document.digest(),
                plan: study.document.plan.digest(),
                job,
                task: last.task.clone(),
                rounds: store.published_rounds(job, &last.task).await?,
                initial: store.initial_model(job, &last.task).await?,
                at: last.at,
                checkpoint: checkpoint.map(|c| c.checkpoint().text()).unwrap_or_default(),
            },
        };
        let json = serde_json::to_string_pretty(&card).map_err(|e| Error::corrupt("card", e))?;
        let mut tx = store.begin("card").await?;
        tx.set_card(job, &last.task, last.round, &json).await?;
        tx.commit().await
    }

    async fn parties(&self, job: JobId, task: &str) -> Result<Vec<CardParty>, Error> {
        let counts = self.context.store.took_part(job, Some(task)).await?;
        let mut parties = Vec::with_capacity(counts.len());
        for (site, rounds) in counts {
            let known = self.context.store.site(site).await?;
            let (name, organisation) = known.map(|s| (s.name, s.organisation)).unwrap_or_default();
            parties.push(CardParty { site, name, organisation, rounds });
        }
        Ok(parties)
    }

    async fn metrics(&self, job: JobId) -> Result<Vec<CardMetrics>, Error> {
        let figures = self.context.store.figures(job).await?;
        let quality = figures.into_iter().filter(|row| {
            let known = |name| row.figures.sums.contains_key(name) || row.figures.withheld.contains_key(name);
            known(figure::CORRECT)
        });
        Ok(quality.map(|row| metrics(row.task, row.site, &row.figures)).collect())
    }
}

fn metrics(task: String, site: Option<hospes_protocol::id::SiteId>, figures: &FigureSet) -> CardMetrics {
    let one = |name: &str| figures.sums.get(name).and_then(|values| values.first()).copied();
    let n = one(figure::N);
    let mean = |name: &str| Some(one(name)? / n.filter(|n| *n > 0.0)?);
    let scores = figures.sums.get(figure::SCORES_POSITIVE).zip(figures.sums.get(figure::SCORES_NEGATIVE));
    let auc = scores.and_then(|(positive, negative)| auc(positive, negative));
    CardMetrics {
        task,
        site,
        n,
        accuracy: mean(figure::CORRECT),
        loss: mean(figure::LOSS_SUM),
        brier: mean(figure::BRIER_SUM),
        auc: auc.map(|(value, _)| value),
        auc_bound: auc.map(|(_, bound)| bound),
        withheld: figures.withheld.clone(),
    }
}

/// Area under the ROC curve from counts by score bin, pairs within one bin counting half (Hanley, McNeil 1982, the
/// Wilcoxon statistic), and how far that can be off: half the fraction of pairs within one bin.
fn auc(positive: &[f64], negative: &[f64]) -> Option<(f64, f64)> {
    let pairs = positive.iter().sum::<f64>() * negative.iter().sum::<f64>();
    if pairs <= 0.0 {
        return None;
    }
    let (mut below, mut right, mut tied) = (0.0, 0.0, 0.0);
    for (p, n) in positive.iter().zip(negative) {
        right += p * below;
        tied += p * n;
        below += n;
    }
    Some(((right + tied / 2.0) / pairs, tied / 2.0 / pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_of_bins_equals_the_count_of_pairs() {
        // Positives score in bins 2, 2, 3; negatives in 1, 2: of 6 pairs 4 are right, 2 are tied.
        assert_eq!(auc(&[0.0, 0.0, 2.0, 1.0], &[0.0, 1.0, 1.0, 0.0]), Some((5.0 / 6.0, 1.0 / 6.0)));
        assert_eq!(auc(&[1.0], &[0.0]), None);
    }

    #[test]
    fn withheld_figures_leave_their_metrics_out() {
        let sums = [("n".to_owned(), vec![10.0]), ("correct".to_owned(), vec![8.0])].into();
        let withheld = [("loss_sum".to_owned(), "min_cell".to_owned())].into();
        let found = metrics("eval".into(), None, &FigureSet { sums, withheld });
        assert_eq!((found.accuracy, found.loss, found.auc), (Some(0.8), None, None));
        assert_eq!(found.withheld["loss_sum"], "min_cell");
    }
}
