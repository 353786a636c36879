use crate::device::Compute;
use hospes_protocol::plan::model::initial;
use hospes_protocol::plan::{
    BatchNorm, Conv, Dropout, Embedding, Feature, Graph, Init, Layer, Linear, Loss, Model, Node, Optimizer, Pool,
    Select,
};

use super::*;
use crate::component::Pixels;

#[test]
fn progress_is_the_same_for_any_number_of_rows() {
    let told = |work: Work| -> Vec<u32> {
        let mut told: Vec<u32> = (1..=work.total()).map(|step| work.hundredths(step)).collect();
        told.dedup();
        told.retain(|done| *done > 0);
        told
    };
    let epochs = |steps| told(Work { units: 50, steps });
    assert_eq!(epochs(1), (1..=50).map(|n| n * 2).collect::<Vec<_>>());
    assert_eq!(epochs(7), epochs(99));
    assert_eq!(epochs(1_000), epochs(12_345));
    assert_eq!(epochs(1_000), (1..=100).collect::<Vec<_>>());
    assert_eq!(told(Work { units: 3, steps: 1 }), [33, 66, 100]);
}

fn linear(out: u32) -> Layer {
    Layer::Linear(Linear { out, bias: true, init: Init::TorchDefault })
}

fn conv(out: u32) -> Layer {
    Layer::Conv2d(Conv { out, kernel: 3, stride: 1, padding: 1, bias: false })
}

fn norm() -> Layer {
    Layer::BatchNorm(BatchNorm::default())
}

fn pool() -> Layer {
    Layer::MaxPool(Pool { kernel: 2, stride: None, padding: 0 })
}

/// As the preset `cnn_small`.
fn cnn(widths: [u32; 2], hidden: u32, out: u32) -> Model {
    let block = |width| [conv(width), norm(), Layer::Relu {}, pool()];
    let end = [Layer::Flatten {}, linear(hidden), Layer::Relu {}, linear(out)];
    [block(widths[0]), block(widths[1]), end].concat().into()
}

/// Residual blocks with dropout.
fn residual(width: u32, blocks: u32) -> Model {
    let mut graph = Vec::new();
    let mut add = |name: String, layer: Layer, from: &[String]| {
        graph.push(Node { name, layer, from: from.to_vec() });
    };
    add("stem".into(), conv(width), &[]);
    let mut last = "stem".to_owned();
    for block in 0..blocks {
        add(format!("a{block}"), conv(width), std::slice::from_ref(&last));
        add(format!("b{block}"), norm(), &[]);
        add(format!("c{block}"), Layer::Relu {}, &[]);
        add(format!("d{block}"), Layer::Dropout(Dropout { rate: 0.3 }), &[]);
        add(format!("e{block}"), conv(width), &[]);
        add(format!("f{block}"), norm(), &[]);
        add(format!("g{block}"), Layer::Add {}, &[format!("f{block}"), last.clone()]);
        add(format!("h{block}"), Layer::Relu {}, &[]);
        last = format!("h{block}");
    }
    add("pool".into(), Layer::GlobalPool {}, &[]);
    add("head".into(), linear(2), &[]);
    Model::Graph(Graph { graph })
}

/// Numbers from -0.5 to 0.5, the same for a seed.
pub(in crate::train) fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

fn table(rows: usize, columns: usize) -> Matrix {
    let values = noise(rows * columns, 3);
    let label = |row: &[f32]| f32::from(row.iter().sum::<f32>() > 0.0);
    let labels = values.chunks(columns).map(label).collect();
    let columns = (0..columns).map(|i| Feature { name: format!("x{i}"), codes: None }).collect();
    Matrix { rows, columns, values, labels, times: Vec::new(), images: None, origin: vec![0; rows] }
}

/// Noise with a bright square: in the upper left for one class, in the lower right for the other.
fn pictures(rows: usize, side: usize) -> Matrix {
    let grey = noise(rows * side * side, 11);
    #[allow(clippy::cast_possible_truncation)]
    let mut bytes: Vec<u8> = grey.iter().map(|v| ((v + 0.5) * 120.0) as u8).collect();
    for (row, image) in bytes.chunks_mut(side * side).enumerate() {
        let from = if row.is_multiple_of(2) { 1 } else { side / 2 + 1 };
        for r in from..from + side / 3 {
            image[r * side + from..r * side + from + side / 3].iter_mut().for_each(|v| *v = v.saturating_add(110));
        }
    }
    let labels = (0..rows).map(|row| (row % 2) as f32).collect();
    let images = Some(Pixels { shape: [1, side, side], bytes });
    Matrix { rows, columns: Vec::new(), values: Vec::new(), labels, times: Vec::new(), images, origin: vec![0; rows] }
}

struct Trial<'a> {
    model: &'a Model,
    data: &'a Matrix,
    loss: Loss,
    optimizer: Optimizer,
    batch: u32,
    updates: u32,
    augment: Option<Augment>,
}

impl Trial<'_> {
    fn run(&self, correction: Correction) -> Network {
        let start = initial(self.model, self.data.inputs(), 1);
        let mut network = Network::new(self.model, self.data, &start, &Compute::processor()).unwrap();
        let mut step = Step::new(&self.optimizer, 1.0);
        let course = Course {
            goal: &Goal::new(self.loss, &[]),
            augment: self.augment.as_ref(),
            batch: self.batch,
            work: Work { units: self.updates, steps: 1 },
            schedule: &Schedule::Constant,
            draws: Draws { seed: 5, site: b"site", task: "train", round: 1 },
            correction,
        };
        let now = || Timestamp::from_millis(0);
        let mut pulse = Pulse { now: &now, progress: &mut |_| true };
        train(&mut network, &mut step, self.data, course, Timestamp::from_millis(1), &mut pulse).unwrap();
        network
    }

    fn with_threads(&self, threads: usize) -> Vec<u32> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| self.run(Correction::None).parameters().iter().map(|p| p.to_bits()).collect())
    }

    fn gives_the_same_bytes_for_any_number_of_threads(&self) {
        let one = self.with_threads(1);
        assert!(one.iter().all(|bits| f32::from_bits(*bits).is_finite()));
        assert!(one == self.with_threads(2), "two threads");
        assert!(one == self.with_threads(7), "seven threads");
    }
}

fn adam() -> Optimizer {
    Optimizer::Adam { lr: 0.01 }
}

#[test]
fn a_wide_network_gives_the_same_bytes_for_any_number_of_threads() {
    let model = vec![linear(256), Layer::Relu {}, linear(128), Layer::Gelu {}, linear(1)].into();
    let data = table(2_048, 96);
    Trial {
        model: &model,
        data: &data,
        loss: Loss::BinaryCrossEntropy,
        optimizer: adam(),
        batch: 1_024,
        updates: 3,
        augment: None,
    }
    .gives_the_same_bytes_for_any_number_of_threads();
}

/// Batches of many rows with few codes, so that every vector gets the gradients of many rows at once.
#[test]
fn vectors_of_codes_are_the_same_bytes_for_any_number_of_threads() {
    let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut graph: Vec<Node> = Vec::new();
    let mut add = |name: &str, layer: Layer, from: &[&str]| {
        let from = from.iter().map(|from| (*from).to_owned()).collect();
        graph.push(Node { name: name.to_owned(), layer, from });
    };
    add("codes", Layer::Select(Select::Columns(columns(&["x5", "x2"]))), &[]);
    add("vectors", Layer::Embedding(Embedding { codes: 3, out: 64 }), &[]);
    add("flat", Layer::Flatten {}, &[]);
    add("numbers", Layer::Select(Select::Except(columns(&["x2", "x5"]))), &["features"]);
    add("both", Layer::Concat {}, &["flat", "numbers"]);
    add("wide", linear(128), &[]);
    add("bent", Layer::Relu {}, &[]);
    add("head", linear(1), &[]);
    let (model, mut data) = (Model::Graph(Graph { graph }), table(2_048, 40));
    for column in [2, 5] {
        data.columns[column].codes = Some(3);
        data.values.chunks_mut(40).enumerate().for_each(|(row, values)| values[column] = (row * column % 3) as f32);
    }
    Trial {
        model: &model,
        data: &data,
        loss: Loss::BinaryCrossEntropy,
        optimizer: adam(),
        batch: 1_024,
        updates: 3,
        augment: None,
    }
    .gives_the_same_bytes_for_any_number_of_threads();
}

#[test]
fn a_convolutional_network_gives_the_same_bytes_for_any_number_of_threads() {
    let augment = Some(Augment { flip: true, shift: 2, rotate: 10.0 });
    let (model, data) = (cnn([16, 32], 64, 2), pictures(96, 28));
    Trial { model: &model, data: &data, loss: Loss::CrossEntropy, optimizer: adam(), batch: 32, updates: 3, augment }
        .gives_the_same_bytes_for_any_number_of_threads();
}

#[test]
fn a_residual_network_with_dropout_gives_the_same_bytes_for_any_number_of_threads() {
    let (model, data) = (residual(8, 2), pictures(64, 16));
    let optimizer = Optimizer::Sgd { lr: 0.05, momentum: 0.9 };
    Trial { model: &model, data: &data, loss: Loss::CrossEntropy, optimizer, batch: 16, updates: 5, augment: None }
        .gives_the_same_bytes_for_any_number_of_threads();
}

/// With a factor of next to nothing, later epochs leave what the first ones gave.
#[test]
fn a_schedule_changes_the_rate_from_epoch_to_epoch() {
    let (model, data) = (Model::Layers(vec![linear(1)]), table(64, 3));
    let after = |epochs: u32, schedule: &Schedule| {
        let start = initial(&model, 3u64, 1);
        let mut network = Network::new(&model, &data, &start, &Compute::processor()).unwrap();
        let mut step = Step::new(&Optimizer::Sgd { lr: 0.5, momentum: 0.0 }, 1.0);
        let course = Course {
            goal: &Goal::new(Loss::BinaryCrossEntropy, &[]),
            augment: None,
            batch: 16,
            work: Work { units: epochs, steps: 4 },
            schedule,
            draws: Draws { seed: 5, site: b"site", task: "alone", round: 1 },
            correction: Correction::None,
        };
        let now = || Timestamp::from_millis(0);
        let mut pulse = Pulse { now: &now, progress: &mut |_| true };
        train(&mut network, &mut step, &data, course, Timestamp::from_millis(1), &mut pulse).unwrap();
        network.parameters()
    };
    let constant = |epochs| after(epochs, &Schedule::Constant);
    assert_ne!(constant(3), constant(2));
    assert_eq!(after(4, &Schedule::Step { every: 2, factor: 1e-30 }), constant(2));
    // The second of two is half way down a cosine.
    let half = after(2, &Schedule::Cosine { floor: 0.0 });
    assert_eq!(half, after(2, &Schedule::Step { every: 1, factor: 0.5 }));
    assert!(half != constant(2) && half != constant(1));
}

/// Activations of 64 · 32 · 48 · 48 = 4.7 million numbers: more than 2²², from which Burn's full sum would differ.
#[test]
fn a_residual_network_with_large_activations_gives_the_same_bytes_for_any_number_of_threads() {
    let (model, data) = (residual(32, 1), pictures(64, 48));
    let optimizer = Optimizer::Sgd { lr: 0.05, momentum: 0.9 };
    Trial { model: &model, data: &data, loss: Loss::CrossEntropy, optimizer, batch: 64, updates: 1, augment: None }
        .gives_the_same_bytes_for_any_number_of_threads();
}

#[test]
fn a_small_convolutional_network_learns_where_a_square_is() {
    let (model, data) = (cnn([4, 8], 16, 2), pictures(200, 12));
    let trial = |augment| Trial {
        model: &model,
        data: &data,
        loss: Loss::CrossEntropy,
        optimizer: adam(),
        batch: 20,
        updates: 40,
        augment,
    };
    for augment in [None, Some(Augment { flip: false, shift: 1, rotate: 5.0 })] {
        let network = trial(augment).run(Correction::None);
        let logits = network.logits(&data);
        let right = logits.chunks(2).zip(&data.labels).filter(|(z, label)| (z[1] > z[0]) == (**label > 0.5)).count();
        assert!(right >= 196, "{right} of 200");
    }
}

#[test]
fn the_proximal_term_pulls_back_to_where_the_round_began_and_a_control_variate_shifts_each_step() {
    let (model, data) = (Model::Layers(vec![linear(1)]), table(64, 3));
    let optimizer = Optimizer::Sgd { lr: 0.5, momentum: 0.0 };
    let trial = Trial {
        model: &model,
        data: &data,
        loss: Loss::BinaryCrossEntropy,
        optimizer,
        batch: 64,
        updates: 30,
        augment: None,
    };
    let start = initial(&model, 3u64, 1);
    let far = |correction| -> f64 {
        let after = trial.run(correction).parameters();
        after.iter().zip(&start).map(|(a, s)| f64::from(a - s).powi(2)).sum::<f64>().sqrt()
    };
    let (free, pulled) = (far(Correction::None), far(Correction::Proximal { mu: 1.0 }));
    assert!(pulled < 0.5 * free, "{pulled} {free}");
    assert!((far(Correction::Proximal { mu: 0.0 }) - free).abs() < 1e-6);
    // One step with a shift of the gradient moves by the learning rate times it.
    let one = Trial { updates: 1, optimizer: Optimizer::Sgd { lr: 0.5, momentum: 0.0 }, ..trial };
    let (plain, shifted) = (one.run(Correction::None), one.run(Correction::Control(vec![0.1, 0.0, -0.2, 0.3])));
    let moved: Vec<f32> = shifted.parameters().iter().zip(plain.parameters()).map(|(s, p)| s - p).collect();
    assert!(moved.iter().zip([-0.05, 0.0, 0.1, -0.15]).all(|(m, e): (&f32, f32)| (m - e).abs() < 1e-6), "{moved:?}");
}
