//! Transfers: what a permit allows to leave goes up, models come down. Both survive cuts at any byte and have no limit on
//! how long they take, only on how long nothing may move.

mod card;
mod download;
mod upload;

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hospes_protocol::id::{Digest, FederationId, JobId, RoundKey};
use hospes_protocol::limits;
use hospes_protocol::message::Upload;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::back_off::BackOff;
use super::dial::Meter;
use super::session::Line;
use super::{LinkConfig, LinkEvent};

/// Uploads at a time, and downloads; others wait. Few, so that a coordinator whose disk is slow has window left for the
/// session on the same connection.
const AT_A_TIME: usize = 2;
/// Bytes that count as movement. Heartbeats and pings of a whole stall time are fewer.
const MOVEMENT_BYTES: u64 = 8 << 10;
/// Between two reports of progress.
const REPORT: Duration = Duration::from_secs(1);

/// A transfer under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Up(RoundKey, Digest),
    Down(Digest),
    Card(JobId, Option<Digest>),
}

/// Everything that is being transferred.
pub(super) struct Transfers {
    context: Arc<Context>,
    tasks: JoinSet<()>,
    active: HashMap<Key, AbortHandle>,
}

/// What every transfer needs.
struct Context {
    config: Arc<LinkConfig>,
    events: mpsc::Sender<(FederationId, LinkEvent)>,
    line: watch::Receiver<Option<Line>>,
    up: Semaphore,
    down: Semaphore,
}

/// Why an attempt ended without success.
enum Stop {
    /// The connection broke or stood still, or the coordinator cannot at the moment: resume.
    Cut(String),
    /// No, and trying again is pointless.
    Refused(String),
    /// The engine took it back.
    Withdrawn,
}

impl Transfers {
    pub(super) fn new(
        config: Arc<LinkConfig>,
        events: mpsc::Sender<(FederationId, LinkEvent)>,
        line: watch::Receiver<Option<Line>>,
    ) -> Self {
        let context =
            Arc::new(Context { config, events, line, up: Semaphore::new(AT_A_TIME), down: Semaphore::new(AT_A_TIME) });
        Self { context, tasks: JoinSet::new(), active: HashMap::new() }
    }

    pub(super) fn upload(&mut self, upload: Upload, path: PathBuf) {
        let key = Key::Up(upload.round().clone(), upload.digest());
        if self.is_new(&key) {
            let task = self.tasks.spawn(upload::run(Arc::clone(&self.context), upload, path));
            self.active.insert(key, task);
        }
    }

    pub(super) fn withdraw(&mut self, round: RoundKey, digest: Digest) {
        self.abort(&Key::Up(round, digest));
    }

    pub(super) fn download(&mut self, digest: Digest, to: PathBuf, most_bytes: u64) {
        let key = Key::Down(digest);
        if self.is_new(&key) {
            let task = self.tasks.spawn(download::run(Arc::clone(&self.context), digest, to, most_bytes));
            self.active.insert(key, task);
        }
    }

    pub(super) fn card(&mut self, job: JobId, model: Option<Digest>) {
        let key = Key::Card(job, model);
        if self.is_new(&key) {
            let task = self.tasks.spawn(card::run(Arc::clone(&self.context), job, model));
            self.active.insert(key, task);
        }
    }

    pub(super) fn forget(&mut self, digest: Digest) {
        let of = |key: &&Key| match key {
            Key::Up(..) => false,
            Key::Down(model) => *model == digest,
            Key::Card(_, model) => *model == Some(digest),
        };
        let keys: Vec<Key> = self.active.keys().filter(of).cloned().collect();
        for key in keys {
            self.abort(&key);
        }
    }

    fn abort(&mut self, key: &Key) {
        if let Some(task) = self.active.remove(key) {
            task.abort();
        }
    }

    pub(super) fn are_idle(&self) -> bool {
        self.active.values().all(AbortHandle::is_finished)
    }

    pub(super) fn stop(&mut self) {
        self.tasks.abort_all();
        self.active.clear();
    }

    fn is_new(&mut self, key: &Key) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.active.retain(|_, task| !task.is_finished());
        !self.active.contains_key(key)
    }
}

impl Context {
    /// Waits for a session; `None` when the link ends.
    async fn line(&self) -> Option<Line> {
        let mut line = self.line.clone();
        line.wait_for(Option::is_some).await.ok()?.clone()
    }

    async fn tell(&self, event: LinkEvent) {
        // An engine that is gone asks again when it is back.
        let _ = self.events.send((self.config.federation, event)).await;
    }

    fn back_off(&self, digest: &Digest) -> BackOff {
        let timing = &self.config.timing;
        let mut seed = [0; 8];
        seed.copy_from_slice(&digest.as_bytes()[..8]);
        let seed = u64::from_le_bytes(seed) ^ self.config.jitter_seed;
        BackOff::new(timing.back_off_first, timing.back_off_longest, seed)
    }

    /// Does `work` until it is done, the session ends, or nothing moved for too long.
    async fn watched<T>(
        &self,
        line: &Line,
        patience: &Patience,
        work: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        tokio::select! {
            done = work => done,
            () = line.ended.cancelled() => Err(Stop::Cut("the session ended".into())),
            () = patience.runs_out(&line.meter) => Err(Stop::Cut("nothing moved for too long".into())),
        }
    }
}

/// How long nothing may move: less while bytes are due than while the coordinator verifies.
struct Patience {
    stall: Duration,
    verify: Duration,
    verifying: AtomicBool,
}

impl Patience {
    fn new(context: &Context) -> Self {
        let timing = &context.config.timing;
        Self { stall: timing.stall, verify: timing.verify, verifying: AtomicBool::new(false) }
    }

    /// From here on the coordinator only verifies.
    fn verifying(&self) {
        self.verifying.store(true, Ordering::Relaxed);
    }

    async fn runs_out(&self, meter: &Meter) {
        let mut mark = meter.total();
        let mut since = Instant::now();
        loop {
            tokio::time::sleep((self.stall / 20).clamp(Duration::from_millis(10), Duration::from_secs(1))).await;
            let total = meter.total();
            let limit = if self.verifying.load(Ordering::Relaxed) { self.verify } else { self.stall };
            if total.saturating_sub(mark) >= MOVEMENT_BYTES {
                (mark, since) = (total, Instant::now());
            } else if since.elapsed() >= limit {
                return;
            }
        }
    }
}

/// Reports how far a transfer is, at most once a second, and never waits for it.
struct Report<'a> {
    context: &'a Context,
    digest: Digest,
    total: u64,
    last: Instant,
}

impl<'a> Report<'a> {
    fn new(context: &'a Context, digest: Digest, total: u64) -> Self {
        Self { context, digest, total, last: Instant::now() }
    }

    fn at(&mut self, done: u64) {
        if self.last.elapsed() >= REPORT {
            self.last = Instant::now();
            let event = LinkEvent::Moved { digest: self.digest, done, total: self.total };
            let _ = self.context.events.try_send((self.context.config.federation, event));
        }
    }
}

/// Whether a status means *no* or *not now*.
fn of_status(status: &Status) -> Stop {
    let text: String = status.message().chars().filter(|c| !c.is_control()).take(limits::TEXT_CHARS).collect();
    let text = if text.is_empty() { status.code().description().to_owned() } else { text };
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Unimplemented => Stop::Refused(text),
        _ => Stop::Cut(text),
    }
}

/// SHA-256 of a prefix and a file, and the file's length, in constant memory.
async fn sha256_of_file(prefix: &'static [u8], path: PathBuf) -> io::Result<(Digest, u64)> {
    let read = move || {
        let mut file = std::fs::File::open(path)?;
        let mut hasher = Sha256::new();
        hasher.update(prefix);
        let mut block = vec![0; 1 << 16];
        let mut length = 0;
        loop {
            match file.read(&mut block)? {
                0 => return Ok((Digest::from_bytes(hasher.finalize().into()), length)),
                read => {
                    hasher.update(&block[..read]);
                    length += read as u64;
                }
            }
        }
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
