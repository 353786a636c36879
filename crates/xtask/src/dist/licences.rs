//! The texts under which libraries of others are used, which their licences ask to be passed on with the programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::shipped::{Library, Shipped};

/// How names of files with such texts begin.
const NAMES: &[&str] = &["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
/// Largest file that is taken for such a text; larger ones are something else.
const TEXT_BYTES: u64 = 256 << 10;

/// Every text once, under the names of those whom it concerns.
///
/// # Errors
/// If the sources of a library are not on this machine.
pub(super) fn text(shipped: &Shipped) -> Result<String> {
    let mut by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut without = Vec::new();
    for library in shipped.libraries.values().filter(|library| !library.is_ours) {
        let texts = texts(&library.folder)?;
        if texts.is_empty() {
            without.push(named(library));
        }
        for text in texts {
            by_text.entry(text).or_default().push(named(library));
        }
    }
    let mut all = String::from(
        "The programs of Hospes contain the libraries named here. Each text stands once, below the names of the\n\
         libraries that bring it along.\n",
    );
    let rule = "=".repeat(100);
    let mut parts: Vec<(Vec<String>, String)> = by_text.into_iter().map(|(text, names)| (names, text)).collect();
    parts.sort();
    for (names, text) in parts {
        write!(all, "\n{rule}\n{}\n{rule}\n\n{text}\n", names.join("\n"))?;
    }
    if !without.is_empty() {
        write!(all, "\n{rule}\nThese bring no text along; their manifests say:\n{rule}\n\n{}\n", without.join("\n"))?;
    }
    Ok(all)
}

fn named(library: &Library) -> String {
    let licence = if library.licence.is_empty() { "see the text" } else { &library.licence };
    format!("{} {} ({licence})", library.name, library.version)
}

/// The texts in a library's folder, sorted, each once.
fn texts(folder: &Path) -> Result<Vec<String>> {
    ensure!(folder.is_dir(), "{} is missing; build the programs and the page first", folder.display());
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        // A link may lead out of the folder; cargo and npm unpack none.
        let is_text = entry.file_type()?.is_file() && entry.metadata()?.len() <= TEXT_BYTES;
        if !is_text || !NAMES.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let bytes = std::fs::read(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        texts.push(text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_matches('\n').to_owned());
    }
    texts.sort();
    texts.dedup();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_by_name_and_counted_once() -> Result<()> {
        let folder = tempfile::tempdir()?;
        for (name, text) in [("LICENSE-MIT", "a \r\nb\n"), ("license", "a\nb"), ("COPYING", "c"), ("README", "d")] {
            std::fs::write(folder.path().join(name), text)?;
        }
        assert_eq!(texts(folder.path())?, ["a\nb", "c"]);
        assert!(texts(&folder.path().join("gone")).is_err());
        Ok(())
    }
}
