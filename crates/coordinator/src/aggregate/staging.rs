//! Uploads as durable, resumable files, named by round, site and digest.
//!
//! A payload grows in a `.part` file. When length, digest and content are right, it is synchronised, gets its final
//! name, and the folder is synchronised: a file with a final name is complete, whatever crashes. What lies in the
//! folder under a round that nobody runs any more is swept away at start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hospes_protocol::id::{Digest, RoundKey, SiteId, StudyId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::message::UploadKind;
use hospes_protocol::round::RoundHeader;
use sha2::{Digest as _, Sha256};

use super::content::{self, Content};
use crate::seam::{Moment, Seam};
use crate::{Clock, Error};

/// Bytes that stay free beside what a round needs, for database and logs.
pub const DISK_MARGIN_BYTES: u64 = 64 << 20;
/// Buffer for reading files again.
const BUFFER_BYTES: usize = 1 << 20;
/// What the seam calls these files.
const FILE: &str = "upload";

/// Free bytes of the file system under a path; an argument, so that tests can fill the disk.
pub type FreeSpace = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// What the file system says.
pub fn free_space() -> FreeSpace {
    Arc::new(|path| {
        let found = rustix::fs::statvfs(path).map_err(io::Error::from)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    })
}

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
    /// Everything is there and verified; [`Staging::begin`] and [`Incoming::finish`] give what the receipt needs.
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
    /// What was there of it was damaged here, by a power cut or a disk; send it again from its beginning.
    #[error(
        "what the coordinator had of this upload was damaged on its disk; it is to be sent again from its beginning"
    )]
    Anew,
    /// Another connection goes on with this upload.
    #[error("another connection of this site goes on with this upload")]
    TakenOver,
    /// There is no space; try again later.
    #[error("the coordinator has no space for this upload now")]
    NoSpace,
    /// The file could not be written.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// A complete, verified and durable payload. [`Incoming::finish`] and a start of the coordinator make one, and
/// [`Staging::confirmed`] for one that the store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A round for which uploads are taken.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Round.
    pub round: RoundKey,
    /// Study.
    pub study: StudyId,
    /// Sites that may send.
    pub members: BTreeSet<SiteId>,
    /// What they must send.
    pub content: Content,
}

impl Wanted {
    /// What a round asks for: an update in the header's layout, or these figures.
    pub fn new(header: &RoundHeader, figures: Vec<hospes_protocol::plan::Figure>) -> Self {
        let content = if header.tensors.is_empty() {
            Content::Figures(figures)
        } else {
            Content::Update { parameters: header.parameters(), quantise: header.quantise.clone() }
        };
        Self { round: header.key(), study: header.study, members: header.asked().collect(), content }
    }

    /// The same for updates, or figures, that are masked, in this layout.
    #[must_use]
    pub fn masked(self, layout: hospes_privacy::secagg::Layout, kind: UploadKind) -> Self {
        Self { content: Content::Masked(layout, kind), ..self }
    }
}

/// All uploads of this coordinator. Clones share the state.
#[derive(Clone)]
pub struct Staging {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    free: FreeSpace,
    clock: Clock,
    /// Held for moments only, by threads that serve connections: nobody waits or works on files under it.
    rounds: Mutex<BTreeMap<RoundKey, Open>>,
    seam: Seam,
}

struct Open {
    wanted: Wanted,
    slots: BTreeMap<SiteId, Slot>,
}

#[derive(Clone)]
struct Slot {
    digest: Digest,
    complete: bool,
    heard: Timestamp,
    /// Whether it was begun anew because what was there of it was damaged.
    is_anew: bool,
    pen: Arc<Pen>,
}

/// Who may write what one site sends for one round.
#[derive(Default)]
struct Pen {
    /// Number of the connection that may write.
    tenure: AtomicU64,
    /// Held while one works on the files.
    files: Mutex<()>,
    /// Parts of uploads that were given up for another, to be deleted by the next one that works on the files.
    stale: Mutex<BTreeSet<PathBuf>>,
}

impl Pen {
    /// Takes the pen from whoever has it.
    fn take(&self) -> u64 {
        self.tenure.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn is_held(&self, tenure: u64) -> Result<(), Refused> {
        if self.tenure.load(Ordering::SeqCst) == tenure { Ok(()) } else { Err(Refused::TakenOver) }
    }

    /// Deletes what was given up, except this part.
    fn clear(&self, except: &Path) -> Result<(), Refused> {
        let stale = std::mem::take(&mut *locked(&self.stale));
        let mut left = stale.iter().filter(|path| *path != except);
        Ok(left.try_for_each(|path| remove(path))?)
    }
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging").field("root", &self.inner.root).finish_non_exhaustive()
    }
}

/// A thread that panicked while it held the lock left nothing half done: all changes are single assignments.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Staging {
    /// Staging under this folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be made.
    pub fn new(root: PathBuf, free: FreeSpace, clock: Clock) -> Result<Self, Error> {
        Self::held(root, free, clock, Seam::default())
    }

    /// The same in the hands of whoever holds the seam.
    pub(crate) fn held(root: PathBuf, free: FreeSpace, clock: Clock, seam: Seam) -> Result<Self, Error> {
        fs::create_dir_all(&root).map_err(Error::file("make the folder", &root))?;
        Ok(Self { inner: Arc::new(Inner { root, free, clock, rounds: Mutex::default(), seam }) })
    }

    /// Whether a round has the space it needs: (n + 4)·M, and a margin.
    ///
    /// # Units
    /// `payload_bytes` is M, the length of one payload.
    ///
    /// # Errors
    /// [`Error::File`] if the file system does not say.
    pub fn has_room(&self, sites: usize, payload_bytes: u64) -> Result<bool, Error> {
        let free =
            (self.inner.free)(&self.inner.root).map_err(Error::file("ask for the space under", &self.inner.root))?;
        Ok(free >= (sites as u64 + 4).saturating_mul(payload_bytes).saturating_add(DISK_MARGIN_BYTES))
    }

    /// Takes uploads for a round from now on; says which of its payloads are complete already, from before a restart.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be read.
    pub fn open(&self, wanted: Wanted) -> Result<Vec<StagedUpload>, Error> {
        let mut found = BTreeMap::new();
        let mut complete = Vec::new();
        let prefix = prefix(&wanted.round);
        for (name, path) in self.inner.files()? {
            let Some((site, digest)) = name.strip_prefix(&prefix).and_then(parse_name) else { continue };
            if !wanted.members.contains(&site) {
                continue;
            }
            let length = fs::metadata(&path).map_err(Error::file("read", &path))?.len();
            let (heard, pen) = ((self.inner.clock)(), Arc::default());
            let slot = Slot { digest, complete: true, heard, is_anew: false, pen };
            found.insert(site, slot);
            let (kind, study, round) = (wanted.content.kind(), wanted.study, wanted.round.clone());
            complete.push(StagedUpload { request: UploadRequest { site, kind, study, round, digest, length }, path });
        }
        complete.sort_by_key(|upload| upload.request.site);
        // A round that is open already keeps its uploads, and their connections their places.
        let mut rounds = locked(&self.inner.rounds);
        let mut slots = rounds.remove(&wanted.round).map(|open| open.slots).unwrap_or_default();
        slots.extend(found);
        rounds.insert(wanted.round.clone(), Open { wanted, slots });
        Ok(complete)
    }

    /// Takes no more uploads for a round; what was staged stays.
    pub fn close(&self, round: &RoundKey) {
        locked(&self.inner.rounds).remove(round);
    }

    /// An upload of a round that is over and that the store says was confirmed, so that its receipt can be given again.
    pub fn confirmed(&self, request: UploadRequest) -> StagedUpload {
        let path = self.path(&request.round, request.site, request.digest);
        StagedUpload { request, path }
    }

    /// Deletes what was staged for a round.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be deleted.
    pub fn discard(&self, round: &RoundKey) -> Result<(), Error> {
        self.close(round);
        let prefix = prefix(round);
        for (_, path) in self.inner.files()?.into_iter().filter(|(name, _)| name.starts_with(&prefix)) {
            remove(&path)?;
        }
        Ok(())
    }

    /// Deletes everything that belongs to none of these rounds.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be deleted.
    pub fn sweep<'a>(&self, keep: impl IntoIterator<Item = &'a RoundKey>) -> Result<(), Error> {
        let keep: Vec<String> = keep.into_iter().map(prefix).collect();
        for (name, path) in self.inner.files()? {
            if !keep.iter().any(|prefix| name.starts_with(prefix)) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Whether a payload that a start found is still what its name says. One that is not is deleted, and its site sends it
    /// again.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read or deleted.
    pub async fn recheck(&self, upload: &StagedUpload) -> Result<bool, Error> {
        let (inner, path, request) = (self.inner.clone(), upload.path.clone(), upload.request.clone());
        let work = move || -> Result<bool, Error> {
            if digest_of(&path)? == request.digest {
                return Ok(true);
            }
            if let Some(open) = locked(&inner.rounds).get_mut(&request.round) {
                open.slots.remove(&request.site);
            }
            remove(&path)?;
            Ok(false)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Stopping))
    }

    /// When bytes of each site last arrived in a round; a sign of work like any other.
    pub fn heard(&self, round: &RoundKey) -> Vec<(SiteId, Timestamp)> {
        let rounds = locked(&self.inner.rounds);
        rounds.get(round).map(|open| open.slots.iter().map(|(s, slot)| (*s, slot.heard)).collect()).unwrap_or_default()
    }

    /// Where a complete payload of a round lies.
    pub fn path(&self, round: &RoundKey, site: SiteId, digest: Digest) -> PathBuf {
        self.inner.root.join(format!("{}{site}-{digest}", prefix(round)))
    }

    /// How much of an upload is durable.
    ///
    /// # Errors
    /// [`Refused`] if nothing of it is wanted.
    pub async fn status(&self, request: &UploadRequest) -> Result<Standing, Refused> {
        if self.inner.slot(request, false)?.is_some_and(|slot| slot.complete) {
            return Ok(Standing::Complete);
        }
        let part = part(&self.path(&request.round, request.site, request.digest));
        blocking(move || match File::open(&part) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Standing::Offset(0)),
            Err(e) => Err(failed("open", &part)(e)),
            Ok(file) => {
                file.sync_all().map_err(failed("synchronise", &part))?;
                Ok(Standing::Offset(file.metadata().map_err(failed("read", &part))?.len()))
            }
        })
        .await
    }

    /// Goes on with an upload where it is. A second connection for the same upload takes over from the first.
    ///
    /// # Errors
    /// [`Refused`] if nothing of it is wanted.
    pub async fn begin(&self, request: UploadRequest) -> Result<Incoming, Refused> {
        // `slot` with `true` always gives one; an upload without would be one that nobody wants.
        let slot = self.inner.slot(&request, true)?.ok_or_else(|| Refused::Over("nothing is wanted".to_owned()))?;
        let path = self.path(&request.round, request.site, request.digest);
        let inner = self.inner.clone();
        if slot.complete {
            return Ok(Incoming { inner, request, path, slot, tenure: 0, state: None });
        }
        let tenure = slot.pen.take();
        let (free, root, length) = (inner.free.clone(), inner.root.clone(), request.length);
        let (part, pen, whole) = (part(&path), slot.pen.clone(), path.clone());
        let state = blocking(move || {
            let _files = locked(&pen.files);
            pen.is_held(tenure)?;
            pen.clear(&part)?;
            // The connection before this one may have come to its end in the meantime.
            if whole.exists() {
                return Ok(None);
            }
            let state = State::open(&part, length, &|| pen.is_held(tenure))?;
            let left = free(&root).map_err(failed("ask for the space under", &root))?;
            if left < (length - state.offset).saturating_add(DISK_MARGIN_BYTES / 4) {
                return Err(Refused::NoSpace);
            }
            Ok(Some(state))
        })
        .await?;
        let slot = Slot { complete: state.is_none(), ..slot };
        Ok(Incoming { inner, request, path, slot, tenure, state })
    }
}

impl Inner {
    /// The slot of an upload that is wanted; made if `make`, in place of an unfinished one for other bytes.
    fn slot(&self, request: &UploadRequest, make: bool) -> Result<Option<Slot>, Refused> {
        let mut rounds = locked(&self.rounds);
        let Some(open) = rounds.get_mut(&request.round) else {
            return Err(Refused::Over("the round is not open, or over".to_owned()));
        };
        let wanted = &open.wanted;
        if !wanted.members.contains(&request.site) {
            return Err(Refused::Over("this site is not asked in this round".to_owned()));
        }
        if wanted.study != request.study {
            return Err(Refused::Wrong("the round belongs to another study".to_owned()));
        }
        wanted.content.check_announced(request.kind, request.length).map_err(Refused::Wrong)?;
        let pen = match open.slots.get(&request.site) {
            Some(slot) if slot.digest == request.digest => return Ok(Some(slot.clone())),
            Some(slot) if slot.complete => {
                return Err(Refused::Over("another payload of this site is complete for this round".to_owned()));
            }
            Some(slot) if make => {
                // One unfinished upload per site and round bounds the disk; the connection that wrote it finds itself
                // taken over.
                slot.pen.take();
                let old = format!("{}{}-{}", prefix(&request.round), request.site, slot.digest);
                locked(&slot.pen.stale).insert(part(&self.root.join(old)));
                slot.pen.clone()
            }
            _ if make => Arc::default(),
            _ => return Ok(None),
        };
        let heard = (self.clock)();
        let slot = Slot { digest: request.digest, complete: false, heard, is_anew: false, pen };
        open.slots.insert(request.site, slot.clone());
        Ok(Some(slot))
    }

    /// Notes that bytes arrived, or that they are complete.
    fn touch(&self, request: &UploadRequest, complete: bool) -> Result<(), Refused> {
        let now = (self.clock)();
        let mut rounds = locked(&self.rounds);
        let over = || Refused::Over("the round is over".to_owned());
        let slot =
            rounds.get_mut(&request.round).and_then(|open| open.slots.get_mut(&request.site)).ok_or_else(over)?;
        if slot.digest != request.digest {
            return Err(Refused::TakenOver);
        }
        slot.heard = now;
        slot.complete |= complete;
        Ok(())
    }

    /// Whether an upload that became something else than was announced may be begun anew: once.
    fn begins_anew(&self, request: &UploadRequest) -> bool {
        let mut rounds = locked(&self.rounds);
        let slot = rounds.get_mut(&request.round).and_then(|open| open.slots.get_mut(&request.site));
        slot.is_some_and(|slot| slot.digest == request.digest && !std::mem::replace(&mut slot.is_anew, true))
    }

    /// Names and paths of all files.
    fn files(&self) -> Result<Vec<(String, PathBuf)>, Error> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(Error::file("list", &self.root))? {
            let entry = entry.map_err(Error::file("list", &self.root))?;
            if let Ok(name) = entry.file_name().into_string() {
                files.push((name, entry.path()));
            }
        }
        Ok(files)
    }
}

/// Where an upload that is under way stands.
struct State {
    file: File,
    hash: Sha256,
    offset: u64,
    /// Whether the beginning of it was there before. After a power cut a file can be longer than what was written, and what
    /// follows is not what the site sent.
    is_resumed: bool,
}

impl State {
    /// Opens a part and reads what is there, as long as `goes_on`.
    fn open(part: &Path, length: u64, goes_on: &dyn Fn() -> Result<(), Refused>) -> Result<Self, Refused> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(part)
            .map_err(failed("open", part))?;
        let mut offset = file.metadata().map_err(failed("read", part))?.len();
        if offset > length {
            file.set_len(0).map_err(failed("shorten", part))?;
            offset = 0;
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0u8; BUFFER_BYTES.min(usize::try_from(offset).unwrap_or(BUFFER_BYTES))];
        let mut left = offset;
        while left > 0 {
            goes_on()?;
            let take = buffer.len().min(usize::try_from(left).unwrap_or(buffer.len()));
            file.read_exact(&mut buffer[..take]).map_err(failed("read", part))?;
            hash.update(&buffer[..take]);
            left -= take as u64;
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed("seek in", part))?;
        Ok(Self { file, hash, offset, is_resumed: offset > 0 })
    }
}

/// An upload on its way in.
pub struct Incoming {
    inner: Arc<Inner>,
    request: UploadRequest,
    path: PathBuf,
    slot: Slot,
    tenure: u64,
    /// `None` if the payload was complete before, or a call was cut off in the middle.
    state: Option<State>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("request", &self.request).field("offset", &self.offset()).finish()
    }
}

impl Incoming {
    /// Bytes that are there; where the next chunk must start.
    pub fn offset(&self) -> u64 {
        self.state.as_ref().map_or(self.request.length, |state| state.offset)
    }

    /// Takes one chunk, at most [`limits::CHUNK_BYTES`] long.
    ///
    /// # Errors
    /// [`Refused`]; what came before stays and can be resumed, unless it is [`Refused::Wrong`].
    pub async fn append(&mut self, offset: u64, data: Bytes, blake3: [u8; 32]) -> Result<(), Refused> {
        let expected = self.offset();
        let end = offset.saturating_add(data.len() as u64);
        if offset != expected {
            return Err(Refused::Offset { expected, got: offset });
        }
        if data.is_empty() || data.len() > limits::CHUNK_BYTES || end > self.request.length {
            return Err(Refused::Wrong(format!(
                "a chunk must have 1 to {} bytes and end within the announced {}",
                limits::CHUNK_BYTES,
                self.request.length
            )));
        }
        self.inner.touch(&self.request, false)?;
        let Some(mut state) = self.state.take() else { return Err(Refused::TakenOver) };
        let (pen, tenure, part) = (self.slot.pen.clone(), self.tenure, part(&self.path));
        let (state, result) = blocking(move || {
            let files = locked(&pen.files);
            let result = pen.is_held(tenure).and_then(|()| write_chunk(&mut state, &data, blake3, &part));
            drop(files);
            Ok((state, result))
        })
        .await?;
        self.state = Some(state);
        result
    }

    /// Checks length, digest and content, and makes it durable.
    ///
    /// # Errors
    /// [`Refused`]; after [`Refused::Wrong`] and [`Refused::Anew`] nothing of it is left.
    pub async fn finish(mut self) -> Result<StagedUpload, Refused> {
        let staged = StagedUpload { request: self.request.clone(), path: self.path.clone() };
        let Some(state) = self.state.take() else {
            return if self.slot.complete { Ok(staged) } else { Err(Refused::TakenOver) };
        };
        if state.offset != self.request.length {
            return Err(Refused::Offset { expected: self.request.length, got: state.offset });
        }
        let wanted = locked(&self.inner.rounds).get(&self.request.round).map(|open| open.wanted.content.clone());
        let Some(wanted) = wanted else { return Err(Refused::Over("the round is over".to_owned())) };
        let Self { inner, request, path, slot, tenure, .. } = self;
        // With its mark, so that the one is not without the other when nobody waits for the end any more.
        blocking(move || {
            let _files = locked(&slot.pen.files);
            slot.pen.is_held(tenure)?;
            complete(state, &wanted, &request, &path, &inner)?;
            inner.touch(&request, true)
        })
        .await?;
        Ok(staged)
    }
}

fn write_chunk(state: &mut State, data: &[u8], hash: [u8; 32], part: &Path) -> Result<(), Refused> {
    // blake3::Hash compares in constant time; nothing here is secret, but nothing is gained by less.
    if blake3::hash(data) != hash {
        return Err(Refused::Damaged(state.offset));
    }
    if let Err(e) = state.file.write_all(data) {
        // A part of the chunk may be there; the file must not be longer than what was hashed.
        let undone = state.file.set_len(state.offset).and_then(|()| state.file.seek(SeekFrom::Start(state.offset)));
        undone.map_err(failed("shorten", part))?;
        return Err(failed("write", part)(e));
    }
    state.hash.update(data);
    state.offset += data.len() as u64;
    Ok(())
}

/// Verifies a payload that is all there and gives it its final name, durably.
fn complete(
    state: State,
    wanted: &Content,
    request: &UploadRequest,
    path: &Path,
    inner: &Inner,
) -> Result<(), Refused> {
    let (part, root, seam) = (part(path), &inner.root, &inner.seam);
    let found = Digest::from_bytes(state.hash.finalize().into());
    if found != request.digest && state.is_resumed && inner.begins_anew(request) {
        remove(&part)?;
        return Err(Refused::Anew);
    }
    let checked = if found == request.digest {
        content::check(wanted, &part)?
    } else {
        Err("the payload does not have the digest that was announced".to_owned())
    };
    if let Err(reason) = checked {
        remove(&part)?;
        return Err(Refused::Wrong(reason));
    }
    seam.meet_file(FILE, Moment::Written)?;
    state.file.sync_all().map_err(failed("synchronise", &part))?;
    seam.meet_file(FILE, Moment::Durable)?;
    fs::rename(&part, path).map_err(failed("name", path))?;
    File::open(root).and_then(|folder| folder.sync_all()).map_err(failed("synchronise", root))?;
    Ok(seam.meet_file(FILE, Moment::Named)?)
}

/// SHA-256 of a file.
pub(super) fn digest_of(path: &Path) -> Result<Digest, Error> {
    let mut file = File::open(path).map_err(Error::file("open", path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0u8; BUFFER_BYTES]);
    loop {
        match file.read(&mut buffer).map_err(Error::file("read", path))? {
            0 => return Ok(Digest::from_bytes(hash.finalize().into())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// Runs file work away from the threads that serve connections.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refused> + Send + 'static) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Refused::Failed(Error::Stopping)))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Refused {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refused::NoSpace,
        _ => Refused::Failed(Error::File { operation, path, source }),
    }
}

/// Deletes a file that may be gone already.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("delete", path)(e)),
        _ => Ok(()),
    }
}

/// First part of the names of a round's files. A round's own name may be too long for a file.
fn prefix(round: &RoundKey) -> String {
    let digest = Digest::of(round.to_string().as_bytes()).to_string();
    format!("{}-", &digest[..32])
}

fn parse_name(rest: &str) -> Option<(SiteId, Digest)> {
    let (site, digest) = rest.split_once('-')?;
    Some((site.parse().ok()?, digest.parse().ok()?))
}

fn part(path: &Path) -> PathBuf {
    path.with_extension("part")
}

#[cfg(test)]
#[path = "staging_tests.rs"]
mod tests;
