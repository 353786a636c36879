//! Regressions: where each stands between two rounds, and the tables that they ended with.

use hospes_protocol::id::JobId;

use super::{Store, Tx, optional_text, text};
use crate::Error;
use crate::aggregate::newton::{Fit, Newton};

impl Store {
    /// Where a regression stands; `None` before its first round.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn newton(&self, job: JobId, task: &str) -> Result<Option<Newton>, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query("SELECT state FROM fits WHERE job = $1 AND task = $2")
            .bind(job.to_string())
            .bind(task.to_owned())
            .fetch_optional(&mut *connection)
            .await
            .map_err(Error::database("newton"))?;
        let read = |row| serde_json::from_str(&text(&row, "state")?).map_err(|e| Error::corrupt("regression", e));
        row.map(read).transpose()
    }

    /// The finished fits of a job, by the names of their tasks.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn fits(&self, job: JobId) -> Result<Vec<Fit>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT fit FROM fits WHERE job = $1 AND fit IS NOT NULL ORDER BY task")
            .bind(job.to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("fits"))?;
        let mut fits = Vec::with_capacity(rows.len());
        for row in &rows {
            let Some(json) = optional_text(row, "fit")? else { continue };
            fits.push(serde_json::from_str(&json).map_err(|e| Error::corrupt("fit", e))?);
        }
        Ok(fits)
    }
}

impl Tx {
    /// Keeps where a regression stands, and its fit once there is one.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written, [`Error::Corrupt`] if it has no JSON form.
    pub async fn put_newton(
        &mut self,
        job: JobId,
        task: &str,
        newton: &Newton,
        fit: Option<&Fit>,
    ) -> Result<(), Error> {
        let wrong = |e| Error::corrupt("regression", e);
        let fit = fit.map(serde_json::to_string).transpose().map_err(wrong)?;
        sqlx::query(
            "INSERT INTO fits (job, task, state, fit) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (job, task) DO UPDATE SET state = excluded.state, fit = excluded.fit",
        )
        .bind(job.to_string())
        .bind(task.to_owned())
        .bind(serde_json::to_string(newton).map_err(wrong)?)
        .bind(fit)
        .execute(self.conn())
        .await
        .map_err(Error::database("put_newton"))?;
        Ok(())
    }
}
