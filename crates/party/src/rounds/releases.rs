//! Releases are said again: nothing answers one, and it may have been lost.
//!
//! After each connection the newest are, and minute by minute those before them, until all are that were not said on a
//! connection that lived on. A site that takes part for years has many, and a coordinator that starts again is greeted by all
//! its sites at once.

use hospes_protocol::id::{FederationId, Timestamp};
use hospes_protocol::message::FromSite;
use sqlx::Row as _;

use crate::engine::{Engine, LOOK_MS};
use crate::error::PartyError;
use crate::store::{At as _, parse};

/// Releases that are said at once: a link takes more while it is busy.
const AT_ONCE: u8 = 100;

/// How far they are on one link.
#[derive(Debug, Clone, Default)]
pub(crate) struct Releases {
    /// The coordinator has heard those before, in milliseconds.
    heard: i64,
    on_this_connection: Option<Said>,
}

#[derive(Debug, Clone)]
struct Said {
    /// When the connection began.
    began: Timestamp,
    /// When some were last said.
    at: Timestamp,
    /// Time and job of the last that was said; none once nothing is left.
    down_to: Option<(i64, String)>,
}

impl Engine {
    /// Says the newest releases, after a connection.
    pub(super) async fn repeat_releases(&mut self, federation: FederationId) -> Result<(), PartyError> {
        let began = self.now();
        self.say_releases(federation, began, None).await
    }

    /// Goes on with those that are left, on each link that is up.
    pub(crate) async fn tick_releases(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        let up = self.links.iter().filter(|(_, link)| link.is_connected());
        let said: Vec<_> = up.filter_map(|(of, link)| Some((*of, link.releases.on_this_connection.clone()?))).collect();
        let mut result = Ok(());
        for (federation, said) in said {
            if let Some(down_to) = said.down_to {
                result = result.and(self.say_releases(federation, said.began, Some(down_to)).await);
            } else if now.since(said.at) >= LOOK_MS
                && let Some(link) = self.links.get_mut(&federation)
            {
                // What was said a minute ago, on a connection that lives, was heard.
                link.releases = Releases { heard: said.began.as_millis(), on_this_connection: None };
            }
        }
        result
    }

    async fn say_releases(
        &mut self,
        federation: FederationId,
        began: Timestamp,
        below: Option<(i64, String)>,
    ) -> Result<(), PartyError> {
        const READ: &str = "read releases";
        let heard = self.links.get(&federation).map_or(i64::MIN, |link| link.releases.heard);
        // The newest in any case.
        let least = if below.is_some() { heard } else { i64::MIN };
        let (time, job) = below.unwrap_or((i64::MAX, String::new()));
        let rows = sqlx::query(
            "SELECT jobs.job AS job, jobs.released AS released FROM jobs JOIN studies ON studies.study = jobs.study
             WHERE jobs.release = 'released' AND studies.federation = ?1 AND jobs.released >= ?2
               AND (jobs.released < ?3 OR (jobs.released = ?3 AND jobs.job < ?4))
             ORDER BY jobs.released DESC, jobs.job DESC LIMIT ?5",
        )
        .bind(federation.to_string())
        .bind(least)
        .bind(time)
        .bind(job)
        .bind(i64::from(AT_ONCE))
        .fetch_all(self.store.readers())
        .await
        .at(READ)?;
        let mut last = None;
        for row in &rows {
            let (job, released): (String, i64) = (row.try_get("job").at(READ)?, row.try_get("released").at(READ)?);
            self.say(federation, FromSite::Release { job: parse(&job, "job")? });
            last = Some((released, job));
        }
        let down_to = last.filter(|(released, _)| rows.len() == usize::from(AT_ONCE) && *released >= heard);
        let at = self.now();
        if let Some(link) = self.links.get_mut(&federation) {
            link.releases.on_this_connection = Some(Said { began, at, down_to });
        }
        Ok(())
    }
}
