//! What a window makes of the service of its machine: it is found first, waited for, and never replaced unasked.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hospes_ipc::FaultCode;
use hospes_ipc::local::{EngineState, Local, NewKeys};
use hospes_ipc::page::{Page, PreferencesFile};
use hospes_ipc::staff::{Away, Service};
use hospes_ipc::table::Secret;
use hospes_party::Passphrase;
use serde_json::json;

use super::first_run::Waiting;
use super::local::window_beside;
use super::page::{Prepared, ask, sign_in};
use super::staff::{Machine, serving, socket, table};
use super::{PASSPHRASE, until};

/// A machine on which systemd says this about the service, which does not run.
pub(super) fn says(folder: &Path, lines: &str) -> Service {
    let systemctl = folder.join("systemctl");
    std::fs::write(&systemctl, format!("#!/bin/sh\nprintf '{lines}'\n")).unwrap();
    std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = std::fs::canonicalize(folder).unwrap().join("run");
    Service::at(run.join("staff.sock")).known_to(systemctl)
}

pub(super) const STOPPED: &str = "LoadState=loaded\\n";
const MASKED: &str = "LoadState=masked\\n";
const NOT_INSTALLED: &str = "LoadState=not-found\\n";

async fn lay_down(local: &Local) -> Result<(), FaultCode> {
    let keys = NewKeys::File { passphrase: Secret::new("the key file's own passphrase".into()) };
    let done = local.initialise("Ada".into(), Passphrase::from(PASSPHRASE.to_owned()), keys).await;
    done.map_err(|fault| fault.code)
}

pub(super) fn waits(local: &Local) -> Option<Away> {
    match local.state() {
        EngineState::ServiceAway { why } => Some(why),
        _ => None,
    }
}

pub(super) fn page_of(local: &Arc<Local>, folder: &Path, host: &Prepared) -> Page {
    Page::new(host.clone(), local.clone(), PreferencesFile::at(folder.join("window.toml")))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_site_is_laid_down_unless_a_person_chooses_so() {
    for lines in [STOPPED, MASKED] {
        let folder = tempfile::tempdir().unwrap();
        let data: PathBuf = folder.path().join("own");
        let (local, keeping) = window_beside(&data, Some(says(folder.path(), lines)));
        until("the state of the service", || waits(&local).is_some()).await;
        assert_eq!(waits(&local), Some(Away::Stopped));
        assert_eq!(lay_down(&local).await, Err(FaultCode::State));
        assert!(local.client().await.is_err() && !data.exists());
        let page = page_of(&local, folder.path(), &Prepared::default());
        assert_eq!(ask(&page, "status", json!({})).await, Err(FaultCode::NotRunning));
        ask(&page, "try_here", json!({})).await.unwrap();
        until("the first run", || local.state() == EngineState::NotSetUp).await;
        lay_down(&local).await.unwrap();
        assert_eq!(local.state(), EngineState::Here);
        assert_eq!(ask(&page, "try_here", json!({})).await, Err(FaultCode::State));
        ask(&page, "status", json!({})).await.unwrap();
        keeping.abort();
        local.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_site_is_laid_down_beside_a_service_that_came_while_somebody_typed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("own");
    let (local, keeping) = window_beside(&data, Some(says(folder.path(), NOT_INSTALLED)));
    until("the first run", || local.state() == EngineState::NotSetUp).await;
    says(folder.path(), STOPPED);
    assert_eq!(lay_down(&local).await, Err(FaultCode::State));
    assert_eq!(waits(&local), Some(Away::Stopped));
    assert!(!data.exists());
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_of_ones_own_is_found_where_the_service_has_none_and_not_in_the_place_of_one_that_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("own");
    let (local, keeping) = window_beside(&data, Some(says(folder.path(), NOT_INSTALLED)));
    until("the first run", || local.state() == EngineState::NotSetUp).await;
    lay_down(&local).await.unwrap();
    keeping.abort();
    local.stop().await;
    drop(local);
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    let (local, keeping) = window_beside(&data, Some(waiting.service.clone()));
    until("the lock of the own site", || local.state() == EngineState::Locked).await;
    keeping.abort();
    waiting.end().await;
    let (local, keeping) = window_beside(&data, Some(says(folder.path(), STOPPED)));
    until("the wait for the service", || waits(&local) == Some(Away::Stopped)).await;
    ask(&page_of(&local, folder.path(), &Prepared::default()), "try_here", json!({})).await.unwrap();
    until("the lock of the own site", || local.state() == EngineState::Locked).await;
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_say_how_it_is_holds_no_start_up_and_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("own");
    let (local, keeping) = window_beside(&data, Some(says(folder.path(), NOT_INSTALLED)));
    until("the first run", || local.state() == EngineState::NotSetUp).await;
    lay_down(&local).await.unwrap();
    keeping.abort();
    local.stop().await;
    drop(local);
    // It hangs: connections come about, and nobody answers on them.
    std::fs::DirBuilder::new().mode(0o750).create(folder.path().join("run")).unwrap();
    let _hangs = UnixListener::bind(socket(folder.path())).unwrap();
    let service = says(folder.path(), STOPPED).waited_for(Duration::from_millis(300));
    let (local, keeping) = window_beside(&data, Some(service));
    until("the fault", || matches!(local.state(), EngineState::Failed { .. })).await;
    let state = local.state();
    let EngineState::Failed { fault } = state else { panic!("{state:?}") };
    assert!(fault.code == FaultCode::NotRunning && fault.words.contains("does not say within 0.3 s"), "{fault}");
    // Whether it has people, nobody knows: neither site is shown.
    assert!(local.client().await.is_err());
    let page = page_of(&local, folder.path(), &Prepared::default());
    assert_eq!(ask(&page, "try_here", json!({})).await, Err(FaultCode::State));
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_finds_the_service_hands_it_files_and_waits_for_it_when_it_goes() {
    let machine = Machine::new().await;
    machine.add_sam().await;
    let own = machine.path("own");
    let host = Prepared::default();
    let (local, keeping) = window_beside(&own, Some(machine.service.clone()));
    until("the service", || local.state() == EngineState::Service).await;
    let page = page_of(&local, machine.folder.path(), &host);
    assert_eq!(ask(&page, "about", json!({})).await.unwrap()["folder"], "/var/lib/hospes");
    sign_in(&page, "Sam").await;

    let home = tempfile::tempdir().unwrap();
    table(&home.path().join("cohort.csv"), 40);
    let places = ["cohort.csv", "log.jsonl", "log.jsonl"].map(|name| home.path().join(name));
    host.paths.lock().unwrap().extend(places);
    let chosen = ask(&page, "choose_file", json!({ "purpose": "data" })).await.unwrap();
    let dataset = json!({ "name": "Cohort", "path": chosen["file"], "subject": "id" });
    assert_eq!(ask(&page, "add_dataset", json!({ "dataset": dataset })).await.unwrap()["subjects"], 40);
    // The second time the person agreed in the dialog that it is replaced.
    for _ in 0..2 {
        let chosen = ask(&page, "choose_place", json!({ "purpose": "audit", "suggested": "log.jsonl" })).await.unwrap();
        let args = json!({ "federation": null, "kind": "jsonl", "path": chosen["file"] });
        let export = ask(&page, "export_audit", args).await.unwrap();
        assert_eq!(export["bytes"], std::fs::read(home.path().join("log.jsonl")).unwrap().len());
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
    assert_eq!(machine.handed(), 0);

    // The service stops, and is started again: nothing takes its place, and whoever was here signs in again.
    machine.serves.abort();
    until("the end of the service", || waits(&local) == Some(Away::Stopped)).await;
    assert_eq!(lay_down(&local).await, Err(FaultCode::State));
    assert_eq!(ask(&page, "people", json!({})).await, Err(FaultCode::NotRunning));
    let serves = serving(machine.folder.path(), &machine.handle);
    until("the service again", || local.state() == EngineState::Service).await;
    assert_eq!(ask(&page, "people", json!({})).await, Err(FaultCode::NoSession));
    sign_in(&page, "Sam").await;
    assert!(!own.exists(), "the window laid something down in its own account");
    keeping.abort();
    serves.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_says_so_where_somebody_else_could_answer_for_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let service = says(folder.path(), STOPPED);
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (local, keeping) = window_beside(&folder.path().join("own"), Some(service));
    until("the fault", || matches!(local.state(), EngineState::Failed { .. })).await;
    let state = local.state();
    let EngineState::Failed { fault } = state else { panic!("{state:?}") };
    assert!(fault.code == FaultCode::State && fault.words.contains("nothing was sent"), "{fault}");
    assert_eq!(lay_down(&local).await, Err(FaultCode::State));
    keeping.abort();
}
