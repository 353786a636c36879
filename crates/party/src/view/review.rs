//! The review of a request: what people read before they sign, by the Five Safes.

use hospes_protocol::approval::{OpinionView, Role, Trust};
use hospes_protocol::id::{Digest, FederationId, SiteId, StudyId, Timestamp};
use hospes_protocol::plan::Egress;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::{InForce, NameMark, RequestState, StudyBudget};

/// A request as people read it before they sign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct Review {
    /// Study.
    pub study: StudyId,
    /// Federation.
    pub federation: FederationId,
    /// Digest of the study as it was offered.
    pub study_digest: Digest,
    /// Digest of the plan.
    pub plan_digest: Digest,
    /// What must be read first; the first line says what the coordinator can read.
    pub banners: Vec<String>,
    /// Title.
    pub title: String,
    /// The request in one paragraph.
    pub summary: String,
    /// State.
    pub state: RequestState,
    /// The approval under which rounds run, also while a further one is on its way.
    pub in_force: Option<InForce>,
    /// Project: purpose and basis.
    pub project: Vec<Fact>,
    /// People: who asks, who takes part.
    pub people: PeopleTab,
    /// Settings: where and how it runs, limits, what revocation stops.
    pub settings: Vec<Fact>,
    /// Data.
    pub data: DataTab,
    /// Outputs: what leaves.
    pub outputs: OutputsTab,
    /// What it takes of the privacy budget of the dataset's patients; `None` where no dataset is chosen.
    pub privacy: Option<StudyBudget>,
    /// The computation, a sentence for each component.
    pub computation: Vec<String>,
    /// Rules of the policy, the disclosure check and Data Use Ontology that refuse or want a person.
    pub findings: Vec<Finding>,
    /// Names of the request that may be taken for others.
    pub marks: Vec<NameMark>,
    /// Differences to the envelope approved last for this study or requester; `None` if there was none.
    pub changes: Option<Vec<Change>>,
    /// The privacy officer's opinion.
    pub opinion: Option<OpinionGiven>,
    /// Signatures so far.
    pub signatures: Vec<SignatureGiven>,
    /// Digest of the approval document that the next signer signs, once the first has signed.
    pub approval_digest: Option<Digest>,
    /// What a first signature is for: it carries this back, and is refused if something of it changed meanwhile.
    pub read: Reading,
    /// Whether it can be approved as it is.
    pub approvable: bool,
}

/// What a review says of that which a first signature binds, by digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Over all of it; by this one people name it in a terminal.
    pub digest: Digest,
    /// The study as it was offered.
    pub study: Digest,
    /// The dataset: its version, patients who are left, terms of use.
    pub data: Digest,
    /// The other sites and how their keys are trusted.
    pub sites: Digest,
    /// The policy.
    pub policy: Digest,
    /// The privacy officer's opinion, or that there is none.
    pub opinion: Digest,
}

/// A fact with its label; what nobody stated has no value and is shown as *not stated*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Fact {
    /// Label.
    pub label: String,
    /// Value; `None` reads *not stated*.
    pub value: Option<String>,
}

impl Fact {
    /// A fact that is known.
    pub fn new(label: &str, value: impl Into<String>) -> Self {
        Self { label: label.to_owned(), value: Some(value.into()) }
    }
    /// A fact that the requester may have left out; blanks count as left out.
    pub fn stated(label: &str, value: Option<&str>) -> Self {
        let value = value.map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned);
        Self { label: label.to_owned(), value }
    }
    /// The value, or *not stated*.
    pub fn words(&self) -> &str {
        self.value.as_deref().unwrap_or("not stated")
    }
}

/// Who asks and who takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PeopleTab {
    /// Who asks, controllers, recipients.
    pub facts: Vec<Fact>,
    /// Other sites and how this site trusts them.
    pub peers: Vec<PeerLine>,
}

/// Another site of the study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PeerLine {
    /// Site.
    pub site: SiteId,
    /// Its name.
    pub name: String,
    /// Its organisation.
    pub organisation: String,
    /// How this site trusts its key.
    pub trust: Trust,
}

impl PeerLine {
    /// How the key is trusted, in words.
    pub const fn trust_words(&self) -> &'static str {
        match self.trust {
            Trust::VerifiedHere => "verified here",
            Trust::VouchedFor => "vouched for by a site verified here",
            Trust::AssertedOnly => "asserted by the coordinator only",
        }
    }
}

/// Which data are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct DataTab {
    /// Dataset, snapshot, subjects, tags.
    pub facts: Vec<Fact>,
    /// Columns that are read.
    pub columns_read: Vec<String>,
    /// Columns that the study needs and the dataset does not have.
    pub columns_missing: Vec<String>,
    /// Names of the site's datasets that have all columns.
    pub candidates: Vec<String>,
    /// What a first signer is offered who approves later versions of the dataset too; `None` where no dataset is chosen, a newer
    /// version of it is there, the study has many settings, or the policy does not let them.
    pub series: Option<SeriesOffer>,
}

/// Approving later versions of a dataset, and not one snapshot alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct SeriesOffer {
    /// Patients of this version, those who opted out among them.
    pub patients: u64,
    /// Bounds that are suggested.
    pub bounds: SeriesBounds,
}

/// How many patients a version may have, those who opted out among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct SeriesBounds {
    /// Fewest.
    pub fewest: u64,
    /// Most.
    pub most: u64,
}

/// What leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct OutputsTab {
    /// Every item, with its times in all runs that the study asks for.
    pub items: Vec<Egress>,
    /// Runs that the study asks for: one, or one for each setting that it lists.
    pub runs: u32,
    /// Bytes of one run, at most.
    pub bytes_per_run: u64,
    /// Bytes of all runs.
    pub bytes_in_all: u64,
    /// Protection and its absence, release, in sentences.
    pub sentences: Vec<String>,
}

/// A rule that refuses, or that wants a person to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Finding {
    /// Rule, such as `disclosure.min_subjects`.
    pub rule: String,
    /// Whether it refuses; otherwise it is to be read.
    pub refuses: bool,
    /// In words.
    pub words: String,
}

/// A difference to the envelope approved last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Change {
    /// Place.
    pub place: String,
    /// What was approved.
    pub before: Option<String>,
    /// What is asked.
    pub after: Option<String>,
}

/// The privacy officer's opinion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct OpinionGiven {
    /// Name.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub view: OpinionView,
    /// In words.
    pub text: String,
}

/// A signature under the approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct SignatureGiven {
    /// Name.
    pub by: String,
    /// In which role.
    pub role: Role,
    /// When.
    pub at: Timestamp,
}
