//! One step: everything that a batch of events changes, in one transaction, and what may happen only after its commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use hospes_ledger::{Entry, Ledger};
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId, StudyId, Timestamp};
use hospes_protocol::message::{ToSite, UploadReceipt};
use hospes_protocol::sign::Signed;
use hospes_protocol::text;
use tokio::sync::oneshot;

use super::{Context, Live, Rejection, RejectionCode, Reply};
use crate::Error;
use crate::models::MomentsOf;
use crate::store::Tx;

/// Characters of a reason in the ledger.
const REASON_CHARS: usize = 900;

/// Answer to an upload.
pub(super) type Receipt = Result<Box<Signed<UploadReceipt>>, Rejection>;

/// A caller that waits for the commit.
pub(super) enum Waiting {
    Operator(oneshot::Sender<Result<Reply, Rejection>>, Result<Reply, Rejection>),
    Upload(oneshot::Sender<Receipt>, Receipt),
}

impl Waiting {
    /// Tells the caller what came of it. A caller that is gone has no use for it.
    fn tell(self) {
        match self {
            Self::Operator(to, answer) => drop(to.send(answer)),
            Self::Upload(to, answer) => drop(to.send(answer)),
        }
    }

    /// Tells the caller that nothing came of it.
    fn fail(self) {
        match self {
            Self::Operator(to, _) => drop(to.send(Err(unavailable()))),
            Self::Upload(to, _) => drop(to.send(Err(unavailable()))),
        }
    }
}

/// The answer while the store cannot be written.
pub(super) fn unavailable() -> Rejection {
    let reason = "the coordinator could not write its store; nothing was changed, try again";
    Rejection::new(RejectionCode::Unavailable, reason)
}

/// What happens after the commit, besides messages and answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum After {
    /// Take no more uploads for a round.
    Close(RoundKey),
    /// Delete what was staged for a round.
    Discard(RoundKey),
    /// Delete a model's file.
    Delete(Digest),
    /// Delete moments of the coordinator's optimiser.
    DeleteMoments(MomentsOf),
    /// Take the sum of a round.
    Reduce(JobId),
    /// Make the initial model of a job's task.
    Initial(JobId),
    /// Make the card of a job's model.
    Card(JobId),
    /// End a site's session.
    EndSession(SiteId),
    /// Show the new checkpoint to everybody.
    Show,
}

/// One step.
pub(crate) struct Step {
    /// When it happens.
    pub(crate) now: Timestamp,
    tx: Option<Tx>,
    entries: Vec<Entry>,
    checkpoint: bool,
    leased: BTreeSet<JobId>,
    pub(super) sends: Vec<(SiteId, Arc<ToSite>)>,
    waiting: Vec<Waiting>,
    live: Vec<Live>,
    pub(super) after: Vec<After>,
}

/// What a committed step leaves to do.
pub(super) struct Done {
    pub sends: Vec<(SiteId, Arc<ToSite>)>,
    pub after: Vec<After>,
}

impl Step {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            tx: None,
            entries: Vec::new(),
            checkpoint: false,
            leased: BTreeSet::new(),
            sends: Vec::new(),
            waiting: Vec::new(),
            live: Vec::new(),
            after: Vec::new(),
        }
    }

    /// The step's transaction, begun when it is first needed.
    pub(crate) async fn tx(&mut self, context: &Context) -> Result<&mut Tx, Error> {
        match &mut self.tx {
            Some(tx) => Ok(tx),
            none => Ok(none.insert(context.store.begin("schedule").await?)),
        }
    }

    /// The step's transaction in the hands of the one replica that may change this job.
    pub(super) async fn job(&mut self, context: &Context, job: JobId) -> Result<&mut Tx, Error> {
        let (now, held) = (self.now, self.leased.contains(&job));
        if !held {
            let tx = self.tx(context).await?;
            if !tx.lease_job(job, &context.replica, now, context.settings.lease_ms).await? {
                return Err(Error::corrupt("lease", format!("another replica has taken over job {job}")));
            }
            self.leased.insert(job);
        }
        self.tx(context).await
    }

    /// Jobs whose lease this step renewed.
    pub(super) fn leased(&self) -> impl Iterator<Item = JobId> + '_ {
        self.leased.iter().copied()
    }

    /// Whether something is written that other readers cannot see yet.
    pub(super) fn is_open(&self) -> bool {
        self.tx.is_some() || !self.entries.is_empty()
    }

    /// Makes a ledger entry with this step. Reasons can come from sites; what cannot be shown must not stop the ledger.
    pub(crate) fn record(&mut self, mut entry: Entry) {
        entry.reason = entry.reason.map(|reason| text::shown(&reason, REASON_CHARS));
        self.entries.push(entry);
    }

    /// Signs a checkpoint of the ledger with this step.
    pub(crate) fn checkpoint(&mut self) {
        if !self.checkpoint {
            self.checkpoint = true;
            self.after.push(After::Show);
        }
    }

    /// Records what a member can cause as often as it likes, as far as it is to be recorded now; says whether it is.
    pub(crate) fn record_limited(
        &mut self,
        context: &Context,
        site: SiteId,
        about: impl ToString,
        entry: Entry,
    ) -> bool {
        let entry = context.audit.limited(site, about, entry);
        let is_made = entry.is_some();
        if let Some(entry) = entry {
            self.record(entry);
        }
        is_made
    }

    pub(crate) fn send(&mut self, site: SiteId, message: ToSite) {
        self.sends.push((site, Arc::new(message)));
    }

    /// Sends one message to many, who share it.
    pub(crate) fn send_all(&mut self, sites: impl IntoIterator<Item = SiteId>, message: ToSite) {
        let message = Arc::new(message);
        self.sends.extend(sites.into_iter().map(|site| (site, message.clone())));
    }

    pub(super) fn answer(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    pub(super) fn live(&mut self, study: StudyId, job: Option<JobId>, what: &'static str, detail: String) {
        self.live.push(Live { at: self.now, study, job, what, detail, model: None });
    }

    pub(super) fn live_model(&mut self, study: StudyId, job: JobId, what: &'static str, detail: String, model: Digest) {
        self.live.push(Live { at: self.now, study, job: Some(job), what, detail, model: Some(model) });
    }

    /// Writes entries and checkpoint and commits. Only then callers get their answers.
    pub(super) async fn commit(mut self, context: &Context) -> Result<Done, Error> {
        let result = self.write(context).await;
        let waiting = std::mem::take(&mut self.waiting);
        match result {
            Ok(()) => waiting.into_iter().for_each(Waiting::tell),
            Err(error) => {
                waiting.into_iter().for_each(Waiting::fail);
                return Err(error);
            }
        }
        for live in self.live {
            // Nobody has to watch.
            drop(context.live.send(live));
        }
        Ok(Done { sends: self.sends, after: self.after })
    }

    async fn write(&mut self, context: &Context) -> Result<(), Error> {
        if !self.entries.is_empty() || self.checkpoint {
            let entries = std::mem::take(&mut self.entries);
            let (now, checkpoint) = (self.now, self.checkpoint);
            let tx = self.tx(context).await?;
            if !entries.is_empty() {
                context.audit.record(tx, &entries).await?;
            }
            if checkpoint {
                Ledger::on(tx.conn()).checkpoint(&context.key, now).await?;
            }
        }
        match self.tx.take() {
            Some(tx) => tx.commit().await,
            None => Ok(()),
        }
    }

    /// Gives up without writing; callers are told.
    pub(super) fn abandon(self) {
        self.waiting.into_iter().for_each(Waiting::fail);
    }
}
