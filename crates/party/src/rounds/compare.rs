//! *This site alone* against *federated*, from what the site's own people see of a run.

use std::collections::BTreeMap;

use hospes_cohort::ReportView;
use hospes_cohort::evaluate::compare;
use hospes_cohort::worker::LocalView;
use hospes_protocol::plan::{self, Component, Plan};

use crate::view::{Comparison, RoundView};

/// Each model that was trained here alone beside each federated one that was judged on the same table.
pub(super) fn comparisons(plan: &Plan, rounds: &[RoundView]) -> Vec<Comparison> {
    let mut reports: BTreeMap<&str, ReportView> = BTreeMap::new();
    for round in rounds {
        let view = round.view.clone().and_then(|view| serde_json::from_value(view).ok());
        if let Some(LocalView::Report(report)) = view {
            reports.entry(&round.round.task).or_insert(report);
        }
    }
    let table = |name: &str| plan.tasks.get(name).and_then(|task| plan::source(plan, task, "data"));
    let of = |name: &str| plan.tasks.get(name).map(|task| &task.component);
    let mut found = Vec::new();
    for (alone, alone_report) in &reports {
        if !matches!(of(alone), Some(Component::LocalBaseline(_))) {
            continue;
        }
        for (federated, report) in &reports {
            if matches!(of(federated), Some(Component::Evaluation(_))) && table(federated) == table(alone) {
                let figures = compare(alone_report, report);
                found.push(Comparison { alone: (*alone).to_owned(), federated: (*federated).to_owned(), figures });
            }
        }
    }
    found.retain(|c| !c.figures.is_empty());
    found
}
