//! What a cell of a sheet says as text: numbers without a needless `.0`, dates as `2024-05-31`, true and false as 1 and 0.

use std::borrow::Cow;

use super::xml::DAMAGED;

/// Most texts of the workbook's list: more than fit into it unless they are empty.
const TEXTS: usize = 32 << 20;

/// How a cell's value is written, by its attribute `t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    /// The position of a text in the workbook's list.
    Shared,
    Text,
    Truth,
    Fault,
    IsoDate,
}

impl Kind {
    pub(super) fn of(attribute: &str) -> Option<Self> {
        match attribute {
            "n" => Some(Self::Number),
            "s" => Some(Self::Shared),
            "str" | "inlineStr" => Some(Self::Text),
            "b" => Some(Self::Truth),
            "e" => Some(Self::Fault),
            "d" => Some(Self::IsoDate),
            _ => None,
        }
    }
}

/// As what a number is shown, by its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Number,
    /// A day, with a time of day where the number has one.
    Date,
    /// A time of day.
    Time,
    /// Hours, minutes and seconds that go on past a day.
    Span,
}

impl Shown {
    /// By the number of a format that every workbook knows without saying so.
    pub(super) fn built_in(id: u32) -> Self {
        match id {
            14..=17 | 22 | 27..=36 | 50..=58 => Self::Date,
            18..=21 | 45 | 47 => Self::Time,
            46 => Self::Span,
            _ => Self::Number,
        }
    }

    /// By a format's code, such as `dd.mm.yyyy`; its first section is that of positive numbers.
    pub(super) fn of_code(code: &str) -> Self {
        let (mut day, mut month, mut clock) = (false, false, false);
        let mut rest = code.chars();
        while let Some(c) = rest.next() {
            match c.to_ascii_lowercase() {
                ';' => break,
                '"' => _ = rest.by_ref().find(|c| *c == '"'),
                // The character after these is shown as it is, or as wide as it is.
                '\\' | '_' | '*' => _ = rest.next(),
                '[' => {
                    let within: String = rest.by_ref().take_while(|c| *c != ']').collect();
                    let is_span = |letter| within.chars().all(|c| c.eq_ignore_ascii_case(&letter));
                    if !within.is_empty() && ['h', 'm', 's'].into_iter().any(is_span) {
                        return Self::Span;
                    }
                }
                'y' | 'd' => day = true,
                'm' => month = true,
                'h' | 's' => clock = true,
                _ => {}
            }
        }
        match (day || (month && !clock), clock) {
            (true, _) => Self::Date,
            (false, true) => Self::Time,
            (false, false) => Self::Number,
        }
    }
}

/// What is needed to say what a cell holds, besides the cell.
pub(super) struct Words {
    texts: String,
    ends: Vec<usize>,
    /// By the position of a style.
    pub(super) styles: Vec<Shown>,
    /// Whether days are counted from 1904.
    pub(super) is_1904: bool,
}

impl Words {
    pub(super) fn new(is_1904: bool) -> Self {
        Self { texts: String::new(), ends: Vec::new(), styles: Vec::new(), is_1904 }
    }

    /// Takes the next text of the workbook's list; `read` appends it.
    pub(super) fn push(&mut self, read: impl FnOnce(&mut String) -> Result<(), String>) -> Result<(), String> {
        if self.ends.len() == TEXTS {
            return Err(format!("its list has more than {TEXTS} texts"));
        }
        read(&mut self.texts)?;
        self.ends.push(self.texts.len());
        Ok(())
    }

    fn shared(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.texts.get(start..end)
    }

    /// The text of a cell; empty where its value is missing.
    ///
    /// # Errors
    /// Why it has none, in words that repeat no value.
    pub(super) fn text<'a>(&'a self, kind: Kind, style: usize, raw: &'a str) -> Result<Cow<'a, str>, String> {
        let plain = raw.trim();
        if plain.is_empty() {
            return Ok(Cow::Borrowed(""));
        }
        match kind {
            Kind::Text => Ok(Cow::Borrowed(raw)),
            Kind::Shared => {
                let text = plain.parse().ok().and_then(|index| self.shared(index));
                text.map(Cow::Borrowed).ok_or_else(|| "it names a text that the workbook does not have".to_owned())
            }
            Kind::Truth => match plain {
                "1" | "true" => Ok(Cow::Borrowed("1")),
                "0" | "false" => Ok(Cow::Borrowed("0")),
                _ => Err(DAMAGED.to_owned()),
            },
            Kind::Fault => fault(plain),
            Kind::IsoDate => Ok(Cow::Borrowed(plain.strip_suffix("T00:00:00").unwrap_or(plain))),
            Kind::Number => {
                let value = plain.parse::<f64>().ok().filter(|value| value.is_finite());
                let value = value.ok_or_else(|| "it holds no number although it says so".to_owned())?;
                let shown = self.styles.get(style).copied().unwrap_or(Shown::Number);
                moment(value, shown, self.is_1904).map(Cow::Owned)
            }
        }
    }
}

/// #N/A says that there is no value. Any other error is a formula that went wrong, and no value that a patient lacks.
fn fault(code: &str) -> Result<Cow<'static, str>, String> {
    const CODES: [&str; 7] = ["#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#GETTING_DATA"];
    if code == "#N/A" {
        return Ok(Cow::Borrowed(""));
    }
    let named = CODES.iter().find(|known| **known == code).map(|known| format!(" ({known})")).unwrap_or_default();
    Err(format!("it shows an error of a formula{named}; correct it, or empty the cell where the value is missing"))
}

/// A number as it is shown.
fn moment(value: f64, shown: Shown, is_1904: bool) -> Result<String, String> {
    /// Days after which no calendar of a spreadsheet goes on: 31 December 9999.
    const LAST: f64 = 2_958_466.0;
    if shown == Shown::Number {
        return Ok(number(value));
    }
    if !(0.0..LAST).contains(&value) {
        return Err("it is a date or time that no calendar has".to_owned());
    }
    let (days, seconds) = split(value);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    Ok(match shown {
        Shown::Span => format!("{}:{minute:02}:{second:02}", days * 24 + hour),
        // Day 0 is no day: only a time was entered, whatever the format shows.
        Shown::Date if days > 0 || is_1904 => {
            let (year, month, day) = calendar(days, is_1904)?;
            let day = format!("{year:04}-{month:02}-{day:02}");
            if seconds == 0 { day } else { format!("{day}T{hour:02}:{minute:02}:{second:02}") }
        }
        _ => format!("{hour:02}:{minute:02}:{second:02}"),
    })
}

/// The shortest text that reads as the same number.
fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if (1e-5..1e16).contains(&size) {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

/// Whole days and seconds of the day, of a number from 0 to a few millions.
#[allow(clippy::cast_possible_truncation)]
fn split(value: f64) -> (i64, i64) {
    let (days, seconds) = (value.trunc() as i64, (value.fract() * 86_400.0).round() as i64);
    if seconds == 86_400 { (days + 1, 0) } else { (days, seconds) }
}

/// Year, month and day of a day as spreadsheets count them, which have a 29 February 1900.
fn calendar(days: i64, is_1904: bool) -> Result<(i64, i64, i64), String> {
    let since_1970 = match days {
        _ if is_1904 => days - 24_107,
        60 => return Err("it is 29 February 1900, which no calendar has".to_owned()),
        ..60 => days - 25_568,
        _ => days - 25_569,
    };
    // From days to dates with years that begin in March (Hinnant 2013).
    let from_0 = since_1970 + 719_468;
    let (era, of_era) = (from_0.div_euclid(146_097), from_0.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    Ok((year_of_era + era * 400 + i64::from(month <= 2), month, day))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn formats_of_dates_are_told_from_those_of_numbers() {
        for (code, shown) in [
            ("General", Shown::Number),
            ("0.00E+00", Shown::Number),
            ("#,##0.00\\ \"days\"", Shown::Number),
            ("[Red]-0;[Blue]yyyy", Shown::Number),
            ("0_d", Shown::Number),
            ("dd/mm/yyyy", Shown::Date),
            ("[$-407]TT.MM.YYYY", Shown::Date),
            ("mmm-yy", Shown::Date),
            ("yyyy\\-mm\\-dd\\ hh:mm:ss", Shown::Date),
            ("mmmm", Shown::Date),
            ("h:mm AM/PM", Shown::Time),
            ("mm:ss.0", Shown::Time),
            ("[h]:mm:ss", Shown::Span),
            ("[mm]:ss", Shown::Span),
        ] {
            assert_eq!(Shown::of_code(code), shown, "{code}");
        }
        assert_eq!([14, 20, 46, 2].map(Shown::built_in), [Shown::Date, Shown::Time, Shown::Span, Shown::Number]);
    }

    #[test]
    fn numbers_are_said_as_their_formats_show_them() {
        let said = |value, shown| moment(value, shown, false).unwrap();
        assert_eq!(said(63.0, Shown::Number), "63");
        assert_eq!(said(0.1, Shown::Number), "0.1");
        assert_eq!(said(-1.5e-7, Shown::Number), "-1.5e-7");
        assert_eq!(said(1e300, Shown::Number), "1e300");
        assert_eq!(said(1.0, Shown::Date), "1900-01-01");
        assert_eq!(said(59.0, Shown::Date), "1900-02-28");
        assert_eq!(said(61.0, Shown::Date), "1900-03-01");
        assert_eq!(said(25_569.0, Shown::Date), "1970-01-01");
        assert_eq!(said(45_351.0, Shown::Date), "2024-02-29");
        assert_eq!(said(45_351.5, Shown::Date), "2024-02-29T12:00:00");
        assert_eq!(said(45_350.999_999_99, Shown::Date), "2024-02-29");
        assert_eq!(said(2_958_465.0, Shown::Date), "9999-12-31");
        assert_eq!(said(0.25, Shown::Date), "06:00:00");
        assert_eq!(said(1.75, Shown::Time), "18:00:00");
        assert_eq!(said(1.75, Shown::Span), "42:00:00");
        assert_eq!(moment(0.0, Shown::Date, true).unwrap(), "1904-01-01");
        for value in [-1.0, 60.0, 3e6] {
            assert!(moment(value, Shown::Date, false).is_err(), "{value}");
        }
    }
}
