//! Studies with many settings: each setting is a job once, and one job is chosen.

use std::fmt;
use std::str::FromStr;

use hospes_protocol::id::{Digest, JobId, StudyId, Timestamp};
use sqlx::any::AnyRow;

use super::jobs::states;
use super::{Store, Tx, integer, optional_integer, optional_text, parsed, text};
use crate::Error;

states! {
    /// State of a sweep: running → success | failed | cancelled.
    SweepState, "sweep" {
        /// Settings run, or wait for their turn.
        Running = "running",
        /// Every setting is through, and one is the best.
        Success = "success",
        /// No setting gave a model that could be chosen.
        Failed = "failed",
        /// The study was withdrawn.
        Cancelled = "cancelled",
    }
}

/// A study's way through its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepRow {
    /// Study.
    pub study: StudyId,
    /// State.
    pub state: SweepState,
    /// Why it ended as it did, in words.
    pub reason: Option<String>,
    /// By whom it was started: the name of a token, or `automatic start`.
    pub created_by: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

impl SweepRow {
    fn read(row: &AnyRow) -> Result<Self, Error> {
        Ok(Self {
            study: parsed(row, "study")?,
            state: parsed(row, "state")?,
            reason: optional_text(row, "reason")?,
            created_by: text(row, "created_by")?,
            started: Timestamp::from_millis(integer(row, "started_ms")?),
            ended: optional_integer(row, "ended_ms")?.map(Timestamp::from_millis),
        })
    }
}

impl Store {
    /// How far a study is with its settings; `None` if it has none or was not started.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn sweep(&self, study: StudyId) -> Result<Option<SweepRow>, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query("SELECT * FROM sweeps WHERE study = $1")
            .bind(study.to_string())
            .fetch_optional(&mut *connection)
            .await
            .map_err(Error::database("sweep"))?;
        row.as_ref().map(SweepRow::read).transpose()
    }

    /// Studies whose settings are not all through, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn running_sweeps(&self) -> Result<Vec<StudyId>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT study FROM sweeps WHERE state = 'running' ORDER BY started_ms, study")
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("running_sweeps"))?;
        rows.iter().map(|row| parsed(row, "study")).collect()
    }
}

impl Tx {
    /// Begins a sweep; `false` if it was begun before.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn insert_sweep(&mut self, study: StudyId, by: &str, at: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO sweeps (study, state, created_by, started_ms) VALUES ($1, 'running', $2, $3) \
             ON CONFLICT (study) DO NOTHING",
        )
        .bind(study.to_string())
        .bind(by.to_owned())
        .bind(at.as_millis())
        .execute(self.conn())
        .await
        .map_err(Error::database("insert_sweep"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends a sweep; `false` if it does not run.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn end_sweep(
        &mut self,
        study: StudyId,
        state: SweepState,
        reason: Option<&str>,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE sweeps SET state = $1, reason = $2, ended_ms = $3 WHERE study = $4 AND state = 'running'",
        )
        .bind(state.as_str())
        .bind(reason.map(str::to_owned))
        .bind(at.as_millis())
        .bind(study.to_string())
        .execute(self.conn())
        .await
        .map_err(Error::database("end_sweep"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes the lease of a sweep, or holds it longer; `false` if another replica has it.
    ///
    /// # Units
    /// `for_ms` in milliseconds from `now`.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn lease_sweep(
        &mut self,
        study: StudyId,
        holder: &str,
        now: Timestamp,
        for_ms: i64,
    ) -> Result<bool, Error> {
        self.lease(&format!("sweep/{study}"), holder, now, for_ms).await
    }

    /// Writes the figure by which a job is ranked, and why it is not ranked where it is not.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn rank_job(&mut self, job: JobId, figure: Option<f64>, reason: Option<&str>) -> Result<(), Error> {
        sqlx::query("UPDATE jobs SET figure = $1, reason = COALESCE($2, reason) WHERE job = $3")
            .bind(figure.map(|f| f.to_string()))
            .bind(reason.map(str::to_owned))
            .bind(job.to_string())
            .execute(self.conn())
            .await
            .map_err(Error::database("rank_job"))?;
        Ok(())
    }

    /// Writes that a job gave the best model of its study.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn choose_job(&mut self, job: JobId, at: Timestamp) -> Result<(), Error> {
        sqlx::query("UPDATE jobs SET chosen_ms = $1 WHERE job = $2")
            .bind(at.as_millis())
            .bind(job.to_string())
            .execute(self.conn())
            .await
            .map_err(Error::database("choose_job"))?;
        Ok(())
    }

    /// Marks all models of a job as dropped, and says which of their files nobody needs any more.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn drop_models_of(&mut self, job: JobId) -> Result<Vec<Digest>, Error> {
        let rows =
            sqlx::query("UPDATE models SET state = 'dropped' WHERE job = $1 AND state <> 'dropped' RETURNING model")
                .bind(job.to_string())
                .fetch_all(self.conn())
                .await
                .map_err(Error::database("drop_models_of"))?;
        self.unused(&rows).await
    }
}
