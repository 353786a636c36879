//! Rounds with secure aggregation: sites run the real state machine, and what they send is what real ones would.

use std::collections::BTreeMap;

use hospes_coordinator::schedule::{Command, Event};
use hospes_coordinator::store::jobs::{JobRow, JobState};
use hospes_coordinator::store::rounds::RoundState;
use hospes_privacy::figures::{self, Blinds};
use hospes_privacy::masked;
use hospes_privacy::secagg::{Demands, Fixed, Masker, Member, Past, Refusal, Relay, Seed, Sent, Step, Turn};
use hospes_protocol::approval::Trust;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId};
use hospes_protocol::message::{FigureSet, FromSite, SecureMessage};
use hospes_protocol::plan::masks::SHOWN;
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::round::{Mode, RoundHeader};
use hospes_protocol::sign::Signed;
use zeroize::Zeroizing;

use super::peer::{Act, Peer};
use super::world::{PLAN, World, caller, quick, with_strategy};

/// A plan whose updates travel masked.
pub fn masked(plan: &str) -> String {
    let masked = plan.replace("privacy: { plain: {} }", "privacy: { secure_aggregation: {} }");
    assert_ne!(masked, plan);
    masked
}

/// The same for an evaluation.
fn masked_evaluation(plan: &str) -> String {
    let inputs = "inputs: { model: train.model, data: split.test }";
    assert_eq!(plan.matches(inputs).count(), 1);
    plan.replace(inputs, &format!("{inputs}, params: {{ privacy: {{ secure_aggregation: {{}} }} }}"))
}

/// A report as a worker leaves it: to be sent, or to be masked.
pub fn reported(header: &RoundHeader, plan: &Plan, set: FigureSet) -> Vec<u8> {
    if header.is_secure() {
        let announced = plan::round_figures(plan, &header.task, header.round);
        return figures::levels(&announced, &set).unwrap().to_vec();
    }
    Canonical::new(set).unwrap().bytes().to_vec()
}

/// A site's part in its rounds.
#[derive(Default)]
pub struct Parts(BTreeMap<RoundKey, Part>);

struct Part {
    member: Member,
    levels: Vec<u8>,
    is_figures: bool,
    upload: Option<Vec<u8>>,
}

/// What a site does next.
pub enum Answer {
    Nothing,
    Say(Vec<u8>),
    Upload(Vec<u8>),
}

impl Parts {
    /// A round is open, or open still, and this site's update is computed.
    pub fn opened(&mut self, peer: &Peer, header: &RoundHeader, act: Act, levels: Vec<u8>) -> Answer {
        if act == Act::Until(Step::Keys) {
            return Answer::Nothing;
        }
        let key = header.key();
        let past = self.past(&key);
        let part = self.0.entry(key).or_insert_with(|| {
            let member = member(peer, header, &past).unwrap();
            let is_figures = header.tensors.first().is_some_and(|tensor| tensor.name == SHOWN);
            Part { member, levels, is_figures, upload: None }
        });
        match part.member.fixed().last() {
            // What was said last is said again; a later relay brings on what follows.
            Some(said) if said.step != Step::Input => Answer::Say(said.message.clone()),
            Some(_) => part.upload.clone().map_or(Answer::Nothing, Answer::Upload),
            None => Answer::Say(part.member.advertise(&peer.key).unwrap().message),
        }
    }

    /// What the others said is relayed.
    pub fn relayed(&mut self, peer: &Peer, header: &RoundHeader, act: Act, relay: &[u8]) -> Answer {
        let past = self.past(&header.key());
        let Some(part) = self.0.get_mut(&header.key()) else { return Answer::Nothing };
        let relay = Relay::from_bytes(relay).unwrap();
        if let Act::Until(step) = act
            && part.member.at() >= step
        {
            return Answer::Nothing;
        }
        let fixed = match part.member.on(&relay, &past, &peer.key) {
            Ok(Turn::Send(fixed)) => fixed,
            Ok(Turn::Mask) => part.mask(peer),
            // What comes once more, after something else followed, is answered no more.
            Err(Refusal::Fixed(_) | Refusal::OutOfTurn { .. } | Refusal::Replayed { .. }) => return Answer::Nothing,
            Err(refusal) => panic!("site {} refuses: {refusal}", peer.index),
        };
        match fixed.step {
            Step::Input => part.upload.clone().map_or(Answer::Nothing, Answer::Upload),
            Step::Shares if act == Act::Misdeal => Answer::Say(misdealt(&fixed, peer)),
            _ => Answer::Say(fixed.message),
        }
    }

    fn past(&self, next: &RoundKey) -> Past {
        let of_task = |key: &&RoundKey| key.job == next.job && key.task == next.task;
        let consented = self.0.iter().filter(|(_, part)| part.member.fixed().iter().any(|f| f.step == Step::Consent));
        Past {
            epoch: next.epoch,
            last: self.0.keys().filter(of_task).map(|key| (key.round, key.attempt)).max(),
            consented: consented.map(|(key, _)| key).filter(of_task).map(|key| (key.round, key.attempt)).max(),
            answered: None,
        }
    }
}

impl Part {
    fn mask(&mut self, peer: &Peer) -> Fixed {
        let mut masker: Masker = self.member.masker().unwrap();
        let (mut vector, mut rest) = (Vec::new(), self.levels.as_slice());
        let mut blinds = self.is_figures.then(Blinds::default);
        while let Some(block) = masker.expected() {
            let (mine, others) = rest.split_at(masked::level_bytes(&block));
            let mut levels = masked::levels(&block, mine);
            vector.extend(match &mut blinds {
                Some(blinds) => blinds.mask(&mut masker, &block, &mut levels).unwrap(),
                None => masker.block(&mut levels).unwrap(),
            });
            rest = others;
        }
        assert!(rest.is_empty());
        let fixed = self.member.commit(masker.finish().unwrap(), &peer.key).unwrap();
        self.upload = Some([masked::head(&fixed.message).unwrap(), vector].concat());
        fixed
    }
}

fn member(peer: &Peer, header: &RoundHeader, past: &Past) -> Result<Member, Refusal> {
    let setup = masked::session(header)?;
    let Mode::SecureAggregation { .. } = header.mode else { panic!("{:?}", header.mode) };
    let demands = Demands {
        identity: peer.key.public(),
        peers: header.roster.iter().map(|entry| (entry.identity, Trust::VerifiedHere)).collect(),
        min_parties: 3,
        min_trusted_peers: 2,
        corrupt: None,
        model: header.model,
        noise: None,
    };
    let seed = Digest::of(format!("{} {}", peer.index, header.key()).as_bytes());
    Member::new(setup, demands, past, &Seed::new(Zeroizing::new(*seed.as_bytes())))
}

/// The same message with boxes that nobody can open: the digests of what is in them are signed.
fn misdealt(fixed: &Fixed, peer: &Peer) -> Vec<u8> {
    let Sent::Shares { shares, mut boxes } = Sent::from_bytes(&fixed.message).unwrap() else { panic!("{fixed:?}") };
    let mut document = (*shares.document).clone();
    for (sealed, digest) in boxes.iter_mut().zip(&mut document.boxes) {
        sealed.sealed[0] ^= 1;
        digest.digest = Digest::of(&sealed.sealed);
    }
    let shares = Signed::new(document, &peer.key).unwrap();
    Sent::Shares { shares, boxes }.to_bytes().unwrap()
}

/// The card of a job's model, which another job may have made, too.
async fn card(world: &World, job: &JobRow) -> String {
    let model = job.model.unwrap();
    let found = || async {
        let rows = world.store.model(model).await.unwrap();
        rows.into_iter().filter(|row| row.job == job.job).find_map(|row| row.card)
    };
    world.until("there is a card", || async { found().await.is_some() }).await;
    found().await.unwrap()
}

/// Nothing of a round is left in the store once it is over.
async fn assert_clean(world: &World, job: JobId) {
    for round in world.store.rounds(job, 100).await.unwrap() {
        assert_eq!(world.store.secure_messages(&round.key).await.unwrap(), [], "{}", round.key);
        assert!(world.store.secure_steps(&round.key).await.unwrap().is_empty(), "{}", round.key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_masked_sum_gives_the_model_of_the_plain_one_byte_for_byte() {
    let mut world = World::new().await;
    world.start(None).await;
    for strategy in ["fed_avg: {}", "scaffold: {}", "fed_adam: { lr: 0.01 }", "personal: { layers: ['2'] }"] {
        let plan = if strategy == "fed_avg: {}" { PLAN.to_owned() } else { with_strategy(strategy) };
        let plain = world.submit(&plan).await;
        let plain = world.succeeded(plain).await;
        let study = world.submit(&masked(&plan)).await;
        let job = world.succeeded(study).await;
        assert_eq!(job.model, plain.model, "{strategy}");
        assert!(card(&world, &plain).await.contains("could read each site's update"), "{strategy}");
        assert!(card(&world, &job).await.contains("travelled masked"), "{strategy}");
        let header = world.peers[0].log.lock().unwrap().opened.iter().rfind(|h| h.task == "train").cloned().unwrap();
        assert_eq!(header.mode, Mode::SecureAggregation { c: 1, t: 3, k_min: 3 });
        assert_clean(&world, job.job).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_may_fall_silent_at_any_step_and_is_back_in_the_next_round() {
    let mut world = World::with(5, quick(), None).await;
    world.start(None).await;
    for step in [Step::Keys, Step::Shares, Step::Input, Step::Consent, Step::Reveal] {
        world.peers[1].script(move |header| match (header.task.as_str(), header.round) {
            ("train", 1) => Act::Until(step),
            _ => Act::Work,
        });
        let study = world.submit(&masked(PLAN)).await;
        let job = world.succeeded(study).await;
        let trained: Vec<usize> =
            world.included(job.job).await.into_iter().filter(|(t, ..)| t == "train").map(|(.., n)| n).collect();
        // Before its input it is not in the sum; after that the sum has it, and the others take the masks off.
        let first = if step <= Step::Input { 4 } else { 5 };
        assert_eq!(trained, [first, 5, 5], "{step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_site_more_than_can_be_spared_ends_the_attempt_and_after_the_consent_the_round() {
    let mut world = World::new().await;
    world.start(None).await;
    for peer in &world.peers[..2] {
        peer.script(|header| if header.task == "train" { Act::Until(Step::Shares) } else { Act::Work });
    }
    let study = world.submit(&masked(PLAN)).await;
    let job = world.ended(study).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.reason.as_ref().unwrap().contains("2 of the 3 sites needed have answered"), "{job:?}");
    // Once sites have agreed to a sum there is no other attempt at it: the next round follows, with the same model.
    for peer in &world.peers[..2] {
        peer.script(|header| match (header.task.as_str(), header.round) {
            ("train", 1) => Act::Until(Step::Reveal),
            _ => Act::Work,
        });
    }
    let study = world.submit(&masked(PLAN)).await;
    let job = world.succeeded(study).await;
    let rounds = world.store.rounds(job.job, 100).await.unwrap();
    let of: Vec<(u32, u32, RoundState)> = rounds
        .iter()
        .filter(|round| round.key.task == "train")
        .map(|round| (round.key.round, round.key.attempt, round.state))
        .collect();
    let published = RoundState::Published;
    assert_eq!(of, [(1, 1, RoundState::Abandoned), (2, 1, published), (3, 1, published)]);
    let headers: Vec<RoundHeader> = world.peers[3].log.lock().unwrap().opened.clone();
    let model = |round: u32| headers.iter().find(|h| h.key().job == job.job && h.task == "train" && h.round == round);
    assert_eq!(model(1).unwrap().model, model(2).unwrap().model);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_round_that_was_agreed_to_and_not_taken_ends_the_run_which_does_not_run_again() {
    let mut world = World::new().await;
    world.start(None).await;
    for peer in &world.peers[..2] {
        peer.script(|header| match (header.task.as_str(), header.round) {
            ("train", 3) => Act::Until(Step::Reveal),
            _ => Act::Work,
        });
    }
    let study = world.submit(&masked(PLAN)).await;
    let job = world.ended(study).await;
    let reason = job.reason.clone().unwrap();
    assert!(job.state == JobState::Failed && reason.contains("agreed to a sum in round 3"), "{reason}");
    let refused = world.command(Command::Rerun { job: job.job, by: caller() }).await.unwrap_err();
    assert!(refused.message.contains("they join no other attempt at the round"), "{refused:?}");
    // Another run trains anew, and from a model of its own: from one model sites train for one set of sites.
    for peer in &world.peers {
        peer.script(|_| Act::Work);
    }
    world.command(Command::Start { study, by: caller() }).await.unwrap();
    let next = world.job(study, |next| next.job != job.job && next.state.is_terminal()).await;
    assert_eq!(next.state, JobState::Success, "{next:?}");
    let opened = world.peers[3].log.lock().unwrap().opened.clone();
    let start = |job: JobId| opened.iter().find(|h| h.job == job && h.task == "train" && h.round == 1).unwrap().model;
    assert_ne!(start(job.job), start(next.job));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_deals_wrongly_is_accused_and_the_next_attempt_does_without_one_of_the_two() {
    let mut world = World::new().await;
    world.start(None).await;
    let bad = world.peers[2].id;
    world.peers[2].script(|header| if header.task == "train" { Act::Misdeal } else { Act::Work });
    let study = world.submit(&masked(PLAN)).await;
    let job = world.succeeded(study).await;
    let rounds = world.store.rounds(job.job, 100).await.unwrap();
    let first = rounds.iter().find(|round| round.key.task == "train").unwrap();
    let reason = first.reason.clone().unwrap();
    assert!(first.state == RoundState::Abandoned && reason.contains(&bad.to_string()), "{reason}");
    let published: Vec<&Vec<_>> =
        rounds.iter().filter(|r| r.key.task == "train").filter_map(|r| r.included.as_ref()).collect();
    assert!(!published.is_empty() && published.iter().all(|sites| sites.len() == 3 && !sites.contains(&bad)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_stand_in_its_session_does_not_count_and_stops_nobody() {
    let mut world = World::with(5, quick(), None).await;
    world.start(None).await;
    world.peers[1].script(|header| if header.task == "train" { Act::Until(Step::Keys) } else { Act::Work });
    let (events, peer) = (world.process().events, world.peers[1].clone());
    let study = world.submit(&masked(PLAN)).await;
    let opened = || peer.log.lock().unwrap().opened.iter().find(|h| h.is_secure()).cloned();
    world.until("the round is open there", || async { opened().is_some() }).await;
    let header = opened().unwrap();
    // It signs its keys for another attempt, and sends what is no message.
    let wrong = RoundHeader { attempt: header.attempt + 1, ..header.clone() };
    let keys = member(&peer, &wrong, &Past { epoch: 1, ..Past::default() }).unwrap().advertise(&peer.key);
    for message in [keys.unwrap().message, b"no message".to_vec()] {
        let message = SecureMessage::new(message);
        let message = FromSite::SecureStep { round: header.key(), message };
        let session = peer.session_number();
        events.send(Event::Message { site: peer.id, session, message }).await.unwrap();
    }
    let job = world.succeeded(study).await;
    let round = world.store.rounds(job.job, 100).await.unwrap().into_iter().find(|r| r.key == header.key()).unwrap();
    assert!(round.outs[&peer.id].contains("another round or attempt"), "{:?}", round.outs);
    assert_eq!(round.included.unwrap().len(), 4);
}

/// The figures of an evaluation that the coordinator has: of each site, and of all together.
async fn evaluated(world: &World, job: JobId) -> Vec<(Option<SiteId>, FigureSet)> {
    let rows = world.store.figures(job).await.unwrap();
    rows.into_iter().filter(|row| row.task == "eval").map(|row| (row.site, row.figures)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_masked_figures_the_coordinator_has_the_sum_and_nothing_of_one_site() {
    let mut world = World::new().await;
    world.start(None).await;
    let plain = world.submit(PLAN).await;
    let plain = world.succeeded(plain).await;
    let study = world.submit(&masked_evaluation(PLAN)).await;
    let job = world.succeeded(study).await;
    let header = world.peers[0].log.lock().unwrap().opened.iter().rfind(|h| h.task == "eval").cloned().unwrap();
    assert_eq!(header.mode, Mode::SecureAggregation { c: 1, t: 3, k_min: 3 });
    let (each, sum) = (evaluated(&world, plain.job).await, evaluated(&world, job.job).await);
    assert_eq!(each.len(), 5);
    let together = each.into_iter().filter(|(site, _)| site.is_none()).collect::<Vec<_>>();
    assert_eq!(sum, together, "sums of whole numbers are exact in both ways");
    let words = card(&world, &job).await;
    assert!(words.contains("Of eval the coordinator learned the sums over the sites only."), "{words}");
    assert_clean(&world, job.job).await;
    // What one site holds back is held back of all, and nobody is told who it is.
    world.peers[2].script(|header| if header.task == "eval" { Act::Withhold } else { Act::Work });
    let study = world.submit(&masked_evaluation(PLAN)).await;
    let job = world.succeeded(study).await;
    let all = evaluated(&world, job.job).await;
    let [(None, held)] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(held.sums.keys().collect::<Vec<_>>(), ["n"]);
    assert_eq!(held.sums["n"], together[0].1.sums["n"]);
    assert!(held.withheld.values().all(|words| words.contains("of 1 of 4 sites")), "{held:?}");
}
