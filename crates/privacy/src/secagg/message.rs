//! What members and aggregator say to each other. Everything that a member says is a document of its own kind, signed
//! with its identity key, which covers the session's id: bytes of one step, round or attempt never pass for those of
//! another.
//!
//! The kinds are `secagg/<step>`, so that a signature covers `hospes/secagg/<step>/v1` (specs/encoding.md).

use std::fmt;

use curve25519_dalek::RistrettoPoint;
use curve25519_dalek::ristretto::CompressedRistretto;
use curve25519_dalek::scalar::Scalar;
use hospes_protocol::canon::Document;
use hospes_protocol::id::Digest;
use hospes_protocol::sign::{Signature, Signed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::refusal::Refusal;
use super::shamir::Secret;

/// Bytes of one message of a member, its boxes counted.
pub const SENT_BYTES: usize = 2 << 20;
/// Bytes of what the aggregator relays to one member in one step: the largest is what 256 neighbours dealt.
pub const RELAY_BYTES: usize = 16 << 20;
/// Bytes of a box: two scalars and the tag of the AEAD.
pub const BOX_BYTES: usize = 2 * 32 + 16;
/// Depth of nesting of a message.
const DEPTH: usize = 32;

/// The steps of a round, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Round keys (R0).
    Keys,
    /// Positions in the graph are opened; only above 128 parties.
    Positions,
    /// Shares of the secrets, in boxes (R1).
    Shares,
    /// The masked input (R2).
    Input,
    /// A signature under the set of inputs (R3).
    Consent,
    /// Shares that unmask the sum (R4).
    Reveal,
    /// The sum can be taken; or, at a member, an accusation ended the attempt.
    End,
}

impl Step {
    /// The step that follows, with or without positions.
    pub(super) fn next(self, has_positions: bool) -> Self {
        match self {
            Self::Keys if has_positions => Self::Positions,
            Self::Keys | Self::Positions => Self::Shares,
            Self::Shares => Self::Input,
            Self::Input => Self::Consent,
            Self::Consent => Self::Reveal,
            Self::Reveal | Self::End => Self::End,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys => "keys",
            Self::Positions => "positions",
            Self::Shares => "shares",
            Self::Input => "masked input",
            Self::Consent => "consent",
            Self::Reveal => "reveal",
            Self::End => "end",
        })
    }
}

/// 32 public bytes: a point of Ristretto255, a key of X25519, or what opens a position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Point(#[serde(with = "serde_bytes")] [u8; 32]);

impl Point {
    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    pub(super) fn of(point: &RistrettoPoint) -> Self {
        Self(point.compress().to_bytes())
    }
    pub(super) fn decode(&self) -> Option<RistrettoPoint> {
        CompressedRistretto(self.0).decompress()
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Digest::from_bytes(self.0), f)
    }
}

/// A share on its way to the aggregator, which is meant to learn it. Its `Debug` shows nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(#[serde(with = "serde_bytes")] [u8; 32]);

impl Share {
    pub(super) fn new(secret: &Secret) -> Self {
        Self(secret.to_bytes())
    }
    /// The scalar; `None` if it is not the one encoding of one.
    pub(super) fn open(&self) -> Option<Secret> {
        Option::<Scalar>::from(Scalar::from_canonical_bytes(self.0)).map(Secret::new)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share(..)")
    }
}

/// R0: a member's keys of this round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advertise {
    /// Session.
    pub sid: Digest,
    /// Party number.
    pub from: u32,
    /// X25519 key to which boxes of shares are sealed.
    pub share_key: Point,
    /// Public half of the mask key.
    pub mask_key: Point,
    /// Public half of the self-mask.
    pub self_key: Point,
    /// Above 128 parties: commitment to the member's position.
    pub position: Option<Digest>,
}

/// What opens a member's position in the graph; only above 128 parties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// Session.
    pub sid: Digest,
    /// Party number.
    pub from: u32,
    /// The random bytes that were committed to.
    pub reveal: Point,
}

/// R1: commitments to a member's polynomials, and digests of the boxes with the shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// Session.
    pub sid: Digest,
    /// Party number.
    pub from: u32,
    /// Commitments to the polynomial of the mask key.
    pub mask: Vec<Point>,
    /// Commitments to the polynomial of the self-mask.
    pub own: Vec<Point>,
    /// Each box's digest, by the party that it is for, in order.
    pub boxes: Vec<BoxDigest>,
}

/// Digest of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxDigest {
    /// Party that it is for.
    pub to: u32,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// A box of two shares, sealed to one party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// Party that it is for.
    pub to: u32,
    /// Nonce-free AEAD box under a key of this session, sender and party.
    #[serde(with = "serde_bytes")]
    pub sealed: [u8; BOX_BYTES],
}

/// R2: what a member signs of its masked input; the vector itself is an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Session.
    pub sid: Digest,
    /// Party number.
    pub from: u32,
    /// Digest of the set of peers with which it is masked (U2).
    pub peers: Digest,
    /// Merkle root over the blocks of the masked vector.
    pub root: Digest,
    /// Bytes of the masked vector.
    pub bytes: u64,
}

/// R3: a member's word that these, and no other, inputs count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// Session.
    pub sid: Digest,
    /// Party number.
    pub from: u32,
    /// Digest of the set of inputs (U3).
    pub included: Digest,
}

/// R4: shares that unmask the sum, of the self-mask for whoever is in it, of the mask key for whoever is missing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reveal {
    /// Session.
    pub sid: Digest,
    /// Party number.
    pub from: u32,
    /// Shares of self-masks, by party, in order.
    pub own: Vec<Revealed>,
    /// Shares of mask keys, by party, in order.
    pub mask: Vec<Revealed>,
}

/// One revealed share.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revealed {
    /// Whose secret.
    pub of: u32,
    /// The share.
    pub share: Share,
}

/// A member says that what another one dealt to it is wrong. The attempt ends; the next roster leaves out one of the
/// two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accusation {
    /// Session.
    pub sid: Digest,
    /// Party number.
    pub from: u32,
    /// Who is accused.
    pub of: u32,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with what a member dealt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Commitments of another number, that are no points, or that do not begin with the advertised keys.
    Commitments,
    /// A box that cannot be opened.
    Box,
    /// A share that does not lie on the committed polynomial.
    Share,
}

/// A message that names its session and its sender.
pub(super) trait Stamped: Document {
    fn sid(&self) -> Digest;
    fn sender(&self) -> u32;
}

macro_rules! stamped {
    ($($name:ident $kind:literal),+ $(,)?) => {
        $(
            impl Document for $name {
                const KIND: &'static str = $kind;
                const VERSION: u32 = 1;
            }
            impl Stamped for $name {
                fn sid(&self) -> Digest {
                    self.sid
                }
                fn sender(&self) -> u32 {
                    self.from
                }
            }
        )+
    };
}

stamped!(
    Advertise "secagg/advertise",
    Opening "secagg/opening",
    Shares "secagg/shares",
    Input "secagg/input",
    Consent "secagg/consent",
    Reveal "secagg/reveal",
    Accusation "secagg/accusation",
);

/// Everything that a member sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sent {
    /// R0.
    Keys(Signed<Advertise>),
    /// Its position, above 128 parties.
    Position(Signed<Opening>),
    /// R1.
    Shares {
        /// Commitments and digests.
        shares: Signed<Shares>,
        /// The boxes, in the order of the digests.
        boxes: Vec<Sealed>,
    },
    /// R2, beside the upload.
    Input(Signed<Input>),
    /// R3.
    Consent(Signed<Consent>),
    /// R4.
    Reveal(Signed<Reveal>),
    /// In place of R2: somebody dealt wrongly.
    Accusation(Signed<Accusation>),
}

/// Everything that the aggregator relays to one member.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relay {
    /// Everybody's round keys.
    Keys(Vec<Signed<Advertise>>),
    /// Everybody's openings, above 128 parties.
    Positions(Vec<Signed<Opening>>),
    /// Who dealt, and what of it is for this member.
    Shares {
        /// Members whose shares are there (U2), in order.
        active: Vec<u32>,
        /// What they dealt: of everybody, or above 128 parties of the neighbours; in order.
        dealt: Vec<Delivery>,
    },
    /// Members whose inputs count (U3), in order.
    Inputs(Vec<u32>),
    /// Everybody's signature under that set, by party.
    Consents(Vec<(u32, Signature)>),
}

/// What one member dealt to another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Commitments and digests.
    pub shares: Signed<Shares>,
    /// The box.
    #[serde(with = "serde_bytes")]
    pub sealed: [u8; BOX_BYTES],
}

macro_rules! on_the_wire {
    ($name:ident, $most:ident) => {
        impl $name {
            /// Bytes for the wire or a record.
            ///
            /// # Errors
            /// [`Refusal::Unreadable`] if it has no form as CBOR, which does not happen for what this crate makes.
            pub fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
                to_bytes(self)
            }

            /// Reads what [`Self::to_bytes`] wrote. Signatures are not checked yet.
            ///
            /// # Errors
            /// [`Refusal::Unreadable`] says what did not fit.
            ///
            /// # Disclosure
            /// The same message in another form.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
                from_bytes(bytes, $most)
            }
        }
    };
}

on_the_wire!(Sent, SENT_BYTES);
on_the_wire!(Relay, RELAY_BYTES);

fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    Ok(bytes)
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8], most: usize) -> Result<T, Refusal> {
    if bytes.len() > most {
        return Err(Refusal::Unreadable(format!("it has {} bytes, more than the {most} allowed", bytes.len())));
    }
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH)
        .map_err(|e| Refusal::Unreadable(e.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(Refusal::Unreadable("bytes follow it".to_owned())) }
}
