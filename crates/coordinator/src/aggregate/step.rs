//! What the coordinator does with the mean of a round's updates: strategies that need nothing but a sum.
//!
//! Arithmetic is IEEE double precision, entry by entry, so that a repeated reduction gives the same bytes.

use hospes_protocol::plan::{Adaptive, Part, Strategy};

/// Moments of an entry in the coordinator's optimiser: m and v.
pub(super) type Moments = [f32; 2];

/// A step of the coordinator along the mean of the updates.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// The mean itself (McMahan et al. 2017, algorithm 1). What a site changes in its own work (`fed_prox`), or keeps
    /// to itself (`fed_bn`, `personal`), changes nothing here.
    Average,
    /// x ← x + lr·mean(Δy) and c ← c + |S|/N·mean(Δc) (Karimireddy et al. 2020, algorithm 1). Both means are weighted by
    /// rows, as FLamby does it: c is then the weighted mean of the sites' control variates as the model is of theirs.
    Scaffold {
        /// Learning rate.
        lr: f64,
        /// |S|/N: the part of the job's members that is in this round.
        share: f64,
    },
    /// Adaptive optimisation (Reddi et al. 2021, algorithm 2, Δ weighted by rows), without bias correction. Moments begin
    /// at 0, as FLamby has it; the paper begins v at no less than τ².
    Adaptive {
        /// How the second moment grows.
        second: Second,
        /// Its parameters.
        adaptive: Adaptive,
        /// A mean not above this is 0: dividing by its own root would make a step of a rounding.
        error: f64,
    },
}

/// How the second moment grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Second {
    Adagrad,
    Adam,
    Yogi,
}

impl Step {
    /// The step of a strategy; `None` for one that needs to see each update.
    ///
    /// # Units
    /// `sites` are in the sums, `members` could be, `error` is that of an entry of the mean.
    pub(super) fn of(strategy: &Strategy, sites: u32, members: u32, error: f64) -> Option<Self> {
        let adaptive = |second, adaptive: &Adaptive| {
            // The mean is rounded to f32 on top of its error.
            Some(Self::Adaptive { second, adaptive: adaptive.clone(), error: error * (1.0 + 1e-6) })
        };
        match strategy {
            Strategy::FedAvg {} | Strategy::FedProx { .. } | Strategy::FedBn {} | Strategy::Personal { .. } => {
                Some(Self::Average)
            }
            Strategy::Scaffold { lr } => {
                let share = f64::from(sites) / f64::from(members.max(sites).max(1));
                Some(Self::Scaffold { lr: *lr, share })
            }
            Strategy::FedAdam(a) => adaptive(Second::Adam, a),
            Strategy::FedYogi(a) => adaptive(Second::Yogi, a),
            Strategy::FedAdagrad(a) => adaptive(Second::Adagrad, a),
            Strategy::Cyclic {}
            | Strategy::NormBound { .. }
            | Strategy::Median {}
            | Strategy::TrimmedMean { .. }
            | Strategy::MultiKrum { .. } => None,
        }
    }

    /// Whether the coordinator keeps moments from round to round.
    pub(super) fn has_moments(&self) -> bool {
        matches!(self, Self::Adaptive { .. })
    }

    /// Changes entries of the model along the mean.
    ///
    /// # Shapes
    /// All as long as `mean`; `moments` may be empty where the step has none.
    pub(super) fn take(&self, part: Part, mean: &[f32], model: &mut [f32], moments: &mut [Moments]) {
        match self {
            Self::Adaptive { second, adaptive, error } if part == Part::Trained => {
                for ((x, mean), moments) in model.iter_mut().zip(mean).zip(moments) {
                    let mean = f64::from(*mean);
                    let delta = if mean.abs() <= *error { 0.0 } else { mean };
                    *x = single(f64::from(*x) + second.step(adaptive, delta, moments));
                }
            }
            Self::Scaffold { lr, share } if part != Part::Running => {
                let scale = if part == Part::Control { *share } else { *lr };
                for (x, mean) in model.iter_mut().zip(mean) {
                    *x = single(f64::from(*x) + scale * f64::from(*mean));
                }
            }
            // A running figure is a mean over rows: a step beyond the mean could make a variance negative.
            _ => model.iter_mut().zip(mean).for_each(|(x, mean)| *x += mean),
        }
    }
}

impl Second {
    /// η·m/(√v + τ), with the moments brought up to date.
    fn step(self, adaptive: &Adaptive, delta: f64, moments: &mut Moments) -> f64 {
        let Adaptive { lr, beta1, beta2, tau } = *adaptive;
        let [m, v] = moments.map(f64::from);
        let square = delta * delta;
        let m = beta1 * m + (1.0 - beta1) * delta;
        let v = match self {
            Self::Adagrad => v + square,
            Self::Adam => beta2 * v + (1.0 - beta2) * square,
            Self::Yogi if v == square => v,
            Self::Yogi => v - (1.0 - beta2) * square * (v - square).signum(),
        };
        *moments = [single(m), single(v)];
        lr * m / (v.sqrt() + tau)
    }
}

/// What is too large becomes infinite, which the writer of models refuses.
#[allow(clippy::cast_possible_truncation)]
fn single(value: f64) -> f32 {
    value as f32
}
