//! Versions of the wire protocol, with a line for each change, and how two sides agree on one.

use serde::{Deserialize, Serialize};

/// A version of the wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u32);

impl Version {
    /// First version: plain aggregation, one session stream, resumable uploads and downloads.
    pub const V1: Self = Self(1);
}

/// Versions that this build speaks, oldest first.
pub const SUPPORTED: &[Version] = &[Version::V1];

/// No version that both sides speak.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no protocol version in common: the other side speaks {}, this side {}; update the older of the two",
    listed(.theirs),
    listed(SUPPORTED)
)]
pub struct NoCommonVersion {
    /// What the other side offered.
    pub theirs: Vec<Version>,
}

fn listed(versions: &[Version]) -> String {
    versions.iter().map(|v| v.0.to_string()).collect::<Vec<_>>().join(", ")
}

/// The newest version that both sides speak.
///
/// # Errors
/// [`NoCommonVersion`] if there is none.
pub fn negotiate(theirs: &[Version]) -> Result<Version, NoCommonVersion> {
    SUPPORTED
        .iter()
        .rev()
        .find(|v| theirs.contains(v))
        .copied()
        .ok_or_else(|| NoCommonVersion { theirs: theirs.iter().take(16).copied().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_common_version_wins_and_none_is_refused_in_words() {
        assert_eq!(negotiate(&[Version(0), Version::V1, Version(99)]), Ok(Version::V1));
        let refused = negotiate(&[Version(99)]).unwrap_err();
        assert!(refused.to_string().contains("speaks 99, this side 1; update the older"), "{refused}");
    }
}
