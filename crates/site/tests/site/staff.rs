//! The service as staff reach it from accounts of their own: who is let in, and what they may do there.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use hospes_ipc::table::Secret;
use hospes_ipc::{Call, Fault, FaultCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::hospital::{Hospital, Running, heart, words};

/// A group that no account of a machine is in.
const GROUP: u32 = 54_321;
/// The account without rights, and its group.
const NOBODY: u32 = 65_534;

/// Connects to a socket, and says whether it was let in.
const CONNECT: &str = "
import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print('let in')
except PermissionError:
    print('not let in')
";

/// A site whose service staff reach by a socket.
struct Service {
    site: Hospital,
    /// What systemd makes as /run/hospes, in a folder that everybody may enter.
    outer: TempDir,
    running: Running,
}

impl Service {
    fn new() -> Self {
        Self::of(Hospital::new(), |_| {})
    }

    /// The service of a site, or of a folder that has none yet; the command is changed before it is given.
    fn of(site: Hospital, adjust: fn(&mut Command)) -> Self {
        let outer = tempfile::tempdir().unwrap();
        set_mode(outer.path(), 0o755);
        let folder = outer.path().join("hospes");
        std::fs::create_dir(&folder).unwrap();
        set_mode(&folder, 0o750);
        if is_root() {
            std::os::unix::fs::chown(&folder, None, Some(GROUP)).unwrap();
        }
        let running = start(&site, &folder, adjust);
        Self { site, outer, running }
    }

    /// It is killed without warning, and started again.
    fn crash(self) -> Self {
        let Self { site, outer, running } = self;
        running.kill();
        let running = start(&site, &outer.path().join("hospes"), |_| {});
        Self { site, outer, running }
    }

    fn socket(&self) -> PathBuf {
        std::fs::canonicalize(self.outer.path()).unwrap().join("hospes/staff.sock")
    }

    /// Makes Ida the first administrator, as a window does.
    fn set_up(&self) -> Result<Value, Fault> {
        let text = std::fs::read_to_string(self.site.passphrase("Ida")).unwrap();
        let call = Call::SetUp { name: "Ida".to_owned(), passphrase: Secret::new(text.trim().to_owned()) };
        let service = hospes_ipc::staff::Service::at(self.socket());
        runtime().block_on(async { service.client().await?.call(&call).await })
    }

    /// Names of what lies in the data folder.
    fn laid(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.site.data()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    /// A command as staff give it: of the site they have nothing but its socket.
    fn command(&self, person: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hospes-site"));
        command.env_clear().stdin(Stdio::null()).arg(format!("--staff={}", self.socket().display()));
        command.args(["--as", person, "--passphrase-file"]).arg(self.site.passphrase(person));
        command
    }

    fn run(&self, person: &str, arguments: &[&str]) -> Output {
        self.command(person).args(arguments).output().unwrap()
    }

    fn ask(&self, person: &str, arguments: &[&str]) -> serde_json::Value {
        let output = self.command(person).arg("--json").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", words(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn refused(&self, person: &str, arguments: &[&str]) -> (i32, String) {
        let output = self.run(person, arguments);
        assert!(!output.status.success(), "{arguments:?} went well: {}", words(&output));
        (output.status.code().unwrap(), words(&output))
    }
}

fn start(site: &Hospital, folder: &Path, adjust: fn(&mut Command)) -> Running {
    let socket = std::fs::canonicalize(folder).unwrap().join("staff.sock");
    let mut command = site.command();
    command.arg("run").arg(format!("--staff={}", socket.display()));
    if is_root() {
        command.gid(GROUP);
    }
    adjust(&mut command);
    site.start_by(&mut command, &socket)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether a process of another account is let in.
fn connects(socket: &Path, group: u32) -> String {
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", CONNECT]).arg(socket).uid(NOBODY).gid(group).current_dir("/").stdin(Stdio::null());
    String::from_utf8(python.output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn the_group_is_let_in_and_nobody_else() {
    let service = Service::new();
    let (socket, folder) = (service.socket(), service.outer.path().join("hospes"));
    let (found, around) = (std::fs::metadata(&socket).unwrap(), std::fs::metadata(folder).unwrap());
    assert!(found.file_type().is_socket());
    // The folder keeps everybody else out, and the socket too.
    assert_eq!((found.mode() & 0o777, around.mode() & 0o777), (0o660, 0o750));
    assert_eq!((found.uid(), found.gid()), (around.uid(), around.gid()));
    if is_root() {
        assert_eq!(connects(&socket, GROUP), "let in");
        assert_eq!(connects(&socket, NOBODY), "not let in");
        set_mode(&service.outer.path().join("hospes"), 0o755);
        assert_eq!(connects(&socket, NOBODY), "not let in", "the socket itself keeps nobody out");
    }
    // The data folder's own socket stays the service's alone.
    let own = std::fs::metadata(service.site.data().join("engine.sock")).unwrap();
    assert_eq!(own.mode() & 0o777, 0o600);
}

#[test]
fn people_of_several_accounts_work_at_once_each_with_their_own_roles() {
    let service = Service::new();
    let added = service.ask("Ida", &["user", "add", "Stefan", "--role", "data-steward"]);
    let code = added["done"]["code"].as_str().unwrap().to_owned();
    service.ask("Stefan", &["user", "activate", "Stefan", "--code", &code]);
    // A window that stays open, and one that is closed in the middle of it.
    let open = |person: &str| {
        let mut command = service.command(person);
        command.args(["--json", "jobs", "--watch"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let (mut stays, mut goes) = (open("Stefan"), open("Ida"));
    let logged_in = |person: &str| {
        let page = service.ask("Ida", &["audit", "list"]);
        let entries = page["entries"].as_array().unwrap().clone();
        entries.iter().any(|e| e["action"] == "login_succeeded" && e["actor"].as_str().unwrap().starts_with(person))
    };
    let begun = Instant::now();
    while !logged_in("Stefan") {
        assert!(begun.elapsed() < Duration::from_secs(60), "Stefan does not log in");
    }
    let (code, said) = service.refused("Stefan", &["user", "add", "Eve", "--role", "administrator"]);
    assert!(code == 3 && said.contains("administrator"), "{code}: {said}");
    assert_eq!(service.refused("Ida", &["dataset", "survey", heart().to_str().unwrap()]).0, 3);
    goes.kill().unwrap();
    goes.wait().unwrap();
    assert_eq!(service.ask("Stefan", &["user", "list"]).as_array().map(Vec::len), Some(2));
    assert!(stays.try_wait().unwrap().is_none(), "the other window ended too");
    stays.kill().unwrap();
    stays.wait().unwrap();
    assert_eq!(service.running.end(), Some(0));
}

#[test]
fn files_go_through_the_socket_and_none_of_them_stay() {
    let service = Service::new();
    service.site.add("Stefan", "data-steward");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("cohort.csv");
    std::fs::copy(heart(), &file).unwrap();
    set_mode(&file, 0o600);
    let add = ["dataset", "add", file.to_str().unwrap(), "--name", "heart", "--subject", "subject_id", "--public"];
    assert_eq!(service.ask("Stefan", &add)["name"], "heart");
    let secret = service.site.path("in the safe");
    std::fs::write(&secret, "a passphrase that lies in the safe\n").unwrap();
    let backup = home.path().join("site.hospes-backup");
    let back_up = ["backup", backup.to_str().unwrap(), "--backup-passphrase-file", secret.to_str().unwrap()];
    let made = service.ask("Ida", &back_up);
    assert_eq!(made["bytes"].as_u64(), Some(std::fs::metadata(&backup).unwrap().len()));
    let (code, said) = service.refused("Ida", &back_up);
    assert!(code == 2 && said.contains("there already"), "{code}: {said}");
    assert_eq!(std::fs::read_dir(service.site.data().join("handed")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
    // What works on the data folder itself is not for staff.
    let (code, said) = service.refused("Ida", &["init", "--administrator", "Eve", "--key-file"]);
    assert!(code == 2 && said.contains("hospes-as-service"), "{code}: {said}");
}

#[test]
fn a_service_that_is_not_there_is_said_and_none_is_served_where_others_could_take_its_place() {
    let site = Hospital::new();
    let outer = tempfile::tempdir().unwrap();
    let folder = std::fs::canonicalize(outer.path()).unwrap().join("hospes");
    std::fs::create_dir(&folder).unwrap();
    let staff = format!("--staff={}", folder.join("staff.sock").display());
    let (code, said) = site.refused("Ida", &[staff.as_str(), "status"]);
    assert!(code == 4 && said.contains("service"), "{code}: {said}");
    set_mode(&folder, 0o777);
    let (code, said) = site.refused("Ida", &[staff.as_str(), "status"]);
    assert!(code == 3 && said.contains("nothing was sent"), "{code}: {said}");
    let (code, said) = site.refused("Ida", &["run", staff.as_str()]);
    assert!(code == 1 && said.contains("nobody else may change it"), "{code}: {said}");
}

#[test]
fn staff_set_the_site_up_and_the_same_process_goes_on_with_it() {
    let service = Service::of(Hospital::empty(), |_| {});
    let output = service.run("Ida", &["status"]);
    assert!(words(&output).contains("Nobody has set this site up yet"), "{}", words(&output));
    let (code, said) = service.refused("Ida", &["user", "list"]);
    assert!(code == 3 && said.contains("in the window"), "{code}: {said}");
    assert_eq!(service.laid(), ["handed"]);
    service.set_up().unwrap();
    assert_eq!(service.ask("Ida", &["user", "list"])[0]["name"], "Ida");
    assert!(service.set_up().is_err_and(|fault| fault.code == FaultCode::State));
    // Its keys lie in its key file, and its own account reaches it by its own socket.
    let settings = std::fs::read_to_string(service.site.data().join("site.toml")).unwrap();
    assert!(settings.contains("file") && service.laid().contains(&"keys.sealed".to_owned()), "{settings}");
    assert_eq!(service.site.ask("Ida", &["status"])["phase"], "set_up");
    let service = service.crash();
    assert_eq!(service.ask("Ida", &["user", "list"])[0]["name"], "Ida");
    assert_eq!(service.running.end(), Some(0));
}

#[test]
fn a_service_that_is_killed_while_it_lays_its_site_down_has_a_whole_one_or_none() {
    let mut service = Service::of(Hospital::empty(), |_| {});
    for delay_ms in [5, 40, 120, 300] {
        std::thread::scope(|scope| {
            scope.spawn(|| service.set_up());
            std::thread::sleep(Duration::from_millis(delay_ms));
            kill(&service.running);
        });
        service = service.crash();
        if service.ask("Ida", &["status"])["phase"] != "empty" {
            break;
        }
    }
    if service.ask("Ida", &["status"])["phase"] == "empty" {
        service.set_up().unwrap();
    }
    assert_eq!(service.ask("Ida", &["user", "list"]).as_array().map(Vec::len), Some(1));
    service.ask("Ida", &["audit", "verify"]);
}

/// As the kernel does where memory runs out.
fn kill(running: &Running) {
    let id = i32::try_from(running.process()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_service_that_waits_finds_the_site_that_a_command_lays_down_and_makes_none_without_a_passphrase() {
    let service = Service::of(Hospital::empty(), |command| {
        command.env_remove("HOSPES_KEY_PASSPHRASE_FILE");
    });
    let fault = service.set_up().unwrap_err();
    assert!(fault.code == FaultCode::Keys && fault.words.contains("systemd-creds encrypt"), "{fault}");
    assert_eq!(service.laid(), ["handed"]);

    let service = service.crash();
    let init = service.site.run("Ida", &["init", "--administrator", "Ida", "--key-file"]);
    assert!(init.status.success(), "{}", words(&init));
    let begun = Instant::now();
    while service.ask("Ida", &["status"])["phase"] == "empty" {
        assert!(begun.elapsed() < Duration::from_secs(60), "the service does not find the site");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(service.ask("Ida", &["user", "list"])[0]["name"], "Ida");
    assert!(service.set_up().is_err_and(|fault| fault.code == FaultCode::State));
    // While it runs, the command asks the service.
    let (code, said) = service.site.refused("Eve", &["init", "--administrator", "Eve", "--key-file"]);
    assert!(code == 3 && said.contains("set this site up already"), "{code}: {said}");
}
