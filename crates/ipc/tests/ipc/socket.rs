//! The local socket: framing, faults that tell nothing, log-out with the connection, notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hospes_ipc::socket::{Client, FRAME_BYTES, Notices, path};
use hospes_ipc::table::Secret;
use hospes_ipc::{COMMANDS, Call, FaultCode};
use hospes_party::view::{AuditPage, AuditQuery, Me, Notice, Status};
use hospes_protocol::id::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{PASSPHRASE, engine, engine_with, log_in, set_up};

#[tokio::test]
async fn a_session_belongs_to_its_connection_and_ends_with_it() {
    let (folder, _handle) = engine().await;
    set_up(folder.path()).await;
    let nobody = Client::connect(folder.path()).await.unwrap();
    let ida = log_in(folder.path()).await;
    let people = async |client: &Client| client.call::<Value>(&Call::People {}).await;
    assert_eq!(people(&nobody).await.unwrap_err().code, FaultCode::NoSession);
    assert_eq!(people(&ida).await.unwrap()[0]["name"], "Ida");
    drop(ida);
    let again = log_in(folder.path()).await;
    let query = AuditQuery::default();
    for attempt in 0.. {
        let page: AuditPage = again.call(&Call::Audit { query: query.clone() }).await.unwrap();
        if page.entries.iter().any(|entry| entry.action == "logout") {
            break;
        }
        assert!(attempt < 500, "nobody was logged out");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_without_repeating_it() {
    let (folder, _handle) = engine().await;
    let client = Client::connect(folder.path()).await.unwrap();
    for request in [
        json!({ "command": "log_in", "args": { "name": "Ida", "passphrase": 7 } }),
        json!({ "command": "log_in", "args": { "name": "Ida", "passphrase": PASSPHRASE, "more": 1 } }),
        json!({ "command": PASSPHRASE }),
        json!(PASSPHRASE),
    ] {
        let fault = client.request(&request).await.unwrap_err();
        assert_eq!(fault.code, FaultCode::Command, "{request}");
        assert!(!fault.words.contains("ward"), "{}", fault.words);
    }
    // The connection holds.
    let status: Status = client.call(&Call::Status {}).await.unwrap();
    assert_eq!(status.memberships.len(), 0);
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_connection_and_nothing_else() {
    let (folder, _handle) = engine().await;
    let mut rude = UnixStream::connect(path(folder.path())).await.unwrap();
    rude.write_u32(FRAME_BYTES + 1).await.unwrap();
    assert_eq!(rude.read(&mut [0; 1]).await.unwrap(), 0);
    let polite = Client::connect(folder.path()).await.unwrap();
    polite.call::<Status>(&Call::Status {}).await.unwrap();
}

#[tokio::test]
async fn subscribers_hear_what_changes() {
    let (folder, _handle) = engine().await;
    let mut notices = Notices::of(folder.path()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    set_up(folder.path()).await;
    let heard = async {
        loop {
            if notices.next().await.unwrap() == Some(Notice::People) {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), heard).await.expect("no notice came");
}

#[tokio::test]
async fn a_fault_of_the_engine_has_a_reference_for_the_log() {
    let (folder, _handle) = engine().await;
    let client = Client::connect(folder.path()).await.unwrap();
    let call = Call::LogIn { name: "Eve".into(), passphrase: Secret::new(PASSPHRASE.into()) };
    let fault = client.call::<Value>(&call).await.unwrap_err();
    assert_eq!(fault.code, FaultCode::LogIn);
    assert_eq!(fault.reference.map(|r| r.len()), Some(8));
}

#[tokio::test]
async fn a_party_that_is_not_running_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let fault = Client::connect(folder.path()).await.err().unwrap();
    assert_eq!(fault.code, FaultCode::NotRunning);
}

#[tokio::test]
async fn commands_that_keep_a_screen_up_to_date_do_not_keep_a_session() {
    let time = Arc::new(AtomicI64::new(1_790_000_000_000));
    let clock = time.clone();
    let (folder, _handle) = engine_with(Arc::new(move || Timestamp::from_millis(clock.load(Ordering::SeqCst)))).await;
    set_up(folder.path()).await;
    let ida = log_in(folder.path()).await;
    let pass = |minutes: i64| time.fetch_add(minutes * 60_000, Ordering::SeqCst);
    // Somebody works.
    for _ in 0..3 {
        pass(6);
        ida.call::<Value>(&Call::Active {}).await.unwrap();
    }
    // Nobody works, and the window goes on asking what changed.
    pass(6);
    ida.call::<Value>(&Call::People {}).await.unwrap();
    ida.call::<AuditPage>(&Call::Audit { query: AuditQuery::default() }).await.unwrap();
    ida.call::<Value>(&Call::Requests {}).await.unwrap();
    pass(6);
    assert_eq!(ida.call::<Value>(&Call::Requests {}).await.unwrap_err().code, FaultCode::NoSession);
}

#[tokio::test]
async fn a_slow_command_holds_up_no_other_on_the_same_connection() {
    let (folder, _handle) = engine().await;
    set_up(folder.path()).await;
    let ida = Arc::new(log_in(folder.path()).await);
    // A pipe that nobody writes to: what reads it waits until the test ends it.
    let pipe = folder.path().join("slow.csv");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let person = json!({ "name": "Sam", "roles": ["data_steward"], "organisation": null });
    let add = json!({ "command": "add_person", "args": { "person": person, "passphrase": PASSPHRASE } });
    let code = ida.request(&add).await.unwrap()["done"]["code"].as_str().unwrap().to_owned();
    let sam = Arc::new(Client::connect(folder.path()).await.unwrap());
    let activate = json!({ "name": "Sam", "code": code, "passphrase": PASSPHRASE });
    sam.request(&json!({ "command": "activate", "args": activate })).await.unwrap();
    let log_in = json!({ "name": "Sam", "passphrase": PASSPHRASE });
    sam.request(&json!({ "command": "log_in", "args": log_in })).await.unwrap();
    let (slow, path) = (sam.clone(), pipe.clone());
    let call = Call::Survey { path, sheet: None, missing: None, scan: None, query: None };
    let survey = tokio::spawn(async move { slow.call::<Value>(&call).await });
    for _ in 0..3 {
        let me: Me = sam.call(&Call::Whoami {}).await.unwrap();
        assert_eq!(me.name, "Sam");
    }
    assert!(!survey.is_finished(), "the survey did not wait for its file");
    std::fs::write(&pipe, "").unwrap();
    // What a pipe holds is no data file; that is what the survey was waiting to say.
    survey.await.unwrap().unwrap_err();
}

#[test]
fn every_command_has_one_name_and_no_passphrase_is_shown() {
    let names: std::collections::BTreeSet<_> = COMMANDS.iter().map(|c| c.name).collect();
    assert_eq!(names.len(), COMMANDS.len());
    let window: Vec<_> = hospes_ipc::page::WINDOW_COMMANDS.iter().map(|c| c.name).collect();
    assert!(window.iter().all(|name| !names.contains(name)), "{window:?}");
    let call = Arc::new(Call::LogIn { name: "Ida".into(), passphrase: Secret::new(PASSPHRASE.into()) });
    assert!(!format!("{call:?}").contains("ward"));
}
