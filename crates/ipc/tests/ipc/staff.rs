//! The socket for staff: sessions apart, files handed over and not named, a service that nobody can pretend to be.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hospes_ipc::site::Site;
use hospes_ipc::socket::Client;
use hospes_ipc::staff::{Service, serve};
use hospes_ipc::{Call, FaultCode};
use hospes_party::Handle;
use hospes_party::view::{AuditLine, AuditPage, AuditQuery, Me};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::{PASSPHRASE, engine, set_up, until};

/// A grey PNG of one pixel.
const PIXEL: &str = "89504E470D0A1A0A0000000D49484452000000010000000108000000003A7E9B550000000A49444154789C6360000000020001\
                     48AFA4710000000049454E44AE426082";

/// A machine with a service.
pub(super) struct Machine {
    pub(super) folder: TempDir,
    pub(super) handle: Handle,
    pub(super) service: Service,
    pub(super) serves: JoinHandle<()>,
}

impl Machine {
    /// Its administrator is Ida.
    pub(super) async fn new() -> Self {
        let (folder, handle) = engine().await;
        set_up(folder.path()).await;
        std::fs::DirBuilder::new().mode(0o750).create(folder.path().join("run")).unwrap();
        let service = Service::at(socket(folder.path())).known_to("no systemd is here".into());
        let serves = serving(folder.path(), &handle);
        let machine = Self { folder, handle, service, serves };
        // The file is there a moment before anybody listens.
        until("the socket for staff", || {
            std::os::unix::net::UnixStream::connect(socket(machine.folder.path())).is_ok()
        })
        .await;
        machine
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Somebody at a window of their own.
    pub(super) async fn log_in(&self, name: &str) -> Client {
        let client = self.service.client().await.unwrap();
        ask(&client, "log_in", json!({ "name": name, "passphrase": PASSPHRASE })).await.unwrap();
        client
    }

    /// Adds Sam, who registers data and reads the log.
    pub(super) async fn add_sam(&self) {
        let ida = self.log_in("Ida").await;
        let person = json!({ "name": "Sam", "roles": ["data_steward", "auditor"], "organisation": null });
        let added = ask(&ida, "add_person", json!({ "person": person, "passphrase": PASSPHRASE })).await.unwrap();
        let code = added["done"]["code"].clone();
        ask(&ida, "activate", json!({ "name": "Sam", "code": code, "passphrase": PASSPHRASE })).await.unwrap();
    }

    /// What the service keeps of files that were handed over.
    pub(super) fn handed(&self) -> usize {
        std::fs::read_dir(self.path("data/handed")).unwrap().count()
    }
}

pub(super) fn socket(folder: &Path) -> PathBuf {
    std::fs::canonicalize(folder).unwrap().join("run/staff.sock")
}

/// Serves staff of this engine.
pub(super) fn serving(folder: &Path, handle: &Handle) -> JoinHandle<()> {
    serving_site(folder, Site::running(handle.clone()))
}

/// Serves staff of this site, which may be none yet.
pub(super) fn serving_site(folder: &Path, site: Arc<Site>) -> JoinHandle<()> {
    let (socket, data) = (socket(folder), folder.join("data"));
    tokio::spawn(async move { serve(&socket, &data, site).await.unwrap() })
}

pub(super) async fn ask(client: &Client, command: &str, args: Value) -> Result<Value, FaultCode> {
    let call: Call = serde_json::from_value(json!({ "command": command, "args": args })).unwrap();
    client.call(&call).await.map_err(|fault| fault.code)
}

/// A table of this many patients that nobody but its owner can read.
pub(super) fn table(path: &Path, patients: usize) {
    let rows: String = (0..patients).map(|i| format!("p{i},{}\n", i % 90)).collect();
    std::fs::write(path, format!("id,age\n{rows}")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A connection that says whatever a test wants.
pub(super) struct Rude(pub(super) UnixStream);

impl Rude {
    pub(super) async fn send(&mut self, request: Value) {
        let bytes = request.to_string();
        self.0.write_u32(u32::try_from(bytes.len()).unwrap()).await.unwrap();
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    pub(super) async fn say(&mut self, request: Value) -> Value {
        self.send(request).await;
        let mut answer = vec![0; self.0.read_u32().await.unwrap() as usize];
        self.0.read_exact(&mut answer).await.unwrap();
        serde_json::from_slice(&answer).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_at_once_have_each_their_own_session_and_their_own_roles() {
    let machine = Machine::new().await;
    machine.add_sam().await;
    let (ida, sam) = (machine.log_in("Ida").await, machine.log_in("Sam").await);
    for (client, name) in [(&ida, "Ida"), (&sam, "Sam"), (&ida, "Ida")] {
        assert_eq!(client.call::<Me>(&Call::Whoami {}).await.unwrap().name, name);
    }
    let eve = json!({ "name": "Eve", "roles": ["administrator"], "organisation": null });
    let added = ask(&sam, "add_person", json!({ "person": eve, "passphrase": PASSPHRASE })).await;
    assert_eq!(added, Err(FaultCode::Denied));
    assert_eq!(ask(&ida, "survey", json!({ "path": "/etc/hostname", "sheet": null })).await, Err(FaultCode::Denied));
    // Nobody becomes the first person of a site that has one.
    let first = machine.service.client().await.unwrap();
    let set_up = ask(&first, "set_up", json!({ "name": "Eve", "passphrase": PASSPHRASE })).await;
    assert_eq!(set_up, Err(FaultCode::State));
    // One window is gone; the other one's person is still there, and so is the engine.
    drop(ida);
    for attempt in 0.. {
        let page: AuditPage = sam.call(&Call::Audit { query: AuditQuery::default() }).await.unwrap();
        let count = |is: &dyn Fn(&AuditLine) -> bool| page.entries.iter().filter(|entry| is(entry)).count();
        let refusals = count(&|e| e.action == "role_refused" && e.actor.starts_with("Sam"));
        // The first time she added Sam.
        if refusals == 1 && count(&|e| e.action == "logout" && e.actor.starts_with("Ida")) == 2 {
            break;
        }
        assert!(attempt < 500, "Ida was not logged out, or what Sam was refused is not in the log: {page:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_nobody_tries_names_slowly_and_says_little_at_a_time() {
    let machine = Machine::new().await;
    machine.add_sam().await;
    let begun = Instant::now();
    for name in ["Eve", "Mallory"] {
        // Neither another name nor another connection helps.
        let client = machine.service.client().await.unwrap();
        let tried = ask(&client, "log_in", json!({ "name": name, "passphrase": PASSPHRASE })).await;
        assert_eq!(tried, Err(FaultCode::LogIn));
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    let mut rude = Rude(UnixStream::connect(socket(machine.folder.path())).await.unwrap());
    rude.0.write_u32(1 << 20).await.unwrap();
    assert_eq!(rude.0.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    // Whoever is somebody says as much as a piece of a file takes.
    let mut rude = Rude(UnixStream::connect(socket(machine.folder.path())).await.unwrap());
    let log_in = json!({ "command": "log_in", "args": { "name": "Sam", "passphrase": PASSPHRASE } });
    assert!(rude.say(json!({ "id": 1, "call": log_in })).await["ok"].is_object());
    let piece = data_encoding::BASE64.encode(&vec![0; 1 << 20]);
    let give = json!({ "id": 2, "files": { "give": { "bundle": 1, "name": "a.csv", "piece": piece } } });
    assert!(rude.say(give).await.get("ok").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_serves_in_the_place_of_a_service_that_runs() {
    let machine = Machine::new().await;
    let (_folder, other) = engine().await;
    let other = Site::running(other);
    let refused = serve(&socket(machine.folder.path()), &machine.path("data"), other).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    machine.log_in("Ida").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_service_cannot_reach_is_registered_and_no_copy_of_it_stays() {
    let machine = Machine::new().await;
    machine.add_sam().await;
    let sam = machine.log_in("Sam").await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("cohort.csv");
    // Several pieces.
    table(&file, 120_000);
    let survey = ask(&sam, "survey", json!({ "path": file, "sheet": null })).await.unwrap();
    assert_eq!(survey["rows"], 120_000);
    let dataset = json!({ "name": "Cohort", "path": file, "subject": "id" });
    assert_eq!(ask(&sam, "add_dataset", json!({ "dataset": dataset })).await.unwrap()["subjects"], 120_000);
    assert_eq!(machine.handed(), 0);
    // Also where the command is refused, or the file is not there, or is none.
    let ida = machine.log_in("Ida").await;
    assert_eq!(ask(&ida, "survey", json!({ "path": file, "sheet": null })).await, Err(FaultCode::Denied));
    for path in [home.path().join("gone.csv"), "/dev/null".into()] {
        assert_eq!(ask(&sam, "survey", json!({ "path": path, "sheet": null })).await, Err(FaultCode::Data));
    }
    std::fs::write(&file, "").unwrap();
    assert_eq!(ask(&sam, "survey", json!({ "path": file, "sheet": null })).await, Err(FaultCode::Data));
    assert_eq!(machine.handed(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_images_is_handed_over_without_what_lies_behind_links() {
    let machine = Machine::new().await;
    machine.add_sam().await;
    let sam = machine.log_in("Sam").await;
    let home = tempfile::tempdir().unwrap();
    let ward = home.path().join("ward");
    std::fs::create_dir_all(ward.join("deep/er")).unwrap();
    let pixel = data_encoding::HEXUPPER.decode(PIXEL.as_bytes()).unwrap();
    std::fs::write(ward.join("deep/er/1.png"), &pixel).unwrap();
    std::fs::write(ward.join("2.png"), &pixel).unwrap();
    std::fs::write(ward.join("labels.csv"), "image,id\ndeep/er/1.png,p1\n2.png,p2\n").unwrap();
    let survey = ask(&sam, "survey", json!({ "path": ward, "sheet": null })).await.unwrap();
    assert_eq!(survey["rows"], 2, "{survey}");
    std::fs::remove_file(ward.join("2.png")).unwrap();
    std::fs::write(home.path().join("elsewhere.png"), &pixel).unwrap();
    std::os::unix::fs::symlink(home.path().join("elsewhere.png"), ward.join("2.png")).unwrap();
    assert_eq!(ask(&sam, "survey", json!({ "path": ward, "sheet": null })).await, Err(FaultCode::Data));
    // Two names that are no text could become one.
    std::fs::write(ward.join(std::ffi::OsStr::from_bytes(b"\xff.png")), &pixel).unwrap();
    let call = Call::Survey { path: ward, sheet: None, missing: None, scan: None, query: None };
    let fault = sam.call::<Value>(&call).await.unwrap_err();
    assert!(fault.code == FaultCode::Data && fault.words.contains("UTF-8"), "{fault}");
    assert_eq!(machine.handed(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_written_under_the_callers_account_and_replaces_nothing() {
    let machine = Machine::new().await;
    machine.add_sam().await;
    let sam = machine.log_in("Sam").await;
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("log.jsonl");
    let args = json!({ "federation": null, "kind": "jsonl", "path": place });
    let export = ask(&sam, "export_audit", args.clone()).await.unwrap();
    let written = std::fs::read(&place).unwrap();
    assert_eq!(export["bytes"], written.len());
    assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&sam, "export_audit", args).await, Err(FaultCode::Input));
    assert_eq!(std::fs::read(&place).unwrap(), written);
    let nowhere = json!({ "federation": null, "kind": "jsonl", "path": home.path().join("no/log.jsonl") });
    assert_eq!(ask(&sam, "export_audit", nowhere).await, Err(FaultCode::Store));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    assert_eq!(machine.handed(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_names_no_file_and_leaves_none() {
    let machine = Machine::new().await;
    machine.add_sam().await;
    let mut rude = Rude(UnixStream::connect(socket(machine.folder.path())).await.unwrap());
    let code = |answer: Value| answer["fault"]["code"].as_str().unwrap_or("none").to_owned();
    let give = |name: &str| json!({ "id": 1, "files": { "give": { "bundle": 7, "name": name, "piece": "aWQK" } } });
    // Whoever is nobody hands nothing over.
    assert_eq!(code(rude.say(give("a.csv")).await), "no_session");
    assert_eq!(machine.handed(), 0);
    let log_in = json!({ "command": "log_in", "args": { "name": "Sam", "passphrase": PASSPHRASE } });
    assert_eq!(code(rude.say(json!({ "id": 2, "call": log_in })).await), "none");

    let secret = machine.path("keys");
    assert!(secret.exists());
    let survey = |path: &Path| json!({ "command": "survey", "args": { "path": path, "sheet": null } });
    for request in [
        json!({ "id": 3, "call": survey(&secret) }),
        json!({ "id": 3, "call": survey(Path::new("a.csv")) }),
        json!({ "id": 3, "call": survey(&secret), "bundle": 7 }),
        json!({ "id": 3, "call": survey(Path::new("../../keys")), "bundle": 7 }),
        json!({ "id": 3, "call": survey(Path::new(".")), "bundle": 7 }),
        give("../a.csv"),
        give("/a.csv"),
        give(""),
        give(&"deep/".repeat(40)),
    ] {
        assert_eq!(code(rude.say(request.clone()).await), "denied", "{request}");
    }
    let whole = json!({ "id": 4, "files": { "give": { "bundle": 7, "name": "a.csv", "piece": "no base64" } } });
    assert_eq!(code(rude.say(whole).await), "command");

    // What a command did not write, or has not written yet, is not given out.
    assert_eq!(code(rude.say(give("a.csv")).await), "none");
    let take = |name: &str| json!({ "id": 5, "files": { "take": { "bundle": 7, "name": name, "at": 0 } } });
    for name in ["a.csv", "log.jsonl", "../../keys"] {
        assert_eq!(code(rude.say(take(name)).await), "denied", "{name}");
    }
    let export =
        json!({ "command": "export_audit", "args": { "federation": null, "kind": "jsonl", "path": "log.jsonl" } });
    assert_eq!(code(rude.say(json!({ "id": 6, "call": export, "bundle": 7 })).await), "none");
    assert!(rude.say(take("log.jsonl")).await["ok"].as_str().is_some_and(|piece| !piece.is_empty()));
    assert_eq!(code(rude.say(take("a.csv")).await), "denied");
    // A window that is gone leaves nothing.
    assert_eq!(machine.handed(), 1);
    drop(rude);
    until("the end of the bundle", || machine.handed() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_takes_no_more_than_its_connections() {
    let machine = Machine::new().await;
    let socket = socket(machine.folder.path());
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(Rude(UnixStream::connect(&socket).await.unwrap()));
    }
    let status = json!({ "id": 1, "call": { "command": "status", "args": {} } });
    for rude in &mut open {
        assert!(rude.say(status.clone()).await["ok"].is_object());
    }
    let mut one_more = UnixStream::connect(&socket).await.unwrap();
    assert_eq!(one_more.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    drop(open);
    for attempt in 0.. {
        let client = machine.service.client().await.unwrap();
        if client.call::<Value>(&Call::Status {}).await.is_ok() {
            break;
        }
        assert!(attempt < 500, "the places of connections that ended are not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_where_others_could_answer_and_nothing_is_served_there() {
    let folder = tempfile::tempdir().unwrap();
    let run = std::fs::canonicalize(folder.path()).unwrap().join("run");
    std::fs::create_dir(&run).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(run.join("staff.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let service = Service::at(run.join("staff.sock")).known_to("no systemd is here".into());
    let set = |mode| std::fs::set_permissions(&run, std::fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o770, 0o777, 0o1777] {
        set(mode);
        let fault = service.client().await.err().unwrap();
        assert_eq!(fault.code, FaultCode::State, "{mode:o}");
        assert!(fault.words.contains("nothing was sent"), "{fault}");
    }
    assert_eq!(listener.accept().map(drop).map_err(|e| e.kind()), Err(std::io::ErrorKind::WouldBlock));
    set(0o750);
    drop(service.client().await.unwrap());
    listener.accept().unwrap();

    set(0o770);
    let (_folder, handle) = engine().await;
    let refused = serve(&run.join("other.sock"), folder.path(), Site::running(handle)).await.unwrap_err();
    assert!(refused.to_string().contains("nobody else may change it"), "{refused}");
    assert!(!run.join("other.sock").exists());
}
