//! Ed25519 keys and signatures over document digests.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use ed25519_dalek::Signer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::canon::{CanonError, Canonical, Document};
use crate::id::{Digest, SiteId};

/// A private Ed25519 key. Its `Debug` shows the public half only; it cannot be serialised by accident.
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// From 32 random bytes, which the caller drew and should erase.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }
    /// The 32 bytes, for sealing into a keychain. Handle with care.
    pub fn to_seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }
    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }
    /// Signs a digest.
    pub fn sign(&self, digest: &Digest) -> Signature {
        Signature(self.0.sign(digest.as_bytes()).to_bytes())
    }
    /// Signs bytes as they are, for formats that define their own message (signed notes).
    pub fn sign_bytes(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(public {})", self.public())
    }
}

/// A public Ed25519 key. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ts_rs::TS)]
#[ts(type = "string")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Wraps 32 bytes; whether they are a point on the curve shows when a signature is verified.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// The id of a site with this identity key.
    pub fn site_id(&self) -> SiteId {
        SiteId::of_key(&self.0)
    }
    /// Whether `signature` is this key's over `digest`; strict verification (no malleable or small-order forms).
    #[must_use]
    pub fn verifies(&self, digest: &Digest, signature: &Signature) -> bool {
        self.verifies_bytes(digest.as_bytes(), signature)
    }
    /// Whether `signature` is this key's over these bytes.
    #[must_use]
    pub fn verifies_bytes(&self, message: &[u8], signature: &Signature) -> bool {
        ed25519_dalek::VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0)))
            .is_ok()
    }
}

/// An Ed25519 signature. Written as 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Wraps 64 bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }
    /// The 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

macro_rules! hex_form {
    ($name:ident, $len:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|b| b.try_into().ok());
                bytes.map(Self).ok_or_else(|| {
                    format!("expected {} lower-case hexadecimal digits", 2 * $len)
                })
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string" })
            }
        }
    };
}

hex_form!(PublicKey, 32);
hex_form!(Signature, 64);

/// One signature under a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentSignature {
    /// Key that signed.
    pub key: PublicKey,
    /// Signature over the document's digest.
    pub signature: Signature,
}

/// A document with the signatures under it. It travels as CBOR `{document, signatures}`; the document keeps its bytes.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound = "D: Document")]
pub struct Signed<D: Document> {
    /// The document.
    pub document: Canonical<D>,
    /// Signatures; none is trusted before [`Signed::signed_by`] was asked.
    pub signatures: Vec<DocumentSignature>,
}

impl<D: Document> Signed<D> {
    /// Encodes and signs a document.
    ///
    /// # Errors
    /// [`CanonError`] if the document has no canonical form.
    pub fn new(value: D, key: &SecretKey) -> Result<Self, CanonError> {
        let document = Canonical::new(value)?;
        let signature = DocumentSignature { key: key.public(), signature: key.sign(&document.digest()) };
        Ok(Self { document, signatures: vec![signature] })
    }

    /// Whether `key` signed this document.
    #[must_use]
    pub fn signed_by(&self, key: &PublicKey) -> bool {
        self.signatures.iter().any(|s| s.key == *key && key.verifies(&self.document.digest(), &s.signature))
    }

    /// Bytes for the wire or a store.
    ///
    /// # Errors
    /// [`CanonError`] if there are too many signatures to fit.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CanonError> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes)
            .map_err(|e| CanonError::Shape { kind: D::KIND, reason: e.to_string() })?;
        Ok(bytes)
    }

    /// Reads what [`Signed::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`CanonError`] says what did not fit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CanonError> {
        if bytes.len() > crate::limits::DOCUMENT_BYTES * 2 {
            return Err(CanonError::TooLarge(bytes.len()));
        }
        let mut rest = bytes;
        let signed: Self = ciborium::de::from_reader_with_recursion_limit(&mut rest, crate::limits::DOCUMENT_DEPTH)
            .map_err(|e| CanonError::Shape { kind: D::KIND, reason: crate::canon::reason(e) })?;
        if !rest.is_empty() {
            return Err(CanonError::NotCanonical("bytes follow the document"));
        }
        if signed.signatures.len() > crate::limits::SIGNATURES {
            return Err(CanonError::Shape { kind: D::KIND, reason: "too many signatures".into() });
        }
        Ok(signed)
    }
}

impl<D: Document + fmt::Debug> fmt::Debug for Signed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("document", &self.document).field("signatures", &self.signatures.len()).finish()
    }
}
