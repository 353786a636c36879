//! Newer versions of this program.

use hospes_protocol::id::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Where a site looks for newer versions, and whom it believes about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct UpdateSource {
    /// Address of the makers' file about the newest version, `https://host/…`.
    pub url: String,
    /// The makers' public key, 64 hexadecimal digits.
    pub key: String,
}

/// What is known of newer versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct UpdatesView {
    /// Version that runs.
    pub running: String,
    /// Where newer ones are looked for; `None`: nowhere.
    pub source: Option<UpdateSource>,
    /// Whether the hospital's IT decided that.
    pub by_it: bool,
    /// What the makers said last.
    pub found: Option<UpdateFound>,
    /// When this was last tried, since the engine started.
    pub tried: Option<Timestamp>,
    /// Why that came to nothing.
    pub trouble: Option<String>,
}

/// The newest version, as its makers say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct UpdateFound {
    /// The version.
    pub version: String,
    /// Whether it is newer than the one that runs.
    pub is_newer: bool,
    /// What changed.
    pub notes: String,
    /// When the makers said so.
    pub issued: Timestamp,
    /// When this site last heard it.
    pub heard: Timestamp,
    /// The package for this machine, where there is one.
    pub package: Option<UpdatePackage>,
}

/// A package that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct UpdatePackage {
    /// Name of its file.
    pub file: String,
    /// Length.
    pub bytes: u64,
    /// SHA-256.
    pub digest: Digest,
    /// What an administrator of the machine types to install it, beside the file.
    pub command: String,
}

/// A package that was written to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct UpdateSaved {
    /// Version.
    pub version: String,
    /// Length.
    pub bytes: u64,
    /// SHA-256; it is the one that the makers signed.
    pub digest: Digest,
}
