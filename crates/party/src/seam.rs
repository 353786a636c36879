//! Where the simulation takes hold of an engine: the moments of its transactions, and its work on data.
//!
//! Without the feature `simulation` a seam is empty and every question to it has one answer. With the feature it is as
//! empty, unless the engine was opened by [`crate::simulation`]: nothing that an operator, a peer or the environment
//! says fills it.

#[cfg(feature = "simulation")]
use std::sync::Arc;

use hospes_cohort::worker::Order;
use hospes_protocol::approval::ApprovalState;
use hospes_protocol::id::{ApprovalId, RoundKey};

use crate::error::PartyError;
use crate::rounds::worker::Running;

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
    /// A file has some of its bytes.
    #[cfg(feature = "simulation")]
    Written,
    /// It has all of them, durably, and not its name.
    #[cfg(feature = "simulation")]
    Durable,
    /// It has its name, and nobody has heard of it.
    #[cfg(feature = "simulation")]
    Named,
}

/// The seam of one engine.
#[derive(Clone, Default)]
pub(crate) struct Seam {
    #[cfg(feature = "simulation")]
    hold: Option<Arc<crate::simulation::Hold>>,
}

#[cfg(feature = "simulation")]
impl Seam {
    /// A seam that somebody holds.
    pub(crate) fn held(hold: Arc<crate::simulation::Hold>) -> Self {
        Self { hold: Some(hold) }
    }

    /// Whether another set of inputs takes the place of the one that was agreed to.
    pub(crate) fn agrees_anew(&self, state: &hospes_protocol::round::site::State) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.agrees_anew(state))
    }

    /// The engine's database in the same hands.
    pub(crate) fn take_store(&self, store: crate::store::Store) -> crate::store::Store {
        match &self.hold {
            Some(hold) => hold.keep_store(store.held(self.clone())),
            None => store,
        }
    }
}

impl Seam {
    /// A moment of a transaction has come. An error is that of a disk that is full.
    pub(crate) async fn meet(&self, step: &'static str, moment: Moment) -> Result<(), PartyError> {
        #[cfg(test)]
        crate::store::crash::point(step, moment);
        #[cfg(feature = "simulation")]
        if let Some(hold) = &self.hold {
            return hold.meet(step, moment).await;
        }
        let _ = (step, moment);
        Ok(())
    }

    /// Whether the engine may work beside its loop. The simulation goes by one event after the other.
    pub(crate) fn runs_in_background(&self) -> bool {
        #[cfg(feature = "simulation")]
        if self.hold.is_some() {
            return false;
        }
        true
    }

    /// Takes work on data off the engine's hands, or gives the order back.
    pub(crate) fn take_work(&self, key: &RoundKey, order: Order) -> Result<Running, Box<Order>> {
        #[cfg(feature = "simulation")]
        if let Some(hold) = &self.hold {
            return Ok(hold.keep_work(key, order));
        }
        let _ = key;
        Err(Box::new(order))
    }

    /// What this site's masks have besides: nothing.
    pub(crate) fn keystream_slip(&self) -> u64 {
        #[cfg(feature = "simulation")]
        if let Some(hold) = &self.hold {
            return hold.keystream_slip();
        }
        0
    }

    /// The state of the approval that a permit is asked of. `round`: the approval of a round that has a permit already.
    pub(crate) fn state_of(&self, round: Option<ApprovalId>, stored: ApprovalState) -> ApprovalState {
        #[cfg(feature = "simulation")]
        if self.hold.as_ref().is_some_and(|hold| hold.skips_the_second_question()) && round.is_some() {
            return ApprovalState::Active;
        }
        let _ = round;
        stored
    }
}
