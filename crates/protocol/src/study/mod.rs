//! A study as it is offered to sites: who asks, for what, on which basis, with which plan.

use serde::{Deserialize, Serialize};

use crate::canon::{Canonical, Document};
use crate::id::{FederationId, SiteId, StudyId, Timestamp};
use crate::plan::Plan;
use crate::sign::PublicKey;

mod check;
mod roster;
mod settings;
mod sweep;

pub use check::{StudyFile, TermsError, check_terms, json_schema, read_terms};
pub use roster::{Member, MemberStatement, Roster, RosterError, Vouch};
pub use settings::may_vary;
pub use sweep::{Direction, Metric, Rank, RankFile, Setting, Sweep, SweepFile, egress_in_all};

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
    /// Settings with which the plan is run, where it is run more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
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
