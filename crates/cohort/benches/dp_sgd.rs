//! What an optimiser step costs with differential privacy against one without: `cargo bench -p hospes-cohort --bench dp_sgd`.
//!
//! An MLP on features and a small convolutional network on images, on the processor, with as many rows in a batch on average.
//! Noise is drawn for each parameter once in a step, however many rows there are, so that small batches pay most for it:
//! there are two sizes of batches, with noise and without. For the larger ones with noise it prints a line
//! `measured NAME TIMES`: how many times as long the step with differential privacy takes.

// What it measures is what it is for.
#![allow(clippy::print_stdout)]

use hospes_cohort::device::Place;
use hospes_cohort::train::dp::{Trial, step_times};
use hospes_protocol::plan::model::Inputs;
use hospes_protocol::plan::{Conv, GroupNorm, Init, Layer, Linear, Loss, Model, Pool};

/// Rows of a batch: as in the benchmark of plain training, and as is usual with differential privacy.
const BATCHES: [u32; 2] = [32, 256];
/// What an accountant calls the noise multiplier.
const NOISE_MULTIPLIER: f64 = 1.0;

fn main() -> anyhow::Result<()> {
    // Cargo passes `--bench`.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let image = Inputs { features: 0, image: Some([1, 28, 28]) };
    // Steps of the larger batches that are timed.
    for (name, model, inputs, steps) in [("dp_mlp", mlp(), Inputs::from(30u64), 200), ("dp_cnn", cnn(), image, 8)] {
        if !name.contains(&filter) {
            continue;
        }
        let mut last = 0.0;
        for batch in BATCHES {
            let (loss, steps) = (Loss::BinaryCrossEntropy, steps * BATCHES[1] / batch);
            let trial = Trial { model: &model, inputs, loss, batch, steps, place: Place::Processor };
            let mut normal = Normal(1);
            let mut noise = |sum: &mut [i64], sensitivity: f64| {
                sum.iter_mut().for_each(|number| *number += normal.draw(NOISE_MULTIPLIER * sensitivity));
            };
            let (bare, whole) = (step_times(&trial, &mut |_, _| ())?, step_times(&trial, &mut noise)?);
            last = whole.private_s / whole.plain_s;
            println!(
                "{name}, {batch} rows: {:.3} ms plain, {:.2} times as long without noise, {last:.2} with it",
                whole.plain_s * 1e3,
                bare.private_s / bare.plain_s,
            );
        }
        println!("measured {name} {last:.3}");
    }
    Ok(())
}

fn linear(out: u32) -> Layer {
    Layer::Linear(Linear { out, bias: true, init: Init::TorchDefault })
}

fn mlp() -> Model {
    vec![linear(128), Layer::Relu {}, linear(128), Layer::Relu {}, linear(1)].into()
}

/// The preset `cnn_small`, with group norm in place of batch norm.
fn cnn() -> Model {
    let block = |out| {
        [
            Layer::Conv2d(Conv { out, kernel: 3, stride: 1, padding: 1, bias: false }),
            Layer::GroupNorm(GroupNorm { groups: 4 }),
            Layer::Relu {},
            Layer::MaxPool(Pool { kernel: 2, stride: None, padding: 0 }),
        ]
    };
    let end = [Layer::Flatten {}, linear(64), Layer::Relu {}, linear(1)];
    [block(16), block(32), end].concat().into()
}

/// Numbers that are about normal: for time, not for privacy. A sampler that is exact is measured where it is.
struct Normal(u64);

impl Normal {
    /// Knuth's MMIX generator and Box, Muller 1958; the second one of the pair is not used.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    fn draw(&mut self, deviation: f64) -> i64 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let (radius, angle) = (uniform(), uniform());
        ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos() * deviation).round() as i64
    }
}
