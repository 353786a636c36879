//! *This site alone* against *federated*, from what the site's own people see of a run.

use std::collections::BTreeMap;

use hospes_cohort::ReportView;
use hospes_cohort::evaluate::compare;
use hospes_protocol::plan::{self, Component, Plan};

use crate::view::{Comparison, ResultView, RoundView};

/// Each model that was trained here alone beside each federated one that was judged on the same table.
pub(super) fn comparisons(plan: &Plan, rounds: &[RoundView]) -> Vec<Comparison> {
    let mut reports: BTreeMap<&str, &ReportView> = BTreeMap::new();
    // Of plans that let no site train alone for the same table.
    let mut unplanned: BTreeMap<&str, (&ReportView, &ReportView)> = BTreeMap::new();
    for round in rounds {
        if let Some(ResultView::Report(report)) = &round.view {
            reports.entry(&round.round.task).or_insert(report);
            if let Some(alone) = &round.alone {
                unplanned.entry(&round.round.task).or_insert((alone, &**report));
            }
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
                let (alone, federated) = (Some((*alone).to_owned()), (*federated).to_owned());
                found.push(Comparison { alone, federated, figures });
            }
        }
    }
    for (federated, (alone, report)) in unplanned {
        found.push(Comparison { alone: None, federated: federated.to_owned(), figures: compare(alone, report) });
    }
    found.retain(|c| !c.figures.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use hospes_protocol::id::{JobId, RoundKey, Timestamp};
    use serde_json::json;

    use super::*;
    use crate::view::RoundState;

    const PLAN: &str = r#"
schema: hospes/plan/v1
name: compared
data:
  subject: id
  label: { column: y, positive: "> 0" }
  columns: [x]
tasks:
  read: { component: reader }
  split: { component: data_split, inputs: { data: read }, params: { test_fraction: 0.3 } }
  train:
    component: nn_train
    inputs: { train: split.train }
    params:
      model: [{ linear: { out: 1 } }]
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      rounds: 1
      local: { updates: 1, batch: 4 }
      strategy: { fed_avg: {} }
      privacy: { plain: {} }
  here: { component: evaluation, inputs: { model: train.model, data: split.test } }
  other: { component: evaluation, inputs: { model: train.model, data: split.train } }
  alone:
    component: local_baseline
    inputs: { train: split.train, data: split.test }
    params:
      model: [{ linear: { out: 1 } }]
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      epochs: 1
      batch: 4
"#;

    fn round(task: &str, mae: f64) -> RoundView {
        let view: ResultView = serde_json::from_value(json!({ "report": { "number": {
            "rows": 10, "absolute_error_sum": 1.0, "squared_error_sum": 1.0, "label_sum": 1.0, "label_square_sum": 1.0,
            "rmse": null, "mae": mae, "r_squared": null, "intervals": { "mae": { "low": mae - 1.0, "high": mae + 1.0 } },
        } } }))
        .unwrap();
        let job = JobId::new(Timestamp::from_millis(1), [1; 10]);
        let round = RoundKey { job, task: task.into(), epoch: 1, round: 1, attempt: 1 };
        let (state, at) = (RoundState::Published, Timestamp::from_millis(1));
        RoundView { round, state, reason: None, progress: None, note: None, view: Some(view), alone: None, at }
    }

    #[test]
    fn only_models_on_the_same_table_stand_side_by_side() {
        let plan = plan::read(PLAN).unwrap();
        let hidden = RoundView { view: None, ..round("here", 9.0) };
        let rounds = [round("alone", 3.0), hidden, round("here", 2.0), round("other", 1.0)];
        let found = comparisons(&plan, &rounds);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].alone.as_deref(), found[0].federated.as_str()), (Some("alone"), "here"));
        let mae = &found[0].figures[0];
        assert_eq!((mae.figure.as_str(), mae.alone, mae.federated, mae.difference), ("mae", 3.0, 2.0, -1.0));
        assert!(mae.difference_interval.is_some_and(|i| i.low < -1.0 && i.high > -1.0));
        // Who may not see the results sees no comparison of them.
        let listed: Vec<RoundView> = rounds.into_iter().map(|r| RoundView { view: None, ..r }).collect();
        assert!(comparisons(&plan, &listed).is_empty());
    }

    #[test]
    fn where_the_plan_has_no_model_trained_here_alone_that_of_the_site_stands_beside_the_federated_one() {
        let plan = plan::read(&PLAN[..PLAN.find("  alone:").unwrap()]).unwrap();
        let Some(ResultView::Report(alone)) = round("here", 3.0).view else { panic!() };
        let here = RoundView { alone: Some(*alone), ..round("here", 2.0) };
        let found = comparisons(&plan, &[here.clone(), round("other", 1.0)]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].alone.as_deref(), found[0].federated.as_str()), (None, "here"));
        assert_eq!((found[0].figures[0].alone, found[0].figures[0].federated), (3.0, 2.0));
        assert!(comparisons(&plan, &[RoundView { view: None, ..here }]).is_empty());
    }
}
