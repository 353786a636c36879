use proptest::prelude::*;

use super::*;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn refusal() -> Refusal {
    Refusal::new(RefusalCode::Revoked, "the approval was revoked")
}

fn published(included: bool) -> Event {
    Event::Closed { outcome: RoundOutcome::Published { model: Some(digest(9)), included: Vec::new() }, included }
}

fn committed() -> Round {
    let mut round = Round::offered(false, at(1_000));
    round.on(Event::Permitted { deadline: at(900) }, at(0));
    round.on(Event::Made { step: Step::Input, digest: digest(1) }, at(1));
    round
}

#[test]
fn a_permitted_site_works_commits_is_confirmed_and_published() {
    let mut round = Round::offered(false, at(1_000));
    let started = round.on(Event::Permitted { deadline: at(900) }, at(0));
    assert_eq!(started, [Action::Reply(RoundReply::Working), Action::Work]);
    assert_eq!(round.on(Event::Progress { done: 1, total: 2 }, at(1)), [Action::Progress { done: 1, total: 2 }]);
    assert_eq!(round.on(Event::Progress { done: 1, total: 2 }, at(2)), []);
    let made = round.on(Event::Made { step: Step::Input, digest: digest(1) }, at(3));
    assert_eq!(made, [Action::Send { step: Step::Input, digest: digest(1) }]);
    assert_eq!(round.on(Event::Confirmed { step: Step::Input, digest: digest(2) }, at(4)), []);
    let confirmed = round.on(Event::Confirmed { step: Step::Input, digest: digest(1) }, at(4));
    assert_eq!(confirmed, [Action::Erase(digest(1))]);
    assert_eq!(round.on(published(true), at(5)), []);
    assert_eq!(*round.state(), State::Published { model: Some(digest(9)), included: true });
}

#[test]
fn a_refused_site_never_works_and_says_so_as_often_as_it_is_asked() {
    let mut round = Round::offered(false, at(1_000));
    let said = vec![Action::Reply(RoundReply::Refused(refusal()))];
    assert_eq!(round.on(Event::Refused(refusal()), at(0)), said);
    assert_eq!(round.on(Event::Permitted { deadline: at(900) }, at(1)), []);
    assert_eq!(round.on(Event::OfferedAgain, at(2)), said);
}

#[test]
fn a_revocation_stops_work_and_keeps_a_committed_input_from_leaving() {
    let mut working = Round::offered(false, at(1_000));
    working.on(Event::Permitted { deadline: at(900) }, at(0));
    let reply = Action::Reply(RoundReply::Withdrawn(refusal()));
    assert_eq!(working.on(Event::Withdrawn(refusal()), at(1)), [Action::Stop, reply.clone()]);
    let mut waiting = committed();
    assert_eq!(waiting.on(Event::Withdrawn(refusal()), at(2)), [Action::Erase(digest(1)), reply.clone()]);
    assert_eq!(*waiting.state(), State::Withdrawn(refusal()));
    let mut gone = committed();
    gone.on(Event::Confirmed { step: Step::Input, digest: digest(1) }, at(2));
    assert_eq!(gone.on(Event::Withdrawn(refusal()), at(3)), [reply]);
    assert_eq!(*gone.state(), State::Acknowledged(digest(1)));
}

#[test]
fn after_a_restart_work_fails_and_a_committed_input_is_sent_again() {
    let (round, actions) = Round::restore(false, at(1_000), State::Working);
    assert!(matches!(round.state(), State::Failed(_)));
    assert!(matches!(actions.as_slice(), [Action::Stop, Action::Reply(RoundReply::Failed(_))]));
    let (mut round, actions) = Round::restore(false, at(1_000), State::Committed(digest(1)));
    assert_eq!(actions, [Action::Send { step: Step::Input, digest: digest(1) }]);
    assert_eq!(round.on(Event::OfferedAgain, at(1)).len(), 2);
}

#[test]
fn secure_mode_walks_through_every_step_in_order_and_plain_mode_refuses_them() {
    let steps = [Step::Keys, Step::Shares, Step::Input, Step::Consent, Step::Reveal];
    let mut round = Round::offered(true, at(1_000));
    round.on(Event::Permitted { deadline: at(900) }, at(0));
    assert_eq!(round.on(Event::Made { step: Step::Input, digest: digest(3) }, at(0)), [], "no input before the keys");
    for (i, step) in (1u8..).zip(steps) {
        let sent = round.on(Event::Made { step, digest: digest(i) }, at(1));
        assert_eq!(sent, [Action::Send { step, digest: digest(i) }]);
        round.on(Event::Confirmed { step, digest: digest(i) }, at(2));
    }
    assert_eq!(*round.state(), State::Revealed(digest(3)));
    let mut plain = Round::offered(false, at(1_000));
    plain.on(Event::Permitted { deadline: at(900) }, at(0));
    assert_eq!(plain.on(Event::Made { step: Step::Keys, digest: digest(1) }, at(1)), []);
}

#[test]
fn a_site_agrees_to_a_sum_whose_announcement_overtook_its_receipt_and_to_none_before_its_input() {
    let mut round = Round::offered(true, at(1_000));
    round.on(Event::Permitted { deadline: at(900) }, at(0));
    for (i, step) in (1u8..).zip([Step::Keys, Step::Shares]) {
        round.on(Event::Made { step, digest: digest(i) }, at(1));
    }
    assert_eq!(round.on(Event::Made { step: Step::Consent, digest: digest(9) }, at(1)), []);
    round.on(Event::Made { step: Step::Input, digest: digest(3) }, at(2));
    round.on(Event::Made { step: Step::Consent, digest: digest(4) }, at(3));
    assert_eq!(*round.state(), State::Agreed(digest(3)));
    // The receipt that comes late changes nothing.
    assert_eq!(round.on(Event::Confirmed { step: Step::Input, digest: digest(3) }, at(4)), []);
    assert_eq!(*round.state(), State::Agreed(digest(3)));
}

fn events() -> impl Strategy<Value = Event> {
    let steps =
        prop_oneof![Just(Step::Keys), Just(Step::Shares), Just(Step::Input), Just(Step::Consent), Just(Step::Reveal)];
    prop_oneof![
        (0i64..2_000).prop_map(|ms| Event::Permitted { deadline: at(ms) }),
        Just(Event::Refused(refusal())),
        (0u32..3).prop_map(|done| Event::Progress { done, total: 3 }),
        (steps.clone(), 0u8..3).prop_map(|(step, d)| Event::Made { step, digest: digest(d) }),
        Just(Event::Failed("no memory".to_owned())),
        (steps, 0u8..3).prop_map(|(step, d)| Event::Confirmed { step, digest: digest(d) }),
        Just(Event::Declined("the round is over".to_owned())),
        Just(Event::Withdrawn(refusal())),
        Just(Event::OfferedAgain),
        any::<bool>().prop_map(published),
        Just(Event::Tick),
    ]
}

/// Rank of a state; a round never goes back.
fn rank(state: &State) -> u8 {
    match state {
        State::Offered => 0,
        State::Working => 1,
        State::Advertised => 2,
        State::Shared => 3,
        State::Committed(_) => 4,
        State::Acknowledged(_) => 5,
        State::Agreed(_) => 6,
        State::Revealed(_) => 7,
        _ => 8,
    }
}

proptest! {
    #[test]
    fn whatever_happens_states_only_go_forward_nothing_is_sent_unpermitted_and_every_run_ends(
        secure in any::<bool>(),
        steps in proptest::collection::vec((events(), 0i64..100), 0..60),
    ) {
        let mut round = Round::offered(secure, at(1_000));
        let (mut now, mut permitted) = (0, false);
        for (event, wait) in steps {
            now += wait;
            let before = round.state().clone();
            permitted |= matches!(event, Event::Permitted { .. }) && before == State::Offered;
            let actions = round.on(event, at(now));
            prop_assert!(rank(round.state()) >= rank(&before));
            prop_assert!(!before.is_terminal() || *round.state() == before);
            let leaves = actions.iter().any(|a| matches!(a, Action::Send { .. } | Action::Work));
            prop_assert!(!leaves || permitted);
            prop_assert!(!leaves || !round.state().is_terminal());
        }
        while let Some(wake) = round.wake() {
            now = now.max(wake.as_millis());
            let before = round.state().clone();
            round.on(Event::Tick, at(now));
            prop_assert_ne!(round.state(), &before, "a due tick must change something");
        }
        prop_assert!(round.state().is_terminal());
    }
}
