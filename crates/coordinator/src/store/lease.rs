//! Leases by compare-and-set: at most one replica works on a thing at a time, and a dead one's work is taken over.

use hospes_protocol::id::Timestamp;

use super::{Store, integer};
use crate::Error;

/// A lease that this process holds. Its fence grows with every change of hands; a holder that was paused too long
/// finds its fence out of date and stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What is leased, such as `job/<id>`.
    pub subject: String,
    /// Who holds it.
    pub holder: String,
    /// Number of the tenure.
    pub fence: i64,
}

impl Store {
    /// Takes a lease that is free, expired or already ours; `None` if another holds it.
    ///
    /// # Units
    /// `for_ms` in milliseconds from `now`.
    ///
    /// # Errors
    /// [`Error::Database`] if the store cannot be written.
    pub async fn lease_acquire(
        &self,
        subject: &str,
        holder: &str,
        now: Timestamp,
        for_ms: i64,
    ) -> Result<Option<Lease>, Error> {
        let until = now.plus_millis(for_ms).as_millis();
        let mut tx = self.begin("lease_acquire").await?;
        let changed = sqlx::query(
            "INSERT INTO leases (subject, holder, fence, until_ms) VALUES ($1, $2, 1, $3) \
             ON CONFLICT (subject) DO UPDATE SET \
               fence = leases.fence + CASE WHEN leases.holder = excluded.holder THEN 0 ELSE 1 END, \
               holder = excluded.holder, until_ms = excluded.until_ms \
             WHERE leases.holder = excluded.holder OR leases.until_ms <= $4",
        )
        .bind(subject.to_owned())
        .bind(holder.to_owned())
        .bind(until)
        .bind(now.as_millis())
        .execute(tx.conn())
        .await
        .map_err(Error::database("lease_acquire"))?
        .rows_affected();
        if changed == 0 {
            return Ok(None);
        }
        let row = sqlx::query("SELECT fence FROM leases WHERE subject = $1")
            .bind(subject.to_owned())
            .fetch_one(tx.conn())
            .await
            .map_err(Error::database("lease_acquire"))?;
        let fence = integer(&row, "fence")?;
        tx.commit().await?;
        Ok(Some(Lease { subject: subject.to_owned(), holder: holder.to_owned(), fence }))
    }

    /// Holds a lease longer; `false` if it was lost in the meantime.
    ///
    /// # Units
    /// `for_ms` in milliseconds from `now`.
    ///
    /// # Errors
    /// [`Error::Database`] if the store cannot be written.
    pub async fn lease_renew(&self, lease: &Lease, now: Timestamp, for_ms: i64) -> Result<bool, Error> {
        let mut tx = self.begin("lease_renew").await?;
        let changed = sqlx::query("UPDATE leases SET until_ms = $1 WHERE subject = $2 AND holder = $3 AND fence = $4")
            .bind(now.plus_millis(for_ms).as_millis())
            .bind(lease.subject.clone())
            .bind(lease.holder.clone())
            .bind(lease.fence)
            .execute(tx.conn())
            .await
            .map_err(Error::database("lease_renew"))?
            .rows_affected();
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Gives a lease back, so that nobody has to wait for its end.
    ///
    /// # Errors
    /// [`Error::Database`] if the store cannot be written.
    pub async fn lease_release(&self, lease: &Lease) -> Result<(), Error> {
        let mut tx = self.begin("lease_release").await?;
        sqlx::query("UPDATE leases SET until_ms = 0 WHERE subject = $1 AND holder = $2 AND fence = $3")
            .bind(lease.subject.clone())
            .bind(lease.holder.clone())
            .bind(lease.fence)
            .execute(tx.conn())
            .await
            .map_err(Error::database("lease_release"))?;
        tx.commit().await
    }
}
