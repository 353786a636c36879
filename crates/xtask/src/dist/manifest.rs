//! `cargo xtask manifest`: the signed file that lies beside the packages, by which sites hear of a newer version.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::release::{Manifest, Package, PackageFormat};
use hospes_protocol::sign::SecretKey;

use super::Release;

/// Name of the file, which sites are given with the address of its folder.
const FILE: &str = "hospes-release.json";
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// What is to be signed.
#[derive(Args)]
pub(crate) struct Signing {
    /// File with the makers' secret key, 64 hexadecimal digits: `openssl rand -hex 32` makes one.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File with what changed, for people.
    #[arg(long, value_name = "FILE")]
    notes: PathBuf,
    /// Days for which it may be believed that there is nothing newer; sign anew before they are over.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=730))]
    days: u16,
    /// Folder with the packages.
    #[arg(long, value_name = "FOLDER", default_value = "dist")]
    out: PathBuf,
    /// Another version than the workspace's.
    #[arg(long, value_name = "VERSION")]
    as_version: Option<String>,
}

/// Signs the packages that lie there.
///
/// # Errors
/// If there are none, or the key or what changed cannot be read or signed.
pub(crate) fn sign(options: &Signing) -> Result<()> {
    let key = secret(&options.key)?;
    let version = options.as_version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let read = std::fs::read_to_string(&options.notes);
    let notes = read.with_context(|| format!("read {}", options.notes.display()))?.trim().to_owned();
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let issued = Timestamp::from_millis(i64::try_from(since.as_millis())?);
    let packages = packages(&options.out, &version)?;
    ensure!(!packages.is_empty(), "{} holds no package of version {version}", options.out.display());
    let until = issued.plus_millis(i64::from(options.days) * DAY_MS);
    let manifest = Manifest { version: version.parse().context("the version")?, issued, until, notes, packages };
    let place = options.out.join(FILE);
    std::fs::write(&place, manifest.sign(&key)?).with_context(|| format!("write {}", place.display()))?;
    println!("   {}: {} packages, good until {until}", place.display(), manifest.packages.len());
    println!("   signed by {}", key.public());
    Ok(())
}

fn secret(path: &Path) -> Result<SecretKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let text = text.trim();
    let wrong = || format!("{} holds no 64 hexadecimal digits", path.display());
    ensure!(text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit()), wrong());
    let mut seed = [0; 32];
    for (at, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).with_context(wrong)?;
    }
    Ok(SecretKey::from_seed(&seed))
}

/// Packages of this version in a folder, by the names that `dist` gives them.
fn packages(folder: &Path, version: &str) -> Result<Vec<Package>> {
    let release = Release { version: version.to_owned(), epoch: 0, is_dev: false };
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some((name, format, architecture)) = named(file, &release.package_version()) else { continue };
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        found.push(Package {
            name: name.to_owned(),
            format,
            architecture: architecture.to_owned(),
            file: file.to_owned(),
            bytes: bytes.len() as u64,
            sha256: Digest::of(&bytes),
        });
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(found)
}

/// Name, format and kind of machine of the package with this file's name, if it is one of this version.
fn named<'a>(file: &'a str, version: &str) -> Option<(&'a str, PackageFormat, &'a str)> {
    if let Some(rest) = file.strip_suffix(".deb") {
        let (rest, architecture) = rest.rsplit_once('_')?;
        let architecture = match architecture {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => other,
        };
        return Some((rest.strip_suffix(version)?.strip_suffix('_')?, PackageFormat::Deb, architecture));
    }
    let (rest, architecture) = file.strip_suffix(".rpm")?.rsplit_once('.')?;
    let name = rest.strip_suffix("-1")?.strip_suffix(version)?.strip_suffix('-')?;
    Some((name, PackageFormat::Rpm, architecture))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_there_is_signed_as_sites_open_it() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (key, notes) = (folder.path().join("key"), folder.path().join("notes"));
        std::fs::write(&key, format!("{}\n", "07".repeat(32)))?;
        std::fs::write(&notes, "Mends two things.\n")?;
        for file in
            ["hospes_1.2.3~beta.1_amd64.deb", "hospes-site-1.2.3~beta.1-1.aarch64.rpm", "hospes_1.0.0_amd64.deb"]
        {
            std::fs::write(folder.path().join(file), "abc")?;
        }
        let out = folder.path().to_owned();
        let as_version = Some("1.2.3-beta.1".to_owned());
        sign(&Signing { key: key.clone(), notes, days: 30, out, as_version })?;
        let manifest =
            Manifest::open(&std::fs::read(folder.path().join(FILE))?, &SecretKey::from_seed(&[7; 32]).public())?;
        assert_eq!(
            (manifest.version.to_string().as_str(), manifest.notes.as_str()),
            ("1.2.3-beta.1", "Mends two things.")
        );
        assert_eq!(manifest.packages.len(), 2);
        let package = manifest.package("hospes", PackageFormat::Deb, "x86_64").context("no package for Debian")?;
        assert_eq!((package.bytes, package.sha256), (3, Digest::of(b"abc")));
        assert!(manifest.package("hospes-site", PackageFormat::Rpm, "aarch64").is_some());
        std::fs::write(&key, "no key")?;
        assert!(secret(&key).is_err());
        Ok(())
    }
}
