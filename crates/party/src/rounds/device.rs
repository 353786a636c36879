//! On which device work runs: what was chosen, what the machine has, and what follows when a card fails.
//!
//! A card is looked for, tried and used in child processes only. What it did last decides where the next work runs, so that
//! a card that fails costs one attempt and no round.

use std::collections::HashMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hospes_cohort::device::{self, Card, Listed, Place, Tried};
use hospes_cohort::worker::DeviceFailure;
use hospes_protocol::id::JobId;
use hospes_protocol::plan::Plan;
use hospes_protocol::text::shown;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::child::Slot;
use crate::config::Executor;
use crate::view::CardView;

/// Multiplications of one step below which a card is not worth its while: telling it what to do takes longer.
const WORTH_A_CARD: u64 = 20_000_000;
/// How long a card that failed is left alone; twice as long with each failure after which it did not work once.
const REST: Duration = Duration::from_secs(15 * 60);
/// So often it is twice as long: up to 16 hours.
const DOUBLED: u32 = 6;
/// Longest time to list cards or try one; the first step on a card compiles its programs.
const TRIAL: Duration = Duration::from_secs(180);
/// Longest answer of a child that lists or tries cards.
const ANSWER_BYTES: u64 = 64 << 10;
/// Tasks of which it is remembered how many rows a card has room for.
const REMEMBERED: usize = 1_000;

/// What networks are to be trained on: `auto`, `cpu`, `gpu`, or one card by its kind and number, such as `discrete:0`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(into = "String", try_from = "String")]
#[ts(type = "string")]
pub enum DeviceChoice {
    /// A card where the machine has one that computes right, is faster than the processor and is worth its while.
    #[default]
    Auto,
    /// The processor.
    Processor,
    /// A card wherever there is one, also a slow one; the processor only where none works.
    Card,
    /// This card and no other; the processor where it is not there or does not work.
    Only(Card),
}

impl DeviceChoice {
    /// What it means, in words.
    pub fn words(self) -> String {
        match self {
            Self::Auto => "a graphics card where one is faster, else the processor".to_owned(),
            Self::Processor => "the processor only".to_owned(),
            Self::Card => "a graphics card wherever there is one".to_owned(),
            Self::Only(card) => format!("the graphics card {card} only"),
        }
    }

    /// Whether somebody asked for a card, and wants to know if there is none.
    pub const fn asks_for_card(self) -> bool {
        matches!(self, Self::Card | Self::Only(_))
    }

    /// Whether a card is tried before it may be used. A driver that computes on the processor is no card, and is taken only
    /// where it was asked for.
    fn tries(self, card: Card, has_hardware: bool) -> bool {
        match self {
            Self::Processor => false,
            Self::Auto => card != Card::Software,
            Self::Card => card != Card::Software || !has_hardware,
            Self::Only(wanted) => card == wanted,
        }
    }
}

/// The word that stands for it.
impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Processor => f.write_str("cpu"),
            Self::Card => f.write_str("gpu"),
            Self::Only(card) => card.fmt(f),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Processor),
            "gpu" => Ok(Self::Card),
            card => card.parse::<Card>().map(Self::Only).map_err(|_| {
                format!(
                    "'{text}' is no device: write auto, cpu, gpu, or a card as 'hospes-site device show' lists it, such as \
                     discrete:0"
                )
            }),
        }
    }
}

/// A card and how it did, if it was tried.
#[derive(Debug, Clone)]
pub struct Probed {
    /// The card.
    pub listed: Listed,
    /// How it did; `None` if it was not tried: it is no card but a driver that computes on the processor, or not the chosen one.
    pub trial: Option<Result<Tried, String>>,
}

/// Lists and tries the machine's cards, each in a child process of its own. Takes seconds.
///
/// # Errors
/// Why nothing could be found out, in words.
pub fn probe(program: &Path, choice: DeviceChoice) -> Result<Vec<Probed>, String> {
    probe_in(&Slot::default(), program, choice)
}

fn probe_in(slot: &Slot, program: &Path, choice: DeviceChoice) -> Result<Vec<Probed>, String> {
    if choice == DeviceChoice::Processor {
        return Ok(Vec::new());
    }
    let listed: Vec<Listed> = ask(slot, program, &["devices"])?;
    let has_hardware = listed.iter().any(|l| l.card != Card::Software);
    let one = |listed: Listed| {
        let trial =
            choice.tries(listed.card, has_hardware).then(|| ask(slot, program, &["try", &listed.card.to_string()]));
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
        if matches!(choice, DeviceChoice::Only(wanted) if wanted != listed.card) {
            continue;
        }
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
        reasons.push(match choice {
            DeviceChoice::Only(wanted) => {
                format!(
                    "the graphics card that was chosen, {wanted}, is not among those that this machine's drivers offer"
                )
            }
            _ => "this machine has no graphics card that its drivers offer for computing".to_owned(),
        });
    }
    Err(reasons.join("; "))
}

/// What is known of this machine's cards.
pub(crate) struct Devices {
    choice: DeviceChoice,
    program: PathBuf,
    /// What the machine has; `None` until it is looked for. Locked while somebody looks: whoever needs a card waits for the
    /// answer, and nobody else does.
    found: Mutex<Option<Found>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// When the card last failed, and how often since it last worked.
    failed: Option<(Instant, u32)>,
    /// Rows of a batch that it has room for, by task; `None` where it has too little for any.
    room: HashMap<(JobId, String), Option<u32>>,
}

impl Known {
    fn rests(&self) -> bool {
        self.failed.is_some_and(|(at, times)| at.elapsed() < REST * 2u32.pow(times.saturating_sub(1).min(DOUBLED)))
    }
}

/// The cards of the machine, and the one to use or why there is none.
#[derive(Clone)]
struct Found {
    probed: Vec<Probed>,
    card: Result<Card, String>,
}

/// A task of a job, with its plan.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    pub(crate) job: JobId,
    pub(crate) task: &'a str,
    pub(crate) plan: &'a Plan,
    /// Rows of the dataset.
    pub(crate) rows: u64,
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
        Self { choice, program, found: Mutex::default(), known: Mutex::default() }
    }

    /// Those that work is executed on.
    pub(crate) fn of(executor: &Executor, choice: DeviceChoice) -> Self {
        match executor {
            Executor::Child { program } => Self::new(choice, program.clone()),
            // Only child processes open cards.
            Executor::Thread => Self::new(DeviceChoice::Processor, PathBuf::new()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where work begins. The first that could use a card waits until the cards were tried, by children in its own slot:
    /// they are stopped with it.
    pub(super) fn first(&self, work: Work<'_>, slot: &Slot) -> Decision {
        let amount = device::work(work.plan, work.task);
        let worth = match self.choice {
            DeviceChoice::Processor => false,
            DeviceChoice::Auto => amount >= WORTH_A_CARD,
            DeviceChoice::Card | DeviceChoice::Only(_) => amount > 0,
        };
        if !worth {
            return Decision::processor(None);
        }
        let (rests, room) = {
            let known = self.known();
            (known.rests(), known.room.get(&(work.job, work.task.to_owned())).copied())
        };
        if rests {
            return Decision::processor(Some("the graphics card failed a short time ago".to_owned()));
        }
        if room == Some(None) {
            return Decision::processor(Some("the graphics card has too little memory for this task".to_owned()));
        }
        match self.look(slot).card {
            Ok(card) => Decision { place: Place::Card { card, rows_at_once: room.flatten() }, note: None },
            // Where people asked for a card, they should know that there is none.
            Err(reason) => Decision::processor(self.choice.asks_for_card().then_some(reason)),
        }
    }

    /// The cards and the one to use: looked for once.
    fn look(&self, slot: &Slot) -> Found {
        let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*known {
            return found.clone();
        }
        let (probed, card) = match probe_in(slot, &self.program, self.choice) {
            Ok(probed) => {
                let card = chosen(&probed, self.choice).map(|tried| tried.card);
                (probed, card)
            }
            Err(reason) => (Vec::new(), Err(reason)),
        };
        if slot.is_stopped() {
            // Children that were killed say nothing about cards; the next work looks again.
            return Found { probed: Vec::new(), card: Err("it was stopped".to_owned()) };
        }
        match &card {
            Ok(card) => tracing::info!(%card, "a graphics card is used for training"),
            Err(reason) => tracing::info!(reason, "no graphics card is used for training"),
        }
        known.insert(Found { probed, card }).clone()
    }

    pub(crate) fn choice(&self) -> DeviceChoice {
        self.choice
    }

    /// The machine's cards, and the name of the one that large work runs on, or why none does. The first who asks waits
    /// until they were tried. Where the processor was chosen, cards are listed for people who may choose one, and for nobody
    /// else: a driver that breaks is a reason to choose it.
    pub(crate) fn cards(&self, may_choose: bool) -> (Vec<CardView>, Result<String, String>) {
        if self.choice == DeviceChoice::Processor {
            let listed = if may_choose { self.listed() } else { Vec::new() };
            return (listed, Err("the processor was chosen".to_owned()));
        }
        let found = self.look(&Slot::default());
        let view = |Probed { listed, trial }: &Probed| {
            let (speed, reason) = match trial {
                Some(Ok(tried)) if tried.deviation > device::TOLERANCE => {
                    (None, Some(format!("it computes wrongly (off by {:.1e})", tried.deviation)))
                }
                Some(Ok(tried)) => (Some(tried.speed), None),
                Some(Err(reason)) => (None, Some(reason.clone())),
                None if listed.card != Card::Software => (None, None),
                None => (None, Some("it is no card, it computes on the processor".to_owned())),
            };
            CardView { card: listed.card.to_string(), name: shown(&listed.name, 200), speed, reason }
        };
        let name = |card: Card| found.probed.iter().find(|p| p.listed.card == card).map(|p| shown(&p.listed.name, 200));
        let used = found.card.clone().map(|card| name(card).unwrap_or_else(|| card.to_string()));
        (found.probed.iter().map(view).collect(), used)
    }

    /// The cards that could be chosen where none is used: listed, by a child, and not opened.
    fn listed(&self) -> Vec<CardView> {
        if self.program.as_os_str().is_empty() {
            return Vec::new();
        }
        let listed: Vec<Listed> = ask(&Slot::default(), &self.program, &["devices"]).unwrap_or_default();
        let view =
            |l: Listed| CardView { card: l.card.to_string(), name: shown(&l.name, 200), speed: None, reason: None };
        listed.into_iter().filter(|l| l.card != Card::Software).map(view).collect()
    }

    /// Where work goes on after a card failed: on half the rows at once where its memory was too small and a batch may be
    /// cut, else on the processor.
    pub(super) fn after(&self, work: Work<'_>, card: Card, rows: Option<u32>, failure: &DeviceFailure) -> Decision {
        let reason = shown(&failure.reason, 200);
        if !failure.out_of_memory {
            return Decision::processor(Some(format!("the graphics card failed ({reason}); the processor goes on")));
        }
        // A batch has no more rows than there are.
        let all = u32::try_from(work.rows).unwrap_or(u32::MAX);
        let rows = rows.unwrap_or_else(|| device::batch(work.plan, work.task)).min(all);
        let half = (rows > 1 && device::divides(work.plan, work.task)).then(|| rows.div_ceil(2));
        let mut known = self.known();
        if known.room.len() >= REMEMBERED {
            known.room.clear();
        }
        known.room.insert((work.job, work.task.to_owned()), half);
        drop(known);
        match half {
            Some(half) => {
                let note = format!("the graphics card has no room for {rows} rows at once; it goes on with {half}");
                Decision { place: Place::Card { card, rows_at_once: Some(half) }, note: Some(note) }
            }
            None => {
                let note = format!("the graphics card has too little memory ({reason}); the processor goes on");
                Decision::processor(Some(note))
            }
        }
    }

    /// The card failed, and it was the card's fault: it is left alone for a while.
    pub(super) fn blame(&self) {
        let mut known = self.known();
        let times = known.failed.map_or(0, |(_, times)| times);
        known.failed = Some((Instant::now(), times.saturating_add(1)));
    }

    /// The card did what it was asked.
    pub(super) fn worked(&self) {
        self.known().failed = None;
    }
}

/// Asks a child process of this program.
fn ask<T: DeserializeOwned>(slot: &Slot, program: &Path, arguments: &[&str]) -> Result<T, String> {
    let (input, output) = slot
        .start(super::worker::command(program).args(arguments).stderr(Stdio::null()))
        .map_err(|e| format!("the program cannot be started again: {e}"))?;
    drop(input);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        // What is not whole is no answer.
        let _ = output.take(ANSWER_BYTES).read_to_string(&mut text);
        text
    });
    let status = loop {
        match slot.ended().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if slot.silence() >= TRIAL => {
                slot.end();
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
