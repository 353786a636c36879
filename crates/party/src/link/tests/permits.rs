//! Uploads can only be made from a permit, in tests too.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::approval::{
    Approval, ApprovalDocument, ApprovalSignature, ApprovalState, Circumstances, Computation, DataScope, Envelope,
    Peer, Permit, PrivacyStatement, ReleaseRule, Role, RunLimits, Signer, SnapshotFacts, Spent, Trust,
};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, Digest, JobId, PersonId, StudyId, Timestamp};
use hospes_protocol::message::{Upload, UploadKind};
use hospes_protocol::plan::{self, Component, Plan};
use hospes_protocol::policy::{FourEyes, Policy};
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::study::Terms;
use hospes_protocol::version::Version;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HOUR_MS: i64 = 3_600_000;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// A payload's description, under a permit for the given round.
pub(super) fn upload(round: u32, payload: &[u8]) -> Upload {
    Upload::new(&permit(round), UploadKind::Update, Digest::of(payload), payload.len() as u64)
}

fn permit(round: u32) -> Permit {
    let plan = plan::read(include_str!("../../../../protocol/tests/contract/heart.yaml")).unwrap();
    let mut policy = Policy { egress: Policy::public_data().egress, ..Policy::strict() };
    // The plan does without masks.
    policy.training.force_secure_aggregation = false;
    let study = StudyId::new(NOW, [1; 10]);
    let signers = [(1, Role::DataSteward), (2, Role::DataAccessApprover)];
    let person = |seed: u8| PersonId::new(NOW, [seed; 10]);
    let document = Canonical::new(ApprovalDocument {
        id: ApprovalId::new(NOW, [2; 10]),
        at: NOW.plus_millis(-HOUR_MS),
        four_eyes: FourEyes::TwoPeople,
        envelope: envelope(&plan, &policy, study),
        opinion: None,
    })
    .unwrap();
    let signatures = signers
        .map(|(n, role)| ApprovalSignature::new(document.digest(), person(n), role, NOW, &key(n)).unwrap())
        .into();
    let circumstances = Circumstances {
        now: NOW,
        header: Canonical::new(header(&plan, study, round)).unwrap(),
        snapshot: SnapshotFacts {
            digest: Digest::of(b"snapshot"),
            columns: plan::columns_read(&plan),
            subjects: 199,
            public: false,
            version: None,
        },
        plan: Canonical::new(plan).unwrap(),
        policy,
        state: ApprovalState::Active,
        spent: Spent { epoch: 1, ..Spent::default() },
        signers: signers
            .map(|(n, role)| Signer {
                person: person(n),
                key: key(n).public(),
                roles: BTreeSet::from([role]),
                external: false,
                enabled: true,
            })
            .into(),
        peers: [12, 13].map(|n| (key(n).public().site_id().to_string(), Trust::VerifiedHere)).into(),
        stopped: None,
    };
    Approval { document, signatures }.permit(&circumstances).unwrap()
}

fn header(plan: &Plan, study: StudyId, round: u32) -> RoundHeader {
    let Component::NnTrain(train) = &plan.tasks["train"].component else { panic!("the plan trains nothing") };
    let entry = |n: u8| RosterEntry { site: key(n).public().site_id(), identity: key(n).public() };
    RoundHeader {
        protocol: Version::V1,
        federation: key(99).public().site_id(),
        study,
        job: JobId::new(NOW, [3; 10]),
        task: "train".into(),
        epoch: 1,
        round,
        attempt: 1,
        model: Some(Digest::of(b"model")),
        plan: Canonical::new(plan.clone()).unwrap().digest(),
        roster: [11, 12, 13].map(entry).into(),
        mode: Mode::Plain { k_min: 3 },
        tensors: plan::tensors(train, 13),
        quantise: train.quantise.clone(),
        deadline: NOW.plus_millis(HOUR_MS),
    }
}

fn envelope(plan: &Plan, policy: &Policy, study: StudyId) -> Envelope {
    let peer = |n: u8| Peer {
        site: key(n).public().site_id(),
        name: format!("site {n}"),
        organisation: format!("hospital {n}"),
        identity: key(n).public(),
        trust: Trust::VerifiedHere,
    };
    Envelope {
        federation: key(99).public().site_id(),
        site: key(11).public().site_id(),
        study,
        study_digest: Digest::of(b"study"),
        terms: Terms { title: "Heart disease".into(), purpose: "To find out.".into(), ..Terms::default() },
        roster: [12, 13].map(peer).into(),
        computation: Computation {
            plan: Canonical::new(plan.clone()).unwrap(),
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
        checklist: BTreeMap::new(),
    }
}
