//! A table in memory between two components, and its way out of a snapshot.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{Array, BinaryArray, FixedSizeBinaryArray, Float64Array, RecordBatch, StringArray};
use hospes_protocol::plan::model::Inputs;
use hospes_protocol::plan::{self, Comparison, Component, DataSplit, Image, LabelKind, Plan, Variable};

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
    /// NaN for missing. Yes or no, and whether an event was seen: 1 or 0; of several classes: its index; else the number.
    pub(crate) label: Vec<f64>,
    /// Time to the event or to the end of observation, for a label that has one; else empty.
    pub(crate) times: Vec<f64>,
    /// Columns that a component reads besides the features, as offset and weights.
    pub(crate) extras: BTreeMap<String, Vec<f64>>,
    /// For a plan with an image: its pixels in every row, channels first.
    pub(crate) images: Option<Pixels>,
    pub(crate) subjects: Vec<SubjectHash>,
    pub(crate) folds: BTreeMap<String, Vec<Fold>>,
    /// Columns that make subgroups of an evaluation: the index of the code, NaN for none.
    pub(crate) groups: BTreeMap<String, Vec<f64>>,
    /// Which of several pooled tables a row comes from.
    pub(crate) origin: Vec<u16>,
}

/// Rows as a model sees them: features row-major, nothing missing.
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    /// The features, in order; of a category, the values are the places of its codes.
    pub(crate) columns: Vec<plan::Feature>,
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
    /// What a row of it gives a model.
    pub(crate) fn inputs(&self) -> Inputs {
        let image = self.images.as_ref().map(|pixels| pixels.shape.map(|side| side as u64));
        Inputs { features: self.columns.len() as u64, image }
    }

    /// The features of a row.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        let width = self.columns.len();
        &self.values[row * width..(row + 1) * width]
    }

    /// At most so many rows, evenly spaced; `None` if there are no more.
    pub(crate) fn spaced(&self, most: usize) -> Option<Self> {
        if self.rows <= most.max(1) {
            return None;
        }
        let step = self.rows.div_ceil(most.max(1));
        let rows: Vec<usize> = (0..self.rows).step_by(step).collect();
        Some(self.of_rows(&rows))
    }

    /// These rows alone, in this order.
    pub(crate) fn of_rows(&self, rows: &[usize]) -> Self {
        let each = |row: &usize| self.row(*row);
        let images = self.images.as_ref().map(|pixels| Pixels {
            shape: pixels.shape,
            bytes: rows.iter().flat_map(|row| pixels.row(*row)).copied().collect(),
        });
        Self {
            rows: rows.len(),
            columns: self.columns.clone(),
            values: rows.iter().flat_map(each).copied().collect(),
            labels: rows.iter().map(|row| self.labels[*row]).collect(),
            times: rows.iter().filter_map(|row| self.times.get(*row).copied()).collect(),
            images,
            origin: rows.iter().filter_map(|row| self.origin.get(*row).copied()).collect(),
        }
    }
}

/// Images of one shape, a byte for each value.
#[derive(Clone)]
pub(crate) struct Pixels {
    /// Channels, height and width.
    pub(crate) shape: [usize; 3],
    /// Image by image, each row-major.
    pub(crate) bytes: Vec<u8>,
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
        let images = plan.data.image.as_ref().map(|image| Pixels { shape: shape(image), bytes: Vec::new() });
        let extras = plan.tasks.values().flat_map(|task| match &task.component {
            Component::Glm(glm) => [glm.offset.clone(), glm.weights.clone()],
            _ => [None, None],
        });
        let extras = extras.flatten().map(|column| (column, Vec::new())).collect();
        let groups = plan.tasks.keys().filter_map(|task| plan::subgroups(plan, task));
        let groups = groups.map(|subgroups| (subgroups.column.to_owned(), Vec::new())).collect();
        Self { features: features.collect(), folds: folds.collect(), extras, groups, images, ..Self::default() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.label.len()
    }

    /// Whether a row has a label, with its time where there is one.
    pub(crate) fn is_labelled(&self, row: usize) -> bool {
        !self.label[row].is_nan() && self.times.get(row).is_none_or(|time| !time.is_nan())
    }

    /// An empty table with the columns that a model needs of a row to give an output for it.
    pub(crate) fn for_prediction(plan: &Plan, offset: Option<&String>) -> Self {
        let Self { features, images, .. } = Self::for_plan(plan);
        let extras = offset.map(|column| (column.clone(), Vec::new())).into_iter().collect();
        Self { features, images, extras, ..Self::default() }
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
        let rows = self.push_columns(batch, plan, schema, opt_outs, unknown)?;
        let (label, times) = label(batch, plan, schema, &rows, unknown)?;
        self.label.extend(label);
        self.times.extend(times);
        for (column, groups) in &mut self.groups {
            let Some(Variable::Category { codes }) = plan.data.variables.get(column) else { continue };
            let cells = TextColumn::of(batch, column)?;
            // A column that is a feature too was counted with the features.
            let mut counted = Unknown::default();
            let unknown = if plan.data.columns.contains(column) { &mut counted } else { &mut *unknown };
            groups.extend(rows.iter().map(|row| unknown.index(column, codes, cells.cell(*row).as_deref())));
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

    /// Adds a batch whose labels nobody knows or asks for, without the rows of people who opted out; which rows of it that
    /// were.
    pub(crate) fn push_unlabelled(
        &mut self,
        batch: &RecordBatch,
        plan: &Plan,
        schema: &Schema,
        opt_outs: &OptOuts,
        unknown: &mut Unknown,
    ) -> Result<Vec<usize>, CohortError> {
        let rows = self.push_columns(batch, plan, schema, opt_outs, unknown)?;
        // No row is left out for want of a label, and what stands for one is used for nothing.
        self.label.resize(self.subjects.len(), 0.0);
        Ok(rows)
    }

    /// Adds subjects, features, images and what else is read of a row besides its label; the rows of the batch that are of
    /// nobody who opted out.
    fn push_columns(
        &mut self,
        batch: &RecordBatch,
        plan: &Plan,
        schema: &Schema,
        opt_outs: &OptOuts,
        unknown: &mut Unknown,
    ) -> Result<Vec<usize>, CohortError> {
        let keys = TextColumn::of(batch, &schema.subject)?;
        let hashes: Vec<SubjectHash> =
            (0..batch.num_rows()).map(|row| subject_hash(keys.cell(row).as_deref())).collect();
        let rows: Vec<usize> = (0..batch.num_rows()).filter(|row| !opt_outs.has(&hashes[*row])).collect();
        self.subjects.extend(rows.iter().map(|row| hashes[*row]));
        self.origin.extend(rows.iter().map(|_| 0));
        for (column, values) in &mut self.extras {
            values.extend(numbers(batch, column, schema, &rows)?);
        }
        if let (Some(images), Some(image)) = (&mut self.images, &plan.data.image) {
            images.push(batch, image, &rows)?;
        }
        for feature in &mut self.features {
            feature.push(batch, plan, schema, &rows, unknown)?;
        }
        Ok(rows)
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
            times: if self.times.is_empty() { Vec::new() } else { rows.iter().map(|r| self.times[*r]).collect() },
            images: self.images.as_ref().map(|images| images.take(rows)),
            extras: self.extras.iter().map(|(k, v)| (k.clone(), rows.iter().map(|r| v[*r]).collect())).collect(),
            subjects: rows.iter().map(|r| self.subjects[*r]).collect(),
            folds: self.folds.iter().map(|(k, v)| (k.clone(), rows.iter().map(|r| v[*r]).collect())).collect(),
            groups: self.groups.iter().map(|(k, v)| (k.clone(), rows.iter().map(|r| v[*r]).collect())).collect(),
            origin: rows.iter().map(|r| self.origin[*r]).collect(),
        }
    }

    /// Adds the rows of another table of the same plan, marked as coming from `origin`.
    pub(crate) fn append(&mut self, other: &Self, origin: u16) {
        for (mine, theirs) in self.features.iter_mut().zip(&other.features) {
            mine.values.extend(&theirs.values);
        }
        self.label.extend(&other.label);
        self.times.extend(&other.times);
        for (mine, theirs) in self.extras.values_mut().zip(other.extras.values()) {
            mine.extend(theirs);
        }
        if let (Some(mine), Some(theirs)) = (&mut self.images, &other.images) {
            mine.bytes.extend_from_slice(&theirs.bytes);
        }
        self.subjects.extend(&other.subjects);
        for (mine, theirs) in self.folds.values_mut().zip(other.folds.values()) {
            mine.extend(theirs);
        }
        for (mine, theirs) in self.groups.values_mut().zip(other.groups.values()) {
            mine.extend(theirs);
        }
        self.origin.extend(other.rows_from(origin));
    }

    /// Labels and subjects of some rows: what figures of a model's quality are computed from.
    pub(crate) fn labels(&self, rows: &[usize]) -> Self {
        Self {
            label: rows.iter().map(|row| self.label[*row]).collect(),
            times: rows.iter().filter_map(|row| self.times.get(*row).copied()).collect(),
            subjects: rows.iter().map(|row| self.subjects[*row]).collect(),
            ..Self::default()
        }
    }

    /// Rows by the code of a column, and last those without one.
    ///
    /// # Errors
    /// [`CohortError::UnknownColumn`] if no task makes subgroups of this column.
    pub(crate) fn group_rows(&self, column: &str, codes: usize) -> Result<Vec<Vec<usize>>, CohortError> {
        let unknown = || CohortError::UnknownColumn { column: column.to_owned() };
        let mut rows = vec![Vec::new(); codes + 1];
        for (row, code) in self.groups.get(column).ok_or_else(unknown)?.iter().enumerate() {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let at = if code.is_nan() { codes } else { (*code as usize).min(codes) };
            rows[at].push(row);
        }
        Ok(rows)
    }

    /// A column that a component reads besides the features.
    ///
    /// # Errors
    /// [`CohortError::UnknownColumn`] if the plan names no such column.
    pub(crate) fn extra(&self, column: &str) -> Result<&[f64], CohortError> {
        let found = self.extras.get(column).map(Vec::as_slice);
        found.ok_or_else(|| CohortError::UnknownColumn { column: column.to_owned() })
    }

    /// Whether nothing is missing in a row: label and features are there, and of the other columns those that are needed.
    pub(crate) fn is_complete(&self, row: usize, needed: &BTreeSet<&String>) -> bool {
        let needed = self.extras.iter().filter(|(column, _)| needed.contains(column));
        let others = needed.map(|(_, values)| values[row]).chain(self.times.get(row).copied());
        let features = self.features.iter().map(|feature| feature.values[row]);
        !self.label[row].is_nan() && features.chain(others).all(|value| !value.is_nan())
    }

    fn rows_from(&self, origin: u16) -> impl Iterator<Item = u16> {
        std::iter::repeat_n(origin, self.rows())
    }

    /// Its features as a plan promises them.
    pub(crate) fn columns(&self) -> Vec<plan::Feature> {
        let codes = |feature: &Feature| feature.codes.as_ref().map(|codes| codes.len() as u64);
        self.features.iter().map(|f| plan::Feature { name: f.name.clone(), codes: codes(f) }).collect()
    }

    /// The table as a model sees it.
    ///
    /// # Errors
    /// [`CohortError`] if there are no rows, or if a value or a label is missing.
    pub(crate) fn matrix(&self, task: &str) -> Result<Matrix, CohortError> {
        if self.rows() == 0 {
            return Err(CohortError::NoRowsLeft { task: task.to_owned(), empty_columns: Vec::new() });
        }
        let count = |n: usize| n as u64;
        if let Some(feature) = self.features.iter().find(|f| f.missing() > 0) {
            let (task, column, rows) = (task.to_owned(), feature.name.clone(), count(feature.missing()));
            return Err(CohortError::MissingValues { task, column, rows });
        }
        let unlabelled = (0..self.rows()).filter(|row| !self.is_labelled(*row)).count();
        if unlabelled > 0 {
            return Err(CohortError::MissingLabel { task: task.to_owned(), rows: count(unlabelled) });
        }
        let width = self.features.len();
        let mut values = vec![0f32; self.rows() * width];
        for (c, feature) in self.features.iter().enumerate() {
            for (r, value) in feature.values.iter().enumerate() {
                values[r * width + c] = narrow(*value);
            }
        }
        let labels = self.label.iter().map(|l| narrow(*l)).collect();
        let times = self.times.iter().map(|t| narrow(*t)).collect();
        let (columns, images) = (self.columns(), self.images.clone());
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
            let values = rows.iter().map(|row| unknown.index(&self.name, codes, cells.cell(*row).as_deref()));
            self.values.extend(values);
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
    negative: BTreeMap<String, u64>,
}

impl Unknown {
    /// The index of a code; NaN for a missing one, and for one that the plan does not list, which is counted.
    fn index(&mut self, column: &str, codes: &[String], cell: Option<&str>) -> f64 {
        let Some(cell) = cell else { return f64::NAN };
        match codes.iter().position(|c| c == plan::code(cell)) {
            Some(index) => small(index),
            None => {
                *self.codes.entry(column.to_owned()).or_default() += 1;
                f64::NAN
            }
        }
    }

    pub(crate) fn check(self) -> Result<(), CohortError> {
        if let Some((column, rows)) = self.codes.into_iter().next() {
            return Err(CohortError::UnknownCode { column, rows });
        }
        if let Some((column, rows)) = self.negative.into_iter().next() {
            return Err(CohortError::NegativeTime { column, rows });
        }
        match self.outside.into_iter().next() {
            Some((column, rows)) => Err(CohortError::OutOfBounds { column, rows }),
            None => Ok(()),
        }
    }
}

/// The label of each row as [`Frame::label`] holds it, and its times.
fn label(
    batch: &RecordBatch,
    plan: &Plan,
    schema: &Schema,
    rows: &[usize],
    unknown: &mut Unknown,
) -> Result<(Vec<f64>, Vec<f64>), CohortError> {
    let label = &plan.data.label;
    let kind = label.kind().map_err(|reason| CohortError::Plan { place: "data.label".into(), reason })?;
    let read = |column: &str| numbers(batch, column, schema, rows);
    let holds = |comparison: Comparison, values: Vec<f64>| -> Vec<f64> {
        let one = |v: f64| if v.is_nan() { f64::NAN } else { f64::from(u8::from(comparison.holds(v))) };
        values.into_iter().map(one).collect()
    };
    match kind {
        LabelKind::YesNo(positive) => Ok((holds(positive, read(&label.column)?), Vec::new())),
        LabelKind::Number => Ok((read(&label.column)?, Vec::new())),
        LabelKind::Classes(_) => {
            let cells = TextColumn::of(batch, &label.column)?;
            let of = |row: &usize| unknown.index(&label.column, &label.classes, cells.cell(*row).as_deref());
            Ok((rows.iter().map(of).collect(), Vec::new()))
        }
        LabelKind::Survival(event) => {
            let column = label.time.as_deref().unwrap_or_default();
            let times = read(column)?;
            let negative = times.iter().filter(|time| **time < 0.0).count() as u64;
            if negative > 0 {
                *unknown.negative.entry(column.to_owned()).or_default() += negative;
            }
            Ok((holds(event, read(&label.column)?), times))
        }
    }
}

/// The shape of a plan's image.
fn shape(image: &Image) -> [usize; 3] {
    [image.channels, image.height, image.width].map(|side| side as usize)
}

impl Pixels {
    /// Adds the images of some rows of a batch.
    fn push(&mut self, batch: &RecordBatch, image: &Image, rows: &[usize]) -> Result<(), CohortError> {
        let unknown = || CohortError::UnknownColumn { column: image.column.clone() };
        let column = batch.column_by_name(&image.column).ok_or_else(unknown)?.as_any();
        let (fixed, binary) = (column.downcast_ref::<FixedSizeBinaryArray>(), column.downcast_ref::<BinaryArray>());
        let cell = |row: usize| match (fixed, binary) {
            (Some(array), _) => array.is_valid(row).then(|| array.value(row)),
            (_, Some(array)) => array.is_valid(row).then(|| array.value(row)),
            _ => None,
        };
        if fixed.is_none() && binary.is_none() {
            let (column, found) = (image.column.clone(), ColumnKind::Text.word());
            return Err(CohortError::TypeMismatch { column, found, expected: "an image" });
        }
        let unfit = rows.iter().filter(|row| cell(**row).is_none_or(|bytes| bytes.len() != self.len())).count();
        if unfit > 0 {
            let (column, rows, expected) = (image.column.clone(), unfit as u64, self.len());
            return Err(CohortError::ImageSize { column, rows, expected });
        }
        self.bytes.reserve(rows.len() * self.len());
        rows.iter().filter_map(|row| cell(*row)).for_each(|bytes| self.bytes.extend_from_slice(bytes));
        Ok(())
    }

    fn take(&self, rows: &[usize]) -> Self {
        let mut bytes = Vec::with_capacity(rows.len() * self.len());
        rows.iter().for_each(|row| bytes.extend_from_slice(self.row(*row)));
        Self { shape: self.shape, bytes }
    }

    /// Bytes of one image.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The image of a row.
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.len()..(row + 1) * self.len()]
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BinaryArray};

    use super::*;
    use crate::schema::Column;

    const BASE: &str = r#"
schema: hospes/plan/v1
name: labels
data:
  subject: id
  label: LABEL
  columns: [x]
tasks:
  read: { component: reader }
  count: { component: statistics, inputs: { data: read } }
"#;

    fn plan(label: &str, image: Option<Image>) -> Plan {
        let plan = plan::read(&BASE.replace("LABEL", label)).unwrap();
        Plan { data: plan::DataNeeds { image, ..plan.data }, ..plan }
    }

    fn schema() -> Schema {
        let column = |(name, kind): (&str, ColumnKind)| Column { name: name.into(), kind, masked: false };
        let columns = [("id", ColumnKind::Text), ("x", ColumnKind::Number), ("y", ColumnKind::Number)];
        let rest = [("kind", ColumnKind::Category), ("days", ColumnKind::Number)];
        Schema { columns: columns.into_iter().chain(rest).map(column).collect(), subject: "id".into() }
    }

    fn batch(extra: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(StringArray::from(vec!["00"; 3]))),
            ("x", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))),
            ("y", Arc::new(Float64Array::from(vec![Some(1.0), None, Some(0.0)]))),
            ("kind", Arc::new(StringArray::from(vec![Some("b"), Some("a"), None]))),
            ("days", Arc::new(Float64Array::from(vec![Some(4.5), Some(0.0), None]))),
        ];
        columns.extend(extra);
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
    }

    fn read(plan: &Plan, batch: &RecordBatch) -> Result<Frame, CohortError> {
        let (mut frame, mut unknown) = (Frame::for_plan(plan), Unknown::default());
        frame.push(batch, plan, &schema(), &OptOuts::new(), &mut unknown)?;
        unknown.check().map(|()| frame)
    }

    /// With NaN as −9, so that it can be compared.
    fn told(values: &[f64]) -> Vec<f64> {
        values.iter().map(|v| if v.is_nan() { -9.0 } else { *v }).collect()
    }

    #[test]
    fn each_kind_of_label_is_read_in_its_own_way() {
        let of = |label: &str| read(&plan(label, None), &batch(Vec::new())).unwrap();
        assert_eq!(told(&of("{ column: y, positive: \"> 0\" }").label), [1.0, -9.0, 0.0]);
        assert_eq!(told(&of("{ column: days }").label), [4.5, 0.0, -9.0]);
        // The codes of a category, and the numbers of a column that is one at this site.
        assert_eq!(told(&of("{ column: kind, classes: [a, b] }").label), [1.0, 0.0, -9.0]);
        assert_eq!(told(&of("{ column: y, classes: [\"0\", \"1\"] }").label), [1.0, -9.0, 0.0]);
        let survival = of("{ column: y, positive: \"== 1\", time: days }");
        assert_eq!((told(&survival.label), told(&survival.times)), (vec![1.0, -9.0, 0.0], vec![4.5, 0.0, -9.0]));
        // Without a time there is no label either.
        assert_eq!([0, 1, 2].map(|row| survival.is_labelled(row)), [true, false, false]);
        let mut both = survival.take(&[2, 0]);
        both.append(&survival, 1);
        assert_eq!(told(&both.times), [-9.0, 4.5, 4.5, 0.0, -9.0]);
    }

    #[test]
    fn a_class_that_the_plan_does_not_list_and_a_negative_time_are_errors() {
        let error = |label: &str, batch: &RecordBatch| read(&plan(label, None), batch).err().unwrap().to_string();
        assert_eq!(
            error("{ column: kind, classes: [a, c] }", &batch(Vec::new())),
            "column 'kind': 1 rows have a code that the plan does not list"
        );
        let negative = batch(vec![("late", Arc::new(Float64Array::from(vec![-1.0, 2.0, -3.0])))]);
        assert_eq!(
            error("{ column: y, positive: \"== 1\", time: late }", &negative),
            "column 'late': 2 rows have a negative time"
        );
    }

    #[test]
    fn images_come_row_by_row_and_only_of_the_size_of_the_plan() {
        let image = || Some(Image { column: "scan".into(), channels: 1, height: 1, width: 2 });
        let label = "{ column: y }";
        let cells = |cells: Vec<Option<&[u8]>>| batch(vec![("scan", Arc::new(BinaryArray::from(cells)))]);
        let pixels: [&[u8]; 3] = [&[1, 2], &[3, 4], &[5, 6]];
        let binary = cells(pixels.map(Some).to_vec());
        let fixed = FixedSizeBinaryArray::try_from_iter(pixels.iter()).unwrap();
        for batch in [binary, batch(vec![("scan", Arc::new(fixed))])] {
            let frame = read(&plan(label, image()), &batch).unwrap();
            let mut some = frame.take(&[2, 0]);
            some.append(&frame, 1);
            let images = some.images.unwrap();
            assert_eq!((images.row(0), images.row(2), images.bytes.len()), (pixels[2], pixels[0], 10));
        }
        for cells in [cells(vec![Some(&[1, 2]), Some(&[3]), None]), cells(vec![Some(&[1, 2, 3]), None, Some(&[1, 2])])]
        {
            assert_eq!(
                read(&plan(label, image()), &cells).err().unwrap().to_string(),
                "column 'scan': 2 rows have no image of the 2 bytes (channels × height × width) of the plan"
            );
        }
        let text = batch(vec![("scan", Arc::new(StringArray::from(vec!["a", "b", "c"])))]);
        let error = read(&plan(label, image()), &text).err().unwrap().to_string();
        assert_eq!(error, "column 'scan' is text here; the plan reads it as an image");
    }
}
