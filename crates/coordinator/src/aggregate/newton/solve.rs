//! The step of Newton's method: a symmetric positive definite system, solved by Cholesky's decomposition after scaling
//! to a unit diagonal (Higham 2002, sections 10.1 and 7.3: within a factor of the best diagonal scaling).

/// What is left of a column after those before it, as a fraction of its square, below which it counts as a sum of them.
/// R's `glm` draws the line at a norm of 1e-7 and less; its square is 1e-14.
const DEPENDENT: f64 = 1e-13;

/// Step and standard errors.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Solution {
    /// Information⁻¹ · score.
    pub(super) step: Vec<f64>,
    /// Square roots of the diagonal of information⁻¹.
    pub(super) errors: Vec<f64>,
    /// Square roots of the diagonal of the information: the sizes of the columns.
    pub(super) sizes: Vec<f64>,
}

/// Solves for the step.
///
/// # Shapes
/// `triangle`: the upper triangle row by row, n(n + 1)/2 entries for a score of n.
///
/// # Errors
/// The index of the first column that is a sum of those before it, or zero.
pub(super) fn solve(triangle: &[f64], score: &[f64]) -> Result<Solution, usize> {
    let order = score.len();
    let sizes = scales(triangle, order)?;
    let factor = cholesky(triangle, &sizes)?;
    let scaled: Vec<f64> = score.iter().zip(&sizes).map(|(u, s)| u / s).collect();
    let step = backward(&factor, &forward(&factor, &scaled));
    let step = step.iter().zip(&sizes).map(|(x, s)| x / s).collect();
    // (LLᵀ)⁻¹ = L⁻ᵀL⁻¹: its diagonal holds the squares of the columns of L⁻¹.
    let mut unit = vec![0.0; order];
    let errors = (0..order).map(|column| {
        unit.fill(0.0);
        unit[column] = 1.0;
        forward(&factor, &unit).iter().map(|v| v * v).sum::<f64>().sqrt() / sizes[column]
    });
    let errors = errors.collect();
    Ok(Solution { step, errors, sizes })
}

/// Square roots of the diagonal.
fn scales(triangle: &[f64], order: usize) -> Result<Vec<f64>, usize> {
    let mut at = 0;
    let mut scale = Vec::with_capacity(order);
    for row in 0..order {
        let diagonal = triangle[at];
        if diagonal <= 0.0 || !diagonal.is_finite() {
            return Err(row);
        }
        scale.push(diagonal.sqrt());
        at += order - row;
    }
    Ok(scale)
}

/// The lower factor L, row by row, of the scaled matrix.
fn cholesky(triangle: &[f64], scale: &[f64]) -> Result<Vec<Vec<f64>>, usize> {
    let order = scale.len();
    // Entry (column, row) of the upper triangle; its row `column` begins after those before it.
    let entry = |row: usize, column: usize| {
        let start = column * (2 * order - column + 1) / 2;
        triangle[start + row - column] / (scale[row] * scale[column])
    };
    let mut factor: Vec<Vec<f64>> = Vec::with_capacity(order);
    for row in 0..order {
        let mut next = vec![0.0; row + 1];
        for column in 0..row {
            let done: f64 = (0..column).map(|k| next[k] * factor[column][k]).sum();
            next[column] = (entry(row, column) - done) / factor[column][column];
        }
        let left = 1.0 - next[..row].iter().map(|v| v * v).sum::<f64>();
        if left.is_nan() || left < DEPENDENT {
            return Err(row);
        }
        next[row] = left.sqrt();
        factor.push(next);
    }
    Ok(factor)
}

fn forward(factor: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let mut solved = Vec::with_capacity(right.len());
    for (row, line) in factor.iter().enumerate() {
        let done: f64 = line[..row].iter().zip(&solved).map(|(l, x)| l * x).sum();
        solved.push((right[row] - done) / line[row]);
    }
    solved
}

fn backward(factor: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let order = right.len();
    let mut solved = vec![0.0; order];
    for row in (0..order).rev() {
        let done: f64 = (row + 1..order).map(|k| factor[k][row] * solved[k]).sum();
        solved[row] = (right[row] - done) / factor[row][row];
    }
    solved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_of_known_solution_is_solved_whatever_its_scale() {
        // [[4, 2], [2, 3]]⁻¹ = [[3, −2], [−2, 4]]/8.
        let found = solve(&[4.0, 2.0, 3.0], &[2.0, 1.0]).unwrap();
        assert!((found.step[0] - 0.5).abs() < 1e-15 && found.step[1].abs() < 1e-15);
        assert!((found.errors[0] - (3.0f64 / 8.0).sqrt()).abs() < 1e-15);
        assert!((found.errors[1] - 0.5f64.sqrt()).abs() < 1e-15);
        assert_eq!(found.sizes, [2.0, 3f64.sqrt()]);
        // The second column in another unit.
        let scaled = solve(&[4.0, 2e9, 3e18], &[2.0, 1e9]).unwrap();
        assert!((scaled.errors[1] * 1e9 - 0.5f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn a_column_that_depends_on_those_before_it_is_named() {
        // The third is the sum of the first two.
        let gram = |x: [[f64; 3]; 4]| {
            let mut triangle = Vec::new();
            for i in 0..3 {
                for j in i..3 {
                    triangle.push(x.iter().map(|row| row[i] * row[j]).sum::<f64>());
                }
            }
            triangle
        };
        let rows = [[1.0, 0.3, 1.3], [1.0, 0.9, 1.9], [1.0, -4.0, -3.0], [1.0, 2.2, 3.2]];
        assert_eq!(solve(&gram(rows), &[1.0; 3]), Err(2));
        let zero = rows.map(|[a, _, c]| [a, 0.0, c]);
        assert_eq!(solve(&gram(zero), &[1.0; 3]), Err(1));
        let apart = rows.map(|[a, b, c]| [a, b, c + b * b]);
        assert!(solve(&gram(apart), &[1.0; 3]).is_ok());
    }
}
