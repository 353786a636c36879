//! What can be known without data about a model and its training.

use std::collections::BTreeSet;

use super::super::columns::Flow;
use super::super::label::LabelKind;
use super::super::layer::{Layer, Model};
use super::super::model::{self, Inputs, listed};
use super::super::problem::{Problems, hint};
use super::super::train::{
    Adaptive, Augment, EarlyStop, LocalBaseline, LocalWork, Loss, NnTrain, Optimizer, Privacy, Quantise, Schedule,
    Sees, Strategy,
};
use super::super::{Plan, update};
use super::{check_count, check_threshold};
use crate::limits;

/// A model with what it is trained for.
struct Trained<'a> {
    model: &'a Model,
    loss: Loss,
    class_weights: &'a [f64],
    augment: Option<&'a Augment>,
    inputs: Inputs,
}

pub(super) fn check_train(plan: &Plan, params: &str, train: &NnTrain, inputs: Inputs, problems: &mut Problems) {
    check_optimizer(params, &train.optimizer, problems);
    check_schedule(params, &train.schedule, limits::ROUNDS, problems);
    check_last_rate(params, &train.optimizer, &train.schedule, (train.rounds, "round"), problems);
    check_count(format!("{params}.rounds"), train.rounds, limits::ROUNDS, problems);
    let LocalWork { updates, batch } = train.local;
    check_count(format!("{params}.local.updates"), updates, limits::LOCAL_UPDATES, problems);
    check_count(format!("{params}.local.batch"), batch, limits::BATCH_ROWS, problems);
    check_strategy(params, train, inputs, problems);
    if train.privacy == (Privacy::SecureAggregation {}) && train.strategy.sees() == Sees::Each {
        let reason = format!(
            "{} needs to see each site's update; write 'plain: {{}}', with which the coordinator can read it, or choose \
             a strategy that needs the sum only",
            train.strategy.name()
        );
        problems.add(format!("{params}.privacy.secure_aggregation"), reason);
    }
    check_quantise(params, train, inputs, problems);
    check_top_k(params, train, problems);
    let NnTrain { model, loss, class_weights, augment, .. } = train;
    let trained = Trained { model, loss: *loss, class_weights, augment: augment.as_ref(), inputs };
    check_model(plan, params, &trained, problems);
}

fn check_quantise(params: &str, train: &NnTrain, inputs: Inputs, problems: &mut Problems) {
    let place = format!("{params}.quantise");
    let Quantise { clip, bits, n_max } = train.quantise;
    problems.require(
        clip > 0.0 && clip <= limits::UPDATE_CLIP,
        format!("{place}.clip"),
        format!("is {clip}; it must be above 0 and at most {}", limits::UPDATE_CLIP),
    );
    let is_known = matches!(bits, 8 | 16 | 32);
    problems.require(is_known, format!("{place}.bits"), format!("is {bits}; it must be 8, 16 or 32"));
    if is_known && bits < 32 {
        check_few_bits(&place, train, inputs, problems);
    }
    problems.require(n_max > 0, format!("{place}.n_max"), "must be at least 1");
}

/// What rounding by chance to few bits would spoil.
fn check_few_bits(place: &str, train: &NnTrain, inputs: Inputs, problems: &mut Problems) {
    let bits = train.quantise.bits;
    let mut refuse = |reason: String| problems.add(format!("{place}.bits"), format!("is {bits}, {reason}"));
    let has_running = update::parts(train, inputs).contains(&update::Part::Running);
    if has_running {
        refuse(
            "with which a running variance of batch_norm could be rounded to below 0; write 32, choose fed_bn, with which \
             batch norm stays at the sites, or use group_norm"
                .to_owned(),
        );
    }
    if train.early_stop.is_some() {
        refuse("in which a loss cannot be told finely enough for early_stop; write 32".to_owned());
    }
    let is_adaptive = matches!(train.strategy, Strategy::FedAdam(_) | Strategy::FedYogi(_) | Strategy::FedAdagrad(_));
    if is_adaptive && bits < 16 {
        let name = train.strategy.name();
        refuse(format!("and {name} takes a mean that such rounding could have made for 0; write 16 or 32, or fed_avg"));
    }
}

fn check_top_k(params: &str, train: &NnTrain, problems: &mut Problems) {
    let Some(part) = train.top_k else { return };
    let place = format!("{params}.top_k");
    let is_part = part > 0.0 && part < 1.0;
    problems.require(is_part, &place, format!("is {part}; it must be above 0 and below 1"));
    let reason = "saves nothing under masks, with which all entries are of one length; leave it out";
    problems.require(train.privacy.is_plain(), &place, reason);
    let reason = "needs entries of few bits, which are coded; write quantise.bits of 8 or 16";
    problems.require(train.quantise.bits < 32, &place, reason);
    let name = train.strategy.name();
    let reason = format!("goes together with fed_avg and fed_prox, not with {name}");
    let averages = matches!(train.strategy, Strategy::FedAvg {} | Strategy::FedProx { .. });
    problems.require(averages, place, reason);
}

pub(super) fn check_early_stop(plan: &Plan, name: &str, train: &NnTrain, problems: &mut Problems) {
    let Some(stop) = &train.early_stop else { return };
    let place = format!("tasks.{name}.params.early_stop");
    check_count(format!("{place}.patience"), stop.patience, limits::ROUNDS, problems);
    let EarlyStop { min_delta, ceiling, .. } = *stop;
    let good = (0.0..=ceiling).contains(&min_delta);
    let reason = format!("is {min_delta}; it must lie between 0 and the ceiling of {ceiling}");
    problems.require(good, format!("{place}.min_delta"), reason);
    let good = ceiling > 0.0 && ceiling <= 1e9;
    problems.require(good, format!("{place}.ceiling"), format!("is {ceiling}; it must be above 0 and at most 1e9"));
    if let Some(why) = train.strategy.cannot_go_back() {
        problems.add(&place, format!("does not go together with {}: {why}", train.strategy.name()));
    }
    let judged = plan.tasks[name].inputs.contains_key("validate");
    problems.require(judged, place, "needs rows to judge by: connect the input 'validate'");
}

pub(super) fn check_baseline(
    plan: &Plan,
    params: &str,
    baseline: &LocalBaseline,
    inputs: Inputs,
    problems: &mut Problems,
) {
    check_optimizer(params, &baseline.optimizer, problems);
    check_schedule(params, &baseline.schedule, limits::EPOCHS, problems);
    check_last_rate(params, &baseline.optimizer, &baseline.schedule, (baseline.epochs, "epoch"), problems);
    check_count(format!("{params}.epochs"), baseline.epochs, limits::EPOCHS, problems);
    check_count(format!("{params}.batch"), baseline.batch, limits::BATCH_ROWS, problems);
    check_threshold(params, baseline.threshold, problems);
    let LocalBaseline { model, loss, class_weights, augment, .. } = baseline;
    let trained = Trained { model, loss: *loss, class_weights, augment: augment.as_ref(), inputs };
    check_model(plan, params, &trained, problems);
}

fn check_optimizer(params: &str, optimizer: &Optimizer, problems: &mut Problems) {
    let name = match optimizer {
        Optimizer::Sgd { momentum, .. } => {
            problems.require(
                (0.0..1.0).contains(momentum),
                format!("{params}.optimizer.sgd.momentum"),
                format!("is {momentum}; it must be at least 0 and below 1"),
            );
            "sgd"
        }
        Optimizer::Adam { .. } => "adam",
        Optimizer::AdamW { weight_decay, .. } => {
            problems.require(
                (0.0..=1.0).contains(weight_decay),
                format!("{params}.optimizer.adam_w.weight_decay"),
                format!("is {weight_decay}; it must lie between 0 and 1"),
            );
            "adam_w"
        }
    };
    check_rate(format!("{params}.optimizer.{name}.lr"), optimizer.lr(), problems);
}

fn check_rate(place: String, lr: f64, problems: &mut Problems) {
    let good = lr > 0.0 && lr <= limits::LEARNING_RATE;
    problems.require(good, place, format!("is {lr}; it must be above 0 and at most {}", limits::LEARNING_RATE));
}

fn check_schedule(params: &str, schedule: &Schedule, most: u32, problems: &mut Problems) {
    match schedule {
        Schedule::Constant => {}
        Schedule::Step { every, factor } => {
            check_count(format!("{params}.schedule.step.every"), *every, most, problems);
            let place = format!("{params}.schedule.step.factor");
            problems.require(
                *factor > 0.0 && *factor <= 1.0,
                place,
                format!("is {factor}; it must be above 0 and at most 1"),
            );
        }
        Schedule::Cosine { floor } => {
            let place = format!("{params}.schedule.cosine.floor");
            problems.require(
                (0.0..1.0).contains(floor),
                place,
                format!("is {floor}; it must be at least 0 and below 1"),
            );
        }
    }
}

/// The rate of the last round or epoch, the smallest of all, has to be one in the 32-bit numbers that training computes with:
/// at a rate of 0 nothing is learned, and `scaffold` divides by it.
fn check_last_rate(
    params: &str,
    optimizer: &Optimizer,
    schedule: &Schedule,
    (count, unit): (u32, &str),
    problems: &mut Problems,
) {
    let (field, advice) = match schedule {
        Schedule::Constant => return,
        Schedule::Step { factor, .. } if factor.is_nan() || *factor <= 0.0 => return,
        Schedule::Step { .. } => ("step.factor", "a larger factor or 'every'"),
        Schedule::Cosine { .. } => ("cosine.floor", "a floor above 0"),
    };
    let rate = optimizer.lr();
    let last = rate * schedule.factor(count, count);
    #[expect(clippy::cast_possible_truncation, reason = "what rounding leaves of it is the question")]
    let vanishes = rate > 0.0 && last as f32 == 0.0;
    let reason = format!(
        "takes the learning rate from {rate} to {last:e} in {unit} {count}, which is 0 in the 32-bit numbers of \
         training, so that nothing more would be learned; write {advice}, or fewer {unit}s"
    );
    problems.require(!vanishes, format!("{params}.schedule.{field}"), reason);
}

fn check_strategy(params: &str, train: &NnTrain, inputs: Inputs, problems: &mut Problems) {
    let place = format!("{params}.strategy.{}", train.strategy.name());
    match &train.strategy {
        Strategy::FedAvg {} | Strategy::Cyclic {} | Strategy::Median {} => {}
        Strategy::FedProx { mu } => {
            let good = *mu >= 0.0 && *mu <= limits::LEARNING_RATE;
            problems.require(
                good,
                format!("{place}.mu"),
                format!("is {mu}; it must lie between 0 and {}", limits::LEARNING_RATE),
            );
        }
        Strategy::Scaffold { lr } => {
            check_rate(format!("{place}.lr"), *lr, problems);
            let sgd = matches!(train.optimizer, Optimizer::Sgd { momentum: 0.0, .. });
            let reason = "scaffold corrects plain gradient steps; use sgd without momentum";
            problems.require(sgd, format!("{params}.optimizer"), reason);
        }
        Strategy::FedAdam(adaptive) | Strategy::FedYogi(adaptive) | Strategy::FedAdagrad(adaptive) => {
            check_adaptive(&place, adaptive, problems);
        }
        Strategy::FedBn {} => {
            let has = train.model.layers().any(|layer| matches!(layer, Layer::BatchNorm(_)));
            problems.require(has, place, "the model has no batch_norm layer, so nothing would stay at the site");
        }
        Strategy::Personal { layers } => {
            let known = update::names(&train.model);
            problems.require(!layers.is_empty(), format!("{place}.layers"), "names no layer");
            for (i, layer) in layers.iter().enumerate().filter(|(_, layer)| !known.contains(layer)) {
                let known = hint(layer, known.iter().map(String::as_str));
                problems.add(format!("{place}.layers.{i}"), format!("the model has no layer '{layer}'{known}"));
            }
            if !layers.is_empty() && update::tensors(train, inputs).is_empty() {
                problems.add(format!("{place}.layers"), "leaves no parameter that the sites learn together");
            }
        }
        Strategy::NormBound { norm_l2 } => {
            let good = *norm_l2 > 0.0 && norm_l2.is_finite();
            problems.require(good, format!("{place}.norm_l2"), format!("is {norm_l2}; it must be above 0"));
        }
        Strategy::TrimmedMean { trim } => {
            let good = *trim > 0.0 && *trim < 0.5;
            problems.require(good, format!("{place}.trim"), format!("is {trim}; it must be above 0 and below 0.5"));
        }
        Strategy::MultiKrum { byzantine, keep } => {
            check_count(format!("{place}.keep"), *keep, 10_000, problems);
            let most = 10_000;
            problems.require(
                *byzantine <= most,
                format!("{place}.byzantine"),
                format!("is {byzantine}; at most {most}"),
            );
        }
    }
}

fn check_adaptive(place: &str, adaptive: &Adaptive, problems: &mut Problems) {
    check_rate(format!("{place}.lr"), adaptive.lr, problems);
    for (field, beta) in [("beta1", adaptive.beta1), ("beta2", adaptive.beta2)] {
        let good = (0.0..1.0).contains(&beta);
        problems.require(good, format!("{place}.{field}"), format!("is {beta}; it must be at least 0 and below 1"));
    }
    let good = adaptive.tau > 0.0 && adaptive.tau <= 1.0;
    problems.require(good, format!("{place}.tau"), format!("is {}; it must be above 0 and at most 1", adaptive.tau));
}

fn check_model(plan: &Plan, params: &str, trained: &Trained<'_>, problems: &mut Problems) {
    let Trained { model, loss, class_weights, augment, inputs } = *trained;
    let place = format!("{params}.model");
    let count = model.layers().count();
    let most = limits::MODEL_LAYERS;
    problems.require(count <= most, &place, format!("{count} layers, more than the {most} allowed"));
    if count == 0 {
        problems.add(place, "has no layers");
        return;
    }
    if count > most {
        return;
    }
    check_names(&place, model, problems);
    let parameters = model::parameters(model, inputs);
    problems.require(
        parameters <= limits::MODEL_PARAMETERS,
        &place,
        format!("{parameters} parameters, more than the {} allowed", limits::MODEL_PARAMETERS),
    );
    let at = |layer: usize| at(&place, model, layer);
    let (placed, misfit) = model::place(model, inputs);
    if let Some(misfit) = misfit {
        let at = if misfit.field == "from" { format!("{place}.graph.{}", misfit.layer) } else { at(misfit.layer) };
        problems.add(format!("{at}.{}", misfit.field), misfit.reason);
    } else if let Some(last) = placed.last() {
        check_end(plan, &at(placed.len() - 1), &last.layer, &last.out, loss, problems);
    }
    let mut values = 0u64;
    let over = placed.iter().enumerate().find(|(_, layer)| {
        values = values.saturating_add(layer.values());
        values > limits::ROW_VALUES
    });
    if let Some((index, layer)) = over {
        let (sides, most) = (listed(&layer.out), limits::ROW_VALUES);
        let reason = format!(
            "puts out [batch, {sides}], with which the layers up to here have {values} values for each row, more than \
             the {most} allowed (limit ROW_VALUES)"
        );
        problems.add(format!("{}.{}", at(index), layer.layer.name()), reason);
    }
    check_classes(plan, params, loss, class_weights, problems);
    if let Some(augment) = augment {
        check_augment(plan, &format!("{params}.augment"), augment, problems);
    }
}

/// The place of a layer.
pub(super) fn at(place: &str, model: &Model, layer: usize) -> String {
    match model {
        Model::Layers(_) => format!("{place}.{layer}"),
        Model::Graph(_) => format!("{place}.graph.{layer}.layer"),
    }
}

/// What the layers take of the columns that arrive.
pub(super) fn check_columns(flow: &Flow<'_>, task: &str, model: &Model, problems: &mut Problems) {
    let Some(features) = flow.arriving(task).filter(|_| model.layers().count() <= limits::MODEL_LAYERS) else { return };
    let (placed, _) = model::place(model, flow.inputs(task));
    for misfit in model::misfits(&placed, &features) {
        let at = at(&format!("tasks.{task}.params.model"), model, misfit.layer);
        problems.add(format!("{at}.{}", misfit.field), misfit.reason);
    }
}

fn check_names(place: &str, model: &Model, problems: &mut Problems) {
    let Model::Graph(graph) = model else { return };
    let mut seen = BTreeSet::new();
    for (i, node) in graph.graph.iter().enumerate() {
        let place = format!("{place}.graph.{i}.name");
        let good = !node.name.is_empty()
            && node.name.len() <= limits::NAME_CHARS
            && node.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        problems.require(good, &place, "must hold letters, digits and '_' only");
        let taken = ["features", "image", "control"].contains(&node.name.as_str());
        problems.require(!taken, &place, format!("'{}' is the name of something else; choose another", node.name));
        problems.require(seen.insert(&node.name), &place, format!("'{}' stands twice", node.name));
    }
}

/// The last layer against loss and label.
fn check_end(plan: &Plan, at: &str, last: &Layer, out: &[u64], loss: Loss, problems: &mut Problems) {
    let loss_name = match loss {
        Loss::BinaryCrossEntropy => "binary_cross_entropy",
        Loss::CrossEntropy => "cross_entropy",
        Loss::Mse => "mse",
        Loss::Poisson => "poisson",
        Loss::Cox => "cox",
    };
    let needed = match plan.data.label.kind() {
        Ok(LabelKind::Classes(classes)) if loss == Loss::CrossEntropy => classes as u64,
        _ => 1,
    };
    match last {
        Layer::Sigmoid {} if loss == Loss::BinaryCrossEntropy => problems.add(
            format!("{at}.sigmoid"),
            "binary_cross_entropy applies the sigmoid itself, so a last sigmoid would be the second; leave it out",
        ),
        Layer::Relu {} | Layer::Gelu {} | Layer::Tanh {} | Layer::Sigmoid {} => problems.add(
            at,
            format!(
                "{loss_name} needs a last linear layer with [batch, {needed}]; an activation limits what it can say"
            ),
        ),
        Layer::Select(_) => problems.add(
            format!("{at}.select"),
            format!("{loss_name} needs a last linear layer with [batch, {needed}]; a select only passes columns on"),
        ),
        _ if out != [needed] => {
            let field = if matches!(last, Layer::Linear(_)) { ".linear.out" } else { "" };
            problems.add(
                format!("{at}{field}"),
                format!("the last layer puts out [batch, {}], but {loss_name} needs [batch, {needed}]", listed(out)),
            );
        }
        _ => {}
    }
}

/// Loss and class weights against the label.
fn check_classes(plan: &Plan, params: &str, loss: Loss, weights: &[f64], problems: &mut Problems) {
    let Ok(kind) = plan.data.label.kind() else { return };
    let (fits, wanted) = match loss {
        Loss::BinaryCrossEntropy => (matches!(kind, LabelKind::YesNo(_)), "data.label.positive"),
        Loss::CrossEntropy => (matches!(kind, LabelKind::Classes(_)), "data.label.classes"),
        Loss::Mse | Loss::Poisson => (matches!(kind, LabelKind::Number), "a label without positive, classes and time"),
        Loss::Cox => (matches!(kind, LabelKind::Survival(_)), "data.label.time and data.label.positive"),
    };
    let reason = format!("the label is {}; this loss needs {wanted}", kind.words());
    problems.require(fits, format!("{params}.loss"), reason);
    if weights.is_empty() {
        return;
    }
    let place = format!("{params}.class_weights");
    let wanted = match kind {
        LabelKind::YesNo(_) => 2,
        LabelKind::Classes(classes) => classes,
        LabelKind::Number | LabelKind::Survival(_) => {
            problems.add(place, format!("the label is {}, which has no classes", kind.words()));
            return;
        }
    };
    let count = weights.len();
    problems.require(count == wanted, &place, format!("{count} weights for {wanted} classes"));
    let good = weights.iter().all(|w| *w > 0.0 && *w <= 1e6);
    problems.require(good, place, "each weight must be above 0 and at most 1000000");
}

fn check_augment(plan: &Plan, place: &str, augment: &Augment, problems: &mut Problems) {
    let Some(image) = &plan.data.image else {
        problems.add(place, "changes images, and the plan has none; add data.image or leave it out");
        return;
    };
    let most = image.height.min(image.width) / 2;
    problems.require(augment.shift <= most, format!("{place}.shift"), format!("is {}; at most {most}", augment.shift));
    let good = (0.0..=180.0).contains(&augment.rotate);
    problems.require(good, format!("{place}.rotate"), format!("is {}; it must lie between 0 and 180", augment.rotate));
}
