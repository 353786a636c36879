//! Every kind of document, fed with what strangers send.

use hospes_protocol::approval::{ApprovalDocument, ApprovalStatement, Role};
use hospes_protocol::canon::{Canonical, Document};
use hospes_protocol::id::{Digest, StudyId};
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::Plan;
use hospes_protocol::policy::Policy;
use hospes_protocol::round::RoundHeader;
use hospes_protocol::sign::Signed;
use hospes_protocol::study::{Member, MemberStatement, Roster, Study, Vouch};
use proptest::prelude::*;

use crate::world::{NOW, World, heart, key, person, policy, site, terms};

/// Checks what bytes of this kind may do: be refused, or be read as exactly these bytes.
fn decode<D: Document>(bytes: &[u8]) -> Result<bool, TestCaseError> {
    // What a signed document is wrapped in may be anything; that it does not panic is all that is asked.
    let _ = Signed::<D>::from_bytes(bytes);
    match Canonical::<D>::parse(bytes) {
        Err(_) => Ok(false),
        Ok(document) => {
            prop_assert_eq!(document.bytes(), bytes, "{} is read from bytes that are not its own", D::KIND);
            Ok(true)
        }
    }
}

fn decode_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    decode::<Plan>(bytes)?;
    decode::<Policy>(bytes)?;
    decode::<Study>(bytes)?;
    decode::<Roster>(bytes)?;
    decode::<MemberStatement>(bytes)?;
    decode::<Vouch>(bytes)?;
    decode::<ApprovalDocument>(bytes)?;
    decode::<ApprovalStatement>(bytes)?;
    decode::<RoundHeader>(bytes)?;
    decode::<FigureSet>(bytes)?;
    Ok(())
}

fn statement(name: &str, number: u8) -> (MemberStatement, Member) {
    let secret = key(100 + number);
    let statement = MemberStatement {
        federation: site(9),
        name: name.into(),
        organisation: "hospital".into(),
        identity: secret.public(),
    };
    let signed = Signed::new(statement.clone(), &secret).unwrap();
    let member = Member {
        site: secret.public().site_id(),
        name: name.into(),
        organisation: "hospital".into(),
        identity: secret.public(),
        statement: signed.signatures[0].signature,
    };
    (statement, member)
}

/// One document of each kind, as bytes.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    fn bytes<D: Document>(value: D) -> (&'static str, Vec<u8>) {
        (D::KIND, Canonical::new(value).unwrap().bytes().to_vec())
    }
    let world = World::new();
    let (statement, member) = statement("a", 1);
    vec![
        bytes(heart()),
        bytes(policy()),
        bytes(Study {
            id: StudyId::new(NOW, [1; 10]),
            federation: site(9),
            submitted: NOW,
            terms: terms(),
            plan: Canonical::new(heart()).unwrap(),
            sweep: None,
            members: vec![site(1)],
        }),
        bytes(Roster { federation: site(9), version: 1, at: NOW, members: vec![member] }),
        bytes(Vouch {
            federation: site(9),
            by: site(1),
            site: site(2),
            identity: statement.identity,
            organisation: "hospital".into(),
            at: NOW,
        }),
        bytes(statement),
        bytes(world.approval().document.into_inner()),
        bytes(ApprovalStatement { approval: Digest::of(b"a"), person: person(1), role: Role::DataSteward, at: NOW }),
        bytes(world.header),
        bytes(FigureSet {
            sums: [("n".to_owned(), vec![1.0, 0.5])].into(),
            withheld: [("confusion".to_owned(), "one class only".to_owned())].into(),
        }),
    ]
}

#[test]
fn every_kind_survives_its_own_bytes() {
    let mut read = 0;
    for (kind, bytes) in samples() {
        let count = [
            decode::<Plan>(&bytes),
            decode::<Policy>(&bytes),
            decode::<Study>(&bytes),
            decode::<Roster>(&bytes),
            decode::<MemberStatement>(&bytes),
            decode::<Vouch>(&bytes),
            decode::<ApprovalDocument>(&bytes),
            decode::<ApprovalStatement>(&bytes),
            decode::<RoundHeader>(&bytes),
            decode::<FigureSet>(&bytes),
        ]
        .map(Result::unwrap)
        .into_iter()
        .filter(|read| *read)
        .count();
        assert_eq!(count, 1, "{kind} is read as one kind only");
        read += 1;
    }
    assert_eq!(read, 10);
}

#[test]
fn a_signature_under_one_kind_is_none_under_another() {
    let secret = key(1);
    let plan = Canonical::new(heart()).unwrap();
    let elsewhere = hospes_protocol::canon::digest("policy", 1, plan.bytes());
    assert!(!secret.public().verifies(&elsewhere, &secret.sign(&plan.digest())));
    let mut signed = Signed::new(heart(), &secret).unwrap();
    assert!(signed.signed_by(&secret.public()) && !signed.signed_by(&key(2).public()));
    signed.signatures[0].key = key(2).public();
    assert!(!signed.signed_by(&key(2).public()) && !signed.signed_by(&secret.public()));
}

#[test]
fn bytes_after_a_signed_document_and_floods_of_signatures_are_refused() {
    let mut signed = Signed::new(heart(), &key(1)).unwrap();
    let mut bytes = signed.to_bytes().unwrap();
    assert!(Signed::<Plan>::from_bytes(&bytes).unwrap().signed_by(&key(1).public()));
    bytes.push(0);
    assert!(Signed::<Plan>::from_bytes(&bytes).is_err());
    signed.signatures = vec![signed.signatures[0].clone(); 65];
    assert!(Signed::<Plan>::from_bytes(&signed.to_bytes().unwrap()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        decode_all(&bytes)?;
    }

    /// Shaped like CBOR, which random bytes hardly are.
    #[test]
    fn arbitrary_cbor_never_panics(value in cbor()) {
        let mut bytes = Vec::new();
        ciborium::into_writer(&value, &mut bytes).unwrap();
        decode_all(&bytes)?;
    }

    /// Documents with a few bytes changed, cut or doubled.
    #[test]
    fn damaged_documents_never_panic(which in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(),
                                     changes in changes(),
                                     keep in any::<bool>()) {
        let samples = samples();
        let mut bytes = which.get(&samples).1.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if !keep {
            bytes.truncate(cut.index(bytes.len()));
        }
        decode_all(&bytes)?;
    }

    #[test]
    fn arbitrary_text_never_panics_as_plan_policy_or_terms(text in "(?s).{0,300}") {
        let _ = hospes_protocol::plan::read(&text);
        let _ = hospes_protocol::study::read_terms(&text);
        let _ = hospes_protocol::study::StudyFile::read(&text);
        let _ = Policy::from_toml(&text);
    }

    /// A line of the heart plan is dropped, doubled or spoilt.
    #[test]
    fn damaged_plans_never_panic(line in any::<prop::sample::Index>(), with in "[ -~]{0,30}", how in 0u8..4) {
        let lines: Vec<&str> = crate::world::HEART.lines().collect();
        let at = line.index(lines.len());
        let mut text = String::new();
        for (i, line) in lines.iter().enumerate() {
            match (i == at, how) {
                (true, 0) => {}
                (true, 1) => text.push_str(&format!("{line}\n{line}\n")),
                (true, 2) => text.push_str(&format!("{line}{with}\n")),
                (true, _) => text.push_str(&format!("{}{with}\n", &line[..line.len() / 2])),
                (false, _) => text.push_str(&format!("{line}\n")),
            }
        }
        if let Ok(plan) = hospes_protocol::plan::read(&text) {
            let document = Canonical::new(plan.clone()).unwrap();
            prop_assert_eq!(&*Canonical::<Plan>::parse(document.bytes()).unwrap(), &plan);
        }
    }
}

fn cbor() -> impl Strategy<Value = ciborium::Value> {
    use ciborium::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|i| Value::Integer(i.into())),
        any::<f64>().prop_map(Value::Float),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        "[a-z_/0-9:]{0,20}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::vec((field(), inner), 0..8)
                .prop_map(|entries| Value::Map(entries.into_iter().map(|(k, v)| (Value::Text(k), v)).collect())),
        ]
    })
}

/// Names that the documents know, so that the decoders get beyond the first field.
fn field() -> impl Strategy<Value = String> {
    let known = [
        "schema",
        "name",
        "parties",
        "members",
        "data",
        "seed",
        "tasks",
        "component",
        "inputs",
        "params",
        "federation",
        "site",
        "study",
        "version",
        "at",
        "identity",
        "statement",
        "document",
        "signatures",
        "envelope",
        "sums",
        "withheld",
        "task",
        "round",
        "attempt",
        "roster",
        "mode",
        "tensors",
        "quantise",
        "deadline",
        "plan",
        "id",
        "profile",
    ];
    prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[a-z]{0,8}"]
}

/// Places and the bytes that they get.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
}
