//! What stands between the engine and whoever shows it, over real engines and sockets.

#![allow(clippy::unwrap_used)]

mod beside;
mod first_run;
mod local;
mod page;
mod restore;
mod socket;
mod staff;
mod typescript;

use std::path::Path;
use std::sync::Arc;

use hospes_ipc::Call;
use hospes_ipc::socket::{Client, path, serve};
use hospes_ipc::table::Secret;
use hospes_party::keys::{KdfCost, SecretPlace};
use hospes_party::{Clock, Config, Handle, Passphrase};
use serde_json::Value;
use tempfile::TempDir;

const PASSPHRASE: &str = "ida walks through the ward";

async fn engine() -> (TempDir, Handle) {
    engine_with(hospes_party::system_clock()).await
}

/// An engine on a socket.
async fn engine_with(clock: Clock) -> (TempDir, Handle) {
    let folder = tempfile::tempdir().unwrap();
    let place = SecretPlace::File {
        path: folder.path().join("keys"),
        passphrase: Passphrase::from("the site's own passphrase".to_owned()),
    };
    let mut config = Config::new(folder.path().join("data"), place, "unused".into());
    (config.connect, config.kdf, config.clock) = (false, KdfCost::for_tests(), clock);
    config.executor = hospes_party::Executor::Thread;
    config.managed = hospes_party::ManagedFile::none();
    hospes_party::initialise(&config).await.unwrap();
    let handle = hospes_party::open(config).await.unwrap();
    let (served, at) = (handle.clone(), folder.path().to_owned());
    tokio::spawn(async move { serve(&at, served).await.unwrap() });
    // The file is there a moment before anybody listens.
    while std::os::unix::net::UnixStream::connect(path(folder.path())).is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    (folder, handle)
}

async fn log_in(folder: &Path) -> Client {
    let client = Client::connect(folder).await.unwrap();
    let passphrase = Secret::new(PASSPHRASE.into());
    let _: Value = client.call(&Call::LogIn { name: "Ida".into(), passphrase }).await.unwrap();
    client
}

async fn set_up(folder: &Path) {
    let client = Client::connect(folder).await.unwrap();
    let passphrase = Secret::new(PASSPHRASE.into());
    let _: Value = client.call(&Call::SetUp { name: "Ida".into(), passphrase }).await.unwrap();
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

fn shared<T>(value: T) -> Arc<T> {
    Arc::new(value)
}
