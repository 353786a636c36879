//! Open sessions of sites, and how messages get into them.

use std::collections::BTreeMap;
use std::sync::Arc;

use hospes_protocol::id::{SiteId, Timestamp};
use hospes_protocol::message::ToSite;
use tokio::sync::mpsc;

/// Messages that may wait for one site; a site that leaves more unread loses its session, and is greeted anew. (The
/// greeting itself can be long: a vouch for each pair of members.)
const WAITING: usize = 1 << 16;

/// Sites that are, or were, connected.
#[derive(Default)]
pub(crate) struct Sessions {
    open: BTreeMap<SiteId, Session>,
    lost: BTreeMap<SiteId, Timestamp>,
}

struct Session {
    number: u64,
    since: Timestamp,
    out: mpsc::Sender<Arc<ToSite>>,
    /// Takes over while `out` is full, so that a burst is not taken for a site that does not read. The session itself
    /// is ended by the one who holds its connection if the site reads nothing for too long.
    overflow: Option<mpsc::Sender<Arc<ToSite>>>,
}

impl Sessions {
    /// Opens a session, in place of an older one.
    pub(super) fn open(&mut self, site: SiteId, number: u64, out: mpsc::Sender<Arc<ToSite>>, now: Timestamp) {
        self.lost.remove(&site);
        self.open.insert(site, Session { number, since: now, out, overflow: None });
    }

    /// Closes a session, unless a newer one took its place; says whether it did.
    pub(super) fn close(&mut self, site: SiteId, number: u64, now: Timestamp) -> bool {
        if !self.is_current(site, number) {
            return false;
        }
        self.open.remove(&site);
        self.lost.insert(site, now);
        true
    }

    /// Ends whatever session a site has.
    pub(super) fn end(&mut self, site: SiteId, now: Timestamp) {
        if self.open.remove(&site).is_some() {
            self.lost.insert(site, now);
        }
    }

    /// Whether this is the site's present session.
    pub(super) fn is_current(&self, site: SiteId, number: u64) -> bool {
        self.open.get(&site).is_some_and(|session| session.number == number)
    }

    /// Whether a newer session took this one's place.
    pub(super) fn is_superseded(&self, site: SiteId, number: u64) -> bool {
        self.open.get(&site).is_some_and(|session| session.number > number)
    }

    pub(crate) fn is_open(&self, site: SiteId) -> bool {
        self.open.contains_key(&site)
    }

    /// When a site's connection was lost; `None` while it is connected, or if it never was since the start.
    pub(super) fn lost(&self, site: SiteId) -> Option<Timestamp> {
        self.lost.get(&site).copied()
    }

    /// How many sites are connected.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = (SiteId, Timestamp)> + '_ {
        self.open.iter().map(|(site, session)| (*site, session.since))
    }

    /// Every connected site but this one, in the order of ids from it on and round to it again.
    pub(crate) fn after(&self, site: SiteId) -> impl Iterator<Item = SiteId> + '_ {
        let around = self.open.range(site..).chain(self.open.range(..site));
        around.map(|(other, _)| *other).filter(move |other| *other != site)
    }

    /// Sends a message, if the site is connected. What it misses it gets when it connects again.
    pub(super) fn send(&mut self, site: SiteId, message: Arc<ToSite>, now: Timestamp) {
        let Some(session) = self.open.get_mut(&site) else { return };
        let refused = match &session.overflow {
            Some(overflow) => overflow.try_send(message).err(),
            None => match session.out.try_send(message) {
                Err(mpsc::error::TrySendError::Full(message)) => {
                    let (overflow, waiting) = mpsc::channel(WAITING);
                    tokio::spawn(forward(waiting, session.out.clone()));
                    session.overflow.insert(overflow).try_send(message).err()
                }
                sent => sent.err(),
            },
        };
        if let Some(refused) = refused {
            if matches!(refused, mpsc::error::TrySendError::Full(_)) {
                tracing::warn!(%site, "{WAITING} messages wait for this site: its session is ended");
            }
            self.end(site, now);
        }
    }
}

async fn forward(mut waiting: mpsc::Receiver<Arc<ToSite>>, out: mpsc::Sender<Arc<ToSite>>) {
    while let Some(message) = waiting.recv().await {
        if out.send(message).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(0);

    fn message(n: i64) -> Arc<ToSite> {
        Arc::new(ToSite::Heartbeat { at: Timestamp::from_millis(n) })
    }

    #[tokio::test]
    async fn a_burst_arrives_completely_and_in_order_although_the_channel_is_short() {
        let site = SiteId::from_bytes([1; 16]);
        let (out, mut inbox) = mpsc::channel(2);
        let mut sessions = Sessions::default();
        sessions.open(site, 1, out, NOW);
        for n in 0..50 {
            sessions.send(site, message(n), NOW);
        }
        for n in 0..50 {
            let received = inbox.recv().await.unwrap();
            let ToSite::Heartbeat { at } = &*received else { panic!("{received:?}") };
            assert_eq!(at.as_millis(), n);
        }
    }

    #[tokio::test]
    async fn a_site_that_reads_nothing_for_too_long_loses_its_session() {
        let site = SiteId::from_bytes([1; 16]);
        let (out, _inbox) = mpsc::channel(2);
        let mut sessions = Sessions::default();
        sessions.open(site, 1, out, NOW);
        let one = message(0);
        // Nothing is forwarded meanwhile: this test does not yield.
        for _ in 0..WAITING + 2 {
            sessions.send(site, one.clone(), NOW);
        }
        assert!(sessions.is_open(site));
        sessions.send(site, one, Timestamp::from_millis(7));
        assert!(!sessions.is_open(site));
        assert_eq!(sessions.lost(site), Some(Timestamp::from_millis(7)));
    }

    #[tokio::test]
    async fn a_session_whose_other_end_is_gone_is_ended_though_nobody_said_so() {
        let site = SiteId::from_bytes([1; 16]);
        let (out, inbox) = mpsc::channel(2);
        let mut sessions = Sessions::default();
        sessions.open(site, 1, out, NOW);
        drop(inbox);
        sessions.send(site, message(0), NOW);
        assert!(!sessions.is_open(site));
    }

    #[test]
    fn an_old_session_cannot_close_a_newer_one() {
        let site = SiteId::from_bytes([1; 16]);
        let mut sessions = Sessions::default();
        sessions.open(site, 1, mpsc::channel(1).0, Timestamp::from_millis(0));
        sessions.open(site, 2, mpsc::channel(1).0, Timestamp::from_millis(1));
        assert!(sessions.is_superseded(site, 1) && !sessions.is_superseded(site, 2));
        assert!(!sessions.close(site, 1, Timestamp::from_millis(2)));
        assert!(sessions.is_open(site) && sessions.lost(site).is_none());
        assert!(sessions.close(site, 2, Timestamp::from_millis(3)));
        assert_eq!(sessions.lost(site), Some(Timestamp::from_millis(3)));
    }

    #[test]
    fn the_others_come_in_order_from_a_site_on() {
        let site = |n| SiteId::from_bytes([n; 16]);
        let mut sessions = Sessions::default();
        for n in [1, 2, 4] {
            sessions.open(site(n), 1, mpsc::channel(1).0, NOW);
        }
        assert_eq!(sessions.after(site(2)).collect::<Vec<_>>(), [site(4), site(1)]);
        assert_eq!(sessions.after(site(3)).collect::<Vec<_>>(), [site(4), site(1), site(2)]);
    }
}
