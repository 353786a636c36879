//! The coordinator's own ledger: what it records, in the transaction of what it records.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use hospes_ledger::{Action, Actor, Engine, Entry, Ledger};
use hospes_protocol::id::{SiteId, Timestamp};

use crate::store::Tx;
use crate::{Error, SOFTWARE, random};

/// Entries of one kind that a member can cause within [`WINDOW_MS`]; more are counted, and told in one entry at its end.
const ENTRIES: u32 = 5;
/// Time over which entries of one kind are counted, in milliseconds.
const WINDOW_MS: i64 = 10 * 60 * 1_000;

/// Writes ledger entries.
#[derive(Debug, Clone)]
pub struct Audit {
    engine: Engine,
    windows: Arc<Mutex<BTreeMap<Kind, Window>>>,
}

/// What is counted together: member, action, and what it is about.
type Kind = (SiteId, &'static str, String);

#[derive(Debug)]
struct Window {
    since: Timestamp,
    made: u32,
    /// How many were left out, and the last of them.
    left: Option<(u32, Entry)>,
}

impl Default for Audit {
    fn default() -> Self {
        Self { engine: Engine::new(SOFTWARE), windows: Arc::default() }
    }
}

impl Audit {
    /// An entry of this program, a success with nothing else to say; fill in the other fields as needed.
    pub fn entry(&self, at: Timestamp, actor: Actor, action: Action) -> Entry {
        Entry::new(at, actor, action, self.engine.clone())
    }

    /// Appends entries; they are in the ledger when the transaction commits. If this fails, the transaction must not.
    ///
    /// # Errors
    /// [`Error::Ledger`] or [`Error::Random`].
    pub async fn record(&self, tx: &mut Tx, entries: &[Entry]) -> Result<Range<u64>, Error> {
        for entry in entries {
            tracing::trace!(transaction = tx.name(), action = entry.action.as_str(), "records");
        }
        Ok(Ledger::on(tx.conn()).append_all(entries, &random()?).await?)
    }

    /// An entry that a member can cause as often as it likes: given back if it is to be made now. The ledger is for
    /// ever, and nobody may fill it.
    pub(crate) fn limited(&self, site: SiteId, about: impl ToString, entry: Entry) -> Option<Entry> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = (site, entry.action.as_str(), about.to_string());
        let window = windows.entry(kind).or_insert(Window { since: entry.at, made: 0, left: None });
        if window.made < ENTRIES {
            window.made += 1;
            return Some(entry);
        }
        let left = window.left.take().map_or(0, |(count, _)| count);
        window.left = Some((left.saturating_add(1), entry));
        None
    }

    /// Entries for what was left out in the windows that are over: the last of each kind, and how many there were.
    pub(crate) fn left_out(&self, now: Timestamp) -> Vec<Entry> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = Vec::new();
        windows.retain(|_, window| {
            let open = now.since(window.since) < WINDOW_MS;
            if !open && let Some((count, mut last)) = window.left.take() {
                last.at = now;
                let reason = last.reason.take().map(|reason| format!(": {reason}")).unwrap_or_default();
                last.reason = Some(format!("the last of {count} more in {} minutes{reason}", WINDOW_MS / 60_000));
                entries.push(last);
            }
            open
        });
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_can_repeat_fills_no_ledger_and_is_counted() {
        let audit = Audit::default();
        let (one, two) = (SiteId::from_bytes([1; 16]), SiteId::from_bytes([2; 16]));
        let at = Timestamp::from_millis;
        let entry = |site, ms: i64| {
            let entry = audit.entry(at(ms), Actor::peer(site), Action::UploadRefused).refused(format!("no. {ms}"));
            audit.limited(site, "a round", entry)
        };
        assert_eq!((0..1_000).filter_map(|ms| entry(one, ms)).count(), 5);
        assert!(entry(two, 3).is_some(), "one member's noise silences another");
        assert!(audit.left_out(at(WINDOW_MS - 1)).is_empty());
        let told = audit.left_out(at(WINDOW_MS + 3));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].reason.as_deref(), Some("the last of 995 more in 10 minutes: no. 999"));
        assert_eq!((told[0].at, told[0].outcome), (at(WINDOW_MS + 3), hospes_ledger::Outcome::Refused));
        assert!(audit.left_out(at(2 * WINDOW_MS)).is_empty(), "told once");
        assert!(entry(one, 2 * WINDOW_MS).is_some());
    }
}
