//! Evaluations by subgroup: what leaves, what is withheld with what, and what the site's own people see.

use std::collections::BTreeSet;

use hospes_cohort::worker::{Event, LocalView, execute};
use hospes_cohort::{GroupView, ReportView};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::Timestamp;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::{self, Coefficients, figure};
use hospes_protocol::policy::Policy;

use crate::rig::{NOW, Rig, edited, safetensors_file, strict, table};

const PLAN: &str = r#"
schema: hospes/plan/v1
name: by-kind
data:
  subject: subject_id
  label: { column: outcome, positive: "> 0" }
  columns: [x, kind]
  variables:
    kind: { category: { codes: ["1", "2", "3"] } }
    fold: { category: { codes: [train, test] } }
tasks:
  read: { component: reader }
  hot: { component: one_hot, inputs: { data: read }, params: { columns: [kind], drop: first } }
  split: { component: data_split, inputs: { data: hot }, params: { by_column: fold } }
  fit: { component: glm, inputs: { train: hot }, params: { family: binomial } }
  judge: { component: evaluation, inputs: { model: fit.model, data: hot }, params: { subgroup: kind } }
  count: { component: statistics, inputs: { data: split.test } }
"#;

/// Three hundred rows of each kind, a seventh of them on the wrong side, and every other row in the test part.
fn rows(kind: impl Fn(usize) -> usize, label: impl Fn(usize) -> Option<bool>) -> String {
    edited(&table(900), |row, column| match column {
        2 => Some(["1", "2", "3"][kind(row)]),
        4 => {
            let x = f64::from(u32::try_from(row * 37 % 101).unwrap()) / 10.0;
            Some(if label(row).unwrap_or((x > 5.0) != (row % 7 == 3)) { "1" } else { "0" })
        }
        5 => Some(["train", "test"][row / 3 % 2]),
        _ => None,
    })
}

fn even() -> String {
    rows(|row| row % 3, |_| None)
}

/// What leaves of the evaluation of a model that is right where the labels are, and what the site sees.
fn judge(plan: &str, table: &str, policy: Policy) -> (FigureSet, ReportView) {
    let clock = || -> Timestamp { NOW };
    let rig = Rig::with(table, plan::read(plan).unwrap_or_else(|e| panic!("{e}")), policy);
    let coefficients = Coefficients::of(&rig.plan, "fit").unwrap();
    let mut point = vec![0.0; coefficients.len()];
    (point[0], point[1]) = (-5.0, 1.0);
    let model = safetensors_file(&coefficients.model_tensors(), &coefficients.model_values(&point));
    let order = rig.order_with("judge", 1, Some(&model));
    let last = execute(&order, &clock, &mut |_| true);
    let Event::Done(done) = last else { panic!("{last:?}") };
    let figures = Canonical::<FigureSet>::parse(&std::fs::read(&order.payload_path).unwrap()).unwrap().into_inner();
    plan::check_figures(&plan::figures(&rig.plan, "judge"), &figures).unwrap();
    let LocalView::Report(view) = done.view else { panic!("no report") };
    (figures, view)
}

/// Codes of which anything leaves.
fn shown(figures: &FigureSet) -> Vec<&str> {
    let codes: BTreeSet<&str> =
        figures.sums.keys().filter_map(|name| name.split_once('=')?.1.strip_suffix(']')).collect();
    codes.into_iter().collect()
}

fn groups(view: &ReportView) -> &[GroupView] {
    match view {
        ReportView::Grouped { groups, .. } => groups,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_figures_of_all_subgroups_add_up_to_the_whole() {
    for policy in [strict(), Policy::public_data()] {
        let protects = !policy.is_public_data();
        let (figures, view) = judge(PLAN, &even(), policy);
        assert_eq!(shown(&figures), ["1", "2", "3"]);
        assert_eq!(figures.sums[figure::N], [900.0]);
        let whole: Vec<&String> = figures.sums.keys().filter(|name| !name.contains('[')).collect();
        assert_eq!(whole.len(), if protects { 7 } else { 12 });
        for name in whole.iter().filter(|name| !name.starts_with("recalibration")) {
            for (i, value) in figures.sums[*name].iter().enumerate() {
                let sum: f64 =
                    ["1", "2", "3"].map(|code| figures.sums[&format!("{name}[kind={code}]")][i]).iter().sum();
                assert!((sum - value).abs() <= 1e-9 * value.abs(), "{name} {i}: {sum} {value}");
            }
        }
        assert!(groups(&view).iter().all(|g| g.leaves && g.rows == 300));
        let ReportView::Grouped { all, column, ungrouped, .. } = &view else { panic!() };
        assert_eq!((column.as_str(), *ungrouped, all.rows()), ("kind", 0, 900));
        // Its own people see each subgroup as they see the whole, with intervals.
        let Some(ReportView::Metrics(one)) = &groups(&view)[0].view else { panic!() };
        assert!(one.detail.as_ref().unwrap().intervals.contains_key("auc"));
    }
}

#[test]
fn a_small_subgroup_takes_the_smallest_other_with_it() {
    let few = rows(|row| if row < 5 { 2 } else { usize::from(row % 3 == 0) }, |_| None);
    let (figures, view) = judge(PLAN, &few, strict());
    // A third of the rows has kind 2; kind 3 would be the whole less the others.
    assert_eq!(shown(&figures), ["1"]);
    let seen: Vec<(u64, bool)> = groups(&view).iter().map(|g| (g.rows, g.leaves)).collect();
    assert_eq!(seen, [(597, true), (298, false), (5, false)]);
    assert!(groups(&view).iter().all(|g| g.view.is_some()), "the site does not see its own subgroups");
    for name in [figure::N, figure::CONFUSION] {
        assert!(figures.withheld.contains_key(&format!("{name}[kind=3]")), "{name}");
    }
    // Where data are public, everything leaves.
    assert_eq!(shown(&judge(PLAN, &few, Policy::public_data()).0), ["1", "2", "3"]);
}

#[test]
fn a_subgroup_of_one_class_is_withheld_without_saying_so() {
    let healthy = rows(|row| row % 3, |row| (row % 3 == 1).then_some(false));
    let (figures, _) = judge(PLAN, &healthy, strict());
    let left = shown(&figures);
    assert!(left.len() == 1 && left != ["2"], "{left:?}");
    let reasons: BTreeSet<&String> =
        figures.withheld.iter().filter(|(name, _)| name.contains('[')).map(|(_, reason)| reason).collect();
    assert_eq!(reasons.len(), 1);
}

#[test]
fn nothing_is_told_in_parts_that_is_not_told_of_the_whole() {
    // Four wrong ones in all: the confusion of the whole has a small count.
    let right = rows(|row| row % 3, |row| Some((row * 37 % 101 > 50) != (row < 4)));
    let (figures, view) = judge(PLAN, &right, strict());
    assert_eq!(figures.sums.keys().collect::<Vec<_>>(), [figure::N]);
    assert!(groups(&view).iter().all(|g| !g.leaves));
}

#[test]
fn rows_without_a_code_are_the_rest_and_protected_as_it_is() {
    let plan = PLAN
        .replace("subgroup: kind", "subgroup: fold")
        .replace("  count: { component: statistics, inputs: { data: split.test } }\n", "")
        .replace("  split: { component: data_split, inputs: { data: hot }, params: { by_column: fold } }\n", "");
    let missing = |rows: usize| {
        edited(&even(), move |row, column| {
            (column == 5).then_some(if row < rows { "?" } else { ["train", "test"][row / 3 % 2] })
        })
    };
    assert_eq!(shown(&judge(&plan, &missing(0), strict()).0), ["test", "train"]);
    assert_eq!(shown(&judge(&plan, &missing(3), strict()).0).len(), 1);
    let (figures, view) = judge(&plan, &missing(300), strict());
    assert_eq!(shown(&figures), ["test", "train"]);
    let ReportView::Grouped { ungrouped, .. } = view else { panic!() };
    assert_eq!(ungrouped, 300);
}

#[test]
fn a_subgroup_is_compared_with_the_tables_of_other_results() {
    // The test part, of which sums of the features leave, holds two of kind 1, and half of each other kind.
    let folds = edited(&even(), |row, column| {
        (column == 5).then_some(if row % 3 == 0 && row >= 15 { "train" } else { ["train", "test"][row / 3 % 2] })
    });
    let (figures, view) = judge(PLAN, &folds, strict());
    assert!(!groups(&view)[0].leaves && figures.withheld.contains_key("n[kind=1]"));
    assert_eq!(shown(&figures).len(), 1, "another subgroup has to protect it");
    // Alone, kind 1 is like any other.
    let alone = PLAN
        .replace("  count: { component: statistics, inputs: { data: split.test } }\n", "")
        .replace("  split: { component: data_split, inputs: { data: hot }, params: { by_column: fold } }\n", "")
        .replace("    fold: { category: { codes: [train, test] } }\n", "");
    assert_eq!(shown(&judge(&alone, &folds, strict()).0), ["1", "2", "3"]);
}
