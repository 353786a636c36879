//! The REST API: who may do what, and how mistakes are answered.

use std::time::Duration;

use hospes_coordinator::audit::Audit;
use hospes_coordinator::enrol::revoke_token;
use hospes_coordinator::store::jobs::{JobState, NewJob};
use hospes_coordinator::store::results::{ModelRow, ModelState};
use hospes_coordinator::store::{Role, StudyRow, StudyState};
use hospes_ledger::{Action, Actor, Filter, Ledger, ObjectKind, Record};
use hospes_protocol::id::{Digest, JobId, PersonId, StudyId};
use hospes_protocol::plan::model::TensorShape;
use serde_json::json;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_good_token_nothing_is_said() {
    let world = World::new().await;
    for path in ["/api/v1/federation", "/api/v1/sites", "/api/v1/invitations", "/api/v1/roster"] {
        let answer = world.client().get(world.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(problem["status"], 401);
        assert!(problem["reference"].as_str().unwrap().len() == 8, "{problem}");
    }
    assert_eq!(world.api_as("hospes_nonsense", "GET", "/api/v1/sites", None).await.0, 401);
    let now = (world.time.clock())();
    revoke_token(&world.store, &Audit::default(), now, "operator").await.unwrap().unwrap();
    assert_eq!(world.api("GET", "/api/v1/sites", None).await.0, 401, "a revoked token was taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_researcher_reads_and_does_not_run_the_federation() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let ask = async |method: &str, path: &str, body| world.api_as(&world.researcher, method, path, body).await.0;
    assert_eq!(ask("GET", "/api/v1/sites", None).await, 200);
    assert_eq!(ask("GET", "/api/v1/roster", None).await, 200);
    assert_eq!(ask("GET", "/api/v1/invitations", None).await, 403);
    assert_eq!(ask("POST", "/api/v1/invitations", Some(json!({ "name": "x" }))).await, 403);
    for verb in ["revoke", "suspend"] {
        let path = format!("/api/v1/sites/{}/{verb}", site.id);
        assert_eq!(ask("POST", &path, Some(json!({ "reason": "x" }))).await, 403);
    }
    let (status, about) = world.api_as(&world.researcher, "GET", "/api/v1/federation", None).await;
    assert_eq!((status, &about["role"]), (200, &json!("researcher")));
    assert_eq!(about["ca_words"].as_str().unwrap().split(' ').count(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_read_strictly_and_mistakes_have_a_place() {
    let world = World::new().await;
    let post = async |body: &str, kind: &str| {
        let request = world.client().post(world.url("/api/v1/invitations")).bearer_auth(&world.operator);
        let answer = request.header("content-type", kind).body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    let (status, problem) = post(r#"{"name":"a","colour":"red"}"#, "application/json").await;
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("unknown field `colour`"), "{problem}");
    let (status, problem) = post(r#"{"name":7}"#, "application/json").await;
    assert!(status == 400 && problem["detail"].as_str().unwrap().starts_with("name: "), "{problem}");
    assert_eq!(post(r#"{"name":"a"}"#, "text/plain").await.0, 400);
    assert_eq!(post("{", "application/json").await.0, 400);
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(70 << 10));
    assert_eq!(post(&large, "application/json").await.0, 413);
    assert_eq!(post(r#"{"name":"  "}"#, "application/json").await.0, 422);
    assert_eq!(post(r#"{"name":"a","seconds":1}"#, "application/json").await.0, 422);
    assert_eq!(world.api("GET", "/api/v1/sites/nonsense", None).await.0, 400);
    assert_eq!(world.api("GET", "/api/v1/sites/aaaaaaaaaaaaaaaaaaaaaaaaaa", None).await.0, 404);
    assert_eq!(world.api("GET", "/api/v1/nonsense", None).await.0, 404);
    assert_eq!(world.api("PUT", "/api/v1/sites", None).await.0, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signs_of_life_need_no_token_and_readiness_asks_the_database() {
    let world = World::new().await;
    let get = async |path: &str| world.client().get(world.url(path)).send().await.unwrap().status().as_u16();
    assert_eq!((get("/healthz").await, get("/readyz").await), (200, 200));
    world.store.close().await;
    // What was found is good for a second, so that strangers cannot keep the database busy.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!((get("/healthz").await, get("/readyz").await), (200, 503));
}

/// A model of the researcher's own study, of a job that has ended and that nobody has to release.
async fn released_model(world: &World, entries: u64) -> (Digest, JobId) {
    let mut writer = world.models.write(&[TensorShape { name: "0.weight".into(), shape: vec![entries] }]).unwrap();
    writer.push((0..entries).map(|n| n as f32)).unwrap();
    let model = world.models.keep(writer.finish().unwrap()).await.unwrap();
    (model, run(world, model, 1, Role::Researcher, true).await)
}

/// A run of a study of its own which gave this model, and has ended or not; a higher number is later.
async fn run(world: &World, model: Digest, n: u8, by: Role, has_ended: bool) -> JobId {
    let at = (world.time.clock())().plus_millis(i64::from(n));
    let (study, job) = (StudyId::new(at, [100 + n; 10]), JobId::new(at, [n; 10]));
    let mut tx = world.store.begin("test").await.unwrap();
    let row = StudyRow {
        study,
        title: "Heart".into(),
        submitted_by: "researcher".into(),
        submitter: world.ids[&by],
        submitted: at,
        state: StudyState::Offered,
        plan: Digest::of(b"plan"),
        document: b"a study".to_vec(),
    };
    tx.insert_study(&row, &[]).await.unwrap();
    let new = NewJob { job, study, at, by: "researcher", setting: None, members: &[], tasks: &[] };
    tx.insert_job(&new).await.unwrap();
    let states = [JobState::Ready, JobState::Waiting, JobState::Running, JobState::Success];
    let passed = if has_ended { 4 } else { 3 };
    for (from, to) in states[..passed].iter().zip(&states[1..passed]) {
        tx.set_job_state(job, *from, *to, None, at).await.unwrap();
    }
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
    tx.set_card(job, "train", 1, "{}").await.unwrap();
    tx.commit().await.unwrap();
    job
}

/// What the ledger has of models that somebody took, newest first.
async fn taken(world: &World) -> Vec<Record> {
    let mut connection = world.store.read().await.unwrap();
    let filter = Filter { actions: vec![Action::ModelExported], ..Filter::default() };
    Ledger::on(&mut *connection).page(&filter, 10).await.unwrap().records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_a_model_or_its_card_stands_in_the_ledger_before_anything_goes_out() {
    let world = World::new().await;
    // Larger than what the machine buffers of an answer that nobody reads.
    let (model, job) = released_model(&world, 6_000_000).await;
    let get = async |what: &str| {
        let url = world.url(&format!("/api/v1/models/{model}/{what}"));
        world.client().get(url).bearer_auth(&world.researcher).send().await.unwrap()
    };
    let answer = get("file").await;
    assert_eq!(answer.status(), 200);
    let size: u64 = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
    // Its first bytes are here, the last ones are not.
    let entries = taken(&world).await;
    assert_eq!(entries.len(), 1);
    let researcher = PersonId::from_uuid(world.ids[&Role::Researcher]).to_string();
    assert_eq!(entries[0].actor.as_ref().map(Actor::id), Some(researcher));
    assert_eq!(entries[0].purpose.job, Some(job));
    let object = &entries[0].objects[0];
    assert_eq!((object.kind, object.digest), (ObjectKind::Model, Some(model)));
    assert_eq!(entries[0].reason, Some(format!("its file, {size} bytes")));
    let file = answer.bytes().await.unwrap();
    assert!(file.len() as u64 == size && file == std::fs::read(world.models.path(model)).unwrap());
    assert_eq!(get("card").await.status(), 200);
    assert_eq!(taken(&world).await[0].reason.as_deref(), Some("its card"));

    // What cannot be entered does not go out.
    let mut tx = world.store.begin("test").await.unwrap();
    let full = "CREATE TRIGGER no_room BEFORE INSERT ON ledger_entry BEGIN SELECT RAISE(ABORT, 'full'); END";
    sqlx::raw_sql(full).execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    for what in ["file", "card"] {
        let answer = get(what).await;
        assert!(answer.status().is_server_error(), "{what}: {}", answer.status());
    }
    assert_eq!(taken(&world).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_several_runs_made_is_given_for_one_whose_results_the_caller_may_have() {
    let world = World::new().await;
    let (model, job) = released_model(&world, 10).await;
    let card = format!("/api/v1/models/{model}/card");
    // The newest is somebody else's, and the next one has not ended.
    run(&world, model, 2, Role::Researcher, false).await;
    run(&world, model, 3, Role::Operator, true).await;
    assert_eq!(world.api_as(&world.researcher, "GET", &card, None).await.0, 200);
    assert_eq!(taken(&world).await[0].purpose.job, Some(job));
    // Where nothing can be had, the caller reads what stands against their own.
    let mut tx = world.store.begin("test").await.unwrap();
    let delete = sqlx::query("DELETE FROM models WHERE job = $1").bind(job.to_string());
    delete.execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.api_as(&world.researcher, "GET", &card, None).await.0, 409);
}
