//! XML of a workbook's parts, element by element, with a limit on what one piece of it takes in memory.

use std::io::{self, BufRead, BufReader, Read};

use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::super::zip::{self, EntryReader};

pub(super) const DAMAGED: &str = "it is damaged";
const CUT_OFF: &str = "it is cut off";
/// Most elements within each other, and most bytes of the name of one: the parser keeps the names of all that are open,
/// also where pieces are short.
const DEPTH: usize = 64;
const NAME_BYTES: usize = 256;

/// A reader that ends with an error where a piece is longer than it may be.
struct Bounded<R> {
    inner: R,
    left: usize,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let n = bytes.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = self.left;
        if left == 0 {
            let why = "it has a row or a text that is longer than those of any table";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let bytes = self.inner.fill_buf()?;
        Ok(&bytes[..bytes.len().min(left)])
    }

    fn consume(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.inner.consume(bytes);
    }
}

/// Where an element begins, as far as somebody wants to know of it, or the one around ends.
pub(super) enum Step<T> {
    Open(T),
    Close,
}

/// A part while it is read. Whoever reads opens an element with [`step`](Self::step) and then leaves it by
/// [`skip`](Self::skip), [`text`](Self::text), [`item`](Self::item) or its own steps up to [`Step::Close`].
pub(super) struct Xml {
    reader: Reader<Bounded<BufReader<EntryReader>>>,
    buffer: Vec<u8>,
    piece: usize,
    /// Elements that are open.
    depth: usize,
}

impl Xml {
    /// Reads from the start; `piece` is how many bytes may come between two calls of [`next_piece`](Self::next_piece).
    pub(super) fn new(source: EntryReader, piece: usize) -> Self {
        let mut reader = Reader::from_reader(Bounded { inner: BufReader::new(source), left: piece });
        reader.config_mut().expand_empty_elements = true;
        Self { reader, buffer: Vec::new(), piece, depth: 0 }
    }

    /// A new piece begins.
    pub(super) fn next_piece(&mut self) {
        self.reader.get_mut().left = self.piece;
    }

    fn event(&mut self) -> Result<Event<'_>, String> {
        self.buffer.clear();
        // PRIVACY: the parser's own words can quote a value; only the rule is told.
        let event = self.reader.read_event_into(&mut self.buffer).map_err(|why| match why {
            quick_xml::Error::Io(why) => zip::words(&why),
            _ => DAMAGED.to_owned(),
        })?;
        match &event {
            Event::Start(element) => {
                self.depth += 1;
                if self.depth > DEPTH || element.name().into_inner().len() > NAME_BYTES {
                    return Err("it nests its elements deeper, or names one longer, than any workbook does".to_owned());
                }
            }
            Event::End(_) => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        Ok(event)
    }

    /// Goes on to where an element begins, of which `read` is given the name without its prefix, or where the element
    /// around it ends; text between is passed over.
    pub(super) fn step<T>(
        &mut self,
        read: impl FnOnce(&str, &BytesStart<'_>) -> Result<T, String>,
    ) -> Result<Step<T>, String> {
        loop {
            match self.event()? {
                Event::Start(element) => return read(element.local_name().into_inner(), &element).map(Step::Open),
                Event::End(_) => return Ok(Step::Close),
                Event::Eof => return Err(CUT_OFF.to_owned()),
                _ => {}
            }
        }
    }

    /// Reads past the end of the element that was just opened.
    pub(super) fn skip(&mut self) -> Result<(), String> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.step(|_, _| Ok(()))? {
                Step::Open(()) => depth += 1,
                Step::Close => depth -= 1,
            }
        }
        Ok(())
    }

    /// Appends the text of the element that was just opened, up to its end; elements within it are left out.
    pub(super) fn text(&mut self, into: &mut String) -> Result<(), String> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.event()? {
                Event::Start(_) => depth += 1,
                Event::End(_) => depth -= 1,
                Event::Text(text) if depth == 1 => into.push_str(&text.xml10_content()),
                Event::CData(text) if depth == 1 => into.push_str(&text.xml10_content()),
                Event::GeneralRef(reference) if depth == 1 => into.push(character(&reference)?),
                Event::Eof => return Err(CUT_OFF.to_owned()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends the text of a string item (`si`, `is`) that was just opened: its runs one after the other, without hints on
    /// how to pronounce it.
    pub(super) fn item(&mut self, into: &mut String) -> Result<(), String> {
        enum Part {
            Run,
            Text,
            Other,
        }
        let mut depth = 1usize;
        while depth > 0 {
            let part = |name: &str, _: &BytesStart<'_>| {
                Ok(match name {
                    "r" => Part::Run,
                    "t" => Part::Text,
                    _ => Part::Other,
                })
            };
            match self.step(part)? {
                Step::Close => depth -= 1,
                Step::Open(Part::Run) => depth += 1,
                Step::Open(Part::Text) => self.text(into)?,
                Step::Open(Part::Other) => self.skip()?,
            }
        }
        Ok(())
    }

    /// Reads what is left, at whose end the archive checks length and checksum.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        loop {
            self.next_piece();
            if let Event::Eof = self.event()? {
                return Ok(());
            }
        }
    }
}

/// The character that a reference names; a document cannot define any of its own here.
fn character(reference: &BytesRef<'_>) -> Result<char, String> {
    let name: &str = reference;
    match name {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "apos" => Ok('\''),
        "quot" => Ok('"'),
        _ => reference.resolve_char_ref().ok().flatten().ok_or_else(|| DAMAGED.to_owned()),
    }
}

/// An attribute by its name without its prefix.
pub(super) fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let damaged = |_| DAMAGED.to_owned();
    for attribute in element.attributes().with_checks(false) {
        let attribute = attribute.map_err(|_| DAMAGED.to_owned())?;
        if attribute.key.local_name().into_inner() == name {
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(damaged)?;
            return Ok(Some(value.into_owned()));
        }
    }
    Ok(None)
}
