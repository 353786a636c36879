//! Apache Parquet: flat columns of numbers, text, dates, true and false; each cell becomes text.

use std::fs::File;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaData;

use super::Limits;
use super::records::{Cells, Record};
use super::rows::Place;
use crate::error::CohortError;

/// Cells of one batch, where it then has rows from 1 to [`BATCH_ROWS`].
const BATCH_CELLS: usize = 1 << 18;
const BATCH_ROWS: usize = 1 << 12;
/// Most bytes of a row group when it is unpacked, so that a small file cannot become a large one in memory.
const GROUP_BYTES: i64 = 4 << 30;

/// Rows of a Parquet file.
pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    file: String,
    names: Vec<String>,
    limits: Limits,
    batch: Option<RecordBatch>,
    at: usize,
    row: u64,
    cells: Cells,
}

impl ParquetRows {
    pub(super) fn new(source: File, file: &str, limits: Limits) -> Result<Self, CohortError> {
        let malformed = |place: String, reason: &str| CohortError::Malformed {
            file: file.to_owned(),
            place,
            reason: reason.to_owned(),
        };
        // Types as Parquet itself has them: what a program noted about dictionaries and views of its own is left out.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let unreadable = |_| malformed("footer".into(), "it is damaged, encrypted, or no Parquet file");
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(source, options).map_err(unreadable)?;
        let schema = builder.schema().clone();
        if schema.fields().len() > limits.columns {
            return Err(CohortError::TooManyColumns { file: file.to_owned(), limit: limits.columns });
        }
        for (index, field) in schema.fields().iter().enumerate() {
            if !is_flat(field.data_type()) {
                let reason = "only numbers, text, dates, true and false can be registered from Parquet; leave the \
                              column out, or write it as one of these";
                return Err(malformed(format!("column {}", index + 1), reason));
            }
        }
        check_groups(builder.metadata(), &malformed)?;
        let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let rows = (BATCH_CELLS / names.len().max(1)).clamp(1, BATCH_ROWS);
        let unreadable = |_| malformed("first row group".into(), "it is damaged");
        let reader = builder.with_batch_size(rows).build().map_err(unreadable)?;
        let (file, cells) = (file.to_owned(), Cells::default());
        Ok(Self { reader, file, names, limits, batch: None, at: 0, row: 0, cells })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Record<'_>>, CohortError> {
        while self.batch.as_ref().is_none_or(|batch| self.at == batch.num_rows()) {
            self.at = 0;
            // PRIVACY: what the reader says of a damaged page could quote it.
            self.batch = match self.reader.next() {
                None => return Ok(None),
                Some(Ok(batch)) => Some(batch),
                Some(Err(_)) => return Err(self.wrong(self.row + 1, None, "it is damaged from here on")),
            };
        }
        let Some(batch) = &self.batch else { return Ok(None) };
        self.row += 1;
        self.cells.clear();
        for (index, column) in batch.columns().iter().enumerate() {
            let text = match column.is_null(self.at) {
                true => Some(String::new()),
                false => text(column.as_ref(), self.at),
            };
            let Some(text) = text else {
                return Err(self.wrong(self.row, Some(index), "a date or time that no calendar has"));
            };
            let (file, place) = (self.file.clone(), Place::Row(self.row));
            if text.len() > self.limits.field_bytes {
                let limit = self.limits.field_bytes;
                return Err(CohortError::LongField { file, place, field: index + 1, limit });
            }
            if text.contains('\0') {
                return Err(CohortError::NotText { file, place });
            }
            self.cells.push(&text);
        }
        self.at += 1;
        Ok(Some(self.cells.record(Place::Row(self.row), None)))
    }

    fn wrong(&self, row: u64, column: Option<usize>, reason: &str) -> CohortError {
        let column = column.map(|c| format!(", column '{}'", self.names[c])).unwrap_or_default();
        let place = format!("{}{column}", Place::Row(row));
        CohortError::Malformed { file: self.file.clone(), place, reason: reason.to_owned() }
    }
}

/// Refuses what would not be read, before the first row is.
fn check_groups(
    metadata: &ParquetMetaData,
    malformed: &impl Fn(String, &str) -> CohortError,
) -> Result<(), CohortError> {
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let place = || format!("row group {}", index + 1);
        if !(0..=GROUP_BYTES).contains(&group.total_byte_size()) {
            return Err(malformed(place(), "it has more than 4 GiB; write smaller row groups"));
        }
        for column in group.columns() {
            let known =
                matches!(column.compression(), Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_));
            if !known {
                return Err(malformed(
                    place(),
                    "it is packed in a way that is not read here; write it with snappy or zstd",
                ));
            }
        }
    }
    Ok(())
}

fn is_flat(kind: &DataType) -> bool {
    kind.is_integer()
        || kind.is_floating()
        || matches!(
            kind,
            DataType::Null
                | DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Decimal128(..)
                | DataType::Date32
                | DataType::Date64
                | DataType::Timestamp(..)
        )
}

/// A cell that is not null as text; `None` for a date that no calendar has. NaN is a missing value, as it is in the
/// programs that write it.
fn text(column: &dyn Array, row: usize) -> Option<String> {
    macro_rules! plain {
        ($kind:ty) => {
            Some(column.as_primitive::<$kind>().value(row).to_string())
        };
    }
    macro_rules! moment {
        ($kind:ty) => {
            column.as_primitive::<$kind>().value_as_datetime(row).map(|at| at.to_string())
        };
    }
    match column.data_type() {
        DataType::Boolean => Some(u8::from(column.as_boolean().value(row)).to_string()),
        DataType::Int8 => plain!(Int8Type),
        DataType::Int16 => plain!(Int16Type),
        DataType::Int32 => plain!(Int32Type),
        DataType::Int64 => plain!(Int64Type),
        DataType::UInt8 => plain!(UInt8Type),
        DataType::UInt16 => plain!(UInt16Type),
        DataType::UInt32 => plain!(UInt32Type),
        DataType::UInt64 => plain!(UInt64Type),
        DataType::Float16 => Some(shortest(column.as_primitive::<Float16Type>().value(row).to_f32())),
        DataType::Float32 => Some(shortest(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            Some(if value.is_nan() { String::new() } else { format!("{value:?}") })
        }
        DataType::Decimal128(..) => Some(column.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Utf8 => Some(column.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row).to_owned()),
        DataType::Date32 => column.as_primitive::<Date32Type>().value_as_date(row).map(|d| d.to_string()),
        DataType::Date64 => column.as_primitive::<Date64Type>().value_as_date(row).map(|d| d.to_string()),
        DataType::Timestamp(TimeUnit::Second, _) => moment!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => moment!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => moment!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => moment!(TimestampNanosecondType),
        _ => Some(String::new()),
    }
}

/// The shortest text that reads as the same number of 32 bits: 0.1, not 0.10000000149.
fn shortest(value: f32) -> String {
    if value.is_nan() { String::new() } else { format!("{value:?}") }
}
