//! Work on files, away from the loop: initial models and sums. What comes of it is an event like any other.

use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId, StudyId};
use hospes_protocol::message::ToSite;
use hospes_protocol::plan::{self, Coefficients, Component, Figure, NnTrain, Start};

use super::Context;
use super::driver::Driver;
use super::fits::{self, Fitted, Stopped};
use super::job::Job;
use crate::Error;
use crate::aggregate::newton::Regression;
use crate::aggregate::reduce::{self, Input, Pooled, Training};
use crate::models::{self, MomentsOf};
use crate::store::results::{Access, ModelState};

/// Something finished.
pub(super) enum Finished {
    /// The initial model of a task.
    Initial { job: JobId, task: String, result: Result<Made, NotMade> },
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

/// Why there is no initial model.
#[derive(Debug)]
pub(super) enum NotMade {
    /// The plan asks for one that is not to be had; in words for the researcher.
    NotThere(String),
    /// It could not be written.
    Failed(Error),
}

impl From<Error> for NotMade {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What a round gave.
pub(super) enum Outcome {
    /// A model, and the loss of the one that the round started from, where it is asked for and known.
    Model(Made, Option<f64>),
    Figures(Box<Pooled>),
    /// A regression went on.
    Fitted(Box<Fitted>),
    /// A regression does not go on.
    Stopped(Box<Stopped>),
    /// Not every site that a regression needs reported; why, in words.
    Incomplete(String),
}

impl Driver {
    /// Makes the initial model of a job's current task.
    pub(super) fn initial(&mut self, job: JobId) {
        let Some(found) = self.jobs.get(&job) else { return };
        let Some(task) = found.current().map(|task| task.name.clone()) else { return };
        let run = Run { job, study: found.study, setting: found.setting };
        let (plan, context, finished) = (found.plan.clone(), self.context.clone(), self.finished.clone());
        self.context.store.seam().spawn(async move {
            let result = make_initial(context, run, plan, task.clone()).await;
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
        let input = |site| {
            let digest = round.machine.input(site)?;
            Some((Input { site, path: staging.path(&key, site, digest) }, digest))
        };
        let again = self.context.store.seam().again(&key);
        let (inputs, digests): (Vec<Input>, Vec<Digest>) =
            round.machine.included().iter().chain(&again).filter_map(|site| input(*site)).unzip();
        let work = work_of(found, &key, header.model, &self.context.models);
        let (context, finished) = (self.context.clone(), self.finished.clone());
        // PRIVACY: a masked round is summed through its session or not at all.
        let unmasker = match header.is_secure().then(|| round.unmasker(&inputs)).transpose() {
            Ok(unmasker) => unmasker,
            Err(error) => return drop(finished.send(Finished::Reduced { round: key, result: Err(error) })),
        };
        if let Some(regression) = Regression::of(&found.plan, &key.task) {
            let (absent, figures) = (fits::absent(round), plan::round_figures(&found.plan, &key.task, key.round));
            self.context.store.seam().spawn(async move {
                // Reports are small, and are read here too.
                let result = match reduce::check(&inputs, &digests) {
                    Ok(()) => {
                        let inputs = (inputs.as_slice(), unmasker);
                        fits::advance(&context, regression, &header, &figures, inputs, &absent).await
                    }
                    Err(error) => Err(error),
                };
                drop(finished.send(Finished::Reduced { round: key, result }));
            });
            return;
        }
        self.context.store.seam().spawn(async move {
            let models = context.models.clone();
            let work = move || -> Result<Sum, Error> {
                reduce::check(&inputs, &digests)?;
                match (work, unmasker) {
                    (Work::Train(training), Some(unmasker)) => {
                        let sum = reduce::train_masked(&models, &training, &inputs, unmasker);
                        sum.map(|trained| Sum::Model(Box::new(trained)))
                    }
                    (Work::Pool(figures), Some(unmasker)) => {
                        let sum = reduce::pool_masked(&figures, &inputs, unmasker);
                        sum.map(|pooled| Sum::Figures(Box::new(pooled)))
                    }
                    (Work::Train(training), None) => {
                        reduce::train(&models, &training, &inputs).map(|trained| Sum::Model(Box::new(trained)))
                    }
                    (Work::Pool(figures), None) => {
                        reduce::pool(&figures, &inputs).map(|pooled| Sum::Figures(Box::new(pooled)))
                    }
                }
            };
            let sum = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::corrupt("sum", e)));
            let result = match sum {
                Err(error) => Err(error),
                Ok(Sum::Figures(pooled)) => Ok(Outcome::Figures(pooled)),
                Ok(Sum::Model(trained)) => {
                    let loss = trained.loss;
                    keep_trained(&context, &key, *trained).await.map(|made| Outcome::Model(made, loss))
                }
            };
            drop(finished.send(Finished::Reduced { round: key, result }));
        });
    }
}

/// How the inputs of a round become its result.
enum Work {
    Train(Box<Training>),
    Pool(Vec<Figure>),
}

/// What is to be done with a round's inputs: a matter of its task's component.
fn work_of(job: &Job, key: &RoundKey, model: Option<Digest>, models: &models::Models) -> Work {
    match (job.plan.tasks.get(&key.task).map(|task| &task.component), model) {
        (Some(Component::NnTrain(train)), Some(global)) => {
            let members = u32::try_from(job.members.len()).unwrap_or(u32::MAX);
            let inputs = plan::inputs(&job.plan, &key.task);
            let mut training = Training::new(train, inputs, global, members, key.round >= train.rounds);
            training.moments = moments_before(key, global).map(|of| models.moments_path(&of));
            Work::Train(Box::new(training))
        }
        _ => Work::Pool(plan::round_figures(&job.plan, &key.task, key.round)),
    }
}

/// Whose moments a round goes on with, given the model that it starts from; `None` for the first.
pub(super) fn moments_before(key: &RoundKey, model: Digest) -> Option<MomentsOf> {
    let round = key.round.checked_sub(1).filter(|round| *round > 0)?;
    Some(MomentsOf { job: key.job, task: key.task.clone(), round, model })
}

enum Sum {
    Model(Box<reduce::Trained>),
    Figures(Box<Pooled>),
}

/// Names what a round of training gave: its moments first, because a model that is published must have them.
async fn keep_trained(context: &Context, key: &RoundKey, trained: reduce::Trained) -> Result<Made, Error> {
    if let Some(moments) = trained.moments {
        let model = trained.model.digest();
        let of = MomentsOf { job: key.job, task: key.task.clone(), round: key.round, model };
        context.models.keep_moments(moments, &of).await?;
    }
    keep(context, trained.model).await
}

pub(super) async fn keep(context: &Context, written: crate::models::Written) -> Result<Made, Error> {
    let bytes = written.bytes();
    Ok(Made { model: context.models.keep(written).await?, bytes })
}

/// Which run of its study begins.
struct Run {
    job: JobId,
    study: StudyId,
    /// Which setting among many it is of, from 1.
    setting: Option<u32>,
}

impl Run {
    /// Its number among the runs of its study, from 1. Settings have their own: sites that trained from one model over one
    /// set of sites do not train from it over another, and one absence would stop all other settings.
    async fn number(&self, context: &Context) -> Result<u32, Error> {
        if let Some(setting) = self.setting {
            return Ok(setting);
        }
        let jobs = context.store.jobs(Some(self.study)).await?;
        // The newest come first.
        let before = jobs.iter().skip_while(|row| row.job != self.job).skip(1).count();
        Ok(u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1))
    }
}

async fn make_initial(context: Context, run: Run, plan: Canonical<plan::Plan>, task: String) -> Result<Made, NotMade> {
    if let Some(found) = Coefficients::of(&plan, &task) {
        let models = context.models.clone();
        let work = move || fits::coefficients(&models, &found, &vec![0.0; found.len()]);
        let written = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::corrupt("model", e)))?;
        return Ok(keep(&context, written).await?);
    }
    let Some(Component::NnTrain(train)) = plan.tasks.get(&task).map(|t| t.component.clone()) else {
        return Err(Error::corrupt("task", "it trains no model").into());
    };
    let inputs = plan::inputs(&plan, &task);
    if let Start::Safetensors(model) = train.init {
        return begin_with(context, &train, inputs, model).await;
    }
    let seed = plan::starting_seed(&train, plan.seed, run.number(&context).await?, context.epoch);
    let models = context.models.clone();
    let work = move || {
        let mut writer = models.write(&plan::tensors(&train, inputs))?;
        writer.push(plan::initial(&train, inputs, seed))?;
        writer.finish()
    };
    let written = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::corrupt("model", e)))?;
    Ok(keep(&context, written).await?)
}

/// Begins with a model that another job made. Results that are held are held from further training too: whoever may
/// not download the model may not have it sent to other sites either.
async fn begin_with(
    context: Context,
    train: &NnTrain,
    inputs: plan::model::Inputs,
    model: Digest,
) -> Result<Made, NotMade> {
    let refuse = |reason: String| Err(NotMade::NotThere(format!("init.safetensors: model {model} {reason}")));
    let mut known = false;
    let mut released = false;
    for row in context.store.model(model).await?.iter().filter(|row| row.state == ModelState::Final) {
        known = true;
        released |= context.store.access(row.job).await? == Access::Released;
    }
    let Some(bytes) = context.models.size(model).await?.filter(|_| known) else {
        return refuse("is not the final model of a job of this coordinator; `hospesctl model list` shows them".into());
    };
    if !released {
        return refuse("is held until every site that took part has released it".into());
    }
    let (wanted, all) = (plan::model_tensors(train, inputs), plan::tensors(train, inputs));
    let layout = models::Layout::read(&context.models.path(model))?;
    let kept = plan::kept(train, inputs);
    if let Some(tensor) = layout.tensors.iter().find(|tensor| kept.contains(tensor)) {
        return refuse(format!(
            "has '{}', which stays at the sites with {}: no file reaches it there, it begins by the seed; begin with the \
             final model of a job with the same strategy",
            tensor.name,
            train.strategy.name()
        ));
    }
    if layout.tensors != wanted {
        return refuse(format!("does not fit the plan's model: {}", misfit(&layout.tensors, &wanted)));
    }
    if all == wanted {
        return Ok(Made { model, bytes });
    }
    let models = context.models.clone();
    // Control variates begin at 0.
    let work = move || models.extend(model, &all);
    let written = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::corrupt("model", e)))?;
    Ok(keep(&context, written).await?)
}

/// The first tensor in which a model is not what is wanted.
fn misfit(found: &[plan::model::TensorShape], wanted: &[plan::model::TensorShape]) -> String {
    let at = found.iter().zip(wanted).position(|(a, b)| a != b).unwrap_or(found.len().min(wanted.len()));
    let named = |tensor: Option<&plan::model::TensorShape>| {
        tensor.map_or_else(|| "no tensor".to_owned(), |t| format!("'{}' of shape {:?}", t.name, t.shape))
    };
    format!("in place {} it has {}, the plan has {}", at + 1, named(found.get(at)), named(wanted.get(at)))
}
