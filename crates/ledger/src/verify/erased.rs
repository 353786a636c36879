//! What may be missing in an entry: only what the product's own retention erases, and not before its time.
//!
//! A leaf does not commit to what was erased, when and under which rule, so that whoever holds the database and the key
//! can blank any field and sign the export again. Three things bind them: some fields no rule erases; the entry's order,
//! which is proven, tells from when on a rule allows it; and each erasure is an entry itself, which others cosign.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use hospes_protocol::id::Timestamp;

use super::{ErasedEntry, FindingKind, Stop, Verifier};
use crate::entry::{Action, Object, ObjectKind, Outcome};
use crate::leaf::{Content, Field, Part};
use crate::limits;
use crate::retention::{Retention, entries_named};

/// Orders of one run of erased entries lie less than this apart: an hour. So much too early may the entry be that tells
/// of one in the middle of a run, and so few runs are there to remember.
const RUN_MS: u64 = 3_600 * 1_000;

/// What verification remembers of erasures.
#[derive(Default)]
pub(super) struct Erasures {
    /// Erased entries that no later one told of so far: for each rule, runs of them by their first.
    untold: BTreeMap<Retention, BTreeMap<u64, Run>>,
    /// Order of the newest entry that says that something was erased, and not under which rule.
    vague: Option<u64>,
}

/// Erased entries one after another.
#[derive(Clone, Copy)]
struct Run {
    /// The last of them.
    last: u64,
    /// After which moment the first may be erased, in milliseconds.
    due: u64,
}

impl Erasures {
    /// Remembers an erased entry; they come in order.
    fn add(&mut self, rule: Retention, entry: u64, due: u64) {
        let runs = self.untold.entry(rule).or_default();
        if let Some(mut newest) = runs.last_entry() {
            let run = newest.get_mut();
            if entry <= run.last.saturating_add(1) && due.saturating_sub(run.due) < RUN_MS {
                run.last = entry;
                return;
            }
        }
        runs.insert(entry, Run { last: entry, due });
    }

    /// An entry of this order says that these were erased under the rule.
    fn tell(&mut self, rule: Retention, entries: &RangeInclusive<u64>, order: u64) {
        let Some(runs) = self.untold.get_mut(&rule) else { return };
        let (start, end) = (*entries.start(), *entries.end());
        let mut from = runs.range(..=start).next_back().map_or(start, |(first, _)| *first);
        while from <= end
            && let Some((first, run)) = runs.range(from..=end).next().map(|(first, run)| (*first, *run))
            && run.due < order
        {
            runs.remove(&first);
            if first < start {
                runs.insert(first, Run { last: run.last.min(start - 1), due: run.due });
            }
            if run.last > end {
                runs.insert(end + 1, run);
            }
            from = run.last.saturating_add(1);
        }
    }

    /// An entry of this order said that something was erased, and what it said was itself erased since. It counts for
    /// what was due before it: that it may be erased itself must be told under a rule by a later entry that can be read,
    /// and under that rule the older ones may be erased, too.
    fn tell_unread(&mut self, order: u64) {
        for runs in self.untold.values_mut() {
            while let Some(run) = runs.first_entry()
                && run.get().due < order
            {
                run.remove();
            }
        }
    }
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
            self.tells(parts);
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
        self.erasures.add(retention, self.frontier.size(), due);
        Ok(())
    }

    /// Takes note of what the present entry says of an erasure.
    fn tells(&mut self, parts: &[Part<'_>]) {
        let order = self.last_order;
        let is_gone = |field| parts.iter().any(|p| p.field == field && matches!(p.content, Content::Erased { .. }));
        if is_gone(Field::Reason) || is_gone(Field::Objects) {
            self.erasures.tell_unread(order);
            return;
        }
        match told(parts) {
            Some((rule, ranges)) => ranges.iter().for_each(|entries| self.erasures.tell(rule, entries, order)),
            None => self.erasures.vague = Some(order),
        }
    }

    /// When the export was made, by its own word.
    fn made_ms(&self) -> u64 {
        u64::try_from(self.report.made.map_or(0, Timestamp::as_millis)).unwrap_or(0)
    }

    /// An erased entry that no later one tells of: the log says each time what was erased under which rule, after its
    /// time.
    pub(super) fn untold(&mut self) -> Result<(), Stop> {
        let vague = self.erasures.vague;
        let mut found: Option<(u64, Retention)> = None;
        let mut doubtful: Option<(u64, Retention)> = None;
        for (rule, runs) in &self.erasures.untold {
            for run in runs.values() {
                let newest = if vague.is_some_and(|order| run.due < order) { &mut doubtful } else { &mut found };
                *newest = (*newest).max(Some((run.last, *rule)));
            }
        }
        self.report.doubtful_erasure = doubtful.map(|(entry, _)| entry);
        let Some((entry, rule)) = found else { return Ok(()) };
        let words = format!(
            "entry {entry} was erased in part under '{rule}', and no entry says so after the time at which it may be"
        );
        Err(Stop::Finding(FindingKind::Altered, Some(entry), words))
    }
}

/// The rule and the entries that an entry about an erasure names, all if it names none; `None` if it is not in the
/// product's words.
fn told(parts: &[Part<'_>]) -> Option<(Retention, Vec<RangeInclusive<u64>>)> {
    let reason: String = serde_json::from_str(kept(parts, Field::Reason)?).ok()?;
    let rule = Retention::told(&reason)?;
    let objects: Vec<Object> = match kept(parts, Field::Objects) {
        Some(value) => serde_json::from_str(value).ok()?,
        None => Vec::new(),
    };
    let named = objects.iter().filter(|object| object.kind == ObjectKind::Entries);
    let ranges: Vec<_> = named.map(|object| entries_named(&object.id)).collect::<Option<_>>()?;
    Some((rule, if ranges.is_empty() { vec![0..=u64::MAX] } else { ranges }))
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
