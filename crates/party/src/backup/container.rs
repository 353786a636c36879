//! The container of a backup: a passphrase becomes a key (argon2id), and what is in it is sealed in chunks, so that a
//! backup of any size goes through little memory.
//!
//! Layout: magic of 16 bytes, memory in KiB and passes (u32, little-endian), salt of 16 bytes, the nonces' first 19
//! bytes; then chunks of 64 KiB, each with its tag of 16 bytes, of which the last may be shorter. The chunks are sealed by
//! STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance,
//! 2015) over XChaCha20-Poly1305: each nonce counts its chunk and marks the last one, so that none can be left out, moved
//! or added. What stands before them is authenticated with each.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aead_stream::{DecryptorBE32, EncryptorBE32};
use chacha20poly1305::XChaCha20Poly1305;
use hospes_protocol::id::Digest;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::PartyError;
use crate::keys::{KdfCost, KeyError, random};
use crate::people::Passphrase;

const MAGIC: &[u8; 16] = b"hospes-backup-01";
/// Bytes before the first chunk.
pub(super) const HEADER: usize = 16 + 4 + 4 + 16 + NONCE;
/// First bytes of every nonce; the other five are the chunk's number and whether it is the last.
const NONCE: usize = 19;
/// Bytes of a chunk before it is sealed.
pub(super) const CHUNK: usize = 64 << 10;
/// Bytes that sealing adds to a chunk.
pub(super) const TAG: usize = 16;
/// Most memory, in KiB, and most passes that a file may cost whoever opens it: it may be hostile.
const MOST_MEMORY_KIB: u32 = 1 << 20;
const MOST_PASSES: u32 = 16;

/// What opens a container, with what stands at its beginning.
pub(super) struct Lock {
    header: [u8; HEADER],
    nonce: [u8; NONCE],
    key: Zeroizing<[u8; 32]>,
}

impl Lock {
    /// For a new container.
    pub(super) fn draw(passphrase: &Passphrase, cost: KdfCost) -> Result<Self, KeyError> {
        let (salt, nonce): ([u8; 16], [u8; NONCE]) = (random()?, random()?);
        let key = cost.derive(passphrase, &salt)?;
        let mut header = [0; HEADER];
        header[..16].copy_from_slice(MAGIC);
        header[16..20].copy_from_slice(&cost.memory_kib.to_le_bytes());
        header[20..24].copy_from_slice(&cost.passes.to_le_bytes());
        header[24..40].copy_from_slice(&salt);
        header[40..].copy_from_slice(&nonce);
        Ok(Self { header, nonce, key })
    }

    /// Of the container that begins with `header`; `None` if it is none, or costs too much.
    fn of(header: [u8; HEADER], passphrase: &Passphrase) -> Result<Option<Self>, KeyError> {
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let cost = KdfCost { memory_kib: number(16), passes: number(20) };
        if header[..16] != MAGIC[..] || cost.memory_kib > MOST_MEMORY_KIB || cost.passes > MOST_PASSES {
            return Ok(None);
        }
        let (mut salt, mut nonce) = ([0; 16], [0; NONCE]);
        salt.copy_from_slice(&header[24..40]);
        nonce.copy_from_slice(&header[40..]);
        let key = match cost.derive(passphrase, &salt) {
            // It asks for less than argon2 takes.
            Err(KeyError::Damaged { .. }) => return Ok(None),
            key => key?,
        };
        Ok(Some(Self { header, nonce, key }))
    }
}

/// Seals what is written to it.
pub(super) struct Sealer<W> {
    out: W,
    header: [u8; HEADER],
    stream: EncryptorBE32<XChaCha20Poly1305>,
    chunk: Zeroizing<Vec<u8>>,
}

impl<W: Write> Sealer<W> {
    pub(super) fn begin(mut out: W, lock: &Lock) -> io::Result<Self> {
        out.write_all(&lock.header)?;
        let stream = EncryptorBE32::<XChaCha20Poly1305>::new((&*lock.key).into(), (&lock.nonce).into());
        // Reserved in full, so that growing leaves no copies behind.
        let chunk = Zeroizing::new(Vec::with_capacity(CHUNK + TAG));
        Ok(Self { out, header: lock.header, stream, chunk })
    }

    /// Seals the last chunk; without it, nobody takes the container for whole.
    pub(super) fn finish(self) -> io::Result<W> {
        let Self { mut out, header, stream, mut chunk } = self;
        stream.encrypt_last_in_place(&header, &mut *chunk).map_err(|_| too_large())?;
        out.write_all(&chunk)?;
        out.flush()?;
        Ok(out)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk is sealed only when more follows: the last one is marked.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.stream.encrypt_next_in_place(&self.header, &mut *self.chunk).map_err(|_| too_large())?;
            self.out.write_all(&self.chunk)?;
            self.chunk.clear();
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "a backup cannot be that large")
}

/// Opens a container, chunk by chunk: it gives out nothing that was not authenticated.
pub(super) struct Opener<R> {
    from: R,
    path: PathBuf,
    header: [u8; HEADER],
    /// `None` after the last chunk.
    stream: Option<DecryptorBE32<XChaCha20Poly1305>>,
    /// The sealed chunk that follows, and of the file's bytes how many come before it.
    ahead: Vec<u8>,
    place: u64,
    plain: Zeroizing<Vec<u8>>,
    given: usize,
    hash: Sha256,
}

impl<R: Read> Opener<R> {
    /// Begins with the file at `path`, from which `from` reads.
    pub(super) fn begin(from: R, path: &Path, passphrase: &Passphrase) -> Result<Self, PartyError> {
        let mut opener = Self {
            from,
            path: path.to_owned(),
            header: [0; HEADER],
            stream: None,
            ahead: Vec::new(),
            place: 0,
            plain: Zeroizing::new(Vec::with_capacity(CHUNK + TAG)),
            given: 0,
            hash: Sha256::new(),
        };
        let begun = opener.sealed(HEADER)?;
        let header: [u8; HEADER] = begun.as_slice().try_into().map_err(|_| opener.broken(NO_BACKUP))?;
        let lock = Lock::of(header, passphrase)?.ok_or_else(|| opener.broken(NO_BACKUP))?;
        let stream = DecryptorBE32::<XChaCha20Poly1305>::new((&*lock.key).into(), (&lock.nonce).into());
        (opener.header, opener.stream) = (header, Some(stream));
        opener.place = HEADER as u64;
        opener.ahead = opener.sealed(CHUNK + TAG)?;
        Ok(opener)
    }

    /// Fills `bytes`; there must be as many.
    pub(super) fn fill(&mut self, mut bytes: &mut [u8]) -> Result<(), PartyError> {
        while !bytes.is_empty() {
            if self.given == self.plain.len() && !self.refill()? {
                return Err(self.broken("it ends too early"));
            }
            let given = bytes.len().min(self.plain.len() - self.given);
            let (now, later) = bytes.split_at_mut(given);
            now.copy_from_slice(&self.plain[self.given..self.given + given]);
            self.given += given;
            bytes = later;
        }
        Ok(())
    }

    /// Sees to it that nothing follows; the SHA-256 of the whole file.
    pub(super) fn finish(mut self) -> Result<Digest, PartyError> {
        if self.given < self.plain.len() || self.refill()? {
            return Err(self.broken("something follows on its end"));
        }
        Ok(Digest::from_bytes(self.hash.finalize().into()))
    }

    /// Opens the chunk that follows; false if there is none.
    fn refill(&mut self) -> Result<bool, PartyError> {
        let Some(mut stream) = self.stream.take() else { return Ok(false) };
        let place = self.place;
        let follows = self.sealed(CHUNK + TAG)?;
        let chunk = std::mem::replace(&mut self.ahead, follows);
        self.place = self.place.saturating_add(chunk.len() as u64);
        self.given = 0;
        self.plain.clear();
        self.plain.extend_from_slice(&chunk);
        let opened = match self.ahead.is_empty() {
            true => stream.decrypt_last_in_place(&self.header, &mut *self.plain),
            false => {
                let opened = stream.decrypt_next_in_place(&self.header, &mut *self.plain);
                self.stream = Some(stream);
                opened
            }
        };
        if opened.is_err() {
            self.plain.clear();
            self.stream = None;
            // At the first chunk nothing tells the one from the other, and nothing should.
            return Err(match place == HEADER as u64 {
                true => KeyError::WrongPassphrase { what: format!("the backup {}", self.path.display()) }.into(),
                false => self.broken(&format!("it was cut off or altered after its first {place} bytes")),
            });
        }
        // Only the last one may be empty.
        Ok(!self.plain.is_empty())
    }

    /// So many bytes of the file, or what is left of it.
    fn sealed(&mut self, most: usize) -> Result<Vec<u8>, PartyError> {
        let mut bytes = Vec::with_capacity(most);
        let read = self.from.by_ref().take(most as u64).read_to_end(&mut bytes);
        read.map_err(|error| PartyError::file("read", &self.path, error))?;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    /// What is wrong with the file.
    pub(super) fn broken(&self, reason: &str) -> PartyError {
        PartyError::Backup { path: self.path.clone(), reason: reason.to_owned() }
    }
}

/// What is said of a file that does not begin as a backup does.
const NO_BACKUP: &str = "it does not begin as a backup of this program does; it is another file, or was damaged";
