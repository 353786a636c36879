//! Members' ledgers: first seen, grown, forked; relayed to the others; and the coordinator's own under attack.

use hospes_coordinator::schedule::{Command, Event};
use hospes_ledger::tree::proof::consistency;
use hospes_ledger::tree::{leaf_hash, root_of};
use hospes_ledger::{Action, Checkpoint, Filter, Ledger};
use hospes_protocol::id::Digest;
use hospes_protocol::message::{FromSite, Witness};

use super::world::World;

/// A member's ledger of so many entries, those from the fifth on of another history if `fork`.
fn leaves(n: u64, fork: bool) -> Vec<Digest> {
    (0..n).map(|i| leaf_hash(&[u8::from(fork && i >= 5), u8::try_from(i).unwrap()])).collect()
}

impl World {
    /// A site shows its ledger.
    async fn show(&self, peer: usize, size: u64, fork: bool, old_size: u64) {
        let (peer, leaves) = (&self.peers[peer], leaves(size, fork));
        let checkpoint = Checkpoint { origin: peer.id, size, root: root_of(&leaves) }.sign(&peer.key).note();
        let spans = consistency(old_size, size).unwrap();
        let part = |at: u64| usize::try_from(at).unwrap();
        let proof = spans.iter().map(|s| root_of(&leaves[part(s.start)..part(s.end)])).collect();
        self.say(peer.id, Witness::Show { origin: peer.id, checkpoint, old_size, proof }).await;
    }

    async fn say(&self, site: hospes_protocol::id::SiteId, witness: Witness) {
        let message = FromSite::Witness(witness);
        let session = self.peers.iter().find(|p| p.id == site).unwrap().session_number();
        self.process().events.send(Event::Message { site, session, message }).await.unwrap();
        self.command(Command::Sessions).await.unwrap();
    }

    async fn entries(&self, action: Action) -> Vec<Option<String>> {
        let mut connection = self.store.read().await.unwrap();
        let filter = Filter { actions: vec![action], ..Filter::default() };
        let page = Ledger::on(&mut *connection).page(&filter, 100).await.unwrap();
        page.records.into_iter().map(|r| r.reason).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_members_ledger_is_cosigned_relayed_and_cosigned_by_the_others() {
    let mut world = World::new().await;
    world.start(None).await;
    world
        .until("all are connected", || async { world.process().events.capacity() > 0 && sessions(&world).await == 4 })
        .await;
    world.show(0, 7, false, 0).await;
    world.show(0, 20, false, 7).await;
    for peer in &world.peers[1..] {
        world.until("relayed", || async { peer.log.lock().unwrap().cosigned_for_others >= 2 }).await;
    }
    // One entry for the first, none for those that follow: witnessing does not feed itself.
    assert_eq!(world.entries(Action::WitnessFirst).await.len(), 1);
    let mut connection = world.store.read().await.unwrap();
    let mut ledger = Ledger::on(&mut *connection);
    assert_eq!(ledger.peer(world.peers[0].id).await.unwrap().unwrap().seen.size, 20);
    assert_eq!(ledger.cosignatures(world.peers[0].id, 20).await.unwrap().len(), 1);
}

async fn sessions(world: &World) -> usize {
    match world.command(Command::Sessions).await.unwrap() {
        hospes_coordinator::schedule::Reply::Sessions(list) => list.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forked_and_a_shortened_ledger_are_found_and_stand_in_the_ledger_with_the_evidence() {
    let mut world = World::new().await;
    world.start(None).await;
    world.show(0, 7, false, 0).await;
    world.show(0, 20, true, 7).await;
    world.show(1, 9, false, 0).await;
    world.show(1, 6, false, 0).await;
    let reasons = world.entries(Action::WitnessFailed).await;
    let said = |words: &str| reasons.iter().flatten().any(|reason| reason.contains(words));
    assert!(said("do not begin with the 7 seen before") && said("the tail is gone"), "{reasons:?}");
    let mut connection = world.store.read().await.unwrap();
    let mut found = Ledger::on(&mut *connection).contradictions().await.unwrap();
    // The others were shown the evidence, and may have said so by now.
    found.retain(|c| c.witness == world.peers[0].coordinator.site_id());
    assert!(found.iter().all(|c| c.note.contains("20") || c.note.contains('6')), "the signed note is kept");
    assert_eq!(found.iter().map(|c| c.origin).collect::<Vec<_>>(), [world.peers[0].id, world.peers[1].id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_site_is_told_what_was_seen_of_its_ledger_and_nobody_else_is() {
    let mut world = World::new().await;
    world.start(None).await;
    world.until("all are connected", || async { sessions(&world).await == 4 }).await;
    world.show(0, 7, false, 0).await;
    let (one, two) = (world.peers[0].id, world.peers[1].id);
    for (site, size) in [(one, 3), (two, 0)] {
        world.say(site, Witness::ProveFrom { origin: site, size }).await;
    }
    let reminded = |peer: usize| world.peers[peer].log.lock().unwrap().reminded.clone();
    world.until("both are told", || async { reminded(0).len() == 1 && reminded(1).len() == 1 }).await;
    let signed = hospes_ledger::SignedCheckpoint::parse(&reminded(0)[0], &world.peers[0].key.public()).unwrap();
    assert_eq!(signed.checkpoint().size, 7);
    assert!(signed.cosigned_by(&world.peers[0].coordinator).is_some());
    assert_eq!(reminded(1), [String::new()], "nothing was seen of it");
    assert!(reminded(2).is_empty());
    assert_eq!(world.entries(Action::WitnessFailed).await.len(), 0, "a question is no contradiction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forked_ledger_is_shown_to_the_others_and_each_sees_it_for_itself() {
    let mut world = World::new().await;
    world.start(None).await;
    world.until("all are connected", || async { sessions(&world).await == 4 }).await;
    world.show(0, 7, false, 0).await;
    let cosigned = || world.peers[1..].iter().all(|p| p.log.lock().unwrap().cosigned_for_others == 1);
    world.until("the others saw it", || async { cosigned() }).await;
    world.show(0, 20, true, 7).await;
    let origin = world.peers[0].id;
    world
        .until("the others say that it was forked", || async {
            let mut connection = world.store.read().await.unwrap();
            let found = Ledger::on(&mut *connection).contradictions().await.unwrap();
            world.peers[1..].iter().all(|p| found.iter().any(|c| c.origin == origin && c.witness == p.id))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_can_speak_for_another_and_a_forged_cosignature_counts_nothing() {
    let mut world = World::new().await;
    for peer in &world.peers {
        peer.online.send_replace(false);
    }
    world.start(None).await;
    let (zero, one) = (&world.peers[0], &world.peers[1]);
    let federation = zero.coordinator.site_id();
    // Site 1 shows a ledger as site 0, and cosigns as site 0.
    let note = Checkpoint { origin: zero.id, size: 3, root: root_of(&leaves(3, true)) }.sign(&one.key).note();
    world.say(one.id, Witness::Show { origin: zero.id, checkpoint: note, old_size: 0, proof: Vec::new() }).await;
    let line = "\u{2014} forged AAAA".to_owned();
    for witness in [zero.id, one.id] {
        let forged = Witness::Cosigned { origin: federation, size: 1, witness, cosignature: line.clone() };
        world.say(one.id, forged).await;
    }
    world.submit(super::world::PLAN).await;
    let mut connection = world.store.read().await.unwrap();
    let mut ledger = Ledger::on(&mut *connection);
    assert!(ledger.peer(zero.id).await.unwrap().is_none());
    for size in 0..3 {
        assert!(ledger.cosignatures(federation, size).await.unwrap().is_empty());
    }
    // Under its own name, a site can only accuse.
    let detail = "it shrank\u{1b}[2J".to_owned();
    world.say(one.id, Witness::Contradiction { origin: zero.id, witness: one.id, detail }).await;
    let reasons = world.entries(Action::WitnessFailed).await;
    assert_eq!(reasons.len(), 1);
    assert!(!reasons[0].as_ref().unwrap().contains('\u{1b}'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_alone_accuses_nobody_and_words_fill_no_ledger() {
    let mut world = World::new().await;
    world.start(None).await;
    world.until("all are connected", || async { sessions(&world).await == 4 }).await;
    let (zero, one) = (world.peers[0].id, world.peers[1].id);
    let federation = world.peers[0].coordinator.site_id();
    for size in 1_000_000..1_000_020 {
        world.say(one, Witness::ProveFrom { origin: federation, size }).await;
    }
    assert!(world.entries(Action::WitnessFailed).await.is_empty());
    for n in 0..100 {
        let detail = format!("accusation {n}");
        world.say(one, Witness::Contradiction { origin: zero, witness: one, detail }).await;
    }
    assert_eq!(world.entries(Action::WitnessFailed).await.len(), 5);
    let mut connection = world.store.read().await.unwrap();
    assert!(Ledger::on(&mut *connection).contradictions().await.unwrap().len() <= 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_is_shown_often_is_relayed_now_and_then_and_whoever_missed_a_proof_gets_it() {
    let mut settings = super::world::quick();
    settings.relay_ms = 1_500;
    let mut world = World::with(4, settings, None).await;
    world.start(None).await;
    world.until("all are connected", || async { sessions(&world).await == 4 }).await;
    for size in 1..20 {
        world.show(0, size, false, size - 1).await;
    }
    let cosigned = |n: usize| world.peers[1..].iter().all(|p| p.log.lock().unwrap().cosigned_for_others == n);
    world.until("the first is relayed", || async { cosigned(1) }).await;
    // The newest one follows; the others have not seen what came between, and ask, and the question comes once.
    world.until("asked", || async { world.peers[0].log.lock().unwrap().asked_to_prove > 0 }).await;
    world.command(Command::Sessions).await.unwrap();
    assert_eq!(world.peers[0].log.lock().unwrap().asked_to_prove, 1);
    world.show(0, 19, false, 1).await;
    world.until("all have the newest", || async { cosigned(2) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_of_a_session_that_was_replaced_accuses_nobody() {
    let mut world = World::new().await;
    world.start(None).await;
    world.until("all are connected", || async { sessions(&world).await == 4 }).await;
    world.show(0, 9, false, 0).await;
    let old = leaves(5, false);
    let peer = &world.peers[0];
    let checkpoint = Checkpoint { origin: peer.id, size: 5, root: root_of(&old) }.sign(&peer.key).note();
    let show = Witness::Show { origin: peer.id, checkpoint, old_size: 0, proof: Vec::new() };
    let overtaken = Event::Message { site: peer.id, session: 0, message: FromSite::Witness(show) };
    world.process().events.send(overtaken).await.unwrap();
    world.command(Command::Sessions).await.unwrap();
    assert!(world.entries(Action::WitnessFailed).await.is_empty());
}
