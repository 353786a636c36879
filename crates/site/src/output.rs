//! What people and machines read.

#![allow(clippy::print_stderr)]

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use hospes_protocol::id::Timestamp;
use hospes_protocol::text::is_plain;
use qrcodegen::{QrCode, QrCodeEcc};
use serde::Serialize;

/// One line to the person's error output.
pub(crate) fn complain(words: &str) {
    eprintln!("hospes-site: {}", visible(words));
}

/// Bytes as they are. A reader that has seen enough and closed the pipe is no error.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// One line of an answer.
pub(crate) fn say(words: &str) {
    raw(format!("{}\n", visible(words)).as_bytes());
}

/// An answer for machines.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    raw(format!("{}\n", serde_json::to_string_pretty(value)?).as_bytes());
    Ok(())
}

/// A table.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    *table.style_mut() = presets::UTF8_BORDERS_ONLY;
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| visible(cell)).collect::<Vec<_>>());
    }
    raw(format!("{table}\n").as_bytes());
}

/// A text as a code that a camera reads; on a screen only, since elsewhere nobody holds a camera to it.
pub(crate) fn code(text: &str) {
    if std::io::stdout().is_terminal() {
        raw(drawn(text).as_bytes());
    }
}

/// Black on white whatever colours the terminal has, two rows of modules in a line, within the margin that a camera needs
/// (ISO/IEC 18004: four modules). Empty for a text that no code holds.
fn drawn(text: &str) -> String {
    const MARGIN: i32 = 4;
    const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
    let Ok(code) = QrCode::encode_text(text, QrCodeEcc::Medium) else { return String::new() };
    let (first, end) = (-MARGIN, code.size() + MARGIN);
    let mut lines = String::new();
    for y in (first..end).step_by(2) {
        lines.push_str(BLACK_ON_WHITE);
        lines.extend((first..end).map(|x| match (code.get_module(x, y), code.get_module(x, y + 1)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        }));
        lines.push_str("\x1b[0m\n");
    }
    lines
}

/// A moment, to the second.
pub(crate) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..19).map_or(text.clone(), |start| start.replace('T', " "))
}

/// Text from outside, without characters that move the cursor or turn the reading direction.
pub(crate) fn visible(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || is_plain(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pattern in three corners by which a camera finds a code: a ring of seven modules around a block of three.
    #[test]
    fn a_code_has_its_margin_and_its_finder_patterns() {
        let words = hospes_protocol::words::of_digest(&hospes_protocol::id::Digest::of(b"key"));
        let lines: Vec<String> = drawn(&words)
            .lines()
            .map(|line| line.replace("\x1b[38;5;16;48;5;231m", "").replace("\x1b[0m", ""))
            .collect();
        let width = lines[0].chars().count();
        assert!(
            lines.iter().all(|line| line.chars().count() == width) && lines.len() == width.div_ceil(2),
            "{lines:?}"
        );
        assert!(lines[..2].iter().all(|line| line.trim().is_empty()), "{lines:?}");
        // Rows 0 and 1, 2 and 3, 4 and 5 of the pattern.
        for (line, pattern) in lines[2..].iter().zip(["█▀▀▀▀▀█", "█ ███ █", "█ ▀▀▀ █"])
        {
            let line: String = line.trim().into();
            assert!(line.starts_with(pattern) && line.ends_with(pattern), "{line}");
        }
        assert_eq!(drawn(&"long ".repeat(2_000)), "");
    }
}
