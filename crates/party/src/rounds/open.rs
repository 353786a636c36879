//! A round is opened: a permit, recorded, or a refusal, recorded; then the work.

use std::collections::BTreeMap;

use hospes_cohort::worker::Order;
use hospes_ledger::{Action, Actor, ObjectKind, Purpose};
use hospes_protocol::approval::{Circumstances, Permit, Refusal, RefusalCode, Spent};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, Digest, FederationId, RoundKey};
use hospes_protocol::message::{FromSite, RoundOutcome, RoundReply};
use hospes_protocol::round::RoundHeader;
use hospes_protocol::round::site::{Event, State};
use hospes_protocol::sign::Signed;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::Job;
use super::state::RoundRow;
use super::worker::{Running, WorkEvent, start};
use crate::audit::Because as _;
use crate::datasets;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::link::LinkCommand;
use crate::memberships::{self, roster};
use crate::people::signers;
use crate::requests::{self, Stored};
use crate::store::{At as _, Tx, setting, signed};
use crate::view::Notice;

/// Work under way on one round.
pub(crate) struct Working {
    federation: FederationId,
    phase: Phase,
    progress: Option<(u32, u32)>,
}

/// How far the work is.
enum Phase {
    /// The model that the round starts from is on its way.
    AwaitsModel(Digest),
    /// It runs; it stops when this is dropped.
    #[expect(dead_code, reason = "held for its drop, which stops the work")]
    Running(Running),
    /// It ended, and that could not be recorded yet.
    Ended(Box<WorkEvent>),
}

impl Working {
    pub(crate) fn progress(&self) -> Option<(u32, u32)> {
        self.progress
    }
}

/// A permit with what it was asked with.
pub(super) struct Leave {
    pub(super) permit: Permit,
    pub(super) circumstances: Circumstances,
    pub(super) stored: Stored,
    pub(super) dataset: datasets::Dataset,
}

impl Engine {
    /// Why nothing is done at this site or for this federation, if so.
    pub(super) async fn stopped(
        &self,
        conn: &mut SqliteConnection,
        federation: FederationId,
    ) -> Result<Option<String>, PartyError> {
        if let Some(reason) = setting(conn, "stopped").await? {
            return Ok(Some(format!("this site has stopped all work: {reason}")));
        }
        if let Some(reason) = memberships::by_id(conn, federation).await?.paused {
            return Ok(Some(format!("this site has paused the federation: {reason}")));
        }
        Ok(self.links.get(&federation).and_then(|l| l.skew.clone()))
    }

    /// Asks for a permit for a round with everything as it is now. The round itself does not count as spent, so that the
    /// same question can be asked again before each send.
    pub(super) async fn ask(
        &self,
        conn: &mut SqliteConnection,
        federation: FederationId,
        header: &Canonical<RoundHeader>,
        approval: Option<ApprovalId>,
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
        let membership = memberships::by_id(conn, federation).await?;
        let dataset = datasets::by_id(conn, stored.dataset).await?;
        let peers: BTreeMap<String, _> =
            roster::trust(conn, &membership).await?.into_iter().map(|(s, t)| (s.to_string(), t)).collect();
        let circumstances = Circumstances {
            now: self.now(),
            plan: job.plan,
            header: header.clone(),
            snapshot: dataset.facts(),
            policy: requests::policy::current(conn).await?,
            state: stored.state,
            spent: spent(conn, stored.id(), header, membership.epoch.unwrap_or(0)).await?,
            signers: signers(conn).await?,
            peers,
            stopped: self.stopped(conn, federation).await?,
        };
        Ok(match stored.approval.permit(&circumstances) {
            Ok(permit) => Ok(Box::new(Leave { permit, circumstances, stored, dataset })),
            Err(refusal) => Err(refusal),
        })
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
        if let Some(mut row) = RoundRow::find(tx.conn(), &key).await? {
            if row.header.digest() != header.digest() {
                let words = "two different headers were sent for one round";
                return self.refuse_stranger(tx, federation, &header, words, true).await;
            }
            let actions = row.step(&mut tx, Event::OfferedAgain, self.now()).await?;
            tx.commit().await?;
            self.act(&row, actions);
            return self.resume(&key).await;
        }
        let job = Job::find(tx.conn(), header.job).await?;
        if job.is_none_or(|j| j.federation != federation || j.study != header.study) {
            let words = "the round belongs to a job that was not reserved here";
            return self.refuse_stranger(tx, federation, &header, words, false).await;
        }
        let now = self.now();
        match self.ask(tx.conn(), federation, &header, None).await? {
            Err(refusal) => {
                let mut row = RoundRow::new(federation, header.clone(), None, header.deadline, now);
                row.insert(&mut tx).await?;
                let actions = row.step(&mut tx, Event::Refused(refusal.clone()), now).await?;
                let entry = self.round_entry(Actor::Engine, Action::PermitRefused, &row).refused(&refusal);
                self.append(&mut tx, &entry).await?;
                tx.commit().await?;
                self.act(&row, actions);
                Ok(())
            }
            Ok(leave) => {
                let deadline = leave.permit.deadline();
                let approval = leave.permit.approval();
                let mut row = RoundRow::new(federation, header, Some(approval), deadline, now);
                row.insert(&mut tx).await?;
                let actions = row.step(&mut tx, Event::Permitted { deadline }, now).await?;
                let digest = leave.permit.approval_digest();
                let entry = self
                    .round_entry(Actor::Engine, Action::PermitMinted, &row)
                    .object(ObjectKind::Approval, approval, Some(digest))
                    .because(requests::banner(&leave.circumstances.policy));
                self.append(&mut tx, &entry).await?;
                tx.commit().await?;
                self.act(&row, actions);
                Box::pin(self.begin_work(&row, leave)).await
            }
        }
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
        let entry = self
            .entry(Actor::peer(federation), Action::PermitRefused)
            .object(ObjectKind::Round, hospes_protocol::text::shown(&key.to_string(), 200), Some(header.digest()))
            .refused(words);
        self.append(&mut tx, &entry).await?;
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

    /// Starts the work that a permit allows, or first gets the model that it starts from.
    async fn begin_work(&mut self, row: &RoundRow, leave: Box<Leave>) -> Result<(), PartyError> {
        if let Some(model) = row.header.model {
            let path = self.model_path(model);
            if !path.exists() {
                let phase = Phase::AwaitsModel(model);
                let working = Working { federation: row.federation, phase, progress: None };
                self.working.insert(row.key.clone(), working);
                self.command(row.federation, LinkCommand::Download { digest: model, to: path });
                return Ok(());
            }
        }
        Box::pin(self.run_work(row, leave)).await
    }

    async fn run_work(&mut self, row: &RoundRow, leave: Box<Leave>) -> Result<(), PartyError> {
        let payload_path = self.payload_path(&row.key);
        self.erase_payload(&row.key);
        let leave = *leave;
        let snapshot = self.snapshot(&leave.dataset);
        let mut tx = self.store.begin("start the work").await?;
        let opt_outs = self.opt_outs(tx.conn()).await?;
        let entry = self.round_entry(Actor::Engine, Action::TrainingStarted, row);
        self.append(&mut tx, &entry).await?;
        let order = Order {
            site: leave.stored.approval.document.envelope.site,
            approval: leave.stored.approval,
            circumstances: leave.circumstances,
            key: self.snapshot_key(&leave.dataset).await?,
            snapshot: snapshot.document,
            snapshot_path: snapshot.path,
            opt_outs,
            model_path: row.header.model.map(|m| self.model_path(m)),
            payload_path,
        };
        tx.commit().await?;
        let phase = match start(&self.config, row.key.clone(), order, self.work_events.clone()) {
            Ok(running) => Phase::Running(running),
            Err(error) => Phase::Ended(Box::new(WorkEvent::Crashed(format!("it could not be started: {error}")))),
        };
        let failed = matches!(phase, Phase::Ended(_));
        self.working.insert(row.key.clone(), Working { federation: row.federation, phase, progress: None });
        if failed { self.finish(&row.key).await } else { Ok(()) }
    }

    /// Goes on with a round that is offered again: a model may have been lost with the connection.
    async fn resume(&mut self, key: &RoundKey) -> Result<(), PartyError> {
        let waits = self.working.get(key).and_then(|w| match w.phase {
            Phase::AwaitsModel(model) => Some((w.federation, model)),
            _ => None,
        });
        if let Some((federation, digest)) = waits {
            let to = self.model_path(digest);
            self.command(federation, LinkCommand::Download { digest, to });
        }
        self.send_waiting(Some(key)).await
    }

    pub(crate) async fn on_downloaded(&mut self, federation: FederationId, model: Digest) -> Result<(), PartyError> {
        for key in self.waiting_for(federation, model) {
            let mut tx = self.store.begin("take a model").await?;
            let row = RoundRow::read(tx.conn(), &key).await?;
            let entry = self.round_entry(Actor::peer(federation), Action::ModelReceived, &row).object(
                ObjectKind::Model,
                model.short(),
                Some(model),
            );
            self.append(&mut tx, &entry).await?;
            let answer = self.ask(tx.conn(), federation, &row.header, row.approval).await?;
            tx.commit().await?;
            self.working.remove(&key);
            match answer {
                Ok(leave) => Box::pin(self.run_work(&row, leave)).await?,
                Err(refusal) => self.withdraw(&key, refusal).await?,
            }
        }
        Ok(())
    }

    pub(crate) async fn on_download_failed(
        &mut self,
        federation: FederationId,
        model: Digest,
        reason: String,
    ) -> Result<(), PartyError> {
        for key in self.waiting_for(federation, model) {
            let words = "the model that the round starts from could not be fetched";
            self.fail(&key, &format!("{words}: {reason}"), words).await?;
        }
        Ok(())
    }

    fn waiting_for(&self, federation: FederationId, model: Digest) -> Vec<RoundKey> {
        let waits =
            |w: &Working| w.federation == federation && matches!(&w.phase, Phase::AwaitsModel(m) if *m == model);
        self.working.iter().filter(|(_, w)| waits(w)).map(|(k, _)| k.clone()).collect()
    }

    pub(crate) async fn on_work(&mut self, key: RoundKey, event: WorkEvent) -> Result<(), PartyError> {
        // What was stopped may still say a last word; nobody waits for it.
        let Some(working) = self.working.get_mut(&key) else { return Ok(()) };
        if let WorkEvent::Progress { done, total } = event {
            working.progress = Some((done, total));
            let federation = working.federation;
            self.say(federation, FromSite::Progress { round: key, done, total });
            self.notify(Notice::Jobs);
            return Ok(());
        }
        working.phase = Phase::Ended(Box::new(event));
        self.finish(&key).await
    }

    /// Records how the work ended. If that fails (full disk), it is tried again with each tick until it succeeds or the
    /// deadline passes; nothing leaves before.
    async fn finish(&mut self, key: &RoundKey) -> Result<(), PartyError> {
        let Some(Working { phase: Phase::Ended(event), .. }) = self.working.get(key) else { return Ok(()) };
        match WorkEvent::clone(event) {
            WorkEvent::Progress { .. } => {}
            WorkEvent::Done(done) => self.commit_payload(key, *done).await?,
            WorkEvent::Refused(refusal) => self.withdraw(key, refusal).await?,
            WorkEvent::Failed(failure) => self.fail(key, &failure.local, failure.outward.words()).await?,
            WorkEvent::Crashed(reason) => {
                let reason = format!("the worker process failed: {reason}");
                self.fail(key, &reason, hospes_cohort::Outward::Engine.words()).await?;
            }
        }
        self.working.remove(key);
        Ok(())
    }

    /// The work failed: in full for the site's own people, in a fixed sentence for the coordinator.
    pub(super) async fn fail(&mut self, key: &RoundKey, local: &str, outward: &str) -> Result<(), PartyError> {
        let mut tx = self.store.begin("record a failure").await?;
        let mut row = RoundRow::read(tx.conn(), key).await?;
        let actions = row.step(&mut tx, Event::Failed(outward.to_owned()), self.now()).await?;
        let entry = self.round_entry(Actor::Engine, Action::TrainingFailed, &row).failed(local);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.erase_payload(key);
        self.act(&row, actions);
        Ok(())
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
        let included = matches!(&outcome, RoundOutcome::Published { included, .. } if included.contains(&site));
        let words = match &outcome {
            RoundOutcome::Published { .. } if included => "published with this site's part".to_owned(),
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

    /// What was being computed when the process ended is lost; it ends as a failure (invariant I7).
    pub(crate) async fn end_interrupted_work(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let open = RoundRow::open(&mut conn).await?;
        drop(conn);
        for row in open.iter().filter(|r| matches!(r.state, State::Offered | State::Working)) {
            let words = "the site was restarted while it worked";
            self.fail(&row.key, words, words).await?;
        }
        Ok(())
    }

    /// Looks at everything that time changes in rounds.
    pub(crate) async fn tick_rounds(&mut self) -> Result<(), PartyError> {
        let ended: Vec<RoundKey> =
            self.working.iter().filter(|(_, w)| matches!(w.phase, Phase::Ended(_))).map(|(k, _)| k.clone()).collect();
        for key in ended {
            self.finish(&key).await?;
        }
        self.overdue_rounds().await
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
        for row in open {
            if row.deadline > now || self.in_flight.contains(&row.key) {
                continue;
            }
            if matches!(row.state, State::Committed(_)) {
                let late = Refusal::new(RefusalCode::TooLate, "the round's deadline has passed");
                self.withdraw(&row.key, late).await?;
                continue;
            }
            let mut tx = self.store.begin("end an overdue round").await?;
            let mut row = RoundRow::read(tx.conn(), &row.key).await?;
            let before = row.state.clone();
            let actions = row.step(&mut tx, Event::Tick, now).await?;
            if row.state == before {
                continue;
            }
            let words = super::state_reason(&row.state).unwrap_or_default();
            let entry = self.round_entry(Actor::Engine, Action::TrainingFailed, &row).failed(&words);
            self.append(&mut tx, &entry).await?;
            tx.commit().await?;
            self.act(&row, actions);
        }
        Ok(())
    }

    pub(super) fn model_path(&self, model: Digest) -> std::path::PathBuf {
        self.config.models().join(format!("{model}.safetensors"))
    }

    /// Models of a job that has ended are no longer needed here; the final one stays.
    pub(super) async fn drop_models(&self, job: &Job) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        for row in RoundRow::of_job(&mut conn, &job.job.to_string()).await? {
            if let Some(model) = row.header.model.filter(|m| Some(*m) != job.model) {
                // A file that is gone already, or that another job fetches again, does no harm.
                let _ = std::fs::remove_file(self.model_path(model));
            }
        }
        Ok(())
    }
}

/// What was used of an approval, leaving out the round that is asked for.
async fn spent(
    conn: &mut SqliteConnection,
    approval: ApprovalId,
    header: &RoundHeader,
    epoch: u64,
) -> Result<Spent, PartyError> {
    let jobs = requests::jobs_of(conn, approval).await?;
    let row = sqlx::query(
        "SELECT round, attempt FROM rounds
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
    let (mut last_round, mut last_attempt) = (None, None);
    if let Some(row) = row {
        let small = |column: &'static str| -> Result<u32, PartyError> {
            let n: i64 = row.try_get(column).at("read what was spent")?;
            u32::try_from(n).map_err(|_| crate::store::bad_column(column))
        };
        last_round = Some(small("round")?);
        last_attempt = Some(small("attempt")?);
    }
    Ok(Spent { jobs, last_round, last_attempt, epoch })
}

impl Engine {
    /// Models that did not come before the connection was cut are asked for again.
    pub(super) fn repeat_downloads(&mut self, federation: FederationId) {
        let models: Vec<Digest> = self
            .working
            .values()
            .filter(|w| w.federation == federation)
            .filter_map(|w| match w.phase {
                Phase::AwaitsModel(model) => Some(model),
                _ => None,
            })
            .collect();
        for digest in models {
            let to = self.model_path(digest);
            self.command(federation, LinkCommand::Download { digest, to });
        }
    }
}
