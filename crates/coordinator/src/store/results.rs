//! What rounds give: models and figures, and who may use them.

use std::fmt;
use std::str::FromStr;

use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, JobId, SiteId, Timestamp};
use hospes_protocol::message::FigureSet;
use sqlx::any::AnyRow;

use super::jobs::{JobState, MemberState, small, states};
use super::{Store, Tx, blob, integer, optional_text, parsed, text};
use crate::Error;

states! {
    /// What becomes of a model.
    ModelState, "model" {
        /// Made by a round that others follow.
        Checkpoint = "checkpoint",
        /// The last of its task.
        Final = "final",
        /// Its file is deleted.
        Dropped = "dropped",
    }
}

/// A model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRow {
    /// Digest.
    pub model: Digest,
    /// Job that made it.
    pub job: JobId,
    /// Task that made it.
    pub task: String,
    /// Round that made it; 0 for the initial model.
    pub round: u32,
    /// Bytes of its file.
    pub bytes: u64,
    /// What became of it.
    pub state: ModelState,
    /// When it was made.
    pub at: Timestamp,
    /// Its card, a JSON document, once its job is over.
    pub card: Option<String>,
}

impl ModelRow {
    fn read(row: &AnyRow) -> Result<Self, Error> {
        Ok(Self {
            model: parsed(row, "model")?,
            job: parsed(row, "job")?,
            task: text(row, "task")?,
            round: small(row, "round")?,
            bytes: u64::try_from(integer(row, "bytes")?).map_err(|e| Error::corrupt("bytes", e))?,
            state: parsed(row, "state")?,
            at: Timestamp::from_millis(integer(row, "at_ms")?),
            card: optional_text(row, "card")?,
        })
    }
}

/// Whether results may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everybody who took part has released them.
    Released,
    /// The job still runs, or ended without success.
    NotReady,
    /// It is one of many settings of its study: others still run, or another one is the best.
    NotChosen,
    /// The people of these sites have not released them yet.
    Held(Vec<SiteId>),
}

/// For what a site may fetch a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// For nothing.
    No,
    /// For the rounds of a job that is not over.
    Rounds,
    /// As the result of this job, in which it has a part and which everybody has released.
    Result(JobId),
}

/// Figures of a task: of one site, or the sums over all.
#[derive(Debug, Clone, PartialEq)]
pub struct FiguresRow {
    /// Task.
    pub task: String,
    /// Site; `None` for all together.
    pub site: Option<SiteId>,
    /// Figures.
    pub figures: FigureSet,
}

/// In place of a site, for the sums over all.
const POOLED: &str = "all";
/// Models in a list.
const LISTED: i64 = 1_000;

impl Store {
    /// The newest 1,000 final models, newest first, without their cards.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn models(&self) -> Result<Vec<ModelRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT model, job, task, round, bytes, state, at_ms, CAST(NULL AS TEXT) AS card FROM models \
             WHERE state = 'final' ORDER BY at_ms DESC, job DESC, task LIMIT $1",
        )
        .bind(LISTED)
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("models"))?;
        rows.iter().map(ModelRow::read).collect()
    }

    /// All models of a job whose files are not deleted.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn models_of(&self, job: JobId) -> Result<Vec<ModelRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM models WHERE job = $1 AND state <> 'dropped' ORDER BY task, round")
            .bind(job.to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("models_of"))?;
        rows.iter().map(ModelRow::read).collect()
    }

    /// The model from which a task's first round started.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn initial_model(&self, job: JobId, task: &str) -> Result<Option<Digest>, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query("SELECT model FROM models WHERE job = $1 AND task = $2 AND round = 0")
            .bind(job.to_string())
            .bind(task.to_owned())
            .fetch_optional(&mut *connection)
            .await
            .map_err(Error::database("initial_model"))?;
        row.map(|row| parsed(&row, "model")).transpose()
    }

    /// Everything that is known under this digest, final models first, newest first. Runs with one seed and one history
    /// make one and the same model.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn model(&self, model: Digest) -> Result<Vec<ModelRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT * FROM models WHERE model = $1 AND state <> 'dropped' \
             ORDER BY CASE WHEN state = 'final' THEN 0 ELSE 1 END, at_ms DESC",
        )
        .bind(model.to_string())
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("model"))?;
        rows.iter().map(ModelRow::read).collect()
    }

    /// For what a site may fetch a model. A member of a job that made it may while the job is not over and goes on with it:
    /// its rounds start from it. Afterwards the final model is a result like any other, and only who has a part in it gets it.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn fetch(&self, site: SiteId, model: Digest) -> Result<Fetch, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT o.job AS job, o.state AS model_state, j.state AS job_state, m.state AS member_state FROM models o \
             JOIN job_members m ON m.job = o.job JOIN jobs j ON j.job = o.job \
             WHERE o.model = $1 AND m.site = $2 AND o.state <> 'dropped' ORDER BY j.created_ms DESC LIMIT $3",
        )
        .bind(model.to_string())
        .bind(site.to_string())
        .bind(LISTED)
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("fetch"))?;
        drop(connection);
        let mut results: Vec<JobId> = Vec::new();
        for row in &rows {
            let (state, member): (JobState, MemberState) = (parsed(row, "job_state")?, parsed(row, "member_state")?);
            if !state.is_terminal() && member != MemberState::Refused {
                return Ok(Fetch::Rounds);
            }
            let (job, made): (JobId, ModelState) = (parsed(row, "job")?, parsed(row, "model_state")?);
            if state == JobState::Success && made == ModelState::Final && !results.contains(&job) {
                results.push(job);
            }
        }
        for job in results {
            if self.has_part(job, site).await? && self.access(job).await? == Access::Released {
                return Ok(Fetch::Result(job));
            }
        }
        Ok(Fetch::No)
    }

    /// Whether something of a site is in the results of a job.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn has_part(&self, job: JobId, site: SiteId) -> Result<bool, Error> {
        Ok(self.took_part(job, None).await?.contains_key(&site))
    }

    /// Whether the results of a job, its final model and its figures, may be used by those who asked for them.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn access(&self, job: JobId) -> Result<Access, Error> {
        let Some(row) = self.job(job).await? else { return Ok(Access::NotReady) };
        if row.state != JobState::Success {
            return Ok(Access::NotReady);
        }
        if row.setting.is_some() && row.chosen.is_none() {
            return Ok(Access::NotChosen);
        }
        let took_part = self.took_part(job, None).await?;
        let members = self.job_members(job).await?;
        let held: Vec<SiteId> = members
            .iter()
            .filter(|m| m.released.is_none() && took_part.contains_key(&m.site))
            .map(|m| m.site)
            .collect();
        Ok(if held.is_empty() { Access::Released } else { Access::Held(held) })
    }

    /// Losses of a task's models, by the round that gave them, in their order.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn losses(&self, job: JobId, task: &str) -> Result<Vec<(u32, f64)>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT round, loss FROM losses WHERE job = $1 AND task = $2 ORDER BY round")
            .bind(job.to_string())
            .bind(task.to_owned())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("losses"))?;
        rows.iter().map(|row| Ok((small(row, "round")?, parsed(row, "loss")?))).collect()
    }

    /// Figures of a job, by task, the sums over all sites last.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn figures(&self, job: JobId) -> Result<Vec<FiguresRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM figures WHERE job = $1")
            .bind(job.to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("figures"))?;
        let read = |row: &AnyRow| {
            let site = text(row, "site")?;
            let site = if site == POOLED { None } else { Some(site.parse().map_err(|e| Error::corrupt("site", e))?) };
            let figures: Canonical<FigureSet> =
                Canonical::parse(&blob(row, "document")?).map_err(|e| Error::corrupt("figures", e))?;
            Ok(FiguresRow { task: text(row, "task")?, site, figures: figures.into_inner() })
        };
        let mut figures = rows.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        figures.sort_by(|a, b| (&a.task, a.site.is_none(), a.site).cmp(&(&b.task, b.site.is_none(), b.site)));
        Ok(figures)
    }
}

impl Tx {
    /// Adds a model, or nothing if the same one is there for this round.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn insert_model(&mut self, row: &ModelRow) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO models (model, job, task, round, bytes, state, at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (job, task, round) DO UPDATE SET model = excluded.model, bytes = excluded.bytes, \
               state = excluded.state, at_ms = excluded.at_ms",
        )
        .bind(row.model.to_string())
        .bind(row.job.to_string())
        .bind(row.task.clone())
        .bind(i64::from(row.round))
        .bind(i64::try_from(row.bytes).unwrap_or(i64::MAX))
        .bind(row.state.as_str())
        .bind(row.at.as_millis())
        .execute(self.conn())
        .await
        .map_err(Error::database("insert_model"))?;
        Ok(())
    }

    /// Marks checkpoints of a task that lie before a round as dropped, but for that of one round, and says which of their
    /// files nobody needs any more.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn drop_models(
        &mut self,
        job: JobId,
        task: &str,
        before: u32,
        but: Option<u32>,
    ) -> Result<Vec<Digest>, Error> {
        let rows = sqlx::query(
            "UPDATE models SET state = 'dropped' WHERE job = $1 AND task = $2 AND round < $3 AND round <> $4 \
             AND state = 'checkpoint' RETURNING model",
        )
        .bind(job.to_string())
        .bind(task.to_owned())
        .bind(i64::from(before))
        .bind(but.map_or(-1, i64::from))
        .fetch_all(self.conn())
        .await
        .map_err(Error::database("drop_models"))?;
        self.unused(&rows).await
    }

    /// Makes the checkpoint of a round the final model of its task; `None` if it is not there any more.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn finish_model(&mut self, job: JobId, task: &str, round: u32) -> Result<Option<Digest>, Error> {
        let row = sqlx::query(
            "UPDATE models SET state = 'final' WHERE job = $1 AND task = $2 AND round = $3 AND state <> 'dropped' \
             RETURNING model",
        )
        .bind(job.to_string())
        .bind(task.to_owned())
        .bind(i64::from(round))
        .fetch_optional(self.conn())
        .await
        .map_err(Error::database("finish_model"))?;
        row.map(|row| parsed(&row, "model")).transpose()
    }

    /// Keeps the loss of the model that a round gave.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn put_loss(&mut self, job: JobId, task: &str, round: u32, loss: f64) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO losses (job, task, round, loss) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (job, task, round) DO UPDATE SET loss = excluded.loss",
        )
        .bind(job.to_string())
        .bind(task.to_owned())
        .bind(i64::from(round))
        .bind(loss.to_string())
        .execute(self.conn())
        .await
        .map_err(Error::database("put_loss"))?;
        Ok(())
    }

    /// Which of these models no job needs any more.
    pub(super) async fn unused(&mut self, rows: &[AnyRow]) -> Result<Vec<Digest>, Error> {
        let mut free = Vec::new();
        for row in rows {
            let model: Digest = parsed(row, "model")?;
            let used = sqlx::query("SELECT 1 AS used FROM models WHERE model = $1 AND state <> 'dropped' LIMIT 1")
                .bind(model.to_string())
                .fetch_optional(self.conn())
                .await
                .map_err(Error::database("drop_models"))?;
            if used.is_none() {
                free.push(model);
            }
        }
        Ok(free)
    }

    /// Writes a model's card.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn set_card(&mut self, job: JobId, task: &str, round: u32, card: &str) -> Result<(), Error> {
        sqlx::query("UPDATE models SET card = $1 WHERE job = $2 AND task = $3 AND round = $4")
            .bind(card.to_owned())
            .bind(job.to_string())
            .bind(task.to_owned())
            .bind(i64::from(round))
            .execute(self.conn())
            .await
            .map_err(Error::database("set_card"))?;
        Ok(())
    }

    /// Keeps figures of a task; `None` for the sums over all sites.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written, [`Error::Document`] if a figure is not finite.
    pub async fn put_figures(
        &mut self,
        job: JobId,
        task: &str,
        site: Option<SiteId>,
        figures: &FigureSet,
    ) -> Result<(), Error> {
        let document = Canonical::new(figures.clone())?;
        sqlx::query(
            "INSERT INTO figures (job, task, site, document) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (job, task, site) DO UPDATE SET document = excluded.document",
        )
        .bind(job.to_string())
        .bind(task.to_owned())
        .bind(site.map_or_else(|| POOLED.to_owned(), |s| s.to_string()))
        .bind(document.bytes().to_vec())
        .execute(self.conn())
        .await
        .map_err(Error::database("put_figures"))?;
        Ok(())
    }
}
