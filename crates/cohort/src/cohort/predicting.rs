//! What a model gives for each row of a dataset, in a file for the site's own people.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use arrow_array::RecordBatch;
use hospes_protocol::approval::LeaveToPredict;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::plan::{self, LabelKind, Loss, Plan};
use hospes_protocol::text::shown;
use serde::{Deserialize, Serialize};

use super::judging::Behind;
use super::{check_features, read_frame, wrong_component};
use crate::component::{Frame, Pipeline, Unknown};
use crate::device::Compute;
use crate::error::CohortError;
use crate::opt_out::OptOuts;
use crate::snapshot::{HashingWriter, Snapshot, SnapshotKey};
use crate::train::{Progress, Pulse, payload};

/// Characters of a line above the table.
const LINE_CHARS: usize = 2_000;
/// What stands in each row: it goes with a row that is copied into another table.
const MARK: &str = "research use only";
/// What stands beside a row without an output.
const INCOMPLETE: &str = "a value is missing";
/// Largest linear predictor of a count, in absolute value, as in evaluations: e^600 is a number, e^710 is none.
const FARTHEST: f64 = 300.0;

/// A model, and the rows that it is used on.
pub struct Prediction<'a> {
    /// The plan of the run that the model comes from.
    pub plan: &'a Canonical<Plan>,
    /// The task of it that trained the model.
    pub task: &'a str,
    /// The model's file.
    pub file: &'a [u8],
    /// The digest by which the run names it.
    pub model: Digest,
    /// The snapshot of the rows, and the key that opens it.
    pub rows: (&'a Snapshot, &'a SnapshotKey),
    /// The snapshot that this site trained on. It is asked for where the plan's steps learned something from it
    /// ([`learns`](hospes_protocol::plan::Component::learns)), as means to scale by.
    pub trained_on: Option<(&'a Snapshot, &'a SnapshotKey)>,
    /// The site's opt-out list as of now.
    pub opt_outs: &'a OptOuts,
    /// Lines that stand above the table, for people.
    pub head: &'a [String],
    /// When it has to be done.
    pub deadline: Timestamp,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicted {
    /// Rows with an output.
    pub rows: u64,
    /// Rows that lack a value which the model needs, and so an output.
    pub incomplete: u64,
    /// Rows of people who opted out; they are not in the file.
    pub opted_out: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of it.
    pub digest: Digest,
}

/// Writes what a model gives for each row of a snapshot into a file that is there already, as a table with a line for each
/// row: its number in the snapshot, from 1, and the model's outputs. Rows are prepared exactly as this site's training
/// rows were; no label is read.
///
/// # Errors
/// [`CohortError::WrongSnapshot`] if the leave is for another snapshot; [`CohortError::Model`] if the model's file is not
/// the one that the run names, does not fit the plan, or lacks layers that each site kept; what training would say of
/// rows that do not fit the plan; [`CohortError::NoRowsLeft`] if no row has all that the model needs;
/// [`CohortError::TooLate`], [`CohortError::Cancelled`], [`CohortError::Write`]. The file is of no use then.
///
/// # Disclosure
/// The return value has counts and a digest. The file tells of each row what the model makes of it: it is for those of
/// the site's own people who may see its rows, under a leave that the site's policy gave, and lies where one of them
/// chose. It holds neither a subject's key nor a value of the dataset; who has the source finds rows by their numbers.
pub fn predict_file(
    leave: LeaveToPredict,
    of: &Prediction<'_>,
    path: &Path,
    pulse: &mut Pulse<'_>,
) -> Result<Predicted, CohortError> {
    let (snapshot, key) = of.rows;
    // PRIVACY: single rows go out of this crate by this leave alone.
    if leave.snapshot() != snapshot.document.digest() {
        return Err(CohortError::WrongSnapshot);
    }
    let mut work = Work::begin(of, path)?;
    let mut columns = plan::predictors(of.plan, of.task);
    columns.insert(snapshot.document.schema.subject.clone());
    snapshot.read(key, &columns, &mut |batch| {
        work.batch(batch)?;
        rest(of, pulse, work.read)
    })?;
    work.end()
}

/// A prediction under way. Rows go through it a batch at a time, so that a table may be larger than the memory.
struct Work<'p> {
    of: &'p Prediction<'p>,
    behind: Behind,
    parameters: Vec<f32>,
    meaning: Meaning<'p>,
    /// The plan's steps before the model, with what they learned.
    steps: Pipeline<'p>,
    compute: Compute,
    table: Table<'p>,
    unknown: Unknown,
    /// Rows that were read.
    read: u64,
    /// Those of them of people who did not opt out.
    kept: u64,
    /// Those of these with an output.
    given: u64,
    /// For each column of features whether some row has a value in it.
    has_value: Vec<bool>,
}

impl<'p> Work<'p> {
    fn begin(of: &'p Prediction<'p>, path: &'p Path) -> Result<Self, CohortError> {
        let (behind, parameters) = model(of)?;
        let meaning = Meaning::of(of.plan, behind.loss)?;
        let steps = steps(of)?;
        let table = Table::begin(path, of.head, &meaning)?;
        let has_value = vec![false; of.plan.data.columns.len()];
        let (compute, unknown) = (Compute::processor(), Unknown::default());
        let (read, kept, given) = (0, 0, 0);
        Ok(Self { of, behind, parameters, meaning, steps, compute, table, unknown, read, kept, given, has_value })
    }

    /// Writes what the model gives for the rows of a batch, without those of people who opted out.
    fn batch(&mut self, batch: &RecordBatch) -> Result<(), CohortError> {
        let of = self.of;
        let schema = &of.rows.0.document.schema;
        let mut rows = Frame::for_prediction(of.plan, self.behind.offset.as_ref());
        let kept = rows.push_unlabelled(batch, of.plan, schema, of.opt_outs, &mut self.unknown)?;
        for (has_value, feature) in self.has_value.iter_mut().zip(&rows.features) {
            *has_value |= feature.missing() < rows.rows();
        }
        let rows = self.steps.prepare(of.task, rows)?;
        check_features(of.plan, of.task, &rows)?;
        let needed: BTreeSet<&String> = self.behind.offset.iter().collect();
        let complete: Vec<usize> = (0..rows.rows()).filter(|row| rows.is_complete(*row, &needed)).collect();
        let outputs = self.outputs(&rows.take(&complete))?;
        let mut given = complete.iter().zip(outputs.chunks_exact(self.meaning.outputs())).peekable();
        for (at, row) in kept.iter().enumerate() {
            let output = given.next_if(|(complete, _)| **complete == at).map(|(_, output)| output);
            self.table.row(self.read + 1 + *row as u64, output, &self.meaning)?;
        }
        self.read += batch.num_rows() as u64;
        self.kept += kept.len() as u64;
        self.given += complete.len() as u64;
        Ok(())
    }

    /// What the model gives for rows that have all it needs, with the offset of a regression.
    fn outputs(&self, rows: &Frame) -> Result<Vec<f32>, CohortError> {
        if rows.rows() == 0 {
            return Ok(Vec::new());
        }
        let task = self.of.task;
        let outputs = self.behind.outputs(&self.parameters, rows, &rows.matrix(task)?, &self.compute, task)?;
        let wrong = |reason: &str| Err(CohortError::Model { reason: reason.to_owned() });
        if outputs.len() != rows.rows() * self.meaning.outputs() {
            return wrong("it has another number of outputs than the label needs");
        }
        if outputs.iter().any(|output| !output.is_finite()) {
            return wrong("it gives an output that is NaN or infinite");
        }
        Ok(outputs)
    }

    /// Makes the table durable, if it may be.
    fn end(self) -> Result<Predicted, CohortError> {
        let Self { of, table, unknown, read, kept, given, has_value, .. } = self;
        // As in training: what the plan does not know is not guessed. Whoever began the file does not keep it.
        unknown.check()?;
        if given == 0 {
            let columns = of.plan.data.columns.iter().zip(has_value);
            let empty = columns.filter(|(_, has_value)| kept > 0 && !has_value);
            let empty_columns = empty.map(|(column, _)| column.clone()).collect();
            return Err(CohortError::NoRowsLeft { task: of.task.to_owned(), empty_columns });
        }
        let (digest, bytes) = table.end()?;
        Ok(Predicted { rows: given, incomplete: kept - given, opted_out: read - kept, bytes, digest })
    }
}

/// The model with its parameters.
fn model(of: &Prediction<'_>) -> Result<(Behind, Vec<f32>), CohortError> {
    let behind = Behind::of(of.plan, of.task).ok_or_else(|| wrong_component(of.task, "nn_train or glm"))?;
    if behind.train.as_ref().is_some_and(|train| !plan::kept(train, behind.inputs).is_empty()) {
        let reason = "each site keeps layers of it to itself, which are deleted with the run".to_owned();
        return Err(CohortError::Model { reason });
    }
    let parameters = payload::model_of(of.file, of.model, &plan::model::tensors(&behind.model, behind.inputs))?;
    Ok((behind, parameters))
}

/// The plan's steps before the model, with what they learned from the rows that this site trained on.
fn steps<'p>(of: &Prediction<'p>) -> Result<Pipeline<'p>, CohortError> {
    let learns = plan::preparation(of.plan, of.task).iter().any(|step| of.plan.tasks[*step].component.learns());
    let trained_on = match of.trained_on.filter(|_| learns) {
        Some((snapshot, key)) => read_frame(of.plan, snapshot, key, of.opt_outs)?,
        None if learns => {
            let reason = "its rows were prepared with numbers that were learned from a dataset which is not here";
            return Err(CohortError::Plan { place: format!("tasks.{}", of.task), reason: reason.into() });
        }
        None => Frame::for_plan(of.plan),
    };
    Pipeline::new(of.plan, trained_on).learned(of.task)
}

/// Between two batches: whether there is time, and somebody still wants it.
fn rest(of: &Prediction<'_>, pulse: &mut Pulse<'_>, read: u64) -> Result<(), CohortError> {
    if (pulse.now)() >= of.deadline {
        return Err(CohortError::TooLate);
    }
    let hundredths = read.saturating_mul(100) / of.rows.0.document.rows.max(1);
    let done = u32::try_from(hundredths).unwrap_or(100).min(100);
    if (pulse.progress)(Progress { done, total: 100 }) { Ok(()) } else { Err(CohortError::Cancelled) }
}

/// What the outputs of a model mean, by the label and the loss that it was trained with.
enum Meaning<'a> {
    /// Yes or no: a logit.
    Score,
    /// One of several classes: a logit for each.
    Classes(&'a [String]),
    /// A number.
    Number,
    /// A count: its logarithm.
    Count,
    /// A time to an event: the logarithm of a hazard ratio.
    Hazard,
}

impl<'a> Meaning<'a> {
    fn of(plan: &'a Plan, loss: Loss) -> Result<Self, CohortError> {
        let label = &plan.data.label;
        let kind = label.kind().map_err(|reason| CohortError::Plan { place: "data.label".into(), reason })?;
        Ok(match kind {
            LabelKind::YesNo(_) => Self::Score,
            LabelKind::Classes(_) => Self::Classes(&label.classes),
            LabelKind::Number if loss == Loss::Poisson => Self::Count,
            LabelKind::Number => Self::Number,
            LabelKind::Survival(_) => Self::Hazard,
        })
    }

    /// Outputs for each row.
    fn outputs(&self) -> usize {
        match self {
            Self::Classes(classes) => classes.len().max(1),
            Self::Score | Self::Number | Self::Count | Self::Hazard => 1,
        }
    }

    fn columns(&self) -> Vec<String> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match self {
            Self::Score => names(&["linear_predictor", "score"]),
            Self::Classes(classes) => {
                let scores = classes.iter().map(|class| format!("score_{class}"));
                std::iter::once("class".to_owned()).chain(scores).collect()
            }
            Self::Number => names(&["value"]),
            Self::Count => names(&["linear_predictor", "expected_count"]),
            Self::Hazard => names(&["log_hazard_ratio"]),
        }
    }

    fn cells(&self, output: &[f32]) -> Vec<String> {
        let first = output.first().copied().map_or(f64::NAN, f64::from);
        match self {
            Self::Score => vec![number(first), number(1.0 / (1.0 + (-first).exp()))],
            Self::Classes(classes) => {
                let most = output.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let class = output.iter().position(|z| *z == most).and_then(|at| classes.get(at));
                let parts: Vec<f64> = output.iter().map(|z| (f64::from(*z) - f64::from(most)).exp()).collect();
                let sum: f64 = parts.iter().sum();
                let class = class.cloned().unwrap_or_default();
                std::iter::once(class).chain(parts.iter().map(|part| number(part / sum))).collect()
            }
            Self::Number | Self::Hazard => vec![number(first)],
            Self::Count => vec![number(first), number(first.clamp(-FARTHEST, FARTHEST).exp())],
        }
    }

    /// What a person should know who reads the columns.
    fn words(&self) -> &'static str {
        match self {
            Self::Score => {
                "score: from 0 to 1, the higher the more the row looks like those that the plan counts as positive; \
                 linear_predictor: the same before the logistic function"
            }
            Self::Classes(_) => "class: the one with the highest score; the scores of a row add up to 1",
            Self::Number => "value: what the model expects of the label",
            Self::Count => "expected_count: what the model expects of the label; linear_predictor: its logarithm",
            Self::Hazard => {
                "log_hazard_ratio: the higher, the earlier the event is to be expected; it compares rows of one site \
                 with each other, and is no probability"
            }
        }
    }
}

/// A number as programs read it: in full, and with an exponent where it would be long.
fn number(value: f64) -> String {
    let is_short = value == 0.0 || (1e-6..1e15).contains(&value.abs());
    if is_short { value.to_string() } else { format!("{value:e}") }
}

/// A cell that is one cell, and no formula. A number stays one.
fn cell(text: &str) -> String {
    let inert = if text.parse::<f64>().is_ok() { text.to_owned() } else { inert(text) };
    match inert.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", inert.replace('"', "\"\"")),
        false => inert,
    }
}

/// A text in which no spreadsheet finds a formula, whichever sign it takes for the end of a cell (OWASP, CSV injection).
/// Titles, purposes and codes come from other organisations, and a formula can send away what stands beside it.
fn inert(text: &str) -> String {
    let (mut written, mut begins) = (String::with_capacity(text.len()), true);
    for c in text.chars() {
        if begins && matches!(c, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠') {
            written.push('\'');
        }
        begins = matches!(c, ',' | ';' | '|' | '\t' | '\r' | '\n') || (begins && matches!(c, ' ' | '"'));
        written.push(c);
    }
    written
}

/// The file on its way.
struct Table<'a> {
    out: HashingWriter<io::BufWriter<File>>,
    path: &'a Path,
    columns: usize,
}

impl<'a> Table<'a> {
    /// Writes the lines above the table, and the names of its columns.
    fn begin(path: &'a Path, head: &[String], meaning: &Meaning<'_>) -> Result<Self, CohortError> {
        // Whoever made it decided who may read it.
        let file = File::options().write(true).truncate(true).open(path);
        let file = file.map_err(|source| CohortError::Write { path: path.to_owned(), source })?;
        let columns = meaning.columns();
        let mut table = Self { out: HashingWriter::new(io::BufWriter::new(file)), path, columns: columns.len() };
        for line in head.iter().map(String::as_str).chain([meaning.words()]) {
            let words: Vec<&str> = line.split_whitespace().collect();
            // A quote could begin a cell that goes on over the lines below.
            let words = shown(&words.join(" "), LINE_CHARS).replace('"', "'");
            table.line(&inert(&format!("# {words}")))?;
        }
        let names = std::iter::once("row".to_owned()).chain(columns).chain(["note".to_owned(), "use".to_owned()]);
        table.cells(names)?;
        Ok(table)
    }

    fn row(&mut self, number: u64, output: Option<&[f32]>, meaning: &Meaning<'_>) -> Result<(), CohortError> {
        let (cells, note) = match output {
            Some(output) => (meaning.cells(output), ""),
            None => (vec![String::new(); self.columns], INCOMPLETE),
        };
        let marks = [note.to_owned(), MARK.to_owned()];
        self.cells(std::iter::once(number.to_string()).chain(cells).chain(marks))
    }

    fn cells(&mut self, cells: impl Iterator<Item = String>) -> Result<(), CohortError> {
        self.line(&cells.map(|text| cell(&text)).collect::<Vec<_>>().join(","))
    }

    fn line(&mut self, text: &str) -> Result<(), CohortError> {
        writeln!(self.out, "{text}").map_err(|source| self.failed(source))
    }

    /// Makes it durable; its digest and length.
    fn end(mut self) -> Result<(Digest, u64), CohortError> {
        self.out.flush().map_err(|source| self.failed(source))?;
        let path = self.path;
        let (out, digest, bytes) = self.out.ended();
        let fail = |source| CohortError::Write { path: path.to_owned(), source };
        out.into_inner().map_err(|error| fail(error.into_error()))?.sync_all().map_err(fail)?;
        Ok((digest, bytes))
    }

    fn failed(&self, source: io::Error) -> CohortError {
        CohortError::Write { path: self.path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_told_by_what_they_mean() {
        assert_eq!(Meaning::Score.cells(&[0.0]), ["0", "0.5"]);
        let classes = ["a", "b", "c"].map(str::to_owned);
        let cells = Meaning::Classes(&classes).cells(&[1.0, 3.0, 3.0]);
        assert_eq!(cells[0], "b", "the first of several, as in evaluations");
        let scores: Vec<f64> = cells[1..].iter().map(|cell| cell.parse().unwrap()).collect();
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((scores[1] / scores[0] - 2f64.exp()).abs() < 1e-9 && scores[1] == scores[2]);
        assert_eq!(Meaning::Number.cells(&[-2.5]), ["-2.5"]);
        assert_eq!(Meaning::Count.cells(&[0.0]), ["0", "1"]);
        let huge: f64 = Meaning::Count.cells(&[1e30])[1].parse().unwrap();
        assert!(huge.is_finite() && huge > 1e100);
        assert_eq!(Meaning::Hazard.cells(&[1.5]), ["1.5"]);
        for meaning in [Meaning::Score, Meaning::Classes(&classes), Meaning::Number, Meaning::Count, Meaning::Hazard] {
            let output = vec![0.25; meaning.outputs()];
            assert_eq!(meaning.cells(&output).len(), meaning.columns().len());
        }
    }

    #[test]
    fn numbers_come_back_as_they_were_and_stay_short() {
        for value in [0.0, -1.5, 1e-300, 123_456_789.125, 1.0 / 3.0, 1e130, -2.5e-9] {
            let text = number(value);
            assert_eq!(text.parse::<f64>().unwrap(), value, "{text}");
            assert!(text.len() < 26, "{text}");
        }
    }

    #[test]
    fn no_cell_is_a_formula_or_two_cells() {
        for (text, written) in [
            ("plain", "plain"),
            ("-1", "-1"),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            (" @x", " '@x"),
            ("a,b", "\"a,b\""),
            ("a;=b", "a;'=b"),
            ("a, \"=b", "\"a, \"\"'=b\""),
            ("", ""),
        ] {
            assert_eq!(cell(text), written);
        }
    }
}
