//! What each layer does to a batch.
//!
//! All values are `[batch, a, b, c]`: a feature vector is `[batch, n, 1, 1]`, a signal `[batch, channels, length, 1]`,
//! an image `[batch, channels, height, width]`. One rank for everything means one code for one and two dimensions.

use burn::tensor::module;
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData, activation};
use hospes_protocol::plan::Layer;
use hospes_protocol::plan::model::Placed;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng as _;

/// PyTorch's default of every norm.
const EPSILON: f64 = 1e-5;

/// Running figures of a batch norm layer, one of each for every channel.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) mean: Tensor<1>,
    pub(super) variance: Tensor<1>,
}

/// Puts a batch through one layer.
///
/// # Shapes
/// `parameters`: the layer's trained tensors, each flattened. `training`: the stream of dropout masks while the network
/// is trained; batch norm then takes the batch's own statistics and moves its running figures.
pub(super) fn forward(
    placed: &Placed,
    mut inputs: Vec<Tensor<4>>,
    parameters: &[Tensor<1>],
    running: &mut Option<Running>,
    training: Option<&mut ChaCha20Rng>,
) -> Tensor<4> {
    if let Layer::Concat {} = placed.layer {
        return Tensor::cat(inputs, 1);
    }
    let mut inputs = inputs.drain(..);
    // Unwrap safety: every layer that `plan::model::place` puts in its place has an input.
    #[allow(clippy::unwrap_used)]
    let x = inputs.next().unwrap();
    match &placed.layer {
        Layer::Linear(_) => {
            let [rows, features, ..] = x.dims();
            let weight = parameters[0].clone().reshape([features, sides(placed)[0]]);
            let bias = parameters.get(1).cloned();
            shaped(module::linear(x.reshape([rows, features]), weight, bias), sides(placed))
        }
        Layer::Embedding(embedding) => embed(x, parameters[0].clone(), embedding.codes as usize, sides(placed)[0]),
        Layer::Conv1d(conv) | Layer::Conv2d(conv) => {
            let window = Window::new((conv.kernel, conv.stride, conv.padding), placed);
            let weight = [conv.out as usize, x.dims()[1], window.kernel[0], window.kernel[1]];
            let options = ConvOptions::new(window.stride, window.padding, [1, 1], 1);
            module::conv2d(x, parameters[0].clone().reshape(weight), parameters.get(1).cloned(), options)
        }
        Layer::MaxPool(pool) => {
            let window = Window::new((pool.kernel, pool.stride(), pool.padding), placed);
            let options = MaxPoolOptions::new(window.kernel).with_stride(window.stride);
            module::max_pool2d(x, options.with_padding(window.padding))
        }
        Layer::AvgPool(pool) => {
            let window = Window::new((pool.kernel, pool.stride(), pool.padding), placed);
            let options = AvgPoolOptions::new(window.kernel).with_stride(window.stride);
            module::avg_pool2d(x, options.with_padding(window.padding).with_count_include_pad(true))
        }
        Layer::GlobalPool {} => {
            let [rows, channels, height, width] = x.dims();
            shaped(x.reshape([rows * channels, height * width]).mean_dim(1).reshape([rows, channels]), sides(placed))
        }
        Layer::BatchNorm(norm) => batch_norm(x, parameters, running, norm.momentum, training.is_some()),
        Layer::GroupNorm(norm) => {
            let [rows, channels, height, width] = x.dims();
            let groups = (norm.groups as usize).max(1);
            let x = normalise(x.reshape([rows * groups, channels * height * width / groups]));
            let side = |of: &Tensor<1>| of.clone().reshape([1, channels, 1, 1]);
            x.reshape([rows, channels, height, width]) * side(&parameters[0]) + side(&parameters[1])
        }
        Layer::LayerNorm {} => {
            let [rows, channels, height, width] = x.dims();
            let x = normalise(x.reshape([rows, channels * height * width]));
            let side = |of: &Tensor<1>| of.clone().reshape([1, channels, height, width]);
            x.reshape([rows, channels, height, width]) * side(&parameters[0]) + side(&parameters[1])
        }
        Layer::Relu {} => activation::relu(x),
        Layer::Gelu {} => activation::gelu(x),
        Layer::Tanh {} => activation::tanh(x),
        Layer::Sigmoid {} => activation::sigmoid(x),
        Layer::Dropout(dropout) => match training {
            Some(stream) if dropout.rate > 0.0 => {
                let mask = mask(stream, x.dims(), dropout.rate, &x.device().without_autodiff());
                x * mask
            }
            _ => x,
        },
        Layer::Flatten {} | Layer::Reshape(_) => {
            let rows = x.dims()[0];
            let [a, b, c] = sides(placed);
            x.reshape([rows, a, b, c])
        }
        Layer::Add {} => inputs.fold(x, |sum, next| sum + next),
        Layer::Concat {} => x,
    }
}

/// The three sides of a layer's output for one row.
pub(super) fn sides(placed: &Placed) -> [usize; 3] {
    sides_of(&placed.out)
}

#[allow(clippy::cast_possible_truncation)]
pub(super) fn sides_of(shape: &[u64]) -> [usize; 3] {
    std::array::from_fn(|i| shape.get(i).map_or(1, |side| *side as usize))
}

fn shaped(x: Tensor<2>, [a, b, c]: [usize; 3]) -> Tensor<4> {
    let rows = x.dims()[0];
    x.reshape([rows, a, b, c])
}

/// A window that slides over the dimensions after the channels; over one that is not there it does not move.
struct Window {
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
}

impl Window {
    fn new((kernel, stride, padding): (u32, u32, u32), placed: &Placed) -> Self {
        let second = |side: u32, none: usize| if placed.out.len() > 2 { side as usize } else { none };
        Self {
            kernel: [kernel as usize, second(kernel, 1)],
            stride: [stride as usize, second(stride, 1)],
            padding: [padding as usize, second(padding, 0)],
        }
    }
}

/// Vectors for codes. A number that is no code is refused before ([`super::Network::check`]); where codes come out of
/// another layer, the nearest one counts.
fn embed(x: Tensor<4>, weight: Tensor<1>, codes: usize, length: usize) -> Tensor<4> {
    let [rows, places, ..] = x.dims();
    #[allow(clippy::cast_precision_loss)]
    let last = codes.saturating_sub(1) as f64;
    let indices = x.without_autodiff().reshape([rows, places]).clamp(0.0, last).int();
    let found = module::embedding(weight.reshape([codes, length]), indices);
    found.swap_dims(1, 2).reshape([rows, length, places, 1])
}

/// Ioffe, Szegedy 2015, with PyTorch's conventions: the biased variance of the batch normalises, the unbiased one goes
/// into the running figure. A batch with one value per channel has no variance; it leaves the running figures alone.
fn batch_norm(
    x: Tensor<4>,
    parameters: &[Tensor<1>],
    running: &mut Option<Running>,
    momentum: f64,
    training: bool,
) -> Tensor<4> {
    let (weight, bias) = (parameters[0].clone(), parameters[1].clone());
    match running {
        Some(running) if !training => {
            module::batch_norm(x, weight, bias, running.mean.clone(), running.variance.clone(), EPSILON)
        }
        _ => {
            let [rows, _, height, width] = x.dims();
            let values = rows * height * width;
            let batch = module::batch_norm_train(x, weight, bias, EPSILON);
            if let Some(running) = running.as_mut().filter(|_| values > 1) {
                #[allow(clippy::cast_precision_loss)]
                let unbiased = values as f64 / (values - 1) as f64;
                let moved = |old: &Tensor<1>, new: Tensor<1>, factor: f64| {
                    old.clone().mul_scalar(1.0 - momentum) + new.without_autodiff().mul_scalar(momentum * factor)
                };
                running.mean = moved(&running.mean, batch.mean, 1.0);
                running.variance = moved(&running.variance, batch.variance, unbiased);
            }
            batch.output
        }
    }
}

/// Each row with mean 0 and variance 1: what group and layer norm share. It is batch norm over one row with a channel for
/// each of ours, which Burn differentiates as one operation.
fn normalise(x: Tensor<2>) -> Tensor<2> {
    let [rows, values] = x.dims();
    let device = x.device();
    let (one, zero) = (Tensor::ones([rows], &device), Tensor::zeros([rows], &device));
    module::batch_norm_train(x.reshape([1, rows, values, 1]), one, zero, EPSILON).output.reshape([rows, values])
}

/// 0 with the given probability, else what keeps the expected sum (Srivastava et al. 2014).
fn mask(stream: &mut ChaCha20Rng, shape: [usize; 4], rate: f64, device: &Device) -> Tensor<4> {
    let entries = shape.iter().product::<usize>();
    let mut bytes = vec![0u8; entries * 4];
    stream.fill_bytes(&mut bytes);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let (below, kept) = ((rate * 2f64.powi(32)) as u32, (1.0 / (1.0 - rate)) as f32);
    let (draws, _) = bytes.as_chunks::<4>();
    let values: Vec<f32> = draws.iter().map(|b| if u32::from_le_bytes(*b) < below { 0.0 } else { kept }).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}
