//! One encrypted file for all secrets of a site: argon2id (RFC 9106) and XChaCha20-Poly1305.
//!
//! Layout: magic of 16 bytes, memory in KiB and passes (u32, little-endian), salt of 16 bytes, nonce of 24 bytes, then
//! the sealed list of secrets. Everything before the sealed list is authenticated with it. Each write draws a new
//! nonce and replaces the file atomically.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::{KdfCost, KeyError, Secret, random};
use crate::people::Passphrase;

const MAGIC: &[u8; 16] = b"hospes-secrets-1";
const HEADER: usize = 16 + 4 + 4 + 16 + 24;

/// An opened file of secrets.
pub struct SealedFile {
    path: PathBuf,
    cost: KdfCost,
    salt: [u8; 16],
    key: Zeroizing<[u8; 32]>,
    secrets: BTreeMap<String, Secret>,
}

impl SealedFile {
    pub(super) fn create(path: PathBuf, passphrase: &Passphrase, cost: KdfCost) -> Result<Self, KeyError> {
        if path.exists() {
            let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(KeyError::File { action: "create", path, source });
        }
        let salt = random()?;
        let key = cost.derive(passphrase, &salt)?;
        let file = Self { path, cost, salt, key, secrets: BTreeMap::new() };
        file.write()?;
        Ok(file)
    }

    pub(super) fn open(path: PathBuf, passphrase: &Passphrase) -> Result<Self, KeyError> {
        let bytes =
            std::fs::read(&path).map_err(|source| KeyError::File { action: "read", path: path.clone(), source })?;
        let damaged = || KeyError::Damaged { what: path.display().to_string() };
        let (header, sealed) = bytes.split_at_checked(HEADER).ok_or_else(damaged)?;
        if &header[..16] != MAGIC {
            return Err(damaged());
        }
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let cost = KdfCost { memory_kib: number(16), passes: number(20) };
        let salt: [u8; 16] = header[24..40].try_into().map_err(|_| damaged())?;
        let nonce: [u8; 24] = header[40..64].try_into().map_err(|_| damaged())?;
        let key = cost.derive(passphrase, &salt)?;
        let plain = XChaCha20Poly1305::new((&*key).into())
            .decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: header })
            .map(Zeroizing::new)
            .map_err(|_| KeyError::WrongPassphrase { what: path.display().to_string() })?;
        let secrets = unpack(&plain).ok_or_else(damaged)?;
        Ok(Self { path, cost, salt, key, secrets })
    }

    pub(super) fn find(&self, name: &str) -> Option<Secret> {
        self.secrets.get(name).cloned()
    }

    pub(super) fn keep(&mut self, name: &str, secret: Secret) -> Result<(), KeyError> {
        let before = self.secrets.insert(name.to_owned(), secret);
        self.write().inspect_err(|_| match before {
            Some(old) => drop(self.secrets.insert(name.to_owned(), old)),
            None => drop(self.secrets.remove(name)),
        })
    }

    pub(super) fn destroy(&mut self, name: &str) -> Result<(), KeyError> {
        let Some(before) = self.secrets.remove(name) else { return Ok(()) };
        self.write().inspect_err(|_| drop(self.secrets.insert(name.to_owned(), before)))
    }

    fn write(&self) -> Result<(), KeyError> {
        let nonce: [u8; 24] = random()?;
        let mut bytes = Vec::with_capacity(HEADER + 1024);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.cost.memory_kib.to_le_bytes());
        bytes.extend_from_slice(&self.cost.passes.to_le_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&nonce);
        let plain = pack(&self.secrets);
        let sealed = XChaCha20Poly1305::new((&*self.key).into())
            .encrypt(&XNonce::from(nonce), Payload { msg: &plain, aad: &bytes })
            .map_err(|_| KeyError::Damaged { what: "the list of secrets".into() })?;
        bytes.extend_from_slice(&sealed);
        replace(&self.path, &bytes).map_err(|source| KeyError::File {
            action: "write",
            path: self.path.clone(),
            source,
        })
    }
}

/// Writes a file so that after a crash either the old or the new one is there, whole: temporary file, fsync, rename,
/// fsync of the folder.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = folder.join(name);
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        sync_folder(folder)
    })();
    if written.is_err() {
        // The error of the write matters; a leftover part file is overwritten by the next write or swept at start.
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// Makes a rename or a removal in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

fn pack(secrets: &BTreeMap<String, Secret>) -> Zeroizing<Vec<u8>> {
    let size = secrets.iter().map(|(n, s)| n.len() + s.len() + 8).sum();
    // Reserved in full, so that growing leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    for (name, secret) in secrets {
        for part in [name.as_bytes(), secret] {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    bytes
}

fn unpack(mut bytes: &[u8]) -> Option<BTreeMap<String, Secret>> {
    let mut part = || -> Option<Option<Vec<u8>>> {
        if bytes.is_empty() {
            return Some(None);
        }
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        bytes = rest;
        Some(Some(value.to_vec()))
    };
    let mut secrets = BTreeMap::new();
    while let Some(name) = part()? {
        let secret = Zeroizing::new(part()??);
        secrets.insert(String::from_utf8(name).ok()?, secret);
    }
    Some(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(text: &str) -> Passphrase {
        Passphrase::from(text.to_owned())
    }

    #[test]
    fn secrets_survive_reopening_and_only_with_the_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let mut file = SealedFile::create(path.clone(), &pass("right horse"), KdfCost::for_tests()).unwrap();
        file.keep("data-key", Zeroizing::new(vec![7; 32])).unwrap();
        file.keep("other", Zeroizing::new(vec![])).unwrap();
        file.destroy("other").unwrap();
        let again = SealedFile::open(path.clone(), &pass("right horse")).unwrap();
        assert_eq!(again.find("data-key").unwrap().as_slice(), [7; 32]);
        assert!(again.find("other").is_none());
        assert!(matches!(SealedFile::open(path.clone(), &pass("wrong horse")), Err(KeyError::WrongPassphrase { .. })));
        assert!(SealedFile::create(path, &pass("right horse"), KdfCost::for_tests()).is_err());
    }

    #[test]
    fn every_altered_or_missing_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let mut file = SealedFile::create(path.clone(), &pass("right horse"), KdfCost::for_tests()).unwrap();
        file.keep("k", Zeroizing::new(vec![1, 2, 3])).unwrap();
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(SealedFile::open(path.clone(), &pass("right horse")).is_err(), "byte {at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(SealedFile::open(path.clone(), &pass("right horse")).is_err(), "cut at {at}");
        }
    }
}
