//! What a model gave for the rows of a table, judged by the kind of the plan's label.

use std::collections::BTreeMap;

use hospes_protocol::canon;
use hospes_protocol::plan::{LabelKind, Loss, Plan};

use super::{ClassMetrics, Metrics, NumberMetrics, SurvivalMetrics};
use crate::cohort::ReportView;
use crate::component::{Feature, Frame, level_counts};
use crate::error::CohortError;

/// A table and the outputs of a model for its rows.
pub(crate) struct Judged<'a> {
    /// The table, with a label in every row.
    pub(crate) rows: &'a Frame,
    /// Outputs row after row, before any sigmoid or softmax.
    pub(crate) outputs: &'a [f32],
    /// The loss that the model was trained with: it says what an output means.
    pub(crate) loss: Loss,
}

impl Judged<'_> {
    /// The quality of the outputs, with curves and intervals where there are any.
    pub(crate) fn view(
        &self,
        plan: &Plan,
        task: &str,
        threshold: f64,
        calibration_bins: u32,
    ) -> Result<ReportView, CohortError> {
        let kind = plan.data.label.kind();
        let kind = kind.map_err(|reason| CohortError::Plan { place: "data.label".into(), reason })?;
        let expected = (self.rows.rows() as u64).saturating_mul(kind.outputs());
        if self.outputs.len() as u64 != expected {
            let reason = "it has another number of outputs than the label needs".to_owned();
            return Err(CohortError::Model { reason });
        }
        let Frame { label, times, subjects, .. } = self.rows;
        let key = canon::digest("bootstrap", 1, &[&plan.seed.to_le_bytes(), task.as_bytes()].concat());
        Ok(match kind {
            LabelKind::YesNo(_) => {
                let labels: Vec<f32> = label.iter().map(|l| f32::from(u8::from(*l > 0.5))).collect();
                let metrics = Metrics::new(self.outputs, &labels, threshold, calibration_bins);
                ReportView::Metrics(metrics.with_detail(self.outputs, &labels, subjects, threshold, key))
            }
            LabelKind::Classes(classes) => {
                ReportView::Classes(ClassMetrics::new(self.outputs, label, classes, subjects, key))
            }
            LabelKind::Number => {
                let count = self.loss == Loss::Poisson;
                let predict = |output: &f32| if count { f64::from(*output).exp() } else { f64::from(*output) };
                let predictions: Vec<f64> = self.outputs.iter().map(predict).collect();
                ReportView::Number(NumberMetrics::new(&predictions, label, subjects, key))
            }
            LabelKind::Survival(_) => {
                ReportView::Survival(SurvivalMetrics::new(self.outputs, label, times, subjects, key))
            }
        })
    }
}

impl ReportView {
    /// Quality as sums, before any disclosure rule; nothing for sums of features and of a likelihood.
    pub(crate) fn sums(&self) -> BTreeMap<&'static str, Vec<f64>> {
        match self {
            Self::Metrics(metrics) => metrics.sums(),
            Self::Classes(metrics) => metrics.sums(),
            Self::Number(metrics) => metrics.sums(),
            Self::Survival(metrics) => metrics.sums(),
            Self::Statistics { .. } | Self::Regression { .. } => BTreeMap::new(),
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
            let sums = judged.view(&plan, "alone", 0.5, 0).unwrap().sums();
            let announced = plan::figures(&plan, "alone");
            assert_eq!((announced.len(), sums.len()), (figures, if figures == 7 { 10 } else { figures }));
            let table = Table { subjects: 3, parts_allowed: true, levels: &[] };
            let left = leaving(&announced, sums, table, &Policy::public_data().disclosure);
            assert_eq!(plan::check_figures(&announced, &left), Ok(()));
            assert!(left.withheld.is_empty(), "{:?}", left.withheld);
            // Under a policy that protects counts, three people are too few for anything.
            let few = leaving(
                &announced,
                judged.view(&plan, "alone", 0.5, 0).unwrap().sums(),
                table,
                &Policy::strict().disclosure,
            );
            assert!(few.sums.is_empty());
            let judged = Judged { outputs: &outputs[1..], ..judged };
            assert!(matches!(judged.view(&plan, "alone", 0.5, 0), Err(CohortError::Model { .. })));
        }
    }

    #[test]
    fn a_count_is_predicted_by_the_exponential_of_the_output() {
        let rows = frame(&[1.0, 2.0], &[]);
        let outputs = [0.0f32, 2f32.ln()];
        let view =
            |loss| Judged { rows: &rows, outputs: &outputs, loss }.view(&plan(label()), "alone", 0.5, 0).unwrap();
        let mae = |view| if let ReportView::Number(m) = view { m.mae.unwrap() } else { f64::NAN };
        assert!(mae(view(Loss::Poisson)) < 1e-6 && mae(view(Loss::Mse)) > 1.0);
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
