//! From an opened round to what leaves: jobs, permits, work, outbox.
//!
//! `open` answers a round with a permit or a recorded refusal, `work` gives it its turn, [`worker`] computes in a child
//! process, `share` makes it wait where people need the machine, `pause` sits the rounds of one run out, `outbox` keeps what
//! was computed and asks again before it lets it go, `secure` says what a round with secure aggregation takes besides and
//! `masking` masks, `kept` is what never goes. `releases` are said again. `fetch` gets the released model for this
//! site's people, with its `card` and each `fit`, `export` writes it to their files, and `predict` uses it on this site's own
//! data. Each step is one transaction.

use hospes_ledger::{Action, Actor, Entry, ObjectKind, Purpose};
use hospes_protocol::approval::{Refusal, RefusalCode, ReleaseRule, Role};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{DatasetId, Digest, FederationId, JobId, StudyId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::memo;
use hospes_protocol::message::{FromSite, RoundOutcome};
use hospes_protocol::plan::Plan;
use hospes_protocol::round::site::Event;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::audit::{Because as _, clean};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::{Session, signers};
use crate::requests;
use crate::store::{At as _, Tx, parse};
use crate::view::{Notice, PAGE_ITEMS, Page};
use state::RoundRow;

mod answers;
mod card;
mod child;
mod choice;
mod compare;
mod device;
mod export;
mod fetch;
mod fit;
mod kept;
mod masking;
mod open;
mod outbox;
mod pause;
mod predict;
mod refusals;
mod releases;
mod secure;
mod share;
mod show;
mod state;
mod sweep;
mod work;
pub(crate) mod worker;

pub(crate) use device::Devices;
pub use device::{DeviceChoice, Probed, chosen as chosen_card, probe as probe_cards};
pub(crate) use fetch::Fetching;
pub(crate) use predict::Turn;
pub(crate) use refusals::Refusals;
pub(crate) use releases::Releases;
pub(crate) use share::{Share, somebody_works};
pub(crate) use show::Notes;
pub(crate) use work::{Working, longest_model};

/// A job about which the coordinator says nothing more for so long has ended here, in milliseconds: a week.
const SILENCE_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// A job as the database has it.
pub(crate) struct Job {
    job: JobId,
    study: StudyId,
    federation: FederationId,
    plan: Canonical<Plan>,
    /// The version of its data that it reads; `None` before its first round here.
    dataset: Option<DatasetId>,
    state: String,
    reason: Option<String>,
    model: Option<Digest>,
    release: String,
    released: Option<Timestamp>,
    at: Timestamp,
}

const SELECT: &str = "SELECT jobs.*, studies.federation AS federation FROM jobs
     JOIN studies ON studies.study = jobs.study ";

impl Job {
    fn from_row(row: &SqliteRow) -> Result<Self, PartyError> {
        let text = |column: &'static str| row.try_get::<String, _>(column).at("read a job");
        let optional = |column: &'static str| row.try_get::<Option<String>, _>(column).at("read a job");
        let plan: Vec<u8> = row.try_get("plan").at("read a job")?;
        let released: Option<i64> = row.try_get("released").at("read a job")?;
        Ok(Self {
            job: parse(&text("job")?, "job")?,
            study: parse(&text("study")?, "study")?,
            federation: parse(&text("federation")?, "federation")?,
            plan: memo::parsed(&plan, Canonical::parse)?,
            dataset: optional("dataset")?.map(|d| parse(&d, "dataset")).transpose()?,
            state: text("state")?,
            reason: optional("reason")?,
            model: optional("model")?.map(|m| parse(&m, "model")).transpose()?,
            release: text("release")?,
            released: released.map(Timestamp::from_millis),
            at: Timestamp::from_millis(row.try_get("at").at("read a job")?),
        })
    }

    async fn find(conn: &mut SqliteConnection, job: JobId) -> Result<Option<Self>, PartyError> {
        let sql = format!("{SELECT} WHERE job = ?1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(job.to_string()).fetch_optional(conn).await;
        row.at("read a job")?.as_ref().map(Self::from_row).transpose()
    }

    async fn read(conn: &mut SqliteConnection, job: JobId) -> Result<Self, PartyError> {
        Self::find(conn, job).await?.ok_or_else(|| PartyError::NotFound(format!("job {job}")))
    }

    /// Those that run, wait, or may run again: without the many that a site has been through.
    async fn unfinished(conn: &mut SqliteConnection) -> Result<Vec<Self>, PartyError> {
        let sql = format!("{SELECT} WHERE jobs.state NOT IN ('success', 'cancelled')");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await.at("read jobs")?;
        rows.iter().map(Self::from_row).collect()
    }

    async fn page(conn: &mut SqliteConnection, page: Page) -> Result<Vec<Self>, PartyError> {
        let sql = format!("{SELECT} ORDER BY jobs.at DESC, jobs.job DESC LIMIT ?1 OFFSET ?2");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(i64::from(PAGE_ITEMS)).bind(i64::from(page.skip));
        let rows = query.fetch_all(conn).await.at("read jobs")?;
        rows.iter().map(Self::from_row).collect()
    }

    fn is_over(&self) -> bool {
        !matches!(self.state.as_str(), "ready" | "waiting" | "running")
    }

    /// Whether it ended here in a way after which it may run again: without success, and nobody cancelled it. What this
    /// site's people stopped is theirs to allow again, by another approval.
    fn may_run_again(&self) -> bool {
        matches!(self.state.as_str(), "failed" | "timeout")
    }

    fn purpose(&self) -> Purpose {
        Purpose { study: Some(self.study), job: Some(self.job), approval: None }
    }
}

async fn set_job(tx: &mut Tx, job: JobId, state: &str, reason: Option<&str>) -> Result<(), PartyError> {
    let step = tx.step();
    sqlx::query("UPDATE jobs SET state = ?2, reason = ?3 WHERE job = ?1")
        .bind(job.to_string())
        .bind(state)
        .bind(reason)
        .execute(tx.conn())
        .await
        .at(step)?;
    Ok(())
}

/// A run reads one version of its data: the one with which its first round began.
async fn keep_data(tx: &mut Tx, job: JobId, dataset: DatasetId) -> Result<(), PartyError> {
    let step = tx.step();
    sqlx::query("UPDATE jobs SET dataset = ?2 WHERE job = ?1 AND dataset IS NULL")
        .bind(job.to_string())
        .bind(dataset.to_string())
        .execute(tx.conn())
        .await
        .at(step)?;
    Ok(())
}

/// The coordinator asked about a job, or put it off: the time of its silence begins anew.
async fn ask_job(tx: &mut Tx, job: JobId, state: &str, reason: Option<&str>, at: Timestamp) -> Result<(), PartyError> {
    set_job(tx, job, state, reason).await?;
    let step = tx.step();
    sqlx::query("UPDATE jobs SET at = ?2 WHERE job = ?1")
        .bind(job.to_string())
        .bind(at.as_millis())
        .execute(tx.conn())
        .await
        .at(step)?;
    Ok(())
}

async fn insert_job(
    tx: &mut Tx,
    job: JobId,
    study: StudyId,
    plan: &Canonical<Plan>,
    state: &str,
    at: Timestamp,
) -> Result<(), PartyError> {
    let step = tx.step();
    sqlx::query("INSERT INTO jobs (job, study, plan, state, release, at) VALUES (?1, ?2, ?3, ?4, 'none', ?5)")
        .bind(job.to_string())
        .bind(study.to_string())
        .bind(plan.bytes())
        .bind(state)
        .bind(at.as_millis())
        .execute(tx.conn())
        .await
        .at(step)?;
    Ok(())
}

/// Other jobs of a study, and jobs of a federation that hold a place here.
async fn count_jobs(
    conn: &mut SqliteConnection,
    job: JobId,
    study: StudyId,
    federation: FederationId,
) -> Result<(usize, usize), PartyError> {
    let (of_study, open): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM jobs WHERE study = ?1 AND job <> ?3),
                (SELECT COUNT(*) FROM jobs JOIN studies ON studies.study = jobs.study
                 WHERE studies.federation = ?2 AND jobs.state IN ('waiting', 'running'))",
    )
    .bind(study.to_string())
    .bind(federation.to_string())
    .bind(job.to_string())
    .fetch_one(conn)
    .await
    .at("count jobs")?;
    let number = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok((number(of_study), number(open)))
}

impl Engine {
    /// Whether a job could run here; the first phase of its start. What stands against it is recorded like a success.
    pub(crate) async fn reserve(
        &mut self,
        federation: FederationId,
        job: JobId,
        study: StudyId,
        plan: Canonical<Plan>,
    ) -> Result<Option<Refusal>, PartyError> {
        let mut tx = self.store.begin("reserve a job").await?;
        let known = Job::find(tx.conn(), job).await?;
        let is_other = |k: &Job| k.federation != federation || k.study != study || k.plan.digest() != plan.digest();
        let offered_before =
            || Refusal::new(RefusalCode::Header, "the job was offered before with another study or plan");
        let refusal = match &known {
            // PRIVACY: the id of a run of another federation. Its coordinator hears what it would of any other id, as far as
            // that can be: it would learn that this site takes part there.
            Some(k) if k.federation != federation => {
                let against = self.against_job(&mut tx, federation, job, study, &plan).await?;
                Some(against.unwrap_or_else(offered_before))
            }
            Some(k) if is_other(k) => Some(offered_before()),
            Some(k) if k.may_run_again() => self.against_rerun(&mut tx, federation, job, study, &plan).await?,
            Some(k) if k.is_over() => Some(Refusal::new(RefusalCode::CannotRun, "the job has ended here")),
            Some(k) if k.state != "ready" => return Ok(None),
            _ => self.against_job(&mut tx, federation, job, study, &plan).await?,
        };
        let entry = self
            .entry(Actor::peer(federation), Action::JobStarted)
            .object(ObjectKind::Job, job, None)
            .object(ObjectKind::Plan, plan.digest().short(), Some(plan.digest()))
            .purpose(Purpose { study: Some(study), job: Some(job), approval: None });
        let now = self.now();
        let waits = known.as_ref().is_some_and(|k| k.state == "ready" && !is_other(k));
        match &refusal {
            Some(refusal) => {
                let busy = refusal.code == RefusalCode::Busy;
                match &known {
                    None if busy => insert_job(&mut tx, job, study, &plan, "ready", now).await?,
                    Some(k) if waits || (busy && k.may_run_again() && !is_other(k)) => {
                        ask_job(&mut tx, job, "ready", Some(&refusal.detail), now).await?;
                    }
                    _ => {}
                }
                // It is asked for again and again until there is room; the first time is entered, the others are counted.
                let is_repeated = (busy && waits) || self.refusals.is_repeated(federation, job, refusal);
                if is_repeated {
                    self.count_control(federation, false, "job put off");
                } else {
                    self.enter_refusal(&mut tx, federation, entry, refusal).await?;
                }
            }
            None if waits => ask_job(&mut tx, job, "waiting", None, now).await?,
            None if known.is_some() => {
                // It runs again from its first task that is not done; its rounds stay, so that no permit is given twice.
                ask_job(&mut tx, job, "waiting", None, now).await?;
                self.append(&mut tx, &entry.because("reserved, to run again")).await?;
            }
            None => {
                insert_job(&mut tx, job, study, &plan, "waiting", now).await?;
                self.append(&mut tx, &entry.because("reserved")).await?;
            }
        }
        tx.commit().await?;
        self.refusals.remember(federation, job, refusal.as_ref());
        self.notify(Notice::Jobs);
        Ok(refusal)
    }

    /// Enters what is refused to a coordinator; beyond a limit it is only counted.
    async fn enter_refusal(
        &mut self,
        tx: &mut Tx,
        federation: FederationId,
        entry: Entry,
        refusal: impl std::fmt::Display,
    ) -> Result<(), PartyError> {
        if self.refusals.is_entered(federation, self.now()) {
            return self.append(tx, &entry.refused(refusal)).await.map(drop);
        }
        self.count_control(federation, false, "refused without an entry (limit REFUSALS)");
        Ok(())
    }

    /// What stands against a run that ended without success and is to go on.
    async fn against_rerun(
        &mut self,
        tx: &mut Tx,
        federation: FederationId,
        job: JobId,
        study: StudyId,
        plan: &Canonical<Plan>,
    ) -> Result<Option<Refusal>, PartyError> {
        let against = self.against_job(tx, federation, job, study, plan).await?;
        if against.as_ref().is_some_and(|refusal| refusal.code == RefusalCode::Busy) {
            // It waits for room, and is asked for until there is some.
            return Ok(against);
        }
        // Each time is an entry; like runs that never got anywhere, they are limited.
        let again = self.again.entry(study).or_default();
        *again = again.saturating_add(1);
        let often = "it was run again too often (limit SPARE_JOBS)";
        Ok(if *again > limits::SPARE_JOBS { Some(Refusal::new(RefusalCode::CannotRun, often)) } else { against })
    }

    async fn against_job(
        &self,
        tx: &mut Tx,
        federation: FederationId,
        job: JobId,
        study: StudyId,
        plan: &Canonical<Plan>,
    ) -> Result<Option<Refusal>, PartyError> {
        let no = |code, detail: &str| Ok(Some(Refusal::new(code, detail)));
        if let Some(reason) = self.stopped(tx.conn(), federation).await? {
            return no(RefusalCode::Stopped, &reason);
        }
        match requests::study(tx.conn(), study).await {
            Ok(offered) if offered.federation == federation => {}
            Ok(_) | Err(PartyError::NotFound(_)) => {
                return no(RefusalCode::NotApproved, "the study was never offered here");
            }
            Err(other) => return Err(other),
        }
        let Some(stored) = requests::approval_in_force(tx.conn(), study).await? else {
            return no(RefusalCode::NotApproved, "nobody has approved the study here");
        };
        if let Err(refusal) = stored.state.check() {
            return Ok(Some(refusal));
        }
        let approval = &stored.approval;
        let envelope = &approval.document.envelope;
        if let Err(refusal) = approval.check_signatures(&signers(tx.conn()).await?) {
            return Ok(Some(refusal));
        }
        if self.now() < envelope.limits.not_before || self.now() >= envelope.limits.expires {
            return no(RefusalCode::Expired, "the approval is not in force at this time");
        }
        if let Err(refusal) = envelope.computation.holds(plan) {
            return Ok(Some(refusal));
        }
        let known = Job::find(tx.conn(), job).await?.filter(|known| known.federation == federation);
        let kept = known.and_then(|known| known.dataset);
        let against = {
            let (dataset, against) = Box::pin(requests::data_of_run(tx.conn(), &stored, kept, self.now())).await?;
            envelope.data.holds(&dataset.facts()?).err().or(against)
        };
        if against.is_some() {
            return Ok(against);
        }
        // A run that goes on is one of those that were used.
        let mut jobs = requests::jobs_of(tx.conn(), stored.id()).await?;
        jobs.remove(&job);
        let used = jobs.len() as u64;
        if used >= u64::from(envelope.computation.max_runs) {
            return no(RefusalCode::RunsUsedUp, "all approved runs are used");
        }
        let (of_study, open) = count_jobs(tx.conn(), job, study, federation).await?;
        if of_study
            >= limits::SPARE_JOBS.saturating_add(usize::try_from(envelope.computation.max_runs).unwrap_or(usize::MAX))
        {
            let words = format!("{of_study} other runs of the study were begun here already (limit SPARE_JOBS)");
            return no(RefusalCode::RunsUsedUp, &words);
        }
        Ok(self.against_more_jobs(open))
    }

    pub(crate) async fn on_job_start(&mut self, federation: FederationId, job: JobId) -> Result<(), PartyError> {
        let mut tx = self.store.begin("start a job").await?;
        let Some(found) = Job::find(tx.conn(), job).await? else { return Ok(()) };
        if found.federation != federation || found.state != "waiting" {
            return Ok(());
        }
        set_job(&mut tx, job, "running", None).await?;
        let entry = self
            .entry(Actor::peer(federation), Action::JobStarted)
            .object(ObjectKind::Job, job, None)
            .purpose(found.purpose());
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Jobs);
        Ok(())
    }

    pub(crate) async fn on_job_end(
        &mut self,
        federation: FederationId,
        job: JobId,
        state: &str,
        reason: Option<String>,
        model: Option<Digest>,
    ) -> Result<(), PartyError> {
        let state = match state {
            "success" | "timeout" | "cancelled" => state,
            _ => "failed",
        };
        if state == "success" && self.on_chosen(federation, job, model).await? {
            return Ok(());
        }
        self.end_job(federation, job, state, reason.as_deref(), model, Actor::peer(federation)).await
    }

    /// Ends a job and every round of it that is still open.
    async fn end_job(
        &mut self,
        federation: FederationId,
        job: JobId,
        state: &str,
        reason: Option<&str>,
        model: Option<Digest>,
        actor: Actor,
    ) -> Result<(), PartyError> {
        let mut tx = self.store.begin("end a job").await?;
        let Some(found) = Job::find(tx.conn(), job).await? else { return Ok(()) };
        // It may have gone on without this site, after it had ended here: its results, if this site has a part in them, wait
        // for this site's people all the same, also if it was they who stopped it.
        let stopped = found.state == "cancelled" && found.release == "none";
        let goes_on = state == "success" && (found.may_run_again() || stopped);
        if found.federation != federation || (found.is_over() && !goes_on) {
            return Ok(());
        }
        let rounds = RoundRow::of_job(tx.conn(), &job.to_string()).await?;
        let part = rounds.iter().any(RoundRow::took_part) && self.has_result(&mut tx, &found, model).await?;
        let rule = self.release_rule(&mut tx, &rounds).await?;
        let release = match (state == "success" && part, rule) {
            (true, Some(ReleaseRule::Automatic)) if !stopped => "released",
            (true, _) => "held",
            (false, _) => "none",
        };
        let reason = reason.map(clean);
        if !stopped {
            set_job(&mut tx, job, state, reason.as_deref()).await?;
        }
        sqlx::query("UPDATE jobs SET model = ?2, release = ?3, released = ?4 WHERE job = ?1")
            .bind(job.to_string())
            .bind(model.map(|m| m.to_string()))
            .bind(release)
            .bind((release == "released").then_some(self.now().as_millis()))
            .execute(tx.conn())
            .await
            .at("end a job")?;
        let mut to_do = Vec::new();
        for mut row in rounds.into_iter().filter(|r| !r.state.is_terminal()) {
            let outcome = RoundOutcome::Abandoned("the job ended".into());
            let actions = row.step(&mut tx, Event::Closed { outcome, included: false }, self.now()).await?;
            self.close_outbox(&mut tx, &row, false).await?;
            to_do.push((row, actions));
        }
        let mut entry = self.entry(actor, Action::JobEnded).object(ObjectKind::Job, job, None);
        if let Some(model) = model {
            entry = entry.object(ObjectKind::Model, model.short(), Some(model));
        }
        let words = reason.map_or(state.to_owned(), |r| format!("{state}: {r}"));
        self.append(&mut tx, &entry.purpose(found.purpose()).because(words)).await?;
        tx.commit().await?;
        for (row, actions) in to_do {
            self.act(&row, actions);
        }
        if release == "released" {
            self.say(federation, FromSite::Release { job });
        }
        self.drop_models(&found).await?;
        // A run that may run again goes on from what was kept; see `kept_needed` for how long.
        if !matches!(state, "failed" | "timeout") {
            self.drop_kept(&found).await?;
        }
        self.notify(Notice::Jobs);
        Ok(())
    }

    async fn release_rule(&self, tx: &mut Tx, rounds: &[RoundRow]) -> Result<Option<ReleaseRule>, PartyError> {
        match rounds.iter().rev().find_map(|r| r.approval) {
            Some(id) => Ok(Some(requests::approval_by_id(tx.conn(), id).await?.approval.document.envelope.release)),
            None => Ok(None),
        }
    }

    /// Jobs about which nothing was heard for long end by themselves (invariant I7).
    pub(crate) async fn end_silent_jobs(&mut self) -> Result<(), PartyError> {
        let before = self.now().plus_millis(-SILENCE_MS).as_millis();
        let jobs: Vec<(String, String)> = sqlx::query_as(
            "SELECT jobs.job, studies.federation FROM jobs JOIN studies ON studies.study = jobs.study
             WHERE jobs.state IN ('ready', 'waiting', 'running') AND jobs.at < ?1
               AND NOT EXISTS (SELECT 1 FROM rounds WHERE rounds.job = jobs.job AND rounds.at >= ?1)",
        )
        .bind(before)
        .fetch_all(self.store.readers())
        .await
        .at("find silent jobs")?;
        for (job, federation) in jobs {
            let (job, federation) = (parse(&job, "job")?, parse(&federation, "federation")?);
            let reason = Some("the coordinator said nothing more about it for a week");
            self.end_job(federation, job, "timeout", reason, None, Actor::Engine).await?;
        }
        Ok(())
    }

    pub(crate) async fn cancel_job(&mut self, session: Session, job: JobId, reason: String) -> Result<(), PartyError> {
        let roles = &[Role::DataSteward, Role::Administrator];
        let acting = self.acting(&session, "stop a run", roles).await?;
        requests::check_reason(&reason)?;
        let mut tx = self.store.begin("cancel a job").await?;
        let found = Job::read(tx.conn(), job).await?;
        if found.is_over() {
            return Err(PartyError::state(format!("the run has ended: {}", found.state)));
        }
        set_job(&mut tx, job, "cancelled", Some(&reason)).await?;
        let entry = self.entry(acting.actor(), Action::JobCancelled).object(ObjectKind::Job, job, None);
        self.append(&mut tx, &entry.purpose(found.purpose()).because(&reason)).await?;
        tx.commit().await?;
        let mut conn = self.reader().await?;
        let rounds = RoundRow::of_job(&mut conn, &job.to_string()).await?;
        drop(conn);
        let stopped = Refusal::new(RefusalCode::Stopped, "this site's staff stopped the run");
        let open = rounds.into_iter().filter(|r| !r.state.is_terminal());
        self.withdraw_all(open.map(|r| (r.key, stopped.clone())).collect()).await?;
        self.drop_models(&found).await?;
        self.drop_kept(&found).await?;
        self.notify(Notice::Jobs);
        Ok(())
    }

    pub(crate) async fn release(&mut self, session: Session, job: JobId) -> Result<(), PartyError> {
        let roles = &[Role::DataSteward, Role::DataAccessApprover];
        // By somebody who can look at them, which nobody of another organisation can.
        let acting = self.inside(&session, "release results", roles).await?;
        let mut tx = self.store.begin("release results").await?;
        let found = Job::read(tx.conn(), job).await?;
        if found.release != "held" {
            return Err(PartyError::state(match found.release.as_str() {
                "released" => "the results were released before",
                _ => "the run has no results that this site could release",
            }));
        }
        sqlx::query("UPDATE jobs SET release = 'released', released = ?2 WHERE job = ?1")
            .bind(job.to_string())
            .bind(self.now().as_millis())
            .execute(tx.conn())
            .await
            .at("release results")?;
        let entry = self.entry(acting.actor(), Action::ResultsReleased).object(ObjectKind::Job, job, found.model);
        self.append(&mut tx, &entry.purpose(found.purpose())).await?;
        tx.commit().await?;
        self.say(found.federation, FromSite::Release { job });
        self.notify(Notice::Jobs);
        Ok(())
    }
}
