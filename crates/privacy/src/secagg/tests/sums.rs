//! Masked sums are the sums of what was masked, whoever is missing within the thresholds, and nothing beyond them.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::id::Digest;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::{Figure, figure, masks};
use hospes_protocol::policy::EgressKind;
use hospes_protocol::round::RoundHeader;
use proptest::prelude::*;

use super::rig::{Rig, asked, built, header, key, levels, noise, setup, site};
use crate::figures::{self, Blinds};
use crate::masked;
use crate::secagg::graph::Topology;
use crate::secagg::keys::{Secrets, pair_mask, self_mask};
use crate::secagg::mask::{MaskKey, Sign, Stream, apply};
use crate::secagg::member::sign;
use crate::secagg::shamir::{combine, lagrange};
use crate::secagg::*;

fn finished(mut rig: Rig) -> Rig {
    while rig.aggregator.at() != Step::End {
        rig.step().unwrap();
    }
    rig
}

/// A round's size, its bound on colluding sites, and who is silent from which step on, within the thresholds.
fn rounds() -> impl Strategy<Value = (u32, u32, BTreeMap<u32, Step>)> {
    (3u32..=32, any::<prop::sample::Index>()).prop_flat_map(|(n, index)| {
        let least = u32::from(n > 3);
        let most = (n.div_ceil(3) - 1).max(1);
        let c = least + u32::try_from(index.index((most - least + 1) as usize)).unwrap();
        let (before, after) = Thresholds::new(n, Some(c), 0, 3).survives(n);
        let early = prop_oneof![Just(Step::Keys), Just(Step::Shares), Just(Step::Input)];
        let late = prop_oneof![Just(Step::Consent), Just(Step::Reveal)];
        let early = prop::collection::btree_map(0..n, early, 0..=before as usize);
        let late = prop::collection::vec((0..n, late), 0..=after as usize);
        (Just(n), Just(c), early, late).prop_map(move |(n, c, mut silent, late)| {
            // Of all who were ever there, as many must speak to the end as reconstruct a secret.
            let room = after as usize - silent.len();
            for (party, step) in late.into_iter().take(room) {
                silent.entry(party).or_insert(step);
            }
            (n, c, silent)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn masked_sum_equals_plain_sum((n, c, silent) in rounds(), entries in 1u64..40, is_aes in any::<bool>()) {
        let prg = if is_aes { Prg::Aes128Ctr } else { Prg::ChaCha20 };
        let early = silent.values().filter(|step| **step <= Step::Input).count();
        let rig = finished(Rig::new(setup(n, c, prg, entries), silent));
        prop_assert_eq!(rig.aggregator.included().len(), n as usize - early);
        prop_assert_eq!(rig.sums().unwrap(), rig.plain());
    }
}

#[test]
fn a_hundred_and_twenty_eight_unmask_with_as_many_missing_as_may_be() {
    // n − t = 63 may be missing; 61 never come, one stops before its input, one after it.
    let (before, after) = Thresholds::new(128, Some(1), 0, 3).survives(128);
    assert_eq!((before, after), (63, 63));
    let mut silent: BTreeMap<u32, Step> = (0..61).map(|party| (party * 2, Step::Keys)).collect();
    silent.extend([(1, Step::Input), (127, Step::Reveal)]);
    let rig = finished(Rig::new(setup(128, 1, Prg::Aes128Ctr, 5), silent));
    assert_eq!(rig.aggregator.included().len(), 66);
    assert_eq!(rig.sums().unwrap(), rig.plain());
}

#[test]
fn a_hundred_and_forty_unmask_over_a_graph() {
    let setup = setup(140, 1, Prg::Aes128Ctr, 5);
    let Graph::Harary { neighbours, threshold, .. } = setup.graph else { panic!("a graph above {COMPLETE}") };
    assert!(neighbours < 40 && threshold > neighbours / 2, "{neighbours} {threshold}");
    let steps = [Step::Keys, Step::Positions, Step::Shares, Step::Input, Step::Consent, Step::Reveal];
    let silent = (0u32..).step_by(25).zip(steps).collect();
    let rig = finished(Rig::new(setup, silent));
    assert_eq!(rig.aggregator.included().len(), 136);
    assert_eq!(rig.sums().unwrap(), rig.plain());
}

/// Secrets and keys of a cohort. What follows from them is the mathematics of a round, without signatures and boxes, which
/// would take most of the time.
struct Cohort {
    sid: Digest,
    threshold: u32,
    topology: Topology,
    all: Vec<Secrets>,
    keys: Vec<Advertise>,
    /// Of each pair once: that both make the same is seen wherever whole sessions are played.
    masks: BTreeMap<(u32, u32), MaskKey>,
}

impl Cohort {
    fn new(n: u32, threshold: u32, topology: impl FnOnce(&Digest, &BTreeMap<u32, Point>) -> Topology) -> Self {
        let sid = Digest::of(format!("a cohort of {n}").as_bytes());
        let all: Vec<Secrets> = (0..n).map(|p| Secrets::derive(&super::rig::seed(p), &sid, threshold)).collect();
        let keys: Vec<Advertise> = (0u32..).zip(&all).map(|(p, secrets)| secrets.advertise(sid, p, true)).collect();
        let reveals = (0u32..).zip(&all).map(|(party, secrets)| (party, secrets.reveal())).collect();
        let topology = topology(&sid, &reveals);
        let mut masks = BTreeMap::new();
        for (party, secrets) in (0u32..).zip(&all) {
            for peer in topology.neighbours(party).into_iter().filter(|peer| *peer > party) {
                let mask = secrets.pair_mask(&sid, &sid, (party, peer), &keys[peer as usize].mask_key).unwrap();
                masks.insert((party, peer), mask);
            }
        }
        Self { sid, threshold, topology, all, keys, masks }
    }

    /// The sum of the masked vectors after all masks were taken off, and that of the levels; those in `before` have dealt and
    /// sent no input, those in `after` reveal nothing. Or of whose secret too few shares are left.
    fn sums(&self, before: &BTreeSet<u32>, after: &BTreeSet<u32>) -> Result<(Vec<u8>, Vec<u8>), u32> {
        const PRG: Prg = Prg::Aes128Ctr;
        let n = u32::try_from(self.all.len()).unwrap();
        let block = Block { part: 0, first: 0, entries: 3, most: 65_535, width: width(n, 65_535, 0.0).unwrap() };
        let (mut masked, mut plain) = (vec![0; 3], vec![0u64; 3]);
        for (party, secrets) in (0u32..).zip(&self.all).filter(|(party, _)| !before.contains(party)) {
            let mut lanes = levels(party, &block);
            plain.iter_mut().zip(&lanes).for_each(|(sum, level)| *sum += level);
            let mut streams = vec![Stream::new(PRG, &secrets.self_mask(&self.sid), Sign::Plus)];
            for peer in self.topology.neighbours(party) {
                let mask = &self.masks[&(party.min(peer), party.max(peer))];
                streams.push(Stream::new(PRG, mask, sign(party, peer)));
            }
            apply(&mut streams, &mut lanes, block.width);
            block.add(&mut masked, &block.pack(&lanes).unwrap()).unwrap();
        }
        let mut factors: BTreeMap<Vec<u32>, Vec<_>> = BTreeMap::new();
        let mut streams = Vec::new();
        for (of, secrets) in (0u32..).zip(&self.all) {
            let holders = self.topology.holders(of).into_iter().filter(|p| !before.contains(p) && !after.contains(p));
            let places: Vec<u32> = holders.take(self.threshold as usize).map(|p| p + 1).collect();
            if places.len() < self.threshold as usize {
                return Err(of);
            }
            let is_gone = before.contains(&of);
            let polynomial = if is_gone { &secrets.mask_polynomial } else { &secrets.own_polynomial };
            let shares: Vec<_> = places.iter().map(|place| polynomial.share(*place)).collect();
            let factors = factors.entry(places).or_insert_with_key(|places| lagrange(places));
            let secret = combine(factors, shares.iter());
            if !is_gone {
                streams.push(Stream::new(PRG, &self_mask(&secret, &self.sid), Sign::Minus));
                continue;
            }
            for peer in self.topology.neighbours(of).into_iter().filter(|peer| !before.contains(peer)) {
                let key = &self.keys[peer as usize].mask_key;
                let mask = pair_mask(&secret, &self.sid, &self.sid, (of, peer), key).unwrap();
                streams.push(Stream::new(PRG, &mask, sign(of, peer)));
            }
        }
        apply(&mut streams, &mut masked, block.width);
        Ok((block.pack(&masked).unwrap(), block.pack(&plain).unwrap()))
    }
}

/// The size of a round over the complete graph, and who is missing before and after inputs, within the thresholds.
fn cohorts() -> impl Strategy<Value = (u32, BTreeSet<u32>, BTreeSet<u32>)> {
    (3u32..=128).prop_flat_map(|n| {
        let (before, after) = Thresholds::new(n, None, 0, 3).survives(n);
        let early = prop::collection::btree_set(0..n, 0..=before as usize);
        let late = prop::collection::vec(0..n, 0..=after as usize);
        (Just(n), early, late).prop_map(move |(n, early, late)| {
            let room = after as usize - early.len();
            let late: BTreeSet<u32> = late.into_iter().filter(|party| !early.contains(party)).take(room).collect();
            (n, early, late)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn masks_come_off_for_up_to_a_hundred_and_twenty_eight_and_not_with_one_more_missing(
        (n, before, after) in cohorts()
    ) {
        let bounds = Thresholds::new(n, None, 0, 3);
        let complete = |_: &Digest, all: &BTreeMap<u32, Point>| Topology::complete(all.keys().copied().collect());
        let cohort = Cohort::new(n, bounds.quorum, complete);
        let (masked, plain) = cohort.sums(&before, &after).unwrap();
        prop_assert_eq!(masked, plain);
        let (_, most) = bounds.survives(n);
        let beyond = most as usize + 1 - before.len() - after.len();
        let more: BTreeSet<u32> = (0..n).filter(|p| !before.contains(p) && !after.contains(p)).take(beyond).collect();
        prop_assert_eq!(cohort.sums(&before, &(&after | &more)), Err(0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn one_more_missing_than_may_be_fails_at_any_step_and_names_who(
        n in 3u32..=12, step in 0usize..5, first in any::<prop::sample::Index>()
    ) {
        let step = [Step::Keys, Step::Shares, Step::Input, Step::Consent, Step::Reveal][step];
        let bounds = Thresholds::new(n, None, 0, 3);
        let (before, after) = bounds.survives(n);
        let many = if step <= Step::Input { before + 1 } else { after + 1 };
        let first = u32::try_from(first.index(n as usize)).unwrap();
        let gone: BTreeSet<u32> = (0..many).map(|i| (first + i) % n).collect();
        let silent = gone.iter().map(|party| (*party, step)).collect();
        let mut rig = Rig::new(setup(n, bounds.corrupt, Prg::Aes128Ctr, 2), silent).until(step);
        let refusal = rig.step().unwrap_err();
        prop_assert_eq!(refusal.parties(), gone.iter().map(|party| site(*party)).collect::<Vec<_>>());
        prop_assert!(rig.sums().is_err(), "nothing is unmasked");
    }
}

#[test]
fn two_hundred_and_a_thousand_unmask_over_a_graph_whoever_is_missing() {
    for (n, sets) in [(200u32, 4u32), (1_000, 1)] {
        let most = n / 20;
        let degree = Degree::find(n, most, most, Adversary::SemiMalicious).unwrap();
        let ring = |sid: &Digest, all: &BTreeMap<u32, Point>| Topology::ring(sid, all, degree.neighbours);
        let cohort = Cohort::new(n, degree.threshold, ring);
        for set in 0..sets {
            // As many as may be, by chance: half of them before their inputs.
            let mut drawn: Vec<u32> = (0..n).collect();
            drawn.sort_by_key(|party| Digest::of(format!("{set} {party}").as_bytes()));
            let (before, after) = drawn[..most as usize].split_at(most as usize / 2);
            let sums = cohort.sums(&before.iter().copied().collect(), &after.iter().copied().collect());
            let (masked, plain) = sums.unwrap();
            assert_eq!(masked, plain, "{n} {set}");
        }
        // One holder of a secret fewer than reconstruct it: then it is not found, and nothing is unmasked.
        let holders: Vec<u32> = cohort.topology.holders(0).into_iter().collect();
        let few = holders[degree.threshold as usize - 1..].iter().copied().collect();
        assert_eq!(cohort.sums(&BTreeSet::new(), &few), Err(0));
    }
}

#[test]
fn one_more_missing_before_the_input_fails_and_names_them() {
    let setup = setup(6, 1, Prg::Aes128Ctr, 5);
    for step in [Step::Keys, Step::Shares, Step::Input] {
        let mut rig = Rig::new(setup.clone(), [(1, step), (3, step), (4, step)].into()).until(step);
        let refusal = rig.step().unwrap_err();
        let missing = vec![site(1), site(3), site(4)];
        assert_eq!(refusal, Refusal::TooFew { step, present: 3, needed: 4, missing: missing.clone() });
        assert_eq!(refusal.parties(), missing);
        assert!(refusal.to_string().contains(&site(4).to_string()), "{refusal}");
        assert!(rig.sums().is_err(), "nothing is unmasked");
    }
}

#[test]
fn one_more_missing_after_the_input_fails_and_names_them() {
    let setup = setup(6, 1, Prg::Aes128Ctr, 5);
    let missing = vec![site(0), site(2), site(5)];
    let mut rig = Rig::new(setup.clone(), [0, 2, 5].map(|party| (party, Step::Consent)).into()).until(Step::Consent);
    let refusal = rig.step().unwrap_err();
    assert_eq!(refusal, Refusal::TooFew { step: Step::Consent, present: 3, needed: 4, missing: missing.clone() });
    let mut rig = Rig::new(setup, [0, 2, 5].map(|party| (party, Step::Reveal)).into()).until(Step::Reveal);
    let refusal = rig.step().unwrap_err();
    assert_eq!(refusal, Refusal::TooFewShares { of: site(0), present: 3, needed: 4, missing });
    assert!(rig.sums().is_err(), "nothing is unmasked");
}

#[test]
fn whoever_the_round_leaves_out_is_not_in_the_sum() {
    let mut rig = Rig::new(setup(6, 1, Prg::Aes128Ctr, 5), BTreeMap::new()).until(Step::Input);
    for party in rig.speakers() {
        let sent = rig.says(party).unwrap();
        rig.accept(party, sent).unwrap();
    }
    // All six sent their inputs; two were excluded before the step was closed.
    rig.aggregator.close(&[0, 1, 3, 5].into()).unwrap();
    rig.silent = [(2, Step::Consent), (4, Step::Consent)].into();
    let rig = finished(rig);
    assert_eq!(*rig.aggregator.included(), BTreeSet::from([0, 1, 3, 5]));
    assert_eq!(rig.sums().unwrap(), rig.plain());
}

#[test]
fn sums_of_two_half_cohorts_unmask_as_the_whole() {
    let rig = finished(Rig::new(setup(6, 1, Prg::ChaCha20, 50), [(2, Step::Input)].into()));
    let mut unmasker = rig.aggregator.unmasker().unwrap();
    let mut all: Vec<Vec<u64>> = Vec::new();
    while let Some(block) = unmasker.expected() {
        // Each hub adds its own sites and passes on a packed sum.
        let hub = |parties: &[u32]| {
            let mut sums = vec![0; block.entries];
            for party in parties {
                block.add(&mut sums, &rig.uploads[party][all.len()]).unwrap();
            }
            block.pack(&sums).unwrap()
        };
        let mut sums = vec![0; block.entries];
        for half in [hub(&[0, 5]), hub(&[1, 3, 4])] {
            block.add(&mut sums, &half).unwrap();
        }
        unmasker.block(&mut sums).unwrap();
        all.push(sums);
    }
    assert_eq!(all, rig.plain());
}

#[test]
fn a_vector_of_many_blocks_and_a_weighted_mean_come_out() {
    let entries = BLOCK_ENTRIES as u64 + 17;
    let rig = finished(Rig::new(setup(4, 1, Prg::Aes128Ctr, entries), BTreeMap::new()));
    let sums = rig.sums().unwrap();
    assert_eq!(sums, rig.plain());
    assert_eq!(sums.iter().map(Vec::len).collect::<Vec<_>>(), [1, BLOCK_ENTRIES, 17, 3]);
    // 16 bits and four sites: 18 bits a coordinate, little more than half of what plain mode sends.
    let plain = crate::quantise::Quantiser::payload_bytes(header(4, 1, entries).parameters());
    assert!(rig.aggregator.layout().bytes() as f64 <= 0.57 * plain as f64);
}

#[test]
fn a_masked_vector_does_not_show_its_levels() {
    // One site's vector alone: unlike its levels, half of its bits are ones, within six standard deviations.
    let rig = Rig::new(setup(3, 1, Prg::Aes128Ctr, 20_000), BTreeMap::new()).until(Step::Consent);
    let ones: u32 = rig.uploads[&0].iter().flatten().map(|byte| byte.count_ones()).sum();
    let bits = rig.uploads[&0].iter().map(|block| block.len() * 8).sum::<usize>() as f64;
    assert!((f64::from(ones) - bits / 2.0).abs() < 3.0 * bits.sqrt(), "{ones} of {bits}");
}

/// Noise of every member from its drawing to the sum, with members missing before and after their input.
#[test]
fn noise_is_in_the_sum_and_nothing_else_is_changed_by_it() {
    let planned = Noise { sigma_steps: 2_000.0, d_max: 2 };
    let setup = built(&header(10, 3, 400), Prg::Aes128Ctr, Some(planned));
    let silent = [(1, Step::Shares), (4, Step::Input), (7, Step::Reveal)];
    let rig = finished(Rig::new(setup.clone(), silent.into()));
    // Nine mask; two may be missing of them, and three may take theirs off: four are surely left.
    let each = 2_000.0 / 2.0;
    let (sums, plain) = (rig.sums().unwrap(), rig.plain());
    let (mut squares, mut entries) = (0.0, 0u32);
    for ((block, sums), plain) in rig.aggregator.layout().blocks().zip(&sums).zip(&plain) {
        for ((entry, sum), plain) in (block.first..).zip(sums).zip(plain) {
            let drawn: i64 = rig.aggregator.included().iter().map(|party| noise(*party, &block, entry, each)).sum();
            let expected = i64::try_from(*plain).unwrap() + drawn;
            let spread = if block.part == 0 { 0.0 } else { setup.noise_steps() };
            assert_eq!(block.signed(*sum, setup.n, spread), expected, "part {} entry {entry}", block.part);
            if block.part > 0 {
                squares += (drawn as f64).powi(2);
                entries += 1;
            }
        }
    }
    // Of eight members in the sum the noise is σ·√(8/4), and not below σ without any three of them and two more. The
    // relative error of a deviation of 403 draws is 3.5 %; six times that would be 2^-29.
    let found = (squares / f64::from(entries)).sqrt();
    assert!((found / (2_000.0 * 2f64.sqrt()) - 1.0).abs() < 0.21, "{found}");
}

/// Ten mask at most, seven at least, of whom three may collude; who adds most is one of seven.
#[test]
fn the_width_has_room_for_the_noise_of_all() {
    let planned = Noise { sigma_steps: 2_000.0, d_max: 2 };
    let setup = built(&header(10, 3, 400), Prg::Aes128Ctr, Some(planned));
    assert_eq!(setup.t.max(setup.k_min), 7);
    for masking in 7..=10u32 {
        // Of so many who mask, as many may be in the sum, each with this variance.
        let variance = 2_000f64.powi(2) / f64::from(masking - 2 - 3) * f64::from(masking);
        assert!(setup.noise_steps() >= 2.0 * noise_bound(variance.sqrt(), 403) * (1.0 - 1e-12), "{masking}");
    }
}

#[test]
fn each_tensor_has_its_own_clip() {
    let header = header(4, 1, 5);
    let setup = Setup::new(&header, &[4.0, 0.25], Prg::Aes128Ctr, None).unwrap();
    assert_eq!(setup.tensors.iter().map(|tensor| tensor.clip).collect::<Vec<_>>(), [4.0, 0.25]);
    let few = Setup::new(&header, &[4.0], Prg::Aes128Ctr, None).map(drop);
    assert!(matches!(few, Err(Refusal::Unusable { field: "clips", .. })), "{few:?}");
    let wide = Setup::new(&header, &[4.0, f64::INFINITY], Prg::Aes128Ctr, None).map(drop);
    assert!(matches!(wide, Err(Refusal::Unusable { field: "quantise", .. })), "{wide:?}");
}

/// Rows and a score of one site's report; the site of number 3 holds the score back.
fn figures_of(party: u32) -> FigureSet {
    let n = vec![f64::from(10 + party)];
    let score = vec![f64::from(party) - 1.5, 1e-9 * f64::from(party + 1)];
    let mut set = FigureSet { sums: [(figure::N.to_owned(), n)].into(), withheld: BTreeMap::new() };
    match party {
        3 => drop(set.withheld.insert(figure::SCORE.to_owned(), "a rule".to_owned())),
        _ => drop(set.sums.insert(figure::SCORE.to_owned(), score)),
    }
    set
}

/// The levels of a report, and what its member makes of them.
fn send(rig: &mut Rig, party: u32, announced: &[Figure]) {
    let relay = Relay::from_bytes(&rig.aggregator.relay(party).unwrap().to_bytes().unwrap()).unwrap();
    let member = rig.members.get_mut(&party).unwrap();
    assert_eq!(asked(member, &relay, party), Ok(Turn::Mask));
    let bytes = figures::levels(announced, &figures_of(party)).unwrap();
    let (mut masker, mut blinds, mut blocks) = (member.masker().unwrap(), Blinds::default(), Vec::new());
    let mut rest = bytes.as_slice();
    while let Some(block) = masker.expected() {
        let (mine, others) = rest.split_at(masked::level_bytes(&block));
        blocks.push(blinds.mask(&mut masker, &block, &mut masked::levels(&block, mine)).unwrap());
        rest = others;
    }
    assert!(rest.is_empty());
    let fixed = member.commit(masker.finish().unwrap(), &key(party)).unwrap();
    rig.uploads.insert(party, blocks);
    rig.accept(party, Sent::from_bytes(&fixed.message).unwrap()).unwrap();
}

#[test]
fn figures_come_out_as_their_sums_and_of_what_one_site_holds_back_nothing_does() {
    let of = |name: &'static str, values| Figure { name: name.into(), values, kind: EgressKind::Metrics };
    let announced = [of(figure::N, 1), of(figure::SCORE, 2)];
    let header = RoundHeader { tensors: masks::tensors(&announced), quantise: masks::quantise(), ..header(5, 1, 1) };
    let together = |silent: BTreeMap<u32, Step>| {
        let mut rig = Rig::new(masked::session(&header).unwrap(), silent).until(Step::Input);
        rig.speakers().into_iter().for_each(|party| send(&mut rig, party, &announced));
        rig.aggregator.close(&(0..5).collect()).unwrap();
        finished(rig).sums().unwrap()
    };
    // Without the site that holds back: exact, but for one rounding.
    let blocks = together([(3, Step::Keys)].into());
    assert_eq!(blocks[0], [4], "each site weighs 1");
    let sum = figures::report(&announced, 4, &blocks[1..].concat()).unwrap();
    assert_eq!((sum.sums[figure::N].as_slice(), sum.withheld.len()), ([47.0].as_slice(), 0));
    let score = &sum.sums[figure::SCORE];
    assert!(score[0] == 1.0 && (score[1] - 1.1e-8).abs() < 1e-23, "{score:?}");
    // With it the score's coordinates are its own random numbers, and those of the others do not show in them.
    let blinded = together(BTreeMap::new());
    let sum = figures::report(&announced, 5, &blinded[1..].concat()).unwrap();
    assert_eq!((sum.sums[figure::N].as_slice(), sum.sums.len()), ([60.0].as_slice(), 1));
    assert!(sum.withheld[figure::SCORE].contains("of 1 of 5 sites"), "{sum:?}");
    assert!(blinded[3].iter().zip(&blocks[3]).all(|(random, others)| random != others));
    assert!(blinded[3].iter().any(|sum| sum >> 32 > 3), "no sum of the four others reaches so far: {:?}", blinded[3]);
}
