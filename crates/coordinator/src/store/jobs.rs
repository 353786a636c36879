//! Jobs, their members and their tasks. States change along legal transitions only, and only in the hands of the
//! replica that holds the job's lease.

use std::fmt;
use std::str::FromStr;

use hospes_protocol::id::{Digest, JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::message::Decision;
use sqlx::any::AnyRow;

use super::{Store, Tx, integer, optional_integer, optional_text, parsed, text};
use crate::Error;

macro_rules! states {
    ($(#[$outer:meta])* $name:ident, $what:literal { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Word in the store and the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    other => Err(format!(concat!("'{}' is no state of a ", $what), other)),
                }
            }
        }
    };
}
pub(super) use states;

states! {
    /// State of a job: ready → waiting → running ⇄ paused → success | failed | timeout | cancelled; failed and timeout →
    /// (rerun) waiting.
    JobState, "job" {
        /// Made, its members were not asked yet.
        Ready = "ready",
        /// Its members are asked whether they can run it.
        Waiting = "waiting",
        /// Its rounds run.
        Running = "running",
        /// Held by an operator.
        Paused = "paused",
        /// Every task is done.
        Success = "success",
        /// A task failed, or a member cannot run it.
        Failed = "failed",
        /// Too few sites for too long.
        Timeout = "timeout",
        /// Stopped by somebody.
        Cancelled = "cancelled",
    }
}

states! {
    /// State of a task: waiting → running → success | skipped | failed | timeout | cancelled.
    TaskState, "task" {
        /// Its turn has not come.
        Waiting = "waiting",
        /// Its rounds run.
        Running = "running",
        /// Done.
        Success = "success",
        /// Never ran, because the job ended before.
        Skipped = "skipped",
        /// Failed.
        Failed = "failed",
        /// Too few sites for too long.
        Timeout = "timeout",
        /// Stopped by somebody.
        Cancelled = "cancelled",
    }
}

states! {
    /// What a member answered to the first phase of the start.
    MemberState, "member of a job" {
        /// Asked, has not answered.
        Asked = "asked",
        /// Can run it.
        Reserved = "reserved",
        /// Cannot.
        Refused = "refused",
    }
}

impl JobState {
    /// Whether the job is over; only a rerun goes on from here.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Timeout | Self::Cancelled)
    }

    /// Whether a job may go from here to there.
    pub fn may_become(self, next: Self) -> bool {
        use JobState::{Cancelled, Failed, Paused, Ready, Running, Success, Timeout, Waiting};
        match self {
            Ready => matches!(next, Waiting | Cancelled),
            Waiting => matches!(next, Running | Failed | Timeout | Cancelled),
            Running => matches!(next, Paused | Success | Failed | Timeout | Cancelled),
            Paused => matches!(next, Running | Failed | Timeout | Cancelled),
            Failed | Timeout => next == Waiting,
            // No site takes part again in a run that was cancelled.
            Success | Cancelled => false,
        }
    }
}

impl TaskState {
    /// Whether the task is over.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }

    /// Whether a task may go from here to there; a rerun of its job takes what is not a success back to waiting.
    pub fn may_become(self, next: Self) -> bool {
        use TaskState::{Cancelled, Failed, Running, Skipped, Success, Timeout, Waiting};
        match self {
            Waiting => matches!(next, Running | Success | Skipped | Cancelled),
            Running => matches!(next, Success | Failed | Timeout | Cancelled),
            Skipped | Failed | Timeout | Cancelled => next == Waiting,
            Success => false,
        }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Id.
    pub job: JobId,
    /// Study that it is a run of.
    pub study: StudyId,
    /// State.
    pub state: JobState,
    /// Why it ended as it did, in words.
    pub reason: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// By whom: the name of a token, or `automatic start`.
    pub created_by: String,
    /// When its rounds began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Its final model.
    pub model: Option<Digest>,
    /// Which setting of its study it runs, from 1; `None` for a study without settings.
    pub setting: Option<u32>,
    /// The figure by which settings are ranked, as it is written, once all are through.
    pub figure: Option<String>,
    /// When it was chosen as the best of the settings.
    pub chosen: Option<Timestamp>,
}

/// A member of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobMemberRow {
    /// Site.
    pub site: SiteId,
    /// What it answered.
    pub state: MemberState,
    /// Why not, in words.
    pub reason: Option<String>,
    /// When its people released the results.
    pub released: Option<Timestamp>,
}

/// A task of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    /// Name in the plan.
    pub task: String,
    /// Place in the order of running.
    pub position: u32,
    /// Component.
    pub component: String,
    /// State.
    pub state: TaskState,
    /// Why it ended as it did, in words.
    pub reason: Option<String>,
    /// Rounds that it takes; 0 for one that stays at the sites.
    pub rounds: u32,
    /// Rounds that are done.
    pub done: u32,
    /// Its newest model, where it makes one.
    pub model: Option<Digest>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

impl JobRow {
    /// Whether its figure was compared with those of other settings; a success has a reason only where it was not.
    pub fn is_compared(&self) -> bool {
        self.figure.is_some() && self.reason.is_none()
    }

    fn read(row: &AnyRow) -> Result<Self, Error> {
        Ok(Self {
            job: parsed(row, "job")?,
            study: parsed(row, "study")?,
            state: parsed(row, "state")?,
            reason: optional_text(row, "reason")?,
            created: Timestamp::from_millis(integer(row, "created_ms")?),
            created_by: text(row, "created_by")?,
            started: optional_integer(row, "started_ms")?.map(Timestamp::from_millis),
            ended: optional_integer(row, "ended_ms")?.map(Timestamp::from_millis),
            model: optional_digest(row, "model")?,
            setting: optional_integer(row, "setting")?
                .map(|n| u32::try_from(n).map_err(|e| Error::corrupt("setting", e)))
                .transpose()?,
            figure: optional_text(row, "figure")?,
            chosen: optional_integer(row, "chosen_ms")?.map(Timestamp::from_millis),
        })
    }
}

pub(super) fn optional_digest(row: &AnyRow, column: &'static str) -> Result<Option<Digest>, Error> {
    optional_text(row, column)?.map(|text| text.parse().map_err(|e| Error::corrupt(column, e))).transpose()
}

pub(super) fn small(row: &AnyRow, column: &'static str) -> Result<u32, Error> {
    u32::try_from(integer(row, column)?).map_err(|e| Error::corrupt(column, e))
}

fn read_member(row: &AnyRow) -> Result<JobMemberRow, Error> {
    Ok(JobMemberRow {
        site: parsed(row, "site")?,
        state: parsed(row, "state")?,
        reason: optional_text(row, "reason")?,
        released: optional_integer(row, "released_ms")?.map(Timestamp::from_millis),
    })
}

fn read_task(row: &AnyRow) -> Result<TaskRow, Error> {
    Ok(TaskRow {
        task: text(row, "task")?,
        position: small(row, "position")?,
        component: text(row, "component")?,
        state: parsed(row, "state")?,
        reason: optional_text(row, "reason")?,
        rounds: small(row, "rounds")?,
        done: small(row, "done")?,
        model: optional_digest(row, "model")?,
        started: optional_integer(row, "started_ms")?.map(Timestamp::from_millis),
        ended: optional_integer(row, "ended_ms")?.map(Timestamp::from_millis),
    })
}

impl Store {
    /// The newest 1,000 jobs, newest first: of one study, or of all.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn jobs(&self, study: Option<StudyId>) -> Result<Vec<JobRow>, Error> {
        let mut connection = self.read().await?;
        let query = match study {
            None => sqlx::query("SELECT * FROM jobs ORDER BY created_ms DESC, job DESC LIMIT 1000"),
            Some(study) => {
                sqlx::query("SELECT * FROM jobs WHERE study = $1 ORDER BY created_ms DESC, job DESC LIMIT 1000")
                    .bind(study.to_string())
            }
        };
        query.fetch_all(&mut *connection).await.map_err(Error::database("jobs"))?.iter().map(JobRow::read).collect()
    }

    /// A job of a study that is not over; without settings there is at most one.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn open_job(&self, study: StudyId) -> Result<Option<JobRow>, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query(
            "SELECT * FROM jobs WHERE study = $1 AND state IN ('ready', 'waiting', 'running', 'paused') LIMIT 1",
        )
        .bind(study.to_string())
        .fetch_optional(&mut *connection)
        .await
        .map_err(Error::database("open_job"))?;
        row.as_ref().map(JobRow::read).transpose()
    }

    /// Jobs that are not over, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn open_jobs(&self) -> Result<Vec<JobRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT * FROM jobs WHERE state IN ('ready', 'waiting', 'running', 'paused') ORDER BY created_ms, job",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("open_jobs"))?;
        rows.iter().map(JobRow::read).collect()
    }

    /// Studies that a site was asked about and that were withdrawn, newest first, at most `most`.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn withdrawn_studies_of(&self, site: SiteId, most: u32) -> Result<Vec<StudyId>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT s.study AS study FROM studies s JOIN study_members m ON m.study = s.study \
             WHERE m.site = $1 AND s.state = 'withdrawn' ORDER BY s.submitted_ms DESC, s.study LIMIT $2",
        )
        .bind(site.to_string())
        .bind(i64::from(most))
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("withdrawn_studies_of"))?;
        rows.iter().map(|row| parsed(row, "study")).collect()
    }

    /// Studies that are offered and of which there is no job yet, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn studies_without_job(&self) -> Result<Vec<StudyId>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT s.study AS study FROM studies s LEFT JOIN jobs j ON j.study = s.study \
             WHERE s.state = 'offered' AND j.job IS NULL ORDER BY s.submitted_ms, s.study",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("studies_without_job"))?;
        rows.iter().map(|row| parsed(row, "study")).collect()
    }

    /// Successful jobs whose final model has no card yet.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn jobs_without_card(&self) -> Result<Vec<JobId>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT j.job AS job FROM jobs j JOIN models m ON m.job = j.job AND m.model = j.model \
             WHERE j.state = 'success' AND m.state = 'final' AND m.card IS NULL \
               AND (j.setting IS NULL OR j.chosen_ms IS NOT NULL)",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("jobs_without_card"))?;
        rows.iter().map(|row| parsed(row, "job")).collect()
    }

    /// One job.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn job(&self, job: JobId) -> Result<Option<JobRow>, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query("SELECT * FROM jobs WHERE job = $1")
            .bind(job.to_string())
            .fetch_optional(&mut *connection)
            .await
            .map_err(Error::database("job"))?;
        row.as_ref().map(JobRow::read).transpose()
    }

    /// Members of a job in order of their ids.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn job_members(&self, job: JobId) -> Result<Vec<JobMemberRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM job_members WHERE job = $1")
            .bind(job.to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("job_members"))?;
        let mut members = rows.iter().map(read_member).collect::<Result<Vec<_>, _>>()?;
        // Base32 does not sort like the bytes it stands for.
        members.sort_by_key(|m| m.site);
        Ok(members)
    }

    /// Jobs of which a site is a member and that are over, at most `most`: first those whose results wait for its release,
    /// however long ago they ended, then those that ended since then, each newest first. For the results of a setting that
    /// was not chosen nobody waits, nor for those of a study that was withdrawn.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn ended_jobs_of(&self, site: SiteId, since: Timestamp, most: u32) -> Result<Vec<JobRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT j.* FROM jobs j JOIN job_members m ON m.job = j.job JOIN studies s ON s.study = j.study \
             WHERE m.site = $1 AND j.state IN ('success', 'failed', 'timeout', 'cancelled') \
               AND (COALESCE(j.chosen_ms, j.ended_ms) >= $2 \
                 OR (j.state = 'success' AND m.released_ms IS NULL AND m.state <> 'refused' \
                   AND (j.setting IS NULL OR j.chosen_ms IS NOT NULL) \
                   AND s.state <> 'withdrawn')) \
             ORDER BY CASE WHEN j.state = 'success' AND m.released_ms IS NULL AND m.state <> 'refused' \
               AND (j.setting IS NULL OR j.chosen_ms IS NOT NULL) AND s.state <> 'withdrawn' THEN 0 ELSE 1 END, \
               COALESCE(j.chosen_ms, j.ended_ms) DESC LIMIT $3",
        )
        .bind(site.to_string())
        .bind(since.as_millis())
        .bind(i64::from(most))
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("ended_jobs_of"))?;
        rows.iter().map(JobRow::read).collect()
    }

    /// Tasks of a job in the order in which they run.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn tasks(&self, job: JobId) -> Result<Vec<TaskRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM tasks WHERE job = $1 ORDER BY position")
            .bind(job.to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("tasks"))?;
        rows.iter().map(read_task).collect()
    }
}

/// What a new job starts with.
#[derive(Debug, Clone)]
pub struct NewJob<'a> {
    /// Id.
    pub job: JobId,
    /// Study.
    pub study: StudyId,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: &'a str,
    /// Which setting of its study it runs, from 1.
    pub setting: Option<u32>,
    /// Members.
    pub members: &'a [SiteId],
    /// Name, component and rounds of its tasks in the order in which they run.
    pub tasks: &'a [(String, &'static str, u32)],
}

impl Tx {
    /// What a member decided on a study so far; the outer `None` if it is no member.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn decided(&mut self, study: StudyId, site: SiteId) -> Result<Option<Option<Decision>>, Error> {
        let row = sqlx::query("SELECT decision FROM study_members WHERE study = $1 AND site = $2")
            .bind(study.to_string())
            .bind(site.to_string())
            .fetch_optional(self.conn())
            .await
            .map_err(Error::database("decided"))?;
        let read = |json: String| serde_json::from_str(&json).map_err(|e| Error::corrupt("decision", e));
        row.map(|row| optional_text(&row, "decision")?.map(read).transpose()).transpose()
    }

    /// Adds a job, ready, with its members, asked, and its tasks, waiting.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn insert_job(&mut self, new: &NewJob<'_>) -> Result<(), Error> {
        let failed = || Error::database("insert_job");
        sqlx::query(
            "INSERT INTO jobs (job, study, state, created_ms, created_by, setting) \
             VALUES ($1, $2, 'ready', $3, $4, $5)",
        )
        .bind(new.job.to_string())
        .bind(new.study.to_string())
        .bind(new.at.as_millis())
        .bind(new.by.to_owned())
        .bind(new.setting.map(i64::from))
        .execute(self.conn())
        .await
        .map_err(failed())?;
        for site in new.members {
            sqlx::query("INSERT INTO job_members (job, site, state) VALUES ($1, $2, 'asked')")
                .bind(new.job.to_string())
                .bind(site.to_string())
                .execute(self.conn())
                .await
                .map_err(failed())?;
        }
        for (position, (task, component, rounds)) in (0i64..).zip(new.tasks) {
            sqlx::query(
                "INSERT INTO tasks (job, task, position, component, state, rounds, done) \
                 VALUES ($1, $2, $3, $4, 'waiting', $5, 0)",
            )
            .bind(new.job.to_string())
            .bind(task.clone())
            .bind(position)
            .bind((*component).to_owned())
            .bind(i64::from(*rounds))
            .execute(self.conn())
            .await
            .map_err(failed())?;
        }
        Ok(())
    }

    /// Takes a job to another state.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the store's state does not allow it, [`Error::Database`] if it cannot be written.
    pub async fn set_job_state(
        &mut self,
        job: JobId,
        from: JobState,
        to: JobState,
        reason: Option<&str>,
        at: Timestamp,
    ) -> Result<(), Error> {
        if !from.may_become(to) {
            return Err(Error::corrupt("job", format!("it cannot go from {from} to {to}")));
        }
        let done = sqlx::query(
            "UPDATE jobs SET state = $1, reason = $2, \
               started_ms = CASE WHEN $3 = 'running' AND started_ms IS NULL THEN $4 ELSE started_ms END, \
               ended_ms = CASE WHEN $5 = 1 THEN $6 ELSE NULL END \
             WHERE job = $7 AND state = $8",
        )
        .bind(to.as_str())
        .bind(reason.map(str::to_owned))
        .bind(to.as_str())
        .bind(at.as_millis())
        .bind(i64::from(to.is_terminal()))
        .bind(at.as_millis())
        .bind(job.to_string())
        .bind(from.as_str())
        .execute(self.conn())
        .await
        .map_err(Error::database("set_job_state"))?;
        if done.rows_affected() != 1 {
            return Err(Error::corrupt("job", format!("it is not {from} any more, somebody else changed it")));
        }
        Ok(())
    }

    /// Names the final model of a job.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn set_job_model(&mut self, job: JobId, model: Digest) -> Result<(), Error> {
        sqlx::query("UPDATE jobs SET model = $1 WHERE job = $2")
            .bind(model.to_string())
            .bind(job.to_string())
            .execute(self.conn())
            .await
            .map_err(Error::database("set_job_model"))?;
        Ok(())
    }

    /// Writes what a member answered, or that it is asked again.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn set_job_member(
        &mut self,
        job: JobId,
        site: SiteId,
        state: MemberState,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO job_members (job, site, state, reason) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (job, site) DO UPDATE SET state = excluded.state, reason = excluded.reason",
        )
        .bind(job.to_string())
        .bind(site.to_string())
        .bind(state.as_str())
        .bind(reason.map(str::to_owned))
        .execute(self.conn())
        .await
        .map_err(Error::database("set_job_member"))?;
        Ok(())
    }

    /// Writes that a member's people released the results of a job; `false` if they had before, or it is no member.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn release_job(&mut self, job: JobId, site: SiteId, at: Timestamp) -> Result<bool, Error> {
        let done =
            sqlx::query("UPDATE job_members SET released_ms = $1 WHERE job = $2 AND site = $3 AND released_ms IS NULL")
                .bind(at.as_millis())
                .bind(job.to_string())
                .bind(site.to_string())
                .execute(self.conn())
                .await
                .map_err(Error::database("release_job"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes a task to another state.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the store's state does not allow it, [`Error::Database`] if it cannot be written.
    pub async fn set_task_state(
        &mut self,
        job: JobId,
        task: &str,
        from: TaskState,
        to: TaskState,
        reason: Option<&str>,
        at: Timestamp,
    ) -> Result<(), Error> {
        if !from.may_become(to) {
            return Err(Error::corrupt("task", format!("it cannot go from {from} to {to}")));
        }
        let done = sqlx::query(
            "UPDATE tasks SET state = $1, reason = $2, \
               started_ms = CASE WHEN $3 = 'running' AND started_ms IS NULL THEN $4 ELSE started_ms END, \
               ended_ms = CASE WHEN $5 = 1 THEN $6 ELSE NULL END \
             WHERE job = $7 AND task = $8 AND state = $9",
        )
        .bind(to.as_str())
        .bind(reason.map(str::to_owned))
        .bind(to.as_str())
        .bind(at.as_millis())
        .bind(i64::from(to.is_terminal()))
        .bind(at.as_millis())
        .bind(job.to_string())
        .bind(task.to_owned())
        .bind(from.as_str())
        .execute(self.conn())
        .await
        .map_err(Error::database("set_task_state"))?;
        if done.rows_affected() != 1 {
            return Err(Error::corrupt("task", format!("it is not {from} any more, somebody else changed it")));
        }
        Ok(())
    }

    /// Writes how far a task is, and its newest model.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn set_task_progress(
        &mut self,
        job: JobId,
        task: &str,
        done: u32,
        model: Option<Digest>,
    ) -> Result<(), Error> {
        sqlx::query("UPDATE tasks SET done = $1, model = COALESCE($2, model) WHERE job = $3 AND task = $4")
            .bind(i64::from(done))
            .bind(model.map(|m| m.to_string()))
            .bind(job.to_string())
            .bind(task.to_owned())
            .execute(self.conn())
            .await
            .map_err(Error::database("set_task_progress"))?;
        Ok(())
    }

    /// Takes the lease of a job, or holds it longer; `false` if another replica has it. Every transaction that touches
    /// a job does this first, so that a replica that was paused for too long can change nothing any more.
    ///
    /// # Units
    /// `for_ms` in milliseconds from `now`.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn lease_job(&mut self, job: JobId, holder: &str, now: Timestamp, for_ms: i64) -> Result<bool, Error> {
        self.lease(&format!("job/{job}"), holder, now, for_ms).await
    }

    pub(super) async fn lease(
        &mut self,
        subject: &str,
        holder: &str,
        now: Timestamp,
        for_ms: i64,
    ) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO leases (subject, holder, fence, until_ms) VALUES ($1, $2, 1, $3) \
             ON CONFLICT (subject) DO UPDATE SET \
               fence = leases.fence + CASE WHEN leases.holder = excluded.holder THEN 0 ELSE 1 END, \
               holder = excluded.holder, until_ms = excluded.until_ms \
             WHERE leases.holder = excluded.holder OR leases.until_ms <= $4",
        )
        .bind(subject.to_owned())
        .bind(holder.to_owned())
        .bind(now.plus_millis(for_ms).as_millis())
        .bind(now.as_millis())
        .execute(self.conn())
        .await
        .map_err(Error::database("lease"))?;
        Ok(done.rows_affected() == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_and_cancellation_are_final_and_other_ends_lead_back_only_by_a_rerun() {
        use JobState::{Cancelled, Failed, Paused, Ready, Running, Success, Timeout, Waiting};
        let all = [Ready, Waiting, Running, Paused, Success, Failed, Timeout, Cancelled];
        for state in all {
            let next: Vec<JobState> = all.into_iter().filter(|n| state.may_become(*n)).collect();
            assert_eq!(state.as_str().parse::<JobState>(), Ok(state));
            match state {
                Success | Cancelled => assert!(next.is_empty()),
                Failed | Timeout => assert_eq!(next, [Waiting]),
                _ => assert!(next.iter().any(|n| n.is_terminal()), "{state} can end"),
            }
        }
        assert!(!Ready.may_become(Running), "no job runs before its members were asked");
        assert!("done".parse::<JobState>().is_err());
    }

    #[test]
    fn tasks_that_succeeded_never_run_again() {
        use TaskState::{Failed, Running, Success, Waiting};
        assert!(!Success.may_become(Waiting) && !Success.may_become(Running));
        assert!(Failed.may_become(Waiting) && !Failed.may_become(Running));
    }
}
