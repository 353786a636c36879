//! Which version of a dataset a run reads.
//!
//! Under an approval of a snapshot it is that one. Under one of a series it is the newest version that is there when the
//! run's first round begins here, and the run keeps it: rounds are repeated, opt-outs counted and models compared on the
//! same rows. Whether that version keeps to what was signed, the permit says; what no signature names is asked here.

use hospes_privacy::disclosure::levels_allowed;
use hospes_privacy::duo::Fit;
use hospes_protocol::approval::{Envelope, Refusal, RefusalCode};
use hospes_protocol::id::{DatasetId, Timestamp};
use hospes_protocol::plan::Variable;
use hospes_protocol::policy::Policy;
use hospes_protocol::text::shown;
use sqlx::sqlite::SqliteConnection;

use super::sign::Case;
use super::{Stored, policy, rules};
use crate::datasets::{self, Dataset};
use crate::error::PartyError;
use crate::view::Finding;

/// The dataset of a run under an approval, and what stands against it besides the permit. `kept`: the version with which
/// the run began, if it did.
pub(crate) async fn data_of_run(
    conn: &mut SqliteConnection,
    stored: &Stored,
    kept: Option<DatasetId>,
    now: Timestamp,
) -> Result<(Dataset, Option<Refusal>), PartyError> {
    let envelope = &stored.approval.document.envelope;
    let signed = datasets::by_id(conn, stored.dataset).await?;
    let other = match (kept, &envelope.data.series) {
        (Some(id), _) if id != signed.id => Some(datasets::by_id(conn, id).await?),
        (None, Some(series)) => datasets::newest_of(conn, series.id).await?.filter(|newest| newest.id != signed.id),
        _ => None,
    };
    let against = match &other {
        Some(dataset) => match against_version(envelope, dataset, &signed, now) {
            // A run that began goes on: who opts out meanwhile counts against the fewest subjects alone.
            None if kept.is_none() => against_levels(&policy::current(conn).await?, envelope, dataset),
            against => against,
        },
        None => signed.is_removed.then_some("the data were removed at this site".to_owned()),
    };
    let refusal = against.map(|words| Refusal::new(RefusalCode::Snapshot, words));
    Ok((other.unwrap_or(signed), refusal))
}

/// Why another version than the one that was reviewed is not read, in words that may stand in an exported log. Its terms of use
/// may be others, which nobody compared with the study's, and a steward alone may have kept what the scan would mask.
fn against_version(envelope: &Envelope, version: &Dataset, signed: &Dataset, now: Timestamp) -> Option<String> {
    let number = version.version;
    if version.is_removed {
        return Some(format!(
            "version {number} of the data, with which this run began, was removed at this site; a new run takes the newest"
        ));
    }
    let known = signed.identifiers();
    if version.identifiers().iter().any(|column| !known.contains(column) && envelope.data.columns.contains(*column)) {
        return Some(format!(
            "a column of version {number} of the data looks like an identifier, and did not when it was reviewed; it has to \
             be approved again"
        ));
    }
    let say = |what: &str| Some(format!("the terms of use of version {number} of the data {what}"));
    let Ok(found) = rules::terms_of_use(&envelope.terms, version) else { return say("cannot be read") };
    if found.fit == Fit::NoMatch {
        return say("do not allow the study");
    }
    if found.expires_by.is_some_and(|until| until <= now) {
        return say("allow no use any more");
    }
    if found.fit == Fit::NeedsAPerson && version.duo != signed.duo {
        return say("are others than were reviewed, and need a person; it has to be approved again");
    }
    None
}

/// The rules on the levels of a category, which the review asked of the version that was signed and no permit asks.
fn against_levels(policy: &Policy, envelope: &Envelope, version: &Dataset) -> Option<String> {
    let too_many = |variable: &Variable| match variable {
        Variable::Category { codes } => {
            levels_allowed(&policy.disclosure, codes.len() as u64, version.subjects_left).is_err()
        }
        _ => false,
    };
    envelope.computation.plan.data.variables.values().any(too_many).then(|| {
        format!("version {} of the data has too few subjects for the levels of a category in the plan", version.version)
    })
}

/// What a person must know where a newer version is registered than the one that they read about. `open`: the approval of that
/// one, if there is one.
pub(super) fn newer_version(case: &Case, open: Option<&Stored>, now: Timestamp) -> Result<Option<Finding>, PartyError> {
    let (Some(signed), Some(newer)) = (case.dataset(), case.newer()) else { return Ok(None) };
    let registered = format!("version {} of the dataset, '{}', is registered", newer.version, shown(&newer.name, 100));
    let scope = open.map(|stored| &stored.approval.document.envelope).filter(|envelope| envelope.data.series.is_some());
    let words = match scope {
        None => format!("{registered}; an approval of a snapshot is given again for another version"),
        Some(envelope) => {
            let outside = envelope.data.holds(&newer.facts()?).err().map(|refusal| refusal.detail);
            let against = outside
                .or_else(|| against_version(envelope, newer, signed, now))
                .or_else(|| against_levels(&case.policy, envelope, newer));
            let patients = newer.document.subjects;
            match against {
                None => {
                    format!("{registered} with {patients} patients; the next run reads it without another signature")
                }
                Some(why) => format!("{registered} with {patients} patients, and no run begins on it: {why}"),
            }
        }
    };
    Ok(Some(Finding { rule: "series".into(), refuses: false, words }))
}
