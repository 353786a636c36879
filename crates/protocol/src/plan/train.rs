//! Parameters of `nn_train` and `local_baseline`: what is minimised, how, and how updates become a model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layer::Model;
use crate::id::Digest;
use crate::limits;

/// Parameters of `nn_train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NnTrain {
    /// The model. Its input is the row's feature vector, or the row's image where the plan has one.
    pub model: Model,
    /// What is minimised.
    pub loss: Loss,
    /// Weight of each class in the loss, in the order of the label's classes (binary: negative, positive); empty: all 1.
    #[serde(default)]
    pub class_weights: Vec<f64>,
    /// How it is minimised at the site.
    pub optimizer: Optimizer,
    /// How the learning rate changes from round to round.
    #[serde(default)]
    pub schedule: Schedule,
    /// Where the model starts.
    #[serde(default)]
    pub init: Start,
    /// Random changes to images while training.
    #[serde(default)]
    pub augment: Option<Augment>,
    /// Rounds.
    pub rounds: u32,
    /// What one site does in one round.
    pub local: LocalWork,
    /// How updates become the next model.
    pub strategy: Strategy,
    /// How updates travel.
    pub privacy: Privacy,
    /// How numbers are put on the wire.
    #[serde(default)]
    pub quantise: Quantise,
}

/// What is minimised: the mean over the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Of a yes/no label, on logits: the last layer has one output and no sigmoid.
    BinaryCrossEntropy,
    /// Of a label with classes, on logits: the last layer has one output for each class and no softmax.
    CrossEntropy,
    /// Square of the difference to a number.
    Mse,
    /// Of a count: the last layer gives the logarithm of the expected count (up to a constant of the label).
    Poisson,
    /// Of a time to an event: the last layer gives the logarithm of the hazard ratio, and the loss is the negative
    /// partial likelihood (Cox 1972; Breslow's ties) of the batch.
    Cox,
}

/// How the loss is minimised at the site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// Learning rate.
        lr: f64,
        /// Momentum.
        #[serde(default)]
        momentum: f64,
    },
    /// Adam (Kingma, Ba 2015) with betas .9 and .999 and epsilon 1e-8.
    Adam {
        /// Learning rate.
        lr: f64,
    },
    /// Adam with weight decay apart from the gradient (Loshchilov, Hutter 2019).
    AdamW {
        /// Learning rate.
        lr: f64,
        /// Weight decay, times the learning rate.
        #[serde(default = "decay")]
        weight_decay: f64,
    },
}

fn decay() -> f64 {
    // PyTorch's default.
    0.01
}

impl Optimizer {
    /// Learning rate.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Sgd { lr, .. } | Self::Adam { lr } | Self::AdamW { lr, .. } => *lr,
        }
    }

    /// Sets the learning rate.
    pub fn set_lr(&mut self, rate: f64) {
        match self {
            Self::Sgd { lr, .. } | Self::Adam { lr } | Self::AdamW { lr, .. } => *lr = rate,
        }
    }
}

/// How the learning rate changes from round to round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Not at all.
    #[default]
    Constant,
    /// Times `factor` after every `every` rounds.
    Step {
        /// Rounds between two changes.
        every: u32,
        /// What the rate is multiplied with.
        factor: f64,
    },
    /// Half a cosine from 1 down to `floor` over all rounds (Loshchilov, Hutter 2017).
    Cosine {
        /// What the rate ends near, as a part of its beginning.
        floor: f64,
    },
}

impl Schedule {
    /// What the learning rate is multiplied with in this round, from 1, of so many.
    #[must_use]
    pub fn factor(&self, round: u32, rounds: u32) -> f64 {
        let done = f64::from(round.saturating_sub(1));
        match self {
            Self::Constant => 1.0,
            Self::Step { every, factor } => factor.powf((done / f64::from((*every).max(1))).floor()),
            Self::Cosine { floor } => {
                let part = done / f64::from(rounds.max(1));
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * part).cos())
            }
        }
    }
}

/// Where a model starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// Initial values of the layers, drawn by the plan's seed.
    #[default]
    Seed,
    /// A model that the coordinator has, with the same tensors.
    Safetensors(Digest),
}

/// Random changes to images while training, each drawn anew for every row of every batch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Mirrored left to right, every other time.
    pub flip: bool,
    /// Moved by up to so many pixels in each direction; what comes in is 0.
    pub shift: u32,
    /// Turned by up to so many degrees in each direction; what comes in is 0.
    pub rotate: f64,
}

/// What one site does in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalWork {
    /// Optimiser steps. Batches are reshuffled epochs, cycled.
    pub updates: u32,
    /// Rows of a batch.
    pub batch: u32,
}

/// How updates become the next model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// Mean of the sites' updates, weighted by rows (McMahan et al. 2017).
    FedAvg {},
    /// The same; at the site, the loss also holds μ/2·‖w − w₀‖² (Li et al. 2020).
    FedProx {
        /// μ.
        mu: f64,
    },
    /// Control variates against drift between sites (Karimireddy et al. 2020, option II). An update is twice as long.
    Scaffold {
        /// Learning rate of the coordinator.
        #[serde(default = "unit")]
        lr: f64,
    },
    /// Adam on the mean update (Reddi et al. 2021), without bias correction.
    FedAdam(Adaptive),
    /// Yogi on the mean update (Reddi et al. 2021).
    FedYogi(Adaptive),
    /// Adagrad on the mean update (Reddi et al. 2021).
    FedAdagrad(Adaptive),
    /// One site after the other: each round one site trains, and its model is the next. Its update is seen as it is.
    Cyclic {},
    /// As `fed_avg`, but batch norm layers stay at the site (Li et al. 2021).
    FedBn {},
    /// As `fed_avg`, but these layers stay at the site (Arivazhagan et al. 2019).
    Personal {
        /// Names of layers; of a list, their numbers.
        layers: Vec<String>,
    },
    /// As `fed_avg`, with each update scaled down to at most this norm by the coordinator.
    NormBound {
        /// Largest L2 norm of one update.
        norm_l2: f64,
    },
    /// Median of each entry (Yin et al. 2018). Robust against fewer than half of the sites; ignores their sizes.
    Median {},
    /// Mean of each entry without the smallest and largest ones (Yin et al. 2018); ignores sizes.
    TrimmedMean {
        /// Part of the sites that is left out at each end, below one half.
        trim: f64,
    },
    /// Mean of the updates that lie closest to others (Blanchard et al. 2017); ignores sizes.
    MultiKrum {
        /// Sites that may be malicious: 2·`byzantine` + 2 is less than the number of sites.
        byzantine: u32,
        /// Updates whose mean is taken.
        keep: u32,
    },
}

/// Parameters of an adaptive server optimiser. Betas without bias correction, as in the paper's algorithm 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adaptive {
    /// Learning rate of the coordinator.
    pub lr: f64,
    /// Decay of the first moment.
    #[serde(default = "beta1")]
    pub beta1: f64,
    /// Decay of the second moment; not used by `fed_adagrad`.
    #[serde(default = "beta2")]
    pub beta2: f64,
    /// Added to the root of the second moment.
    #[serde(default = "tau")]
    pub tau: f64,
}

fn unit() -> f64 {
    1.0
}
fn beta1() -> f64 {
    0.9
}
fn beta2() -> f64 {
    0.999
}
fn tau() -> f64 {
    1e-8
}

/// What the coordinator must see for a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// The weighted sum of the updates only: secure aggregation is possible.
    Sum,
    /// Each update by itself: secure aggregation is not possible.
    Each,
}

impl Strategy {
    /// Name as written in a plan.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FedAvg {} => "fed_avg",
            Self::FedProx { .. } => "fed_prox",
            Self::Scaffold { .. } => "scaffold",
            Self::FedAdam(_) => "fed_adam",
            Self::FedYogi(_) => "fed_yogi",
            Self::FedAdagrad(_) => "fed_adagrad",
            Self::Cyclic {} => "cyclic",
            Self::FedBn {} => "fed_bn",
            Self::Personal { .. } => "personal",
            Self::NormBound { .. } => "norm_bound",
            Self::Median {} => "median",
            Self::TrimmedMean { .. } => "trimmed_mean",
            Self::MultiKrum { .. } => "multi_krum",
        }
    }

    /// Fewest updates with which it says what it promises; a round with fewer has no result.
    pub fn fewest(&self) -> u32 {
        match self {
            // Blanchard et al. 2017: 2f + 2 < n; and not so many are kept that a malicious one has to be among them.
            Self::MultiKrum { byzantine, keep } => {
                byzantine.saturating_mul(2).saturating_add(3).max(byzantine.saturating_add(*keep))
            }
            _ => 1,
        }
    }

    /// Most sites of a round; `None` if nothing but the roster's limit stands against more.
    pub fn most(&self) -> Option<u32> {
        matches!(self, Self::MultiKrum { .. }).then_some(limits::KRUM_SITES)
    }

    /// What the coordinator must see.
    pub fn sees(&self) -> Sees {
        match self {
            Self::FedAvg {}
            | Self::FedProx { .. }
            | Self::Scaffold { .. }
            | Self::FedAdam(_)
            | Self::FedYogi(_)
            | Self::FedAdagrad(_)
            | Self::FedBn {}
            | Self::Personal { .. } => Sees::Sum,
            Self::Cyclic {}
            | Self::NormBound { .. }
            | Self::Median {}
            | Self::TrimmedMean { .. }
            | Self::MultiKrum { .. } => Sees::Each,
        }
    }
}

/// How updates travel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Privacy {
    /// As they are: the coordinator can read each site's update.
    Plain {},
    /// Masked: the coordinator learns the sum only. Not available in this version.
    SecureAggregation {},
}

/// How numbers are put on the wire: an update's values are clipped to ±`clip`, weighted by `n / n_max` and rounded to
/// 2^`bits` levels, so that sums are exact and do not depend on their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quantise {
    /// Largest absolute value of one entry of an update.
    pub clip: f64,
    /// Bits of one entry.
    pub bits: u8,
    /// Rows from which a site's weight no longer grows.
    pub n_max: u32,
}

impl Default for Quantise {
    fn default() -> Self {
        Self { clip: 4.0, bits: 32, n_max: 10_000 }
    }
}

/// Parameters of `local_baseline`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalBaseline {
    /// The model.
    pub model: Model,
    /// What is minimised.
    pub loss: Loss,
    /// Weight of each class in the loss; empty: all 1.
    #[serde(default)]
    pub class_weights: Vec<f64>,
    /// How it is minimised.
    pub optimizer: Optimizer,
    /// Random changes to images while training.
    #[serde(default)]
    pub augment: Option<Augment>,
    /// Passes over the site's training rows.
    pub epochs: u32,
    /// Rows of a batch.
    pub batch: u32,
    /// Score from which a row counts as predicted positive.
    #[serde(default = "half")]
    pub threshold: f64,
}

fn half() -> f64 {
    0.5
}
