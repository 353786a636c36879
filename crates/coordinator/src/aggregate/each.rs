//! Strategies that look at each update by itself, and so exclude secure aggregation.
//!
//! All of them read the updates in blocks: what is in memory is bounded by a constant, not by the model or the sites. Of
//! updates that are coded, besides, where chunks end, and up to one chunk of each: at most 32 KiB a site.

use hospes_protocol::plan::Strategy;

use super::updates::{BLOCK_ENTRIES, Updates};
use crate::Error;

/// Bytes of values of all sites together that are in memory at once.
const MATRIX_BYTES: usize = 4 << 20;
/// Sums of squares are kept in so many lanes, entry by entry in turn, so that they do not depend on the blocks.
const LANES: usize = 8;
/// One in the fixed point of scales: 2^32.
const ONE: f64 = 4_294_967_296.0;

/// What is made of the updates.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rule {
    /// The one update of the site whose turn it was.
    Turn,
    /// The weighted mean, with each update scaled down to a norm.
    NormBound { norm_l2: f64 },
    /// The median of each entry (Yin et al. 2018, definition 1).
    Median,
    /// The mean of each entry without ⌊trim·n⌋ values at each end (Yin et al. 2018, definition 2).
    TrimmedMean { trim: f64 },
    /// The mean of the `keep` updates with the smallest sums of squared distances to their n − f − 2 nearest neighbours
    /// (Blanchard et al. 2017, Krum and Multi-Krum).
    MultiKrum { byzantine: u32, keep: u32 },
}

impl Rule {
    /// The rule of a strategy; `None` for one that needs sums only.
    pub(super) fn of(strategy: &Strategy) -> Option<Self> {
        match strategy {
            Strategy::Cyclic {} => Some(Self::Turn),
            Strategy::NormBound { norm_l2 } => Some(Self::NormBound { norm_l2: *norm_l2 }),
            Strategy::Median {} => Some(Self::Median),
            Strategy::TrimmedMean { trim } => Some(Self::TrimmedMean { trim: *trim }),
            Strategy::MultiKrum { byzantine, keep } => Some(Self::MultiKrum { byzantine: *byzantine, keep: *keep }),
            Strategy::FedAvg {}
            | Strategy::FedProx { .. }
            | Strategy::Scaffold { .. }
            | Strategy::FedAdam(_)
            | Strategy::FedYogi(_)
            | Strategy::FedAdagrad(_)
            | Strategy::FedBn {}
            | Strategy::Personal { .. } => None,
        }
    }

    /// Reads what the rule needs to know of whole updates before the first block.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the rule cannot work with so many updates, or one of them cannot be read.
    pub(super) fn prepare(self, mut updates: Updates) -> Result<Combine, Error> {
        let sites = updates.sites();
        let how = match self {
            Self::Turn if sites == 1 => How::MeanOf(vec![0]),
            Self::Turn => return Err(Error::corrupt("round", format!("{sites} updates in a turn of one site"))),
            Self::NormBound { norm_l2 } => How::Scaled(scales(&mut updates, norm_l2)?),
            Self::Median => How::Middle { cut: (sites - 1) / 2 },
            Self::TrimmedMean { trim } => How::Middle { cut: cut(trim, sites) },
            Self::MultiKrum { byzantine, keep } => {
                let needed = 2 * byzantine as usize + 3;
                if sites < needed || keep as usize > sites {
                    let reason = format!("multi_krum needs {needed} updates, and {keep} to keep; there are {sites}");
                    return Err(Error::corrupt("round", reason));
                }
                How::MeanOf(closest(&distances(&mut updates)?, sites, byzantine as usize, keep as usize))
            }
        };
        Ok(Combine::new(how, updates))
    }
}

/// Values that are left out at each end of a trimmed mean: ⌊trim·n⌋ of the fraction that the plan writes, such as .29, whose
/// double, and with it the product, may lie just below.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn cut(trim: f64, sites: usize) -> usize {
    let product = trim * count(sites);
    let whole = product.round();
    // Two roundings, each by at most half of an epsilon.
    let is_whole = (product - whole).abs() <= f64::EPSILON * whole;
    ((if is_whole { whole } else { product.floor() }) as usize).min((sites - 1) / 2)
}

#[derive(Debug, PartialEq)]
enum How {
    /// Means of these updates, unweighted.
    MeanOf(Vec<usize>),
    /// The weighted mean, each update times its scale in units of 1/[`ONE`].
    Scaled(Vec<i64>),
    /// The mean of the values that are left after `cut` at each end.
    Middle { cut: usize },
}

/// A rule at work.
pub(super) struct Combine {
    how: How,
    updates: Updates,
    bytes: Vec<u8>,
    values: Vec<f32>,
    column: Vec<f32>,
    sums: Vec<f64>,
    exact: Vec<i128>,
    out: Vec<f32>,
}

impl Combine {
    fn new(how: How, updates: Updates) -> Self {
        let entries = match how {
            How::Middle { .. } => matrix_entries(updates.sites()),
            _ => BLOCK_ENTRIES,
        };
        let entries = entries.min(usize::try_from(updates.entries()).unwrap_or(BLOCK_ENTRIES));
        let sites = updates.sites();
        let (values, column, sums, exact) = match how {
            How::MeanOf(_) => (entries, 0, entries, 0),
            How::Scaled(_) => (0, 0, 0, entries),
            How::Middle { .. } => (entries * sites, sites, 0, 0),
        };
        Self {
            how,
            updates,
            bytes: vec![0; entries * 4],
            values: vec![0.0; values],
            column: vec![0.0; column],
            sums: vec![0.0; sums],
            exact: vec![0; exact],
            out: vec![0.0; entries],
        }
    }

    /// Most entries that one block can have.
    pub(super) fn block_entries(&self) -> usize {
        self.out.len()
    }

    /// The change of the model's entries from `first` on.
    ///
    /// # Shapes
    /// `entries` is at most [`block_entries`](Self::block_entries), and the result is so long.
    pub(super) fn change(&mut self, first: u64, entries: usize) -> Result<&[f32], Error> {
        match self.how {
            How::MeanOf(_) => self.mean_of(first, entries)?,
            How::Scaled(_) => self.scaled(first, entries)?,
            How::Middle { cut } => self.middle(cut, first, entries)?,
        }
        Ok(&self.out[..entries])
    }

    fn mean_of(&mut self, first: u64, entries: usize) -> Result<(), Error> {
        let How::MeanOf(kept) = &self.how else { return Ok(()) };
        let (sums, values) = (&mut self.sums[..entries], &mut self.values[..entries]);
        sums.fill(0.0);
        for of in kept {
            self.updates.values(*of, first, &mut self.bytes[..entries * 4], values)?;
            sums.iter_mut().zip(&*values).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let count = count(kept.len());
        self.out.iter_mut().zip(sums).for_each(|(out, sum)| *out = single(*sum / count));
        Ok(())
    }

    /// Σ α·s·clip(Δ)/Σ α, with the sum in whole numbers: exact, and so the same in any order.
    fn scaled(&mut self, first: u64, entries: usize) -> Result<(), Error> {
        let How::Scaled(scales) = &self.how else { return Ok(()) };
        let (sums, bytes) = (&mut self.exact[..entries], &mut self.bytes[..entries * 4]);
        let steps = i64::from(self.updates.quantiser().steps());
        sums.fill(0);
        for (of, scale) in scales.iter().enumerate() {
            self.updates.levels(of, first, bytes)?;
            let levels = bytes.as_chunks::<4>().0.iter().map(|b| centred(*b, steps));
            sums.iter_mut().zip(levels).for_each(|(sum, level)| *sum += i128::from(*scale) * i128::from(level));
        }
        let unit = self.updates.quantiser().clip() / steps as f64 / ONE;
        let alpha = self.updates.total_weight() as f64 / f64::from(self.updates.quantiser().n_max());
        self.out.iter_mut().zip(sums).for_each(|(out, sum)| *out = single(*sum as f64 * unit / alpha));
        Ok(())
    }

    fn middle(&mut self, cut: usize, first: u64, entries: usize) -> Result<(), Error> {
        let sites = self.updates.sites();
        read(&mut self.updates, first, entries, &mut self.bytes, &mut self.values)?;
        for (entry, out) in self.out[..entries].iter_mut().enumerate() {
            for (site, value) in self.column.iter_mut().enumerate() {
                *value = self.values[site * entries + entry];
            }
            *out = middle(&mut self.column, cut, sites - cut);
        }
        Ok(())
    }
}

/// The mean of the values from rank `low` up to rank `high`.
fn middle(column: &mut [f32], low: usize, high: usize) -> f32 {
    column.sort_unstable_by(f32::total_cmp);
    let sum: f64 = column[low..high].iter().copied().map(f64::from).sum();
    single(sum / count(high - low))
}

/// Entries of all sites that fit into [`MATRIX_BYTES`], a multiple of [`LANES`].
fn matrix_entries(sites: usize) -> usize {
    let most = MATRIX_BYTES / 4 / sites.max(1);
    (most.min(BLOCK_ENTRIES) / LANES).max(1) * LANES
}

/// Reads a block of all updates, one after the other.
fn read(updates: &mut Updates, first: u64, entries: usize, bytes: &mut [u8], values: &mut [f32]) -> Result<(), Error> {
    let rows = values.chunks_exact_mut(entries).take(updates.sites());
    rows.enumerate().try_for_each(|(of, row)| updates.values(of, first, &mut bytes[..entries * 4], row))
}

/// An entry as a whole number: twice its level, from the centre.
fn centred(entry: [u8; 4], steps: i64) -> i64 {
    2 * i64::from(u32::from_le_bytes(entry)) - steps
}

/// By what each update is multiplied so that its norm is at most `bound`, in units of 1/[`ONE`].
fn scales(updates: &mut Updates, bound: f64) -> Result<Vec<i64>, Error> {
    let entries = updates.entries();
    let block = usize::try_from(entries).unwrap_or(BLOCK_ENTRIES).min(BLOCK_ENTRIES);
    let mut bytes = vec![0u8; block * 4];
    let mut scales = Vec::with_capacity(updates.sites());
    let steps = i64::from(updates.quantiser().steps());
    for of in 0..updates.sites() {
        // Squares below 2^64, no more than 2^32 of them: the sum is exact.
        let (mut sum, mut done) = (0u128, 0u64);
        while done < entries {
            let length = length(entries - done, block);
            updates.levels(of, done, &mut bytes[..length * 4])?;
            let levels = bytes[..length * 4].as_chunks::<4>().0.iter().map(|b| centred(*b, steps).unsigned_abs());
            sum += levels.map(u128::from).map(|level| level * level).sum::<u128>();
            done += length as u64;
        }
        let quantiser = updates.quantiser();
        let alpha = updates.weight(of) as f64 / f64::from(quantiser.n_max());
        let norm = (sum as f64).sqrt() * quantiser.clip() / steps as f64 / alpha;
        scales.push(fixed((bound / norm).min(1.0)));
    }
    Ok(scales)
}

/// A scale of 0 to 1 in units of 1/[`ONE`], rounded down so that the bound holds.
#[allow(clippy::cast_possible_truncation)]
fn fixed(scale: f64) -> i64 {
    (scale * ONE).floor() as i64
}

/// Squared distances between updates, a matrix by rows.
fn distances(updates: &mut Updates) -> Result<Vec<f64>, Error> {
    let (sites, entries) = (updates.sites(), updates.entries());
    let block = matrix_entries(sites);
    let block = block.min(usize::try_from(entries).unwrap_or(block));
    let (mut bytes, mut values) = (vec![0u8; block * 4], vec![0f32; block * sites]);
    let mut lanes = vec![[0f64; LANES]; sites * sites];
    let mut done = 0u64;
    while done < entries {
        let length = length(entries - done, block);
        read(updates, done, length, &mut bytes, &mut values)?;
        for one in 0..sites {
            for other in one + 1..sites {
                let row = |of: usize| &values[of * length..(of + 1) * length];
                add_squares(row(one), row(other), &mut lanes[one * sites + other]);
            }
        }
        done += length as u64;
    }
    let mut matrix = vec![0f64; sites * sites];
    for one in 0..sites {
        for other in one + 1..sites {
            let distance = lanes[one * sites + other].iter().sum();
            matrix[one * sites + other] = distance;
            matrix[other * sites + one] = distance;
        }
    }
    Ok(matrix)
}

fn add_squares(one: &[f32], other: &[f32], lanes: &mut [f64; LANES]) {
    for (one, other) in one.chunks(LANES).zip(other.chunks(LANES)) {
        for ((lane, a), b) in lanes.iter_mut().zip(one).zip(other) {
            let difference = f64::from(*a) - f64::from(*b);
            *lane += difference * difference;
        }
    }
}

/// The `keep` updates with the smallest scores, in order. Of equals the first are taken.
fn closest(distances: &[f64], sites: usize, byzantine: usize, keep: usize) -> Vec<usize> {
    let score = |of: usize| -> f64 {
        let row = &distances[of * sites..(of + 1) * sites];
        let mut others: Vec<f64> = row.iter().enumerate().filter(|(other, _)| *other != of).map(|(_, d)| *d).collect();
        others.sort_unstable_by(f64::total_cmp);
        others.iter().take(sites - byzantine - 2).sum()
    };
    let scores: Vec<f64> = (0..sites).map(score).collect();
    let mut kept: Vec<usize> = (0..sites).collect();
    kept.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    kept.truncate(keep);
    kept.sort_unstable();
    kept
}

/// Entries of the next block.
fn length(left: u64, block: usize) -> usize {
    usize::try_from(left).unwrap_or(block).min(block)
}

/// A number of sites, far below 2^53.
fn count(sites: usize) -> f64 {
    sites as f64
}

#[allow(clippy::cast_possible_truncation)]
fn single(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trimmed_mean_leaves_out_as_many_as_its_fraction_says() {
        for sites in 3..=500usize {
            for hundredths in 1..50u8 {
                let wanted = usize::from(hundredths) * sites / 100;
                assert_eq!(cut(f64::from(hundredths) / 100.0, sites), wanted, "{hundredths} hundredths of {sites}");
            }
        }
        assert_eq!((cut(0.2899, 100), cut(0.289_999_999_999, 100), cut(0.1, 6)), (28, 28, 0));
    }
}
