//! The one port: accepts connections within limits, speaks TLS, and hands requests to the router together with what the
//! connection knows of its peer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::Shared;
use crate::ca::Peer;

/// Longest life of a connection without a client certificate (browsers, command lines).
const ANONYMOUS: Duration = Duration::from_secs(3_600);
/// Time to finish what is going on when a connection is closed from here.
const PARTING: Duration = Duration::from_secs(10);
/// Streams of one connection at the same time.
const STREAMS: u32 = 64;
/// Flow-control window of one stream: one transfer chunk. Uploads that wait for their turn hold this much each.
const WINDOW_BYTES: u32 = 256 << 10;
/// Bytes that wait to be sent on one stream.
const SEND_BYTES: usize = 256 << 10;
/// Bytes of the headers of one request.
const HEADER_BYTES: u32 = 16 << 10;

/// What a connection knows of its peer; in the extensions of every request.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// Address from which it comes.
    pub(super) address: IpAddr,
    /// Site of the client certificate, if one was shown. TLS has verified the chain and the time.
    pub(super) peer: Option<Arc<Peer>>,
}

/// Accepts connections until `stop`, then lets those that are open finish.
pub(super) async fn run(
    shared: Arc<Shared>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(shared.limits().connections));
    let strangers = Arc::new(Semaphore::new(shared.limits().anonymous_connections));
    let addresses = Arc::new(Addresses { most: shared.limits().connections_per_address, open: Mutex::default() });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: waiting lets some of them go.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (Ok(slot), Some(place)) = (slots.clone().try_acquire_owned(), addresses.clone().enter(from)) else {
            tracing::debug!(%from, "too many connections");
            continue;
        };
        let (shared, acceptor, router, stop) = (shared.clone(), acceptor.clone(), router.clone(), stop.clone());
        let slots = Slots { first: slot, strangers: strangers.clone() };
        tasks.spawn(async move {
            Box::pin(serve(&shared, stream, from, slots, acceptor, router, stop)).await;
            drop(place);
        });
    }
    tasks.close();
    if tokio::time::timeout(PARTING + Duration::from_secs(2), tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "connections did not end in time");
    }
}

/// Where a connection counts: among those of sites, until it is known that it shows no certificate.
struct Slots {
    first: OwnedSemaphorePermit,
    strangers: Arc<Semaphore>,
}

async fn serve(
    shared: &Shared,
    stream: TcpStream,
    from: SocketAddr,
    slots: Slots,
    acceptor: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let greeting = Duration::from_millis(shared.limits().greeting_ms);
    let mut stream = match tokio::time::timeout(greeting, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "no TLS connection"),
        Err(_) => return tracing::debug!(%from, "TLS handshake took too long"),
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = match shown.map(|c| Peer::of(c, shared.federation())) {
        Some(None) => return tracing::warn!(%from, "a client certificate of ours that names no site"),
        Some(Some(peer)) => Some(Arc::new(peer)),
        None => None,
    };
    let known = peer.is_some();
    let slot = if known {
        Ok(slots.first)
    } else {
        drop(slots.first);
        slots.strangers.try_acquire_owned()
    };
    let Ok(_slot) = slot else {
        return tracing::debug!(%from, "too many connections without a client certificate");
    };
    if !matches!(tokio::time::timeout(greeting, stream.fill_buf()).await, Ok(Ok([_, ..]))) {
        return tracing::debug!(%from, "nothing was asked");
    }
    let about = Connection { address: from.ip(), peer };
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(about.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let builder = builder();
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let life = async { if known { std::future::pending().await } else { tokio::time::sleep(ANONYMOUS).await } };
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%from, %error, "connection ended");
            }
            return;
        }
        () = stop.cancelled() => {}
        () = life => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(PARTING, connection).await;
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(15)).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES)
        .max_header_list_size(HEADER_BYTES)
        // The session has heartbeats of its own; this finds dead connections without a session.
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// How many connections each address has.
struct Addresses {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place among those of its address; given back when dropped.
struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    fn enter(self: Arc<Self>, from: SocketAddr) -> Option<Place> {
        let address = from.ip();
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let count = open.entry(address).or_default();
            if *count >= self.most {
                return None;
            }
            *count += 1;
        }
        Some(Place { addresses: self, address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_connections() {
        let addresses = Arc::new(Addresses { most: 2, open: Mutex::default() });
        let from: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let one = addresses.clone().enter(from).unwrap();
        let _two = addresses.clone().enter(from).unwrap();
        assert!(addresses.clone().enter(from).is_none());
        assert!(addresses.clone().enter("192.0.2.2:1".parse().unwrap()).is_some());
        drop(one);
        assert!(addresses.clone().enter(from).is_some());
        assert_eq!(addresses.open.lock().unwrap().len(), 1, "an address without connections is still counted");
    }
}
