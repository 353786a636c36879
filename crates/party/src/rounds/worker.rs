//! Work on data in a process of its own: this program again, with the hidden argument `worker`.
//!
//! Drivers crash and threads cannot be killed; a child can. It gets one order through a pipe, mints its own permit, and
//! its exit is a terminal state, however it comes.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use hospes_cohort::CohortError;
use hospes_cohort::device::Place;
use hospes_cohort::worker::{DeviceFailure, Done, Event, Failure, Order};
use hospes_protocol::approval::Refusal;
use hospes_protocol::id::{RoundKey, Timestamp};
use tokio::sync::mpsc;

use super::child::Slot;
use super::device::{self, Devices, Work};
use crate::config::{Clock, Config, Executor, system_clock};
use crate::seam::Seam;

/// The hidden first argument.
pub const ARGUMENT: &str = "worker";
/// The last argument of a worker that does not work on a round but predicts.
pub(super) const PREDICT: &str = "predict";
/// Between two looks at whether a child on a card still says something.
const LOOK: Duration = Duration::from_secs(1);
/// A child on a card that was stopped may have hung if it had said nothing for this part of the patience with it.
const SUSPECT: u32 = 5;

/// What a worker said.
#[derive(Clone)]
pub(crate) enum WorkEvent {
    /// It goes on.
    Progress {
        /// Steps done.
        done: u32,
        /// Steps in all.
        total: u32,
    },
    /// The payload is durable.
    Done(Box<Done>),
    /// It was given no permit.
    Refused(Refusal),
    /// It failed.
    Failed(Failure),
    /// The card failed that it computed on.
    DeviceFailed(DeviceFailure),
    /// Something that the site's people should know.
    Note(String),
    /// It ended without a word.
    Crashed(String),
}

impl From<Event> for WorkEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Progress(p) => Self::Progress { done: p.done, total: p.total },
            Event::Done(done) => Self::Done(done),
            Event::Refused(refusal) => Self::Refused(refusal),
            Event::Failed(failure) => Self::Failed(failure),
            Event::DeviceFailed(failure) => Self::DeviceFailed(failure),
        }
    }
}

/// Work under way; it is stopped when this is dropped.
pub(crate) struct Running(Stop);

enum Stop {
    Child(Slot),
    Thread(Arc<AtomicBool>),
}

impl Running {
    /// Work that is stopped by this flag.
    #[cfg(feature = "simulation")]
    pub(crate) fn flagged(stop: Arc<AtomicBool>) -> Self {
        Self(Stop::Thread(stop))
    }
}

impl Running {
    /// Lets the work rest for a while, keeping its memory, or go on; says whether it did so. Where a system cannot stop a
    /// process's time, work that has begun goes on to its end.
    pub(crate) fn pause(&self, paused: bool) -> bool {
        matches!(&self.0, Stop::Child(slot) if slot.pause(paused))
    }

    /// Whether it rests.
    pub(crate) fn rests(&self) -> bool {
        matches!(&self.0, Stop::Child(slot) if slot.rests())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match &self.0 {
            Stop::Child(slot) => slot.stop(),
            Stop::Thread(stop) => stop.store(true, Ordering::Relaxed),
        }
    }
}

/// Starts the work. Its last event is always one that ends it.
pub(crate) fn start(
    config: &Config,
    threads: Option<u16>,
    devices: &Arc<Devices>,
    seam: &Seam,
    key: RoundKey,
    order: Order,
    events: mpsc::Sender<(RoundKey, WorkEvent)>,
) -> std::io::Result<Running> {
    let order = match seam.take_work(&key, order) {
        Ok(running) => return Ok(running),
        Err(order) => *order,
    };
    match &config.executor {
        Executor::Child { program } => {
            let slot = Slot::default();
            let supervisor = Supervisor {
                program: program.clone(),
                threads,
                memory_bytes: config.worker_memory_bytes,
                card_patience: config.card_patience,
                devices: devices.clone(),
                slot: slot.clone(),
                key,
                events,
            };
            std::thread::Builder::new().name("worker".into()).spawn(move || supervisor.run(order))?;
            Ok(Running(Stop::Child(slot)))
        }
        Executor::Thread => start_thread(config.clock.clone(), key, order, events),
    }
}

/// Watches over one piece of work: one child, and another one where a graphics card failed the first.
struct Supervisor {
    program: PathBuf,
    threads: Option<u16>,
    memory_bytes: Option<u64>,
    card_patience: Duration,
    devices: Arc<Devices>,
    slot: Slot,
    key: RoundKey,
    events: mpsc::Sender<(RoundKey, WorkEvent)>,
}

/// How one child ended.
struct Attempt {
    last: WorkEvent,
    /// For how long it had said nothing.
    silent: Duration,
    /// It was killed for that.
    hung: bool,
}

impl Supervisor {
    fn run(self, order: Order) {
        let mut order = Arc::new(order);
        let plan = order.circumstances.plan.clone();
        let work = Work { job: self.key.job, task: &self.key.task, plan: &plan, rows: order.snapshot.rows };
        let mut decision = self.devices.first(work, &self.slot);
        let mut card_failed = false;
        let last = loop {
            if let Some(note) = decision.note.take() {
                self.say(WorkEvent::Note(note));
            }
            Arc::make_mut(&mut order).place = decision.place;
            let Attempt { last, silent, hung } = self.one_child(&order).unwrap_or_else(|e| {
                let last = WorkEvent::Crashed(format!("it could not be started: {e}"));
                Attempt { last, silent: Duration::ZERO, hung: false }
            });
            let stopped = self.slot.is_stopped();
            let Place::Card { card, rows_at_once } = order.place else {
                // What fails on the processor too is no card's fault.
                if card_failed && (stopped || matches!(last, WorkEvent::Done(_))) {
                    self.devices.blame();
                }
                break last;
            };
            if stopped {
                // Whoever stopped it, for example the round's deadline: it may have hung.
                if silent >= self.patience(order.share) / SUSPECT {
                    self.devices.blame();
                }
                break last;
            }
            let failure = match &last {
                WorkEvent::DeviceFailed(failure) => failure.clone(),
                WorkEvent::Crashed(reason) => DeviceFailure { reason: reason.clone(), out_of_memory: false },
                WorkEvent::Done(_) => {
                    self.devices.worked();
                    break last;
                }
                _ => break last,
            };
            if hung {
                // At once: the round may not be long enough for the processor to show that it can do it.
                self.devices.blame();
            }
            card_failed |= !hung && !failure.out_of_memory;
            decision = self.devices.after(work, card, rows_at_once, &failure);
            // Nothing of the failed attempt may be taken for a result; that there is nothing is fine.
            let _ = std::fs::remove_file(&order.payload_path);
            let _ = order.state_out.as_ref().map(std::fs::remove_file);
        };
        self.say(last);
    }

    /// Whether anybody listened.
    fn say(&self, event: WorkEvent) -> bool {
        self.events.blocking_send((self.key.clone(), event)).is_ok()
    }

    /// How long a child on a card may say nothing: it rests after each step, in proportion to it.
    fn patience(&self, share: u8) -> Duration {
        self.card_patience * 100 / u32::from(share.clamp(1, 100))
    }

    /// Gives a child the order and hears it to its end.
    fn one_child(&self, order: &Arc<Order>) -> std::io::Result<Attempt> {
        let mut command = command(&self.program);
        command
            .envs(self.threads.map(|threads| ("RAYON_NUM_THREADS", threads.to_string())))
            .args(self.memory_bytes.map(|bytes| bytes.to_string()))
            .stderr(Stdio::inherit());
        let (input, output) = self.slot.start(&mut command)?;
        let patience = matches!(order.place, Place::Card { .. }).then(|| self.patience(order.share));
        let mut hung = false;
        let last = match hear(order.clone(), self.slot.clone(), input, output) {
            Err(error) => WorkEvent::Crashed(error.to_string()),
            Ok(events) => loop {
                match self.next(&events, patience) {
                    Next::Event(event) if event.is_last() => break WorkEvent::from(event),
                    Next::Event(event) => {
                        if !self.say(event.into()) {
                            break WorkEvent::Crashed("the engine has ended".into());
                        }
                    }
                    Next::End(reason) => break WorkEvent::Crashed(reason),
                    Next::Silence(time) => {
                        hung = true;
                        let reason = format!("nothing was heard of it for {} seconds", time.as_secs());
                        break WorkEvent::DeviceFailed(DeviceFailure { reason, out_of_memory: false });
                    }
                }
            },
        };
        let silent = self.slot.silence();
        // Also after its last word: what it made is durable, and a driver may hang when its process ends.
        let last = match (last, self.slot.end()) {
            (WorkEvent::Crashed(reason), Some(status)) => WorkEvent::Crashed(format!("{reason} ({status})")),
            (last, _) => last,
        };
        Ok(Attempt { last, silent, hung })
    }

    /// What a child says next; `patience` for one on a card.
    fn next(&self, events: &Receiver<Heard>, patience: Option<Duration>) -> Next {
        loop {
            let heard = match patience {
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(patience) => events.recv_timeout(LOOK.min(patience / 4)),
            };
            return match heard {
                Ok(Ok(Some(event))) => Next::Event(event),
                Ok(Ok(None)) | Err(RecvTimeoutError::Disconnected) => Next::End("it ended without a result".into()),
                Ok(Err(error)) => Next::End(error.to_string()),
                Err(RecvTimeoutError::Timeout) => match patience.filter(|patience| self.slot.silence() >= *patience) {
                    Some(patience) => Next::Silence(patience),
                    None => continue,
                },
            };
        }
    }
}

type Heard = Result<Option<Event>, CohortError>;

enum Next {
    Event(Event),
    End(String),
    Silence(Duration),
}

/// Gives a child its order and passes on what it says, on a thread of its own: a child that hangs must not hold up who
/// watches it.
fn hear(
    order: Arc<Order>,
    slot: Slot,
    mut input: ChildStdin,
    mut output: ChildStdout,
) -> std::io::Result<Receiver<Heard>> {
    let (sender, events) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("worker's ear".into()).spawn(move || {
        // A child that dies before it has read everything shows in what it says, or does not say.
        let _ = order.write(&mut input);
        drop((input, order));
        loop {
            let event = Event::read(&mut output);
            if let Ok(Some(_)) = &event {
                slot.heard();
            }
            let goes_on = matches!(&event, Ok(Some(event)) if !event.is_last());
            if sender.send(event).is_err() || !goes_on {
                break;
            }
        }
    })?;
    Ok(events)
}

/// This program as a worker, with what a child may know of its surroundings.
pub(super) fn command(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.arg(ARGUMENT).env_clear().envs(std::env::vars_os().filter(|(name, _)| keeps(name)));
    command.envs(hospes_cohort::worker::ENVIRONMENT);
    command
}

/// What a child may know of its surroundings: where libraries and temporary files are, nothing of a session or a secret.
fn keeps(name: &std::ffi::OsStr) -> bool {
    const KEPT: &[&str] = &[
        "PATH",
        "LD_LIBRARY_PATH",
        "TMPDIR",
        "TEMP",
        "SystemRoot",
        "XDG_RUNTIME_DIR",
        "LANG",
        // Which drivers of graphics cards the Vulkan loader takes.
        "VK_DRIVER_FILES",
        "VK_ICD_FILENAMES",
    ];
    KEPT.iter().any(|k| name == *k)
}

fn start_thread(
    clock: Clock,
    key: RoundKey,
    order: Order,
    events: mpsc::Sender<(RoundKey, WorkEvent)>,
) -> std::io::Result<Running> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    std::thread::Builder::new().name("worker".into()).spawn(move || {
        let mut progress = |p: hospes_cohort::train::Progress| {
            let event = WorkEvent::Progress { done: p.done, total: p.total };
            events.blocking_send((key.clone(), event)).is_ok() && !asked.load(Ordering::Relaxed)
        };
        let work = AssertUnwindSafe(|| hospes_cohort::worker::execute(&order, &*clock, &mut progress));
        let last = std::panic::catch_unwind(work).map_or_else(
            |panic| {
                let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
                let words = words.or_else(|| panic.downcast_ref::<String>().cloned());
                WorkEvent::Crashed(words.unwrap_or_else(|| "it panicked without words".to_owned()))
            },
            WorkEvent::from,
        );
        let _ = events.blocking_send((key, last));
    })?;
    Ok(Running(Stop::Thread(stop)))
}

/// The whole life of a child: what `main` does when its first argument is [`ARGUMENT`], before anything else.
pub fn run() -> ExitCode {
    lower_priority();
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    if let Some(answer) = device::answer(&arguments) {
        return match std::io::stdout().write_all(answer.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(3),
        };
    }
    limit_memory();
    let clock = system_clock();
    let now = move || -> Timestamp { clock() };
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let ended = match arguments.last().is_some_and(|last| last == PREDICT) {
        true => hospes_cohort::worker::run_prediction(&mut input, &mut output, &now),
        false => hospes_cohort::worker::run(&mut input, &mut output, &now),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(_) => ExitCode::from(3),
    }
}

/// Second argument: most bytes of memory. A worker that wants more fails its allocation and ends; the machine goes on.
fn limit_memory() {
    #[cfg(target_os = "linux")]
    if let Some(bytes) = std::env::args().nth(2).and_then(|text| text.parse().ok()) {
        let limit = rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
        // Data, not address space: threads and allocators reserve far more addresses than they use.
        let _ = rustix::process::setrlimit(rustix::process::Resource::Data, limit);
    }
}

/// Whoever works at the machine goes first; and a child does not outlive its parent.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::nice(10);
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
}
