//! Federations as a screen draws them: how this site stands in each, and how it knows the other members.

use hospes_protocol::approval::Trust;
use hospes_protocol::id::{FederationId, SiteId, Timestamp};
use hospes_protocol::sign::PublicKey;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A federation that the site belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct MembershipView {
    /// Federation.
    pub federation: FederationId,
    /// Its name.
    pub name: String,
    /// Where the coordinator is.
    pub url: String,
    /// This site's id there.
    pub site: SiteId,
    /// This site's name there.
    pub site_name: String,
    /// The twelve words of this site's identity key, to be read to other members.
    pub words: String,
    /// That key, by which its log is known there.
    pub identity: Option<PublicKey>,
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// When this site left it, if it did; what was recorded stays.
    pub left: Option<Timestamp>,
    /// The coordinator was restored from a backup: this epoch must be accepted by a person before work goes on.
    pub epoch_offered: Option<u64>,
    /// State of the link, in words.
    pub link: LinkView,
    /// Version of the roster.
    pub roster: u64,
    /// Members, this site included.
    pub members: u32,
}

/// State of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum LinkView {
    /// Connected since.
    Connected {
        /// When.
        since: Timestamp,
    },
    /// Not connected.
    Disconnected {
        /// Why.
        reason: String,
        /// When the next attempt is made.
        retry_at: Timestamp,
    },
    /// Not tried (paused, or an engine that does not connect).
    Idle,
}

/// Another member, as this site knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PeerView {
    /// Site.
    pub site: SiteId,
    /// Its name.
    pub name: String,
    /// Its organisation.
    pub organisation: String,
    /// Its identity key.
    pub identity: PublicKey,
    /// How this site trusts that key.
    pub trust: Trust,
    /// Who vouches for it, by name.
    pub vouched_by: Vec<String>,
    /// Whether this site vouches for it.
    pub vouched_here: bool,
    /// The twelve words of its key, once people of this site compared them. Before, they are the other site's to say.
    pub words: Option<String>,
    /// Who compared them.
    pub compared: Option<WordsCompared>,
    /// When the key that was verified here under this name ceased to be, where nobody compared words since.
    pub revoked: Option<Timestamp>,
    /// Whether the coordinator's roster has it no more; that its key was verified stands until somebody takes it back.
    pub absent: bool,
}

/// Who compared the words of another member's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct WordsCompared {
    /// Name.
    pub by: String,
    /// When.
    pub at: Timestamp,
}
