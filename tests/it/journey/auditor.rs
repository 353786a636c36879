//! An auditor's questions, answered from what was taken out of the window, and from nothing else of the site.

use anyhow::{Context, Result, ensure};
use hospes_tests::federation::Federation;
use hospes_tests::seat::Seat;
use serde_json::{Map, Value};

use super::{ANNEX, LOG, SITE, TITLE};

/// What the log says of the protection of what left under this policy.
const PROTECTION: &str = "PUBLIC DATA";

/// Asks the log all that an auditor asks; gives the entry of the second signature. `command`: how the window says that the
/// log is verified; `known`: what others know of it, as arguments of that.
pub(super) fn finds(seat: &Seat, federation: &Federation, study: &str, command: &str, known: &[String]) -> Result<u64> {
    ensure!(command.starts_with("hospesctl audit verify"), "the window says: {command}");
    let said = seat.run(&format!("cd \"$HOME\"; {command}"), &[])?;
    ensure!(said.contains("is intact"), "{said}");

    // From here on it is another computer's.
    let (log, annex) = (seat.read(LOG)?, seat.read(ANNEX)?);
    let file = |name: &str, text: &str| -> Result<String> {
        let path = federation.folder().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_str().context("a path that is no text")?.to_owned())
    };
    let (log_file, annex_file) = (file(LOG, &log)?, file(ANNEX, &annex)?);
    nothing_was_changed_since(federation, &log_file, known)?;
    let book = Book { entries: entries(&log)?, annex: serde_json::from_str(&annex)? };
    let approval = book.who_approved_what_when_and_for_which_purpose(study)?;
    book.what_left_when_to_whom_and_with_which_protection(study, &approval)?;
    report(federation, &log_file, &annex_file, known)?;
    Ok(approval.complete)
}

/// The log is whole, is this site's, goes as far as others saw it, and others cosigned it.
fn nothing_was_changed_since(federation: &Federation, log: &str, known: &[String]) -> Result<()> {
    let known = known.iter().map(String::as_str);
    let report = federation.ctl(&["audit", "verify", log].into_iter().chain(known).collect::<Vec<_>>())?;
    ensure!(report["finding"].is_null(), "{report:#}");
    ensure!(report["not_checked"].as_array().is_some_and(Vec::is_empty), "{report:#}");
    let members = report["witnesses"].as_array().into_iter().flatten().filter(|w| w["member"] == true).count();
    ensure!(report["known_found"] == 1 && members == super::OTHERS.len(), "{members} of the others: {report:#}");
    Ok(())
}

/// The same in words, made of log and annex by anybody.
fn report(federation: &Federation, log: &str, annex: &str, known: &[String]) -> Result<()> {
    let page = federation.folder().join("report.html");
    let to = page.to_str().context("a path that is no text")?;
    let convert = ["audit", "convert", log, "--annex", annex, "--as", "html", "--to", to];
    federation.ctl(&convert.into_iter().chain(known.iter().map(String::as_str)).collect::<Vec<_>>())?;
    let page = std::fs::read_to_string(&page)?;
    for words in [
        "The log is whole",
        "Stefan (",
        "Anna (",
        "estimates whether a patient has coronary heart disease",
        "Heart Federation (",
        PROTECTION,
    ] {
        ensure!(page.contains(words), "the report does not say '{words}'");
    }
    Ok(())
}

/// The entries of a log, each with its fields as they stand there, without their salts.
fn entries(log: &str) -> Result<Vec<Value>> {
    let mut entries = Vec::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let Some(fields) = line["fields"].as_object() else { continue };
        let mut entry: Map<String, Value> = fields.iter().map(|(name, part)| (name.clone(), part[1].clone())).collect();
        entry.insert("entry".to_owned(), line["entry"].clone());
        entries.push(Value::Object(entry));
    }
    Ok(entries)
}

/// A log and the names of its pseudonyms.
struct Book {
    entries: Vec<Value>,
    annex: Value,
}

/// What the log tells of an approval.
struct Approval {
    id: Value,
    federation: Value,
    /// Entry with which it was signed by both.
    complete: u64,
}

impl Book {
    /// Entries of what was done, in their order.
    fn of<'b>(&'b self, action: &str) -> impl Iterator<Item = &'b Value> {
        self.entries.iter().filter(move |entry| entry["action"] == action && entry["outcome"] == "success")
    }

    /// The only entry of what was done.
    fn one(&self, action: &str) -> Result<&Value> {
        let found: Vec<&Value> = self.of(action).collect();
        ensure!(found.len() == 1, "{} entries of {action}", found.len());
        Ok(found[0])
    }

    /// The name for an id.
    fn name<'b>(&'b self, what: &str, id: &Value) -> Option<&'b str> {
        self.annex[what][id.as_str()?].as_str()
    }

    fn who_approved_what_when_and_for_which_purpose(&self, study: &str) -> Result<Approval> {
        let received = self.one("request_received")?;
        let (first, second) = (self.one("approval_signed")?, self.one("approval_countersigned")?);
        for (entry, name, role) in [(first, "Stefan", "data_steward"), (second, "Anna", "data_access_approver")] {
            let who = &entry["actor"]["person"];
            ensure!(self.name("people", &who["id"]) == Some(name), "not {name}: {entry:#}");
            ensure!(who["role"] == role && who["key"].is_string(), "in another role, or without a key: {entry:#}");
            let purpose = entry["reason"].as_str().unwrap_or_default();
            ensure!(purpose.contains(TITLE) && purpose.contains("DUO:0000006"), "for no purpose: {entry:#}");
            ensure!(entry["purpose"]["study"] == study, "another study: {entry:#}");
            let dataset = object(entry, "dataset")?;
            ensure!(self.name("datasets", &dataset["id"]) == Some("heart"), "other data: {entry:#}");
            ensure!(entry["when"]["at"].as_i64() >= received["when"]["at"].as_i64(), "before it was asked: {entry:#}");
        }
        let (signed, countersigned) = (&first["actor"]["person"], &second["actor"]["person"]);
        ensure!(signed["key"] != countersigned["key"], "one key signed twice");
        ensure!(object(first, "approval")? == object(second, "approval")?, "two documents were signed");
        let federation = received["actor"]["peer"]["node"].clone();
        ensure!(self.name("sites", &federation) == Some("Heart Federation"), "asked by {federation}");
        Ok(Approval { id: second["purpose"]["approval"].clone(), federation, complete: number(second)? })
    }

    fn what_left_when_to_whom_and_with_which_protection(&self, study: &str, approval: &Approval) -> Result<()> {
        let sent: Vec<&Value> = self.of("update_sent").collect();
        ensure!(sent.len() >= super::ROUNDS as usize, "{} payloads left {SITE}", sent.len());
        ensure!(self.of("update_prepared").count() == sent.len(), "something was made and not sent");
        for entry in sent {
            let egress = &entry["egress"];
            let made = self.of("update_prepared").find(|made| made["egress"] == *egress);
            let made = made.with_context(|| format!("it was not entered before it left: {entry:#}"))?;
            let goes = |goes: &&Value| {
                goes["objects"].as_array().is_some_and(|all| all.iter().any(|of| of["digest"] == egress["digest"]))
            };
            let goes = self.of("update_leaving").find(goes).with_context(|| format!("it never left: {entry:#}"))?;
            let order = [approval.complete, number(made)?, number(goes)?, number(entry)?];
            ensure!(order.is_sorted(), "it left before it was allowed or entered: {order:?}");
            ensure!(goes["when"]["at"].is_i64(), "it left at no time: {goes:#}");
            ensure!(egress["to"] == approval.federation, "it went elsewhere: {entry:#}");
            ensure!(egress["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "it had no bytes: {entry:#}");
            ensure!(made["reason"] == PROTECTION, "with another protection: {made:#}");
            let purpose = &entry["purpose"];
            ensure!(purpose["study"] == study && purpose["approval"] == approval.id, "for something else: {entry:#}");
        }
        Ok(())
    }
}

fn object<'e>(entry: &'e Value, kind: &str) -> Result<&'e Value> {
    let found = entry["objects"].as_array().and_then(|all| all.iter().find(|object| object["kind"] == kind));
    found.with_context(|| format!("no {kind} in {entry:#}"))
}

fn number(entry: &Value) -> Result<u64> {
    entry["entry"].as_u64().context("an entry without its number")
}
