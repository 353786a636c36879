//! The texts under which libraries of others are used, which their licences ask to be passed on with the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::shipped::{Library, Shipped};

/// How names of files with such texts begin.
const NAMES: &[&str] = &["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
/// How names end of files that are code, however they begin.
const CODE: &[&str] = &["rs", "js", "mjs", "ts", "c", "h", "py", "json"];
/// Largest file that is taken for such a text; larger ones are something else.
const TEXT_BYTES: u64 = 256 << 10;
/// Folders whose texts are of something that is not in the programs, or is counted by itself.
const FOLDERS: &[&str] = &["node_modules", "test", "tests", "benches", "examples"];
/// Texts of what a library brings along and is not in the programs.
const NOT_SHIPPED: &[(&str, &str)] = &[
    // The system's D-Bus is used.
    ("libdbus-sys", "vendor"),
    // SQLite itself is used, which is in the public domain.
    ("libsqlite3-sys", "sqlcipher"),
    // The other choice beside the BSD licence, under which zstd is used.
    ("zstd-sys", "zstd/COPYING"),
];
/// Stands above and below the names of those whom a text concerns. The page looks for it.
const RULE: &str =
    "====================================================================================================";
/// Ends the terms of the Apache License; what follows says how to apply them.
const APACHE_END: &str = "END OF TERMS AND CONDITIONS";
/// Licences besides Apache's whose text names nobody, and how it begins: any library's copy is as good as another.
const NAMELESS: &[(&str, &str)] = &[
    ("MPL-2.0", "Mozilla Public License Version 2.0"),
    ("CC0-1.0", "Creative Commons Legal Code CC0 1.0 Universal"),
    ("Unlicense", "This is free and unencumbered software released into the public domain."),
];
/// The MIT licence without the line that says who holds the rights.
const MIT: &str = "\
Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the \"Software\"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.";
/// In every program, and in no lock file.
const STANDARD_LIBRARY: &str = "Rust standard library stable (MIT OR Apache-2.0)";

/// Every text once, under the names of those whom it concerns. `apache` is the Apache License as it stands everywhere.
///
/// # Errors
/// If the sources of a library are not on this machine, or one brings no text and none is known for its licence.
pub(super) fn text(shipped: &Shipped, apache: &str) -> Result<String> {
    let apache = tidied(apache);
    let libraries: Vec<&Library> = shipped.libraries.values().filter(|library| !library.is_ours).collect();
    let mut by_text: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut by_project: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut without = Vec::new();
    by_text.entry(apache.clone()).or_default();
    for library in libraries {
        let texts = texts(library, &apache)?;
        if texts.is_empty() {
            without.push(library);
        }
        for text in texts {
            by_project.entry(project(library)).or_default().insert(text.clone());
            by_text.entry(text).or_default().insert(named(library));
        }
    }
    for library in without {
        let texts = match by_project.get(project(library)).filter(|_| !project(library).is_empty()) {
            Some(texts) => texts.clone(),
            None => BTreeSet::from([standard(library, &apache, by_text.keys())?]),
        };
        for text in texts {
            by_text.entry(text).or_default().insert(named(library));
        }
    }
    let rust = format!("Copyright (c) The Rust Project contributors\n\n{MIT}");
    by_text.entry(rust).or_default().insert(STANDARD_LIBRARY.to_owned());
    written(by_text)
}

/// One part for each text.
fn written(by_text: BTreeMap<String, BTreeSet<String>>) -> Result<String> {
    let mut all = String::from(
        "The programs of Hospes contain the libraries of others that are named here. Each text stands once, below the\n\
         names, versions and licences of the libraries that it concerns. Made by `cargo xtask codegen`.\n",
    );
    let mut parts: Vec<(BTreeSet<String>, String)> = by_text.into_iter().map(|(text, names)| (names, text)).collect();
    parts.sort();
    for (names, text) in parts.into_iter().filter(|(names, _)| !names.is_empty()) {
        ensure!(
            !text.lines().any(|line| line == RULE),
            "a licence text of {names:?} has a line that divides texts here"
        );
        write!(all, "\n{RULE}\n")?;
        for name in names {
            writeln!(all, "{name}")?;
        }
        write!(all, "{RULE}\n\n{text}\n")?;
    }
    Ok(all)
}

fn named(library: &Library) -> String {
    let licence = if library.licence.is_empty() { "see the text" } else { &library.licence };
    format!("{} {} ({licence})", library.name, library.version)
}

/// Where a library's sources are kept; libraries from one place are under the same licences.
fn project(library: &Library) -> &str {
    let place = library.repository.split("/tree/").next().unwrap_or_default();
    place.trim_end_matches('/').trim_end_matches(".git")
}

/// The text of a licence that a library may be used under, where neither it nor its project brings one along.
fn standard<'a>(library: &Library, apache: &str, texts: impl Iterator<Item = &'a String> + Clone) -> Result<String> {
    let choices: Vec<&str> = library.licence.split(" OR ").collect();
    if choices.contains(&"Apache-2.0") {
        return Ok(apache.to_owned());
    }
    for (_, beginning) in NAMELESS.iter().filter(|(licence, _)| choices.contains(licence)) {
        if let Some(text) = texts.clone().find(|text| words(text).starts_with(&words(beginning))) {
            return Ok(text.clone());
        }
    }
    let is_known = choices.contains(&"MIT");
    ensure!(is_known, "{} brings no licence text, and none is known here; add one in {}", named(library), file!());
    let holders = if library.authors.is_empty() {
        format!("The authors of {}", library.name)
    } else {
        library.authors.join(", ")
    };
    Ok(format!("Copyright (c) {holders}\n\n{MIT}"))
}

/// The texts in a library's folder and below.
fn texts(library: &Library, apache: &str) -> Result<BTreeSet<String>> {
    let folder = &library.folder;
    ensure!(folder.is_dir(), "{} is missing; build the programs and the page first", folder.display());
    let mut texts = BTreeSet::new();
    let mut waiting = vec![folder.clone()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if is_passed_over(library, &path) {
                continue;
            }
            // A link may lead out of the folder; cargo and npm unpack none.
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() && is_text(&path) && entry.metadata()?.len() <= TEXT_BYTES {
                let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                texts.extend(parted(tidied(&String::from_utf8_lossy(&bytes)), apache));
            }
        }
    }
    // What was a link where the library comes from.
    texts.retain(|text| !text.is_empty() && !text.starts_with("../"));
    Ok(texts)
}

fn is_passed_over(library: &Library, path: &Path) -> bool {
    let is_other = path.file_name().is_some_and(|name| FOLDERS.iter().any(|other| name == *other)) && path.is_dir();
    let within = path.strip_prefix(&library.folder).unwrap_or(path);
    is_other || NOT_SHIPPED.iter().any(|(name, place)| library.name == *name && within == Path::new(place))
}

fn is_text(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    let is_code = path.extension().is_some_and(|end| CODE.iter().any(|code| end.eq_ignore_ascii_case(code)));
    !is_code && NAMES.iter().any(|start| name.starts_with(start))
}

/// Without spaces at the ends of lines and empty lines around it.
fn tidied(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_matches('\n').to_owned()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The Apache License by itself, and what a library wrote below it: its terms stand in every second library, set a little
/// differently in each.
fn parted(text: String, apache: &str) -> Vec<String> {
    let Some(((terms, below), (standard, form))) = text.split_once(APACHE_END).zip(apache.split_once(APACHE_END))
    else {
        return vec![text];
    };
    if words(terms) != words(standard) {
        return vec![text];
    }
    let mut parts = vec![apache.to_owned()];
    if !below.trim().is_empty() && words(below) != words(form) {
        parts.push(below.trim_matches('\n').to_owned());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const APACHE: &str = "Apache License\nVersion 2.0\n\n1. Terms.\n\nEND OF TERMS AND CONDITIONS\n\nCopyright [yyyy]";

    fn library(folder: &Path, name: &str, licence: &str) -> Result<Library> {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Library {
            purl: format!("pkg:cargo/{name}@1.0.0"),
            name: name.into(),
            version: "1.0.0".into(),
            licence: licence.into(),
            description: String::new(),
            repository: String::new(),
            authors: Vec::new(),
            digest: None,
            folder,
            is_ours: false,
            needs: BTreeSet::new(),
        })
    }

    fn shipped(libraries: impl IntoIterator<Item = Library>) -> Shipped {
        let libraries = libraries.into_iter().map(|library| (library.purl.clone(), library)).collect();
        Shipped { libraries, programs: Vec::new() }
    }

    /// What stands below the names among which is this one.
    fn below<'a>(all: &'a str, name: &str) -> Vec<&'a str> {
        let parts: Vec<&str> = all.split(&format!("\n{RULE}\n")).skip(1).collect();
        let (names, texts) = (parts.iter().step_by(2), parts.iter().skip(1).step_by(2));
        let named = names.zip(texts).filter(|(names, _)| names.lines().any(|line| line == name));
        named.map(|(_, text)| text.trim()).collect()
    }

    #[test]
    fn texts_are_found_by_name_at_any_depth_and_counted_once() -> Result<()> {
        let place = tempfile::tempdir()?;
        let a = library(place.path(), "libdbus-sys", "MIT")?;
        for (name, text) in [
            ("LICENSE-MIT", "a \r\nb\n"),
            ("license", "a\nb"),
            ("COPYING", "c"),
            ("README", "d"),
            ("license.rs", "e"),
            ("LICENSE-LINK", "../../LICENSE"),
            ("inner/deep/NOTICE", "f"),
            ("tests/NOTICE", "g"),
            ("vendor/dbus/COPYING", "h"),
        ] {
            let path = a.folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(place.path()))?;
            std::fs::write(path, text)?;
        }
        assert_eq!(texts(&a, APACHE)?.into_iter().collect::<Vec<_>>(), ["a\nb", "c", "f"]);
        std::fs::remove_dir_all(&a.folder)?;
        assert!(texts(&a, APACHE).is_err());
        Ok(())
    }

    #[test]
    fn the_apache_license_stands_once_and_what_was_written_below_it_is_kept() -> Result<()> {
        let place = tempfile::tempdir()?;
        let (a, b) = (library(place.path(), "a", "Apache-2.0")?, library(place.path(), "b", "Apache-2.0")?);
        std::fs::write(a.folder.join("LICENSE"), APACHE.replace('\n', "\r\n   "))?;
        std::fs::write(b.folder.join("LICENSE"), APACHE.replace("[yyyy]", "2020 B"))?;
        let all = text(&shipped([a, b]), APACHE)?;
        assert_eq!(all.matches("1. Terms.").count(), 1, "{all}");
        assert_eq!(below(&all, "a 1.0.0 (Apache-2.0)"), [APACHE]);
        assert_eq!(below(&all, "b 1.0.0 (Apache-2.0)"), [APACHE, "Copyright 2020 B"]);
        Ok(())
    }

    #[test]
    fn a_library_without_a_text_has_its_projects_or_its_licences() -> Result<()> {
        let place = tempfile::tempdir()?;
        let of = |name: &str, licence: &str| library(place.path(), name, licence);
        let (mut whole, mut part) = (of("whole", "BSD-3-Clause")?, of("part", "BSD-3-Clause")?);
        std::fs::write(whole.folder.join("LICENSE"), "Copyright whole")?;
        whole.repository = "https://example.org/whole.git".into();
        part.repository = "https://example.org/whole/tree/main/part".into();
        let (mut mine, theirs) = (of("mine", "MIT")?, of("theirs", "MIT")?);
        mine.authors = vec!["I <i@example.org>".into(), "You".into()];
        let all = text(&shipped([whole, part, mine, theirs, of("either", "MIT OR Apache-2.0")?]), APACHE)?;
        assert_eq!(below(&all, "part 1.0.0 (BSD-3-Clause)"), ["Copyright whole"]);
        assert_eq!(below(&all, "either 1.0.0 (MIT OR Apache-2.0)"), [APACHE]);
        assert_eq!(below(&all, "mine 1.0.0 (MIT)"), [format!("Copyright (c) I <i@example.org>, You\n\n{MIT}")]);
        assert_eq!(below(&all, "theirs 1.0.0 (MIT)"), [format!("Copyright (c) The authors of theirs\n\n{MIT}")]);
        assert_eq!(below(&all, STANDARD_LIBRARY).len(), 1);
        let unknown = text(&shipped([of("unknown", "BSD-3-Clause")?]), APACHE);
        assert!(unknown.is_err_and(|error| error.to_string().contains("unknown 1.0.0 (BSD-3-Clause)")));
        Ok(())
    }

    #[test]
    fn what_is_ours_is_not_named() -> Result<()> {
        let place = tempfile::tempdir()?;
        let mut ours = library(place.path(), "hospes", "Apache-2.0")?;
        ours.is_ours = true;
        assert!(below(&text(&shipped([ours]), APACHE)?, "hospes 1.0.0 (Apache-2.0)").is_empty());
        Ok(())
    }
}
