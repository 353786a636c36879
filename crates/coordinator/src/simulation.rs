//! A coordinator that is driven by hand: one batch of events after the other, each applied whole before the next, and
//! work in the background only when it is asked for.
//!
//! The simulation of whole federations takes the place of what is not deterministic: of the loop that waits (time), of
//! the port (network), of the threads that sums are taken on, and of the moment at which a process dies or a disk is
//! full. Everything between is the schedule as it ships, on its real store.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use hospes_protocol::id::{RoundKey, SiteId};
use tokio::sync::Notify;

use crate::aggregate::staging::{FreeSpace, Staging};
use crate::models::Models;
pub use crate::schedule::by_hand::ByHand;
pub use crate::seam::Moment;
use crate::seam::Seam;
use crate::store::Store;
use crate::{Clock, Error};

/// What becomes of the process at a moment of a transaction or of a file.
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
    /// An input that is confirmed a second time, because its receipt was lost, is added a second time.
    DoubleCount,
    /// A restart forgets the inputs that were confirmed before it.
    LostAcknowledgement,
}

/// What decides the fate at each moment.
pub type Fates = Box<dyn Fn(&'static str, Moment) -> Fate + Send + Sync>;

/// The simulation's hold on one process of a coordinator.
pub struct Hold {
    fates: Fates,
    planted: Option<Planted>,
    background: Mutex<Vec<BoxFuture<'static, ()>>>,
    again: Mutex<BTreeSet<(RoundKey, SiteId)>>,
    died: Notify,
    /// Whether it died in work that blocks.
    is_dead: AtomicBool,
}

impl Hold {
    /// A hold with these fates.
    pub fn new(fates: Fates, planted: Option<Planted>) -> Arc<Self> {
        let (background, again) = (Mutex::default(), Mutex::default());
        Arc::new(Self { fates, planted, background, again, died: Notify::new(), is_dead: AtomicBool::new(false) })
    }

    /// Opens a database that is there already, in the hands of this hold.
    ///
    /// # Errors
    /// Those of [`Store::open_existing`].
    pub async fn open(self: &Arc<Self>, file: &Path) -> Result<Store, Error> {
        Ok(Store::open_existing(&Store::sqlite_url(file)).await?.held(Seam::held(self.clone())))
    }

    /// Uploads in the hands of this hold.
    ///
    /// # Errors
    /// Those of [`Staging::new`].
    pub fn staging(self: &Arc<Self>, root: PathBuf, free: FreeSpace, clock: Clock) -> Result<Staging, Error> {
        Staging::held(root, free, clock, Seam::held(self.clone()))
    }

    /// Models in the hands of this hold.
    ///
    /// # Errors
    /// Those of [`Models::open`].
    pub fn models(self: &Arc<Self>, root: PathBuf) -> Result<Models, Error> {
        Models::held(root, Seam::held(self.clone()))
    }

    /// Does `work` unless the process dies of it; then it is `None`, and the work is dropped where it stood.
    pub async fn live<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let done = tokio::select! {
            biased;
            () = self.died.notified() => None,
            done = work => Some(done),
        };
        // Work that blocks comes back with an error from the moment at which the process died; nobody hears it.
        done.filter(|_| !self.is_dead())
    }

    fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    pub(crate) async fn meet(&self, transaction: &'static str, moment: Moment) -> Result<(), Error> {
        match (self.fates)(transaction, moment) {
            Fate::Die => {
                self.died.notify_one();
                std::future::pending().await
            }
            Fate::DiskFull if moment != Moment::After => {
                let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
                Err(Error::database(transaction)(sqlx::Error::Io(full)))
            }
            Fate::DiskFull | Fate::GoOn => Ok(()),
        }
    }

    pub(crate) fn meet_file(&self, file: &'static str, moment: Moment) -> Result<(), Error> {
        // Whether there is room for a file is asked before it is begun.
        if (self.fates)(file, moment) != Fate::Die {
            return Ok(());
        }
        self.is_dead.store(true, Ordering::Relaxed);
        Err(Error::Stopping)
    }

    pub(crate) fn keep(&self, work: BoxFuture<'static, ()>) {
        locked(&self.background).push(work);
    }

    /// Does what was to be done in the background, one after the other.
    pub(crate) async fn work(&self) {
        loop {
            let work = std::mem::take(&mut *locked(&self.background));
            if work.is_empty() {
                return;
            }
            for work in work {
                work.await;
                if self.is_dead() {
                    return;
                }
            }
        }
    }

    pub(crate) fn confirmed_again(&self, round: &RoundKey, site: SiteId) {
        if self.planted == Some(Planted::DoubleCount) {
            locked(&self.again).insert((round.clone(), site));
        }
    }

    pub(crate) fn again(&self, round: &RoundKey) -> Vec<SiteId> {
        locked(&self.again).iter().filter(|(again, _)| again == round).map(|(_, site)| *site).collect()
    }

    pub(crate) fn forgets_inputs(&self) -> bool {
        self.planted == Some(Planted::LostAcknowledgement)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
