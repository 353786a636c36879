//! What people and machines read.

#![allow(clippy::print_stderr)]

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use hospes_protocol::id::Timestamp;
use hospes_protocol::text::is_plain;
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

/// A moment, to the second.
pub(crate) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..19).map_or(text.clone(), |start| start.replace('T', " "))
}

/// Text from outside, without characters that move the cursor or turn the reading direction.
pub(crate) fn visible(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || is_plain(*c)).collect()
}
