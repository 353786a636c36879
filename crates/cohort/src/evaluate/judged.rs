//! What a model gave for the rows of a table, judged by the kind of the plan's label.

use std::collections::BTreeMap;

use hospes_privacy::disclosure::share_allowed;
use hospes_protocol::canon;
use hospes_protocol::plan::{LabelKind, Loss, Plan, figure, source};
use hospes_protocol::policy::Disclosure;

use super::{ClassMetrics, Metrics, NumberMetrics, SurvivalMetrics};
use crate::cohort::ReportView;
use crate::component::{Feature, Frame, level_counts};
use crate::error::CohortError;

/// Largest linear predictor of a count, in absolute value: what lies beyond counts as it, so that errors and their squares
/// stay finite (e^600 is a number, e^710 is none). It is the bound at which a Poisson regression is fitted too.
const FARTHEST: f64 = 300.0;

/// A table and the outputs of a model for its rows.
pub(crate) struct Judged<'a> {
    /// The table, with a label in every row.
    pub(crate) rows: &'a Frame,
    /// Outputs row after row, before any sigmoid or softmax.
    pub(crate) outputs: &'a [f32],
    /// The loss that the model was trained with: it says what an output means.
    pub(crate) loss: Loss,
}

/// What is asked about outputs.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) task: &'a str,
    /// Score from which a row counts as predicted positive.
    pub(crate) threshold: f64,
    /// Bins of the calibration curve; 0 for none, and then no recalibration either.
    pub(crate) calibration_bins: u32,
    /// Whether a person will see it, with curves and intervals, or only its sums count.
    pub(crate) in_full: bool,
}

impl Judged<'_> {
    /// The quality of the outputs.
    ///
    /// # Errors
    /// [`CohortError::Model`] if there is another number of outputs than the label needs, or one is not finite.
    pub(crate) fn view(&self, asked: Asked<'_>) -> Result<ReportView, CohortError> {
        let Asked { plan, task, threshold, calibration_bins, in_full } = asked;
        let kind = plan.data.label.kind();
        let kind = kind.map_err(|reason| CohortError::Plan { place: "data.label".into(), reason })?;
        let expected = (self.rows.rows() as u64).saturating_mul(kind.outputs());
        if self.outputs.len() as u64 != expected {
            let reason = "it has another number of outputs than the label needs".to_owned();
            return Err(CohortError::Model { reason });
        }
        if !self.outputs.iter().all(|output| output.is_finite()) {
            return Err(CohortError::Model { reason: "it gives an output that is NaN or infinite".to_owned() });
        }
        let Frame { label, times, subjects, .. } = self.rows;
        // One for each table: models that are judged on the same rows are judged on the same resamples of them.
        let table = plan.tasks.get(task).and_then(|found| source(plan, found, "data"));
        let table = table.map_or_else(|| task.to_owned(), |table| format!("{}.{}", table.task, table.output));
        let key = canon::digest("bootstrap", 1, &[&plan.seed.to_le_bytes(), table.as_bytes()].concat());
        let key = in_full.then_some(key);
        Ok(match kind {
            LabelKind::YesNo(_) => {
                let labels: Vec<f32> = label.iter().map(|l| f32::from(u8::from(*l > 0.5))).collect();
                let mut metrics = Metrics::new(self.outputs, &labels, threshold, calibration_bins);
                if calibration_bins > 0 {
                    metrics = metrics.with_recalibration(self.outputs, &labels);
                }
                if in_full {
                    metrics = metrics.with_detail(self.outputs, &labels, subjects, threshold, key);
                }
                ReportView::Metrics(metrics)
            }
            LabelKind::Classes(classes) => {
                ReportView::Classes(ClassMetrics::new(self.outputs, label, classes, subjects, key))
            }
            LabelKind::Number => {
                let count = self.loss == Loss::Poisson;
                let capped = |output: f64| output.clamp(-FARTHEST, FARTHEST);
                let predict = |output: &f32| match f64::from(*output) {
                    output if count => capped(output).exp(),
                    output => output,
                };
                let predictions: Vec<f64> = self.outputs.iter().map(predict).collect();
                ReportView::Number(NumberMetrics::new(&predictions, label, subjects, key))
            }
            LabelKind::Survival(_) => {
                ReportView::Survival(SurvivalMetrics::new(self.outputs, label, times, subjects, key))
            }
        })
    }

    /// The quality of the outputs for some of the rows.
    ///
    /// # Errors
    /// As [`Judged::view`].
    pub(crate) fn part(&self, rows: &[usize], asked: Asked<'_>) -> Result<(Frame, ReportView), CohortError> {
        let part = self.rows.labels(rows);
        let width = self.outputs.len() / self.rows.rows().max(1);
        let outputs: Vec<f32> =
            rows.iter().flat_map(|row| &self.outputs[row * width..(row + 1) * width]).copied().collect();
        let view = Judged { rows: &part, outputs: &outputs, loss: self.loss }.view(asked)?;
        Ok((part, view))
    }
}

impl ReportView {
    /// Quality as sums, before the rules on counts; nothing for sums of features and of a likelihood.
    pub(crate) fn sums(&self, rules: &Disclosure) -> BTreeMap<&'static str, Vec<f64>> {
        match self {
            Self::Metrics(metrics) => {
                let mut sums = metrics.sums();
                // PRIVACY: whoever chooses the model must not choose it so that few rows outweigh all others. These sums can
                // be missing for other reasons too, so that nothing else has to stay with them.
                if metrics.recalibration.is_some_and(|found| !share_allowed(rules, found.effective_rows)) {
                    sums.remove(figure::RECALIBRATION_INFORMATION);
                    sums.remove(figure::RECALIBRATION_WEIGHTED);
                }
                sums
            }
            Self::Classes(metrics) => metrics.sums(),
            Self::Number(metrics) => metrics.sums(),
            Self::Survival(metrics) => metrics.sums(),
            Self::Grouped { all, .. } => all.sums(rules),
            Self::Statistics { .. } | Self::Regression { .. } => BTreeMap::new(),
        }
    }

    /// Whether enough rows have a part in the sums of losses and errors, which have no bound, or are next to nothing for all
    /// rows but one: a model could be chosen so that one row outweighs all others.
    pub(crate) fn is_shared(&self, rules: &Disclosure) -> bool {
        match self {
            Self::Metrics(metrics) => share_allowed(rules, metrics.effective_rows),
            Self::Classes(metrics) => share_allowed(rules, metrics.effective_rows),
            Self::Number(metrics) => share_allowed(rules, metrics.effective_rows),
            Self::Grouped { all, .. } => all.is_shared(rules),
            // Counts of pairs, in which no row is in more than all others are; and sums with rules of their own.
            Self::Survival(_) | Self::Regression { .. } | Self::Statistics { .. } => true,
        }
    }
}

/// Rows by value, where the label is a number with few values: its sums could be solved for them.
pub(crate) fn label_levels(rows: &Frame, plan: &Plan) -> Vec<Vec<u64>> {
    if !matches!(plan.data.label.kind(), Ok(LabelKind::Number)) {
        return Vec::new();
    }
    let values = rows.label.clone();
    let label = Feature { name: "label".into(), codes: None, category: None, bounds: None, values };
    level_counts(&Frame { features: vec![label], label: rows.label.clone(), ..Frame::default() })
}

#[cfg(test)]
mod tests {
    use hospes_privacy::disclosure::border::Table;
    use hospes_protocol::plan::{self, Label};
    use hospes_protocol::policy::Policy;

    use super::super::leaving;
    use super::*;

    const PLAN: &str = r#"
schema: hospes/plan/v1
name: judged
data:
  subject: id
  label: { column: y, positive: "> 0" }
  columns: [x]
tasks:
  read: { component: reader }
  alone:
    component: local_baseline
    inputs: { train: read.data, data: read.data }
    params:
      model: [{ linear: { out: 1 } }]
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      epochs: 1
      batch: 4
"#;

    /// A plan with another label; what trains on it is not looked at here.
    fn plan(label: Label) -> Plan {
        let plan = plan::read(PLAN).unwrap();
        Plan { data: plan::DataNeeds { label, ..plan.data }, ..plan }
    }

    fn label() -> Label {
        Label { column: "y".into(), ..Label::default() }
    }

    fn frame(label: &[f64], times: &[f64]) -> Frame {
        let subjects = (0..label.len()).map(|n| [u8::try_from(n).unwrap(); 16]).collect();
        Frame { label: label.to_vec(), times: times.to_vec(), subjects, ..Frame::default() }
    }

    #[test]
    fn each_kind_of_label_gives_exactly_the_figures_that_its_plan_announces() {
        let positive = Some("> 0".to_owned());
        let classes: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let kinds = [
            (Label { positive: positive.clone(), ..label() }, frame(&[1.0, 0.0, 1.0], &[]), 1, 7),
            (Label { classes, ..label() }, frame(&[2.0, 0.0, 1.0], &[]), 3, 6),
            (label(), frame(&[2.5, 0.0, 1.0], &[]), 1, 5),
            (Label { positive, time: Some("t".into()), ..label() }, frame(&[1.0, 0.0, 1.0], &[3.0, 2.0, 1.0]), 1, 5),
        ];
        for (label, rows, outputs, figures) in kinds {
            let plan = plan(label);
            let outputs = vec![0.5f32; 3 * outputs];
            let judged = Judged { rows: &rows, outputs: &outputs, loss: Loss::Mse };
            let asked = |plan| Asked { plan, task: "alone", threshold: 0.5, calibration_bins: 0, in_full: true };
            let public = Policy::public_data().disclosure;
            let sums = judged.view(asked(&plan)).unwrap().sums(&public);
            let announced = plan::figures(&plan, "alone");
            assert_eq!((announced.len(), sums.len()), (figures, if figures == 7 { 10 } else { figures }));
            let table = Table { subjects: 3, parts_allowed: true, levels: &[] };
            let left = leaving(&announced, sums, table, &public);
            assert_eq!(plan::check_figures(&announced, &left), Ok(()));
            assert!(left.withheld.is_empty(), "{:?}", left.withheld);
            // Under a policy that protects counts, three people are too few for anything.
            let strict = Policy::strict().disclosure;
            let few = leaving(&announced, judged.view(asked(&plan)).unwrap().sums(&strict), table, &strict);
            assert!(few.sums.is_empty());
            let wrong = |outputs: &[f32]| Judged { outputs, ..judged }.view(asked(&plan)).unwrap_err();
            assert!(matches!(wrong(&outputs[1..]), CohortError::Model { .. }));
            let mut wild = outputs.clone();
            wild[1] = f32::INFINITY;
            assert!(wrong(&wild).to_string().contains("NaN or infinite"));
        }
    }

    #[test]
    fn a_count_is_predicted_by_the_exponential_of_the_output() {
        let rows = frame(&[1.0, 2.0], &[]);
        let plan = plan(label());
        let asked = Asked { plan: &plan, task: "alone", threshold: 0.5, calibration_bins: 0, in_full: false };
        let number = |loss, outputs: &[f32]| match (Judged { rows: &rows, outputs, loss }).view(asked).unwrap() {
            ReportView::Number(metrics) => metrics,
            other => panic!("{other:?}"),
        };
        let mae = |loss| number(loss, &[0.0, 2f32.ln()]).mae.unwrap();
        assert!(mae(Loss::Poisson) < 1e-6 && mae(Loss::Mse) > 1.0);
        // However far the output lies, the sums of the errors and of their squares are numbers.
        for far in [301.0, 1e38, -1e38] {
            let found = number(Loss::Poisson, &[far, 0.0]);
            let capped = if far > 0.0 { FARTHEST.exp() } else { 0.0 };
            assert!((found.absolute_error_sum - (capped - 1.0).abs() - 1.0).abs() <= 1e-9 * capped.max(1.0));
            assert!(found.squared_error_sum.is_finite() && found.rmse.unwrap().is_finite());
        }
        assert!(number(Loss::Mse, &[f32::MAX, -f32::MAX]).squared_error_sum.is_finite());
    }

    #[test]
    fn few_rows_that_outweigh_all_others_let_no_error_leave() {
        let labels: Vec<f64> = (0..100).map(|n| f64::from(n) / 7.0).collect();
        let rows = frame(&labels, &[]);
        let plan = plan(label());
        let asked = Asked { plan: &plan, task: "alone", threshold: 0.5, calibration_bins: 0, in_full: false };
        let rules = Policy::strict().disclosure;
        let is_shared =
            |outputs: &[f32]| Judged { rows: &rows, outputs, loss: Loss::Mse }.view(asked).unwrap().is_shared(&rules);
        let even: Vec<f32> = (0..100u8).map(|n| f32::from(n) / 7.0 + f32::from(n % 3) - 1.0).collect();
        assert!(is_shared(&even));
        let mut one = even.clone();
        one[17] = 1e20;
        assert!(!is_shared(&one));
    }

    /// Cross entropy has no bound, and next to nothing for a row that a model is sure of.
    #[test]
    fn a_row_that_is_the_loss_of_all_keeps_the_figures_of_every_kind_of_model_here() {
        let rules = Policy::strict().disclosure;
        let shared = |label: Label, rows: &Frame, outputs: &[f32]| {
            let plan = plan(label);
            let asked = Asked { plan: &plan, task: "alone", threshold: 0.5, calibration_bins: 0, in_full: false };
            Judged { rows, outputs, loss: Loss::Mse }.view(asked).unwrap().is_shared(&rules)
        };
        let yes_no = || Label { positive: Some("> 0".into()), ..label() };
        let rows = frame(&(0..100u8).map(|n| f64::from(n % 2)).collect::<Vec<_>>(), &[]);
        let toward = |n: usize, by: f32| if n % 2 == 1 { by } else { -by };
        // One in five on the wrong side.
        let usual: Vec<f32> = (0..100).map(|n| toward(n, if n % 5 == 0 { -1.0 } else { 2.0 })).collect();
        assert!(shared(yes_no(), &rows, &usual));
        let mut far = usual.clone();
        far[17] = -300.0;
        assert!(!shared(yes_no(), &rows, &far), "far on the wrong side");
        let mut unsure: Vec<f32> = (0..100).map(|n| toward(n, 30.0)).collect();
        assert!(shared(yes_no(), &rows, &unsure));
        unsure[17] = 0.25;
        assert!(!shared(yes_no(), &rows, &unsure), "the only one that the model is not sure of");
        // So sure that no loss is left.
        assert!(shared(yes_no(), &rows, &(0..100).map(|n| toward(n, 1e30)).collect::<Vec<_>>()));

        let three = || Label { classes: ["a", "b", "c"].map(str::to_owned).to_vec(), ..label() };
        let rows = frame(&(0..99u8).map(|n| f64::from(n % 3)).collect::<Vec<_>>(), &[]);
        let mut outputs = vec![0.0f32; 3 * 99];
        (0..99).for_each(|n| outputs[3 * n + n % 3] = 2.0);
        assert!(shared(three(), &rows, &outputs));
        outputs[3 * 50 + 50 % 3] = -300.0;
        assert!(!shared(three(), &rows, &outputs));
    }

    #[test]
    fn models_that_are_judged_on_one_table_are_judged_on_the_same_resamples() {
        let text = r#"
schema: hospes/plan/v1
name: judged
data: { subject: id, label: { column: y }, columns: [x] }
tasks:
  read: { component: reader }
  split: { component: data_split, inputs: { data: read }, params: { test_fraction: 0.5 } }
  fit: { component: glm, inputs: { train: split.train }, params: { family: gaussian } }
  federated: { component: evaluation, inputs: { model: fit.model, data: split.test } }
  elsewhere: { component: evaluation, inputs: { model: fit.model, data: split.train } }
  alone:
    component: local_baseline
    inputs: { train: split.train, data: split.test }
    params:
      model: [{ linear: { out: 1 } }]
      loss: mse
      optimizer: { sgd: { lr: 0.1 } }
      epochs: 1
      batch: 4
"#;
        let plan = plan::read(text).unwrap_or_else(|e| panic!("{e}"));
        let labels: Vec<f64> = (0..60).map(|n| f64::from(n * n % 17)).collect();
        let (rows, outputs) = (frame(&labels, &[]), [5.0f32; 60]);
        let intervals = |task| {
            let asked = Asked { plan: &plan, task, threshold: 0.5, calibration_bins: 0, in_full: true };
            match (Judged { rows: &rows, outputs: &outputs, loss: Loss::Mse }).view(asked).unwrap() {
                ReportView::Number(metrics) => metrics.intervals,
                other => panic!("{other:?}"),
            }
        };
        assert!(intervals("alone")["mae"].low < intervals("alone")["mae"].high);
        assert_eq!(intervals("alone"), intervals("federated"));
        assert_ne!(intervals("alone"), intervals("elsewhere"));
    }

    #[test]
    fn a_number_with_few_values_is_counted_by_value() {
        let rows = frame(&[1.0, 1.0, 2.0], &[]);
        let mut levels = label_levels(&rows, &plan(label()));
        levels.iter_mut().for_each(|l| l.sort_unstable());
        assert_eq!(levels, [vec![1, 2]]);
        let yes_no = Label { positive: Some("> 0".into()), ..label() };
        assert!(label_levels(&rows, &plan(yes_no)).is_empty());
    }
}
