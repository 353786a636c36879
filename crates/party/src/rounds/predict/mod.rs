//! A released model used on this site's own data, where its policy allows it: what it takes, and the file that comes of
//! it.
//!
//! Nothing leaves the site by it. The model's output for each row goes from a child process into a file in the engine's own
//! folder, and when that is whole, beside the place that a person chose: before, there is nothing of it that they could take.
//! It is asked again whether it may be, and the entry about it is written before the file gets its name.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use hospes_cohort::Predicted;
use hospes_cohort::worker::{Failure, PredictionEvent, PredictionOrder};
use hospes_ledger::{Action, Entry, ObjectKind, Purpose};
use hospes_protocol::approval::{LeaveToPredict, Role};
use hospes_protocol::id::{DatasetId, Digest, JobId, PersonId};
use hospes_protocol::policy::{Policy, Predict};
use hospes_protocol::text::in_bytes;
use sqlx::sqlite::SqliteConnection;

use super::export::{check_model, copied};
use crate::audit::{self, Because as _};
use crate::datasets::{self, Dataset};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::{Handle, in_background};
use crate::new_file::{Part, free};
use crate::people::{Acting, Session};
use crate::requests;
use crate::restored;
use crate::store::setting;
use crate::view::{Notice, Pause, PredictionDataset, PredictionMade, PredictionOffer, RESEARCH_ONLY};

mod usable;
mod work;

pub(crate) use work::Turn;

use usable::{TrainedOn, check_dataset};
use work::Bench;

/// What is done, as the log's steps and refusals name it.
const STEP: &str = "use a model on data";
/// Who may: those who register data and decide on their use.
const PREDICTORS: &[Role] = &[Role::DataSteward, Role::DataAccessApprover];
/// Longest time for one prediction, in milliseconds: a day, as for a round.
const LONGEST_MS: i64 = 24 * 3_600 * 1_000;

/// Who asked for what.
struct Asked {
    person: PersonId,
    job: JobId,
    purpose: Purpose,
    model: Digest,
    /// Purpose of its study, in plain words.
    study_purpose: String,
    dataset: DatasetId,
    snapshot: Digest,
    /// The dataset from which the plan's steps learn something.
    learned_from: Option<DatasetId>,
    path: PathBuf,
    /// What the work goes by: the policy, and the digest of the opt-out list.
    policy: Policy,
    list: Digest,
    opted_out_since: u64,
}

/// A prediction that is under way.
pub(crate) struct Predicting {
    asked: Asked,
    order: PredictionOrder,
    bench: Bench,
}

/// What came of it: a file that has no name yet.
pub(crate) struct Ended {
    asked: Asked,
    made: Result<(Part, Predicted), PartyError>,
    /// Until the end, so that nothing else is computed before.
    _turn: Arc<Turn>,
}

impl Handle {
    /// What it takes to use the released model of a run on data of this site (data steward, data-access approver).
    ///
    /// # Errors
    /// [`PartyError::NotFound`], [`PartyError::Denied`].
    pub async fn prediction(&self, session: &Session, job: JobId) -> Result<PredictionOffer, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.prediction(s, job).boxed()).await
    }

    /// Uses the released model of a run on a dataset of this site, where the policy allows that, and writes what it gives
    /// for each row to a new file (data steward, data-access approver). The log has an entry about it, with the file's
    /// digest, before the file has its name.
    ///
    /// # Disclosure
    /// The file has what the model makes of each patient's row, by the row's number. It is for research within this site.
    ///
    /// # Errors
    /// [`PartyError::Refused`] where the policy does not allow it, [`PartyError::Managed`] where the IT does not;
    /// [`PartyError::State`] if the model is not here, cannot be used, or something else is computed;
    /// [`PartyError::Input`] for a dataset without a column that it needs; [`PartyError::Prediction`] if the rows do not
    /// fit; [`PartyError::File`], also if the file exists; [`PartyError::DiskFull`], [`PartyError::Denied`].
    pub async fn predict(
        &self,
        session: &Session,
        job: JobId,
        dataset: DatasetId,
        path: PathBuf,
    ) -> Result<PredictionMade, PartyError> {
        let s = session.clone();
        let predicting = self.ask(move |e| e.begin_prediction(s, job, dataset, path).boxed()).await?;
        let ended = in_background(move || Ok(predicting.run())).await?;
        self.ask(move |e| e.finish_prediction(ended).boxed()).await
    }

    /// Stops the prediction that is being made, if one is (data steward, data-access approver).
    ///
    /// # Errors
    /// [`PartyError::Denied`].
    pub async fn stop_predicting(&self, session: &Session) -> Result<(), PartyError> {
        let s = session.clone();
        self.ask(move |e| e.stop_predicting(s).boxed()).await
    }
}

impl Engine {
    pub(crate) async fn prediction(&mut self, session: Session, job: JobId) -> Result<PredictionOffer, PartyError> {
        self.inside(&session, STEP, PREDICTORS).await?;
        let mut conn = self.reader().await?;
        let policy = requests::policy::current(&mut conn).await?;
        let allowed = policy.models.predict != Predict::Off;
        let under_way = self.predicting.upgrade().map(|turn| turn.hundredths());
        let usable = match self.usable(&mut conn, job).await {
            Ok(usable) => usable,
            Err(PartyError::State(words)) => {
                return Ok(PredictionOffer { allowed, against: Some(words), datasets: Vec::new(), under_way });
            }
            Err(other) => return Err(other),
        };
        let mut all = datasets::all(&mut conn).await?;
        // Those that this policy never lets be used are no choice.
        all.retain(|dataset| !allowed || leave(&policy, dataset).is_ok());
        let datasets = all.iter().map(|dataset| PredictionDataset {
            dataset: dataset.id,
            name: dataset.name.clone(),
            missing: usable.missing(dataset),
        });
        Ok(PredictionOffer { allowed, against: None, datasets: datasets.collect(), under_way })
    }

    /// Finds out whether it may be done, and what it takes.
    pub(crate) async fn begin_prediction(
        &mut self,
        session: Session,
        job: JobId,
        dataset: DatasetId,
        path: PathBuf,
    ) -> Result<Predicting, PartyError> {
        let acting = self.inside(&session, STEP, PREDICTORS).await?;
        let mut conn = self.reader().await?;
        let policy = requests::policy::current(&mut conn).await?;
        let rows = datasets::by_id(&mut conn, dataset).await?;
        drop(conn);
        self.held_to(&acting, Action::ModelUsed, self.managed.check_policy(&policy)).await?;
        if let Err(refused) = leave(&policy, &rows) {
            let entry = self.entry(acting.actor(), Action::ModelUsed).object(ObjectKind::Job, job, None);
            let entry = entry.object(ObjectKind::Dataset, dataset, None).refused(&refused);
            self.record(STEP, &entry).await?;
            return Err(refused);
        }
        free(&path)?;
        let mut conn = self.reader().await?;
        self.check_at_rest(&mut conn).await?;
        let usable = self.usable(&mut conn, job).await?;
        check_dataset(&rows, &usable)?;
        let opt_outs = self.opt_outs(&mut conn).await?;
        drop(conn);
        let trained_on = match &usable.trained_on {
            Some(TrainedOn { dataset, .. }) => Some((self.snapshot(dataset), self.snapshot_key(dataset).await?)),
            None => None,
        };
        let opted_out_since = usable.trained_on.as_ref().map_or(0, |trained| trained.opted_out_since);
        let learned_from = usable.trained_on.as_ref().map(|trained| trained.dataset.id);
        let (snapshot, list) = (rows.document.digest(), Digest::of(&opt_outs.to_bytes()));
        let (purpose, study_purpose) = (usable.found.purpose(), usable.purpose());
        let head = self.head_of_file(&usable, &rows, &policy);
        let order = PredictionOrder {
            policy: policy.clone(),
            plan: usable.found.plan,
            task: usable.task,
            model: usable.model,
            model_path: self.model_path(usable.found.federation, usable.model),
            rows: self.snapshot(&rows),
            key: self.snapshot_key(&rows).await?,
            trained_on,
            opt_outs,
            head,
            output_path: self.config.scratch().join("predictions.csv"),
            deadline: self.now().plus_millis(LONGEST_MS),
            share: self.share.limits().share,
        };
        let asked = Asked {
            person: acting.person,
            job,
            purpose,
            model: usable.model,
            study_purpose,
            dataset,
            snapshot,
            learned_from,
            path,
            policy,
            list,
            opted_out_since,
        };
        let turn = Arc::new(Turn::default());
        self.predicting = Arc::downgrade(&turn);
        let bench = Bench {
            executor: self.config.executor.clone(),
            memory_bytes: self.config.worker_memory_bytes,
            threads: self.share.limits().threads,
            clock: self.config.clock.clone(),
            notices: self.notices(),
            turn,
        };
        self.notify(Notice::Jobs);
        Ok(Predicting { asked, order, bench })
    }

    /// Asks again whether it may be done, enters it in the log, and then gives the file its name.
    pub(crate) async fn finish_prediction(&mut self, ended: Ended) -> Result<PredictionMade, PartyError> {
        let Ended { asked, made, _turn } = ended;
        let acting = self.inside_still(asked.person, STEP, PREDICTORS).await?;
        let entry = self.prediction_entry(&acting, &asked);
        let made = match made {
            Ok(made) => self.check_still(&asked).await.map(|()| made),
            Err(error) => Err(error),
        };
        self.notify(Notice::Jobs);
        let (part, done) = match made {
            Ok(made) => made,
            Err(error) => {
                self.record(STEP, &unmade(entry, &error)).await?;
                return Err(error);
            }
        };
        let Predicted { rows, incomplete, opted_out, bytes, digest } = done;
        let banner = if asked.policy.is_public_data() { "PUBLIC DATA; " } else { "" };
        let lines = rows + incomplete;
        let size = in_bytes(bytes);
        let words = format!("{banner}{lines} rows in a file of {size}, SHA-256 {digest}; research use only");
        let entry = entry.object(ObjectKind::Export, "predictions", Some(digest)).because(words);
        self.name_entered(STEP, entry, vec![(part, &asked.path)]).await?;
        let (notice, Asked { model, study_purpose: purpose, opted_out_since, .. }) = (RESEARCH_ONLY.to_owned(), asked);
        Ok(PredictionMade { notice, model, purpose, rows, incomplete, opted_out, opted_out_since, bytes, digest })
    }

    pub(crate) async fn stop_predicting(&mut self, session: Session) -> Result<(), PartyError> {
        self.inside(&session, "stop a prediction", PREDICTORS).await?;
        self.end_prediction();
        self.notify(Notice::Jobs);
        Ok(())
    }

    /// Stops the prediction that is being made, if one is.
    pub(crate) fn end_prediction(&self) {
        if let Some(turn) = self.predicting.upgrade() {
            turn.stop();
        }
    }

    /// Refuses work while people or the log want none, or other work is done.
    async fn check_at_rest(&self, conn: &mut SqliteConnection) -> Result<(), PartyError> {
        check_wanted(conn).await?;
        let no = |words: &str| Err(PartyError::state(words));
        if let Some(Pause::QuietHours { until }) = self.share.pause() {
            return no(&format!("in quiet hours nothing is computed here; they end at {until}"));
        }
        if self.predicting.strong_count() > 0 {
            return no("another prediction is being made; wait for its end, or stop it");
        }
        // One that rests because somebody works here would have them wait for themselves.
        if self.running().any(|(_, work)| !work.rests()) {
            return no("a round is computed on this machine, one piece of work at a time; try again when it is done");
        }
        Ok(())
    }

    fn prediction_entry(&self, acting: &Acting, asked: &Asked) -> Entry {
        self.entry(acting.actor(), Action::ModelUsed)
            .object(ObjectKind::Model, asked.model.short(), Some(asked.model))
            .object(ObjectKind::Job, asked.job, None)
            .object(ObjectKind::Dataset, asked.dataset, None)
            .object(ObjectKind::Snapshot, asked.snapshot, Some(asked.snapshot))
            .purpose(asked.purpose)
    }

    /// Whether what was asked before the work still holds after it.
    async fn check_still(&self, asked: &Asked) -> Result<(), PartyError> {
        let no = |words: &str| Err(PartyError::state(words));
        let mut conn = self.reader().await?;
        let policy = requests::policy::current(&mut conn).await?;
        self.managed.check_policy(&policy)?;
        leave(&policy, &datasets::by_id(&mut conn, asked.dataset).await?)?;
        // What the file says of itself was said under that one.
        if policy != asked.policy {
            return no("the policy was changed meanwhile; make the predictions again");
        }
        for dataset in std::iter::once(asked.dataset).chain(asked.learned_from) {
            if datasets::by_id(&mut conn, dataset).await?.is_removed {
                return no("a dataset that it takes was removed meanwhile");
            }
        }
        check_wanted(&mut conn).await?;
        // PRIVACY: who opted out while it was computed is in it.
        if Digest::of(&self.opt_outs(&mut conn).await?.to_bytes()) != asked.list {
            return no("the opt-out list was changed meanwhile; make the predictions again");
        }
        Ok(())
    }
}

impl Predicting {
    /// Makes the file, beside its place and under another name.
    pub(crate) fn run(self) -> Ended {
        let Self { asked, order, bench } = self;
        let made = written(&asked, order, &bench);
        Ended { asked, made, _turn: bench.turn }
    }
}

fn written(asked: &Asked, mut order: PredictionOrder, bench: &Bench) -> Result<(Part, Predicted), PartyError> {
    let fail = |error| PartyError::file("write", &asked.path, error);
    // First of all: nobody is to wait for work whose place cannot be written to.
    let part = Part::create(&asked.path).map_err(fail)?;
    check_model(&order.model_path, order.model)?;
    let scratch =
        Part::create(&order.output_path).map_err(|error| PartyError::file("write", &order.output_path, error))?;
    order.output_path = scratch.path().to_owned();
    let done = match bench.run(&order) {
        PredictionEvent::Done(done) => done,
        PredictionEvent::Refused(refusal) => return Err(PartyError::Refused(refusal)),
        PredictionEvent::Failed(Failure { local, outward }) => {
            return Err(PartyError::Prediction { reason: local, outward: outward.words() });
        }
        PredictionEvent::Progress(_) => {
            return Err(PartyError::state("the worker process ended in the middle of its work"));
        }
    };
    let mut from = File::open(scratch.path()).map_err(|error| PartyError::file("read", scratch.path(), error))?;
    let (_, digest, bytes) = copied(&mut from, &mut part.file()).map_err(fail)?;
    if (digest, bytes) != (done.digest, done.bytes) {
        return Err(PartyError::state("what the worker process wrote was changed before it was taken"));
    }
    part.file().sync_all().map_err(fail)?;
    Ok((part, done))
}

/// Refuses work while people or the log want none.
async fn check_wanted(conn: &mut SqliteConnection) -> Result<(), PartyError> {
    let no = |words: &str| Err(PartyError::state(words));
    if setting(conn, "stopped").await?.is_some() {
        return no("this site has stopped all work");
    }
    if audit::verify::holds(conn).await? {
        return no("the audit log of this site is not intact; first somebody acknowledges that alarm");
    }
    if restored::is_unconfirmed(conn).await? {
        return no("this site was restored from a backup, and opt-outs may be missing; first confirm the backup");
    }
    Ok(())
}

/// What the log says of an attempt that came to nothing. A column's name or a count is for those who may see the data.
fn unmade(entry: Entry, error: &PartyError) -> Entry {
    match error {
        PartyError::Prediction { outward, .. } => entry.failed(outward),
        PartyError::Refused(_) | PartyError::Managed(_) => entry.refused(error),
        other => entry.failed(other),
    }
}

/// Whether the policy lets a dataset be used. The child asks for itself.
fn leave(policy: &Policy, rows: &Dataset) -> Result<(), PartyError> {
    LeaveToPredict::under(policy, rows.document.digest(), rows.document.public).map(drop).map_err(PartyError::Refused)
}
