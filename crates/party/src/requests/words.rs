//! Models, optimisers and strategies in plain words.

use hospes_protocol::plan::{
    Component, Evaluation, Family, Layer, Model, NnTrain, Optimizer, Privacy, Select, Strategy,
};
use hospes_protocol::text::shown;

pub(super) fn optimizer(optimizer: &Optimizer) -> String {
    match optimizer {
        Optimizer::Sgd { lr, momentum } if *momentum == 0.0 => format!("gradient descent, learning rate {lr}"),
        Optimizer::Sgd { lr, momentum } => format!("gradient descent, learning rate {lr}, momentum {momentum}"),
        Optimizer::Adam { lr } => format!("Adam, learning rate {lr}"),
        Optimizer::AdamW { lr, weight_decay } => format!("Adam, learning rate {lr}, weight decay {weight_decay}"),
    }
}

/// A model's layers, as expanded.
pub(super) fn graph(model: &Model) -> String {
    let (number, list) = match model {
        Model::Layers(layers) => (layers.len(), layers.iter().map(layer).collect::<Vec<_>>().join(" → ")),
        Model::Graph(graph) => {
            let named = graph.graph.iter().map(|node| match node.from.as_slice() {
                [] => format!("{}: {}", node.name, layer(&node.layer)),
                from => format!("{}: {} of {}", node.name, layer(&node.layer), from.join(" and ")),
            });
            (graph.graph.len(), named.collect::<Vec<_>>().join("; "))
        }
    };
    format!("a model of {number} layers [{list}]")
}

fn layer(layer: &Layer) -> String {
    let bias = |bias: bool| if bias { "" } else { " without bias" };
    match layer {
        Layer::Linear(l) => format!("linear to {}{}", l.out, bias(l.bias)),
        Layer::Select(Select::Columns(columns)) => format!("the columns {}", shown(&columns.join(", "), 400)),
        Layer::Select(Select::Except(columns)) => format!("all columns but {}", shown(&columns.join(", "), 400)),
        Layer::Embedding(e) => {
            let learned = "each learned from the rows with its code alone";
            format!("vectors of {} numbers for {} codes, {learned}", e.out, e.codes)
        }
        Layer::Conv1d(c) | Layer::Conv2d(c) => {
            format!(
                "{} to {} channels, windows of {}, every {}{}",
                layer.name(),
                c.out,
                c.kernel,
                c.stride,
                bias(c.bias)
            )
        }
        Layer::MaxPool(p) | Layer::AvgPool(p) => format!("{} over {}", layer.name().replace('_', " "), p.kernel),
        Layer::GroupNorm(n) => format!("norm of {} groups", n.groups),
        Layer::Dropout(d) => format!("dropout {}", d.rate),
        Layer::Reshape(r) => format!("reshape to {:?}", r.shape),
        Layer::GlobalPool {}
        | Layer::BatchNorm(_)
        | Layer::LayerNorm {}
        | Layer::Relu {}
        | Layer::Gelu {}
        | Layer::Tanh {}
        | Layer::Sigmoid {}
        | Layer::Flatten {}
        | Layer::Add {}
        | Layer::Concat {} => layer.name().replace('_', " "),
    }
}

/// What the coordinator does with the updates.
pub(super) fn strategy(strategy: &Strategy) -> String {
    match strategy {
        Strategy::FedAvg {} => "averaged over the sites".to_owned(),
        Strategy::FedProx { mu } => format!("averaged over the sites, each held near the common model (mu {mu})"),
        Strategy::Scaffold { .. } => {
            "averaged over the sites; this site also sends the mean of its gradients, which corrects for differences \
             between sites"
                .to_owned()
        }
        Strategy::FedAdam(_) | Strategy::FedYogi(_) | Strategy::FedAdagrad(_) => {
            format!("averaged over the sites and applied by the coordinator's own optimiser ({})", strategy.name())
        }
        Strategy::Cyclic {} => {
            "one site after the other: the next site starts from this site's model and can read what changed".to_owned()
        }
        Strategy::FedBn {} => "averaged over the sites, but for batch norm layers, which stay here".to_owned(),
        Strategy::Personal { layers } => {
            format!("averaged over the sites, but for these layers, which stay here: {}", layers.join(", "))
        }
        Strategy::NormBound { norm_l2 } => format!("averaged over the sites, none with a norm above {norm_l2}"),
        Strategy::Median {} => "of which the coordinator takes the median, entry by entry".to_owned(),
        Strategy::TrimmedMean { trim } => {
            format!("of which the coordinator takes the mean without the outer {:.0} % at each end", trim * 100.0)
        }
        Strategy::MultiKrum { keep, .. } => {
            format!("of which the coordinator takes the mean of the {keep} closest ones")
        }
    }
}

pub(super) fn family(family: Family) -> &'static str {
    match family {
        Family::Gaussian => "linear",
        Family::Binomial => "logistic",
        Family::Poisson => "Poisson",
    }
}

/// What training does, and what protects it.
pub(super) fn training(t: &NnTrain) -> String {
    let protection = match t.privacy {
        Privacy::Plain {} => "the coordinator can read each site's update",
        Privacy::SecureAggregation {} => "updates are masked: the coordinator can read their sum only",
    };
    let early = t.early_stop.as_ref().map_or_else(String::new, |stop| {
        format!(
            ", ends earlier if the loss has not become better for {} rounds, for which each update tells this site's \
             loss on its rows for validation",
            stop.patience
        )
    });
    if let Some(dp) = &t.dp {
        return format!(
            "trains {} in {} rounds of {} steps, each of which draws every patient with a chance of {}, cuts what one of \
             them changes to a length of {} and adds noise ({}), {}; {protection}",
            graph(&t.model),
            t.rounds,
            t.local.updates,
            dp.sampling_rate,
            dp.clip_norm_l2,
            optimizer(&t.optimizer),
            strategy(&t.strategy)
        );
    }
    // No loss is told in few bits, so that only one of the two is ever said.
    let few = match t.top_k {
        Some(part) => format!(
            ", of each update the largest {:.1} % in {} bits, while the rest stays here for the next round",
            part * 100.0,
            t.quantise.bits
        ),
        None if t.quantise.bits < 32 => format!(", each number in {} bits, rounded by chance", t.quantise.bits),
        None => String::new(),
    };
    format!(
        "trains {} in {}{} rounds of {} steps with {} rows each ({}), {}{}; {protection}",
        graph(&t.model),
        if t.early_stop.is_some() { "at most " } else { "" },
        t.rounds,
        t.local.updates,
        t.local.batch,
        optimizer(&t.optimizer),
        strategy(&t.strategy),
        early + &few
    )
}

/// Who can read the sums of a regression.
pub(super) fn sums(component: &Component) -> &'static str {
    if component.is_masked() { MASKED } else { "the coordinator can read each site's sums" }
}

/// What is said of figures that are masked; of others nothing, the review says first that they can be read.
pub(super) fn masked(component: &Component) -> &'static str {
    if component.is_masked() {
        "; the figures are masked: the coordinator can read their sums over all sites only"
    } else {
        ""
    }
}

const MASKED: &str = "the sums are masked: the coordinator can read those over all sites only";

/// What is measured of a model.
pub(super) fn evaluation(e: &Evaluation, masked: &str) -> String {
    let by = |column: &String| {
        format!(
            ", and the same for each code of '{}': a code with few patients, or whose patients would follow from the \
             others, is withheld",
            shown(column, 100)
        )
    };
    format!(
        "measures the model on this site's rows: errors, confusion at {}, score histograms, {} calibration bins, \
         slope and intercept of the calibration with their precision{}{masked}",
        e.threshold,
        e.calibration_bins,
        e.subgroup.as_ref().map_or_else(String::new, by)
    )
}
