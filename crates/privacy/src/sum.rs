//! Exact weighted sums: integers add without rounding, so neither the order of the sites nor the cut into blocks nor a
//! hub in between changes a single bit of the result.

use crate::PrivacyError;
use crate::quantise::{ENTRY_BYTES, Quantiser};

/// Sites of one sum. 10,000 · (2^32 − 1) < 2^46, so a sum never comes near the end of u64.
pub const SUM_SITES: u32 = 10_000;

/// Who is in a sum: number of sites and sum of their row weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    sites: u32,
    weight: u64,
}

impl Totals {
    /// Counts a site with this row weight.
    ///
    /// # Errors
    /// [`PrivacyError::TooManySites`].
    ///
    /// # Disclosure
    /// Counts only.
    pub fn add(&mut self, row_weight: u64) -> Result<(), PrivacyError> {
        self.merge(Self { sites: 1, weight: row_weight })
    }

    /// Those of a sum of which only the whole is known, as secure aggregation gives it.
    ///
    /// # Errors
    /// [`PrivacyError::TooManySites`].
    ///
    /// # Disclosure
    /// Counts only.
    pub fn known(sites: u32, row_weights: u64) -> Result<Self, PrivacyError> {
        let mut totals = Self::default();
        totals.merge(Self { sites, weight: row_weights })?;
        Ok(totals)
    }

    /// Counts the sites of another sum, as a hub brings it.
    ///
    /// # Errors
    /// [`PrivacyError::TooManySites`].
    ///
    /// # Disclosure
    /// Counts only.
    pub fn merge(&mut self, other: Self) -> Result<(), PrivacyError> {
        let sites = self.sites.checked_add(other.sites).filter(|sites| *sites <= SUM_SITES);
        let weight = self.weight.checked_add(other.weight);
        let (Some(sites), Some(weight)) = (sites, weight) else { return Err(PrivacyError::TooManySites) };
        *self = Self { sites, weight };
        Ok(())
    }

    /// Sites.
    ///
    /// # Disclosure
    /// A count of sites.
    pub fn sites(&self) -> u32 {
        self.sites
    }

    /// Sum of the row weights.
    ///
    /// # Disclosure
    /// The pooled number of rows, each site's cut at `n_max`.
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

/// Adds a block of one site's entries to the sums of the same entries.
///
/// # Shapes
/// `block` holds `sums.len()` entries of four bytes, little-endian, at any address. A block begins at any entry.
///
/// # Errors
/// [`PrivacyError::Length`]; nothing was added then.
///
/// # Disclosure
/// Sums of entries of several sites; of one site only, if only one block is ever added.
pub fn add_block(sums: &mut [u64], block: &[u8]) -> Result<(), PrivacyError> {
    let expected = sums.len() as u64 * ENTRY_BYTES;
    if block.len() as u64 != expected {
        return Err(PrivacyError::Length { expected, found: block.len() as u64 });
    }
    let (entries, _) = block.as_chunks::<4>();
    for (sum, entry) in sums.iter_mut().zip(entries) {
        // Wrapping is impossible up to `SUM_SITES`, which `Totals` keeps; without the check this loop is vectorised.
        *sum = sum.wrapping_add(u64::from(u32::from_le_bytes(*entry)));
    }
    Ok(())
}

impl Quantiser {
    /// Weighted mean of the sites' clipped updates, Σ α·clip(x) / Σ α, from the sums of a block.
    ///
    /// With b bits and m sites it is off by at most m·c/((2^b − 1)·Σα), of 8 or 16 bits by less than twice that, and half a
    /// unit in the last place of the result.
    ///
    /// # Shapes
    /// `out` as long as `sums`.
    ///
    /// # Errors
    /// [`PrivacyError::Empty`] without a site or weight, [`PrivacyError::Length`] in bytes of sums.
    ///
    /// # Disclosure
    /// The aggregate: a function of all sites' rows, and of one site's alone if only one is in it.
    pub fn mean(&self, sums: &[u64], totals: Totals, out: &mut [f32]) -> Result<(), PrivacyError> {
        if totals.sites == 0 || totals.weight == 0 {
            return Err(PrivacyError::Empty);
        }
        if sums.len() != out.len() {
            let bytes = |n: usize| n as u64 * 8;
            return Err(PrivacyError::Length { expected: bytes(sums.len()), found: bytes(out.len()) });
        }
        let scale = self.mean_scale(totals);
        let centre = u64::from(totals.sites) * u64::from(self.steps());
        for (mean, sum) in out.iter_mut().zip(sums) {
            #[allow(clippy::cast_possible_truncation)]
            let value = (centred(*sum, centre) * scale) as f32;
            *mean = value;
        }
        Ok(())
    }

    /// The clipped update of one site, from a block of its entries.
    ///
    /// One entry is off by at most half a step over α, of 8 or 16 bits by less than a step, and half a unit in the last place
    /// of the result.
    ///
    /// # Shapes
    /// `block` holds `out.len()` entries of four bytes, little-endian.
    ///
    /// # Errors
    /// [`PrivacyError::Weight`] if the row weight is not one that a site can have, [`PrivacyError::Length`] in bytes.
    ///
    /// # Disclosure
    /// The update of one site: what a strategy that needs to see each update gets, and what the review of such a plan
    /// says. No such thing exists under secure aggregation.
    pub fn values(&self, row_weight: u64, block: &[u8], out: &mut [f32]) -> Result<(), PrivacyError> {
        if !(1..=u64::from(self.n_max())).contains(&row_weight) {
            return Err(PrivacyError::Weight { n_max: self.n_max() });
        }
        let expected = out.len() as u64 * ENTRY_BYTES;
        if block.len() as u64 != expected {
            return Err(PrivacyError::Length { expected, found: block.len() as u64 });
        }
        let scale = self.mean_scale(Totals { sites: 1, weight: row_weight });
        for (value, entry) in out.iter_mut().zip(block.as_chunks::<4>().0) {
            let level = u64::from(u32::from_le_bytes(*entry));
            #[allow(clippy::cast_possible_truncation)]
            let exact = (centred(level, u64::from(self.steps())) * scale) as f32;
            *value = exact;
        }
        Ok(())
    }

    /// What one level of a sum is worth in the mean, halved: Σv = c·(2S − m·(2^b − 1))/(2^b − 1), and Σα is the
    /// weight over `n_max`.
    fn mean_scale(&self, totals: Totals) -> f64 {
        let alpha = totals.weight as f64 / f64::from(self.n_max());
        self.clip() / f64::from(self.steps()) / alpha
    }

    /// Largest distance of an entry of the mean from the exact one, before it is rounded to f32.
    ///
    /// # Disclosure
    /// Only what the plan says, and how many sites are in the sum.
    pub fn mean_error(&self, totals: Totals) -> f64 {
        let halves = if self.is_drawn() { 2.0 } else { 1.0 };
        f64::from(totals.sites) * halves * self.mean_scale(totals)
    }
}

/// 2·sum − centre, exact as an integer (below 2^47), and so exact as a double.
fn centred(sum: u64, centre: u64) -> f64 {
    (sum.wrapping_mul(2).wrapping_sub(centre)).cast_signed() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::plan::Quantise;
    use hospes_protocol::plan::model::TensorShape;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn quantiser() -> Quantiser {
        Quantiser::new(&Quantise { clip: 4.0, bits: 32, n_max: 1_000 }).unwrap()
    }

    fn payload(rows: u64, values: &[f32]) -> Vec<u8> {
        let shape = [TensorShape { name: "a".into(), shape: vec![values.len() as u64] }];
        quantiser().encode(rows, &shape, &[values], &mut || 0).unwrap().into_bytes()
    }

    /// Sums in this order, cut into blocks of `block` entries.
    fn reduce(payloads: &[Vec<u8>], entries: usize, block: usize) -> (Vec<u64>, Totals) {
        let mut sums = vec![0; entries];
        let mut totals = Totals::default();
        for payload in payloads {
            let bytes = payload.len() as u64;
            totals.add(quantiser().row_weight(payload, bytes, entries as u64).unwrap()).unwrap();
            for (sums, bytes) in sums.chunks_mut(block).zip(payload[8..].chunks(block * 4)) {
                add_block(sums, bytes).unwrap();
            }
        }
        (sums, totals)
    }

    #[test]
    fn no_sum_wraps_with_as_many_sites_as_are_allowed() {
        let mut sums = vec![0u64; 3];
        let mut totals = Totals::default();
        for _ in 0..SUM_SITES {
            add_block(&mut sums, &[0xff; 12]).unwrap();
            totals.add(u64::from(u32::MAX)).unwrap();
        }
        assert_eq!(sums[0], u64::from(SUM_SITES) * u64::from(u32::MAX));
        assert_eq!(totals.add(1), Err(PrivacyError::TooManySites));
        // All at +clip: the mean is +clip · Σ1/Σα.
        let mut mean = [0f32; 3];
        let q = quantiser();
        q.mean(&sums, Totals { sites: SUM_SITES, weight: u64::from(SUM_SITES) * 1_000 }, &mut mean).unwrap();
        assert_eq!(mean, [4.0; 3]);
    }

    #[test]
    fn a_block_of_another_length_adds_nothing() {
        let mut sums = vec![5u64; 3];
        for len in [0, 11, 13, 16] {
            let result = add_block(&mut sums, &vec![0xff; len]);
            assert_eq!(result, Err(PrivacyError::Length { expected: 12, found: len as u64 }));
        }
        assert_eq!(sums, [5; 3]);
        assert_eq!(quantiser().mean(&sums, Totals::default(), &mut [0.0; 3]), Err(PrivacyError::Empty));
        assert!(quantiser().mean(&sums, Totals { sites: 1, weight: 1 }, &mut [0.0; 2]).is_err());
    }

    #[test]
    fn values_of_one_site_are_its_clipped_update() {
        let q = quantiser();
        let payload = payload(250, &[0.5, -9.0, 0.0]);
        let mut values = [0f32; 3];
        q.values(250, &payload[8..], &mut values).unwrap();
        for (found, wanted) in values.iter().zip([0.5, -4.0, 0.0]) {
            assert!((f64::from(*found) - wanted).abs() < 1e-6, "{found}");
        }
        assert!(matches!(q.values(0, &payload[8..], &mut values), Err(PrivacyError::Weight { .. })));
        assert!(matches!(q.values(1_001, &payload[8..], &mut values), Err(PrivacyError::Weight { .. })));
        assert!(matches!(q.values(1, &payload[8..16], &mut values), Err(PrivacyError::Length { .. })));
    }

    fn sites() -> impl Strategy<Value = Vec<(u64, Vec<f32>)>> {
        (1usize..70).prop_flat_map(|entries| {
            prop::collection::vec((1u64..3_000, prop::collection::vec(-6.0f32..6.0, entries)), 1..12)
        })
    }

    proptest! {
        #[test]
        fn the_sum_depends_neither_on_order_nor_on_blocks_nor_on_hubs(
            sites in sites(), block in 1usize..80, other in 1usize..80, turn in any::<Index>(), cut in any::<Index>()
        ) {
            let entries = sites[0].1.len();
            let mut payloads: Vec<Vec<u8>> = sites.iter().map(|(rows, values)| payload(*rows, values)).collect();
            let (sums, totals) = reduce(&payloads, entries, block);
            let at = cut.index(payloads.len() + 1);
            let (mut hub, mut hub_totals) = reduce(&payloads[..at], entries, other);
            let (rest, rest_totals) = reduce(&payloads[at..], entries, block);
            hub.iter_mut().zip(&rest).for_each(|(sum, more)| *sum += more);
            hub_totals.merge(rest_totals).unwrap();
            prop_assert_eq!((&hub, hub_totals), (&sums, totals));
            payloads.reverse();
            let at = turn.index(payloads.len());
            payloads.rotate_left(at);
            prop_assert_eq!(reduce(&payloads, entries, other), (sums, totals));
        }

        #[test]
        fn the_mean_is_within_the_stated_error(sites in sites()) {
            let entries = sites[0].1.len();
            let payloads: Vec<Vec<u8>> = sites.iter().map(|(rows, values)| payload(*rows, values)).collect();
            let (sums, totals) = reduce(&payloads, entries, 16);
            let mut mean = vec![0f32; entries];
            quantiser().mean(&sums, totals, &mut mean).unwrap();
            let alpha = |rows: u64| rows.min(1_000) as f64 / 1_000.0;
            let weight: f64 = sites.iter().map(|(rows, _)| alpha(*rows)).sum();
            for (i, found) in mean.iter().enumerate() {
                let sum: f64 = sites.iter().map(|(r, v)| alpha(*r) * f64::from(v[i]).clamp(-4.0, 4.0)).sum();
                let bound = quantiser().mean_error(totals) * (1.0 + 1e-5) + f64::from(found.abs()) * 2f64.powi(-24);
                prop_assert!((f64::from(*found) - sum / weight).abs() <= bound);
            }
        }

        #[test]
        fn a_block_may_lie_at_any_address(offset in 0usize..8, entries in prop::collection::vec(any::<u32>(), 0..70)) {
            let mut bytes = vec![0xaa; offset];
            bytes.extend(entries.iter().flat_map(|e| e.to_le_bytes()));
            let mut sums = vec![7u64; entries.len()];
            add_block(&mut sums, &bytes[offset..]).unwrap();
            let wanted: Vec<u64> = entries.iter().map(|e| u64::from(*e) + 7).collect();
            prop_assert_eq!(sums, wanted);
        }
    }
}
