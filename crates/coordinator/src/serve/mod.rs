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

use hospes_protocol::id::{FederationId, SiteId, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::aggregate::staging::Staging;
use crate::ca::Peer;
use crate::config::{Home, Limits};
use crate::enrol::Register;
use crate::schedule::{Command, Event, Live, Rejection, RejectionCode, Reply};
use crate::store::Standing;
use crate::{Clock, Error};

use rate::{Rates, Transfers};
use session::Sessions;
use tls::ServerCertificate;

/// What the parts of this process that talk to the outside share.
pub(crate) struct Shared {
    register: Register,
    home: Arc<Home>,
    epoch: u64,
    events: mpsc::Sender<Event>,
    live: broadcast::Sender<Live>,
    staging: Staging,
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
}

/// A listening coordinator.
pub struct Coordinator {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    listener: JoinHandle<()>,
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
    /// Opens the port.
    ///
    /// # Errors
    /// [`Error::Listen`] if the port cannot be had, [`Error::Certificate`] or [`Error::Tls`] if TLS cannot be set up.
    pub async fn start(parts: Parts) -> Result<Self, Error> {
        let Parts { register, epoch, events, live, staging } = parts;
        let home = register.home.clone();
        let listen = home.settings.listen;
        let failed = |source| Error::Listen { address: listen.to_string(), source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let certificate = Arc::new(ServerCertificate::new(&home.ca, home.settings.names()?, (register.clock)())?);
        let config = tls::config(&home.ca, certificate.clone(), Clock::clone(&register.clock))?;
        let shared = Arc::new(Shared {
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
        let stop = CancellationToken::new();
        tokio::spawn(refresh(shared.clone(), certificate, stop.clone()));
        let run = listen::run(shared.clone(), listener, TlsAcceptor::from(config), router, stop.clone());
        let listener = tokio::spawn(run);
        tracing::info!(%address, federation = %shared.federation(), "listening");
        Ok(Self { address, shared, stop, listener })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of sites with an open session.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.count()
    }

    /// Says goodbye to all sites, lets what is going on finish for a short while, and closes the port.
    pub async fn stop(self) {
        self.shared.sessions.end_all("the coordinator is restarting; try again shortly");
        // The goodbyes are sent by the sessions' own tasks; connections close after them.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.stop.cancel();
        let _ = self.listener.await;
    }
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
