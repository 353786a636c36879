//! Optimisers on all trained parameters at once: one vector, so that a step is a few operations however many layers
//! there are.

use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    Adam, AdamConfig, AdamState, AdamW, AdamWConfig, AdamWState, Optimizer as _, Sgd, SgdConfig, SgdState,
};
use burn::tensor::Tensor;
use hospes_protocol::plan::Optimizer;

use super::processor::{self, Moving};

/// An optimiser with its state. It begins anew in every round: what it remembers is of rows, and stays at the site.
pub(crate) struct Step {
    /// Learning rate of the round.
    base: f64,
    /// That of the next step.
    lr: f64,
    /// Weight decay of AdamW; otherwise 0.
    decay: f64,
    kind: Kind,
}

const BETAS: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;

enum Kind {
    Sgd(Sgd, Option<SgdState<1>>),
    Adam(Adam, Option<AdamState<1>>),
    AdamW(AdamW, Option<AdamWState<1>>),
    /// Either of both on the processor, where a step is one pass.
    Here(Moving),
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
                let config = AdamConfig::new().with_beta_1(BETAS[0]).with_beta_2(BETAS[1]).with_epsilon(EPSILON);
                Kind::Adam(config.build(), None)
            }
            Optimizer::AdamW { weight_decay, .. } => {
                // Loshchilov, Hutter 2019, Algorithm 2, decay times learning rate as in PyTorch.
                let config = AdamWConfig::new().with_beta_1(BETAS[0]).with_beta_2(BETAS[1]).with_epsilon(EPSILON);
                #[allow(clippy::cast_possible_truncation)]
                Kind::AdamW(config.with_weight_decay(weight_decay as f32).build(), None)
            }
        };
        let decay = match *optimizer {
            Optimizer::AdamW { weight_decay, .. } => weight_decay,
            Optimizer::Sgd { .. } | Optimizer::Adam { .. } => 0.0,
        };
        let base = optimizer.lr() * factor;
        Self { base, lr: base, decay, kind }
    }

    /// Multiplies the learning rate of the round with this from here on.
    pub(super) fn scale(&mut self, factor: f64) {
        self.lr = self.base * factor;
    }

    /// The learning rate of this round.
    pub(crate) fn round_rate(&self) -> f64 {
        self.base
    }

    pub(super) fn apply(&mut self, parameters: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
        let lr = self.lr;
        if processor::holds(&parameters) && matches!(self.kind, Kind::Adam(..) | Kind::AdamW(..)) {
            self.kind = Kind::Here(Moving::new(BETAS, EPSILON));
        }
        match &mut self.kind {
            Kind::Here(moving) => moving.step(lr, self.decay, parameters, gradient),
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

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::train::network::values;

    fn ten(seed: f32) -> Tensor<1> {
        let values: Vec<f32> = (0..10).map(|i| ((i as f32 + seed) * 1.7).sin()).collect();
        Tensor::from_floats(values.as_slice(), &Device::flex())
    }

    /// A step in one pass is Burn's step.
    #[test]
    fn adam_on_the_processor_is_that_of_burn() {
        for decay in [0.0, 0.05] {
            let optimizer = match decay {
                0.0 => Optimizer::Adam { lr: 0.01 },
                weight_decay => Optimizer::AdamW { lr: 0.01, weight_decay },
            };
            let mut ours = Step::new(&optimizer, 0.5);
            let mut theirs = Step::new(&optimizer, 0.5);
            let (mut p, mut q) = (ten(1.0), ten(1.0));
            for step in 0..20u8 {
                let gradient = ten(f32::from(step));
                p = ours.apply(p, gradient.clone());
                q = match &mut theirs.kind {
                    Kind::Adam(optimizer, state) => {
                        let (next, new) = optimizer.step(0.005, q, gradient, state.take());
                        *state = new;
                        next
                    }
                    Kind::AdamW(optimizer, state) => {
                        let (next, new) = optimizer.step(0.005, q, gradient, state.take());
                        *state = new;
                        next
                    }
                    Kind::Sgd(..) | Kind::Here(_) => panic!("another optimiser"),
                };
            }
            let most = values(&(p - q)).into_iter().fold(0f32, |most, v| most.max(v.abs()));
            assert!(most < 1e-6, "{most}");
        }
    }
}
