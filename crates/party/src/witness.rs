//! Witnessing: this site's checkpoints are shown to the coordinator and, through it, to the other members; theirs are
//! checked and cosigned here. A log that was rewritten, cut or forked is an alarm.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek as _, Write};

use hospes_ledger::{Action, Actor, Contradiction, Ledger, ObjectKind, Verdict, Witnessing, witness};
use hospes_protocol::approval::Trust;
use hospes_protocol::id::{FederationId, SiteId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::message::{FromSite, Witness};
use hospes_protocol::sign::PublicKey;
use hospes_protocol::study::Member;
use hospes_protocol::text::shown;

use crate::audit::clean;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::memberships::{self, Membership, roster};
use crate::people::Session;
use crate::restored;
use crate::store::{At as _, Tx, parse};
use crate::view::{Notice, WitnessState};

/// Name of the secret that signs exports of a site that belongs to no federation yet.
pub(crate) const EXPORT_KEY: &str = "export-key";
/// Contradictions of one log, found by one witness, that are kept though nothing proves them.
const UNPROVEN: usize = 32;
/// Checkpoints of a peer beyond those that are kept, before they are forgotten together.
const PRUNED_AT_ONCE: u64 = 16;
/// What an alarm says of a log that contradicts itself, after whose it is.
const CONTRADICTS: &str = "contradicts what was seen of it before";
/// And at its end, where it may be a forgery.
const UNSIGNED: &str = " (its signature does not hold, so nobody is proven wrong)";
/// Cosignatures of one checkpoint of this site's log that are kept, of members that only the coordinator knows: twice as many
/// as it relays a log to. Under more than anybody reads, the log would seem not intact, and nothing would leave.
const COSIGNED_BY: usize = 128;
/// How long a link has been there before missing witnesses are an alarm, in milliseconds: an hour.
const CATCH_UP_MS: i64 = 3_600 * 1_000;
const NOT_SETTLED: &str = "too few members cosigned the coordinator's log for a day: whether everybody sees the same log is \
                           not known. Ask the operator, and the other sites whether they saw its log";
/// The same, where it may be for that reason alone that members are not verified.
const NOT_VERIFIED: &str = "the coordinator's log was not settled for a day: members that only the coordinator knows may be \
                            invented, and what they cosigned proves nothing. Compare words with them outside the \
                            coordinator, or ask a member that was verified here to vouch for them; until then whether \
                            everybody sees the same log is not known";
const NOT_COSIGNED: &str = "nobody cosigned this site's log for a day: a change of its newest entries could not be proven. \
                            Ask the operator why it is not witnessed";
/// Without numbers: each that a coordinator thinks of would be another alarm. The entries name them.
const TAIL_GONE: &str = "the coordinator has seen more entries of this site's log, as it says, than there are now: the tail of \
                         the log is gone, or an old backup was restored. Verify the log here";
const MANY_CONTRADICTIONS: &str = "more contradictions of logs came within an hour, which nothing proves or which are of \
                                   members that only the coordinator knows, than are kept one by one (limit \
                                   WITNESS_ENTRIES); the rest is counted in the log. Ask the operator what is wrong, and \
                                   compare words with the members outside the coordinator";

impl Engine {
    /// Shows this site's checkpoint to a coordinator, with a proof from what it cosigned last.
    pub(crate) async fn show_checkpoint(&mut self, federation: FederationId) -> Result<(), PartyError> {
        self.show_from(federation, None).await
    }

    async fn show_from(&mut self, federation: FederationId, from: Option<u64>) -> Result<(), PartyError> {
        if !self.links.get(&federation).is_some_and(crate::memberships::Link::is_connected) {
            return Ok(());
        }
        if self.asks_witness(federation).await? {
            return Ok(());
        }
        let now = self.now();
        let mut tx = self.store.begin("show a checkpoint").await?;
        let membership = memberships::by_id(tx.conn(), federation).await?;
        let key = self.identity(&membership).await?;
        let mut ledger = Ledger::on(tx.conn());
        let from = match from {
            Some(size) => size,
            None => ledger.cosigned_size(membership.site, federation).await.at("show a checkpoint")?,
        };
        let show = match ledger.show(&key, from, now).await {
            Ok(show) => show,
            Err(hospes_ledger::LedgerError::OutOfRange { size, asked }) => {
                self.alarm(&mut tx, Some(federation), TAIL_GONE).await?;
                let words = format!("{TAIL_GONE} ({asked} entries before, {size} now)");
                let entry = self.entry(Actor::peer(federation), Action::WitnessFailed).failed(words);
                self.enter_lost_tail(&mut tx, federation, &entry).await?;
                return tx.commit().await;
            }
            Err(error) => return Err(error).at("show a checkpoint"),
        };
        tx.commit().await?;
        if let Some(link) = self.links.get_mut(&federation) {
            link.shown = Some(now);
        }
        self.say(federation, FromSite::Witness(show));
        Ok(())
    }

    /// Shows a checkpoint at most every ten minutes, and at once when a round closed (see `on_round_closed`).
    pub(crate) async fn tick_witness(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        let due: Vec<FederationId> = self
            .links
            .iter()
            .filter(|(_, l)| l.is_connected() && l.shown.is_none_or(|s| now.since(s) >= witness::INTERVAL_MS))
            .map(|(f, _)| *f)
            .collect();
        if due.is_empty() || !self.unshown.is_over(now) {
            return Ok(());
        }
        let mut result = Ok(());
        for federation in due {
            result = result.and(self.show_checkpoint(federation).await);
        }
        self.unshown.note(now, &result);
        result
    }

    pub(crate) async fn on_witness(&mut self, federation: FederationId, message: Witness) -> Result<(), PartyError> {
        match message {
            Witness::Show { origin, checkpoint, old_size, proof } => {
                if self.is_own(federation, origin).await? {
                    return Box::pin(self.on_seen(federation, &checkpoint)).await;
                }
                self.judge(federation, origin, &checkpoint, old_size, &proof).await
            }
            Witness::ProveFrom { origin, size } => {
                let own = self.is_own(federation, origin).await?;
                if own { self.show_from(federation, Some(size)).await } else { Ok(()) }
            }
            Witness::Cosigned { origin, size, witness, cosignature } => {
                self.on_cosigned(federation, origin, size, witness, &cosignature).await
            }
            Witness::Contradiction { origin, witness, detail } => {
                self.on_contradiction(federation, origin, witness, &detail).await
            }
        }
    }

    /// Whether a log in a federation is this site's own.
    async fn is_own(&self, federation: FederationId, origin: SiteId) -> Result<bool, PartyError> {
        let mut conn = self.reader().await?;
        Ok(memberships::by_id(&mut conn, federation).await?.site == origin)
    }

    /// Checks a checkpoint that was shown, and answers.
    async fn judge(
        &mut self,
        federation: FederationId,
        origin: SiteId,
        note: &str,
        old_size: u64,
        proof: &[hospes_protocol::id::Digest],
    ) -> Result<(), PartyError> {
        let now = self.now();
        let mut tx = self.store.begin("witness a checkpoint").await?;
        let membership = memberships::by_id(tx.conn(), federation).await?;
        let Some(origin_key) = key_of(&membership, origin).filter(|_| origin != membership.site) else {
            // Somebody who is no member; there is nothing to check it with.
            return Ok(());
        };
        let key = self.identity(&membership).await?;
        let seen = Ledger::on(tx.conn()).peer(origin).await.at("witness a checkpoint")?.map(|p| p.seen);
        let relayed = origin != federation;
        let verdict = Witnessing { origin: origin_key, key: &key, seen, relayed }.judge(note, old_size, proof, now);
        match &verdict {
            Verdict::Cosigned { checkpoint, cosignature, first } => {
                let mut ledger = Ledger::on(tx.conn());
                ledger.put_peer(checkpoint, &origin_key, now).await.at("witness a checkpoint")?;
                let body = *checkpoint.checkpoint();
                ledger.put_cosignature(&body, cosignature).await.at("witness a checkpoint")?;
                let held = ledger.peer_checkpoints(origin).await.at("witness a checkpoint")?;
                // How far a member is trusted is asked for only where something follows from it.
                if *first || held > PRUNED_AT_ONCE {
                    let is_known = is_known(&membership, &roster::trust(tx.conn(), &membership).await?, origin);
                    let most = if is_known { limits::PEER_CHECKPOINTS } else { 1 };
                    if held > PRUNED_AT_ONCE.saturating_add(most) {
                        Ledger::on(tx.conn()).prune_peer(origin, most).await.at("witness a checkpoint")?;
                    }
                    if *first {
                        let entry = self.entry(Actor::peer(origin), Action::WitnessFirst);
                        let entry = entry.object(ObjectKind::Checkpoint, body.size, Some(body.root));
                        self.enter_first_checkpoint(&mut tx, federation, is_known, &entry).await?;
                        forget_departed(&mut tx).await?;
                    }
                }
                if origin == federation {
                    self.note_settled(&mut tx, &membership, body.size).await?;
                }
            }
            Verdict::ProveFrom { .. } => {}
            Verdict::Contradiction { detail, signed } => {
                let detail = shown(detail, 400);
                let proof = if *signed { "" } else { UNSIGNED };
                let whose = name_of(&membership, origin);
                let words = format!("the log of {whose} {CONTRADICTS}: {detail}{proof}");
                let witness = membership.site;
                let is_known = is_known(&membership, &roster::trust(tx.conn(), &membership).await?, origin);
                let found = Contradiction { origin, witness, at: now, detail, note: note.to_owned() };
                self.contradiction(&mut tx, federation, found, *signed, is_known, &words).await?;
            }
        }
        tx.commit().await?;
        self.say(federation, FromSite::Witness(verdict.reply(origin, membership.site)));
        Ok(())
    }

    /// Keeps a contradiction that the coordinator brought or told of, once, and only so many of each log: whoever could
    /// make this site keep any number of them could fill its disk. What nobody signed leaves room for what somebody did,
    /// and all but what a signer signed whose key is known from elsewhere is limited over all logs as well (`is_known`:
    /// the one whose word it is).
    async fn contradiction(
        &mut self,
        tx: &mut Tx,
        federation: FederationId,
        mut found: Contradiction,
        is_signed: bool,
        is_known: bool,
        words: &str,
    ) -> Result<(), PartyError> {
        let known = Ledger::on(tx.conn()).contradictions().await.at("keep a contradiction")?;
        let of_it = || known.iter().filter(|c| c.origin == found.origin && c.witness == found.witness);
        let most = if is_signed { 2 * UNPROVEN } else { UNPROVEN };
        if of_it().count() >= most || of_it().any(|c| c.detail == found.detail) {
            return Ok(());
        }
        let last = of_it().map(|c| c.at).max();
        if !(is_signed && is_known) {
            if !self.keeps_contradiction(federation, is_known) {
                return self.alarm(tx, Some(federation), MANY_CONTRADICTIONS).await;
            }
            // An honest note is short, and this one proves nothing.
            if found.note.len() > limits::TEXT_CHARS {
                found.note.clear();
            }
        }
        // The ledger keeps one of each moment.
        if let Some(last) = last {
            found.at = found.at.max(last.plus_millis(1));
        }
        Ledger::on(tx.conn()).put_contradiction(&found).await.at("keep a contradiction")?;
        // Whoever goes on with such a log contradicts in other numbers each time.
        let before = words.strip_suffix(&found.detail).filter(|_| is_signed);
        let told = before.map(|before| of_it().map(|c| clean(&format!("{before}{}", c.detail))).collect::<Vec<_>>());
        if !is_open(tx, federation, &told.unwrap_or_default()).await? {
            self.alarm(tx, Some(federation), words).await?;
        }
        let entry = self.entry(Actor::peer(federation), Action::WitnessFailed).failed(words);
        self.append(tx, &entry.object(ObjectKind::Site, found.origin, None)).await?;
        Ok(())
    }

    /// Remembers that the coordinator's log is settled now, if it is.
    async fn note_settled(&self, tx: &mut Tx, membership: &Membership, size: u64) -> Result<(), PartyError> {
        let federation = membership.federation;
        if self.witness_state(tx.conn(), membership, federation, size, None).await?.settled {
            sqlx::query("UPDATE memberships SET settled = ?2 WHERE federation = ?1")
                .bind(federation.to_string())
                .bind(self.now().as_millis())
                .execute(tx.conn())
                .await
                .at("remember a settled log")?;
        }
        Ok(())
    }

    /// Remembers that this site's log, as shown last, is cosigned now. A signature under an older one says nothing new.
    async fn note_cosigned(&self, tx: &mut Tx, membership: &Membership, size: u64) -> Result<(), PartyError> {
        let own = Ledger::on(tx.conn()).own_checkpoint(membership.site).await.at("keep a cosignature")?;
        if own.is_some_and(|own| own.checkpoint().size == size) {
            sqlx::query("UPDATE memberships SET cosigned = ?2 WHERE federation = ?1")
                .bind(membership.federation.to_string())
                .bind(self.now().as_millis())
                .execute(tx.conn())
                .await
                .at("remember a cosignature")?;
        }
        Ok(())
    }

    /// Somebody cosigned a checkpoint of ours, or, relayed, of the coordinator's.
    async fn on_cosigned(
        &mut self,
        federation: FederationId,
        origin: SiteId,
        size: u64,
        witness: SiteId,
        line: &str,
    ) -> Result<(), PartyError> {
        let mut tx = self.store.begin("keep a cosignature").await?;
        let membership = memberships::by_id(tx.conn(), federation).await?;
        let Some(key) = key_of(&membership, witness).filter(|_| witness != membership.site) else { return Ok(()) };
        if origin == membership.site && is_full(&mut tx, &membership, size, witness).await? {
            tracing::debug!(%federation, %witness, "more cosignatures than are kept; this one is not");
            return Ok(());
        }
        let mut ledger = Ledger::on(tx.conn());
        let kept = if origin == membership.site {
            ledger.accept_cosignature(origin, size, line, &key).await
        } else {
            match ledger.peer(origin).await.at("keep a cosignature")? {
                Some(peer) if peer.seen.size == size => {
                    let checkpoint = *hospes_ledger::SignedCheckpoint::read(&peer.note)
                        .map_err(hospes_ledger::LedgerError::from)
                        .at("keep a cosignature")?
                        .checkpoint();
                    match hospes_ledger::Cosignature::verify(line, &checkpoint, &key) {
                        Ok(cosignature) => ledger.put_cosignature(&checkpoint, &cosignature).await.map(|()| true),
                        Err(error) => Err(error.into()),
                    }
                }
                _ => Ok(false),
            }
        };
        match kept {
            Ok(kept) => {
                if kept && origin == membership.site {
                    self.note_cosigned(&mut tx, &membership, size).await?;
                } else if kept && origin == federation {
                    self.note_settled(&mut tx, &membership, size).await?;
                }
                tx.commit().await?;
                if kept && origin == membership.site && witness == federation {
                    Box::pin(self.send_witnessed(federation)).await?;
                }
            }
            Err(hospes_ledger::LedgerError::Note(error)) => {
                tracing::warn!(%witness, %error, "a cosignature does not hold; it was not kept");
                return Ok(());
            }
            Err(error) => return Err(error).at("keep a cosignature"),
        }
        self.notify(Notice::Audit);
        Ok(())
    }

    /// The coordinator says that somebody found a contradiction in this site's own log. Nothing proves it, so the people
    /// here read who said so. Of other logs this site believes only what it was shown itself.
    async fn on_contradiction(
        &mut self,
        federation: FederationId,
        origin: SiteId,
        witness: SiteId,
        detail: &str,
    ) -> Result<(), PartyError> {
        let mut tx = self.store.begin("hear of a contradiction").await?;
        let membership = memberships::by_id(tx.conn(), federation).await?;
        if origin != membership.site || witness == membership.site || key_of(&membership, witness).is_none() {
            tracing::warn!(%federation, %origin, %witness, "a contradiction that does not concern this site was not kept");
            return Ok(());
        }
        let detail = shown(detail, 400);
        let says = match witness == federation {
            true => "the coordinator says".to_owned(),
            false => format!("the coordinator says that {} says", name_of(&membership, witness)),
        };
        let words = format!(
            "{says} that this site's log contradicts what was seen of it before: {detail}. Nothing proves that; verify the \
             log here and ask them for their evidence"
        );
        let found = Contradiction { origin, witness, at: self.now(), detail, note: String::new() };
        let is_known = is_known(&membership, &roster::trust(tx.conn(), &membership).await?, witness);
        self.contradiction(&mut tx, federation, found, false, is_known, &words).await?;
        tx.commit().await
    }

    /// That too few members cosigned the coordinator's log for a day, or nobody this site's, is an alarm: a coordinator
    /// that shows different logs, or keeps this one from witnesses, is noticed by that alone.
    pub(crate) async fn unsettled_alarms(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        let mut conn = self.reader().await?;
        let mut late = Vec::new();
        for membership in memberships::all(&mut conn).await? {
            let federation = membership.federation;
            // A site that was switched off or paused first gets the time to hear what it missed.
            let open = |l: &&memberships::Link| l.commands.is_some() && now.since(l.opened) >= CATCH_UP_MS;
            if self.links.get(&federation).filter(open).is_none() {
                continue;
            }
            let overdue = |since: Timestamp| now.since(since) >= witness::UNSETTLED_ALARM_MS;
            if overdue(membership.settled) && membership.roster.document.members.len() > 2 {
                let trust = roster::trust(&mut conn, &membership).await?;
                late.push((federation, if Electors::of(&trust).are_doubtful() { NOT_VERIFIED } else { NOT_SETTLED }));
            }
            // It is not shown there where the end of it is lost, and people know.
            if overdue(membership.cosigned) && restored::check(&mut conn, federation).await?.is_none() {
                late.push((federation, NOT_COSIGNED));
            }
        }
        drop(conn);
        for (federation, words) in late {
            let mut tx = self.store.begin("alarm about witnesses").await?;
            let known: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM alarms WHERE words = ?1 AND federation = ?2 AND (seen_by IS NULL OR at > ?3)",
            )
            .bind(words)
            .bind(federation.to_string())
            .bind(now.plus_millis(-witness::UNSETTLED_ALARM_MS).as_millis())
            .fetch_one(tx.conn())
            .await
            .at("alarm about witnesses")?;
            if known == 0 {
                self.alarm(&mut tx, Some(federation), words).await?;
                let entry = self.entry(Actor::peer(federation), Action::WitnessLate).failed(words);
                self.append(&mut tx, &entry).await?;
                tx.commit().await?;
            }
        }
        Ok(())
    }

    /// How this site's log, and the coordinator's, are witnessed in each federation.
    pub(crate) async fn witness_states(&self) -> Result<Vec<WitnessState>, PartyError> {
        let mut conn = self.reader().await?;
        let mut states = Vec::new();
        for membership in memberships::all(&mut conn).await? {
            let own = Ledger::on(&mut *conn).own_checkpoint(membership.site).await.at("look at witnesses")?;
            if let Some(own) = own {
                let size = own.checkpoint().size;
                states.push(self.witness_state(&mut conn, &membership, membership.site, size, None).await?);
            }
            let federation = membership.federation;
            if let Some(peer) = Ledger::on(&mut *conn).peer(federation).await.at("look at witnesses")? {
                let size = peer.seen.size;
                states.push(self.witness_state(&mut conn, &membership, federation, size, Some(peer.at)).await?);
            }
        }
        Ok(states)
    }

    async fn witness_state(
        &self,
        conn: &mut sqlx::SqliteConnection,
        membership: &Membership,
        origin: SiteId,
        size: u64,
        seen: Option<Timestamp>,
    ) -> Result<WitnessState, PartyError> {
        let trust = roster::trust(conn, membership).await?;
        let cosigned = Ledger::on(&mut *conn).cosignatures(origin, size).await.at("look at witnesses")?;
        let by_others = || cosigned.iter().map(|c| c.witness).filter(|witness| *witness != origin);
        let by_members = by_others().filter(|w| *w == membership.site || trust.contains_key(w)).count();
        // The coordinator, too, is a witness of what others show; a member that it may have invented is none, in the roster
        // or out of it.
        let witnesses = by_others().filter(|w| is_known(membership, &trust, *w)).count();
        let (settled, words) = Electors::of(&trust).settle(origin == membership.site, number(by_members));
        Ok(WitnessState {
            federation: membership.federation,
            origin,
            size,
            witnesses: number(witnesses),
            at: seen.or_else(|| cosigned.iter().map(|c| c.at).max()),
            settled,
            words,
        })
    }

    /// What this site knows of its own log in a federation. Read before an export, which covers at least as much. Only
    /// members whose keys are known from elsewhere than the coordinator are witnesses; it may have invented the others.
    pub(crate) async fn expected_of(&self, membership: &Membership) -> Result<hospes_ledger::Expectations, PartyError> {
        let mut conn = self.reader().await?;
        let own = Ledger::on(&mut *conn).own_checkpoint(membership.site).await.at("verify the audit log")?;
        let trust = roster::trust(&mut conn, membership).await?;
        let is_known = |m: &&Member| is_known(membership, &trust, m.site);
        Ok(hospes_ledger::Expectations {
            origins: vec![self.identity(membership).await?.public()],
            members: membership.roster.document.members.iter().filter(is_known).map(|m| m.identity).collect(),
            known: own.iter().map(hospes_ledger::SignedCheckpoint::note).collect(),
        })
    }

    /// An export in a file without a name, not in memory: the log of years is large.
    pub(crate) async fn export_to_scratch(
        &self,
        federation: Option<FederationId>,
    ) -> Result<std::fs::File, PartyError> {
        let path = self.config.scratch().join("verification.jsonl");
        let fail = |source| PartyError::file("write", &path, source);
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(fail)?;
        // Nobody else needs its name, and it is gone with its last user, however that ends.
        #[cfg(unix)]
        std::fs::remove_file(&path).map_err(fail)?;
        let mut out = std::io::BufWriter::new(&mut file);
        self.write_export(federation, &mut out).await?;
        drop(out);
        file.rewind().map_err(fail)?;
        Ok(file)
    }

    /// The newest checkpoint of a log that was seen here, as the signed note that it came in, with this site's
    /// cosignature: of the coordinator's, of a member's, or of this site's own, which has everybody's.
    pub(crate) async fn checkpoint_note(
        &mut self,
        session: Session,
        federation: FederationId,
        origin: SiteId,
    ) -> Result<String, PartyError> {
        self.acting(&session, "see checkpoints", &[]).await?;
        let mut conn = self.reader().await?;
        let membership = memberships::by_id(&mut conn, federation).await?;
        let mut ledger = Ledger::on(&mut *conn);
        let note = if origin == membership.site {
            ledger.own_checkpoint(origin).await.at("read a checkpoint")?.map(|signed| signed.note())
        } else {
            ledger.peer(origin).await.at("read a checkpoint")?.map(|peer| peer.note)
        };
        let whose =
            || PartyError::NotFound(format!("checkpoint of the log of {} here yet", name_of(&membership, origin)));
        note.ok_or_else(whose)
    }

    /// Writes the whole ledger in the native form, signed with this site's identity in a federation.
    pub(crate) async fn write_export(
        &self,
        federation: Option<FederationId>,
        out: &mut (dyn Write + Send),
    ) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let memberships = memberships::all(&mut conn).await?;
        let key = match (federation, memberships.as_slice()) {
            (Some(id), all) => match all.iter().find(|m| m.federation == id) {
                Some(membership) => self.identity(membership).await?,
                None => return Err(PartyError::NotFound(format!("federation {id} here"))),
            },
            (None, [first, ..]) => self.identity(first).await?,
            (None, []) => self.export_key().await?,
        };
        Ledger::on(&mut *conn).export(&key, self.now(), out).await.at("export the audit log")?;
        Ok(())
    }

    /// The key that signs exports of a site that belongs to no federation yet.
    pub(crate) async fn export_key(&self) -> Result<hospes_protocol::sign::SecretKey, PartyError> {
        let seed: [u8; 32] = match self.vault.find(EXPORT_KEY).await?.map(|s| s.as_slice().try_into()) {
            Some(Ok(seed)) => seed,
            _ => {
                let seed = crate::keys::random::<32>()?;
                self.vault.keep(EXPORT_KEY, zeroize::Zeroizing::new(seed.to_vec())).await?;
                seed
            }
        };
        Ok(hospes_protocol::sign::SecretKey::from_seed(&zeroize::Zeroizing::new(seed)))
    }
}

/// Whose cosignatures settle a log: the members of a federation, of which this site takes some for the coordinator's.
struct Electors {
    members: u32,
    /// Members that are asserted by the coordinator alone.
    asserted: u32,
}

impl Electors {
    /// By how the other members are trusted.
    fn of(trust: &BTreeMap<SiteId, Trust>) -> Self {
        let asserted = trust.values().filter(|trust| **trust == Trust::AssertedOnly).count();
        Self { members: number(trust.len()).saturating_add(1), asserted: number(asserted) }
    }

    /// Members that may help the coordinator to lie although they are real: as in a round, a third, and at least one.
    fn colluding(&self) -> u32 {
        self.members.div_ceil(3).saturating_sub(1).max(1)
    }

    /// Whether more is needed because of members that are not verified.
    fn are_doubtful(&self) -> bool {
        self.asserted > self.colluding()
    }

    /// Whether so many cosignatures of members settle a log, and what follows in words: any two sets of so many share an
    /// honest member, where everybody who is asserted only counts as corrupt. A site does not cosign its own log.
    fn settle(&self, is_own: bool, cosigned: u32) -> (bool, String) {
        if self.members <= 2 {
            return (false, "with one or two members a fork cannot be excluded".to_owned());
        }
        if self.asserted.saturating_add(1) >= self.members {
            // This site alone would be in every such set here, and another site in every one there.
            let words = "not settled, whoever cosigned it: no other member is verified here, and the coordinator could \
                         have invented them all. Compare words with them outside the coordinator";
            return (false, words.to_owned());
        }
        let need = witness::needed(self.members - u32::from(is_own), self.colluding().max(self.asserted));
        if cosigned >= need {
            return (true, "enough members cosigned it: everybody sees the same log".to_owned());
        }
        let mut words = format!("{cosigned} of {need} needed members cosigned it so far");
        if self.are_doubtful() {
            let asserted = self.asserted;
            words.push_str(&format!(
                "; {asserted} members count as invented until words are compared with them, or a member that was \
                 verified here vouches for them"
            ));
        }
        (false, words)
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Identity key of a member, or of the coordinator.
fn key_of(membership: &Membership, site: SiteId) -> Option<PublicKey> {
    if site == membership.federation {
        return Some(membership.coordinator);
    }
    membership.roster.document.members.iter().find(|m| m.site == site).map(|m| m.identity)
}

/// Whether a site's key is known from elsewhere than the coordinator: it is the coordinator's own, this site's, or that of
/// a member that was verified here or is vouched for. The coordinator may have invented everybody else.
fn is_known(membership: &Membership, trust: &BTreeMap<SiteId, Trust>, site: SiteId) -> bool {
    site == membership.federation
        || site == membership.site
        || matches!(trust.get(&site), Some(Trust::VerifiedHere | Trust::VouchedFor))
}

/// Whether one of these alarms is there and nobody has acknowledged it.
async fn is_open(tx: &mut Tx, federation: FederationId, alarms: &[String]) -> Result<bool, PartyError> {
    if alarms.is_empty() {
        return Ok(false);
    }
    let open: Vec<String> = sqlx::query_scalar("SELECT words FROM alarms WHERE federation = ?1 AND seen_by IS NULL")
        .bind(federation.to_string())
        .fetch_all(tx.conn())
        .await
        .at("raise an alarm")?;
    Ok(open.iter().any(|words| alarms.contains(words)))
}

/// Whether a checkpoint of this site's log has so many cosignatures that this witness's is not kept. One whose key is known
/// from elsewhere than the coordinator has room beside all that are invented.
async fn is_full(tx: &mut Tx, membership: &Membership, size: u64, witness: SiteId) -> Result<bool, PartyError> {
    const STEP: &str = "keep a cosignature";
    let kept = Ledger::on(tx.conn()).cosignatures(membership.site, size).await.at(STEP)?;
    if kept.len() < COSIGNED_BY || kept.iter().any(|cosignature| cosignature.witness == witness) {
        return Ok(false);
    }
    // This site's own signature stands there too.
    let is_known = is_known(membership, &roster::trust(tx.conn(), membership).await?, witness);
    Ok(!is_known || kept.len() + 1 >= hospes_ledger::limits::NOTE_SIGNATURES)
}

/// Forgets the logs of those who are no members any more and were not verified here, but for the ones seen last: members
/// that are invented and removed again must not fill the disk.
async fn forget_departed(tx: &mut Tx) -> Result<(), PartyError> {
    let step = tx.step();
    let mut kept = BTreeSet::new();
    for membership in memberships::all(tx.conn()).await? {
        kept.insert(membership.federation);
        kept.extend(membership.roster.document.members.iter().map(|m| m.site));
    }
    let verified: Vec<String> =
        sqlx::query_scalar("SELECT site FROM verified_peers").fetch_all(tx.conn()).await.at(step)?;
    for site in &verified {
        kept.insert(parse(site, "site")?);
    }
    let peers = Ledger::on(tx.conn()).peers().await.at(step)?;
    for origin in peers.into_iter().filter(|peer| !kept.contains(peer)).skip(limits::DEPARTED_PEERS) {
        Ledger::on(tx.conn()).forget_peer(origin).await.at(step)?;
    }
    Ok(())
}

fn name_of(membership: &Membership, site: SiteId) -> String {
    if site == membership.federation {
        return "the coordinator".into();
    }
    if site == membership.site {
        return "this site".into();
    }
    let member = membership.roster.document.members.iter().find(|m| m.site == site);
    member.map_or_else(|| site.to_string(), |m| format!("'{}'", m.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_settle_a_log_as_the_thresholds_of_a_round_say() {
        for (members, need) in [(3, 3), (4, 3), (5, 4), (6, 4), (7, 5), (10, 7)] {
            let all_verified = Electors { members, asserted: 0 };
            assert!(all_verified.settle(false, need).0, "{need} of {members}");
            assert!(!all_verified.settle(false, need - 1).0, "{} of {members}", need - 1);
        }
        for members in 0..=2 {
            assert!(!Electors { members, asserted: 0 }.settle(false, members).0, "a fork of {members}");
        }
    }

    #[test]
    fn members_that_are_asserted_only_never_settle_a_log_and_one_verified_lets_all_together() {
        for members in 3..=120 {
            for asserted in 0..members {
                let electors = Electors { members, asserted };
                // With this site's own cosignature, which it does not give its own log.
                assert!(!electors.settle(false, asserted + 1).0, "{asserted} of {members}");
                assert!(!electors.settle(true, asserted).0, "{asserted} of {members}");
                let is_one_verified = asserted + 1 < members;
                assert_eq!(electors.settle(false, members).0, is_one_verified, "{asserted} of {members}");
                assert_eq!(electors.settle(true, members - 1).0, is_one_verified, "{asserted} of {members}");
            }
        }
    }
}
