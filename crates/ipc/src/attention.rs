//! What a person should be told while no window is open: how the site is, and what happened that wants somebody.
//!
//! It goes by the engine's status, which needs nobody logged in and names no study and no person: a notification can be
//! read by whoever stands before the screen.

use std::collections::BTreeSet;
use std::time::Duration;

use hospes_party::view::{Notice, Status};
use hospes_protocol::id::Timestamp;

use crate::local::{EngineState, Local};
use crate::socket::Notices;
use crate::table::Call;

/// Time before the end of an approval at which it is told.
const EXPIRY_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// Notices that come within this time are looked at together.
const GATHERED: Duration = Duration::from_millis(500);
/// Between two looks where nothing changes: time alone brings an approval's end nearer.
const LOOK: Duration = Duration::from_secs(15 * 60);
/// Between two attempts to reach an engine.
const RETRY: Duration = Duration::from_secs(2);

/// How the site is, in one word; the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// There is an alarm that nobody has looked into.
    Alarm,
    /// A person must decide.
    Deciding,
    /// Rounds are being worked on.
    Working,
    /// Nothing to do.
    Idle,
    /// The engine does not run.
    Away,
}

impl Mood {
    /// How a site with this status is.
    pub fn of(status: &Status) -> Self {
        if !status.alarms.is_empty() {
            Self::Alarm
        } else if status.waiting > 0 {
            Self::Deciding
        } else if status.working > 0 {
            Self::Working
        } else {
            Self::Idle
        }
    }
}

/// Something that wants somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A request waits for a decision that did not before.
    Request,
    /// An approval ends within a week.
    Expiry,
    /// A new alarm.
    Alarm,
}

/// What was told already.
#[derive(Debug, Default)]
pub struct Attention {
    waiting: u32,
    alarms: BTreeSet<i64>,
    expiry: Option<Timestamp>,
}

impl Attention {
    /// What is new in a status.
    pub fn look(&mut self, status: &Status) -> Vec<Occasion> {
        let mut new = Vec::new();
        if status.waiting > self.waiting {
            new.push(Occasion::Request);
        }
        self.waiting = status.waiting;
        let soon = status.next_expiry.filter(|at| at.since(status.at) <= EXPIRY_MS);
        if soon.is_some() && soon != self.expiry {
            new.push(Occasion::Expiry);
        }
        self.expiry = soon;
        let alarms: BTreeSet<i64> = status.alarms.iter().map(|alarm| alarm.id).collect();
        if !alarms.is_subset(&self.alarms) {
            new.push(Occasion::Alarm);
        }
        self.alarms = alarms;
        new
    }
}

/// Follows an engine for as long as it is polled: `tell` hears how the site is and what is new, at each look.
pub async fn follow(local: &Local, tell: impl Fn(Mood, &EngineState, Vec<Occasion>)) {
    let mut attention = Attention::default();
    loop {
        if let (Ok(mut notices), Ok(client)) = (local.notices().await, local.client().await) {
            while let Ok(status) = client.call::<Status>(&Call::Status {}).await {
                tell(Mood::of(&status), &local.state(), attention.look(&status));
                // Broken off only when it is dropped: what was read by half is read by nobody.
                match tokio::time::timeout(LOOK, next(&mut notices)).await {
                    Ok(true) => tokio::time::sleep(GATHERED).await,
                    Ok(false) => break,
                    Err(_) => {
                        notices = match local.notices().await {
                            Ok(notices) => notices,
                            Err(_) => break,
                        }
                    }
                }
            }
        }
        tell(Mood::Away, &local.state(), Vec::new());
        tokio::time::sleep(RETRY).await;
    }
}

/// Waits for a notice that can change the picture; `false` if the engine went away.
async fn next(notices: &mut Notices) -> bool {
    loop {
        match notices.next().await {
            Ok(None | Some(Notice::Requests | Notice::Jobs | Notice::Alarm | Notice::Settings)) => return true,
            Ok(Some(_)) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn status(waiting: u32, working: u32, alarms: &[i64], expiry_days: Option<i64>) -> Status {
        let now = 1_790_000_000_000_i64;
        let alarms: Vec<_> = alarms
            .iter()
            .map(|id| serde_json::json!({ "id": id, "at": now, "federation": null, "words": "look" }))
            .collect();
        serde_json::from_value(serde_json::json!({
            "phase": "operating", "software": "x", "at": now, "stopped": null, "policy": "strict", "public_data": false,
            "memberships": [], "waiting": waiting, "working": working, "outbox": 0,
            "next_expiry": expiry_days.map(|days| now + days * 24 * 3_600 * 1_000),
            "ledger": { "entries": 0, "root": "0".repeat(64), "witnessed": [] }, "alarms": alarms,
        }))
        .unwrap()
    }

    #[test]
    fn each_thing_is_told_once() {
        let mut attention = Attention::default();
        let mut look = |status: &Status| attention.look(status);
        use Occasion::{Alarm, Expiry, Request};
        assert_eq!(look(&status(1, 0, &[], None)), [Request]);
        assert_eq!(look(&status(1, 0, &[], None)), []);
        assert_eq!(look(&status(2, 0, &[7], Some(30))), [Request, Alarm]);
        assert_eq!(look(&status(1, 0, &[7], Some(6))), [Expiry]);
        assert_eq!(look(&status(1, 0, &[7, 8], Some(6))), [Alarm]);
        // One was acknowledged, one decided on; then a new one comes.
        assert_eq!(look(&status(0, 0, &[8], Some(6))), []);
        assert_eq!(look(&status(1, 0, &[8], None)), [Request]);
    }

    #[test]
    fn what_wants_a_person_comes_before_what_works() {
        let of = |s: &Status| Mood::of(s);
        assert_eq!(of(&status(1, 1, &[1], None)), Mood::Alarm);
        assert_eq!(of(&status(1, 1, &[], None)), Mood::Deciding);
        assert_eq!(of(&status(0, 1, &[], None)), Mood::Working);
        assert_eq!(of(&status(0, 0, &[], None)), Mood::Idle);
    }
}
