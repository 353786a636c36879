//! Who is in a federation: what each member says of itself, what the coordinator says of all, what members say of each
//! other.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::canon::{Canonical, Document};
use crate::id::{FederationId, SiteId, Timestamp};
use crate::sign::PublicKey;
use crate::{limits, text};

/// The members of a federation as the coordinator states them, signed by it. A site trusts what it says about another
/// site only as far as it verified that site's key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// Federation.
    pub federation: FederationId,
    /// Grows with every change; an older roster is refused.
    pub version: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Members in order of their ids.
    pub members: Vec<Member>,
}

impl Document for Roster {
    const KIND: &'static str = "roster";
    const VERSION: u32 = 1;
}

/// A member of a federation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Id: the digest of `identity`.
    pub site: SiteId,
    /// Name, unique in the federation.
    pub name: String,
    /// Organisation.
    pub organisation: String,
    /// Long-term identity key, made at the site.
    pub identity: PublicKey,
    /// The member's own signature over [`MemberStatement`], so that the coordinator cannot rename it.
    pub statement: crate::sign::Signature,
}

/// What a site says about itself when it enrols, signed with its identity key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberStatement {
    /// Federation that it joins.
    pub federation: FederationId,
    /// Name, unique in the federation.
    pub name: String,
    /// Organisation.
    pub organisation: String,
    /// Identity key.
    pub identity: PublicKey,
}

impl Document for MemberStatement {
    const KIND: &'static str = "member-statement";
    const VERSION: u32 = 1;
}

impl Member {
    /// Whether id, key, name and organisation belong together and the site itself signed them.
    #[must_use]
    pub fn holds(&self, federation: FederationId) -> bool {
        let statement = MemberStatement {
            federation,
            name: self.name.clone(),
            organisation: self.organisation.clone(),
            identity: self.identity,
        };
        self.site == self.identity.site_id()
            && Canonical::new(statement).is_ok_and(|s| self.identity.verifies(&s.digest(), &self.statement))
    }
}

/// Why a roster, or an entry of one, is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// Of another federation.
    #[error("the roster is of another federation")]
    Federation,
    /// Older than one that is known.
    #[error("the roster is version {offered}, and version {known} is known already")]
    Older {
        /// Its version.
        offered: u64,
        /// The version known.
        known: u64,
    },
    /// The same version with other contents: the coordinator tells sites different things.
    #[error("the roster's version {0} was known with other members; the coordinator contradicts itself")]
    Contradiction(u64),
    /// More members than a federation can have.
    #[error("the roster has more than {max} members", max = limits::ROSTER_SITES)]
    TooMany,
    /// Members out of order, or one twice.
    #[error("the roster's members are not in the order of their ids, or one stands twice")]
    Order,
    /// A member did not sign its entry, or its id is not that of its key.
    #[error("site {0} did not sign its entry in the roster; somebody changed its name, organisation or key")]
    Forged(SiteId),
    /// A name that cannot be shown.
    #[error("the name or organisation of site {site} {reason}")]
    Name {
        /// Site.
        site: SiteId,
        /// What is wrong.
        reason: String,
    },
    /// Two members with one name.
    #[error("two sites have the name '{0}'")]
    SameName(String),
}

impl Roster {
    /// Checks everything that a site can check by itself: order, every member's own signature, names.
    ///
    /// The coordinator's signature is [`crate::sign::Signed::signed_by`]'s to check.
    ///
    /// # Errors
    /// The first [`RosterError`].
    pub fn check(&self, federation: FederationId) -> Result<(), RosterError> {
        if self.federation != federation {
            return Err(RosterError::Federation);
        }
        if self.members.len() > limits::ROSTER_SITES {
            return Err(RosterError::TooMany);
        }
        if !self.members.windows(2).all(|pair| pair[0].site < pair[1].site) {
            return Err(RosterError::Order);
        }
        let mut names = BTreeSet::new();
        for member in &self.members {
            check_member(member, federation)?;
            if !names.insert(text::name_key(&member.name)) {
                return Err(RosterError::SameName(member.name.clone()));
            }
        }
        Ok(())
    }

    /// Whether this roster may take the place of one that is known: newer, or the very same.
    ///
    /// # Errors
    /// [`RosterError::Older`] or [`RosterError::Contradiction`].
    pub fn follows(&self, known: &Self) -> Result<(), RosterError> {
        if self.version < known.version {
            return Err(RosterError::Older { offered: self.version, known: known.version });
        }
        if self.version == known.version && self != known {
            return Err(RosterError::Contradiction(known.version));
        }
        Ok(())
    }
}

fn check_member(member: &Member, federation: FederationId) -> Result<(), RosterError> {
    for shown in [&member.name, &member.organisation] {
        text::check_name(shown).map_err(|reason| RosterError::Name { site: member.site, reason })?;
    }
    if member.holds(federation) { Ok(()) } else { Err(RosterError::Forged(member.site)) }
}

/// A site vouches for another: one step deep, and only if it verified that site itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vouch {
    /// Federation.
    pub federation: FederationId,
    /// Who vouches.
    pub by: SiteId,
    /// For whom.
    pub site: SiteId,
    /// That site's identity key.
    pub identity: PublicKey,
    /// That site's organisation.
    pub organisation: String,
    /// When.
    pub at: Timestamp,
}

impl Document for Vouch {
    const KIND: &'static str = "vouch";
    const VERSION: u32 = 1;
}
