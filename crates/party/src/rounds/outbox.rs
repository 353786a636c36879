//! What was computed on its way out. The payload is durable first; then one transaction holds state, ledger entry and
//! outbox row; then it is sent, after approval, policy and opt-outs were asked again (invariants I2, I3).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hospes_cohort::worker::Done;
use hospes_ledger::{Action, Actor, Egress, Entry, Ledger, ObjectKind};
use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::id::{Digest, FederationId, RoundKey, Timestamp};
use hospes_protocol::message::{FromSite, RoundReply, Upload, UploadKind};
use hospes_protocol::round::coordinator::Step;
use hospes_protocol::round::site::{Event, State};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::open::Leave;
use super::secure;
use super::state::{RoundRow, bind_key, read_key};
use super::work::Working;
use crate::audit::Because as _;
use crate::datasets;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::link::{LinkCommand, Receipt};
use crate::memberships;
use crate::people::Session;
use crate::pools;
use crate::requests;
use crate::store::{At as _, Tx, from_json, parse, signed, to_json, unsigned};
use crate::view::{EgressView, Notice, PAGE_ITEMS, Page, Protection};

/// A row of the outbox.
struct Parcel {
    key: RoundKey,
    kind: UploadKind,
    digest: Digest,
    bytes: u64,
    subjects: u64,
    state: String,
    /// When it was first let go.
    left: Option<Timestamp>,
}

/// A payload that is durable.
pub(super) struct Prepared {
    pub(super) kind: UploadKind,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    /// Subjects left when its rows were read.
    pub(super) subjects: u64,
}

/// Why a result is withdrawn that is not what the privacy ledger would be charged for.
const NOT_NOISED: &str = "the worker did not take the steps with noise that the plan asks for";
/// Why work or its result is withdrawn after an opt-out.
const OPTED_OUT: &str = "somebody opted out since the rows were read";

impl Parcel {
    fn from_row(row: &SqliteRow) -> Result<Self, PartyError> {
        let text = |column: &'static str| row.try_get::<String, _>(column).at("read the outbox");
        let number = |column: &'static str| row.try_get::<i64, _>(column).at("read the outbox").map(unsigned);
        Ok(Self {
            key: read_key(row)?,
            kind: from_json(&text("kind")?, "kind")?,
            digest: parse(&text("digest")?, "digest")?,
            bytes: number("bytes")?,
            subjects: number("subjects")?,
            state: text("state")?,
            left: row.try_get::<Option<i64>, _>("left_at").at("read the outbox")?.map(Timestamp::from_millis),
        })
    }

    async fn find(conn: &mut SqliteConnection, key: &RoundKey) -> Result<Option<Self>, PartyError> {
        let sql = "SELECT * FROM outbox WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5";
        let row = bind_key(sqlx::query(sql), key).fetch_optional(conn).await.at("read the outbox")?;
        row.as_ref().map(Self::from_row).transpose()
    }

    async fn waiting(conn: &mut SqliteConnection) -> Result<Vec<Self>, PartyError> {
        let rows = sqlx::query("SELECT * FROM outbox WHERE state = 'waiting' ORDER BY at").fetch_all(conn).await;
        rows.at("read the outbox")?.iter().map(Self::from_row).collect()
    }

    fn is_waiting(&self) -> bool {
        self.state == "waiting"
    }

    fn object(&self) -> (ObjectKind, String) {
        let kind = match self.kind {
            UploadKind::Update => ObjectKind::Update,
            UploadKind::Figures => ObjectKind::Figures,
        };
        (kind, self.digest.short())
    }

    fn egress(&self, to: FederationId) -> Egress {
        Egress { to: to.to_string(), bytes: self.bytes, digest: self.digest }
    }

    /// The entry of its end without a receipt: what was let go counts as egress, because it may have arrived.
    fn ended(&self, entry: Entry, to: FederationId) -> Entry {
        let (kind, name) = self.object();
        let mut entry = entry.object(kind, name, Some(self.digest));
        if self.left.is_some() {
            let reason = entry.reason.take().unwrap_or_default();
            entry.reason = Some(format!("it was let go before and may have arrived; {reason}"));
            entry.egress = Some(self.egress(to));
        }
        entry
    }

    async fn set(&self, tx: &mut Tx, state: &str, receipt: Option<Vec<u8>>, now: Timestamp) -> Result<(), PartyError> {
        let step = tx.step();
        let sql = "UPDATE outbox SET state = ?6, receipt = ?7, ended = ?8
                   WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5";
        bind_key(sqlx::query(sql), &self.key)
            .bind(state.to_owned())
            .bind(receipt)
            .bind(now.as_millis())
            .execute(tx.conn())
            .await
            .at(step)?;
        Ok(())
    }
}

impl Engine {
    /// Asks for a permit again for a round whose rows are read or were read. `subjects`: how many were left in the
    /// dataset then. The opt-out list only grows, so that the same count means the same people.
    pub(super) async fn holds(
        &self,
        conn: &mut SqliteConnection,
        row: &RoundRow,
        subjects: Option<u64>,
    ) -> Result<Result<Box<Leave>, Refusal>, PartyError> {
        let now = self.now();
        // The header's deadline is for inputs. What follows them with secure aggregation touches no data, and comes when all
        // inputs are in.
        let has_left = matches!(row.state, State::Acknowledged(_) | State::Agreed(_) | State::Revealed(_));
        let at = if has_left { now.min(row.header.deadline.plus_millis(-1)) } else { now };
        let answer = self.ask(conn, row.federation, &row.header, row.approval, at).await?;
        Ok(answer.and_then(|leave| {
            let expires = leave.stored.approval.document.envelope.limits.expires;
            if now >= expires {
                return Err(Refusal::new(RefusalCode::Expired, format!("the approval expired at {expires}")));
            }
            match subjects {
                // PRIVACY: somebody who opted out since is in it; it must not leave any more.
                Some(subjects) if subjects != leave.circumstances.snapshot.subjects => {
                    Err(Refusal::new(RefusalCode::Snapshot, OPTED_OUT))
                }
                _ => Ok(leave),
            }
        }))
    }

    /// Keeps a payload that is durable: state, ledger entry and outbox row in one step; then it may be sent.
    /// `subjects`: how many were left in the dataset when its rows were read.
    pub(super) async fn commit_payload(&mut self, key: &RoundKey, done: Done, subjects: u64) -> Result<(), PartyError> {
        let mut tx = self.store.begin("commit a payload").await?;
        let mut row = RoundRow::read(tx.conn(), key).await?;
        if row.state != State::Working {
            drop(tx);
            self.erase_payload(key);
            self.erase_kept(key);
            return Ok(());
        }
        let leave = match self.holds(tx.conn(), &row, Some(subjects)).await? {
            Ok(leave) => leave,
            Err(refusal) => {
                drop(tx);
                return self.withdraw(key, refusal).await;
            }
        };
        // PRIVACY: what is charged as bounded is what noise was added to, or will be with the mask.
        if !leave.spending(&row.key, row.study).charge.is_met(done.released) {
            drop(tx);
            return self.withdraw(key, Refusal::new(RefusalCode::CannotRun, NOT_NOISED)).await;
        }
        if row.header.is_secure() {
            // PRIVACY: what the worker made is not what leaves: it is masked first.
            return Box::pin(self.begin_session(tx, row, *leave, done, subjects)).await;
        }
        row.show(&mut tx, self.sealed_result(&done).await?).await?;
        let mut entry = self.round_entry(Actor::Engine, Action::TrainingFinished, &row);
        entry.engine.device = Some(hospes_protocol::text::shown(&done.device, 100));
        if let Some(note) = self.working.get(key).and_then(Working::note) {
            entry = entry.because(note);
        }
        self.append(&mut tx, &entry).await?;
        let prepared = Prepared { kind: done.kind, digest: done.digest, bytes: done.bytes, subjects };
        let (upload, actions) = self.enter_payload(&mut tx, &mut row, &leave, prepared).await?;
        tx.commit().await?;
        self.act(&row, actions);
        self.notify(Notice::Egress);
        self.hand_over(&row, upload).await
    }

    /// Hands an upload that was entered to its link, or shows the log with its entry first.
    pub(super) async fn hand_over(&mut self, row: &RoundRow, upload: Upload) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let waits = waits_for_witness(&mut conn, row).await?;
        drop(conn);
        if waits {
            return Box::pin(self.show_checkpoint(row.federation)).await;
        }
        let path = self.payload_path(&row.key);
        self.command(row.federation, LinkCommand::Upload { upload, path });
        Ok(())
    }

    /// Hands over what waited until a coordinator cosigned the entry of what it costs.
    pub(crate) async fn send_witnessed(&mut self, federation: FederationId) -> Result<(), PartyError> {
        let rows = sqlx::query(
            "SELECT outbox.* FROM outbox JOIN spendings USING (job, task, epoch, round, attempt)
             JOIN jobs ON jobs.job = outbox.job JOIN studies ON studies.study = jobs.study
             WHERE studies.federation = ?1 AND outbox.state = 'waiting' AND outbox.left_at IS NULL
               AND spendings.release IS NOT NULL",
        )
        .bind(federation.to_string())
        .fetch_all(self.store.readers())
        .await
        .at("read the outbox")?;
        for row in &rows {
            self.send_waiting(Some(&read_key(row)?)).await?;
        }
        Ok(())
    }

    /// Enters a payload that is durable: outbox row, state and ledger entry. The only place where an upload is made: from a
    /// permit, in the step that enters it in the ledger.
    pub(super) async fn enter_payload(
        &mut self,
        tx: &mut Tx,
        row: &mut RoundRow,
        leave: &Leave,
        prepared: Prepared,
    ) -> Result<(Upload, Vec<hospes_protocol::round::site::Action>), PartyError> {
        let Prepared { kind, digest, bytes, subjects } = prepared;
        let upload = Upload::new(&leave.permit, kind, digest, bytes);
        let (now, step, is_masked) = (self.now(), tx.step(), row.header.is_secure());
        let sql = "INSERT INTO outbox
                       (job, task, epoch, round, attempt, kind, digest, bytes, subjects, state, public, at, masked)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'waiting', ?10, ?11, ?12)";
        bind_key(sqlx::query(sql), &row.key)
            .bind(to_json(&kind))
            .bind(digest.to_string())
            .bind(signed(bytes))
            .bind(signed(subjects))
            .bind(leave.circumstances.policy.is_public_data())
            .bind(now.as_millis())
            .bind(is_masked)
            .execute(tx.conn())
            .await
            .at(step)?;
        let actions = row.step(tx, Event::Made { step: Step::Input, digest }, now).await?;
        let object = if kind == UploadKind::Update { ObjectKind::Update } else { ObjectKind::Figures };
        let mut entry = self
            .round_entry(Actor::Engine, Action::UpdatePrepared, row)
            .object(object, digest.short(), Some(digest))
            .because(requests::banner(&leave.circumstances.policy, is_masked));
        // PRIVACY: what it costs is spent in the step after which it may leave, once for each round.
        let rules = &leave.circumstances.policy.privacy;
        if let Some(spent) = pools::spend(tx, &leave.spending(&row.key, row.study), rules, now).await? {
            entry = entry.object(ObjectKind::Pool, spent.id, Some(spent.digest));
        }
        entry.egress = Some(Egress { to: row.federation.to_string(), bytes, digest });
        let sequence = self.append(tx, &entry).await?;
        pools::note_entry(tx, &row.key, sequence).await?;
        Ok((upload, actions))
    }

    /// Whether an upload may leave now: asked at the first byte and at every resumption. A `no` withdraws it for good; a
    /// `yes` is durable before it is given, so that nothing leaves of which this site could later say that it did not,
    /// and nothing while the ledger cannot be written.
    pub(crate) async fn may_leave(
        &mut self,
        federation: FederationId,
        upload: &Upload,
    ) -> Result<Result<(), Refusal>, PartyError> {
        let key = upload.round();
        let mut tx = self.store.begin("let an update go").await?;
        let (row, parcel) = (RoundRow::find(tx.conn(), key).await?, Parcel::find(tx.conn(), key).await?);
        let gone = |detail: &str| Ok(Err(Refusal::new(RefusalCode::TooLate, detail)));
        let (Some(row), Some(parcel)) = (row, parcel) else { return gone("there is no such upload") };
        if row.federation != federation || parcel.digest != upload.digest() || !parcel.is_waiting() {
            return gone("the upload was withdrawn or has left before");
        }
        if let Err(refusal) = self.holds(tx.conn(), &row, Some(parcel.subjects)).await? {
            drop(tx);
            self.withdraw(key, refusal.clone()).await?;
            return Ok(Err(refusal));
        }
        let sql = "UPDATE outbox SET left_at = COALESCE(left_at, ?6)
                   WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5";
        let done = bind_key(sqlx::query(sql), key).bind(self.now().as_millis()).execute(tx.conn()).await;
        done.at("let an update go")?;
        let (kind, name) = parcel.object();
        let entry = self.round_entry(Actor::Engine, Action::UpdateLeaving, &row);
        self.append(&mut tx, &entry.object(kind, name, Some(parcel.digest))).await?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// Stops an upload on the wire. It waits for room: a link that is busy must hear this too.
    async fn recall(&self, federation: FederationId, parcel: &Parcel) {
        if let Some(commands) = self.links.get(&federation).and_then(|l| l.commands.as_ref()) {
            let withdraw = LinkCommand::Withdraw { round: parcel.key.clone(), digest: parcel.digest };
            // A link that has ended sends nothing.
            let _ = commands.send(withdraw).await;
        }
    }

    /// Stops whatever is on the wire. It goes on only after it was asked for again.
    pub(crate) async fn recall_all(&self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        for parcel in Parcel::waiting(&mut conn).await? {
            let federation = RoundRow::read(&mut conn, &parcel.key).await?.federation;
            self.recall(federation, &parcel).await;
        }
        Ok(())
    }

    /// Takes back what has not arrived: it stops on the wire, the payload is deleted, the row stays as *withdrawn*, the
    /// ledger has it and the coordinator is told. Work that is under way is stopped.
    pub(super) async fn withdraw(&mut self, key: &RoundKey, refusal: Refusal) -> Result<(), PartyError> {
        let now = self.now();
        let mut tx = self.store.begin("withdraw an update").await?;
        let mut row = RoundRow::read(tx.conn(), key).await?;
        let parcel = Parcel::find(tx.conn(), key).await?.filter(Parcel::is_waiting);
        if row.state.is_terminal() && parcel.is_none() {
            return Ok(());
        }
        let actions = row.step(&mut tx, Event::Withdrawn(refusal.clone()), now).await?;
        let action = if parcel.is_some() { Action::UpdateWithdrawn } else { Action::TrainingCancelled };
        let mut entry = self.round_entry(Actor::Engine, action, &row).refused(&refusal);
        if let Some(parcel) = &parcel {
            // Before the step is durable: a stop that cannot be recorded, on a full disk, still stops.
            self.recall(row.federation, parcel).await;
            parcel.set(&mut tx, "withdrawn", None, now).await?;
            entry = parcel.ended(entry, row.federation);
        }
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.working.remove(key);
        self.erase_payload(key);
        self.erase_kept(key);
        self.act(&row, actions);
        self.notify(Notice::Egress);
        Ok(())
    }

    /// Withdraws each of these. One that cannot be withdrawn does not keep the others; the first error is returned.
    pub(super) async fn withdraw_all(&mut self, ended: Vec<(RoundKey, Refusal)>) -> Result<(), PartyError> {
        let mut result = Ok(());
        for (key, refusal) in ended {
            result = result.and(self.withdraw(&key, refusal).await);
        }
        result
    }

    pub(crate) async fn on_uploaded(
        &mut self,
        federation: FederationId,
        upload: Upload,
        receipt: Receipt,
    ) -> Result<(), PartyError> {
        let (key, now) = (upload.round(), self.now());
        let mut tx = self.store.begin("keep a receipt").await?;
        let Some(mut row) = RoundRow::find(tx.conn(), key).await? else { return Ok(()) };
        let Some(parcel) = Parcel::find(tx.conn(), key).await?.filter(|p| p.left.is_some()) else { return Ok(()) };
        let said = &receipt.document;
        let fits = said.round == *key && said.digest == parcel.digest && said.federation == federation;
        if row.federation != federation || !fits || parcel.state == "sent" {
            return Ok(());
        }
        parcel.set(&mut tx, "sent", Some(receipt.to_bytes()?), now).await?;
        let confirmed = Event::Confirmed { step: Step::Input, digest: parcel.digest };
        let actions = row.step(&mut tx, confirmed, now).await?;
        let (kind, name) = parcel.object();
        let mut entry =
            self.round_entry(Actor::Engine, Action::UpdateSent, &row).object(kind, &name, Some(parcel.digest));
        entry.egress = Some(parcel.egress(federation));
        self.append(&mut tx, &entry).await?;
        let entry = self.round_entry(Actor::peer(federation), Action::UpdateReceipt, &row).object(
            ObjectKind::Receipt,
            name,
            Some(said.digest()),
        );
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.erase_payload(key);
        self.act(&row, actions);
        self.notify(Notice::Egress);
        Ok(())
    }

    pub(crate) async fn on_upload_refused(
        &mut self,
        federation: FederationId,
        upload: Upload,
        reason: String,
    ) -> Result<(), PartyError> {
        let (key, now) = (upload.round(), self.now());
        let mut tx = self.store.begin("note a refused upload").await?;
        let Some(mut row) = RoundRow::find(tx.conn(), key).await? else { return Ok(()) };
        let parcel = Parcel::find(tx.conn(), key).await?.filter(Parcel::is_waiting);
        let Some(parcel) = parcel.filter(|_| row.federation == federation) else { return Ok(()) };
        parcel.set(&mut tx, "refused", None, now).await?;
        let actions = row.step(&mut tx, Event::Declined(reason.clone()), now).await?;
        let entry = self.round_entry(Actor::peer(federation), Action::UploadRefused, &row).refused(&reason);
        self.append(&mut tx, &parcel.ended(entry, federation)).await?;
        tx.commit().await?;
        self.erase_payload(key);
        self.act(&row, actions);
        self.notify(Notice::Egress);
        Ok(())
    }

    /// Whether an input of this site may be in the round's result: it was let go, or its receipt came.
    pub(super) async fn may_be_counted(conn: &mut SqliteConnection, key: &RoundKey) -> Result<bool, PartyError> {
        Ok(Parcel::find(conn, key).await?.is_some_and(|p| p.left.is_some()))
    }

    /// Subjects whose rows a round's result holds; `None` where there is no result.
    pub(super) async fn subjects_of(conn: &mut SqliteConnection, key: &RoundKey) -> Result<Option<u64>, PartyError> {
        Ok(Parcel::find(conn, key).await?.map(|parcel| parcel.subjects))
    }

    /// The round is over; what still waits stops on the wire and is withdrawn with it, within the same step. What was let
    /// go and what the coordinator says that it counted has left, though its receipt did not get here.
    pub(super) async fn close_outbox(&self, tx: &mut Tx, row: &RoundRow, counted: bool) -> Result<(), PartyError> {
        let Some(parcel) = Parcel::find(tx.conn(), &row.key).await?.filter(Parcel::is_waiting) else { return Ok(()) };
        self.recall(row.federation, &parcel).await;
        if !(counted && parcel.left.is_some()) {
            parcel.set(tx, "withdrawn", None, self.now()).await?;
            let entry = self.round_entry(Actor::Engine, Action::UpdateWithdrawn, row).refused("the round is over");
            return self.append(tx, &parcel.ended(entry, row.federation)).await.map(drop);
        }
        parcel.set(tx, "sent", None, self.now()).await?;
        let (kind, name) = parcel.object();
        let mut entry = self
            .round_entry(Actor::Engine, Action::UpdateSent, row)
            .object(kind, name, Some(parcel.digest))
            .because("the coordinator counted it; its receipt did not arrive");
        entry.egress = Some(parcel.egress(row.federation));
        self.append(tx, &entry).await.map(drop)
    }

    /// Asks again about everything that runs, waits or is on the wire, after a decision, a policy or the opt-out list
    /// changed.
    pub(crate) async fn recheck_work(&mut self) -> Result<(), PartyError> {
        let rounds = self.recheck_rounds().await;
        let tried = Box::pin(self.recheck_dry_run()).await;
        rounds.and(tried)
    }

    async fn recheck_rounds(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let mut ended = Vec::new();
        for row in RoundRow::open(&mut conn).await? {
            let parcel = Parcel::find(&mut conn, &row.key).await?;
            let undone = [State::Working, State::Advertised, State::Shared].contains(&row.state);
            // With secure aggregation a round may go on before the receipt of what is on the wire got here.
            if !undone && !parcel.as_ref().is_some_and(Parcel::is_waiting) {
                continue;
            }
            let subjects = match (parcel, self.working.get(&row.key)) {
                (Some(parcel), _) => Some(parcel.subjects),
                (None, Some(working)) => working.subjects(),
                // It waits to be masked.
                (None, None) => secure::subjects(&mut conn, &row.key).await?,
            };
            if let Err(refusal) = self.holds(&mut conn, &row, subjects).await? {
                ended.push((row.key, refusal));
            }
        }
        drop(conn);
        self.withdraw_all(ended).await
    }

    /// Hands waiting uploads to their links, one round's or all of a federation's.
    pub(super) async fn send_waiting(&mut self, only: Option<&RoundKey>) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let parcels = Parcel::waiting(&mut conn).await?;
        let (mut ready, mut refused, mut unseen) = (Vec::new(), Vec::new(), HashSet::new());
        for parcel in parcels.into_iter().filter(|p| only.is_none_or(|k| *k == p.key)) {
            let row = RoundRow::read(&mut conn, &parcel.key).await?;
            let waits = waits_for_witness(&mut conn, &row).await?;
            match self.holds(&mut conn, &row, Some(parcel.subjects)).await? {
                Ok(_) if waits => {
                    unseen.insert(row.federation);
                }
                Ok(leave) => {
                    let upload = Upload::new(&leave.permit, parcel.kind, parcel.digest, parcel.bytes);
                    ready.push((row.federation, upload, parcel.key));
                }
                Err(refusal) => refused.push((parcel.key, refusal)),
            }
        }
        drop(conn);
        self.withdraw_all(refused).await?;
        for (federation, upload, key) in ready {
            let path = self.payload_path(&key);
            self.command(federation, LinkCommand::Upload { upload, path });
        }
        for federation in unseen {
            Box::pin(self.show_checkpoint(federation)).await?;
        }
        Ok(())
    }

    /// What is owed to a coordinator after a connection: answers to rounds that are still open there, waiting uploads,
    /// models that did not come, releases.
    pub(crate) async fn repeat_work(&mut self, federation: FederationId) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let recent: Vec<String> = sqlx::query_scalar(
            "SELECT jobs.job FROM jobs JOIN studies ON studies.study = jobs.study
             WHERE studies.federation = ?1 AND jobs.state IN ('waiting', 'running', 'cancelled')
               AND EXISTS (SELECT 1 FROM rounds WHERE rounds.job = jobs.job AND rounds.deadline > ?2)",
        )
        .bind(federation.to_string())
        .bind(self.now().as_millis())
        .fetch_all(&mut *conn)
        .await
        .at("read open jobs")?;
        let mut replies = Vec::new();
        for job in recent {
            for row in RoundRow::of_job(&mut conn, &job).await?.into_iter().filter(|r| r.header.deadline > self.now()) {
                let reply = match &row.state {
                    State::Refused(refusal) => RoundReply::Refused(refusal.clone()),
                    State::Failed(reason) => RoundReply::Failed(reason.clone()),
                    State::Withdrawn(refusal) => RoundReply::Withdrawn(refusal.clone()),
                    State::Working | State::Advertised | State::Shared | State::Committed(_) => RoundReply::Working,
                    _ => continue,
                };
                replies.push((row.key, reply));
            }
        }
        drop(conn);
        for (round, reply) in replies {
            self.say(federation, FromSite::RoundReply { round, reply });
        }
        self.repeat_downloads(federation).await?;
        self.repeat_fetches(federation);
        self.send_waiting(None).await?;
        self.repeat_releases(federation).await
    }

    /// Files that no row knows are leftovers of a crash between file and transaction; rows whose file is gone can never
    /// be sent.
    pub(crate) async fn sweep(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let waiting = Parcel::waiting(&mut conn).await?;
        let snapshots = datasets::all(&mut conn).await?.iter().map(|d| self.snapshot(d).path).collect();
        let models = self.models_needed(&mut conn).await?;
        let kept = self.kept_needed(&mut conn).await?;
        let unmasked = RoundRow::open(&mut conn).await?;
        let unmasked = unmasked.iter().filter(|row| matches!(row.state, State::Advertised | State::Shared));
        let unmasked: HashSet<PathBuf> = unmasked.map(|row| self.levels_path(&row.key)).collect();
        drop(conn);
        sweep_folder(&self.config.levels(), &unmasked)?;
        sweep_folder(&self.config.payloads(), &waiting.iter().map(|p| self.payload_path(&p.key)).collect())?;
        sweep_folder(&self.config.scratch(), &HashSet::new())?;
        sweep_folder(&self.config.snapshots(), &snapshots)?;
        sweep_folder(&self.config.models(), &models)?;
        sweep_folder(&self.config.kept(), &kept)?;
        for parcel in waiting {
            if self.payload_path(&parcel.key).exists() {
                continue;
            }
            let refusal = Refusal::new(RefusalCode::CannotRun, "the payload is gone from this site's disk");
            self.withdraw(&parcel.key, refusal).await?;
        }
        Ok(())
    }

    /// Where a round's payload lies. The name is a digest: a task's name comes from outside.
    pub(super) fn payload_path(&self, key: &RoundKey) -> PathBuf {
        self.config.payloads().join(format!("{}.payload", Digest::of(key.to_string().as_bytes())))
    }

    /// Where a payload is masked; it gets its name when it is whole.
    pub(super) fn part_path(&self, key: &RoundKey) -> PathBuf {
        self.payload_path(key).with_extension("part")
    }

    pub(super) fn erase_payload(&self, key: &RoundKey) {
        erase_file(&self.payload_path(key));
        erase_file(&self.part_path(key));
        self.erase_levels(key);
    }

    pub(crate) async fn egress(&mut self, session: Session, page: Page) -> Result<Vec<EgressView>, PartyError> {
        self.inside(&session, "see what left", &[]).await?;
        let rows = sqlx::query(
            "SELECT outbox.*, jobs.study AS study, studies.federation AS federation FROM outbox
             JOIN jobs ON jobs.job = outbox.job JOIN studies ON studies.study = jobs.study
             ORDER BY outbox.at DESC, outbox.rowid DESC LIMIT ?1 OFFSET ?2",
        )
        .bind(i64::from(PAGE_ITEMS))
        .bind(i64::from(page.skip))
        .fetch_all(self.store.readers())
        .await
        .at("read what left")?;
        rows.iter().map(egress_view).collect()
    }
}

/// Whether a payload waits until its coordinator has cosigned the entry of what it costs.
async fn waits_for_witness(conn: &mut SqliteConnection, row: &RoundRow) -> Result<bool, PartyError> {
    let site = memberships::by_id(conn, row.federation).await?.site;
    let cosigned = Ledger::on(&mut *conn).cosigned_size(site, row.federation).await.at("read the outbox")?;
    pools::is_unwitnessed(conn, &row.key, cosigned).await
}

/// Removes a file of a payload, if it is there.
pub(super) fn erase_file(path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        // The row says that it was withdrawn or sent, or it is a part that no row knows: nothing sends it, and the next start
        // sweeps it.
        Err(error) => tracing::error!(%error, "a payload could not be deleted"),
    }
}

/// Removes the files of a folder but these. Folders in it (a file system's `lost+found`) are not ours and stay.
fn sweep_folder(folder: &Path, keep: &HashSet<PathBuf>) -> Result<(), PartyError> {
    for entry in std::fs::read_dir(folder).map_err(|e| PartyError::file("read", folder, e))?.flatten() {
        let path = entry.path();
        if keep.contains(&path) || entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        std::fs::remove_file(&path).map_err(|e| PartyError::file("remove", &path, e))?;
    }
    Ok(())
}

fn egress_view(row: &SqliteRow) -> Result<EgressView, PartyError> {
    let parcel = Parcel::from_row(row)?;
    let text = |column: &'static str| row.try_get::<String, _>(column).at("read the outbox");
    let ended: Option<i64> = row.try_get("ended").at("read the outbox")?;
    let is_masked: bool = row.try_get("masked").at("read the outbox")?;
    Ok(EgressView {
        federation: parse(&text("federation")?, "federation")?,
        study: parse(&text("study")?, "study")?,
        kind: match parcel.kind {
            UploadKind::Update => "update".to_owned(),
            UploadKind::Figures => "figures".to_owned(),
        },
        digest: parcel.digest,
        bytes: parcel.bytes,
        state: match parcel.state.as_str() {
            ended @ ("withdrawn" | "refused") if parcel.left.is_some() => format!("{ended}, may have arrived"),
            _ => parcel.state,
        },
        left: parcel.left,
        round: parcel.key,
        at: Timestamp::from_millis(row.try_get("at").at("read the outbox")?),
        ended: ended.map(Timestamp::from_millis),
        protection: if is_masked { Protection::Masked } else { Protection::Unmasked },
        public_data: row.try_get("public").at("read the outbox")?,
    })
}
