//! An engine that is driven by hand: one event after the other, each applied whole before the next.
//!
//! The simulation of whole federations takes the place of what is not deterministic: of the loop that waits (time), of
//! the link (network), of the worker process (work on data), and of the moment at which a process dies or a disk is
//! full. Everything between is the engine as it ships, on its real store.

use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use hospes_cohort::worker::{Done, Failure, LocalView, Order};
use hospes_cohort::{Outward, Released, TrainingView};
use hospes_protocol::id::{Digest, FederationId, RoundKey, Timestamp};
use hospes_protocol::message::UploadKind;
use hospes_protocol::plan::Plan;
use hospes_protocol::round::RoundHeader;
use hospes_protocol::round::site::State;
use hospes_protocol::sign::SecretKey;
use tokio::sync::Notify;

use crate::config::Config;
use crate::engine::{Engine, Event, lock_site};
use crate::error::PartyError;
use crate::handle::Handle;
use crate::link::{Enrolled, LinkEvent};
use crate::memberships::Joined;
use crate::people::Session;
use crate::pools::{Charge, charge_of};
use crate::rounds::worker::{Running, WorkEvent};
pub use crate::seam::Moment;
use crate::seam::Seam;
use crate::store::Store;
use crate::view::MembershipView;

/// What becomes of a site at a moment of a transaction or of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    GoOn,
    /// The disk is full: the transaction is undone. After the commit it is too late for that.
    DiskFull,
    /// The process dies.
    Die,
}

/// A bug that is put in on purpose, to see that it is found. Only a [`Hold`] carries one, and only the simulation makes
/// a hold: no setting, message or environment variable of a program reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The permit that is asked for again before something leaves does not look at the approval's state.
    SkippedPermitCheck,
    /// This site's processor gives another keystream than the others' for the first word of each tensor.
    OtherKeystream,
    /// As long as nothing was revealed, another set of inputs takes the place of the one that was agreed to.
    SumAgreedAnew,
    /// After shares were revealed, too.
    RevealedAnew,
}

/// What decides the fate at each moment.
pub type Fates = Box<dyn Fn(&'static str, Moment) -> Fate + Send + Sync>;

/// The simulation's hold on one process of one site.
pub struct Hold {
    fates: Fates,
    planted: Option<Planted>,
    work: Mutex<Vec<Work>>,
    store: Mutex<Option<Store>>,
    died: Notify,
}

impl Hold {
    /// A hold with these fates.
    pub fn new(fates: Fates, planted: Option<Planted>) -> Arc<Self> {
        let (work, store) = (Mutex::default(), Mutex::default());
        Arc::new(Self { fates, planted, work, store, died: Notify::new() })
    }

    /// Does `work` unless the process dies of it; then it is `None`, and the work is dropped where it stood.
    pub async fn live<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.died.notified() => None,
            done = work => Some(done),
        }
    }

    /// Makes a file as the worker and the link do, in whose place the simulation is: written under another name, made
    /// durable, named. The process can die in between, and they with it.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn make_file(&self, what: &'static str, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".part");
        let partial = PathBuf::from(partial);
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        let mut file = File::create(&partial)?;
        file.write_all(first)?;
        self.meet(what, Moment::Written).await.map_err(std::io::Error::other)?;
        file.write_all(rest)?;
        file.sync_all()?;
        self.meet(what, Moment::Durable).await.map_err(std::io::Error::other)?;
        std::fs::rename(&partial, path)?;
        self.meet(what, Moment::Named).await.map_err(std::io::Error::other)
    }

    /// Waits until nothing of a process that was dropped touches its database any more.
    pub async fn bury(&self) {
        let store = locked(&self.store).take();
        if let Some(store) = store {
            store.close().await;
        }
    }

    pub(crate) async fn meet(&self, step: &'static str, moment: Moment) -> Result<(), PartyError> {
        match (self.fates)(step, moment) {
            Fate::Die => {
                self.died.notify_one();
                std::future::pending().await
            }
            Fate::DiskFull if moment != Moment::After => Err(PartyError::DiskFull { step }),
            Fate::DiskFull | Fate::GoOn => Ok(()),
        }
    }

    pub(crate) fn keep_work(&self, key: &RoundKey, order: Order) -> Running {
        let stopped = Arc::new(AtomicBool::new(false));
        locked(&self.work).push(Work { key: key.clone(), order, stopped: stopped.clone() });
        Running::flagged(stopped)
    }

    pub(crate) fn keep_store(&self, store: Store) -> Store {
        *locked(&self.store) = Some(store.clone());
        store
    }

    pub(crate) fn keystream_slip(&self) -> u64 {
        if self.planted == Some(Planted::OtherKeystream) { 1 << 30 } else { 0 }
    }

    pub(crate) fn agrees_anew(&self, state: &State) -> bool {
        match self.planted {
            Some(Planted::SumAgreedAnew) => matches!(state, State::Agreed(_)),
            Some(Planted::RevealedAnew) => matches!(state, State::Revealed(_)),
            _ => false,
        }
    }

    pub(crate) fn skips_the_second_question(&self) -> bool {
        self.planted == Some(Planted::SkippedPermitCheck)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Work that the engine ordered and the simulation carries out.
pub struct Work {
    key: RoundKey,
    order: Order,
    stopped: Arc<AtomicBool>,
}

/// How work ended.
pub struct Ending(WorkEvent);

impl Ending {
    /// The worker found no room for its payload.
    pub fn disk_full() -> Self {
        Self(WorkEvent::Failed(Failure { local: "no space left on device".into(), outward: Outward::Engine }))
    }

    /// The worker was killed.
    pub fn crashed() -> Self {
        Self(WorkEvent::Crashed("it was killed".into()))
    }
}

impl Work {
    /// The round.
    pub fn round(&self) -> &RoundKey {
        &self.key
    }

    /// The round's header.
    pub fn header(&self) -> &RoundHeader {
        &self.order.circumstances.header
    }

    /// The run's plan.
    pub fn plan(&self) -> &Plan {
        &self.order.circumstances.plan
    }

    /// Whether the engine stopped it.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// What the worker process does, but for the rows: it mints a permit of its own, and makes the payload durable.
    /// `hold`: that of the site's process.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn carry_out(
        &self,
        hold: &Hold,
        now: Timestamp,
        kind: UploadKind,
        payload: &[u8],
    ) -> std::io::Result<Ending> {
        let permit = {
            let mut circumstances = self.order.circumstances.clone();
            circumstances.now = circumstances.now.max(now);
            self.order.approval.permit(&circumstances)
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(refusal) => return Ok(Ending(WorkEvent::Refused(refusal))),
        };
        hold.make_file("payload", &self.order.payload_path, payload).await?;
        let view = LocalView::Training(TrainingView {
            rows: 1,
            subjects: 1,
            loss_before: 1.0,
            loss_after: 1.0,
            one_class: false,
            largest_change: 0.0,
            clipped: 0,
            validation: None,
        });
        let (digest, bytes) = (Digest::of(payload), payload.len() as u64);
        let round = permit.round().clone();
        let (withheld, device) = (Default::default(), "cpu".into());
        let (alone, preview, attack) = (None, None, None);
        // As many steps with noise as the plan asks for.
        let released = match charge_of(self.plan(), &round.task) {
            Charge::Bounded(release) => Some(Released { steps: release.times() }),
            Charge::Unprotected => None,
        };
        let done = Done { round, kind, digest, bytes, withheld, released, view, alone, preview, attack, device };
        Ok(Ending(WorkEvent::Done(Box::new(done))))
    }
}

/// One site, driven by hand. Dropped, it is a process that was killed.
pub struct Site {
    engine: Engine,
    handle: Handle,
    hold: Arc<Hold>,
}

impl Site {
    /// Opens the site in the configured folder; its first transactions are done when this returns.
    ///
    /// # Errors
    /// Those of [`crate::open`].
    pub async fn open(config: Config, hold: Arc<Hold>) -> Result<Self, PartyError> {
        let lock = lock_site(&config)?;
        let (engine, events, notices) = Engine::open(config, lock, Seam::held(hold.clone()), &mut |_| {}).await?;
        Ok(Self { engine, handle: Handle::new(events, notices), hold })
    }

    /// Applies what a link says.
    pub async fn hear(&mut self, federation: FederationId, event: LinkEvent) {
        self.engine.take(Event::Link(federation, Box::new(event))).await;
    }

    /// Applies the end of work.
    pub async fn finish(&mut self, round: RoundKey, ending: Ending) {
        self.engine.take(Event::Work(round, ending.0)).await;
    }

    /// Applies that time passed.
    pub async fn tick(&mut self) {
        self.engine.take(Event::Tick).await;
    }

    /// Work that was ordered since this was asked last.
    pub fn ordered(&self) -> Vec<Work> {
        std::mem::take(&mut *locked(&self.hold.work))
    }

    /// Asks the engine through its handle, as people's programs do, and applies what is asked.
    pub async fn ask<T, F: Future<Output = T>>(&mut self, question: impl FnOnce(Handle) -> F) -> T {
        let mut answer = pin!(question(self.handle.clone()));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                Some(event) = self.engine.next_call() => self.engine.take(event).await,
            }
        }
    }

    /// Joins a federation as if its coordinator had answered.
    ///
    /// # Errors
    /// Those of [`Handle::enrol`].
    pub async fn join(
        &mut self,
        session: &Session,
        enrolled: Enrolled,
        organisation: &str,
        identity: SecretKey,
    ) -> Result<MembershipView, PartyError> {
        let (session, joined) = (session.clone(), Joined::by_hand(enrolled, organisation, identity));
        self.ask(|handle| async move { handle.ask(move |e| e.join(session, joined).boxed()).await }).await
    }
}
