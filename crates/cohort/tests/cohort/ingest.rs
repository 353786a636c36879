//! Files as hospitals have them, and files as attackers make them.

use std::io::Write as _;
use std::path::Path;

use hospes_cohort::CohortError;
use hospes_cohort::scan::{Rule, ScanProfile};
use hospes_cohort::schema::ColumnKind;
use hospes_cohort::source::{ColumnSurvey, Decimal, Delimiter, Distinct, Encoding, Hints, Limits, Survey, survey};
use proptest::prelude::*;

use crate::rig::write;

fn look(bytes: impl AsRef<[u8]>) -> Result<Survey, CohortError> {
    look_with(bytes, &Hints::default(), Limits::default())
}

fn look_with(bytes: impl AsRef<[u8]>, hints: &Hints, limits: Limits) -> Result<Survey, CohortError> {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "data.csv", bytes);
    survey(&path, hints, ScanProfile::Default, limits)
}

fn message(result: Result<Survey, CohortError>) -> String {
    result.expect_err("should be refused").to_string()
}

#[test]
fn types_missing_values_and_counts_are_found() {
    let found =
        look("id,age,kind,seen,note\n1,50,a,2024-01-31,x\n2,?,b,2024-02-01,x\n3,61.5,a,NA,\n4,-9,a,,x\n").unwrap();
    let column = |name: &str| found.columns.iter().find(|c| c.name == name).unwrap();
    assert_eq!((found.rows, found.format.delimiter, found.format.encoding), (4, Delimiter::Comma, Encoding::Utf8));
    let age = column("age");
    assert_eq!((age.kind, age.present), (ColumnKind::Number, 2));
    assert_eq!(age.missing, [("?".to_owned(), 1), ("-9".to_owned(), 1)]);
    assert_eq!(age.number.map(|n| (n.min, n.max, n.mean)), Some((50.0, 61.5, 55.75)));
    assert_eq!((column("kind").kind, column("kind").distinct), (ColumnKind::Category, Distinct::Exactly(2)));
    assert_eq!((column("seen").kind, column("seen").has_days), (ColumnKind::Date, true));
    assert_eq!(found.subject_guess.as_deref(), Some("id"));
}

#[test]
fn delimiters_decimal_commas_quotes_over_lines_and_byte_order_marks_are_read() {
    let found = look("\u{feff}id;value;text\r\n1;1,5;\"one\r\ntwo; \"\"three\"\"\"\r\n2;2,25;x\r\n").unwrap();
    assert_eq!((found.rows, found.format.delimiter, found.format.decimal), (2, Delimiter::Semicolon, Decimal::Comma));
    assert_eq!(found.encoding_reason, "byte order mark");
    assert_eq!(found.columns[0].name, "id");
    assert_eq!(found.columns[1].number.map(|n| (n.min, n.max)), Some((1.5, 2.25)));
    for (delimiter, wanted) in [("\t", Delimiter::Tab), ("|", Delimiter::Pipe)] {
        let text = ["id,a,b", "1,2,3"].join("\n").replace(',', delimiter);
        assert_eq!(look(text).unwrap().format.delimiter, wanted);
    }
    // Mixed notations: nothing is guessed, the column with commas is text.
    let mixed = look("id;a;b\n1;1,5;1.5\n2;2,5;2.5\n").unwrap();
    assert_eq!(mixed.format.decimal, Decimal::Point);
    assert_ne!(mixed.columns[1].kind, ColumnKind::Number);
}

#[test]
fn encodings_are_found_and_said() {
    let text = "id,name_of_drug\n1,Größe\n2,Straße\n";
    let utf16 = |big: bool, mark: bool| -> Vec<u8> {
        let units = mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16());
        units.flat_map(|u: u16| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
    };
    let latin: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    for (bytes, wanted) in [
        (text.as_bytes().to_vec(), Encoding::Utf8),
        (utf16(false, true), Encoding::Utf16Le),
        (utf16(true, true), Encoding::Utf16Be),
        (utf16(false, false), Encoding::Utf16Le),
        (utf16(true, false), Encoding::Utf16Be),
        (latin.clone(), Encoding::Windows1252),
    ] {
        let found = look(bytes).unwrap();
        assert_eq!((found.format.encoding, found.rows), (wanted, 2));
        assert_eq!(found.columns[1].name, "name_of_drug");
    }
    assert!(look(&latin).unwrap().encoding_reason.starts_with("assumed"));
    let hints = Hints { encoding: Some(Encoding::Utf8), ..Hints::default() };
    let error = look_with(&latin, &hints, Limits::default());
    assert_eq!(message(error), "data.csv, line 1: the bytes are not valid UTF-8; choose another encoding");
}

#[test]
fn ragged_rows_are_named_by_file_line_and_counts() {
    assert_eq!(message(look("a,b,c\n1,2,3\n4,5\n")), "data.csv, line 3: 2 fields, the header has 3");
    assert_eq!(
        message(look("a,b\r\n\r\n1,2\r\n\"x\r\ny\",2\r\n1,2,3\r\n")),
        "data.csv, line 6: 3 fields, the header has 2"
    );
}

#[test]
fn files_without_rows_or_header_are_refused() {
    assert_eq!(message(look("")), "data.csv: the file is empty; a header line with column names is needed");
    assert_eq!(message(look("\n\n")), "data.csv: the file is empty; a header line with column names is needed");
    assert_eq!(message(look("a,b\n")), "data.csv: no rows");
    assert_eq!(
        message(look("63.0,1.0,?\n1,2,3\n")),
        "data.csv: most of the first line are numbers or dates; a header line with column names is needed"
    );
    assert_eq!(message(look("a,,c\n1,2,3\n")), "data.csv: column 2 has no name");
    let row = "data.csv: most of the first line are numbers or dates; a header line with column names is needed";
    assert_eq!(message(look("P-1,male,63,2024-01-31,145\nP-2,female,51,2024-02-01,130\n")), row);
    assert_eq!(message(look("P-1;63,5;145;?\nP-2;51;130;1\n")), row);
    // Not the name: without a header it is a patient's.
    assert_eq!(message(look("jones,male,jones\nsmith,male,smith\n")), "data.csv: columns 1 and 3 have the same name");
    assert_eq!(message(look("a,b\n1,\0\n")), "data.csv, line 2: a NUL character; this is no text file");
    assert_eq!(
        message(look("a,b\n1,\"2\n3,4\n5,6\n")),
        "data.csv, line 2: a quote that begins in this record is never closed"
    );
}

#[test]
fn ten_thousand_columns_are_read_and_one_more_is_refused() {
    let file = |columns: usize| {
        let names: Vec<String> = (0..columns).map(|i| format!("c{i}")).collect();
        format!("{}\n{}\n", names.join(","), vec!["1"; columns].join(","))
    };
    assert_eq!(look(file(10_000)).unwrap().columns.len(), 10_000);
    assert_eq!(message(look(file(10_001))), "data.csv: more than 10000 columns");
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_line_of_200_megabytes_fails_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    for (name, piece) in [("plain.csv", b'x'), ("quotes.csv", b'"'), ("fields.csv", b',')] {
        let path = folder.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(b"a,b\n1,").unwrap();
        let block = vec![piece; 1 << 20];
        (0..200).for_each(|_| file.write_all(&block).unwrap());
        let before = resident();
        let error = survey(&path, &Hints::default(), ScanProfile::Default, Limits::default()).unwrap_err();
        let named = matches!(error, CohortError::LongRecord { line: 2, .. } | CohortError::TooManyColumns { .. });
        assert!(named, "{error}");
        assert!(resident() - before < 48 << 20, "{name}: {} MiB more", (resident() - before) >> 20);
    }
}

#[test]
fn limits_on_fields_and_rows_hold() {
    let limits = Limits { field_bytes: 10, rows: 3, ..Limits::default() };
    let error = look_with("a,b\n1,01234567890\n", &Hints::default(), limits);
    assert_eq!(message(error), "data.csv, line 2, field 2: more than 10 bytes");
    let error = look_with("a\n1\n2\n3\n4\n", &Hints::default(), limits);
    assert_eq!(message(error), "data.csv: more than 3 rows");
    assert!(survey(Path::new("/nowhere.csv"), &Hints::default(), ScanProfile::Default, limits).is_err());
    assert!(survey(Path::new("/dev/zero"), &Hints::default(), ScanProfile::Default, limits).is_err());
}

#[test]
fn identifiers_are_found_and_masked() {
    let mut text = "patient_id,Surname,e,birth_date,zip,ssn_like,age,chol,code,visit\n".to_owned();
    for i in 0..40 {
        text.push_str(&format!(
            "P{i},N{i},a{i}@example.org,1970-01-{:02},1234{},078-05-{:04},{},{},{},2024-03\n",
            i % 28 + 1,
            i % 10,
            1000 + i,
            50 + i,
            180 + i,
            70_000 + i * 13
        ));
    }
    let found = look(&text).unwrap();
    let rule = |name: &str| found.findings.iter().find(|f| f.column == name).map(|f| f.rule);
    assert_eq!(rule("patient_id"), Some(Rule::SubjectKey));
    assert_eq!(rule("Surname"), Some(Rule::Name));
    assert_eq!(rule("e"), Some(Rule::Pattern));
    assert_eq!(rule("birth_date"), Some(Rule::Name));
    assert_eq!(rule("zip"), Some(Rule::Geography));
    assert_eq!(rule("ssn_like"), Some(Rule::Name));
    assert_eq!(rule("code"), Some(Rule::NearlyUnique));
    assert_eq!((rule("age"), rule("chol"), rule("visit")), (None, None, None));
    let schema = found.schema("patient_id").unwrap();
    let kept: Vec<String> = schema.kept().into_iter().collect();
    assert_eq!(kept, ["age", "chol", "patient_id", "visit"]);
    // No value of a row is in any reason.
    assert!(found.findings.iter().all(|f| !f.reason.contains("example.org") && !f.reason.contains("078")));
}

#[test]
fn identifiers_are_found_in_spite_of_digits_gaps_and_spellings() {
    let mut text = "id,zip5,phone1,address1,post_code,dateofbirth,seen,admitted,left,x\n".to_owned();
    for i in 0..40 {
        let seen = if i == 7 { "unknown".to_owned() } else { format!("2024-01-{:02}", i % 28 + 1) };
        text.push_str(&format!("{i},1,1,1,1,1,{seen},{:02}-05-2024,202401{:02},{i}\n", i % 28 + 1, i % 28 + 1));
    }
    let found = look(&text).unwrap();
    let kept: Vec<String> = found.schema("id").unwrap().kept().into_iter().collect();
    assert_eq!(kept, ["id", "x"]);
    let rule = |name: &str| found.findings.iter().find(|f| f.column == name).map(|f| f.rule);
    assert_eq!(["seen", "admitted", "left"].map(rule), [Some(Rule::Date); 3]);
}

#[test]
fn what_looks_like_the_subject_key_and_is_not_chosen_is_masked() {
    let mut text = "patient_id,id,case_key,x\n".to_owned();
    (0..30).for_each(|i| text.push_str(&format!("{},{i},K{i},{i}\n", i * 3)));
    let guessed = look(&text).unwrap();
    assert_eq!(guessed.subject_guess.as_deref(), Some("patient_id"));
    let hints = Hints { subject: Some("case_key".into()), ..Hints::default() };
    let chosen = look_with(&text, &hints, Limits::default()).unwrap();
    for survey in [guessed, chosen] {
        let kept: Vec<String> = survey.schema("case_key").unwrap().kept().into_iter().collect();
        assert_eq!(kept, ["case_key", "x"]);
    }
}

#[test]
fn texts_that_often_mean_missing_are_asked_about_and_are_values_until_told() {
    let mut text = "id,temp,base,score,once,ward\n".to_owned();
    for i in 0..20 {
        let temp = if i % 10 == 3 { "999".to_owned() } else { format!("{}.5", 36 + i % 4) };
        let score = if i == 4 { ".".to_owned() } else { i.to_string() };
        let once = if i == 7 { 99 } else { i % 5 };
        let ward = if i % 2 == 0 { "A" } else { "-" };
        text.push_str(&format!("P{i},{temp},{},{score},{once},{ward}\n", i % 8 - 6));
    }
    let asked = |found: &Survey| {
        let each = |c: &ColumnSurvey| -> Vec<String> {
            c.suspects.iter().map(|(text, n)| format!("{} {text} {n}", c.name)).collect()
        };
        found.columns.iter().flat_map(each).collect::<Vec<_>>()
    };
    let number = |found: &Survey, at: usize| found.columns[at].number.map(|n| (n.min, n.max));
    let found = look(&text).unwrap();
    // Not -1, which lies among other values; not 99, which is there once and may be one patient's; not a ward.
    assert_eq!(asked(&found), ["temp 999 2", "score . 1"]);
    assert_eq!(number(&found, 1), Some((36.5, 999.0)));
    assert_ne!(found.columns[3].kind, ColumnKind::Number);

    let markers = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    let hints = Hints { missing: markers(&["999 ", ".", "999", ""]), ..Hints::default() };
    let told = look_with(&text, &hints, Limits::default()).unwrap();
    assert_eq!(told.format.missing, ["999", "."]);
    assert!(asked(&told).is_empty(), "{:?}", asked(&told));
    assert_eq!(number(&told, 1), Some((36.5, 39.5)));
    assert_eq!(told.columns[1].missing, [("999".to_owned(), 2)]);
    assert_eq!(told.columns[3].kind, ColumnKind::Number);

    // Where nothing but an empty cell means missing, the usual texts are asked about too.
    let hints = Hints { missing: markers(&[]), ..Hints::default() };
    let bare = look_with("id,a\nP1,-9\nP2,-9\nP3,4\nP4,\n", &hints, Limits::default()).unwrap();
    assert_eq!(asked(&bare), ["a -9 2"]);
    assert_eq!((number(&bare, 1), bare.columns[1].missing_total()), (Some((-9.0, 4.0)), 1));
}

#[test]
fn safe_harbor_is_stricter() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "h.csv", "id,age,visit,city\n1,92,2024-03,x\n2,50,2024-04,x\n3,40,2024-05,y\n");
    let with = |profile| survey(&path, &Hints::default(), profile, Limits::default()).unwrap().findings;
    assert_eq!(with(ScanProfile::Default).iter().map(|f| f.column.as_str()).collect::<Vec<_>>(), ["id"]);
    let strict = with(ScanProfile::HipaaSafeHarbor);
    assert_eq!(
        strict.iter().map(|f| f.rule).collect::<Vec<_>>(),
        [Rule::SubjectKey, Rule::AgeOver89, Rule::Date, Rule::Geography]
    );
}

#[test]
fn i1_an_error_never_holds_a_value() {
    const CANARY: &str = "CANARY-4711";
    for text in [
        format!("a,b\n{CANARY},2,3\n"),
        format!("a,b\n{CANARY}\n"),
        format!("a,b\n1,\"{CANARY}\n2,3\n"),
        format!("a,b\n1,{CANARY}\0\n"),
        format!("a,b\n1,{}\n", CANARY.repeat(10_000)),
    ] {
        let error = look(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = look(&bytes);
    }

    #[test]
    fn no_text_of_special_characters_makes_the_decoder_panic(
        text in "[a-c0-9,;\t|\"\r\n .?\u{e4}\u{feff}-]{0,400}",
        field_bytes in 1usize..50,
        record_bytes in 1usize..200,
        columns in 1usize..5,
    ) {
        let limits = Limits { record_bytes, field_bytes, columns, rows: 20 };
        let _ = look_with(&text, &Hints::default(), limits);
    }

    #[test]
    fn what_was_quoted_is_read_back(cells in proptest::collection::vec("[a-z,;\"\n ]{1,12}", 1..20)) {
        // An x at both ends keeps blanks from being trimmed and cells from being empty.
        let quoted: Vec<String> = cells.iter().map(|c| format!("\"x{}x\"", c.replace('"', "\"\""))).collect();
        let text = format!("name,other\n{}\n", quoted.iter().map(|q| format!("{q},1")).collect::<Vec<_>>().join("\n"));
        let hints = Hints { delimiter: Some(Delimiter::Comma), ..Hints::default() };
        let found = look_with(&text, &hints, Limits::default()).unwrap();
        let distinct: std::collections::BTreeSet<_> = cells.iter().map(|c| format!("x{c}x")).collect();
        prop_assert_eq!(found.rows, cells.len() as u64);
        prop_assert_eq!(found.columns[0].distinct, Distinct::Exactly(distinct.len() as u64));
    }
}
