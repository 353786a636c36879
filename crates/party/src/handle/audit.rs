//! What can be asked of the audit log and about alarms.

use std::path::PathBuf;

use futures::FutureExt as _;
use hospes_protocol::id::{FederationId, SiteId};

use super::{Handle, Result, in_background};
use crate::people::{Passphrase, Session};
use crate::view::{AlarmView, AuditExport, AuditFormat, AuditPage, AuditQuery, Outcome};

impl Handle {
    /// A page of the audit log, newest first.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn audit(&self, session: &Session, query: AuditQuery) -> Result<AuditPage> {
        let s = session.clone();
        self.ask(move |e| e.audit_page(s, query).boxed()).await
    }

    /// Verifies the whole ledger and says how it is witnessed, in words. The first sentence says whether it is intact, and
    /// names the first bad entry; what is wrong is an alarm too, and stops what leaves until somebody acknowledged it.
    ///
    /// # Errors
    /// [`PartyError::Ledger`] if it could not be read.
    pub async fn verify_audit(&self, session: &Session) -> Result<Vec<String>> {
        let s = session.clone();
        let verification = self.ask(move |e| e.verification(s).boxed()).await?;
        let verified = in_background(move || verification.run()).await?;
        self.ask(move |e| e.verified(verified).boxed()).await
    }

    /// Exports the ledger to a new file (auditor, privacy officer, administrator): as JSON Lines with proofs, signed with
    /// this site's identity in a federation (the only one, if none is named), or as a report that is made of them. The
    /// log has an entry about it, with the file's digest, before the file has its name.
    ///
    /// # Disclosure
    /// Reports for people hold the names of staff that the log has pseudonyms of; nothing of patients, and no row.
    ///
    /// # Errors
    /// [`PartyError::File`], also if the file exists; [`PartyError::Denied`]; [`PartyError::State`] if the log is not
    /// intact: of that there is the native form only, as evidence.
    pub async fn export_audit_as(
        &self,
        session: &Session,
        federation: Option<FederationId>,
        format: AuditFormat,
        path: PathBuf,
    ) -> Result<AuditExport> {
        let s = session.clone();
        let export = self.ask(move |e| e.begin_export(s, federation, format, path).boxed()).await?;
        let written = in_background(move || export.write()).await?;
        self.ask(move |e| e.finish_export(written).boxed()).await
    }

    /// As [`Handle::export_audit_as`], in the native form: JSON Lines with proofs.
    ///
    /// # Errors
    /// As [`Handle::export_audit_as`].
    pub async fn export_audit(
        &self,
        session: &Session,
        federation: Option<FederationId>,
        path: PathBuf,
    ) -> Result<AuditExport> {
        self.export_audit_as(session, federation, AuditFormat::JsonLines, path).await
    }

    /// Months after which entries of the ledger are erased; `None` keeps them for good.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn audit_retention(&self, session: &Session) -> Result<Option<u32>> {
        let s = session.clone();
        self.ask(move |e| e.audit_retention(s).boxed()).await
    }

    /// Sets the months after which entries are erased, at least 12 (administrator). Erasing sooner than before needs a
    /// second signature once the site is in operation. Proofs of erased entries still hold.
    ///
    /// # Errors
    /// [`PartyError::Input`] outside of what may be set, [`PartyError::Denied`].
    pub async fn set_audit_retention(
        &self,
        session: &Session,
        months: Option<u32>,
        passphrase: Passphrase,
    ) -> Result<Outcome> {
        let s = session.clone();
        self.ask(move |e| e.set_audit_retention(s, months, passphrase).boxed()).await
    }

    /// The newest checkpoint of a log that was seen here, as a signed note, for `hospesctl audit verify --checkpoint`: it
    /// shows a log that was cut, rewritten or forked since.
    ///
    /// # Errors
    /// [`PartyError::NotFound`] if none was seen.
    pub async fn checkpoint_note(&self, session: &Session, federation: FederationId, origin: SiteId) -> Result<String> {
        let s = session.clone();
        self.ask(move |e| e.checkpoint_note(s, federation, origin).boxed()).await
    }

    /// Alarms that nobody acknowledged.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn alarms(&self, session: &Session) -> Result<Vec<AlarmView>> {
        let s = session.clone();
        self.ask(move |e| e.alarms(s).boxed()).await
    }

    /// Acknowledges an alarm; that this site's own log is not intact, as auditor, privacy officer or administrator.
    ///
    /// # Errors
    /// [`PartyError::NotFound`], [`PartyError::Denied`].
    pub async fn acknowledge(&self, session: &Session, alarm: i64) -> Result<()> {
        let s = session.clone();
        self.ask(move |e| e.acknowledge(s, alarm).boxed()).await
    }
}
