//! How much one peer may ask for at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hospes_protocol::id::SiteId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Addresses or sites remembered at the same time; beyond it those that have their full allowance back are forgotten.
const REMEMBERED: usize = 10_000;

/// A thread that panicked while it held the lock left nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often each address or site may do something: a leaky bucket for each.
pub(super) struct Rates<K> {
    most: f64,
    per_second: f64,
    left: Mutex<HashMap<K, (f64, Instant)>>,
}

impl<K: Copy + Eq + Hash> Rates<K> {
    /// So often in a span of seconds, all of it at once if need be.
    pub(super) fn new(times: u32, seconds: u32) -> Self {
        let most = f64::from(times);
        Self { most, per_second: most / f64::from(seconds), left: Mutex::default() }
    }

    /// Takes one attempt; `false` if there is none left.
    pub(super) fn take(&self, key: K, now: Instant) -> bool {
        let gained = |(left, at): (f64, Instant)| {
            (left + now.saturating_duration_since(at).as_secs_f64() * self.per_second).min(self.most)
        };
        let mut all = locked(&self.left);
        if all.len() >= REMEMBERED && !all.contains_key(&key) {
            all.retain(|_, entry| gained(*entry) < self.most);
            if all.len() >= REMEMBERED {
                return false;
            }
        }
        let left = gained(*all.entry(key).or_insert((self.most, now)));
        let allowed = left >= 1.0;
        all.insert(key, (if allowed { left - 1.0 } else { left }, now));
        allowed
    }
}

/// Transfers that move bytes at the same time, of all sites. With a chunk and a window for each, this bounds the memory
/// of a round, however many sites there are; the others wait for their turn.
const AT_ONCE: usize = 48;
/// How many of them one site may have: as many as its link moves at the same time.
const OF_A_SITE: usize = 4;
/// How long a turn lasts where others wait: however little a site sends or reads, it holds nobody up for longer.
const TURN: Duration = Duration::from_secs(60);
/// How long a turn is kept for a site that asked how far its upload is, and was told to go on.
const KEPT: Duration = Duration::from_secs(10);

/// Transfers of each site that are going on, and those of all sites whose turn it is.
pub(super) struct Transfers {
    most: usize,
    open: Arc<Mutex<HashMap<SiteId, Going>>>,
    turns: Arc<Semaphore>,
    of_sites: Mutex<HashMap<SiteId, Arc<Semaphore>>>,
    /// How many wait for one of all turns.
    waiting: Arc<AtomicUsize>,
    lasts: Duration,
    kept: Arc<Mutex<HashMap<SiteId, Turn>>>,
    kept_for: Duration,
}

/// One transfer's turn; given back when dropped.
pub(super) struct Turn {
    _of_site: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
    since: Instant,
    lasts: Duration,
    waiting: Arc<AtomicUsize>,
}

impl Turn {
    /// Whether it is somebody else's turn now: the transfer ends, and goes on later from where it is.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 && self.since.elapsed() >= self.lasts
    }
}

/// Somebody who waits for a turn, until they have it or give up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn on(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many transfers of a site are going on, and what ends them.
#[derive(Default)]
struct Going {
    count: usize,
    end: CancellationToken,
}

/// One transfer's place; given back when dropped.
pub(super) struct Transfer {
    open: Arc<Mutex<HashMap<SiteId, Going>>>,
    site: SiteId,
    end: CancellationToken,
}

impl Transfer {
    /// Cancelled when the site is locked out.
    pub(super) fn end(&self) -> &CancellationToken {
        &self.end
    }
}

impl Transfers {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            open: Arc::default(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            of_sites: Mutex::default(),
            waiting: Arc::default(),
            lasts: TURN,
            kept: Arc::default(),
            kept_for: KEPT,
        }
    }

    /// Waits until it is this transfer's turn: first among those of its site, then among all, first come, first served.
    pub(super) async fn turn(&self, site: SiteId) -> Option<Turn> {
        let kept = locked(&self.kept).remove(&site);
        if let Some(turn) = kept {
            return Some(Turn { since: Instant::now(), ..turn });
        }
        let of_site = locked(&self.of_sites).entry(site).or_insert_with(|| Arc::new(Semaphore::new(OF_A_SITE))).clone();
        // `None` only if a semaphore were closed, which nobody does.
        let of_site = of_site.acquire_owned().await.ok()?;
        let waits = Waiting::on(&self.waiting);
        let of_all = self.turns.clone().acquire_owned().await.ok()?;
        drop(waits);
        let (since, lasts, waiting) = (Instant::now(), self.lasts, self.waiting.clone());
        Some(Turn { _of_site: of_site, _of_all: of_all, since, lasts, waiting })
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
        let going = open.entry(site).or_default();
        if going.count >= self.most {
            return None;
        }
        going.count += 1;
        Some(Transfer { open: self.open.clone(), site, end: going.end.clone() })
    }

    /// Ends what is going on of a site; what begins later goes on.
    pub(super) fn end(&self, site: SiteId) {
        if let Some(going) = locked(&self.open).get_mut(&site) {
            std::mem::take(&mut going.end).cancel();
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut open = locked(&self.open);
        if let Some(going) = open.get_mut(&self.site) {
            going.count -= 1;
            if going.count == 0 {
                open.remove(&self.site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn attempts_run_out_for_one_address_and_come_back() {
        let rates = Rates::new(6, 60);
        let (one, two): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        assert_eq!((0..100).filter(|_| rates.take(one, start)).count(), 6);
        assert!(rates.take(two, start));
        assert_eq!((0..100).filter(|_| rates.take(one, start + Duration::from_secs(20))).count(), 2);
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_without_bound() {
        let rates = Rates::new(1, 60);
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
        for n in 1..AT_ONCE {
            others.push(transfers.turn(member(10 + n / OF_A_SITE)).await);
        }
        transfers.keep_turn(one).await;
        assert!(tokio::time::timeout(short, transfers.turn(two)).await.is_err(), "a kept turn was given away");
        assert!(transfers.turn(one).await.is_some());
        let transfers = Transfers { kept_for: short, ..transfers };
        transfers.keep_turn(one).await;
        assert!(tokio::time::timeout(long, transfers.turn(two)).await.is_ok(), "a turn is kept for ever");
    }

    fn member(n: usize) -> SiteId {
        SiteId::of_key(&[u8::try_from(n).unwrap(); 32])
    }

    #[tokio::test]
    async fn a_turn_ends_where_others_wait_and_no_site_has_more_than_its_share() {
        let transfers = Arc::new(Transfers { lasts: Duration::ZERO, ..Transfers::new(8) });
        let mut turns = Vec::new();
        for n in 0..AT_ONCE {
            turns.push(transfers.turn(member(n / OF_A_SITE)).await.unwrap());
        }
        assert!(!turns[0].is_over(), "nobody waits");
        let waits = tokio::spawn({
            let transfers = transfers.clone();
            async move { transfers.turn(member(100)).await }
        });
        while !turns[0].is_over() {
            tokio::task::yield_now().await;
        }
        turns.pop();
        let next = waits.await.unwrap();
        assert!(next.is_some() && !turns[0].is_over());
        // There is room again, for everybody but those who have their share.
        drop(next);
        let soon = Duration::from_millis(50);
        assert!(
            tokio::time::timeout(soon, transfers.turn(member(0))).await.is_err(),
            "one site has more than its share"
        );
        assert!(transfers.turn(member(101)).await.is_some());
    }

    #[test]
    fn transfers_of_one_site_are_counted() {
        let transfers = Transfers::new(2);
        let site = SiteId::of_key(&[1; 32]);
        let one = transfers.enter(site);
        let _two = transfers.enter(site);
        assert!(one.is_some() && transfers.enter(site).is_none());
        drop(one);
        let two = transfers.enter(site).unwrap();
        transfers.end(site);
        drop(transfers.enter(SiteId::of_key(&[2; 32])));
        assert!(two.end().is_cancelled());
        drop(two);
        assert!(!transfers.enter(site).unwrap().end().is_cancelled(), "what begins later ends, too");
    }
}
