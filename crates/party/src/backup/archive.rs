//! What a backup holds, inside its container: one record after the other, each with its kind, name and length.
//!
//! A record is its kind (u8), the length of its name (u16), the name, the length of its content (u64, all little-endian)
//! and the content. They come in the order of [`Kind`], the manifest and the database once, and an empty record ends
//! them. Whoever reads them believes none of their numbers: a record is at most as long as the file, and a name is no
//! path but of a closed form, from which this program makes the path itself.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write};
use std::path::Path;

use hospes_protocol::id::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::container::Opener;
use crate::error::PartyError;
use crate::people::Passphrase;

/// Longest name of a record.
const NAME_BYTES: u16 = 256;
/// Bytes that are copied at once.
const BLOCK: usize = 64 << 10;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// What the backup is ([`Manifest`]), without a name.
    Manifest = 1,
    /// A secret of the vault, by its name there.
    Secret = 2,
    /// The database, without a name.
    Database = 3,
    /// The encrypted file of a snapshot, by the digest that names it.
    Snapshot = 4,
    /// Nothing more follows.
    End = 5,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Manifest, Self::Secret, Self::Database, Self::Snapshot, Self::End].into_iter().find(|k| *k as u8 == byte)
    }
}

/// What a backup is; it is read before anything else.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Program that made it.
    pub(super) software: String,
    /// Schema of its database.
    pub(super) schema: u32,
    /// When it was made, by the site's clock.
    pub(super) made: Timestamp,
    /// Entries of the audit log in it, and their root.
    pub(super) entries: u64,
    pub(super) root: Digest,
}

/// Writes a record whose content is in memory.
pub(super) fn put(out: &mut impl Write, kind: Kind, name: &str, content: &[u8]) -> io::Result<()> {
    begin(out, kind, name, content.len() as u64)?;
    out.write_all(content)
}

/// Writes a record whose content is a file.
pub(super) fn put_file(out: &mut impl Write, kind: Kind, name: &str, file: &mut File) -> io::Result<()> {
    let bytes = file.metadata()?.len();
    begin(out, kind, name, bytes)?;
    let copied = io::copy(&mut file.take(bytes), out)?;
    if copied < bytes { Err(io::Error::other("a file became shorter while it was read")) } else { Ok(()) }
}

/// Writes the last record.
pub(super) fn end(out: &mut impl Write) -> io::Result<()> {
    begin(out, Kind::End, "", 0)
}

fn begin(out: &mut impl Write, kind: Kind, name: &str, bytes: u64) -> io::Result<()> {
    let length = u16::try_from(name.len()).ok().filter(|length| *length <= NAME_BYTES);
    let length = length.ok_or(io::ErrorKind::InvalidInput)?;
    out.write_all(&[kind as u8])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(name.as_bytes())?;
    out.write_all(&bytes.to_le_bytes())
}

/// The records of a backup, as they come.
pub(super) struct Archive {
    opener: Opener<BufReader<File>>,
    /// Bytes of the whole file: nothing in it can be longer.
    bytes: u64,
    last: Option<Kind>,
}

/// A record whose content comes next.
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) name: String,
    bytes: u64,
}

impl Archive {
    pub(super) fn open(path: &Path, passphrase: &Passphrase) -> Result<Self, PartyError> {
        let fail = |error| PartyError::file("read", path, error);
        let file = File::open(path).map_err(fail)?;
        let bytes = file.metadata().map_err(fail)?.len();
        Ok(Self { opener: Opener::begin(BufReader::new(file), path, passphrase)?, bytes, last: None })
    }

    /// The record that follows; its content must be taken before the next one.
    pub(super) fn follows(&mut self) -> Result<Record, PartyError> {
        let mut kind = [0; 1];
        self.opener.fill(&mut kind)?;
        let kind =
            Kind::of(kind[0]).ok_or_else(|| self.broken("it holds something that this program does not know"))?;
        let is_in_order = match self.last {
            None => kind == Kind::Manifest,
            Some(last @ (Kind::Secret | Kind::Snapshot)) => kind >= last,
            Some(last) => kind > last,
        };
        if !is_in_order {
            return Err(self.broken("its parts are not in order"));
        }
        self.last = Some(kind);
        let mut length = [0; 2];
        self.opener.fill(&mut length)?;
        let length = u16::from_le_bytes(length);
        if length > NAME_BYTES {
            return Err(self.broken("a part of it has too long a name"));
        }
        let mut name = vec![0; usize::from(length)];
        self.opener.fill(&mut name)?;
        let name = String::from_utf8(name).map_err(|_| self.broken("a part of it has a name that is no text"))?;
        let mut bytes = [0; 8];
        self.opener.fill(&mut bytes)?;
        let bytes = u64::from_le_bytes(bytes);
        if bytes > self.bytes {
            return Err(self.broken("a part of it says that it is longer than the file"));
        }
        Ok(Record { kind, name, bytes })
    }

    /// The content of a short record.
    pub(super) fn bytes(&mut self, record: &Record, most: u64) -> Result<Zeroizing<Vec<u8>>, PartyError> {
        let length = usize::try_from(record.bytes).ok().filter(|_| record.bytes <= most);
        let length = length.ok_or_else(|| self.broken("a part of it is longer than such a part can be"))?;
        let mut content = Zeroizing::new(vec![0; length]);
        self.opener.fill(&mut content)?;
        Ok(content)
    }

    /// Writes the content to a new file that nobody else can read, durably; its SHA-256 and length.
    pub(super) fn extract(&mut self, record: &Record, path: &Path) -> Result<(Digest, u64), PartyError> {
        let fail = |error| PartyError::file("write", path, error);
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(fail)?;
        let mut hash = Sha256::new();
        let mut block = vec![0; BLOCK];
        let mut left = record.bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            let part = &mut block[..length];
            self.opener.fill(part)?;
            hash.update(&*part);
            file.write_all(part).map_err(fail)?;
            left -= length as u64;
        }
        file.sync_all().map_err(fail)?;
        Ok((Digest::from_bytes(hash.finalize().into()), record.bytes))
    }

    /// Sees to it that nothing follows on the last record; the SHA-256 of the whole file.
    pub(super) fn finish(self) -> Result<Digest, PartyError> {
        self.opener.finish()
    }

    /// What is wrong with the file.
    pub(super) fn broken(&self, reason: &str) -> PartyError {
        self.opener.broken(reason)
    }
}
