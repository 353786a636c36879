//! The one child process that a piece of work has at a time: whoever holds the slot stops it or lets it rest, from any
//! thread and at any time, also between two children.

use std::io;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a child that was killed may take to be gone. One that a driver holds in the kernel is left behind then.
const GONE: Duration = Duration::from_secs(10);
/// Between two looks at a child that was killed.
const LOOK: Duration = Duration::from_millis(5);

/// A place for a child. Nothing waits for a child while it holds the lock: the engine takes it too.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Current>>);

/// The child that works now.
#[derive(Default)]
struct Current {
    child: Option<Child>,
    stopped: bool,
    paused: bool,
    silence: Silence,
}

/// For how long a child has said nothing; time in which it rests does not count.
#[derive(Default)]
struct Silence {
    before: Duration,
    since: Option<Instant>,
}

impl Silence {
    fn total(&self) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// It begins anew.
    fn begin(&mut self, paused: bool) {
        *self = Self { before: Duration::ZERO, since: (!paused).then(Instant::now) };
    }

    fn pause(&mut self, paused: bool) {
        self.before = self.total();
        self.since = (!paused).then(Instant::now);
    }
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

impl Slot {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the next child; what it writes to its standard output is read by the caller.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<(ChildStdin, ChildStdout)> {
        let mut current = self.current();
        if current.stopped {
            return Err(io::Error::other("it was stopped"));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take());
        current.child = Some(child);
        let paused = current.paused;
        current.silence.begin(paused);
        if paused {
            current.keep_paused();
        }
        match pipes {
            (Some(input), Some(output)) => Ok((input, output)),
            _ => Err(io::Error::other("the child has no pipes")),
        }
    }

    /// Lets the child rest, or go on, and those that come after it; says whether it did so.
    pub(super) fn pause(&self, paused: bool) -> bool {
        let mut current = self.current();
        if current.paused != paused {
            current.paused = paused;
            current.silence.pause(paused);
        }
        current.keep_paused()
    }

    /// Whether its children rest.
    pub(super) fn rests(&self) -> bool {
        cfg!(unix) && self.current().paused
    }

    /// Kills the child and starts no other; does not wait.
    pub(super) fn stop(&self) {
        let mut current = self.current();
        current.stopped = true;
        // Already gone is fine; the supervising thread waits for it, so that no zombie is left.
        let _ = current.child.as_mut().map(Child::kill);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.current().stopped
    }

    /// The child said something.
    pub(super) fn heard(&self) {
        let mut current = self.current();
        let paused = current.paused;
        current.silence.begin(paused);
    }

    /// For how long the child has said nothing, without the time in which it had to rest.
    pub(super) fn silence(&self) -> Duration {
        self.current().silence.total()
    }

    /// How the child ended, if it did by itself.
    pub(super) fn ended(&self) -> io::Result<Option<ExitStatus>> {
        let mut current = self.current();
        let status = current.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        if status.is_some() {
            // Its number may be another process's from now on.
            current.child = None;
        }
        Ok(status)
    }

    /// Ends the child, whatever it does, and says how it ended, where that can be told.
    pub(super) fn end(&self) -> Option<ExitStatus> {
        let taken = self.current().child.take();
        let mut child = taken?;
        // Already gone is fine.
        let _ = child.kill();
        let until = Instant::now() + GONE;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(LOOK),
                _ => {
                    tracing::warn!(process = child.id(), "a worker was killed and does not end; it is left behind");
                    return None;
                }
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_a_child_rests_is_no_silence() {
        let slot = Slot::default();
        let begun = Instant::now();
        let _pipes = slot.start(Command::new("sleep").arg("1000")).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        assert!(slot.silence() >= Duration::from_millis(30));
        assert!(slot.pause(true) && slot.rests());
        let before = slot.silence();
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(slot.silence(), before);
        assert!(slot.pause(false) && !slot.rests());
        std::thread::sleep(Duration::from_millis(30));
        let after = slot.silence();
        assert!(after >= before + Duration::from_millis(30) && after <= begun.elapsed() - Duration::from_millis(30));
        slot.heard();
        assert!(slot.silence() < after);
        // A child that rests ends like any other.
        slot.pause(true);
        assert!(slot.ended().unwrap().is_none());
        assert!(!slot.end().unwrap().success());
        assert!(slot.end().is_none(), "there is none");
        slot.stop();
        assert!(slot.start(&mut Command::new("true")).is_err(), "stopped for good");
    }
}
