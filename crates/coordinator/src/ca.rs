//! The coordinator's own certificate authority (P-256): short-lived client certificates for sites, one for the server.
//!
//! Of a certificate signing request only the public key is used, after its signature was checked; everything else in a
//! certificate is the coordinator's word.

use hospes_protocol::id::{Digest, FederationId, SiteId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{Error, random};

/// Certificates are good this long before they were made, so that a machine whose clock is wrong is told so by the
/// protocol and not turned away by TLS without a word.
pub(crate) const BACKDATED_MS: i64 = 48 * 3_600 * 1_000;
/// How long the CA's own certificate is good.
const CA_MS: i64 = 20 * 365 * 86_400_000;
/// Largest certificate signing request in bytes.
const CSR_BYTES: usize = 8 << 10;

/// The certificate authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

/// A client certificate as it was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// PEM.
    pub pem: String,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// The peer that a verified client certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Site.
    pub site: SiteId,
    /// Serial number of the certificate in hexadecimal.
    pub serial: String,
}

/// Why no certificate was issued: the request is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate signing request {0}")]
pub struct BadRequest(&'static str);

impl Ca {
    /// Makes a new authority; also returns its private key (PKCS #8 DER), to be sealed.
    ///
    /// # Errors
    /// [`Error::Certificate`] or [`Error::Random`].
    pub fn create(name: &str, now: Timestamp) -> Result<(Self, Zeroizing<Vec<u8>>), Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let secret = Zeroizing::new(key.serialize_der());
        let mut params = params(now, CA_MS)?;
        params.distinguished_name.push(DnType::CommonName, format!("Hospes federation {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?;
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Ok((Self { issuer: Issuer::new(params, key), der, pem }, secret))
    }

    /// Takes up an authority that was made before.
    ///
    /// # Errors
    /// [`Error::Certificate`] if certificate and key do not belong together.
    pub fn load(pem: &str, key: &[u8]) -> Result<Self, Error> {
        let key = KeyPair::try_from(key).map_err(failed)?;
        let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(failed)?;
        let certificate = parsed.parse_x509().map_err(failed)?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(Error::Certificate("the CA's certificate and key do not belong together".into()));
        }
        let der = CertificateDer::from(parsed.contents.clone());
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(failed)?;
        Ok(Self { issuer, der, pem: pem.to_owned() })
    }

    /// The authority's certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The authority's certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// What an invitation pins: SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.der)
    }

    /// Issues a client certificate for the key in a certificate signing request.
    ///
    /// # Units
    /// `lifetime_ms` in milliseconds, rounded down to whole seconds.
    ///
    /// # Errors
    /// The outer [`Error`] if signing failed; the inner [`BadRequest`] if the request is at fault.
    pub fn issue_client(
        &self,
        csr_pem: &str,
        federation: FederationId,
        site: SiteId,
        now: Timestamp,
        lifetime_ms: i64,
    ) -> Result<Result<Issued, BadRequest>, Error> {
        if csr_pem.len() > CSR_BYTES {
            return Ok(Err(BadRequest("is too large")));
        }
        let Ok(request) = CertificateSigningRequestParams::from_pem(csr_pem) else {
            return Ok(Err(BadRequest("cannot be read, or its signature is wrong")));
        };
        if *request.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Ok(Err(BadRequest("must be for a P-256 key")));
        }
        let mut params = params(now, lifetime_ms)?;
        let serial = serial()?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name.push(DnType::CommonName, site.to_string());
        params.subject_alt_names = vec![SanType::URI(uri(federation, site).try_into().map_err(failed)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let expires = Timestamp::from_millis(params.not_after.unix_timestamp().saturating_mul(1_000));
        let pem = params.signed_by(&request.public_key, &self.issuer).map_err(failed)?.pem();
        Ok(Ok(Issued { pem, serial: hex(&serial), expires }))
    }

    /// Issues the server's certificate for these DNS names and IP addresses, with a fresh key.
    ///
    /// # Units
    /// `lifetime_ms` in milliseconds.
    ///
    /// # Errors
    /// [`Error::Certificate`] if a name is none.
    pub fn issue_server(
        &self,
        names: &[String],
        now: Timestamp,
        lifetime_ms: i64,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = params(now, lifetime_ms)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        params.subject_alt_names = CertificateParams::new(names.to_vec()).map_err(failed)?.subject_alt_names;
        params.distinguished_name.push(DnType::CommonName, "hospes-coordinator");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((certificate.der().clone(), secret))
    }
}

impl Peer {
    /// Reads the site out of a client certificate that TLS has verified; `None` if it is not one of this federation.
    pub fn of(certificate: &CertificateDer<'_>, federation: FederationId) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let mut names = parsed.subject().iter_common_name();
        let site: SiteId = names.next()?.as_str().ok()?.parse().ok()?;
        let alternative = parsed.subject_alternative_name().ok()??;
        let expected = uri(federation, site);
        let [x509_parser::extensions::GeneralName::URI(found)] = alternative.value.general_names[..] else {
            return None;
        };
        (names.next().is_none() && found == expected)
            .then(|| Self { site, serial: hex(parsed.tbs_certificate.raw_serial()) })
    }
}

fn uri(federation: FederationId, site: SiteId) -> String {
    format!("hospes://{federation}/{site}")
}

fn params(now: Timestamp, lifetime_ms: i64) -> Result<CertificateParams, Error> {
    let at = |t: Timestamp| OffsetDateTime::from_unix_timestamp(t.as_millis().div_euclid(1_000)).map_err(failed);
    let mut params = CertificateParams::default();
    params.not_before = at(now.plus_millis(-BACKDATED_MS))?;
    params.not_after = at(now.plus_millis(lifetime_ms))?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

/// A serial number: positive, 16 bytes, no leading zero, so that it reads back as it was written.
fn serial() -> Result<[u8; 16], Error> {
    let mut serial = random::<16>()?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(serial)
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Certificate(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn csr(key: &KeyPair) -> String {
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "somebody else");
        params.is_ca = IsCa::NoCa;
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn only_the_key_of_a_request_is_used() {
        let (ca, secret) = Ca::create("test", NOW).unwrap();
        let ca = Ca::load(ca.pem(), &secret).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (federation, site) = (SiteId::of_key(&[1; 32]), SiteId::of_key(&[2; 32]));
        let issued = ca.issue_client(&csr(&key), federation, site, NOW, 60_000).unwrap().unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.pem.as_bytes()).unwrap();
        let der = CertificateDer::from(pem.contents.clone());
        let certificate = pem.parse_x509().unwrap();
        assert!(!issued.pem.contains("evil") && !format!("{:?}", certificate.subject()).contains("somebody"));
        assert_eq!(Peer::of(&der, federation), Some(Peer { site, serial: issued.serial.clone() }));
        assert_eq!(Peer::of(&der, site), None, "a certificate of another federation was taken");
        assert_eq!(issued.expires, NOW.plus_millis(60_000));
        assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        let extended = certificate.extended_key_usage().unwrap().unwrap();
        assert!(extended.value.client_auth && !extended.value.server_auth);
    }

    #[test]
    fn requests_with_a_wrong_signature_another_curve_or_too_many_bytes_are_refused() {
        let (ca, _) = Ca::create("test", NOW).unwrap();
        let id = SiteId::of_key(&[1; 32]);
        let refuse = |csr: &str| ca.issue_client(csr, id, id, NOW, 60_000).unwrap().unwrap_err();
        let good = csr(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        let mut der = x509_parser::pem::parse_x509_pem(good.as_bytes()).unwrap().1.contents;
        *der.last_mut().unwrap() ^= 1;
        let body = data_encoding::BASE64.encode(&der);
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(refuse(&forged).to_string().contains("signature"));
        let other = csr(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
        assert!(refuse(&other).to_string().contains("P-256"));
        assert!(refuse(&"x".repeat(CSR_BYTES + 1)).to_string().contains("large"));
        assert!(refuse("nonsense").to_string().contains("read"));
    }

    #[test]
    fn a_ca_with_the_key_of_another_is_refused() {
        let (one, _) = Ca::create("one", NOW).unwrap();
        let (_, key) = Ca::create("two", NOW).unwrap();
        assert!(Ca::load(one.pem(), &key).is_err());
    }
}
