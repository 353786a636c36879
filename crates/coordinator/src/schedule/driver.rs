//! The loop: waits for events, applies them in one step, commits, and does what follows.

use std::collections::BTreeMap;
use std::time::Duration;

use hospes_ledger::{Action, Actor, ObjectKind, Purpose};
use hospes_protocol::id::{JobId, RoundKey, SiteId, Timestamp};
use hospes_protocol::message::{FromSite, Witness};
use hospes_protocol::sign::PublicKey;
use tokio::sync::mpsc;

use super::job::Job;
use super::sessions::Sessions;
use super::step::{self, After, Done, Step, Waiting};
use super::sweep::Sweeps;
use super::work::Finished;
use super::{Command, Context, Event, Reply};
use crate::store::{Caller, Dialect};
use crate::witness::{self, Budget, Witnesses};
use crate::{Error, enrol};

/// Events that become one step, at most.
const BATCH: usize = 256;
/// Longest sleep without an event, so that a clock that was turned is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Times between attempts to load the state again after a failure.
const RELOAD: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
];
/// Messages of sites that wait while the store cannot be written.
const UNHEARD: usize = 10_000;
/// How often a message is tried that makes steps fail.
const TRIES: u32 = 3;
/// Control messages are counted in the ledger once an hour.
const SUMMARY_MS: i64 = 60 * 60 * 1_000;

/// The single owner of everything that runs.
pub(super) struct Driver {
    pub context: Context,
    pub sessions: Sessions,
    /// Identity keys of the members, from the store.
    pub keys: BTreeMap<SiteId, PublicKey>,
    pub jobs: BTreeMap<JobId, Job>,
    pub sweeps: Sweeps,
    pub witnesses: Witnesses,
    pub finished: mpsc::UnboundedSender<Finished>,
    /// When to try again to make cards that could not be made.
    pub cards_due: Option<Timestamp>,
    /// Vouches that each member has had relayed lately.
    pub vouches: Budget,
    control: Control,
    looked: Timestamp,
    /// Whether the memory may differ from the store, because a step failed.
    pub failed: bool,
    /// What sites said in steps that failed, and since.
    unheard: Vec<Unheard>,
}

/// Counted control messages of the present hour.
struct Control {
    since: Timestamp,
    messages: u64,
}

/// Runs the schedule until all senders of events are gone.
///
/// # Errors
/// [`Error`] if the store cannot be read at the start. A failure later is logged and recovered from: what was in memory
/// is thrown away and loaded again, sessions stay open.
pub async fn run(context: Context, mut events: mpsc::Receiver<Event>) -> Result<(), Error> {
    let (finished, mut results) = mpsc::unbounded_channel();
    let mut driver = Driver::new(context, finished);
    driver.load(true).await?;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let sleep = driver.sleep();
        let more = tokio::select! {
            count = events.recv_many(&mut batch, BATCH) => count > 0,
            Some(finished) = results.recv() => {
                driver.step(Vec::new(), Some(finished)).await;
                true
            }
            () = tokio::time::sleep(sleep) => {
                driver.step(Vec::new(), None).await;
                true
            }
        };
        if !batch.is_empty() {
            driver.step(std::mem::take(&mut batch), None).await;
        }
        if !more || (driver.failed && !driver.recover(&mut events).await) {
            return Ok(());
        }
    }
}

/// What was heard of a site in a step that failed.
struct Unheard {
    site: SiteId,
    said: Said,
    tries: u32,
}

#[derive(Clone)]
enum Said {
    Message { session: u64, message: FromSite },
    UploadRefused { round: RoundKey, reason: String },
}

impl Unheard {
    fn event(&self) -> Event {
        let site = self.site;
        match self.said.clone() {
            Said::Message { session, message } => Event::Message { site, session, message },
            Said::UploadRefused { round, reason } => Event::UploadRefused { site, round, reason },
        }
    }
}

impl Driver {
    /// One that has loaded nothing yet.
    pub(super) fn new(context: Context, finished: mpsc::UnboundedSender<Finished>) -> Self {
        let now = context.now();
        Self {
            witnesses: Witnesses::new(context.federation(), now),
            context,
            sessions: Sessions::default(),
            keys: BTreeMap::new(),
            jobs: BTreeMap::new(),
            sweeps: Sweeps::default(),
            finished,
            cards_due: None,
            vouches: Budget::default(),
            control: Control { since: now, messages: 0 },
            looked: now,
            failed: false,
            unheard: Vec::new(),
        }
    }

    /// How long nothing is due.
    pub(super) fn sleep(&self) -> Duration {
        let now = self.context.now();
        let jobs = self.jobs.values().filter_map(|job| self.wake(job));
        let others = match self.context.store.dialect() {
            // Nobody tells this replica that another one died.
            Dialect::Postgres => Some(self.looked.plus_millis(self.context.settings.lease_ms)),
            Dialect::Sqlite => None,
        };
        let sweeps = self.sweeps.wake(now, self.context.settings.quorum_ms);
        let due =
            jobs.chain([self.witnesses.wake(&self.context)]).chain(others).chain(self.cards_due).chain(sweeps).min();
        let wait = due.map_or(LONGEST_SLEEP, |due| {
            Duration::from_millis(u64::try_from(due.since(now)).unwrap_or(0)).max(Duration::from_millis(1))
        });
        wait.min(LONGEST_SLEEP)
    }

    /// Applies events, and the time, and whatever finished in the background. A failure costs the memory, not the
    /// state, and nothing that a site said: that is tried again after the recovery.
    pub(super) async fn step(&mut self, events: Vec<Event>, finished: Option<Finished>) {
        let (mut unheard, mut joined, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for event in &events {
            match event {
                Event::Message { site, session, message } => {
                    let said = Said::Message { session: *session, message: message.clone() };
                    unheard.push(Unheard { site: *site, said, tries: 1 });
                }
                Event::UploadRefused { site, round, reason } => {
                    let said = Said::UploadRefused { round: round.clone(), reason: reason.clone() };
                    unheard.push(Unheard { site: *site, said, tries: 1 });
                }
                Event::Joined { site, .. } => joined.push(*site),
                Event::Left { site, session } => left.push((*site, *session)),
                Event::Uploaded { .. } | Event::Operator { .. } => {}
            }
        }
        if let Err(error) = Box::pin(self.apply(events, finished)).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the schedule loads its state again");
            self.failed = true;
            self.unheard.extend(unheard);
            for (site, session) in left {
                self.sessions.close(site, session, self.context.now());
            }
            for site in joined {
                // It was not greeted; it connects again.
                self.sessions.end(site, self.context.now());
            }
        }
    }

    /// Loads the state until it works, and hears what was not heard. Meanwhile nobody waits for an answer that cannot
    /// come. False if there is nobody left to work for.
    async fn recover(&mut self, events: &mut mpsc::Receiver<Event>) -> bool {
        let mut waits = RELOAD.iter().chain(std::iter::repeat(&RELOAD[RELOAD.len() - 1]));
        while self.failed {
            let until = tokio::time::Instant::now() + waits.next().copied().unwrap_or_default();
            while let Ok(event) = tokio::time::timeout_at(until, events.recv()).await {
                let Some(event) = event else { return false };
                self.put_off(event);
            }
            match Box::pin(self.load(false)).await {
                Ok(()) => self.hear().await,
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "the state cannot be loaded"),
            }
        }
        true
    }

    /// An event that comes while the state cannot be written.
    pub(super) fn put_off(&mut self, event: Event) {
        match event {
            Event::Operator { reply, .. } => drop(reply.send(Err(step::unavailable()))),
            Event::Uploaded { reply, .. } => drop(reply.send(Err(step::unavailable()))),
            Event::Left { site, session } => drop(self.sessions.close(site, session, self.context.now())),
            // Dropping the way to the site ends the session; it tries again.
            Event::Joined { .. } => {}
            Event::Message { site, session, message } if self.unheard.len() < UNHEARD => {
                self.unheard.push(Unheard { site, said: Said::Message { session, message }, tries: 0 });
            }
            Event::UploadRefused { site, round, reason } if self.unheard.len() < UNHEARD => {
                self.unheard.push(Unheard { site, said: Said::UploadRefused { round, reason }, tries: 0 });
            }
            Event::Message { site, .. } | Event::UploadRefused { site, .. } => {
                self.sessions.end(site, self.context.now());
            }
        }
    }

    /// Applies what sites said while it could not be written, one by one, so that one message that cannot be applied
    /// stops no other.
    pub(super) async fn hear(&mut self) {
        self.failed = false;
        let mut unheard = std::mem::take(&mut self.unheard).into_iter();
        while let Some(mut next) = unheard.next() {
            if let Err(error) = Box::pin(self.apply(vec![next.event()], None)).await {
                self.failed = true;
                next.tries += 1;
                if next.tries <= TRIES {
                    self.unheard.push(next);
                } else {
                    let site = next.site;
                    tracing::error!(error = &error as &dyn std::error::Error, %site, "what a site said is given up");
                }
                self.unheard.extend(unheard);
                return;
            }
        }
    }

    async fn apply(&mut self, events: Vec<Event>, finished: Option<Finished>) -> Result<(), Error> {
        let mut step = Step::new(self.context.now());
        let result = self.apply_all(&mut step, events, finished).await;
        if let Err(error) = result {
            step.abandon();
            return Err(error);
        }
        self.commit(step).await
    }

    async fn apply_all(
        &mut self,
        step: &mut Step,
        events: Vec<Event>,
        finished: Option<Finished>,
    ) -> Result<(), Error> {
        if let Some(finished) = finished {
            self.finish(step, finished).await?;
        }
        for event in events {
            self.event(step, event).await?;
        }
        self.tick(step).await
    }

    /// Commits a step, and does what may happen only now.
    pub(super) async fn commit(&mut self, mut step: Step) -> Result<(), Error> {
        if step.is_open() {
            let context = self.context.clone();
            self.witnesses.write(step.tx(&context).await?).await?;
        }
        for job in step.leased() {
            if let Some(job) = self.jobs.get_mut(&job) {
                job.leased = step.now;
            }
        }
        let now = step.now;
        // From here on nothing may fail: what is committed must not be done again.
        let Done { sends, after } = step.commit(&self.context).await?;
        for (site, message) in sends {
            if !self.witnesses.is_stale(site, &message) {
                self.sessions.send(site, message, now);
            }
        }
        for after in after {
            self.after(after).await;
        }
        Ok(())
    }

    /// Commits what a step has so far, so that the store can be read, and begins another.
    pub(super) async fn flush(&mut self, step: &mut Step) -> Result<(), Error> {
        if step.is_open() {
            let open = std::mem::replace(step, Step::new(step.now));
            Box::pin(self.commit(open)).await?;
        }
        Ok(())
    }

    async fn event(&mut self, step: &mut Step, event: Event) -> Result<(), Error> {
        match event {
            Event::Joined { site, session, hello, out } => {
                self.sessions.open(site, session, out, step.now);
                self.flush(step).await?;
                self.greet(step, site, &hello).await?;
            }
            Event::Left { site, session } => {
                self.sessions.close(site, session, step.now);
            }
            Event::Message { site, session, message } => {
                self.control.messages += 1;
                // What an old session said when it was cut off still counts, it is the same site; but an old checkpoint
                // that was overtaken by a newer one would look as if the site's ledger had lost its tail.
                if matches!(message, FromSite::Witness(_)) && self.sessions.is_superseded(site, session) {
                    return Ok(());
                }
                self.message(step, site, message).await?;
            }
            Event::Uploaded { site, upload, reply } => {
                let receipt = self.uploaded(step, site, &upload).await?;
                if let Err(rejection) = &receipt {
                    self.upload_refused(step, site, &upload.request().round, &rejection.message);
                }
                step.answer(Waiting::Upload(reply, receipt));
            }
            Event::UploadRefused { site, round, reason } => self.upload_refused(step, site, &round, &reason),
            Event::Operator { command, reply } => {
                let asked = command.asked();
                let answer = self.operator(step, command).await?;
                if let (Err(rejection), Some((by, action))) = (&answer, asked) {
                    let entry = self.context.audit.entry(step.now, enrol::actor(&by), action);
                    step.record(entry.refused(&rejection.message));
                }
                step.answer(Waiting::Operator(reply, answer));
            }
        }
        Ok(())
    }

    fn upload_refused(&self, step: &mut Step, site: SiteId, round: &RoundKey, reason: &str) {
        let job = self.jobs.get(&round.job);
        let purpose = Purpose { study: job.map(|job| job.study), job: Some(round.job), approval: None };
        let name = super::rounds::short(round);
        let entry = self.context.audit.entry(step.now, Actor::peer(site), Action::UploadRefused).purpose(purpose);
        let entry = entry.object(ObjectKind::Round, &name, None).refused(reason);
        // A site can name as many rounds as it likes; only the present one of a job is counted by itself.
        let is_present = job.and_then(|job| job.round.as_ref()).is_some_and(|live| live.key == *round);
        let about = if is_present { format!("{}/{name}", round.job) } else { String::new() };
        step.record_limited(&self.context, site, about, entry);
    }

    async fn message(&mut self, step: &mut Step, site: SiteId, message: FromSite) -> Result<(), Error> {
        match message {
            FromSite::Hello(_) | FromSite::Heartbeat { .. } | FromSite::Goodbye => Ok(()),
            FromSite::Decision { study, decision } => self.decision(step, site, study, decision).await,
            FromSite::Reserved { job, refusal } => self.reserved(step, site, job, refusal).await,
            FromSite::RoundReply { round, reply } => self.reply(step, site, &round, reply).await,
            FromSite::Progress { round, done, total } => self.progress(step, site, &round, done, total).await,
            FromSite::Release { job } => self.release(step, site, job).await,
            FromSite::SecureStep { round, message } => Box::pin(self.secure_step(step, site, &round, message)).await,
            FromSite::Vouch(vouch) => self.vouch(step, site, *vouch).await,
            FromSite::Witness(witness) => self.witness(step, site, witness).await,
        }
    }

    async fn operator(&mut self, step: &mut Step, command: Command) -> super::Answer {
        match command {
            Command::Submit { terms, plan, sweep, by } => {
                self.submit(step, *terms, &plan, sweep.map(|sweep| *sweep), &by).await
            }
            Command::Withdraw { study, by, reason } => self.withdraw(step, study, &by, &reason).await,
            Command::Start { study, by } => self.start(step, study, &by).await,
            Command::Rerun { job, by } => self.rerun(step, job, &by).await,
            Command::Cancel { job, by, reason } => self.cancel(step, job, &by, &reason).await,
            Command::SiteLocked { site, reason } => {
                self.lock(step, site, &reason).await?;
                Ok(Ok(Reply::Done))
            }
            Command::RosterChanged => {
                self.flush(step).await?;
                // A site that was let in again has its approvals again.
                self.reload_approvals(step.now).await?;
                self.spread_roster(step).await?;
                Ok(Ok(Reply::Done))
            }
            Command::Sessions => Ok(Ok(Reply::Sessions(self.sessions.sites().collect()))),
        }
    }

    /// What the time alone brings.
    async fn tick(&mut self, step: &mut Step) -> Result<(), Error> {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for job in jobs {
            self.tick_job(step, job).await?;
        }
        self.tick_sweeps(step).await?;
        if self.witnesses.is_waiting(step.now) {
            // The commit takes them along.
            step.tx(&self.context).await?;
        }
        self.witnesses.tick(&self.context, step, &self.sessions).await?;
        for entry in self.context.audit.left_out(step.now) {
            step.record(entry);
        }
        if step.now.since(self.control.since) >= SUMMARY_MS {
            let messages = std::mem::take(&mut self.control.messages);
            self.control.since = step.now;
            if messages > 0 {
                let mut entry = self.context.audit.entry(step.now, Actor::Engine, Action::ControlSummary);
                entry.reason = Some(format!("{messages} control messages of sites in an hour"));
                step.record(entry);
            }
        }
        if step.now.since(self.looked) >= self.context.settings.lease_ms {
            self.looked = step.now;
            self.flush(step).await?;
            self.take_over(step).await?;
        }
        if self.cards_due.is_some_and(|due| due <= step.now) {
            self.flush(step).await?;
            self.missing_cards().await?;
        }
        Ok(())
    }

    async fn after(&mut self, after: After) {
        match after {
            After::Close(round) => self.context.staging.close(&round),
            After::Discard(round) => self.discard(&round),
            After::Delete(model) => {
                if let Err(error) = self.context.models.delete(model).await {
                    tracing::warn!(%error, %model, "a superseded model is not deleted yet");
                }
            }
            After::DeleteMoments(of) => {
                if let Err(error) = self.context.models.delete_moments(&of).await {
                    tracing::warn!(%error, job = %of.job, "superseded moments are not deleted yet");
                }
            }
            After::Reduce(job) => self.reduce(job),
            After::Initial(job) => self.initial(job),
            After::Card(job) => self.card(job).await,
            After::EndSession(site) => self.sessions.end(site, self.context.now()),
            After::Show => self.show(self.sessions.sites().map(|(site, _)| site).collect()),
        }
    }

    /// Shows the newest checkpoint to these members.
    pub(super) fn show(&self, sites: Vec<SiteId>) {
        let (context, finished) = (self.context.clone(), self.finished.clone());
        self.context.store.seam().spawn(async move {
            match witness::show(&context.store, context.federation(), &sites).await {
                Ok(sends) => drop(finished.send(Finished::Messages(sends))),
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no checkpoint is shown"),
            }
        });
    }

    async fn witness(&mut self, step: &mut Step, site: SiteId, message: Witness) -> Result<(), Error> {
        let Some(key) = self.keys.get(&site).copied() else { return Ok(()) };
        self.witnesses.on(&self.context, step, (site, key), &self.sessions, message).await
    }

    fn discard(&self, round: &RoundKey) {
        // What cannot be deleted now is swept away at the next start.
        if let Err(error) = self.context.staging.discard(round) {
            tracing::warn!(error = &error as &dyn std::error::Error, %round, "staged payloads are not deleted yet");
        }
    }
}

impl Command {
    /// Who asks for what, where a refusal belongs into the ledger.
    fn asked(&self) -> Option<(Caller, Action)> {
        match self {
            Self::Submit { by, .. } => Some((by.clone(), Action::StudySubmitted)),
            Self::Withdraw { by, .. } => Some((by.clone(), Action::StudyWithdrawn)),
            Self::Start { by, .. } | Self::Rerun { by, .. } => Some((by.clone(), Action::JobStarted)),
            Self::Cancel { by, .. } => Some((by.clone(), Action::JobCancelled)),
            Self::SiteLocked { .. } | Self::RosterChanged | Self::Sessions => None,
        }
    }
}
