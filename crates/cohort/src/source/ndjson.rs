//! A JSON object in each line (NDJSON, JSON Lines): its keys are columns, its values text, numbers, true or false.

use std::collections::HashMap;
use std::io::Read;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::decode::{Encoding, TextError, TextReader};
use super::records::{Cells, Record};
use super::rows::Place;
use super::{Limits, read_error};
use crate::error::CohortError;

/// Lines of bounded length.
struct Lines<R> {
    text: TextReader<R>,
    file: String,
    limit: usize,
    buffer: Vec<u8>,
    start: usize,
    searched: usize,
    at_end: bool,
    line: u64,
}

impl<R: Read> Lines<R> {
    fn new(source: R, file: &str, limits: Limits) -> Self {
        let (text, file, limit) = (TextReader::new(source, Encoding::Utf8), file.to_owned(), limits.record_bytes);
        Self { text, file, limit, buffer: Vec::new(), start: 0, searched: 0, at_end: false, line: 0 }
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<(u64, &str)>, CohortError> {
        let (from, to) = loop {
            let found = self.buffer[self.searched..].iter().position(|b| *b == b'\n').map(|i| self.searched + i);
            let end = match found {
                Some(end) => end,
                None if self.at_end && self.start == self.buffer.len() => return Ok(None),
                None if self.at_end => self.buffer.len(),
                None => {
                    self.refill()?;
                    continue;
                }
            };
            self.line += 1;
            let from = self.start;
            self.start = (end + 1).min(self.buffer.len());
            self.searched = self.start;
            if end - from > self.limit {
                return Err(self.long());
            }
            if !self.buffer[from..end].iter().all(u8::is_ascii_whitespace) {
                break (from, end);
            }
        };
        // The decoder hands out valid UTF-8, and a line is cut at ASCII characters only.
        Ok(Some((self.line, std::str::from_utf8(&self.buffer[from..to]).unwrap_or_default())))
    }

    fn refill(&mut self) -> Result<(), CohortError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.searched = self.buffer.len();
        match self.text.next_chunk() {
            Ok(chunk) => {
                self.at_end = chunk.is_empty();
                self.buffer.extend_from_slice(chunk);
            }
            Err(TextError::Io(source)) => return Err(read_error(&self.file, source)),
            Err(TextError::Malformed) => {
                let (file, line, encoding) = (self.file.clone(), self.line + 1, Encoding::Utf8.name().to_owned());
                return Err(CohortError::Encoding { file, line, encoding });
            }
        }
        // What was searched before this chunk has no end of a line in it.
        if self.searched > self.limit { Err(self.long()) } else { Ok(()) }
    }

    fn long(&self) -> CohortError {
        CohortError::LongRecord { file: self.file.clone(), line: self.line.max(1), limit: self.limit }
    }

    /// The next object with its line.
    fn object(&mut self) -> Result<Option<(u64, Named)>, CohortError> {
        let Some((line, text)) = self.next_line()? else { return Ok(None) };
        // PRIVACY: the parser's own words can quote a value; only the rule is told.
        match serde_json::from_str::<Fields>(text) {
            Ok(fields) => Ok(Some((line, fields.0))),
            Err(_) => Err(self.malformed(line, "it is no JSON object with a name for each value")),
        }
    }

    fn malformed(&self, line: u64, reason: &str) -> CohortError {
        let (file, place) = (self.file.clone(), Place::Line(line).to_string());
        CohortError::Malformed { file, place, reason: reason.to_owned() }
    }
}

/// The names of all objects in the order in which they are first seen.
pub(super) fn names(source: impl Read, file: &str, limits: Limits) -> Result<Vec<String>, CohortError> {
    let mut lines = Lines::new(source, file, limits);
    let mut index: HashMap<String, usize> = HashMap::new();
    while let Some((line, fields)) = lines.object()? {
        for (name, _) in fields {
            if name.trim() != name {
                return Err(lines.malformed(line, "a name has blanks at its ends"));
            }
            let next = index.len();
            // Before it is kept: ten thousand names of a whole line each would be all memory there is.
            let limit = hospes_protocol::limits::NAME_CHARS;
            if name.chars().count() > limit {
                return Err(CohortError::LongColumnName { file: file.to_owned(), index: next + 1, limit });
            }
            index.entry(name).or_insert(next);
            if index.len() > limits.columns {
                return Err(CohortError::TooManyColumns { file: file.to_owned(), limit: limits.columns });
            }
        }
    }
    let mut names: Vec<(String, usize)> = index.into_iter().collect();
    names.sort_by_key(|(_, at)| *at);
    Ok(names.into_iter().map(|(name, _)| name).collect())
}

/// Rows of objects; a name that an object lacks is a missing value.
pub(super) struct JsonRows<R> {
    lines: Lines<R>,
    index: HashMap<String, usize>,
    limits: Limits,
    row: Vec<Option<String>>,
    cells: Cells,
}

impl<R: Read> JsonRows<R> {
    pub(super) fn new(source: R, names: &[String], file: &str, limits: Limits) -> Self {
        let index = names.iter().cloned().zip(0..).collect();
        let row = vec![None; names.len()];
        Self { lines: Lines::new(source, file, limits), index, limits, row, cells: Cells::default() }
    }

    pub(super) fn into_source(self) -> R {
        self.lines.text.into_source()
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Record<'_>>, CohortError> {
        let Some((line, fields)) = self.lines.object()? else { return Ok(None) };
        self.row.fill(None);
        let mut seen = vec![false; self.row.len()];
        for (name, value) in fields {
            let file = || self.lines.file.clone();
            let Some(at) = self.index.get(&name).copied() else {
                return Err(CohortError::SourceChanged { file: file() });
            };
            let wrong = |reason: &str| {
                let place = format!("{}, column '{name}'", Place::Line(line));
                CohortError::Malformed { file: file(), place, reason: reason.to_owned() }
            };
            if std::mem::replace(&mut seen[at], true) {
                return Err(wrong("the name stands there twice"));
            }
            self.row[at] = match value {
                Scalar::Missing => None,
                Scalar::Nested => return Err(wrong("a list or an object; only flat objects can be registered")),
                Scalar::Text(text) if text.len() > self.limits.field_bytes => {
                    let (field, limit) = (at + 1, self.limits.field_bytes);
                    return Err(CohortError::LongField { file: file(), place: Place::Line(line), field, limit });
                }
                Scalar::Text(text) if text.contains('\0') => {
                    return Err(CohortError::NotText { file: file(), place: Place::Line(line) });
                }
                Scalar::Text(text) => Some(text),
            };
        }
        self.cells.clear();
        self.row.iter().for_each(|cell| self.cells.push(cell.as_deref().unwrap_or_default()));
        Ok(Some(self.cells.record(Place::Line(line), None)))
    }
}

type Named = Vec<(String, Scalar)>;

/// The fields of an object in their order, a name that stands there twice included.
struct Fields(Named);

enum Scalar {
    Missing,
    Text(String),
    Nested,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl<'de> Visitor<'de> for Value {
            type Value = Scalar;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Text(u8::from(value).to_string()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_string()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_string()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                // The shortest text that reads as the same number; the parser is exact to the last of its 53 bits but one.
                Ok(Scalar::Text(format!("{value:?}")))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Scalar, E> {
                Ok(Scalar::Missing)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Nested)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Nested)
            }
        }
        deserializer.deserialize_any(Value)
    }
}
