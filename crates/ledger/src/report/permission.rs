//! FHIR R5 `Permission`: one for each approval that people of this site signed, and for each request that they refused.
//!
//! A `Permission` says what is allowed now; the audit events say how it came to that.

use std::io::Write;

use hospes_protocol::id::{ApprovalId, StudyId};
use serde_json::{Map, Value, json};

use super::codes;
use super::fhir::{BASE, by_digest, is_code, line, naming, reference};
use super::uses::{Approved, Asked, Uses};
use super::{Head, Log, ReportError, plain};
use crate::entry::Action;

pub(super) fn write(log: &mut Log<'_>, head: &Head<'_>, out: &mut dyn Write) -> Result<(), ReportError> {
    let uses = Uses::gather(log, head)?;
    for (id, approved) in &uses.approvals {
        line(out, &approval(*id, approved, &uses, head))?;
    }
    for (study, asked) in &uses.studies {
        let refused = asked.steps.iter().any(|step| step.action == Action::RequestRefused);
        if refused && !uses.approvals.values().any(|a| a.study == Some(*study)) {
            line(out, &refusal(*study, asked, head))?;
        }
    }
    Ok(())
}

fn approval(id: ApprovalId, approved: &Approved, uses: &Uses, head: &Head<'_>) -> Value {
    let document = head.words.approval(id);
    // Over is over in two ways: taken back, or run out. What has run out was given, until then.
    let ran_out =
        |step: &&super::uses::Step| matches!(step.action, Action::ApprovalExpired | Action::ApprovalSuperseded);
    let status = match approved.ended() {
        Some(step) if ran_out(&step) => "active",
        Some(_) => "rejected",
        None if approved.suspended() => "rejected",
        None if approved.holds() => "active",
        None => "draft",
    };
    let mut permission = begin(&id.to_string(), status, head);
    let dates: Vec<String> = approved.signatures().filter_map(|step| step.at).map(|at| at.to_string()).collect();
    if !dates.is_empty() {
        permission.insert("date".into(), dates.into());
    }
    let mut validity = Map::new();
    let start = document.map(|d| d.envelope.limits.not_before).or(approved.signatures().last().and_then(|s| s.at));
    let end = approved.ended().and_then(|s| s.at).or(document.map(|d| d.envelope.limits.expires));
    for (name, time) in [("start", start), ("end", end)] {
        if let Some(time) = time {
            validity.insert(name.into(), time.to_string().into());
        }
    }
    if !validity.is_empty() {
        permission.insert("validity".into(), validity.into());
    }
    let mut evidence: Vec<Value> = Vec::new();
    evidence.extend(approved.digest.map(|d| by_digest(&d, Some("the signed approval".into()))));
    let study = approved.study.and_then(|study| uses.studies.get(&study));
    evidence.extend(study.and_then(|s| s.digest).map(|d| by_digest(&d, Some("the study as it was offered".into()))));
    let mut basis = Vec::new();
    if let Some(document) = document {
        let terms = &document.envelope.terms;
        let stated = [("Art. 6 GDPR", &terms.gdpr_article_6), ("Art. 9 GDPR", &terms.gdpr_article_9)];
        basis.extend(stated.iter().filter_map(|(article, text)| {
            text.as_deref().map(|text| json!({ "text": format!("{article}: {}", plain(text)) }))
        }));
    }
    justification(&mut permission, basis, evidence);
    permission.insert("combining".into(), "deny-unless-permit".into());
    permission.insert("rule".into(), json!([rule(id, approved, uses, head)]));
    let state = format!("Approval {id}: {}. Signed by {}.", approved.state(), approved.signers());
    narrate(&mut permission, &state, head);
    Value::Object(permission)
}

fn rule(id: ApprovalId, approved: &Approved, uses: &Uses, head: &Head<'_>) -> Value {
    let document = head.words.approval(id);
    let mut rule = Map::new();
    rule.insert("type".into(), "permit".into());
    let snapshot = approved.snapshot.or(document.map(|d| d.envelope.data.snapshot));
    let dataset = uses.dataset_of(id, approved, head);
    let name = dataset.as_deref().map(|d| head.words.dataset(d).unwrap_or_else(|| plain(d)));
    let data = match (snapshot, dataset) {
        (Some(snapshot), _) => Some(by_digest(&snapshot, name.map(|name| format!("snapshot of the dataset {name}")))),
        (None, Some(dataset)) => Some(reference(None, &naming("dataset"), &plain(&dataset), name)),
        (None, None) => None,
    };
    if let Some(data) = data {
        rule.insert("data".into(), json!([{ "resource": [{ "meaning": "instance", "reference": data }] }]));
    }
    let federation = approved.study.and_then(|s| uses.studies.get(&s)).and_then(|s| s.federation);
    let mut activity = Map::new();
    if let Some(federation) = federation {
        let name = head.words.site(federation);
        let actor = reference(Some("Organization"), &naming("site"), &federation.to_string(), name);
        activity.insert("actor".into(), json!([actor]));
    }
    let action = json!({
        "coding": [{ "system": format!("{BASE}/CodeSystem/permitted-action"), "code": "federated-computation" }],
        "text": "Computation at the site as the approval binds it; what leaves is listed in it, rows of patients never are",
    });
    activity.insert("action".into(), json!([action]));
    let terms = document.map(|d| &d.envelope.terms);
    let terms = terms.or(approved.study.and_then(|s| head.words.study(s)).map(|s| &s.terms));
    if let Some(terms) = terms {
        let mut purpose = Map::new();
        if let Some(code) = terms.purpose_of_use.as_deref().filter(|code| is_code(code)) {
            purpose.insert("coding".into(), json!([{ "system": codes::ACT_REASON, "code": code }]));
        }
        purpose.insert("text".into(), plain(&terms.purpose).into());
        activity.insert("purpose".into(), json!([purpose]));
    }
    rule.insert("activity".into(), json!([activity]));
    if let Some(document) = document {
        let (computation, limits) = (&document.envelope.computation, &document.envelope.limits);
        let data = &document.envelope.data;
        let versions = data.series.as_ref().map(|series| {
            format!(
                "; later versions of the dataset too, with {} to {} subjects",
                series.min_subjects, series.max_subjects
            )
        });
        let text = format!(
            "at most {} runs; columns: {}; a round takes at most {} s{}",
            computation.max_runs,
            data.columns.iter().map(|c| plain(c)).collect::<Vec<_>>().join(", "),
            limits.round_seconds,
            versions.unwrap_or_default()
        );
        rule.insert("limit".into(), json!([{ "text": text }]));
    }
    Value::Object(rule)
}

fn refusal(study: StudyId, asked: &Asked, head: &Head<'_>) -> Value {
    let mut permission = begin(&format!("refused-{study}"), "rejected", head);
    let refused = asked.steps.iter().filter(|step| step.action == Action::RequestRefused);
    let dates: Vec<String> = refused.clone().filter_map(|step| step.at).map(|at| at.to_string()).collect();
    if !dates.is_empty() {
        permission.insert("date".into(), dates.into());
    }
    let evidence: Vec<Value> =
        asked.digest.map(|d| by_digest(&d, Some("the study as it was offered".into()))).into_iter().collect();
    justification(&mut permission, Vec::new(), evidence);
    permission.insert("combining".into(), "deny-unless-permit".into());
    permission.insert("rule".into(), json!([{ "type": "deny" }]));
    let words: Vec<String> = refused.map(|s| format!("{} on {}: {}", s.who, s.when, s.reason)).collect();
    narrate(&mut permission, &format!("Study {study}: refused by {}.", words.join("; ")), head);
    Value::Object(permission)
}

fn begin(id: &str, status: &str, head: &Head<'_>) -> Map<String, Value> {
    let mut permission = Map::new();
    permission.insert("resourceType".into(), "Permission".into());
    permission.insert("id".into(), id.into());
    permission.insert("status".into(), status.into());
    let origin = head.report.origin;
    let name = origin.and_then(|origin| head.words.site(origin));
    permission.insert("asserter".into(), reference(Some("Organization"), &naming("site"), &head.origin(), name));
    permission
}

fn justification(permission: &mut Map<String, Value>, basis: Vec<Value>, evidence: Vec<Value>) {
    let mut justification = Map::new();
    if !basis.is_empty() {
        justification.insert("basis".into(), basis.into());
    }
    if !evidence.is_empty() {
        justification.insert("evidence".into(), evidence.into());
    }
    if !justification.is_empty() {
        permission.insert("justification".into(), justification.into());
    }
}

/// The narrative: what it says in words, of which log it is made, and how to verify.
fn narrate(permission: &mut Map<String, Value>, words: &str, head: &Head<'_>) {
    let text = |t: &str| t.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let div = format!(
        "<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>{}</p><p>{}</p></div>",
        text(words),
        text(&head.line())
    );
    permission.insert("text".into(), json!({ "status": "generated", "div": div }));
}
