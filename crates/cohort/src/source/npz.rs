//! Images and what belongs to each of them, as arrays in a file of numpy (`numpy.savez`).
//!
//! `images` is an array of bytes, image × height × width or image × height × width × channel; every other array has one
//! number or text for each image, or a few, and becomes columns of its name. MedMNIST's files have the arrays three
//! times, as `train_…`, `val_…` and `test_…`; there a column `fold` tells them apart.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use super::Limits;
use super::npy::{Element, Header};
use super::records::{Cells, Record};
use super::rows::Place;
use super::zip::{self, Bounds, Entry, EntryReader};
use crate::error::CohortError;
use crate::schema::ImageSize;

/// The column of the images.
const IMAGE: &str = "image";
/// The column of the subject key where no array gives one: each image then counts as a patient of its own.
const SUBJECT: &str = "subject_id";
/// The column that tells the parts apart.
const FOLD: &str = "fold";
/// Prefixes of the names of arrays, and the value of the fold.
const PARTS: [(&str, &str); 3] = [("train_", "train"), ("val_", "val"), ("test_", "test")];
/// Names of the array of images.
const IMAGES: [&str; 2] = ["images", "image"];
/// Most columns that one array becomes.
const WIDTH: usize = 64;

/// What a file of arrays may hold.
const BOUNDS: Bounds = Bounds { entries: 256, unpacked: 16 << 30, mend: "use numpy.savez_compressed" };

/// One array while it is read.
struct Array {
    name: String,
    header: Header,
    source: BufReader<EntryReader>,
    /// One row of it.
    row: Vec<u8>,
}

/// Arrays that belong together.
struct Part {
    fold: Option<&'static str>,
    rows: u64,
    images: Array,
    others: Vec<Array>,
}

/// Rows of a file of arrays.
pub(super) struct NpzRows {
    file: String,
    names: Vec<String>,
    size: ImageSize,
    parts: std::vec::IntoIter<Part>,
    now: Option<Part>,
    done: u64,
    row: u64,
    has_subjects: bool,
    limits: Limits,
    pixels: Vec<u8>,
    cells: Cells,
}

impl NpzRows {
    pub(super) fn new(source: File, file: &str, limits: Limits) -> Result<Self, CohortError> {
        let source = Arc::new(source);
        let entries = zip::entries(&source, BOUNDS).map_err(|why| malformed(file, "archive", &why))?;
        let mut arrays: BTreeMap<String, Array> = BTreeMap::new();
        for entry in &entries {
            let array = open(&source, entry).map_err(|why| malformed(file, &array_place(&entry.name), &why))?;
            arrays.insert(array.name.clone(), array);
        }
        let in_parts =
            PARTS.iter().any(|(prefix, _)| IMAGES.iter().any(|n| arrays.contains_key(&format!("{prefix}{n}"))));
        let prefixes: Vec<(&str, Option<&'static str>)> = match in_parts {
            true => PARTS.iter().map(|(prefix, fold)| (*prefix, Some(*fold))).collect(),
            false => vec![("", None)],
        };
        let mut parts: Vec<Part> = Vec::new();
        for (prefix, fold) in prefixes {
            parts.extend(part(&mut arrays, prefix, fold, file)?);
        }
        if let Some(name) = arrays.keys().next() {
            return Err(malformed(file, &format!("array '{name}'"), "it belongs to none of the arrays of images"));
        }
        let Some(first) = parts.first() else {
            let reason = "it has no array 'images'; image × height × width bytes are needed";
            return Err(malformed(file, "archive", reason));
        };
        let size = image_size(&first.images.header).map_err(|why| malformed(file, "array of images", &why))?;
        let columns = columns(first);
        for part in &parts {
            if image_size(&part.images.header) != Ok(size) {
                let place = format!("array '{}'", part.images.name);
                return Err(malformed(file, &place, &format!("its images are not of the size {size} of the first")));
            }
            if self::columns(part) != columns {
                return Err(malformed(file, "archive", "its parts do not have the same arrays of the same widths"));
            }
        }
        let has_subjects = columns.iter().any(|c| super::super::scan::SUBJECT_NAMES.contains(&c.as_str()));
        let mut names: Vec<String> = Vec::new();
        names.extend((!has_subjects).then(|| SUBJECT.to_owned()));
        names.push(IMAGE.to_owned());
        names.extend(columns);
        names.extend(in_parts.then(|| FOLD.to_owned()));
        let (parts, cells) = (parts.into_iter(), Cells::default());
        let (file, pixels) = (file.to_owned(), vec![0; size.bytes()]);
        Ok(Self { file, names, size, parts, now: None, done: 0, row: 0, has_subjects, limits, pixels, cells })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    pub(super) fn image(&self) -> (usize, ImageSize) {
        (usize::from(!self.has_subjects), self.size)
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Record<'_>>, CohortError> {
        while self.now.as_ref().is_none_or(|part| self.done == part.rows) {
            if let Some(mut part) = self.now.take() {
                end(&mut part, &self.file)?;
            }
            self.done = 0;
            self.now = self.parts.next();
            if self.now.is_none() {
                return Ok(None);
            }
        }
        let Some(part) = &mut self.now else { return Ok(None) };
        self.row += 1;
        self.done += 1;
        let place = Place::Row(self.row);
        fill(&mut part.images, &self.file, self.row)?;
        channels_first(&part.images.row, self.size, &mut self.pixels);
        self.cells.clear();
        if !self.has_subjects {
            let fold = part.fold.map(|fold| format!("{fold}-")).unwrap_or_default();
            self.cells.push(&format!("{fold}{}", self.done));
        }
        self.cells.push("");
        for array in &mut part.others {
            fill(array, &self.file, self.row)?;
            for bytes in array.row.chunks(array.header.element_bytes()) {
                let wrong = |why: &str| malformed(&self.file, &format!("{place}, array '{}'", array.name), why);
                let text = array.header.text(bytes).ok_or_else(|| wrong("it holds characters that are none"))?;
                if text.contains('\0') || text.len() > self.limits.field_bytes {
                    return Err(wrong("it holds text that no table has"));
                }
                self.cells.push(&text);
            }
        }
        if let Some(fold) = part.fold {
            self.cells.push(fold);
        }
        Ok(Some(self.cells.record(place, Some(&self.pixels))))
    }
}

fn malformed(file: &str, place: &str, reason: &str) -> CohortError {
    CohortError::Malformed { file: file.to_owned(), place: place.to_owned(), reason: reason.to_owned() }
}

/// How an entry is named in an error: what is no plain name of an array is not repeated.
fn array_place(entry: &str) -> String {
    entry.strip_suffix(".npy").filter(|n| is_plain(n)).map_or_else(|| "an entry".to_owned(), |n| format!("array '{n}'"))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn open(source: &Arc<File>, entry: &Entry) -> Result<Array, String> {
    let name = entry.name.strip_suffix(".npy").filter(|n| is_plain(n));
    let name = name.ok_or("its name is not that of an array: letters, digits and '_', then '.npy'")?;
    let mut source = BufReader::new(EntryReader::new(source, entry)?);
    let mut counted = Counting { inner: &mut source, bytes: 0 };
    let header = Header::read(&mut counted)?;
    let start = counted.bytes;
    let (row, all) = header.sizes().ok_or("it is a single number, or larger than can be counted")?;
    if start.checked_add(all) != Some(entry.bytes) {
        return Err("its length is not that of its shape".to_owned());
    }
    if row > ImageSize::BYTES {
        return Err("one row of it is too large".to_owned());
    }
    Ok(Array { name: name.to_owned(), header, source, row: vec![0; row] })
}

struct Counting<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// Takes the arrays of one part out of the list; `None` if there are no images of it.
fn part(
    arrays: &mut BTreeMap<String, Array>,
    prefix: &str,
    fold: Option<&'static str>,
    file: &str,
) -> Result<Option<Part>, CohortError> {
    let Some(images) = IMAGES.iter().find_map(|name| arrays.remove(&format!("{prefix}{name}"))) else {
        return Ok(None);
    };
    let rows = images.header.shape.first().copied().unwrap_or(0) as u64;
    let names: Vec<String> = arrays.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    let mut others = Vec::with_capacity(names.len());
    for array in names.into_iter().filter_map(|name| arrays.remove(&name)) {
        let wrong = |why: &str| malformed(file, &format!("array '{}'", array.name), why);
        if array.header.shape.first().copied().unwrap_or(0) as u64 != rows {
            return Err(wrong("it has not as many rows as there are images"));
        }
        if array.header.shape.len() > 2 || !(1..=WIDTH).contains(&width(&array)) {
            return Err(wrong("only one value for each image, or up to 64, can be registered"));
        }
        others.push(Array { name: array.name[prefix.len()..].to_owned(), ..array });
    }
    Ok(Some(Part { fold, rows, images, others }))
}

fn width(array: &Array) -> usize {
    array.header.shape.get(1).copied().unwrap_or(1)
}

/// Names of the columns that the arrays become: `labels` of one value each is `label`, of several `label_0`, `label_1`.
fn columns(part: &Part) -> Vec<String> {
    let mut names = Vec::new();
    for array in &part.others {
        let name = if array.name == "labels" { "label" } else { &array.name };
        match width(array) {
            1 => names.push(name.to_owned()),
            several => names.extend((0..several).map(|i| format!("{name}_{i}"))),
        }
    }
    names
}

fn image_size(header: &Header) -> Result<ImageSize, String> {
    if header.element != Element::Unsigned(1) {
        return Err("images must be bytes (uint8)".to_owned());
    }
    let side = |at: usize| u32::try_from(header.shape[at]).unwrap_or(u32::MAX);
    match header.shape.len() {
        3 => ImageSize::new(1, side(1), side(2)),
        4 => ImageSize::new(side(3), side(1), side(2)),
        _ => Err("images must be image × height × width, with or without × channel".to_owned()),
    }
}

fn fill(array: &mut Array, file: &str, row: u64) -> Result<(), CohortError> {
    let place = format!("{}, array '{}'", Place::Row(row), array.name);
    array.source.read_exact(&mut array.row).map_err(|why| malformed(file, &place, &zip::words(&why)))
}

/// Reads past the last row, where the archive checks length and checksum.
fn end(part: &mut Part, file: &str) -> Result<(), CohortError> {
    for array in part.others.iter_mut().chain([&mut part.images]) {
        let place = format!("array '{}'", array.name);
        let rest = array.source.read(&mut [0]).map_err(|why| malformed(file, &place, &zip::words(&why)))?;
        debug_assert_eq!(rest, 0);
    }
    Ok(())
}

/// Height × width × channel becomes channel × height × width.
fn channels_first(from: &[u8], size: ImageSize, to: &mut [u8]) {
    let (channels, pixels) = (size.channels as usize, from.len() / size.channels as usize);
    for (at, pixel) in from.chunks_exact(channels).enumerate() {
        for (channel, value) in pixel.iter().enumerate() {
            to[channel * pixels + at] = *value;
        }
    }
}
