//! The card of a job's model, made when the job is over.

use hospes_ledger::Ledger;
use hospes_protocol::id::JobId;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::plan::{self, Component, Plan, SCORE_BINS, Strategy, figure};
use hospes_protocol::quality::{self, Group, NumberSums};
use hospes_protocol::study::Study;

use super::driver::Driver;
use crate::Error;
use crate::models::{
    CHOSEN_NOTE, Card, CardMetrics, CardParty, CardSweep, FurtherMetrics, Layout, Lineage, PLAIN_PRIVACY, TURNS_PRIVACY,
};
use crate::store::jobs::{JobRow, JobState};
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
        let turns = if strategy == (Strategy::Cyclic {}).name() { TURNS_PRIVACY } else { "" };
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
            privacy: format!("{PLAIN_PRIVACY}{turns}"),
            metrics: self.metrics(job).await?,
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
                rounds: store.published_rounds(job, &last.task).await?,
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
            known(figure::CORRECT) || known(figure::SQUARED_ERROR_SUM) || known(figure::PAIRS_COMPARABLE)
        });
        Ok(quality.map(|row| metrics(row.task, row.site, &row.figures)).collect())
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

/// What figures say about how good a model is.
pub(super) fn metrics(task: String, site: Option<hospes_protocol::id::SiteId>, figures: &FigureSet) -> CardMetrics {
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
        further: further(figures),
        withheld: figures.withheld.clone(),
    }
}

/// What follows from the sums of one site, or from those of all: the same arithmetic as at the sites.
fn further(figures: &FigureSet) -> FurtherMetrics {
    let list = |name: &str| figures.sums.get(name).map(Vec::as_slice);
    let one = |name: &str| list(name).and_then(|values| values.first()).copied();
    let scores = list(figure::SCORES_POSITIVE).zip(list(figure::SCORES_NEGATIVE));
    let ranking = scores.and_then(|(positive, negative)| {
        // The histograms begin with the lowest score.
        let bins = positive.iter().zip(negative).rev();
        quality::ranking(&bins.map(|(p, n)| Group { positives: *p, negatives: *n }).collect::<Vec<_>>())
    });
    let bins = usize::try_from(SCORE_BINS).unwrap_or(usize::MAX);
    let classes = list(figure::CLASS_SCORES_POSITIVE).zip(list(figure::CLASS_SCORES_NEGATIVE));
    let areas: Vec<Option<(f64, f64)>> = classes.map_or_else(Vec::new, |(positive, negative)| {
        positive.chunks(bins).zip(negative.chunks(bins)).map(|(p, n)| auc(p, n)).collect()
    });
    let numbers =
        [figure::N, figure::ABSOLUTE_ERROR_SUM, figure::SQUARED_ERROR_SUM, figure::LABEL_SUM, figure::LABEL_SQUARE_SUM]
            .map(one);
    let errors = match numbers {
        [Some(rows), Some(absolute), Some(squared), Some(label), Some(label_squared)] => {
            quality::errors(NumberSums { rows, absolute, squared, label, label_squared })
        }
        _ => None,
    };
    let pairs = one(figure::PAIRS_CONCORDANT).zip(one(figure::PAIRS_TIED)).zip(one(figure::PAIRS_COMPARABLE));
    let confusion = list(figure::CLASS_CONFUSION);
    FurtherMetrics {
        ks: ranking.as_ref().map(|r| r.ks.value),
        ks_bound: ranking.as_ref().map(|r| r.ks.bound),
        average_precision: ranking.as_ref().map(|r| r.average_precision.value),
        average_precision_bound: ranking.as_ref().map(|r| r.average_precision.bound),
        gains: ranking.iter().flat_map(|r| &r.gains).map(|g| [g.share, g.gain, g.lift]).collect(),
        gain_bound: ranking.as_ref().map(|r| r.gain_bound),
        precision_recall: ranking.iter().flat_map(|r| &r.precision_recall).map(|(r, p)| [*r, *p]).collect(),
        macro_f1: confusion.and_then(|cells| quality::macro_f1(cells, cells.len().isqrt())),
        class_auc: areas.iter().map(|area| area.map(|(value, _)| value)).collect(),
        class_auc_bound: areas.iter().map(|area| area.map(|(_, bound)| bound)).collect(),
        rmse: errors.map(|e| e.rmse),
        mae: errors.map(|e| e.mae),
        r_squared: errors.and_then(|e| e.r_squared),
        c_index: pairs.and_then(|((right, tied), all)| quality::concordance(right, tied, all)),
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

    fn sums<const N: usize>(figures: [(&str, Vec<f64>); N]) -> FigureSet {
        let sums = figures.map(|(name, values)| (name.to_owned(), values)).into();
        FigureSet { sums, withheld: std::collections::BTreeMap::new() }
    }

    #[test]
    fn histograms_give_ranking_figures_with_their_bounds() {
        // From the highest bin: 2 positive; 1 and 1; 2 negative.
        let scores = [(figure::SCORES_POSITIVE, vec![0.0, 1.0, 2.0]), (figure::SCORES_NEGATIVE, vec![2.0, 1.0, 0.0])];
        let found = further(&sums(scores));
        assert!((found.ks.unwrap() - 2.0 / 3.0).abs() < 1e-12 && (found.ks_bound.unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert!((found.average_precision.unwrap() - (2.0 / 3.0 + 0.75 / 3.0)).abs() < 1e-12);
        assert!((found.average_precision_bound.unwrap() - 0.25 / 3.0).abs() < 1e-12);
        assert_eq!(
            (found.gains.len(), found.gains[4], found.precision_recall.len()),
            (10, [0.5, 5.0 / 6.0, 5.0 / 3.0], 3)
        );
        assert_eq!(further(&sums([(figure::N, vec![3.0])])), FurtherMetrics::default());
    }

    #[test]
    fn figures_of_other_labels_are_computed_from_their_sums() {
        let number = further(&sums([
            (figure::N, vec![3.0]),
            (figure::ABSOLUTE_ERROR_SUM, vec![2.0]),
            (figure::SQUARED_ERROR_SUM, vec![4.0]),
            (figure::LABEL_SUM, vec![6.0]),
            (figure::LABEL_SQUARE_SUM, vec![14.0]),
        ]));
        assert_eq!((number.mae, number.r_squared), (Some(2.0 / 3.0), Some(-1.0)));
        let survival = further(&sums([
            (figure::PAIRS_COMPARABLE, vec![4.0]),
            (figure::PAIRS_CONCORDANT, vec![2.0]),
            (figure::PAIRS_TIED, vec![1.0]),
        ]));
        assert_eq!(survival.c_index, Some(0.625));
        let bins = |at: usize| (0..256).map(|b| f64::from(u8::from(b == at))).collect::<Vec<f64>>();
        let classes = further(&sums([
            (figure::CLASS_CONFUSION, vec![1.0, 0.0, 0.0, 1.0]),
            (figure::CLASS_SCORES_POSITIVE, [bins(200), bins(9)].concat()),
            (figure::CLASS_SCORES_NEGATIVE, [bins(100), bins(9)].concat()),
        ]));
        assert_eq!((classes.macro_f1, classes.class_auc), (Some(1.0), vec![Some(1.0), Some(0.5)]));
        assert_eq!(classes.class_auc_bound, [Some(0.0), Some(0.5)]);
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
