//! Reports: what people and other systems read, made from a verified native export.
//!
//! Every report is a function of a native export ([`crate::export`]), of what the auditor knows from elsewhere
//! ([`Expectations`]) and of an [`Annex`]: the same three give the same bytes, at the site that wrote the log as on an
//! auditor's machine without it. Nothing is made of a log that is not intact. A report proves nothing by itself, and
//! says so: it names the log, the range and the checkpoint of the export that does.
//!
//! The export is read more than once, entry by entry, each time verified anew. Memory depends on the number of decisions
//! that people took, not on that of entries.

mod annex;
mod article30;
mod cef;
mod codes;
mod data_use;
mod fhir;
mod html;
mod permission;
mod summary;
mod table;
mod uses;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Seek, Write};
use std::str::FromStr;

use hospes_protocol::id::Timestamp;
use hospes_protocol::text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use annex::Annex;
use annex::Words;

use crate::entry::{Actor, names};
use crate::leaf::{Field, Record};
use crate::verify::{Expectations, Finding, Proven, Report, read};

names! {
    /// A form in which the log leaves its database.
    #[ts(rename = "AuditFormat")]
    Format: "form of the audit log" {
        /// JSON Lines with proofs: the native export, which all others are made of.
        JsonLines = "jsonl",
        /// Names and documents that the log refers to by pseudonym, id or digest.
        Annex = "annex",
        /// A table for spreadsheets (RFC 4180).
        Csv = "csv",
        /// A report for people, to be printed.
        Html = "html",
        /// FHIR AuditEvent R4B, NDJSON.
        FhirR4b = "fhir-r4b",
        /// FHIR AuditEvent R5, NDJSON.
        FhirR5 = "fhir-r5",
        /// FHIR R5 Permission for each of the site's decisions, NDJSON.
        FhirPermission = "fhir-permission",
        /// Lines for a SIEM: RFC 5424 with a CEF message.
        Cef = "cef",
        /// A record of processing activities under Art. 30 GDPR for each federation.
        Article30 = "art30",
        /// Who used the patients' data: one section for each dataset.
        DataUse = "data-use",
    }
}

impl Format {
    /// Usual end of a file's name.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::Annex => "json",
            Self::Csv => "csv",
            Self::Html | Self::Article30 | Self::DataUse => "html",
            Self::FhirR4b | Self::FhirR5 | Self::FhirPermission => "ndjson",
            Self::Cef => "log",
        }
    }
}

/// Why there is no report. What was written until then is worth nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Reading the export or writing the report failed.
    #[error("the log could not be read, or the report not be written")]
    Io(#[from] io::Error),
    /// The export is not intact.
    #[error("the log is not intact, and nothing was made of it: {0}")]
    NotIntact(Finding),
    /// The export is not the same any more.
    #[error("the file of the log was changed while it was read; nothing was made of it")]
    Changed,
    /// More decisions than any site's people take.
    #[error("the log has more than {most} {what}, which is more than a report can hold")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Most that are read.
        most: usize,
    },
}

/// Makes a report of a native export.
///
/// # Errors
/// [`ReportError`].
pub fn write<R: BufRead + Seek>(
    format: Format,
    export: &mut R,
    expected: &Expectations,
    annex: &Annex,
    out: &mut dyn Write,
) -> Result<Report, ReportError> {
    let mut log = Log { source: export, expected, report: Report::default() };
    let head = Head::read(&mut log, annex)?;
    match format {
        Format::JsonLines => {
            log.source.rewind()?;
            io::copy(&mut log.source, out)?;
        }
        Format::Annex => annex.write(&head, out)?,
        Format::Csv => table::write(&mut log, &head, out)?,
        Format::Html => summary::write(&mut log, &head, out)?,
        Format::FhirR4b => fhir::write(&mut log, &head, fhir::Version::R4b, out)?,
        Format::FhirR5 => fhir::write(&mut log, &head, fhir::Version::R5, out)?,
        Format::FhirPermission => permission::write(&mut log, &head, out)?,
        Format::Cef => cef::write(&mut log, &head, out)?,
        Format::Article30 => article30::write(&mut log, &head, out)?,
        Format::DataUse => data_use::write(&mut log, &head, out)?,
    }
    out.flush()?;
    Ok(log.report)
}

/// A file that can be read again.
trait Source: BufRead + Seek {}
impl<R: BufRead + Seek> Source for R {}

/// The export.
struct Log<'s> {
    source: &'s mut dyn Source,
    expected: &'s Expectations,
    report: Report,
}

impl Log<'_> {
    /// Shows each entry, and says what the whole is like.
    fn pass(&mut self, visit: &mut dyn FnMut(Proven) -> io::Result<()>) -> Result<Report, ReportError> {
        self.source.rewind()?;
        let report = read(&mut self.source, self.expected, visit)?;
        match report.finding {
            Some(finding) => Err(ReportError::NotIntact(finding)),
            None => Ok(report),
        }
    }

    /// Shows each entry once more.
    fn each(&mut self, visit: &mut dyn FnMut(Proven) -> io::Result<()>) -> Result<(), ReportError> {
        let again = self.pass(visit)?;
        if again == self.report { Ok(()) } else { Err(ReportError::Changed) }
    }
}

/// What every report says of its log.
struct Head<'a> {
    report: Report,
    /// Time of the first and the last entry that have one.
    times: Option<(Timestamp, Timestamp)>,
    /// Entries of each action; `None` counts those whose action was erased.
    counts: BTreeMap<Option<crate::Action>, u64>,
    words: Words<'a>,
}

impl<'a> Head<'a> {
    fn read(log: &mut Log<'_>, annex: &'a Annex) -> Result<Self, ReportError> {
        let mut times: Option<(Timestamp, Timestamp)> = None;
        let mut counts = BTreeMap::new();
        let mut words = Words::new(annex);
        let report = log.pass(&mut |proven| {
            if let Some(when) = proven.record.when {
                times = Some((times.map_or(when.at, |(first, _)| first), when.at));
            }
            *counts.entry(proven.record.action).or_insert(0) += 1;
            words.meet(&proven.record);
            Ok(())
        })?;
        report.origin.into_iter().for_each(|origin| words.name(origin.to_string()));
        log.report = report.clone();
        Ok(Self { report, times, counts, words })
    }

    fn origin(&self) -> String {
        self.report.origin.map(|o| o.to_string()).unwrap_or_default()
    }

    fn root(&self) -> String {
        self.report.root.map(|r| r.to_string()).unwrap_or_default()
    }

    fn made(&self) -> Timestamp {
        self.report.made.unwrap_or(Timestamp::from_millis(0))
    }

    /// Why what was erased may not have been, by the file's own time: a report goes by no clock, so that it is the same
    /// whenever it is made.
    fn doubt(&self) -> Option<String> {
        self.report.doubt(self.made())
    }

    /// Which entries are in it.
    fn range(&self) -> String {
        let entries = match self.report.size {
            0 => "no entries".to_owned(),
            size => format!("entries 0 to {} (all {size})", size - 1),
        };
        match self.times {
            Some((first, last)) => format!("{entries}, from {first} to {last}"),
            None => entries,
        }
    }

    /// One line that tells what this was made of and how it is verified.
    fn line(&self) -> String {
        let doubt = self.doubt().map(|words| format!("IN DOUBT: {words}. ")).unwrap_or_default();
        format!(
            "Audit log of {}: {}; checkpoint of {} entries with root sha256:{}, made {}. {doubt}{}",
            self.origin(),
            self.range(),
            self.report.size,
            self.root(),
            self.made(),
            self.how()
        )
    }

    /// How to verify.
    fn how(&self) -> &'static str {
        "This file proves nothing by itself. Ask for the JSON Lines export with the same checkpoint, verify it with \
         'hospesctl audit verify FILE --origin KEY --member KEY --checkpoint SEEN', and make this file from it again with \
         'hospesctl audit convert': the bytes are the same"
    }
}

/// Text from outside on one line; characters that hide or reorder are shown as their numbers.
fn plain(text: &str) -> String {
    text::shown(&text.replace(['\n', '\t'], " "), crate::limits::REASON_CHARS)
}

/// A name of this program's own for people: `approval_signed` as *approval signed*.
fn spoken(name: &str) -> String {
    name.replace('_', " ")
}

/// What an entry has in a field, in words; *erased under rule X* where it has nothing any more.
fn field(record: &Record, field: Field, value: Option<String>) -> String {
    value.or_else(|| record.erased_words(field)).unwrap_or_default()
}

/// Who acted, and in which role.
fn who(record: &Record, words: &Words<'_>) -> String {
    let acted = record.actor.as_ref().map(|actor| words.actor(actor));
    let mut who = field(record, Field::Actor, acted);
    if let Some(behalf) = &record.on_behalf {
        who.push_str(&format!(", for {}", words.actor(behalf)));
    } else if let Some(erased) = record.erased_words(Field::OnBehalf) {
        who.push_str(&format!(", for somebody {erased}"));
    }
    who
}

/// When, in words.
fn when(record: &Record) -> String {
    field(record, Field::When, record.when.map(|w| w.at.to_string()))
}

/// Id of who acted, as the log has it.
fn actor_id(record: &Record) -> String {
    field(record, Field::Actor, record.actor.as_ref().map(Actor::id))
}
