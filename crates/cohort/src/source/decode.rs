//! Bytes of a file in some encoding become UTF-8 text, chunk by chunk.

use std::io::{self, Read};

use encoding_rs::{CoderResult, Decoder, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use serde::{Deserialize, Serialize};

/// Encoding of a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// UTF-16, little end first.
    Utf16Le,
    /// UTF-16, big end first.
    Utf16Be,
    /// Windows-1252, a superset of the printable part of Latin-1.
    Windows1252,
}

impl Encoding {
    /// Name for people.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16Le => "UTF-16LE",
            Self::Utf16Be => "UTF-16BE",
            Self::Windows1252 => "windows-1252",
        }
    }

    fn decoder(self) -> Decoder {
        match self {
            Self::Utf8 => UTF_8.new_decoder_with_bom_removal(),
            Self::Utf16Le => UTF_16LE.new_decoder_with_bom_removal(),
            Self::Utf16Be => UTF_16BE.new_decoder_with_bom_removal(),
            Self::Windows1252 => WINDOWS_1252.new_decoder_without_bom_handling(),
        }
    }
}

/// Why a chunk of text could not be had.
#[derive(Debug)]
pub(crate) enum TextError {
    Io(io::Error),
    Malformed,
}

const CHUNK: usize = 64 << 10;

/// Reads a source and hands out UTF-8 in chunks of bounded size.
pub(crate) struct TextReader<R> {
    source: R,
    decoder: Decoder,
    raw: Vec<u8>,
    raw_start: usize,
    raw_end: usize,
    text: Vec<u8>,
    at_end: bool,
    finished: bool,
}

impl<R: Read> TextReader<R> {
    pub(crate) fn new(source: R, encoding: Encoding) -> Self {
        Self {
            source,
            decoder: encoding.decoder(),
            raw: vec![0; CHUNK],
            raw_start: 0,
            raw_end: 0,
            // Every 2 bytes of UTF-16 or byte of windows-1252 become at most 3 bytes of UTF-8.
            text: vec![0; CHUNK * 3 + 16],
            at_end: false,
            finished: false,
        }
    }

    /// The source, as far as it was read.
    pub(crate) fn into_source(self) -> R {
        self.source
    }

    /// The next chunk; empty at the end.
    pub(crate) fn next_chunk(&mut self) -> Result<&[u8], TextError> {
        loop {
            if self.finished {
                return Ok(&[]);
            }
            if self.raw_start == self.raw_end && !self.at_end {
                self.raw_start = 0;
                self.raw_end = read_some(&mut self.source, &mut self.raw).map_err(TextError::Io)?;
                self.at_end = self.raw_end == 0;
            }
            let input = &self.raw[self.raw_start..self.raw_end];
            let (result, read, written) =
                self.decoder.decode_to_utf8_without_replacement(input, &mut self.text, self.at_end);
            self.raw_start += read;
            match result {
                encoding_rs::DecoderResult::Malformed(..) => return Err(TextError::Malformed),
                encoding_rs::DecoderResult::InputEmpty => self.finished = self.at_end,
                encoding_rs::DecoderResult::OutputFull => {}
            }
            if written > 0 {
                return Ok(&self.text[..written]);
            }
        }
    }
}

/// One `read` that is not interrupted.
fn read_some(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Finds the encoding of a whole source: a byte order mark decides, then the pattern of zero bytes of UTF-16, then
/// whether everything is valid UTF-8; what is left is taken as windows-1252, and the report says so.
pub(crate) fn detect(source: &mut impl Read) -> io::Result<(Encoding, &'static str)> {
    let mut head = vec![0; CHUNK];
    let mut filled = 0;
    while filled < head.len() {
        match read_some(source, &mut head[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    head.truncate(filled);
    if head.starts_with(&[0xEF, 0xBB, 0xBF]) {
        return Ok((Encoding::Utf8, "byte order mark"));
    }
    if head.starts_with(&[0xFF, 0xFE]) {
        return Ok((Encoding::Utf16Le, "byte order mark"));
    }
    if head.starts_with(&[0xFE, 0xFF]) {
        return Ok((Encoding::Utf16Be, "byte order mark"));
    }
    let zeros = |parity: usize| head.iter().skip(parity).step_by(2).filter(|b| **b == 0).count();
    let (even, odd, half) = (zeros(0), zeros(1), head.len() / 2);
    if half > 0 && odd > half * 3 / 4 && even < half / 4 {
        return Ok((Encoding::Utf16Le, "pattern of zero bytes"));
    }
    if half > 0 && even > half * 3 / 4 && odd < half / 4 {
        return Ok((Encoding::Utf16Be, "pattern of zero bytes"));
    }
    if all_utf8(&head, source)? {
        Ok((Encoding::Utf8, "all bytes are valid UTF-8"))
    } else {
        Ok((Encoding::Windows1252, "assumed, because the bytes are not valid UTF-8"))
    }
}

fn all_utf8(head: &[u8], source: &mut impl Read) -> io::Result<bool> {
    let mut decoder = UTF_8.new_decoder_without_bom_handling();
    let mut text = vec![0u8; CHUNK * 3 + 16];
    let mut valid = |bytes: &[u8], last: bool| {
        let mut rest = bytes;
        loop {
            let (result, read, _) = decoder.decode_to_utf8_without_replacement(rest, &mut text, last);
            rest = &rest[read..];
            match result {
                encoding_rs::DecoderResult::InputEmpty => return true,
                encoding_rs::DecoderResult::OutputFull => {}
                encoding_rs::DecoderResult::Malformed(..) => return false,
            }
        }
    };
    if !valid(head, false) {
        return Ok(false);
    }
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = read_some(source, &mut chunk)?;
        if !valid(&chunk[..n], n == 0) {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

/// Decodes a short sample, ignoring what is cut off at its end.
pub(crate) fn sample_text(bytes: &[u8], encoding: Encoding) -> String {
    let mut decoder = encoding.decoder();
    let mut text = String::with_capacity(bytes.len() * 3 + 16);
    let (result, _, _) = decoder.decode_to_string(bytes, &mut text, false);
    debug_assert!(result == CoderResult::InputEmpty);
    text
}
