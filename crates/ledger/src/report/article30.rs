//! Record of processing activities (Art. 30 GDPR), one section for each federation.
//!
//! It states what the log and the documents that it has by digest say. What nobody stated reads *not stated*: the record
//! is the controller's, who completes it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use hospes_protocol::id::{SiteId, StudyId};
use hospes_protocol::study::Terms;

use super::html::Page;
use super::uses::{Approved, Uses};
use super::{Head, Log, ReportError, plain};

pub(super) fn write(log: &mut Log<'_>, head: &Head<'_>, out: &mut dyn Write) -> Result<(), ReportError> {
    let uses = Uses::gather(log, head)?;
    let mut page = Page::begin(out, "Record of processing activities (Art. 30 GDPR)", head)?;
    page.text(
        "Made from the audit log: what this site's people approved, and what left. Fields that neither the log nor the \
         studies' documents state read 'not stated'; the controller completes them.",
    )?;
    let mut federations: BTreeMap<Option<SiteId>, BTreeSet<StudyId>> = BTreeMap::new();
    for approved in uses.approvals.values() {
        if let Some(study) = approved.study {
            let federation = uses.studies.get(&study).and_then(|asked| asked.federation);
            federations.entry(federation).or_default().insert(study);
        }
    }
    if federations.is_empty() {
        page.text("No study was approved in this range: there is no processing to record.")?;
    }
    for (federation, studies) in &federations {
        let name = federation.map_or_else(
            || "Federation not in the log any more".to_owned(),
            |id| format!("Federation {}", head.words.receiver(&id.to_string())),
        );
        page.section(&name)?;
        for study in studies {
            activity(&mut page, *study, &uses, head)?;
        }
    }
    Ok(page.end(head)?)
}

fn activity(page: &mut Page<'_>, id: StudyId, uses: &Uses, head: &Head<'_>) -> Result<(), ReportError> {
    let study = head.words.study(id);
    let terms = study.map(|s| &s.terms);
    let text = |of: fn(&Terms) -> &Option<String>| terms.and_then(|t| of(t).as_deref()).map(plain).unwrap_or_default();
    let approvals: Vec<_> = uses.approvals.iter().filter(|(_, a)| a.study == Some(id)).collect();
    page.part(&terms.map_or_else(|| format!("Study {id}"), |t| plain(&t.title)))?;
    page.facts(&[
        ("(a) Controllers and contacts", controllers(terms)),
        ("(a) Who asked", terms.map(requester).unwrap_or_default()),
        ("(b) Purposes", terms.map(purposes).unwrap_or_default()),
        ("Legal basis, Art. 6 GDPR", text(|t| &t.gdpr_article_6)),
        ("Exception, Art. 9 GDPR", text(|t| &t.gdpr_article_9)),
        ("Impact assessment", text(|t| &t.impact_assessment)),
        ("Agreement", text(|t| &t.agreement)),
        ("Ethics decision", text(|t| &t.ethics)),
        ("EHDS permit", text(|t| &t.ehds_permit)),
        ("(c) Data subjects and data", scope(&approvals, uses, head)),
        ("(d) Recipients", recipients(terms, &approvals, head)),
        ("(e) Operator and hosting country", text(|t| &t.operator)),
        ("(e) Safeguard of a transfer", text(|t| &t.transfer_safeguard)),
        ("(f) Time limits for erasure", text(|t| &t.retention)),
        ("(g) Security measures", measures(&approvals, head)),
        (
            "Document",
            study.map_or_else(
                || format!("study {id}; its document is not in the annex"),
                |s| format!("study {id}, sha256:{}, the digest that the log has", s.digest()),
            ),
        ),
    ])?;
    page.table(
        "Approvals and what left under each",
        &["Approval", "State", "Signed by", "Rounds permitted", "What left"],
    )?;
    for (approval, approved) in approvals {
        page.row(&[
            approval.to_string(),
            approved.state(),
            approved.signers(),
            approved.permits.to_string(),
            approved.left.words(),
        ])?;
    }
    Ok(page.end_table()?)
}

fn controllers(terms: Option<&Terms>) -> String {
    let list = terms.map(|t| t.controllers.as_slice()).unwrap_or_default();
    let list = list.iter().map(|c| format!("{} ({}): {}", plain(&c.organisation), plain(&c.role), plain(&c.contact)));
    list.collect::<Vec<_>>().join("; ")
}

fn requester(terms: &Terms) -> String {
    format!("{}, {}", plain(&terms.requester.name), plain(&terms.requester.organisation))
}

/// Purposes in words, with the codes that state them.
pub(super) fn purposes(terms: &Terms) -> String {
    let mut words = plain(&terms.purpose);
    let codes = terms.duo.iter().chain(&terms.disease).chain(&terms.purpose_of_use).map(|code| plain(code));
    let codes: Vec<String> = codes.collect();
    if !codes.is_empty() {
        words.push_str(&format!(" [{}]", codes.join(", ")));
    }
    words
}

type Approvals<'u> = [(&'u hospes_protocol::id::ApprovalId, &'u Approved)];

fn scope(approvals: &Approvals<'_>, uses: &Uses, head: &Head<'_>) -> String {
    let mut words = BTreeSet::new();
    for (id, approved) in approvals {
        if let Some(document) = head.words.approval(**id) {
            let scope = &document.envelope.data;
            let columns: Vec<String> = scope.columns.iter().map(|c| plain(c)).collect();
            let later = scope
                .series
                .as_ref()
                .map(|series| format!(", later versions with {} to {} too", series.min_subjects, series.max_subjects));
            words.insert(format!(
                "patients of the dataset {} ({} subjects when it was approved{}): {}",
                plain(&scope.dataset),
                scope.subjects,
                later.unwrap_or_default(),
                columns.join(", ")
            ));
        } else if let Some(dataset) = uses.dataset_of(**id, approved, head) {
            let name = head.words.dataset(&dataset).unwrap_or_else(|| plain(&dataset));
            words.insert(format!("patients of the dataset {name}"));
        }
    }
    words.into_iter().collect::<Vec<_>>().join("; ")
}

fn recipients(terms: Option<&Terms>, approvals: &Approvals<'_>, head: &Head<'_>) -> String {
    let stated = terms.map(|t| t.recipients.as_slice()).unwrap_or_default();
    let mut words: Vec<String> = stated.iter().map(|r| plain(r)).collect();
    let sent: BTreeSet<&String> = approvals.iter().flat_map(|(_, approved)| &approved.left.to).collect();
    words.extend(sent.into_iter().map(|to| format!("updates and figures went to {}", head.words.receiver(to))));
    words.join("; ")
}

fn measures(approvals: &Approvals<'_>, head: &Head<'_>) -> String {
    let mut words: BTreeSet<String> = BTreeSet::new();
    words.insert(
        "rows stay at the site; each round needs a permit from the signed approval; all of it is logged".into(),
    );
    for (id, approved) in approvals {
        words.extend(approved.left.protection.iter().map(|p| format!("of what left: {p}")));
        if let Some(document) = head.words.approval(**id) {
            let privacy = &document.envelope.privacy;
            let masked = if privacy.secure_aggregation { "secure aggregation" } else { "no secure aggregation" };
            words.insert(masked.to_owned());
            words.extend(privacy.unprotected.iter().map(|part| format!("without protection: {}", plain(part))));
        }
    }
    words.into_iter().collect::<Vec<_>>().join("; ")
}
