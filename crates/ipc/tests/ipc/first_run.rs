//! A service without a site: its staff set it up, once, and nothing is ever half there.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hospes_ipc::local::EngineState;
use hospes_ipc::settings::{Settings, lay_down};
use hospes_ipc::site::Site;
use hospes_ipc::socket::Client;
use hospes_ipc::staff::Service;
use hospes_ipc::table::Secret;
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::keys::{KdfCost, SecretPlace};
use hospes_party::view::{AuditPage, AuditQuery, Me, Phase, Status};
use hospes_party::{Config, Executor, Foundation, ManagedFile, Passphrase};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::beside::{STOPPED, page_of, says};
use super::local::window_beside;
use super::page::{Prepared, ask as ask_page, sign_in};
use super::staff::{ask, serving_site, socket};
use super::{PASSPHRASE, until};

/// A machine whose service has no site yet.
pub(super) struct Waiting {
    pub(super) service: Service,
    pub(super) site: Arc<Site>,
    serves: JoinHandle<()>,
    looks: JoinHandle<Fault>,
}

impl Waiting {
    /// Its data lie in `data` of this folder.
    pub(super) async fn on(folder: &Path, lines: &str) -> Self {
        let (data, run) = (folder.join("data"), folder.join("run"));
        std::fs::create_dir_all(&data).unwrap();
        if !run.exists() {
            std::fs::DirBuilder::new().mode(0o750).create(run).unwrap();
        }
        let place = data.clone();
        let configure = move |_: &Settings| -> Result<Config, Fault> { Ok(config(&place)) };
        let site = Site::in_folder(data, ManagedFile::none(), configure).await.unwrap();
        let serves = serving_site(folder, site.clone());
        let looking = site.clone();
        let looks = tokio::spawn(async move { looking.look_out().await });
        let service = says(folder, lines);
        until("the service", || std::os::unix::net::UnixStream::connect(socket(folder)).is_ok()).await;
        Self { service, site, serves, looks }
    }

    /// Ends it as a process ends.
    pub(super) async fn end(self) {
        let Self { site, serves, looks, .. } = self;
        for task in [serves.abort_handle(), looks.abort_handle()] {
            task.abort();
        }
        assert!(serves.await.unwrap_err().is_cancelled() && looks.await.unwrap_err().is_cancelled());
        if let Some(handle) = site.handle() {
            handle.shut_down().await.unwrap();
        }
    }

    pub(super) async fn client(&self) -> Client {
        self.service.client().await.unwrap()
    }
}

fn config(data: &Path) -> Config {
    let passphrase = Passphrase::from("the site's own passphrase".to_owned());
    let secrets = SecretPlace::File { path: data.join("keys.sealed"), passphrase };
    let mut config = Config::new(data.to_owned(), secrets, "unused".into());
    (config.connect, config.kdf, config.executor) = (false, KdfCost::for_tests(), Executor::Thread);
    config.managed = ManagedFile::none();
    config
}

pub(super) async fn phase(client: &Client) -> Phase {
    client.call::<Status>(&Call::Status {}).await.unwrap().phase
}

pub(super) async fn set_up(client: &Client, name: &str, passphrase: &str) -> Result<Value, Fault> {
    client.call(&Call::SetUp { name: name.to_owned(), passphrase: Secret::new(passphrase.to_owned()) }).await
}

/// What lies in the data folder.
pub(super) fn laid(folder: &Path) -> Vec<PathBuf> {
    let data = folder.join("data");
    let entries = std::fs::read_dir(&data).unwrap();
    entries.map(|entry| entry.unwrap().path().strip_prefix(&data).unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_set_a_site_up_at_once_one_does_and_the_service_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    let (one, other) = (waiting.client().await, waiting.client().await);
    let mut notices = waiting.service.notices().await.unwrap();
    assert_eq!((phase(&one).await, phase(&other).await), (Phase::Empty, Phase::Empty));
    assert_eq!(ask(&one, "managed", json!({})).await.unwrap()["file"], Value::Null);
    for (command, args) in [("people", json!({})), ("log_in", json!({ "name": "Ada", "passphrase": PASSPHRASE }))] {
        assert_eq!(ask(&one, command, args).await, Err(FaultCode::State), "{command}");
    }
    assert_eq!(set_up(&one, "Ada", "short").await.unwrap_err().code, FaultCode::Input);
    assert_eq!(laid(folder.path()), [PathBuf::from("handed")], "something was made for nobody");

    let (ada, bea) = tokio::join!(set_up(&one, "Ada", PASSPHRASE), set_up(&other, "Bea", PASSPHRASE));
    let (first, refused) = if ada.is_ok() { ("Ada", bea) } else { ("Bea", ada) };
    let refused = refused.unwrap_err();
    assert!(refused.code == FaultCode::State && refused.words.contains("set this site up already"), "{refused}");
    // Whoever listened hears that everything changed, on the connection that there was before.
    assert_eq!(notices.next().await.unwrap(), None);
    assert_eq!((phase(&one).await, phase(&other).await), (Phase::SetUp, Phase::SetUp));
    let log_in = Call::LogIn { name: first.to_owned(), passphrase: Secret::new(PASSPHRASE.into()) };
    assert_eq!(one.call::<Me>(&log_in).await.unwrap().name, first);
    // The log says that it was somebody of the staff, and under which account.
    let page: AuditPage = one.call(&Call::Audit { query: AuditQuery::default() }).await.unwrap();
    let added = page.entries.iter().find(|entry| entry.action == "person_added").unwrap();
    let account = rustix::process::geteuid().as_raw();
    let said = format!("by the socket for staff, account {account} of the machine");
    assert!(added.detail.contains(&said) && added.actor.starts_with(first), "{added:?}");

    // The next start of the service finds the site.
    waiting.end().await;
    let again = Waiting::on(folder.path(), STOPPED).await;
    assert_eq!(phase(&again.client().await).await, Phase::SetUp);
    again.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_broken_off_is_no_site_and_the_first_person_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // The power failed before there was a database.
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("site.toml"), "secrets = \"file\"\n").unwrap();
    std::fs::write(data.join("site.db.part"), "half a database").unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    assert!(waiting.site.handle().is_none());
    assert_eq!(phase(&waiting.client().await).await, Phase::Empty);
    waiting.end().await;
    // It failed again before there was a person.
    hospes_party::initialise(&config(&data)).await.unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    let client = waiting.client().await;
    assert_eq!(phase(&client).await, Phase::Empty);
    set_up(&client, "Ada", PASSPHRASE).await.unwrap();
    assert_eq!(phase(&client).await, Phase::SetUp);
    waiting.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_a_command_lays_down_meanwhile_is_found_and_no_second_one_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    let data = folder.path().join("data");
    let command = lay_down(&data, &Settings::File, config(&data)).await.unwrap();
    let client = waiting.client().await;
    let refused = set_up(&client, "Eve", PASSPHRASE).await.unwrap_err();
    assert!(refused.code == FaultCode::State && refused.words.contains("a command is laying"), "{refused}");
    command.set_up("Ida".into(), Passphrase::from(PASSPHRASE.to_owned())).await.unwrap();
    command.shut_down().await.unwrap();
    until("the site of the command", || waiting.site.handle().is_some()).await;
    assert_eq!(phase(&client).await, Phase::SetUp);
    assert_eq!(set_up(&client, "Eve", PASSPHRASE).await.unwrap_err().code, FaultCode::State);
    waiting.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_second_changes_nothing_of_a_site_that_is_laid_down_just_now() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let second = async || {
        let others = Settings::Keychain { service: "of somebody else".into() };
        lay_down(&data, &others, config(&data)).await.err().unwrap()
    };
    let first = Foundation::begin(config(&data)).unwrap();
    let busy = second().await;
    assert!(busy.code == FaultCode::State && busy.words.contains("is locked"), "{busy}");
    // With the settings of another, the first one's site could not be opened any more.
    assert_eq!(Settings::find(&data).unwrap(), None);
    let handle = first.lay().await.unwrap();
    let there = second().await;
    assert!(there.code == FaultCode::State && there.words.contains("holds a site already"), "{there}");
    assert_eq!(Settings::find(&data).unwrap(), None);
    handle.shut_down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_sets_the_site_of_the_service_up_and_none_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    let own = folder.path().join("own");
    let (local, keeping) = window_beside(&own, Some(waiting.service.clone()));
    let (trying, keeping_too) = window_beside(&own, Some(waiting.service.clone()));
    until("the service", || local.state() == EngineState::Service && trying.state() == EngineState::Service).await;
    let page = page_of(&local, folder.path(), &Prepared::default());
    assert_eq!(ask_page(&page, "status", json!({})).await.unwrap()["phase"], "empty");
    let keys = json!({ "administrator": "Ada", "passphrase": PASSPHRASE, "keys": "keychain" });
    assert_eq!(ask_page(&page, "initialise", keys).await, Err(FaultCode::State));
    // Somebody may still try Hospes out with a site of their own.
    let other = page_of(&trying, folder.path(), &Prepared::default());
    ask_page(&other, "try_here", json!({})).await.unwrap();
    until("the first run of an own site", || trying.state() == EngineState::NotSetUp).await;
    keeping_too.abort();

    ask_page(&page, "set_up", json!({ "name": "Ada", "passphrase": PASSPHRASE })).await.unwrap();
    assert_eq!(local.state(), EngineState::Service);
    sign_in(&page, "Ada").await;
    assert_eq!(ask_page(&page, "people", json!({})).await.unwrap()[0]["name"], "Ada");
    let about = ask_page(&page, "about", json!({})).await.unwrap();
    let own_folder = own.display().to_string();
    assert_eq!((about["folder"].as_str(), about["own_folder"].as_str()), (Some("/var/lib/hospes"), Some(&*own_folder)));
    // Now that people are there, nobody turns away from them by mistake.
    assert_eq!(ask_page(&page, "try_here", json!({})).await, Err(FaultCode::State));
    assert!(!own.exists());
    keeping.abort();
    waiting.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_were_closed_while_the_service_waits_keep_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let waiting = Waiting::on(folder.path(), STOPPED).await;
    // More than an account has places.
    for _ in 0..40 {
        drop(waiting.service.notices().await.unwrap());
    }
    for attempt in 0.. {
        if waiting.client().await.call::<Status>(&Call::Status {}).await.is_ok() {
            break;
        }
        assert!(attempt < 500, "the places of windows that are gone are not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    waiting.end().await;
}
