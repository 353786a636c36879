//! What a training with differential privacy may be: what the accountant does not cover is refused, with what to write
//! instead.
//!
//! The accountant is told of sums to which each patient adds one clipped gradient. That one patient changes nothing but their
//! own gradient is what every rule here is for.

use super::super::dp::{Dp, DpMode, DpNoise};
use super::super::layer::Layer;
use super::super::model::{self, Inputs};
use super::super::problem::Problems;
use super::super::train::{Loss, NnTrain, Optimizer, Privacy, Schedule, Strategy};
use super::super::{Component, ImputationMethod, Plan, graph};
use super::train::at;
use crate::limits;

/// Steps of the finest grid in one clip and the root of one parameter, and most steps of a deviation of the noise
/// (`cohort::train::dp`, `privacy::dp`).
const GRID: f64 = 2_048.0;
const WIDEST: f64 = 268_435_456.0;

pub(super) fn check_dp(plan: &Plan, name: &str, train: &NnTrain, inputs: Inputs, problems: &mut Problems) {
    let Some(dp) = train.dp.as_ref().filter(|_| train.model.layers().count() <= limits::MODEL_LAYERS) else { return };
    let params = format!("tasks.{name}.params");
    check_numbers(&params, train, dp, inputs, problems);
    if dp.mode == DpMode::Distributed {
        check_shared(&params, train, dp, problems);
    }
    let whole = train.quantise.bits == 32 && train.top_k.is_none();
    let reason = "rounding to few bits, and what is left out of an update, are not thought through with noise; write 'bits: 32' and \
                  no top_k";
    problems.require(whole, format!("{params}.quantise.bits"), reason.to_owned());
    check_apart(&params, train, problems);
    check_rounds(&params, train, problems);
    for step in graph::preparation(plan, name) {
        let task = &plan.tasks[step];
        check_step(step, name, &task.component, problems);
        // What was fitted elsewhere is not what the parameters here say.
        if let Some(fitted) = graph::source(plan, task, "fitted").map(|source| source.task) {
            check_step(fitted, name, &plan.tasks[fitted].component, problems);
        }
    }
}

fn check_numbers(params: &str, train: &NnTrain, dp: &Dp, inputs: Inputs, problems: &mut Problems) {
    let Dp { noise, delta, clip_norm_l2, sampling_rate, expected_batch, .. } = *dp;
    let mut within = |field: &str, value: f64, least: f64, most: f64| {
        let good = (least..=most).contains(&value);
        let reason = format!("is {value}; it must lie between {least} and {most}");
        problems.require(good, format!("{params}.dp.{field}"), reason);
    };
    match noise {
        DpNoise::NoiseMultiplier(multiplier) => within("noise_multiplier", multiplier, 0.1, 1e6),
        DpNoise::Epsilon(epsilon) => within("epsilon", epsilon, 0.001, 100.0),
    }
    within("delta", delta, 1e-12, 0.01);
    within("clip_norm_l2", clip_norm_l2, 1e-6, 1e6);
    within("sampling_rate", sampling_rate, 1e-6, 1.0);
    within("expected_batch", expected_batch, 1.0, f64::from(limits::BATCH_ROWS));
    let (batch, whole) = (train.local.batch, expected_batch.round());
    let reason = format!(
        "is {batch}; with dp each patient is drawn by themselves, so that no batch has a fixed size: write {whole}, which \
         dp.expected_batch is, rounded"
    );
    problems.require(f64::from(batch) == whole, format!("{params}.local.batch"), reason);
    // Counts of parameters lie far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    let parameters = model::parameters(&train.model, inputs) as f64;
    if let DpNoise::NoiseMultiplier(multiplier) = noise {
        let reason = format!(
            "is {multiplier}, for which a model of {parameters} parameters is too large: the noise would be wider than \
             2^28 steps of its grid; write a smaller one, or a smaller model"
        );
        let good = multiplier * GRID * parameters.sqrt() <= WIDEST;
        problems.require(good, format!("{params}.dp.noise_multiplier"), reason);
    }
}

/// Noise of which each site adds a part covers one sum a round, to which each patient adds one clipped gradient.
fn check_shared(params: &str, train: &NnTrain, dp: &Dp, problems: &mut Problems) {
    let mut need = |good: bool, field: &str, reason: String| {
        let reason = format!("{reason}; or write 'mode: local', with which each site adds all of the noise by itself");
        problems.require(good, format!("{params}.{field}"), reason);
    };
    let is_masked = train.privacy == Privacy::SecureAggregation {};
    need(
        is_masked,
        "privacy",
        "noise that the sites share protects their sum, and no update that can be read; write 'secure_aggregation: {}'"
            .into(),
    );
    let updates = train.local.updates;
    need(
        updates == 1,
        "local.updates",
        format!("is {updates}; noise that the sites share is added once a round, and covers one step; write 1"),
    );
    let is_linear = matches!(train.optimizer, Optimizer::Sgd { momentum: 0.0, .. });
    need(
        is_linear,
        "optimizer",
        "noise that the sites share covers plain gradient steps; write sgd without momentum".into(),
    );
    need(
        train.schedule == Schedule::Constant,
        "schedule",
        "noise that the sites share is for one learning rate; leave it out".into(),
    );
    let is_found = matches!(dp.noise, DpNoise::NoiseMultiplier(_));
    need(
        is_found,
        "dp.epsilon",
        "would have to be turned into noise for every message of a masked round; write the noise_multiplier".into(),
    );
}

/// Each patient's gradient is their own.
fn check_apart(params: &str, train: &NnTrain, problems: &mut Problems) {
    if train.loss == Loss::Cox {
        let reason = "cox compares the rows of a batch with each other, so that no clip bounds what one patient changes; \
                      take another loss, or train without dp";
        problems.add(format!("{params}.loss"), reason);
    }
    for (index, _) in train.model.layers().enumerate().filter(|(_, layer)| matches!(layer, Layer::BatchNorm(_))) {
        let place = at(&format!("{params}.model"), &train.model, index);
        let reason = "batch_norm mixes the rows of a batch, so that no clip bounds what one patient changes; write \
                      group_norm";
        problems.add(format!("{place}.batch_norm"), reason);
    }
}

/// Nothing but noisy sums decides over gradients and leaves.
fn check_rounds(params: &str, train: &NnTrain, problems: &mut Problems) {
    if train.early_stop.is_some() {
        let reason = "tells in every round a loss on the site's rows, to which no noise is added; leave it out, and write \
                      as many rounds as are to be trained";
        problems.add(format!("{params}.early_stop"), reason);
    }
    if matches!(train.strategy, Strategy::Personal { .. }) {
        let reason = "starts each round from layers that stay at the site, which no noise covers; write fed_avg";
        problems.add(format!("{params}.strategy.personal"), reason);
    }
    let adds = match train.strategy {
        Strategy::FedProx { .. } => "a proximal term",
        Strategy::Scaffold { .. } => "a control variate",
        _ => return,
    };
    let name = train.strategy.name();
    let reason = format!("adds {adds} to each gradient, which training with dp does not have yet; write fed_avg");
    problems.add(format!("{params}.strategy.{name}"), reason);
}

/// What is done to the rows before depends on each patient's own rows and the plan's constants.
fn check_step(step: &str, task: &str, component: &Component, problems: &mut Problems) {
    let params = format!("tasks.{step}.params");
    let why = format!("so that one patient changes the gradients of others in '{task}', and its clip bounds nothing");
    let (place, reason) = match component {
        Component::FeatureScale(_) if component.learns() => (
            format!("{params}.method"),
            format!(
                "scales by the mean and spread of the site's own rows, {why}; write 'bounds', with min and max of each \
                 column in data.variables"
            ),
        ),
        Component::Imputation(imputation) if component.learns() => {
            let what = match imputation.method {
                ImputationMethod::Median => "median",
                _ => "mean",
            };
            (
                format!("{params}.method"),
                format!(
                    "fills with the {what} of the site's own rows, {why}; write 'constant' with a number of the plan's, \
                     or drop_rows"
                ),
            )
        }
        Component::DataSplit(split) if split.test_fraction.is_some() => (
            format!("{params}.test_fraction"),
            format!(
                "sets a part of the site's patients aside, where one patient more moves another across the border, {why}; \
                 write by_column, with a column that says for each patient where they belong"
            ),
        ),
        _ => return,
    };
    problems.add(place, reason);
}
