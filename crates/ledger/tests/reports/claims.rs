//! What an auditor reads, and what a report is made of.

use std::cell::Cell;
use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use hospes_ledger::report::{self, Annex, Format, ReportError};
use hospes_ledger::{Action, Actor, Engine, Entry, ObjectKind, Purpose, verify};
use hospes_protocol::approval::Role;

use crate::fixture::{
    T0, annex, approval_id, approver, at, dataset, expected, export, federation, made, steward, story, study,
    try_report, version,
};

/// The reports that are no copy of the log or of the annex.
pub(crate) const REPORTS: [Format; 8] = [
    Format::Csv,
    Format::Html,
    Format::FhirR4b,
    Format::FhirR5,
    Format::FhirPermission,
    Format::Cef,
    Format::Article30,
    Format::DataUse,
];

#[test]
fn every_report_names_range_and_checkpoint_says_how_to_verify_and_is_the_same_again() {
    let export = export(&story(), None);
    for format in REPORTS {
        let (text, report) = try_report(format, &export, &annex()).unwrap();
        let last = story().len() - 1;
        for part in [
            format!("entries 0 to {last} (all {})", story().len()),
            report.root.unwrap().to_string(),
            report.origin.unwrap().to_string(),
            "hospesctl audit verify".to_owned(),
        ] {
            let found = text.contains(&part) || text.contains(&part.replace('\'', "&#39;"));
            assert!(found, "{format}: {part} is missing");
        }
        assert_eq!(made(format, &export, &annex()), text, "{format}");
    }
    assert_eq!(made(Format::JsonLines, &export, &Annex::default()).into_bytes(), export);
}

/// The three questions of an audit, from the printed report alone.
#[test]
fn the_printed_report_answers_who_approved_what_left_and_that_nothing_changed() {
    let html = made(Format::Html, &export(&story(), None), &annex());
    let heart = study(1);
    for words in [
        // Who approved what, when, for which purpose.
        "Anna Weber",
        "data steward",
        "Émile Roux",
        "data access approver",
        "approval countersigned",
        "2023-11-14T22:24:20.000Z",
        &heart.terms.title,
        &heart.digest().to_string(),
        "Cardiology",
        "2 of 14 columns, 303 subjects",
        "the ethics decision was withdrawn",
        // What left.
        "Heart network",
        "1000",
        "the coordinator can read this site&#39;s update",
        "it was let go before and may have arrived; revoked",
        "1 times, 1,000 bytes",
        "1 times, 2,000 bytes: let go without a receipt",
        // The log itself.
        "The log is whole",
        "wrong passphrase",
    ] {
        assert!(html.contains(words), "{words} is missing in\n{html}");
    }
}

#[test]
fn without_an_annex_reports_hold_what_the_log_has_and_nothing_else() {
    let export = export(&story(), None);
    for format in REPORTS {
        let text = made(format, &export, &Annex::default());
        for name in ["Weber", "Cardiology", "Heart network", &study(1).terms.title] {
            assert!(!text.contains(name), "{format} knows {name}");
        }
        assert!(text.contains(&federation().to_string()) || format == Format::Csv, "{format}");
    }
    let html = made(Format::Html, &export, &Annex::default());
    for id in [steward(), approver()] {
        assert!(html.contains(&id.to_string()));
    }
}

/// Whoever writes another purpose into the annex than the one that was signed is not believed.
#[test]
fn a_document_whose_digest_the_log_does_not_have_is_not_used() {
    let mut forged = annex();
    let mut study = study(1).into_inner();
    study.terms.purpose = "a much better purpose".into();
    forged.studies = vec![hospes_protocol::canon::Canonical::new(study).unwrap()];
    forged.approvals.clear();
    let export = export(&story(), None);
    for format in REPORTS {
        assert!(!made(format, &export, &forged).contains("a much better purpose"), "{format}");
    }
    // The annex that leaves holds only what the log refers to.
    forged.people.insert(hospes_protocol::id::PersonId::new(at(0), [99; 10]), "Nobody Here".into());
    let text = made(Format::Annex, &export, &forged);
    assert!(!text.contains("Nobody Here") && text.contains("Anna Weber"));
    assert!(Annex::read(&text).unwrap().studies.is_empty());
    let whole = made(Format::Annex, &export, &annex());
    assert!(Annex::read(&whole).unwrap() == annex());
    assert!(Annex::read("{\"people\":{},\"patients\":[]}").is_err());
}

#[test]
fn the_record_of_processing_and_the_report_of_a_dataset_say_who_used_it_for_what() {
    let export = export(&story(), None);
    let record = made(Format::Article30, &export, &annex());
    for words in
        ["Heart network", "(b) Purposes", "not stated", "303 subjects when it was approved", "no secure aggregation"]
    {
        assert!(record.contains(words), "{words} is missing in\n{record}");
    }
    let use_of = made(Format::DataUse, &export, &annex());
    for words in [
        "Dataset Cardiology",
        &dataset().to_string(),
        "approval revoked 2023-11-14T23:13:20.000Z",
        "in force",
        "1 times, 1,000 bytes; 1 times more (2,000 bytes) let go without a receipt",
    ] {
        assert!(use_of.contains(words), "{words} is missing in\n{use_of}");
    }
}

#[test]
fn the_report_of_a_dataset_names_the_models_that_were_used_on_it() {
    let used = |outcome: fn(Entry) -> Entry, words: &str| {
        let by = Actor::person(steward(), Some(Role::DataSteward), None);
        let entry = Entry::new(at(70), by, Action::ModelUsed, Engine::new("hospes-site 0.1.0"));
        let mut entry = outcome(entry.object(ObjectKind::Dataset, dataset(), None));
        entry.reason = Some(words.to_owned());
        entry
    };
    let mut story = story();
    story.push(used(|entry| entry, "303 rows in a file; research use only"));
    story.push(used(|entry| entry.refused(""), "the policy does not allow predictions"));
    let use_of = made(Format::DataUse, &export(&story, None), &annex());
    assert!(use_of.contains("model used") && use_of.contains("303 rows in a file"), "{use_of}");
    assert!(!use_of.contains("does not allow predictions"), "what was not done is no use");
}

#[test]
fn the_report_of_a_dataset_tells_rounds_on_its_versions_apart() {
    let mut story = story();
    let engine = || Engine { version: "hospes-site 0.1.0".into(), device: None };
    let purpose = Purpose { study: Some(study(1).id), job: None, approval: Some(approval_id(1)) };
    let permit = |on| {
        Entry::new(at(63), Actor::Engine, Action::PermitMinted, engine()).purpose(purpose).object(
            ObjectKind::Dataset,
            on,
            None,
        )
    };
    let registered = Entry::new(at(62), Actor::Engine, Action::DatasetRegistered, engine());
    story.extend([registered.object(ObjectKind::Dataset, version(), None)]);
    story.extend([permit(dataset()), permit(version()), permit(version())]);
    let report = made(Format::DataUse, &export(&story, None), &annex());
    // Two permits of the story name no dataset, as those of earlier versions of the program.
    for (of, rounds) in [(dataset(), "1 of 5"), (version(), "2 of 5")] {
        let section = report.split("<h2").find(|part| part.contains(&of.to_string())).unwrap_or_default();
        assert!(section.contains(rounds), "{rounds} of {of} is missing in\n{section}");
        assert!(section.contains("of all versions that were read"), "{section}");
    }
}

#[test]
fn erased_entries_say_under_which_rule_in_every_report() {
    let export = export(&story(), Some(T0 + 40 * 60_000));
    for format in [Format::Csv, Format::Html, Format::FhirR4b, Format::FhirR5, Format::Cef] {
        let text = made(format, &export, &annex());
        assert!(text.contains("retention 120 months"), "{format}");
        let whole = format == Format::Html;
        assert!(whole || text.contains("erased under rule retention 120 months"), "{format}");
        assert!(!text.contains("wrong passphrase"), "{format}");
    }
    let report = verify(&mut io::BufReader::new(export.as_slice()), &expected()).unwrap();
    assert!(report.is_intact() && report.erased_entries > 0);
}

#[test]
fn nothing_is_made_of_a_log_that_is_not_intact() {
    let good = export(&story(), None);
    let mut bad = good.clone();
    let place = bad.len() / 2;
    bad[place] ^= 1;
    for format in Format::ALL {
        let mut out = Vec::new();
        let error = report::write(*format, &mut Cursor::new(&bad), &expected(), &annex(), &mut out).unwrap_err();
        assert!(matches!(error, ReportError::NotIntact(_)), "{format}: {error}");
        assert!(out.is_empty(), "{format} wrote something");
    }
}

/// A file that is another one when it is read again.
struct Turning {
    files: Vec<Cursor<Vec<u8>>>,
    passes: usize,
}

impl Turning {
    fn file(&mut self) -> &mut Cursor<Vec<u8>> {
        let last = self.files.len() - 1;
        &mut self.files[self.passes.saturating_sub(1).min(last)]
    }
}

impl Read for Turning {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file().read(buffer)
    }
}

impl BufRead for Turning {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.file().fill_buf()
    }
    fn consume(&mut self, amount: usize) {
        self.file().consume(amount);
    }
}

impl Seek for Turning {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        self.passes += 1;
        self.file().seek(place)
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_makes_no_report() {
    let mut other = story();
    other.pop();
    for format in REPORTS {
        let files = vec![Cursor::new(export(&story(), None)), Cursor::new(export(&other, None))];
        let mut turning = Turning { files, passes: 0 };
        let error = report::write(format, &mut turning, &expected(), &annex(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, ReportError::Changed), "{format}: {error}");
    }
}

/// Counts what is read between two writes: what a report has read and not yet written is what it holds in memory.
struct Counting<'f> {
    file: Cursor<&'f [u8]>,
    unwritten: Rc<Cell<usize>>,
    passes: Rc<Cell<usize>>,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.unwritten.set(self.unwritten.get() + read);
        Ok(read)
    }
}

impl BufRead for Counting<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let whole = self.file.fill_buf()?;
        Ok(&whole[..whole.len().min(4_096)])
    }
    fn consume(&mut self, amount: usize) {
        self.unwritten.set(self.unwritten.get() + amount);
        self.file.consume(amount);
    }
}

impl Seek for Counting<'_> {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        // A new pass; the one before wrote its last bytes.
        self.unwritten.set(0);
        self.passes.set(self.passes.get() + 1);
        self.file.seek(place)
    }
}

struct Most {
    unwritten: Rc<Cell<usize>>,
    passes: Rc<Cell<usize>>,
    most: usize,
    largest: usize,
}

impl Write for Most {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let unwritten = self.unwritten.take();
        // The first pass only verifies and counts.
        if self.passes.get() > 1 {
            self.most = self.most.max(unwritten);
        }
        self.largest = self.largest.max(bytes.len());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Memory is a line and a buffer, whatever the length of the log: ten times the entries, the same count.
#[test]
fn a_report_holds_no_more_of_a_long_log_than_of_a_short_one() {
    let entry = |n: i64| match n % 3 {
        0 => Entry::new(at(n), Actor::Engine, Action::RequestReceived, Engine::new("hospes-site 0.1.0")),
        1 => Entry::new(at(n), Actor::Engine, Action::AuditExported, Engine::new("hospes-site 0.1.0")),
        _ => Entry::new(at(n), Actor::Engine, Action::LoginFailed, Engine::new("hospes-site 0.1.0")).refused("no"),
    };
    for entries in [600, 6_000] {
        let list: Vec<Entry> = (0..entries).map(|n| entry(n).object(ObjectKind::Export, n, None)).collect();
        let file = export(&list, None);
        assert!(file.len() > 64 * 1_024 * 3);
        for format in [Format::Csv, Format::FhirR4b, Format::FhirR5, Format::Cef, Format::Html] {
            let (unwritten, passes) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let mut out = Most { unwritten: Rc::clone(&unwritten), passes: Rc::clone(&passes), most: 0, largest: 0 };
            let mut counting = Counting { file: Cursor::new(&file), unwritten, passes };
            report::write(format, &mut counting, &expected(), &Annex::default(), &mut out).unwrap();
            assert!(out.most < 64 * 1_024, "{format}: {} bytes of {entries} entries were held", out.most);
            assert!(out.largest < 64 * 1_024, "{format}: {} bytes were written at once", out.largest);
        }
    }
}
