//! One session of one site: greeting, heartbeats, time-out on silence, limits; messages in between belong to the
//! schedule.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hospes_protocol::grpc::convert::{coordinator_frame, from_site};
use hospes_protocol::grpc::{CoordinatorFrame, SiteFrame};
use hospes_protocol::id::{SiteId, Timestamp};
use hospes_protocol::limits::CLOCK_SKEW_MS;
use hospes_protocol::message::{FromSite, Hello, ToSite, Welcome};
use hospes_protocol::version;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::Streaming;

use super::Shared;
use crate::Error;
use crate::ca::Peer;
use crate::schedule::Event;

/// Messages that may wait for a slow site before its session is given up.
const WAITING: usize = 64;
/// Open sessions: at most one of each site. A new one ends the old.
#[derive(Default)]
pub(super) struct Sessions {
    last: AtomicU64,
    open: Mutex<HashMap<SiteId, Open>>,
}

/// Number of a session, and how to end it with a reason.
type Open = (u64, watch::Sender<Option<String>>);

/// A session's place among the open ones; given back when dropped.
pub(super) struct Ticket {
    shared: Arc<Shared>,
    site: SiteId,
    session: u64,
    ended: watch::Receiver<Option<String>>,
}

impl Sessions {
    fn open(shared: &Arc<Shared>, site: SiteId) -> Ticket {
        let sessions = &shared.sessions;
        let session = sessions.last.fetch_add(1, Ordering::SeqCst) + 1;
        let (end, ended) = watch::channel(None);
        let mut open = sessions.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, old)) = open.insert(site, (session, end)) {
            let _ = old.send(Some("a newer session of this site has begun".to_owned()));
        }
        Ticket { shared: shared.clone(), site, session, ended }
    }

    /// Ends the session of a site, which is told why.
    pub(super) fn end(&self, site: SiteId, reason: &str) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, end)) = open.get(&site) {
            let _ = end.send(Some(reason.to_owned()));
        }
    }

    /// Ends all sessions.
    pub(super) fn end_all(&self, reason: &str) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, end) in open.values() {
            let _ = end.send(Some(reason.to_owned()));
        }
    }

    /// Number of open sessions.
    pub(super) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.shared.sessions.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&self.site).is_some_and(|(session, _)| *session == self.session) {
            open.remove(&self.site);
        }
    }
}

/// How messages get onto the wire of this session.
struct Wire(mpsc::Sender<CoordinatorFrame>);

impl Wire {
    /// Sends, unless the site does not read; says whether it went.
    async fn send(&self, message: ToSite, patience: Duration) -> bool {
        let frame = match coordinator_frame(message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(%error, "a message cannot be sent");
                return true;
            }
        };
        self.0.send_timeout(frame, patience).await.is_ok()
    }

    async fn goodbye(&self, reason: impl Into<String>) {
        self.send(ToSite::Goodbye { reason: reason.into() }, Duration::from_secs(2)).await;
    }
}

/// Holds a session from its first message to its end.
pub(super) async fn run(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    mut inbound: Streaming<SiteFrame>,
    outbound: mpsc::Sender<CoordinatorFrame>,
) {
    let (wire, site) = (Wire(outbound), peer.site);
    let hello = match greet(&shared, site, &mut inbound).await {
        Ok(hello) => hello,
        Err(reason) => {
            tracing::info!(%site, reason, "session refused");
            return wire.goodbye(reason).await;
        }
    };
    let now = shared.now();
    let skew = hello.at.since(now);
    if skew.abs() > CLOCK_SKEW_MS {
        // The welcome carries the coordinator's time, so that the site can show both.
        let welcome = Welcome {
            version: version::Version::V1,
            federation: shared.federation(),
            identity: shared.home.key.public(),
            at: now,
            epoch: shared.epoch,
        };
        wire.send(ToSite::Welcome(welcome), Duration::from_secs(2)).await;
        let reason = skewed(hello.at, now);
        tracing::warn!(%site, skew_ms = skew, "session refused: clocks differ");
        return wire.goodbye(reason).await;
    }
    if let Err(error) = shared.site_seen(site, Some(&hello.software)).await {
        tracing::error!(%site, %error, "session refused: the store cannot be written");
        return wire.goodbye("the coordinator cannot write its store; try again later").await;
    }
    let ticket = Sessions::open(&shared, site);
    let session = ticket.session;
    // Whoever locks this site out from here on finds the session and ends it; who did so before is found here.
    match shared.admit(Some(&peer)).await {
        Ok(Ok(_)) => {}
        Ok(Err(reason)) => {
            tracing::info!(%site, reason, "session refused");
            return wire.goodbye(reason).await;
        }
        Err(error) => {
            tracing::error!(%site, %error, "session refused: the store cannot be read");
            return wire.goodbye("the coordinator cannot read its store; try again later").await;
        }
    }
    let (out, from_schedule) = mpsc::channel(WAITING);
    let joined = Event::Joined { site, session, hello, out };
    if shared.events.send(joined).await.is_err() {
        return wire.goodbye(Error::Stopping.to_string()).await;
    }
    tracing::info!(%site, session, "session opened");
    let reason = Box::pin(converse(&shared, ticket, inbound, from_schedule, &wire)).await;
    tracing::info!(%site, session, reason, "session closed");
    let _ = shared.events.send(Event::Left { site, session }).await;
    if let Err(error) = shared.site_seen(site, None).await {
        tracing::warn!(%site, %error, "when the site was last seen is not stored");
    }
}

/// Waits for the first message and checks it; the error is the reason told to the site.
async fn greet(shared: &Shared, site: SiteId, inbound: &mut Streaming<SiteFrame>) -> Result<Hello, String> {
    let patience = Duration::from_millis(shared.limits().greeting_ms);
    let frame = match tokio::time::timeout(patience, inbound.message()).await {
        Err(_) => return Err("no first message came in time".into()),
        Ok(Err(status)) => return Err(format!("the first message cannot be read: {}", status.message())),
        Ok(Ok(None)) => return Err("the stream ended before the first message".into()),
        Ok(Ok(Some(frame))) => frame,
    };
    let hello = match from_site(frame) {
        Ok(FromSite::Hello(hello)) => hello,
        Ok(_) => return Err("the first message must be the greeting".into()),
        Err(error) => return Err(error.to_string()),
    };
    if hello.site != site {
        return Err(format!("the certificate is that of site {site}, the greeting names {}", hello.site));
    }
    version::negotiate(&hello.versions).map_err(|e| e.to_string())?;
    Ok(hello)
}

fn skewed(site: Timestamp, coordinator: Timestamp) -> String {
    format!(
        "the clocks differ too much: this site says {site}, the coordinator {coordinator}; \
         set the clock of the machine that is wrong (more than {} minutes are refused)",
        CLOCK_SKEW_MS / 60_000
    )
}

/// The session's loop; returns why it ended.
async fn converse(
    shared: &Shared,
    mut ticket: Ticket,
    mut inbound: Streaming<SiteFrame>,
    mut from_schedule: mpsc::Receiver<Arc<ToSite>>,
    wire: &Wire,
) -> String {
    let limits = shared.limits();
    let (heartbeat, silence) = (Duration::from_millis(limits.heartbeat_ms), Duration::from_millis(limits.silence_ms));
    let mut beat = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let (site, session) = (ticket.site, ticket.session);
    loop {
        tokio::select! {
            changed = ticket.ended.changed() => {
                let reason = ticket.ended.borrow().clone().filter(|_| changed.is_ok());
                let reason = reason.unwrap_or_else(|| "the session was ended".to_owned());
                // What the schedule said before it ended the session still goes out, its reason too.
                while let Ok(message) = from_schedule.try_recv() {
                    if !wire.send(Arc::unwrap_or_clone(message), Duration::from_secs(2)).await {
                        break;
                    }
                }
                wire.goodbye(&*reason).await;
                return reason;
            }
            message = from_schedule.recv() => match message {
                Some(message) => {
                    if !wire.send(Arc::unwrap_or_clone(message), silence).await {
                        return "the site does not read its messages".into();
                    }
                }
                None => {
                    // Whoever locks a site out tells the schedule and this session; the one may be quicker.
                    let told = ticket.ended.wait_for(Option::is_some);
                    let told = tokio::time::timeout(Duration::from_secs(1), told).await;
                    let reason = told.ok().and_then(Result::ok).and_then(|reason| reason.clone());
                    let reason = reason.unwrap_or_else(|| "the coordinator ended the session".to_owned());
                    wire.goodbye(&*reason).await;
                    return reason;
                }
            },
            frame = inbound.message() => {
                heard = Instant::now();
                let message = match read(shared, site, frame) {
                    Ok(Some(message)) => message,
                    Ok(None) => return "the site ended the session".into(),
                    Err(reason) => {
                        wire.goodbye(&*reason).await;
                        return reason;
                    }
                };
                match message {
                    FromSite::Heartbeat { .. } => {}
                    FromSite::Goodbye => return "the site said goodbye".into(),
                    message => {
                        if shared.events.send(Event::Message { site, session, message }).await.is_err() {
                            wire.goodbye(Error::Stopping.to_string()).await;
                            return Error::Stopping.to_string();
                        }
                    }
                }
            }
            _ = beat.tick() => {
                if !wire.send(ToSite::Heartbeat { at: shared.now() }, silence).await {
                    return "the site does not read its messages".into();
                }
            }
            () = tokio::time::sleep_until(heard + silence) => {
                let reason = format!("nothing was heard from the site for {} seconds", silence.as_secs_f32());
                wire.goodbye(&*reason).await;
                return reason;
            }
        }
    }
}

/// One frame as a message; `None` at the orderly end of the stream, a reason if it is refused.
fn read(
    shared: &Shared,
    site: SiteId,
    frame: Result<Option<SiteFrame>, tonic::Status>,
) -> Result<Option<FromSite>, String> {
    let frame = match frame {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(None),
        Err(status) if status.code() == tonic::Code::OutOfRange => {
            return Err(format!("a message is larger than allowed: {}", status.message()));
        }
        Err(status) => return Err(format!("the stream broke: {}", status.message())),
    };
    let message = from_site(frame);
    // Answers to checkpoints that others have relayed are not the site's to choose; they are counted by themselves.
    let counted = if matches!(message, Ok(FromSite::Witness(_))) { &shared.witnessing } else { &shared.messages };
    if !counted.take(site, Instant::now()) {
        return Err(format!("more than {} messages a second", shared.limits().messages_per_second));
    }
    tracing::trace!(%site, ?message, "message");
    match message {
        Ok(FromSite::Hello(_)) => Err("a second greeting".into()),
        Ok(message) => Ok(Some(message)),
        Err(error) => Err(error.to_string()),
    }
}
