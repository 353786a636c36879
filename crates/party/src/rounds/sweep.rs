//! Jobs among others: places that are given back until there is room everywhere, and the one job of a study with many
//! settings whose results are used.

use hospes_ledger::{Action, Actor, ObjectKind};
use hospes_protocol::approval::{Refusal, RefusalCode, ReleaseRule};
use hospes_protocol::id::{Digest, FederationId, JobId};
use hospes_protocol::limits;
use hospes_protocol::message::FromSite;
use sqlx::sqlite::SqliteConnection;

use super::state::RoundRow;
use super::{Job, ask_job};
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::requests;
use crate::store::{At as _, Tx};
use crate::view::Notice;

impl Engine {
    /// Whether a federation has as many jobs here as this site takes at a time.
    pub(super) fn against_more_jobs(&self, open: usize) -> Option<Refusal> {
        let most = self.config.runs_at_a_time.min(limits::OPEN_JOBS);
        (open >= most).then(|| {
            let words = format!("{open} runs of the federation are open here already, and {most} are taken at a time");
            Refusal::new(RefusalCode::Busy, words)
        })
    }

    /// Not every site has room for a job: its place here is free again until the coordinator asks once more. It may do
    /// that as often as it likes, so that its messages are counted and not entered one by one.
    pub(crate) async fn on_job_rollback(&mut self, federation: FederationId, job: JobId) -> Result<(), PartyError> {
        let mut tx = self.store.begin("give a place back").await?;
        let Some(found) = Job::find(tx.conn(), job).await? else { return Ok(()) };
        if found.federation != federation || found.state != "waiting" {
            return Ok(());
        }
        ask_job(&mut tx, job, "ready", Some("not every site has room for it yet"), self.now()).await?;
        tx.commit().await?;
        self.notify(Notice::Jobs);
        Ok(())
    }

    /// Whether a job that succeeded has results that this site's people release. Of a study with many settings only the
    /// one that was chosen has, and there is one such job only.
    pub(super) async fn has_result(&self, tx: &mut Tx, job: &Job, model: Option<Digest>) -> Result<bool, PartyError> {
        if requests::study(tx.conn(), job.study).await?.study.sweep.is_none() {
            return Ok(true);
        }
        Ok(model.is_some() && !another_was_chosen(tx.conn(), job).await?)
    }

    /// The coordinator says that a job, which had succeeded before, gave the best model of its study; says whether that is
    /// what it said. Its results wait for this site's people then, as those of any other job.
    pub(super) async fn on_chosen(
        &mut self,
        federation: FederationId,
        job: JobId,
        model: Option<Digest>,
    ) -> Result<bool, PartyError> {
        let mut tx = self.store.begin("take the chosen job").await?;
        let Some(found) = Job::find(tx.conn(), job).await? else { return Ok(false) };
        let (Some(model), true) = (model, found.federation == federation && found.state == "success") else {
            return Ok(false);
        };
        if found.release != "none" || !self.has_result(&mut tx, &found, Some(model)).await? {
            return Ok(true);
        }
        let rounds = RoundRow::of_job(tx.conn(), &job.to_string()).await?;
        let part = rounds.iter().any(RoundRow::took_part);
        let release = match self.release_rule(&mut tx, &rounds).await? {
            _ if !part => return Ok(true),
            Some(ReleaseRule::Automatic) => "released",
            _ => "held",
        };
        sqlx::query("UPDATE jobs SET model = ?2, release = ?3, released = ?4 WHERE job = ?1")
            .bind(job.to_string())
            .bind(model.to_string())
            .bind(release)
            .bind((release == "released").then_some(self.now().as_millis()))
            .execute(tx.conn())
            .await
            .at("take the chosen job")?;
        let entry = self
            .entry(Actor::peer(federation), Action::JobEnded)
            .object(ObjectKind::Job, job, None)
            .object(ObjectKind::Model, model.short(), Some(model))
            .purpose(found.purpose())
            .because("chosen as the best of the study's settings");
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        if release == "released" {
            self.say(federation, FromSite::Release { job });
        }
        self.notify(Notice::Jobs);
        Ok(true)
    }
}

/// Whether results of another job of the same study wait for release, or were released.
async fn another_was_chosen(conn: &mut SqliteConnection, job: &Job) -> Result<bool, PartyError> {
    let others: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM jobs WHERE study = ?1 AND job <> ?2 AND release <> 'none'")
            .bind(job.study.to_string())
            .bind(job.job.to_string())
            .fetch_one(conn)
            .await
            .at("look for the chosen job")?;
    Ok(others > 0)
}
