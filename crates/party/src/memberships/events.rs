//! What links say, and who in the engine hears it.

use hospes_ledger::{Action, Actor, ObjectKind};
use hospes_protocol::id::FederationId;
use hospes_protocol::message::{FromSite, ToSite};
use hospes_protocol::text::shown;
use zeroize::Zeroizing;

use super::{Membership, by_id};
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::link::{self, LinkEvent};
use crate::store::{At as _, Tx};
use crate::view::{LinkView, Notice};

impl Engine {
    pub(crate) async fn on_link(&mut self, federation: FederationId, event: LinkEvent) -> Result<(), PartyError> {
        if self.links.get(&federation).is_none_or(|l| l.commands.is_none()) {
            // A link that was closed here (paused, replaced) may still have something to say; it is not heard.
            return Ok(());
        }
        match event {
            LinkEvent::Connected(welcome) => self.on_welcome(federation, welcome).await,
            LinkEvent::Disconnected { reason, retry_in } => {
                let wait = i64::try_from(retry_in.as_millis()).unwrap_or(i64::MAX);
                let retry_at = self.now().plus_millis(wait);
                if let Some(link) = self.links.get_mut(&federation) {
                    link.unwritten = None;
                }
                self.set_link_view(federation, LinkView::Disconnected { reason, retry_at });
                Ok(())
            }
            LinkEvent::Stopped { reason } => self.on_link_stopped(federation, reason).await,
            LinkEvent::Message(message) => Box::pin(self.on_message(federation, message)).await,
            LinkEvent::MayLeave { upload, reply } => {
                let answer = self.may_leave(federation, &upload).await;
                match answer {
                    Ok(leave) => {
                        let _ = reply.send(leave);
                        Ok(())
                    }
                    // Unanswered, the upload waits and is asked about again: nothing leaves on an error (fail closed).
                    Err(error) => Err(error),
                }
            }
            LinkEvent::Uploaded { upload, receipt } => self.on_uploaded(federation, upload, receipt).await,
            LinkEvent::UploadRefused { upload, reason } => self.on_upload_refused(federation, upload, reason).await,
            LinkEvent::Downloaded { digest, .. } => Box::pin(self.on_downloaded(federation, digest)).await,
            LinkEvent::DownloadFailed { digest, reason } => self.on_download_failed(federation, digest, reason).await,
            LinkEvent::Card { job, model, card } => self.on_card(federation, job, model, &card).await,
            LinkEvent::CardRefused { job, model, reason } => {
                self.on_card_refused(federation, job, model, &reason);
                Ok(())
            }
            LinkEvent::Moved { digest, done, total } => {
                self.on_moved(federation, digest, done, total);
                self.notify(Notice::Egress);
                Ok(())
            }
            LinkEvent::CertificateRenewed { chain_pem, key_pem } => {
                self.on_renewed(federation, chain_pem, key_pem).await
            }
        }
    }

    fn set_link_view(&mut self, federation: FederationId, mut view: LinkView) {
        if let LinkView::Disconnected { reason, .. } = &mut view {
            // It may repeat what a coordinator or a proxy said.
            *reason = shown(reason, 400);
        }
        if let Some(link) = self.links.get_mut(&federation) {
            link.view = view;
        }
        self.notify(Notice::Federations);
    }

    async fn on_link_stopped(&mut self, federation: FederationId, reason: String) -> Result<(), PartyError> {
        let retry_at = self.now();
        // The coordinator's words: an alarm and an entry must not grow with them.
        let reason = shown(&reason, 400);
        self.set_link_view(federation, LinkView::Disconnected { reason: reason.clone(), retry_at });
        if let Some(link) = self.links.get_mut(&federation) {
            link.commands = None;
        }
        let mut tx = self.store.begin("end a link").await?;
        let words = format!("the link to the coordinator ended for good: {reason}; enrol again if that is a mistake");
        self.alarm(&mut tx, Some(federation), &words).await?;
        let entry = self.entry(Actor::peer(federation), Action::CertificateRevoked).because(&words);
        self.append(&mut tx, &entry.object(ObjectKind::Federation, federation, None)).await?;
        tx.commit().await
    }

    async fn on_renewed(
        &mut self,
        federation: FederationId,
        chain_pem: String,
        key_pem: Zeroizing<String>,
    ) -> Result<(), PartyError> {
        if let Some(link) = self.links.get_mut(&federation) {
            link.renewed = Some((chain_pem, key_pem));
        }
        self.keep_renewed(federation).await
    }

    /// Records renewed certificates that could not be recorded when they came.
    pub(crate) async fn tick_renewed(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        let owed: Vec<_> = self.links.iter().filter(|(_, l)| l.renewed.is_some()).map(|(of, _)| *of).collect();
        if owed.is_empty() || !self.unkept.is_over(now) {
            return Ok(());
        }
        let mut result = Ok(());
        for federation in owed {
            result = result.and(self.keep_renewed(federation).await);
        }
        self.unkept.note(now, &result);
        result
    }

    /// Keeps a renewed certificate with its key, and enters it.
    async fn keep_renewed(&mut self, federation: FederationId) -> Result<(), PartyError> {
        let Some((chain_pem, key_pem)) = self.links.get(&federation).and_then(|link| link.renewed.clone()) else {
            return Ok(());
        };
        let mut tx = self.store.begin("renew a certificate").await?;
        let membership = by_id(tx.conn(), federation).await?;
        self.enter_renewed(&mut tx, federation, &chain_pem).await?;
        // The vault before the commit: the certificate lies there with its key, so that the pair always fits, and one that is
        // there without an entry is entered before it is used again (`enter_found`).
        self.vault.keep(&membership.secret("tls"), Zeroizing::new(key_pem.as_bytes().to_vec())).await?;
        tx.commit().await?;
        self.forget_renewed(federation);
        self.notify(Notice::Federations);
        Ok(())
    }

    /// A certificate that is kept, or was replaced by another or by none.
    pub(super) fn forget_renewed(&mut self, federation: FederationId) {
        if let Some(link) = self.links.get_mut(&federation) {
            link.renewed = None;
        }
    }

    /// Before a link is opened: enters a certificate that was kept when its entry could not be written any more.
    pub(super) async fn enter_found(&self, membership: &Membership, key_pem: &str) -> Result<(), PartyError> {
        let found = link::certificate_in(key_pem).filter(|found| !membership.chain_pem.contains(found.trim()));
        let Some(found) = found else { return Ok(()) };
        let mut tx = self.store.begin("renew a certificate").await?;
        self.enter_renewed(&mut tx, membership.federation, found).await?;
        tx.commit().await
    }

    async fn enter_renewed(&self, tx: &mut Tx, federation: FederationId, chain_pem: &str) -> Result<(), PartyError> {
        sqlx::query("UPDATE memberships SET chain_pem = ?2 WHERE federation = ?1")
            .bind(federation.to_string())
            .bind(chain_pem)
            .execute(tx.conn())
            .await
            .at("renew a certificate")?;
        let entry =
            self.entry(Actor::Engine, Action::CertificateRenewed).object(ObjectKind::Federation, federation, None);
        self.append(tx, &entry).await.map(drop)
    }

    async fn on_message(&mut self, federation: FederationId, message: ToSite) -> Result<(), PartyError> {
        self.count_control(federation, false, kind_of(&message));
        match message {
            // The link answers heartbeats and welcomes by itself.
            ToSite::Welcome(_) | ToSite::Heartbeat { .. } => Ok(()),
            ToSite::Roster(roster) => self.on_roster(federation, *roster).await,
            ToSite::Vouch(vouch) => self.on_vouch(federation, *vouch).await,
            ToSite::Study(study) => self.on_study(federation, *study).await,
            ToSite::StudyWithdrawn { study } => self.on_study_withdrawn(federation, study).await,
            ToSite::JobReserve { job, study, plan } => {
                let refusal = self.reserve(federation, job, study, *plan).await?;
                self.say(federation, FromSite::Reserved { job, refusal });
                Ok(())
            }
            ToSite::JobStart { job } => self.on_job_start(federation, job).await,
            ToSite::JobRollback { job } => self.on_job_rollback(federation, job).await,
            ToSite::RoundOpen(header) => Box::pin(self.on_round_open(federation, *header)).await,
            ToSite::Relay { round, message } => Box::pin(self.on_relay(federation, round, message)).await,
            ToSite::RoundClosed { round, outcome } => self.on_round_closed(federation, round, outcome).await,
            ToSite::JobEnded { job, state, reason, model } => {
                self.on_job_end(federation, job, &state, reason, model).await
            }
            ToSite::Witness(witness) => self.on_witness(federation, witness).await,
            ToSite::Goodbye { reason } => {
                tracing::info!(%federation, reason, "the coordinator ended the session");
                Ok(())
            }
        }
    }
}

/// Name of a control message's kind, for the summary.
fn kind_of(message: &ToSite) -> &'static str {
    match message {
        ToSite::Welcome(_) => "welcome",
        ToSite::Heartbeat { .. } => "heartbeat",
        ToSite::Roster(_) => "roster",
        ToSite::Vouch(_) => "vouch",
        ToSite::Study(_) => "study",
        ToSite::StudyWithdrawn { .. } => "study withdrawn",
        ToSite::JobReserve { .. } => "job reserve",
        ToSite::JobStart { .. } => "job start",
        ToSite::JobRollback { .. } => "job rollback",
        ToSite::RoundOpen(_) => "round open",
        ToSite::Relay { .. } => "secure aggregation",
        ToSite::RoundClosed { .. } => "round closed",
        ToSite::JobEnded { .. } => "job ended",
        ToSite::Witness(_) => "witness",
        ToSite::Goodbye { .. } => "goodbye",
    }
}
