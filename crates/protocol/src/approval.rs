//! Approvals and permits.
//!
//! An [`Approval`] is a signed envelope around purpose, roster, computation, data, what leaves, limits and expiry.
//! [`Approval::permit`] is the only constructor of a [`Permit`], and a [`Permit`] is the only way to open a cohort for
//! anything that leaves (invariant I2). It is asked before every round and again before every send.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::canon::{CanonError, Canonical, Document};
use crate::id::{ApprovalId, Digest, FederationId, JobId, PersonId, RoundKey, SiteId, StudyId, Timestamp};
use crate::plan::{self, Plan};
use crate::policy::{FourEyes, Policy};
use crate::round::RoundHeader;
use crate::sign::{PublicKey, SecretKey, Signature};
use crate::study::Terms;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
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
}

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// People whose signatures count.
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
}

/// What was used of an approval so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Jobs that were run under it; the job of the round asked for counts once, whether it is among them or not.
    pub jobs: BTreeSet<JobId>,
    /// Last round answered for this job and task in the coordinator's current epoch, if any.
    pub last_round: Option<u32>,
    /// Attempts for which a permit was given in that last round.
    pub last_attempt: Option<u32>,
    /// The coordinator's epoch that the site knows.
    pub epoch: u64,
}

/// Leave to open one cohort for one task of one round until a deadline.
///
/// Its only constructor is [`Approval::permit`]; it can neither be copied nor read from bytes.
#[derive(Debug)]
pub struct Permit {
    approval: ApprovalId,
    approval_digest: Digest,
    study: StudyId,
    round: RoundKey,
    snapshot: Digest,
    columns: BTreeSet<String>,
    deadline: Timestamp,
}

impl Permit {
    /// Approval that gave it.
    pub fn approval(&self) -> ApprovalId {
        self.approval
    }
    /// Digest of that approval's document.
    pub fn approval_digest(&self) -> Digest {
        self.approval_digest
    }
    /// Study.
    pub fn study(&self) -> StudyId {
        self.study
    }
    /// The one round it is good for.
    pub fn round(&self) -> &RoundKey {
        &self.round
    }
    /// The one snapshot it opens.
    pub fn snapshot(&self) -> Digest {
        self.snapshot
    }
    /// Columns that may be read.
    pub fn columns(&self) -> &BTreeSet<String> {
        &self.columns
    }
    /// Not good from then on.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }
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
    /// Too few subjects are left.
    TooFewSubjects,
    /// The policy forbids it.
    Policy,
    /// The round's header contradicts itself or the study.
    Header,
    /// The site, or this federation, is stopped or paused.
    Stopped,
    /// The device, the disk or the engine cannot do it now.
    CannotRun,
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
}

impl Approval {
    /// Leave for one round, or the reason why not. The only constructor of [`Permit`].
    ///
    /// Checks signatures, state, time, runs, the plan against the envelope, snapshot, columns, subjects, policy, roster
    /// and header, in that order, and stops at the first that does not hold.
    ///
    /// # Errors
    /// The [`Refusal`] says what did not hold.
    pub fn permit(&self, now: &Circumstances) -> Result<Permit, Refusal> {
        let document = &self.document;
        let envelope = &document.envelope;
        let header = &now.header;
        self.check_signatures(&now.signers)?;
        check_state(now.state)?;
        if let Some(reason) = &now.stopped {
            return Err(Refusal::new(RefusalCode::Stopped, reason.clone()));
        }
        check_time(&envelope.limits, now.now)?;
        check_header(envelope, now)?;
        check_spent(envelope, now)?;
        envelope.computation.holds(&now.plan)?;
        check_data(envelope, now)?;
        check_policy(envelope, now)?;
        check_roster(envelope, now)?;
        let longest = now.now.plus_millis(i64::from(envelope.limits.round_seconds) * 1_000);
        Ok(Permit {
            approval: document.id,
            approval_digest: document.digest(),
            study: envelope.study,
            round: header.key(),
            snapshot: envelope.data.snapshot,
            columns: envelope.data.columns.clone(),
            deadline: longest.min(header.deadline).min(envelope.limits.expires),
        })
    }

    /// Whether the signatures that the mode asks for are there, each by an enabled person who holds the role.
    ///
    /// # Errors
    /// A [`Refusal`] with [`RefusalCode::Signatures`].
    pub fn check_signatures(&self, signers: &[Signer]) -> Result<(), Refusal> {
        let refuse = |detail: String| Err(Refusal::new(RefusalCode::Signatures, detail));
        let digest = self.document.digest();
        let mut by_role: BTreeMap<Role, PersonId> = BTreeMap::new();
        for signature in &self.signatures {
            let Some(signer) = signers.iter().find(|s| s.person == signature.person) else {
                return refuse(format!("a signature is by {}, who is not known here", signature.person));
            };
            if !signer.enabled || !signer.roles.contains(&signature.role) {
                return refuse(format!("{} may not sign as {}", signature.person, signature.role));
            }
            if !signature.holds(digest, &signer.key) {
                return refuse(
                    "a signature does not fit the approval; the approval or the signature was altered".into(),
                );
            }
            if document_needs_external(self.document.four_eyes)
                && signature.role == Role::DataAccessApprover
                && !signer.external
            {
                return refuse("the second signature must come from another organisation".into());
            }
            by_role.insert(signature.role, signature.person);
        }
        let Some(steward) = by_role.get(&Role::DataSteward) else {
            return refuse("the data steward has not signed".into());
        };
        match (self.document.four_eyes, by_role.get(&Role::DataAccessApprover)) {
            (FourEyes::Delayed, _) => Ok(()),
            (_, None) => refuse("the second signature is missing".into()),
            (_, Some(approver)) if approver == steward => refuse("both signatures are by one person".into()),
            _ => Ok(()),
        }
    }
}

fn document_needs_external(mode: FourEyes) -> bool {
    mode == FourEyes::External
}

fn check_state(state: ApprovalState) -> Result<(), Refusal> {
    let (code, detail) = match state {
        ApprovalState::Active => return Ok(()),
        ApprovalState::PartlyApproved => (RefusalCode::NotApproved, "the second signature is missing"),
        ApprovalState::Suspended => (RefusalCode::Suspended, "the approval is suspended"),
        ApprovalState::Revoked => (RefusalCode::Revoked, "the approval was revoked"),
        ApprovalState::Expired => (RefusalCode::Expired, "the approval has expired"),
        ApprovalState::Superseded => (RefusalCode::Superseded, "another approval took its place"),
    };
    Err(Refusal::new(code, detail))
}

fn check_time(limits: &RunLimits, now: Timestamp) -> Result<(), Refusal> {
    if now < limits.not_before {
        return Err(Refusal::new(RefusalCode::Expired, format!("the approval takes effect at {}", limits.not_before)));
    }
    if now >= limits.expires {
        return Err(Refusal::new(RefusalCode::Expired, format!("the approval expired at {}", limits.expires)));
    }
    Ok(())
}

fn check_header(envelope: &Envelope, now: &Circumstances) -> Result<(), Refusal> {
    let header = &now.header;
    let wrong = |detail: &str| Err(Refusal::new(RefusalCode::Header, detail));
    if header.federation != envelope.federation || header.study != envelope.study {
        return wrong("the round belongs to another study or federation");
    }
    if header.plan != now.plan.digest() {
        return wrong("the round names another plan than the one that was sent");
    }
    if now.now >= header.deadline {
        return Err(Refusal::new(RefusalCode::TooLate, "the round's deadline has passed"));
    }
    let Some(task) = now.plan.tasks.get(&header.task) else {
        return wrong("the round names a task that the plan does not have");
    };
    if header.round == 0 || header.attempt == 0 || header.round > task.component.rounds() {
        return wrong("the round's number lies outside the plan");
    }
    if header.epoch != now.spent.epoch {
        return Err(Refusal::new(
            RefusalCode::Epoch,
            "the coordinator was restored from a backup; its new epoch was not approved here",
        ));
    }
    Ok(())
}

fn check_spent(envelope: &Envelope, now: &Circumstances) -> Result<(), Refusal> {
    let (spent, header) = (&now.spent, &now.header);
    let used = spent.jobs.len() as u64 + u64::from(!spent.jobs.contains(&header.job));
    if used > u64::from(envelope.computation.max_runs) {
        return Err(Refusal::new(
            RefusalCode::RunsUsedUp,
            format!("all {} approved runs are used", envelope.computation.max_runs),
        ));
    }
    let replayed = spent.last_round.is_some_and(|last| {
        header.round < last || (header.round == last && spent.last_attempt.is_some_and(|a| header.attempt <= a))
    });
    if replayed {
        return Err(Refusal::new(RefusalCode::RoundReplayed, "this round was answered before"));
    }
    Ok(())
}

fn check_data(envelope: &Envelope, now: &Circumstances) -> Result<(), Refusal> {
    if now.snapshot.digest != envelope.data.snapshot {
        return Err(Refusal::new(RefusalCode::Snapshot, "the data are not the snapshot that was approved"));
    }
    let needed = plan::columns_read(&now.plan);
    if let Some(extra) = needed.iter().find(|c| !envelope.data.columns.contains(*c)) {
        return Err(Refusal::new(RefusalCode::OutsideEnvelope, format!("column '{extra}' was not approved")));
    }
    if let Some(absent) = needed.iter().find(|c| !now.snapshot.columns.contains(*c)) {
        return Err(Refusal::new(RefusalCode::Snapshot, format!("the data have no column '{absent}'")));
    }
    if now.snapshot.subjects < now.policy.disclosure.min_subjects {
        return Err(Refusal::new(
            RefusalCode::TooFewSubjects,
            format!("fewer than {} subjects are left", now.policy.disclosure.min_subjects),
        ));
    }
    Ok(())
}

fn check_policy(envelope: &Envelope, now: &Circumstances) -> Result<(), Refusal> {
    let refuse = |detail: String| Err(Refusal::new(RefusalCode::Policy, detail));
    let digest = now.policy.digest().map_err(|e| Refusal::new(RefusalCode::Policy, e.to_string()))?;
    if digest != envelope.policy {
        return refuse("the policy changed since the approval; it has to be approved again".into());
    }
    if now.policy.is_public_data() && !now.snapshot.public {
        return refuse("the public-data policy is for datasets tagged public only".into());
    }
    if now.policy.training.force_secure_aggregation && !now.header.is_secure() {
        return refuse("the policy demands secure aggregation, which this round does not use".into());
    }
    if now.policy.privacy.require_dp {
        return refuse("the policy demands differential privacy, which this version does not have".into());
    }
    if let Some(item) = envelope.egress.iter().find(|item| !now.policy.allows(item.kind)) {
        return refuse(format!("the policy does not let '{}' leave", item.name));
    }
    Ok(())
}

fn check_roster(envelope: &Envelope, now: &Circumstances) -> Result<(), Refusal> {
    let refuse = |detail: String| Err(Refusal::new(RefusalCode::Roster, detail));
    let header = &now.header;
    let mut seen = BTreeSet::new();
    let mut trusted = 0u32;
    for entry in &header.roster {
        if !seen.insert(entry.site) || entry.identity.site_id() != entry.site {
            return refuse("the roster names a site twice or with a key that is not its own".into());
        }
        if entry.site == envelope.site {
            continue;
        }
        let Some(peer) = envelope.roster.iter().find(|p| p.site == entry.site && p.identity == entry.identity) else {
            return refuse(format!("site {} was not in the approved roster, or with another key", entry.site));
        };
        let current = now.peers.get(&entry.site.to_string()).copied().unwrap_or(Trust::AssertedOnly);
        trusted += u32::from(peer.trust.min(current) > Trust::AssertedOnly);
    }
    if !seen.contains(&envelope.site) {
        return refuse("this site is not in the round's roster".into());
    }
    let training = &now.policy.training;
    if (seen.len() as u64) < u64::from(training.min_parties) {
        return refuse(format!("{} sites, the policy asks for at least {}", seen.len(), training.min_parties));
    }
    if trusted < training.min_trusted_peers {
        return refuse(format!(
            "{trusted} other sites are verified here or vouched for, the policy asks for at least {}",
            training.min_trusted_peers
        ));
    }
    Ok(())
}

impl Computation {
    /// Whether a plan lies inside: equal to the reviewed plan in everything but the numbers that have a range.
    ///
    /// # Errors
    /// A [`Refusal`] that names the first place outside.
    pub fn holds(&self, plan: &Canonical<Plan>) -> Result<(), Refusal> {
        if plan.digest() == self.plan.digest() {
            return Ok(());
        }
        let tree =
            |p: &Plan| serde_json::to_value(p).map_err(|e| Refusal::new(RefusalCode::OutsideEnvelope, e.to_string()));
        match outside("", &tree(&self.plan)?, &tree(plan)?, &self.ranges) {
            None => Ok(()),
            Some(detail) => Err(Refusal::new(RefusalCode::OutsideEnvelope, detail)),
        }
    }
}

/// The first place where `asked` lies outside `approved`, in words.
fn outside(
    place: &str,
    approved: &serde_json::Value,
    asked: &serde_json::Value,
    ranges: &BTreeMap<String, Range>,
) -> Option<String> {
    use serde_json::Value::{Array, Number, Object};
    let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    if let (Some(range), Number(number)) = (ranges.get(place), asked) {
        let value = number.as_f64().unwrap_or(f64::NAN);
        let inside = range.min <= value && value <= range.max;
        return (!inside).then(|| format!("{place} is {number}; approved is {} to {}", range.min, range.max));
    }
    match (approved, asked) {
        (Object(a), Object(b)) => {
            if let Some(key) = b.keys().find(|k| !a.contains_key(*k)) {
                return Some(format!("{} was not approved", below(key)));
            }
            a.iter().find_map(|(key, value)| match b.get(key) {
                Some(other) => outside(&below(key), value, other, ranges),
                None => Some(format!("{} was approved and is missing", below(key))),
            })
        }
        (Array(a), Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (x, y))| outside(&below(&i.to_string()), x, y, ranges))
        }
        (a, b) if a == b => None,
        (a, b) => Some(format!("{place} is {}; approved is {}", brief(b), brief(a))),
    }
}

fn brief(value: &serde_json::Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text }
}
