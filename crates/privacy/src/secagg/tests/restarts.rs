//! Each thing is said once in a session, whatever crashes: what is fixed is only said again.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::canon::Canonical;

use super::rig::{
    ROUND, Rig, asked, changed, commit, demands, key, member, on_record, past, restored, seed, setup, site,
};
use crate::secagg::*;

fn rig(step: Step) -> Rig {
    Rig::new(setup(6, 1, Prg::Aes128Ctr, 5), BTreeMap::new()).until(step)
}

#[test]
fn a_member_restored_at_any_step_goes_on_as_if_nothing_had_happened() {
    let all = rig(Step::End);
    let expected = all.members[&2].fixed().to_vec();
    let steps = [Step::Keys, Step::Shares, Step::Input, Step::Consent, Step::Reveal];
    assert_eq!(expected.iter().map(|fixed| fixed.step).collect::<Vec<_>>(), steps);
    for done in 1..expected.len() {
        let mut member = restored(&all.setup, 2, &expected[..done]).unwrap();
        assert_eq!(member.at(), steps[done]);
        for next in &expected[done..] {
            let turn = asked(&mut member, &Relay::from_bytes(&next.input).unwrap(), 2).unwrap();
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
            _ => asked(member, &Relay::from_bytes(&fixed.input).unwrap(), 2).unwrap(),
        };
        assert_eq!(again, Turn::Send(fixed));
    }
    assert_eq!(member.fixed().len(), 5);
    member.close();
    let inputs = Relay::Inputs((0..6).collect());
    assert_eq!(asked(member, &inputs, 2), Err(Refusal::Gone));
    assert!(member.fixed().is_empty(), "what was dealt and revealed is erased, too");
    assert_eq!(member.advertise(&key(2)), Err(Refusal::Gone));
    assert!(matches!(member.masker().map(drop), Err(Refusal::Gone)));
}

/// Attack: a crash between R3 and R4, and a second U3.
#[test]
fn after_a_crash_between_consent_and_reveal_no_second_set_is_signed() {
    let mut all = rig(Step::Consent);
    let sent = all.says(2).unwrap();
    let records = all.members[&2].fixed().to_vec();
    let mut member = restored(&all.setup, 2, &records).unwrap();
    let smaller = Relay::Inputs(vec![0, 1, 2, 3, 4]);
    assert_eq!(asked(&mut member, &smaller, 2), Err(Refusal::Fixed(Step::Consent)));
    let Turn::Send(again) = asked(&mut member, &Relay::Inputs((0..6).collect()), 2).unwrap() else { panic!("masks") };
    assert_eq!(again.message, sent.to_bytes().unwrap());
}

/// Attack: y_u recomputed.
#[test]
fn a_committed_vector_is_never_masked_anew() {
    let all = rig(Step::Consent);
    let mut member = restored(&all.setup, 2, all.members[&2].fixed()).unwrap();
    assert!(matches!(member.masker().map(drop), Err(Refusal::Fixed(Step::Input))));
    let other = Masked { root: hospes_protocol::id::Digest::of(b"other"), bytes: member.layout().bytes() };
    assert_eq!(member.commit(other, &key(2)), Err(Refusal::Fixed(Step::Input)));
    // Other boxes for the same step, with fewer peers, would be another vector too.
    let Relay::Shares { mut active, mut dealt } = Relay::from_bytes(&all.members[&2].fixed()[2].input).unwrap() else {
        panic!("boxes")
    };
    active.pop();
    dealt.pop();
    assert_eq!(asked(&mut member, &Relay::Shares { active, dealt }, 2), Err(Refusal::Fixed(Step::Input)));
}

#[test]
fn before_it_is_committed_a_vector_is_masked_anew_with_the_same_masks_and_boxes() {
    let mut all = rig(Step::Input);
    let relay = all.aggregator.relay(2).unwrap();
    let Relay::Shares { mut active, mut dealt } = relay.clone() else { panic!("boxes") };
    let member = all.members.get_mut(&2).unwrap();
    assert_eq!(asked(member, &relay, 2), Ok(Turn::Mask));
    assert_eq!(asked(member, &relay, 2), Ok(Turn::Mask));
    active.pop();
    dealt.pop();
    assert_eq!(asked(member, &Relay::Shares { active, dealt }, 2), Err(Refusal::Fixed(Step::Input)));
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
    assert!(matches!(restored(&all.setup, 2, &[]), Err(Refusal::Record(Step::Keys))));
    // Another seed, another input, a message of somebody else, a step left out.
    let past = on_record(1, records);
    let other = Member::restore(all.setup.clone(), demands(&all.setup, 2), &past, &seed(3), &key(2), records);
    assert!(matches!(other, Err(Refusal::Record(Step::Keys))));
    for (at, record) in records.iter().enumerate().skip(1) {
        let mut changed = records.to_vec();
        changed[at].message = all.members[&3].fixed()[at].message.clone();
        assert!(restored(&all.setup, 2, &changed).is_err(), "{}", record.step);
        let mut without = records.to_vec();
        without.remove(at);
        assert!(restored(&all.setup, 2, &without).is_err() || at + 1 == records.len(), "{}", record.step);
    }
}

/// Attack: two attempts at once, each of which was begun before anything was agreed to.
#[test]
fn of_two_attempts_at_once_one_is_agreed_to() {
    let second = changed(&setup(6, 1, Prg::Aes128Ctr, 5), |setup| setup.attempt = 2);
    let inputs = Relay::Inputs((0..6).collect());
    let ask = |past: &Past| rig(Step::Consent).members.get_mut(&2).unwrap().on(&inputs, past, &key(2));
    let alone = on_record(1, &[]);
    assert!(matches!(ask(&alone), Ok(Turn::Send(_))));
    // The site joined the second attempt meanwhile, and then agreed to a sum in it.
    let joined = Past { last: Some((ROUND, 2)), ..alone };
    assert!(Member::new(second, demands(&setup(6, 1, Prg::Aes128Ctr, 5), 2), &alone, &seed(2)).is_ok());
    assert_eq!(ask(&joined), Err(Refusal::Replayed { round: ROUND, attempt: 1 }));
    assert_eq!(ask(&Past { consented: Some((ROUND, 2)), ..joined }), Err(Refusal::AgreedBefore));
    assert_eq!(ask(&Past { consented: Some((ROUND + 1, 1)), ..alone }), Err(Refusal::AgreedBefore));
    // The other way round: it is asked in the second after it agreed in the first, whatever else was recorded.
    let mut later = in_attempt(2);
    let agreed = Past { consented: Some((ROUND, 1)), ..on_record(2, &[]) };
    assert_eq!(later.on(&inputs, &agreed, &key(2)), Err(Refusal::AgreedBefore));
    assert!(matches!(later.on(&inputs, &on_record(2, &[]), &key(2)), Ok(Turn::Send(_))));
}

/// A member that is asked for its consent in this attempt.
fn in_attempt(attempt: u32) -> Member {
    let setup = changed(&setup(6, 1, Prg::Aes128Ctr, 5), |setup| setup.attempt = attempt);
    let mut aggregator = Aggregator::new(setup.clone()).unwrap();
    let mut members: Vec<Member> = (0..6).map(|party| member(&setup, party)).collect();
    while aggregator.at() != Step::Consent {
        for (party, member) in (0u32..).zip(&mut members) {
            let past = on_record(attempt, &[]);
            let turn = match aggregator.relay(party) {
                Ok(relay) => member.on(&relay, &past, &key(party)).unwrap(),
                Err(_) => Turn::Send(member.advertise(&key(party)).unwrap()),
            };
            let (fixed, upload) = match turn {
                Turn::Send(fixed) => (fixed, None),
                Turn::Mask => {
                    let (fixed, blocks) = commit(member, party);
                    (fixed, Some(super::rig::received(&blocks)))
                }
            };
            aggregator.accept(site(party), Sent::from_bytes(&fixed.message).unwrap(), upload).unwrap();
        }
        aggregator.close(&(0..6).collect()).unwrap();
    }
    members.remove(2)
}

/// What is on record at the restart decides, and not only what was when the session began.
#[test]
fn a_restart_asks_for_what_is_on_record_again() {
    let all = rig(Step::End);
    let records = all.members[&2].fixed();
    let restore = |past: Past, records: &[Fixed]| {
        Member::restore(all.setup.clone(), demands(&all.setup, 2), &past, &seed(2), &key(2), records).map(drop)
    };
    let whole = on_record(1, records);
    assert_eq!(restore(whole, records), Ok(()));
    for done in 1..=records.len() {
        let records = &records[..done];
        let now = on_record(1, records);
        assert_eq!(restore(now, records), Ok(()), "{done}");
        let new_epoch = Past { epoch: 2, last: None, consented: None, ..now };
        assert_eq!(restore(new_epoch, records), Err(Refusal::Epoch { found: 1, approved: 2 }), "{done}");
        let in_another = Past { last: Some((ROUND, 2)), consented: Some((ROUND, 2)), ..now };
        assert_eq!(restore(in_another, records), Err(Refusal::AgreedBefore), "{done}");
        let joined = Past { last: Some((ROUND, 2)), ..now };
        assert_eq!(restore(joined, records), Err(Refusal::Replayed { round: ROUND, attempt: 1 }), "{done}");
    }
    // The record of the consent was lost, or the note of it was.
    let consent = records.iter().position(|fixed| fixed.step == Step::Consent).unwrap();
    assert_eq!(restore(whole, &records[..consent]), Err(Refusal::Record(Step::Consent)));
    let forgotten = on_record(1, &[]);
    assert_eq!(restore(forgotten, records), Err(Refusal::Record(Step::Consent)));
}

#[test]
fn a_session_of_an_old_epoch_says_nothing_more_once_a_new_one_is_approved() {
    for step in [Step::Shares, Step::Input, Step::Consent, Step::Reveal] {
        let mut rig = rig(step);
        let relay = rig.aggregator.relay(2).unwrap();
        let member = rig.members.get_mut(&2).unwrap();
        let past = Past { epoch: 2, last: None, consented: None, answered: None };
        let refusal = Err(Refusal::Epoch { found: 1, approved: 2 });
        assert_eq!(member.on(&relay, &past, &key(2)), refusal, "{step}");
        // Nor what it said already.
        let before = member.fixed().last().unwrap().input.clone();
        let again = Relay::from_bytes(&before).unwrap_or(relay);
        assert_eq!(member.on(&again, &past, &key(2)), refusal, "{step}");
    }
}

#[test]
fn a_reveal_waits_for_the_note_of_the_consent() {
    let mut rig = rig(Step::Reveal);
    let relay = rig.aggregator.relay(2).unwrap();
    let member = rig.members.get_mut(&2).unwrap();
    assert_eq!(member.on(&relay, &on_record(1, &[]), &key(2)), Err(Refusal::Record(Step::Consent)));
    assert!(matches!(asked(member, &relay, 2), Ok(Turn::Send(_))));
}

/// The consent of an epoch that is over says nothing about the rounds of the next one.
#[test]
fn consents_are_compared_within_an_epoch() {
    let second = changed(&setup(6, 1, Prg::Aes128Ctr, 5), |setup| (setup.epoch, setup.round) = (2, 1));
    let join = |past: Past| Member::new(second.clone(), demands(&second, 2), &past, &seed(2)).map(drop);
    let fresh = Past { epoch: 2, last: None, consented: None, answered: None };
    assert_eq!(join(fresh), Ok(()));
    assert_eq!(join(Past { consented: Some((1, 1)), ..fresh }), Err(Refusal::AgreedBefore));
    assert_eq!(join(past()), Err(Refusal::Epoch { found: 2, approved: 1 }));
}

#[test]
fn a_member_that_accused_is_restored_and_masks_nothing() {
    let mut all = rig(Step::Input);
    let mut relay = all.aggregator.relay(2).unwrap();
    let Relay::Shares { dealt, .. } = &mut relay else { panic!("boxes") };
    super::attacks::spoil(&mut dealt[3], 4, 2);
    let Turn::Send(accusation) = asked(all.members.get_mut(&2).unwrap(), &relay, 2).unwrap() else { panic!("masks") };
    let records = all.members[&2].fixed().to_vec();
    assert_eq!(records.last(), Some(&accusation));
    let mut member = restored(&all.setup, 2, &records).unwrap();
    assert_eq!(member.at(), Step::End);
    assert_eq!(asked(&mut member, &relay, 2), Ok(Turn::Send(accusation)), "the same accusation again");
    let sound = all.aggregator.relay(2).unwrap();
    let late = Refusal::OutOfTurn { found: Step::Input, at: Step::End };
    assert_eq!(asked(&mut member, &sound, 2), Err(late.clone()));
    assert_eq!(member.masker().map(drop), Err(late.clone()));
    let masked = Masked { root: hospes_protocol::id::Digest::of(b"one"), bytes: member.layout().bytes() };
    assert_eq!(member.commit(masked, &key(2)), Err(late));
    // Without its record the accusation is made again, and not an input.
    let mut before = restored(&all.setup, 2, &records[..2]).unwrap();
    assert_eq!(asked(&mut before, &relay, 2), Ok(Turn::Send(records[2].clone())));
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
    let consented = Past { consented: Some((first.round, 1)), ..taken };
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
    assert_eq!(aggregator.accept(site(4), old, None), Err(Refusal::OtherRound(site(4))));
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
        let mut rig = Rig::new(first.clone(), BTreeMap::new()).until(Step::Consent);
        let member = rig.members.get_mut(&2).unwrap();
        // Answered in another session after this one began.
        let past = Past { answered: Some(answered), ..on_record(1, member.fixed()) };
        let turn = member.on(&Relay::Inputs(included), &past, &key(2));
        match expected {
            true => assert!(matches!(turn, Ok(Turn::Send(_)))),
            false => assert_eq!(turn, Err(Refusal::OtherCohort)),
        }
    }
}
