use burn::tensor::Device;
use hospes_protocol::plan::model::{initial, place};
use hospes_protocol::plan::{
    BatchNorm, Conv, Dropout, Embedding, Graph, GroupNorm, Init, Layer, Linear, Loss, Model, Node, Optimizer, Pool,
    Reshape, Select,
};

use super::*;
use crate::component::Pixels;
use crate::device::{Card, Compute, Place};
use crate::train::batches::stream;
use crate::train::convolution::{self, Window};
use crate::train::tests::noise;
use crate::train::{norms, processor};

fn linear(out: u32) -> Layer {
    Layer::Linear(Linear { out, bias: true, init: Init::TorchDefault })
}

fn conv(out: u32, kernel: u32, stride: u32, padding: u32) -> Conv {
    Conv { out, kernel, stride, padding, bias: true }
}

fn pool(kernel: u32, stride: u32, padding: u32) -> Pool {
    Pool { kernel, stride: Some(stride), padding }
}

/// Rows of noise with labels that fit the loss.
fn rows(rows: usize, columns: usize, loss: Loss) -> Matrix {
    let label = |i: usize| match loss {
        Loss::BinaryCrossEntropy | Loss::Cox => f32::from(i.is_multiple_of(3)),
        Loss::CrossEntropy => [0.0, 2.0, 1.0][i % 3],
        Loss::Mse => 0.5 * i as f32 - 1.0,
        Loss::Poisson => (i % 4) as f32,
    };
    // Two of them at the same time.
    let times = (0..rows).map(|i| [5.0, 2.0, 2.0, 8.0, 1.0][i % 5] + (i / 5) as f32).collect();
    Matrix {
        rows,
        columns: (0..columns).map(|i| Feature { name: format!("x{i}"), codes: None }).collect(),
        values: noise(rows * columns, 1),
        labels: (0..rows).map(label).collect(),
        times,
        images: None,
        origin: vec![0; rows],
    }
}

fn with_images(mut data: Matrix, shape: [usize; 3]) -> Matrix {
    let bytes = noise(data.rows * shape.iter().product::<usize>(), 9);
    #[allow(clippy::cast_possible_truncation)]
    let bytes = bytes.iter().map(|v| ((v + 0.5) * 255.0) as u8).collect();
    data.images = Some(Pixels { shape, bytes });
    data
}

fn network(model: &Model, data: &Matrix, parameters: &[f32]) -> Network {
    Network::new(model, data, parameters, &Compute::processor()).unwrap()
}

fn masks() -> ChaCha20Rng {
    stream("dropout", 1, b"site", "train", 1)
}

/// Outputs as in training, with the masks of one step.
fn trained_outputs(network: &Network, data: &Matrix) -> Vec<f32> {
    let all: Vec<usize> = (0..data.rows).collect();
    let Batch { features, image, .. } = data.batch(&all, None, &network.compute.device);
    let parameters = network.split();
    let mut running = network.running.clone();
    values(&network.run(&parameters, &mut running, features, image, Some((&mut masks(), &mut Vec::new()))))
}

fn gradient(model: &Model, data: &Matrix, parameters: &[f32], goal: &Goal) -> Vec<f32> {
    let mut network = network(model, data, parameters);
    let all: Vec<usize> = (0..data.rows).collect();
    let mass = goal.mass(data.labels.iter().copied());
    let batch = data.batch(&all, None, &Device::flex());
    values(&network.gradient(batch, goal, mass, &mut masks()))
}

/// Compares the gradient with central differences of the loss along random directions: f32 leaves few digits of one
/// parameter's difference, but many of the change along a direction in which all of them move.
fn gradient_fits(model: &Model, data: &Matrix, loss: Loss, weights: &[f64]) {
    let goal = Goal::new(loss, weights);
    let (layers, misfit) = place(model, data.inputs());
    assert_eq!(misfit, None);
    let mut start = initial(model, data.inputs(), 3);
    // Norms begin at 1 and 0, where some mistakes do not show.
    start.iter_mut().zip(noise(100_000, 77)).for_each(|(p, n)| *p += 0.2 * n);
    let trained: Vec<bool> = layers
        .iter()
        .flat_map(|l| l.tensors.iter().enumerate().map(|(i, t)| (i < l.trained, t.len())))
        .flat_map(|(trained, entries)| (0..entries).map(move |_| trained))
        .collect();
    let found = gradient(model, data, &start, &goal);
    assert_eq!(found.len(), trained.iter().filter(|t| **t).count());
    let loss_at = |parameters: &[f32]| {
        let network = network(model, data, parameters);
        goal.mean(&trained_outputs(&network, data), data)
    };
    // Where the largest of a window changes, the loss has a bend.
    let bends = layers.iter().any(|l| matches!(l.layer, Layer::MaxPool(_)));
    let tolerance = if bends { 0.03 } else { 0.003 };
    for seed in 0..6u32 {
        let direction: Vec<f32> = noise(found.len(), 100 + seed).iter().map(|v| v.signum()).collect();
        let moved = |by: f32| {
            let mut along = direction.iter();
            let step = |(p, t): (&f32, &bool)| if *t { p + by * along.next().unwrap() } else { *p };
            loss_at(&start.iter().zip(&trained).map(step).collect::<Vec<f32>>())
        };
        let h = 2e-3;
        let difference = (moved(h) - moved(-h)) / (2.0 * f64::from(h));
        let slope: f64 = found.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        let size: f64 = found.iter().map(|g| f64::from(g.abs())).sum::<f64>().max(0.05);
        assert!((difference - slope).abs() < tolerance * size, "seed {seed}: difference {difference}, slope {slope}");
    }
}

/// A model of these layers on rows of features, with a linear layer at its end.
fn on_features(mut layers: Vec<Layer>, columns: usize) {
    layers.extend([Layer::Flatten {}, linear(1)]);
    gradient_fits(&layers.into(), &rows(10, columns, Loss::Mse), Loss::Mse, &[]);
}

fn on_images(mut layers: Vec<Layer>, shape: [usize; 3]) {
    layers.extend([Layer::Flatten {}, linear(1)]);
    let data = with_images(rows(6, 0, Loss::Mse), shape);
    gradient_fits(&layers.into(), &data, Loss::Mse, &[]);
}

fn reshape(shape: &[u32]) -> Layer {
    Layer::Reshape(Reshape { shape: shape.to_vec() })
}

#[test]
fn gradients_of_layers_on_features_are_those_of_central_differences() {
    on_features(
        vec![linear(4), Layer::Tanh {}, Layer::Linear(Linear { out: 3, bias: false, init: Init::TorchDefault })],
        3,
    );
    on_features(vec![linear(4), Layer::Sigmoid {}], 3);
    on_features(vec![linear(4), Layer::Gelu {}], 3);
    on_features(vec![linear(6), Layer::BatchNorm(BatchNorm::default()), Layer::Tanh {}], 3);
    on_features(vec![linear(6), Layer::LayerNorm {}, Layer::Tanh {}], 3);
    on_features(vec![linear(6), Layer::GroupNorm(GroupNorm { groups: 2 }), Layer::Tanh {}], 3);
    on_features(vec![linear(8), Layer::Dropout(Dropout { rate: 0.4 }), Layer::Tanh {}], 3);
    on_features(vec![reshape(&[2, 6]), Layer::Conv1d(conv(3, 3, 2, 1)), Layer::Tanh {}], 12);
    on_features(vec![reshape(&[2, 7]), Layer::Conv1d(conv(4, 3, 1, 0)), Layer::BatchNorm(BatchNorm::default())], 14);
    on_features(vec![reshape(&[1, 12]), Layer::Conv1d(conv(2, 3, 1, 1)), Layer::MaxPool(pool(2, 2, 1))], 12);
    on_features(vec![reshape(&[1, 12]), Layer::Conv1d(conv(2, 3, 1, 1)), Layer::AvgPool(pool(3, 2, 1))], 12);
    on_features(vec![reshape(&[3, 4]), Layer::Conv1d(conv(2, 1, 1, 0)), Layer::GlobalPool {}, Layer::Tanh {}], 12);
}

#[test]
fn gradients_of_layers_on_images_are_those_of_central_differences() {
    let norm = || Layer::BatchNorm(BatchNorm { momentum: 0.3 });
    on_images(vec![Layer::Conv2d(conv(4, 3, 1, 1)), Layer::Tanh {}], [2, 6, 5]);
    on_images(
        vec![Layer::Conv2d(conv(4, 3, 2, 1)), norm(), Layer::Gelu {}, Layer::Conv2d(conv(2, 2, 1, 0))],
        [1, 8, 7],
    );
    on_images(
        vec![Layer::Conv2d(conv(4, 3, 1, 1)), Layer::GroupNorm(GroupNorm { groups: 2 }), Layer::Tanh {}],
        [3, 4, 4],
    );
    on_images(vec![Layer::Conv2d(conv(2, 3, 1, 1)), Layer::LayerNorm {}, Layer::Tanh {}], [1, 4, 4]);
    on_images(vec![Layer::Conv2d(conv(3, 3, 1, 1)), Layer::MaxPool(pool(2, 2, 0)), Layer::Tanh {}], [1, 6, 6]);
    on_images(vec![Layer::Conv2d(conv(3, 3, 1, 1)), Layer::MaxPool(pool(3, 2, 1)), Layer::Tanh {}], [1, 6, 6]);
    on_images(vec![Layer::Conv2d(conv(3, 3, 1, 1)), Layer::AvgPool(pool(3, 2, 1)), Layer::Tanh {}], [1, 6, 6]);
    on_images(vec![Layer::Conv2d(conv(3, 3, 1, 1)), Layer::GlobalPool {}, Layer::Tanh {}], [2, 5, 4]);
    on_images(vec![Layer::Conv2d(conv(3, 1, 1, 0)), Layer::Conv2d(conv(2, 3, 2, 2)), Layer::Tanh {}], [2, 5, 4]);
}

/// Columns of an image of 150 · 150 in 9 · 8 parts: 1.6 million numbers, more than are multiplied at once.
#[test]
fn a_convolution_by_parts_has_the_gradient_of_one_in_one_piece() {
    let window = Window { kernel: [3, 3], stride: [1, 1], padding: [1, 1] };
    let tensor = |shape: [usize; 4], seed| {
        let values = noise(shape.iter().product(), seed);
        Tensor::<4>::from_data(TensorData::new(values, shape), &Device::flex())
    };
    let (x, weight, gradient) = (tensor([3, 8, 150, 150], 1), tensor([4, 8, 3, 3], 2), tensor([3, 4, 150, 150], 3));
    let (y, kept) = convolution::forward(x.clone(), weight.clone(), None, window, true);
    let (found, _) =
        convolution::backward((kept.unwrap(), x.dims()), weight.clone(), false, window, gradient.clone(), false);
    let options = || burn::tensor::ops::ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let other = burn::tensor::module::conv2d_weight_backward(x.clone(), weight.clone(), gradient, options());
    let near = |a: Vec<f32>, b: Vec<f32>, most: f32| a.iter().zip(&b).all(|(a, b)| (a - b).abs() < most);
    assert!(near(values(&found[0]), values(&other), 0.02));
    assert!(near(values(&y), values(&burn::tensor::module::conv2d(x, weight, None, options())), 1e-4));
}

/// What is done here in few passes is what Burn's own operations give, for windows of all kinds.
#[test]
fn layers_on_the_processor_are_those_of_burn() {
    use burn::tensor::module;
    use burn::tensor::ops::{ConvOptions, MaxPoolOptions};

    let shape = [3, 2, 9, 7];
    let filled = |shape: [usize; 4], seed| {
        let values = noise(shape.iter().product(), seed);
        Tensor::<4>::from_data(TensorData::new(values, shape), &Device::flex())
    };
    let near = |a: &Tensor<4>, b: &Tensor<4>| {
        let pairs = values(a).into_iter().zip(values(b));
        assert_eq!(a.dims(), b.dims());
        pairs.into_iter().for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{a} {b}"));
    };
    let x = filled(shape, 4);
    for (kernel, stride, padding) in [([3, 3], [1, 1], [1, 1]), ([2, 3], [2, 1], [0, 2]), ([1, 1], [2, 3], [0, 0])] {
        let window = Window { kernel, stride, padding };
        let weight = filled([4, 2, kernel[0], kernel[1]], 5);
        let (y, kept) = convolution::forward(x.clone(), weight.clone(), None, window, true);
        let options = ConvOptions::new(stride, padding, [1, 1], 1);
        near(&y, &module::conv2d(x.clone(), weight.clone(), None, options.clone()));
        let gradient = filled(y.dims(), 6);
        let kept = (kept.unwrap(), shape);
        let (of_weight, _) = convolution::backward(kept, weight.clone(), false, window, gradient.clone(), false);
        let theirs = module::conv2d_weight_backward(x.clone(), weight.clone(), gradient, options);
        near(&of_weight[0].clone().reshape(weight.dims()), &theirs);
    }
    for (kernel, stride, padding) in [([2, 2], [2, 2], [0, 0]), ([3, 2], [1, 2], [1, 1])] {
        let (y, _) = processor::max_pool(x.clone(), Window { kernel, stride, padding });
        let options = MaxPoolOptions::new(kernel).with_stride(stride).with_padding(padding);
        near(&y, &module::max_pool2d(x.clone(), options));
    }
    let (y, _) = processor::relu(x.clone(), true);
    near(&y, &burn::tensor::activation::relu(x.clone()));
    // As when nothing is trained, by moments that are the batch's own.
    let parameters: Vec<Tensor<1>> = [1.2f32, 0.1].map(|one| Tensor::from_floats([one, -0.3], &Device::flex())).into();
    let mut running =
        Some(Running { mean: Tensor::zeros([2], &Device::flex()), variance: Tensor::zeros([2], &Device::flex()) });
    let (y, _) = norms::batch(x.clone(), &parameters, &mut running, 1.0);
    let Running { mean, variance } = running.unwrap();
    let biased = variance.mul_scalar(188.0 / 189.0);
    near(&y, &norms::judged(x, &parameters, &Running { mean, variance: biased }));
}

fn node(name: &str, layer: Layer, from: &[&str]) -> Node {
    Node { name: name.into(), layer, from: from.iter().map(|f| (*f).to_owned()).collect() }
}

/// A residual block on an image, joined with an embedding and the features.
fn joined() -> Model {
    Model::Graph(Graph {
        graph: vec![
            node("stem", Layer::Conv2d(conv(4, 3, 1, 1)), &["image"]),
            node("stem_norm", Layer::BatchNorm(BatchNorm::default()), &[]),
            node("stem_relu", Layer::Gelu {}, &[]),
            node("inner", Layer::Conv2d(conv(4, 3, 1, 1)), &[]),
            node("inner_norm", Layer::BatchNorm(BatchNorm::default()), &[]),
            node("drop", Layer::Dropout(Dropout { rate: 0.3 }), &[]),
            node("sum", Layer::Add {}, &["drop", "stem_relu"]),
            node("mean", Layer::GlobalPool {}, &[]),
            node("codes", Layer::Embedding(Embedding { codes: 3, out: 2 }), &["features"]),
            node("flat", Layer::Flatten {}, &[]),
            node("both", Layer::Concat {}, &["mean", "flat", "features"]),
            node("head", linear(1), &[]),
        ],
    })
}

/// A category of four codes by an embedding, beside the numbers around it.
fn coded() -> Model {
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Model::Graph(Graph {
        graph: vec![
            node("ward", Layer::Select(Select::Columns(of(&["ward"]))), &["features"]),
            node("vector", Layer::Embedding(Embedding { codes: 4, out: 3 }), &[]),
            node("flat", Layer::Flatten {}, &[]),
            node("numbers", Layer::Select(Select::Except(of(&["ward"]))), &["features"]),
            node("both", Layer::Concat {}, &["flat", "numbers"]),
            node("bent", Layer::Tanh {}, &[]),
            node("head", linear(1), &[]),
        ],
    })
}

/// Rows with the numbers `x0` and `x2`, and between them the category `ward`.
fn coded_rows(n: usize, loss: Loss) -> Matrix {
    let mut data = rows(n, 3, loss);
    data.columns[1] = Feature { name: "ward".to_owned(), codes: Some(4) };
    data.values.chunks_mut(3).enumerate().for_each(|(row, values)| values[1] = (row * 7 % 4) as f32);
    data
}

fn joined_rows(n: usize, loss: Loss) -> Matrix {
    let mut data = with_images(rows(n, 2, loss), [1, 5, 5]);
    data.values.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 3) as f32);
    data
}

#[test]
fn gradients_through_a_graph_with_add_concat_and_embedding_are_those_of_central_differences() {
    gradient_fits(&joined(), &joined_rows(8, Loss::BinaryCrossEntropy), Loss::BinaryCrossEntropy, &[]);
    let bent = Model::Graph(Graph {
        graph: vec![
            node("codes", Layer::Embedding(Embedding { codes: 4, out: 3 }), &["features"]),
            node("flat", Layer::Flatten {}, &[]),
            node("head", linear(1), &[]),
        ],
    });
    let mut data = rows(9, 2, Loss::Mse);
    data.values.iter_mut().enumerate().for_each(|(i, v)| *v = (i * 7 % 4) as f32);
    gradient_fits(&bent, &data, Loss::Mse, &[]);
    gradient_fits(&coded(), &coded_rows(9, Loss::Mse), Loss::Mse, &[]);
}

/// What a linear layer gives for the vector of the row's code and its numbers, in the order in which they arrive.
#[test]
fn a_select_takes_its_columns_by_name() {
    let data = coded_rows(6, Loss::Mse);
    let parameters: Vec<f32> = noise(4 * 3 + 5 + 1, 21);
    let found = network(&coded(), &data, &parameters).logits(&data);
    let (vectors, rest) = parameters.split_at(12);
    for (row, z) in found.iter().enumerate() {
        let [x0, ward, x2] = data.row(row) else { panic!() };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let vector = &vectors[*ward as usize * 3..][..3];
        let inputs = vector.iter().chain([x0, x2]).map(|v| v.tanh());
        let expected: f32 = inputs.zip(&rest[..5]).map(|(x, w)| x * w).sum::<f32>() + rest[5];
        assert!((z - expected).abs() < 1e-4, "row {row}: {z} {expected}");
    }
    // Other columns than those that it was made for, or in another order, are refused.
    let made = network(&coded(), &data, &parameters);
    assert!(made.check(&data, "train").is_ok());
    let mut swapped = coded_rows(6, Loss::Mse);
    swapped.columns.swap(0, 1);
    assert!(made.check(&swapped, "train").unwrap_err().to_string().contains("other features"));
}

/// The plan's check refuses such models; a network is not made of one either.
#[test]
fn a_category_reaches_a_network_through_an_embedding_only() {
    let data = coded_rows(6, Loss::Mse);
    let refused = |model: &Model| {
        let start = initial(model, data.inputs(), 1);
        Network::new(model, &data, &start, &Compute::processor()).err().unwrap().to_string()
    };
    let plain = refused(&vec![linear(1)].into());
    assert!(plain.contains("'ward', which is a category"), "{plain}");
    let Model::Graph(mut small) = coded() else { panic!() };
    small.graph[1].layer = Layer::Embedding(Embedding { codes: 3, out: 3 });
    let small = refused(&Model::Graph(small));
    assert!(small.contains("is 3, and 'ward' has 4 codes"), "{small}");
}

#[test]
fn gradients_of_losses_are_those_of_central_differences_with_and_without_class_weights() {
    let model = |out| Model::Layers(vec![linear(5), Layer::Tanh {}, linear(out)]);
    for (loss, out, weights) in [
        (Loss::BinaryCrossEntropy, 1, vec![]),
        (Loss::BinaryCrossEntropy, 1, vec![0.5, 3.0]),
        (Loss::CrossEntropy, 3, vec![]),
        (Loss::CrossEntropy, 3, vec![1.0, 2.0, 0.25]),
        (Loss::Mse, 1, vec![]),
        (Loss::Poisson, 1, vec![]),
        (Loss::Cox, 1, vec![]),
    ] {
        gradient_fits(&model(out), &rows(12, 3, loss), loss, &weights);
    }
}

#[test]
fn the_cox_loss_is_that_of_a_hand_computed_example_with_a_tie() {
    // Times 1, 2, 2, 3 with events at 1, both 2: Breslow takes the same risk set for both.
    let data = Matrix { labels: vec![1.0, 1.0, 1.0, 0.0], times: vec![1.0, 2.0, 2.0, 3.0], ..rows(4, 1, Loss::Cox) };
    let eta = [0.5f32, -0.2, 0.1, 0.3];
    let e = |i: usize| f64::from(eta[i]).exp();
    let first = (e(0) + e(1) + e(2) + e(3)).ln() - 0.5;
    let tied = (e(1) + e(2) + e(3)).ln();
    let expected = (first + (tied + 0.2) + (tied - 0.1)) / 3.0;
    let found = Goal::new(Loss::Cox, &[]).mean(&eta, &data);
    assert!((found - expected).abs() < 1e-6, "{found} {expected}");
}

#[test]
fn the_rows_that_have_a_part_in_a_loss_are_counted_by_what_they_add_to_it() {
    let rows = |labels: Vec<f32>, times: Vec<f32>, loss| Matrix { labels, times, ..rows(100, 1, loss) };
    let first = |n: usize| (0..100).map(|row| if row < n { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
    let of = |loss, weights: &[f64], z: &[f32], data: &Matrix| Goal::new(loss, weights).effective_rows(z, data);
    let even = vec![0f32; 100];
    // The only row of a class with nearly all of the weight.
    let one = rows(first(1), Vec::new(), Loss::BinaryCrossEntropy);
    assert!((of(Loss::BinaryCrossEntropy, &[], &even, &one) - 100.0).abs() < 1e-9);
    assert!(of(Loss::BinaryCrossEntropy, &[1e-6, 1e6], &even, &one) < 1.01);
    assert!(of(Loss::CrossEntropy, &[1e-6, 1e6], &[0.0; 200], &one) < 1.01);
    // A count far off, a loss of 0, and one below it.
    let counts = rows(vec![1.0; 100], Vec::new(), Loss::Poisson);
    let mut far = even.clone();
    far[3] = 20.0;
    assert!(of(Loss::Poisson, &[], &far, &counts) < 1.01);
    assert_eq!(of(Loss::Mse, &[], &[1.0; 100], &counts), 100.0);
    assert!(
        (of(Loss::Poisson, &[], &[2.0; 100], &rows(vec![9.0; 100], Vec::new(), Loss::Poisson)) - 100.0).abs() < 1e-9
    );
    // An event that nobody expected, and a hazard before which no other counts.
    let times: Vec<f32> = (0..100u8).map(|n| f32::from(n) + 1.0).collect();
    let data = rows(first(60), times, Loss::Cox);
    assert!(of(Loss::Cox, &[], &even, &data) > 55.0);
    for (row, score) in [(30, -1e6), (99, 40.0)] {
        let mut z = even.clone();
        z[row] = score;
        assert!(of(Loss::Cox, &[], &z, &data) < 1.1, "{row}");
    }
}

#[test]
fn weighted_losses_are_divided_by_the_sum_of_the_weights_as_in_pytorch() {
    let data = Matrix { labels: vec![0.0, 1.0, 1.0], ..rows(3, 1, Loss::BinaryCrossEntropy) };
    let z = [0.3f32, -1.0, 2.0];
    let softplus = |z: f32| f64::from(z).exp().ln_1p();
    let (a, b, c) = (softplus(0.3), softplus(1.0), softplus(-2.0));
    let found = Goal::new(Loss::BinaryCrossEntropy, &[2.0, 0.5]).mean(&z, &data);
    assert!((found - (2.0 * a + 0.5 * b + 0.5 * c) / 3.0).abs() < 1e-7);
    // torch.nn.functional.cross_entropy of [[0, z]] is the same as the binary one.
    let two: Vec<f32> = z.iter().flat_map(|z| [0.0, *z]).collect();
    let other = Goal::new(Loss::CrossEntropy, &[2.0, 0.5]).mean(&two, &data);
    assert!((found - other).abs() < 1e-7);
}

#[test]
fn batch_norm_keeps_biased_variance_for_the_batch_and_unbiased_for_its_running_figures() {
    let layers = Model::Layers(vec![Layer::BatchNorm(BatchNorm { momentum: 0.25 }), linear(1)]);
    let data = Matrix { values: vec![1.0, 10.0, 2.0, 20.0, 6.0, 30.0], ..rows(3, 2, Loss::Mse) };
    // weight 1, 1; bias 0, 0; running mean 0, 0; running variance 1, 1; linear weight 1, 1 and bias 0.
    let start = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0];
    let mut network = network(&layers, &data, &start);
    let outputs = trained_outputs(&network, &data);
    // Means 3 and 20; biased variances 14/3 and 200/3.
    let normal = |v: f64, mean: f64, variance: f64| (v - mean) / (variance + 1e-5).sqrt();
    for (row, (a, b)) in [(1.0, 10.0), (2.0, 20.0), (6.0, 30.0)].into_iter().enumerate() {
        let expected = normal(a, 3.0, 14.0 / 3.0) + normal(b, 20.0, 200.0 / 3.0);
        assert!((f64::from(outputs[row]) - expected).abs() < 1e-5, "{} {expected}", outputs[row]);
    }
    let goal = Goal::new(Loss::Mse, &[]);
    let all = [0, 1, 2];
    let _ = network.gradient(data.batch(&all, None, &Device::flex()), &goal, 3.0, &mut masks());
    let after = network.parameters();
    // 0.75 · old + 0.25 · (means, unbiased variances 7 and 100).
    let expected = [0.75, 5.0, 0.75 + 0.25 * 7.0, 0.75 + 0.25 * 100.0];
    assert!(after[4..8].iter().zip(expected).all(|(a, e): (&f32, f32)| (a - e).abs() < 1e-4), "{:?}", &after[4..8]);
    // What is not trained is judged by the running figures.
    let judged = network.logits(&data);
    let expected = normal(1.0, 0.75, 2.5) + normal(10.0, 5.0, 25.75);
    assert!((f64::from(judged[0]) - expected).abs() < 1e-4, "{} {expected}", judged[0]);
    // One row has no variance: it moves nothing.
    let one = network.gradient(data.batch(&[1], None, &Device::flex()), &goal, 1.0, &mut masks());
    assert!(values(&one).iter().all(|g| g.is_finite()));
    assert_eq!(network.parameters()[4..8], after[4..8]);
}

#[test]
fn dropout_changes_nothing_when_the_network_is_judged_and_keeps_the_mean_when_it_is_trained() {
    let layers = Model::Layers(vec![Layer::Dropout(Dropout { rate: 0.25 }), linear(1)]);
    let data = Matrix { values: vec![1.0; 4 * 20_000], ..rows(4, 20_000, Loss::Mse) };
    let mut start = vec![1.0 / 20_000.0; 20_000];
    start.push(0.0);
    let network = network(&layers, &data, &start);
    assert!(network.logits(&data).iter().all(|v| (v - 1.0).abs() < 1e-4));
    // Standard deviation of the mean over 20,000: √(0.25/0.75/20000) = 0.0041; six of them.
    assert!(trained_outputs(&network, &data).iter().all(|v| (v - 1.0).abs() < 0.025));
}

#[test]
fn optimisers_follow_their_papers() {
    // One weight, no bias, x = 1: the gradient is σ(w) − y.
    let layers = Model::Layers(vec![Layer::Linear(Linear { out: 1, bias: false, init: Init::Zeros })]);
    let sigmoid = |w: f64| 1.0 / (1.0 + (-w).exp());
    let data = Matrix { values: vec![1.0], labels: vec![1.0], ..rows(1, 1, Loss::BinaryCrossEntropy) };
    let goal = Goal::new(Loss::BinaryCrossEntropy, &[]);
    let run = |optimizer, factor| {
        let mut network = network(&layers, &data, &[0.3]);
        let mut step = Step::new(&optimizer, factor);
        for _ in 0..5 {
            let gradient = network.gradient(data.batch(&[0], None, &Device::flex()), &goal, 1.0, &mut masks());
            network.step(&mut step, gradient);
        }
        f64::from(network.parameters()[0])
    };
    let (mut w, mut velocity) = (0.3, 0.0);
    for _ in 0..5 {
        velocity = 0.9 * velocity + (sigmoid(w) - 1.0);
        w -= 0.1 * velocity;
    }
    assert!((run(Optimizer::Sgd { lr: 0.1, momentum: 0.9 }, 1.0) - w).abs() < 1e-5);
    assert!((run(Optimizer::Sgd { lr: 0.4, momentum: 0.9 }, 0.25) - w).abs() < 1e-5);
    let adam = |decay: f64| {
        let (mut w, mut m, mut v) = (0.3, 0.0, 0.0);
        for t in 1..=5 {
            let g: f64 = sigmoid(w) - 1.0;
            w *= 1.0 - 0.01 * decay;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            w -= 0.01 * m_hat / (v_hat.sqrt() + 1e-8);
        }
        w
    };
    assert!((run(Optimizer::Adam { lr: 0.01 }, 1.0) - adam(0.0)).abs() < 1e-5);
    let decayed = run(Optimizer::AdamW { lr: 0.01, weight_decay: 0.5 }, 1.0);
    assert!((decayed - adam(0.5)).abs() < 1e-5 && (decayed - adam(0.0)).abs() > 1e-3);
}

#[test]
fn a_number_that_is_no_code_is_refused_before_an_embedding_takes_it() {
    let data = joined_rows(4, Loss::BinaryCrossEntropy);
    let network = network(&joined(), &data, &initial(&joined(), data.inputs(), 1));
    assert!(network.check(&data, "train").is_ok());
    for bad in [3.0, -1.0, 0.5] {
        let mut data = joined_rows(4, Loss::BinaryCrossEntropy);
        data.values[3] = bad;
        let said = network.check(&data, "train").unwrap_err().to_string();
        assert!(said.contains("'x1'") && said.contains("0 to 2") && said.contains("codes"), "{said}");
    }
    let other = rows(4, 2, Loss::Mse);
    assert!(network.check(&other, "train").is_err());
    // Behind a select, its columns alone are looked at.
    let mut data = coded_rows(4, Loss::Mse);
    let start = initial(&coded(), data.inputs(), 1);
    let network = Network::new(&coded(), &data, &start, &Compute::processor()).unwrap();
    assert!(network.check(&data, "train").is_ok());
    data.values[4] = 4.0;
    let said = network.check(&data, "train").unwrap_err().to_string();
    assert!(said.contains("'ward'") && said.contains("'vector'"), "{said}");
}

#[test]
fn rows_for_a_view_are_evenly_spaced_and_keep_what_belongs_to_them() {
    let data = with_images(rows(10, 3, Loss::Cox), [1, 2, 2]);
    assert!(data.spaced(10).is_none() && data.spaced(usize::MAX).is_none());
    let fewer = data.spaced(4).unwrap();
    assert_eq!(fewer.rows, 4);
    for (to, from) in [0, 3, 6, 9].into_iter().enumerate() {
        assert_eq!(fewer.values[to * 3..to * 3 + 3], data.values[from * 3..from * 3 + 3]);
        assert_eq!((fewer.labels[to], fewer.times[to]), (data.labels[from], data.times[from]));
        assert_eq!(fewer.images.as_ref().unwrap().row(to), data.images.as_ref().unwrap().row(from));
    }
}

#[test]
fn a_batch_that_is_cut_has_the_gradient_of_the_whole() {
    let layers = Model::Layers(vec![linear(5), Layer::Tanh {}, Layer::LayerNorm {}, linear(3)]);
    let data = rows(11, 4, Loss::CrossEntropy);
    let goal = Goal::new(Loss::CrossEntropy, &[1.0, 3.0, 0.5]);
    let start = initial(&layers, data.inputs(), 3);
    let all: Vec<usize> = (0..data.rows).collect();
    let whole = network(&layers, &data, &start).first_gradient(&data, &all, &goal);
    for rows_at_once in [1, 3, 10] {
        let compute = Compute { rows_at_once, ..Compute::processor() };
        let mut cut = Network::new(&layers, &data, &start, &compute).unwrap();
        let cut = cut.first_gradient(&data, &all, &goal);
        assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-6), "{rows_at_once}: {whole:?} {cut:?}");
    }
}

/// Every layer and loss on the software card: three steps of training end within [`crate::device::TOLERANCE`] of the
/// processor's, relative to the largest parameter.
#[cfg(not(target_os = "macos"))]
#[test]
fn a_card_trains_every_layer_and_loss_as_the_processor_does() {
    let card = Place::Card { card: Card::Software, rows_at_once: None }.open().unwrap();
    let signal = Model::Layers(vec![
        Layer::Reshape(Reshape { shape: vec![2, 6] }),
        Layer::Conv1d(conv(4, 3, 1, 1)),
        Layer::GroupNorm(GroupNorm { groups: 2 }),
        Layer::Sigmoid {},
        Layer::AvgPool(pool(2, 2, 0)),
        Layer::Flatten {},
        Layer::LayerNorm {},
        linear(1),
    ]);
    let picture = Model::Layers(vec![
        Layer::Conv2d(conv(4, 3, 2, 1)),
        Layer::Relu {},
        Layer::MaxPool(pool(2, 1, 0)),
        Layer::Flatten {},
        linear(3),
        Layer::Tanh {},
        linear(3),
    ]);
    let adam = Optimizer::AdamW { lr: 0.01, weight_decay: 0.1 };
    // Where a parameter changes nothing (a bias before a batch norm, or of risks), its gradient is what rounding leaves, of
    // which Adam would make a full step.
    let sgd = Optimizer::Sgd { lr: 0.05, momentum: 0.9 };
    let cases = [
        (joined(), joined_rows(8, Loss::BinaryCrossEntropy), Loss::BinaryCrossEntropy),
        (coded(), coded_rows(8, Loss::BinaryCrossEntropy), Loss::BinaryCrossEntropy),
        (signal.clone(), rows(6, 12, Loss::Mse), Loss::Mse),
        (signal.clone(), rows(6, 12, Loss::Poisson), Loss::Poisson),
        (signal, rows(6, 12, Loss::Cox), Loss::Cox),
        (picture, with_images(rows(6, 0, Loss::CrossEntropy), [2, 9, 9]), Loss::CrossEntropy),
    ];
    for (model, data, loss) in cases {
        let (goal, start) = (Goal::new(loss, &[]), initial(&model, data.inputs(), 3));
        let all: Vec<usize> = (0..data.rows).collect();
        let on = |compute: &Compute| {
            let mut network = Network::new(&model, &data, &start, compute).unwrap();
            let optimizer = if matches!(loss, Loss::BinaryCrossEntropy | Loss::Cox) { &sgd } else { &adam };
            let (mut step, mut masks) = (Step::new(optimizer, 1.0), masks());
            for _ in 0..3 {
                let gradient = network.descent(&data, &all, None, &goal, &mut masks);
                network.step(&mut step, gradient);
            }
            compute.settle().unwrap();
            [network.parameters(), network.logits(&data)].concat()
        };
        let (theirs, ours) = (on(&Compute::processor()), on(&card));
        let largest = theirs.iter().fold(0f32, |most, v| most.max(v.abs()));
        let furthest = theirs.iter().zip(&ours).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(theirs.iter().zip(&start).any(|(a, b)| a != b), "{loss:?}: nothing was trained");
        assert!(f64::from(furthest / largest) <= crate::device::TOLERANCE, "{loss:?}: {furthest} of {largest}");
    }
}
