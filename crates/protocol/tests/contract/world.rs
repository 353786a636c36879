//! What the tests share: a federation of four sites, people who sign, and a round that is as it should be.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::approval::{
    Approval, ApprovalDocument, ApprovalSignature, ApprovalState, Circumstances, Computation, DataScope, Envelope,
    Peer, PrivacyStatement, RefusalCode, ReleaseRule, Role, RunLimits, Signer, SnapshotFacts, Spent, Trust,
};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, Digest, JobId, PersonId, SiteId, StudyId, Timestamp};
use hospes_protocol::plan::{self, Component, Plan};
use hospes_protocol::policy::{FourEyes, Policy};
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::study::{Requester, Terms};
use hospes_protocol::version::Version;

/// The heart plan as a researcher writes it.
pub(crate) const HEART: &str = include_str!("heart.yaml");
/// When everything happens.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// The heart plan, read.
pub(crate) fn heart() -> Plan {
    plan::read(HEART).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub(crate) fn person(number: u8) -> PersonId {
    PersonId::new(NOW, [number; 10])
}

pub(crate) fn signer(number: u8, roles: &[Role]) -> Signer {
    Signer {
        person: person(number),
        key: key(number).public(),
        roles: roles.iter().copied().collect(),
        external: false,
        enabled: true,
    }
}

/// Our site is 1; the others are 2, 3 and 4.
pub(crate) fn site(number: u8) -> SiteId {
    key(100 + number).public().site_id()
}

fn roster_entry(number: u8) -> RosterEntry {
    RosterEntry { site: site(number), identity: key(100 + number).public() }
}

/// A policy like the strict one, under which the heart plan can run.
pub(crate) fn policy() -> Policy {
    let mut policy = Policy::strict();
    policy.profile = "test".into();
    policy.egress = Policy::public_data().egress;
    // Most of these plans do without masks.
    policy.training.force_secure_aggregation = false;
    policy
}

pub(crate) fn terms() -> Terms {
    Terms {
        title: "Heart disease".into(),
        purpose: "To find out.".into(),
        requester: Requester { name: "R".into(), organisation: "O".into(), key: None, vouched_by: None },
        ..Terms::default()
    }
}

/// An approval, people and circumstances, each part of which a test may spoil before it asks for the permit.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) run: Plan,
    pub(crate) policy: Policy,
    pub(crate) document: ApprovalDocument,
    pub(crate) header: RoundHeader,
    pub(crate) now: Circumstances,
    /// Who signs: person, role, seed of the key that they use, when.
    pub(crate) signing: Vec<(u8, Role, u8, Timestamp)>,
}

impl World {
    pub(crate) fn new() -> Self {
        let plan = heart();
        let policy = policy();
        let canonical = Canonical::new(plan.clone()).unwrap();
        let study = StudyId::new(NOW, [1; 10]);
        let header = header(&plan, study);
        let document = ApprovalDocument {
            id: ApprovalId::new(NOW, [2; 10]),
            at: NOW.plus_millis(-HOUR_MS),
            four_eyes: FourEyes::TwoPeople,
            envelope: envelope(&canonical, &policy, study),
            opinion: None,
        };
        let now = Circumstances {
            now: NOW,
            plan: canonical,
            header: Canonical::new(header.clone()).unwrap(),
            snapshot: SnapshotFacts {
                digest: Digest::of(b"snapshot"),
                columns: plan::columns_read(&plan),
                subjects: 199,
                public: false,
                version: None,
            },
            policy: policy.clone(),
            state: ApprovalState::Active,
            spent: Spent { epoch: 1, ..Spent::default() },
            signers: vec![
                signer(1, &[Role::DataSteward]),
                signer(2, &[Role::DataAccessApprover]),
                signer(3, &[Role::PrivacyOfficer]),
                signer(4, &[Role::DataSteward, Role::DataAccessApprover, Role::Administrator]),
            ],
            peers: [2, 3, 4].map(|n| (site(n).to_string(), Trust::VerifiedHere)).into(),
            stopped: None,
        };
        let at = NOW.plus_millis(-HOUR_MS / 2);
        let signing = vec![(1, Role::DataSteward, 1, at), (2, Role::DataAccessApprover, 2, at)];
        Self { run: plan.clone(), plan, policy, document, header, now, signing }
    }

    /// The approval as it is signed; plan and policy of the envelope follow what the test made of them.
    pub(crate) fn approval(&self) -> Approval {
        let mut document = self.document.clone();
        document.envelope.computation.plan = Canonical::new(self.plan.clone()).unwrap();
        document.envelope.policy = self.policy.digest().unwrap();
        let document = Canonical::new(document).unwrap();
        let signatures = self
            .signing
            .iter()
            .map(|(who, role, with, at)| {
                ApprovalSignature::new(document.digest(), person(*who), *role, *at, &key(*with)).unwrap()
            })
            .collect();
        Approval { document, signatures }
    }

    /// The circumstances; plan, policy and header follow what the test made of them.
    pub(crate) fn circumstances(&self) -> Circumstances {
        let plan = Canonical::new(self.run.clone()).unwrap();
        let header = RoundHeader { plan: plan.digest(), ..self.header.clone() };
        let header = if self.header.plan == Digest::of(b"another plan") { self.header.clone() } else { header };
        Circumstances { plan, policy: self.policy.clone(), header: Canonical::new(header).unwrap(), ..self.now.clone() }
    }

    pub(crate) fn train(plan: &mut Plan) -> &mut plan::NnTrain {
        match &mut plan.tasks.get_mut("train").unwrap().component {
            Component::NnTrain(train) => train,
            other => panic!("{}", other.name()),
        }
    }
}

fn header(plan: &Plan, study: StudyId) -> RoundHeader {
    let Component::NnTrain(train) = &plan.tasks["train"].component else { panic!() };
    RoundHeader {
        protocol: Version::V1,
        federation: key(99).public().site_id(),
        study,
        job: JobId::new(NOW, [3; 10]),
        task: "train".into(),
        epoch: 1,
        round: 1,
        attempt: 1,
        model: Some(Digest::of(b"model")),
        plan: Digest::of(b"filled in"),
        roster: [1, 2, 3, 4].map(roster_entry).into(),
        mode: Mode::Plain { k_min: 3 },
        tensors: plan::tensors(train, 13),
        quantise: train.quantise.clone(),
        deadline: NOW.plus_millis(HOUR_MS),
    }
}

fn envelope(plan: &Canonical<Plan>, policy: &Policy, study: StudyId) -> Envelope {
    Envelope {
        federation: key(99).public().site_id(),
        site: site(1),
        study,
        study_digest: Digest::of(b"study"),
        terms: terms(),
        roster: [2, 3, 4]
            .map(|n| Peer {
                site: site(n),
                name: format!("site {n}"),
                organisation: format!("hospital {n}"),
                identity: key(100 + n).public(),
                trust: Trust::VerifiedHere,
            })
            .into(),
        computation: Computation {
            plan: plan.clone(),
            ranges: BTreeMap::new(),
            max_runs: 1,
            settings: BTreeSet::new(),
        },
        data: DataScope {
            dataset: "Heart".into(),
            snapshot: Digest::of(b"snapshot"),
            columns: plan::columns_read(plan),
            columns_available: 16,
            subjects: 199,
            series: None,
        },
        egress: plan::egress(plan),
        privacy: PrivacyStatement { secure_aggregation: false, unprotected: vec!["updates".into()] },
        limits: RunLimits {
            not_before: NOW.plus_millis(-HOUR_MS),
            expires: NOW.plus_millis(24 * HOUR_MS),
            round_seconds: 600,
        },
        policy: policy.digest().unwrap(),
        release: ReleaseRule::Reviewed,
        checklist: BTreeMap::from([("dpia".into(), "yes".into())]),
    }
}

/// Columns of the dataset, for tests that take one away.
pub(crate) fn without(columns: &BTreeSet<String>, name: &str) -> BTreeSet<String> {
    columns.iter().filter(|c| *c != name).cloned().collect()
}

/// Spoils a world and says with which code the permit is refused; panics if it is given.
pub(crate) fn refused(spoil: impl FnOnce(&mut World)) -> (RefusalCode, String) {
    let mut world = World::new();
    spoil(&mut world);
    match world.approval().permit(&world.circumstances()) {
        Ok(_) => panic!("a permit was given"),
        Err(refusal) => (refusal.code, refusal.detail),
    }
}

pub(crate) fn code(spoil: impl FnOnce(&mut World)) -> RefusalCode {
    refused(spoil).0
}

/// Changes a world and demands that the permit is still given.
pub(crate) fn given(change: impl FnOnce(&mut World)) {
    let mut world = World::new();
    change(&mut world);
    if let Err(refusal) = world.approval().permit(&world.circumstances()) {
        panic!("{:?}: {refusal}", refusal.code);
    }
}
