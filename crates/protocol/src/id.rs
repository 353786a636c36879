//! Names of things: digests, ids, instants.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A name that does not have the form it should have.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is no {what}: expected {expected}")]
pub struct NameError {
    what: &'static str,
    expected: &'static str,
    text: String,
}

impl NameError {
    fn new(what: &'static str, expected: &'static str, text: &str) -> Self {
        // A hostile name can be of any length; an error message should not be.
        Self { what, expected, text: text.chars().take(80).collect() }
    }
}

macro_rules! text_form {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string" })
            }
        }
    };
}

/// A SHA-256 digest. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ts_rs::TS)]
#[ts(type = "string")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Wraps the 32 bytes of a digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// SHA-256 of bytes that are no document (a payload, a file).
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..4])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for Digest {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::new("digest", "64 lower-case hexadecimal digits", text);
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong())?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

text_form!(Digest);

/// A site within one federation: the first 16 bytes of SHA-256 of its identity key. Written in lower-case base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ts_rs::TS)]
#[ts(type = "string")]
pub struct SiteId([u8; 16]);

impl SiteId {
    /// The id of the site that holds this Ed25519 public key.
    pub fn of_key(public_key: &[u8; 32]) -> Self {
        let hash: [u8; 32] = Sha256::digest(public_key).into();
        let mut id = [0u8; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }
    /// Wraps the 16 bytes of an id.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl FromStr for SiteId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::new("site id", "26 characters of lower-case base32", text);
        if text.len() != 26 || text.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(wrong());
        }
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| wrong())?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

text_form!(SiteId);

/// A federation: the id of its coordinator's identity key, in the form of a [`SiteId`].
pub type FederationId = SiteId;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ts_rs::TS)]
        #[ts(type = "string")]
        pub struct $name(Uuid);

        impl $name {
            /// A UUIDv7 from a time and ten random bytes, both passed in (invariant I5).
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                let millis = u64::try_from(now.as_millis()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }
            /// Wraps a UUID read from a store.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
            /// The UUID.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let uuid = Uuid::try_parse(text).map_err(|_| NameError::new($what, "a UUID", text))?;
                // One spelling only, so that an id inside a signed document has one encoding.
                if uuid.to_string() == text {
                    Ok(Self(uuid))
                } else {
                    Err(NameError::new($what, "a lower-case UUID with hyphens", text))
                }
            }
        }
        text_form!($name);
    };
}

uuid_id!(
    /// A study: terms and a plan, offered to sites.
    StudyId, "study id"
);
uuid_id!(
    /// One run of a study.
    JobId, "job id"
);
uuid_id!(
    /// A site's signed approval of a study.
    ApprovalId, "approval id"
);
uuid_id!(
    /// A person at a site, pseudonymous; names lie in a table of their own.
    PersonId, "person id"
);
uuid_id!(
    /// A registered dataset at a site.
    DatasetId, "dataset id"
);
uuid_id!(
    /// A database that a site reads rows from.
    DatabaseId, "database id"
);

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema, ts_rs::TS,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }
    /// The end of a day, written as `YYYY-MM-DD`, in UTC; `None` if there is no such day.
    pub fn end_of_day(date: &str) -> Option<Self> {
        let [year, month, day] = date.split('-').collect::<Vec<_>>().try_into().ok()?;
        let digits = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        if !(digits(year, 4) && digits(month, 2) && digits(day, 2)) {
            return None;
        }
        let month = time::Month::try_from(month.parse::<u8>().ok()?).ok()?;
        let date = time::Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
        Some(Self((date.midnight().assume_utc().unix_timestamp() + 24 * 60 * 60) * 1_000))
    }
    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }
    /// This instant and so many milliseconds more.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
    /// Milliseconds from `earlier` to here; negative if `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        match time::OffsetDateTime::from_unix_timestamp_nanos(nanos) {
            Ok(t) => write!(
                f,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
                t.year(),
                u8::from(t.month()),
                t.day(),
                t.hour(),
                t.minute(),
                t.second(),
                t.millisecond()
            ),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One attempt at one round of one task of one job: the key under which everything of a round is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct RoundKey {
    /// Job that the round belongs to.
    pub job: JobId,
    /// Task of the plan.
    pub task: String,
    /// Incarnation of the coordinator; one restored from a backup starts a new one.
    pub epoch: u64,
    /// Round, from 1.
    pub round: u32,
    /// Attempt at the round, from 1.
    pub attempt: u32,
}

impl fmt::Display for RoundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}.{}.{}", self.job, self.task, self.epoch, self.round, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_where_the_next_begins() {
        assert_eq!(Timestamp::end_of_day("2024-02-29").unwrap().to_string(), "2024-03-01T00:00:00.000Z");
        for none in
            ["2023-02-29", "2024-13-01", "2024-2-01", "24-02-01", "2024-02-01T00", "2024/02/01", "+024-02-01", ""]
        {
            assert_eq!(Timestamp::end_of_day(none), None, "{none}");
        }
    }

    #[test]
    fn names_have_one_spelling() {
        let site = SiteId::of_key(&[7; 32]);
        assert_eq!(site.to_string().parse::<SiteId>().unwrap(), site);
        assert!(site.to_string().to_uppercase().parse::<SiteId>().is_err());
        let study = StudyId::new(Timestamp::from_millis(1_700_000_000_000), [1; 10]);
        assert_eq!(study.to_string().parse::<StudyId>().unwrap(), study);
        assert!(study.to_string().to_uppercase().parse::<StudyId>().is_err());
        assert!(study.to_string().replace('-', "").parse::<StudyId>().is_err());
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
    }
}
