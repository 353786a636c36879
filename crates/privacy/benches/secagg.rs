//! Masks expanded and taken off a sum (`specs/performance.md`: 1 G coordinates a second and core), in a session of ten, and
//! secrets shared among a hundred.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hospes_privacy::secagg::kernels::{join, split};
use hospes_privacy::secagg::{
    Aggregator, Demands, Member, Past, Prg, Relay, Seed, Sent, Setup, Step, Thresholds, Tree, Turn,
};
use hospes_protocol::approval::Trust;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::plan::Quantise;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::version::Version;
use zeroize::Zeroizing;

/// Members, and so masks on the sum when nobody is missing.
const MEMBERS: u8 = 10;
/// Coordinates of a vector: 32 blocks.
const ENTRIES: u64 = 1 << 20;

fn setup(keys: &[SecretKey]) -> Canonical<Setup> {
    let Thresholds { corrupt: c, quorum: t, k_min } = Thresholds::new(u32::from(MEMBERS), None, 0, 3);
    let entry = |key: &SecretKey| RosterEntry { site: key.public().site_id(), identity: key.public() };
    let header = RoundHeader {
        protocol: Version::V1,
        federation: SiteId::of_key(&[0; 32]),
        study: StudyId::new(Timestamp::from_millis(1), [1; 10]),
        job: JobId::new(Timestamp::from_millis(2), [2; 10]),
        task: "train".into(),
        epoch: 1,
        round: 1,
        attempt: 1,
        model: None,
        plan: Digest::of(b"plan"),
        roster: keys.iter().map(entry).collect(),
        mode: Mode::SecureAggregation { c, t, k_min },
        tensors: vec![TensorShape { name: "0.weight".into(), shape: vec![ENTRIES] }],
        quantise: Quantise { clip: 4.0, bits: 16, n_max: 100 },
        deadline: Timestamp::from_millis(1_000),
    };
    let setup = Setup::new(&header, &[header.quantise.clip], Prg::Aes128Ctr, None).expect("a good header");
    Canonical::new(setup).expect("a document")
}

fn members(setup: &Canonical<Setup>, keys: &[SecretKey]) -> Vec<Member> {
    let peers: BTreeMap<_, _> = keys.iter().map(|key| (key.public(), Trust::VerifiedHere)).collect();
    let join = |key: &SecretKey| {
        let demands = Demands {
            identity: key.public(),
            peers: peers.clone(),
            min_parties: 3,
            min_trusted_peers: 2,
            corrupt: None,
            model: None,
            noise: None,
        };
        let seed = Seed::new(Zeroizing::new(*key.public().as_bytes()));
        Member::new(setup.clone(), demands, &past(None), &seed).expect("a good round")
    };
    keys.iter().map(join).collect()
}

/// What a member has on record; `consented` once it signed the set of inputs.
fn past(consented: Option<(u32, u32)>) -> Past {
    Past { epoch: 1, consented, ..Past::default() }
}

/// A session at its end; every member's vector is of zeros, so that the sum of the masked ones is the sum of all masks.
fn finished(keys: &[SecretKey]) -> Aggregator {
    let setup = setup(keys);
    let mut members = members(&setup, keys);
    let mut aggregator = Aggregator::new(setup).expect("a good setup");
    let everybody: BTreeSet<u32> = (0..u32::from(MEMBERS)).collect();
    while aggregator.at() != Step::End {
        for ((party, member), key) in (0u32..).zip(&mut members).zip(keys) {
            let mut received = None;
            let relay: Option<Relay> = aggregator.relay(party).ok();
            let turn = match &relay {
                None => Turn::Send(member.advertise(key).expect("keys")),
                Some(relay) => {
                    let consented = (aggregator.at() == Step::Reveal).then_some((1, 1));
                    member.on(relay, &past(consented), key).expect("an answer")
                }
            };
            let fixed = match turn {
                Turn::Send(fixed) => fixed,
                Turn::Mask => {
                    let (mut masker, mut tree) = (member.masker().expect("masks"), Tree::default());
                    while let Some(block) = masker.expected() {
                        tree.push(&masker.block(&mut vec![0; block.entries]).expect("a block"));
                    }
                    received = Some(tree.finish());
                    member.commit(tree.finish(), key).expect("an input")
                }
            };
            let sent = Sent::from_bytes(&fixed.message).expect("a message");
            aggregator.accept(key.public().site_id(), sent, received).expect("accepted");
        }
        aggregator.close(&everybody).expect("enough");
    }
    aggregator
}

fn secagg(criterion: &mut Criterion) {
    let keys: Vec<SecretKey> = (0..MEMBERS).map(|member| SecretKey::from_seed(&[member; 32])).collect();
    let aggregator = finished(&keys);
    let mut sums = vec![0u64; hospes_privacy::secagg::BLOCK_ENTRIES];
    let mut group = criterion.benchmark_group("secagg");
    group.throughput(Throughput::Elements(u64::from(MEMBERS) * ENTRIES));
    group.sample_size(20);
    group.bench_function("unmask", |bench| {
        bench.iter(|| {
            let mut unmasker = aggregator.unmasker().expect("everything is revealed");
            while let Some(block) = unmasker.expected() {
                unmasker.block(black_box(&mut sums[..block.entries])).expect("a block");
            }
        });
    });
    group.finish();
}

/// One secret among a hundred sites, of which a third less one may collude.
fn shamir(criterion: &mut Criterion) {
    const PARTIES: u32 = 100;
    const THRESHOLD: u8 = 67;
    let coefficients: Vec<[u8; 64]> = (1..=THRESHOLD).map(|byte| [byte; 64]).collect();
    let shares = split(&coefficients, PARTIES);
    let places: Vec<u32> = (PARTIES - u32::from(THRESHOLD) + 1..=PARTIES).collect();
    let last = &shares[shares.len() - usize::from(THRESHOLD)..];
    let mut group = criterion.benchmark_group("shamir");
    group.bench_function("split_100_67", |bench| bench.iter(|| split(black_box(&coefficients), PARTIES)));
    group.bench_function("combine_100_67", |bench| bench.iter(|| join(black_box(&places), black_box(last))));
    group.finish();
}

criterion_group!(benches, secagg, shamir);
criterion_main!(benches);
