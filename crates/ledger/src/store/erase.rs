//! Retention: deleting values and salts of fields, so that proofs still hold.

use super::Ledger;
use super::connection::Value;
use crate::leaf::{self, Field};
use crate::{LedgerError, limits};

/// What is erased under which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Entries whose order lies before this time, in milliseconds since 1970.
    pub before_ms: i64,
    /// Only entries of this actor ([`crate::Actor::id`]), where given.
    pub actor: Option<String>,
    /// Fields to erase.
    pub fields: Vec<Field>,
    /// Name of the rule: letters, digits, space and `.:_-`. Entries read *erased under rule X*.
    pub rule: String,
}

impl Ledger<'_> {
    /// Deletes values and salts of the fields of the entries that match, and returns how many entries changed. The
    /// caller records the erasure as an entry of its own (`audit_erased`) in the same transaction.
    ///
    /// Deleted values stay in free pages of the database file and in its log until these are overwritten; on SQLite
    /// the caller sets `secure_delete` and runs a checkpoint.
    ///
    /// # Errors
    /// [`LedgerError::Field`] if the rule's name has other characters, [`LedgerError::Database`],
    /// [`LedgerError::Damaged`].
    pub async fn erase(&mut self, erasure: &Erasure) -> Result<u64, LedgerError> {
        let (mut changed, mut from) = (0, Some(0));
        while let Some(start) = from {
            let (more, next) = self.erase_from(erasure, start, u64::from(limits::PAGE_ENTRIES)).await?;
            changed += more;
            from = next;
        }
        Ok(changed)
    }

    /// As [`Ledger::erase`], for at most `most` of the entries that match, from sequence `start` on. Returns how many
    /// changed, and where to go on; `None` if no more match now.
    ///
    /// # Errors
    /// As [`Ledger::erase`].
    pub async fn erase_from(
        &mut self,
        erasure: &Erasure,
        start: u64,
        most: u64,
    ) -> Result<(u64, Option<u64>), LedgerError> {
        if !leaf::rule_is_plain(&erasure.rule) {
            return Err(LedgerError::Field {
                field: "rule",
                reason: "may have letters, digits, space and .:_- only".into(),
            });
        }
        let rows = self.candidates(erasure, start, most).await?;
        let next = rows.last().map(|(sequence, _)| sequence + 1);
        let mut changed = 0;
        for (sequence, text) in rows {
            let erased = leaf::erase(&text, &erasure.fields, &erasure.rule)
                .map_err(|e| LedgerError::Damaged(format!("entry {sequence}: {e}")))?;
            if let Some(erased) = erased {
                self.put_erased(sequence, &erased, &erasure.fields).await?;
                changed += 1;
            }
        }
        Ok((changed, next))
    }

    async fn candidates(
        &mut self,
        erasure: &Erasure,
        start: u64,
        most: u64,
    ) -> Result<Vec<(u64, String)>, LedgerError> {
        let limit = Value::from(most);
        let rows = match &erasure.actor {
            Some(actor) => {
                self.connection
                    .rows(
                        "find entries to erase",
                        "SELECT sequence, fields FROM ledger_entry WHERE sequence >= $1 AND last_order < $2 \
                         AND actor = $3 ORDER BY sequence LIMIT $4",
                        &[start.into(), Value::Int(erasure.before_ms), actor.into(), limit],
                    )
                    .await?
            }
            None => {
                self.connection
                    .rows(
                        "find entries to erase",
                        "SELECT sequence, fields FROM ledger_entry WHERE sequence >= $1 AND last_order < $2 \
                         ORDER BY sequence LIMIT $3",
                        &[start.into(), Value::Int(erasure.before_ms), limit],
                    )
                    .await?
            }
        };
        rows.iter().map(|row| Ok((row.count(0)?, row.text(1)?))).collect()
    }

    /// Writes the erased form, and empties the columns that repeat an erased field.
    async fn put_erased(&mut self, sequence: u64, text: &str, fields: &[Field]) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "erase",
                "UPDATE ledger_entry SET fields = $1 WHERE sequence = $2",
                &[Value::Text(text), sequence.into()],
            )
            .await?;
        for field in fields {
            let sql = match field {
                Field::When => "UPDATE ledger_entry SET at_ms = NULL WHERE sequence = $1",
                Field::Actor => "UPDATE ledger_entry SET actor = NULL WHERE sequence = $1",
                Field::Action => "UPDATE ledger_entry SET action = NULL WHERE sequence = $1",
                Field::Outcome => "UPDATE ledger_entry SET outcome = NULL WHERE sequence = $1",
                Field::Purpose => {
                    "UPDATE ledger_entry SET study = NULL, job = NULL, approval = NULL WHERE sequence = $1"
                }
                Field::Objects => "DELETE FROM ledger_object WHERE sequence = $1",
                Field::OnBehalf | Field::Change | Field::Egress | Field::Reason | Field::Engine | Field::Answers => {
                    continue;
                }
            };
            self.connection.execute("erase", sql, &[sequence.into()]).await?;
        }
        Ok(())
    }
}
