//! The secrets of one member in one round, and every key that is derived from them.
//!
//! All of them follow from one seed and the session's id by HKDF-SHA-256 (RFC 5869): the same seed gives the same
//! messages, so that a member restored from its records can only say again what it said. `info` is a label, a zero byte,
//! numbers of four bytes, big-endian, and for the mask of a pair the digest of those who mask.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use curve25519_dalek::RistrettoPoint;
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity as _;
use hkdf::Hkdf;
use hospes_protocol::id::Digest;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::mask::MaskKey;
use super::message::{Advertise, BOX_BYTES, Point};
use super::shamir::{Polynomial, Secret};

/// 32 random bytes of one session, which the caller drew, keeps sealed, and erases when the session is over.
pub struct Seed(Box<Zeroizing<[u8; 32]>>);

impl Seed {
    /// From random bytes, which nobody else knows and no other session uses.
    pub fn new(random: Zeroizing<[u8; 32]>) -> Self {
        // Copied, so that the argument is erased here and not moved.
        let mut seed = Box::new(Zeroizing::new([0u8; 32]));
        seed.copy_from_slice(&*random);
        Self(seed)
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A member's secrets of one round.
pub(super) struct Secrets {
    share: Box<Zeroizing<[u8; 32]>>,
    mask: Secret,
    own: Secret,
    blind: Box<Zeroizing<[u8; 32]>>,
    reveal: Point,
    pub(super) mask_polynomial: Polynomial,
    pub(super) own_polynomial: Polynomial,
}

impl Secrets {
    /// Derives everything; `threshold` shares reconstruct a secret.
    pub(super) fn derive(seed: &Seed, sid: &Digest, threshold: u32) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(sid.as_bytes()), &**seed.0);
        let bytes = |label: &str| {
            let mut out = Box::new(Zeroizing::new([0u8; 32]));
            expand(&hkdf, label, &[], &[], &mut **out);
            out
        };
        // 512 bits, so that the scalar is uniform.
        let scalar = |label: &str, number: u32| {
            let mut wide = Zeroizing::new([0u8; 64]);
            expand(&hkdf, label, &[number], &[], &mut *wide);
            Secret::new(Scalar::from_bytes_mod_order_wide(&wide))
        };
        let (mask, own) = (scalar("mask key", 0), scalar("self-mask", 0));
        let polynomial =
            |secret: &Secret, label: &str| Polynomial::new(secret, (1..threshold).map(|number| scalar(label, number)));
        Self {
            share: bytes("share key"),
            blind: bytes("blind"),
            reveal: Point::from_bytes(**bytes("position")),
            mask_polynomial: polynomial(&mask, "mask key"),
            own_polynomial: polynomial(&own, "self-mask"),
            mask,
            own,
        }
    }

    /// What the member says of its keys.
    pub(super) fn advertise(&self, sid: Digest, from: u32, in_graph: bool) -> Advertise {
        Advertise {
            sid,
            from,
            share_key: Point::from_bytes(MontgomeryPoint::mul_base_clamped(**self.share).to_bytes()),
            mask_key: Point::of(&RistrettoPoint::mul_base(&self.mask)),
            self_key: Point::of(&RistrettoPoint::mul_base(&self.own)),
            position: in_graph.then(|| commitment(&sid, from, &self.reveal)),
        }
    }

    /// What opens the member's position.
    pub(super) fn reveal(&self) -> Point {
        self.reveal
    }

    /// Key of the self-mask.
    pub(super) fn self_mask(&self, sid: &Digest) -> MaskKey {
        self_mask(&self.own, sid)
    }

    /// Key of what stands in place of what this member holds back. It is in no share, and nobody can take it off.
    pub(super) fn blind(&self) -> MaskKey {
        Zeroizing::new(**self.blind)
    }

    /// Key of the mask with a peer; `None` if its key is no point.
    pub(super) fn pair_mask(
        &self,
        sid: &Digest,
        among: &Digest,
        pair: (u32, u32),
        peer_key: &Point,
    ) -> Option<MaskKey> {
        pair_mask(&self.mask, sid, among, pair, peer_key)
    }

    /// Seals the two shares of a peer; `None` if its key cannot be used.
    pub(super) fn seal(&self, sid: &Digest, me: u32, peer: u32, peer_key: &Point) -> Option<[u8; BOX_BYTES]> {
        let cipher = box_cipher(&self.share, peer_key, sid, me, peer)?;
        let mut plain = Zeroizing::new([0u8; 64]);
        let place = peer + 1;
        plain[..32].copy_from_slice(self.mask_polynomial.share(place).as_bytes());
        plain[32..].copy_from_slice(self.own_polynomial.share(place).as_bytes());
        let aad = associated(sid, me, peer);
        // Every key seals one box only, which is why the nonce can be fixed.
        cipher.encrypt(&Nonce::from([0u8; 12]), Payload { msg: &*plain, aad: &aad }).ok()?.try_into().ok()
    }

    /// Opens a peer's box: its shares of its mask key and of its self-mask. `None` if it is not what that peer sealed.
    pub(super) fn open(
        &self,
        sid: &Digest,
        me: u32,
        peer: u32,
        peer_key: &Point,
        sealed: &[u8; BOX_BYTES],
    ) -> Option<(Secret, Secret)> {
        let cipher = box_cipher(&self.share, peer_key, sid, peer, me)?;
        let aad = associated(sid, peer, me);
        let plain = cipher.decrypt(&Nonce::from([0u8; 12]), Payload { msg: sealed, aad: &aad }).ok()?;
        let plain = Zeroizing::new(plain);
        let ([mask, own], []) = plain.as_chunks::<32>() else { return None };
        Some((scalar(*mask)?, scalar(*own)?))
    }
}

fn scalar(bytes: [u8; 32]) -> Option<Secret> {
    Option::<Scalar>::from(Scalar::from_canonical_bytes(bytes)).map(Secret::new)
}

/// HKDF(b_u; sid; "self").
pub(super) fn self_mask(own: &Secret, sid: &Digest) -> MaskKey {
    derive(own.as_bytes(), sid, "self", &[])
}

/// HKDF(s_u·S_v; sid; "mask", min, max, U2); `None` if the peer's key is no point, or the one that multiplies to
/// nothing. `among` names U2: masks of members that were told of different ones do not cancel.
pub(super) fn pair_mask(
    mask: &Secret,
    sid: &Digest,
    among: &Digest,
    (u, v): (u32, u32),
    peer_key: &Point,
) -> Option<MaskKey> {
    let point = peer_key.decode()?;
    let shared = Zeroizing::new(point * **mask);
    if (*shared).is_identity() {
        return None;
    }
    let bytes = Zeroizing::new(shared.compress().to_bytes());
    let hkdf = Hkdf::<Sha256>::new(Some(sid.as_bytes()), &*bytes);
    let mut out = Zeroizing::new([0u8; 32]);
    expand(&hkdf, "mask", &[u.min(v), u.max(v)], among.as_bytes(), &mut *out);
    Some(out)
}

/// What a member commits to in R0 and opens afterwards.
pub(super) fn commitment(sid: &Digest, from: u32, reveal: &Point) -> Digest {
    let hash = Sha256::new().chain_update(b"hospes/secagg/position/v1\0").chain_update(sid.as_bytes());
    Digest::from_bytes(hash.chain_update(from.to_be_bytes()).chain_update(reveal.as_bytes()).finalize().into())
}

/// Whether round keys can be used: points that are not the neutral one, and a commitment to a position where there are
/// any.
pub(super) fn usable(keys: &Advertise, in_graph: bool) -> bool {
    let is_point = |key: &Point| key.decode().is_some_and(|point| !point.is_identity());
    usable_share_key(&keys.share_key)
        && is_point(&keys.mask_key)
        && is_point(&keys.self_key)
        && keys.position.is_some() == in_graph
}

/// Whether a key can be used to seal to: X25519 with it must not come out as zero (RFC 7748 §6.1).
fn usable_share_key(key: &Point) -> bool {
    // Any clamped scalar gives zero with a point of low order, and none with another.
    let product = MontgomeryPoint(*key.as_bytes()).mul_clamped([1; 32]);
    product.to_bytes() != [0; 32]
}

/// Key = HKDF(X25519(c_u, C_v); sid; "share", from, to).
fn box_cipher(mine: &[u8; 32], theirs: &Point, sid: &Digest, from: u32, to: u32) -> Option<ChaCha20Poly1305> {
    let shared = Zeroizing::new(MontgomeryPoint(*theirs.as_bytes()).mul_clamped(*mine).to_bytes());
    if bool::from(shared[..].ct_eq(&[0u8; 32][..])) {
        return None;
    }
    let key = derive(&*shared, sid, "share", &[from, to]);
    Some(ChaCha20Poly1305::new(&Key::from(*key)))
}

fn associated(sid: &Digest, from: u32, to: u32) -> Vec<u8> {
    [&sid.as_bytes()[..], &from.to_be_bytes(), &to.to_be_bytes()].concat()
}

fn derive(secret: &[u8], sid: &Digest, label: &str, numbers: &[u32]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0u8; 32]);
    expand(&Hkdf::<Sha256>::new(Some(sid.as_bytes()), secret), label, numbers, &[], &mut *out);
    out
}

fn expand(hkdf: &Hkdf<Sha256>, label: &str, numbers: &[u32], last: &[u8], out: &mut [u8]) {
    let mut info = label.as_bytes().to_vec();
    info.push(0);
    info.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    info.extend_from_slice(last);
    // Unwrap safety: HKDF-SHA-256 gives up to 8,160 bytes, and at most 64 are asked for.
    #[allow(clippy::unwrap_used)]
    hkdf.expand(&info, out).unwrap();
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    fn sid() -> Digest {
        Digest::of(b"a session")
    }

    fn secrets(byte: u8) -> Secrets {
        Secrets::derive(&Seed::new(Zeroizing::new([byte; 32])), &sid(), 3)
    }

    /// HMAC-SHA-256 and HKDF as RFC 2104 and RFC 5869 define them, for comparison only.
    fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
        let mut padded = [0u8; 64];
        padded[..key.len()].copy_from_slice(key);
        let inner = Sha256::new().chain_update(padded.map(|b| b ^ 0x36)).chain_update(message).finalize();
        Sha256::new().chain_update(padded.map(|b| b ^ 0x5c)).chain_update(inner).finalize().to_vec()
    }

    fn reference(salt: &[u8], secret: &[u8], info: &[u8], length: usize) -> Vec<u8> {
        let key = hmac(salt, secret);
        let (mut out, mut last) = (Vec::new(), Vec::new());
        for number in 1u8.. {
            last = hmac(&key, &[&last[..], info, &[number]].concat());
            out.extend_from_slice(&last);
            if out.len() >= length {
                break;
            }
        }
        out.truncate(length);
        out
    }

    #[test]
    fn keys_are_derived_as_rfc_5869_and_the_documented_info_say() {
        // The reference itself: RFC 5869, appendix A.1.
        let salt: [u8; 13] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let info: [u8; 10] = hex("f0f1f2f3f4f5f6f7f8f9");
        let known = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
        assert_eq!(HEXLOWER.encode(&reference(&salt, &[0x0b; 22], &info, 42)), known);

        let own = Secret::new(Scalar::from(7u32));
        let expected = reference(sid().as_bytes(), own.as_bytes(), b"self\0", 32);
        assert_eq!(self_mask(&own, &sid()).to_vec(), expected);

        let other = Secret::new(Scalar::from(11u32));
        let key = |secret: &Secret| Point::of(&RistrettoPoint::mul_base(secret));
        let shared = Point::of(&RistrettoPoint::mul_base(&Scalar::from(77u32)));
        let among = Digest::of(b"those who mask");
        let info = [&b"mask\0\0\0\0\x02\0\0\x01\0"[..], among.as_bytes()].concat();
        let expected = reference(sid().as_bytes(), shared.as_bytes(), &info, 32);
        let mine = pair_mask(&own, &sid(), &among, (256, 2), &key(&other));
        let theirs = pair_mask(&other, &sid(), &among, (2, 256), &key(&own));
        for found in [mine, theirs] {
            assert_eq!(found.unwrap().to_vec(), expected);
        }

        let seed = reference(sid().as_bytes(), &[9; 32], b"mask key\0\0\0\0\x01", 64);
        let first = Scalar::from_bytes_mod_order_wide(&seed.try_into().unwrap());
        assert_eq!(secrets(9).mask_polynomial.commit()[1], Point::of(&RistrettoPoint::mul_base(&first)));
    }

    #[test]
    fn the_key_agreement_is_x25519() {
        // RFC 7748 §6.1.
        let alice = hex::<32>("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = hex::<32>("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let public = MontgomeryPoint::mul_base_clamped(alice);
        assert_eq!(public.to_bytes(), hex::<32>("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        let shared = hex::<32>("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(public.mul_clamped(bob).to_bytes(), shared);
        assert_eq!(MontgomeryPoint::mul_base_clamped(bob).mul_clamped(alice).to_bytes(), shared);
    }

    #[test]
    fn keys_of_low_order_and_bytes_that_are_no_points_are_refused() {
        // The neutral element and the point of order 2 of Curve25519 (RFC 7748 §6.1 names the check).
        for byte in [0u8, 1] {
            let mut low = [0u8; 32];
            low[0] = byte;
            assert!(!usable_share_key(&Point::from_bytes(low)));
            assert_eq!(secrets(1).seal(&sid(), 0, 1, &Point::from_bytes(low)), None);
        }
        assert!(usable_share_key(&secrets(1).advertise(sid(), 0, false).share_key));
        for bad in [[0u8; 32], [0xff; 32]] {
            assert!(secrets(1).pair_mask(&sid(), &sid(), (0, 1), &Point::from_bytes(bad)).is_none());
        }
    }

    /// Does not compile where a library was built without erasing its state.
    #[test]
    fn states_of_libraries_are_erased_when_they_are_dropped() {
        fn erases<T: zeroize::ZeroizeOnDrop>() {}
        erases::<Sha256>();
        erases::<ctr::Ctr128BE<aes::Aes128>>();
        erases::<chacha20::ChaCha20>();
        erases::<ChaCha20Poly1305>();
        erases::<Zeroizing<Scalar>>();
    }

    #[test]
    fn secrets_show_nothing_of_themselves() {
        assert_eq!(format!("{:?}", Seed::new(Zeroizing::new([7; 32]))), "Seed(..)");
        let share = super::super::message::Share::new(&Secret::new(Scalar::from(7u32)));
        assert_eq!(format!("{share:?}"), "Share(..)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_box_opens_for_its_receiver_from_its_sender_and_unchanged_only(
            bit in any::<prop::sample::Index>()
        ) {
            let (sender, receiver, other) = (secrets(1), secrets(2), secrets(3));
            let key = |secrets: &Secrets| secrets.advertise(sid(), 0, false).share_key;
            let sealed = sender.seal(&sid(), 4, 5, &key(&receiver)).unwrap();
            prop_assert_eq!(sealed.len(), 80);
            let opened = receiver.open(&sid(), 5, 4, &key(&sender), &sealed).unwrap();
            prop_assert_eq!(*opened.0, *sender.mask_polynomial.share(6));
            prop_assert_eq!(*opened.1, *sender.own_polynomial.share(6));
            let mut flipped = sealed;
            let at = bit.index(sealed.len() * 8);
            flipped[at / 8] ^= 1 << (at % 8);
            let opens = |who: &Secrets, sid: Digest, me, from, key: &Point, bytes: &[u8; BOX_BYTES]| {
                who.open(&sid, me, from, key, bytes).is_some()
            };
            prop_assert!(!opens(&receiver, sid(), 5, 4, &key(&sender), &flipped));
            prop_assert!(!opens(&receiver, Digest::of(b"another"), 5, 4, &key(&sender), &sealed));
            prop_assert!(!opens(&receiver, sid(), 5, 3, &key(&sender), &sealed));
            prop_assert!(!opens(&receiver, sid(), 5, 4, &key(&other), &sealed));
            prop_assert!(!opens(&other, sid(), 5, 4, &key(&sender), &sealed));
        }
    }
}
