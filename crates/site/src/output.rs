//! What people and machines read.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use comfy_table::{ContentArrangement, Table, presets};
use hospes_protocol::id::Timestamp;
use serde::Serialize;

/// One line to the person's error output.
pub fn complain(words: &str) {
    eprintln!("hospes-site: {}", visible(words));
}

/// One line of an answer.
pub fn say(words: &str) {
    println!("{}", visible(words));
}

/// An answer for machines.
pub fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A table.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| visible(cell)).collect::<Vec<_>>());
    }
    println!("{table}");
}

/// A moment, to the second.
pub fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..19).map_or(text.clone(), |start| start.replace('T', " "))
}

/// Text from outside, without characters that move the cursor or turn the reading direction.
fn visible(text: &str) -> String {
    let hides = |c: &char| matches!(*c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    text.chars().filter(|c| (!c.is_control() || *c == '\n') && !hides(c)).collect()
}
