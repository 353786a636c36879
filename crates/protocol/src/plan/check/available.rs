//! What the plan language can say and no site or coordinator of this version can do yet. A line goes when its code comes.

use super::super::label::LabelKind;
use super::super::layer::{Layer, Model};
use super::super::problem::Problems;
use super::super::regress::Family;
use super::super::train::{Loss, Optimizer, Schedule, Start, Strategy};
use super::super::{Component, Plan, graph};

const NOT_YET: &str = "not available in this version";

/// Notes everything in a plan that is not available yet.
pub(super) fn check(plan: &Plan, problems: &mut Problems) {
    let data = &plan.data;
    // A regression's own check knows which labels fit it; networks know one kind.
    let learns =
        |c: &Component| matches!(c, Component::NnTrain(_) | Component::LocalBaseline(_) | Component::Evaluation(_));
    let yes_no = data.label.kind().is_ok_and(|kind| matches!(kind, LabelKind::YesNo(_)));
    let classes = data.label.kind().is_ok_and(|kind| matches!(kind, LabelKind::Classes(_)));
    if classes || !yes_no && plan.tasks.values().any(|task| learns(&task.component)) {
        problems.add("data.label", format!("labels other than yes or no are {NOT_YET} for networks and evaluations"));
    }
    problems.require(data.image.is_none(), "data.image", NOT_YET);
    for (name, task) in &plan.tasks {
        let params = format!("tasks.{name}.params");
        match &task.component {
            Component::Evaluation(_) => check_judged(plan, name, problems),
            Component::NnTrain(train) => {
                let strategy = matches!(train.strategy, Strategy::FedAvg {});
                problems.require(strategy, format!("{params}.strategy.{}", train.strategy.name()), NOT_YET);
                problems.require(train.schedule == Schedule::Constant, format!("{params}.schedule"), NOT_YET);
                problems.require(train.init == Start::Seed, format!("{params}.init"), NOT_YET);
                check_training(&params, (&train.model, train.loss, &train.optimizer, &train.class_weights), problems);
            }
            Component::LocalBaseline(b) => {
                check_training(&params, (&b.model, b.loss, &b.optimizer, &b.class_weights), problems);
            }
            _ => {}
        }
    }
}

/// An evaluation knows nothing of an offset, and judges what says yes or no.
fn check_judged(plan: &Plan, name: &str, problems: &mut Problems) {
    let source = graph::source(plan, &plan.tasks[name], "model").and_then(|source| plan.tasks.get(source.task));
    let Some(Component::Glm(glm)) = source.map(|task| &task.component) else { return };
    let place = format!("tasks.{name}.inputs.model");
    problems.require(glm.offset.is_none(), &place, format!("judging a model with an offset is {NOT_YET}"));
    let binomial = glm.family == Family::Binomial;
    problems.require(binomial, place, format!("judging a regression that is not binomial is {NOT_YET}"));
}

type Training<'a> = (&'a Model, Loss, &'a Optimizer, &'a [f64]);

fn check_training(params: &str, (model, loss, optimizer, weights): Training<'_>, problems: &mut Problems) {
    let good = |layer: &Layer| {
        matches!(layer, Layer::Linear(_) | Layer::Relu {} | Layer::Gelu {} | Layer::Tanh {} | Layer::Sigmoid {})
    };
    if let Some(layer) = model.layers().find(|layer| !good(layer)) {
        problems.add(format!("{params}.model"), format!("{} is {NOT_YET}", layer.name()));
    }
    problems.require(loss == Loss::BinaryCrossEntropy, format!("{params}.loss"), NOT_YET);
    problems.require(!matches!(optimizer, Optimizer::AdamW { .. }), format!("{params}.optimizer.adam_w"), NOT_YET);
    problems.require(weights.is_empty(), format!("{params}.class_weights"), NOT_YET);
}
