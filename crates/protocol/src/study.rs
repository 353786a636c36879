//! A study as it is offered to sites: who asks, for what, on which basis, with which plan.

use serde::{Deserialize, Serialize};

use crate::canon::{Canonical, Document};
use crate::id::{FederationId, SiteId, StudyId, Timestamp};
use crate::plan::Plan;
use crate::sign::PublicKey;

/// A study: terms and plan, signed by the requester and countersigned by the coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// Id, a UUIDv7.
    pub id: StudyId,
    /// Federation in which it is offered.
    pub federation: FederationId,
    /// When it was submitted.
    pub submitted: Timestamp,
    /// Purpose, people, basis.
    pub terms: Terms,
    /// Computation.
    pub plan: Canonical<Plan>,
    /// Sites asked, by selector resolution at submission, in order of their ids.
    pub members: Vec<SiteId>,
}

impl Document for Study {
    const KIND: &'static str = "study";
    const VERSION: u32 = 1;
}

/// Purpose, people and basis of a study. What is `None` is shown as *not stated*, never left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Title, for people.
    pub title: String,
    /// Purpose in plain words.
    pub purpose: String,
    /// Who asks.
    pub requester: Requester,
    /// GA4GH Data Use Ontology terms of the request, such as `DUO:0000006`.
    #[serde(default)]
    pub duo: Vec<String>,
    /// Disease (a MONDO id), where the request is disease specific.
    #[serde(default)]
    pub disease: Option<String>,
    /// HL7 purpose of use code, such as `HRESCH`.
    #[serde(default)]
    pub purpose_of_use: Option<String>,
    /// Controllers and their roles (joint controller, processor) with contacts.
    #[serde(default)]
    pub controllers: Vec<Controller>,
    /// Basis under Art. 6 GDPR.
    #[serde(default)]
    pub gdpr_article_6: Option<String>,
    /// Exception under Art. 9 GDPR.
    #[serde(default)]
    pub gdpr_article_9: Option<String>,
    /// Reference and date of the data protection impact assessment.
    #[serde(default)]
    pub impact_assessment: Option<String>,
    /// Reference and date of the agreement between the parties.
    #[serde(default)]
    pub agreement: Option<String>,
    /// Operator and hosting country of the coordinator.
    #[serde(default)]
    pub operator: Option<String>,
    /// Safeguard for a transfer to another country.
    #[serde(default)]
    pub transfer_safeguard: Option<String>,
    /// Who gets the results.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// How long the model is kept and how it is withdrawn.
    #[serde(default)]
    pub retention: Option<String>,
    /// Ethics decision: number, scope, expiry.
    #[serde(default)]
    pub ethics: Option<String>,
    /// European Health Data Space permit.
    #[serde(default)]
    pub ehds_permit: Option<String>,
    /// United States: IRB waiver, limited data set, or de-identified.
    #[serde(default)]
    pub us_basis: Option<String>,
    /// Whether the use is commercial.
    #[serde(default)]
    pub commercial: bool,
}

/// Who asks, with a signing key and who vouches for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requester {
    /// Name of the person.
    pub name: String,
    /// Their organisation.
    pub organisation: String,
    /// Their signing key; `None` while the requester signs through the coordinator's account only.
    #[serde(default)]
    pub key: Option<PublicKey>,
    /// Who vouches for that key.
    #[serde(default)]
    pub vouched_by: Option<String>,
}

/// A controller and its role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    /// Organisation.
    pub organisation: String,
    /// Its role: joint controller, controller, processor.
    pub role: String,
    /// Contact.
    pub contact: String,
}

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
