//! Text that comes from outside: what a name or a free text may hold, and how hostile characters are shown.
//!
//! A purpose or a column's name is read by the people who sign. It must not be able to reorder what they see
//! (bidirectional controls, "Trojan Source", CVE-2021-42574), to drive their terminal (escape sequences), or to hide in
//! characters without width.

use crate::limits;

/// Whether a character may be shown as it is.
#[must_use]
pub fn is_plain(c: char) -> bool {
    !(c.is_control() || is_bidi_control(c) || is_invisible(c) || is_noncharacter(c))
}

fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{00AD}' | '\u{034F}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200D}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2065}' | '\u{206A}'..='\u{206F}'
            | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}'
    )
}

fn is_noncharacter(c: char) -> bool {
    let code = u32::from(c);
    (code & 0xFFFE) == 0xFFFE
        || (0xFDD0..=0xFDEF).contains(&code)
        || (0xE000..=0xF8FF).contains(&code)
        || code >= 0xF_0000
}

/// Checks a name: not empty, one line, no characters that hide or reorder, no blanks at its ends.
///
/// # Errors
/// What is wrong, in words.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".into());
    }
    if name.chars().count() > limits::NAME_CHARS {
        return Err(format!("has more than {} characters (limit NAME_CHARS)", limits::NAME_CHARS));
    }
    if name.trim() != name {
        return Err("begins or ends with a blank".into());
    }
    check_plain(name, false)
}

/// What two names have in common when people take one for the other: only letters and digits count, and not their case.
///
/// Two members of one federation must differ in it; [`crate::study::Roster::check`] refuses a roster where they do not,
/// so that a coordinator has to refuse the second name when it is enrolled.
#[must_use]
pub fn name_key(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Checks a free text: line breaks and tabs are allowed, characters that hide or reorder are not.
///
/// # Errors
/// What is wrong, in words.
pub fn check_text(text: &str) -> Result<(), String> {
    if text.chars().count() > limits::TEXT_CHARS {
        return Err(format!("has more than {} characters (limit TEXT_CHARS)", limits::TEXT_CHARS));
    }
    check_plain(text, true)
}

fn check_plain(text: &str, lines: bool) -> Result<(), String> {
    match text.chars().find(|&c| !(is_plain(c) || lines && matches!(c, '\n' | '\t'))) {
        None => Ok(()),
        Some(c) => {
            Err(format!("holds the character U+{:04X}, which cannot be seen or changes what is seen", u32::from(c)))
        }
    }
}

/// Text from outside for a message or a terminal: at most `max` characters, hostile ones as `\u{…}`.
#[must_use]
pub fn shown(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == max {
            out.push('…');
            break;
        }
        if is_plain(c) {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

/// A number of bytes for people, with all its digits: `20,970 bytes`.
#[must_use]
pub fn in_bytes(bytes: u64) -> String {
    let digits = bytes.to_string();
    let mut words = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words.push_str(if bytes == 1 { " byte" } else { " bytes" });
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_with_all_digits_in_groups_of_three() {
        let told = [0, 1, 999, 1_000, 20_970, 1_234_567].map(in_bytes);
        assert_eq!(told, ["0 bytes", "1 byte", "999 bytes", "1,000 bytes", "20,970 bytes", "1,234,567 bytes"]);
    }

    #[test]
    fn hostile_characters_are_refused_in_names_and_texts_and_shown_escaped() {
        for hostile in [
            "a\u{202E}b",
            "a\u{1b}[31mb",
            "a\u{0}b",
            "a\u{200B}b",
            "a\u{2066}b",
            "a\u{FEFF}b",
            "a\u{E0041}",
            "a\rb",
            "\u{9b}1m",
            // A blank of Braille, and formats of musical and shorthand signs.
            "a\u{2800}b",
            "a\u{1D173}b",
            "a\u{1BCA0}b",
        ] {
            assert!(check_name(hostile).is_err(), "{hostile:?}");
            assert!(check_text(hostile).is_err(), "{hostile:?}");
            assert!(shown(hostile, 80).chars().all(is_plain), "{hostile:?}");
        }
        for good in ["Universitätsklinikum Köln", "東京大学病院", "مستشفى", "O'Brien & Söhne (1st)", "α ≤ β"]
        {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        assert_eq!(check_text("one\n\ttwo"), Ok(()));
        assert!(check_name("one\ntwo").is_err() && check_name(" one").is_err() && check_name("").is_err());
        // What is too long is told with the limit that it exceeds.
        assert!(check_name(&"x".repeat(129)).is_err_and(|words| words.contains("limit NAME_CHARS")));
        assert!(check_text(&"x".repeat(1 << 20)).is_err_and(|words| words.contains("limit TEXT_CHARS")));
        assert_eq!(shown("abcdef", 3), "abc…");
    }

    #[test]
    fn names_that_people_take_for_each_other_have_one_key() {
        for same in ["St. Mary's", "st marys", " ST  MARY-S", "St\u{A0}Mary’s"] {
            assert_eq!(name_key(same), "stmarys", "{same}");
        }
        assert_ne!(name_key("hospital 1"), name_key("hospital 2"));
    }
}
