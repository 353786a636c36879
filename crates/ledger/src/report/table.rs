//! CSV (RFC 4180, UTF-8) for people and spreadsheets.

use std::io::{self, Write};

use super::{Head, Log, ReportError, actor_id, field, plain, when};
use crate::entry::{Actor, Engine};
use crate::leaf::Field;
use crate::verify::Proven;

const COLUMNS: [&str; 23] = [
    "sequence",
    "time",
    "order",
    "actor",
    "role",
    "key",
    "on_behalf",
    "action",
    "outcome",
    "reason",
    "objects",
    "study",
    "job",
    "approval",
    "before",
    "after",
    "sent_to",
    "sent_bytes",
    "sent_digest",
    "program",
    "answers",
    "erased",
    "leaf",
];

/// One row for each entry, and a last one that says of which log, and how to verify.
pub(super) fn write(log: &mut Log<'_>, head: &Head<'_>, out: &mut dyn Write) -> Result<(), ReportError> {
    let mut table = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out);
    table.write_record(COLUMNS).map_err(io::Error::from)?;
    log.each(&mut |proven| Ok(table.write_record(row(&proven).map(inert))?))?;
    let mut note = [const { String::new() }; COLUMNS.len()];
    note[0] = "note".to_owned();
    note[9] = head.line();
    table.write_record(note.map(inert)).map_err(io::Error::from)?;
    table.flush()?;
    Ok(())
}

/// A cell that no spreadsheet takes for a formula (OWASP, CSV injection), also where it drops blanks first or takes the
/// wide forms of the signs for the signs.
fn inert(cell: String) -> String {
    let sign = |c| matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠');
    if cell.trim_start_matches(' ').starts_with(sign) { format!("'{cell}") } else { cell }
}

fn row(proven: &Proven) -> [String; COLUMNS.len()] {
    fn shown<T: std::fmt::Display>(value: Option<T>) -> String {
        value.map(|v| v.to_string()).unwrap_or_default()
    }
    let record = &proven.record;
    let list = |list: Vec<String>| (!list.is_empty()).then(|| list.join("; "));
    let objects = record.objects.iter().map(|o| match o.digest {
        Some(digest) => format!("{} {} sha256:{digest}", o.kind, plain(&o.id)),
        None => format!("{} {}", o.kind, plain(&o.id)),
    });
    let erased =
        record.erased.iter().map(|(field, rule)| format!("{} erased under rule {rule}", field.as_str())).collect();
    let (role, key) = match &record.actor {
        Some(Actor::Person { role, key, .. }) => (role.as_deref().map(plain).unwrap_or_default(), shown(*key)),
        Some(Actor::Peer { organisation, .. }) => {
            (organisation.as_deref().map(plain).unwrap_or_default(), String::new())
        }
        Some(Actor::Engine) | None => (String::new(), String::new()),
    };
    let purpose = |id: Option<String>| field(record, Field::Purpose, id);
    let egress = record.egress.as_ref();
    [
        record.sequence.to_string(),
        when(record),
        shown(record.when.map(|w| w.order)),
        actor_id(record),
        role,
        key,
        field(record, Field::OnBehalf, record.on_behalf.as_ref().map(Actor::id)),
        field(record, Field::Action, record.action.map(|a| a.to_string())),
        field(record, Field::Outcome, record.outcome.map(|o| o.as_str().to_owned())),
        field(record, Field::Reason, record.reason.as_deref().map(plain)),
        field(record, Field::Objects, list(objects.collect())),
        purpose(record.purpose.study.map(|id| id.to_string())),
        purpose(record.purpose.job.map(|id| id.to_string())),
        purpose(record.purpose.approval.map(|id| id.to_string())),
        field(record, Field::Change, record.change.and_then(|c| c.before).map(|d| d.to_string())),
        field(record, Field::Change, record.change.and_then(|c| c.after).map(|d| d.to_string())),
        field(record, Field::Egress, egress.map(|e| plain(&e.to))),
        shown(egress.map(|e| e.bytes)),
        shown(egress.map(|e| e.digest)),
        field(record, Field::Engine, record.engine.as_ref().map(program)),
        field(record, Field::Answers, record.answers.map(|a| format!("{}#{}", a.origin, a.entry))),
        list(erased).unwrap_or_default(),
        proven.leaf.to_string(),
    ]
}

pub(super) fn program(engine: &Engine) -> String {
    match &engine.device {
        Some(device) => format!("{} on {}", plain(&engine.version), plain(device)),
        None => plain(&engine.version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for hostile in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =cmd|' /C calc'!A0", "＝1+1", "－2"] {
            assert!(inert(hostile.into()).starts_with('\''), "{hostile:?}");
        }
        for harmless in ["", "round 3", "sha256:ab", "1=1"] {
            assert_eq!(inert(harmless.into()), harmless);
        }
    }
}
