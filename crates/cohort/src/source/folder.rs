//! A folder of images with a table: each row of the table names a PNG or JPEG file of the folder.

use std::io::{Cursor, Read};
use std::path::{Component, Path, PathBuf};

use image::{DynamicImage, ImageFormat, ImageReader};
use sha2::{Digest as _, Sha256};

use super::records::{Record, RecordReader};
use super::rows::{Hashing, Place};
use super::{Format, Limits, file_name, open, read_error, read_header};
use crate::error::CohortError;
use crate::schema::ImageSize;

/// Names of the column that names the files, and that holds the images in the snapshot.
const FILE_COLUMNS: [&str; 6] = ["image", "file", "filename", "file_name", "path", "image_path"];
/// The table's name where the folder has several.
const TABLE: &str = "labels.csv";
/// Longest image file.
const FILE_BYTES: u64 = 64 << 20;
/// Most memory that decoding one image may take.
const DECODE_BYTES: u64 = 512 << 20;

type Table = RecordReader<Hashing<std::fs::File>>;

/// Rows of the table with their images.
pub(super) struct FolderRows {
    folder: PathBuf,
    file: String,
    table: Table,
    names: Vec<String>,
    column: usize,
    size: ImageSize,
    hash: Option<Sha256>,
    pixels: Vec<u8>,
}

/// The table of a folder: its only `.csv` file, or the one that is called `labels.csv`.
pub(super) fn table_of(folder: &Path) -> Result<PathBuf, CohortError> {
    let fail = |source| CohortError::OpenSource { path: folder.to_owned(), source };
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        // A link is no file here, whatever it leads to.
        let (path, is_file) = (entry.path(), entry.file_type().map_err(fail)?.is_file());
        if is_file && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
            tables.push(path);
        }
        if tables.len() > 16 {
            break;
        }
    }
    let named = tables.iter().find(|path| path.file_name().is_some_and(|name| name == TABLE));
    match (named, tables.as_slice()) {
        (Some(table), _) | (None, [table]) => Ok(table.clone()),
        (None, tables) => {
            let place = "table".to_owned();
            let reason = format!(
                "{}; one is needed, with a row for each image: its file name, the patient, the label",
                if tables.is_empty() {
                    "there is no .csv file"
                } else {
                    "there are several .csv files, none labels.csv"
                }
            );
            Err(CohortError::Malformed { file: file_name(folder), place, reason })
        }
    }
}

impl FolderRows {
    pub(super) fn new(folder: &Path, format: &Format, limits: Limits, hashed: bool) -> Result<Self, CohortError> {
        let path = table_of(folder)?;
        let file = file_name(&path);
        let start = || -> Result<(Table, Vec<String>), CohortError> {
            let mut table = RecordReader::new(Hashing::new(open(&path)?, hashed), &file, format, limits);
            let names = read_header(&mut table, &file)?;
            Ok((table, names))
        };
        let (mut table, names) = start()?;
        let found = FILE_COLUMNS.iter().find_map(|wanted| names.iter().position(|n| n.eq_ignore_ascii_case(wanted)));
        let Some(column) = found else {
            let (place, reason) = ("header".to_owned(), format!("no column is called {}", FILE_COLUMNS.join(", ")));
            return Err(CohortError::Malformed { file, place, reason });
        };
        let folder = std::fs::canonicalize(folder)
            .map_err(|source| CohortError::OpenSource { path: folder.to_owned(), source })?;
        // The first image gives the size of all; then the table is read from its start.
        let first = match table.next_record()? {
            Some(record) if record.len() > column => {
                decode(&folder, record.field(column).trim(), &file, record.place, None)?
            }
            Some(record) => {
                let (place, expected, found) = (record.place, names.len(), record.len());
                return Err(CohortError::Ragged { file, place, expected, found });
            }
            None => return Err(CohortError::NoRows { file }),
        };
        let (table, names) = start()?;
        let hash = hashed.then(Sha256::new);
        Ok(Self { folder, file, table, names, column, size: first.0, hash, pixels: first.1 })
    }

    /// Name of the table.
    pub(super) fn table(&self) -> &str {
        &self.file
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn image(&self) -> (usize, ImageSize) {
        (self.column, self.size)
    }

    /// Of the table, and of the digests of all image files in its order.
    pub(super) fn into_hash(self) -> Sha256 {
        let mut hash = self.table.into_source().into_hash();
        hash.update(self.hash.unwrap_or_default().finalize());
        hash
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Record<'_>>, CohortError> {
        let Some(record) = self.table.next_record()? else { return Ok(None) };
        if record.len() != self.names.len() {
            return Ok(Some(record));
        }
        let name = record.field(self.column).trim();
        let (size, pixels) = decode(&self.folder, name, &self.file, record.place, self.hash.as_mut())?;
        if size != self.size {
            let place = format!("{}, image '{name}'", record.place);
            let reason = format!("it is {size} (channels × height × width), the first one is {}", self.size);
            return Err(CohortError::Malformed { file: self.file.clone(), place, reason });
        }
        self.pixels = pixels;
        Ok(Some(record.with_pixels(&self.pixels)))
    }
}

/// The file that a table names, within the folder and not behind a link.
fn locate(folder: &Path, name: &str) -> Result<PathBuf, &'static str> {
    if name.is_empty() {
        return Err("no file is named");
    }
    // A backslash or a colon is a path on other systems.
    if name.contains(['\\', ':', '\0']) || name.len() > 1_024 {
        return Err("a file name must be a path within the folder, with '/' between its parts");
    }
    let mut path = folder.to_owned();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => continue,
            _ => return Err("a file name must be a path within the folder, without '..'"),
        }
        let found = std::fs::symlink_metadata(&path).map_err(|_| "the file that it names is not there")?;
        if found.file_type().is_symlink() {
            return Err("the file that it names is behind a link");
        }
    }
    Ok(path)
}

/// Reads and decodes one image.
fn decode(
    folder: &Path,
    name: &str,
    table: &str,
    place: Place,
    hash: Option<&mut Sha256>,
) -> Result<(ImageSize, Vec<u8>), CohortError> {
    let wrong = |reason: String| {
        // The name is not repeated: a path that leads out of the folder can be anything.
        CohortError::Malformed { file: table.to_owned(), place: format!("{place}, column of the image"), reason }
    };
    let path = locate(folder, name).map_err(|why| wrong(why.to_owned()))?;
    let mut bytes = Vec::new();
    open(&path)?
        .take(FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| read_error(&file_name(&path), source))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(wrong(format!("the image file has more than {} MiB", FILE_BYTES >> 20)));
    }
    if let Some(hash) = hash {
        hash.update(Sha256::digest(&bytes));
    }
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
    let mut reader = reader.map_err(|_| wrong("the file that it names cannot be read".to_owned()))?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err(wrong("the file that it names is no PNG or JPEG image".to_owned()));
    }
    let mut limits = image::Limits::default();
    let side = hospes_protocol::limits::IMAGE_SIDE;
    (limits.max_image_width, limits.max_image_height, limits.max_alloc) = (Some(side), Some(side), Some(DECODE_BYTES));
    reader.limits(limits);
    let image = reader.decode().map_err(|_| {
        wrong(format!("the image cannot be decoded: it is damaged, or larger than {side} pixels a side"))
    })?;
    let (width, height) = (image.width(), image.height());
    let grey = matches!(
        image,
        DynamicImage::ImageLuma8(_)
            | DynamicImage::ImageLumaA8(_)
            | DynamicImage::ImageLuma16(_)
            | DynamicImage::ImageLumaA16(_)
    );
    let size = ImageSize::new(if grey { 1 } else { 3 }, height, width).map_err(wrong)?;
    if grey {
        return Ok((size, image.into_luma8().into_raw()));
    }
    let colours = image.into_rgb8().into_raw();
    let mut pixels = Vec::with_capacity(colours.len());
    for channel in 0..3 {
        pixels.extend(colours.iter().skip(channel).step_by(3));
    }
    Ok((size, pixels))
}
