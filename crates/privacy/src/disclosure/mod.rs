//! Statistical disclosure control: what the site's policy lets leave, rule by rule.
//!
//! Rules act at the border, on what leaves, on exports and on the auditor's view. Each rule is a function of the policy
//! and of counts; [`review()`] asks all of them about a plan and lists every one that refuses, and [`border`] applies
//! those that concern figures to a report before it leaves.

use std::fmt;

use hospes_protocol::policy::Disclosure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod border;
mod review;
pub mod subgroups;
pub mod tables;

pub use review::{Facts, review};

/// A rule of the policy, named by its place in the policy file where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Rule {
    /// Fewest distinct subjects.
    #[serde(rename = "disclosure.min_subjects")]
    MinSubjects,
    /// Suppression of small counts.
    #[serde(rename = "disclosure.min_cell")]
    MinCell,
    /// Fewest subjects of a subset and of what it leaves out.
    #[serde(rename = "disclosure.min_subset")]
    MinSubset,
    /// Parameters per subject.
    #[serde(rename = "disclosure.max_param_ratio")]
    MaxParamRatio,
    /// Levels of a category.
    #[serde(rename = "disclosure.max_levels")]
    MaxLevels,
    /// Levels of a category per subject.
    #[serde(rename = "disclosure.levels_density")]
    LevelsDensity,
    /// Sites in a round.
    #[serde(rename = "training.min_parties")]
    MinParties,
    /// Sites whose keys are verified or vouched for.
    #[serde(rename = "training.min_trusted_peers")]
    MinTrustedPeers,
    /// Masked updates.
    #[serde(rename = "training.force_secure_aggregation")]
    ForceSecureAggregation,
    /// One site's update that makes a model by itself.
    #[serde(rename = "training.single_updates")]
    SingleUpdates,
    /// Two-party studies.
    #[serde(rename = "bilateral.allow")]
    Bilateral,
    /// Differential privacy.
    #[serde(rename = "privacy.require_dp")]
    RequireDp,
    /// Delta against the number of subjects.
    #[serde(rename = "privacy.delta")]
    Delta,
    /// Updates leaving one by one.
    #[serde(rename = "egress.update")]
    EgressUpdate,
    /// Losses leaving one by one.
    #[serde(rename = "egress.loss")]
    EgressLoss,
    /// Metrics leaving one by one.
    #[serde(rename = "egress.metrics")]
    EgressMetrics,
    /// Numbers of rows leaving one by one.
    #[serde(rename = "egress.n")]
    EgressN,
    /// One signature for studies without secure aggregation.
    #[serde(rename = "approval.four_eyes")]
    FourEyes,
    /// The public-data policy is for public data.
    #[serde(rename = "public_data")]
    PublicData,
}

impl Rule {
    /// The name in a finding.
    ///
    /// # Disclosure
    /// Only the rule's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MinSubjects => "disclosure.min_subjects",
            Self::MinCell => "disclosure.min_cell",
            Self::MinSubset => "disclosure.min_subset",
            Self::MaxParamRatio => "disclosure.max_param_ratio",
            Self::MaxLevels => "disclosure.max_levels",
            Self::LevelsDensity => "disclosure.levels_density",
            Self::MinParties => "training.min_parties",
            Self::MinTrustedPeers => "training.min_trusted_peers",
            Self::ForceSecureAggregation => "training.force_secure_aggregation",
            Self::SingleUpdates => "training.single_updates",
            Self::Bilateral => "bilateral.allow",
            Self::RequireDp => "privacy.require_dp",
            Self::Delta => "privacy.delta",
            Self::EgressUpdate => "egress.update",
            Self::EgressLoss => "egress.loss",
            Self::EgressMetrics => "egress.metrics",
            Self::EgressN => "egress.n",
            Self::FourEyes => "approval.four_eyes",
            Self::PublicData => "public_data",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It does not happen, whoever signs.
    Refused,
    /// A person should think about it before they sign.
    Warning,
    /// Something that a person should know.
    Note,
}

/// What one rule says about a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Rule.
    pub rule: Rule,
    /// What it says.
    pub verdict: Verdict,
    /// In words.
    pub words: String,
}

impl Finding {
    fn new(rule: Rule, verdict: Verdict, words: impl Into<String>) -> Self {
        Self { rule, verdict, words: words.into() }
    }
}

/// Whether a dataset has enough distinct subjects.
///
/// # Disclosure
/// One bit: whether the number lies below the policy's.
pub fn enough_subjects(policy: &Disclosure, subjects: u64) -> bool {
    subjects >= policy.min_subjects
}

/// Whether a subset may be used: it and what it leaves out must each be empty or large enough, since the difference of
/// two results tells about the rest.
///
/// # Disclosure
/// One bit about two counts.
pub fn subset_allowed(policy: &Disclosure, subset: u64, whole: u64) -> bool {
    let rest = whole.saturating_sub(subset);
    subset >= policy.min_subset && (rest == 0 || rest >= policy.min_subset)
}

/// Whether enough rows have a part in weighted sums, by their effective number (Σa)²/Σa² (Kish 1965, section 11.7). Whoever
/// chooses the coefficients of a regression could else choose them so that one row outweighs all others, and read it off
/// the sums.
///
/// # Disclosure
/// One bit: whether it lies below the policy's `min_subset`.
pub fn share_allowed(policy: &Disclosure, effective_rows: f64) -> bool {
    policy.min_subset <= 1 || effective_rows >= policy.min_subset as f64
}

/// Whether a count may be shown: 0, or at least `min_cell`.
///
/// # Disclosure
/// One bit: whether it lies between 1 and `min_cell` − 1.
pub fn count_allowed(policy: &Disclosure, count: u64) -> bool {
    count == 0 || count >= policy.min_cell
}

/// Whether a category may be used: at most `max_levels` levels and at most `levels_density` levels for each subject.
///
/// # Disclosure
/// Nothing beyond which of the two rules refuses.
///
/// # Errors
/// The rule that refuses.
pub fn levels_allowed(policy: &Disclosure, levels: u64, subjects: u64) -> Result<(), Rule> {
    if levels > policy.max_levels {
        return Err(Rule::MaxLevels);
    }
    if levels as f64 > policy.levels_density * subjects as f64 {
        return Err(Rule::LevelsDensity);
    }
    Ok(())
}

/// Whether a model with so many parameters has too many for the subjects that it is trained on at this site, also where its
/// update is masked: how many the others have is known to nobody here. A GLM-like model is then refused (its parameters can
/// be solved for the rows), a network only warned about.
///
/// # Disclosure
/// The verdict tells about the ratio.
pub fn parameters_allowed(policy: &Disclosure, parameters: u64, subjects: u64, glm_like: bool) -> Option<Verdict> {
    let most = policy.max_param_ratio?;
    let too_many = parameters as f64 > most * subjects as f64;
    too_many.then_some(if glm_like { Verdict::Refused } else { Verdict::Warning })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::policy::Policy;

    #[test]
    fn every_rule_holds_at_its_border_and_not_one_beyond() {
        let policy = Policy::strict().disclosure;
        assert!(enough_subjects(&policy, 10) && !enough_subjects(&policy, 9));
        assert!(count_allowed(&policy, 0) && !count_allowed(&policy, 1));
        assert!(!count_allowed(&policy, 9) && count_allowed(&policy, 10));
        assert!(share_allowed(&policy, 10.0) && !share_allowed(&policy, 9.9) && !share_allowed(&policy, f64::NAN));
        assert!(share_allowed(&Policy::public_data().disclosure, 1.0));
        assert!(subset_allowed(&policy, 10, 20) && subset_allowed(&policy, 20, 20));
        assert!(!subset_allowed(&policy, 9, 20) && !subset_allowed(&policy, 11, 20) && !subset_allowed(&policy, 0, 20));
        assert_eq!(levels_allowed(&policy, 40, 1_000), Ok(()));
        assert_eq!(levels_allowed(&policy, 41, 1_000), Err(Rule::MaxLevels));
        assert_eq!(levels_allowed(&policy, 33, 100), Ok(()));
        assert_eq!(levels_allowed(&policy, 34, 100), Err(Rule::LevelsDensity));
        assert_eq!(parameters_allowed(&policy, 33, 100, true), None);
        assert_eq!(parameters_allowed(&policy, 34, 100, true), Some(Verdict::Refused));
        assert_eq!(parameters_allowed(&policy, 34, 100, false), Some(Verdict::Warning));
        let public = Policy::public_data().disclosure;
        assert_eq!(parameters_allowed(&public, u64::MAX, 1, true), None);
    }

    #[test]
    fn a_rule_is_written_by_its_name() {
        let rules = [Rule::MinSubjects, Rule::EgressN, Rule::ForceSecureAggregation, Rule::PublicData];
        for rule in rules {
            assert_eq!(serde_json::to_string(&rule).unwrap(), format!("\"{rule}\""));
        }
    }
}
