use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::approval::{Refusal, RefusalCode};
use crate::id::JobId;
use crate::plan::Quantise;
use crate::round::RosterEntry;
use crate::sign::SecretKey;
use crate::version::Version;

const PATIENCE: i64 = 100;
const DEADLINE: i64 = 10_000;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn header(n: u8, mode: Mode) -> RoundHeader {
    let roster = (0..n).map(|i| {
        let identity = SecretKey::from_seed(&[i + 1; 32]).public();
        RosterEntry { site: identity.site_id(), identity }
    });
    RoundHeader {
        protocol: Version::V1,
        federation: SiteId::of_key(&[0; 32]),
        study: crate::id::StudyId::new(at(0), [0; 10]),
        job: JobId::new(at(0), [0; 10]),
        task: "train".to_owned(),
        epoch: 1,
        round: 1,
        attempt: 1,
        model: None,
        plan: digest(0),
        roster: roster.collect(),
        mode,
        tensors: Vec::new(),
        quantise: Quantise::default(),
        deadline: at(DEADLINE),
    }
}

fn plain(n: u8, k_min: u32) -> (Round, Vec<SiteId>) {
    let header = header(n, Mode::Plain { k_min });
    let sites = header.roster.iter().map(|e| e.site).collect();
    (Round::open(&header, PATIENCE, at(0)), sites)
}

#[test]
fn a_turn_waits_for_one_site_and_takes_nothing_from_others() {
    let mut header = header(4, Mode::Plain { k_min: 2 });
    let sites: Vec<SiteId> = header.roster.iter().map(|e| e.site).collect();
    header.mode = Mode::Turn { site: sites[2] };
    assert_eq!((header.k_min(), header.asked().collect::<Vec<_>>()), (1, vec![sites[2]]));
    let open = || Round::open(&header, PATIENCE, at(0));
    let mut round = open();
    assert_eq!(round.awaited().collect::<Vec<_>>(), [sites[2]]);
    assert!(matches!(round.on(input(sites[0], 1), at(1))[..], [Action::Decline { .. }]));
    let actions = round.on(input(sites[2], 2), at(2));
    assert!(actions.contains(&Action::Entered { phase: Phase::Committed, with: vec![sites[2]] }), "{actions:?}");
    // Restored, it is the same round.
    let durable = Durable { inputs: [(sites[2], digest(2))].into(), ..Durable::default() };
    assert_eq!(Round::restore(&header, PATIENCE, durable, at(3)).0.included(), [sites[2]]);
    // Without that site there is no result, whoever else is there.
    let mut refused = open();
    let reply = Event::Reply { site: sites[2], reply: RoundReply::Failed("out of memory".into()) };
    assert!(matches!(ended(&refused.on(reply, at(1))), Some(Phase::Abandoned(_))));
    let mut silent = open();
    assert!(matches!(ended(&silent.on(Event::Tick, at(PATIENCE))), Some(Phase::Abandoned(_))));
}

fn input(site: SiteId, n: u8) -> Event {
    Event::Sent { site, step: Step::Input, digest: digest(n) }
}

fn ended(actions: &[Action]) -> Option<&Phase> {
    actions.iter().find_map(|a| if let Action::Ended(phase) = a { Some(phase) } else { None })
}

#[test]
fn a_plain_round_closes_with_its_last_input_and_skips_the_middle_phases() {
    let (mut round, sites) = plain(3, 2);
    for site in &sites {
        round.on(Event::Reply { site: *site, reply: RoundReply::Working }, at(1));
    }
    assert_eq!(*round.phase(), Phase::Working);
    // Inputs arrive against the roster's order; they count in the roster's order.
    round.on(input(sites[2], 2), at(2));
    round.on(input(sites[1], 1), at(3));
    let last = round.on(input(sites[0], 0), at(4));
    assert_eq!(last[1], Action::Entered { phase: Phase::Committed, with: sites.clone() });
    assert_eq!(round.included(), sites);
    assert_eq!(round.wake(), None);
    assert_eq!(ended(&round.on(Event::Reduced, at(5))), Some(&Phase::Published));
}

#[test]
fn the_same_input_again_is_acknowledged_again_and_another_one_is_declined() {
    let (mut round, sites) = plain(2, 2);
    let first = round.on(input(sites[0], 7), at(1));
    assert!(matches!(first[0], Action::Acknowledge { first: true, .. }));
    assert!(matches!(round.on(input(sites[0], 7), at(2))[0], Action::Acknowledge { first: false, .. }));
    assert!(matches!(round.on(input(sites[0], 8), at(3))[0], Action::Decline { .. }));
    let stranger = SiteId::of_key(&[99; 32]);
    assert!(matches!(round.on(input(stranger, 1), at(3))[0], Action::Decline { .. }));
    round.on(input(sites[1], 1), at(4));
    assert!(matches!(round.on(input(sites[0], 7), at(5))[0], Action::Acknowledge { first: false, .. }));
    round.on(Event::Reduced, at(6));
    assert!(matches!(round.on(input(sites[0], 7), at(7))[0], Action::Acknowledge { first: false, .. }));
}

#[test]
fn a_silent_site_is_left_out_when_enough_inputs_are_in() {
    let (mut round, sites) = plain(3, 2);
    round.on(input(sites[0], 0), at(10));
    round.on(input(sites[1], 1), at(20));
    assert_eq!(round.wake(), Some(at(PATIENCE)));
    assert_eq!(round.on(Event::Tick, at(PATIENCE - 1)), []);
    let closed = round.on(Event::Tick, at(PATIENCE));
    assert_eq!(closed, [Action::Entered { phase: Phase::Committed, with: vec![sites[0], sites[1]] }]);
    assert!(matches!(round.on(input(sites[2], 2), at(PATIENCE + 1))[0], Action::Decline { .. }), "too late");
}

#[test]
fn progress_extends_the_deadline_but_never_past_the_hard_one() {
    let (mut round, sites) = plain(3, 2);
    round.on(input(sites[0], 0), at(1));
    round.on(input(sites[1], 1), at(1));
    let mut now = 0;
    while now < DEADLINE - PATIENCE {
        now += PATIENCE / 2;
        assert_eq!(round.on(Event::Progress { site: sites[2] }, at(now)), []);
        assert_eq!(round.on(Event::Tick, at(now)), []);
    }
    assert_eq!(round.on(Event::Progress { site: sites[2] }, at(DEADLINE - 1)), []);
    assert_eq!(round.wake(), Some(at(DEADLINE)));
    assert!(matches!(round.on(Event::Tick, at(DEADLINE))[0], Action::Entered { .. }));
}

#[test]
fn a_round_that_cannot_succeed_is_abandoned_at_once_with_the_reasons() {
    let (mut round, sites) = plain(3, 3);
    let refusal = Refusal::new(RefusalCode::Expired, "the approval expired");
    let actions = round.on(Event::Reply { site: sites[0], reply: RoundReply::Refused(refusal) }, at(1));
    let Some(Phase::Abandoned(reason)) = ended(&actions) else { panic!("{actions:?}") };
    assert!(reason.contains("2 sites are left, 3 are needed") && reason.contains("the approval expired"), "{reason}");
}

#[test]
fn an_excluded_sites_input_is_not_used_unless_inputs_are_fixed() {
    let (mut round, sites) = plain(3, 2);
    round.on(input(sites[0], 0), at(1));
    let out = round.on(Event::Excluded { site: sites[0], reason: "revoked".to_owned() }, at(2));
    assert_eq!(out, [Action::Out { site: sites[0], reason: "revoked".to_owned() }]);
    assert_eq!(round.input(sites[0]), None);
    round.on(input(sites[1], 1), at(3));
    round.on(input(sites[2], 2), at(4));
    assert_eq!(round.included(), [sites[1], sites[2]]);
    assert_eq!(round.on(Event::Excluded { site: sites[1], reason: "revoked".to_owned() }, at(5)), []);
    assert_eq!(round.included(), [sites[1], sites[2]]);
}

#[test]
fn after_a_restart_confirmed_inputs_count_and_fixed_ones_are_summed_again() {
    let header = header(3, Mode::Plain { k_min: 2 });
    let sites: Vec<SiteId> = header.roster.iter().map(|e| e.site).collect();
    let inputs: BTreeMap<SiteId, Digest> = [(sites[0], digest(0)), (sites[1], digest(1))].into();
    let durable = Durable { inputs: inputs.clone(), ..Durable::default() };
    let (mut round, actions) = Round::restore(&header, PATIENCE, durable, at(5_000));
    assert!(actions.is_empty() && round.wake() == Some(at(5_000 + PATIENCE)));
    assert!(matches!(round.on(input(sites[0], 0), at(5_001))[0], Action::Acknowledge { first: false, .. }));
    assert!(matches!(round.on(input(sites[2], 2), at(5_001))[1], Action::Entered { .. }));
    let fixed = Durable { inputs, included: Some(sites[..2].to_vec()), ..Durable::default() };
    let (round, actions) = Round::restore(&header, PATIENCE, fixed, at(5_000));
    assert_eq!(actions, [Action::Entered { phase: Phase::Committed, with: sites[..2].to_vec() }]);
    assert_eq!(round.included(), &sites[..2]);
}

#[test]
fn secure_mode_goes_through_all_phases_and_survives_what_the_thresholds_allow() {
    let mode = Mode::SecureAggregation { c: 1, t: 3, k_min: 3 };
    let header = header(4, mode);
    let sites: Vec<SiteId> = header.roster.iter().map(|e| e.site).collect();
    let mut round = Round::open(&header, PATIENCE, at(0));
    let mut send = |step, who: &[SiteId], now: i64| {
        let mut last = Vec::new();
        for site in who {
            last = round.on(Event::Sent { site: *site, step, digest: digest(1) }, at(now));
        }
        if who.len() < sites.len() {
            last.extend(round.on(Event::Tick, at(now + PATIENCE)));
        }
        last.into_iter().find_map(|a| if let Action::Entered { phase, with } = a { Some((phase, with)) } else { None })
    };
    assert_eq!(send(Step::Keys, &sites, 0), Some((Phase::Advertised, sites.clone())));
    assert_eq!(send(Step::Shares, &sites, 10), Some((Phase::Shared, sites.clone())));
    assert_eq!(send(Step::Input, &sites, 20), Some((Phase::Committed, sites.clone())));
    // One site falls silent after its input: its input stays, three of four still unmask.
    assert_eq!(send(Step::Consent, &sites[1..], 30), Some((Phase::Agreed, sites[1..].to_vec())));
    assert_eq!(send(Step::Reveal, &sites[1..], 140), Some((Phase::Revealed, sites[1..].to_vec())));
    assert_eq!(round.included(), sites);
    assert_eq!(ended(&round.on(Event::Reduced, at(1_000))), Some(&Phase::Published));
}

#[test]
fn secure_mode_is_abandoned_when_too_few_reveal() {
    let header = header(3, Mode::SecureAggregation { c: 1, t: 3, k_min: 3 });
    let sites: Vec<SiteId> = header.roster.iter().map(|e| e.site).collect();
    let mut round = Round::open(&header, PATIENCE, at(0));
    for step in [Step::Keys, Step::Shares, Step::Input, Step::Consent] {
        for site in &sites {
            round.on(Event::Sent { site: *site, step, digest: digest(1) }, at(1));
        }
    }
    assert_eq!(*round.phase(), Phase::Agreed);
    round.on(Event::Sent { site: sites[0], step: Step::Reveal, digest: digest(1) }, at(2));
    let actions = round.on(Event::Tick, at(1 + PATIENCE));
    assert!(matches!(ended(&actions), Some(Phase::Abandoned(_))), "{actions:?}");
}

#[test]
fn a_secure_round_restored_at_any_message_goes_on_as_if_nothing_had_happened() {
    let header = header(4, Mode::SecureAggregation { c: 1, t: 3, k_min: 3 });
    let sites: Vec<SiteId> = header.roster.iter().map(|e| e.site).collect();
    let mut round = Round::open(&header, PATIENCE, at(0));
    let mut durable = Durable::default();
    for (n, step) in (1u8..).zip([Step::Keys, Step::Shares, Step::Input, Step::Consent, Step::Reveal]) {
        // The last site says nothing after its shares.
        let speak = if step <= Step::Shares { &sites[..] } else { &sites[..3] };
        for site in speak {
            let mut actions = round.on(Event::Sent { site: *site, step, digest: digest(n) }, at(i64::from(n)));
            actions.extend(round.on(Event::Tick, at(i64::from(n))));
            let sent = if step == Step::Input {
                &mut durable.inputs
            } else {
                &mut durable.steps.entry(step).or_default().sent
            };
            sent.insert(*site, digest(n));
            // The last site is waited for no more once it is excluded.
            if step == Step::Input && *site == speak[2] {
                let out = Event::Excluded { site: sites[3], reason: "gone".to_owned() };
                actions.extend(round.on(out, at(i64::from(n))));
                durable.out.insert(sites[3], "gone".to_owned());
            }
            for action in actions {
                if let Action::Entered { with, .. } = action {
                    durable.steps.entry(step).or_default().with = Some(with);
                }
            }
            let (restored, _) = Round::restore(&header, PATIENCE, durable.clone(), at(i64::from(n)));
            assert_eq!(restored.phase(), round.phase(), "{step:?}");
            assert_eq!(restored.included(), round.included());
            assert!(restored.awaited().eq(round.awaited()), "{step:?}");
        }
    }
    let (mut restored, actions) = Round::restore(&header, PATIENCE, durable, at(50));
    assert!(matches!(&actions[..], [Action::Entered { phase: Phase::Revealed, .. }]), "{actions:?}");
    assert_eq!(restored.included(), &sites[..3]);
    assert_eq!(ended(&restored.on(Event::Reduced, at(60))), Some(&Phase::Published));
}

#[test]
fn a_step_that_leads_nowhere_ends_the_attempt() {
    let header = header(3, Mode::SecureAggregation { c: 1, t: 3, k_min: 3 });
    let mut round = Round::open(&header, PATIENCE, at(0));
    let broken = Event::Broken { reason: "one accuses another".to_owned() };
    assert_eq!(ended(&round.on(broken, at(1))), Some(&Phase::Abandoned("one accuses another".to_owned())));
}

/// Transitions that may happen, and no others.
fn is_legal(from: &Phase, to: &Phase, secure: bool) -> bool {
    use Phase::{Advertised, Agreed, Committed, Offered, Published, Revealed, Shared, Working};
    match (from, to) {
        (a, b) if a == b => true,
        (a, _) if a.is_terminal() => false,
        (_, Phase::Abandoned(_) | Phase::Failed(_)) => true,
        (Offered, Working) => true,
        (Offered | Working, Committed) | (Committed, Published) => !secure,
        (Offered | Working, Advertised)
        | (Advertised, Shared)
        | (Shared, Committed)
        | (Committed, Agreed)
        | (Agreed, Revealed)
        | (Revealed, Published) => secure,
        _ => false,
    }
}

fn event(n: usize) -> impl Strategy<Value = (usize, u8, u8, u8)> {
    (0..n, 0u8..10, 0u8..5, 0u8..2)
}

fn build(sites: &[SiteId], (site, kind, step, d): (usize, u8, u8, u8)) -> Event {
    let site = sites[site % sites.len()];
    let steps = [Step::Keys, Step::Shares, Step::Input, Step::Consent, Step::Reveal];
    match kind {
        0 => Event::Reply { site, reply: RoundReply::Working },
        1 => Event::Reply { site, reply: RoundReply::Failed("no memory".to_owned()) },
        2 => Event::Progress { site },
        3..=6 => Event::Sent { site, step: steps[step as usize], digest: digest(d) },
        7 => Event::Excluded { site, reason: "revoked".to_owned() },
        8 if d == 0 => Event::Reduced,
        8 => Event::NotReduced { reason: "disk".to_owned(), again: step == 0 },
        _ => Event::Tick,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn every_run_ends_no_input_counts_twice_and_no_transition_is_illegal(
        n in 2u8..8,
        secure in any::<bool>(),
        k_min in 1u32..8,
        t in 1u32..8,
        steps in proptest::collection::vec((event(9), 0i64..60), 0..120),
    ) {
        let mode = if secure { Mode::SecureAggregation { c: 1, t, k_min } } else { Mode::Plain { k_min } };
        let header = header(n, mode);
        let mut sites: Vec<SiteId> = header.roster.iter().map(|e| e.site).collect();
        let mut round = Round::open(&header, PATIENCE, at(0));
        let roster = sites.clone();
        sites.push(SiteId::of_key(&[200; 32]));
        let mut now = 0;
        let mut first: BTreeSet<(SiteId, Step)> = BTreeSet::new();
        let mut fixed: Option<Vec<SiteId>> = None;
        let mut ends = 0;
        let mut apply = |round: &mut Round, event: Event, now: i64| -> Result<(), TestCaseError> {
            let before = round.phase().clone();
            let actions = round.on(event, at(now));
            let mut last = before;
            for action in &actions {
                match action {
                    Action::Acknowledge { site, step, first: true, .. } => {
                        prop_assert!(first.insert((*site, *step)), "counted twice");
                    }
                    Action::Entered { phase, with } => {
                        prop_assert!(is_legal(&last, phase, secure) || last == Phase::Offered, "{last:?} to {phase:?}");
                        prop_assert!(with.iter().all(|s| roster.contains(s)));
                        last = phase.clone();
                    }
                    Action::Ended(phase) => {
                        prop_assert!(is_legal(&last, phase, secure), "{last:?} to {phase:?}");
                        last = phase.clone();
                        ends += 1;
                    }
                    _ => {}
                }
            }
            prop_assert!(is_legal(&last, round.phase(), secure), "{last:?} to {:?}", round.phase());
            if !round.included().is_empty() {
                let set = fixed.get_or_insert_with(|| round.included().to_vec());
                prop_assert_eq!(&*set, round.included(), "inputs were fixed");
                prop_assert!(set.len() >= k_min as usize);
                prop_assert!(set.iter().all(|s| first.contains(&(*s, Step::Input))));
            }
            prop_assert!(*round.phase() != Phase::Published || fixed.is_some());
            Ok(())
        };
        for (step, wait) in steps {
            now += wait;
            apply(&mut round, build(&sites, step), now)?;
        }
        // From here on only time passes, and sums that are asked for are taken.
        let mut turns = 0;
        while !round.phase().is_terminal() {
            turns += 1;
            prop_assert!(turns < 10, "{:?} does not end", round.phase());
            match round.wake() {
                Some(wake) => {
                    now = now.max(wake.as_millis());
                    apply(&mut round, Event::Tick, now)?;
                }
                None => apply(&mut round, Event::Reduced, now)?,
            }
        }
        prop_assert!(now <= DEADLINE + 120 * 60 + 3 * PATIENCE);
        prop_assert_eq!(ends, 1);
    }
}
