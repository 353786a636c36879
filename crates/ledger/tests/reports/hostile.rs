//! Text that somebody outside chose: names, reasons, ids.

use hospes_ledger::report::{Annex, Format};
use hospes_ledger::{Action, Actor, Entry, ObjectKind};

use crate::claims::REPORTS;
use crate::fixture::{annex, export, federation, made, steward, story};

const HOSTILE: &str = "<script>alert(1)</script>\"'&=1+1|a=b\\ \u{202e}evil]]>";

fn story_with_hostile_text() -> (Vec<Entry>, Annex) {
    let mut story = story();
    for entry in &mut story {
        entry.reason = Some(format!("{HOSTILE}\n<img src=x onerror=y>"));
        entry.engine.version = format!("hospes-site {HOSTILE}");
        entry.engine.device = Some(HOSTILE.into());
    }
    let mut peer = story[4].clone();
    peer.actor = Actor::Peer { organisation: Some(HOSTILE.into()), node: federation() };
    peer = peer.object(ObjectKind::Dataset, HOSTILE, None);
    story.push(peer);
    let mut role = story[1].clone();
    role.action = Action::DatasetRegistered;
    role.actor = Actor::Person { id: steward(), key: None, role: Some(HOSTILE.into()) };
    story.push(role.object(ObjectKind::Dataset, format!("={HOSTILE}"), None));
    let mut names = annex();
    names.people.values_mut().for_each(|name| *name = HOSTILE.into());
    names.sites.values_mut().for_each(|name| *name = HOSTILE.into());
    names.datasets.values_mut().for_each(|name| *name = HOSTILE.into());
    (story, names)
}

#[test]
fn no_report_shows_a_character_that_hides_or_turns_what_is_read() {
    let (story, names) = story_with_hostile_text();
    let export = export(&story, None);
    for format in REPORTS {
        let text = made(format, &export, &names);
        assert!(!text.contains('\u{202e}'), "{format}");
        assert!(text.contains("\\u{202e}") || text.contains("\\\\u{202e}"), "{format} does not show what it left out");
    }
}

/// Everything that begins like a tag is one of ours, and none has a script, a link or an image.
#[test]
fn pages_hold_no_markup_but_their_own() {
    const TAGS: [&str; 29] = [
        "!doctype", "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "pre", "dl", "dt",
        "dd", "table", "caption", "thead", "tbody", "tr", "th", "td", "/html", "/head", "/body", "/main", "/title",
        "/style",
    ];
    let (story, names) = story_with_hostile_text();
    let export = export(&story, None);
    for format in [Format::Html, Format::Article30, Format::DataUse] {
        let page = made(format, &export, &names);
        for part in page.split('<').skip(1) {
            let tag: String = part.chars().take_while(|c| !matches!(c, '>' | ' ')).collect();
            let opened = tag.strip_prefix('/').filter(|t| TAGS.contains(t)).unwrap_or(&tag);
            assert!(TAGS.contains(&opened), "{format}: <{}", part.chars().take(60).collect::<String>());
            let inside: String = part.chars().take_while(|c| *c != '>').collect();
            assert!(
                !inside.contains("src=") && !inside.contains("href=") && !inside.contains(" on"),
                "{format}: {inside}"
            );
        }
        assert!(page.contains("default-src 'none'"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    }
}

#[test]
fn no_cell_of_the_table_is_a_formula_and_each_entry_is_one_row() {
    let (story, names) = story_with_hostile_text();
    let table = made(Format::Csv, &export(&story, None), &names);
    let mut reader = csv::ReaderBuilder::new().from_reader(table.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), story.len() + 1);
    for cell in rows.iter().flat_map(csv::StringRecord::iter) {
        assert!(!cell.trim_start().starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell}");
        assert!(!cell.contains('\n'));
    }
    assert!(table.ends_with("\r\n"));
}

/// Header fields and values of CEF, read as a SIEM reads them.
#[test]
fn a_line_for_a_siem_has_its_fields_and_no_other() {
    let (story, names) = story_with_hostile_text();
    let text = made(Format::Cef, &export(&story, None), &names);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), story.len() + 1);
    for line in lines {
        let (syslog, message) = line.split_once(" - CEF:0|").unwrap();
        assert_eq!(syslog.split(' ').count(), 6, "{syslog}");
        let priority: u16 = syslog.strip_prefix('<').unwrap().split_once(">1 ").unwrap().0.parse().unwrap();
        assert!((104..112).contains(&priority), "{priority}");
        let (header, extension) = split_header(message);
        assert_eq!(header.len(), 6, "{line}");
        assert!(header[5].parse::<u8>().unwrap() <= 10);
        let keys = keys(extension);
        let mut known = keys.clone();
        known.retain(|key| KEYS.contains(&key.as_str()));
        assert_eq!(keys, known, "{line}");
        let mut once = keys.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), keys.len(), "{line}");
    }
}

const KEYS: [&str; 25] = [
    "rt",
    "externalId",
    "deviceExternalId",
    "act",
    "suid",
    "spriv",
    "outcome",
    "reason",
    "duid",
    "out",
    "fileHash",
    "msg",
    "cs1Label",
    "cs1",
    "cs2Label",
    "cs2",
    "cs3Label",
    "cs3",
    "cs4Label",
    "cs4",
    "cs5Label",
    "cs5",
    "cs6Label",
    "cs6",
    "dhost",
];

/// The six fields before the extension, by pipes that are not escaped.
fn split_header(message: &str) -> (Vec<String>, &str) {
    let (mut fields, mut field, mut escaped) = (Vec::new(), String::new(), false);
    for (i, c) in message.char_indices() {
        match c {
            _ if escaped => {
                escaped = false;
                field.push(c);
            }
            '\\' => escaped = true,
            '|' => {
                fields.push(std::mem::take(&mut field));
                if fields.len() == 6 {
                    return (fields, &message[i + 1..]);
                }
            }
            c => field.push(c),
        }
    }
    panic!("no six fields: {message}")
}

/// Keys of an extension, by equals signs that are not escaped.
fn keys(extension: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut before = String::new();
    let mut escaped = false;
    for c in extension.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '=' => {
                keys.push(before.rsplit(' ').next().unwrap().to_owned());
                before.clear();
                continue;
            }
            _ => {}
        }
        before.push(c);
    }
    keys
}
