//! "Who used my patients' data": for each dataset, who asked, who approved, and what left.

use std::io::Write;

use hospes_protocol::id::ApprovalId;

use super::article30::purposes;
use super::html::Page;
use super::summary::study;
use super::uses::{Approved, Registered, Uses};
use super::{Head, Log, ReportError, plain, spoken};

pub(super) fn write(log: &mut Log<'_>, head: &Head<'_>, out: &mut dyn Write) -> Result<(), ReportError> {
    let uses = Uses::gather(log, head)?;
    let mut page = Page::begin(out, "Who used the patients' data", head)?;
    page.text(
        "For each dataset that the log names: the studies that were approved for it and what left under each approval. \
         Rows of patients never leave; what leaves is computed from them.",
    )?;
    if uses.datasets.is_empty() {
        page.text("No dataset was registered in this range.")?;
    }
    let of = |id: &ApprovalId, approved: &Approved| uses.dataset_of(*id, approved, head);
    for (dataset, registered) in &uses.datasets {
        let name = head.words.dataset(dataset).map(|name| format!("{name} ")).unwrap_or_default();
        page.section(&format!("Dataset {name}{}", plain(dataset)))?;
        history(&mut page, registered)?;
        let is_of = |id: &ApprovalId, a: &Approved| of(id, a).as_ref() == Some(dataset) || a.read.contains_key(dataset);
        let approvals = uses.approvals.iter().filter(|(id, a)| is_of(id, a));
        table(&mut page, Some(dataset), approvals, head)?;
    }
    let mut unnamed = uses.approvals.iter().filter(|(id, a)| of(id, a).is_none()).peekable();
    if unnamed.peek().is_some() {
        page.section("Approvals whose dataset the log does not name")?;
        page.text(
            "Their entries were made by an earlier version, or erased. The approval's document names the dataset.",
        )?;
        table(&mut page, None, unnamed, head)?;
    }
    if uses.other.sent + uses.other.perhaps.0 > 0 {
        page.section("What left under no approval that this log has")?;
        page.text(&uses.other.words())?;
    }
    Ok(page.end(head)?)
}

fn history(page: &mut Page<'_>, registered: &Registered) -> Result<(), ReportError> {
    page.table("The dataset itself", &["Entry", "When", "Who", "What", "Detail"])?;
    for step in &registered.steps {
        page.row(&[
            step.entry.to_string(),
            step.when.clone(),
            step.who.clone(),
            spoken(step.action.as_str()),
            step.reason.clone(),
        ])?;
    }
    Ok(page.end_table()?)
}

fn table<'u>(
    page: &mut Page<'_>,
    dataset: Option<&String>,
    approvals: impl Iterator<Item = (&'u ApprovalId, &'u Approved)>,
    head: &Head<'_>,
) -> Result<(), ReportError> {
    page.table(
        "Who used it",
        &[
            "Study",
            "Purpose",
            "Approval",
            "State",
            "Signed by",
            "Rounds permitted",
            "What left",
            "To whom",
            "Protection",
        ],
    )?;
    for (id, approved) in approvals {
        let asked = approved.study.map(|s| study(s, head)).unwrap_or_default();
        let terms = approved.study.and_then(|s| head.words.study(s)).map(|s| purposes(&s.terms));
        // Rounds under an approval of a series are told apart by version; what left of them is not.
        let (permits, left) = match dataset.filter(|_| approved.read_several()) {
            Some(dataset) => {
                let rounds = approved.read.get(dataset).copied().unwrap_or_default();
                let left = format!("{}; of all versions that were read", approved.left.words());
                (format!("{rounds} of {}", approved.permits), left)
            }
            None => (approved.permits.to_string(), approved.left.words()),
        };
        let to: Vec<String> = approved.left.to.iter().map(|to| head.words.receiver(to)).collect();
        page.row(&[
            asked,
            terms.unwrap_or_else(|| "in the study's document; give the annex".to_owned()),
            id.to_string(),
            approved.state(),
            approved.signers(),
            permits,
            left,
            to.join("; "),
            approved.left.protection.iter().cloned().collect::<Vec<_>>().join("; "),
        ])?;
    }
    Ok(page.end_table()?)
}
