//! What goes into the ledger, and how people read it.

mod export;
mod parts;
pub(crate) mod retention;
pub(crate) mod verify;

use hospes_ledger::{Action, Actor, Entry, Field, Filter, Ledger, LedgerError, ObjectKind, Outcome, Record};
use hospes_protocol::approval::Role;
use hospes_protocol::id::{Digest, FederationId, Timestamp};
use hospes_protocol::text::shown;

use self::parts::Names;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::keys::random;
use crate::people::{Acting, Session};
use crate::store::{At as _, Tx, parse, signed};
use crate::view::{AlarmView, AuditLine, AuditPage, AuditQuery, LedgerState, Notice, WitnessState};

/// Who may read the whole log and export it.
const READERS: &[Role] =
    &[Role::Auditor, Role::PrivacyOfficer, Role::Administrator, Role::DataSteward, Role::DataAccessApprover];

/// Within this time after one log-in, however much of the log a person reads is one entry: an hour, in milliseconds.
const VIEWING_MS: i64 = 3_600 * 1_000;

/// Text from outside as the ledger takes it: one line, no control characters, within its limit. Without this a hostile
/// reason could make every append fail, and so stop the site.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if hospes_protocol::text::is_plain(c) { c } else { ' ' })
        .take(hospes_ledger::limits::REASON_CHARS)
        .collect()
}

/// Adds a reason to an entry that is no refusal.
pub(crate) trait Because {
    fn because(self, reason: impl AsRef<str>) -> Self;
}

impl Because for Entry {
    fn because(mut self, reason: impl AsRef<str>) -> Self {
        self.reason = Some(clean(reason.as_ref()));
        self
    }
}

/// Which entries a query asks for.
fn filter(query: AuditQuery) -> Result<Filter, PartyError> {
    fn named<T: serde::de::DeserializeOwned>(what: &'static str, name: String) -> Result<T, PartyError> {
        let none = PartyError::input(what, format!("the log knows none called '{}'", shown(&name, 80)));
        serde_json::from_value(serde_json::Value::String(name)).map_err(|_| none)
    }
    Ok(Filter {
        actions: query.actions.into_iter().map(|name| named("action", name)).collect::<Result<_, _>>()?,
        outcome: query.outcome.map(|name| named("outcome", name)).transpose()?,
        actor: query.actor,
        study: query.study,
        job: query.job,
        approval: query.approval,
        object: query.dataset.map(|id| id.to_string()),
        object_kind: query.dataset.map(|_| ObjectKind::Dataset),
        from_ms: query.from.map(Timestamp::as_millis),
        until_ms: query.until.map(Timestamp::as_millis),
        before: query.before,
        ..Filter::default()
    })
}

impl Engine {
    /// An entry about a success of somebody, to be filled in.
    pub(crate) fn entry(&self, actor: Actor, action: Action) -> Entry {
        Entry::new(self.now(), actor, action, hospes_ledger::Engine::new(crate::SOFTWARE))
    }

    /// Appends an entry within the step that it records. If this fails, the step must not happen (invariant I3).
    pub(crate) async fn append(&self, tx: &mut Tx, entry: &Entry) -> Result<u64, PartyError> {
        let step = tx.step();
        let mut entry = entry.clone();
        entry.reason = entry.reason.as_deref().map(clean);
        let salt = random::<32>()?;
        let sequence = Ledger::on(tx.conn()).append(&entry, &salt).await.at(step)?;
        Ok(sequence)
    }

    /// Appends an entry as a step of its own.
    pub(crate) async fn record(&self, step: &'static str, entry: &Entry) -> Result<(), PartyError> {
        let mut tx = self.store.begin(step).await?;
        self.append(&mut tx, entry).await?;
        tx.commit().await?;
        self.notify(Notice::Audit);
        Ok(())
    }

    /// Raises an alarm within a step.
    pub(crate) async fn alarm(
        &self,
        tx: &mut Tx,
        federation: Option<FederationId>,
        words: &str,
    ) -> Result<(), PartyError> {
        // It may repeat what a coordinator said.
        let words = clean(words);
        let known: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM alarms WHERE words = ?1 AND seen_by IS NULL AND federation IS ?2")
                .bind(&words)
                .bind(federation.map(|f| f.to_string()))
                .fetch_one(tx.conn())
                .await
                .at("raise an alarm")?;
        if known > 0 {
            return Ok(());
        }
        sqlx::query("INSERT INTO alarms (at, federation, words) VALUES (?1, ?2, ?3)")
            .bind(self.now().as_millis())
            .bind(federation.map(|f| f.to_string()))
            .bind(&words)
            .execute(tx.conn())
            .await
            .at("raise an alarm")?;
        self.notify(Notice::Alarm);
        Ok(())
    }

    pub(crate) async fn open_alarms(&self) -> Result<Vec<AlarmView>, PartyError> {
        let rows: Vec<(i64, i64, Option<String>, String)> =
            sqlx::query_as("SELECT id, at, federation, words FROM alarms WHERE seen_by IS NULL ORDER BY id DESC")
                .fetch_all(self.store.readers())
                .await
                .at("read alarms")?;
        let view = |(id, at, federation, words): (i64, i64, Option<String>, String)| {
            let federation = federation.map(|f| parse(&f, "federation")).transpose()?;
            Ok(AlarmView { id, at: Timestamp::from_millis(at), federation, words })
        };
        rows.into_iter().map(view).collect()
    }

    pub(crate) async fn alarms(&mut self, session: Session) -> Result<Vec<AlarmView>, PartyError> {
        self.inside(&session, "see alarms", &[]).await?;
        self.open_alarms().await
    }

    pub(crate) async fn acknowledge(&mut self, session: Session, alarm: i64) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let finding = verify::finding(&mut conn).await?;
        drop(conn);
        // What lets data leave again is for those who can take the evidence out, and not for who asks for their use.
        let is_of_the_log = finding.is_some_and(|found| found.alarm == Some(alarm));
        let needs = if is_of_the_log { export::EXPORTERS } else { READERS };
        let acting = self.inside(&session, "acknowledge an alarm", needs).await?;
        let mut tx = self.store.begin("acknowledge an alarm").await?;
        let done = sqlx::query("UPDATE alarms SET seen_by = ?2 WHERE id = ?1 AND seen_by IS NULL")
            .bind(alarm)
            .bind(acting.person.to_string())
            .execute(tx.conn())
            .await
            .at("acknowledge an alarm")?;
        if done.rows_affected() == 0 {
            return Err(PartyError::NotFound(format!("open alarm {alarm}")));
        }
        let entry = self.entry(acting.actor(), Action::SettingsChanged).because(format!("alarm {alarm} acknowledged"));
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Alarm);
        Ok(())
    }

    pub(crate) async fn audit_page(&mut self, session: Session, query: AuditQuery) -> Result<AuditPage, PartyError> {
        let acting = self.inside(&session, "read the audit log", READERS).await?;
        let limit = if query.limit == 0 { 50 } else { query.limit };
        let filter = filter(query)?;
        self.viewed(&acting).await?;
        let mut conn = self.reader().await?;
        let page = Ledger::on(&mut *conn).page(&filter, limit).await.at("read the audit log")?;
        let mut names = Names::new(&mut conn);
        let mut entries = Vec::with_capacity(page.records.len());
        for record in &page.records {
            entries.push(self.line(&mut names, record).await?);
        }
        Ok(AuditPage { entries, total: page.size, next: page.next })
    }

    /// Enters that a person reads the log, before they are given any of it: once after each log-in, and once an hour. More
    /// often, it would fill the log, and tell the window that shows it of newer entries again and again.
    ///
    /// It counts as well where the session only looks on, as with every question of a window: by itself a window asks for
    /// no page of the log.
    async fn viewed(&self, acting: &Acting) -> Result<(), PartyError> {
        let known = Filter {
            actions: vec![Action::AuditViewed, Action::LoginSucceeded],
            actor: Some(acting.person.to_string()),
            ..Filter::default()
        };
        let mut conn = self.reader().await?;
        let page = Ledger::on(&mut *conn).page(&known, 1).await.at("read the audit log")?;
        drop(conn);
        let newest = page.records.first().filter(|record| record.action == Some(Action::AuditViewed));
        let at = newest.and_then(|record| record.when).map(|when| when.at);
        // Also where the clock was turned back meanwhile.
        if at.is_some_and(|at| self.now().since(at).abs() < VIEWING_MS) {
            return Ok(());
        }
        self.record("view the audit log", &self.entry(acting.actor(), Action::AuditViewed)).await
    }

    /// Who, for people.
    async fn actor_words(&self, names: &mut Names<'_>, actor: &Actor) -> Result<String, PartyError> {
        Ok(match actor {
            Actor::Engine => "engine".to_owned(),
            Actor::Person { id, role, .. } => {
                let id = id.to_string();
                let name = names.of(ObjectKind::Person, &id).await?.unwrap_or(id);
                role.as_ref().map_or(name.clone(), |r| format!("{name} ({})", r.replace('_', " ")))
            }
            Actor::Peer { node, .. } => match self.links.get(node) {
                Some(_) => format!("coordinator {node}"),
                None => format!("site {node}"),
            },
        })
    }

    async fn line(&self, names: &mut Names<'_>, record: &Record) -> Result<AuditLine, PartyError> {
        let erased = |field| record.erased_words(field).unwrap_or_default();
        let actor = match &record.actor {
            None => erased(Field::Actor),
            Some(actor) => self.actor_words(names, actor).await?,
        };
        let on_behalf = match &record.on_behalf {
            None => None,
            Some(actor) => Some(self.actor_words(names, actor).await?),
        };
        let objects = record.objects.iter().map(|o| format!("{} {}", o.kind, o.id)).collect::<Vec<_>>();
        let detail = match &record.reason {
            Some(reason) if objects.is_empty() => reason.clone(),
            Some(reason) => format!("{}: {reason}", objects.join(", ")),
            None if objects.is_empty() => erased(Field::Objects),
            None => objects.join(", "),
        };
        Ok(AuditLine {
            sequence: record.sequence,
            at: record.when.as_ref().map_or(Timestamp::from_millis(0), |w| w.at),
            actor,
            action: record.action.map_or_else(|| erased(Field::Action), |a| a.to_string()),
            outcome: record.outcome.map_or_else(|| erased(Field::Outcome), |o: Outcome| o.as_str().to_owned()),
            detail,
            bytes: record.egress.as_ref().map(|e| e.bytes),
            parts: names.parts(record, on_behalf).await?,
        })
    }

    pub(crate) async fn ledger_state(&self) -> Result<LedgerState, PartyError> {
        let mut conn = self.reader().await?;
        let finding = verify::finding(&mut conn).await?;
        drop(conn);
        match self.head().await {
            // What cannot be read is told of, and keeps nobody from reading the alarm.
            Err(PartyError::Ledger { source: source @ (LedgerError::Damaged(_) | LedgerError::Note(_)), .. }) => {
                // The alarm may be still to come: a site verifies its log a moment after its start.
                let finding = Some(finding.unwrap_or_else(|| verify::seen(&source, self.now())));
                Ok(LedgerState { entries: 0, root: Digest::of(b""), witnessed: Vec::new(), finding })
            }
            head => head.map(|(entries, root, witnessed)| LedgerState { entries, root, witnessed, finding }),
        }
    }

    /// Entries of the ledger, its root, and how it is witnessed.
    async fn head(&self) -> Result<(u64, Digest, Vec<WitnessState>), PartyError> {
        let mut conn = self.reader().await?;
        let mut ledger = Ledger::on(&mut *conn);
        let entries = ledger.size().await.at("read the ledger's state")?;
        let root = match entries {
            0 => Digest::of(b""),
            n => ledger.root(n).await.at("read the ledger's state")?,
        };
        drop(conn);
        Ok((entries, root, self.witness_states().await?))
    }

    /// Counts a control message, for the hourly summary.
    pub(crate) fn count_control(&mut self, federation: FederationId, outgoing: bool, kind: &'static str) {
        *self.controls.entry((federation, outgoing, kind)).or_default() += 1;
    }

    /// Writes the hourly summary of control messages.
    pub(crate) async fn summarise_controls(&mut self) -> Result<(), PartyError> {
        if self.controls.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.begin("summarise control messages").await?;
        let mut federations: Vec<FederationId> = self.controls.keys().map(|(f, _, _)| *f).collect();
        federations.sort_unstable();
        federations.dedup();
        for federation in federations {
            let mut words = Vec::new();
            for ((_, outgoing, kind), count) in self.controls.iter().filter(|((f, _, _), _)| *f == federation) {
                words.push(format!("{} {kind} {count}", if *outgoing { "out" } else { "in" }));
                sqlx::query(
                    "INSERT INTO control_counts (federation, direction, kind, count) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (federation, direction, kind) DO UPDATE SET count = count + ?4",
                )
                .bind(federation.to_string())
                .bind(if *outgoing { "out" } else { "in" })
                .bind(*kind)
                .bind(signed(*count))
                .execute(tx.conn())
                .await
                .at("summarise control messages")?;
            }
            words.sort_unstable();
            let entry = self
                .entry(Actor::Engine, Action::ControlSummary)
                .object(ObjectKind::Federation, federation, None)
                .because(words.join(", "));
            self.append(&mut tx, &entry).await?;
        }
        tx.commit().await?;
        self.controls.clear();
        Ok(())
    }
}
