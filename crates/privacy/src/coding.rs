//! An update of few bits in less space, where nothing masks it: entropy coding of its levels, without loss.
//!
//! Updates have many small entries and few large ones. Each level is split into the class of its distance from the middle
//! level (how many binary digits the distance has), its side, and the digits below the first. A class is coded by how
//! often it followed the class before it, so that quiet parts of a model cost about a bit; the two highest digits by how
//! often they came in their class; side and further digits as they are. Odds are counted as the levels pass, and no table
//! travels. The coder is a binary range coder with carry (Martin 1979; the form of LZMA, whose odds count shift by shift
//! too). Arithmetic is in whole numbers: the same levels give the same bytes on every machine.
//!
//! Payload: row weight as u64, then chunks of [`CHUNK_ENTRIES`] entries over all tensors, each with its length as u32, all
//! little-endian. A chunk that would not get shorter is there as it is, in one or two bytes an entry, which its length
//! says. So a payload is never longer than [`Coding::lengths`] says, whatever is in it, and how many levels come out of it
//! is known before a byte is read.

use std::ops::RangeInclusive;

use hospes_protocol::plan::{CHUNK_ENTRIES, CHUNK_HEAD_BYTES, ROW_WEIGHT_BYTES};

use crate::PrivacyError;

/// Odds are in units of 2^-12.
const ODDS_BITS: u32 = 12;
/// One over two to this is the weight of the newest bit. Among 4 and 5, this makes small models shorter, and large ones
/// hardly longer.
const LEARNED_BITS: u32 = 4;
/// Digits below the first that have odds of their own.
const FINE_DIGITS: usize = 2;
/// Below this a range is too coarse for odds, and a byte is settled.
const SETTLED: u32 = 1 << 24;
/// Bytes that the end of a chunk takes.
const END_BYTES: usize = 4;

/// How the levels of an update lie in its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coding {
    bits: u8,
    entries: u64,
}

impl Coding {
    /// The coding of updates with so many entries; `None` where entries travel as they are: those of 32 bits, of which hardly
    /// anything would be saved.
    ///
    /// # Disclosure
    /// Only what the plan says.
    pub fn new(bits: u8, entries: u64) -> Option<Self> {
        matches!(bits, 8 | 16).then_some(Self { bits, entries })
    }

    /// Bytes that a payload can have.
    ///
    /// # Disclosure
    /// Only what the plan says. Within these bounds, a length does depend on the update, and whoever sees the transfer sees
    /// it.
    pub fn lengths(&self) -> RangeInclusive<u64> {
        let end = END_BYTES as u64;
        let width = u64::from(self.bits / 8);
        let heads = self.entries.div_ceil(CHUNK_ENTRIES).saturating_mul(CHUNK_HEAD_BYTES);
        let fixed = ROW_WEIGHT_BYTES.saturating_add(heads);
        // The shortest chunks are an end alone; of few entries they are those entries.
        let least = (self.entries / CHUNK_ENTRIES) * end + ((self.entries % CHUNK_ENTRIES) * width).min(end);
        fixed.saturating_add(least)..=fixed.saturating_add(self.entries.saturating_mul(width))
    }

    /// Entries of each chunk, in order.
    ///
    /// # Disclosure
    /// Only what the plan says.
    pub fn chunks(&self) -> impl Iterator<Item = usize> + use<> {
        let coding = *self;
        (0..self.entries.div_ceil(CHUNK_ENTRIES)).map(move |number| coding.chunk_entries(number))
    }

    /// Entries of the chunk of this number, from 0; none behind the last one.
    ///
    /// # Disclosure
    /// Only what the plan says.
    pub fn chunk_entries(&self, number: u64) -> usize {
        let left = self.entries.saturating_sub(number.saturating_mul(CHUNK_ENTRIES));
        // At most `CHUNK_ENTRIES`.
        #[allow(clippy::cast_possible_truncation)]
        let entries = left.min(CHUNK_ENTRIES) as usize;
        entries
    }

    /// Codes a payload in which every entry has four bytes, as [`Quantiser::encode`](crate::quantise::Quantiser::encode)
    /// makes it.
    ///
    /// # Errors
    /// [`PrivacyError::Length`] if it has more or fewer entries, [`PrivacyError::Coded`] if a level has more bits.
    ///
    /// # Disclosure
    /// The same update in another form; its length tells a little of it to whoever does not see the rest.
    pub fn encode(&self, payload: &[u8]) -> Result<Vec<u8>, PrivacyError> {
        let expected = ROW_WEIGHT_BYTES.saturating_add(self.entries.saturating_mul(4));
        let wrong = PrivacyError::Length { expected, found: payload.len() as u64 };
        if payload.len() as u64 != expected {
            return Err(wrong);
        }
        let Some((weight, levels)) = payload.split_first_chunk::<8>() else { return Err(wrong) };
        let mut coded = weight.to_vec();
        let mut levels = levels.as_chunks::<4>().0;
        for entries in self.chunks() {
            let (mine, others) = levels.split_at(entries.min(levels.len()));
            levels = others;
            let chunk = self.code(mine)?;
            // A chunk has at most 32 KiB.
            #[allow(clippy::cast_possible_truncation)]
            coded.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
            coded.extend_from_slice(&chunk);
        }
        Ok(coded)
    }

    /// The payload that was coded.
    ///
    /// # Errors
    /// [`PrivacyError::Coded`] if a chunk of it cannot be read, or something follows the last one.
    ///
    /// # Disclosure
    /// The same update in another form.
    pub fn decode(&self, coded: &[u8]) -> Result<Vec<u8>, PrivacyError> {
        const SHORT: PrivacyError = PrivacyError::Coded("it ends too early");
        let (weight, mut rest) = coded.split_first_chunk::<8>().ok_or(SHORT)?;
        let mut payload = weight.to_vec();
        for entries in self.chunks() {
            let (head, others) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
            let length = self.chunk_bytes(entries, *head)?;
            let (chunk, others) = others.split_at_checked(length).ok_or(SHORT)?;
            self.read_chunk(entries, chunk, &mut payload)?;
            rest = others;
        }
        if rest.is_empty() { Ok(payload) } else { Err(PrivacyError::Coded("something follows its last chunk")) }
    }

    /// Bytes of a chunk of so many entries, which its head says.
    ///
    /// # Errors
    /// [`PrivacyError::Coded`] if no such chunk has this length.
    ///
    /// # Disclosure
    /// A length, which whoever sees the transfer sees.
    pub fn chunk_bytes(&self, entries: usize, head: [u8; 4]) -> Result<usize, PrivacyError> {
        let length = u32::from_le_bytes(head) as usize;
        let raw = self.raw_bytes(entries);
        let can_be = (END_BYTES.min(raw)..=raw).contains(&length);
        can_be.then_some(length).ok_or(PrivacyError::Coded("a chunk has a length that none can have"))
    }

    /// Appends the levels of a chunk to `levels`, each in four bytes, little-endian. A chunk that is there as it is is taken also
    /// where [`encode`](Self::encode) would have coded it: the levels are the same, and to find out would be to code it.
    ///
    /// # Shapes
    /// `chunk` has as many bytes as [`chunk_bytes`](Self::chunk_bytes) says, and `entries` entries.
    ///
    /// # Errors
    /// [`PrivacyError::Coded`] if it is coded and not as [`encode`](Self::encode) codes these levels. At most `entries` levels
    /// were appended then.
    ///
    /// # Disclosure
    /// The same levels in another form.
    pub fn read_chunk(&self, entries: usize, chunk: &[u8], levels: &mut Vec<u8>) -> Result<(), PrivacyError> {
        levels.reserve(entries.saturating_mul(4));
        if chunk.len() == self.raw_bytes(entries) {
            match self.bits {
                8 => chunk.iter().for_each(|level| levels.extend_from_slice(&[*level, 0, 0, 0])),
                _ => chunk.as_chunks::<2>().0.iter().for_each(|[low, high]| levels.extend([*low, *high, 0, 0])),
            }
            return Ok(());
        }
        let (mut model, mut decoder) = (Model::new(self.bits), Decoder::new(chunk)?);
        for _ in 0..entries {
            levels.extend_from_slice(&model.level(&mut decoder, 0)?.to_le_bytes());
        }
        decoder.finish()
    }

    /// A chunk of levels.
    fn code(&self, levels: &[[u8; 4]]) -> Result<Vec<u8>, PrivacyError> {
        let (mut model, mut encoder) = (Model::new(self.bits), Encoder::new());
        for level in levels {
            let level = u32::from_le_bytes(*level);
            if level >> self.bits != 0 {
                return Err(PrivacyError::Coded("a level has more bits than the plan says"));
            }
            model.level(&mut encoder, level)?;
        }
        let coded = encoder.finish();
        if coded.len() < self.raw_bytes(levels.len()) {
            return Ok(coded);
        }
        let width = self.entry_bytes();
        Ok(levels.iter().flat_map(|level| &level[..width]).copied().collect())
    }

    /// Bytes of an entry as it is.
    ///
    /// # Disclosure
    /// Only what the plan says.
    pub fn entry_bytes(&self) -> usize {
        usize::from(self.bits / 8)
    }

    /// Bytes of so many entries as they are.
    fn raw_bytes(&self, entries: usize) -> usize {
        entries.saturating_mul(self.entry_bytes())
    }
}

/// What codes a binary digit. The decoder takes no notice of the one that it is given, and gives the one that it finds, so
/// that both sides take the same way through a [`Model`].
trait Coder {
    /// A digit that is 0 with these odds, which learn from it.
    fn digit(&mut self, odds: &mut u16, digit: u32) -> Result<u32, PrivacyError>;

    /// A digit that is 0 or 1 alike.
    fn even(&mut self, digit: u32) -> Result<u32, PrivacyError>;
}

/// Moves odds towards the digit that came. They stay between 15 and 4081 of 4096, so that none is ever impossible.
fn learn(odds: &mut u16, digit: u32) {
    if digit == 0 {
        *odds += ((1 << ODDS_BITS) - *odds) >> LEARNED_BITS;
    } else {
        *odds -= *odds >> LEARNED_BITS;
    }
}

/// What is known of the levels so far.
struct Model {
    /// The first level above the middle.
    half: u32,
    /// Digits of the number of a class.
    class_digits: u32,
    /// By the class before, and by the digits of the class so far, with a 1 in front.
    class: [[u16; 16]; 16],
    /// By class, and by the highest digits of the distance so far.
    fine: [[u16; 1 << FINE_DIGITS]; 16],
    last: usize,
}

impl Model {
    fn new(bits: u8) -> Self {
        const EVEN: u16 = 1 << (ODDS_BITS - 1);
        Self {
            half: 1 << (bits - 1),
            class_digits: bits.ilog2(),
            class: [[EVEN; 16]; 16],
            fine: [[EVEN; 1 << FINE_DIGITS]; 16],
            last: 0,
        }
    }

    /// Takes a level through the coder, and gives it back as the coder has it.
    fn level(&mut self, coder: &mut impl Coder, level: u32) -> Result<u32, PrivacyError> {
        // Below and above the middle alike, as 0 lies between two levels.
        let (side, distance) = if level >= self.half { (0, level - self.half) } else { (1, self.half - 1 - level) };
        let class = u32::BITS - distance.leading_zeros();
        let mut node = 1usize;
        for place in (0..self.class_digits).rev() {
            node = 2 * node + coder.digit(&mut self.class[self.last][node], (class >> place) & 1)? as usize;
        }
        let class = node - (1 << self.class_digits);
        self.last = class;
        let side = coder.even(side)?;
        let mut found = u32::from(class > 0);
        for below in 1..class {
            let digit = (distance >> (class - 1 - below)) & 1;
            let digit = if below <= FINE_DIGITS {
                coder.digit(&mut self.fine[class][found as usize], digit)?
            } else {
                coder.even(digit)?
            };
            found = 2 * found + digit;
        }
        Ok(if side == 0 { self.half + found } else { self.half - 1 - found })
    }
}

/// The sender's side: a number between `low` and `low + range` stands for all that came so far.
struct Encoder {
    low: u64,
    range: u32,
    /// The last byte that is not written yet, and how many there are: it and bytes of 255, which a carry would go through.
    held: u8,
    pending: usize,
    bytes: Vec<u8>,
}

impl Encoder {
    fn new() -> Self {
        Self { low: 0, range: u32::MAX, held: 0, pending: 1, bytes: Vec::new() }
    }

    fn settle(&mut self) {
        while self.range < SETTLED {
            self.range <<= 8;
            self.shift();
        }
    }

    /// Takes the highest byte out of `low`.
    fn shift(&mut self) {
        let carry = self.low >> u32::BITS;
        if self.low < 0xff00_0000 || carry > 0 {
            // 0 or 1, as `low` lay below 2^32 and a range was added.
            let carry = u8::from(carry > 0);
            self.bytes.push(self.held.wrapping_add(carry));
            let between = self.pending.saturating_sub(1);
            self.bytes.extend(std::iter::repeat_n(u8::MAX.wrapping_add(carry), between));
            self.pending = 0;
            self.held = self.low.to_le_bytes()[3];
        }
        self.pending += 1;
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    fn finish(mut self) -> Vec<u8> {
        (0..=END_BYTES).for_each(|_| self.shift());
        // The first one is what would take a carry out of the whole number, which there never is.
        self.bytes.split_off(1)
    }
}

impl Coder for Encoder {
    fn digit(&mut self, odds: &mut u16, digit: u32) -> Result<u32, PrivacyError> {
        let bound = (self.range >> ODDS_BITS) * u32::from(*odds);
        if digit == 0 {
            self.range = bound;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
        }
        learn(odds, digit);
        self.settle();
        Ok(digit)
    }

    fn even(&mut self, digit: u32) -> Result<u32, PrivacyError> {
        self.range >>= 1;
        if digit != 0 {
            self.low += u64::from(self.range);
        }
        self.settle();
        Ok(digit)
    }
}

/// The receiver's side: `code` is how far the number lies above the sender's `low`.
struct Decoder<'a> {
    code: u32,
    range: u32,
    rest: &'a [u8],
}

const CUT: PrivacyError = PrivacyError::Coded("a chunk ends too early");
const OTHER: PrivacyError = PrivacyError::Coded("a chunk is none that an encoder makes");

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, PrivacyError> {
        let (first, rest) = bytes.split_first_chunk::<END_BYTES>().ok_or(CUT)?;
        let code = u32::from_be_bytes(*first);
        if code < u32::MAX { Ok(Self { code, range: u32::MAX, rest }) } else { Err(OTHER) }
    }

    fn settle(&mut self) -> Result<(), PrivacyError> {
        while self.range < SETTLED {
            let (byte, rest) = self.rest.split_first().ok_or(CUT)?;
            self.rest = rest;
            self.range <<= 8;
            // `code` is below `range`, so that no digit is lost.
            self.code = (self.code << 8) | u32::from(*byte);
        }
        Ok(())
    }

    /// The number is the sender's `low` to the last byte: what is read is what an encoder writes, so that a chunk has no more
    /// than two forms, coded and as it is.
    fn finish(self) -> Result<(), PrivacyError> {
        if self.code == 0 && self.rest.is_empty() { Ok(()) } else { Err(OTHER) }
    }
}

impl Coder for Decoder<'_> {
    fn digit(&mut self, odds: &mut u16, _: u32) -> Result<u32, PrivacyError> {
        let bound = (self.range >> ODDS_BITS) * u32::from(*odds);
        let digit = u32::from(self.code >= bound);
        if digit == 0 {
            self.range = bound;
        } else {
            self.code -= bound;
            self.range -= bound;
        }
        learn(odds, digit);
        self.settle()?;
        Ok(digit)
    }

    fn even(&mut self, _: u32) -> Result<u32, PrivacyError> {
        self.range >>= 1;
        let digit = u32::from(self.code >= self.range);
        self.code -= self.range * digit;
        // Halving an odd range leaves a number at its end that nothing stands for.
        if self.code >= self.range {
            return Err(OTHER);
        }
        self.settle()?;
        Ok(digit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(levels: &[u32]) -> Vec<u8> {
        let mut bytes = 7u64.to_le_bytes().to_vec();
        bytes.extend(levels.iter().flat_map(|level| level.to_le_bytes()));
        bytes
    }

    fn coding(bits: u8, entries: usize) -> Coding {
        Coding::new(bits, entries as u64).unwrap()
    }

    /// Levels as those of an update, most near the middle: normal with this spread, in levels.
    fn update(bits: u8, entries: usize, spread: f64) -> Vec<u32> {
        let (half, most) = (f64::from(1u32 << (bits - 1)), f64::from((1u32 << bits) - 1));
        let mut state = 1u64;
        let mut unit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / f64::from(1u32 << 24)
        };
        let level = |_| {
            // The sum of twelve is all but normal (Irwin 1927, Hall 1927).
            let normal = (0..12).map(|_| unit()).sum::<f64>() - 6.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let level = (half + spread * normal).clamp(0.0, most) as u32;
            level
        };
        (0..entries).map(level).collect()
    }

    /// Worked out beside this by a program of its own.
    #[test]
    fn golden_chunks_stay_the_same() {
        let whole = |head: &[u8], chunk: &str| {
            let chunk = data_encoding::HEXLOWER.decode(chunk.as_bytes()).unwrap();
            [&7u64.to_le_bytes()[..], head, &chunk[..]].concat()
        };
        let levels: Vec<u32> = (0..40).map(|i| 126 + i * 7 % 5).collect();
        let coded = coding(8, 40).encode(&payload(&levels)).unwrap();
        assert_eq!(coding(8, 40).decode(&coded).unwrap(), payload(&levels));
        assert_eq!(coded, whole(&[21, 0, 0, 0], "3048ca3e5947f49596547a01ba6577e58e98b8aa00"));
        let levels: Vec<u32> = (0..12).flat_map(|i| [32_767, 32_768, 32_768 + i * i, 32_700 - i]).collect();
        let coded = coding(16, 48).encode(&payload(&levels)).unwrap();
        assert_eq!(coding(16, 48).decode(&coded).unwrap(), payload(&levels));
        let chunk = "08023c17407ba64d3bb3f5b4e6821f4725e09202673cfb14e27ae8fa91ec82c0f63c3465e56b2e3bbe6c00";
        assert_eq!(coded, whole(&[43, 0, 0, 0], chunk));
    }

    #[test]
    fn entries_of_32_bits_travel_as_they_are() {
        assert_eq!((Coding::new(32, 5), Coding::new(12, 5)), (None, None));
    }

    #[test]
    fn updates_get_as_short_as_their_spread_lets_them() {
        let entries = 3 * usize::try_from(CHUNK_ENTRIES).unwrap() + 77;
        // A normal spread of σ levels has log2(σ·√(2πe)) bits of entropy (Shannon 1948).
        for (bits, spread) in [(8, 1.0), (8, 4.0), (8, 16.0), (16, 16.0), (16, 700.0)] {
            let coding = coding(bits, entries);
            let plain = payload(&update(bits, entries, spread));
            let coded = coding.encode(&plain).unwrap();
            assert!(coding.lengths().contains(&(coded.len() as u64)));
            assert_eq!(coding.decode(&coded).unwrap(), plain);
            let found = coded.len() as f64 * 8.0 / entries as f64;
            let least = (spread * 4.132_7f64).log2();
            assert!((least - 0.05..least + 0.3).contains(&found), "{bits} bits, σ {spread}: {found} of {least}");
        }
        // Eight bits of which five are used: a fifth of 32.
        let coded = coding(8, entries).encode(&payload(&update(8, entries, 16.0))).unwrap();
        assert!(coded.len() * 5 <= entries * 4, "{}", coded.len());
    }

    #[test]
    fn noise_is_sent_as_it_is_and_no_payload_is_longer_than_was_said() {
        for bits in [8u8, 16] {
            let entries = usize::try_from(CHUNK_ENTRIES).unwrap() + 1;
            let most = (1u64 << bits) - 1;
            let levels: Vec<u32> =
                (0..entries as u64).map(|i| u32::try_from(((i * 0x9e37_79b9) >> 7) & most).unwrap()).collect();
            let coding = coding(bits, entries);
            let coded = coding.encode(&payload(&levels)).unwrap();
            let bound = 8 + 2 * 4 + entries * usize::from(bits / 8);
            assert_eq!(*coding.lengths().end(), bound as u64);
            assert!(coded.len() <= bound);
            assert_eq!(coding.decode(&coded).unwrap(), payload(&levels));
        }
    }

    #[test]
    fn wrong_lengths_and_levels_are_refused() {
        let coding = coding(8, 3);
        assert!(matches!(coding.encode(&payload(&[1, 2])), Err(PrivacyError::Length { expected: 20, found: 16 })));
        assert!(coding.encode(&[]).is_err());
        assert!(matches!(coding.encode(&payload(&[1, 2, 256])), Err(PrivacyError::Coded(_))));
        for length in [0u32, 2, 4, u32::MAX] {
            assert!(coding.chunk_bytes(3, length.to_le_bytes()).is_err(), "{length}");
        }
        assert_eq!(coding.chunk_bytes(3, 3u32.to_le_bytes()), Ok(3));
        let good = coding.encode(&payload(&[1, 2, 3])).unwrap();
        assert!(coding.decode(&good[..good.len() - 1]).is_err());
        assert!(coding.decode(&[&good[..], &[0]].concat()).is_err());
        assert!(coding.decode(&good[..7]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_coded_comes_back(
            wide in any::<bool>(), levels in prop::collection::vec((any::<u16>(), 0u32..16), 0..300)
        ) {
            let bits = if wide { 16 } else { 8 };
            let half = 1u32 << (bits - 1);
            // Of all sizes of distance alike.
            let levels: Vec<u32> = levels
                .iter()
                .map(|(level, shift)| {
                    let distance = (u32::from(*level) & (half - 1)) >> shift;
                    if level % 3 == 0 { half + distance } else { half - 1 - distance }
                })
                .collect();
            let coding = coding(bits, levels.len());
            let coded = coding.encode(&payload(&levels)).unwrap();
            prop_assert!(coding.lengths().contains(&(coded.len() as u64)));
            prop_assert_eq!(coding.decode(&coded).unwrap(), payload(&levels));
        }

        #[test]
        fn a_coded_chunk_that_is_read_is_what_an_encoder_writes(
            wide in any::<bool>(), entries in 5usize..60, at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let bits = if wide { 16 } else { 8 };
            let coding = coding(bits, entries);
            let coded = coding.encode(&payload(&update(bits, entries, 2.0))).unwrap();
            let mut altered = coded.clone();
            let at = 12 + at.index(coded.len() - 12);
            altered[at] = byte;
            let is_coded = coded.len() < 12 + coding.raw_bytes(entries);
            if let Ok(read) = coding.decode(&altered) && is_coded {
                prop_assert_eq!(coding.encode(&read).unwrap(), altered);
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_write_more_than_was_said(
            bytes in prop::collection::vec(any::<u8>(), 0..200), entries in 0usize..300, wide in any::<bool>()
        ) {
            let mut levels = Vec::new();
            let _ = coding(if wide { 16 } else { 8 }, entries).read_chunk(entries, &bytes, &mut levels);
            prop_assert!(levels.len() <= entries * 4);
        }
    }
}
