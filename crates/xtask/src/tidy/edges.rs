//! Which crate may use which, and under which licences dependencies come.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Findings, invariants};
use crate::machine::cargo;

/// What each crate of ours may use of ours, tests aside. A crate that is not listed may use nothing of ours.
const MAY_USE: &[(&str, &[&str])] = &[
    ("hospes-privacy", &["hospes-protocol"]),
    ("hospes-ledger", &["hospes-protocol"]),
    ("hospes-cohort", &["hospes-protocol", "hospes-privacy"]),
    ("hospes-party", &["hospes-protocol", "hospes-privacy", "hospes-cohort", "hospes-ledger"]),
    ("hospes-ipc", &["hospes-party", "hospes-protocol"]),
    ("hospes", &["hospes-ipc"]),
    ("hospes-site", &["hospes-ipc", "hospes-party", "hospes-protocol", "hospes-ledger"]),
    ("hospes-coordinator", &["hospes-protocol", "hospes-privacy", "hospes-ledger"]),
    ("hospes-ctl", &["hospes-protocol", "hospes-ledger"]),
    ("hospes-sim", &["hospes-protocol", "hospes-privacy", "hospes-cohort", "hospes-party", "hospes-coordinator"]),
    ("xtask", &["hospes-protocol"]),
];
/// Crates that no dependency of `hospes-coordinator` and `hospes-protocol` may bring in.
const NOT_IN_THE_CLOUD: &[&str] = &["burn", "hospes-cohort", "hospes-party", "hospes-ipc", "tauri"];

/// Checks edges and licences.
pub(crate) fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let metadata = metadata(root, &["--locked"])?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let ours: BTreeSet<&str> =
        packages.iter().filter(|p| p["source"].is_null()).filter_map(|p| p["name"].as_str()).collect();
    for package in packages.iter().filter(|p| p["source"].is_null()) {
        edges(package, &ours, findings);
        seams(package, findings);
        test_binaries(package, findings);
        invariants::check_package(package, findings);
    }
    cloud(&metadata, packages, findings);
    licences(root, packages, findings)
}

/// What cargo says of the packages.
pub(super) fn metadata(root: &Path, more: &[&str]) -> Result<Value> {
    let mut cargo = cargo()?;
    cargo.args(["metadata", "--format-version", "1"]).args(more).current_dir(root);
    let output = cargo.output().context("cargo metadata")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn edges(package: &Value, ours: &BTreeSet<&str>, findings: &mut Findings) {
    let name = package["name"].as_str().unwrap_or_default();
    if ["hospes-tests", "hospes-simulation"].contains(&name) {
        return;
    }
    let allowed = MAY_USE.iter().find(|(n, _)| *n == name).map_or(&[][..], |(_, uses)| *uses);
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let used = dependency["name"].as_str().unwrap_or_default();
        // Tests may use more, the dev-kind says so; but nothing but whole-process tests the app or the simulator.
        let is_test = dependency["kind"].as_str() == Some("dev") && !["hospes", "hospes-sim"].contains(&used);
        if ours.contains(used) && !is_test && !allowed.contains(&used) {
            findings.add(name, format!("may not use {used}; see 'Direction of dependencies' in ARCHITECTURE.md"));
        }
    }
}

/// The seams by which the simulation takes hold of engine and schedule, and the bugs that it can plant there, are asked for
/// by nothing but the simulation, and by no default.
fn seams(package: &Value, findings: &mut Findings) {
    const SEAM: &str = "simulation";
    let name = package["name"].as_str().unwrap_or_default();
    let is_seam = |feature: &Value| feature.as_str().is_some_and(|f| f == SEAM || f.ends_with("/simulation"));
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    let asked = dependencies.filter(|d| d["features"].as_array().into_iter().flatten().any(is_seam)).count();
    let features = package["features"].as_object().into_iter().flatten();
    let led = features.filter(|(_, enables)| enables.as_array().into_iter().flatten().any(is_seam)).count();
    if (asked > 0 && name != "hospes-simulation") || led > 0 {
        findings.add(name, format!("asks for the feature '{SEAM}'; only hospes-simulation may"));
    }
}

/// Each integration-test binary links everything once more; one for each crate is enough.
fn test_binaries(package: &Value, findings: &mut Findings) {
    let name = package["name"].as_str().unwrap_or_default();
    let targets = package["targets"].as_array().into_iter().flatten();
    let tests: Vec<&str> = targets
        .filter(|t| t["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == "test")))
        .filter_map(|t| t["name"].as_str())
        .collect();
    if tests.len() > 1 {
        findings
            .add(name, format!("has {} integration-test binaries ({}); one is enough", tests.len(), tests.join(", ")));
    }
}

/// Follows everything that the coordinator links.
fn cloud(metadata: &Value, packages: &[Value], findings: &mut Findings) {
    let names: BTreeMap<&str, &str> =
        packages.iter().filter_map(|p| Some((p["id"].as_str()?, p["name"].as_str()?))).collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| Some((n["id"].as_str()?, n)))
        .collect();
    for start in ["hospes-coordinator", "hospes-protocol"] {
        let mut open: Vec<&str> = names.iter().filter(|(_, name)| **name == start).map(|(id, _)| *id).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let name = names.get(id).copied().unwrap_or_default();
            if NOT_IN_THE_CLOUD.contains(&name) {
                findings.add(start, format!("links {name}"));
            }
            let dependencies = nodes.get(id).and_then(|n| n["deps"].as_array()).into_iter().flatten();
            let normal = dependencies
                .filter(|d| d["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k["kind"].is_null())));
            open.extend(normal.filter_map(|d| d["pkg"].as_str()));
        }
    }
}

fn licences(root: &Path, packages: &[Value], findings: &mut Findings) -> Result<()> {
    let text = std::fs::read_to_string(root.join("deny.toml")).context("read deny.toml")?;
    let deny: toml::Table = toml::from_str(&text)?;
    let allow = deny["licenses"]["allow"].as_array().context("deny.toml has no licenses.allow")?;
    let allow: BTreeSet<&str> = allow.iter().filter_map(toml::Value::as_str).collect();
    // A licence file without an SPDX expression has to be read by a person, who says in deny.toml what it is.
    let clarified = deny["licenses"].get("clarify").and_then(toml::Value::as_array).into_iter().flatten();
    let clarified: BTreeMap<&str, &str> =
        clarified.filter_map(|c| Some((c.get("crate")?.as_str()?, c.get("expression")?.as_str()?))).collect();
    let registries = deny["sources"]["allow-registry"].as_array().context("deny.toml has no sources.allow-registry")?;
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        match package["license"].as_str().or_else(|| clarified.get(name).copied()) {
            Some(licence) if acceptable(licence, &allow) => {}
            other => findings.add(name, format!("its licence {other:?} is not in deny.toml")),
        }
        let known =
            |url: &str| registries.iter().filter_map(toml::Value::as_str).any(|r| url == format!("registry+{r}"));
        if let Some(source) = package["source"].as_str().filter(|source| !known(source)) {
            findings.add(name, format!("comes from {source}, which deny.toml does not name"));
        }
    }
    Ok(())
}

/// Whether an SPDX expression can be met with these licences: one term of each `OR` that every `AND` joins.
fn acceptable(expression: &str, allow: &BTreeSet<&str>) -> bool {
    let expression = expression.replace('/', " OR ");
    if let Some((before, inner, after)) = parenthesis(&expression) {
        let met = if acceptable(inner, allow) { "0BSD" } else { "none" };
        return acceptable(&format!("{before}{met}{after}"), allow);
    }
    expression.split(" OR ").any(|one| one.split(" AND ").all(|term| allow.contains(term.trim())))
}

/// The innermost parenthesis with what stands before and after it.
fn parenthesis(text: &str) -> Option<(&str, &str, &str)> {
    let open = text.rfind('(')?;
    let close = open + text[open..].find(')')?;
    Some((&text[..open], &text[open + 1..close], &text[close + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_met_by_one_side_of_or_and_both_of_and() {
        let allow = BTreeSet::from(["MIT", "0BSD", "Unicode-3.0"]);
        assert!(acceptable("MIT OR Apache-2.0", &allow));
        assert!(acceptable("(GPL-3.0 OR MIT) AND Unicode-3.0", &allow));
        assert!(acceptable("MIT/Apache-2.0", &allow));
        assert!(!acceptable("MIT AND GPL-3.0", &allow));
        assert!(!acceptable("GPL-3.0", &allow));
    }
}
