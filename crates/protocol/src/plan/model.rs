//! Shapes and initial values of models, from the plan alone.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layer::{Conv, Graph, Init, Layer, Model, Pool};
use super::problem::hint;
use super::select::Select;
pub use super::select::misfits;
use crate::canon;

/// Name and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TensorShape {
    /// Name, such as `0.weight`.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
}

impl TensorShape {
    /// Number of entries; the largest number there is if it cannot be counted.
    pub fn len(&self) -> u64 {
        count(&self.shape)
    }
    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn count(shape: &[u64]) -> u64 {
    shape.iter().fold(1u64, |product, side| product.saturating_mul(*side))
}

/// What a row gives a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inputs {
    /// Numbers of its feature vector.
    pub features: u64,
    /// Channels, height and width of its image, if the plan has one.
    pub image: Option<[u64; 3]>,
}

impl From<u64> for Inputs {
    fn from(features: u64) -> Self {
        Self { features, image: None }
    }
}

/// Where a layer's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// The row's feature vector.
    Features,
    /// The row's image.
    Image,
    /// The layer at this place before it.
    Layer(usize),
}

/// A layer in its place, with the shapes that follow from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Its name: that of the graph, or its number in the list.
    pub name: String,
    /// What it does.
    pub layer: Layer,
    /// Where its inputs come from.
    pub from: Vec<Wire>,
    /// Shape of its output for one row.
    pub out: Vec<u64>,
    /// Its parameters: those that are trained first, then running figures.
    pub tensors: Vec<TensorShape>,
    /// How many of `tensors` are trained.
    pub trained: usize,
}

impl Placed {
    /// Values that it gives for one row; the largest number there is if they cannot be counted.
    pub fn values(&self) -> u64 {
        count(&self.out)
    }
}

/// What is wrong with a model: the layer's place in the list, the field of it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Place of the layer.
    pub layer: usize,
    /// Field below the layer, such as `linear.out`; empty for the whole layer.
    pub field: String,
    /// What is wrong, with the shape.
    pub reason: String,
}

/// Puts a model's layers in their places and works out every shape. The layers up to the first mistake come with it.
pub fn place(model: &Model, inputs: impl Into<Inputs>) -> (Vec<Placed>, Option<Misfit>) {
    let inputs = inputs.into();
    let mut placed: Vec<Placed> = Vec::new();
    for (index, layer) in model.layers().enumerate() {
        let (name, from): (String, &[String]) = match model {
            Model::Layers(_) => (index.to_string(), &[]),
            Model::Graph(graph) => (graph.graph[index].name.clone(), &graph.graph[index].from),
        };
        let next = wires(&placed, from, inputs).and_then(|from| fit(&placed, name, layer, from, inputs));
        match next {
            Ok(layer) => placed.push(layer),
            Err((field, reason)) => return (placed, Some(Misfit { layer: index, field, reason })),
        }
    }
    (placed, None)
}

type Wrong = (String, String);

fn wrong<T>(field: &str, reason: impl Into<String>) -> Result<T, Wrong> {
    Err((field.to_owned(), reason.into()))
}

fn wires(placed: &[Placed], from: &[String], inputs: Inputs) -> Result<Vec<Wire>, Wrong> {
    if from.is_empty() {
        let first = if inputs.image.is_some() { Wire::Image } else { Wire::Features };
        return Ok(vec![if placed.is_empty() { first } else { Wire::Layer(placed.len() - 1) }]);
    }
    let find = |name: &String| match placed.iter().position(|p| p.name == *name) {
        Some(index) => Ok(Wire::Layer(index)),
        None if name == "features" && inputs.features == 0 && inputs.image.is_some() => {
            wrong("from", "no column arrives here; add data.columns")
        }
        None if name == "features" => Ok(Wire::Features),
        None if name == "image" && inputs.image.is_some() => Ok(Wire::Image),
        None if name == "image" => wrong("from", "the plan has no image; add data.image"),
        None => {
            let known = hint(name, placed.iter().map(|p| p.name.as_str()).chain(["features"]));
            wrong("from", format!("no layer '{name}' stands before it{known}"))
        }
    };
    from.iter().map(find).collect()
}

/// The shape that comes along a wire.
fn along(placed: &[Placed], wire: Wire, inputs: Inputs) -> Vec<u64> {
    match wire {
        Wire::Features => vec![inputs.features],
        Wire::Image => inputs.image.unwrap_or_default().to_vec(),
        Wire::Layer(index) => placed[index].out.clone(),
    }
}

fn fit(placed: &[Placed], name: String, layer: &Layer, from: Vec<Wire>, inputs: Inputs) -> Result<Placed, Wrong> {
    let shapes: Vec<Vec<u64>> = from.iter().map(|wire| along(placed, *wire, inputs)).collect();
    if !layer.joins() && shapes.len() > 1 {
        return wrong("from", format!("{} takes one input; add or concat join several", layer.name()));
    }
    if layer.joins() && shapes.len() < 2 {
        return wrong("from", format!("{} needs at least two inputs, named in 'from' of a graph", layer.name()));
    }
    if matches!(layer, Layer::Select(_)) && from != [Wire::Features] {
        return wrong(
            "select",
            "takes columns of the model's features; let it be the first layer of a list, or write 'from: [features]' in a \
             graph",
        );
    }
    let out = out_shape(layer, &shapes)?;
    let (tensors, trained) = tensors_of(&name, layer, &shapes[0]);
    Ok(Placed { name, layer: layer.clone(), from, out, tensors, trained })
}

fn out_shape(layer: &Layer, shapes: &[Vec<u64>]) -> Result<Vec<u64>, Wrong> {
    let x = &shapes[0];
    let name = layer.name();
    let needs = |what: &str| wrong(name, format!("gets [batch, {}] and needs {what}", listed(x)));
    match layer {
        Layer::Linear(linear) => match x[..] {
            [_] => at_least_one(linear.out, "linear.out").map(|out| vec![out]),
            _ => needs("[batch, n]; put flatten or global_pool before it"),
        },
        Layer::Select(select) => width(select, count(x)).map(|columns| vec![columns]),
        Layer::Embedding(e) => match x[..] {
            [n] => {
                at_least_one(e.codes, "embedding.codes")?;
                at_least_one(e.out, "embedding.out").map(|out| vec![out, n])
            }
            _ => needs("[batch, n]"),
        },
        Layer::Conv1d(conv) => match x[..] {
            [_, length] => window_conv(conv, &[length], name),
            _ => needs("[batch, channels, length]; put reshape before it"),
        },
        Layer::Conv2d(conv) => match x[..] {
            [_, height, width] => window_conv(conv, &[height, width], name),
            _ => needs("[batch, channels, height, width]; put reshape before it"),
        },
        Layer::MaxPool(pool) | Layer::AvgPool(pool) => match x[..] {
            [channels, ref sides @ ..] if sides.len() == 1 || sides.len() == 2 => {
                window_pool(pool, channels, sides, name)
            }
            _ => needs("[batch, channels, length] or [batch, channels, height, width]"),
        },
        Layer::GlobalPool {} => match x[..] {
            [channels, _] | [channels, _, _] => Ok(vec![channels]),
            _ => needs("[batch, channels, length] or [batch, channels, height, width]"),
        },
        Layer::GroupNorm(norm) => match x[..] {
            [channels, ..] if norm.groups > 0 && channels % u64::from(norm.groups) == 0 => Ok(x.clone()),
            _ => wrong(
                "group_norm.groups",
                format!("{} does not divide the channels of [batch, {}]", norm.groups, listed(x)),
            ),
        },
        Layer::BatchNorm(norm) if !(norm.momentum > 0.0 && norm.momentum <= 1.0) => {
            wrong("batch_norm.momentum", format!("is {}; it must be above 0 and at most 1", norm.momentum))
        }
        Layer::Dropout(dropout) if !(0.0..1.0).contains(&dropout.rate) => {
            wrong("dropout.rate", format!("is {}; it must be at least 0 and below 1", dropout.rate))
        }
        Layer::BatchNorm(_)
        | Layer::LayerNorm {}
        | Layer::Relu {}
        | Layer::Gelu {}
        | Layer::Tanh {}
        | Layer::Sigmoid {}
        | Layer::Dropout(_) => Ok(x.clone()),
        Layer::Flatten {} => Ok(vec![count(x)]),
        Layer::Reshape(reshape) => {
            let shape: Vec<u64> = reshape.shape.iter().map(|side| u64::from(*side)).collect();
            let fits = (1..=3).contains(&shape.len()) && count(&shape) == count(x);
            if fits { Ok(shape) } else { needs(&format!("as many values as [{}] has", listed(&shape))) }
        }
        Layer::Add {} => match shapes.iter().find(|other| *other != x) {
            None => Ok(x.clone()),
            Some(other) => needs(&format!("inputs of one shape; another one is [batch, {}]", listed(other))),
        },
        Layer::Concat {} => match shapes.iter().find(|other| other.len() != x.len() || other[1..] != x[1..]) {
            Some(other) => {
                needs(&format!("inputs alike but for the first side; another one is [batch, {}]", listed(other)))
            }
            None => {
                let first = shapes.iter().fold(0u64, |sum, shape| sum.saturating_add(shape[0]));
                Ok(std::iter::once(first).chain(x[1..].iter().copied()).collect())
            }
        },
    }
}

/// A shape in words.
pub(super) fn listed(shape: &[u64]) -> String {
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// How many of so many columns are taken.
fn width(select: &Select, features: u64) -> Result<u64, Wrong> {
    let named = select.named().len() as u64;
    match select {
        _ if named == 0 => wrong(select.field(), "names no column"),
        Select::Columns(_) => Ok(named),
        // Where no column arrives at all, the mistake is another one.
        Select::Except(_) if named >= features && features > 0 => wrong(select.field(), "leaves no column"),
        Select::Except(_) => Ok(features.saturating_sub(named)),
    }
}

fn at_least_one(number: u32, field: &str) -> Result<u64, Wrong> {
    if number > 0 { Ok(u64::from(number)) } else { wrong(field, "must be at least 1") }
}

fn window_conv(conv: &Conv, sides: &[u64], name: &str) -> Result<Vec<u64>, Wrong> {
    let out = at_least_one(conv.out, &format!("{name}.out"))?;
    if conv.kernel > 0 && conv.padding >= conv.kernel {
        let reason = format!(
            "is {}; it must be below the kernel's {}, or windows would lie in the padding alone",
            conv.padding, conv.kernel
        );
        return wrong(&format!("{name}.padding"), reason);
    }
    slide(sides, (conv.kernel, conv.stride, conv.padding), name).map(|sides| [vec![out], sides].concat())
}

fn window_pool(pool: &Pool, channels: u64, sides: &[u64], name: &str) -> Result<Vec<u64>, Wrong> {
    if pool.padding > pool.kernel / 2 {
        return wrong(&format!("{name}.padding"), format!("is {}; at most half the window is padded", pool.padding));
    }
    slide(sides, (pool.kernel, pool.stride(), pool.padding), name).map(|sides| [vec![channels], sides].concat())
}

/// Sides of the output of a window that slides over `sides`.
fn slide(sides: &[u64], (kernel, stride, padding): (u32, u32, u32), name: &str) -> Result<Vec<u64>, Wrong> {
    let kernel = at_least_one(kernel, &format!("{name}.kernel"))?;
    let stride = at_least_one(stride, &format!("{name}.stride"))?;
    let side = |side: &u64| {
        let padded = side.saturating_add(u64::from(padding).saturating_mul(2));
        match padded.checked_sub(kernel) {
            Some(room) => Ok(room / stride + 1),
            None => wrong(
                &format!("{name}.kernel"),
                format!("is {kernel}, larger than a side of {side} with {padding} cells of padding at each end"),
            ),
        }
    };
    sides.iter().map(side).collect()
}

/// The tensors of a layer that gets this shape, and how many of them are trained.
fn tensors_of(name: &str, layer: &Layer, x: &[u64]) -> (Vec<TensorShape>, usize) {
    let tensor = |part: &str, shape: Vec<u64>| TensorShape { name: format!("{name}.{part}"), shape };
    let affine = |weight: Vec<u64>, out: u32, bias: bool| {
        let bias = bias.then(|| tensor("bias", vec![u64::from(out)]));
        std::iter::once(tensor("weight", weight)).chain(bias).collect::<Vec<_>>()
    };
    let channels = x[0];
    let list = match layer {
        Layer::Linear(l) => affine(vec![channels, u64::from(l.out)], l.out, l.bias),
        Layer::Embedding(e) => vec![tensor("weight", vec![u64::from(e.codes), u64::from(e.out)])],
        Layer::Conv1d(c) => affine(vec![u64::from(c.out), channels, u64::from(c.kernel)], c.out, c.bias),
        Layer::Conv2d(c) => {
            let kernel = u64::from(c.kernel);
            affine(vec![u64::from(c.out), channels, kernel, kernel], c.out, c.bias)
        }
        Layer::BatchNorm(_) => {
            let parts = ["weight", "bias", "running_mean", "running_var"];
            return (parts.map(|part| tensor(part, vec![channels])).to_vec(), 2);
        }
        Layer::GroupNorm(_) => ["weight", "bias"].map(|part| tensor(part, vec![channels])).to_vec(),
        Layer::LayerNorm {} => ["weight", "bias"].map(|part| tensor(part, x.to_vec())).to_vec(),
        _ => Vec::new(),
    };
    let trained = list.len();
    (list, trained)
}

/// Tensors of a model in order: for each layer its `weight` and, if it has one, its `bias`; of batch norm also its
/// running figures.
///
/// # Shapes
/// The weight of `linear` is `[in, out]`, row-major, as Burn's `Linear` keeps it; of a convolution `[out, in, kernel…]`.
/// Of a model with a mistake, those before it.
pub fn tensors(model: &Model, inputs: impl Into<Inputs>) -> Vec<TensorShape> {
    place(model, inputs).0.into_iter().flat_map(|layer| layer.tensors).collect()
}

/// Number of parameters, running figures included; the largest number there is if it cannot be counted.
pub fn parameters(model: &Model, inputs: impl Into<Inputs>) -> u64 {
    tensors(model, inputs).iter().fold(0, |sum, tensor| sum.saturating_add(tensor.len()))
}

/// Whether a model is one affine map of what comes in, with a function of it behind, however many layers it is written
/// in: on some way through it, no activation stands between two layers with parameters. Such parameters can be solved for
/// the rows like those of a generalised linear model.
pub fn is_glm_like(model: &Model) -> bool {
    let mut depths: Vec<Depth> = Vec::new();
    for (index, layer) in model.layers().enumerate() {
        let before = match model {
            Model::Graph(Graph { graph }) if !graph[index].from.is_empty() => {
                let named = |name: &String| graph[..index].iter().rposition(|node| node.name == *name);
                let depth = |name| named(name).map_or(Depth::Input, |at| depths[at]);
                graph[index].from.iter().map(depth).min().unwrap_or(Depth::Input)
            }
            _ => depths.last().copied().unwrap_or(Depth::Input),
        };
        depths.push(before.through(layer));
    }
    depths.last() != Some(&Depth::Deep)
}

/// What lies between the input and a place in a model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    /// No parameters.
    Input,
    /// Parameters, and nothing but affine maps behind the first of them.
    Affine,
    /// The same with an activation behind.
    Bent,
    /// Parameters, an activation and parameters again.
    Deep,
}

impl Depth {
    fn through(self, layer: &Layer) -> Self {
        match (layer, self) {
            (
                Layer::Linear(_) | Layer::Embedding(_) | Layer::Conv1d(_) | Layer::Conv2d(_),
                Self::Input | Self::Affine,
            ) => Self::Affine,
            (Layer::Linear(_) | Layer::Embedding(_) | Layer::Conv1d(_) | Layer::Conv2d(_), _) => Self::Deep,
            // Norms are affine maps once their figures are known; nothing is hidden behind one.
            (
                Layer::Relu {} | Layer::Gelu {} | Layer::Tanh {} | Layer::Sigmoid {} | Layer::MaxPool(_),
                Self::Affine,
            ) => Self::Bent,
            (_, depth) => depth,
        }
    }
}

/// Initial values of all tensors, one after the other in order, from the plan's seed through ChaCha20 (the same bytes
/// at every site and on every machine).
///
/// # Shapes
/// As many values as [`tensors`] has entries, each tensor row-major.
pub fn initial(model: &Model, inputs: impl Into<Inputs>, seed: u64) -> Vec<f32> {
    initial_values(model, inputs.into(), seed).collect()
}

/// How the values of a tensor begin.
#[derive(Clone, Copy)]
enum Begin {
    Constant(f32),
    /// U(−bound, bound).
    Uniform(f64),
    /// N(0, 1).
    Normal,
}

/// The values of [`initial`] one by one, for models that should not lie in memory twice.
pub fn initial_values(model: &Model, inputs: Inputs, seed: u64) -> impl Iterator<Item = f32> + use<> {
    let key = canon::digest("initial-model", 1, &seed.to_le_bytes());
    let mut stream = ChaCha20Rng::from_seed(*key.as_bytes());
    let runs: Vec<(u64, Begin)> = place(model, inputs).0.iter().flat_map(begins).collect();
    let mut run = 0;
    let mut done = 0u64;
    std::iter::from_fn(move || {
        while runs.get(run).is_some_and(|(entries, _)| done == *entries) {
            (run, done) = (run + 1, 0);
        }
        let (_, begin) = runs.get(run)?;
        done += 1;
        Some(match begin {
            Begin::Constant(value) => *value,
            Begin::Uniform(bound) => uniform(&mut stream, *bound),
            Begin::Normal => normal(&mut stream),
        })
    })
}

/// How each tensor of a layer begins, with its length.
fn begins(placed: &Placed) -> Vec<(u64, Begin)> {
    let begin = |tensor: &TensorShape| {
        let part = tensor.name.rsplit('.').next().unwrap_or_default();
        match &placed.layer {
            Layer::Linear(linear) if linear.init == Init::Zeros => Begin::Constant(0.0),
            // PyTorch's nn.Linear and convolutions: kaiming_uniform with a = √5 gives ±1/√fan_in, for weights and bias
            // alike. The fan is what one output sums over.
            Layer::Linear(_) => Begin::Uniform(bound(placed.tensors[0].shape[0])),
            Layer::Conv1d(_) | Layer::Conv2d(_) => Begin::Uniform(bound(count(&placed.tensors[0].shape[1..]))),
            Layer::Embedding(_) => Begin::Normal,
            _ if part == "weight" || part == "running_var" => Begin::Constant(1.0),
            _ => Begin::Constant(0.0),
        }
    };
    placed.tensors.iter().map(|tensor| (tensor.len(), begin(tensor))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a width lies far below 2^53")]
fn bound(fan_in: u64) -> f64 {
    1.0 / (fan_in.max(1) as f64).sqrt()
}

/// A number from U(0, 1) out of 24 random bits, at the middle of its step.
fn unit(stream: &mut ChaCha20Rng) -> f64 {
    (f64::from(stream.next_u32() >> 8) + 0.5) / f64::from(1u32 << 24)
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is meant")]
fn uniform(stream: &mut ChaCha20Rng, bound: f64) -> f32 {
    ((2.0 * unit(stream) - 1.0) * bound) as f32
}

/// A number from N(0, 1) (Box, Muller 1958; the second one of the pair is not used).
#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is meant")]
fn normal(stream: &mut ChaCha20Rng) -> f32 {
    let (radius, angle) = (unit(stream), unit(stream));
    ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
