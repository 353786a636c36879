//! The sum of the gradients of some subjects, each clipped to one length before it is added (Abadi et al. 2016,
//! Algorithm 1), from one pass forth and one back.
//!
//! The pass back leaves, layer by layer, what each subject adds ([`Apart`]); from the lengths of all layers together follows
//! each subject's factor, and the sum is taken with it, without a second pass (Bu, Wang, Zha, Karypis 2023, "book-keeping").

use burn::tensor::{Int, Tensor, TensorData};
use hospes_protocol::plan::Layer;
use rand_chacha::ChaCha20Rng;

use super::{Network, Running, Trace};
use crate::component::Matrix;
use crate::error::CohortError;
use crate::train::augment::Changes;
use crate::train::layers::{Apart, Runs, backward_apart, squares};
use crate::train::loss::Goal;

/// Numbers of subjects' gradients that are held at once: 64 MiB.
const APART_NUMBERS: usize = 16 << 20;

/// Whose gradients are added, and by what rule.
#[derive(Clone, Copy)]
pub(in crate::train) struct Clipped<'a> {
    pub(in crate::train) data: &'a Matrix,
    /// The rows of each subject.
    pub(in crate::train) subjects: &'a [&'a [usize]],
    pub(in crate::train) goal: &'a Goal,
    /// The length to which a longer gradient is scaled down.
    pub(in crate::train) clip_norm_l2: f64,
}

/// What is drawn anew for each row: changes to images, if there are any, and masks of dropout.
pub(in crate::train) struct Fresh<'a> {
    pub(in crate::train) changes: Option<&'a mut Changes>,
    pub(in crate::train) masks: &'a mut ChaCha20Rng,
}

impl Network {
    /// Why the gradients of two rows cannot be told apart in this network or loss, if they cannot.
    fn mixes(&self, goal: &Goal) -> Option<String> {
        if goal.mixes_rows() {
            return Some(
                "the loss 'cox' compares the rows of a batch with each other, so that no clip bounds what one patient \
                 changes; take another loss, or train without differential privacy"
                    .to_owned(),
            );
        }
        let mixing = self.layers.iter().find(|layer| matches!(layer.layer, Layer::BatchNorm(_)))?;
        Some(format!(
            "the layer '{}' is a batch_norm, which mixes the rows of a batch, so that no clip bounds what one patient \
             changes; take a group_norm",
            mixing.name
        ))
    }

    /// Whether each subject's gradient is its own, as a clip needs it.
    ///
    /// # Errors
    /// [`CohortError::Plan`] naming the layer or loss that mixes subjects.
    pub(in crate::train) fn keeps_subjects_apart(&self, goal: &Goal, task: &str) -> Result<(), CohortError> {
        match self.mixes(goal) {
            Some(reason) => Err(CohortError::Plan { place: format!("tasks.{task}.params"), reason }),
            None => Ok(()),
        }
    }

    /// The sum of the clipped gradients of the loss, summed over the rows of each subject, with respect to the trained
    /// parameters. A subject whose gradient is no number, or too long to be squared, adds nothing.
    ///
    /// The parts in which a batch is taken hold whole subjects.
    ///
    /// # Errors
    /// As [`Network::keeps_subjects_apart`].
    pub(in crate::train) fn clipped_sum(
        &mut self,
        what: Clipped<'_>,
        fresh: &mut Fresh<'_>,
        task: &str,
    ) -> Result<Tensor<1>, CohortError> {
        self.keeps_subjects_apart(what.goal, task)?;
        let mut order: Vec<&[usize]> = what.subjects.iter().copied().filter(|rows| !rows.is_empty()).collect();
        order.sort_by_key(|rows| rows.len());
        let most = self.rows_apart(order.iter().all(|rows| rows.len() == 1));
        let mut sum = self.trained.zeros_like();
        for part in parts(&order, most) {
            let what = Clipped { subjects: part, ..what };
            sum = sum
                + match part {
                    [rows] if rows.len() > most => self.clipped_alone(what, rows, most, fresh),
                    _ => self.clipped_together(what, fresh),
                };
        }
        Ok(sum)
    }

    /// Rows whose gradients there is room for at once.
    fn rows_apart(&self, are_single: bool) -> usize {
        let length = |index: usize| self.spans[index].iter().map(ExactSizeIterator::len).sum::<usize>();
        let held = self.layers.iter().enumerate().map(|(index, layer)| match layer.layer {
            // The outer products themselves are not held.
            Layer::Linear(_) if are_single => 0,
            _ => length(index),
        });
        (APART_NUMBERS / held.sum::<usize>().max(1)).min(self.compute.rows_at_once).max(1)
    }

    /// In one pass over the rows of several subjects.
    fn clipped_together(&self, what: Clipped<'_>, fresh: &mut Fresh<'_>) -> Tensor<1> {
        let rows = what.subjects.concat();
        let runs = Runs::of(what.subjects);
        let batch = what.data.batch(&rows, fresh.changes.as_deref_mut(), &self.compute.device);
        let parameters = self.split();
        // There is no batch norm.
        let mut running: Vec<Option<Running>> = vec![None; self.layers.len()];
        let (traces, at_end) = self.forth(&parameters, &mut running, batch, (what.goal, 1.0), fresh.masks);
        let apart = self.walk_back(traces, at_end, |index, Trace { saved, before }, gradient, wanted| {
            backward_apart(&self.layers[index], saved, &before, &parameters[index], gradient, wanted, &runs)
        });
        let apart: Vec<Option<Apart>> = apart.into_iter().map(Option::flatten).collect();
        let squares = squares(&apart.iter().flatten().collect::<Vec<_>>());
        if squares.is_empty() {
            return self.trained.zeros_like();
        }
        let factors: Vec<f32> = squares.into_iter().map(|square| factor(square, what.clip_norm_l2)).collect();
        self.weighted(apart, factors)
    }

    /// The sum over the subjects, each times its factor.
    fn weighted(&self, mut apart: Vec<Option<Apart>>, mut factors: Vec<f32>) -> Tensor<1> {
        let device = &self.compute.device;
        // PRIVACY: 0 times a number that is none is none, so such a subject is taken out.
        if factors.contains(&0.0) {
            let left = (0i32..).zip(&factors).filter(|(_, factor)| **factor > 0.0).map(|(at, _)| at);
            let left: Vec<i32> = left.collect();
            if left.is_empty() {
                return self.trained.zeros_like();
            }
            let length = left.len();
            let left = Tensor::<1, Int>::from_data(TensorData::new(left, [length]), device);
            apart = apart.into_iter().map(|layer| layer.map(|layer| layer.only(&left))).collect();
            factors.retain(|factor| *factor > 0.0);
        }
        let length = factors.len();
        let factors = Tensor::<2>::from_data(TensorData::new(factors, [length, 1]), device);
        self.joined(apart.into_iter().map(|layer| layer.map_or_else(Vec::new, |layer| layer.sum(&factors))))
    }

    /// The clipped gradient of one subject with more rows than there is room for at once.
    fn clipped_alone(&mut self, what: Clipped<'_>, rows: &[usize], most: usize, fresh: &mut Fresh<'_>) -> Tensor<1> {
        let mut sum = self.trained.zeros_like();
        for part in rows.chunks(most) {
            let batch = what.data.batch(part, fresh.changes.as_deref_mut(), &self.compute.device);
            sum = sum + self.gradient(batch, what.goal, 1.0, fresh.masks);
        }
        let [length] = sum.dims();
        let square = squares(&[&Apart::Whole(vec![sum.clone().reshape([1, length])])]);
        match factor(square.first().copied().unwrap_or(f64::NAN), what.clip_norm_l2) {
            // PRIVACY: as in `weighted`.
            factor if factor > 0.0 => sum.mul_scalar(factor),
            _ => sum.zeros_like(),
        }
    }
}

/// By what a gradient of this squared length is multiplied; 0 if it is no number, or so large that 32 bits do not hold it: they
/// might not hold the factor either.
// PRIVACY: this bounds what one patient can change in the sum.
#[allow(clippy::cast_possible_truncation)]
fn factor(square: f64, clip_norm_l2: f64) -> f32 {
    if square.is_nan() || square > f64::from(f32::MAX) {
        return 0.0;
    }
    let norm = square.sqrt();
    if norm > clip_norm_l2 { (clip_norm_l2 / norm) as f32 } else { 1.0 }
}

/// Cuts subjects into parts of at most so many rows; one with more is a part by itself.
fn parts<'a, 'b>(order: &'a [&'b [usize]], most: usize) -> Vec<&'a [&'b [usize]]> {
    let (mut parts, mut start, mut rows) = (Vec::new(), 0, 0);
    for (index, subject) in order.iter().enumerate() {
        if index > start && rows + subject.len() > most {
            parts.push(&order[start..index]);
            (start, rows) = (index, 0);
        }
        rows += subject.len();
    }
    if start < order.len() {
        parts.push(&order[start..]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_length_is_above_the_clip_after_its_factor() {
        for clip in [1e-6, 1.0, 37.5] {
            for square in [0.0, 1e-30, 0.9, 1e12, f64::from(f32::MAX)] {
                let factor = f64::from(factor(square, clip));
                assert!(factor > 0.0 && factor * square.sqrt() <= clip * (1.0 + 1e-7), "{square}: {factor}");
            }
            for square in [f64::NAN, f64::INFINITY, 1e39, 1e76] {
                assert_eq!(factor(square, clip), 0.0);
            }
        }
    }
}
