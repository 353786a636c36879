//! What the engine is asked with and what it answers: plain values, the same for command line, window and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use hospes_cohort::evaluate::{Compared, Interval};
use hospes_cohort::profile::Profile;
pub use hospes_cohort::scan::ScanProfile;
use hospes_cohort::schema::ColumnKind;
pub use hospes_cohort::{Attack, AttackScores, Guard, Inversion, Membership, Preview, TensorPreview, Told, Untried};
use hospes_protocol::approval::{Range, ReleaseRule, Role};
use hospes_protocol::id::{ApprovalId, DatasetId, Digest, FederationId, JobId, PersonId, SiteId, StudyId, Timestamp};
use hospes_protocol::sign::PublicKey;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

mod audit;
mod backup;
mod compute;
mod database;
mod dry_run;
mod federation;
mod model;
mod names;
mod privacy;
mod review;
mod sign_in;
mod survey;
mod updates;
mod way;
mod work;

pub use work::{
    CardView, Comparison, DatasetUse, DecidedBy, DeviceSetting, DeviceView, EgressView, EndedApproval, JobState,
    JobView, LogLevel, LogLine, PolicyChange, PolicyEffect, PolicyPreview, Protection, ResultView, RoundState,
    RoundView, TaskInput, TaskState, TaskView,
};

pub use audit::{AuditErased, AuditObject, AuditParts, AuditSent};
pub use backup::{BackupMade, LostTail, RestoredFederation, RestoredView};
pub use compute::{ComputeLimits, Pause, QuietHours, Weekday};
pub use database::{AskedQuery, DatabaseTest, DatabaseView, NewDatabase, QueryView};
pub use dry_run::{DryMessage, DryPayload, DryRunState, DryRunView, DryRunWait, DryStart};
pub use federation::{LinkView, MembershipView, PeerView, WordsCompared};
pub use model::{
    CoefficientView, CopyState, FitView, ModelCard, ModelCopy, ModelExport, ModelFigure, ModelFigures, ModelParty,
    ModelSubgroup, PredictionDataset, PredictionMade, PredictionOffer, RESEARCH_ONLY, RatioView, TableExport,
};
pub use names::{NameMark, NameOf};
pub use privacy::{PoolAccount, PoolPoint, PoolStudy, PoolView, StudyBudget};
pub use review::{
    Change, DataTab, Fact, Finding, OpinionGiven, OutputsTab, PeerLine, PeopleTab, Reading, Review, SeriesBounds,
    SeriesOffer, SignatureGiven,
};
pub use sign_in::SignInRules;
pub use survey::{FileReading, GapView, ReadingView, SurveyView};
pub use updates::{UpdateFound, UpdatePackage, UpdateSaved, UpdateSource, UpdatesView};
pub use way::{NewAuthorities, NewProxy, NewWay, WayTried, WayView};

/// First sentence about an audit log that was verified and is whole. Any other first sentence says that it is not.
pub const LOG_IS_INTACT: &str = "The log is intact: every entry is where it was, none is missing.";

/// State of the site as a whole; shown before anybody logs in, so it names no study and no person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct Status {
    /// How far the site is set up.
    pub phase: Phase,
    /// Name and version of the software.
    pub software: String,
    /// The site's clock.
    pub at: Timestamp,
    /// Why everything is stopped, if it is.
    pub stopped: Option<String>,
    /// Name of the policy's profile.
    pub policy: String,
    /// Whether that is the public-data profile.
    pub public_data: bool,
    /// Federations.
    pub memberships: Vec<MembershipView>,
    /// Requests that wait for a decision.
    pub waiting: u32,
    /// When the next approval in force ends.
    pub next_expiry: Option<Timestamp>,
    /// Rounds being worked on.
    pub working: u32,
    /// Updates and reports that wait to be sent.
    pub outbox: u32,
    /// Why nothing is computed at the moment, if so.
    pub pause: Option<Pause>,
    /// The audit ledger.
    pub ledger: LedgerState,
    /// What somebody must look at.
    pub alarms: Vec<AlarmView>,
}

/// How far a site is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nobody is known yet.
    Empty,
    /// People are being added; nothing can leave. Ends with the first approval, for good.
    SetUp,
    /// In operation: what weakens protection needs two signatures.
    Operating,
}

/// State of the audit ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct LedgerState {
    /// Entries.
    pub entries: u64,
    /// Root hash of the tree.
    pub root: Digest,
    /// For each federation, how the coordinator and other members witness this log.
    pub witnessed: Vec<WitnessState>,
    /// What is known to be wrong with it.
    pub finding: Option<LedgerFinding>,
}

/// What a verification found in this site's own log. It stays until the alarm was acknowledged and another finds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct LedgerFinding {
    /// When it was found.
    pub at: Timestamp,
    /// The first bad entry, where it can be told.
    pub entry: Option<u64>,
    /// What is wrong.
    pub words: String,
    /// Its alarm while nobody has acknowledged it; until then nothing derived leaves.
    pub alarm: Option<i64>,
}

/// How a log is witnessed within one federation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct WitnessState {
    /// Federation.
    pub federation: FederationId,
    /// Whose log.
    pub origin: SiteId,
    /// Size last cosigned by anybody else.
    pub size: u64,
    /// Independent witnesses of that size.
    pub witnesses: u32,
    /// When that was.
    pub at: Option<Timestamp>,
    /// Whether enough members cosigned that two such sets share an honest site.
    pub settled: bool,
    /// What follows, in words.
    pub words: String,
}

/// Something that somebody must look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct AlarmView {
    /// Number, for acknowledging.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Federation, where it belongs to one.
    pub federation: Option<FederationId>,
    /// What happened and what to do.
    pub words: String,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PersonView {
    /// Id.
    pub id: PersonId,
    /// Name for logging in.
    pub name: String,
    /// Roles.
    pub roles: BTreeSet<Role>,
    /// The other organisation to which an external signer belongs.
    pub organisation: Option<String>,
    /// Whether they can act.
    pub state: PersonState,
    /// Public signing key, once they chose a passphrase.
    pub key: Option<PublicKey>,
}

/// The person who is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Me {
    /// Id.
    pub id: PersonId,
    /// Name.
    pub name: String,
    /// Roles.
    pub roles: BTreeSet<Role>,
    /// The other organisation, of a person who only signs here.
    pub organisation: Option<String>,
    /// When the session ends unless they do something before.
    pub ends: Timestamp,
}

/// Whether a person can act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum PersonState {
    /// Has not chosen a passphrase yet.
    Invited,
    /// Can act.
    Active,
    /// Cannot act any more.
    Disabled,
    /// Has a new key that a second person must confirm.
    KeyUnconfirmed,
}

/// A person to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct NewPerson {
    /// Name for logging in, unique.
    pub name: String,
    /// Roles.
    pub roles: BTreeSet<Role>,
    /// The other organisation, for an external signer.
    pub organisation: Option<String>,
}

/// A change of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum PersonChange {
    /// These roles from now on.
    Roles(BTreeSet<Role>),
    /// Cannot act any more.
    Disable,
    /// Can act again.
    Enable,
    /// Forgot the passphrase: the key is destroyed, a new code is handed out, and the new key counts after a second
    /// person confirmed it.
    NewKey,
}

/// What became of a request that may need a second person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done. A code to be handed to the person concerned, where there is one; it is shown once.
    Done {
        /// One-time code.
        code: Option<String>,
    },
    /// Waits for a second person's signature.
    Proposed(ProposalView),
}

/// Something that needs a second person's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ProposalView {
    /// Digest, which is signed and by which it is named.
    pub id: Digest,
    /// When.
    pub at: Timestamp,
    /// Who proposed it.
    pub by: String,
    /// What it does, in words.
    pub words: String,
    /// Whether the answer must hold the twelve words of a new key, as its owner reads them out.
    pub needs_words: bool,
}

/// A dataset to be registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct NewDataset {
    /// Name, unique at the site; that of a registered dataset makes a new version of it.
    pub name: String,
    /// File, or folder of images; of a query on a server, nothing.
    pub path: PathBuf,
    /// The query whose rows it has; without one, those of the file.
    #[serde(default)]
    pub query: Option<AskedQuery>,
    /// Name of the sheet, of a workbook; its first one if none is named.
    #[serde(default)]
    pub sheet: Option<String>,
    /// Cells that mean *missing* besides the empty one. If not said: those of the version before, or else what is usual for
    /// the kind of file.
    #[serde(default)]
    pub missing: Option<Vec<String>>,
    /// How strictly identifiers are looked for.
    #[serde(default)]
    pub scan: ScanProfile,
    /// Column that tells patients apart.
    pub subject: String,
    /// Types that the steward corrects.
    #[serde(default)]
    pub kinds: BTreeMap<String, ColumnKind>,
    /// Columns to be masked besides those of the scan.
    #[serde(default)]
    pub mask: BTreeSet<String>,
    /// Columns that the scan would mask and the steward keeps.
    #[serde(default)]
    pub keep: BTreeSet<String>,
    /// Whether the data are public, which the public-data policy asks for.
    #[serde(default)]
    pub public: bool,
    /// Data Use Ontology terms of the dataset, such as `DUO:0000042`.
    #[serde(default)]
    pub duo: Vec<String>,
}

/// A column of a source or a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ColumnView {
    /// Name.
    pub name: String,
    /// Type.
    pub kind: ColumnKind,
    /// Whether it stays out of the snapshot.
    pub masked: bool,
    /// Why the identifier scan found it suspicious, in words; empty if it did not.
    pub findings: Vec<String>,
}

/// A registered dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct DatasetView {
    /// Id.
    pub id: DatasetId,
    /// Name.
    pub name: String,
    /// Digest of the frozen snapshot.
    pub snapshot: Digest,
    /// When it was registered.
    pub at: Timestamp,
    /// Rows.
    pub rows: u64,
    /// Distinct subjects.
    pub subjects: u64,
    /// Distinct subjects that did not opt out.
    pub subjects_left: u64,
    /// Columns of the snapshot.
    pub columns: Vec<ColumnView>,
    /// Whether it is tagged public.
    pub public: bool,
    /// Data Use Ontology terms.
    pub duo: Vec<String>,
    /// Cells of its source that mean *missing* besides the empty one.
    pub missing: Vec<String>,
    /// Counts the versions of a series from 1.
    pub version: u32,
    /// The version before, which approvals given for it still name.
    pub former: Option<DatasetId>,
    /// The query that its rows came from; of a file, nothing.
    #[serde(default)]
    pub query: Option<QueryView>,
}

/// The profile of a dataset: what the steward sees. It does not leave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ProfileView {
    /// Dataset.
    pub dataset: DatasetView,
    /// Counts, missing values and histograms.
    pub profile: Profile,
}

/// What an import of opt-outs did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct OptOutReport {
    /// Subjects on the list now.
    pub listed: u64,
    /// Subjects of registered datasets that are on it.
    pub affected: u64,
}

/// What an invitation says, before it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct InvitationView {
    /// Where the coordinator is.
    pub url: String,
    /// Name under which the site will be known.
    pub site: String,
    /// When it stops being good.
    pub expires: Timestamp,
}

/// An invitation, and how its coordinator is reached: what is tested before a site joins.
#[derive(Clone, Serialize, Deserialize, TS)]
pub struct Approach {
    /// The operator's one-line invitation.
    pub invitation: String,
    /// HTTP CONNECT proxy, `http://[user:password@]host:port`.
    pub proxy: Option<String>,
    /// File with the hospital's own CA certificates, PEM.
    pub extra_ca: Option<PathBuf>,
}

impl std::fmt::Debug for Approach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Approach").finish_non_exhaustive()
    }
}

/// How to join a federation.
#[derive(Clone, Serialize, Deserialize, TS)]
pub struct Enrolment {
    /// The operator's one-line invitation.
    pub invitation: String,
    /// The twelve words of the coordinator's CA, got by a second channel and typed.
    pub words: String,
    /// Name of this organisation.
    pub organisation: String,
    /// HTTP CONNECT proxy, `http://[user:password@]host:port`.
    pub proxy: Option<String>,
    /// File with the hospital's own CA certificates, PEM, where the coordinator stands behind such a one.
    pub extra_ca: Option<PathBuf>,
    /// The federation to enrol in again, after a revocation or a lost certificate: an invitation that leads to another is
    /// then refused. A site that was a member before keeps its identity in any case.
    pub again: Option<FederationId>,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolment").field("organisation", &self.organisation).finish_non_exhaustive()
    }
}

/// What typed fingerprint words turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Words {
    /// Of another key. Somebody may stand between.
    Different,
    /// No twelve words with a right check sum.
    Mistyped,
}

impl Words {
    /// The sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Different => {
                "the words belong to another key; do not go on, and tell the person who gave you the words"
            }
            Self::Mistyped => "these are not the twelve words; one was misheard or mistyped",
        }
    }
}

/// State of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// Nobody looked at it yet.
    Received,
    /// Somebody did.
    UnderReview,
    /// One signature is there.
    PartlyApproved,
    /// In force.
    Active,
    /// Held.
    Suspended,
    /// Taken back.
    Revoked,
    /// Past its time.
    Expired,
    /// Refused by a person.
    Refused,
    /// The requester withdrew it.
    Withdrawn,
}

impl RequestState {
    /// The word for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::UnderReview => "under review",
            Self::PartlyApproved => "partly approved: the second signature is missing",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn by the requester",
        }
    }
}

/// A study that was offered, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct RequestView {
    /// Study.
    pub study: StudyId,
    /// Federation.
    pub federation: FederationId,
    /// Its name.
    pub federation_name: String,
    /// Title.
    pub title: String,
    /// Who asks.
    pub requester: String,
    /// When it came.
    pub received: Timestamp,
    /// State.
    pub state: RequestState,
    /// Until when an approval holds.
    pub expires: Option<Timestamp>,
    /// Runs used and approved.
    pub runs: Option<(u32, u32)>,
    /// Reason given for the state, if one was.
    pub reason: Option<String>,
    /// The approval under which rounds run, also while a further one is on its way.
    pub in_force: Option<InForce>,
}

/// An approval that is active or suspended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct InForce {
    /// Which.
    pub approval: ApprovalId,
    /// Active or suspended.
    pub state: RequestState,
    /// Who suspended it; only they resume it.
    pub held_by: Option<Role>,
    /// Until when it holds.
    pub expires: Timestamp,
    /// Runs used and approved.
    pub runs: (u32, u32),
    /// Reason given for the state, if one was.
    pub reason: Option<String>,
}

/// What a first signature covers. The default is exactly the plan, one run, on the snapshot alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct Approving {
    /// Study.
    pub study: StudyId,
    /// What the signer read, as the review has it.
    pub read: Reading,
    /// Dataset; may be left out where only one has the columns.
    pub dataset: Option<DatasetId>,
    /// Later versions of it too, with so many patients; `None` for the snapshot alone.
    pub series: Option<SeriesBounds>,
    /// Runs.
    pub max_runs: u32,
    /// Numbers that may differ, by place in the plan.
    pub ranges: BTreeMap<String, Range>,
    /// When results may be used.
    pub release: ReleaseRule,
    /// Answers to the checklist.
    pub checklist: BTreeMap<String, String>,
}

impl Approving {
    /// Exactly the plan, one run, on the snapshot alone, results reviewed by a person.
    pub fn exactly(study: StudyId, read: Reading) -> Self {
        Self {
            study,
            read,
            dataset: None,
            series: None,
            max_runs: 1,
            ranges: BTreeMap::new(),
            release: ReleaseRule::Reviewed,
            checklist: BTreeMap::new(),
        }
    }
}

/// What a signature led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Signed {
    /// Approval.
    pub approval: ApprovalId,
    /// Its digest.
    pub digest: Digest,
    /// State.
    pub state: RequestState,
    /// From when it has effect.
    pub not_before: Timestamp,
    /// Until when.
    pub expires: Timestamp,
}

/// A decision that needs no signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No, with a reason that the requester is told.
    Refuse {
        /// Reason.
        reason: String,
    },
    /// Not now.
    Suspend {
        /// Reason.
        reason: String,
    },
    /// Go on after a suspension.
    Resume,
    /// Taken back for good.
    Revoke {
        /// Reason.
        reason: String,
    },
}

/// Items of a page.
pub const PAGE_ITEMS: u32 = 50;

/// Which page of a list is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Items to be left out: the newest, which earlier pages held.
    pub skip: u32,
}

/// A page of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct AuditPage {
    /// Entries, newest first.
    pub entries: Vec<AuditLine>,
    /// Entries of the whole log.
    pub total: u64,
    /// [`AuditQuery::before`] of the next page; `None` where this is the last.
    pub next: Option<u64>,
}

/// An entry of the audit log, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct AuditLine {
    /// Number.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// Who: a person's name, a federation, or the engine.
    pub actor: String,
    /// What.
    pub action: String,
    /// Outcome.
    pub outcome: String,
    /// Reason or detail, in words.
    pub detail: String,
    /// Bytes that left, if any.
    pub bytes: Option<u64>,
    /// What it says part by part, for whoever opens it.
    pub parts: AuditParts,
}

/// A form in which the audit log is exported.
pub use hospes_ledger::report::Format as AuditFormat;

/// An export of the audit log that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct AuditExport {
    /// Its form.
    pub format: AuditFormat,
    /// Entries that it covers.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, which the log has too.
    pub digest: Digest,
    /// What is wrong with the log first; `None` where it is intact. Only the native form is made of one that is not.
    pub finding: Option<String>,
}

/// Which part of the audit log is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields)]
#[ts(optional_fields = nullable)]
pub struct AuditQuery {
    /// Only entries before this number (for the next page).
    pub before: Option<u64>,
    /// Most entries; 0 means 50.
    #[ts(as = "Option<u32>", optional)]
    pub limit: u32,
    /// Only these actions, such as `approval_signed`; all if empty.
    #[ts(as = "Option<Vec<String>>", optional)]
    pub actions: Vec<String>,
    /// Only what ended so: `success`, `refused` or `failed`.
    pub outcome: Option<String>,
    /// Only what this one did: a person's or a federation's id, or `engine`.
    pub actor: Option<String>,
    /// Only what concerns this study.
    pub study: Option<StudyId>,
    /// Only what concerns this run.
    pub job: Option<JobId>,
    /// Only what was done under this approval, or to it.
    pub approval: Option<ApprovalId>,
    /// Only what names this dataset: this version of it.
    pub dataset: Option<DatasetId>,
    /// Only from this time on.
    pub from: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
}

/// What changed, so that a screen asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// People or proposals.
    People,
    /// Datasets or opt-outs.
    Datasets,
    /// Memberships, links, peers.
    Federations,
    /// Requests and approvals.
    Requests,
    /// Jobs, rounds, progress.
    Jobs,
    /// What leaves.
    Egress,
    /// The audit log.
    Audit,
    /// Policy or settings.
    Settings,
    /// An alarm.
    Alarm,
    /// A dry run.
    DryRun,
}
