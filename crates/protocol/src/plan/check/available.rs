//! What the plan language can say and no site or coordinator of this version can do yet. A line goes when its code comes.

use super::super::layer::{Layer, Model};
use super::super::problem::Problems;
use super::super::train::{Loss, Optimizer, Schedule, Start, Strategy};
use super::super::{Component, Plan};

const NOT_YET: &str = "not available in this version";

/// Notes everything in a plan that is not available yet.
pub(super) fn check(plan: &Plan, problems: &mut Problems) {
    for (name, task) in &plan.tasks {
        let params = format!("tasks.{name}.params");
        match &task.component {
            Component::Glm(_) | Component::Cox(_) => problems.add(format!("tasks.{name}.component"), NOT_YET),
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
