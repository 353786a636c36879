//! Masks: keystreams that are added to a vector and taken off again.
//!
//! One stream for each key, its counter from 0 (specs/secure-aggregation.md, "Keys and identity"). A coordinate of at
//! most 32 bits takes the next four bytes of the stream, a wider one the next eight, little-endian, and of them its
//! lowest bits: a uniform element of the ring.

use aes::Aes128;
use chacha20::ChaCha20;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::vector::{Block, Layout, Masked, Tree};
use crate::PrivacyError;

/// Which generator makes the masks of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prg {
    /// AES-128 in counter mode (NIST SP 800-38A). Where a processor has no instructions for AES, the library computes
    /// it in software in constant time; it gives the same bytes.
    #[serde(rename = "aes128-ctr")]
    Aes128Ctr,
    /// ChaCha20 (RFC 8439).
    #[serde(rename = "chacha20")]
    ChaCha20,
}

/// A key of one stream; AES takes its first half.
pub(super) type MaskKey = Zeroizing<[u8; 32]>;

/// Whether a mask is added or taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Added.
    Plus,
    /// Taken off.
    Minus,
}

/// The part of a vector that is the row weight.
const WEIGHT: usize = 0;
/// Lanes that are masked at a time: they and the keystream for them stay in the nearest cache.
const LANES: usize = 2_048;

/// Masks one vector, block by block.
pub struct Masker {
    blocks: std::vec::IntoIter<Block>,
    streams: Vec<Stream>,
    blind: Stream,
    tree: Tree,
    is_noisy: bool,
}

impl Masker {
    pub(super) fn new(layout: &Layout, streams: Vec<Stream>, blind: Stream, is_noisy: bool) -> Self {
        let blocks = layout.blocks().collect::<Vec<_>>().into_iter();
        Self { blocks, streams, blind, tree: Tree::default(), is_noisy }
    }

    /// The block whose levels come next.
    pub fn expected(&self) -> Option<Block> {
        self.blocks.as_slice().first().copied()
    }

    /// Masks the levels of the next block in place, and packs them.
    ///
    /// # Errors
    /// [`PrivacyError::Length`] if there are not as many levels as entries, or all blocks are masked already;
    /// [`PrivacyError::Level`] names an entry above the largest level. The same block is expected again then.
    ///
    /// # Disclosure
    /// Masked values: they tell nothing of the levels as long as the masks stay (specs/secure-aggregation.md).
    pub fn block(&mut self, levels: &mut [u64]) -> Result<Vec<u8>, PrivacyError> {
        let Some(block) = self.expected() else {
            return Err(PrivacyError::Length { expected: 0, found: levels.len() as u64 });
        };
        if block.entries != levels.len() {
            return Err(PrivacyError::Length { expected: block.entries as u64, found: levels.len() as u64 });
        }
        // With noise a level may lie outside of its range, and the width has room for that. The row weight has none.
        let is_bound = !self.is_noisy || block.part == WEIGHT;
        let above = levels.iter().position(|level| is_bound && *level > block.most);
        if let Some(index) = above {
            return Err(PrivacyError::Level { part: block.part, index: block.first + index as u64 });
        }
        self.mask(block, levels)
    }

    /// Masks random numbers of the member's own in place of the next block's levels: whoever takes the masks off the sum of
    /// this block learns nothing from it, of this site or of the others.
    ///
    /// # Errors
    /// [`PrivacyError::Length`] if all blocks are masked already.
    ///
    /// # Disclosure
    /// Random numbers; that they are there is seen nowhere but in what the member says about it.
    pub fn blinded(&mut self) -> Result<Vec<u8>, PrivacyError> {
        let block = self.expected().ok_or(PrivacyError::Length { expected: 0, found: 0 })?;
        let mut lanes = Zeroizing::new(vec![0u64; block.entries]);
        apply(std::slice::from_mut(&mut self.blind), &mut lanes, block.width);
        self.mask(block, &mut lanes)
    }

    fn mask(&mut self, block: Block, lanes: &mut [u64]) -> Result<Vec<u8>, PrivacyError> {
        self.blocks.next();
        // PRIVACY: what leaves of a block.
        apply(&mut self.streams, lanes, block.width);
        let packed = block.pack(lanes)?;
        self.tree.push(&packed);
        Ok(packed)
    }

    /// What the member signs of its masked vector.
    ///
    /// # Errors
    /// [`PrivacyError::Length`] if blocks are still expected.
    pub fn finish(self) -> Result<Masked, PrivacyError> {
        let rest: u64 = self.blocks.map(|block| block.bytes() as u64).sum();
        let masked = self.tree.finish();
        if rest > 0 {
            return Err(PrivacyError::Length { expected: masked.bytes + rest, found: masked.bytes });
        }
        Ok(masked)
    }
}

/// Takes the masks off a sum, block by block.
pub struct Unmasker {
    blocks: std::vec::IntoIter<Block>,
    streams: Vec<Stream>,
    /// How many inputs are in the sum, and how far noise may have moved it.
    inputs: u32,
    noise_steps: f64,
}

impl Unmasker {
    pub(super) fn new(layout: &Layout, streams: Vec<Stream>, inputs: u32, noise_steps: f64) -> Self {
        Self { blocks: layout.blocks().collect::<Vec<_>>().into_iter(), streams, inputs, noise_steps }
    }

    /// Puts the sums of a block that noise took beyond what levels can add up to at the nearest of these; others are as they
    /// were.
    ///
    /// # Disclosure
    /// The same sums, cut.
    pub fn cut(&self, block: &Block, sums: &mut [u64]) {
        if block.part == WEIGHT || self.noise_steps <= 0.0 {
            return;
        }
        let largest = u64::from(self.inputs).saturating_mul(block.most);
        for sum in sums {
            *sum = u64::try_from(block.signed(*sum, self.inputs, self.noise_steps)).unwrap_or(0).min(largest);
        }
    }

    /// The block whose sums come next.
    pub fn expected(&self) -> Option<Block> {
        self.blocks.as_slice().first().copied()
    }

    /// Turns the sums of all masked inputs of the next block, added in any order and cut, into the sums of the levels.
    ///
    /// # Errors
    /// [`PrivacyError::Length`] if there are not as many sums as entries, or all blocks are unmasked already.
    ///
    /// # Disclosure
    /// The aggregate over all sites in the sum, and nothing of one of them.
    pub fn block(&mut self, sums: &mut [u64]) -> Result<(), PrivacyError> {
        let Some(block) = self.expected().filter(|block| block.entries == sums.len()) else {
            let expected = self.expected().map_or(0, |block| block.entries as u64);
            return Err(PrivacyError::Length { expected, found: sums.len() as u64 });
        };
        self.blocks.next();
        apply(&mut self.streams, sums, block.width);
        for sum in sums {
            *sum &= block.mask();
        }
        Ok(())
    }
}

enum Cipher {
    Aes(Box<Ctr128BE<Aes128>>),
    ChaCha(Box<ChaCha20>),
}

/// One mask on its way through a vector.
pub(super) struct Stream {
    cipher: Cipher,
    sign: Sign,
}

impl Stream {
    pub(super) fn new(prg: Prg, key: &MaskKey, sign: Sign) -> Self {
        let cipher = match prg {
            Prg::Aes128Ctr => {
                let mut half = Zeroizing::new([0u8; 16]);
                half.copy_from_slice(&key[..16]);
                Cipher::Aes(Box::new(Ctr128BE::<Aes128>::new((&*half).into(), (&[0u8; 16]).into())))
            }
            Prg::ChaCha20 => Cipher::ChaCha(Box::new(ChaCha20::new((&**key).into(), (&[0u8; 12]).into()))),
        };
        Self { cipher, sign }
    }

    /// The next bytes. ChaCha20 ends after 256 GiB and would panic; `Setup::layout` allows vectors of at most 32 GiB.
    fn fill(&mut self, bytes: &mut [u8]) {
        match &mut self.cipher {
            Cipher::Aes(cipher) => cipher.write_keystream(bytes),
            Cipher::ChaCha(cipher) => cipher.write_keystream(bytes),
        }
    }
}

/// Applies the next stretch of every stream to the lanes of one block, modulo 2^64 and so modulo 2^`width`.
pub(super) fn apply(streams: &mut [Stream], lanes: &mut [u64], width: u32) {
    let mut space = Zeroizing::new([0u8; LANES * 8]);
    let word = if width > u32::BITS { 8 } else { 4 };
    for lanes in lanes.chunks_mut(LANES) {
        let keystream = &mut space[..lanes.len() * word];
        for stream in &mut *streams {
            stream.fill(keystream);
            match (word, stream.sign) {
                (4, Sign::Plus) => combine(lanes, keystream, narrow, u64::wrapping_add),
                (4, Sign::Minus) => combine(lanes, keystream, narrow, u64::wrapping_sub),
                (_, Sign::Plus) => combine(lanes, keystream, wide, u64::wrapping_add),
                (_, Sign::Minus) => combine(lanes, keystream, wide, u64::wrapping_sub),
            }
        }
    }
}

fn narrow(bytes: [u8; 4]) -> u64 {
    u64::from(u32::from_le_bytes(bytes))
}

fn wide(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes)
}

/// Generic over its two functions, so that each of the four loops is compiled for itself and vectorised.
fn combine<const N: usize>(
    lanes: &mut [u64],
    keystream: &[u8],
    word: impl Fn([u8; N]) -> u64,
    op: impl Fn(u64, u64) -> u64,
) {
    for (lane, bytes) in lanes.iter_mut().zip(keystream.as_chunks::<N>().0) {
        *lane = op(*lane, word(*bytes));
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::super::vector::Part;
    use super::*;

    fn keystream(prg: Prg, key: [u8; 32], pieces: &[usize]) -> Vec<u8> {
        let mut stream = Stream::new(prg, &Zeroizing::new(key), Sign::Plus);
        let mut bytes = Vec::new();
        for piece in pieces {
            let mut next = vec![0; *piece];
            stream.fill(&mut next);
            bytes.extend(next);
        }
        bytes
    }

    #[test]
    fn a_noisy_sum_is_cut_to_what_levels_add_up_to() {
        let part = |entries, most, width| Part { entries, most, width };
        let layout = Layout::new(vec![part(1, 9, 8), part(4, 3, 5)]);
        let blocks: Vec<Block> = layout.blocks().collect();
        // −2 in five bits, and more than three levels of 3.
        let noisy = [30, 0, 9, 13];
        let cut = |noise_steps| {
            let mut sums = noisy;
            Unmasker::new(&layout, Vec::new(), 3, noise_steps).cut(&blocks[1], &mut sums);
            sums
        };
        assert_eq!((cut(8.0), cut(0.0)), ([0, 0, 9, 9], noisy));
        let mut weight = [255];
        Unmasker::new(&layout, Vec::new(), 3, 8.0).cut(&blocks[0], &mut weight);
        assert_eq!(weight, [255], "the row weight has no noise");
    }

    #[test]
    fn aes_gives_the_published_keystream() {
        // Key and counter 0, 1, 2: H of GCM, and E(Y0), E(Y1) of its test case 2 (McGrew, Viega 2005, appendix B).
        let published =
            "66e94bd4ef8a2c3b884cfa59ca342b2e58e2fccefa7e3061367f1d57a4e7455a0388dace60b6a392f328c2b971b2fe78";
        assert_eq!(HEXLOWER.encode(&keystream(Prg::Aes128Ctr, [0; 32], &[48])), published);
    }

    #[test]
    fn chacha_gives_the_published_keystream() {
        // RFC 8439, appendix A.1, test vectors 1 and 2.
        let published = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7\
                         da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586\
                         9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed\
                         29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f";
        assert_eq!(HEXLOWER.encode(&keystream(Prg::ChaCha20, [0; 32], &[128])), published);
    }

    /// Multiplication by x in the field of AES.
    fn double(byte: u8) -> u8 {
        (byte << 1) ^ if byte & 0x80 == 0 { 0 } else { 0x1b }
    }

    fn product(mut a: u8, mut b: u8) -> u8 {
        let mut sum = 0;
        while b > 0 {
            sum ^= if b & 1 == 1 { a } else { 0 };
            a = double(a);
            b >>= 1;
        }
        sum
    }

    /// The S-box as FIPS 197 defines it: the inverse in the field, then an affine map.
    fn s_box(byte: u8) -> u8 {
        let inverse = (1..=255).find(|b| product(byte, *b) == 1).unwrap_or(0);
        [1, 2, 3, 4].iter().fold(inverse ^ 0x63, |sum, turn| sum ^ inverse.rotate_left(*turn))
    }

    /// One block of AES-128, word for word after FIPS 197, for comparison only.
    fn aes_block(s_box: &[u8], key: [u8; 16], block: [u8; 16]) -> [u8; 16] {
        let mut keys = key.to_vec();
        let mut constant = 1;
        while keys.len() < 176 {
            let mut word: [u8; 4] = keys[keys.len() - 4..].try_into().unwrap();
            if keys.len().is_multiple_of(16) {
                word.rotate_left(1);
                word = word.map(|b| s_box[b as usize]);
                word[0] ^= constant;
                constant = double(constant);
            }
            for byte in word {
                keys.push(byte ^ keys[keys.len() - 16]);
            }
        }
        let add = |state: [u8; 16], round: usize| std::array::from_fn(|i| state[i] ^ keys[round * 16 + i]);
        let mut state: [u8; 16] = add(block, 0);
        for round in 1..=10 {
            let shifted: [u8; 16] = std::array::from_fn(|i| s_box[state[(i + 4 * (i % 4)) % 16] as usize]);
            let mixed = std::array::from_fn(|i| {
                let column = &shifted[i / 4 * 4..][..4];
                let at = |k: usize| column[(i + k) % 4];
                double(at(0)) ^ double(at(1)) ^ at(1) ^ at(2) ^ at(3)
            });
            state = add(if round == 10 { shifted } else { mixed }, round);
        }
        state
    }

    /// One block of ChaCha20 after RFC 8439 §2.3, for comparison only.
    fn chacha_block(key: [u8; 32], counter: u32) -> Vec<u8> {
        let mut state = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574, 0, 0, 0, 0, 0, 0, 0, 0, counter, 0, 0, 0];
        for (word, bytes) in state[4..12].iter_mut().zip(key.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let first = state;
        let columns = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]];
        let diagonals = [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]];
        for _ in 0..10 {
            for [a, b, c, d] in columns.into_iter().chain(diagonals) {
                for (to, by, turned, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
                    state[to] = state[to].wrapping_add(state[by]);
                    state[turned] = (state[turned] ^ state[to]).rotate_left(turn);
                }
            }
        }
        state.iter().zip(first).flat_map(|(word, first)| word.wrapping_add(first).to_le_bytes()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Libraries choose among ways to compute many blocks at once by processor and length; all must give the bytes
        /// of the definition. (Build with `--cfg aes_backend="soft"` to run the same test on the software AES.)
        #[test]
        fn streams_are_those_of_the_definition_on_every_path(
            key in any::<[u8; 32]>(), pieces in prop::collection::vec(0usize..3_000, 1..4)
        ) {
            let table: Vec<u8> = (0..=255).map(s_box).collect();
            let length = pieces.iter().sum::<usize>();
            let half: [u8; 16] = key[..16].try_into().unwrap();
            let mut aes: Vec<u8> =
                (0..length.div_ceil(16) as u128).flat_map(|i| aes_block(&table, half, i.to_be_bytes())).collect();
            aes.truncate(length);
            prop_assert_eq!(keystream(Prg::Aes128Ctr, key, &pieces), aes);
            let blocks = u32::try_from(length.div_ceil(64)).unwrap();
            let mut chacha: Vec<u8> = (0..blocks).flat_map(|i| chacha_block(key, i)).collect();
            chacha.truncate(length);
            prop_assert_eq!(keystream(Prg::ChaCha20, key, &pieces), chacha);
        }

        #[test]
        fn what_is_added_is_taken_off_again_in_blocks_of_any_length(
            key in any::<[u8; 32]>(), values in prop::collection::vec(any::<u64>(), 1..5_000), cut in 1usize..5_000,
            width in 1u32..=63
        ) {
            for prg in [Prg::Aes128Ctr, Prg::ChaCha20] {
                let stream = |sign| Stream::new(prg, &Zeroizing::new(key), sign);
                let mut lanes = values.clone();
                apply(&mut [stream(Sign::Plus)], &mut lanes, width);
                prop_assert_ne!(&lanes, &values);
                let mut minus = [stream(Sign::Minus)];
                for part in lanes.chunks_mut(cut) {
                    apply(&mut minus, part, width);
                }
                prop_assert_eq!(&lanes, &values);
            }
        }
    }
}
