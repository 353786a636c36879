//! How a site joins a federation: the invitation, and what is said on `/enrol` and `/renew`.
//!
//! An invitation is one string, `hospes1:` and base32 of CBOR. It carries the digest of the coordinator's CA, so that
//! the very first request is already pinned; a phished invitation carries its own, and therefore the same digest must
//! also come over a second channel and be typed there.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use crate::id::{Digest, FederationId, SiteId, Timestamp};
use crate::limits;
use crate::sign::{PublicKey, Signed};
use crate::study::{MemberStatement, Roster};
use crate::version::Version;

/// What every invitation starts with.
pub const PREFIX: &str = "hospes1:";
/// Longest invitation in characters.
pub const INVITATION_CHARS: usize = 2_048;

/// An invitation: single use, short-lived, for one site name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// Base URL of the coordinator, `https://host:port`.
    pub url: String,
    /// SHA-256 of the DER form of the coordinator's CA certificate.
    pub ca: Digest,
    /// Name under which the site will be known.
    pub site: String,
    /// Secret that allows one enrolment.
    #[serde(with = "serde_bytes")]
    pub secret: Vec<u8>,
    /// When it stops being good.
    pub expires: Timestamp,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("url", &self.url)
            .field("ca", &self.ca)
            .field("site", &self.site)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Why a string is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// It does not start as one.
    #[error("an invitation starts with '{PREFIX}'; copy the whole line that the operator sent")]
    Prefix,
    /// It is cut or altered.
    #[error("the invitation is damaged ({0}); copy the whole line that the operator sent")]
    Damaged(String),
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).map_err(|_| fmt::Error)?;
        // The check sum catches a line that was cut in a mail; it protects against nothing else.
        bytes.extend_from_slice(&Digest::of(&bytes).as_bytes()[..4]);
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;
    fn from_str(text: &str) -> Result<Self, InvitationError> {
        // Mail programs wrap long lines.
        let text: String = text.chars().filter(|c| !c.is_whitespace()).take(INVITATION_CHARS + 1).collect();
        let body = text.strip_prefix(PREFIX).ok_or(InvitationError::Prefix)?;
        let damaged = |reason: &str| InvitationError::Damaged(reason.to_owned());
        if text.len() > INVITATION_CHARS {
            return Err(damaged("it is too long"));
        }
        let bytes = BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| damaged("a character or the end is missing"))?;
        let (cbor, sum) = bytes.split_at_checked(bytes.len().saturating_sub(4)).ok_or_else(|| damaged("too short"))?;
        if sum != &Digest::of(cbor).as_bytes()[..4] {
            return Err(damaged("its check sum does not fit"));
        }
        let invitation: Self = ciborium::de::from_reader_with_recursion_limit(cbor, 8)
            .map_err(|_| damaged("it was made by another version"))?;
        if invitation.site.chars().count() > limits::NAME_CHARS || invitation.secret.len() > 64 {
            return Err(damaged("a field is too long"));
        }
        Ok(invitation)
    }
}

/// Body of `POST /enrol`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// Secret of the invitation, in lower-case base32 without padding.
    pub secret: String,
    /// Certificate signing request for the site's TLS key (P-256), PEM. Only its key is used.
    pub csr_pem: String,
    /// The site's signed [`MemberStatement`]: base64 of [`Signed::to_bytes`].
    pub statement: String,
}

/// Body of `POST /renew`, which is authenticated by the present client certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Certificate signing request for the next TLS key, PEM. Only its key is used.
    pub csr_pem: String,
}

/// Answer to `GET /federation`: what a site must know before it can sign its [`MemberStatement`]. It is believed only
/// under TLS pinned to the invitation's CA digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FederationInfo {
    /// Federation.
    pub federation: FederationId,
    /// Its name.
    pub name: String,
    /// The coordinator's identity key; its id is the federation.
    pub identity: PublicKey,
    /// The coordinator's clock.
    pub at: Timestamp,
    /// Versions of the protocol that it speaks; none where it is too old to say.
    #[serde(default)]
    pub versions: Vec<Version>,
}

/// Answer to `POST /enrol`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolAnswer {
    /// Site.
    pub site: SiteId,
    /// Federation.
    pub federation: FederationId,
    /// The federation's name.
    pub name: String,
    /// The coordinator's identity key.
    pub identity: PublicKey,
    /// Client certificate, PEM.
    pub certificate_pem: String,
    /// Certificate of the coordinator's CA, PEM.
    pub ca_pem: String,
    /// Signed [`Roster`]: base64 of [`Signed::to_bytes`].
    pub roster: String,
}

/// Answer to `POST /renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewAnswer {
    /// Next client certificate, PEM.
    pub certificate_pem: String,
    /// When it ends.
    pub expires: Timestamp,
}

impl EnrolRequest {
    /// Writes a request.
    ///
    /// # Errors
    /// [`crate::canon::CanonError`] if the statement cannot be written.
    pub fn new(
        secret: &[u8],
        csr_pem: String,
        statement: &Signed<MemberStatement>,
    ) -> Result<Self, crate::canon::CanonError> {
        Ok(Self {
            secret: BASE32_NOPAD.encode(secret).to_ascii_lowercase(),
            csr_pem,
            statement: data_encoding::BASE64.encode(&statement.to_bytes()?),
        })
    }

    /// The secret's bytes, if it is base32 at all.
    pub fn secret_bytes(&self) -> Option<Vec<u8>> {
        BASE32_NOPAD.decode(self.secret.to_ascii_uppercase().as_bytes()).ok()
    }

    /// The statement, not yet verified.
    pub fn signed_statement(&self) -> Option<Signed<MemberStatement>> {
        Signed::from_bytes(&data_encoding::BASE64.decode(self.statement.as_bytes()).ok()?).ok()
    }
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest").finish_non_exhaustive()
    }
}

impl EnrolAnswer {
    /// The roster, not yet verified.
    pub fn signed_roster(&self) -> Option<Signed<Roster>> {
        Signed::from_bytes(&data_encoding::BASE64.decode(self.roster.as_bytes()).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            url: "https://federation.example:8443".into(),
            ca: Digest::of(b"ca"),
            site: "Charité".into(),
            secret: vec![7; 32],
            expires: Timestamp::from_millis(1_800_000_000_000),
        }
    }

    #[test]
    fn an_invitation_survives_a_mail_program_and_a_cut_one_is_refused() {
        let text = invitation().to_string();
        assert_eq!(text.parse::<Invitation>(), Ok(invitation()));
        let wrapped: String =
            text.as_bytes().chunks(60).map(|c| format!("  {}\r\n", str::from_utf8(c).unwrap())).collect();
        assert_eq!(wrapped.parse::<Invitation>(), Ok(invitation()));
        for cut in 0..text.len() {
            assert!(text[..cut].parse::<Invitation>().is_err(), "a prefix of {cut} characters was taken");
        }
        assert_eq!("nonsense".parse::<Invitation>(), Err(InvitationError::Prefix));
    }

    #[test]
    fn debug_output_never_shows_the_secret() {
        let shown = format!("{:?}", invitation());
        assert!(!shown.contains("secret") && !shown.contains("7, 7"), "{shown}");
    }
}
