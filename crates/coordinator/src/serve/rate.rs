//! How much one peer may ask for at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hospes_protocol::id::SiteId;
use tokio::time::Instant;

/// Addresses remembered at the same time; beyond it those that have their full allowance back are forgotten.
const REMEMBERED: usize = 10_000;

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
        let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Transfers of each site that are going on.
pub(super) struct Transfers {
    most: usize,
    open: Arc<Mutex<HashMap<SiteId, usize>>>,
}

/// One transfer's place; given back when dropped.
pub(super) struct Transfer {
    open: Arc<Mutex<HashMap<SiteId, usize>>>,
    site: SiteId,
}

impl Transfers {
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// A place for one more transfer, if there is one.
    pub(super) fn enter(&self, site: SiteId) -> Option<Transfer> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
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
    use std::time::Duration;

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
