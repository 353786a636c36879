//! What people and machines read.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
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

/// A file that is there whole or not at all: it is written beside its place and moved there when it is complete.
pub(crate) struct NewFile {
    path: PathBuf,
    scratch: PathBuf,
    file: File,
}

impl NewFile {
    /// Begins a file that does not exist yet.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let mut name = path.file_name().with_context(|| format!("{} names no file", path.display()))?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let scratch = path.with_file_name(name);
        Self::is_free(path)?;
        let file = File::create_new(&scratch).with_context(|| format!("make the new file {}", scratch.display()))?;
        Ok(Self { path: path.to_owned(), scratch, file })
    }

    fn is_free(path: &Path) -> anyhow::Result<()> {
        if path.symlink_metadata().is_ok() {
            bail!("make the new file {}: there is one already, and it was not touched", path.display());
        }
        Ok(())
    }

    /// It is complete: puts it in its place.
    pub(crate) fn keep(self) -> anyhow::Result<()> {
        let write = || format!("write {}", self.path.display());
        self.file.sync_all().with_context(write)?;
        Self::is_free(&self.path)?;
        std::fs::rename(&self.scratch, &self.path).with_context(write)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).with_context(write)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Gone already if it was kept.
        let _ = std::fs::remove_file(&self.scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all_and_never_in_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "half a file is left");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"whole").unwrap();
        assert!(!path.exists());
        file.keep().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert!(NewFile::create(&path).is_err());
        let mut late = NewFile::create(&folder.path().join("other")).unwrap();
        late.write_all(b"mine").unwrap();
        std::fs::write(folder.path().join("other"), b"somebody else's").unwrap();
        assert!(late.keep().is_err());
        assert_eq!(std::fs::read(folder.path().join("other")).unwrap(), b"somebody else's");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_was_typed_cannot_leave_its_segment_or_move_the_cursor() {
        assert_eq!(segment("../studies?x#y"), "..%2Fstudies%3Fx%23y");
        assert_eq!(segment("aA0-._~é"), "aA0-._~%C3%A9");
        assert_eq!(visible("a\u{1b}[2J\u{202e}b\nc"), "a[2Jb\nc");
    }
}
