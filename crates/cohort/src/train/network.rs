//! A network of affine and activation layers, and optimiser steps on it.

use burn::optim::momentum::MomentumConfig;
use burn::optim::{Adam, AdamConfig, AdamState, Optimizer as _, Sgd, SgdConfig, SgdState};
use burn::tensor::{Device, Tensor, TensorData, activation};
use hospes_protocol::plan::model::{TensorShape, tensors};
use hospes_protocol::plan::{Layer, Model, Optimizer};

use crate::component::Matrix;
use crate::error::CohortError;

/// Rows that go through the network at once when it is not trained.
const FORWARD_ROWS: usize = 4_096;

/// The layers of a plan with their parameters on the CPU.
pub(crate) struct Network {
    layers: Vec<Layer>,
    /// In the order of the plan's tensors; a bias is `[1, out]`.
    parameters: Vec<Tensor<2>>,
    inputs: usize,
    device: Device,
}

/// An optimiser with its state, tensor by tensor.
pub(crate) enum Step {
    Sgd { optimizer: Sgd, lr: f64, state: Vec<Option<SgdState<2>>> },
    Adam { optimizer: Adam, lr: f64, state: Vec<Option<AdamState<2>>> },
}

impl Step {
    pub(crate) fn new(optimizer: &Optimizer) -> Self {
        match *optimizer {
            Optimizer::Sgd { lr, momentum } => {
                // PyTorch's momentum has no dampening.
                let with = MomentumConfig::new().with_momentum(momentum).with_dampening(0.0);
                let config = SgdConfig::new().with_momentum((momentum != 0.0).then_some(with));
                Self::Sgd { optimizer: config.build(), lr, state: Vec::new() }
            }
            Optimizer::Adam { lr } | Optimizer::AdamW { lr, .. } => {
                // Kingma, Ba 2015, Algorithm 1.
                let config = AdamConfig::new().with_beta_1(0.9).with_beta_2(0.999).with_epsilon(1e-8);
                Self::Adam { optimizer: config.build(), lr, state: Vec::new() }
            }
        }
    }

    fn apply(&mut self, index: usize, parameter: Tensor<2>, gradient: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Sgd { optimizer, lr, state } => {
                let (next, new) = optimizer.step(*lr, parameter, gradient, slot(state, index).take());
                *slot(state, index) = new;
                next
            }
            Self::Adam { optimizer, lr, state } => {
                let (next, new) = optimizer.step(*lr, parameter, gradient, slot(state, index).take());
                *slot(state, index) = new;
                next
            }
        }
    }
}

fn slot<S>(state: &mut Vec<Option<S>>, index: usize) -> &mut Option<S> {
    while state.len() <= index {
        state.push(None);
    }
    &mut state[index]
}

impl Network {
    /// # Shapes
    /// `parameters`: all tensors of the plan one after the other, each row-major.
    ///
    /// # Errors
    /// [`CohortError::Model`] if there are more or fewer numbers than the plan's tensors have, or one is not finite.
    pub(crate) fn new(model: &Model, inputs: usize, parameters: &[f32]) -> Result<Self, CohortError> {
        let shapes = tensors(model, inputs as u64);
        let layers: Vec<Layer> = model.layers().cloned().collect();
        let wanted = shapes.iter().fold(0u64, |n, t| n.saturating_add(t.len()));
        let wrong = |reason: String| Err(CohortError::Model { reason });
        if wanted != parameters.len() as u64 {
            return wrong(format!("{} parameters, the plan's model has {wanted}", parameters.len()));
        }
        if !parameters.iter().all(|p| p.is_finite()) {
            return wrong("a parameter is NaN or infinite".into());
        }
        let last = layers.iter().rev().find_map(|l| match l {
            Layer::Linear(linear) => Some(linear.out),
            _ => None,
        });
        if last != Some(1) {
            return wrong("the last affine layer must have one output".into());
        }
        let device = Device::flex();
        let mut rest = parameters;
        let mut list = Vec::with_capacity(shapes.len());
        for shape in &shapes {
            let [rows, columns] = sides(shape);
            let (mine, others) = rest.split_at(rows * columns);
            rest = others;
            list.push(Tensor::from_data(TensorData::new(mine.to_vec(), [rows, columns]), &device));
        }
        Ok(Self { layers, parameters: list, inputs, device })
    }

    /// All parameters one after the other, in the order of the plan's tensors.
    pub(crate) fn parameters(&self) -> Vec<f32> {
        self.parameters.iter().flat_map(values).collect()
    }

    /// One optimiser step on one batch.
    ///
    /// # Shapes
    /// `x`: rows × features, row-major; `y`: rows.
    pub(crate) fn step(&mut self, step: &mut Step, x: &[f32], y: &[f32]) {
        let device = self.device.clone().autodiff();
        let tracked: Vec<Tensor<2>> = self.parameters.iter().map(|p| p.clone().autodiff().require_grad()).collect();
        let x = Tensor::<2>::from_data(TensorData::new(x.to_vec(), [y.len(), self.inputs]), &device);
        let y = Tensor::<2>::from_data(TensorData::new(y.to_vec(), [y.len(), 1]), &device);
        let logits = forward(&self.layers, &tracked, x);
        // The gradient of binary cross-entropy on logits is σ(z) − y, exactly and without overflow; so it is put in as
        // a constant factor, and the loss itself, which nobody looks at between two steps, is not computed.
        let residual = activation::sigmoid(logits.clone().detach()) - y;
        let mut gradients = (logits * residual.detach()).mean().backward();
        for (index, parameter) in tracked.iter().enumerate() {
            if let Some(gradient) = parameter.grad_remove(&mut gradients) {
                let old = self.parameters[index].clone();
                self.parameters[index] = step.apply(index, old, gradient);
            }
        }
    }

    /// The model's raw outputs before the sigmoid.
    pub(crate) fn logits(&self, data: &Matrix) -> Vec<f32> {
        let mut all = Vec::with_capacity(data.rows);
        for chunk in data.values.chunks(FORWARD_ROWS * data.columns) {
            let rows = chunk.len() / data.columns;
            let x = Tensor::<2>::from_data(TensorData::new(chunk.to_vec(), [rows, self.inputs]), &self.device);
            all.extend(values(&forward(&self.layers, &self.parameters, x)));
        }
        all
    }
}

fn forward(layers: &[Layer], parameters: &[Tensor<2>], mut x: Tensor<2>) -> Tensor<2> {
    let mut next = parameters.iter().cloned();
    for layer in layers {
        x = match layer {
            Layer::Linear(linear) => {
                if let Some(weight) = next.next() {
                    x = x.matmul(weight);
                }
                match linear.bias.then(|| next.next()).flatten() {
                    Some(bias) => x + bias,
                    None => x,
                }
            }
            Layer::Relu {} => activation::relu(x),
            Layer::Gelu {} => activation::gelu(x),
            Layer::Tanh {} => activation::tanh(x),
            Layer::Sigmoid {} => activation::sigmoid(x),
            _ => x,
        };
    }
    x
}

/// Rows and columns of the tensor that holds it.
#[allow(clippy::cast_possible_truncation)]
fn sides(shape: &TensorShape) -> [usize; 2] {
    match shape.shape[..] {
        [rows, columns] => [rows as usize, columns as usize],
        _ => [1, shape.len() as usize],
    }
}

fn values(tensor: &Tensor<2>) -> Vec<f32> {
    // Unwrap safety: the tensor lies on the CPU and was made from f32.
    #[allow(clippy::unwrap_used)]
    tensor.to_data().try_to_vec::<f32>().unwrap()
}

#[cfg(test)]
mod tests {
    use hospes_protocol::plan::{Init, Linear, model::initial};

    use super::*;

    fn linear(out: u32) -> Layer {
        Layer::Linear(Linear { out, bias: true, init: Init::TorchDefault })
    }

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
        };
        (0..n).map(|_| next()).collect()
    }

    /// Central differences of the loss that the step says it descends.
    #[test]
    fn a_step_follows_the_gradient_of_cross_entropy_also_where_logits_are_zero() {
        let layers = Model::Layers(vec![linear(3), Layer::Tanh {}, linear(1)]);
        let (x, y) = (noise(8, 1), [1.0, 0.0, 0.0, 1.0]);
        let loss = |parameters: &[f32]| -> f64 {
            let network = Network::new(&layers, 2, parameters).unwrap();
            let data = Matrix { rows: 4, columns: 2, values: x.clone(), labels: y.to_vec(), origin: vec![0; 4] };
            let each = network.logits(&data).into_iter().zip(y).map(|(z, y)| {
                let z = f64::from(z);
                z.max(0.0) - z * f64::from(y) + (-z.abs()).exp().ln_1p()
            });
            each.sum::<f64>() / 4.0
        };
        for start in [initial(&layers, 2u64, 3), vec![0.0; 13]] {
            let mut network = Network::new(&layers, 2, &start).unwrap();
            network.step(&mut Step::new(&Optimizer::Sgd { lr: 1.0, momentum: 0.0 }), &x, &y);
            let after = network.parameters();
            for i in 0..start.len() {
                let moved = |by: f32| {
                    let mut p = start.clone();
                    p[i] += by;
                    loss(&p)
                };
                let gradient = (moved(0.01) - moved(-0.01)) / 0.02;
                let step = f64::from(start[i] - after[i]);
                assert!((step - gradient).abs() < 2e-3, "parameter {i}: {step} {gradient}");
            }
        }
    }

    #[test]
    fn optimisers_follow_their_papers() {
        // One weight, no bias, x = 1: the gradient is σ(w) − y.
        let layers = Model::Layers(vec![Layer::Linear(Linear { out: 1, bias: false, init: Init::Zeros })]);
        let sigmoid = |w: f64| 1.0 / (1.0 + (-w).exp());
        let run = |optimizer| {
            let mut network = Network::new(&layers, 1, &[0.3]).unwrap();
            let mut step = Step::new(&optimizer);
            (0..5).for_each(|_| network.step(&mut step, &[1.0], &[1.0]));
            f64::from(network.parameters()[0])
        };
        let (mut w, mut velocity) = (0.3, 0.0);
        for _ in 0..5 {
            velocity = 0.9 * velocity + (sigmoid(w) - 1.0);
            w -= 0.1 * velocity;
        }
        assert!((run(Optimizer::Sgd { lr: 0.1, momentum: 0.9 }) - w).abs() < 1e-5);
        let (mut w, mut m, mut v) = (0.3, 0.0, 0.0);
        for t in 1..=5 {
            let g: f64 = sigmoid(w) - 1.0;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            w -= 0.01 * m_hat / (v_hat.sqrt() + 1e-8);
        }
        assert!((run(Optimizer::Adam { lr: 0.01 }) - w).abs() < 1e-5);
    }

    #[test]
    fn large_batches_give_the_same_bytes_for_any_number_of_threads() {
        let layers = Model::Layers(vec![linear(256), Layer::Relu {}, linear(128), Layer::Gelu {}, linear(1)]);
        let (x, y): (Vec<f32>, Vec<f32>) =
            (noise(1_024 * 96, 5), noise(1_024, 6).iter().map(|v| v.signum().max(0.0)).collect());
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut network = Network::new(&layers, 96, &initial(&layers, 96u64, 1)).unwrap();
                let mut step = Step::new(&Optimizer::Adam { lr: 0.01 });
                (0..3).for_each(|_| network.step(&mut step, &x, &y));
                network.parameters()
            })
        };
        let one = run(1);
        assert!(one.iter().all(|p| p.is_finite()));
        assert!(one == run(2) && one == run(7));
    }
}
