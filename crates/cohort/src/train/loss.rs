//! Losses and their gradients with respect to the model's outputs.
//!
//! The gradient of each loss on the outputs has a closed form that neither overflows nor loses digits, so it is put in
//! as a constant factor; the loss itself, which nobody looks at between two steps, is computed for views only.

use burn::tensor::{Device, Tensor, TensorData, activation};
use hospes_protocol::plan::Loss;

use super::network::values;
use crate::component::Matrix;
use crate::regress::{effective, sharing};

/// What is minimised.
///
/// Class weights are PyTorch's: each row's loss counts times the weight of its class, and the sum is divided by the sum
/// of these weights, for two classes as for many (`nn.CrossEntropyLoss`; unlike `pos_weight`, which divides by rows).
pub(crate) struct Goal {
    loss: Loss,
    weights: Vec<f64>,
}

/// Labels of a batch.
pub(super) struct Target {
    /// 0 or 1, a class's index, a number, or whether there was an event.
    pub(super) labels: Vec<f32>,
    /// Times, for `cox`.
    pub(super) times: Vec<f32>,
}

impl Goal {
    pub(crate) fn new(loss: Loss, weights: &[f64]) -> Self {
        Self { loss, weights: weights.to_vec() }
    }

    /// Weight of a row.
    fn weight(&self, label: f32) -> f64 {
        match self.loss {
            // The partial likelihood has a term for each event.
            Loss::Cox => f64::from(label),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Loss::BinaryCrossEntropy | Loss::CrossEntropy => {
                self.weights.get(label.max(0.0) as usize).copied().unwrap_or(1.0)
            }
            Loss::Mse | Loss::Poisson => 1.0,
        }
    }

    /// Whether the loss of a row depends on the other rows of its batch.
    pub(super) fn mixes_rows(&self) -> bool {
        self.loss == Loss::Cox
    }

    /// What the sum over a batch is divided by: its rows, their weights, or, for `cox`, its events.
    pub(super) fn mass(&self, labels: impl Iterator<Item = f32>) -> f64 {
        labels.map(|label| self.weight(label)).sum()
    }

    /// Gradient of the loss with respect to the outputs. `mass`: of the whole batch, of which this may be a part.
    ///
    /// # Shapes
    /// `outputs` and the gradient: `[rows, outputs]`.
    pub(super) fn gradient(&self, outputs: Tensor<2>, target: &Target, mass: f64) -> Tensor<2> {
        let device = outputs.device();
        if mass <= 0.0 {
            return outputs.zeros_like();
        }
        let column = |of: &dyn Fn(f32) -> f64| column(target.labels.iter().map(|l| of(*l)).collect(), &device);
        match self.loss {
            Loss::BinaryCrossEntropy if self.weights.is_empty() => {
                (activation::sigmoid(outputs) - column(&f64::from)).mul_scalar(1.0 / mass)
            }
            Loss::BinaryCrossEntropy => {
                let weights = column(&|label| self.weight(label) / mass);
                (activation::sigmoid(outputs) - column(&f64::from)) * weights
            }
            Loss::CrossEntropy => {
                let [rows, classes] = outputs.dims();
                let mut right = vec![0f32; rows * classes];
                for (row, label) in target.labels.iter().enumerate() {
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                    let class = (label.max(0.0) as usize).min(classes - 1);
                    right[row * classes + class] = 1.0;
                }
                let right = Tensor::from_data(TensorData::new(right, [rows, classes]), &device);
                (activation::softmax(outputs, 1) - right) * column(&|label| self.weight(label) / mass)
            }
            Loss::Mse => (outputs - column(&f64::from)).mul_scalar(2.0 / mass),
            Loss::Poisson => (outputs.exp() - column(&f64::from)).mul_scalar(1.0 / mass),
            Loss::Cox => column_of(&cox(&values(&outputs), &target.labels, &target.times, mass), &device),
        }
    }

    /// Mean of the loss over rows, for views. Of `cox`, the mean over events of the partial likelihood of all these rows.
    ///
    /// # Shapes
    /// `outputs`: rows × outputs, row-major.
    pub(crate) fn mean(&self, outputs: &[f32], data: &Matrix) -> f64 {
        let mass = self.mass(data.labels.iter().copied());
        if mass <= 0.0 || outputs.is_empty() {
            return 0.0;
        }
        self.terms(outputs, data).iter().sum::<f64>() / mass
    }

    /// How many rows have a part in that mean, see [`effective`].
    ///
    /// # Shapes
    /// As [`Goal::mean`].
    pub(crate) fn effective_rows(&self, outputs: &[f32], data: &Matrix) -> f64 {
        if outputs.is_empty() {
            return 0.0;
        }
        // A loss that leaves out a constant can be negative.
        let terms: Vec<f64> = self.terms(outputs, data).iter().map(|term| term.abs()).collect();
        let shared = sharing(&terms);
        match self.loss {
            // A hazard stands in the terms of all events before it.
            Loss::Cox => shared.min(effective(&hazards(outputs).1)),
            _ => shared,
        }
    }

    /// What each row adds to the loss, or, of `cox`, each event.
    pub(crate) fn terms(&self, outputs: &[f32], data: &Matrix) -> Vec<f64> {
        if self.loss == Loss::Cox {
            return cox_terms(outputs, &data.labels, &data.times);
        }
        let each = outputs.chunks(outputs.len() / data.rows.max(1)).zip(&data.labels).map(|(z, label)| {
            let (first, y) = (f64::from(z[0]), f64::from(*label));
            let loss = match self.loss {
                Loss::BinaryCrossEntropy => first.max(0.0) - first * y + (-first.abs()).exp().ln_1p(),
                Loss::CrossEntropy => {
                    let most = z.iter().fold(f64::NEG_INFINITY, |most, z| most.max(f64::from(*z)));
                    let sum: f64 = z.iter().map(|z| (f64::from(*z) - most).exp()).sum();
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                    let class = (label.max(0.0) as usize).min(z.len() - 1);
                    most + sum.ln() - f64::from(z[class])
                }
                Loss::Mse => (first - y).powi(2),
                Loss::Poisson | Loss::Cox => first.exp() - y * first,
            };
            loss * self.weight(*label)
        });
        each.collect()
    }
}

fn column(values: Vec<f64>, device: &Device) -> Tensor<2> {
    column_of(&values, device)
}

fn column_of(values: &[f64], device: &Device) -> Tensor<2> {
    #[allow(clippy::cast_possible_truncation)]
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    let rows = values.len();
    Tensor::from_data(TensorData::new(values, [rows, 1]), device)
}

/// Rows from the last time to the first, those of one time together: the order in which risk sets grow.
fn risk_order(times: &[f32]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by(|a, b| times[*b].total_cmp(&times[*a]));
    order.chunk_by(|a, b| times[*a] == times[*b]).map(<[usize]>::to_vec).collect()
}

/// The largest score, and exp η of each row as a part of its.
fn hazards(scores: &[f32]) -> (f64, Vec<f64>) {
    let most = scores.iter().fold(f64::NEG_INFINITY, |most, s| most.max(f64::from(*s)));
    (most, scores.iter().map(|s| (f64::from(*s) - most).exp()).collect())
}

/// Negative log partial likelihood with Breslow's ties (Cox 1972; Breslow 1974), event by event:
/// log Σ_{j: t_j ≥ t_i} exp η_j − η_i.
fn cox_terms(scores: &[f32], events: &[f32], times: &[f32]) -> Vec<f64> {
    let (most, risk) = hazards(scores);
    let (mut at_risk, mut terms) = (0.0, Vec::new());
    for tied in risk_order(times) {
        at_risk += tied.iter().map(|i| risk[*i]).sum::<f64>().max(f64::MIN_POSITIVE);
        let failed = tied.iter().filter(|i| events[**i] > 0.5);
        terms.extend(failed.map(|i| most + at_risk.ln() - f64::from(scores[*i])));
    }
    terms
}

/// Its gradient over `mass`: for row j, exp η_j · Σ_{events i: t_i ≤ t_j} 1 / Σ_{k: t_k ≥ t_i} exp η_k − event_j.
fn cox(scores: &[f32], events: &[f32], times: &[f32], mass: f64) -> Vec<f64> {
    let (_, risk) = hazards(scores);
    let order = risk_order(times);
    let mut at_risk = 0.0;
    let sums: Vec<f64> = order
        .iter()
        .map(|tied| {
            at_risk += tied.iter().map(|i| risk[*i]).sum::<f64>().max(f64::MIN_POSITIVE);
            at_risk
        })
        .collect();
    let mut gradient = vec![0.0; scores.len()];
    let mut hazard = 0.0;
    // From the first time to the last.
    for (tied, sum) in order.iter().zip(&sums).rev() {
        hazard += tied.iter().map(|i| f64::from(events[*i])).sum::<f64>() / sum;
        for i in tied {
            gradient[*i] = (risk[*i] * hazard - f64::from(events[*i])) / mass;
        }
    }
    gradient
}
