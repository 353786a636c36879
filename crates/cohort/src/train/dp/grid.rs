//! Sums of clipped gradients on a grid, so that noise can be drawn in whole numbers, and how much of the clip that takes.
//!
//! Noise that is drawn as a floating-point number tells by its last digits what it was added to (Mironov 2012), and a sum of
//! 32-bit numbers can change by more than what was added to it (Casacuberta, Shoemate, Vadhan, Wagaman 2022). So the sum is
//! rounded to whole steps, as fine as the clip allows, and each subject is clipped to a little less than the clip: what
//! rounding to steps can add, as much again for the rounding of the sum, and by what the length of a gradient may be taken for
//! too short.

use crate::train::layers::SHORTFALL;

/// The part of the clip that rounding to steps takes, and the same for the rounding of the sum. Over n subjects in 32 bits the
/// latter is n²·2⁻²⁴ clips at worst, which is less for up to 128 subjects in a step, and about n·2⁻²⁴ where roundings go
/// either way as often, which is less for up to 16,000.
const ROUNDING: f64 = 1.0 / 1024.0;

/// The steps to which a sum is rounded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    clip_norm_l2: f64,
    step: f64,
}

impl Grid {
    /// Of sums of so many numbers in which one subject changes no more than the clip.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    pub(super) fn new(clip_norm_l2: f64, numbers: usize) -> Self {
        // Two sums that differ by one subject are each rounded by half a step at most in each number, so that they come to
        // differ by √numbers steps more. A power of two rounds nothing itself.
        let most = clip_norm_l2 * ROUNDING / (numbers.max(1) as f64).sqrt();
        Self { clip_norm_l2, step: 2f64.powi(most.log2().floor() as i32) }
    }

    /// To what length subjects are clipped.
    pub(super) fn clip_norm_l2(&self) -> f64 {
        self.clip_norm_l2 * (1.0 - 2.0 * ROUNDING - SHORTFALL)
    }

    /// By how many steps one subject changes a sum at most, as a Euclidean length.
    pub(super) fn sensitivity(&self) -> f64 {
        self.clip_norm_l2 / self.step
    }

    /// A sum in whole steps.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn rounded(&self, sum: &[f32]) -> Vec<i64> {
        sum.iter().map(|value| (f64::from(*value) / self.step).round() as i64).collect()
    }

    /// Back from whole steps, divided.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    pub(super) fn divided(&self, sum: &[i64], divisor: f64) -> Vec<f32> {
        sum.iter().map(|steps| (*steps as f64 * self.step / divisor) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_as_fine_as_rounding_may_take_of_the_clip() {
        for (clip, numbers) in [(1.0, 1), (0.1, 20_000), (37.5, 5_000_000)] {
            let grid = Grid::new(clip, numbers);
            let taken = grid.step * (numbers as f64).sqrt();
            assert!(taken <= clip * ROUNDING && taken > 0.49 * clip * ROUNDING, "{taken}");
            let longest = grid.clip_norm_l2() / (1.0 - SHORTFALL);
            assert!(longest + taken + clip * ROUNDING <= clip * (1.0 + 1e-12));
            assert!((grid.sensitivity() * grid.step - clip).abs() < 1e-12 * clip);
            let sum = [0.3f32, -1.7, 0.0];
            let back = grid.divided(&grid.rounded(&sum), 1.0);
            assert!(sum.iter().zip(&back).all(|(a, b)| f64::from((a - b).abs()) <= 0.5 * grid.step + 1e-7));
        }
    }
}
