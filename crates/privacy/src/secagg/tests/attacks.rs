//! Each attack of specs/secure-aggregation.md that a member or a coordinator can try with messages fails. Those about
//! crashes, attempts and cohorts are in `restarts`; an invented requester is refused by the approval, before there is a
//! round.

use std::collections::BTreeMap;

use hospes_protocol::approval::Trust;
use hospes_protocol::canon::{Canonical, Document};
use hospes_protocol::id::{Digest, JobId, StudyId, Timestamp};
use hospes_protocol::sign::Signed;

use super::rig::{Rig, asked, built, changed, demands, header, key, member, past, received, seed, setup, site};
use crate::PrivacyError;
use crate::secagg::keys::Secrets;
use crate::secagg::mask::{Sign, Stream, apply};
use crate::secagg::shamir::{combine, lagrange};
use crate::secagg::*;

fn six() -> Canonical<Setup> {
    setup(6, 1, Prg::Aes128Ctr, 5)
}

fn rig(step: Step) -> Rig {
    Rig::new(six(), BTreeMap::new()).until(step)
}

/// The same document with something changed in it, signed anew by its sender.
fn resigned<D: Document + Clone>(signed: &Signed<D>, by: u32, change: impl FnOnce(&mut D)) -> Signed<D> {
    let mut document = signed.document.clone().into_inner();
    change(&mut document);
    Signed::new(document, &key(by)).unwrap()
}

/// The same document with something changed in it under the signature that it had.
fn forged<D: Document + Clone>(signed: &Signed<D>, change: impl FnOnce(&mut D)) -> Signed<D> {
    let mut document = signed.document.clone().into_inner();
    change(&mut document);
    Signed { document: Canonical::new(document).unwrap(), signatures: signed.signatures.clone() }
}

/// What a member does with a relay that was changed on its way.
fn relayed(rig: &mut Rig, to: u32, change: impl FnOnce(&mut Relay)) -> Result<Turn, Refusal> {
    let mut relay = rig.aggregator.relay(to).unwrap();
    change(&mut relay);
    asked(rig.members.get_mut(&to).unwrap(), &relay, to)
}

/// Attack: 7 of 10 sites were enrolled by the coordinator, and the site's trusted peers are there.
#[test]
fn seven_of_ten_invented_sites_do_not_reach_a_quorum() {
    let wanted = |setup: &Setup| {
        let mut demands = demands(setup, 0);
        demands.corrupt = None;
        for invented in 3..10 {
            demands.peers.insert(key(invented).public(), Trust::AssertedOnly);
        }
        demands
    };
    // A header that counts on three corrupt sites is refused, although two trusted peers are there.
    let weak = setup(10, 3, Prg::Aes128Ctr, 5);
    let refusal = Member::new(weak.clone(), wanted(&weak), &past(), &seed(0)).map(drop).unwrap_err();
    assert_eq!(refusal, Refusal::Terms { field: "c", found: 3, least: 7 });
    // Under one that counts on seven, the seven and one honest site are no quorum, and hold too few shares.
    let strong = setup(10, 7, Prg::Aes128Ctr, 5);
    assert_eq!((strong.t, strong.k_min), (9, 9));
    let mut rig = Rig::new(strong.clone(), BTreeMap::new());
    rig.members.insert(0, Member::new(strong.clone(), wanted(&strong), &past(), &seed(0)).unwrap());
    let mut rig = rig.until(Step::Consent);
    let alone: Vec<u32> = [0].into_iter().chain(3..10).collect();
    let missing = vec![site(1), site(2)];
    let refusal = Refusal::TooFew { step: Step::Input, present: 8, needed: 9, missing };
    assert_eq!(relayed(&mut rig, 0, |relay| *relay = Relay::Inputs(alone)), Err(refusal));
    let secrets = Secrets::derive(&seed(0), &strong.digest(), strong.t);
    let places: Vec<u32> = (3..10).map(|party| party + 1).collect();
    let shares: Vec<_> = places.iter().map(|place| secrets.own_polynomial.share(*place)).collect();
    let guess = Point::of(&curve25519_dalek::RistrettoPoint::mul_base(&combine(&lagrange(&places), shares.iter())));
    assert_ne!(guess, secrets.own_polynomial.commit()[0]);
}

#[test]
fn peers_that_are_not_approved_or_too_few_that_are_known_are_refused() {
    let setup = six();
    let join = |change: &dyn Fn(&mut Demands)| {
        let mut demands = demands(&setup, 2);
        change(&mut demands);
        Member::new(setup.clone(), demands, &past(), &seed(2)).map(drop)
    };
    let stranger = join(&|demands| demands.peers.retain(|peer, _| *peer != key(4).public()));
    assert_eq!(stranger, Err(Refusal::NotApproved(site(4))));
    let unknown = |demands: &mut Demands| {
        demands.peers.extend((0..5).map(|party| (key(party).public(), Trust::AssertedOnly)));
    };
    assert!(matches!(join(&unknown), Err(Refusal::Terms { field: "c", .. })));
    assert_eq!(join(&|demands| demands.min_trusted_peers = 6), Err(Refusal::Trusted { found: 5, least: 6 }));
    assert_eq!(join(&|demands| demands.identity = key(9).public()), Err(Refusal::NotMember));
    assert_eq!(join(&|demands| demands.min_parties = 5), Err(Refusal::Terms { field: "k_min", found: 3, least: 5 }));
    // A member that trusts few counts them in the sum itself, too.
    let mut rig = Rig::new(setup.clone(), BTreeMap::new());
    let mut few = demands(&setup, 2);
    few.peers.insert(key(5).public(), Trust::AssertedOnly);
    few.min_trusted_peers = 4;
    rig.members.insert(2, Member::new(setup.clone(), few, &past(), &seed(2)).unwrap());
    let refusal = relayed(&mut rig.until(Step::Consent), 2, |relay| *relay = Relay::Inputs(vec![1, 2, 3, 4, 5]));
    assert_eq!(refusal, Err(Refusal::Trusted { found: 3, least: 4 }));
}

/// Attack: different models for different sites.
#[test]
fn sites_with_different_models_are_in_different_sessions() {
    let other = changed(&six(), |setup| setup.model = Some(Digest::of(b"another model")));
    // Told of one model and given another.
    let fooled = Member::new(other.clone(), demands(&six(), 2), &past(), &seed(2)).map(drop);
    assert_eq!(fooled, Err(Refusal::Model));
    // Told of and given another: then nothing that it says fits the others.
    let sent = member(&other, 2).advertise(&key(2)).unwrap();
    let Sent::Keys(keys) = Sent::from_bytes(&sent.message).unwrap() else { panic!("keys") };
    let mut rig = rig(Step::Shares);
    let refusal = relayed(&mut rig, 1, |relay| {
        let Relay::Keys(all) = relay else { panic!("keys") };
        all[2] = keys;
    });
    assert_eq!(refusal, Err(Refusal::OtherRound(site(2))));
}

/// Attack: both shares of one peer.
#[test]
fn nobody_gives_both_shares_of_one_peer() {
    let mut rig = Rig::new(six(), [(4, Step::Input)].into()).until(Step::Reveal);
    for party in [0, 1, 2, 3, 5] {
        let sent = rig.says(party).unwrap();
        let Sent::Reveal(reveal) = &sent else { panic!("shares") };
        let of = |all: &[Revealed]| all.iter().map(|revealed| revealed.of).collect::<Vec<u32>>();
        assert_eq!(of(&reveal.document.own), [0, 1, 2, 3, 5]);
        assert_eq!(of(&reveal.document.mask), [4]);
        // The same question with the peer counted the other way is not answered.
        let swapped = relayed(&mut rig, party, |relay| *relay = Relay::Inputs((0..6).collect()));
        assert_eq!(swapped, Err(Refusal::Fixed(Step::Consent)));
        // A member that gives both is not heard either.
        let both = resigned(reveal, party, |reveal| reveal.mask.insert(0, reveal.own[0].clone()));
        let refusal = rig.accept(party, Sent::Reveal(both)).unwrap_err();
        assert!(matches!(&refusal, Refusal::Malformed { site: s, .. } if *s == site(party)), "{refusal}");
        assert_eq!(rig.accept(party, sent), Ok(party));
    }
    rig.aggregator.close(&(0..6).collect()).unwrap();
    assert_eq!(rig.sums().unwrap(), rig.plain());
}

/// Attack: different U3 for different sites.
#[test]
fn sites_that_signed_different_sets_reveal_nothing() {
    let mut rig = rig(Step::Consent);
    let mut consents = Vec::new();
    for party in 0..6u32 {
        let set: Vec<u32> = if party < 3 { (0..6).collect() } else { (1..6).collect() };
        let turn = relayed(&mut rig, party, |relay| *relay = Relay::Inputs(set)).unwrap();
        let Turn::Send(fixed) = turn else { panic!("a consent") };
        let Sent::Consent(signed) = Sent::from_bytes(&fixed.message).unwrap() else { panic!("a consent") };
        consents.push((party, signed.signatures[0].signature));
    }
    for party in 0..6u32 {
        let refusal = asked(rig.members.get_mut(&party).unwrap(), &Relay::Consents(consents.clone()), party);
        let invalid: Vec<_> = if party < 3 { (3..6).map(site).collect() } else { (0..3).map(site).collect() };
        assert_eq!(refusal, Err(Refusal::Consents { found: 3, needed: 4, invalid }), "{party}");
    }
    // One signature many times, or in another order, is not even looked at.
    let mut ask = |consents: Vec<_>| asked(rig.members.get_mut(&0).unwrap(), &Relay::Consents(consents), 0);
    assert_eq!(ask(consents[..1].repeat(100_000)), Err(Refusal::Twice(site(0))));
    assert_eq!(ask(consents.iter().rev().copied().collect()), Err(Refusal::Twice(site(4))));
    let strangers = (0..7).map(|party| (party, consents[0].1)).collect();
    assert_eq!(ask(strangers), Err(Refusal::Unknown(6)));
}

/// Attack: overlapping "active" and "dropped", and whoever never was there.
#[test]
fn sets_of_inputs_that_cannot_be_are_not_signed() {
    let missing = [(4, Step::Shares), (5, Step::Input)];
    let mut rig = Rig::new(six(), missing.into()).until(Step::Consent);
    let mut ask = |set: &[u32]| relayed(&mut rig, 2, |relay| *relay = Relay::Inputs(set.to_vec()));
    assert_eq!(ask(&[0, 1, 2, 3, 4]), Err(Refusal::Included(vec![site(4)])));
    assert_eq!(ask(&[0, 1, 2, 2, 3]), Err(Refusal::Twice(site(2))));
    assert_eq!(ask(&[0, 2, 1, 3]), Err(Refusal::Twice(site(1))));
    assert_eq!(ask(&[0, 1, 2, 3, 9]), Err(Refusal::Unknown(9)));
    assert_eq!(ask(&[0, 1, 3, 5]), Err(Refusal::NotIncluded));
    assert!(matches!(ask(&[0, 2, 3]), Err(Refusal::TooFew { step: Step::Input, present: 3, needed: 4, .. })));
    assert!(matches!(ask(&[0, 1, 2, 3]), Ok(Turn::Send(_))));
    // A signature of somebody who is not in the set is none under it.
    rig.silent.clear();
    rig.members.retain(|party, _| *party < 4);
    rig.step().unwrap();
    let refusal = relayed(&mut rig, 2, |relay| {
        let Relay::Consents(all) = relay else { panic!("consents") };
        all[3].0 = 5;
    });
    assert_eq!(refusal, Err(Refusal::Consents { found: 3, needed: 4, invalid: vec![site(5)] }));
}

/// Attack: extra or replaced keys.
#[test]
fn keys_that_were_added_replaced_or_left_out_are_refused() {
    type Keys = Vec<Signed<Advertise>>;
    let other = member(&changed(&six(), |setup| setup.round += 1), 4).advertise(&key(4)).unwrap();
    let Sent::Keys(old) = Sent::from_bytes(&other.message).unwrap() else { panic!("keys") };
    let attack = |change: &dyn Fn(&mut Keys)| {
        relayed(&mut rig(Step::Shares), 2, |relay| {
            let Relay::Keys(all) = relay else { panic!("keys") };
            change(all);
        })
    };
    assert!(matches!(attack(&|_| {}), Ok(Turn::Send(_))));
    assert_eq!(attack(&|all| all[4] = old.clone()), Err(Refusal::OtherRound(site(4))));
    assert_eq!(attack(&|all| all.insert(4, all[4].clone())), Err(Refusal::Twice(site(4))));
    assert_eq!(attack(&|all| all.swap(3, 4)), Err(Refusal::Twice(site(3))));
    assert_eq!(attack(&|all| drop(all.remove(2))), Err(Refusal::OwnMessage));
    assert_eq!(attack(&|all| all[4] = resigned(&all[4], 4, |keys| keys.from = 9)), Err(Refusal::Unknown(9)));
    // The coordinator has other keys under the old signature, or under a site's name with its own signature.
    let stolen = |all: &Keys| forged(&all[4], |keys| keys.share_key = all[3].document.share_key);
    assert_eq!(attack(&|all| all[4] = stolen(all)), Err(Refusal::Unsigned(site(4))));
    assert_eq!(attack(&|all| all[4] = resigned(&all[4], 5, |_| {})), Err(Refusal::Unsigned(site(4))));
    let signed_twice = |all: &mut Keys| all[4].signatures.extend_from_within(..);
    assert_eq!(attack(&signed_twice), Err(Refusal::Unsigned(site(4))));
    // A site takes over another's key, or has one that is none.
    let copied = |all: &Keys| resigned(&all[4], 4, |keys| keys.mask_key = all[3].document.mask_key);
    assert_eq!(attack(&|all| all[4] = copied(all)), Err(Refusal::Keys(site(4))));
    for bytes in [[0u8; 32], [0xff; 32]] {
        let empty = |keys: &mut Advertise| keys.mask_key = Point::from_bytes(bytes);
        assert_eq!(attack(&|all| all[4] = resigned(&all[4], 4, empty)), Err(Refusal::Keys(site(4))));
    }
    let low = |keys: &mut Advertise| keys.share_key = Point::from_bytes([0; 32]);
    assert_eq!(attack(&|all| all[4] = resigned(&all[4], 4, low)), Err(Refusal::Keys(site(4))));
    assert!(matches!(attack(&|all| all.truncate(3)), Err(Refusal::TooFew { step: Step::Keys, .. })));
    // The aggregator names a site that says two things.
    let mut rig = rig(Step::Keys);
    let Sent::Keys(keys) = rig.says(4).unwrap() else { panic!("keys") };
    assert_eq!(rig.accept(4, Sent::Keys(keys.clone())), Ok(4));
    assert_eq!(rig.accept(4, Sent::Keys(keys.clone())), Ok(4), "the same again is harmless");
    let two = resigned(&keys, 4, |keys| keys.share_key = keys.self_key);
    assert_eq!(rig.accept(4, Sent::Keys(two)), Err(Refusal::Contradiction(site(4))));
}

type Bytes = [u8; BOX_BYTES];

/// A dealer seals a box that does not open, and signs it.
pub(super) fn spoil(delivery: &mut Delivery, dealer: u32, to: u32) {
    delivery.sealed[7] ^= 1;
    let digest = Digest::of(&delivery.sealed);
    delivery.shares = resigned(&delivery.shares, dealer, |shares| {
        shares.boxes.iter_mut().filter(|b| b.to == to).for_each(|b| b.digest = digest);
    });
}

/// What a member says of one dealer whose message was changed, and what the aggregator says.
fn dealt(change: impl FnOnce(&Canonical<Setup>, &mut Signed<Shares>, &mut Bytes)) -> (Result<Turn, Refusal>, Rig) {
    let mut rig = rig(Step::Input);
    let setup = rig.setup.clone();
    let turn = relayed(&mut rig, 2, |relay| {
        let Relay::Shares { dealt, .. } = relay else { panic!("boxes") };
        // The dealers are all but the member itself: 0, 1, 3, 4, 5.
        let Delivery { shares, sealed } = &mut dealt[3];
        change(&setup, shares, sealed);
    });
    (turn, rig)
}

fn accused(dealt: (Result<Turn, Refusal>, Rig)) -> Accused {
    let (turn, mut rig) = dealt;
    let Ok(Turn::Send(fixed)) = turn else { panic!("an accusation instead of {turn:?}") };
    assert_eq!(fixed.step, Step::End);
    assert_eq!(rig.accept(2, Sent::from_bytes(&fixed.message).unwrap()), Ok(2));
    assert_eq!(rig.aggregator.at(), Step::End);
    assert!(rig.sums().is_err(), "an accusation ends the attempt");
    assert!(matches!(rig.members[&2].masker().map(drop), Err(Refusal::OutOfTurn { .. })), "and nothing is masked");
    rig.aggregator.accused().unwrap()
}

/// Attack: truncated, flipped or exchanged box, and commitments that were added, replaced or are too few.
#[test]
fn boxes_and_commitments_that_do_not_fit_are_refused_or_their_dealer_is_accused() {
    // The coordinator changed something: the dealer's signature shows it.
    type Change<'a> = &'a dyn Fn(&mut Signed<Shares>, &mut Bytes);
    let refusals: [(Refusal, Change); 3] = [
        (Refusal::Box(site(4)), &|_, sealed| sealed[7] ^= 1),
        (Refusal::Unsigned(site(4)), &|shares, _| *shares = forged(shares, |shares| shares.own.push(shares.own[0]))),
        (Refusal::Unsigned(site(4)), &|shares, _| *shares = resigned(shares, 3, |shares| shares.mask.swap(1, 2))),
    ];
    for (refusal, change) in refusals {
        assert_eq!(dealt(|_, shares, sealed| change(shares, sealed)).0, Err(refusal));
    }
    // The dealer itself did: it signed it.
    let accuse = |fault| Accused { by: site(2), of: site(4), fault };
    let mine = |shares: &mut Shares, sealed: &[u8]| {
        let digest = Digest::of(sealed);
        shares.boxes.iter_mut().filter(|b| b.to == 2).for_each(|b| b.digest = digest);
    };
    let flipped = dealt(|_, shares, sealed| {
        sealed[7] ^= 1;
        *shares = resigned(shares, 4, |shares| mine(shares, sealed));
    });
    assert_eq!(accused(flipped), accuse(Fault::Box));
    // Shares of other polynomials, under the same keys and in a box that opens.
    let other = dealt(|setup, shares, sealed| {
        let secrets = Secrets::derive(&seed(4), &setup.digest(), setup.t + 1);
        let theirs = Secrets::derive(&seed(2), &setup.digest(), setup.t).advertise(setup.digest(), 2, false);
        *sealed = secrets.seal(&setup.digest(), 4, 2, &theirs.share_key).unwrap();
        *shares = resigned(shares, 4, |shares| mine(shares, sealed));
    });
    assert_eq!(accused(other), accuse(Fault::Share));
    let changes: [&dyn Fn(&mut Shares); 4] = [
        &|shares| shares.own.truncate(3),
        &|shares| shares.mask.push(shares.mask[1]),
        &|shares| shares.mask[0] = shares.own[0],
        &|shares| shares.own[1] = Point::from_bytes([0xff; 32]),
    ];
    for change in changes {
        let result = dealt(|_, shares, _| *shares = resigned(shares, 4, change));
        assert_eq!(accused(result), accuse(Fault::Commitments));
    }
    // The aggregator refuses the same at once, where it can see it.
    let mut rig = rig(Step::Shares);
    let Sent::Shares { shares, boxes } = rig.says(4).unwrap() else { panic!("shares") };
    for change in changes {
        let sent = Sent::Shares { shares: resigned(&shares, 4, change), boxes: boxes.clone() };
        assert!(matches!(rig.accept(4, sent), Err(Refusal::Malformed { site: s, .. }) if s == site(4)));
    }
    let few = Sent::Shares { shares: shares.clone(), boxes: boxes[1..].to_vec() };
    assert!(matches!(rig.accept(4, few), Err(Refusal::Malformed { .. })));
    let mut changed = boxes.clone();
    changed[0].sealed[7] ^= 1;
    let refusal = rig.accept(4, Sent::Shares { shares, boxes: changed }).unwrap_err();
    assert!(matches!(refusal, Refusal::Malformed { site: s, .. } if s == site(4)));
}

#[test]
fn boxes_that_the_coordinator_keeps_back_or_invents_are_named() {
    let attack = |change: &dyn Fn(&mut Vec<u32>, &mut Vec<Delivery>)| {
        relayed(&mut rig(Step::Input), 2, |relay| {
            let Relay::Shares { active, dealt } = relay else { panic!("boxes") };
            change(active, dealt);
        })
    };
    assert_eq!(attack(&|_, dealt| drop(dealt.remove(3))), Err(Refusal::Box(site(4))));
    assert_eq!(attack(&|active, _| active.retain(|party| *party != 4)), Err(Refusal::Included(vec![site(4)])));
    assert_eq!(attack(&|_, dealt| dealt.push(dealt[3].clone())), Err(Refusal::Twice(site(4))));
    assert_eq!(attack(&|active, _| active.retain(|party| *party != 2)), Err(Refusal::OwnMessage));
    // Without two of them it goes on, without three it does not.
    let without = |few: usize| {
        attack(&move |active, dealt| {
            active.truncate(few);
            dealt.truncate(few - 1);
        })
    };
    assert_eq!(without(4), Ok(Turn::Mask));
    assert!(matches!(without(3), Err(Refusal::TooFew { step: Step::Shares, present: 3, needed: 4, .. })));
}

/// Attack: threshold lowered.
#[test]
fn a_lowered_threshold_is_refused_whichever_number_says_it() {
    let setup = six();
    let mut wanted = demands(&setup, 2);
    wanted.corrupt = None;
    let join = |change: &dyn Fn(&mut Setup)| {
        Member::new(changed(&setup, |setup| change(setup)), wanted.clone(), &past(), &seed(2)).map(drop)
    };
    assert_eq!(join(&|_| {}), Ok(()));
    type Change<'a> = &'a dyn Fn(&mut Setup);
    let changes: [(&str, Change); 13] = [
        ("t", &|setup| setup.t = 3),
        ("t", &|setup| setup.t = 5),
        ("k_min", &|setup| setup.k_min = 2),
        ("k_min", &|setup| setup.k_min = 7),
        ("c", &|setup| setup.c = 0),
        ("n", &|setup| setup.n = 7),
        ("weight_width", &|setup| setup.weight_width -= 1),
        ("width", &|setup| setup.tensors[0].width -= 1),
        ("width", &|setup| setup.tensors[1].bits = 17),
        ("quantise", &|setup| setup.tensors[0].clip = 1e9),
        ("tensors", &|setup| setup.tensors[0].shape = vec![u64::MAX, 3]),
        ("graph", &|setup| setup.graph = Graph::Harary { missing: 0, neighbours: 2, threshold: 2 }),
        ("noise", &|setup| setup.noise = Some(Noise { sigma_steps: -1.0, d_max: 0 })),
    ];
    for (field, change) in changes {
        let refusal = join(change).unwrap_err();
        assert!(matches!(&refusal, Refusal::Unusable { field: f, .. } if *f == field), "{field}: {refusal}");
    }
    let doubled = join(&|setup| setup.roster[3] = setup.roster[1].clone());
    assert_eq!(doubled, Err(Refusal::Roster(site(1))));
    let renamed = join(&|setup| setup.roster[3].site = site(9));
    assert_eq!(renamed, Err(Refusal::Roster(site(9))));
    for n in [2, 1_001] {
        let roster = header(n, 1, 5).roster;
        let size = join(&|setup| setup.roster.clone_from(&roster));
        assert_eq!(size, Err(Refusal::Size(n as usize)));
    }
}

/// Attack: overflow.
#[test]
fn a_level_above_the_largest_is_not_masked() {
    let mut rig = rig(Step::Input);
    relayed(&mut rig, 2, |_| {}).unwrap();
    let mut masker = rig.members[&2].masker().unwrap();
    let weight = masker.expected().unwrap();
    assert_eq!((weight.entries, weight.most), (1, 100));
    let level = Err(PrivacyError::Level { part: 0, index: 0 });
    assert_eq!(masker.block(&mut [101]), level);
    assert!(matches!(masker.block(&mut [1, 2]), Err(PrivacyError::Length { expected: 1, found: 2 })));
    masker.block(&mut [100]).unwrap();
    let mut levels = vec![65_535; 5];
    levels[3] += 1;
    assert_eq!(masker.block(&mut levels), Err(PrivacyError::Level { part: 1, index: 3 }));
}

/// Attack: truncated or flipped chunk of a masked input, and inputs masked for others.
#[test]
fn a_masked_input_that_is_not_what_was_signed_does_not_count() {
    let mut rig = rig(Step::Input);
    let sent = rig.says(2).unwrap();
    let whole = rig.uploads[&2].clone();
    let mut flipped = whole.clone();
    flipped[1][3] ^= 4;
    let mut short = whole.clone();
    short[2].pop();
    let mut swapped = whole.clone();
    swapped.swap(1, 2);
    for bad in [&flipped, &short, &swapped, &whole[..2].to_vec()] {
        assert_eq!(rig.aggregator.accept(site(2), sent.clone(), Some(received(bad))), Err(Refusal::Payload(site(2))));
    }
    assert_eq!(rig.aggregator.accept(site(2), sent.clone(), None), Err(Refusal::Payload(site(2))));
    let Sent::Input(input) = &sent else { panic!("an input") };
    let others = resigned(input, 2, |input| input.peers = Digest::of(b"others"));
    assert!(matches!(rig.accept(2, Sent::Input(others)), Err(Refusal::Malformed { .. })));
    let long = resigned(input, 2, |input| input.bytes += 1);
    assert_eq!(rig.accept(2, Sent::Input(long)), Err(Refusal::Payload(site(2))));
    assert_eq!(rig.accept(2, sent), Ok(2));
}

/// Attack: truncated or flipped share. One wrong share is named, and the sum comes out without its sender.
#[test]
fn a_wrong_share_names_who_revealed_it_and_the_others_suffice() {
    let mut rig = rig(Step::Reveal);
    for party in rig.speakers() {
        let sent = rig.says(party).unwrap();
        if party != 4 {
            rig.accept(party, sent).unwrap();
            continue;
        }
        let Sent::Reveal(reveal) = &sent else { panic!("shares") };
        let wrong = resigned(reveal, 4, |reveal| reveal.own[1].share = reveal.own[2].share.clone());
        let refusal = rig.accept(4, Sent::Reveal(wrong)).unwrap_err();
        assert_eq!(refusal, Refusal::Share { from: site(4), of: site(1) });
        assert_eq!(refusal.parties(), [site(4)]);
        let few = resigned(reveal, 4, |reveal| drop(reveal.own.pop()));
        assert!(matches!(rig.accept(4, Sent::Reveal(few)), Err(Refusal::Malformed { .. })));
    }
    rig.aggregator.close(&(0..6).collect()).unwrap();
    assert_eq!(rig.sums().unwrap(), rig.plain());
}

#[test]
fn a_sum_that_lost_more_noise_than_planned_is_not_unmasked() {
    let noise = Some(Noise { sigma_steps: 3.0, d_max: 1 });
    let setup = built(&header(7, 1, 5), Prg::ChaCha20, noise);
    let mut rig = Rig::new(setup.clone(), BTreeMap::new()).until(Step::Consent);
    let refusal = relayed(&mut rig, 2, |relay| *relay = Relay::Inputs(vec![0, 1, 2, 3, 4]));
    let sites = vec![site(5), site(6)];
    assert_eq!(refusal, Err(Refusal::Noise { missing: 2, most: 1, sites: sites.clone() }));
    assert!(matches!(relayed(&mut rig, 2, |relay| *relay = Relay::Inputs((0..6).collect())), Ok(Turn::Send(_))));
    // The aggregator does not even ask.
    let mut rig = Rig::new(setup, [(5, Step::Input), (6, Step::Input)].into()).until(Step::Input);
    assert_eq!(rig.step(), Err(Refusal::Noise { missing: 2, most: 1, sites }));
}

/// Attack: a header without the noise that the approved plan asks for, or with so many missing that none is left.
#[test]
fn a_header_has_the_noise_of_the_plan_and_enough_of_it_is_honest() {
    let noise = |sigma_steps, d_max| Some(Noise { sigma_steps, d_max });
    let planned = noise(3.0, 1);
    let join = |offered: Option<Noise>| {
        let setup = built(&header(7, 1, 5), Prg::Aes128Ctr, offered);
        let demands = Demands { noise: planned, ..demands(&setup, 2) };
        Member::new(setup, demands, &past(), &seed(2)).map(drop)
    };
    assert_eq!(join(planned), Ok(()));
    for offered in [None, noise(2.9, 1), noise(3.0, 2), noise(3.0, 0)] {
        assert_eq!(join(offered), Err(Refusal::OtherNoise), "{offered:?}");
    }
    // max(t, k_min) − d_max − max(c, 1) ≥ 1: of five, one looks and three are missing.
    let clips = [4.0; 2];
    for (d_max, fits) in [(0, true), (3, true), (4, false), (5, false), (u32::MAX, false)] {
        let setup = Setup::new(&header(7, 1, 5), &clips, Prg::Aes128Ctr, noise(3.0, d_max));
        assert_eq!(setup.is_ok(), fits, "{d_max}");
    }
    let three = |d_max| Setup::new(&header(3, 0, 5), &clips, Prg::Aes128Ctr, noise(3.0, d_max)).map(drop);
    assert_eq!(three(1), Ok(()), "of three, one looks, and one is missing");
    assert!(matches!(three(2), Err(Refusal::Unusable { field: "noise", .. })));
    for sigma in [0.0, f64::NAN, f64::INFINITY] {
        let setup = Setup::new(&header(7, 1, 5), &clips, Prg::Aes128Ctr, noise(sigma, 1)).map(drop);
        assert!(matches!(setup, Err(Refusal::Unusable { field: "noise", .. })), "{sigma}");
    }
}

#[test]
fn noise_may_leave_the_range_of_a_tensor_and_not_that_of_the_weight() {
    let mut rig =
        Rig::new(built(&header(7, 1, 5), Prg::Aes128Ctr, Some(Noise { sigma_steps: 3.0, d_max: 1 })), [].into());
    rig = rig.until(Step::Input);
    assert_eq!(relayed(&mut rig, 2, |_| {}), Ok(Turn::Mask));
    let mut masker = rig.members[&2].masker().unwrap();
    assert_eq!(masker.block(&mut [101]), Err(PrivacyError::Level { part: 0, index: 0 }));
    masker.block(&mut [100]).unwrap();
    masker.block(&mut [0, 70_000, 0u64.wrapping_sub(9), 1, 2]).unwrap();
}

/// Attack: different U2 for different sites. The aggregator refuses their inputs, and masks of one that does not are not
/// taken off by all that members would ever reveal.
#[test]
fn sites_that_mask_with_different_peers_make_no_sum() {
    let mut rig = rig(Step::Input);
    for party in 0..5u32 {
        let turn = relayed(&mut rig, party, |relay| {
            let Relay::Shares { active, dealt } = relay else { panic!("boxes") };
            // The sixth, who colludes, is told of to the first three only.
            if party >= 3 {
                active.pop();
                dealt.pop();
            }
        });
        assert_eq!(turn, Ok(Turn::Mask));
        let (fixed, blocks) = super::rig::commit(rig.members.get_mut(&party).unwrap(), party);
        rig.uploads.insert(party, blocks);
        let found = rig.accept(party, Sent::from_bytes(&fixed.message).unwrap());
        match found {
            Ok(_) => assert!(party < 3),
            Err(refusal) => assert!(party >= 3 && matches!(refusal, Refusal::Malformed { .. }), "{refusal}"),
        }
    }
    // All five would agree to their sum. Then every self-mask is known, and every mask with the sixth.
    let sid = rig.setup.digest();
    let among = |set: std::ops::Range<u32>| {
        let session = crate::secagg::session::Session::new(rig.setup.clone()).unwrap();
        session.set_digest(&set.collect())
    };
    let secrets = |party: u32| Secrets::derive(&seed(party), &sid, rig.setup.t);
    let keys = |party: u32| secrets(party).advertise(sid, party, false);
    let block = rig.aggregator.layout().blocks().nth(1).unwrap();
    let (mut sums, mut plain) = (vec![0; block.entries], vec![0u64; block.entries]);
    let mut streams = Vec::new();
    for party in 0..5u32 {
        block.add(&mut sums, &rig.uploads[&party][1]).unwrap();
        let levels = super::rig::levels(party, &block);
        plain.iter_mut().zip(levels).for_each(|(sum, level)| *sum += level);
        let mut known = vec![Stream::new(Prg::Aes128Ctr, &secrets(party).self_mask(&sid), Sign::Minus)];
        if party < 3 {
            let mask = secrets(5).pair_mask(&sid, &among(0..6), (party, 5), &keys(party).mask_key).unwrap();
            known.push(Stream::new(Prg::Aes128Ctr, &mask, Sign::Minus));
        }
        // The row weight comes first in every stream.
        apply(&mut known, &mut [0], rig.setup.weight_width);
        streams.extend(known);
    }
    apply(&mut streams, &mut sums, block.width);
    assert_ne!(block.pack(&sums).unwrap(), block.pack(&plain).unwrap(), "masks of the two groups do not cancel");
    // They are all that is left.
    let mut left = Vec::new();
    for (u, v) in (0..3u32).flat_map(|u| (3..5u32).map(move |v| (u, v))) {
        for (set, sign) in [(0..6, Sign::Minus), (0..5, Sign::Plus)] {
            let mask = secrets(u).pair_mask(&sid, &among(set), (u, v), &keys(v).mask_key).unwrap();
            left.push(Stream::new(Prg::Aes128Ctr, &mask, sign));
        }
    }
    apply(&mut left, &mut [0], rig.setup.weight_width);
    apply(&mut left, &mut sums, block.width);
    assert_eq!(block.pack(&sums).unwrap(), block.pack(&plain).unwrap());
}

/// Attack: a message under somebody else's name, so that an honest site is blamed.
#[test]
fn a_refusal_names_the_sender_and_not_whom_the_message_names() {
    let mut rig = rig(Step::Keys);
    let Sent::Keys(keys) = rig.says(4).unwrap() else { panic!("keys") };
    let forgeries = [
        keys.clone(),
        forged(&keys, |keys| keys.sid = Digest::of(b"another")),
        resigned(&keys, 3, |_| {}),
        resigned(&keys, 3, |keys| keys.from = 99),
        forged(&keys, |keys| keys.from = 3),
    ];
    for forgery in forgeries {
        let refusal = rig.accept(3, Sent::Keys(forgery)).unwrap_err();
        assert!(matches!(refusal, Refusal::Unsigned(s) | Refusal::OtherRound(s) if s == site(3)), "{refusal}");
        assert!(refusal.parties().is_empty());
    }
    let stranger = rig.aggregator.accept(site(99), Sent::Keys(keys.clone()), None);
    assert_eq!(stranger, Err(Refusal::Stranger(site(99))));
    assert_eq!(rig.accept(4, Sent::Keys(keys)), Ok(4), "nothing of it was held against the honest one");
    // What a coordinator forges towards a member names nobody either.
    let refusal = relayed(&mut super::attacks::rig(Step::Shares), 2, |relay| {
        let Relay::Keys(all) = relay else { panic!("keys") };
        all[4] = forged(&all[4], |keys| keys.share_key = keys.mask_key);
    });
    assert!(refusal.unwrap_err().parties().is_empty());
}

/// Attack: a site that nobody dealt to accuses, or one whose input came already.
#[test]
fn only_who_was_dealt_to_and_did_not_mask_accuses() {
    let accusation = |rig: &Rig, by: u32, of: u32| {
        let accusation = Accusation { sid: rig.setup.digest(), from: by, of, fault: Fault::Box };
        Sent::Accusation(Signed::new(accusation, &key(by)).unwrap())
    };
    let mut rig = Rig::new(six(), [(5, Step::Shares)].into()).until(Step::Input);
    for (by, of) in [(2, 2), (2, 5), (2, 9)] {
        let sent = accusation(&rig, by, of);
        let refusal = rig.accept(by, sent).unwrap_err();
        assert!(matches!(refusal, Refusal::Malformed { site: s, .. } if s == site(by)), "{refusal}");
    }
    let sent = rig.says(2).unwrap();
    assert_eq!(rig.accept(2, sent), Ok(2));
    let late = accusation(&rig, 2, 4);
    assert!(matches!(rig.accept(2, late), Err(Refusal::Malformed { site: s, .. }) if s == site(2)));
    assert_eq!((rig.aggregator.at(), rig.aggregator.accused()), (Step::Input, None));
    let sent = accusation(&rig, 3, 4);
    assert_eq!(rig.accept(3, sent), Ok(3));
    assert_eq!(rig.aggregator.accused(), Some(Accused { by: site(3), of: site(4), fault: Fault::Box }));
}

/// Peers that a verified site vouched for are no corrupt ones, and count among the trusted.
#[test]
fn vouched_peers_count_as_trusted_and_not_as_corrupt() {
    let setup = six();
    let join = |vouched: u32, asserted: u32, least: u32| {
        let mut demands = demands(&setup, 0);
        demands.min_trusted_peers = least;
        let trust = |party| match party {
            1.. if party <= vouched => Trust::VouchedFor,
            _ if party <= vouched + asserted => Trust::AssertedOnly,
            _ => Trust::VerifiedHere,
        };
        demands.peers = (1..6).map(|party| (key(party).public(), trust(party))).collect();
        Member::new(setup.clone(), demands, &past(), &seed(0)).map(drop)
    };
    assert_eq!(join(5, 0, 5), Ok(()), "all are vouched for, and none is asserted only");
    assert_eq!(join(3, 1, 4), Ok(()), "one asserted only is within the header's c");
    assert_eq!(join(3, 1, 5), Err(Refusal::Trusted { found: 4, least: 5 }));
    assert_eq!(join(3, 2, 3), Err(Refusal::Terms { field: "c", found: 1, least: 2 }));
    // In the sum itself they count, too.
    let mut rig = Rig::new(setup.clone(), BTreeMap::new());
    let mut vouched = demands(&setup, 2);
    let trust = |party| if party < 2 { Trust::VerifiedHere } else { Trust::VouchedFor };
    vouched.peers = (0..6).map(|party| (key(party).public(), trust(party))).collect();
    vouched.min_trusted_peers = 4;
    rig.members.insert(2, Member::new(setup.clone(), vouched, &past(), &seed(2)).unwrap());
    let mut rig = rig.until(Step::Consent);
    let three = relayed(&mut rig, 2, |relay| *relay = Relay::Inputs(vec![0, 2, 3, 4]));
    assert_eq!(three, Err(Refusal::Trusted { found: 3, least: 4 }));
    assert!(matches!(relayed(&mut rig, 2, |relay| *relay = Relay::Inputs(vec![0, 2, 3, 4, 5])), Ok(Turn::Send(_))));
}

/// Whatever differs between what two sites were told, they are in two sessions.
#[test]
fn every_field_of_a_setup_changes_the_session() {
    let first = six();
    type Change<'a> = &'a dyn Fn(&mut Setup);
    let changes: [Change; 27] = [
        &|_| {},
        &|setup| setup.protocol = hospes_protocol::version::Version(9),
        &|setup| setup.federation = site(7),
        &|setup| setup.study = StudyId::new(Timestamp::from_millis(9), [1; 10]),
        &|setup| setup.job = JobId::new(Timestamp::from_millis(9), [2; 10]),
        &|setup| setup.task.push('x'),
        &|setup| setup.epoch += 1,
        &|setup| setup.round += 1,
        &|setup| setup.attempt += 1,
        &|setup| setup.model = None,
        &|setup| setup.model = Some(Digest::of(b"another model")),
        &|setup| setup.plan = Digest::of(b"another plan"),
        &|setup| setup.roster.swap(0, 1),
        &|setup| setup.n += 1,
        &|setup| setup.c += 1,
        &|setup| setup.t += 1,
        &|setup| setup.k_min += 1,
        &|setup| setup.graph = Graph::Harary { missing: 0, neighbours: 2, threshold: 2 },
        &|setup| setup.prg = Prg::ChaCha20,
        &|setup| setup.tensors[0].name.push('x'),
        &|setup| setup.tensors[0].shape = vec![1, 5],
        &|setup| setup.tensors[0].clip = 4.5,
        &|setup| setup.tensors[0].bits += 1,
        &|setup| setup.tensors[0].width += 1,
        &|setup| setup.n_max += 1,
        &|setup| setup.weight_width += 1,
        &|setup| setup.noise = Some(Noise { sigma_steps: 3.0, d_max: 1 }),
    ];
    let sessions: Vec<Digest> = changes.iter().map(|change| changed(&first, change).digest()).collect();
    assert_eq!(sessions[0], first.digest());
    assert_eq!(sessions.iter().collect::<std::collections::BTreeSet<_>>().len(), changes.len());
    let noisy = |sigma_steps, d_max| changed(&first, |setup| setup.noise = Some(Noise { sigma_steps, d_max })).digest();
    assert!(noisy(3.0, 1) != noisy(3.5, 1) && noisy(3.0, 1) != noisy(3.0, 2));
    // No field was forgotten above: each stands for itself in the document.
    let Setup {
        protocol: _,
        federation: _,
        study: _,
        job: _,
        task: _,
        epoch: _,
        round: _,
        attempt: _,
        model: _,
        plan: _,
        roster: _,
        n: _,
        c: _,
        t: _,
        k_min: _,
        graph: _,
        prg: _,
        tensors: _,
        n_max: _,
        weight_width: _,
        noise: _,
    } = first.into_inner();
}

#[test]
fn messages_out_of_turn_and_bytes_that_are_none_are_refused() {
    let mut member = member(&six(), 2);
    let inputs = Relay::Inputs((0..6).collect());
    assert_eq!(asked(&mut member, &inputs, 2), Err(Refusal::OutOfTurn { found: Step::Consent, at: Step::Keys }));
    assert_eq!(member.advertise(&key(3)), Err(Refusal::NotMember), "with another site's identity key");
    let mut rig = rig(Step::Shares);
    let Sent::Keys(late) = Sent::from_bytes(&rig.members[&2].fixed()[0].message).unwrap() else { panic!("keys") };
    assert_eq!(rig.accept(2, Sent::Keys(late)), Ok(2), "what was taken is harmless");
    let mut gone = Rig::new(six(), [(5, Step::Keys)].into()).until(Step::Shares);
    let keys = Sent::from_bytes(&super::rig::member(&six(), 5).advertise(&key(5)).unwrap().message).unwrap();
    assert_eq!(gone.accept(5, keys), Err(Refusal::OutOfTurn { found: Step::Keys, at: Step::Shares }));
    // Whoever was left out is not heard later.
    let sent = gone.says(0).unwrap();
    let Sent::Shares { shares, boxes } = sent else { panic!("shares") };
    let shares = resigned(&shares, 5, |shares| shares.from = 5);
    assert!(
        matches!(gone.accept(5, Sent::Shares { shares, boxes }), Err(Refusal::Malformed { site: s, .. }) if s == site(5))
    );
    let bytes = rig.aggregator.relay(2).unwrap().to_bytes().unwrap();
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(Relay::from_bytes(&bytes[..cut]), Err(Refusal::Unreadable(_))), "{cut}");
    }
    assert!(Relay::from_bytes(&[&bytes[..], &[0]].concat()).is_err(), "bytes follow");
    assert!(Sent::from_bytes(&vec![0; SENT_BYTES + 1]).unwrap_err().to_string().contains("more than the"));
}
