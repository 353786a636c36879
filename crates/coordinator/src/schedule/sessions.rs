//! Open sessions of sites, and how messages get into them.

use std::collections::BTreeMap;

use hospes_protocol::id::{SiteId, Timestamp};
use hospes_protocol::message::ToSite;
use tokio::sync::mpsc;

/// Sites that are, or were, connected.
#[derive(Default)]
pub(super) struct Sessions {
    open: BTreeMap<SiteId, Session>,
    lost: BTreeMap<SiteId, Timestamp>,
}

struct Session {
    number: u64,
    since: Timestamp,
    out: mpsc::Sender<ToSite>,
    /// Takes over while `out` is full, so that a burst is not taken for a site that does not read. The session itself
    /// is ended by the one who holds its connection if the site reads nothing for too long.
    overflow: Option<mpsc::UnboundedSender<ToSite>>,
}

impl Sessions {
    /// Opens a session, in place of an older one.
    pub(super) fn open(&mut self, site: SiteId, number: u64, out: mpsc::Sender<ToSite>, now: Timestamp) {
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

    pub(super) fn is_open(&self, site: SiteId) -> bool {
        self.open.contains_key(&site)
    }

    /// When a site's connection was lost; `None` while it is connected, or if it never was since the start.
    pub(super) fn lost(&self, site: SiteId) -> Option<Timestamp> {
        self.lost.get(&site).copied()
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = (SiteId, Timestamp)> + '_ {
        self.open.iter().map(|(site, session)| (*site, session.since))
    }

    /// Sends a message, if the site is connected. What it misses it gets when it connects again.
    pub(super) fn send(&mut self, site: SiteId, message: ToSite) {
        let Some(session) = self.open.get_mut(&site) else { return };
        if let Some(overflow) = &session.overflow {
            drop(overflow.send(message));
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(message)) = session.out.try_send(message) {
            let (overflow, mut waiting) = mpsc::unbounded_channel();
            drop(overflow.send(message));
            let out = session.out.clone();
            tokio::spawn(async move {
                while let Some(message) = waiting.recv().await {
                    if out.send(message).await.is_err() {
                        return;
                    }
                }
            });
            session.overflow = Some(overflow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_arrives_completely_and_in_order_although_the_channel_is_short() {
        let site = SiteId::from_bytes([1; 16]);
        let (out, mut inbox) = mpsc::channel(2);
        let mut sessions = Sessions::default();
        sessions.open(site, 1, out, Timestamp::from_millis(0));
        for n in 0..50 {
            sessions.send(site, ToSite::Heartbeat { at: Timestamp::from_millis(n) });
        }
        for n in 0..50 {
            let Some(ToSite::Heartbeat { at }) = inbox.recv().await else { panic!("closed") };
            assert_eq!(at.as_millis(), n);
        }
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
}
