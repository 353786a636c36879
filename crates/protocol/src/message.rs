//! What site and coordinator say to each other, as Rust types; `crate::grpc` (feature `grpc`) puts them on the wire.
//!
//! The session stream carries *control* messages only: fixed schema, no function of patient rows. What is *derived*
//! from rows travels as an upload, and an [`Upload`] can only be made from a [`Permit`] (invariants I2, I3).

use serde::{Deserialize, Serialize};

use crate::approval::{Permit, Refusal};
use crate::canon::Canonical;
use crate::id::{Digest, FederationId, JobId, RoundKey, SiteId, StudyId, Timestamp};
use crate::round::RoundHeader;
use crate::sign::{PublicKey, Signed};
use crate::study::{Roster, Study, Vouch};
use crate::version::Version;

/// Control messages of a site.
#[derive(Debug, Clone)]
pub enum FromSite {
    /// First message of a session.
    Hello(Hello),
    /// Sign of life, also the answer to the coordinator's.
    Heartbeat {
        /// The site's clock.
        at: Timestamp,
    },
    /// The people of the site decided on a study, or changed their mind.
    Decision {
        /// Study.
        study: StudyId,
        /// What they decided.
        decision: Decision,
    },
    /// Answer to [`ToSite::JobReserve`].
    Reserved {
        /// Job.
        job: JobId,
        /// `None` if it can start here, the reason if not.
        refusal: Option<Refusal>,
    },
    /// Answer to [`ToSite::RoundOpen`]: the site works on it, or does not.
    RoundReply {
        /// Round.
        round: RoundKey,
        /// What the site does.
        reply: RoundReply,
    },
    /// Work goes on; keeps the round's deadline by progress from running out.
    Progress {
        /// Round.
        round: RoundKey,
        /// Steps done.
        done: u32,
        /// Steps in all.
        total: u32,
    },
    /// The site's people released the held results of a job.
    Release {
        /// Job.
        job: JobId,
    },
    /// What this site says in a step of a round with secure aggregation; its input travels as an upload.
    SecureStep {
        /// Round.
        round: RoundKey,
        /// What it says.
        message: SecureMessage,
    },
    /// A vouch for another site.
    Vouch(Box<Signed<Vouch>>),
    /// The site asks for, or answers, witnessing.
    Witness(Witness),
    /// The site leaves an orderly goodbye before it closes the stream.
    Goodbye,
}

/// First message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Versions that the site speaks.
    pub versions: Vec<Version>,
    /// The site; must be that of the client certificate.
    pub site: SiteId,
    /// Software name and version.
    pub software: String,
    /// The site's clock.
    pub at: Timestamp,
    /// Coordinator epoch that the site knows.
    pub epoch: u64,
}

/// What the people of a site decided on a study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// In force until then.
    Approved {
        /// Digest of the approval document.
        approval: Digest,
        /// Until when.
        expires: Timestamp,
        /// Whether one person only signed (mode *delayed*).
        one_person: bool,
    },
    /// No, with the reason that the site chose to give.
    Refused(Refusal),
    /// Not now.
    Suspended,
    /// Taken back.
    Revoked,
    /// Past its time.
    Expired,
}

/// What a site does about a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoundReply {
    /// It works on it.
    Working,
    /// No, and the refusal is in its ledger.
    Refused(Refusal),
    /// It tried and failed; the reason has no data value.
    Failed(String),
    /// Its update was made and then withdrawn before it left.
    Withdrawn(Refusal),
}

/// Messages of the coordinator.
#[derive(Debug, Clone)]
pub enum ToSite {
    /// Answer to [`Hello`].
    Welcome(Welcome),
    /// Sign of life.
    Heartbeat {
        /// The coordinator's clock.
        at: Timestamp,
    },
    /// The members of the federation changed.
    Roster(Box<Signed<Roster>>),
    /// Another site's vouch, relayed.
    Vouch(Box<Signed<Vouch>>),
    /// A study is offered. Sent again after every reconnection until the site has decided.
    Study(Box<Signed<Study>>),
    /// A study was withdrawn by its requester.
    StudyWithdrawn {
        /// Study.
        study: StudyId,
    },
    /// Two-phase start, first phase: could you run this job?
    JobReserve {
        /// Job.
        job: JobId,
        /// Study.
        study: StudyId,
        /// Plan of this run, if it is another than the study's (inside the envelope or not, the site decides).
        plan: Box<Canonical<crate::plan::Plan>>,
    },
    /// Second phase: it runs.
    JobStart {
        /// Job.
        job: JobId,
    },
    /// Second phase: it does not; free what was reserved.
    JobRollback {
        /// Job.
        job: JobId,
    },
    /// A round is open.
    RoundOpen(Box<Signed<RoundHeader>>),
    /// What the others said in a step of a round with secure aggregation.
    Relay {
        /// Round.
        round: RoundKey,
        /// What they said.
        message: SecureMessage,
    },
    /// A round is over.
    RoundClosed {
        /// Round.
        round: RoundKey,
        /// How it ended.
        outcome: RoundOutcome,
    },
    /// A job is over.
    JobEnded {
        /// Job.
        job: JobId,
        /// How: `success`, `failed`, `timeout`, `cancelled`.
        state: String,
        /// Why.
        reason: Option<String>,
        /// Digest of the final model, where there is one.
        model: Option<Digest>,
    },
    /// The coordinator asks for, or answers, witnessing, or relays another member's.
    Witness(Witness),
    /// The coordinator closes the session, with the reason.
    Goodbye {
        /// Reason in words.
        reason: String,
    },
}

/// A message of secure aggregation, as bytes that only `hospes-privacy` reads: of a site a `Sent`, of the coordinator a
/// `Relay`. It is no function of rows. Its `Debug` shows the length only: shares may be in it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecureMessage(Vec<u8>);

impl SecureMessage {
    /// From the bytes that the state machine gave.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
    /// The bytes, for the wire.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl std::fmt::Debug for SecureMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecureMessage({} bytes)", self.0.len())
    }
}

/// Answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Version that both will speak.
    pub version: Version,
    /// Federation.
    pub federation: FederationId,
    /// The coordinator's identity key; must be the one known from enrolment.
    pub identity: PublicKey,
    /// The coordinator's clock.
    pub at: Timestamp,
    /// Its epoch.
    pub epoch: u64,
}

/// How a round ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoundOutcome {
    /// With a result.
    Published {
        /// Digest of the new model; `None` for a report of figures.
        model: Option<Digest>,
        /// Sites whose inputs are in it.
        included: Vec<SiteId>,
    },
    /// Without one.
    Abandoned(String),
}

/// Witnessing: one log's checkpoint, shown to a peer that checks it against what it saw before and cosigns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Witness {
    /// Here is my (or, relayed, another member's) checkpoint, and a proof from the size that you saw last.
    Show {
        /// Origin of the log: id of a site, or of the federation for the coordinator's.
        origin: SiteId,
        /// Signed note (C2SP `tlog-checkpoint`).
        checkpoint: String,
        /// Size from which the proof starts.
        old_size: u64,
        /// Consistency proof (RFC 6962).
        proof: Vec<Digest>,
    },
    /// I saw another size last; prove from there. A site that asks so about its own log was restored from a backup: it is
    /// shown the checkpoint that was seen last, with an empty note if there is none.
    ProveFrom {
        /// Origin of the log.
        origin: SiteId,
        /// The size that I saw last.
        size: u64,
    },
    /// It is consistent with what I saw; my cosignature.
    Cosigned {
        /// Origin of the log.
        origin: SiteId,
        /// Size that was cosigned.
        size: u64,
        /// Who cosigned.
        witness: SiteId,
        /// Signature line (C2SP `tlog-cosignature`).
        cosignature: String,
    },
    /// It contradicts what I saw.
    Contradiction {
        /// Origin of the log.
        origin: SiteId,
        /// Who found it.
        witness: SiteId,
        /// What was found, in words.
        detail: String,
    },
}

/// Kind of what an upload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadKind {
    /// A model update in the layout of the round's header.
    Update,
    /// A [`FigureSet`] in canonical bytes.
    Figures,
}

/// Something derived from rows on its way out: what it is, never the bytes themselves.
///
/// It can only be made from a [`Permit`], and the outbox makes it in the transaction that wrote the ledger entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    kind: UploadKind,
    study: StudyId,
    round: RoundKey,
    digest: Digest,
    bytes: u64,
}

impl Upload {
    /// Describes a payload that this permit allows to leave.
    pub fn new(permit: &Permit, kind: UploadKind, digest: Digest, bytes: u64) -> Self {
        Self { kind, study: permit.study(), round: permit.round().clone(), digest, bytes }
    }
    /// What it is.
    pub fn kind(&self) -> UploadKind {
        self.kind
    }
    /// Study.
    pub fn study(&self) -> StudyId {
        self.study
    }
    /// Round.
    pub fn round(&self) -> &RoundKey {
        &self.round
    }
    /// SHA-256 of the payload.
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// Length of the payload.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Figures that a site reports for one task: sums, so that those of several sites can be added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FigureSet {
    /// Named sums, each a list of finite numbers.
    pub sums: std::collections::BTreeMap<String, Vec<f64>>,
    /// Names withheld by a disclosure rule, with the rule.
    pub withheld: std::collections::BTreeMap<String, String>,
}

impl crate::canon::Document for FigureSet {
    const KIND: &'static str = "figures";
    const VERSION: u32 = 1;
}

/// What the coordinator signs when an upload is complete, verified and durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadReceipt {
    /// Federation.
    pub federation: FederationId,
    /// Site that sent it.
    pub site: SiteId,
    /// Round it counts for.
    pub round: RoundKey,
    /// SHA-256 of the payload.
    pub digest: Digest,
    /// When it was durable.
    pub at: Timestamp,
}

impl crate::canon::Document for UploadReceipt {
    const KIND: &'static str = "upload-receipt";
    const VERSION: u32 = 1;
}
