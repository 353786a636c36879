//! Work on data in a process of its own: this program again, with the hidden argument `worker`.
//!
//! Drivers crash and threads cannot be killed; a child can. It gets one order through a pipe, mints its own permit, and
//! its exit is a terminal state, however it comes.

use std::io::Write as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hospes_cohort::worker::{Done, Event, Failure, Order};
use hospes_protocol::approval::Refusal;
use hospes_protocol::id::{RoundKey, Timestamp};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

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
        }
    }
}

/// Work under way; it is stopped when this is dropped.
pub(crate) struct Running(Stop);

enum Stop {
    Child(Arc<Mutex<Child>>),
    Thread(Arc<AtomicBool>),
}

impl Running {
    /// Work that is stopped by this flag.
    #[cfg(feature = "simulation")]
    pub(crate) fn flagged(stop: Arc<AtomicBool>) -> Self {
        Self(Stop::Thread(stop))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match &self.0 {
            Stop::Child(child) => {
                // Already gone is fine; the reading thread waits for it, so that no zombie is left.
                let _ = child.lock().unwrap_or_else(PoisonError::into_inner).kill();
            }
            Stop::Thread(stop) => stop.store(true, Ordering::Relaxed),
        }
    }
}

/// Starts the work. Its last event is always one that ends it.
pub(crate) fn start(
    config: &Config,
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
        Executor::Child { program } => start_child(program, config.worker_memory_bytes, key, &order, events),
        Executor::Thread => start_thread(config.clock.clone(), key, order, events),
    }
}

fn start_child(
    program: &std::path::Path,
    memory_bytes: Option<u64>,
    key: RoundKey,
    order: &Order,
    events: mpsc::Sender<(RoundKey, WorkEvent)>,
) -> std::io::Result<Running> {
    let mut bytes = Zeroizing::new(Vec::new());
    order.write(&mut *bytes).map_err(std::io::Error::other)?;
    let mut child = Command::new(program)
        .arg(ARGUMENT)
        .args(memory_bytes.map(|bytes| bytes.to_string()))
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| keeps(name)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (Some(mut input), Some(mut output)) = (input, output) else {
        return Err(std::io::Error::other("the child has no pipes"));
    };
    let child = Arc::new(Mutex::new(child));
    let shared = child.clone();
    std::thread::Builder::new().name("worker".into()).spawn(move || {
        // A child that dies before it has read everything shows in what it says, or does not say.
        let _ = input.write_all(&bytes).and_then(|()| input.flush());
        drop((input, bytes));
        let last = loop {
            match Event::read(&mut output) {
                Ok(Some(event)) if event.is_last() => break WorkEvent::from(event),
                Ok(Some(event)) => {
                    if events.blocking_send((key.clone(), event.into())).is_err() {
                        break WorkEvent::Crashed("the engine has ended".into());
                    }
                }
                Ok(None) => break WorkEvent::Crashed("it ended without a result".into()),
                Err(error) => break WorkEvent::Crashed(error.to_string()),
            }
        };
        let status = {
            let mut child = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(last, WorkEvent::Done(_)) {
                let _ = child.kill();
            }
            child.wait()
        };
        let last = match (last, status) {
            (WorkEvent::Crashed(reason), Ok(status)) => WorkEvent::Crashed(format!("{reason} ({status})")),
            (last, _) => last,
        };
        let _ = events.blocking_send((key, last));
    })?;
    Ok(Running(Stop::Child(child)))
}

/// What a child may know of its surroundings: where libraries and temporary files are, nothing of a session or a secret.
fn keeps(name: &std::ffi::OsStr) -> bool {
    const KEPT: &[&str] = &["PATH", "LD_LIBRARY_PATH", "TMPDIR", "TEMP", "SystemRoot", "XDG_RUNTIME_DIR", "LANG"];
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
