//! The schedule: one event loop that owns every job, task, round and session of this coordinator.
//!
//! Whoever has something to say sends an [`Event`]; [`run`] applies it. A batch of events that arrive together becomes
//! one transaction (state and ledger entries); only after its commit do messages leave and callers get their answers.
//! A commit that fails throws the memory away and loads it again from the store: there is no second way to recover.

use hospes_protocol::id::{Digest, JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::message::{FromSite, Hello, ToSite, UploadReceipt};
use hospes_protocol::plan::Problem;
use hospes_protocol::sign::Signed;
use hospes_protocol::study::Terms;
use tokio::sync::{mpsc, oneshot};

use crate::aggregate::staging::StagedUpload;

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
        out: mpsc::Sender<ToSite>,
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
        /// Name of the token.
        by: String,
    },
    /// Takes a study back; what runs of it is cancelled.
    Withdraw {
        /// Study.
        study: StudyId,
        /// Name of the token.
        by: String,
        /// Why.
        reason: String,
    },
    /// Starts a job of a study with the members that have approved so far.
    Start {
        /// Study.
        study: StudyId,
        /// Name of the token.
        by: String,
    },
    /// Runs a job that ended without success again, from its first task that is not done.
    Rerun {
        /// Job.
        job: JobId,
        /// Name of the token.
        by: String,
    },
    /// Stops a job.
    Cancel {
        /// Job.
        job: JobId,
        /// Name of the token.
        by: String,
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
