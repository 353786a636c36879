//! Rounds and uploads.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use futures::TryStreamExt as _;
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId, Timestamp};
use hospes_protocol::memo;
use hospes_protocol::round::{Mode, RoundHeader};
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

/// A round.
#[derive(Debug, Clone)]
pub struct RoundRow {
    /// Key.
    pub key: RoundKey,
    /// State.
    pub state: RoundState,
    /// Why it ended without a result, in words.
    pub reason: Option<String>,
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
    fn read(row: &AnyRow) -> Result<Self, Error> {
        let json = |column| optional_text(row, column);
        let wrong = |e: serde_json::Error| Error::corrupt("round", e);
        Ok(Self {
            key: read_key(row)?,
            state: parsed(row, "phase")?,
            reason: optional_text(row, "reason")?,
            digest: parsed(row, "digest")?,
            opened: Timestamp::from_millis(integer(row, "opened_ms")?),
            closed: optional_integer(row, "closed_ms")?.map(Timestamp::from_millis),
            included: json("included")?.map(|j| serde_json::from_str(&j).map_err(wrong)).transpose()?,
            outs: serde_json::from_str(&text(row, "outs")?).map_err(wrong)?,
            model: optional_digest(row, "model")?,
        })
    }
}

/// A query on either database.
type AnyQuery<'q> = sqlx::query::Query<'q, sqlx::Any, <sqlx::Any as sqlx::Database>::Arguments>;

fn read_key(row: &AnyRow) -> Result<RoundKey, Error> {
    Ok(RoundKey {
        job: parsed(row, "job")?,
        task: text(row, "task")?,
        epoch: u64::try_from(integer(row, "epoch")?).map_err(|e| Error::corrupt("epoch", e))?,
        round: small(row, "round")?,
        attempt: small(row, "attempt")?,
    })
}

/// Binds the five columns of a round's key.
pub(super) fn bind_key<'q>(query: AnyQuery<'q>, key: &RoundKey) -> AnyQuery<'q> {
    query
        .bind(key.job.to_string())
        .bind(key.task.clone())
        // Epochs are counted by hand; none comes near 2^63.
        .bind(i64::try_from(key.epoch).unwrap_or(i64::MAX))
        .bind(i64::from(key.round))
        .bind(i64::from(key.attempt))
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

/// Rounds without their headers, which are large: a job can have 100,000 rounds of 10,000 sites.
macro_rules! select_rounds {
    ($rest:literal) => {
        concat!(
            "SELECT job, task, epoch, round, attempt, phase, reason, digest, opened_ms, closed_ms, included, outs, \
             model FROM rounds ",
            $rest
        )
    };
}

impl Store {
    /// The newest rounds of a job, at most `most`, in the order in which they were opened.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn rounds(&self, job: JobId, most: u32) -> Result<Vec<RoundRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(select_rounds!(
            "WHERE job = $1 ORDER BY opened_ms DESC, task DESC, epoch DESC, round DESC, attempt DESC LIMIT $2"
        ))
        .bind(job.to_string())
        .bind(i64::from(most))
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("rounds"))?;
        rows.iter().rev().map(RoundRow::read).collect()
    }

    /// The signed header of a round.
    ///
    /// # Errors
    /// [`Error::Database`], or [`Error::Corrupt`] if there is no such round or its bytes were altered.
    pub async fn round_header(&self, key: &RoundKey) -> Result<Signed<RoundHeader>, Error> {
        let mut connection = self.read().await?;
        let sql =
            "SELECT header FROM rounds WHERE job = $1 AND task = $2 AND epoch = $3 AND round = $4 AND attempt = $5";
        let row = bind_key(sqlx::query(sql), key)
            .fetch_optional(&mut *connection)
            .await
            .map_err(Error::database("round_header"))?;
        let row = row.ok_or_else(|| Error::corrupt("round", format!("{key} is gone")))?;
        memo::parsed(&blob(&row, "header")?, Signed::from_bytes).map_err(|e| Error::corrupt("round header", e))
    }

    /// Digests of the headers of a task's published rounds, in order.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn published_rounds(&self, job: JobId, task: &str) -> Result<Vec<Digest>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT digest FROM rounds WHERE job = $1 AND task = $2 AND phase = 'published' ORDER BY round",
        )
        .bind(job.to_string())
        .bind(task.to_owned())
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("published_rounds"))?;
        rows.iter().map(|row| parsed(row, "digest")).collect()
    }

    /// Rounds of a job in which sites work, or whose inputs are fixed; at most one.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn open_rounds(&self, job: JobId) -> Result<Vec<RoundRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(select_rounds!("WHERE job = $1 AND phase IN ('open', 'committed')"))
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
        let row = sqlx::query(select_rounds!(
            "WHERE job = $1 AND phase NOT IN ('open', 'committed') \
             ORDER BY closed_ms DESC, opened_ms DESC, round DESC, attempt DESC LIMIT 1"
        ))
        .bind(job.to_string())
        .fetch_optional(&mut *connection)
        .await
        .map_err(Error::database("last_closed_round"))?;
        row.as_ref().map(RoundRow::read).transpose()
    }

    /// Rounds of a job that are over and in which an input of this site was confirmed: those of its newest uploads, at
    /// most `most`, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn closed_rounds_of(&self, site: SiteId, job: JobId, most: u32) -> Result<Vec<RoundRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(select_rounds!(
            "WHERE phase NOT IN ('open', 'committed') AND (job, task, epoch, round, attempt) IN \
               (SELECT job, task, epoch, round, attempt FROM uploads WHERE site = $1 AND job = $2 \
                ORDER BY at_ms DESC LIMIT $3) \
             ORDER BY opened_ms, round, attempt"
        ))
        .bind(site.to_string())
        .bind(job.to_string())
        .bind(i64::from(most))
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("closed_rounds_of"))?;
        rows.iter().map(RoundRow::read).collect()
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
        let sql = "SELECT * FROM uploads WHERE job = $1 AND task = $2 AND epoch = $3 AND round = $4 AND attempt = $5";
        let rows =
            bind_key(sqlx::query(sql), key).fetch_all(&mut *connection).await.map_err(Error::database("uploads"))?;
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

    /// Whether an upload was confirmed, so that its site may have the receipt again.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn counted(&self, upload: &UploadRequest) -> Result<bool, Error> {
        let study = self.job(upload.round.job).await?.map(|job| job.study);
        let known = self.uploads(&upload.round).await?;
        let is_it = |row: &UploadRow| (row.site, row.digest, row.bytes) == (upload.site, upload.digest, upload.length);
        Ok(study == Some(upload.study) && known.iter().any(is_it))
    }

    /// Sites whose inputs are in results of a job, or of one task of it, and in how many rounds.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn took_part(&self, job: JobId, task: Option<(&str, u32)>) -> Result<BTreeMap<SiteId, u32>, Error> {
        let mut connection = self.read().await?;
        let query = match task {
            None => sqlx::query("SELECT included FROM rounds WHERE job = $1 AND phase = 'published'"),
            Some(_) => sqlx::query(
                "SELECT included FROM rounds WHERE job = $1 AND phase = 'published' AND task = $2 AND round <= $3",
            ),
        };
        let query = query.bind(job.to_string());
        let query = match task {
            Some((task, last)) => query.bind(task.to_owned()).bind(i64::from(last)),
            None => query,
        };
        // Row by row: the lists of a long job are larger than what a process should hold.
        let mut rows = query.fetch(&mut *connection);
        let mut sites = BTreeMap::new();
        while let Some(row) = rows.try_next().await.map_err(Error::database("took_part"))? {
            let json = optional_text(&row, "included")?.unwrap_or_else(|| "[]".to_owned());
            let included: Vec<SiteId> = serde_json::from_str(&json).map_err(|e| Error::corrupt("round", e))?;
            for site in included {
                *sites.entry(site).or_insert(0) += 1;
            }
        }
        Ok(sites)
    }

    /// The last site in the newest result of a task; of rounds with one site each, that site.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn last_turn(&self, job: JobId, task: &str) -> Result<Option<SiteId>, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query(
            "SELECT included FROM rounds WHERE job = $1 AND task = $2 AND phase = 'published' \
             ORDER BY round DESC LIMIT 1",
        )
        .bind(job.to_string())
        .bind(task.to_owned())
        .fetch_optional(&mut *connection)
        .await
        .map_err(Error::database("last_turn"))?;
        let Some(row) = row else { return Ok(None) };
        let json = optional_text(&row, "included")?.unwrap_or_else(|| "[]".to_owned());
        let included: Vec<SiteId> = serde_json::from_str(&json).map_err(|e| Error::corrupt("round", e))?;
        Ok(included.last().copied())
    }

    /// Sites that had their turn at a round of a task and of which nothing came, and how often: in its attempts that were
    /// given up, not in one that the end of the job cut short.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn skipped(&self, job: JobId, task: &str, round: u32) -> Result<BTreeMap<SiteId, u32>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT header FROM rounds WHERE job = $1 AND task = $2 AND round = $3 AND phase = 'abandoned'",
        )
        .bind(job.to_string())
        .bind(task.to_owned())
        .bind(i64::from(round))
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("skipped"))?;
        let mut skipped = BTreeMap::new();
        for row in &rows {
            let header: Signed<RoundHeader> = memo::parsed(&blob(row, "header")?, Signed::from_bytes)
                .map_err(|e| Error::corrupt("round header", e))?;
            if let Mode::Turn { site } = header.document.mode {
                *skipped.entry(site).or_insert(0) += 1;
            }
        }
        Ok(skipped)
    }
}

impl Tx {
    /// Adds an open round.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written, [`Error::Document`] if the header has no bytes.
    pub async fn insert_round(&mut self, header: &Signed<RoundHeader>, at: Timestamp) -> Result<(), Error> {
        let key = header.document.key();
        let sql = "INSERT INTO rounds (job, task, epoch, round, attempt, phase, header, digest, opened_ms, outs) \
                   VALUES ($1, $2, $3, $4, $5, 'open', $6, $7, $8, '{}')";
        bind_key(sqlx::query(sql), &key)
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
        self.update_round(key, set, model, Some(at), RoundState::Committed, RoundState::Published).await?;
        self.drop_secure_steps(key).await
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
        self.update_round(key, "UPDATE rounds SET reason = $1", Some(reason.to_owned()), Some(at), from, to).await?;
        self.drop_secure_steps(key).await
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
        let query =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(value).bind(to.as_str()).bind(closed.map(Timestamp::as_millis));
        let done = bind_key(query, key)
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
        let sql = "INSERT INTO uploads (job, task, epoch, round, attempt, site, digest, bytes, at_ms) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
        let done = bind_key(sqlx::query(sql), key)
            .bind(upload.site.to_string())
            .bind(upload.digest.to_string())
            .bind(i64::try_from(upload.bytes).unwrap_or(i64::MAX))
            .bind(upload.at.as_millis())
            .execute(self.conn())
            .await
            .map_err(Error::database("insert_upload"))?;
        Ok(done.rows_affected() == 1)
    }
}

impl RoundState {
    /// Whether nothing more happens in this round.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Published | Self::Abandoned | Self::Failed)
    }
}
