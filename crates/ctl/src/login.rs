//! `login`: finds the coordinator's CA, checks it against what its operator told by another way, and keeps it.

use std::fs;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use hospes_protocol::id::Digest;
use hospes_protocol::words::{self, Comparison};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::json;

use crate::arguments::Login;
use crate::client::{Client, Failure, FailureKind};
use crate::config::{self, Saved};
use crate::output;

/// Time for a connection and a handshake.
const PATIENCE: Duration = Duration::from_secs(20);

/// `login`
pub(crate) async fn login(
    arguments: &Login,
    url: &str,
    token_file: Option<&Path>,
    ca: Option<&Path>,
    json: bool,
) -> Result<()> {
    let url = url.trim_end_matches('/').to_owned();
    let certificate = match ca {
        Some(path) => {
            let pem = fs::read(path).with_context(|| format!("read the CA in {}", path.display()))?;
            CertificateDer::from_pem_slice(&pem).map_err(|_| {
                Failure::new(FailureKind::Usage, format!("{} holds no certificate in PEM form", path.display()))
            })?
        }
        None => offered(&url, arguments).await?,
    };
    check(&Digest::of(&certificate), arguments)?;
    let saved = Saved { url, token: token(token_file)?, ca_pem: pem(&certificate) };
    let client = Client::of(&saved)?;
    let federation = client.get("federation").await?;
    let path = config::path()?;
    config::save(&path, &saved)?;
    if json {
        return output::json(&json!({ "url": saved.url, "federation": federation, "file": path }));
    }
    let text = |field: &str| output::text(&federation[field]);
    output::say(&format!("You are {} ({}) in {}.", text("caller"), text("role"), text("name")));
    output::say(&format!("Kept in {}; `hospesctl logout` forgets it.", path.display()));
    Ok(())
}

/// `logout`
pub(crate) fn logout() -> Result<()> {
    let path = config::path()?;
    output::say(if config::forget(&path)? {
        "The token is forgotten here; it stays valid until it is revoked."
    } else {
        "You were not logged in."
    });
    Ok(())
}

/// The token: from a file, or from standard input so that it stands in no history of commands.
fn token(file: Option<&Path>) -> Result<String> {
    let text = match file {
        Some(path) => fs::read_to_string(path).with_context(|| format!("read the token in {}", path.display()))?,
        None => {
            if std::io::stdin().is_terminal() {
                output::tell("Token (one line, then Ctrl-D):");
            }
            let mut text = String::new();
            std::io::stdin().take(4_096).read_to_string(&mut text).context("read the token")?;
            text
        }
    };
    let token = text.trim();
    if token.starts_with("hospes_") {
        Ok(token.to_owned())
    } else {
        let words = "a token starts with 'hospes_'; `hospes-coordinator token create` makes one";
        Err(Failure::new(FailureKind::Usage, words).into())
    }
}

/// Whether the certificate is the one that the operator spoke of.
fn check(digest: &Digest, arguments: &Login) -> Result<()> {
    let refuse = |words: String| Err(Failure::new(FailureKind::NotVerified, words).into());
    if let Some(typed) = &arguments.ca_words {
        return match words::compare(typed, digest) {
            Comparison::Same => Ok(()),
            Comparison::Mistyped => {
                let words = "these are no twelve words of a CA; a word was misheard or mistyped";
                Err(Failure::new(FailureKind::Usage, words).into())
            }
            Comparison::Different => refuse(format!(
                "the words do not fit. This coordinator's CA reads:\n  {}\nStop, and ask its operator by another way: \
                 somebody may stand between",
                words::of_digest(digest)
            )),
        };
    }
    if let Some(typed) = &arguments.ca_fingerprint {
        let typed: String = typed.chars().filter(|c| *c != ':' && !c.is_whitespace()).collect();
        let wanted: Result<Digest, _> = typed.to_ascii_lowercase().parse();
        let wanted = wanted.map_err(|e| Failure::new(FailureKind::Usage, format!("the fingerprint: {e}")))?;
        if wanted != *digest {
            return refuse(format!("the fingerprint does not fit: this coordinator's CA has {digest}"));
        }
    }
    Ok(())
}

/// The CA that the coordinator sends along in the handshake. It is believed only if words or fingerprint fit.
async fn offered(url: &str, arguments: &Login) -> Result<CertificateDer<'static>> {
    if arguments.ca_words.is_none() && arguments.ca_fingerprint.is_none() {
        let words = "say how the coordinator is known: --ca-words \"…\" as its operator read them to you, \
                     --ca-fingerprint, or --ca FILE";
        return Err(Failure::new(FailureKind::Usage, words).into());
    }
    let parsed = reqwest::Url::parse(url).ok().filter(|u| u.scheme() == "https");
    let usage = || Failure::new(FailureKind::Usage, format!("'{url}' is not of the form https://host:port"));
    let parsed = parsed.ok_or_else(usage)?;
    let host = parsed.host_str().ok_or_else(usage)?.trim_matches(['[', ']']).to_owned();
    let port = parsed.port_or_known_default().unwrap_or(443);
    let unreachable = |why: String| Failure::new(FailureKind::NotReachable, format!("{url} cannot be reached: {why}"));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = Look { provider: provider.clone(), seen: seen.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(look))
        .with_no_client_auth();
    let name = ServerName::try_from(host.clone()).map_err(|_| usage())?;
    let handshake = async {
        let stream = tokio::net::TcpStream::connect((host.as_str(), port)).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(drop)
    };
    match tokio::time::timeout(PATIENCE, handshake).await {
        Err(_) => return Err(unreachable("no answer in time; behind a proxy, give --ca FILE instead".into()).into()),
        Ok(Err(error)) => return Err(unreachable(error.to_string()).into()),
        Ok(Ok(())) => {}
    }
    // The CA stands last in what a coordinator sends.
    let last = seen.lock().unwrap_or_else(PoisonError::into_inner).pop();
    last.ok_or_else(|| unreachable("it showed no certificate".into()).into())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let body = data_encoding::BASE64.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Looks at a chain without believing it: nothing is sent on this connection, and what is believed is decided after.
#[derive(Debug)]
struct Look {
    provider: Arc<CryptoProvider>,
    seen: Arc<Mutex<Vec<CertificateDer<'static>>>>,
}

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).take(16);
        let chain = chain.map(|c| c.clone().into_owned()).collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: Option<&str>, fingerprint: Option<&str>) -> Login {
        Login { ca_words: words.map(str::to_owned), ca_fingerprint: fingerprint.map(str::to_owned) }
    }

    #[test]
    fn only_the_right_words_or_fingerprint_pass() {
        let (digest, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let kind = |result: Result<()>| result.err().map(|e| e.downcast_ref::<Failure>().unwrap().kind);
        let right = words::of_digest(&digest);
        assert_eq!(kind(check(&digest, &arguments(Some(&right), None))), None);
        let wrong = words::of_digest(&other);
        assert_eq!(kind(check(&digest, &arguments(Some(&wrong), None))), Some(FailureKind::NotVerified));
        assert_eq!(kind(check(&digest, &arguments(Some("one two"), None))), Some(FailureKind::Usage));
        let colons: Vec<String> =
            digest.to_string().to_uppercase().as_bytes().chunks(2).map(|b| String::from_utf8_lossy(b).into()).collect();
        assert_eq!(kind(check(&digest, &arguments(None, Some(&colons.join(":"))))), None);
        let fingerprint = other.to_string();
        assert_eq!(kind(check(&digest, &arguments(None, Some(&fingerprint)))), Some(FailureKind::NotVerified));
    }

    #[test]
    fn a_certificate_survives_its_pem_form() {
        let certificate = CertificateDer::from(vec![7u8; 300]);
        assert_eq!(CertificateDer::from_pem_slice(pem(&certificate).as_bytes()).unwrap(), certificate);
    }
}
