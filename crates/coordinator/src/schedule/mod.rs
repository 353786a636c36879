//! The schedule: one event loop that owns every job, task, round and session of this coordinator.
//!
//! Whoever has something to say sends an [`Event`]; [`run`] applies it. A batch of events that arrive together becomes
//! one transaction (state and ledger entries); only after its commit do messages leave and callers get their answers.
//! A commit that fails throws the memory away and loads it again from the store: there is no second way to recover.

#[cfg(feature = "simulation")]
pub(crate) mod by_hand;
mod card;
mod driver;
mod early;
mod figures;
mod fits;
mod job;
mod lifecycle;
mod load;
mod rounds;
mod secure;
mod sessions;
mod step;
mod studies;
mod sweep;
mod work;

use std::sync::Arc;

use hospes_protocol::id::{Digest, FederationId, JobId, RoundKey, SiteId, StudyId, Timestamp};
use hospes_protocol::message::{FromSite, Hello, ToSite, UploadReceipt};
use hospes_protocol::plan::Problem;
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::study::{Sweep, Terms};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::aggregate::staging::{StagedUpload, Staging};
use crate::audit::Audit;
use crate::models::Models;
use crate::store::{Caller, Store};
use crate::{Clock, Error};

pub use driver::run;
pub(crate) use sessions::Sessions;
pub(crate) use step::Step;
pub(crate) use studies::check;

/// What a command gives: an answer, expected or not, or a failure that stops the step.
type Answer = Result<Result<Reply, Rejection>, Error>;

/// What reaches the schedule.
#[derive(Debug)]
pub enum Event {
    /// A site opened a session. Its certificate was checked and is that of `hello.site`; everything else (version,
    /// welcome, roster, vouches, studies, open rounds) is the schedule's to answer through `out`.
    Joined {
        /// Site.
        site: SiteId,
        /// Number of the session, larger than any before in this process.
        session: u64,
        /// First message.
        hello: Hello,
        /// Where messages to the site go. Dropped by the schedule when the session is over.
        out: mpsc::Sender<Arc<ToSite>>,
    },
    /// A session ended.
    Left {
        /// Site.
        site: SiteId,
        /// Which of its sessions.
        session: u64,
    },
    /// A site said something.
    Message {
        /// Site.
        site: SiteId,
        /// In which of its sessions.
        session: u64,
        /// What.
        message: FromSite,
    },
    /// An upload is complete, verified and durable; the answer goes back to the site as the receipt.
    Uploaded {
        /// Site.
        site: SiteId,
        /// What was staged.
        upload: StagedUpload,
        /// The signed receipt, once it is in the store, or why it does not count.
        reply: oneshot::Sender<Result<Box<Signed<UploadReceipt>>, Rejection>>,
    },
    /// An upload was refused before it was complete: wrong length, digest or content. The refusal goes into the ledger.
    UploadRefused {
        /// Site.
        site: SiteId,
        /// Round that it was meant for.
        round: RoundKey,
        /// Why it was refused.
        reason: String,
    },
    /// Somebody with a token, or the part of this process that enrols sites, wants something.
    Operator {
        /// What.
        command: Command,
        /// What came of it, once it is in the store.
        reply: oneshot::Sender<Result<Reply, Rejection>>,
    },
}

/// What operators and researchers can ask for.
#[derive(Debug, Clone)]
pub enum Command {
    /// Checks a study, signs it and offers it to its members.
    Submit {
        /// Purpose, people, basis.
        terms: Box<Terms>,
        /// The plan as it was written, YAML or JSON.
        plan: String,
        /// Settings to try, where the plan is to be run with many.
        sweep: Option<Box<Sweep>>,
        /// Who asks.
        by: Caller,
    },
    /// Takes a study back; what runs of it is cancelled.
    Withdraw {
        /// Study.
        study: StudyId,
        /// Who asks.
        by: Caller,
        /// Why.
        reason: String,
    },
    /// Starts a job of a study with the members that have approved so far.
    Start {
        /// Study.
        study: StudyId,
        /// Who asks.
        by: Caller,
    },
    /// Runs a job that failed or timed out again, from its first task that is not done.
    Rerun {
        /// Job.
        job: JobId,
        /// Who asks.
        by: Caller,
    },
    /// Stops a job.
    Cancel {
        /// Job.
        job: JobId,
        /// Who asks.
        by: Caller,
        /// Why.
        reason: String,
    },
    /// The store says that a site is suspended or revoked: its session ends and it drops out of what runs.
    SiteLocked {
        /// Site.
        site: SiteId,
        /// Why.
        reason: String,
    },
    /// The store has a newer roster: everybody connected gets it.
    RosterChanged,
    /// Who is connected.
    Sessions,
}

/// What came of a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A study was submitted.
    Study(StudyId),
    /// A job was made, or goes on.
    Job(JobId),
    /// It is done.
    Done,
    /// Sites with an open session, and since when.
    Sessions(Vec<(SiteId, Timestamp)>),
}

/// Why something does not happen: an expected outcome, in words for the one who asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// Kind, for status codes.
    pub code: RejectionCode,
    /// In words.
    pub message: String,
    /// What is wrong with a plan, place by place.
    pub problems: Vec<Problem>,
}

/// Kind of a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionCode {
    /// There is no such thing.
    NotFound,
    /// The one who asked may not.
    Forbidden,
    /// What was sent is wrong in itself.
    Invalid,
    /// It does not go together with the state that things are in.
    Conflict,
    /// The coordinator cannot do it now (it stops, or its disk is full).
    Unavailable,
}

impl Rejection {
    /// A rejection in words.
    pub fn new(code: RejectionCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), problems: Vec::new() }
    }
}

/// Something that people who watch like to know at once. It carries no more than the store does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// When.
    pub at: Timestamp,
    /// Study.
    pub study: StudyId,
    /// Job, where it is about one.
    pub job: Option<JobId>,
    /// What happened, one word or two: `job running`, `round published`.
    pub what: &'static str,
    /// Details in words, such as `train 3/15, 4 of 4 sites`.
    pub detail: String,
    /// Model that came of it.
    pub model: Option<Digest>,
}

/// Times and numbers by which the schedule goes; the defaults suit hospitals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long a site may show no sign of work in a round, in milliseconds.
    pub patience_ms: i64,
    /// Longest time for one round, in milliseconds; the header's deadline.
    pub round_ms: i64,
    /// How long a round waits, before it opens, for a member that has just lost its connection, in milliseconds.
    pub grace_ms: i64,
    /// How long the members of a job have to say whether they can run it, in milliseconds.
    pub reserve_ms: i64,
    /// How long a job waits for enough connected members, in milliseconds, before it ends as *timeout*.
    pub quorum_ms: i64,
    /// Time before another attempt at a round, in milliseconds.
    pub retry_ms: i64,
    /// Time before a site that had no room for a job is asked again, in milliseconds; it is asked at once when another
    /// job ends.
    pub busy_ms: i64,
    /// Attempts at one round.
    pub attempts: u32,
    /// Fewest sites whose inputs make a round, where there are so many.
    pub min_parties: u32,
    /// Sites that count as colluding with the coordinator in rounds with secure aggregation (c). Each site demands as many
    /// as its policy says, and as many as it knows from the coordinator only; where it is not said, a third of the sites,
    /// rounded up, less one.
    pub colluding: Option<u32>,
    /// How long this replica holds a job without touching it, in milliseconds.
    pub lease_ms: i64,
    /// Longest time between two checkpoints of the ledger, in milliseconds.
    pub checkpoint_ms: i64,
    /// Shortest time between two relays of one member's checkpoint to the other members, in milliseconds.
    pub relay_ms: i64,
    /// Studies of one token that may be open at the same time: offered, and no job of them has succeeded.
    pub open_studies: u32,
}

impl Settings {
    /// Checks that the schedule can work with these values.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first that is too small.
    pub fn checked(self) -> Result<Self, Error> {
        let times = [
            ("patience_ms", self.patience_ms),
            ("round_ms", self.round_ms),
            ("reserve_ms", self.reserve_ms),
            ("quorum_ms", self.quorum_ms),
            ("retry_ms", self.retry_ms),
            ("busy_ms", self.busy_ms),
            ("lease_ms", self.lease_ms),
            ("checkpoint_ms", self.checkpoint_ms),
            ("relay_ms", self.relay_ms),
            ("grace_ms", self.grace_ms.saturating_add(1)),
        ];
        let counts = [("attempts", self.attempts, 1), ("min_parties", self.min_parties, 2)];
        if let Some((name, _)) = times.iter().find(|(_, ms)| *ms < 1) {
            return Err(Error::Config(format!("schedule.{name}: the time is too short")));
        }
        if let Some((name, _, least)) = counts.iter().find(|(_, count, least)| count < least) {
            return Err(Error::Config(format!("schedule.{name}: at least {least}")));
        }
        Ok(self)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            patience_ms: 3 * 60 * 1_000,
            round_ms: 12 * 60 * 60 * 1_000,
            grace_ms: 60 * 1_000,
            reserve_ms: 10 * 60 * 1_000,
            quorum_ms: 24 * 60 * 60 * 1_000,
            retry_ms: 2_000,
            busy_ms: 30_000,
            attempts: 3,
            min_parties: 3,
            colluding: None,
            lease_ms: 30_000,
            checkpoint_ms: hospes_ledger::witness::INTERVAL_MS,
            relay_ms: 50,
            open_studies: 100,
        }
    }
}

/// What the schedule works with.
#[derive(Clone)]
pub struct Context {
    /// State.
    pub store: Store,
    /// Ledger.
    pub audit: Audit,
    /// Uploads.
    pub staging: Staging,
    /// Models.
    pub models: Models,
    /// The coordinator's identity key; the id of the federation is that of this key.
    pub key: Arc<SecretKey>,
    /// Incarnation.
    pub epoch: u64,
    /// Time.
    pub clock: Clock,
    /// For those who watch.
    pub live: broadcast::Sender<Live>,
    /// Times and numbers.
    pub settings: Settings,
    /// Name of this replica, the same after every restart; no other process on the same database may have it.
    pub replica: String,
}

impl Context {
    /// Now.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The federation.
    pub fn federation(&self) -> FederationId {
        self.key.public().site_id()
    }
}
