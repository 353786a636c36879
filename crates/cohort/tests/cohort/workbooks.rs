//! Sheets of Excel workbooks: as programs write them, as people fill them in, and made to harm.

use std::path::{Path, PathBuf};

use hospes_cohort::CohortError;
use hospes_cohort::scan::ScanProfile;
use hospes_cohort::schema::ColumnKind;
use hospes_cohort::source::{Hints, Limits, SourceKind, Survey, sheets, survey};
use hospes_protocol::id::Digest;
use proptest::prelude::*;

use crate::rig::write;
use crate::sources::{kinds, message, npz, register};

const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";

fn look_into(path: &Path, sheet: Option<&str>) -> Result<Survey, CohortError> {
    let hints = Hints { sheet: sheet.map(str::to_owned), ..Hints::default() };
    survey(path, &hints, ScanProfile::Default, Limits::default())
}

fn look(path: &Path) -> Result<Survey, CohortError> {
    look_into(path, None)
}

/// Looks into a workbook of these bytes.
fn read(bytes: impl AsRef<[u8]>) -> Result<Survey, CohortError> {
    let folder = tempfile::tempdir().unwrap();
    look(&write(folder.path(), "data.xlsx", bytes))
}

/// Parts of a workbook with these sheets, a name and rows each; one whose name begins with '-' is hidden.
fn parts(sheets: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    let relation = |id: &str, kind: &str, target: &str| {
        format!(r#"<Relationship Id="{id}" Type="{RELATIONS}/{kind}" Target="{target}"/>"#)
    };
    let related = |all: String| format!(r#"<?xml version="1.0"?><Relationships>{all}</Relationships>"#);
    let (mut list, mut own) = (String::new(), relation("t", "sharedStrings", "sharedStrings.xml"));
    own += &relation("y", "styles", "/xl/styles.xml");
    let mut parts = Vec::new();
    for (at, (name, rows)) in sheets.iter().enumerate() {
        let state = if name.starts_with('-') { r#" state="hidden""# } else { "" };
        list += &format!(r#"<sheet name="{name}" sheetId="{at}"{state} r:id="r{at}"/>"#);
        own += &relation(&format!("r{at}"), "worksheet", &format!("worksheets/sheet{at}.xml"));
        let sheet = format!(
            "<x:worksheet><x:dimension ref=\"A1:XFD1048576\"/><x:sheetData>{}</x:sheetData><x:mergeCells/></x:worksheet>",
            rows.replace("</", "</x:").replace('<', "<x:").replace("<x:/x:", "</x:")
        );
        parts.push((format!("xl/worksheets/sheet{at}.xml"), sheet));
    }
    let styles = r#"<styleSheet><numFmts><numFmt numFmtId="164" formatCode="dd\.mm\.yyyy\ hh:mm"/></numFmts><fonts/>
        <cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="164"/><xf numFmtId="46"/></cellXfs></styleSheet>"#;
    let texts = r#"<sst uniqueCount="99999999999999"><si><t>id</t></si><si><r><t>a</t></r><r><t>ge</t></r><rPh><t>x</t></rPh></si>
        <si><t xml:space="preserve">A &amp; B &#233;</t></si></sst>"#;
    parts.extend([
        ("[Content_Types].xml".into(), "<Types/>".into()),
        ("_rels/.rels".into(), related(relation("r", "officeDocument", "xl/workbook.xml"))),
        ("xl/workbook.xml".into(), format!("<workbook><workbookPr/><sheets>{list}</sheets></workbook>")),
        ("xl/_rels/workbook.xml.rels".into(), related(own)),
        ("xl/sharedStrings.xml".into(), texts.into()),
        ("xl/styles.xml".into(), styles.into()),
    ]);
    parts.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}

fn zipped(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<(&str, Vec<u8>)> = parts.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    npz(&entries, true)
}

/// A workbook with one sheet of these rows.
fn sheet(rows: &str) -> Vec<u8> {
    zipped(&parts(&[("Labs", rows)]))
}

/// A row of texts.
fn texts(cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|c| format!("<c t=\"inlineStr\"><is><t>{c}</t></is></c>")).collect();
    format!("<row>{cells}</row>")
}

fn testdata(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

#[test]
fn a_workbook_is_registered_as_the_csv_file_of_the_same_data() {
    let (book, csv) =
        (testdata("tests/cohort/testdata/cleveland.xlsx"), testdata("../../examples/heart/cleveland.csv"));
    let (left, right) = (look(&book).unwrap(), look(&csv).unwrap());
    assert_eq!((left.format.kind, left.format.sheet.as_deref()), (SourceKind::Xlsx, Some("Cleveland")));
    // The sheet that is hidden is not offered.
    assert_eq!(left.sheets, ["Cleveland", "Visits"]);
    assert_eq!(sheets(&book, Limits::default()).unwrap(), left.sheets);
    assert_eq!((left.rows, &left.columns, &left.findings), (right.rows, &right.columns, &right.findings));
    assert_eq!((right.format.sheet, right.sheets.len()), (None, 0));
    assert_eq!(sheets(&csv, Limits::default()).unwrap(), [""; 0]);

    let ((left, of_left, _a), (right, of_right, _b)) =
        (register(&book, "subject_id").unwrap(), register(&csv, "subject_id").unwrap());
    assert_eq!(of_left, of_right);
    let (left, right) = (&left.document, &right.document);
    assert_eq!((left.rows, left.subjects, &left.masked), (right.rows, right.subjects, &right.masked));
    assert_eq!(left.schema, right.schema);
    assert_eq!(left.source, Digest::of(&std::fs::read(&book).unwrap()));
}

#[test]
fn a_sheet_is_chosen_by_its_name() {
    let book = testdata("tests/cohort/testdata/cleveland.xlsx");
    let found = look_into(&book, Some("Visits")).unwrap();
    assert_eq!((found.rows, found.format.sheet.as_deref()), (3, Some("Visits")));
    let (number, date) = (ColumnKind::Number, ColumnKind::Date);
    assert_eq!(kinds(&found)[1..3], [("day", date), ("seen", date)]);
    assert_eq!(kinds(&found)[4..], [("smokes", number), ("share", number)]);
    assert_eq!(found.columns.iter().map(|c| c.present).collect::<Vec<_>>(), [3, 2, 2, 2, 2, 3]);
    assert_eq!(found.columns[5].number.map(|n| (n.min, n.max)), Some((1e-7, 12_345_678.5)));
    // A hidden one cannot be chosen, nor one of a file that has none.
    assert_eq!(
        message(look_into(&book, Some("Lists"))),
        "cleveland.xlsx: there is no sheet 'Lists'; there are 'Cleveland', 'Visits'"
    );
    assert_eq!(
        message(look_into(&testdata("../../examples/heart/cleveland.csv"), Some("Visits"))),
        "cleveland.csv: there is no sheet 'Visits'; only an Excel workbook (.xlsx) has sheets to choose from"
    );
}

#[test]
fn cells_are_read_as_a_csv_file_would_have_them() {
    let rows = r#"<row r="3" spans="1:9"><c r="A3" t="s"><v>0</v></c><c r="B3" t="s"><v>1</v></c><c r="C3" t="str"><f>A1</f><v>day</v></c>
        <c r="D3" t="inlineStr"><is><t>span</t></is></c><c r="E3" t="inlineStr"><is><t>sick</t></is></c></row>
        <row r="4"><c r="A4" t="s"><v>2</v></c><c r="B4"><v>63.0</v></c><c r="C4" s="1"><v>45351</v></c>
        <c r="D4" s="3"><v>1.5</v></c><c r="E4" t="b"><v>1</v></c><c r="ZZ4" s="2"/></row>
        <row r="5"/>
        <row r="9"><c r="A9"><v>1e5</v></c><c r="B9" t="e"><v>#N/A</v></c><c r="C9" t="d"><v>2024-03-01T00:00:00</v></c></row>
        <row r="10"><c r="A10"><f>B9+1</f><v>7</v></c><c r="B10" t="str"><f>""</f><v></v></c><c r="E10" t="b"><v>0</v></c></row>"#;
    let found = read(sheet(rows)).unwrap();
    assert_eq!((found.rows, found.sheets.as_slice()), (3, ["Labs".to_owned()].as_slice()));
    let (number, date, text) = (ColumnKind::Number, ColumnKind::Date, ColumnKind::Text);
    assert_eq!(kinds(&found), [("id", text), ("age", number), ("day", date), ("span", text), ("sick", number)]);
    assert_eq!(found.columns.iter().map(|c| c.present).collect::<Vec<_>>(), [3, 1, 2, 1, 2]);
    assert_eq!(found.columns[1].number.map(|n| n.min), Some(63.0));
    assert!(found.columns[2].has_days);
}

#[test]
fn rows_may_be_short_but_not_longer_than_the_header() {
    let header = texts(&["id", "merged", "x"]);
    let merged = r#"<row r="2"><c r="A2" t="inlineStr"><is><t>a</t></is></c><c r="B2"><v>5</v></c></row>
        <row r="3"><c r="C3"><v>1</v></c></row><row r="4"><c r="A4" t="inlineStr"><is><t>b</t></is></c></row>"#;
    let found = read(sheet(&format!("{header}{merged}"))).unwrap();
    assert_eq!(found.columns.iter().map(|c| c.present).collect::<Vec<_>>(), [2, 1, 1]);
    let long = r#"<row r="7"><c r="D7"><v>1</v></c></row>"#;
    assert_eq!(message(read(sheet(&format!("{header}{long}")))), "data.xlsx, row 7: 4 fields, the header has 3");
    // Blanks beyond the header are no field.
    let blank = r#"<row r="7"><c r="A7"><v>1</v></c><c r="D7" t="str"><v> </v></c></row>"#;
    assert_eq!(read(sheet(&format!("{header}{blank}"))).unwrap().rows, 1);
}

#[test]
fn what_cannot_be_read_is_named_by_row_column_and_rule_and_never_quoted() {
    let header = texts(&["id", "x"]);
    let refuse = |cell: &str| message(read(sheet(&format!("{header}<row r=\"5\">{cell}</row>"))));
    let at = "data.xlsx, row 5, column 'x': it";
    assert_eq!(
        refuse(r#"<c r="B5" t="e"><v>#DIV/0!</v></c>"#),
        format!("{at} shows an error of a formula (#DIV/0!); correct it, or empty the cell where the value is missing")
    );
    assert!(!refuse(r#"<c r="B5" t="e"><v>CANARY</v></c>"#).contains("CANARY"));
    assert_eq!(refuse(r#"<c r="B5"><v>CANARY</v></c>"#), format!("{at} holds no number although it says so"));
    assert_eq!(refuse(r#"<c r="B5"><v>inf</v></c>"#), format!("{at} holds no number although it says so"));
    assert_eq!(refuse(r#"<c r="B5" t="s"><v>3</v></c>"#), format!("{at} names a text that the workbook does not have"));
    assert_eq!(refuse(r#"<c r="B5" s="1"><v>-1</v></c>"#), format!("{at} is a date or time that no calendar has"));
    assert_eq!(
        refuse(r#"<c r="B5"><f>A1+CANARY</f></c>"#),
        "data.xlsx, row 5, column 'x': its formula has no result; open the workbook in a spreadsheet program and save it"
    );
    assert_eq!(refuse(r#"<c r="B5" t="str"><v>&canary;</v></c>"#), format!("{at} is damaged"));
    assert_eq!(refuse(r#"<c r="B5"/><c r="A5"/>"#), "data.xlsx, row 5: its cells are not in order");
    assert_eq!(refuse(r#"</row><row r="5">"#), "data.xlsx, row 5: its rows are not in order");
    assert_eq!(refuse(r#"<c r="AAAA5"/>"#), "data.xlsx, row 5: it is damaged");
    assert_eq!(refuse(""), "data.xlsx: no rows");
    assert_eq!(
        message(read(sheet("<row><c s=\"1\"/></row>"))),
        "data.xlsx, first row: the sheet is empty; its first row must have the names of the columns"
    );
    assert_eq!(message(read(sheet(&texts(&["id", "id"])))), "data.xlsx: columns 1 and 2 have the same name");
    assert_eq!(
        message(read(sheet(&texts(&["1.5", "7"])))),
        "data.xlsx: most of the first line are numbers or dates; a header line with column names is needed"
    );
    // Of several sheets, the one is named.
    let two = zipped(&parts(&[("-Lists", ""), ("Read me", &texts(&["Hello"])), ("Labs", &header)]));
    assert_eq!(message(read(two)), "data.xlsx, sheet 'Read me': no rows");
    let none = zipped(&parts(&[("-Lists", "")]));
    assert_eq!(message(read(none)), "data.xlsx, workbook: it has no sheet with cells that is not hidden");
}

#[test]
fn files_of_other_kinds_are_refused_with_what_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |name: &str, bytes: &[u8]| message(look(&write(folder.path(), name, bytes)));
    let old = [b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1".as_slice(), &[0; 600]].concat();
    for name in ["data.xls", "data.xlsx", "data.XLSM"] {
        assert_eq!(
            refuse(name, &old),
            format!(
                "{name}, workbook: it is an old Excel workbook (.xls), or one with a password; open it and save it as \
                 .xlsx without a password"
            )
        );
    }
    let mend = "open it in a spreadsheet program and save it as .xlsx";
    let ods = npz(&[("mimetype", b"application".to_vec()), ("content.xml", b"<a/>".to_vec())], false);
    assert_eq!(refuse("data.ods", &ods), format!("data.ods, workbook: it is an OpenDocument file; {mend}"));
    let binary = npz(&[("xl/workbook.bin", vec![0; 9])], false);
    assert_eq!(refuse("data.xlsb", &binary), format!("data.xlsb, workbook: it is a binary workbook (.xlsb); {mend}"));
    let other = npz(&[("word/document.xml", b"<a/>".to_vec())], false);
    assert_eq!(refuse("data.xlsx", &other), format!("data.xlsx, workbook: it is no Excel workbook; {mend}"));
    assert_eq!(
        refuse("data.xls", b"id\tx\na\t1\n"),
        format!(
            "data.xls, workbook: it is no Excel workbook, whatever its name says; {mend}, or, if it is text, name it .csv"
        )
    );
}

/// The bytes with four of them replaced everywhere.
fn replaced(mut bytes: Vec<u8>, from: usize, to: u32) -> Vec<u8> {
    let from = u32::try_from(from).unwrap().to_le_bytes();
    for at in 0..bytes.len() - 4 {
        if bytes[at..at + 4] == from {
            bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
        }
    }
    bytes
}

#[test]
fn workbooks_that_are_made_to_harm_are_refused() {
    let rows = format!("{}<row><c><v>1</v></c></row>", texts(&["id"]));
    let all = parts(&[("Labs", &rows)]);
    let good = zipped(&all);
    assert_eq!(read(&good).unwrap().rows, 1);
    assert_eq!(
        message(read(&good[..good.len() - 1])),
        "data.xlsx, workbook: it has no list of entries; it is cut off or no archive"
    );
    // A bomb that says what it is, and one that does not: 64 MiB of blanks in 64 KiB.
    let small = all[0].1.len();
    assert_eq!(
        message(read(replaced(good.clone(), small, 3 << 30))),
        "data.xlsx, workbook: unpacked, a part of it has more than 2048 MiB; save the sheet as CSV"
    );
    let mut bomb = all.clone();
    bomb[0].1.extend(vec![b' '; 64 << 20]);
    let large = bomb[0].1.len();
    let bomb = zipped(&bomb);
    assert!(bomb.len() < 1 << 20);
    let lies = replaced(bomb.clone(), large, u32::try_from(small).unwrap());
    assert!(message(read(lies)).ends_with("it is longer than it says"), "the bomb went off");
    let long = "it has a row or a text that is longer than those of any table";
    assert!(message(read(bomb)).ends_with(long));
    // Texts, attributes and rows of more than 4 MiB.
    let filler = "x".repeat(5 << 20);
    for row in [
        format!("<row><c t=\"str\"><v>{filler}</v></c></row>"),
        format!("<row><c r=\"{filler}\"/></row>"),
        format!("<row>{}</row>", "<c/>".repeat(2 << 20)),
    ] {
        let text = message(read(sheet(&format!("{}{row}", texts(&["id"])))));
        assert!(text.ends_with(long), "{text}");
    }
    // Elements within elements, also where pieces are short, and names that are kept as long as their element is open.
    let nested = "it nests its elements deeper, or names one longer, than any workbook does";
    let row = format!("{}<row>{}</row>", texts(&["id"]), "<c>".repeat(100));
    assert!(message(read(sheet(&row))).ends_with(nested));
    for tail in ["<e>".repeat(100), format!("<{}/>", "e".repeat(300))] {
        let mut deep = all.clone();
        deep[0].1.extend(tail.into_bytes());
        assert!(message(read(zipped(&deep))).ends_with(nested));
    }
    // Few bytes that name a long text over and over.
    let named = "<c t=\"s\"><v>0</v></c>".repeat(9_000);
    let mut heavy = parts(&[("Labs", &format!("{}<row>{named}</row>", texts(&["id"])))]);
    let list = heavy.iter_mut().find(|(name, _)| name == "xl/sharedStrings.xml").unwrap();
    list.1 = format!("<sst><si><t>{}</t></si></sst>", "x".repeat(60_000)).into_bytes();
    assert_eq!(message(read(zipped(&heavy))), "data.xlsx, row 2: its cells have more than 4,194,304 bytes together");
    let wide = format!("{}<row><c r=\"XFD2\"><v>1</v></c></row>", texts(&["id"]));
    assert_eq!(message(read(sheet(&wide))), "data.xlsx: more than 10000 columns");
    let long = format!("<row><c t=\"str\"><v>{}</v></c></row>", "x".repeat(70_000));
    assert_eq!(message(read(sheet(&long))), "data.xlsx, row 1, field 1: more than 65,536 bytes");
    // A part that leads out of the archive is looked for in it, and one that is not there is missed.
    let mut outside = parts(&[("Labs", &rows)]);
    let related = outside.iter_mut().find(|(name, _)| name == "xl/_rels/workbook.xml.rels").unwrap();
    let text = String::from_utf8(related.1.clone()).unwrap();
    related.1 = text.replace("worksheets/sheet0.xml", "../../../../etc/passwd").into_bytes();
    assert_eq!(message(read(zipped(&outside))), "data.xlsx, workbook: the sheet is not in it; it is damaged");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_workbook_altered_anywhere_is_read_or_refused(
        is_packed in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let rows = format!("{}<row><c t=\"s\"><v>2</v></c><c s=\"2\"><v>45351.5</v></c></row>", texts(&["id", "day"]));
        let all = parts(&[("Labs", &rows), ("-Lists", "")]);
        let entries: Vec<(&str, Vec<u8>)> = all.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let mut bytes = npz(&entries, is_packed);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read(&bytes[..cut.index(bytes.len())]);
        let _ = read(&bytes);
    }

    #[test]
    fn any_bytes_in_the_place_of_a_part_are_read_or_refused(
        at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        markup in r#"(<(/?)(row|c|v|is|t|f|si|r|sheetData|sheet|xf)( (r|s|t|id)="[A-Z0-9a-z]{0,12}")?(/?)>|[0-9.#&;]{0,9}|é){0,30}"#,
    ) {
        let rows = format!("{}<row><c t=\"s\"><v>2</v></c><c s=\"2\"><v>45351.5</v></c></row>", texts(&["id", "day"]));
        let mut all = parts(&[("Labs", &rows)]);
        let at = at.index(all.len());
        all[at].1 = bytes;
        let _ = read(zipped(&all));
        all[at].1 = markup.clone().into_bytes();
        let _ = read(zipped(&all));
        let _ = read(sheet(&format!("{rows}{markup}")));
    }

    #[test]
    fn any_bytes_are_no_workbook(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(bytes).is_err());
    }

    #[test]
    fn numbers_keep_their_values(values in prop::collection::vec(any::<f64>().prop_filter("finite", |v| v.is_finite()), 1..20)) {
        let rows: String = values.iter().map(|v| format!("<row><c><v>1</v></c><c><v>{v:e}</v></c></row>")).collect();
        let x = read(sheet(&format!("{}{rows}", texts(&["id", "x"])))).unwrap().columns[1].number.unwrap();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        prop_assert!(x.min == least, "{} {least}", x.min);
    }
}
