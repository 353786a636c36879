//! Fingerprints as words, for comparing over a telephone: twelve words of the BIP-39 English list.
//!
//! They hold the first 128 bits of a digest and a check sum of four bits, so that a word misheard is mostly noticed as
//! a mistake rather than taken for another key.
//!
//! To pass for a key whose words are known, another with the same 128 bits must be found: 2^128 tries (a second
//! preimage), because the attacker chooses only one of the two. Words over a *pair* of keys, which both sites would see
//! alike, are weaker: somebody between the two chooses a key towards each and needs only a collision of the two pairs,
//! 2^64 tries. Therefore each key has its own words. They are no secret, so that comparing them need not take constant
//! time.

use bip39::{Language, Mnemonic};

use crate::id::Digest;
use crate::sign::PublicKey;

/// Bits of the digest that the words hold.
pub const BYTES: usize = 16;

/// The twelve words of a digest, with blanks between.
pub fn of_digest(digest: &Digest) -> String {
    // Unwrap safety: sixteen bytes are one of the lengths that BIP-39 has.
    #[allow(clippy::unwrap_used)]
    let words = Mnemonic::from_entropy_in(Language::English, &digest.as_bytes()[..BYTES]).unwrap();
    words.to_string()
}

/// The twelve words of an identity key: those of its SHA-256 digest.
pub fn of_key(key: &PublicKey) -> String {
    of_digest(&Digest::of(key.as_bytes()))
}

/// What typed words say about a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// They are its words.
    Same,
    /// They are words of something else.
    Different,
    /// They are no twelve words of the list with a right check sum: misheard or mistyped.
    Mistyped,
}

/// Compares what a person typed with a digest; case and blanks do not matter.
pub fn compare(typed: &str, digest: &Digest) -> Comparison {
    let typed = typed
        .split(|c: char| c.is_whitespace() || c == '-' || c == ',')
        .filter(|w| !w.is_empty())
        .take(25)
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase();
    match Mnemonic::parse_in_normalized(Language::English, &typed) {
        Ok(words) if words.to_string() == of_digest(digest) => Comparison::Same,
        Ok(_) => Comparison::Different,
        Err(_) => Comparison::Mistyped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_same_from_different_from_mistyped() {
        let digest = Digest::of(b"ca");
        let words = of_digest(&digest);
        assert_eq!(words.split(' ').count(), 12);
        assert_eq!(compare(&format!("  {}\n", words.to_uppercase().replace(' ', " - ")), &digest), Comparison::Same);
        assert_eq!(compare(&of_digest(&Digest::of(b"another")), &digest), Comparison::Different);
        assert_eq!(compare(words.rsplit_once(' ').unwrap().0, &digest), Comparison::Mistyped);
        assert_eq!(compare("", &digest), Comparison::Mistyped);
    }
}
