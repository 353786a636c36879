//! TLS towards a coordinator: rustls on aws-lc-rs with the hybrid post-quantum key exchange first, the federation's CA as
//! the only judge of the coordinator's certificate (but for what [`ExtraCa`] adds), and the site's client certificate.

use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::text::shown;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ExtraCa;
use super::error::{Carried, LinkError};
use crate::config::Clock;

/// Application protocol of the session and the transfers.
pub(super) const HTTP2: &[u8] = b"h2";
/// Application protocol of enrolment, renewal and diagnosis.
pub(super) const HTTP1: &[u8] = b"http/1.1";

/// Most bytes of a file with a hospital's own CA certificates.
const FILE_BYTES: u64 = 1 << 20;
/// Most characters of a name that is shown.
const NAME: usize = 200;
/// What such a file is called where it cannot be used.
pub(super) const FILE: &str = "certificate file";

/// Who vouches for the coordinator's certificate.
#[derive(Debug, Clone)]
pub(super) enum Anchor {
    /// The federation's CA, known from enrolment, and whose certificates are taken besides.
    Federation {
        /// PEM.
        ca_pem: String,
        /// Others.
        extra: ExtraCa,
    },
    /// The CA with this digest of its DER form, which the coordinator itself must show; before enrolment.
    Pinned(Digest),
    /// Whoever this machine believes, and the hospital's own CAs; for servers that are no coordinators.
    Public {
        /// The hospital's own, PEM.
        own: Option<String>,
    },
}

/// Client certificate and its key.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) chain_pem: String,
    pub(super) key_pem: Zeroizing<String>,
}

impl Identity {
    /// The certificate that travels with the key wins: key and certificate lie in two stores, and a crash between the two
    /// writes of a renewal must not leave a pair that does not fit.
    pub(super) fn new(chain_pem: &str, key_pem: &Zeroizing<String>) -> Self {
        let chain_pem = certificate_in(key_pem).unwrap_or(chain_pem).to_owned();
        Self { chain_pem, key_pem: key_pem.clone() }
    }
}

/// The certificate that travels with a key, PEM.
pub(crate) fn certificate_in(key_pem: &str) -> Option<&str> {
    key_pem.find("-----BEGIN CERTIFICATE-----").map(|at| &key_pem[at..])
}

/// Everything that TLS towards one coordinator needs.
pub(super) fn client_config(
    anchor: &Anchor,
    identity: Option<&Identity>,
    clock: &Clock,
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, LinkError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier::new(anchor, &provider)?);
    let builder = ClientConfig::builder_with_details(provider, Arc::new(SiteTime(Arc::clone(clock))))
        .with_safe_default_protocol_versions()
        .map_err(|e| LinkError::Broken(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
                .map_err(|e| LinkError::Material { what: "TLS key", reason: e.to_string() })?;
            builder
                .with_client_auth_cert(certificates("client certificate", &identity.chain_pem)?, key)
                .map_err(|e| LinkError::Material { what: "client certificate", reason: e.to_string() })?
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// The certificates of a PEM text.
pub(super) fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let wrong = |reason: String| LinkError::Material { what, reason };
    let list = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| wrong(e.to_string()))?;
    if list.is_empty() { Err(wrong("it holds no certificate".to_owned())) } else { Ok(list) }
}

/// Digest of the one certificate of a CA: what an invitation pins, and people compare as words.
///
/// # Errors
/// [`LinkError::Material`] if it is not one certificate.
pub(crate) fn fingerprint(ca_pem: &str) -> Result<Digest, LinkError> {
    let what = "federation CA";
    match certificates(what, ca_pem)?.as_slice() {
        [ca] => Ok(Digest::of(ca)),
        _ => Err(LinkError::Material { what, reason: "it is not one certificate".to_owned() }),
    }
}

/// The text of a file with a hospital's own CA certificates.
///
/// # Errors
/// [`LinkError::Material`] if it cannot be read, is too long, or is no text.
pub fn read_certificates(path: &Path) -> Result<String, LinkError> {
    let wrong = |reason: String| LinkError::Material { what: FILE, reason };
    let mut pem = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut pem));
    match read {
        Ok(_) if pem.len() as u64 > FILE_BYTES => Err(wrong(format!("it is longer than {FILE_BYTES} bytes"))),
        Ok(_) => Ok(pem),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(wrong("it is not text in PEM form".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// How many CA certificates a hospital's own file holds; all of them can be used.
pub(crate) fn authorities(pem: &str) -> Result<usize, LinkError> {
    Ok(roots(FILE, certificates(FILE, pem)?)?.len())
}

/// A CA certificate of the hospital's own, as people compare it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
pub struct Authority {
    /// Whose it is, as it says itself.
    pub name: String,
    /// SHA-256 of it.
    pub digest: Digest,
    /// Until when it is good.
    pub until: Timestamp,
}

/// The certificates of a hospital's own file, one by one.
pub(crate) fn named_authorities(pem: &str) -> Result<Vec<Authority>, LinkError> {
    let named = |certificate: &CertificateDer<'_>| {
        let (_, read) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|e| LinkError::Material { what: FILE, reason: e.to_string() })?;
        let until = read.validity().not_after.timestamp().saturating_mul(1_000);
        Ok::<_, LinkError>(Authority {
            name: shown(&read.subject().to_string(), NAME),
            digest: Digest::of(certificate),
            until: Timestamp::from_millis(until),
        })
    };
    certificates(FILE, pem)?.iter().map(named).collect()
}

/// From when until when the first certificate of a PEM text is good.
pub(super) fn validity(what: &'static str, pem: &str) -> Result<(Timestamp, Timestamp), LinkError> {
    let list = certificates(what, pem)?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&list[0])
        .map_err(|e| LinkError::Material { what, reason: e.to_string() })?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_millis(time.timestamp().saturating_mul(1_000));
    Ok((at(certificate.validity().not_before), at(certificate.validity().not_after)))
}

fn roots(what: &'static str, certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, LinkError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate).map_err(|e| LinkError::Material { what, reason: e.to_string() })?;
    }
    Ok(store)
}

fn webpki(
    what: &'static str,
    store: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, LinkError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map_err(|e| LinkError::Material { what, reason: e.to_string() })
}

/// The site's clock, also for certificates, so that there is one clock only.
struct SiteTime(Clock);

impl fmt::Debug for SiteTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SiteTime")
    }
}

impl TimeProvider for SiteTime {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from((self.0)().as_millis()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(millis)))
    }
}

/// Judges the coordinator's certificate, and says in words what is wrong with it.
struct Verifier {
    provider: Arc<CryptoProvider>,
    anchors: Anchors,
}

enum Anchors {
    /// Each is asked in turn; the first is the federation's CA.
    Known(Vec<Arc<dyn ServerCertVerifier>>),
    Pinned(Digest),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    fn new(anchor: &Anchor, provider: &Arc<CryptoProvider>) -> Result<Self, LinkError> {
        let provider = Arc::clone(provider);
        let (ca_pem, extra) = match anchor {
            Anchor::Pinned(digest) => return Ok(Self { provider, anchors: Anchors::Pinned(*digest) }),
            Anchor::Public { own } => return Self::public(own.as_deref(), provider),
            Anchor::Federation { ca_pem, extra } => (ca_pem, extra),
        };
        let what = "federation CA";
        let mut known: Vec<Arc<dyn ServerCertVerifier>> =
            vec![webpki(what, roots(what, certificates(what, ca_pem)?)?, &provider)?];
        let what = "extra CA";
        match extra {
            ExtraCa::None => {}
            ExtraCa::Pem(pem) => known.push(webpki(what, roots(what, certificates(what, pem)?)?, &provider)?),
            ExtraCa::System => known.push(Arc::new(
                rustls_platform_verifier::Verifier::new(Arc::clone(&provider))
                    .map_err(|e| LinkError::Material { what, reason: e.to_string() })?,
            )),
        }
        Ok(Self { provider, anchors: Anchors::Known(known) })
    }

    fn public(own: Option<&str>, provider: Arc<CryptoProvider>) -> Result<Self, LinkError> {
        let mut known: Vec<Arc<dyn ServerCertVerifier>> = Vec::new();
        if let Some(pem) = own {
            known.push(webpki(FILE, roots(FILE, certificates(FILE, pem)?)?, &provider)?);
        }
        match rustls_platform_verifier::Verifier::new(Arc::clone(&provider)) {
            Ok(system) => known.push(Arc::new(system)),
            // A machine may believe nobody but its hospital.
            Err(_) if own.is_some() => {}
            Err(e) => return Err(LinkError::Material { what: "trust store", reason: e.to_string() }),
        }
        Ok(Self { provider, anchors: Anchors::Known(known) })
    }

    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.anchors {
            Anchors::Known(verifiers) => {
                let mut first = None;
                for verifier in verifiers {
                    match verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                        Ok(verified) => return Ok(verified),
                        Err(error) => first = first.or(Some(error)),
                    }
                }
                Err(first.unwrap_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)))
            }
            Anchors::Pinned(pin) => {
                let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
                let ca = intermediates.iter().find(|c| Digest::of(c) == *pin).ok_or_else(unknown)?;
                let mut store = RootCertStore::empty();
                store.add(ca.clone().into_owned()).map_err(|_| unknown())?;
                WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&self.provider))
                    .build()
                    .map_err(|_| unknown())?
                    .verify_server_cert(end_entity, intermediates, name, ocsp, now)
            }
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, name, ocsp, now).map_err(|error| {
            let rustls::Error::InvalidCertificate(reason) = &error else { return error };
            let problem = describe(end_entity, &name.to_str(), reason, now);
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Carried(problem)))))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Says what is wrong with a certificate that was shown.
fn describe(certificate: &CertificateDer<'_>, host: &str, reason: &CertificateError, now: UnixTime) -> LinkError {
    let host = host.to_owned();
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return LinkError::Certificate { host, reason: "it cannot be read".to_owned() };
    };
    let at = |time: &x509_parser::time::ASN1Time| Timestamp::from_millis(time.timestamp().saturating_mul(1_000));
    let now = Timestamp::from_millis(i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000));
    let (from, until) = (at(&parsed.validity().not_before), at(&parsed.validity().not_after));
    let reason = match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            return LinkError::Intercepted { host, issuer: parsed.issuer().to_string() };
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } if until < now => {
            format!("it was good until {until}, and this machine's clock says {now}; one of the two is wrong")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } if from > now => {
            format!("it is good from {from} on, and this machine's clock says {now}; one of the two is wrong")
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            format!(
                "one that vouches for it is not good today, and this machine's clock says {now}; one of the two is wrong"
            )
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it was made for another name".to_owned()
        }
        other => format!("{other}"),
    };
    LinkError::Certificate { host, reason }
}
