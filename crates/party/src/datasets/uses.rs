//! Which studies a dataset was approved for, and what left of it.

use hospes_protocol::id::{DatasetId, StudyId, Timestamp};
use hospes_protocol::text::shown;

use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::Session;
use crate::store::{At as _, parse, unsigned};
use crate::view::DatasetUse;
use crate::{memberships, requests};

impl Engine {
    pub(crate) async fn dataset_uses(
        &mut self,
        session: Session,
        dataset: DatasetId,
    ) -> Result<Vec<DatasetUse>, PartyError> {
        self.inside(&session, "see what a dataset is used for", &[]).await?;
        let mut conn = self.reader().await?;
        super::by_id(&mut conn, dataset).await?;
        // Under an approval of the series each run read one version. What was let go without a receipt may have arrived: it
        // counts.
        let rows: Vec<(String, String, i64, i64, i64, i64)> = sqlx::query_as(
            "WITH read AS (
                 SELECT rounds.* FROM rounds JOIN approvals ON approvals.id = rounds.approval
                 JOIN jobs ON jobs.job = rounds.job WHERE COALESCE(jobs.dataset, approvals.dataset) = ?1
             )
             SELECT study, state, at, expires,
                    (SELECT COUNT(DISTINCT read.job) FROM read WHERE read.approval = approvals.id),
                    (SELECT COALESCE(SUM(outbox.bytes), 0) FROM read JOIN outbox USING (job, task, epoch, round, attempt)
                     WHERE read.approval = approvals.id AND outbox.left_at IS NOT NULL)
             FROM approvals WHERE dataset = ?1 OR EXISTS (SELECT 1 FROM read WHERE read.approval = approvals.id)
             ORDER BY at DESC",
        )
        .bind(dataset.to_string())
        .fetch_all(&mut *conn)
        .await
        .at("read what a dataset is used for")?;
        let mut uses = Vec::with_capacity(rows.len());
        for (study, state, at, expires, runs, bytes) in rows {
            let study: StudyId = parse(&study, "study")?;
            let offered = requests::study(&mut conn, study).await?;
            let federation = memberships::by_id(&mut conn, offered.federation).await?;
            uses.push(DatasetUse {
                study,
                title: shown(&offered.study.terms.title, 200),
                federation_name: shown(&federation.name, 200),
                state,
                at: Timestamp::from_millis(at),
                expires: Timestamp::from_millis(expires),
                runs: u32::try_from(runs).unwrap_or(u32::MAX),
                bytes_left: unsigned(bytes),
            });
        }
        Ok(uses)
    }
}
