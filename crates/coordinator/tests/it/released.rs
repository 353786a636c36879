//! What a site gets of the results that it has a part in, and when.

use hospes_coordinator::models::Card;
use hospes_coordinator::store::jobs::{JobState, NewJob};
use hospes_coordinator::store::results::{ModelRow, ModelState};
use hospes_coordinator::store::{Role, StudyRow, StudyState};
use hospes_ledger::{Action, Actor, Filter, Ledger};
use hospes_protocol::grpc::{DownloadRequest, ModelCardRequest, download_part};
use hospes_protocol::id::{Digest, JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::plan::Quantise;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::round::{Mode, RoundHeader};
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::version::Version;
use serde_json::json;
use tonic::{Code, Status};

use crate::site::Site;
use crate::world::World;

/// A job that ended with success and its model; `part` is in it, `asked` was asked too, and nobody has released anything.
async fn ended(world: &World, part: &[SiteId], asked: SiteId) -> (JobId, Digest) {
    let at: Timestamp = (world.time.clock())();
    let (study, job) = (StudyId::new(at, [9; 10]), JobId::new(at, [1; 10]));
    let mut writer = world.models.write(&[TensorShape { name: "0.weight".into(), shape: vec![60_000] }]).unwrap();
    writer.push((0..60_000u16).map(f32::from)).unwrap();
    let model = world.models.keep(writer.finish().unwrap()).await.unwrap();
    let mut tx = world.store.begin("test").await.unwrap();
    let row = StudyRow {
        study,
        title: "Heart".into(),
        submitted_by: "researcher".into(),
        submitter: world.ids[&Role::Researcher],
        submitted: at,
        state: StudyState::Offered,
        plan: Digest::of(b"plan"),
        document: b"a study".to_vec(),
    };
    tx.insert_study(&row, &[]).await.unwrap();
    let members = [part, &[asked]].concat();
    let tasks = [("train".to_owned(), "nn_train", 1)];
    let new = NewJob { job, study, at, by: "researcher", setting: None, members: &members, tasks: &tasks };
    tx.insert_job(&new).await.unwrap();
    let key = SecretKey::from_seed(&[200; 32]);
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
        plan: Digest::of(b"plan"),
        roster: Vec::new(),
        mode: Mode::Plain { k_min: 2 },
        tensors: Vec::new(),
        quantise: Quantise::default(),
        deadline: at.plus_millis(1_000),
    };
    let round = header.key();
    tx.insert_round(&Signed::new(header, &key).unwrap(), at).await.unwrap();
    tx.commit_round(&round, part).await.unwrap();
    tx.publish_round(&round, Some(model), at).await.unwrap();
    let row = ModelRow {
        model,
        job,
        task: "train".into(),
        round: 1,
        bytes: std::fs::metadata(world.models.path(model)).unwrap().len(),
        state: ModelState::Final,
        at,
        card: None,
    };
    tx.insert_model(&row).await.unwrap();
    tx.set_card(job, "train", 1, &card(model, study, job, part, at)).await.unwrap();
    for (from, to) in [
        (JobState::Ready, JobState::Waiting),
        (JobState::Waiting, JobState::Running),
        (JobState::Running, JobState::Success),
    ] {
        tx.set_job_state(job, from, to, None, at).await.unwrap();
    }
    tx.commit().await.unwrap();
    (job, model)
}

/// A card with figures of each site and of all together.
fn card(model: Digest, study: StudyId, job: JobId, sites: &[SiteId], at: Timestamp) -> String {
    let figures = |site: Option<SiteId>| json!({ "task": "eval", "site": site, "n": 10.0, "withheld": {} });
    let metrics: Vec<_> = sites.iter().map(|site| figures(Some(*site))).chain([figures(None)]).collect();
    let lineage = json!({
        "study": study, "study_digest": Digest::of(b"s"), "plan": Digest::of(b"plan"), "job": job, "task": "train",
        "rounds": [], "initial": null, "at": at, "checkpoint": "",
    });
    let card = json!({
        "model": model, "title": "Heart", "purpose": "p", "requester": "r", "columns": ["age"], "parties": [],
        "privacy": "none", "metrics": metrics, "tensors": [], "lineage": lineage,
    });
    card.to_string()
}

async fn ask(site: &Site, job: JobId, model: Digest) -> Result<Card, Status> {
    let request = ModelCardRequest { job: job.to_string(), model: model.as_bytes().to_vec() };
    let card = site.client().await.model_card(request).await?.into_inner().card;
    Ok(serde_json::from_slice(&card).unwrap())
}

async fn fetch(site: &Site, model: Digest) -> Result<Vec<u8>, Status> {
    let request = DownloadRequest { digest: model.as_bytes().to_vec(), offset: 0 };
    let mut parts = site.client().await.download(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await? {
        if let Some(download_part::Part::Chunk(chunk)) = part.part {
            bytes.extend_from_slice(&chunk.data);
        }
    }
    Ok(bytes)
}

/// Who took what of the model, oldest first.
async fn given(world: &World) -> Vec<(String, String)> {
    let mut connection = world.store.read().await.unwrap();
    let filter = Filter { actions: vec![Action::ModelExported], ..Filter::default() };
    let records = Ledger::on(&mut *connection).page(&filter, 20).await.unwrap().records;
    let line = |r: &hospes_ledger::Record| {
        (r.actor.as_ref().map(Actor::id).unwrap_or_default(), r.reason.clone().unwrap_or_default())
    };
    records.iter().rev().map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_goes_to_the_sites_that_have_a_part_in_it_once_all_of_them_have_released_it() {
    let world = World::new().await;
    let (one, two) = (world.enrolled("Cleveland", 1).await, world.enrolled("Hungary", 2).await);
    let (asked, stranger) = (world.enrolled("Long Beach", 3).await, world.enrolled("Switzerland", 4).await);
    let (job, model) = ended(&world, &[one.id, two.id], asked.id).await;
    let release = async |site: SiteId| {
        let mut tx = world.store.begin("test").await.unwrap();
        assert!(tx.release_job(job, site, (world.time.clock())()).await.unwrap());
        tx.commit().await.unwrap();
    };

    // One site has not released: nobody gets anything, and those with a part learn for whom they wait.
    release(one.id).await;
    for site in [&one, &two] {
        let held = ask(site, job, model).await.unwrap_err();
        assert_eq!(held.code(), Code::FailedPrecondition);
        assert!(held.message().contains("until the people of Hungary release them"), "{held}");
        assert_eq!(fetch(site, model).await.unwrap_err().code(), Code::NotFound, "a held model went out");
    }
    for site in [&asked, &stranger] {
        assert_eq!(ask(site, job, model).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(fetch(site, model).await.unwrap_err().code(), Code::NotFound);
    }
    assert!(given(&world).await.is_empty());

    release(two.id).await;
    let card = ask(&one, job, model).await.unwrap();
    assert_eq!(card.model, Some(model));
    let places: Vec<Option<SiteId>> = card.metrics.iter().map(|m| m.site).collect();
    assert_eq!(places, [Some(one.id)], "figures that another site reported by itself, or that follow from its own");
    assert!(fetch(&one, model).await.unwrap() == std::fs::read(world.models.path(model)).unwrap());
    let of = |what: &str| (one.id.to_string(), format!("{what}, to a site that took part"));
    assert_eq!(given(&world).await, [of("its card"), of("its file")]);
    // A member that was asked and has no part in it, and a site of another study, still get nothing.
    for site in [&asked, &stranger] {
        assert_eq!(ask(site, job, model).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(fetch(site, model).await.unwrap_err().code(), Code::NotFound);
    }
    let other = ask(&one, job, Digest::of(b"other")).await.unwrap_err();
    assert_eq!(other.code(), Code::NotFound);

    // However often it asks, the ledger is not filled; and what cannot be entered does not go out.
    for _ in 0..8 {
        ask(&one, job, model).await.unwrap();
    }
    fetch(&one, model).await.unwrap();
    let taken = given(&world).await;
    let times = |what: &str| taken.iter().filter(|taken| **taken == of(what)).count();
    assert_eq!((times("its card"), times("its file")), (5, 2), "a site filled the ledger, or hid what it took");
    let mut tx = world.store.begin("test").await.unwrap();
    let full = "CREATE TRIGGER no_room BEFORE INSERT ON ledger_entry BEGIN SELECT RAISE(ABORT, 'full'); END";
    sqlx::raw_sql(full).execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ask(&two, job, model).await.unwrap_err().code(), Code::Internal);
    assert_eq!(fetch(&two, model).await.unwrap_err().code(), Code::Internal);
}
