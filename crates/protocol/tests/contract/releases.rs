//! What the makers say of the newest version: opened only under their key, and followed only where it leads forward.

use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::release::{Manifest, ManifestError, Package, PackageFormat, Unfit, Version};
use hospes_protocol::sign::SecretKey;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const DAY: i64 = 24 * 3_600_000;

fn makers() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

fn manifest(version: &str) -> Manifest {
    let package = Package {
        name: "hospes".into(),
        format: PackageFormat::Deb,
        architecture: "x86_64".into(),
        file: "hospes_0.2.0_amd64.deb".into(),
        bytes: 3,
        sha256: Digest::of(b"abc"),
    };
    Manifest {
        version: version.parse().unwrap(),
        issued: NOW.plus_millis(-DAY),
        until: NOW.plus_millis(30 * DAY),
        notes: "Mends two things.\nNothing else.".into(),
        packages: vec![package],
    }
}

#[test]
fn a_manifest_opens_under_the_key_that_signed_it_and_under_no_other() {
    let file = manifest("0.2.0").sign(&makers()).unwrap();
    assert_eq!(Manifest::open(&file, &makers().public()).unwrap(), manifest("0.2.0"));
    let stranger = SecretKey::from_seed(&[8; 32]).public();
    assert_eq!(Manifest::open(&file, &stranger), Err(ManifestError::Signature));
    let text = String::from_utf8(file).unwrap();
    let altered = text.replace("0.2.0", "0.3.0");
    assert_eq!(Manifest::open(altered.as_bytes(), &makers().public()), Err(ManifestError::Signature));
}

#[test]
fn what_is_no_manifest_is_refused_in_words() {
    let open = |bytes: &[u8]| Manifest::open(bytes, &makers().public()).unwrap_err();
    assert_eq!(open(&vec![b' '; limits::RELEASE_BYTES + 1]), ManifestError::TooLarge);
    for bytes in [&b"<html>sign in to the wireless network</html>"[..], b"", b"{}", b"{\"signed\":1}"] {
        assert!(open(bytes).to_string().starts_with("it is no manifest of updates: "));
    }
}

#[test]
fn the_makers_can_sign_nothing_that_leads_elsewhere() {
    let wrong = |change: &dyn Fn(&mut Manifest)| {
        let mut made = manifest("0.2.0");
        change(&mut made);
        matches!(made.sign(&makers()), Err(ManifestError::Form(_)))
    };
    for file in ["../hospes.deb", "/etc/passwd", "https://elsewhere/hospes.deb", "a b.deb", "", ".deb", "a%2fb"] {
        assert!(wrong(&|made| made.packages[0].file = file.into()), "{file}");
    }
    assert!(wrong(&|made| made.packages[0].bytes = 0));
    assert!(wrong(&|made| made.packages[0].bytes = limits::PACKAGE_BYTES + 1));
    assert!(wrong(&|made| made.notes = "\u{202E}".into()));
    assert!(wrong(&|made| made.notes = "x".repeat(limits::TEXT_CHARS + 1)));
    assert!(wrong(&|made| made.until = made.issued));
    assert!(wrong(&|made| made.packages = vec![made.packages[0].clone(); limits::RELEASE_PACKAGES + 1]));
}

#[test]
fn only_what_leads_forward_is_followed() {
    let running: Version = "0.1.0".parse().unwrap();
    let judge = |made: &Manifest, seen: Option<&Manifest>| made.judge(&running, seen, NOW);
    let newest = manifest("0.2.0");
    assert_eq!(judge(&newest, None), Ok(()));
    assert_eq!(judge(&newest, Some(&newest)), Ok(()), "the same one again");
    assert_eq!(judge(&manifest("0.1.0"), None), Ok(()), "nothing is newer");
    assert!(matches!(judge(&manifest("0.0.9"), None), Err(Unfit::Downgrade { .. })));
    assert!(matches!(judge(&manifest("0.1.0-beta.1"), None), Err(Unfit::Downgrade { .. })));

    let mut older = manifest("0.2.0");
    older.issued = older.issued.plus_millis(-1);
    assert!(matches!(judge(&older, Some(&newest)), Err(Unfit::Replayed { .. })));
    assert_eq!(judge(&newest, Some(&older)), Ok(()));
    let mut other = newest.clone();
    other.notes = "Something else.".into();
    assert_eq!(judge(&other, Some(&newest)), Err(Unfit::Forked));

    let mut past = manifest("0.2.0");
    past.until = NOW;
    assert!(matches!(judge(&past, None), Err(Unfit::Expired { .. })));
    let mut future = manifest("0.2.0");
    future.issued = NOW.plus_millis(limits::CLOCK_SKEW_MS + 1);
    assert!(matches!(judge(&future, None), Err(Unfit::FromTheFuture { .. })));
}

#[test]
fn each_machine_gets_its_own_package() {
    let made = manifest("0.2.0");
    assert!(made.package("hospes", PackageFormat::Deb, "x86_64").is_some());
    for (name, format, architecture) in [
        ("hospes-site", PackageFormat::Deb, "x86_64"),
        ("hospes", PackageFormat::Rpm, "x86_64"),
        ("hospes", PackageFormat::Deb, "aarch64"),
    ] {
        assert_eq!(made.package(name, format, architecture), None);
    }
}
