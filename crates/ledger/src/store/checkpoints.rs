//! Checkpoints and cosignatures, outside the tree: witnessing must not feed itself.

use hospes_protocol::id::{SiteId, Timestamp};
use hospes_protocol::message::Witness;
use hospes_protocol::sign::{PublicKey, SecretKey};

use super::Ledger;
use super::connection::{Row, Value};
use crate::LedgerError;
use crate::note::{Checkpoint, Cosignature, SignedCheckpoint};
use crate::witness::Seen;

/// A peer's checkpoint that this party accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCheckpoint {
    /// The note, with this party's cosignature.
    pub note: String,
    /// What it says.
    pub seen: Seen,
    /// When it was accepted, by this party's clock.
    pub at: Timestamp,
}

/// A cosignature as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCosignature {
    /// Who.
    pub witness: SiteId,
    /// Their key.
    pub key: PublicKey,
    /// When, by the witness's clock.
    pub at: Timestamp,
    /// Signature line.
    pub line: String,
}

/// Evidence against a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// Ledger that contradicts itself.
    pub origin: SiteId,
    /// Who found it.
    pub witness: SiteId,
    /// When, by this party's clock.
    pub at: Timestamp,
    /// What was found.
    pub detail: String,
    /// The note that contradicts what was seen before; empty if a peer only reported it.
    pub note: String,
}

impl Ledger<'_> {
    /// Signs the ledger's present state as the origin that `key` stands for, and keeps the checkpoint. A site has one
    /// key for each federation and so several origins for one ledger.
    ///
    /// # Errors
    /// [`LedgerError::Database`], [`LedgerError::Damaged`].
    pub async fn checkpoint(&mut self, key: &SecretKey, now: Timestamp) -> Result<SignedCheckpoint, LedgerError> {
        let signed = self.sign_head(key).await?;
        let checkpoint = *signed.checkpoint();
        self.connection
            .execute(
                "keep a checkpoint",
                "INSERT INTO ledger_checkpoint (origin, size, key, at_ms, note) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (origin, size) DO NOTHING",
                &[
                    Value::Text(&checkpoint.origin.to_string()),
                    checkpoint.size.into(),
                    Value::Text(&key.public().to_string()),
                    Value::Int(now.as_millis()),
                    Value::Text(&signed.note()),
                ],
            )
            .await?;
        Ok(signed)
    }

    /// Signs the present state without keeping it.
    pub(crate) async fn sign_head(&mut self, key: &SecretKey) -> Result<SignedCheckpoint, LedgerError> {
        let size = self.size().await?;
        let root = self.edge(size).await?.root();
        Ok(Checkpoint { origin: key.public().site_id(), size, root }.sign(key))
    }

    /// The message that shows this ledger's checkpoint to a peer that saw `old_size` entries of it last.
    ///
    /// # Errors
    /// As [`Ledger::checkpoint`], and [`LedgerError::OutOfRange`] if the peer saw more entries than there are: this
    /// ledger has then lost its tail, which is an alarm.
    pub async fn show(&mut self, key: &SecretKey, old_size: u64, now: Timestamp) -> Result<Witness, LedgerError> {
        let signed = self.checkpoint(key, now).await?;
        let Checkpoint { origin, size, .. } = *signed.checkpoint();
        let proof = self.prove_consistency(old_size, size).await?;
        Ok(Witness::Show { origin, checkpoint: signed.note(), old_size, proof })
    }

    /// The last size of this party's ledger, as `origin`, that `witness` cosigned; 0 if none.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn cosigned_size(&mut self, origin: SiteId, witness: SiteId) -> Result<u64, LedgerError> {
        let row = self
            .connection
            .row(
                "read cosignatures",
                "SELECT size FROM ledger_cosignature WHERE origin = $1 AND witness = $2 ORDER BY size DESC LIMIT 1",
                &[Value::Text(&origin.to_string()), Value::Text(&witness.to_string())],
            )
            .await?;
        row.map_or(Ok(0), |row| row.count(0))
    }

    /// The largest checkpoint of this ledger that was kept under `origin`, with all cosignatures.
    ///
    /// # Errors
    /// [`LedgerError::Database`], [`LedgerError::Note`] if what was kept is no note.
    pub async fn own_checkpoint(&mut self, origin: SiteId) -> Result<Option<SignedCheckpoint>, LedgerError> {
        let row = self
            .connection
            .row(
                "read a checkpoint",
                "SELECT note, key FROM ledger_checkpoint WHERE origin = $1 ORDER BY size DESC LIMIT 1",
                &[Value::Text(&origin.to_string())],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let mut signed = SignedCheckpoint::parse(&row.text(0)?, &key_of(&row.text(1)?)?)?;
        self.add_cosignatures(&mut signed).await?;
        Ok(Some(signed))
    }

    /// The largest checkpoint of a peer that this party accepted.
    ///
    /// # Errors
    /// [`LedgerError::Database`], [`LedgerError::Note`] if what was kept is no note.
    pub async fn peer(&mut self, origin: SiteId) -> Result<Option<PeerCheckpoint>, LedgerError> {
        let row = self
            .connection
            .row(
                "read a peer's checkpoint",
                "SELECT note, at_ms FROM ledger_peer WHERE origin = $1 ORDER BY size DESC LIMIT 1",
                &[Value::Text(&origin.to_string())],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let note = row.text(0)?;
        let seen = Seen::from(SignedCheckpoint::read(&note)?.checkpoint());
        Ok(Some(PeerCheckpoint { note, seen, at: Timestamp::from_millis(row.int(1)?) }))
    }

    /// Keeps a peer's checkpoint as seen. Only [`crate::Verdict::Cosigned`] gives one to keep.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn put_peer(
        &mut self,
        signed: &SignedCheckpoint,
        origin: &PublicKey,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let checkpoint = signed.checkpoint();
        self.connection
            .execute(
                "keep a peer's checkpoint",
                "INSERT INTO ledger_peer (origin, size, key, at_ms, note) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (origin, size) DO UPDATE SET at_ms = excluded.at_ms, note = excluded.note",
                &[
                    Value::Text(&checkpoint.origin.to_string()),
                    checkpoint.size.into(),
                    Value::Text(&origin.to_string()),
                    Value::Int(now.as_millis()),
                    Value::Text(&signed.note()),
                ],
            )
            .await
            .map(drop)
    }

    /// How many checkpoints of a peer are kept.
    ///
    /// # Errors
    /// [`LedgerError::Database`], [`LedgerError::Damaged`].
    pub async fn peer_checkpoints(&mut self, origin: SiteId) -> Result<u64, LedgerError> {
        let sql = "SELECT COUNT(*) FROM ledger_peer WHERE origin = $1";
        let row = self.connection.row("count a peer's checkpoints", sql, &[Value::Text(&origin.to_string())]).await?;
        row.map_or(Ok(0), |row| row.count(0))
    }

    /// Forgets checkpoints of a peer, and their cosignatures, but for the `newest` ones, the first one, which an entry
    /// names, and of each contradiction the one that it contradicts. Only the newest one is needed to go on
    /// ([`Ledger::peer`]).
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn prune_peer(&mut self, origin: SiteId, newest: u64) -> Result<(), LedgerError> {
        let origin = origin.to_string();
        // What was seen when something contradicted it is the last one until then, or, where it was shown again since, the
        // first one after it.
        self.connection
            .execute(
                "forget a peer's checkpoints",
                "DELETE FROM ledger_peer WHERE origin = $1 \
                 AND size NOT IN (SELECT n.size FROM ledger_peer n WHERE n.origin = $1 ORDER BY n.size DESC LIMIT $2) \
                 AND size <> (SELECT MIN(f.size) FROM ledger_peer f WHERE f.origin = $1) \
                 AND size NOT IN (SELECT MAX(b.size) FROM ledger_contradiction c JOIN ledger_peer b \
                 ON b.origin = c.origin AND b.at_ms <= c.at_ms WHERE c.origin = $1 GROUP BY c.at_ms) \
                 AND size NOT IN (SELECT MIN(a.size) FROM ledger_contradiction c JOIN ledger_peer a \
                 ON a.origin = c.origin AND a.at_ms >= c.at_ms WHERE c.origin = $1 GROUP BY c.at_ms)",
                &[Value::Text(&origin), newest.into()],
            )
            .await?;
        self.drop_cosignatures(&origin).await
    }

    /// Forgets all checkpoints of a peer, and their cosignatures. What contradicts them is kept.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn forget_peer(&mut self, origin: SiteId) -> Result<(), LedgerError> {
        let origin = origin.to_string();
        self.connection
            .execute("forget a peer", "DELETE FROM ledger_peer WHERE origin = $1", &[Value::Text(&origin)])
            .await?;
        self.drop_cosignatures(&origin).await
    }

    /// The peers of which this party accepted a checkpoint, the one seen last first.
    ///
    /// # Errors
    /// [`LedgerError::Database`], [`LedgerError::Damaged`].
    pub async fn peers(&mut self) -> Result<Vec<SiteId>, LedgerError> {
        let rows = self
            .connection
            .rows("read peers", "SELECT origin FROM ledger_peer GROUP BY origin ORDER BY MAX(at_ms) DESC, origin", &[])
            .await?;
        rows.iter().map(|row| site_of(&row.text(0)?)).collect()
    }

    /// Drops the cosignatures of checkpoints that are kept no more.
    async fn drop_cosignatures(&mut self, origin: &str) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "forget cosignatures",
                "DELETE FROM ledger_cosignature WHERE origin = $1 \
                 AND size NOT IN (SELECT p.size FROM ledger_peer p WHERE p.origin = $1) \
                 AND size NOT IN (SELECT o.size FROM ledger_checkpoint o WHERE o.origin = $1)",
                &[Value::Text(origin)],
            )
            .await
            .map(drop)
    }

    /// Keeps a cosignature of a checkpoint, of this party's or of a peer's ledger. It must have been verified
    /// ([`Cosignature::verify`]); a later one by the same witness is not kept, so that the
    /// earliest moment stands.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn put_cosignature(
        &mut self,
        checkpoint: &Checkpoint,
        cosignature: &Cosignature,
    ) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "keep a cosignature",
                "INSERT INTO ledger_cosignature (origin, size, witness, key, at_ms, line) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (origin, size, witness) DO NOTHING",
                &[
                    Value::Text(&checkpoint.origin.to_string()),
                    checkpoint.size.into(),
                    Value::Text(&cosignature.witness.to_string()),
                    Value::Text(&cosignature.key.to_string()),
                    Value::Int(cosignature.at().as_millis()),
                    Value::Text(&cosignature.line()),
                ],
            )
            .await
            .map(drop)
    }

    /// Verifies the cosignature that a witness sent for this party's own ledger against the checkpoint kept under that
    /// origin and size, and keeps it. `false` if there is no such checkpoint.
    ///
    /// # Errors
    /// [`LedgerError::Note`] if it does not hold, [`LedgerError::Database`].
    pub async fn accept_cosignature(
        &mut self,
        origin: SiteId,
        size: u64,
        line: &str,
        witness: &PublicKey,
    ) -> Result<bool, LedgerError> {
        let row = self
            .connection
            .row(
                "read a checkpoint",
                "SELECT note FROM ledger_checkpoint WHERE origin = $1 AND size = $2",
                &[Value::Text(&origin.to_string()), size.into()],
            )
            .await?;
        let Some(row) = row else { return Ok(false) };
        let checkpoint = *SignedCheckpoint::read(&row.text(0)?)?.checkpoint();
        let cosignature = Cosignature::verify(line, &checkpoint, witness)?;
        self.put_cosignature(&checkpoint, &cosignature).await?;
        Ok(true)
    }

    /// Cosignatures of the checkpoint of `size` entries of ledger `origin`.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn cosignatures(&mut self, origin: SiteId, size: u64) -> Result<Vec<StoredCosignature>, LedgerError> {
        let rows = self
            .connection
            .rows(
                "read cosignatures",
                "SELECT witness, key, at_ms, line FROM ledger_cosignature WHERE origin = $1 AND size = $2 \
                 ORDER BY witness",
                &[Value::Text(&origin.to_string()), size.into()],
            )
            .await?;
        rows.iter().map(stored_cosignature).collect()
    }

    /// Keeps evidence against a ledger, whoever found it.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn put_contradiction(&mut self, found: &Contradiction) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "keep a contradiction",
                "INSERT INTO ledger_contradiction (origin, witness, at_ms, detail, note) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (origin, witness, at_ms) DO NOTHING",
                &[
                    Value::Text(&found.origin.to_string()),
                    Value::Text(&found.witness.to_string()),
                    Value::Int(found.at.as_millis()),
                    Value::Text(&found.detail),
                    Value::Text(&found.note),
                ],
            )
            .await
            .map(drop)
    }

    /// All contradictions found so far, oldest first; each is an alarm.
    ///
    /// # Errors
    /// [`LedgerError::Database`], [`LedgerError::Damaged`].
    pub async fn contradictions(&mut self) -> Result<Vec<Contradiction>, LedgerError> {
        let rows = self
            .connection
            .rows(
                "read contradictions",
                "SELECT origin, witness, at_ms, detail, note FROM ledger_contradiction ORDER BY at_ms, origin, witness",
                &[],
            )
            .await?;
        let read = |row: &Row| {
            Ok(Contradiction {
                origin: site_of(&row.text(0)?)?,
                witness: site_of(&row.text(1)?)?,
                at: Timestamp::from_millis(row.int(2)?),
                detail: row.text(3)?,
                note: row.text(4)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Refuses a ledger that is shorter than it was when a checkpoint of it was signed.
    pub(crate) async fn check_tail(&mut self) -> Result<(), LedgerError> {
        let sql = "SELECT size, at_ms FROM ledger_checkpoint ORDER BY size DESC LIMIT 1";
        let Some(row) = self.connection.row("read checkpoints", sql, &[]).await? else { return Ok(()) };
        let (signed, at) = (row.count(0)?, Timestamp::from_millis(row.int(1)?));
        // Read after the checkpoint: a ledger that somebody appends to meanwhile only grows.
        let size = self.size().await?;
        if signed <= size {
            return Ok(());
        }
        Err(LedgerError::Damaged(format!(
            "it has {size} entries, and {signed} were signed at {at}: its tail was cut off, or an old copy was restored"
        )))
    }

    /// Checkpoints of this ledger as `origin`, of `from` to `until` entries (both included), that were cosigned by
    /// anybody, in order of their sizes, each with its key and the keys of its witnesses.
    pub(crate) async fn cosigned_checkpoints(
        &mut self,
        origin: SiteId,
        from: u64,
        until: u64,
    ) -> Result<Vec<(SignedCheckpoint, PublicKey, Vec<PublicKey>)>, LedgerError> {
        let rows = self
            .connection
            .rows(
                "read checkpoints",
                "SELECT note, key FROM ledger_checkpoint c WHERE origin = $1 AND size >= $2 AND size <= $3 AND EXISTS \
                 (SELECT 1 FROM ledger_cosignature s WHERE s.origin = c.origin AND s.size = c.size) ORDER BY size",
                &[Value::Text(&origin.to_string()), from.into(), until.into()],
            )
            .await?;
        let mut list = Vec::with_capacity(rows.len());
        for row in &rows {
            let key = key_of(&row.text(1)?)?;
            let mut signed = SignedCheckpoint::parse(&row.text(0)?, &key)?;
            let witnesses = self.add_cosignatures(&mut signed).await?;
            list.push((signed, key, witnesses));
        }
        Ok(list)
    }

    async fn add_cosignatures(&mut self, signed: &mut SignedCheckpoint) -> Result<Vec<PublicKey>, LedgerError> {
        let checkpoint = *signed.checkpoint();
        let mut keys = Vec::new();
        for stored in self.cosignatures(checkpoint.origin, checkpoint.size).await? {
            signed.add(&Cosignature::verify(&stored.line, &checkpoint, &stored.key)?);
            keys.push(stored.key);
        }
        Ok(keys)
    }
}

fn stored_cosignature(row: &Row) -> Result<StoredCosignature, LedgerError> {
    Ok(StoredCosignature {
        witness: site_of(&row.text(0)?)?,
        key: key_of(&row.text(1)?)?,
        at: Timestamp::from_millis(row.int(2)?),
        line: row.text(3)?,
    })
}

fn site_of(text: &str) -> Result<SiteId, LedgerError> {
    text.parse().map_err(|_| LedgerError::Damaged("a site id is none".into()))
}

fn key_of(text: &str) -> Result<PublicKey, LedgerError> {
    text.parse().map_err(|_| LedgerError::Damaged("a public key is none".into()))
}
