//! A round in the database: its row, and the pure state machine of `hospes-protocol` that says what follows from what.

use std::collections::BTreeMap;

use hospes_protocol::approval::Refusal;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, Digest, FederationId, JobId, RoundKey, StudyId, Timestamp};
use hospes_protocol::memo;
use hospes_protocol::message::FromSite;
use hospes_protocol::round::RoundHeader;
use hospes_protocol::round::coordinator::Step;
use hospes_protocol::round::site::{Action, Event, Round, State};
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::engine::Engine;
use crate::error::PartyError;
use crate::store::{At as _, Tx, bad_column, from_json, parse, signed, to_json, unsigned};
use crate::view::{Notice, PAGE_ITEMS, Page, RoundState};

/// A state as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Kept {
    Offered,
    Working,
    Advertised,
    Shared,
    Committed(Digest),
    Acknowledged(Digest),
    Agreed(Digest),
    Revealed(Digest),
    Published { model: Option<Digest>, included: bool },
    Abandoned(String),
    Refused(Refusal),
    Failed(String),
    Withdrawn(Refusal),
}

impl Kept {
    fn of(state: &State) -> Self {
        match state.clone() {
            State::Offered => Self::Offered,
            State::Working => Self::Working,
            State::Advertised => Self::Advertised,
            State::Shared => Self::Shared,
            State::Committed(digest) => Self::Committed(digest),
            State::Acknowledged(digest) => Self::Acknowledged(digest),
            State::Agreed(digest) => Self::Agreed(digest),
            State::Revealed(digest) => Self::Revealed(digest),
            State::Published { model, included } => Self::Published { model, included },
            State::Abandoned(reason) => Self::Abandoned(reason),
            State::Refused(refusal) => Self::Refused(refusal),
            State::Failed(reason) => Self::Failed(reason),
            State::Withdrawn(refusal) => Self::Withdrawn(refusal),
        }
    }

    fn state(self) -> State {
        match self {
            Self::Offered => State::Offered,
            Self::Working => State::Working,
            Self::Advertised => State::Advertised,
            Self::Shared => State::Shared,
            Self::Committed(digest) => State::Committed(digest),
            Self::Acknowledged(digest) => State::Acknowledged(digest),
            Self::Agreed(digest) => State::Agreed(digest),
            Self::Revealed(digest) => State::Revealed(digest),
            Self::Published { model, included } => State::Published { model, included },
            Self::Abandoned(reason) => State::Abandoned(reason),
            Self::Refused(refusal) => State::Refused(refusal),
            Self::Failed(reason) => State::Failed(reason),
            Self::Withdrawn(refusal) => State::Withdrawn(refusal),
        }
    }
}

/// A state, for people.
pub(super) fn round_state(state: &State) -> RoundState {
    match state {
        State::Offered => RoundState::Offered,
        State::Working | State::Advertised | State::Shared => RoundState::Working,
        State::Committed(_) => RoundState::Committed,
        State::Acknowledged(_) | State::Agreed(_) | State::Revealed(_) => RoundState::Acknowledged,
        State::Published { .. } => RoundState::Published,
        State::Abandoned(_) => RoundState::Abandoned,
        State::Refused(_) => RoundState::Refused,
        State::Failed(_) => RoundState::Failed,
        State::Withdrawn(_) => RoundState::Withdrawn,
    }
}

/// For each task of a job that had a round: the state of the last, how many there were, and when the last was opened.
pub(super) async fn of_tasks(
    conn: &mut SqliteConnection,
    job: JobId,
) -> Result<BTreeMap<String, (State, u32, Timestamp)>, PartyError> {
    // Beside a single MAX, SQLite takes the other columns from the row that holds it.
    let sql = "SELECT task, state, COUNT(*), MAX(at) FROM rounds WHERE job = ?1 GROUP BY task";
    let rows: Vec<(String, String, i64, i64)> =
        sqlx::query_as(sql).bind(job.to_string()).fetch_all(conn).await.at("read a job's tasks")?;
    let task = |(task, state, count, at): (String, String, i64, i64)| {
        let state = from_json::<Kept>(&state, "state")?.state();
        Ok((task, (state, u32::try_from(count).unwrap_or(u32::MAX), Timestamp::from_millis(at))))
    };
    rows.into_iter().map(task).collect()
}

/// Why a round ended as it did.
pub(super) fn state_reason(state: &State) -> Option<String> {
    match state {
        State::Abandoned(reason) | State::Failed(reason) => Some(reason.clone()),
        State::Refused(refusal) | State::Withdrawn(refusal) => Some(refusal.detail.clone()),
        _ => None,
    }
}

/// A round as the database has it.
#[derive(Clone)]
pub(super) struct RoundRow {
    pub(super) key: RoundKey,
    pub(super) federation: FederationId,
    pub(super) study: StudyId,
    pub(super) header: Canonical<RoundHeader>,
    pub(super) approval: Option<ApprovalId>,
    pub(super) deadline: Timestamp,
    pub(super) state: State,
    /// Sealed with the data key.
    pub(super) view: Option<Vec<u8>>,
    pub(super) at: Timestamp,
}

const SELECT: &str = "SELECT rounds.*, jobs.study AS study, studies.federation AS federation FROM rounds
     JOIN jobs ON jobs.job = rounds.job JOIN studies ON studies.study = jobs.study ";

impl RoundRow {
    pub(super) fn new(
        federation: FederationId,
        header: Canonical<RoundHeader>,
        approval: Option<ApprovalId>,
        deadline: Timestamp,
        at: Timestamp,
    ) -> Self {
        let (key, study) = (header.key(), header.study);
        Self { key, federation, study, header, approval, deadline, state: State::Offered, view: None, at }
    }

    fn from_row(row: &SqliteRow) -> Result<Self, PartyError> {
        let text = |column: &'static str| row.try_get::<String, _>(column).at("read a round");
        let number = |column: &'static str| row.try_get::<i64, _>(column).at("read a round");
        let optional = |column: &'static str| row.try_get::<Option<String>, _>(column).at("read a round");
        let header: Vec<u8> = row.try_get("header").at("read a round")?;
        let header: Canonical<RoundHeader> = memo::parsed(&header, Canonical::parse)?;
        Ok(Self {
            key: header.key(),
            federation: parse(&text("federation")?, "federation")?,
            study: parse(&text("study")?, "study")?,
            approval: optional("approval")?.map(|a| parse(&a, "approval")).transpose()?,
            deadline: Timestamp::from_millis(number("deadline")?),
            state: from_json::<Kept>(&text("state")?, "state")?.state(),
            view: row.try_get("view").at("read a round")?,
            at: Timestamp::from_millis(number("at")?),
            header,
        })
    }

    pub(super) async fn find(conn: &mut SqliteConnection, key: &RoundKey) -> Result<Option<Self>, PartyError> {
        let sql =
            format!("{SELECT} WHERE rounds.job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5");
        let row = bind_key(sqlx::query(sqlx::AssertSqlSafe(sql)), key).fetch_optional(conn).await;
        row.at("read a round")?.as_ref().map(Self::from_row).transpose()
    }

    pub(super) async fn read(conn: &mut SqliteConnection, key: &RoundKey) -> Result<Self, PartyError> {
        Self::find(conn, key).await?.ok_or_else(|| PartyError::NotFound(format!("round {key}")))
    }

    pub(super) async fn open(conn: &mut SqliteConnection) -> Result<Vec<Self>, PartyError> {
        let sql = format!("{SELECT} WHERE ended = 0 ORDER BY rounds.at");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await.at("read open rounds")?;
        rows.iter().map(Self::from_row).collect()
    }

    pub(super) async fn of_job(conn: &mut SqliteConnection, job: &str) -> Result<Vec<Self>, PartyError> {
        let sql = format!("{SELECT} WHERE rounds.job = ?1 ORDER BY rounds.at, round, attempt");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(job).fetch_all(conn).await.at("read rounds")?;
        rows.iter().map(Self::from_row).collect()
    }

    /// A page of a job's rounds, in order, and how many there are; the first page holds the newest.
    pub(super) async fn page(
        conn: &mut SqliteConnection,
        job: JobId,
        page: Page,
    ) -> Result<(Vec<Self>, u32), PartyError> {
        let sql = format!(
            "{SELECT} WHERE rounds.job = ?1 ORDER BY rounds.at DESC, round DESC, attempt DESC LIMIT ?2 OFFSET ?3"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(job.to_string()).bind(i64::from(PAGE_ITEMS));
        let rows = query.bind(i64::from(page.skip)).fetch_all(&mut *conn).await.at("read rounds")?;
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM rounds WHERE job = ?1").bind(job.to_string());
        let count: i64 = count.fetch_one(conn).await.at("read rounds")?;
        let rows = rows.iter().rev().map(Self::from_row).collect::<Result<_, _>>()?;
        Ok((rows, u32::try_from(count).unwrap_or(u32::MAX)))
    }

    /// Whether something of this site was counted in it.
    pub(super) fn took_part(&self) -> bool {
        matches!(self.state, State::Acknowledged(_) | State::Agreed(_) | State::Revealed(_) | State::Published { .. })
    }

    /// Enters the round. Its key is unique: a second permit for it is impossible (invariant I2).
    pub(super) async fn insert(&self, tx: &mut Tx) -> Result<(), PartyError> {
        let sql = "INSERT INTO rounds (job, task, epoch, round, attempt, header, approval, deadline, state, ended, at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        bind_key(sqlx::query(sql), &self.key)
            .bind(self.header.bytes().to_vec())
            .bind(self.approval.map(|a| a.to_string()))
            .bind(self.deadline.as_millis())
            .bind(to_json(&Kept::of(&self.state)))
            .bind(self.state.is_terminal())
            .bind(self.at.as_millis())
            .execute(tx.conn())
            .await
            .at("enter a round")?;
        Ok(())
    }

    /// Whether time alone changes its state.
    pub(super) fn changes_with_time(&self, now: Timestamp) -> bool {
        let secure = self.header.is_secure();
        apply(&self.state, secure, self.deadline, Event::Tick, now).is_ok_and(|(state, _)| state != self.state)
    }

    /// Applies an event within a step: the new state is kept, what follows is returned to be done after the commit.
    pub(super) async fn step(&mut self, tx: &mut Tx, event: Event, now: Timestamp) -> Result<Vec<Action>, PartyError> {
        let (state, actions) = apply(&self.state, self.header.is_secure(), self.deadline, event, now)?;
        if state != self.state {
            let step = tx.step();
            let sql = "UPDATE rounds SET state = ?6, ended = ?7
                       WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5";
            bind_key(sqlx::query(sql), &self.key)
                .bind(to_json(&Kept::of(&state)))
                .bind(state.is_terminal())
                .execute(tx.conn())
                .await
                .at(step)?;
            self.state = state;
        }
        Ok(actions)
    }

    /// Keeps what the site's own people see of the result or the failure, sealed.
    pub(super) async fn show(&self, tx: &mut Tx, view: Vec<u8>) -> Result<(), PartyError> {
        let step = tx.step();
        let sql = "UPDATE rounds SET view = ?6
                   WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5";
        bind_key(sqlx::query(sql), &self.key).bind(view).execute(tx.conn()).await.at(step)?;
        Ok(())
    }
}

/// Binds the five columns of a round's key.
pub(super) fn bind_key<'q>(
    query: sqlx::query::Query<'q, sqlx::Sqlite, <sqlx::Sqlite as sqlx::Database>::Arguments>,
    key: &RoundKey,
) -> sqlx::query::Query<'q, sqlx::Sqlite, <sqlx::Sqlite as sqlx::Database>::Arguments> {
    query
        .bind(key.job.to_string())
        .bind(key.task.clone())
        .bind(signed(key.epoch))
        .bind(i64::from(key.round))
        .bind(i64::from(key.attempt))
}

/// Reads the five columns of a round's key.
pub(super) fn read_key(row: &SqliteRow) -> Result<RoundKey, PartyError> {
    let number = |column: &'static str| row.try_get::<i64, _>(column).at("read a round's key");
    let small = |column: &'static str| u32::try_from(number(column)?).map_err(|_| bad_column(column));
    let job: String = row.try_get("job").at("read a round's key")?;
    Ok(RoundKey {
        job: parse(&job, "job")?,
        task: row.try_get("task").at("read a round's key")?,
        epoch: unsigned(number("epoch")?),
        round: small("round")?,
        attempt: small("attempt")?,
    })
}

/// The state machine in a given state. Its constructor for restarts gives up what was working, which is right only at a
/// restart; here the way to the state is gone again.
fn machine(state: &State, secure: bool, deadline: Timestamp) -> Round {
    let input = match state {
        State::Committed(digest) | State::Acknowledged(digest) | State::Agreed(digest) | State::Revealed(digest) => {
            *digest
        }
        // Of the other steps a state does not know what was said; nothing of it shows.
        _ => Digest::from_bytes([0; 32]),
    };
    let made = |step| Event::Made { step, digest: input };
    let mut way = vec![Event::Permitted { deadline }];
    if secure {
        way.extend([made(Step::Keys), made(Step::Shares)]);
    }
    way.extend([made(Step::Input), Event::Confirmed { step: Step::Input, digest: input }]);
    if secure {
        way.extend([made(Step::Consent), made(Step::Reveal)]);
    }
    let mut round = Round::offered(secure, deadline);
    for event in way {
        if round.state() == state {
            return round;
        }
        round.on(event, Timestamp::from_millis(i64::MIN));
    }
    if round.state() == state { round } else { Round::restore(secure, deadline, state.clone()).0 }
}

fn apply(
    state: &State,
    secure: bool,
    deadline: Timestamp,
    event: Event,
    now: Timestamp,
) -> Result<(State, Vec<Action>), PartyError> {
    let mut round = machine(state, secure, deadline);
    if round.state() != state {
        return Err(PartyError::state("a round's state cannot be restored"));
    }
    let actions = round.on(event, now);
    Ok((round.state().clone(), actions))
}

impl Engine {
    /// Does what follows from a step, after it is durable. What is sent is sent by the outbox, not here.
    pub(super) fn act(&mut self, row: &RoundRow, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Reply(reply) => {
                    self.say(row.federation, FromSite::RoundReply { round: row.key.clone(), reply });
                }
                Action::Progress { done, total } => {
                    self.say(row.federation, FromSite::Progress { round: row.key.clone(), done, total });
                }
                Action::Stop => drop(self.working.remove(&row.key)),
                Action::Erase(_) => self.erase_payload(&row.key),
                Action::Work | Action::Send { .. } => {}
            }
        }
        self.notify(Notice::Jobs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::approval::RefusalCode;
    use hospes_protocol::message::RoundOutcome;

    #[test]
    fn every_kept_state_survives_json_and_the_machine() {
        let digest = Digest::of(b"payload");
        let refusal = Refusal::new(RefusalCode::Revoked, "the approval was revoked");
        let deadline = Timestamp::from_millis(1_000);
        let of_both = [
            State::Offered,
            State::Working,
            State::Committed(digest),
            State::Acknowledged(digest),
            State::Published { model: Some(digest), included: true },
            State::Abandoned("too few".into()),
            State::Refused(refusal.clone()),
            State::Failed("diverged".into()),
            State::Withdrawn(refusal.clone()),
        ];
        let of_masks = [State::Advertised, State::Shared, State::Agreed(digest), State::Revealed(digest)];
        for state in of_both.iter().chain(&of_masks) {
            let text = to_json(&Kept::of(state));
            assert_eq!(from_json::<Kept>(&text, "state").unwrap().state(), *state);
            assert_eq!(machine(state, true, deadline).state(), state, "{text}");
        }
        for state in &of_both {
            assert_eq!(machine(state, false, deadline).state(), state, "{state:?}");
        }
    }

    /// Invariant I7: from every state, time and the end of the round lead to a terminal one.
    #[test]
    fn i7_every_round_reaches_a_terminal_state() {
        let digest = Digest::of(b"payload");
        let deadline = Timestamp::from_millis(1_000);
        let much_later = deadline.plus_millis(10 * 24 * 3_600 * 1_000);
        let of_both = [State::Offered, State::Working, State::Committed(digest), State::Acknowledged(digest)];
        let of_masks = [State::Advertised, State::Shared, State::Agreed(digest), State::Revealed(digest)];
        let plain = of_both.iter().map(|state| (state, false));
        for (state, secure) in plain.chain(of_both.iter().chain(&of_masks).map(|state| (state, true))) {
            let (ended, _) = apply(state, secure, deadline, Event::Tick, much_later).unwrap();
            assert!(ended.is_terminal(), "{state:?} stays open for ever");
            let outcome = RoundOutcome::Abandoned("the job ended".into());
            let closed = Event::Closed { outcome, included: false };
            let (ended, _) = apply(state, secure, deadline, closed, Timestamp::from_millis(0)).unwrap();
            assert!(ended.is_terminal(), "{state:?} is not ended by the coordinator's word");
        }
    }
}
