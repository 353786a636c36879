//! The permit, and everything that is asked before there is one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Approval, ApprovalState, Circumstances, Envelope, Peer, Refusal, RefusalCode, RunLimits, Trust};
use crate::id::{ApprovalId, Digest, RoundKey, StudyId, Timestamp};
use crate::plan::model::{self, TensorShape};
use crate::plan::{self, Component, Privacy, Strategy};
use crate::policy::{FourEyes, Partner};
use crate::round::{Mode, RoundHeader};
use crate::{limits, text, version};

/// Time after the one signature of the mode *delayed* before an approval takes effect.
pub const DELAY_MS: i64 = 72 * 60 * 60 * 1_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Leave to open one cohort for one task of one round until a deadline.
///
/// Its only constructor is [`Approval::permit`]. It cannot be written down:
///
/// ```compile_fail,E0451
/// use hospes_protocol::approval::Permit;
/// fn forge(real: Permit) -> Permit {
///     Permit { study: real.study(), ..real }
/// }
/// ```
///
/// It cannot be copied, so that one permit opens one cohort once:
///
/// ```compile_fail,E0599
/// use hospes_protocol::approval::Permit;
/// fn twice(real: &Permit) -> Permit {
///     real.clone()
/// }
/// ```
///
/// And it cannot be read from bytes that somebody sent:
///
/// ```compile_fail,E0277
/// use hospes_protocol::approval::Permit;
/// fn read(bytes: &[u8]) -> Permit {
///     serde_json::from_slice(bytes).unwrap()
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    approval: ApprovalId,
    approval_digest: Digest,
    study: StudyId,
    opening: Opening,
}

/// Leave to open one cohort for a dry run: to see what a site would send, before anybody signs.
///
/// Its only constructor is [`Approval::dry_permit`]. Nothing that is computed with it can leave, since an upload is made
/// of a [`Permit`] and of nothing else:
///
/// ```compile_fail,E0308
/// use hospes_protocol::approval::DryPermit;
/// use hospes_protocol::id::Digest;
/// use hospes_protocol::message::{Upload, UploadKind};
/// fn send(dry: &DryPermit) -> Upload {
///     Upload::new(dry, UploadKind::Update, Digest::of(b""), 0)
/// }
/// ```
#[derive(Debug)]
pub struct DryPermit {
    opening: Opening,
}

/// Which rows may be opened, for which round and until when. It comes out of a permit, which is used up by it, and there
/// is no other way to one:
///
/// ```compile_fail,E0451
/// use hospes_protocol::approval::Opening;
/// fn forge(real: Opening) -> Opening {
///     Opening { columns: Default::default(), ..real }
/// }
/// ```
#[derive(Debug)]
pub struct Opening {
    round: RoundKey,
    snapshot: Digest,
    columns: BTreeSet<String>,
    deadline: Timestamp,
}

impl Opening {
    /// The one round it is good for.
    pub fn round(&self) -> &RoundKey {
        &self.round
    }
    /// The one snapshot it opens.
    pub fn snapshot(&self) -> Digest {
        self.snapshot
    }
    /// Columns that may be read: those that the plan of this run names.
    pub fn columns(&self) -> &BTreeSet<String> {
        &self.columns
    }
    /// Not good from then on.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }
}

impl From<Permit> for Opening {
    fn from(permit: Permit) -> Self {
        permit.opening
    }
}

impl From<DryPermit> for Opening {
    fn from(permit: DryPermit) -> Self {
        permit.opening
    }
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
        self.opening.round()
    }
    /// The one snapshot it opens.
    pub fn snapshot(&self) -> Digest {
        self.opening.snapshot()
    }
    /// Columns that may be read: those that the plan of this run names.
    pub fn columns(&self) -> &BTreeSet<String> {
        self.opening.columns()
    }
    /// Not good from then on.
    pub fn deadline(&self) -> Timestamp {
        self.opening.deadline()
    }
}

impl Approval {
    /// Leave for one round, or the reason why not. The only constructor of [`Permit`].
    ///
    /// Checks state, signatures, time, the header against plan and study, runs and rounds spent, the plan against the
    /// envelope, what would leave against what was approved, snapshot, columns, subjects, policy and roster, in that
    /// order, then what the policy asks of those who sign, and stops at the first that does not hold.
    ///
    /// # Errors
    /// The [`Refusal`] says what did not hold.
    pub fn permit(&self, now: &Circumstances) -> Result<Permit, Refusal> {
        let document = &self.document;
        now.state.check()?;
        check_stopped(now)?;
        self.check_signatures(&now.signers)?;
        let opening = self.opening(now)?;
        self.check_people(now)?;
        Ok(Permit {
            approval: document.id,
            approval_digest: document.digest(),
            study: document.envelope.study,
            opening,
        })
    }

    /// Leave for a dry run of one round under an approval that nobody has signed yet, or the reason why not. The only
    /// constructor of [`DryPermit`].
    ///
    /// Checks what [`Approval::permit`] does but for what people have still to say: the state, the signatures, the
    /// opinion, and the time that one person's signature waits.
    ///
    /// # Errors
    /// The [`Refusal`] says what did not hold.
    pub fn dry_permit(&self, now: &Circumstances) -> Result<DryPermit, Refusal> {
        check_stopped(now)?;
        Ok(DryPermit { opening: self.opening(now)? })
    }

    /// What may be opened, whoever has signed.
    fn opening(&self, now: &Circumstances) -> Result<Opening, Refusal> {
        let document = &self.document;
        let envelope = &document.envelope;
        check_time(document.at, &envelope.limits, now)?;
        check_header(envelope, now)?;
        check_spent(envelope, now)?;
        envelope.computation.holds(&now.plan)?;
        check_plan(envelope, now)?;
        check_layout(now)?;
        check_data(envelope, now)?;
        self.check_policy(now)?;
        check_roster(envelope, now)?;
        let longest = now.now.plus_millis(i64::from(envelope.limits.round_seconds) * 1_000);
        let deadline = longest.min(now.header.deadline).min(envelope.limits.expires);
        if deadline <= now.now {
            return refuse(RefusalCode::TooLate, "the approval leaves no time for a round");
        }
        Ok(Opening {
            round: now.header.key(),
            snapshot: now.snapshot.digest,
            columns: plan::columns_read(&now.plan),
            deadline,
        })
    }

    /// What the policy asks of those who sign, besides their signatures.
    fn check_people(&self, now: &Circumstances) -> Result<(), Refusal> {
        if self.document.four_eyes == FourEyes::Delayed {
            self.check_delay(now)?;
        }
        self.check_opinion(now)
    }

    /// The policy as it is now, against what was approved under it.
    fn check_policy(&self, now: &Circumstances) -> Result<(), Refusal> {
        let refuse = |detail: &str| refuse(RefusalCode::Policy, detail);
        let (document, policy) = (&self.document, &now.policy);
        let envelope = &document.envelope;
        let digest = policy.digest().map_err(|e| Refusal::new(RefusalCode::Policy, e.to_string()))?;
        if digest != envelope.policy {
            return refuse("the policy changed since the approval; it has to be approved again");
        }
        // The document says whose signatures it needs, but the policy decides; otherwise the weakest mode could be
        // chosen.
        if document.four_eyes != policy.approval.four_eyes {
            return refuse("the approval was signed in another four-eyes mode than the policy has");
        }
        if envelope.limits.expires.since(document.at) > i64::from(policy.approval.expires_days) * DAY_MS {
            return refuse("the approval lasts longer than the policy allows");
        }
        if policy.approval.snapshots_only && envelope.data.series.is_some() {
            return refuse(
                "the policy lets an approval be for one snapshot only, and this one is for later versions too",
            );
        }
        if policy.is_public_data() && !now.snapshot.public {
            return refuse("the public-data policy is for datasets tagged public only");
        }
        // Which figures may leave one by one is the policy's list of kinds; what is masked does not leave so.
        let is_update = !now.header.tensors.is_empty();
        let others: Vec<Partner> = envelope.roster.iter().map(Partner::from).collect();
        if policy.forces_masks(&others) && is_update && !now.header.is_secure() {
            return refuse("the policy demands secure aggregation, which this round does not use");
        }
        if let Some(words) = policy.lacks_dp(&now.plan) {
            return refuse(&words);
        }
        let leaves = plan::egress(&now.plan);
        if let Some(item) = leaves.iter().chain(&envelope.egress).find(|item| !policy.allows(item.kind)) {
            return Err(Refusal::new(
                RefusalCode::Policy,
                format!("the policy does not let '{}' leave", text::shown(&item.name, 80)),
            ));
        }
        check_parameters(now)
    }

    /// One person's approval waits three days, in which every peer sees it, and needs secure aggregation, so that
    /// nothing of this site alone shows.
    fn check_delay(&self, now: &Circumstances) -> Result<(), Refusal> {
        let signed = self.signatures.iter().map(|s| s.at).chain([self.document.at]).max().unwrap_or(self.document.at);
        let effective = signed.plus_millis(DELAY_MS);
        if self.document.envelope.limits.not_before < effective || now.now < effective {
            return refuse(RefusalCode::Policy, "one person's approval takes effect 72 hours after the signature");
        }
        if !now.header.is_secure() {
            return refuse(
                RefusalCode::Policy,
                "one person's approval is for studies with secure aggregation, which this round does not use",
            );
        }
        Ok(())
    }

    fn check_opinion(&self, now: &Circumstances) -> Result<(), Refusal> {
        if !now.policy.approval.require_opinion {
            return Ok(());
        }
        let Some(opinion) = &self.document.opinion else {
            return refuse(RefusalCode::Policy, "the policy asks for the privacy officer's opinion, and there is none");
        };
        let officer = now.signers.iter().any(|s| s.person == opinion.person && s.is_privacy_officer());
        if !officer {
            return refuse(RefusalCode::Policy, "the opinion is not by a privacy officer of this site");
        }
        if self.signatures.iter().any(|s| s.at < opinion.at && s.role == super::Role::DataAccessApprover) {
            return refuse(RefusalCode::Policy, "the privacy officer's opinion is later than the second signature");
        }
        Ok(())
    }
}

fn refuse<T>(code: RefusalCode, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

impl ApprovalState {
    /// Whether an approval in this state allows anything.
    ///
    /// # Errors
    /// A [`Refusal`] that says in which other state it is.
    pub fn check(self) -> Result<(), Refusal> {
        match self {
            Self::Active => Ok(()),
            Self::PartlyApproved => refuse(RefusalCode::NotApproved, "the second signature is missing"),
            Self::Suspended => refuse(RefusalCode::Suspended, "the approval is suspended"),
            Self::Revoked => refuse(RefusalCode::Revoked, "the approval was revoked"),
            Self::Expired => refuse(RefusalCode::Expired, "the approval has expired"),
            Self::Superseded => refuse(RefusalCode::Superseded, "another approval took its place"),
        }
    }
}

fn check_stopped(now: &Circumstances) -> Result<(), Refusal> {
    match &now.stopped {
        Some(reason) => refuse(RefusalCode::Stopped, reason.clone()),
        None => Ok(()),
    }
}

fn check_time(made: Timestamp, limits: &RunLimits, now: &Circumstances) -> Result<(), Refusal> {
    let from = made.max(limits.not_before);
    if now.now < from {
        return refuse(RefusalCode::Expired, format!("the approval takes effect at {from}"));
    }
    if now.now >= limits.expires {
        return refuse(RefusalCode::Expired, format!("the approval expired at {}", limits.expires));
    }
    Ok(())
}

fn check_header(envelope: &Envelope, now: &Circumstances) -> Result<(), Refusal> {
    let header = &now.header;
    let wrong = |detail: &str| refuse(RefusalCode::Header, detail);
    if !version::SUPPORTED.contains(&header.protocol) {
        return wrong("the round uses a version of the protocol that this site does not speak");
    }
    if header.federation != envelope.federation || header.study != envelope.study {
        return wrong("the round belongs to another study or federation");
    }
    if header.plan != now.plan.digest() {
        return wrong("the round names another plan than the one that was sent");
    }
    if now.now >= header.deadline {
        return refuse(RefusalCode::TooLate, "the round's deadline has passed");
    }
    let Some(task) = now.plan.tasks.get(&header.task) else {
        return wrong("the round names a task that the plan does not have");
    };
    if header.round == 0 || header.round > task.component.rounds() {
        return wrong("the round's number lies outside the plan");
    }
    if header.attempt == 0 || header.attempt > limits::ROUND_ATTEMPTS {
        return wrong("the round was attempted too often");
    }
    if header.epoch != now.spent.epoch {
        return refuse(
            RefusalCode::Epoch,
            "the coordinator was restored from a backup; its new epoch was not approved here",
        );
    }
    Ok(())
}

fn check_spent(envelope: &Envelope, now: &Circumstances) -> Result<(), Refusal> {
    let (spent, header) = (&now.spent, &now.header);
    let used = spent.jobs.len() as u64 + u64::from(!spent.jobs.contains(&header.job));
    let max_runs = envelope.computation.max_runs;
    if used > u64::from(max_runs) {
        return refuse(RefusalCode::RunsUsedUp, format!("all {max_runs} approved runs are used"));
    }
    // A last round without an attempt is a gap in the books: it counts as answered.
    let replayed = spent.last_round.is_some_and(|last| {
        header.round < last || (header.round == last && spent.last_attempt.is_none_or(|a| header.attempt <= a))
    });
    if replayed {
        return refuse(RefusalCode::RoundReplayed, "this round was answered before");
    }
    // PRIVACY: another attempt gives the same bytes again only if it starts from the same model. For another one it is
    // a further answer about the rows, which the people who signed the number of rounds did not count.
    if spent.last_round == Some(header.round) && header.model != spent.last_model {
        return refuse(
            RefusalCode::RoundReplayed,
            format!(
                "attempt {} at round {} starts from {}, the attempt before from {}; a round is answered for one model",
                header.attempt,
                header.round,
                named(header.model),
                named(spent.last_model)
            ),
        );
    }
    Ok(())
}

fn named(model: Option<Digest>) -> String {
    model.map_or_else(|| "no model".to_owned(), |model| format!("model {}", model.short()))
}

/// The plan is one that this version would accept, and nothing leaves that was not approved.
fn check_plan(envelope: &Envelope, now: &Circumstances) -> Result<(), Refusal> {
    if let Err(error) = plan::check(&now.plan) {
        return refuse(RefusalCode::OutsideEnvelope, format!("the plan is not valid here: {error}"));
    }
    for item in plan::egress(&now.plan) {
        let approved = envelope.egress.iter().any(|a| {
            (&a.task, a.kind, &a.name, &a.shape, a.bytes, &a.to)
                == (&item.task, item.kind, &item.name, &item.shape, item.bytes, &item.to)
                && item.times <= a.times
        });
        if !approved {
            return refuse(
                RefusalCode::OutsideEnvelope,
                format!("'{}' of task '{}' would leave otherwise than approved", item.name, item.task),
            );
        }
    }
    Ok(())
}

/// What the header says about the layout and the protection of an update, against the plan.
fn check_layout(now: &Circumstances) -> Result<(), Refusal> {
    let header = &now.header;
    let wrong = |detail: &str| refuse(RefusalCode::Header, detail);
    let Some(task) = now.plan.tasks.get(&header.task) else { return wrong("the round names no task of the plan") };
    let (tensors, quantise) = plan::masks::layout(&now.plan, &header.task, header.round);
    let by_turns = match &task.component {
        Component::NnTrain(train) => {
            if header.tensors != tensors {
                return wrong("the round asks for other tensors than the plan's model has");
            }
            if header.model.is_none() {
                return wrong("the round names no model to start from");
            }
            train.strategy == Strategy::Cyclic {}
        }
        component => {
            check_figures(header, component, &tensors)?;
            false
        }
    };
    if !tensors.is_empty() && header.quantise != quantise {
        return wrong("the round puts numbers on the wire otherwise than the plan");
    }
    check_mode(header, task.component.privacy().unwrap_or(&Privacy::Plain {}), by_turns)
}

/// What the header says of a task that reports figures: as they are, or as the tensors of a masked vector.
fn check_figures(header: &RoundHeader, component: &Component, tensors: &[TensorShape]) -> Result<(), Refusal> {
    let wrong = |detail: &str| refuse(RefusalCode::Header, detail);
    if header.tensors != tensors {
        return wrong(if tensors.is_empty() {
            "the round asks for tensors from a task that reports figures"
        } else {
            "the round asks for other figures than the plan has, or without masks"
        });
    }
    if header.model.is_none() {
        match component {
            Component::Evaluation(_) => return wrong("the round names no model to evaluate"),
            Component::Glm(_) | Component::Cox(_) => return wrong("the round names no coefficients to start from"),
            _ => {}
        }
    }
    if matches!(header.mode, Mode::Turn { .. }) {
        return wrong("the round asks one site only, for a task that all report on");
    }
    Ok(())
}

/// The protection of what a site sends, against the plan.
fn check_mode(header: &RoundHeader, privacy: &Privacy, by_turns: bool) -> Result<(), Refusal> {
    let wrong = |detail: &str| refuse(RefusalCode::Header, detail);
    match (privacy, &header.mode) {
        (Privacy::SecureAggregation {}, Mode::SecureAggregation { .. }) => {
            let most = limits::SECURE_SITES;
            if header.roster.len() > most {
                return wrong(&format!("a round with secure aggregation has at most {most} sites in this version"));
            }
            Ok(())
        }
        // PRIVACY: never without masks where the plan that people signed promises them.
        (Privacy::SecureAggregation {}, _) => wrong("the plan promises secure aggregation, and the round does without"),
        (Privacy::Plain {}, Mode::SecureAggregation { .. }) => {
            wrong("the round uses secure aggregation, and the plan does without")
        }
        (Privacy::Plain {}, Mode::Plain { .. }) if by_turns => {
            wrong("the plan trains one site after the other, and the round asks several")
        }
        (Privacy::Plain {}, Mode::Turn { .. }) if !by_turns => {
            wrong("the round asks one site only, and the plan's strategy is not cyclic")
        }
        (Privacy::Plain {}, Mode::Plain { .. } | Mode::Turn { .. }) => Ok(()),
    }
}

const SINGLE: &str = "the policy does not let this site's update make a model by itself, which other sites can read";

fn check_data(envelope: &Envelope, now: &Circumstances) -> Result<(), Refusal> {
    // PRIVACY: the runs of one search answer many questions about the same rows. Rows of two versions could be subtracted.
    if envelope.data.series.is_some() && !envelope.computation.settings.is_empty() {
        return refuse(RefusalCode::Snapshot, "an approval of many settings is for one snapshot only");
    }
    envelope.data.holds(&now.snapshot)?;
    let needed = plan::columns_read(&now.plan);
    if let Some(extra) = needed.iter().find(|c| !envelope.data.columns.contains(*c)) {
        return refuse(RefusalCode::OutsideEnvelope, format!("column '{extra}' was not approved"));
    }
    if let Some(absent) = needed.iter().find(|c| !now.snapshot.columns.contains(*c)) {
        return refuse(RefusalCode::Snapshot, format!("the data have no column '{absent}'"));
    }
    let least = now.policy.disclosure.min_subjects;
    if now.snapshot.subjects < least {
        return refuse(RefusalCode::TooFewSubjects, format!("fewer than {least} subjects are left"));
    }
    Ok(())
}

/// A model like a GLM says about as much about its rows as it has parameters per row (DataSHIELD's `nfilter.glm`). In
/// plain mode the number that counts is this site's own.
fn check_parameters(now: &Circumstances) -> Result<(), Refusal> {
    let Some(ratio) = now.policy.disclosure.max_param_ratio else { return Ok(()) };
    let task = &now.header.task;
    let parameters = match now.plan.tasks.get(task).map(|task| &task.component) {
        Some(Component::NnTrain(train)) if model::is_glm_like(&train.model) => {
            model::parameters(&train.model, plan::inputs(&now.plan, task))
        }
        Some(Component::Glm(_) | Component::Cox(_)) => {
            plan::Coefficients::of(&now.plan, task).map_or(0, |found| found.len() as u64)
        }
        _ => return Ok(()),
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of parameters and subjects lie far below 2^53")]
    let too_many = parameters as f64 > ratio * now.snapshot.subjects as f64;
    if too_many {
        return refuse(
            RefusalCode::TooFewSubjects,
            format!("the model has {parameters} parameters, more than {ratio} for each subject here"),
        );
    }
    Ok(())
}

impl From<&Peer> for Partner {
    fn from(peer: &Peer) -> Self {
        Self { organisation: peer.organisation.clone(), key: peer.identity }
    }
}

fn check_roster(envelope: &Envelope, now: &Circumstances) -> Result<(), Refusal> {
    let refuse = |detail: String| refuse(RefusalCode::Roster, detail);
    let (peers, trusted) = match_roster(envelope, &now.header, &now.peers)?;
    // What was signed decides whether this is a study of two, not whom the coordinator leaves out of a round.
    let approved: Vec<Partner> = envelope.roster.iter().map(Partner::from).collect();
    let (parties, trust) = now.policy.fewest(&approved);
    let present = u64::from(peers) + 1;
    if present < u64::from(parties) {
        return refuse(format!("{present} sites, the policy asks for at least {parties}"));
    }
    match now.header.mode {
        Mode::Turn { site } if site != envelope.site => {
            return refuse("it is another site's turn".to_owned());
        }
        // PRIVACY: what the fewest sites of a sum are for, that nobody can tell one site's part, does not hold by turns.
        Mode::Turn { .. } if !now.policy.training.single_updates => {
            return Err(Refusal::new(RefusalCode::Policy, SINGLE));
        }
        Mode::Turn { .. } => {}
        Mode::Plain { .. } | Mode::SecureAggregation { .. } => {
            let least = now.header.k_min();
            if least < parties || u64::from(least) > present {
                return refuse(format!(
                    "the round ends with inputs of {least} sites, the policy asks for at least {parties}"
                ));
            }
        }
    }
    if trusted < trust {
        return refuse(format!(
            "{trusted} other sites are verified here or vouched for, the policy asks for at least {trust}"
        ));
    }
    Ok(())
}

/// How many other sites the round has, each as it was approved, and how many of them are trusted then and now.
fn match_roster(
    envelope: &Envelope,
    header: &RoundHeader,
    current: &BTreeMap<String, Trust>,
) -> Result<(u32, u32), Refusal> {
    let refuse = |detail: String| refuse(RefusalCode::Roster, detail);
    let mut seen = BTreeSet::new();
    let (mut peers, mut trusted) = (0u32, 0u32);
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
        let now = current.get(&entry.site.to_string()).copied().unwrap_or(Trust::AssertedOnly);
        trusted += u32::from(peer.trust.min(now) > Trust::AssertedOnly);
        peers += 1;
    }
    if !seen.contains(&envelope.site) {
        return refuse("this site is not in the round's roster".into());
    }
    Ok((peers, trusted))
}
