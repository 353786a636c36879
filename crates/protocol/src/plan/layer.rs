//! Models as plans describe them: layers, and the graph that joins them.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::select::Select;

/// A model: a list of layers, or a graph of named ones. The last layer's output is the model's.
#[derive(Debug, Clone, PartialEq)]
pub enum Model {
    /// Layers, first to last; each takes the output of the one before, the first the model's input.
    Layers(Vec<Layer>),
    /// Layers that say where their inputs come from.
    Graph(Graph),
}

/// Layers with names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Layers in an order in which each comes after what it takes.
    pub graph: Vec<Node>,
}

/// A layer of a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, which its tensors bear: `<name>.weight`.
    pub name: String,
    /// What it does.
    pub layer: Layer,
    /// Layers before it whose outputs it takes, or `features` or `image` for the model's inputs; left out: the layer
    /// before, or the model's input.
    #[serde(default)]
    pub from: Vec<String>,
}

impl Model {
    /// Its layers in order.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        let (list, graph): (&[Layer], &[Node]) = match self {
            Self::Layers(layers) => (layers, &[]),
            Self::Graph(graph) => (&[], &graph.graph),
        };
        list.iter().chain(graph.iter().map(|node| &node.layer))
    }
}

impl From<Vec<Layer>> for Model {
    fn from(layers: Vec<Layer>) -> Self {
        Self::Layers(layers)
    }
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Layers(layers) => layers.serialize(serializer),
            Self::Graph(graph) => graph.serialize(serializer),
        }
    }
}

/// By hand, so that a mistake inside keeps its place, which an untagged enum would lose.
impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Model;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Model, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Model::Layers)
    }
    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Model, A::Error> {
        Graph::deserialize(MapAccessDeserializer::new(entries)).map(Model::Graph)
    }
}

/// A plan file may also name a preset, which [`super::read`] expands.
impl JsonSchema for Model {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Model".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let layers = generator.subschema_for::<Vec<Layer>>();
        let graph = generator.subschema_for::<Graph>();
        let preset = generator.subschema_for::<super::preset::Preset>();
        schemars::json_schema!({
            "description": "Layers from first to last, a graph of named layers, or a preset that is expanded to one of them.",
            "anyOf": [layers, graph, {
                "type": "object",
                "additionalProperties": false,
                "required": ["preset"],
                "properties": { "preset": preset }
            }]
        })
    }
}

/// A layer. Shapes are those of one row, without the batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// Affine map: `[n]` → `[out]`.
    Linear(Linear),
    /// Columns of the model's features, by name: `[features]` → `[n]`. It takes nothing but the features.
    Select(Select),
    /// Vectors for codes: `[n]` of whole numbers from 0 to `codes` − 1 → `[out, n]`. Categories, which are such codes in the
    /// order of `data.variables`, come to no other layer.
    Embedding(Embedding),
    /// Convolution over one dimension: `[channels, length]` → `[out, length']`.
    Conv1d(Conv),
    /// Convolution over two dimensions: `[channels, height, width]` → `[out, height', width']`.
    Conv2d(Conv),
    /// Largest value in each window, over the dimensions after the channels.
    MaxPool(Pool),
    /// Mean of each window, over the dimensions after the channels; what is padded counts as 0.
    AvgPool(Pool),
    /// Mean over all dimensions after the channels: `[channels, …]` → `[channels]`.
    GlobalPool {},
    /// Normalises each channel over the batch (Ioffe, Szegedy 2015); when it does not train, by running figures.
    BatchNorm(BatchNorm),
    /// Normalises groups of channels of one row (Wu, He 2018).
    GroupNorm(GroupNorm),
    /// Normalises all values of one row (Ba et al. 2016).
    LayerNorm {},
    /// max(0, x).
    Relu {},
    /// x·Φ(x).
    Gelu {},
    /// Hyperbolic tangent.
    Tanh {},
    /// 1 / (1 + e^−x).
    Sigmoid {},
    /// Sets values to 0 in training and scales the others up (Srivastava et al. 2014).
    Dropout(Dropout),
    /// All values in one row: `[a, b, …]` → `[a·b·…]`.
    Flatten {},
    /// The same values in another shape.
    Reshape(Reshape),
    /// Sum of several inputs of one shape: the end of a residual block.
    Add {},
    /// Several inputs one after the other along their first dimension.
    Concat {},
}

impl Layer {
    /// Name as written in a plan.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear(_) => "linear",
            Self::Select(_) => "select",
            Self::Embedding(_) => "embedding",
            Self::Conv1d(_) => "conv1d",
            Self::Conv2d(_) => "conv2d",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::GlobalPool {} => "global_pool",
            Self::BatchNorm(_) => "batch_norm",
            Self::GroupNorm(_) => "group_norm",
            Self::LayerNorm {} => "layer_norm",
            Self::Relu {} => "relu",
            Self::Gelu {} => "gelu",
            Self::Tanh {} => "tanh",
            Self::Sigmoid {} => "sigmoid",
            Self::Dropout(_) => "dropout",
            Self::Flatten {} => "flatten",
            Self::Reshape(_) => "reshape",
            Self::Add {} => "add",
            Self::Concat {} => "concat",
        }
    }

    /// Whether it takes several inputs.
    pub(super) fn joins(&self) -> bool {
        matches!(self, Self::Add {} | Self::Concat {})
    }
}

/// An affine map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Width of the output.
    pub out: u32,
    /// Whether there is a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Initial values.
    #[serde(default)]
    pub init: Init,
}

/// Vectors for codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Number of codes.
    pub codes: u32,
    /// Length of each vector.
    pub out: u32,
}

/// A convolution with a square kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Channels of the output.
    pub out: u32,
    /// Side of the kernel.
    pub kernel: u32,
    /// Distance between two windows.
    #[serde(default = "one")]
    pub stride: u32,
    /// Zeros added at each end.
    #[serde(default)]
    pub padding: u32,
    /// Whether there is a bias.
    #[serde(default = "yes")]
    pub bias: bool,
}

/// Windows of a pooling layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Side of the window.
    pub kernel: u32,
    /// Distance between two windows; left out: the window's side.
    #[serde(default)]
    pub stride: Option<u32>,
    /// Cells added at each end.
    #[serde(default)]
    pub padding: u32,
}

impl Pool {
    /// Distance between two windows.
    pub fn stride(&self) -> u32 {
        self.stride.unwrap_or(self.kernel)
    }
}

/// Parameters of `batch_norm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchNorm {
    /// Weight of a new batch in the running figures.
    pub momentum: f64,
}

impl Default for BatchNorm {
    fn default() -> Self {
        // PyTorch's default.
        Self { momentum: 0.1 }
    }
}

/// Parameters of `group_norm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupNorm {
    /// Groups, which divide the channels.
    pub groups: u32,
}

/// Parameters of `dropout`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Probability with which a value is set to 0.
    pub rate: f64,
}

/// Parameters of `reshape`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reshape {
    /// The new shape of one row.
    pub shape: Vec<u32>,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

/// Initial values of a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Weights and bias from U(±1/√fan_in).
    #[default]
    TorchDefault,
    /// All zero.
    Zeros,
}
