//! The partial likelihood of Cox's model (Cox 1972) of one site, which is a stratum of its own, with Efron's (1977) or
//! Breslow's (1974) treatment of ties; Harrell's C; events and exposure on a time grid.

use std::cmp::Ordering;

use hospes_protocol::plan::{Cox, Ties, TimeGrid, figure};

use super::{Rows, Sums, add_square, dot, effective, sharing, whole};

/// Bound of the linear predictor, so that sums stay finite where a step went too far. No fit lies there.
const FARTHEST: f64 = 1e8;
/// Its bound where it stands for itself, and not only beside others.
const LARGEST: f64 = 300.0;
/// What is left of the squares of a column around its mean, as a part of the mean's square, below which it is rounding.
const ROUNDING: f64 = 1e-13;

/// `is_last`: whether the coefficients are those of the fit, for which pairs and grid are reported.
pub(super) fn sums(rows: &Rows, cox: &Cox, point: &[f64], is_last: bool) -> Sums {
    let count = rows.y.len();
    let predictor = |row| dot(rows.row(row), point).clamp(-FARTHEST, FARTHEST);
    let predictors: Vec<f64> = (0..count).map(predictor).collect();
    let mut order: Vec<usize> = (0..count).collect();
    // The latest first; a stable sort, so that the same rows give the same bytes.
    order.sort_by(|a, b| rows.other[*b].total_cmp(&rows.other[*a]));
    let mut sums = partial_likelihood(rows, cox.ties, &predictors, &order);
    let largest = predictors.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let hazards: Vec<f64> = predictors.iter().map(|predictor| (predictor - largest).exp()).collect();
    sums.effective_rows = sums.effective_rows.min(effective(&hazards));
    let events = rows.y.iter().filter(|event| is_event(**event)).count();
    sums.others.insert(figure::EVENTS, vec![whole(events)]);
    if !is_last {
        return sums;
    }
    sums.others.insert(figure::PAIRS, concordance(rows, &predictors, &order).to_vec());
    if let Some(grid) = &cox.time_grid {
        let shift = dot(&rows.means, point);
        let hazards = predictors.iter().map(|p| (p + shift).clamp(-LARGEST, LARGEST).exp());
        on_grid(rows, grid, hazards, &mut sums);
    }
    sums
}

fn is_event(label: f64) -> bool {
    label > 0.5
}

/// Groups of rows with one time, in the given order.
fn groups<'a>(rows: &'a Rows, order: &'a [usize]) -> impl Iterator<Item = &'a [usize]> {
    order.chunk_by(|a, b| rows.other[*a] == rows.other[*b])
}

/// Σθ, Σθx and the upper triangle of Σθxxᵀ over a set of rows.
#[derive(Clone)]
struct Risk {
    zero: f64,
    one: Vec<f64>,
    two: Vec<f64>,
}

impl Risk {
    fn new(width: usize) -> Self {
        Self { zero: 0.0, one: vec![0.0; width], two: vec![0.0; width * (width + 1) / 2] }
    }

    fn clear(&mut self) {
        self.zero = 0.0;
        self.one.fill(0.0);
        self.two.fill(0.0);
    }

    /// Counts everything in another unit.
    fn scale(&mut self, by: f64) {
        self.zero *= by;
        self.one.iter_mut().chain(&mut self.two).for_each(|sum| *sum *= by);
    }

    fn add(&mut self, x: &[f64], hazard: f64) {
        self.zero += hazard;
        self.one.iter_mut().zip(x).for_each(|(sum, x)| *sum += hazard * x);
        add_square(&mut self.two, x, hazard);
    }
}

/// Runs through the times from the last to the first, so that the risk set only grows.
fn partial_likelihood(rows: &Rows, ties: Ties, predictors: &[f64], order: &[usize]) -> Sums {
    let mut sums = Sums::new(rows.width);
    // The likelihood has only ratios of hazards: the largest in the risk set is 1, so that its sum is never 0.
    let mut largest = f64::NEG_INFINITY;
    let (mut at_risk, mut failing) = (Risk::new(rows.width), Risk::new(rows.width));
    let (mut mean, mut squared_means) = (vec![0.0; rows.width], vec![0.0; rows.width]);
    let mut surprises = Vec::new();
    for group in groups(rows, order) {
        failing.clear();
        let mut events = 0usize;
        let new = group.iter().map(|row| predictors[*row]).fold(largest, f64::max);
        at_risk.scale((largest - new).exp());
        largest = new;
        for row in group {
            let (x, predictor) = (rows.row(*row), predictors[*row] - largest);
            at_risk.add(x, predictor.exp());
            if is_event(rows.y[*row]) {
                events += 1;
                failing.add(x, predictor.exp());
                sums.log_likelihood += predictor;
                sums.score.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            }
        }
        let failed = group.iter().filter(|row| is_event(rows.y[**row]));
        surprises.extend(failed.map(|row| at_risk.zero.ln() - (predictors[*row] - largest)));
        for step in 0..events {
            // Efron 1977, section 4: of those who fail at one time, the l-th leaves after l of d.
            let left = if ties == Ties::Efron { whole(step) / whole(events) } else { 0.0 };
            let zero = at_risk.zero - left * failing.zero;
            sums.log_likelihood -= zero.ln();
            for (mean, (all, gone)) in mean.iter_mut().zip(at_risk.one.iter().zip(&failing.one)) {
                *mean = (all - left * gone) / zero;
            }
            sums.score.iter_mut().zip(&mean).for_each(|(sum, mean)| *sum -= mean);
            squared_means.iter_mut().zip(&mean).for_each(|(sum, mean)| *sum += mean * mean);
            let squares = at_risk.two.iter().zip(&failing.two);
            for (entry, (all, gone)) in sums.information.iter_mut().zip(squares) {
                *entry += (all - left * gone) / zero;
            }
            add_square(&mut sums.information, &mean, -1.0);
        }
    }
    clear_rounding(&mut sums, &squared_means);
    // PRIVACY: a row with an event and next to no hazard weighs nothing beside others at risk, and may be all of the
    // likelihood.
    sums.effective_rows = sharing(&surprises);
    sums
}

/// Makes exactly nothing of a column that all rows at risk have the same value of whenever one has the event. What rounding
/// leaves of it would be taken for an information, next to none, with a step and a standard error.
fn clear_rounding(sums: &mut Sums, squared_means: &[f64]) {
    let width = squared_means.len();
    let diagonal = (0..width).scan(0, |at, column| {
        let here = *at;
        *at += width - column;
        Some(here)
    });
    let is_nothing = |(at, square): (usize, &f64)| sums.information[at] <= ROUNDING * square;
    let nothing: Vec<bool> = diagonal.zip(squared_means).map(is_nothing).collect();
    let mut entries = sums.information.iter_mut();
    for (row, here) in nothing.iter().enumerate() {
        for (there, entry) in nothing[row..].iter().zip(entries.by_ref()) {
            if *here || *there {
                *entry = 0.0;
            }
        }
    }
    sums.score.iter_mut().zip(&nothing).filter(|(_, nothing)| **nothing).for_each(|(score, _)| *score = 0.0);
}

/// Pairs of rows that the model orders rightly, wrongly and equally (Harrell et al. 1982). A pair counts if one had the
/// event while the other was still observed: at a later time, or censored at the same one.
fn concordance(rows: &Rows, predictors: &[f64], order: &[usize]) -> [f64; 3] {
    let mut sorted = predictors.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup_by(|a, b| a.total_cmp(b) == Ordering::Equal);
    let rank = |row: usize| sorted.partition_point(|value| value.total_cmp(&predictors[row]) == Ordering::Less);
    let mut seen = Counts::new(sorted.len());
    let (mut right, mut wrong, mut equal) = (0u64, 0u64, 0u64);
    for group in groups(rows, order) {
        let (events, censored): (Vec<usize>, Vec<usize>) = group.iter().partition(|row| is_event(rows.y[**row]));
        censored.iter().for_each(|row| seen.add(rank(*row)));
        for row in &events {
            let (below, up_to) = (seen.below(rank(*row)), seen.below(rank(*row) + 1));
            right += below;
            equal += up_to - below;
            wrong += seen.below(sorted.len()) - up_to;
        }
        events.iter().for_each(|row| seen.add(rank(*row)));
    }
    #[allow(clippy::cast_precision_loss)]
    [right, wrong, equal].map(|pairs| pairs as f64)
}

/// Counts by rank with cumulative counts in logarithmic time (Fenwick 1994).
struct Counts(Vec<u64>);

impl Counts {
    fn new(ranks: usize) -> Self {
        Self(vec![0; ranks + 1])
    }

    fn add(&mut self, rank: usize) {
        let mut at = rank + 1;
        while at < self.0.len() {
            self.0[at] += 1;
            at += at & at.wrapping_neg();
        }
    }

    /// Number of those with a rank below this one.
    fn below(&self, rank: usize) -> u64 {
        let (mut at, mut sum) = (rank, 0);
        while at > 0 {
            sum += self.0[at];
            at &= at - 1;
        }
        sum
    }
}

/// Events and exposure in each interval (t₋, t₊], the first with its beginning: events over exposure is the baseline hazard
/// there (Breslow 1974), of a row whose features are all 0. An event at time 0 counts, though nobody was observed before.
fn on_grid(rows: &Rows, grid: &TimeGrid, hazards: impl Iterator<Item = f64>, sums: &mut Sums) {
    let intervals = usize::try_from(grid.intervals).unwrap_or(0);
    // By the last interval that a row is in; one more for the rows that leave after the grid.
    let (mut events, mut leaving) = (vec![0u64; intervals + 1], vec![0u64; intervals + 1]);
    let (mut through, mut within) = (vec![0.0; intervals + 1], vec![0.0; intervals + 1]);
    let mut shares = GridShares::new(intervals);
    for (row, (time, hazard)) in rows.other.iter().zip(hazards).enumerate() {
        let last = interval(*time, grid.width, intervals);
        leaving[last] += 1;
        events[last] += u64::from(is_event(rows.y[row]));
        through[last] += hazard;
        let stayed = time - whole(last) * grid.width;
        within[last] += hazard * stayed;
        shares.add(last, hazard, stayed, grid.width);
    }
    let mut entering = leaving;
    for index in (0..intervals).rev() {
        entering[index] += entering[index + 1];
        through[index] += through[index + 1];
    }
    let exposure = (0..intervals).map(|index| through[index + 1] * grid.width + within[index]).collect();
    #[allow(clippy::cast_precision_loss)]
    let in_grid = events[..intervals].iter().map(|n| *n as f64).collect();
    sums.others.insert(figure::GRID_EVENTS, in_grid);
    sums.others.insert(figure::GRID_EXPOSURE, exposure);
    sums.grid_cells = events.into_iter().chain(entering).collect();
    sums.grid_rows = shares.fewest();
}

/// How many rows have a part in each interval's exposure, and in what two neighbours differ in: that is of the rows that
/// leave in the two only, so that a hazard among few of them could be read off it.
struct GridShares {
    /// Of the rows that leave in an interval: their exposure there, what is missing of a whole interval, and a whole one.
    within: Vec<Share>,
    missing: Vec<Share>,
    whole: Vec<Share>,
}

/// A sum of terms and the sum of their squares.
#[derive(Clone, Copy, Default)]
struct Share {
    sum: f64,
    squares: f64,
}

impl Share {
    fn add(&mut self, term: f64) {
        self.sum += term;
        self.squares += term * term;
    }

    fn with(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, squares: self.squares + other.squares }
    }

    /// (Σa)²/Σa², as [`effective`]; without terms there is nothing to tell.
    fn rows(self) -> f64 {
        if self.sum == 0.0 { f64::INFINITY } else { self.sum * self.sum / self.squares }
    }
}

impl GridShares {
    fn new(intervals: usize) -> Self {
        let none = vec![Share::default(); intervals + 1];
        Self { within: none.clone(), missing: none.clone(), whole: none }
    }

    fn add(&mut self, last: usize, hazard: f64, stayed: f64, width: f64) {
        self.within[last].add(hazard * stayed);
        self.missing[last].add(hazard * (width - stayed));
        self.whole[last].add(hazard * width);
    }

    /// The least of all; NaN, which no rule lets pass, if one cannot be computed.
    fn fewest(&self) -> f64 {
        let (mut fewest, mut through) = (f64::INFINITY, self.whole[self.whole.len() - 1]);
        for index in (0..self.within.len() - 1).rev() {
            let mut found = vec![through.with(self.within[index]).rows()];
            if index > 0 {
                found.push(self.within[index - 1].with(self.missing[index]).rows());
            }
            for rows in found {
                fewest = if rows.is_nan() || rows < fewest { rows } else { fewest };
            }
            through = through.with(self.whole[index]);
        }
        fewest
    }
}

/// The interval that a time lies in, or the number of intervals if it lies behind them.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn interval(time: f64, width: f64, intervals: usize) -> usize {
    let mut index = ((time / width) as usize).min(intervals);
    // The quotient is rounded; the borders are what counts.
    while index > 0 && time <= whole(index) * width {
        index -= 1;
    }
    while index < intervals && time > whole(index + 1) * width {
        index += 1;
    }
    index
}
