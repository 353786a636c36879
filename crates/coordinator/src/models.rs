//! Models as safetensors files named by their digest, and their cards.
//!
//! A model is never in memory as a whole: it is written tensor by tensor in blocks, hashed on the way, synchronised,
//! and only then gets its name. Sites and researchers read ranges of it. The digest that names a model is that of a
//! document of the kind `model` ([`canon::digest`](hospes_protocol::canon::digest)), so no other file can pass for one.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hospes_protocol::id::{Digest, JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::plan::{self, Component, Plan, Strategy};
use hospes_protocol::study::Rank;
use object_store::ObjectStoreExt as _;
use object_store::local::LocalFileSystem;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::aggregate::content::fill;
use crate::aggregate::newton::Fit;
use crate::noise;
use crate::seam::{Moment, Seam};

/// Bytes of the largest header that is read: 2,000 layers need far less.
const HEADER_BYTES: u64 = 4 << 20;
/// Bytes of one block when a model is read or written.
pub const BLOCK_BYTES: usize = 1 << 20;
/// What the names of files of moments end with.
const MOMENTS: &str = ".moments";
/// Folder for files that have no name yet, beside the models so that naming is a rename.
const SCRATCH: &str = "scratch";
/// What the seam calls these files.
const FILE: &str = "model";

/// Whose moments a file holds: those of the coordinator's optimiser after a round of a task, of the model that the round
/// gave. A round that was attempted again with other inputs gave another model, and so has a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MomentsOf {
    /// Job.
    pub job: JobId,
    /// Task.
    pub task: String,
    /// Round.
    pub round: u32,
    /// Model that it gave.
    pub model: Digest,
}

impl MomentsOf {
    fn name(&self) -> String {
        format!("{}.{}.{}.{}{MOMENTS}", self.job, self.round, self.model, self.task)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(MOMENTS)?.splitn(4, '.');
        let (job, round, model) = (parts.next()?, parts.next()?, parts.next()?);
        let (job, round, model) = (job.parse().ok()?, round.parse().ok()?, model.parse().ok()?);
        Some(Self { job, task: parts.next()?.to_owned(), round, model })
    }
}

/// The shelf of models. Clones share it.
#[derive(Debug, Clone)]
pub struct Models {
    root: PathBuf,
    objects: Arc<LocalFileSystem>,
    seam: Seam,
}

impl Models {
    /// Models under this folder, which is made if it is not there. Files that never got a name are swept away.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be made or swept, [`Error::Corrupt`] if it is none.
    pub fn open(root: PathBuf) -> Result<Self, Error> {
        Self::held(root, Seam::default())
    }

    /// The same in the hands of whoever holds the seam.
    pub(crate) fn held(root: PathBuf, seam: Seam) -> Result<Self, Error> {
        let scratch = root.join(SCRATCH);
        match fs::remove_dir_all(&scratch) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::file("sweep", scratch)(e)),
            _ => {}
        }
        fs::create_dir_all(&scratch).map_err(Error::file("make the folder", &scratch))?;
        let objects = LocalFileSystem::new_with_prefix(&root).map_err(|e| Error::corrupt("folder of models", e))?;
        Ok(Self { root, objects: Arc::new(objects.with_fsync(true)), seam })
    }

    /// Where a model lies.
    pub fn path(&self, model: Digest) -> PathBuf {
        self.root.join(name(model))
    }

    /// Bytes of a model's file; `None` if it is not here (any more).
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the store does not answer.
    pub async fn size(&self, model: Digest) -> Result<Option<u64>, Error> {
        match self.objects.head(&location(name(model))).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::corrupt("model", e)),
        }
    }

    /// A range of a model's file, at most [`limits::CHUNK_BYTES`] long.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is not there.
    pub async fn read(&self, model: Digest, range: Range<u64>) -> Result<Bytes, Error> {
        let end = range.end.min(range.start.saturating_add(limits::CHUNK_BYTES as u64));
        let range = range.start..end;
        self.objects.get_range(&location(name(model)), range).await.map_err(|e| Error::corrupt("model", e))
    }

    /// Starts to write a model with these tensors; blocking.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be made.
    pub fn write(&self, tensors: &[TensorShape]) -> Result<Writer, Error> {
        let label = data_encoding::HEXLOWER.encode(&crate::random::<12>()?);
        let path = self.root.join(SCRATCH).join(&label);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::file("make", &path))?;
        let header = Layout::new(tensors)?.header;
        file.write_all(&header).map_err(Error::file("write", &path))?;
        let mut hash = Sha256::new();
        hash.update(b"hospes/model/v1\0");
        hash.update(&header);
        let left = tensors.iter().map(TensorShape::len).fold(0u64, u64::saturating_add).saturating_mul(4);
        let (block, seam) = (Vec::with_capacity(BLOCK_BYTES), self.seam.clone());
        Ok(Writer { file, path, label, hash, left, block, named: false, seam })
    }

    /// Writes a model that begins with the values of another one and goes on with zeros; blocking.
    ///
    /// # Errors
    /// [`Error::File`] if a file cannot be read or written, [`Error::Corrupt`] if the other one has more values.
    pub fn extend(&self, model: Digest, tensors: &[TensorShape]) -> Result<Written, Error> {
        let path = self.path(model);
        let start = Layout::read(&path)?.data_start();
        let mut file = BufReader::with_capacity(BLOCK_BYTES, File::open(&path).map_err(Error::file("open", &path))?);
        file.seek(SeekFrom::Start(start)).map_err(Error::file("read", &path))?;
        let mut writer = self.write(tensors)?;
        let mut block = vec![0u8; BLOCK_BYTES];
        loop {
            let length = fill(&mut file, &mut block).map_err(Error::file("read", &path))?;
            writer.push(block[..length].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)))?;
            if length < block.len() {
                break;
            }
        }
        let left = writer.left / 4;
        writer.push((0..left).map(|_| 0.0))?;
        writer.finish()
    }

    /// Gives a written model its name, durably; naming the same bytes again changes nothing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it cannot be named.
    pub async fn keep(&self, written: Written) -> Result<Digest, Error> {
        let digest = written.digest;
        self.rename(written, name(digest)).await?;
        Ok(digest)
    }

    /// Gives written moments their name, durably; those of the same round before are replaced.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if they cannot be named.
    pub async fn keep_moments(&self, written: Written, of: &MomentsOf) -> Result<(), Error> {
        self.rename(written, of.name()).await
    }

    async fn rename(&self, mut written: Written, to: String) -> Result<(), Error> {
        let from = location(format!("{SCRATCH}/{}", written.label));
        self.objects.rename(&from, &location(to)).await.map_err(|e| Error::corrupt("model", e))?;
        written.named = true;
        self.seam.meet_file(FILE, Moment::Named)
    }

    /// Where moments lie.
    pub fn moments_path(&self, of: &MomentsOf) -> PathBuf {
        self.root.join(of.name())
    }

    /// Deletes moments; those that are not there are no error.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if they cannot be deleted.
    pub async fn delete_moments(&self, of: &MomentsOf) -> Result<(), Error> {
        self.remove(of.name()).await
    }

    /// Deletes a model; one that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it cannot be deleted.
    pub async fn delete(&self, model: Digest) -> Result<(), Error> {
        self.remove(name(model)).await
    }

    async fn remove(&self, name: String) -> Result<(), Error> {
        match self.objects.delete(&location(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(Error::corrupt("model", e)),
        }
    }

    /// Digests of all models that lie here.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be listed.
    pub fn list(&self) -> Result<Vec<Digest>, Error> {
        self.names(|name| name.strip_suffix(".safetensors")?.parse().ok())
    }

    /// All moments that lie here.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be listed.
    pub fn list_moments(&self) -> Result<Vec<MomentsOf>, Error> {
        self.names(MomentsOf::parse)
    }

    fn names<T>(&self, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Error> {
        let entries = fs::read_dir(&self.root).map_err(Error::file("list", &self.root))?;
        let mut found = Vec::new();
        for entry in entries {
            let file = entry.map_err(Error::file("list", &self.root))?.file_name();
            found.extend(file.to_str().and_then(&read));
        }
        Ok(found)
    }
}

fn name(model: Digest) -> String {
    format!("{model}.safetensors")
}

/// Names here are hexadecimal digits, a dot and letters: nothing that would have to be escaped.
fn location(name: String) -> object_store::path::Path {
    object_store::path::Path::from(name)
}

/// A model that is being written. Dropped before [`Writer::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    label: String,
    hash: Sha256,
    left: u64,
    block: Vec<u8>,
    named: bool,
    seam: Seam,
}

/// A model that is written and durable and has no name yet.
#[derive(Debug)]
pub struct Written {
    digest: Digest,
    bytes: u64,
    path: PathBuf,
    label: String,
    named: bool,
}

impl Written {
    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// Bytes of its file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.named {
            // What cannot be removed now is swept away at the next start.
            drop(fs::remove_file(&self.path));
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if !self.named {
            drop(fs::remove_file(&self.path));
        }
    }
}

impl Writer {
    /// Writes the next values.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be written, [`Error::Corrupt`] if there are more than the tensors hold or one
    /// is not finite.
    pub fn push(&mut self, values: impl IntoIterator<Item = f32>) -> Result<(), Error> {
        for value in values {
            if !value.is_finite() {
                return Err(Error::corrupt("model", "a parameter is NaN or infinite"));
            }
            if self.left < 4 {
                return Err(Error::corrupt("model", "there are more values than the tensors hold"));
            }
            self.left -= 4;
            self.block.extend_from_slice(&value.to_le_bytes());
            if self.block.len() >= BLOCK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.write_all(&self.block).map_err(Error::file("write", &self.path))?;
        self.hash.update(&self.block);
        self.block.clear();
        Ok(())
    }

    /// A moment of the file has come. A process that dies at it removes nothing any more: the next start does.
    fn meet(&mut self, moment: Moment) -> Result<(), Error> {
        self.seam.meet_file(FILE, moment).inspect_err(|_| self.named = true)
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be made durable, [`Error::Corrupt`] if values are missing.
    pub fn finish(mut self) -> Result<Written, Error> {
        self.meet(Moment::Written)?;
        self.flush()?;
        if self.left != 0 {
            return Err(Error::corrupt("model", format!("{} values are missing", self.left / 4)));
        }
        self.file.sync_all().map_err(Error::file("synchronise", &self.path))?;
        self.meet(Moment::Durable)?;
        let bytes = self.file.metadata().map_err(Error::file("read", &self.path))?.len();
        self.named = true;
        Ok(Written {
            digest: Digest::from_bytes(std::mem::take(&mut self.hash).finalize().into()),
            bytes,
            path: std::mem::take(&mut self.path),
            label: std::mem::take(&mut self.label),
            named: false,
        })
    }
}

/// Names, shapes and places of the tensors in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    header: Vec<u8>,
    /// Tensors in the order of their bytes.
    pub tensors: Vec<TensorShape>,
}

/// One entry of a safetensors header.
#[derive(Serialize, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Layout {
    /// The layout that this crate writes: `f32`, in the given order, without gaps.
    ///
    /// # Errors
    /// [`Error::Corrupt`] only if a name had no JSON form.
    pub fn new(tensors: &[TensorShape]) -> Result<Self, Error> {
        let mut map = serde_json::Map::new();
        let mut at = 0u64;
        for tensor in tensors {
            let end = at.saturating_add(tensor.len().saturating_mul(4));
            let entry = Entry { dtype: "F32".to_owned(), shape: tensor.shape.clone(), data_offsets: [at, end] };
            map.insert(tensor.name.clone(), serde_json::to_value(entry).map_err(|e| Error::corrupt("header", e))?);
            at = end;
        }
        let mut json = serde_json::to_vec(&map).map_err(|e| Error::corrupt("header", e))?;
        // The data begin at a multiple of eight, as the format's own writer does it.
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend(json);
        Ok(Self { header, tensors: tensors.to_vec() })
    }

    /// Reads the header of a file.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Corrupt`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::corrupt("model", reason);
        let file = File::open(path).map_err(Error::file("open", path))?;
        let size = file.metadata().map_err(Error::file("read", path))?.len();
        let mut file = BufReader::new(file);
        let mut length = [0u8; 8];
        file.read_exact(&mut length).map_err(Error::file("read", path))?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_BYTES || length.saturating_add(8) > size {
            return Err(wrong(format!("its header claims {length} bytes")));
        }
        let mut header = (length).to_le_bytes().to_vec();
        file.take(length).read_to_end(&mut header).map_err(Error::file("read", path))?;
        let map: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&header[8..]).map_err(|e| wrong(e.to_string()))?;
        let mut entries = Vec::new();
        for (name, value) in map.into_iter().filter(|(name, _)| name != "__metadata__") {
            let entry: Entry = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
            entries.push((entry.data_offsets, entry.dtype, TensorShape { name, shape: entry.shape }));
        }
        entries.sort_by_key(|(offsets, ..)| *offsets);
        let mut at = 0u64;
        for ([start, end], dtype, tensor) in &entries {
            if *start != at || end - start != tensor.len().saturating_mul(4) || dtype != "F32" {
                return Err(wrong(format!("tensor '{}' is not where or what it should be", tensor.name)));
            }
            at = *end;
        }
        if at.saturating_add(header.len() as u64) != size {
            return Err(wrong(format!("its file has {size} bytes, its tensors need another number")));
        }
        Ok(Self { header, tensors: entries.into_iter().map(|(_, _, tensor)| tensor).collect() })
    }

    /// Where the first tensor's bytes begin.
    pub fn data_start(&self) -> u64 {
        self.header.len() as u64
    }
}

/// What one should know of a model before using it; made when its job ends, kept with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Digest of the model; none where a run ended with tables of regressions alone.
    pub model: Option<Digest>,
    /// What it is not for.
    #[serde(default)]
    pub notice: String,
    /// Title of the study.
    pub title: String,
    /// Purpose in plain words.
    pub purpose: String,
    /// Who asked.
    pub requester: String,
    /// Who gets the results, as the study says.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// How long the model is kept and how it is withdrawn, as the study says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
    /// Columns that the sites read, but for the one that tells patients apart.
    pub columns: Vec<String>,
    /// Sites whose updates are in it.
    pub parties: Vec<CardParty>,
    /// How the sites' data were protected, in words.
    pub privacy: String,
    /// Figures of the job's evaluations.
    pub metrics: Vec<CardMetrics>,
    /// Regressions of the job.
    #[serde(default)]
    pub fits: Vec<Fit>,
    /// Names and shapes of its tensors.
    pub tensors: Vec<TensorShape>,
    /// How the sites' updates became this model.
    #[serde(default)]
    pub strategy: String,
    /// Tensors that the model needs and does not have: each site has its own, which never left it.
    #[serde(default)]
    pub kept_at_sites: Vec<TensorShape>,
    /// Where it comes from.
    pub lineage: Lineage,
}

impl Card {
    /// The card as one of the sites gets it: figures that other sites reported by themselves are left out. Their people let
    /// them go to the recipients that the study names, and not to each other. What is of all together stays, but for what
    /// one other site is alone in beside this one; so do the tables of regressions.
    #[must_use]
    pub fn for_site(self, site: SiteId) -> Self {
        let others = |task: &str| {
            let is_other = |m: &&CardMetrics| m.task == task && m.site.is_some_and(|of| of != site);
            self.metrics.iter().filter(is_other).collect::<Vec<_>>()
        };
        let for_site = |metrics: &CardMetrics| match metrics.site {
            Some(of) => (of == site).then(|| metrics.clone()),
            None => metrics.clone().beside(&others(&metrics.task)),
        };
        let metrics = self.metrics.iter().filter_map(for_site).collect();
        let mut fits = self.fits;
        // Rows, events and likelihood of two less its own are the other's.
        fits.retain(|fit| fit.sites.iter().filter(|of| **of != site).count() != 1);
        Self { metrics, fits, ..self }
    }
}

impl CardMetrics {
    /// Figures of all sites together, as a site may see them that knows its own: without those that only one of the others
    /// is in, which would follow. `others`: those of each other site by itself.
    fn beside(mut self, others: &[&Self]) -> Option<Self> {
        let of_one = |has: fn(&Self) -> bool| others.iter().filter(|other| has(other)).count() == 1;
        if of_one(|other| other.n.is_some()) {
            return None;
        }
        if of_one(|other| other.further.calibration_slope.is_some()) {
            self.further = FurtherMetrics {
                calibration_slope: None,
                calibration_slope_error: None,
                calibration_intercept: None,
                calibration_intercept_error: None,
                calibration_sites: None,
                ..self.further
            };
        }
        let beside = |group: CardSubgroup| {
            let is_it = |other: &&CardSubgroup| other.column == group.column && other.code == group.code;
            let same = others.iter().flat_map(|other| &other.subgroups).filter(is_it);
            let metrics = group.metrics.clone().beside(&same.map(|other| &other.metrics).collect::<Vec<_>>())?;
            Some(CardSubgroup { metrics, ..group })
        };
        self.subgroups = self.subgroups.into_iter().filter_map(beside).collect();
        Some(self)
    }
}

/// A site whose updates are in a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardParty {
    /// Site.
    pub site: SiteId,
    /// Its name.
    pub name: String,
    /// Its organisation.
    pub organisation: String,
    /// Rounds that it is in.
    pub rounds: u32,
}

/// Figures of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CardMetrics {
    /// Task of the plan.
    pub task: String,
    /// Site; `None` for all sites together.
    pub site: Option<SiteId>,
    /// Rows.
    pub n: Option<f64>,
    /// Rows predicted rightly, as a fraction.
    pub accuracy: Option<f64>,
    /// Mean loss.
    pub loss: Option<f64>,
    /// Mean of (score − label)².
    pub brier: Option<f64>,
    /// Area under the ROC curve from 256 bins of scores.
    pub auc: Option<f64>,
    /// Half the probability that two scores fall into one bin: the most by which `auc` can be off.
    pub auc_bound: Option<f64>,
    /// What else follows from the figures, by the kind of the label; of histograms with its bound.
    #[serde(flatten)]
    pub further: FurtherMetrics,
    /// Figures that a site withheld, with the rule.
    pub withheld: std::collections::BTreeMap<String, String>,
    /// The same for the rows of each code of the column that the evaluation names. Of all sites together: of those that
    /// did not withhold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subgroups: Vec<CardSubgroup>,
}

/// Figures of one subgroup of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CardSubgroup {
    /// Column.
    pub column: String,
    /// Its code.
    pub code: String,
    /// Sites whose rows are in it; the others have none of it, or withhold it.
    pub sites: u32,
    /// Its figures; nothing but what was withheld, where no site shows it.
    pub metrics: CardMetrics,
}

/// Figures of a model's quality that not every kind of label has. Those from histograms of 256 bins come with the most
/// by which the order of rows within bins could change them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FurtherMetrics {
    /// Largest distance between the scores' distributions in both classes (Kolmogorov, Smirnov).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ks: Option<f64>,
    /// The most by which `ks` can be off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ks_bound: Option<f64>,
    /// Average precision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_precision: Option<f64>,
    /// The most by which `average_precision` can be off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_precision_bound: Option<f64>,
    /// For each tenth of the rows with the highest scores: share of the rows, share of the positive ones, lift.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gains: Vec<[f64; 3]>,
    /// The most by which a share of the positive ones in `gains` can be off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain_bound: Option<f64>,
    /// Recall and precision from the highest bin of scores to the lowest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub precision_recall: Vec<[f64; 2]>,
    /// Slope of the logistic recalibration; of all sites together the mean of the sites' own, weighed by their precision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_slope: Option<f64>,
    /// Its standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_slope_error: Option<f64>,
    /// Intercept of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_intercept: Option<f64>,
    /// Its standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_intercept_error: Option<f64>,
    /// Of all sites together: sites of which slope and intercept are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_sites: Option<u32>,
    /// Mean of the classes' F1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macro_f1: Option<f64>,
    /// Area under the ROC curve of each class against the others, in the order of the plan; `None` where one is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_auc: Vec<Option<f64>>,
    /// The most by which each `class_auc` can be off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_auc_bound: Vec<Option<f64>>,
    /// Root of the mean squared error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmse: Option<f64>,
    /// Mean absolute error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mae: Option<f64>,
    /// Share of the label's variance that is explained, over the rows of all sites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r_squared: Option<f64>,
    /// Share of comparable pairs within sites in the right order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub c_index: Option<f64>,
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// Study.
    pub study: StudyId,
    /// Digest of the study document that the sites approved.
    pub study_digest: Digest,
    /// Digest of the plan.
    pub plan: Digest,
    /// Job.
    pub job: JobId,
    /// Task that trained it.
    pub task: String,
    /// Digests of the headers of its rounds, first to last.
    pub rounds: Vec<Digest>,
    /// How training ended, if it ended before its last round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<CardEarlyStop>,
    /// Model that it started from.
    pub initial: Option<Digest>,
    /// When it was made.
    pub at: Timestamp,
    /// Size and root of the coordinator's audit ledger just before.
    pub checkpoint: String,
    /// The search of which it is the best, where the study has many settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<CardSweep>,
}

/// Training that ended early: the model is not that of the last round, but the best on the rows for validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CardEarlyStop {
    /// Round whose model it is; 0 for the one that training began with.
    pub round: u32,
    /// Its mean loss on the sites' rows for validation. It is the best of several, and so better than on other patients.
    pub loss: f64,
    /// Rounds after which training ended.
    pub rounds: u32,
    /// Rounds that were planned at most.
    pub planned: u32,
}

/// The search of which a model is the best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CardSweep {
    /// Which setting it was, from 1.
    pub setting: u32,
    /// How many settings the study has.
    pub settings: u32,
    /// How many of them gave a model.
    pub done: u32,
    /// How many of those were compared: judged at the same sites, with a figure that is known.
    pub compared: u32,
    /// Its numbers by place in the plan.
    pub values: std::collections::BTreeMap<String, f64>,
    /// Evaluation, figure and direction by which it was chosen.
    pub rank: Rank,
    /// Its figure.
    pub figure: Option<f64>,
    /// What one should know of that figure, in words.
    pub note: String,
}

/// The words on a card about the figure of a model that was chosen among several.
pub const CHOSEN_NOTE: &str = "The model was chosen for this figure among several that were judged on the same patients, \
so that the figure is better than what is to be expected on others. Judge the model on patients that had no part in the \
choice before anything depends on it.";

/// The words on every card about what a model is not for.
pub const NOTICE: &str = "Research use only, not for diagnosis or treatment.";

/// The words about privacy on a card of a model that was trained in plain mode.
const PLAIN_PRIVACY: &str = "Updates travelled as they are, inside TLS: the coordinator could read each site's \
update.";

/// What a card says where updates travelled with secure aggregation, and figures as they are.
const MASKED_PRIVACY: &str = "Updates travelled masked (secure aggregation): the coordinator learned their sum over the \
sites of a round and no site's own, unless more sites colluded with it than the round counted on. Figures travelled as they \
are, inside TLS.";

/// What a card says where nothing travelled as it is.
const WHOLLY_MASKED: &str = "All that sites sent travelled masked (secure aggregation): the coordinator learned the sums over \
the sites of a round and nothing of one site, unless more sites colluded with it than the round counted on.";

/// The words that follow where sites trained one after the other.
const TURNS_PRIVACY: &str = " Each round was one site's: the site that went on from its model could read its update.";

/// What a card says about how a task's updates, or the sums of a regression, and the figures of its plan travelled.
#[must_use]
pub fn protection(plan: &Plan, task: &str) -> String {
    let by_turns = match plan.tasks.get(task).map(|task| &task.component) {
        Some(Component::NnTrain(train)) => train.strategy == (Strategy::Cyclic {}),
        _ => false,
    };
    let reports = plan.tasks.iter().filter(|(_, task)| task.component.reports_figures());
    let (masked, open): (Vec<_>, Vec<_>) = reports.partition(|(_, task)| task.component.is_masked());
    // Sites take part in no round without masks of a task that promises them.
    let mut words = match plan::masks::is_masked(plan, task) {
        true if open.is_empty() => return format!("{WHOLLY_MASKED} {}", noise::words(plan, task)),
        true => MASKED_PRIVACY.to_owned(),
        false => PLAIN_PRIVACY.to_owned(),
    };
    if by_turns {
        words.push_str(TURNS_PRIVACY);
    }
    if !masked.is_empty() {
        let names: Vec<&str> = masked.iter().map(|(name, _)| name.as_str()).collect();
        words.push_str(&format!(" Of {} the coordinator learned the sums over the sites only.", names.join(", ")));
    }
    format!("{words} {}", noise::words(plan, task))
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
