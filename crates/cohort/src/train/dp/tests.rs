use burn::tensor::Device;
use hospes_protocol::plan::model::{initial, place};
use hospes_protocol::plan::{
    BatchNorm, Conv, Dropout, Embedding, Feature, Graph, GroupNorm, Init, Layer, Linear, Loss, Model, Node, Optimizer,
    Pool, Reshape, Select,
};

use super::*;
use crate::component::Pixels;
use crate::device::Compute;
use crate::train::convolution::{self, Kept, Window};
use crate::train::layers::{Apart, SHORTFALL, squares};
use crate::train::stream;
use crate::train::tests::noise;

fn linear(out: u32) -> Layer {
    Layer::Linear(Linear { out, bias: true, init: Init::TorchDefault })
}

fn without_bias(out: u32) -> Layer {
    Layer::Linear(Linear { out, bias: false, init: Init::TorchDefault })
}

fn conv(out: u32, kernel: u32, stride: u32, padding: u32) -> Conv {
    Conv { out, kernel, stride, padding, bias: true }
}

fn groups(groups: u32) -> Layer {
    Layer::GroupNorm(GroupNorm { groups })
}

fn pool(kernel: u32, stride: u32, padding: u32) -> Pool {
    Pool { kernel, stride: Some(stride), padding }
}

fn reshape(shape: &[u32]) -> Layer {
    Layer::Reshape(Reshape { shape: shape.to_vec() })
}

fn node(name: &str, layer: Layer, from: &[&str]) -> Node {
    Node { name: name.into(), layer, from: from.iter().map(|f| (*f).to_owned()).collect() }
}

/// Rows of noise with labels that fit the loss.
fn rows(rows: usize, columns: usize, image: Option<[usize; 3]>, loss: Loss) -> Matrix {
    let label = |i: usize| match loss {
        Loss::BinaryCrossEntropy | Loss::Cox => f32::from(i.is_multiple_of(3)),
        Loss::CrossEntropy => [0.0, 2.0, 1.0][i % 3],
        Loss::Mse => 0.5 * i as f32 - 1.0,
        Loss::Poisson => (i % 4) as f32,
    };
    let images = image.map(|shape| {
        let bytes = noise(rows * shape.iter().product::<usize>(), 9);
        #[allow(clippy::cast_possible_truncation)]
        let bytes = bytes.iter().map(|v| ((v + 0.5) * 255.0) as u8).collect();
        Pixels { shape, bytes }
    });
    Matrix {
        rows,
        columns: (0..columns).map(|i| Feature { name: format!("x{i}"), codes: None }).collect(),
        values: noise(rows * columns, 1),
        labels: (0..rows).map(label).collect(),
        times: (0..rows).map(|i| i as f32).collect(),
        images,
        origin: vec![0; rows],
    }
}

/// A residual block within another one on an image, beside two embeddings and the features.
fn joined() -> (Model, Matrix) {
    let graph = vec![
        node("stem", Layer::Conv2d(conv(4, 3, 1, 1)), &["image"]),
        node("stem_norm", groups(2), &[]),
        node("stem_bent", Layer::Gelu {}, &[]),
        node("outer", Layer::Conv2d(conv(4, 3, 1, 1)), &[]),
        node("outer_bent", Layer::Tanh {}, &[]),
        node("inner", Layer::Conv2d(conv(4, 1, 1, 0)), &[]),
        node("drop", Layer::Dropout(Dropout { rate: 0.3 }), &[]),
        node("inner_sum", Layer::Add {}, &["drop", "outer_bent"]),
        node("outer_sum", Layer::Add {}, &["inner_sum", "stem_bent", "inner_sum"]),
        node("mean", Layer::GlobalPool {}, &[]),
        node("codes", Layer::Embedding(Embedding { codes: 3, out: 2 }), &["features"]),
        node("flat", Layer::Flatten {}, &[]),
        node("unused", linear(2), &["features"]),
        node("numbers", Layer::Select(Select::Columns(vec!["x1".to_owned()])), &["features"]),
        node("both", Layer::Concat {}, &["mean", "flat", "numbers"]),
        node("head", linear(1), &[]),
    ];
    let mut data = rows(9, 2, Some([1, 5, 5]), Loss::BinaryCrossEntropy);
    // The same code twice in some rows.
    data.values.iter_mut().enumerate().for_each(|(i, v)| *v = (i * 5 % 3).min(i % 4).min(2) as f32);
    (Model::Graph(Graph { graph }), data)
}

/// Every layer that has parameters or goes between such, with windows of all kinds.
fn cases() -> Vec<(&'static str, Model, Matrix, Loss)> {
    let end = |mut layers: Vec<Layer>, out: u32| -> Model {
        layers.extend([Layer::Flatten {}, linear(out)]);
        layers.into()
    };
    let features = |columns, loss| rows(9, columns, None, loss);
    let images = |shape, loss| rows(9, 0, Some(shape), loss);
    let (joined, joined_rows) = joined();
    vec![
        (
            "linear",
            vec![linear(6), Layer::LayerNorm {}, Layer::Tanh {}, without_bias(4), Layer::Gelu {}, linear(1)].into(),
            features(3, Loss::Mse),
            Loss::Mse,
        ),
        (
            "conv1d",
            end(vec![reshape(&[2, 6]), Layer::Conv1d(conv(3, 3, 2, 1)), Layer::Sigmoid {}], 3),
            features(12, Loss::CrossEntropy),
            Loss::CrossEntropy,
        ),
        (
            "conv1d without padding",
            end(
                vec![
                    reshape(&[2, 7]),
                    Layer::Conv1d(Conv { bias: false, ..conv(4, 3, 1, 0) }),
                    groups(2),
                    Layer::Relu {},
                    Layer::AvgPool(pool(2, 2, 0)),
                ],
                1,
            ),
            features(14, Loss::Poisson),
            Loss::Poisson,
        ),
        (
            "conv2d",
            end(
                vec![
                    Layer::Conv2d(conv(4, 3, 2, 1)),
                    groups(2),
                    Layer::Relu {},
                    Layer::MaxPool(pool(2, 1, 0)),
                    Layer::Conv2d(conv(3, 2, 1, 1)),
                ],
                1,
            ),
            images([2, 7, 6], Loss::BinaryCrossEntropy),
            Loss::BinaryCrossEntropy,
        ),
        (
            "conv2d whose last windows do not reach the edge",
            end(
                vec![
                    Layer::Conv2d(conv(3, 1, 1, 0)),
                    Layer::LayerNorm {},
                    Layer::Conv2d(conv(2, 3, 3, 2)),
                    Layer::Tanh {},
                    Layer::Dropout(Dropout { rate: 0.4 }),
                ],
                1,
            ),
            images([2, 5, 4], Loss::Mse),
            Loss::Mse,
        ),
        ("graph", joined, joined_rows, Loss::BinaryCrossEntropy),
    ]
}

/// Subjects with one row each, and ones with several, wherever they stand; those with fewer rows first.
fn subjects() -> [Vec<Vec<usize>>; 2] {
    [(0..9).map(|row| vec![row]).collect(), vec![vec![4], vec![0], vec![7, 2], vec![1, 8], vec![6, 3, 5]]]
}

fn slices(subjects: &[Vec<usize>]) -> Vec<&[usize]> {
    subjects.iter().map(Vec::as_slice).collect()
}

/// A start at which norms are not 1 and 0, where some mistakes do not show.
fn started(model: &Model, data: &Matrix, compute: &Compute) -> Network {
    let mut start = initial(model, data.inputs(), 3);
    let shifts = noise(start.len(), 77);
    start.iter_mut().zip(shifts).for_each(|(p, n)| *p += 0.3 * n);
    Network::new(model, data, &start, compute).unwrap()
}

fn masks() -> ChaCha20Rng {
    stream("dropout", 1, b"site", "train", 1)
}

fn clipped(network: &mut Network, data: &Matrix, goal: &Goal, subjects: &[&[usize]], clip_norm_l2: f64) -> Vec<f32> {
    let what = Clipped { data, subjects, goal, clip_norm_l2 };
    let mut fresh = Fresh { changes: None, masks: &mut masks() };
    values(&network.clipped_sum(what, &mut fresh, "train").unwrap())
}

/// The gradient of each subject from a pass of its own, with the masks that it has in the batch of all of them.
fn alone(model: &Model, data: &Matrix, goal: &Goal, subjects: &[&[usize]]) -> Vec<Vec<f32>> {
    let dropout = |layer: &&hospes_protocol::plan::model::Placed| matches!(layer.layer, Layer::Dropout(_));
    let each: u64 = place(model, data.inputs()).0.iter().filter(dropout).map(|layer| layer.values()).sum();
    let mut before = 0;
    let gradient = |rows: &&[usize]| {
        let mut network = started(model, data, &Compute::processor());
        let mut masks = masks();
        masks.set_word_pos(u128::from(each) * before);
        before += rows.len() as u128;
        values(&network.gradient(data.batch(rows, None, &Device::flex()), goal, 1.0, &mut masks))
    };
    subjects.iter().map(gradient).collect()
}

fn norm(gradient: impl IntoIterator<Item = f64>) -> f64 {
    gradient.into_iter().map(|g| g * g).sum::<f64>().sqrt()
}

fn norm_of(gradient: &[f32]) -> f64 {
    norm(gradient.iter().map(|g| f64::from(*g)))
}

/// The sum of gradients, each clipped.
fn sum(gradients: &[Vec<f32>], clip_norm_l2: f64) -> Vec<f64> {
    let mut sum = vec![0.0; gradients[0].len()];
    for gradient in gradients {
        let factor = (clip_norm_l2 / norm_of(gradient)).min(1.0);
        sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += factor * f64::from(*g));
    }
    sum
}

/// In units of the clip, if it is below 1.
fn are_near(found: &[f32], expected: &[f64], clip: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    let unit = clip.min(1.0);
    let largest = expected.iter().fold(1f64, |most, e| most.max(e.abs() / unit));
    let furthest = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs() / unit).fold(0f64, f64::max);
    assert!(furthest <= 1e-5 * largest, "{what}, clip {clip}: {furthest} of {largest}");
}

/// Without a clip, with one in the middle, and with one so small that each subject counts by its direction alone, so that a
/// length that is wrong for one of them shows.
#[test]
fn gradients_of_subjects_are_those_of_one_backward_pass_each() {
    for (name, model, data, loss) in cases() {
        let goal = Goal::new(loss, &[]);
        for subjects in subjects() {
            let subjects = slices(&subjects);
            let each = alone(&model, &data, &goal, &subjects);
            let mut norms: Vec<f64> = each.iter().map(|gradient| norm_of(gradient)).collect();
            norms.sort_by(f64::total_cmp);
            assert!(norms[0] > 1e-4, "{name}: {norms:?}");
            let mut network = started(&model, &data, &Compute::processor());
            for clip in [1e9, norms[norms.len() / 2], norms[0] * 0.1] {
                let found = clipped(&mut network, &data, &goal, &subjects, clip);
                are_near(&found, &sum(&each, clip), clip, &format!("{name}, {} subjects", subjects.len()));
            }
        }
    }
}

/// The clip is at most half of what the subject adds in each layer by itself, so that the sum would change by more if one layer
/// were not clipped.
#[test]
fn one_subject_changes_the_sum_by_no_more_than_the_clip() {
    for (name, model, data, loss) in cases() {
        let goal = Goal::new(loss, &[]);
        for subjects in subjects() {
            let subjects = slices(&subjects);
            let each = alone(&model, &data, &goal, &subjects);
            // The last one changes, as without another the masks of those behind it would be others.
            let ((last, others), gradient) = (subjects.split_last().unwrap(), each.last().unwrap());
            let (mut at, mut clip) = (0, f64::INFINITY);
            for layer in place(&model, data.inputs()).0.iter().filter(|layer| layer.trained > 0) {
                let length = layer.tensors.iter().map(|t| usize::try_from(t.len()).unwrap()).sum::<usize>();
                let here = norm_of(&gradient[at..at + length]);
                at += length;
                if layer.name == "unused" {
                    assert_eq!(here, 0.0);
                } else {
                    clip = clip.min(0.5 * here);
                }
            }
            assert_eq!(at, gradient.len());
            assert!(clip > 1e-4, "{name}: {clip}");
            let grid = Grid::new(clip, at);
            let mut network = started(&model, &data, &Compute::processor());
            let mut with = |subjects: &[&[usize]]| {
                grid.rounded(&clipped(&mut network, &data, &goal, subjects, grid.clip_norm_l2()))
            };
            let all = with(&subjects);
            let apart = |a: &[i64], b: &[i64]| norm(a.iter().zip(b).map(|(a, b)| (a - b) as f64));
            let changed = apart(&all, &with(others));
            let limit = grid.sensitivity();
            assert!(changed <= limit && changed > 0.9 * limit, "{name}, {last:?}: {changed} of {limit}");
        }
    }
}

/// Columns that were laid out, and images whose columns are too many for that.
#[test]
fn convolutions_keep_images_apart_however_they_were_kept() {
    let filled = |shape: [usize; 4], seed| {
        Tensor::<4>::from_data(TensorData::new(noise(shape.iter().product(), seed), shape), &Device::flex())
    };
    let shape = [3, 2, 9, 7];
    for (kernel, stride, padding) in [([3, 3], [1, 1], [1, 1]), ([2, 3], [2, 1], [0, 2]), ([1, 1], [1, 1], [0, 0])] {
        let (window, x) = (Window { kernel, stride, padding }, filled(shape, 4));
        let weight = filled([4, 2, kernel[0], kernel[1]], 5);
        let (y, kept) = convolution::forward(x.clone(), weight.clone(), None, window, true);
        let gradient = filled(y.dims(), 6);
        let back = |kept| {
            let (found, input) =
                convolution::backward_apart((kept, shape), weight.clone(), true, window, gradient.clone(), true);
            (values(&found[0]), values(&found[1]), values(&input.unwrap()))
        };
        let (columns, images) = (back(kept.unwrap()), back(Kept::Input(x)));
        let near = |a: &[f32], b: &[f32]| {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{a} {b}"));
        };
        near(&columns.0, &images.0);
        near(&columns.1, &images.1);
        near(&columns.2, &images.2);
    }
}

#[test]
fn a_batch_that_is_cut_has_the_sum_of_the_whole() {
    let (_, model, data, loss) = cases().swap_remove(3);
    let (goal, [_, several]) = (Goal::new(loss, &[]), subjects());
    let subjects = slices(&several);
    let mut whole = started(&model, &data, &Compute::processor());
    for clip in [1e9, 0.05] {
        let expected = clipped(&mut whole, &data, &goal, &subjects, clip);
        let expected: Vec<f64> = expected.iter().map(|g| f64::from(*g)).collect();
        // The subject with three rows is cut, too.
        for rows_at_once in [1, 2, 4] {
            let mut cut = started(&model, &data, &Compute { rows_at_once, ..Compute::processor() });
            let found = clipped(&mut cut, &data, &goal, &subjects, clip);
            are_near(&found, &expected, clip, &format!("{rows_at_once} rows at once"));
        }
    }
}

/// A value so large that a gradient leaves the numbers: what one patient's file holds must not reach the others through it.
#[test]
fn a_subject_whose_gradient_is_no_number_adds_nothing() {
    let (model, mut data) = (Model::Layers(vec![linear(3), linear(1)]), rows(9, 3, None, Loss::Mse));
    data.values[3 * 8] = f32::MAX;
    let goal = Goal::new(Loss::Mse, &[]);
    let mut network = started(&model, &data, &Compute::processor());
    let all: [Vec<Vec<usize>>; 2] =
        [(0..9).map(|row| vec![row]).collect(), vec![vec![4], vec![0], vec![7, 2], vec![1, 8]]];
    for subjects in all {
        let (last, others) = subjects.split_last().unwrap();
        let mut network_alone = started(&model, &data, &Compute { rows_at_once: 1, ..Compute::processor() });
        assert!(clipped(&mut network_alone, &data, &goal, &[last.as_slice()], 0.5).iter().all(|g| *g == 0.0));
        assert!(clipped(&mut network, &data, &goal, &[last.as_slice()], 0.5).iter().all(|g| *g == 0.0));
        let without = clipped(&mut network, &data, &goal, &slices(others), 0.5);
        let without: Vec<f64> = without.iter().map(|g| f64::from(*g)).collect();
        assert!(without.iter().any(|g| *g != 0.0));
        are_near(&clipped(&mut network, &data, &goal, &slices(&subjects), 0.5), &without, 0.5, "with it");
    }
}

/// Networks in which one row has a gradient that is 6.4 thousandths long, of a linear map: what comes in is so small that its
/// squares are 0 in 32 bits, and what comes back so large; then the other way round.
fn with_squares_of_0(compute: &Compute) -> [(Network, Matrix); 2] {
    let one_row = |columns: usize, value: f32| {
        let mut data = rows(1, columns, None, Loss::BinaryCrossEntropy);
        data.values.fill(value);
        data
    };
    // The last layer's weights, through which the gradient of the output, a half, goes back; all others are 0.
    let network = |first: Layer, last: &[f32], data: &Matrix| {
        let model = Model::from(vec![first, without_bias(1)]);
        let mut start = vec![0f32; initial(&model, data.inputs(), 1).len() - last.len()];
        start.extend(last);
        Network::new(&model, data, &start, compute).unwrap()
    };
    let (small, large) = (one_row(1_024, 2e-23), one_row(1, 1e19));
    let before_large = network(without_bias(1), &[2e19], &small);
    let before_small = network(linear(1_024), &[4e-23; 1_024], &large);
    [(before_large, small), (before_small, large)]
}

#[test]
fn a_gradient_is_clipped_though_the_squares_of_one_of_its_factors_are_0() {
    let goal = Goal::new(Loss::BinaryCrossEntropy, &[]);
    for (mut network, data) in with_squares_of_0(&Compute::processor()) {
        let mut length = |clip| norm_of(&clipped(&mut network, &data, &goal, &[&[0]], clip));
        assert!((length(1e9) - 6.4e-3).abs() < 1e-5);
        assert!(length(1e-3) <= 1e-3, "{}", length(1e-3));
    }
}

/// So many equal squares that their sum in 32 bits falls short by more than is taken off the clip for it, with vectors of 4, 8
/// and 16 numbers.
#[test]
fn a_length_falls_short_by_no_more_than_is_taken_off_the_clip() {
    let (value, entries) = (1.16f32, (1 << 23) + 5);
    let equal = Tensor::<2>::from_data(TensorData::new(vec![value; entries], [1, entries]), &Device::flex());
    let found = squares(&[&Apart::Whole(vec![equal])]);
    let exact = entries as f64 * f64::from(value).powi(2);
    let short = 1.0 - (found[0] / exact).sqrt();
    assert!(short.abs() <= SHORTFALL, "{short}");
}

#[test]
fn what_mixes_rows_is_refused_with_what_to_take_instead() {
    let said = |layers: Vec<Layer>, loss| {
        let (model, data) = (Model::from(layers), rows(4, 3, None, loss));
        let network = started(&model, &data, &Compute::processor());
        network.keeps_subjects_apart(&Goal::new(loss, &[]), "train").map_err(|refused| refused.to_string())
    };
    let normed = said(vec![linear(4), Layer::BatchNorm(BatchNorm::default()), linear(1)], Loss::Mse).unwrap_err();
    assert!(normed.contains("tasks.train") && normed.contains("'1'") && normed.contains("group_norm"), "{normed}");
    assert!(said(vec![linear(1)], Loss::Cox).unwrap_err().contains("'cox'"));
    assert_eq!(said(vec![linear(4), groups(2), linear(1)], Loss::Mse), Ok(()));
    for clip in [0.0, f64::NAN, 1e-30] {
        assert!(Rules::new(clip, 0.1, 8.0, "train").is_err());
    }
    for (rate, batch) in [(1.1, 8.0), (0.0, 8.0), (0.1, 0.0)] {
        assert!(Rules::new(1.0, rate, batch, "train").is_err());
    }
    assert!(Rules::new(1e-6, 1.0, 8.0, "train").is_ok());
}

/// One run over nine rows: the parameters before and after, and how many steps it counts.
fn run(rate: f64, expected_batch: f64, secret: u8, noise: &mut Noise<'_>) -> (Vec<f32>, Vec<f32>, u64) {
    let (model, data) = (Model::Layers(vec![linear(1)]), rows(9, 3, None, Loss::Mse));
    let mut network = started(&model, &data, &Compute::processor());
    let before = network.parameters();
    let mut step = Step::new(&Optimizer::Sgd { lr: 0.5, momentum: 0.0 }, 1.0);
    let course = Course {
        goal: &Goal::new(Loss::Mse, &[]),
        augment: None,
        work: Work { units: 3, steps: 2 },
        schedule: &Schedule::Constant,
        task: "train",
        rules: Rules::new(1.0, rate, expected_batch, "train").unwrap(),
        subjects: &Subjects::of(&[0, 1, 2, 3, 4, 3, 2, 1, 0]),
        secret: &Secret::from_bytes([secret; 32]),
    };
    let now = || Timestamp::from_millis(0);
    let mut pulse = Pulse { now: &now, progress: &mut |_| true };
    let taken = train(&mut network, &mut step, &data, &course, noise, Timestamp::from_millis(1), &mut pulse).unwrap();
    (before, network.parameters(), taken)
}

/// Nobody is ever drawn, and each of six steps is taken with its noise all the same.
#[test]
fn steps_are_counted_as_they_are_taken_and_each_has_its_noise() {
    let mut draws = 0u64;
    let mut size = 0.0;
    let (before, after, taken) = run(1e-12, 4.0, 1, &mut |sum, sensitivity| {
        assert_eq!(sum, [0; 4], "nobody is in it");
        draws += 1;
        size = 1_000.0 / sensitivity;
        sum.iter_mut().zip([1, -1, 2, 0]).for_each(|(sum, times)| *sum += 1_000 * times);
    });
    assert_eq!((taken, draws), (6, 6));
    // The sensitivity is the clip of 1 in steps.
    for ((before, after), times) in before.iter().zip(&after).zip([1.0, -1.0, 2.0, 0.0]) {
        let moved = f64::from(after - before);
        assert!((moved + 6.0 * 0.5 * times * size / 4.0).abs() < 1e-5, "{moved}");
    }
    assert!(size > 1e-3);
}

/// Everybody is in each step: five subjects, whether two and a half are expected or five.
#[test]
fn the_divisor_is_what_was_declared_and_not_what_was_drawn() {
    let first = |expected: f64| {
        let mut sums: Vec<Vec<f64>> = Vec::new();
        let (before, after, _) = run(1.0, expected, 1, &mut |sum, sensitivity| {
            sums.push(sum.iter().map(|s| *s as f64 / sensitivity).collect());
            // After the first step, nothing moves.
            if sums.len() > 1 {
                sum.fill(0);
            }
        });
        let moved: Vec<f64> = before.iter().zip(&after).map(|(before, after)| f64::from(after - before)).collect();
        (sums.swap_remove(0), moved)
    };
    for expected in [2.5, 5.0] {
        // In clips, of which each subject adds one at most.
        let (sum, moved) = first(expected);
        let length = norm(sum.iter().copied());
        assert!(length > 0.5 && length <= 5.0, "{length}");
        let off = sum.iter().zip(&moved).map(|(sum, moved)| (moved + 0.5 * sum / expected).abs());
        assert!(off.fold(0.0, f64::max) < 1e-6, "{sum:?} {moved:?}");
    }
}

#[test]
fn a_run_follows_from_its_secret() {
    let after = |secret| run(0.4, 2.0, secret, &mut |_, _| ()).1;
    assert_eq!(after(1), after(1));
    assert_ne!(after(1), after(2));
}

/// Windows without padding and with it, norms, an embedding and linear layers on the software card.
#[cfg(not(target_os = "macos"))]
#[test]
fn a_card_adds_up_clipped_gradients_as_the_processor_does() {
    use crate::device::{Card, Place, TOLERANCE};

    let card = Place::Card { card: Card::Software, rows_at_once: None }.open().unwrap();
    let [_, several] = subjects();
    let subjects = slices(&several);
    let chosen = ["conv1d without padding", "graph"];
    for (name, model, data, loss) in cases().into_iter().filter(|case| chosen.contains(&case.0)) {
        let goal = Goal::new(loss, &[]);
        let theirs = clipped(&mut started(&model, &data, &Compute::processor()), &data, &goal, &subjects, 0.2);
        let ours = clipped(&mut started(&model, &data, &card), &data, &goal, &subjects, 0.2);
        let largest = theirs.iter().fold(0f32, |most, v| most.max(v.abs()));
        let furthest = theirs.iter().zip(&ours).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(f64::from(furthest / largest) <= TOLERANCE, "{name}: {furthest} of {largest}");
    }
    let goal = Goal::new(Loss::BinaryCrossEntropy, &[]);
    for (mut network, data) in with_squares_of_0(&card) {
        let length = norm_of(&clipped(&mut network, &data, &goal, &[&[0]], 1e-3));
        assert!(length <= 1e-3, "{length}");
    }
}
