//! The parts of a workbook: which sheets it has, its list of texts, and what its formats show.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;

use super::super::zip::{self, Bounds, Entry, EntryReader};
use super::value::{Shown, Words};
use super::xml::{DAMAGED, Step, Xml, attribute};
use crate::source::Limits;

/// What the archive of a workbook may hold. Pictures and the like count too, although none is read.
const BOUNDS: Bounds = Bounds { entries: 4_096, unpacked: 64 << 30, mend: "open it and save it again as .xlsx" };
/// Most bytes of a sheet when it is unpacked; it is read row by row.
const SHEET_BYTES: u64 = 2 << 30;
/// Most bytes of the list of texts when it is unpacked; it is kept in memory while the sheet is read.
const TEXTS_BYTES: u64 = 512 << 20;
/// Most bytes of any other part.
const PART_BYTES: u64 = 64 << 20;
/// Most sheets.
const SHEETS: usize = 256;
/// How an OLE file begins: a workbook of the years before 2007, or one that is encrypted with a password.
const OLE: &[u8] = b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1";

/// A sheet that people see.
pub(super) struct Sheet {
    pub(super) name: String,
    part: String,
}

/// The parts that a part names, by the names that it has for them.
type Relations = BTreeMap<String, Relation>;

/// A part that another one names.
struct Relation {
    /// The last word of its type: `worksheet`, `styles`.
    kind: String,
    part: String,
}

/// A workbook that was opened.
pub(super) struct Book {
    file: Arc<File>,
    entries: Vec<Entry>,
    /// Bytes that one row or one text may take.
    piece: usize,
    pub(super) sheets: Vec<Sheet>,
    texts: Option<String>,
    styles: Option<String>,
    is_1904: bool,
}

impl Book {
    /// Reads what the workbook says of itself.
    ///
    /// # Errors
    /// Which rule it breaks, in words.
    pub(super) fn open(file: File, limits: Limits) -> Result<Self, String> {
        check_start(&file)?;
        let file = Arc::new(file);
        let entries = zip::entries(&file, BOUNDS)?;
        let piece = limits.record_bytes;
        let mut book = Self { file, entries, piece, sheets: Vec::new(), texts: None, styles: None, is_1904: false };
        let root = match book.part("_rels/.rels", PART_BYTES)? {
            Some(xml) => relations(xml, "")?,
            None => Relations::new(),
        };
        let main = root.into_values().find(|r| r.kind == "officeDocument").map(|r| r.part).unwrap_or_default();
        if book.entry(&main).is_none() || main.ends_with(".bin") {
            return Err(book.other_kind());
        }
        let (folder, name) = main.rsplit_once('/').unwrap_or(("", main.as_str()));
        let related = match book.part(&resolve(folder, &format!("_rels/{name}.rels")), PART_BYTES)? {
            Some(xml) => relations(xml, folder)?,
            None => Relations::new(),
        };
        let of = |kind: &str| related.values().find(|r| r.kind == kind).map(|r| r.part.clone());
        (book.texts, book.styles) = (of("sharedStrings"), of("styles"));
        book.read_main(&main, &related)?;
        Ok(book)
    }

    /// What other programs' files are, in words that say how to mend it.
    fn other_kind(&self) -> String {
        let kind = if self.entry("content.xml").is_some() {
            "an OpenDocument file"
        } else if self.entry("xl/workbook.bin").is_some() {
            "a binary workbook (.xlsb)"
        } else {
            "no Excel workbook"
        };
        format!("it is {kind}; open it in a spreadsheet program and save it as .xlsx")
    }

    fn entry(&self, part: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name.eq_ignore_ascii_case(part))
    }

    fn part(&self, part: &str, limit: u64) -> Result<Option<Xml>, String> {
        let Some(entry) = self.entry(part) else { return Ok(None) };
        if entry.bytes > limit {
            return Err(format!("unpacked, a part of it has more than {} MiB; save the sheet as CSV", limit >> 20));
        }
        Ok(Some(Xml::new(EntryReader::new(&self.file, entry)?, self.piece)))
    }

    /// Reads the list of sheets. Sheets that are hidden, charts and macros are left out.
    fn read_main(&mut self, part: &str, related: &Relations) -> Result<(), String> {
        enum Tag {
            Properties(bool),
            Sheets,
            Other,
        }
        let Some(mut xml) = self.part(part, PART_BYTES)? else { return Err(DAMAGED.to_owned()) };
        xml.step(|_, _| Ok(()))?;
        loop {
            xml.next_piece();
            let tag = xml.step(|name, element| {
                Ok(match name {
                    "workbookPr" => {
                        let from = attribute(element, "date1904")?;
                        Tag::Properties(from.is_some_and(|from| from == "1" || from == "true"))
                    }
                    "sheets" => Tag::Sheets,
                    _ => Tag::Other,
                })
            })?;
            match tag {
                Step::Close => break,
                Step::Open(Tag::Other) => skip_in_pieces(&mut xml)?,
                Step::Open(Tag::Properties(is_1904)) => {
                    self.is_1904 = is_1904;
                    xml.skip()?;
                }
                Step::Open(Tag::Sheets) => self.read_sheets(&mut xml, related)?,
            }
        }
        if self.sheets.is_empty() {
            return Err("it has no sheet with cells that is not hidden".to_owned());
        }
        xml.finish()
    }

    fn read_sheets(&mut self, xml: &mut Xml, related: &Relations) -> Result<(), String> {
        loop {
            xml.next_piece();
            let sheet = xml.step(|_, element| {
                let is_hidden = attribute(element, "state")?.is_some_and(|state| state != "visible");
                Ok((is_hidden, attribute(element, "name")?, attribute(element, "id")?))
            })?;
            let Step::Open((is_hidden, name, id)) = sheet else { return Ok(()) };
            xml.skip()?;
            let relation = id.and_then(|id| related.get(&id));
            let (Some(name), Some(relation)) = (name, relation) else { return Err(DAMAGED.to_owned()) };
            if is_hidden || relation.kind != "worksheet" {
                continue;
            }
            if name.is_empty() || name.chars().count() > hospes_protocol::limits::NAME_CHARS {
                return Err("the name of a sheet is empty or too long".to_owned());
            }
            if name.contains(char::is_control) || self.sheets.iter().any(|sheet| sheet.name == name) {
                return Err("two sheets have one name, or a name has characters that none has".to_owned());
            }
            if self.sheets.len() == SHEETS {
                return Err(format!("it has more than {SHEETS} sheets"));
            }
            self.sheets.push(Sheet { name, part: relation.part.clone() });
        }
    }

    /// A sheet from its start.
    pub(super) fn sheet(&self, sheet: &Sheet) -> Result<Xml, String> {
        self.part(&sheet.part, SHEET_BYTES)?.ok_or_else(|| "the sheet is not in it; it is damaged".to_owned())
    }

    /// What is needed to say what cells hold.
    pub(super) fn words(&self) -> Result<Words, String> {
        let mut words = Words::new(self.is_1904);
        let named = |part: &Option<String>, limit| part.as_deref().map_or(Ok(None), |part| self.part(part, limit));
        if let Some(xml) = named(&self.styles, PART_BYTES)? {
            words.styles = styles(xml)?;
        }
        if let Some(mut xml) = named(&self.texts, TEXTS_BYTES)? {
            xml.step(|_, _| Ok(()))?;
            loop {
                xml.next_piece();
                match xml.step(|name, _| Ok(name == "si"))? {
                    Step::Close => break,
                    Step::Open(true) => words.push(|texts| xml.item(texts))?,
                    Step::Open(false) => xml.skip()?,
                }
            }
            xml.finish()?;
        }
        Ok(words)
    }
}

/// Tells a workbook of another kind by how the file begins.
fn check_start(mut file: &File) -> Result<(), String> {
    let damaged = |_| DAMAGED.to_owned();
    let mut start = Vec::new();
    file.rewind().map_err(damaged)?;
    file.take(OLE.len() as u64).read_to_end(&mut start).map_err(damaged)?;
    if start == OLE {
        let kind = "it is an old Excel workbook (.xls), or one with a password";
        return Err(format!("{kind}; open it and save it as .xlsx without a password"));
    }
    if start.starts_with(b"PK") {
        return Ok(());
    }
    Err("it is no Excel workbook, whatever its name says; open it in a spreadsheet program and save it as .xlsx, or, if it \
         is text, name it .csv"
        .to_owned())
}

/// The parts that a part in a folder names.
fn relations(mut xml: Xml, folder: &str) -> Result<Relations, String> {
    let mut relations = Relations::new();
    xml.step(|_, _| Ok(()))?;
    loop {
        xml.next_piece();
        let found = xml.step(|_, element| {
            Ok((attribute(element, "Id")?, attribute(element, "Type")?, attribute(element, "Target")?))
        })?;
        let Step::Open(found) = found else { break };
        xml.skip()?;
        if let (Some(id), Some(kind), Some(target)) = found {
            let kind = kind.rsplit('/').next().unwrap_or_default().to_owned();
            relations.entry(id).or_insert(Relation { kind, part: resolve(folder, &target) });
        }
    }
    xml.finish()?;
    Ok(relations)
}

/// The name of a part that another one in a folder names: one of the archive, whatever it looks like.
fn resolve(folder: &str, target: &str) -> String {
    let from = if target.starts_with('/') { "" } else { folder };
    let mut path: Vec<&str> = Vec::new();
    for step in from.split('/').chain(target.split('/')) {
        match step {
            "" | "." => {}
            ".." => _ = path.pop(),
            step => path.push(step),
        }
    }
    path.join("/")
}

/// What each style of cells shows.
fn styles(mut xml: Xml) -> Result<Vec<Shown>, String> {
    enum Tag {
        Formats,
        Cells,
        Other,
    }
    let (mut codes, mut styles): (HashMap<u32, Shown>, Vec<Shown>) = (HashMap::new(), Vec::new());
    xml.step(|_, _| Ok(()))?;
    loop {
        xml.next_piece();
        let tag = xml.step(|name, _| {
            Ok(match name {
                "numFmts" => Tag::Formats,
                "cellXfs" => Tag::Cells,
                _ => Tag::Other,
            })
        })?;
        match tag {
            Step::Close => break,
            Step::Open(Tag::Other) => skip_in_pieces(&mut xml)?,
            Step::Open(Tag::Formats) => formats(&mut xml, |id, code| {
                codes.insert(id, code.map_or(Shown::Number, Shown::of_code));
            })?,
            Step::Open(Tag::Cells) => formats(&mut xml, |id, _| {
                styles.push(codes.get(&id).copied().unwrap_or_else(|| Shown::built_in(id)));
            })?,
        }
    }
    xml.finish()?;
    Ok(styles)
}

/// Reads past the end of the element that was just opened and may be long: each of those in it is a piece.
fn skip_in_pieces(xml: &mut Xml) -> Result<(), String> {
    while let Step::Open(()) = xml.step(|_, _| Ok(()))? {
        xml.next_piece();
        xml.skip()?;
    }
    Ok(())
}

/// Reads the elements of the one that was just opened, each with the number of a format and its code if it has one.
fn formats(xml: &mut Xml, mut with: impl FnMut(u32, Option<&str>)) -> Result<(), String> {
    loop {
        xml.next_piece();
        let found = xml.step(|_, element| Ok((attribute(element, "numFmtId")?, attribute(element, "formatCode")?)))?;
        let Step::Open((id, code)) = found else { return Ok(()) };
        xml.skip()?;
        with(id.and_then(|id| id.parse().ok()).unwrap_or(0), code.as_deref());
    }
}
