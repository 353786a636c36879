//! Sites in one process: frozen copies of a researcher's files and approvals that the simulation signs itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use hospes_cohort::Cohort;
use hospes_cohort::opt_out::{OptOuts, SubjectKey};
use hospes_cohort::scan::ScanProfile;
use hospes_cohort::snapshot::{Freeze, Snapshot, SnapshotKey, SubjectCount, freeze};
use hospes_cohort::source::{Hints, Limits, survey};
use hospes_party::KnownKeys;
use hospes_protocol::approval::{
    Approval, ApprovalDocument, ApprovalSignature, ApprovalState, Circumstances, Computation, DataScope, Envelope,
    Peer, PrivacyStatement, ReleaseRule, Role, RunLimits, Signer, Spent, Trust,
};
use hospes_protocol::canon::{self, Canonical};
use hospes_protocol::id::{ApprovalId, FederationId, JobId, PersonId, SiteId, StudyId, Timestamp};
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::policy::Policy;
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::study::Terms;
use hospes_protocol::version;

/// A simulated day: long enough for any run, because no clock runs here.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Simulated time stands still.
const NOW: Timestamp = Timestamp::from_millis(0);

/// A site of the simulation.
pub struct Member {
    /// Name, for people.
    pub name: String,
    snapshot: Snapshot,
    count: SubjectCount,
    key: SnapshotKey,
    identity: SecretKey,
}

/// Sites with their frozen files in a temporary folder, which is removed with them.
pub struct Federation {
    members: Vec<Member>,
    people: [SecretKey; 2],
    policy: Policy,
    /// Held for its lifetime: dropping it removes the copies.
    _folder: tempfile::TempDir,
}

impl Member {
    /// The site's id, which makes the order of its batches its own.
    pub fn site(&self) -> SiteId {
        self.identity.public().site_id()
    }
}

impl Federation {
    /// Freezes one file for each site. Identities follow from the names, and so do the rows that a plan draws for its test:
    /// they are those of the same site in [`Live`](crate::Live), and of every other simulation of it. The keys of the copies
    /// are random.
    ///
    /// # Errors
    /// If a file cannot be read or does not have the columns that the plan reads.
    pub fn new(plan: &Plan, files: &[(String, &Path)]) -> Result<Self> {
        ensure!(files.len() >= 2, "a federation has at least two sites");
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let mut members: Vec<Member> = Vec::new();
        for (name, path) in files {
            ensure!(members.iter().all(|m| m.name != *name), "two sites are named '{name}'");
            members.push(Member::new(plan, name, path, folder.path()).with_context(|| format!("site '{name}'"))?);
        }
        let people = [SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32])];
        Ok(Self { members, people, policy: Policy::public_data(), _folder: folder })
    }

    /// The sites, in the order of their files.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The header of one round as a coordinator would sign it.
    ///
    /// # Errors
    /// If the plan has no such task.
    pub fn header(
        &self,
        plan: &Canonical<Plan>,
        task: &str,
        round: u32,
        model: Option<hospes_protocol::id::Digest>,
    ) -> Result<Canonical<RoundHeader>> {
        ensure!(plan.tasks.contains_key(task), "the plan has no task '{task}'");
        let (tensors, quantise) = plan::masks::layout(plan, task, round);
        // A masked sum is the plain one; in one process with all rows there is nothing to hide it from.
        let mode = match plan::masks::is_masked(plan, task) {
            true => Mode::SecureAggregation { c: 1, t: 2, k_min: 2 },
            false => Mode::Plain { k_min: 2 },
        };
        let roster = self.members.iter().map(|m| RosterEntry { site: m.site(), identity: m.identity.public() });
        Ok(Canonical::new(RoundHeader {
            protocol: version::SUPPORTED[0],
            federation: self.federation(),
            study: StudyId::new(NOW, [0; 10]),
            job: JobId::new(NOW, [0; 10]),
            task: task.to_owned(),
            epoch: 1,
            round,
            attempt: 1,
            model,
            plan: plan.digest(),
            roster: roster.collect(),
            mode,
            tensors,
            quantise,
            deadline: NOW.plus_millis(DAY_MS),
        })?)
    }

    /// Opens a site's rows for one round, by an approval of exactly this plan that the simulation signs itself.
    ///
    /// # Errors
    /// The refusal, or what is wrong with the data.
    pub fn open(&self, member: &Member, plan: &Canonical<Plan>, header: &Canonical<RoundHeader>) -> Result<Cohort> {
        let permit = self.approval(member, plan)?.permit(&self.circumstances(member, plan, header))?;
        Ok(Cohort::open(permit, &member.snapshot, &member.key, &OptOuts::new(), plan, NOW)?)
    }

    fn federation(&self) -> FederationId {
        self.people[0].public().site_id()
    }

    fn approval(&self, member: &Member, plan: &Canonical<Plan>) -> Result<Approval> {
        let peers = self.members.iter().filter(|m| m.name != member.name).map(|m| Peer {
            site: m.site(),
            name: m.name.clone(),
            organisation: m.name.clone(),
            identity: m.identity.public(),
            trust: Trust::AssertedOnly,
        });
        let document = Canonical::new(ApprovalDocument {
            id: ApprovalId::new(NOW, [0; 10]),
            at: NOW,
            four_eyes: self.policy.approval.four_eyes,
            envelope: Envelope {
                federation: self.federation(),
                site: member.site(),
                study: StudyId::new(NOW, [0; 10]),
                study_digest: plan.digest(),
                terms: Terms { title: "simulation".into(), purpose: "simulation".into(), ..Terms::default() },
                roster: peers.collect(),
                computation: Computation {
                    plan: plan.clone(),
                    ranges: BTreeMap::new(),
                    max_runs: 1,
                    settings: BTreeSet::new(),
                },
                data: DataScope {
                    dataset: member.name.clone(),
                    snapshot: member.snapshot.document.digest(),
                    columns: plan::columns_read(plan),
                    columns_available: u32::try_from(member.snapshot.document.schema.columns.len())?,
                    subjects: member.count.left(),
                    series: None,
                },
                egress: plan::egress(plan),
                privacy: PrivacyStatement { secure_aggregation: false, unprotected: vec!["simulation".into()] },
                limits: RunLimits { not_before: NOW, expires: NOW.plus_millis(DAY_MS), round_seconds: 86_400 },
                policy: self.policy.digest()?,
                release: ReleaseRule::Automatic,
                checklist: BTreeMap::new(),
            },
            opinion: None,
        })?;
        let sign = |role, index: u8| {
            ApprovalSignature::new(document.digest(), person(index), role, NOW, &self.people[usize::from(index)])
        };
        let signatures = vec![sign(Role::DataSteward, 0)?, sign(Role::DataAccessApprover, 1)?];
        Ok(Approval { document, signatures })
    }

    fn circumstances(&self, member: &Member, plan: &Canonical<Plan>, header: &Canonical<RoundHeader>) -> Circumstances {
        let signer = |role, index: u8| Signer {
            person: person(index),
            key: self.people[usize::from(index)].public(),
            roles: BTreeSet::from([role]),
            external: false,
            enabled: true,
        };
        Circumstances {
            now: NOW,
            plan: plan.clone(),
            header: header.clone(),
            snapshot: member.snapshot.facts(member.count),
            policy: self.policy.clone(),
            state: ApprovalState::Active,
            spent: Spent { epoch: 1, ..Spent::default() },
            signers: vec![signer(Role::DataSteward, 0), signer(Role::DataAccessApprover, 1)],
            peers: BTreeMap::new(),
            stopped: None,
        }
    }
}

fn person(index: u8) -> PersonId {
    PersonId::new(NOW, [index; 10])
}

impl Member {
    fn new(plan: &Plan, name: &str, source: &Path, folder: &Path) -> Result<Self> {
        let limits = Limits::default();
        let found = survey(source, &Hints::default(), ScanProfile::Default, limits)?;
        let mut schema = found.schema(&plan.data.subject)?;
        // Only what the plan reads is copied.
        let read = plan::columns_read(plan);
        for column in &found.columns {
            schema.set_masked(&column.name, !read.contains(&column.name))?;
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).context("no randomness")?;
        let (key, keys) = (SnapshotKey::from_bytes(random), known_keys(name));
        let order = Freeze {
            source: source.into(),
            format: &found.format,
            schema: &schema,
            folder,
            public: true,
            at: NOW,
            limits,
        };
        let snapshot = freeze(order, &key, &SubjectKey::from_bytes(keys.subjects))?;
        let count = snapshot.count_subjects(&key, &OptOuts::new())?;
        Ok(Self { name: name.to_owned(), snapshot, count, key, identity: keys.identity })
    }
}

/// The keys of the site of this name, wherever it is simulated.
pub(crate) fn known_keys(name: &str) -> KnownKeys {
    let of = |kind| *canon::digest(kind, 1, name.as_bytes()).as_bytes();
    KnownKeys { identity: SecretKey::from_seed(&of("simulated-site")), subjects: of("simulated-site-subjects") }
}
