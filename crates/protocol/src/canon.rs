//! Deterministic CBOR (RFC 8949 §4.2.1), the only form in which documents are signed or hashed.

use std::ops::Deref;

use ciborium::Value;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::id::Digest;
use crate::{limits, text};

/// A kind of document that is signed or hashed.
///
/// Its digest is `SHA-256("hospes/<KIND>/v<VERSION>" ‖ 0x00 ‖ canonical bytes)`, so that the bytes of one kind can
/// never pass for another.
pub trait Document: Serialize + DeserializeOwned {
    /// Name of the kind: lower case, hyphens.
    const KIND: &'static str;
    /// Version of its schema.
    const VERSION: u32;
}

/// The field that every document carries besides its own: `"$schema": "hospes/<kind>/v<n>"`. It is what lets an older
/// program say which version it would need.
const SCHEMA: &str = "$schema";

/// Why bytes are not a canonical document.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CanonError {
    /// The document is larger than [`limits::DOCUMENT_BYTES`].
    #[error("the document has {0} bytes, more than the {max} allowed", max = limits::DOCUMENT_BYTES)]
    TooLarge(usize),
    /// The bytes are no CBOR, or CBOR of another shape.
    #[error("the document cannot be read as {kind}: {reason}")]
    Shape {
        /// Kind that was expected.
        kind: &'static str,
        /// What did not fit.
        reason: String,
    },
    /// The document was written by a newer version.
    #[error("the {kind} needs version {found} of its form, and this program reads version {reads}; update it")]
    Newer {
        /// Kind of the document.
        kind: &'static str,
        /// Its version.
        found: u32,
        /// The version that this program reads.
        reads: u32,
    },
    /// The bytes are valid CBOR but not the one canonical encoding.
    #[error("the document is not in canonical form: {0}")]
    NotCanonical(&'static str),
}

/// A document together with the exact bytes it came in.
///
/// The received bytes are kept and hashed, never a re-encoding.
#[derive(Clone)]
pub struct Canonical<D> {
    value: D,
    bytes: Vec<u8>,
    digest: Digest,
}

impl<D: Document> Canonical<D> {
    /// Encodes a document.
    ///
    /// # Errors
    /// [`CanonError`] if the value holds NaN, an infinity, a key that is no text, or is too large.
    pub fn new(value: D) -> Result<Self, CanonError> {
        let bytes = to_bytes(&value)?;
        let digest = digest(D::KIND, D::VERSION, &bytes);
        Ok(Self { value, bytes, digest })
    }

    /// Reads a document strictly: unknown fields, non-canonical bytes and trailing bytes are refused.
    ///
    /// # Errors
    /// [`CanonError`] says what did not fit.
    pub fn parse(bytes: &[u8]) -> Result<Self, CanonError> {
        let tree = tree(D::KIND, bytes)?;
        let read = from_tree(tree.clone()).and_then(|value: D| match to_bytes(&value)? == bytes {
            true => Ok(value),
            false => Err(CanonError::NotCanonical("decoding and encoding gives other bytes")),
        });
        // Bytes that come out again are canonical. For others it is said first what is wrong with their form.
        let value = read.or_else(|other| check_form(D::KIND, tree, bytes).and(Err(other)))?;
        Ok(Self { value, bytes: bytes.to_vec(), digest: digest(D::KIND, D::VERSION, bytes) })
    }

    /// The canonical bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The digest that is signed and that names the document.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The document itself.
    pub fn into_inner(self) -> D {
        self.value
    }
}

impl<D> Deref for Canonical<D> {
    type Target = D;
    fn deref(&self) -> &D {
        &self.value
    }
}

impl<D: std::fmt::Debug> std::fmt::Debug for Canonical<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canonical").field("digest", &self.digest).field("value", &self.value).finish()
    }
}

impl<D> PartialEq for Canonical<D> {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl<D> Eq for Canonical<D> {}

/// A canonical document travels inside another as a byte string, so that its bytes survive.
impl<D> Serialize for Canonical<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&data_encoding::BASE64.encode(&self.bytes))
        } else {
            serializer.serialize_bytes(&self.bytes)
        }
    }
}

impl<'de, D: Document> Deserialize<'de> for Canonical<D> {
    fn deserialize<De: Deserializer<'de>>(deserializer: De) -> Result<Self, De::Error> {
        use serde::de::Error;
        let bytes = if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            data_encoding::BASE64.decode(text.as_bytes()).map_err(De::Error::custom)?
        } else {
            serde_bytes::ByteBuf::deserialize(deserializer)?.into_vec()
        };
        Self::parse(&bytes).map_err(De::Error::custom)
    }
}

/// Digest of a document's bytes under its kind and version.
pub fn digest(kind: &str, version: u32, bytes: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(format!("hospes/{kind}/v{version}").as_bytes());
    hash.update([0u8]);
    hash.update(bytes);
    Digest::from_bytes(hash.finalize().into())
}

/// What did not fit, without the decoder's own wrapping.
pub(crate) fn reason(error: ciborium::de::Error<std::io::Error>) -> String {
    match error {
        ciborium::de::Error::Semantic(_, words) => words,
        other => other.to_string(),
    }
}

fn tag<D: Document>() -> String {
    format!("hospes/{}/v{}", D::KIND, D::VERSION)
}

fn to_bytes<D: Document>(value: &D) -> Result<Vec<u8>, CanonError> {
    let shape = |reason: String| CanonError::Shape { kind: D::KIND, reason };
    let mut tree = Value::serialized(value).map_err(|e| shape(e.to_string()))?;
    let entries = tree.as_map_mut().ok_or_else(|| shape("a document is a map".into()))?;
    entries.push((Value::Text(SCHEMA.into()), Value::Text(tag::<D>())));
    normalise(&mut tree)?;
    let mut bytes = Vec::new();
    ciborium::into_writer(&tree, &mut bytes).map_err(|e| shape(e.to_string()))?;
    if bytes.len() > limits::DOCUMENT_BYTES {
        return Err(CanonError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

fn tree(kind: &'static str, bytes: &[u8]) -> Result<Value, CanonError> {
    if bytes.len() > limits::DOCUMENT_BYTES {
        return Err(CanonError::TooLarge(bytes.len()));
    }
    let mut rest = bytes;
    let tree = ciborium::de::from_reader_with_recursion_limit(&mut rest, limits::DOCUMENT_DEPTH)
        .map_err(|e| CanonError::Shape { kind, reason: reason(e) })?;
    match rest {
        [] => Ok(tree),
        _ => Err(CanonError::NotCanonical("bytes follow the document")),
    }
}

/// Says what is not canonical in the form of a document that could not be read.
fn check_form(kind: &'static str, mut tree: Value, bytes: &[u8]) -> Result<(), CanonError> {
    normalise(&mut tree)?;
    let mut again = Vec::with_capacity(bytes.len());
    ciborium::into_writer(&tree, &mut again).map_err(|e| CanonError::Shape { kind, reason: e.to_string() })?;
    match again == bytes {
        true => Ok(()),
        false => Err(CanonError::NotCanonical("keys out of order, or lengths not the shortest")),
    }
}

fn from_tree<D: Document>(mut tree: Value) -> Result<D, CanonError> {
    check_schema::<D>(&mut tree)?;
    tree.deserialized().map_err(|e| CanonError::Shape { kind: D::KIND, reason: e.to_string() })
}

/// Checks the schema before anything else, so that a newer document is named as one and not by its first strange field.
fn check_schema<D: Document>(tree: &mut Value) -> Result<(), CanonError> {
    let shape = |reason: String| CanonError::Shape { kind: D::KIND, reason };
    let entries = tree.as_map_mut().ok_or_else(|| shape("a document is a map".into()))?;
    let place = entries.iter().position(|(key, _)| key.as_text() == Some(SCHEMA));
    let place = place.ok_or_else(|| shape("it does not say its schema".into()))?;
    let found = entries[place].1.as_text().unwrap_or_default();
    if found != tag::<D>() {
        let version = found.strip_prefix(&format!("hospes/{}/v", D::KIND)).and_then(|v| v.parse().ok());
        return Err(match version {
            Some(found) if found > D::VERSION => CanonError::Newer { kind: D::KIND, found, reads: D::VERSION },
            _ => shape(format!("its schema is '{}', not '{}'", text::shown(found, 60), tag::<D>())),
        });
    }
    entries.remove(place);
    Ok(())
}

/// Sorts the keys of every map and refuses what the canonical form does not know.
fn normalise(value: &mut Value) -> Result<(), CanonError> {
    match value {
        Value::Float(f) if !f.is_finite() => Err(CanonError::NotCanonical("NaN and infinity are not allowed")),
        Value::Tag(..) => Err(CanonError::NotCanonical("tags are not allowed")),
        Value::Array(items) => items.iter_mut().try_for_each(normalise),
        Value::Map(entries) => {
            for (key, item) in entries.iter_mut() {
                if !key.is_text() {
                    return Err(CanonError::NotCanonical("keys must be text"));
                }
                normalise(item)?;
            }
            // Encoded text keys sort by length first, then bytewise, because the length is in the first bytes.
            entries.sort_by(|(a, _), (b, _)| text_order(a, b));
            if entries.windows(2).any(|pair| text_order(&pair[0].0, &pair[1].0).is_eq()) {
                return Err(CanonError::NotCanonical("a key stands twice"));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn text_order(a: &Value, b: &Value) -> std::cmp::Ordering {
    let a = a.as_text().unwrap_or_default().as_bytes();
    let b = b.as_text().unwrap_or_default().as_bytes();
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Note {
        text: String,
        numbers: Vec<f64>,
        map: BTreeMap<String, i64>,
    }
    impl Document for Note {
        const KIND: &'static str = "note";
        const VERSION: u32 = 1;
    }

    fn note() -> Note {
        Note { text: "a".into(), numbers: vec![1.0, 0.1, -2.5], map: [("bb".into(), 1), ("c".into(), -7)].into() }
    }

    #[test]
    fn golden_bytes_stay_the_same() {
        let doc = Canonical::new(note()).unwrap();
        let hex = data_encoding::HEXLOWER.encode(doc.bytes());
        assert_eq!(
            hex,
            "a4636d6170a261632662626201647465787461616724736368656d616e686f737065732f6e6f74652f7631676e756d6265727383f93c00\
             fb3fb999999999999af9c100"
        );
    }

    #[test]
    fn a_document_of_a_newer_version_says_which_version_it_needs() {
        #[derive(Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Newer {
            text: String,
            more: u8,
        }
        impl Document for Newer {
            const KIND: &'static str = Note::KIND;
            const VERSION: u32 = 3;
        }
        let newer = Canonical::new(Newer { text: "a".into(), more: 1 }).unwrap();
        let error = Canonical::<Note>::parse(newer.bytes()).unwrap_err();
        assert_eq!(error, CanonError::Newer { kind: "note", found: 3, reads: 1 });
        assert!(error.to_string().contains("needs version 3"), "{error}");
        // In another document, and signed, too.
        let key = crate::sign::SecretKey::from_seed(&[1; 32]);
        let signed = crate::sign::Signed::new(newer.into_inner(), &key).unwrap().to_bytes().unwrap();
        let error = crate::sign::Signed::<Note>::from_bytes(&signed).unwrap_err();
        assert!(error.to_string().contains("needs version 3"), "{error}");
        // An older one, or one of another kind, is none that anybody could update for.
        let older = Canonical::<Newer>::parse(Canonical::new(note()).unwrap().bytes()).map(drop).unwrap_err();
        assert!(matches!(&older, CanonError::Shape { reason, .. } if reason.contains("hospes/note/v1")), "{older}");
    }

    #[test]
    fn kinds_separate_digests() {
        assert_ne!(digest("plan", 1, b"x"), digest("study", 1, b"x"));
        assert_ne!(digest("plan", 1, b"x"), digest("plan", 2, b"x"));
    }

    #[test]
    fn nan_infinity_trailing_bytes_unknown_fields_and_disorder_are_refused() {
        let mut bad = note();
        bad.numbers.push(f64::NAN);
        assert!(Canonical::new(bad).is_err());
        let good = Canonical::new(note()).unwrap();
        let mut trailing = good.bytes().to_vec();
        trailing.push(0);
        assert!(Canonical::<Note>::parse(&trailing).is_err());
        let mut wide = vec![0xb8, 0x03]; // a map of 3 with a length byte that is not needed
        wide.extend_from_slice(&good.bytes()[1..]);
        assert!(Canonical::<Note>::parse(&wide).is_err());
        let mut tree: Value = ciborium::from_reader(good.bytes()).unwrap();
        tree.as_map_mut().unwrap().reverse();
        let mut disordered = Vec::new();
        ciborium::into_writer(&tree, &mut disordered).unwrap();
        assert!(Canonical::<Note>::parse(&disordered).is_err());
        tree.as_map_mut().unwrap().push((Value::Text("zzzzzzzz".into()), Value::Null));
        normalise(&mut tree).unwrap();
        let mut unknown = Vec::new();
        ciborium::into_writer(&tree, &mut unknown).unwrap();
        assert!(matches!(Canonical::<Note>::parse(&unknown), Err(CanonError::Shape { .. })));
    }

    proptest! {
        #[test]
        fn round_trip(text in ".{0,40}", numbers in proptest::collection::vec(proptest::num::f64::NORMAL, 0..8),
                      map in proptest::collection::btree_map(".{0,12}", any::<i64>(), 0..8)) {
            let doc = Canonical::new(Note { text, numbers, map }).unwrap();
            let again = Canonical::<Note>::parse(doc.bytes()).unwrap();
            prop_assert_eq!(&*again, &*doc);
            prop_assert_eq!(again.digest(), doc.digest());
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_what_parses_is_canonical(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(doc) = Canonical::<Note>::parse(&bytes) {
                prop_assert_eq!(doc.bytes(), &bytes[..]);
            }
        }

        #[test]
        fn one_flipped_byte_never_keeps_the_digest(position in any::<proptest::sample::Index>(), flip in 1u8..) {
            let doc = Canonical::new(note()).unwrap();
            let mut bytes = doc.bytes().to_vec();
            let at = position.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(other) = Canonical::<Note>::parse(&bytes) {
                prop_assert_ne!(other.digest(), doc.digest());
            }
        }
    }
}
