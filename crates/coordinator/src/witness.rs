//! Witnessing: the coordinator shows its ledger to every member, watches theirs, and carries members' checkpoints and
//! cosignatures from one to another, which it cannot forge.
//!
//! Checkpoints and cosignatures lie outside the ledger's tree. Entries are made only for a member's first checkpoint,
//! for a contradiction, and for a deadline that was missed.

use std::collections::{BTreeMap, BTreeSet};

use hospes_ledger::witness::{INTERVAL_MS, UNSETTLED_ALARM_MS, Verdict, Witnessing, needed};
use hospes_ledger::{
    Action, Actor, Contradiction, Ledger, LedgerError, ObjectKind, Settlement, SignedCheckpoint, settled,
};
use hospes_protocol::id::{FederationId, SiteId, Timestamp};
use hospes_protocol::message::{ToSite, Witness};
use hospes_protocol::sign::PublicKey;
use hospes_protocol::text;

use crate::Error;
use crate::schedule::{Context, Sessions, Step};
use crate::store::{SiteState, Store, Tx, integer};

/// Members to which one checkpoint of a member is relayed.
pub const RELAYED_TO: usize = 64;
/// Relays a second, of all ledgers together: with more members, each ledger's turn comes less often.
const RELAYS_A_SECOND: usize = 500;
/// How long cosignatures may wait for a transaction to go along with, in milliseconds.
const WAIT_MS: i64 = 1_000;
/// Cosignatures that may wait at the same time.
const WAITING: usize = 10_000;
/// Time over which questions for proofs are counted, in milliseconds; one that was not answered by then is forgotten.
const QUESTIONS_MS: i64 = 60 * 1_000;
/// Questions for proofs of one member, in that time; as many ledgers as are relayed to it, twice.
const ASKED_BY: u32 = 128;
/// Cosignatures of one member that are carried to others, in that time.
const COSIGNED: u32 = 256;
/// Questions that are carried to one member, in that time.
const ASKED_OF: u32 = 8;
/// Characters of a detail that comes from a member.
const DETAIL_CHARS: usize = 300;
/// Checkpoints that are looked at for the last one that is settled.
const CHECKPOINTS: i64 = 1_000;

/// What the schedule remembers of witnessing between steps.
pub(crate) struct Witnesses {
    federation: FederationId,
    /// When the ledger's state was signed last.
    signed: Timestamp,
    /// Cosignatures of this ledger that are not stored yet.
    waiting: Vec<Waiting>,
    since: Option<Timestamp>,
    /// When each member showed its ledger last, or connected.
    shown: BTreeMap<SiteId, Timestamp>,
    /// Members whose delay is in the ledger already.
    late: BTreeSet<SiteId>,
    /// Members that asked for a proof of another's ledger from this size, since when.
    asked: BTreeMap<(SiteId, u64), (Timestamp, BTreeSet<SiteId>)>,
    /// Questions that each member asked, and that each was asked.
    asked_by: Budget,
    asked_of: Budget,
    /// Cosignatures of each member that were carried to others.
    cosigned: Budget,
    /// When a member's checkpoint was relayed last, and the newest one that waits.
    relays: BTreeMap<SiteId, (Timestamp, Option<Witness>)>,
    /// Shortest time between two relays of one ledger, by how many are connected.
    relay_every_ms: i64,
    /// When it was last in the ledger that this ledger is not settled.
    unsettled: Timestamp,
    /// The largest size of this ledger that each member was shown.
    sent: BTreeMap<SiteId, u64>,
}

/// How often each member causes something within a time.
#[derive(Debug, Default)]
pub(crate) struct Budget(BTreeMap<SiteId, (Timestamp, u32)>);

impl Budget {
    /// Counts once more; false if that is more than `most` times within `window_ms` milliseconds.
    pub(crate) fn take(&mut self, site: SiteId, now: Timestamp, window_ms: i64, most: u32) -> bool {
        let (since, used) = self.0.entry(site).or_insert((now, 0));
        if now.since(*since) >= window_ms {
            (*since, *used) = (now, 0);
        }
        *used = used.saturating_add(1);
        *used <= most
    }
}

struct Waiting {
    size: u64,
    line: String,
    witness: PublicKey,
}

/// How far the members settle this ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Members that can witness.
    pub members: u32,
    /// Cosignatures that settle a checkpoint.
    pub needed: u32,
    /// Size and time of the newest checkpoint that is settled.
    pub newest: Option<(u64, Timestamp)>,
    /// The newest checkpoint's own settlement.
    pub settlement: Settlement,
    /// When the first checkpoint was signed.
    pub first: Option<Timestamp>,
}

/// How far the members settle the coordinator's ledger. A settled checkpoint settles all before it: its witnesses
/// checked that the ledger only grew.
///
/// # Errors
/// [`Error::Database`] or [`Error::Corrupt`].
pub async fn settlement(store: &Store, federation: FederationId) -> Result<Settled, Error> {
    let sites = store.sites().await?;
    let members = sites.iter().filter(|s| s.state == SiteState::Active).count();
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    let colluding = members.div_ceil(3).saturating_sub(1);
    let mut connection = store.read().await?;
    let rows = sqlx::query(
        "SELECT c.size AS size, c.at_ms AS at_ms, COUNT(s.witness) AS cosigned FROM ledger_checkpoint c \
         LEFT JOIN ledger_cosignature s ON s.origin = c.origin AND s.size = c.size \
         WHERE c.origin = $1 GROUP BY c.size, c.at_ms ORDER BY c.size DESC LIMIT $2",
    )
    .bind(federation.to_string())
    .bind(CHECKPOINTS)
    .fetch_all(&mut *connection)
    .await
    .map_err(Error::database("settlement"))?;
    let mut found = Settled {
        members,
        needed: needed(members, colluding),
        newest: None,
        settlement: settled(members, colluding, 0),
        first: None,
    };
    for (index, row) in rows.iter().enumerate() {
        let at = Timestamp::from_millis(integer(row, "at_ms")?);
        let cosigned = u32::try_from(integer(row, "cosigned")?).unwrap_or(u32::MAX);
        let verdict = settled(members, colluding, cosigned);
        if index == 0 {
            found.settlement = verdict;
        }
        if verdict == Settlement::Settled && found.newest.is_none() {
            found.newest = Some((u64::try_from(integer(row, "size")?).unwrap_or(0), at));
        }
        found.first = Some(at);
    }
    Ok(found)
}

/// The newest checkpoint of the coordinator's ledger for these members, each with a proof from what it cosigned last.
///
/// # Errors
/// [`Error::Database`] or [`Error::Ledger`].
pub(crate) async fn show(
    store: &Store,
    federation: FederationId,
    members: &[SiteId],
) -> Result<Vec<(SiteId, ToSite)>, Error> {
    let mut connection = store.read().await?;
    let Some(signed) = Ledger::on(&mut *connection).own_checkpoint(federation).await? else { return Ok(Vec::new()) };
    let (size, checkpoint) = (signed.checkpoint().size, signed.note());
    let mut proofs = BTreeMap::new();
    let mut sends = Vec::with_capacity(members.len());
    for site in members {
        let mut ledger = Ledger::on(&mut *connection);
        let old_size = ledger.cosigned_size(federation, *site).await?.min(size);
        if let std::collections::btree_map::Entry::Vacant(proof) = proofs.entry(old_size) {
            proof.insert(ledger.prove_consistency(old_size, size).await?);
        }
        let proof = proofs.get(&old_size).cloned().unwrap_or_default();
        let show = Witness::Show { origin: federation, checkpoint: checkpoint.clone(), old_size, proof };
        sends.push((*site, ToSite::Witness(show)));
    }
    Ok(sends)
}

impl Witnesses {
    /// Nothing seen yet.
    pub(crate) fn new(federation: FederationId, now: Timestamp) -> Self {
        Self {
            federation,
            signed: now,
            waiting: Vec::new(),
            since: None,
            shown: BTreeMap::new(),
            late: BTreeSet::new(),
            asked: BTreeMap::new(),
            asked_by: Budget::default(),
            asked_of: Budget::default(),
            cosigned: Budget::default(),
            relays: BTreeMap::new(),
            relay_every_ms: 0,
            unsettled: now,
            sent: BTreeMap::new(),
        }
    }

    /// When something is due.
    pub(crate) fn wake(&self, context: &Context) -> Timestamp {
        let held = self.relays.values().filter(|(_, held)| held.is_some());
        let relay = held.map(|(at, _)| at.plus_millis(self.relay_every_ms)).min();
        let write = self.since.map(|since| since.plus_millis(WAIT_MS));
        let sign = self.signed.plus_millis(context.settings.checkpoint_ms);
        [relay, write].into_iter().flatten().fold(sign, Timestamp::min)
    }

    /// A member connected; its ledger is due within the interval from now.
    pub(crate) fn joined(&mut self, site: SiteId, now: Timestamp) {
        self.shown.insert(site, now);
    }

    /// Whether a message would show a member less of this ledger than it was shown before. It was made before the newer
    /// one and overtaken by it; to the member it would look as if the ledger had lost its tail.
    pub(crate) fn is_stale(&mut self, site: SiteId, message: &ToSite) -> bool {
        let ToSite::Witness(Witness::Show { origin, checkpoint, .. }) = message else { return false };
        if *origin != self.federation {
            return false;
        }
        let size = SignedCheckpoint::read(checkpoint).map_or(0, |signed| signed.checkpoint().size);
        let largest = self.sent.entry(site).or_default();
        let stale = size < *largest;
        *largest = size.max(*largest);
        stale
    }

    /// Whether cosignatures have waited long enough.
    pub(crate) fn is_waiting(&self, now: Timestamp) -> bool {
        self.since.is_some_and(|since| now.since(since) >= WAIT_MS)
    }

    /// Writes the cosignatures that wait, along with whatever this transaction is for.
    ///
    /// # Errors
    /// [`Error::Ledger`] if they cannot be written.
    pub(crate) async fn write(&mut self, tx: &mut Tx) -> Result<(), Error> {
        self.since = None;
        for Waiting { size, line, witness } in std::mem::take(&mut self.waiting) {
            match Ledger::on(tx.conn()).accept_cosignature(self.federation, size, &line, &witness).await {
                Ok(true) => {}
                Ok(false) => tracing::debug!(size, "a cosignature of a checkpoint that is not kept"),
                Err(LedgerError::Note(error)) => {
                    tracing::warn!(%error, witness = %witness.site_id(), "a cosignature that does not hold");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What the time alone brings: a checkpoint if one is due, and entries about delays.
    ///
    /// # Errors
    /// [`Error::Database`] if the store cannot be read.
    pub(crate) async fn tick(&mut self, context: &Context, step: &mut Step, sessions: &Sessions) -> Result<(), Error> {
        let now = step.now;
        self.relay_every_ms = relay_every_ms(context, sessions);
        for (origin, (at, held)) in &mut self.relays {
            if now.since(*at) >= self.relay_every_ms
                && let Some(show) = held.take()
            {
                *at = now;
                step.send_all(sessions.after(*origin).take(RELAYED_TO), ToSite::Witness(show));
            }
        }
        self.asked.retain(|_, (since, _)| now.since(*since) < QUESTIONS_MS);
        if now.since(self.signed) < context.settings.checkpoint_ms {
            return Ok(());
        }
        self.signed = now;
        step.checkpoint();
        let overdue: Vec<SiteId> = self
            .shown
            .iter()
            .filter(|(site, at)| sessions.is_open(**site) && now.since(**at) > 2 * INTERVAL_MS)
            .map(|(site, _)| *site)
            .filter(|site| !self.late.contains(site))
            .collect();
        for site in overdue {
            self.late.insert(site);
            let entry = context.audit.entry(now, Actor::peer(site), Action::WitnessLate);
            step.record(entry.object(ObjectKind::Site, site, None).failed("its ledger was not shown in time"));
        }
        let found = settlement(&context.store, context.federation()).await?;
        let last = found.newest.map(|(_, at)| at).or(found.first).unwrap_or(now);
        let alarm =
            found.members > 2 && now.since(last) > UNSETTLED_ALARM_MS && now.since(self.unsettled) > UNSETTLED_ALARM_MS;
        if alarm {
            self.unsettled = now;
            let reason = format!(
                "no checkpoint of this ledger was cosigned by {} members since {last}: it is not settled",
                found.needed
            );
            tracing::error!(reason, "witnessing");
            step.record(context.audit.entry(now, Actor::Engine, Action::WitnessLate).failed(reason));
        }
        Ok(())
    }

    /// A member said something about a ledger.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Ledger`].
    pub(crate) async fn on(
        &mut self,
        context: &Context,
        step: &mut Step,
        (site, key): (SiteId, PublicKey),
        sessions: &Sessions,
        message: Witness,
    ) -> Result<(), Error> {
        match message {
            Witness::Show { origin, checkpoint, old_size, proof } if origin == site => {
                let show = Shown { key, checkpoint, old_size, proof };
                self.shown(context, step, site, sessions, show).await
            }
            Witness::Cosigned { origin, size, witness, cosignature } if witness == site => {
                if origin == self.federation {
                    if self.waiting.len() < WAITING {
                        self.waiting.push(Waiting { size, line: cosignature, witness: key });
                        self.since.get_or_insert(step.now);
                    }
                } else if self.cosigned.take(site, step.now, QUESTIONS_MS, COSIGNED) {
                    let relayed = Witness::Cosigned { origin, size, witness, cosignature };
                    step.send(origin, ToSite::Witness(relayed));
                }
                Ok(())
            }
            Witness::ProveFrom { origin, size } => {
                if !self.asked_by.take(site, step.now, QUESTIONS_MS, ASKED_BY) {
                    tracing::debug!(%site, "too many questions for proofs; this one is not answered");
                } else if origin == self.federation {
                    self.prove(context, step, site, size).await?;
                } else if origin == site {
                    self.remind(context, step, site).await?;
                } else if sessions.is_open(origin) {
                    self.ask(step, site, origin, size);
                }
                Ok(())
            }
            Witness::Contradiction { origin, witness, detail } if witness == site => {
                let detail = text::shown(&detail, DETAIL_CHARS);
                let found = Contradiction { origin, witness, at: step.now, detail, note: String::new() };
                self.contradicted(context, step, site, found).await.map(drop)
            }
            _ => {
                tracing::warn!(%site, "a message about a ledger in another's name is ignored");
                Ok(())
            }
        }
    }

    /// A member asks what was seen of its own ledger: it was restored from a backup, and would rather know what it lost
    /// than show a ledger that contradicts the one before. An empty note says that nothing was.
    async fn remind(&mut self, context: &Context, step: &mut Step, site: SiteId) -> Result<(), Error> {
        let seen = Ledger::on(step.tx(context).await?.conn()).peer(site).await?;
        let (checkpoint, old_size) = seen.map(|peer| (peer.note, peer.seen.size)).unwrap_or_default();
        step.send(site, ToSite::Witness(Witness::Show { origin: site, checkpoint, old_size, proof: Vec::new() }));
        Ok(())
    }

    /// Asks a member to prove its ledger from a size that another saw last; once for all who ask the same.
    fn ask(&mut self, step: &mut Step, site: SiteId, origin: SiteId, size: u64) {
        let now = step.now;
        let (since, by) = self.asked.entry((origin, size)).or_insert((now, BTreeSet::new()));
        let is_new = by.is_empty();
        by.insert(site);
        if is_new {
            *since = now;
            if self.asked_of.take(origin, now, QUESTIONS_MS, ASKED_OF) {
                step.send(origin, ToSite::Witness(Witness::ProveFrom { origin, size }));
            }
        }
    }

    async fn shown(
        &mut self,
        context: &Context,
        step: &mut Step,
        site: SiteId,
        sessions: &Sessions,
        show: Shown,
    ) -> Result<(), Error> {
        let now = step.now;
        self.shown.insert(site, now);
        self.late.remove(&site);
        let Shown { key, checkpoint, old_size, proof } = show;
        let mut ledger = Ledger::on(step.tx(context).await?.conn());
        let seen = ledger.peer(site).await?.map(|peer| peer.seen);
        let witnessing = Witnessing { origin: key, key: &context.key, seen, relayed: false };
        let verdict = witnessing.judge(&checkpoint, old_size, &proof, now);
        let asked = self.asked.remove(&(site, old_size)).map(|(_, by)| by).unwrap_or_default();
        match &verdict {
            Verdict::Cosigned { checkpoint: signed, cosignature, first } => {
                ledger.put_peer(signed, &key, now).await?;
                ledger.put_cosignature(signed.checkpoint(), cosignature).await?;
                if *first {
                    let entry = context.audit.entry(now, Actor::peer(site), Action::WitnessFirst);
                    step.record(entry.object(ObjectKind::Checkpoint, site, Some(signed.checkpoint().root)));
                }
                let relayed = Witness::Show { origin: site, checkpoint: signed.note(), old_size, proof };
                self.relay(context, step, sessions, site, relayed, &asked);
            }
            // This coordinator has seen another size since; to those who asked it is an answer all the same.
            Verdict::ProveFrom { .. } => {
                step.send_all(asked, ToSite::Witness(Witness::Show { origin: site, checkpoint, old_size, proof }));
            }
            Verdict::Contradiction { detail, signed } => {
                let note = if *signed { checkpoint.clone() } else { String::new() };
                let witness = self.federation;
                let found = Contradiction { origin: site, witness, at: now, detail: detail.clone(), note };
                let is_recorded = self.contradicted(context, step, site, found).await?;
                // Whoever witnesses this ledger has to see for themselves what its party signed.
                if *signed {
                    let mut audience = asked;
                    if is_recorded {
                        audience.extend(sessions.after(site).take(RELAYED_TO));
                    }
                    step.send_all(
                        audience,
                        ToSite::Witness(Witness::Show { origin: site, checkpoint, old_size, proof }),
                    );
                }
            }
        }
        step.send(site, ToSite::Witness(verdict.reply(site, self.federation)));
        Ok(())
    }

    /// Relays a member's checkpoint: at once to those that asked for this proof, and no more often than once in the
    /// time that is set, the newest, to some others, from the origin's place in the order of ids on, so that every
    /// ledger has its own witnesses. Each of them has to answer, and a ledger grows with every round.
    fn relay(
        &mut self,
        context: &Context,
        step: &mut Step,
        sessions: &Sessions,
        origin: SiteId,
        show: Witness,
        asked: &BTreeSet<SiteId>,
    ) {
        let now = step.now;
        let last = self.relays.get(&origin);
        self.relay_every_ms = relay_every_ms(context, sessions);
        let is_due = last.is_none_or(|(at, _)| now.since(*at) >= self.relay_every_ms);
        let mut audience = asked.clone();
        // What nobody is there to hear is no relay.
        if is_due && sessions.count() > 1 {
            audience.extend(sessions.after(origin).take(RELAYED_TO));
            self.relays.insert(origin, (now, None));
        } else if let Some((_, held)) = self.relays.get_mut(&origin) {
            *held = Some(show.clone());
        }
        step.send_all(audience, ToSite::Witness(show));
    }

    /// A member saw another size of this ledger last.
    async fn prove(&mut self, context: &Context, step: &mut Step, site: SiteId, size: u64) -> Result<(), Error> {
        let now = step.now;
        let mut ledger = Ledger::on(step.tx(context).await?.conn());
        // The checkpoint that everybody was shown: a new one for this member alone would never be settled.
        if let Some(signed) = ledger.own_checkpoint(self.federation).await?
            && size <= signed.checkpoint().size
        {
            let (origin, old_size, newest) = (self.federation, size, signed.checkpoint().size);
            let proof = ledger.prove_consistency(old_size, newest).await?;
            step.send(site, ToSite::Witness(Witness::Show { origin, checkpoint: signed.note(), old_size, proof }));
            return Ok(());
        }
        let show = match ledger.show(&context.key, size, now).await {
            // A number proves nothing: the member is shown what is here. If it holds a signed checkpoint of more, it
            // has the evidence, and says so.
            Err(LedgerError::OutOfRange { size: ours, asked }) => {
                tracing::error!(%site, "a member says that it saw {asked} entries of this ledger; {ours} are here");
                ledger.show(&context.key, ours, now).await?
            }
            shown => shown?,
        };
        step.send(site, ToSite::Witness(show));
        Ok(())
    }

    /// A ledger contradicts itself, or is said to: evidence, entry, alarm; says whether it is recorded now.
    /// `site` is the member that caused it, which can do so again and again.
    async fn contradicted(
        &mut self,
        context: &Context,
        step: &mut Step,
        site: SiteId,
        found: Contradiction,
    ) -> Result<bool, Error> {
        let actor = if found.witness == self.federation { Actor::Engine } else { Actor::peer(found.witness) };
        let entry = context.audit.entry(step.now, actor, Action::WitnessFailed);
        let entry = entry.object(ObjectKind::Checkpoint, found.origin, None).failed(&found.detail);
        // What was found here is counted by itself: accusations must not hide it.
        let about = if found.witness == self.federation { "found here" } else { "said" };
        if !step.record_limited(context, site, about, entry) {
            return Ok(false);
        }
        tracing::error!(origin = %found.origin, witness = %found.witness, detail = found.detail, "ledger contradicted");
        Ledger::on(step.tx(context).await?.conn()).put_contradiction(&found).await?;
        if found.witness != self.federation && found.origin != self.federation {
            let Contradiction { origin, witness, detail, .. } = found;
            step.send(origin, ToSite::Witness(Witness::Contradiction { origin, witness, detail }));
        }
        Ok(true)
    }
}

/// Each relay has to be answered: with few members every ledger is relayed often, with many the whole stays bounded.
fn relay_every_ms(context: &Context, sessions: &Sessions) -> i64 {
    let relays = sessions.count().saturating_mul(RELAYED_TO.min(sessions.count()));
    let fair = relays.saturating_mul(1_000) / RELAYS_A_SECOND;
    context.settings.relay_ms.max(i64::try_from(fair).unwrap_or(i64::MAX))
}

/// A member's checkpoint with its proof.
struct Shown {
    key: PublicKey,
    checkpoint: String,
    old_size: u64,
    proof: Vec<hospes_protocol::id::Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_each_members_own_and_comes_back() {
        let (one, two) = (SiteId::from_bytes([1; 16]), SiteId::from_bytes([2; 16]));
        let at = Timestamp::from_millis;
        let mut budget = Budget::default();
        assert_eq!((0..10).filter(|ms| budget.take(one, at(*ms), 100, 3)).count(), 3);
        assert!(budget.take(two, at(11), 100, 3));
        assert!(!budget.take(one, at(99), 100, 3) && budget.take(one, at(100), 100, 3));
    }
}
