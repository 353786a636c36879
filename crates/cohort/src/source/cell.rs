//! A cell's text: missing or not, a number, a date.

use serde::{Deserialize, Serialize};

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decimal {
    /// 1.5
    Point,
    /// 1,5
    Comma,
}

/// How finely a date is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DateGrain {
    Month,
    Day,
}

/// A number in the given notation; no infinities, no NaN, no thousands separators.
pub(crate) fn number(text: &str, decimal: Decimal) -> Option<f64> {
    let text = text.trim();
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.len() > 64 || !bytes.iter().all(|b| b.is_ascii_digit() || b"+-.,eE".contains(b)) {
        return None;
    }
    let value = match decimal {
        Decimal::Point => text.parse::<f64>().ok()?,
        Decimal::Comma if text.contains('.') => return None,
        Decimal::Comma => text.replacen(',', ".", 1).parse::<f64>().ok()?,
    };
    value.is_finite().then_some(value)
}

/// Which notation a cell can only have, if it is a number at all.
pub(crate) fn notation(text: &str) -> Option<Decimal> {
    let text = text.trim();
    let mark = text.find(['.', ','])?;
    let decimal = if text.as_bytes()[mark] == b',' { Decimal::Comma } else { Decimal::Point };
    number(text, decimal).map(|_| decimal)
}

/// A date as ISO 8601 (`2024-05-31`, `2024-05`, with or without a time), `31.05.2024` or `05/31/2024`.
pub(crate) fn date(text: &str) -> Option<DateGrain> {
    let text = text.trim();
    if text.len() > 40 || !text.is_ascii() {
        return None;
    }
    let day = text.split(['T', ' ']).next()?;
    let rest = &text[day.len()..];
    if !rest.is_empty() && !rest[1..].bytes().all(|b| b.is_ascii_digit() || b":.+-Z".contains(&b)) {
        return None;
    }
    let parts = |separator| {
        day.split(separator).map(|p| p.parse::<u32>().ok().map(|n| (n, p.len()))).collect::<Option<Vec<_>>>()
    };
    let fits = |year: (u32, usize), month: (u32, usize), day: u32| {
        year.1 == 4 && (1_800..=2_200).contains(&year.0) && (1..=12).contains(&month.0) && (1..=31).contains(&day)
    };
    if let Some(p) = parts('-') {
        match p[..] {
            [year, month] if fits(year, month, 1) => return Some(DateGrain::Month),
            [year, month, day] if fits(year, month, day.0) => return Some(DateGrain::Day),
            _ => return None,
        }
    }
    if let Some([day, month, year]) = parts('.').as_deref() {
        return fits(*year, *month, day.0).then_some(DateGrain::Day);
    }
    if let Some([a, b, year]) = parts('/').as_deref() {
        return (fits(*year, *a, b.0) || fits(*year, *b, a.0)).then_some(DateGrain::Day);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_their_notation() {
        assert_eq!(number(" .7", Decimal::Point), Some(0.7));
        assert_eq!(number("-1,5", Decimal::Comma), Some(-1.5));
        assert_eq!(number("1.000,5", Decimal::Comma), None);
        assert_eq!(number("1,5", Decimal::Point), None);
        for text in ["", "inf", "NaN", "1e999", "0x10", "12a", "--1"] {
            assert_eq!(number(text, Decimal::Point), None, "{text}");
        }
    }

    #[test]
    fn dates_are_told_from_numbers_and_codes() {
        for text in ["2024-05-31", "31.05.2024", "05/31/2024", "31/05/2024", "2024-05-31T10:00:00Z"] {
            assert_eq!(date(text), Some(DateGrain::Day), "{text}");
        }
        assert_eq!(date("2024-05"), Some(DateGrain::Month));
        for text in ["2024", "2024-13-01", "1.5", "10.4", "abc", "2024-05-31x", ""] {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
