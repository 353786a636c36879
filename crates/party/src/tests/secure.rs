//! A site's part in rounds with secure aggregation: the other members run the same state machine, and the coordinator's
//! part is that of a real one.

use hospes_privacy::masked;
use hospes_privacy::secagg::{
    Aggregator, Demands, Masked, Member, Past, Relay, Seed, Sent, Setup, Step, Thresholds, Tree, Turn,
};
use hospes_protocol::approval::{RefusalCode, Trust};
use hospes_protocol::message::{SecureMessage, Witness};
use hospes_protocol::plan::{Privacy, Strategy};

use super::*;
use crate::error::PartyError;
use crate::keys::Vault;
use crate::view::{Protection, Verdict};

mod sets;

/// This site is the first of the roster.
pub(crate) const US: u32 = 0;

pub(crate) fn masked_plan(rounds: u32) -> Plan {
    let mut plan = small_plan(rounds);
    for task in plan.tasks.values_mut() {
        if let Component::NnTrain(train) = &mut task.component {
            train.privacy = Privacy::SecureAggregation {};
        }
    }
    plan
}

pub(crate) fn masked_header(study: &Study, round: u32, attempt: u32, now: Timestamp) -> RoundHeader {
    let Thresholds { corrupt: c, quorum: t, k_min } = Thresholds::new(4, None, 0, 3);
    RoundHeader { mode: Mode::SecureAggregation { c, t, k_min }, ..header(study, job(1), "train", round, attempt, now) }
}

impl World {
    /// An empty site with real links that take no way around.
    pub(crate) async fn create_wired(folder: &Path, now: i64) -> Self {
        Self::create_as(wired(folder), now).await
    }

    /// The same site after its process ended, with real links.
    pub(crate) async fn reopen_wired(folder: &Path, now: i64) -> Self {
        let (config, time, wires) = wired(folder);
        time.store(now, Ordering::SeqCst);
        let handle = open(config.clone()).await.unwrap();
        let mut world = Self::with(handle, config, time, wires);
        world.log_everybody_in().await;
        world
    }
}

fn wired(folder: &Path) -> (Config, Arc<AtomicI64>, Wires) {
    let mut parts = configure(folder, Executor::Thread);
    // Whatever proxy the machine has.
    parts.0.spawn_link = Arc::new(|link, events| {
        let straight = crate::link::LinkConfig { proxy: crate::link::ProxyChoice::None, ..link };
        crate::link::spawn(straight, events)
    });
    parts
}

/// The coordinator and the other sites of a round.
pub(crate) struct Ring {
    pub(crate) header: RoundHeader,
    pub(crate) aggregator: Aggregator,
    pub(crate) others: BTreeMap<u32, Member>,
    /// Vectors as they arrived, without their heads.
    vectors: BTreeMap<u32, Vec<u8>>,
    has_consented: bool,
}

impl Ring {
    pub(crate) fn new(header: &RoundHeader) -> Self {
        Self::of(header, masked::session(header).unwrap())
    }

    fn of(header: &RoundHeader, setup: Canonical<Setup>) -> Self {
        let peers: BTreeMap<_, _> = header.roster.iter().map(|e| (e.identity, Trust::VerifiedHere)).collect();
        let member = |party: u32| {
            let demands = Demands {
                identity: key(u8::try_from(party).unwrap() + 1).public(),
                peers: peers.clone(),
                min_parties: 3,
                min_trusted_peers: 0,
                corrupt: None,
                model: header.model,
                noise: setup.noise,
            };
            let seed = Seed::new(Zeroizing::new([u8::try_from(party).unwrap(); 32]));
            Member::new(setup.clone(), demands, &Past { epoch: 1, ..Past::default() }, &seed).unwrap()
        };
        let others = (1..setup.n).map(|party| (party, member(party))).collect();
        let aggregator = Aggregator::new(setup.clone()).unwrap();
        Self { header: header.clone(), aggregator, others, vectors: BTreeMap::new(), has_consented: false }
    }

    fn site(&self, party: u32) -> SiteId {
        self.header.roster[party as usize].site
    }

    /// Levels of another site: one row, and a pattern.
    fn levels(party: u32, entries: usize, part: usize) -> Vec<u64> {
        (0..entries).map(|n| if part == 0 { 1 } else { (n as u64 * 7 + u64::from(party)) << 20 }).collect()
    }

    /// The other sites say what they owe in this step.
    pub(crate) fn others_speak(&mut self) {
        let consented = self.has_consented.then_some((self.header.round, self.header.attempt));
        let past = Past { epoch: 1, consented, ..Past::default() };
        for party in self.others.keys().copied().collect::<Vec<_>>() {
            let relay = (self.aggregator.at() != Step::Keys).then(|| self.aggregator.relay(party).unwrap());
            let member = self.others.get_mut(&party).unwrap();
            let key = key(u8::try_from(party).unwrap() + 1);
            let turn = match &relay {
                None => Turn::Send(member.advertise(&key).unwrap()),
                Some(relay) => member.on(relay, &past, &key).unwrap(),
            };
            let (fixed, received) = match turn {
                Turn::Send(fixed) => (fixed, None),
                Turn::Mask => {
                    let (mut masker, mut vector) = (member.masker().unwrap(), Vec::new());
                    while let Some(block) = masker.expected() {
                        let mut levels = Self::levels(party, block.entries, block.part);
                        vector.extend(masker.block(&mut levels).unwrap());
                    }
                    let vector_root = masker.finish().unwrap();
                    self.vectors.insert(party, vector);
                    (member.commit(vector_root, &key).unwrap(), Some(vector_root))
                }
            };
            let site = self.header.roster[party as usize].site;
            self.aggregator.accept(site, Sent::from_bytes(&fixed.message).unwrap(), received).unwrap();
        }
    }

    pub(crate) fn close(&mut self) {
        self.has_consented |= self.aggregator.at() == Step::Consent;
        let everybody = (0u32..).take(self.header.roster.len()).collect();
        self.aggregator.close(&everybody).unwrap();
    }

    /// What is relayed to this site.
    pub(crate) fn relay(&self) -> ToSite {
        let message = SecureMessage::new(self.aggregator.relay(US).unwrap().to_bytes().unwrap());
        ToSite::Relay { round: self.header.key(), message }
    }

    /// Takes what this site said; whether it is what this step is about.
    pub(crate) fn take(&mut self, message: &[u8]) -> bool {
        let sent = Sent::from_bytes(message).unwrap();
        let step = match &sent {
            Sent::Keys(_) => Step::Keys,
            Sent::Shares { .. } => Step::Shares,
            Sent::Consent(_) => Step::Consent,
            Sent::Reveal(_) => Step::Reveal,
            other => panic!("{other:?}"),
        };
        let due = step == self.aggregator.at();
        // Whatever it says again is what it said before, or this is an error.
        assert_eq!(self.aggregator.accept(self.site(US), sent, None).unwrap(), US);
        due
    }

    /// Takes this site's upload, and gives the levels' sums without those of the others: its own levels.
    pub(crate) fn take_upload(&mut self, bytes: &[u8]) {
        let (head, vector) = bytes.split_at(masked::HEAD_BYTES);
        let (sent, told) = masked::read_head(head).unwrap();
        let mut tree = Tree::default();
        let mut rest = vector;
        for block in self.aggregator.layout().blocks().collect::<Vec<_>>() {
            let (mine, others) = rest.split_at(block.bytes());
            tree.push(mine);
            rest = others;
        }
        let received: Masked = tree.finish();
        assert!(rest.is_empty() && received == told);
        assert_eq!(self.aggregator.accept(self.site(US), sent, Some(received)).unwrap(), US);
        self.vectors.insert(US, vector.to_vec());
    }

    /// This site's levels, as they follow from the sum and what the others sent.
    fn unmasked(&self) -> Vec<Vec<u64>> {
        let mut unmasker = self.aggregator.unmasker().unwrap();
        let mut at: BTreeMap<u32, usize> = BTreeMap::new();
        let mut all = Vec::new();
        while let Some(block) = unmasker.expected() {
            let mut sums = vec![0; block.entries];
            for party in self.aggregator.included() {
                let from = at.entry(*party).or_default();
                block.add(&mut sums, &self.vectors[party][*from..*from + block.bytes()]).unwrap();
                *from += block.bytes();
            }
            unmasker.block(&mut sums).unwrap();
            for party in self.aggregator.included().iter().filter(|party| **party != US) {
                let levels = Self::levels(*party, block.entries, block.part);
                // Of what is held back the sum is random, and may be less.
                sums.iter_mut().zip(levels).for_each(|(sum, level)| *sum = sum.wrapping_sub(level));
            }
            all.push(sums);
        }
        all
    }
}

/// Plays one round to its end; `between` happens before each message of the coordinator.
async fn play(world: &mut World, ring: &mut Ring, mut between: impl AsyncFnMut(&mut World)) {
    loop {
        let step = ring.aggregator.at();
        if step == Step::End {
            return;
        }
        if step == Step::Input {
            let (upload, path) = world.expect_upload().await;
            let bytes = world.take(&upload, &path).await;
            ring.take_upload(&bytes);
        } else {
            hear(world, ring).await;
        }
        ring.others_speak();
        ring.close();
        if ring.aggregator.at() != Step::End {
            between(&mut *world).await;
            world.send(ring.relay()).await;
        }
    }
}

/// Plays a round until its set of inputs is announced to this site: these members of the ring.
async fn announce(world: &mut World, ring: &mut Ring, inputs: std::ops::Range<u32>) {
    while ring.aggregator.at() != Step::Consent {
        let at = ring.aggregator.at();
        if at == Step::Input {
            let (upload, path) = world.expect_upload().await;
            let bytes = world.take(&upload, &path).await;
            ring.take_upload(&bytes);
        } else {
            hear(world, ring).await;
        }
        ring.others_speak();
        let with = if at == Step::Input { inputs.clone() } else { 0..4 };
        ring.aggregator.close(&with.collect()).unwrap();
        world.send(ring.relay()).await;
    }
}

/// Hears this site until it has said what it owes in this step.
pub(super) async fn hear(world: &mut World, ring: &mut Ring) {
    loop {
        let message = said(world, ring).await;
        if ring.take(&message) {
            return;
        }
    }
}

/// The next thing that this site says in the round.
async fn said(world: &mut World, ring: &Ring) -> Vec<u8> {
    let wanted = ring.header.key();
    world
        .expect("a step of the round", |c| match c {
            LinkCommand::Send(FromSite::SecureStep { round, message }) if *round == wanted => {
                Some(message.bytes().to_vec())
            }
            _ => None,
        })
        .await
}

/// A site that verified the three others, with an approved study whose updates are masked and a running job.
pub(super) async fn masked_world(folder: &Path) -> (World, Study) {
    world_with(folder, masked_plan(2)).await
}

async fn world_with(folder: &Path, plan: Plan) -> (World, Study) {
    let mut world = World::create(folder, Executor::Thread).await;
    world.furnish().await;
    world.connect().await;
    world.verify(2..=4).await;
    let study = study(1, plan);
    world.offer(&study).await;
    world.approve_as(&study, Approving { max_runs: 3, ..exactly(study.id) }).await;
    world.start_job(&study, job(1)).await;
    (world, study)
}

/// A plan whose model is evaluated under masks.
fn evaluated_plan() -> Plan {
    let mut plan = small_plan(1);
    for task in plan.tasks.values_mut() {
        if let Component::Evaluation(evaluation) = &mut task.component {
            evaluation.privacy = Privacy::SecureAggregation {};
        }
    }
    plan
}

fn evaluation(study: &Study, run: JobId, now: Timestamp) -> RoundHeader {
    let Thresholds { corrupt: c, quorum: t, k_min } = Thresholds::new(4, None, 0, 3);
    let (tensors, quantise) = plan::masks::layout(&study.plan, "eval", 1);
    let mode = Mode::SecureAggregation { c, t, k_min };
    RoundHeader { mode, tensors, quantise, ..header(study, run, "eval", 1, 1, now) }
}

/// A round that has come to its inputs: this site's own is about to leave.
async fn at_inputs(world: &mut World, study: &Study) -> (RoundHeader, Ring) {
    let header = masked_header(study, 1, 1, world.now());
    let mut ring = Ring::new(&header);
    world.open_round(header.clone()).await;
    world.serve_model(study).await;
    while ring.aggregator.at() != Step::Input {
        hear(world, &mut ring).await;
        ring.others_speak();
        ring.close();
        world.send(ring.relay()).await;
    }
    (header, ring)
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_is_masked_and_only_the_sum_gives_this_sites_part() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = masked_world(temporary.path()).await;
    let header = masked_header(&study, 1, 1, world.now());
    let mut ring = Ring::new(&header);
    world.open_round(header.clone()).await;
    world.serve_model(&study).await;
    hear(&mut world, &mut ring).await;
    // What was trained waits in a folder from which nothing is sent.
    let unmasked = files(&world.config.levels());
    let plain = std::fs::read(&unmasked[0]).unwrap();
    assert_eq!((unmasked.len(), plain.len(), files(&world.config.payloads()).len()), (1, 8 + 14 * 4, 0));
    ring.others_speak();
    ring.close();
    world.send(ring.relay()).await;
    play(&mut world, &mut ring, async |_: &mut World| {}).await;
    let mut levels = Vec::new();
    let mut rest = plain.as_slice();
    for block in ring.aggregator.layout().blocks() {
        let (mine, others) = rest.split_at(masked::level_bytes(&block));
        levels.push(masked::levels(&block, mine).to_vec());
        rest = others;
    }
    assert_eq!(ring.unmasked(), levels);
    let (vector, mut from) = (&ring.vectors[&US], 0);
    for (block, mine) in ring.aggregator.layout().blocks().zip(&levels) {
        let mut sent = vec![0; block.entries];
        block.add(&mut sent, &vector[from..from + block.bytes()]).unwrap();
        from += block.bytes();
        // The row weight has few bits, of which some mask is 0.
        let is_masked = block.part == 0 || sent.iter().zip(mine).all(|(sent, level)| sent != level);
        assert!(is_masked, "an entry left as it is");
    }
    assert_eq!(from, vector.len());
    world.close_round(&header).await;
    world.settle().await;
    let egress = world.handle.egress(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!((egress.len(), egress[0].protection), (1, Protection::Masked));
    assert_eq!((egress[0].state.as_str(), egress[0].bytes), ("sent", 1024 + vector.len() as u64));
    // The session is erased: file, seed and shares.
    for _ in 0..100 {
        if erased(&world).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(erased(&world).await && files(&world.config.levels()).is_empty());
    // And the next round is a new one.
    let next = masked_header(&study, 2, 1, world.now());
    let mut ring = Ring::new(&next);
    world.open_round(next).await;
    play(&mut world, &mut ring, async |_: &mut World| {}).await;
    assert_eq!(world.entered("permit_refused", "refused").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn this_sites_part_of_shared_noise_lies_under_the_mask() {
    let temporary = tempfile::tempdir().unwrap();
    let mut text = std::fs::read_to_string(heart("dp.yaml")).unwrap();
    for (from, to) in [
        ("mode: local", "mode: distributed"),
        ("epsilon: 4\n", "noise_multiplier: 1.5\n"),
        ("updates: 5, batch", "updates: 1, batch"),
        ("rounds: 20", "rounds: 2"),
    ] {
        assert!(text.contains(from), "the example has no '{from}'");
        text = text.replace(from, to);
    }
    let plan = hospes_protocol::study::StudyFile::read(&text).unwrap().plan;
    let (mut world, study) = world_with(temporary.path(), plan).await;
    let header = masked_header(&study, 1, 1, world.now());
    let setup = masked::session_of(&header, &study.plan).unwrap();
    // Of four sites one may be missing, and one takes its own noise off.
    let deviation = setup.noise.unwrap().sigma_steps / 2f64.sqrt();
    let mut ring = Ring::of(&header, setup);
    world.open_round(header.clone()).await;
    world.serve_model(&study).await;
    hear(&mut world, &mut ring).await;
    let plain = std::fs::read(&files(&world.config.levels())[0]).unwrap();
    ring.others_speak();
    ring.close();
    world.send(ring.relay()).await;
    hear(&mut world, &mut ring).await;
    ring.others_speak();
    ring.close();
    world.send(ring.relay()).await;
    // Before the entry of what it costs is cosigned, nothing with a bound leaves.
    cosign(&mut world).await;
    play(&mut world, &mut ring, async |_: &mut World| {}).await;
    let ours = ring.unmasked();
    assert_eq!(ours[0], [125], "the weight is the plan's, and has no noise");
    let (levels, _) = plain[8..].as_chunks::<4>();
    let noisy = ours[1..].iter().flatten();
    let drawn = noisy.zip(levels).map(|(noisy, level)| {
        noisy.wrapping_sub(u64::from(u32::from_le_bytes(*level))).cast_signed() as f64 / deviation
    });
    let drawn: Vec<f64> = drawn.collect();
    // χ² of 14 draws, which is from 1 to 70 but for one case in a million.
    let square: f64 = drawn.iter().map(|draw| draw * draw).sum();
    assert!(drawn.len() == 14 && (1.0..70.0).contains(&square), "{drawn:?}");
}

/// The coordinator cosigns what this site shows next of its log.
async fn cosign(world: &mut World) {
    let shown = world
        .expect("a checkpoint", |c| match c {
            LinkCommand::Send(FromSite::Witness(Witness::Show { origin, checkpoint, .. })) => {
                Some((*origin, checkpoint.clone()))
            }
            _ => None,
        })
        .await;
    let checkpoint = *hospes_ledger::SignedCheckpoint::read(&shown.1).unwrap().checkpoint();
    let (size, cosignature) = (checkpoint.size, checkpoint.cosign(&coordinator(), world.now()).line());
    world.send(ToSite::Witness(Witness::Cosigned { origin: shown.0, size, witness: federation(), cosignature })).await;
}

/// Whether nothing is left of sessions but that a consent was given.
async fn erased(world: &World) -> bool {
    let records = world.handle.ask(|e| {
        async move {
            let sql = "SELECT (SELECT COUNT(*) FROM secure_sessions), COUNT(*), COALESCE(SUM(length(message)), 0)
                       FROM secure_records";
            let found: (i64, i64, i64) = sqlx::query_as(sql).fetch_one(e.store.readers()).await.unwrap();
            Ok(found)
        }
        .boxed()
    });
    records.await.unwrap() == (0, 1, 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_restarted_between_any_two_messages_says_the_same_and_finishes() {
    let temporary = tempfile::tempdir().unwrap();
    let mut plan = masked_plan(2);
    let Some(Component::NnTrain(train)) = plan.tasks.get_mut("train").map(|t| &mut t.component) else { panic!() };
    train.strategy = Strategy::Scaffold { lr: 1.0 };
    let (mut world, study) = world_with(temporary.path(), plan).await;
    let header = masked_header(&study, 1, 1, world.now());
    let mut ring = Ring::new(&header);
    world.open_round(header.clone()).await;
    world.serve_model(&study).await;
    let (opened, folder) = (header.clone(), temporary.path().to_owned());
    play(&mut world, &mut ring, async move |world: &mut World| {
        world.settle().await;
        let now = world.now().as_millis();
        world.handle.shut_down().await.unwrap();
        *world = World::reopen(&folder, Executor::Thread, now).await;
        assert_eq!(files(&world.config.kept()).len(), 1, "what the strategy keeps is gone");
        world.connect().await;
        // As a coordinator does that greets a site which it waits for.
        world.open_round(opened.clone()).await;
    })
    .await;
    world.close_round(&header).await;
    world.settle().await;
    let jobs = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!(jobs[0].rounds[0].state, "published");
    assert_eq!(world.outbox_states().await, ["sent"]);
    assert_eq!(world.entered("training_finished", "success").await, 1, "trained once, though it was restarted");
    assert_eq!(world.entered("sum_agreed", "success").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_input_is_said_after_the_deadline_for_inputs_too() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = masked_world(temporary.path()).await;
    let header = masked_header(&study, 1, 1, world.now());
    let mut ring = Ring::new(&header);
    world.open_round(header.clone()).await;
    world.serve_model(&study).await;
    let mut relays = 0;
    play(&mut world, &mut ring, async move |world: &mut World| {
        relays += 1;
        // Before the set of inputs is announced.
        if relays == 3 {
            world.settle().await;
            world.pass_time(61 * MINUTE);
        }
    })
    .await;
    world.close_round(&header).await;
    world.settle().await;
    assert_eq!(world.entered("sum_agreed", "success").await, 1);
    assert_eq!(world.entered("permit_refused", "refused").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_says_again_what_may_be_lost_and_nothing_once_its_approval_is_taken_back() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = masked_world(temporary.path()).await;
    let (header, mut ring) = at_inputs(&mut world, &study).await;
    let (upload, path) = world.expect_upload().await;
    let bytes = world.take(&upload, &path).await;
    ring.take_upload(&bytes);
    world.settle().await;
    // Its input has arrived; whether the others' boxes did is not for it to know.
    world.open_round(header.clone()).await;
    let again = said(&mut world, &ring).await;
    assert!(!ring.take(&again), "its shares, as they were");
    let revoke = Verdict::Revoke { reason: "no longer wanted".into() };
    world.handle.decide(world.who("sam"), study.id, revoke).await.unwrap();
    world.settle().await;
    world.open_round(header).await;
    let says = |c: &LinkCommand| matches!(c, LinkCommand::Send(FromSite::SecureStep { .. })).then_some(());
    world.never("say a step again", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_offers_less_than_this_site_demands_is_refused_before_anything_is_computed() {
    let mut world = World::new().await;
    world.connect().await;
    // One peer is verified; two count as the coordinator's own.
    world.verify(2..=2).await;
    let study = study(1, masked_plan(2));
    world.offer(&study).await;
    world.approve(&study).await;
    world.start_job(&study, job(1)).await;
    world.open_round(masked_header(&study, 1, 1, world.now())).await;
    let RoundReply::Refused(refusal) = world.expect_reply().await else { panic!("it takes part") };
    assert_eq!(refusal.code, RefusalCode::Policy);
    assert_eq!(refusal.detail, "the round's c is 1, and this site demands 2");
    // As it was, without masks, it is refused too: the plan promises them.
    world.open_round(header(&study, job(1), "train", 1, 2, world.now())).await;
    let RoundReply::Refused(refusal) = world.expect_reply().await else { panic!("it takes part") };
    assert!(refusal.code == RefusalCode::Header && refusal.detail.contains("promises"), "{refusal}");
    assert_eq!(world.entered("permit_refused", "refused").await, 2);
    assert!(files(&world.config.levels()).is_empty());
}

/// Whom people verified is asked anew before each round.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_no_longer_verified_count_as_the_coordinators_own_in_the_next_round() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = masked_world(temporary.path()).await;
    for n in 3..=4 {
        let site = key(n).public().site_id();
        let peer = world.handle.unverify_peer(world.who("sam"), federation(), site, "stolen".into()).await.unwrap();
        assert!(peer.trust == Trust::AssertedOnly && peer.revoked.is_some() && peer.words.is_none(), "{peer:?}");
    }
    assert_eq!(world.entered("peer_revoked", "success").await, 2);
    let run = world.handle.job(world.who("sam"), job(1), Page::default()).await.unwrap();
    let asserted = run.others.iter().filter(|other| other.trust == Trust::AssertedOnly).count();
    assert_eq!((run.others.len(), asserted), (3, 2));
    let told = run.protection.last().unwrap();
    assert!(told.contains("no hospital") && told.contains("2 of the other sites are asserted"), "{told}");
    world.open_round(masked_header(&study, 1, 1, world.now())).await;
    let RoundReply::Refused(refusal) = world.expect_reply().await else { panic!("it takes part") };
    assert_eq!(refusal.detail, "the round's c is 1, and this site demands 2");
}

/// Attack: a second set of inputs after the first was agreed to, and another attempt at the round.
#[tokio::test(flavor = "multi_thread")]
async fn one_set_of_inputs_is_agreed_to_and_no_other_attempt_at_the_round() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = masked_world(temporary.path()).await;
    let header = masked_header(&study, 1, 1, world.now());
    let mut ring = Ring::new(&header);
    world.open_round(header.clone()).await;
    world.serve_model(&study).await;
    while ring.aggregator.at() != Step::Consent {
        if ring.aggregator.at() == Step::Input {
            let (upload, path) = world.expect_upload().await;
            let bytes = world.take(&upload, &path).await;
            ring.take_upload(&bytes);
        } else {
            hear(&mut world, &mut ring).await;
        }
        ring.others_speak();
        ring.close();
        world.send(ring.relay()).await;
    }
    // To the sum over all it agrees.
    hear(&mut world, &mut ring).await;
    let smaller = SecureMessage::new(Relay::Inputs(vec![0, 1, 2]).to_bytes().unwrap());
    world.send(ToSite::Relay { round: header.key(), message: smaller }).await;
    let RoundReply::Withdrawn(refusal) = world.expect_reply().await else { panic!("it agrees twice") };
    assert!(refusal.detail.contains("is fixed"), "{refusal}");
    world.settle().await;
    assert_eq!(world.entered("permit_refused", "refused").await, 1);
    // The coordinator gives up and opens another attempt: none of the same round, only a new one.
    let outcome = RoundOutcome::Abandoned("too few".into());
    world.send(ToSite::RoundClosed { round: header.key(), outcome }).await;
    world.open_round(masked_header(&study, 1, 2, world.now())).await;
    let RoundReply::Refused(refusal) = world.expect_reply().await else { panic!("it joins another attempt") };
    assert!(refusal.code == RefusalCode::RoundReplayed && refusal.detail.contains("agreed"), "{refusal}");
    let next = masked_header(&study, 2, 1, world.now());
    let mut ring = Ring::new(&next);
    world.open_round(next).await;
    // The next round is one with new training.
    hear(&mut world, &mut ring).await;
}

/// Attack: this site is to agree to a sum with an input of its own that nobody has.
#[tokio::test(flavor = "multi_thread")]
async fn no_sum_is_agreed_to_that_is_said_to_hold_what_never_left() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = masked_world(temporary.path()).await;
    let (header, _) = at_inputs(&mut world, &study).await;
    world.expect_upload().await;
    let all = SecureMessage::new(Relay::Inputs(vec![0, 1, 2, 3]).to_bytes().unwrap());
    world.send(ToSite::Relay { round: header.key(), message: all }).await;
    let RoundReply::Withdrawn(refusal) = world.expect_reply().await else { panic!("it agrees") };
    assert!(refusal.detail.contains("which never left"), "{refusal}");
    assert_eq!(world.entered("sum_agreed", "success").await, 0);
    assert_eq!(world.outbox_states().await, ["withdrawn"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_is_taken_back_ends_the_part_of_this_site_at_any_step() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = masked_world(temporary.path()).await;
    let header = masked_header(&study, 1, 1, world.now());
    let mut ring = Ring::new(&header);
    world.open_round(header).await;
    world.serve_model(&study).await;
    hear(&mut world, &mut ring).await;
    let revoke = Verdict::Revoke { reason: "no longer wanted".into() };
    world.handle.decide(world.who("sam"), study.id, revoke).await.unwrap();
    let RoundReply::Withdrawn(refusal) = world.expect_reply().await else { panic!("it goes on") };
    assert_eq!(refusal.code, RefusalCode::Revoked);
    assert!(files(&world.config.levels()).is_empty(), "the update is deleted unmasked");
    ring.others_speak();
    ring.close();
    world.send(ring.relay()).await;
    let says = |c: &LinkCommand| matches!(c, LinkCommand::Send(FromSite::SecureStep { .. })).then_some(());
    world.never("go on", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_out_takes_back_an_update_that_waits_to_be_masked() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = masked_world(temporary.path()).await;
    let mut ring = Ring::new(&masked_header(&study, 1, 1, world.now()));
    world.open_round(ring.header.clone()).await;
    world.serve_model(&study).await;
    hear(&mut world, &mut ring).await;
    let list = world.folder.join("opt-outs.txt");
    std::fs::write(&list, "cleveland-001\n").unwrap();
    world.handle.import_opt_outs(world.who("sam"), list).await.unwrap();
    let RoundReply::Withdrawn(refusal) = world.expect_reply().await else { panic!("it goes on") };
    assert_eq!(refusal.code, RefusalCode::Snapshot);
    assert!(files(&world.config.levels()).is_empty());
}

/// The secrets of a round's session, as the vault has them.
async fn session_seed(world: &World, name: &str) -> Option<Zeroizing<Vec<u8>>> {
    let name = name.to_owned();
    world.handle.ask(move |e| async move { e.vault.find(&name).await.map_err(PartyError::Keys) }.boxed()).await.unwrap()
}

/// Attack: a site's database is that of a backup, and its keychain, which no backup brings back, has the secrets of a session that
/// went on since; it would agree to a second sum.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_from_before_a_backup_was_restored_says_nothing_more() {
    let (temporary, place, other) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut world, study) = masked_world(temporary.path()).await;
    let mut ring = Ring::new(&masked_header(&study, 1, 1, world.now()));
    world.open_round(ring.header.clone()).await;
    world.serve_model(&study).await;
    hear(&mut world, &mut ring).await;
    let file = backups::back_up(&world, place.path()).await;
    let name = format!("masks/{}", Digest::of(ring.header.key().to_string().as_bytes()));
    let seed = session_seed(&world, &name).await.unwrap();
    let now = world.now().as_millis();
    world.handle.shut_down().await.unwrap();
    backups::restore(other.path(), &file, backups::secret()).await.unwrap();
    let (config, ..) = configure(other.path(), Executor::Thread);
    Vault::open(config.secrets).await.unwrap().keep(&name, seed).await.unwrap();

    let mut back = World::reopen(other.path(), Executor::Thread, now).await;
    assert!(session_seed(&back, &name).await.is_none(), "before anybody confirmed anything");
    backups::confirm(&back).await;
    back.connect().await;
    backups::expect_question(&mut back).await;
    backups::remind(&back, String::new()).await;
    ring.others_speak();
    ring.close();
    back.send(ring.relay()).await;
    let says = |c: &LinkCommand| matches!(c, LinkCommand::Send(FromSite::SecureStep { .. })).then_some(());
    back.never("go on in the session", says).await;
}

/// The levels of a file that waits to be masked, without the row weight.
fn waiting(file: &Path) -> Vec<u64> {
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(bytes[..8], 1u64.to_le_bytes());
    bytes[8..].as_chunks::<4>().0.iter().map(|level| u64::from(u32::from_le_bytes(*level))).collect()
}
