//! Running counts of one column, in bounded memory.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::Format;
use super::cell::{self, DateGrain, Decimal};
use crate::scan::patterns::{self, Pattern};
use crate::schema::ColumnKind;

/// What a survey says about a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnSurvey {
    /// Name.
    pub name: String,
    /// Type that fits every cell.
    pub kind: ColumnKind,
    /// Cells with a value.
    pub present: u64,
    /// Missing cells by marker; the empty cell is `""`.
    pub missing: Vec<(String, u64)>,
    /// Distinct values.
    pub distinct: Distinct,
    /// For a number.
    pub number: Option<NumberSummary>,
    /// Cells that may mean *missing* and are read as values, with how many there are: words of a fixed list, in a column of
    /// numbers. A number of them is there more than once and lies outside all other values.
    #[serde(default)]
    pub suspects: Vec<(String, u64)>,
    /// Whether some cells give a day, whatever the others are.
    pub has_days: bool,
    /// Whether some cells are dates.
    pub has_dates: bool,
}

impl ColumnSurvey {
    /// Missing cells in all.
    ///
    /// # Disclosure
    /// A count.
    pub fn missing_total(&self) -> u64 {
        self.missing.iter().map(|(_, n)| n).sum()
    }
}

/// A number of distinct values; counting stops where it would need too much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distinct {
    /// So many.
    Exactly(u64),
    /// So many in the first so many cells, and then it was no longer counted.
    AtLeast {
        /// Distinct values seen.
        distinct: u64,
        /// Cells looked at.
        among: u64,
    },
}

impl Distinct {
    /// The number counted.
    ///
    /// # Disclosure
    /// A count.
    pub const fn counted(self) -> u64 {
        match self {
            Self::Exactly(n) | Self::AtLeast { distinct: n, .. } => n,
        }
    }

    /// Distinct values per cell, from 0 to 1, where `present` cells have a value.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn ratio(self, present: u64) -> f64 {
        match self {
            Self::Exactly(n) => n as f64 / present.max(1) as f64,
            Self::AtLeast { distinct, among } => distinct as f64 / among.max(1) as f64,
        }
    }
}

/// Summary of a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NumberSummary {
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation (ddof = 1); 0 for a single value.
    pub sd: f64,
    /// Whether all are whole numbers.
    pub whole: bool,
}

/// Mean and spread in one pass (Welford 1962).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moments {
    n: u64,
    mean: f64,
    m2: f64,
    min: f64,
    max: f64,
    fractional: bool,
}

impl Moments {
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn add(&mut self, x: f64) {
        if self.n == 0 {
            (self.min, self.max) = (x, x);
        }
        self.n += 1;
        let delta = x - self.mean;
        self.mean += delta / self.n as f64;
        self.m2 += delta * (x - self.mean);
        self.min = self.min.min(x);
        self.max = self.max.max(x);
        self.fractional |= x.fract() != 0.0;
    }

    pub(crate) fn count(&self) -> u64 {
        self.n
    }

    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn summary(&self) -> Option<NumberSummary> {
        let sd = if self.n > 1 { (self.m2 / (self.n - 1) as f64).sqrt() } else { 0.0 };
        (self.n > 0).then_some(NumberSummary {
            min: self.min,
            max: self.max,
            mean: self.mean,
            sd,
            whole: !self.fractional,
        })
    }
}

/// What people write where there is no value. The survey counts these and asks about no other cell, so that none is told.
const SENTINELS: [&str; 29] = [
    "-1", "-9", "-9.0", "-99", "-99.0", "-999", "-999.0", "-9999", "-9999.0", "99", "99.0", "999", "999.0", "9999",
    "9999.0", "?", ".", "-", "--", "*", "NA", "N/A", "n/a", "NaN", "NULL", "null", "None", "unknown", "missing",
];

/// Position of a cell in [`SENTINELS`]; the first byte tells nearly all others.
fn sentinel(cell: &str) -> Option<usize> {
    let may_be = cell.len() <= 7 && !matches!(cell.as_bytes().first(), Some(b'0'..=b'8') | None);
    may_be.then(|| SENTINELS.iter().position(|s| *s == cell)).flatten()
}

/// How many of the sampled cells have which pattern.
#[derive(Debug, Clone, Default)]
pub(crate) struct PatternCounts {
    pub(crate) sampled: u64,
    pub(crate) hits: [u64; Pattern::ALL.len()],
}

/// Cells per column that are tested for patterns of identifiers.
const PATTERN_SAMPLE: u64 = 5_000;
/// Distinct values that all columns together may remember: 8 bytes each, and the table around them.
const DISTINCT_BUDGET: usize = 2 << 20;

pub(crate) struct Tally {
    present: u64,
    empty: u64,
    markers: Vec<u64>,
    seen: HashSet<u64>,
    seen_cap: usize,
    seen_among: u64,
    with_point: u64,
    with_comma: u64,
    point: (u64, Moments),
    comma: (u64, Moments),
    sentinels: [u64; SENTINELS.len()],
    /// Smallest and largest number that is no sentinel.
    others: Option<(f64, f64)>,
    dates: u64,
    days: bool,
    /// Numbers that are read as a day too, such as 20240531.
    compact_days: u64,
    patterns: PatternCounts,
}

impl Tally {
    pub(crate) fn new(columns: usize, markers: usize) -> Self {
        Self {
            present: 0,
            empty: 0,
            markers: vec![0; markers],
            seen: HashSet::new(),
            seen_cap: (DISTINCT_BUDGET / columns.max(1)).clamp(64, 100_000),
            seen_among: 0,
            with_point: 0,
            with_comma: 0,
            point: (0, Moments::default()),
            comma: (0, Moments::default()),
            sentinels: [0; SENTINELS.len()],
            others: None,
            dates: 0,
            days: false,
            compact_days: 0,
            patterns: PatternCounts::default(),
        }
    }

    /// Counts one trimmed cell.
    pub(crate) fn add(&mut self, cell: &str, missing: &[String]) {
        if cell.is_empty() {
            self.empty += 1;
            return;
        }
        if let Some(i) = missing.iter().position(|m| m == cell) {
            self.markers[i] += 1;
            return;
        }
        self.present += 1;
        if self.seen.len() < self.seen_cap {
            let mut hasher = DefaultHasher::new();
            cell.hash(&mut hasher);
            self.seen.insert(hasher.finish());
            self.seen_among += 1;
        }
        let as_point = cell::number(cell, Decimal::Point);
        if let Some(x) = as_point {
            self.point.0 += 1;
            self.point.1.add(x);
        }
        // A cell without a comma reads the same in both notations, if it has no point.
        let as_comma = if cell.contains(',') { cell::number(cell, Decimal::Comma) } else { as_point };
        match cell::notation(cell) {
            Some(Decimal::Point) => self.with_point += 1,
            Some(Decimal::Comma) => self.with_comma += 1,
            None => {}
        }
        if let Some(x) = as_comma.filter(|_| !cell.contains('.')) {
            self.comma.0 += 1;
            self.comma.1.add(x);
        }
        if let Some(i) = sentinel(cell) {
            self.sentinels[i] += 1;
        } else if let Some(x) = as_point.or(as_comma) {
            let (low, high) = self.others.unwrap_or((x, x));
            self.others = Some((low.min(x), high.max(x)));
        }
        match cell::date(cell) {
            Some(_) if as_point.is_some() || as_comma.is_some() => self.compact_days += 1,
            Some(grain) => {
                self.dates += 1;
                self.days |= grain == DateGrain::Day;
            }
            None => {}
        }
        if self.patterns.sampled < PATTERN_SAMPLE {
            self.patterns.sampled += 1;
            for pattern in patterns::matching(cell) {
                self.patterns.hits[pattern as usize] += 1;
            }
        }
    }

    pub(crate) fn patterns(&self) -> &PatternCounts {
        &self.patterns
    }

    /// Sentinels that may mean *missing*, where so many cells are numbers and the rest, if any, words of the list.
    fn suspects(&self, numbers: u64) -> Vec<(String, u64)> {
        let value = |word: &str| cell::number(word, Decimal::Point);
        let found = || SENTINELS.into_iter().zip(self.sentinels).filter(|(_, n)| *n > 0);
        let words: u64 = found().filter(|(word, _)| value(word).is_none()).map(|(_, n)| n).sum();
        let Some((low, high)) = self.others.filter(|_| numbers + words == self.present) else { return Vec::new() };
        let is_suspect = |word: &str, n: u64| value(word).is_none_or(|x| n > 1 && !(low..=high).contains(&x));
        found().filter(|(word, n)| is_suspect(word, *n)).map(|(word, n)| (word.to_owned(), n)).collect()
    }

    pub(crate) fn finish(&self, name: &str, rows: u64, format: &Format) -> ColumnSurvey {
        debug_assert_eq!(rows, self.present + self.empty + self.markers.iter().sum::<u64>());
        let (numbers, moments) = match format.decimal {
            Decimal::Point => &self.point,
            Decimal::Comma => &self.comma,
        };
        let distinct = if self.seen.len() < self.seen_cap {
            Distinct::Exactly(self.seen.len() as u64)
        } else {
            Distinct::AtLeast { distinct: self.seen.len() as u64, among: self.seen_among }
        };
        // A column without any value could be anything; most columns of clinical tables are numbers.
        let kind = if *numbers == self.present {
            ColumnKind::Number
        } else if self.dates + self.compact_days == self.present {
            ColumnKind::Date
        } else if distinct.counted() <= CATEGORY_LEVELS && distinct.ratio(self.present) <= 0.5 {
            ColumnKind::Category
        } else {
            ColumnKind::Text
        };
        // A measurement of eight digits is read as a day now and then; a column of days always is.
        let compact = self.compact_days > 0 && self.compact_days * 20 >= self.present;
        let mut missing = vec![(String::new(), self.empty)];
        missing.extend(format.missing.iter().cloned().zip(self.markers.iter().copied()));
        missing.retain(|(_, n)| *n > 0);
        ColumnSurvey {
            name: name.to_owned(),
            kind,
            present: self.present,
            missing,
            distinct,
            number: if kind == ColumnKind::Number { moments.summary() } else { None },
            suspects: self.suspects(*numbers),
            has_days: self.days || compact,
            has_dates: self.dates > 0 || compact,
        }
    }
}

/// Levels up to which a text is taken for a category.
const CATEGORY_LEVELS: u64 = 40;

/// The notation of a file: a comma only where commas occur in numbers and points do not.
pub(crate) fn decimal_of(tallies: &[Tally]) -> Decimal {
    let commas: u64 = tallies.iter().map(|t| t.with_comma).sum();
    let points: u64 = tallies.iter().map(|t| t.with_point).sum();
    if commas > 0 && points == 0 { Decimal::Comma } else { Decimal::Point }
}
