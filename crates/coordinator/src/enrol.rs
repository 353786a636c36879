//! Who belongs to the federation: invitations, enrolment, renewal, suspension and revocation. Each is one transaction
//! with its ledger entries.

use std::sync::Arc;

use hospes_ledger::{Action, Actor, Entry, ObjectKind};
use hospes_protocol::enrol::{EnrolAnswer, EnrolRequest, FederationInfo, Invitation, RenewAnswer};
use hospes_protocol::id::{PersonId, SiteId, Timestamp};
use hospes_protocol::sign::{Signature, Signed};
use hospes_protocol::study::MemberStatement;
use hospes_protocol::{text, version};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::audit::Audit;
use crate::ca::{BACKDATED_MS, Issued, Peer};
use crate::config::Home;
use crate::schedule::{Rejection, RejectionCode};
use crate::store::{
    Caller, CertificateRow, InvitationRow, Role, Secret, SiteRow, SiteState, Standing, Store, TokenRow, Tx,
};
use crate::{Clock, Error, random};

/// Shortest and longest life of an invitation in seconds.
pub const INVITATION_SECONDS: std::ops::RangeInclusive<u32> = 60..=14 * 86_400;

/// What came of something that may be refused.
pub type Outcome<T> = Result<Result<T, Rejection>, Error>;

/// The register of members.
pub struct Register {
    /// Settings, identity, certificate authority.
    pub home: Arc<Home>,
    /// State.
    pub store: Store,
    /// Ledger.
    pub audit: Audit,
    /// Time.
    pub clock: Clock,
}

/// Who acts, in a ledger entry.
pub fn actor(caller: &Caller) -> Actor {
    Actor::Person { id: PersonId::from_uuid(caller.id), key: None, role: Some(caller.role.as_str().to_owned()) }
}

/// A UUIDv7.
///
/// # Errors
/// [`Error::Random`].
pub fn new_uuid(now: Timestamp) -> Result<Uuid, Error> {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    Ok(uuid::Builder::from_unix_timestamp_millis(millis, &random::<10>()?).into_uuid())
}

/// Makes a bearer token; the secret is returned once and never stored.
///
/// # Errors
/// [`Error`] if the store or the ledger cannot be written; the inner rejection if the name is taken or none.
pub async fn create_token(
    store: &Store,
    audit: &Audit,
    now: Timestamp,
    name: &str,
    role: Role,
    expires: Option<Timestamp>,
) -> Outcome<Zeroizing<String>> {
    let name = match checked_name("the name", name) {
        Ok(name) => name,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let id = new_uuid(now)?;
    let secret = Secret::new(id, &random::<32>()?);
    let token = TokenRow { caller: Caller { id, name: name.clone(), role }, created: now, expires, revoked: None };
    let mut tx = store.begin("create_token").await?;
    if !tx.insert_token(&token, &secret).await? {
        return Ok(conflict(format!("there is a token '{name}' already; revoke it first, or choose another name")));
    }
    let entry = audit.entry(now, Actor::Engine, Action::TokenMade).object(ObjectKind::Token, id, None);
    audit.record(&mut tx, &[entry]).await?;
    tx.commit().await?;
    Ok(Ok(secret.to_token()))
}

/// Revokes the bearer token of this name.
///
/// # Errors
/// [`Error`] if the store or the ledger cannot be written; the inner rejection if there is none.
pub async fn revoke_token(store: &Store, audit: &Audit, now: Timestamp, name: &str) -> Outcome<()> {
    let mut tx = store.begin("revoke_token").await?;
    if !tx.revoke_token(name, now).await? {
        return Ok(Err(Rejection::new(
            RejectionCode::NotFound,
            format!("there is no valid token '{}'", printable(name)),
        )));
    }
    let entry = audit.entry(now, Actor::Engine, Action::TokenRevoked).object(ObjectKind::Token, printable(name), None);
    audit.record(&mut tx, &[entry]).await?;
    tx.commit().await?;
    Ok(Ok(()))
}

impl Register {
    /// Invites a site: the string that it needs, and the row. The secret in the string is stored nowhere.
    ///
    /// # Errors
    /// [`Error`] if the store or the ledger cannot be written; the inner rejection if the name cannot be used.
    pub async fn invite(&self, name: &str, seconds: u32, by: &Caller) -> Outcome<(InvitationRow, Invitation)> {
        let name = match checked_name("the site's name", name) {
            Ok(name) => name,
            Err(rejection) => return Ok(Err(rejection)),
        };
        if !INVITATION_SECONDS.contains(&seconds) {
            let (least, most) = (INVITATION_SECONDS.start(), INVITATION_SECONDS.end());
            return Ok(invalid(format!("an invitation lives {least} to {most} seconds, not {seconds}")));
        }
        let now = (self.clock)();
        let id = new_uuid(now)?;
        let secret = Secret::new(id, &random::<32>()?);
        let row = InvitationRow {
            id,
            name,
            created: now,
            created_by: by.name.clone(),
            expires: now.plus_millis(i64::from(seconds) * 1_000),
            used: None,
            used_by: None,
            revoked: None,
        };
        let mut tx = self.store.begin("invite").await?;
        tx.insert_invitation(&row, &secret).await?;
        let entry = self
            .audit
            .entry(now, actor(by), Action::InvitationMade)
            .object(ObjectKind::Invitation, id, None)
            .object(ObjectKind::Site, &row.name, None);
        self.audit.record(&mut tx, &[entry]).await?;
        tx.commit().await?;
        let invitation = Invitation {
            url: self.home.settings.url.clone(),
            ca: self.home.ca.fingerprint(),
            site: row.name.clone(),
            secret: secret.bytes().to_vec(),
            expires: row.expires,
        };
        Ok(Ok((row, invitation)))
    }

    /// Takes an invitation back.
    ///
    /// # Errors
    /// [`Error`] if the store or the ledger cannot be written; the inner rejection if none is open under this id.
    pub async fn withdraw_invitation(&self, id: Uuid, by: &Caller) -> Outcome<()> {
        let now = (self.clock)();
        let mut tx = self.store.begin("withdraw_invitation").await?;
        if !tx.revoke_invitation(id, now).await? {
            let message = format!("there is no open invitation {id}; it may have been used or withdrawn already");
            return Ok(Err(Rejection::new(RejectionCode::NotFound, message)));
        }
        let entry = self.audit.entry(now, actor(by), Action::InvitationWithdrawn);
        self.audit.record(&mut tx, &[entry.object(ObjectKind::Invitation, id, None)]).await?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// What a site must know before it signs its statement.
    pub fn info(&self) -> FederationInfo {
        FederationInfo {
            federation: self.home.federation(),
            name: self.home.settings.name.clone(),
            identity: self.home.key.public(),
            at: (self.clock)(),
            versions: version::SUPPORTED.to_vec(),
        }
    }

    /// Enrols a site. A refusal of one who holds a good secret is in the ledger.
    ///
    /// # Errors
    /// [`Error`] if the store or the ledger cannot be written; the inner rejection says why not, to the one who tried.
    pub async fn enrol(&self, request: &EnrolRequest) -> Outcome<EnrolAnswer> {
        let now = (self.clock)();
        let unknown = || Rejection::new(RejectionCode::Forbidden, "this coordinator knows no such invitation");
        let Some(secret) = request.secret_bytes().and_then(Secret::from_bytes) else {
            return Ok(Err(unknown()));
        };
        let mut tx = self.store.begin("enrol").await?;
        let Some(invitation) = tx.invitation(&secret).await? else {
            return Ok(Err(unknown()));
        };
        match self.admit(&mut tx, &invitation, request, now).await? {
            Ok(answer) => {
                tx.commit().await?;
                Ok(Ok(answer))
            }
            Err(rejection) => {
                // What was written before the refusal must not stay.
                drop(tx);
                let mut tx = self.store.begin("enrol_refused").await?;
                let entry = self
                    .audit
                    .entry(now, Actor::Engine, Action::PeerRefused)
                    .object(ObjectKind::Invitation, invitation.id, None)
                    .refused(&rejection.message);
                self.audit.record(&mut tx, &[entry]).await?;
                tx.commit().await?;
                Ok(Err(rejection))
            }
        }
    }

    async fn admit(
        &self,
        tx: &mut Tx,
        invitation: &InvitationRow,
        request: &EnrolRequest,
        now: Timestamp,
    ) -> Outcome<EnrolAnswer> {
        let state = invitation.state(now);
        if state != "open" {
            let message = format!("this invitation is {state}; ask the operator for a new one");
            return Ok(Err(Rejection::new(RejectionCode::Forbidden, message)));
        }
        let (statement, signature) = match self.checked_statement(invitation, request) {
            Ok(checked) => checked,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let site = statement.identity.site_id();
        let again = match Self::place(tx, &statement, site).await? {
            Ok(again) => again,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let issued = match self.issue(&request.csr_pem, site, now)? {
            Ok(issued) => issued,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let row = SiteRow {
            site,
            name: statement.name.clone(),
            organisation: statement.organisation.clone(),
            identity: statement.identity,
            statement: signature,
            state: SiteState::Enrolled,
            reason: None,
            enrolled: now,
            last_seen: None,
            software: None,
        };
        tx.put_site(&row).await?;
        if again {
            tx.revoke_certificates(site, now).await?;
        }
        if !tx.use_invitation(invitation.id, site, now).await? {
            return Ok(conflict("this invitation has just been used"));
        }
        self.remember(tx, site, &issued, now).await?;
        let roster = match tx.next_roster(self.home.federation(), &self.home.key, now).await {
            Err(Error::Roster(error)) => return Ok(conflict(error.to_string())),
            roster => roster?,
        };
        let peer = || Actor::Peer { organisation: Some(printable(&row.organisation)), node: site };
        let entries = [
            self.audit.entry(now, peer(), Action::Enrolled).object(ObjectKind::Site, &row.name, None).object(
                ObjectKind::Invitation,
                invitation.id,
                None,
            ),
            self.audit.entry(now, Actor::Engine, Action::CertificateIssued).object(
                ObjectKind::Certificate,
                &issued.serial,
                None,
            ),
            self.roster_entry(&roster, now),
        ];
        self.audit.record(tx, &entries).await?;
        Ok(Ok(EnrolAnswer {
            site,
            federation: self.home.federation(),
            name: self.home.settings.name.clone(),
            identity: self.home.key.public(),
            certificate_pem: issued.pem,
            ca_pem: self.home.ca.pem().to_owned(),
            roster: data_encoding::BASE64.encode(&roster.to_bytes()?),
        }))
    }

    /// The statement, if it is the invited site's own and for this federation.
    fn checked_statement(
        &self,
        invitation: &InvitationRow,
        request: &EnrolRequest,
    ) -> Result<(MemberStatement, Signature), Rejection> {
        let bad = |message: String| Rejection::new(RejectionCode::Invalid, message);
        let signed = request.signed_statement().ok_or_else(|| bad("the member statement cannot be read".into()))?;
        let statement = (*signed.document).clone();
        if !signed.signed_by(&statement.identity) {
            return Err(bad("the member statement is not signed by the identity key that it names".into()));
        }
        let signature = signed
            .signatures
            .iter()
            .find(|s| s.key == statement.identity)
            .map(|s| s.signature)
            .ok_or_else(|| bad("the member statement is not signed".into()))?;
        if statement.federation != self.home.federation() {
            return Err(bad("the member statement is for another federation".into()));
        }
        if statement.name != invitation.name {
            let (wanted, stated) = (&invitation.name, printable(&statement.name));
            return Err(bad(format!("the invitation is for '{wanted}', the member statement says '{stated}'")));
        }
        check_name("the organisation", &statement.organisation)?;
        Ok((statement, signature))
    }

    /// Whether name and key are free, or belong together already (then the site enrols again).
    async fn place(tx: &mut Tx, statement: &MemberStatement, site: SiteId) -> Outcome<bool> {
        let known = tx.site(site).await?;
        if let Some(known) = &known
            && text::name_key(&known.name) != text::name_key(&statement.name)
        {
            let message = format!("this identity key is enrolled as '{}' already", known.name);
            return Ok(conflict(message));
        }
        match tx.site_named(&statement.name).await? {
            Some(other) if other.site != site && other.state != SiteState::Revoked => Ok(conflict(format!(
                "the name '{}' belongs to another site of this federation; ask the operator for an invitation with \
                 another name, or, if that site is yours, restore its identity key and enrol again",
                statement.name
            ))),
            Some(other) if other.site != site => {
                tx.free_name(other.site).await?;
                Ok(Ok(known.is_some()))
            }
            _ => Ok(Ok(known.is_some())),
        }
    }

    /// Renews a site's certificate in the second half of its life. It stays good until it ends; all others of the site
    /// are revoked, among them one whose answer got lost.
    ///
    /// # Errors
    /// [`Error`] if the store or the ledger cannot be written; the inner rejection if the request is at fault.
    pub async fn renew(&self, peer: &Peer, csr_pem: &str) -> Outcome<RenewAnswer> {
        let now = (self.clock)();
        let issued = match self.issue(csr_pem, peer.site, now)? {
            Ok(issued) => issued,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let mut tx = self.store.begin("renew").await?;
        // Asked here, where nobody can lock the site out between question and act.
        let present = match tx.standing(peer.site, &peer.serial, now).await? {
            Standing::Good(present) => present,
            Standing::Refused(reason) => return Ok(Err(Rejection::new(RejectionCode::Forbidden, reason))),
        };
        // Half of what the certificate itself says, which is what the site goes by.
        let from = present.issued.plus_millis(-BACKDATED_MS);
        let half = from.plus_millis(present.expires.since(from) / 2);
        if now < half {
            let (end, serial) = (present.expires, &present.serial);
            return Ok(conflict(format!("certificate {serial} is good until {end} and can be renewed from {half} on")));
        }
        tx.revoke_other_certificates(peer.site, &peer.serial, now).await?;
        self.remember(&mut tx, peer.site, &issued, now).await?;
        let entry = self.audit.entry(now, Actor::peer(peer.site), Action::CertificateRenewed).object(
            ObjectKind::Certificate,
            &issued.serial,
            None,
        );
        self.audit.record(&mut tx, &[entry]).await?;
        tx.commit().await?;
        Ok(Ok(RenewAnswer { certificate_pem: issued.pem, expires: issued.expires }))
    }

    /// Suspends, resumes or revokes a site.
    ///
    /// # Errors
    /// [`Error`] if the store or the ledger cannot be written; the inner rejection if the site is in no such state.
    pub async fn set_state(&self, site: SiteId, to: SiteState, reason: &str, by: &Caller) -> Outcome<()> {
        let now = (self.clock)();
        let mut tx = self.store.begin("set_site_state").await?;
        let Some(row) = tx.site(site).await? else {
            return Ok(Err(Rejection::new(RejectionCode::NotFound, format!("there is no site {site}"))));
        };
        let action = match (row.state, to) {
            (SiteState::Enrolled | SiteState::Active, SiteState::Suspended) => Action::SiteSuspended,
            (SiteState::Suspended, SiteState::Active) => Action::SiteResumed,
            (SiteState::Revoked, _) => {
                return Ok(conflict(format!("'{}' is revoked; only a new enrolment brings it back", row.name)));
            }
            (_, SiteState::Revoked) => Action::SiteRevoked,
            (from, to) => return Ok(conflict(format!("'{}' is {from} and cannot become {to}", row.name))),
        };
        let reason = printable(reason);
        tx.set_site_state(site, to, (to != SiteState::Active).then_some(reason.as_str())).await?;
        let mut entry = self.audit.entry(now, actor(by), action).object(ObjectKind::Site, site, None);
        entry.reason = Some(reason).filter(|r| !r.is_empty());
        let mut entries = vec![entry];
        if to == SiteState::Revoked {
            let count = tx.revoke_certificates(site, now).await?;
            if count > 0 {
                let entry = self.audit.entry(now, actor(by), Action::CertificateRevoked);
                entries.push(entry.object(ObjectKind::Site, site, None));
            }
            let roster = tx.next_roster(self.home.federation(), &self.home.key, now).await?;
            entries.push(self.roster_entry(&roster, now));
        }
        self.audit.record(&mut tx, &entries).await?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    fn issue(&self, csr_pem: &str, site: SiteId, now: Timestamp) -> Outcome<Issued> {
        let lifetime = i64::from(self.home.settings.certificate_seconds) * 1_000;
        let issued = self.home.ca.issue_client(csr_pem, self.home.federation(), site, now, lifetime)?;
        Ok(issued.map_err(|e| Rejection::new(RejectionCode::Invalid, e.to_string())))
    }

    async fn remember(&self, tx: &mut Tx, site: SiteId, issued: &Issued, now: Timestamp) -> Result<(), Error> {
        let serial = issued.serial.clone();
        let row = CertificateRow { serial, site, issued: now, expires: issued.expires, revoked: None };
        tx.insert_certificate(&row).await
    }

    fn roster_entry(&self, roster: &Signed<hospes_protocol::study::Roster>, now: Timestamp) -> Entry {
        let (version, digest) = (roster.document.version, roster.document.digest());
        self.audit.entry(now, Actor::Engine, Action::RosterChanged).object(ObjectKind::Roster, version, Some(digest))
    }
}

fn conflict<T>(message: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection::new(RejectionCode::Conflict, message))
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection::new(RejectionCode::Invalid, message))
}

/// A name with single blanks, if it is one.
fn checked_name(what: &str, name: &str) -> Result<String, Rejection> {
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    check_name(what, &name)?;
    Ok(name)
}

/// Whether sites will show this name, and can tell it from others.
fn check_name(what: &str, name: &str) -> Result<(), Rejection> {
    text::check_name(name).or_else(|reason| invalid(format!("{what} {reason}")))?;
    if text::name_key(name).is_empty() { invalid(format!("{what} needs a letter or a digit")) } else { Ok(()) }
}

/// Foreign text for a message or a ledger entry: no control characters, not too long.
pub fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
