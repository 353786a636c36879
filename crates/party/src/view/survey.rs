//! What is in a file, before it is registered, and how it is read.

use hospes_cohort::scan::ScanProfile;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::{AskedQuery, ColumnView, NameMark};

/// How a file is read, as far as a person chooses it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileReading {
    /// Name of the sheet, of a workbook; its first one if none is named.
    pub sheet: Option<String>,
    /// Cells that mean *missing* besides the empty one; `None` is what is usual for the kind of file.
    pub missing: Option<Vec<String>>,
    /// How strictly identifiers are looked for.
    pub scan: ScanProfile,
    /// The query whose rows are looked into; without one, those of the file.
    pub query: Option<AskedQuery>,
}

/// What is in a file, before it is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct SurveyView {
    /// Rows.
    pub rows: u64,
    /// Encoding and delimiter, in words.
    pub format: String,
    /// Names of a workbook's sheets; of any other file, none.
    pub sheets: Vec<String>,
    /// The sheet that was read.
    pub sheet: Option<String>,
    /// Cells that mean *missing* besides the empty one.
    pub missing: Vec<String>,
    /// Cells that are missing, and cells that may be, by column.
    pub gaps: Vec<GapView>,
    /// Columns.
    pub columns: Vec<ColumnView>,
    /// Names of columns that may be taken for others of the file.
    pub marks: Vec<NameMark>,
}

/// How far a file or a query is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ReadingView {
    /// Rows so far, in this pass.
    pub rows: u64,
    /// Rows in all, where an earlier pass has counted them.
    pub all: Option<u64>,
}

/// Cells of one column with one text that means *missing*, or may mean it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct GapView {
    /// Column.
    pub column: String,
    /// The text: one that means *missing*, or one of a fixed list of those that often do; of an empty cell, nothing.
    pub marker: String,
    /// How many such cells the column has.
    pub cells: u64,
    /// Whether they are read as missing; if not, that is a question for the steward.
    pub is_missing: bool,
}
