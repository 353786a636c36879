//! The report for people: state of the log, who approved what, what left, what went wrong.

use std::collections::BTreeMap;
use std::io::Write;

use hospes_protocol::id::{Digest, StudyId};
use hospes_protocol::text::in_bytes;

use super::html::Page;
use super::{Head, Log, ReportError, field, plain, spoken, when, who};
use crate::entry::{Action, ObjectKind};
use crate::leaf::{Field, Record};

/// What people decide about studies.
const DECISIONS: &[Action] = &[
    Action::RequestReceived,
    Action::OpinionGiven,
    Action::ApprovalSigned,
    Action::ApprovalCountersigned,
    Action::RequestRefused,
    Action::ApprovalSuspended,
    Action::ApprovalResumed,
    Action::ApprovalRevoked,
    Action::ApprovalExpired,
    Action::ApprovalSuperseded,
    Action::StudyWithdrawn,
    Action::ResultsReleased,
];

/// How something leaves, or does not after all.
const LEAVING: &[Action] = &[
    Action::UpdatePrepared,
    Action::UpdateLeaving,
    Action::UpdateSent,
    Action::UpdateWithdrawn,
    Action::ModelExported,
    Action::AuditExported,
    Action::BackupMade,
];

/// What an auditor asks about first.
const INCIDENTS: &[Action] = &[
    Action::LoginFailed,
    Action::RoleRefused,
    Action::PeerRefused,
    Action::PeerRevoked,
    Action::WitnessFailed,
    Action::WitnessLate,
    Action::BreakGlass,
    Action::BreakGlassEnded,
    Action::ClockAnomaly,
    Action::AuditErased,
    Action::BackupRestored,
    Action::PolicyChanged,
    Action::KeyReplaced,
    Action::RolesChanged,
    Action::OptOutsChanged,
];

/// Most payloads that are on their way at one time of which more than their entry is kept in mind.
const OPEN: usize = 100_000;

pub(super) fn write(log: &mut Log<'_>, head: &Head<'_>, out: &mut dyn Write) -> Result<(), ReportError> {
    let mut page = Page::begin(out, "Audit report", head)?;
    state(&mut page, log, head)?;
    page.section("Who approved what, when, for which purpose")?;
    page.table("Requests and decisions", &["Entry", "When", "Who", "What", "Study and purpose", "Data", "Outcome"])?;
    log.each(&mut |proven| match proven.record.action {
        Some(action) if DECISIONS.contains(&action) => page.row(&decision(&proven.record, action, head)),
        _ => Ok(()),
    })?;
    page.end_table()?;
    left(&mut page, log, head)?;
    page.section("Refusals, failures and changes of the rules")?;
    page.table("Incidents", &["Entry", "When", "Who", "What", "About", "Outcome"])?;
    log.each(&mut |proven| {
        let record = &proven.record;
        let failed = record.outcome.is_some_and(|outcome| outcome != crate::Outcome::Success);
        let listed = record.action.is_some_and(|action| INCIDENTS.contains(&action));
        // A decision or a payload that failed stands in its own table.
        let elsewhere = record.action.is_some_and(|action| DECISIONS.contains(&action) || LEAVING.contains(&action));
        if listed || failed && !elsewhere { page.row(&incident(record, head)) } else { Ok(()) }
    })?;
    page.end_table()?;
    page.section("All entries by what was done")?;
    page.table("Numbers of entries", &["What", "Entries"])?;
    for (action, count) in &head.counts {
        let name = action.map_or_else(|| "erased under a rule of retention".to_owned(), |a| spoken(a.as_str()));
        page.row(&[name, count.to_string()])?;
    }
    page.end_table()?;
    Ok(page.end(head)?)
}

/// State of the chain, and who vouches for it.
fn state(page: &mut Page<'_>, log: &Log<'_>, head: &Head<'_>) -> Result<(), ReportError> {
    let report = &head.report;
    page.section("State of the log")?;
    match head.doubt() {
        None => page.text(&format!(
            "The log is whole: each of its {} entries is proven by the signed checkpoint, none is missing, none was changed.",
            report.entries
        ))?,
        Some(words) => page.text(&format!(
            "IN DOUBT: {words}. None of the {} entries is missing, and what is left of each is proven by the signed \
             checkpoint.",
            report.entries
        ))?,
    }
    if let Some(words) = report.erased_words() {
        page.text(&format!("{words}. Their proofs hold; what was erased reads 'erased under rule …'."))?;
    }
    if log.expected.origins.is_empty() && log.expected.known.is_empty() {
        page.text("NOT CHECKED: whose log it is. No key of the party was given when this report was made.")?;
    }
    let checked = !log.expected.members.is_empty();
    page.table(
        "Witnesses: who cosigned that the log only grew",
        &["Witness", "Member", "Cosignatures", "Entries covered by the last", "Time of the last"],
    )?;
    for witness in &report.witnesses {
        let name = head.words.site(witness.witness).map(|name| format!("{name} ")).unwrap_or_default();
        let member = match (checked, witness.member) {
            (false, _) => "not checked",
            (true, true) => "yes",
            (true, false) => "no: nobody knows who holds its key",
        };
        page.row(&[
            format!("{name}{}", witness.witness),
            member.to_owned(),
            witness.cosignatures.to_string(),
            witness.last_size.to_string(),
            witness.last_at.to_string(),
        ])?;
    }
    page.end_table()?;
    if checked && log.expected.members.len() <= 2 {
        page.text("With one or two members it cannot be excluded that somebody was shown another log: a fork.")?;
    }
    if checked {
        page.facts(&[
            ("Independent witnesses", report.independent_witnesses().to_string()),
            ("Longest time without one", format!("{} s", report.longest_unwitnessed_ms / 1_000)),
            ("Entries not witnessed yet", report.unwitnessed_entries.to_string()),
            ("Checkpoints seen elsewhere", format!("{}, all contained in the log", report.known_found)),
        ])?;
    }
    Ok(())
}

fn decision(record: &Record, action: Action, head: &Head<'_>) -> [String; 7] {
    [
        record.sequence.to_string(),
        when(record),
        who(record, &head.words),
        spoken(action.as_str()),
        purpose(record, head),
        data(record, head),
        outcome(record),
    ]
}

/// Study and purpose, in the words of its document where the log has that document's digest.
fn purpose(record: &Record, head: &Head<'_>) -> String {
    let Some(id) = record.purpose.study else {
        return field(record, Field::Purpose, None);
    };
    let mut words = study(id, head);
    if let Some(approval) = record.purpose.approval {
        words.push_str(&format!("; approval {approval}"));
    }
    words
}

/// A study in words.
pub(super) fn study(id: StudyId, head: &Head<'_>) -> String {
    match head.words.study(id) {
        Some(study) => {
            let terms = &study.terms;
            format!(
                "{}: {} (asked by {}, {}; study {id}, document sha256:{})",
                plain(&terms.title),
                plain(&terms.purpose),
                plain(&terms.requester.name),
                plain(&terms.requester.organisation),
                study.digest()
            )
        }
        None => format!("study {id}"),
    }
}

fn data(record: &Record, head: &Head<'_>) -> String {
    let named = record.objects.iter().filter(|o| o.kind == ObjectKind::Dataset);
    let mut words: Vec<String> = named
        .map(|o| match head.words.dataset(&o.id) {
            Some(name) => format!("{name} ({})", plain(&o.id)),
            None => plain(&o.id),
        })
        .collect();
    if let Some(approval) = record.purpose.approval.and_then(|id| head.words.approval(id)) {
        let scope = &approval.envelope.data;
        words.push(format!(
            "{}: {} of {} columns, {} subjects when it was approved",
            plain(&scope.dataset),
            scope.columns.len(),
            scope.columns_available,
            scope.subjects
        ));
    }
    if words.is_empty() { field(record, Field::Objects, None) } else { words.join("; ") }
}

/// How it ended, and why.
fn outcome(record: &Record) -> String {
    let outcome = field(record, Field::Outcome, record.outcome.map(|o| o.as_str().to_owned()));
    let reason = field(record, Field::Reason, record.reason.as_deref().map(plain));
    if reason.is_empty() { outcome } else { format!("{outcome}: {reason}") }
}

fn incident(record: &Record, head: &Head<'_>) -> [String; 6] {
    let objects: Vec<String> =
        record.objects.iter().map(|o| format!("{} {}", spoken(o.kind.as_str()), plain(&o.id))).collect();
    let objects = (!objects.is_empty()).then(|| objects.join("; "));
    [
        record.sequence.to_string(),
        when(record),
        who(record, &head.words),
        field(record, Field::Action, record.action.map(|a| spoken(a.as_str()))),
        field(record, Field::Objects, objects),
        outcome(record),
    ]
}

/// A payload between its making and its end.
struct Open {
    protection: String,
    prepared: u64,
    /// Entry with which it was let go.
    let_go: Option<u64>,
    to: String,
    bytes: u64,
}

/// What left, when, to whom, how many bytes, with which protection.
fn left(page: &mut Page<'_>, log: &mut Log<'_>, head: &Head<'_>) -> Result<(), ReportError> {
    page.section("What left, when, to whom, with which protection")?;
    page.text(
        "An update or figures computed from patients' rows leave only after their entry was written. 'Sent' is confirmed by \
         a receipt; what was let go without one may have arrived.",
    )?;
    let columns =
        ["Entry", "When", "What", "To whom", "Bytes", "Protection", "Study and purpose", "SHA-256", "Outcome"];
    page.table("Everything that left", &columns)?;
    let mut open: BTreeMap<Digest, Open> = BTreeMap::new();
    let (mut sent, mut bytes) = (0u64, 0u64);
    let (mut perhaps, mut perhaps_bytes) = (0u64, 0u64);
    log.each(&mut |proven| {
        let record = &proven.record;
        let Some(action) = record.action.filter(|action| LEAVING.contains(action)) else { return Ok(()) };
        let payload = record.objects.iter().find(|o| matches!(o.kind, ObjectKind::Update | ObjectKind::Figures));
        let digest = record.egress.as_ref().map(|e| e.digest).or(payload.and_then(|o| o.digest));
        match (action, digest) {
            (Action::UpdatePrepared, Some(digest)) => {
                if let Some(egress) = &record.egress
                    && open.len() < OPEN
                {
                    let protection = field(record, Field::Reason, record.reason.as_deref().map(plain));
                    let made = Open {
                        protection,
                        prepared: record.sequence,
                        let_go: None,
                        to: egress.to.clone(),
                        bytes: egress.bytes,
                    };
                    open.insert(digest, made);
                }
                return Ok(());
            }
            (Action::UpdateLeaving, Some(digest)) => {
                if let Some(open) = open.get_mut(&digest) {
                    open.let_go.get_or_insert(record.sequence);
                }
                return Ok(());
            }
            _ => {}
        }
        let made = digest.and_then(|digest| open.remove(&digest));
        if action == Action::UpdateWithdrawn && record.egress.is_none() && record.erased_words(Field::Egress).is_none()
        {
            // It was never let go.
            return Ok(());
        }
        if let Some(egress) = &record.egress {
            if action == Action::UpdateWithdrawn {
                (perhaps, perhaps_bytes) = (perhaps + 1, perhaps_bytes.saturating_add(egress.bytes));
            } else {
                (sent, bytes) = (sent + 1, bytes.saturating_add(egress.bytes));
            }
        }
        page.row(&departure(record, action, made.as_ref(), head))
    })?;
    for (digest, open) in open {
        let Some(let_go) = open.let_go else { continue };
        (perhaps, perhaps_bytes) = (perhaps + 1, perhaps_bytes.saturating_add(open.bytes));
        page.row(&[
            let_go.to_string(),
            String::new(),
            format!("made with entry {}, on its way when the log was exported", open.prepared),
            head.words.receiver(&open.to),
            open.bytes.to_string(),
            open.protection,
            String::new(),
            digest.to_string(),
            "let go, no receipt yet".to_owned(),
        ])?;
    }
    page.end_table()?;
    page.facts(&[
        ("Left in all", format!("{sent} times, {}", in_bytes(bytes))),
        ("May have left besides", format!("{perhaps} times, {}: let go without a receipt", in_bytes(perhaps_bytes))),
    ])?;
    Ok(())
}

fn departure(record: &Record, action: Action, made: Option<&Open>, head: &Head<'_>) -> [String; 9] {
    let egress = record.egress.as_ref();
    let erased = |value: Option<String>| field(record, Field::Egress, value);
    let payload = record
        .objects
        .iter()
        .find(|o| matches!(o.kind, ObjectKind::Update | ObjectKind::Figures | ObjectKind::Model | ObjectKind::Export));
    let what = match payload {
        Some(object) if object.kind == ObjectKind::Export => format!("the audit log as {}", plain(&object.id)),
        Some(object) => spoken(object.kind.as_str()),
        None => spoken(action.as_str()),
    };
    let digest = egress.map(|e| e.digest).or(payload.and_then(|o| o.digest));
    [
        record.sequence.to_string(),
        when(record),
        what,
        match (action, egress) {
            (Action::AuditExported | Action::BackupMade, None) => "a file at this site".to_owned(),
            // Whoever asked for it got it.
            (Action::ModelExported, None) => who(record, &head.words),
            (_, egress) => erased(egress.map(|e| head.words.receiver(&e.to))),
        },
        erased(egress.map(|e| e.bytes.to_string())),
        made.map(|made| made.protection.clone()).unwrap_or_default(),
        purpose(record, head),
        erased(digest.map(|d| d.to_string())),
        outcome(record),
    ]
}
