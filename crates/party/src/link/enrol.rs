//! Enrolment: from an invitation to a membership. The TLS key is made here and never leaves but to the engine.

use std::time::Duration;

use hospes_protocol::enrol::{EnrolAnswer, EnrolRequest, FederationInfo, Invitation};
use hospes_protocol::id::{Digest, FederationId, SiteId};
use hospes_protocol::limits;
use hospes_protocol::sign::{PublicKey, SecretKey, Signed};
use hospes_protocol::study::{MemberStatement, Roster};
use hospes_protocol::version::{self, Version};
use hospes_protocol::words::{self, Comparison};
use http_body_util::Full;
use hyper::body::Bytes;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::de::DeserializeOwned;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use super::dial::{Address, Dialer};
use super::error::LinkError;
use super::tls::{self, Anchor};
use super::{ProxyChoice, Timing};
use crate::config::Clock;

/// Longest answer to enrolment; it holds the roster.
pub(super) const ANSWER_BYTES: usize = limits::DOCUMENT_BYTES * 3;

/// How a coordinator is reached before there is a membership.
#[derive(Clone)]
pub struct Reach {
    /// How to get out of the building.
    pub proxy: ProxyChoice,
    /// The site's clock.
    pub clock: Clock,
    /// Longest time for each step.
    pub step: Duration,
}

impl Reach {
    /// With the protocol's own times.
    pub fn new(proxy: ProxyChoice, clock: Clock) -> Self {
        Self { proxy, clock, step: Timing::default().dial }
    }
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reach").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// What enrolment gives; the engine keeps all of it.
#[derive(Debug)]
pub struct Enrolled {
    /// URL from the invitation.
    pub url: String,
    /// Federation.
    pub federation: FederationId,
    /// Its name.
    pub name: String,
    /// This site in it: the id of the identity key that was given.
    pub site: SiteId,
    /// This site's name in it, from the invitation.
    pub site_name: String,
    /// The coordinator's identity key.
    pub coordinator: PublicKey,
    /// Certificate of the federation's CA, PEM; its digest is the one in the invitation.
    pub ca_pem: String,
    /// Client certificate, PEM.
    pub chain_pem: String,
    /// Its key, PEM, with the certificate after it.
    pub key_pem: Zeroizing<String>,
    /// Members, signed by the coordinator; this site is among them.
    pub roster: Signed<Roster>,
}

/// The coordinator of an invitation, reached under TLS pinned to the invitation's CA after the words were compared. It was
/// told nothing about this site yet, and the invitation is still good.
pub struct Reached {
    invitation: Invitation,
    address: Address,
    dialer: Dialer,
    info: FederationInfo,
}

impl Reached {
    /// Compares the words with the invitation and asks its coordinator which federation it is of. `typed` are the twelve
    /// words of the CA's fingerprint, which came by a second channel.
    ///
    /// # Errors
    /// [`LinkError`] in words. Nothing is sent to the coordinator before the words were compared.
    pub async fn by(invitation: Invitation, typed: &str, reach: &Reach) -> Result<Self, LinkError> {
        match words::compare(typed, &invitation.ca) {
            Comparison::Same => {}
            Comparison::Different => return Err(LinkError::WordsDiffer),
            Comparison::Mistyped => return Err(LinkError::WordsMistyped),
        }
        in_time(&invitation, reach)?;
        let (address, dialer) = pinned(&invitation, reach)?;
        let asked = ask(&address, &dialer, reach).await?;
        asked.skew()?;
        asked.version()?;
        Ok(Self { invitation, address, dialer, info: asked.info })
    }

    /// The federation that the invitation leads to, as its coordinator says.
    pub fn federation(&self) -> FederationId {
        self.info.federation
    }

    /// Fingerprint of its CA, which the words were compared with.
    pub fn ca(&self) -> Digest {
        self.invitation.ca
    }

    /// Joins: signs who this site is, and gets its certificate. `identity` is the key of this membership: a new one for a
    /// new federation, the present one to enrol again.
    ///
    /// # Errors
    /// [`LinkError`] in words.
    pub async fn enrol(self, organisation: &str, identity: &SecretKey) -> Result<Enrolled, LinkError> {
        let Self { invitation, address, dialer, info } = self;
        let statement = Signed::new(
            MemberStatement {
                federation: info.federation,
                name: invitation.site.clone(),
                organisation: organisation.to_owned(),
                identity: identity.public(),
            },
            identity,
        )
        .map_err(|e| LinkError::Protocol(e.to_string()))?;
        let site = identity.public().site_id();
        let (key, csr_pem) = tls_key(site)?;
        let request = EnrolRequest::new(&invitation.secret, csr_pem, &statement)
            .map_err(|e| LinkError::Protocol(e.to_string()))?;
        let body = serde_json::to_vec(&request).map_err(|e| LinkError::Protocol(e.to_string()))?;
        let request = post(&address, "/enrol", Full::new(Bytes::from(body)))?;
        let (status, answer) = dialer.request(&address, request, ANSWER_BYTES).await?;
        let answer = read::<EnrolAnswer>(status, &answer)?;
        accept(&invitation, &info, answer, site, &key)
    }
}

/// Whether the invitation is still good by this site's clock.
pub(super) fn in_time(invitation: &Invitation, reach: &Reach) -> Result<(), LinkError> {
    if (reach.clock)() < invitation.expires { Ok(()) } else { Err(LinkError::InvitationExpired(invitation.expires)) }
}

/// Address and dialer under TLS pinned to the invitation's CA.
pub(super) fn pinned(invitation: &Invitation, reach: &Reach) -> Result<(Address, Dialer), LinkError> {
    let address = Address::parse(&invitation.url)?;
    let tls = tls::client_config(&Anchor::Pinned(invitation.ca), None, &reach.clock, tls::HTTP1)?;
    Ok((address, Dialer { proxy: reach.proxy.clone(), tls, step: reach.step }))
}

/// What a coordinator says before a site belongs to it.
pub(super) struct Asked {
    pub(super) info: FederationInfo,
    skew_ms: i64,
}

impl Asked {
    /// Site minus coordinator, in milliseconds, if that little does no harm.
    pub(super) fn skew(&self) -> Result<i64, LinkError> {
        if self.skew_ms.abs() > limits::CLOCK_SKEW_MS { Err(LinkError::Clock(self.skew_ms)) } else { Ok(self.skew_ms) }
    }

    /// The version of the protocol that both would speak; `None` where the coordinator is too old to say.
    pub(super) fn version(&self) -> Result<Option<Version>, LinkError> {
        if self.info.versions.is_empty() {
            return Ok(None);
        }
        version::negotiate(&self.info.versions).map(Some).map_err(|e| LinkError::Protocol(e.to_string()))
    }
}

/// Asks who the federation is.
pub(super) async fn ask(address: &Address, dialer: &Dialer, reach: &Reach) -> Result<Asked, LinkError> {
    let request = http::Request::get("/federation")
        .header(http::header::HOST, address.authority())
        .body(Full::default())
        .map_err(|e| LinkError::Protocol(e.to_string()))?;
    let sent = (reach.clock)();
    let (status, body) = dialer.request(address, request, 64 << 10).await?;
    let info = read::<FederationInfo>(status, &body)?;
    if info.identity.site_id() != info.federation {
        return Err(LinkError::Identity("its federation is not the id of its key"));
    }
    let middle = sent.plus_millis((reach.clock)().since(sent) / 2);
    let skew_ms = middle.since(info.at);
    Ok(Asked { info, skew_ms })
}

/// Checks everything in the coordinator's answer that can be checked.
fn accept(
    invitation: &Invitation,
    info: &FederationInfo,
    answer: EnrolAnswer,
    site: SiteId,
    key: &KeyPair,
) -> Result<Enrolled, LinkError> {
    let wrong = |reason: &str| LinkError::Answer(reason.to_owned());
    if answer.site != site {
        return Err(wrong("it is for another site"));
    }
    if answer.federation != info.federation || answer.identity != info.identity {
        return Err(LinkError::Identity("it changed while the site enrolled"));
    }
    if tls::fingerprint(&answer.ca_pem)? != invitation.ca {
        return Err(wrong("its CA is not the one in the invitation"));
    }
    check_certificate(&answer.certificate_pem, key, site, info.federation)?;
    let roster = answer.signed_roster().ok_or_else(|| wrong("its roster cannot be read"))?;
    if !roster.signed_by(&info.identity) || roster.document.federation != info.federation {
        return Err(wrong("its roster is not signed by the coordinator"));
    }
    if !roster.document.members.iter().any(|m| m.site == site && m.holds(info.federation)) {
        return Err(wrong("this site is not in its roster"));
    }
    Ok(Enrolled {
        url: invitation.url.trim().trim_end_matches('/').to_owned(),
        federation: info.federation,
        name: answer.name,
        site,
        site_name: invitation.site.clone(),
        coordinator: info.identity,
        ca_pem: answer.ca_pem,
        key_pem: key_pem(key, &answer.certificate_pem),
        chain_pem: answer.certificate_pem,
        roster,
    })
}

/// A new TLS key (P-256) and the signing request for it, PEM.
pub(super) fn tls_key(site: SiteId) -> Result<(KeyPair, String), LinkError> {
    let wrong = |e: rcgen::Error| LinkError::Material { what: "TLS key", reason: e.to_string() };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(wrong)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(wrong)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, site.to_string());
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(wrong)?;
    Ok((key, csr))
}

/// The key and, after it, its certificate, PEM; see [`tls::Identity::new`].
pub(super) fn key_pem(key: &KeyPair, certificate: &str) -> Zeroizing<String> {
    let key = Zeroizing::new(key.serialize_pem());
    let mut both = String::with_capacity(key.len() + certificate.len() + 1);
    both.push_str(&key);
    both.push('\n');
    both.push_str(certificate);
    Zeroizing::new(both)
}

/// Whether a certificate is for this key, and names this site and federation.
pub(super) fn check_certificate(
    pem: &str,
    key: &KeyPair,
    site: SiteId,
    federation: FederationId,
) -> Result<(), LinkError> {
    let wrong = |reason: &str| LinkError::Answer(reason.to_owned());
    let list = tls::certificates("client certificate", pem)?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&list[0]).map_err(|_| wrong("its certificate cannot be read"))?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(wrong("its certificate is for another key"));
    }
    let expected = format!("hospes://{federation}/{site}");
    let named = certificate.subject_alternative_name().ok().flatten().is_some_and(|san| {
        san.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(uri) if *uri == expected))
    });
    if named { Ok(()) } else { Err(wrong("its certificate does not name this site")) }
}

/// A JSON request.
pub(super) fn post(address: &Address, path: &str, body: Full<Bytes>) -> Result<http::Request<Full<Bytes>>, LinkError> {
    http::Request::post(path)
        .header(http::header::HOST, address.authority())
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|e| LinkError::Protocol(e.to_string()))
}

/// Reads a JSON answer; what is no success becomes a refusal in the coordinator's words.
pub(super) fn read<T: DeserializeOwned>(status: http::StatusCode, body: &[u8]) -> Result<T, LinkError> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|e| LinkError::Answer(format!("it cannot be read ({e})")));
    }
    let said = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|value| {
        let field = ["detail", "error", "message", "title"].iter().find_map(|name| value.get(name)?.as_str());
        field.map(|text| text.chars().filter(|c| !c.is_control()).take(500).collect::<String>())
    });
    let said = said.unwrap_or_else(|| format!("it answers {status}"));
    Err(LinkError::Refused(said))
}
