//! Which libraries of others are in the programs and in the page: from `cargo tree`, `cargo metadata` and the page's lock
//! file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use serde_json::Value;

use super::{PROGRAMS, hex, output, text};
use crate::machine::cargo;

/// Where the page lies; its libraries are those of the program `hospes`.
const PAGE: &str = "hospes";
/// Name and version of a crate. All come from one registry or from this repository, so that these are enough.
type Crate = (String, String);

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
    /// As its manifest names them.
    pub(super) authors: Vec<String>,
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
    /// Reads what is linked on any of these targets, or on this machine where none is named. For this machine nothing is
    /// fetched that the build did not fetch.
    ///
    /// # Errors
    /// If cargo refuses, or a lock file is not as cargo and npm write it.
    pub(super) fn read(root: &Path, targets: &[&str]) -> Result<Self> {
        let host = output(Command::new("rustc").arg("-vV"))?;
        let host = [host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?];
        let targets = if targets.is_empty() { &host[..] } else { targets };
        let (mut metadata, mut tree) = (cargo()?, cargo()?);
        metadata.args(["metadata", "--format-version", "1", "--locked"]).current_dir(root);
        // The metadata also name what optional dependencies would need if anybody asked for them; the tree does not.
        tree.args(["tree", "--locked", "--workspace", "--edges", "normal,no-proc-macro", "--color", "never"]);
        tree.args(["--prefix", "depth", "--format", " {p}"]).current_dir(root);
        for target in targets {
            metadata.arg("--filter-platform").arg(target);
            tree.arg("--target").arg(target);
        }
        let metadata: Value = serde_json::from_str(&output(&mut metadata)?)?;
        let lock: toml::Value = toml::from_str(&std::fs::read_to_string(root.join("Cargo.lock"))?)?;
        let mut shipped = Self::of_cargo(&metadata, &linked(&output(&mut tree)?)?, &lock)?;
        let lock = std::fs::read_to_string(root.join("ui/package-lock.json")).context("read ui/package-lock.json")?;
        shipped.add_page(&serde_json::from_str(&lock)?, &root.join("ui"))?;
        Ok(shipped)
    }

    /// What is linked into the programs.
    fn of_cargo(metadata: &Value, linked: &BTreeMap<Crate, BTreeSet<Crate>>, lock: &toml::Value) -> Result<Self> {
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let packages: BTreeMap<Crate, &Value> =
            packages.map(|p| ((text(p, "name").to_owned(), text(p, "version").to_owned()), p)).collect();
        let sums = checksums(lock);
        let mut shipped = Self { libraries: BTreeMap::new(), programs: Vec::new() };
        let mut waiting = Vec::new();
        for program in PROGRAMS {
            let makes = |p: &Value| {
                p["targets"].as_array().into_iter().flatten().any(|t| text(t, "name") == *program && is(t, "bin"))
            };
            let (named, package) =
                packages.iter().find(|(_, p)| makes(p)).with_context(|| format!("no crate makes {program}"))?;
            shipped.programs.push((program, purl(package)));
            waiting.push(named.clone());
        }
        let described = |named: &Crate| {
            let package = packages.get(named).copied();
            package.with_context(|| format!("cargo names {} {} and does not describe it", named.0, named.1))
        };
        while let Some(named) = waiting.pop() {
            let package = described(&named)?;
            if shipped.libraries.contains_key(&purl(package)) {
                continue;
            }
            let mut library = library(package, &sums);
            for needed in linked.get(&named).into_iter().flatten() {
                library.needs.insert(purl(described(needed)?));
                waiting.push(needed.clone());
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
                authors: Vec::new(),
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

/// What is linked with what, from the depth, name and version on each line that `cargo tree` prints. What it printed before
/// stands there without what it is linked with.
fn linked(tree: &str) -> Result<BTreeMap<Crate, BTreeSet<Crate>>> {
    let mut linked: BTreeMap<Crate, BTreeSet<Crate>> = BTreeMap::new();
    let mut above: Vec<Crate> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (depth, named) = branch(line).with_context(|| format!("cargo tree printed '{line}'"))?;
        ensure!(depth <= above.len(), "cargo tree printed '{line}', which hangs on nothing");
        above.truncate(depth);
        if let Some(with) = above.last() {
            linked.entry(with.clone()).or_default().insert(named.clone());
        }
        above.push(named);
    }
    Ok(linked)
}

/// `2 serde v1.0.0 (*)`
fn branch(line: &str) -> Option<(usize, Crate)> {
    let mut words = line.split(' ');
    let depth = words.next()?.parse().ok()?;
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some((depth, (name.to_owned(), version.to_owned())))
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

fn library(package: &Value, sums: &BTreeMap<Crate, String>) -> Library {
    let (name, version) = (text(package, "name").to_owned(), text(package, "version").to_owned());
    let manifest = Path::new(text(package, "manifest_path"));
    let authors = package["authors"].as_array().into_iter().flatten();
    Library {
        purl: purl(package),
        licence: alternatives(text(package, "license")),
        description: text(package, "description").split_whitespace().collect::<Vec<_>>().join(" "),
        repository: text(package, "repository").to_owned(),
        authors: authors.filter_map(Value::as_str).map(str::to_owned).collect(),
        digest: sums.get(&(name.clone(), version.clone())).map(|sum| ("SHA-256", sum.clone())),
        folder: manifest.parent().unwrap_or(manifest).to_owned(),
        is_ours: package["source"].is_null(),
        needs: BTreeSet::new(),
        name,
        version,
    }
}

/// Old manifests separate a choice by a slash, which SPDX does not know.
fn alternatives(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// Checksums of what cargo downloads.
fn checksums(lock: &toml::Value) -> BTreeMap<Crate, String> {
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
    fn what_no_program_is_linked_with_is_not_shipped() -> Result<()> {
        let package = |name: &str, kind: &str| {
            json!({ "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": "registry",
                    "manifest_path": format!("/src/{name}/Cargo.toml"), "authors": ["A"],
                    "targets": [{ "name": name, "kind": [kind] }] })
        };
        let mut packages: Vec<Value> = PROGRAMS.iter().map(|program| package(program, "bin")).collect();
        packages.extend(["linked", "deep", "tool", "offered"].map(|name| package(name, "lib")));
        // The second time a crate is named, the tree leaves out what it is linked with.
        let tree = "0 tool v1.0.0 (/src/tool)\n1 linked v1.0.0\n2 deep v1.0.0\n\n0 hospes v1.0.0 (/src/hospes)\n\
                    1 linked v1.0.0 (*)\n\n0 hospes-site v1.0.0\n\n0 hospesctl v1.0.0\n";
        let lock = toml::from_str("[[package]]\nname = \"linked\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n")?;
        let shipped = Shipped::of_cargo(&json!({ "packages": packages }), &linked(tree)?, &lock)?;
        let names: Vec<&str> = shipped.libraries.values().map(|library| library.name.as_str()).collect();
        assert_eq!(names, ["deep", "hospes-site", "hospes", "hospesctl", "linked"]);
        let linked = &shipped.libraries["pkg:cargo/linked@1.0.0"];
        assert_eq!(linked.digest, Some(("SHA-256", "ab".to_owned())));
        assert_eq!(linked.needs, BTreeSet::from(["pkg:cargo/deep@1.0.0".to_owned()]));
        assert_eq!((linked.licence.as_str(), &linked.authors[..]), ("MIT OR Apache-2.0", &["A".to_owned()][..]));
        Ok(())
    }

    #[test]
    fn a_tree_that_is_none_is_refused() {
        for tree in ["1 a v1.0.0\n", "a v1.0.0\n", "0 a\n", "0 a 1.0.0\n"] {
            assert!(linked(tree).is_err(), "{tree}");
        }
        assert_eq!(alternatives("MIT / Apache-2.0"), "MIT OR Apache-2.0");
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
