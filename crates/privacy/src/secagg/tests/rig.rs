//! A session among members in one process.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::approval::Trust;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::plan::Quantise;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::version::Version;
use zeroize::Zeroizing;

use crate::secagg::{
    Aggregator, Block, Demands, Fixed, Masked, Member, Noise, Past, Prg, Refusal, Relay, Seed, Sent, Setup, Step,
    Thresholds, Tree, Turn,
};

/// Every site's round that is not another one.
pub(super) const ROUND: u32 = 3;

pub(super) fn key(party: u32) -> SecretKey {
    let mut seed = [7u8; 32];
    seed[..4].copy_from_slice(&party.to_le_bytes());
    SecretKey::from_seed(&seed)
}

pub(super) fn seed(party: u32) -> Seed {
    let mut random = [9u8; 32];
    random[..4].copy_from_slice(&party.to_le_bytes());
    Seed::new(Zeroizing::new(random))
}

pub(super) fn site(party: u32) -> SiteId {
    key(party).public().site_id()
}

/// The header of a round of `n` with this bound on colluding sites.
pub(super) fn header(n: u32, c: u32, entries: u64) -> RoundHeader {
    let Thresholds { quorum: t, k_min, .. } = Thresholds::new(n, Some(c), 0, 3);
    let identity = |party| key(party).public();
    RoundHeader {
        protocol: Version::V1,
        federation: SiteId::of_key(&[0; 32]),
        study: StudyId::new(Timestamp::from_millis(1), [1; 10]),
        job: JobId::new(Timestamp::from_millis(2), [2; 10]),
        task: "train".into(),
        epoch: 1,
        round: ROUND,
        attempt: 1,
        model: Some(Digest::of(b"model")),
        plan: Digest::of(b"plan"),
        roster: (0..n).map(|p| RosterEntry { site: identity(p).site_id(), identity: identity(p) }).collect(),
        mode: Mode::SecureAggregation { c, t, k_min },
        tensors: vec![
            TensorShape { name: "0.weight".into(), shape: vec![entries] },
            TensorShape { name: "0.bias".into(), shape: vec![3] },
        ],
        quantise: Quantise { clip: 4.0, bits: 16, n_max: 100 },
        deadline: Timestamp::from_millis(1_000),
    }
}

pub(super) fn setup(n: u32, c: u32, prg: Prg, entries: u64) -> Canonical<Setup> {
    built(&header(n, c, entries), prg, None)
}

/// The setup of a header with one clip for all tensors.
pub(super) fn built(header: &RoundHeader, prg: Prg, noise: Option<Noise>) -> Canonical<Setup> {
    let clips = vec![header.quantise.clip; header.tensors.len()];
    Canonical::new(Setup::new(header, &clips, prg, noise).unwrap()).unwrap()
}

/// The same setup with something changed in it.
pub(super) fn changed(setup: &Canonical<Setup>, change: impl FnOnce(&mut Setup)) -> Canonical<Setup> {
    let mut inner = setup.clone().into_inner();
    change(&mut inner);
    Canonical::new(inner).unwrap()
}

/// What a site demands that verified all others and whose policy is that of the round.
pub(super) fn demands(setup: &Setup, party: u32) -> Demands {
    let peers = setup.roster.iter().map(|entry| (entry.identity, Trust::VerifiedHere)).collect();
    Demands {
        identity: key(party).public(),
        peers,
        min_parties: 3,
        min_trusted_peers: 2,
        corrupt: Some(setup.c),
        model: setup.model,
        noise: setup.noise,
    }
}

pub(super) fn past() -> Past {
    Past { epoch: 1, last: Some((ROUND - 1, 1)), consented: Some((ROUND - 1, 1)), answered: None }
}

/// What a site has on record when a session of this attempt has these records, and no other one is open.
pub(super) fn on_record(attempt: u32, records: &[Fixed]) -> Past {
    let consented = records.iter().any(|fixed| fixed.step == Step::Consent).then_some((ROUND, attempt));
    Past { last: Some((ROUND, attempt)), consented: consented.or(past().consented), ..past() }
}

/// What a member answers when no other session is open.
pub(super) fn asked(member: &mut Member, relay: &Relay, party: u32) -> Result<Turn, Refusal> {
    let past = on_record(1, member.fixed());
    member.on(relay, &past, &key(party))
}

/// The member as it is after a restart.
pub(super) fn restored(setup: &Canonical<Setup>, party: u32, records: &[Fixed]) -> Result<Member, Refusal> {
    let past = on_record(1, records);
    Member::restore(setup.clone(), demands(setup, party), &past, &seed(party), &key(party), records)
}

pub(super) fn member(setup: &Canonical<Setup>, party: u32) -> Member {
    Member::new(setup.clone(), demands(setup, party), &past(), &seed(party)).unwrap()
}

/// Levels of one party's block: numbers without a pattern, the largest and the smallest among them.
pub(super) fn levels(party: u32, block: &Block) -> Vec<u64> {
    let level = |entry: u64| match (u64::from(party) + entry) % 7 {
        0 => 0,
        1 => block.most,
        _ => (u64::from(party) * 0x9e37_79b9 + entry * 0x85eb_ca6b + block.part as u64) % (block.most + 1),
    };
    (block.first..).take(block.entries).map(level).collect()
}

/// Noise of one party's entry: of twelve uniform numbers, as a fixed function of its place.
pub(super) fn noise(party: u32, block: &Block, entry: u64, deviation: f64) -> i64 {
    if block.part == 0 {
        return 0;
    }
    let place = format!("{party} {} {entry}", block.part);
    let words = (0..2u8).flat_map(|half| *Digest::of(format!("{place} {half}").as_bytes()).as_bytes());
    let words: Vec<u8> = words.take(48).collect();
    let uniform =
        words.as_chunks::<4>().0.iter().map(|word| f64::from(u32::from_le_bytes(*word)) / f64::from(u32::MAX));
    #[allow(clippy::cast_possible_truncation)]
    let noise = (deviation * (uniform.sum::<f64>() - 6.0)).round() as i64;
    noise
}

/// Masks a member's vector, with noise where the round has it, and commits it.
pub(super) fn commit(member: &mut Member, party: u32) -> (Fixed, Vec<Vec<u8>>) {
    let (mut masker, deviation) = (member.masker().unwrap(), member.noise_deviation().unwrap());
    let mut blocks = Vec::new();
    while let Some(block) = masker.expected() {
        let mut levels = levels(party, &block);
        for (entry, level) in (block.first..).zip(&mut levels) {
            *level = level.wrapping_add_signed(noise(party, &block, entry, deviation));
        }
        blocks.push(masker.block(&mut levels).unwrap());
    }
    let fixed = member.commit(masker.finish().unwrap(), &key(party)).unwrap();
    (fixed, blocks)
}

pub(super) fn received(blocks: &[Vec<u8>]) -> Masked {
    let mut tree = Tree::default();
    blocks.iter().for_each(|block| tree.push(block));
    tree.finish()
}

/// A session with all its members.
pub(super) struct Rig {
    pub(super) setup: Canonical<Setup>,
    pub(super) members: BTreeMap<u32, Member>,
    pub(super) aggregator: Aggregator,
    pub(super) uploads: BTreeMap<u32, Vec<Vec<u8>>>,
    /// From which step on a member says nothing.
    pub(super) silent: BTreeMap<u32, Step>,
}

impl Rig {
    pub(super) fn new(setup: Canonical<Setup>, silent: BTreeMap<u32, Step>) -> Self {
        // Whoever never says anything needs not be there.
        let present = (0..setup.n).filter(|party| silent.get(party) != Some(&Step::Keys));
        let members = present.map(|party| (party, member(&setup, party))).collect();
        let aggregator = Aggregator::new(setup.clone()).unwrap();
        Self { setup, members, aggregator, uploads: BTreeMap::new(), silent }
    }

    /// What a member says in the step that the round is in.
    pub(super) fn says(&mut self, party: u32) -> Result<Sent, Refusal> {
        let member = self.members.get_mut(&party).unwrap();
        let fixed = if self.aggregator.at() == Step::Keys {
            member.advertise(&key(party))?
        } else {
            let relay = Relay::from_bytes(&self.aggregator.relay(party)?.to_bytes()?)?;
            match asked(member, &relay, party)? {
                Turn::Send(fixed) => fixed,
                Turn::Mask => {
                    let (fixed, blocks) = commit(member, party);
                    self.uploads.insert(party, blocks);
                    fixed
                }
            }
        };
        Sent::from_bytes(&fixed.message)
    }

    /// Gives a message to the aggregator, with the upload where there is one.
    pub(super) fn accept(&mut self, party: u32, sent: Sent) -> Result<u32, Refusal> {
        let upload = self.uploads.get(&party).map(|blocks| received(blocks));
        self.aggregator.accept(site(party), sent, upload)
    }

    /// Those who still speak in the step that the round is in.
    pub(super) fn speakers(&self) -> Vec<u32> {
        let at = self.aggregator.at();
        let speaks = |party: &u32| self.silent.get(party).is_none_or(|from| *from > at);
        self.members.keys().copied().filter(speaks).collect()
    }

    /// Everybody who is not silent speaks, then the step is closed.
    pub(super) fn step(&mut self) -> Result<(), Refusal> {
        for party in self.speakers() {
            let sent = self.says(party)?;
            assert_eq!(self.accept(party, sent)?, party);
        }
        let everybody: BTreeSet<u32> = (0..self.setup.n).collect();
        self.aggregator.close(&everybody)
    }

    /// Goes on until the round is in this step.
    pub(super) fn until(mut self, step: Step) -> Self {
        while self.aggregator.at() < step {
            self.step().unwrap();
        }
        self
    }

    /// The unmasked sums, block by block.
    pub(super) fn sums(&self) -> Result<Vec<Vec<u64>>, Refusal> {
        let mut unmasker = self.aggregator.unmasker()?;
        let mut all = Vec::new();
        while let Some(block) = unmasker.expected() {
            let mut sums = vec![0; block.entries];
            for party in self.aggregator.included() {
                block.add(&mut sums, &self.uploads[party][all.len()]).unwrap();
            }
            unmasker.block(&mut sums).unwrap();
            all.push(sums);
        }
        Ok(all)
    }

    /// The sums of the levels themselves.
    pub(super) fn plain(&self) -> Vec<Vec<u64>> {
        let sum = |block: Block| {
            let mut sums = vec![0u64; block.entries];
            for party in self.aggregator.included() {
                sums.iter_mut().zip(levels(*party, &block)).for_each(|(sum, level)| *sum += level);
            }
            sums
        };
        self.aggregator.layout().blocks().map(sum).collect()
    }
}
