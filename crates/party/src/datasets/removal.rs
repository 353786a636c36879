//! Removing a dataset: its copy and the key that opens it go, that it was there stays in the ledger and in old approvals.

use hospes_ledger::{Action, ObjectKind};
use hospes_protocol::id::DatasetId;
use hospes_protocol::text::shown;

use super::STEWARD;
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::Session;
use crate::store::At as _;
use crate::view::Notice;

impl Engine {
    pub(crate) async fn remove_dataset(
        &mut self,
        session: Session,
        dataset: DatasetId,
        reason: String,
    ) -> Result<(), PartyError> {
        let step = "remove a dataset";
        let acting = self.acting(&session, step, STEWARD).await?;
        crate::requests::check_reason(&reason)?;
        let mut tx = self.store.begin(step).await?;
        let found = super::by_id(tx.conn(), dataset).await?;
        if found.is_removed {
            return Err(PartyError::state("the dataset was removed already"));
        }
        // A run that rests on it would fail in the middle; its people revoke first, and everybody hears why.
        let open: Option<String> = sqlx::query_scalar(
            "SELECT study FROM approvals WHERE dataset = ?1 AND state IN ('active', 'suspended', 'partly_approved')",
        )
        .bind(dataset.to_string())
        .fetch_optional(tx.conn())
        .await
        .at(step)?;
        if let Some(study) = open {
            return Err(PartyError::state(format!(
                "an approval of study {study} rests on this dataset; refuse or revoke it first"
            )));
        }
        // So would one under an approval of the series, which keeps the version that it began with.
        let reads: Option<String> = sqlx::query_scalar(
            "SELECT study FROM jobs WHERE dataset = ?1 AND state IN ('ready', 'waiting', 'running')
             AND EXISTS (SELECT 1 FROM approvals WHERE approvals.study = jobs.study
                         AND approvals.state IN ('active', 'suspended'))",
        )
        .bind(dataset.to_string())
        .fetch_optional(tx.conn())
        .await
        .at(step)?;
        if let Some(study) = reads {
            return Err(PartyError::state(format!(
                "a run of study {study} reads this version; stop it first, or wait until it has ended"
            )));
        }
        let is_newest = super::newest_of(tx.conn(), found.series).await?.is_some_and(|newest| newest.id == dataset);
        // The name is free again; the row stays for the approvals that name it.
        sqlx::query(
            "UPDATE datasets SET name = ?2, sealed_key = x'', profile = x'', removed = ?3, former = NULL WHERE id = ?1",
        )
        .bind(dataset.to_string())
        .bind(format!("{} (removed {dataset})", shown(&found.name, 100)))
        .bind(self.now().as_millis())
        .execute(tx.conn())
        .await
        .at(step)?;
        // The series goes on from the newest version that is left, under its name.
        if is_newest && let Some(left) = super::newest_of(tx.conn(), found.series).await? {
            sqlx::query("UPDATE datasets SET name = ?2 WHERE id = ?1")
                .bind(left.id.to_string())
                .bind(&found.name)
                .execute(tx.conn())
                .await
                .at(step)?;
        }
        let digest = found.document.digest();
        let entry = self
            .entry(acting.actor(), Action::DatasetRemoved)
            .object(ObjectKind::Dataset, dataset, None)
            .object(ObjectKind::Snapshot, digest, Some(digest))
            .because(reason);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        // Without its key the file is noise; what cannot be deleted now is swept at the next start.
        if let Err(error) = std::fs::remove_file(self.snapshot(&found).path) {
            tracing::warn!(%error, %dataset, "the file of a removed dataset could not be deleted");
        }
        self.notify(Notice::Datasets);
        self.recheck_dry_run().await
    }
}
