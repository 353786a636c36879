//! What a page may do: it names no file, sees no path, and goes on when the engine comes and goes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hospes_ipc::FaultCode;
use hospes_ipc::local::Local;
use hospes_ipc::page::{Answered, Host, OpenPurpose, Page, Preferences, PreferencesFile, SavePurpose};
use hospes_party::view::Notice;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PASSPHRASE, engine, set_up, shared, until};

/// A host whose dialogs are answered beforehand.
#[derive(Clone, Default)]
pub(super) struct Prepared {
    pub(super) paths: Arc<Mutex<VecDeque<PathBuf>>>,
    suggested: Arc<Mutex<String>>,
    preferred: Arc<Mutex<Option<Preferences>>>,
}

impl Host for Prepared {
    fn open(&self, _purpose: OpenPurpose) -> Answered<'_, Option<PathBuf>> {
        Box::pin(async { self.paths.lock().unwrap().pop_front() })
    }
    fn save(&self, _purpose: SavePurpose, suggested: String) -> Answered<'_, Option<PathBuf>> {
        *self.suggested.lock().unwrap() = suggested;
        Box::pin(async { self.paths.lock().unwrap().pop_front() })
    }
    fn prefer(&self, preferences: Preferences) -> Result<(), String> {
        if preferences.autostart {
            return Err("this machine starts nothing by itself".into());
        }
        *self.preferred.lock().unwrap() = Some(preferences);
        Ok(())
    }
}

fn page(folder: &Path, host: &Prepared) -> Page {
    let local = Local::new(folder.to_owned(), "unused".into(), None);
    Page::new(host.clone(), local, PreferencesFile::at(folder.join("window.toml")))
}

pub(super) async fn ask(page: &Page, command: &str, args: Value) -> Result<Value, FaultCode> {
    page.call(json!({ "command": command, "args": args })).await.map_err(|fault| fault.code)
}

pub(super) async fn sign_in(page: &Page, name: &str) {
    ask(page, "log_in", json!({ "name": name, "passphrase": PASSPHRASE })).await.unwrap();
}

/// A page with a data steward logged in.
async fn steward() -> (TempDir, hospes_party::Handle, Prepared, Page) {
    let (folder, handle) = engine().await;
    set_up(folder.path()).await;
    let host = Prepared::default();
    let page = page(folder.path(), &host);
    sign_in(&page, "Ida").await;
    let person = json!({ "name": "Sam", "roles": ["data_steward", "auditor"], "organisation": null });
    let added = ask(&page, "add_person", json!({ "person": person, "passphrase": PASSPHRASE })).await.unwrap();
    let activate = json!({ "name": "Sam", "code": added["done"]["code"], "passphrase": PASSPHRASE });
    ask(&page, "activate", activate).await.unwrap();
    sign_in(&page, "Sam").await;
    (folder, handle, host, page)
}

#[tokio::test]
async fn i6_a_page_names_no_file() {
    let (folder, _handle) = engine().await;
    set_up(folder.path()).await;
    let page = page(folder.path(), &Prepared::default());
    sign_in(&page, "Ida").await;
    let enrolment = |ca: Value| json!({ "invitation": "x", "words": "x", "organisation": "x", "proxy": null, "extra_ca": ca, "again": null });
    let dataset = json!({ "name": "x", "path": "/etc/shadow", "subject": "x" });
    let at = hospes_protocol::id::Timestamp::from_millis(1);
    let job = hospes_protocol::id::JobId::new(at, [1; 10]);
    let dataset_id = hospes_protocol::id::DatasetId::new(at, [1; 10]);
    let federation = hospes_protocol::id::SiteId::from_bytes([1; 16]);
    for (command, args) in [
        ("survey", json!({ "path": "/etc/shadow" })),
        ("sheets", json!({ "path": "/etc/shadow" })),
        ("add_dataset", json!({ "dataset": dataset })),
        ("import_opt_outs", json!({ "path": "/etc/shadow" })),
        ("export_audit", json!({ "federation": null, "kind": "csv", "path": "/etc/motd" })),
        ("export_model", json!({ "job": job, "path": "/etc/motd", "card": "/etc/motd" })),
        ("predict", json!({ "job": job, "dataset": dataset_id, "path": "/etc/motd" })),
        ("back_up", json!({ "path": "/etc/motd", "passphrase": PASSPHRASE })),
        ("restore", json!({ "file": "/etc/shadow", "passphrase": PASSPHRASE, "keys": "keychain" })),
        ("restore_site", json!({ "path": "/etc/shadow", "passphrase": PASSPHRASE })),
        ("enrol", json!({ "enrolment": enrolment("/etc/shadow".into()) })),
        ("diagnose_invitation", json!({ "approach": { "invitation": "x", "proxy": null, "extra_ca": "/etc/shadow" } })),
        (
            "set_way",
            json!({ "way": { "federation": federation, "proxy": "keep", "extra_ca": { "file": "/etc/shadow" } }, "despite": null }),
        ),
        ("survey", json!({ "path": "file-00000000000000000000000000000000" })),
    ] {
        assert_eq!(ask(&page, command, args).await, Err(FaultCode::Denied), "{command}");
    }
    for request in [json!({ "command": "shell" }), json!({ "command": "subscribe" }), json!("choose_file"), json!(null)]
    {
        assert_eq!(page.call(request.clone()).await.unwrap_err().code, FaultCode::Command, "{request}");
    }
    // Without a file it is the engine that refuses it.
    assert_eq!(ask(&page, "enrol", json!({ "enrolment": enrolment(Value::Null) })).await, Err(FaultCode::Input));
    ask(&page, "status", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_chosen_file_is_registered_without_the_page_learning_where_it_lies() {
    let (folder, _handle, host, page) = steward().await;
    let secret = folder.path().join("secret-folder");
    std::fs::create_dir(&secret).unwrap();
    let rows: String = (0..40).map(|i| format!("p{i},{i}\n")).collect();
    std::fs::write(secret.join("cohort.csv"), format!("id,age\n{rows}")).unwrap();
    host.paths.lock().unwrap().push_back(secret.join("cohort.csv"));
    let chosen = ask(&page, "choose_file", json!({ "purpose": "data" })).await.unwrap();
    assert_eq!((&chosen["name"], &chosen["bytes"]), (&json!("cohort.csv"), &json!(7 + rows.len())));
    assert!(!chosen.to_string().contains("secret-folder"), "{chosen}");
    let survey = ask(&page, "survey", json!({ "path": chosen["file"] })).await.unwrap();
    assert_eq!(survey["rows"], 40);
    let dataset = json!({ "name": "Cohort", "path": chosen["file"], "subject": "id" });
    let added = ask(&page, "add_dataset", json!({ "dataset": dataset })).await.unwrap();
    assert_eq!(added["subjects"], 40);
    assert!(!added.to_string().contains("secret-folder"), "{added}");
    // Nobody chose anything in the second dialog.
    assert_eq!(ask(&page, "choose_file", json!({ "purpose": "data" })).await, Ok(Value::Null));
    // Who logs in next has chosen nothing.
    ask(&page, "log_out", json!({})).await.unwrap();
    sign_in(&page, "Sam").await;
    assert_eq!(ask(&page, "survey", json!({ "path": chosen["file"] })).await, Err(FaultCode::Denied));
}

#[tokio::test]
async fn an_export_takes_the_chosen_place_when_it_is_whole_and_only_then() {
    let (folder, _handle, host, page) = steward().await;
    let place = folder.path().join("log.jsonl");
    std::fs::write(&place, "an older export").unwrap();
    host.paths.lock().unwrap().push_back(place.clone());
    let args = json!({ "purpose": "audit", "suggested": "../../log.jsonl" });
    let chosen = ask(&page, "choose_place", args).await.unwrap();
    assert_eq!(*host.suggested.lock().unwrap(), "-..-log.jsonl");
    let export = async |federation: Value| {
        ask(&page, "export_audit", json!({ "federation": federation, "kind": "jsonl", "path": chosen["file"] })).await
    };
    let is_alone = || {
        let names = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("log.jsonl")).collect::<Vec<_>>() == ["log.jsonl"]
    };
    // There is no such federation: what was there stays, and nothing half-done beside it.
    assert_eq!(export(json!("a".repeat(26))).await, Err(FaultCode::NotFound));
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "an older export");
    assert!(is_alone());
    let export = export(Value::Null).await.unwrap();
    let written = std::fs::read_to_string(&place).unwrap();
    assert!(written.lines().count() as u64 > export["entries"].as_u64().unwrap() && is_alone(), "{written}");
}

#[tokio::test]
async fn preferences_are_kept_only_where_the_machine_lets_them_hold() {
    let (folder, _handle) = engine().await;
    let host = Prepared::default();
    let page = page(folder.path(), &host);
    let dark = json!({ "theme": "dark", "language": "fr", "density": "compact", "autostart": false, "quiet": true });
    ask(&page, "set_preferences", json!({ "preferences": dark })).await.unwrap();
    assert_eq!(ask(&page, "preferences", json!({})).await, Ok(dark.clone()));
    assert!(host.preferred.lock().unwrap().is_some_and(|p| p.quiet));
    let mut starts = dark.clone();
    starts["autostart"] = json!(true);
    assert_eq!(ask(&page, "set_preferences", json!({ "preferences": starts })).await, Err(FaultCode::State));
    assert_eq!(ask(&page, "preferences", json!({})).await, Ok(dark));
    let more = json!({ "preferences": { "theme": "dark", "shell": "rm" } });
    assert_eq!(ask(&page, "set_preferences", more).await, Err(FaultCode::Command));
}

#[tokio::test]
async fn a_page_cannot_loosen_what_the_it_set() {
    let (folder, _handle) = engine().await;
    let host = Prepared::default();
    let local = Local::new(folder.path().to_owned(), "unused".into(), None);
    let file = PreferencesFile::at(folder.path().join("window.toml")).starting(true);
    let page = Page::new(host.clone(), local, file);
    assert_eq!(ask(&page, "preferences", json!({})).await.unwrap()["autostart"], true);
    let stays = json!({ "theme": "dark", "language": null, "density": "compact", "autostart": false, "quiet": false });
    assert_eq!(ask(&page, "set_preferences", json!({ "preferences": stays })).await, Err(FaultCode::Refused));
    // Neither kept nor made to hold.
    assert!(host.preferred.lock().unwrap().is_none());
    // What is managed can be seen before anybody logs in.
    assert_eq!(ask(&page, "managed", json!({})).await.unwrap()["no_export"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_hears_that_the_engine_went_and_connects_again_when_it_is_back() {
    let (folder, handle) = engine().await;
    let page = shared(page(folder.path(), &Prepared::default()));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (watching, hears) = (page.clone(), heard.clone());
    let watch = tokio::spawn(async move {
        let tell = |notice: Option<Notice>| {
            hears.lock().unwrap().push(notice);
            true
        };
        watching.watch(tell).await;
    });
    until("the first word", || heard.lock().unwrap().contains(&None)).await;
    set_up(folder.path()).await;
    until("a notice", || heard.lock().unwrap().contains(&Some(Notice::People))).await;
    sign_in(&page, "Ida").await;
    handle.shut_down().await.unwrap();
    // The connection is there as long as the socket is served; the engine behind it is not.
    assert_eq!(ask(&page, "people", json!({})).await, Err(FaultCode::NotRunning));
    watch.abort();
}
