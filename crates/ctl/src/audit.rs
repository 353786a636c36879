//! Audit logs: export, and verification without a network.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use hospes_ledger::verify::{Expectations, Report, verify as verify_export};

use crate::arguments::Verify;
use crate::client::{Client, Failure, FailureKind};
use crate::output;

/// `audit verify`: names the first bad entry, and says how well the log is witnessed.
pub(crate) fn verify(arguments: &Verify, json: bool) -> Result<()> {
    let usage = |words: String| Failure::new(FailureKind::Usage, words);
    let keys = |texts: &[String]| {
        let parsed: Result<Vec<_>, _> = texts.iter().map(|text| text.parse()).collect();
        parsed.map_err(|error: String| usage(format!("no identity key: {error}")))
    };
    let mut expected = Expectations {
        origins: keys(&arguments.origin)?,
        members: keys(&arguments.member)?,
        ..Expectations::default()
    };
    for path in &arguments.checkpoint {
        let note = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        expected.known.push(note);
    }
    let file = File::open(&arguments.file).with_context(|| format!("open {}", arguments.file.display()))?;
    let report = verify_export(&mut BufReader::new(file), &expected)
        .with_context(|| format!("read {}", arguments.file.display()))?;
    if json {
        output::json(&serde_json::to_value(&report)?)?;
    } else {
        tell(&report);
    }
    match &report.finding {
        None => Ok(()),
        Some(finding) => bail!(Failure::new(FailureKind::NotVerified, format!("the log is not intact: {finding}"))),
    }
}

fn tell(report: &Report) {
    if report.is_intact() {
        let origin = report.origin.map(|o| o.to_string()).unwrap_or_default();
        output::say(&format!("The log of {origin} is intact: {} entries, all proven.", report.entries));
    }
    if report.erased_entries > 0 {
        let rules: Vec<&str> = report.erasure_rules.iter().map(String::as_str).collect();
        output::say(&format!("{} entries were erased in part under {}.", report.erased_entries, rules.join(", ")));
    }
    output::say(&format!(
        "{} independent witnesses; longest time without one: {} s; {} newest entries are not witnessed yet.",
        report.independent_witnesses(),
        report.longest_unwitnessed_ms / 1_000,
        report.unwitnessed_entries
    ));
}

/// `audit checkpoint`: the signed note, to be kept where the coordinator's operator cannot reach it.
pub(crate) async fn checkpoint(client: &Client, json: bool) -> Result<()> {
    let note = client.text("ledger/checkpoint").await?;
    if json {
        return output::json(&serde_json::json!({ "checkpoint": note }));
    }
    output::say(note.trim_end());
    Ok(())
}

/// `audit export`
pub(crate) async fn export(client: &Client, path: &Path) -> Result<()> {
    let mut file = File::create_new(path).with_context(|| format!("make the new file {}", path.display()))?;
    client.download("ledger/export", &mut file, &mut |_, _| {}).await?;
    file.flush()?;
    output::say(&format!("The coordinator's log was written to {}.", path.display()));
    Ok(())
}
