//! First and second signature.

use std::collections::BTreeMap;

use hospes_ledger::{Action, ObjectKind, Purpose};
use hospes_protocol::approval::{
    Approval, ApprovalDocument, ApprovalSignature, ApprovalState, DELAY_MS, DataScope, Envelope, Opinion, Peer, Role,
    RunLimits, Series, Trust,
};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, DatasetId, Digest, StudyId, Timestamp};
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::policy::{FourEyes, Policy};
use hospes_protocol::study::{Terms, may_vary};
use hospes_protocol::text::shown;
use sqlx::sqlite::SqliteConnection;

use super::protects::Protects;
use super::{Offered, approval, digest_of, opinion, policy, reading, set_state, set_study_state, study};
use crate::audit::Because as _;
use crate::datasets::{self, Dataset};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::keys::random;
use crate::memberships::{self, Membership, roster};
use crate::people::{Acting, Passphrase, Session, key_holders, phase, seconders, signers};
use crate::pools;
use crate::store::{At as _, Tx, set_setting, to_json};
use crate::view::{Approving, Notice, Phase, RequestState, SeriesBounds, Signed, StudyBudget};

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// Longest time of one round, in seconds: a day.
const ROUND_SECONDS: u32 = 24 * 3_600;
/// Most runs of one approval.
const MAX_RUNS: u32 = 1_000;
const SNAPSHOTS_ONLY: &str =
    "the policy lets an approval be for one snapshot only (approval.snapshots_only), and not for later versions too";

/// A request with everything that an approval of it depends on.
pub(super) struct Case {
    pub(super) offered: Offered,
    /// Plans of all runs that the study asks for; of one that is not valid, and cannot be signed, its plan alone.
    pub(super) runs: Vec<Canonical<Plan>>,
    pub(super) membership: Membership,
    pub(super) policy: Policy,
    pub(super) trust: BTreeMap<hospes_protocol::id::SiteId, Trust>,
    pub(super) datasets: Vec<Dataset>,
    /// Which of them.
    pub(super) chosen: Option<usize>,
    /// What it would take of the privacy budget of that one's patients.
    pub(super) budget: Option<StudyBudget>,
}

impl Case {
    /// What protects what leaves in its runs.
    pub(super) fn protects(&self) -> Protects {
        Protects::of(self.runs.iter().map(|plan| &**plan))
    }

    /// Reads a case. Without a choice it is the dataset of the approval, or the only one that has all columns.
    pub(super) async fn read(
        conn: &mut SqliteConnection,
        id: StudyId,
        dataset: Option<DatasetId>,
    ) -> Result<Self, PartyError> {
        let offered = study(conn, id).await?;
        let membership = memberships::by_id(conn, offered.federation).await?;
        let policy = policy::current(conn).await?;
        let trust = roster::trust(conn, &membership).await?;
        let datasets = datasets::all(conn).await?;
        let stored = approval(conn, id).await?;
        let approved = stored.as_ref().map(|a| a.dataset);
        let needed = plan::columns_read(&offered.study.plan);
        let newest = datasets::newest(&datasets);
        let fits = |d: &Dataset| newest(d) && needed.is_subset(&d.columns());
        let chosen = match dataset {
            Some(id) => Some(
                datasets
                    .iter()
                    .position(|d| d.id == id)
                    .ok_or_else(|| PartyError::NotFound(format!("dataset {id}")))?,
            ),
            None => match approved {
                Some(id) => datasets.iter().position(|d| d.id == id),
                None => match datasets.iter().filter(|d| fits(d)).count() {
                    1 => datasets.iter().position(fits),
                    _ => None,
                },
            },
        };
        let runs = offered.study.runs().unwrap_or_else(|_| vec![offered.study.plan.clone()]);
        let budget = match chosen {
            Some(at) => {
                // Before somebody has signed, each of these once.
                let allowed = stored.as_ref().map_or(1, |a| a.approval.document.envelope.computation.max_runs);
                pools::study_budget(conn, &datasets[at], &runs, allowed, &policy).await?
            }
            None => None,
        };
        Ok(Self { offered, runs, membership, policy, trust, datasets, chosen, budget })
    }

    pub(super) fn dataset(&self) -> Option<&Dataset> {
        self.chosen.map(|i| &self.datasets[i])
    }

    /// The version before the chosen dataset.
    pub(super) fn former(&self) -> Option<&Dataset> {
        let now = self.dataset()?;
        self.versions(now.series).filter(|d| d.version < now.version).max_by_key(|d| d.version)
    }

    /// The newest version of the chosen dataset, if it is another one.
    pub(super) fn newer(&self) -> Option<&Dataset> {
        let now = self.dataset()?;
        self.versions(now.series).filter(|d| d.version > now.version).max_by_key(|d| d.version)
    }

    fn versions(&self, series: DatasetId) -> impl Iterator<Item = &Dataset> {
        self.datasets.iter().filter(move |d| d.series == series)
    }

    /// The chosen dataset, if a first signature may be for later versions of it too.
    pub(super) fn may_go_on(&self) -> Option<&Dataset> {
        let alone = self.policy.approval.snapshots_only || self.offered.study.sweep.is_some();
        self.dataset().filter(|_| !alone && self.newer().is_none())
    }

    /// Other sites of the study with their keys, and how they are trusted.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let members = &self.membership.roster.document.members;
        let others = self.offered.study.members.iter().filter(|s| **s != self.membership.site);
        let peer = |site: &hospes_protocol::id::SiteId| {
            let member = members.iter().find(|m| m.site == *site)?;
            Some(Peer {
                site: *site,
                name: member.name.clone(),
                organisation: member.organisation.clone(),
                identity: member.identity,
                trust: self.trust.get(site).copied().unwrap_or(Trust::AssertedOnly),
            })
        };
        others.filter_map(peer).collect()
    }

    /// When an approval would hold that takes effect then, or why it would at no time.
    pub(super) fn limits(&self, dataset: &Dataset, now: Timestamp, not_before: Timestamp) -> Result<RunLimits, String> {
        let mut expires = now.plus_millis(i64::from(self.policy.approval.expires_days) * DAY_MS);
        if let Some(until) =
            super::rules::terms_of_use(&self.offered.study.terms, dataset).ok().and_then(|found| found.expires_by)
        {
            if until <= not_before {
                return Err(format!("the dataset's terms of use (DUO TS) ended at {until}"));
            }
            expires = expires.min(until);
        }
        Ok(RunLimits { not_before, expires, round_seconds: ROUND_SECONDS })
    }

    /// What an approval would bind.
    pub(super) fn envelope(
        &self,
        dataset: &Dataset,
        approving: &Approving,
        limits: RunLimits,
    ) -> Result<Envelope, PartyError> {
        let study = &self.offered.study;
        Ok(Envelope {
            federation: self.offered.federation,
            site: self.membership.site,
            study: study.id,
            study_digest: study.digest(),
            terms: study.terms.clone(),
            roster: self.peers(),
            computation: super::sweep::computation(study, approving)?,
            data: DataScope {
                dataset: dataset.name.clone(),
                snapshot: dataset.document.digest(),
                columns: plan::columns_read(&study.plan),
                columns_available: u32::try_from(dataset.columns().len()).unwrap_or(u32::MAX),
                subjects: dataset.subjects_left,
                series: match approving.series {
                    Some(SeriesBounds { fewest, most }) => Some(Series {
                        id: dataset.series,
                        version: dataset.version,
                        form: dataset.document.form()?,
                        min_subjects: fewest,
                        max_subjects: most,
                    }),
                    None => None,
                },
            },
            egress: study.egress().map_err(|e| PartyError::input("study", e.to_string()))?,
            privacy: self.protects().statement(),
            limits,
            policy: self.policy.digest()?,
            release: approving.release,
            checklist: approving.checklist.clone(),
        })
    }
}

impl Engine {
    pub(crate) async fn approve(
        &mut self,
        session: Session,
        mut approving: Approving,
        passphrase: Passphrase,
    ) -> Result<Signed, PartyError> {
        let acting = self.acting(&session, "give the first signature", &[Role::DataSteward]).await?;
        check_widening(&approving)?;
        let key = self.unlock(acting.person, passphrase).await?;
        let mut tx = self.store.begin("give the first signature").await?;
        if key_holders(tx.conn()).await? < 2 {
            return Err(PartyError::state("the site is being set up: a second person must hold a key first"));
        }
        // This signature ends set-up. With one person of its own the site could change nothing any more.
        if phase(tx.conn()).await? != Phase::Operating && seconders(tx.conn()).await?.len() < 2 {
            return Err(PartyError::state(
                "the site is being set up: name a second person of this organisation first, an administrator, data \
                 steward or data-access approver who holds a key; after this signature one alone can add nobody",
            ));
        }
        let mut case = Case::read(tx.conn(), approving.study, approving.dataset).await?;
        // All runs that this signature would allow must fit, too.
        if let Some(at) = case.chosen {
            let allowed = approving.max_runs;
            case.budget = pools::study_budget(tx.conn(), &case.datasets[at], &case.runs, allowed, &case.policy).await?;
        }
        let dataset = case
            .dataset()
            .ok_or_else(|| PartyError::input("dataset", "name the dataset; none, or more than one, has all columns"))?;
        if case.offered.state == "withdrawn" {
            return Err(PartyError::state("the requester withdrew the request"));
        }
        check_ranges(&case.offered, &approving)?;
        let opinion = opinion(tx.conn(), approving.study).await?;
        if let Some(words) = against_first(tx.conn(), &case, &approving, &acting, opinion.as_ref()).await? {
            return self.refuse_signature(tx, &acting, approving.study, &words).await;
        }
        if let Some(bounds) = approving.series {
            check_series(&case, dataset, bounds)?;
        }
        let now = self.now();
        let four_eyes = case.policy.approval.four_eyes;
        let not_before = if four_eyes == FourEyes::Delayed { now.plus_millis(DELAY_MS) } else { now };
        let limits = match case.limits(dataset, now, not_before) {
            Ok(limits) => limits,
            Err(words) => return self.refuse_signature(tx, &acting, approving.study, &words).await,
        };
        // What the first signer saw is told to the second, and to the auditor; nobody says it by hand.
        approving.checklist.remove(super::dry_run::ANSWER);
        approving.checklist.extend(self.dry_run_words(approving.study, dataset.id, case.policy.digest()?));
        let document = Canonical::new(ApprovalDocument {
            id: ApprovalId::new(now, random()?),
            at: now,
            four_eyes,
            envelope: case.envelope(dataset, &approving, limits)?,
            opinion,
        })?;
        let dataset = dataset.id;
        self.keep_first_signature(tx, &acting, &key, document, dataset).await
    }

    async fn refuse_signature(
        &self,
        mut tx: Tx,
        acting: &Acting,
        id: StudyId,
        words: &str,
    ) -> Result<Signed, PartyError> {
        use hospes_protocol::approval::{Refusal, RefusalCode};
        let entry = self
            .entry(acting.actor(), Action::ApprovalSigned)
            .object(ObjectKind::Study, id, None)
            .purpose(Purpose { study: Some(id), ..Purpose::default() })
            .refused(words);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Audit);
        Err(Refusal::new(RefusalCode::Policy, words).into())
    }

    async fn keep_first_signature(
        &mut self,
        mut tx: Tx,
        acting: &Acting,
        key: &hospes_protocol::sign::SecretKey,
        document: Canonical<ApprovalDocument>,
        dataset: DatasetId,
    ) -> Result<Signed, PartyError> {
        let (id, digest, at) = (document.id, document.digest(), document.at);
        let envelope = &document.envelope;
        let (study, limits) = (envelope.study, envelope.limits.clone());
        let signature = ApprovalSignature::new(digest, acting.person, Role::DataSteward, at, key)?;
        // A draft of before gives way; an approval in force stays until the new one is complete.
        if let Some(draft) = approval(tx.conn(), study).await?
            && draft.state == ApprovalState::PartlyApproved
        {
            set_state(&mut tx, draft.id(), ApprovalState::Superseded, None, None).await?;
        }
        let complete = document.four_eyes == FourEyes::Delayed;
        sqlx::query(
            "INSERT INTO approvals (id, study, dataset, document, digest, state, not_before, expires, at)
             VALUES (?1, ?2, ?3, ?4, ?5, 'partly_approved', ?6, ?7, ?8)",
        )
        .bind(id.to_string())
        .bind(study.to_string())
        .bind(dataset.to_string())
        .bind(document.bytes())
        .bind(digest.to_string())
        .bind(limits.not_before.as_millis())
        .bind(limits.expires.as_millis())
        .bind(at.as_millis())
        .execute(tx.conn())
        .await
        .at("give the first signature")?;
        keep_signature(&mut tx, id, &signature).await?;
        set_study_state(&mut tx, study, "decided", None).await?;
        let entry = self
            .entry(acting.signing(), Action::ApprovalSigned)
            .object(ObjectKind::Approval, id, Some(digest))
            .object(ObjectKind::Dataset, dataset, None)
            .object(ObjectKind::Snapshot, envelope.data.snapshot, Some(envelope.data.snapshot))
            .purpose(Purpose { study: Some(study), job: None, approval: Some(id) })
            .because(purpose_words(&envelope.terms));
        self.append(&mut tx, &entry).await?;
        self.end_set_up(&mut tx, acting).await?;
        if complete {
            self.complete(&mut tx, id, study).await?;
        }
        tx.commit().await?;
        self.notify(Notice::Requests);
        if complete {
            self.say_decision(study).await?;
        }
        let state = if complete { RequestState::Active } else { RequestState::PartlyApproved };
        Ok(Signed { approval: id, digest, state, not_before: limits.not_before, expires: limits.expires })
    }

    /// The first signature ends set-up for good: from here on nobody is added by one person alone.
    async fn end_set_up(&self, tx: &mut Tx, acting: &Acting) -> Result<(), PartyError> {
        if phase(tx.conn()).await? == Phase::Operating {
            return Ok(());
        }
        set_setting(tx.conn(), "operating", Some("1")).await?;
        let entry = self.entry(acting.actor(), Action::SetupEnded);
        self.append(tx, &entry).await?;
        Ok(())
    }

    /// Puts an approval in force in place of the one before, if its signatures suffice.
    async fn complete(&self, tx: &mut Tx, id: ApprovalId, study: StudyId) -> Result<(), PartyError> {
        let stored = super::approval_by_id(tx.conn(), id).await?;
        stored.approval.check_signatures(&signers(tx.conn()).await?)?;
        for old in self.open_approvals(tx, study).await?.into_iter().filter(|o| o.id() != id) {
            set_state(tx, old.id(), ApprovalState::Superseded, None, None).await?;
            let entry = self
                .entry(hospes_ledger::Actor::Engine, Action::ApprovalSuperseded)
                .object(ObjectKind::Approval, old.id(), Some(digest_of(&old)))
                .purpose(old.purpose());
            self.append(tx, &entry).await?;
        }
        set_state(tx, id, ApprovalState::Active, None, None).await
    }

    pub(crate) async fn countersign(
        &mut self,
        session: Session,
        id: StudyId,
        digest: Digest,
        passphrase: Passphrase,
    ) -> Result<Signed, PartyError> {
        let acting = self.acting(&session, "give the second signature", &[Role::DataAccessApprover]).await?;
        let key = self.unlock(acting.person, passphrase).await?;
        let mut tx = self.store.begin("give the second signature").await?;
        let case = Case::read(tx.conn(), id, None).await?;
        let draft = approval(tx.conn(), id).await?.filter(|a| a.state == ApprovalState::PartlyApproved);
        let draft = draft.ok_or_else(|| PartyError::state("the first signature is missing"))?;
        if digest_of(&draft) != digest {
            return Err(PartyError::state("the approval was changed since you read it; read it again"));
        }
        if let Some(words) = self.against_second(&mut tx, &case, &draft.approval, &acting).await? {
            return self.refuse_signature(tx, &acting, id, &words).await;
        }
        let at = self.now();
        let signature = ApprovalSignature::new(digest, acting.person, Role::DataAccessApprover, at, &key)?;
        keep_signature(&mut tx, draft.id(), &signature).await?;
        self.complete(&mut tx, draft.id(), id).await?;
        let envelope = &draft.approval.document.envelope;
        let scope = &envelope.data;
        let entry = self
            .entry(acting.signing(), Action::ApprovalCountersigned)
            .object(ObjectKind::Approval, draft.id(), Some(digest))
            .object(ObjectKind::Dataset, draft.dataset, None)
            .object(ObjectKind::Snapshot, scope.snapshot, Some(scope.snapshot))
            .purpose(draft.purpose())
            .because(format!(
                "{}; {}",
                banner(&case.policy, case.protects().is_whole()),
                purpose_words(&envelope.terms)
            ));
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Requests);
        self.recheck_work().await?;
        self.say_decision(id).await?;
        let limits = &draft.approval.document.envelope.limits;
        let (not_before, expires) = (limits.not_before, limits.expires);
        Ok(Signed { approval: draft.id(), digest, state: RequestState::Active, not_before, expires })
    }

    /// What stands against a second signature now, in words.
    async fn against_second(
        &self,
        tx: &mut Tx,
        case: &Case,
        draft: &Approval,
        acting: &Acting,
    ) -> Result<Option<String>, PartyError> {
        let document = &draft.document;
        if draft.signatures.iter().any(|s| s.person == acting.person) {
            return Ok(Some("the first signature is yours; the second must be somebody else's".into()));
        }
        if let Some(words) = reading::own_study(&document.envelope.terms.requester, acting.key) {
            return Ok(Some(words.into()));
        }
        if let Some(words) = held(tx.conn(), document.envelope.study).await? {
            return Ok(Some(words));
        }
        let opinion = opinion(tx.conn(), document.envelope.study).await?;
        if let Some(words) = changed_since(document, case.policy.digest()?, &opinion) {
            return Ok(Some(words.into()));
        }
        let external = crate::people::by_id(tx.conn(), acting.person).await?.organisation.is_some();
        match (document.four_eyes == FourEyes::External, external) {
            (true, false) => return Ok(Some("the second signature must come from another organisation".into())),
            (false, true) => return Ok(Some("the second signature must come from this organisation".into())),
            _ => {}
        }
        Ok(super::rules::findings(case).into_iter().find(|f| f.refuses).map(|f| f.words))
    }
}

/// Why a first signature is not given, if so. It is asked within the step that signs, so that nothing changes in between.
async fn against_first(
    conn: &mut SqliteConnection,
    case: &Case,
    approving: &Approving,
    acting: &Acting,
    opinion: Option<&Opinion>,
) -> Result<Option<String>, PartyError> {
    if let Some(words) = held(conn, approving.study).await? {
        return Ok(Some(words));
    }
    if let Some(words) = reading::changed(&approving.read, &case.reading(opinion)?) {
        return Ok(Some(words));
    }
    if let Some(words) = reading::own_study(&case.offered.study.terms.requester, acting.key) {
        return Ok(Some(words.into()));
    }
    if let Some(finding) = super::rules::findings(case).into_iter().find(|f| f.refuses) {
        return Ok(Some(finding.words));
    }
    let rules = &case.policy.approval;
    if approving.series.is_some() && rules.snapshots_only {
        return Ok(Some(SNAPSHOTS_ONLY.into()));
    }
    let lacks_opinion = rules.require_opinion && opinion.is_none();
    Ok(lacks_opinion.then(|| "the policy asks for the privacy officer's opinion first".into()))
}

/// Why nobody may sign a study, if its approval is or was held by the privacy officer when it ended. Signing again, also
/// after a revocation or an expiry, must not pass the officer by: it takes a resumption, or an opinion that does not object.
pub(super) async fn held(conn: &mut SqliteConnection, study: StudyId) -> Result<Option<String>, PartyError> {
    let reason: Option<Option<String>> = sqlx::query_scalar(
        "SELECT reason FROM approvals
         WHERE study = ?1 AND held_by = ?2 AND state IN ('suspended', 'revoked', 'expired') ORDER BY at DESC LIMIT 1",
    )
    .bind(study.to_string())
    .bind(to_json(&Role::PrivacyOfficer))
    .fetch_optional(conn)
    .await
    .at("look for a suspension")?;
    let words =
        "the privacy officer suspended it; a privacy officer must resume it, or give another opinion after it ended";
    Ok(reason.map(|reason| match reason {
        Some(reason) => format!("{words} (reason given: {reason})"),
        None => words.to_owned(),
    }))
}

/// What of the things that a first signature binds has changed since, so that it must be given again.
pub(super) fn changed_since(
    document: &ApprovalDocument,
    policy: Digest,
    opinion: &Option<Opinion>,
) -> Option<&'static str> {
    if policy != document.envelope.policy {
        return Some("the policy changed since the first signature; it has to be signed again");
    }
    (document.opinion != *opinion)
        .then_some("the privacy officer gave another opinion since the first signature; it has to be signed again")
}

/// For what, as the entry of a signature says it: an auditor reads it without the study's document.
fn purpose_words(terms: &Terms) -> String {
    let codes: Vec<&str> =
        terms.duo.iter().chain(&terms.disease).chain(&terms.purpose_of_use).map(String::as_str).collect();
    let codes = if codes.is_empty() { "no codes stated".to_owned() } else { codes.join(", ") };
    format!("for: {} [{}]", shown(&terms.title, 200), shown(&codes, 200))
}

/// The words that every entry made under the public-data policy carries, and elsewhere those that say who can read what
/// leaves.
pub(crate) fn banner(policy: &Policy, is_masked: bool) -> &'static str {
    match (policy.is_public_data(), is_masked) {
        (true, _) => "PUBLIC DATA",
        (false, true) => "masked: the coordinator can read the sum over all sites only",
        (false, false) => "the coordinator can read this site's update",
    }
}

async fn keep_signature(tx: &mut Tx, id: ApprovalId, signature: &ApprovalSignature) -> Result<(), PartyError> {
    sqlx::query("INSERT INTO approval_signatures (approval, person, role, at, signature) VALUES (?1, ?2, ?3, ?4, ?5)")
        .bind(id.to_string())
        .bind(signature.person.to_string())
        .bind(to_json(&signature.role))
        .bind(signature.at.as_millis())
        .bind(signature.signature.to_string())
        .execute(tx.conn())
        .await
        .at("keep a signature")?;
    Ok(())
}

/// Refuses to sign for a series what nobody can have meant, or what could be subtracted from each other.
fn check_series(case: &Case, dataset: &Dataset, bounds: SeriesBounds) -> Result<(), PartyError> {
    if case.offered.study.sweep.is_some() {
        let words =
            "a study of many settings is approved for one snapshot only, so that all of its runs read the same rows";
        return Err(PartyError::input("series", words));
    }
    if let Some(newer) = case.newer() {
        let words = format!("version {} of the dataset is registered; read and approve that one", newer.version);
        return Err(PartyError::input("series", words));
    }
    let patients = dataset.document.subjects;
    if !(bounds.fewest..=bounds.most).contains(&patients) {
        let words = format!("the version that you approve has {patients} patients, which must lie within the bounds");
        return Err(PartyError::input("series", words));
    }
    Ok(())
}

/// Bounds that a first signer is offered for later versions: a tenth fewer patients than this one has and half as many again,
/// and not fewer than the policy lets be used.
pub(super) fn suggested(policy: &Policy, dataset: &Dataset) -> SeriesBounds {
    let patients = dataset.document.subjects;
    let tenth = patients.div_ceil(10);
    let fewest = patients.saturating_sub(tenth).max(policy.disclosure.min_subjects).max(1).min(patients);
    SeriesBounds { fewest, most: patients.saturating_add(patients / 2) }
}

/// Refuses to leave a number free that changes what is read or reported: of two runs that differ in it the difference would tell
/// about few patients, or, over other sites, what one site sent.
fn check_ranges(offered: &Offered, approving: &Approving) -> Result<(), PartyError> {
    if offered.study.sweep.is_some() {
        // It lists its settings; ranges are refused with that.
        return Ok(());
    }
    let plan = &offered.study.plan;
    let wrong = approving.ranges.keys().find_map(|place| may_vary(plan, place).err().map(|reason| (place, reason)));
    match wrong {
        Some((place, reason)) => Err(PartyError::input("ranges", format!("{place}: {reason}"))),
        None => Ok(()),
    }
}

fn check_widening(approving: &Approving) -> Result<(), PartyError> {
    if !(1..=MAX_RUNS).contains(&approving.max_runs) {
        return Err(PartyError::input("runs", format!("between 1 and {MAX_RUNS}")));
    }
    let wrong = approving.ranges.iter().find(|(_, r)| !(r.min.is_finite() && r.max.is_finite() && r.min <= r.max));
    if let Some((place, _)) = wrong {
        return Err(PartyError::input("ranges", format!("{place}: expected a smallest and a largest number")));
    }
    Ok(())
}
