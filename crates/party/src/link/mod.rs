//! The link to a coordinator: one connection that this site dialled, the session on it, and transfers both ways.
//!
//! [`spawn`] starts a link for one membership and keeps it up: it dials (through a proxy where there is one), says hello,
//! beats, notices silence, and comes back with jittered exponential back-off. What is *derived* from rows leaves here
//! only as an [`Upload`], and only after the engine said yes to [`LinkEvent::MayLeave`], which is asked before anything of
//! it is sent and again before every resumption.
//!
//! [`Reached`] joins a federation, [`diagnose`] finds out why a coordinator cannot be reached, [`diagnose_invitation`] the
//! same before a site joins. This is the only module of
//! the site that knows the gRPC code (invariant I4). It keeps no state on disk but partial downloads: what must survive
//! a restart lies in the engine's store, which gives the same commands again.

mod back_off;
mod diagnose;
mod dial;
mod enrol;
mod error;
mod fetch;
mod renewal;
mod session;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod transfer;

use std::path::PathBuf;
use std::time::Duration;

use hospes_protocol::approval::Refusal;
use hospes_protocol::id::{Digest, FederationId, JobId, RoundKey, SiteId};
use hospes_protocol::limits;
use hospes_protocol::message::{FromSite, ToSite, Upload, UploadReceipt, Welcome};
use hospes_protocol::sign::{PublicKey, Signed};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::config::Clock;

pub use diagnose::{Outcome, Step, diagnose, diagnose_invitation};
pub(crate) use dial::proxy_address;
pub use enrol::{Enrolled, Reach, Reached};
pub use error::LinkError;
pub(crate) use fetch::{FetchError, Fetcher, Place};
pub use tls::{Authority, read_certificates};
pub(crate) use tls::{authorities, certificate_in, fingerprint, named_authorities};

/// The host of a coordinator's URL.
pub(crate) fn host(url: &str) -> Option<String> {
    dial::Address::parse(url).ok().map(|address| address.host)
}

/// A receipt of the coordinator for an upload, its signature verified with the key known from enrolment.
pub type Receipt = Signed<UploadReceipt>;

/// Commands that may wait in the channel that [`spawn`] returns.
const COMMANDS: usize = 256;

/// Everything that one link must know.
#[derive(Clone)]
pub struct LinkConfig {
    /// Federation; the id of `coordinator`.
    pub federation: FederationId,
    /// The coordinator's identity key, known from enrolment. Receipts are verified with it.
    pub coordinator: PublicKey,
    /// This site in that federation.
    pub site: SiteId,
    /// Base URLs (`https://host:port`), the preferred one first, then alternates.
    pub urls: Vec<String>,
    /// Certificate of the federation's CA, PEM. The coordinator's certificate must come from it.
    pub ca_pem: String,
    /// Client certificate and what it hangs on, PEM.
    pub chain_pem: String,
    /// Private TLS key of the client certificate, PEM. A certificate that follows in the same text is taken instead of
    /// `chain_pem`, so that a crash while the engine keeps a renewed pair leaves one that fits.
    pub key_pem: Zeroizing<String>,
    /// How to get out of the building.
    pub proxy: ProxyChoice,
    /// Whose certificates are taken besides those of the federation's own CA.
    pub extra_ca: ExtraCa,
    /// Epoch of the coordinator that the site knows.
    pub epoch: u64,
    /// Software name and version, said in the hello.
    pub software: String,
    /// The site's clock.
    pub clock: Clock,
    /// Seed of the back-off's jitter.
    pub jitter_seed: u64,
    /// Times.
    pub timing: Timing,
}

/// How connections leave the building.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum ProxyChoice {
    /// Straight.
    None,
    /// As the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`) and, where there is such a thing, the operating
    /// system's settings say.
    #[default]
    Environment,
    /// Through this HTTP proxy: `http://[user:password@]host:port`.
    Url(Zeroizing<String>),
}

impl std::fmt::Debug for ProxyChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Environment => "Environment",
            Self::Url(_) => "Url(…)",
        })
    }
}

/// Whose certificates a coordinator may show besides those of the federation's own CA, where it stands behind a public or
/// a hospital's certificate. Nothing by default: then nobody but the federation's CA can vouch for the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ExtraCa {
    /// Nobody's.
    #[default]
    None,
    /// Those of the operating system's trust store.
    System,
    /// Those in this PEM text.
    Pem(String),
}

/// Times of a link. The defaults are those of the protocol; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Silence after which the coordinator counts as gone.
    pub silence: Duration,
    /// Longest time for each step of dialling: name, TCP, proxy, TLS, hello.
    pub dial: Duration,
    /// First pause after a failure; it doubles.
    pub back_off_first: Duration,
    /// Longest pause.
    pub back_off_longest: Duration,
    /// A transfer that moves nothing for so long is cut and resumed. There is no limit on its whole duration.
    pub stall: Duration,
    /// Longest wait for the receipt after the last byte, while the coordinator verifies the whole payload.
    pub verify: Duration,
    /// On an alternate: how often the preferred coordinator is tried.
    pub prefer: Duration,
    /// Longest sleep between two looks at whether the certificate must be renewed.
    pub renewal: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(limits::HEARTBEAT_MS),
            silence: Duration::from_millis(limits::SILENCE_MS),
            dial: Duration::from_secs(30),
            back_off_first: Duration::from_secs(1),
            back_off_longest: Duration::from_secs(300),
            stall: Duration::from_secs(60),
            verify: Duration::from_secs(900),
            prefer: Duration::from_secs(600),
            renewal: Duration::from_secs(3_600),
        }
    }
}

/// What a link tells the engine.
#[derive(Debug)]
pub enum LinkEvent {
    /// The session is up. The engine now sends again what it owes.
    Connected(Welcome),
    /// The session ended, or could not be opened.
    Disconnected {
        /// Why, in words for people.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The link gave up for good: the site was revoked or replaced. Only a new enrolment helps.
    Stopped {
        /// Why, in words for people.
        reason: String,
    },
    /// A control message of the coordinator.
    Message(ToSite),
    /// May this leave now? Asked before anything of it is sent and before every resumption. After a `Refusal` the link
    /// forgets the upload and says nothing more about it.
    MayLeave {
        /// What would leave.
        upload: Upload,
        /// The engine's answer. Dropped unanswered, the upload waits and is asked about again.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// The coordinator has it, whole, verified and durable; the receipt's signature was verified.
    Uploaded {
        /// What left.
        upload: Upload,
        /// Receipt.
        receipt: Receipt,
    },
    /// The coordinator does not take it, or the payload file is not what was entered in the ledger. Not tried again.
    UploadRefused {
        /// What did not get through.
        upload: Upload,
        /// Why, in words for people.
        reason: String,
    },
    /// A model is there, whole and verified.
    Downloaded {
        /// Its digest.
        digest: Digest,
        /// Where it lies.
        path: PathBuf,
    },
    /// A model cannot be had. Not tried again unless it is asked for again.
    DownloadFailed {
        /// Its digest.
        digest: Digest,
        /// Why, in words for people.
        reason: String,
    },
    /// The card of a job's model, as the coordinator has it: at most [`limits::CARD_BYTES`], and nothing about it is checked.
    Card {
        /// Job.
        job: JobId,
        /// Digest of the model; `None` for a job that ended with tables alone.
        model: Option<Digest>,
        /// JSON.
        card: Vec<u8>,
    },
    /// The coordinator does not give the card. Not tried again unless it is asked for again.
    CardRefused {
        /// Job.
        job: JobId,
        /// Digest of the model; `None` for a job that ended with tables alone.
        model: Option<Digest>,
        /// Why, in words for people.
        reason: String,
    },
    /// How far a transfer is; at most once a second for each.
    Moved {
        /// Digest of what is transferred.
        digest: Digest,
        /// Bytes that went so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The client certificate was renewed, with a new key. The link uses it already; the engine keeps both.
    CertificateRenewed {
        /// The new certificate, PEM.
        chain_pem: String,
        /// Its key, PEM, with the certificate after it.
        key_pem: Zeroizing<String>,
    },
}

/// What the engine asks of a link.
#[derive(Debug)]
pub enum LinkCommand {
    /// Send a control message. While there is no session it waits, but only in memory (and a [`FromSite::Progress`] not at
    /// all): after [`LinkEvent::Connected`] the engine repeats what it owes.
    Send(FromSite),
    /// Get this payload to the coordinator, however long it takes. Twice the same is once.
    Upload {
        /// What it is.
        upload: Upload,
        /// Where the payload lies.
        path: PathBuf,
    },
    /// Stop sending a payload at once: it was withdrawn. Nothing more is said about it.
    Withdraw {
        /// The round that it was for.
        round: RoundKey,
        /// Its digest.
        digest: Digest,
    },
    /// Get this model here. Twice the same is once.
    Download {
        /// Its digest, `canon::digest("model", 1, bytes)`.
        digest: Digest,
        /// Where it shall lie; next to it grows a partial file.
        to: PathBuf,
        /// Longest file that it can be, in bytes; a longer one is refused before its first byte.
        most_bytes: u64,
    },
    /// Get the card of a job's model. Twice the same is once.
    Card {
        /// Job.
        job: JobId,
        /// Digest of the model; `None` for a job that ended with tables alone.
        model: Option<Digest>,
    },
    /// Stop getting a model and its card: nothing here waits for them any more. The partial file stays.
    Forget {
        /// Its digest.
        digest: Digest,
    },
    /// Say goodbye and end.
    Close,
}

/// Starts a link and keeps it up until [`LinkCommand::Close`], or until the sender that is returned is dropped. Must be
/// called within a tokio runtime.
pub fn spawn(config: LinkConfig, events: mpsc::Sender<(FederationId, LinkEvent)>) -> mpsc::Sender<LinkCommand> {
    let (sender, commands) = mpsc::channel(COMMANDS);
    tokio::spawn(session::run(config, events, commands));
    sender
}

impl std::fmt::Debug for LinkConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkConfig")
            .field("federation", &self.federation)
            .field("site", &self.site)
            .field("urls", &self.urls)
            .field("proxy", &self.proxy)
            .field("extra_ca", &self.extra_ca)
            .finish_non_exhaustive()
    }
}
