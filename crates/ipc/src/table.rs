//! The command table: every command with its arguments, what it reads and what it makes stale.
//!
//! One macro call yields the [`Call`] that is parsed from outside, the dispatch to the engine, and [`COMMANDS`], so that
//! a command cannot exist in one place only.

use std::path::PathBuf;

use hospes_party::view::{
    Approving, AuditFormat, AuditQuery, Enrolment, NewDataset, NewPerson, Notice, Page, PersonChange, Verdict,
};
use hospes_party::{Handle, PartyError, Passphrase, Session};
use hospes_protocol::approval::OpinionView;
use hospes_protocol::id::{DatasetId, Digest, FederationId, JobId, PersonId, SiteId, StudyId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::{Fault, FaultCode};

/// A passphrase or a code on its way in; `Debug` never shows it and its memory is erased.
#[derive(Clone, Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps what was typed.
    pub fn new(text: String) -> Self {
        Self(text)
    }
    fn passphrase(&self) -> Passphrase {
        Passphrase::from(self.0.clone())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What is known of a command besides its arguments.
#[derive(Debug, Clone, Copy)]
pub struct CommandInfo {
    /// Name.
    pub name: &'static str,
    /// A screen that shows its answer asks again when one of these changes.
    pub reads: &'static [Notice],
}

/// What a command answers with.
type Answer = Result<Value, Fault>;

fn answer<T: Serialize>(result: Result<T, PartyError>) -> Answer {
    let value = result.map_err(Fault::from)?;
    serde_json::to_value(value).map_err(|e| Fault::new(FaultCode::Store, e.to_string()))
}

macro_rules! commands {
    ($( $(#[$doc:meta])* $name:literal $variant:ident { $($field:ident : $type:ty),* } reads [$($notice:ident),*]
        |$handle:ident, $session:ident| $body:expr; )*) => {
        /// A command with its arguments, as it comes from a window or a command line:
        /// `{"command": "review", "args": {"study": "…"}}`.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(tag = "command", content = "args", deny_unknown_fields)]
        pub enum Call {
            $( $(#[$doc])* #[serde(rename = $name)] $variant { $(
                #[doc = concat!("Argument `", stringify!($field), "`.")]
                $field: $type
            ),* }, )*
        }

        /// Every command.
        pub const COMMANDS: &[CommandInfo] = &[
            $( CommandInfo { name: $name, reads: &[$(Notice::$notice),*] }, )*
        ];

        impl Call {
            /// Asks the engine on behalf of whoever is logged in on this connection.
            pub(crate) async fn ask(self, handle: &Handle, session: &mut Option<Session>) -> Answer {
                match self {
                    $( Self::$variant { $($field),* } => {
                        // A screen that is kept up to date is nobody at work: the session may end meanwhile.
                        const READS: &[Notice] = &[$(Notice::$notice),*];
                        if let Some(session) = session.as_mut() {
                            session.looks_on(!READS.is_empty());
                        }
                        let ($handle, $session) = (handle, &mut *session);
                        $body
                    } )*
                }
            }
        }
    };
}

impl Call {
    /// Reads a command of a web page, which may not name files (invariant I6): it could read and write whatever the engine
    /// can. Names of files come from the command line, until dialogs of the app's own process give them.
    ///
    /// # Errors
    /// [`FaultCode::Denied`] for a command that names a file, [`FaultCode::Command`] for what is no command.
    pub fn from_page(request: Value) -> Result<Self, Fault> {
        let call = Self::read(request)?;
        let names_a_file = match &call {
            Self::Survey { .. } | Self::AddDataset { .. } | Self::ImportOptOuts { .. } | Self::ExportAudit { .. } => {
                true
            }
            Self::Enrol { enrolment } => enrolment.extra_ca.is_some(),
            _ => false,
        };
        if names_a_file {
            let words = "what names a file is done with hospes-site on the command line, not in this window";
            return Err(Fault::new(FaultCode::Denied, words));
        }
        Ok(call)
    }

    /// Reads a command. The fault tells only the kind of what is wrong: the rest may hold a passphrase.
    pub(crate) fn read(request: Value) -> Result<Self, Fault> {
        serde_json::from_value(request)
            .map_err(|e| Fault::new(FaultCode::Command, format!("the command cannot be read ({:?})", e.classify())))
    }
}

/// The person who is logged in on this connection.
fn person(session: &Option<Session>) -> Result<&Session, Fault> {
    session.as_ref().ok_or_else(|| Fault::from(PartyError::NoSession))
}

commands! {
    /// State of the site; needs nobody logged in.
    "status" Status {} reads [People, Federations, Requests, Jobs, Egress, Audit, Settings, Alarm]
        |h, _s| answer(h.status().await);
    /// Makes the first person, an administrator.
    "set_up" SetUp { name: String, passphrase: Secret } reads []
        |h, _s| answer(h.set_up(name, passphrase.passphrase()).await);
    /// Logs a person in on this connection.
    "log_in" LogIn { name: String, passphrase: Secret } reads []
        |h, s| match h.log_in(name.clone(), passphrase.passphrase()).await {
            Ok(session) => {
                *s = Some(session);
                answer(Ok(serde_json::json!({ "name": name })))
            }
            Err(error) => Err(error.into()),
        };
    /// Says that somebody is at work, so that their session does not end.
    "active" Active {} reads []
        |h, s| answer(h.active(person(s)?).await);
    /// Logs out.
    "log_out" LogOut {} reads []
        |h, s| match s.take() {
            Some(session) => answer(h.log_out(&session).await),
            None => answer(Ok(())),
        };
    /// An added person chooses a passphrase with the one-time code.
    "activate" Activate { name: String, code: String, passphrase: Secret } reads []
        |h, _s| answer(h.activate(name, code, passphrase.passphrase()).await);
    /// Changes the passphrase of whoever is logged in.
    "change_passphrase" ChangePassphrase { old: Secret, new: Secret } reads []
        |h, s| answer(h.change_passphrase(person(s)?, old.passphrase(), new.passphrase()).await);
    /// People of the site.
    "people" People {} reads [People]
        |h, s| answer(h.people(person(s)?).await);
    /// Adds a person.
    "add_person" AddPerson { person: NewPerson, passphrase: Secret } reads []
        |h, s| answer(h.add_person(self::person(s)?, person, passphrase.passphrase()).await);
    /// Changes a person.
    "change_person" ChangePerson { id: PersonId, change: PersonChange, passphrase: Secret } reads []
        |h, s| answer(h.change_person(person(s)?, id, change, passphrase.passphrase()).await);
    /// What waits for a second person's signature.
    "proposals" Proposals {} reads [People, Settings]
        |h, s| answer(h.proposals(person(s)?).await);
    /// Signs or turns down what another person proposed.
    "answer_proposal" AnswerProposal {
        proposal: Digest, agree: bool, words: Option<String>, passphrase: Secret
    } reads []
        |h, s| answer(h.answer_proposal(person(s)?, proposal, agree, words, passphrase.passphrase()).await);
    /// The policy as a file.
    "policy" Policy {} reads [Settings]
        |h, s| answer(h.policy(person(s)?).await);
    /// Sets the policy.
    "set_policy" SetPolicy { toml: String, passphrase: Secret } reads []
        |h, s| answer(h.set_policy(person(s)?, toml, passphrase.passphrase()).await);
    /// Stops everything, or ends the stop.
    "stop" Stop { reason: Option<String> } reads []
        |h, s| answer(h.stop(person(s)?, reason).await);
    /// What is in a file, before it is registered.
    "survey" Survey { path: PathBuf } reads []
        |h, s| answer(h.survey(person(s)?, path).await);
    /// Registers a dataset.
    "add_dataset" AddDataset { dataset: NewDataset } reads []
        |h, s| answer(h.add_dataset(person(s)?, dataset).await);
    /// Registered datasets.
    "datasets" Datasets {} reads [Datasets]
        |h, s| answer(h.datasets(person(s)?).await);
    /// Profile of a dataset; it does not leave.
    "profile" Profile { dataset: DatasetId } reads [Datasets]
        |h, s| answer(h.profile(person(s)?, dataset).await);
    /// Sets the Data Use Ontology terms.
    "tag_dataset" TagDataset { dataset: DatasetId, duo: Vec<String> } reads []
        |h, s| answer(h.tag_dataset(person(s)?, dataset, duo).await);
    /// Imports the opt-out list.
    "import_opt_outs" ImportOptOuts { path: PathBuf } reads []
        |h, s| answer(h.import_opt_outs(person(s)?, path).await);
    /// What an invitation says.
    "read_invitation" ReadInvitation { invitation: String } reads []
        |_h, _s| answer(Handle::read_invitation(&invitation));
    /// Joins a federation.
    "enrol" Enrol { enrolment: Enrolment } reads []
        |h, s| answer(h.enrol(person(s)?, enrolment).await);
    /// Federations of the site.
    "memberships" Memberships {} reads [Federations]
        |h, s| answer(h.memberships(person(s)?).await);
    /// Other members of a federation.
    "peers" Peers { federation: FederationId } reads [Federations]
        |h, s| answer(h.peers(person(s)?, federation).await);
    /// Compares the words that another site's staff read out.
    "verify_peer" VerifyPeer { federation: FederationId, site: SiteId, words: String } reads []
        |h, s| answer(h.verify_peer(person(s)?, federation, site, words).await);
    /// Vouches for a site verified here.
    "vouch" Vouch { federation: FederationId, site: SiteId } reads []
        |h, s| answer(h.vouch(person(s)?, federation, site).await);
    /// Pauses a federation, or ends the pause.
    "pause" Pause { federation: FederationId, reason: Option<String> } reads []
        |h, s| answer(h.pause(person(s)?, federation, reason).await);
    /// Accepts the epoch of a coordinator that was restored from a backup.
    "accept_epoch" AcceptEpoch { federation: FederationId } reads []
        |h, s| answer(h.accept_epoch(person(s)?, federation).await);
    /// Tests the way to a federation's coordinator.
    "diagnose" Diagnose { federation: FederationId } reads []
        |h, s| answer(h.diagnose(person(s)?, federation).await);
    /// Studies that were offered.
    "requests" Requests {} reads [Requests]
        |h, s| answer(h.requests(person(s)?).await);
    /// The review of a request.
    "review" Review { study: StudyId, dataset: Option<DatasetId> } reads [Requests, Datasets, Federations, Settings]
        |h, s| answer(h.review(person(s)?, study, dataset).await);
    /// The privacy officer's opinion.
    "give_opinion" GiveOpinion { study: StudyId, view: OpinionView, text: String } reads []
        |h, s| answer(h.give_opinion(person(s)?, study, view, text).await);
    /// First signature.
    "approve" Approve { approving: Approving, passphrase: Secret } reads []
        |h, s| answer(h.approve(person(s)?, approving, passphrase.passphrase()).await);
    /// Second signature.
    "countersign" Countersign { study: StudyId, digest: Digest, passphrase: Secret } reads []
        |h, s| answer(h.countersign(person(s)?, study, digest, passphrase.passphrase()).await);
    /// Refuses, suspends, resumes or revokes.
    "decide" Decide { study: StudyId, verdict: Verdict } reads []
        |h, s| answer(h.decide(person(s)?, study, verdict).await);
    /// A page of runs.
    "jobs" Jobs { page: Page } reads [Jobs]
        |h, s| answer(h.jobs(person(s)?, page).await);
    /// A run with a page of its rounds and their results; they do not leave.
    "job" Job { job: JobId, page: Page } reads [Jobs]
        |h, s| answer(h.job(person(s)?, job, page).await);
    /// Stops a run at this site.
    "cancel_job" CancelJob { job: JobId, reason: String } reads []
        |h, s| answer(h.cancel_job(person(s)?, job, reason).await);
    /// Releases held results.
    "release" Release { job: JobId } reads []
        |h, s| answer(h.release(person(s)?, job).await);
    /// A page of everything that ever left.
    "egress" Egress { page: Page } reads [Egress]
        |h, s| answer(h.egress(person(s)?, page).await);
    /// A page of the audit log.
    "audit" Audit { query: AuditQuery } reads [Audit]
        |h, s| answer(h.audit(person(s)?, query).await);
    /// Verifies the whole ledger.
    "verify_audit" VerifyAudit {} reads [Audit]
        |h, s| answer(h.verify_audit(person(s)?).await);
    /// Exports the ledger to a new file, signed with this site's identity in a federation.
    "export_audit" ExportAudit { federation: Option<FederationId>, kind: AuditFormat, path: PathBuf } reads []
        |h, s| answer(h.export_audit_as(person(s)?, federation, kind, path).await);
    /// The newest checkpoint of a log that was seen here, as a signed note.
    "checkpoint_note" CheckpointNote { federation: FederationId, origin: SiteId } reads [Audit]
        |h, s| answer(h.checkpoint_note(person(s)?, federation, origin).await);
    /// Alarms that nobody acknowledged.
    "alarms" Alarms {} reads [Alarm]
        |h, s| answer(h.alarms(person(s)?).await);
    /// Acknowledges an alarm.
    "acknowledge" Acknowledge { alarm: i64 } reads []
        |h, s| answer(h.acknowledge(person(s)?, alarm).await);
}
