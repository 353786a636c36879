//! Checkpoints as signed notes (C2SP `tlog-checkpoint` and `signed-note`) and cosignatures (C2SP `tlog-cosignature`).
//!
//! The origin line of a party's ledger is its [`SiteId`] (the coordinator's is the federation's id), which is also the
//! name of the key; since a site id is the digest of the identity key, a note with its key says by itself whether the
//! two belong together. Reading is strict: no extension lines, canonical numbers and base64, bounded sizes.

use data_encoding::BASE64;
use hospes_protocol::id::{Digest, SiteId, Timestamp};
use hospes_protocol::sign::{PublicKey, SecretKey, Signature};
use sha2::{Digest as _, Sha256};

use crate::limits;

/// Signature type of Ed25519 over the note (C2SP `signed-note`).
const TYPE_ED25519: u8 = 0x01;
/// Signature type of a timestamped Ed25519 cosignature (C2SP `tlog-cosignature`).
const TYPE_COSIGNATURE: u8 = 0x04;
/// What begins a signature line: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// Why a note is none, or not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Larger than [`limits::NOTE_BYTES`], or too many signatures.
    #[error("the checkpoint is too large")]
    TooLarge,
    /// Not of the one form that is allowed.
    #[error("the checkpoint is not well formed: {0}")]
    Form(&'static str),
    /// It is the checkpoint of another ledger.
    #[error("the checkpoint is of ledger {found}, not of {expected}")]
    Origin {
        /// Ledger that was expected.
        expected: SiteId,
        /// Ledger that it is of.
        found: SiteId,
    },
    /// No signature of the key that should have signed holds.
    #[error("the checkpoint has no valid signature of {0}")]
    Signature(SiteId),
}

/// The state of a ledger at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose ledger.
    pub origin: SiteId,
    /// Entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Digest,
}

impl Checkpoint {
    /// The note's text: origin, size, root, one a line.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root.as_bytes()))
    }

    /// Signs the checkpoint as its origin.
    pub fn sign(self, key: &SecretKey) -> SignedCheckpoint {
        let signature = key.sign_bytes(self.text().as_bytes());
        let line = SignatureLine::new(self.origin, &key.public(), TYPE_ED25519, signature.as_bytes());
        SignedCheckpoint { checkpoint: self, lines: vec![line] }
    }

    /// Cosigns the checkpoint as a witness that found it consistent with all it saw of this ledger before.
    pub fn cosign(&self, key: &SecretKey, now: Timestamp) -> Cosignature {
        let seconds = u64::try_from(now.as_millis() / 1_000).unwrap_or(0);
        let signature = key.sign_bytes(self.cosigned_message(seconds).as_bytes());
        Cosignature { witness: key.public().site_id(), key: key.public(), seconds, signature }
    }

    /// The message under a cosignature (C2SP `tlog-cosignature`, `cosignature/v1`).
    fn cosigned_message(&self, seconds: u64) -> String {
        format!("cosignature/v1\ntime {seconds}\n{}", self.text())
    }
}

/// A witness's signature: *at this time I had seen this checkpoint, and it was consistent with all before*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// Who.
    pub witness: SiteId,
    /// Their key.
    pub key: PublicKey,
    seconds: u64,
    signature: Signature,
}

impl Cosignature {
    /// When, by the witness's clock; whole seconds.
    pub fn at(&self) -> Timestamp {
        let seconds = i64::try_from(self.seconds).unwrap_or(i64::MAX / 1_000);
        Timestamp::from_millis(seconds.saturating_mul(1_000))
    }

    /// The signature line, without its line end.
    pub fn line(&self) -> String {
        let mut body = [0u8; 72];
        body[..8].copy_from_slice(&self.seconds.to_be_bytes());
        body[8..].copy_from_slice(self.signature.as_bytes());
        SignatureLine::new(self.witness, &self.key, TYPE_COSIGNATURE, &body).text()
    }

    /// Reads a signature line and verifies that it is `key`'s cosignature of `checkpoint`.
    ///
    /// # Errors
    /// [`NoteError`] says what did not fit.
    pub fn verify(line: &str, checkpoint: &Checkpoint, key: &PublicKey) -> Result<Self, NoteError> {
        if line.len() > 512 {
            return Err(NoteError::TooLarge);
        }
        SignatureLine::read(line)?.cosignature(checkpoint, key).ok_or(NoteError::Signature(key.site_id()))
    }
}

/// A signed note: the checkpoint with every signature line under it. None of them is believed before it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    lines: Vec<SignatureLine>,
}

impl SignedCheckpoint {
    /// Reads a note strictly and verifies its origin's signature.
    ///
    /// # Errors
    /// [`NoteError`] says what did not fit; also if `origin` is another key's ledger.
    pub fn parse(note: &str, origin: &PublicKey) -> Result<Self, NoteError> {
        let signed = Self::read(note)?;
        let (expected, found) = (origin.site_id(), signed.checkpoint.origin);
        if expected != found {
            return Err(NoteError::Origin { expected, found });
        }
        if signed.lines.iter().any(|line| line.is_origins(&signed.checkpoint, origin)) {
            Ok(signed)
        } else {
            Err(NoteError::Signature(expected))
        }
    }

    /// Reads a note strictly, without believing any signature.
    ///
    /// # Errors
    /// [`NoteError`] says what did not fit.
    pub fn read(note: &str) -> Result<Self, NoteError> {
        if note.len() > limits::NOTE_BYTES {
            return Err(NoteError::TooLarge);
        }
        let form = NoteError::Form;
        let (text, signatures) = note.split_once("\n\n").ok_or(form("no empty line before the signatures"))?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(form("not three lines: origin, size, root"));
        };
        let origin = origin.parse().map_err(|_| form("the origin is no site id"))?;
        let size = canonical_number(size).ok_or(form("the size is no number"))?;
        let root =
            BASE64.decode(root.as_bytes()).ok().and_then(|b| b.try_into().ok()).ok_or(form("the root is no hash"))?;
        let checkpoint = Checkpoint { origin, size, root: Digest::from_bytes(root) };
        let signatures = signatures.strip_suffix('\n').ok_or(form("no line end after the last signature"))?;
        let mut read = Vec::new();
        for line in signatures.split('\n') {
            if read.len() == limits::NOTE_SIGNATURES {
                return Err(NoteError::TooLarge);
            }
            read.push(SignatureLine::read(line)?);
        }
        Ok(Self { checkpoint, lines: read })
    }

    /// What was signed.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note as text.
    pub fn note(&self) -> String {
        let mut note = self.checkpoint.text();
        note.push('\n');
        for line in &self.lines {
            note.push_str(&line.text());
            note.push('\n');
        }
        note
    }

    /// Adds a cosignature, in the place of an older one by the same witness.
    pub fn add(&mut self, cosignature: &Cosignature) {
        let mut body = [0u8; 72];
        body[..8].copy_from_slice(&cosignature.seconds.to_be_bytes());
        body[8..].copy_from_slice(cosignature.signature.as_bytes());
        let line = SignatureLine::new(cosignature.witness, &cosignature.key, TYPE_COSIGNATURE, &body);
        self.lines.retain(|l| (l.name, l.id) != (line.name, line.id));
        self.lines.push(line);
    }

    /// The cosignature of `witness`, if it is there and holds.
    pub fn cosigned_by(&self, witness: &PublicKey) -> Option<Cosignature> {
        self.lines.iter().find_map(|line| line.cosignature(&self.checkpoint, witness))
    }

    /// Whether every signature line is by the origin or one of these witnesses and holds, each name once.
    pub(crate) fn all_hold(&self, origin: &PublicKey, witnesses: &[PublicKey]) -> bool {
        let mut seen = std::collections::BTreeSet::new();
        self.lines.iter().all(|line| {
            let holds = line.is_origins(&self.checkpoint, origin)
                || witnesses.iter().any(|key| line.cosignature(&self.checkpoint, key).is_some());
            holds && seen.insert((line.name, line.id))
        })
    }
}

fn canonical_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// One signature line: `— name base64(key id ‖ signature)`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SignatureLine {
    name: SiteId,
    id: [u8; 4],
    body: Vec<u8>,
}

impl SignatureLine {
    fn new(name: SiteId, key: &PublicKey, kind: u8, body: &[u8]) -> Self {
        Self { name, id: key_id(name, key, kind), body: body.to_vec() }
    }

    fn read(line: &str) -> Result<Self, NoteError> {
        let form = NoteError::Form;
        let (name, encoded) = line
            .strip_prefix(DASH)
            .and_then(|rest| rest.split_once(' '))
            .ok_or(form("a signature line is not '\u{2014} name signature'"))?;
        let name = name.parse().map_err(|_| form("a signer is no site id"))?;
        let bytes = BASE64.decode(encoded.as_bytes()).map_err(|_| form("a signature is no base64"))?;
        if bytes.len() != 68 && bytes.len() != 76 {
            return Err(form("a signature has another length than Ed25519 gives"));
        }
        let mut id = [0; 4];
        id.copy_from_slice(&bytes[..4]);
        Ok(Self { name, id, body: bytes[4..].to_vec() })
    }

    fn text(&self) -> String {
        let mut bytes = self.id.to_vec();
        bytes.extend_from_slice(&self.body);
        format!("{DASH}{} {}", self.name, BASE64.encode(&bytes))
    }

    fn is(&self, key: &PublicKey, kind: u8) -> bool {
        self.name == key.site_id() && self.id == key_id(self.name, key, kind)
    }

    fn is_origins(&self, checkpoint: &Checkpoint, key: &PublicKey) -> bool {
        let Ok(signature) = <[u8; 64]>::try_from(self.body.as_slice()) else { return false };
        self.is(key, TYPE_ED25519)
            && self.name == checkpoint.origin
            && key.verifies_bytes(checkpoint.text().as_bytes(), &Signature::from_bytes(signature))
    }

    fn cosignature(&self, checkpoint: &Checkpoint, key: &PublicKey) -> Option<Cosignature> {
        let body = <[u8; 72]>::try_from(self.body.as_slice()).ok()?;
        let (mut seconds, mut signature) = ([0; 8], [0; 64]);
        seconds.copy_from_slice(&body[..8]);
        signature.copy_from_slice(&body[8..]);
        let (seconds, signature) = (u64::from_be_bytes(seconds), Signature::from_bytes(signature));
        // A time past the year 9999 has no use and would overflow milliseconds.
        let holds = self.is(key, TYPE_COSIGNATURE)
            && seconds < 253_402_300_800
            && key.verifies_bytes(checkpoint.cosigned_message(seconds).as_bytes(), &signature);
        holds.then_some(Cosignature { witness: self.name, key: *key, seconds, signature })
    }
}

/// First four bytes of SHA-256(name ‖ 0x0A ‖ type ‖ public key) (C2SP `signed-note`).
fn key_id(name: SiteId, key: &PublicKey, kind: u8) -> [u8; 4] {
    let mut hash = Sha256::new();
    hash.update(name.to_string().as_bytes());
    hash.update([b'\n', kind]);
    hash.update(key.as_bytes());
    let full: [u8; 32] = hash.finalize().into();
    [full[0], full[1], full[2], full[3]]
}
