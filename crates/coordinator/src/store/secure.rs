//! Steps of rounds with secure aggregation: what makes an aggregator anew after a restart.

use std::collections::BTreeMap;

use hospes_protocol::id::{Digest, RoundKey, SiteId, Timestamp};
use hospes_protocol::round::coordinator::Step;

use super::rounds::bind_key;
use super::{Store, Tx, blob, parsed, text};
use crate::Error;

/// What a site said in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureMessage {
    /// The step.
    pub step: Step,
    /// Site.
    pub site: SiteId,
    /// What it said: bytes of a [`Sent`](hospes_privacy::secagg::Sent).
    pub message: Vec<u8>,
}

impl SecureMessage {
    /// SHA-256 of what was said.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.message)
    }
}

const STEPS: [(Step, &str); 5] = [
    (Step::Keys, "keys"),
    (Step::Shares, "shares"),
    (Step::Input, "input"),
    (Step::Consent, "consent"),
    (Step::Reveal, "reveal"),
];

fn word(step: Step) -> &'static str {
    STEPS.iter().find(|(known, _)| *known == step).map_or("", |(_, word)| word)
}

fn step(word: &str) -> Result<Step, Error> {
    let found = STEPS.iter().find(|(_, known)| *known == word).map(|(step, _)| *step);
    found.ok_or_else(|| Error::corrupt("step", format!("'{word}' is no step of a round")))
}

impl Store {
    /// What sites said in a round that is not over, step by step, in order of the sites' ids.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn secure_messages(&self, key: &RoundKey) -> Result<Vec<SecureMessage>, Error> {
        let mut connection = self.read().await?;
        let sql = "SELECT step, site, message FROM secure_messages \
                   WHERE job = $1 AND task = $2 AND epoch = $3 AND round = $4 AND attempt = $5";
        let rows = bind_key(sqlx::query(sql), key)
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("secure_messages"))?;
        let mut messages = Vec::with_capacity(rows.len());
        for row in &rows {
            let (step, site) = (step(&text(row, "step")?)?, parsed(row, "site")?);
            messages.push(SecureMessage { step, site, message: blob(row, "message")? });
        }
        messages.sort_by_key(|message| (message.step, message.site));
        Ok(messages)
    }

    /// With whom each step that is over went on, of a round that is not over.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn secure_steps(&self, key: &RoundKey) -> Result<BTreeMap<Step, Vec<SiteId>>, Error> {
        let mut connection = self.read().await?;
        let sql = "SELECT step, sites FROM secure_steps \
                   WHERE job = $1 AND task = $2 AND epoch = $3 AND round = $4 AND attempt = $5";
        let rows = bind_key(sqlx::query(sql), key)
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("secure_steps"))?;
        let mut steps = BTreeMap::new();
        for row in &rows {
            let sites = serde_json::from_str(&text(row, "sites")?).map_err(|e| Error::corrupt("step", e))?;
            steps.insert(step(&text(row, "step")?)?, sites);
        }
        Ok(steps)
    }
}

impl Tx {
    /// Keeps what a site said in a step; `false` if it said something in it before.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn insert_secure_message(
        &mut self,
        key: &RoundKey,
        said: &SecureMessage,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let sql = "INSERT INTO secure_messages (job, task, epoch, round, attempt, step, site, message, at_ms) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
        let done = bind_key(sqlx::query(sql), key)
            .bind(word(said.step))
            .bind(said.site.to_string())
            .bind(said.message.clone())
            .bind(at.as_millis())
            .execute(self.conn())
            .await
            .map_err(Error::database("insert_secure_message"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Keeps with whom a round went on after a step.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written, also where the step was over before.
    pub async fn close_secure_step(&mut self, key: &RoundKey, step: Step, sites: &[SiteId]) -> Result<(), Error> {
        let json = serde_json::to_string(sites).map_err(|e| Error::corrupt("step", e))?;
        let sql = "INSERT INTO secure_steps (job, task, epoch, round, attempt, step, sites) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        bind_key(sqlx::query(sql), key)
            .bind(word(step))
            .bind(json)
            .execute(self.conn())
            .await
            .map_err(Error::database("close_secure_step"))?;
        Ok(())
    }

    /// Deletes the steps of a round that is over: the shares in them would take the masks off an input once more.
    pub(super) async fn drop_secure_steps(&mut self, key: &RoundKey) -> Result<(), Error> {
        for sql in [
            "DELETE FROM secure_messages WHERE job = $1 AND task = $2 AND epoch = $3 AND round = $4 AND attempt = $5",
            "DELETE FROM secure_steps WHERE job = $1 AND task = $2 AND epoch = $3 AND round = $4 AND attempt = $5",
        ] {
            bind_key(sqlx::query(sql), key).execute(self.conn()).await.map_err(Error::database("drop_secure_steps"))?;
        }
        Ok(())
    }
}
