//! Pauses between attempts: exponential, with jitter, so that the sites of a federation do not all come back at once.

use std::time::Duration;

/// Exponential back-off with seeded jitter.
#[derive(Debug, Clone)]
pub(super) struct BackOff {
    first: Duration,
    longest: Duration,
    failures: u32,
    state: u64,
}

impl BackOff {
    pub(super) fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { first, longest, failures: 0, state: seed }
    }

    /// After a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure: between half and all of `first · 2^failures`, at most `longest`.
    pub(super) fn next(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        self.jitter(whole)
    }

    /// The longest pause.
    pub(super) fn longest(&mut self) -> Duration {
        self.jitter(self.longest)
    }

    fn jitter(&mut self, whole: Duration) -> Duration {
        // SplitMix64 (Steele, Lea, Flood 2014, figure 15): enough to spread sites, nothing secret depends on it.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let thousandths = u32::try_from(z % 501).unwrap_or(0);
        whole / 2 + whole * thousandths / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_stay_within_their_jitter() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(300));
        let mut pauses = BackOff::new(first, longest, 7);
        for failure in 0..40u32 {
            let whole = first.saturating_mul(1 << failure.min(20)).min(longest);
            let pause = pauses.next();
            assert!(pause >= whole / 2 && pause <= whole, "failure {failure}: {pause:?}");
        }
        pauses.reset();
        assert!(pauses.next() <= first);
    }

    #[test]
    fn one_seed_gives_one_sequence_and_two_seeds_give_two() {
        let draw = |seed| {
            let mut pauses = BackOff::new(Duration::from_secs(1), Duration::from_secs(300), seed);
            (0..10).map(|_| pauses.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
