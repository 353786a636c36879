//! How much one peer may ask for at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hospes_protocol::id::SiteId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Addresses remembered at the same time; beyond it those that have their full allowance back are forgotten.
const REMEMBERED: usize = 10_000;

/// A thread that panicked while it held the lock left nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attempts a minute from one address.
pub(super) struct Rates {
    per_minute: u32,
    left: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl Rates {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, left: Mutex::default() }
    }

    /// Takes one attempt; `false` if there is none left.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> bool {
        let most = f64::from(self.per_minute);
        let gained = |(left, at): (f64, Instant)| {
            (left + now.saturating_duration_since(at).as_secs_f64() * most / 60.0).min(most)
        };
        let mut all = locked(&self.left);
        if all.len() >= REMEMBERED && !all.contains_key(&address) {
            all.retain(|_, entry| gained(*entry) < most);
            if all.len() >= REMEMBERED {
                return false;
            }
        }
        let left = gained(*all.entry(address).or_insert((most, now)));
        let allowed = left >= 1.0;
        all.insert(address, (if allowed { left - 1.0 } else { left }, now));
        allowed
    }
}

/// Transfers that move bytes at the same time, of all sites. With a chunk and a window for each, this bounds the memory
/// of a round, however many sites there are; the others wait for their turn.
const AT_ONCE: usize = 48;
/// How long a turn is kept for a site that asked how far its upload is, and was told to go on.
const KEPT: Duration = Duration::from_secs(10);

/// Transfers of each site that are going on, and those of all sites whose turn it is.
pub(super) struct Transfers {
    most: usize,
    open: Arc<Mutex<HashMap<SiteId, usize>>>,
    turns: Arc<Semaphore>,
    kept: Arc<Mutex<HashMap<SiteId, OwnedSemaphorePermit>>>,
    kept_for: Duration,
}

/// One transfer's place; given back when dropped.
pub(super) struct Transfer {
    open: Arc<Mutex<HashMap<SiteId, usize>>>,
    site: SiteId,
}

impl Transfers {
    pub(super) fn new(most: usize) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { most, open: Arc::default(), turns, kept: Arc::default(), kept_for: KEPT }
    }

    /// Waits until it is this transfer's turn, first come, first served. Its turn lasts until the value is dropped.
    pub(super) async fn turn(&self, site: SiteId) -> Option<OwnedSemaphorePermit> {
        let kept = locked(&self.kept).remove(&site);
        match kept {
            Some(turn) => Some(turn),
            // `None` only if the semaphore were closed, which nobody does.
            None => self.turns.clone().acquire_owned().await.ok(),
        }
    }

    /// Waits for a turn and keeps it for a short while: a site that waits before it sends costs no memory.
    pub(super) async fn keep_turn(&self, site: SiteId) {
        let Some(turn) = self.turn(site).await else { return };
        locked(&self.kept).insert(site, turn);
        let (kept, time) = (self.kept.clone(), self.kept_for);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            // A later turn of this site may go with it; then it waits for another.
            locked(&kept).remove(&site);
        });
    }

    /// A place for one more transfer, if there is one.
    pub(super) fn enter(&self, site: SiteId) -> Option<Transfer> {
        let mut open = locked(&self.open);
        let count = open.entry(site).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Transfer { open: self.open.clone(), site })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut open = locked(&self.open);
        if let Some(count) = open.get_mut(&self.site) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_run_out_for_one_address_and_come_back() {
        let rates = Rates::new(6);
        let (one, two): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        assert_eq!((0..100).filter(|_| rates.take(one, start)).count(), 6);
        assert!(rates.take(two, start));
        assert_eq!((0..100).filter(|_| rates.take(one, start + Duration::from_secs(20))).count(), 2);
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_without_bound() {
        let rates = Rates::new(1);
        let start = Instant::now();
        for n in 0..10_500u32 {
            rates.take(IpAddr::from(n.to_be_bytes()), start);
        }
        assert!(rates.left.lock().unwrap().len() <= REMEMBERED);
        let late = start + Duration::from_secs(61);
        assert!(rates.take("203.0.113.1".parse().unwrap(), late), "the flood locks others out for good");
    }

    #[tokio::test]
    async fn a_turn_is_kept_for_the_site_that_waited_and_given_back_if_it_does_not_come() {
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
        let transfers = Transfers { kept_for: long, ..Transfers::new(2) };
        let (one, two) = (SiteId::of_key(&[1; 32]), SiteId::of_key(&[2; 32]));
        let mut others = Vec::new();
        for _ in 1..AT_ONCE {
            others.push(transfers.turn(two).await);
        }
        transfers.keep_turn(one).await;
        assert!(tokio::time::timeout(short, transfers.turn(two)).await.is_err(), "a kept turn was given away");
        assert!(transfers.turn(one).await.is_some());
        let transfers = Transfers { kept_for: short, ..transfers };
        transfers.keep_turn(one).await;
        assert!(tokio::time::timeout(long, transfers.turn(two)).await.is_ok(), "a turn is kept for ever");
    }

    #[test]
    fn transfers_of_one_site_are_counted() {
        let transfers = Transfers::new(2);
        let site = SiteId::of_key(&[1; 32]);
        let one = transfers.enter(site);
        let _two = transfers.enter(site);
        assert!(one.is_some() && transfers.enter(site).is_none());
        drop(one);
        assert!(transfers.enter(site).is_some());
    }
}
