//! Verification of this site's own log, from its first entry to its last: when a person asks for it, soon after the
//! start, and once a day. What it finds is an alarm, and until somebody acknowledged that alarm nothing derived leaves.

use std::io::{self, BufReader, BufWriter, ErrorKind, PipeWriter, Write};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hospes_ledger::verify::FindingKind;
use hospes_ledger::{Action, Actor, Expectations, Ledger, LedgerError, Report};
use hospes_protocol::id::Timestamp;
use hospes_protocol::sign::SecretKey;
use hospes_protocol::text::shown;
use serde::{Deserialize, Serialize};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::task::JoinHandle;

use super::clean;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::memberships::{self, Membership};
use crate::people::Session;
use crate::store::{At as _, from_json, set_setting, setting, to_json};
use crate::view::{LOG_IS_INTACT, LedgerFinding, Notice};

/// How long after its start the engine verifies its log, in milliseconds: windows and links come first.
const FIRST_MS: i64 = 10 * 1_000;
/// Between two verifications, in milliseconds: a day.
const EVERY_MS: i64 = 24 * 3_600 * 1_000;
/// After one that could not be carried out, in milliseconds: an hour.
const AGAIN_MS: i64 = 3_600 * 1_000;
/// In the background a verification rests so many times as long as it works: a million entries take half a minute.
const REST: u32 = 3;
/// Longest rest at once.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// Bytes between the thread that reads the database and the one that checks, before either waits.
const CHUNK: usize = 1 << 16;
/// Name of the setting that keeps what was found last.
const FINDING: &str = "ledger_finding";
const STEP: &str = "verify the audit log";
/// Characters of what was found, so that an alarm has room for what to do.
const WORDS: usize = 300;
/// What the coordinator hears while nothing leaves; what was found is for the people here.
pub(crate) const HELD: &str = "this site looks into its own audit log";

/// The verification that the engine carries out by itself.
pub(crate) struct Watch {
    running: Option<JoinHandle<Result<Verified, PartyError>>>,
    stop: Arc<AtomicBool>,
    /// Held by every verification, whoever asked for it.
    reading: Arc<()>,
    last: Timestamp,
    wait_ms: i64,
}

impl Watch {
    /// Of an engine that starts now.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { running: None, stop: Arc::default(), reading: Arc::default(), last: now, wait_ms: FIRST_MS }
    }

    /// Also where the clock was turned back.
    fn is_due(&self, now: Timestamp) -> bool {
        self.running.is_none() && now.since(self.last).abs() >= self.wait_ms
    }

    /// Whether a verification reads the database. It sees it as it was at its beginning, and holds on to that.
    pub(crate) fn is_reading(&self) -> bool {
        Arc::strong_count(&self.reading) > 1
    }

    /// Ends what is under way.
    pub(crate) async fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take() {
            // What it found is found again after the next start.
            let _ = running.await;
        }
    }
}

/// What was found last, as it is kept, with the number of its alarm: the words of an alarm may change with the program.
#[derive(Serialize, Deserialize)]
struct Kept {
    found: Found,
    alarm: i64,
}

/// What is wrong with the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    at: Timestamp,
    /// What stays the same while the log grows: one finding is one alarm.
    key: String,
    /// First bad entry, where it can be told.
    entry: Option<u64>,
    words: String,
    /// Whether nothing is proven wrong, and nothing says that all is well.
    is_doubt: bool,
}

impl Found {
    /// What a verification found.
    fn of(report: &Report, now: Timestamp) -> Option<Self> {
        let Some(finding) = &report.finding else {
            let words = report.doubt(now)?;
            return Some(Self { is_doubt: true, ..Self::damage(&words, now) });
        };
        // Where the tail is missing, the first missing entry is another one whenever something is appended.
        let entry = finding.entry.filter(|_| finding.kind != FindingKind::Truncated);
        let words = shown(&finding.words, WORDS);
        let words = match entry {
            Some(entry) => format!("entry {entry} is the first that is wrong ({words})"),
            None => words,
        };
        Some(Self { at: now, key: to_json(&(finding.kind, entry)), entry, words, is_doubt: false })
    }

    /// What kept the log from being read; numbers in the words may grow with it.
    fn damage(words: &str, now: Timestamp) -> Self {
        let key = words.chars().filter(|c| !c.is_ascii_digit()).collect();
        Self { at: now, key, entry: None, words: shown(words, WORDS), is_doubt: false }
    }

    /// The first sentence about the log.
    fn sentence(&self) -> String {
        match self.is_doubt {
            true => format!("Whether the log is intact cannot be told: {}.", self.words),
            false => format!("The log is NOT intact: {}.", self.words),
        }
    }

    /// The alarm.
    fn alarm(&self) -> String {
        clean(&format!(
            "This site verified its audit log. {} Somebody changed the database, or the disk is damaged. Until somebody \
             has acknowledged this, nothing that was computed from patients' data leaves this site. Leave this machine as \
             it is and restore nothing. Tell the auditor and the privacy officer, and export the log with proofs (Audit, \
             Export): that file is the evidence",
            self.sentence()
        ))
    }
}

/// What keeps the log from being read if it is the log itself; any other error is given back.
fn damage_of(error: PartyError, now: Timestamp) -> Result<Found, PartyError> {
    match error {
        PartyError::Ledger { source: source @ (LedgerError::Damaged(_) | LedgerError::Note(_)), .. } => {
            Ok(Found::damage(&unreadable(&source), now))
        }
        other => Err(other),
    }
}

fn unreadable(error: &LedgerError) -> String {
    match error {
        LedgerError::Damaged(words) => words.clone(),
        LedgerError::Note(note) => {
            format!("a checkpoint or a cosignature that was kept beside it does not hold: {note}")
        }
        other => other.to_string(),
    }
}

/// What is wrong with a log that cannot be read, for whoever looks before a verification has found it.
pub(crate) fn seen(error: &LedgerError, now: Timestamp) -> LedgerFinding {
    let Found { at, entry, words, .. } = Found::damage(&unreadable(error), now);
    LedgerFinding { at, entry, words, alarm: None }
}

/// What was found last, and the number of its alarm while nobody has acknowledged it.
async fn last_found(conn: &mut SqliteConnection) -> Result<Option<(Found, Option<i64>)>, PartyError> {
    let Some(text) = setting(conn, FINDING).await? else { return Ok(None) };
    let Kept { found, alarm } = from_json(&text, FINDING)?;
    let sql = "SELECT id FROM alarms WHERE id = ?1 AND seen_by IS NULL";
    let open: Option<i64> = sqlx::query_scalar(sql).bind(alarm).fetch_optional(conn).await.at("read alarms")?;
    Ok(Some((found, open)))
}

/// Whether nothing derived may leave, because nobody has looked into what was found in the log.
pub(crate) async fn holds(conn: &mut SqliteConnection) -> Result<bool, PartyError> {
    Ok(last_found(conn).await?.is_some_and(|(_, alarm)| alarm.is_some()))
}

/// What is known to be wrong with the log.
pub(crate) async fn finding(conn: &mut SqliteConnection) -> Result<Option<LedgerFinding>, PartyError> {
    let found = last_found(conn).await?;
    Ok(found.map(|(Found { at, entry, words, .. }, alarm)| LedgerFinding { at, entry, words, alarm }))
}

/// The log as one federation sees it.
struct Log {
    /// In words, to follow on others.
    place: String,
    key: SecretKey,
    expected: Expectations,
}

/// A verification of the whole log, to be carried out outside the loop that owns the state.
pub(crate) struct Verification {
    database: Arc<SqliteConnectOptions>,
    now: Timestamp,
    logs: Vec<Log>,
    /// Why it cannot even be begun.
    damaged: Option<Found>,
    witnessed: Vec<String>,
    rest: u32,
    stop: Arc<AtomicBool>,
    _reading: Arc<()>,
}

/// What a verification came to.
pub(crate) struct Verified {
    found: Option<Found>,
    /// Sentences that follow on the first.
    more: Vec<String>,
}

impl Verified {
    /// The sentences for people. `last`: what is known to be wrong now, or why that could not be kept.
    fn sentences(self, last: Result<Option<Found>, PartyError>) -> Vec<String> {
        let mut sentences = match (&self.found, &last) {
            (Some(found), _) => vec![found.sentence()],
            (None, Ok(Some(before))) => vec![format!(
                "This verification found every entry where it was, and an earlier one did not: {}. Nobody has \
                 acknowledged that alarm.",
                before.words
            )],
            (None, _) => vec![LOG_IS_INTACT.to_owned()],
        };
        if let Err(error) = last {
            sentences.push(format!("What was found could not be kept as an alarm: {error}."));
        }
        sentences.extend(self.more);
        sentences
    }
}

impl Verification {
    /// Verifies; it blocks its thread, which must belong to a runtime.
    pub(crate) fn run(mut self) -> Result<Verified, PartyError> {
        let mut found = self.damaged.take();
        // The entries are the same for each federation, and so is what was erased from them.
        let mut erased = None;
        let mut more = Vec::new();
        for log in &self.logs {
            match self.verify(log) {
                Ok(report) => {
                    let witnesses = report.independent_witnesses();
                    more.push(format!("{witnesses} independent witnesses cosigned it{}.", log.place));
                    erased = erased.or_else(|| report.erased_words().map(|words| format!("{words}.")));
                    // What is wrong comes before what is in doubt.
                    let other = Found::of(&report, self.now);
                    if found.as_ref().is_none_or(|f| f.is_doubt && other.as_ref().is_some_and(|o| !o.is_doubt)) {
                        found = other.or(found);
                    }
                }
                Err(error) => {
                    found = Some(damage_of(error, self.now)?);
                    break;
                }
            }
        }
        Ok(Verified { found, more: erased.into_iter().chain(more).chain(self.witnessed).collect() })
    }

    /// Verifies the log as one federation sees it: one thread reads it from the database, another checks what it read.
    /// Nothing of it lies on the disk or in memory as a whole.
    fn verify(&self, log: &Log) -> Result<Report, PartyError> {
        let runtime = tokio::runtime::Handle::current();
        let (from, to) = io::pipe().map_err(LedgerError::Write).at(STEP)?;
        let both: io::Result<_> = thread::scope(|scope| {
            let check = move || hospes_ledger::verify(&mut BufReader::with_capacity(CHUNK, from), &log.expected);
            let checking = thread::Builder::new().name("verify-log".into()).spawn_scoped(scope, check)?;
            let read = runtime.block_on(self.read(&log.key, to));
            match checking.join() {
                Ok(checked) => Ok((checked?, read)),
                Err(panic) => resume_unwind(panic),
            }
        });
        let (checked, read) = both.map_err(LedgerError::Write).at(STEP)?;
        if self.stop.load(Ordering::Relaxed) {
            return Err(PartyError::Stopped);
        }
        let is_certain =
            checked.finding.as_ref().is_some_and(|f| f.entry.is_some() && f.kind != FindingKind::Truncated);
        match read {
            Ok(()) => Ok(checked),
            // Whoever checks stops at the first bad entry, and whoever reads then has nobody to write to.
            Err(LedgerError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(checked),
            Err(LedgerError::Damaged(_) | LedgerError::Note(_)) if is_certain => Ok(checked),
            Err(error) => Err(error).at(STEP),
        }
    }

    /// Writes the log as it is at this moment, on a connection of its own: the others are for the engine.
    async fn read(&self, key: &SecretKey, to: PipeWriter) -> Result<(), LedgerError> {
        let failed = |source| LedgerError::Database { verb: "be read", source };
        let mut conn = SqliteConnection::connect_with(&self.database).await.map_err(failed)?;
        let paced = Paced { out: to, rest: self.rest, stop: &self.stop, since: Instant::now() };
        let done = match sqlx::raw_sql("BEGIN").execute(&mut conn).await {
            Ok(_) => {
                let mut out = BufWriter::with_capacity(CHUNK, paced);
                Ledger::on(&mut conn).export(key, self.now, &mut out).await.map(drop)
            }
            Err(error) => Err(failed(error)),
        };
        // It ends the transaction, too. One that cannot be closed has read all the same.
        let _ = conn.close().await;
        done
    }
}

/// A pipe into which nobody writes all the time, and nothing once the engine ends.
struct Paced<'s> {
    out: PipeWriter,
    rest: u32,
    stop: &'s AtomicBool,
    since: Instant,
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the engine ends"));
        }
        if self.rest > 0 {
            thread::sleep(self.since.elapsed().saturating_mul(self.rest).min(LONGEST_REST));
            self.since = Instant::now();
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Engine {
    /// A verification of the whole log for a person.
    pub(crate) async fn verification(&mut self, session: Session) -> Result<Verification, PartyError> {
        self.acting(&session, STEP, &[]).await?;
        self.prepare_verification(0).await
    }

    async fn prepare_verification(&self, rest: u32) -> Result<Verification, PartyError> {
        let now = self.now();
        let mut verification = Verification {
            database: self.store.read_only(),
            now,
            logs: Vec::new(),
            damaged: None,
            witnessed: Vec::new(),
            rest,
            stop: self.watch.stop.clone(),
            _reading: self.watch.reading.clone(),
        };
        match self.logs().await {
            Ok((logs, witnessed)) => (verification.logs, verification.witnessed) = (logs, witnessed),
            Err(error) => verification.damaged = Some(damage_of(error, now)?),
        }
        Ok(verification)
    }

    /// The same entries, once for each federation: with this site's key there, and the witnesses there. And how they are
    /// witnessed, in words.
    async fn logs(&self) -> Result<(Vec<Log>, Vec<String>), PartyError> {
        let mut conn = self.reader().await?;
        let memberships = memberships::all(&mut conn).await?;
        drop(conn);
        let mut witnessed = Vec::new();
        for state in self.witness_states().await? {
            let whose = if state.origin == state.federation { "The coordinator's log" } else { "This site's log" };
            witnessed.push(format!("{whose} at {} entries: {}.", state.size, state.words));
        }
        let mut logs = Vec::new();
        for membership in &memberships {
            logs.push(self.log_of(membership).await?);
        }
        if logs.is_empty() {
            let (key, expected) = (self.export_key().await?, Expectations::default());
            logs.push(Log { place: String::new(), key, expected });
        }
        Ok((logs, witnessed))
    }

    async fn log_of(&self, membership: &Membership) -> Result<Log, PartyError> {
        let expected = self.expected_of(membership).await?;
        let place = format!(" in '{}'", shown(&membership.name, 100));
        Ok(Log { place, key: self.identity(membership).await?, expected })
    }

    /// Takes in what a verification for a person came to, and says it.
    pub(crate) async fn verified(&mut self, verified: Verified) -> Result<Vec<String>, PartyError> {
        let last = Box::pin(self.keep_finding(&verified)).await;
        Ok(verified.sentences(last))
    }

    /// Takes in what the verification in the background came to, and begins the next one when it is due.
    pub(crate) async fn tick_watch(&mut self) {
        if let Some(done) = self.watch.running.take_if(|running| running.is_finished()) {
            let kept = match done.await {
                Ok(Ok(verified)) => Box::pin(self.keep_finding(&verified)).await.map(drop),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(PartyError::Stopped),
            };
            self.note_watch(kept);
        }
        let now = self.now();
        if !self.seam.runs_in_background() || !self.watch.is_due(now) {
            return;
        }
        (self.watch.last, self.watch.wait_ms) = (now, EVERY_MS);
        let begun = self.prepare_verification(REST).await.map(|verification| {
            self.watch.running = Some(tokio::task::spawn_blocking(move || verification.run()));
        });
        self.note_watch(begun);
    }

    /// A verification that fails is tried again sooner.
    fn note_watch(&mut self, done: Result<(), PartyError>) {
        if let Err(error) = done {
            tracing::warn!(error = &error as &dyn std::error::Error, "the audit log was not verified");
            self.watch.wait_ms = AGAIN_MS;
        }
    }

    /// Keeps what a verification found, or that nothing is wrong any more; gives back what is known to be wrong.
    async fn keep_finding(&mut self, verified: &Verified) -> Result<Option<Found>, PartyError> {
        let mut conn = self.reader().await?;
        let last = last_found(&mut conn).await?;
        drop(conn);
        match (&verified.found, last) {
            (Some(found), Some((last, _))) if last.key == found.key => Ok(Some(last)),
            (Some(found), _) => {
                Box::pin(self.raise(found)).await?;
                Ok(Some(found.clone()))
            }
            // It stands until somebody has looked into it.
            (None, Some((last, Some(_)))) => Ok(Some(last)),
            (None, Some((_, None))) => {
                let mut tx = self.store.begin("forget what was found in the log").await?;
                set_setting(tx.conn(), FINDING, None).await?;
                tx.commit().await?;
                self.notify(Notice::Audit);
                Ok(None)
            }
            (None, None) => Ok(None),
        }
    }

    /// Raises the alarm about the log, and stops what is leaving.
    async fn raise(&mut self, found: &Found) -> Result<(), PartyError> {
        tracing::error!(found = found.words, "the audit log is not intact");
        // First of all, and also where nothing can be recorded: the next byte is asked for anew.
        if let Err(error) = self.recall_all().await {
            // A database that is damaged may be why; the alarm comes all the same.
            tracing::error!(error = &error as &dyn std::error::Error, "what is on the wire was not stopped");
        }
        match self.write_finding(found, true).await {
            // It is damaged where it grows; the alarm must be there all the same.
            Err(PartyError::Ledger { .. }) => self.write_finding(found, false).await?,
            written => written?,
        }
        self.notify(Notice::Audit);
        if let Err(error) = self.recheck_work().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "work was not stopped; what it makes is not sent"
            );
        }
        Ok(())
    }

    async fn write_finding(&self, found: &Found, is_entered: bool) -> Result<(), PartyError> {
        const STEP: &str = "raise the alarm about the log";
        let mut tx = self.store.begin(STEP).await?;
        let words = found.alarm();
        self.alarm(&mut tx, None, &words).await?;
        let sql = "SELECT MAX(id) FROM alarms WHERE words = ?1 AND federation IS NULL AND seen_by IS NULL";
        let alarm: i64 = sqlx::query_scalar(sql).bind(&words).fetch_one(tx.conn()).await.at(STEP)?;
        let kept = Kept { found: found.clone(), alarm };
        set_setting(tx.conn(), FINDING, Some(&to_json(&kept))).await?;
        if is_entered {
            let entry = self.entry(Actor::Engine, Action::WitnessFailed).failed(&words);
            self.append(&mut tx, &entry).await?;
        }
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_ledger::Finding;

    const NOW: Timestamp = Timestamp::from_millis(1);

    fn found(kind: FindingKind, entry: u64, words: &str) -> Found {
        let finding = Finding { line: entry + 2, entry: Some(entry), kind, words: words.into() };
        Found::of(&Report { finding: Some(finding), ..Report::default() }, NOW).unwrap()
    }

    #[test]
    fn a_finding_stays_one_while_the_log_grows_and_another_entry_is_another() {
        let cut =
            |size: u64| found(FindingKind::Truncated, size, &format!("90 entries were seen and only {size} are here"));
        assert_eq!(cut(40).key, cut(41).key);
        assert_eq!(cut(40).entry, None);
        let damage = |size| Found::damage(&format!("it has {size} entries, and 90 were signed"), NOW);
        assert_eq!(damage(40).key, damage(41).key);
        let altered = |entry| found(FindingKind::Altered, entry, "the entry is not the one that the checkpoint covers");
        assert_ne!(altered(3).key, altered(4).key);
        assert_ne!(altered(3).key, found(FindingKind::Form, 3, "it cannot be read").key);
        assert!(altered(3).alarm().contains("entry 3"), "{}", altered(3).alarm());
    }

    #[test]
    fn an_alarm_fits_into_an_entry_and_says_what_to_do() {
        let long = found(FindingKind::Altered, 3, &"x".repeat(10_000));
        assert!(long.alarm().ends_with("that file is the evidence"), "{}", long.alarm());
    }
}
