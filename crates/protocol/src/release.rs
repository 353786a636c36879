//! What the makers of Hospes say of its newest version: one signed file that lies beside the packages.
//!
//! The file is JSON with two texts: `signed`, the manifest in JSON, byte for byte as it was signed, and `signature`. What was
//! signed is the digest of these bytes under a name of its own, so that a key signs nothing else by it. A manifest is good
//! for a time: whoever shows an old one for ever is noticed.

pub use semver::Version;
use serde::{Deserialize, Serialize};

use crate::canon;
use crate::id::{Digest, Timestamp};
use crate::limits;
use crate::sign::{PublicKey, SecretKey, Signature};
use crate::text::{check_text, shown};

/// Characters of what is said about a file that cannot be read.
const WORDS: usize = 200;

/// A version of Hospes with its packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version.
    pub version: Version,
    /// When this was written.
    pub issued: Timestamp,
    /// Until when it may be believed that there is nothing newer.
    pub until: Timestamp,
    /// What changed, for people.
    pub notes: String,
    /// Its packages.
    pub packages: Vec<Package>,
}

/// A package of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// What package managers call it: `hospes` or `hospes-site`.
    pub name: String,
    /// What kind of package it is.
    pub format: PackageFormat,
    /// Kind of machine, as Rust calls it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Name of the file, which lies beside the manifest.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of it.
    pub sha256: Digest,
}

/// Kinds of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageFormat {
    /// Debian, Ubuntu.
    Deb,
    /// Fedora, Red Hat, SUSE.
    Rpm,
}

/// The file as it lies on a server.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    signed: String,
    signature: Signature,
}

/// Why a manifest is none, or not of the makers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`limits::RELEASE_BYTES`].
    #[error("it is longer than {} KiB, which no manifest is", limits::RELEASE_BYTES >> 10)]
    TooLarge,
    /// No file of this kind, or not well formed.
    #[error("it is no manifest of updates: {0}")]
    Form(String),
    /// Another key signed it, or it was changed since.
    #[error("its signature is not of the key that is set here: it was changed on its way, or is somebody else's")]
    Signature,
}

/// Why a manifest that the makers signed is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is past its time.
    #[error("it was good until {until}, and now it is {now}: an old one is shown, or this machine's clock is wrong")]
    Expired {
        /// Until when it was good.
        until: Timestamp,
        /// The site's time.
        now: Timestamp,
    },
    /// It was written in the future.
    #[error("it was written at {issued}, and here it is {now}: this machine's clock is wrong")]
    FromTheFuture {
        /// When it was written.
        issued: Timestamp,
        /// The site's time.
        now: Timestamp,
    },
    /// One was seen that is newer.
    #[error("it was written at {issued}, and this site has seen one of {seen}: an old one is shown again")]
    Replayed {
        /// When it was written.
        issued: Timestamp,
        /// When the one was written that was seen.
        seen: Timestamp,
    },
    /// Two of the same time say different things.
    #[error("it says something else than the one of the same time that this site has seen")]
    Forked,
    /// It names an older version than the one that runs.
    #[error("it names version {offered}, which is older than {running} that runs here; an update never goes back")]
    Downgrade {
        /// The version that it names.
        offered: Version,
        /// The version that runs.
        running: Version,
    },
}

impl Manifest {
    /// Opens a manifest that this key signed.
    ///
    /// # Errors
    /// [`ManifestError`] says what does not fit. Nothing of it is read before its signature holds.
    pub fn open(bytes: &[u8], key: &PublicKey) -> Result<Self, ManifestError> {
        if bytes.len() > limits::RELEASE_BYTES {
            return Err(ManifestError::TooLarge);
        }
        let envelope: Envelope = read(bytes)?;
        if !key.verifies(&digest(&envelope.signed), &envelope.signature) {
            return Err(ManifestError::Signature);
        }
        let manifest: Self = read(envelope.signed.as_bytes())?;
        manifest.form().map_err(ManifestError::Form)?;
        Ok(manifest)
    }

    /// The manifest as a file, signed.
    ///
    /// # Errors
    /// [`ManifestError`] if no site would open it.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, ManifestError> {
        self.form().map_err(ManifestError::Form)?;
        let form = |error: serde_json::Error| ManifestError::Form(error.to_string());
        let signed = serde_json::to_string(self).map_err(form)?;
        let signature = key.sign(&digest(&signed));
        let file = serde_json::to_vec(&Envelope { signed, signature }).map_err(form)?;
        if file.len() > limits::RELEASE_BYTES { Err(ManifestError::TooLarge) } else { Ok(file) }
    }

    /// Whether a site follows this manifest, on which this version runs and which has seen that manifest last.
    ///
    /// # Errors
    /// [`Unfit`] says why not.
    pub fn judge(&self, running: &Version, seen: Option<&Self>, now: Timestamp) -> Result<(), Unfit> {
        let (issued, until) = (self.issued, self.until);
        if issued.since(now) > limits::CLOCK_SKEW_MS {
            return Err(Unfit::FromTheFuture { issued, now });
        }
        match seen {
            Some(last) if issued < last.issued => return Err(Unfit::Replayed { issued, seen: last.issued }),
            Some(last) if issued == last.issued && self != last => return Err(Unfit::Forked),
            _ => {}
        }
        if until <= now {
            return Err(Unfit::Expired { until, now });
        }
        if self.version.cmp_precedence(running).is_lt() {
            return Err(Unfit::Downgrade { offered: self.version.clone(), running: running.clone() });
        }
        Ok(())
    }

    /// The package of this name for a machine.
    pub fn package(&self, name: &str, format: PackageFormat, architecture: &str) -> Option<&Package> {
        self.packages.iter().find(|p| p.name == name && p.format == format && p.architecture == architecture)
    }

    /// What is wrong with it, whoever signed it: people read its texts, and names of files become addresses.
    fn form(&self) -> Result<(), String> {
        if self.until <= self.issued {
            return Err("it ends before it begins".to_owned());
        }
        check_text(&self.notes).map_err(|wrong| format!("what changed {wrong}"))?;
        if self.packages.len() > limits::RELEASE_PACKAGES {
            return Err(format!("it names more than {} packages", limits::RELEASE_PACKAGES));
        }
        self.packages.iter().try_for_each(Package::form)
    }
}

impl Package {
    fn form(&self) -> Result<(), String> {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '~');
        for name in [&self.name, &self.architecture, &self.file] {
            let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(is_fit)
                && name.len() <= limits::NAME_CHARS;
            if !is_name {
                return Err(format!("'{}' is no name of a package", shown(name, WORDS)));
            }
        }
        if self.bytes == 0 || self.bytes > limits::PACKAGE_BYTES {
            return Err(format!("{} has no bytes, or more than {} MiB", self.file, limits::PACKAGE_BYTES >> 20));
        }
        Ok(())
    }
}

fn digest(signed: &str) -> Digest {
    canon::digest("release", 1, signed.as_bytes())
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|error| ManifestError::Form(shown(&error.to_string(), WORDS)))
}
