//! Retention: what a site may erase of its log, from when on, and how the rule is spelled. Whoever erases and whoever
//! verifies take it from here.

use std::fmt;
use std::ops::RangeInclusive;

use hospes_protocol::id::Timestamp;

use crate::leaf::Field;

/// A month, in milliseconds: a twelfth of a mean year.
const MONTH_MS: u32 = 2_629_746_000;

/// The rule that entries older than so many months lose what can tell of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retention {
    months: u32,
}

impl Retention {
    /// Months that may be set. Less than a year would erase what an approval of today still needs.
    pub const MONTHS: RangeInclusive<u32> = 12..=1_200;

    /// What is erased: everything that can tell of a person. When something was done, what, and how it ended stay.
    pub const FIELDS: [Field; 9] = [
        Field::Actor,
        Field::OnBehalf,
        Field::Objects,
        Field::Purpose,
        Field::Change,
        Field::Egress,
        Field::Reason,
        Field::Engine,
        Field::Answers,
    ];

    /// After so many months; `None` if so many may not be set.
    pub fn of_months(months: u32) -> Option<Self> {
        Self::MONTHS.contains(&months).then_some(Self { months })
    }

    /// The rule of this name, spelled exactly as its `Display` does.
    pub fn named(rule: &str) -> Option<Self> {
        let months = rule.strip_prefix("retention ")?.strip_suffix(" months")?.parse().ok()?;
        Self::of_months(months).filter(|known| known.to_string() == rule)
    }

    /// What the entry about an erasure gives as its reason. Verification reads the rule from it, so that the words are
    /// part of the format of the log.
    #[must_use]
    pub fn tells(self, changed: u64) -> String {
        format!("{changed} entries erased under rule {self}")
    }

    /// The rule that the reason of an entry about an erasure names, if it is in the words of [`Retention::tells`].
    pub(crate) fn told(reason: &str) -> Option<Self> {
        let (changed, rule) = reason.split_once(" entries erased under rule ")?;
        let (changed, rule) = (changed.parse().ok()?, Self::named(rule)?);
        (rule.tells(changed) == reason).then_some(rule)
    }

    /// The entries of an erasure, as the entry about it names them.
    #[must_use]
    pub fn names(entries: &RangeInclusive<u64>) -> String {
        format!("{} to {}", entries.start(), entries.end())
    }

    /// Entries whose order lies before this may be erased now.
    #[must_use]
    pub fn before(self, now: Timestamp) -> Timestamp {
        now.plus_millis(-i64::from(MONTH_MS) * i64::from(self.months))
    }

    /// After which moment an entry of this order may be erased, in milliseconds since 1970.
    pub(crate) fn due_ms(self, order: u64) -> u64 {
        order.saturating_add(u64::from(MONTH_MS) * u64::from(self.months))
    }
}

/// The entries that [`Retention::names`] names.
pub(crate) fn entries_named(text: &str) -> Option<RangeInclusive<u64>> {
    let (start, end) = text.split_once(" to ")?;
    let entries: RangeInclusive<u64> = start.parse().ok()?..=end.parse().ok()?;
    (!entries.is_empty() && Retention::names(&entries) == text).then_some(entries)
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "retention {} months", self.months)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_one_spelling_and_at_least_a_year() {
        let rule = Retention::of_months(36).unwrap();
        assert_eq!(Retention::named(&rule.to_string()), Some(rule));
        for other in
            ["retention 11 months", "retention 036 months", "retention +36 months", "retention 36 months ", "all"]
        {
            assert_eq!(Retention::named(other), None, "{other}");
        }
        assert_eq!((Retention::of_months(11), Retention::of_months(1_201)), (None, None));
    }

    /// Logs that exist have these words.
    #[test]
    fn the_words_about_an_erasure_stay_the_same_and_read_back() {
        let rule = Retention::of_months(36).unwrap();
        assert_eq!(rule.tells(7), "7 entries erased under rule retention 36 months");
        assert_eq!(Retention::told(&rule.tells(7)), Some(rule));
        assert_eq!(Retention::names(&(0..=4)), "0 to 4");
        assert_eq!(entries_named("0 to 4"), Some(0..=4));
        for other in ["", "7 entries erased under rule all", "07 entries erased under rule retention 36 months"] {
            assert_eq!(Retention::told(other), None, "{other}");
        }
        for other in ["", "4", "4 to 3", "+1 to 3", "1 to 3 to 4"] {
            assert_eq!(entries_named(other), None, "{other}");
        }
    }

    /// Whoever erases looks back from now, whoever verifies looks forth from the entry.
    #[test]
    fn what_may_be_erased_now_is_what_was_due_before_now() {
        let rule = Retention::of_months(12).unwrap();
        let now = Timestamp::from_millis(1_900_000_000_000);
        let edge = u64::try_from(rule.before(now).as_millis()).unwrap();
        assert_eq!(rule.due_ms(edge), 1_900_000_000_000);
        assert_eq!(rule.due_ms(u64::MAX), u64::MAX);
    }
}
