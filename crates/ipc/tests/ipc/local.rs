//! The engine in a window's own process: laid down from the window, locked, found again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use hospes_ipc::local::{EngineState, Local, NewKeys, StartStep};
use hospes_ipc::settings::Settings;
use hospes_ipc::socket::Client;
use hospes_ipc::staff::Service;
use hospes_ipc::table::Secret;
use hospes_ipc::{Call, Fault, FaultCode};
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
async fn damaged_settings_are_told_with_what_mends_them_and_tried_again_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    lay_down(&data, key_file()).await;
    let settings = data.join("site.toml");
    // Where a machine lost its power: the file is there, and nothing is in it.
    std::fs::write(&settings, "").unwrap();
    let (local, keeping) = window(&data);
    let fault = failed(&local).await;
    assert_eq!(fault.code, FaultCode::Settings);
    let (before, line) = fault.words.rsplit_once("and try again: ").unwrap();
    assert!(before.contains(settings.to_str().unwrap()) && before.contains("keys.sealed beside it"), "{before}");
    // What it says is what mends it.
    std::fs::write(&settings, line).unwrap();
    local.try_again().unwrap();
    until("the lock", || local.state() == EngineState::Locked).await;
    keeping.abort();

    // Keys in the keychain: two lines, as the site wrote them when it was laid down.
    std::fs::remove_file(data.join("keys.sealed")).unwrap();
    std::fs::write(&settings, "secrets = \"under the doormat\"").unwrap();
    let fault = Settings::find(&data).unwrap_err();
    let two = fault.words.split_once("and try again: ").unwrap().1;
    let two = two.replace(" and below it ", "\n").replace(", which names the folder in which the site was set up", "");
    std::fs::write(&settings, two).unwrap();
    assert_eq!(Settings::find(&data).unwrap(), Some(Settings::keychain(&data).unwrap()));
}

fn key_passphrase() -> Passphrase {
    Passphrase::from("the key file's own passphrase".to_owned())
}

/// Why an engine did not start.
async fn failed(local: &Local) -> Fault {
    until("the fault", || matches!(local.state(), EngineState::Failed { .. })).await;
    let EngineState::Failed { fault } = local.state() else { panic!("{:?}", local.state()) };
    fault
}

/// Lays down a site whose keys lie there, and ends its engine.
async fn lay_down(data: &Path, keys: NewKeys) {
    let (local, keeping) = window(data);
    until("the first look", || local.state() == EngineState::NotSetUp).await;
    local.initialise("Ada".into(), passphrase(), keys).await.unwrap();
    keeping.abort();
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_another_process_still_has_is_waited_for_and_not_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    lay_down(&data, key_file()).await;
    // As an app that was killed has it, until the last of it is gone.
    let held = std::fs::File::open(data.join("lock")).unwrap();
    held.lock().unwrap();
    let (local, keeping) = window(&data);
    until("the lock", || local.state() == EngineState::Locked).await;
    let unlocked = local.clone();
    let unlocking = tokio::spawn(async move { unlocked.unlock(key_passphrase()).await });
    until("what it waits for", || local.step() == StartStep::Folder).await;
    drop(held);
    unlocking.await.unwrap().unwrap();
    assert_eq!((local.state(), local.step()), (EngineState::Here, StartStep::Engine));
    keeping.abort();
    local.stop().await;

    let held = std::fs::File::open(data.join("lock")).unwrap();
    held.lock().unwrap();
    let (local, keeping) = window(&data);
    until("the lock", || local.state() == EngineState::Locked).await;
    let kept = local.unlock(key_passphrase()).await.unwrap_err();
    assert_eq!(kept.code, FaultCode::State);
    assert!(kept.words.contains("another process runs this site"), "{}", kept.words);
    assert_eq!(local.state(), EngineState::Locked);
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_app_works_with_the_engine_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    lay_down(&data, key_file()).await;
    let (first, keeps) = window(&data);
    until("the lock", || first.state() == EngineState::Locked).await;
    first.unlock(key_passphrase()).await.unwrap();
    let (second, looks) = window(&data);
    until("the engine of the first", || second.state() == EngineState::Service).await;
    let status: Status = second.client().await.unwrap().call(&Call::Status {}).await.unwrap();
    assert_eq!(status.phase, Phase::SetUp);
    assert_eq!(first.state(), EngineState::Here);
    looks.abort();
    keeps.abort();
    first.stop().await;
}

const ROLE: &str = "HOSPES_TEST_KEYCHAIN";
const HOME: &str = "HOSPES_TEST_HOME";
const THIS: &str = "local::a_keychain_that_is_locked_missing_or_late_is_told_of_and_asked_anew";
/// A keychain that the session's owner opened, as a log-in does.
const UNLOCKED: &str = "printf 'pw\\n' | gnome-keyring-daemon --unlock --components=secrets > /dev/null 2>&1";

/// Runs this test again, as a child with a role in one home.
fn child(program: &Path, before: &[&str], role: &str, home: &Path) -> Output {
    let mut command = Command::new(program);
    command.args(before).args(["--exact", THIS]).env(ROLE, role).env(HOME, home).env("HOME", home);
    // Each has its own, so that it meets no keychain of a session that is still ending.
    let runtime = home.join(role);
    std::fs::create_dir(&runtime).unwrap();
    std::fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    command.env("XDG_RUNTIME_DIR", runtime);
    for other in ["XDG_DATA_HOME", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY"] {
        command.env_remove(other);
    }
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|e| panic!("{} cannot be run ({e}); the package dbus is needed", program.display()))
}

/// The real Secret Service: open, then locked with nobody who could be asked, then not there, then started late.
#[tokio::test(flavor = "multi_thread")]
async fn a_keychain_that_is_locked_missing_or_late_is_told_of_and_asked_anew() {
    let home = std::env::var_os(HOME).map(PathBuf::from);
    let Some(home) = home else { return in_sessions() };
    let data = home.join("data");
    let role = std::env::var(ROLE).unwrap();
    if role == "open" {
        return lay_down(&data, NewKeys::Keychain).await;
    }
    let (local, keeping) = window(&data);
    let fault = failed(&local).await;
    assert_eq!(fault.code, FaultCode::Keys, "{}", fault.words);
    assert_eq!(local.step(), StartStep::Keychain);
    match role.as_str() {
        "locked" => {
            assert!(fault.words.contains("the keychain"), "{}", fault.words);
            // Another attempt asks the keychain again, and has the site's folder for itself.
            local.try_again().unwrap();
            assert_eq!(failed(&local).await.code, FaultCode::Keys);
        }
        _ => {
            assert!(fault.words.contains("no keychain that can be reached"), "{}", fault.words);
            let _bus = Bus::with_keychain(&home);
            local.try_again().unwrap();
            until("the engine", || local.state() == EngineState::Here).await;
        }
    }
    keeping.abort();
    local.stop().await;
}

fn in_sessions() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join(".local/share/keyrings")).unwrap();
    let this = std::env::current_exe().unwrap();
    let test = this.to_str().unwrap();
    let unlocked = format!("{UNLOCKED}; exec \"$@\"");
    let session = Path::new("dbus-run-session");
    for (program, before, role) in [
        (session, &["--", "sh", "-c", unlocked.as_str(), "sh", test][..], "open"),
        (session, &["--", test][..], "locked"),
        (this.as_path(), &[][..], "late"),
    ] {
        let output = child(program, before, role, home.path());
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{role}: {said}");
    }
}

/// A session bus where this process looks for one.
struct Bus(Child);

impl Bus {
    /// With an open keychain on it.
    fn with_keychain(home: &Path) -> Self {
        let socket = home.join("late/bus");
        let address = format!("unix:path={}", socket.display());
        let mut bus = Command::new("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile", "--address", &address]);
        let bus = Self(bus.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        while !socket.exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let mut open = Command::new("sh");
        let opened = open.args(["-c", UNLOCKED]).env("DBUS_SESSION_BUS_ADDRESS", &address).status();
        assert!(opened.unwrap().success());
        bus
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // The keychain ends with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
