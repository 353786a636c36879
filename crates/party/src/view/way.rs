//! How coordinators are reached: proxy and the hospital's own certificates, as they are and as they shall be.

use std::fmt;
use std::path::PathBuf;

use hospes_protocol::id::FederationId;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::link::{Authority, Step};

/// How the coordinator of a federation is reached. It holds no password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct WayView {
    /// Federation.
    pub federation: FederationId,
    /// Its name.
    pub name: String,
    /// Where the coordinator is.
    pub url: String,
    /// Its HTTP proxy, `http://host:port`; `None` where the machine's own settings count.
    pub proxy: Option<String>,
    /// Whether a user name and password are kept for that proxy.
    pub has_credentials: bool,
    /// The hospital's own CA certificates that are taken besides those of the federation.
    pub authorities: Vec<Authority>,
}

/// How the coordinator of a federation shall be reached.
#[derive(Clone, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct NewWay {
    /// Federation.
    pub federation: FederationId,
    /// The proxy.
    pub proxy: NewProxy,
    /// The hospital's own CA certificates.
    pub extra_ca: NewAuthorities,
}

/// It may hold a password.
impl fmt::Debug for NewWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewWay").field("federation", &self.federation).finish_non_exhaustive()
    }
}

/// A proxy that shall be used.
#[derive(Clone, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum NewProxy {
    /// The one so far.
    Keep,
    /// None that somebody here names: the one of the hospital's IT, or else what the machine's own settings say.
    Usual,
    /// This one, `http://[user:password@]host:port`.
    Url(String),
}

/// Certificates of the hospital's own CA that shall be taken.
#[derive(Debug, Clone, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum NewAuthorities {
    /// Those so far.
    Keep,
    /// None that somebody here names: those of the hospital's IT, or else none.
    Usual,
    /// Those in this file, PEM.
    File(PathBuf),
}

/// What came of trying a new way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct WayTried {
    /// Each step of it.
    pub steps: Vec<Step>,
    /// Whether it is kept, and used from now on; if not, nothing has changed.
    pub kept: bool,
}
