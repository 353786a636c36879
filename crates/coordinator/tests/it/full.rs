//! The database of the coordinator, ledger included, can grow no more: nothing is acknowledged that is not kept, and when
//! there is room again, it goes on.

use hospes_coordinator::store::Store;
use hospes_ledger::verify::{Expectations, verify};
use serde_json::json;

use crate::site::Site;
use crate::world::World;

/// Lets the database have so many pages at most, but no fewer than it has.
async fn allow(store: &Store, pages: u32) {
    // It is a setting of each connection, and the pool has four.
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(store.read().await.unwrap());
    }
    for connection in &mut connections {
        let setting = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::raw_sql(setting).execute(&mut **connection).await.unwrap();
    }
}

async fn invitations(world: &World) -> usize {
    let (_, list) = world.api("GET", "/api/v1/invitations", None).await;
    list.as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_acknowledges_nothing_and_goes_on_when_there_is_room() {
    let world = World::new().await;
    let invitation = world.invite("Cleveland").await;
    allow(&world.store, 1).await;
    let mut made = 1;
    let problem = loop {
        // As long as there is room in pages that it has.
        let name = format!("{made} {}", "x".repeat(100));
        match world.api("POST", "/api/v1/invitations", Some(json!({ "name": name }))).await {
            (201, _) => made += 1,
            (500, problem) => break problem,
            other => panic!("{other:?}"),
        }
        assert!(made < 1_000, "it does not fill up");
    };
    assert!(problem["detail"].as_str().unwrap().contains("in the log under"), "{problem}");
    assert_eq!(invitations(&world).await, made, "what was refused is there, or what was promised is not");
    // Each export is an entry, so that it takes what room the ledger's own pages still have.
    let mut exports = 0;
    loop {
        match world.api("GET", "/api/v1/ledger/export", None).await.0 {
            200 => exports += 1,
            status => break assert_eq!(status, 500, "an export that is not in the ledger"),
        }
        assert!(exports < 1_000, "the ledger does not fill up");
    }
    let (status, _) = Site::enrol(&world, &invitation, 1).await.err().expect("a site was enrolled in a full database");
    assert_eq!(status, 500);
    assert!(world.store.sites().await.unwrap().is_empty() && world.store.roster().await.unwrap().is_none());
    allow(&world.store, 1 << 30).await;
    let site = Site::enrol(&world, &invitation, 1).await.expect("the invitation was used up");
    let mut session = site.session(site.hello((world.time.clock())())).await.unwrap();
    assert!(session.hear().await.is_some());
    let get = world.client().get(world.url("/api/v1/ledger/export")).bearer_auth(&world.operator);
    let answer = get.send().await.unwrap();
    let (status, export) = (answer.status(), answer.bytes().await.unwrap());
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&export));
    let expected = Expectations { origins: vec![world.home.key.public()], ..Expectations::default() };
    let report = verify(&mut &export[..], &expected).unwrap();
    assert!(report.is_intact(), "{:?}", report.finding);
    // Two tokens, the invitations, enrolment with certificate and roster, the exports.
    assert_eq!(report.entries, 2 + made as u64 + exports + 3 + 1);
}
