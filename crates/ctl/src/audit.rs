//! Audit logs: export, and verification without a network.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use hospes_ledger::report::{Annex, ReportError, write as write_report};
use hospes_ledger::verify::{Expectations, Report, verify as verify_export};
use hospes_protocol::id::Timestamp;

use crate::arguments::{Convert, Verify};
use crate::client::{Client, Failure, FailureKind};
use crate::output::{self, NewFile};

/// What the auditor said about the log.
fn expectations(arguments: &Verify) -> Result<Expectations> {
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
    Ok(expected)
}

/// `audit convert`: a report, of an intact log only.
pub(crate) fn convert(arguments: &Convert, json: bool) -> Result<()> {
    let expected = expectations(&arguments.log)?;
    let annex = match &arguments.annex {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            Annex::read(&text).map_err(|words| Failure::new(FailureKind::Usage, words))?
        }
        None => Annex::default(),
    };
    let path = &arguments.log.file;
    let mut log = BufReader::new(File::open(path).with_context(|| format!("open {}", path.display()))?);
    // Before anything is written, as what was printed cannot be taken back.
    let report = verify_export(&mut log, &expected).with_context(|| format!("read {}", path.display()))?;
    if let Some(words) = report.doubt(now()).filter(|_| report.is_intact()) {
        bail!(Failure::new(FailureKind::NotVerified, words));
    }
    let mut make = |out: &mut dyn Write| -> Result<Report> {
        let report = write_report(arguments.form, &mut log, &expected, &annex, out).map_err(|error| match error {
            ReportError::NotIntact(_) => anyhow::Error::new(Failure::new(FailureKind::NotVerified, error.to_string())),
            error => anyhow::Error::new(error).context(format!("make a report of {}", path.display())),
        })?;
        if let Some(words) = report.doubt(now()) {
            bail!(Failure::new(FailureKind::NotVerified, words));
        }
        Ok(report)
    };
    let Some(to) = &arguments.to else {
        return make(&mut BufWriter::new(std::io::stdout().lock())).map(drop);
    };
    let mut file = NewFile::create(to)?;
    let report = make(&mut BufWriter::new(&mut file))?;
    file.keep()?;
    let words = format!("{} entries were written to {} as {}.", report.entries, to.display(), arguments.form);
    output::done(&serde_json::json!({ "file": to, "form": arguments.form, "entries": report.entries }), &words, json)
}

/// `audit verify`: names the first bad entry, and says how well the log is witnessed.
pub(crate) fn verify(arguments: &Verify, json: bool) -> Result<()> {
    let expected = expectations(arguments)?;
    let file = File::open(&arguments.file).with_context(|| format!("open {}", arguments.file.display()))?;
    let report = verify_export(&mut BufReader::new(file), &expected)
        .with_context(|| format!("read {}", arguments.file.display()))?;
    let not_checked = not_checked(&report, &expected);
    if json {
        let mut answer = serde_json::to_value(&report)?;
        answer["not_checked"] = serde_json::to_value(&not_checked)?;
        output::json(&answer)?;
    } else {
        tell(&report, &expected, &not_checked);
    }
    let not_verified = |words: String| bail!(Failure::new(FailureKind::NotVerified, words));
    if let Some(finding) = &report.finding {
        return not_verified(format!("the log is not intact: {finding}"));
    }
    if let Some(words) = report.doubt(now()) {
        return not_verified(words);
    }
    if !expected.members.is_empty() && report.independent_witnesses() == 0 {
        return not_verified("none of the members that were named cosigned this log".into());
    }
    // A peer's checkpoint is signed by the ledger's key, and so tells whose it is as well as the key itself.
    if expected.origins.is_empty() && expected.known.is_empty() {
        let words = "whose log this is was not checked: say --origin, or --checkpoint with what a peer saw";
        bail!(Failure::new(FailureKind::Unknown, words));
    }
    Ok(())
}

/// The time by this machine's clock.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// What nobody can tell from the file alone and the auditor said nothing about.
fn not_checked(report: &Report, expected: &Expectations) -> Vec<String> {
    let mut words = Vec::new();
    if expected.origins.is_empty() && expected.known.is_empty() {
        let key = report.key.map_or_else(|| "none".to_owned(), |key| key.to_string());
        words.push(format!(
            "whose log it is. Anybody can write such a file with a key of their own; this one's is {key}. Compare it with \
             the key that you know from elsewhere: --origin KEY"
        ));
    }
    if expected.members.is_empty() {
        words.push(format!(
            "who witnessed it. {} keys cosigned it, and whoever wrote the file may have made them. Name the members' keys \
             that you know from elsewhere: --member KEY",
            report.witnesses.len()
        ));
    }
    if expected.known.is_empty() {
        words.push(
            "whether its end was cut off, or another version of it exists. Ask a peer for the last checkpoint that it saw \
             of this log: --checkpoint FILE"
                .into(),
        );
    }
    words
}

fn tell(report: &Report, expected: &Expectations, not_checked: &[String]) {
    if report.is_intact() && report.doubt(now()).is_none() {
        let origin = report.origin.map(|o| o.to_string()).unwrap_or_default();
        let entries = report.entries;
        output::say(&if expected.origins.is_empty() && expected.known.is_empty() {
            format!("The file is whole in itself: {entries} entries, each proven by the signature of its own key.")
        } else {
            format!("The log of {origin} is intact: {entries} entries, all proven.")
        });
    }
    if let Some(words) = report.erased_words() {
        output::say(&format!("{words}."));
    }
    if report.known_found > 0 {
        output::say(&format!("It contains the {} checkpoints that were seen elsewhere.", report.known_found));
    }
    if !expected.members.is_empty() {
        output::say(&format!(
            "{} independent witnesses, of {} members named; longest time without one: {} s; {} newest entries are not \
             witnessed yet.",
            report.independent_witnesses(),
            expected.members.len(),
            report.longest_unwitnessed_ms / 1_000,
            report.unwitnessed_entries
        ));
    }
    for words in not_checked {
        output::say(&format!("NOT CHECKED: {words}."));
    }
}

/// `audit checkpoint`: the signed note, to be kept where whoever keeps the log cannot reach it.
pub(crate) async fn checkpoint(client: &Client, site: Option<&str>, json: bool) -> Result<()> {
    let note = match site {
        None => client.text("ledger/checkpoint").await?,
        Some(typed) => {
            let site = crate::fleet::find(client, typed).await?;
            client.text(&format!("ledger/peers/{site}/checkpoint")).await?
        }
    };
    if json {
        return output::json(&serde_json::json!({ "checkpoint": note }));
    }
    output::say(note.trim_end());
    Ok(())
}

/// `audit export`
pub(crate) async fn export(client: &Client, path: &Path, json: bool) -> Result<()> {
    let mut file = NewFile::create(path)?;
    client.download("ledger/export", &mut file, &mut |_, _| {}).await?;
    file.keep()?;
    let words = format!("The coordinator's log was written to {}.", path.display());
    output::done(&serde_json::json!({ "file": path }), &words, json)
}
