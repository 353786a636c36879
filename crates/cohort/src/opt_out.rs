//! The site's one opt-out list: keyed hashes of subject keys, applied before the next batch is drawn.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::CohortError;
use crate::pool::PoolKey;
use crate::scan::ScanProfile;
use crate::source::{Decimal, Delimiter, Format, Limits, RecordReader, SourceKind, detect_encoding, file_name, open};

/// The site's secret under which subject keys are hashed, the same for every dataset of the site.
///
/// Its `Debug` shows nothing and it has no `Serialize`; the site keeps it sealed.
#[derive(Clone)]
pub struct SubjectKey(Zeroizing<[u8; 32]>);

/// Keyed hash of a subject key: the first 16 bytes of HMAC-SHA-256 (RFC 2104, section 5 on truncation).
pub(crate) type SubjectHash = [u8; 16];

impl SubjectKey {
    /// Wraps 32 random bytes that the caller drew.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn hash(&self, subject: &str) -> SubjectHash {
        let full = self.mac(subject.trim().as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&full[..16]);
        hash
    }

    /// The key under which members of pools are hashed.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn pool_key(&self) -> PoolKey {
        // Subject keys are trimmed, so that none begins with a line feed: no subject has this hash.
        PoolKey::from_bytes(self.mac(b"\nhospes/pool-key/v1"))
    }

    fn mac(&self, message: &[u8]) -> [u8; 32] {
        // Unwrap safety: HMAC takes keys of any length.
        #[allow(clippy::unwrap_used)]
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.0.as_slice()).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubjectKey(…)")
    }
}

/// People who do not want to take part, as keyed hashes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OptOuts(BTreeSet<SubjectHash>);

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImportReport {
    /// Ids in the file.
    pub read: u64,
    /// Those that were new.
    pub added: u64,
    /// Those that were on the list already, or stood twice.
    pub known: u64,
}

impl OptOuts {
    /// The empty list.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries on the list.
    ///
    /// # Disclosure
    /// A count, for the site's own people.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is on the list.
    ///
    /// # Disclosure
    /// One bit, for the site's own people.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the ids of a text file: one record per person, the id in its first field. A header does no harm, because
    /// nobody has its words for an id. One of the three gates that may carry row content (invariant I1): the file is
    /// chosen in a dialog, the caller checks the role and writes the audit entry.
    ///
    /// # Errors
    /// [`CohortError`] if the file cannot be read as text.
    ///
    /// # Disclosure
    /// Counts only; the ids themselves are hashed on the way in and forgotten.
    pub fn import(&mut self, path: &Path, key: &SubjectKey) -> Result<ImportReport, CohortError> {
        let file = file_name(path);
        let format = Format {
            kind: SourceKind::Delimited,
            sheet: None,
            encoding: detect_encoding(path)?.0,
            delimiter: Delimiter::Comma,
            decimal: Decimal::Point,
            missing: Vec::new(),
            query: None,
            scan: ScanProfile::default(),
        };
        let mut reader = RecordReader::new(open(path)?, &file, &format, Limits::default());
        let mut report = ImportReport { read: 0, added: 0, known: 0 };
        while let Some(record) = reader.next_record()? {
            let id = record.field(0).split([';', '\t', '|']).next().unwrap_or_default().trim();
            if id.is_empty() {
                continue;
            }
            report.read += 1;
            if self.0.insert(key.hash(id)) {
                report.added += 1;
            } else {
                report.known += 1;
            }
        }
        Ok(report)
    }

    pub(crate) fn has(&self, hash: &SubjectHash) -> bool {
        self.0.contains(hash)
    }

    /// Bytes for the site's own store, which encrypts them.
    ///
    /// # Disclosure
    /// Keyed hashes: who is on the list shows only to a holder of the site's [`SubjectKey`].
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flatten().copied().collect()
    }

    /// Reads what [`OptOuts::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`CohortError::Format`] if the length is none that it writes.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CohortError> {
        let (entries, rest) = bytes.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(CohortError::Format { what: "opt-out list", reason: "its length is no multiple of 16".into() });
        }
        Ok(Self(entries.iter().copied().collect()))
    }
}

impl fmt::Debug for OptOuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OptOuts({} entries)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_counts_and_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optout.txt");
        std::fs::write(&path, "subject_id\nA-1\n A-2 ;left\n\nA-1\n").unwrap();
        let key = SubjectKey::from_bytes([3; 32]);
        let mut list = OptOuts::new();
        let report = list.import(&path, &key).unwrap();
        assert_eq!(report, ImportReport { read: 4, added: 3, known: 1 });
        assert!(list.has(&key.hash("A-2")) && !list.has(&key.hash("A-3")));
        assert!(!list.has(&SubjectKey::from_bytes([4; 32]).hash("A-1")));
        assert_eq!(OptOuts::from_bytes(&list.to_bytes()).unwrap(), list);
        assert!(OptOuts::from_bytes(&[1; 17]).is_err());
        assert_eq!(format!("{list:?} {key:?}"), "OptOuts(3 entries) SubjectKey(…)");
    }
}
