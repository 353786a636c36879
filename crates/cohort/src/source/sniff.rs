//! What the format of a file is, from its beginning.

use serde::{Deserialize, Serialize};

/// What separates fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delimiter {
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// Tabulator.
    Tab,
    /// `|`
    Pipe,
}

impl Delimiter {
    /// All that are known.
    pub const ALL: [Self; 4] = [Self::Comma, Self::Semicolon, Self::Tab, Self::Pipe];

    /// The character.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
            Self::Pipe => b'|',
        }
    }
}

/// Records of the sample that are looked at.
const SAMPLE_RECORDS: usize = 50;

/// The delimiter with which most records of the sample have as many fields as the first, and at least two.
pub(crate) fn delimiter(sample: &str, cut_off: bool) -> Delimiter {
    let score = |candidate: Delimiter| {
        let counts = field_counts(sample.as_bytes(), candidate, cut_off);
        let first = counts.first().copied().unwrap_or(0);
        if first < 2 {
            return (0, 0);
        }
        let same = counts.iter().filter(|n| **n == first).count();
        (same * 1_000 / counts.len(), first)
    };
    // `max_by_key` takes the last of equals; the comma stands last.
    Delimiter::ALL.into_iter().rev().max_by_key(|d| score(*d)).unwrap_or(Delimiter::Comma)
}

fn field_counts(sample: &[u8], delimiter: Delimiter, cut_off: bool) -> Vec<usize> {
    let mut parser = csv_core::ReaderBuilder::new().delimiter(delimiter.byte()).build();
    let mut counts = Vec::new();
    let mut data = vec![0; sample.len() + 1];
    let mut ends = vec![0; sample.len() + 2];
    let mut rest = sample;
    loop {
        let (result, read, _, fields) = parser.read_record(rest, &mut data, &mut ends);
        rest = &rest[read..];
        match result {
            csv_core::ReadRecordResult::Record if counts.len() < SAMPLE_RECORDS => counts.push(fields),
            csv_core::ReadRecordResult::InputEmpty if !cut_off || counts.is_empty() => {
                // The end of the file ends the last record.
                let (last, _, _, more) = parser.read_record(&[], &mut data, &mut ends);
                if matches!(last, csv_core::ReadRecordResult::Record) {
                    counts.push(fields + more);
                }
                return counts;
            }
            _ => return counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiter_is_the_one_with_steady_counts() {
        assert_eq!(delimiter("a,b,c\n1,2,3\n", false), Delimiter::Comma);
        assert_eq!(delimiter("a;b;c\n1,5;2,5;3\n1;2;3,1\n", false), Delimiter::Semicolon);
        assert_eq!(delimiter("a\tb\n\"x,y\"\t2\n", false), Delimiter::Tab);
        assert_eq!(delimiter("a|b\n1|2\n", false), Delimiter::Pipe);
        assert_eq!(delimiter("single\n1\n", false), Delimiter::Comma);
        assert_eq!(delimiter("", false), Delimiter::Comma);
        assert_eq!(delimiter("a;b\n1;2\n3", true), Delimiter::Semicolon);
    }
}
