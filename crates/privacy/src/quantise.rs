//! From an update to the integers that travel, and back.
//!
//! A site with n rows sends, for each entry x of its update, q(α·clip(x)) with α = min(n, n_max)/n_max and the uniform
//! quantiser q(v) of e = (v + c)/2c · (2^b − 1) over [−c, c]; and in front of all entries min(n, n_max) itself
//! (specs/secure-aggregation.md, "Numbers"). Of 32 bits q is round(e), ties up. Of 8 or 16 it is ⌊e + u⌋ with u drawn from
//! [0, 1): e in the mean, so that what is lost of one entry is noise and not the small entries (Gupta et al. 2015). That
//! noise protects nobody: what it is drawn from may be known. All arithmetic is IEEE double precision in a fixed order, so
//! the same update, with the same draws, gives the same bytes on every machine.
//!
//! With s = 2c/(2^b − 1) for the step, one entry is off by at most s/2, drawn by less than s, and the sum over m sites by
//! m times as much; the mean divides by Σα.
//!
//! Payload: row weight as u64, then the entries as u32 of whatever bits, tensors in the order of the round's header, all
//! little-endian, without padding. Of 32 bits it travels so, masked or not; of fewer it is packed to w bits where it is masked
//! ([`crate::masked`]), and else coded ([`crate::coding`]).

use std::fmt;

use hospes_protocol::limits;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::plan::{Quantise, ROW_WEIGHT_BYTES};

use crate::PrivacyError;

/// Bytes of one entry, before it is packed or coded.
pub const ENTRY_BYTES: u64 = 4;

/// The quantiser of a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantiser {
    clip: f64,
    bits: u8,
    n_max: u32,
}

/// An update in the form that travels. Its `Debug` shows the length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    bytes: Vec<u8>,
    clipped: u64,
}

impl Payload {
    /// The bytes that travel.
    ///
    /// # Disclosure
    /// A function of the site's rows: derived data, which leave only under a permit and through the outbox.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Entries that were cut to ±clip.
    ///
    /// # Disclosure
    /// A count about the update, for the site's own people; it does not leave.
    pub fn clipped(&self) -> u64 {
        self.clipped
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Quantiser {
    /// The quantiser that a plan or a round's header asks for.
    ///
    /// # Errors
    /// [`PrivacyError::Parameter`] if the clip is not positive or above [`limits::UPDATE_CLIP`], the bits are not 8, 16
    /// or 32, or `n_max` is 0.
    ///
    /// # Disclosure
    /// Only what the plan says.
    pub fn new(parameters: &Quantise) -> Result<Self, PrivacyError> {
        let wrong = |place, reason| Err(PrivacyError::Parameter { place, reason });
        let Quantise { clip, bits, n_max } = *parameters;
        if !(clip > 0.0 && clip <= limits::UPDATE_CLIP) {
            return wrong("clip", "must be above 0 and within the limit for updates");
        }
        if !matches!(bits, 8 | 16 | 32) {
            return wrong("bits", "must be 8, 16 or 32");
        }
        if n_max == 0 {
            return wrong("n_max", "must be at least 1");
        }
        Ok(Self { clip, bits, n_max })
    }

    /// Largest absolute value of an entry.
    ///
    /// # Disclosure
    /// Only what the plan says.
    pub fn clip(&self) -> f64 {
        self.clip
    }

    /// Steps between −clip and clip: 2^bits − 1.
    ///
    /// # Disclosure
    /// Only what the plan says.
    pub fn steps(&self) -> u32 {
        u32::MAX >> (u32::BITS - u32::from(self.bits))
    }

    /// Whether an entry is rounded by chance.
    pub(crate) fn is_drawn(&self) -> bool {
        self.bits < 32
    }

    /// Rows from which a site's weight no longer grows.
    ///
    /// # Disclosure
    /// Only what the plan says.
    pub fn n_max(&self) -> u32 {
        self.n_max
    }

    /// Bytes of the payload of an update with so many entries, before it is packed or coded.
    ///
    /// # Disclosure
    /// Only what the plan says: the length does not depend on rows.
    pub fn payload_bytes(parameters: u64) -> u64 {
        ROW_WEIGHT_BYTES.saturating_add(parameters.saturating_mul(ENTRY_BYTES))
    }

    /// Encodes an update.
    ///
    /// # Shapes
    /// One slice for each tensor of the round's header, in its order, row-major.
    ///
    /// # Units
    /// `draw` gives u in units of 2^-32, once for each entry; it is not asked where entries have 32 bits.
    ///
    /// # Errors
    /// [`PrivacyError::NotFinite`] names tensor and entry; [`PrivacyError::Shape`] if tensors are missing or have other
    /// lengths; [`PrivacyError::Weight`] if there are no rows.
    ///
    /// # Disclosure
    /// The payload reveals the weighted update up to a step, and min(rows, n_max), to whoever reads it.
    pub fn encode(
        &self,
        rows: u64,
        tensors: &[TensorShape],
        values: &[&[f32]],
        draw: &mut dyn FnMut() -> u32,
    ) -> Result<Payload, PrivacyError> {
        if rows == 0 {
            return Err(PrivacyError::Weight { n_max: self.n_max });
        }
        if tensors.len() != values.len() {
            let words = format!("{} tensors instead of {}", values.len(), tensors.len());
            return Err(PrivacyError::Shape(words));
        }
        let weight = rows.min(u64::from(self.n_max));
        let alpha = weight as f64 / f64::from(self.n_max);
        let entries: usize = values.iter().map(|v| v.len()).sum();
        let mut bytes = Vec::with_capacity(size_of::<u64>() + entries * size_of::<u32>());
        bytes.extend_from_slice(&weight.to_le_bytes());
        let mut clipped = 0;
        for (tensor, values) in tensors.iter().zip(values) {
            if tensor.len() != values.len() as u64 {
                let words = format!("'{}' has {} entries instead of {}", tensor.name, values.len(), tensor.len());
                return Err(PrivacyError::Shape(words));
            }
            if let Some(index) = values.iter().position(|v| !v.is_finite()) {
                return Err(PrivacyError::NotFinite { tensor: tensor.name.clone(), index });
            }
            for value in *values {
                let value = f64::from(*value);
                clipped += u64::from(value.abs() > self.clip);
                // PRIVACY: what leaves of one entry.
                let exact = self.exact(alpha * value.clamp(-self.clip, self.clip));
                let level = if self.is_drawn() { drawn(exact, draw()) } else { nearest(exact) };
                bytes.extend_from_slice(&level.to_le_bytes());
            }
        }
        Ok(Payload { bytes, clipped })
    }

    /// Where a value between −clip and clip lies among the levels.
    fn exact(&self, value: f64) -> f64 {
        (value + self.clip) / (2.0 * self.clip) * f64::from(self.steps())
    }

    /// Checks a payload's length and reads its row weight from the first eight bytes.
    ///
    /// # Errors
    /// [`PrivacyError::Length`], [`PrivacyError::Weight`].
    ///
    /// # Disclosure
    /// The row weight of one site, to the coordinator, which in plain mode reads the whole update anyway.
    pub fn row_weight(&self, head: &[u8], payload_bytes: u64, parameters: u64) -> Result<u64, PrivacyError> {
        let expected = Self::payload_bytes(parameters);
        let Some(head) = head.first_chunk::<{ size_of::<u64>() }>() else {
            return Err(PrivacyError::Length { expected, found: head.len() as u64 });
        };
        if payload_bytes != expected {
            return Err(PrivacyError::Length { expected, found: payload_bytes });
        }
        let weight = u64::from_le_bytes(*head);
        if (1..=u64::from(self.n_max)).contains(&weight) {
            Ok(weight)
        } else {
            Err(PrivacyError::Weight { n_max: self.n_max })
        }
    }
}

/// The level next to it.
fn nearest(exact: f64) -> u32 {
    // A cast from float to integer saturates, so a last rounding above the range cannot wrap.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let level = (exact + 0.5).floor() as u32;
    level
}

/// The level below it or the one above, so that the mean over all draws is it.
fn drawn(exact: f64, draw: u32) -> u32 {
    // A level below 2^16 and the 32 digits of a draw fit into a double.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let level = (exact + f64::from(draw) / (f64::from(u32::MAX) + 1.0)).floor() as u32;
    level
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quantiser(clip: f64, n_max: u32) -> Quantiser {
        Quantiser::new(&Quantise { clip, bits: 32, n_max }).unwrap()
    }

    fn shape(name: &str, len: usize) -> TensorShape {
        TensorShape { name: name.into(), shape: vec![len as u64] }
    }

    fn levels(payload: &[u8]) -> Vec<u32> {
        payload[8..].as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
    }

    #[test]
    fn golden_payload_stays_the_same() {
        let shapes = [shape("0.weight", 3), shape("0.bias", 2)];
        let values: [&[f32]; 2] = [&[0.0, 1.0, -4.0], &[100.0, -0.25]];
        let payload = quantiser(4.0, 100).encode(50, &shapes, &values, &mut || 0).unwrap();
        assert_eq!(payload.clipped(), 1);
        assert_eq!(format!("{payload:?}"), "Payload { bytes: 28, .. }");
        let bytes = payload.into_bytes();
        assert_eq!(bytes[..8], [50, 0, 0, 0, 0, 0, 0, 0]);
        // α = 1/2: 0, 1/2, −2, 2 (clipped), −1/8 of [−4, 4].
        assert_eq!(levels(&bytes), [0x8000_0000, 0x8fff_ffff, 0x4000_0000, 0xbfff_ffff, 0x7c00_0000]);
    }

    #[test]
    fn the_ends_of_the_range_are_the_first_and_last_level() {
        for clip in [1e-300, 0.1, 4.0, limits::UPDATE_CLIP] {
            let q = quantiser(clip, 1);
            assert_eq!((nearest(q.exact(-clip)), nearest(q.exact(clip))), (0, u32::MAX));
            for bits in [8, 16] {
                let q = Quantiser::new(&Quantise { clip, bits, n_max: 1 }).unwrap();
                for draw in [0, 1, u32::MAX] {
                    assert_eq!((drawn(q.exact(-clip), draw), drawn(q.exact(clip), draw)), (0, (1 << bits) - 1));
                }
            }
        }
    }

    #[test]
    fn nan_and_infinity_are_refused_with_their_place() {
        let shapes = [shape("0.weight", 1), shape("0.bias", 3)];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = quantiser(4.0, 10).encode(5, &shapes, &[&[0.0], &[0.0, 0.0, bad]], &mut || 0).unwrap_err();
            assert_eq!(error, PrivacyError::NotFinite { tensor: "0.bias".into(), index: 2 });
            assert_eq!(error.to_string(), "entry 2 of tensor '0.bias' is NaN or infinite");
        }
    }

    #[test]
    fn wrong_shapes_rows_and_parameters_are_refused() {
        let q = quantiser(4.0, 10);
        assert!(matches!(q.encode(5, &[shape("a", 2)], &[&[0.0]], &mut || 0), Err(PrivacyError::Shape(_))));
        assert!(matches!(q.encode(5, &[shape("a", 1)], &[], &mut || 0), Err(PrivacyError::Shape(_))));
        assert!(matches!(q.encode(0, &[shape("a", 1)], &[&[0.0]], &mut || 0), Err(PrivacyError::Weight { .. })));
        for bad in [
            Quantise { clip: 0.0, bits: 32, n_max: 1 },
            Quantise { clip: f64::NAN, bits: 32, n_max: 1 },
            Quantise { clip: f64::INFINITY, bits: 32, n_max: 1 },
            Quantise { clip: 1.0, bits: 12, n_max: 1 },
            Quantise { clip: 1.0, bits: 0, n_max: 1 },
            Quantise { clip: 1.0, bits: 32, n_max: 0 },
        ] {
            assert!(matches!(Quantiser::new(&bad), Err(PrivacyError::Parameter { .. })));
        }
    }

    #[test]
    fn a_payload_of_another_length_or_weight_is_refused() {
        let q = quantiser(4.0, 10);
        let bytes = q.encode(50, &[shape("a", 2)], &[&[0.0, 1.0]], &mut || 0).unwrap().into_bytes();
        assert_eq!(q.row_weight(&bytes, 16, 2), Ok(10));
        assert_eq!(q.row_weight(&bytes, 15, 2), Err(PrivacyError::Length { expected: 16, found: 15 }));
        assert_eq!(q.row_weight(&bytes, 16, 3), Err(PrivacyError::Length { expected: 20, found: 16 }));
        assert_eq!(q.row_weight(&bytes[..7], 16, 2), Err(PrivacyError::Length { expected: 16, found: 7 }));
        for weight in [0u64, 11, u64::MAX] {
            assert_eq!(q.row_weight(&weight.to_le_bytes(), 16, 2), Err(PrivacyError::Weight { n_max: 10 }));
        }
        assert!(matches!(q.row_weight(&bytes, u64::MAX, u64::MAX), Ok(10)));
    }

    proptest! {
        #[test]
        fn one_entry_is_off_by_at_most_half_a_step(value in -10.0f32..10.0, clip in 0.01f64..8.0, rows in 1u64..200) {
            let q = quantiser(clip, 100);
            let payload = q.encode(rows, &[shape("a", 1)], &[&[value]], &mut || 0).unwrap();
            let alpha = rows.min(100) as f64 / 100.0;
            let wanted = alpha * f64::from(value).clamp(-clip, clip);
            prop_assert_eq!(payload.clipped(), u64::from(f64::from(value).abs() > clip));
            let level = levels(&payload.into_bytes())[0];
            let back = f64::from(level) * 2.0 * clip / f64::from(u32::MAX) - clip;
            // Beside half a step there is the rounding of doubles, far below it.
            prop_assert!((back - wanted).abs() <= clip / f64::from(u32::MAX) * (1.0 + 1e-5), "{back} {wanted}");
        }

        #[test]
        fn a_larger_value_never_has_a_lower_level(a in -5.0f64..5.0, b in -5.0f64..5.0) {
            let q = quantiser(5.0, 1);
            prop_assert_eq!(nearest(q.exact(a)) > nearest(q.exact(b)) && a < b, false);
        }

        /// Over all draws, evenly spaced, the mean level is the value, so that no sum drifts.
        #[test]
        fn few_bits_are_right_in_the_mean(value in -5.0f32..5.0, wide in any::<bool>(), rows in 1u64..200) {
            const DRAWS: u32 = 1 << 12;
            let q = Quantiser::new(&Quantise { clip: 4.0, bits: if wide { 16 } else { 8 }, n_max: 100 }).unwrap();
            let mut number = 0;
            let mut draw = || {
                number += 1;
                (number - 1) * (u32::MAX / DRAWS + 1)
            };
            let values = vec![value; DRAWS as usize];
            let payload = q.encode(rows, &[shape("a", values.len())], &[&values], &mut draw).unwrap().into_bytes();
            let exact = q.exact(rows.min(100) as f64 / 100.0 * f64::from(value).clamp(-4.0, 4.0));
            let found = levels(&payload);
            prop_assert!(found.iter().all(|level| (f64::from(*level) - exact).abs() < 1.0));
            let mean = found.iter().copied().map(f64::from).sum::<f64>() / f64::from(DRAWS);
            prop_assert!((mean - exact).abs() <= 1.0 / f64::from(DRAWS), "{mean} {exact}");
        }
    }
}
