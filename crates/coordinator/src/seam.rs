//! Where the simulation takes hold of a coordinator: the moments of its transactions and of its files, and its work in the
//! background.
//!
//! Without the feature `simulation` a seam is empty and every question to it has one answer. With the feature it is as
//! empty, unless store, uploads and models were opened by [`crate::simulation`]: nothing that an operator, a site or the
//! environment says fills it.

use std::collections::BTreeMap;
use std::future::Future;
#[cfg(feature = "simulation")]
use std::sync::Arc;

use hospes_protocol::id::{Digest, RoundKey, SiteId};

use crate::Error;

/// When, relative to a transaction or to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(unreachable_pub, reason = "the simulation shows it, where there is one")]
pub enum Moment {
    /// Before it begins.
    Before,
    /// After its last statement, before it is committed.
    During,
    /// After it is durable.
    After,
    /// A file has bytes that are not durable yet.
    Written,
    /// It has all of them, durably, and not its name.
    Durable,
    /// It has its name, and nobody has heard of it.
    Named,
}

/// The seam of one store and of the schedule on it.
#[derive(Clone, Default)]
pub(crate) struct Seam {
    #[cfg(feature = "simulation")]
    hold: Option<Arc<crate::simulation::Hold>>,
}

impl std::fmt::Debug for Seam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seam")
    }
}

#[cfg(feature = "simulation")]
impl Seam {
    /// A seam that somebody holds.
    pub(crate) fn held(hold: Arc<crate::simulation::Hold>) -> Self {
        Self { hold: Some(hold) }
    }
}

impl Seam {
    /// A moment of a transaction has come. An error is that of a disk that is full.
    pub(crate) async fn meet(&self, transaction: &'static str, moment: Moment) -> Result<(), Error> {
        #[cfg(feature = "simulation")]
        if let Some(hold) = &self.hold {
            return hold.meet(transaction, moment).await;
        }
        let _ = (transaction, moment);
        Ok(())
    }

    /// A moment of a file has come, in work that blocks. An error ends the work: the process dies there.
    pub(crate) fn meet_file(&self, file: &'static str, moment: Moment) -> Result<(), Error> {
        #[cfg(feature = "simulation")]
        if let Some(hold) = &self.hold {
            return hold.meet_file(file, moment);
        }
        let _ = (file, moment);
        Ok(())
    }

    /// Starts work in the background.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        #[cfg(feature = "simulation")]
        if let Some(hold) = &self.hold {
            return hold.keep(Box::pin(work));
        }
        tokio::spawn(work);
    }

    /// A site's input was confirmed that had been confirmed before.
    pub(crate) fn confirmed_again(&self, round: &RoundKey, site: SiteId) {
        #[cfg(feature = "simulation")]
        if let Some(hold) = &self.hold {
            hold.confirmed_again(round, site);
        }
        let _ = (round, site);
    }

    /// Sites whose inputs are added to a sum once more: none.
    pub(crate) fn again(&self, round: &RoundKey) -> Vec<SiteId> {
        #[cfg(feature = "simulation")]
        if let Some(hold) = &self.hold {
            return hold.again(round);
        }
        let _ = round;
        Vec::new()
    }

    /// What a restart makes of the inputs that were confirmed before it: it remembers all.
    pub(crate) fn remembered(&self, inputs: BTreeMap<SiteId, Digest>) -> BTreeMap<SiteId, Digest> {
        #[cfg(feature = "simulation")]
        if self.hold.as_ref().is_some_and(|hold| hold.forgets_inputs()) {
            return BTreeMap::new();
        }
        inputs
    }
}
