//! A regression whose answer is known: each site has rows of its own, and the fit is that of all of them, each once.

use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::figure;

use crate::rng::Rng;

/// Intercept and two features.
const COEFFICIENTS: usize = 3;

/// A row: 1, both features, the label.
type Row = [f64; COEFFICIENTS + 1];

/// A site's rows; each site has another number of them.
fn data(site: usize) -> Vec<Row> {
    let mut rng = Rng::new(0x0f17 + site as u64);
    let mut value = || f64::from(i16::try_from(rng.between(-32, 32)).unwrap_or(0)) / 16.0;
    (0..12 + 5 * site).map(|_| [1.0, value(), value(), value()]).collect()
}

/// Upper triangle of XᵀX, and Xᵀ times what the given function makes of a row.
fn sums(rows: &[Row], of: impl Fn(&Row) -> f64) -> (Vec<f64>, Vec<f64>) {
    let (mut triangle, mut score) = (Vec::new(), Vec::new());
    for i in 0..COEFFICIENTS {
        triangle.extend((i..COEFFICIENTS).map(|j| rows.iter().map(|row| row[i] * row[j]).sum::<f64>()));
        score.push(rows.iter().map(|row| row[i] * of(row)).sum());
    }
    (triangle, score)
}

/// What a site reports at these coefficients: the likelihood has a variance of 1.
pub(crate) fn report(site: usize, point: &[f64]) -> FigureSet {
    let rows = data(site);
    let residual = |row: &Row| row[COEFFICIENTS] - row.iter().zip(point).map(|(x, b)| x * b).sum::<f64>();
    let (information, score) = sums(&rows, residual);
    let deviance: f64 = rows.iter().map(|row| residual(row).powi(2)).sum();
    let n = rows.len() as f64;
    let log_likelihood = -0.5 * (deviance + n * (2.0 * std::f64::consts::PI).ln());
    let figures = [
        (figure::N, vec![n]),
        (figure::SCORE, score),
        (figure::INFORMATION, information),
        (figure::LOG_LIKELIHOOD, vec![log_likelihood]),
        (figure::WEIGHTS, vec![n]),
        (figure::DEVIANCE, vec![deviance]),
        (figure::PEARSON, vec![deviance]),
    ];
    let sums = figures.into_iter().map(|(name, values)| (name.to_owned(), values)).collect();
    FigureSet { sums, withheld: Default::default() }
}

/// Rows of these sites.
pub(crate) fn rows(sites: &[usize]) -> f64 {
    sites.iter().map(|site| data(*site).len() as f64).sum()
}

/// The least squares over the rows of these sites, by elimination.
pub(crate) fn pooled(sites: &[usize]) -> Vec<f64> {
    let rows: Vec<Row> = sites.iter().flat_map(|site| data(*site)).collect();
    let (triangle, right) = sums(&rows, |row| row[COEFFICIENTS]);
    let mut matrix = [[0.0; COEFFICIENTS + 1]; COEFFICIENTS];
    let places = (0..COEFFICIENTS).flat_map(|i| (i..COEFFICIENTS).map(move |j| (i, j)));
    for ((i, j), entry) in places.zip(triangle) {
        (matrix[i][j], matrix[j][i]) = (entry, entry);
    }
    matrix.iter_mut().zip(right).for_each(|(line, right)| line[COEFFICIENTS] = right);
    for i in 0..COEFFICIENTS {
        let pivot = matrix[i];
        for line in matrix.iter_mut().skip(i + 1) {
            let factor = line[i] / pivot[i];
            line.iter_mut().zip(pivot).for_each(|(entry, by)| *entry -= factor * by);
        }
    }
    let mut found = vec![0.0; COEFFICIENTS];
    for i in (0..COEFFICIENTS).rev() {
        let rest: f64 = (i + 1..COEFFICIENTS).map(|j| matrix[i][j] * found[j]).sum();
        found[i] = (matrix[i][COEFFICIENTS] - rest) / matrix[i][i];
    }
    found
}
