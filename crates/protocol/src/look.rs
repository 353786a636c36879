//! What a name looks like: names that people take for others, and letters that are not what they seem.
//!
//! A name of good letters can still deceive: *Сleveland* with a Cyrillic С is another name than *Cleveland*, and nobody sees
//! it. Unicode Technical Standard 39 says which letters look alike (section 4) and which scripts are written together
//! (section 5). What is found here is shown to people and refuses nothing: real names exist in all scripts.

use unicode_security::confusable_detection::skeleton;
use unicode_security::mixed_script::AugmentedScriptSet;

use crate::text::{is_plain, name_key};

/// What a name looks like as it is written, and in small letters; names that have one of the two in common look alike. Case,
/// blanks and punctuation do not count. Empty where nothing is left.
#[must_use]
pub fn looks(name: &str) -> [String; 2] {
    let look = |text: &str| -> String {
        let counts = |c: &char| !c.is_whitespace() && !c.is_ascii_punctuation();
        skeleton(text).flat_map(char::to_lowercase).filter(counts).collect()
    };
    [look(name), look(&name.to_lowercase())]
}

/// Whether one name is taken for another, although it has other letters.
#[must_use]
pub fn are_alike(one: &str, other: &str) -> bool {
    let known = looks(other);
    name_key(one) != name_key(other) && looks(one).iter().any(|look| !look.is_empty() && known.contains(look))
}

/// Letters of words that are made of more than one script: those of the script that has fewer of them in the word. Scripts
/// that are written together are one, such as those of Japanese, and Latin letters go with those of East Asia (UTS 39,
/// section 5.2, *highly restrictive*).
#[must_use]
pub fn strange_letters(name: &str) -> Vec<char> {
    let mut found: Vec<char> = Vec::new();
    for word in name.split(|c: char| !c.is_alphanumeric()) {
        for letter in strange_in(word) {
            if !found.contains(&letter) {
                found.push(letter);
            }
        }
    }
    found
}

fn strange_in(word: &str) -> Vec<char> {
    if !AugmentedScriptSet::for_str(word).is_empty() {
        return Vec::new();
    }
    let scripted = word.chars().filter(|c| !AugmentedScriptSet::for_char(*c).is_all());
    let (latin, others): (Vec<char>, Vec<char>) = scripted.partition(|c| is_latin(*c));
    let beside = AugmentedScriptSet::for_str(&others.iter().collect::<String>());
    if beside.jpan || beside.hanb || beside.kore {
        return Vec::new();
    }
    if latin.is_empty() || others.len() <= latin.len() { others } else { latin }
}

fn is_latin(c: char) -> bool {
    let mut set = AugmentedScriptSet::for_char(c);
    set.intersect_with(AugmentedScriptSet::for_char('a'));
    !set.is_empty()
}

/// A letter with its number, for people who cannot see what is special about it.
#[must_use]
pub fn letter(c: char) -> String {
    let number = format!("U+{:04X}", u32::from(c));
    if is_plain(c) { format!("{c} ({number})") } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_other_letters_that_look_the_same_are_alike() {
        for (deceiving, known) in [
            // Cyrillic С, е, а and р.
            ("\u{421}leveland", "Cleveland"),
            ("Anna Sh\u{430}\u{440}iro", "Anna Shapiro"),
            // A digit, a capital and a letter that are one stroke.
            ("C1eveland", "Cleveland"),
            ("CIeveland", "Cleveland"),
            ("St. Mary-s H0spital", "st marys hospital"),
            // A wide form, and Greek capitals.
            ("C\u{FF4C}eveland", "Cleveland"),
            ("\u{39F}\u{3A1}\u{395}\u{39D}", "OPEN"),
            ("rnedical centre", "medical centre"),
        ] {
            assert!(are_alike(deceiving, known) && are_alike(known, deceiving), "{deceiving} {known}");
        }
    }

    #[test]
    fn a_name_is_not_taken_for_itself_nor_for_another_one() {
        for (one, other) in [
            ("Cleveland", "cleveland"),
            ("St. Mary's", "St Marys"),
            ("Hospital 2", "Hospital 3"),
            ("Köln", "Kiel"),
            ("東京大学病院", "京都大学病院"),
            ("", "…"),
            ("-", "."),
        ] {
            assert!(!are_alike(one, other), "{one} {other}");
        }
    }

    #[test]
    fn letters_of_another_script_within_a_word_are_named() {
        assert_eq!(strange_letters("\u{421}leveland Clinic"), ['\u{421}']);
        // The few among the many, whichever they are.
        assert_eq!(strange_letters("\u{41C}\u{43E}\u{441}\u{43A}v\u{430}"), ['v']);
        assert_eq!(strange_letters("\u{430}\u{3B2}"), ['\u{430}', '\u{3B2}'], "no Latin letter at all");
        assert_eq!(letter('\u{421}'), "\u{421} (U+0421)");
        assert_eq!(letter('\u{202E}'), "U+202E", "it would turn round what follows");
    }

    #[test]
    fn scripts_that_are_written_together_are_one() {
        for good in [
            "Universitätsklinikum Köln",
            "Клиника Charité",
            "東京大学病院 さくら",
            "X線画像",
            "서울 Hospital",
            "مستشفى",
            "chol_mg/dl (1st)",
            "\u{B5}mol",
            "age",
            "",
        ] {
            assert!(strange_letters(good).is_empty(), "{good}");
        }
    }
}
