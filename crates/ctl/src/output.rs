//! What people and machines read.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// One line of an answer.
pub(crate) fn say(words: &str) {
    println!("{}", visible(words));
}

/// A line for people that is no answer: a question, a remark.
pub(crate) fn tell(words: &str) {
    eprintln!("{}", visible(words));
}

/// What a change gave: the answer for machines, words for people.
pub(crate) fn done(answer: &Value, words: &str, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return json(answer);
    }
    say(words);
    Ok(())
}

/// Names and values of one object, those that it has.
pub(crate) fn fields(names: &[(&str, &str)], object: &Value) {
    let width = names.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, field) in names {
        let value = text(&object[*field]);
        if !value.is_empty() {
            println!("{name:width$}  {value}");
        }
    }
}

/// What was typed, as one segment of a path: anything but letters, digits and `-._~` is escaped.
pub(crate) fn segment(typed: &str) -> String {
    let mut escaped = String::new();
    for byte in typed.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_cannot_leave_its_segment_or_move_the_cursor() {
        assert_eq!(segment("../studies?x#y"), "..%2Fstudies%3Fx%23y");
        assert_eq!(segment("aA0-._~é"), "aA0-._~%C3%A9");
        assert_eq!(visible("a\u{1b}[2J\u{202e}b\nc"), "a[2Jb\nc");
    }
}
