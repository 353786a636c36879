//! Reads all complete payloads of a round block by block, in roster order, and makes the result.
//!
//! Sums are exact (u64 per entry), so the result does not depend on the order in which payloads arrived or are read.
//! Memory depends neither on the model's size nor on the number of sites: one block of sums, one of the model, one of a
//! payload. A reduction that is cut off leaves nothing but files without a name, and can be done again.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use hospes_privacy::quantise::{ENTRY_BYTES, Quantiser};
use hospes_privacy::sum::{Totals, add_block};
use hospes_protocol::id::{Digest, SiteId};
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::plan::{Figure, Quantise, ROW_WEIGHT_BYTES};

use super::content;
use crate::Error;
use crate::models::{Layout, Models, Written};

/// Entries of one block: 1 MiB of 32-bit values.
const BLOCK_ENTRIES: usize = 1 << 18;

/// A payload that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Site that sent it.
    pub site: SiteId,
    /// Where it lies.
    pub path: PathBuf,
}

/// The result of a round of training.
#[derive(Debug)]
pub struct Averaged {
    /// The new model, written and durable, without a name yet.
    pub model: Written,
    /// Row weights n_u of the sites, in the order of the inputs.
    pub weights: Vec<u64>,
}

/// One step of federated averaging (McMahan et al. 2017, algorithm 1): the new model is
/// `global + Σ_u α_u·clip(Δ_u) / Σ_u α_u` with α_u = min(n_u, n_max)/n_max, from what the sites send
/// ([`hospes_privacy::quantise`]).
///
/// Blocks; for a thread of its own.
///
/// # Shapes
/// Every input has `8 + 4·Σ len(tensors)` bytes; the model at `global` has exactly these tensors.
///
/// # Errors
/// [`Error::File`] if a file cannot be read or written, [`Error::Corrupt`] if one was altered since it was checked.
pub fn fed_avg(
    models: &Models,
    global: Digest,
    tensors: &[TensorShape],
    quantise: &Quantise,
    inputs: &[Input],
) -> Result<Averaged, Error> {
    let path = models.path(global);
    let layout = Layout::read(&path)?;
    if layout.tensors != tensors {
        return Err(Error::corrupt("model", "its tensors are not those of the round"));
    }
    let mut model = File::open(&path).map_err(Error::file("open", &path))?;
    model.seek(SeekFrom::Start(layout.data_start())).map_err(Error::file("read", &path))?;
    let wrong = |e: hospes_privacy::PrivacyError| Error::corrupt("update", e);
    let quantiser = Quantiser::new(quantise).map_err(wrong)?;
    let total = tensors.iter().map(TensorShape::len).fold(0u64, u64::saturating_add);
    let mut totals = Totals::default();
    let mut weights = Vec::with_capacity(inputs.len());
    for input in inputs {
        let weight = weight(&quantiser, &input.path, total)?;
        totals.add(weight).map_err(wrong)?;
        weights.push(weight);
    }
    let mut writer = models.write(tensors)?;
    let mut block = Block::new(usize::try_from(total).unwrap_or(BLOCK_ENTRIES).min(BLOCK_ENTRIES));
    let mut done = 0u64;
    while done < total {
        let entries = usize::try_from(total - done).unwrap_or(BLOCK_ENTRIES).min(BLOCK_ENTRIES);
        block.start(entries);
        for input in inputs {
            block.add(&input.path, done)?;
        }
        model.read_exact(&mut block.bytes).map_err(Error::file("read", &path))?;
        quantiser.mean(&block.sums, totals, &mut block.mean).map_err(wrong)?;
        let globals = block.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        writer.push(globals.zip(&block.mean).map(|(global, mean)| global + mean))?;
        done += entries as u64;
    }
    Ok(Averaged { model: writer.finish()?, weights })
}

/// The row weight at the head of an update.
fn weight(quantiser: &Quantiser, path: &Path, parameters: u64) -> Result<u64, Error> {
    let mut head = [0u8; 8];
    let mut file = File::open(path).map_err(Error::file("open", path))?;
    let bytes = file.metadata().map_err(Error::file("read", path))?.len();
    file.read_exact(&mut head).map_err(Error::file("read", path))?;
    quantiser.row_weight(&head, bytes, parameters).map_err(|e| Error::corrupt("update", e))
}

/// Buffers for one block.
struct Block {
    bytes: Vec<u8>,
    sums: Vec<u64>,
    mean: Vec<f32>,
}

impl Block {
    fn new(entries: usize) -> Self {
        Self { bytes: vec![0; entries * 4], sums: vec![0; entries], mean: vec![0.0; entries] }
    }

    /// Begins a block; only the last one is shorter than the one before.
    fn start(&mut self, entries: usize) {
        self.bytes.truncate(entries * 4);
        self.mean.truncate(entries);
        self.sums.truncate(entries);
        self.sums.fill(0);
    }

    /// Adds the entries of a payload from `first` on. The file is opened for each block, so that any number of sites
    /// needs one open file.
    fn add(&mut self, path: &Path, first: u64) -> Result<(), Error> {
        let mut file = File::open(path).map_err(Error::file("open", path))?;
        file.seek(SeekFrom::Start(ROW_WEIGHT_BYTES + first * ENTRY_BYTES)).map_err(Error::file("read", path))?;
        file.read_exact(&mut self.bytes).map_err(Error::file("read", path))?;
        add_block(&mut self.sums, &self.bytes).map_err(|e| Error::corrupt("update", e))
    }
}

/// The result of a round of figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Pooled {
    /// Reports as they came, in the order of the inputs.
    pub sites: Vec<(SiteId, FigureSet)>,
    /// Their sums. A figure that any site withheld is withheld here too: a sum over the others would say something
    /// else.
    pub sum: FigureSet,
}

/// Adds the sites' figures, name by name and value by value, in the order of the inputs.
///
/// # Errors
/// [`Error::File`] or [`Error::Corrupt`] if a report cannot be read any more.
pub fn pool(announced: &[Figure], inputs: &[Input]) -> Result<Pooled, Error> {
    let mut sites = Vec::with_capacity(inputs.len());
    let mut sum = FigureSet { sums: Default::default(), withheld: Default::default() };
    for figure in announced {
        sum.sums.insert(figure.name.to_owned(), vec![0.0; usize::try_from(figure.values).unwrap_or(0)]);
    }
    for input in inputs {
        let report = content::figures(&input.path)?.into_inner();
        for (name, values) in &report.sums {
            let Some(total) = sum.sums.get_mut(name) else { continue };
            for (total, value) in total.iter_mut().zip(values) {
                *total += value;
            }
        }
        for (name, rule) in &report.withheld {
            sum.withheld.entry(name.clone()).or_insert_with(|| rule.clone());
        }
        sites.push((input.site, report));
    }
    // A sum of finite numbers can still overflow; what is not finite has no canonical form.
    let overflowed = sum.sums.iter().filter(|(_, v)| !v.iter().all(|x| x.is_finite())).map(|(name, _)| name.clone());
    let overflowed: Vec<String> = overflowed.collect();
    for name in overflowed {
        sum.withheld.insert(name, "the sum is too large for a number".to_owned());
    }
    let withheld = &sum.withheld;
    sum.sums.retain(|name, _| !withheld.contains_key(name));
    Ok(Pooled { sites, sum })
}

#[cfg(test)]
#[path = "reduce_tests.rs"]
mod tests;
