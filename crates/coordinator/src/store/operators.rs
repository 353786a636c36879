//! Invitations and bearer tokens. Of both only the hash of the secret is stored; comparison takes constant time.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use hospes_protocol::id::{SiteId, Timestamp};
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Store, StudyRow, Tx, blob, integer, name_key, optional_integer, parsed, text};
use crate::Error;

/// What every token starts with, so that scanners for leaked secrets can find it.
const TOKEN_PREFIX: &str = "hospes_";

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Submits studies and reads what came of them.
    Researcher,
    /// Runs the federation; may do everything.
    Operator,
}

impl Role {
    /// Word in the store, the API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Researcher => "researcher",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "operator" => Ok(Self::Operator),
            "researcher" => Ok(Self::Researcher),
            other => Err(format!("'{other}' is no role; one of: operator, researcher")),
        }
    }
}

/// Who makes a request: the holder of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Id of the token.
    pub id: Uuid,
    /// Name given when it was made.
    pub name: String,
    /// What it allows.
    pub role: Role,
}

impl Caller {
    /// Whether a study, and what comes of it, is theirs to see: who submitted it does, and operators.
    pub fn may_see(&self, study: &StudyRow) -> bool {
        self.role == Role::Operator || study.submitter == self.id
    }
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Whom it names.
    pub caller: Caller,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// An invitation, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationRow {
    /// Id, a UUIDv7.
    pub id: Uuid,
    /// Name of the site that may enrol with it.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was used.
    pub used: Option<Timestamp>,
    /// By which site.
    pub used_by: Option<SiteId>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

impl InvitationRow {
    /// State in one word.
    pub fn state(&self, now: Timestamp) -> &'static str {
        if self.used.is_some() {
            "used"
        } else if self.revoked.is_some() {
            "revoked"
        } else if self.expires <= now {
            "expired"
        } else {
            "open"
        }
    }

    fn read(row: &AnyRow) -> Result<Self, Error> {
        Ok(Self {
            id: parsed(row, "id")?,
            name: text(row, "name")?,
            created: Timestamp::from_millis(integer(row, "created_ms")?),
            created_by: text(row, "created_by")?,
            expires: Timestamp::from_millis(integer(row, "expires_ms")?),
            used: optional_integer(row, "used_ms")?.map(Timestamp::from_millis),
            used_by: super::optional_text(row, "used_by")?
                .map(|s| s.parse().map_err(|e| Error::corrupt("used_by", e)))
                .transpose()?,
            revoked: optional_integer(row, "revoked_ms")?.map(Timestamp::from_millis),
        })
    }
}

/// A secret as it is handed out once: the id of its row, then 32 random bytes. Because of the id it is found without
/// comparing secrets in the database.
pub(crate) struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub(crate) fn new(id: Uuid, random: &[u8; 32]) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(48));
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(random);
        Self(bytes)
    }

    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == 48).then(|| Self(Zeroizing::new(bytes)))
    }

    /// Reads a bearer token.
    pub(crate) fn from_token(token: &str) -> Option<Self> {
        let body = token.strip_prefix(TOKEN_PREFIX).filter(|b| b.len() < 100)?;
        Self::from_bytes(BASE32_NOPAD.decode(body.to_ascii_uppercase().as_bytes()).ok()?)
    }

    /// Writes a bearer token.
    pub(crate) fn to_token(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{TOKEN_PREFIX}{}", BASE32_NOPAD.encode(&self.0).to_ascii_lowercase()))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn id(&self) -> Uuid {
        let mut id = [0u8; 16];
        id.copy_from_slice(&self.0[..16]);
        Uuid::from_bytes(id)
    }

    /// The secret has 256 random bits, so one pass of SHA-256 is enough; nothing can be guessed from a stolen table.
    fn hash(&self) -> Vec<u8> {
        Sha256::digest([b"hospes/secret/v1\0".as_slice(), &self.0].concat()).to_vec()
    }

    fn fits(&self, stored: &[u8]) -> bool {
        self.hash().ct_eq(stored).into()
    }
}

impl Store {
    /// Whom a bearer token names, if it is good now.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn caller(&self, token: &str, now: Timestamp) -> Result<Option<Caller>, Error> {
        let Some(secret) = Secret::from_token(token) else {
            return Ok(None);
        };
        let mut connection = self.read().await?;
        let row = sqlx::query("SELECT * FROM tokens WHERE id = $1")
            .bind(secret.id().to_string())
            .fetch_optional(&mut *connection)
            .await
            .map_err(Error::database("caller"))?;
        let Some(row) = row else { return Ok(None) };
        let token = read_token(&row)?;
        let good = secret.fits(&blob(&row, "secret_hash")?)
            && token.revoked.is_none()
            && token.expires.is_none_or(|end| end > now);
        Ok(good.then_some(token.caller))
    }

    /// All tokens in order of their names.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM tokens ORDER BY name")
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("tokens"))?;
        rows.iter().map(read_token).collect()
    }

    /// All invitations, newest first.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub async fn invitations(&self) -> Result<Vec<InvitationRow>, Error> {
        let mut connection = self.read().await?;
        let rows = sqlx::query("SELECT * FROM invitations ORDER BY created_ms DESC, id DESC LIMIT 1000")
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database("invitations"))?;
        rows.iter().map(InvitationRow::read).collect()
    }
}

impl Tx {
    /// Adds a token; `false` if the name is taken by one that is not revoked. A revoked one keeps its row, because the
    /// ledger names people by the id of their token, and gives its name up.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(crate) async fn insert_token(&mut self, token: &TokenRow, secret: &Secret) -> Result<bool, Error> {
        sqlx::query("UPDATE tokens SET name = name || ' #' || id WHERE name = $1 AND revoked_ms IS NOT NULL")
            .bind(token.caller.name.clone())
            .execute(self.conn())
            .await
            .map_err(Error::database("insert_token"))?;
        let done = sqlx::query(
            "INSERT INTO tokens (id, name, role, secret_hash, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(token.caller.id.to_string())
        .bind(token.caller.name.clone())
        .bind(token.caller.role.as_str())
        .bind(secret.hash())
        .bind(token.created.as_millis())
        .bind(token.expires.map(Timestamp::as_millis))
        .execute(self.conn())
        .await
        .map_err(Error::database("insert_token"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Revokes the token of this name; `false` if there is none.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn revoke_token(&mut self, name: &str, at: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE tokens SET revoked_ms = $1 WHERE name = $2 AND revoked_ms IS NULL")
            .bind(at.as_millis())
            .bind(name.to_owned())
            .execute(self.conn())
            .await
            .map_err(Error::database("revoke_token"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Adds an invitation.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub(crate) async fn insert_invitation(&mut self, row: &InvitationRow, secret: &Secret) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO invitations (id, name, name_key, secret_hash, created_ms, created_by, expires_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(row.id.to_string())
        .bind(row.name.clone())
        .bind(name_key(&row.name))
        .bind(secret.hash())
        .bind(row.created.as_millis())
        .bind(row.created_by.clone())
        .bind(row.expires.as_millis())
        .execute(self.conn())
        .await
        .map_err(Error::database("insert_invitation"))?;
        Ok(())
    }

    /// The invitation that this secret opens, whatever its state; `None` if there is none or the secret is wrong.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub(crate) async fn invitation(&mut self, secret: &Secret) -> Result<Option<InvitationRow>, Error> {
        let row = sqlx::query("SELECT * FROM invitations WHERE id = $1")
            .bind(secret.id().to_string())
            .fetch_optional(self.conn())
            .await
            .map_err(Error::database("invitation"))?;
        let Some(row) = row else { return Ok(None) };
        if !secret.fits(&blob(&row, "secret_hash")?) {
            return Ok(None);
        }
        InvitationRow::read(&row).map(Some)
    }

    /// Uses an invitation up; `false` if it was used or revoked before.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn use_invitation(&mut self, id: Uuid, site: SiteId, at: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE invitations SET used_ms = $1, used_by = $2 \
             WHERE id = $3 AND used_ms IS NULL AND revoked_ms IS NULL",
        )
        .bind(at.as_millis())
        .bind(site.to_string())
        .bind(id.to_string())
        .execute(self.conn())
        .await
        .map_err(Error::database("use_invitation"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Revokes an invitation that is still open; `false` if there is none.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn revoke_invitation(&mut self, id: Uuid, at: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE invitations SET revoked_ms = $1 WHERE id = $2 AND used_ms IS NULL AND revoked_ms IS NULL",
        )
        .bind(at.as_millis())
        .bind(id.to_string())
        .execute(self.conn())
        .await
        .map_err(Error::database("revoke_invitation"))?;
        Ok(done.rows_affected() == 1)
    }
}

fn read_token(row: &AnyRow) -> Result<TokenRow, Error> {
    Ok(TokenRow {
        caller: Caller { id: parsed(row, "id")?, name: text(row, "name")?, role: parsed(row, "role")? },
        created: Timestamp::from_millis(integer(row, "created_ms")?),
        expires: optional_integer(row, "expires_ms")?.map(Timestamp::from_millis),
        revoked: optional_integer(row, "revoked_ms")?.map(Timestamp::from_millis),
    })
}
