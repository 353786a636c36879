//! One connection to the engine, with whoever is logged in on it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hospes_party::view::Notice;
use hospes_party::{Handle, Session};
use serde_json::Value;
use tokio::sync::broadcast;

use crate::fault::{Fault, FaultCode};
use crate::table::Call;

/// A connection: it holds the session, so that no token of it ever leaves this process.
pub struct Router {
    handle: Handle,
    session: Mutex<Option<Session>>,
}

/// What a command is carried out on: the engine, and who is logged in on the connection it came by.
pub(crate) struct Asked<'a> {
    pub(crate) engine: &'a Handle,
    session: &'a Mutex<Option<Session>>,
    looks_on: bool,
}

impl Router {
    /// A new connection; nobody is logged in on it.
    pub fn new(handle: Handle) -> Self {
        Self { handle, session: Mutex::new(None) }
    }

    /// Runs one command, given as `{"command": …, "args": …}`. Several may run at a time.
    ///
    /// # Errors
    /// The [`Fault`] to be shown.
    pub async fn call(&self, request: Value) -> Result<Value, Fault> {
        self.carry_out(Call::read(request)?).await
    }

    /// Runs one command that was read already.
    pub(crate) async fn carry_out(&self, call: Call) -> Result<Value, Fault> {
        // A screen that is kept up to date is nobody at work: the session may end meanwhile.
        let looks_on = !call.info().reads.is_empty();
        Box::pin(call.ask(&self.asked(looks_on))).await
    }

    /// Refuses where nobody is logged in on this connection, or the session has ended.
    pub(crate) async fn require_person(&self) -> Result<(), Fault> {
        let person = self.asked(true).person()?;
        self.handle.whoami(&person).await?;
        Ok(())
    }

    /// Whether somebody logged in on this connection; the session may have ended.
    pub(crate) fn is_entered(&self) -> bool {
        lock(&self.session).is_some()
    }

    fn asked(&self, looks_on: bool) -> Asked<'_> {
        Asked { engine: &self.handle, session: &self.session, looks_on }
    }

    /// Logs out whoever is logged in; a connection that ends leaves no session behind.
    pub async fn close(&self) {
        let session = lock(&self.session).take();
        if let Some(session) = session {
            // An engine that has ended keeps no sessions.
            let _ = self.handle.log_out(&session).await;
        }
    }

    /// What changes, as it changes.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.handle.notices()
    }

    /// The engine behind the connection.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Asked<'_> {
    /// The person who is logged in on this connection.
    pub(crate) fn person(&self) -> Result<Session, Fault> {
        let session = lock(self.session).clone();
        let mut session = session.ok_or_else(|| Fault::from(hospes_party::PartyError::NoSession))?;
        session.looks_on(self.looks_on);
        Ok(session)
    }

    /// Takes the place of whoever was logged in; who that was.
    pub(crate) fn enter(&self, session: Option<Session>) -> Option<Session> {
        std::mem::replace(&mut *lock(self.session), session)
    }
}

fn lock(session: &Mutex<Option<Session>>) -> MutexGuard<'_, Option<Session>> {
    // Nothing that could be half done happens while it is held.
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a command. The fault tells only the kind of what is wrong: the rest may hold a passphrase.
pub(crate) fn read<T: serde::de::DeserializeOwned>(request: Value) -> Result<T, Fault> {
    serde_json::from_value(request)
        .map_err(|e| Fault::new(FaultCode::Command, format!("the command cannot be read ({:?})", e.classify())))
}
