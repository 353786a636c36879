//! Which libraries of others are in the programs and in the page: from `cargo metadata` and the page's lock file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use base64::Engine as _;
use serde_json::Value;

use super::{PROGRAMS, hex, output, text};
use crate::machine::cargo;

/// Where the page lies; its libraries are those of the program `hospes`.
const PAGE: &str = "hospes";

/// A library of others, or a crate of ours, in the programs.
pub(super) struct Library {
    /// Package URL, which is also its identity.
    pub(super) purl: String,
    pub(super) name: String,
    pub(super) version: String,
    /// SPDX expression, as its manifest says it; empty if it says none.
    pub(super) licence: String,
    pub(super) description: String,
    pub(super) repository: String,
    /// Algorithm, as CycloneDX names it, and digest of what was downloaded.
    pub(super) digest: Option<(&'static str, String)>,
    /// Where its sources lie on this machine.
    pub(super) folder: PathBuf,
    /// Whether it is part of this repository.
    pub(super) is_ours: bool,
    /// Package URLs of what it is linked with.
    pub(super) needs: BTreeSet<String>,
}

/// All that is shipped.
pub(super) struct Shipped {
    /// By package URL.
    pub(super) libraries: BTreeMap<String, Library>,
    /// The programs, and the package URL of each.
    pub(super) programs: Vec<(&'static str, String)>,
}

impl Shipped {
    /// Reads what the lock files say; nothing is fetched that the build did not fetch.
    ///
    /// # Errors
    /// If cargo refuses, or a lock file is not as cargo and npm write it.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let host = output(Command::new("rustc").arg("-vV"))?;
        let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
        let mut command = cargo()?;
        command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host]).current_dir(root);
        let metadata: Value = serde_json::from_str(&output(&mut command)?)?;
        let lock: toml::Value = toml::from_str(&std::fs::read_to_string(root.join("Cargo.lock"))?)?;
        let mut shipped = Self::of_cargo(&metadata, &lock)?;
        let lock = std::fs::read_to_string(root.join("ui/package-lock.json")).context("read ui/package-lock.json")?;
        shipped.add_page(&serde_json::from_str(&lock)?, &root.join("ui"))?;
        Ok(shipped)
    }

    /// What is linked into the programs, and nothing that only builds or tests them.
    fn of_cargo(metadata: &Value, lock: &toml::Value) -> Result<Self> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let packages: BTreeMap<String, Value> =
            list(&metadata["packages"]).into_iter().map(|p| (text(&p, "id").to_owned(), p)).collect();
        let nodes: BTreeMap<String, Value> =
            list(&metadata["resolve"]["nodes"]).into_iter().map(|n| (text(&n, "id").to_owned(), n)).collect();
        let sums = checksums(lock);
        let mut shipped = Self { libraries: BTreeMap::new(), programs: Vec::new() };
        let mut waiting = Vec::new();
        for program in PROGRAMS {
            let makes = |p: &Value| list(&p["targets"]).iter().any(|t| text(t, "name") == *program && is(t, "bin"));
            let (id, package) =
                packages.iter().find(|(_, p)| makes(p)).with_context(|| format!("no crate makes {program}"))?;
            shipped.programs.push((program, purl(package)));
            waiting.push(id.clone());
        }
        while let Some(id) = waiting.pop() {
            let package = packages.get(&id).with_context(|| format!("cargo names {id} and does not describe it"))?;
            if shipped.libraries.contains_key(&purl(package)) {
                continue;
            }
            let mut library = library(package, &sums);
            for dependency in list(&nodes[&id]["deps"]) {
                let is_linked = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
                let needed = text(&dependency, "pkg").to_owned();
                let Some(package) = packages.get(&needed) else { continue };
                // A macro runs in the compiler, and so does what it needs.
                let is_macro = list(&package["targets"]).iter().any(|target| is(target, "proc-macro"));
                if is_linked && !is_macro {
                    library.needs.insert(purl(package));
                    waiting.push(needed);
                }
            }
            shipped.libraries.insert(library.purl.clone(), library);
        }
        Ok(shipped)
    }

    /// What is bundled into the page: what it depends on, and no tool that only checks or builds it.
    fn add_page(&mut self, lock: &Value, folder: &Path) -> Result<()> {
        let packages = lock["packages"].as_object().context("ui/package-lock.json has no packages")?;
        let needs = |place: &str| -> Vec<String> {
            let names = packages.get(place).and_then(|package| package["dependencies"].as_object());
            let names = names.into_iter().flat_map(serde_json::Map::keys);
            names.filter_map(|name| resolve(packages, place, name)).collect()
        };
        let mut waiting = needs("");
        let page = self.programs.iter().find(|(program, _)| *program == PAGE).map(|(_, purl)| purl.clone());
        let page = page.and_then(|purl| self.libraries.get_mut(&purl)).context("the app is not among the programs")?;
        page.needs.extend(waiting.iter().map(|place| npm(place, &packages[place])));
        while let Some(place) = waiting.pop() {
            let (package, needed) = (&packages[&place], needs(&place));
            let library = Library {
                purl: npm(&place, package),
                name: name_of(&place).to_owned(),
                version: text(package, "version").to_owned(),
                licence: text(package, "license").to_owned(),
                description: String::new(),
                repository: String::new(),
                digest: sha512(text(package, "integrity")),
                folder: folder.join(&place),
                is_ours: false,
                needs: needed.iter().map(|place| npm(place, &packages[place])).collect(),
            };
            if self.libraries.insert(library.purl.clone(), library).is_none() {
                waiting.extend(needed);
            }
        }
        Ok(())
    }
}

fn is(target: &Value, kind: &str) -> bool {
    target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == kind))
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version").replace('+', "%2B"))
}

fn npm(place: &str, package: &Value) -> String {
    format!("pkg:npm/{}@{}", name_of(place).replacen('@', "%40", 1), text(package, "version"))
}

/// The name of the package that lies there.
fn name_of(place: &str) -> &str {
    place.rsplit_once("node_modules/").map_or(place, |(_, name)| name)
}

fn library(package: &Value, sums: &BTreeMap<(String, String), String>) -> Library {
    let (name, version) = (text(package, "name").to_owned(), text(package, "version").to_owned());
    let manifest = Path::new(text(package, "manifest_path"));
    Library {
        purl: purl(package),
        // Old manifests separate a choice by a slash, which SPDX does not know.
        licence: text(package, "license").replace('/', " OR "),
        description: text(package, "description").split_whitespace().collect::<Vec<_>>().join(" "),
        repository: text(package, "repository").to_owned(),
        digest: sums.get(&(name.clone(), version.clone())).map(|sum| ("SHA-256", sum.clone())),
        folder: manifest.parent().unwrap_or(manifest).to_owned(),
        is_ours: package["source"].is_null(),
        needs: BTreeSet::new(),
        name,
        version,
    }
}

/// Checksums of what cargo downloads, by name and version.
fn checksums(lock: &toml::Value) -> BTreeMap<(String, String), String> {
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let word = |package: &toml::Value, key: &str| package.get(key)?.as_str().map(str::to_owned);
    packages.filter_map(|p| Some(((word(p, "name")?, word(p, "version")?), word(p, "checksum")?))).collect()
}

/// Where the package lies that `name` means for the one at `place`: the nearest on the way up, as Node.js looks for it.
fn resolve(packages: &serde_json::Map<String, Value>, place: &str, name: &str) -> Option<String> {
    let mut folder = place;
    loop {
        let candidate =
            if folder.is_empty() { format!("node_modules/{name}") } else { format!("{folder}/node_modules/{name}") };
        if packages.contains_key(&candidate) {
            return Some(candidate);
        }
        if folder.is_empty() {
            return None;
        }
        folder = folder.rsplit_once("node_modules/").map_or("", |(above, _)| above.trim_end_matches('/'));
    }
}

/// npm writes digests as `sha512-` and base64.
fn sha512(integrity: &str) -> Option<(&'static str, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(integrity.strip_prefix("sha512-")?).ok()?;
    Some(("SHA-512", hex(&bytes)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_builds_or_tests_is_not_shipped() -> Result<()> {
        let package = |name: &str, kind: &str| {
            json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": "registry",
                    "manifest_path": format!("/src/{name}/Cargo.toml"), "targets": [{ "name": name, "kind": [kind] }] })
        };
        let dependency = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let mut packages: Vec<Value> = PROGRAMS.iter().map(|program| package(program, "bin")).collect();
        packages.extend(["linked", "tool", "tested"].map(|name| package(name, "lib")));
        packages.push(package("macros", "proc-macro"));
        let needs = [
            dependency("linked", Value::Null),
            dependency("tool", json!("build")),
            dependency("tested", json!("dev")),
            dependency("macros", Value::Null),
        ];
        let nodes: Vec<Value> = packages
            .iter()
            .map(|p| json!({ "id": p["id"], "deps": if p["id"] == "hospes" { json!(needs) } else { json!([]) } }))
            .collect();
        let metadata = json!({ "packages": packages, "resolve": { "nodes": nodes } });
        let lock = toml::from_str("[[package]]\nname = \"linked\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n")?;
        let shipped = Shipped::of_cargo(&metadata, &lock)?;
        let names: Vec<&str> = shipped.libraries.values().map(|library| library.name.as_str()).collect();
        assert_eq!(names, ["hospes-site", "hospes", "hospesctl", "linked"]);
        let linked = &shipped.libraries["pkg:cargo/linked@1.0.0"];
        assert_eq!(linked.digest, Some(("SHA-256", "ab".to_owned())));
        assert_eq!(linked.licence, "MIT OR Apache-2.0");
        Ok(())
    }

    #[test]
    fn a_package_of_the_page_is_the_nearest_one() {
        let lock = json!({
            "node_modules/a": { "version": "1.0.0" },
            "node_modules/b": { "version": "1.0.0" },
            "node_modules/b/node_modules/a": { "version": "2.0.0" },
            "node_modules/@x/c": { "version": "3.0.0" },
        });
        let serde_json::Value::Object(packages) = lock else { unreachable!() };
        assert_eq!(resolve(&packages, "node_modules/b", "a").as_deref(), Some("node_modules/b/node_modules/a"));
        assert_eq!(resolve(&packages, "node_modules/@x/c", "a").as_deref(), Some("node_modules/a"));
        assert_eq!(resolve(&packages, "", "@x/c").as_deref(), Some("node_modules/@x/c"));
        assert_eq!(npm("node_modules/@x/c", &packages["node_modules/@x/c"]), "pkg:npm/%40x/c@3.0.0");
        assert_eq!(resolve(&packages, "node_modules/a", "gone"), None);
    }

    #[test]
    fn digests_of_the_page_are_written_as_numbers() {
        assert_eq!(sha512("sha512-q80="), Some(("SHA-512", "abcd".to_owned())));
        assert_eq!(sha512("sha1-q80="), None);
    }
}
