//! Dialling: name, TCP or a proxy's CONNECT tunnel, TLS. Only the site dials.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use super::ProxyChoice;
use super::error::{self, LinkError};

/// Port where an address names none.
const DEFAULT_PORT: u16 = 443;

/// Where a coordinator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Reads `https://host[:port]`.
    pub(super) fn parse(url: &str) -> Result<Self, LinkError> {
        let wrong = |reason| LinkError::Url { url: url.chars().take(200).collect(), reason };
        let uri: Uri = url.trim().parse().map_err(|_| wrong("it is no URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("it must begin with https://"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it must end after host and port"));
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(wrong("it must not contain a user name"));
        }
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| wrong("the host is missing"))?;
        Ok(Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(DEFAULT_PORT) })
    }

    /// `host:port`.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The URL that a proxy's exceptions are matched against.
    fn uri(&self) -> Option<Uri> {
        format!("https://{}/", self.authority()).parse().ok()
    }

    /// The host as the resolver and TLS take it: an IPv6 address without its brackets.
    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// What is known of one connection: the bytes that went over it, from which transfers tell that something still moves,
/// and what TLS said when it broke, which HTTP/2 forgets on the way up.
#[derive(Debug, Default)]
pub(super) struct Meter {
    bytes: AtomicU64,
    fault: OnceLock<LinkError>,
}

impl Meter {
    /// Bytes read and written so far.
    pub(super) fn total(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    /// What broke the connection, if it broke.
    pub(super) fn fault(&self) -> Option<LinkError> {
        self.fault.get().cloned()
    }
    fn note<T>(&self, polled: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = polled {
            let _ = self.fault.set(error::of_chain(error));
        }
    }
}

/// A proxy on the way.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) address: Address,
    credentials: Option<http::HeaderValue>,
}

/// The proxy through which this address is reached, if any.
pub(super) fn proxy_for(address: &Address, choice: &ProxyChoice) -> Result<Option<Proxy>, LinkError> {
    let matcher = match choice {
        ProxyChoice::None => return Ok(None),
        ProxyChoice::Environment => Matcher::from_system(),
        ProxyChoice::Url(url) => {
            let url = if url.contains("://") { url.to_string() } else { format!("http://{}", url.as_str()) };
            let matcher = Matcher::builder().all(url).build();
            if address.uri().and_then(|uri| matcher.intercept(&uri)).is_none() {
                return Err(LinkError::ProxySetting("it is no address of the form http://host:port".to_owned()));
            }
            matcher
        }
    };
    let Some(intercept) = address.uri().and_then(|uri| matcher.intercept(&uri)) else { return Ok(None) };
    let uri = intercept.uri();
    match uri.scheme_str() {
        Some("http") | None => {}
        Some(other) => {
            return Err(LinkError::ProxySetting(format!("a proxy of the kind '{other}' is not supported, only http")));
        }
    }
    let host = uri.host().ok_or_else(|| LinkError::ProxySetting("the host is missing".to_owned()))?.to_owned();
    let port = uri.port_u16().unwrap_or(80);
    Ok(Some(Proxy { address: Address { host, port }, credentials: intercept.basic_auth().cloned() }))
}

/// The address of an HTTP proxy without user name and password, and whether it has them.
///
/// # Errors
/// [`LinkError::ProxySetting`] if it is none.
pub(crate) fn proxy_address(url: &str) -> Result<(String, bool), LinkError> {
    // Whoever is reached through it: a proxy that is named is used for everybody.
    let anybody = Address { host: "coordinator.invalid".to_owned(), port: DEFAULT_PORT };
    let proxy = proxy_for(&anybody, &ProxyChoice::Url(Zeroizing::new(url.to_owned())))?;
    let none = || LinkError::ProxySetting("it is no address of the form http://host:port".to_owned());
    let proxy = proxy.ok_or_else(none)?;
    Ok((format!("http://{}", proxy.address.authority()), proxy.credentials.is_some()))
}

/// Gives a step its time.
pub(super) async fn within<T>(
    limit: Duration,
    step: &'static str,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    let seconds = limit.as_secs().max(1);
    tokio::time::timeout(limit, work).await.unwrap_or(Err(LinkError::TimedOut { step, seconds }))
}

/// Resolves a name.
pub(super) async fn resolve(address: &Address) -> Result<Vec<std::net::SocketAddr>, LinkError> {
    let wrong = |reason: String| LinkError::Resolve { host: address.host.clone(), reason };
    let found = tokio::net::lookup_host((address.bare_host(), address.port)).await.map_err(|e| wrong(e.to_string()))?;
    let found: Vec<_> = found.collect();
    if found.is_empty() { Err(wrong("it has no address".to_owned())) } else { Ok(found) }
}

/// Opens a TCP connection to the first address that answers.
pub(super) async fn tcp(what: &'static str, address: &Address) -> Result<TcpStream, LinkError> {
    let mut last = None;
    for socket in resolve(address).await? {
        match TcpStream::connect(socket).await {
            Ok(stream) => {
                // Without it a heartbeat may wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let reason = last.map_or_else(|| "no address".to_owned(), |e| e.to_string());
    Err(LinkError::Connect { what, host: address.host.clone(), port: address.port, reason })
}

/// Opens a tunnel to `address` through a proxy.
pub(super) async fn tunnel(proxy: &Proxy, address: &Address) -> Result<Wire, LinkError> {
    let stream = tcp("the proxy", &proxy.address).await?;
    let name = proxy.address.authority();
    let broken = |e: hyper::Error| LinkError::ProxyRefused {
        proxy: name.clone(),
        host: address.host.clone(),
        port: address.port,
        reason: format!("it does not answer as an HTTP proxy ({e})"),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection.with_upgrades());
    let mut request = http::Request::connect(address.authority())
        .header(http::header::HOST, address.authority())
        .body(Empty::<Bytes>::new())
        .map_err(|e| LinkError::ProxySetting(e.to_string()))?;
    if let Some(credentials) = &proxy.credentials {
        let mut credentials = credentials.clone();
        credentials.set_sensitive(true);
        request.headers_mut().insert(http::header::PROXY_AUTHORIZATION, credentials);
    }
    let response = sender.send_request(request).await.map_err(broken)?;
    match response.status() {
        status if status.is_success() => {
            Ok(Wire::Tunnel(Box::new(TokioIo::new(hyper::upgrade::on(response).await.map_err(broken)?))))
        }
        http::StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(LinkError::ProxyCredentials { proxy: name }),
        status => Err(LinkError::ProxyRefused {
            proxy: name,
            host: address.host.clone(),
            port: address.port,
            reason: format!("it answers {status}"),
        }),
    }
}

/// A byte stream before TLS: straight, or inside a proxy's tunnel.
#[derive(Debug)]
pub(super) enum Wire {
    Straight(TcpStream),
    Tunnel(Box<TokioIo<hyper::upgrade::Upgraded>>),
}

/// Speaks TLS over a byte stream.
pub(super) async fn tls(
    wire: Wire,
    address: &Address,
    config: &Arc<ClientConfig>,
) -> Result<(Encrypted, Arc<Meter>), LinkError> {
    let name = ServerName::try_from(address.bare_host().to_owned())
        .map_err(|_| LinkError::Url { url: address.authority(), reason: "the host is no name that TLS knows" })?;
    let meter = Arc::new(Meter::default());
    let metered = Metered { wire, meter: Arc::clone(&meter) };
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(name, metered)
        .await
        .map_err(|e| error::of_chain(&e).unproven())?;
    Ok((Encrypted { stream, meter: Arc::clone(&meter) }, meter))
}

/// An encrypted connection.
#[derive(Debug)]
pub(super) struct Encrypted {
    stream: TlsStream<Metered>,
    meter: Arc<Meter>,
}

impl Encrypted {
    /// What was agreed on: protocol version and key exchange, for people.
    pub(super) fn agreed(&self) -> (Option<String>, Option<String>) {
        let (_, session) = self.stream.get_ref();
        let version = session.protocol_version().map(|v| format!("{v:?}").replace("TLSv1_", "TLS 1."));
        (version, session.negotiated_key_exchange_group().map(|g| format!("{:?}", g.name())))
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.meter.note(&polled);
        polled
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How to reach a coordinator.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) proxy: ProxyChoice,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) step: Duration,
}

impl Dialer {
    /// Name, TCP or tunnel, TLS; each step has its time.
    pub(super) async fn dial(&self, address: &Address) -> Result<(Encrypted, Arc<Meter>), LinkError> {
        let wire = match proxy_for(address, &self.proxy)? {
            None => Wire::Straight(within(self.step, "the coordinator", tcp("the coordinator", address)).await?),
            Some(proxy) => within(self.step, "the proxy", tunnel(&proxy, address)).await?,
        };
        within(self.step, "TLS", tls(wire, address, &self.tls)).await
    }

    /// One HTTP/1.1 request over a connection of its own; answers longer than `limit` bytes are refused.
    pub(super) async fn request(
        &self,
        address: &Address,
        request: http::Request<http_body_util::Full<Bytes>>,
        limit: usize,
    ) -> Result<(http::StatusCode, Bytes), LinkError> {
        let (stream, _) = self.dial(address).await?;
        let work = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| error::of_chain(&e))?;
            let driver = tokio::spawn(connection);
            let answered = async {
                let response = sender.send_request(request).await.map_err(|e| error::of_chain(&e))?;
                let status = response.status();
                let body = http_body_util::Limited::new(response.into_body(), limit)
                    .collect()
                    .await
                    .map_err(|e| error::of_chain(e.as_ref()))?;
                Ok((status, body.to_bytes()))
            };
            let answer = answered.await;
            driver.abort();
            answer
        };
        within(self.step, "the coordinator", work).await
    }
}

/// Counts what passes.
#[derive(Debug)]
pub(super) struct Metered {
    wire: Wire,
    meter: Arc<Meter>,
}

impl Metered {
    fn count(&self, bytes: usize) {
        self.meter.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = match &mut self.wire {
            Wire::Straight(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tunnel(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        self.count(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.wire {
            Wire::Straight(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tunnel(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        if let Poll::Ready(Ok(written)) = polled {
            self.count(written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Straight(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Straight(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
