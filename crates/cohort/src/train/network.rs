//! A network of affine and activation layers, and optimiser steps on it.

use burn::optim::momentum::MomentumConfig;
use burn::optim::{Adam, AdamConfig, AdamState, Optimizer as _, Sgd, SgdConfig, SgdState};
use burn::tensor::{Device, Tensor, TensorData, activation};
use hospes_protocol::plan::model::{TensorShape, tensors};
use hospes_protocol::plan::{Layer, Optimizer};

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
            Optimizer::Adam { lr } => {
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
    pub(crate) fn new(layers: &[Layer], inputs: usize, parameters: &[f32]) -> Result<Self, CohortError> {
        let shapes = tensors(layers, inputs as u64);
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
        Ok(Self { layers: layers.to_vec(), parameters: list, inputs, device })
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
