//! The REST API: who may do what, and how mistakes are answered.

use std::time::Duration;

use hospes_coordinator::audit::Audit;
use hospes_coordinator::enrol::revoke_token;
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
