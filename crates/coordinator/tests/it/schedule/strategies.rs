//! Jobs with every strategy: what becomes of their files, whose turn it is, and models that others begin with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hospes_coordinator::models::{Card, Layout};
use hospes_coordinator::schedule::{Command, Event};
use hospes_coordinator::store::jobs::{JobRow, JobState};
use hospes_coordinator::store::results::Access;
use hospes_coordinator::store::rounds::RoundState;
use hospes_protocol::id::{Digest, SiteId};
use hospes_protocol::message::FromSite;
use hospes_protocol::plan::{self, Component};
use hospes_protocol::round::Mode;

use super::peer::{Act, delta};
use super::world::{PLAN, World, caller, quick, terms, with_strategy};

const TENSORS: [&str; 4] = ["0.weight", "0.bias", "2.weight", "2.bias"];

fn names(world: &World, model: Digest) -> Vec<String> {
    let layout = Layout::read(&world.process().models.path(model)).unwrap();
    layout.tensors.into_iter().map(|t| t.name).collect()
}

async fn values(world: &World, model: Digest) -> Vec<f32> {
    let models = world.process().models;
    let size = models.size(model).await.unwrap().unwrap();
    let bytes = models.read(model, 0..size).await.unwrap();
    let start = usize::try_from(Layout::read(&models.path(model)).unwrap().data_start()).unwrap();
    bytes[start..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_strategy_comes_to_a_model_and_leaves_nothing_else() {
    let mut world = World::new().await;
    world.start(None).await;
    let strategies = [
        "fed_prox: { mu: 0.1 }",
        "scaffold: {}",
        "fed_adam: { lr: 0.01 }",
        "fed_yogi: { lr: 0.01 }",
        "fed_adagrad: { lr: 0.1 }",
        "cyclic: {}",
        "personal: { layers: ['2'] }",
        "norm_bound: { norm_l2: 0.1 }",
        "median: {}",
        "trimmed_mean: { trim: 0.3 }",
        "multi_krum: { byzantine: 0, keep: 3 }",
    ];
    let mut finals = Vec::new();
    for strategy in strategies {
        let study = world.submit(&with_strategy(strategy)).await;
        let model = world.succeeded(study).await.model.unwrap();
        let wanted = if strategy.starts_with("personal") { &TENSORS[..2] } else { &TENSORS[..] };
        assert_eq!(names(&world, model), wanted, "{strategy}");
        // fed_prox is a matter of the site's, and these sites compute what they computed for others.
        finals.push(model);
        let mut left = world.process().models.list().unwrap();
        let mut wanted = finals.clone();
        left.sort();
        wanted.sort();
        wanted.dedup();
        assert_eq!((left, world.process().models.list_moments().unwrap()), (wanted, Vec::new()), "{strategy}");
        card(&world, model, strategy.split(':').next().unwrap()).await;
    }
    finals.sort();
    finals.dedup();
    // Of so few sites the trimmed mean is the median.
    assert_eq!(finals.len(), strategies.len() - 1, "two strategies gave one and the same model");
}

/// The card says how the model was made, and what it lacks.
async fn card(world: &World, model: Digest, strategy: &str) {
    world.until("there is a card", || async { world.store.model(model).await.unwrap()[0].card.is_some() }).await;
    let card: Card = serde_json::from_str(world.store.model(model).await.unwrap()[0].card.as_ref().unwrap()).unwrap();
    let lacks: Vec<&str> = card.kept_at_sites.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(
        (card.strategy.as_str(), lacks),
        (strategy, if strategy == "personal" { TENSORS[2..].to_vec() } else { vec![] })
    );
    assert_eq!(card.privacy.contains("could read its update"), strategy == "cyclic");
}

/// Rounds of training by the site whose turn it was.
async fn turns(world: &World, job: &JobRow) -> Vec<(u32, u32, SiteId)> {
    let rounds = world.store.rounds(job.job, 1_000).await.unwrap();
    let mut turns = Vec::new();
    for round in rounds.iter().filter(|r| r.key.task == "train") {
        let header = world.store.round_header(&round.key).await.unwrap().document;
        assert!(header.roster.len() >= 3, "the roster is that of all who may take part");
        let Mode::Turn { site } = header.mode else { panic!("{:?}", header.mode) };
        if let Some(included) = &round.included {
            assert_eq!(included[..], [site]);
        }
        turns.push((round.key.round, round.key.attempt, site));
    }
    turns.sort();
    turns
}

fn in_order(world: &World) -> Vec<SiteId> {
    let mut sites: Vec<SiteId> = world.peers.iter().map(|p| p.id).collect();
    sites.sort();
    sites
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_turns_each_site_goes_on_from_the_model_of_the_one_before() {
    let mut world = World::new().await;
    world.start(None).await;
    let study = world.submit(&with_strategy("cyclic: {}").replace("rounds: 3", "rounds: 6")).await;
    let job = world.succeeded(study).await;
    let sites = in_order(&world);
    let found: Vec<SiteId> = turns(&world, &job).await.into_iter().map(|(_, _, site)| site).collect();
    assert_eq!(found, [0, 1, 2, 3, 0, 1].map(|i| sites[i]));
    let plan = plan::read(PLAN).unwrap();
    let Component::NnTrain(train) = &plan.tasks["train"].component else { panic!() };
    let mut wanted: Vec<f32> = plan::model::initial(&train.model, 2, plan.seed);
    let mut rounds = world.store.rounds(job.job, 100).await.unwrap();
    rounds.retain(|r| r.key.task == "train");
    rounds.sort_by_key(|r| r.key.round);
    for (round, site) in rounds.iter().zip(found) {
        let header = world.store.round_header(&round.key).await.unwrap().document;
        for peer in &world.peers {
            let asked = peer.log.lock().unwrap().opened.iter().any(|h| h.key() == round.key);
            assert_eq!(asked, peer.id == site, "others are not asked");
            if asked {
                wanted.iter_mut().zip(delta(peer, &header).concat()).for_each(|(x, change)| *x += change);
            }
        }
    }
    for (found, wanted) in values(&world, job.model.unwrap()).await.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_not_asked_shows_no_progress() {
    let mut settings = quick();
    settings.patience_ms = 20_000;
    let mut world = World::with(4, settings, None).await;
    let sites = in_order(&world);
    let first = world.peers.iter().find(|p| p.id == sites[0]).unwrap().clone();
    first.script(|h| if h.task == "train" { Act::Silence } else { Act::Work });
    world.start(None).await;
    world.submit(&with_strategy("cyclic: {}")).await;
    let training = || first.log.lock().unwrap().opened.iter().find(|h| h.task == "train").map(|h| h.key());
    world.until("the first site has its turn", || async { training().is_some() }).await;
    let mut live = world.live.subscribe();
    for site in [sites[1], sites[0]] {
        let message = FromSite::Progress { round: training().unwrap(), done: 1, total: 2 };
        world.process().events.send(Event::Message { site, session: 0, message }).await.unwrap();
    }
    let shown = loop {
        let seen = live.recv().await.unwrap();
        if seen.what == "site progress" {
            break seen.detail;
        }
    };
    assert_eq!(shown, format!("{} 1/2", sites[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_drops_when_it_is_its_turn_is_passed_over() {
    for act in [Act::Refuse, Act::Fail, Act::Silence, Act::Vanish] {
        let mut world = World::new().await;
        let sites = in_order(&world);
        let peer = world.peers.iter().find(|p| p.id == sites[1]).unwrap().clone();
        peer.script(move |h| if h.task == "train" { act } else { Act::Work });
        world.start(None).await;
        let study = world.submit(&with_strategy("cyclic: {}").replace("rounds: 3", "rounds: 5")).await;
        // Who vanished stays away; the others go round without it.
        let job = world.succeeded(study).await;
        let published: Vec<SiteId> = {
            let all = turns(&world, &job).await;
            (1..=5).map(|round| all.iter().rfind(|(r, _, _)| *r == round).unwrap().2).collect()
        };
        assert_eq!(published, [0, 2, 3, 0, 2].map(|i| sites[i]), "{act:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_of_turns_fails_only_when_every_site_had_its_turn() {
    let mut world = World::new().await;
    let sites = in_order(&world);
    let works = Arc::new(AtomicBool::new(true));
    for peer in &world.peers {
        let (last, works) = (peer.id == sites[3], works.clone());
        peer.script(move |h| {
            let works = h.task != "train" || (last && works.load(Ordering::SeqCst));
            if works { Act::Work } else { Act::Fail }
        });
    }
    world.start(None).await;
    let plan = with_strategy("cyclic: {}").replace("rounds: 3", "rounds: 2");
    let study = world.submit(&plan).await;
    let job = world.succeeded(study).await;
    let found: Vec<(u32, u32, SiteId)> = turns(&world, &job).await;
    let wanted = (1..=2).flat_map(|round| (0..4).map(move |n| (round, n)));
    assert_eq!(found, wanted.map(|(round, n)| (round, n + 1, sites[n as usize])).collect::<Vec<_>>());
    works.store(false, Ordering::SeqCst);
    let study = world.submit(&plan).await;
    let job = world.ended(study).await;
    assert!(job.state == JobState::Failed && job.reason.as_ref().unwrap().contains("4 attempts"), "{job:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rerun_and_a_restart_go_on_with_the_site_whose_turn_it_is() {
    for restarts in [false, true] {
        let mut settings = quick();
        // Time enough to kill the process between two attempts.
        settings.retry_ms = if restarts { 1_500 } else { 5 };
        let mut world = World::with(4, settings, None).await;
        let sites = in_order(&world);
        let full = Arc::new(AtomicBool::new(false));
        let filled = full.clone();
        world.free = Arc::new(move |_| Ok(if filled.load(Ordering::SeqCst) { 1_000 } else { 1 << 40 }));
        let peer = world.peers.iter().find(|p| p.id == sites[1]).unwrap().clone();
        let (fills, failed) = (full.clone(), Arc::new(AtomicBool::new(false)));
        let fails = failed.clone();
        // In the second round the second site fails, and the coordinator's disk is full.
        peer.script(move |h| {
            if h.task != "train" || h.round != 2 || fails.swap(true, Ordering::SeqCst) {
                return Act::Work;
            }
            fills.store(!restarts, Ordering::SeqCst);
            Act::Fail
        });
        world.start(None).await;
        let study = world.submit(&with_strategy("cyclic: {}")).await;
        if restarts {
            world.until("the second site failed", || async { failed.load(Ordering::SeqCst) }).await;
            let job = world.store.jobs(Some(study)).await.unwrap()[0].job;
            let abandoned = async || {
                let rounds = world.store.rounds(job, 100).await.unwrap();
                rounds.last().unwrap().state == RoundState::Abandoned
            };
            world.until("its round is given up", &abandoned).await;
            world.kill().await;
            world.start(None).await;
        } else {
            let job = world.ended(study).await;
            assert!(job.reason.as_ref().unwrap().contains("no room"), "{job:?}");
            full.store(false, Ordering::SeqCst);
            world.command(Command::Rerun { job: job.job, by: caller() }).await.unwrap();
        }
        let job = world.succeeded(study).await;
        let wanted = [(1, 1, 0), (2, 1, 1), (2, 2, 2), (3, 1, 3)].map(|(round, attempt, n)| (round, attempt, sites[n]));
        assert_eq!(turns(&world, &job).await, wanted, "restarts: {restarts}");
    }
}

async fn job_with(world: &World, init: &str) -> JobRow {
    let plan = PLAN.replace("rounds: 3", &format!("rounds: 3\n      init: {{ safetensors: {init} }}"));
    let study = world.submit(&plan).await;
    world.ended(study).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_begins_with_the_model_of_another_one_if_it_is_there_fits_and_is_released() {
    let mut world = World::new().await;
    world.peers.iter().for_each(|p| p.releases.store(false, Ordering::SeqCst));
    world.start(None).await;
    let first = world.submit(PLAN).await;
    let first = world.succeeded(first).await;
    let model = first.model.unwrap();
    let failed = async |world: &World, init: &str, words: &str| {
        let job = job_with(world, init).await;
        let reason = job.reason.clone().unwrap();
        assert!(job.state == JobState::Failed && reason.contains(words), "{reason}");
        assert!(world.store.rounds(job.job, 100).await.unwrap().iter().all(|r| r.key.task != "train"));
    };
    failed(&world, &model.to_string(), "is held until every site").await;
    for peer in &world.peers {
        let message = FromSite::Release { job: first.job };
        world.process().events.send(Event::Message { site: peer.id, session: 0, message }).await.unwrap();
    }
    world.command(Command::Sessions).await.unwrap();
    assert_eq!(world.store.access(first.job).await.unwrap(), Access::Released);
    failed(&world, &Digest::of(b"nothing").to_string(), "is not the final model of a job").await;
    let smaller = PLAN
        .replace("out: 8", "out: 4")
        .replace("rounds: 3", &format!("rounds: 3\n      init: {{ safetensors: {model} }}"));
    let study = world.submit(&smaller).await;
    let job = world.ended(study).await;
    let reason = job.reason.unwrap();
    assert!(reason.contains("does not fit") && reason.contains("'0.weight' of shape [2, 8]"), "{reason}");
    // It fits, and with control variates too, which begin at 0.
    let job = job_with(&world, &model.to_string()).await;
    assert_eq!(job.state, JobState::Success, "{job:?}");
    assert_eq!(world.store.initial_model(job.job, "train").await.unwrap(), Some(model));
    assert!(world.process().models.size(model).await.unwrap().is_some(), "the model that it began with is gone");
    let plan = with_strategy("scaffold: {}")
        .replace("rounds: 3", &format!("rounds: 1\n      init: {{ safetensors: {model} }}"));
    let study = world.submit(&plan).await;
    let job = world.succeeded(study).await;
    assert_ne!(world.store.initial_model(job.job, "train").await.unwrap(), Some(model));
    assert_eq!(names(&world, job.model.unwrap()), TENSORS);
}

/// Layers that stay at the sites begin there by the seed: a file that has them would promise otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_stay_are_begun_with_by_no_file() {
    let mut world = World::new().await;
    world.start(None).await;
    let personal = || with_strategy("personal: { layers: ['2'] }");
    let mut models = Vec::new();
    for plan in [PLAN.to_owned(), personal()] {
        let study = world.submit(&plan).await;
        let job = world.succeeded(study).await;
        let released = || async { world.store.access(job.job).await.unwrap() == Access::Released };
        world.until("every site has released the model", released).await;
        models.push(job.model.unwrap());
    }
    let begin =
        |model: Digest| personal().replace("rounds: 3", &format!("rounds: 1\n      init: {{ safetensors: {model} }}"));
    let study = world.submit(&begin(models[0])).await;
    let reason = world.ended(study).await.reason.unwrap();
    assert!(reason.contains("'2.weight', which stays at the sites with personal"), "{reason}");
    // What travels is begun with.
    let study = world.submit(&begin(models[1])).await;
    let job = world.succeeded(study).await;
    assert_eq!(world.store.initial_model(job.job, "train").await.unwrap(), Some(models[1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strategy_that_needs_more_sites_than_there_are_says_so() {
    let mut world = World::new().await;
    world.start(None).await;
    for (strategy, needed) in [("multi_krum: { byzantine: 1, keep: 2 }", 5), ("trimmed_mean: { trim: 0.1 }", 10)] {
        let plan = with_strategy(strategy);
        let command = Command::Submit { terms: Box::new(terms()), plan, sweep: None, by: caller() };
        let rejection = world.command(command).await.unwrap_err();
        let words = format!("needs {needed} sites in a round, and the study has {}", world.peers.len());
        assert_eq!(rejection.problems[0].place, "tasks.train.params.strategy");
        assert!(rejection.problems[0].reason.contains(&words), "{rejection:?}");
    }
}
