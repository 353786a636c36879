//! What one site adds to a regression: sums over its rows at given coefficients, in double precision.
//!
//! The maximum of a likelihood is found from its gradient (the score) and its second derivatives (the information), and
//! both are sums over rows. So sites send sums, the coordinator takes Newton's step, and what comes out is the fit on all
//! rows together, not an average of fits. Sums run in the order of the rows: the same rows give the same bytes.

mod cox;
mod glm;

use std::collections::BTreeMap;

use hospes_protocol::plan::{Coefficients, Component, Family, Glm, figure, triangle};

use crate::component::Frame;
use crate::error::CohortError;

/// Sums over rows at the coefficients of a round.
pub(crate) struct Sums {
    pub(crate) score: Vec<f64>,
    /// Upper triangle of the information, row by row.
    pub(crate) information: Vec<f64>,
    pub(crate) log_likelihood: f64,
    /// What else the component reports, by the name of the figure.
    pub(crate) others: BTreeMap<&'static str, Vec<f64>>,
    /// Counts that a time grid shows: events in each interval and after the last, rows that enter each, and those left.
    pub(crate) grid_cells: Vec<u64>,
    /// How many rows have a part in what every report holds: in the information, and in the likelihood where it is more
    /// than a function of sums that do not depend on the coefficients. See [`effective`].
    pub(crate) effective_rows: f64,
    /// How many have a part in Pearson's statistic.
    pub(crate) pearson_rows: f64,
    /// How many have a part in the exposure of a time grid: the least in any interval, or in the difference of two
    /// neighbours.
    pub(crate) grid_rows: f64,
}

/// Rows of a regression: nothing missing, every value within its rule.
///
/// # Shapes
/// `x` is row-major with `width` columns, the first of them 1 where there is an intercept.
struct Rows {
    width: usize,
    x: Vec<f64>,
    y: Vec<f64>,
    /// Offset of a `glm`, times of `cox`.
    other: Vec<f64>,
    weights: Vec<f64>,
    /// What was taken off the columns of `x`, in `cox`.
    means: Vec<f64>,
}

impl Rows {
    fn row(&self, row: usize) -> &[f64] {
        &self.x[row * self.width..][..self.width]
    }
}

/// The sums of a `glm` or `cox` task over a table, as they are due in a round of it.
///
/// # Errors
/// [`CohortError`] if there are no rows, something is missing, or a value breaks its rule: it names column and rule.
pub(crate) fn sums(
    component: &Component,
    frame: &Frame,
    coefficients: &Coefficients,
    point: &[f64],
    task: &str,
    round: u32,
) -> Result<Sums, CohortError> {
    if frame.rows() == 0 {
        return Err(CohortError::NoRowsLeft { task: task.to_owned(), empty_columns: Vec::new() });
    }
    match component {
        Component::Glm(glm) => Ok(glm::sums(&glm_rows(glm, frame, coefficients, task)?, glm.family, point)),
        Component::Cox(cox) => {
            let is_last = round >= component.rounds();
            Ok(cox::sums(&cox_rows(frame, coefficients, task)?, cox, point, is_last))
        }
        _ => Err(CohortError::Plan { place: format!("tasks.{task}"), reason: "is no regression".into() }),
    }
}

impl Sums {
    fn new(width: usize) -> Self {
        let entries = usize::try_from(triangle(width as u64)).unwrap_or(0);
        Self {
            score: vec![0.0; width],
            information: vec![0.0; entries],
            log_likelihood: 0.0,
            others: BTreeMap::new(),
            grid_cells: Vec::new(),
            effective_rows: 0.0,
            pearson_rows: f64::INFINITY,
            grid_rows: f64::INFINITY,
        }
    }

    /// Everything by the name of the figure.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn into_figures(self, rows: usize) -> BTreeMap<&'static str, Vec<f64>> {
        let mut figures = self.others;
        figures.insert(figure::N, vec![rows as f64]);
        figures.insert(figure::SCORE, self.score);
        figures.insert(figure::INFORMATION, self.information);
        figures.insert(figure::LOG_LIKELIHOOD, vec![self.log_likelihood]);
        figures
    }
}

/// Adds `weight · x xᵀ` to an upper triangle.
fn add_square(triangle: &mut [f64], x: &[f64], weight: f64) {
    let mut at = 0;
    for (i, a) in x.iter().enumerate() {
        let scaled = weight * a;
        for (entry, b) in triangle[at..].iter_mut().zip(&x[i..]) {
            *entry += scaled * b;
        }
        at += x.len() - i;
    }
}

/// The effective number of rows with these weights in a sum, (Σa)²/Σa² (Kish 1965): as many as there are if all weigh the
/// same, 1 if one outweighs all others.
pub(crate) fn effective(weights: &[f64]) -> f64 {
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let (sum, squares) = weights.iter().map(|a| a / largest).fold((0.0, 0.0), |(s, q), a| (s + a, q + a * a));
    if largest > 0.0 { sum * sum / squares } else { 0.0 }
}

/// The same of a sum that may be 0: then nothing outweighs anything, and all have their part.
pub(crate) fn sharing(terms: &[f64]) -> f64 {
    if terms.iter().all(|term| *term == 0.0) { whole(terms.len()) } else { effective(terms) }
}

/// A count as the number that a figure is.
#[allow(clippy::cast_precision_loss)]
fn whole(count: usize) -> f64 {
    count as f64
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn glm_rows(glm: &Glm, frame: &Frame, coefficients: &Coefficients, task: &str) -> Result<Rows, CohortError> {
    let rows = frame.rows();
    let column = |name: &Option<String>, instead: f64| match name {
        Some(name) => present(frame.extra(name)?, name, task),
        None => Ok(vec![instead; rows]),
    };
    let (other, weights) = (column(&glm.offset, 0.0)?, column(&glm.weights, 1.0)?);
    if let Some(name) = &glm.weights {
        require(&weights, |w| w > 0.0, name, task, "have a weight that is not above 0")?;
    }
    let x = design(frame, coefficients, task)?;
    let y = labels(frame, task)?;
    if glm.family == Family::Poisson {
        let whole = |y: f64| y >= 0.0 && y.fract() == 0.0;
        require(&y, whole, "label", task, "are no counts: a count is a whole number that is not negative")?;
    }
    Ok(Rows { width: coefficients.len(), x, y, other, weights, means: Vec::new() })
}

fn cox_rows(frame: &Frame, coefficients: &Coefficients, task: &str) -> Result<Rows, CohortError> {
    let times = present(&frame.times, "time", task)?;
    // At 0 too: as in R and lifelines, who was observed for less than a day has been at risk of what happened on it.
    require(&times, |t| t >= 0.0, "time", task, "have a negative time")?;
    let mut x = design(frame, coefficients, task)?;
    let means = centre(&mut x, coefficients.len());
    Ok(Rows { width: coefficients.len(), x, y: labels(frame, task)?, other: times, weights: Vec::new(), means })
}

/// The rows of the design matrix.
fn design(frame: &Frame, coefficients: &Coefficients, task: &str) -> Result<Vec<f64>, CohortError> {
    if let Some(feature) = frame.features.iter().find(|f| f.missing() > 0) {
        let (column, rows) = (feature.name.clone(), feature.missing() as u64);
        return Err(CohortError::MissingValues { task: task.to_owned(), column, rows });
    }
    let mut x = Vec::with_capacity(frame.rows() * coefficients.len());
    for row in 0..frame.rows() {
        if coefficients.intercept {
            x.push(1.0);
        }
        x.extend(frame.features.iter().map(|feature| feature.values[row]));
    }
    Ok(x)
}

/// Takes the mean off each column: the partial likelihood does not change when a column is shifted, and its sums are
/// more exact around 0.
#[allow(clippy::cast_precision_loss)]
fn centre(x: &mut [f64], width: usize) -> Vec<f64> {
    let rows = (x.len() / width.max(1)) as f64;
    let mut off = |column: usize| {
        let mean = x.iter().skip(column).step_by(width).sum::<f64>() / rows;
        x.iter_mut().skip(column).step_by(width).for_each(|value| *value -= mean);
        mean
    };
    (0..width).map(&mut off).collect()
}

fn labels(frame: &Frame, task: &str) -> Result<Vec<f64>, CohortError> {
    match frame.label.iter().filter(|l| l.is_nan()).count() {
        0 => Ok(frame.label.clone()),
        rows => Err(CohortError::MissingLabel { task: task.to_owned(), rows: rows as u64 }),
    }
}

fn present(values: &[f64], column: &str, task: &str) -> Result<Vec<f64>, CohortError> {
    match values.iter().filter(|v| v.is_nan()).count() {
        0 => Ok(values.to_vec()),
        rows => {
            let (task, column) = (task.to_owned(), column.to_owned());
            Err(CohortError::MissingValues { task, column, rows: rows as u64 })
        }
    }
}

fn require(
    values: &[f64],
    good: impl Fn(f64) -> bool,
    column: &str,
    task: &str,
    rule: &'static str,
) -> Result<(), CohortError> {
    match values.iter().filter(|v| !good(**v)).count() {
        0 => Ok(()),
        rows => {
            let (task, column) = (task.to_owned(), column.to_owned());
            Err(CohortError::BrokenRule { task, column, rows: rows as u64, rule })
        }
    }
}

#[cfg(test)]
mod tests;
