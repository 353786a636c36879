//! What a site keeps from one round of a task to the next and never sends: layers that stay here, control variates. A file
//! for each round, made durable by the worker before its payload.
//!
//! A file counts from the transaction that records its round's update on, and no longer than that update does: one of a
//! round that was withdrawn, failed or not counted is passed over, and the task goes on from the one before.

use std::collections::HashSet;
use std::path::PathBuf;

use hospes_protocol::id::{Digest, RoundKey};
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::round::site::State;
use sqlx::sqlite::SqliteConnection;

use super::Job;
use super::state::RoundRow;
use crate::engine::Engine;
use crate::error::PartyError;

impl Engine {
    /// Where what is kept of a round lies. The name is a digest: a task's name comes from outside.
    pub(super) fn kept_path(&self, key: &RoundKey) -> PathBuf {
        self.config.kept().join(format!("{}.kept", Digest::of(key.to_string().as_bytes())))
    }

    /// The newest file that this round may start from, if there is one. Older ones are deleted.
    pub(super) async fn kept_before(
        &self,
        conn: &mut SqliteConnection,
        row: &RoundRow,
        plan: &Plan,
        subjects: u64,
    ) -> Result<Option<PathBuf>, PartyError> {
        let Some(trained) = plan::trained_by(plan, &row.key.task) else { return Ok(None) };
        let judges = trained != row.key.task;
        let mut rounds = RoundRow::of_job(conn, &row.key.job.to_string()).await?;
        rounds.retain(|r| r.key.task == trained && (judges || r.key.round < row.key.round));
        rounds.sort_by_key(|r| (r.key.round, r.key.epoch, r.key.attempt));
        let mut newest = None;
        for round in rounds.iter().rev() {
            let path = self.kept_path(&round.key);
            if newest.is_some() {
                self.erase_kept(&round.key);
            } else if counts(&round.state) && path.exists() {
                // PRIVACY: somebody who opted out since is in it; the task goes on without it. The opt-out list only grows,
                // so that the same count means the same people.
                if Self::subjects_of(conn, &round.key).await? == Some(subjects) {
                    newest = Some(path);
                } else {
                    self.erase_kept(&round.key);
                }
            }
        }
        Ok(newest)
    }

    pub(super) fn erase_kept(&self, key: &RoundKey) {
        match std::fs::remove_file(self.kept_path(key)) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            // No round starts from it any more; the next start sweeps it.
            Err(error) => tracing::error!(%error, "what was kept of a round could not be deleted"),
        }
    }

    /// Files that rounds may start from: of runs under way, and for a week of those that may run again.
    pub(super) async fn kept_needed(&self, conn: &mut SqliteConnection) -> Result<HashSet<PathBuf>, PartyError> {
        let mut needed = HashSet::new();
        for job in Job::unfinished(conn).await? {
            let rounds = RoundRow::of_job(conn, &job.job.to_string()).await?;
            // A run can last longer than that: its last round counts, not its first day.
            let newest = rounds.iter().map(|round| round.at).chain([job.at]).max().unwrap_or(job.at);
            if job.is_over() && self.now().since(newest) >= super::SILENCE_MS {
                continue;
            }
            needed.extend(rounds.iter().filter(|r| may_count(&r.state)).map(|r| self.kept_path(&r.key)));
        }
        Ok(needed)
    }

    /// A job that has ended starts no more rounds.
    pub(super) async fn drop_kept(&self, job: &Job) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        for row in RoundRow::of_job(&mut conn, &job.job.to_string()).await? {
            self.erase_kept(&row.key);
        }
        Ok(())
    }
}

/// Whether what a round ended with here is part of what the coordinator goes on from.
fn counts(state: &State) -> bool {
    matches!(
        state,
        State::Committed(_)
            | State::Acknowledged(_)
            | State::Agreed(_)
            | State::Revealed(_)
            | State::Published { included: true, .. }
    )
}

/// Whether it may become so: an update that waits to be masked counts when it is.
fn may_count(state: &State) -> bool {
    counts(state) || matches!(state, State::Advertised | State::Shared)
}
