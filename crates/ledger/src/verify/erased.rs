//! What may be missing in an entry: only what the product's own retention erases, and not before its time.
//!
//! A leaf does not commit to what was erased, when and under which rule, so that whoever holds the database and the key
//! can blank any field and sign the export again. Three things bind them: some fields no rule erases; the entry's order,
//! which is proven, tells from when on a rule allows it; and each erasure is an entry itself, which others cosign.

use std::collections::BTreeSet;

use hospes_protocol::id::Timestamp;

use super::{ErasedEntry, FindingKind, Stop, Verifier};
use crate::entry::{Action, Outcome};
use crate::leaf::{Content, Field, Part};
use crate::limits;
use crate::retention::Retention;

/// What verification remembers of erasures.
#[derive(Default)]
pub(super) struct Erasures {
    /// Of the erased entry whose time came last: when that was, in milliseconds, and which it is.
    last_due: Option<(u64, u64)>,
    /// Order of the newest entry that says that something was erased.
    told: Option<u64>,
}

impl Verifier<'_> {
    /// Looks at what is left of an entry, whose leaf is proven.
    pub(super) fn contents(&mut self, parts: &[Part<'_>]) -> Result<(), Stop> {
        let fields = [Field::When, Field::Action, Field::Outcome].map(|field| (field, kept(parts, field)));
        let [(_, Some(when)), (_, Some(action)), (_, Some(outcome))] = fields else {
            let gone = fields.iter().find(|(_, value)| value.is_none()).map_or("when", |(field, _)| field.as_str());
            return Err(self.stop(FindingKind::Altered, format!("its '{gone}' is gone, which no rule erases")));
        };
        let at = self.when(when)?.at;
        let erasure = (Action::AuditErased.as_str(), Outcome::Success.as_str());
        if (action.trim_matches('"'), outcome.trim_matches('"')) == erasure {
            self.erasures.told = Some(self.last_order);
        }
        let mut is_erased = false;
        for part in parts {
            if let Content::Erased { rule, .. } = part.content {
                is_erased = true;
                self.erased(part.field, rule)?;
            }
        }
        if is_erased {
            let erased = ErasedEntry { entry: self.frontier.size(), at };
            self.report.erased_entries += 1;
            self.report.first_erased.get_or_insert(erased);
            self.report.newest_erased = Some(erased);
        }
        Ok(())
    }

    /// Whether a field of the present entry may be gone under a rule.
    fn erased(&mut self, field: Field, rule: &str) -> Result<(), Stop> {
        note(&mut self.report.erasure_rules, rule);
        let Some(retention) = Retention::named(rule) else {
            // Of a newer version, or made up: what follows from that is for the auditor to say.
            note(&mut self.report.unknown_rules, rule);
            return Ok(());
        };
        let due = retention.due_ms(self.last_order);
        if due >= self.made_ms() {
            let words = format!("its '{}' was erased under '{rule}' before the time of that rule", field.as_str());
            return Err(self.stop(FindingKind::Altered, words));
        }
        if self.erasures.last_due.is_none_or(|(last, _)| last < due) {
            self.erasures.last_due = Some((due, self.frontier.size()));
        }
        Ok(())
    }

    /// When the export was made, by its own word.
    fn made_ms(&self) -> u64 {
        u64::try_from(self.report.made.map_or(0, Timestamp::as_millis)).unwrap_or(0)
    }

    /// An erased entry that no later one tells of: the log says each time that something was erased, after its time.
    pub(super) fn untold(&self) -> Result<(), Stop> {
        let Some((due, entry)) = self.erasures.last_due else { return Ok(()) };
        if self.erasures.told.is_some_and(|told| due < told) {
            return Ok(());
        }
        let words = format!("entry {entry} was erased in part, and no entry says so after the time at which it may be");
        Err(Stop::Finding(FindingKind::Altered, Some(entry), words))
    }
}

/// The value of a field, if it is there.
fn kept<'a>(parts: &[Part<'a>], field: Field) -> Option<&'a str> {
    parts.iter().find_map(|part| match part.content {
        Content::Kept { value, .. } if part.field == field => Some(value),
        _ => None,
    })
}

/// Remembers a rule's name, up to the limit.
fn note(rules: &mut BTreeSet<String>, rule: &str) {
    if !rules.contains(rule) && rules.len() < limits::OBJECTS {
        rules.insert(rule.to_owned());
    }
}
