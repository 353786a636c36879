//! The coordinator's own ledger: what it records, in the transaction of what it records.

use std::ops::Range;

use hospes_ledger::{Action, Actor, Engine, Entry, Ledger};
use hospes_protocol::id::Timestamp;

use crate::store::Tx;
use crate::{Error, SOFTWARE, random};

/// Writes ledger entries.
#[derive(Debug, Clone)]
pub struct Audit {
    engine: Engine,
}

impl Default for Audit {
    fn default() -> Self {
        Self { engine: Engine::new(SOFTWARE) }
    }
}

impl Audit {
    /// An entry of this program, a success with nothing else to say; fill in the other fields as needed.
    pub fn entry(&self, at: Timestamp, actor: Actor, action: Action) -> Entry {
        Entry::new(at, actor, action, self.engine.clone())
    }

    /// Appends entries; they are in the ledger when the transaction commits. If this fails, the transaction must not.
    ///
    /// # Errors
    /// [`Error::Ledger`] or [`Error::Random`].
    pub async fn record(&self, tx: &mut Tx, entries: &[Entry]) -> Result<Range<u64>, Error> {
        Ok(Ledger::on(tx.conn()).append_all(entries, &random()?).await?)
    }
}
