//! The complete updates of a round, read block by block, and the only two ways to look at them: their sum, or each one.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use hospes_privacy::coding::Coding;
use hospes_privacy::masked::HEAD_BYTES;
use hospes_privacy::quantise::{ENTRY_BYTES, Quantiser};
use hospes_privacy::secagg::Unmasker;
use hospes_privacy::sum::{Totals, add_block};
use hospes_protocol::plan::{CHUNK_ENTRIES, CHUNK_HEAD_BYTES, Quantise, ROW_WEIGHT_BYTES};

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
    /// How they are coded, where they are.
    coding: Option<Coding>,
}

#[derive(Debug)]
struct Update {
    path: PathBuf,
    weight: u64,
    /// Of one that is coded, where each of its chunks ends in the file.
    ends: Vec<u64>,
    /// Of one that is coded, the chunk in which the last block ended, so that blocks that are shorter than a chunk decode it once.
    begun: Option<Chunk>,
}

/// The levels of a chunk, each in as many bytes as it needs.
#[derive(Debug)]
struct Chunk {
    number: u64,
    levels: Vec<u8>,
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
        let coding = Coding::new(quantise.bits, entries);
        for input in inputs {
            let update = Update::open(&quantiser, coding, input, entries)?;
            totals.add(update.weight).map_err(wrong)?;
            list.push(update);
        }
        if list.is_empty() {
            return Err(wrong(hospes_privacy::PrivacyError::Empty));
        }
        Ok(Self { list, quantiser, totals, entries, coding })
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

    /// Reads entries of one, from `first` on, each as four bytes. The file is opened each time that it is read, so that any
    /// number of sites needs one open file.
    pub(super) fn levels(&mut self, of: usize, first: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let update = &mut self.list[of];
        if let Some(coding) = &self.coding {
            return update.decoded(coding, first, bytes);
        }
        let path = &update.path;
        let mut file = File::open(path).map_err(Error::file("open", path))?;
        file.seek(SeekFrom::Start(ROW_WEIGHT_BYTES + first * ENTRY_BYTES)).map_err(Error::file("read", path))?;
        file.read_exact(bytes).map_err(Error::file("read", path))
    }

    /// Reads entries of one, from `first` on, as the clipped update that they stand for.
    ///
    /// # Shapes
    /// `bytes` has four for each entry of `out`.
    pub(super) fn values(&mut self, of: usize, first: u64, bytes: &mut [u8], out: &mut [f32]) -> Result<(), Error> {
        self.levels(of, first, bytes)?;
        self.quantiser.values(self.list[of].weight, bytes, out).map_err(wrong)
    }
}

impl Update {
    /// Reads the row weight at the head of an update, and where its chunks are if it is coded.
    fn open(quantiser: &Quantiser, coding: Option<Coding>, input: &Input, entries: u64) -> Result<Self, Error> {
        let (path, mut head) = (&input.path, [0u8; 8]);
        let mut file = File::open(path).map_err(Error::file("open", path))?;
        let bytes = file.metadata().map_err(Error::file("read", path))?.len();
        file.read_exact(&mut head).map_err(Error::file("read", path))?;
        let Some(coding) = coding else {
            let weight = quantiser.row_weight(&head, bytes, entries).map_err(wrong)?;
            return Ok(Self { path: path.clone(), weight, ends: Vec::new(), begun: None });
        };
        let weight = quantiser.row_weight(&head, Quantiser::payload_bytes(entries), entries).map_err(wrong)?;
        let (mut ends, mut end) = (Vec::new(), ROW_WEIGHT_BYTES);
        for entries in coding.chunks() {
            let mut head = [0u8; 4];
            file.seek(SeekFrom::Start(end)).map_err(Error::file("read", path))?;
            file.read_exact(&mut head).map_err(Error::file("read", path))?;
            end += CHUNK_HEAD_BYTES + coding.chunk_bytes(entries, head).map_err(wrong)? as u64;
            ends.push(end);
        }
        if end != bytes {
            return Err(wrong(hospes_privacy::PrivacyError::Length { expected: end, found: bytes }));
        }
        Ok(Self { path: path.clone(), weight, ends, begun: None })
    }

    /// Entries of one that is coded, from `first` on. The chunk in which they end is kept unless it is read to its end, so that
    /// blocks in order decode each chunk once, however short they are.
    fn decoded(&mut self, coding: &Coding, first: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let width = coding.entry_bytes();
        let (mut at, mut left) = (first, bytes.as_chunks_mut::<4>().0);
        while !left.is_empty() {
            let number = at / CHUNK_ENTRIES;
            let chunk = match self.begun.take() {
                Some(chunk) if chunk.number == number => chunk,
                _ => self.chunk(coding, number)?,
            };
            let skipped = usize::try_from(at % CHUNK_ENTRIES).unwrap_or(usize::MAX).saturating_mul(width);
            let here = chunk.levels.get(skipped..).filter(|here| !here.is_empty()).ok_or_else(too_short)?;
            let entries = (here.len() / width).min(left.len());
            let (mine, others) = std::mem::take(&mut left).split_at_mut(entries);
            for (wide, level) in mine.iter_mut().zip(here.chunks_exact(width)) {
                *wide = [0; 4];
                wide[..width].copy_from_slice(level);
            }
            if entries * width < here.len() {
                self.begun = Some(chunk);
            }
            at += entries as u64;
            left = others;
        }
        Ok(())
    }

    /// Reads a chunk and decodes it.
    fn chunk(&self, coding: &Coding, number: u64) -> Result<Chunk, Error> {
        let (path, index) = (&self.path, usize::try_from(number).unwrap_or(usize::MAX));
        let end = *self.ends.get(index).ok_or_else(too_short)?;
        let before = index.checked_sub(1).map_or(ROW_WEIGHT_BYTES, |before| self.ends[before]);
        let start = before + CHUNK_HEAD_BYTES;
        let mut coded = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
        let mut file = File::open(path).map_err(Error::file("open", path))?;
        file.seek(SeekFrom::Start(start)).map_err(Error::file("read", path))?;
        file.read_exact(&mut coded).map_err(Error::file("read", path))?;
        let mut wide = Vec::new();
        coding.read_chunk(coding.chunk_entries(number), &coded, &mut wide).map_err(wrong)?;
        let width = coding.entry_bytes();
        let levels = wide.as_chunks::<4>().0.iter().flat_map(|level| &level[..width]).copied().collect();
        Ok(Chunk { number, levels })
    }
}

fn too_short() -> Error {
    Error::corrupt("update", "it ends too early")
}

/// Sums of a round's updates: all that a strategy of the kind [`Sees::Sum`](hospes_protocol::plan::Sees::Sum) gets. Under
/// secure aggregation the same sums come without anybody having seen an update.
pub(super) struct Sums {
    source: Source,
    quantiser: Quantiser,
    totals: Totals,
    sums: Vec<u64>,
    mean: Vec<f32>,
}

enum Source {
    /// Updates that are there one by one, and room for the entries of one of them.
    Each(Updates, Vec<u8>),
    /// Masked updates, of which only the sum is to be had.
    Masked(Box<Unmasked>),
}

impl Sums {
    pub(super) fn of(updates: Updates) -> Self {
        let entries = usize::try_from(updates.entries).unwrap_or(BLOCK_ENTRIES).min(BLOCK_ENTRIES);
        let (quantiser, totals) = (updates.quantiser, updates.totals);
        Self::new(Source::Each(updates, vec![0; entries * 4]), quantiser, totals, entries)
    }

    /// The sums of masked updates, of exactly those that the session counts.
    pub(super) fn masked(
        quantise: &Quantise,
        entries: u64,
        unmasker: Unmasker,
        inputs: &[Input],
    ) -> Result<Self, Error> {
        let quantiser = Quantiser::new(quantise).map_err(wrong)?;
        let mut unmasked = Unmasked::open(unmasker, inputs)?;
        let weight = unmasked.weight()?;
        // Σ min(n_u, n_max), each of them at least 1; whatever else comes out is no sum of honest updates.
        let (least, most) = (inputs.len() as u64, inputs.len() as u64 * u64::from(quantise.n_max));
        if !(least..=most).contains(&weight) {
            return Err(Error::corrupt("masked sum", "its row weight is none that these sites can have"));
        }
        let totals = Totals::known(u32::try_from(inputs.len()).unwrap_or(u32::MAX), weight).map_err(wrong)?;
        let entries = usize::try_from(entries).unwrap_or(BLOCK_ENTRIES).min(BLOCK_ENTRIES);
        Ok(Self::new(Source::Masked(Box::new(unmasked)), quantiser, totals, entries))
    }

    fn new(source: Source, quantiser: Quantiser, totals: Totals, entries: usize) -> Self {
        Self { source, quantiser, totals, sums: vec![0; entries], mean: vec![0.0; entries] }
    }

    /// How many sites are in the sums.
    pub(super) fn sites(&self) -> u32 {
        self.totals.sites()
    }

    /// Largest distance of an entry of the mean from the exact one: what is nearer to 0 cannot be told from 0.
    pub(super) fn error(&self) -> f64 {
        self.quantiser.mean_error(self.totals)
    }

    /// Weighted mean of the updates, from entry `first` on. Blocks get shorter only at the end, and none begins before
    /// the end of the one before.
    ///
    /// # Shapes
    /// `entries` is at most [`BLOCK_ENTRIES`], and the result is so long.
    pub(super) fn mean(&mut self, first: u64, entries: usize) -> Result<&[f32], Error> {
        let (sums, mean) = (&mut self.sums[..entries], &mut self.mean[..entries]);
        match &mut self.source {
            Source::Each(updates, bytes) => {
                let bytes = &mut bytes[..entries * 4];
                sums.fill(0);
                for of in 0..updates.sites() {
                    updates.levels(of, first, bytes)?;
                    add_block(sums, bytes).map_err(wrong)?;
                }
            }
            Source::Masked(unmasked) => unmasked.read(first, sums)?,
        }
        self.quantiser.mean(sums, self.totals, mean).map_err(wrong)?;
        Ok(mean)
    }
}

/// The sums of masked figures, whole: there are as many as fit into a report.
///
/// # Errors
/// [`Error::File`] if a file cannot be read, [`Error::Corrupt`] if not each site is in the sum once.
pub(super) fn unmasked(unmasker: Unmasker, inputs: &[Input]) -> Result<Vec<u64>, Error> {
    let mut unmasked = Unmasked::open(unmasker, inputs)?;
    // Each site weighs 1.
    if unmasked.weight()? != inputs.len() as u64 {
        return Err(Error::corrupt("masked sum", "it is not of each of these sites once"));
    }
    let mut sums = Vec::new();
    while unmasked.unmasker.expected().is_some() {
        sums.extend(unmasked.more()?);
    }
    Ok(sums)
}

/// The sum of masked updates, read once from its beginning to its end: of every block the masked values are added, and
/// then the masks taken off the sum. No value of one site is ever there.
struct Unmasked {
    unmasker: Unmasker,
    files: Vec<(PathBuf, File)>,
    packed: Vec<u8>,
    /// Sums that nobody has asked for yet, and which entry the first of them is of.
    ready: VecDeque<u64>,
    at: u64,
}

impl Unmasked {
    fn open(unmasker: Unmasker, inputs: &[Input]) -> Result<Self, Error> {
        let open = |input: &Input| -> Result<(PathBuf, File), Error> {
            let path = input.path.clone();
            let mut file = File::open(&path).map_err(Error::file("open", &path))?;
            file.seek(SeekFrom::Start(HEAD_BYTES as u64)).map_err(Error::file("read", &path))?;
            Ok((path, file))
        };
        let files = inputs.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { unmasker, files, packed: Vec::new(), ready: VecDeque::new(), at: 0 })
    }

    /// The sum of the row weights, which comes before all entries.
    fn weight(&mut self) -> Result<u64, Error> {
        self.more()?.first().copied().ok_or_else(|| Error::corrupt("masked sum", "it has no row weight"))
    }

    /// The sums of the next block.
    fn more(&mut self) -> Result<Vec<u64>, Error> {
        let block = self.unmasker.expected().ok_or_else(|| Error::corrupt("masked sum", "it ends too early"))?;
        let mut sums = vec![0u64; block.entries];
        self.packed.resize(block.bytes(), 0);
        for (path, file) in &mut self.files {
            file.read_exact(&mut self.packed).map_err(Error::file("read", &*path))?;
            block.add(&mut sums, &self.packed).map_err(wrong)?;
        }
        self.unmasker.block(&mut sums).map_err(wrong)?;
        self.unmasker.cut(&block, &mut sums);
        Ok(sums)
    }

    /// The sums from entry `first` on; those before are dropped.
    fn read(&mut self, first: u64, sums: &mut [u64]) -> Result<(), Error> {
        let ahead = first.checked_sub(self.at).ok_or_else(|| Error::corrupt("masked sum", "it is read only once"))?;
        let mut ahead = usize::try_from(ahead).map_err(|e| Error::corrupt("masked sum", e))?;
        loop {
            let dropped = ahead.min(self.ready.len());
            self.ready.drain(..dropped);
            self.at += dropped as u64;
            ahead -= dropped;
            if ahead == 0 && self.ready.len() >= sums.len() {
                break;
            }
            let more = self.more()?;
            self.ready.extend(more);
        }
        self.at += sums.len() as u64;
        let count = sums.len();
        sums.iter_mut().zip(self.ready.drain(..count)).for_each(|(sum, value)| *sum = value);
        Ok(())
    }
}
