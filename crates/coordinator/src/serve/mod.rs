//! A running coordinator: one port with gRPC for sites (mutual TLS), REST for operators and researchers (bearer tokens),
//! and enrolment. This is the only part that imports the gRPC code (invariant I4).

mod card;
mod grpc;
mod listen;
mod rate;
pub mod rest;
mod session;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hospes_ledger::{Action, Actor};
use hospes_protocol::id::{FederationId, SiteId, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::aggregate::staging::{Staging, free_space};
use crate::audit::Audit;
use crate::ca::Peer;
use crate::config::{self, FolderLock, Home, Limits};
use crate::enrol::Register;
use crate::models::Models;
use crate::schedule::{self, Command, Event, Live, Rejection, RejectionCode, Reply};
use crate::store::lease::Lease;
use crate::store::{Standing, Store};
use crate::{Clock, Error};

use rate::{Rates, Transfers};
use session::Sessions;
use tls::ServerCertificate;

/// Events that may wait for the schedule, and happenings for those who watch.
const EVENTS: usize = 256;

/// Seconds in which the messages of a burst come back.
const BURST_SECONDS: u32 = 5;
/// Sessions that a site may open in a minute, and certificates that it may renew.
const OPENINGS: u32 = 30;
/// For how long a process serves a database when it does not say that it goes on, in milliseconds.
const SERVING_MS: u32 = 30_000;

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
    enrolments: Rates<IpAddr>,
    openings: Rates<SiteId>,
    messages: Rates<SiteId>,
    witnessing: Rates<SiteId>,
    /// One at a time.
    exports: Arc<Semaphore>,
    /// When readiness was last looked at, and what was found.
    ready: Mutex<Option<(Instant, bool)>>,
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
    serving: Option<Serving>,
}

/// What keeps others from serving the same folder or database.
struct Serving {
    lease: Lease,
    _folder: FolderLock,
}

impl Shared {
    pub(crate) fn now(&self) -> Timestamp {
        (self.register.clock)()
    }

    /// Whether database and schedule answer; looked at once a second, whoever asks how often.
    async fn ready(&self) -> Result<(), Rejection> {
        let mut ready = self.ready.lock().await;
        if ready.is_none_or(|(at, _)| at.elapsed() >= Duration::from_secs(1)) {
            let answers = self.register.store.ping().await.map_err(|error| rest::log(&error));
            let found = answers.is_ok() && self.command(Command::Sessions).await.is_ok();
            *ready = Some((Instant::now(), found));
        }
        if ready.is_some_and(|(_, found)| found) {
            return Ok(());
        }
        Err(Rejection::new(RejectionCode::Unavailable, "the coordinator is not ready; its log says why"))
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
    /// Starts everything on an opened data folder: port, store, schedule.
    ///
    /// # Errors
    /// [`Error`] of whatever could not be started; [`Error::Occupied`] if another process serves the folder or database.
    pub async fn launch(home: Home, clock: Clock, settings: schedule::Settings) -> Result<Self, Error> {
        let home = Arc::new(home);
        // First of all, so that a second process cannot clear away what the first works on.
        let folder = home.lock()?;
        let listener = bind(&home).await?;
        let store = home.store().await?;
        let replica = config::replica(&home.folder)?;
        let lease = serve(&store, &replica, clock()).await?;
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
            replica,
        };
        let serving = go_on(store.clone(), lease.clone(), clock.clone());
        let schedule = tokio::spawn(async move {
            tokio::select! {
                ended = Box::pin(schedule::run(context, ear)) => ended,
                error = serving => Err(error),
            }
        });
        // A site that asked about an upload before everything is loaded would hear that its round is over, and take it
        // back. An answer of any kind says that it is.
        let (reply, loaded) = oneshot::channel();
        let asked = events.send(Event::Operator { command: Command::Sessions, reply }).await;
        if asked.is_err() || loaded.await.is_err() {
            return Err(schedule.await.ok().and_then(Result::err).unwrap_or(Error::Stopping));
        }
        let register = Register { home, store, audit, clock };
        let parts = Parts { register, epoch, events, live, staging, models };
        let coordinator = Self::on(listener, parts)?;
        let serving = Some(Serving { lease, _folder: folder });
        Ok(Self { schedule: Some(schedule), serving, ..coordinator })
    }

    /// Opens the port, on parts that are there already.
    ///
    /// # Errors
    /// [`Error::Listen`] if the port cannot be had, [`Error::Certificate`] or [`Error::Tls`] if TLS cannot be set up.
    pub async fn start(parts: Parts) -> Result<Self, Error> {
        let listener = bind(&parts.register.home).await?;
        Self::on(listener, parts)
    }

    fn on(listener: TcpListener, parts: Parts) -> Result<Self, Error> {
        let Parts { register, epoch, events, live, staging, models } = parts;
        let home = register.home.clone();
        let address = listener.local_addr().map_err(unbound(&home))?;
        let certificate = Arc::new(ServerCertificate::new(&home.ca, home.settings.names()?, (register.clock)())?);
        let config = tls::config(&home.ca, certificate.clone(), Clock::clone(&register.clock))?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            models,
            stop: stop.clone(),
            sessions: Sessions::default(),
            transfers: Transfers::new(home.settings.limits.transfers_per_site),
            enrolments: Rates::new(home.settings.limits.enrolments_per_minute, 60),
            openings: Rates::new(OPENINGS, 60),
            messages: Rates::new(home.settings.limits.messages_per_second.saturating_mul(BURST_SECONDS), BURST_SECONDS),
            witnessing: Rates::new(
                home.settings.limits.messages_per_second.saturating_mul(BURST_SECONDS),
                BURST_SECONDS,
            ),
            exports: Arc::new(Semaphore::new(1)),
            ready: Mutex::default(),
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
        Ok(Self { address, shared, stop, listener, schedule: None, serving: None })
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
        let Self { shared, stop, listener, schedule, serving, .. } = self;
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
        if let Some(serving) = &serving
            && let Err(error) = store.lease_release(&serving.lease).await
        {
            tracing::warn!(%error, "the database was not given back; another folder's coordinator has to wait");
        }
        store.close().await;
    }
}

async fn bind(home: &Home) -> Result<TcpListener, Error> {
    TcpListener::bind(home.settings.listen).await.map_err(unbound(home))
}

fn unbound(home: &Home) -> impl FnOnce(std::io::Error) -> Error {
    let address = home.settings.listen.to_string();
    move |source| Error::Listen { address, source }
}

/// Takes the database for this replica: one process at a time serves it (ADR 0004).
async fn serve(store: &Store, replica: &str, now: Timestamp) -> Result<Lease, Error> {
    let lease = store.lease_acquire("serve", replica, now, i64::from(SERVING_MS)).await?;
    lease.ok_or_else(|| {
        Error::Occupied(format!(
            "serves this database from another folder; stop it first, or wait {} seconds if it has just crashed",
            SERVING_MS / 1_000
        ))
    })
}

/// Says again and again that this process serves the database; returns why it cannot go on.
async fn go_on(store: Store, lease: Lease, clock: Clock) -> Error {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(u64::from(SERVING_MS / 3))).await;
        match store.lease_renew(&lease, clock(), i64::from(SERVING_MS)).await {
            Ok(true) => last = Instant::now(),
            Ok(false) => return Error::Occupied("serves this database now; this one stops".into()),
            Err(error) if last.elapsed() < Duration::from_millis(u64::from(SERVING_MS)) => {
                tracing::warn!(%error, "the database was not told that this coordinator goes on");
            }
            Err(error) => return error,
        }
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
