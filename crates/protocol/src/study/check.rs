//! Whether what a study says can be shown to the people who sign, and read from a file.

use std::fmt;

use schemars::JsonSchema;
use serde_json::Value;

use super::{Controller, Requester, Study, Sweep, SweepFile, Terms};
use crate::plan::{self, Plan, PlanError, Problem};
use crate::{limits, text};

/// Terms that were refused, with everything that is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TermsError {
    /// At least one problem.
    pub problems: Vec<Problem>,
}

impl fmt::Display for TermsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// A study as a researcher writes it: one file with what people read and what their computers do.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StudyFile {
    /// Purpose, people and basis.
    pub terms: Terms,
    /// Computation.
    pub plan: Plan,
    /// Settings to try, where the plan is to be run with many.
    #[schemars(with = "Option<SweepFile>")]
    pub sweep: Option<Sweep>,
}

impl StudyFile {
    /// Reads a study from YAML or JSON, fills in the defaults and checks it.
    ///
    /// # Errors
    /// [`TermsError`] lists everything that is wrong, each with its place, such as `plan.tasks.scale.inputs.data`.
    pub fn read(source: &str) -> Result<Self, TermsError> {
        let refused = |e: PlanError| TermsError { problems: e.problems };
        let Value::Object(mut fields) = plan::read_text("", source).map_err(refused)? else {
            return Err(refused(problem("", "a study is a mapping with 'terms' and 'plan'")));
        };
        let mut problems = Vec::new();
        let mut part = |name: &str| {
            fields.remove(name).or_else(|| {
                problems.extend(problem(name, "is missing").problems);
                None
            })
        };
        let (terms, plan) = (part("terms"), part("plan"));
        let sweep = fields.remove("sweep").filter(|tree| !tree.is_null());
        for extra in fields.keys() {
            let reason = "a study has 'terms' and 'plan', and may have 'sweep', only";
            problems.extend(problem(&text::shown(extra, 80), reason).problems);
        }
        let terms = terms.map(|tree| plan::read_part::<Terms>("terms", tree).map_err(refused));
        let terms = terms.map(|read| read.and_then(|terms| check_terms(&terms).map(|()| terms)));
        let plan =
            plan.map(|tree| plan::read_tree(tree).map_err(|e| TermsError { problems: below("plan", e.problems) }));
        let sweep = sweep.map(|tree| plan::read_part::<SweepFile>("sweep", tree).map_err(refused));
        let sweep = match (sweep, &plan) {
            (Some(Ok(file)), Some(Ok(plan))) => Some(file.read(plan).map_err(|problems| TermsError { problems })),
            (Some(Err(error)), _) => Some(Err(error)),
            // Without a plan there is nothing that it could be checked against.
            _ => None,
        };
        match (terms, plan, sweep.transpose()) {
            (Some(Ok(terms)), Some(Ok(plan)), Ok(sweep)) if problems.is_empty() => Ok(Self { terms, plan, sweep }),
            (terms, plan, sweep) => {
                problems.extend(terms.and_then(Result::err).into_iter().flat_map(|e| e.problems));
                problems.extend(plan.and_then(Result::err).into_iter().flat_map(|e| e.problems));
                problems.extend(sweep.err().into_iter().flat_map(|e| e.problems));
                Err(TermsError { problems })
            }
        }
    }

    /// JSON Schema of study files, pretty-printed; the same bytes every time.
    pub fn json_schema() -> String {
        plan::pretty_schema::<Self>()
    }
}

fn problem(place: &str, reason: &str) -> PlanError {
    PlanError { problems: vec![Problem { place: place.into(), reason: reason.into() }] }
}

/// Problems of a part, with places as they are in the whole.
fn below(part: &str, problems: Vec<Problem>) -> Vec<Problem> {
    let place = |p: &Problem| if p.place.is_empty() { part.to_owned() } else { format!("{part}.{}", p.place) };
    problems.into_iter().map(|p| Problem { place: place(&p), ..p }).collect()
}

/// Reads terms alone from YAML or JSON and checks them.
///
/// # Errors
/// [`TermsError`] lists everything that is wrong, each with its place.
pub fn read_terms(source: &str) -> Result<Terms, TermsError> {
    let read = plan::read_text("terms", source).and_then(|tree| plan::read_part::<Terms>("terms", tree));
    let terms = read.map_err(|e| TermsError { problems: e.problems })?;
    check_terms(&terms)?;
    Ok(terms)
}

/// Checks terms: nothing in them may be longer than can be read, change what is seen around it, or be blank where
/// *not stated* would be shown.
///
/// # Errors
/// [`TermsError`] lists everything that is wrong, each with its place.
pub fn check_terms(terms: &Terms) -> Result<(), TermsError> {
    let mut problems = Vec::new();
    let mut note = |place: &str, result: Result<(), String>| {
        if let Err(reason) = result {
            problems.push(Problem { place: format!("terms.{place}"), reason });
        }
    };
    note("title", text::check_name(&terms.title));
    note("purpose", paragraph(&terms.purpose));
    let Requester { name, organisation, key: _, vouched_by } = &terms.requester;
    note("requester.name", text::check_name(name));
    note("requester.organisation", text::check_name(organisation));
    note("requester.vouched_by", vouched_by.as_deref().map_or(Ok(()), text::check_name));
    for (place, stated) in optional(terms) {
        note(place, stated.map_or(Ok(()), paragraph));
    }
    note("disease", terms.disease.as_deref().map_or(Ok(()), |id| ontology(id, "MONDO:", 7..=7)));
    note("purpose_of_use", terms.purpose_of_use.as_deref().map_or(Ok(()), purpose_of_use));
    for (place, entries) in
        [("duo", terms.duo.len()), ("controllers", terms.controllers.len()), ("recipients", terms.recipients.len())]
    {
        let few = entries <= limits::TERMS_ENTRIES;
        note(place, few.then_some(()).ok_or_else(|| format!("has more than {} entries", limits::TERMS_ENTRIES)));
    }
    for (i, id) in terms.duo.iter().enumerate() {
        // Some copies of the ontology spell one term with eight digits.
        note(&format!("duo.{i}"), ontology(id, "DUO:", 7..=8));
    }
    for (i, recipient) in terms.recipients.iter().enumerate() {
        note(&format!("recipients.{i}"), text::check_name(recipient));
    }
    for (i, Controller { organisation, role, contact }) in terms.controllers.iter().enumerate() {
        for (field, value) in [("organisation", organisation), ("role", role), ("contact", contact)] {
            note(&format!("controllers.{i}.{field}"), text::check_name(value));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(TermsError { problems }) }
}

fn optional(terms: &Terms) -> [(&'static str, Option<&str>); 10] {
    [
        ("gdpr_article_6", terms.gdpr_article_6.as_deref()),
        ("gdpr_article_9", terms.gdpr_article_9.as_deref()),
        ("impact_assessment", terms.impact_assessment.as_deref()),
        ("agreement", terms.agreement.as_deref()),
        ("operator", terms.operator.as_deref()),
        ("transfer_safeguard", terms.transfer_safeguard.as_deref()),
        ("retention", terms.retention.as_deref()),
        ("ethics", terms.ethics.as_deref()),
        ("ehds_permit", terms.ehds_permit.as_deref()),
        ("us_basis", terms.us_basis.as_deref()),
    ]
}

fn paragraph(written: &str) -> Result<(), String> {
    if written.trim().is_empty() {
        return Err("is blank; leave it out, and it reads 'not stated'".into());
    }
    text::check_text(written)
}

fn ontology(id: &str, prefix: &str, digits: std::ops::RangeInclusive<usize>) -> Result<(), String> {
    let number = id.strip_prefix(prefix).unwrap_or_default();
    if digits.contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    Err(format!("'{}' is no id such as {prefix}0000042", text::shown(id, 40)))
}

fn purpose_of_use(code: &str) -> Result<(), String> {
    let good = (2..=20).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_uppercase());
    good.then_some(()).ok_or_else(|| format!("'{}' is no HL7 code such as HRESCH", text::shown(code, 40)))
}

impl Study {
    /// Checks what a study says, as a site does before it shows it to anybody: terms, plan, members in order.
    ///
    /// # Errors
    /// [`TermsError`] lists everything that is wrong, each with its place.
    pub fn check(&self) -> Result<(), TermsError> {
        let mut problems = check_terms(&self.terms).map_or_else(|e| e.problems, |()| Vec::new());
        if let Err(error) = plan::check(&self.plan) {
            problems.extend(below("plan", error.problems));
        } else if let Err(error) = self.runs() {
            problems.extend(error.problems);
        }
        let mut wrong = |reason: &str| problems.push(Problem { place: "members".into(), reason: reason.into() });
        if self.members.is_empty() {
            wrong("names no site");
        }
        if self.members.len() > limits::ROSTER_SITES {
            wrong("names too many sites");
        }
        if !self.members.windows(2).all(|pair| pair[0] < pair[1]) {
            wrong("is not in the order of the ids, or names a site twice");
        }
        if problems.is_empty() { Ok(()) } else { Err(TermsError { problems }) }
    }
}

/// JSON Schema of terms files, pretty-printed; the same bytes every time.
pub fn json_schema() -> String {
    plan::pretty_schema::<Terms>()
}
