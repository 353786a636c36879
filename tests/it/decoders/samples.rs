//! What is said in a federation, as it is written today: the corpora that follow from code.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use hospes_ledger::Checkpoint;
use hospes_privacy::coding::Coding;
use hospes_privacy::masked;
use hospes_privacy::secagg::{
    Accusation, Aggregator, Demands, Fault, Member, Past, Refusal, Relay, Seed, Sent, Setup, Step, Thresholds, Tree,
    Turn,
};
use hospes_protocol::approval::{ApprovalStatement, Refusal as Why, RefusalCode, Role, Trust};
use hospes_protocol::canon::{Canonical, Document};
use hospes_protocol::enrol::Invitation;
use hospes_protocol::grpc::convert::{coordinator_frame, site_frame};
use hospes_protocol::grpc::{UploadHeader, upload_header};
use hospes_protocol::id::{Digest, JobId, PersonId, RoundKey, SiteId, StudyId, Timestamp};
use hospes_protocol::message::{
    Decision, FigureSet, FromSite, Hello, RoundOutcome, RoundReply, SecureMessage, ToSite, UploadReceipt, Welcome,
    Witness,
};
use hospes_protocol::plan::Quantise;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::policy::Policy;
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::study::{Member as Hospital, MemberStatement, Roster, Study, StudyFile, Vouch};
use hospes_protocol::version::Version;
use hospes_tests::federation::EXAMPLES;
use prost::Message as _;
use zeroize::Zeroizing;

/// One file of a corpus.
pub(crate) struct Sample {
    pub(crate) decoder: &'static str,
    pub(crate) file: String,
    pub(crate) bytes: Vec<u8>,
}

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// Members of the session.
const MEMBERS: u8 = 3;

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn id(n: u8) -> SiteId {
    key(n).public().site_id()
}

#[derive(Default)]
struct Samples(Vec<Sample>);

impl Samples {
    fn add(&mut self, decoder: &'static str, file: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push(Sample { decoder, file: file.to_owned(), bytes: bytes.into() });
    }

    /// A document, and the same signed.
    fn document<D: Document + Clone>(&mut self, decoder: &'static str, value: &D) -> Result<()> {
        self.add(decoder, "document", Canonical::new(value.clone())?.bytes());
        self.add(decoder, "signed", Signed::new(value.clone(), &key(99))?.to_bytes()?);
        Ok(())
    }
}

/// All of them; the same every time.
pub(crate) fn all() -> Result<Vec<Sample>> {
    let mut samples = Samples::default();
    let header = header();
    documents(&mut samples, &header)?;
    session(&mut samples, &header).map_err(|refusal| anyhow!("{refusal}"))?;
    frames(&mut samples, &header)?;
    coded(&mut samples)?;
    let ca = Digest::of(b"ca");
    let url = "https://localhost:8443".to_owned();
    let invitation = Invitation { url, ca, site: "Cleveland".into(), secret: vec![7; 32], expires: NOW };
    samples.add("invitation", "invitation", invitation.to_string());
    let signed = Checkpoint { origin: id(1), size: 5, root: Digest::of(b"root") }.sign(&key(1));
    let mut note = signed.note().into_bytes();
    samples.add("checkpoint", "note", note.clone());
    note.extend([0; 65]);
    samples.add("checkpoint", "proof", note);
    Ok(samples.0)
}

fn header() -> RoundHeader {
    let Thresholds { corrupt: c, quorum: t, k_min } = Thresholds::new(u32::from(MEMBERS), None, 0, 3);
    let entry = |n: u8| RosterEntry { site: id(n), identity: key(n).public() };
    RoundHeader {
        protocol: Version::V1,
        federation: id(99),
        study: StudyId::new(NOW, [1; 10]),
        job: JobId::new(NOW, [2; 10]),
        task: "train".into(),
        epoch: 1,
        round: 1,
        attempt: 1,
        model: Some(Digest::of(b"model")),
        plan: Digest::of(b"plan"),
        roster: (1..=MEMBERS).map(entry).collect(),
        mode: Mode::SecureAggregation { c, t, k_min },
        tensors: vec![TensorShape { name: "0.weight".into(), shape: vec![2] }],
        quantise: Quantise { clip: 1.0, bits: 32, n_max: 100 },
        deadline: NOW,
    }
}

fn documents(samples: &mut Samples, header: &RoundHeader) -> Result<()> {
    let text = std::fs::read_to_string(format!("{EXAMPLES}/heart/study.yaml"))?;
    let file = StudyFile::read(&text).map_err(|e| anyhow!("{e}"))?;
    samples.document("plan", &file.plan)?;
    samples.document("policy", &Policy::strict())?;
    let study = Study {
        id: header.study,
        federation: id(99),
        submitted: NOW,
        terms: file.terms,
        plan: Canonical::new(file.plan)?,
        sweep: None,
        members: vec![id(1), id(2)],
    };
    samples.document("study", &study)?;
    let statement = MemberStatement {
        federation: id(99),
        name: "a".into(),
        organisation: "hospital".into(),
        identity: key(1).public(),
    };
    samples.document("member_statement", &statement)?;
    let signature = key(1).sign(&Canonical::new(statement.clone())?.digest());
    let MemberStatement { name, organisation, identity, .. } = statement;
    let member = Hospital { site: id(1), name, organisation: organisation.clone(), identity, statement: signature };
    samples.document("roster", &Roster { federation: id(99), version: 1, at: NOW, members: vec![member] })?;
    samples
        .document("vouch", &Vouch { federation: id(99), by: id(2), site: id(1), identity, organisation, at: NOW })?;
    let person = PersonId::new(NOW, [3; 10]);
    let statement = ApprovalStatement { approval: Digest::of(b"a"), person, role: Role::DataSteward, at: NOW };
    samples.document("approval_statement", &statement)?;
    samples.document("round_header", header)?;
    let figures = FigureSet {
        sums: BTreeMap::from([("n".to_owned(), vec![1.0, 0.5])]),
        withheld: BTreeMap::from([("confusion".to_owned(), "one class only".to_owned())]),
    };
    samples.document("figures", &figures)?;
    let digest = Digest::of(b"payload");
    let receipt = UploadReceipt { federation: id(99), site: id(1), round: header.key(), digest, at: NOW };
    samples.document("upload_receipt", &receipt)
}

/// Updates of few bits.
fn coded(samples: &mut Samples) -> Result<()> {
    let eight: Vec<u32> = (0..40).map(|i| 126 + i * 7 % 5).collect();
    let sixteen: Vec<u32> = (0..12).flat_map(|i| [32_767, 32_768, 32_768 + i * i, 32_700 - i]).collect();
    for (file, bits, levels) in [("eight", 8u8, eight), ("sixteen", 16, sixteen)] {
        let entries = u16::try_from(levels.len())?;
        let mut payload = 7u64.to_le_bytes().to_vec();
        payload.extend(levels.iter().flat_map(|level| level.to_le_bytes()));
        let coded = Coding::new(bits, entries.into()).context("few bits are coded")?.encode(&payload)?;
        let wide = u8::from(bits == 16);
        samples.add("coded_update", file, [&[wide][..], &entries.to_le_bytes()[..], &coded[..]].concat());
    }
    Ok(())
}

/// Every message of one session.
fn session(samples: &mut Samples, header: &RoundHeader) -> Result<(), Refusal> {
    let setup: Canonical<Setup> = masked::session(header)?;
    samples.add("secagg_setup", "document", setup.bytes());
    let peers: BTreeMap<_, _> = header.roster.iter().map(|entry| (entry.identity, Trust::VerifiedHere)).collect();
    let mut members = Vec::new();
    for n in 1..=MEMBERS {
        let demands = Demands {
            identity: key(n).public(),
            peers: peers.clone(),
            min_parties: 3,
            min_trusted_peers: 2,
            corrupt: None,
            model: header.model,
            noise: None,
        };
        let seed = Seed::new(Zeroizing::new([n; 32]));
        members.push((key(n), Member::new(setup.clone(), demands, &past(false), &seed)?));
    }
    let mut aggregator = Aggregator::new(setup.clone())?;
    while aggregator.at() != Step::End {
        let (step, has_consented) = (aggregator.at(), aggregator.at() == Step::Reveal);
        for (party, (key, member)) in (0u32..).zip(&mut members) {
            let relay = aggregator.relay(party).ok();
            let turn = match &relay {
                None => Turn::Send(member.advertise(key)?),
                Some(relay) => member.on(relay, &past(has_consented), key)?,
            };
            let (fixed, received) = match turn {
                Turn::Send(fixed) => (fixed, None),
                Turn::Mask => {
                    let (mut masker, mut tree) = (member.masker()?, Tree::default());
                    while let Some(block) = masker.expected() {
                        let packed = masker.block(&mut vec![1; block.entries]);
                        tree.push(&packed.map_err(|e| Refusal::Unreadable(e.to_string()))?);
                    }
                    (member.commit(tree.finish(), key)?, Some(tree.finish()))
                }
            };
            if party == 0 {
                samples.add("secagg_sent", &step.to_string().replace(' ', "-"), fixed.message.clone());
                if let Some(relay) = &relay {
                    samples.add("secagg_relay", &step.to_string().replace(' ', "-"), relay.to_bytes()?);
                }
                if step == Step::Input {
                    samples.add("masked_head", "head", masked::head(&fixed.message)?);
                }
            }
            aggregator.accept(key.public().site_id(), Sent::from_bytes(&fixed.message)?, received)?;
        }
        aggregator.close(&(0..u32::from(MEMBERS)).collect())?;
    }
    let accusation = Accusation { sid: setup.digest(), from: 0, of: 1, fault: Fault::Box };
    let signed = Signed::new(accusation, &key(1)).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    samples.add("secagg_sent", "accusation", Sent::Accusation(signed).to_bytes()?);
    samples.add("secagg_relay", "none", Relay::Consents(Vec::new()).to_bytes()?);
    Ok(())
}

fn past(has_consented: bool) -> Past {
    Past { epoch: 1, consented: has_consented.then_some((1, 1)), ..Past::default() }
}

fn frames(samples: &mut Samples, header: &RoundHeader) -> Result<()> {
    let round: RoundKey = header.key();
    let hello = Hello { versions: vec![Version::V1], site: id(1), software: "x".into(), at: NOW, epoch: 1 };
    let show = || Witness::Show { origin: id(1), checkpoint: "c".into(), old_size: 1, proof: vec![Digest::of(b"x")] };
    let refusal = Why::new(RefusalCode::Policy, "no");
    let step = || SecureMessage::new(vec![1, 2, 3]);
    let said = [
        ("hello", FromSite::Hello(hello)),
        ("decision", FromSite::Decision { study: header.study, decision: Decision::Refused(refusal.clone()) }),
        ("reserved", FromSite::Reserved { job: header.job, refusal: Some(refusal) }),
        ("working", FromSite::RoundReply { round: round.clone(), reply: RoundReply::Working }),
        ("step", FromSite::SecureStep { round: round.clone(), message: step() }),
        ("witness", FromSite::Witness(show())),
    ];
    for (name, message) in said {
        let frame = site_frame(message).ok().context("a frame")?;
        samples.add("site_frame", name, frame.encode_to_vec());
    }
    let welcome = Welcome { version: Version::V1, federation: id(99), identity: key(99).public(), at: NOW, epoch: 1 };
    let outcome = RoundOutcome::Published { model: Some(Digest::of(b"m")), included: vec![id(1)] };
    let told = [
        ("welcome", ToSite::Welcome(welcome)),
        ("round", ToSite::RoundOpen(Box::new(Signed::new(header.clone(), &key(99))?))),
        ("relay", ToSite::Relay { round: round.clone(), message: step() }),
        ("closed", ToSite::RoundClosed { round: round.clone(), outcome }),
        ("witness", ToSite::Witness(show())),
    ];
    for (name, message) in told {
        let frame = coordinator_frame(message).ok().context("a frame")?;
        samples.add("coordinator_frame", name, frame.encode_to_vec());
    }
    let announced = UploadHeader {
        kind: upload_header::Kind::Update.into(),
        study: header.study.to_string(),
        round: Some(round.into()),
        digest: Digest::of(b"payload").as_bytes().to_vec(),
        length: 7,
    };
    samples.add("upload_header", "update", announced.encode_to_vec());
    Ok(())
}
