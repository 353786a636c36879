//! Which rules of policy, disclosure and terms of use refuse a request, all of them at once.
//!
//! `Approval::permit` asks the same before every round and stops at the first; here people see the whole list before
//! they sign.

use hospes_cohort::schema::ColumnKind;
use hospes_protocol::approval::Trust;
use hospes_protocol::plan::{self, Component, Layer, Variable, model};
use hospes_protocol::policy::FourEyes;

use super::duo::{self, DuoVerdict};
use super::sign::Case;
use crate::datasets::Dataset;
use crate::view::Finding;

/// Everything that refuses the case, or that a person must read before signing.
pub(super) fn findings(case: &Case) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    plan_rules(case, &mut found);
    party_rules(case, &mut found);
    protection_rules(case, &mut found);
    match case.dataset() {
        Some(dataset) => data_rules(case, dataset, &mut found),
        None => found.refuse("data", "no dataset is chosen; none, or more than one, has all columns".into()),
    }
    found.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn refuse(&mut self, rule: &str, words: String) {
        self.0.push(Finding { rule: rule.to_owned(), refuses: true, words });
    }
    fn read(&mut self, rule: &str, words: String) {
        self.0.push(Finding { rule: rule.to_owned(), refuses: false, words });
    }
}

fn plan_rules(case: &Case, found: &mut Findings) {
    if let Err(error) = plan::check(&case.offered.study.plan) {
        for problem in error.problems {
            found.refuse("plan", problem.to_string());
        }
    }
    let mut kinds: Vec<_> = plan::egress(&case.offered.study.plan).iter().map(|e| e.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds.into_iter().filter(|k| !case.policy.allows(*k)) {
        let name = format!("{kind:?}").to_lowercase();
        found.refuse("egress.allow", format!("the policy does not let '{name}' of this site leave one by one"));
    }
}

fn party_rules(case: &Case, found: &mut Findings) {
    let (study, policy) = (&case.offered.study, &case.policy);
    let peers = case.peers();
    let strangers = study.members.len().saturating_sub(1).saturating_sub(peers.len());
    if strangers > 0 {
        found.refuse("roster", format!("{strangers} of the sites asked are not members of the federation"));
    }
    if !study.members.contains(&case.membership.site) {
        found.refuse("roster", "this site is not among those asked".into());
    }
    let bilateral = matches!(peers.as_slice(), [only] if policy.bilateral.allow.contains(&only.organisation));
    let (parties, trust) = match bilateral {
        true => (2, policy.training.min_trusted_peers.min(1)),
        false => (policy.training.min_parties, policy.training.min_trusted_peers),
    };
    if (study.members.len() as u64) < u64::from(parties) {
        found.refuse(
            "training.min_parties",
            format!("{} sites take part; the policy asks for at least {parties}", study.members.len()),
        );
    }
    let trusted = peers.iter().filter(|p| p.trust > Trust::AssertedOnly).count();
    if (trusted as u64) < u64::from(trust) {
        found.refuse(
            "training.min_trusted_peers",
            format!(
                "{trusted} other sites are verified here or vouched for; the policy asks for at least {trust}. \
                 Compare the words of their keys by telephone"
            ),
        );
    }
    if bilateral {
        found.read("bilateral.allow", "with two sites, the partner can compute this site's part from the result".into());
    }
    if study.terms.requester.key.is_none() {
        found.read("requester", "the requester has no signing key of their own; only the coordinator vouches".into());
    }
}

fn protection_rules(case: &Case, found: &mut Findings) {
    let policy = &case.policy;
    if policy.training.force_secure_aggregation {
        found.refuse(
            "training.force_secure_aggregation",
            "the policy demands secure aggregation, which is not available in this version".into(),
        );
    }
    if policy.privacy.require_dp {
        found.refuse(
            "privacy.require_dp",
            "the policy demands differential privacy, which is not available in this version".into(),
        );
    }
    if policy.approval.four_eyes == FourEyes::Delayed {
        found.refuse(
            "approval.four_eyes",
            "one person's approval is for studies with secure aggregation only, which is not available in this version"
                .into(),
        );
    }
}

fn data_rules(case: &Case, dataset: &Dataset, found: &mut Findings) {
    let (plan, policy) = (&case.offered.study.plan, &case.policy);
    let rules = &policy.disclosure;
    let have = dataset.columns();
    let missing: Vec<String> = plan::columns_read(plan).difference(&have).cloned().collect();
    if !missing.is_empty() {
        found.refuse("data.columns", format!("the dataset has no column {}", missing.join(", ")));
    }
    if plan.data.subject != dataset.document.schema.subject {
        found.refuse(
            "data.subject",
            format!("the plan tells patients apart by '{}', the dataset by '{}'", plan.data.subject,
                    dataset.document.schema.subject),
        );
    }
    for (column, expected, kind) in type_conflicts(plan, dataset) {
        found.refuse("data.types", format!("column '{column}' is {} here; the plan reads {expected}", kind.word()));
    }
    if policy.is_public_data() && !dataset.document.public {
        found.refuse("profile", "the public-data policy is for datasets tagged public only".into());
    }
    let subjects = dataset.subjects_left;
    if subjects < rules.min_subjects {
        found.refuse(
            "disclosure.min_subjects",
            format!("{subjects} subjects; the policy asks for at least {}", rules.min_subjects),
        );
    }
    parameter_rule(case, subjects, found);
    level_rules(case, subjects, found);
    let terms = duo::compare(&dataset.duo, &case.offered.study.terms);
    let words = terms.words.join("; ");
    match terms.verdict {
        DuoVerdict::Match => {}
        DuoVerdict::NeedsAPerson => found.read("terms of use (DUO)", words),
        DuoVerdict::NoMatch => found.refuse("terms of use (DUO)", words),
    }
}

/// Columns whose type here cannot be read as the plan reads it.
fn type_conflicts<'p>(
    plan: &'p plan::Plan,
    dataset: &Dataset,
) -> Vec<(&'p str, &'static str, ColumnKind)> {
    let mut conflicts = Vec::new();
    for column in plan.data.columns.iter().chain([&plan.data.label.column]) {
        let Some(here) = dataset.document.schema.column(column) else { continue };
        let (expected, fits) = match plan.data.variables.get(column) {
            Some(Variable::Category { .. }) => {
                ("a category", matches!(here.kind, ColumnKind::Category | ColumnKind::Number))
            }
            _ => ("a number", here.kind == ColumnKind::Number),
        };
        if !fits {
            conflicts.push((column.as_str(), expected, here.kind));
        }
    }
    conflicts
}

/// A model without hidden layers says about as much about its rows as it has parameters per subject (DataSHIELD's
/// `nfilter.glm`); for a network it is a warning. In plain mode this site's own number counts.
fn parameter_rule(case: &Case, subjects: u64, found: &mut Findings) {
    let Some(ratio) = case.policy.disclosure.max_param_ratio else { return };
    for (name, task) in &case.offered.study.plan.tasks {
        let Component::NnTrain(train) = &task.component else { continue };
        let inputs = plan::features(&case.offered.study.plan, name).len() as u64;
        let parameters = model::parameters(&train.model, inputs);
        #[expect(clippy::cast_precision_loss, reason = "counts of parameters and subjects lie far below 2^53")]
        let too_many = parameters as f64 > ratio * subjects as f64;
        if !too_many {
            continue;
        }
        let words = format!(
            "the model of '{name}' has {parameters} parameters for {subjects} subjects, more than {ratio} for each"
        );
        let linear = train.model.iter().filter(|l| matches!(l, Layer::Linear(_))).count() == 1;
        match linear {
            true => found.refuse("disclosure.max_param_ratio", words),
            false => found.read("disclosure.max_param_ratio", format!("{words}; a network can remember single rows")),
        }
    }
}

fn level_rules(case: &Case, subjects: u64, found: &mut Findings) {
    let rules = &case.policy.disclosure;
    for (column, variable) in &case.offered.study.plan.data.variables {
        let Variable::Category { codes } = variable else { continue };
        let levels = codes.len() as u64;
        if levels > rules.max_levels {
            found.refuse(
                "disclosure.max_levels",
                format!("'{column}' has {levels} codes; the policy allows {}", rules.max_levels),
            );
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of codes and subjects lie far below 2^53")]
        let dense = levels as f64 > rules.levels_density * subjects as f64;
        if dense && subjects > 0 {
            found.refuse(
                "disclosure.levels_density",
                format!("'{column}' has {levels} codes for {subjects} subjects, more than {} for each", rules.levels_density),
            );
        }
    }
}
