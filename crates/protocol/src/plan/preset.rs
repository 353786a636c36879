//! Well-known models by name. A plan file may name one; the plan that is read, reviewed and hashed holds its layers.

use schemars::JsonSchema;
use serde::Deserialize;

use super::layer::{BatchNorm, Conv, Dropout, Graph, Init, Layer, Linear, Model, Node, Pool};

/// A model by name.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Preset {
    /// One affine map of the features: logistic regression, with the loss `binary_cross_entropy`.
    Logistic {},
    /// Affine maps with relu between them.
    Mlp {
        /// Widths between input and output.
        hidden: Vec<u32>,
        /// Outputs.
        #[serde(default = "one")]
        out: u32,
        /// Dropout after each relu; 0 for none.
        #[serde(default)]
        dropout: f64,
    },
    /// Two convolutions with batch norm and pooling, one hidden layer: for small images.
    CnnSmall {
        /// Outputs.
        #[serde(default = "one")]
        out: u32,
    },
    /// ResNet-18 (He et al. 2016) with a first convolution of 3×3 and no pooling behind it, as for small images.
    Resnet18 {
        /// Outputs.
        #[serde(default = "one")]
        out: u32,
    },
}

fn one() -> u32 {
    1
}

impl Preset {
    /// The layers that it stands for.
    pub(super) fn expand(&self) -> Model {
        match self {
            Self::Logistic {} => vec![linear(1)].into(),
            Self::Mlp { hidden, out, dropout } => {
                let mut layers = Vec::new();
                for width in hidden {
                    layers.extend([linear(*width), Layer::Relu {}]);
                    if *dropout > 0.0 {
                        layers.push(Layer::Dropout(Dropout { rate: *dropout }));
                    }
                }
                layers.push(linear(*out));
                layers.into()
            }
            Self::CnnSmall { out } => {
                let block = |width| [conv(width, 3, 1, 1), norm(), Layer::Relu {}, pool(2)];
                let end = [Layer::Flatten {}, linear(64), Layer::Relu {}, linear(*out)];
                [block(16), block(32), end].concat().into()
            }
            Self::Resnet18 { out } => resnet18(*out),
        }
    }
}

fn linear(out: u32) -> Layer {
    Layer::Linear(Linear { out, bias: true, init: Init::TorchDefault })
}

/// Without a bias, which the norm behind it has.
fn conv(out: u32, kernel: u32, stride: u32, padding: u32) -> Layer {
    Layer::Conv2d(Conv { out, kernel, stride, padding, bias: false })
}

fn norm() -> Layer {
    Layer::BatchNorm(BatchNorm::default())
}

fn pool(kernel: u32) -> Layer {
    Layer::MaxPool(Pool { kernel, stride: None, padding: 0 })
}

/// He et al. 2016, table 1, with two basic blocks in each of four stages.
fn resnet18(out: u32) -> Model {
    let mut nodes: Vec<Node> = Vec::new();
    let mut add = |name: &str, layer: Layer, from: &[&str]| {
        let from = from.iter().map(|f| (*f).to_owned()).collect();
        nodes.push(Node { name: name.to_owned(), layer, from });
    };
    add("stem", conv(64, 3, 1, 1), &[]);
    add("stem_norm", norm(), &[]);
    add("stem_relu", Layer::Relu {}, &[]);
    let mut last = "stem_relu".to_owned();
    for (stage, width) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = |part: &str| format!("s{}b{}_{part}", stage + 1, block + 1);
            add(&name("conv1"), conv(width, 3, stride, 1), &[&last]);
            add(&name("norm1"), norm(), &[]);
            add(&name("relu1"), Layer::Relu {}, &[]);
            add(&name("conv2"), conv(width, 3, 1, 1), &[]);
            add(&name("norm2"), norm(), &[]);
            let mut shortcut = last.clone();
            if stride == 2 {
                add(&name("short"), conv(width, 1, 2, 0), &[&last]);
                add(&name("short_norm"), norm(), &[]);
                shortcut = name("short_norm");
            }
            add(&name("add"), Layer::Add {}, &[&name("norm2"), &shortcut]);
            add(&name("relu2"), Layer::Relu {}, &[]);
            last = name("relu2");
        }
    }
    add("pool", Layer::GlobalPool {}, &[]);
    add("head", linear(out), &[]);
    Model::Graph(Graph { graph: nodes })
}

#[cfg(test)]
mod tests {
    use super::super::model::{Inputs, is_glm_like, parameters, place};
    use super::*;

    #[test]
    fn presets_expand_to_models_whose_shapes_fit() {
        let image = Inputs { features: 0, image: Some([1, 28, 28]) };
        let fits = |preset: Preset, inputs: Inputs| {
            let model = preset.expand();
            assert_eq!(place(&model, inputs).1, None, "{preset:?}");
            (parameters(&model, inputs), is_glm_like(&model))
        };
        assert_eq!(fits(Preset::Logistic {}, 30.into()), (31, true));
        let mlp = Preset::Mlp { hidden: vec![128, 128], out: 1, dropout: 0.5 };
        assert_eq!(fits(mlp, 30.into()), (31 * 128 + 129 * 128 + 129, false));
        assert!(!fits(Preset::CnnSmall { out: 2 }, image).1);
        // 11,172,810 trained parameters for ten classes and one channel, 9,600 running figures.
        assert_eq!(fits(Preset::Resnet18 { out: 10 }, image), (11_172_810 + 9_600, false));
    }
}
