//! The engine in a window's own process: laid down from the window, locked, found again.

use std::path::Path;
use std::sync::Arc;

use hospes_ipc::local::{EngineState, Local, NewKeys};
use hospes_ipc::socket::Client;
use hospes_ipc::staff::Service;
use hospes_ipc::table::Secret;
use hospes_ipc::{Call, FaultCode};
use hospes_party::keys::KdfCost;
use hospes_party::view::{Phase, Status};
use hospes_party::{Config, Executor, Passphrase};
use tokio::task::JoinHandle;

use super::{PASSPHRASE, engine, set_up, until};

fn adjust(config: &mut Config) {
    (config.connect, config.kdf, config.executor) = (false, KdfCost::for_tests(), Executor::Thread);
    config.managed = hospes_party::ManagedFile::none();
}

/// A window's process on this folder.
fn window(folder: &Path) -> (Arc<Local>, JoinHandle<()>) {
    window_beside(folder, None)
}

/// The same on a machine with this service.
pub(super) fn window_beside(folder: &Path, service: Option<Service>) -> (Arc<Local>, JoinHandle<()>) {
    let local = Local::adjusted(folder.to_owned(), "unused".into(), service, adjust);
    let keeps = local.clone();
    (local, tokio::spawn(async move { keeps.keep().await }))
}

fn passphrase() -> Passphrase {
    Passphrase::from(PASSPHRASE.to_owned())
}

fn key_file() -> NewKeys {
    NewKeys::File { passphrase: Secret::new("the key file's own passphrase".into()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_laid_down_from_the_window_and_opened_again_with_its_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (local, keeping) = window(&data);
    until("the first look", || local.state() == EngineState::NotSetUp).await;
    let short = local.initialise("Ada".into(), Passphrase::from("short".to_owned()), key_file()).await;
    assert_eq!(short.unwrap_err().code, FaultCode::Input);
    let unnamed = local.initialise(" ".into(), passphrase(), key_file()).await;
    assert_eq!(unnamed.unwrap_err().code, FaultCode::Input);
    local.initialise("Ada".into(), passphrase(), key_file()).await.unwrap();
    assert_eq!(local.state(), EngineState::Here);
    let again = local.initialise("Eve".into(), passphrase(), key_file()).await;
    assert_eq!(again.unwrap_err().code, FaultCode::State);
    let client = Client::connect(&data).await.unwrap();
    let status: Status = client.call(&Call::Status {}).await.unwrap();
    assert_eq!(status.phase, Phase::SetUp);
    keeping.abort();
    local.stop().await;
    drop((local, client));

    // The next start of the app.
    let (local, keeping) = window(&data);
    until("the lock", || local.state() == EngineState::Locked).await;
    let wrong = local.unlock(passphrase()).await;
    assert_eq!(wrong.unwrap_err().code, FaultCode::Keys);
    assert_eq!(local.state(), EngineState::Locked);
    local.unlock(Passphrase::from("the key file's own passphrase".to_owned())).await.unwrap();
    assert_eq!(local.state(), EngineState::Here);
    keeping.abort();
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_used_where_one_runs_and_its_place_is_not_taken_when_it_stops() {
    let (folder, handle) = engine().await;
    set_up(folder.path()).await;
    let (local, keeping) = window(folder.path());
    until("the service", || local.state() == EngineState::Service).await;
    // Whoever stops a service stops its socket with it.
    handle.shut_down().await.unwrap();
    std::fs::remove_file(hospes_ipc::socket::path(folder.path())).unwrap();
    until("the end of the service", || matches!(local.state(), EngineState::Failed { .. })).await;
    let state = local.state();
    let EngineState::Failed { fault } = state else { panic!("{state:?}") };
    assert!(fault.words.contains("service"), "{}", fault.words);
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_version_is_told_with_what_to_do_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (local, keeping) = window(&data);
    until("the first look", || local.state() == EngineState::NotSetUp).await;
    local.initialise("Ada".into(), passphrase(), key_file()).await.unwrap();
    keeping.abort();
    local.stop().await;
    drop(local);
    // Where SQLite keeps the schema's number (file format, 1.3.14): as a later version of this program would leave it.
    let database = data.join("site.db");
    let mut bytes = std::fs::read(&database).unwrap();
    bytes[60..64].copy_from_slice(&9_999u32.to_be_bytes());
    std::fs::write(&database, &bytes).unwrap();

    let (local, keeping) = window(&data);
    until("the lock", || local.state() == EngineState::Locked).await;
    let refused = local.unlock(Passphrase::from("the key file's own passphrase".to_owned())).await.unwrap_err();
    assert!(refused.words.contains("written by a newer version of Hospes; update this program"), "{refused}");
    assert_eq!(std::fs::read(&database).unwrap(), bytes);
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_settings_are_told_and_tried_again_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("site.toml"), "secrets = \"under the doormat\"").unwrap();
    let (local, keeping) = window(folder.path());
    until("the fault", || matches!(local.state(), EngineState::Failed { .. })).await;
    std::fs::remove_file(folder.path().join("site.toml")).unwrap();
    local.try_again().unwrap();
    until("the second look", || local.state() == EngineState::NotSetUp).await;
    keeping.abort();
}
