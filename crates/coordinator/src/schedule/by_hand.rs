//! The schedule without its loop: whoever drives it says when events are applied, when work in the background is done
//! and its results are heard, and when the state is loaded again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::driver::Driver;
use super::work::Finished;
use super::{Context, Event};
use crate::Error;
use crate::simulation::Hold;

/// A schedule that is driven by hand. Dropped, it is a process that was killed.
pub struct ByHand {
    driver: Driver,
    hold: Arc<Hold>,
    results: mpsc::UnboundedReceiver<Finished>,
    finished: VecDeque<Finished>,
}

impl ByHand {
    /// Loads what the store holds. The context's store must be one of this hold.
    ///
    /// # Errors
    /// Those of [`run`](super::run).
    pub async fn load(context: Context, hold: Arc<Hold>) -> Result<Self, Error> {
        let (finished, results) = mpsc::unbounded_channel();
        let mut driver = Driver::new(context, finished);
        driver.load(true).await?;
        Ok(Self { driver, hold, results, finished: VecDeque::new() })
    }

    /// Applies a batch of events, and the time. While a step has failed and the state was not loaded again, events are put
    /// off, as the loop does.
    pub async fn apply(&mut self, events: Vec<Event>) {
        if self.driver.failed {
            events.into_iter().for_each(|event| self.driver.put_off(event));
        } else {
            self.driver.step(events, None).await;
        }
    }

    /// Does what was to be done in the background; its results wait to be heard.
    pub async fn work(&mut self) {
        self.hold.work().await;
        while let Ok(finished) = self.results.try_recv() {
            self.finished.push_back(finished);
        }
    }

    /// Results that wait to be heard.
    pub fn results(&self) -> usize {
        self.finished.len()
    }

    /// Hears the oldest result that waits.
    pub async fn hear_result(&mut self) {
        if self.driver.failed {
            return;
        }
        if let Some(finished) = self.finished.pop_front() {
            self.driver.step(Vec::new(), Some(finished)).await;
        }
    }

    /// Whether a step failed, so that the state must be loaded again.
    pub fn has_failed(&self) -> bool {
        self.driver.failed
    }

    /// Tries to load the state again, as the loop does after a failure.
    pub async fn recover(&mut self) {
        match Box::pin(self.driver.load(false)).await {
            Ok(()) => self.driver.hear().await,
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "the state cannot be loaded"),
        }
    }

    /// Whether no job runs.
    pub fn is_idle(&self) -> bool {
        self.driver.jobs.is_empty() && !self.driver.failed
    }

    /// How long nothing is due.
    pub fn sleep(&self) -> Duration {
        self.driver.sleep()
    }
}
