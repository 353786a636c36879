//! How far the reading of a source is, told to whoever waits for it, and their way to end it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::CohortError;

/// A reading that somebody follows. Clones follow the same one.
#[derive(Debug, Clone, Default)]
pub struct Reading(Arc<State>);

#[derive(Debug, Default)]
struct State {
    rows: AtomicU64,
    /// In all; 0 where nobody has counted them yet.
    all: AtomicU64,
    is_ended: AtomicBool,
}

/// Who follows a reading changes nothing about how it is read.
impl PartialEq for Reading {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Reading {}

impl Reading {
    /// Rows that were read so far, in this pass.
    pub fn rows(&self) -> u64 {
        self.0.rows.load(Ordering::Relaxed)
    }

    /// Rows in all, where an earlier pass has counted them.
    pub fn all(&self) -> Option<u64> {
        Some(self.0.all.load(Ordering::Relaxed)).filter(|all| *all > 0)
    }

    /// Ends it: the next row is the last, and the reading fails with [`CohortError::Cancelled`].
    pub fn end(&self) {
        self.0.is_ended.store(true, Ordering::Relaxed);
    }

    /// Whether nobody else has it any more, who could go on reading.
    pub fn is_over(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// A pass over the rows begins, which an earlier one may have counted.
    pub(crate) fn begins(&self, all: u64) {
        self.0.rows.store(0, Ordering::Relaxed);
        self.0.all.store(all, Ordering::Relaxed);
    }

    /// So many rows were read in this pass.
    pub(crate) fn passes(&self, rows: u64) -> Result<(), CohortError> {
        self.0.rows.store(rows, Ordering::Relaxed);
        self.goes_on()
    }

    /// Fails where it was ended.
    pub(crate) fn goes_on(&self) -> Result<(), CohortError> {
        if self.0.is_ended.load(Ordering::Relaxed) { Err(CohortError::Cancelled) } else { Ok(()) }
    }
}
