//! What went wrong, for a screen: a closed code, the sentence, and a reference that leads to the log.

use hospes_party::PartyError;
use serde::{Deserialize, Serialize};

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, ts_rs::TS)]
#[error("{words}")]
pub struct Fault {
    /// Code, for programs.
    pub code: FaultCode,
    /// What happened and what to do, for people. Never a data value.
    pub words: String,
    /// Under which the log of the party has it, where the party found the fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub reference: Option<String>,
}

/// Kinds of fault. New ones are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// The command or its arguments cannot be read.
    Command,
    /// Nobody is logged in, or the session timed out.
    NoSession,
    /// Wrong name or passphrase.
    LogIn,
    /// The person's roles do not allow it.
    Denied,
    /// There is no such thing.
    NotFound,
    /// What was given cannot be used; the words say which part and how to mend it.
    Input,
    /// It cannot be done in the present state.
    State,
    /// Refused by an approval, the policy or the review.
    Refused,
    /// Words or fingerprints do not fit: somebody may stand between.
    Fingerprint,
    /// A data file cannot be used.
    Data,
    /// The coordinator cannot be reached, or refused.
    Link,
    /// Keychain or key file.
    Keys,
    /// The disk is full; nothing leaves.
    DiskFull,
    /// Database or ledger.
    Store,
    /// The engine is not running.
    NotRunning,
    /// The ledger does not verify, or cannot be written.
    Ledger,
    /// The file that says where a site's keys lie cannot be read or is damaged.
    Settings,
    /// Whoever asked for it has stopped it.
    Stopped,
}

impl Fault {
    /// A fault in words.
    pub fn new(code: FaultCode, words: impl Into<String>) -> Self {
        Self { code, words: words.into(), reference: None }
    }
}

impl From<PartyError> for Fault {
    fn from(error: PartyError) -> Self {
        let code = match &error {
            PartyError::NoSession => FaultCode::NoSession,
            PartyError::LogIn { .. } => FaultCode::LogIn,
            PartyError::Denied { .. } => FaultCode::Denied,
            PartyError::NotFound(_) => FaultCode::NotFound,
            PartyError::Input { .. } | PartyError::Policy(_) | PartyError::ManagedFile { .. } => FaultCode::Input,
            PartyError::State(_) | PartyError::AlreadyInitialised(_) | PartyError::InUse(_) => FaultCode::State,
            PartyError::Refused(_) | PartyError::Managed(_) | PartyError::Update { .. } => FaultCode::Refused,
            PartyError::Fingerprint(_) => FaultCode::Fingerprint,
            PartyError::ReadingStopped => FaultCode::Stopped,
            PartyError::Cohort(_) | PartyError::Backup { .. } | PartyError::Prediction { .. } => FaultCode::Data,
            PartyError::Link(_) => FaultCode::Link,
            PartyError::Keys(_) => FaultCode::Keys,
            PartyError::DiskFull { .. } => FaultCode::DiskFull,
            PartyError::NotInitialised(_) | PartyError::Stopped => FaultCode::NotRunning,
            PartyError::Ledger { .. } => FaultCode::Ledger,
            _ => FaultCode::Store,
        };
        let (words, reference) = (sentence(&error), reference());
        tracing::warn!(?code, reference, words, "a command was not carried out");
        Self { code, words, reference }
    }
}

/// Eight characters that nobody has to keep secret.
fn reference() -> Option<String> {
    let mut bytes = [0; 5];
    getrandom::fill(&mut bytes).ok()?;
    Some(data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

/// The error with its causes, none of which repeats another.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        source = cause.source();
    }
    words
}
