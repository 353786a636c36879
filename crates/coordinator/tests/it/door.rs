//! Studies, models and the ledger through the door: what is asked, who may ask, what comes out.

use std::time::Duration;

use hospes_coordinator::schedule::Live;
use hospes_coordinator::store::jobs::{JobState, NewJob};
use hospes_coordinator::store::results::{ModelRow, ModelState};
use hospes_coordinator::store::rounds::UploadRow;
use hospes_coordinator::store::sweeps::SweepState;
use hospes_coordinator::store::{Role, StudyRow, StudyState};
use hospes_ledger::verify::{Expectations, verify};
use hospes_protocol::canon::Canonical;
use hospes_protocol::grpc::{DownloadRequest, UploadHeader, UploadPart, download_part, upload_part};
use hospes_protocol::id::{Digest, JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::study::{Study, StudyFile};
use serde_json::{Value, json};
use tonic::Code;
use uuid::Uuid;

use crate::world::World;

const STUDY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/heart/plain.yaml"));

fn now(world: &World) -> Timestamp {
    (world.time.clock())()
}

/// The example's terms, and its plan as an object.
fn submission() -> Value {
    let study = StudyFile::read(STUDY).unwrap();
    json!({ "terms": study.terms, "plan": study.plan })
}

async fn stored_study(world: &World, by: Uuid) -> StudyId {
    store_study(world, by, None).await
}

/// The example, with settings or without.
async fn store_study(world: &World, by: Uuid, sweep: Option<Value>) -> StudyId {
    let study = StudyId::new(now(world), [9; 10]);
    let mut file = submission();
    if let Some(sweep) = sweep {
        file["plan"]["tasks"].as_object_mut().unwrap().remove("alone");
        file["sweep"] = sweep;
    }
    let file = StudyFile::read(&file.to_string()).unwrap();
    let document = Study {
        id: study,
        federation: world.home.federation(),
        submitted: now(world),
        terms: file.terms,
        plan: Canonical::new(file.plan).unwrap(),
        sweep: file.sweep,
        members: Vec::new(),
    };
    let signed = Signed::new(document, &SecretKey::from_seed(&[1; 32])).unwrap();
    let row = StudyRow {
        study,
        title: "Heart".into(),
        submitted_by: "researcher".into(),
        submitter: by,
        submitted: now(world),
        state: StudyState::Offered,
        plan: Digest::of(b"plan"),
        document: signed.to_bytes().unwrap(),
    };
    let sites: Vec<_> = world.store.sites().await.unwrap().iter().map(|s| s.site).collect();
    let mut tx = world.store.begin("test").await.unwrap();
    tx.insert_study(&row, &sites).await.unwrap();
    tx.commit().await.unwrap();
    study
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_study_is_checked_and_submitted_and_its_mistakes_have_a_place() {
    let world = World::new().await;
    world.enrolled("Cleveland", 1).await;
    let good = submission();
    let check = async || world.api_as(&world.researcher, "POST", "/api/v1/studies/validate", Some(good.clone())).await;
    let (status, problem) = check().await;
    assert!(status == 422 && problem["detail"].as_str().unwrap().contains("parties.members"), "{problem}");
    world.enrolled("Hungary", 2).await;
    world.enrolled("Switzerland", 3).await;
    world.enrolled("VA Long Beach", 4).await;
    let (status, checked) =
        world.api_as(&world.researcher, "POST", "/api/v1/studies/validate", Some(good.clone())).await;
    assert_eq!(status, 200, "{checked}");
    assert_eq!(checked["members"].as_array().unwrap().len(), 4, "{checked}");
    assert!(!checked["egress"].as_array().unwrap().is_empty() && !checked["columns"].as_array().unwrap().is_empty());
    let (status, made) = world.api_as(&world.researcher, "POST", "/api/v1/studies", Some(good.clone())).await;
    assert!(status == 201 && made["study"].is_string(), "{made}");
    world.heard.wait("submit").await;
    let mut early = good.clone();
    early["terms"]["title"] = json!("too early");
    let (status, problem) = world.api_as(&world.researcher, "POST", "/api/v1/studies", Some(early)).await;
    assert!(status == 409 && problem["detail"] == "not now, researcher", "{problem}");
    let places = async |bad: Value| {
        let (status, problem) = world.api("POST", "/api/v1/studies", Some(bad)).await;
        assert_eq!(status, 422, "{problem}");
        problem["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["place"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let mut bad = good.clone();
    let tasks = bad["plan"]["tasks"].as_object_mut().unwrap();
    let name = tasks.iter().find(|(_, t)| t["inputs"]["data"].is_string()).unwrap().0.clone();
    tasks[&name]["inputs"]["data"] = json!("nowhere");
    let found = places(bad).await;
    assert!(found.iter().any(|p| p == &format!("plan.tasks.{name}.inputs.data")), "{found:?}");
    let mut bad = good.clone();
    bad["terms"]["colour"] = json!("red");
    assert!(places(bad).await.iter().any(|p| p.starts_with("terms")));
    assert_eq!(world.heard.count("submit"), 1, "a study with mistakes reached the schedule");
    let mut long = good;
    long["plan"] = json!("x".repeat(600 << 10));
    assert_eq!(world.api("POST", "/api/v1/studies", Some(long)).await.0, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_study_is_its_submitters_and_the_operators() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    // Somebody who had a token of this name before.
    let study = stored_study(&world, Uuid::from_u128(5)).await;
    let path = format!("/api/v1/studies/{study}");
    let (status, view) = world.api("GET", &path, None).await;
    assert_eq!((status, &view["decisions"][0]["decision"]), (200, &json!("waiting")));
    let job = stored_job(&world, study, site.id).await;
    for hidden in [path.clone(), format!("{path}/events"), format!("{path}/document"), format!("/api/v1/jobs/{job}")] {
        assert_eq!(world.api_as(&world.researcher, "GET", &hidden, None).await.0, 403, "{hidden}");
    }
    for list in ["/api/v1/studies", "/api/v1/jobs", "/api/v1/models"] {
        assert_eq!(world.api_as(&world.researcher, "GET", list, None).await, (200, json!([])), "{list}");
    }
    assert_eq!(world.api("GET", "/api/v1/jobs", None).await.1[0]["job"], job.to_string());
    assert_eq!(view["decisions"][0]["site"], site.id.to_string());
    let withdraw = format!("{path}/withdraw");
    let reason = Some(json!({ "reason": "over" }));
    assert_eq!(world.api_as(&world.researcher, "POST", &withdraw, reason.clone()).await.0, 403);
    assert_eq!(world.heard.count("withdraw"), 0);
    let mut tx = world.store.begin("test").await.unwrap();
    let own = StudyRow {
        study: StudyId::new(now(&world), [8; 10]),
        submitter: world.ids[&Role::Researcher],
        ..world.store.study(study).await.unwrap().unwrap()
    };
    tx.insert_study(&own, &[]).await.unwrap();
    tx.commit().await.unwrap();
    let own = format!("/api/v1/studies/{}/withdraw", own.study);
    assert_eq!(world.api_as(&world.researcher, "POST", &own, reason.clone()).await.0, 204);
    assert_eq!(world.api("POST", &withdraw, reason).await.0, 204);
    world.heard.wait(&format!("withdraw {study}")).await;
    assert_eq!(world.api("GET", "/api/v1/studies/00000000-0000-7000-8000-000000000000", None).await.0, 404);
    let other = StudyId::new(now(&world), [7; 10]);
    assert_eq!(world.api("GET", &format!("/api/v1/jobs?study={other}"), None).await, (200, json!([])));
    assert_eq!(world.api("GET", "/api/v1/jobs?colour=red", None).await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_watch_a_study_hear_of_it_and_of_no_other() {
    let world = World::new().await;
    let study = stored_study(&world, world.ids[&Role::Researcher]).await;
    let url = world.url(&format!("/api/v1/studies/{study}/events"));
    let mut stream = world.client().get(url).bearer_auth(&world.researcher).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let live = |study, what| Live { at: now(&world), study, job: None, what, detail: "train 1/2".into(), model: None };
    world.live.send(live(StudyId::new(now(&world), [1; 10]), "job running")).unwrap();
    world.live.send(live(study, "round published")).unwrap();
    let chunk = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await.unwrap().unwrap().unwrap();
    let text = String::from_utf8(chunk.to_vec()).unwrap();
    assert!(text.contains("round published") && !text.contains("job running"), "{text}");
    tokio::time::timeout(Duration::from_secs(8), world.coordinator.stop())
        .await
        .expect("a watcher keeps it from stopping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_downloaded_by_members_from_any_offset_and_by_nobody_else() {
    let world = World::new().await;
    let (member, stranger) = (world.enrolled("Cleveland", 1).await, world.enrolled("Hungary", 2).await);
    let study = stored_study(&world, world.ids[&Role::Researcher]).await;
    // A model of 3 MiB and a bit, so that there are several chunks.
    let model = stored_model(&world, study, member.id, 800_003).await;
    let file = std::fs::read(world.models.path(model)).unwrap();

    let request = |offset| DownloadRequest { digest: model.as_bytes().to_vec(), offset };
    for offset in [0, 1, 1 << 20, file.len() as u64 - 1, file.len() as u64] {
        let mut parts = member.client().await.download(request(offset)).await.unwrap().into_inner();
        let mut got = Vec::new();
        while let Some(part) = parts.message().await.unwrap() {
            match part.part.unwrap() {
                download_part::Part::Length(length) => assert_eq!(length, file.len() as u64),
                download_part::Part::Chunk(chunk) => {
                    assert_eq!(chunk.offset, offset + got.len() as u64);
                    assert_eq!(chunk.hash, blake3::hash(&chunk.data).as_bytes());
                    got.extend_from_slice(&chunk.data);
                }
            }
        }
        assert!(got == file[usize::try_from(offset).unwrap()..], "other bytes came from offset {offset}");
    }
    let refused = member.client().await.download(request(file.len() as u64 + 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    let refused = stranger.client().await.download(request(0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "a stranger got a model");

    // The job has not ended: neither card nor file is out, but the list names it.
    let (_, list) = world.api_as(&world.researcher, "GET", "/api/v1/models", None).await;
    assert_eq!((&list[0]["model"], &list[0]["released"]), (&json!(model.to_string()), &json!(false)));
    for what in ["card", "file"] {
        let path = format!("/api/v1/models/{model}/{what}");
        assert_eq!(world.api_as(&world.researcher, "GET", &path, None).await.0, 409, "{what} of a running job");
    }
    let other = Digest::of(b"other");
    assert_eq!(world.api("GET", &format!("/api/v1/models/{other}/card"), None).await.0, 404);
}

/// A job of one member.
async fn stored_job(world: &World, study: StudyId, member: SiteId) -> JobId {
    let job = JobId::new(now(world), [1; 10]);
    let mut tx = world.store.begin("test").await.unwrap();
    let tasks = [("train".to_owned(), "nn_train", 1)];
    let new = NewJob { job, study, at: now(world), by: "researcher", setting: None, members: &[member], tasks: &tasks };
    tx.insert_job(&new).await.unwrap();
    tx.commit().await.unwrap();
    job
}

/// A model of so many numbers, that came of a job of one member.
async fn stored_model(world: &World, study: StudyId, member: SiteId, entries: u64) -> Digest {
    let mut writer = world.models.write(&[TensorShape { name: "0.weight".into(), shape: vec![entries] }]).unwrap();
    writer.push((0..entries).map(|n| n as f32)).unwrap();
    let model = world.models.keep(writer.finish().unwrap()).await.unwrap();
    let row = ModelRow {
        model,
        job: stored_job(world, study, member).await,
        task: "train".into(),
        round: 1,
        bytes: std::fs::metadata(world.models.path(model)).unwrap().len(),
        state: ModelState::Final,
        at: now(world),
        card: Some("{}".into()),
    };
    let mut tx = world.store.begin("test").await.unwrap();
    tx.insert_model(&row).await.unwrap();
    tx.commit().await.unwrap();
    model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_ends_when_its_site_is_locked_out() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let study = stored_study(&world, world.ids[&Role::Researcher]).await;
    // More than fits into all windows and buffers on the way.
    let model = stored_model(&world, study, site.id, 6_000_000).await;
    let request = DownloadRequest { digest: model.as_bytes().to_vec(), offset: 0 };
    let mut parts = site.client().await.download(request).await.unwrap().into_inner();
    assert!(matches!(parts.message().await.unwrap().unwrap().part, Some(download_part::Part::Length(_))));
    let path = format!("/api/v1/sites/{}/suspend", site.id);
    assert_eq!(world.api("POST", &path, Some(json!({ "reason": "audit" }))).await.0, 204);
    let ended = loop {
        match parts.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a site that is locked out got the whole model"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_upload_is_known_however_long_its_round_is_over() {
    let world = World::new().await;
    let (site, other) = (world.enrolled("Cleveland", 1).await, world.enrolled("Hungary", 2).await);
    let study = stored_study(&world, world.ids[&Role::Researcher]).await;
    let job = stored_job(&world, study, site.id).await;
    let round = hospes_protocol::id::RoundKey { job, task: "train".into(), epoch: 1, round: 1, attempt: 1 };
    let (digest, bytes) = (Digest::of(b"update"), 10);
    let mut tx = world.store.begin("test").await.unwrap();
    let row = UploadRow { site: site.id, digest, bytes, at: now(&world) };
    tx.insert_upload(&round, &row).await.unwrap();
    tx.commit().await.unwrap();
    let header = UploadHeader {
        kind: 1,
        study: study.to_string(),
        round: Some(round.into()),
        digest: digest.as_bytes().to_vec(),
        length: bytes,
    };
    let progress = site.client().await.upload_status(header.clone()).await.unwrap().into_inner();
    assert_eq!((progress.offset, progress.over), (bytes, None));
    let part = UploadPart { part: Some(upload_part::Part::Header(header.clone())) };
    // The schedule of this world gives no receipts, but it is asked for one.
    let refused = site.client().await.upload(futures::stream::iter([part])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    world.heard.wait("uploaded").await;
    let progress = other.client().await.upload_status(header).await.unwrap().into_inner();
    assert!(progress.over.is_some(), "what another site has sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_nobody_asked_for_is_refused() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let job = JobId::new(now(&world), [3; 10]);
    let round = hospes_protocol::id::RoundKey { job, task: "train".into(), epoch: 1, round: 1, attempt: 1 };
    let header = UploadHeader {
        kind: 1,
        study: StudyId::new(now(&world), [1; 10]).to_string(),
        round: Some(round.into()),
        digest: vec![0; 32],
        length: 10,
    };
    let progress = site.client().await.upload_status(header.clone()).await.unwrap().into_inner();
    assert!(progress.over.is_some(), "{progress:?}");
    let mut bad = header;
    bad.digest = vec![0; 5];
    let refused = site.client().await.upload_status(bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exported_ledger_verifies_and_an_altered_one_does_not() {
    let world = World::new().await;
    world.enrolled("Cleveland", 1).await;
    let (status, note) = world.api("GET", "/api/v1/ledger/checkpoint", None).await;
    assert_eq!(status, 200);
    let note = note.as_str().unwrap().to_owned();
    assert_eq!(world.api_as(&world.researcher, "GET", "/api/v1/ledger/export", None).await.0, 403);
    let sites = world.api("GET", "/api/v1/sites", None).await.1;
    let unseen = format!("/api/v1/ledger/peers/{}/checkpoint", sites[0]["site"].as_str().unwrap());
    let (status, problem) = world.api("GET", &unseen, None).await;
    assert!(status == 404 && problem["detail"].as_str().unwrap().contains("was seen yet"), "{problem}");
    let get = world.client().get(world.url("/api/v1/ledger/export")).bearer_auth(&world.operator);
    let export = get.send().await.unwrap().bytes().await.unwrap();
    let expected =
        Expectations { origins: vec![world.home.key.public()], known: vec![note], ..Expectations::default() };
    let report = verify(&mut &export[..], &expected).unwrap();
    assert!(report.is_intact(), "{:?}", report.finding);
    // Two tokens, invitation, enrolled, certificate, roster, and the export itself.
    assert_eq!(report.entries, 7);
    let mut altered = export.to_vec();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    assert!(!verify(&mut &altered[..], &expected).unwrap().is_intact(), "a changed byte was not found");
    let (status, proof) = world.api("GET", "/api/v1/ledger/consistency?from=2&to=7", None).await;
    assert!(status == 200 && !proof["proof"].as_array().unwrap().is_empty(), "{proof}");
    assert_eq!(world.api("GET", "/api/v1/ledger/consistency?from=2&to=99", None).await.0, 422);
    assert!(
        std::fs::read_dir(&world.home.folder)
            .unwrap()
            .filter_map(Result::ok)
            .all(|e| { !e.file_name().to_string_lossy().starts_with("export-") }),
        "the export left a file behind"
    );
}

const LR: &str = "tasks.train.params.optimizer.sgd.lr";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_checked_with_their_places() {
    let world = World::new().await;
    world.enrolled("Cleveland", 1).await;
    world.enrolled("Hungary", 2).await;
    let mut good = submission();
    good["plan"]["tasks"].as_object_mut().unwrap().remove("alone");
    good["plan"]["parties"] = json!({ "members": ["site:Cleveland", "site:Hungary"] });
    good["sweep"] = json!({ "grid": { LR: [0.1, 0.2, 0.4] }, "rank": { "task": "eval" }, "parallel": 2 });
    let validate = async |body: &Value| {
        world.api_as(&world.researcher, "POST", "/api/v1/studies/validate", Some(body.clone())).await
    };
    let (status, checked) = validate(&good).await;
    assert_eq!((status, &checked["runs"]), (200, &json!(3)), "{checked}");
    let times =
        |name: &str| checked["egress"].as_array().unwrap().iter().find(|e| e["name"] == name).unwrap()["times"].clone();
    assert_eq!((times("confusion"), times("0.weight")), (json!(3), json!(45)), "15 rounds in each of 3 runs");
    let mut bad = good.clone();
    bad["sweep"]["grid"][LR] = json!([0.1, -0.2]);
    bad["sweep"]["rank"]["task"] = json!("eval");
    let (status, problem) = validate(&bad).await;
    let place = problem["problems"][0]["place"].as_str().unwrap();
    assert_eq!((status, place), (422, format!("sweep.grid.{LR}.1").as_str()), "{problem}");
    let (status, made) = world.api_as(&world.researcher, "POST", "/api/v1/studies", Some(good)).await;
    assert!(status == 201 && made["study"].is_string(), "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_shown_with_their_figures_once_the_best_is_released() {
    let world = World::new().await;
    let sweep = json!({ "grid": { LR: [0.1, 0.2, 0.4] }, "rank": { "task": "eval", "metric": "loss" } });
    let study = store_study(&world, world.ids[&Role::Researcher], Some(sweep)).await;
    let path = format!("/api/v1/studies/{study}");
    let show = async || world.api_as(&world.researcher, "GET", &path, None).await.1["sweep"].clone();
    let before = show().await;
    assert_eq!(
        (&before["state"], &before["metric"], &before["direction"]),
        (&json!("waiting"), &json!("loss"), &json!("lowest"))
    );
    assert_eq!(before["settings"].as_array().unwrap().len(), 3);
    assert_eq!(
        (&before["settings"][1]["values"][LR], &before["settings"][1]["state"]),
        (&json!(0.2), &json!("waiting"))
    );
    let at = now(&world);
    let model = Digest::of(b"best");
    let mut tx = world.store.begin("test").await.unwrap();
    assert!(tx.insert_sweep(study, "researcher", at).await.unwrap() && !tx.insert_sweep(study, "b", at).await.unwrap());
    for setting in 1..=3u8 {
        let job = JobId::new(at, [setting; 10]);
        let new = NewJob { job, study, at, by: "researcher", setting: Some(setting.into()), members: &[], tasks: &[] };
        tx.insert_job(&new).await.unwrap();
        let end = if setting == 1 { JobState::Failed } else { JobState::Success };
        for (from, to) in
            [(JobState::Ready, JobState::Waiting), (JobState::Waiting, JobState::Running), (JobState::Running, end)]
        {
            tx.set_job_state(job, from, to, None, at).await.unwrap();
        }
    }
    let best = JobId::new(at, [3; 10]);
    let row = ModelRow {
        model,
        job: best,
        task: "train".into(),
        round: 1,
        bytes: 8,
        state: ModelState::Final,
        at,
        card: None,
    };
    tx.insert_model(&row).await.unwrap();
    tx.set_job_model(best, model).await.unwrap();
    tx.rank_job(JobId::new(at, [2; 10]), Some(0.5), None).await.unwrap();
    tx.rank_job(best, Some(0.25), None).await.unwrap();
    tx.commit().await.unwrap();
    // Nothing is chosen yet: no figure is shown, and no model is to be had.
    let running = show().await;
    assert_eq!(
        (&running["state"], &running["best"], &running["released"]),
        (&json!("running"), &Value::Null, &json!(false))
    );
    assert!(running["settings"].as_array().unwrap().iter().all(|s| s["figure"].is_null()), "{running}");
    let (_, models) = world.api_as(&world.researcher, "GET", "/api/v1/models", None).await;
    assert_eq!(
        (&models[0]["setting"], &models[0]["released"], &models[0]["figure"]),
        (&json!(3), &json!(false), &Value::Null)
    );
    let file = format!("/api/v1/models/{model}/file");
    let (status, problem) = world.api_as(&world.researcher, "GET", &file, None).await;
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("the best model only"), "{problem}");
    let mut tx = world.store.begin("test").await.unwrap();
    tx.choose_job(best, at).await.unwrap();
    assert!(tx.end_sweep(study, SweepState::Success, None, at).await.unwrap());
    tx.commit().await.unwrap();
    let over = show().await;
    assert_eq!((&over["state"], &over["best"], &over["released"]), (&json!("success"), &json!(3), &json!(true)));
    let figures: Vec<&Value> = over["settings"].as_array().unwrap().iter().map(|s| &s["figure"]).collect();
    assert_eq!(figures, [&Value::Null, &json!(0.5), &json!(0.25)]);
    assert_eq!((&over["settings"][2]["best"], &over["settings"][0]["state"]), (&json!(true), &json!("failed")));
    let (_, models) = world.api_as(&world.researcher, "GET", "/api/v1/models", None).await;
    assert_eq!(
        (&models[0]["best"], &models[0]["released"], &models[0]["figure"]),
        (&json!(true), &json!(true), &json!(0.25))
    );
}
