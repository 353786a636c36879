//! A service without a site, in which its staff restore one from a backup: once, as a whole, and by no path that they name.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use hospes_ipc::local::EngineState;
use hospes_ipc::socket::Client;
use hospes_ipc::table::Secret;
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::view::{AuditPage, AuditQuery, Phase};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::beside::{STOPPED, page_of};
use super::first_run::{Waiting, laid, phase, set_up};
use super::local::window_beside;
use super::page::{Prepared, ask as ask_page, sign_in};
use super::staff::{Machine, Rude, ask, socket, table};
use super::{PASSPHRASE, until};

/// What opens the backup.
const SECRET: &str = "what lies in the safe alone";

/// A backup of another machine's site, with Ida, Sam and a dataset; its owner alone can read it.
async fn backup(home: &Path) -> PathBuf {
    let machine = Machine::new().await;
    machine.add_sam().await;
    let cohort = home.join("cohort.csv");
    table(&cohort, 40);
    let dataset = json!({ "name": "Cohort", "path": cohort, "subject": "id" });
    ask(&machine.log_in("Sam").await, "add_dataset", json!({ "dataset": dataset })).await.unwrap();
    let file = home.join("site.hospes-backup");
    let ida = machine.log_in("Ida").await;
    let made = ask(&ida, "back_up", json!({ "path": file, "passphrase": SECRET })).await.unwrap();
    assert_eq!(made["datasets"], 1);
    machine.handle.shut_down().await.unwrap();
    machine.serves.abort();
    file
}

async fn restore(client: &Client, file: &Path, passphrase: &str) -> Result<(), Fault> {
    client.call(&Call::RestoreSite { path: file.to_owned(), passphrase: Secret::new(passphrase.to_owned()) }).await
}

/// What the service keeps of files that were handed over.
fn handed(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("data/handed")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_restores_the_site_of_the_service_and_its_people_sign_in_as_before() {
    let home = tempfile::tempdir().unwrap();
    let file = backup(home.path()).await;
    let folder = tempfile::tempdir().unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    let mut notices = waiting.service.notices().await.unwrap();
    let (own, host) = (folder.path().join("own"), Prepared::default());
    let (local, keeping) = window_beside(&own, Some(waiting.service.clone()));
    until("the service", || local.state() == EngineState::Service).await;
    let page = page_of(&local, folder.path(), &host);
    host.paths.lock().unwrap().push_back(file.clone());
    let chosen = ask_page(&page, "choose_file", json!({ "purpose": "backup" })).await.unwrap();
    let args = json!({ "path": chosen["file"], "passphrase": SECRET });
    assert_eq!(ask_page(&page, "restore_site", args).await, Ok(Value::Null));

    // Whoever listened hears that everything changed, and the same process goes on with the site.
    assert_eq!(notices.next().await.unwrap(), None);
    assert_eq!(local.state(), EngineState::Service);
    assert_eq!(ask_page(&page, "status", json!({})).await.unwrap()["phase"], "set_up");
    sign_in(&page, "Sam").await;
    assert_eq!(ask_page(&page, "datasets", json!({})).await.unwrap()[0]["name"], "Cohort");
    assert_eq!(ask_page(&page, "restored", json!({})).await.unwrap()["confirmed"], false);
    assert!(!own.exists() && handed(folder.path()) == 0);
    keeping.abort();

    // The log says that it was somebody of the staff, and under which account.
    let client = waiting.client().await;
    ask(&client, "log_in", json!({ "name": "Sam", "passphrase": PASSPHRASE })).await.unwrap();
    let page: AuditPage = client.call(&Call::Audit { query: AuditQuery::default() }).await.unwrap();
    let entry = page.entries.iter().find(|entry| entry.action == "backup_restored").unwrap();
    let account = rustix::process::geteuid().as_raw();
    let said = format!("by the socket for staff, account {account} of the machine");
    assert!(entry.detail.contains(&said), "{entry:?}");

    // Once.
    let again = restore(&client, &file, SECRET).await.unwrap_err();
    assert!(again.code == FaultCode::State && again.words.contains("a site here already"), "{again}");
    assert_eq!(set_up(&client, "Eve", PASSPHRASE).await.unwrap_err().code, FaultCode::State);
    assert_eq!(handed(folder.path()), 0);
    waiting.end().await;
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    assert_eq!(phase(&waiting.client().await).await, Phase::SetUp);
    waiting.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_leaves_nothing_behind_and_nobody_out() {
    let home = tempfile::tempdir().unwrap();
    let file = backup(home.path()).await;
    let cut = home.path().join("cut.hospes-backup");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    let client = waiting.client().await;
    for (file, passphrase, code) in [
        (&file, "another passphrase", FaultCode::Keys),
        (&cut, SECRET, FaultCode::Data),
        (&home.path().join("gone"), SECRET, FaultCode::Data),
    ] {
        let refused = restore(&client, file, passphrase).await.unwrap_err();
        assert_eq!(refused.code, code, "{refused}");
        let left = laid(folder.path());
        assert!(left.iter().all(|name| ["handed", "lock"].iter().any(|known| name == Path::new(known))), "{left:?}");
        assert_eq!((phase(&client).await, handed(folder.path())), (Phase::Empty, 0));
    }
    set_up(&client, "Ada", PASSPHRASE).await.unwrap();
    assert_eq!(phase(&client).await, Phase::SetUp);
    waiting.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hands_a_backup_over_names_no_file_and_is_nobody_once_there_is_a_site() {
    let folder = tempfile::tempdir().unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    let mut rude = Rude(UnixStream::connect(socket(folder.path())).await.unwrap());
    let code = |answer: Value| answer["fault"]["code"].as_str().unwrap_or("none").to_owned();
    let give = |bundle: u64, bytes: &[u8]| {
        let piece = BASE64.encode(bytes);
        json!({ "id": 1, "files": { "give": { "bundle": bundle, "name": "site.hospes-backup", "piece": piece } } })
    };
    let restore = |path: &Path, bundle: Option<u64>| {
        let call = json!({ "command": "restore_site", "args": { "path": path, "passphrase": SECRET } });
        json!({ "id": 2, "call": call, "bundle": bundle })
    };
    // As much at a time as a piece of a file takes.
    assert_eq!(code(rude.say(give(7, &vec![0; 1 << 20])).await), "none");
    let hostname = Path::new("/etc/hostname");
    for request in [restore(hostname, None), restore(hostname, Some(7)), restore(Path::new("../../lock"), Some(7))] {
        assert_eq!(code(rude.say(request.clone()).await), "denied", "{request}");
    }

    set_up(&waiting.client().await, "Ada", PASSPHRASE).await.unwrap();
    for bundle in [7, 8] {
        assert_eq!(code(rude.say(give(bundle, b"more")).await), "no_session", "{bundle}");
    }
    assert_eq!(code(rude.say(restore(Path::new("site.hospes-backup"), Some(7))).await), "state");
    assert_eq!(handed(folder.path()), 0);
    waiting.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_is_carried_out_also_if_whoever_asked_listens_for_news_and_goes() {
    let home = tempfile::tempdir().unwrap();
    let file = backup(home.path()).await;
    let folder = tempfile::tempdir().unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    let mut rude = Rude(UnixStream::connect(socket(folder.path())).await.unwrap());
    for piece in std::fs::read(&file).unwrap().chunks(1 << 20) {
        let give = json!({ "bundle": 1, "name": "backup", "piece": BASE64.encode(piece) });
        let answer = rude.say(json!({ "id": 1, "files": { "give": give } })).await;
        assert!(answer["fault"].is_null(), "{answer}");
    }
    let call = json!({ "command": "restore_site", "args": { "path": "backup", "passphrase": SECRET } });
    rude.send(json!({ "id": 2, "call": call, "bundle": 1 })).await;
    rude.send(json!({ "subscribe": true })).await;
    drop(rude);
    until("the site", || waiting.site.handle().is_some()).await;
    assert_eq!(phase(&waiting.client().await).await, Phase::SetUp);
    waiting.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_set_up_after_a_restore_was_broken_off_has_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // The power failed while the keys were put in their place.
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("site.toml"), "secrets = \"file\"\n").unwrap();
    std::fs::write(data.join("restore.unfinished"), "a backup is being restored here\n").unwrap();
    std::fs::write(data.join("keys.sealed"), "keys of another site").unwrap();
    std::fs::create_dir(data.join("restoring")).unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    let client = waiting.client().await;
    assert_eq!(phase(&client).await, Phase::Empty);
    set_up(&client, "Ada", PASSPHRASE).await.unwrap();
    assert_eq!(phase(&client).await, Phase::SetUp);
    let left = laid(folder.path());
    for name in ["restore.unfinished", "restoring"] {
        assert!(!left.contains(&PathBuf::from(name)), "{left:?}");
    }
    assert_ne!(std::fs::read(data.join("keys.sealed")).unwrap(), b"keys of another site");
    waiting.end().await;
}
