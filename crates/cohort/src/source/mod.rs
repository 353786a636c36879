//! Files and databases as hospitals have them: found out in one bounded pass, described without any value.

mod cell;
mod decode;
mod folder;
mod ndjson;
mod npy;
mod npz;
mod parquet_file;
mod reading;
mod records;
mod rows;
mod sniff;
pub mod sql;
mod tally;
mod xlsx;
mod zip;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use cell::Decimal;
pub use decode::Encoding;
pub use reading::Reading;
pub use rows::{Place, SourceKind};
pub use sniff::Delimiter;
pub use tally::{ColumnSurvey, Distinct, NumberSummary};

pub(crate) use cell::{date, number};
pub(crate) use records::{Record, RecordReader};
pub(crate) use rows::Rows;
pub(crate) use tally::{Moments, PatternCounts};

use crate::error::CohortError;
use crate::scan::{self, Finding, ScanProfile};
use crate::schema::{Column, ColumnKind, ImageSize, Schema};
use tally::Tally;

/// Limits on what comes from a file. Memory depends on these and not on the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one record, quotes and line breaks inside quotes included.
    pub record_bytes: usize,
    /// Bytes of one field.
    pub field_bytes: usize,
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { record_bytes: 4 << 20, field_bytes: 64 << 10, columns: 10_000, rows: 100_000_000 }
    }
}

/// How a file is to be read. `None` is found out from the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Encoding.
    pub encoding: Option<Encoding>,
    /// Delimiter.
    pub delimiter: Option<Delimiter>,
    /// Notation of numbers.
    pub decimal: Option<Decimal>,
    /// Name of the sheet of a workbook; `None` is the first.
    pub sheet: Option<String>,
    /// Column that tells patients apart.
    pub subject: Option<String>,
    /// Cells that mean *missing*, after trimming; the empty cell always does. `None` is what is usual for the kind of
    /// source: [`DEFAULT_MISSING`], or some of it.
    pub missing: Option<Vec<String>>,
    /// Who follows the reading, if somebody does.
    pub reading: Reading,
}

/// Cells of a text file that mean *missing* unless the steward says otherwise. How often each occurs is in the survey, so that a
/// column in which -9 is a value can be told.
pub const DEFAULT_MISSING: [&str; 4] = ["?", "NA", "N/A", "-9"];

/// How a file is read: everything that [`crate::snapshot::freeze`] needs to read it the same way again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// Kind of source. Encoding and delimiter are those of its text, where it has any.
    #[serde(default, skip_serializing_if = "SourceKind::is_delimited")]
    pub kind: SourceKind,
    /// Name of the sheet, of a workbook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sheet: Option<String>,
    /// Encoding.
    pub encoding: Encoding,
    /// Delimiter.
    pub delimiter: Delimiter,
    /// Notation of numbers.
    pub decimal: Decimal,
    /// Cells that mean *missing*, besides the empty one.
    pub missing: Vec<String>,
    /// What was asked of which database, where the rows are a query's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<sql::Query>,
    /// How strictly identifiers were looked for, so that who reads it again looks as strictly.
    #[serde(default, skip_serializing_if = "ScanProfile::is_default")]
    pub scan: ScanProfile,
}

/// Where rows come from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A file, or a folder of images with its table.
    File(&'a Path),
    /// A query in an open transaction.
    Query(&'a sql::OpenQuery),
}

impl<'a> From<&'a Path> for Source<'a> {
    fn from(path: &'a Path) -> Self {
        Self::File(path)
    }
}

impl<'a> From<&'a PathBuf> for Source<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Self::File(path)
    }
}

impl<'a> From<&'a sql::OpenQuery> for Source<'a> {
    fn from(query: &'a sql::OpenQuery) -> Self {
        Self::Query(query)
    }
}

impl Source<'_> {
    /// What errors call it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::File(path) => file_name(path),
            Self::Query(open) => open.file().to_owned(),
        }
    }
}

impl Format {
    pub(crate) fn is_missing(&self, cell: &str) -> bool {
        cell.is_empty() || self.missing.iter().any(|m| m == cell)
    }
}

/// What was found in a source: format, columns, counts, and what looks like an identifier. No cell of it is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Name of the file, without its folder; of a query, the database.
    pub file: String,
    /// The file's length; of a query, nothing.
    pub bytes: u64,
    /// How it is read.
    pub format: Format,
    /// Why this encoding.
    pub encoding_reason: String,
    /// Names of a workbook's sheets, of which `format` names the one that was read; of any other source, none.
    #[serde(default)]
    pub sheets: Vec<String>,
    /// Rows, without the header.
    pub rows: u64,
    /// Columns in order.
    pub columns: Vec<ColumnSurvey>,
    /// Columns that look like identifiers, and why.
    pub findings: Vec<Finding>,
    /// The column that tells patients apart: the one chosen, or else the likeliest.
    pub subject_guess: Option<String>,
}

impl Survey {
    /// The schema that the survey suggests: found types, findings of the scan masked, the given subject column. What the
    /// survey took for the subject column and is not given here is masked: it identifies all the same.
    ///
    /// # Errors
    /// [`CohortError::UnknownColumn`] if there is no such column.
    ///
    /// # Disclosure
    /// Names and types of columns.
    pub fn schema(&self, subject: &str) -> Result<Schema, CohortError> {
        if !self.columns.iter().any(|c| c.name == subject) {
            return Err(CohortError::UnknownColumn { column: subject.to_owned() });
        }
        let found: HashSet<&str> = self.findings.iter().map(|f| f.column.as_str()).collect();
        let columns = self
            .columns
            .iter()
            .map(|c| Column {
                name: c.name.clone(),
                kind: c.kind,
                masked: c.name != subject && found.contains(c.name.as_str()),
            })
            .collect();
        Ok(Schema { columns, subject: subject.to_owned() })
    }
}

/// Reads a file, a folder of images with its table, or a query's rows from end to end and says what is in it.
///
/// # Errors
/// [`CohortError`] names file, place and rule of the first thing that cannot be: a ragged row, bytes of another
/// encoding, an image of another size, a limit, no rows, no header.
///
/// # Disclosure
/// Counts, minimum, maximum and mean of numeric columns, and numbers of distinct values, for the steward at the site.
/// Minimum and maximum can be one patient's value: the survey is a local view and does not leave. An error about an image
/// of another size names its file.
pub fn survey<'a>(
    from: impl Into<Source<'a>>,
    hints: &Hints,
    profile: ScanProfile,
    limits: Limits,
) -> Result<Survey, CohortError> {
    let from = from.into();
    let file = from.name();
    let (mut format, encoding_reason, bytes) = match from {
        Source::File(path) => file_format(path, hints)?,
        Source::Query(open) => (query_format(open, hints)?, "that of the database", 0),
    };
    format.scan = profile;
    let mut source = Rows::open(from, &format, limits, false)?;
    let (names, image) = (source.names().to_vec(), source.image());
    let mut sheets = Vec::new();
    if let Some((read, all)) = source.sheets() {
        format.sheet = Some(read.to_owned());
        sheets = all.to_vec();
    }
    let mut tallies: Vec<Tally> = names.iter().map(|_| Tally::new(names.len(), format.missing.len())).collect();
    let mut rows = 0u64;
    hints.reading.begins(0);
    while let Some(record) = source.next_row()? {
        rows += 1;
        hints.reading.passes(rows)?;
        for (cell, tally) in record.fields().zip(&mut tallies) {
            tally.add(cell.trim(), &format.missing);
        }
    }
    format.decimal = hints.decimal.unwrap_or_else(|| tally::decimal_of(&tallies));
    let is_image = |index: usize| image.filter(|(at, _)| *at == index).map(|(_, size)| size);
    let columns = names.iter().zip(&tallies).enumerate();
    let columns: Vec<ColumnSurvey> = columns
        .map(|(index, (name, tally))| match is_image(index) {
            Some(size) => image_survey(name, size, rows),
            None => tally.finish(name, rows, &format),
        })
        .collect();
    let subject_guess = hints.subject.clone().or_else(|| guess_subject(&columns));
    // The cells of the column of images are the names of their files, which nobody registers.
    let none = PatternCounts::default();
    let patterns = tallies.iter().enumerate().map(|(i, t)| if is_image(i).is_some() { &none } else { t.patterns() });
    let findings = scan::scan(&columns, &patterns.collect::<Vec<_>>(), subject_guess.as_deref(), profile);
    Ok(Survey {
        file,
        bytes,
        format,
        encoding_reason: encoding_reason.to_owned(),
        sheets,
        rows,
        columns,
        findings,
        subject_guess,
    })
}

/// How a file is read, why in this encoding, and how long it is.
fn file_format(path: &Path, hints: &Hints) -> Result<(Format, &'static str, u64), CohortError> {
    let kind = SourceKind::of(path);
    let described = match kind {
        SourceKind::ImageFolder => folder::table_of(path)?,
        _ => path.to_owned(),
    };
    let bytes = open(&described)?.metadata().map_err(|source| read_error(&file_name(path), source))?.len();
    let (format, reason) = sniff_format(&described, kind, hints, bytes)?;
    Ok((format, reason, bytes))
}

/// How a query's rows are read.
fn query_format(open: &sql::OpenQuery, hints: &Hints) -> Result<Format, CohortError> {
    let sheet = hints.sheet.as_deref();
    let format = plain_format(open.kind(), open.file(), sheet, hints.missing.as_deref())?;
    Ok(Format { query: Some(open.query().clone()), ..format })
}

/// The names of a workbook's sheets in their order, without those that are hidden; none of any other source.
///
/// # Errors
/// [`CohortError`] says why the workbook cannot be read.
///
/// # Disclosure
/// Names of sheets, for the steward at the site.
pub fn sheets(path: &Path, limits: Limits) -> Result<Vec<String>, CohortError> {
    match SourceKind::of(path) {
        SourceKind::Xlsx => xlsx::sheets(open(path)?, &file_name(path), limits),
        _ => Ok(Vec::new()),
    }
}

/// How a source is read, as far as its first bytes tell.
fn sniff_format(
    path: &Path,
    kind: SourceKind,
    hints: &Hints,
    bytes: u64,
) -> Result<(Format, &'static str), CohortError> {
    let format = plain_format(kind, &file_name(path), hints.sheet.as_deref(), hints.missing.as_deref())?;
    if !matches!(kind, SourceKind::Delimited | SourceKind::ImageFolder) {
        return Ok((format, "that of the format"));
    }
    let (encoding, reason) = match hints.encoding {
        Some(encoding) => (encoding, "chosen"),
        None => detect_encoding(path)?,
    };
    let mut sample = Vec::new();
    let taken = 64 << 10;
    let fail = |source| read_error(&file_name(path), source);
    open(path)?.take(taken).read_to_end(&mut sample).map_err(fail)?;
    let text = decode::sample_text(&sample, encoding);
    let delimiter = hints.delimiter.unwrap_or_else(|| sniff::delimiter(&text, bytes > taken));
    Ok((Format { encoding, delimiter, ..format }, reason))
}

/// How a source is read that has an encoding of its own.
fn plain_format(
    kind: SourceKind,
    file: &str,
    sheet: Option<&str>,
    missing: Option<&[String]>,
) -> Result<Format, CohortError> {
    if let Some(sheet) = sheet.filter(|_| kind != SourceKind::Xlsx) {
        let (file, sheet) = (file.to_owned(), sheet.to_owned());
        return Err(CohortError::UnknownSheet { file, sheet, sheets: Vec::new() });
    }
    let missing = match missing {
        Some(markers) => chosen_markers(markers),
        None => kind.missing().iter().map(|m| (*m).to_owned()).collect(),
    };
    let (encoding, delimiter, decimal) = (Encoding::Utf8, Delimiter::Comma, Decimal::Point);
    let (sheet, scan) = (sheet.map(str::to_owned), ScanProfile::default());
    Ok(Format { kind, sheet, encoding, delimiter, decimal, missing, query: None, scan })
}

/// Markers as cells are compared with them: trimmed, each once.
fn chosen_markers(markers: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let markers = markers.iter().map(|m| m.trim()).filter(|m| !m.is_empty() && seen.insert(*m));
    markers.map(str::to_owned).collect()
}

fn image_survey(name: &str, size: ImageSize, rows: u64) -> ColumnSurvey {
    ColumnSurvey {
        name: name.to_owned(),
        kind: ColumnKind::Image(size),
        present: rows,
        missing: Vec::new(),
        distinct: Distinct::Exactly(0),
        number: None,
        suspects: Vec::new(),
        has_days: false,
        has_dates: false,
    }
}

/// The encoding of a file and why it is taken for that.
pub(crate) fn detect_encoding(path: &Path) -> Result<(Encoding, &'static str), CohortError> {
    decode::detect(&mut open(path)?).map_err(|source| read_error(&file_name(path), source))
}

pub(crate) fn open(path: &Path) -> Result<File, CohortError> {
    let fail = |source| CohortError::OpenSource { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    // A pipe or a device could be read once only, or for ever.
    if file.metadata().map_err(fail)?.is_file() {
        Ok(file)
    } else {
        Err(fail(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file")))
    }
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| PathBuf::from(path).display().to_string(), |n| n.to_string_lossy().into_owned())
}

pub(crate) fn read_error(file: &str, source: std::io::Error) -> CohortError {
    CohortError::ReadSource { file: file.to_owned(), source }
}

/// Reads and checks the header.
pub(crate) fn read_header<R: Read>(reader: &mut RecordReader<R>, file: &str) -> Result<Vec<String>, CohortError> {
    let Some(record) = reader.next_record()? else {
        return Err(CohortError::NoHeader { file: file.to_owned() });
    };
    let names: Vec<String> = record.fields().map(|f| f.trim().to_owned()).collect();
    check_header(&names, file)?;
    Ok(names)
}

/// Checks that the first line has names and no data.
fn check_header(names: &[String], file: &str) -> Result<(), CohortError> {
    let is_data = |n: &&String| {
        let numeric = number(n, Decimal::Point).or_else(|| number(n, Decimal::Comma)).is_some();
        numeric || date(n).is_some() || n.is_empty() || DEFAULT_MISSING.contains(&n.as_str())
    };
    if names.iter().filter(is_data).count() * 2 > names.len() {
        return Err(CohortError::HeaderIsData { file: file.to_owned() });
    }
    Ok(())
}

/// Checks the names of columns, whatever they were read from.
fn check_names(names: &[String], file: &str, limits: Limits) -> Result<(), CohortError> {
    let file = || file.to_owned();
    if names.len() > limits.columns {
        return Err(CohortError::TooManyColumns { file: file(), limit: limits.columns });
    }
    let mut seen = HashMap::new();
    for (i, name) in names.iter().enumerate() {
        let limit = hospes_protocol::limits::NAME_CHARS;
        if name.is_empty() {
            return Err(CohortError::UnnamedColumn { file: file(), index: i + 1 });
        }
        if name.chars().count() > limit {
            return Err(CohortError::LongColumnName { file: file(), index: i + 1, limit });
        }
        // Not the name: where a header is missing it is a patient's.
        if let Some(first) = seen.insert(name.as_str(), i + 1) {
            return Err(CohortError::DuplicateColumn { file: file(), first, second: i + 1 });
        }
    }
    Ok(())
}

fn guess_subject(columns: &[ColumnSurvey]) -> Option<String> {
    scan::SUBJECT_NAMES.iter().find_map(|wanted| {
        columns
            .iter()
            .find(|c| c.name.to_ascii_lowercase() == *wanted && c.missing_total() == 0)
            .map(|c| c.name.clone())
    })
}
