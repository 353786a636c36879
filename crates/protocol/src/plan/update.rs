//! Which tensors travel in a round of training, and which stay at the site.

use super::layer::{Layer, Model};
use super::model::{self, Inputs, Placed, TensorShape};
use super::train::{NnTrain, Strategy};
use crate::canon;

/// What the names of control variates begin with.
pub const CONTROL: &str = "control.";

/// Name of what follows the tensors of an update where training can end early: see [`EarlyStop::entries`].
///
/// [`EarlyStop::entries`]: super::EarlyStop::entries
pub const VALIDATION_LOSS: &str = "validation.loss";

/// Tensors of an update of this training task, in order: those of the model that a round starts from, and what is told of
/// its loss.
pub fn update_tensors(train: &NnTrain, inputs: impl Into<Inputs>) -> Vec<TensorShape> {
    let mut list = tensors(train, inputs);
    if train.early_stop.is_some() {
        list.push(TensorShape { name: VALIDATION_LOSS.to_owned(), shape: vec![2] });
    }
    list
}

/// Tensors of the model that a round of this training task starts from, in order: those of the model
/// without the ones that stay at the site; with `scaffold` then a control variate for each trained one.
pub fn tensors(train: &NnTrain, inputs: impl Into<Inputs>) -> Vec<TensorShape> {
    let placed = model::place(&train.model, inputs).0;
    let travels = |layer: &&Placed| !stays(&train.strategy, layer);
    let mut list: Vec<TensorShape> = placed.iter().filter(travels).flat_map(|layer| layer.tensors.clone()).collect();
    if let Strategy::Scaffold { .. } = train.strategy {
        let trained = placed.iter().flat_map(|layer| &layer.tensors[..layer.trained]);
        list.extend(trained.map(|t| TensorShape { name: format!("{CONTROL}{}", t.name), shape: t.shape.clone() }));
    }
    list
}

/// What a tensor of an update is to the coordinator's optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A parameter that is trained.
    Trained,
    /// A running figure, such as a mean of a batch norm layer: averaged, never stepped along a gradient.
    Running,
    /// A control variate.
    Control,
}

/// What each of [`tensors`] is, in their order.
pub fn parts(train: &NnTrain, inputs: impl Into<Inputs>) -> Vec<Part> {
    let placed = model::place(&train.model, inputs).0;
    let travels = |layer: &&Placed| !stays(&train.strategy, layer);
    let of = |layer: &Placed| {
        let running = layer.tensors.len() - layer.trained;
        let trained = std::iter::repeat_n(Part::Trained, layer.trained);
        trained.chain(std::iter::repeat_n(Part::Running, running)).collect::<Vec<_>>()
    };
    let mut list: Vec<Part> = placed.iter().filter(travels).flat_map(of).collect();
    if let Strategy::Scaffold { .. } = train.strategy {
        list.extend(placed.iter().flat_map(|layer| std::iter::repeat_n(Part::Control, layer.trained)));
    }
    list
}

/// Tensors of the model that the task ends with: those of a round without control variates.
pub fn model_tensors(train: &NnTrain, inputs: impl Into<Inputs>) -> Vec<TensorShape> {
    let mut list = tensors(train, inputs);
    list.retain(|tensor| !tensor.name.starts_with(CONTROL));
    list
}

/// Tensors of the model that stay at each site and are its own, in order.
pub fn kept(train: &NnTrain, inputs: impl Into<Inputs>) -> Vec<TensorShape> {
    let placed = model::place(&train.model, inputs).0;
    placed.into_iter().filter(|layer| stays(&train.strategy, layer)).flat_map(|layer| layer.tensors).collect()
}

/// The seed from which the model is drawn that a study's run with this number, from 1, starts from. It is the plan's; with
/// masks each later run has one of its own, and so has each run after the coordinator was restored, because one whose number
/// it gives again may be lost with the backup. It follows from the plan's seed, the number and the epoch: sites that trained
/// from one model over one set of sites do not train from it over another.
pub fn starting_seed(train: &NnTrain, seed: u64, run: u32, epoch: u64) -> u64 {
    if train.privacy.is_plain() || (run <= 1 && epoch <= 1) {
        return seed;
    }
    let mut material = [&seed.to_le_bytes()[..], &run.to_le_bytes()[..]].concat();
    if epoch > 1 {
        material.extend(epoch.to_le_bytes());
    }
    let drawn = canon::digest("starting-seed", 1, &material);
    drawn.as_bytes().first_chunk::<8>().map_or(seed, |chunk| u64::from_le_bytes(*chunk))
}

/// Initial values of [`tensors`], one after the other in order; control variates begin at 0.
pub fn initial(train: &NnTrain, inputs: Inputs, seed: u64) -> impl Iterator<Item = f32> + use<> {
    let controls: u64 =
        tensors(train, inputs).iter().filter(|t| t.name.starts_with(CONTROL)).map(TensorShape::len).sum();
    let zeros = (0..controls).map(|_| 0.0);
    drawn(train, inputs, seed, false).chain(zeros)
}

/// Initial values of [`kept`], one after the other in order.
pub fn initial_kept(train: &NnTrain, inputs: Inputs, seed: u64) -> Vec<f32> {
    drawn(train, inputs, seed, true).collect()
}

/// The initial values of the layers that stay at the site, or of the others. Every layer takes its part of the stream.
fn drawn(train: &NnTrain, inputs: Inputs, seed: u64, kept: bool) -> impl Iterator<Item = f32> + use<> {
    let placed = model::place(&train.model, inputs).0;
    let runs: Vec<(u64, bool)> = placed
        .iter()
        .map(|layer| (layer.tensors.iter().map(TensorShape::len).sum(), stays(&train.strategy, layer) == kept))
        .collect();
    let mut values = model::initial_values(&train.model, inputs, seed);
    let mut wanted = runs.into_iter().flat_map(|(entries, wanted)| (0..entries).map(move |_| wanted));
    std::iter::from_fn(move || {
        loop {
            let value = values.next()?;
            if wanted.next()? {
                return Some(value);
            }
        }
    })
}

fn stays(strategy: &Strategy, layer: &Placed) -> bool {
    match strategy {
        Strategy::FedBn {} => matches!(layer.layer, Layer::BatchNorm(_)),
        Strategy::Personal { layers } => layers.contains(&layer.name),
        _ => false,
    }
}

/// Names of a model's layers, in order.
pub(super) fn names(model: &Model) -> Vec<String> {
    match model {
        Model::Layers(layers) => (0..layers.len()).map(|i| i.to_string()).collect(),
        Model::Graph(graph) => graph.graph.iter().map(|node| node.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{BatchNorm, Init, Linear, LocalWork, Loss, Optimizer, Privacy, Quantise, Schedule, Start};

    fn train(strategy: Strategy) -> NnTrain {
        let linear = |out| Layer::Linear(Linear { out, bias: true, init: Init::TorchDefault });
        NnTrain {
            model: vec![linear(4), Layer::BatchNorm(BatchNorm::default()), linear(1)].into(),
            loss: Loss::BinaryCrossEntropy,
            class_weights: Vec::new(),
            optimizer: Optimizer::Sgd { lr: 0.1, momentum: 0.0 },
            schedule: Schedule::Constant,
            init: Start::Seed,
            augment: None,
            rounds: 1,
            early_stop: None,
            local: LocalWork { updates: 1, batch: 1 },
            strategy,
            privacy: Privacy::Plain {},
            quantise: Quantise::default(),
            dp: None,
            top_k: None,
        }
    }

    fn names(list: &[TensorShape]) -> Vec<&str> {
        list.iter().map(|t| t.name.as_str()).collect()
    }

    #[test]
    fn what_stays_and_what_travels_are_the_model_together() {
        let all = train(Strategy::FedAvg {});
        let full: Vec<f32> = initial(&all, 3.into(), 7).collect();
        assert_eq!(full, model::initial(&all.model, 3u64, 7));
        for strategy in [Strategy::FedBn {}, Strategy::Personal { layers: vec!["2".into()] }] {
            let train = train(strategy);
            let travels: Vec<f32> = initial(&train, 3.into(), 7).collect();
            let stays = initial_kept(&train, 3.into(), 7);
            assert_eq!(travels.len() + stays.len(), full.len());
            let lengths =
                |list: Vec<TensorShape>| list.iter().map(|t| usize::try_from(t.len()).unwrap()).sum::<usize>();
            assert_eq!((travels.len(), stays.len()), (lengths(tensors(&train, 3u64)), lengths(kept(&train, 3u64))));
        }
        let bn = train(Strategy::FedBn {});
        assert_eq!(names(&kept(&bn, 3u64)), ["1.weight", "1.bias", "1.running_mean", "1.running_var"]);
        assert_eq!(names(&tensors(&bn, 3u64)), ["0.weight", "0.bias", "2.weight", "2.bias"]);
        assert_eq!(initial_kept(&bn, 3.into(), 7), [[1.0f32; 4], [0.0; 4], [0.0; 4], [1.0; 4]].concat());
    }

    #[test]
    fn each_later_run_under_masks_starts_from_a_model_of_its_own() {
        let mut train = train(Strategy::FedAvg {});
        assert_eq!([1, 2, 3].map(|run| starting_seed(&train, 7, run, u64::from(run))), [7; 3]);
        train.privacy = Privacy::SecureAggregation {};
        let seeds = [1, 2, 3].map(|run| starting_seed(&train, 7, run, 1));
        assert_eq!(seeds[0], 7, "the first run is the one that the plan tells");
        assert!(seeds[1] != 7 && seeds[2] != 7 && seeds[1] != seeds[2], "{seeds:?}");
        assert_eq!(seeds[1], starting_seed(&train, 7, 2, 1), "it can be drawn again");
        // A coordinator that was restored may give a number again.
        let restored = [1, 2].map(|run| starting_seed(&train, 7, run, 2));
        assert!(restored.iter().all(|seed| !seeds.contains(seed)) && restored[0] != restored[1], "{restored:?}");
    }

    #[test]
    fn a_loss_travels_behind_the_model_and_is_no_part_of_it() {
        let mut train = train(Strategy::FedAvg {});
        assert_eq!(update_tensors(&train, 3u64), tensors(&train, 3u64));
        train.early_stop = Some(crate::plan::EarlyStop { patience: 1, min_delta: 0.0, ceiling: 1.0 });
        let (update, model) = (update_tensors(&train, 3u64), tensors(&train, 3u64));
        assert_eq!((&update[..model.len()], names(&update[model.len()..])), (&model[..], vec![VALIDATION_LOSS]));
        assert_eq!(parts(&train, 3u64).len(), model.len());
    }

    #[test]
    fn scaffold_adds_a_control_variate_for_each_trained_tensor_and_drops_them_at_the_end() {
        let train = train(Strategy::Scaffold { lr: 1.0 });
        let list = tensors(&train, 3u64);
        let controls: Vec<&str> = names(&list).into_iter().filter(|n| n.starts_with(CONTROL)).collect();
        let trained = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"];
        assert_eq!(controls, trained.map(|name| format!("{CONTROL}{name}")));
        let values: Vec<f32> = initial(&train, 3.into(), 7).collect();
        let length: u64 = list.iter().map(TensorShape::len).sum();
        assert_eq!(values.len() as u64, length);
        assert_eq!(values[37..], [0.0; 29]);
        let parts = parts(&train, 3u64);
        assert_eq!(parts.len(), list.len());
        for (tensor, part) in list.iter().zip(parts) {
            let wanted = match tensor.name.as_str() {
                name if name.starts_with(CONTROL) => Part::Control,
                name if name.contains("running") => Part::Running,
                _ => Part::Trained,
            };
            assert_eq!(part, wanted, "{}", tensor.name);
        }
        assert!(names(&model_tensors(&train, 3u64)).iter().all(|n| !n.starts_with(CONTROL)));
    }
}
