//! How many must go on, and who shares with whom.
//!
//! Up to [`COMPLETE`] parties everybody shares with everybody. Above that each party has k neighbours in a Harary graph
//! over positions that nobody chooses (Bell et al. 2020, "Secure single-server aggregation with (poly)logarithmic
//! overhead"), and then the claim is *semi-malicious* only: it holds if the coordinator is honest while keys and
//! positions are exchanged.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::id::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::message::Point;

/// Most parties that share with everybody.
pub const COMPLETE: u32 = 128;
/// Fewest parties of a round; two are a *bilateral* study.
pub const FEWEST: u32 = 3;
/// Most parties of one secure cohort; larger fleets sample.
pub const MOST: u32 = 1_000;
/// Most neighbours in a graph: what they deal to one member then fits into what is relayed to it in one step.
const MOST_NEIGHBOURS: u32 = 256;
/// Of so many parties of a graph one may be missing; its degree is found for that.
const ONE_MISSING_OF: u32 = 20;

/// Bounds of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Sites that may collude with the coordinator (c).
    pub corrupt: u32,
    /// Sites that must agree, and shares that reconstruct a secret (t).
    pub quorum: u32,
    /// Fewest sites in a sum (k_min).
    pub k_min: u32,
}

impl Thresholds {
    /// What a site demands of a round of `n`, of whose other members `asserted` are known from the coordinator only.
    ///
    /// c = max(c₀, a, 1), with c₀ = ⌈n/3⌉ − 1 where the policy does not say; 0 only at n = 3 with a = 0 where it does.
    /// t = ⌊(n + c)/2⌋ + 1, so that two quorums share an honest site; k_min = max(min_parties, c + 2).
    pub fn new(n: u32, policy_corrupt: Option<u32>, asserted: u32, min_parties: u32) -> Self {
        let least = if n == FEWEST && asserted == 0 && policy_corrupt == Some(0) { 0 } else { 1 };
        let bound = policy_corrupt.unwrap_or_else(|| n.div_ceil(3).saturating_sub(1));
        let corrupt = bound.max(asserted).max(least);
        Self { corrupt, quorum: quorum(n, corrupt), k_min: min_parties.max(corrupt.saturating_add(2)) }
    }

    /// Sites that may be missing before their inputs arrived, and in all, those that stop after that counted. In a graph
    /// the second holds with a chance of 1 − 2^-20 only.
    ///
    /// # Disclosure
    /// Only what the round's header says.
    pub fn survives(&self, n: u32) -> (u32, u32) {
        let most = if n > COMPLETE { n / ONE_MISSING_OF } else { n };
        (n.saturating_sub(self.quorum.max(self.k_min)).min(most), n.saturating_sub(self.quorum).min(most))
    }
}

/// t = ⌊(n + c)/2⌋ + 1: more than half of the honest sites and all others are needed for two quorums without an honest
/// site in both, 2t > n + c.
pub(super) fn quorum(n: u32, corrupt: u32) -> u32 {
    n.saturating_add(corrupt) / 2 + 1
}

/// Whom the finder of a graph protects against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adversary {
    /// The coordinator follows the protocol and looks.
    HonestButCurious,
    /// It follows the protocol while keys and positions are exchanged.
    SemiMalicious,
}

/// A graph's degree and the shares among neighbours that reconstruct a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Degree {
    /// Neighbours of each party (k).
    pub neighbours: u32,
    /// Shares that reconstruct (t).
    pub threshold: u32,
}

impl Degree {
    /// The least degree with which, of `n` parties of which `corrupt` collude and `missing` drop out, no coalition
    /// reconstructs both secrets of anybody (probability 2^-40 in all), no honest part is cut off, and the sum fails
    /// with probability 2^-20 at most; `None` if there is none below n (Bell et al. 2020, §3.5 and appendix).
    ///
    /// # Disclosure
    /// Only what the round's header says.
    pub fn find(n: u32, corrupt: u32, missing: u32, adversary: Adversary) -> Option<Self> {
        if corrupt.saturating_add(missing) >= n {
            return None;
        }
        let chances = Chances::new(n);
        (2..n).step_by(2).find_map(|k| {
            if k <= corrupt + missing && !chances.stays_connected(k, corrupt + missing) {
                return None;
            }
            let mut corrupt_near = chances.least_rarely_exceeded(corrupt, k, 2f64.powi(-41) / f64::from(n));
            if adversary == Adversary::SemiMalicious {
                // ⌈(t1 + k − 1.25)/2⌉ in whole numbers.
                corrupt_near = (4 * (corrupt_near + k) + 2) / 8;
            }
            let alive = chances.most_rarely_missed(n - missing, k, 2f64.powi(-20) / f64::from(n));
            let threshold = (corrupt_near + 1).max(2);
            (alive > corrupt_near).then_some(Self { neighbours: k, threshold })
        })
    }
}

/// Chances of drawing neighbours: hypergeometric distributions over `n` parties, by logarithms of factorials.
struct Chances {
    n: u32,
    log_factorials: Vec<f64>,
}

impl Chances {
    fn new(n: u32) -> Self {
        let mut sum = 0.0;
        let logs = (1..=n).map(|i| {
            sum += libm::log(f64::from(i));
            sum
        });
        Self { n, log_factorials: std::iter::once(0.0).chain(logs).collect() }
    }

    fn log_factorial(&self, number: u32) -> f64 {
        self.log_factorials[number as usize]
    }

    fn log_choose(&self, n: u32, k: u32) -> f64 {
        self.log_factorial(n) - self.log_factorial(k) - self.log_factorial(n - k)
    }

    /// ln(n(n−k−1)/2) + ln[(A+D)!(n−k)!/(n!(A+D−k)!)] < −41·ln 2: no party has only such neighbours, k ≤ A + D.
    fn stays_connected(&self, k: u32, gone: u32) -> bool {
        let pairs = libm::log(f64::from(self.n) * f64::from(self.n - k - 1) / 2.0);
        let only = self.log_factorial(gone) + self.log_factorial(self.n - k)
            - self.log_factorial(self.n)
            - self.log_factorial(gone - k);
        pairs + only < -41.0 * std::f64::consts::LN_2
    }

    /// P[Hyp(n, marked, k) = x].
    fn exactly(&self, marked: u32, k: u32, x: u32) -> f64 {
        if x > marked || x > k || k - x > self.n - marked {
            return 0.0;
        }
        let log = self.log_choose(marked, x) + self.log_choose(self.n - marked, k - x) - self.log_choose(self.n, k);
        libm::exp(log)
    }

    /// Least x with P[Hyp(n, marked, k) > x] ≤ bound. Summed from the thin end, so that nothing small is lost.
    fn least_rarely_exceeded(&self, marked: u32, k: u32, bound: f64) -> u32 {
        let mut above = 0.0;
        for x in (0..=k).rev() {
            above += self.exactly(marked, k, x);
            if above > bound {
                return x;
            }
        }
        0
    }

    /// Largest x with P[Hyp(n, marked, k) < x] ≤ bound.
    fn most_rarely_missed(&self, marked: u32, k: u32, bound: f64) -> u32 {
        let mut below = 0.0;
        for x in 0..=k {
            below += self.exactly(marked, k, x);
            if below > bound {
                return x;
            }
        }
        k
    }
}

/// Who shares with whom, as the round's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Graph {
    /// Everybody with everybody.
    Complete {},
    /// A Harary graph.
    Harary {
        /// Drop-outs that it is made for.
        missing: u32,
        /// Neighbours of each party.
        neighbours: u32,
        /// Shares among neighbours that reconstruct a secret.
        threshold: u32,
    },
}

impl Graph {
    /// The graph of a round of `n` of which `corrupt` may collude: one twentieth may drop out. `None` if there is none of
    /// a degree that can be relayed.
    ///
    /// # Disclosure
    /// Only what the round's header says.
    pub fn of(n: u32, corrupt: u32) -> Option<Self> {
        if n <= COMPLETE {
            return Some(Self::Complete {});
        }
        let missing = n / ONE_MISSING_OF;
        let degree = Degree::find(n, corrupt, missing, Adversary::SemiMalicious)?;
        let Degree { neighbours, threshold } = Some(degree).filter(|degree| degree.neighbours <= MOST_NEIGHBOURS)?;
        Some(Self::Harary { missing, neighbours, threshold })
    }

    /// Whether positions have to be exchanged.
    pub fn has_positions(&self) -> bool {
        matches!(self, Self::Harary { .. })
    }
}

/// The graph over those who take part.
#[derive(Debug, Clone)]
pub(super) enum Topology {
    Complete(BTreeSet<u32>),
    Ring { order: Vec<u32>, places: BTreeMap<u32, usize>, reach: usize },
}

impl Topology {
    /// Everybody with everybody among these.
    pub(super) fn complete(active: BTreeSet<u32>) -> Self {
        Self::Complete(active)
    }

    /// Positions in the order of SHA-256(sid ‖ reveal); neighbours are the k/2 next ones on either side.
    pub(super) fn ring(sid: &Digest, reveals: &BTreeMap<u32, Point>, neighbours: u32) -> Self {
        let mut keyed: Vec<([u8; 32], u32)> = reveals
            .iter()
            .map(|(party, reveal)| {
                let hash = Sha256::new().chain_update(sid.as_bytes()).chain_update(reveal.as_bytes());
                (hash.finalize().into(), *party)
            })
            .collect();
        keyed.sort_unstable();
        let order: Vec<u32> = keyed.into_iter().map(|(_, party)| party).collect();
        let places = order.iter().enumerate().map(|(place, party)| (*party, place)).collect();
        Self::Ring { order, places, reach: neighbours as usize / 2 }
    }

    /// Those with whom a party shares masks, without itself; nobody for a party that has no part.
    pub(super) fn neighbours(&self, of: u32) -> BTreeSet<u32> {
        match self {
            Self::Complete(active) if active.contains(&of) => active.iter().copied().filter(|p| *p != of).collect(),
            Self::Complete(_) => BTreeSet::new(),
            Self::Ring { order, places, reach } => {
                let Some(place) = places.get(&of) else { return BTreeSet::new() };
                let n = order.len();
                let away = 1..=(*reach).min(n.saturating_sub(1));
                let near = away.flat_map(|step| [order[(place + step) % n], order[(place + n - step) % n]]);
                near.filter(|party| *party != of).collect()
            }
        }
    }

    /// Those who hold shares of a party's secrets: its neighbours, and in the complete graph itself. Held by a party
    /// are the secrets of the same parties.
    pub(super) fn holders(&self, of: u32) -> BTreeSet<u32> {
        let mut holders = self.neighbours(of);
        if let Self::Complete(active) = self
            && active.contains(&of)
        {
            holders.insert(of);
        }
        holders
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thresholds_are_those_of_the_table() {
        // specs/secure-aggregation.md: n, c, t, may miss before input, after it.
        let table = [(3, 0, 2, 0, 1), (3, 1, 3, 0, 0), (4, 1, 3, 1, 1), (5, 1, 4, 1, 1), (6, 1, 4, 2, 2)];
        for (n, c, t, before, after) in table.into_iter().chain([(7, 2, 5, 2, 2), (10, 3, 7, 3, 3)]) {
            let policy = (n == 3).then_some(c);
            let found = Thresholds::new(n, policy, 0, 3);
            assert_eq!((found.corrupt, found.quorum, found.survives(n)), (c, t, (before, after)), "n = {n}");
        }
    }

    #[test]
    fn every_peer_that_only_the_coordinator_asserts_counts_as_corrupt() {
        let found = Thresholds::new(10, None, 7, 3);
        assert_eq!(found, Thresholds { corrupt: 7, quorum: 9, k_min: 9 });
        // At three, zero is allowed only if the policy says so and nobody is asserted only.
        assert_eq!(Thresholds::new(3, None, 0, 3).corrupt, 1);
        assert_eq!(Thresholds::new(3, Some(0), 1, 3).corrupt, 1);
        assert_eq!(Thresholds::new(4, Some(0), 0, 3).corrupt, 1);
    }

    #[test]
    fn degrees_are_those_of_the_reference() {
        use Adversary::{HonestButCurious, SemiMalicious};
        // specs/secure-aggregation.md: n, α and δ in hundredths, k, t.
        let curious = [
            (100, 33, 33, 68, 34),
            (1_000, 33, 33, 286, 150),
            (100, 5, 5, 12, 6),
            (1_000, 5, 5, 30, 17),
            (1_000, 5, 33, 72, 24),
        ];
        let malicious = [
            (10, 5, 33, 8, 5),
            (100, 5, 5, 16, 11),
            (1_000, 5, 5, 52, 37),
            (10_000, 5, 5, 62, 44),
            (100, 33, 5, 42, 37),
            (1_000, 33, 5, 132, 109),
            (1_000, 30, 30, 872, 584),
        ];
        let all =
            curious.map(|row| (HonestButCurious, row)).into_iter().chain(malicious.map(|row| (SemiMalicious, row)));
        for (adversary, (n, alpha, delta, neighbours, threshold)) in all {
            let found = Degree::find(n, n * alpha / 100, n * delta / 100, adversary);
            assert_eq!(found, Some(Degree { neighbours, threshold }), "{adversary:?} {n} {alpha} {delta}");
        }
        assert_eq!(Degree::find(10, 5, 5, SemiMalicious), None, "nobody can be protected there");
    }

    #[test]
    fn positions_follow_from_what_everybody_revealed() {
        let reveals: BTreeMap<u32, Point> = (0..9).map(|i| (u32::from(i) * 3, Point::from_bytes([i; 32]))).collect();
        let sid = Digest::of(b"sid");
        let Topology::Ring { order, .. } = Topology::ring(&sid, &reveals, 4) else { panic!("a ring") };
        let hash = |party: &u32| {
            let reveal = reveals.get(party).unwrap();
            Digest::of(&[&sid.as_bytes()[..], reveal.as_bytes()].concat())
        };
        assert!(order.windows(2).all(|pair| hash(&pair[0]) < hash(&pair[1])));
        assert_eq!(order.len(), 9);
        assert!(Topology::ring(&sid, &reveals, 4).neighbours(1).is_empty(), "who revealed nothing has no place");
    }

    proptest! {
        #[test]
        fn two_quorums_share_an_honest_site(n in 3u32..=1_000, asserted in 0u32..500, policy in prop::option::of(0u32..400)) {
            let found = Thresholds::new(n, policy, asserted.min(n - 1), 3);
            prop_assert!(2 * found.quorum > n + found.corrupt);
            prop_assert!(found.k_min >= found.corrupt + 2 && found.corrupt >= asserted.min(n - 1));
        }

        #[test]
        fn neighbours_are_mutual_and_as_many_as_the_degree(
            parties in prop::collection::btree_set(0u32..1_000, 1..60), half in 1u32..40
        ) {
            let reveals = parties.iter().map(|p| (*p, Point::from_bytes([u8::try_from(p % 251).unwrap(); 32]))).collect();
            let ring = Topology::ring(&Digest::of(b"sid"), &reveals, half * 2);
            let others = parties.len() - 1;
            for party in &parties {
                let near = ring.neighbours(*party);
                prop_assert_eq!(near.len(), others.min(half as usize * 2));
                prop_assert!(!near.contains(party) && near.iter().all(|p| ring.neighbours(*p).contains(party)));
            }
            let complete = Topology::complete(parties.clone());
            for party in &parties {
                prop_assert_eq!(complete.neighbours(*party).len(), others);
                prop_assert_eq!(&complete.holders(*party), &parties);
            }
            prop_assert!(complete.holders(1_000).is_empty() && ring.holders(1_000).is_empty());
        }
    }
}
