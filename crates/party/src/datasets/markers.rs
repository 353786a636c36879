//! Cells that mean *missing*, as people choose them.

use hospes_protocol::text::shown;

use crate::error::PartyError;

/// Most markers of a file.
const MARKERS: usize = 50;
/// Longest marker in characters.
const MARKER_CHARS: usize = 40;
/// Longest list of them in words: the log names every one, and cuts what is longer than a reason may be.
const WORDS_CHARS: usize = 600;

/// Checks what a person chose.
pub(super) fn check(markers: Option<&[String]>) -> Result<(), PartyError> {
    let markers = markers.unwrap_or_default();
    let refuse = |words: String| Err(PartyError::input("missing", words));
    if markers.len() > MARKERS {
        return refuse(format!(
            "{} texts are to mean missing, and {MARKERS} are the most; name only those that occur in the file",
            markers.len()
        ));
    }
    let is_wrong = |m: &String| m.chars().count() > MARKER_CHARS || m.chars().any(char::is_control);
    match markers.iter().position(is_wrong) {
        Some(at) => refuse(format!(
            "text {} of those that are to mean missing has more than {MARKER_CHARS} characters, or a line break or tab; \
             name what stands in one cell",
            at + 1
        )),
        None if words(markers).chars().count() > WORDS_CHARS => refuse(format!(
            "the texts that are to mean missing are too long together for the audit log, which names every one in \
             {WORDS_CHARS} characters; name only those that occur in the file"
        )),
        None => Ok(()),
    }
}

/// Which cells mean *missing*, in words.
pub(crate) fn words(markers: &[String]) -> String {
    let quoted = markers.iter().map(|m| format!("'{}'", shown(m, MARKER_CHARS)));
    ["empty cells".to_owned()].into_iter().chain(quoted).collect::<Vec<_>>().join(", ")
}
