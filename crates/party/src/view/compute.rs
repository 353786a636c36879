//! What training may take of a machine that people work at too.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

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

impl ComputeLimits {
    /// Most windows of quiet hours: four a day.
    pub const WINDOWS: usize = 28;
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

/// Days as they are written, in the order of the week.
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

impl fmt::Display for QuietHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> = DAYS.iter().filter(|(_, day)| self.days.contains(day)).map(|(name, _)| *name).collect();
        let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        write!(f, "{} {}-{}", days.join(","), time(self.from), time(self.to))
    }
}

impl FromStr for QuietHours {
    type Err = String;

    /// Reads quiet hours: `mon-fri 08:00-17:30`, `sat,sun 00:00-00:00`.
    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || format!("'{text}' is not of the form 'mon-fri 08:00-17:30'");
        let (days, times) = text.trim().split_once(' ').ok_or_else(shape)?;
        let place = |name: &str| DAYS.iter().position(|(day, _)| *day == name).ok_or_else(shape);
        let mut found = BTreeSet::new();
        for part in days.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to) = (place(from)?, place(to)?);
            // From Friday to Monday goes over the end of the week.
            let length = (to + DAYS.len() - from) % DAYS.len();
            found.extend((0..=length).map(|step| DAYS[(from + step) % DAYS.len()].1));
        }
        let minutes = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        let (from, to) = times.trim().split_once('-').ok_or_else(shape)?;
        let (from, to) = (minutes(from).ok_or_else(shape)?, minutes(to).ok_or_else(shape)?);
        Ok(Self { days: found, from, to })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_are_read_as_they_are_written() {
        let read = |text: &str| text.parse::<QuietHours>();
        for text in ["mon,tue,wed,thu,fri 08:00-17:30", "sat,sun 00:00-00:00", "wed 22:15-06:00"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        assert_eq!(read("mon-fri 8:00-17:30").unwrap().to_string(), "mon,tue,wed,thu,fri 08:00-17:30");
        assert_eq!(read("fri-mon 22:00-06:00").unwrap().to_string(), "mon,fri,sat,sun 22:00-06:00");
        for wrong in
            ["", "mon", "mon 8-17", "mon 08:00-24:00", "mon 08:60-09:00", "holiday 08:00-09:00", "mon-x 1:00-2:00"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
