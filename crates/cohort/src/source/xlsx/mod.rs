//! A sheet of an Excel workbook (`.xlsx`): its first row with a value has the names of the columns, every other row with
//! one is a row. Each cell becomes the text that a CSV file would have for it, and is then typed like one.
//!
//! Nothing of a workbook is written anywhere, followed or run: no link, no macro, no formula, whose result is read as it
//! was saved. What is read goes by as a stream with a limit on every row and text, but for the workbook's list of texts.
//! It is read by code of our own because calamine 0.38, which opens whole workbooks, reserves as much memory as a file
//! claims to need (`uniqueCount`) and copies fonts and formats for every style: a few kilobytes end the process.

mod book;
mod value;
mod xml;

use std::fs::File;

use hospes_protocol::text::in_bytes;
use quick_xml::events::BytesStart;

use super::Limits;
use super::records::{Cells, Record};
use super::rows::Place;
use crate::error::CohortError;
use book::Book;
use value::{Kind, Words};
use xml::{DAMAGED, Step, Xml};

/// Rows of a sheet.
pub(super) struct SheetRows {
    /// Name of the file, and of the sheet where there are several.
    label: String,
    sheets: Vec<String>,
    sheet: String,
    names: Vec<String>,
    xml: Xml,
    words: Words,
    limits: Limits,
    /// The row that is read, as the spreadsheet counts it.
    row: u64,
    at_end: bool,
    /// The texts of its cells one after the other, and the column and end of each that has one.
    text: String,
    ends: Vec<(usize, usize)>,
    /// What a cell holds, before it is known what that means.
    raw: String,
    cells: Cells,
}

/// What a cell says of itself.
struct Head {
    column: Option<usize>,
    style: usize,
    kind: Kind,
}

/// The names of a workbook's sheets in their order.
pub(super) fn sheets(source: File, file: &str, limits: Limits) -> Result<Vec<String>, CohortError> {
    let book = Book::open(source, limits).map_err(|why| malformed(file, "workbook", why))?;
    Ok(book.sheets.into_iter().map(|sheet| sheet.name).collect())
}

impl SheetRows {
    /// Opens the sheet of a name, or else the first one.
    pub(super) fn new(source: File, file: &str, sheet: Option<&str>, limits: Limits) -> Result<Self, CohortError> {
        let malformed = |reason: String| malformed(file, "workbook", reason);
        let book = Book::open(source, limits).map_err(malformed)?;
        let sheets: Vec<String> = book.sheets.iter().map(|s| s.name.clone()).collect();
        let unknown = || CohortError::UnknownSheet {
            file: file.to_owned(),
            sheet: sheet.unwrap_or_default().to_owned(),
            sheets: sheets.clone(),
        };
        let chosen = book.sheets.iter().find(|s| sheet.is_none_or(|wanted| wanted == s.name)).ok_or_else(unknown)?;
        let label = match sheets.len() {
            1 => file.to_owned(),
            _ => format!("{file}, sheet '{}'", chosen.name),
        };
        let xml = book.sheet(chosen).map_err(malformed)?;
        let words = book.words().map_err(malformed)?;
        let (sheet, cells) = (chosen.name.clone(), Cells::default());
        let (names, ends, text, raw) = (Vec::new(), Vec::new(), String::new(), String::new());
        let mut rows =
            Self { label, sheets, sheet, names, xml, words, limits, row: 0, at_end: false, text, ends, raw, cells };
        rows.begin().map_err(|why| self::malformed(&rows.label, "first row", why))?;
        if !rows.next_filled()? {
            let why = "the sheet is empty; its first row must have the names of the columns".to_owned();
            return Err(self::malformed(&rows.label, "first row", why));
        }
        rows.names = (0..rows.width()).map(|column| rows.value(column).trim().to_owned()).collect();
        Ok(rows)
    }

    /// How errors name it.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Names of the workbook's sheets in their order.
    pub(super) fn sheets(&self) -> &[String] {
        &self.sheets
    }

    /// Name of the sheet that is read.
    pub(super) fn sheet(&self) -> &str {
        &self.sheet
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Record<'_>>, CohortError> {
        if !self.next_filled()? {
            return Ok(None);
        }
        let place = Place::Row(self.row);
        let (expected, found) = (self.names.len(), self.width());
        if found > expected {
            return Err(CohortError::Ragged { file: self.label.clone(), place, expected, found });
        }
        self.cells.clear();
        let (mut start, mut filled) = (0, self.ends.iter().copied().peekable());
        for column in 0..expected {
            // What is not there is missing, also where a row ends before the header does.
            let end = filled.next_if(|(at, _)| *at == column).map_or(start, |(_, end)| end);
            self.cells.push(&self.text[start..end]);
            start = end;
        }
        Ok(Some(self.cells.record(place, None)))
    }

    /// Columns of the row that is read, up to the last that has a value.
    fn width(&self) -> usize {
        self.ends.last().map_or(0, |(column, _)| column + 1)
    }

    /// What the row that is read has in a column.
    fn value(&self, column: usize) -> &str {
        let Ok(index) = self.ends.binary_search_by_key(&column, |(at, _)| *at) else { return "" };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before].1);
        &self.text[start..self.ends[index].1]
    }

    /// Goes on to the first row.
    fn begin(&mut self) -> Result<(), String> {
        self.xml.step(|_, _| Ok(()))?;
        loop {
            self.xml.next_piece();
            match self.xml.step(|name, _| Ok(name == "sheetData"))? {
                Step::Open(true) => return Ok(()),
                Step::Open(false) => self.xml.skip()?,
                Step::Close => return Err("it has no cells".to_owned()),
            }
        }
    }

    /// Reads the next row that has a value; `false` where there is none.
    fn next_filled(&mut self) -> Result<bool, CohortError> {
        while !self.at_end {
            self.xml.next_piece();
            let step = self.xml.step(row_number);
            match self.here(step)? {
                Step::Close => {
                    self.at_end = true;
                    let end = self.xml.finish();
                    self.here(end)?;
                }
                Step::Open(number) => {
                    let number = number.unwrap_or(self.row.saturating_add(1));
                    if number <= self.row {
                        return Err(self.wrong(None, "its rows are not in order"));
                    }
                    self.row = number;
                    self.read_row()?;
                    if !self.ends.is_empty() {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    fn read_row(&mut self) -> Result<(), CohortError> {
        self.text.clear();
        self.ends.clear();
        let mut next = 0;
        loop {
            let step = self.xml.step(cell_head);
            let Step::Open(head) = self.here(step)? else { return Ok(()) };
            let Some(head) = head else {
                let skipped = self.xml.skip();
                self.here(skipped)?;
                continue;
            };
            let at = head.column.unwrap_or(next);
            if at < next {
                return Err(self.wrong(None, "its cells are not in order"));
            }
            next = at + 1;
            self.read_cell(&head, at)?;
            if self.text.len() > self.limits.record_bytes {
                let most = in_bytes(self.limits.record_bytes as u64);
                let why = format!("its cells have more than {most} together");
                return Err(self.wrong(None, &why));
            }
        }
    }

    /// Reads a cell to its end and keeps its text, if it has one.
    fn read_cell(&mut self, head: &Head, at: usize) -> Result<(), CohortError> {
        self.raw.clear();
        let content = cell_content(&mut self.xml, &mut self.raw);
        let has_result = content.map_err(|why| self.wrong(Some(at), &why))?;
        if !has_result && head.kind == Kind::Number {
            let why = "its formula has no result; open the workbook in a spreadsheet program and save it";
            return Err(self.wrong(Some(at), why));
        }
        let text = self.words.text(head.kind, head.style, &self.raw);
        let text = text.map_err(|why| self.wrong(Some(at), &why))?;
        if text.trim().is_empty() {
            return Ok(());
        }
        let (file, place) = (|| self.label.clone(), Place::Row(self.row));
        if at >= self.limits.columns {
            return Err(CohortError::TooManyColumns { file: file(), limit: self.limits.columns });
        }
        if text.len() > self.limits.field_bytes {
            return Err(CohortError::LongField { file: file(), place, field: at + 1, limit: self.limits.field_bytes });
        }
        if text.contains('\0') {
            return Err(CohortError::NotText { file: file(), place });
        }
        self.text.push_str(&text);
        self.ends.push((at, self.text.len()));
        Ok(())
    }

    /// Says where it is that something went wrong.
    fn here<T>(&self, result: Result<T, String>) -> Result<T, CohortError> {
        result.map_err(|why| self.wrong(None, &why))
    }

    fn wrong(&self, column: Option<usize>, reason: &str) -> CohortError {
        let column = match column.map(|at| (at, self.names.get(at))) {
            None => String::new(),
            Some((_, Some(name))) => format!(", column '{name}'"),
            Some((at, None)) => format!(", column {}", at + 1),
        };
        malformed(&self.label, &format!("{}{column}", Place::Row(self.row)), reason.to_owned())
    }
}

fn malformed(file: &str, place: &str, reason: String) -> CohortError {
    CohortError::Malformed { file: file.to_owned(), place: place.to_owned(), reason }
}

/// The number that a row gives itself, if it does.
fn row_number(name: &str, element: &BytesStart<'_>) -> Result<Option<u64>, String> {
    if name != "row" {
        return Err(DAMAGED.to_owned());
    }
    let number = xml::attribute(element, "r")?;
    number.map(|number| number.parse().map_err(|_| DAMAGED.to_owned())).transpose()
}

/// What a cell says of itself; `None` of what is no cell.
fn cell_head(name: &str, element: &BytesStart<'_>) -> Result<Option<Head>, String> {
    let damaged = || DAMAGED.to_owned();
    if name != "c" {
        return Ok(None);
    }
    let mut head = Head { column: None, style: 0, kind: Kind::Number };
    // None of the three can need what an escape stands for.
    for attribute in element.attributes().with_checks(false) {
        let attribute = attribute.map_err(|_| damaged())?;
        match attribute.key.into_inner() {
            "r" => head.column = Some(column(&attribute.value).ok_or_else(damaged)?),
            "s" => head.style = attribute.value.parse().map_err(|_| damaged())?,
            "t" => head.kind = Kind::of(&attribute.value).ok_or_else(damaged)?,
            _ => {}
        }
    }
    Ok(Some(head))
}

/// The column of a reference such as `AB12`, from 0; a spreadsheet has three letters at most.
fn column(reference: &str) -> Option<usize> {
    let letters = reference.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (letters, digits) = reference.as_bytes().split_at(letters);
    if !(1..=3).contains(&letters.len()) || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let from_1 = letters.iter().fold(0, |sum, letter| sum * 26 + usize::from(letter.to_ascii_uppercase() - b'A') + 1);
    Some(from_1 - 1)
}

/// Appends what a cell that was just opened holds, up to its end. `false` if it has a formula and nothing else.
fn cell_content(xml: &mut Xml, raw: &mut String) -> Result<bool, String> {
    enum Tag {
        Value,
        Inline,
        Formula,
        Other,
    }
    let mut has_formula = false;
    loop {
        let tag = xml.step(|name, _| {
            Ok(match name {
                "v" => Tag::Value,
                "is" => Tag::Inline,
                "f" => Tag::Formula,
                _ => Tag::Other,
            })
        })?;
        match tag {
            Step::Close => return Ok(!(has_formula && raw.is_empty())),
            Step::Open(Tag::Value) => xml.text(raw)?,
            Step::Open(Tag::Inline) => xml.item(raw)?,
            Step::Open(Tag::Other) => xml.skip()?,
            Step::Open(Tag::Formula) => {
                has_formula = true;
                xml.skip()?;
            }
        }
    }
}
