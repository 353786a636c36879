//! Approvals and permits.
//!
//! An [`Approval`] is a signed envelope around purpose, roster, computation, data, what leaves, limits and expiry.
//! [`Approval::permit`] is the only constructor of a [`Permit`], and a [`Permit`] is the only way to open a cohort for
//! anything that leaves (invariant I2). It is asked before every round and again before every send. A [`DryPermit`] opens
//! one for people of the site who want to see what would leave, and nothing leaves with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::canon::{CanonError, Canonical, Document};
use crate::id::{ApprovalId, DatasetId, Digest, FederationId, JobId, PersonId, SiteId, StudyId, Timestamp};
use crate::plan::{self, Plan};
use crate::policy::{FourEyes, Policy};
use crate::round::RoundHeader;
use crate::sign::{PublicKey, SecretKey, Signature};
use crate::study::Terms;

mod envelope;
mod leave;
mod permit;
mod signatures;

pub use leave::LeaveToPredict;
pub use permit::{DELAY_MS, DryPermit, Opening, Permit};

/// What an approval binds. One value outside, and a new approval is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Federation.
    pub federation: FederationId,
    /// Site that approves.
    pub site: SiteId,
    /// Study.
    pub study: StudyId,
    /// Digest of the study document as it was offered.
    pub study_digest: Digest,
    /// Purpose, people, basis.
    pub terms: Terms,
    /// Every other site, and how this site trusts its key.
    pub roster: Vec<Peer>,
    /// Computation.
    pub computation: Computation,
    /// Data.
    pub data: DataScope,
    /// What leaves.
    pub egress: Vec<plan::Egress>,
    /// Privacy.
    pub privacy: PrivacyStatement,
    /// Limits.
    pub limits: RunLimits,
    /// Digest of the policy it was given under.
    pub policy: Digest,
    /// When results may be used.
    pub release: ReleaseRule,
    /// Answers to the checklist.
    pub checklist: BTreeMap<String, String>,
}

/// Another site of the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Site.
    pub site: SiteId,
    /// Its name.
    pub name: String,
    /// Its organisation.
    pub organisation: String,
    /// Its identity key.
    pub identity: PublicKey,
    /// How this site trusts that key.
    pub trust: Trust,
}

/// How a site trusts another's identity key.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema, ts_rs::TS,
)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Nothing but the coordinator's word.
    AssertedOnly,
    /// A site that was verified here vouches for it; one step deep.
    VouchedFor,
    /// Words or QR compared outside the coordinator.
    VerifiedHere,
}

/// Which computations lie inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Computation {
    /// The plan that was reviewed.
    pub plan: Canonical<Plan>,
    /// Numbers that may differ, by place (`tasks.train.params.optimizer.sgd.lr`), and between what.
    pub ranges: BTreeMap<String, Range>,
    /// Runs.
    pub max_runs: u32,
    /// Digests of the plans that may be run, where the study lists its settings; where there are none, any plan within
    /// the ranges.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub settings: BTreeSet<Digest>,
}

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Smallest value inside.
    pub min: f64,
    /// Largest value inside.
    pub max: f64,
}

/// Which data lie inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataScope {
    /// Name of the dataset, for people.
    pub dataset: String,
    /// The frozen snapshot.
    pub snapshot: Digest,
    /// Columns actually read.
    pub columns: BTreeSet<String>,
    /// Columns that the dataset has in all.
    pub columns_available: u32,
    /// Distinct subjects when it was approved.
    pub subjects: u64,
    /// Later versions of the dataset that lie inside too; without it, the snapshot alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
}

/// Later versions of a dataset, each a snapshot of its own: read the same way, with the same columns and types, and as many
/// subjects as was signed. All versions of a dataset are one pool of subjects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Which: id of its first version.
    pub id: DatasetId,
    /// Number of the version that was reviewed; no earlier one lies inside.
    pub version: u32,
    /// Digest of what its versions have in common: how the source is read, and the columns with their types.
    pub form: Digest,
    /// Fewest distinct subjects of a later version, those who opted out among them.
    pub min_subjects: u64,
    /// Most distinct subjects of a later version.
    pub max_subjects: u64,
}

/// Privacy as it is promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyStatement {
    /// Whether updates travel masked.
    pub secure_aggregation: bool,
    /// Parts without protection, each named in words.
    pub unprotected: Vec<String>,
}

/// Limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunLimits {
    /// Not valid before (72 hours after the signature in the mode *delayed*).
    pub not_before: Timestamp,
    /// Not valid from then on.
    pub expires: Timestamp,
    /// Longest time for one round, in seconds.
    pub round_seconds: u32,
}

/// When the final model and figures of a run may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseRule {
    /// A named person reviews them first.
    Reviewed,
    /// After the automatic checks.
    Automatic,
}

/// The document that people sign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalDocument {
    /// Id, a UUIDv7.
    pub id: ApprovalId,
    /// When it was made.
    pub at: Timestamp,
    /// Whose two signatures it needs.
    pub four_eyes: FourEyes,
    /// What it binds.
    pub envelope: Envelope,
    /// The privacy officer's opinion, if there was one before.
    pub opinion: Option<Opinion>,
}

impl Document for ApprovalDocument {
    const KIND: &'static str = "approval";
    const VERSION: u32 = 1;
}

/// The privacy officer's opinion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opinion {
    /// Who.
    pub person: PersonId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub view: OpinionView,
    /// In words.
    pub text: String,
}

/// What the privacy officer thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum OpinionView {
    /// Agrees.
    Agree,
    /// Agrees with the conditions in the text.
    Conditions,
    /// Objects.
    Object,
}

/// A role at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Installs, enrols, manages people and settings; may stop everything.
    Administrator,
    /// Registers data; first signature.
    DataSteward,
    /// Second signature.
    DataAccessApprover,
    /// Gives opinions, can suspend, reads everything; signs no approval.
    PrivacyOfficer,
    /// Reads.
    Auditor,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Administrator => "administrator",
            Self::DataSteward => "data steward",
            Self::DataAccessApprover => "data-access approver",
            Self::PrivacyOfficer => "privacy officer",
            Self::Auditor => "auditor",
        })
    }
}

/// A person whose signature can count, as the site's own register has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// Who.
    pub person: PersonId,
    /// Their public key.
    pub key: PublicKey,
    /// Their roles.
    pub roles: BTreeSet<Role>,
    /// Whether they belong to another organisation (mode *external*).
    pub external: bool,
    /// Whether they may sign at present.
    pub enabled: bool,
}

/// What a person signs: this approval, as this role, at this time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalStatement {
    /// Digest of the [`ApprovalDocument`].
    pub approval: Digest,
    /// Who.
    pub person: PersonId,
    /// In which role.
    pub role: Role,
    /// When.
    pub at: Timestamp,
}

impl Document for ApprovalStatement {
    const KIND: &'static str = "approval-statement";
    const VERSION: u32 = 1;
}

/// A person's signature under an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalSignature {
    /// Who.
    pub person: PersonId,
    /// In which role.
    pub role: Role,
    /// When.
    pub at: Timestamp,
    /// Signature over the [`ApprovalStatement`].
    pub signature: Signature,
}

impl ApprovalSignature {
    /// Signs an approval as a role.
    ///
    /// # Errors
    /// [`CanonError`] only if the statement had no canonical form.
    pub fn new(
        approval: Digest,
        person: PersonId,
        role: Role,
        at: Timestamp,
        key: &SecretKey,
    ) -> Result<Self, CanonError> {
        let statement = Canonical::new(ApprovalStatement { approval, person, role, at })?;
        Ok(Self { person, role, at, signature: key.sign(&statement.digest()) })
    }

    fn holds(&self, approval: Digest, key: &PublicKey) -> bool {
        let statement = ApprovalStatement { approval, person: self.person, role: self.role, at: self.at };
        Canonical::new(statement).is_ok_and(|s| key.verifies(&s.digest(), &self.signature))
    }
}

/// An approval: the document and the signatures under it. Whether they suffice shows [`Approval::permit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// What was signed.
    pub document: Canonical<ApprovalDocument>,
    /// By whom.
    pub signatures: Vec<ApprovalSignature>,
}

/// State of an approval in the site's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// First signature is there, the second not yet.
    PartlyApproved,
    /// In force.
    Active,
    /// Held by the privacy officer or an administrator.
    Suspended,
    /// Taken back.
    Revoked,
    /// Past its time.
    Expired,
    /// Another approval of the study took its place.
    Superseded,
}

/// Everything that a permit depends on, besides the approval itself. All of it comes from the site's own store, except
/// `header`, which comes from the coordinator and is believed in nothing that the approval does not say too.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circumstances {
    /// Now.
    pub now: Timestamp,
    /// Plan of the run.
    pub plan: Canonical<Plan>,
    /// The round that the coordinator opened.
    pub header: Canonical<RoundHeader>,
    /// Snapshot as it lies here.
    pub snapshot: SnapshotFacts,
    /// The site's policy.
    pub policy: Policy,
    /// State of the approval.
    pub state: ApprovalState,
    /// What was used of it so far.
    pub spent: Spent,
    /// The site's register of people: those who signed, those whose signatures no longer count, and the privacy
    /// officers, whose opinions may be asked for.
    pub signers: Vec<Signer>,
    /// Other sites that are trusted now, by id; trust may have been withdrawn since the approval.
    pub peers: BTreeMap<String, Trust>,
    /// Whether the site as a whole, or this federation, is stopped.
    pub stopped: Option<String>,
}

/// The snapshot as it lies at the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFacts {
    /// Digest of the file as it is.
    pub digest: Digest,
    /// Its columns.
    pub columns: BTreeSet<String>,
    /// Distinct subjects that did not opt out.
    pub subjects: u64,
    /// Whether it is tagged as public data.
    pub public: bool,
    /// What it is among the versions of its dataset; `None` for a snapshot that belongs to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionFacts>,
}

/// A snapshot among the versions of its dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionFacts {
    /// Id of the first version.
    pub series: DatasetId,
    /// Number of this one.
    pub version: u32,
    /// Digest of how its source was read, and of its columns with their types.
    pub form: Digest,
    /// Distinct subjects, those who opted out among them.
    pub subjects: u64,
}

/// What was used of an approval so far. Where a permit is asked for again before a send, this is the state from before
/// the round that is sent: its own row is not among what was spent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Jobs that were run under it; the job of the round asked for counts once, whether it is among them or not.
    pub jobs: BTreeSet<JobId>,
    /// Whether another job of the study was given a permit before this one's first, under whichever of its approvals.
    #[serde(default)]
    pub is_later: bool,
    /// Last round answered for this job and task in the coordinator's current epoch, if any.
    pub last_round: Option<u32>,
    /// Attempts for which a permit was given in that last round.
    pub last_attempt: Option<u32>,
    /// Model from which that attempt started; `None` where the task needs none.
    pub last_model: Option<Digest>,
    /// The coordinator's epoch that the site knows.
    pub epoch: u64,
}

/// Why no permit was given. Recorded like a success, and shown in these words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// Machine-readable reason.
    pub code: RefusalCode,
    /// The reason in words, without any data value.
    pub detail: String,
}

/// Reasons for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// There is no approval.
    NotApproved,
    /// Signatures are missing, wrong, or of people who may not sign.
    Signatures,
    /// Not yet, or no longer, valid.
    Expired,
    /// Suspended.
    Suspended,
    /// Revoked.
    Revoked,
    /// Another approval took its place.
    Superseded,
    /// A person refused the study.
    RefusedByPerson,
    /// The plan lies outside the envelope.
    OutsideEnvelope,
    /// Runs are used up.
    RunsUsedUp,
    /// The round was answered before, or lies before one that was.
    RoundReplayed,
    /// Roster has a site that was not approved, or too few that are trusted.
    Roster,
    /// The snapshot is not the one approved.
    Snapshot,
    /// Too few subjects are left, or too few for a model of this size.
    TooFewSubjects,
    /// The policy forbids it.
    Policy,
    /// The round's header contradicts itself or the study.
    Header,
    /// The site, or this federation, is stopped or paused.
    Stopped,
    /// The device, the disk or the engine cannot do it now.
    CannotRun,
    /// The site has as many runs as it takes at a time; it can be asked again when one of them is over.
    Busy,
    /// The coordinator's epoch is not the one that was approved.
    Epoch,
    /// The deadline passed.
    TooLate,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(code: RefusalCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// As the coordinator may hear it. That a patient opted out, or how many are left, is a function of rows; the ledger and
    /// the site's own people have the words.
    #[must_use]
    pub fn outward(self) -> Self {
        // PRIVACY: one sentence for all that depends on rows.
        match self.code {
            RefusalCode::Snapshot | RefusalCode::TooFewSubjects => Self::new(RefusalCode::Snapshot, OUTWARD),
            _ => self,
        }
    }
}

/// What is said outside where the data of a site stand against something.
const OUTWARD: &str = "the data at this site, or its rules on them, do not allow it; the site's staff can see why";
