//! Whole rounds with secure aggregation of one million parameters on one core: every member and the aggregator are the real
//! state machines, and everything between them goes through bytes. No network, no files, no training.
//!
//! Prints a line `measured NAME VALUE` for each figure; `cargo xtask bench` sets them beside the targets.

#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hospes_privacy::masked;
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

/// Parameters of the model.
const PARAMETERS: u64 = 1_000_000;
/// Sites, and how many of them may collude where that is not a third: above 128 the graph is found for a twentieth.
const SIZES: [(u32, Option<u32>); 3] = [(10, None), (100, None), (1_000, Some(50))];

/// What one round costs.
#[derive(Default)]
struct Cost {
    /// Time of all sites together.
    sites: Duration,
    coordinator: Duration,
    /// Bytes that one site sends and hears, on average.
    up: u64,
    down: u64,
    /// Bytes of one masked update.
    update: u64,
}

fn main() {
    // Cargo passes `--bench`; a filter would be the only other argument.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let figures = ["cpu", "site", "coordinator", "up", "down"];
    for (n, colluding) in SIZES {
        let names: Vec<String> = figures.iter().map(|figure| format!("secagg_{figure}_{n}")).collect();
        let ratio = (n == 100).then_some("secagg_upload_ratio");
        if !names.iter().map(String::as_str).chain(ratio).any(|name| name.contains(&filter)) {
            continue;
        }
        let cost = round(n, colluding);
        let each = f64::from(n);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let values = [
            milliseconds(cost.sites + cost.coordinator),
            milliseconds(cost.sites) / each,
            milliseconds(cost.coordinator),
            cost.up as f64 / 1e3,
            cost.down as f64 / 1e3,
        ];
        for (name, value) in names.iter().zip(values) {
            println!("measured {name} {value:.3}");
        }
        if let Some(name) = ratio {
            println!("measured {name} {:.4}", cost.update as f64 / (4 * PARAMETERS) as f64);
        }
    }
}

fn key(party: u32) -> SecretKey {
    let mut seed = [7u8; 32];
    seed[..4].copy_from_slice(&party.to_le_bytes());
    SecretKey::from_seed(&seed)
}

fn setup(keys: &[SecretKey], colluding: Option<u32>) -> Canonical<Setup> {
    let sites = u32::try_from(keys.len()).expect("few sites");
    let Thresholds { corrupt: c, quorum: t, k_min } = Thresholds::new(sites, colluding, 0, 3);
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
        tensors: vec![TensorShape { name: "0.weight".into(), shape: vec![PARAMETERS] }],
        quantise: Quantise { clip: 4.0, bits: 16, n_max: 1_000 },
        deadline: Timestamp::from_millis(1_000),
    };
    let setup = Setup::new(&header, &[header.quantise.clip], Prg::Aes128Ctr, None).expect("a good header");
    Canonical::new(setup).expect("a document")
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    *total += start.elapsed();
    done
}

/// A member's answer, and the blocks of its masked update where that is what it owes.
fn answer(member: &mut Member, relay: Option<&[u8]>, past: &Past, key: &SecretKey) -> (Vec<u8>, Vec<Vec<u8>>) {
    let turn = match relay {
        None => Turn::Send(member.advertise(key).expect("keys")),
        Some(bytes) => member.on(&Relay::from_bytes(bytes).expect("a relay"), past, key).expect("an answer"),
    };
    match turn {
        Turn::Send(fixed) => (fixed.message, Vec::new()),
        Turn::Mask => {
            let (mut masker, mut blocks) = (member.masker().expect("masks"), Vec::new());
            while let Some(block) = masker.expected() {
                blocks.push(masker.block(&mut vec![0; block.entries]).expect("a block"));
            }
            let fixed = member.commit(masker.finish().expect("all blocks"), key).expect("an input");
            (fixed.message, blocks)
        }
    }
}

fn round(n: u32, colluding: Option<u32>) -> Cost {
    let keys: Vec<SecretKey> = (0..n).map(key).collect();
    let setup = setup(&keys, colluding);
    let layout = setup.layout().expect("a layout");
    let mut cost = Cost { update: masked::file_bytes(&layout), ..Cost::default() };
    let peers: BTreeMap<_, _> = keys.iter().map(|key| (key.public(), Trust::VerifiedHere)).collect();
    let past = |consented| Past { epoch: 1, consented, ..Past::default() };
    let mut members: Vec<Member> = Vec::new();
    for key in &keys {
        let demands = Demands {
            identity: key.public(),
            peers: peers.clone(),
            min_parties: 3,
            min_trusted_peers: 2,
            corrupt: colluding,
            model: None,
            noise: None,
        };
        let seed = Seed::new(Zeroizing::new(*key.public().as_bytes()));
        let join = || Member::new(setup.clone(), demands, &past(None), &seed).expect("a good round");
        members.push(timed(&mut cost.sites, join));
    }
    let mut aggregator = Aggregator::new(setup).expect("a good setup");
    let everybody: BTreeSet<u32> = (0..n).collect();
    let blocks: Vec<_> = layout.blocks().collect();
    let mut sums: Vec<Vec<u64>> = blocks.iter().map(|block| vec![0; block.entries]).collect();
    let (mut up, mut down) = (0, 0);
    while aggregator.at() != Step::End {
        let now = past((aggregator.at() == Step::Reveal).then_some((1, 1)));
        for ((party, member), key) in (0u32..).zip(&mut members).zip(&keys) {
            let relay = timed(&mut cost.coordinator, || {
                aggregator.relay(party).ok().map(|relay| relay.to_bytes().expect("bytes"))
            });
            down += relay.as_ref().map_or(0, Vec::len) as u64;
            let (message, update) = timed(&mut cost.sites, || answer(member, relay.as_deref(), &now, key));
            up += message.len() as u64 + update.iter().map(Vec::len).sum::<usize>() as u64;
            timed(&mut cost.coordinator, || {
                let mut tree = Tree::default();
                for ((block, bytes), sums) in blocks.iter().zip(&update).zip(&mut sums) {
                    tree.push(bytes);
                    block.add(sums, bytes).expect("a block");
                }
                let received = (!update.is_empty()).then(|| tree.finish());
                let sent = Sent::from_bytes(&message).expect("a message");
                aggregator.accept(key.public().site_id(), sent, received).expect("accepted");
            });
        }
        timed(&mut cost.coordinator, || aggregator.close(&everybody).expect("enough"));
    }
    timed(&mut cost.coordinator, || {
        let mut unmasker = aggregator.unmasker().expect("everything is revealed");
        for sums in &mut sums {
            unmasker.block(sums).expect("a block");
        }
    });
    assert!(sums.iter().flatten().all(|sum| *sum == 0), "the sum of zeros is another number");
    (cost.up, cost.down) = (up / u64::from(n), down / u64::from(n));
    cost
}
