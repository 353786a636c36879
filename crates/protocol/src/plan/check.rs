//! Everything that can be known about a typed plan without data.

use std::collections::BTreeSet;

use super::columns::Flow;
use super::problem::{PlanError, Problems};
use super::{Component, Evaluation, Plan, columns, egress, graph, masks};
use crate::canon::Canonical;
use crate::{limits, text};

mod dp;
mod regress;
mod train;

/// Checks a typed plan: the graph, ports and types, columns, shapes, numbers, limits.
///
/// # Errors
/// [`PlanError`] lists everything that is wrong, each with its place.
pub fn check(plan: &Plan) -> Result<(), PlanError> {
    let mut problems = Problems::default();
    check_head(plan, &mut problems);
    graph::check(plan, &mut problems);
    let flow = columns::check(plan, &mut problems);
    for (name, task) in &plan.tasks {
        check_numbers(&flow, plan, name, &task.component, &mut problems);
        check_masks(plan, name, &task.component, &mut problems);
    }
    if problems.is_empty()
        && let Err(error) = Canonical::new(plan.clone())
    {
        problems.add("", error.to_string());
    }
    problems.into_result()
}

fn check_head(plan: &Plan, problems: &mut Problems) {
    if let Err(reason) = text::check_name(&plan.name) {
        problems.add("name", reason);
    }
    check_members(&plan.parties.members, problems);
    problems.require(!plan.tasks.is_empty(), "tasks", "is empty");
    problems.require(
        plan.tasks.len() <= limits::PLAN_TASKS,
        "tasks",
        format!("{} tasks, more than the {} allowed", plan.tasks.len(), limits::PLAN_TASKS),
    );
    for name in plan.tasks.keys() {
        let good = name.len() <= limits::NAME_CHARS
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        problems.require(
            good,
            format!("tasks.{name}"),
            "the name must begin with a letter and hold letters, digits, '_' and '-' only",
        );
    }
}

fn check_members(members: &[String], problems: &mut Problems) {
    problems.require(!members.is_empty(), "parties.members", "names no site; write [\"site:*\"] for all");
    problems.require(members.len() <= limits::ROSTER_SITES, "parties.members", "names too many sites");
    let mut seen = BTreeSet::new();
    for (i, selector) in members.iter().enumerate() {
        let place = format!("parties.members.{i}");
        match selector.strip_prefix("site:") {
            None => problems.add(place, format!("'{selector}' is no selector; write 'site:*' or 'site:<name>'")),
            Some("*") if members.len() > 1 => problems.add(place, "'site:*' means every site and must stand alone"),
            Some("*") => {}
            Some(name) => match text::check_name(name) {
                Err(reason) => problems.add(place, format!("the site's name {reason}")),
                Ok(()) if name.contains('*') => problems.add(place, "'*' cannot be part of a name"),
                Ok(()) if !seen.insert(selector) => problems.add(place, format!("'{selector}' stands twice")),
                Ok(()) => {}
            },
        }
    }
}

fn check_numbers(flow: &Flow<'_>, plan: &Plan, name: &str, component: &Component, problems: &mut Problems) {
    let (params, inputs) = (format!("tasks.{name}.params"), flow.inputs(name));
    match component {
        Component::NnTrain(train) => {
            train::check_train(plan, &params, train, inputs, problems);
            train::check_early_stop(plan, name, train, problems);
            train::check_columns(flow, name, &train.model, problems);
            dp::check_dp(plan, name, train, inputs, problems);
        }
        Component::LocalBaseline(baseline) => {
            train::check_baseline(plan, &params, baseline, inputs, problems);
            train::check_columns(flow, name, &baseline.model, problems);
        }
        Component::Evaluation(Evaluation { threshold, calibration_bins, .. }) => {
            check_threshold(&params, *threshold, problems);
            check_count(format!("{params}.calibration_bins"), *calibration_bins, limits::CALIBRATION_BINS, problems);
            check_report(plan, name, &params, problems);
        }
        Component::Imputation(imputation) => {
            if let super::ImputationMethod::Constant(value) = imputation.method {
                problems.require(value.is_finite(), format!("{params}.method.constant"), "must be a finite number");
            }
        }
        Component::Glm(glm) => regress::check_glm(plan, name, glm, inputs, problems),
        Component::Cox(cox) => regress::check_cox(plan, name, cox, inputs, problems),
        Component::Reader(_)
        | Component::OneHot(_)
        | Component::DataSplit(_)
        | Component::FeatureScale(_)
        | Component::Statistics(_) => {}
    }
}

/// A report has to fit into a document; that of many subgroups of many classes would not.
fn check_report(plan: &Plan, name: &str, params: &str, problems: &mut Problems) {
    let Some(subgroups) = columns::subgroups(plan, name).filter(|s| s.codes.len() <= limits::SUBGROUPS) else { return };
    let bytes: u64 = egress::figures(plan, name).iter().map(egress::Figure::most_bytes).fold(0, u64::saturating_add);
    let (codes, most) = (subgroups.codes.len(), limits::DOCUMENT_BYTES);
    let reason = format!("a report with {codes} subgroups can have {bytes} bytes, more than the {most} allowed");
    problems.require(bytes <= most as u64, params, reason);
}

/// What sites cannot add up has no masked sum.
fn check_masks(plan: &Plan, name: &str, component: &Component, problems: &mut Problems) {
    if !(component.is_masked() && component.reports_figures()) {
        return;
    }
    let figures = egress::figures_of_whole(plan, name);
    for figure in figures.iter().filter(|figure| masks::Form::of(&figure.name).is_none()) {
        let reason = format!(
            "'{}' is no sum over rows, so that masks exclude it; write 'plain: {{}}', with which the coordinator can read \
             each site's",
            figure.name
        );
        problems.add(format!("tasks.{name}.params.privacy.secure_aggregation"), reason);
    }
}

pub(super) fn check_threshold(params: &str, threshold: f64, problems: &mut Problems) {
    problems.require(
        (0.0..=1.0).contains(&threshold),
        format!("{params}.threshold"),
        format!("is {threshold}; it must lie between 0 and 1"),
    );
}

pub(super) fn check_count(place: String, count: u32, most: u32, problems: &mut Problems) {
    let reason = format!("is {count}; it must lie between 1 and {most}");
    problems.require((1..=most).contains(&count), place, reason);
}
