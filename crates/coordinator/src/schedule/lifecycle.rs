//! From a study to a job and to its end: two-phase start, release, cancellation, rerun.

use std::collections::{BTreeMap, BTreeSet};

use hospes_ledger::{Action, Actor, Entry, ObjectKind, Purpose};
use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::id::{JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::message::ToSite;
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::round::coordinator as round;
use hospes_protocol::study::Study;
use hospes_protocol::{limits, text};

use super::driver::Driver;
use super::job::Job;
use super::secure;
use super::step::{After, Step};
use super::studies::{REASON_CHARS, no_study};
use super::{Answer, Rejection, RejectionCode, Reply};
use crate::store::jobs::{JobMemberRow, JobRow, JobState, MemberState, NewJob, TaskRow, TaskState};
use crate::store::results::ModelState;
use crate::store::{Caller, StudyState};
use crate::{Error, enrol, random};

/// Who starts a job when every member has decided.
const AUTOMATIC: &str = "automatic start";

impl Driver {
    /// Starts a job with the members that have approved so far, because somebody wants it.
    pub(super) async fn start(&mut self, step: &mut Step, study: StudyId, by: &Caller) -> Answer {
        self.flush(step).await?;
        match self.context.store.study(study).await? {
            None => return Ok(Err(no_study(study))),
            Some(row) if row.state == StudyState::Withdrawn => {
                return Ok(Err(Rejection::new(RejectionCode::Conflict, "the study was withdrawn")));
            }
            Some(_) => {}
        }
        let document = super::studies::document(&self.context, study).await?;
        if let Some(sweep) = self.context.store.sweep(study).await? {
            let reason = format!("the study's settings are run once, and that is {}; submit it again", sweep.state);
            return Ok(Err(Rejection::new(RejectionCode::Conflict, reason)));
        }
        if let Some(open) = self.context.store.open_job(study).await? {
            let reason = format!("job {} of this study is {}", open.job, open.state);
            return Ok(Err(Rejection::new(RejectionCode::Conflict, reason)));
        }
        let approved = self.approved(study, step.now).await?;
        if approved.len() < 2 {
            let reason = format!("{} of its members have approved, a job needs at least two", approved.len());
            return Ok(Err(Rejection::new(RejectionCode::Conflict, reason)));
        }
        if document.sweep.is_some() {
            let first = self.begin_sweep(step, &document, &by.name, enrol::actor(by)).await?;
            return Ok(first.map(Reply::Job).ok_or_else(elsewhere));
        }
        let job = self.make_job(step, &document, None, &approved, &by.name, enrol::actor(by)).await?;
        Ok(Ok(Reply::Job(job)))
    }

    /// Starts the first job of a study as soon as every member has decided and at least two have approved.
    pub(super) async fn start_if_all_decided(&mut self, step: &mut Step, study: StudyId) -> Result<(), Error> {
        let store = &self.context.store;
        let offered = store.study(study).await?.is_some_and(|row| row.state == StudyState::Offered);
        let decided = store.decisions(study).await?.iter().all(|member| member.decision.is_some());
        if !offered || !decided || !store.jobs(Some(study)).await?.is_empty() {
            return Ok(());
        }
        let approved = self.approved(study, step.now).await?;
        if approved.len() < 2 {
            return Ok(());
        }
        let document = super::studies::document(&self.context, study).await?;
        if document.sweep.is_some() {
            self.begin_sweep(step, &document, AUTOMATIC, Actor::Engine).await?;
        } else {
            self.make_job(step, &document, None, &approved, AUTOMATIC, Actor::Engine).await?;
        }
        Ok(())
    }

    /// Makes a job of a study, of one of its settings where it has many, and asks its members.
    pub(super) async fn make_job(
        &mut self,
        step: &mut Step,
        document: &Study,
        setting: Option<u32>,
        approved: &BTreeMap<SiteId, Timestamp>,
        by: &str,
        actor: Actor,
    ) -> Result<JobId, Error> {
        let context = self.context.clone();
        let study = document.id;
        let plan = document.run(setting).map_err(|e| Error::corrupt("study", e))?;
        let tasks = tasks(&plan);
        let members: Vec<SiteId> = approved.keys().copied().collect();
        let job = JobId::new(step.now, random()?);
        let now = step.now;
        let tx = step.job(&context, job).await?;
        tx.insert_job(&NewJob { job, study, at: now, by, setting, members: &members, tasks: &tasks }).await?;
        tx.set_job_state(job, JobState::Ready, JobState::Waiting, None, now).await?;
        let mut entry = self.job_entry(step.now, actor, Action::JobStarted, study, job);
        let which = setting.map(|n| format!("setting {n}: ")).unwrap_or_default();
        entry.reason = Some(format!("{which}its {} members are asked whether they can run it", members.len()));
        step.record(entry);
        let row = JobRow {
            job,
            study,
            state: JobState::Waiting,
            reason: None,
            created: step.now,
            created_by: by.to_owned(),
            started: None,
            ended: None,
            model: None,
            setting,
            figure: None,
            chosen: None,
        };
        let asked =
            |site: &SiteId| JobMemberRow { site: *site, state: MemberState::Asked, reason: None, released: None };
        let members: Vec<JobMemberRow> = members.iter().map(asked).collect();
        let tasks: Vec<TaskRow> = (0u32..).zip(&tasks).map(|(position, task)| new_task(position, task)).collect();
        self.jobs.insert(job, Job::new(&row, plan, &members, approved, &tasks, step.now));
        self.ask(step, job);
        Ok(job)
    }

    /// First phase of the start: asks every member whether it can run the job.
    fn ask(&mut self, step: &mut Step, job: JobId) {
        let until = step.now.plus_millis(self.context.settings.reserve_ms);
        let Some(job) = self.jobs.get_mut(&job) else { return };
        (job.reserve_until, job.put_off) = (until, None);
        let plan = Box::new(job.plan.clone());
        step.send_all(job.members.keys().copied(), ToSite::JobReserve { job: job.job, study: job.study, plan });
        step.live(job.study, Some(job.job), "job waiting", format!("{} sites are asked", job.members.len()));
    }

    /// A member answered the first phase.
    pub(super) async fn reserved(
        &mut self,
        step: &mut Step,
        site: SiteId,
        job: JobId,
        refusal: Option<Refusal>,
    ) -> Result<(), Error> {
        let context = self.context.clone();
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        // A yes from before the job was put off can arrive after it was asked about again, and what the site says now
        // then comes after it: a no always counts.
        let counts = found.members.get(&site).is_some_and(|m| m.state == MemberState::Asked || refusal.is_some());
        // What was asked before the job was put off counts no more; everybody is asked anew.
        if found.state != JobState::Waiting || !counts || found.put_off.is_some() {
            return Ok(());
        }
        if let Some(busy) = refusal.as_ref().filter(|refusal| refusal.code == RefusalCode::Busy) {
            return self.wait_for_room(step, site, job, busy).await;
        }
        let refusal = refusal.map(|r| text::shown(&r.detail, REASON_CHARS));
        let state = if refusal.is_some() { MemberState::Refused } else { MemberState::Reserved };
        if let Some(member) = found.members.get_mut(&site) {
            member.state = state;
        }
        let all = found.members.values().all(|m| m.state == MemberState::Reserved);
        let study = found.study;
        step.job(&context, job).await?.set_job_member(job, site, state, refusal.as_deref()).await?;
        if let Some(reason) = refusal {
            let entry = self.job_entry(step.now, Actor::peer(site), Action::JobStarted, study, job).refused(&reason);
            step.record(entry);
            let name = self.name(site).await?;
            return self.end_job(step, job, JobState::Failed, &format!("{name} cannot run it: {reason}"), None).await;
        }
        if all { self.run_job(step, job).await } else { Ok(()) }
    }

    /// Second phase of the start: everybody can run it, so it runs.
    async fn run_job(&mut self, step: &mut Step, job: JobId) -> Result<(), Error> {
        let context = self.context.clone();
        let now = step.now;
        let tx = step.job(&context, job).await?;
        tx.set_job_state(job, JobState::Waiting, JobState::Running, None, now).await?;
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        found.state = JobState::Running;
        found.hold_until = now;
        let (study, members): (_, Vec<SiteId>) = (found.study, found.members.keys().copied().collect());
        if found.setting.is_some() {
            self.sweeps.look_at(study);
        }
        step.send_all(members.iter().copied(), ToSite::JobStart { job });
        step.record(self.job_entry(now, Actor::Engine, Action::JobStarted, study, job));
        step.live(study, Some(job), "job running", format!("{} sites", members.len()));
        self.advance(step, job).await
    }

    /// A member may not take part any more.
    pub(super) async fn withdraw_member(
        &mut self,
        step: &mut Step,
        job: JobId,
        site: SiteId,
        reason: &str,
    ) -> Result<(), Error> {
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let Some(member) = found.members.get_mut(&site) else { return Ok(()) };
        member.approved = None;
        if found.state == JobState::Waiting {
            let name = self.name(site).await?;
            return self.end_job(step, job, JobState::Failed, &format!("{name} cannot run it: {reason}"), None).await;
        }
        let event = round::Event::Excluded { site, reason: reason.to_owned() };
        self.round_event(step, job, event).await
    }

    /// A site's people released the results of a job.
    pub(super) async fn release(&mut self, step: &mut Step, site: SiteId, job: JobId) -> Result<(), Error> {
        let context = self.context.clone();
        let Some(row) = context.store.job(job).await? else { return Ok(()) };
        let now = step.now;
        if step.tx(&context).await?.release_job(job, site, now).await? {
            step.record(self.job_entry(now, Actor::peer(site), Action::ResultsReleased, row.study, job));
            step.live(row.study, Some(job), "results released", format!("by {site}"));
        }
        Ok(())
    }

    /// Stops a job because somebody wants it.
    pub(super) async fn cancel(&mut self, step: &mut Step, job: JobId, by: &Caller, reason: &str) -> Answer {
        self.flush(step).await?;
        let Some(row) = self.context.store.job(job).await? else { return Ok(Err(no_job(job))) };
        if row.state.is_terminal() {
            return Ok(Err(Rejection::new(RejectionCode::Conflict, format!("the job is over: {}", row.state))));
        }
        if !self.jobs.contains_key(&job) {
            return Ok(Err(elsewhere()));
        }
        let reason = format!("cancelled by {}: {}", by.name, text::shown(reason, REASON_CHARS));
        self.end_job(step, job, JobState::Cancelled, &reason, Some(by)).await?;
        Ok(Ok(Reply::Job(job)))
    }

    /// Runs a job that failed or timed out again from its first task that is not done.
    pub(super) async fn rerun(&mut self, step: &mut Step, job: JobId, by: &Caller) -> Answer {
        self.flush(step).await?;
        let context = self.context.clone();
        let conflict = |reason: String| Ok(Err(Rejection::new(RejectionCode::Conflict, reason)));
        let Some(row) = context.store.job(job).await? else { return Ok(Err(no_job(job))) };
        let study = context.store.study(row.study).await?.ok_or_else(|| Error::corrupt("study", "it is gone"))?;
        if study.state == StudyState::Withdrawn {
            return conflict("the study was withdrawn".to_owned());
        }
        if row.setting.is_some() {
            return conflict("each of a study's settings is run once; submit the study again".to_owned());
        }
        if row.state == JobState::Cancelled {
            let reason = "the job was cancelled, and no site takes part again in one that was; start the study's next job \
                          instead (`hospesctl study start`), which counts as another run";
            return conflict(reason.to_owned());
        }
        if !row.state.may_become(JobState::Waiting) {
            return conflict(format!("the job is {}; only one that failed or timed out runs again", row.state));
        }
        if let Some(open) = context.store.open_job(row.study).await? {
            return conflict(format!("job {} of this study is {}", open.job, open.state));
        }
        let approved = self.approved(row.study, step.now).await?;
        if approved.len() < 2 {
            return conflict(format!("{} of its members have approved, a job needs at least two", approved.len()));
        }
        let tasks = context.store.tasks(job).await?;
        if let Some(task) = tasks.iter().find(|t| t.rounds > 0 && t.state != TaskState::Success) {
            let last = context.store.last_attempt(job, &task.task, task.done + 1).await?;
            if let Some(reason) = attempts_used(&task.task, task.done + 1, last) {
                return conflict(reason);
            }
            if let Some(reason) = secure::agreed(&context, job, &task.task, task.done + 1).await? {
                return conflict(reason);
            }
        }
        let members = context.store.job_members(job).await?;
        let now = step.now;
        if !step.tx(&context).await?.lease_job(job, &context.replica, now, context.settings.lease_ms).await? {
            return Ok(Err(elsewhere()));
        }
        let tx = step.job(&context, job).await?;
        tx.set_job_state(job, row.state, JobState::Waiting, None, now).await?;
        for task in tasks.iter().filter(|t| t.state != TaskState::Success && t.state != TaskState::Waiting) {
            tx.set_task_state(job, &task.task, task.state, TaskState::Waiting, None, now).await?;
        }
        for site in approved.keys() {
            tx.set_job_member(job, *site, MemberState::Asked, None).await?;
        }
        // Who takes no part this time is not asked.
        for member in members.iter().filter(|m| !approved.contains_key(&m.site)) {
            tx.set_job_member(job, member.site, MemberState::Refused, Some("its approval is not in force")).await?;
        }
        let mut entry = self.job_entry(now, enrol::actor(by), Action::JobStarted, row.study, job);
        entry.reason = Some("it runs again from its first task that is not done".to_owned());
        step.record(entry);
        self.flush(step).await?;
        let row = context.store.job(job).await?.ok_or_else(|| Error::corrupt("job", "it is gone"))?;
        self.load_job(step, &row).await?;
        self.ask(step, job);
        Ok(Ok(Reply::Job(job)))
    }

    /// Ends a job in whatever state it is, and everything that belongs to it.
    pub(super) async fn end_job(
        &mut self,
        step: &mut Step,
        job: JobId,
        end: JobState,
        reason: &str,
        by: Option<&Caller>,
    ) -> Result<(), Error> {
        if self.jobs.get(&job).is_some_and(|found| found.round.is_some()) {
            let event = round::Event::Cancelled { reason: reason.to_owned() };
            // Ending the round must not open another one, or end the job a second time.
            if let Some(found) = self.jobs.get_mut(&job) {
                found.hold_until = Timestamp::from_millis(i64::MAX);
            }
            Box::pin(self.round_event(step, job, event)).await?;
        }
        let context = self.context.clone();
        let Some(mut found) = self.jobs.remove(&job) else { return Ok(()) };
        let now = step.now;
        self.job_is_over(&found, now);
        let current = found.current().map(|task| task.name.clone());
        let tx = step.job(&context, job).await?;
        for task in found.tasks.iter_mut().filter(|task| !task.state.is_terminal()) {
            let next = task_end(task.state, end, current.as_deref() == Some(task.name.as_str()));
            tx.set_task_state(job, &task.name, task.state, next, Some(reason), now).await?;
            task.state = next;
        }
        tx.set_job_state(job, found.state, end, Some(reason), now).await?;
        let actor = by.map_or(Actor::Engine, enrol::actor);
        let action = if end == JobState::Cancelled { Action::JobCancelled } else { Action::JobEnded };
        step.record(self.job_entry(now, actor, action, found.study, job).failed(reason));
        let members = || found.members.keys().copied();
        if found.state == JobState::Waiting {
            step.send_all(members(), ToSite::JobRollback { job });
        }
        let (state, why) = (end.as_str().to_owned(), Some(reason.to_owned()));
        step.send_all(members(), ToSite::JobEnded { job, state, reason: why, model: None });
        step.live(found.study, Some(job), "job ended", format!("{end}: {reason}"));
        Ok(())
    }

    /// Every task is done.
    pub(super) async fn succeed(&mut self, step: &mut Step, job: JobId) -> Result<(), Error> {
        let context = self.context.clone();
        let Some(found) = self.jobs.remove(&job) else { return Ok(()) };
        self.job_is_over(&found, step.now);
        let (now, model) = (step.now, found.final_model());
        let tx = step.job(&context, job).await?;
        for task in found.tasks.iter().filter(|task| !task.state.is_terminal()) {
            tx.set_task_state(job, &task.name, task.state, TaskState::Success, None, now).await?;
        }
        if let Some(model) = model {
            tx.set_job_model(job, model).await?;
        }
        tx.set_job_state(job, found.state, JobState::Success, None, now).await?;
        let mut entry = self.job_entry(now, Actor::Engine, Action::JobEnded, found.study, job);
        if let Some(model) = model {
            entry = entry.object(ObjectKind::Model, model, Some(model));
        }
        step.record(entry);
        if let Some(setting) = found.setting {
            // Which one is the best is known when all are done; until then there is nothing to release.
            let reason = Some(super::studies::not_chosen(setting));
            let ended = ToSite::JobEnded { job, state: "success".to_owned(), reason, model: None };
            step.send_all(found.members.keys().copied(), ended);
            step.live(found.study, Some(job), "job success", format!("setting {setting}"));
            return Ok(());
        }
        let ended = ToSite::JobEnded { job, state: "success".to_owned(), reason: None, model };
        // Also to those that took part in an earlier run of it only: their people release the results too.
        let mut told: BTreeSet<SiteId> = context.store.took_part(job, None).await?.into_keys().collect();
        told.extend(found.members.keys());
        step.send_all(told, ended);
        let detail = "results are held until every site that took part releases them".to_owned();
        match model {
            Some(model) => step.live_model(found.study, job, "job success", detail, model),
            None => step.live(found.study, Some(job), "job success", detail),
        }
        step.after.push(After::Card(job));
        Ok(())
    }

    /// What the time alone brings to a job.
    pub(super) async fn tick_job(&mut self, step: &mut Step, job: JobId) -> Result<(), Error> {
        let context = self.context.clone();
        let Some(found) = self.jobs.get(&job) else { return Ok(()) };
        if step.now.since(found.leased) >= context.settings.lease_ms / 2 {
            step.job(&context, job).await?;
        }
        match found.state {
            JobState::Waiting if found.put_off.is_some() => {
                if found.put_off.is_none_or(|until| until > step.now) {
                    return Ok(());
                }
                if step.now.since(found.since) < context.settings.quorum_ms {
                    self.ask(step, job);
                    return Ok(());
                }
                let reason = "a site had no room for it for too long";
                self.end_job(step, job, JobState::Timeout, reason, None).await
            }
            JobState::Waiting if step.now >= found.reserve_until => {
                let silent: Vec<SiteId> = found.silent().collect();
                // A setting is compared with the others over the same sites, and so waits for one that is away.
                let away = silent.iter().all(|site| !self.sessions.is_open(*site));
                if found.setting.is_some() && away && step.now.since(found.since) < context.settings.quorum_ms {
                    let until = step.now.plus_millis(context.settings.reserve_ms);
                    self.jobs.entry(job).and_modify(|found| found.reserve_until = until);
                    return Ok(());
                }
                let mut names = Vec::new();
                for site in silent.iter().take(10) {
                    names.push(self.name(*site).await?);
                }
                let seconds = context.settings.reserve_ms / 1_000;
                let reason = format!(
                    "no answer within {seconds} s whether it can run from {}; run the job again when they are there",
                    names.join(", ")
                );
                self.end_job(step, job, JobState::Failed, &reason, None).await
            }
            JobState::Running => {
                self.tick_round(step, job).await?;
                self.advance(step, job).await
            }
            _ => Ok(()),
        }
    }

    /// When something is due in a job.
    pub(super) fn wake(&self, job: &Job) -> Option<Timestamp> {
        let settings = &self.context.settings;
        let lease = job.leased.plus_millis(settings.lease_ms / 2);
        let due = match (&job.state, &job.round) {
            (JobState::Waiting, _) => Some(job.put_off.unwrap_or(job.reserve_until)),
            (JobState::Running, Some(round)) => round.machine.wake(),
            (JobState::Running, None) if !job.preparing => {
                let now = self.context.now();
                let starved = job.starved.map(|since| since.plus_millis(settings.quorum_ms));
                [Some(job.hold_until), job.grace_until, starved].into_iter().flatten().filter(|due| *due > now).min()
            }
            _ => None,
        };
        Some(due.map_or(lease, |due| due.min(lease)))
    }

    /// Name of a site, for people.
    pub(super) async fn name(&self, site: SiteId) -> Result<String, Error> {
        Ok(self.context.store.site(site).await?.map_or_else(|| site.to_string(), |row| row.name))
    }

    /// A ledger entry about a job.
    pub(super) fn job_entry(&self, at: Timestamp, actor: Actor, action: Action, study: StudyId, job: JobId) -> Entry {
        let purpose = Purpose { study: Some(study), job: Some(job), approval: None };
        self.context.audit.entry(at, actor, action).purpose(purpose).object(ObjectKind::Job, job, None)
    }

    /// Files of models that nobody needs any more, from a crash between writing and recording.
    pub(super) async fn sweep_models(&self) -> Result<(), Error> {
        let mut known = BTreeSet::new();
        for model in self.context.models.list()? {
            let rows = self.context.store.model(model).await?;
            if rows.iter().any(|row| row.state != ModelState::Dropped) {
                known.insert(model);
            } else {
                self.context.models.delete(model).await?;
            }
        }
        for of in self.context.models.list_moments()? {
            let rows = self.context.store.models_of(of.job).await?;
            let goes_on = rows.iter().any(|row| {
                (&row.task, row.round, row.model) == (&of.task, of.round, of.model)
                    && row.state == ModelState::Checkpoint
            });
            if !goes_on {
                self.context.models.delete_moments(&of).await?;
            }
        }
        tracing::debug!(models = known.len(), "models on the shelf");
        Ok(())
    }
}

impl Job {
    /// Members that have not answered the first phase.
    fn silent(&self) -> impl Iterator<Item = SiteId> {
        self.members.iter().filter(|(_, m)| m.state == MemberState::Asked).map(|(site, _)| *site)
    }
}

/// How a task ends when its job ends without success.
fn task_end(state: TaskState, job: JobState, current: bool) -> TaskState {
    match (state, job) {
        (TaskState::Running, JobState::Timeout) if current => TaskState::Timeout,
        (TaskState::Running, JobState::Cancelled) => TaskState::Cancelled,
        (TaskState::Running, _) => TaskState::Failed,
        (TaskState::Waiting, JobState::Cancelled) => TaskState::Cancelled,
        _ => TaskState::Skipped,
    }
}

/// Name, component and rounds of a plan's tasks in the order in which they run.
fn tasks(plan: &Plan) -> Vec<(String, &'static str, u32)> {
    let task = |name: &str| {
        let component = &plan.tasks[name].component;
        (name.to_owned(), component.name(), component.rounds())
    };
    plan::order(plan).into_iter().map(task).collect()
}

fn new_task(position: u32, (task, component, rounds): &(String, &'static str, u32)) -> TaskRow {
    TaskRow {
        task: task.clone(),
        position,
        component: (*component).to_owned(),
        state: TaskState::Waiting,
        reason: None,
        rounds: *rounds,
        done: 0,
        model: None,
        started: None,
        ended: None,
    }
}

/// Why a round is not attempted again, if it is not: sites answer so many attempts and no more.
pub(super) fn attempts_used(task: &str, round: u32, attempts: u32) -> Option<String> {
    (attempts >= limits::ROUND_ATTEMPTS).then(|| {
        format!(
            "round {round} of '{task}' was attempted {attempts} times, and sites answer no further attempt; start the \
             study's next job instead (`hospesctl study start`), which counts as another run"
        )
    })
}

fn no_job(job: JobId) -> Rejection {
    Rejection::new(RejectionCode::NotFound, format!("there is no job {job}"))
}

pub(super) fn elsewhere() -> Rejection {
    let reason = "another replica of the coordinator runs this job, or did a moment ago; ask that one, or again later";
    Rejection::new(RejectionCode::Unavailable, reason)
}
