//! Reads all complete payloads of a round block by block, in roster order, and makes the result.
//!
//! What a strategy gets is in its type: a [`Step`] gets the weighted mean of a block of all updates, which is exact and
//! the same in whatever order they are read; a [`Rule`] gets each update. Memory depends neither on the model's size nor
//! on the number of sites. A reduction that is cut off leaves nothing but files without a name, and can be done again
//! with the same result, byte for byte.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use hospes_privacy::figures;
use hospes_privacy::secagg::Unmasker;
use hospes_protocol::id::{Digest, SiteId};
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::plan::{self, EarlyStop, Figure, NnTrain, Part, Quantise, Strategy};

use super::each::{Combine, Rule};
use super::step::{Moments, Step};
use super::updates::{self, BLOCK_ENTRIES, Sums, Updates};
use super::{content, staging};
use crate::Error;
use crate::models::{Layout, Models, Writer, Written};

/// A payload that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Site that sent it.
    pub site: SiteId,
    /// Where it lies.
    pub path: PathBuf,
}

/// Whether the payloads are still those that were confirmed, with these digests: a byte that changed on the disk since would
/// be in the result, and nobody would see it.
///
/// Blocks; for a thread of its own.
///
/// # Errors
/// [`Error::File`] if one cannot be read, [`Error::Corrupt`] if one was altered.
pub fn check(inputs: &[Input], digests: &[Digest]) -> Result<(), Error> {
    for (input, digest) in inputs.iter().zip(digests) {
        if staging::digest_of(&input.path)? != *digest {
            return Err(Error::corrupt("payload", format!("{} is not what was confirmed", input.path.display())));
        }
    }
    Ok(())
}

/// A round of training whose inputs are fixed.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// Model that the sites started from.
    pub global: Digest,
    /// Tensors of it and of an update.
    pub tensors: Vec<TensorShape>,
    /// What each of them is; control variates come last.
    pub parts: Vec<Part>,
    /// How the numbers were put on the wire.
    pub quantise: Quantise,
    /// How they become the next model.
    pub strategy: Strategy,
    /// Members of the job, in this round or not.
    pub members: u32,
    /// Moments of the coordinator's optimiser after the round before; `None` in the first round.
    pub moments: Option<PathBuf>,
    /// Whether no round follows: the model is then written without control variates, and moments not at all.
    pub last: bool,
    /// What ends training early: a loss then follows the tensors in each update.
    pub early_stop: Option<EarlyStop>,
}

impl Training {
    /// A round of a task.
    pub fn new(train: &NnTrain, inputs: plan::model::Inputs, global: Digest, members: u32, last: bool) -> Self {
        Self {
            global,
            tensors: plan::tensors(train, inputs),
            parts: plan::parts(train, inputs),
            quantise: train.quantise.clone(),
            strategy: train.strategy.clone(),
            members,
            moments: None,
            last,
            early_stop: train.early_stop.clone(),
        }
    }

    /// Tensors of the model that is written, with what they are.
    fn written(&self) -> impl Iterator<Item = (&TensorShape, Part)> {
        let stays = |part: Part| !(self.last && part == Part::Control);
        self.tensors.iter().zip(self.parts.iter().copied()).filter(move |(_, part)| stays(*part))
    }
}

/// The result of a round of training: files that are written and durable, without names yet.
#[derive(Debug)]
pub struct Trained {
    /// The new model.
    pub model: Written,
    /// New moments of the coordinator's optimiser, where the strategy has them and another round follows.
    pub moments: Option<Written>,
    /// Mean loss of the model that the round started from on the sites' rows for validation, where it can end training early
    /// and a site told it.
    pub loss: Option<f64>,
    /// Row weights n_u of the sites, in the order of their ids; none where they came masked.
    pub weights: Vec<u64>,
}

/// Makes the next model from the last one and the sites' updates, by the plan's strategy.
///
/// Blocks; for a thread of its own.
///
/// # Shapes
/// Every input has `8 + 4·Σ len(tensors)` bytes, with `early_stop` 8 more, or fewer if it is coded; the model at `global` has
/// exactly these tensors.
///
/// # Errors
/// [`Error::File`] if a file cannot be read or written, [`Error::Corrupt`] if one was altered since it was checked, or
/// the strategy cannot work with so many inputs.
pub fn train(models: &Models, training: &Training, inputs: &[Input]) -> Result<Trained, Error> {
    let entries = training.tensors.iter().map(TensorShape::len).fold(0u64, u64::saturating_add);
    let told = if training.early_stop.is_some() { LOSS_ENTRIES } else { 0 };
    let updates = Updates::open(&training.quantise, entries.saturating_add(told as u64), inputs)?;
    let weights = updates.weights();
    let mut pass = Pass::open(models, training)?;
    let (moments, loss) = match Rule::of(&training.strategy) {
        Some(rule) => {
            combine(rule.prepare(updates)?, &mut pass)?;
            (None, None)
        }
        None => {
            let mut sums = Sums::of(updates);
            let moments = follow(models, training, &mut sums, &mut pass)?;
            (moments, told_loss(training, &mut sums, entries)?)
        }
    };
    Ok(Trained { model: pass.writer.finish()?, moments, loss, weights })
}

/// Makes the next model from the last one and the sum of the sites' masked updates, by the plan's strategy. Without masks
/// the same updates would give the same model, byte for byte.
///
/// Blocks; for a thread of its own.
///
/// # Shapes
/// As [`train`], in the layout of the session that `unmasker` is of; the inputs are those that the session counts.
///
/// # Errors
/// As [`train`]; [`Error::Corrupt`] too if the strategy needs to see each update.
pub fn train_masked(
    models: &Models,
    training: &Training,
    inputs: &[Input],
    unmasker: Unmasker,
) -> Result<Trained, Error> {
    let entries = training.tensors.iter().map(TensorShape::len).fold(0u64, u64::saturating_add);
    let mut sums = Sums::masked(&training.quantise, entries.saturating_add(LOSS_ENTRIES as u64), unmasker, inputs)?;
    let mut pass = Pass::open(models, training)?;
    let moments = follow(models, training, &mut sums, &mut pass)?;
    let loss = told_loss(training, &mut sums, entries)?;
    Ok(Trained { model: pass.writer.finish()?, moments, loss, weights: Vec::new() })
}

/// Entries with which a loss travels.
const LOSS_ENTRIES: usize = 2;

/// The mean loss that the sites told behind the tensors of their updates.
fn told_loss(training: &Training, sums: &mut Sums, entries: u64) -> Result<Option<f64>, Error> {
    let Some(stop) = &training.early_stop else { return Ok(None) };
    let error = sums.error();
    let means: [f32; LOSS_ENTRIES] = sums.mean(entries, LOSS_ENTRIES)?.try_into().unwrap_or_default();
    Ok(stop.loss(means, error))
}

/// Applies a rule that sees each update.
fn combine(mut rule: Combine, pass: &mut Pass) -> Result<(), Error> {
    let most = rule.block_entries();
    while let Some((first, entries)) = pass.next(most)? {
        let change = rule.change(first, entries)?;
        pass.model.iter_mut().zip(change).for_each(|(x, change)| *x += change);
        pass.push()?;
    }
    Ok(())
}

/// Takes a step along the sums, and writes its moments in the same pass.
fn follow(models: &Models, training: &Training, sums: &mut Sums, pass: &mut Pass) -> Result<Option<Written>, Error> {
    let step = Step::of(&training.strategy, sums.sites(), training.members, sums.error());
    let step = step.ok_or_else(|| Error::corrupt("strategy", "it needs to see each update"))?;
    let shape = moments_shape(pass.total);
    let mut old = match &training.moments {
        Some(path) if step.has_moments() => Some(OldMoments::open(path, &shape)?),
        _ => None,
    };
    let mut new = if step.has_moments() && !training.last { Some(models.write(&[shape])?) } else { None };
    let mut moments: Vec<Moments> = Vec::new();
    while let Some((first, entries)) = pass.next(BLOCK_ENTRIES)? {
        if step.has_moments() {
            moments.clear();
            moments.resize(entries, [0.0; 2]);
            old.as_mut().map_or(Ok(()), |old| old.read(&mut moments))?;
        }
        let mean = sums.mean(first, entries)?;
        for (range, part) in pieces(&pass.spans, first, entries) {
            let moments = moments.get_mut(range.clone()).unwrap_or_default();
            step.take(part, &mean[range.clone()], &mut pass.model[range], moments);
        }
        pass.push()?;
        if let Some(new) = &mut new {
            new.push(moments.iter().flatten().copied())?;
        }
    }
    new.map(Writer::finish).transpose()
}

/// The moments of so many entries: m and v of one entry after those of another, so that one file is written in order.
fn moments_shape(entries: u64) -> TensorShape {
    TensorShape { name: "moments".to_owned(), shape: vec![entries, 2] }
}

/// Moments as they were after the round before.
struct OldMoments {
    file: File,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl OldMoments {
    fn open(path: &PathBuf, shape: &TensorShape) -> Result<Self, Error> {
        let layout = Layout::read(path)?;
        if layout.tensors != std::slice::from_ref(shape) {
            return Err(Error::corrupt("moments", "they are not those of the round's tensors"));
        }
        let mut file = File::open(path).map_err(Error::file("open", path))?;
        file.seek(SeekFrom::Start(layout.data_start())).map_err(Error::file("read", path))?;
        Ok(Self { file, path: path.clone(), bytes: Vec::new() })
    }

    fn read(&mut self, moments: &mut [Moments]) -> Result<(), Error> {
        self.bytes.resize(size_of_val(moments), 0);
        self.file.read_exact(&mut self.bytes).map_err(Error::file("read", &self.path))?;
        let values = self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        moments.iter_mut().flatten().zip(values).for_each(|(moment, value)| *moment = value);
        Ok(())
    }
}

/// One pass over the model: the old one is read, the new one written.
struct Pass {
    file: File,
    path: PathBuf,
    writer: Writer,
    /// Ends of runs of entries of the same kind.
    spans: Vec<(u64, Part)>,
    total: u64,
    done: u64,
    bytes: Vec<u8>,
    /// Entries of the present block: those of the old model, to be changed into those of the new one.
    model: Vec<f32>,
}

impl Pass {
    fn open(models: &Models, training: &Training) -> Result<Self, Error> {
        let path = models.path(training.global);
        let layout = Layout::read(&path)?;
        if layout.tensors != training.tensors || training.parts.len() != training.tensors.len() {
            return Err(Error::corrupt("model", "its tensors are not those of the round"));
        }
        if !training.parts.is_sorted_by_key(|part| *part == Part::Control) {
            return Err(Error::corrupt("model", "its control variates are not at the end"));
        }
        let mut file = File::open(&path).map_err(Error::file("open", &path))?;
        file.seek(SeekFrom::Start(layout.data_start())).map_err(Error::file("read", &path))?;
        let (mut spans, mut total) = (Vec::<(u64, Part)>::new(), 0u64);
        for (tensor, part) in training.written() {
            total = total.saturating_add(tensor.len());
            match spans.last_mut() {
                Some((end, same)) if *same == part => *end = total,
                _ => spans.push((total, part)),
            }
        }
        let tensors: Vec<TensorShape> = training.written().map(|(tensor, _)| tensor.clone()).collect();
        let writer = models.write(&tensors)?;
        Ok(Self { file, path, writer, spans, total, done: 0, bytes: Vec::new(), model: Vec::new() })
    }

    /// Reads the next block of at most so many entries; says where it begins and how long it is.
    fn next(&mut self, most: usize) -> Result<Option<(u64, usize)>, Error> {
        let entries = usize::try_from(self.total - self.done).unwrap_or(most).min(most);
        if entries == 0 {
            return Ok(None);
        }
        self.bytes.resize(entries * 4, 0);
        self.file.read_exact(&mut self.bytes).map_err(Error::file("read", &self.path))?;
        self.model.clear();
        self.model.extend(self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
        let first = self.done;
        self.done += entries as u64;
        Ok(Some((first, entries)))
    }

    /// Writes the block.
    fn push(&mut self) -> Result<(), Error> {
        self.writer.push(self.model.iter().copied())
    }
}

/// The parts of a block that are of one kind, as ranges within it.
fn pieces(spans: &[(u64, Part)], first: u64, entries: usize) -> Vec<(std::ops::Range<usize>, Part)> {
    let last = first + entries as u64;
    let within = |at: u64| usize::try_from(at.clamp(first, last) - first).unwrap_or(entries);
    let starts = std::iter::once(0).chain(spans.iter().map(|(end, _)| *end));
    let all = starts.zip(spans).map(|(start, (end, part))| (within(start)..within(*end), *part));
    all.filter(|(range, _)| !range.is_empty()).collect()
}

/// The result of a round of figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Pooled {
    /// Sites whose figures are in it, with their reports as they came, in the order of the inputs; under masks nobody sees one.
    pub sites: Vec<(SiteId, Option<FigureSet>)>,
    /// Their sums. A figure that any site withheld is withheld here too: a sum over the others would say something
    /// else.
    pub sum: FigureSet,
}

impl Pooled {
    /// Whether the reports came masked, so that nobody saw one.
    pub fn is_masked(&self) -> bool {
        self.sites.iter().any(|(_, set)| set.is_none())
    }
}

/// Adds the sites' figures, name by name and value by value, in the order of the inputs.
///
/// # Errors
/// [`Error::File`] or [`Error::Corrupt`] if a report cannot be read any more.
pub fn pool(announced: &[Figure], inputs: &[Input]) -> Result<Pooled, Error> {
    let mut sites = Vec::with_capacity(inputs.len());
    let mut sum = FigureSet { sums: Default::default(), withheld: Default::default() };
    for figure in announced {
        sum.sums.insert(figure.name.to_string(), vec![0.0; usize::try_from(figure.values).unwrap_or(0)]);
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
        sites.push((input.site, Some(report)));
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

/// The sum of the sites' masked figures. A figure that any site holds back is withheld, and its sum tells nothing.
///
/// Blocks; for a thread of its own.
///
/// # Errors
/// [`Error::File`] if a file cannot be read, [`Error::Corrupt`] if what comes out is no sum of the figures of these sites.
pub fn pool_masked(announced: &[Figure], inputs: &[Input], unmasker: Unmasker) -> Result<Pooled, Error> {
    let sums = updates::unmasked(unmasker, inputs)?;
    let sites = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
    let sum = figures::report(announced, sites, &sums).map_err(|error| Error::corrupt("masked sum", error))?;
    Ok(Pooled { sites: inputs.iter().map(|input| (input.site, None)).collect(), sum })
}

#[cfg(test)]
#[path = "masks_tests.rs"]
mod masks_tests;
#[cfg(test)]
#[path = "strategy_tests.rs"]
mod strategy_tests;
#[cfg(test)]
#[path = "reduce_tests.rs"]
mod tests;
