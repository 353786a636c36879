//! What each layer does to a batch, and how the gradient of a loss goes back through it.
//!
//! All values are `[batch, a, b, c]`: a feature vector is `[batch, n, 1, 1]`, a signal `[batch, channels, length, 1]`,
//! an image `[batch, channels, height, width]`. One rank for everything means one code for one and two dimensions.
//!
//! The way back is written out layer by layer, on tensors without a graph: so nothing is kept, copied or computed that a
//! layer's own formula does not need, and small networks do not pay for book-keeping. Where the formula is no shorter than
//! Burn's graph of the one layer (`gelu`, `embedding`), that graph is taken.

mod apart;

use burn::tensor::module;
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use hospes_protocol::plan::Layer;
use hospes_protocol::plan::model::Placed;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng as _;

use super::convolution::{self, Kept, Window};
use super::norms::{self, Normal, Running};
use super::processor::{self, Largest};

pub(super) use apart::{Apart, Runs, SHORTFALL, backward_apart, squares};

/// What the way back through a layer needs of the way forth.
pub(super) enum Saved {
    /// Nothing but shapes.
    Nothing,
    /// What came in.
    Input(Tensor<4>),
    /// What went out.
    Output(Tensor<4>),
    /// What each value was multiplied with.
    Factor(Tensor<4>),
    /// What came in, and which of it was largest in each window.
    Indices(Tensor<4>, Tensor<4, Int>),
    /// The same on the processor.
    Largest(Largest),
    /// What was above 0, on the processor.
    Above(Vec<bool>),
    /// What a convolution needs.
    Windows(Kept),
    /// What a norm made of it.
    Normal(Normal),
    /// Burn's graph of this one layer: what came in, parameters, what went out.
    Graph(Tensor<4>, Vec<Tensor<1>>, Tensor<4>),
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
) -> (Tensor<4>, Saved) {
    if let Layer::Concat {} = placed.layer {
        return (Tensor::cat(inputs, 1), Saved::Nothing);
    }
    let mut inputs = inputs.drain(..);
    // Unwrap safety: every layer that `plan::model::place` puts in its place has an input.
    #[allow(clippy::unwrap_used)]
    let x = inputs.next().unwrap();
    let trains = training.is_some();
    let saved = |value: &Tensor<4>| if trains { Saved::Input(value.clone()) } else { Saved::Nothing };
    let output = |y: Tensor<4>| (y.clone(), if trains { Saved::Output(y) } else { Saved::Nothing });
    match &placed.layer {
        Layer::Linear(_) => {
            let [rows, features, ..] = x.dims();
            let weight = parameters[0].clone().reshape([features, sides(placed)[0]]);
            let kept = saved(&x);
            let y = x.reshape([rows, features]).matmul(weight);
            let y = match parameters.get(1) {
                Some(bias) => y + bias.clone().reshape([1, sides(placed)[0]]),
                None => y,
            };
            (shaped(y, sides(placed)), kept)
        }
        Layer::Conv1d(_) | Layer::Conv2d(_) | Layer::MaxPool(_) | Layer::AvgPool(_) | Layer::GlobalPool {} => {
            slide(placed, x, parameters, trains)
        }
        Layer::BatchNorm(_) | Layer::GroupNorm(_) | Layer::LayerNorm {} => {
            normalise(placed, x, parameters, running, trains)
        }
        Layer::Relu {} if processor::holds(&x) => {
            let (y, above) = processor::relu(x, trains);
            (y, if trains { Saved::Above(above) } else { Saved::Nothing })
        }
        Layer::Relu {} => output(activation::relu(x)),
        Layer::Tanh {} => output(activation::tanh(x)),
        Layer::Sigmoid {} => output(activation::sigmoid(x)),
        Layer::Gelu {} if trains => graph(x, Vec::new(), |x, _| activation::gelu(x)),
        Layer::Gelu {} => (activation::gelu(x), Saved::Nothing),
        Layer::Embedding(embedding) => {
            let (codes, length) = (embedding.codes as usize, sides(placed)[0]);
            if trains {
                graph(x, parameters.to_vec(), |x, weights| embed(x, weights[0].clone(), codes, length))
            } else {
                (embed(x, parameters[0].clone(), codes, length), Saved::Nothing)
            }
        }
        Layer::Dropout(dropout) => match training {
            Some(stream) if dropout.rate > 0.0 => {
                let mask = mask(stream, x.dims(), dropout.rate, &x.device());
                (x * mask.clone(), Saved::Factor(mask))
            }
            _ => (x, Saved::Nothing),
        },
        Layer::Flatten {} | Layer::Reshape(_) => {
            let ([a, b, c], rows) = (sides(placed), x.dims()[0]);
            (x.reshape([rows, a, b, c]), Saved::Nothing)
        }
        Layer::Add {} => (inputs.fold(x, |sum, next| sum + next), Saved::Nothing),
        // The columns of a `select` were picked on the way in.
        Layer::Concat {} | Layer::Select(_) => (x, Saved::Nothing),
    }
}

/// Convolutions and pools.
fn slide(placed: &Placed, x: Tensor<4>, parameters: &[Tensor<1>], trains: bool) -> (Tensor<4>, Saved) {
    match &placed.layer {
        Layer::Conv1d(_) | Layer::Conv2d(_) => {
            let (window, channels) = (window(placed), x.dims()[1]);
            let weight = weight(parameters, placed, channels);
            let (y, kept) = convolution::forward(x, weight, parameters.get(1).cloned(), window, trains);
            (y, kept.map_or(Saved::Nothing, Saved::Windows))
        }
        Layer::MaxPool(_) if processor::holds(&x) => {
            let (y, largest) = processor::max_pool(x, window(placed));
            (y, if trains { Saved::Largest(largest) } else { Saved::Nothing })
        }
        Layer::MaxPool(_) => {
            let Window { kernel, stride, padding } = window(placed);
            let options = MaxPoolOptions::new(kernel).with_stride(stride).with_padding(padding);
            if trains {
                let (y, indices) = module::max_pool2d_with_indices(x.clone(), options);
                (y, Saved::Indices(x, indices))
            } else {
                (module::max_pool2d(x, options), Saved::Nothing)
            }
        }
        Layer::AvgPool(_) => {
            let Window { kernel, stride, padding } = window(placed);
            let options = AvgPoolOptions::new(kernel).with_stride(stride).with_padding(padding);
            let kept = if trains { Saved::Input(x.clone()) } else { Saved::Nothing };
            (module::avg_pool2d(x, options.with_count_include_pad(true)), kept)
        }
        _ => {
            let [rows, channels, height, width] = x.dims();
            let y = x.reshape([rows * channels, height * width]).mean_dim(1).reshape([rows, channels]);
            (shaped(y, sides(placed)), Saved::Nothing)
        }
    }
}

fn normalise(
    placed: &Placed,
    x: Tensor<4>,
    parameters: &[Tensor<1>],
    running: &mut Option<Running>,
    trains: bool,
) -> (Tensor<4>, Saved) {
    let (y, normal) = match (&placed.layer, running) {
        (Layer::BatchNorm(_), Some(running)) if !trains => {
            return (norms::judged(x, parameters, running), Saved::Nothing);
        }
        (Layer::BatchNorm(norm), running) => norms::batch(x, parameters, running, norm.momentum),
        (Layer::GroupNorm(norm), _) => norms::groups(x, parameters, norm.groups as usize),
        _ => norms::rows(x, parameters),
    };
    (y, if trains { Saved::Normal(normal) } else { Saved::Nothing })
}

/// Gradients of one layer: with respect to each of its inputs, in order, and to each trained tensor, flattened.
pub(super) struct Back {
    pub(super) inputs: Vec<Tensor<4>>,
    pub(super) parameters: Vec<Tensor<1>>,
}

/// Takes the gradient with respect to what a layer put out back through it.
///
/// # Shapes
/// `before`: the shapes of what came in. `wanted`: whether anything before it wants a gradient; else `inputs` is empty.
pub(super) fn backward(
    placed: &Placed,
    saved: Saved,
    before: &[[usize; 4]],
    parameters: &[Tensor<1>],
    gradient: Tensor<4>,
    wanted: bool,
) -> Back {
    let only = |x: Tensor<4>| Back { inputs: vec![x], parameters: Vec::new() };
    match (&placed.layer, saved) {
        (Layer::Linear(_), Saved::Input(x)) => linear(x, parameters, gradient, wanted),
        (_, Saved::Windows(kept)) => {
            let (has_bias, weight) = (parameters.len() > 1, weight(parameters, placed, before[0][1]));
            let kept = (kept, before[0]);
            let (parameters, input) = convolution::backward(kept, weight, has_bias, window(placed), gradient, wanted);
            Back { inputs: input.into_iter().collect(), parameters }
        }
        (_, Saved::Largest(largest)) => only(largest.backward(gradient)),
        (Layer::MaxPool(_), Saved::Indices(x, indices)) => {
            let Window { kernel, stride, padding } = window(placed);
            let dilation = [1, 1];
            only(module::max_pool2d_with_indices_backward(
                x, kernel, stride, padding, dilation, false, gradient, indices,
            ))
        }
        (Layer::AvgPool(_), Saved::Input(x)) => {
            let Window { kernel, stride, padding } = window(placed);
            only(module::avg_pool2d_backward(x, gradient, kernel, stride, padding, true, false))
        }
        (Layer::GlobalPool {}, _) => {
            let [rows, channels, height, width] = before[0];
            #[allow(clippy::cast_precision_loss)]
            let part = 1.0 / (height * width) as f64;
            let each = gradient.reshape([rows, channels, 1, 1]).mul_scalar(part);
            only(each.expand([rows, channels, height, width]))
        }
        (_, Saved::Normal(normal)) => {
            let (x, parameters) = normal.backward(gradient, parameters);
            Back { inputs: vec![x], parameters }
        }
        (_, Saved::Above(above)) => only(processor::relu_back(gradient, &above)),
        (Layer::Relu {}, Saved::Output(y)) => only(gradient.mask_fill(y.lower_equal_scalar(0.0), 0.0)),
        (Layer::Tanh {}, Saved::Output(y)) => only(gradient.clone() - gradient * y.clone() * y),
        (Layer::Sigmoid {}, Saved::Output(y)) => only(gradient * (y.clone() - y.clone() * y)),
        (_, Saved::Graph(x, weights, y)) => {
            let mut gradients = (y * gradient.autodiff()).sum().backward();
            let of_weights = weights.iter().filter_map(|weight| weight.grad_remove(&mut gradients)).collect();
            let of_input = x.grad_remove(&mut gradients).unwrap_or_else(|| x.clone().without_autodiff().zeros_like());
            Back { inputs: vec![of_input], parameters: of_weights }
        }
        (_, Saved::Factor(mask)) => only(gradient * mask),
        (Layer::Add {}, _) => Back { inputs: vec![gradient; before.len()], parameters: Vec::new() },
        (Layer::Concat {}, _) => {
            let mut at = 0;
            let part = |[_, first, ..]: &[usize; 4]| {
                at += first;
                gradient.clone().narrow(1, at - first, *first)
            };
            Back { inputs: before.iter().map(part).collect(), parameters: Vec::new() }
        }
        // Flatten, reshape, dropout that drops nothing.
        _ => only(gradient.reshape(before[0])),
    }
}

fn linear(x: Tensor<4>, parameters: &[Tensor<1>], gradient: Tensor<4>, wanted: bool) -> Back {
    let (x, gradient) = linear_sides(x, gradient);
    let ([_, features], [_, out]) = (x.dims(), gradient.dims());
    let mut of_parameters = vec![x.swap_dims(0, 1).matmul(gradient.clone()).reshape([features * out])];
    if parameters.len() > 1 {
        of_parameters.push(gradient.clone().sum_dim(0).reshape([out]));
    }
    let inputs = wanted.then(|| linear_to_input(gradient, &parameters[0], features));
    Back { inputs: inputs.into_iter().collect(), parameters: of_parameters }
}

/// What came into a linear layer, and the gradient of what went out.
///
/// # Shapes
/// `[rows, features]` and `[rows, out]`.
fn linear_sides(x: Tensor<4>, gradient: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
    let ([rows, features, ..], out) = (x.dims(), gradient.dims()[1]);
    (x.reshape([rows, features]), gradient.reshape([rows, out]))
}

/// The gradient with respect to what came into a linear layer.
fn linear_to_input(gradient: Tensor<2>, weight: &Tensor<1>, features: usize) -> Tensor<4> {
    let [rows, out] = gradient.dims();
    let weight = weight.clone().reshape([features, out]);
    gradient.matmul(weight.swap_dims(0, 1)).reshape([rows, features, 1, 1])
}

/// The three sides of a layer's output for one row.
pub(super) fn sides(placed: &Placed) -> [usize; 3] {
    #[allow(clippy::cast_possible_truncation)]
    std::array::from_fn(|i| placed.out.get(i).map_or(1, |side| *side as usize))
}

fn shaped(x: Tensor<2>, [a, b, c]: [usize; 3]) -> Tensor<4> {
    let rows = x.dims()[0];
    x.reshape([rows, a, b, c])
}

/// The window of a layer; over a dimension that is not there it does not move.
fn window(placed: &Placed) -> Window {
    let (kernel, stride, padding) = match &placed.layer {
        Layer::Conv1d(conv) | Layer::Conv2d(conv) => (conv.kernel, conv.stride, conv.padding),
        Layer::MaxPool(pool) | Layer::AvgPool(pool) => (pool.kernel, pool.stride(), pool.padding),
        _ => (1, 1, 0),
    };
    let second = |side: u32, none: usize| if placed.out.len() > 2 { side as usize } else { none };
    Window {
        kernel: [kernel as usize, second(kernel, 1)],
        stride: [stride as usize, second(stride, 1)],
        padding: [padding as usize, second(padding, 0)],
    }
}

/// The weight of a convolution.
fn weight(parameters: &[Tensor<1>], placed: &Placed, channels: usize) -> Tensor<4> {
    let [height, width] = window(placed).kernel;
    parameters[0].clone().reshape([sides(placed)[0], channels, height, width])
}

/// One layer on a graph of its own.
fn graph(
    x: Tensor<4>,
    parameters: Vec<Tensor<1>>,
    layer: impl Fn(Tensor<4>, &[Tensor<1>]) -> Tensor<4>,
) -> (Tensor<4>, Saved) {
    let x = x.autodiff().require_grad();
    let parameters: Vec<Tensor<1>> = parameters.into_iter().map(|p| p.autodiff().require_grad()).collect();
    let y = layer(x.clone(), &parameters);
    (y.clone().without_autodiff(), Saved::Graph(x, parameters, y))
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
