//! What the log says about each study, approval and dataset, gathered in one pass: who asked, who signed, what left.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::id::{ApprovalId, Digest, SiteId, StudyId, Timestamp};
use hospes_protocol::text::in_bytes;

use super::{Head, Log, ReportError, plain, when, who};
use crate::entry::{Action, Actor, ObjectKind, Outcome};
use crate::leaf::Record;

/// Most studies, approvals or datasets of one log. People sign each approval; thousands would be many.
const MOST: usize = 100_000;
/// Most payloads that are on their way at one time, of which the protection is kept in mind.
const OPEN: usize = 100_000;

/// A step of a decision.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) entry: u64,
    pub(super) at: Option<Timestamp>,
    pub(super) when: String,
    pub(super) who: String,
    pub(super) action: Action,
    pub(super) reason: String,
}

/// What left under an approval.
#[derive(Debug, Clone, Default)]
pub(super) struct Left {
    /// Payloads that left.
    pub(super) sent: u64,
    /// Bytes of them.
    pub(super) bytes: u64,
    /// Payloads that were let go without a receipt, and their bytes.
    pub(super) perhaps: (u64, u64),
    pub(super) to: BTreeSet<String>,
    pub(super) protection: BTreeSet<String>,
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
}

impl Left {
    fn add(&mut self, record: &Record, bytes: u64, to: &str, protection: Option<String>) {
        if record.action == Some(Action::UpdateSent) {
            self.sent += 1;
            self.bytes = self.bytes.saturating_add(bytes);
        } else {
            self.perhaps = (self.perhaps.0 + 1, self.perhaps.1.saturating_add(bytes));
        }
        self.to.insert(to.to_owned());
        self.protection.extend(protection);
        let at = when(record);
        self.first.get_or_insert_with(|| at.clone());
        self.last = Some(at);
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        let mut words = format!("{} times, {}", self.sent, in_bytes(self.bytes));
        if self.perhaps.0 > 0 {
            words.push_str(&format!(
                "; {} times more ({}) let go without a receipt, and may have arrived",
                self.perhaps.0,
                in_bytes(self.perhaps.1)
            ));
        }
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            words.push_str(&format!("; from {first} to {last}"));
        }
        words
    }
}

/// One approval.
#[derive(Debug, Clone, Default)]
pub(super) struct Approved {
    pub(super) study: Option<StudyId>,
    pub(super) digest: Option<Digest>,
    pub(super) snapshot: Option<Digest>,
    pub(super) dataset: Option<String>,
    pub(super) steps: Vec<Step>,
    /// Rounds for which a permit was given.
    pub(super) permits: u64,
    /// How many of them read which dataset, where the permit's entry names it: an approval of a series is for several, its
    /// versions.
    pub(super) read: BTreeMap<String, u64>,
    pub(super) left: Left,
}

impl Approved {
    /// Whether it read another dataset than the one that was reviewed: later versions of it.
    pub(super) fn read_several(&self) -> bool {
        self.read.keys().chain(&self.dataset).collect::<BTreeSet<_>>().len() > 1
    }

    fn last(&self, actions: &[Action]) -> Option<&Step> {
        self.steps.iter().rev().find(|step| actions.contains(&step.action))
    }

    /// What ended it.
    pub(super) fn ended(&self) -> Option<&Step> {
        self.last(&[
            Action::ApprovalRevoked,
            Action::ApprovalExpired,
            Action::ApprovalSuperseded,
            Action::StudyWithdrawn,
            Action::RequestRefused,
        ])
    }

    /// Whether it holds: signed by all whom it needs, neither suspended nor ended. Two signatures, or one that a permit
    /// was given under (where the site's rule is one signature and a delay).
    pub(super) fn holds(&self) -> bool {
        let complete = self.last(&[Action::ApprovalCountersigned]).is_some() || self.permits > 0;
        complete && self.ended().is_none() && !self.suspended()
    }

    pub(super) fn suspended(&self) -> bool {
        let last = self.last(&[Action::ApprovalSuspended, Action::ApprovalResumed]);
        last.is_some_and(|step| step.action == Action::ApprovalSuspended)
    }

    /// State in words.
    pub(super) fn state(&self) -> String {
        match self.ended() {
            Some(step) => format!("{} {}", super::spoken(step.action.as_str()), step.when),
            None if self.suspended() => "suspended".to_owned(),
            None if self.holds() => "in force".to_owned(),
            None => "partly signed".to_owned(),
        }
    }

    pub(super) fn signatures(&self) -> impl Iterator<Item = &Step> {
        let signed = [Action::ApprovalSigned, Action::ApprovalCountersigned];
        self.steps.iter().filter(move |step| signed.contains(&step.action))
    }

    /// Signatures in words.
    pub(super) fn signers(&self) -> String {
        let signed: Vec<String> =
            self.signatures().map(|step| format!("{} on {} (entry {})", step.who, step.when, step.entry)).collect();
        signed.join("; ")
    }
}

/// One study.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) federation: Option<SiteId>,
    pub(super) received: Option<Step>,
    pub(super) digest: Option<Digest>,
    /// Opinions, refusals and the like.
    pub(super) steps: Vec<Step>,
}

/// One dataset.
#[derive(Debug, Clone, Default)]
pub(super) struct Registered {
    /// When and by whom.
    pub(super) steps: Vec<Step>,
    /// Snapshots that were frozen of it.
    pub(super) snapshots: BTreeSet<Digest>,
}

/// Everything that was gathered.
#[derive(Default)]
pub(super) struct Uses {
    pub(super) studies: BTreeMap<StudyId, Asked>,
    pub(super) approvals: BTreeMap<ApprovalId, Approved>,
    pub(super) datasets: BTreeMap<String, Registered>,
    /// What left without an approval in its entry.
    pub(super) other: Left,
    open: BTreeMap<Digest, String>,
    too_many: Option<&'static str>,
}

impl Uses {
    pub(super) fn gather(log: &mut Log<'_>, head: &Head<'_>) -> Result<Self, ReportError> {
        let mut uses = Self::default();
        log.each(&mut |proven| {
            uses.take(&proven.record, head);
            Ok(())
        })?;
        match uses.too_many {
            Some(what) => Err(ReportError::TooMany { what, most: MOST }),
            None => Ok(uses),
        }
    }

    fn take(&mut self, record: &Record, head: &Head<'_>) {
        let Some(action) = record.action else { return };
        for (what, size) in
            [("studies", self.studies.len()), ("approvals", self.approvals.len()), ("datasets", self.datasets.len())]
        {
            if size > MOST {
                self.too_many = Some(what);
                return;
            }
        }
        let step = || Step {
            entry: record.sequence,
            at: record.when.map(|w| w.at),
            when: when(record),
            who: who(record, &head.words),
            action,
            reason: record.reason.as_deref().map(plain).unwrap_or_default(),
        };
        let done = record.outcome == Some(Outcome::Success);
        match action {
            Action::RequestReceived if done => {
                if let Some(study) = record.purpose.study {
                    let asked = self.studies.entry(study).or_default();
                    asked.digest = digest_of(record, ObjectKind::Study);
                    if let Some(Actor::Peer { node, .. }) = record.actor {
                        asked.federation = Some(node);
                    }
                    asked.received = Some(step());
                }
            }
            Action::OpinionGiven | Action::RequestRefused | Action::StudyWithdrawn if done => {
                if let Some(study) = record.purpose.study {
                    self.studies.entry(study).or_default().steps.push(step());
                    if action != Action::OpinionGiven {
                        let of_study = self.approvals.values_mut().filter(|a| a.study == Some(study));
                        of_study.filter(|a| a.ended().is_none()).for_each(|a| a.steps.push(step()));
                    }
                }
            }
            Action::ApprovalSigned | Action::ApprovalCountersigned if done => {
                if let Some(id) = record.purpose.approval {
                    let approved = self.approvals.entry(id).or_default();
                    approved.study = record.purpose.study;
                    approved.digest = digest_of(record, ObjectKind::Approval);
                    approved.snapshot = digest_of(record, ObjectKind::Snapshot).or(approved.snapshot);
                    approved.dataset = dataset_in(record).or(approved.dataset.take());
                    approved.steps.push(step());
                }
            }
            Action::ApprovalSuspended
            | Action::ApprovalResumed
            | Action::ApprovalRevoked
            | Action::ApprovalExpired
            | Action::ApprovalSuperseded
                if done =>
            {
                if let Some(approved) = record.purpose.approval.and_then(|id| self.approvals.get_mut(&id)) {
                    approved.steps.push(step());
                }
            }
            Action::PermitMinted if done => {
                if let Some(approved) = record.purpose.approval.and_then(|id| self.approvals.get_mut(&id)) {
                    approved.permits += 1;
                    if let Some(dataset) = dataset_in(record).filter(|_| approved.read.len() < MOST) {
                        *approved.read.entry(dataset).or_default() += 1;
                    }
                }
            }
            Action::DatasetRegistered | Action::DatasetChanged | Action::DatasetRemoved | Action::ModelUsed if done => {
                // Where one follows another, the first is the one that was registered.
                if let Some(dataset) = record.objects.iter().find(|o| o.kind == ObjectKind::Dataset) {
                    let registered = self.datasets.entry(dataset.id.clone()).or_default();
                    registered.snapshots.extend(digest_of(record, ObjectKind::Snapshot));
                    registered.steps.push(step());
                }
            }
            Action::UpdatePrepared | Action::UpdateSent | Action::UpdateWithdrawn => self.payload(record, action),
            _ => {}
        }
    }

    /// A payload that was made, that left, or that was taken back.
    fn payload(&mut self, record: &Record, action: Action) {
        if action == Action::UpdatePrepared {
            if let (Some(egress), Some(reason)) = (&record.egress, &record.reason)
                && self.open.len() < OPEN
            {
                self.open.insert(egress.digest, plain(reason));
            }
            return;
        }
        let payload = record.objects.iter().find(|o| matches!(o.kind, ObjectKind::Update | ObjectKind::Figures));
        let digest = record.egress.as_ref().map(|e| e.digest).or(payload.and_then(|o| o.digest));
        let protection = digest.and_then(|d| self.open.remove(&d));
        let Some(egress) = &record.egress else { return };
        let approved = record.purpose.approval.and_then(|id| self.approvals.get_mut(&id));
        let left = approved.map_or(&mut self.other, |approved| &mut approved.left);
        left.add(record, egress.bytes, &egress.to, protection);
    }

    /// Name of the dataset that an approval is for: by the entry of its signature, or by the snapshot in its document.
    pub(super) fn dataset_of(&self, id: ApprovalId, approved: &Approved, head: &Head<'_>) -> Option<String> {
        if let Some(dataset) = &approved.dataset {
            return Some(dataset.clone());
        }
        let document = head.words.approval(id).map(|a| a.envelope.data.snapshot);
        let snapshot = approved.snapshot.or(document)?;
        self.datasets.iter().find(|(_, d)| d.snapshots.contains(&snapshot)).map(|(dataset, _)| dataset.clone())
    }
}

/// The first dataset that an entry names.
fn dataset_in(record: &Record) -> Option<String> {
    record.objects.iter().find(|o| o.kind == ObjectKind::Dataset).map(|o| o.id.clone())
}

fn digest_of(record: &Record, kind: ObjectKind) -> Option<Digest> {
    record.objects.iter().find(|o| o.kind == kind).and_then(|o| o.digest)
}
