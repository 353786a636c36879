//! A snapshot: the frozen, encrypted copy of a dataset that approvals bind by its digest.
//!
//! The file is Parquet with modular encryption (AES-256-GCM, footer included). Its [`SnapshotDocument`] carries the
//! SHA-256 of the file, and the document's digest names the snapshot; so neither file nor schema can change unseen.
//! Subject keys are stored as keyed hashes only; masked columns are not stored at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{FixedSizeBinaryBuilder, Float64Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field};
use data_encoding::HEXLOWER;
use hospes_protocol::approval::SnapshotFacts;
use hospes_protocol::canon::{CanonError, Canonical, Document};
use hospes_protocol::id::{Digest, Timestamp};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::CohortError;
use crate::opt_out::{OptOuts, SubjectHash, SubjectKey};
use crate::pool::{Members, PoolKey};
use crate::schema::{Column, ColumnKind, ImageSize, Schema};
use crate::source::sql::Query;
use crate::source::{self, Format, Limits, Reading, Record, Rows, Source, SourceKind};

/// The 32 bytes that open one snapshot. `Debug` shows nothing, and there is no `Serialize`.
#[derive(Clone)]
pub struct SnapshotKey(Zeroizing<[u8; 32]>);

impl SnapshotKey {
    /// Wraps 32 random bytes that the caller drew for this snapshot alone.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotKey(…)")
    }
}

/// What a snapshot is; its digest is the snapshot's name in approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotDocument {
    /// When it was frozen.
    pub at: Timestamp,
    /// SHA-256 of the encrypted file.
    pub file: Digest,
    /// Length of the encrypted file.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Distinct subjects.
    pub subjects: u64,
    /// Columns that it holds, with their types; the subject is among them.
    pub schema: Schema,
    /// Columns of the source that were masked and are not in it.
    pub masked: Vec<String>,
    /// SHA-256 of the source file; of a query, of its rows.
    pub source: Digest,
    /// How the source was read.
    pub format: Format,
    /// Whether the data are tagged as public.
    pub public: bool,
}

impl Document for SnapshotDocument {
    const KIND: &'static str = "snapshot";
    const VERSION: u32 = 1;
}

/// What all versions of a dataset have in common under an approval of the series: the same query, mapping and schema.
/// Encoding, delimiter and notation of numbers are left out, since they say how a file was written and change no value; so is
/// the type of the subject column, of which only hashes are kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotForm {
    source: SourceKind,
    sheet: Option<String>,
    missing: BTreeSet<String>,
    columns: BTreeMap<String, ColumnKind>,
    subject: String,
    public: bool,
    /// The whole of it: another one can choose other patients and give the same columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<Query>,
}

impl Document for SnapshotForm {
    const KIND: &'static str = "snapshot-form";
    const VERSION: u32 = 1;
}

impl SnapshotDocument {
    /// Digest of what an approval of a series holds its versions to: the kind of the source, the sheet of a workbook, the
    /// cells that mean *missing*, the name of the subject column, the others that are kept with their types in whatever
    /// order, the tag *public*, and of a database which one it is and the query.
    ///
    /// # Errors
    /// [`CohortError::Canon`] only if the document itself had no canonical form.
    ///
    /// # Disclosure
    /// A digest of names and types of columns; nothing about patients.
    pub fn form(&self) -> Result<Digest, CohortError> {
        let others = self.schema.columns.iter().filter(|c| c.name != self.schema.subject);
        let form = SnapshotForm {
            source: self.format.kind,
            sheet: self.format.sheet.clone(),
            missing: self.format.missing.iter().cloned().collect(),
            columns: others.map(|c| (c.name.clone(), c.kind)).collect(),
            subject: self.schema.subject.clone(),
            public: self.public,
            query: self.format.query.clone(),
        };
        Ok(Canonical::new(form)?.digest())
    }
}

/// A snapshot's document and where its file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is.
    pub document: Canonical<SnapshotDocument>,
    /// The encrypted file.
    pub path: PathBuf,
}

/// Distinct subjects, with and without those who opted out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectCount {
    /// In the snapshot.
    pub total: u64,
    /// Those of them on the opt-out list.
    pub opted_out: u64,
}

impl SubjectCount {
    /// Subjects who did not opt out.
    ///
    /// # Disclosure
    /// A count, for the site's own decision and the permit.
    pub const fn left(self) -> u64 {
        self.total - self.opted_out
    }
}

/// What is frozen, from where, into which folder.
#[derive(Debug, Clone, Copy)]
pub struct Freeze<'a> {
    /// The source file, the folder of images, or the open query.
    pub source: Source<'a>,
    /// How it is read.
    pub format: &'a Format,
    /// Types and masks, as the steward decided.
    pub schema: &'a Schema,
    /// The engine's own folder of snapshots.
    pub folder: &'a Path,
    /// Whether the data are tagged as public.
    pub public: bool,
    /// Now.
    pub at: Timestamp,
    /// Limits on the source.
    pub limits: Limits,
}

/// Bound to every module of the file besides the key, so that a file of another kind never opens.
const AAD: &[u8] = b"hospes/snapshot/v1";
/// Cells of one row group, where it then has rows from [`GROUP_ROWS`].
const GROUP_CELLS: usize = 4 << 20;
/// Fewest and most rows of a row group. Each group has metadata for every column, so that a wide table in small groups
/// would have more of them than of cells.
const GROUP_ROWS: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 16;
/// Cells of one batch, where it then has rows from [`BATCH_ROWS`].
const BATCH_CELLS: usize = 1 << 20;
/// Bytes of images that are in memory together, in a row group and in a batch.
const IMAGE_BYTES: usize = 64 << 20;
/// Fewest and most rows of a batch that is read.
const BATCH_ROWS: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 13;

/// Freezes a file: reads it once more with the schema, encrypts it, makes it durable under its digest's name.
///
/// # Errors
/// [`CohortError`] names file, line, column and rule of the first cell that does not fit, the limit on the names of all
/// columns, or why the file could not be written; a partly written file is removed.
///
/// # Disclosure
/// Numbers of rows and subjects, for the steward; the file itself opens with the key only.
pub fn freeze(order: Freeze<'_>, key: &SnapshotKey, subjects: &SubjectKey) -> Result<Snapshot, CohortError> {
    freeze_followed(order, key, subjects, (&Reading::default(), 0))
}

/// The same with somebody who follows it and may end it, and with the rows that a survey has counted.
///
/// # Errors
/// As [`freeze`], and [`CohortError::Cancelled`] where they ended it.
///
/// # Disclosure
/// As [`freeze`].
pub fn freeze_followed(
    order: Freeze<'_>,
    key: &SnapshotKey,
    subjects: &SubjectKey,
    (reading, rows): (&Reading, u64),
) -> Result<Snapshot, CohortError> {
    if order.schema.column(&order.schema.subject).is_none() {
        return Err(CohortError::UnknownColumn { column: order.schema.subject.clone() });
    }
    let partial = Partial::create(order.folder)?;
    reading.begins(rows);
    let written = write_file(&order, key, subjects, &partial, reading)?;
    let (masked, kept): (Vec<_>, Vec<_>) = order.schema.columns.iter().partition(|c| is_masked(order.schema, c));
    let kept = Schema { columns: kept.into_iter().cloned().collect(), subject: order.schema.subject.clone() };
    let document = Canonical::new(SnapshotDocument {
        at: order.at,
        file: written.digest,
        bytes: written.bytes,
        rows: written.rows,
        subjects: written.subjects,
        schema: kept,
        masked: masked.into_iter().map(|c| c.name.clone()).collect(),
        source: written.source,
        format: order.format.clone(),
        public: order.public,
    })
    .map_err(|error| match error {
        CanonError::TooLarge(_) => CohortError::TooManyNames { columns: order.schema.columns.len() },
        other => other.into(),
    })?;
    let path = order.folder.join(format!("{}.parquet", document.digest()));
    partial.keep(&path)?;
    Ok(Snapshot { document, path })
}

fn is_masked(schema: &Schema, column: &Column) -> bool {
    column.masked && column.name != schema.subject
}

/// A file that disappears unless it is kept.
pub(crate) struct Partial {
    path: PathBuf,
    kept: bool,
}

impl Partial {
    pub(crate) fn create(folder: &Path) -> Result<Self, CohortError> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(".{}-{}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path).map_err(|source| CohortError::Write { path: path.clone(), source })?;
        Ok(Self { path, kept: false })
    }

    pub(crate) fn file(&self) -> Result<File, CohortError> {
        std::fs::OpenOptions::new()
            .write(true)
            .open(&self.path)
            .map_err(|source| CohortError::Write { path: self.path.clone(), source })
    }

    /// Gives the durable file its name and makes the name durable too.
    pub(crate) fn keep(mut self, path: &Path) -> Result<(), CohortError> {
        let fail = |source| CohortError::Write { path: path.to_owned(), source };
        std::fs::rename(&self.path, path).map_err(fail)?;
        self.kept = true;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(folder).map_err(fail)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing can be done about a file that cannot be removed; the engine sweeps the folder at its start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    // Other systems make a rename durable with the file itself.
    Ok(())
}

/// Counts and hashes what goes by.
pub(crate) struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> HashingWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// Whatever it wrote to, with SHA-256 and length of what went by.
    pub(crate) fn ended(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_bytes(self.hash.finalize().into()), self.bytes)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hash.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Written {
    /// Of the source, as it was read.
    source: Digest,
    digest: Digest,
    bytes: u64,
    rows: u64,
    subjects: u64,
}

enum Builder {
    Number(Float64Builder),
    Text(StringBuilder),
    Image(FixedSizeBinaryBuilder, ImageSize),
}

/// One column on its way into the file.
struct Sink {
    /// Position in the source.
    index: usize,
    name: String,
    kind: ColumnKind,
    is_subject: bool,
    builder: Builder,
}

fn write_file(
    order: &Freeze<'_>,
    key: &SnapshotKey,
    subjects: &SubjectKey,
    partial: &Partial,
    reading: &Reading,
) -> Result<Written, CohortError> {
    let file = order.source.name();
    let mut input = Rows::open(order.source, order.format, order.limits, true)?;
    if !input.names().iter().eq(order.schema.columns.iter().map(|c| &c.name)) {
        return Err(CohortError::SourceChanged { file });
    }
    check_image(order.schema, input.image())?;
    let mut sinks = sinks(order.schema);
    let output = HashingWriter::new(io::BufWriter::new(partial.file()?));
    let group = (GROUP_CELLS / sinks.len()).clamp(*GROUP_ROWS.start(), *GROUP_ROWS.end());
    let group = group.min(images_at_once(&order.schema.columns));
    let mut writer = arrow_writer(output, &sinks, key, group)?;
    let mut seen: std::collections::HashSet<SubjectHash> = std::collections::HashSet::new();
    let (mut rows, mut pending) = (0u64, 0usize);
    while let Some(record) = input.next_row()? {
        rows += 1;
        reading.passes(rows)?;
        for sink in &mut sinks {
            sink.push(&record, order.format, &file, subjects, &mut seen)?;
        }
        pending += 1;
        if pending == group {
            flush(&mut writer, &mut sinks)?;
            pending = 0;
        }
    }
    if pending > 0 {
        flush(&mut writer, &mut sinks)?;
    }
    let source = input.finish()?;
    let output = writer.into_inner().map_err(encode_error)?;
    let (output, digest, bytes) = output.ended();
    let fail = |source| CohortError::Write { path: order.folder.to_owned(), source };
    output.into_inner().map_err(|e| fail(e.into_error()))?.sync_all().map_err(fail)?;
    Ok(Written { source, digest, bytes, rows, subjects: seen.len() as u64 })
}

/// An image is one by its source, and nothing else is.
fn check_image(schema: &Schema, image: Option<(usize, ImageSize)>) -> Result<(), CohortError> {
    for (index, column) in schema.columns.iter().enumerate() {
        let here = image.filter(|(at, _)| *at == index).map(|(_, size)| ColumnKind::Image(size));
        let fits = match here {
            Some(kind) => column.kind == kind && column.name != schema.subject,
            None => !matches!(column.kind, ColumnKind::Image(_)),
        };
        if !fits {
            let found = if here.is_some() { "an image" } else { "no image" };
            let reason = format!("column '{}' is {found} in the source, and cannot be anything else", column.name);
            return Err(CohortError::Format { what: "column type", reason });
        }
    }
    Ok(())
}

/// Rows that may be in memory together, by the images in them.
fn images_at_once<'c>(columns: impl IntoIterator<Item = &'c Column>) -> usize {
    let bytes = columns.into_iter().map(|column| match column.kind {
        ColumnKind::Image(size) => size.bytes(),
        _ => 0,
    });
    match bytes.sum::<usize>() {
        0 => usize::MAX,
        bytes => (IMAGE_BYTES / bytes).max(1),
    }
}

/// The width of a column of images; the limit on an image is far below the largest i32.
fn image_width(size: ImageSize) -> i32 {
    i32::try_from(size.bytes()).unwrap_or(i32::MAX)
}

fn sinks(schema: &Schema) -> Vec<Sink> {
    let kept = schema.columns.iter().enumerate().filter(|(_, c)| !is_masked(schema, c));
    kept.map(|(index, column)| {
        let is_subject = column.name == schema.subject;
        let builder = match column.kind {
            ColumnKind::Number if !is_subject => Builder::Number(Float64Builder::new()),
            ColumnKind::Image(size) => Builder::Image(FixedSizeBinaryBuilder::new(image_width(size)), size),
            _ => Builder::Text(StringBuilder::new()),
        };
        Sink { index, name: column.name.clone(), kind: column.kind, is_subject, builder }
    })
    .collect()
}

impl Sink {
    fn push(
        &mut self,
        record: &Record<'_>,
        format: &Format,
        file: &str,
        subjects: &SubjectKey,
        seen: &mut std::collections::HashSet<SubjectHash>,
    ) -> Result<(), CohortError> {
        let cell = record.field(self.index).trim();
        let wrong = |expected| CohortError::WrongType {
            file: file.to_owned(),
            place: record.place,
            column: self.name.clone(),
            expected,
        };
        let missing = format.is_missing(cell);
        match &mut self.builder {
            Builder::Image(builder, size) => {
                let pixels = record.pixels.filter(|p| p.len() == size.bytes()).ok_or_else(|| wrong("image"))?;
                builder.append_value(pixels).map_err(|e| CohortError::Encode { reason: e.to_string() })?;
            }
            Builder::Text(builder) if self.is_subject => {
                if missing {
                    let (file, column) = (file.to_owned(), self.name.clone());
                    return Err(CohortError::NoSubject { file, place: record.place, column });
                }
                let hash = subjects.hash(cell);
                seen.insert(hash);
                builder.append_value(HEXLOWER.encode(&hash));
            }
            Builder::Number(builder) if missing => builder.append_null(),
            Builder::Number(builder) => {
                builder.append_value(source::number(cell, format.decimal).ok_or_else(|| wrong("number"))?);
            }
            Builder::Text(builder) if missing => builder.append_null(),
            Builder::Text(builder) => match self.kind {
                ColumnKind::Date if source::date(cell).is_none() => return Err(wrong("date")),
                ColumnKind::Category => builder.append_value(hospes_protocol::plan::code(cell)),
                _ => builder.append_value(cell),
            },
        }
        Ok(())
    }

    fn field(&self) -> Field {
        let kind = match &self.builder {
            Builder::Number(_) => DataType::Float64,
            Builder::Text(_) => DataType::Utf8,
            Builder::Image(_, size) => DataType::FixedSizeBinary(image_width(*size)),
        };
        Field::new(&self.name, kind, true)
    }

    fn finish(&mut self) -> ArrayRef {
        match &mut self.builder {
            Builder::Number(builder) => Arc::new(builder.finish()),
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Image(builder, _) => Arc::new(builder.finish()),
        }
    }
}

type Output = HashingWriter<io::BufWriter<File>>;

fn arrow_writer(
    output: Output,
    sinks: &[Sink],
    key: &SnapshotKey,
    group: usize,
) -> Result<ArrowWriter<Output>, CohortError> {
    let encryption = FileEncryptionProperties::builder(key.bytes().to_vec())
        .with_aad_prefix(AAD.to_vec())
        .with_aad_prefix_storage(false)
        .build()
        .map_err(encode_error)?;
    let properties = WriterProperties::builder()
        .with_file_encryption_properties(encryption)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).map_err(encode_error)?))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(group))
        .build();
    let schema = Arc::new(arrow_schema::Schema::new(sinks.iter().map(Sink::field).collect::<Vec<_>>()));
    ArrowWriter::try_new(output, schema, Some(properties)).map_err(encode_error)
}

fn flush(writer: &mut ArrowWriter<Output>, sinks: &mut [Sink]) -> Result<(), CohortError> {
    let columns: Vec<ArrayRef> = sinks.iter_mut().map(Sink::finish).collect();
    let schema = Arc::new(arrow_schema::Schema::new(sinks.iter().map(Sink::field).collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(schema, columns).map_err(|e| CohortError::Encode { reason: e.to_string() })?;
    writer.write(&batch).map_err(encode_error)
}

fn encode_error(error: parquet::errors::ParquetError) -> CohortError {
    CohortError::Encode { reason: error.to_string() }
}

/// SHA-256 and length of what a reader gives.
pub(crate) fn digest_of(reader: &mut impl Read) -> io::Result<(Digest, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((Digest::from_bytes(hash.finalize().into()), bytes)),
            Ok(n) => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

impl Snapshot {
    /// What a permit needs to know of the snapshot.
    ///
    /// # Disclosure
    /// Digest, names of columns, a count of subjects: for the site's own permit, it does not leave.
    pub fn facts(&self, count: SubjectCount) -> SnapshotFacts {
        SnapshotFacts {
            digest: self.document.digest(),
            columns: self.document.schema.kept(),
            subjects: count.left(),
            public: self.document.public,
            version: None,
        }
    }

    /// Checks that the file is byte for byte the one that was frozen.
    ///
    /// # Errors
    /// [`CohortError::Altered`] if it is not, [`CohortError::OpenSource`] if it is gone.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn verify(&self) -> Result<(), CohortError> {
        self.verified_file().map(drop)
    }

    fn verified_file(&self) -> Result<File, CohortError> {
        let mut file = source::open(&self.path)?;
        let fail = |e| source::read_error("the snapshot", e);
        let (digest, bytes) = digest_of(&mut file).map_err(fail)?;
        let altered = |what| CohortError::Altered { path: self.path.clone(), what };
        if bytes != self.document.bytes {
            return Err(altered("its length differs"));
        }
        if digest != self.document.file {
            return Err(altered("its SHA-256 differs"));
        }
        // The same open file is read afterwards: a file put in its place meanwhile is never seen.
        file.rewind().map_err(fail)?;
        Ok(file)
    }

    /// Counts distinct subjects with and without those who opted out.
    ///
    /// # Errors
    /// [`CohortError`] if the snapshot was altered or the key is wrong.
    ///
    /// # Disclosure
    /// Two counts, for the site's own people and its permits.
    pub fn count_subjects(&self, key: &SnapshotKey, opt_outs: &OptOuts) -> Result<SubjectCount, CohortError> {
        let all = self.subjects(key)?;
        let opted_out = all.iter().filter(|h| opt_outs.has(h)).count() as u64;
        Ok(SubjectCount { total: all.len() as u64, opted_out })
    }

    /// Its subjects as members of a pool, those who opted out among them: what was released of them before stays so.
    ///
    /// # Errors
    /// [`CohortError`] if the snapshot was altered or the key is wrong.
    ///
    /// # Disclosure
    /// Keyed hashes, for the site's own store; who it is shows only to a holder of the site's secrets.
    pub fn members(&self, key: &SnapshotKey, pools: &PoolKey) -> Result<Members, CohortError> {
        Ok(Members::of(self.subjects(key)?.iter().map(|hash| pools.hash(hash))))
    }

    fn subjects(&self, key: &SnapshotKey) -> Result<BTreeSet<SubjectHash>, CohortError> {
        let wanted = BTreeSet::from([self.document.schema.subject.clone()]);
        let mut all = BTreeSet::new();
        self.read(key, &wanted, &mut |batch| {
            let hashes = batch.column(0).as_any().downcast_ref::<arrow_array::StringArray>();
            all.extend(hashes.into_iter().flatten().map(subject_hash));
            Ok(())
        })?;
        Ok(all)
    }

    /// Reads some columns, batch by batch, in the order of the file. The whole file is checked before the first row.
    pub(crate) fn read(
        &self,
        key: &SnapshotKey,
        columns: &BTreeSet<String>,
        each: &mut dyn FnMut(&RecordBatch) -> Result<(), CohortError>,
    ) -> Result<(), CohortError> {
        let file = self.verified_file()?;
        let decryption = FileDecryptionProperties::builder(key.bytes().to_vec())
            .with_aad_prefix(AAD.to_vec())
            .build()
            .map_err(encode_error)?;
        let options = ArrowReaderOptions::new().with_file_decryption_properties(decryption);
        // The bytes are the registered ones, so what does not open now has another key.
        let unreadable = |_| CohortError::Key { what: "the snapshot" };
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(unreadable)?;
        let present: Vec<String> = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
        let known: BTreeSet<&String> = present.iter().collect();
        if let Some(absent) = columns.iter().find(|c| !known.contains(c)) {
            return Err(CohortError::UnknownColumn { column: absent.clone() });
        }
        let wanted = present.iter().enumerate().filter(|(_, n)| columns.contains(*n)).map(|(i, _)| i);
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let rows = (BATCH_CELLS / columns.len().max(1)).clamp(*BATCH_ROWS.start(), *BATCH_ROWS.end());
        let read = self.document.schema.columns.iter().filter(|c| columns.contains(&c.name));
        let rows = rows.min(images_at_once(read));
        let reader = builder.with_projection(mask).with_batch_size(rows).build().map_err(unreadable)?;
        for batch in reader {
            each(&batch.map_err(|e| CohortError::Encode { reason: e.to_string() })?)?;
        }
        Ok(())
    }
}

/// Reads a hash back; what is no hash becomes one that nobody has.
pub(crate) fn subject_hash(text: Option<&str>) -> SubjectHash {
    let mut hash = [0; 16];
    if let Some(Ok(bytes)) = text.map(|t| HEXLOWER.decode(t.as_bytes()))
        && bytes.len() == hash.len()
    {
        hash.copy_from_slice(&bytes);
    }
    hash
}
