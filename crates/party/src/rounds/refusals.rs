//! Which refusals are entered in the ledger one by one. A coordinator asks as often as it likes, and a ledger that fills the
//! disk stops the site: what is refused as before, or beyond a limit, is counted in the hourly summary instead.

use std::collections::HashMap;

use hospes_protocol::approval::Refusal;
use hospes_protocol::id::{FederationId, JobId, Timestamp};
use hospes_protocol::limits;

/// How long [`limits::REFUSALS`] are good for, in milliseconds.
const HOUR_MS: i64 = 3_600 * 1_000;
/// Runs of which the last refusal is remembered.
const REMEMBERED: usize = 1_000;

/// What was refused lately.
#[derive(Default)]
pub(crate) struct Refusals {
    last: HashMap<(FederationId, JobId), Refusal>,
    /// Entries of each federation, and since when they are counted.
    entered: HashMap<FederationId, (Timestamp, usize)>,
}

impl Refusals {
    /// Whether this is what was last said about a run.
    pub(super) fn is_repeated(&self, federation: FederationId, job: JobId, refusal: &Refusal) -> bool {
        self.last.get(&(federation, job)) == Some(refusal)
    }

    /// Remembers the answer about a run, once it is durable.
    pub(super) fn remember(&mut self, federation: FederationId, job: JobId, answer: Option<&Refusal>) {
        match answer {
            None => drop(self.last.remove(&(federation, job))),
            Some(refusal) => {
                if self.last.len() >= REMEMBERED {
                    self.last.clear();
                }
                self.last.insert((federation, job), refusal.clone());
            }
        }
    }

    /// Whether another refusal of a federation is entered now; the entry counts.
    pub(super) fn is_entered(&mut self, federation: FederationId, now: Timestamp) -> bool {
        let (since, count) = self.entered.entry(federation).or_insert((now, 0));
        if !(0..HOUR_MS).contains(&now.since(*since)) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= limits::REFUSALS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::approval::RefusalCode;
    use hospes_protocol::id::SiteId;

    #[test]
    fn so_many_are_entered_in_an_hour_of_each_federation() {
        let mut refusals = Refusals::default();
        let (one, other) = (SiteId::from_bytes([1; 16]), SiteId::from_bytes([2; 16]));
        let mut entered = |federation, ms| refusals.is_entered(federation, Timestamp::from_millis(ms));
        let first = (0..500).filter(|n| entered(one, *n)).count();
        assert_eq!(first, limits::REFUSALS);
        assert!(entered(other, 500) && !entered(one, HOUR_MS - 1) && entered(one, HOUR_MS));
        // A clock that was turned back does not silence the ledger.
        assert!(entered(one, 5));
    }

    #[test]
    fn a_refusal_is_repeated_until_another_answer_is_given() {
        let mut refusals = Refusals::default();
        let (federation, job) = (SiteId::from_bytes([1; 16]), JobId::new(Timestamp::from_millis(1), [1; 10]));
        let [stopped, revoked] = [RefusalCode::Stopped, RefusalCode::Revoked].map(|code| Refusal::new(code, "words"));
        assert!(!refusals.is_repeated(federation, job, &stopped));
        refusals.remember(federation, job, Some(&stopped));
        assert!(refusals.is_repeated(federation, job, &stopped) && !refusals.is_repeated(federation, job, &revoked));
        refusals.remember(federation, job, None);
        assert!(!refusals.is_repeated(federation, job, &stopped));
        for n in 0..3 * REMEMBERED {
            let job = JobId::new(Timestamp::from_millis(i64::try_from(n).unwrap()), [0; 10]);
            refusals.remember(federation, job, Some(&stopped));
        }
        assert!(refusals.last.len() <= REMEMBERED);
    }
}
