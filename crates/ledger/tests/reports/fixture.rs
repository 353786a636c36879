//! The log of a small hospital: one study asked for, approved by two people, trained in two rounds, and revoked.

use std::collections::BTreeMap;
use std::io::Cursor;

use hospes_ledger::report::{self, Annex, Format, ReportError};
use hospes_ledger::{
    Action, Actor, Change, Egress, Engine, Entry, Erasure, Expectations, Ledger, ObjectKind, PeerEntry, Purpose,
    Report, Retention,
};
use hospes_protocol::approval::{
    ApprovalDocument, Computation, DataScope, Envelope, PrivacyStatement, ReleaseRule, Role, RunLimits,
};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, DatasetId, Digest, JobId, PersonId, SiteId, StudyId, Timestamp};
use hospes_protocol::policy::FourEyes;
use hospes_protocol::sign::SecretKey;
use hospes_protocol::study::{Study, StudyFile};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

pub(crate) const T0: i64 = 1_700_000_000_000;

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(crate) fn at(minutes: i64) -> Timestamp {
    Timestamp::from_millis(T0 + minutes * 60_000)
}

fn id(n: u8) -> [u8; 10] {
    [n; 10]
}

pub(crate) fn steward() -> PersonId {
    PersonId::new(at(0), id(1))
}

pub(crate) fn approver() -> PersonId {
    PersonId::new(at(0), id(2))
}

pub(crate) fn federation() -> SiteId {
    key(8).public().site_id()
}

pub(crate) fn dataset() -> DatasetId {
    DatasetId::new(at(0), id(3))
}

pub(crate) fn snapshot() -> Digest {
    Digest::of(b"snapshot")
}

/// A later version of the dataset.
pub(crate) fn version() -> DatasetId {
    DatasetId::new(at(0), id(9))
}

pub(crate) fn approval_id(n: u8) -> ApprovalId {
    ApprovalId::new(at(0), id(n))
}

/// The heart study of the examples, as the coordinator offers it.
pub(crate) fn study(n: u8) -> Canonical<Study> {
    let file = StudyFile::read(include_str!("../../../../examples/heart/plain.yaml")).unwrap();
    let study = Study {
        id: StudyId::new(at(0), id(n)),
        federation: federation(),
        submitted: at(0),
        terms: file.terms,
        plan: Canonical::new(file.plan).unwrap(),
        sweep: None,
        members: vec![key(1).public().site_id()],
    };
    Canonical::new(study).unwrap()
}

pub(crate) fn approval(n: u8, study: &Canonical<Study>) -> Canonical<ApprovalDocument> {
    let document = ApprovalDocument {
        id: approval_id(n),
        at: at(20),
        four_eyes: FourEyes::TwoPeople,
        envelope: Envelope {
            federation: federation(),
            site: key(1).public().site_id(),
            study: study.id,
            study_digest: study.digest(),
            terms: study.terms.clone(),
            roster: Vec::new(),
            computation: Computation {
                plan: study.plan.clone(),
                ranges: BTreeMap::new(),
                max_runs: 1,
                settings: Default::default(),
            },
            data: DataScope {
                dataset: "Cardiology 2019–2024".into(),
                snapshot: snapshot(),
                columns: ["age", "chol"].map(String::from).into(),
                columns_available: 14,
                subjects: 303,
                series: None,
            },
            egress: Vec::new(),
            privacy: PrivacyStatement { secure_aggregation: false, unprotected: vec!["the update".into()] },
            limits: RunLimits { not_before: at(20), expires: at(100_000), round_seconds: 600 },
            policy: Digest::of(b"policy"),
            release: ReleaseRule::Reviewed,
            checklist: BTreeMap::new(),
        },
        opinion: None,
    };
    Canonical::new(document).unwrap()
}

fn engine() -> Engine {
    Engine { version: "hospes-site 0.1.0".into(), device: None }
}

fn by(minutes: i64, actor: Actor, action: Action) -> Entry {
    Entry::new(at(minutes), actor, action, engine())
}

/// What happens at the hospital; the second approval stays in force.
pub(crate) fn story() -> Vec<Entry> {
    let (heart, second) = (study(1), study(2));
    let person = |id, role, n: u8| Actor::person(id, Some(role), Some(key(n).public()));
    let (steward, approver) =
        (person(steward(), Role::DataSteward, 4), person(approver(), Role::DataAccessApprover, 5));
    let mut story = vec![
        by(0, Actor::Engine, Action::EngineStarted),
        by(1, steward.clone(), Action::LoginSucceeded),
        by(2, steward.clone(), Action::DatasetRegistered).object(ObjectKind::Dataset, dataset(), None).object(
            ObjectKind::Snapshot,
            snapshot(),
            Some(snapshot()),
        ),
        by(3, Actor::Engine, Action::LoginFailed).refused("wrong passphrase"),
    ];
    for (n, study) in [(1, &heart), (2, &second)] {
        let document = approval(n, study);
        let purpose = Purpose { study: Some(study.id), job: None, approval: Some(document.id) };
        let minutes = 10 * i64::from(n);
        story.push(
            by(minutes, Actor::peer(federation()), Action::RequestReceived)
                .object(ObjectKind::Study, study.id, Some(study.digest()))
                .purpose(Purpose { study: Some(study.id), ..Purpose::default() }),
        );
        for (later, actor, action) in
            [(1, &steward, Action::ApprovalSigned), (2, &approver, Action::ApprovalCountersigned)]
        {
            story.push(
                by(minutes + later, actor.clone(), action)
                    .object(ObjectKind::Approval, document.id, Some(document.digest()))
                    .object(ObjectKind::Dataset, dataset(), None)
                    .object(ObjectKind::Snapshot, snapshot(), Some(snapshot()))
                    .purpose(purpose),
            );
        }
    }
    let purpose =
        Purpose { study: Some(heart.id), job: Some(JobId::new(at(0), id(7))), approval: Some(approval_id(1)) };
    for round in 1..=2u8 {
        let payload = Digest::of(&[round]);
        let egress = Egress { to: federation().to_string(), bytes: 1_000 * u64::from(round), digest: payload };
        let minutes = 50 + i64::from(round);
        let entry = |action| by(minutes, Actor::Engine, action).purpose(purpose);
        let update = |action| entry(action).object(ObjectKind::Update, payload.short(), Some(payload));
        let mut prepared = update(Action::UpdatePrepared);
        prepared.reason = Some("the coordinator can read this site's update".into());
        prepared.egress = Some(egress.clone());
        story.extend([entry(Action::PermitMinted), prepared, update(Action::UpdateLeaving)]);
        let mut ended = if round == 1 {
            update(Action::UpdateSent)
        } else {
            update(Action::UpdateWithdrawn).refused("it was let go before and may have arrived; revoked")
        };
        ended.egress = Some(egress);
        story.push(ended);
    }
    let mut revoked = by(60, steward, Action::ApprovalRevoked).object(ObjectKind::Study, heart.id, None);
    revoked = revoked.purpose(Purpose { study: Some(heart.id), job: None, approval: Some(approval_id(1)) });
    revoked.reason = Some("the ethics decision was withdrawn".into());
    story.push(revoked);
    let mut policy = by(61, approver, Action::PolicyChanged);
    policy.change = Some(Change { before: Some(Digest::of(b"old")), after: Some(Digest::of(b"new")) });
    policy.answers = Some(PeerEntry { origin: federation(), entry: 9 });
    story.push(policy);
    story
}

pub(crate) fn annex() -> Annex {
    let (heart, second) = (study(1), study(2));
    Annex {
        people: [(steward(), "Anna Weber".to_owned()), (approver(), "Émile Roux".to_owned())].into(),
        sites: [(federation(), "Heart network".to_owned()), (key(1).public().site_id(), "St Elsewhere".to_owned())]
            .into(),
        datasets: [(dataset().to_string(), "Cardiology".to_owned())].into(),
        approvals: vec![approval(1, &heart), approval(2, &second)],
        studies: vec![heart, second],
    }
}

/// The rule under which [`export`] erases.
const RULE: &str = "retention 120 months";
/// So many minutes later and some more.
const RULE_MINUTES: i64 = 121 * 31 * 24 * 60;

/// A native export of these entries; where a time is given, retention has erased those before it ten years later, with
/// an entry that says so.
pub(crate) fn export(entries: &[Entry], erase_before: Option<i64>) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteConnectOptions::new().filename(folder.path().join("site.db")).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&file).await.unwrap();
        let mut ledger = Ledger::on(&mut connection);
        ledger.create().await.unwrap();
        ledger.append_all(entries, &[7; 32]).await.unwrap();
        let mut made = at(1_000);
        if let Some(before_ms) = erase_before {
            made = at(RULE_MINUTES);
            let erasure = Erasure { before_ms, actor: None, fields: Retention::FIELDS.to_vec(), rule: RULE.into() };
            ledger.erase(&erasure).await.unwrap();
            let mut told = Entry::new(made, Actor::Engine, Action::AuditErased, engine());
            told.reason = Some(Retention::named(RULE).unwrap().tells(1));
            ledger.append(&told, &[8; 32]).await.unwrap();
        }
        let mut bytes = Vec::new();
        ledger.export(&key(1), made, &mut bytes).await.unwrap();
        bytes
    })
}

pub(crate) fn expected() -> Expectations {
    Expectations { origins: vec![key(1).public()], ..Expectations::default() }
}

pub(crate) fn try_report(format: Format, export: &[u8], annex: &Annex) -> Result<(String, Report), ReportError> {
    let mut out = Vec::new();
    let report = report::write(format, &mut Cursor::new(export), &expected(), annex, &mut out)?;
    Ok((String::from_utf8(out).unwrap(), report))
}

pub(crate) fn made(format: Format, export: &[u8], annex: &Annex) -> String {
    try_report(format, export, annex).unwrap().0
}
