//! One run that this site's people paused: the site sits its rounds out until they end the pause. Its place in the run, and
//! what it keeps from one round to the next, stay.

use futures::FutureExt as _;
use hospes_ledger::{Action, ObjectKind};
use hospes_protocol::approval::Role;
use hospes_protocol::id::JobId;
use sqlx::sqlite::SqliteConnection;

use super::Job;
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::Handle;
use crate::people::Session;
use crate::requests;
use crate::store::{set_setting, setting};
use crate::view::Notice;

/// What the coordinator hears instead of a round's answer. Why is for this site's people alone.
pub(super) const PAUSED: &str = "this site's people have paused the run";

fn key(job: JobId) -> String {
    format!("paused/{job}")
}

/// Why a run is paused here, if it is.
pub(super) async fn paused(conn: &mut SqliteConnection, job: JobId) -> Result<Option<String>, PartyError> {
    setting(conn, &key(job)).await
}

impl Engine {
    async fn pause_job(&mut self, session: Session, job: JobId, reason: Option<String>) -> Result<(), PartyError> {
        let roles = &[Role::DataSteward, Role::Administrator];
        let acting = self.inside(&session, "pause a run", roles).await?;
        reason.as_deref().map_or(Ok(()), requests::check_reason)?;
        let mut tx = self.store.begin("pause a run").await?;
        let found = Job::read(tx.conn(), job).await?;
        // A run that failed may run again: its pause can be ended also before that.
        let is_paused = paused(tx.conn(), job).await?.is_some();
        let (action, words) = match &reason {
            Some(_) if found.is_over() => {
                return Err(PartyError::state(format!("the run has ended: {}", found.state)));
            }
            None if !is_paused => return Err(PartyError::state("the run is not paused here")),
            Some(reason) => (Action::TrainingPaused, format!("this site sits the run's rounds out: {reason}")),
            None => (Action::TrainingResumed, "the pause of the run was ended".to_owned()),
        };
        set_setting(tx.conn(), &key(job), reason.as_deref()).await?;
        let entry = self.entry(acting.actor(), action).object(ObjectKind::Job, job, None);
        self.append(&mut tx, &entry.purpose(found.purpose()).because(words)).await?;
        tx.commit().await?;
        self.notify(Notice::Jobs);
        // PRIVACY: what runs for the run, waits or is on the wire is taken back, and the coordinator told.
        self.recheck_work().await
    }
}

impl Handle {
    /// Pauses a run at this site with a reason, or with `None` ends the pause (data steward, administrator). While it is
    /// paused, the site takes part in none of its rounds: work under way is stopped, and what waits to leave is withdrawn.
    ///
    /// # Errors
    /// [`PartyError::Denied`], [`PartyError::NotFound`], [`PartyError::Input`] for a reason that is none,
    /// [`PartyError::State`] if the run has ended, or if there is no pause to be ended.
    pub async fn pause_job(&self, session: &Session, job: JobId, reason: Option<String>) -> Result<(), PartyError> {
        let s = session.clone();
        self.ask(move |e| e.pause_job(s, job, reason).boxed()).await
    }
}
