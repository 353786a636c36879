//! The local socket: framing, faults that tell nothing, log-out with the connection, notices.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hospes_ipc::socket::{Client, FRAME_BYTES, path, serve};
use hospes_ipc::table::Secret;
use hospes_ipc::{COMMANDS, Call, FaultCode};
use hospes_party::keys::{KdfCost, SecretPlace};
use hospes_party::view::{AuditPage, AuditQuery, Notice, Status};
use hospes_party::{Clock, Config, Handle, Passphrase};
use hospes_protocol::id::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const PASSPHRASE: &str = "ida walks through the ward";

async fn engine() -> (TempDir, Handle) {
    engine_with(hospes_party::system_clock()).await
}

async fn engine_with(clock: Clock) -> (TempDir, Handle) {
    let folder = tempfile::tempdir().unwrap();
    let place = SecretPlace::File {
        path: folder.path().join("keys"),
        passphrase: Passphrase::from("the site's own passphrase".to_owned()),
    };
    let mut config = Config::new(folder.path().join("data"), place, "unused".into());
    (config.connect, config.kdf, config.clock) = (false, KdfCost::for_tests(), clock);
    hospes_party::initialise(&config).await.unwrap();
    let handle = hospes_party::open(config).await.unwrap();
    let (served, at) = (handle.clone(), folder.path().to_owned());
    tokio::spawn(async move { serve(&at, served).await.unwrap() });
    while !path(folder.path()).exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    (folder, handle)
}

async fn log_in(folder: &Path) -> Client {
    let mut client = Client::connect(folder).await.unwrap();
    let passphrase = Secret::new(PASSPHRASE.into());
    let _: Value = client.call(&Call::LogIn { name: "Ida".into(), passphrase }).await.unwrap();
    client
}

async fn set_up(folder: &Path) {
    let mut client = Client::connect(folder).await.unwrap();
    let passphrase = Secret::new(PASSPHRASE.into());
    let _: Value = client.call(&Call::SetUp { name: "Ida".into(), passphrase }).await.unwrap();
}

#[tokio::test]
async fn a_session_belongs_to_its_connection_and_ends_with_it() {
    let (folder, _handle) = engine().await;
    set_up(folder.path()).await;
    let mut nobody = Client::connect(folder.path()).await.unwrap();
    let mut ida = log_in(folder.path()).await;
    let people = |client| async move { Client::call::<Value>(client, &Call::People {}).await };
    assert_eq!(people(&mut nobody).await.unwrap_err().code, FaultCode::NoSession);
    assert_eq!(people(&mut ida).await.unwrap()[0]["name"], "Ida");
    drop(ida);
    let mut again = log_in(folder.path()).await;
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
    let mut client = Client::connect(folder.path()).await.unwrap();
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
    let mut polite = Client::connect(folder.path()).await.unwrap();
    polite.call::<Status>(&Call::Status {}).await.unwrap();
}

#[tokio::test]
async fn subscribers_hear_what_changes() {
    let (folder, _handle) = engine().await;
    let mut notices = Client::connect(folder.path()).await.unwrap().subscribe().await.unwrap();
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
    let mut client = Client::connect(folder.path()).await.unwrap();
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
    let mut ida = log_in(folder.path()).await;
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

#[test]
fn i6_a_page_names_no_file() {
    let enrolment = |ca: Value| json!({ "invitation": "x", "words": "x", "organisation": "x", "proxy": null, "extra_ca": ca, "again": null });
    let dataset = json!({ "name": "x", "path": "/etc/shadow", "subject": "x" });
    for (command, args) in [
        ("survey", json!({ "path": "/etc/shadow" })),
        ("add_dataset", json!({ "dataset": dataset })),
        ("import_opt_outs", json!({ "path": "/etc/shadow" })),
        ("export_audit", json!({ "federation": null, "kind": "csv", "path": "/etc/motd" })),
        ("enrol", json!({ "enrolment": enrolment("/etc/shadow".into()) })),
    ] {
        let fault = Call::from_page(json!({ "command": command, "args": args })).unwrap_err();
        assert_eq!(fault.code, FaultCode::Denied, "{command}: {}", fault.words);
    }
    assert_eq!(Call::from_page(json!({ "command": "shell" })).unwrap_err().code, FaultCode::Command);
    Call::from_page(json!({ "command": "enrol", "args": { "enrolment": enrolment(Value::Null) } })).unwrap();
    Call::from_page(json!({ "command": "status", "args": {} })).unwrap();
}

#[test]
fn every_command_has_one_name_and_no_passphrase_is_shown() {
    let names: std::collections::BTreeSet<_> = COMMANDS.iter().map(|c| c.name).collect();
    assert_eq!(names.len(), COMMANDS.len());
    let call = Arc::new(Call::LogIn { name: "Ida".into(), passphrase: Secret::new(PASSPHRASE.into()) });
    assert!(!format!("{call:?}").contains("ward"));
}
