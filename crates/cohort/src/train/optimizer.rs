//! Optimisers on all trained parameters at once: one vector, so that a step is a few operations however many layers
//! there are.

use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    Adam, AdamConfig, AdamState, AdamW, AdamWConfig, AdamWState, Optimizer as _, Sgd, SgdConfig, SgdState,
};
use burn::tensor::Tensor;
use hospes_protocol::plan::Optimizer;

/// An optimiser with its state. It begins anew in every round: what it remembers is of rows, and stays at the site.
pub(crate) struct Step {
    lr: f64,
    kind: Kind,
}

enum Kind {
    Sgd(Sgd, Option<SgdState<1>>),
    Adam(Adam, Option<AdamState<1>>),
    AdamW(AdamW, Option<AdamWState<1>>),
}

impl Step {
    /// `factor`: what the plan's schedule multiplies the learning rate with in this round.
    pub(crate) fn new(optimizer: &Optimizer, factor: f64) -> Self {
        let kind = match *optimizer {
            Optimizer::Sgd { momentum, .. } => {
                // PyTorch's momentum has no dampening.
                let with = MomentumConfig::new().with_momentum(momentum).with_dampening(0.0);
                Kind::Sgd(SgdConfig::new().with_momentum((momentum != 0.0).then_some(with)).build(), None)
            }
            Optimizer::Adam { .. } => {
                // Kingma, Ba 2015, Algorithm 1.
                let config = AdamConfig::new().with_beta_1(0.9).with_beta_2(0.999).with_epsilon(1e-8);
                Kind::Adam(config.build(), None)
            }
            Optimizer::AdamW { weight_decay, .. } => {
                // Loshchilov, Hutter 2019, Algorithm 2, decay times learning rate as in PyTorch.
                let config = AdamWConfig::new().with_beta_1(0.9).with_beta_2(0.999).with_epsilon(1e-8);
                #[allow(clippy::cast_possible_truncation)]
                Kind::AdamW(config.with_weight_decay(weight_decay as f32).build(), None)
            }
        };
        Self { lr: optimizer.lr() * factor, kind }
    }

    /// The learning rate of this round.
    pub(crate) fn lr(&self) -> f64 {
        self.lr
    }

    pub(super) fn apply(&mut self, parameters: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
        let lr = self.lr;
        match &mut self.kind {
            Kind::Sgd(optimizer, state) => {
                let (next, new) = optimizer.step(lr, parameters, gradient, state.take());
                *state = new;
                next
            }
            Kind::Adam(optimizer, state) => {
                let (next, new) = optimizer.step(lr, parameters, gradient, state.take());
                *state = new;
                next
            }
            Kind::AdamW(optimizer, state) => {
                let (next, new) = optimizer.step(lr, parameters, gradient, state.take());
                *state = new;
                next
            }
        }
    }
}
