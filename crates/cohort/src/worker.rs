//! The child process in which rows are computed on: one order comes in, events go out, then it ends.
//!
//! The parent starts its own binary with the hidden argument `worker`, writes one [`Order`] to its standard input and
//! reads [`Event`]s from its standard output. The child does not believe that it is allowed to: it mints its own permit
//! from approval and circumstances. Drivers may crash and threads cannot be killed; a child can.

use std::io::{self, Read, Write};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use hospes_privacy::figures;
use hospes_protocol::approval::{Approval, Circumstances, Opening, Refusal, SnapshotFacts, VersionFacts};
use hospes_protocol::canon::{self, Canonical};
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId, Timestamp};
use hospes_protocol::message::{FigureSet, UploadKind};
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::round::RoundHeader;
use hospes_protocol::text::shown;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::attack::Attack;
use crate::cohort::{Cohort, Released, ReportView, Round, TrainingView};
use crate::device::Place;
use crate::error::{CohortError, Outward};
use crate::opt_out::OptOuts;
use crate::preview::Preview;
use crate::snapshot::{Partial, Snapshot, SnapshotDocument, SnapshotKey};
use crate::train::{self, Progress, Pulse};

mod prediction;

pub use prediction::{PredictionEvent, PredictionOrder, predict, run_prediction};

/// Environment of a worker's process: the allocator of glibc gives large blocks back to the system as soon as they are
/// free, and every tensor of the next step is made of new pages. A worker keeps what it has; it ends with its work.
/// 32 MiB are the most that the allocator takes.
pub const ENVIRONMENT: [(&str, &str); 3] =
    [("MALLOC_MMAP_THRESHOLD_", "33554432"), ("MALLOC_TRIM_THRESHOLD_", "4294967296"), ("MALLOC_TOP_PAD_", "67108864")];
/// Longest order: mostly the opt-out list, 16 bytes a person.
pub const ORDER_BYTES: usize = 256 << 20;
/// Longest event: a local view has a few thousand numbers.
pub const EVENT_BYTES: usize = 4 << 20;
/// Characters of what a driver says.
const REASON_CHARS: usize = 500;
/// Longest model file.
pub const MODEL_BYTES: u64 = hospes_protocol::limits::OBJECT_BYTES;

/// What a child is to do. `Debug` shows neither keys nor people.
#[derive(Debug, Clone)]
pub struct Order {
    /// The approval; the child asks it for a permit itself.
    pub approval: Approval,
    /// Whether it is a dry run: the permit is one with which nothing leaves, the round starts from the model that the plan
    /// begins with, no payload is written, and the people of the site are told what would be in it.
    pub dry: bool,
    /// Whether attacks on an update are tried in a dry run, too.
    pub attack: bool,
    /// Everything that the permit depends on.
    pub circumstances: Circumstances,
    /// This site.
    pub site: SiteId,
    /// The snapshot's document.
    pub snapshot: Canonical<SnapshotDocument>,
    /// The snapshot's file.
    pub snapshot_path: PathBuf,
    /// The key that opens it.
    pub key: SnapshotKey,
    /// The site's opt-out list as of now.
    pub opt_outs: OptOuts,
    /// The model file that the round's header names, for tasks that need one. A dry run needs none.
    pub model_path: Option<PathBuf>,
    /// Where the payload goes: a file in the outbox's folder that does not exist yet. Nothing is written to it in a dry run.
    pub payload_path: PathBuf,
    /// What the site kept from an earlier round of the task that trains the model, if it kept anything.
    pub state_in: Option<PathBuf>,
    /// Where what it keeps from this round goes, if the task's strategy keeps anything: a file that does not exist yet.
    pub state_out: Option<PathBuf>,
    /// Where networks compute.
    pub place: Place,
    /// Percent of the time in which it computes; it rests between its steps for the remainder.
    pub share: u8,
}

/// The form in which an order goes through the pipe.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderOnTheWire {
    version: u32,
    approval: Approval,
    dry: bool,
    attack: bool,
    circumstances: Circumstances,
    site: SiteId,
    snapshot: Canonical<SnapshotDocument>,
    snapshot_path: PathBuf,
    #[serde(with = "serde_bytes")]
    key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    opt_outs: Vec<u8>,
    model_path: Option<PathBuf>,
    payload_path: PathBuf,
    state_in: Option<PathBuf>,
    state_out: Option<PathBuf>,
    place: Place,
    share: u8,
}

/// Version of the pipe's format. Parent and child are one binary; another version means that it was replaced meanwhile.
const VERSION: u32 = 6;

/// What a child says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// Work goes on.
    Progress(Progress),
    /// The payload is durable; nothing more comes.
    Done(Box<Done>),
    /// No permit; nothing more comes.
    Refused(Refusal),
    /// It failed; nothing more comes.
    Failed(Failure),
    /// The card failed that it computed on, and nothing was made; nothing more comes.
    DeviceFailed(DeviceFailure),
}

/// Why a card failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFailure {
    /// In the driver's words.
    pub reason: String,
    /// Whether its memory was too small, as it will not be for fewer rows at once.
    pub out_of_memory: bool,
}

impl DeviceFailure {
    /// What a card or its driver said.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn new(reason: &str) -> Self {
        // Words of wgpu, and of the memory management on top of it.
        const FULL: &[&str] =
            &["out of memory", "out-of-memory", "out of device memory", "can't allocate", "exceeds the max"];
        let lower = reason.to_lowercase();
        // The first cause tells most; drivers wrap it in sentences of their own.
        let words: Vec<&str> = reason.rsplit("Caused by:").next().unwrap_or(reason).split_whitespace().collect();
        Self {
            reason: shown(&words.join(" "), REASON_CHARS),
            out_of_memory: FULL.iter().any(|words| lower.contains(words)),
        }
    }
}

/// A payload that was made durable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// The round it is for.
    pub round: RoundKey,
    /// What it is.
    pub kind: UploadKind,
    /// SHA-256 of the payload file.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// Figures that are withheld, with their rules.
    pub withheld: std::collections::BTreeMap<String, String>,
    /// What noise was added to, of an update with differential privacy.
    pub released: Option<Released>,
    /// For the site's own screen; does not leave.
    pub view: LocalView,
    /// Quality of the network that was trained here alone, on the rows that an evaluation judged another on, where it came
    /// with one; for the site's own screen, too.
    pub alone: Option<Box<ReportView>>,
    /// What the payload holds, of a dry run; nobody sends it.
    pub preview: Option<Box<Preview>>,
    /// What attacks on it found, of a dry run that tried them.
    pub attack: Option<Box<Attack>>,
    /// What networks computed on: `cpu`, or a card's name.
    pub device: String,
}

/// What the site's own people see of a finished task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LocalView {
    /// Of training.
    Training(TrainingView),
    /// Of figures.
    Report(ReportView),
}

/// Why a task failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// In full, for the site's own people.
    pub local: String,
    /// What may be told outside.
    pub outward: Outward,
}

impl From<&CohortError> for Failure {
    fn from(error: &CohortError) -> Self {
        let mut local = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            local.push_str(": ");
            local.push_str(&cause.to_string());
            source = cause.source();
        }
        Self { local, outward: error.outward() }
    }
}

impl Order {
    /// Writes the order for a child.
    ///
    /// # Errors
    /// [`CohortError::Pipe`] if the pipe broke, [`CohortError::Format`] if the order is too long.
    ///
    /// # Disclosure
    /// The bytes hold the snapshot's key: they go through a pipe to the same binary and nowhere else.
    pub fn write(&self, output: &mut impl Write) -> Result<(), CohortError> {
        let mut wire = OrderOnTheWire {
            version: VERSION,
            approval: self.approval.clone(),
            dry: self.dry,
            attack: self.attack,
            circumstances: self.circumstances.clone(),
            site: self.site,
            snapshot: self.snapshot.clone(),
            snapshot_path: self.snapshot_path.clone(),
            key: self.key.bytes().to_vec(),
            opt_outs: self.opt_outs.to_bytes(),
            model_path: self.model_path.clone(),
            payload_path: self.payload_path.clone(),
            state_in: self.state_in.clone(),
            state_out: self.state_out.clone(),
            place: self.place,
            share: self.share,
        };
        let written = write_frame(output, &wire, ORDER_BYTES);
        wire.key.zeroize();
        written
    }

    /// Reads an order in the child.
    ///
    /// # Errors
    /// [`CohortError::Format`] if the bytes are no order.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn read(input: &mut impl Read) -> Result<Self, CohortError> {
        let mut wire: OrderOnTheWire = read_frame(input, ORDER_BYTES, "order")?
            .ok_or_else(|| CohortError::Format { what: "order", reason: "nothing came".into() })?;
        let key = <[u8; 32]>::try_from(wire.key.as_slice());
        wire.key.zeroize();
        let wrong = |reason: &str| CohortError::Format { what: "order", reason: reason.to_owned() };
        if wire.version != VERSION {
            return Err(wrong("it is of another version; the program was replaced while it ran"));
        }
        Ok(Self {
            approval: wire.approval,
            dry: wire.dry,
            attack: wire.attack,
            circumstances: wire.circumstances,
            site: wire.site,
            snapshot: wire.snapshot,
            snapshot_path: wire.snapshot_path,
            key: SnapshotKey::from_bytes(key.map_err(|_| wrong("a key has 32 bytes"))?),
            opt_outs: OptOuts::from_bytes(&wire.opt_outs)?,
            model_path: wire.model_path,
            payload_path: wire.payload_path,
            state_in: wire.state_in,
            state_out: wire.state_out,
            place: wire.place,
            share: wire.share.clamp(1, 100),
        })
    }
}

impl Event {
    /// Writes an event for the parent.
    ///
    /// # Errors
    /// [`CohortError::Pipe`] if the pipe broke.
    ///
    /// # Disclosure
    /// What the event holds: counts and means for the site's own people.
    pub fn write(&self, output: &mut impl Write) -> Result<(), CohortError> {
        write_frame(output, self, EVENT_BYTES)
    }

    /// Reads the next event in the parent; `None` if the child closed its end.
    ///
    /// # Errors
    /// [`CohortError::Format`] if the bytes are no event, as after a crash in the middle of one.
    ///
    /// # Disclosure
    /// What the event holds.
    pub fn read(input: &mut impl Read) -> Result<Option<Self>, CohortError> {
        read_frame(input, EVENT_BYTES, "event")
    }

    /// Whether nothing comes after it.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Progress(_))
    }
}

/// The whole life of a child: reads one order, carries it out, writes events. Returns whether it ended as asked
/// (done or refused), for the exit status.
///
/// # Errors
/// [`CohortError::Pipe`] if the parent is gone; every other failure goes to the parent as [`Event::Failed`].
///
/// # Disclosure
/// Writes events; rows and keys are only in this process's memory, which dumps no core.
pub fn run(input: &mut impl Read, output: &mut impl Write, clock: &dyn Fn() -> Timestamp) -> Result<bool, CohortError> {
    crate::forbid_core_dumps();
    let last = match Order::read(input) {
        Ok(order) => {
            let mut broken = None;
            let mut pace = Pace { share: order.share, since: Instant::now() };
            let last = guarded(&order, clock, &mut |progress| match Event::Progress(progress).write(output) {
                Ok(()) => pace.rest(),
                Err(error) => {
                    broken = Some(error);
                    false
                }
            });
            if let Some(error) = broken {
                return Err(error);
            }
            last
        }
        Err(error) => Event::Failed(Failure::from(&error)),
    };
    last.write(output)?;
    Ok(matches!(last, Event::Done(_) | Event::Refused(_)))
}

/// Keeps work within its share of the time.
struct Pace {
    share: u8,
    since: Instant,
}

impl Pace {
    /// Rests in proportion to the time since it rested last. Always `true`: it goes on.
    fn rest(&mut self) -> bool {
        let share = u32::from(self.share.clamp(1, 100));
        std::thread::sleep(self.since.elapsed() * (100 - share) / share);
        self.since = Instant::now();
        true
    }
}

/// Carries out an order; whatever a card's driver does short of killing the process becomes an event.
fn guarded(order: &Order, clock: &dyn Fn() -> Timestamp, progress: &mut dyn FnMut(Progress) -> bool) -> Event {
    if order.place == Place::Processor {
        return execute(order, clock, progress);
    }
    // The first panic tells why; those that follow from it on other threads tell less.
    static REASON: OnceLock<String> = OnceLock::new();
    std::panic::set_hook(Box::new(|panic| {
        let _ = REASON.set(panic.payload_as_str().unwrap_or("a panic without words").to_owned());
    }));
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| execute(order, clock, progress)));
    ended.unwrap_or_else(|_| {
        Event::DeviceFailed(DeviceFailure::new(REASON.get().map_or("it failed without words", String::as_str)))
    })
}

/// Carries out an order in this thread and returns the last event. For the child, and for tests.
///
/// # Disclosure
/// As [`Cohort::train`] and [`Cohort::report`]; the payload goes to the order's file only. Of a dry run it goes nowhere, and
/// the last event has what [`Preview`] says.
pub fn execute(order: &Order, clock: &dyn Fn() -> Timestamp, progress: &mut dyn FnMut(Progress) -> bool) -> Event {
    // The child's clock is as good as the parent's, and later.
    let mut circumstances = order.circumstances.clone();
    circumstances.now = circumstances.now.max(clock());
    circumstances.snapshot = match facts(order) {
        Ok(facts) => facts,
        Err(error) => return Event::Failed(Failure::from(&error)),
    };
    let model = match order.dry.then(|| begin(&mut circumstances)).transpose() {
        Ok(model) => model.flatten(),
        Err(error) => return Event::Failed(Failure::from(&error)),
    };
    let opening = match order.dry {
        true => order.approval.dry_permit(&circumstances).map(Opening::from),
        false => order.approval.permit(&circumstances).map(Opening::from),
    };
    match opening {
        Err(refusal) => Event::Refused(refusal),
        Ok(opening) => match carry_out(order, &circumstances, model, opening, &mut Pulse { now: clock, progress }) {
            Ok(done) => Event::Done(Box::new(done)),
            Err(CohortError::Device { reason, .. }) => Event::DeviceFailed(DeviceFailure::new(&reason)),
            Err(error) => Event::Failed(Failure::from(&error)),
        },
    }
}

/// Makes the model that the plan begins with, and has the header of a dry run name it: no coordinator opened that round.
fn begin(circumstances: &mut Circumstances) -> Result<Option<Vec<u8>>, CohortError> {
    let mut header = circumstances.header.clone().into_inner();
    let model = train::starting_model(&circumstances.plan, &header.task)?;
    header.model = model.as_deref().map(|bytes| canon::digest("model", 1, bytes));
    circumstances.header = Canonical::new(header)?;
    Ok(model)
}

/// What the snapshot is that would be opened: its own document says so, whatever the parent took it for. Only how many opted
/// out, and which version it is, the parent alone knows.
fn facts(order: &Order) -> Result<SnapshotFacts, CohortError> {
    let (document, told) = (&order.snapshot, &order.circumstances.snapshot);
    let version = match &told.version {
        Some(told) => Some(VersionFacts { form: document.form()?, subjects: document.subjects, ..told.clone() }),
        None => None,
    };
    Ok(SnapshotFacts {
        digest: document.digest(),
        columns: document.schema.kept(),
        subjects: told.subjects,
        public: document.public,
        version,
    })
}

/// Computes what would leave and, in a dry run that is to try them, attacks on it; each is half of the work.
fn carry_out(
    order: &Order,
    circumstances: &Circumstances,
    model: Option<Vec<u8>>,
    opening: Opening,
    pulse: &mut Pulse<'_>,
) -> Result<Done, CohortError> {
    if !(order.dry && order.attack) || plan::masks::reports_figures(&circumstances.plan, &circumstances.header.task) {
        return compute(order, circumstances, model, opening, pulse);
    }
    let now = pulse.now;
    let mut done = {
        let mut tell = |p: Progress| (pulse.progress)(Progress { done: p.done / 2, ..p });
        compute(order, circumstances, model, opening, &mut Pulse { now, progress: &mut tell })?
    };
    let mut tell = |p: Progress| (pulse.progress)(Progress { done: (p.done + p.total) / 2, ..p });
    done.attack = match try_attacks(order, circumstances, &mut Pulse { now, progress: &mut tell }) {
        Ok(found) => found.map(Box::new),
        Err(CohortError::Cancelled) => return Err(CohortError::Cancelled),
        // What would leave was made all the same.
        Err(error) => Some(Box::new(Attack::Failed { reason: error.outward().words().to_owned() })),
    };
    Ok(done)
}

/// Attacks on the update of a dry run, with a permit of their own: rows that one opened are used up.
fn try_attacks(
    order: &Order,
    circumstances: &Circumstances,
    pulse: &mut Pulse<'_>,
) -> Result<Option<Attack>, CohortError> {
    let Ok(permit) = order.approval.dry_permit(circumstances) else { return Ok(None) };
    let (header, plan) = (&*circumstances.header, &circumstances.plan);
    let model = train::starting_model(plan, &header.task)?;
    let snapshot = Snapshot { document: order.snapshot.clone(), path: order.snapshot_path.clone() };
    let cohort = Cohort::open(permit, &snapshot, &order.key, &order.opt_outs, plan, (pulse.now)())?.on(order.place);
    cohort.attack(Round { site: order.site, header, model: model.as_deref() }, pulse).map(Some)
}

/// What training draws from: the plan's seed. Under masks each later run of the study draws otherwise, under whichever
/// approval, and so does one after the coordinator was restored.
///
/// PRIVACY: the same batches from the same model give the same update, and of two sums over different sites the difference
/// would be what one site sent. The site does not rely on the coordinator for which run it is, nor on the model being
/// another one: one that differs in its last digit has nearly the same update.
fn draws(circumstances: &Circumstances) -> u64 {
    let (header, seed) = (&*circumstances.header, circumstances.plan.seed);
    let is_later = circumstances.spent.is_later;
    if !header.is_secure() || (!is_later && header.epoch <= 1) {
        return seed;
    }
    let job = if is_later { header.job.to_string() } else { String::new() };
    let material = [&seed.to_le_bytes()[..], &header.epoch.to_le_bytes()[..], job.as_bytes()].concat();
    let drawn = canon::digest("training-draws", 1, &material);
    drawn.as_bytes().first_chunk::<8>().map_or(seed, |chunk| u64::from_le_bytes(*chunk))
}

fn compute(
    order: &Order,
    circumstances: &Circumstances,
    model: Option<Vec<u8>>,
    opening: Opening,
    pulse: &mut Pulse<'_>,
) -> Result<Done, CohortError> {
    let header = &*circumstances.header;
    let model = match (model, &order.model_path) {
        (None, Some(path)) => Some(read_model(path)?),
        (model, _) => model,
    };
    let snapshot = Snapshot { document: order.snapshot.clone(), path: order.snapshot_path.clone() };
    let plan = &circumstances.plan;
    let key = opening.round().clone();
    let trained = plan::trained_by(plan, &header.task).unwrap_or(&header.task);
    let state = order.state_in.as_ref().map(|path| read_state(path, order, key.job, trained)).transpose()?;
    let cohort = Cohort::open(opening, &snapshot, &order.key, &order.opt_outs, plan, (pulse.now)())?
        .with_state(state)
        .on(order.place)
        // Before the first round there is nothing to compare with, and a sweep would train alone for each of its settings.
        .comparing(!order.dry && order.approval.document.envelope.computation.settings.is_empty())
        .drawing_from(draws(circumstances));
    let round = Round { site: order.site, header, model: model.as_deref() };
    let mut alone = None;
    let mut released = None;
    let (kind, payload, withheld, view, preview) = if plan::masks::reports_figures(plan, &header.task) {
        let mut report = cohort.report(round, &circumstances.policy.disclosure, pulse)?;
        if header.is_secure() {
            let announced = plan::round_figures(plan, &header.task, header.round);
            figures::hold_back(&announced, &mut report.figures);
        }
        let withheld = report.figures.withheld.clone();
        alone = report.alone.map(Box::new);
        let preview = order.dry.then(|| Preview::of_figures(&report.figures));
        let bytes = if header.is_secure() {
            to_be_masked(plan, header, &report.figures)?
        } else {
            Canonical::new(report.figures)?.bytes().to_vec()
        };
        (UploadKind::Figures, bytes, withheld, LocalView::Report(report.view), preview)
    } else {
        let update = cohort.train(round, &circumstances.policy.disclosure, pulse)?;
        if let (Some(state), Some(path)) = (&update.state, &order.state_out) {
            // Before the payload: an update that leaves is never newer than what the site keeps of it.
            write_durably(path, &train::seal_state(state, &order.key, key.job, trained)?)?;
        }
        let preview = order.dry.then(|| Preview::of_update(&update.payload, header)).transpose()?;
        released = update.released;
        (UploadKind::Update, update.payload, update.withheld, LocalView::Training(update.view), preview)
    };
    // PRIVACY: what only people of the site look at is on no disk, where it might be taken for something to be sent.
    if !order.dry {
        write_durably(&order.payload_path, &payload)?;
    }
    let preview = preview.map(Box::new);
    let (digest, bytes) = (Digest::of(&payload), payload.len() as u64);
    let device = order.place.open()?.name;
    Ok(Done { round: key, kind, digest, bytes, withheld, released, view, alone, preview, attack: None, device })
}

/// A report as the levels of a vector that the engine masks.
fn to_be_masked(plan: &Plan, header: &RoundHeader, report: &FigureSet) -> Result<Vec<u8>, CohortError> {
    let announced = plan::round_figures(plan, &header.task, header.round);
    let levels = figures::levels(&announced, report);
    let levels = levels.map_err(|e| CohortError::NotMaskable { task: header.task.clone(), reason: e.to_string() })?;
    Ok(levels.to_vec())
}

fn read_model(path: &PathBuf) -> Result<Vec<u8>, CohortError> {
    let fail = |source| CohortError::OpenSource { path: path.clone(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(MODEL_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MODEL_BYTES {
        return Err(CohortError::Model { reason: "its file is longer than a model can be".into() });
    }
    Ok(bytes)
}

/// What the site kept from an earlier round; the engine names a file only where there is one.
fn read_state(path: &PathBuf, order: &Order, job: JobId, task: &str) -> Result<train::SiteState, CohortError> {
    train::open_state(&read_model(path)?, &order.key, job, task)
}

/// Temporary file, fsync, rename, fsync of the folder: the payload is there in whole or not at all.
fn write_durably(path: &std::path::Path, bytes: &[u8]) -> Result<(), CohortError> {
    let fail = |source| CohortError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let partial = Partial::create(folder)?;
    let mut file = partial.file()?;
    file.write_all(bytes).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    partial.keep(path)
}

fn write_frame<T: Serialize>(output: &mut impl Write, value: &T, limit: usize) -> Result<(), CohortError> {
    let mut bytes = Zeroizing::new(Vec::new());
    ciborium::into_writer(value, &mut *bytes)
        .map_err(|e| CohortError::Format { what: "message", reason: e.to_string() })?;
    let length = u32::try_from(bytes.len()).ok().filter(|n| *n as usize <= limit);
    let length =
        length.ok_or_else(|| CohortError::Format { what: "message", reason: format!("more than {limit} bytes") })?;
    let mut send = || -> io::Result<()> {
        output.write_all(&length.to_be_bytes())?;
        output.write_all(&bytes)?;
        output.flush()
    };
    send().map_err(CohortError::Pipe)
}

fn read_frame<T: serde::de::DeserializeOwned>(
    input: &mut impl Read,
    limit: usize,
    what: &'static str,
) -> Result<Option<T>, CohortError> {
    let wrong = |reason: String| CohortError::Format { what, reason };
    let mut length = [0; 4];
    let mut filled = 0;
    while filled < 4 {
        match input.read(&mut length[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(wrong("it ends in the middle".into())),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(CohortError::Pipe(e)),
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(wrong(format!("{length} bytes, more than the {limit} allowed")));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    input.take(length as u64).read_to_end(&mut bytes).map_err(CohortError::Pipe)?;
    if bytes.len() < length {
        return Err(wrong("it ends in the middle".into()));
    }
    let mut rest = bytes.as_slice();
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, hospes_protocol::limits::DOCUMENT_DEPTH)
        .map_err(|e| wrong(e.to_string()))?;
    if rest.is_empty() { Ok(Some(value)) } else { Err(wrong("bytes follow it".into())) }
}
