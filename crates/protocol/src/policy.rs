//! The site's policy: what it never lets happen, whoever signs. Default-deny; TOML for people, hashed for approvals.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canon::{CanonError, Canonical, Document};
use crate::id::Digest;
use crate::plan::{self, Plan};
use crate::sign::PublicKey;
use crate::{limits, text};

/// A site's policy. [`Policy::strict`] is what a new site has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Name of the profile it started from; `public-data` marks everything made under it as PUBLIC DATA.
    pub profile: String,
    /// Rules at the border.
    pub disclosure: Disclosure,
    /// Rules for training.
    pub training: Training,
    /// Two-party studies.
    #[serde(default)]
    pub bilateral: Bilateral,
    /// Differential privacy.
    pub privacy: PrivacyRules,
    /// What may leave one by one.
    pub egress: EgressRules,
    /// Use of models here.
    #[serde(default)]
    pub models: ModelRules,
    /// How approvals are given.
    pub approval: ApprovalRules,
}

impl Document for Policy {
    const KIND: &'static str = "policy";
    const VERSION: u32 = 1;
}

/// Rules at the border: on what leaves, on exports, on the auditor's view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disclosure {
    /// Fewest distinct subjects of a dataset.
    pub min_subjects: u64,
    /// Counts of 1 to this minus 1 are suppressed.
    pub min_cell: u64,
    /// Fewest subjects of a subset.
    pub min_subset: u64,
    /// Largest number of parameters of a GLM-like model per subject; `None` switches the rule off.
    pub max_param_ratio: Option<f64>,
    /// Most levels of a category.
    pub max_levels: u64,
    /// Most levels of a category per subject.
    pub levels_density: f64,
    /// Histogram bins as percentage of the rows.
    pub hist_bins_pct: f64,
    /// Whether smallest and largest values are shown.
    pub min_max: Visibility,
    /// What a steward sees of the site's own data in the app.
    pub local_views: LocalViews,
}

/// Whether something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Not shown.
    Withheld,
    /// Shown.
    Shown,
}

/// What a steward sees of the site's own data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LocalViews {
    /// Everything, marked *does not leave*.
    Full,
    /// As it would be seen outside, for shared screens.
    Suppressed,
}

/// Rules for training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Fewest sites in a round.
    pub min_parties: u32,
    /// Fewest other sites in a round whose key was verified here or vouched for.
    pub min_trusted_peers: u32,
    /// Whether updates must travel masked. (What may leave one by one besides is `egress`.)
    pub force_secure_aggregation: bool,
    /// Sites of a round with secure aggregation that may collude with the coordinator without learning of another one more
    /// than the sum. Where it is not said: a third of the sites, rounded up, less one. Sites whose keys are known from the
    /// coordinator only count as well, and at least one does, but where this says 0 in a round of three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colluding: Option<u32>,
    /// Whether this site's update may make a model by itself (strategy `cyclic`): other sites can then read the update,
    /// however many take part.
    #[serde(default, skip_serializing_if = "is_off")]
    pub single_updates: bool,
}

/// A switch that is off is left out, so that policies from before it have the digest that approvals carry.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it a reference")]
fn is_off(switch: &bool) -> bool {
    !switch
}

/// Two-party studies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bilateral {
    /// With whom this site may be alone in a study.
    pub allow: Vec<Partner>,
}

/// Another site by its organisation and its key: neither name nor key alone is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partner {
    /// Its organisation, as the federation's roster has it.
    pub organisation: String,
    /// Its identity key.
    pub key: PublicKey,
}

/// Differential privacy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivacyRules {
    /// Whether a study without differential privacy is refused.
    pub require_dp: bool,
    /// Epsilon over all studies for one pool of subjects.
    pub epsilon_per_pool: f64,
    /// Delta; never above 1/(10·N).
    pub delta: f64,
}

/// What may leave one by one, rather than inside a secure sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressRules {
    /// Kinds allowed.
    pub allow: Vec<EgressKind>,
}

/// A kind of thing that leaves a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum EgressKind {
    /// Model updates, each with the number of rows that weighs it.
    Update,
    /// Training and validation loss.
    Loss,
    /// Evaluation metrics and statistics of this site.
    Metrics,
    /// Exact number of rows, told as a figure.
    N,
}

/// Use of models at this site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelRules {
    /// Whether predictions can be made.
    pub predict: Predict,
}

/// Whether predictions can be made; research use only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Predict {
    /// No.
    #[default]
    Off,
    /// For a whole dataset.
    Cohort,
    /// For one person too.
    Single,
}

/// How approvals are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRules {
    /// Whose two signatures count.
    pub four_eyes: FourEyes,
    /// Days after which an approval expires.
    pub expires_days: u32,
    /// Whether the privacy officer's opinion must be there before the second signature.
    #[serde(default)]
    pub require_opinion: bool,
    /// Whether an approval is for one snapshot only, and never for later versions of its dataset.
    #[serde(default, skip_serializing_if = "is_off")]
    pub snapshots_only: bool,
}

/// Whose two signatures count. An approval is always required; there is no switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FourEyes {
    /// Steward and approver, two people of this site.
    TwoPeople,
    /// The second is a named person of another organisation.
    External,
    /// One signature, effective after 72 hours, shown to every peer as *one person*.
    Delayed,
}

const LEAST: &str = "must be at least 3; only the profile public-data, for public datasets, may go below";

/// Why a policy file was refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, or not a policy.
    #[error("the policy file is not valid: {0}")]
    Parse(String),
    /// A value out of its range.
    #[error("policy value {place}: {reason}")]
    Value {
        /// Where.
        place: &'static str,
        /// Why.
        reason: String,
    },
    /// No canonical form.
    #[error(transparent)]
    Canon(#[from] CanonError),
}

impl Policy {
    /// The profile of a new site.
    pub fn strict() -> Self {
        Self {
            profile: "strict".into(),
            disclosure: Disclosure {
                min_subjects: 10,
                min_cell: 10,
                min_subset: 10,
                max_param_ratio: Some(0.33),
                max_levels: 40,
                levels_density: 0.33,
                hist_bins_pct: 10.0,
                min_max: Visibility::Withheld,
                local_views: LocalViews::Full,
            },
            training: Training {
                min_parties: 3,
                min_trusted_peers: 2,
                force_secure_aggregation: true,
                colluding: None,
                single_updates: false,
            },
            bilateral: Bilateral::default(),
            privacy: PrivacyRules { require_dp: false, epsilon_per_pool: 8.0, delta: 1e-6 },
            egress: EgressRules { allow: vec![EgressKind::Update] },
            models: ModelRules::default(),
            approval: ApprovalRules {
                four_eyes: FourEyes::TwoPeople,
                expires_days: 90,
                require_opinion: false,
                snapshots_only: false,
            },
        }
    }

    /// DataSHIELD's defaults (dsBase 6.3.3) for the disclosure rules, the rest as [`Policy::strict`].
    pub fn datashield() -> Self {
        let strict = Self::strict();
        Self {
            profile: "datashield".into(),
            disclosure: Disclosure { min_subjects: 3, min_cell: 3, min_subset: 3, ..strict.disclosure },
            ..strict
        }
    }

    /// For public data only: demo, reproduction and benchmarks. A dataset must carry the tag *public* to accept it.
    pub fn public_data() -> Self {
        let strict = Self::strict();
        Self {
            profile: "public-data".into(),
            disclosure: Disclosure {
                min_subjects: 1,
                min_cell: 1,
                min_subset: 1,
                max_param_ratio: None,
                min_max: Visibility::Shown,
                ..strict.disclosure
            },
            training: Training {
                min_parties: 2,
                min_trusted_peers: 0,
                force_secure_aggregation: false,
                colluding: None,
                single_updates: true,
            },
            egress: EgressRules {
                allow: vec![EgressKind::Update, EgressKind::Loss, EgressKind::Metrics, EgressKind::N],
            },
            ..strict
        }
    }

    /// Whether this is the public-data profile.
    pub fn is_public_data(&self) -> bool {
        self.profile == "public-data"
    }

    /// Whether `kind` may leave one by one.
    pub fn allows(&self, kind: EgressKind) -> bool {
        self.egress.allow.contains(&kind)
    }

    /// Whether updates must travel masked in a study that these others were asked for. Two cannot hide in a sum: between
    /// this site and a partner named for two-party studies there are no masks, and what that means was signed with the name.
    pub fn forces_masks(&self, others: &[Partner]) -> bool {
        let is_bilateral = matches!(others, [only] if self.bilateral.allow.contains(only));
        self.training.force_secure_aggregation && !is_bilateral
    }

    /// Why a plan does not have the differential privacy that is demanded, if any is.
    ///
    /// Every task that sends something has to have it: what the figures of another one tell about a patient has no bound.
    pub fn lacks_dp(&self, plan: &Plan) -> Option<String> {
        if !self.privacy.require_dp {
            return None;
        }
        let without = plan::without_dp(plan);
        if !without.is_empty() {
            let tasks = without.join(", ");
            return Some(format!("the policy demands differential privacy, which these tasks do not have: {tasks}"));
        }
        let largest = plan::with_dp(plan).map(|(_, _, dp)| dp.delta).fold(0.0, f64::max);
        let most = self.privacy.delta;
        (largest > most).then(|| format!("the plan's delta is {largest}, and the policy allows at most {most}"))
    }

    /// Fewest sites, and fewest other sites that are trusted, in a round of a study that these others were asked for: a
    /// partner named for two-party studies is enough alone.
    pub fn fewest(&self, others: &[Partner]) -> (u32, u32) {
        let Training { min_parties, min_trusted_peers, .. } = self.training;
        match others {
            [only] if self.bilateral.allow.contains(only) => (2, min_trusted_peers.min(1)),
            _ => (min_parties, min_trusted_peers),
        }
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// [`PolicyError`] names the line or the value.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        if text.len() > limits::POLICY_FILE_BYTES {
            return Err(PolicyError::Parse(format!("more than {} bytes", limits::POLICY_FILE_BYTES)));
        }
        let policy: Self = toml::from_str(text).map_err(|e| PolicyError::Parse(e.to_string()))?;
        policy.check()?;
        Ok(policy)
    }

    /// Writes the policy as a file.
    ///
    /// # Errors
    /// [`PolicyError::Parse`] if a value has no TOML form.
    pub fn to_toml(&self) -> Result<String, PolicyError> {
        toml::to_string_pretty(self).map_err(|e| PolicyError::Parse(e.to_string()))
    }

    /// JSON Schema of policies, pretty-printed; the same bytes every time. Editors apply it to TOML as well.
    pub fn json_schema() -> String {
        crate::plan::pretty_schema::<Self>()
    }

    /// Digest of the policy, which every approval carries.
    ///
    /// # Errors
    /// [`PolicyError::Canon`] if a value has no canonical form.
    pub fn digest(&self) -> Result<Digest, PolicyError> {
        Ok(Canonical::new(self.clone())?.digest())
    }

    fn check(&self) -> Result<(), PolicyError> {
        let value = |place: &'static str, good: bool, reason: &str| {
            if good { Ok(()) } else { Err(PolicyError::Value { place, reason: reason.into() }) }
        };
        let d = &self.disclosure;
        // What only public data may do is bound to the profile's name, which everything made under it shows.
        let (least, reason) = if self.is_public_data() { (1, "must be at least 1") } else { (3, LEAST) };
        value("disclosure.min_subjects", d.min_subjects >= least, reason)?;
        value("disclosure.min_cell", d.min_cell >= least, reason)?;
        value("disclosure.min_subset", d.min_subset >= least, reason)?;
        value(
            "disclosure.max_param_ratio",
            d.max_param_ratio.is_none_or(|r| r > 0.0 && r.is_finite()),
            "must be a positive number; leave it out to switch the rule off",
        )?;
        value(
            "disclosure.levels_density",
            d.levels_density > 0.0 && d.levels_density <= 1.0,
            "must lie between 0 and 1",
        )?;
        value(
            "disclosure.hist_bins_pct",
            d.hist_bins_pct > 0.0 && d.hist_bins_pct <= 100.0,
            "must lie between 0 and 100",
        )?;
        value("training.min_parties", self.training.min_parties >= 2, "must be at least 2")?;
        for partner in &self.bilateral.allow {
            text::check_name(&partner.organisation)
                .map_err(|e| PolicyError::Value { place: "bilateral.allow", reason: format!("an organisation {e}") })?;
        }
        value(
            "privacy.epsilon_per_pool",
            self.privacy.epsilon_per_pool > 0.0 && self.privacy.epsilon_per_pool.is_finite(),
            "must be a positive number",
        )?;
        value("privacy.delta", self.privacy.delta > 0.0 && self.privacy.delta < 0.01, "must lie between 0 and 0.01")?;
        value("approval.expires_days", (1..=3_660).contains(&self.approval.expires_days), "must lie between 1 and 3660")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_survive_toml_and_unknown_keys_are_refused() {
        for policy in [Policy::strict(), Policy::datashield(), Policy::public_data()] {
            let text = policy.to_toml().unwrap();
            assert_eq!(Policy::from_toml(&text).unwrap(), policy);
            let extra = text.replace("[training]", "[training]\nmin_party = 1");
            assert!(Policy::from_toml(&extra).unwrap_err().to_string().contains("min_party"));
        }
        let none = "[bilateral]\nallow = []";
        let partner = |partner: &str| {
            let text = Policy::strict().to_toml().unwrap();
            assert!(text.contains(none), "{text}");
            Policy::from_toml(&text.replace(none, &format!("[bilateral]\nallow = [{partner}]")))
        };
        let key = crate::sign::SecretKey::from_seed(&[1; 32]).public();
        let named = partner(&format!("{{ organisation = \"Hospital\", key = \"{key}\" }}")).unwrap();
        assert_eq!(named.bilateral.allow, [Partner { organisation: "Hospital".into(), key }]);
        assert_eq!(Policy::from_toml(&named.to_toml().unwrap()).unwrap(), named);
        let blank = partner(&format!("{{ organisation = \" \", key = \"{key}\" }}")).unwrap_err().to_string();
        assert!(blank.contains("bilateral.allow"), "{blank}");
        assert!(partner("\"Hospital\"").is_err(), "a name without a key");
        assert!(partner("{ organisation = \"Hospital\", key = \"00\" }").is_err(), "half a key");
        // A switch that is off is not written, so that the digests in older approvals stay as they are.
        assert!(!Policy::strict().to_toml().unwrap().contains("snapshots_only"));
        let text = Policy::strict().to_toml().unwrap().replace("[approval]", "[approval]\nsnapshots_only = true");
        assert!(Policy::from_toml(&text).unwrap().approval.snapshots_only, "{text}");
        let loose = Policy::strict().to_toml().unwrap().replace("min_parties = 3", "min_parties = 1");
        assert!(Policy::from_toml(&loose).unwrap_err().to_string().contains("training.min_parties"));
    }
}
