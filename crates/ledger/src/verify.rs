//! Offline verification of an export: without the database, without the program that wrote it.
//!
//! It reads hostile input: lines and counts are bounded, nothing is believed before it is proven by the checkpoint, and
//! what is wrong first is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufRead};

use data_encoding::BASE64;
use hospes_protocol::id::{Digest, SiteId, Timestamp};
use hospes_protocol::sign::PublicKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::export::{CheckpointLine, End, EndLine, FORMAT, Header, tiles_at};
use crate::leaf::{self, Cursor, Record, When};
use crate::limits;
use crate::note::{Checkpoint, SignedCheckpoint};
use crate::tree::tiles::{Edge, TILE_HASHES, Tile, TileId, place};
use crate::tree::{Frontier, root_of};
use crate::witness::longest_unwitnessed_ms;

mod erased;

use erased::Erasures;

/// How far the clock of whoever made an export may lie ahead of the reader's: a day.
const CLOCKS_MS: i64 = 24 * 3_600 * 1_000;

/// What the auditor knows from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Expectations {
    /// Identity keys that the ledger may be of: one party's, which has one in each federation. If there are none, the
    /// export's own word is taken, and whose ledger it is was not checked.
    pub origins: Vec<PublicKey>,
    /// Checkpoints of this ledger that somebody else saw, as notes: a peer's cosigned one, or one kept before. The
    /// ledger must contain each.
    pub known: Vec<String>,
    /// Members whose cosignatures count. If there are none, nobody's does: whoever wrote the export could have made up
    /// every other key in it.
    pub members: Vec<PublicKey>,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Line of the export, from 1.
    pub line: u64,
    /// First bad entry, where it can be told.
    pub entry: Option<u64>,
    /// What is wrong.
    pub kind: FindingKind,
    /// In words.
    pub words: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            Some(entry) => write!(f, "line {}, entry {entry}: {}", self.line, self.words),
            None => write!(f, "line {}: {}", self.line, self.words),
        }
    }
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A line is not of the form that is written, or too long.
    Form,
    /// A signature does not hold, or is of another key than expected.
    Signature,
    /// An entry is not the one that the checkpoint covers, or was erased where or when no rule of retention erases.
    Altered,
    /// Entries are missing at the end, or were seen elsewhere and are not here.
    Truncated,
    /// An entry or a list of hashes stands in another place than it should.
    Order,
    /// The ledger is not the one that somebody else saw.
    Forked,
    /// The file was changed after it was signed.
    File,
}

/// A witness, as far as the export shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessReport {
    /// Who.
    pub witness: SiteId,
    /// Whether the auditor named it as a member. If not, nobody knows who holds its key.
    pub member: bool,
    /// Cosignatures.
    pub cosignatures: u64,
    /// Entries covered by the last one.
    pub last_size: u64,
    /// Time of the last one, by the witness's clock.
    pub last_at: Timestamp,
}

/// An entry of which fields were erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedEntry {
    /// Which.
    pub entry: u64,
    /// When it was made, by the clock of whoever wrote it.
    pub at: Timestamp,
}

/// What verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose ledger; `None` if not even the header could be read.
    pub origin: Option<SiteId>,
    /// Key that signed the export.
    pub key: Option<PublicKey>,
    /// When the export was made, by its own word.
    pub made: Option<Timestamp>,
    /// Entries that the checkpoint covers.
    pub size: u64,
    /// Root of the checkpoint.
    pub root: Option<Digest>,
    /// The signed checkpoint, as a note.
    pub note: Option<String>,
    /// Entries that were read and proven.
    pub entries: u64,
    /// Entries of which fields were erased under a rule of retention.
    pub erased_entries: u64,
    /// The first of them.
    pub first_erased: Option<ErasedEntry>,
    /// The newest of them.
    pub newest_erased: Option<ErasedEntry>,
    /// Rules under which fields were erased.
    pub erasure_rules: BTreeSet<String>,
    /// Those of them that are none of this product's: nothing says whether they allow what was erased.
    pub unknown_rules: BTreeSet<String>,
    /// The newest erased entry of which later ones tell only in words that are none of this product's.
    pub doubtful_erasure: Option<u64>,
    /// Cosigned checkpoints that were verified.
    pub checkpoints: u64,
    /// Checkpoints known from elsewhere that the ledger contains.
    pub known_found: u64,
    /// Keys other than the ledger's own that cosigned.
    pub witnesses: Vec<WitnessReport>,
    /// Longest time without a member's cosignature, in milliseconds, from the first entry to the making of the export.
    pub longest_unwitnessed_ms: i64,
    /// Entries after the last checkpoint that a member cosigned: nobody else can vouch for them yet.
    pub unwitnessed_entries: u64,
    /// The first thing that is wrong; `None` if the export is good.
    pub finding: Option<Finding>,
}

impl Report {
    /// Whether nothing is wrong. Whether what was erased might be is for [`Report::doubt`] to say.
    pub fn is_intact(&self) -> bool {
        self.finding.is_none()
    }

    /// Number of independent witnesses: members that the auditor named and that cosigned.
    pub fn independent_witnesses(&self) -> usize {
        self.witnesses.iter().filter(|witness| witness.member).count()
    }

    /// Why nothing says that what was erased might be, by a clock that shows `now`; `None` if something does, or nothing
    /// was erased. A log in doubt must not be called intact.
    pub fn doubt(&self, now: Timestamp) -> Option<String> {
        if let Some(made) = self.made.filter(|made| self.erased_entries > 0 && made.since(now) > CLOCKS_MS) {
            return Some(format!(
                "entries were erased in part, and the file says that it is of {made}, which is still to come: whether \
                 their time was over cannot be told"
            ));
        }
        if !self.unknown_rules.is_empty() {
            let rules: Vec<&str> = self.unknown_rules.iter().map(String::as_str).collect();
            let rules = rules.join("', '");
            return Some(format!(
                "entries were erased in part under '{rules}', which is no rule that this program knows"
            ));
        }
        let entry = self.doubtful_erasure?;
        Some(format!(
            "entry {entry} was erased in part, and what the log says of it names no rule that this program knows"
        ))
    }

    /// What was erased, in words; `None` if nothing was.
    pub fn erased_words(&self) -> Option<String> {
        let (first, newest) = (self.first_erased?, self.newest_erased?);
        let rules: Vec<&str> = self.erasure_rules.iter().map(String::as_str).collect();
        Some(format!(
            "{} entries were erased in part under {}: the first is entry {} of {}, the newest entry {} of {}",
            self.erased_entries,
            rules.join(", "),
            first.entry,
            first.at,
            newest.entry,
            newest.at
        ))
    }
}

/// Verifies an export.
///
/// # Errors
/// Only if reading fails; what is wrong with the export is in [`Report::finding`].
pub fn verify(reader: &mut dyn BufRead, expected: &Expectations) -> io::Result<Report> {
    run(reader, Verifier::new(expected, None))
}

/// An entry that the checkpoint of its export covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// What it says.
    pub record: Record,
    /// Hash of its leaf.
    pub leaf: Digest,
}

/// Verifies an export and shows each entry, in order, as soon as it is proven. What is found at the end (a changed
/// file, a cut tail, a fork) is found after the entries were shown: whoever wrote something from them must then throw
/// it away.
///
/// # Errors
/// If reading fails, and what `visit` returns.
pub fn read(
    reader: &mut dyn BufRead,
    expected: &Expectations,
    visit: &mut dyn FnMut(Proven) -> io::Result<()>,
) -> io::Result<Report> {
    run(reader, Verifier::new(expected, Some(visit)))
}

fn run(reader: &mut dyn BufRead, mut verifier: Verifier<'_>) -> io::Result<Report> {
    let mut lines = Lines { reader, hash: Sha256::new(), number: 0, line: Vec::new() };
    let finding = match verifier.run(&mut lines) {
        Ok(()) => None,
        Err(Stop::Finding(kind, entry, words)) => Some(Finding { line: lines.number, entry, kind, words }),
        Err(Stop::Io(error)) => return Err(error),
    };
    Ok(verifier.report(finding))
}

/// Why verification stops.
enum Stop {
    Finding(FindingKind, Option<u64>, String),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Lines of bounded length; hashes what was read before the present line.
struct Lines<'r> {
    reader: &'r mut dyn BufRead,
    hash: Sha256,
    number: u64,
    line: Vec<u8>,
}

impl Lines<'_> {
    /// Reads the next line; `false` at the end.
    fn next(&mut self) -> Result<bool, Stop> {
        if self.number > 0 {
            self.hash.update(&self.line);
        }
        self.line.clear();
        self.number += 1;
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if buffer.is_empty() {
                return Ok(!self.line.is_empty());
            }
            let end = buffer.iter().position(|b| *b == b'\n');
            let take = end.map_or(buffer.len(), |at| at + 1);
            if self.line.len() + take > limits::LINE_BYTES {
                let words = format!("the line is longer than {} bytes", limits::LINE_BYTES);
                return Err(Stop::Finding(FindingKind::Form, None, words));
            }
            self.line.extend_from_slice(&buffer[..take]);
            self.reader.consume(take);
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// The line without its end.
    fn text(&self) -> Result<&str, &'static str> {
        let line = self.line.strip_suffix(b"\n").ok_or("the last line has no line end")?;
        std::str::from_utf8(line).map_err(|_| "the line is no UTF-8")
    }
}

struct Verifier<'e> {
    expected: &'e Expectations,
    visit: Option<&'e mut dyn FnMut(Proven) -> io::Result<()>>,
    head: Option<(Header, Checkpoint, Edge)>,
    /// The full tile of each level that the present entry lies in.
    tiles: Vec<Option<Tile>>,
    frontier: Frontier,
    /// Known checkpoints that were not reached yet, by size, the largest first.
    known: Vec<Checkpoint>,
    last_order: u64,
    first_at: Option<Timestamp>,
    erasures: Erasures,
    /// Origins of the ledger: nobody witnesses itself.
    own: BTreeSet<SiteId>,
    witnesses: BTreeMap<SiteId, WitnessReport>,
    cosigned: Vec<(SiteId, Timestamp, u64)>,
    report: Report,
}

impl<'e> Verifier<'e> {
    fn new(expected: &'e Expectations, visit: Option<&'e mut dyn FnMut(Proven) -> io::Result<()>>) -> Self {
        Self {
            expected,
            visit,
            head: None,
            tiles: Vec::new(),
            frontier: Frontier::default(),
            known: Vec::new(),
            last_order: 0,
            first_at: None,
            erasures: Erasures::default(),
            own: BTreeSet::new(),
            witnesses: BTreeMap::new(),
            cosigned: Vec::new(),
            report: Report::default(),
        }
    }

    fn run(&mut self, lines: &mut Lines<'_>) -> Result<(), Stop> {
        if !lines.next()? {
            return Err(Stop::Finding(FindingKind::Form, None, "the file is empty".into()));
        }
        let text = lines.text().map_err(|e| Stop::Finding(FindingKind::Form, None, e.into()))?;
        self.header(text)?;
        self.reached()?;
        loop {
            if !lines.next()? {
                return Err(self.ended_early());
            }
            let number = lines.number;
            let text = lines.text().map_err(|e| self.stop(FindingKind::Form, e))?;
            if text.starts_with("{\"entry\":") {
                self.entry(text)?;
            } else if text.starts_with("{\"tile\":") {
                self.tile(text)?;
            } else if text.starts_with("{\"checkpoint\":") {
                self.checkpoint(text)?;
            } else {
                self.end(text, number, &lines.hash)?;
                break;
            }
        }
        if lines.next()? {
            return Err(Stop::Finding(FindingKind::File, None, "something follows the closing line".into()));
        }
        self.unreached()?;
        self.untold()
    }

    /// A finding at the entry that comes next.
    fn stop(&self, kind: FindingKind, words: impl Into<String>) -> Stop {
        let next = self.frontier.size();
        let entry = self.head.as_ref().is_some_and(|(_, c, _)| next < c.size).then_some(next);
        Stop::Finding(kind, entry, words.into())
    }

    fn ended_early(&self) -> Stop {
        let words = match &self.head {
            Some((_, checkpoint, _)) if self.frontier.size() < checkpoint.size => format!(
                "the file ends after {} of {} entries: its tail is missing",
                self.frontier.size(),
                checkpoint.size
            ),
            _ => "the closing line is missing".into(),
        };
        self.stop(FindingKind::Truncated, words)
    }

    fn header(&mut self, text: &str) -> Result<(), Stop> {
        let stop = |kind, words: String| Stop::Finding(kind, None, words);
        let header: Header = strict(text).map_err(|e| stop(FindingKind::Form, format!("the header: {e}")))?;
        if header.format != FORMAT {
            return Err(stop(FindingKind::Form, format!("this is no {FORMAT}; a newer version may be needed")));
        }
        let signed = SignedCheckpoint::parse(&header.checkpoint, &header.key)
            .map_err(|e| stop(FindingKind::Signature, e.to_string()))?;
        if !signed.all_hold(&header.key, &[]) {
            return Err(stop(FindingKind::Signature, "the header's checkpoint has a foreign signature".into()));
        }
        let checkpoint = *signed.checkpoint();
        if checkpoint.size > limits::ENTRIES {
            return Err(stop(FindingKind::Form, "the checkpoint covers more entries than a ledger can have".into()));
        }
        self.report.origin = Some(checkpoint.origin);
        self.report.key = Some(header.key);
        self.report.made = Some(header.made);
        self.report.size = checkpoint.size;
        self.report.root = Some(checkpoint.root);
        self.report.note = Some(header.checkpoint.clone());
        if !self.expected.origins.is_empty() && !self.expected.origins.contains(&header.key) {
            let words = format!("this is the ledger of {}, not of the party expected", checkpoint.origin);
            return Err(stop(FindingKind::Signature, words));
        }
        let edge = edge(&header, checkpoint.size).map_err(|e| stop(FindingKind::Form, e.into()))?;
        if edge.root() != checkpoint.root {
            return Err(stop(FindingKind::Altered, "the header's hashes are not those of its checkpoint".into()));
        }
        self.own = self.expected.origins.iter().chain([&header.key]).map(PublicKey::site_id).collect();
        self.known(&header)?;
        self.head = Some((header, checkpoint, edge));
        Ok(())
    }

    /// Reads the checkpoints known from elsewhere.
    fn known(&mut self, header: &Header) -> Result<(), Stop> {
        for note in &self.expected.known {
            let keys = self.expected.origins.iter().chain([&header.key]);
            let read = keys.map(|key| SignedCheckpoint::parse(note, key)).find_map(Result::ok);
            let Some(signed) = read else {
                let words = "a checkpoint known from elsewhere is not signed by this ledger's party".into();
                return Err(Stop::Finding(FindingKind::Signature, None, words));
            };
            self.known.push(*signed.checkpoint());
        }
        self.known.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.size));
        Ok(())
    }

    fn expected_hash(&self, level: usize, index: u64) -> Option<Digest> {
        let offset = place(index);
        let within = self.tiles.get(level).and_then(Option::as_ref);
        match within {
            Some(tile) if tile.id.index == index / TILE_HASHES as u64 => tile.hashes.get(offset).copied(),
            _ => {
                let (_, checkpoint, edge) = self.head.as_ref()?;
                // The edge holds what lies in no full tile.
                let (id, _) = Edge::parts(checkpoint.size).into_iter().find(|(id, _)| id.level as usize == level)?;
                (id.index == index / TILE_HASHES as u64).then(|| edge.levels()[level].get(offset).copied())?
            }
        }
    }

    fn tile(&mut self, text: &str) -> Result<(), Stop> {
        let parse = || -> Result<(u64, u64, Vec<Digest>), &'static str> {
            let mut cursor = Cursor::new(text);
            cursor.expect("{\"tile\":[")?;
            let level = cursor.number()?;
            cursor.expect(",")?;
            let index = cursor.number()?;
            cursor.expect("],\"hashes\":\"")?;
            let hashes = hashes(cursor.until("\"}")?).ok_or("the hashes are no base64")?;
            if cursor.finish().is_empty() { Ok((level, index, hashes)) } else { Err("something follows the hashes") }
        };
        let (level, index, hashes) = parse().map_err(|e| self.stop(FindingKind::Form, e))?;
        let Some(wanted) = self.wanted_tiles().first().copied() else {
            return Err(self.stop(FindingKind::Order, "a list of hashes stands where none belongs"));
        };
        if (u64::from(wanted.level), wanted.index) != (level, index) {
            return Err(self.stop(FindingKind::Order, "a list of hashes stands in another's place"));
        }
        let expected = self.expected_hash(wanted.level as usize + 1, index);
        if hashes.len() != TILE_HASHES || expected != Some(root_of(&hashes)) {
            return Err(self.stop(FindingKind::Altered, "a list of hashes is not the one that the checkpoint covers"));
        }
        let place = wanted.level as usize;
        if self.tiles.len() <= place {
            self.tiles.resize(place + 1, None);
        }
        self.tiles[place] = Some(Tile { id: wanted, hashes });
        Ok(())
    }

    /// Full tiles that must come before the next entry and did not yet.
    fn wanted_tiles(&self) -> Vec<TileId> {
        let (next, size) = (self.frontier.size(), self.report.size);
        let there =
            |id: &TileId| self.tiles.get(id.level as usize).and_then(Option::as_ref).is_some_and(|tile| tile.id == *id);
        tiles_at(next, size).filter(|id| !there(id)).collect()
    }

    fn entry(&mut self, text: &str) -> Result<(), Stop> {
        let next = self.frontier.size();
        let mut cursor = Cursor::new(text);
        let mut parse = || -> Result<u64, &'static str> {
            cursor.expect("{\"entry\":")?;
            let sequence = cursor.number()?;
            cursor.expect(",\"fields\":")?;
            Ok(sequence)
        };
        let sequence = parse().map_err(|e| self.stop(FindingKind::Form, e))?;
        if next >= self.report.size {
            return Err(self.stop(FindingKind::Order, "there are more entries than the checkpoint covers"));
        }
        if sequence != next {
            let words = format!("entry {sequence} stands where entry {next} belongs");
            return Err(self.stop(FindingKind::Order, words));
        }
        if next.is_multiple_of(TILE_HASHES as u64) && !self.wanted_tiles().is_empty() {
            return Err(self.stop(FindingKind::Form, "the hashes that prove this entry are missing"));
        }
        let body = cursor.finish().strip_suffix('}').ok_or("the form is not the one that is written");
        let parts = body.and_then(leaf::read).map_err(|e| self.stop(FindingKind::Form, e))?;
        let hash = leaf::leaf_hash(&parts);
        if self.expected_hash(0, next) != Some(hash) {
            return Err(self.stop(FindingKind::Altered, "the entry is not the one that the checkpoint covers"));
        }
        self.contents(&parts)?;
        self.frontier.push(hash);
        self.report.entries = self.frontier.size();
        self.reached()?;
        let Some(visit) = &mut self.visit else { return Ok(()) };
        let newer = |e| Stop::Finding(FindingKind::Form, Some(next), format!("{e}; a newer version may be needed"));
        let record = Record::of(next, &parts).map_err(newer)?;
        Ok(visit(Proven { record, leaf: hash })?)
    }

    /// Reads when an entry was made.
    fn when(&mut self, value: &str) -> Result<When, Stop> {
        let when: When = serde_json::from_str(value)
            .map_err(|_| self.stop(FindingKind::Form, "its time cannot be read; a newer version may be needed"))?;
        if when.order <= self.last_order && self.frontier.size() > 0 {
            return Err(self.stop(FindingKind::Order, "its order does not follow that of the entry before"));
        }
        self.last_order = when.order;
        self.first_at.get_or_insert(when.at);
        Ok(when)
    }

    /// Compares with the checkpoints known from elsewhere that cover exactly the entries so far.
    fn reached(&mut self) -> Result<(), Stop> {
        let size = self.frontier.size();
        while let Some(known) = self.known.last().filter(|k| k.size == size) {
            if known.root != self.frontier.root() {
                let words = format!("the first {size} entries are not those that were seen elsewhere: a fork");
                return Err(Stop::Finding(FindingKind::Forked, size.checked_sub(1), words));
            }
            self.known.pop();
            self.report.known_found += 1;
        }
        Ok(())
    }

    /// Known checkpoints of more entries than there are.
    fn unreached(&self) -> Result<(), Stop> {
        let Some(largest) = self.known.first() else { return Ok(()) };
        let words = format!(
            "{} entries were seen elsewhere and only {} are here: the tail is missing",
            largest.size, self.report.size
        );
        Err(Stop::Finding(FindingKind::Truncated, Some(self.report.size), words))
    }

    fn checkpoint(&mut self, text: &str) -> Result<(), Stop> {
        let line: CheckpointLine = strict(text).map_err(|e| self.stop(FindingKind::Form, e))?;
        // Cosignatures of another party's ledger say nothing about this one, even where the two are equal.
        if !self.own.contains(&line.key.site_id()) {
            let words = format!("a checkpoint under it is of the ledger of {}, not of this one", line.key.site_id());
            return Err(self.stop(FindingKind::Signature, words));
        }
        let signed = SignedCheckpoint::parse(&line.checkpoint, &line.key)
            .map_err(|e| self.stop(FindingKind::Signature, e.to_string()))?;
        let checkpoint = *signed.checkpoint();
        let size = self.frontier.size();
        if checkpoint.size != size {
            return Err(self.stop(FindingKind::Order, "a checkpoint stands in another's place"));
        }
        if checkpoint.root != self.frontier.root() {
            let words = format!("a checkpoint of {size} entries was cosigned that is not of these: a fork");
            return Err(Stop::Finding(FindingKind::Forked, size.checked_sub(1), words));
        }
        if line.witnesses.len() > limits::NOTE_SIGNATURES || !signed.all_hold(&line.key, &line.witnesses) {
            return Err(self.stop(FindingKind::Signature, "a cosignature under a checkpoint does not hold"));
        }
        self.report.checkpoints += 1;
        for key in &line.witnesses {
            let Some(cosignature) = signed.cosigned_by(key) else {
                return Err(self.stop(FindingKind::Signature, "a witness is named that did not cosign"));
            };
            let (witness, at) = (cosignature.witness, cosignature.at());
            let member = self.expected.members.contains(key);
            self.cosigned.push((witness, at, size));
            let report = self.witnesses.entry(witness).or_insert(WitnessReport {
                witness,
                member,
                cosignatures: 0,
                last_size: 0,
                last_at: at,
            });
            report.cosignatures += 1;
            report.last_size = size;
            report.last_at = report.last_at.max(at);
        }
        Ok(())
    }

    fn end(&self, text: &str, number: u64, hash: &Sha256) -> Result<(), Stop> {
        let EndLine { end } = strict(text).map_err(|e| self.stop(FindingKind::Form, e))?;
        let Some((header, checkpoint, _)) = &self.head else {
            return Err(self.stop(FindingKind::Form, "there is no header"));
        };
        if self.frontier.size() < checkpoint.size {
            return Err(self.ended_early());
        }
        let stop = |words: &str| Err(Stop::Finding(FindingKind::File, None, words.into()));
        let sha256 = Digest::from_bytes(hash.clone().finalize().into());
        if end.lines != number - 1 || end.sha256 != sha256 {
            return stop("the file was changed after it was written");
        }
        if !header.key.verifies(&End::signed_digest(end.lines, &end.sha256), &end.signature) {
            return stop("the signature over the file does not hold");
        }
        Ok(())
    }

    fn report(mut self, finding: Option<Finding>) -> Report {
        self.witnesses.retain(|witness, _| !self.own.contains(witness));
        self.cosigned.retain(|(witness, ..)| self.witnesses.get(witness).is_some_and(|report| report.member));
        let covered = self.cosigned.iter().map(|(.., size)| *size).max().unwrap_or(0);
        let mut times: Vec<Timestamp> = self.cosigned.iter().map(|(_, at, _)| *at).collect();
        if let (Some(first), Some(made)) = (self.first_at, self.report.made) {
            self.report.longest_unwitnessed_ms = longest_unwitnessed_ms(first, &mut times, made);
        }
        self.report.unwitnessed_entries = self.report.size.saturating_sub(covered);
        self.report.witnesses = self.witnesses.into_values().collect();
        self.report.finding = finding;
        self.report
    }
}

/// Reads a line that must be exactly what would be written.
fn strict<T: DeserializeOwned + Serialize>(text: &str) -> Result<T, String> {
    let value: T = serde_json::from_str(text).map_err(|_| "the form is not the one that is written".to_owned())?;
    match serde_json::to_string(&value) {
        Ok(again) if again == text => Ok(value),
        _ => Err("the form is not the one that is written".into()),
    }
}

fn hashes(text: &str) -> Option<Vec<Digest>> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    let (hashes, []) = bytes.as_chunks::<32>() else { return None };
    Some(hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect())
}

/// The partial tiles of the header.
fn edge(header: &Header, size: u64) -> Result<Edge, &'static str> {
    let wrong = "the header's hashes do not fit its size";
    let parts = Edge::parts(size);
    let mut levels = header.edges.iter().enumerate();
    let mut tiles = Vec::new();
    for (id, _) in parts {
        let text = loop {
            match levels.next() {
                Some((level, text)) if level == id.level as usize => break text,
                Some((_, text)) if text.is_empty() => {}
                _ => return Err(wrong),
            }
        };
        tiles.push(Tile { id, hashes: hashes(text).ok_or(wrong)? });
    }
    if levels.next().is_some() {
        return Err(wrong);
    }
    Edge::new(size, &tiles).ok_or(wrong)
}
