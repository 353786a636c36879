//! Who is in which pool: registrations join, and pools become one.

use hospes_cohort::pool::Members;
use hospes_privacy::dp::Curve;
use hospes_protocol::id::{DatasetId, Timestamp};
use sqlx::Row as _;
use zeroize::Zeroizing;

use super::{Pool, curve_bytes};
use crate::datasets::{self, DATA_KEY, Dataset, seal, unseal};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::in_background;
use crate::store::{At as _, Tx, signed};

/// What the members are sealed as.
const SEALED: &[u8] = b"pool";

/// A pool with its members.
struct Full {
    pool: Pool,
    members: Members,
}

/// A dataset's way into the pools, within the step that registers it.
pub(crate) struct Joining<'a> {
    pub(crate) dataset: DatasetId,
    /// Its members, of this version and of no other.
    pub(crate) members: &'a Members,
    /// Pool of the version before: the versions of a dataset are one pool, also where they have nobody in common.
    pub(crate) former: Option<DatasetId>,
}

/// Joins the pools that have one of the dataset's subjects, or begins one. Which one it is in then.
pub(crate) async fn join(
    tx: &mut Tx,
    data_key: &Zeroizing<[u8; 32]>,
    joining: Joining<'_>,
    now: Timestamp,
) -> Result<DatasetId, PartyError> {
    let Joining { dataset, members, former } = joining;
    let step = tx.step();
    let pools = full(tx, data_key).await?;
    let joined: Vec<Full> =
        pools.into_iter().filter(|full| Some(full.pool.id) == former || full.members.overlaps(members)).collect();
    let mut joined = joined.into_iter();
    let pool = match joined.next() {
        None => {
            let begun = Pool { id: dataset, subjects: 0, curve: Curve::default() };
            sqlx::query("INSERT INTO pools (id, members, subjects, curve, at) VALUES (?1, x'', 0, ?2, ?3)")
                .bind(dataset.to_string())
                .bind(curve_bytes(&begun.curve))
                .bind(now.as_millis())
                .execute(tx.conn())
                .await
                .at(step)?;
            Full { pool: begun, members: Members::default() }
        }
        Some(mut first) => {
            for other in joined {
                first = first.with(other, tx).await?;
            }
            first
        }
    };
    let all = pool.members.with(members);
    sqlx::query("UPDATE pools SET members = ?2, subjects = ?3, curve = ?4 WHERE id = ?1")
        .bind(pool.pool.id.to_string())
        .bind(seal(data_key, SEALED, &all.to_bytes())?)
        .bind(signed(all.len() as u64))
        .bind(curve_bytes(&pool.pool.curve))
        .execute(tx.conn())
        .await
        .at(step)?;
    sqlx::query("UPDATE datasets SET pool = ?2 WHERE id = ?1")
        .bind(dataset.to_string())
        .bind(pool.pool.id.to_string())
        .execute(tx.conn())
        .await
        .at(step)?;
    Ok(pool.pool.id)
}

impl Full {
    /// One pool of both: this one, with the other's spendings.
    async fn with(self, other: Self, tx: &mut Tx) -> Result<Self, PartyError> {
        let step = tx.step();
        let curve = of_both((&self.members, &self.pool.curve), (&other.members, &other.pool.curve));
        for sql in [
            "UPDATE spendings SET pool = ?1 WHERE pool = ?2",
            "UPDATE datasets SET pool = ?1 WHERE pool = ?2",
            "DELETE FROM pools WHERE id = ?2 AND id <> ?1",
        ] {
            sqlx::query(sql)
                .bind(self.pool.id.to_string())
                .bind(other.pool.id.to_string())
                .execute(tx.conn())
                .await
                .at(step)?;
        }
        let members = self.members.with(&other.members);
        Ok(Self { pool: Pool { curve, ..self.pool }, members })
    }
}

/// What two pools have spent that become one. Without a subject in both nobody paid for more than one of them, so that the larger
/// divergence holds for each; otherwise somebody may have paid for both (specs/differential-privacy.md).
fn of_both(one: (&Members, &Curve), other: (&Members, &Curve)) -> Curve {
    let ((members, curve), (others, its)) = (one, other);
    if members.overlaps(others) { curve.plus(its) } else { curve.maximum(its) }
}

/// All pools with their members, the oldest first.
async fn full(tx: &mut Tx, data_key: &Zeroizing<[u8; 32]>) -> Result<Vec<Full>, PartyError> {
    let rows = sqlx::query("SELECT * FROM pools ORDER BY at, id").fetch_all(tx.conn()).await.at("read pools")?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let sealed: Vec<u8> = row.try_get("members").at("read pools")?;
        let members = Members::from_bytes(&unseal(data_key, SEALED, &sealed)?)?;
        Ok(Full { pool: Pool::from_row(row)?, members })
    };
    rows.iter().map(read).collect()
}

impl Engine {
    /// Puts datasets that were registered before there were pools into theirs, and enters what left of them since. One whose
    /// snapshot cannot be read stays out, and nothing bounded is released of it.
    pub(crate) async fn pool_older_datasets(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let older: Vec<_> = datasets::all(&mut conn).await?.into_iter().filter(|d| d.pool.is_none()).collect();
        drop(conn);
        for dataset in older {
            let members = match self.members_of(&dataset).await {
                Ok(members) => members,
                Err(error) => {
                    let dataset = dataset.id;
                    tracing::error!(error = &error as &dyn std::error::Error, %dataset, "a dataset was not counted");
                    continue;
                }
            };
            let data_key = self.secret32(DATA_KEY).await?;
            let mut tx = self.store.begin("put a dataset into a pool").await?;
            let former = match dataset.former {
                Some(former) => datasets::by_id(tx.conn(), former).await?.pool,
                None => None,
            };
            let joining = Joining { dataset: dataset.id, members: &members, former };
            let pool = join(&mut tx, &data_key, joining, self.now()).await?;
            // What was withdrawn before its first byte left told nobody anything.
            sqlx::query(
                "INSERT OR IGNORE INTO spendings (job, task, epoch, round, attempt, study, pool, release, epsilon, at)
                 SELECT outbox.job, task, epoch, round, attempt, jobs.study, ?2, NULL, 0, outbox.at
                 FROM outbox JOIN jobs ON jobs.job = outbox.job
                 WHERE jobs.dataset = ?1 AND (outbox.left_at IS NOT NULL OR outbox.state = 'waiting')",
            )
            .bind(dataset.id.to_string())
            .bind(pool.to_string())
            .execute(tx.conn())
            .await
            .at("put a dataset into a pool")?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Reads the members of a dataset from its snapshot.
    async fn members_of(&self, dataset: &Dataset) -> Result<Members, PartyError> {
        let (snapshot, key) = (self.snapshot(dataset), self.snapshot_key(dataset).await?);
        let pools = self.subject_key().await?.pool_key();
        in_background(move || Ok(snapshot.members(&key, &pools)?)).await
    }
}

#[cfg(test)]
mod tests {
    use hospes_privacy::dp::Release;

    use super::*;

    #[test]
    fn pools_that_share_somebody_have_spent_the_sum_and_others_the_larger() {
        let members = |of: &[u8]| Members::from_bytes(&of.iter().flat_map(|n| [*n; 16]).collect::<Vec<_>>()).unwrap();
        let spent = |times| Curve::of(&[Release::new(1.0, 5.0, times).unwrap()]);
        let (small, large) = (spent(10), spent(30));
        let one = members(&[1, 2]);
        assert_eq!(of_both((&one, &small), (&members(&[3]), &large)), large);
        assert_eq!(of_both((&one, &small), (&members(&[2, 3]), &large)), small.plus(&large));
    }
}
