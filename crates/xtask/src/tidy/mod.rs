//! What the tree promises about itself: who may use what, sizes, words that must not stand anywhere, documentation.

mod edges;
mod invariants;
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Longest file in lines.
const FILE_LINES: usize = 800;
/// Longest `ARCHITECTURE.md` in lines.
const ARCHITECTURE_LINES: usize = 300;
/// Fragments that stand in no tracked text: paths of one machine, hosts of package registries.
const LEAKS: &[&str] =
    &["/wor\u{6b}/", "/roo\u{74}/", "pythonhoste\u{64}", "registry.npmj\u{73}", "crates.i\u{6f}/api"];
/// Marks of unfinished work.
const UNFINISHED: &[&str] = &["TOD\u{4f}", "FIXM\u{45}", "todo\u{21}(", "unimplemented\u{21}(", "#[ignor\u{65}"];

/// Names that say nothing about what a module decides.
const VAGUE: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "managers", "service", "services"];

/// Everything that is wrong, one line each.
#[derive(Default)]
pub(crate) struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, place: impl std::fmt::Display, what: impl std::fmt::Display) {
        self.0.push(format!("{place}: {what}"));
    }
}

/// Checks the tree.
///
/// # Errors
/// Lists everything that is wrong.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut findings = Findings::default();
    edges::check(root, &mut findings)?;
    invariants::check_window(root, &mut findings)?;
    files(root, &mut findings)?;
    if findings.0.is_empty() {
        println!("   tidy: nothing to mend");
        return Ok(());
    }
    bail!("tidy found {} things to mend:\n{}", findings.0.len(), findings.0.join("\n"))
}

/// Checks every file of the tree.
fn files(root: &Path, findings: &mut Findings) -> Result<()> {
    for path in tracked(root)? {
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        texts(&path, &text, findings);
        if path.extension().is_some_and(|e| e == "rs") {
            source::check(&path, &text, findings);
        } else if path.extension().is_some_and(|e| e == "md") {
            links(root, &path, &text, findings);
        }
    }
    Ok(())
}

/// Files of the work tree that are not ignored, by their paths from its top.
fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let output = git.output().context("list the tracked files")?;
    anyhow::ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(PathBuf::from).filter(|p| !p.ends_with("Cargo.lock")).collect())
}

/// Links within the repository lead somewhere.
fn links(root: &Path, path: &Path, text: &str, findings: &mut Findings) {
    let folder = path.parent().unwrap_or(Path::new(""));
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
        if !root.join(folder).join(target).exists() {
            findings.add(path.display(), format!("links to {target}, which is not there"));
        }
    }
}

/// Rules that hold for every text.
fn texts(path: &Path, text: &str, findings: &mut Findings) {
    let place = path.display();
    let lines = text.lines().count();
    let is_code = path.extension().is_some_and(|e| e == "rs" || e == "ts" || e == "tsx");
    let is_generated = path.ends_with("generated.rs") || path.ends_with("generated.ts");
    if is_code && !is_generated && lines > FILE_LINES {
        findings.add(place, format!("{lines} lines, more than {FILE_LINES}; split it by decision"));
    }
    if path.ends_with("ARCHITECTURE.md") && lines > ARCHITECTURE_LINES {
        findings.add(path.display(), format!("{lines} lines, more than {ARCHITECTURE_LINES}"));
    }
    if path.ends_with("package-lock.json") {
        return;
    }
    let named = path.iter().filter_map(|part| part.to_str()).map(|part| part.split('.').next().unwrap_or(part));
    for vague in named.filter(|name| is_code && VAGUE.contains(name)) {
        findings.add(path.display(), format!("'{vague}' does not say what it decides"));
    }
    for (number, line) in text.lines().enumerate() {
        let place = format!("{}:{}", path.display(), number + 1);
        for word in LEAKS.iter().filter(|word| line.contains(**word)) {
            findings.add(&place, format!("'{word}' is of one machine or registry"));
        }
        if !is_code {
            continue;
        }
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            findings.add(&place, format!("'{word}': finish it, or write an issue"));
        }
        if line.contains("@tauri\u{2d}apps/") && !path.ends_with("ui/src/ipc/tauri.ts") {
            findings.add(&place, "only ui/src/ipc/tauri.ts talks to Tauri (invariant I4)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut findings = Findings::default();
        let text = "[a](src/main.rs) [b](src/main.rs#top) [c](https://example.org) [d](src/gone.rs)";
        links(root, Path::new("page.md"), text, &mut findings);
        assert_eq!(findings.0, ["page.md: links to src/gone.rs, which is not there"]);
    }

    #[test]
    fn marks_of_unfinished_work_long_files_and_vague_names_are_found() {
        let mut findings = Findings::default();
        texts(Path::new("a/util/b.rs"), &format!("// {}\n", UNFINISHED[0]), &mut findings);
        texts(Path::new("c.rs"), &"\n".repeat(FILE_LINES + 1), &mut findings);
        texts(Path::new("d.md"), &format!("see {}x\n", LEAKS[0]), &mut findings);
        assert_eq!(findings.0.len(), 4, "{:?}", findings.0);
    }
}
