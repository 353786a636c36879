//! Sites, their certificates, the roster and vouches.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use hospes_protocol::id::{FederationId, SiteId, Timestamp};
use hospes_protocol::memo;
use hospes_protocol::sign::{PublicKey, SecretKey, Signature, Signed};
use hospes_protocol::study::{Member, Roster, Vouch};
use hospes_protocol::text::name_key;
use sqlx::any::AnyRow;

use super::{Store, Tx, blob, integer, optional_integer, optional_text, parsed, text};
use crate::Error;

/// Versions of the roster that are kept.
const ROSTERS: i64 = 8;

/// A site as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRow {
    /// Id.
    pub site: SiteId,
    /// Name, unique in the federation.
    pub name: String,
    /// Organisation.
    pub organisation: String,
    /// Identity key.
    pub identity: PublicKey,
    /// The site's own signature over its member statement.
    pub statement: Signature,
    /// State.
    pub state: SiteState,
    /// Why it is suspended or revoked.
    pub reason: Option<String>,
    /// When it joined.
    pub enrolled: Timestamp,
    /// When it was last heard of.
    pub last_seen: Option<Timestamp>,
    /// Software that it last said it runs.
    pub software: Option<String>,
}

/// State of a site; `invited` is an invitation without a site yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteState {
    /// Has a certificate, was never connected.
    Enrolled,
    /// Was connected.
    Active,
    /// Locked out for now.
    Suspended,
    /// Locked out for good; only re-enrolment brings it back.
    Revoked,
}

impl SiteState {
    /// Whether it may not take part in anything.
    pub fn is_locked(self) -> bool {
        matches!(self, Self::Suspended | Self::Revoked)
    }

    /// Word in the store and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for SiteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SiteState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Enrolled, Self::Active, Self::Suspended, Self::Revoked]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("'{text}' is no state of a site"))
    }
}

/// A client certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// Serial number in hexadecimal.
    pub serial: String,
    /// Site.
    pub site: SiteId,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// Whether a certificate is still good; asked at every session and every request of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Good: the certificate.
    Good(CertificateRow),
    /// Not good, with the reason in words.
    Refused(String),
}

impl SiteRow {
    /// As a member of the roster.
    pub fn member(&self) -> Member {
        Member {
            site: self.site,
            name: self.name.clone(),
            organisation: self.organisation.clone(),
            identity: self.identity,
            statement: self.statement,
        }
    }

    fn read(row: &AnyRow) -> Result<Self, Error> {
        Ok(Self {
            site: parsed(row, "site")?,
            name: text(row, "name")?,
            organisation: text(row, "organisation")?,
            identity: parsed(row, "identity")?,
            statement: parsed(row, "statement")?,
            state: parsed(row, "state")?,
            reason: optional_text(row, "reason")?,
            enrolled: Timestamp::from_millis(integer(row, "enrolled_ms")?),
            last_seen: optional_integer(row, "last_seen_ms")?.map(Timestamp::from_millis),
            software: optional_text(row, "software")?,
        })
    }
}

impl Store {
    /// All sites in order of their names.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn sites(&self) -> Result<Vec<SiteRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM sites ORDER BY name_key")
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("sites"))?;
        rows.iter().map(SiteRow::read).collect()
    }

    /// One site.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn site(&self, site: SiteId) -> Result<Option<SiteRow>, Error> {
        let mut connection = self.read().await?;
        find_site(&mut connection, site).await
    }

    /// Whether this certificate of this site is still good.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn standing(&self, site: SiteId, serial: &str, now: Timestamp) -> Result<Standing, Error> {
        let mut connection = self.read().await?;
        find_standing(&mut connection, site, serial, now).await
    }

    /// Certificates of a site, newest first.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn certificates(&self, site: SiteId) -> Result<Vec<CertificateRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM certificates WHERE site = $1 ORDER BY issued_ms DESC, serial")
            .bind(site.to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("certificates"))?;
        rows.iter().map(read_certificate).collect()
    }

    /// The newest roster.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn roster(&self) -> Result<Option<Signed<Roster>>, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query("SELECT document FROM rosters ORDER BY version DESC LIMIT 1")
            .fetch_optional(&mut *connection)
            .await
            .map_err(Error::database("roster"))?;
        row.map(|row| {
            memo::parsed(&blob(&row, "document")?, Signed::from_bytes).map_err(|e| Error::corrupt("roster", e))
        })
        .transpose()
    }

    /// Sites that are suspended or revoked.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn locked_sites(&self) -> Result<BTreeSet<SiteId>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT site FROM sites WHERE state IN ('suspended', 'revoked')")
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("locked_sites"))?;
        rows.iter().map(|row| parsed(row, "site")).collect()
    }

    /// All vouches of and for sites that are not revoked.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn vouches(&self) -> Result<Vec<Signed<Vouch>>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query(
            "SELECT document FROM vouches \
             WHERE voucher NOT IN (SELECT site FROM sites WHERE state = 'revoked') \
             AND site NOT IN (SELECT site FROM sites WHERE state = 'revoked') ORDER BY voucher, site",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database("vouches"))?;
        rows.iter()
            .map(|row| Signed::from_bytes(&blob(row, "document")?).map_err(|e| Error::corrupt("vouch", e)))
            .collect()
    }
}

impl Tx {
    /// One site.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn site(&mut self, site: SiteId) -> Result<Option<SiteRow>, Error> {
        find_site(self.conn(), site).await
    }

    /// The site of this name, in any spelling that counts as the same.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn site_named(&mut self, name: &str) -> Result<Option<SiteRow>, Error> {
        let row = sqlx::query("SELECT * FROM sites WHERE name_key = $1")
            .bind(name_key(name))
            .fetch_optional(self.conn())
            .await
            .map_err(Error::database("site_named"))?;
        row.as_ref().map(SiteRow::read).transpose()
    }

    /// Adds a site, or writes everything of it anew if it enrols again.
    ///
    /// # Errors
    /// [`Error::Database`], also if another site has the name or the key.
    pub async fn put_site(&mut self, site: &SiteRow) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO sites (site, name, name_key, organisation, identity, statement, state, reason, enrolled_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (site) DO UPDATE SET name = excluded.name, name_key = excluded.name_key, \
               organisation = excluded.organisation, statement = excluded.statement, state = excluded.state, \
               reason = excluded.reason",
        )
        .bind(site.site.to_string())
        .bind(site.name.clone())
        .bind(name_key(&site.name))
        .bind(site.organisation.clone())
        .bind(site.identity.to_string())
        .bind(site.statement.to_string())
        .bind(site.state.as_str())
        .bind(site.reason.clone())
        .bind(site.enrolled.as_millis())
        .execute(self.conn())
        .await
        .map_err(Error::database("put_site"))?;
        Ok(())
    }

    /// Changes a site's state.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn set_site_state(&mut self, site: SiteId, state: SiteState, reason: Option<&str>) -> Result<(), Error> {
        sqlx::query("UPDATE sites SET state = $1, reason = $2 WHERE site = $3")
            .bind(state.as_str())
            .bind(reason.map(str::to_owned))
            .bind(site.to_string())
            .execute(self.conn())
            .await
            .map_err(Error::database("set_site_state"))?;
        Ok(())
    }

    /// Frees the name of a revoked site, so that another may take it.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn free_name(&mut self, site: SiteId) -> Result<(), Error> {
        // No name has a line break in it, so that this key meets no other.
        sqlx::query("UPDATE sites SET name_key = name_key || $1 WHERE site = $2 AND state = 'revoked'")
            .bind(format!("\n{site}"))
            .bind(site.to_string())
            .execute(self.conn())
            .await
            .map_err(Error::database("free_name"))?;
        Ok(())
    }

    /// A session of a site began: it is active, seen now, and runs this software.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn site_seen(&mut self, site: SiteId, at: Timestamp, software: Option<&str>) -> Result<(), Error> {
        sqlx::query(
            "UPDATE sites SET last_seen_ms = $1, software = COALESCE($2, software), \
             state = CASE WHEN state = 'enrolled' THEN 'active' ELSE state END WHERE site = $3",
        )
        .bind(at.as_millis())
        .bind(software.map(str::to_owned))
        .bind(site.to_string())
        .execute(self.conn())
        .await
        .map_err(Error::database("site_seen"))?;
        Ok(())
    }

    /// Remembers an issued certificate.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn insert_certificate(&mut self, certificate: &CertificateRow) -> Result<(), Error> {
        sqlx::query("INSERT INTO certificates (serial, site, issued_ms, expires_ms) VALUES ($1, $2, $3, $4)")
            .bind(certificate.serial.clone())
            .bind(certificate.site.to_string())
            .bind(certificate.issued.as_millis())
            .bind(certificate.expires.as_millis())
            .execute(self.conn())
            .await
            .map_err(Error::database("insert_certificate"))?;
        Ok(())
    }

    /// Whether this certificate of this site is still good, as of this transaction.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn standing(&mut self, site: SiteId, serial: &str, now: Timestamp) -> Result<Standing, Error> {
        find_standing(self.conn(), site, serial, now).await
    }

    /// Revokes all certificates of a site but this one.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn revoke_other_certificates(&mut self, site: SiteId, keep: &str, at: Timestamp) -> Result<(), Error> {
        sqlx::query(
            "UPDATE certificates SET revoked_ms = $1 \
             WHERE site = $2 AND serial <> $3 AND revoked_ms IS NULL AND expires_ms > $1",
        )
        .bind(at.as_millis())
        .bind(site.to_string())
        .bind(keep.to_owned())
        .execute(self.conn())
        .await
        .map_err(Error::database("revoke_other_certificates"))?;
        Ok(())
    }

    /// Revokes all certificates of a site that are not yet; says how many.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn revoke_certificates(&mut self, site: SiteId, at: Timestamp) -> Result<u64, Error> {
        let done = sqlx::query("UPDATE certificates SET revoked_ms = $1 WHERE site = $2 AND revoked_ms IS NULL")
            .bind(at.as_millis())
            .bind(site.to_string())
            .execute(self.conn())
            .await
            .map_err(Error::database("revoke_certificates"))?;
        Ok(done.rows_affected())
    }

    /// Makes and signs the next roster from all sites that are not revoked.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`], [`Error::Document`] if there are too many members for a document, or
    /// [`Error::Roster`] if the sites would not believe it.
    pub async fn next_roster(
        &mut self,
        federation: FederationId,
        key: &SecretKey,
        at: Timestamp,
    ) -> Result<Signed<Roster>, Error> {
        let rows = sqlx::query("SELECT * FROM sites WHERE state <> 'revoked' ORDER BY site")
            .fetch_all(self.conn())
            .await
            .map_err(Error::database("next_roster"))?;
        let mut members = rows.iter().map(|r| SiteRow::read(r).map(|s| s.member())).collect::<Result<Vec<_>, _>>()?;
        // Base32 does not sort like the bytes it stands for.
        members.sort_by_key(|m| m.site);
        let row = sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM rosters")
            .fetch_one(self.conn())
            .await
            .map_err(Error::database("next_roster"))?;
        let version = integer(&row, "version")? + 1;
        let roster = Roster { federation, version: u64::try_from(version).unwrap_or(1), at, members };
        // What every site checks, before all of them refuse it.
        roster.check(federation)?;
        let signed = Signed::new(roster, key)?;
        sqlx::query("INSERT INTO rosters (version, document, at_ms) VALUES ($1, $2, $3)")
            .bind(version)
            .bind(signed.to_bytes()?)
            .bind(at.as_millis())
            .execute(self.conn())
            .await
            .map_err(Error::database("next_roster"))?;
        // Each version names all members: to keep every one takes the square of their number.
        sqlx::query("DELETE FROM rosters WHERE version <= $1")
            .bind(version - ROSTERS)
            .execute(self.conn())
            .await
            .map_err(Error::database("next_roster"))?;
        Ok(signed)
    }

    /// Keeps a vouch, in place of an older one of the same two sites; `false` if a newer one is known.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Document`].
    pub async fn put_vouch(&mut self, vouch: &Signed<Vouch>) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO vouches (voucher, site, document, at_ms) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (voucher, site) DO UPDATE SET document = excluded.document, at_ms = excluded.at_ms \
             WHERE vouches.at_ms < excluded.at_ms",
        )
        .bind(vouch.document.by.to_string())
        .bind(vouch.document.site.to_string())
        .bind(vouch.to_bytes()?)
        .bind(vouch.document.at.as_millis())
        .execute(self.conn())
        .await
        .map_err(Error::database("put_vouch"))?;
        Ok(done.rows_affected() == 1)
    }
}

async fn find_standing(
    connection: &mut sqlx::AnyConnection,
    site: SiteId,
    serial: &str,
    now: Timestamp,
) -> Result<Standing, Error> {
    let Some(row) = find_site(connection, site).await? else {
        return Ok(Standing::Refused(format!("no site {site} is enrolled here")));
    };
    let because = row.reason.as_deref().unwrap_or("no reason given");
    match row.state {
        SiteState::Revoked => return Ok(Standing::Refused(format!("the operator revoked this site: {because}"))),
        SiteState::Suspended => {
            return Ok(Standing::Refused(format!("the operator suspended this site: {because}")));
        }
        SiteState::Enrolled | SiteState::Active => {}
    }
    let certificate = sqlx::query("SELECT * FROM certificates WHERE serial = $1 AND site = $2")
        .bind(serial.to_owned())
        .bind(site.to_string())
        .fetch_optional(connection)
        .await
        .map_err(Error::database("standing"))?;
    let Some(certificate) = certificate.as_ref().map(read_certificate).transpose()? else {
        return Ok(Standing::Refused("this coordinator did not issue that certificate; enrol again".into()));
    };
    if let Some(at) = certificate.revoked {
        return Ok(Standing::Refused(format!("that certificate was revoked at {at}; enrol again")));
    }
    if certificate.expires <= now {
        let at = certificate.expires;
        return Ok(Standing::Refused(format!("that certificate ended at {at}; ask the operator for an invitation")));
    }
    Ok(Standing::Good(certificate))
}

async fn find_site(connection: &mut sqlx::AnyConnection, site: SiteId) -> Result<Option<SiteRow>, Error> {
    let row = sqlx::query("SELECT * FROM sites WHERE site = $1")
        .bind(site.to_string())
        .fetch_optional(connection)
        .await
        .map_err(Error::database("site"))?;
    row.as_ref().map(SiteRow::read).transpose()
}

fn read_certificate(row: &AnyRow) -> Result<CertificateRow, Error> {
    Ok(CertificateRow {
        serial: text(row, "serial")?,
        site: parsed(row, "site")?,
        issued: Timestamp::from_millis(integer(row, "issued_ms")?),
        expires: Timestamp::from_millis(integer(row, "expires_ms")?),
        revoked: optional_integer(row, "revoked_ms")?.map(Timestamp::from_millis),
    })
}
