//! Databases that rows are read from.

use std::path::PathBuf;

use hospes_protocol::id::{DatabaseId, Digest};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::link::Step;

/// A PostgreSQL database to be known here. Its password comes beside it and is kept with the site's other secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct NewDatabase {
    /// Name, unique at the site; that of a known one takes its place.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// Port; 5432 if none is said.
    #[serde(default)]
    pub port: Option<u16>,
    /// Database on the server.
    pub database: String,
    /// Role that asks, which needs to read only.
    pub user: String,
    /// Whether the server need not prove who it is; for one on this machine only.
    #[serde(default)]
    pub unverified: bool,
    /// File with the hospital's own CA certificates, besides the public ones.
    #[serde(default)]
    pub extra_ca: Option<PathBuf>,
    /// Seconds that a statement may take; ten minutes if not said.
    #[serde(default)]
    pub timeout_s: Option<u32>,
}

/// A database that is known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct DatabaseView {
    /// Id.
    pub id: DatabaseId,
    /// Name.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database on the server.
    pub database: String,
    /// Role that asks.
    pub user: String,
    /// Whether the server need not prove who it is.
    pub unverified: bool,
    /// Seconds that a statement may take.
    pub timeout_s: u32,
}

/// What came of the test of a new database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct DatabaseTest {
    /// Step by step.
    pub steps: Vec<Step>,
    /// What is known now; nothing if a step failed.
    pub known: Option<DatabaseView>,
}

/// A query whose rows are registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct AskedQuery {
    /// The database that is asked. If none is named, the file beside it is one of SQLite.
    pub database: Option<DatabaseId>,
    /// One SELECT. The audit log has its digest; its text stands in the snapshot's document.
    pub text: String,
}

/// The query that the rows of a dataset came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct QueryView {
    /// Which database, in words.
    pub database: String,
    /// The query.
    pub text: String,
    /// SHA-256 of its text.
    pub digest: Digest,
    /// Whether it is a server's, which can be asked again without anybody choosing a file.
    pub on_server: bool,
}
