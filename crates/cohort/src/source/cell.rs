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

/// A date: `2024-05-31`, `2024-05`, `20240531`, and day, month (as a number or its name) and year in any usual order,
/// separated by `-`, `.` or `/`; each with or without a time.
pub(crate) fn date(text: &str) -> Option<DateGrain> {
    let text = text.trim();
    if text.len() > 40 || !text.is_ascii() {
        return None;
    }
    let bytes = text.as_bytes();
    let ends = |i: usize| bytes[i] == b' ' || (bytes[i] == b'T' && i > 0 && bytes[i - 1].is_ascii_digit());
    let day = &text[..(0..bytes.len()).find(|i| ends(*i)).unwrap_or(bytes.len())];
    let rest = &text[day.len()..];
    if !rest.is_empty() && !rest[1..].bytes().all(|b| b.is_ascii_digit() || b":.+-Z".contains(&b)) {
        return None;
    }
    if day.len() == 8 && day.bytes().all(|b| b.is_ascii_digit()) {
        return fits(&day[..4], &day[4..6], &day[6..]).then_some(DateGrain::Day);
    }
    let separator = day.bytes().find(|b| b"-./".contains(b))?;
    match day.split(char::from(separator)).collect::<Vec<_>>()[..] {
        [year, month] if separator == b'-' && fits(year, month, "1") => Some(DateGrain::Month),
        [a, b, c] if fits(a, b, c) || fits(c, b, a) || fits(c, a, b) => Some(DateGrain::Day),
        _ => None,
    }
}

fn fits(year: &str, month: &str, day: &str) -> bool {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let year_fits = match number(year) {
        Some(n) if year.len() == 4 => (1_800..=2_200).contains(&n),
        Some(_) => year.len() == 2,
        None => false,
    };
    let month_fits = number(month).map_or_else(|| is_month(month), |n| month.len() <= 2 && (1..=12).contains(&n));
    year_fits && month_fits && day.len() <= 2 && number(day).is_some_and(|n| (1..=31).contains(&n))
}

/// The name of a month in English or German, or its first three letters.
fn is_month(text: &str) -> bool {
    const STARTS: [&str; 16] = [
        "jan", "feb", "mar", "mrz", "apr", "may", "mai", "jun", "jul", "aug", "sep", "oct", "okt", "nov", "dec", "dez",
    ];
    let text = text.to_ascii_lowercase();
    (3..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphabetic()) && STARTS.contains(&&text[..3])
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
        for text in [
            "2024-05-31",
            "31.05.2024",
            "05/31/2024",
            "31/05/2024",
            "2024-05-31T10:00:00Z",
            "31-05-2024 10:00",
            "20240531",
            "2024.05.31",
            "31.5.24",
            "31-OCT-2024",
            "1-Mai-2024",
        ] {
            assert_eq!(date(text), Some(DateGrain::Day), "{text}");
        }
        assert_eq!(date("2024-05"), Some(DateGrain::Month));
        for text in [
            "2024",
            "2024-13-01",
            "1.5",
            "10.4",
            "abc",
            "2024-05-31x",
            "",
            "20241301",
            "12345678",
            "078-05-1120",
            "1.2.3",
            "-",
            "/",
            "31-Obt-2024",
        ] {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
