//! What training may take of a machine that people work at too.

use std::collections::BTreeSet;

use anyhow::Result;
use hospes_ipc::Call;
use hospes_party::view::{ComputeLimits, QuietHours, Weekday};

use super::Asking;
use crate::arguments::LimitsCommand;
use crate::output;

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

pub(crate) async fn limits(asking: &mut Asking, command: LimitsCommand) -> Result<()> {
    if let LimitsCommand::Set { quiet, share, threads, pause_while_active } = command {
        let limits = ComputeLimits { quiet, share, threads, yields: pause_while_active };
        let () = asking.ask(&Call::SetComputeLimits { limits }).await?;
    }
    let limits: ComputeLimits = asking.ask(&Call::ComputeLimits {}).await?;
    asking.answer(&limits, |limits| {
        let quiet: Vec<String> = limits.quiet.iter().map(written).collect();
        output::say(&match quiet.as_slice() {
            [] => "Training computes at any hour.".to_owned(),
            hours => format!("Training waits in quiet hours: {}.", hours.join(", ")),
        });
        let threads = limits.threads.map_or("all threads".to_owned(), |n| format!("at most {n} threads"));
        output::say(&format!("It takes {} % of the time, and {threads} of the processor.", limits.share));
        if limits.yields {
            output::say("It waits while somebody works at this machine.");
        }
    })
}

fn written(hours: &QuietHours) -> String {
    let days: Vec<&str> = DAYS.iter().filter(|(_, day)| hours.days.contains(day)).map(|(name, _)| *name).collect();
    let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    format!("{} {}-{}", days.join(","), time(hours.from), time(hours.to))
}

/// Reads quiet hours: `mon-fri 08:00-17:30`, `sat,sun 00:00-00:00`.
pub(crate) fn read(text: &str) -> Result<QuietHours, String> {
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
    Ok(QuietHours { days: found, from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_are_read_as_they_are_written() {
        for text in ["mon,tue,wed,thu,fri 08:00-17:30", "sat,sun 00:00-00:00", "wed 22:15-06:00"] {
            assert_eq!(written(&read(text).unwrap()), text);
        }
        assert_eq!(written(&read("mon-fri 8:00-17:30").unwrap()), "mon,tue,wed,thu,fri 08:00-17:30");
        assert_eq!(written(&read("fri-mon 22:00-06:00").unwrap()), "mon,fri,sat,sun 22:00-06:00");
        for wrong in
            ["", "mon", "mon 8-17", "mon 08:00-24:00", "mon 08:60-09:00", "holiday 08:00-09:00", "mon-x 1:00-2:00"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
