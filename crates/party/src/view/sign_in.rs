//! When people are signed out, and how wrong passphrases are slowed down.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// When a session ends by itself, and what wrong passphrases cost. Nobody can leave the bounds that stand here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct SignInRules {
    /// Minutes without use after which a session ends; from 2 to 60.
    pub idle_minutes: u32,
    /// Wrong passphrases in a row that cost no time; from 3 to 10. Each further one costs a wait, which begins with a second
    /// and doubles.
    pub tries: u32,
    /// Longest such wait, in minutes; from 5 to 60.
    pub longest_wait_minutes: u32,
}

impl SignInRules {
    /// What [`SignInRules::idle_minutes`] may be.
    pub const IDLE_MINUTES: RangeInclusive<u32> = 2..=60;
    /// What [`SignInRules::tries`] may be.
    pub const TRIES: RangeInclusive<u32> = 3..=10;
    /// What [`SignInRules::longest_wait_minutes`] may be.
    pub const LONGEST_WAIT_MINUTES: RangeInclusive<u32> = 5..=60;
}

impl Default for SignInRules {
    fn default() -> Self {
        Self { idle_minutes: 10, tries: 3, longest_wait_minutes: 15 }
    }
}
