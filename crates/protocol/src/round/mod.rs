//! A round, seen from both sides, as pure state machines: events and the time go in, actions come out.
//!
//! The phases of secure aggregation are there from the start; plain mode skips the middle ones.

use serde::{Deserialize, Serialize};

use crate::canon::Document;
use crate::id::{Digest, FederationId, JobId, RoundKey, SiteId, StudyId, Timestamp};
use crate::plan::Quantise;
use crate::plan::model::TensorShape;
use crate::sign::PublicKey;
use crate::version::Version;

pub mod coordinator;
pub mod site;

/// What the coordinator says about a round when it opens it; signed by its identity key.
///
/// Nothing in it is believed that the site's approval does not say too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundHeader {
    /// Version of the wire protocol.
    pub protocol: Version,
    /// Federation.
    pub federation: FederationId,
    /// Study.
    pub study: StudyId,
    /// Job.
    pub job: JobId,
    /// Task of the plan.
    pub task: String,
    /// Incarnation of the coordinator.
    pub epoch: u64,
    /// Round, from 1.
    pub round: u32,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Digest of the model that sites start from; `None` where the task needs none.
    pub model: Option<Digest>,
    /// Digest of the plan.
    pub plan: Digest,
    /// Members in order; a member's index is its party number.
    pub roster: Vec<RosterEntry>,
    /// How updates travel.
    pub mode: Mode,
    /// Tensors of an update in order; empty for a report of figures.
    pub tensors: Vec<TensorShape>,
    /// How numbers are put on the wire.
    pub quantise: Quantise,
    /// When the round closes.
    pub deadline: Timestamp,
}

impl Document for RoundHeader {
    const KIND: &'static str = "round-header";
    const VERSION: u32 = 1;
}

/// A member of a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RosterEntry {
    /// Site.
    pub site: SiteId,
    /// Its identity key.
    pub identity: PublicKey,
}

/// How updates travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mode {
    /// As they are.
    Plain {
        /// Fewest sites whose input makes a round.
        k_min: u32,
    },
    /// As they are, and of one site only, whose turn it is: the other members of the roster are not asked. Its model is
    /// the next one, so whoever has the models of two rounds has its update.
    Turn {
        /// The site.
        site: SiteId,
    },
    /// Masked (Bonawitz et al. 2017, active-adversary variant).
    SecureAggregation {
        /// Sites that may collude with the coordinator.
        c: u32,
        /// Shares that reconstruct a secret.
        t: u32,
        /// Fewest sites in a sum.
        k_min: u32,
    },
}

impl RoundHeader {
    /// Key under which the round is stored.
    pub fn key(&self) -> RoundKey {
        RoundKey { job: self.job, task: self.task.clone(), epoch: self.epoch, round: self.round, attempt: self.attempt }
    }

    /// Whether updates travel masked.
    pub fn is_secure(&self) -> bool {
        matches!(self.mode, Mode::SecureAggregation { .. })
    }

    /// Fewest sites whose input makes a round.
    pub fn k_min(&self) -> u32 {
        match self.mode {
            Mode::Plain { k_min } | Mode::SecureAggregation { k_min, .. } => k_min,
            Mode::Turn { .. } => 1,
        }
    }

    /// Members that are asked for an input, in roster order.
    pub fn asked(&self) -> impl Iterator<Item = SiteId> {
        let turn = if let Mode::Turn { site } = self.mode { Some(site) } else { None };
        self.roster.iter().map(|entry| entry.site).filter(move |site| turn.is_none_or(|turn| turn == *site))
    }

    /// Parameters of an update; the largest number there is if they cannot be counted.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.len()))
    }
}

/// Fewest sites whose input makes a round in the mode *plain*: `min_parties`, at least two, and never more than there are.
pub fn plain_k_min(n: u32, min_parties: u32) -> u32 {
    min_parties.max(2).min(n.max(2))
}

/// Phase of a round. Plain mode goes offered → working → committed → published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The header was sent; sites decide.
    Offered,
    /// Sites compute.
    Working,
    /// Sites sent their round keys (secure aggregation).
    Advertised,
    /// Sites sent their shares (secure aggregation).
    Shared,
    /// Inputs are in.
    Committed,
    /// Sites agreed on whose inputs count (secure aggregation).
    Agreed,
    /// Shares were revealed (secure aggregation).
    Revealed,
    /// The result is out.
    Published,
    /// Ended without a result, for a reason that another attempt may not have.
    Abandoned(String),
    /// Ended without a result.
    Failed(String),
}

impl Phase {
    /// Whether nothing more happens in this round.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Published | Self::Abandoned(_) | Self::Failed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_rounds_never_have_one_input() {
        assert_eq!([2, 3, 4, 10].map(|n| plain_k_min(n, 3)), [2, 3, 3, 3]);
        assert_eq!(plain_k_min(1, 0), 2);
    }
}
