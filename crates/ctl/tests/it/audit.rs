//! `hospesctl audit verify` against whoever may have made the file: each forgery and each flag, on real exports.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use hospes_ledger::{Action, Actor, Engine, Entry, Erasure, Field, Ledger, Retention, Seen, Verdict, Witnessing};
use hospes_protocol::canon;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::message::Witness;
use hospes_protocol::sign::SecretKey;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::{code, ctl, said, written};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

/// The hospital whose log it is, and two members of its federation.
const HOSPITAL: u8 = 1;
const MEMBERS: [u8; 2] = [2, 3];

/// A log in a database of its own.
struct Log {
    folder: tempfile::TempDir,
    connection: SqliteConnection,
}

impl Log {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteConnectOptions::new().filename(folder.path().join("site.db")).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&file).await.unwrap();
        Ledger::on(&mut connection).create().await.unwrap();
        Self { folder, connection }
    }

    /// Appends entries; the same `salt` gives the same log.
    async fn append(&mut self, count: i64, salt: u8) {
        self.append_from(NOW, count, salt).await;
    }

    /// Appends entries of a time, a second between two.
    async fn append_from(&mut self, start: Timestamp, count: i64, salt: u8) {
        let entry = |n| {
            let at = start.plus_millis(n * 1_000);
            let entry = Entry::new(at, Actor::Engine, Action::PermitMinted, Engine::new("0.1.0"));
            entry.refused(format!("reason {n}"))
        };
        let entries: Vec<Entry> = (0..count).map(entry).collect();
        Ledger::on(&mut self.connection).append_all(&entries, &[salt; 32]).await.unwrap();
    }

    /// Puts *erased* in the place of these fields of all entries so far, and says so in an entry of its own.
    async fn erase(&mut self, fields: &[Field], rule: &str, told: Timestamp) {
        let mut ledger = Ledger::on(&mut self.connection);
        let erasure = Erasure { before_ms: i64::MAX, actor: None, fields: fields.to_vec(), rule: rule.into() };
        assert!(ledger.erase(&erasure).await.unwrap() > 0);
        let mut entry = Entry::new(told, Actor::Engine, Action::AuditErased, Engine::new("0.1.0"));
        entry.reason = Retention::named(rule).map(|rule| rule.tells(20));
        ledger.append(&entry, &[9; 32]).await.unwrap();
    }

    /// Shows the log, as one party's, to another, which cosigns it; returns the note that the peer keeps.
    async fn witnessed(&mut self, origin: &SecretKey, peer: &SecretKey) -> String {
        let mut ledger = Ledger::on(&mut self.connection);
        let Witness::Show { checkpoint, old_size, proof, .. } = ledger.show(origin, 0, NOW).await.unwrap() else {
            panic!("not shown")
        };
        let judge = Witnessing { origin: origin.public(), key: peer, seen: None::<Seen>, relayed: false };
        let verdict = judge.judge(&checkpoint, old_size, &proof, NOW);
        let Verdict::Cosigned { checkpoint, cosignature, .. } = verdict else { panic!("{verdict:?}") };
        let size = checkpoint.checkpoint().size;
        let id = origin.public().site_id();
        assert!(ledger.accept_cosignature(id, size, &cosignature.line(), &peer.public()).await.unwrap());
        checkpoint.note()
    }

    async fn export(&mut self, origin: &SecretKey) -> Vec<u8> {
        self.export_at(origin, NOW.plus_millis(3_600_000)).await
    }

    async fn export_at(&mut self, origin: &SecretKey, made: Timestamp) -> Vec<u8> {
        let mut bytes = Vec::new();
        Ledger::on(&mut self.connection).export(origin, made, &mut bytes).await.unwrap();
        bytes
    }
}

/// What an auditor has: the export of a log that two members witnessed, and the note that one of them kept.
struct Honest {
    log: Log,
    export: Vec<u8>,
    note: String,
}

async fn honest() -> Honest {
    let mut log = Log::new().await;
    log.append(200, 1).await;
    let mut note = String::new();
    for member in MEMBERS {
        note = log.witnessed(&key(HOSPITAL), &key(member)).await;
    }
    log.append(100, 2).await;
    let export = log.export(&key(HOSPITAL)).await;
    Honest { log, export, note }
}

/// Runs the verifier on an export with arguments; `note` is the file given to each `--checkpoint`.
fn verify(folder: &Path, export: &[u8], note: &str, arguments: &[&str]) -> (i32, String, Output) {
    let file = folder.join("export.jsonl");
    std::fs::write(&file, export).unwrap();
    let note = written(folder, "note.txt", note);
    let mut all = vec!["audit", "verify", file.to_str().unwrap()];
    for argument in arguments {
        all.push(argument);
        if *argument == "--checkpoint" {
            all.push(note.to_str().unwrap());
        }
    }
    let output = ctl(folder, &all);
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output));
    (code(&output), words, output)
}

fn hex(n: u8) -> String {
    key(n).public().to_string()
}

/// An export with other lines, and a closing line by `owner` that fits them.
fn resigned(export: &[u8], owner: &SecretKey, change: impl FnOnce(&mut Vec<String>)) -> Vec<u8> {
    let text = std::str::from_utf8(export).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.pop();
    change(&mut lines);
    let mut text = String::new();
    for line in &lines {
        writeln!(text, "{line}").unwrap();
    }
    let sha256 = Digest::of(text.as_bytes());
    let mut signed = (lines.len() as u64).to_be_bytes().to_vec();
    signed.extend_from_slice(sha256.as_bytes());
    let signature = owner.sign(&canon::digest("ledger-export", 1, &signed));
    let count = lines.len();
    writeln!(text, "{{\"end\":{{\"lines\":{count},\"sha256\":\"{sha256}\",\"signature\":\"{signature}\"}}}}").unwrap();
    text.into_bytes()
}

#[tokio::test]
async fn an_honest_log_is_intact_for_who_says_whose_it_is_and_what_is_not_checked_is_said() {
    let Honest { log, export, note } = honest().await;
    let folder = log.folder.path();
    let (origin, members) = (hex(HOSPITAL), MEMBERS.map(hex));
    let (status, words, _) = verify(folder, &export, &note, &[]);
    assert_eq!(status, 6, "{words}");
    assert_eq!(words.matches("NOT CHECKED").count(), 3, "{words}");
    assert!(!words.contains("independent") && !words.contains("intact"), "{words}");
    assert!(words.contains(&origin), "the key that a person must compare: {words}");
    let (status, words, _) = verify(folder, &export, &note, &["--origin", &origin]);
    assert!(status == 0 && words.contains("is intact: 300 entries"), "{words}");
    assert!(words.matches("NOT CHECKED").count() == 2 && !words.contains("independent"), "{words}");
    let named = ["--origin", &origin, "--member", &members[0], "--member", &members[1], "--checkpoint"];
    let (status, words, _) = verify(folder, &export, &note, &named);
    assert!(status == 0 && words.contains("2 independent witnesses"), "{words}");
    assert!(words.contains("100 newest entries are not witnessed") && !words.contains("NOT CHECKED"), "{words}");
    // A member that did not cosign is no witness, and nor is the owner of the log.
    for nobody in [hex(9), origin.clone()] {
        let (status, words, _) = verify(folder, &export, &note, &["--origin", &origin, "--member", &nobody]);
        assert!(status == 5 && words.contains("none of the members"), "{words}");
    }
    // What a peer kept tells whose it is, too.
    let (status, words, _) = verify(folder, &export, &note, &["--checkpoint"]);
    assert!(status == 0 && words.contains("is intact"), "{words}");
    let (status, _, output) = verify(folder, &export, &note, &["--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((status, answer["not_checked"].as_array().unwrap().len()), (6, 3), "{answer}");
    assert_eq!(answer["key"], origin);
    assert_eq!(verify(folder, &export, &note, &["--origin", "nonsense"]).0, 2);
}

#[tokio::test]
async fn a_changed_byte_is_found_and_its_entry_named() {
    let Honest { log, export, note } = honest().await;
    let text = String::from_utf8(export).unwrap();
    let changed = text.replacen("reason 77", "reason 78", 1);
    assert_ne!(changed, text);
    for arguments in [&[][..], &["--origin", &hex(HOSPITAL)][..], &["--checkpoint"][..]] {
        let (status, words, _) = verify(log.folder.path(), changed.as_bytes(), &note, arguments);
        assert!(status == 5 && words.contains("entry 77"), "{words}");
    }
    // Its owner can sign the file again, not the tree.
    let signed = resigned(text.as_bytes(), &key(HOSPITAL), |lines| {
        for line in lines {
            *line = line.replacen("reason 77\"", "reason 78\"", 1);
        }
    });
    let (status, words, _) = verify(log.folder.path(), &signed, &note, &["--origin", &hex(HOSPITAL)]);
    assert!(status == 5 && words.contains("entry 77"), "{words}");
}

#[tokio::test]
async fn a_tail_that_its_owner_dropped_is_found_against_what_a_peer_saw() {
    let mut honest = honest().await;
    let later = honest.log.witnessed(&key(HOSPITAL), &key(MEMBERS[0])).await;
    // The first 200 entries and their cosignatures are real.
    let mut cut = Log::new().await;
    cut.append(200, 1).await;
    cut.witnessed(&key(HOSPITAL), &key(MEMBERS[1])).await;
    let export = cut.export(&key(HOSPITAL)).await;
    let flags = ["--origin", &hex(HOSPITAL), "--member", &hex(MEMBERS[1])];
    assert_eq!(verify(cut.folder.path(), &export, &later, &flags).0, 0, "nobody can know without a peer");
    let (status, words, _) = verify(cut.folder.path(), &export, &later, &["--checkpoint"]);
    assert!(status == 5 && words.contains("300 entries were seen elsewhere"), "{words}");
}

#[tokio::test]
async fn a_fork_that_its_owner_signed_is_found_against_what_a_peer_saw() {
    let Honest { note, .. } = honest().await;
    let mut fork = Log::new().await;
    fork.append(300, 7).await;
    let export = fork.export(&key(HOSPITAL)).await;
    let flags = ["--origin", &hex(HOSPITAL), "--checkpoint"];
    let (status, words, _) = verify(fork.folder.path(), &export, &note, &flags);
    assert!(status == 5 && words.contains("a fork"), "{words}");
}

#[tokio::test]
async fn a_log_made_up_with_fresh_keys_convinces_nobody() {
    let Honest { note, .. } = honest().await;
    let forger = key(90);
    let mut forged = Log::new().await;
    forged.append(300, 7).await;
    for witness in 91..95 {
        forged.witnessed(&forger, &key(witness)).await;
    }
    let export = forged.export(&forger).await;
    let folder = forged.folder.path();
    let (status, words, _) = verify(folder, &export, &note, &[]);
    assert!(status == 6 && words.contains("4 keys cosigned it") && !words.contains("independent"), "{words}");
    for (flags, found) in [
        (&["--origin", &hex(HOSPITAL)][..], "not of the party expected"),
        (&["--member", &hex(MEMBERS[0])][..], "none of the members"),
        (&["--checkpoint"][..], "not signed by this ledger's party"),
    ] {
        let (status, words, _) = verify(folder, &export, &note, flags);
        assert!(status == 5 && words.contains(found), "{words}");
    }
}

/// A coordinator shows its forged log to members as the log of a site that it invented; they cosign it, as nothing
/// contradicts it. Under the coordinator's own key these cosignatures are worth nothing.
#[tokio::test]
async fn cosignatures_of_an_invented_sites_log_do_not_pass_for_the_coordinators() {
    let (coordinator, invented) = (key(50), key(51));
    let mut log = Log::new().await;
    log.append(300, 7).await;
    for member in MEMBERS {
        log.witnessed(&invented, &key(member)).await;
    }
    let theirs = String::from_utf8(log.export(&invented).await).unwrap();
    let cosigned = theirs.lines().find(|line| line.starts_with("{\"checkpoint\":")).unwrap().to_owned();
    let own = log.export(&coordinator).await;
    let forged = resigned(&own, &coordinator, |lines| lines.push(cosigned));
    let flags = ["--origin", &hex(50), "--member", &hex(MEMBERS[0]), "--member", &hex(MEMBERS[1])];
    let (status, words, _) = verify(log.folder.path(), &forged, "", &flags);
    assert!(status == 5 && words.contains("not of this one"), "{words}");
    // Left out, nobody witnessed it.
    let (status, words, _) = verify(log.folder.path(), &own, "", &flags);
    assert!(status == 5 && words.contains("none of the members"), "{words}");
}

const DAY_MS: i64 = 24 * 3_600_000;
const YEAR: &str = "retention 12 months";

/// The time by the machine's clock, which the verifier goes by, too.
fn today() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis().try_into().unwrap())
}

/// The verifier on a log of twenty entries of a day, all of whose `fields` its owner erased, and exported again.
async fn erased(
    day: Timestamp,
    fields: &[Field],
    rule: &str,
    made: Timestamp,
    flags: &[&str],
) -> (i32, String, Output) {
    let mut log = Log::new().await;
    log.append_from(day, 20, 1).await;
    log.erase(fields, rule, made.plus_millis(-1)).await;
    let export = log.export_at(&key(HOSPITAL), made).await;
    let origin = hex(HOSPITAL);
    verify(log.folder.path(), &export, "", &[&["--origin", &origin][..], flags].concat())
}

/// The owner of a log blanks what happened yesterday: each leaf stays the same, and the export is signed anew.
#[tokio::test]
async fn evidence_erased_before_its_time_is_found() {
    let (now, yesterday) = (today(), today().plus_millis(-DAY_MS));
    for field in [Field::Actor, Field::Reason, Field::Engine] {
        let (status, words, _) = erased(yesterday, &[field], YEAR, now, &[]).await;
        assert!(status == 5 && words.contains("entry 0: ") && !words.contains("is intact"), "{words}");
        assert!(words.contains(&format!("its '{}' was erased under '{YEAR}' before", field.as_str())), "{words}");
    }
    // What retention never erases, however old.
    let old = now.plus_millis(-400 * DAY_MS);
    for field in [Field::When, Field::Action, Field::Outcome] {
        let (status, words, _) = erased(old, &[field], YEAR, now, &[]).await;
        let found = format!("entry 0: its '{}' is gone", field.as_str());
        assert!(status == 5 && words.contains(&found), "{words}");
    }
    // A file that says that it is of next year.
    let (status, words, _) = erased(yesterday, &[Field::Actor], YEAR, now.plus_millis(400 * DAY_MS), &[]).await;
    assert!(status == 5 && words.contains("still to come") && !words.contains("is intact"), "{words}");
    // A rule of the owner's own.
    let (status, words, _) = erased(yesterday, &[Field::Actor], "lost in a fire", now, &[]).await;
    assert!(status == 5 && words.contains("'lost in a fire', which is no rule"), "{words}");
    let (_, _, output) = erased(yesterday, &[Field::Actor], "lost in a fire", now, &["--json"]).await;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["unknown_rules"], serde_json::json!(["lost in a fire"]));
}

#[tokio::test]
async fn of_a_log_in_doubt_no_report_is_written_nor_printed() {
    let now = today();
    let mut log = Log::new().await;
    log.append_from(now.plus_millis(-400 * DAY_MS), 20, 1).await;
    log.erase(&[Field::Actor], "lost in a fire", now.plus_millis(-1)).await;
    let export = log.export_at(&key(HOSPITAL), now).await;
    let folder = log.folder.path();
    let file = written(folder, "export.jsonl", std::str::from_utf8(&export).unwrap());
    let to = folder.join("report");
    for form in ["html", "csv", "jsonl"] {
        for more in [&[][..], &["--to", to.to_str().unwrap()][..]] {
            let all = ["audit", "convert", file.to_str().unwrap(), "--as", form, "--origin", &hex(HOSPITAL)];
            let output = ctl(folder, &[&all[..], more].concat());
            assert!(code(&output) == 5 && said(&output).contains("no rule"), "{form}: {}", said(&output));
            assert!(output.stdout.is_empty() && !to.exists(), "{form}");
        }
    }
}

/// What the product's own retention leaves is intact, and who reads of it learns from where to where.
#[tokio::test]
async fn what_retention_erased_in_time_is_intact_and_said() {
    let now = today();
    let (status, words, _) = erased(now.plus_millis(-400 * DAY_MS), &Retention::FIELDS, YEAR, now, &[]).await;
    assert!(status == 0 && words.contains("is intact: 21 entries"), "{words}");
    for part in
        ["20 entries were erased in part under retention 12 months", "first is entry 0 of", "newest entry 19 of"]
    {
        assert!(words.contains(part), "{part} is missing in {words}");
    }
}

/// A coordinator whose answers break off in the middle.
fn breaks_off(folder: &Path) -> (String, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let ca = written(folder, "ca.pem", &made.cert.pem());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut tls = rustls::ServerConnection::new(Arc::new(config.clone())).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut socket);
            let mut request = [0; 4_096];
            if stream.read(&mut request).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{\"half\": \"a log\"");
                let _ = stream.flush();
            }
        }
    });
    (url, ca)
}

#[test]
fn an_export_that_breaks_off_leaves_no_file() {
    let home = tempfile::tempdir().unwrap();
    let (url, ca) = breaks_off(home.path());
    let token = written(home.path(), "token", "hospes_abc\n");
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("log.jsonl");
    let export = |file: &Path| {
        let connection = ["--url", &url, "--ca", ca.to_str().unwrap(), "--token-file", token.to_str().unwrap()];
        ctl(home.path(), &[&connection[..], &["audit", "export", file.to_str().unwrap()]].concat())
    };
    let output = export(&file);
    assert!(code(&output) == 1 && said(&output).contains("broke off"), "{}", said(&output));
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0, "a part of a log was left");
    std::fs::write(&file, "an older export").unwrap();
    assert_ne!(code(&export(&file)), 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "an older export");
}

#[tokio::test]
async fn reports_are_made_offline_of_an_intact_log_only_and_are_the_same_again() {
    let Honest { log, export, .. } = honest().await;
    let folder = log.folder.path();
    let file = written(folder, "export.jsonl", std::str::from_utf8(&export).unwrap());
    let annex = written(folder, "annex.json", "{\"people\":{}}");
    let convert = |form: &str, more: &[&str]| {
        let all = [&["audit", "convert", file.to_str().unwrap(), "--as", form, "--origin", &hex(HOSPITAL)], more];
        ctl(folder, &all.concat())
    };
    for form in ["csv", "html", "fhir-r4b", "fhir-r5", "fhir-permission", "cef", "art30", "data-use", "annex", "jsonl"]
    {
        let to = folder.join(format!("report.{form}"));
        let more = ["--annex", annex.to_str().unwrap(), "--to", to.to_str().unwrap()];
        let output = convert(form, &more);
        assert_eq!(code(&output), 0, "{form}: {}", said(&output));
        let printed = convert(form, &[]);
        assert_eq!(std::fs::read(&to).unwrap(), printed.stdout, "{form}");
        assert_ne!(code(&convert(form, &more)), 0, "{form} stands in the place of another file");
    }
    assert_eq!(std::fs::read(folder.join("report.jsonl")).unwrap(), export);
    let csv = std::fs::read_to_string(folder.join("report.csv")).unwrap();
    assert_eq!(csv.lines().count(), 302);
    assert_eq!(code(&convert("pdf", &[])), 2);
    let changed = String::from_utf8(export).unwrap().replace("reason 7\"", "reason 8\"");
    std::fs::write(&file, changed).unwrap();
    let to = folder.join("of-a-forgery.csv");
    let output = convert("csv", &["--to", to.to_str().unwrap()]);
    assert!(code(&output) == 5 && said(&output).contains("entry 7"), "{}", said(&output));
    assert!(!to.exists() && output.stdout.is_empty());
}
