//! What can go wrong in the engine.

use std::path::PathBuf;

use hospes_protocol::approval::{Refusal, Role};
use hospes_protocol::canon::CanonError;
use hospes_protocol::policy::PolicyError;

use crate::keys::KeyError;
use crate::view::Words;

/// Why the engine did not do what was asked. `Display` is for people and never repeats its source.
#[derive(Debug, thiserror::Error)]
pub enum PartyError {
    /// The data folder holds no party yet.
    #[error("{} holds no site yet; run 'hospes-site init' first", .0.display())]
    NotInitialised(PathBuf),
    /// The data folder holds a party already.
    #[error("{} holds a site already; nothing was changed", .0.display())]
    AlreadyInitialised(PathBuf),
    /// Another process runs this party.
    #[error("another process runs this site ({} is locked); talk to it, or stop it first", .0.display())]
    InUse(PathBuf),
    /// The database is damaged.
    #[error("the database {} is damaged: {reason}; nothing was changed. Restore a backup, or ask for help before you move it away", path.display())]
    Damaged {
        /// File.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// A backup cannot be restored.
    #[error("the backup {} cannot be restored: {reason}; nothing was changed", path.display())]
    Backup {
        /// File.
        path: PathBuf,
        /// Why, and how to mend it.
        reason: String,
    },
    /// The database was written by a newer version.
    #[error("the database was written by a newer version of Hospes; update this program")]
    NewerDatabase,
    /// A transaction failed; nothing of it happened.
    #[error("'{step}' failed and was undone")]
    Store {
        /// Name of the transaction or query.
        step: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// No room on the disk; nothing of the step happened and nothing leaves.
    #[error("the disk is full: '{step}' was undone, and nothing leaves this site until there is room")]
    DiskFull {
        /// Name of the transaction or file.
        step: &'static str,
    },
    /// The ledger could not be written or read.
    #[error("the audit ledger failed in '{step}'")]
    Ledger {
        /// Name of the transaction.
        step: &'static str,
        /// Why.
        source: hospes_ledger::LedgerError,
    },
    /// A file could not be written, read or moved.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Secrets.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Nobody is logged in with this session, or it timed out.
    #[error("the session has ended; log in again")]
    NoSession,
    /// Wrong name or passphrase.
    #[error("name or passphrase is wrong{}", wait(*retry_in_ms))]
    LogIn {
        /// Milliseconds until another attempt is heard.
        retry_in_ms: i64,
    },
    /// The person's roles do not allow it. Audited.
    #[error("{action} needs the role {}", roles(needs))]
    Denied {
        /// What was tried.
        action: &'static str,
        /// Any of these would do.
        needs: Vec<Role>,
    },
    /// There is no such thing.
    #[error("there is no {0}")]
    NotFound(String),
    /// What was given cannot be used.
    #[error("{place}: {reason}")]
    Input {
        /// Which part.
        place: &'static str,
        /// Why.
        reason: String,
    },
    /// It cannot be done in the present state.
    #[error("{0}")]
    State(String),
    /// Refused by approval, policy or review.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The hospital's IT does not allow it.
    #[error("{0}")]
    Managed(String),
    /// The file in which the hospital's IT says what it allows cannot be trusted or understood.
    #[error("{} cannot be used, and without it the engine does not start: {reason}", path.display())]
    ManagedFile {
        /// File.
        path: PathBuf,
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// Fingerprint words do not fit.
    #[error("{}", .0.sentence())]
    Fingerprint(Words),
    /// Policy file.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Somebody ended the reading of a file or a query that they had asked for.
    #[error("the reading was stopped; nothing of it was kept")]
    ReadingStopped,
    /// A document has no canonical form.
    #[error(transparent)]
    Canon(#[from] CanonError),
    /// Data.
    #[error(transparent)]
    Cohort(#[from] hospes_cohort::CohortError),
    /// A model could not be used on a dataset.
    #[error("nothing was predicted: {reason}")]
    Prediction {
        /// Why, in full, for those of the site's people who may see the data.
        reason: String,
        /// The kind of reason, for the log.
        outward: &'static str,
    },
    /// What was found of a newer version of this program is not to be trusted.
    #[error("no update is taken: {reason}")]
    Update {
        /// Why.
        reason: String,
    },
    /// The coordinator could not be reached, or refused.
    #[error("{0}")]
    Link(String),
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random numbers: {0}")]
    Randomness(getrandom::Error),
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
}

fn wait(ms: i64) -> String {
    if ms <= 0 { String::new() } else { format!("; the next attempt is heard in {} s", (ms + 999) / 1_000) }
}

fn roles(roles: &[Role]) -> String {
    roles.iter().map(Role::to_string).collect::<Vec<_>>().join(" or ")
}

impl PartyError {
    /// A value that cannot be used.
    pub(crate) fn input(place: &'static str, reason: impl Into<String>) -> Self {
        Self::Input { place, reason: reason.into() }
    }
    /// Not in this state.
    pub(crate) fn state(reason: impl Into<String>) -> Self {
        Self::State(reason.into())
    }
    /// Whether it is the keychain that did not answer or refused.
    pub(crate) fn is_of_keychain(&self) -> bool {
        matches!(self, Self::Keys(error) if error.is_of_keychain())
    }
    /// A file operation failed; a full disk has its own variant.
    pub(crate) fn file(action: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
            return Self::DiskFull { step: action };
        }
        Self::File { action, path: path.to_owned(), source }
    }
}
