//! Studies, and what each member site decided on them.

use std::fmt;
use std::str::FromStr;

use hospes_protocol::id::{Digest, SiteId, StudyId, Timestamp};
use hospes_protocol::memo;
use hospes_protocol::message::Decision;
use hospes_protocol::sign::Signed;
use hospes_protocol::study::Study;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::jobs::small;
use super::{Store, Tx, blob, integer, optional_integer, optional_text, parsed, text};
use crate::Error;

/// A study as it was submitted.
#[derive(Debug, Clone)]
pub struct StudyRow {
    /// Id.
    pub study: StudyId,
    /// Title, for lists.
    pub title: String,
    /// Name of the token that submitted it, for people.
    pub submitted_by: String,
    /// Id of that token: another may get its name when it is revoked.
    pub submitter: Uuid,
    /// When.
    pub submitted: Timestamp,
    /// State.
    pub state: StudyState,
    /// Digest of its plan.
    pub plan: Digest,
    /// The signed document in the bytes that sites get; empty in lists.
    pub document: Vec<u8>,
}

impl StudyRow {
    /// The signed document.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes were altered.
    pub fn signed(&self) -> Result<Signed<Study>, Error> {
        memo::parsed(&self.document, Signed::from_bytes).map_err(|e| Error::corrupt("study", e))
    }

    fn read(row: &AnyRow) -> Result<Self, Error> {
        Ok(Self { document: blob(row, "document")?, ..Self::listed(row)? })
    }

    fn listed(row: &AnyRow) -> Result<Self, Error> {
        Ok(Self {
            study: parsed(row, "study")?,
            title: text(row, "title")?,
            submitted_by: text(row, "submitted_by")?,
            submitter: parsed(row, "submitter")?,
            submitted: Timestamp::from_millis(integer(row, "submitted_ms")?),
            state: parsed(row, "state")?,
            plan: parsed(row, "plan_digest")?,
            document: Vec::new(),
        })
    }
}

/// State of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StudyState {
    /// Offered to its members.
    Offered,
    /// Taken back by its requester or the operator.
    Withdrawn,
}

impl StudyState {
    /// Word in the store and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl fmt::Display for StudyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StudyState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "offered" => Ok(Self::Offered),
            "withdrawn" => Ok(Self::Withdrawn),
            other => Err(format!("'{other}' is no state of a study")),
        }
    }
}

/// What a member decided; `None` while it has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDecision {
    /// Site.
    pub site: SiteId,
    /// Decision.
    pub decision: Option<Decision>,
    /// When it was told.
    pub decided: Option<Timestamp>,
}

impl Store {
    /// The newest 1,000 studies, newest first, without their documents.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn studies(&self) -> Result<Vec<StudyRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT study, title, submitted_by, submitter, submitted_ms, state, plan_digest FROM studies \
             ORDER BY submitted_ms DESC, study DESC LIMIT 1000",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("studies"))?;
        rows.iter().map(StudyRow::listed).collect()
    }

    /// How many studies of a token are open: offered, and no job of them has succeeded, or further settings run.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn open_studies(&self, submitter: Uuid) -> Result<u32, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query(
            "SELECT COUNT(*) AS open FROM studies s WHERE s.submitter = $1 AND s.state = 'offered' \
             AND (NOT EXISTS (SELECT 1 FROM jobs j WHERE j.study = s.study AND j.state = 'success') \
               OR EXISTS (SELECT 1 FROM sweeps w WHERE w.study = s.study AND w.state = 'running'))",
        )
        .bind(submitter.to_string())
        .fetch_one(&mut *connection)
        .await
        .map_err(Error::database("open_studies"))?;
        small(&row, "open")
    }

    /// One study.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn study(&self, study: StudyId) -> Result<Option<StudyRow>, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query("SELECT * FROM studies WHERE study = $1")
            .bind(study.to_string())
            .fetch_optional(&mut *connection)
            .await
            .map_err(Error::database("study"))?;
        row.as_ref().map(StudyRow::read).transpose()
    }

    /// Studies offered to a site on which it has not decided yet: the oldest 100, oldest first. The others follow when
    /// it has decided on some of these and connects again.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn undecided(&self, site: SiteId) -> Result<Vec<StudyRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT s.* FROM studies s JOIN study_members m ON m.study = s.study \
             WHERE m.site = $1 AND m.decision IS NULL AND s.state = 'offered' \
             ORDER BY s.submitted_ms, s.study LIMIT 100",
        )
        .bind(site.to_string())
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("undecided"))?;
        rows.iter().map(StudyRow::read).collect()
    }

    /// What each member of a study decided, in order of their ids.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn decisions(&self, study: StudyId) -> Result<Vec<MemberDecision>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM study_members WHERE study = $1")
            .bind(study.to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("decisions"))?;
        let mut members = rows.iter().map(read_decision).collect::<Result<Vec<_>, _>>()?;
        members.sort_by_key(|m| m.site);
        Ok(members)
    }
}

impl Tx {
    /// Adds a study and its members.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn insert_study(&mut self, row: &StudyRow, members: &[SiteId]) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO studies (study, title, submitted_by, submitter, submitted_ms, state, plan_digest, document) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(row.study.to_string())
        .bind(row.title.clone())
        .bind(row.submitted_by.clone())
        .bind(row.submitter.to_string())
        .bind(row.submitted.as_millis())
        .bind(row.state.as_str())
        .bind(row.plan.to_string())
        .bind(row.document.clone())
        .execute(self.conn())
        .await
        .map_err(Error::database("insert_study"))?;
        for site in members {
            sqlx::query("INSERT INTO study_members (study, site) VALUES ($1, $2)")
                .bind(row.study.to_string())
                .bind(site.to_string())
                .execute(self.conn())
                .await
                .map_err(Error::database("insert_study"))?;
        }
        Ok(())
    }

    /// Withdraws a study; `false` if it was not offered.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn withdraw_study(&mut self, study: StudyId) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE studies SET state = 'withdrawn' WHERE study = $1 AND state = 'offered'")
            .bind(study.to_string())
            .execute(self.conn())
            .await
            .map_err(Error::database("withdraw_study"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Writes a member's decision; `false` if the site is no member of the study.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn set_decision(
        &mut self,
        study: StudyId,
        site: SiteId,
        decision: &Decision,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let json = serde_json::to_string(decision).map_err(|e| Error::corrupt("decision", e))?;
        let done =
            sqlx::query("UPDATE study_members SET decision = $1, decided_ms = $2 WHERE study = $3 AND site = $4")
                .bind(json)
                .bind(at.as_millis())
                .bind(study.to_string())
                .bind(site.to_string())
                .execute(self.conn())
                .await
                .map_err(Error::database("set_decision"))?;
        Ok(done.rows_affected() == 1)
    }
}

fn read_decision(row: &AnyRow) -> Result<MemberDecision, Error> {
    let decision = optional_text(row, "decision")?
        .map(|json| serde_json::from_str(&json).map_err(|e| Error::corrupt("decision", e)))
        .transpose()?;
    Ok(MemberDecision {
        site: parsed(row, "site")?,
        decision,
        decided: optional_integer(row, "decided_ms")?.map(Timestamp::from_millis),
    })
}
