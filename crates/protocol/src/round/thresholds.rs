//! How many sites may be corrupt, missing or silent: the thresholds of secure aggregation.

/// Thresholds of a round with secure aggregation (Bonawitz et al., CCS 2017, active-adversary variant).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Sites in the roster.
    pub n: u32,
    /// Sites that may collude with the coordinator.
    pub c: u32,
    /// Shares that reconstruct a secret, and signatures that agree on a set: 2t > n + c, so that two quorums share an
    /// honest site.
    pub t: u32,
    /// Fewest sites in a sum.
    pub k_min: u32,
}

/// Why a roster gives no thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoThresholds {
    /// Two sites can always compute each other's input from the sum.
    #[error("{0} sites are too few for secure aggregation; it needs 3")]
    TooFew(u32),
    /// Not enough sites are left beside the corrupt ones.
    #[error("a sum needs {k_min} sites, but the roster has {n}; verify the keys of more of them")]
    TooManyCorrupt {
        /// Sites in the roster.
        n: u32,
        /// Fewest sites in a sum.
        k_min: u32,
    },
}

impl Thresholds {
    /// Thresholds for `n` sites of which `asserted_only` are known from the coordinator alone and so count as corrupt.
    ///
    /// `bound` is the policy's number of sites that may be corrupt, by default ⌈n/3⌉ − 1; it counts as at least 1,
    /// except that with three sites, all verified or vouched for, a policy may set it to 0.
    ///
    /// # Errors
    /// [`NoThresholds`] if there are too few sites.
    pub fn new(n: u32, asserted_only: u32, bound: Option<u32>, min_parties: u32) -> Result<Self, NoThresholds> {
        if n < 3 {
            return Err(NoThresholds::TooFew(n));
        }
        let trusting = n == 3 && asserted_only == 0 && bound == Some(0);
        let least = u32::from(!trusting);
        let c = bound.unwrap_or(n.div_ceil(3) - 1).max(asserted_only).max(least);
        let k_min = min_parties.max(c.saturating_add(2));
        if k_min > n {
            return Err(NoThresholds::TooManyCorrupt { n, k_min });
        }
        Ok(Self { n, c, t: u32::midpoint(n, c) + 1, k_min })
    }

    /// Sites that may be missing before their input arrived.
    pub fn may_miss_before_input(&self) -> u32 {
        self.n.saturating_sub(self.t.max(self.k_min))
    }

    /// Sites that may be missing after their input arrived.
    pub fn may_miss_after_input(&self) -> u32 {
        self.n.saturating_sub(self.t)
    }
}

/// Fewest sites whose input makes a round in plain mode: `min_parties`, at least two, and never more than there are.
pub fn plain_k_min(n: u32, min_parties: u32) -> u32 {
    min_parties.max(2).min(n.max(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn thresholds_equal_the_table_of_the_specification() {
        // n, bound, c, t, may miss before input, after input; min_parties is 3.
        let table = [
            (3, Some(0), 0, 2, 0, 1),
            (3, None, 1, 3, 0, 0),
            (4, None, 1, 3, 1, 1),
            (5, None, 1, 4, 1, 1),
            (6, None, 1, 4, 2, 2),
            (7, None, 2, 5, 2, 2),
            (10, None, 3, 7, 3, 3),
        ];
        for (n, bound, c, t, before, after) in table {
            let found = Thresholds::new(n, 0, bound, 3).unwrap();
            let row = (found.c, found.t, found.may_miss_before_input(), found.may_miss_after_input());
            assert_eq!(row, (c, t, before, after), "n = {n}");
        }
    }

    #[test]
    fn asserted_only_peers_count_as_corrupt_and_too_many_of_them_are_refused() {
        let found = Thresholds::new(7, 4, None, 3).unwrap();
        assert_eq!((found.c, found.t, found.k_min), (4, 6, 6));
        assert_eq!(Thresholds::new(7, 6, None, 3), Err(NoThresholds::TooManyCorrupt { n: 7, k_min: 8 }));
        assert_eq!(Thresholds::new(2, 0, None, 2), Err(NoThresholds::TooFew(2)));
        // With an asserted peer, three sites cannot choose c = 0.
        assert_eq!(Thresholds::new(3, 1, Some(0), 3).unwrap().c, 1);
    }

    #[test]
    fn plain_rounds_never_have_one_input() {
        assert_eq!([2, 3, 4, 10].map(|n| plain_k_min(n, 3)), [2, 3, 3, 3]);
        assert_eq!(plain_k_min(1, 0), 2);
    }

    proptest! {
        #[test]
        fn two_quorums_share_an_honest_site(
            n in 3u32..2_000, a in 0u32..2_000, bound in proptest::option::of(0u32..2_000),
        ) {
            if let Ok(found) = Thresholds::new(n, a, bound, 3) {
                prop_assert!(2 * found.t > n + found.c);
                prop_assert!(found.t <= n && found.k_min >= found.c + 2 && found.k_min <= n);
            }
        }
    }
}
