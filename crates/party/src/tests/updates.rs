//! Newer versions of the program, from a real HTTPS server with a certificate of the hospital's own CA, through the
//! hospital's proxy.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use hospes_protocol::release::{Manifest, Package, PackageFormat};
use sqlx::Connection as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::watching::database;
use super::*;
use crate::error::PartyError;
use crate::link::tests::coordinator::Authority;
use crate::link::tests::proxies::ConnectProxy;
use crate::view::{UpdateSource, UpdatesView};

const MANIFEST: &str = "/stable/hospes-release.json";
const PACKAGE: &str = "hospes-newer.package";
const BYTES: &[u8] = b"as if it were a package";

/// What a server sends for each path, byte for byte.
type Answers = Arc<Mutex<HashMap<String, Vec<u8>>>>;

struct Server {
    address: SocketAddr,
    answers: Answers,
    ca_pem: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start() -> Self {
        let authority = Authority::new("Hospital");
        // The site's clock is the test's.
        let (chain, key) = authority.server(-4_000, 4_000);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Answers::default();
        let task = tokio::spawn(serve(listener, acceptor, answers.clone()));
        Self { address, answers, ca_pem: authority.pem(), task }
    }

    fn url(&self) -> String {
        format!("https://{}{MANIFEST}", self.address)
    }

    fn put(&self, path: &str, head: &str, body: &[u8]) {
        let answer = [format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes(), body].concat();
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn file(&self, path: &str, body: &[u8]) {
        self.put(path, &format!("200 OK\r\ncontent-length: {}", body.len()), body);
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, answers: Answers) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, answers) = (acceptor.clone(), answers.clone());
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap();
            let answer = answers.lock().unwrap().get(path).cloned();
            let none = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
            // Whoever asked may have heard enough.
            let _ = stream.write_all(&answer.unwrap_or(none)).await;
            let _ = stream.shutdown().await;
        });
    }
}

/// A site behind a proxy, and the server of the makers.
struct Rig {
    world: World,
    server: Server,
    proxy: ConnectProxy,
    folder: tempfile::TempDir,
}

fn makers() -> SecretKey {
    key(77)
}

fn manifest(version: &str) -> Manifest {
    let package = |name: &str, format| Package {
        name: name.into(),
        format,
        architecture: std::env::consts::ARCH.into(),
        file: PACKAGE.into(),
        bytes: BYTES.len() as u64,
        sha256: Digest::of(BYTES),
    };
    let formats = [PackageFormat::Deb, PackageFormat::Rpm];
    Manifest {
        version: version.parse().unwrap(),
        issued: Timestamp::from_millis(START - DAY),
        until: Timestamp::from_millis(START + 30 * DAY),
        notes: "Mends two things.".into(),
        packages: formats.into_iter().flat_map(|f| [package("hospes", f), package("hospes-site", f)]).collect(),
    }
}

impl Rig {
    async fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (server, proxy) = (Server::start().await, ConnectProxy::start(None, false).await);
        let (ca, it) = (folder.path().join("hospital.pem"), folder.path().join("managed.toml"));
        std::fs::write(&ca, &server.ca_pem).unwrap();
        let more = more.replace("@URL@", &server.url()).replace("@KEY@", &makers().public().to_string());
        let text = format!("[joining]\nproxy = \"http://{}\"\nextra_ca = \"{}\"\n{more}", proxy.address, ca.display());
        std::fs::write(&it, text).unwrap();
        std::fs::set_permissions(&it, std::fs::Permissions::from_mode(0o644)).unwrap();
        let managed = ManagedFile::at(it, rustix::process::geteuid().as_raw());
        let mut world = World::create_with(folder.path(), |config| config.managed = managed).await;
        world.staff().await;
        server.file(MANIFEST, &manifest("9.0.0").sign(&makers()).unwrap());
        server.file(&format!("/stable/{PACKAGE}"), BYTES);
        Self { world, server, proxy, folder }
    }

    /// Where updates are looked for is set.
    async fn set() -> Self {
        let rig = Self::new("").await;
        rig.look_at(Some(rig.source())).await;
        rig
    }

    /// The administrator sets where updates are looked for.
    async fn look_at(&self, source: Option<UpdateSource>) {
        self.world.handle.set_updates(self.world.who("ana"), source, pass("ana")).await.unwrap();
    }

    fn source(&self) -> UpdateSource {
        UpdateSource { url: self.server.url(), key: makers().public().to_string() }
    }

    async fn check(&self) -> UpdatesView {
        self.world.handle.check_updates(self.world.who("ana")).await.unwrap()
    }

    async fn save(&self, name: &str) -> Result<crate::view::UpdateSaved, PartyError> {
        self.world.handle.save_update(self.world.who("ana"), self.folder.path().join(name)).await
    }

    async fn refusals(&self) -> usize {
        self.world.entered("update_installed", "refused").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_is_told_and_its_package_saved_as_its_makers_signed_it() {
    let rig = Rig::new("").await;
    let (world, ana) = (&rig.world, rig.world.who("ana"));
    assert_eq!(world.handle.updates(ana).await.unwrap().source, None);
    assert!(matches!(world.handle.check_updates(ana).await, Err(PartyError::State(_))));
    let set = |who: &'static str, source| world.handle.set_updates(world.who(who), source, pass(who));
    assert!(matches!(set("sam", Some(rig.source())).await, Err(PartyError::Denied { .. })));
    for source in [
        UpdateSource { url: "http://updates.example/f.json".into(), ..rig.source() },
        UpdateSource { url: format!("https://updates.example/{}", "f".repeat(300)), ..rig.source() },
        UpdateSource { url: "https://updates.example/ü.json".into(), ..rig.source() },
        UpdateSource { key: "no key".into(), ..rig.source() },
    ] {
        assert!(matches!(set("ana", Some(source)).await, Err(PartyError::Input { .. })));
    }
    rig.look_at(Some(rig.source())).await;
    assert_eq!(world.entered("settings_changed", "success").await, 1);

    let view = rig.check().await;
    let found = view.found.unwrap();
    assert_eq!((found.version.as_str(), found.is_newer, view.trouble), ("9.0.0", true, None));
    assert_eq!(found.notes, "Mends two things.");
    let package = found.package.unwrap();
    assert!(package.command.ends_with(&format!(" install ./{PACKAGE}")), "{}", package.command);
    let heads = rig.proxy.heads.lock().unwrap().clone();
    assert!(heads.iter().all(|head| head.starts_with(&format!("CONNECT {} ", rig.server.address))), "{heads:?}");
    assert_eq!(heads.len(), 1);

    let saved = rig.save("newer.deb").await.unwrap();
    assert_eq!((saved.version.as_str(), saved.digest), ("9.0.0", Digest::of(BYTES)));
    assert_eq!(std::fs::read(rig.folder.path().join("newer.deb")).unwrap(), BYTES);
    assert!(matches!(rig.save("newer.deb").await, Err(PartyError::File { .. })), "it replaced a file");
    let sam = world.handle.save_update(world.who("sam"), rig.folder.path().join("other.deb")).await;
    assert!(matches!(sam, Err(PartyError::Denied { .. })));
    set("ana", None).await.unwrap();
    assert_eq!(world.handle.updates(ana).await.unwrap().found, None);
    assert_eq!(rig.refusals().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_updates_are_believed_is_signed_and_stands_in_the_log_in_full() {
    let rig = Rig::new("").await;
    let (world, ana) = (&rig.world, rig.world.who("ana"));
    // A window that was left open is not enough.
    let guessed = world.handle.set_updates(ana, Some(rig.source()), pass("not ana")).await;
    assert!(matches!(guessed, Err(PartyError::LogIn { .. })), "{guessed:?}");
    assert_eq!(world.handle.updates(ana).await.unwrap().source, None);
    assert_eq!(world.entered("settings_changed", "success").await, 0);
    let first = rig.source();
    let second = UpdateSource {
        url: format!("https://updates.example/{}.json", "f".repeat(250)),
        key: key(78).public().to_string(),
    };
    let typed = UpdateSource { url: format!(" {} ", second.url), key: second.key.to_ascii_uppercase() };
    for source in [Some(first.clone()), Some(typed), None] {
        rig.look_at(source).await;
    }
    let query = crate::view::AuditQuery { actions: vec!["settings_changed".into()], ..Default::default() };
    let page = world.handle.audit(ana, query).await.unwrap();
    let entered: Vec<_> = page.entries.iter().map(|entry| entry.detail.as_str()).collect();
    let of = |source: &UpdateSource| format!("at {}, under the key {}", source.url, source.key);
    let expected = [
        format!("nowhere. Before: {}", of(&second)),
        format!("{}. Before: {}", of(&second), of(&first)),
        format!("{}. Before: nowhere", of(&first)),
    ];
    assert_eq!(entered, expected.map(|words| format!("settings updates: updates are looked for {words}")));
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_heard_under_a_key_counts_again_when_the_site_comes_back_to_it() {
    let rig = Rig::set().await;
    let known = || async { rig.world.handle.updates(rig.world.who("ana")).await.unwrap().found.map(|f| f.version) };
    assert_eq!(rig.check().await.found.unwrap().version, "9.0.0");
    let others = key(78);
    rig.look_at(Some(UpdateSource { key: others.public().to_string(), ..rig.source() })).await;
    assert_eq!(known().await, None, "what others signed counts under this key");
    rig.server.file(MANIFEST, &manifest("8.0.0").sign(&others).unwrap());
    assert_eq!(rig.check().await.found.unwrap().version, "8.0.0");
    // The first ones' older manifest, still good by its dates.
    let mut older = manifest("8.5.0");
    older.issued = Timestamp::from_millis(START - 2 * DAY);
    rig.server.file(MANIFEST, &older.sign(&makers()).unwrap());
    for _ in 0..2 {
        rig.look_at(Some(rig.source())).await;
        assert_eq!(known().await.as_deref(), Some("9.0.0"));
        let view = rig.check().await;
        assert!(view.trouble.unwrap().contains("an old one is shown again"));
        assert_eq!(view.found.unwrap().version, "9.0.0");
        rig.look_at(None).await;
    }
    assert_eq!(rig.refusals().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_leads_elsewhere_is_not_followed_and_stands_in_the_log() {
    let rig = Rig::set().await;
    let signed = |change: &dyn Fn(&mut Manifest)| {
        let mut made = manifest("9.0.0");
        change(&mut made);
        made.sign(&makers()).unwrap()
    };
    let (file, server) = (|bytes: Vec<u8>| rig.server.file(MANIFEST, &bytes), &rig.server);
    let elsewhere = "302 Found\r\nlocation: https://elsewhere.example/hospes-release.json\r\ncontent-length: 0";
    let too_long = vec![b' '; limits::RELEASE_BYTES + 1];
    let good = manifest("9.0.0").sign(&makers()).unwrap();
    file(good.clone());
    assert_eq!(rig.check().await.trouble, None);
    let attempts: [(&str, &dyn Fn()); 9] = [
        ("not of the key that is set here", &|| file(manifest("9.1.0").sign(&key(78)).unwrap())),
        ("an old one is shown again", &|| file(signed(&|m| m.issued = Timestamp::from_millis(START - 2 * DAY)))),
        ("something else than the one of the same time", &|| file(signed(&|m| m.notes = "Else.".into()))),
        ("an update never goes back", &|| {
            file(signed(&|m| {
                m.version = "0.0.1".parse().unwrap();
                m.issued = Timestamp::from_millis(START - 1);
            }))
        }),
        ("it was good until", &|| {
            file(signed(&|m| {
                m.until = Timestamp::from_millis(START - 1);
                m.issued = Timestamp::from_millis(START - 2);
            }))
        }),
        ("sends on to 'https://elsewhere.example", &|| server.put(MANIFEST, elsewhere, b"")),
        ("longer than 65536 bytes", &|| file(too_long.clone())),
        // Without a word about its length.
        ("longer than 65536 bytes", &|| server.put(MANIFEST, "200 OK", &too_long)),
        ("it is no manifest of updates", &|| file(b"<html>Please sign in</html>".to_vec())),
    ];
    for (at, (words, attempt)) in attempts.iter().enumerate() {
        attempt();
        let view = rig.check().await;
        let trouble = view.trouble.unwrap();
        assert!(trouble.contains("is not followed") && trouble.contains(words), "{words}: {trouble}");
        assert_eq!(view.found.unwrap().version, "9.0.0", "{words}");
        assert_eq!(rig.refusals().await, at + 1, "{words}");
    }
    // A file that does not come is nobody's attack.
    server.put(MANIFEST, "404 Not Found\r\ncontent-length: 0", b"");
    assert!(rig.check().await.trouble.unwrap().contains("answers 404"));
    server.put(MANIFEST, &format!("200 OK\r\ncontent-length: {}", good.len() + 1), &good);
    assert!(rig.check().await.trouble.unwrap().contains("broke before everything was there"));
    assert_eq!(rig.refusals().await, attempts.len());
    file(good);
    assert_eq!(rig.check().await.trouble, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_not_the_signed_one_gets_no_name() {
    let rig = Rig::set().await;
    rig.check().await;
    let path = format!("/stable/{PACKAGE}");
    let mut other = BYTES.to_vec();
    other[0] ^= 1;
    let longer = [BYTES, b"!"].concat();
    for (at, (body, words)) in [
        (&other[..], "is not the file that the makers signed"),
        (&BYTES[1..], "is not the file that the makers signed"),
        (&longer[..], "is longer than"),
    ]
    .into_iter()
    .enumerate()
    {
        rig.server.file(&path, body);
        let Err(PartyError::Update { reason }) = rig.save("newer.deb").await else { panic!("it was taken: {words}") };
        assert!(reason.contains(words), "{reason}");
        assert_eq!(rig.refusals().await, at + 1);
    }
    let elsewhere = "301 Moved Permanently\r\nlocation: https://elsewhere.example/p\r\ncontent-length: 0";
    rig.server.put(&path, elsewhere, b"");
    assert!(matches!(rig.save("newer.deb").await, Err(PartyError::Update { .. })));
    rig.server.put(&path, "404 Not Found\r\ncontent-length: 0", b"");
    assert!(matches!(rig.save("newer.deb").await, Err(PartyError::Link(_))));
    let left: Vec<_> = std::fs::read_dir(rig.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("newer")), "{left:?}");
    // It was good when it was heard, and is not any more.
    rig.world.pass_time(31 * DAY);
    assert!(matches!(rig.save("newer.deb").await, Err(PartyError::Update { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_the_hospital_does_not_vouch_for_is_not_asked() {
    let rig = Rig::set().await;
    let other = Server::start().await;
    other.file(MANIFEST, &manifest("9.0.0").sign(&makers()).unwrap());
    let source = UpdateSource { url: other.url(), ..rig.source() };
    rig.look_at(Some(source)).await;
    let view = rig.check().await;
    let trouble = view.trouble.unwrap();
    assert!(trouble.contains("whom this machine does not believe"), "{trouble}");
    assert_eq!(view.found, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_looked_once_a_day_where_somebody_said_where_and_where_the_it_did() {
    let rig = Rig::new("[updates]\nfrom = \"@URL@\"\nkey = \"@KEY@\"\n").await;
    let (world, ana) = (&rig.world, rig.world.who("ana"));
    let heard = || async {
        for _ in 0..200 {
            world.pass_time(MINUTE);
            tokio::time::sleep(Duration::from_millis(100)).await;
            let view = world.handle.updates(ana).await.unwrap();
            if view.found.is_some() {
                return view;
            }
        }
        panic!("nobody looked by itself");
    };
    let view = heard().await;
    assert!(view.by_it && view.found.unwrap().is_newer, "{:?}", view.trouble);
    assert_eq!(rig.proxy.heads.lock().unwrap().len(), 1, "it was looked more than once a day");
    let other = UpdateSource { url: "https://other.example/f.json".into(), ..rig.source() };
    for source in [None, Some(other)] {
        let refused = world.handle.set_updates(ana, source, pass("ana")).await.unwrap_err();
        assert!(
            matches!(&refused, PartyError::Managed(words) if words.contains("updates are looked for at")),
            "{refused}"
        );
    }
    let off = Rig::new("[updates]\nfrom = \"off\"\n").await;
    let refused = off.world.handle.set_updates(off.world.who("ana"), Some(off.source()), pass("ana")).await;
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains("nobody looks for updates here"), "{refused}");
    off.world.pass_time(2 * DAY);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(off.proxy.heads.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_of_another_version_is_entered_once() {
    let mut world = World::new().await;
    assert_eq!(world.entered("update_installed", "success").await, 0);
    for (before, entered) in [(Some("hospes/0.0.9"), 1), (None, 2)] {
        world.handle.shut_down().await.unwrap();
        let mut connection = database(&world).await;
        let change = match before {
            Some(_) => "UPDATE settings SET value = ?1 WHERE key = 'software'",
            None => "DELETE FROM settings WHERE key = 'software' AND ?1 IS NULL",
        };
        assert_eq!(sqlx::query(change).bind(before).execute(&mut connection).await.unwrap().rows_affected(), 1);
        connection.close().await.unwrap();
        for _ in 0..2 {
            world.handle = open(world.config.clone()).await.unwrap();
            world.log_everybody_in().await;
            assert_eq!(world.entered("update_installed", "success").await, entered);
            world.handle.shut_down().await.unwrap();
        }
        world.handle = open(world.config.clone()).await.unwrap();
        world.log_everybody_in().await;
    }
}
