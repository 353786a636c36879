//! `hospesctl` as a program, as far as it needs no coordinator: exit codes, study files, completions. (What needs one is
//! in the workspace's `tests`.)

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod audit;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const STUDY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/heart/plain.yaml");

/// Runs it in a world of its own.
fn ctl(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hospesctl"));
    command.args(arguments).stdin(Stdio::null()).env("HOME", home).env("XDG_CONFIG_HOME", home.join("config"));
    for name in ["HOSPES_URL", "HOSPES_TOKEN_FILE", "HOSPES_CA", "HOSPES_CTL_CONFIG", "HTTPS_PROXY", "https_proxy"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn wrong_usage_is_2_and_a_coordinator_that_is_not_there_is_4() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(code(&ctl(home.path(), &["nonsense"])), 2);
    let output = ctl(home.path(), &["whoami"]);
    assert!(code(&output) == 2 && said(&output).contains("hospesctl login"), "{}", said(&output));
    let token = written(home.path(), "token", "hospes_abc\n");
    let token = token.to_str().unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("https://127.0.0.1:{port}");
    let output = ctl(home.path(), &["--url", &url, "--token-file", token, "whoami"]);
    assert!(code(&output) == 4 && said(&output).contains("cannot be reached"), "{}", said(&output));
    let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    let output = ctl(home.path(), &["--url", &url, "--token-file", token, "login", "--ca-words", words]);
    assert_eq!(code(&output), 4, "{}", said(&output));
    let output = ctl(home.path(), &["--url", &url, "--token-file", token, "login"]);
    assert!(code(&output) == 2 && said(&output).contains("--ca-words"), "{}", said(&output));
    assert!(!home.path().join("config").exists(), "a login that failed was kept");
}

#[test]
fn a_study_is_checked_without_a_network_and_every_mistake_has_a_place() {
    let home = tempfile::tempdir().unwrap();
    let output = ctl(home.path(), &["study", "validate", STUDY]);
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(code(&output) == 0 && told.contains("is valid") && told.contains("What leaves each site"), "{told}");
    let output = ctl(home.path(), &["--json", "study", "validate", STUDY]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!answer["egress"].as_array().unwrap().is_empty() && answer["digest"].as_str().unwrap().len() == 64);
    let text = std::fs::read_to_string(STUDY).unwrap();
    let bad = written(home.path(), "bad.yaml", &text.replace("component: reader", "component: raeder"));
    let output = ctl(home.path(), &["study", "validate", bad.to_str().unwrap()]);
    assert!(code(&output) == 2 && said(&output).contains("plan.tasks."), "{}", said(&output));
    let output = ctl(home.path(), &["study", "validate", "/nowhere/at/all.yaml"]);
    assert!(code(&output) != 0 && said(&output).contains("/nowhere/at/all.yaml"));
    assert_eq!(code(&ctl(home.path(), &["study", "validate", "--plan", STUDY])), 2, "a plan without terms");
    let output = ctl(home.path(), &["study", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["properties"]["plan"].is_object());
}

#[test]
fn terms_and_plan_may_lie_in_two_files() {
    let home = tempfile::tempdir().unwrap();
    let study = ctl(home.path(), &["--json", "study", "validate", STUDY]);
    let study: serde_json::Value = serde_json::from_slice(&study.stdout).unwrap();
    // The same study in two parts, each cut out of the one file by its top-level key.
    let text = std::fs::read_to_string(STUDY).unwrap();
    let (mut parts, mut name) = (std::collections::BTreeMap::<String, String>::new(), String::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_suffix(':') {
            Some(key) if !key.starts_with(' ') => name = key.to_owned(),
            _ => {
                let part = parts.entry(name.clone()).or_default();
                part.push_str(line.strip_prefix("  ").unwrap_or(line));
                part.push('\n');
            }
        }
    }
    let terms = written(home.path(), "terms.yaml", &parts["terms"]);
    let plan = written(home.path(), "plan.yaml", &parts["plan"]);
    let (terms, plan) = (terms.to_str().unwrap(), plan.to_str().unwrap());
    let output = ctl(home.path(), &["--json", "study", "validate", "--terms", terms, "--plan", plan]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let again: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(again["digest"], study["digest"]);
}

#[test]
fn a_log_that_is_none_is_5_and_completions_are_printed() {
    let home = tempfile::tempdir().unwrap();
    let log = written(home.path(), "log.jsonl", "{\"this\": \"is no log\"}\n");
    let output = ctl(home.path(), &["audit", "verify", log.to_str().unwrap()]);
    assert_eq!(code(&output), 5, "{}", said(&output));
    for shell in ["bash", "zsh", "fish"] {
        let output = ctl(home.path(), &["completions", shell]);
        assert!(code(&output) == 0 && String::from_utf8_lossy(&output.stdout).contains("hospesctl"));
    }
    let output = ctl(home.path(), &["logout"]);
    assert!(code(&output) == 0 && String::from_utf8_lossy(&output.stdout).contains("not logged in"));
}
