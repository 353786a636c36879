//! Everything that can be known about a typed plan without data.

use std::collections::BTreeSet;

use super::problem::{PlanError, Problems};
use super::{
    Component, Evaluation, Layer, LocalBaseline, LocalWork, Loss, NnTrain, Optimizer, Plan, Privacy, Quantise, columns,
    graph, model,
};
use crate::canon::Canonical;
use crate::{limits, text};

/// Checks a typed plan: the graph, ports and types, columns, shapes, numbers, limits.
///
/// # Errors
/// [`PlanError`] lists everything that is wrong, each with its place.
pub fn check(plan: &Plan) -> Result<(), PlanError> {
    let mut problems = Problems::default();
    check_head(plan, &mut problems);
    graph::check(plan, &mut problems);
    let flow = columns::check(plan, &mut problems);
    for (name, task) in &plan.tasks {
        check_numbers(name, &task.component, flow.width(name), &mut problems);
    }
    if problems.is_empty()
        && let Err(error) = Canonical::new(plan.clone())
    {
        problems.add("", error.to_string());
    }
    problems.into_result()
}

fn check_head(plan: &Plan, problems: &mut Problems) {
    if let Err(reason) = text::check_name(&plan.name) {
        problems.add("name", reason);
    }
    check_members(&plan.parties.members, problems);
    problems.require(!plan.tasks.is_empty(), "tasks", "is empty");
    problems.require(
        plan.tasks.len() <= limits::PLAN_TASKS,
        "tasks",
        format!("{} tasks, more than the {} allowed", plan.tasks.len(), limits::PLAN_TASKS),
    );
    for name in plan.tasks.keys() {
        let good = name.len() <= limits::NAME_CHARS
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        problems.require(
            good,
            format!("tasks.{name}"),
            "the name must begin with a letter and hold letters, digits, '_' and '-' only",
        );
    }
}

fn check_members(members: &[String], problems: &mut Problems) {
    problems.require(!members.is_empty(), "parties.members", "names no site; write [\"site:*\"] for all");
    problems.require(members.len() <= limits::ROSTER_SITES, "parties.members", "names too many sites");
    let mut seen = BTreeSet::new();
    for (i, selector) in members.iter().enumerate() {
        let place = format!("parties.members.{i}");
        match selector.strip_prefix("site:") {
            None => problems.add(place, format!("'{selector}' is no selector; write 'site:*' or 'site:<name>'")),
            Some("*") if members.len() > 1 => problems.add(place, "'site:*' means every site and must stand alone"),
            Some("*") => {}
            Some(name) => match text::check_name(name) {
                Err(reason) => problems.add(place, format!("the site's name {reason}")),
                Ok(()) if name.contains('*') => problems.add(place, "'*' cannot be part of a name"),
                Ok(()) if !seen.insert(selector) => problems.add(place, format!("'{selector}' stands twice")),
                Ok(()) => {}
            },
        }
    }
}

fn check_numbers(name: &str, component: &Component, inputs: u64, problems: &mut Problems) {
    let params = format!("tasks.{name}.params");
    match component {
        Component::NnTrain(train) => {
            check_train(&params, train, problems);
            check_model(&params, &train.model, train.loss, inputs, problems);
        }
        Component::LocalBaseline(baseline) => {
            check_baseline(&params, baseline, problems);
            check_model(&params, &baseline.model, baseline.loss, inputs, problems);
        }
        Component::Evaluation(Evaluation { threshold, calibration_bins }) => {
            check_threshold(&params, *threshold, problems);
            check_count(format!("{params}.calibration_bins"), *calibration_bins, limits::CALIBRATION_BINS, problems);
        }
        Component::Imputation(imputation) => {
            if let super::ImputationMethod::Constant(value) = imputation.method {
                problems.require(value.is_finite(), format!("{params}.method.constant"), "must be a finite number");
            }
        }
        Component::Reader(_)
        | Component::OneHot(_)
        | Component::DataSplit(_)
        | Component::FeatureScale(_)
        | Component::Statistics(_) => {}
    }
}

fn check_train(params: &str, train: &NnTrain, problems: &mut Problems) {
    check_optimizer(params, &train.optimizer, problems);
    check_count(format!("{params}.rounds"), train.rounds, limits::ROUNDS, problems);
    let LocalWork { updates, batch } = train.local;
    check_count(format!("{params}.local.updates"), updates, limits::LOCAL_UPDATES, problems);
    check_count(format!("{params}.local.batch"), batch, limits::BATCH_ROWS, problems);
    if let Privacy::SecureAggregation {} = train.privacy {
        problems.add(
            format!("{params}.privacy.secure_aggregation"),
            "not available in this version; 'plain: {}' is, with which the coordinator can read each site's update",
        );
    }
    let Quantise { clip, bits, n_max } = train.quantise;
    problems.require(
        clip > 0.0 && clip <= limits::UPDATE_CLIP,
        format!("{params}.quantise.clip"),
        format!("is {clip}; it must be above 0 and at most {}", limits::UPDATE_CLIP),
    );
    let reason = if bits == 16 { "16 is not available in this version; write 32" } else { "must be 32" };
    problems.require(bits == 32, format!("{params}.quantise.bits"), reason);
    problems.require(n_max > 0, format!("{params}.quantise.n_max"), "must be at least 1");
}

fn check_baseline(params: &str, baseline: &LocalBaseline, problems: &mut Problems) {
    check_optimizer(params, &baseline.optimizer, problems);
    check_count(format!("{params}.epochs"), baseline.epochs, limits::EPOCHS, problems);
    check_count(format!("{params}.batch"), baseline.batch, limits::BATCH_ROWS, problems);
    check_threshold(params, baseline.threshold, problems);
}

fn check_optimizer(params: &str, optimizer: &Optimizer, problems: &mut Problems) {
    let (name, lr) = match optimizer {
        Optimizer::Sgd { lr, momentum } => {
            problems.require(
                (0.0..1.0).contains(momentum),
                format!("{params}.optimizer.sgd.momentum"),
                format!("is {momentum}; it must be at least 0 and below 1"),
            );
            ("sgd", *lr)
        }
        Optimizer::Adam { lr } => ("adam", *lr),
    };
    let good = lr > 0.0 && lr <= limits::LEARNING_RATE;
    problems.require(
        good,
        format!("{params}.optimizer.{name}.lr"),
        format!("is {lr}; it must be above 0 and at most {}", limits::LEARNING_RATE),
    );
}

fn check_threshold(params: &str, threshold: f64, problems: &mut Problems) {
    problems.require(
        (0.0..=1.0).contains(&threshold),
        format!("{params}.threshold"),
        format!("is {threshold}; it must lie between 0 and 1"),
    );
}

fn check_count(place: String, count: u32, most: u32, problems: &mut Problems) {
    let reason = format!("is {count}; it must lie between 1 and {most}");
    problems.require((1..=most).contains(&count), place, reason);
}

/// Follows the shapes through the layers to the loss.
fn check_model(params: &str, layers: &[Layer], loss: Loss, inputs: u64, problems: &mut Problems) {
    let place = format!("{params}.model");
    problems.require(
        layers.len() <= limits::MODEL_LAYERS,
        &place,
        format!("{} layers, more than the {} allowed", layers.len(), limits::MODEL_LAYERS),
    );
    let parameters = model::parameters(layers, inputs);
    problems.require(
        parameters <= limits::MODEL_PARAMETERS,
        &place,
        format!("{parameters} parameters, more than the {} allowed", limits::MODEL_PARAMETERS),
    );
    let mut width = inputs;
    for (i, layer) in layers.iter().enumerate() {
        if let Layer::Linear(linear) = layer {
            problems.require(linear.out > 0, format!("{place}.{i}.linear.out"), "must be at least 1");
            width = u64::from(linear.out);
        }
    }
    let Some((last, layer)) = layers.iter().enumerate().next_back() else {
        problems.add(place, "has no layers");
        return;
    };
    let place = format!("{place}.{last}");
    match (loss, layer) {
        (Loss::BinaryCrossEntropy, Layer::Linear(_)) => problems.require(
            width == 1,
            format!("{place}.linear.out"),
            format!("the last layer puts out [batch, {width}], but binary_cross_entropy needs [batch, 1]"),
        ),
        (Loss::BinaryCrossEntropy, Layer::Sigmoid {}) => problems.add(
            format!("{place}.sigmoid"),
            "binary_cross_entropy applies the sigmoid itself, so a last sigmoid would be the second; leave it out",
        ),
        (Loss::BinaryCrossEntropy, Layer::Relu {} | Layer::Gelu {} | Layer::Tanh {}) => problems.add(
            place,
            "binary_cross_entropy needs a last linear layer with [batch, 1]; an activation limits what it can say",
        ),
    }
}
