//! The way back through a layer with the gradients of its parameters kept apart by subject, so that each subject's gradient
//! can be clipped as a whole before any two are added.
//!
//! What a layer is given on the way back, the gradient δ of the summed loss with respect to what it put out, has the rows of
//! the batch in it one by one as long as no layer mixes rows. (Where a framework goes back by itself, the same δ is the
//! gradient of a zero that is added to each layer's output; here it is at hand.) With it, a row's gradient of a linear map is
//! the outer product of what came in and δ, whose length needs no product at all: ‖x ⊗ δ‖ = ‖x‖·‖δ‖ (Goodfellow 2015).
//! Convolutions are the same over their windows (Rochette, Manoel, Tramel 2019), norms sum δ and δ·x̂ over positions, and an
//! embedding adds δ up by codes. Of these, and where a subject has several rows, the gradients of the subjects themselves are
//! held: a length that is computed in another way than the sum that it bounds would be off where the rows of a subject
//! nearly cancel.

use burn::tensor::{Int, Tensor, TensorData};
use hospes_protocol::plan::Layer;
use hospes_protocol::plan::model::Placed;

use super::{Saved, backward, linear_sides, linear_to_input, sides, weight, window};
use crate::train::convolution;
use crate::train::network::values;

/// Squares that are added in 32 bits; their sums are added in 64.
const BLOCK: usize = 1 << 10;

/// By what part of itself a length by [`squares`] may fall short. Where every square and every addition is rounded to the nearest
/// number or towards 0, a sum of so many is short by `BLOCK` · 2⁻²³ at most, in whatever order it is taken (Higham 2002, section
/// 4.2), the product of two such sums by twice that, and a length by half as much as its square. This is twice that bound.
#[allow(clippy::cast_precision_loss)]
pub(in crate::train) const SHORTFALL: f64 = BLOCK as f64 / (1u64 << 22) as f64;

/// Subjects that follow each other in a batch and have as many rows each.
#[derive(Clone, Copy)]
struct Run {
    /// The first row.
    start: usize,
    subjects: usize,
    /// Rows of each.
    rows: usize,
}

/// Which rows of a batch belong to one subject.
pub(in crate::train) struct Runs(Vec<Run>);

impl Runs {
    /// `subjects`: the rows of each, in the order of the batch.
    pub(in crate::train) fn of(subjects: &[&[usize]]) -> Self {
        let mut start = 0;
        let run = |subjects: &[&[usize]]| {
            let run = Run { start, subjects: subjects.len(), rows: subjects[0].len() };
            start += run.subjects * run.rows;
            run
        };
        Self(subjects.chunk_by(|one, next| one.len() == next.len()).map(run).collect())
    }

    fn are_single(&self) -> bool {
        self.0.iter().all(|run| run.rows == 1)
    }

    /// Rows of a run, subject by subject.
    fn cut(all: &Tensor<2>, run: Run) -> Tensor<3> {
        let [_, width] = all.dims();
        let rows = all.clone().narrow(0, run.start, run.subjects * run.rows);
        rows.reshape([run.subjects, run.rows, width])
    }

    /// Sums over the rows of each subject.
    fn sums(&self, all: Tensor<2>) -> Tensor<2> {
        if self.are_single() {
            return all;
        }
        let [_, width] = all.dims();
        let parts = self.0.iter().map(|run| Self::cut(&all, *run).sum_dim(1).reshape([run.subjects, width]));
        Tensor::cat(parts.collect(), 0)
    }

    /// Sums over the rows of each subject of the outer products of two vectors.
    fn outer(&self, x: &Tensor<2>, gradient: &Tensor<2>) -> Tensor<2> {
        let ([_, features], [_, out]) = (x.dims(), gradient.dims());
        let parts = self.0.iter().map(|run| {
            let products = Self::cut(x, *run).swap_dims(1, 2).matmul(Self::cut(gradient, *run));
            products.reshape([run.subjects, features * out])
        });
        Tensor::cat(parts.collect(), 0)
    }
}

/// What each subject adds to the gradient of one layer's parameters.
pub(in crate::train) enum Apart {
    /// Of a linear map where each subject has one row.
    Outer(Box<Outer>),
    /// The gradients themselves, tensor by tensor: `[subjects, entries]`.
    Whole(Vec<Tensor<2>>),
}

/// Two vectors for each row, of which the outer product is the gradient of a linear map's weight.
pub(in crate::train) struct Outer {
    /// What came in.
    x: Tensor<2>,
    /// The gradient of what went out, which is that of a bias, too.
    gradient: Tensor<2>,
    has_bias: bool,
}

impl Apart {
    /// What the squared lengths are computed from.
    fn vectors(&self) -> Vec<&Tensor<2>> {
        match self {
            Self::Outer(outer) => vec![&outer.x, &outer.gradient],
            Self::Whole(tensors) => tensors.iter().collect(),
        }
    }

    /// The squared length of one subject's gradient in this layer. `of`: that of each of the [`Apart::vectors`], asked for in
    /// their order.
    fn square(&self, mut of: impl FnMut(&Tensor<2>) -> f64) -> f64 {
        match self {
            Self::Outer(outer) => {
                // A bias is a weight of a number that is always 1.
                let x = of(&outer.x) + f64::from(outer.has_bias);
                x * of(&outer.gradient)
            }
            Self::Whole(tensors) => tensors.iter().map(of).sum(),
        }
    }

    /// Without the others.
    pub(in crate::train) fn only(self, subjects: &Tensor<1, Int>) -> Self {
        let of = |x: Tensor<2>| x.select(0, subjects.clone());
        match self {
            Self::Outer(outer) => {
                let Outer { x, gradient, has_bias } = *outer;
                Self::Outer(Box::new(Outer { x: of(x), gradient: of(gradient), has_bias }))
            }
            Self::Whole(tensors) => Self::Whole(tensors.into_iter().map(of).collect()),
        }
    }

    /// The sum over all subjects, each times its factor: the gradient of each trained tensor, flattened.
    ///
    /// # Shapes
    /// `factors`: `[subjects, 1]`.
    pub(in crate::train) fn sum(self, factors: &Tensor<2>) -> Vec<Tensor<1>> {
        match self {
            Self::Outer(outer) => {
                let Outer { x, gradient, has_bias } = *outer;
                let ([_, features], [_, out]) = (x.dims(), gradient.dims());
                let scaled = gradient * factors.clone();
                let mut sums = vec![x.swap_dims(0, 1).matmul(scaled.clone()).reshape([features * out])];
                if has_bias {
                    sums.push(scaled.sum_dim(0).reshape([out]));
                }
                sums
            }
            Self::Whole(tensors) => {
                let factors = factors.clone().swap_dims(0, 1);
                let sum = |tensor: Tensor<2>| {
                    let [_, length] = tensor.dims();
                    factors.clone().matmul(tensor).reshape([length])
                };
                tensors.into_iter().map(sum).collect()
            }
        }
    }
}

/// The squared length of each subject's gradient over all of these layers, which are of the same subjects.
// PRIVACY: a length that falls short by more than `SHORTFALL` would let a subject add more than the clip.
#[allow(clippy::cast_precision_loss)]
pub(in crate::train) fn squares(layers: &[&Apart]) -> Vec<f64> {
    let parts: Vec<Tensor<2>> = layers.iter().flat_map(|layer| layer.vectors()).flat_map(block_sums).collect();
    if parts.is_empty() {
        return Vec::new();
    }
    // Read at once, as a card is waited for each time.
    let all = Tensor::cat(parts, 1);
    let [_, width] = all.dims();
    let of_subject = |sums: &[f32]| -> f64 {
        let mut rest = sums;
        let mut next = |vector: &Tensor<2>| {
            let [_, entries] = vector.dims();
            let (mine, others) = rest.split_at(entries.div_ceil(BLOCK));
            rest = others;
            // A card may take a square below the normal numbers for 0 (WGSL, "Differences from IEEE-754"), the processor one below
            // 2⁻¹⁵⁰. So each is taken for the smallest normal number more: of the two factors of a linear map's length, one may be
            // as small as that and the other one so large that their product is many clips.
            let unseen = entries as f64 * f64::from(f32::MIN_POSITIVE);
            mine.iter().map(|sum| f64::from(*sum)).sum::<f64>() + unseen
        };
        layers.iter().map(|layer| layer.square(&mut next)).sum()
    };
    values(&all).chunks(width).map(of_subject).collect()
}

/// Sums of the squares of `BLOCK` entries each, one tensor of full blocks and one of the rest.
///
/// # Shapes
/// `[subjects, blocks]`.
fn block_sums(vectors: &Tensor<2>) -> Vec<Tensor<2>> {
    let [subjects, entries] = vectors.dims();
    let (blocks, rest) = (entries / BLOCK, entries % BLOCK);
    let squares = |start: usize, length: usize| vectors.clone().narrow(1, start, length).square();
    let full = (blocks > 0).then(|| {
        let squares = squares(0, blocks * BLOCK).reshape([subjects, blocks, BLOCK]);
        squares.sum_dim(2).reshape([subjects, blocks])
    });
    let rest = (rest > 0).then(|| squares(blocks * BLOCK, rest).sum_dim(1));
    full.into_iter().chain(rest).collect()
}

/// As [`backward`], with the gradients of the parameters kept apart by subject: those with respect to what came in, in order,
/// and those of the parameters, if the layer has any.
///
/// A layer with parameters for which there is nothing here trains nothing: what is not kept apart cannot be clipped, so it
/// is left out.
pub(in crate::train) fn backward_apart(
    placed: &Placed,
    saved: Saved,
    before: &[[usize; 4]],
    parameters: &[Tensor<1>],
    gradient: Tensor<4>,
    wanted: bool,
    subjects: &Runs,
) -> (Vec<Tensor<4>>, Option<Apart>) {
    let whole = |rows: Vec<Tensor<2>>| Apart::Whole(rows.into_iter().map(|tensor| subjects.sums(tensor)).collect());
    match (&placed.layer, saved) {
        (Layer::Linear(_), Saved::Input(x)) => {
            let (x, gradient) = linear_sides(x, gradient);
            let inputs = wanted.then(|| linear_to_input(gradient.clone(), &parameters[0], x.dims()[1]));
            let has_bias = parameters.len() > 1;
            let apart = if subjects.are_single() {
                Apart::Outer(Box::new(Outer { x, gradient, has_bias }))
            } else {
                let mut tensors = vec![subjects.outer(&x, &gradient)];
                if has_bias {
                    tensors.push(subjects.sums(gradient));
                }
                Apart::Whole(tensors)
            };
            (inputs.into_iter().collect(), Some(apart))
        }
        (Layer::Conv1d(_) | Layer::Conv2d(_), Saved::Windows(kept)) => {
            let (has_bias, weight) = (parameters.len() > 1, weight(parameters, placed, before[0][1]));
            let kept = (kept, before[0]);
            let (rows, input) = convolution::backward_apart(kept, weight, has_bias, window(placed), gradient, wanted);
            (input.into_iter().collect(), Some(whole(rows)))
        }
        (Layer::GroupNorm(_) | Layer::LayerNorm {}, Saved::Normal(normal)) => {
            match normal.backward_apart(gradient, parameters) {
                Some((input, rows)) => (vec![input], Some(whole(rows))),
                None => (Vec::new(), None),
            }
        }
        (Layer::Embedding(embedding), Saved::Graph(x, ..)) => {
            let x = x.without_autodiff();
            let rows = by_codes(&x, gradient, embedding.codes as usize, sides(placed)[0]);
            // A code has no gradient.
            (vec![x.zeros_like()], Some(whole(vec![rows])))
        }
        (_, saved) => (backward(placed, saved, before, parameters, gradient, wanted).inputs, None),
    }
}

/// The gradient of each row with respect to the vectors of all codes.
///
/// # Shapes
/// `[rows, codes · length]`.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn by_codes(x: &Tensor<4>, gradient: Tensor<4>, codes: usize, length: usize) -> Tensor<2> {
    let [rows, places, ..] = x.dims();
    // As the layer itself takes its codes; there are few of them.
    let last = codes.saturating_sub(1) as f32;
    let mut chosen = vec![0f32; rows * codes * places];
    for (at, code) in values(x).into_iter().enumerate() {
        let (row, place) = (at / places, at % places);
        chosen[(row * codes + code.clamp(0.0, last) as usize) * places + place] = 1.0;
    }
    let chosen = Tensor::<3>::from_data(TensorData::new(chosen, [rows, codes, places]), &x.device());
    let gradient = gradient.reshape([rows, length, places]).swap_dims(1, 2);
    chosen.matmul(gradient).reshape([rows, codes * length])
}
