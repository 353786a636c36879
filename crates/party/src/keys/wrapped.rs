//! A person's signing key, wrapped by their own passphrase.
//!
//! Layout: magic of 8 bytes, memory in KiB and passes (u32, little-endian), salt of 16 bytes, nonce of 24 bytes, the
//! sealed seed. The person's id is authenticated with it, so that one person's key cannot be put in another's place.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hospes_protocol::id::PersonId;
use hospes_protocol::sign::SecretKey;
use zeroize::{Zeroize as _, Zeroizing};

use super::{KdfCost, KeyError, random};
use crate::people::Passphrase;

const MAGIC: &[u8; 8] = b"hospesP1";
const HEADER: usize = 8 + 4 + 4 + 16 + 24;

/// Name of a person's wrapped key among the secrets.
pub(crate) fn name(person: PersonId) -> String {
    format!("person/{person}")
}

/// Draws a new signing key and wraps it.
pub(crate) fn generate(
    person: PersonId,
    passphrase: &Passphrase,
    cost: KdfCost,
) -> Result<(SecretKey, Vec<u8>), KeyError> {
    let mut seed: [u8; 32] = random()?;
    let key = SecretKey::from_seed(&seed);
    seed.zeroize();
    let wrapped = wrap(&key, person, passphrase, cost)?;
    Ok((key, wrapped))
}

/// Wraps a key under a passphrase.
pub(crate) fn wrap(
    key: &SecretKey,
    person: PersonId,
    passphrase: &Passphrase,
    cost: KdfCost,
) -> Result<Vec<u8>, KeyError> {
    let (salt, nonce): ([u8; 16], [u8; 24]) = (random()?, random()?);
    let wrapping = cost.derive(passphrase, &salt)?;
    let mut bytes = Vec::with_capacity(HEADER + 48);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&cost.memory_kib.to_le_bytes());
    bytes.extend_from_slice(&cost.passes.to_le_bytes());
    bytes.extend_from_slice(&salt);
    bytes.extend_from_slice(&nonce);
    let aad = [bytes.as_slice(), person.as_uuid().as_bytes()].concat();
    let sealed = XChaCha20Poly1305::new((&*wrapping).into())
        .encrypt(&XNonce::from(nonce), Payload { msg: key.to_seed().as_slice(), aad: &aad })
        .map_err(|_| KeyError::Damaged { what: "a signing key".into() })?;
    bytes.extend_from_slice(&sealed);
    Ok(bytes)
}

/// Opens a wrapped key. Costs what its argon2id costs, whether the passphrase is right or wrong.
pub(crate) fn unwrap(bytes: &[u8], person: PersonId, passphrase: &Passphrase) -> Result<SecretKey, KeyError> {
    let damaged = || KeyError::Damaged { what: "a signing key".into() };
    let (header, sealed) = bytes.split_at_checked(HEADER).ok_or_else(damaged)?;
    if &header[..8] != MAGIC {
        return Err(damaged());
    }
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let cost = KdfCost { memory_kib: number(8), passes: number(12) };
    let salt: [u8; 16] = header[16..32].try_into().map_err(|_| damaged())?;
    let nonce: [u8; 24] = header[32..56].try_into().map_err(|_| damaged())?;
    let wrapping = cost.derive(passphrase, &salt)?;
    let aad = [header, person.as_uuid().as_bytes()].concat();
    let seed = XChaCha20Poly1305::new((&*wrapping).into())
        .decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: &aad })
        .map(Zeroizing::new)
        .map_err(|_| KeyError::WrongPassphrase { what: "the signing key".into() })?;
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.as_slice().try_into().map_err(|_| damaged())?);
    Ok(SecretKey::from_seed(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::id::Timestamp;

    #[test]
    fn a_key_opens_for_its_person_and_passphrase_only() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let (ana, ben) = (PersonId::new(now, [1; 10]), PersonId::new(now, [2; 10]));
        let pass = Passphrase::from("correct horse".to_owned());
        let (key, wrapped) = generate(ana, &pass, KdfCost::for_tests()).unwrap();
        assert_eq!(unwrap(&wrapped, ana, &pass).unwrap().public(), key.public());
        assert!(unwrap(&wrapped, ben, &pass).is_err());
        assert!(unwrap(&wrapped, ana, &Passphrase::from("wrong horse".to_owned())).is_err());
        let seed = key.to_seed();
        assert!(!wrapped.windows(32).any(|w| w == seed.as_slice()));
    }

    #[test]
    fn a_key_of_a_shipped_build_opens_in_every_other_at_the_cost_that_it_names() {
        let ana = PersonId::new(Timestamp::from_millis(1_700_000_000_000), [1; 10]);
        let pass = Passphrase::from("correct horse".to_owned());
        let (key, mut wrapped) = generate(ana, &pass, KdfCost::SHIPPED).unwrap();
        assert_eq!(wrapped[8..16], [[0, 0, 1, 0], [3, 0, 0, 0]].concat());
        assert_eq!(unwrap(&wrapped, ana, &pass).unwrap().public(), key.public());
        wrapped[12] = 2;
        assert!(unwrap(&wrapped, ana, &pass).is_err(), "fewer passes gave the same key");
    }
}
