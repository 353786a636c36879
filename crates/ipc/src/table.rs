//! The engine's command table: every command with its arguments, its answer, what it reads and what it makes stale.

use std::path::PathBuf;

use hospes_party::link::Step;
use hospes_party::view::{
    AlarmView, Approach, Approving, AskedQuery, AuditExport, AuditFormat, AuditPage, AuditQuery, BackupMade,
    ComputeLimits, DatabaseTest, DatabaseView, DatasetUse, DatasetView, DeviceSetting, DeviceView, DryRunView,
    EgressView, Enrolment, FileReading, InvitationView, JobView, LogLine, Me, MembershipView, ModelCopy, ModelExport,
    NameMark, NewDatabase, NewDataset, NewPerson, NewWay, OptOutReport, Outcome, Page, PeerView, PersonChange,
    PersonView, PolicyPreview, PoolView, PredictionMade, PredictionOffer, ProfileView, ProposalView, ReadingView,
    RequestView, RestoredView, Review, ScanProfile, SignInRules, Signed, Status, SurveyView, TableExport, UpdateSaved,
    UpdateSource, UpdatesView, Verdict, WayTried, WayView,
};
use hospes_party::{DeviceChoice, Handle, Managed, Passphrase};
use hospes_protocol::approval::OpinionView;
use hospes_protocol::id::{DatabaseId, DatasetId, Digest, FederationId, JobId, PersonId, SiteId, StudyId};
use hospes_protocol::sign::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::commands;
use crate::fault::Fault;
use crate::router::{Asked, read};

/// A passphrase or a code on its way in; `Debug` never shows it and its memory is erased.
#[derive(Clone, Serialize, Deserialize, ts_rs::TS, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps what was typed.
    pub fn new(text: String) -> Self {
        Self(text)
    }
    pub(crate) fn passphrase(&self) -> Passphrase {
        Passphrase::from(self.0.clone())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Call {
    /// Reads a command, given as `{"command": …, "args": …}`.
    ///
    /// # Errors
    /// [`FaultCode::Command`](crate::FaultCode::Command), without what was given: it may hold a passphrase.
    pub(crate) fn read(request: Value) -> Result<Self, Fault> {
        read(request)
    }
}

commands! {
    /// A command to the engine with its arguments, as it comes from a window or a command line:
    /// `{"command": "review", "args": {"study": "…"}}`.
    enum Call, list COMMANDS, on Asked<'_>;

    /// State of the site; needs nobody logged in.
    "status" Status {} -> Status,
        reads [People, Datasets, Federations, Requests, Jobs, Egress, Audit, Settings, Alarm], changes [],
        |c| c.engine.status().await?;
    /// Makes the first person, an administrator.
    "set_up" SetUp { name: String, passphrase: Secret } -> PersonId,
        reads [], changes [People, Audit],
        |c| c.engine.set_up(name, passphrase.passphrase()).await?;
    /// Restores the site of this machine's service from a backup, where it has none yet; it keeps the keys itself.
    "restore_site" RestoreSite { path: PathBuf, passphrase: Secret } -> (),
        reads [], changes [Settings, People, Audit],
        |_c| {
            // A service without a site carries it out (`site`). Whoever is asked here has one.
            drop((path, passphrase));
            Err::<(), Fault>(crate::settings::has_site())?
        };
    /// Logs a person in on this connection.
    "log_in" LogIn { name: String, passphrase: Secret } -> Me,
        reads [], changes [Audit],
        |c| {
            let session = c.engine.log_in(name, passphrase.passphrase()).await?;
            let me = c.engine.whoami(&session).await?;
            if let Some(before) = c.enter(Some(session)) {
                c.engine.log_out(&before).await?;
            }
            me
        };
    /// Who is logged in on this connection, what they may do, and when their session ends.
    "whoami" Whoami {} -> Me,
        reads [People], changes [],
        |c| c.engine.whoami(&c.person()?).await?;
    /// Says that somebody is at work, so that their session does not end.
    "active" Active {} -> (),
        reads [], changes [],
        |c| c.engine.active(&c.person()?).await?;
    /// Logs out.
    "log_out" LogOut {} -> (),
        reads [], changes [Audit],
        |c| if let Some(session) = c.enter(None) {
            c.engine.log_out(&session).await?;
        };
    /// An added person chooses a passphrase with the one-time code.
    "activate" Activate { name: String, code: String, passphrase: Secret } -> PersonView,
        reads [], changes [People, Audit],
        |c| c.engine.activate(name, code, passphrase.passphrase()).await?;
    /// The twelve words of a public key, which its owner reads out so that another person can compare it.
    "key_words" KeyWords { key: PublicKey } -> String,
        reads [], changes [],
        |_c| hospes_protocol::words::of_key(&key);
    /// Changes the passphrase of whoever is logged in.
    "change_passphrase" ChangePassphrase { old: Secret, new: Secret } -> (),
        reads [], changes [People, Audit],
        |c| c.engine.change_passphrase(&c.person()?, old.passphrase(), new.passphrase()).await?;
    /// People of the site.
    "people" People {} -> Vec<PersonView>,
        reads [People], changes [],
        |c| c.engine.people(&c.person()?).await?;
    /// Names of people, federations and their members that may be taken for others.
    "name_marks" NameMarks {} -> Vec<NameMark>,
        reads [People, Federations, Requests], changes [],
        |c| c.engine.name_marks(&c.person()?).await?;
    /// Adds a person.
    "add_person" AddPerson { person: NewPerson, passphrase: Secret } -> Outcome,
        reads [], changes [People, Audit],
        |c| c.engine.add_person(&c.person()?, person, passphrase.passphrase()).await?;
    /// Changes a person.
    "change_person" ChangePerson { id: PersonId, change: PersonChange, passphrase: Secret } -> Outcome,
        reads [], changes [People, Requests, Audit],
        |c| c.engine.change_person(&c.person()?, id, change, passphrase.passphrase()).await?;
    /// What waits for a second person's signature.
    "proposals" Proposals {} -> Vec<ProposalView>,
        reads [People, Settings], changes [],
        |c| c.engine.proposals(&c.person()?).await?;
    /// Signs or turns down what another person proposed.
    "answer_proposal" AnswerProposal { proposal: Digest, agree: bool, words: Option<String>, passphrase: Secret } -> Outcome,
        reads [], changes [People, Settings, Requests, Audit],
        |c| c.engine.answer_proposal(&c.person()?, proposal, agree, words, passphrase.passphrase()).await?;
    /// The policy as a file.
    "policy" Policy {} -> String,
        reads [Settings], changes [],
        |c| c.engine.policy(&c.person()?).await?;
    /// What a policy would do that nobody has set yet.
    "policy_preview" PolicyPreview { toml: String } -> PolicyPreview,
        reads [Settings, Requests], changes [],
        |c| c.engine.policy_preview(&c.person()?, toml).await?;
    /// Sets the policy.
    "set_policy" SetPolicy { toml: String, passphrase: Secret } -> Outcome,
        reads [], changes [Settings, People, Requests, Jobs, Audit],
        |c| c.engine.set_policy(&c.person()?, toml, passphrase.passphrase()).await?;
    /// Stops everything, or ends the stop.
    "stop" Stop { reason: Option<String> } -> (),
        reads [], changes [Settings, Jobs, Egress, Audit],
        |c| c.engine.stop(&c.person()?, reason).await?;
    /// Backs the site up to a new file, which the passphrase opens.
    "back_up" BackUp { path: PathBuf, passphrase: Secret } -> BackupMade,
        reads [], changes [Audit],
        |c| c.engine.back_up(&c.person()?, path, passphrase.passphrase()).await?;
    /// What a site that was restored from a backup still waits for; null for any other.
    "restored" Restored {} -> Option<RestoredView>,
        reads [Settings, Federations], changes [],
        |c| c.engine.restored(&c.person()?).await?;
    /// Confirms a restored backup; in operation it needs a second signature.
    "confirm_restore" ConfirmRestore { passphrase: Secret } -> Outcome,
        reads [], changes [Settings, People, Federations, Audit],
        |c| c.engine.confirm_restore(&c.person()?, passphrase.passphrase()).await?;
    /// What is in a file, or in a query's rows, before it is registered; of a workbook, in the sheet of that name or else the
    /// first.
    "survey" Survey {
        path: PathBuf, sheet: Option<String>, missing: Option<Vec<String>>, scan: Option<ScanProfile>,
        query: Option<AskedQuery>
    } -> SurveyView,
        reads [], changes [Audit],
        |c| {
            let reading = FileReading { sheet, missing, scan: scan.unwrap_or_default(), query };
            c.engine.survey(&c.person()?, path, reading).await?
        };
    /// How far the reading is that this person asked for last; null where nothing is being read for them.
    "reading" Reading {} -> Option<ReadingView>,
        reads [Datasets], changes [],
        |c| c.engine.reading(&c.person()?).await?;
    /// Ends the readings that this person asked for.
    "stop_reading" StopReading {} -> (),
        reads [], changes [],
        |c| c.engine.stop_reading(&c.person()?).await?;
    /// Names of a workbook's sheets, of which a survey reads one; of any other file, none.
    "sheets" Sheets { path: PathBuf } -> Vec<String>,
        reads [], changes [],
        |c| c.engine.sheets(&c.person()?, path).await?;
    /// Registers a dataset.
    "add_dataset" AddDataset { dataset: NewDataset } -> DatasetView,
        reads [], changes [Datasets, Audit],
        |c| c.engine.add_dataset(&c.person()?, dataset).await?;
    /// Registers a further version of a dataset, by the query that gave its rows.
    "read_again" ReadAgain { dataset: DatasetId } -> DatasetView,
        reads [], changes [Datasets, Audit],
        |c| c.engine.read_again(&c.person()?, dataset).await?;
    /// Databases that rows can be read from.
    "databases" Databases {} -> Vec<DatabaseView>,
        reads [Datasets], changes [],
        |c| c.engine.databases(&c.person()?).await?;
    /// Tests a database, and keeps it with its password if no step fails.
    "add_database" AddDatabase { database: NewDatabase, password: Secret } -> DatabaseTest,
        reads [], changes [Datasets, Audit],
        |c| c.engine.add_database(&c.person()?, database, password.passphrase()).await?;
    /// Tests a known database.
    "test_database" TestDatabase { database: DatabaseId } -> Vec<Step>,
        reads [], changes [Audit],
        |c| c.engine.test_database(&c.person()?, database).await?;
    /// Forgets a database and its password.
    "forget_database" ForgetDatabase { database: DatabaseId } -> (),
        reads [], changes [Datasets, Audit],
        |c| c.engine.forget_database(&c.person()?, database).await?;
    /// Registered datasets.
    "datasets" Datasets {} -> Vec<DatasetView>,
        reads [Datasets], changes [],
        |c| c.engine.datasets(&c.person()?).await?;
    /// Profile of a dataset; it does not leave.
    "profile" Profile { dataset: DatasetId } -> ProfileView,
        reads [Datasets], changes [],
        |c| c.engine.profile(&c.person()?, dataset).await?;
    /// Sets the Data Use Ontology terms.
    "tag_dataset" TagDataset { dataset: DatasetId, duo: Vec<String> } -> DatasetView,
        reads [], changes [Datasets, Audit],
        |c| c.engine.tag_dataset(&c.person()?, dataset, duo).await?;
    /// Removes a dataset, its copy and its key.
    "remove_dataset" RemoveDataset { dataset: DatasetId, reason: String } -> (),
        reads [], changes [Datasets, Requests, Audit],
        |c| c.engine.remove_dataset(&c.person()?, dataset, reason).await?;
    /// Which studies a dataset was approved for.
    "dataset_uses" DatasetUses { dataset: DatasetId } -> Vec<DatasetUse>,
        reads [Datasets, Requests, Egress], changes [],
        |c| c.engine.dataset_uses(&c.person()?, dataset).await?;
    /// Imports the opt-out list.
    "import_opt_outs" ImportOptOuts { path: PathBuf } -> OptOutReport,
        reads [], changes [Datasets, Jobs, Egress, Audit],
        |c| c.engine.import_opt_outs(&c.person()?, path).await?;
    /// What an invitation says.
    "read_invitation" ReadInvitation { invitation: String } -> InvitationView,
        reads [], changes [],
        |_c| Handle::read_invitation(&invitation)?;
    /// Tests the way to the coordinator of an invitation, before joining.
    "diagnose_invitation" DiagnoseInvitation { approach: Approach } -> Vec<Step>,
        reads [], changes [],
        |c| c.engine.diagnose_invitation(&c.person()?, approach).await?;
    /// Joins a federation.
    "enrol" Enrol { enrolment: Enrolment } -> MembershipView,
        reads [], changes [Federations, Audit],
        |c| c.engine.enrol(&c.person()?, enrolment).await?;
    /// Federations of the site.
    "memberships" Memberships {} -> Vec<MembershipView>,
        reads [Federations], changes [],
        |c| c.engine.memberships(&c.person()?).await?;
    /// Other members of a federation.
    "peers" Peers { federation: FederationId } -> Vec<PeerView>,
        reads [Federations], changes [],
        |c| c.engine.peers(&c.person()?, federation).await?;
    /// Compares the words that another site's staff read out.
    "verify_peer" VerifyPeer { federation: FederationId, site: SiteId, words: String } -> PeerView,
        reads [], changes [Federations, Alarm, Audit],
        |c| c.engine.verify_peer(&c.person()?, federation, site, words).await?;
    /// Takes back, with a reason, that a site's key was verified here.
    "unverify_peer" UnverifyPeer { federation: FederationId, site: SiteId, reason: String } -> PeerView,
        reads [], changes [Federations, Jobs, Egress, Audit],
        |c| c.engine.unverify_peer(&c.person()?, federation, site, reason).await?;
    /// Vouches for a site verified here.
    "vouch" Vouch { federation: FederationId, site: SiteId } -> PeerView,
        reads [], changes [Federations, Audit],
        |c| c.engine.vouch(&c.person()?, federation, site).await?;
    /// Pauses a federation, or ends the pause.
    "pause" Pause { federation: FederationId, reason: Option<String> } -> (),
        reads [], changes [Federations, Jobs, Egress, Audit],
        |c| c.engine.pause(&c.person()?, federation, reason).await?;
    /// Leaves a federation for good, until it is joined again.
    "leave" Leave { federation: FederationId, reason: String } -> (),
        reads [], changes [Federations, Requests, Jobs, Egress, Audit],
        |c| c.engine.leave(&c.person()?, federation, reason).await?;
    /// Accepts the epoch of a coordinator that was restored from a backup.
    "accept_epoch" AcceptEpoch { federation: FederationId } -> (),
        reads [], changes [Federations, Audit],
        |c| c.engine.accept_epoch(&c.person()?, federation).await?;
    /// Tests the way to a federation's coordinator.
    "diagnose" Diagnose { federation: FederationId } -> Vec<Step>,
        reads [], changes [],
        |c| c.engine.diagnose(&c.person()?, federation).await?;
    /// How the coordinators of this site's federations are reached; no password is among it.
    "ways" Ways {} -> Vec<WayView>,
        reads [Federations], changes [],
        |c| c.engine.ways(&c.person()?).await?;
    /// Tries another way to a federation's coordinator, and keeps it if all went well, or all the same for a reason.
    "set_way" SetWay { way: NewWay, despite: Option<String> } -> WayTried,
        reads [], changes [Federations, Audit],
        |c| c.engine.set_way(&c.person()?, way, despite).await?;
    /// Studies that were offered.
    "requests" Requests {} -> Vec<RequestView>,
        reads [Requests, Jobs], changes [],
        |c| c.engine.requests(&c.person()?).await?;
    /// The review of a request.
    "review" Review { study: StudyId, dataset: Option<DatasetId> } -> Review,
        reads [Requests, Datasets, Federations, Settings, Egress], changes [],
        |c| c.engine.review(&c.person()?, study, dataset).await?;
    /// The dry run of a request, if one was made: what would leave. It does not leave.
    "dry_run" DryRun { study: StudyId } -> Option<DryRunView>,
        reads [DryRun, Requests, Datasets, Settings], changes [],
        |c| c.engine.dry_run(&c.person()?, study).await?;
    /// Begins one, on this dataset or the one of the review.
    "start_dry_run" StartDryRun { study: StudyId, dataset: Option<DatasetId>, attack: bool } -> (),
        reads [], changes [DryRun, Audit],
        |c| c.engine.start_dry_run(&c.person()?, study, dataset, attack).await?;
    /// Stops it, or forgets what came of one that has ended.
    "stop_dry_run" StopDryRun { study: StudyId } -> (),
        reads [], changes [DryRun, Audit],
        |c| c.engine.stop_dry_run(&c.person()?, study).await?;
    /// The privacy officer's opinion.
    "give_opinion" GiveOpinion { study: StudyId, view: OpinionView, text: String } -> (),
        reads [], changes [Requests, Audit],
        |c| c.engine.give_opinion(&c.person()?, study, view, text).await?;
    /// First signature.
    "approve" Approve { approving: Approving, passphrase: Secret } -> Signed,
        reads [], changes [Requests, Audit],
        |c| c.engine.approve(&c.person()?, approving, passphrase.passphrase()).await?;
    /// Second signature.
    "countersign" Countersign { study: StudyId, digest: Digest, passphrase: Secret } -> Signed,
        reads [], changes [Requests, Audit],
        |c| c.engine.countersign(&c.person()?, study, digest, passphrase.passphrase()).await?;
    /// Refuses, suspends, resumes or revokes.
    "decide" Decide { study: StudyId, verdict: Verdict } -> RequestView,
        reads [], changes [Requests, Jobs, Egress, Audit],
        |c| c.engine.decide(&c.person()?, study, verdict).await?;
    /// A page of runs.
    "jobs" Jobs { page: Page } -> Vec<JobView>,
        reads [Jobs], changes [],
        |c| c.engine.jobs(&c.person()?, page).await?;
    /// A run with a page of its rounds and their results; they do not leave.
    "job" Job { job: JobId, page: Page } -> JobView,
        reads [Federations, Jobs, Settings], changes [],
        |c| c.engine.job(&c.person()?, job, page).await?;
    /// The newest lines about a run, oldest first.
    "job_log" JobLog { job: JobId } -> Vec<LogLine>,
        reads [Jobs, Egress], changes [],
        |c| c.engine.job_log(&c.person()?, job).await?;
    /// What this machine trains on, and within which limits; at first it takes the time to try its graphics cards.
    "device" Device {} -> DeviceView,
        reads [Settings], changes [],
        |c| c.engine.device(&c.person()?).await?;
    /// What networks are trained on, and who decided it; needs nobody logged in, and looks for no card.
    "device_setting" DeviceSetting {} -> DeviceSetting,
        reads [Settings], changes [],
        |c| c.engine.device_setting().await?;
    /// Sets what networks are trained on, from the next work on.
    "set_device" SetDevice { choice: DeviceChoice } -> (),
        reads [], changes [Settings, Audit],
        |c| c.engine.set_device(&c.person()?, choice).await?;
    /// What the hospital's IT set, which nobody who uses Hospes can loosen; needs nobody logged in.
    "managed" Managed {} -> Managed,
        reads [Settings], changes [],
        |c| c.engine.managed().await?;
    /// What is known of newer versions of this program.
    "updates" Updates {} -> UpdatesView,
        reads [Settings], changes [],
        |c| c.engine.updates(&c.person()?).await?;
    /// Sets where newer versions are looked for; null is nowhere.
    "set_updates" SetUpdates { source: Option<UpdateSource>, passphrase: Secret } -> (),
        reads [], changes [Settings, Audit],
        |c| c.engine.set_updates(&c.person()?, source, passphrase.passphrase()).await?;
    /// Looks for a newer version now; what came of it stands in the answer, also where nobody answered.
    "check_updates" CheckUpdates {} -> UpdatesView,
        reads [], changes [Settings, Audit],
        |c| c.engine.check_updates(&c.person()?).await?;
    /// Writes the newer version's package for this machine to a new file; nothing is installed.
    "save_update" SaveUpdate { path: PathBuf } -> UpdateSaved,
        reads [], changes [Audit],
        |c| c.engine.save_update(&c.person()?, path).await?;
    /// What training may take of this machine, and when.
    "compute_limits" ComputeLimits {} -> ComputeLimits,
        reads [Settings], changes [],
        |c| c.engine.compute_limits(&c.person()?).await?;
    /// Sets that; work under way keeps the share and the threads that it began with.
    "set_compute_limits" SetComputeLimits { limits: ComputeLimits } -> (),
        reads [], changes [Settings, Jobs, Audit],
        |c| c.engine.set_compute_limits(&c.person()?, limits).await?;
    /// When people are signed out, and how wrong passphrases are slowed down.
    "sign_in_rules" SignInRules {} -> SignInRules,
        reads [Settings], changes [],
        |c| c.engine.sign_in_rules(&c.person()?).await?;
    /// Sets that, at once.
    "set_sign_in_rules" SetSignInRules { rules: SignInRules, passphrase: Secret } -> (),
        reads [], changes [Settings, People, Audit],
        |c| c.engine.set_sign_in_rules(&c.person()?, rules, passphrase.passphrase()).await?;
    /// Pauses a run at this site, or ends the pause.
    "pause_job" PauseJob { job: JobId, reason: Option<String> } -> (),
        reads [], changes [Jobs, Egress, Audit],
        |c| c.engine.pause_job(&c.person()?, job, reason).await?;
    /// Stops a run at this site.
    "cancel_job" CancelJob { job: JobId, reason: String } -> (),
        reads [], changes [Jobs, Egress, Audit],
        |c| c.engine.cancel_job(&c.person()?, job, reason).await?;
    /// Releases held results.
    "release" Release { job: JobId } -> (),
        reads [], changes [Jobs, Audit],
        |c| c.engine.release(&c.person()?, job).await?;
    /// Asks the coordinator for the released model of a run, with its card; how far it is, `model_copy` says.
    "fetch_model" FetchModel { job: JobId } -> (),
        reads [], changes [Jobs],
        |c| c.engine.fetch_model(&c.person()?, job).await?;
    /// Stops that.
    "stop_fetching" StopFetching { job: JobId } -> (),
        reads [], changes [Jobs],
        |c| c.engine.stop_fetching(&c.person()?, job).await?;
    /// What this site has of the released model of a run, with its card.
    "model_copy" ModelCopy { job: JobId } -> ModelCopy,
        reads [Jobs], changes [],
        |c| c.engine.model_copy(&c.person()?, job).await?;
    /// Writes the released model of a run to a new file and its card to another; a page names one place for both.
    "export_model" ExportModel { job: JobId, path: PathBuf, card: PathBuf } -> ModelExport,
        reads [], changes [Jobs, Audit],
        |c| c.engine.export_model(&c.person()?, job, path, card).await?;
    /// Writes the table of a released regression to a new file, as CSV.
    "export_table" ExportTable { job: JobId, task: String, path: PathBuf } -> TableExport,
        reads [], changes [Jobs, Audit],
        |c| c.engine.export_table(&c.person()?, job, task, path).await?;
    /// What it takes to use the released model of a run on data of this site, and how far a prediction is.
    "prediction" Prediction { job: JobId } -> PredictionOffer,
        reads [Jobs, Datasets, Settings], changes [],
        |c| c.engine.prediction(&c.person()?, job).await?;
    /// Uses the released model of a run on a dataset and writes what it gives for each row to a new file.
    "predict" Predict { job: JobId, dataset: DatasetId, path: PathBuf } -> PredictionMade,
        reads [], changes [Jobs, Audit],
        |c| c.engine.predict(&c.person()?, job, dataset, path).await?;
    /// Stops that.
    "stop_predicting" StopPredicting {} -> (),
        reads [], changes [Jobs],
        |c| c.engine.stop_predicting(&c.person()?).await?;
    /// A page of everything that ever left.
    "egress" Egress { page: Page } -> Vec<EgressView>,
        reads [Egress], changes [],
        |c| c.engine.egress(&c.person()?, page).await?;
    /// What was released of the site's patients, by pools of them, over all studies and federations.
    "privacy" Privacy {} -> Vec<PoolView>,
        reads [Datasets, Egress, Settings], changes [],
        |c| c.engine.privacy(&c.person()?).await?;
    /// A page of the audit log.
    "audit" Audit { query: AuditQuery } -> AuditPage,
        reads [Audit], changes [],
        |c| c.engine.audit(&c.person()?, query).await?;
    /// Verifies the whole ledger.
    "verify_audit" VerifyAudit {} -> Vec<String>,
        reads [Audit], changes [],
        |c| c.engine.verify_audit(&c.person()?).await?;
    /// Exports the ledger to a new file, signed with this site's identity in a federation.
    "export_audit" ExportAudit { federation: Option<FederationId>, kind: AuditFormat, path: PathBuf } -> AuditExport,
        reads [], changes [Audit],
        |c| c.engine.export_audit_as(&c.person()?, federation, kind, path).await?;
    /// Months after which entries of the audit log are erased; null keeps them for good.
    "audit_retention" AuditRetention {} -> Option<u32>,
        reads [Settings], changes [],
        |c| c.engine.audit_retention(&c.person()?).await?;
    /// Sets that; erasing sooner than before needs a second signature once the site is in operation.
    "set_audit_retention" SetAuditRetention { months: Option<u32>, passphrase: Secret } -> Outcome,
        reads [], changes [Settings, Audit],
        |c| c.engine.set_audit_retention(&c.person()?, months, passphrase.passphrase()).await?;
    /// The newest checkpoint of a log that was seen here, as a signed note.
    "checkpoint_note" CheckpointNote { federation: FederationId, origin: SiteId } -> String,
        reads [Audit], changes [],
        |c| c.engine.checkpoint_note(&c.person()?, federation, origin).await?;
    /// Alarms that nobody acknowledged.
    "alarms" Alarms {} -> Vec<AlarmView>,
        reads [Alarm], changes [],
        |c| c.engine.alarms(&c.person()?).await?;
    /// Acknowledges an alarm.
    "acknowledge" Acknowledge { alarm: i64 } -> (),
        reads [], changes [Alarm, Audit],
        |c| c.engine.acknowledge(&c.person()?, alarm).await?;
}
