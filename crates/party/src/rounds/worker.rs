//! Work on data in a process of its own: this program again, with the hidden argument `worker`.
//!
//! Drivers crash and threads cannot be killed; a child can. It gets one order through a pipe, mints its own permit, and
//! its exit is a terminal state, however it comes.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hospes_cohort::device::Place;
use hospes_cohort::worker::{DeviceFailure, Done, Event, Failure, Order};
use hospes_protocol::approval::Refusal;
use hospes_protocol::id::{RoundKey, Timestamp};
use tokio::sync::mpsc;

use super::device::{self, Devices, Work};
use crate::config::{Clock, Config, Executor, system_clock};
use crate::seam::Seam;

/// The hidden first argument.
pub const ARGUMENT: &str = "worker";

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
    Child(Arc<Mutex<Current>>),
    Thread(Arc<AtomicBool>),
}

/// The child that works now.
#[derive(Default)]
struct Current {
    child: Option<Child>,
    stopped: bool,
    paused: bool,
}

impl Current {
    /// Stops the child's time, or lets it go on; says whether there is a child and this system can.
    fn keep_paused(&self) -> bool {
        #[cfg(unix)]
        if let Some(child) = &self.child {
            use rustix::process::{Pid, Signal, kill_process};
            let signal = if self.paused { Signal::STOP } else { Signal::CONT };
            return Pid::from_raw(child.id().cast_signed()).is_some_and(|pid| kill_process(pid, signal).is_ok());
        }
        false
    }
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
        let Stop::Child(current) = &self.0 else { return false };
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        current.paused = paused;
        current.keep_paused()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match &self.0 {
            Stop::Child(current) => {
                let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
                current.stopped = true;
                // Already gone is fine; the supervising thread waits for it, so that no zombie is left.
                let _ = current.child.as_mut().map(Child::kill);
            }
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
            let current = Arc::new(Mutex::new(Current::default()));
            let supervisor = Supervisor {
                program: program.clone(),
                threads,
                memory_bytes: config.worker_memory_bytes,
                devices: devices.clone(),
                current: current.clone(),
                key,
                events,
            };
            std::thread::Builder::new().name("worker".into()).spawn(move || supervisor.run(order))?;
            Ok(Running(Stop::Child(current)))
        }
        Executor::Thread => start_thread(config.clock.clone(), key, order, events),
    }
}

/// Watches over one piece of work: one child, and another one where a graphics card failed the first.
struct Supervisor {
    program: PathBuf,
    threads: Option<u16>,
    memory_bytes: Option<u64>,
    devices: Arc<Devices>,
    current: Arc<Mutex<Current>>,
    key: RoundKey,
    events: mpsc::Sender<(RoundKey, WorkEvent)>,
}

impl Supervisor {
    fn run(self, mut order: Order) {
        let plan = order.circumstances.plan.clone();
        let work = Work { job: self.key.job, task: &self.key.task, plan: &plan };
        let mut decision = self.devices.first(work);
        let last = loop {
            if let Some(note) = decision.note.take() {
                self.say(WorkEvent::Note(note));
            }
            order.place = decision.place;
            let last =
                self.one_child(&order).unwrap_or_else(|e| WorkEvent::Crashed(format!("it could not be started: {e}")));
            let Place::Card { card, rows_at_once } = order.place else { break last };
            let failure = match &last {
                WorkEvent::DeviceFailed(failure) => failure.clone(),
                WorkEvent::Crashed(reason) => DeviceFailure { reason: reason.clone(), out_of_memory: false },
                _ => break last,
            };
            if self.current().stopped {
                break last;
            }
            decision = self.devices.after(work, card, rows_at_once, &failure);
            // Nothing of the failed attempt may be taken for a result; that there is nothing is fine.
            let _ = std::fs::remove_file(&order.payload_path);
            let _ = order.state_out.as_ref().map(std::fs::remove_file);
        };
        self.say(last);
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody listened.
    fn say(&self, event: WorkEvent) -> bool {
        self.events.blocking_send((self.key.clone(), event)).is_ok()
    }

    /// Gives a child the order and hears it to its end.
    fn one_child(&self, order: &Order) -> std::io::Result<WorkEvent> {
        let (mut input, mut output) = {
            let mut current = self.current();
            if current.stopped {
                return Ok(WorkEvent::Crashed("it was stopped".into()));
            }
            let mut child = command(&self.program)
                .envs(self.threads.map(|threads| ("RAYON_NUM_THREADS", threads.to_string())))
                .args(self.memory_bytes.map(|bytes| bytes.to_string()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()?;
            let pipes = (child.stdin.take(), child.stdout.take());
            current.child = Some(child);
            if current.paused {
                current.keep_paused();
            }
            match pipes {
                (Some(input), Some(output)) => (input, output),
                _ => return Err(std::io::Error::other("the child has no pipes")),
            }
        };
        // A child that dies before it has read everything shows in what it says, or does not say.
        let _ = order.write(&mut input);
        drop(input);
        let last = loop {
            match Event::read(&mut output) {
                Ok(Some(event)) if event.is_last() => break WorkEvent::from(event),
                Ok(Some(event)) => {
                    if !self.say(event.into()) {
                        break WorkEvent::Crashed("the engine has ended".into());
                    }
                }
                Ok(None) => break WorkEvent::Crashed("it ended without a result".into()),
                Err(error) => break WorkEvent::Crashed(error.to_string()),
            }
        };
        let mut current = self.current();
        let Some(mut child) = current.child.take() else { return Ok(last) };
        if !matches!(last, WorkEvent::Done(_)) {
            let _ = child.kill();
        }
        Ok(match (last, child.wait()) {
            (WorkEvent::Crashed(reason), Ok(status)) => WorkEvent::Crashed(format!("{reason} ({status})")),
            (last, _) => last,
        })
    }
}

/// This program as a worker, with what a child may know of its surroundings.
pub(super) fn command(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.arg(ARGUMENT).env_clear().envs(std::env::vars_os().filter(|(name, _)| keeps(name)));
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
        let last = hospes_cohort::worker::execute(&order, &*clock, &mut |p| {
            let event = WorkEvent::Progress { done: p.done, total: p.total };
            events.blocking_send((key.clone(), event)).is_ok() && !asked.load(Ordering::Relaxed)
        });
        let _ = events.blocking_send((key, last.into()));
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
    match hospes_cohort::worker::run(&mut std::io::stdin().lock(), &mut std::io::stdout().lock(), &now) {
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
