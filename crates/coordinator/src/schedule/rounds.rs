//! Rounds of a running job: they open one after the other, take inputs, and give results.

use std::collections::BTreeMap;

use hospes_ledger::{Action as Done, Actor, ObjectKind};
use hospes_privacy::secagg::Aggregator;
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId, Timestamp};
use hospes_protocol::message::{RoundOutcome, RoundReply, ToSite, UploadKind, UploadReceipt};
use hospes_protocol::plan::{self, Strategy};
use hospes_protocol::round::coordinator::{Action, Event, Round, Step as Stage};
use hospes_protocol::round::{Mode, Phase, RosterEntry, RoundHeader, plain_k_min};
use hospes_protocol::sign::Signed;
use hospes_protocol::{limits, text, version};

use super::driver::Driver;
use super::early::Judged;
use super::job::{Job, LiveRound, Quorum};
use super::lifecycle::attempts_used;
use super::secure;
use super::step::{After, Receipt, Step};
use super::studies::REASON_CHARS;
use super::work::{Finished, Made, NotMade, Outcome};
use super::{Rejection, RejectionCode};
use crate::Error;
use crate::aggregate::content::Content;
use crate::aggregate::staging::{StagedUpload, Wanted};
use crate::store::jobs::{JobState, TaskState};
use crate::store::results::{ModelRow, ModelState};
use crate::store::rounds::{RoundState, UploadRow};

impl Driver {
    /// Goes on with a running job wherever it stands: makes the initial model, opens the next round, or ends the job.
    pub(super) async fn advance(&mut self, step: &mut Step, job: JobId) -> Result<(), Error> {
        let context = self.context.clone();
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let idle = found.state == JobState::Running && found.round.is_none() && !found.preparing;
        if !idle || step.now < found.hold_until {
            return Ok(());
        }
        let Some(task) = found.current().cloned() else { return Box::pin(self.succeed(step, job)).await };
        if found.starts_from_model(&task.name) && task.model.is_none() {
            found.preparing = true;
            step.after.push(After::Initial(job));
            return Ok(());
        }
        let sessions = &self.sessions;
        let since = found.since;
        let lost = |site| sessions.lost(site).unwrap_or(since);
        // Asked each time, because another replica may have locked a site out.
        let locked = context.store.locked_sites().await?;
        found.grace_until = None;
        let is_masked = plan::masks::is_masked(&found.plan, &task.name);
        let fewest = found.fewest(&task.name).max(if is_masked { secure::fewest(&context.settings) } else { 0 });
        match found.quorum(fewest, step.now, context.settings.grace_ms, &locked, |site| sessions.is_open(site), lost) {
            Quorum::Until(then) => {
                found.grace_until = Some(then);
                Ok(())
            }
            Quorum::Starved => {
                let since = *found.starved.get_or_insert(step.now);
                if step.now.since(since) < context.settings.quorum_ms {
                    return Ok(());
                }
                let fewest = if fewest == 2 { "two".to_owned() } else { fewest.to_string() };
                let reason = format!(
                    "fewer than {fewest} sites that may take part were connected for too long; run the job again when \
                     they are"
                );
                Box::pin(self.end_job(step, job, JobState::Timeout, &reason, None)).await
            }
            Quorum::Ready(sites) => {
                found.starved = None;
                // Who cannot deal to each other can report figures beside each other.
                let sites = if is_masked { secure::apart(&sites, &found.apart, fewest) } else { sites };
                Box::pin(self.open_round(step, job, &task.name, &sites)).await
            }
        }
    }

    async fn open_round(&mut self, step: &mut Step, job: JobId, task: &str, sites: &[SiteId]) -> Result<(), Error> {
        let context = self.context.clone();
        if sites.iter().any(|site| !self.keys.contains_key(site)) {
            self.read_keys().await?;
        }
        let keys = &self.keys;
        let entry = |site: &SiteId| keys.get(site).map(|identity| RosterEntry { site: *site, identity: *identity });
        let roster: Vec<RosterEntry> = sites.iter().filter_map(entry).collect();
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let round = found.task_mut(task).map_or(0, |task| task.done) + 1;
        let used = attempts_used(task, round, found.last_attempt);
        if let Some(reason) = used.or_else(|| too_many(found, task, sites.len())) {
            return self.end_job(step, job, JobState::Failed, &reason, None).await;
        }
        let header = header(&context, found, task, roster, step.now);
        let asked: Vec<SiteId> = header.asked().collect();
        let masks = match secure::open(&header, &found.plan) {
            Ok(masks) => masks,
            Err(refusal) => {
                let sites = sites.len();
                let reason = format!("a round with secure aggregation of {sites} sites cannot be opened: {refusal}");
                return self.end_job(step, job, JobState::Failed, &reason, None).await;
            }
        };
        let wanted = wanted(&header, &found.plan, masks.as_deref());
        if !context.staging.has_room(asked.len(), wanted.content.bytes())? {
            let reason = format!(
                "the coordinator's disk has no room for {} payloads of {} bytes; make room and run the job again",
                asked.len() + 4,
                wanted.content.bytes()
            );
            return self.end_job(step, job, JobState::Failed, &reason, None).await;
        }
        let (now, study) = (step.now, found.study);
        let signed = match Signed::new(header, &context.key) {
            Ok(signed) => signed,
            Err(error) => {
                let reason = format!("a round of {} sites cannot be opened: {error}", sites.len());
                return self.end_job(step, job, JobState::Failed, &reason, None).await;
            }
        };
        let key = signed.document.key();
        let tx = step.job(&context, job).await?;
        tx.insert_round(&signed, now).await?;
        let state =
            found.task_mut(task).map_or(TaskState::Running, |t| std::mem::replace(&mut t.state, TaskState::Running));
        if state == TaskState::Waiting {
            tx.set_task_state(job, task, TaskState::Waiting, TaskState::Running, None, now).await?;
        }
        found.last_attempt = key.attempt;
        // Nobody knows of the round before it is committed, so nothing of it can arrive before; what lies there from an
        // attempt that was never committed belongs to nobody.
        context.staging.discard(&key)?;
        context.staging.open(wanted)?;
        let machine = Round::open(&signed.document, context.settings.patience_ms, now);
        let detail = format!("{task} {}, {} sites", progress(found, task, key.round), asked.len());
        step.send_all(asked, ToSite::RoundOpen(Box::new(signed.clone())));
        let digest = signed.document.digest();
        let (stored, told) = (RoundState::Open, BTreeMap::new());
        found.round = Some(LiveRound { key: key.clone(), header: signed, machine, masks, told, stored });
        let entry = self.job_entry(now, Actor::Engine, Done::RoundOpened, study, job);
        step.record(entry.object(ObjectKind::Round, short(&key), Some(digest)));
        step.live(study, Some(job), "round open", detail);
        Ok(())
    }

    /// A site answered a round's offer.
    pub(super) async fn reply(
        &mut self,
        step: &mut Step,
        site: SiteId,
        round: &RoundKey,
        reply: RoundReply,
    ) -> Result<(), Error> {
        let Some(found) = self.job_of(round) else { return Ok(()) };
        let (study, job) = (found.study, found.job);
        if !found.is_in_round(site) {
            tracing::warn!(%site, %round, "an answer of a site that is not in the round is ignored");
            return Ok(());
        }
        let entry = |action| {
            let entry = self.job_entry(step.now, Actor::peer(site), action, study, job);
            entry.object(ObjectKind::Round, short(round), None)
        };
        let shown = |refusal: &hospes_protocol::approval::Refusal| {
            let mut refusal = refusal.clone();
            refusal.detail = text::shown(&refusal.detail, REASON_CHARS);
            refusal
        };
        let (entry, reply) = match &reply {
            RoundReply::Working => (None, reply),
            RoundReply::Refused(refusal) => {
                (Some(entry(Done::PermitRefused).refused(refusal)), RoundReply::Refused(shown(refusal)))
            }
            RoundReply::Withdrawn(refusal) => {
                (Some(entry(Done::UpdateWithdrawn).refused(refusal)), RoundReply::Withdrawn(shown(refusal)))
            }
            RoundReply::Failed(reason) => {
                let reason = text::shown(reason, REASON_CHARS);
                (Some(entry(Done::TrainingFailed).failed(&reason)), RoundReply::Failed(reason))
            }
        };
        if let Some(entry) = entry {
            step.record_limited(&self.context, site, short(round), entry);
        }
        self.round_event(step, job, Event::Reply { site, reply }).await
    }

    /// A site works on.
    pub(super) async fn progress(
        &mut self,
        step: &mut Step,
        site: SiteId,
        round: &RoundKey,
        done: u32,
        total: u32,
    ) -> Result<(), Error> {
        let Some(found) = self.job_of(round).filter(|job| job.is_in_round(site)) else { return Ok(()) };
        let (study, job) = (found.study, found.job);
        step.live(study, Some(job), "site progress", format!("{site} {done}/{total}"));
        // It can be the event with which a round moves on or ends: the time has passed with it.
        self.round_event(step, job, Event::Progress { site }).await
    }

    /// An upload is durable here.
    pub(super) async fn uploaded(
        &mut self,
        step: &mut Step,
        site: SiteId,
        upload: &StagedUpload,
    ) -> Result<Receipt, Error> {
        let request = upload.request();
        let Some(job) = self.job_of(&request.round).map(|job| job.job) else {
            return self.uploaded_before(step, site, upload).await;
        };
        if let Some(rejection) = self.take_input(step, job, upload).await? {
            return Ok(Err(rejection));
        }
        let event = Event::Sent { site, step: Stage::Input, digest: request.digest };
        match self.round_event_for(step, job, event, Some(upload)).await? {
            Some(answer) => Ok(answer),
            None => Ok(Err(Rejection::new(RejectionCode::Conflict, "the round is over"))),
        }
    }

    /// An upload of a round that is over: if it was confirmed before, the receipt got lost, and is given again.
    async fn uploaded_before(
        &mut self,
        step: &mut Step,
        site: SiteId,
        upload: &StagedUpload,
    ) -> Result<Receipt, Error> {
        self.flush(step).await?;
        let request = upload.request();
        let known = self.context.store.uploads(&request.round).await?;
        match known.iter().find(|row| row.site == site && row.digest == request.digest) {
            Some(row) => Ok(Ok(self.receipt(site, &request.round, request.digest, row.at)?)),
            None => Ok(Err(Rejection::new(RejectionCode::Conflict, "the round is over; this upload is not in it"))),
        }
    }

    fn receipt(
        &self,
        site: SiteId,
        round: &RoundKey,
        digest: Digest,
        at: Timestamp,
    ) -> Result<Box<Signed<UploadReceipt>>, Error> {
        let receipt = UploadReceipt { federation: self.context.federation(), site, round: round.clone(), digest, at };
        Ok(Box::new(Signed::new(receipt, &self.context.key)?))
    }

    /// The running job whose present round this is.
    pub(super) fn job_of(&self, round: &RoundKey) -> Option<&Job> {
        self.jobs.get(&round.job).filter(|job| job.round.as_ref().is_some_and(|live| live.key == *round))
    }

    /// Tells a round that time passed, after what was heard of its uploads.
    pub(super) async fn tick_round(&mut self, step: &mut Step, job: JobId) -> Result<(), Error> {
        let Some(round) = self.jobs.get_mut(&job).and_then(|job| job.round.as_mut()) else { return Ok(()) };
        if round.machine.wake().is_none_or(|wake| wake > step.now) {
            return Ok(());
        }
        let mut actions = Vec::new();
        for (site, heard) in self.context.staging.heard(&round.key) {
            actions.extend(round.machine.on(Event::Progress { site }, heard));
        }
        self.act(step, job, actions, None).await?;
        self.round_event(step, job, Event::Tick).await
    }

    pub(super) async fn round_event(&mut self, step: &mut Step, job: JobId, event: Event) -> Result<(), Error> {
        self.round_event_for(step, job, event, None).await.map(drop)
    }

    /// Applies an event to a job's round, and does what the round says. The result is the answer to an upload.
    pub(super) async fn round_event_for(
        &mut self,
        step: &mut Step,
        job: JobId,
        event: Event,
        upload: Option<&StagedUpload>,
    ) -> Result<Option<Receipt>, Error> {
        let Some(round) = self.jobs.get_mut(&job).and_then(|job| job.round.as_mut()) else { return Ok(None) };
        let actions = round.machine.on(event, step.now);
        self.act(step, job, actions, upload).await
    }

    /// Does what a job's round says. The result is the answer to an upload.
    pub(super) async fn act(
        &mut self,
        step: &mut Step,
        job: JobId,
        actions: Vec<Action>,
        upload: Option<&StagedUpload>,
    ) -> Result<Option<Receipt>, Error> {
        let mut answer = None;
        for action in actions {
            match action {
                Action::Acknowledge { site, digest, first, .. } => {
                    let bytes = upload.map_or(0, |u| u.request().length);
                    answer = Some(Ok(self.acknowledge(step, job, site, digest, bytes, first).await?));
                }
                Action::Decline { reason, .. } => {
                    answer = Some(Err(Rejection::new(RejectionCode::Conflict, reason)));
                }
                Action::Out { .. } => self.store_outs(step, job).await?,
                Action::Entered { phase, with } if self.is_secure(job) => {
                    self.secure_entered(step, job, &phase, &with).await?;
                }
                Action::Entered { with, .. } => self.fix_inputs(step, job, &with).await?,
                Action::Ended(phase) => self.round_over(step, job, phase).await?,
            }
        }
        Ok(answer)
    }

    fn is_secure(&self, job: JobId) -> bool {
        let round = self.jobs.get(&job).and_then(|job| job.round.as_ref());
        round.is_some_and(|round| round.header.document.is_secure())
    }

    async fn acknowledge(
        &mut self,
        step: &mut Step,
        job: JobId,
        site: SiteId,
        digest: Digest,
        bytes: u64,
        first: bool,
    ) -> Result<Box<Signed<UploadReceipt>>, Error> {
        let context = self.context.clone();
        let Some(found) = self.jobs.get(&job) else { return Err(Error::corrupt("job", "it is gone")) };
        let Some(round) = &found.round else { return Err(Error::corrupt("round", "it is gone")) };
        let key = round.key.clone();
        let is_figures = plan::masks::reports_figures(&found.plan, &key.task);
        let kind = if is_figures { ObjectKind::Figures } else { ObjectKind::Update };
        let receipt = self.receipt(site, &key, digest, step.now)?;
        if !first {
            context.store.seam().confirmed_again(&key, site);
        }
        if first {
            let row = UploadRow { site, digest, bytes, at: step.now };
            step.job(&context, job).await?.insert_upload(&key, &row).await?;
            let entry = self.job_entry(step.now, Actor::peer(site), Done::UploadReceived, found.study, job);
            step.record(entry.object(ObjectKind::Round, short(&key), None).object(kind, site, Some(digest)).object(
                ObjectKind::Receipt,
                site,
                Some(receipt.document.digest()),
            ));
        }
        Ok(receipt)
    }

    async fn store_outs(&mut self, step: &mut Step, job: JobId) -> Result<(), Error> {
        let context = self.context.clone();
        let Some(round) = self.jobs.get(&job).and_then(|job| job.round.as_ref()) else { return Ok(()) };
        if round.stored == RoundState::Open {
            let outs: BTreeMap<SiteId, String> = round.machine.out().map(|(s, r)| (s, r.to_owned())).collect();
            step.job(&context, job).await?.set_round_outs(&round.key, &outs).await?;
        }
        Ok(())
    }

    async fn fix_inputs(&mut self, step: &mut Step, job: JobId, with: &[SiteId]) -> Result<(), Error> {
        let context = self.context.clone();
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let Some(round) = &mut found.round else { return Ok(()) };
        if round.stored == RoundState::Open {
            step.job(&context, job).await?.commit_round(&round.key, with).await?;
            round.stored = RoundState::Committed;
        }
        step.after.push(After::Close(round.key.clone()));
        step.after.push(After::Reduce(job));
        step.live(found.study, Some(job), "inputs fixed", format!("{} sites", with.len()));
        Ok(())
    }

    /// A round ended without a result. (One with a result ends in [`Driver::publish`].)
    async fn round_over(&mut self, step: &mut Step, job: JobId, phase: Phase) -> Result<(), Error> {
        let (reason, to) = match phase {
            Phase::Abandoned(reason) => (reason, RoundState::Abandoned),
            Phase::Failed(reason) => (reason, RoundState::Failed),
            _ => return Ok(()),
        };
        let context = self.context.clone();
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let asked = found.asked();
        let Some(round) = found.round.take() else { return Ok(()) };
        let now = step.now;
        step.job(&context, job).await?.end_round(&round.key, round.stored, to, &reason, now).await?;
        found.failures += 1;
        let mut most = context.settings.attempts;
        if let Mode::Turn { site } = round.header.document.mode {
            // As `Store::skipped` reads it after a restart: who was cut short by the end of the job has its turn again.
            if to == RoundState::Abandoned {
                *found.skipped.entry(site).or_insert(0) += 1;
            }
            // Everybody gets the chance, as far as sites answer attempts at all.
            let members = u32::try_from(found.members.len()).unwrap_or(u32::MAX);
            most = most.max(members.min(limits::ROUND_ATTEMPTS));
        }
        let held = found.hold_until > now;
        if !held {
            found.hold_until = now.plus_millis(context.settings.retry_ms);
        }
        let (study, failures) = (found.study, found.failures);
        let outcome = RoundOutcome::Abandoned(reason.clone());
        step.send_all(asked, ToSite::RoundClosed { round: round.key.clone(), outcome });
        let entry = self.job_entry(now, Actor::Engine, Done::RoundClosed, study, job).failed(&reason);
        step.record(entry.object(ObjectKind::Round, short(&round.key), Some(round.header.document.digest())));
        step.checkpoint();
        step.live(study, Some(job), "round abandoned", reason.clone());
        let may_be_agreed = round.header.document.is_secure() && round.stored == RoundState::Committed;
        step.after.push(After::Discard(round.key.clone()));
        if failures >= most && !held {
            let reason = format!("{failures} attempts at a round failed, the last because {reason}");
            return Box::pin(self.end_job(step, job, JobState::Failed, &reason, None)).await;
        }
        match to {
            RoundState::Abandoned if may_be_agreed => Box::pin(self.pass_over(step, job, &round.key, &reason)).await,
            _ => Ok(()),
        }
    }

    /// Work in the background is done.
    pub(super) async fn finish(&mut self, step: &mut Step, finished: Finished) -> Result<(), Error> {
        match finished {
            Finished::Messages(sends) => {
                sends.into_iter().for_each(|(site, message)| step.send(site, message));
                Ok(())
            }
            Finished::Initial { job, task, result } => self.initial_made(step, job, &task, result).await,
            Finished::Reduced { round, result } => {
                let Some(job) = self.job_of(&round).map(|job| job.job) else {
                    return match result {
                        Ok(Outcome::Model(made, _)) => self.forget_model(step, made).await,
                        _ => Ok(()),
                    };
                };
                match result {
                    Ok(Outcome::Stopped(stopped)) => self.stop_fit(step, job, *stopped).await,
                    Ok(Outcome::Incomplete(reason)) => {
                        self.round_event(step, job, Event::NotReduced { reason, again: true }).await
                    }
                    Ok(result) => self.publish(step, job, result).await,
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, %round, "no sum");
                        // What went wrong is the operator's to read in the log; sites and researchers learn that it
                        // did.
                        let reason = "the coordinator could not take the sum; its log says why".to_owned();
                        self.round_event(step, job, Event::NotReduced { reason, again: true }).await
                    }
                }
            }
        }
    }

    async fn initial_made(
        &mut self,
        step: &mut Step,
        job: JobId,
        task: &str,
        result: Result<Made, NotMade>,
    ) -> Result<(), Error> {
        let context = self.context.clone();
        // After a failure the work is done anew, and what was begun before it can come in when the job is further.
        let is_wanted = |job: &&mut Job| job.preparing && job.current().is_some_and(|current| current.name == task);
        let Some(found) = self.jobs.get_mut(&job).filter(is_wanted) else {
            return match result {
                Ok(made) => self.forget_model(step, made).await,
                Err(_) => Ok(()),
            };
        };
        if let Ok(made) = &result
            && context.models.size(made.model).await?.is_none()
        {
            // Another job that began with the same model was done with it in this moment, and deleted it.
            step.after.push(After::Initial(job));
            return Ok(());
        }
        found.preparing = false;
        let made = match result {
            Ok(made) => made,
            Err(NotMade::NotThere(reason)) => {
                return self.end_job(step, job, JobState::Failed, &reason, None).await;
            }
            Err(NotMade::Failed(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, %job, "no initial model");
                let reason = "the coordinator could not write the initial model; its log says why";
                return self.end_job(step, job, JobState::Failed, reason, None).await;
            }
        };
        if let Some(task) = found.task_mut(task) {
            task.model = Some(made.model);
        }
        let now = step.now;
        let tx = step.job(&context, job).await?;
        tx.insert_model(&model_row(job, task, 0, made, ModelState::Checkpoint, now)).await?;
        tx.set_task_progress(job, task, 0, Some(made.model)).await?;
        self.advance(step, job).await
    }

    /// A round has its result: it is published, and the next one opens in the same step.
    async fn publish(&mut self, step: &mut Step, job: JobId, result: Outcome) -> Result<(), Error> {
        let context = self.context.clone();
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let asked = found.asked();
        let Some(mut round) = found.round.take() else { return Ok(()) };
        round.machine.on(Event::Reduced, step.now);
        if *round.machine.phase() != Phase::Published {
            // The sum of a round that is not waiting for one: nothing to publish.
            found.round = Some(round);
            return Ok(());
        }
        let (now, key, plan) = (step.now, round.key.clone(), found.plan.clone());
        let Some(task) = found.task_mut(&key.task) else { return Err(Error::corrupt("task", "it is gone")) };
        let judged = match &result {
            Outcome::Model(_, loss) => Judged::of(&context.store, &plan, &key, *loss).await?,
            _ => Judged::default(),
        };
        let early = judged.stops_at();
        let last = key.round >= task.rounds
            || early.is_some()
            || matches!(&result, Outcome::Fitted(fitted) if fitted.fit.is_some());
        task.done = match &result {
            // It converged before the rounds were over, and goes on with the last one.
            Outcome::Fitted(fitted) if fitted.sums.is_some() && !last => task.rounds.saturating_sub(1),
            _ => key.round,
        };
        let done = task.done;
        let tx = step.job(&context, job).await?;
        let digest = match result {
            Outcome::Model(made, _) => {
                let kept = judged.keep(tx, (&key, round.header.document.model), made, last, now).await?;
                task.model = Some(kept.model);
                step.after.extend(kept.free.into_iter().map(After::Delete));
                step.after.extend(kept.moments.into_iter().map(After::DeleteMoments));
                Some(kept.model)
            }
            Outcome::Figures(pooled) => {
                for (site, figures) in pooled.sites.iter().filter_map(|(site, of)| Some((site, of.as_ref()?))) {
                    tx.put_figures(job, &key.task, Some(*site), figures).await?;
                }
                tx.put_figures(job, &key.task, None, &pooled.sum).await?;
                None
            }
            Outcome::Fitted(fitted) => {
                let (made, free) = fitted.keep(tx, &key, now).await?;
                task.model = made.map(|made| made.model).or(task.model);
                step.after.extend(free.into_iter().map(After::Delete));
                made.map(|made| made.model)
            }
            Outcome::Stopped(_) | Outcome::Incomplete(_) => None,
        };
        let tx = step.job(&context, job).await?;
        tx.publish_round(&key, digest, now).await?;
        tx.set_task_progress(job, &key.task, done, digest).await?;
        if last {
            task.state = TaskState::Success;
            tx.set_task_state(job, &key.task, TaskState::Running, TaskState::Success, None, now).await?;
        }
        (found.last_attempt, found.failures, found.hold_until) = (0, 0, now);
        found.skipped.clear();
        found.turn = match round.header.document.mode {
            Mode::Turn { site } if !last => Some(site),
            _ => None,
        };
        let included = round.machine.included().to_vec();
        let mut detail = format!("{} {}, {} sites", key.task, progress(found, &key.task, key.round), included.len());
        if let Some(best) = early {
            // PRIVACY: not with what loss; figures are held until every site has released them.
            detail.push_str(&format!("; training ends early with the model of round {}", best.round));
        }
        let study = found.study;
        let outcome = RoundOutcome::Published { model: digest, included };
        step.send_all(asked, ToSite::RoundClosed { round: key.clone(), outcome });
        self.record_published(step, job, &round, digest);
        match digest {
            Some(model) => step.live_model(study, job, "round published", detail, model),
            None => step.live(study, Some(job), "round published", detail),
        }
        step.after.push(After::Discard(key));
        self.advance(step, job).await
    }

    fn record_published(&self, step: &mut Step, job: JobId, round: &LiveRound, model: Option<Digest>) {
        let (study, digest) = (round.header.document.study, round.header.document.digest());
        let entry = |action| self.job_entry(step.now, Actor::Engine, action, study, job);
        let closed = entry(Done::RoundClosed).object(ObjectKind::Round, short(&round.key), Some(digest));
        let published = model.map(|model| {
            let entry = entry(Done::ModelPublished).object(ObjectKind::Round, short(&round.key), Some(digest));
            entry.object(ObjectKind::Model, model, Some(model))
        });
        step.record(closed);
        if let Some(published) = published {
            step.record(published);
        }
        step.checkpoint();
    }
}

/// A round's name within its job; task names can be longer than what an entry takes.
pub(super) fn short(key: &RoundKey) -> String {
    let task: String = key.task.chars().take(100).collect();
    format!("{task}/{}.{}.{}", key.epoch, key.round, key.attempt)
}

fn progress(job: &Job, task: &str, round: u32) -> String {
    let rounds = job.tasks.iter().find(|t| t.name == task).map_or(0, |t| t.rounds);
    format!("{round}/{rounds}")
}

pub(super) fn model_row(job: JobId, task: &str, round: u32, made: Made, state: ModelState, at: Timestamp) -> ModelRow {
    ModelRow { model: made.model, job, task: task.to_owned(), round, bytes: made.bytes, state, at, card: None }
}

/// The header of the next round of a task.
fn header(context: &super::Context, job: &Job, task: &str, roster: Vec<RosterEntry>, now: Timestamp) -> RoundHeader {
    let found = job.tasks.iter().find(|t| t.name == task);
    let round = found.map_or(0, |t| t.done) + 1;
    let (tensors, quantise) = plan::masks::layout(&job.plan, task, round);
    let sites: Vec<SiteId> = roster.iter().map(|entry| entry.site).collect();
    RoundHeader {
        protocol: version::Version::V1,
        federation: context.federation(),
        study: job.study,
        job: job.job,
        task: task.to_owned(),
        epoch: context.epoch,
        round,
        attempt: job.last_attempt + 1,
        model: found.and_then(|t| job.model_of(t)),
        plan: job.plan.digest(),
        roster,
        mode: mode(context, job, task, &sites),
        tensors,
        quantise,
        deadline: now.plus_millis(context.settings.round_ms),
    }
}

/// How the updates of the next round travel, and of how many sites.
fn mode(context: &super::Context, job: &Job, task: &str, sites: &[SiteId]) -> Mode {
    let by_turns = job.strategy(task) == Some(&Strategy::Cyclic {});
    if let Some(site) = job.next_turn(sites).filter(|_| by_turns) {
        return Mode::Turn { site };
    }
    let n = u32::try_from(sites.len()).unwrap_or(u32::MAX);
    if plan::masks::is_masked(&job.plan, task) {
        return secure::mode(&context.settings, n, job.fewest(task));
    }
    Mode::Plain { k_min: plain_k_min(n, context.settings.min_parties).max(job.fewest(task)) }
}

/// Why a round cannot have so many sites, if it cannot.
fn too_many(job: &Job, task: &str, sites: usize) -> Option<String> {
    if sites > limits::SECURE_SITES && plan::masks::is_masked(&job.plan, task) {
        let most = limits::SECURE_SITES;
        return Some(format!("{sites} sites take part, and secure aggregation takes at most {most} in this version"));
    }
    let strategy = job.strategy(task)?;
    let most = strategy.most().filter(|most| sites > *most as usize)?;
    let name = strategy.name();
    Some(format!("{sites} sites take part, and {name} compares at most {most} in pairs; choose another strategy"))
}

/// A staged payload's content, for the round that it belongs to.
pub(super) fn wanted(header: &RoundHeader, plan: &plan::Plan, masks: Option<&Aggregator>) -> Wanted {
    let wanted = Wanted::new(header, plan::round_figures(plan, &header.task, header.round));
    match masks {
        Some(masks) => {
            let is_figures = plan::masks::reports_figures(plan, &header.task);
            let kind = if is_figures { UploadKind::Figures } else { UploadKind::Update };
            wanted.masked(masks.layout().clone(), kind)
        }
        None => wanted,
    }
}

/// Whether a payload still has the length that its round asks for.
pub(super) fn is_intact(content: &Content, upload: &StagedUpload) -> bool {
    content.check_announced(content.kind(), upload.request().length).is_ok()
}
