//! Hostile names and texts, from a researcher's file over a coordinator to what a hospital's people read.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use hospes_tests::federation::{EXAMPLES, Federation};
use serde_json::Value;

/// Lines of the example that are replaced.
const TITLE: &str = "title: Odds ratios of heart disease in four hospitals";
const RETENTION: &str = "retention: The tables are kept with this example.";
const NAME: &str = "name: Example researcher";
const ORGANISATION: &str = "organisation: Heart Federation";

/// Markup that would run, if it were taken for some.
const SCRIPT: &str = "<script>alert(1)</script>";

#[test]
fn hostile_texts_of_a_request_are_refused_by_name_or_shown_as_text_and_marked() -> Result<()> {
    let federation = Federation::of("sqlite", &["cleveland", "hungary"])?;
    let plain = std::fs::read_to_string(format!("{EXAMPLES}/heart/regression.yaml"))?;
    let write = |changes: &[(&str, String)]| -> Result<PathBuf> {
        let mut text = plain.clone();
        for (from, to) in changes {
            ensure!(text.contains(from), "the example reads otherwise: {from}");
            text = text.replacen(from, to, 1);
        }
        let path = federation.folder().join("hostile.yaml");
        std::fs::write(&path, text)?;
        Ok(path)
    };

    for (from, to, says) in [
        (TITLE, "title: \"Odds \\u202E ratios\"".to_owned(), "U+202E"),
        (NAME, "name: \"Dr\\u200B X\"".to_owned(), "U+200B"),
        (TITLE, format!("title: {}", "x".repeat(200)), "limit NAME_CHARS"),
        (RETENTION, format!("retention: {}", "word ".repeat(1_000)), "limit TEXT_CHARS"),
        (RETENTION, format!("retention: {}", "word ".repeat(200_000)), "limit PLAN_FILE_BYTES"),
    ] {
        let path = write(&[(from, to)])?;
        let refused = federation.ctl(&["study", "submit", path.to_str().context("path")?]);
        let words = format!("{:#}", refused.err().context(says).context("it was taken")?);
        ensure!(words.contains(says), "'{says}' is not in: {words}");
    }

    // Good letters that deceive: the data steward's name, and a member's, each with a Cyrillic letter; and markup.
    let path = write(&[
        (NAME, "name: \"Stef\u{430}n\"".to_owned()),
        (ORGANISATION, format!("organisation: \"{SCRIPT}\"")),
        ("\"the four hospitals\"", "\"hung\u{430}ry clinic\"".to_owned()),
    ])?;
    let study = federation.submit(&path)?;
    let site = federation.site("cleveland")?;
    let review = site.act("Stefan", &["show", &study])?;
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let marked = |of: &str, like: &str| list(&review["marks"]).iter().any(|m| m["of"] == of && m["like"] == like);
    assert!(marked("person", "Stefan") && marked("organisation", "hungary clinic"), "{:#}", review["marks"]);
    let warns = |f: &Value| f["words"].as_str().is_some_and(|words| words.contains("looks like the requester's"));
    assert!(list(&review["findings"]).iter().any(warns), "{:#}", review["findings"]);
    assert!(list(&review["people"]["facts"]).iter().any(|fact| fact["value"] == SCRIPT), "{:#}", review["people"]);
    // Nobody with a look-alike name can be added to sign.
    let added = site.act("Ada", &["user", "add", "Stef\u{430}n", "--role", "data-access-approver"]);
    assert!(added.is_err_and(|error| format!("{error:#}").contains("looks like 'Stefan'")));
    Ok(())
}
