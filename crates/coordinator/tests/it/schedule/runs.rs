//! Whole jobs, from submission to release.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use hospes_coordinator::models::Card;
use hospes_coordinator::schedule::{Command, RejectionCode, Reply};
use hospes_coordinator::store::jobs::{JobState, TaskState};
use hospes_coordinator::store::results::{Access, Fetch};
use hospes_coordinator::witness::settlement;
use hospes_ledger::{Filter, Ledger, Settlement};
use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::id::{Digest, SiteId};
use hospes_protocol::message::{Decision, FromSite};
use hospes_protocol::plan::{self, Component};

use super::peer::{Act, delta};
use super::world::{PLAN, World, caller, quick, terms};
use crate::postgres::Postgres;

/// Values of a model's file.
async fn values(world: &World, model: Digest) -> Vec<f32> {
    let models = world.process().models;
    let size = models.size(model).await.unwrap().unwrap();
    let bytes = models.read(model, 0..size).await.unwrap();
    let start = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    bytes[start..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The model that federated averaging over these peers' updates must give, in plain floating point.
fn expected(world: &World, rounds: &[hospes_protocol::round::RoundHeader], initial: &[f32]) -> Vec<f64> {
    let mut model: Vec<f64> = initial.iter().map(|v| f64::from(*v)).collect();
    for header in rounds {
        let alphas: Vec<f64> = world.peers.iter().map(|p| p.rows().min(100) as f64 / 100.0).collect();
        let total: f64 = alphas.iter().sum();
        for (peer, alpha) in world.peers.iter().zip(&alphas) {
            for (entry, change) in model.iter_mut().zip(delta(peer, header).concat()) {
                *entry += alpha * f64::from(change) / total;
            }
        }
    }
    model
}

async fn a_whole_job(world: &mut World) {
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.succeeded(study).await;
    let model = job.model.unwrap();
    // Every task is done, every round has all four.
    let tasks = world.store.tasks(job.job).await.unwrap();
    assert!(tasks.iter().all(|t| t.state == TaskState::Success), "{tasks:?}");
    let rounds = world.included(job.job).await;
    let names: Vec<(&str, u32, usize)> = rounds.iter().map(|(t, r, n)| (t.as_str(), *r, *n)).collect();
    assert_eq!(names, [("statistics", 1, 4), ("train", 1, 4), ("train", 2, 4), ("train", 3, 4), ("eval", 1, 4)]);
    // The model is the weighted mean of what the sites sent.
    let opened = world.peers[0].log.lock().unwrap().opened.clone();
    let training: Vec<_> = opened.into_iter().filter(|h| h.task == "train").collect();
    assert_eq!(training.len(), 3);
    let plan = plan::read(PLAN).unwrap();
    let Component::NnTrain(train) = &plan.tasks["train"].component else { panic!() };
    let initial = plan::model::initial(&train.model, 2, plan.seed);
    let found = values(world, model).await;
    let wanted = expected(world, &training, &initial);
    assert_eq!(found.len(), wanted.len());
    for (a, b) in found.iter().zip(&wanted) {
        assert!((f64::from(*a) - b).abs() < 1e-6, "{a} instead of {b}");
    }
    // Figures came one by one and as sums.
    let figures = world.store.figures(job.job).await.unwrap();
    let of = |task: &str, site: Option<SiteId>| {
        figures.iter().find(|f| f.task == task && f.site == site).unwrap().figures.sums["n"][0]
    };
    for (task, unit) in [("eval", 1.0), ("statistics", 1.0)] {
        assert_eq!(of(task, Some(world.peers[2].id)), unit * 3.0);
        assert_eq!(of(task, None), unit * 10.0);
    }
    // Only the last model's file is left.
    assert_eq!(world.process().models.list().unwrap(), [model]);
    world.until("all release", || async { world.store.access(job.job).await.unwrap() == Access::Released }).await;
    card(world, model).await;
    witnessed(world).await;
}

async fn card(world: &World, model: Digest) {
    world.until("there is a card", || async { world.store.model(model).await.unwrap()[0].card.is_some() }).await;
    let card: Card = serde_json::from_str(world.store.model(model).await.unwrap()[0].card.as_ref().unwrap()).unwrap();
    assert_eq!((card.model, card.parties.len(), card.lineage.rounds.len()), (Some(model), 4, 3));
    assert!(card.privacy.contains("the coordinator could read each site's update"));
    assert_eq!(card.metrics.iter().filter(|m| m.task == "eval").count(), 5);
    let own = card.clone().for_site(world.peers[2].id);
    let places: Vec<_> = own.metrics.iter().filter(|m| m.task == "eval").map(|m| m.site).collect();
    assert_eq!(places, [Some(world.peers[2].id), None], "a site gets no other site's figures by themselves");
    assert_eq!(card.notice, "Research use only, not for diagnosis or treatment.");
    assert!(card.lineage.initial.is_some() && card.lineage.checkpoint.contains('\n'));
    assert_ne!(world.store.fetch(world.peers[1].id, model).await.unwrap(), Fetch::No);
    assert_eq!(world.store.fetch(SiteId::from_bytes([9; 16]), model).await.unwrap(), Fetch::No);
}

/// The sites cosign the coordinator's checkpoints and it counts as settled.
async fn witnessed(world: &World) {
    let federation = world.peers[0].coordinator.site_id();
    world
        .until("the ledger is settled", || async {
            let found = settlement(&world.store, federation).await.unwrap();
            assert_eq!((found.members, found.needed), (4, 3));
            found.newest.is_some() && found.settlement == Settlement::Settled
        })
        .await;
    let mut connection = world.store.read().await.unwrap();
    assert!(Ledger::on(&mut *connection).contradictions().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_sites_run_a_job_to_its_end_on_sqlite() {
    a_whole_job(&mut World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_sites_run_a_job_to_its_end_on_postgres() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    a_whole_job(&mut World::with(4, quick(), Some(server)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_does_not_depend_on_the_order_in_which_updates_arrive() {
    let mut models = Vec::new();
    for turn in 0..3u64 {
        let mut world = World::new().await;
        for peer in &world.peers {
            let wait = (u64::from(peer.index) + turn) % 4 * 20;
            peer.script(move |_| Act::Slow(wait));
        }
        world.start(None).await;
        let study = world.submit(PLAN).await;
        models.push(world.succeeded(study).await.model.unwrap());
    }
    assert_eq!(models, [models[0]; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_stands_in_the_ledger_and_proofs_hold() {
    let mut world = World::new().await;
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.succeeded(study).await;
    world.until("all release", || async { world.store.access(job.job).await.unwrap() == Access::Released }).await;
    let mut connection = world.store.read().await.unwrap();
    let mut ledger = Ledger::on(&mut *connection);
    let page = ledger.page(&Filter::default(), 1_000).await.unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for record in &page.records {
        *counts.entry(record.action.unwrap().as_str()).or_default() += 1;
    }
    let wanted = [
        ("decision_received", 4),
        ("job_ended", 1),
        ("job_started", 2),
        ("model_published", 3),
        ("results_released", 4),
        ("round_closed", 5),
        ("round_opened", 5),
        ("study_offered", 1),
        ("study_submitted", 1),
        ("upload_received", 20),
    ];
    for (action, count) in wanted {
        assert_eq!(counts.get(action), Some(&count), "{action} in {counts:?}");
    }
    let size = page.size;
    let root = ledger.root(size).await.unwrap();
    for sequence in [0, size / 2, size - 1] {
        assert!(ledger.prove_inclusion(sequence, size).await.unwrap().holds(&root));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_held_until_every_site_that_took_part_has_released_them() {
    let mut world = World::new().await;
    for peer in &world.peers {
        peer.releases.store(false, Ordering::SeqCst);
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.succeeded(study).await;
    let mut ids: Vec<SiteId> = world.peers.iter().map(|p| p.id).collect();
    ids.sort();
    assert_eq!(world.store.access(job.job).await.unwrap(), Access::Held(ids.clone()));
    let events = world.process().events;
    for (n, peer) in world.peers.iter().enumerate() {
        assert_ne!(world.store.access(job.job).await.unwrap(), Access::Released, "released by {n}");
        let message = FromSite::Release { job: job.job };
        let said = hospes_coordinator::schedule::Event::Message { site: peer.id, session: 0, message };
        events.send(said).await.unwrap();
        world.command(Command::Sessions).await.unwrap();
    }
    assert_eq!(world.store.access(job.job).await.unwrap(), Access::Released);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_starts_by_itself_when_all_have_decided_and_two_approve_or_when_the_operator_says_so() {
    let mut world = World::new().await;
    for peer in &world.peers {
        peer.decides.store(false, Ordering::SeqCst);
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let process = world.process();
    let say = async |peer: usize, message: FromSite| {
        let site = world.peers[peer].id;
        let said = hospes_coordinator::schedule::Event::Message { site, session: 0, message };
        process.events.send(said).await.unwrap();
        world.command(Command::Sessions).await.unwrap();
    };
    let early = world.command(Command::Start { study, by: caller() }).await.unwrap_err();
    assert_eq!(early.code, RejectionCode::Conflict);
    assert!(early.message.contains("0 of its members have approved"), "{early}");
    say(0, world.peers[0].approval(study)).await;
    say(1, world.peers[1].approval(study)).await;
    let refusal = Refusal::new(RefusalCode::RefusedByPerson, "no ethics vote\u{1b}[2J");
    say(2, FromSite::Decision { study, decision: Decision::Refused(refusal) }).await;
    assert!(world.store.jobs(Some(study)).await.unwrap().is_empty(), "started before all had decided");
    say(3, FromSite::Decision { study, decision: Decision::Suspended }).await;
    let job = world.succeeded(study).await;
    assert_eq!(job.created_by, "automatic start");
    assert!(world.included(job.job).await.iter().all(|(_, _, n)| *n == 2));
    // A site that approves later is in the operator's next run, not in the one that is over.
    say(2, world.peers[2].approval(study)).await;
    assert_eq!(world.store.jobs(Some(study)).await.unwrap().len(), 1);
    let Reply::Job(second) = world.command(Command::Start { study, by: caller() }).await.unwrap() else { panic!() };
    let again = world.job(study, |job| job.job == second && job.state.is_terminal()).await;
    assert_eq!(again.state, JobState::Success, "{again:?}");
    assert!(world.included(second).await.iter().all(|(_, _, n)| *n == 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_plans_terms_and_selectors_are_refused_with_their_place() {
    let mut world = World::new().await;
    world.start(None).await;
    let refuse = async |plan: &str, what: &str| {
        let command = Command::Submit { terms: Box::new(terms()), plan: plan.to_owned(), sweep: None, by: caller() };
        let rejection = world.command(command).await.unwrap_err();
        assert_eq!(rejection.code, RejectionCode::Invalid);
        assert!(rejection.message.contains(what), "{}", rejection.message);
        rejection
    };
    let typo = refuse(&PLAN.replace("data: read }", "data: raed }"), "did you mean 'read'?").await;
    assert!(typo.problems.iter().any(|p| p.place == "tasks.split.inputs.data"), "{typo:?}");
    let masked = PLAN
        .replace("privacy: { plain: {} }", "privacy: { secure_aggregation: {} }")
        .replace("strategy: { fed_avg: {} }", "strategy: { median: {} }");
    refuse(&masked, "median needs to see each site's update").await;
    refuse(&PLAN.replace("bits: 32", "bits: 12"), "tasks.train.params.quantise").await;
    let named = |who: &str| format!("{PLAN}parties: {{ members: [{who}] }}\n");
    refuse(&named("'site:site-0', 'site:Atlantis'"), "parties.members.1: no site 'Atlantis'").await;
    refuse(&named("'site:site-0'"), "a study needs at least two").await;
    let mut hidden = terms();
    hidden.purpose = "to \u{202e}nrael".into();
    let command = Command::Submit { terms: Box::new(hidden), plan: PLAN.to_owned(), sweep: None, by: caller() };
    assert!(world.command(command).await.unwrap_err().message.contains("terms.purpose"));
    assert!(world.store.studies().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_sites_run_many_rounds() {
    let mut world = World::with(10, quick(), None).await;
    world.start(None).await;
    let study = world.submit(&PLAN.replace("rounds: 3", "rounds: 20")).await;
    let job = world.succeeded(study).await;
    let rounds = world.included(job.job).await;
    assert_eq!(rounds.iter().map(|(_, _, sites)| *sites).collect::<Vec<_>>(), [10; 22]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_has_so_many_open_studies_and_no_more() {
    let mut settings = quick();
    settings.open_studies = 1;
    let mut world = World::with(4, settings, None).await;
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let again = || Command::Submit { terms: Box::new(terms()), plan: PLAN.to_owned(), sweep: None, by: caller() };
    let refused = world.command(again()).await.unwrap_err();
    assert!(refused.code == RejectionCode::Conflict && refused.message.contains("1 are allowed"), "{refused}");
    world.succeeded(study).await;
    world.command(again()).await.unwrap();
}
