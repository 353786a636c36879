//! Secret random bytes for noise.

use chacha20::ChaCha20;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use hkdf::Hkdf;
use hospes_protocol::id::Digest;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes that are made at a time.
const BYTES: usize = 512;
/// Fills of one stream: ChaCha20 counts 2^32 blocks of 64 bytes (RFC 8439), of which at most half are used.
const FILLS: u32 = 1 << 28;

/// A stream of random bytes that follows from a secret: the same secret and context give the same noise.
///
/// **Secrecy.** Whoever knows the secret takes the noise off. It comes from the system's generator, is kept sealed like other
/// secrets of a round, and is never sent. **Once.** Noise that is added to two different values tells their difference, so that
/// a context is used for one release, and what was made with it is durable before it is sent; that is why the noise follows from
/// a seed, and a restart finds the same. A context is the id of a session, or a digest of everything that the released value
/// follows from: study, job, task, epoch, round, attempt, and how many subjects are in it. Were the attempt not among them,
/// a second one after an opt-out would add the same noise to a sum without that patient, and the difference of both would be
/// what they gave. Only where secret or context name the rows and whose they are may the attempt be left out: then another
/// one over the same rows releases the same bytes again, and over other rows has other noise.
pub struct Source {
    key: Box<Zeroizing<[u8; 32]>>,
    stream: u64,
    fills: u32,
    cipher: Box<ChaCha20>,
    bytes: Box<Zeroizing<[u8; BYTES]>>,
    used: usize,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source(..)")
    }
}

impl Source {
    /// The noise of one release: HKDF-SHA-256 (RFC 5869) of 32 secret random bytes, with the context as salt.
    pub fn new(secret: &Zeroizing<[u8; 32]>, context: &Digest) -> Self {
        let mut key = Box::new(Zeroizing::new([0u8; 32]));
        // Unwrap safety: HKDF-SHA-256 gives up to 8,160 bytes.
        #[allow(clippy::unwrap_used)]
        Hkdf::<Sha256>::new(Some(context.as_bytes()), &**secret).expand(b"hospes/dp/noise/v1", &mut **key).unwrap();
        let cipher = stream(&key, 0);
        Self { key, stream: 0, fills: 0, cipher, bytes: Box::new(Zeroizing::new([0u8; BYTES])), used: BYTES }
    }

    fn fill(&mut self) {
        if self.fills == FILLS {
            self.fills = 0;
            self.stream += 1;
            self.cipher = stream(&self.key, self.stream);
        }
        self.fills += 1;
        self.cipher.write_keystream(&mut **self.bytes);
        self.used = 0;
    }

    /// 64 uniform bits.
    pub(super) fn bits(&mut self) -> u64 {
        if self.used + 8 > BYTES {
            self.fill();
        }
        let mut word = [0u8; 8];
        word.copy_from_slice(&self.bytes[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(word)
    }

    /// A uniform number below `bound`, which is above 0 (Lemire 2019, "Fast random integer generation in an interval",
    /// algorithm 5): exactly uniform, by rejection.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let mut product = u128::from(self.bits()) * u128::from(bound);
        // The lower half of the product.
        #[allow(clippy::cast_possible_truncation)]
        let low = |product: u128| product as u64;
        if low(product) < bound {
            let least = bound.wrapping_neg() % bound;
            while low(product) < least {
                product = u128::from(self.bits()) * u128::from(bound);
            }
        }
        // The upper half is below 2^64.
        #[allow(clippy::cast_possible_truncation)]
        let number = (product >> u64::BITS) as u64;
        number
    }

    /// The same for bounds beyond 64 bits.
    pub(super) fn below_wide(&mut self, bound: u128) -> u128 {
        if let Ok(bound) = u64::try_from(bound) {
            return u128::from(self.below(bound));
        }
        let unused = (bound - 1).leading_zeros();
        loop {
            let number = ((u128::from(self.bits()) << u64::BITS) | u128::from(self.bits())) >> unused;
            if number < bound {
                return number;
            }
        }
    }
}

fn stream(key: &[u8; 32], number: u64) -> Box<ChaCha20> {
    let mut nonce = [0u8; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Box::new(ChaCha20::new(key.into(), (&nonce).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(secret: u8, context: &[u8]) -> Source {
        Source::new(&Zeroizing::new([secret; 32]), &Digest::of(context))
    }

    #[test]
    fn the_same_secret_and_context_give_the_same_stream_and_no_other_do() {
        let words = |mut source: Source| -> Vec<u64> { (0..200).map(|_| source.bits()).collect() };
        let one = words(source(1, b"a"));
        assert_eq!(one, words(source(1, b"a")));
        for other in [words(source(2, b"a")), words(source(1, b"b"))] {
            assert!(one.iter().zip(&other).all(|(a, b)| a != b));
        }
        assert_eq!(format!("{:?}", source(1, b"a")), "Source(..)");
    }

    #[test]
    fn a_stream_that_is_used_up_is_followed_by_another() {
        let mut source = source(1, b"a");
        let first = source.bits();
        source.fills = FILLS;
        source.used = BYTES;
        assert_ne!(source.bits(), first);
        assert_eq!((source.stream, source.fills), (1, 1));
    }

    #[test]
    fn numbers_below_a_bound_are_uniform() {
        let mut source = source(3, b"uniform");
        let mut seen = [0u32; 6];
        for _ in 0..60_000 {
            seen[usize::try_from(source.below(6)).unwrap()] += 1;
        }
        let chi: f64 = seen.iter().map(|n| (f64::from(*n) - 1e4).powi(2) / 1e4).sum();
        // Five degrees of freedom; above 27.9 with a chance of 4e-5.
        assert!(chi < 27.9, "{seen:?}");
        let bound = 3u128 << 100;
        let mut thirds = [0u32; 3];
        for _ in 0..30_000 {
            let number = source.below_wide(bound);
            assert!(number < bound);
            thirds[usize::try_from(number >> 100).unwrap()] += 1;
        }
        let chi: f64 = thirds.iter().map(|n| (f64::from(*n) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 20.3, "{thirds:?}");
        assert_eq!((source.below(1), source.below_wide(1)), (0, 0));
        assert!((0..100).all(|_| source.below(u64::MAX) < u64::MAX));
    }
}
