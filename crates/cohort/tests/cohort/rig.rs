//! A site with a frozen dataset, an approval under it, and a clock that can be turned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hospes_cohort::opt_out::{OptOuts, SubjectKey};
use hospes_cohort::scan::ScanProfile;
use hospes_cohort::snapshot::{Freeze, Snapshot, SnapshotKey, freeze};
use hospes_cohort::source::{Hints, Limits, survey};
use hospes_cohort::worker::Order;
use hospes_protocol::approval::{
    Approval, ApprovalDocument, ApprovalSignature, ApprovalState, Circumstances, Computation, DataScope, Envelope,
    Peer, PrivacyStatement, ReleaseRule, Role, RunLimits, Signer, Spent, Trust,
};
use hospes_protocol::canon::{self, Canonical};
use hospes_protocol::id::{ApprovalId, JobId, PersonId, SiteId, StudyId, Timestamp};
use hospes_protocol::plan::{self, Component, Plan, Quantise};
use hospes_protocol::policy::{Policy, Training};
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::study::Terms;
use hospes_protocol::version;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

/// Two numbers and a category; the label is 1 where x + noise is large.
pub(crate) const PLAN: &str = r#"
schema: hospes/plan/v1
name: small
seed: 7
data:
  subject: subject_id
  label: { column: outcome, positive: "> 0" }
  columns: [x, kind, z]
  variables:
    kind: { category: { codes: ["1", "2", "3"] } }
tasks:
  read: { component: reader }
  full: { component: imputation, inputs: { data: read }, params: { method: drop_rows } }
  hot: { component: one_hot, inputs: { data: full.data }, params: { columns: [kind], drop: first } }
  split: { component: data_split, inputs: { data: hot }, params: { by_column: fold } }
  scale: { component: feature_scale, inputs: { data: split.train } }
  scale_test: { component: feature_scale, inputs: { data: split.test, fitted: scale.fitted } }
  count: { component: statistics, inputs: { data: hot } }
  train:
    component: nn_train
    inputs: { train: scale.data, validate: scale_test.data }
    params:
      model: [{ linear: { out: 4 } }, { tanh: {} }, { linear: { out: 1 } }]
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      rounds: 2
      local: { updates: 100, batch: 4 }
      strategy: { fed_avg: {} }
      privacy: { plain: {} }
      quantise: { clip: 4.0, bits: 32, n_max: 1000 }
  eval: { component: evaluation, inputs: { model: train.model, data: scale_test.data } }
  alone:
    component: local_baseline
    inputs: { train: scale.data, data: scale_test.data }
    params:
      model: [{ linear: { out: 1 } }]
      loss: binary_cross_entropy
      optimizer: { adam: { lr: 0.01 } }
      epochs: 20
      batch: 4
"#;

pub(crate) fn plan() -> Plan {
    plan::read(PLAN).unwrap_or_else(|e| panic!("{e}"))
}

/// The strict rules on what leaves, in a federation of two whose figures may leave.
pub(crate) fn strict() -> Policy {
    let strict = Policy::strict();
    Policy {
        training: Training { min_parties: 2, min_trusted_peers: 1, force_secure_aggregation: false, ..strict.training },
        egress: Policy::public_data().egress,
        ..strict
    }
}

/// The plan with a piece of text replaced.
pub(crate) fn changed(from: &str, to: &str) -> Plan {
    assert!(PLAN.contains(from));
    plan::read(&PLAN.replace(from, to)).unwrap_or_else(|e| panic!("{e}"))
}

/// A table with its cells replaced, by row and column, where `cell` says so.
pub(crate) fn edited(table: &str, cell: impl Fn(usize, usize) -> Option<&'static str>) -> String {
    let line = |(row, line): (usize, &str)| {
        let cells = line.split(',').enumerate();
        let cells = cells.map(|(column, old)| if row == 0 { old } else { cell(row - 1, column).unwrap_or(old) });
        cells.collect::<Vec<_>>().join(",") + "\n"
    };
    table.lines().enumerate().map(line).collect()
}

/// A table that the plan fits, with a clear relation between `x` and `outcome`.
pub(crate) fn table(rows: u32) -> String {
    let mut text = "subject_id,x,kind,z,outcome,fold\n".to_owned();
    for i in 0..rows {
        let x = (i * 37 % 101) as f64 / 10.0;
        let positive = u32::from(x + f64::from(i % 7) / 4.0 > 5.5);
        let fold = if i % 3 == 2 { "test" } else { "train" };
        text.push_str(&format!("P-{i},{x},{}.0,{},{positive},{fold}\n", i % 3 + 1, i % 11));
    }
    text
}

pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) snapshot: Snapshot,
    pub(crate) key: SnapshotKey,
    pub(crate) subjects: SubjectKey,
    pub(crate) plan: Canonical<Plan>,
    pub(crate) policy: Policy,
    identity: SecretKey,
    peer: SecretKey,
    steward: SecretKey,
    approver: SecretKey,
}

pub(crate) fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

impl Rig {
    /// Freezes a table under the public-data policy.
    pub(crate) fn new(table: &str) -> Self {
        Self::with(table, plan(), Policy::public_data())
    }

    pub(crate) fn with(table: &str, plan: Plan, policy: Policy) -> Self {
        Self::keyed(table, plan, policy, [5; 32])
    }

    /// With this key for its snapshot.
    pub(crate) fn keyed(table: &str, plan: Plan, policy: Policy, key: [u8; 32]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = write(folder.path(), "table.csv", table);
        let found = survey(&source, &Hints::default(), ScanProfile::Default, Limits::default()).unwrap();
        let mut schema = found.schema("subject_id").unwrap();
        for column in plan::columns_read(&plan) {
            schema.set_masked(&column, false).unwrap();
        }
        let (key, subjects) = (SnapshotKey::from_bytes(key), SubjectKey::from_bytes([6; 32]));
        let order = Freeze {
            source: (&source).into(),
            format: &found.format,
            schema: &schema,
            folder: folder.path(),
            public: policy.is_public_data(),
            at: NOW,
            limits: Limits::default(),
        };
        let snapshot = freeze(order, &key, &subjects).unwrap();
        Self {
            folder,
            snapshot,
            key,
            subjects,
            plan: Canonical::new(plan).unwrap(),
            policy,
            identity: SecretKey::from_seed(&[1; 32]),
            peer: SecretKey::from_seed(&[2; 32]),
            steward: SecretKey::from_seed(&[3; 32]),
            approver: SecretKey::from_seed(&[4; 32]),
        }
    }

    pub(crate) fn site(&self) -> SiteId {
        self.identity.public().site_id()
    }

    fn study(&self) -> StudyId {
        StudyId::new(NOW, [1; 10])
    }

    /// A signed approval of the plan on the snapshot.
    pub(crate) fn approval(&self) -> Approval {
        self.sign(self.document())
    }

    /// What is signed in it.
    pub(crate) fn document(&self) -> ApprovalDocument {
        ApprovalDocument {
            id: ApprovalId::new(NOW, [2; 10]),
            at: NOW,
            four_eyes: self.policy.approval.four_eyes,
            envelope: Envelope {
                federation: SiteId::of_key(&[9; 32]),
                site: self.site(),
                study: self.study(),
                study_digest: canon::digest("study", 1, b"offered"),
                terms: Terms::default(),
                roster: vec![Peer {
                    site: self.peer.public().site_id(),
                    name: "peer".into(),
                    organisation: "Peer".into(),
                    identity: self.peer.public(),
                    trust: Trust::VerifiedHere,
                }],
                computation: Computation {
                    plan: self.plan.clone(),
                    ranges: BTreeMap::new(),
                    max_runs: 1,
                    settings: BTreeSet::new(),
                },
                data: DataScope {
                    dataset: "table".into(),
                    snapshot: self.snapshot.document.digest(),
                    columns: plan::columns_read(&self.plan),
                    columns_available: 6,
                    subjects: self.snapshot.document.subjects,
                    series: None,
                },
                egress: plan::egress(&self.plan),
                privacy: PrivacyStatement { secure_aggregation: false, unprotected: vec!["updates".into()] },
                limits: RunLimits { not_before: NOW, expires: NOW.plus_millis(86_400_000), round_seconds: 600 },
                policy: self.policy.digest().unwrap(),
                release: ReleaseRule::Automatic,
                checklist: BTreeMap::new(),
            },
            opinion: None,
        }
    }

    pub(crate) fn sign(&self, document: ApprovalDocument) -> Approval {
        let document = Canonical::new(document).unwrap();
        let sign = |person, role, key| ApprovalSignature::new(document.digest(), person, role, NOW, key).unwrap();
        let signatures = vec![
            sign(person(1), Role::DataSteward, &self.steward),
            sign(person(2), Role::DataAccessApprover, &self.approver),
        ];
        Approval { document, signatures }
    }

    pub(crate) fn header(&self, task: &str, round: u32, model: Option<&[u8]>) -> Canonical<RoundHeader> {
        let (tensors, quantise) = match &self.plan.tasks[task].component {
            Component::NnTrain(train) => {
                let inputs = plan::features(&self.plan, task).len() as u64;
                (plan::update_tensors(train, inputs), train.quantise.clone())
            }
            _ => (Vec::new(), Quantise::default()),
        };
        let entry = |key: &SecretKey| RosterEntry { site: key.public().site_id(), identity: key.public() };
        let header = RoundHeader {
            protocol: version::SUPPORTED[0],
            federation: SiteId::of_key(&[9; 32]),
            study: self.study(),
            job: JobId::new(NOW, [3; 10]),
            task: task.into(),
            epoch: 1,
            round,
            attempt: 1,
            model: model.map(|bytes| canon::digest("model", 1, bytes)),
            plan: self.plan.digest(),
            roster: vec![entry(&self.identity), entry(&self.peer)],
            mode: Mode::Plain { k_min: 2 },
            tensors,
            quantise,
            deadline: NOW.plus_millis(300_000),
        };
        Canonical::new(header).unwrap()
    }

    pub(crate) fn circumstances(&self, header: Canonical<RoundHeader>, subjects: u64) -> Circumstances {
        let signer = |n: u8, key: &SecretKey, role| Signer {
            person: person(n),
            key: key.public(),
            roles: BTreeSet::from([role]),
            external: false,
            enabled: true,
        };
        let facts = self.snapshot.facts(hospes_cohort::snapshot::SubjectCount { total: subjects, opted_out: 0 });
        Circumstances {
            now: NOW,
            plan: self.plan.clone(),
            header,
            snapshot: facts,
            policy: self.policy.clone(),
            state: ApprovalState::Active,
            spent: Spent { epoch: 1, ..Spent::default() },
            signers: vec![
                signer(1, &self.steward, Role::DataSteward),
                signer(2, &self.approver, Role::DataAccessApprover),
            ],
            peers: BTreeMap::from([(self.peer.public().site_id().to_string(), Trust::VerifiedHere)]),
            stopped: None,
        }
    }

    /// A model file with the plan's initial values for the layers of `train`.
    pub(crate) fn model(&self) -> Vec<u8> {
        let Component::NnTrain(train) = &self.plan.tasks["train"].component else { panic!("no training") };
        let inputs = plan::features(&self.plan, "train").len() as u64;
        let values = plan::model::initial(&train.model, inputs, self.plan.seed);
        safetensors_file(&plan::tensors(train, inputs), &values)
    }

    /// An order for a task's first round.
    pub(crate) fn order(&self, task: &str) -> Order {
        let model = matches!(self.plan.tasks[task].component, Component::NnTrain(_) | Component::Evaluation(_))
            .then(|| self.model());
        self.order_with(task, 1, model.as_deref())
    }

    pub(crate) fn order_with(&self, task: &str, round: u32, model: Option<&[u8]>) -> Order {
        let model_path = model.map(|bytes| write(self.folder.path(), &format!("model-{task}-{round}"), bytes));
        let header = self.header(task, round, model);
        Order {
            approval: self.approval(),
            dry: false,
            attack: false,
            circumstances: self.circumstances(header, self.snapshot.document.subjects),
            site: self.site(),
            snapshot: self.snapshot.document.clone(),
            snapshot_path: self.snapshot.path.clone(),
            key: self.key.clone(),
            opt_outs: OptOuts::new(),
            model_path,
            payload_path: self.folder.path().join(format!("payload-{task}-{round}")),
            state_in: None,
            state_out: None,
            place: Default::default(),
            share: 100,
        }
    }
}

fn person(n: u8) -> PersonId {
    PersonId::new(NOW, [n; 10])
}

/// A safetensors file of f32 tensors.
pub(crate) fn safetensors_file(shapes: &[plan::model::TensorShape], values: &[f32]) -> Vec<u8> {
    let mut rest = values;
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for shape in shapes {
        let (mine, others) = rest.split_at(usize::try_from(shape.len()).unwrap());
        rest = others;
        let sides = shape.shape.iter().map(|n| usize::try_from(*n).unwrap()).collect();
        tensors.push((shape.name.clone(), sides, mine.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
    let views = tensors.iter().map(|(name, sides, bytes)| {
        (name.clone(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, sides.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}
