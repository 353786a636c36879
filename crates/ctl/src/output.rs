//! What people and machines read.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// One line of an answer.
pub(crate) fn say(words: &str) {
    println!("{}", visible(words));
}

/// An answer for machines.
pub(crate) fn json(value: &Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A table over a list of objects: a column for each name and field.
pub(crate) fn table(columns: &[(&str, &str)], rows: &Value) {
    let mut table = Table::new();
    *table.style_mut() = presets::UTF8_BORDERS_ONLY;
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|(head, _)| *head));
    for row in rows.as_array().into_iter().flatten() {
        table.add_row(columns.iter().map(|(_, field)| text(&row[*field])));
    }
    println!("{table}");
}

/// A value as text: a string without its quotes, nothing for null.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => visible(text),
        other => other.to_string(),
    }
}

/// Text from outside, without characters that move the cursor or turn the reading direction.
pub(crate) fn visible(text: &str) -> String {
    let hides = |c: &char| matches!(*c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    text.chars().filter(|c| (!c.is_control() || *c == '\n') && !hides(c)).collect()
}
