//! On which device work runs: what the site's people chose, what the machine has, and what follows when a card fails.
//!
//! A card is looked for, tried and used in child processes only. What it did last decides where the next work runs, so that
//! a card that fails costs one attempt and no round.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hospes_cohort::device::{self, Card, Listed, Place, Tried};
use hospes_cohort::worker::DeviceFailure;
use hospes_protocol::id::JobId;
use hospes_protocol::plan::Plan;
use hospes_protocol::text::shown;
use serde::de::DeserializeOwned;

/// Multiplications of one step below which a card is not worth its while: telling it what to do takes longer.
const WORTH_A_CARD: u64 = 20_000_000;
/// How long a card that failed is left alone.
const REST: Duration = Duration::from_secs(15 * 60);
/// Longest time to list cards or try one; the first step on a card compiles its programs.
const TRIAL: Duration = Duration::from_secs(180);
/// Longest answer of a child that lists or tries cards.
const ANSWER_BYTES: u64 = 64 << 10;
/// Tasks of which it is remembered how many rows a card has room for.
const REMEMBERED: usize = 1_000;

/// What the site's people chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A card where the machine has one that computes right, is faster than the processor and is worth its while.
    #[default]
    Auto,
    /// The processor.
    Processor,
    /// A card wherever there is one, also a slow one; the processor only where none works.
    Card,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Processor),
            "gpu" => Ok(Self::Card),
            _ => Err(format!("'{text}' is no device: auto, cpu or gpu")),
        }
    }
}

/// A card and how it did, if it was tried.
#[derive(Debug, Clone)]
pub struct Probed {
    /// The card.
    pub listed: Listed,
    /// How it did; `None` if it was not tried, as a driver that computes on the processor is not unless it is asked for.
    pub trial: Option<Result<Tried, String>>,
}

/// Lists and tries the machine's cards, each in a child process of its own. Takes seconds.
///
/// # Errors
/// Why nothing could be found out, in words.
pub fn probe(program: &Path, choice: DeviceChoice) -> Result<Vec<Probed>, String> {
    if choice == DeviceChoice::Processor {
        return Ok(Vec::new());
    }
    let listed: Vec<Listed> = ask(program, &["devices"])?;
    let hardware = listed.iter().any(|l| l.card != Card::Software);
    let tried = |card: Card| card != Card::Software || (choice == DeviceChoice::Card && !hardware);
    let one = |listed: Listed| {
        let trial = tried(listed.card).then(|| ask(program, &["try", &listed.card.to_string()]));
        Probed { listed, trial }
    };
    Ok(listed.into_iter().map(one).collect())
}

/// The card that is used, or why none is, in words.
///
/// # Errors
/// Why none is.
pub fn chosen(probed: &[Probed], choice: DeviceChoice) -> Result<&Tried, String> {
    let mut reasons = Vec::new();
    for Probed { listed, trial } in probed {
        let name = &listed.name;
        match trial {
            Some(Ok(tried)) if tried.deviation >= device::NO_NUMBER => {
                reasons.push(format!("{name} computes wrongly (what it gives are no finite numbers)"));
            }
            Some(Ok(tried)) if tried.deviation > device::TOLERANCE => {
                reasons.push(format!("{name} computes wrongly (off by {:.1e})", tried.deviation));
            }
            Some(Ok(tried)) if choice == DeviceChoice::Auto && tried.speed < 1.0 => {
                reasons.push(format!("{name} is slower than the processor"));
            }
            Some(Ok(tried)) => return Ok(tried),
            Some(Err(reason)) => reasons.push(format!("{name} does not work: {reason}")),
            None => reasons.push(format!("{name} is no card, it computes on the processor")),
        }
    }
    if reasons.is_empty() {
        reasons.push("this machine has no graphics card that its drivers offer for computing".to_owned());
    }
    Err(reasons.join("; "))
}

/// What is known of this machine's cards.
pub(crate) struct Devices {
    choice: DeviceChoice,
    program: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The card to use, or why there is none; `None` until it is looked for.
    card: Option<Result<Card, String>>,
    /// When it last failed.
    failed: Option<Instant>,
    /// Rows of a batch that it has room for, by task.
    room: HashMap<(JobId, String), u32>,
}

/// A task of a job, with its plan.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    pub(crate) job: JobId,
    pub(crate) task: &'a str,
    pub(crate) plan: &'a Plan,
}

/// Where work runs, and what its site's people should know about that.
#[derive(Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) place: Place,
    pub(crate) note: Option<String>,
}

impl Decision {
    fn processor(note: Option<String>) -> Self {
        Self { place: Place::Processor, note }
    }
}

impl Devices {
    pub(crate) fn new(choice: DeviceChoice, program: PathBuf) -> Self {
        Self { choice, program, known: Mutex::default() }
    }

    /// Where work begins. The first that could use a card waits until the cards were tried.
    pub(crate) fn first(&self, work: Work<'_>) -> Decision {
        let amount = device::work(work.plan, work.task);
        let worth = match self.choice {
            DeviceChoice::Processor => false,
            DeviceChoice::Auto => amount >= WORTH_A_CARD,
            DeviceChoice::Card => amount > 0,
        };
        if !worth {
            return Decision::processor(None);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.failed.is_some_and(|at| at.elapsed() < REST) {
            return Decision::processor(Some("the graphics card failed a short time ago".to_owned()));
        }
        let look = || {
            let found = probe(&self.program, self.choice);
            let card = found.and_then(|probed| chosen(&probed, self.choice).map(|tried| tried.card));
            match &card {
                Ok(card) => tracing::info!(%card, "a graphics card is used for training"),
                Err(reason) => tracing::info!(reason, "no graphics card is used for training"),
            }
            card
        };
        match known.card.get_or_insert_with(look).clone() {
            Ok(card) => {
                let rows_at_once = known.room.get(&(work.job, work.task.to_owned())).copied();
                Decision { place: Place::Card { card, rows_at_once }, note: None }
            }
            // Where people asked for a card, they should know that there is none.
            Err(reason) => Decision::processor((self.choice == DeviceChoice::Card).then_some(reason)),
        }
    }

    /// Where work goes on after a card failed: on half the rows at once where its memory was too small and a batch may be
    /// cut, else on the processor.
    pub(crate) fn after(&self, work: Work<'_>, card: Card, rows: Option<u32>, failure: &DeviceFailure) -> Decision {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = rows.unwrap_or_else(|| device::batch(work.plan, work.task));
        if failure.out_of_memory && rows > 1 && device::divides(work.plan, work.task) {
            let half = rows.div_ceil(2);
            if known.room.len() >= REMEMBERED {
                known.room.clear();
            }
            known.room.insert((work.job, work.task.to_owned()), half);
            let note = format!("the graphics card has no room for {rows} rows at once; it goes on with {half}");
            return Decision { place: Place::Card { card, rows_at_once: Some(half) }, note: Some(note) };
        }
        let why = if failure.out_of_memory { "has too little memory" } else { "failed" };
        if !failure.out_of_memory {
            known.failed = Some(Instant::now());
        }
        let reason = shown(&failure.reason, 200);
        Decision::processor(Some(format!("the graphics card {why} ({reason}); the processor goes on")))
    }
}

/// Asks a child process of this program.
fn ask<T: DeserializeOwned>(program: &Path, arguments: &[&str]) -> Result<T, String> {
    let mut child = super::worker::command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("the program cannot be started again: {e}"))?;
    let output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        // What is not whole is no answer.
        let _ = output.map(|output| output.take(ANSWER_BYTES).read_to_string(&mut text));
        text
    });
    let until = Instant::now() + TRIAL;
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if Instant::now() >= until => {
                // Already gone is fine.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("its driver gave no answer within {} seconds", TRIAL.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let text = reader.join().unwrap_or_default();
    let answer: Result<T, String> = serde_json::from_str::<Result<T, String>>(&text)
        .unwrap_or_else(|_| Err(format!("its driver ended the process ({status})")));
    answer.map_err(|reason| shown(&reason, 300))
}

/// What a child says that was asked for cards: `devices` or `try CARD`.
pub(super) fn answer(arguments: &[String]) -> Option<String> {
    let text = match arguments {
        [what] if what == "devices" => serde_json::to_string(&Ok::<_, String>(device::list())),
        [what, card] if what == "try" => {
            let tried = std::panic::catch_unwind(|| {
                let card: Card = card.parse()?;
                device::try_out(card).map_err(|e| e.to_string())
            });
            serde_json::to_string(&tried.unwrap_or_else(|_| Err("its driver failed".to_owned())))
        }
        _ => return None,
    };
    text.ok()
}

#[cfg(test)]
mod tests;
