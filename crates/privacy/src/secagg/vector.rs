//! What is added up: vectors of levels in rings of 2^w, packed to w bits, in blocks under one Merkle root.
//!
//! A vector has parts: the row weight, one coordinate wide enough for Σ min(n_u, n_max), and then each tensor with the
//! width of its own clip and bits. Every part begins at a whole byte.

use hospes_protocol::id::Digest;
use sha2::{Digest as _, Sha256};

use crate::PrivacyError;

/// Entries of one block: at most 256 KiB, a transfer chunk, whatever the width.
pub const BLOCK_ENTRIES: usize = 32_768;
/// Widest coordinate in bits.
pub const WIDEST_BITS: u32 = 63;

/// Bits of a coordinate in which the sum of `n` levels up to `most`, and noise of this spread, does not wrap:
/// w = ⌈log2(n·most + spread + 1)⌉, or `None` if that is more than [`WIDEST_BITS`].
///
/// # Units
/// `noise_steps`: 2·z·σ of the whole sum in quantisation steps, see [`noise_bound`]; 0 without noise.
///
/// # Disclosure
/// Only what the round's header says.
pub fn width(n: u32, most: u64, noise_steps: f64) -> Option<u32> {
    // A cast from float to integer saturates, and what saturates is refused below.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let noise = noise_steps.ceil() as u64;
    let largest = u128::from(n) * u128::from(most) + u128::from(noise);
    let bits = u128::BITS - largest.leading_zeros();
    (bits <= WIDEST_BITS).then_some(bits.max(1))
}

/// z·σ: the noise of a sum over `coordinates` lies within ± this with probability 1 − 2^-40, with
/// z = √(2·ln(2d·2^40)) (a union bound over the tails of d Gaussians).
///
/// # Units
/// `sigma_steps`: standard deviation of the whole sum's noise in quantisation steps.
///
/// # Disclosure
/// Only what the round's header says.
pub fn noise_bound(sigma_steps: f64, coordinates: u64) -> f64 {
    let tails = libm::log(2.0 * coordinates.max(1) as f64) + 40.0 * std::f64::consts::LN_2;
    (2.0 * tails).sqrt() * sigma_steps
}

/// A part of a vector: coordinates of one width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Coordinates.
    pub entries: u64,
    /// Largest level of one site.
    pub most: u64,
    /// Bits of a coordinate.
    pub width: u32,
}

/// The parts of a vector in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(Vec<Part>);

/// A block of one part: what is masked, hashed, sent and added at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Which part.
    pub part: usize,
    /// First entry within the part.
    pub first: u64,
    /// Entries.
    pub entries: usize,
    /// Largest level of one site.
    pub most: u64,
    /// Bits of a coordinate.
    pub width: u32,
}

impl Layout {
    pub(super) fn new(parts: Vec<Part>) -> Self {
        Self(parts)
    }

    /// The parts.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Bytes of the packed vector.
    pub fn bytes(&self) -> u64 {
        self.blocks().map(|block| block.bytes() as u64).sum()
    }

    /// The blocks in order.
    pub fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        const ENTRIES: u64 = BLOCK_ENTRIES as u64;
        self.0.iter().enumerate().flat_map(|(part, &Part { entries, most, width })| {
            (0..entries.div_ceil(ENTRIES)).map(move |number| {
                let first = number * ENTRIES;
                // At most `BLOCK_ENTRIES`.
                #[allow(clippy::cast_possible_truncation)]
                let entries = (entries - first).min(ENTRIES) as usize;
                Block { part, first, entries, most, width }
            })
        })
    }
}

impl Block {
    /// Bytes of the packed block.
    pub fn bytes(&self) -> usize {
        (self.entries * self.width as usize).div_ceil(8)
    }

    /// The lowest `width` bits.
    pub(super) fn mask(&self) -> u64 {
        (1 << self.width) - 1
    }

    /// Packs values, each modulo 2^w, the lowest bits first.
    ///
    /// # Errors
    /// [`PrivacyError::Length`] if there are not as many values as entries.
    ///
    /// # Disclosure
    /// The same values in another form.
    pub fn pack(&self, values: &[u64]) -> Result<Vec<u8>, PrivacyError> {
        self.check(values.len() * 8, self.entries * 8)?;
        let mut bytes = Vec::with_capacity(self.bytes() + 8);
        let (mut pending, mut held) = (0u128, 0u32);
        for value in values {
            pending |= u128::from(value & self.mask()) << held;
            held += self.width;
            if held >= u64::BITS {
                // The lower half, which is full.
                #[allow(clippy::cast_possible_truncation)]
                bytes.extend_from_slice(&(pending as u64).to_le_bytes());
                pending >>= u64::BITS;
                held -= u64::BITS;
            }
        }
        bytes.extend_from_slice(&pending.to_le_bytes()[..held.div_ceil(8) as usize]);
        Ok(bytes)
    }

    /// Adds packed values to sums, which then hold as much modulo 2^w.
    ///
    /// Masked vectors add like any others: sums of two halves of a cohort add up to those of the whole.
    ///
    /// # Errors
    /// [`PrivacyError::Length`]; nothing was added then.
    ///
    /// # Disclosure
    /// Sums of masked values, which tell nothing until they are unmasked.
    pub fn add(&self, sums: &mut [u64], packed: &[u8]) -> Result<(), PrivacyError> {
        self.check(sums.len() * 8, self.entries * 8)?;
        self.check(packed.len(), self.bytes())?;
        let mut words = packed.chunks(8);
        let (mut pending, mut held) = (0u128, 0u32);
        for sum in sums {
            if held < self.width {
                let chunk = words.next().unwrap_or_default();
                let mut word = [0u8; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                pending |= u128::from(u64::from_le_bytes(word)) << held;
                held += u64::BITS;
            }
            // The lowest bits are those of this entry.
            #[allow(clippy::cast_possible_truncation)]
            let value = pending as u64 & self.mask();
            *sum = sum.wrapping_add(value);
            pending >>= self.width;
            held -= self.width;
        }
        Ok(())
    }

    fn check(&self, found: usize, expected: usize) -> Result<(), PrivacyError> {
        if found == expected {
            return Ok(());
        }
        Err(PrivacyError::Length { expected: expected as u64, found: found as u64 })
    }

    /// A coordinate of an unmasked sum as a number: with noise it can lie a little below 0, which wraps.
    ///
    /// # Units
    /// `noise_steps`: as in [`width`].
    ///
    /// # Disclosure
    /// The same number in another form.
    pub fn signed(&self, sum: u64, n: u32, noise_steps: f64) -> i64 {
        // Half of the spread lies on either side; casts saturate.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let margin = (noise_steps / 2.0).floor() as u64;
        let largest = u64::from(n).saturating_mul(self.most).saturating_add(margin);
        let value = (sum & self.mask()).cast_signed();
        if value.cast_unsigned() > largest { value.wrapping_sub(1i64 << self.width) } else { value }
    }
}

/// The levels of one tensor: q(v) = round((v + c)/2c · (2^b − 1)) over [−c, c]; ties round up. With b = 32 it gives the
/// levels of [`Quantiser`](crate::quantise::Quantiser).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    clip: f64,
    most: u64,
}

impl Scale {
    /// The scale of a clip and a number of bits.
    ///
    /// # Errors
    /// [`PrivacyError::Parameter`] if the clip is not above 0 and within [`limits::UPDATE_CLIP`], or the bits are not 1
    /// to 32.
    ///
    /// [`limits::UPDATE_CLIP`]: hospes_protocol::limits::UPDATE_CLIP
    pub fn new(clip: f64, bits: u8) -> Result<Self, PrivacyError> {
        if !(clip > 0.0 && clip <= hospes_protocol::limits::UPDATE_CLIP) {
            let reason = "must be above 0 and within the limit for updates";
            return Err(PrivacyError::Parameter { place: "clip", reason });
        }
        if !(1..=32).contains(&bits) {
            return Err(PrivacyError::Parameter { place: "bits", reason: "must be 1 to 32" });
        }
        Ok(Self { clip, most: (1 << bits) - 1 })
    }

    /// The highest level.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The level next to α·v, with v cut to ±clip first.
    ///
    /// # Disclosure
    /// One entry of an update, up to half a step; it leaves under a mask only.
    pub fn level(&self, alpha: f64, value: f64) -> u64 {
        let exact = (alpha * value.clamp(-self.clip, self.clip) + self.clip) / (2.0 * self.clip) * self.most as f64;
        // A cast from float to integer saturates, so a last rounding above the range is cut.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let level = (exact + 0.5).floor() as u64;
        level.min(self.most)
    }

    /// The weighted mean Σα·v / Σα of a sum of levels of so many sites.
    ///
    /// # Disclosure
    /// The aggregate.
    pub fn mean(&self, sum: i64, sites: u32, alpha_sum: f64) -> f64 {
        (2.0 * sum as f64 / self.most as f64 - f64::from(sites)) * self.clip / alpha_sum
    }
}

/// What a site signs of its masked vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masked {
    /// Merkle root over its blocks.
    pub root: Digest,
    /// Bytes of all blocks.
    pub bytes: u64,
}

/// Merkle tree over the blocks of a masked vector (RFC 6962 §2.1), which keeps only its peaks.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    peaks: Vec<(u32, [u8; 32])>,
    bytes: u64,
}

impl Tree {
    /// Takes the next block.
    ///
    /// # Disclosure
    /// Digests of masked values.
    pub fn push(&mut self, block: &[u8]) {
        let leaf = Sha256::new().chain_update([0u8]).chain_update(block).finalize();
        let mut peak: (u32, [u8; 32]) = (0, leaf.into());
        while let Some((_, left)) = self.peaks.pop_if(|(level, _)| *level == peak.0) {
            peak = (peak.0 + 1, node(&left, &peak.1));
        }
        self.peaks.push(peak);
        self.bytes += block.len() as u64;
    }

    /// Root and length of what was taken.
    pub fn finish(&self) -> Masked {
        let mut peaks = self.peaks.iter().rev();
        let root = match peaks.next() {
            Some((_, last)) => peaks.fold(*last, |right, (_, left)| node(left, &right)),
            None => Sha256::digest(b"").into(),
        };
        Masked { root: Digest::from_bytes(root), bytes: self.bytes }
    }
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1u8]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(entries: usize, width: u32) -> Block {
        Block { part: 0, first: 0, entries, most: 1, width }
    }

    #[test]
    fn the_width_is_the_least_in_which_no_sum_wraps() {
        // Upload of 16 bits from a hundred sites: 23 bits (specs/performance.md).
        assert_eq!(width(100, (1 << 16) - 1, 0.0), Some(23));
        assert_eq!(width(3, 1, 0.0), Some(2));
        assert_eq!(width(4, 1, 0.0), Some(3));
        assert_eq!(width(1_000, u64::from(u32::MAX), 0.0), Some(42));
        assert_eq!(width(3, 1, 4.0), Some(3));
        assert_eq!(width(3, 1, 4.1), Some(4));
        assert_eq!(width(3, u64::MAX / 2, 0.0), None);
        assert_eq!(width(3, 1, f64::INFINITY), None);
        // z for a million coordinates: √(2·ln(2^41·10^6)).
        assert!((noise_bound(1.0, 1_000_000) - 9.190_7).abs() < 1e-3, "{}", noise_bound(1.0, 1_000_000));
    }

    #[test]
    fn parts_are_cut_into_blocks_that_begin_at_bytes() {
        let part = |entries, width| Part { entries, most: 1, width };
        let layout = Layout::new(vec![part(1, 17), part(BLOCK_ENTRIES as u64 + 3, 23), part(0, 9)]);
        let blocks: Vec<_> = layout.blocks().map(|b| (b.part, b.first, b.entries, b.bytes())).collect();
        let whole = BLOCK_ENTRIES * 23 / 8;
        assert_eq!(blocks, [(0, 0, 1, 3), (1, 0, BLOCK_ENTRIES, whole), (1, BLOCK_ENTRIES as u64, 3, 9)]);
        assert_eq!(layout.bytes(), 3 + whole as u64 + 9);
    }

    #[test]
    fn the_root_is_that_of_rfc_6962() {
        // The tree of the reference implementation of Certificate Transparency, whose first leaves these are.
        let leaves: [&[u8]; 4] = [b"", b"\x00", b"\x10", b"\x20\x21"];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        let mut tree = Tree::default();
        for (leaf, root) in leaves.iter().zip(roots) {
            tree.push(leaf);
            assert_eq!(tree.finish().root.to_string(), root);
        }
        assert_eq!(tree.finish().bytes, 4);
    }

    #[test]
    fn lengths_that_do_not_fit_change_nothing() {
        let mut sums = [7; 3];
        assert!(matches!(block(3, 9).add(&mut sums, &[0xff; 5]), Err(PrivacyError::Length { expected: 4, found: 5 })));
        assert!(block(2, 9).add(&mut sums, &[0xff; 3]).is_err());
        assert!(block(2, 9).pack(&sums).is_err());
        assert_eq!(sums, [7; 3]);
    }

    #[test]
    fn a_scale_has_its_ends_at_its_first_and_last_level() {
        for bits in [1, 8, 16, 32] {
            let scale = Scale::new(4.0, bits).unwrap();
            assert_eq!((scale.level(1.0, -9.0), scale.level(1.0, 9.0)), (0, scale.most()));
            let sum = i64::try_from(scale.most()).unwrap() * 3;
            assert_eq!(scale.mean(sum, 3, 3.0), 4.0);
            assert_eq!(scale.mean(0, 3, 3.0), -4.0);
        }
        for (clip, bits) in [(0.0, 8), (f64::NAN, 8), (1e7, 8), (1.0, 0), (1.0, 33)] {
            assert!(Scale::new(clip, bits).is_err());
        }
    }

    #[test]
    fn a_noisy_sum_below_zero_is_read_as_one() {
        let noisy = Block { most: 3, width: width(3, 3, 8.0).unwrap(), ..block(1, 1) };
        assert_eq!(noisy.width, 5);
        for number in -4i64..=13 {
            assert_eq!(noisy.signed(number.cast_unsigned() & noisy.mask(), 3, 8.0), number);
        }
    }

    proptest! {
        #[test]
        fn packed_values_come_back_and_add_modulo_two_to_the_width(
            values in prop::collection::vec(any::<u64>(), 1..200), width in 1u32..=WIDEST_BITS
        ) {
            let block = block(values.len(), width);
            let packed = block.pack(&values).unwrap();
            prop_assert_eq!(packed.len(), block.bytes());
            let mut sums = vec![0; values.len()];
            block.add(&mut sums, &packed).unwrap();
            let kept: Vec<u64> = values.iter().map(|v| v & block.mask()).collect();
            prop_assert_eq!(&sums, &kept);
            block.add(&mut sums, &packed).unwrap();
            let twice: Vec<u64> = kept.iter().map(|v| v.wrapping_mul(2)).collect();
            prop_assert_eq!(block.pack(&sums).unwrap(), block.pack(&twice).unwrap());
        }

        #[test]
        fn without_noise_no_sum_wraps(n in 3u32..=1_000, bits in 1u32..=32) {
            let most = (1u64 << bits) - 1;
            let width = width(n, most, 0.0).unwrap();
            prop_assert!(u128::from(n) * u128::from(most) < 1u128 << width);
            prop_assert!(u128::from(n) * u128::from(most) >= 1u128 << (width - 1), "one bit less would do");
        }

        #[test]
        fn a_scale_of_32_bits_gives_the_levels_of_plain_mode(value in -10.0f32..10.0, rows in 1u64..200) {
            use hospes_protocol::plan::{Quantise, model::TensorShape};
            let plain = crate::quantise::Quantiser::new(&Quantise { clip: 4.0, bits: 32, n_max: 100 }).unwrap();
            let shape = [TensorShape { name: "a".into(), shape: vec![1] }];
            let bytes = plain.encode(rows, &shape, &[&[value]], &mut || 0).unwrap().into_bytes();
            let alpha = rows.min(100) as f64 / 100.0;
            let level = Scale::new(4.0, 32).unwrap().level(alpha, f64::from(value));
            prop_assert_eq!(bytes[8..].to_vec(), u32::try_from(level).unwrap().to_le_bytes());
        }
    }
}
