//! Who is in a pool of subjects: keyed hashes of subject keys, by which two datasets with a patient in common are known.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::CohortError;
use crate::opt_out::SubjectHash;

/// The site's secret under which members of pools are hashed. It follows from the one for subject keys
/// ([`SubjectKey::pool_key`](crate::opt_out::SubjectKey::pool_key)), and hashes what that one gave: a snapshot holds hashes
/// alone, so that datasets which were registered before there were pools can be counted, too.
///
/// Its `Debug` shows nothing and it has no `Serialize`.
#[derive(Clone)]
pub struct PoolKey(Zeroizing<[u8; 32]>);

impl PoolKey {
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn hash(&self, subject: &SubjectHash) -> SubjectHash {
        // Unwrap safety: HMAC takes keys of any length.
        #[allow(clippy::unwrap_used)]
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.0.as_slice()).unwrap();
        mac.update(subject);
        let full = mac.finalize().into_bytes();
        let mut hash = [0; 16];
        hash.copy_from_slice(&full[..16]);
        hash
    }
}

impl fmt::Debug for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolKey(…)")
    }
}

/// Subjects of a pool, each once.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Members(Vec<SubjectHash>);

impl Members {
    pub(crate) fn of(hashes: impl IntoIterator<Item = SubjectHash>) -> Self {
        let mut hashes: Vec<SubjectHash> = hashes.into_iter().collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes)
    }

    /// How many.
    ///
    /// # Disclosure
    /// A count, for the site's own people.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nobody.
    ///
    /// # Disclosure
    /// One bit, for the site's own people.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody is in both.
    ///
    /// # Disclosure
    /// One bit, for the site's own ledger; it does not leave.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (few, many) = if self.len() < other.len() { (self, other) } else { (other, self) };
        few.0.iter().any(|hash| many.0.binary_search(hash).is_ok())
    }

    /// Everybody who is in one of both.
    ///
    /// # Disclosure
    /// Keyed hashes: who it is shows only to a holder of the site's secrets.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self::of(self.0.iter().chain(&other.0).copied())
    }

    /// Bytes for the site's own store, which encrypts them.
    ///
    /// # Disclosure
    /// Keyed hashes: who it is shows only to a holder of the site's secrets.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flatten().copied().collect()
    }

    /// Reads what [`Members::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`CohortError::Format`] if the length is none that it writes.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CohortError> {
        let (entries, rest) = bytes.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(CohortError::Format { what: "pool", reason: "its length is no multiple of 16".into() });
        }
        Ok(Self::of(entries.iter().copied()))
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Members({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opt_out::SubjectKey;

    #[test]
    fn a_pool_knows_its_members_under_another_key_than_the_opt_out_list() {
        let key = SubjectKey::from_bytes([3; 32]);
        let pools = key.pool_key();
        let members = |subjects: &[&str]| Members::of(subjects.iter().map(|s| pools.hash(&key.hash(s))));
        let (some, others) = (members(&["A-1", "A-2", " A-1 "]), members(&["A-3"]));
        assert_eq!((some.len(), others.len()), (2, 1));
        assert!(!some.overlaps(&others) && members(&["A-3", "A-2"]).overlaps(&some));
        assert_eq!(some.with(&others), members(&["A-1", "A-2", "A-3"]));
        assert_eq!(Members::from_bytes(&some.to_bytes()).unwrap(), some);
        assert!(Members::from_bytes(&[1; 17]).is_err());
        // No hash of the opt-out list is one of a pool, and other secrets give others.
        assert_ne!(pools.hash(&key.hash("A-1")), key.hash("A-1"));
        assert_ne!(SubjectKey::from_bytes([4; 32]).pool_key().hash(&key.hash("A-1")), pools.hash(&key.hash("A-1")));
        assert_eq!(format!("{some:?} {pools:?}"), "Members(2) PoolKey(…)");
    }
}
