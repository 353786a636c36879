//! Readings of files and queries that people wait for: how far each is, and its end.

use futures::FutureExt as _;
use hospes_cohort::CohortError;
use hospes_cohort::source::Reading;
use hospes_protocol::id::PersonId;

use super::STEWARD;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::Handle;
use crate::people::Session;
use crate::view::ReadingView;

/// Readings that were begun, and who waits for each.
#[derive(Debug, Default)]
pub(crate) struct Readings(Vec<(PersonId, Reading)>);

impl Readings {
    /// Follows a new one.
    pub(super) fn begin(&mut self, person: PersonId) -> Reading {
        self.forget_those_over();
        let reading = Reading::default();
        self.0.push((person, reading.clone()));
        reading
    }

    fn forget_those_over(&mut self) {
        self.0.retain(|(_, reading)| !reading.is_over());
    }

    /// Those of one person, the newest last.
    fn of(&mut self, person: PersonId) -> impl DoubleEndedIterator<Item = &Reading> {
        self.forget_those_over();
        self.0.iter().filter(move |(whose, _)| *whose == person).map(|(_, reading)| reading)
    }
}

/// A reading that its person ended is no failure of the file.
pub(super) fn unread(error: CohortError) -> PartyError {
    match error {
        CohortError::Cancelled => PartyError::ReadingStopped,
        other => other.into(),
    }
}

impl Engine {
    async fn reading(&mut self, session: Session) -> Result<Option<ReadingView>, PartyError> {
        let acting = self.acting(&session, "look into a file of data", STEWARD).await?;
        let newest = self.readings.of(acting.person).next_back();
        Ok(newest.map(|reading| ReadingView { rows: reading.rows(), all: reading.all() }))
    }

    async fn stop_reading(&mut self, session: Session) -> Result<(), PartyError> {
        let acting = self.acting(&session, "look into a file of data", STEWARD).await?;
        self.readings.of(acting.person).for_each(Reading::end);
        Ok(())
    }
}

impl Handle {
    /// How far the file or the query is read that this person asked for last; `None` where nothing is being read for them
    /// (data steward).
    ///
    /// # Errors
    /// [`PartyError::Denied`].
    pub async fn reading(&self, session: &Session) -> Result<Option<ReadingView>, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.reading(s).boxed()).await
    }

    /// Ends all readings that this person asked for, which then fail with [`PartyError::ReadingStopped`] (data steward).
    ///
    /// # Errors
    /// [`PartyError::Denied`].
    pub async fn stop_reading(&self, session: &Session) -> Result<(), PartyError> {
        let s = session.clone();
        self.ask(move |e| e.stop_reading(s).boxed()).await
    }
}
