//! Text becomes records, with a limit on everything, so that no input can use up memory.

use std::io::Read;

use csv_core::ReadRecordResult;

use super::decode::{TextError, TextReader};
use super::rows::Place;
use super::{Format, Limits};
use crate::error::CohortError;

/// One record: its fields as UTF-8, its image if it has one, and where it begins.
pub(crate) struct Record<'a> {
    pub(crate) place: Place,
    pub(crate) pixels: Option<&'a [u8]>,
    data: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Record<'a> {
    /// The record with its image.
    pub(super) fn with_pixels(self, pixels: &'a [u8]) -> Self {
        Self { pixels: Some(pixels), ..self }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Field at a position that exists.
    pub(crate) fn field(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        // Decoders hand out valid UTF-8 and the parser cuts at ASCII characters only.
        std::str::from_utf8(&self.data[start..self.ends[index]]).unwrap_or_default()
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.field(i))
    }
}

/// Fields of a record that a reader puts together, in room that is used again.
#[derive(Default)]
pub(super) struct Cells {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl Cells {
    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
    }

    pub(super) fn push(&mut self, cell: &str) {
        self.data.extend_from_slice(cell.as_bytes());
        self.ends.push(self.data.len());
    }

    pub(super) fn record<'a>(&'a self, place: Place, pixels: Option<&'a [u8]>) -> Record<'a> {
        Record { place, pixels, data: &self.data, ends: &self.ends }
    }
}

/// Reads records from a source.
pub(crate) struct RecordReader<R> {
    text: TextReader<R>,
    parser: csv_core::Reader,
    file: String,
    encoding: &'static str,
    limits: Limits,
    pending: Vec<u8>,
    pending_start: usize,
    at_end: bool,
    data: Vec<u8>,
    ends: Vec<usize>,
}

/// Field data starts with this much room and doubles up to the limit of a record.
const FIRST_BUFFER: usize = 4 << 10;

impl<R: Read> RecordReader<R> {
    pub(crate) fn new(source: R, file: &str, format: &Format, limits: Limits) -> Self {
        let parser = csv_core::ReaderBuilder::new().delimiter(format.delimiter.byte()).build();
        Self {
            text: TextReader::new(source, format.encoding),
            parser,
            file: file.to_owned(),
            encoding: format.encoding.name(),
            limits,
            pending: Vec::new(),
            pending_start: 0,
            at_end: false,
            data: vec![0; FIRST_BUFFER.min(limits.record_bytes)],
            ends: vec![0; 64.min(limits.columns + 1)],
        }
    }

    /// The source, as far as it was read.
    pub(super) fn into_source(self) -> R {
        self.text.into_source()
    }

    /// The next record, or `None` at the end. Empty lines are skipped, as RFC 4180 readers do.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record<'_>>, CohortError> {
        let (mut written, mut fields) = (0, 0);
        let mut line = self.parser.line();
        let mut seen = 0usize;
        let mut quotes = 0usize;
        loop {
            if self.pending_start == self.pending.len() && !self.at_end {
                self.refill(line)?;
            }
            let input = &self.pending[self.pending_start..];
            if written == 0 && fields == 0 && seen == 0 {
                line = self.parser.line() + leading_newlines(input);
            }
            let (result, read, out, ended) =
                self.parser.read_record(input, &mut self.data[written..], &mut self.ends[fields..]);
            quotes += input[..read].iter().filter(|b| **b == b'"').count();
            self.pending_start += read;
            seen += read;
            written += out;
            fields += ended;
            // Quotes and delimiters count too: a record of 200 MB of quotes has no data and is too long all the same.
            if seen > self.limits.record_bytes {
                return Err(self.long_record(line));
            }
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.grow_data(line)?,
                ReadRecordResult::OutputEndsFull => self.grow_ends()?,
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        let spans = self.parser.line().saturating_sub(line);
        if self.at_end && quotes % 2 == 1 && spans > 1 {
            return Err(CohortError::OpenQuote { file: self.file.clone(), line });
        }
        self.check_fields(line, written, fields)?;
        let place = Place::Line(line);
        Ok(Some(Record { place, pixels: None, data: &self.data[..written], ends: &self.ends[..fields] }))
    }

    fn refill(&mut self, line: u64) -> Result<(), CohortError> {
        self.pending_start = 0;
        match self.text.next_chunk() {
            Ok(chunk) => {
                self.at_end = chunk.is_empty();
                self.pending.clear();
                self.pending.extend_from_slice(chunk);
                Ok(())
            }
            Err(TextError::Io(source)) => Err(CohortError::ReadSource { file: self.file.clone(), source }),
            Err(TextError::Malformed) => {
                Err(CohortError::Encoding { file: self.file.clone(), line, encoding: self.encoding.to_owned() })
            }
        }
    }

    fn grow_data(&mut self, line: u64) -> Result<(), CohortError> {
        if self.data.len() >= self.limits.record_bytes {
            return Err(self.long_record(line));
        }
        let size = (self.data.len() * 2).min(self.limits.record_bytes);
        self.data.resize(size, 0);
        Ok(())
    }

    fn grow_ends(&mut self) -> Result<(), CohortError> {
        // One more than the limit, so that a record with too many fields shows.
        if self.ends.len() > self.limits.columns {
            return Err(CohortError::TooManyColumns { file: self.file.clone(), limit: self.limits.columns });
        }
        let size = (self.ends.len() * 2).min(self.limits.columns + 1);
        self.ends.resize(size, 0);
        Ok(())
    }

    fn check_fields(&self, line: u64, written: usize, fields: usize) -> Result<(), CohortError> {
        if fields > self.limits.columns {
            return Err(CohortError::TooManyColumns { file: self.file.clone(), limit: self.limits.columns });
        }
        if self.data[..written].contains(&0) {
            return Err(CohortError::NotText { file: self.file.clone(), place: Place::Line(line) });
        }
        let mut start = 0;
        for (index, end) in self.ends[..fields].iter().enumerate() {
            if end - start > self.limits.field_bytes {
                let limit = self.limits.field_bytes;
                let (file, place) = (self.file.clone(), Place::Line(line));
                return Err(CohortError::LongField { file, place, field: index + 1, limit });
            }
            start = *end;
        }
        Ok(())
    }

    fn long_record(&self, line: u64) -> CohortError {
        CohortError::LongRecord { file: self.file.clone(), line, limit: self.limits.record_bytes }
    }
}

/// Lines that the parser will skip before the record begins.
fn leading_newlines(input: &[u8]) -> u64 {
    input.iter().take_while(|b| matches!(**b, b'\n' | b'\r')).filter(|b| **b == b'\n').count() as u64
}
