//! Sums of masked updates: those of the plain ones, and what is no masked update.

use std::collections::BTreeSet;

use hospes_privacy::masked;
use hospes_privacy::secagg::{Aggregator, Demands, Member, Past, Seed, Sent, Step, Turn};
use hospes_protocol::approval::Trust;
use hospes_protocol::id::{JobId, StudyId, Timestamp};
use hospes_protocol::message::UploadKind;
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::version::Version;
use zeroize::Zeroizing;

use super::tests::Bench;
use super::*;
use crate::aggregate::content::{self, Content};

fn keys() -> Vec<SecretKey> {
    (1..=3).map(|n| SecretKey::from_seed(&[n; 32])).collect()
}

fn header(bench: &Bench) -> RoundHeader {
    let entry = |key: &SecretKey| RosterEntry { site: key.public().site_id(), identity: key.public() };
    RoundHeader {
        protocol: Version::V1,
        federation: SiteId::of_key(&[0; 32]),
        study: StudyId::new(Timestamp::from_millis(1), [1; 10]),
        job: JobId::new(Timestamp::from_millis(2), [2; 10]),
        task: "train".into(),
        epoch: 1,
        round: 1,
        attempt: 1,
        model: Some(Digest::of(b"model")),
        plan: Digest::of(b"plan"),
        roster: keys().iter().map(entry).collect(),
        mode: Mode::SecureAggregation { c: 1, t: 3, k_min: 3 },
        tensors: bench.tensors.clone(),
        quantise: bench.quantise.clone(),
        deadline: Timestamp::from_millis(1_000),
    }
}

fn member(bench: &Bench, key: &SecretKey) -> Member {
    let demands = Demands {
        identity: key.public(),
        peers: keys().iter().map(|key| (key.public(), Trust::VerifiedHere)).collect(),
        min_parties: 3,
        min_trusted_peers: 2,
        corrupt: None,
        model: Some(Digest::of(b"model")),
        noise: None,
    };
    let seed = Seed::new(Zeroizing::new(*Digest::of(key.public().as_bytes()).as_bytes()));
    let past = Past { epoch: 1, ..Past::default() };
    Member::new(masked::session(&header(bench)).unwrap(), demands, &past, &seed).unwrap()
}

/// What a member sends in place of these levels, and the message about it.
fn mask(member: &mut Member, key: &SecretKey, levels: &[u8]) -> Vec<u8> {
    let mut masker = member.masker().unwrap();
    let (mut vector, mut rest) = (Vec::new(), levels);
    while let Some(block) = masker.expected() {
        let (mine, others) = rest.split_at(masked::level_bytes(&block));
        vector.extend(masker.block(&mut masked::levels(&block, mine)).unwrap());
        rest = others;
    }
    assert!(rest.is_empty());
    let fixed = member.commit(masker.finish().unwrap(), key).unwrap();
    [masked::head(&fixed.message).unwrap(), vector].concat()
}

/// A round over these updates, taken to where its sum can be unmasked; the masked updates lie beside the plain ones.
fn taken(bench: &Bench, inputs: &[Input]) -> (Unmasker, Vec<Input>) {
    let keys = keys();
    let mut members: Vec<Member> = keys.iter().map(|key| member(bench, key)).collect();
    let mut aggregator = Aggregator::new(masked::session(&header(bench)).unwrap()).unwrap();
    let all: BTreeSet<u32> = (0..3).collect();
    let mut sent_in = Vec::new();
    while aggregator.at() != Step::End {
        let step = aggregator.at();
        let past = Past { epoch: 1, consented: (step == Step::Reveal).then_some((1, 1)), ..Past::default() };
        for ((party, key), input) in (0u32..).zip(&keys).zip(inputs) {
            let member = &mut members[party as usize];
            let turn = if step == Step::Keys {
                Turn::Send(member.advertise(key).unwrap())
            } else {
                member.on(&aggregator.relay(party).unwrap(), &past, key).unwrap()
            };
            let site = key.public().site_id();
            match turn {
                Turn::Send(fixed) => {
                    aggregator.accept(site, Sent::from_bytes(&fixed.message).unwrap(), None).unwrap();
                }
                Turn::Mask => {
                    let path = input.path.with_extension("masked");
                    std::fs::write(&path, mask(member, key, &bench.levels(input))).unwrap();
                    let (sent, vector) = content::head(&path).unwrap();
                    aggregator.accept(site, sent, Some(vector)).unwrap();
                    sent_in.push(Input { site, path });
                }
            }
        }
        aggregator.close(&all).unwrap();
    }
    (aggregator.unmasker().unwrap(), sent_in)
}

fn updates(bench: &Bench) -> Vec<Input> {
    let value = |site: u8| move |i: usize| ((i * 7 + usize::from(site)) % 200) as f32 / 200.0 - 0.5;
    (1..=3u8).map(|site| bench.input(site, 10 * u64::from(site), value(site))).collect()
}

#[tokio::test]
async fn masks_change_nothing_of_the_model_and_only_the_sum_of_the_row_weights_is_known() {
    for bits in [32, 16] {
        // Blocks of a masked vector begin anew with each tensor, those of a sum do not.
        let fresh = Bench::new(70_000);
        let bench = Bench { quantise: Quantise { bits, ..fresh.quantise.clone() }, ..fresh };
        let global = bench.model(|i| (i % 10) as f32).await;
        let inputs = updates(&bench);
        let (unmasker, masked) = taken(&bench, &inputs);
        let training = bench.training(global, Strategy::FedAvg {});
        let plain = train(&bench.models, &training, &inputs).unwrap();
        let secret = train_masked(&bench.models, &training, &masked, unmasker).unwrap();
        assert_eq!(secret.model.digest(), plain.model.digest(), "{bits} bits");
        assert_eq!(plain.weights, [10, 20, 30]);
        assert!(secret.weights.is_empty());
    }
}

#[tokio::test]
async fn a_strategy_that_looks_at_each_update_makes_nothing_of_masked_ones() {
    let bench = Bench::new(5);
    let global = bench.model(|i| i as f32).await;
    let (unmasker, masked) = taken(&bench, &updates(&bench));
    let training = bench.training(global, Strategy::Median {});
    assert!(train_masked(&bench.models, &training, &masked, unmasker).is_err());
}

#[test]
fn a_masked_update_is_the_vector_that_its_head_names() {
    let bench = Bench::new(40_000);
    let (_, masked) = taken(&bench, &updates(&bench));
    let wanted = Content::Masked(masked::session(&header(&bench)).unwrap().layout().unwrap(), UploadKind::Update);
    let whole = std::fs::read(&masked[0].path).unwrap();
    let length = whole.len() as u64;
    assert_eq!(wanted.bytes(), length);
    assert!(wanted.check_announced(UploadKind::Update, length).is_ok());
    assert!(wanted.check_announced(UploadKind::Update, length - 1).is_err());
    let path = bench.folder.path().join("checked");
    let check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        content::check(&wanted, &path).unwrap()
    };
    assert_eq!(check(&whole), Ok(()));
    let head = masked::HEAD_BYTES;
    for at in [0, 4, head - 1, head, head + 1, whole.len() / 2, whole.len() - 1] {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        assert!(check(&altered).is_err(), "{at}");
    }
    assert!(check(&[&whole[..], &[0]].concat()).is_err());
}
