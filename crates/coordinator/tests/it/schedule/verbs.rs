//! Every verb of the store for jobs, rounds, models and figures, on SQLite and on PostgreSQL.

use std::collections::BTreeMap;

use hospes_coordinator::store::jobs::{JobState, MemberState, NewJob, TaskState};
use hospes_coordinator::store::results::{Access, Fetch, ModelRow, ModelState};
use hospes_coordinator::store::rounds::{RoundState, UploadRow};
use hospes_coordinator::store::secure::SecureMessage;
use hospes_coordinator::store::{Store, StudyRow, StudyState};
use hospes_protocol::id::{Digest, JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::message::{Decision, FigureSet};
use hospes_protocol::plan::Quantise;
use hospes_protocol::round::coordinator::Step;
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::version::Version;
use uuid::Uuid;

use super::world::World;
use crate::postgres::Postgres;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_of_jobs_hold_on_sqlite() {
    let world = World::new().await;
    every_verb(&world.store, &world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_of_jobs_hold_on_postgres() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let world = World::with(4, super::world::quick(), Some(server)).await;
    every_verb(&world.store, &world).await;
}

async fn every_verb(store: &Store, world: &World) {
    let sites: Vec<SiteId> = world.peers.iter().map(|p| p.id).collect();
    let (study, job) = (StudyId::new(NOW, [1; 10]), JobId::new(NOW, [2; 10]));
    study_and_job(store, study, job, &sites).await;
    states(store, job).await;
    let header = header(job, study, world);
    rounds(store, &header, &sites).await;
    models(store, job, &sites).await;
    figures_and_access(store, job, &sites).await;
    leases(store, job).await;
    secure_steps(store, &header, &sites).await;
}

async fn study_and_job(store: &Store, study: StudyId, job: JobId, sites: &[SiteId]) {
    let mut tx = store.begin("test").await.unwrap();
    let row = StudyRow {
        study,
        title: "t".into(),
        submitted_by: "a".into(),
        submitter: Uuid::from_u128(1),
        submitted: NOW,
        state: StudyState::Offered,
        plan: Digest::of(b"p"),
        document: vec![1],
    };
    tx.insert_study(&row, sites).await.unwrap();
    assert_eq!(tx.decided(study, sites[0]).await.unwrap(), Some(None));
    assert_eq!(tx.decided(study, SiteId::from_bytes([9; 16])).await.unwrap(), None);
    tx.set_decision(study, sites[0], &Decision::Revoked, NOW).await.unwrap();
    assert_eq!(tx.decided(study, sites[0]).await.unwrap(), Some(Some(Decision::Revoked)));
    tx.commit().await.unwrap();
    assert_eq!(store.studies_without_job().await.unwrap(), [study]);
    let tasks = [("read".to_owned(), "reader", 0), ("train".to_owned(), "nn_train", 3)];
    let mut tx = store.begin("test").await.unwrap();
    tx.insert_job(&NewJob { job, study, at: NOW, by: "a", setting: None, members: &sites[..3], tasks: &tasks })
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert!(store.studies_without_job().await.unwrap().is_empty());
    assert_eq!(store.jobs(Some(study)).await.unwrap(), store.jobs(None).await.unwrap());
    assert_eq!(store.open_jobs().await.unwrap()[0].job, job);
    assert_eq!(store.open_job(study).await.unwrap().unwrap().job, job);
    assert_eq!(
        (store.open_studies(Uuid::from_u128(1)).await.unwrap(), store.open_studies(Uuid::nil()).await.unwrap()),
        (1, 0)
    );
    let mut members: Vec<SiteId> = store.job_members(job).await.unwrap().iter().map(|m| m.site).collect();
    members.sort();
    let mut wanted = sites[..3].to_vec();
    wanted.sort();
    assert_eq!(members, wanted);
    let tasks = store.tasks(job).await.unwrap();
    assert_eq!(tasks.iter().map(|t| (t.task.as_str(), t.rounds)).collect::<Vec<_>>(), [("read", 0), ("train", 3)]);
}

async fn states(store: &Store, job: JobId) {
    let mut tx = store.begin("test").await.unwrap();
    assert!(tx.set_job_state(job, JobState::Ready, JobState::Running, None, NOW).await.is_err(), "a step left out");
    assert!(tx.set_job_state(job, JobState::Running, JobState::Failed, None, NOW).await.is_err(), "another state");
    tx.set_job_state(job, JobState::Ready, JobState::Waiting, None, NOW).await.unwrap();
    tx.set_job_state(job, JobState::Waiting, JobState::Running, None, NOW.plus_millis(5)).await.unwrap();
    assert!(tx.set_task_state(job, "train", TaskState::Waiting, TaskState::Failed, None, NOW).await.is_err());
    tx.set_task_state(job, "train", TaskState::Waiting, TaskState::Running, None, NOW).await.unwrap();
    tx.set_task_progress(job, "train", 1, Some(Digest::of(b"m"))).await.unwrap();
    tx.set_task_progress(job, "train", 2, None).await.unwrap();
    tx.commit().await.unwrap();
    let row = store.job(job).await.unwrap().unwrap();
    assert_eq!((row.state, row.started, row.ended), (JobState::Running, Some(NOW.plus_millis(5)), None));
    let task = store.tasks(job).await.unwrap().remove(1);
    assert_eq!((task.done, task.model), (2, Some(Digest::of(b"m"))));
    // A transaction that is not committed changes nothing.
    let mut tx = store.begin("test").await.unwrap();
    tx.set_job_state(job, JobState::Running, JobState::Failed, Some("x"), NOW).await.unwrap();
    drop(tx);
    assert_eq!(store.job(job).await.unwrap().unwrap().state, JobState::Running);
}

fn header(job: JobId, study: StudyId, world: &World) -> Signed<RoundHeader> {
    let key = SecretKey::from_seed(&[200; 32]);
    let roster = world.peers.iter().map(|p| RosterEntry { site: p.id, identity: p.key.public() }).collect();
    let header = RoundHeader {
        protocol: Version::V1,
        federation: key.public().site_id(),
        study,
        job,
        task: "train".into(),
        epoch: 1,
        round: 1,
        attempt: 1,
        model: None,
        plan: Digest::of(b"p"),
        roster,
        mode: Mode::Plain { k_min: 2 },
        tensors: Vec::new(),
        quantise: Quantise::default(),
        deadline: NOW.plus_millis(1_000),
    };
    Signed::new(header, &key).unwrap()
}

async fn secure_steps(store: &Store, first: &Signed<RoundHeader>, sites: &[SiteId]) {
    let header = RoundHeader { attempt: 2, ..(*first.document).clone() };
    let header = Signed::new(header, &SecretKey::from_seed(&[200; 32])).unwrap();
    let key = header.document.key();
    let said = |step, site, byte: u8| SecureMessage { step, site, message: vec![byte; 40_000] };
    let mut tx = store.begin("test").await.unwrap();
    tx.insert_round(&header, NOW).await.unwrap();
    for site in [sites[1], sites[0]] {
        assert!(tx.insert_secure_message(&key, &said(Step::Shares, site, 2), NOW).await.unwrap());
        assert!(tx.insert_secure_message(&key, &said(Step::Keys, site, 1), NOW).await.unwrap());
    }
    assert!(!tx.insert_secure_message(&key, &said(Step::Keys, sites[0], 9), NOW).await.unwrap(), "said twice");
    tx.close_secure_step(&key, Step::Keys, &sites[..2]).await.unwrap();
    tx.commit().await.unwrap();
    let again = store.begin("test").await.unwrap().close_secure_step(&key, Step::Keys, sites).await;
    assert!(again.is_err(), "a step was closed twice");
    let mut two = [sites[0], sites[1]];
    two.sort_unstable();
    let wanted: Vec<SecureMessage> =
        [(Step::Keys, 1), (Step::Shares, 2)].iter().flat_map(|(step, n)| two.map(|s| said(*step, s, *n))).collect();
    assert_eq!(store.secure_messages(&key).await.unwrap(), wanted);
    assert_eq!(store.secure_steps(&key).await.unwrap(), [(Step::Keys, sites[..2].to_vec())].into());
    assert!(store.secure_messages(&first.document.key()).await.unwrap().is_empty());
    // With the round they are gone: the shares in them would take masks off.
    let mut tx = store.begin("test").await.unwrap();
    tx.end_round(&key, RoundState::Open, RoundState::Abandoned, "x", NOW).await.unwrap();
    tx.commit().await.unwrap();
    assert!(store.secure_messages(&key).await.unwrap().is_empty());
    assert!(store.secure_steps(&key).await.unwrap().is_empty());
}

async fn rounds(store: &Store, header: &Signed<RoundHeader>, sites: &[SiteId]) {
    let (key, job) = (header.document.key(), header.document.job);
    assert_eq!(store.last_attempt(job, "train", 1).await.unwrap(), 0);
    let mut tx = store.begin("test").await.unwrap();
    tx.insert_round(header, NOW).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.last_attempt(job, "train", 1).await.unwrap(), 1);
    let again = store.begin("test").await.unwrap().insert_round(header, NOW).await;
    assert!(again.is_err(), "one attempt was opened twice");
    let outs: BTreeMap<SiteId, String> = [(sites[2], "failed: \"x\"".to_owned())].into();
    let upload = |site, digest| UploadRow { site, digest, bytes: 48, at: NOW };
    let mut tx = store.begin("test").await.unwrap();
    tx.set_round_outs(&key, &outs).await.unwrap();
    assert!(tx.insert_upload(&key, &upload(sites[0], Digest::of(b"0"))).await.unwrap());
    assert!(!tx.insert_upload(&key, &upload(sites[0], Digest::of(b"1"))).await.unwrap(), "two uploads of one site");
    assert!(tx.publish_round(&key, None, NOW).await.is_err(), "published before its inputs were fixed");
    tx.commit_round(&key, &sites[..2]).await.unwrap();
    tx.commit().await.unwrap();
    let row = store.open_rounds(job).await.unwrap().remove(0);
    assert_eq!((row.state, &row.outs, row.included.as_deref()), (RoundState::Committed, &outs, Some(&sites[..2])));
    assert_eq!(store.round_header(&key).await.unwrap().document.digest(), header.document.digest());
    assert_eq!(store.uploads(&key).await.unwrap(), [upload(sites[0], Digest::of(b"0"))]);
    assert!(store.last_closed_round(job).await.unwrap().is_none());
    let mut tx = store.begin("test").await.unwrap();
    tx.publish_round(&key, Some(Digest::of(b"m")), NOW).await.unwrap();
    assert!(tx.end_round(&key, RoundState::Open, RoundState::Failed, "x", NOW).await.is_err(), "it was over");
    assert!(tx.end_round(&key, RoundState::Published, RoundState::Failed, "x", NOW).await.is_err());
    tx.commit().await.unwrap();
    assert!(store.open_rounds(job).await.unwrap().is_empty());
    assert_eq!(store.last_closed_round(job).await.unwrap().unwrap().model, Some(Digest::of(b"m")));
    let took_part = store.took_part(job, None).await.unwrap();
    assert_eq!(took_part, sites[..2].iter().map(|s| (*s, 1)).collect());
    assert_eq!(store.took_part(job, Some(("train", 1))).await.unwrap(), took_part);
    assert!(store.took_part(job, Some(("train", 0))).await.unwrap().is_empty(), "its first round is later");
    assert!(store.took_part(job, Some(("eval", 9))).await.unwrap().is_empty());
    assert_eq!(store.published_rounds(job, "train").await.unwrap(), [header.document.digest()]);
    let closed = async |site, most| store.closed_rounds_of(site, job, most).await.unwrap();
    assert_eq!(closed(sites[0], 4).await.iter().map(|r| &r.key).collect::<Vec<_>>(), [&key]);
    assert!(closed(sites[0], 0).await.is_empty() && closed(sites[1], 4).await.is_empty(), "site 1 sent nothing");
    assert_eq!(store.rounds(job, 1).await.unwrap()[0].key, key);
    assert!(store.rounds(job, 0).await.unwrap().is_empty());
}

async fn models(store: &Store, job: JobId, sites: &[SiteId]) {
    let row = |round: u32, name: &[u8], state| ModelRow {
        model: Digest::of(name),
        job,
        task: "train".into(),
        round,
        bytes: 100,
        state,
        at: NOW,
        card: None,
    };
    let mut tx = store.begin("test").await.unwrap();
    tx.insert_model(&row(0, b"a", ModelState::Checkpoint)).await.unwrap();
    tx.insert_model(&row(1, b"b", ModelState::Checkpoint)).await.unwrap();
    tx.insert_model(&row(2, b"a", ModelState::Checkpoint)).await.unwrap();
    // The file of round 0 is that of round 2 too, and stays.
    assert_eq!(tx.drop_models(job, "train", 2, None).await.unwrap(), [Digest::of(b"b")]);
    // The model of one round is kept to go back to, and becomes the final one of another task.
    let of = |round: u32, name: &[u8]| ModelRow { task: "other".into(), ..row(round, name, ModelState::Checkpoint) };
    tx.insert_model(&of(1, b"d")).await.unwrap();
    tx.insert_model(&of(2, b"e")).await.unwrap();
    assert_eq!(tx.drop_models(job, "other", 9, Some(1)).await.unwrap(), [Digest::of(b"e")]);
    assert_eq!(tx.finish_model(job, "other", 1).await.unwrap(), Some(Digest::of(b"d")));
    assert_eq!(tx.finish_model(job, "other", 2).await.unwrap(), None, "its file is gone");
    assert!(tx.drop_models(job, "other", 9, None).await.unwrap().is_empty());
    tx.put_loss(job, "other", 1, 0.1 + 0.2).await.unwrap();
    tx.put_loss(job, "other", 0, 2.0).await.unwrap();
    tx.put_loss(job, "other", 0, -1e-300).await.unwrap();
    tx.insert_model(&row(3, b"c", ModelState::Final)).await.unwrap();
    assert_eq!(
        tx.drop_models(job, "train", 9, None).await.unwrap(),
        [Digest::of(b"a")],
        "final models are not dropped"
    );
    tx.set_job_model(job, Digest::of(b"c")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.initial_model(job, "train").await.unwrap(), Some(Digest::of(b"a")), "though its file is gone");
    assert_eq!(store.initial_model(job, "eval").await.unwrap(), None);
    assert_eq!(store.losses(job, "other").await.unwrap(), [(0, -1e-300), (1, 0.1 + 0.2)]);
    assert!(store.losses(job, "train").await.unwrap().is_empty());
    let gone_back_to = ModelRow { state: ModelState::Final, ..of(1, b"d") };
    assert_eq!(store.models().await.unwrap(), [gone_back_to, row(3, b"c", ModelState::Final)]);
    assert_eq!(store.models_of(job).await.unwrap(), store.models().await.unwrap());
    assert!(store.model(Digest::of(b"b")).await.unwrap().is_empty());
    assert_ne!(store.fetch(sites[0], Digest::of(b"c")).await.unwrap(), Fetch::No);
    assert_eq!(store.fetch(sites[0], Digest::of(b"b")).await.unwrap(), Fetch::No, "its file is gone");
    assert_eq!(store.fetch(sites[3], Digest::of(b"c")).await.unwrap(), Fetch::No, "no member");
}

async fn figures_and_access(store: &Store, job: JobId, sites: &[SiteId]) {
    let set = |n: f64| FigureSet { sums: [("n".to_owned(), vec![n])].into(), withheld: BTreeMap::new() };
    let mut tx = store.begin("test").await.unwrap();
    tx.put_figures(job, "eval", None, &set(3.0)).await.unwrap();
    tx.put_figures(job, "eval", Some(sites[1]), &set(1.0)).await.unwrap();
    tx.put_figures(job, "eval", Some(sites[1]), &set(2.0)).await.unwrap();
    assert!(tx.put_figures(job, "eval", None, &set(f64::NAN)).await.is_err());
    tx.commit().await.unwrap();
    let found: Vec<_> = store.figures(job).await.unwrap().into_iter().map(|f| (f.site, f.figures)).collect();
    assert_eq!(found, [(Some(sites[1]), set(2.0)), (None, set(3.0))]);
    assert_eq!(store.access(job).await.unwrap(), Access::NotReady);
    let fetch = async |site: SiteId| store.fetch(site, Digest::of(b"c")).await.unwrap();
    assert_eq!(fetch(sites[2]).await, Fetch::Rounds, "a member of a job that runs");
    let mut tx = store.begin("test").await.unwrap();
    tx.set_job_member(job, sites[2], MemberState::Refused, Some("why")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(fetch(sites[2]).await, Fetch::No, "the job goes on without it");
    let mut tx = store.begin("test").await.unwrap();
    tx.set_job_state(job, JobState::Running, JobState::Success, None, NOW).await.unwrap();
    assert!(tx.release_job(job, sites[0], NOW).await.unwrap());
    assert!(!tx.release_job(job, sites[0], NOW).await.unwrap(), "released twice");
    assert!(!tx.release_job(job, sites[3], NOW).await.unwrap(), "no member");
    tx.commit().await.unwrap();
    assert_eq!(store.access(job).await.unwrap(), Access::Held(vec![sites[1]]), "site 2 took no part");
    assert_eq!(fetch(sites[0]).await, Fetch::No, "it is held");
    let study = store.job(job).await.unwrap().unwrap().study;
    assert!(store.open_job(study).await.unwrap().is_none());
    assert_eq!(store.open_studies(Uuid::from_u128(1)).await.unwrap(), 0, "a job of it has succeeded");
    assert_eq!(store.jobs_without_card().await.unwrap(), [job]);
    assert_eq!(store.ended_jobs_of(sites[1], NOW.plus_millis(1), 5).await.unwrap().len(), 1, "its release is missing");
    let mut tx = store.begin("test").await.unwrap();
    assert!(tx.withdraw_study(study).await.unwrap());
    tx.commit().await.unwrap();
    assert!(store.ended_jobs_of(sites[1], NOW.plus_millis(1), 5).await.unwrap().is_empty(), "nobody waits any more");
    assert_eq!(store.ended_jobs_of(sites[1], NOW, 5).await.unwrap().len(), 1, "it ended since");
    let mut tx = store.begin("test").await.unwrap();
    tx.release_job(job, sites[1], NOW).await.unwrap();
    tx.set_card(job, "train", 3, "{}").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.access(job).await.unwrap(), Access::Released);
    assert_eq!((fetch(sites[0]).await, fetch(sites[1]).await), (Fetch::Result(job), Fetch::Result(job)));
    assert_eq!((fetch(sites[2]).await, fetch(sites[3]).await), (Fetch::No, Fetch::No), "who has no part in it");
    assert_eq!(store.fetch(sites[0], Digest::of(b"a")).await.unwrap(), Fetch::No, "what was trained on the way");
    assert!(store.jobs_without_card().await.unwrap().is_empty());
    assert_eq!(store.ended_jobs_of(sites[0], NOW, 5).await.unwrap().len(), 1);
    for site in [sites[0], sites[1]] {
        assert!(store.ended_jobs_of(site, NOW.plus_millis(1), 5).await.unwrap().is_empty());
    }
    assert!(store.ended_jobs_of(sites[3], NOW, 5).await.unwrap().is_empty());
}

async fn leases(store: &Store, job: JobId) {
    let mut tx = store.begin("test").await.unwrap();
    assert!(tx.lease_job(job, "a", NOW, 100).await.unwrap());
    assert!(!tx.lease_job(job, "b", NOW.plus_millis(99), 100).await.unwrap());
    assert!(tx.lease_job(job, "a", NOW.plus_millis(99), 100).await.unwrap(), "the holder may hold on");
    assert!(tx.lease_job(job, "b", NOW.plus_millis(199), 100).await.unwrap(), "a dead holder's is taken over");
    assert!(!tx.lease_job(job, "a", NOW.plus_millis(200), 100).await.unwrap());
    tx.commit().await.unwrap();
}
