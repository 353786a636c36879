//! The header of an array that numpy wrote (NEP 1, format 1.0 to 3.0), read strictly, and its numbers as text.

use std::io::{self, Read};

/// Longest header.
const HEADER_BYTES: usize = 16 << 10;
/// Most dimensions.
const DIMENSIONS: usize = 5;
/// Most characters of one text.
const TEXT_CHARS: usize = 1 << 10;

/// What one element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Bool,
    Unsigned(usize),
    Signed(usize),
    Float(usize),
    /// So many characters of four bytes.
    Text(usize),
    /// So many bytes.
    Bytes(usize),
}

/// Shape and type of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) element: Element,
    big_end_first: bool,
    pub(super) shape: Vec<usize>,
}

impl Header {
    /// Reads magic, version and header; what follows are the elements.
    ///
    /// # Errors
    /// Which rule it breaks, in words.
    pub(super) fn read(source: &mut impl Read) -> Result<Self, String> {
        let short = |_: io::Error| "it is cut off in its header".to_owned();
        let mut start = [0; 8];
        source.read_exact(&mut start).map_err(short)?;
        if &start[..6] != b"\x93NUMPY" {
            return Err("it is no numpy array".to_owned());
        }
        let length = match start[6] {
            1 => {
                let mut bytes = [0; 2];
                source.read_exact(&mut bytes).map_err(short)?;
                usize::from(u16::from_le_bytes(bytes))
            }
            2 | 3 => {
                let mut bytes = [0; 4];
                source.read_exact(&mut bytes).map_err(short)?;
                u32::from_le_bytes(bytes) as usize
            }
            _ => return Err("its version of the format is not known".to_owned()),
        };
        if length > HEADER_BYTES {
            return Err(format!("its header has more than {HEADER_BYTES} bytes"));
        }
        let mut header = vec![0; length];
        source.read_exact(&mut header).map_err(short)?;
        let text = String::from_utf8(header).map_err(|_| "its header is no text".to_owned())?;
        Parser { rest: text.trim_end() }.header().ok_or_else(|| "its header cannot be read".to_owned())?
    }

    /// Bytes of one element.
    pub(super) fn element_bytes(&self) -> usize {
        match self.element {
            Element::Bool => 1,
            Element::Unsigned(n) | Element::Signed(n) | Element::Float(n) | Element::Bytes(n) => n,
            Element::Text(chars) => chars * 4,
        }
    }

    /// Bytes of one row along the first dimension, and of all rows; `None` if that is more than can be counted.
    pub(super) fn sizes(&self) -> Option<(usize, u64)> {
        let row = self.shape.iter().skip(1).try_fold(self.element_bytes(), |n, side| n.checked_mul(*side))?;
        let all = (row as u64).checked_mul(*self.shape.first()? as u64)?;
        Some((row, all))
    }

    /// An element as text, NaN and padding as nothing; `None` for a character that is none.
    pub(super) fn text(&self, bytes: &[u8]) -> Option<String> {
        let mut little = [0u8; 8];
        if bytes.len() <= little.len() {
            for (at, byte) in bytes.iter().enumerate() {
                little[if self.big_end_first { bytes.len() - 1 - at } else { at }] = *byte;
            }
        }
        let unsigned = u64::from_le_bytes(little);
        match self.element {
            Element::Bool => Some(u8::from(unsigned != 0).to_string()),
            Element::Unsigned(_) => Some(unsigned.to_string()),
            Element::Signed(n) => {
                // The sign comes from the highest byte that there is.
                let shift = 64 - 8 * n;
                Some((i64::from_le_bytes((unsigned << shift).to_le_bytes()) >> shift).to_string())
            }
            Element::Float(4) => {
                let value = f32::from_le_bytes([little[0], little[1], little[2], little[3]]);
                Some(if value.is_nan() { String::new() } else { format!("{value:?}") })
            }
            Element::Float(_) => {
                let value = f64::from_le_bytes(little);
                Some(if value.is_nan() { String::new() } else { format!("{value:?}") })
            }
            Element::Text(_) => {
                let mut text = String::new();
                for four in bytes.chunks_exact(4) {
                    let four = [four[0], four[1], four[2], four[3]];
                    let code = if self.big_end_first { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) };
                    text.push(char::from_u32(code)?);
                }
                Some(text.trim_end_matches('\0').to_owned())
            }
            Element::Bytes(_) => {
                let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
                std::str::from_utf8(&bytes[..end]).ok().map(str::to_owned)
            }
        }
    }
}

/// A reader of the one Python literal that numpy writes: a dictionary of `descr`, `fortran_order` and `shape`.
struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        self.skip();
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        self.skip();
        let quote = self.rest.chars().next().filter(|c| ['\'', '"'].contains(c))?;
        let (text, rest) = self.rest[1..].split_once(quote)?;
        self.rest = rest;
        (!text.contains('\\')).then(|| text.to_owned())
    }

    fn boolean(&mut self) -> Option<bool> {
        self.skip();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Some(value);
            }
        }
        None
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        let mut sides = Vec::new();
        self.take('(')?;
        loop {
            if self.take(')').is_some() {
                return Some(sides);
            }
            self.skip();
            let end = self.rest.find(|c: char| !c.is_ascii_digit())?;
            sides.push(self.rest[..end].parse().ok()?);
            self.rest = &self.rest[end..];
            if sides.len() > DIMENSIONS {
                return None;
            }
            if self.take(',').is_none() {
                self.take(')')?;
                return Some(sides);
            }
        }
    }

    /// `None` if it is no such dictionary; else the header, or which rule it breaks.
    fn header(mut self) -> Option<Result<Header, String>> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.take('{')?;
        while self.take('}').is_none() {
            let key = self.string()?;
            self.take(':')?;
            // A list instead of a string is a record type, which has no place in a table of numbers.
            match key.as_str() {
                "descr" if descr.is_none() => descr = Some(self.string()?),
                "fortran_order" if fortran.is_none() => fortran = Some(self.boolean()?),
                "shape" if shape.is_none() => shape = Some(self.tuple()?),
                _ => return None,
            }
            if self.take(',').is_none() {
                self.take('}')?;
                break;
            }
        }
        let (descr, fortran, shape) = (descr?, fortran?, shape?);
        if !self.rest.is_empty() {
            return None;
        }
        if fortran && shape.len() > 1 {
            return Some(Err("it is stored column by column; store numpy.ascontiguousarray of it".to_owned()));
        }
        let Some((element, big_end_first)) = element(&descr) else {
            return Some(Err("its elements are neither numbers nor text of fixed length".to_owned()));
        };
        Some(Ok(Header { element, big_end_first, shape }))
    }
}

fn element(descr: &str) -> Option<(Element, bool)> {
    let mut chars = descr.chars();
    let (order, kind) = (chars.next()?, chars.next()?);
    let size: usize = chars.as_str().parse().ok()?;
    let element = match (kind, size) {
        ('b', 1) => Element::Bool,
        ('u', 1 | 2 | 4 | 8) => Element::Unsigned(size),
        ('i', 1 | 2 | 4 | 8) => Element::Signed(size),
        ('f', 4 | 8) => Element::Float(size),
        ('U', 1..=TEXT_CHARS) => Element::Text(size),
        ('S', 1..=TEXT_CHARS) => Element::Bytes(size),
        _ => return None,
    };
    ['|', '<', '=', '>'].contains(&order).then_some((element, order == '>'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes()].concat()
    }

    fn read(header: &str) -> Result<Header, String> {
        Header::read(&mut file(header).as_slice())
    }

    #[test]
    fn headers_that_numpy_writes_are_read() {
        let found = read("{'descr': '|u1', 'fortran_order': False, 'shape': (546, 28, 28), }          \n").unwrap();
        assert_eq!((found.element, found.shape.clone()), (Element::Unsigned(1), vec![546, 28, 28]));
        assert_eq!(found.sizes(), Some((784, 546 * 784)));
        assert_eq!(read("{'descr': '<i8', 'fortran_order': True, 'shape': (3,), }\n").unwrap().shape, [3]);
        assert_eq!(read("{'descr': '<U12', 'fortran_order': False, 'shape': (), }").unwrap().sizes(), None);
    }

    #[test]
    fn other_headers_are_refused_by_their_rule() {
        let of = |descr: &str, rest: &str| read(&format!("{{'descr': {descr}, {rest}}}")).unwrap_err();
        let rest = "'fortran_order': False, 'shape': (2,)";
        assert_eq!(of("'|O'", rest), "its elements are neither numbers nor text of fixed length");
        for wrong in [
            of("[('a', '<i4')]", rest),
            of("'|u1'", "'fortran_order': 0, 'shape': (2,)"),
            of("'|u1'", "'fortran_order': False, 'shape': (-2,)"),
            of("'|u1'", "'fortran_order': False, 'shape': (1,1,1,1,1,1)"),
            of("'|u1'", "'fortran_order': False, 'shape': (2,), 'shape': (3,)"),
            of("'|u1'", "'fortran_order': False, 'shape': (99999999999999999999,)"),
            of("'|u1'", "'fortran_order': False"),
            read("{'descr': '|u1', 'fortran_order': False, 'shape': (2,)} import os").unwrap_err(),
        ] {
            assert_eq!(wrong, "its header cannot be read");
        }
        assert!(of("'|u1'", "'fortran_order': True, 'shape': (2,2)").contains("column by column"));
        assert_eq!(Header::read(&mut b"PK\x03\x04....".as_slice()).unwrap_err(), "it is no numpy array");
        assert!(Header::read(&mut [b"\x93NUMPY\x02\x00".as_slice(), &[0xFF; 8]].concat().as_slice()).is_err());
    }

    #[test]
    fn elements_become_the_text_that_a_table_would_have() {
        let header = |descr| {
            let (element, big_end_first) = element(descr).unwrap();
            Header { element, big_end_first, shape: vec![1] }
        };
        let text = |descr, bytes: &[u8]| header(descr).text(bytes);
        assert_eq!(text("<i2", &(-2i16).to_le_bytes()).unwrap(), "-2");
        assert_eq!(text(">i4", &70_000i32.to_be_bytes()).unwrap(), "70000");
        assert_eq!(text("|u1", &[255]).unwrap(), "255");
        assert_eq!(text("<u8", &u64::MAX.to_le_bytes()).unwrap(), u64::MAX.to_string());
        assert_eq!(text("<i8", &i64::MIN.to_le_bytes()).unwrap(), i64::MIN.to_string());
        assert_eq!(text("<f4", &0.1f32.to_le_bytes()).unwrap(), "0.1");
        assert_eq!(text("<f8", &f64::NAN.to_le_bytes()).unwrap(), "");
        assert_eq!(text("|b1", &[1]).unwrap(), "1");
        assert_eq!(text("|S4", b"ab\0\0").unwrap(), "ab");
        assert_eq!(text("<U2", &[0x50, 0, 0, 0, 0x31, 0, 0, 0]).unwrap(), "P1");
        assert_eq!(text("<U1", &[0, 0xD8, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::read(&mut bytes.as_slice());
            let _ = read(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_header_is_read_as_it_was_written(sides in prop::collection::vec(0usize..1_000, 1..4), n in 0usize..6) {
            let descr = ["|u1", "<i2", ">i4", "<f8", "|b1", "<U3"][n];
            let shape = sides.iter().map(|s| format!("{s},")).collect::<String>();
            let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
            let found = read(&text).unwrap();
            prop_assert_eq!(&found.shape, &sides);
            prop_assert_eq!(found.sizes().unwrap().1, sides.iter().product::<usize>() as u64 * found.element_bytes() as u64);
        }
    }
}
