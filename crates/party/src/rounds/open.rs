//! A round is opened: a permit, recorded, or a refusal, recorded. And it ends, by the coordinator's word or by time.

use std::collections::BTreeMap;

use hospes_ledger::{Action, Actor, ObjectKind, Purpose};
use hospes_protocol::approval::{Circumstances, Permit, Refusal, RefusalCode, Spent};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, FederationId, JobId, RoundKey, StudyId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::memo;
use hospes_protocol::message::{FromSite, RoundOutcome, RoundReply};
use hospes_protocol::round::RoundHeader;
use hospes_protocol::round::site::{Event, State};
use hospes_protocol::sign::Signed;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::state::RoundRow;
use super::{Job, pause};
use crate::audit::{self, Because as _};
use crate::datasets;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::memberships::{self, roster};
use crate::people::signers;
use crate::pools;
use crate::requests::{self, Stored};
use crate::restored;
use crate::store::{At as _, Tx, setting, signed};
use crate::view::Notice;

/// The coordinator claims to have what it cannot have.
pub(super) const NEVER_LEFT: &str = "the coordinator says that it counted an update of this site which never left it";

/// A permit with what it was asked with.
pub(super) struct Leave {
    pub(super) permit: Permit,
    pub(super) circumstances: Circumstances,
    pub(super) stored: Stored,
    pub(super) dataset: datasets::Dataset,
}

impl Leave {
    /// What the round costs.
    pub(super) fn spending<'a>(&self, key: &'a RoundKey, study: StudyId) -> pools::Spending<'a> {
        let charge = pools::charge_of(&self.circumstances.plan, &key.task);
        pools::Spending { key, study, pool: self.dataset.pool, charge }
    }

    /// What the entry of the permit says besides.
    fn words(&self) -> String {
        let banner = requests::banner(&self.circumstances.policy, self.circumstances.header.is_secure());
        match &self.stored.approval.document.envelope.data.series {
            Some(_) => format!("{banner}; reads version {} of the dataset", self.dataset.version),
            None => banner.to_owned(),
        }
    }
}

impl Engine {
    /// Why nothing is done at this site or for this federation, if so. It goes to the coordinator: what the staff wrote
    /// about it is in the ledger and on their screens, not in here.
    pub(crate) async fn stopped(
        &self,
        conn: &mut SqliteConnection,
        federation: FederationId,
    ) -> Result<Option<String>, PartyError> {
        if setting(conn, "stopped").await?.is_some() {
            return Ok(Some("this site has stopped all work".to_owned()));
        }
        // What left, and why, is told by the log alone: while it may tell that wrong, nothing is added.
        if audit::verify::holds(conn).await? {
            return Ok(Some(audit::verify::HELD.to_owned()));
        }
        if restored::holds(conn, federation).await? {
            return Ok(Some(restored::HELD.to_owned()));
        }
        let membership = memberships::by_id(conn, federation).await?;
        if membership.paused.is_some() {
            return Ok(Some("this site has paused the federation".to_owned()));
        }
        if let Some(why) = self.managed.against(&membership, &requests::policy::current(conn).await?) {
            return Ok(Some(why.to_owned()));
        }
        Ok(self.links.get(&federation).and_then(|l| l.skew.clone()))
    }

    /// Asks for a permit for a round with everything as it is now, at this time. The round itself does not count as spent, so
    /// that the same question can be asked again before each send.
    pub(super) async fn ask(
        &self,
        conn: &mut SqliteConnection,
        federation: FederationId,
        header: &Canonical<RoundHeader>,
        approval: Option<ApprovalId>,
        at: Timestamp,
    ) -> Result<Result<Box<Leave>, Refusal>, PartyError> {
        let stored = match approval {
            Some(id) => Some(requests::approval_by_id(conn, id).await?),
            None => requests::approval_in_force(conn, header.study).await?,
        };
        let Some(stored) = stored else {
            return Ok(Err(Refusal::new(RefusalCode::NotApproved, "nobody has approved the study here")));
        };
        let job = Job::read(conn, header.job).await?;
        if job.is_over() {
            return Ok(Err(Refusal::new(RefusalCode::CannotRun, format!("the run has ended here: {}", job.state))));
        }
        let key = header.key();
        let membership = memberships::by_id(conn, federation).await?;
        let (dataset, against) = Box::pin(requests::data_of_run(conn, &stored, job.dataset, self.now())).await?;
        let peers: BTreeMap<String, _> =
            roster::trust(conn, &membership).await?.into_iter().map(|(s, t)| (s.to_string(), t)).collect();
        let stopped = match self.stopped(conn, federation).await? {
            None => pause::paused(conn, header.job).await?.map(|_| pause::PAUSED.to_owned()),
            stopped => stopped,
        };
        let circumstances = Circumstances {
            now: at,
            plan: job.plan,
            header: header.clone(),
            snapshot: dataset.facts()?,
            policy: requests::policy::current(conn).await?,
            state: self.seam.state_of(approval, stored.state),
            spent: spent(conn, stored.id(), header, membership.epoch.unwrap_or(0)).await?,
            signers: signers(conn).await?,
            peers,
            stopped,
        };
        let leave = match (stored.approval.permit(&circumstances), against) {
            (Ok(permit), None) => Box::new(Leave { permit, circumstances, stored, dataset }),
            (Err(refusal), _) | (Ok(_), Some(refusal)) => return Ok(Err(refusal)),
        };
        let spending = leave.spending(&key, header.study);
        let over = pools::against(conn, &spending, &leave.circumstances.policy.privacy).await?;
        Ok(over.map_or(Ok(leave), Err))
    }

    pub(crate) async fn on_round_open(
        &mut self,
        federation: FederationId,
        opened: Signed<RoundHeader>,
    ) -> Result<(), PartyError> {
        let header = opened.document.clone();
        let key = header.key();
        let mut tx = self.store.begin("answer a round").await?;
        let membership = memberships::by_id(tx.conn(), federation).await?;
        if !opened.signed_by(&membership.coordinator) || header.federation != federation {
            let words = "a round was opened without the coordinator's signature";
            return self.refuse_stranger(tx, federation, &header, words, true).await;
        }
        if let Some(mut row) = RoundRow::find(tx.conn(), &key).await?.filter(|row| row.federation == federation) {
            if row.header.digest() != header.digest() {
                let words = "two different headers were sent for one round";
                return self.refuse_stranger(tx, federation, &header, words, true).await;
            }
            let actions = row.step(&mut tx, Event::OfferedAgain, self.now()).await?;
            tx.commit().await?;
            self.act(&row, actions);
            self.resume(&row).await?;
            return self.repeat_step(&row).await;
        }
        let job = Job::find(tx.conn(), header.job).await?;
        if job.is_none_or(|j| j.federation != federation || j.study != header.study) {
            let words = "the round belongs to a job that was not reserved here";
            return self.refuse_stranger(tx, federation, &header, words, false).await;
        }
        let now = self.now();
        let answer = match self.against_more_work(federation, &key) {
            Some(refusal) => Err(refusal),
            None => self.ask(tx.conn(), federation, &header, None, self.now()).await?,
        };
        let against = match &answer {
            Ok(leave) => self.against_session(tx.conn(), federation, leave).await?,
            Err(_) => None,
        };
        match against.map_or(answer, Err) {
            Err(refusal) => self.refuse_round(tx, federation, header, refusal).await,
            Ok(leave) => {
                let deadline = leave.permit.deadline();
                let approval = leave.permit.approval();
                let mut row = RoundRow::new(federation, header, Some(approval), deadline, now);
                row.insert(&mut tx).await?;
                super::keep_data(&mut tx, row.key.job, leave.dataset.id).await?;
                let actions = row.step(&mut tx, Event::Permitted { deadline }, now).await?;
                let (digest, snapshot) = (leave.permit.approval_digest(), leave.permit.snapshot());
                let entry = self
                    .round_entry(Actor::Engine, Action::PermitMinted, &row)
                    .object(ObjectKind::Approval, approval, Some(digest))
                    .object(ObjectKind::Dataset, leave.dataset.id, None)
                    .object(ObjectKind::Snapshot, snapshot, Some(snapshot))
                    .because(leave.words());
                self.append(&mut tx, &entry).await?;
                tx.commit().await?;
                self.act(&row, actions);
                self.begin_work(&row, &leave.circumstances.plan);
                self.end_older(&row.key).await
            }
        }
    }

    /// A round that gets no permit: the refusal is recorded and told. Beyond a limit for one run it is only counted, so that
    /// nobody fills the disk with rounds that are refused.
    async fn refuse_round(
        &mut self,
        mut tx: Tx,
        federation: FederationId,
        header: Canonical<RoundHeader>,
        mut refusal: Refusal,
    ) -> Result<(), PartyError> {
        let (now, round) = (self.now(), header.key());
        if refused_rounds(tx.conn(), header.job).await? >= limits::REFUSED_ROUNDS {
            self.count_control(federation, false, "round refused without an entry");
            refusal.detail.push_str("; more rounds of the run are refused without a record (limit REFUSED_ROUNDS)");
            self.say(federation, FromSite::RoundReply { round, reply: RoundReply::Refused(refusal) });
            return Ok(());
        }
        let deadline = header.deadline;
        let mut row = RoundRow::new(federation, header, None, deadline, now);
        row.insert(&mut tx).await?;
        let actions = row.step(&mut tx, Event::Refused(refusal.clone()), now).await?;
        let entry = self.round_entry(Actor::Engine, Action::PermitRefused, &row).refused(&refusal);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.act(&row, actions);
        Ok(())
    }

    /// Refuses work beyond what one federation may have waiting here. Older rounds of the task make room.
    fn against_more_work(&self, federation: FederationId, key: &RoundKey) -> Option<Refusal> {
        let same = |k: &RoundKey| k.job == key.job && k.task == key.task;
        let waiting = self.working.iter().filter(|(k, w)| w.federation() == federation && !same(k)).count();
        (waiting >= limits::WAITING_ROUNDS).then(|| {
            let words = format!("{waiting} rounds of the federation wait here already (limit WAITING_ROUNDS)");
            Refusal::new(RefusalCode::CannotRun, words)
        })
    }

    /// A round that cannot even be entered: refused, recorded, and where it smells of forgery an alarm.
    async fn refuse_stranger(
        &mut self,
        mut tx: Tx,
        federation: FederationId,
        header: &Canonical<RoundHeader>,
        words: &str,
        alarm: bool,
    ) -> Result<(), PartyError> {
        let key = header.key();
        if alarm {
            self.alarm(&mut tx, Some(federation), words).await?;
        }
        let entry = self.entry(Actor::peer(federation), Action::PermitRefused).object(
            ObjectKind::Round,
            hospes_protocol::text::shown(&key.to_string(), 200),
            Some(header.digest()),
        );
        self.enter_refusal(&mut tx, federation, entry, words).await?;
        tx.commit().await?;
        self.notify(Notice::Audit);
        let reply = RoundReply::Refused(Refusal::new(RefusalCode::Header, words));
        self.say(federation, FromSite::RoundReply { round: key, reply });
        Ok(())
    }

    /// An entry about a round.
    pub(super) fn round_entry(&self, actor: Actor, action: Action, row: &RoundRow) -> hospes_ledger::Entry {
        self.entry(actor, action)
            .object(
                ObjectKind::Round,
                hospes_protocol::text::shown(&row.key.to_string(), 200),
                Some(row.header.digest()),
            )
            .purpose(Purpose { study: Some(row.study), job: Some(row.key.job), approval: row.approval })
    }

    pub(crate) async fn on_round_closed(
        &mut self,
        federation: FederationId,
        key: RoundKey,
        outcome: RoundOutcome,
    ) -> Result<(), PartyError> {
        let mut tx = self.store.begin("close a round").await?;
        let Some(mut row) = RoundRow::find(tx.conn(), &key).await? else { return Ok(()) };
        if row.federation != federation || row.state.is_terminal() {
            return Ok(());
        }
        let site = memberships::by_id(tx.conn(), federation).await?.site;
        let claimed = matches!(&outcome, RoundOutcome::Published { included, .. } if included.contains(&site));
        let included = claimed && Self::may_be_counted(tx.conn(), &key).await?;
        if claimed && !included {
            let words = NEVER_LEFT;
            self.alarm(&mut tx, Some(federation), words).await?;
        }
        let words = match &outcome {
            RoundOutcome::Published { .. } if included => "published with this site's part".to_owned(),
            RoundOutcome::Published { .. } if claimed => {
                "published, it says with a part of this site, which never left".to_owned()
            }
            RoundOutcome::Published { .. } => "published without this site's part".to_owned(),
            RoundOutcome::Abandoned(reason) => format!("abandoned: {reason}"),
        };
        let actions = row.step(&mut tx, Event::Closed { outcome, included }, self.now()).await?;
        self.close_outbox(&mut tx, &row, included).await?;
        let entry = self.round_entry(Actor::peer(federation), Action::RoundClosed, &row).because(words);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.act(&row, actions);
        self.show_checkpoint(federation).await
    }

    /// Looks at everything that time changes in rounds.
    pub(crate) async fn tick_rounds(&mut self) -> Result<(), PartyError> {
        let recorded = self.finish_ended().await;
        let ended = self.overdue_rounds().await;
        self.tick_sessions().await;
        recorded.and(ended)
    }

    async fn overdue_rounds(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        let due: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM rounds WHERE ended = 0 AND deadline <= ?1")
            .bind(now.as_millis())
            .fetch_one(self.store.readers())
            .await
            .at("find overdue rounds")?;
        if due == 0 {
            return Ok(());
        }
        let mut conn = self.reader().await?;
        let open = RoundRow::open(&mut conn).await?;
        drop(conn);
        let mut result = Ok(());
        // An update that was acknowledged waits for the round's close whatever the time: nothing to write.
        for row in open.into_iter().filter(|row| row.deadline <= now && row.changes_with_time(now)) {
            result = result.and(self.end_overdue(&row, now).await);
        }
        result
    }

    async fn end_overdue(&mut self, row: &RoundRow, now: Timestamp) -> Result<(), PartyError> {
        if matches!(row.state, State::Committed(_)) {
            let late = Refusal::new(RefusalCode::TooLate, "the round's deadline has passed");
            return self.withdraw(&row.key, late).await;
        }
        let mut tx = self.store.begin("end an overdue round").await?;
        let mut row = RoundRow::read(tx.conn(), &row.key).await?;
        let before = row.state.clone();
        let actions = row.step(&mut tx, Event::Tick, now).await?;
        if row.state == before {
            return Ok(());
        }
        let words = super::state::state_reason(&row.state).unwrap_or_default();
        let entry = self.round_entry(Actor::Engine, Action::TrainingFailed, &row).failed(&words);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.act(&row, actions);
        Ok(())
    }
}

/// Rounds of a job that were given no permit.
async fn refused_rounds(conn: &mut SqliteConnection, job: JobId) -> Result<usize, PartyError> {
    let refused: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM rounds WHERE job = ?1 AND approval IS NULL")
        .bind(job.to_string())
        .fetch_one(conn)
        .await
        .at("count refused rounds")?;
    Ok(usize::try_from(refused).unwrap_or(usize::MAX))
}

/// Whether another job of a study was given a permit before. The first one stays the first when another begins beside it, and
/// when the study is signed again.
async fn is_later(conn: &mut SqliteConnection, study: StudyId, job: JobId) -> Result<bool, PartyError> {
    let first: Option<String> = sqlx::query_scalar(
        "SELECT rounds.job FROM rounds JOIN approvals ON approvals.id = rounds.approval
         WHERE approvals.study = ?1 ORDER BY rounds.rowid LIMIT 1",
    )
    .bind(study.to_string())
    .fetch_optional(conn)
    .await
    .at("read what was spent")?;
    Ok(first.is_some_and(|first| first != job.to_string()))
}

/// What was used of an approval, leaving out the round that is asked for.
async fn spent(
    conn: &mut SqliteConnection,
    approval: ApprovalId,
    header: &RoundHeader,
    epoch: u64,
) -> Result<Spent, PartyError> {
    let jobs = requests::jobs_of(conn, approval).await?;
    let is_later = is_later(conn, header.study, header.job).await?;
    let row = sqlx::query(
        "SELECT round, attempt, header FROM rounds
         WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND approval IS NOT NULL AND NOT (round = ?4 AND attempt = ?5)
         ORDER BY round DESC, attempt DESC LIMIT 1",
    )
    .bind(header.job.to_string())
    .bind(&header.task)
    .bind(signed(epoch))
    .bind(i64::from(header.round))
    .bind(i64::from(header.attempt))
    .fetch_optional(conn)
    .await
    .at("read what was spent")?;
    let (mut last_round, mut last_attempt, mut last_model) = (None, None, None);
    if let Some(row) = row {
        let small = |column: &'static str| -> Result<u32, PartyError> {
            let n: i64 = row.try_get(column).at("read what was spent")?;
            u32::try_from(n).map_err(|_| crate::store::bad_column(column))
        };
        last_round = Some(small("round")?);
        last_attempt = Some(small("attempt")?);
        let header: Vec<u8> = row.try_get("header").at("read what was spent")?;
        last_model = memo::parsed(&header, Canonical::<RoundHeader>::parse)?.model;
    }
    Ok(Spent { jobs, is_later, last_round, last_attempt, last_model, epoch })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: the study is signed again, so that its next run draws as the first did.
    #[tokio::test]
    async fn a_studys_first_job_stays_the_first_beside_others_and_under_another_approval() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::Store::create(&folder.path().join("site.db")).await.unwrap();
        let at = Timestamp::from_millis(1);
        let (study, other) = (StudyId::new(at, [1; 10]), StudyId::new(at, [2; 10]));
        // The first has the larger name: the coordinator chooses names.
        let (first, second) = (JobId::new(at, [9; 10]), JobId::new(at, [3; 10]));
        let mut tx = store.begin("test").await.unwrap();
        // To which dataset and study it belongs does not matter here, and nothing is committed.
        sqlx::query("PRAGMA defer_foreign_keys = ON").execute(tx.conn()).await.unwrap();
        for (approval, state) in [("a", "expired"), ("b", "active")] {
            let sql = "INSERT INTO approvals (id, study, dataset, document, digest, state, not_before, expires, at)
                       VALUES (?1, ?2, 'd', x'', ?1, ?3, 0, 0, 0)";
            let row = sqlx::query(sql).bind(approval).bind(study.to_string()).bind(state);
            row.execute(tx.conn()).await.unwrap();
        }
        assert!(!is_later(tx.conn(), study, first).await.unwrap());
        for (job, approval) in [(first, "a"), (second, "b")] {
            let sql =
                "INSERT INTO rounds (job, task, epoch, round, attempt, header, approval, deadline, state, ended, at)
                       VALUES (?1, 't', 1, 1, 1, x'', ?2, 0, '', 0, 1)";
            sqlx::query(sql).bind(job.to_string()).bind(approval).execute(tx.conn()).await.unwrap();
            assert!(!is_later(tx.conn(), study, first).await.unwrap());
            assert!(is_later(tx.conn(), study, second).await.unwrap());
        }
        assert!(!is_later(tx.conn(), other, second).await.unwrap(), "of another study");
    }
}
