//! Rounds, uploads, models and figures.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId, Timestamp};
use hospes_protocol::message::{FigureSet, UploadKind};
use hospes_protocol::round::RoundHeader;
use hospes_protocol::sign::Signed;
use sqlx::any::AnyRow;

use super::jobs::{optional_digest, small, states};
use super::{Store, Tx, blob, integer, optional_integer, optional_text, parsed, text};
use crate::Error;
use crate::aggregate::staging::UploadRequest;

states! {
    /// State of a round in the store. Offers, replies and progress are not stored: after a restart sites are asked
    /// again.
    RoundState, "round" {
        /// Sites work on it.
        Open = "open",
        /// Its inputs are fixed.
        Committed = "committed",
        /// Its result is out.
        Published = "published",
        /// Ended without a result; another attempt may have one.
        Abandoned = "abandoned",
        /// Ended without a result.
        Failed = "failed",
    }
}

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

/// A round.
#[derive(Debug, Clone)]
pub struct RoundRow {
    /// Key.
    pub key: RoundKey,
    /// State.
    pub state: RoundState,
    /// Why it ended without a result, in words.
    pub reason: Option<String>,
    /// The signed header in the bytes that sites get.
    pub header: Vec<u8>,
    /// Digest of the header.
    pub digest: Digest,
    /// When it was opened.
    pub opened: Timestamp,
    /// When it was closed.
    pub closed: Option<Timestamp>,
    /// Sites whose inputs are in it, in roster order, once they are fixed.
    pub included: Option<Vec<SiteId>>,
    /// Sites that are out, and why.
    pub outs: BTreeMap<SiteId, String>,
    /// The model that came of it.
    pub model: Option<Digest>,
}

impl RoundRow {
    /// The signed header.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes were altered.
    pub fn signed(&self) -> Result<Signed<RoundHeader>, Error> {
        Signed::from_bytes(&self.header).map_err(|e| Error::corrupt("round header", e))
    }

    fn read(row: &AnyRow) -> Result<Self, Error> {
        let json = |column| optional_text(row, column);
        let wrong = |e: serde_json::Error| Error::corrupt("round", e);
        Ok(Self {
            key: read_key(row)?,
            state: parsed(row, "phase")?,
            reason: optional_text(row, "reason")?,
            header: blob(row, "header")?,
            digest: parsed(row, "digest")?,
            opened: Timestamp::from_millis(integer(row, "opened_ms")?),
            closed: optional_integer(row, "closed_ms")?.map(Timestamp::from_millis),
            included: json("included")?.map(|j| serde_json::from_str(&j).map_err(wrong)).transpose()?,
            outs: serde_json::from_str(&text(row, "outs")?).map_err(wrong)?,
            model: optional_digest(row, "model")?,
        })
    }
}

fn read_key(row: &AnyRow) -> Result<RoundKey, Error> {
    Ok(RoundKey {
        job: parsed(row, "job")?,
        task: text(row, "task")?,
        epoch: u64::try_from(integer(row, "epoch")?).map_err(|e| Error::corrupt("epoch", e))?,
        round: small(row, "round")?,
        attempt: small(row, "attempt")?,
    })
}

/// Epochs are counted by hand; none comes near 2^63.
fn epoch(key: &RoundKey) -> i64 {
    i64::try_from(key.epoch).unwrap_or(i64::MAX)
}

/// An upload that was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    /// Site.
    pub site: SiteId,
    /// SHA-256 of the payload.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// When it was confirmed.
    pub at: Timestamp,
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
    /// The people of these sites have not released them yet.
    Held(Vec<SiteId>),
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

impl Store {
    /// Rounds of a job in the order in which they were opened.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn rounds(&self, job: JobId) -> Result<Vec<RoundRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM rounds WHERE job = $1 ORDER BY opened_ms, task, epoch, round, attempt")
            .bind(job.to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("rounds"))?;
        rows.iter().map(RoundRow::read).collect()
    }

    /// Rounds of a job in which sites work, or whose inputs are fixed; at most one.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn open_rounds(&self, job: JobId) -> Result<Vec<RoundRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM rounds WHERE job = $1 AND phase IN ('open', 'committed')")
            .bind(job.to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("open_rounds"))?;
        rows.iter().map(RoundRow::read).collect()
    }

    /// The round of a job that was closed last.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn last_closed_round(&self, job: JobId) -> Result<Option<RoundRow>, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query(
            "SELECT * FROM rounds WHERE job = $1 AND phase NOT IN ('open', 'committed') \
             ORDER BY closed_ms DESC, opened_ms DESC, round DESC, attempt DESC LIMIT 1",
        )
        .bind(job.to_string())
        .fetch_optional(&mut *connection)
        .await
        .map_err(Error::database("last_closed_round"))?;
        row.as_ref().map(RoundRow::read).transpose()
    }

    /// The highest attempt at a round of a task in any epoch; 0 if there was none.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn last_attempt(&self, job: JobId, task: &str, round: u32) -> Result<u32, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query(
            "SELECT COALESCE(MAX(attempt), 0) AS attempt FROM rounds WHERE job = $1 AND task = $2 AND round = $3",
        )
        .bind(job.to_string())
        .bind(task.to_owned())
        .bind(i64::from(round))
        .fetch_one(&mut *connection)
        .await
        .map_err(Error::database("last_attempt"))?;
        small(&row, "attempt")
    }

    /// Uploads that were confirmed in a round, in order of the sites' ids.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn uploads(&self, key: &RoundKey) -> Result<Vec<UploadRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT * FROM uploads WHERE job = $1 AND task = $2 AND epoch = $3 AND round = $4 AND attempt = $5",
        )
        .bind(key.job.to_string())
        .bind(key.task.clone())
        .bind(epoch(key))
        .bind(i64::from(key.round))
        .bind(i64::from(key.attempt))
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("uploads"))?;
        let read = |row: &AnyRow| {
            Ok(UploadRow {
                site: parsed(row, "site")?,
                digest: parsed(row, "digest")?,
                bytes: u64::try_from(integer(row, "bytes")?).map_err(|e| Error::corrupt("bytes", e))?,
                at: Timestamp::from_millis(integer(row, "at_ms")?),
            })
        };
        let mut uploads = rows.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        uploads.sort_by_key(|u| u.site);
        Ok(uploads)
    }

    /// The newest uploads that are in published results, at most `most`, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn last_uploads(&self, most: usize) -> Result<Vec<UploadRequest>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT uploads.*, jobs.study, rounds.model FROM uploads JOIN jobs ON jobs.job = uploads.job \
             JOIN rounds ON rounds.job = uploads.job AND rounds.task = uploads.task AND rounds.epoch = uploads.epoch \
             AND rounds.round = uploads.round AND rounds.attempt = uploads.attempt \
             WHERE rounds.phase = 'published' ORDER BY uploads.at_ms DESC LIMIT $1",
        )
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("last_uploads"))?;
        let read = |row: &AnyRow| {
            let is_model = optional_text(row, "model")?.is_some();
            Ok(UploadRequest {
                site: parsed(row, "site")?,
                kind: if is_model { UploadKind::Update } else { UploadKind::Figures },
                study: parsed(row, "study")?,
                round: read_key(row)?,
                digest: parsed(row, "digest")?,
                length: u64::try_from(integer(row, "bytes")?).map_err(|e| Error::corrupt("bytes", e))?,
            })
        };
        rows.iter().rev().map(read).collect()
    }

    /// Final models, newest first.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn models(&self) -> Result<Vec<ModelRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM models WHERE state = 'final' ORDER BY at_ms DESC, job DESC, task")
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

    /// Whether a site may fetch a model: it is a member of a job that made it.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn may_fetch(&self, site: SiteId, model: Digest) -> Result<bool, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query(
            "SELECT 1 AS found FROM models o JOIN job_members m ON m.job = o.job \
             WHERE o.model = $1 AND m.site = $2 AND o.state <> 'dropped' LIMIT 1",
        )
        .bind(model.to_string())
        .bind(site.to_string())
        .fetch_optional(&mut *connection)
        .await
        .map_err(Error::database("may_fetch"))?;
        Ok(row.is_some())
    }

    /// Whether the results of a job, its final model and its figures, may be used by those who asked for them.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn access(&self, job: JobId) -> Result<Access, Error> {
        let Some(row) = self.job(job).await? else { return Ok(Access::NotReady) };
        if row.state != super::jobs::JobState::Success {
            return Ok(Access::NotReady);
        }
        let took_part = self.took_part(job).await?;
        let members = self.job_members(job).await?;
        let held: Vec<SiteId> = members
            .iter()
            .filter(|m| m.released.is_none() && took_part.contains_key(&m.site))
            .map(|m| m.site)
            .collect();
        Ok(if held.is_empty() { Access::Released } else { Access::Held(held) })
    }

    /// Sites whose inputs are in results of a job, and in how many rounds.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn took_part(&self, job: JobId) -> Result<BTreeMap<SiteId, u32>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT included FROM rounds WHERE job = $1 AND phase = 'published'")
            .bind(job.to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("took_part"))?;
        let mut sites = BTreeMap::new();
        for row in &rows {
            let json = optional_text(row, "included")?.unwrap_or_else(|| "[]".to_owned());
            let included: Vec<SiteId> = serde_json::from_str(&json).map_err(|e| Error::corrupt("round", e))?;
            for site in included {
                *sites.entry(site).or_insert(0) += 1;
            }
        }
        Ok(sites)
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
    /// Adds an open round.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written, [`Error::Document`] if the header has no bytes.
    pub async fn insert_round(&mut self, header: &Signed<RoundHeader>, at: Timestamp) -> Result<(), Error> {
        let key = header.document.key();
        sqlx::query(
            "INSERT INTO rounds (job, task, epoch, round, attempt, phase, header, digest, opened_ms, outs) \
             VALUES ($1, $2, $3, $4, $5, 'open', $6, $7, $8, '{}')",
        )
        .bind(key.job.to_string())
        .bind(key.task.clone())
        .bind(epoch(&key))
        .bind(i64::from(key.round))
        .bind(i64::from(key.attempt))
        .bind(header.to_bytes()?)
        .bind(header.document.digest().to_string())
        .bind(at.as_millis())
        .execute(self.conn())
        .await
        .map_err(Error::database("insert_round"))?;
        Ok(())
    }

    /// Writes which sites are out of an open round.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn set_round_outs(&mut self, key: &RoundKey, outs: &BTreeMap<SiteId, String>) -> Result<(), Error> {
        let json = serde_json::to_string(outs).map_err(|e| Error::corrupt("outs", e))?;
        self.update_round(key, "UPDATE rounds SET outs = $1", Some(json), None, RoundState::Open, RoundState::Open)
            .await
    }

    /// Fixes the inputs of a round.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is not open, [`Error::Database`] if it cannot be written.
    pub async fn commit_round(&mut self, key: &RoundKey, included: &[SiteId]) -> Result<(), Error> {
        let json = serde_json::to_string(included).map_err(|e| Error::corrupt("included", e))?;
        let set = "UPDATE rounds SET included = $1";
        self.update_round(key, set, Some(json), None, RoundState::Open, RoundState::Committed).await
    }

    /// Writes that a round has its result.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if its inputs are not fixed, [`Error::Database`] if it cannot be written.
    pub async fn publish_round(&mut self, key: &RoundKey, model: Option<Digest>, at: Timestamp) -> Result<(), Error> {
        let (set, model) = ("UPDATE rounds SET model = $1", model.map(|m| m.to_string()));
        self.update_round(key, set, model, Some(at), RoundState::Committed, RoundState::Published).await
    }

    /// Writes that a round ended without a result.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it was over before, [`Error::Database`] if it cannot be written.
    pub async fn end_round(
        &mut self,
        key: &RoundKey,
        from: RoundState,
        to: RoundState,
        reason: &str,
        at: Timestamp,
    ) -> Result<(), Error> {
        if from.is_over() || !matches!(to, RoundState::Abandoned | RoundState::Failed) {
            return Err(Error::corrupt("round", format!("it cannot go from {from} to {to}")));
        }
        self.update_round(key, "UPDATE rounds SET reason = $1", Some(reason.to_owned()), Some(at), from, to).await
    }

    async fn update_round(
        &mut self,
        key: &RoundKey,
        set: &'static str,
        value: Option<String>,
        closed: Option<Timestamp>,
        from: RoundState,
        to: RoundState,
    ) -> Result<(), Error> {
        let sql = format!(
            "{set}, phase = $2, closed_ms = $3 \
             WHERE job = $4 AND task = $5 AND epoch = $6 AND round = $7 AND attempt = $8 AND phase = $9"
        );
        let done = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(value)
            .bind(to.as_str())
            .bind(closed.map(Timestamp::as_millis))
            .bind(key.job.to_string())
            .bind(key.task.clone())
            .bind(epoch(key))
            .bind(i64::from(key.round))
            .bind(i64::from(key.attempt))
            .bind(from.as_str())
            .execute(self.conn())
            .await
            .map_err(Error::database("update_round"))?;
        if done.rows_affected() != 1 {
            return Err(Error::corrupt("round", format!("{key} is not {from} any more")));
        }
        Ok(())
    }

    /// Adds a confirmed upload; `false` if this site has one in this round.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn insert_upload(&mut self, key: &RoundKey, upload: &UploadRow) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO uploads (job, task, epoch, round, attempt, site, digest, bytes, at_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        )
        .bind(key.job.to_string())
        .bind(key.task.clone())
        .bind(epoch(key))
        .bind(i64::from(key.round))
        .bind(i64::from(key.attempt))
        .bind(upload.site.to_string())
        .bind(upload.digest.to_string())
        .bind(i64::try_from(upload.bytes).unwrap_or(i64::MAX))
        .bind(upload.at.as_millis())
        .execute(self.conn())
        .await
        .map_err(Error::database("insert_upload"))?;
        Ok(done.rows_affected() == 1)
    }

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

    /// Marks checkpoints of a task that lie before a round as dropped, and says which of their files nobody needs any
    /// more.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn drop_models(&mut self, job: JobId, task: &str, before: u32) -> Result<Vec<Digest>, Error> {
        let rows = sqlx::query(
            "UPDATE models SET state = 'dropped' WHERE job = $1 AND task = $2 AND round < $3 AND state = 'checkpoint' \
             RETURNING model",
        )
        .bind(job.to_string())
        .bind(task.to_owned())
        .bind(i64::from(before))
        .fetch_all(self.conn())
        .await
        .map_err(Error::database("drop_models"))?;
        let mut free = Vec::new();
        for row in &rows {
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

impl RoundState {
    /// Whether nothing more happens in this round.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Published | Self::Abandoned | Self::Failed)
    }
}
