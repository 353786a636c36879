//! Leaving a federation: its approvals end, nothing more leaves, and the keys of its link are destroyed. What was recorded
//! stays, and so does the identity key: exports of the log are signed with it, and a site that joins again is the same.

use hospes_ledger::{Action, ObjectKind};
use hospes_protocol::id::{FederationId, StudyId, Timestamp};
use sqlx::sqlite::SqliteConnection;

use super::{ADMINISTRATOR, Membership, by_id};
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::Session;
use crate::requests;
use crate::restored;
use crate::store::{At as _, set_setting, setting};
use crate::view::Notice;

fn key(federation: FederationId) -> String {
    format!("left/{federation}")
}

/// Set until everything is done that follows from leaving.
fn unfinished(federation: FederationId) -> String {
    format!("leaving/{federation}")
}

/// When the site left the federation, if it did.
pub(crate) async fn left(
    conn: &mut SqliteConnection,
    federation: FederationId,
) -> Result<Option<Timestamp>, PartyError> {
    let at = setting(conn, &key(federation)).await?;
    Ok(at.and_then(|at| at.parse().ok()).map(Timestamp::from_millis))
}

/// Within the step in which the site joins again.
pub(super) async fn come_back(conn: &mut SqliteConnection, federation: FederationId) -> Result<(), PartyError> {
    if left(conn, federation).await?.is_none() {
        return Ok(());
    }
    set_setting(conn, &key(federation), None).await?;
    set_setting(conn, &unfinished(federation), None).await?;
    sqlx::query("UPDATE memberships SET paused = NULL WHERE federation = ?1")
        .bind(federation.to_string())
        .execute(conn)
        .await
        .at("join a federation")?;
    Ok(())
}

impl Engine {
    pub(crate) async fn leave(
        &mut self,
        session: Session,
        federation: FederationId,
        reason: String,
    ) -> Result<(), PartyError> {
        let acting = self.acting(&session, "leave a federation", ADMINISTRATOR).await?;
        requests::check_reason(&reason)?;
        let mut tx = self.store.begin("leave a federation").await?;
        let membership = by_id(tx.conn(), federation).await?;
        if left(tx.conn(), federation).await?.is_some() {
            return Err(PartyError::state("this site has left the federation already"));
        }
        restored::leave(tx.conn(), federation).await?;
        let words = format!("this site left the federation: {reason}");
        let studies: Vec<StudyId> = requests::end_approvals(self, &mut tx, federation, &words).await?;
        set_setting(tx.conn(), &key(federation), Some(&self.now().as_millis().to_string())).await?;
        set_setting(tx.conn(), &unfinished(federation), Some("")).await?;
        sqlx::query("UPDATE memberships SET paused = ?2 WHERE federation = ?1")
            .bind(federation.to_string())
            .bind(&words)
            .execute(tx.conn())
            .await
            .at("leave a federation")?;
        let entry = self
            .entry(acting.actor(), Action::FederationLeft)
            .object(ObjectKind::Federation, federation, None)
            .object(ObjectKind::Site, membership.site, None)
            .because(&reason);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        // It is durable, and this site has left whatever fails from here on. What runs is stopped, and the coordinator hears
        // the decisions before the link is closed.
        let mut done = self.recheck_work().await;
        for study in studies {
            done = done.and(self.say_decision(study).await);
        }
        self.close_link(federation).await;
        self.forget_renewed(federation);
        if let Err(error) = done.and(self.end_leaving(&membership).await) {
            tracing::error!(
                %federation,
                error = &error as &dyn std::error::Error,
                "leaving a federation is not finished; it is tried again"
            );
        }
        for notice in [Notice::Federations, Notice::Requests, Notice::Jobs] {
            self.notify(notice);
        }
        Ok(())
    }

    /// Stops what runs and destroys the keys of the link, and then only takes it for done.
    async fn end_leaving(&mut self, membership: &Membership) -> Result<(), PartyError> {
        let stopped = self.recheck_work().await;
        for secret in ["tls", "proxy"] {
            self.vault.destroy(&membership.secret(secret)).await?;
        }
        stopped?;
        let mut tx = self.store.begin("end leaving a federation").await?;
        set_setting(tx.conn(), &unfinished(membership.federation), None).await?;
        tx.commit().await
    }

    /// Goes on with leaving federations that could not be finished.
    pub(crate) async fn tick_leaving(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let mut owed = Vec::new();
        for membership in super::all(&mut conn).await? {
            if setting(&mut conn, &unfinished(membership.federation)).await?.is_some() {
                owed.push(membership);
            }
        }
        drop(conn);
        let mut result = Ok(());
        for membership in owed {
            result = result.and(self.end_leaving(&membership).await);
        }
        result
    }
}
