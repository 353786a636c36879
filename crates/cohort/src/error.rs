//! What can go wrong with data. No variant ever carries a value of a row.

use std::path::PathBuf;

use hospes_protocol::text::in_bytes;

use crate::source::Place;

/// Something about data or a snapshot failed.
///
/// # Disclosure
/// `Display` is for the site's own people: it names files, lines, columns, rules and counts, never a value. What may be
/// told outside is [`CohortError::outward`], which has no count and no column.
#[derive(Debug, thiserror::Error)]
pub enum CohortError {
    /// A file could not be opened.
    #[error("cannot open {}", path.display())]
    OpenSource {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be read to its end.
    #[error("cannot read {file}")]
    ReadSource {
        /// File.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Bytes do not fit the encoding.
    #[error("{file}, line {line}: the bytes are not valid {encoding}; choose another encoding")]
    Encoding {
        /// File.
        file: String,
        /// Line.
        line: u64,
        /// Encoding that was expected.
        encoding: String,
    },
    /// The file holds control characters that no table has.
    #[error("{file}, {place}: a NUL character; this is no text file")]
    NotText {
        /// File.
        file: String,
        /// Where.
        place: Place,
    },
    /// There is not even a header.
    #[error("{file}: the file is empty; a header line with column names is needed")]
    NoHeader {
        /// File.
        file: String,
    },
    /// The first line looks like a row.
    #[error("{file}: most of the first line are numbers or dates; a header line with column names is needed")]
    HeaderIsData {
        /// File.
        file: String,
    },
    /// A column has no name.
    #[error("{file}: column {index} has no name")]
    UnnamedColumn {
        /// File.
        file: String,
        /// Position, from 1.
        index: usize,
    },
    /// A column's name is too long.
    #[error("{file}: the name of column {index} has more than {limit} characters")]
    LongColumnName {
        /// File.
        file: String,
        /// Position, from 1.
        index: usize,
        /// Most characters.
        limit: usize,
    },
    /// Two columns have one name.
    #[error("{file}: columns {first} and {second} have the same name")]
    DuplicateColumn {
        /// File.
        file: String,
        /// Position of the one, from 1.
        first: usize,
        /// Position of the other.
        second: usize,
    },
    /// More columns than allowed.
    #[error("{file}: more than {limit} columns")]
    TooManyColumns {
        /// File.
        file: String,
        /// Most columns.
        limit: usize,
    },
    /// A record is too long.
    #[error("{file}, line {line}: the record has more than {}; is a quote missing?", in_bytes(*limit as u64))]
    LongRecord {
        /// File.
        file: String,
        /// Line on which the record begins.
        line: u64,
        /// Most bytes.
        limit: usize,
    },
    /// A field is too long.
    #[error("{file}, {place}, field {field}: more than {}", in_bytes(*limit as u64))]
    LongField {
        /// File.
        file: String,
        /// Where.
        place: Place,
        /// Position, from 1.
        field: usize,
        /// Most bytes.
        limit: usize,
    },
    /// More rows than allowed.
    #[error("{file}: more than {limit} rows")]
    TooManyRows {
        /// File.
        file: String,
        /// Most rows.
        limit: u64,
    },
    /// A row has another number of fields than the header.
    #[error("{file}, {place}: {found} fields, the header has {expected}")]
    Ragged {
        /// File.
        file: String,
        /// Where.
        place: Place,
        /// Fields of the header.
        expected: usize,
        /// Fields of this row.
        found: usize,
    },
    /// A quote is never closed.
    #[error("{file}, line {line}: a quote that begins in this record is never closed")]
    OpenQuote {
        /// File.
        file: String,
        /// Line.
        line: u64,
    },
    /// No sheet of this name.
    #[error("{file}: there is no sheet '{sheet}'{}", listed(sheets))]
    UnknownSheet {
        /// File.
        file: String,
        /// Name that was asked for.
        sheet: String,
        /// Names of those that there are.
        sheets: Vec<String>,
    },
    /// A database cannot be reached, or refuses.
    #[error("{database}: {reason}")]
    Database {
        /// Which, in words without anything secret.
        database: String,
        /// Why, and how to mend it.
        reason: String,
    },
    /// A query cannot be taken.
    #[error("the query cannot be taken: {reason}")]
    Query {
        /// Why, and how to mend it.
        reason: String,
    },
    /// Something in a source is not as it must be.
    #[error("{file}, {place}: {reason}")]
    Malformed {
        /// File.
        file: String,
        /// Where in it: a line, a column, an array.
        place: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// There is a header and nothing else.
    #[error("{file}: no rows")]
    NoRows {
        /// File.
        file: String,
    },
    /// No column of this name.
    #[error("there is no column '{column}'")]
    UnknownColumn {
        /// Name.
        column: String,
    },
    /// A cell does not have the column's type.
    #[error("{file}, {place}, column '{column}': the cell is no {expected}")]
    WrongType {
        /// File.
        file: String,
        /// Where.
        place: Place,
        /// Column.
        column: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A row has no subject.
    #[error("{file}, {place}: the subject column '{column}' is empty")]
    NoSubject {
        /// File.
        file: String,
        /// Where.
        place: Place,
        /// Column.
        column: String,
    },
    /// The source is not what was surveyed.
    #[error("{file}: it changed since it was surveyed, or while it was read")]
    SourceChanged {
        /// File.
        file: String,
    },
    /// Something durable could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The snapshot's columns could not be encoded.
    #[error("cannot encode the snapshot: {reason}")]
    Encode {
        /// Why.
        reason: String,
    },
    /// The names of the columns do not fit into a snapshot's document.
    #[error(
        "the names of {columns} columns need more than the {} of a snapshot's document; register fewer columns, or give them \
         shorter names",
        in_bytes(hospes_protocol::limits::DOCUMENT_BYTES as u64)
    )]
    TooManyNames {
        /// Columns.
        columns: usize,
    },
    /// A snapshot is not as it was registered.
    #[error("{}: the snapshot was altered since it was registered ({what}); nothing of it was used", path.display())]
    Altered {
        /// File.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// The key does not open it.
    #[error("{what} cannot be decrypted with this site's key")]
    Key {
        /// What.
        what: &'static str,
    },
    /// The permit is for another snapshot.
    #[error("the permit is for another snapshot")]
    WrongSnapshot,
    /// The plan reads a column that the permit does not name.
    #[error("column '{column}' is not in the permit")]
    ColumnNotPermitted {
        /// Name.
        column: String,
    },
    /// The permit's deadline passed.
    #[error("the permit's deadline has passed")]
    TooLate,
    /// Only tables that are tagged public may be pooled.
    #[error("only data tagged public can be pooled or fitted outside a round")]
    NotPublic,
    /// The plan cannot be carried out.
    #[error("{place}: {reason}")]
    Plan {
        /// Place in the plan.
        place: String,
        /// Why.
        reason: String,
    },
    /// The column's type at this site is not the plan's.
    #[error("column '{column}' is {found} here; the plan reads it as {expected}")]
    TypeMismatch {
        /// Name.
        column: String,
        /// Type here.
        found: &'static str,
        /// Type in the plan.
        expected: &'static str,
    },
    /// Codes that the plan does not list.
    #[error("column '{column}': {rows} rows have a code that the plan does not list")]
    UnknownCode {
        /// Name.
        column: String,
        /// Rows.
        rows: u64,
    },
    /// Values outside the plan's bounds.
    #[error("column '{column}': {rows} rows lie outside the bounds that the plan gives")]
    OutOfBounds {
        /// Name.
        column: String,
        /// Rows.
        rows: u64,
    },
    /// Times before the start.
    #[error("column '{column}': {rows} rows have a negative time")]
    NegativeTime {
        /// Name.
        column: String,
        /// Rows.
        rows: u64,
    },
    /// Images of another size than the plan's.
    #[error(
        "column '{column}': {rows} rows have no image of the {expected} bytes (channels × height × width) of the plan"
    )]
    ImageSize {
        /// Name.
        column: String,
        /// Rows.
        rows: u64,
        /// Bytes of the plan's image.
        expected: usize,
    },
    /// A column has no value at all.
    #[error("task '{task}': column '{column}' has no value in any row, so nothing can be fitted")]
    AllMissing {
        /// Task.
        task: String,
        /// Name.
        column: String,
    },
    /// Missing values where none can be.
    #[error("task '{task}': {rows} rows have a missing value in '{column}'; the plan needs an imputation before")]
    MissingValues {
        /// Task.
        task: String,
        /// Name.
        column: String,
        /// Rows.
        rows: u64,
    },
    /// Values that a regression cannot take.
    #[error("task '{task}': {rows} rows of the column '{column}' {rule}")]
    BrokenRule {
        /// Task.
        task: String,
        /// Name; `label` or `time` for those of the plan.
        column: String,
        /// Rows.
        rows: u64,
        /// What they are, in words.
        rule: &'static str,
    },
    /// Missing outcomes where none can be.
    #[error("task '{task}': {rows} rows have no label; drop them with an imputation or complete the data")]
    MissingLabel {
        /// Task.
        task: String,
        /// Rows.
        rows: u64,
    },
    /// Nothing is left to work on.
    #[error("task '{task}': no rows are left{}", detail(empty_columns))]
    NoRowsLeft {
        /// Task.
        task: String,
        /// Columns without any value, which may be why.
        empty_columns: Vec<String>,
    },
    /// The site's disclosure rules refuse.
    #[error("task '{task}': refused by the rule {rule} of this site's policy: {why}")]
    Disclosure {
        /// Task.
        task: String,
        /// Rule.
        rule: hospes_privacy::disclosure::Rule,
        /// Why, for the site's own people.
        why: String,
    },
    /// The model's bytes do not fit the plan.
    #[error("the model does not fit the plan: {reason}")]
    Model {
        /// Why.
        reason: String,
    },
    /// Training left the finite numbers.
    #[error("task '{task}': training diverged to values that are not finite; the learning rate may be too large")]
    Diverged {
        /// Task.
        task: String,
    },
    /// A report that masks have no room for.
    #[error("task '{task}' cannot send its report under masks: {reason}")]
    NotMaskable {
        /// Task.
        task: String,
        /// Which figure, and what it must be.
        reason: String,
    },
    /// A graphics card failed; the processor can do the same work.
    #[error("the graphics card ({card}) failed: {reason}")]
    Device {
        /// Which.
        card: crate::device::Card,
        /// In its driver's words.
        reason: String,
    },
    /// The parent asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A file of the opt-out list or an order cannot be read.
    #[error("cannot read the {what}: {reason}")]
    Format {
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A document has no canonical form.
    #[error(transparent)]
    Canon(#[from] hospes_protocol::canon::CanonError),
    /// Pipe to the parent broke.
    #[error("the pipe to the parent process broke")]
    Pipe(#[source] std::io::Error),
}

/// Which sheets could have been chosen.
fn listed(sheets: &[String]) -> String {
    match sheets {
        [] => "; only an Excel workbook (.xlsx) has sheets to choose from".to_owned(),
        sheets => format!("; there are '{}'", sheets.join("', '")),
    }
}

fn detail(columns: &[String]) -> String {
    match columns {
        [] => String::new(),
        [one] => format!("; column '{one}' has no value at all"),
        [first, rest @ ..] => format!("; column '{first}' and {} others have no value at all", rest.len()),
    }
}

/// What may be told outside the site about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outward {
    /// The data at the site do not fit the plan.
    DataDoNotFit,
    /// A disclosure rule of the site refuses.
    Disclosure,
    /// The snapshot cannot be opened.
    SnapshotUnusable,
    /// The model that the coordinator sent cannot be used.
    ModelUnusable,
    /// Training diverged.
    Diverged,
    /// The site's engine failed.
    Engine,
    /// The time was over.
    TooLate,
    /// The site stopped it.
    Cancelled,
}

impl Outward {
    /// The words for the coordinator.
    ///
    /// # Disclosure
    /// One of eight fixed sentences; no count, column or value.
    pub const fn words(self) -> &'static str {
        match self {
            Self::DataDoNotFit => "the data at this site do not fit the plan; the site's staff can see why",
            Self::Disclosure => "a disclosure rule of this site refuses the task; the site's staff can see which",
            Self::SnapshotUnusable => "the site's snapshot cannot be opened; the site's staff can see why",
            Self::ModelUnusable => "the model that was sent does not fit the plan",
            Self::Diverged => "training diverged; a smaller learning rate may help",
            Self::Engine => "the site's engine failed; the site's staff can see why",
            Self::TooLate => "the time for this round was over",
            Self::Cancelled => "the site stopped the work",
        }
    }
}

impl CohortError {
    /// What may be told outside.
    ///
    /// # Disclosure
    /// A class of failure. Whether the data fit the plan is one bit that a site gives away by failing at all.
    pub fn outward(&self) -> Outward {
        // PRIVACY: counts and columns of the local message stay at the site.
        match self {
            Self::UnknownColumn { .. }
            | Self::TypeMismatch { .. }
            | Self::UnknownCode { .. }
            | Self::OutOfBounds { .. }
            | Self::NegativeTime { .. }
            | Self::ImageSize { .. }
            | Self::AllMissing { .. }
            | Self::MissingValues { .. }
            | Self::MissingLabel { .. }
            | Self::BrokenRule { .. }
            | Self::NoRowsLeft { .. }
            | Self::NotMaskable { .. }
            | Self::Plan { .. } => Outward::DataDoNotFit,
            Self::Altered { .. } | Self::Key { .. } | Self::OpenSource { .. } | Self::ReadSource { .. } => {
                Outward::SnapshotUnusable
            }
            Self::Disclosure { .. } => Outward::Disclosure,
            Self::Model { .. } => Outward::ModelUnusable,
            Self::Diverged { .. } => Outward::Diverged,
            Self::TooLate => Outward::TooLate,
            Self::Cancelled => Outward::Cancelled,
            _ => Outward::Engine,
        }
    }
}
