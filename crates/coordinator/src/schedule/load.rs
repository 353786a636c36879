//! From the store into memory: at the start, after a failure, and when another replica's job is taken over.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::id::{JobId, RoundKey, SiteId};
use hospes_protocol::plan::Strategy;
use hospes_protocol::round::coordinator::{Durable, Event, Round, Step as Stage, Taken};

use super::driver::Driver;
use super::job::{Job, LiveRound};
use super::rounds::{is_intact, wanted};
use super::secure::Known;
use super::step::{After, Step};
use crate::Error;
use crate::aggregate::staging::StagedUpload;
use crate::store::Dialect;
use crate::store::jobs::{JobRow, JobState};
use crate::store::rounds::{RoundRow, RoundState};

impl Driver {
    /// Loads everything that runs, and goes on with it. `first` is true at the start of the process, when nobody else
    /// works on files.
    pub(super) async fn load(&mut self, first: bool) -> Result<(), Error> {
        self.jobs.clear();
        self.read_keys().await?;
        let rows = self.context.store.open_jobs().await?;
        if first {
            let mut keep: Vec<RoundKey> = Vec::new();
            for row in &rows {
                keep.extend(self.context.store.open_rounds(row.job).await?.into_iter().map(|round| round.key));
            }
            self.context.staging.sweep(&keep)?;
            self.sweep_models().await?;
            self.missing_cards().await?;
        }
        let mut step = Step::new(self.context.now());
        // A store that can only be read is no store to work with.
        step.tx(&self.context).await?.set_meta("schedule_loaded", &self.context.now().to_string()).await?;
        for row in &rows {
            self.load_job(&mut step, row).await?;
        }
        self.commit(step).await?;
        for study in self.context.store.running_sweeps().await? {
            self.sweeps.look_at(study);
        }
        let mut step = Step::new(self.context.now());
        for study in self.context.store.studies_without_job().await? {
            // The last decision may have been stored just before the process ended.
            self.start_if_all_decided(&mut step, study).await?;
        }
        self.commit(step).await?;
        let mut step = Step::new(self.context.now());
        let connected: Vec<SiteId> = self.sessions.sites().map(|(site, _)| site).collect();
        for site in connected {
            self.greet_jobs(&mut step, site).await?;
        }
        self.commit(step).await
    }

    /// Jobs whose replica died.
    pub(super) async fn take_over(&mut self, step: &mut Step) -> Result<(), Error> {
        if self.context.store.dialect() == Dialect::Sqlite {
            // An SQLite file has one process; everything that is open is in its memory.
            return Ok(());
        }
        for study in self.context.store.running_sweeps().await? {
            self.sweeps.look_at(study);
        }
        for row in self.context.store.open_jobs().await? {
            if self.jobs.contains_key(&row.job) || !self.load_job(step, &row).await? {
                continue;
            }
            tracing::warn!(job = %row.job, "taken over from another replica");
            self.flush(step).await?;
            let connected: Vec<SiteId> = self.sessions.sites().map(|(site, _)| site).collect();
            for site in connected {
                self.greet_jobs(step, site).await?;
            }
        }
        Ok(())
    }

    /// Loads a job if this replica may run it; says whether it does.
    pub(super) async fn load_job(&mut self, step: &mut Step, row: &JobRow) -> Result<bool, Error> {
        let context = self.context.clone();
        let (job, now) = (row.job, step.now);
        let tx = step.tx(&context).await?;
        if !tx.lease_job(job, &context.replica, now, context.settings.lease_ms).await? {
            return Ok(false);
        }
        let store = &context.store;
        let study = store.study(row.study).await?.ok_or_else(|| Error::corrupt("study", "it is gone"))?;
        let plan = study.signed()?.document.run(row.setting).map_err(|e| Error::corrupt("study", e))?;
        let (members, tasks) = (store.job_members(job).await?, store.tasks(job).await?);
        let approved = self.approved(row.study, now).await?;
        let mut loaded = Job::new(row, plan, &members, &approved, &tasks, now);
        loaded.reserve_until = now.plus_millis(context.settings.reserve_ms);
        if let Some(task) = loaded.current() {
            let (name, done) = (task.name.clone(), task.done);
            loaded.last_attempt = store.last_attempt(job, &name, done + 1).await?;
            if loaded.strategy(&name) == Some(&Strategy::Cyclic {}) {
                loaded.turn = store.last_turn(job, &name).await?;
                loaded.skipped = store.skipped(job, &name, done + 1).await?;
            }
        }
        if loaded.state == JobState::Ready {
            let tx = step.job(&context, job).await?;
            tx.set_job_state(job, JobState::Ready, JobState::Waiting, None, now).await?;
            loaded.state = JobState::Waiting;
        }
        self.jobs.insert(job, loaded);
        if row.state == JobState::Running {
            for round in store.open_rounds(job).await? {
                self.load_round(step, job, &round).await?;
            }
            self.advance(step, job).await?;
        }
        Ok(true)
    }

    async fn load_round(&mut self, step: &mut Step, job: JobId, row: &RoundRow) -> Result<(), Error> {
        let context = self.context.clone();
        let header = context.store.round_header(&row.key).await?;
        let confirmed = context.store.uploads(&row.key).await?;
        let secure = Known::read(&context, &row.key, &confirmed).await?;
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let (masks, broken) = match secure.restore(&header.document, &found.plan) {
            Ok(masks) => (masks, None),
            Err(reason) => (None, Some(reason)),
        };
        let wanted = wanted(&header.document, &found.plan, masks.as_deref());
        let content = wanted.content.clone();
        let inputs: BTreeMap<_, _> = confirmed.iter().map(|upload| (upload.site, upload.digest)).collect();
        let known: BTreeSet<SiteId> = inputs.keys().copied().collect();
        let inputs = context.store.seam().remembered(inputs);
        let steps = steps(&secure);
        let durable = Durable { inputs, out: row.outs.clone(), included: row.included.clone(), steps };
        let staged: Vec<StagedUpload> = context.staging.open(wanted)?;
        let (machine, actions) = Round::restore(&header.document, context.settings.patience_ms, durable, step.now);
        let told = BTreeMap::new();
        found.round = Some(LiveRound { key: row.key.clone(), header, machine, masks, told, stored: row.state });
        if let Some(reason) = broken {
            let reason = format!("its session cannot be made anew: {reason}");
            return self.round_event(step, job, Event::Broken { reason }).await;
        }
        self.act(step, job, actions, None).await?;
        if row.state == RoundState::Committed {
            step.after.push(After::Close(row.key.clone()));
            return Ok(());
        }
        // Complete and durable, but its confirmation was not: it counts all the same.
        for upload in staged.iter().filter(|u| !known.contains(&u.request().site) && is_intact(&content, u)) {
            if !context.staging.recheck(upload).await? {
                tracing::error!(path = %upload.path().display(), "a payload was altered on the disk; it is asked for again");
                continue;
            }
            if self.take_input(step, job, upload).await?.is_some() {
                continue;
            }
            let event =
                Event::Sent { site: upload.request().site, step: Stage::Input, digest: upload.request().digest };
            self.round_event_for(step, job, event, Some(upload)).await?;
        }
        Ok(())
    }
}

/// The steps of a round with secure aggregation, as its machine wants to know them.
fn steps(known: &Known) -> BTreeMap<Stage, Taken> {
    let mut steps: BTreeMap<Stage, Taken> = BTreeMap::new();
    for said in &known.messages {
        steps.entry(said.step).or_default().sent.insert(said.site, said.digest());
    }
    for (stage, with) in &known.steps {
        steps.entry(*stage).or_default().with = Some(with.clone());
    }
    steps
}
