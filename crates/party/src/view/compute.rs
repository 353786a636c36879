//! What training may take of a machine that people work at too.

use std::collections::BTreeSet;

use hospes_protocol::id::Timestamp;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// When and how much of this machine training may take. The default is all of it, always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct ComputeLimits {
    /// When nothing is computed, by the machine's own wall clock.
    pub quiet: Vec<QuietHours>,
    /// Percent of the time in which training computes; it rests between its steps for the remainder. From 5 to 100.
    pub share: u8,
    /// Most threads of the processor; `None` for all.
    pub threads: Option<u16>,
    /// Whether training waits while somebody works at the machine or in the window.
    pub yields: bool,
}

impl Default for ComputeLimits {
    fn default() -> Self {
        Self { quiet: Vec::new(), share: 100, threads: None, yields: false }
    }
}

/// Hours of some days of the week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// Days on which they begin.
    pub days: BTreeSet<Weekday>,
    /// Beginning, in minutes after midnight.
    pub from: u16,
    /// End, in minutes after midnight; on the next day if it is not after the beginning.
    pub to: u16,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they are the days of the week")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// Why nothing is computed at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// It is quiet hours.
    QuietHours {
        /// When they end.
        until: Timestamp,
    },
    /// Somebody works at this machine or in the window.
    SomebodyWorks,
}
