//! A running coordinator: one port with gRPC for sites (mutual TLS), REST for operators and researchers (bearer tokens),
//! and enrolment. This is the only part that imports the gRPC code (invariant I4).

mod grpc;
mod listen;
mod rate;
pub mod rest;
mod session;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hospes_ledger::{Action, Actor};
use hospes_protocol::id::{FederationId, SiteId, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::aggregate::staging::{Staging, free_space};
use crate::audit::Audit;
use crate::ca::Peer;
use crate::config::{self, Home, Limits};
use crate::enrol::Register;
use crate::models::Models;
use crate::schedule::{self, Command, Event, Live, Rejection, RejectionCode, Reply};
use crate::store::{Standing, Store};
use crate::{Clock, Error};

use rate::{Rates, Transfers};
use session::Sessions;
use tls::ServerCertificate;

/// Events that may wait for the schedule, and happenings for those who watch.
const EVENTS: usize = 256;

/// What the parts of this process that talk to the outside share.
pub(crate) struct Shared {
    register: Register,
    home: Arc<Home>,
    epoch: u64,
    events: mpsc::Sender<Event>,
    live: broadcast::Sender<Live>,
    staging: Staging,
    models: Models,
    stop: CancellationToken,
    sessions: Sessions,
    transfers: Transfers,
    enrolments: Rates,
}

/// What a coordinator is made of before it listens.
pub struct Parts {
    /// Register of members, with store, ledger, keys and clock.
    pub register: Register,
    /// Incarnation.
    pub epoch: u64,
    /// The schedule's ear.
    pub events: mpsc::Sender<Event>,
    /// The schedule's voice, for those who watch.
    pub live: broadcast::Sender<Live>,
    /// Uploads.
    pub staging: Staging,
    /// Models.
    pub models: Models,
}

/// A listening coordinator.
pub struct Coordinator {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    listener: JoinHandle<()>,
    schedule: Option<JoinHandle<Result<(), Error>>>,
}

impl Shared {
    pub(crate) fn now(&self) -> Timestamp {
        (self.register.clock)()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.home.settings.limits
    }

    pub(crate) fn federation(&self) -> FederationId {
        self.home.federation()
    }

    /// Whether this peer is let in: asked at every session and every request of a site.
    async fn admit(&self, peer: Option<&Arc<Peer>>) -> Result<Result<SiteId, String>, Error> {
        let Some(peer) = peer else {
            return Ok(Err("a client certificate of this federation is needed".into()));
        };
        Ok(match self.register.store.standing(peer.site, &peer.serial, self.now()).await? {
            Standing::Good(_) => Ok(peer.site),
            Standing::Refused(reason) => Err(reason),
        })
    }

    async fn site_seen(&self, site: SiteId, software: Option<&str>) -> Result<(), Error> {
        let software = software.map(crate::enrol::printable);
        let mut tx = self.register.store.begin("site_seen").await?;
        tx.site_seen(site, self.now(), software.as_deref()).await?;
        tx.commit().await
    }

    /// Asks the schedule and waits until what came of it is in the store.
    pub(crate) async fn command(&self, command: Command) -> Result<Reply, Rejection> {
        let stopping = || Rejection::new(RejectionCode::Unavailable, Error::Stopping.to_string());
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Operator { command, reply }).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

impl Coordinator {
    /// Starts everything on an opened data folder: store, schedule, port.
    ///
    /// # Errors
    /// [`Error`] of whatever could not be started.
    pub async fn launch(home: Home, clock: Clock, settings: schedule::Settings) -> Result<Self, Error> {
        let home = Arc::new(home);
        let store = home.store().await?;
        let epoch = config::epoch(&store).await?;
        let audit = Audit::default();
        let mut tx = store.begin("start").await?;
        audit.record(&mut tx, &[audit.entry(clock(), Actor::Engine, Action::EngineStarted)]).await?;
        tx.commit().await?;
        let (events, ear) = mpsc::channel(EVENTS);
        let (live, _) = broadcast::channel(EVENTS);
        let staging = Staging::new(home.folder.join("staging"), free_space(), clock.clone())?;
        let models = Models::open(home.folder.join("models"))?;
        let context = schedule::Context {
            store: store.clone(),
            audit: audit.clone(),
            staging: staging.clone(),
            models: models.clone(),
            key: home.key.clone(),
            epoch,
            clock: clock.clone(),
            live: live.clone(),
            settings,
            replica: config::replica(&home.folder)?,
        };
        let schedule = tokio::spawn(Box::pin(schedule::run(context, ear)));
        // A site that asked about an upload before everything is loaded would hear that its round is over, and take it
        // back. An answer of any kind says that it is.
        let (reply, loaded) = oneshot::channel();
        let asked = events.send(Event::Operator { command: Command::Sessions, reply }).await;
        if asked.is_err() || loaded.await.is_err() {
            return Err(schedule.await.ok().and_then(Result::err).unwrap_or(Error::Stopping));
        }
        let register = Register { home, store, audit, clock };
        let mut coordinator = Self::start(Parts { register, epoch, events, live, staging, models }).await?;
        coordinator.schedule = Some(schedule);
        Ok(coordinator)
    }

    /// Opens the port, on parts that are there already.
    ///
    /// # Errors
    /// [`Error::Listen`] if the port cannot be had, [`Error::Certificate`] or [`Error::Tls`] if TLS cannot be set up.
    pub async fn start(parts: Parts) -> Result<Self, Error> {
        let Parts { register, epoch, events, live, staging, models } = parts;
        let home = register.home.clone();
        let listen = home.settings.listen;
        let failed = |source| Error::Listen { address: listen.to_string(), source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let certificate = Arc::new(ServerCertificate::new(&home.ca, home.settings.names()?, (register.clock)())?);
        let config = tls::config(&home.ca, certificate.clone(), Clock::clone(&register.clock))?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            models,
            stop: stop.clone(),
            sessions: Sessions::default(),
            transfers: Transfers::new(home.settings.limits.transfers_per_site),
            enrolments: Rates::new(home.settings.limits.enrolments_per_minute),
            register,
            home,
            epoch,
            events,
            live,
            staging,
        });
        let router = rest::router(shared.clone()).merge(grpc::router(shared.clone()));
        tokio::spawn(refresh(shared.clone(), certificate, stop.clone()));
        let run = listen::run(shared.clone(), listener, TlsAcceptor::from(config), router, stop.clone());
        let listener = tokio::spawn(run);
        tracing::info!(%address, federation = %shared.federation(), "listening");
        Ok(Self { address, shared, stop, listener, schedule: None })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of sites with an open session.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.count()
    }

    /// Waits until the schedule ends, which it does by itself only if it cannot go on.
    ///
    /// # Errors
    /// [`Error`] that made it end.
    pub async fn ended(&mut self) -> Result<(), Error> {
        match &mut self.schedule {
            None => std::future::pending().await,
            Some(schedule) => {
                let ended = schedule.await;
                self.schedule = None;
                ended.unwrap_or_else(|panic| Err(Error::corrupt("schedule", panic)))
            }
        }
    }

    /// Says goodbye to all sites, lets what is going on finish for a short while, closes the port and stops the schedule.
    pub async fn stop(self) {
        let Self { shared, stop, listener, schedule, .. } = self;
        shared.sessions.end_all("the coordinator is restarting; try again shortly");
        // The goodbyes are sent by the sessions' own tasks; connections close after them.
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
        let _ = listener.await;
        let (store, audit, now) = (shared.register.store.clone(), shared.register.audit.clone(), shared.now());
        // The schedule ends when the last of those that can talk to it is gone.
        drop(shared);
        if let Some(schedule) = schedule
            && tokio::time::timeout(Duration::from_secs(10), schedule).await.is_err()
        {
            tracing::warn!("the schedule did not end in time");
        }
        if let Err(error) = stopped(&store, &audit, now).await {
            tracing::warn!(%error, "the stop is not in the ledger");
        }
        store.close().await;
    }
}

async fn stopped(store: &Store, audit: &Audit, now: Timestamp) -> Result<(), Error> {
    let mut tx = store.begin("stop").await?;
    audit.record(&mut tx, &[audit.entry(now, Actor::Engine, Action::EngineStopped)]).await?;
    tx.commit().await
}

/// Replaces the server's certificate in time.
async fn refresh(shared: Arc<Shared>, certificate: Arc<ServerCertificate>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(3_600)) => {}
        }
        match certificate.refresh(&shared.home.ca, shared.now()) {
            Ok(true) => tracing::info!("the server's certificate was renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the server's certificate was not renewed"),
        }
    }
}
