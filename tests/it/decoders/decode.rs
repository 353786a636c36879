//! Every decoder of bytes that come from outside, by its name: what the fuzz targets call, and the quick test of mutated
//! corpora. None panics, whatever it is given, and what has one form only comes out as it went in.

use std::io::Write as _;

use hospes_cohort::scan::ScanProfile;
use hospes_cohort::source::{Hints, Limits, survey};
use hospes_ledger::{Expectations, Seen, SignedCheckpoint, Witnessing, verify};
use hospes_privacy::coding::Coding;
use hospes_privacy::masked;
use hospes_privacy::secagg::{Aggregator, Refusal, Relay, Sent, Setup};
use hospes_protocol::approval::{ApprovalDocument, ApprovalStatement};
use hospes_protocol::canon::{Canonical, Document};
use hospes_protocol::enrol::Invitation;
use hospes_protocol::grpc::convert::{Announced, from_site, to_site};
use hospes_protocol::grpc::{CoordinatorFrame, SiteFrame, UploadHeader};
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::message::{FigureSet, UploadReceipt};
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::policy::Policy;
use hospes_protocol::round::RoundHeader;
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::study::{MemberStatement, Roster, Study, StudyFile, Vouch};
use prost::Message as _;

/// What is done with bytes.
pub(crate) type Decoder = fn(&[u8]);

/// All of them, by the names of their fuzz targets (fuzz/Cargo.toml).
pub(crate) const ALL: [(&str, Decoder); 28] = [
    ("plan", canonical::<Plan>),
    ("policy", canonical::<Policy>),
    ("study", canonical::<Study>),
    ("roster", canonical::<Roster>),
    ("member_statement", canonical::<MemberStatement>),
    ("vouch", canonical::<Vouch>),
    ("approval", canonical::<ApprovalDocument>),
    ("approval_statement", canonical::<ApprovalStatement>),
    ("round_header", canonical::<RoundHeader>),
    ("figures", canonical::<FigureSet>),
    ("upload_receipt", canonical::<UploadReceipt>),
    ("secagg_setup", secagg_setup),
    ("secagg_sent", secagg_sent),
    ("secagg_relay", secagg_relay),
    ("masked_head", masked_head),
    ("coded_update", coded_update),
    ("site_frame", site_frame),
    ("coordinator_frame", coordinator_frame),
    ("upload_header", upload_header),
    ("plan_text", plan_text),
    ("study_text", study_text),
    ("policy_text", policy_text),
    ("invitation", invitation),
    ("checkpoint", checkpoint),
    ("ledger_export", ledger_export),
    ("csv", |bytes| rows(".csv", bytes)),
    ("ndjson", |bytes| rows(".ndjson", bytes)),
    ("npz", |bytes| rows(".npz", bytes)),
];

/// Gives bytes to the decoder of this name.
#[allow(dead_code)] // Fuzz targets have a name only.
pub(crate) fn by_name(name: &str, bytes: &[u8]) {
    let (_, decode) = ALL.iter().find(|(known, _)| *known == name).expect("there is no decoder of this name");
    decode(bytes);
}

/// A document alone, and with signatures.
fn canonical<D: Document>(bytes: &[u8]) {
    if let Ok(document) = Canonical::<D>::parse(bytes) {
        let again = Canonical::new(document.into_inner()).expect("what was read can be written");
        assert_eq!(again.bytes(), bytes, "{} has two forms", D::KIND);
    }
    if let Ok(signed) = Signed::<D>::from_bytes(bytes) {
        let written = signed.to_bytes().expect("what was read can be written");
        let again = Signed::<D>::from_bytes(&written).expect("what was written can be read");
        assert_eq!(again.document.bytes(), signed.document.bytes());
    }
}

fn secagg_setup(bytes: &[u8]) {
    canonical::<Setup>(bytes);
    if let Ok(setup) = Canonical::<Setup>::parse(bytes) {
        let _ = setup.layout();
        let _ = Aggregator::new(setup);
    }
}

/// A message that is read is written in one form, whichever it had.
fn settles<T>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<T, Refusal>,
    write: impl Fn(&T) -> Result<Vec<u8>, Refusal>,
) {
    if let Ok(message) = read(bytes) {
        let written = write(&message).expect("what was read can be written");
        let again = read(&written).expect("what was written can be read");
        assert_eq!(write(&again).expect("likewise"), written);
    }
}

fn secagg_sent(bytes: &[u8]) {
    settles(bytes, Sent::from_bytes, Sent::to_bytes);
}

fn secagg_relay(bytes: &[u8]) {
    settles(bytes, Relay::from_bytes, Relay::to_bytes);
}

fn masked_head(bytes: &[u8]) {
    if let Ok((sent, _)) = masked::read_head(bytes) {
        let message = sent.to_bytes().expect("what was read can be written");
        assert!(masked::head(&message).is_ok());
    }
}

/// An update of few bits; in front of it, what a round's header says of it.
fn coded_update(bytes: &[u8]) {
    let [wide, low, high, coded @ ..] = bytes else { return };
    let entries = u64::from(u16::from_le_bytes([*low, *high]));
    let coding = Coding::new(if wide % 2 == 0 { 8 } else { 16 }, entries).expect("few bits are coded");
    if let Ok(payload) = coding.decode(coded) {
        assert_eq!(payload.len() as u64, 8 + 4 * entries, "no more comes out than the header says");
        let again = coding.encode(&payload).expect("what was read can be written");
        // A chunk that would be shorter coded may have come as it is.
        assert!(again.len() <= coded.len() && coding.lengths().contains(&(again.len() as u64)));
        assert_eq!(coding.decode(&again), Ok(payload));
    }
}

fn site_frame(bytes: &[u8]) {
    if let Ok(frame) = SiteFrame::decode(bytes) {
        let _ = from_site(frame);
    }
}

fn coordinator_frame(bytes: &[u8]) {
    if let Ok(frame) = CoordinatorFrame::decode(bytes) {
        let _ = to_site(frame);
    }
}

fn upload_header(bytes: &[u8]) {
    if let Ok(header) = UploadHeader::decode(bytes) {
        let _ = Announced::try_from(header);
    }
}

fn plan_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(plan) = plan::read(text) {
        // A plan that is taken can be signed.
        canonical::<Plan>(Canonical::new(plan).expect("a plan has a canonical form").bytes());
    }
}

fn study_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(study) = StudyFile::read(text) {
        canonical::<Plan>(Canonical::new(study.plan).expect("a plan has a canonical form").bytes());
    }
}

fn policy_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(policy) = Policy::from_toml(text) {
        let again = policy.to_toml().expect("a policy has a form as a file");
        assert!(Policy::from_toml(&again).is_ok_and(|read| read == policy), "a policy has two forms");
    }
}

fn invitation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(invitation) = text.parse::<Invitation>() {
        assert!(invitation.to_string().parse::<Invitation>().is_ok_and(|again| again == invitation));
    }
}

/// A note up to the first zero byte, and after it hashes of a proof.
fn checkpoint(bytes: &[u8]) {
    let (note, proof) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    let Ok(note) = std::str::from_utf8(note) else { return };
    let proof: Vec<Digest> = proof.as_chunks::<32>().0.iter().map(|hash| Digest::from_bytes(*hash)).collect();
    let read = SignedCheckpoint::read(note);
    if let Ok(signed) = &read {
        let again = SignedCheckpoint::read(&signed.note()).expect("what was read can be written");
        assert_eq!(again.note(), signed.note());
    }
    let key = SecretKey::from_seed(&[1; 32]);
    let shown = read.ok().map(|signed| Seen::from(signed.checkpoint()));
    for seen in [None, shown, Some(Seen { size: 3, root: Digest::of(b"root") })] {
        let witness = Witnessing { origin: key.public(), key: &key, seen, relayed: true };
        let _ = witness.judge(note, 3, &proof, Timestamp::from_millis(1));
    }
}

fn ledger_export(mut bytes: &[u8]) {
    let _ = verify(&mut bytes, &Expectations::default());
}

/// A file of rows at a site.
fn rows(end: &str, bytes: &[u8]) {
    let mut file = tempfile::Builder::new().suffix(end).tempfile().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    let limits = Limits { record_bytes: 1 << 16, field_bytes: 1 << 12, columns: 200, rows: 10_000 };
    let _ = survey(file.path(), &Hints::default(), ScanProfile::default(), limits);
}
