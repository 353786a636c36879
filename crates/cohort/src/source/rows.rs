//! Rows of a source, whatever its kind: every cell as text, an image as bytes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use hospes_protocol::id::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::folder::FolderRows;
use super::ndjson::JsonRows;
use super::npz::NpzRows;
use super::parquet_file::ParquetRows;
use super::records::{Record, RecordReader};
use super::sql::QueryRows;
use super::xlsx::SheetRows;
use super::{Format, Limits, Source, check_header, check_names, file_name, open, read_error, read_header};
use crate::error::CohortError;
use crate::schema::ImageSize;

/// What kind of source a file or folder is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Text with a delimiter between fields: CSV and its relatives.
    #[default]
    Delimited,
    /// A JSON object in each line.
    NdJson,
    /// Apache Parquet with flat columns.
    Parquet,
    /// A sheet of an Excel workbook.
    Xlsx,
    /// Arrays that numpy wrote: images and what belongs to each.
    Npz,
    /// A folder of PNG and JPEG files, and a delimited table that names them.
    ImageFolder,
    /// A query in a PostgreSQL database.
    Postgres,
    /// A query in a file of SQLite.
    Sqlite,
}

impl SourceKind {
    /// The kind of a source, by its being a folder and by the end of its name; any other file is read as delimited text.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn of(path: &Path) -> Self {
        if path.is_dir() {
            return Self::ImageFolder;
        }
        let end = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match end.as_deref() {
            Some("ndjson" | "jsonl") => Self::NdJson,
            Some("parquet" | "pq") => Self::Parquet,
            // Only .xlsx (and .xlsm, which is the same with macros) is read; the others are told how to become one.
            Some("xlsx" | "xlsm" | "xls" | "xlsb" | "ods") => Self::Xlsx,
            Some("npz") => Self::Npz,
            // Without a query it is refused in words that ask for one.
            Some("sqlite" | "sqlite3" | "db") => Self::Sqlite,
            _ => Self::Delimited,
        }
    }

    /// Name for people.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delimited => "delimited text",
            Self::NdJson => "a JSON object in each line",
            Self::Parquet => "Parquet",
            Self::Xlsx => "a sheet of an Excel workbook",
            Self::Npz => "numpy arrays",
            Self::ImageFolder => "a folder of images with a table",
            Self::Postgres => "a query in PostgreSQL",
            Self::Sqlite => "a query in SQLite",
        }
    }

    /// Cells that mean *missing* unless the steward says otherwise. Where a source has a way of its own to say that
    /// there is no value, −9 is one.
    pub(super) fn missing(self) -> &'static [&'static str] {
        match self {
            // An empty cell of a sheet says no more than one of a CSV file: people fill both in by hand.
            Self::Delimited | Self::ImageFolder | Self::Xlsx => &super::DEFAULT_MISSING,
            Self::NdJson | Self::Parquet | Self::Postgres | Self::Sqlite => &["?", "NA", "N/A"],
            Self::Npz => &[],
        }
    }

    // The signature is the one that serde asks for.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn is_delimited(&self) -> bool {
        *self == Self::Delimited
    }
}

/// Where in a source something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line of a text, from 1.
    Line(u64),
    /// A row of a table that has no lines, from 1; of a sheet, as the spreadsheet counts it.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n}"),
            Self::Row(n) => write!(f, "row {n}"),
        }
    }
}

/// Reads and, where asked to, hashes what goes by.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Option<Sha256>,
}

impl<R> Hashing<R> {
    pub(super) fn new(inner: R, hashed: bool) -> Self {
        Self { inner, hash: hashed.then(Sha256::new) }
    }

    pub(super) fn into_hash(self) -> Sha256 {
        self.hash.unwrap_or_default()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..n]);
        }
        Ok(n)
    }
}

/// A file that is read in any order: it was hashed before the first row and must have the same bytes after the last one.
pub(super) struct Unchanged {
    file: File,
    before: Option<Digest>,
}

impl Unchanged {
    pub(super) fn new(mut file: File, name: &str, hashed: bool) -> Result<Self, CohortError> {
        let before = if hashed { Some(whole(&mut file, name)?) } else { None };
        Ok(Self { file, before })
    }

    pub(super) fn file(&self, name: &str) -> Result<File, CohortError> {
        self.file.try_clone().map_err(|source| read_error(name, source))
    }

    fn finish(mut self, name: &str) -> Result<Digest, CohortError> {
        let after = whole(&mut self.file, name)?;
        match self.before {
            Some(before) if before != after => Err(CohortError::SourceChanged { file: name.to_owned() }),
            _ => Ok(after),
        }
    }
}

/// SHA-256 of a whole file.
fn whole(file: &mut File, name: &str) -> Result<Digest, CohortError> {
    let fail = |source| read_error(name, source);
    io::Seek::rewind(file).map_err(fail)?;
    crate::snapshot::digest_of(file).map(|(digest, _)| digest).map_err(fail)
}

enum Inner {
    Delimited(Box<RecordReader<Hashing<File>>>),
    NdJson(Box<JsonRows<Hashing<File>>>),
    Parquet(Box<ParquetRows>, Unchanged),
    Xlsx(Box<SheetRows>, Unchanged),
    Npz(Box<NpzRows>, Unchanged),
    Folder(Box<FolderRows>),
    Query(Box<QueryRows>),
}

/// The rows of a source in order.
pub(crate) struct Rows {
    file: String,
    names: Vec<String>,
    image: Option<(usize, ImageSize)>,
    limits: Limits,
    read: u64,
    inner: Inner,
}

impl Rows {
    /// Opens a source and reads what comes before its rows. With `hashed`, [`finish`](Self::finish) gives its digest.
    pub(crate) fn open(source: Source<'_>, format: &Format, limits: Limits, hashed: bool) -> Result<Self, CohortError> {
        match source {
            Source::File(path) => Self::of_file(path, format, limits, hashed),
            Source::Query(open) => {
                let inner = Inner::Query(Box::new(open.rows(limits, hashed)?));
                Ok(Self { file: source.name(), names: open.names().to_vec(), image: None, limits, read: 0, inner })
            }
        }
    }

    fn of_file(path: &Path, format: &Format, limits: Limits, hashed: bool) -> Result<Self, CohortError> {
        let mut file = file_name(path);
        let mut image = None;
        let (names, inner) = match format.kind {
            SourceKind::Delimited => {
                let mut reader = RecordReader::new(Hashing::new(open(path)?, hashed), &file, format, limits);
                (read_header(&mut reader, &file)?, Inner::Delimited(Box::new(reader)))
            }
            SourceKind::NdJson => {
                let names = super::ndjson::names(open(path)?, &file, limits)?;
                let rows = JsonRows::new(Hashing::new(open(path)?, hashed), &names, &file, limits);
                (names, Inner::NdJson(Box::new(rows)))
            }
            SourceKind::Parquet => {
                let source = Unchanged::new(open(path)?, &file, hashed)?;
                let rows = ParquetRows::new(source.file(&file)?, &file, limits)?;
                (rows.names(), Inner::Parquet(Box::new(rows), source))
            }
            SourceKind::Xlsx => {
                let source = Unchanged::new(open(path)?, &file, hashed)?;
                let rows = SheetRows::new(source.file(&file)?, &file, format.sheet.as_deref(), limits)?;
                rows.label().clone_into(&mut file);
                check_header(rows.names(), &file)?;
                (rows.names().to_vec(), Inner::Xlsx(Box::new(rows), source))
            }
            SourceKind::Npz => {
                let source = Unchanged::new(open(path)?, &file, hashed)?;
                let rows = NpzRows::new(source.file(&file)?, &file, limits)?;
                image = Some(rows.image());
                (rows.names(), Inner::Npz(Box::new(rows), source))
            }
            SourceKind::ImageFolder => {
                let rows = FolderRows::new(path, format, limits, hashed)?;
                image = Some(rows.image());
                rows.table().clone_into(&mut file);
                (rows.names().to_vec(), Inner::Folder(Box::new(rows)))
            }
            SourceKind::Postgres | SourceKind::Sqlite => {
                let reason = "a database is registered by a query in it; say which";
                return Err(CohortError::Database { database: file, reason: reason.to_owned() });
            }
        };
        check_names(&names, &file, limits)?;
        Ok(Self { file, names, image, limits, read: 0, inner })
    }

    /// Names of the columns.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Position and size of the images, if there are any.
    pub(crate) fn image(&self) -> Option<(usize, ImageSize)> {
        self.image
    }

    /// Of a workbook, the sheet that is read and the names of all.
    pub(crate) fn sheets(&self) -> Option<(&str, &[String])> {
        match &self.inner {
            Inner::Xlsx(rows, _) => Some((rows.sheet(), rows.sheets())),
            _ => None,
        }
    }

    /// The next row, with as many fields as there are names; `None` at the end.
    pub(crate) fn next_row(&mut self) -> Result<Option<Record<'_>>, CohortError> {
        let record = match &mut self.inner {
            Inner::Delimited(reader) => reader.next_record()?,
            Inner::NdJson(rows) => rows.next_row()?,
            Inner::Parquet(rows, _) => rows.next_row()?,
            Inner::Xlsx(rows, _) => rows.next_row()?,
            Inner::Npz(rows, _) => rows.next_row()?,
            Inner::Folder(rows) => rows.next_row()?,
            Inner::Query(rows) => rows.next_row()?,
        };
        let Some(record) = record else {
            return if self.read == 0 { Err(CohortError::NoRows { file: self.file.clone() }) } else { Ok(None) };
        };
        self.read += 1;
        if self.read > self.limits.rows {
            return Err(CohortError::TooManyRows { file: self.file.clone(), limit: self.limits.rows });
        }
        if record.len() != self.names.len() {
            let (file, expected, found) = (self.file.clone(), self.names.len(), record.len());
            return Err(CohortError::Ragged { file, place: record.place, expected, found });
        }
        Ok(Some(record))
    }

    /// SHA-256 of the source as it was read; call it after the last row.
    pub(crate) fn finish(self) -> Result<Digest, CohortError> {
        let of = |hash: Sha256| Digest::from_bytes(hash.finalize().into());
        Ok(match self.inner {
            // The readers stopped at the end of the file, so that all of it was hashed, and as it was when it was read.
            Inner::Delimited(reader) => of(reader.into_source().into_hash()),
            Inner::NdJson(rows) => of(rows.into_source().into_hash()),
            Inner::Parquet(_, source) | Inner::Xlsx(_, source) | Inner::Npz(_, source) => source.finish(&self.file)?,
            Inner::Folder(rows) => of(rows.into_hash()),
            // The rows themselves: a database has no bytes that are its own.
            Inner::Query(rows) => of(rows.into_hash()),
        })
    }
}
