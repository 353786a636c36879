//! Why a round with secure aggregation does not go on, in words, and whom it names.

use hospes_protocol::id::SiteId;

use super::message::Step;

/// Why a member or an aggregator does not go on. It names sites, fields and steps, never a value of an update.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too few or too many members.
    #[error("a round with secure aggregation has 3 to 1000 sites, and this one has {0}")]
    Size(usize),
    /// The header cannot be used by anybody.
    #[error("the round's {field} cannot be used: {reason}")]
    Unusable {
        /// Which field.
        field: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The header offers less protection than this site demands.
    #[error("the round's {field} is {found}, and this site demands {least}")]
    Terms {
        /// Which field.
        field: &'static str,
        /// What the header says.
        found: u64,
        /// What this site demands.
        least: u64,
    },
    /// A member of the roster that the site's approval does not list with this key.
    #[error("site {0} is in the round and not, with this key, in the approval")]
    NotApproved(SiteId),
    /// A member whose id is not that of its key, or that stands twice.
    #[error("site {0} stands twice in the roster, or its id is not that of its key")]
    Roster(SiteId),
    /// This site is not a member.
    #[error("this site is not in the round's roster")]
    NotMember,
    /// A sender that is no member.
    #[error("site {0} is not in the round's roster")]
    Stranger(SiteId),
    /// The coordinator was restored, and this site did not approve its new epoch.
    #[error("the round is of epoch {found}, and this site approved epoch {approved}")]
    Epoch {
        /// Epoch of the header.
        found: u64,
        /// Epoch that the site approved.
        approved: u64,
    },
    /// A round, or an attempt, that is not later than the last one.
    #[error("round {round}, attempt {attempt} is not later than the last one that this site took part in")]
    Replayed {
        /// Round.
        round: u32,
        /// Attempt.
        attempt: u32,
    },
    /// The site agreed to a sum in another attempt at this round, or in a later one.
    #[error(
        "this site agreed to a sum in another attempt at this round, or in a later round; only a new round, with new \
         training, can follow"
    )]
    AgreedBefore,
    /// The header names another model than the site has.
    #[error("the round names another model than the one that this site fetched")]
    Model,
    /// The header's noise is not what the approved plan asks for.
    #[error("the round's noise is not the one that the approved plan asks for")]
    OtherNoise,
    /// A party number that nobody has.
    #[error("party {0} is not in the roster")]
    Unknown(u32),
    /// A message of another round.
    #[error("the message of site {0} is of another round or attempt")]
    OtherRound(SiteId),
    /// A message that its sender did not sign.
    #[error("site {0} did not sign the message that is said to be its own")]
    Unsigned(SiteId),
    /// Two messages of one site, or a list that is not in order.
    #[error("site {0} stands twice, or out of order, in what the coordinator sent")]
    Twice(SiteId),
    /// A site said two things in one step.
    #[error("site {0} said two different things in one step")]
    Contradiction(SiteId),
    /// Keys that are no keys, or are somebody else's.
    #[error("the round keys of site {0} cannot be used, or are those of another site")]
    Keys(SiteId),
    /// What this site sent did not come back as it was.
    #[error("what this site sent came back changed, or did not come back")]
    OwnMessage,
    /// What a site sent is not what this step needs.
    #[error("what site {site} sent cannot be used: {reason}")]
    Malformed {
        /// Site.
        site: SiteId,
        /// Why.
        reason: &'static str,
    },
    /// A position in the graph that does not fit what was committed to.
    #[error("site {0} opened another position than it committed to")]
    Position(SiteId),
    /// A box that the coordinator lost or exchanged.
    #[error("the box of shares of site {0} is missing, or is not the one that it signed")]
    Box(SiteId),
    /// A share that does not lie on the committed polynomial.
    #[error("site {from} revealed a wrong share of site {of}'s secret")]
    Share {
        /// Who sent it.
        from: SiteId,
        /// Whose secret.
        of: SiteId,
    },
    /// A masked input of which a part is missing or changed.
    #[error("the masked input of site {0} is not the one that it signed: a part is missing or was changed")]
    Payload(SiteId),
    /// Too few sites are left.
    #[error("{present} sites are left for the step '{step}', and {needed} are needed; missing: {}", names(.missing))]
    TooFew {
        /// Step.
        step: Step,
        /// How many there are.
        present: usize,
        /// How many there must be.
        needed: usize,
        /// Who is not there.
        missing: Vec<SiteId>,
    },
    /// Too few of those who share masks with a site, and hold shares of its secrets, go on with it.
    #[error("{present} holders of shares of site {of}'s secrets go on, and {needed} must; missing: {}", names(.missing))]
    TooFewHolders {
        /// Whose secrets.
        of: SiteId,
        /// How many go on.
        present: usize,
        /// How many must.
        needed: usize,
        /// Who does not.
        missing: Vec<SiteId>,
    },
    /// Too few shares of one site's secret.
    #[error("{present} shares of site {of}'s secret are there, and {needed} are needed; missing: {}", names(.missing))]
    TooFewShares {
        /// Whose secret.
        of: SiteId,
        /// How many there are.
        present: usize,
        /// How many there must be.
        needed: usize,
        /// Holders that did not reveal.
        missing: Vec<SiteId>,
    },
    /// Members of a set who cannot be in it.
    #[error("the coordinator counts sites that cannot count: {}", names(.0))]
    Included(Vec<SiteId>),
    /// The site's own input is not in the sum.
    #[error("this site's input is not in the sum that it should help to unmask")]
    NotIncluded,
    /// Too few peers that this site knows.
    #[error("{found} sites in the sum are verified here or vouched for, and this site demands {least}")]
    Trusted {
        /// How many there are.
        found: usize,
        /// How many there must be.
        least: usize,
    },
    /// The sum has lost more noise than was planned for.
    #[error("{missing} sites are missing from the sum, and its noise is planned for at most {most}: {}", names(.sites))]
    Noise {
        /// How many are missing.
        missing: usize,
        /// How many may be.
        most: usize,
        /// Who.
        sites: Vec<SiteId>,
    },
    /// The same question over another cohort than before.
    #[error(
        "this was already answered for another set of sites, and two of them would tell about the difference; it takes the \
         same sites again, or for training another model to start from"
    )]
    OtherCohort,
    /// Too few signatures under one set of inputs.
    #[error("{found} sites signed this set of inputs, and {needed} must; not valid: {}", names(.invalid))]
    Consents {
        /// How many valid ones there are.
        found: usize,
        /// How many there must be.
        needed: usize,
        /// Whose signature is not one under this set, or who is not in the set.
        invalid: Vec<SiteId>,
    },
    /// Something comes before its turn or after it.
    #[error("'{found}' does not fit here: the round is at '{at}'")]
    OutOfTurn {
        /// What came.
        found: Step,
        /// Where the round is.
        at: Step,
    },
    /// The answer of a step is fixed, and something else is asked for.
    #[error("this site's answer in the step '{0}' is fixed; it is made once and only sent again")]
    Fixed(Step),
    /// Records that do not lead to what they say was sent.
    #[error("the records of this round do not fit together at the step '{0}'; nothing more is sent")]
    Record(Step),
    /// The secrets are erased.
    #[error("this site's secrets of the round are gone")]
    Gone,
    /// Bytes that cannot be read.
    #[error("the message cannot be read: {0}")]
    Unreadable(String),
}

impl Refusal {
    /// The sites that are missing, that cannot be in the round, or that said to an aggregator what they should not.
    ///
    /// Never a site only because somebody put its name to something: whatever is wrong with what a member is relayed, an
    /// honest coordinator would have refused; and what an aggregator refuses is the doing of the sender, whom its caller
    /// knows.
    pub fn parties(&self) -> &[SiteId] {
        match self {
            Self::NotApproved(site)
            | Self::Roster(site)
            | Self::Contradiction(site)
            | Self::Malformed { site, .. }
            | Self::Share { from: site, .. }
            | Self::Payload(site) => std::slice::from_ref(site),
            Self::TooFew { missing: sites, .. }
            | Self::TooFewHolders { missing: sites, .. }
            | Self::TooFewShares { missing: sites, .. }
            | Self::Noise { sites, .. } => sites,
            _ => &[],
        }
    }
}

fn names(sites: &[SiteId]) -> String {
    if sites.is_empty() {
        return "nobody".to_owned();
    }
    sites.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
