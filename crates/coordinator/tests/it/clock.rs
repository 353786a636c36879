//! A clock that tests can turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hospes_coordinator::{Clock, system_clock};

/// The machine's clock, moved by so many milliseconds.
#[derive(Clone, Default)]
pub struct Turned(Arc<AtomicI64>);

impl Turned {
    pub fn by(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let (system, moved) = (system_clock(), self.0.clone());
        Arc::new(move || system().plus_millis(moved.load(Ordering::SeqCst)))
    }
}
