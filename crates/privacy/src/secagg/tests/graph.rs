//! Above 128 parties: neighbours, positions, and how many may be missing. One session of 160 is played to its end, and
//! each test begins with what its members recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use hospes_protocol::canon::Canonical;
use hospes_protocol::sign::Signed;

use super::rig::{Rig, asked, commit, key, received, restored, setup, site};
use crate::secagg::*;

const N: u32 = 160;
/// One twentieth.
const MISSING: u32 = 8;
/// ⌊(n + c)/2⌋ + 1 for c = 1.
const QUORUM: usize = 81;

/// A session of which everybody saw the end.
struct Whole {
    setup: Canonical<Setup>,
    records: BTreeMap<u32, Vec<Fixed>>,
    uploads: BTreeMap<u32, Masked>,
    neighbours: u32,
    threshold: u32,
}

fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let rig = Rig::new(setup(N, 1, Prg::Aes128Ctr, 3), BTreeMap::new()).until(Step::End);
        assert_eq!(rig.sums().unwrap(), rig.plain());
        let Graph::Harary { missing, neighbours, threshold } = rig.setup.graph else { panic!("a graph") };
        assert_eq!(missing, MISSING);
        Whole {
            setup: rig.setup,
            records: rig.members.into_iter().map(|(party, member)| (party, member.fixed().to_vec())).collect(),
            uploads: rig.uploads.iter().map(|(party, blocks)| (*party, received(blocks))).collect(),
            neighbours,
            threshold,
        }
    })
}

impl Whole {
    fn record(&self, party: u32, step: Step) -> &Fixed {
        self.records[&party].iter().find(|fixed| fixed.step == step).unwrap()
    }

    /// A member that has said all before this step.
    fn member(&self, party: u32, step: Step) -> Member {
        let before = self.records[&party].iter().take_while(|fixed| fixed.step < step).cloned().collect::<Vec<_>>();
        restored(&self.setup, party, &before).unwrap()
    }

    /// What was relayed to a member for its answer in this step.
    fn relay(&self, party: u32, step: Step) -> Relay {
        Relay::from_bytes(&self.record(party, step).input).unwrap()
    }

    fn hears(&self, aggregator: &mut Aggregator, step: Step, parties: impl IntoIterator<Item = u32>) {
        for party in parties {
            let sent = Sent::from_bytes(&self.record(party, step).message).unwrap();
            aggregator.accept(site(party), sent, Some(self.uploads[&party])).unwrap();
        }
    }

    /// The aggregator in this step, after everybody spoke in all before.
    fn aggregator(&self, step: Step) -> Aggregator {
        let mut aggregator = Aggregator::new(self.setup.clone()).unwrap();
        while aggregator.at() < step {
            let at = aggregator.at();
            self.hears(&mut aggregator, at, 0..N);
            aggregator.close(&(0..N).collect()).unwrap();
        }
        aggregator
    }

    /// A member's neighbours, as they follow from whose boxes came to it.
    fn near(&self, party: u32) -> Vec<u32> {
        let Relay::Shares { dealt, .. } = self.relay(party, Step::Input) else { panic!("boxes") };
        dealt.iter().map(|delivery| delivery.shares.document.from).collect()
    }
}

/// What a member answers in a step to a relay that was changed.
fn attacked(party: u32, step: Step, change: impl FnOnce(&mut Relay)) -> Result<Turn, Refusal> {
    let mut relay = whole().relay(party, step);
    change(&mut relay);
    asked(&mut whole().member(party, step), &relay, party)
}

/// A relay of boxes without these members.
fn without(relay: &mut Relay, gone: &[u32]) {
    let Relay::Shares { active, dealt } = relay else { panic!("boxes") };
    active.retain(|party| !gone.contains(party));
    dealt.retain(|delivery| !gone.contains(&delivery.shares.document.from));
}

/// One test, because each has a process of its own, in which a session of so many would be played anew.
#[test]
fn a_session_of_a_hundred_and_sixty_keeps_its_rules() {
    a_member_masks_only_among_enough_of_its_own_neighbours();
    no_step_goes_on_with_more_missing_than_the_graph_was_found_for();
    the_quorum_of_a_graph_is_that_of_the_whole_roster();
    a_member_of_a_graph_restored_at_any_step_goes_on_as_if_nothing_had_happened();
    positions_are_those_that_were_committed_to();
    only_neighbours_accuse();
}

/// Attack: none, or too few, of a member's own neighbours are among the active, so that its self-mask alone hides it.
fn a_member_masks_only_among_enough_of_its_own_neighbours() {
    let (whole, near) = (whole(), whole().near(2));
    assert_eq!(near.len(), whole.neighbours as usize);
    // As many as may be missing of all, and all of them next to this member.
    let few = &near[..MISSING as usize];
    let left = whole.neighbours - MISSING;
    assert!(left < whole.threshold, "the test needs a graph in which that matters: {left} {}", whole.threshold);
    let missing: Vec<_> = few.iter().map(|party| site(*party)).collect();
    let (present, needed) = (left as usize, whole.threshold as usize);
    let refusal = Refusal::TooFewHolders { of: site(2), present, needed, missing };
    assert_eq!(attacked(2, Step::Input, |relay| without(relay, few)), Err(refusal.clone()));
    // Of others, or as few as leave enough, as many may be missing.
    let far: Vec<u32> = (0..N).filter(|party| *party != 2 && !near.contains(party)).take(MISSING as usize).collect();
    assert_eq!(attacked(2, Step::Input, |relay| without(relay, &far)), Ok(Turn::Mask));
    let enough = &near[..(whole.neighbours - whole.threshold) as usize];
    assert_eq!(attacked(2, Step::Input, |relay| without(relay, enough)), Ok(Turn::Mask));
    // The sum is not agreed to either, if they are missing from it.
    let sum = |gone: &[u32]| {
        let set = (0..N).filter(|party| !gone.contains(party)).collect();
        attacked(2, Step::Consent, |relay| *relay = Relay::Inputs(set))
    };
    assert_eq!(sum(few), Err(refusal.clone()));
    assert!(matches!(sum(&far), Ok(Turn::Send(_))));
    // An aggregator does not ask for what they would refuse.
    for step in [Step::Shares, Step::Input] {
        let mut aggregator = whole.aggregator(step);
        whole.hears(&mut aggregator, step, (0..N).filter(|party| !few.contains(party)));
        let refusal = aggregator.close(&(0..N).collect()).unwrap_err();
        assert!(matches!(refusal, Refusal::TooFewHolders { .. }), "{step}: {refusal}");
    }
    // None at all: that is too few of all members, too.
    let none = attacked(2, Step::Input, |relay| without(relay, &near));
    assert!(matches!(none, Err(Refusal::TooFew { step: Step::Shares, .. })), "{none:?}");
}

/// More missing than the degree was found for are refused in every step, by members and by the aggregator.
fn no_step_goes_on_with_more_missing_than_the_graph_was_found_for() {
    let whole = whole();
    let least = (N - MISSING) as usize;
    // Far from each other, so that nobody lacks neighbours.
    let near = whole.near(2);
    let others: Vec<u32> = (0..N).filter(|party| *party != 2 && !near.contains(party)).collect();
    let gone = |many: u32| -> BTreeSet<u32> { others.iter().copied().take(many as usize).collect() };
    for step in [Step::Keys, Step::Positions, Step::Shares, Step::Input] {
        for many in [MISSING, MISSING + 1] {
            let gone = gone(many);
            let mut aggregator = whole.aggregator(step);
            whole.hears(&mut aggregator, step, (0..N).filter(|party| !gone.contains(party)));
            match aggregator.close(&(0..N).collect()) {
                Err(Refusal::TooFew { step: at, present, needed, missing }) => {
                    assert_eq!((at, present, needed), (step, least - 1, least));
                    assert_eq!(missing.len(), many as usize);
                }
                // Of who is gone, all may be neighbours of somebody else.
                other => assert!(many == MISSING && !matches!(other, Err(Refusal::TooFew { .. })), "{step} {other:?}"),
            }
        }
    }
    let keys = |gone: &BTreeSet<u32>| {
        attacked(2, Step::Positions, |relay| {
            let Relay::Keys(all) = relay else { panic!("keys") };
            all.retain(|keys| !gone.contains(&keys.document.from));
        })
    };
    let positions = |gone: &BTreeSet<u32>| {
        attacked(2, Step::Shares, |relay| {
            let Relay::Positions(all) = relay else { panic!("positions") };
            all.retain(|opening| !gone.contains(&opening.document.from));
        })
    };
    let boxes = |gone: &BTreeSet<u32>| {
        attacked(2, Step::Input, |relay| without(relay, &gone.iter().copied().collect::<Vec<_>>()))
    };
    let inputs = |gone: &BTreeSet<u32>| {
        let set = (0..N).filter(|party| !gone.contains(party)).collect();
        attacked(2, Step::Consent, |relay| *relay = Relay::Inputs(set))
    };
    type Ask<'a> = &'a dyn Fn(&BTreeSet<u32>) -> Result<Turn, Refusal>;
    for ask in [&keys as Ask, &positions, &boxes, &inputs] {
        assert!(ask(&gone(MISSING)).is_ok());
        let refusal = ask(&gone(MISSING + 1)).unwrap_err();
        assert!(
            matches!(&refusal, Refusal::TooFew { present, needed, .. } if (*present, *needed) == (least - 1, least)),
            "{refusal}"
        );
    }
}

/// A quorum is one of the whole roster, not of neighbours: as many may fall silent after their inputs.
fn the_quorum_of_a_graph_is_that_of_the_whole_roster() {
    let whole = whole();
    let few = |many: usize| {
        attacked(2, Step::Reveal, |relay| {
            let Relay::Consents(all) = relay else { panic!("consents") };
            all.truncate(many);
        })
    };
    assert!(matches!(few(QUORUM), Ok(Turn::Send(_))));
    let refusal = Refusal::Consents { found: QUORUM - 1, needed: QUORUM, invalid: Vec::new() };
    assert_eq!(few(QUORUM - 1), Err(refusal));
    let close = |many: u32| {
        let mut aggregator = whole.aggregator(Step::Consent);
        whole.hears(&mut aggregator, Step::Consent, 0..many);
        aggregator.close(&(0..N).collect())
    };
    let quorum = u32::try_from(QUORUM).unwrap();
    assert_eq!(close(quorum), Ok(()));
    assert!(matches!(close(quorum - 1), Err(Refusal::TooFew { step: Step::Consent, .. })));
    // But secrets are shared among neighbours: so few of them reveal too little.
    let mut aggregator = whole.aggregator(Step::Reveal);
    whole.hears(&mut aggregator, Step::Reveal, 0..quorum);
    let refusal = aggregator.close(&(0..N).collect()).unwrap_err();
    assert!(matches!(refusal, Refusal::TooFewShares { .. }), "{refusal}");
}

fn a_member_of_a_graph_restored_at_any_step_goes_on_as_if_nothing_had_happened() {
    let steps = [Step::Positions, Step::Shares, Step::Input, Step::Consent, Step::Reveal];
    for step in steps {
        let mut member = whole().member(7, step);
        assert_eq!(member.at(), step);
        let fixed = match asked(&mut member, &whole().relay(7, step), 7).unwrap() {
            Turn::Send(fixed) => fixed,
            Turn::Mask => commit(&mut member, 7).0,
        };
        assert_eq!(&fixed, whole().record(7, step));
    }
    // Openings that were changed in the record lead to other neighbours.
    let mut records = whole().records[&7].clone();
    let Relay::Positions(mut all) = Relay::from_bytes(&records[2].input).unwrap() else { panic!("positions") };
    let near = whole().near(7);
    all.retain(|opening| opening.document.from != near[0]);
    records[2].input = Relay::Positions(all).to_bytes().unwrap();
    assert_eq!(restored(&whole().setup, 7, &records).map(drop), Err(Refusal::Record(Step::Shares)));
}

fn positions_are_those_that_were_committed_to() {
    let attack = |change: &dyn Fn(&mut Vec<Signed<Opening>>)| {
        attacked(2, Step::Shares, |relay| {
            let Relay::Positions(all) = relay else { panic!("positions") };
            change(all);
        })
    };
    let chosen = |opening: &mut Opening| opening.reveal = Point::from_bytes([1; 32]);
    let resigned = |signed: &Signed<Opening>| {
        let mut opening = signed.document.clone().into_inner();
        chosen(&mut opening);
        Signed::new(opening, &key(4)).unwrap()
    };
    assert_eq!(attack(&|all| all[4] = resigned(&all[4])), Err(Refusal::Position(site(4))));
    assert_eq!(attack(&|all| all[4].document = resigned(&all[4]).document), Err(Refusal::Unsigned(site(4))));
    assert_eq!(attack(&|all| all.swap(3, 4)), Err(Refusal::Twice(site(3))));
    assert_eq!(attack(&|all| drop(all.remove(2))), Err(Refusal::OwnMessage));
    assert!(matches!(attack(&|_| {}), Ok(Turn::Send(_))));
}

fn only_neighbours_accuse() {
    let whole = whole();
    let near = whole.near(2);
    let far = (0..N).find(|party| *party != 2 && !near.contains(party)).unwrap();
    let mut aggregator = whole.aggregator(Step::Input);
    let mut accuse = |of: u32| {
        let accusation = Accusation { sid: whole.setup.digest(), from: 2, of, fault: Fault::Box };
        aggregator.accept(site(2), Sent::Accusation(Signed::new(accusation, &key(2)).unwrap()), None)
    };
    assert!(matches!(accuse(far), Err(Refusal::Malformed { site: s, .. }) if s == site(2)));
    assert_eq!(accuse(near[0]), Ok(2));
}
