//! A page for people, to be read and printed: one file, no scripts, nothing from elsewhere.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{Head, plain};

const STYLE: &str = "\
body{font:11pt/1.45 system-ui,sans-serif;color:#111;background:#fff;max-width:76rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;break-after:avoid}h3{font-size:1rem;break-after:avoid}\
table{border-collapse:collapse;width:100%;font-size:.85em;margin:.5rem 0}\
caption{text-align:start;font-weight:600;padding:.2rem 0}\
th,td{border:1px solid #888;padding:.2rem .4rem;text-align:start;vertical-align:top;overflow-wrap:anywhere}\
thead{display:table-header-group}tr{break-inside:avoid}\
dl{display:grid;grid-template-columns:minmax(9rem,18rem) 1fr;gap:.2rem 1rem}dt{font-weight:600}\
dd{margin:0;overflow-wrap:anywhere}pre{white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid #888;padding:.5rem}\
@page{size:A4 landscape;margin:14mm}@media print{body{max-width:none;margin:0;padding:0}}";

/// Text for the inside of an element or attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A page that is being written. Everything given to it is text, never markup.
pub(super) struct Page<'w> {
    out: &'w mut dyn Write,
    columns: usize,
    rows: u64,
}

impl<'w> Page<'w> {
    /// Begins a page, which says first of which log it is.
    pub(super) fn begin(out: &'w mut dyn Write, title: &str, head: &Head<'_>) -> io::Result<Self> {
        let title = escaped(title);
        write!(
            out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
        )?;
        let mut page = Self { out, columns: 0, rows: 0 };
        let origin = head.report.origin;
        let name = origin.and_then(|origin| head.words.site(origin)).map(|name| format!("{name} ("));
        let site = match name {
            Some(name) => format!("{name}{})", head.origin()),
            None => head.origin(),
        };
        page.facts(&[
            ("Log of", site),
            ("Range", head.range()),
            ("Made", head.made().to_string()),
            ("Checkpoint", format!("{} entries, root sha256:{}", head.report.size, head.root())),
        ])?;
        if head.words.has_names() {
            page.text("Names of people, sites and datasets are the site's own words: the log holds their ids only.")?;
        }
        Ok(page)
    }

    pub(super) fn section(&mut self, title: &str) -> io::Result<()> {
        writeln!(self.out, "<h2>{}</h2>", escaped(title))
    }

    pub(super) fn part(&mut self, title: &str) -> io::Result<()> {
        writeln!(self.out, "<h3>{}</h3>", escaped(title))
    }

    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "<p>{}</p>", escaped(&plain(text)))
    }

    /// Lines as they stand.
    pub(super) fn verbatim(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "<pre>{}</pre>", escaped(text))
    }

    /// Names and values; an empty value reads *not stated*.
    pub(super) fn facts(&mut self, facts: &[(&str, String)]) -> io::Result<()> {
        let mut list = String::from("<dl>\n");
        for (name, value) in facts {
            let value = if value.is_empty() { "not stated" } else { value.as_str() };
            let _ = writeln!(list, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value));
        }
        list.push_str("</dl>\n");
        self.out.write_all(list.as_bytes())
    }

    /// Begins a table.
    pub(super) fn table(&mut self, caption: &str, columns: &[&str]) -> io::Result<()> {
        (self.columns, self.rows) = (columns.len(), 0);
        write!(self.out, "<table>\n<caption>{}</caption>\n<thead><tr>", escaped(caption))?;
        for column in columns {
            write!(self.out, "<th scope=\"col\">{}</th>", escaped(column))?;
        }
        self.out.write_all(b"</tr></thead>\n<tbody>\n")
    }

    pub(super) fn row(&mut self, cells: &[String]) -> io::Result<()> {
        self.rows += 1;
        let mut row = String::from("<tr>");
        for cell in cells {
            let _ = write!(row, "<td>{}</td>", escaped(cell));
        }
        row.push_str("</tr>\n");
        self.out.write_all(row.as_bytes())
    }

    /// Ends a table; one without rows says so.
    pub(super) fn end_table(&mut self) -> io::Result<()> {
        if self.rows == 0 {
            writeln!(self.out, "<tr><td colspan=\"{}\">None in this range.</td></tr>", self.columns)?;
        }
        self.out.write_all(b"</tbody>\n</table>\n")
    }

    /// Ends the page with how to verify.
    pub(super) fn end(mut self, head: &Head<'_>) -> io::Result<()> {
        self.section("How to verify")?;
        self.text(head.how())?;
        self.text(
            "KEY is the key that the log must be of and of each member, SEEN a checkpoint of it that a peer keeps: take \
             them from somebody else than whoever gave you the file. The signed checkpoint of this report:",
        )?;
        let note = head.report.note.clone().unwrap_or_default();
        self.verbatim(note.trim_end())?;
        self.out.write_all(b"</main>\n</body>\n</html>\n")
    }
}
