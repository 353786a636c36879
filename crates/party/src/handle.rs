//! Everything that can be asked of the engine.

use std::fs::File;
use std::path::PathBuf;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hospes_protocol::approval::OpinionView;
use hospes_protocol::id::{DatasetId, Digest, FederationId, JobId, PersonId, SiteId, StudyId};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::config::Config;
use crate::engine::{Engine, Event, lock_site};
use crate::error::PartyError;
use crate::foundation::Foundation;
use crate::people::{Passphrase, Session};
use crate::view::{
    Approach, Approving, ComputeLimits, DatasetUse, DatasetView, DeviceView, EgressView, Enrolment, FileReading,
    InvitationView, JobView, LogLine, Me, MembershipView, ModelCopy, ModelExport, NewDataset, NewPerson, Notice,
    OptOutReport, Outcome, Page, PeerView, PersonChange, PersonView, PolicyPreview, PoolView, ProfileView,
    ProposalView, RequestView, Review, Signed, Status, SurveyView, Verdict,
};

mod audit;

type Result<T> = std::result::Result<T, PartyError>;

/// A way to ask the engine; clones are cheap and all reach the same engine. The engine ends with its last handle, or
/// by [`Handle::shut_down`].
#[derive(Clone)]
pub struct Handle {
    events: mpsc::Sender<Event>,
    notices: broadcast::Sender<Notice>,
}

/// Lays down a new site in an empty folder: database, secrets, the strict policy. Whoever goes on with it takes
/// [`Foundation`], which lets nobody else in between.
///
/// # Errors
/// Those of [`Foundation::begin`], and what the keychain says.
pub async fn initialise(config: &Config) -> Result<()> {
    Foundation::begin(config.clone())?.make().await.map(drop)
}

/// Opens the site in the configured folder and starts its engine.
///
/// # Errors
/// [`PartyError::NotInitialised`], [`PartyError::InUse`], [`PartyError::Damaged`],
/// [`PartyError::ManagedFile`], and what the keychain says.
pub async fn open(config: Config) -> Result<Handle> {
    open_telling(config, &mut |_| {}).await
}

/// What the opening of a site is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Its database is checked, and brought to the schema of this version.
    Database,
    /// The place of its secrets is opened.
    Keys,
    /// The engine takes up what was under way.
    Engine,
}

/// The same, and tells what it is at.
///
/// # Errors
/// As [`open`].
pub async fn open_telling(config: Config, progress: &mut (dyn FnMut(Opening) + Send)) -> Result<Handle> {
    let lock = lock_site(&config)?;
    run(config, lock, progress).await
}

/// Starts the engine of a site whose lock was taken.
pub(crate) async fn run(config: Config, lock: File, progress: &mut (dyn FnMut(Opening) + Send)) -> Result<Handle> {
    let (engine, events, notices) = Engine::open(config, lock, crate::seam::Seam::default(), progress).await?;
    tokio::spawn(engine.run());
    Ok(Handle { events, notices })
}

impl Handle {
    /// A handle on an engine that is driven by hand.
    #[cfg(feature = "simulation")]
    pub(crate) fn new(events: mpsc::Sender<Event>, notices: broadcast::Sender<Notice>) -> Self {
        Self { events, notices }
    }

    pub(crate) async fn ask<T, F>(&self, question: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'e> FnOnce(&'e mut Engine) -> BoxFuture<'e, Result<T>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call: crate::engine::Call = Box::new(move |engine| {
            async move {
                // Nobody may be waiting any more; what was done stays done.
                let _ = reply.send(question(engine).await);
            }
            .boxed()
        });
        self.events.send(Event::Call(call)).await.map_err(|_| PartyError::Stopped)?;
        answer.await.map_err(|_| PartyError::Stopped)?
    }

    /// What changes, as it changes; a receiver that falls behind asks for everything again.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// State of the site; needs no session and names no person and no study.
    ///
    /// # Errors
    /// What the store says.
    pub async fn status(&self) -> Result<Status> {
        self.ask(|e| e.status().boxed()).await
    }

    /// Ends the engine after the event it is at; what was under way goes on at the next start.
    ///
    /// # Errors
    /// [`PartyError::Stopped`] if it has ended already.
    pub async fn shut_down(&self) -> Result<()> {
        self.ask(|e| e.shut_down().boxed()).await?;
        // Workers are stopped and the last ledger entry is written before the engine lets go of its ear.
        self.events.closed().await;
        Ok(())
    }

    /// Comes back when the engine has ended, however that came about: told to, or by a fault of its own.
    pub async fn ended(&self) {
        self.events.closed().await;
    }

    // People -------------------------------------------------------------------------------------------------------

    /// Makes the first person, an administrator. Only where nobody is known yet.
    ///
    /// # Errors
    /// [`PartyError::State`] otherwise.
    pub async fn set_up(&self, name: String, passphrase: Passphrase) -> Result<PersonId> {
        self.ask(move |e| e.set_up(name, passphrase, None).boxed()).await
    }

    /// The same for somebody who reached the engine from an account of the machine that is not its own: the log says which.
    ///
    /// # Errors
    /// As [`Handle::set_up`].
    pub async fn set_up_from(&self, account: u32, name: String, passphrase: Passphrase) -> Result<PersonId> {
        self.ask(move |e| e.set_up(name, passphrase, Some(account)).boxed()).await
    }

    /// Logs a person in.
    ///
    /// # Errors
    /// [`PartyError::LogIn`], with the wait after repeated failures.
    pub async fn log_in(&self, name: String, passphrase: Passphrase) -> Result<Session> {
        self.ask(move |e| e.log_in(name, passphrase).boxed()).await
    }

    /// Says that the person of a session is at work, so that it does not end yet. A session that only looks on
    /// ([`Session::looks_on`]) does not say it.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn active(&self, session: &Session) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| async move { e.acting(&s, "work", &[]).await.map(drop) }.boxed()).await
    }

    /// Who is logged in, with the roles that count now, and when the session ends.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn whoami(&self, session: &Session) -> Result<Me> {
        let s = session.clone();
        self.ask(move |e| e.whoami(s).boxed()).await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// What the store says.
    pub async fn log_out(&self, session: &Session) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.log_out(s).boxed()).await
    }

    /// An added person chooses a passphrase with the one-time code; their signing key is made.
    ///
    /// # Errors
    /// [`PartyError::LogIn`] if name or code is wrong.
    pub async fn activate(&self, name: String, code: String, passphrase: Passphrase) -> Result<PersonView> {
        self.ask(move |e| e.activate(name, code, passphrase).boxed()).await
    }

    /// A person changes the passphrase; the key stays.
    ///
    /// # Errors
    /// [`PartyError::LogIn`] if the old one is wrong.
    pub async fn change_passphrase(&self, session: &Session, old: Passphrase, new: Passphrase) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.change_passphrase(s, old, new).boxed()).await
    }

    /// People of the site.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn people(&self, session: &Session) -> Result<Vec<PersonView>> {
        let s = session.clone();
        self.ask(move |e| e.people(s).boxed()).await
    }

    /// Adds a person (administrator). In operation it needs the passphrase and a second person's signature.
    ///
    /// # Errors
    /// [`PartyError::Denied`], or [`PartyError::Input`] for a name that is taken.
    pub async fn add_person(&self, session: &Session, person: NewPerson, passphrase: Passphrase) -> Result<Outcome> {
        let s = session.clone();
        self.ask(move |e| e.add_person(s, person, passphrase).boxed()).await
    }

    /// Changes a person (administrator). Disabling is immediate; everything else needs a second signature in operation.
    ///
    /// # Errors
    /// [`PartyError::Denied`], [`PartyError::NotFound`].
    pub async fn change_person(
        &self,
        session: &Session,
        person: PersonId,
        change: PersonChange,
        passphrase: Passphrase,
    ) -> Result<Outcome> {
        let s = session.clone();
        self.ask(move |e| e.change_person(s, person, change, passphrase).boxed()).await
    }

    /// What waits for a second person's signature.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn proposals(&self, session: &Session) -> Result<Vec<ProposalView>> {
        let s = session.clone();
        self.ask(move |e| e.proposals(s).boxed()).await
    }

    /// Signs (or turns down) what another person proposed. Who agrees to a new key gives the twelve words that its owner
    /// read out to them.
    ///
    /// # Errors
    /// [`PartyError::Denied`] for the proposer, the person concerned, privacy officers and auditors;
    /// [`PartyError::Fingerprint`] if the words are those of another key.
    pub async fn answer_proposal(
        &self,
        session: &Session,
        proposal: Digest,
        agree: bool,
        words: Option<String>,
        passphrase: Passphrase,
    ) -> Result<Outcome> {
        let s = session.clone();
        self.ask(move |e| e.answer_proposal(s, proposal, agree, words, passphrase).boxed()).await
    }

    // Policy and stop ----------------------------------------------------------------------------------------------

    /// The site's policy as a file.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn policy(&self, session: &Session) -> Result<String> {
        let s = session.clone();
        self.ask(move |e| e.policy_text(s).boxed()).await
    }

    /// What a policy would do: which values loosen or tighten, and which approvals would not hold any more.
    ///
    /// # Errors
    /// [`PartyError::Policy`] names the line or the value.
    pub async fn policy_preview(&self, session: &Session, toml: String) -> Result<PolicyPreview> {
        let s = session.clone();
        self.ask(move |e| e.policy_preview(s, toml).boxed()).await
    }

    /// Sets the policy (administrator, data steward). Tightening is immediate; in operation loosening needs a second
    /// signature. Approvals given under another policy no longer hold.
    ///
    /// # Errors
    /// [`PartyError::Policy`] names the line or the value.
    pub async fn set_policy(&self, session: &Session, toml: String, passphrase: Passphrase) -> Result<Outcome> {
        let s = session.clone();
        self.ask(move |e| e.set_policy(s, toml, passphrase).boxed()).await
    }

    /// Break-glass: stops everything at this site at once, with a reason (administrator). `None` ends the stop.
    ///
    /// # Errors
    /// [`PartyError::Denied`], [`PartyError::Input`] without a reason.
    pub async fn stop(&self, session: &Session, reason: Option<String>) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.stop(s, reason).boxed()).await
    }

    /// What training may take of this machine, and when.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn compute_limits(&self, session: &Session) -> Result<ComputeLimits> {
        let s = session.clone();
        self.ask(move |e| e.compute_limits(s).boxed()).await
    }

    /// Sets what training may take of this machine, and when (administrator). Work under way keeps the share and the
    /// threads that it began with.
    ///
    /// # Errors
    /// [`PartyError::Denied`], [`PartyError::Input`] for limits that cannot be kept to.
    pub async fn set_compute_limits(&self, session: &Session, limits: ComputeLimits) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.set_compute_limits(s, limits).boxed()).await
    }

    // Data ---------------------------------------------------------------------------------------------------------

    /// What is in a file, before it is registered (data steward). A query is entered in the log first.
    ///
    /// # Errors
    /// [`PartyError::Cohort`] names file, line and rule. Where a query cannot be entered, it is not asked.
    pub async fn survey(&self, session: &Session, path: PathBuf, reading: FileReading) -> Result<SurveyView> {
        let s = session.clone();
        let work = self.ask(move |e| e.survey_order(s, path, reading).boxed()).await?;
        in_background(move || work.run()).await
    }

    /// Names of a workbook's sheets, of which a survey reads one; of any other file, none (data steward).
    ///
    /// # Errors
    /// [`PartyError::Cohort`] says why the workbook cannot be read.
    pub async fn sheets(&self, session: &Session, path: PathBuf) -> Result<Vec<String>> {
        let s = session.clone();
        let work = self.ask(move |e| e.survey_order(s, path, FileReading::default()).boxed()).await?;
        in_background(move || work.sheets()).await
    }

    /// Registers a dataset: freezes an encrypted snapshot of the file (data steward).
    ///
    /// # Errors
    /// [`PartyError::Cohort`] names file, line and rule.
    pub async fn add_dataset(&self, session: &Session, dataset: NewDataset) -> Result<DatasetView> {
        let s = session.clone();
        let work = self.ask(move |e| e.freeze_order(s, dataset).boxed()).await?;
        let frozen = in_background(move || work.run()).await?;
        let s = session.clone();
        self.ask(move |e| e.register(s, frozen).boxed()).await
    }

    /// Registered datasets.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn datasets(&self, session: &Session) -> Result<Vec<DatasetView>> {
        let s = session.clone();
        self.ask(move |e| e.datasets(s).boxed()).await
    }

    /// Profile of a dataset. It does not leave.
    ///
    /// # Errors
    /// [`PartyError::NotFound`], [`PartyError::Denied`].
    pub async fn profile(&self, session: &Session, dataset: DatasetId) -> Result<ProfileView> {
        let s = session.clone();
        self.ask(move |e| e.profile(s, dataset).boxed()).await
    }

    /// Sets the Data Use Ontology terms of a dataset (data steward). The *public* tag is part of the snapshot.
    ///
    /// # Errors
    /// [`PartyError::Input`] for a term that is none.
    pub async fn tag_dataset(&self, session: &Session, dataset: DatasetId, duo: Vec<String>) -> Result<DatasetView> {
        let s = session.clone();
        self.ask(move |e| e.tag_dataset(s, dataset, duo).boxed()).await
    }

    /// Removes a dataset: its copy and the key that opens it are deleted, its name is free again (data steward).
    ///
    /// # Errors
    /// [`PartyError::State`] while an approval rests on it or a run reads it; [`PartyError::NotFound`], [`PartyError::Input`].
    pub async fn remove_dataset(&self, session: &Session, dataset: DatasetId, reason: String) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.remove_dataset(s, dataset, reason).boxed()).await
    }

    /// Which studies a dataset was approved for, newest first.
    ///
    /// # Errors
    /// [`PartyError::NotFound`].
    pub async fn dataset_uses(&self, session: &Session, dataset: DatasetId) -> Result<Vec<DatasetUse>> {
        let s = session.clone();
        self.ask(move |e| e.dataset_uses(s, dataset).boxed()).await
    }

    /// Imports the site's opt-out list from a file with one subject key per line (data steward). Keys are kept only as
    /// keyed hashes; the list holds for all datasets and only grows.
    ///
    /// # Errors
    /// [`PartyError::Cohort`] names file and line.
    pub async fn import_opt_outs(&self, session: &Session, path: PathBuf) -> Result<OptOutReport> {
        let s = session.clone();
        let work = self.ask(move |e| e.opt_out_order(s, path).boxed()).await?;
        let hashes = in_background(move || work.run()).await?;
        let s = session.clone();
        self.ask(move |e| e.add_opt_outs(s, hashes).boxed()).await
    }

    // Federations --------------------------------------------------------------------------------------------------

    /// What an invitation says.
    ///
    /// # Errors
    /// [`PartyError::Input`] if it is damaged.
    pub fn read_invitation(invitation: &str) -> Result<InvitationView> {
        crate::memberships::read_invitation(invitation)
    }

    /// Joins a federation (administrator). A site that was a member before, whatever ended that, keeps its identity there.
    ///
    /// # Errors
    /// [`PartyError::Fingerprint`] if the words do not fit, [`PartyError::Link`] for what went wrong on the way,
    /// [`PartyError::State`] if the invitation leads to another federation than the one to enrol in again.
    pub async fn enrol(&self, session: &Session, enrolment: Enrolment) -> Result<MembershipView> {
        let s = session.clone();
        let order = self.ask(move |e| e.enrol_order(s, enrolment).boxed()).await?;
        let reached = order.reach().await?;
        let (federation, ca, again) = reached.federation();
        let identity = self.ask(move |e| e.identity_for(federation, ca, again).boxed()).await?;
        let joined = reached.enrol(identity).await?;
        let s = session.clone();
        self.ask(move |e| e.join(s, joined).boxed()).await
    }

    /// Tests the way to the coordinator of an invitation step by step, before this site joins (administrator); each step is a
    /// sentence. Nothing is written, and the invitation is as good afterwards as before.
    ///
    /// # Errors
    /// [`PartyError::Input`] if the invitation is damaged or the file with certificates cannot be read.
    pub async fn diagnose_invitation(&self, session: &Session, approach: Approach) -> Result<Vec<crate::link::Step>> {
        let s = session.clone();
        let test = self.ask(move |e| e.approach_test(s, approach).boxed()).await?;
        test.run().await
    }

    /// Federations of the site.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn memberships(&self, session: &Session) -> Result<Vec<MembershipView>> {
        let s = session.clone();
        self.ask(move |e| e.memberships(s).boxed()).await
    }

    /// Other members of a federation and how this site trusts them.
    ///
    /// # Errors
    /// [`PartyError::NotFound`].
    pub async fn peers(&self, session: &Session, federation: FederationId) -> Result<Vec<PeerView>> {
        let s = session.clone();
        self.ask(move |e| e.peers(s, federation).boxed()).await
    }

    /// Compares the twelve words that another site's staff read out with its key in the roster (administrator, data
    /// steward); where they fit, the key counts as verified here.
    ///
    /// # Errors
    /// [`PartyError::Fingerprint`] if they do not fit; a wrong key is also an alarm.
    pub async fn verify_peer(
        &self,
        session: &Session,
        federation: FederationId,
        site: SiteId,
        words: String,
    ) -> Result<PeerView> {
        let s = session.clone();
        self.ask(move |e| e.verify_peer(s, federation, site, words).boxed()).await
    }

    /// Takes back, with a reason, that a site's key was verified here (administrator, data steward).
    ///
    /// # Errors
    /// [`PartyError::State`] if it was not.
    pub async fn unverify_peer(
        &self,
        session: &Session,
        federation: FederationId,
        site: SiteId,
        reason: String,
    ) -> Result<PeerView> {
        let s = session.clone();
        self.ask(move |e| e.unverify_peer(s, federation, site, reason).boxed()).await
    }

    /// Vouches for a site that was verified here (administrator): the other members are told, signed.
    ///
    /// # Errors
    /// [`PartyError::State`] if it was not verified here.
    pub async fn vouch(&self, session: &Session, federation: FederationId, site: SiteId) -> Result<PeerView> {
        let s = session.clone();
        self.ask(move |e| e.vouch(s, federation, site).boxed()).await
    }

    /// Pauses a federation with a reason, or with `None` ends the pause (administrator, privacy officer).
    ///
    /// # Errors
    /// [`PartyError::Denied`], [`PartyError::NotFound`].
    pub async fn pause(&self, session: &Session, federation: FederationId, reason: Option<String>) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.pause(s, federation, reason).boxed()).await
    }

    /// Leaves a federation with a reason (administrator): its approvals end, and the keys of its link are destroyed. What was
    /// recorded stays, and the site's identity, with which it can join again.
    ///
    /// # Errors
    /// [`PartyError::Denied`], [`PartyError::NotFound`], [`PartyError::State`] if it left before.
    pub async fn leave(&self, session: &Session, federation: FederationId, reason: String) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.leave(s, federation, reason).boxed()).await
    }

    /// Accepts the epoch of a coordinator that was restored from a backup (administrator, data steward). Before, no round
    /// of it gets a permit.
    ///
    /// # Errors
    /// [`PartyError::State`] if none is offered.
    pub async fn accept_epoch(&self, session: &Session, federation: FederationId) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.accept_epoch(s, federation).boxed()).await
    }

    /// Tests the way to a federation's coordinator step by step; each step is a sentence.
    ///
    /// # Errors
    /// [`PartyError::NotFound`].
    pub async fn diagnose(&self, session: &Session, federation: FederationId) -> Result<Vec<crate::link::Step>> {
        let s = session.clone();
        let order = self.ask(move |e| e.diagnosis(s, federation).boxed()).await?;
        Ok(order.run().await)
    }

    // Requests -----------------------------------------------------------------------------------------------------

    /// Studies that were offered, newest first.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn requests(&self, session: &Session) -> Result<Vec<RequestView>> {
        let s = session.clone();
        self.ask(move |e| e.requests(s).boxed()).await
    }

    /// The review of a request on a dataset; without one, on the dataset of its approval or the only one that fits.
    ///
    /// # Errors
    /// [`PartyError::NotFound`].
    pub async fn review(&self, session: &Session, study: StudyId, dataset: Option<DatasetId>) -> Result<Review> {
        let s = session.clone();
        self.ask(move |e| e.review(s, study, dataset).boxed()).await
    }

    /// Records the privacy officer's opinion.
    ///
    /// # Errors
    /// [`PartyError::Denied`], or [`PartyError::State`] after the second signature.
    pub async fn give_opinion(&self, session: &Session, study: StudyId, view: OpinionView, text: String) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.give_opinion(s, study, view, text).boxed()).await
    }

    /// First signature (data steward): makes the approval and signs it.
    ///
    /// # Errors
    /// [`PartyError::Refused`] by policy or review, [`PartyError::State`] in set-up with one person.
    pub async fn approve(&self, session: &Session, approving: Approving, passphrase: Passphrase) -> Result<Signed> {
        let s = session.clone();
        self.ask(move |e| e.approve(s, approving, passphrase).boxed()).await
    }

    /// Second signature (data-access approver), on exactly the document that `digest` names.
    ///
    /// # Errors
    /// [`PartyError::State`] if the first is missing or the document is another.
    pub async fn countersign(
        &self,
        session: &Session,
        study: StudyId,
        digest: Digest,
        passphrase: Passphrase,
    ) -> Result<Signed> {
        let s = session.clone();
        self.ask(move |e| e.countersign(s, study, digest, passphrase).boxed()).await
    }

    /// Refuses, suspends, resumes or revokes.
    ///
    /// # Errors
    /// [`PartyError::Denied`], or [`PartyError::State`] where the verdict does not fit.
    pub async fn decide(&self, session: &Session, study: StudyId, verdict: Verdict) -> Result<RequestView> {
        let s = session.clone();
        self.ask(move |e| e.decide(s, study, verdict).boxed()).await
    }

    // Work and what leaves -----------------------------------------------------------------------------------------

    /// A page of runs, newest first, without the site's own view of their results.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn jobs(&self, session: &Session, page: Page) -> Result<Vec<JobView>> {
        let s = session.clone();
        self.ask(move |e| e.jobs(s, page).boxed()).await
    }

    /// A run with a page of its rounds, and what the site's own people see of their results (data steward, data-access
    /// approver and privacy officer of this organisation); the policy may suppress that.
    ///
    /// # Errors
    /// [`PartyError::Denied`], [`PartyError::NotFound`].
    pub async fn job(&self, session: &Session, job: JobId, page: Page) -> Result<JobView> {
        let s = session.clone();
        self.ask(move |e| e.job(s, job, page).boxed()).await
    }

    /// The newest lines about a run, oldest first: what the ledger has of it, and notes on its work since the engine started.
    ///
    /// # Errors
    /// [`PartyError::NotFound`].
    pub async fn job_log(&self, session: &Session, job: JobId) -> Result<Vec<LogLine>> {
        let s = session.clone();
        self.ask(move |e| e.job_log(s, job).boxed()).await
    }

    /// What this machine trains on, and within which limits. The first who asks waits until its graphics cards were tried.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn device(&self, session: &Session) -> Result<DeviceView> {
        let s = session.clone();
        let order = self.ask(move |e| e.device_order(s).boxed()).await?;
        in_background(move || Ok(order.run())).await
    }

    /// Stops a run at this site (data steward, administrator): the child is killed and the coordinator told.
    ///
    /// # Errors
    /// [`PartyError::State`] if it has ended.
    pub async fn cancel_job(&self, session: &Session, job: JobId, reason: String) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.cancel_job(s, job, reason).boxed()).await
    }

    /// Releases the held results of a run (data steward, data-access approver).
    ///
    /// # Errors
    /// [`PartyError::State`] if they are not held.
    pub async fn release(&self, session: &Session, job: JobId) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.release(s, job).boxed()).await
    }

    /// Asks the coordinator for the released model of a run, with its card, or for the card of one that ended with tables alone
    /// (data steward, data-access approver, privacy officer). It comes in its own time: see [`Handle::model_copy`].
    ///
    /// # Errors
    /// [`PartyError::State`] if this site has not released it, or has no part in it; [`PartyError::Denied`].
    pub async fn fetch_model(&self, session: &Session, job: JobId) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.fetch_model(s, job).boxed()).await
    }

    /// Stops fetching the model of a run.
    ///
    /// # Errors
    /// [`PartyError::Denied`].
    pub async fn stop_fetching(&self, session: &Session, job: JobId) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.stop_fetching(s, job).boxed()).await
    }

    /// What this site has of the released model of a run: how far it is, and its card.
    ///
    /// # Disclosure
    /// The card has figures of all sites together, and of this one, as they were released.
    ///
    /// # Errors
    /// [`PartyError::NotFound`], [`PartyError::Denied`].
    pub async fn model_copy(&self, session: &Session, job: JobId) -> Result<ModelCopy> {
        let s = session.clone();
        self.ask(move |e| e.model_copy(s, job).boxed()).await
    }

    /// Writes the released model of a run, which was fetched, to a new file (safetensors) and its card to another (JSON). The
    /// log has an entry about it, with their digests, before the files have their names.
    ///
    /// # Disclosure
    /// The model was trained on the sites' rows, and its card has figures of them; all of them have released both.
    ///
    /// # Errors
    /// [`PartyError::State`] if it is not here or was changed since it came; [`PartyError::File`], also if a file exists;
    /// [`PartyError::DiskFull`], [`PartyError::Denied`].
    pub async fn export_model(
        &self,
        session: &Session,
        job: JobId,
        path: PathBuf,
        card: PathBuf,
    ) -> Result<ModelExport> {
        let s = session.clone();
        let export = self.ask(move |e| e.begin_model_export(s, job, path, card).boxed()).await?;
        let written = in_background(move || export.write()).await?;
        self.ask(move |e| e.finish_model_export(written).boxed()).await
    }

    /// The privacy ledger: each pool of subjects with what was released of it, over all studies and federations.
    ///
    /// # Errors
    /// [`PartyError::NoSession`], [`PartyError::Denied`].
    pub async fn privacy(&self, session: &Session) -> Result<Vec<PoolView>> {
        let s = session.clone();
        let order = self.ask(move |e| e.privacy(s).boxed()).await?;
        in_background(move || Ok(order.run())).await
    }

    /// A page of everything that ever left, waits to leave or was withdrawn, newest first.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn egress(&self, session: &Session, page: Page) -> Result<Vec<EgressView>> {
        let s = session.clone();
        self.ask(move |e| e.egress(s, page).boxed()).await
    }
}

/// Runs work on files outside the loop that owns the state.
pub(crate) async fn in_background<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| PartyError::Stopped)?
}
