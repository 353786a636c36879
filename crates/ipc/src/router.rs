//! One connection to the engine, with whoever is logged in on it.

use hospes_party::view::Notice;
use hospes_party::{Handle, Session};
use serde_json::Value;
use tokio::sync::broadcast;

use crate::fault::Fault;
use crate::table::Call;

/// A connection: it holds the session, so that no token of it ever leaves this process.
pub struct Router {
    handle: Handle,
    session: Option<Session>,
}

impl Router {
    /// A new connection; nobody is logged in on it.
    pub fn new(handle: Handle) -> Self {
        Self { handle, session: None }
    }

    /// Runs one command, given as `{"command": …, "args": …}`.
    ///
    /// # Errors
    /// The [`Fault`] to be shown.
    pub async fn call(&mut self, request: Value) -> Result<Value, Fault> {
        Call::read(request)?.ask(&self.handle, &mut self.session).await
    }

    /// Logs out whoever is logged in; a connection that ends leaves no session behind.
    pub async fn close(&mut self) {
        if let Some(session) = self.session.take() {
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
