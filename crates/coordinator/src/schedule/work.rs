//! Work on files, away from the loop: initial models and sums. What comes of it is an event like any other.

use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId};
use hospes_protocol::message::ToSite;
use hospes_protocol::plan::{self, Component};

use super::Context;
use super::driver::Driver;
use crate::Error;
use crate::aggregate::reduce::{self, Input, Pooled};

/// Something finished.
pub(super) enum Finished {
    /// The initial model of a task.
    Initial { job: JobId, task: String, result: Result<Made, Error> },
    /// The sum of a round.
    Reduced { round: RoundKey, result: Result<Outcome, Error> },
    /// Messages that took reading the store.
    Messages(Vec<(SiteId, ToSite)>),
}

/// A model that has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Made {
    pub model: Digest,
    pub bytes: u64,
}

/// What a round gave.
pub(super) enum Outcome {
    Model(Made),
    Figures(Box<Pooled>),
}

impl Driver {
    /// Makes the initial model of a job's current task.
    pub(super) fn initial(&mut self, job: JobId) {
        let Some(found) = self.jobs.get(&job) else { return };
        let Some(task) = found.current().map(|task| task.name.clone()) else { return };
        let (plan, context, finished) = (found.plan.clone(), self.context.clone(), self.finished.clone());
        self.context.store.seam().spawn(async move {
            let result = make_initial(context, plan, task.clone()).await;
            // The loop is gone only when the process ends.
            drop(finished.send(Finished::Initial { job, task, result }));
        });
    }

    /// Takes the sum of a job's round.
    pub(super) fn reduce(&mut self, job: JobId) {
        let Some(found) = self.jobs.get(&job) else { return };
        let Some(round) = &found.round else { return };
        let (header, key) = (round.header.document.clone(), round.key.clone());
        let staging = &self.context.staging;
        let input =
            |site| round.machine.input(site).map(|digest| Input { site, path: staging.path(&key, site, digest) });
        let again = self.context.store.seam().again(&key);
        let inputs: Vec<Input> =
            round.machine.included().iter().chain(&again).filter_map(|site| input(*site)).collect();
        let figures = plan::figures(&found.plan, &key.task);
        let (context, finished) = (self.context.clone(), self.finished.clone());
        self.context.store.seam().spawn(async move {
            let models = context.models.clone();
            let work = move || match header.model {
                Some(global) if !header.tensors.is_empty() => {
                    reduce::fed_avg(&models, global, &header.tensors, &header.quantise, &inputs).map(Sum::Model)
                }
                _ => reduce::pool(&figures, &inputs).map(|pooled| Sum::Figures(Box::new(pooled))),
            };
            let sum = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::corrupt("sum", e)));
            let result = match sum {
                Err(error) => Err(error),
                Ok(Sum::Figures(pooled)) => Ok(Outcome::Figures(pooled)),
                Ok(Sum::Model(averaged)) => keep(&context, averaged.model).await.map(Outcome::Model),
            };
            drop(finished.send(Finished::Reduced { round: key, result }));
        });
    }
}

enum Sum {
    Model(reduce::Averaged),
    Figures(Box<Pooled>),
}

async fn keep(context: &Context, written: crate::models::Written) -> Result<Made, Error> {
    let bytes = written.bytes();
    Ok(Made { model: context.models.keep(written).await?, bytes })
}

async fn make_initial(
    context: Context,
    plan: hospes_protocol::canon::Canonical<plan::Plan>,
    task: String,
) -> Result<Made, Error> {
    let models = context.models.clone();
    let work = move || {
        let Some(Component::NnTrain(train)) = plan.tasks.get(&task).map(|t| &t.component) else {
            return Err(Error::corrupt("task", "it trains no model"));
        };
        let inputs = plan::features(&plan, &task).len() as u64;
        let mut writer = models.write(&plan::tensors(train, inputs))?;
        writer.push(plan::model::initial_values(&train.model, inputs, plan.seed))?;
        writer.finish()
    };
    let written = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::corrupt("model", e)))?;
    keep(&context, written).await
}
