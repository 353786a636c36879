//! TLS as the coordinator speaks it: version 1.3, hybrid post-quantum key exchange, and client certificates of its own
//! authority, optional here and demanded by what needs them.

use std::fmt;
use std::sync::{Arc, RwLock};

use hospes_protocol::id::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::UnixTime;

use crate::ca::Ca;
use crate::{Clock, Error};

/// How long the server's certificate is good; it is made anew, with a new key, at half of it and at every start.
const SERVER_MS: i64 = 60 * 86_400_000;

/// The server's certificate, replaced while running.
pub(super) struct ServerCertificate {
    names: Vec<String>,
    current: RwLock<(Arc<CertifiedKey>, Timestamp)>,
}

impl ServerCertificate {
    pub(super) fn new(ca: &Ca, names: Vec<String>, now: Timestamp) -> Result<Self, Error> {
        let current = RwLock::new((certify(ca, &names, now)?, now));
        Ok(Self { names, current })
    }

    /// Makes a new one if half of the present one's time is over.
    pub(super) fn refresh(&self, ca: &Ca, now: Timestamp) -> Result<bool, Error> {
        let made = self.current.read().map_or(now, |c| c.1);
        if now.since(made) < SERVER_MS / 2 {
            return Ok(false);
        }
        let next = certify(ca, &self.names, now)?;
        if let Ok(mut current) = self.current.write() {
            *current = (next, now);
        }
        Ok(true)
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().ok().map(|c| c.0.clone())
    }
}

fn certify(ca: &Ca, names: &[String], now: Timestamp) -> Result<Arc<CertifiedKey>, Error> {
    let (certificate, key) = ca.issue_server(names, now, SERVER_MS)?;
    let key = aws_lc_rs::sign::any_supported_type(&key)?;
    // The CA goes along, so that a site that knows only its digest can find it in the handshake.
    Ok(Arc::new(CertifiedKey::new(vec![certificate, ca.der().clone()], key)))
}

/// The configuration of the listener.
pub(super) fn config(ca: &Ca, certificate: Arc<ServerCertificate>, clock: Clock) -> Result<Arc<ServerConfig>, Error> {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| Error::Certificate(e.to_string()))?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(TlsClock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // No resumption: every connection shows its certificate anew, and an idle connection keeps no session state.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The coordinator's clock, for the validity of client certificates.
struct TlsClock(Clock);

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from((self.0)().as_millis()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(millis)))
    }
}

impl fmt::Debug for TlsClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClock")
    }
}
