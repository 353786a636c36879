//! Which rules of policy, disclosure and terms of use refuse a request, all of them at once.
//!
//! `Approval::permit` asks the same before every round and stops at the first; here people see the whole list before
//! they sign. The rules themselves are in `hospes-privacy`; here are the facts, and what only this site can know.

use hospes_cohort::schema::ColumnKind;
use hospes_privacy::disclosure::{Facts, Verdict, review};
use hospes_privacy::duo::{DataUse, Fit, Matching, Request, matching};
use hospes_protocol::approval::Trust;
use hospes_protocol::plan::{self, Variable};
use hospes_protocol::policy::Partner;
use hospes_protocol::study::Terms;
use hospes_protocol::text::shown;

use super::sign::Case;
use crate::datasets::Dataset;
use crate::error::PartyError;
use crate::view::Finding;

const TOO_MUCH: &str = "all its runs together take more of the privacy budget of these patients than is left, over all studies \
                        and federations";

/// Everything that refuses the case, or that a person must read before signing; what refuses comes first.
pub(super) fn findings(case: &Case) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    if let Err(error) = case.offered.study.check() {
        for problem in error.problems {
            found.refuse("study", problem.to_string());
        }
    }
    member_rules(case, &mut found);
    match case.dataset() {
        Some(dataset) => data_rules(case, dataset, &mut found),
        None => found.refuse("data", "no dataset is chosen; none, or more than one, has all columns".into()),
    }
    if let Some(sweep) = &case.offered.study.sweep {
        found.0.push(super::sweep::finding(sweep));
    }
    if case.budget.as_ref().is_some_and(|budget| !budget.fits) {
        found.refuse("privacy.epsilon_per_pool", TOO_MUCH.into());
    }
    for finding in policy_rules(case) {
        found.0.push(Finding {
            rule: finding.rule.as_str().to_owned(),
            refuses: finding.verdict == Verdict::Refused,
            words: shown(&finding.words, LONG),
        });
    }
    found.0.sort_by_key(|f| !f.refuses);
    found.0
}

/// The policy and the disclosure check.
fn policy_rules(case: &Case) -> Vec<hospes_privacy::disclosure::Finding> {
    let peers = case.peers();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let facts = Facts {
        subjects: case.dataset().map_or(0, |d| d.subjects_left),
        // Known only after the split has been made on the data; `Cohort` applies the rules to what it finds.
        smallest_subset: None,
        training_subjects: None,
        public: case.dataset().is_some_and(|d| d.document.public),
        parties: count(case.offered.study.members.len()),
        trusted_peers: count(peers.iter().filter(|p| p.trust > Trust::AssertedOnly).count()),
        partners: peers.iter().map(Partner::from).collect(),
    };
    super::sweep::distinct(case.runs.iter().flat_map(|plan| review(&case.policy, plan, &facts)))
}

/// Characters of a finding; it may repeat names from outside.
const LONG: usize = 1_000;

struct Findings(Vec<Finding>);

impl Findings {
    fn refuse(&mut self, rule: &str, words: String) {
        self.0.push(Finding { rule: rule.to_owned(), refuses: true, words: shown(&words, LONG) });
    }
    fn read(&mut self, rule: &str, words: String) {
        self.0.push(Finding { rule: rule.to_owned(), refuses: false, words: shown(&words, LONG) });
    }
}

fn member_rules(case: &Case, found: &mut Findings) {
    let study = &case.offered.study;
    let strangers = study.members.len().saturating_sub(1).saturating_sub(case.peers().len());
    if strangers > 0 {
        found.refuse("roster", format!("{strangers} of the sites asked are not members of the federation"));
    }
    if !study.members.contains(&case.membership.site) {
        found.refuse("roster", "this site is not among those asked".into());
    }
    if study.terms.requester.key.is_none() {
        found.read("requester", "the requester has no signing key of their own; only the coordinator vouches".into());
    }
}

fn data_rules(case: &Case, dataset: &Dataset, found: &mut Findings) {
    let plan = &case.offered.study.plan;
    let have = dataset.columns();
    let missing: Vec<String> = plan::columns_read(plan).difference(&have).cloned().collect();
    if !missing.is_empty() {
        found.refuse("data.columns", format!("the dataset has no column {}", missing.join(", ")));
    }
    let subject = &dataset.document.schema.subject;
    if plan.data.subject != *subject {
        let words = format!("the plan tells patients apart by '{}', the dataset by '{subject}'", plan.data.subject);
        found.refuse("data.subject", words);
    }
    for (column, expected, kind) in type_conflicts(plan, dataset) {
        found.refuse("data.types", format!("column '{column}' is {} here; the plan reads {expected}", kind.word()));
    }
    let terms = match terms_of_use(&case.offered.study.terms, dataset) {
        Ok(terms) => terms,
        Err(words) => return found.refuse("terms of use (DUO)", words),
    };
    for reason in terms.reasons {
        match terms.fit {
            Fit::NoMatch => found.refuse("terms of use (DUO)", reason),
            _ => found.read("terms of use (DUO)", reason),
        }
    }
    for obligation in terms.obligations {
        found.read("terms of use (DUO)", obligation);
    }
}

/// How a dataset's terms of use fit the request, or which of its tags cannot be read.
pub(super) fn terms_of_use(terms: &Terms, dataset: &Dataset) -> Result<Matching, String> {
    Ok(matching(&DataUse::read(&dataset.duo)?, &Request::from_terms(terms)))
}

/// Checks the tags of a dataset: terms of the Data Use Ontology, and the MONDO id of the disease they are about.
pub(crate) fn check_terms(tags: &[String]) -> Result<(), PartyError> {
    DataUse::read(tags).map(drop).map_err(|words| PartyError::input("terms of use", words))
}

/// Columns whose type here cannot be read as the plan reads it.
fn type_conflicts<'p>(plan: &'p plan::Plan, dataset: &Dataset) -> Vec<(&'p str, &'static str, ColumnKind)> {
    let mut conflicts = Vec::new();
    let mut need = |column: &'p String, expected, fits: &dyn Fn(ColumnKind) -> bool| {
        if let Some(here) = dataset.document.schema.column(column)
            && !fits(here.kind)
        {
            conflicts.push((column.as_str(), expected, here.kind));
        }
    };
    let code = |kind| matches!(kind, ColumnKind::Category | ColumnKind::Number);
    let number = |kind| kind == ColumnKind::Number;
    let label = &plan.data.label;
    for column in plan.data.columns.iter().chain(label.columns()) {
        let is_class = *column == label.column && !label.classes.is_empty();
        match plan.data.variables.get(column) {
            _ if is_class => need(column, "one of several classes", &code),
            Some(Variable::Category { .. }) => need(column, "a category", &code),
            _ => need(column, "a number", &number),
        }
    }
    if let Some(image) = &plan.data.image {
        let wanted = (image.channels, image.height, image.width);
        let fits = |kind| matches!(kind, ColumnKind::Image(s) if (s.channels, s.height, s.width) == wanted);
        need(&image.column, "an image of the size that it gives", &fits);
    }
    conflicts
}
