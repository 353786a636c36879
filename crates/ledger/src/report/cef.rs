//! Lines for a SIEM: syslog (RFC 5424) with a message in ArcSight's Common Event Format (CEF, version 0).
//!
//! One entry a line. The message has no byte order mark, which RFC 5424 allows and most readers of CEF need. Names come
//! from the log alone: a SIEM has readers who need no names of staff.

use std::fmt::Write as _;
use std::io::Write;

use super::{Head, Log, ReportError, codes, field, plain, spoken};
use crate::entry::Actor;
use crate::leaf::Field;
use crate::verify::Proven;

/// Facility *log audit* (RFC 5424, table 1).
const FACILITY: u8 = 13;
/// Most characters of one value; CEF's custom strings end there.
const VALUE_CHARS: usize = 4_000;

pub(super) fn write(log: &mut Log<'_>, head: &Head<'_>, out: &mut dyn Write) -> Result<(), ReportError> {
    let origin = head.origin();
    log.each(&mut |proven| out.write_all(entry(&proven, &origin).as_bytes()))?;
    let mut line = Line::begin(5, &head.made().to_string(), &origin, "log_exported", "hospes", 3, "Audit log exported");
    line.value("rt", &head.made().as_millis().to_string());
    line.value("deviceExternalId", &origin);
    line.custom(1, "checkpoint root", &head.root());
    line.custom(2, "checkpoint entries", &head.report.size.to_string());
    line.custom(3, "range", &head.range());
    line.value("msg", head.how());
    out.write_all(line.end().as_bytes())?;
    Ok(())
}

fn entry(proven: &Proven, origin: &str) -> String {
    let record = &proven.record;
    let severity = codes::severity(record.action, record.outcome);
    let time = record.when.map_or_else(|| "-".to_owned(), |when| when.at.to_string());
    let name = field(record, Field::Action, record.action.map(|a| spoken(a.as_str())));
    let action = record.action.map_or("erased", crate::Action::as_str);
    let program = record.engine.as_ref().map_or_else(|| "hospes".to_owned(), |engine| plain(&engine.version));
    let mut line = Line::begin(severity.syslog, &time, origin, action, &program, severity.cef, &name);
    if let Some(when) = record.when {
        line.value("rt", &when.at.as_millis().to_string());
    }
    line.value("externalId", &record.sequence.to_string());
    line.value("deviceExternalId", origin);
    line.value("act", action);
    line.value("suid", &super::actor_id(record));
    if let Some(Actor::Person { role: Some(role), .. }) = &record.actor {
        line.value("spriv", &plain(role));
    }
    line.value("outcome", &field(record, Field::Outcome, record.outcome.map(|o| o.as_str().to_owned())));
    line.value("reason", &field(record, Field::Reason, record.reason.as_deref().map(plain)));
    if let Some(egress) = &record.egress {
        line.value("duid", &plain(&egress.to));
        line.value("out", &egress.bytes.to_string());
        line.value("fileHash", &egress.digest.to_string());
    }
    let purpose = |id: Option<String>| field(record, Field::Purpose, id);
    line.custom(1, "study", &purpose(record.purpose.study.map(|id| id.to_string())));
    line.custom(2, "job", &purpose(record.purpose.job.map(|id| id.to_string())));
    line.custom(3, "approval", &purpose(record.purpose.approval.map(|id| id.to_string())));
    let objects: Vec<String> = record.objects.iter().map(|o| format!("{} {}", o.kind, plain(&o.id))).collect();
    let objects = (!objects.is_empty()).then(|| objects.join("; "));
    line.custom(4, "objects", &field(record, Field::Objects, objects));
    line.custom(5, "leaf", &proven.leaf.to_string());
    let erased: Vec<String> =
        record.erased.iter().map(|(field, rule)| format!("{} erased under rule {rule}", field.as_str())).collect();
    line.custom(6, "erased", &erased.join("; "));
    line.end()
}

/// A line that is being written.
struct Line(String);

impl Line {
    fn begin(severity: u8, time: &str, origin: &str, id: &str, program: &str, cef: u8, name: &str) -> Self {
        // The program's own text, such as "hospes-site 0.1.0".
        let (product, version) = program.split_once(' ').unwrap_or((program, ""));
        let mut line = String::with_capacity(512);
        let _ = write!(line, "<{}>1 {time} {} hospes - {} - ", FACILITY * 8 + severity, token(origin), token(id));
        let _ =
            write!(line, "CEF:0|Hospes|{}|{}|{}|{}|{cef}|", header(product), header(version), header(id), header(name));
        Self(line)
    }

    /// A value of the extension; nothing for an empty one.
    fn value(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        if !self.0.ends_with('|') {
            self.0.push(' ');
        }
        self.0.push_str(key);
        self.0.push('=');
        let mut chars = value.chars();
        for c in chars.by_ref().take(VALUE_CHARS) {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '=' => self.0.push_str("\\="),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                c => self.0.push(c),
            }
        }
        if chars.next().is_some() {
            self.0.push('…');
        }
    }

    /// A string of our own with its label; nothing for an empty one.
    fn custom(&mut self, number: u8, label: &str, value: &str) {
        if !value.is_empty() {
            self.value(&format!("cs{number}Label"), label);
            self.value(&format!("cs{number}"), value);
        }
    }

    fn end(mut self) -> String {
        self.0.push('\n');
        self.0
    }
}

/// A field of the syslog header: visible ASCII, or `-`.
fn token(text: &str) -> String {
    let token: String = text.chars().filter(char::is_ascii_graphic).take(255).collect();
    if token.is_empty() { "-".to_owned() } else { token }
}

/// A field of the CEF header.
fn header(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('\\', "\\\\").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_stay_in_their_place() {
        let mut line = Line::begin(6, "-", "a b\n<13>", "id|x", "p|q 1\\2", 1, "n|\n|10|");
        line.value("reason", "a=b cs1=forged\nCEF:0|x \\");
        line.value("empty", "");
        expect_test::expect![[r#"
            <110>1 - ab<13> hospes - id|x - CEF:0|Hospes|p\|q|1\\2|id\|x|n\| \|10\||1|reason=a\=b cs1\=forged\nCEF:0|x \\
        "#]]
        .assert_eq(&line.end());
    }
}
