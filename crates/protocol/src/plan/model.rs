//! Shapes and initial values of models, from the plan alone.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Init, Layer, Linear};
use crate::canon;

/// Name and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TensorShape {
    /// Name, such as `0.weight`.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
}

impl TensorShape {
    /// Number of entries; the largest number there is if it cannot be counted.
    pub fn len(&self) -> u64 {
        self.shape.iter().fold(1u64, |product, side| product.saturating_mul(*side))
    }
    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tensors of a model in order: for the layer at index `i`, `i.weight` and, if it has one, `i.bias`.
///
/// # Shapes
/// `weight` is `[in, out]`, row-major, as Burn's `Linear` keeps it; `bias` is `[out]`.
pub fn tensors(layers: &[Layer], inputs: u64) -> Vec<TensorShape> {
    let mut list = Vec::new();
    for (index, width, linear) in linears(layers, inputs) {
        let out = u64::from(linear.out);
        list.push(TensorShape { name: format!("{index}.weight"), shape: vec![width, out] });
        if linear.bias {
            list.push(TensorShape { name: format!("{index}.bias"), shape: vec![out] });
        }
    }
    list
}

/// Number of parameters; the largest number there is if it cannot be counted.
pub fn parameters(layers: &[Layer], inputs: u64) -> u64 {
    tensors(layers, inputs).iter().fold(0, |sum, tensor| sum.saturating_add(tensor.len()))
}

/// Whether a model is one affine map, however many layers it is written in: no activation stands between two of its
/// linear layers. Its parameters can be solved for the rows like those of a generalised linear model.
pub fn is_glm_like(layers: &[Layer]) -> bool {
    let linear = |layer: &Layer| matches!(layer, Layer::Linear(_));
    match (layers.iter().position(linear), layers.iter().rposition(linear)) {
        (Some(first), Some(last)) => layers[first..=last].iter().all(linear),
        _ => true,
    }
}

/// Initial values of all tensors, one after the other in order, from the plan's seed through ChaCha20 (the same bytes
/// at every site and on every machine).
///
/// # Shapes
/// As many values as [`tensors`] has entries, each tensor row-major.
pub fn initial(layers: &[Layer], inputs: u64, seed: u64) -> Vec<f32> {
    initial_values(layers, inputs, seed).collect()
}

/// The values of [`initial`] one by one, for models that should not lie in memory twice.
pub fn initial_values(layers: &[Layer], inputs: u64, seed: u64) -> impl Iterator<Item = f32> {
    let key = canon::digest("initial-model", 1, &seed.to_le_bytes());
    let mut stream = ChaCha20Rng::from_seed(*key.as_bytes());
    let runs: Vec<(u64, Option<f64>)> = linears(layers, inputs)
        .map(|(_, width, linear)| {
            let out = u64::from(linear.out);
            let entries = width.saturating_mul(out).saturating_add(if linear.bias { out } else { 0 });
            let bound = match linear.init {
                Init::Zeros => None,
                // PyTorch's nn.Linear: kaiming_uniform with a = √5 gives ±1/√fan_in, for weights and bias alike.
                #[expect(clippy::cast_precision_loss, reason = "a width lies far below 2^53")]
                Init::TorchDefault => Some(1.0 / (width.max(1) as f64).sqrt()),
            };
            (entries, bound)
        })
        .collect();
    let mut run = 0;
    let mut done = 0u64;
    std::iter::from_fn(move || {
        while runs.get(run).is_some_and(|(entries, _)| done == *entries) {
            (run, done) = (run + 1, 0);
        }
        let (_, bound) = runs.get(run)?;
        done += 1;
        Some(bound.map_or(0.0, |bound| uniform(&mut stream, bound)))
    })
}

/// A number from U(−bound, bound) out of 24 random bits, at the middle of its step.
fn uniform(stream: &mut ChaCha20Rng, bound: f64) -> f32 {
    let unit = (f64::from(stream.next_u32() >> 8) + 0.5) / f64::from(1u32 << 24);
    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is meant")]
    let value = ((2.0 * unit - 1.0) * bound) as f32;
    value
}

/// The affine layers with their index and the width of what comes in.
fn linears(layers: &[Layer], inputs: u64) -> impl Iterator<Item = (usize, u64, &Linear)> {
    let mut width = inputs;
    layers.iter().enumerate().filter_map(move |(index, layer)| match layer {
        Layer::Linear(linear) => Some((index, std::mem::replace(&mut width, u64::from(linear.out)), linear)),
        Layer::Relu {} | Layer::Gelu {} | Layer::Tanh {} | Layer::Sigmoid {} => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(out: u32, bias: bool, init: Init) -> Layer {
        Layer::Linear(Linear { out, bias, init })
    }

    #[test]
    fn tensors_are_named_by_layer_and_shaped_in_by_out() {
        let layers = [linear(4, true, Init::TorchDefault), Layer::Relu {}, linear(1, false, Init::Zeros)];
        let shapes: Vec<_> = tensors(&layers, 13).into_iter().map(|t| (t.name, t.shape)).collect();
        assert_eq!(
            shapes,
            [("0.weight".into(), vec![13, 4]), ("0.bias".into(), vec![4]), ("2.weight".into(), vec![4, 1])]
        );
        assert_eq!(parameters(&layers, 13), 13 * 4 + 4 + 4);
        assert_eq!(initial(&layers, 13, 1).len(), 60);
    }

    #[test]
    fn a_model_stays_one_affine_map_however_many_linear_layers_it_is_written_in() {
        let one = || linear(1, true, Init::Zeros);
        let alike: [&[Layer]; 6] = [
            &[one()],
            &[one(), one()],
            &[one(), one(), one()],
            &[one(), one(), Layer::Sigmoid {}],
            &[Layer::Tanh {}, one(), one()],
            &[],
        ];
        for layers in alike {
            assert!(is_glm_like(layers), "{layers:?}");
        }
        for activation in [Layer::Relu {}, Layer::Gelu {}, Layer::Tanh {}, Layer::Sigmoid {}] {
            assert!(!is_glm_like(&[one(), activation.clone(), one()]), "{activation:?}");
            assert!(!is_glm_like(&[one(), one(), activation.clone(), one()]), "{activation:?}");
        }
    }

    #[test]
    fn initial_values_are_the_same_for_ever_and_within_their_bounds() {
        let layers = [linear(1, true, Init::TorchDefault)];
        let values = initial(&layers, 13, 42);
        assert_eq!(values, initial(&layers, 13, 42));
        assert_ne!(values, initial(&layers, 13, 43));
        let bound = 1.0 / 13f32.sqrt();
        assert!(values.iter().all(|v| v.abs() < bound));
        assert_eq!(
            canon::digest("test", 1, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()).short(),
            "6da81aaf"
        );
        assert!(initial(&[linear(3, true, Init::Zeros)], 2, 0).iter().all(|v| *v == 0.0));
        let many = initial(&[linear(1_000, false, Init::TorchDefault)], 100, 7);
        let mean = many.iter().map(|v| f64::from(*v)).sum::<f64>() / 1e5;
        let square = many.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 1e5;
        // U(−.1, .1) has variance 1/300; five standard errors of mean and of the mean square.
        assert!(mean.abs() < 5.0 * (1.0f64 / 300.0 / 1e5).sqrt(), "{mean}");
        assert!((square - 1.0 / 300.0).abs() < 5.0 * 2.981e-3 / 1e5f64.sqrt(), "{square}");
    }

    #[test]
    fn absurd_sizes_saturate_and_never_panic() {
        let layers = vec![linear(u32::MAX, true, Init::Zeros); 3];
        assert_eq!(parameters(&layers, u64::MAX), u64::MAX);
        assert!(tensors(&[], 3).is_empty() && initial(&[], 3, 0).is_empty());
    }
}
