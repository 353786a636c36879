//! Each thing is said once in a session, whatever crashes: what is fixed is only said again.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::canon::Canonical;

use super::rig::{Rig, changed, commit, demands, key, member, past, seed, setup, site};
use crate::secagg::*;

fn rig(step: Step) -> Rig {
    Rig::new(setup(6, 1, Prg::Aes128Ctr, 5), BTreeMap::new()).until(step)
}

/// The member as it is after a restart.
fn restored(rig: &Rig, party: u32, records: &[Fixed]) -> Result<Member, Refusal> {
    Member::restore(rig.setup.clone(), demands(&rig.setup, party), &seed(party), &key(party), records)
}

#[test]
fn a_member_restored_at_any_step_goes_on_as_if_nothing_had_happened() {
    let all = rig(Step::End);
    let expected = all.members[&2].fixed().to_vec();
    let steps = [Step::Keys, Step::Shares, Step::Input, Step::Consent, Step::Reveal];
    assert_eq!(expected.iter().map(|fixed| fixed.step).collect::<Vec<_>>(), steps);
    for done in 1..expected.len() {
        let mut member = restored(&all, 2, &expected[..done]).unwrap();
        assert_eq!(member.at(), steps[done]);
        for next in &expected[done..] {
            let turn = member.on(&Relay::from_bytes(&next.input).unwrap(), &key(2)).unwrap();
            let fixed =
                if turn == Turn::Mask { commit(&mut member, 2).0 } else { member.fixed().last().unwrap().clone() };
            assert_eq!(fixed, *next);
        }
    }
}

#[test]
fn whatever_was_said_is_said_again_and_nothing_else() {
    let mut all = rig(Step::End);
    let member = all.members.get_mut(&2).unwrap();
    for fixed in member.fixed().to_vec() {
        let again = match fixed.step {
            Step::Keys => Turn::Send(member.advertise(&key(2)).unwrap()),
            _ => member.on(&Relay::from_bytes(&fixed.input).unwrap(), &key(2)).unwrap(),
        };
        assert_eq!(again, Turn::Send(fixed));
    }
    assert_eq!(member.fixed().len(), 5);
    member.close();
    let inputs = Relay::Inputs((0..6).collect());
    assert_eq!(member.on(&inputs, &key(2)), Err(Refusal::Gone));
    assert_eq!(member.advertise(&key(2)), Err(Refusal::Gone));
    assert!(matches!(member.masker().map(drop), Err(Refusal::Gone)));
}

/// Attack: a crash between R3 and R4, and a second U3.
#[test]
fn after_a_crash_between_consent_and_reveal_no_second_set_is_signed() {
    let mut all = rig(Step::Consent);
    let sent = all.says(2).unwrap();
    let records = all.members[&2].fixed().to_vec();
    let mut member = restored(&all, 2, &records).unwrap();
    let smaller = Relay::Inputs(vec![0, 1, 2, 3, 4]);
    assert_eq!(member.on(&smaller, &key(2)), Err(Refusal::Fixed(Step::Consent)));
    let Turn::Send(again) = member.on(&Relay::Inputs((0..6).collect()), &key(2)).unwrap() else { panic!("masks") };
    assert_eq!(again.message, sent.to_bytes().unwrap());
}

/// Attack: y_u recomputed.
#[test]
fn a_committed_vector_is_never_masked_anew() {
    let all = rig(Step::Consent);
    let mut member = restored(&all, 2, all.members[&2].fixed()).unwrap();
    assert!(matches!(member.masker().map(drop), Err(Refusal::Fixed(Step::Input))));
    let other = Masked { root: hospes_protocol::id::Digest::of(b"other"), bytes: member.layout().bytes() };
    assert_eq!(member.commit(other, &key(2)), Err(Refusal::Fixed(Step::Input)));
    // Other boxes for the same step, with fewer peers, would be another vector too.
    let Relay::Shares { mut active, mut dealt } = Relay::from_bytes(&all.members[&2].fixed()[2].input).unwrap() else {
        panic!("boxes")
    };
    active.pop();
    dealt.pop();
    assert_eq!(member.on(&Relay::Shares { active, dealt }, &key(2)), Err(Refusal::Fixed(Step::Input)));
}

#[test]
fn before_it_is_committed_a_vector_is_masked_anew_with_the_same_masks_and_boxes() {
    let mut all = rig(Step::Input);
    let relay = all.aggregator.relay(2).unwrap();
    let Relay::Shares { mut active, mut dealt } = relay.clone() else { panic!("boxes") };
    let member = all.members.get_mut(&2).unwrap();
    assert_eq!(member.on(&relay, &key(2)), Ok(Turn::Mask));
    assert_eq!(member.on(&relay, &key(2)), Ok(Turn::Mask));
    active.pop();
    dealt.pop();
    assert_eq!(member.on(&Relay::Shares { active, dealt }, &key(2)), Err(Refusal::Fixed(Step::Input)));
    let mut first = member.masker().unwrap();
    let block = first.expected().unwrap();
    let packed = first.block(&mut super::rig::levels(2, &block)).unwrap();
    assert!(first.finish().is_err(), "blocks are missing");
    assert_eq!(commit(member, 2).1[0], packed);
}

#[test]
fn records_that_were_changed_lead_nowhere() {
    let all = rig(Step::End);
    let records = all.members[&2].fixed();
    assert!(matches!(restored(&all, 2, &[]), Err(Refusal::Record(Step::Keys))));
    // Another seed, another input, a message of somebody else, a step left out.
    let other = Member::restore(all.setup.clone(), demands(&all.setup, 2), &seed(3), &key(2), records);
    assert!(matches!(other, Err(Refusal::Record(Step::Keys))));
    for (at, record) in records.iter().enumerate().skip(1) {
        let mut changed = records.to_vec();
        changed[at].message = all.members[&3].fixed()[at].message.clone();
        assert!(restored(&all, 2, &changed).is_err(), "{}", record.step);
        let mut without = records.to_vec();
        without.remove(at);
        assert!(restored(&all, 2, &without).is_err() || at + 1 == records.len(), "{}", record.step);
    }
}

/// Attack: a second attempt after R3.
#[test]
fn a_site_that_consented_joins_no_other_attempt_of_the_round() {
    let first = setup(6, 1, Prg::Aes128Ctr, 5);
    let second = changed(&first, |setup| setup.attempt = 2);
    let join =
        |setup: &Canonical<Setup>, past: Past| Member::new(setup.clone(), demands(setup, 2), &past, &seed(2)).map(drop);
    let taken = Past { last: Some((first.round, 1)), ..past() };
    assert_eq!(join(&second, taken), Ok(()), "before it consented");
    let consented = Past { consented: Some(first.round), ..taken };
    assert_eq!(join(&second, consented), Err(Refusal::AgreedBefore));
    let next = changed(&first, |setup| setup.round += 1);
    assert_eq!(join(&next, consented), Ok(()), "the next round, with new training");
}

/// Attack: replay from an old epoch, and of an old round or attempt.
#[test]
fn old_epochs_rounds_and_attempts_are_refused() {
    let setup = setup(6, 1, Prg::Aes128Ctr, 5);
    let join = |past: Past| Member::new(setup.clone(), demands(&setup, 2), &past, &seed(2)).map(drop);
    let restored = Past { epoch: 2, ..past() };
    assert_eq!(join(restored), Err(Refusal::Epoch { found: 1, approved: 2 }));
    let replayed = Err(Refusal::Replayed { round: setup.round, attempt: 1 });
    for last in [(setup.round, 1), (setup.round, 2), (setup.round + 1, 1)] {
        assert_eq!(join(Past { last: Some(last), ..past() }), replayed, "{last:?}");
    }
    // What the others say in an old epoch does not count in the new one either.
    let new = changed(&setup, |setup| setup.epoch = 2);
    let mut aggregator = Aggregator::new(new).unwrap();
    let old = Sent::from_bytes(&member(&setup, 4).advertise(&key(4)).unwrap().message).unwrap();
    assert_eq!(aggregator.accept(old, None), Err(Refusal::OtherRound(site(4))));
}

/// Attack: the same statistic over a smaller cohort.
#[test]
fn a_static_figure_is_answered_again_for_the_identical_cohort_only() {
    let all: BTreeSet<u32> = (0..6).collect();
    let first = setup(6, 1, Prg::Aes128Ctr, 5);
    // The next job numbers its members in another order: the cohort is the same sites.
    let next = changed(&first, |setup| setup.roster.reverse());
    let answered = first.cohort(&all);
    assert_eq!(next.cohort(&all), answered);
    assert_ne!(first.cohort(&[0, 1, 2, 3, 4].into()), answered);
    for (included, expected) in [((0..6).collect::<Vec<u32>>(), true), (vec![0, 1, 2, 3, 4], false)] {
        let mut rig = Rig::new(first.clone(), BTreeMap::new());
        let demands = Demands { answered: Some(answered), ..demands(&first, 2) };
        rig.members.insert(2, Member::new(first.clone(), demands, &past(), &seed(2)).unwrap());
        let mut rig = rig.until(Step::Consent);
        let turn = rig.members.get_mut(&2).unwrap().on(&Relay::Inputs(included), &key(2));
        match expected {
            true => assert!(matches!(turn, Ok(Turn::Send(_)))),
            false => assert_eq!(turn, Err(Refusal::OtherCohort)),
        }
    }
}
