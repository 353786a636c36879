//! The program itself: exit codes, files, start and stop, and what an idle site costs.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use hospes_coordinator::config::Home;
use hospes_coordinator::store::{CertificateRow, SiteRow, SiteState, Store};
use hospes_coordinator::system_clock;
use hospes_protocol::grpc::federation_client::FederationClient;
use hospes_protocol::message::{FromSite, Hello, ToSite};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::version::Version;

use crate::site::{Credentials, Session, channel, csr, tls, tls_key};

fn program(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hospes-coordinator"));
    command.arg("--data").arg(data).args(arguments).stdin(Stdio::null());
    for name in ["HOSPES_PASSPHRASE", "HOSPES_PASSPHRASE_FILE", "CREDENTIALS_DIRECTORY", "HOSPES_DATABASE", "RUST_LOG"]
    {
        command.env_remove(name);
    }
    command
}

fn run(data: &Path, arguments: &[&str]) -> (i32, Output) {
    let output = program(data, arguments).output().unwrap();
    (output.status.code().unwrap(), output)
}

fn init(data: &Path, port: u16) -> (i32, Output) {
    let (url, listen) = (format!("https://localhost:{port}"), format!("127.0.0.1:{port}"));
    run(data, &["init", "--name", "Test", "--url", &url, "--listen", &listen])
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The program, serving; killed if the test fails.
struct Serving(Child);

impl Serving {
    fn start(data: &Path, port: u16) -> Self {
        let mut child = program(data, &["serve"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), format!("listening on 127.0.0.1:{port}"), "it does not listen");
        Self(child)
    }

    fn terminate(mut self) -> i32 {
        let process = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code().unwrap()
    }

    /// Memory of the process that is its own (not the program's text), in KiB.
    fn anonymous_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn exit_codes_say_what_kind_of_thing_went_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    assert_eq!(run(&data, &["serve"]).0, 3, "no data folder");
    assert_eq!(run(&data, &["nonsense"]).0, 2);
    assert_eq!(run(&data, &["init", "--name", "x", "--url", "http://x"]).0, 3, "no https");
    let port = free_port();
    let (code, said) = init(&data, port);
    assert_eq!(code, 0, "{}", String::from_utf8_lossy(&said.stderr));
    let (code, said) = init(&data, port);
    assert!(code == 3 && String::from_utf8_lossy(&said.stderr).contains("already holds a coordinator"));
    let (code, token) = run(&data, &["token", "create", "Olga", "--role", "operator"]);
    assert!(code == 0 && token.stdout.starts_with(b"hospes_"));
    assert_eq!(run(&data, &["token", "create", "Olga", "--role", "operator"]).0, 3);
    assert_eq!(run(&data, &["token", "create", "X", "--role", "king"]).0, 2);
    let (code, list) = run(&data, &["token", "list"]);
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(code == 0 && list.contains("Olga") && !list.contains("hospes_"), "{list}");
    assert_eq!(run(&data, &["token", "revoke", "Olga"]).0, 0);
    assert_eq!(run(&data, &["token", "revoke", "Olga"]).0, 3);
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (code, said) = run(&data, &["serve"]);
    assert!(code == 5 && String::from_utf8_lossy(&said.stderr).contains("cannot listen"));
    drop(taken);
    std::fs::remove_file(data.join("coordinator.db")).unwrap();
    for arguments in [&["serve"][..], &["token", "list"]] {
        let (code, said) = run(&data, arguments);
        assert!(code == 4 && String::from_utf8_lossy(&said.stderr).contains("missing or empty"), "{said:?}");
    }
    // A database with all tables and nothing in them is as lost.
    let url = Store::sqlite_url(&data.join("coordinator.db"));
    tokio::runtime::Runtime::new().unwrap().block_on(async { Store::open(&url).await.unwrap().close().await });
    let (code, said) = run(&data, &["serve"]);
    assert!(code == 4 && String::from_utf8_lossy(&said.stderr).contains("the database is empty"), "{said:?}");
    let elsewhere = program(&data, &["serve"]).env("HOSPES_DATABASE", "mysql://x").output().unwrap();
    assert_eq!(elsewhere.status.code(), Some(3));
    std::fs::write(data.join("coordinator.db"), b"this is no database, but long enough to be looked at").unwrap();
    assert_eq!(run(&data, &["serve"]).0, 4);
    std::fs::set_permissions(data.join("ca.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = run(&data, &["serve"]);
    assert!(code == 3 && String::from_utf8_lossy(&said.stderr).contains("chmod 600"));
}

#[test]
fn a_sealed_coordinator_needs_its_passphrase_and_leaves_nothing_for_others_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let (data, port) = (folder.path().join("data"), free_port());
    let passphrase = folder.path().join("passphrase");
    std::fs::write(&passphrase, "correct horse battery\n").unwrap();
    let (url, listen) = (format!("https://localhost:{port}"), format!("127.0.0.1:{port}"));
    let with = |arguments: &[&str]| {
        program(&data, arguments).env("HOSPES_PASSPHRASE_FILE", &passphrase).output().unwrap().status.code().unwrap()
    };
    assert_eq!(with(&["init", "--name", "Test", "--url", &url, "--listen", &listen]), 0);
    assert_eq!(with(&["token", "create", "Olga", "--role", "operator"]), 0);
    assert_eq!(run(&data, &["token", "create", "Otto", "--role", "operator"]).0, 3);
    std::fs::write(&passphrase, "wrong").unwrap();
    assert_eq!(with(&["serve"]), 3);
    for entry in std::fs::read_dir(&data).unwrap().map(Result::unwrap) {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", entry.path().display());
    }
}

#[test]
fn a_second_process_on_one_folder_or_one_database_is_told_so_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy, port) = (folder.path().join("data"), folder.path().join("copy"), free_port());
    let database = format!("sqlite://{}", folder.path().join("shared.db").display());
    let listen = format!("127.0.0.1:{port}");
    let url = format!("https://localhost:{port}");
    let init = ["init", "--name", "Test", "--url", &url, "--listen", &listen, "--database", &database];
    assert_eq!(run(&data, &init).0, 0);
    let copied = Command::new("cp").arg("-a").args([&data, &copy]).status().unwrap();
    assert!(copied.success());
    let serving = Serving::start(&data, port);
    // A model on its way, which a start sweeps away.
    let scratch = data.join("models/scratch/model");
    std::fs::write(&scratch, b"half").unwrap();
    for arguments in [&["serve"][..], &["serve", "--new-epoch"]] {
        let (code, said) = run(&data, arguments);
        assert!(code == 5 && String::from_utf8_lossy(&said.stderr).contains("runs on this folder"), "{said:?}");
    }
    assert!(scratch.exists(), "the second process cleared away what the first works on");
    // Another folder with the same keys, on another port.
    let other = free_port();
    let settings = std::fs::read_to_string(copy.join("coordinator.toml")).unwrap();
    std::fs::write(copy.join("coordinator.toml"), settings.replace(&listen, &format!("127.0.0.1:{other}"))).unwrap();
    let (code, said) = run(&copy, &["serve"]);
    assert!(code == 5 && String::from_utf8_lossy(&said.stderr).contains("serves this database"), "{said:?}");
    assert_eq!(serving.terminate(), 0);
    assert_eq!(Serving::start(&copy, other).terminate(), 0);
    // After a crash it starts again at once.
    drop(Serving::start(&copy, other));
    assert_eq!(Serving::start(&copy, other).terminate(), 0);
}

#[test]
fn the_program_prints_the_committed_openapi_document() {
    let (code, output) = run(Path::new("/nowhere"), &["openapi"]);
    let committed = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json")).unwrap();
    assert!(code == 0 && output.stdout == committed);
}

/// Enrolled sites as enrolment leaves them, written directly, because fsync makes hundreds of enrolments slow.
async fn enrolled(home: &Home, count: u8) -> Vec<(SecretKey, Credentials)> {
    let (store, now) = (home.store().await.unwrap(), (system_clock())());
    let mut tx = store.begin("test").await.unwrap();
    let mut sites = Vec::new();
    for n in 1..=count {
        let key = SecretKey::from_seed(&[n; 32]);
        let site = key.public().site_id();
        let tls = tls_key();
        let issued = home.ca.issue_client(&csr(&tls), home.federation(), site, now, 3_600_000).unwrap().unwrap();
        let row = SiteRow {
            site,
            name: format!("site {n}"),
            organisation: "Test".into(),
            identity: key.public(),
            statement: key.sign(&hospes_protocol::id::Digest::of(b"not looked at here")),
            state: SiteState::Enrolled,
            reason: None,
            enrolled: now,
            last_seen: None,
            software: None,
        };
        tx.put_site(&row).await.unwrap();
        let serial = issued.serial.clone();
        let certificate = CertificateRow { serial, site, issued: now, expires: issued.expires, revoked: None };
        tx.insert_certificate(&certificate).await.unwrap();
        sites.push((key, Credentials { certificate_pem: issued.pem, key_der: tls.serialize_der() }));
    }
    tx.commit().await.unwrap();
    store.close().await;
    sites
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_site_costs_little_and_the_program_stops_when_told() {
    const SITES: u8 = 100;
    let folder = tempfile::tempdir().unwrap();
    let (data, port) = (folder.path().join("data"), free_port());
    assert_eq!(init(&data, port).0, 0);
    let home = Home::open(&data, None).unwrap();
    let sites = enrolled(&home, SITES).await;
    let serving = Serving::start(&data, port);
    let ca = home.ca.der().clone();
    let mut sessions = Vec::new();
    let mut idle_kib = 0;
    for (n, (key, credentials)) in sites.iter().enumerate() {
        let channel = channel(port, tls(ca.clone(), Some(credentials))).await.unwrap();
        let mut session = Session::open(FederationClient::new(channel)).await.unwrap();
        let hello = Hello {
            versions: vec![Version::V1],
            site: key.public().site_id(),
            software: "test".into(),
            at: (system_clock())(),
            epoch: 1,
        };
        session.say(FromSite::Hello(hello)).await;
        assert!(matches!(session.hear().await, Some(ToSite::Welcome(_))));
        sessions.push(session);
        if n == 9 {
            // What is set up once is set up by now.
            idle_kib = serving.anonymous_kib();
        }
    }
    let each = (serving.anonymous_kib() - idle_kib) * 1024 / u64::from(SITES - 10);
    println!("idle: {idle_kib} KiB with 10 sites, {each} bytes for each more");
    // The target of an optimised build is 56 KB (specs/performance.md); futures of a test build are larger.
    assert!(each < 160 << 10, "an idle site costs {each} bytes");
    assert!(idle_kib < 30 << 10, "the coordinator takes {idle_kib} KiB");
    assert_eq!(tokio::task::spawn_blocking(move || serving.terminate()).await.unwrap(), 0);
    assert!(sessions.pop().unwrap().goodbye().await.contains("restarting"));
}
