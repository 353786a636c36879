//! Parameters of `nn_train` and `local_baseline`: what is minimised, how, and how updates become a model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dp::Dp;
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
    /// Rounds; with `early_stop` the most of them.
    pub rounds: u32,
    /// When training ends before its last round; left out: it does not.
    #[serde(default)]
    pub early_stop: Option<EarlyStop>,
    /// What one site does in one round.
    pub local: LocalWork,
    /// How updates become the next model.
    pub strategy: Strategy,
    /// How updates travel.
    pub privacy: Privacy,
    /// How numbers are put on the wire.
    #[serde(default)]
    pub quantise: Quantise,
    /// Differential privacy for the patients of each site; left out: there is none.
    // Not written where there is none: plans from before there was any keep their bytes and their digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dp: Option<Dp>,
    /// Part of an update's entries that is sent in a round: the largest ones (top-k). What is left, of them and of the others,
    /// stays at the site and is added to the next round's (error feedback; Stich et al. 2018, Karimireddy et al. 2019).
    // Not written where it is the default: plans from before there was one keep their bytes and their digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<f64>,
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

/// How the learning rate changes from round to round, or, of `local_baseline`, from epoch to epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Not at all.
    #[default]
    Constant,
    /// Times `factor` after every `every` rounds or epochs.
    Step {
        /// Rounds or epochs between two changes.
        every: u32,
        /// What the rate is multiplied with.
        factor: f64,
    },
    /// Half a cosine from 1 down to `floor` over all rounds or epochs (Loshchilov, Hutter 2017).
    Cosine {
        /// What the rate ends near, as a part of its beginning.
        floor: f64,
    },
}

impl Schedule {
    fn is_constant(&self) -> bool {
        *self == Self::Constant
    }

    /// What the learning rate is multiplied with in this round or epoch, from 1, of so many.
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
    /// A model that the coordinator has, with the tensors that travel. Layers that stay at the sites are not in it and begin
    /// there by the seed.
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

/// Training ends when the loss on the sites' rows for validation has not become better for some rounds, with the model of
/// the round in which it was best (Prechelt 1998).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Rounds without a better loss after which training ends.
    pub patience: u32,
    /// A loss is better if it is lower than the best one by more than this.
    #[serde(default)]
    pub min_delta: f64,
    /// Largest loss, in absolute value, that is told apart: one beyond counts as this. The smaller it is, the finer a loss is
    /// told.
    #[serde(default = "ceiling")]
    pub ceiling: f64,
}

fn ceiling() -> f64 {
    100.0
}

/// What the losses of the rounds so far say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestSoFar {
    /// Round whose model has the best loss; 0 for the model that training began with.
    pub round: u32,
    /// That loss.
    pub loss: f64,
    /// Whether training ends.
    pub stop: bool,
}

impl EarlyStop {
    /// The two entries with which a site's loss travels at the end of its update, so that the sum over sites gives the mean
    /// over their rows and no site's loss is needed: its share of rows for validation among those for training, at most 1,
    /// and the loss times this share. A site that tells none sends two zeros.
    ///
    /// A loss that is itself a mean over events (`cox`) or over class weights is weighed by rows too, so that the mean over
    /// sites is not that over all events or weights together where sites differ in them. The weights are the same in every
    /// round, which is all that comparing rounds needs; and the sum of events or weights would tell how many rows have the
    /// event or are of a class, where a plan says that a loss leaves.
    ///
    /// # Units
    /// `clip` is that of the update's entries, whose weight is the number of rows for training.
    #[must_use]
    pub fn entries(&self, loss: f64, validation: u64, training: u64, clip: f64) -> [f32; 2] {
        #[allow(clippy::cast_precision_loss)]
        let share = (validation as f64 / training.max(1) as f64).min(1.0);
        let part = loss.clamp(-self.ceiling, self.ceiling) / self.ceiling;
        #[allow(clippy::cast_possible_truncation)]
        [part * share, share].map(|entry| (entry * clip) as f32)
    }

    /// The mean loss over the rows for validation of all sites, from the weighted means of their entries; `None` if no site
    /// told any.
    ///
    /// # Units
    /// `error` is the largest distance of one mean from the exact one.
    #[must_use]
    pub fn loss(&self, means: [f32; 2], error: f64) -> Option<f64> {
        let [loss, share] = means.map(f64::from);
        // Below, the share cannot be told from 0, nor the loss from anything.
        (share > 100.0 * error && share > 0.0).then(|| (loss / share).clamp(-1.0, 1.0) * self.ceiling)
    }

    /// What these losses say, by the round whose model they are of, in the order of the rounds; `None` for none. Rounds
    /// whose loss is not known count as if they had not been.
    #[must_use]
    pub fn judge(&self, losses: &[(u32, f64)]) -> Option<BestSoFar> {
        let mut rest = losses.iter();
        let (round, loss) = *rest.next()?;
        let (mut best, mut since) = (BestSoFar { round, loss, stop: false }, 0u32);
        for (round, loss) in rest {
            if *loss < best.loss - self.min_delta {
                (best.round, best.loss, since) = (*round, *loss, 0);
            } else {
                since += 1;
            }
            best.stop |= since >= self.patience;
            if best.stop {
                break;
            }
        }
        Some(best)
    }
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
        /// Part of the sites that is left out at each end, above 0 and below one half.
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
            // Of two values nobody can say which is wrong; and with fewer than 1/trim nothing would be left out.
            Self::Median {} => 3,
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Self::TrimmedMean { trim } => (1.0 / trim).ceil().max(3.0) as u32,
            Self::FedAvg {}
            | Self::FedProx { .. }
            | Self::Scaffold { .. }
            | Self::FedAdam(_)
            | Self::FedYogi(_)
            | Self::FedAdagrad(_)
            | Self::Cyclic {}
            | Self::FedBn {}
            | Self::Personal { .. }
            | Self::NormBound { .. } => 1,
        }
    }

    /// Why training with it cannot end with the model of an earlier round, if it cannot.
    pub fn cannot_go_back(&self) -> Option<&'static str> {
        match self {
            Self::FedAvg {} | Self::FedProx { .. } | Self::FedAdam(_) | Self::FedYogi(_) | Self::FedAdagrad(_) => None,
            Self::Scaffold { .. } => Some("the control variates of the last round belong to no earlier model"),
            Self::FedBn {} | Self::Personal { .. } => {
                Some("the layers that stay at the sites are those of the last round")
            }
            Self::Cyclic {} => Some("each round is judged by one site only, each by another"),
            Self::NormBound { .. } | Self::Median {} | Self::TrimmedMean { .. } | Self::MultiKrum { .. } => {
                Some("it trusts no single site, and any one could move the mean of the losses")
            }
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

/// How what a site sends travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Privacy {
    /// As it is: the coordinator can read each site's update, or its figures.
    Plain {},
    /// Masked: the coordinator learns the sum over at least three sites, and nothing of one of them.
    SecureAggregation {},
}

impl Default for Privacy {
    fn default() -> Self {
        Self::Plain {}
    }
}

impl Privacy {
    /// Whether nothing is masked.
    pub fn is_plain(&self) -> bool {
        *self == Self::Plain {}
    }
}

/// How numbers are put on the wire: an update's values are clipped to ±`clip`, weighted by `n / n_max` and rounded to
/// 2^`bits` levels, so that sums are exact and do not depend on their order.
///
/// Of 8 or 16 bits, a value between two levels becomes either, by chance, such that it is right in the mean: the sites' sum
/// is then right but for noise, where each rounding to the nearest would take the small changes away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quantise {
    /// Largest absolute value of one entry of an update.
    pub clip: f64,
    /// Bits of one entry: 8, 16 or 32.
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
    /// How the learning rate changes from epoch to epoch.
    // Not written where it is the default: plans from before there was one keep their bytes and their digest.
    #[serde(default, skip_serializing_if = "Schedule::is_constant")]
    pub schedule: Schedule,
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
    /// How its figures travel.
    // Not written where it is the default: plans from before there was one keep their bytes and their digest.
    #[serde(default, skip_serializing_if = "Privacy::is_plain")]
    pub privacy: Privacy,
}

fn half() -> f64 {
    0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(patience: u32, min_delta: f64) -> EarlyStop {
        EarlyStop { patience, min_delta, ceiling: 10.0 }
    }

    #[test]
    fn training_ends_after_so_many_rounds_without_a_better_loss() {
        let judged = |stop: EarlyStop, losses: &[f64]| {
            let losses: Vec<(u32, f64)> = (0..).zip(losses.iter().copied()).collect();
            stop.judge(&losses).map(|best| (best.round, best.loss, best.stop))
        };
        assert_eq!(judged(stop(2, 0.0), &[]), None);
        assert_eq!(judged(stop(2, 0.0), &[1.0]), Some((0, 1.0, false)));
        assert_eq!(judged(stop(2, 0.0), &[1.0, 0.5, 0.6]), Some((1, 0.5, false)));
        assert_eq!(judged(stop(2, 0.0), &[1.0, 0.5, 0.6, 0.5]), Some((1, 0.5, true)));
        assert_eq!(judged(stop(2, 0.0), &[1.0, 0.5, 0.6, 0.4, 0.4]), Some((3, 0.4, false)));
        // A little better is not better.
        assert_eq!(judged(stop(2, 0.1), &[1.0, 0.95, 0.91]), Some((0, 1.0, true)));
        assert_eq!(judged(stop(1, 0.0), &[1.0, 1.0]), Some((0, 1.0, true)));
        // What comes after the end changes nothing.
        assert_eq!(judged(stop(1, 0.0), &[1.0, 1.0, 0.1]), Some((0, 1.0, true)));
        // Rounds without a loss are not there.
        assert_eq!(
            stop(2, 0.0).judge(&[(0, 1.0), (4, 1.2), (9, 1.1)]).unwrap(),
            BestSoFar { round: 0, loss: 1.0, stop: true }
        );
    }

    #[test]
    fn the_mean_of_what_sites_send_is_the_mean_over_their_rows() {
        let stop = stop(1, 0.0);
        // Two sites: 40 of 80 and 10 of 100 rows for validation; weights are the rows for training.
        let (one, other) = (stop.entries(0.5, 40, 80, 4.0), stop.entries(2.0, 10, 100, 4.0));
        let mean = |i: usize| (80.0 * one[i] + 100.0 * other[i]) / 180.0;
        let loss = stop.loss([mean(0), mean(1)], 1e-9).unwrap();
        assert!((loss - (40.0 * 0.5 + 10.0 * 2.0) / 50.0).abs() < 1e-5, "{loss}");
        assert_eq!(stop.entries(99.0, 10, 10, 4.0), [4.0, 4.0], "more than the ceiling");
        // A loss that leaves out a constant can be negative.
        assert_eq!(stop.entries(-5.0, 10, 10, 4.0), [-2.0, 4.0]);
        assert_eq!(stop.loss([-2.0, 4.0], 1e-9), Some(-5.0));
        assert_eq!(stop.entries(5.0, 90, 10, 4.0), [2.0, 4.0], "more rows for validation than for training");
        assert_eq!((stop.loss([0.0; 2], 1e-9), stop.loss([0.0, 1e-8], 1e-9)), (None, None));
    }
}
