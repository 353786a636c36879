//! Whether a plan and a snapshot lie inside the envelope that was approved.

use std::collections::BTreeMap;

use serde_json::Value::{self, Array, Number, Object};

use super::{Computation, DataScope, Range, Refusal, RefusalCode, SnapshotFacts};
use crate::canon::Canonical;
use crate::plan::Plan;
use crate::study::may_vary;
use crate::text;

impl Computation {
    /// Whether a plan lies inside: equal to the reviewed plan in everything but the numbers that have a range, and one of
    /// the settings where these are listed.
    ///
    /// # Errors
    /// A [`Refusal`] that names the first place outside.
    pub fn holds(&self, plan: &Canonical<Plan>) -> Result<(), Refusal> {
        let refuse = |detail: String| Refusal::new(RefusalCode::OutsideEnvelope, detail);
        if !self.settings.is_empty() && !self.settings.contains(&plan.digest()) {
            return Err(refuse(format!("the plan is none of the {} settings that were approved", self.settings.len())));
        }
        if plan.digest() == self.plan.digest() {
            return Ok(());
        }
        let tree = |p: &Plan| serde_json::to_value(p).map_err(|e| refuse(e.to_string()));
        // PRIVACY: people may have signed, before it was refused, that a number is free which says what is read or reported.
        let ranges: BTreeMap<String, Range> = self
            .ranges
            .iter()
            .filter(|(place, _)| may_vary(&self.plan, place).is_ok())
            .map(|(place, range)| (place.clone(), *range))
            .collect();
        match outside("", &tree(&self.plan)?, &tree(plan)?, &ranges) {
            None => Ok(()),
            Some(detail) => Err(refuse(text::shown(&detail, 400))),
        }
    }
}

impl DataScope {
    /// Whether a snapshot lies inside: the one that was reviewed or, where the series was approved, a later version of it.
    ///
    /// # Errors
    /// A [`Refusal`] that says what does not hold, without a number of subjects: the ledger has it, which is exported. The
    /// coordinator hears less ([`Refusal::outward`]).
    pub fn holds(&self, snapshot: &SnapshotFacts) -> Result<(), Refusal> {
        let refuse = |detail: &str| Err(Refusal::new(RefusalCode::Snapshot, detail));
        if snapshot.digest == self.snapshot {
            return Ok(());
        }
        let (Some(series), Some(found)) = (&self.series, &snapshot.version) else {
            return refuse("the data are not the snapshot that was approved");
        };
        if found.series != series.id {
            return refuse("the data are not of the dataset that was approved");
        }
        let number = found.version;
        let again = |what: &str| refuse(&format!("version {number} of the data {what}; it has to be approved again"));
        if number <= series.version {
            return again("is not later than the one that was approved");
        }
        if found.form != series.form {
            return again("has other columns or types than was approved, or was read in another way");
        }
        // Of the version as it was registered: whoever opts out later never voids an approval.
        if !(series.min_subjects..=series.max_subjects).contains(&found.subjects) {
            return again("has fewer or more subjects than was approved");
        }
        Ok(())
    }
}

/// The first place where `asked` lies outside `approved`, in words.
fn outside(place: &str, approved: &Value, asked: &Value, ranges: &BTreeMap<String, Range>) -> Option<String> {
    let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    if let (Some(range), Number(_), Number(number)) = (ranges.get(place), approved, asked) {
        let value = number.as_f64().unwrap_or(f64::NAN);
        let inside = range.min <= value && value <= range.max;
        return (!inside).then(|| format!("{place} is {number}; approved is {} to {}", range.min, range.max));
    }
    match (approved, asked) {
        (Object(a), Object(b)) => {
            if let Some(key) = b.keys().find(|k| !a.contains_key(*k)) {
                return Some(format!("{} was not approved", below(key)));
            }
            a.iter().find_map(|(key, value)| match b.get(key) {
                Some(other) => outside(&below(key), value, other, ranges),
                None => Some(format!("{} was approved and is missing", below(key))),
            })
        }
        (Array(a), Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (x, y))| outside(&below(&i.to_string()), x, y, ranges))
        }
        (a, b) if a == b => None,
        (a, b) => Some(format!("{place} is {}; approved is {}", brief(b), brief(a))),
    }
}

fn brief(value: &Value) -> String {
    text::shown(&value.to_string(), 60)
}
