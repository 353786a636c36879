//! Attacks on rounds with secure aggregation, by a coordinator that speaks the real protocol: gRPC over mutual TLS, to the
//! real engine of a site over its real link. It has the other sites' keys, too, so that whatever they say can be its word.
//! Which attack has which test: `docs/security-review.md`.

use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use hospes_privacy::masked;
use hospes_privacy::secagg::{
    Advertise, Delivery, Fault, Past, Relay, Reveal, Revealed, Sent, Shares, Step, Thresholds, Turn,
};
use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::canon::{Canonical, Document};
use hospes_protocol::id::Digest;
use hospes_protocol::message::{Decision, FromSite, RoundOutcome, RoundReply, SecureMessage, ToSite};
use hospes_protocol::policy::Policy;
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::{Signature, Signed};
use hospes_protocol::study::{Member, Roster, Study};
use tokio::sync::mpsc;
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::coordinator::{Coordinator, Options, now};
use crate::link::Enrolled;
use crate::memberships::Joined;
use crate::tests::secure::{Ring, US, files, masked_header, masked_plan};
use crate::tests::{World, job, key, member, model, small_plan, study, this_site};
use crate::view::LinkView;

/// A site, and the coordinator that attacks it.
struct Attack {
    world: World,
    coordinator: Coordinator,
    ear: mpsc::UnboundedReceiver<FromSite>,
    study: Study,
}

/// The same document with something changed in it, signed anew by the member with this party number.
fn resigned<D: Document + Clone>(signed: &Signed<D>, by: u8, change: impl FnOnce(&mut D)) -> Signed<D> {
    let mut document = signed.document.clone().into_inner();
    change(&mut document);
    Signed::new(document, &key(by + 1)).unwrap()
}

/// The same document with something changed in it under the signature that it had.
fn forged<D: Document + Clone>(signed: &Signed<D>, change: impl FnOnce(&mut D)) -> Signed<D> {
    let mut document = signed.document.clone().into_inner();
    change(&mut document);
    Signed { document: Canonical::new(document).unwrap(), signatures: signed.signatures.clone() }
}

impl Attack {
    /// A site among four, which verified the three others.
    async fn on(folder: &Path) -> Self {
        Box::pin(Self::among(folder, 4, 4, &Policy::public_data())).await
    }

    /// A site among so many, of which it verified those up to a number, with an approved study and a running job.
    async fn among(folder: &Path, members: u8, verified: u8, policy: &Policy) -> Self {
        let coordinator = Coordinator::start_with(Options { seed: 200, ..Options::default() }).await;
        let site = this_site().public().site_id();
        let (told, ear) = mpsc::unbounded_channel();
        {
            let mut state = coordinator.state();
            (state.site, state.ear) = (Some(site), Some(told));
        }
        let mut world = World::create_wired(folder, now().as_millis()).await;
        world.staff().await;
        world.set_policy(policy).await;
        world.add_dataset("Cleveland", "cleveland.csv", true).await;
        let federation = coordinator.federation();
        let (chain_pem, key_pem) = coordinator.authority.client(federation, site, -2, 30);
        let mut all: Vec<Member> = (1..=members).map(member).collect();
        all.sort_by_key(|member| member.site);
        let mut study = study(1, masked_plan(6));
        study.members = all.iter().map(|member| member.site).collect();
        let roster = Roster { federation, version: 1, at: now(), members: all };
        let enrolled = Enrolled {
            url: coordinator.url(),
            federation,
            name: "Heart Federation".into(),
            site,
            site_name: "Site 1".into(),
            coordinator: coordinator.key.public(),
            ca_pem: coordinator.authority.pem(),
            chain_pem,
            key_pem: Zeroizing::new(key_pem),
            roster: Signed::new(roster, &coordinator.key).unwrap(),
        };
        let joined = Joined::by_hand(enrolled, "Hospital 1", this_site());
        let session = world.who("ana").clone();
        world.handle.ask(move |e| e.join(session, joined).boxed()).await.unwrap();
        world.verify(2..=verified).await;
        let (file, digest) = model(&study.plan);
        coordinator.state().models.insert(digest, file);
        let mut attack = Self { world, coordinator, ear, study };
        attack.connected().await;
        attack.begin().await;
        attack
    }

    /// Offers the study, which the site's people approve, and starts its job.
    async fn begin(&mut self) {
        let study = self.study.clone();
        self.say(ToSite::Study(Box::new(Signed::new(study.clone(), &self.coordinator.key).unwrap()))).await;
        for _ in 0..600 {
            if !self.world.handle.requests(self.world.who("sam")).await.unwrap().is_empty() {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.world.approve(&study).await;
        let plan = Box::new(study.plan.clone());
        self.say(ToSite::JobReserve { job: job(1), study: study.id, plan }).await;
        let reserved = |said| match said {
            FromSite::Reserved { refusal, .. } => Some(refusal),
            _ => None,
        };
        assert_eq!(self.hear("an answer to the reservation", reserved).await, None);
        self.say(ToSite::JobStart { job: job(1) }).await;
    }

    async fn connected(&self) {
        for _ in 0..600 {
            let membership = self.world.handle.memberships(self.world.who("ana")).await.unwrap().remove(0);
            if matches!(membership.link, LinkView::Connected { .. }) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("the link does not come up");
    }

    /// The site's process ends and another begins.
    async fn restart(&mut self, folder: &Path) {
        let now = self.world.now().as_millis();
        self.world.handle.shut_down().await.unwrap();
        self.coordinator.state().sessions.clear();
        self.world = World::reopen_wired(folder, now).await;
        self.connected().await;
    }

    async fn say(&self, message: ToSite) {
        self.coordinator.say(message).await;
    }

    /// What the site says, once it is what is wanted.
    async fn hear<T>(&mut self, what: &str, mut wanted: impl FnMut(FromSite) -> Option<T>) -> T {
        let ear = &mut self.ear;
        let found = async {
            loop {
                let said = ear.recv().await.expect("the coordinator is gone");
                if let Some(found) = wanted(said) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), found).await;
        found.unwrap_or_else(|_| panic!("the site never says {what}"))
    }

    fn header(&self, round: u32, attempt: u32) -> RoundHeader {
        masked_header(&self.study, round, attempt, self.world.now())
    }

    /// Opens a round.
    async fn open(&mut self, header: &RoundHeader) {
        self.coordinator.state().staged.clear();
        self.say(ToSite::RoundOpen(Box::new(Signed::new(header.clone(), &self.coordinator.key).unwrap()))).await;
    }

    /// Why the site takes no part in a round, or does not go on in it.
    async fn refusal(&mut self, header: &RoundHeader) -> Refusal {
        let wanted = header.key();
        let refused = |said| match said {
            FromSite::RoundReply { round, reply: RoundReply::Refused(refusal) | RoundReply::Withdrawn(refusal) }
                if round == wanted =>
            {
                Some(refusal)
            }
            _ => None,
        };
        self.hear("that it does not go on", refused).await
    }

    /// The next thing that the site says in a step of a round.
    async fn step(&mut self, header: &RoundHeader) -> Vec<u8> {
        let wanted = header.key();
        let step = |said| match said {
            FromSite::SecureStep { round, message } if round == wanted => Some(message.into_bytes()),
            _ => None,
        };
        self.hear("anything in the round", step).await
    }

    /// The site's masked update, when all of it is there and the site has the receipt.
    async fn upload(&self, ring: &Ring) -> Vec<u8> {
        let bytes = usize::try_from(masked::file_bytes(ring.aggregator.layout())).unwrap();
        for _ in 0..3_000 {
            let whole = self.coordinator.state().staged.values().find(|staged| staged.len() == bytes).cloned();
            if let Some(whole) = whole
                && self.world.outbox_states().await.first().is_some_and(|state| state == "sent")
            {
                return whole;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("no update comes");
    }

    /// Hears what the site owes in this step.
    async fn owed(&mut self, ring: &mut Ring) {
        if ring.aggregator.at() == Step::Input {
            let bytes = self.upload(ring).await;
            return ring.take_upload(&bytes);
        }
        let header = ring.header.clone();
        // It may say again what it said before.
        while !ring.take(&self.step(&header).await) {}
    }

    /// Plays a round from its opening, or from where it is, as an honest coordinator does, up to a step: what is relayed at
    /// its begin is not said yet.
    async fn play(&mut self, ring: &mut Ring, until: Step) {
        loop {
            self.owed(ring).await;
            ring.others_speak();
            ring.close();
            if ring.aggregator.at() == until {
                return;
            }
            self.say(ring.relay()).await;
        }
    }

    async fn opened(&mut self, header: &RoundHeader, until: Step) -> Ring {
        self.open(header).await;
        let mut ring = Ring::new(header);
        self.play(&mut ring, until).await;
        ring
    }

    async fn relay(&self, header: &RoundHeader, relay: &Relay) {
        let message = SecureMessage::new(relay.to_bytes().unwrap());
        self.say(ToSite::Relay { round: header.key(), message }).await;
    }

    /// Relays something, and sees it refused with these words.
    async fn refused(&mut self, header: &RoundHeader, relay: &Relay, words: &str) {
        self.relay(header, relay).await;
        let refusal = self.refusal(header).await;
        assert!(refusal.detail.contains(words), "'{words}' is not in: {refusal}");
    }
}

/// What the others say of their keys in a round.
fn keys_in(header: &RoundHeader) -> Vec<Signed<Advertise>> {
    let mut ring = Ring::new(header);
    ring.others_speak();
    ring.close();
    let Relay::Keys(keys) = ring.aggregator.relay(1).unwrap() else { panic!("keys") };
    keys
}

/// Attacks: 7 of 10 sites were enrolled by the coordinator, and the trusted peers are there; threshold lowered.
#[tokio::test(flavor = "multi_thread")]
async fn seven_of_ten_sites_that_a_coordinator_made_up_are_no_quorum() {
    let folder = tempfile::tempdir().unwrap();
    let mut policy = Policy::public_data();
    (policy.training.min_parties, policy.training.min_trusted_peers) = (3, 2);
    // Sites 2 and 3 are known; the coordinator has the keys of the seven others.
    let mut attack = Box::pin(Attack::among(folder.path(), 10, 3, &policy)).await;
    let header = |attempt: u32, colluding: u32| {
        let Thresholds { corrupt: c, quorum: t, k_min } = Thresholds::new(10, Some(colluding), 0, 3);
        let entry = |n: u8| RosterEntry { site: key(n).public().site_id(), identity: key(n).public() };
        let mode = Mode::SecureAggregation { c, t, k_min };
        RoundHeader { mode, roster: (1..=10).map(entry).collect(), ..attack.header(1, attempt) }
    };
    let (weak, strong) = (header(1, 3), header(2, 7));
    attack.open(&weak).await;
    let refusal = attack.refusal(&weak).await;
    let words = "the round's c is 3, and this site demands 7";
    assert_eq!((refusal.code, refusal.detail.as_str()), (RefusalCode::Policy, words));
    assert!(files(&attack.world.config.levels()).is_empty(), "it computed something");
    // Under a header that counts them all, the seven and this site are too few.
    let ring = Box::pin(attack.opened(&strong, Step::Shares)).await;
    let Relay::Keys(mut keys) = ring.aggregator.relay(US).unwrap() else { panic!("keys") };
    keys.retain(|keys| keys.document.from == US || keys.document.from >= 3);
    let words = "8 sites are left for the step 'keys', and 9 are needed";
    attack.refused(&strong, &Relay::Keys(keys), words).await;
    assert_eq!(attack.world.outbox_states().await, Vec::<String>::new(), "an update was to leave");
}

/// Attacks: an invented requester; threshold lowered; replay from an old epoch; overflow; extra or replaced members.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_promise_less_than_was_signed_are_refused_before_anything_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let mut attack = Box::pin(Attack::on(folder.path())).await;
    let masks = |c: u32, t: u32, k_min: u32| Mode::SecureAggregation { c, t, k_min };
    let invented = |n: u8| RosterEntry { site: key(n).public().site_id(), identity: key(n).public() };
    type Change<'a> = &'a dyn Fn(&mut RoundHeader);
    let attacks: [(&str, Change); 10] = [
        ("the round's t cannot be used", &|header| header.mode = masks(1, 2, 3)),
        ("the round's k_min cannot be used", &|header| header.mode = masks(1, 3, 2)),
        ("the round's c cannot be used", &|header| header.mode = masks(0, 3, 3)),
        ("the plan promises secure aggregation", &|header| header.mode = Mode::Plain { k_min: 2 }),
        ("its new epoch was not approved here", &|header| header.epoch = 0),
        ("puts numbers on the wire otherwise than the plan", &|header| header.quantise.n_max = u32::MAX),
        ("other tensors than the plan's model", &|header| header.tensors[0].shape = vec![u64::MAX]),
        ("was not in the approved roster", &|header| header.roster.push(invented(77))),
        ("with a key that is not its own", &|header| header.roster[2].identity = key(77).public()),
        ("names a site twice", &|header| header.roster[3] = header.roster[1].clone()),
    ];
    for (attempt, (words, change)) in (1u32..).zip(attacks) {
        let mut header = attack.header(1, attempt);
        change(&mut header);
        attack.open(&header).await;
        let refusal = attack.refusal(&header).await;
        assert!(refusal.detail.contains(words), "'{words}' is not in: {refusal}");
    }
    assert_eq!(attack.world.entered("permit_refused", "refused").await, attacks.len());
    assert_eq!(attack.world.entered("permit_minted", "success").await, 0);
    assert!(files(&attack.world.config.levels()).is_empty());
    // A requester who never signed.
    let mut invented = study(2, small_plan(1));
    invented.terms.requester.key = Some(key(9).public());
    let id = invented.id;
    attack.say(ToSite::Study(Box::new(Signed::new(invented, &attack.coordinator.key).unwrap()))).await;
    let decided = |said| match said {
        FromSite::Decision { study, decision: Decision::Refused(refusal) } if study == id => Some(refusal),
        _ => None,
    };
    let refusal = attack.hear("a decision", decided).await;
    assert!(refusal.detail.contains("did not sign it"), "{refusal}");
}

/// Attacks: different models for different sites; extra or replaced keys; replay.
#[tokio::test(flavor = "multi_thread")]
async fn keys_other_than_those_that_members_signed_for_this_round_end_the_sites_part() {
    let folder = tempfile::tempdir().unwrap();
    let mut attack = Box::pin(Attack::on(folder.path())).await;
    type Keys = Vec<Signed<Advertise>>;
    type Change<'a> = &'a dyn Fn(&RoundHeader, &mut Keys);
    let attacks: [(&str, Change); 7] = [
        ("is of another round or attempt", &|header, all| {
            let other = RoundHeader { model: Some(Digest::of(b"another model")), ..header.clone() };
            all.truncate(1);
            all.extend(keys_in(&other));
        }),
        ("is of another round or attempt", &|header, all| {
            let next = RoundHeader { round: header.round + 1, ..header.clone() };
            all[2] = keys_in(&next)[1].clone();
        }),
        ("stands twice, or out of order", &|_, all| all.insert(2, all[2].clone())),
        ("came back changed, or did not come back", &|_, all| drop(all.remove(0))),
        ("did not sign the message", &|_, all| all[2] = forged(&all[2], |keys| keys.share_key = keys.mask_key)),
        ("or are those of another site", &|_, all| {
            let theirs = all[3].document.mask_key;
            all[2] = resigned(&all[2], 2, |keys| keys.mask_key = theirs);
        }),
        ("2 sites are left for the step 'keys'", &|_, all| all.truncate(2)),
    ];
    for (attempt, (words, change)) in (1u32..).zip(attacks) {
        let header = attack.header(1, attempt);
        let ring = Box::pin(attack.opened(&header, Step::Shares)).await;
        let Relay::Keys(mut keys) = ring.aggregator.relay(US).unwrap() else { panic!("keys") };
        change(&header, &mut keys);
        attack.refused(&header, &Relay::Keys(keys), words).await;
    }
    // What the coordinator has is of the last attempt alone.
    assert_eq!(attack.world.outbox_states().await, Vec::<String>::new(), "an update was to leave");
}

/// Attacks: truncated or flipped box; replaced commitments; a member dealt wrongly, and signed it.
#[tokio::test(flavor = "multi_thread")]
async fn boxes_that_were_changed_are_refused_and_who_dealt_wrongly_is_accused() {
    let folder = tempfile::tempdir().unwrap();
    let mut attack = Box::pin(Attack::on(folder.path())).await;
    type Change<'a> = &'a dyn Fn(&mut Vec<u32>, &mut Vec<Delivery>);
    let attacks: [(&str, Change); 5] = [
        ("the box of shares of site", &|_, dealt| dealt[1].sealed[7] ^= 1),
        ("the box of shares of site", &|_, dealt| drop(dealt.remove(1))),
        ("did not sign the message", &|_, dealt| {
            dealt[1].shares = forged(&dealt[1].shares, |shares| shares.own.push(shares.own[0]));
        }),
        ("counts sites that cannot count", &|active, _| active.retain(|party| *party != 2)),
        ("2 sites are left for the step 'shares'", &|active, dealt| {
            active.truncate(2);
            dealt.truncate(1);
        }),
    ];
    for (attempt, (words, change)) in (1u32..).zip(attacks) {
        let header = attack.header(1, attempt);
        let ring = Box::pin(attack.opened(&header, Step::Input)).await;
        let Relay::Shares { mut active, mut dealt } = ring.aggregator.relay(US).unwrap() else { panic!("boxes") };
        change(&mut active, &mut dealt);
        attack.refused(&header, &Relay::Shares { active, dealt }, words).await;
    }
    // What a member signed itself is its own doing.
    let spoil = |delivery: &mut Delivery| {
        delivery.sealed[7] ^= 1;
        let digest = Digest::of(&delivery.sealed);
        let mine = |shares: &mut Shares| {
            shares.boxes.iter_mut().filter(|b| b.to == US).for_each(|b| b.digest = digest);
        };
        delivery.shares = resigned(&delivery.shares, 2, mine);
    };
    let shorten = |delivery: &mut Delivery| {
        delivery.shares = resigned(&delivery.shares, 2, |shares| shares.own.truncate(2));
    };
    let changes: [&dyn Fn(&mut Delivery); 2] = [&spoil, &shorten];
    for ((attempt, fault), change) in (6u32..).zip([Fault::Box, Fault::Commitments]).zip(changes) {
        let header = attack.header(1, attempt);
        let ring = Box::pin(attack.opened(&header, Step::Input)).await;
        let Relay::Shares { active, mut dealt } = ring.aggregator.relay(US).unwrap() else { panic!("boxes") };
        change(&mut dealt[1]);
        attack.relay(&header, &Relay::Shares { active, dealt }).await;
        let accusation = loop {
            // It may say again what it said before.
            if let Sent::Accusation(signed) = Sent::from_bytes(&attack.step(&header).await).unwrap() {
                break signed;
            }
        };
        assert!(accusation.signed_by(&this_site().public()));
        assert_eq!((accusation.document.of, accusation.document.fault), (2, fault));
    }
    // What the coordinator has is of the last attempt alone.
    assert_eq!(attack.world.outbox_states().await, Vec::<String>::new(), "an update was to leave");
}

/// The others' signatures under a set of inputs of which the coordinator tells each what it likes.
fn consents(ring: &mut Ring, told: &[(u32, Vec<u32>)]) -> Vec<(u32, Signature)> {
    let past = Past { epoch: ring.header.epoch, ..Past::default() };
    let mut all = Vec::new();
    for (party, set) in told {
        let signer = key(u8::try_from(*party).unwrap() + 1);
        let member = ring.others.get_mut(party).unwrap();
        let turn = member.on(&Relay::Inputs(set.clone()), &past, &signer).unwrap();
        let Turn::Send(fixed) = turn else { panic!("a consent") };
        let Sent::Consent(consent) = Sent::from_bytes(&fixed.message).unwrap() else { panic!("a consent") };
        all.push((*party, consent.signatures[0].signature));
    }
    all
}

/// Attacks: overlapping "active" and "dropped"; y_u recomputed; a crash between R3 and R4 and a second U3; different U3 for
/// different sites; a second attempt after R3.
#[tokio::test(flavor = "multi_thread")]
async fn one_input_and_one_set_of_inputs_is_all_that_a_site_stands_for_in_a_round() {
    let folder = tempfile::tempdir().unwrap();
    let mut attack = Box::pin(Attack::on(folder.path())).await;
    let header = attack.header(1, 1);
    let mut ring = Box::pin(attack.opened(&header, Step::Input)).await;
    let boxes = ring.aggregator.relay(US).unwrap();
    attack.say(ring.relay()).await;
    Box::pin(attack.play(&mut ring, Step::Consent)).await;
    let (input, sent) = (attack.upload(&ring).await, attack.coordinator.state().resumed_at.len());

    let sets = [
        ("stands twice, or out of order", vec![0, 1, 1, 2]),
        ("party 9 is not in the roster", vec![0, 1, 2, 9]),
        ("this site's input is not in the sum", vec![1, 2, 3]),
        ("2 sites are left for the step 'masked input'", vec![0, 1]),
    ];
    for (words, set) in sets {
        attack.refused(&header, &Relay::Inputs(set), words).await;
    }
    // Masked with fewer peers it would be another vector.
    let Relay::Shares { mut active, mut dealt } = boxes else { panic!("boxes") };
    active.pop();
    dealt.pop();
    attack.refused(&header, &Relay::Shares { active, dealt }, "in the step 'masked input' is fixed").await;

    attack.say(ring.relay()).await;
    attack.owed(&mut ring).await;
    let smaller = Relay::Inputs(vec![0, 1, 2]);
    attack.refused(&header, &smaller, "in the step 'consent' is fixed").await;
    Box::pin(attack.restart(folder.path())).await;
    attack.refused(&header, &smaller, "in the step 'consent' is fixed").await;
    // Two others signed another set, which they were told of.
    let signed = consents(&mut ring, &[(1, vec![0, 1, 2]), (2, vec![0, 1, 2]), (3, vec![0, 1, 2, 3])]);
    let words = "1 sites signed this set of inputs, and 3 must";
    attack.refused(&header, &Relay::Consents(signed), words).await;

    let outcome = RoundOutcome::Abandoned("too few".into());
    attack.say(ToSite::RoundClosed { round: header.key(), outcome }).await;
    let second = attack.header(1, 2);
    attack.say(ToSite::RoundOpen(Box::new(Signed::new(second.clone(), &attack.coordinator.key).unwrap()))).await;
    let refusal = attack.refusal(&second).await;
    assert!(refusal.code == RefusalCode::RoundReplayed && refusal.detail.contains("agreed"), "{refusal}");
    // What had left is all that ever left.
    let state = attack.coordinator.state();
    assert_eq!((state.staged.len(), state.resumed_at.len()), (1, sent));
    assert!(state.staged.values().all(|staged| *staged == input));
}

/// Attacks: both shares of one peer; overlapping "active" and "dropped" where one really dropped out.
#[tokio::test(flavor = "multi_thread")]
async fn of_one_peer_one_share_is_revealed_and_never_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut attack = Box::pin(Attack::on(folder.path())).await;
    let header = attack.header(1, 1);
    let mut ring = Box::pin(attack.opened(&header, Step::Reveal)).await;
    let consents = ring.aggregator.relay(US).unwrap();
    attack.say(ring.relay()).await;
    let message = loop {
        let message = attack.step(&header).await;
        if ring.take(&message) {
            break message;
        }
    };
    let Sent::Reveal(signed) = Sent::from_bytes(&message).unwrap() else { panic!("shares") };
    let Reveal { own, mask, .. } = &*signed.document;
    assert_eq!(own.iter().map(|revealed: &Revealed| revealed.of).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(mask.is_empty());
    // The last peer is said to have dropped out: that would be its other share.
    attack.refused(&header, &Relay::Inputs(vec![0, 1, 2]), "in the step 'consent' is fixed").await;
    let Relay::Consents(mut others) = consents.clone() else { panic!("consents") };
    others.truncate(3);
    attack.refused(&header, &Relay::Consents(others), "in the step 'reveal' is fixed").await;
    attack.relay(&header, &consents).await;
    assert_eq!(attack.step(&header).await, message, "the same again");

    // In the next round the last peer is left out before inputs, and then counted all the same.
    let header = attack.header(2, 1);
    let ring = Box::pin(attack.opened(&header, Step::Input)).await;
    let Relay::Shares { mut active, mut dealt } = ring.aggregator.relay(US).unwrap() else { panic!("boxes") };
    active.pop();
    dealt.pop();
    attack.relay(&header, &Relay::Shares { active, dealt }).await;
    attack.upload(&ring).await;
    attack.refused(&header, &Relay::Inputs(vec![0, 1, 2, 3]), "counts sites that cannot count").await;
    assert_eq!(attack.world.entered("sum_agreed", "success").await, 1);
}
