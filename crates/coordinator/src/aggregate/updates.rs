//! The complete updates of a round, read block by block, and the only two ways to look at them: their sum, or each one.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use hospes_privacy::quantise::{ENTRY_BYTES, Quantiser};
use hospes_privacy::sum::{Totals, add_block};
use hospes_protocol::plan::{Quantise, ROW_WEIGHT_BYTES};

use super::reduce::Input;
use crate::Error;

/// Entries of one block: 1 MiB of 32-bit values.
pub(super) const BLOCK_ENTRIES: usize = 1 << 18;

/// Updates of a round, each by itself. What holds one can tell the sites apart: strategies that work on sums get a
/// [`Sums`] instead.
#[derive(Debug)]
pub(super) struct Updates {
    list: Vec<Update>,
    quantiser: Quantiser,
    totals: Totals,
    entries: u64,
}

#[derive(Debug)]
struct Update {
    path: PathBuf,
    weight: u64,
}

fn wrong(error: hospes_privacy::PrivacyError) -> Error {
    Error::corrupt("update", error)
}

impl Updates {
    /// Reads the row weights and checks the lengths. Updates are taken in the order of the sites' ids, in whatever
    /// order they are given, so that no rule depends on it.
    pub(super) fn open(quantise: &Quantise, entries: u64, inputs: &[Input]) -> Result<Self, Error> {
        let quantiser = Quantiser::new(quantise).map_err(wrong)?;
        let mut inputs: Vec<&Input> = inputs.iter().collect();
        inputs.sort_by_key(|input| input.site);
        let mut totals = Totals::default();
        let mut list = Vec::with_capacity(inputs.len());
        for input in inputs {
            let weight = weight(&quantiser, input, entries)?;
            totals.add(weight).map_err(wrong)?;
            list.push(Update { path: input.path.clone(), weight });
        }
        if list.is_empty() {
            return Err(wrong(hospes_privacy::PrivacyError::Empty));
        }
        Ok(Self { list, quantiser, totals, entries })
    }

    /// Entries of each.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// How many there are.
    pub(super) fn sites(&self) -> usize {
        self.list.len()
    }

    /// Row weights, in the order of the sites' ids.
    pub(super) fn weights(&self) -> Vec<u64> {
        self.list.iter().map(|update| update.weight).collect()
    }

    /// Row weight of one.
    pub(super) fn weight(&self, of: usize) -> u64 {
        self.list[of].weight
    }

    /// Sum of the row weights.
    pub(super) fn total_weight(&self) -> u64 {
        self.totals.weight()
    }

    /// The quantiser of the round.
    pub(super) fn quantiser(&self) -> &Quantiser {
        &self.quantiser
    }

    /// Reads entries of one, from `first` on, as they came. The file is opened for each block, so that any number of
    /// sites needs one open file.
    pub(super) fn levels(&self, of: usize, first: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let path = &self.list[of].path;
        let mut file = File::open(path).map_err(Error::file("open", path))?;
        file.seek(SeekFrom::Start(ROW_WEIGHT_BYTES + first * ENTRY_BYTES)).map_err(Error::file("read", path))?;
        file.read_exact(bytes).map_err(Error::file("read", path))
    }

    /// Reads entries of one, from `first` on, as the clipped update that they stand for.
    ///
    /// # Shapes
    /// `bytes` has four for each entry of `out`.
    pub(super) fn values(&self, of: usize, first: u64, bytes: &mut [u8], out: &mut [f32]) -> Result<(), Error> {
        self.levels(of, first, bytes)?;
        self.quantiser.values(self.list[of].weight, bytes, out).map_err(wrong)
    }
}

/// The row weight at the head of an update.
fn weight(quantiser: &Quantiser, input: &Input, entries: u64) -> Result<u64, Error> {
    let (path, mut head) = (&input.path, [0u8; 8]);
    let mut file = File::open(path).map_err(Error::file("open", path))?;
    let bytes = file.metadata().map_err(Error::file("read", path))?.len();
    file.read_exact(&mut head).map_err(Error::file("read", path))?;
    quantiser.row_weight(&head, bytes, entries).map_err(wrong)
}

/// Sums of a round's updates: all that a strategy of the kind [`Sees::Sum`](hospes_protocol::plan::Sees::Sum) gets. Under
/// secure aggregation the same sums come without anybody having seen an update.
pub(super) struct Sums {
    updates: Updates,
    bytes: Vec<u8>,
    sums: Vec<u64>,
    mean: Vec<f32>,
}

impl Sums {
    pub(super) fn of(updates: Updates) -> Self {
        let entries = usize::try_from(updates.entries).unwrap_or(BLOCK_ENTRIES).min(BLOCK_ENTRIES);
        Self { updates, bytes: vec![0; entries * 4], sums: vec![0; entries], mean: vec![0.0; entries] }
    }

    /// How many sites are in the sums.
    pub(super) fn sites(&self) -> u32 {
        self.updates.totals.sites()
    }

    /// Largest distance of an entry of the mean from the exact one: what is nearer to 0 cannot be told from 0.
    pub(super) fn error(&self) -> f64 {
        self.updates.quantiser.mean_error(self.updates.totals)
    }

    /// Weighted mean of the updates, from entry `first` on. Blocks get shorter only at the end.
    ///
    /// # Shapes
    /// `entries` is at most [`BLOCK_ENTRIES`], and the result is so long.
    pub(super) fn mean(&mut self, first: u64, entries: usize) -> Result<&[f32], Error> {
        let (bytes, sums, mean) =
            (&mut self.bytes[..entries * 4], &mut self.sums[..entries], &mut self.mean[..entries]);
        sums.fill(0);
        for of in 0..self.updates.sites() {
            self.updates.levels(of, first, bytes)?;
            add_block(sums, bytes).map_err(wrong)?;
        }
        self.updates.quantiser.mean(sums, self.updates.totals, mean).map_err(wrong)?;
        Ok(mean)
    }
}
