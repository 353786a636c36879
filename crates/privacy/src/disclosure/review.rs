//! All rules about one plan: what the review screen shows, and every reason for which the policy refuses.

use std::collections::BTreeMap;

use hospes_protocol::plan::model::{is_glm_like, parameters};
use hospes_protocol::plan::{self, Component, NnTrain, Plan, Privacy, Strategy, Variable};
use hospes_protocol::policy::{EgressKind, FourEyes, Partner, Policy};

use super::{Finding, Rule, Verdict, enough_subjects, levels_allowed, parameters_allowed};

/// What is known at this site about the data and the round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Distinct subjects of the dataset that did not opt out.
    pub subjects: u64,
    /// Distinct subjects of the smallest table that anything leaves about (after splits), where it is known.
    pub smallest_subset: Option<u64>,
    /// Distinct subjects of the table that a model is trained on, where it is known; otherwise all of the dataset's.
    pub training_subjects: Option<u64>,
    /// Distinct subjects of all sites together, where it is known. Counts only under secure aggregation.
    pub pooled_subjects: Option<u64>,
    /// Whether the dataset is tagged as public.
    pub public: bool,
    /// Sites, this one included.
    pub parties: u32,
    /// Other sites whose key was verified here or vouched for.
    pub trusted_peers: u32,
    /// The other sites.
    pub partners: Vec<Partner>,
}

/// Everything that the policy says about a plan: every rule that refuses, then warnings, then notes.
///
/// # Disclosure
/// For the site's own people: the words name the policy's limits, and counts of subjects as far as they decide. It
/// leaves the site only as a refusal that a person chose to send.
pub fn review(policy: &Policy, plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_profile(policy, facts, &mut findings);
    check_data(policy, plan, facts, &mut findings);
    check_roster(policy, facts, &mut findings);
    check_turns(policy, plan, &mut findings);
    check_protection(policy, plan, facts, &mut findings);
    check_models(policy, plan, facts, &mut findings);
    check_regressions(policy, plan, facts, &mut findings);
    check_egress(policy, plan, &mut findings);
    // Sorting is stable: within one verdict the order of the checks stays.
    findings.sort_by_key(|finding| finding.verdict);
    findings
}

fn refuse(findings: &mut Vec<Finding>, rule: Rule, words: String) {
    findings.push(Finding::new(rule, Verdict::Refused, words));
}

fn check_profile(policy: &Policy, facts: &Facts, findings: &mut Vec<Finding>) {
    if !policy.is_public_data() {
        return;
    }
    if facts.public {
        findings.push(Finding::new(Rule::PublicData, Verdict::Note, "PUBLIC DATA: made under the public-data policy"));
    } else {
        let words = "the public-data policy is for datasets tagged public, and this one is not";
        refuse(findings, Rule::PublicData, words.into());
    }
}

fn check_data(policy: &Policy, plan: &Plan, facts: &Facts, findings: &mut Vec<Finding>) {
    let rules = &policy.disclosure;
    if !enough_subjects(rules, facts.subjects) {
        let words = format!("{} subjects, the policy asks for at least {}", facts.subjects, rules.min_subjects);
        refuse(findings, Rule::MinSubjects, words);
    }
    if let Some(subset) = facts.smallest_subset.filter(|subset| *subset < rules.min_subset) {
        let words =
            format!("a part of the data has {subset} subjects, the policy asks for at least {}", rules.min_subset);
        refuse(findings, Rule::MinSubset, words);
    }
    for (name, variable) in &plan.data.variables {
        let Variable::Category { codes } = variable else { continue };
        let levels = codes.len() as u64;
        match levels_allowed(rules, levels, facts.subjects) {
            Ok(()) => {}
            Err(rule) => {
                let most = match rule {
                    Rule::MaxLevels => format!("at most {}", rules.max_levels),
                    _ => format!("at most {} for each of {} subjects", rules.levels_density, facts.subjects),
                };
                refuse(findings, rule, format!("'{name}' has {levels} levels, the policy allows {most}"));
            }
        }
    }
}

/// As `Approval::permit` has it: with the one partner that the policy names, two sites and one trusted peer are enough.
fn check_roster(policy: &Policy, facts: &Facts, findings: &mut Vec<Finding>) {
    let (parties, trusted) = policy.fewest(&facts.partners);
    if facts.parties < parties {
        let words = format!("{} sites take part, the policy asks for at least {parties}", facts.parties);
        refuse(findings, Rule::MinParties, words);
    }
    if facts.trusted_peers < trusted {
        let words = format!(
            "{} other sites are verified here or vouched for, the policy asks for at least {trusted}",
            facts.trusted_peers
        );
        refuse(findings, Rule::MinTrustedPeers, words);
    }
    if facts.parties == 2 && facts.parties < parties {
        let words = match facts.partners.first() {
            Some(Partner { organisation, .. }) => {
                format!("only two sites take part, and '{organisation}' with its key is no partner of the policy's")
            }
            None => "only two sites take part, and the partner is not known".to_owned(),
        };
        refuse(findings, Rule::Bilateral, words);
    } else if facts.parties == 2 && !policy.is_public_data() {
        let words = "only two sites take part: the partner can subtract its own part of every sum";
        findings.push(Finding::new(Rule::Bilateral, Verdict::Warning, words));
    }
}

/// By turns, a sum has one site's part, however many take part.
fn check_turns(policy: &Policy, plan: &Plan, findings: &mut Vec<Finding>) {
    for (name, _) in trainings(plan).filter(|(_, train)| train.strategy == Strategy::Cyclic {}) {
        let words = format!("in '{name}' the next site starts from this site's model and can read its update");
        if policy.training.single_updates {
            findings.push(Finding::new(Rule::SingleUpdates, Verdict::Warning, words));
        } else {
            refuse(findings, Rule::SingleUpdates, format!("{words}, which the policy does not allow"));
        }
    }
}

fn trainings(plan: &Plan) -> impl Iterator<Item = (&String, &NnTrain)> {
    plan.tasks.iter().filter_map(|(name, task)| match &task.component {
        Component::NnTrain(train) => Some((name, train.as_ref())),
        _ => None,
    })
}

fn is_secure(train: &NnTrain) -> bool {
    matches!(train.privacy, Privacy::SecureAggregation {})
}

fn check_protection(policy: &Policy, plan: &Plan, facts: &Facts, findings: &mut Vec<Finding>) {
    let federated = plan.tasks.iter().filter(|(_, task)| task.component.rounds() > 0);
    let open: Vec<&str> =
        federated.filter(|(_, task)| !task.component.is_masked()).map(|(name, _)| name.as_str()).collect();
    if !open.is_empty() {
        let updates: Vec<&str> =
            trainings(plan).filter(|(_, train)| !is_secure(train)).map(|(name, _)| name.as_str()).collect();
        let is_against = policy.forces_masks(&facts.partners) && !updates.is_empty();
        if is_against {
            let tasks = updates.join(", ");
            let words = format!("the policy demands secure aggregation, which these tasks do not use: {tasks}");
            refuse(findings, Rule::ForceSecureAggregation, words);
        }
        // Whether figures may leave one by one is a rule of its own.
        let readable: Vec<&str> = open.into_iter().filter(|name| !(is_against && updates.contains(name))).collect();
        if !readable.is_empty() {
            let words = format!("the coordinator can read what this site sends for: {}", readable.join(", "));
            findings.push(Finding::new(Rule::ForceSecureAggregation, Verdict::Warning, words));
        }
        if policy.approval.four_eyes == FourEyes::Delayed {
            let words = "with one signature only, a study without secure aggregation is refused";
            refuse(findings, Rule::FourEyes, words.into());
        }
    }
    let without = plan::without_dp(plan);
    if let Some(words) = policy.lacks_dp(plan) {
        refuse(findings, Rule::RequireDp, words);
    } else if plan::with_dp(plan).next().is_none() {
        let words = "no differential privacy: no bound holds on what results tell about one person";
        findings.push(Finding::new(Rule::RequireDp, Verdict::Note, words));
    } else if !without.is_empty() {
        let words = format!("no differential privacy for what leaves of these tasks: {}", without.join(", "));
        findings.push(Finding::new(Rule::RequireDp, Verdict::Note, words));
    }
    // δ ≤ 1/(10·N) (specs/approvals-and-policy.md); it matters as soon as anything is spent under it.
    if policy.privacy.delta * 10.0 * facts.subjects as f64 > 1.0 {
        let words = format!("the policy's delta is above 1/(10·{}), one in ten subjects' worth", facts.subjects);
        let verdict = if policy.privacy.require_dp { Verdict::Refused } else { Verdict::Warning };
        findings.push(Finding::new(Rule::Delta, verdict, words));
    }
}

fn check_models(policy: &Policy, plan: &Plan, facts: &Facts, findings: &mut Vec<Finding>) {
    for (name, train) in trainings(plan) {
        let count = parameters(&train.model, plan::inputs(plan, name));
        let pooled = facts.pooled_subjects.filter(|_| is_secure(train));
        let subjects = pooled.unwrap_or_else(|| facts.training_subjects.unwrap_or(facts.subjects));
        let Some(verdict) = parameters_allowed(&policy.disclosure, count, subjects, is_glm_like(&train.model)) else {
            continue;
        };
        let most = policy.disclosure.max_param_ratio.unwrap_or_default();
        let words =
            format!("'{name}' has {count} parameters, the policy allows {most} for each of {subjects} subjects");
        findings.push(Finding::new(Rule::MaxParamRatio, verdict, words));
    }
}

fn check_regressions(policy: &Policy, plan: &Plan, facts: &Facts, findings: &mut Vec<Finding>) {
    let subjects = facts.training_subjects.unwrap_or(facts.subjects);
    for name in plan.tasks.keys() {
        let Some(coefficients) = plan::Coefficients::of(plan, name) else { continue };
        let count = coefficients.len() as u64;
        if let Some(verdict) = parameters_allowed(&policy.disclosure, count, subjects, true) {
            let most = policy.disclosure.max_param_ratio.unwrap_or_default();
            let words =
                format!("'{name}' has {count} coefficients, the policy allows {most} for each of {subjects} subjects");
            findings.push(Finding::new(Rule::MaxParamRatio, verdict, words));
        }
    }
}

fn check_egress(policy: &Policy, plan: &Plan, findings: &mut Vec<Finding>) {
    let mut refused: BTreeMap<EgressKind, Vec<String>> = BTreeMap::new();
    let mut counts = Vec::new();
    for item in plan::egress(plan) {
        let named = format!("{} of {}", item.name, item.task);
        if !policy.allows(item.kind) {
            refused.entry(item.kind).or_default().push(named);
        } else if item.kind != EgressKind::Update || plan::masks::reports_figures(plan, &item.task) {
            counts.push(named);
        }
    }
    // With noise, the weight of an update is a constant of the plan.
    let counted = trainings(plan).filter(|(_, train)| !is_secure(train) && train.dp.is_none());
    let told: Vec<&str> = counted.map(|(name, _)| name.as_str()).collect();
    if !told.is_empty() && policy.allows(EgressKind::Update) && !policy.allows(EgressKind::N) {
        let words = format!(
            "without secure aggregation each update tells the coordinator the number of this site's rows that it was made \
             from: {}",
            told.join(", ")
        );
        findings.push(Finding::new(Rule::EgressN, Verdict::Warning, words));
    }
    for (kind, items) in refused {
        let (rule, what) = match kind {
            EgressKind::Update => (Rule::EgressUpdate, "updates"),
            EgressKind::Loss => (Rule::EgressLoss, "losses"),
            EgressKind::Metrics => (Rule::EgressMetrics, "metrics"),
            EgressKind::N => (Rule::EgressN, "numbers of rows"),
        };
        let words = format!("the policy does not let {what} of this site leave one by one: {}", items.join(", "));
        refuse(findings, rule, words);
    }
    if policy.disclosure.min_cell > 1 && !counts.is_empty() {
        let words = format!(
            "histograms by score are withheld, and all but the number of rows where a count lies between 1 and {} or \
             only one class is present: {}",
            policy.disclosure.min_cell - 1,
            counts.join(", ")
        );
        findings.push(Finding::new(Rule::MinCell, Verdict::Note, words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::study::StudyFile;
    use std::collections::BTreeSet;

    fn heart() -> Plan {
        StudyFile::read(include_str!("../../../../examples/heart/plain.yaml")).unwrap().plan
    }

    fn facts() -> Facts {
        Facts {
            subjects: 303,
            smallest_subset: Some(104),
            training_subjects: Some(199),
            pooled_subjects: Some(740),
            public: true,
            parties: 4,
            trusted_peers: 0,
            partners: ["B", "C", "D"].map(partner).into(),
        }
    }

    fn partner(organisation: &str) -> Partner {
        let key = hospes_protocol::sign::SecretKey::from_seed(&[organisation.as_bytes()[0]; 32]).public();
        Partner { organisation: organisation.into(), key }
    }

    fn refusals(policy: &Policy, plan: &Plan, facts: &Facts) -> Vec<Rule> {
        let findings = review(policy, plan, facts);
        findings.iter().filter(|f| f.verdict == Verdict::Refused).map(|f| f.rule).collect()
    }

    #[test]
    fn public_data_policy_allows_the_heart_study() {
        let findings = review(&Policy::public_data(), &heart(), &facts());
        assert_eq!(refusals(&Policy::public_data(), &heart(), &facts()), []);
        assert!(findings.iter().any(|f| f.rule == Rule::PublicData && f.words.starts_with("PUBLIC DATA")));
        let warning = findings.iter().find(|f| f.rule == Rule::ForceSecureAggregation).unwrap();
        assert_eq!(warning.verdict, Verdict::Warning);
        assert!(warning.words.starts_with("the coordinator can read"));
        let private = Facts { public: false, ..facts() };
        assert_eq!(refusals(&Policy::public_data(), &heart(), &private), [Rule::PublicData]);
    }

    #[test]
    fn turns_are_refused_unless_the_policy_lets_one_update_make_a_model() {
        let mut plan = heart();
        let Component::NnTrain(train) = &mut plan.tasks.get_mut("train").unwrap().component else { panic!() };
        train.strategy = Strategy::Cyclic {};
        let mut policy = Policy::public_data();
        assert_eq!(refusals(&policy, &plan, &facts()), []);
        let findings = review(&policy, &plan, &facts());
        let warning = findings.iter().find(|f| f.rule == Rule::SingleUpdates).unwrap();
        assert!(warning.verdict == Verdict::Warning && warning.words.contains("can read its update"), "{warning:?}");
        policy.training.single_updates = false;
        assert_eq!(refusals(&policy, &plan, &facts()), [Rule::SingleUpdates]);
        assert!(review(&policy, &heart(), &facts()).iter().all(|f| f.rule != Rule::SingleUpdates));
    }

    #[test]
    fn strict_policy_refuses_the_public_data_study_and_lists_every_rule() {
        // Switzerland: 46 usable patients, 30 of them in the training part.
        let facts = Facts { subjects: 46, smallest_subset: Some(16), training_subjects: Some(30), ..facts() };
        let wanted = [
            Rule::MinTrustedPeers,
            Rule::ForceSecureAggregation,
            Rule::MaxParamRatio,
            Rule::EgressLoss,
            Rule::EgressMetrics,
            Rule::EgressN,
        ];
        assert_eq!(refusals(&Policy::strict(), &heart(), &facts), wanted);
        let findings = review(&Policy::strict(), &heart(), &facts);
        let words: Vec<String> = findings.iter().map(|f| format!("{}: {}", f.rule, f.words)).collect();
        expect_test::expect![[r#"
            training.min_trusted_peers: 0 other sites are verified here or vouched for, the policy asks for at least 2
            training.force_secure_aggregation: the policy demands secure aggregation, which these tasks do not use: train
            disclosure.max_param_ratio: 'train' has 14 parameters, the policy allows 0.33 for each of 30 subjects
            egress.loss: the policy does not let losses of this site leave one by one: loss_sum of alone, loss_sum of eval
            egress.metrics: the policy does not let metrics of this site leave one by one: correct of alone, brier_sum of alone, confusion of alone, scores_positive of alone, scores_negative of alone, correct of eval, brier_sum of eval, confusion of eval, scores_positive of eval, scores_negative of eval, calibration_rows of eval, calibration_scores of eval, calibration_positives of eval, recalibration_information of eval, recalibration_weighted of eval
            egress.n: the policy does not let numbers of rows of this site leave one by one: n of alone, n of eval
            training.force_secure_aggregation: the coordinator can read what this site sends for: alone, eval
            egress.n: without secure aggregation each update tells the coordinator the number of this site's rows that it was made from: train
            privacy.require_dp: no differential privacy: no bound holds on what results tell about one person"#]].assert_eq(&words.join("\n"));
    }

    /// The heart study without what reports figures.
    fn training_alone() -> Plan {
        let mut plan = heart();
        plan.tasks.retain(|_, task| !matches!(task.component, Component::Evaluation(_) | Component::LocalBaseline(_)));
        plan
    }

    /// The same plan with masks for its updates.
    fn masked(mut plan: Plan) -> Plan {
        let Component::NnTrain(train) = &mut plan.tasks.get_mut("train").unwrap().component else { panic!() };
        train.privacy = Privacy::SecureAggregation {};
        plan
    }

    #[test]
    fn what_reports_figures_is_allowed_where_all_of_them_are_masked() {
        let facts = Facts { trusted_peers: 3, public: false, ..facts() };
        let mut plan = masked(heart());
        for task in plan.tasks.values_mut() {
            match &mut task.component {
                Component::Evaluation(evaluation) => evaluation.privacy = Privacy::SecureAggregation {},
                Component::LocalBaseline(baseline) => baseline.privacy = Privacy::SecureAggregation {},
                _ => {}
            }
        }
        assert_eq!(refusals(&Policy::strict(), &plan, &facts), []);
        let findings = review(&Policy::strict(), &plan, &facts);
        assert!(findings.iter().all(|f| f.rule != Rule::ForceSecureAggregation), "{findings:?}");
        // What is withheld of them is said all the same.
        assert!(
            findings.iter().any(|f| f.rule == Rule::MinCell && f.words.contains("confusion of eval")),
            "{findings:?}"
        );
    }

    #[test]
    fn strict_and_datashield_allow_masked_training_and_refuse_what_reports_figures() {
        let facts = Facts { trusted_peers: 3, public: false, ..facts() };
        for policy in [Policy::strict(), Policy::datashield()] {
            assert_eq!(refusals(&policy, &training_alone(), &facts), [Rule::ForceSecureAggregation]);
            let findings = review(&policy, &masked(training_alone()), &facts);
            assert!(findings.iter().all(|f| f.verdict != Verdict::Refused), "{}: {findings:?}", policy.profile);
            let figures = [Rule::EgressLoss, Rule::EgressMetrics, Rule::EgressN];
            assert_eq!(refusals(&policy, &masked(heart()), &facts), figures, "{}", policy.profile);
            // Where masks are not forced, what the coordinator learns without them is said before anybody signs.
            let mut free = policy.clone();
            free.training.force_secure_aggregation = false;
            let findings = review(&free, &training_alone(), &facts);
            let told = findings.iter().find(|f| f.rule == Rule::EgressN).unwrap();
            assert!(told.verdict == Verdict::Warning && told.words.ends_with("made from: train"), "{told:?}");
            let nothing = Policy { egress: hospes_protocol::policy::EgressRules { allow: Vec::new() }, ..policy };
            assert_eq!(refusals(&nothing, &masked(training_alone()), &facts), [Rule::EgressUpdate]);
        }
        // They differ in the smallest counts.
        let few = Facts { subjects: 60, smallest_subset: Some(5), training_subjects: Some(55), ..facts };
        assert_eq!(refusals(&Policy::strict(), &masked(training_alone()), &few), [Rule::MinSubset]);
        assert_eq!(refusals(&Policy::datashield(), &masked(training_alone()), &few), []);
    }

    #[test]
    fn a_policy_that_forces_masks_takes_a_masked_update_and_says_what_is_readable_besides() {
        let facts = Facts { trusted_peers: 3, public: false, ..facts() };
        let mut policy = Policy::strict();
        let findings = review(&policy, &masked(training_alone()), &facts);
        let said = |rule: Rule| findings.iter().any(|f| f.rule == rule);
        assert!(!said(Rule::ForceSecureAggregation) && !said(Rule::EgressN), "{findings:?}");
        // Figures beside it are readable, where the policy lets them leave at all.
        policy.egress = Policy::public_data().egress;
        assert_eq!(refusals(&policy, &masked(heart()), &facts), []);
        let findings = review(&policy, &masked(heart()), &facts);
        let readable = findings.iter().find(|f| f.rule == Rule::ForceSecureAggregation).unwrap();
        assert!(readable.verdict == Verdict::Warning && readable.words.ends_with("for: alone, eval"), "{readable:?}");
        // Two cannot hide in a sum: with a partner that the policy names there are no masks.
        policy.bilateral.allow = vec![partner("Partner")];
        let two = Facts { parties: 2, trusted_peers: 1, partners: vec![partner("Partner")], ..facts };
        assert_eq!(refusals(&policy, &heart(), &two), []);
    }

    #[test]
    fn a_policy_that_everything_offends_is_told_every_rule() {
        let mut policy = Policy::strict();
        policy.training.force_secure_aggregation = true;
        policy.privacy.require_dp = true;
        policy.privacy.delta = 9e-3;
        policy.egress.allow.clear();
        policy.approval.four_eyes = FourEyes::Delayed;
        policy.training.min_parties = 3;
        let mut plan = heart();
        let codes = |n: u32| Variable::Category { codes: (0..n).map(|i| i.to_string()).collect() };
        plan.data.variables.insert("site_code".into(), codes(41));
        plan.data.variables.insert("ward".into(), codes(20));
        let facts = Facts {
            subjects: 12,
            smallest_subset: Some(4),
            training_subjects: Some(8),
            parties: 2,
            partners: vec![partner("Stranger")],
            ..Facts::default()
        };
        let found: BTreeSet<Rule> = refusals(&policy, &plan, &facts).into_iter().collect();
        let wanted: BTreeSet<Rule> = [
            Rule::MinSubset,
            Rule::MaxParamRatio,
            Rule::MaxLevels,
            Rule::LevelsDensity,
            Rule::MinParties,
            Rule::MinTrustedPeers,
            Rule::ForceSecureAggregation,
            Rule::Bilateral,
            Rule::RequireDp,
            Rule::Delta,
            Rule::EgressUpdate,
            Rule::EgressLoss,
            Rule::EgressMetrics,
            Rule::EgressN,
            Rule::FourEyes,
        ]
        .into();
        assert_eq!(found.difference(&wanted).collect::<Vec<_>>(), Vec::<&Rule>::new());
        assert_eq!(wanted.difference(&found).filter(|r| **r != Rule::Delta).collect::<Vec<_>>(), Vec::<&Rule>::new());
        let few = Facts { subjects: 9, ..facts };
        assert!(refusals(&policy, &plan, &few).contains(&Rule::MinSubjects));
        let many = Facts { subjects: 1_000_000, ..few };
        assert!(refusals(&policy, &plan, &many).contains(&Rule::Delta));
    }

    #[test]
    fn a_known_partner_is_allowed_with_a_warning() {
        let mut policy = Policy::public_data();
        policy.profile = "ours".into();
        policy.bilateral.allow = vec![partner("Partner")];
        let two = Facts { parties: 2, partners: vec![partner("Partner")], ..facts() };
        assert_eq!(refusals(&policy, &heart(), &two), []);
        let findings = review(&policy, &heart(), &two);
        assert!(findings.iter().any(|f| f.rule == Rule::Bilateral && f.verdict == Verdict::Warning));
        policy.training.min_parties = 3;
        policy.training.min_trusted_peers = 2;
        let trusted = Facts { trusted_peers: 1, ..two };
        assert_eq!(refusals(&policy, &heart(), &trusted), []);
        let another_key = Partner { key: partner("B").key, ..partner("Partner") };
        for partners in [vec![another_key], vec![Partner { organisation: "B".into(), ..partner("Partner") }]] {
            assert!(refusals(&policy, &heart(), &Facts { partners, ..trusted.clone() }).contains(&Rule::Bilateral));
        }
        policy.bilateral.allow.clear();
        let wanted = [Rule::MinParties, Rule::MinTrustedPeers, Rule::Bilateral];
        assert_eq!(refusals(&policy, &heart(), &trusted), wanted);
    }

    #[test]
    fn refusals_come_before_warnings_and_notes() {
        let verdicts: Vec<Verdict> = review(&Policy::strict(), &heart(), &facts()).iter().map(|f| f.verdict).collect();
        assert!(verdicts.is_sorted());
    }
}
