//! A table in memory between two components, and its way out of a snapshot.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrow_array::{Array, Float64Array, RecordBatch, StringArray};
use hospes_protocol::plan::{self, Comparison, Component, DataSplit, LabelKind, Plan, Variable};

use crate::error::CohortError;
use crate::opt_out::{OptOuts, SubjectHash};
use crate::schema::{ColumnKind, Schema};
use crate::snapshot::subject_hash;

/// Where a row goes in a split by column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fold {
    Train,
    Test,
    Neither,
}

/// A feature in all rows. NaN is a missing value; a category holds the index of its code.
#[derive(Clone)]
pub(crate) struct Feature {
    pub(crate) name: String,
    /// Codes of a category; `None` for a number.
    pub(crate) codes: Option<Vec<String>>,
    /// The category of which this is an indicator.
    pub(crate) category: Option<String>,
    /// Bounds that the plan gives.
    pub(crate) bounds: Option<(f64, f64)>,
    pub(crate) values: Vec<f64>,
}

/// Rows as columns. It has no `Debug` and no `Serialize`: nothing of it can get into a message by accident.
#[derive(Clone, Default)]
pub(crate) struct Frame {
    pub(crate) features: Vec<Feature>,
    /// 1 for positive, 0 for negative, NaN for missing.
    pub(crate) label: Vec<f64>,
    pub(crate) subjects: Vec<SubjectHash>,
    pub(crate) folds: BTreeMap<String, Vec<Fold>>,
    /// Which of several pooled tables a row comes from.
    pub(crate) origin: Vec<u16>,
}

/// Rows as a model sees them: features row-major, nothing missing.
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<f32>,
    /// 1 for positive and 0 for negative, a class's index, a number, or 1 where there was an event and 0 where not.
    pub(crate) labels: Vec<f32>,
    /// Times of a survival label; empty for another one.
    pub(crate) times: Vec<f32>,
    /// One image for each row, if the plan has images.
    pub(crate) images: Option<Pixels>,
    pub(crate) origin: Vec<u16>,
}

impl Matrix {
    /// At most so many rows, evenly spaced; `None` if there are no more.
    pub(crate) fn spaced(&self, most: usize) -> Option<Self> {
        if self.rows <= most.max(1) {
            return None;
        }
        let step = self.rows.div_ceil(most.max(1));
        let rows: Vec<usize> = (0..self.rows).step_by(step).collect();
        let each = |row: &usize| &self.values[row * self.columns..(row + 1) * self.columns];
        let images = self.images.as_ref().map(|pixels| Pixels {
            shape: pixels.shape,
            bytes: rows.iter().flat_map(|row| pixels.row(*row)).copied().collect(),
        });
        Some(Self {
            rows: rows.len(),
            columns: self.columns,
            values: rows.iter().flat_map(each).copied().collect(),
            labels: rows.iter().map(|row| self.labels[*row]).collect(),
            times: rows.iter().filter_map(|row| self.times.get(*row).copied()).collect(),
            images,
            origin: rows.iter().filter_map(|row| self.origin.get(*row).copied()).collect(),
        })
    }
}

/// Images of one shape, a byte for each value.
pub(crate) struct Pixels {
    /// Channels, height and width.
    pub(crate) shape: [usize; 3],
    /// Image by image, each row-major.
    pub(crate) bytes: Vec<u8>,
}

impl Pixels {
    /// Bytes of one image.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The image of a row.
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.len()..(row + 1) * self.len()]
    }
}

impl Frame {
    /// An empty table with the columns that the plan reads.
    pub(crate) fn for_plan(plan: &Plan) -> Self {
        let features = plan.data.columns.iter().map(|name| {
            let (codes, bounds) = match plan.data.variables.get(name) {
                Some(Variable::Category { codes }) => (Some(codes.clone()), None),
                Some(Variable::Number { min: Some(min), max: Some(max), .. }) => (None, Some((*min, *max))),
                _ => (None, None),
            };
            Feature { name: name.clone(), codes, category: None, bounds, values: Vec::new() }
        });
        let folds = plan.tasks.values().filter_map(|task| match &task.component {
            Component::DataSplit(DataSplit { by_column: Some(column), .. }) => Some((column.clone(), Vec::new())),
            _ => None,
        });
        Self { features: features.collect(), folds: folds.collect(), ..Self::default() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.label.len()
    }

    /// Adds a batch of the snapshot without the rows of people who opted out.
    pub(crate) fn push(
        &mut self,
        batch: &RecordBatch,
        plan: &Plan,
        schema: &Schema,
        opt_outs: &OptOuts,
        unknown: &mut Unknown,
    ) -> Result<(), CohortError> {
        let wrong = |reason| CohortError::Plan { place: "data.label".into(), reason };
        let LabelKind::YesNo(positive) = plan.data.label.kind().map_err(wrong)? else {
            return Err(wrong("this version trains on yes/no labels only".to_owned()));
        };
        let keys = TextColumn::of(batch, &schema.subject)?;
        let hashes: Vec<SubjectHash> =
            (0..batch.num_rows()).map(|row| subject_hash(keys.cell(row).as_deref())).collect();
        let rows: Vec<usize> = (0..batch.num_rows()).filter(|row| !opt_outs.has(&hashes[*row])).collect();
        self.subjects.extend(rows.iter().map(|row| hashes[*row]));
        self.origin.extend(rows.iter().map(|_| 0));
        self.label.extend(label(batch, plan, schema, positive, &rows)?);
        for feature in &mut self.features {
            feature.push(batch, plan, schema, &rows, unknown)?;
        }
        for (column, folds) in &mut self.folds {
            let cells = TextColumn::of(batch, column)?;
            for row in &rows {
                folds.push(match cells.cell(*row).as_deref().map(str::trim) {
                    Some("train") => Fold::Train,
                    Some("test") => Fold::Test,
                    _ => Fold::Neither,
                });
            }
        }
        Ok(())
    }

    /// The rows at these positions, in this order.
    pub(crate) fn take(&self, rows: &[usize]) -> Self {
        Self {
            features: self
                .features
                .iter()
                .map(|f| Feature { values: rows.iter().map(|r| f.values[*r]).collect(), ..f.without_values() })
                .collect(),
            label: rows.iter().map(|r| self.label[*r]).collect(),
            subjects: rows.iter().map(|r| self.subjects[*r]).collect(),
            folds: self.folds.iter().map(|(k, v)| (k.clone(), rows.iter().map(|r| v[*r]).collect())).collect(),
            origin: rows.iter().map(|r| self.origin[*r]).collect(),
        }
    }

    /// Adds the rows of another table of the same plan, marked as coming from `origin`.
    pub(crate) fn append(&mut self, other: &Self, origin: u16) {
        for (mine, theirs) in self.features.iter_mut().zip(&other.features) {
            mine.values.extend(&theirs.values);
        }
        self.label.extend(&other.label);
        self.subjects.extend(&other.subjects);
        for (mine, theirs) in self.folds.values_mut().zip(other.folds.values()) {
            mine.extend(theirs);
        }
        self.origin.extend(other.rows_from(origin));
    }

    fn rows_from(&self, origin: u16) -> impl Iterator<Item = u16> {
        std::iter::repeat_n(origin, self.rows())
    }

    /// The table as a model sees it.
    ///
    /// # Errors
    /// [`CohortError`] if there are no rows, if a value or a label is missing, or if a category is left.
    pub(crate) fn matrix(&self, task: &str) -> Result<Matrix, CohortError> {
        if self.rows() == 0 {
            return Err(CohortError::NoRowsLeft { task: task.to_owned(), empty_columns: Vec::new() });
        }
        if let Some(category) = self.features.iter().find(|f| f.codes.is_some()) {
            let reason = format!("'{}' is a category and reaches a model; expand it with one_hot", category.name);
            return Err(CohortError::Plan { place: format!("tasks.{task}"), reason });
        }
        let count = |n: usize| n as u64;
        if let Some(feature) = self.features.iter().find(|f| f.missing() > 0) {
            let (task, column, rows) = (task.to_owned(), feature.name.clone(), count(feature.missing()));
            return Err(CohortError::MissingValues { task, column, rows });
        }
        let unlabelled = self.label.iter().filter(|l| l.is_nan()).count();
        if unlabelled > 0 {
            return Err(CohortError::MissingLabel { task: task.to_owned(), rows: count(unlabelled) });
        }
        let columns = self.features.len();
        let mut values = vec![0f32; self.rows() * columns];
        for (c, feature) in self.features.iter().enumerate() {
            for (r, value) in feature.values.iter().enumerate() {
                values[r * columns + c] = narrow(*value);
            }
        }
        let labels = self.label.iter().map(|l| narrow(*l)).collect();
        let (times, images) = (Vec::new(), None);
        Ok(Matrix { rows: self.rows(), columns, values, labels, times, images, origin: self.origin.clone() })
    }
}

/// f32 is what models compute in.
#[allow(clippy::cast_possible_truncation)]
fn narrow(value: f64) -> f32 {
    value as f32
}

impl Feature {
    pub(crate) fn without_values(&self) -> Self {
        let (name, codes, category) = (self.name.clone(), self.codes.clone(), self.category.clone());
        Self { name, codes, category, bounds: self.bounds, values: Vec::new() }
    }

    pub(crate) fn missing(&self) -> usize {
        self.values.iter().filter(|v| v.is_nan()).count()
    }

    fn push(
        &mut self,
        batch: &RecordBatch,
        plan: &Plan,
        schema: &Schema,
        rows: &[usize],
        unknown: &mut Unknown,
    ) -> Result<(), CohortError> {
        if let Some(codes) = &self.codes {
            let cells = TextColumn::of(batch, &self.name)?;
            for row in rows {
                let value = match cells.cell(*row) {
                    None => f64::NAN,
                    Some(code) => match codes.iter().position(|c| c == plan::code(&code)) {
                        Some(index) => small(index),
                        None => {
                            *unknown.codes.entry(self.name.clone()).or_default() += 1;
                            f64::NAN
                        }
                    },
                };
                self.values.push(value);
            }
            return Ok(());
        }
        let (min, max) = match plan.data.variables.get(&self.name) {
            Some(Variable::Number { min, max, .. }) => (min.unwrap_or(f64::NEG_INFINITY), max.unwrap_or(f64::INFINITY)),
            _ => (f64::NEG_INFINITY, f64::INFINITY),
        };
        for value in numbers(batch, &self.name, schema, rows)? {
            if value < min || value > max {
                *unknown.outside.entry(self.name.clone()).or_default() += 1;
            }
            self.values.push(value);
        }
        Ok(())
    }
}

/// An index as the f64 that a frame stores.
#[allow(clippy::cast_precision_loss)]
fn small(index: usize) -> f64 {
    index as f64
}

/// Rows whose values the plan does not know, by column; checked once the whole snapshot was read.
#[derive(Default)]
pub(crate) struct Unknown {
    codes: BTreeMap<String, u64>,
    outside: BTreeMap<String, u64>,
}

impl Unknown {
    pub(crate) fn check(self) -> Result<(), CohortError> {
        if let Some((column, rows)) = self.codes.into_iter().next() {
            return Err(CohortError::UnknownCode { column, rows });
        }
        match self.outside.into_iter().next() {
            Some((column, rows)) => Err(CohortError::OutOfBounds { column, rows }),
            None => Ok(()),
        }
    }
}

fn label(
    batch: &RecordBatch,
    plan: &Plan,
    schema: &Schema,
    positive: Comparison,
    rows: &[usize],
) -> Result<Vec<f64>, CohortError> {
    let values = numbers(batch, &plan.data.label.column, schema, rows)?;
    let class = |value: f64| if value.is_nan() { f64::NAN } else { f64::from(u8::from(positive.holds(value))) };
    Ok(values.into_iter().map(class).collect())
}

/// A column as numbers; NaN where there is none. A category whose codes are numbers can be read so too.
fn numbers(batch: &RecordBatch, name: &str, schema: &Schema, rows: &[usize]) -> Result<Vec<f64>, CohortError> {
    let column = batch.column_by_name(name).ok_or_else(|| CohortError::UnknownColumn { column: name.to_owned() })?;
    if let Some(array) = column.as_any().downcast_ref::<Float64Array>() {
        return Ok(rows.iter().map(|r| if array.is_null(*r) { f64::NAN } else { array.value(*r) }).collect());
    }
    let kind = schema.column(name).map_or(ColumnKind::Text, |c| c.kind);
    let mismatch = || CohortError::TypeMismatch { column: name.to_owned(), found: kind.word(), expected: "a number" };
    let array = column.as_any().downcast_ref::<StringArray>().ok_or_else(mismatch)?;
    let read = |row: &usize| match array.is_null(*row) {
        true => Ok(f64::NAN),
        false => array.value(*row).parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(mismatch),
    };
    if kind == ColumnKind::Category { rows.iter().map(read).collect() } else { Err(mismatch()) }
}

/// A column whose cells are read as text.
enum TextColumn<'a> {
    Number(&'a Float64Array),
    Text(&'a StringArray),
}

impl<'a> TextColumn<'a> {
    fn of(batch: &'a RecordBatch, name: &str) -> Result<Self, CohortError> {
        let unknown = || CohortError::UnknownColumn { column: name.to_owned() };
        let column = batch.column_by_name(name).ok_or_else(unknown)?.as_any();
        let number = column.downcast_ref::<Float64Array>().map(Self::Number);
        number.or_else(|| column.downcast_ref::<StringArray>().map(Self::Text)).ok_or_else(unknown)
    }

    fn cell(&self, row: usize) -> Option<Cow<'a, str>> {
        match self {
            Self::Number(array) => array.is_valid(row).then(|| Cow::Owned(array.value(row).to_string())),
            Self::Text(array) => array.is_valid(row).then(|| Cow::Borrowed(array.value(row))),
        }
    }
}
