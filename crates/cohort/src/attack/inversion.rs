//! What rows hold, from the update of the first layer.
//!
//! For a linear layer on the features, the gradient of unit j's weights over that of its bias is a mean of the rows, weighed
//! by what goes back to the unit: Σ δ·x / Σ δ. Where one row outweighs the others, it is that row (Phong et al. 2018, section
//! III). The same is taken of an update of several steps, where it is so about.

use hospes_protocol::plan::Layer;
use hospes_protocol::plan::model::{Wire, place};

use super::{Guard, Inversion, Noise, Run, below, mean, shuffled};
use crate::component::Matrix;
use crate::error::CohortError;

/// A number is found that is off by no more than this part of its column's standard deviation.
const TOLERANCE: f64 = 0.1;
/// Features that a row may have.
const MOST_COLUMNS: usize = 500;
/// Units of the layer that are looked at: those whose bias moved most.
const MOST_UNITS: usize = 64;
/// Rows with which a guess is compared.
const MOST_ROWS: usize = 2_000;
/// A bias that moved by less did so by rounding.
const LEAST_MOVE: f64 = 1e-9;

/// Where the parameters of a first layer lie among all.
struct First {
    weights: std::ops::Range<usize>,
    bias: std::ops::Range<usize>,
}

impl Run<'_, '_, '_> {
    /// What the update of the first round gives away of rows. Empty where no first layer takes the features as they are.
    pub(super) fn inversion(
        &mut self,
        sites: Option<u32>,
        noise: Option<Noise>,
    ) -> Result<Vec<Inversion>, CohortError> {
        let data = self.target.data;
        let Some(first) = self.first_layer().filter(|_| (1..=MOST_COLUMNS).contains(&data.columns.len())) else {
            return Ok(Vec::new());
        };
        let Some(truth) = Truth::of(data) else { return Ok(Vec::new()) };
        let own = self.update(data, None)?;
        let mut found = vec![self.scored_against(&truth, Guard::None, &first, &own)];
        if let Some(sites) = sites {
            let mut sum = vec![own];
            for other in 1..sites as usize {
                // In place of another site's rows, which are not here: columns as they are, each in an order of its own.
                let rows = self.mixed(data, other);
                sum.push(self.update(&rows, None)?);
            }
            let parts: Vec<&[f32]> = sum.iter().map(Vec::as_slice).collect();
            found.push(self.scored_against(&truth, Guard::Masked { sites }, &first, &mean(&parts)));
        }
        if noise.is_some() {
            let noisy = self.update(data, noise)?;
            found.push(self.scored_against(&truth, Guard::Noise, &first, &noisy));
        }
        Ok(found)
    }

    /// The linear layer with a bias that takes the features, if there is one.
    fn first_layer(&self) -> Option<First> {
        let layers = place(&self.target.params.model, self.target.data.inputs()).0;
        let mut at = 0;
        for layer in &layers {
            let lengths: Vec<usize> =
                layer.tensors.iter().map(|t| usize::try_from(t.len()).unwrap_or(usize::MAX)).collect();
            match (&layer.layer, &layer.from[..], &lengths[..]) {
                (Layer::Linear(_), [Wire::Features], [weights, bias]) => {
                    return Some(First { weights: at..at + weights, bias: at + weights..at + weights + bias });
                }
                _ => at += lengths.iter().sum::<usize>(),
            }
        }
        None
    }

    /// What one round on these rows changes.
    fn update(&mut self, data: &Matrix, noise: Option<Noise>) -> Result<Vec<f32>, CohortError> {
        let start = self.target.start;
        let keys = self.of_row.clone();
        let mut network = self.network(data, start)?;
        self.round(&mut network, data, &keys, noise, (usize::MAX, 1))?;
        Ok(network.parameters().iter().zip(start).map(|(after, before)| after - before).collect())
    }

    /// Rows of the same columns, in which nothing of one row is together.
    fn mixed(&self, data: &Matrix, number: usize) -> Matrix {
        let mut stream = self.stream("attack-others", number);
        let (width, mut rows) = (data.columns.len(), data.of_rows(&(0..data.rows).collect::<Vec<_>>()));
        for column in 0..width {
            let order = shuffled(data.rows, &mut stream);
            for (row, from) in order.into_iter().enumerate() {
                rows.values[row * width + column] = data.values[from * width + column];
            }
        }
        let order = shuffled(data.rows, &mut stream);
        rows.labels = order.into_iter().map(|from| data.labels[from]).collect();
        rows
    }

    fn scored_against(&self, truth: &Truth<'_>, guard: Guard, first: &First, update: &[f32]) -> Inversion {
        let guesses = candidates(&update[first.weights.clone()], &update[first.bias.clone()]);
        let mut stream = self.stream("attack-guesses", 0);
        let best = |guess: &mut dyn FnMut(usize) -> Vec<f64>| {
            (0..guesses.len().max(1)).map(|number| truth.share(&guess(number))).fold(0.0, f64::max)
        };
        let recovered = best(&mut |number| guesses.get(number).cloned().unwrap_or_default());
        let guessed = best(&mut |number| match number {
            0 => truth.means.clone(),
            _ => truth.drawn(|rows| below(rows, &mut stream)),
        });
        Inversion { guard, columns: truth.columns.len() as u64, recovered, guessed }
    }
}

/// What the rows are, against which guesses are held.
struct Truth<'a> {
    data: &'a Matrix,
    /// Columns that differ from row to row, with how far off a number may be.
    columns: Vec<(usize, f64)>,
    /// Of all columns.
    means: Vec<f64>,
    /// With these rows guesses are compared.
    rows: Vec<usize>,
}

impl<'a> Truth<'a> {
    /// `None` where all rows are alike.
    fn of(data: &'a Matrix) -> Option<Self> {
        let (count, width) = (data.rows.max(1) as f64, data.columns.len());
        let value = |row: usize, column: usize| f64::from(data.values[row * width + column]);
        let mut means = Vec::with_capacity(width);
        let mut columns = Vec::new();
        for column in 0..width {
            let mean = (0..data.rows).map(|row| value(row, column)).sum::<f64>() / count;
            let squares = (0..data.rows).map(|row| (value(row, column) - mean).powi(2)).sum::<f64>();
            let deviation = (squares / count).sqrt();
            if deviation > 1e-6 * mean.abs().max(1e-6) {
                columns.push((column, TOLERANCE * deviation));
            }
            means.push(mean);
        }
        let rows = (0..data.rows).step_by(data.rows.div_ceil(MOST_ROWS).max(1)).collect();
        (!columns.is_empty()).then_some(Self { data, columns, means, rows })
    }

    /// The largest share of the columns in which a guess is that of a row.
    fn share(&self, guess: &[f64]) -> f64 {
        let matches = |row: &usize| {
            let values = self.data.row(*row);
            let is_found = |(column, most): &&(usize, f64)| {
                guess.get(*column).is_some_and(|guess| (guess - f64::from(values[*column])).abs() <= *most)
            };
            self.columns.iter().filter(is_found).count()
        };
        self.rows.iter().map(matches).max().unwrap_or(0) as f64 / self.columns.len().max(1) as f64
    }

    /// A guess of each column's value from any row.
    fn drawn(&self, mut row: impl FnMut(usize) -> usize) -> Vec<f64> {
        let width = self.data.columns.len();
        (0..width).map(|column| f64::from(self.data.values[row(self.data.rows) * width + column])).collect()
    }
}

/// A guess of a row for each unit whose bias moved, those that moved most first.
///
/// # Shapes
/// `weights`: features × units, row-major.
fn candidates(weights: &[f32], bias: &[f32]) -> Vec<Vec<f64>> {
    let mut units: Vec<usize> = (0..bias.len()).filter(|unit| f64::from(bias[*unit].abs()) > LEAST_MOVE).collect();
    units.sort_by(|a, b| bias[*b].abs().total_cmp(&bias[*a].abs()));
    units.truncate(MOST_UNITS);
    let features = weights.chunks(bias.len().max(1));
    let guess = |unit: &usize| {
        features.clone().map(|of_feature| f64::from(of_feature[*unit]) / f64::from(bias[*unit])).collect()
    };
    units.iter().map(guess).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gradients of two units on two rows of three features.
    #[test]
    fn a_unit_that_one_row_moves_holds_that_row() {
        let rows = [[1.0f32, -2.0, 0.5], [3.0, 4.0, -1.0]];
        // What goes back: the first row moves both units, the second only the second one.
        let back = [[0.25f32, 0.5], [0.0, -1.5]];
        let weight = |feature: usize, unit: usize| (0..2).map(|row| rows[row][feature] * back[row][unit]).sum::<f32>();
        let weights: Vec<f32> = (0..6).map(|at| weight(at / 2, at % 2)).collect();
        let bias: Vec<f32> = (0..2).map(|unit| back[0][unit] + back[1][unit]).collect();
        let found = candidates(&weights, &bias);
        assert_eq!(found.len(), 2);
        // The second moved more.
        assert_eq!(found[1], [1.0, -2.0, 0.5]);
        assert_ne!(found[0], [3.0, 4.0, -1.0]);
        assert!(candidates(&weights, &[0.0, 0.0]).is_empty());
    }
}
