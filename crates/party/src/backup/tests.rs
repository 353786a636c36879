//! Containers that were cut, altered or put together anew, and archives whose maker means harm.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use hospes_protocol::id::{Digest, Timestamp};

use super::archive::{self, Kind, Manifest};
use super::container::{CHUNK, HEADER, Lock, Opener, Sealer, TAG};
use super::restore::Restoration;
use crate::config::Config;
use crate::error::PartyError;
use crate::keys::{KdfCost, KeyError, SecretPlace};
use crate::people::Passphrase;
use crate::store::schema;

fn pass() -> Passphrase {
    Passphrase::from("passphrase of a backup".to_owned())
}

/// A container with these bytes in it.
fn sealed(plain: &[u8]) -> Vec<u8> {
    let lock = Lock::draw(&pass(), KdfCost::for_tests()).unwrap();
    let mut sealer = Sealer::begin(Vec::new(), &lock).unwrap();
    sealer.write_all(plain).unwrap();
    sealer.finish().unwrap()
}

fn opened(bytes: &[u8], length: usize, passphrase: &Passphrase) -> Result<Vec<u8>, PartyError> {
    let mut opener = Opener::begin(bytes, Path::new("a backup"), passphrase)?;
    let mut plain = vec![0; length];
    opener.fill(&mut plain)?;
    assert_eq!(opener.finish()?, Digest::of(bytes));
    Ok(plain)
}

fn plain(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[test]
fn a_container_of_any_size_comes_back() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let (plain, sealed) = (plain(length), sealed(&plain(length)));
        assert_eq!(sealed.len(), HEADER + length + TAG * length.div_ceil(CHUNK).max(1), "{length}");
        assert_eq!(opened(&sealed, length, &pass()).unwrap(), plain, "{length}");
        assert!(opened(&sealed, length + 1, &pass()).is_err(), "{length}");
        if length > 0 {
            assert!(opened(&sealed, length - 1, &pass()).is_err(), "something followed on {length}");
        }
    }
}

#[test]
fn another_passphrase_opens_nothing_and_is_told_like_a_damaged_beginning() {
    let length = CHUNK + 7;
    let good = sealed(&plain(length));
    let wrong = opened(&good, length, &Passphrase::from("another passphrase".to_owned())).unwrap_err();
    let mut bad = good.clone();
    bad[HEADER] ^= 1;
    let damaged = opened(&bad, length, &pass()).unwrap_err();
    assert!(matches!(wrong, PartyError::Keys(KeyError::WrongPassphrase { .. })), "{wrong:?}");
    assert_eq!(wrong.to_string(), damaged.to_string());
    assert!(wrong.to_string().contains("the passphrase is wrong, or the backup a backup was damaged"), "{wrong}");
}

#[test]
fn every_altered_or_missing_part_is_noticed() {
    let length = 2 * CHUNK + 100;
    let good = sealed(&plain(length));
    let chunk = CHUNK + TAG;
    let places = (0..HEADER).chain((HEADER..good.len()).step_by(4_099)).chain([good.len() - 1]);
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(opened(&bad, length, &pass()).is_err(), "byte {at}");
        assert!(opened(&good[..at], length, &pass()).is_err(), "cut at {at}");
    }
    // At the borders of chunks, where nothing but the marks in the nonces tells.
    for cut in [HEADER, HEADER + chunk, HEADER + 2 * chunk] {
        assert!(opened(&good[..cut], length, &pass()).is_err(), "cut at {cut}");
    }
    let (head, body) = good.split_at(HEADER);
    let (first, rest) = body.split_at(chunk);
    let (second, last) = rest.split_at(chunk);
    for order in [[second, first, last], [first, first, last], [first, last, second]] {
        assert!(opened(&[head, &order.concat()].concat(), length, &pass()).is_err());
    }
    assert!(opened(&[good.as_slice(), last].concat(), length, &pass()).is_err(), "something was added");
    let late = opened(&good[..good.len() - 1], length, &pass()).unwrap_err();
    assert!(late.to_string().contains("cut off or altered after its first"), "{late}");
}

#[test]
fn a_file_cannot_make_this_machine_work_for_hours() {
    let mut bad = sealed(b"x");
    bad[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = opened(&bad, 1, &pass()).unwrap_err();
    assert!(refused.to_string().contains("does not begin as a backup"), "{refused}");
}

/// A folder for a site, and a backup with these contents.
struct Hostile {
    folder: tempfile::TempDir,
}

impl Hostile {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> Config {
        let secrets = SecretPlace::File { path: self.folder.path().join("secrets"), passphrase: pass() };
        Config { kdf: KdfCost::for_tests(), ..Config::new(self.folder.path().join("site"), secrets, "unused".into()) }
    }

    /// Why the site is not restored.
    async fn refused(&self, write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut plain = Vec::new();
        write(&mut plain);
        let file: PathBuf = self.folder.path().join("backup");
        std::fs::write(&file, sealed(&plain)).unwrap();
        let refused = match Restoration::check(&self.config(), file, pass()).await {
            Ok(_) => panic!("it was taken"),
            Err(refused) => refused.to_string(),
        };
        let left: Vec<_> = std::fs::read_dir(self.folder.path().join("site")).unwrap().flatten().collect();
        assert!(left.iter().all(|entry| entry.file_name() == "lock"), "{left:?}");
        assert!(!self.folder.path().join("secrets").exists());
        refused
    }
}

fn manifest(schema: u32) -> Vec<u8> {
    let (made, root) = (Timestamp::from_millis(1), Digest::of(b"no log"));
    let manifest = Manifest { software: "hospes/9.9".into(), schema, made, entries: 1, root };
    serde_json::to_vec(&manifest).unwrap()
}

/// A record that says it is so long.
fn claims(out: &mut Vec<u8>, kind: Kind, name: &str, bytes: u64) {
    out.push(kind as u8);
    out.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&bytes.to_le_bytes());
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    let hostile = Hostile::new();
    for name in ["../../elsewhere", "/etc/motd", "", "..", &"a".repeat(63), &"A".repeat(64)[..63]] {
        let refused = hostile
            .refused(|out| {
                archive::put(out, Kind::Manifest, "", &manifest(schema())).unwrap();
                archive::put(out, Kind::Database, "", b"no database").unwrap();
                archive::put(out, Kind::Snapshot, name, b"x").unwrap();
                archive::end(out).unwrap();
            })
            .await;
        assert!(refused.contains("under a name that is none"), "{name}: {refused}");
    }
    for name in ["person/../x", "person/", "site-key", "tls/../../x", "data-key/x"] {
        let refused = hostile
            .refused(|out| {
                archive::put(out, Kind::Manifest, "", &manifest(schema())).unwrap();
                archive::put(out, Kind::Secret, name, b"x").unwrap();
            })
            .await;
        assert!(refused.contains("a secret that no site has"), "{name}: {refused}");
    }
}

#[tokio::test]
async fn sizes_that_no_file_has_are_refused_before_anything_is_reserved() {
    let hostile = Hostile::new();
    for (kind, bytes) in [(Kind::Manifest, u64::MAX), (Kind::Manifest, 1 << 40)] {
        let refused = hostile.refused(|out| claims(out, kind, "", bytes)).await;
        assert!(refused.contains("longer than the file"), "{refused}");
    }
    let refused = hostile.refused(|out| out.extend_from_slice(&[1, 0xff, 0xff])).await;
    assert!(refused.contains("too long a name"), "{refused}");
    let refused = hostile
        .refused(|out| {
            archive::put(out, Kind::Manifest, "", &manifest(schema())).unwrap();
            archive::put(out, Kind::Secret, "data-key", &vec![0; 1 << 20]).unwrap();
        })
        .await;
    assert!(refused.contains("longer than such a part can be"), "{refused}");
    let refused = hostile
        .refused(|out| {
            archive::put(out, Kind::Manifest, "", &manifest(schema())).unwrap();
            claims(out, Kind::Database, "", 64);
            out.extend_from_slice(b"less");
        })
        .await;
    assert!(refused.contains("ends too early"), "{refused}");
}

#[tokio::test]
async fn what_is_no_backup_of_this_version_is_refused_in_words() {
    let hostile = Hostile::new();
    let older = hostile.refused(|out| archive::put(out, Kind::Manifest, "", &manifest(schema() - 1)).unwrap()).await;
    assert!(older.contains("hospes/9.9, with an older schema") && older.contains("update it afterwards"), "{older}");
    let newer = hostile.refused(|out| archive::put(out, Kind::Manifest, "", &manifest(schema() + 1)).unwrap()).await;
    assert!(newer.contains("with a newer schema") && newer.contains("update this program first"), "{newer}");
    let unknown = hostile.refused(|out| archive::put(out, Kind::Manifest, "", b"{\"more\":1}").unwrap()).await;
    assert!(unknown.contains("cannot read what it says of itself"), "{unknown}");
    let order = hostile.refused(|out| archive::put(out, Kind::Secret, "data-key", b"x").unwrap()).await;
    assert!(order.contains("not in order"), "{order}");
    let nothing = hostile
        .refused(|out| {
            archive::put(out, Kind::Manifest, "", &manifest(schema())).unwrap();
            archive::end(out).unwrap();
        })
        .await;
    assert!(nothing.contains("it holds no database"), "{nothing}");
    let database = hostile
        .refused(|out| {
            archive::put(out, Kind::Manifest, "", &manifest(schema())).unwrap();
            archive::put(out, Kind::Database, "", b"no database").unwrap();
            archive::end(out).unwrap();
        })
        .await;
    assert!(database.contains("its database is damaged"), "{database}");
    let more = hostile
        .refused(|out| {
            archive::put(out, Kind::Manifest, "", &manifest(schema())).unwrap();
            archive::put(out, Kind::Database, "", b"no database").unwrap();
            archive::end(out).unwrap();
            out.push(0);
        })
        .await;
    assert!(more.contains("something follows on its end"), "{more}");
    // Not even the beginning of one.
    let file = hostile.folder.path().join("other");
    File::create(&file).unwrap().write_all(b"PK\x03\x04 and so on").unwrap();
    let other = Restoration::check(&hostile.config(), file, pass()).await.err().unwrap();
    assert!(other.to_string().contains("does not begin as a backup"), "{other}");
}
