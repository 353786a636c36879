//! The part of a ZIP archive that numpy and spreadsheet programs write: named entries, stored or deflated, without
//! encryption.
//!
//! Strict on purpose. The central directory is the only list of entries, no two entries share bytes, every entry gives
//! exactly the bytes that it declares, and nothing is written anywhere; so names that lead out of a folder, archives
//! within archives of themselves and lists that contradict each other have no effect.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

/// Longest name of an entry.
const NAME_BYTES: usize = 128;
/// Longest list of entries.
const LIST_BYTES: u32 = 16 << 20;
/// The end record, and the longest comment that may follow it.
const END_BYTES: usize = 22;
const COMMENT_BYTES: usize = 0xFFFF;
const HEAD_BYTES: usize = 30;

/// What an archive of some kind may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Entries.
    pub(super) entries: usize,
    /// Bytes of all entries when they are unpacked.
    pub(super) unpacked: u64,
    /// What makes an archive that is packed as it must be.
    pub(super) mend: &'static str,
}

/// An entry of an archive.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    deflated: bool,
    crc: u32,
    packed: u64,
    pub(super) bytes: u64,
    /// Where its own header begins.
    head: u64,
}

/// A part of a file, read at positions of its own: several parts can be read in turns.
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let n = read_at(&self.file, &mut buffer[..wanted], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

/// The entries of an archive.
///
/// # Errors
/// Which rule it breaks, in words.
pub(super) fn entries(file: &Arc<File>, bounds: Bounds) -> Result<Vec<Entry>, String> {
    let damaged = |_| "it is damaged or no archive".to_owned();
    let length = file.metadata().map_err(damaged)?.len();
    let tail = length.min((END_BYTES + COMMENT_BYTES) as u64);
    let mut end = Vec::new();
    let mut last = Section { file: Arc::clone(file), at: length - tail, end: length };
    last.read_to_end(&mut end).map_err(damaged)?;
    let none = || "it has no list of entries; it is cut off or no archive".to_owned();
    // The last end record whose comment ends with the file.
    let at = (0..end.len().saturating_sub(END_BYTES - 1))
        .rev()
        .find(|at| {
            end[*at..].starts_with(b"PK\x05\x06") && *at + END_BYTES + usize::from(u16_at(&end, at + 20)) == end.len()
        })
        .ok_or_else(none)?;
    let (count, size, start) = (u16_at(&end, at + 10), u32_at(&end, at + 12), u32_at(&end, at + 16));
    if count == u16::MAX || size == u32::MAX || start == u32::MAX {
        return Err("it is larger than 4 GiB or has too many entries; split it".to_owned());
    }
    let end_at = length - tail + at as u64;
    if usize::from(count) > bounds.entries {
        return Err(format!("it has more than {} entries", bounds.entries));
    }
    if size > LIST_BYTES {
        return Err("its list of entries is too long".to_owned());
    }
    if u64::from(start) + u64::from(size) != end_at {
        return Err("its list of entries does not end where it should".to_owned());
    }
    let mut list = Vec::new();
    let mut directory = Section { file: Arc::clone(file), at: u64::from(start), end: end_at };
    directory.read_to_end(&mut list).map_err(damaged)?;
    let entries = directory_entries(&list, usize::from(count), bounds.mend)?;
    check(&entries, u64::from(start), bounds.unpacked)?;
    Ok(entries)
}

fn directory_entries(list: &[u8], count: usize, mend: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    let mut rest = list;
    for _ in 0..count {
        if rest.len() < 46 || !rest.starts_with(b"PK\x01\x02") {
            return Err("its list of entries is damaged".to_owned());
        }
        let (flags, method) = (u16_at(rest, 8), u16_at(rest, 10));
        let (name_bytes, extra) = (usize::from(u16_at(rest, 28)), usize::from(u16_at(rest, 30)));
        let whole = 46 + name_bytes + extra + usize::from(u16_at(rest, 32));
        if rest.len() < whole || name_bytes > NAME_BYTES {
            return Err("its list of entries is damaged".to_owned());
        }
        let (packed, bytes, head) = (u32_at(rest, 20), u32_at(rest, 24), u32_at(rest, 42));
        if [packed, bytes, head].contains(&u32::MAX) {
            return Err("an entry is larger than 4 GiB; split it".to_owned());
        }
        if flags & 1 != 0 {
            return Err("an entry is encrypted".to_owned());
        }
        let deflated = match method {
            0 => false,
            8 => true,
            _ => return Err(format!("an entry is packed in a way that is not read here; {mend}")),
        };
        let name = std::str::from_utf8(&rest[46..46 + name_bytes]).map_err(|_| "a name is no text".to_owned())?;
        entries.push(Entry {
            name: name.to_owned(),
            deflated,
            crc: u32_at(rest, 16),
            packed: u64::from(packed),
            bytes: u64::from(bytes),
            head: u64::from(head),
        });
        rest = &rest[whole..];
    }
    if rest.is_empty() { Ok(entries) } else { Err("its list of entries is damaged".to_owned()) }
}

/// Checks the entries against each other: names, sizes, and that no byte belongs to two.
fn check(entries: &[Entry], directory: u64, unpacked: u64) -> Result<(), String> {
    let mut by_place: Vec<&Entry> = entries.iter().collect();
    by_place.sort_by_key(|e| e.head);
    let ends = by_place.iter().skip(1).map(|e| e.head).chain([directory]);
    for (entry, end) in by_place.iter().zip(ends) {
        if !entry.deflated && entry.packed != entry.bytes {
            return Err("an entry is not as long as it says".to_owned());
        }
        if entry.head + (HEAD_BYTES + entry.name.len()) as u64 + entry.packed > end {
            return Err("two entries share bytes".to_owned());
        }
    }
    let names: std::collections::BTreeSet<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    if names.len() != entries.len() {
        return Err("two entries have the same name".to_owned());
    }
    if entries.iter().map(|e| e.bytes).sum::<u64>() > unpacked {
        return Err(format!("unpacked it has more than {} GiB", unpacked >> 30));
    }
    Ok(())
}

enum Unpack {
    Stored(io::BufReader<Section>),
    Deflated(Box<DeflateDecoder<io::BufReader<Section>>>),
}

/// The bytes of an entry, as many as it declares and with its checksum, or an error.
pub(super) struct EntryReader {
    unpack: Unpack,
    left: u64,
    crc: Crc,
    wanted: u32,
}

impl EntryReader {
    /// # Errors
    /// Which rule it breaks, in words.
    pub(super) fn new(file: &Arc<File>, entry: &Entry) -> Result<Self, String> {
        let damaged = |_| "it is damaged".to_owned();
        let mut head = [0; HEAD_BYTES];
        let mut start =
            Section { file: Arc::clone(file), at: entry.head, end: entry.head.saturating_add(HEAD_BYTES as u64) };
        start.read_exact(&mut head).map_err(damaged)?;
        let name_bytes = u16_at(&head, 26);
        if !head.starts_with(b"PK\x03\x04") || usize::from(name_bytes) != entry.name.len() {
            return Err("its own header contradicts the list of entries".to_owned());
        }
        let at = entry.head + HEAD_BYTES as u64 + u64::from(name_bytes) + u64::from(u16_at(&head, 28));
        let section = io::BufReader::new(Section { file: Arc::clone(file), at, end: at + entry.packed });
        let unpack = match entry.deflated {
            true => Unpack::Deflated(Box::new(DeflateDecoder::new(section))),
            false => Unpack::Stored(section),
        };
        Ok(Self { unpack, left: entry.bytes, crc: Crc::new(), wanted: entry.crc })
    }

    fn some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.unpack {
            Unpack::Stored(section) => section.read(buffer),
            Unpack::Deflated(decoder) => decoder.read(buffer),
        }
    }
}

impl Read for EntryReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if buffer.is_empty() {
            return Ok(0);
        }
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            // What unpacks to more than it declares is a bomb, whatever its sum.
            return match self.some(&mut [0])? {
                0 if self.crc.sum() == self.wanted => Ok(0),
                0 => wrong("its checksum differs"),
                _ => wrong("it is longer than it says"),
            };
        }
        let n = self.some(&mut buffer[..wanted])?;
        if n == 0 {
            return wrong("it is cut off");
        }
        self.crc.update(&buffer[..n]);
        self.left -= n as u64;
        Ok(n)
    }
}

/// Our own words on why an entry cannot be read, never those of a decoder.
pub(super) fn words(why: &io::Error) -> String {
    match why.get_ref().map(ToString::to_string) {
        Some(words) if why.kind() == io::ErrorKind::InvalidData && words.starts_with("it ") => words,
        Some(words) if words.starts_with("its ") => words,
        _ => "it is damaged".to_owned(),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
