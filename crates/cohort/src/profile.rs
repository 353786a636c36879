//! What a registered dataset looks like: counts, missing values, histograms. For the steward's own screen.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{Array, Float64Array, StringArray};
use hospes_privacy::disclosure::tables::{Cell, one_way};
use hospes_privacy::disclosure::{count_allowed, levels_allowed};
use hospes_protocol::policy::{Disclosure, Visibility};
use serde::{Deserialize, Serialize};

use crate::error::CohortError;
use crate::schema::{Column, ColumnKind};
use crate::snapshot::{Snapshot, SnapshotKey};
use crate::source::{Moments, NumberSummary};

/// Profile of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
pub struct Profile {
    /// Rows.
    pub rows: u64,
    /// Distinct subjects.
    pub subjects: u64,
    /// Columns in order; the subject's is not among them.
    pub columns: Vec<ColumnProfile>,
    /// Whether small counts and extremes were taken out.
    pub suppressed: bool,
}

/// Profile of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
pub struct ColumnProfile {
    /// Name.
    pub name: String,
    /// Type.
    pub kind: ColumnKind,
    /// Rows with a value.
    pub present: u64,
    /// Rows without one.
    pub missing: u64,
    /// For a number with at least one value; minimum and maximum may be withheld.
    pub number: Option<NumberProfile>,
    /// For a category: rows by code, most frequent first.
    pub levels: Vec<Level>,
}

/// Profile of a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
pub struct NumberProfile {
    /// Smallest, unless withheld.
    pub min: Option<f64>,
    /// Largest, unless withheld.
    pub max: Option<f64>,
    /// Mean.
    pub mean: f64,
    /// Standard deviation (ddof = 1).
    pub sd: f64,
    /// Edges of the histogram's bins: one more than there are counts.
    pub edges: Vec<f64>,
    /// Rows by bin; `None` where the count is suppressed.
    pub counts: Vec<Option<u64>>,
}

/// Rows with one code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
pub struct Level {
    /// The code.
    pub code: String,
    /// Rows; `None` where the count is suppressed.
    pub rows: Option<u64>,
}

/// Most codes of a category that a profile lists.
const MAX_LEVELS: usize = 40;
/// Most bins of a histogram.
const MAX_BINS: f64 = 20.0;

/// Reads a snapshot and describes it. A local view: the caller shows it to the site's own people by their role.
///
/// It reads twice, for moments and codes and then for histograms, so that memory depends on the number of columns only.
///
/// # Errors
/// [`CohortError`] if the snapshot was altered or the key is wrong.
///
/// # Disclosure
/// Full counts, extremes and codes of the site's own data, for its steward. On shared screens, in exports and for the
/// auditor use [`Profile::suppressed`].
pub fn profile(snapshot: &Snapshot, key: &SnapshotKey, hist_bins_pct: f64) -> Result<Profile, CohortError> {
    let document = &snapshot.document;
    // The file has the columns in the order of the schema.
    let columns: Vec<&Column> = document.schema.columns.iter().filter(|c| c.name != document.schema.subject).collect();
    let wanted: BTreeSet<String> = columns.iter().map(|c| c.name.clone()).collect();
    let mut tallies: Vec<Tally> = columns.iter().map(|_| Tally::default()).collect();
    snapshot.read(key, &wanted, &mut |batch| {
        tallies.iter_mut().zip(batch.columns()).for_each(|(tally, array)| tally.add(array.as_ref()));
        Ok(())
    })?;
    let mut histograms: Vec<Option<NumberProfile>> =
        tallies.iter().map(|t| NumberProfile::empty(&t.moments, hist_bins_pct)).collect();
    snapshot.read(key, &wanted, &mut |batch| {
        histograms.iter_mut().zip(batch.columns()).for_each(|(histogram, array)| {
            if let (Some(histogram), Some(numbers)) = (histogram, array.as_any().downcast_ref::<Float64Array>()) {
                numbers.iter().flatten().for_each(|value| histogram.add(value));
            }
        });
        Ok(())
    })?;
    let columns = columns.iter().zip(tallies).zip(histograms);
    let columns = columns.map(|((column, tally), number)| tally.finish(column, document.rows, number)).collect();
    Ok(Profile { rows: document.rows, subjects: document.subjects, columns, suppressed: false })
}

#[derive(Default)]
struct Tally {
    moments: Moments,
    present: u64,
    levels: BTreeMap<String, u64>,
    too_many_levels: bool,
}

impl Tally {
    fn add(&mut self, array: &dyn Array) {
        self.present += (array.len() - array.null_count()) as u64;
        if let Some(numbers) = array.as_any().downcast_ref::<Float64Array>() {
            numbers.iter().flatten().for_each(|value| self.moments.add(value));
        } else if let Some(texts) = array.as_any().downcast_ref::<StringArray>() {
            for code in texts.iter().flatten() {
                if let Some(count) = self.levels.get_mut(code) {
                    *count += 1;
                } else if self.levels.len() < MAX_LEVELS {
                    self.levels.insert(code.to_owned(), 1);
                } else {
                    self.too_many_levels = true;
                }
            }
        }
    }

    fn finish(self, column: &Column, rows: u64, number: Option<NumberProfile>) -> ColumnProfile {
        let mut levels: Vec<Level> = match column.kind {
            // PRIVACY: texts and dates can be anything, a name among them; only categories are listed.
            ColumnKind::Category if !self.too_many_levels => {
                self.levels.into_iter().map(|(code, n)| Level { code, rows: Some(n) }).collect()
            }
            _ => Vec::new(),
        };
        levels.sort_by_key(|l| std::cmp::Reverse(l.rows));
        let missing = rows - self.present;
        ColumnProfile { name: column.name.clone(), kind: column.kind, present: self.present, missing, number, levels }
    }
}

impl NumberProfile {
    /// Bins without any value yet; `None` if there is none to come.
    fn empty(moments: &Moments, hist_bins_pct: f64) -> Option<Self> {
        let NumberSummary { min, max, mean, sd, .. } = moments.summary()?;
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bins = (moments.count() as f64 * hist_bins_pct / 100.0).clamp(1.0, MAX_BINS) as usize;
        let bins = if max > min { bins } else { 1 };
        #[allow(clippy::cast_precision_loss)]
        let width = (max - min) / bins as f64;
        #[allow(clippy::cast_precision_loss)]
        let edges = (0..=bins).map(|i| if i == bins { max } else { min + width * i as f64 }).collect();
        Some(Self { min: Some(min), max: Some(max), mean, sd, edges, counts: vec![Some(0); bins] })
    }

    fn add(&mut self, value: f64) {
        let bin = self.edges[1..self.counts.len()].partition_point(|edge| *edge <= value);
        self.counts[bin] = self.counts[bin].map(|n| n + 1);
    }
}

impl Profile {
    /// The profile under a site's disclosure rules, for shared screens, exports and the auditor.
    ///
    /// # Disclosure
    /// Counts of 1 to `min_cell` − 1 are taken out, with others from which they would follow; extremes go with
    /// `min_max`; a column with few values, or few gaps, loses everything; a category with more than `max_levels`
    /// codes, or too many for its rows, loses them.
    #[must_use]
    pub fn suppressed(&self, rules: &Disclosure) -> Self {
        let columns = self.columns.iter().map(|c| c.suppressed(rules)).collect();
        Self { columns, suppressed: true, ..self.clone() }
    }
}

impl ColumnProfile {
    fn suppressed(&self, rules: &Disclosure) -> Self {
        let mut column = self.clone();
        let few = |n: u64| !count_allowed(rules, n);
        if few(column.present) || few(column.missing) {
            // The one follows from the other and the number of rows.
            return Self { present: 0, missing: 0, number: None, levels: Vec::new(), ..column };
        }
        if let Some(mut number) = column.number.take() {
            let counts: Vec<u64> = number.counts.iter().flatten().copied().collect();
            if rules.min_max == Visibility::Withheld {
                (number.min, number.max) = (None, None);
                // The outer edges are the extremes.
                number.edges.clear();
            }
            number.counts = suppress(&counts, rules.min_cell).unwrap_or_default();
            column.number = Some(number);
        }
        let counts: Vec<u64> = column.levels.iter().filter_map(|l| l.rows).collect();
        let allowed = levels_allowed(rules, counts.len() as u64, column.present).is_ok();
        match suppress(&counts, rules.min_cell) {
            Some(counts) if allowed => column.levels.iter_mut().zip(counts).for_each(|(l, count)| l.rows = count),
            _ => column.levels.clear(),
        }
        column
    }
}

/// Takes out small counts, and others from which they would follow. `None` if the total, which is shown beside them,
/// would have to go too.
fn suppress(counts: &[u64], min_cell: u64) -> Option<Vec<Option<u64>>> {
    let table = one_way(counts, min_cell);
    let shown = |cell: &Cell| match cell {
        Cell::Shown(count) => Some(*count),
        Cell::Suppressed => None,
    };
    shown(&table.total)?;
    Some(table.cells.iter().map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_small_cell_takes_others_with_it() {
        assert_eq!(suppress(&[100, 3, 0, 20], 10), Some(vec![Some(100), None, Some(0), None]));
        assert_eq!(suppress(&[100, 20], 10), Some(vec![Some(100), Some(20)]));
        let both_small = suppress(&[100, 3, 4], 10).unwrap();
        assert_eq!((both_small[1], both_small[2]), (None, None));
        assert_eq!(suppress(&[5], 10), None);
    }

    #[test]
    fn histogram_holds_every_value_once() {
        let number = |values: &[f64], pct| {
            let mut moments = Moments::default();
            values.iter().for_each(|v| moments.add(*v));
            let mut histogram = NumberProfile::empty(&moments, pct)?;
            values.iter().for_each(|v| histogram.add(*v));
            Some(histogram)
        };
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let profile = number(&values, 10.0).unwrap();
        assert_eq!(profile.counts, vec![Some(10); 10]);
        assert_eq!((profile.edges[0], profile.edges[10]), (0.0, 99.0));
        let constant = number(&[2.0; 7], 100.0).unwrap();
        assert_eq!((constant.counts, constant.sd), (vec![Some(7)], 0.0));
        assert_eq!(number(&[], 10.0), None);
    }
}
