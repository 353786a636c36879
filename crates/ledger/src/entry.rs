//! What an entry says. Never a data value, a path with a patient's name, or free text from rows.

use std::fmt;
use std::str::FromStr;

use hospes_protocol::approval::Role;
use hospes_protocol::id::{ApprovalId, Digest, JobId, PersonId, SiteId, StudyId, Timestamp};
use hospes_protocol::sign::PublicKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{LedgerError, limits};

/// Something that happened, as the caller states it. Sequence and order are the ledger's to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When, by the party's clock.
    pub at: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// On whose behalf, where that is somebody else.
    pub on_behalf: Option<Actor>,
    /// What was done.
    pub action: Action,
    /// To what.
    pub objects: Vec<Object>,
    /// For which study, job and approval.
    pub purpose: Purpose,
    /// Settings before and after, by digest.
    pub change: Option<Change>,
    /// What left the party.
    pub egress: Option<Egress>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for a refusal or failure, or as a person stated it.
    pub reason: Option<String>,
    /// Program and machine.
    pub engine: Engine,
    /// The entry of a peer that this one answers.
    pub answers: Option<PeerEntry>,
}

impl Entry {
    /// A success of `actor` with nothing else to say; fill in the other fields as needed.
    pub fn new(at: Timestamp, actor: Actor, action: Action, engine: Engine) -> Self {
        Self {
            at,
            actor,
            on_behalf: None,
            action,
            objects: Vec::new(),
            purpose: Purpose::default(),
            change: None,
            egress: None,
            outcome: Outcome::Success,
            reason: None,
            engine,
            answers: None,
        }
    }

    /// With an object.
    #[must_use]
    pub fn object(mut self, kind: ObjectKind, id: impl fmt::Display, digest: Option<Digest>) -> Self {
        self.objects.push(Object { kind, id: id.to_string(), digest });
        self
    }

    /// For this study, job and approval.
    #[must_use]
    pub fn purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// As something that was refused, with the reason.
    #[must_use]
    pub fn refused(mut self, reason: impl fmt::Display) -> Self {
        self.outcome = Outcome::Refused;
        self.reason = Some(reason.to_string());
        self
    }

    /// As something that failed, with the reason.
    #[must_use]
    pub fn failed(mut self, reason: impl fmt::Display) -> Self {
        self.outcome = Outcome::Failed;
        self.reason = Some(reason.to_string());
        self
    }

    /// Checks every text against its limit.
    pub(crate) fn check(&self) -> Result<(), LedgerError> {
        check_actor("actor", &self.actor)?;
        if let Some(actor) = &self.on_behalf {
            check_actor("on_behalf", actor)?;
        }
        if self.objects.len() > limits::OBJECTS {
            return Err(LedgerError::Field {
                field: "objects",
                reason: format!("are {}, more than the {} allowed", self.objects.len(), limits::OBJECTS),
            });
        }
        for object in &self.objects {
            check_text("object id", &object.id, limits::NAME_CHARS)?;
        }
        if let Some(egress) = &self.egress {
            check_text("receiver", &egress.to, limits::NAME_CHARS)?;
        }
        if let Some(reason) = &self.reason {
            check_text("reason", reason, limits::REASON_CHARS)?;
        }
        check_text("engine version", &self.engine.version, limits::NAME_CHARS)?;
        check_text("device", self.engine.device.as_deref().unwrap_or_default(), limits::NAME_CHARS)
    }
}

fn check_actor(field: &'static str, actor: &Actor) -> Result<(), LedgerError> {
    match actor {
        Actor::Person { role, .. } => check_text(field, role.as_deref().unwrap_or_default(), limits::NAME_CHARS),
        Actor::Peer { organisation, .. } => {
            check_text(field, organisation.as_deref().unwrap_or_default(), limits::NAME_CHARS)
        }
        Actor::Engine => Ok(()),
    }
}

pub(crate) fn check_text(field: &'static str, text: &str, most: usize) -> Result<(), LedgerError> {
    let chars = text.chars().count();
    if chars > most {
        return Err(LedgerError::Field { field, reason: format!("has {chars} characters, more than {most}") });
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(LedgerError::Field { field, reason: "has a control character".into() });
    }
    Ok(())
}

/// Who did something. People are pseudonymous here; their names lie in a table of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Actor {
    /// A person of this party.
    Person {
        /// Pseudonym.
        id: PersonId,
        /// Key that they signed with, where they did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<PublicKey>,
        /// Role in which they acted, in snake case.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<String>,
    },
    /// Another party: a site, or the coordinator (whose node is the federation's id).
    Peer {
        /// Its organisation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        organisation: Option<String>,
        /// Its id.
        node: SiteId,
    },
    /// The program itself.
    Engine,
}

impl Actor {
    /// A person in a role, with the key that they signed with.
    pub fn person(id: PersonId, role: Option<Role>, key: Option<PublicKey>) -> Self {
        Self::Person { id, key, role: role.map(|r| role_name(r).to_owned()) }
    }

    /// A peer by its id.
    pub fn peer(node: SiteId) -> Self {
        Self::Peer { organisation: None, node }
    }

    /// The id by which entries are filtered: person, node, or `engine`.
    pub fn id(&self) -> String {
        match self {
            Self::Person { id, .. } => id.to_string(),
            Self::Peer { node, .. } => node.to_string(),
            Self::Engine => "engine".to_owned(),
        }
    }
}

/// Name of a role in an entry.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Administrator => "administrator",
        Role::DataSteward => "data_steward",
        Role::DataAccessApprover => "data_access_approver",
        Role::PrivacyOfficer => "privacy_officer",
        Role::Auditor => "auditor",
    }
}

/// A thing that an action concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// Its id or name; never a path or a value from rows.
    pub id: String,
    /// Its digest, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// For which study, job and approval something was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Purpose {
    /// Study.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub study: Option<StudyId>,
    /// Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
}

/// Settings before and after a change, by digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Before; `None` if there was nothing.
    pub before: Option<Digest>,
    /// After; `None` if nothing is left.
    pub after: Option<Digest>,
}

/// What left the party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Receiver.
    pub to: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of them.
    pub digest: Digest,
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was not allowed.
    Refused,
    /// It was tried and did not work.
    Failed,
}

impl Outcome {
    /// Name in an entry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Program and machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Program and its version, such as `hospes-site 0.1.0`.
    pub version: String,
    /// Device on which it ran, such as `cpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Engine {
    /// A program version, on no device in particular.
    pub fn new(version: impl Into<String>) -> Self {
        Self { version: version.into(), device: None }
    }
}

/// An entry in the ledger of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerEntry {
    /// Origin of the ledger.
    pub origin: SiteId,
    /// Sequence there.
    pub entry: u64,
}

/// Declares a closed list of names, each with one stable spelling.
macro_rules! names {
    ($(#[$outer:meta])* $name:ident: $what:literal { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ts_rs::TS)]
        $(#[$outer])*
        pub enum $name { $($(#[$doc])* #[ts(rename = $text)] $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The stable name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    // A hostile name can be of any length; a message should not be.
                    other => Err(format!(concat!("no ", $what, " is called '{}'"),
                                         other.chars().take(60).collect::<String>())),
                }
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use names;

names! {
    /// What kind of thing an object is.
    ObjectKind: "kind of object" {
        /// A study.
        Study = "study",
        /// A plan.
        Plan = "plan",
        /// A job.
        Job = "job",
        /// A round.
        Round = "round",
        /// An approval.
        Approval = "approval",
        /// A permit.
        Permit = "permit",
        /// A dataset.
        Dataset = "dataset",
        /// A snapshot of a dataset.
        Snapshot = "snapshot",
        /// The opt-out list.
        OptOuts = "opt_outs",
        /// A pool of subjects, which is an account of the privacy ledger; with what was charged to it.
        Pool = "pool",
        /// A model.
        Model = "model",
        /// A model update.
        Update = "update",
        /// A report of figures.
        Figures = "figures",
        /// A receipt for an upload.
        Receipt = "receipt",
        /// A policy.
        Policy = "policy",
        /// Settings other than the policy.
        Settings = "settings",
        /// A person.
        Person = "person",
        /// A key.
        Key = "key",
        /// A certificate.
        Certificate = "certificate",
        /// An invitation.
        Invitation = "invitation",
        /// An access token.
        Token = "token",
        /// A federation.
        Federation = "federation",
        /// A site.
        Site = "site",
        /// A roster.
        Roster = "roster",
        /// An export of this ledger.
        Export = "export",
        /// Entries of this ledger.
        Entries = "entries",
        /// A checkpoint of a ledger.
        Checkpoint = "checkpoint",
        /// A backup.
        Backup = "backup",
        /// A version of the program.
        Software = "software",
        /// A summary of control messages.
        Summary = "summary",
    }
}

names! {
    /// What was done. A closed list: names are stable, new ones are added at a version.
    Action: "action" {
        /// The engine started.
        EngineStarted = "engine_started",
        /// The engine stopped.
        EngineStopped = "engine_stopped",
        /// A person logged in.
        LoginSucceeded = "login_succeeded",
        /// A log-in failed.
        LoginFailed = "login_failed",
        /// A person logged out, or their session timed out.
        Logout = "logout",
        /// A person was added.
        PersonAdded = "person_added",
        /// A person was changed, disabled or enabled.
        PersonChanged = "person_changed",
        /// Roles of a person were changed.
        RolesChanged = "roles_changed",
        /// A signing key was made.
        KeyMade = "key_made",
        /// A signing key was replaced, or a replacement was confirmed.
        KeyReplaced = "key_replaced",
        /// A role was not enough for what a person tried.
        RoleRefused = "role_refused",
        /// The set-up phase ended.
        SetupEnded = "setup_ended",
        /// The policy was changed.
        PolicyChanged = "policy_changed",
        /// Other settings were changed.
        SettingsChanged = "settings_changed",
        /// An access token was made.
        TokenMade = "token_made",
        /// An access token was revoked.
        TokenRevoked = "token_revoked",
        /// A site was invited.
        InvitationMade = "invitation_made",
        /// An invitation was withdrawn or expired.
        InvitationWithdrawn = "invitation_withdrawn",
        /// A site enrolled in a federation.
        Enrolled = "enrolled",
        /// A site left a federation.
        FederationLeft = "federation_left",
        /// A certificate was issued.
        CertificateIssued = "certificate_issued",
        /// A certificate was renewed.
        CertificateRenewed = "certificate_renewed",
        /// A certificate was revoked.
        CertificateRevoked = "certificate_revoked",
        /// A site was suspended.
        SiteSuspended = "site_suspended",
        /// A suspended site was let in again.
        SiteResumed = "site_resumed",
        /// A site was revoked for good.
        SiteRevoked = "site_revoked",
        /// The roster changed.
        RosterChanged = "roster_changed",
        /// A peer's key was verified out of band.
        PeerVerified = "peer_verified",
        /// A peer's key is no longer verified: it came with another one, or a person took that back.
        PeerRevoked = "peer_revoked",
        /// A peer was vouched for.
        PeerVouched = "peer_vouched",
        /// A peer was refused: wrong key, certificate or version.
        PeerRefused = "peer_refused",
        /// A dataset was registered.
        DatasetRegistered = "dataset_registered",
        /// A dataset was changed or frozen anew.
        DatasetChanged = "dataset_changed",
        /// A dataset was removed.
        DatasetRemoved = "dataset_removed",
        /// The opt-out list was changed.
        OptOutsChanged = "opt_outs_changed",
        /// A database was tried: whether it answers, and what the role may do.
        DatabaseTried = "database_tried",
        /// A query was put to a database; written before its rows are read.
        DatabaseQueried = "database_queried",
        /// A study was submitted.
        StudySubmitted = "study_submitted",
        /// A study was offered to sites.
        StudyOffered = "study_offered",
        /// A study was withdrawn.
        StudyWithdrawn = "study_withdrawn",
        /// A site's decision on a study arrived.
        DecisionReceived = "decision_received",
        /// A request arrived.
        RequestReceived = "request_received",
        /// A request was refused by a person.
        RequestRefused = "request_refused",
        /// The privacy officer gave an opinion.
        OpinionGiven = "opinion_given",
        /// An approval got its first signature.
        ApprovalSigned = "approval_signed",
        /// An approval got its second signature.
        ApprovalCountersigned = "approval_countersigned",
        /// An approval was suspended.
        ApprovalSuspended = "approval_suspended",
        /// A suspended approval was resumed.
        ApprovalResumed = "approval_resumed",
        /// An approval was revoked.
        ApprovalRevoked = "approval_revoked",
        /// An approval expired.
        ApprovalExpired = "approval_expired",
        /// Another approval took the place of one.
        ApprovalSuperseded = "approval_superseded",
        /// A study was tried on local data; nothing left.
        DryRun = "dry_run",
        /// A permit was given.
        PermitMinted = "permit_minted",
        /// A permit was refused.
        PermitRefused = "permit_refused",
        /// A job was reserved, started or resumed.
        JobStarted = "job_started",
        /// A job ended.
        JobEnded = "job_ended",
        /// A job was cancelled.
        JobCancelled = "job_cancelled",
        /// A round was opened.
        RoundOpened = "round_opened",
        /// A round was closed.
        RoundClosed = "round_closed",
        /// Local work started.
        TrainingStarted = "training_started",
        /// Local work finished.
        TrainingFinished = "training_finished",
        /// Local work failed.
        TrainingFailed = "training_failed",
        /// Local work was paused.
        TrainingPaused = "training_paused",
        /// Local work was let go on after a pause.
        TrainingResumed = "training_resumed",
        /// Local work was cancelled.
        TrainingCancelled = "training_cancelled",
        /// An update is ready to leave; written before it is sent.
        UpdatePrepared = "update_prepared",
        /// An update was let go, at its first byte or at a resumption; from here on it may have arrived.
        UpdateLeaving = "update_leaving",
        /// An update left completely.
        UpdateSent = "update_sent",
        /// The receipt of an update arrived.
        UpdateReceipt = "update_receipt",
        /// An update was withdrawn; the reason says whether it was let go before.
        UpdateWithdrawn = "update_withdrawn",
        /// The site agreed to one sum of masked updates, and to no other of the round.
        SumAgreed = "sum_agreed",
        /// An upload arrived, was verified and is durable.
        UploadReceived = "upload_received",
        /// An upload was refused.
        UploadRefused = "upload_refused",
        /// A model was made from the sites' updates.
        ModelPublished = "model_published",
        /// A model arrived.
        ModelReceived = "model_received",
        /// A model was evaluated.
        ModelEvaluated = "model_evaluated",
        /// A model was used for predictions.
        ModelUsed = "model_used",
        /// A model was exported.
        ModelExported = "model_exported",
        /// Held results were released.
        ResultsReleased = "results_released",
        /// The ledger was viewed.
        AuditViewed = "audit_viewed",
        /// The ledger was exported.
        AuditExported = "audit_exported",
        /// Fields of entries were erased under a retention rule.
        AuditErased = "audit_erased",
        /// A peer's checkpoint was seen for the first time.
        WitnessFirst = "witness_first",
        /// A peer's checkpoint contradicts what was seen before.
        WitnessFailed = "witness_failed",
        /// A peer's checkpoint or cosignature did not come in time.
        WitnessLate = "witness_late",
        /// Everything was stopped at once by an administrator.
        BreakGlass = "break_glass",
        /// Work was allowed again after a stop.
        BreakGlassEnded = "break_glass_ended",
        /// A version of the program was installed.
        UpdateInstalled = "update_installed",
        /// The clock jumped, or differs from a peer's.
        ClockAnomaly = "clock_anomaly",
        /// Control messages of an hour, counted.
        ControlSummary = "control_summary",
        /// A backup was made.
        BackupMade = "backup_made",
        /// A backup was restored.
        BackupRestored = "backup_restored",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_of_actions_are_unique_snake_case_and_read_back() {
        let names: BTreeSet<&str> = Action::ALL.iter().map(|a| a.as_str()).collect();
        assert_eq!(names.len(), Action::ALL.len());
        for action in Action::ALL {
            assert_eq!(action.as_str().parse::<Action>().unwrap(), *action);
            assert!(action.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
        assert!("Engine_Started".parse::<Action>().is_err());
    }

    #[test]
    fn texts_over_their_limit_or_with_control_characters_are_refused() {
        let entry = |reason: &str| {
            Entry::new(Timestamp::from_millis(0), Actor::Engine, Action::DryRun, Engine::new("t")).failed(reason)
        };
        assert!(entry("fine\nin two lines").check().is_ok());
        assert!(entry("a\u{1b}[2J").check().is_err());
        assert!(entry(&"x".repeat(limits::REASON_CHARS + 1)).check().is_err());
        let mut many = entry("x");
        many.objects = vec![Object { kind: ObjectKind::Round, id: "1".into(), digest: None }; limits::OBJECTS + 1];
        assert!(many.check().is_err());
    }
}
