//! Training that ends before its last round, with the model of the round in which the loss was best.
//!
//! Sites tell the loss of the model that they start a round from, so that a round's sum judges the model of the round
//! before. What was told is in the store, and what follows from it a matter of these numbers alone: a coordinator that is
//! restarted decides as the one before would have.

use hospes_protocol::id::{Digest, RoundKey, Timestamp};
use hospes_protocol::plan::{BestSoFar, Component, Plan};

use super::rounds::model_row;
use super::work::{Made, moments_before};
use crate::Error;
use crate::models::MomentsOf;
use crate::store::results::ModelState;
use crate::store::{Store, Tx};

/// What the losses say after a round.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Judged {
    /// Loss of the model that the round started from, where it was told.
    told: Option<f64>,
    /// The best so far; `None` where training cannot end early, or no loss was told yet.
    best: Option<BestSoFar>,
}

/// What the task goes on with, or ends with.
pub(super) struct Kept {
    pub model: Digest,
    /// Files that nobody needs any more.
    pub free: Vec<Digest>,
    /// Moments that nobody needs any more.
    pub moments: Vec<MomentsOf>,
}

impl Judged {
    /// Judges with the loss that a round told.
    ///
    /// # Errors
    /// [`Error`] if the store cannot be read.
    pub(super) async fn of(store: &Store, plan: &Plan, key: &RoundKey, loss: Option<f64>) -> Result<Self, Error> {
        let Some(Component::NnTrain(train)) = plan.tasks.get(&key.task).map(|task| &task.component) else {
            return Ok(Self::default());
        };
        let Some(stop) = &train.early_stop else { return Ok(Self::default()) };
        let before = key.round.saturating_sub(1);
        let mut losses = store.losses(key.job, &key.task).await?;
        losses.retain(|(round, _)| *round < before);
        losses.extend(loss.map(|loss| (before, loss)));
        Ok(Self { told: loss, best: stop.judge(&losses) })
    }

    /// The best round, if training ends now.
    pub(super) fn stops_at(&self) -> Option<BestSoFar> {
        self.best.filter(|best| best.stop)
    }

    /// Writes the model that a round gave and the loss that it told, and drops what is needed neither to go on nor to go
    /// back to.
    ///
    /// # Errors
    /// [`Error`] if it cannot be written.
    pub(super) async fn keep(
        &self,
        tx: &mut Tx,
        (key, from): (&RoundKey, Option<Digest>),
        made: Made,
        last: bool,
        now: Timestamp,
    ) -> Result<Kept, Error> {
        let (job, task) = (key.job, key.task.as_str());
        if let Some(loss) = self.told {
            tx.put_loss(job, task, key.round.saturating_sub(1), loss).await?;
        }
        // Most strategies keep no moments, and what is not there is no error.
        let mut moments: Vec<MomentsOf> = from.and_then(|model| moments_before(key, model)).into_iter().collect();
        let stops_at = self.stops_at().map(|best| best.round);
        let state = if last && stops_at.is_none() { ModelState::Final } else { ModelState::Checkpoint };
        tx.insert_model(&model_row(job, task, key.round, made, state, now)).await?;
        let Some(round) = stops_at else {
            let best = self.best.filter(|_| !last).map(|best| best.round);
            let mut free = tx.drop_models(job, task, key.round, best).await?;
            free.retain(|model| *model != made.model);
            return Ok(Kept { model: made.model, free, moments });
        };
        let model = match tx.finish_model(job, task, round).await? {
            Some(model) => model,
            // What it should go back to is not there any more: the newest is what there is.
            None => tx.finish_model(job, task, key.round).await?.unwrap_or(made.model),
        };
        let free = tx.drop_models(job, task, key.round.saturating_add(1), None).await?;
        moments.push(MomentsOf { job, task: task.to_owned(), round: key.round, model: made.model });
        Ok(Kept { model, free, moments })
    }
}
