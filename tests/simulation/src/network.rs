//! Sessions between sites and coordinator, in place of gRPC over TLS: the same messages, in order unless a fault says
//! otherwise, and worse than a stream may be.

use std::sync::Arc;
use std::time::Duration;

use hospes_coordinator::schedule;
use hospes_party::link::LinkEvent;
use hospes_protocol::limits;
use hospes_protocol::message::{FromSite, Hello, ToSite};
use hospes_protocol::version::Version;
use tokio::sync::mpsc;

use crate::site::word_of;
use crate::template::{federation, site_id};
use crate::world::{Event, Node, World};

/// Messages that may wait in a session; the schedule never finds it full, so that nothing is forwarded by a task.
const WAITING: usize = 4_096;

/// One session.
pub(crate) struct Session {
    pub(crate) site: usize,
    /// Nothing passes any more, whoever knows it.
    pub(crate) broken: bool,
    inbox: Option<mpsc::Receiver<Arc<ToSite>>>,
    /// When the last message of each direction arrives.
    to_site: i64,
    to_coordinator: i64,
}

impl World<'_> {
    /// A site's link dials.
    pub(crate) async fn dial(&mut self, site: usize, life: u64) {
        let hospital = &self.hospitals[site];
        if hospital.life != life || hospital.commands.is_none() || hospital.session.is_some() {
            return;
        }
        let skew = self.time_at(Node::Site(site)).since(self.time_at(Node::Coordinator)).abs();
        let refused = skew > limits::CLOCK_SKEW_MS;
        if hospital.partitions > 0 || self.coordinator.is_none() || refused {
            let wait = self.rng.between(500, 8_000);
            self.after(wait, Event::Dial(site, life));
            let reason = if refused { "the clocks differ" } else { "nobody answers" };
            let retry_in = Duration::from_secs(1);
            let event = LinkEvent::Disconnected { reason: reason.into(), retry_in };
            self.hear(site, event).await;
            return;
        }
        let number = self.number();
        let (out, inbox) = mpsc::channel(WAITING);
        let session = Session { site, broken: false, inbox: Some(inbox), to_site: self.now, to_coordinator: self.now };
        self.sessions.insert(number, session);
        self.hospitals[site].session = Some(number);
        self.hospitals[site].welcomed = false;
        self.note(Node::Site(site), "dials");
        let hello = Hello {
            versions: vec![Version::V1],
            site: site_id(site),
            software: "simulated".into(),
            at: self.time_at(Node::Site(site)),
            epoch: 1,
        };
        self.coordinate(vec![schedule::Event::Joined { site: site_id(site), session: number, hello, out }]).await;
    }

    /// Takes what the schedule said out of the sessions and onto its way.
    pub(crate) fn carry_to_sites(&mut self) {
        let numbers: Vec<u64> = self.sessions.keys().copied().collect();
        for number in numbers {
            loop {
                let session = self.sessions.get_mut(&number);
                let inbox = session.and_then(|session| session.inbox.as_mut());
                match inbox.map(mpsc::Receiver::try_recv) {
                    None => break,
                    Some(Ok(message)) => self.send_to_site(number, message),
                    Some(Err(mpsc::error::TryRecvError::Empty)) => break,
                    Some(Err(mpsc::error::TryRecvError::Disconnected)) => {
                        self.closed_by_coordinator(number);
                        break;
                    }
                }
            }
        }
    }

    /// The schedule let go of a session; the site hears what was said before, and then that it is over.
    fn closed_by_coordinator(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.inbox = None;
        let last = session.to_site + 1;
        self.at(last, Event::SiteLoses(number));
    }

    fn send_to_site(&mut self, number: u64, message: Arc<ToSite>) {
        self.truth.told(&message);
        self.liar.told(&message);
        // A stream keeps its order; checkpoints and greetings rely on that, everything else must not.
        let fragile = !matches!(*message, ToSite::Welcome(_) | ToSite::Witness(_) | ToSite::Goodbye { .. });
        let Some(session) = self.sessions.get(&number) else { return };
        let (site, last) = (session.site, session.to_site);
        if session.broken {
            return;
        }
        let Some((time, in_order, twice)) = self.way(last, fragile) else {
            return self
                .note(Node::Coordinator, format!("to {}: {} is lost", Node::Site(site).name(), name_of(&message)));
        };
        if in_order && let Some(session) = self.sessions.get_mut(&number) {
            session.to_site = time;
        }
        if let Some(again) = twice {
            self.at(again, Event::ToSite { session: number, message: message.clone() });
        }
        self.at(time, Event::ToSite { session: number, message });
    }

    /// A message of a site goes onto its way, or waits for a session.
    pub(crate) fn send_to_coordinator(&mut self, site: usize, message: FromSite) {
        let hospital = &mut self.hospitals[site];
        let Some(number) = hospital.session.filter(|_| hospital.welcomed) else {
            if !matches!(message, FromSite::Progress { .. }) {
                hospital.outbox.push_back(message);
            }
            return;
        };
        let Some(session) = self.sessions.get(&number).filter(|session| !session.broken) else { return };
        let last = session.to_coordinator;
        let fragile = !matches!(message, FromSite::Witness(_));
        let Some((time, in_order, twice)) = self.way(last, fragile) else {
            return self.note(Node::Site(site), format!("{} is lost", word_of(&message)));
        };
        if in_order && let Some(session) = self.sessions.get_mut(&number) {
            session.to_coordinator = time;
        }
        if let Some(again) = twice {
            self.at(again, Event::ToCoordinator { session: number, message: message.clone() });
        }
        self.at(time, Event::ToCoordinator { session: number, message });
    }

    /// When a message arrives, whether in its order, and when once more; `None` if it is lost.
    fn way(&mut self, last: i64, fragile: bool) -> Option<(i64, bool, Option<i64>)> {
        let delay = self.rng.between(2, self.swarm.delay_ms);
        let (drop, reorder, duplicate) = (self.swarm.drop, self.swarm.reorder, self.swarm.duplicate);
        if fragile && self.rng.per_mille(drop) {
            return None;
        }
        let strays = fragile && self.rng.per_mille(reorder);
        let time =
            if strays { self.now + delay + self.rng.between(0, 5_000) } else { (self.now + delay).max(last + 1) };
        let twice = fragile && self.rng.per_mille(duplicate);
        let twice = twice.then(|| time + self.rng.between(1, 5_000));
        Some((time, !strays, twice))
    }

    /// A message arrives at a site.
    pub(crate) async fn arrive_at_site(&mut self, number: u64, message: Arc<ToSite>) {
        let Some(session) = self.sessions.get(&number).filter(|session| !session.broken) else { return };
        let site = session.site;
        let hospital = &mut self.hospitals[site];
        if hospital.session != Some(number) || hospital.partitions > 0 {
            return;
        }
        let message = Arc::unwrap_or_clone(message);
        let name = name_of(&message);
        self.note(Node::Site(site), format!("hears {name}"));
        let event = match message {
            ToSite::Welcome(welcome) => {
                self.hospitals[site].welcomed = true;
                for message in std::mem::take(&mut self.hospitals[site].outbox) {
                    self.send_to_coordinator(site, message);
                }
                LinkEvent::Connected(welcome)
            }
            ToSite::Heartbeat { .. } | ToSite::Goodbye { .. } => return,
            message => LinkEvent::Message(message),
        };
        self.hear(site, event).await;
    }

    /// A message arrives at the coordinator.
    pub(crate) async fn arrive_at_coordinator(&mut self, number: u64, message: FromSite) {
        let Some(session) = self.sessions.get(&number).filter(|s| !s.broken && s.inbox.is_some()) else { return };
        let site = session.site;
        if self.hospitals[site].partitions > 0 {
            return;
        }
        self.note(Node::Coordinator, format!("hears {} of {}", word_of(&message), Node::Site(site).name()));
        self.truth.hear_taken_back(site, &message);
        self.coordinate(vec![schedule::Event::Message { site: site_id(site), session: number, message }]).await;
    }

    /// A site notices that its session is over.
    pub(crate) async fn site_loses(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.broken = true;
        let site = session.site;
        if self.hospitals[site].session != Some(number) {
            return;
        }
        self.hospitals[site].session = None;
        self.note(Node::Site(site), "notices that the session is over");
        let life = self.hospitals[site].life;
        let wait = self.rng.between(100, 6_000);
        self.after(wait, Event::Dial(site, life));
        let retry_in = Duration::from_millis(u64::try_from(wait).unwrap_or(0));
        self.hear(site, LinkEvent::Disconnected { reason: "the session ended".into(), retry_in }).await;
    }

    /// The coordinator notices that a session is over.
    pub(crate) async fn coordinator_loses(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let site = session.site;
        if session.inbox.take().is_some() && self.coordinator.is_some() {
            self.coordinate(vec![schedule::Event::Left { site: site_id(site), session: number }]).await;
        }
    }

    /// Breaks a site's session; each end notices within so many milliseconds.
    pub(crate) fn cut_site(&mut self, site: usize, within: i64) {
        let Some(number) = self.hospitals[site].session else { return };
        if let Some(session) = self.sessions.get_mut(&number) {
            session.broken = true;
        }
        let (one, other) = (self.rng.between(1, within), self.rng.between(1, within));
        self.after(one, Event::SiteLoses(number));
        self.after(other, Event::CoordinatorLoses(number));
    }

    /// The coordinator's process is gone, and all sessions with it.
    pub(crate) fn break_all(&mut self) {
        let numbers: Vec<u64> = self.sessions.keys().copied().collect();
        for number in numbers {
            if let Some(session) = self.sessions.get_mut(&number)
                && session.inbox.take().is_some()
            {
                session.broken = true;
                let wait = self.rng.between(1, 3_000);
                self.after(wait, Event::SiteLoses(number));
            }
        }
    }

    /// Whether bytes get from a site to the coordinator.
    pub(crate) fn reaches(&self, site: usize) -> bool {
        let hospital = &self.hospitals[site];
        let session = hospital.session.filter(|_| hospital.welcomed).and_then(|number| self.sessions.get(&number));
        hospital.partitions == 0 && self.coordinator.is_some() && session.is_some_and(|session| !session.broken)
    }

    /// A link says something to its engine.
    pub(crate) async fn hear(&mut self, site: usize, event: LinkEvent) -> bool {
        self.at_site(site, async move |s| s.hear(federation(), event).await).await.is_some()
    }
}

/// A message's name in the trace; names of jobs and studies differ from run to run.
pub(crate) fn name_of(message: &ToSite) -> String {
    use hospes_protocol::message::{RoundOutcome, Witness};
    match message {
        ToSite::Welcome(_) => "welcome".into(),
        ToSite::Heartbeat { .. } => "heartbeat".into(),
        ToSite::Roster(_) => "roster".into(),
        ToSite::Vouch(_) => "vouch".into(),
        ToSite::Study(_) => "study".into(),
        ToSite::StudyWithdrawn { .. } => "study withdrawn".into(),
        ToSite::JobReserve { .. } => "job reserve".into(),
        ToSite::JobStart { .. } => "job start".into(),
        ToSite::JobRollback { .. } => "job rollback".into(),
        ToSite::RoundOpen(header) => format!("round open {}", crate::truth::short(&header.document.key())),
        ToSite::Relay { round, .. } => format!("relay {}", crate::truth::short(round)),
        ToSite::RoundClosed { round, outcome: RoundOutcome::Published { included, .. } } => {
            format!("round published {} with {}", crate::truth::short(round), included.len())
        }
        ToSite::RoundClosed { round, .. } => format!("round abandoned {}", crate::truth::short(round)),
        ToSite::JobEnded { state, .. } => format!("job ended {state}"),
        ToSite::Witness(Witness::Show { .. }) => "witness show".into(),
        ToSite::Witness(Witness::ProveFrom { .. }) => "witness prove from".into(),
        ToSite::Witness(Witness::Cosigned { .. }) => "witness cosigned".into(),
        ToSite::Witness(Witness::Contradiction { .. }) => "witness contradiction".into(),
        ToSite::Goodbye { .. } => "goodbye".into(),
    }
}
