//! Witnessing: this site's checkpoints are shown to the coordinator and, through it, to the other members; theirs are
//! checked and cosigned here. A log that was rewritten, cut or forked is an alarm.

use std::collections::BTreeSet;

use hospes_ledger::{Action, Actor, Contradiction, Ledger, ObjectKind, Verdict, Witnessing};
use hospes_ledger::{Settlement, settled, witness};
use hospes_protocol::id::{FederationId, SiteId, Timestamp};
use hospes_protocol::message::{FromSite, Witness};
use hospes_protocol::sign::PublicKey;

use crate::engine::Engine;
use crate::error::PartyError;
use crate::memberships::{self, Membership};
use crate::people::Session;
use crate::store::{At as _, Tx};
use crate::view::{Notice, WitnessState};

impl Engine {
    /// Shows this site's checkpoint to a coordinator, with a proof from what it cosigned last.
    pub(crate) async fn show_checkpoint(&mut self, federation: FederationId) -> Result<(), PartyError> {
        self.show_from(federation, None).await
    }

    async fn show_from(&mut self, federation: FederationId, from: Option<u64>) -> Result<(), PartyError> {
        if !self.links.get(&federation).is_some_and(crate::memberships::Link::is_connected) {
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
        let shown = match ledger.show(&key, from, now).await {
            Ok(shown) => shown,
            Err(hospes_ledger::LedgerError::OutOfRange { size, asked }) => {
                let words = format!(
                    "the coordinator has seen {asked} entries of this site's log, which has {size} now: \
                     the tail of the log is gone, or an old backup was restored"
                );
                self.alarm(&mut tx, Some(federation), &words).await?;
                let entry = self.entry(Actor::peer(federation), Action::WitnessFailed).failed(&words);
                self.append(&mut tx, &entry).await?;
                return tx.commit().await;
            }
            Err(error) => return Err(error).at("show a checkpoint"),
        };
        tx.commit().await?;
        if let Some(link) = self.links.get_mut(&federation) {
            link.shown = Some(now);
        }
        self.say(federation, FromSite::Witness(shown));
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
        for federation in due {
            self.show_checkpoint(federation).await?;
        }
        Ok(())
    }

    pub(crate) async fn on_witness(&mut self, federation: FederationId, message: Witness) -> Result<(), PartyError> {
        match message {
            Witness::Show { origin, checkpoint, old_size, proof } => {
                self.judge(federation, origin, &checkpoint, old_size, &proof).await
            }
            Witness::ProveFrom { origin, size } => {
                let mut conn = self.reader().await?;
                let own = memberships::by_id(&mut conn, federation).await?.site == origin;
                drop(conn);
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
                if *first {
                    let entry = self.entry(Actor::peer(origin), Action::WitnessFirst);
                    let entry = entry.object(ObjectKind::Checkpoint, body.size, Some(body.root));
                    self.append(&mut tx, &entry).await?;
                }
            }
            Verdict::ProveFrom { .. } => {}
            Verdict::Contradiction { detail, signed } => {
                self.contradiction(&mut tx, &membership, origin, membership.site, detail, note, *signed).await?;
            }
        }
        tx.commit().await?;
        self.say(federation, FromSite::Witness(verdict.reply(origin, membership.site)));
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "evidence has as many parts")]
    async fn contradiction(
        &self,
        tx: &mut Tx,
        membership: &Membership,
        origin: SiteId,
        witness: SiteId,
        detail: &str,
        note: &str,
        signed: bool,
    ) -> Result<(), PartyError> {
        let detail = hospes_protocol::text::shown(detail, 400);
        let found = Contradiction { origin, witness, at: self.now(), detail: detail.clone(), note: note.to_owned() };
        Ledger::on(tx.conn()).put_contradiction(&found).await.at("keep a contradiction")?;
        let whose = name_of(membership, origin);
        let proof = if signed { "" } else { " (its signature does not hold, so nobody is proven wrong)" };
        let words = format!("the log of {whose} contradicts what was seen of it before: {detail}{proof}");
        self.alarm(tx, Some(membership.federation), &words).await?;
        let entry = self.entry(Actor::peer(witness), Action::WitnessFailed).failed(&words);
        self.append(tx, &entry.object(ObjectKind::Site, origin, None)).await?;
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
            Ok(_) => tx.commit().await?,
            Err(hospes_ledger::LedgerError::Note(error)) => {
                tracing::warn!(%witness, %error, "a cosignature does not hold; it was not kept");
                return Ok(());
            }
            Err(error) => return Err(error).at("keep a cosignature"),
        }
        self.notify(Notice::Audit);
        Ok(())
    }

    /// Somebody says that a log contradicts itself. If it is ours, the people here must know.
    async fn on_contradiction(
        &mut self,
        federation: FederationId,
        origin: SiteId,
        witness: SiteId,
        detail: &str,
    ) -> Result<(), PartyError> {
        let mut tx = self.store.begin("hear of a contradiction").await?;
        let membership = memberships::by_id(tx.conn(), federation).await?;
        let known: BTreeSet<(SiteId, SiteId, String)> = Ledger::on(tx.conn())
            .contradictions()
            .await
            .at("hear of a contradiction")?
            .into_iter()
            .map(|c| (c.origin, c.witness, c.detail))
            .collect();
        if known.contains(&(origin, witness, hospes_protocol::text::shown(detail, 400))) {
            return Ok(());
        }
        self.contradiction(&mut tx, &membership, origin, witness, detail, "", true).await?;
        tx.commit().await
    }

    /// A coordinator checkpoint that too few members cosigned for a day is an alarm.
    pub(crate) async fn unsettled_alarms(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        let mut conn = self.reader().await?;
        let mut late = Vec::new();
        for membership in memberships::all(&mut conn).await? {
            let federation = membership.federation;
            let Some(peer) = Ledger::on(&mut *conn).peer(federation).await.at("look at witnesses")? else { continue };
            if now.since(peer.at) < witness::UNSETTLED_ALARM_MS {
                continue;
            }
            let state = self.witness_state(&mut conn, &membership, federation, peer.seen.size, Some(peer.at)).await?;
            if !state.settled && membership.roster.document.members.len() > 2 {
                late.push(federation);
            }
        }
        drop(conn);
        for federation in late {
            let words = "too few members cosigned the coordinator's log for a day: whether everybody sees the same log \
                         is not known";
            let mut tx = self.store.begin("alarm about witnesses").await?;
            let known: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM alarms WHERE words = ?1 AND seen_by IS NULL")
                .bind(words)
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
        let cosigned = Ledger::on(&mut *conn).cosignatures(origin, size).await.at("look at witnesses")?;
        let members: Vec<SiteId> = membership.roster.document.members.iter().map(|m| m.site).collect();
        let others = cosigned.iter().filter(|c| c.witness != origin).count();
        let by_members = cosigned.iter().filter(|c| members.contains(&c.witness)).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        // Nobody is assumed to collude beyond a third, as the thresholds of a round do.
        let colluding = count(members.len().div_ceil(3).saturating_sub(1));
        let settlement = settled(count(members.len()), colluding, count(by_members));
        let words = match settlement {
            Settlement::Settled => "enough members cosigned it: everybody sees the same log".to_owned(),
            Settlement::Waiting { have, need } => format!("{have} of {need} needed members cosigned it so far"),
            Settlement::ForkCannotBeExcluded => "with one or two members a fork cannot be excluded".to_owned(),
        };
        Ok(WitnessState {
            federation: membership.federation,
            origin,
            size,
            witnesses: count(others),
            at: seen.or_else(|| cosigned.iter().map(|c| c.at).max()),
            settled: settlement == Settlement::Settled,
            words,
        })
    }

    pub(crate) async fn verify_audit(&mut self, session: Session) -> Result<Vec<String>, PartyError> {
        self.acting(&session, "verify the audit log", &[]).await?;
        let mut conn = self.reader().await?;
        let memberships = memberships::all(&mut conn).await?;
        drop(conn);
        let mut words = Vec::new();
        let text = self.export_text(None).await?;
        let expected = hospes_ledger::Expectations {
            members: memberships.iter().flat_map(|m| m.roster.document.members.iter().map(|x| x.identity)).collect(),
            ..Default::default()
        };
        let report = hospes_ledger::verify(&mut text.as_slice(), &expected)
            .map_err(hospes_ledger::LedgerError::Write)
            .at("verify the audit log")?;
        match &report.finding {
            Some(finding) => words.push(format!("The log is NOT intact. {finding}.")),
            None => words.push(crate::view::LOG_IS_INTACT.to_owned()),
        }
        let witnesses = report.independent_witnesses();
        words.push(format!("{witnesses} independent witnesses cosigned it."));
        for state in self.witness_states().await? {
            let whose = if state.origin == state.federation { "The coordinator's log" } else { "This site's log" };
            words.push(format!("{whose} at {} entries: {}.", state.size, state.words));
        }
        Ok(words)
    }

    /// The whole ledger in the native form, signed with this site's identity in a federation.
    pub(crate) async fn export_text(&self, federation: Option<FederationId>) -> Result<Vec<u8>, PartyError> {
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
        let mut text = Vec::new();
        let now = self.now();
        Ledger::on(&mut *conn).export(&key, now, &mut text).await.at("export the audit log")?;
        Ok(text)
    }

    /// The key that signs exports of a site that belongs to no federation yet.
    async fn export_key(&self) -> Result<hospes_protocol::sign::SecretKey, PartyError> {
        const NAME: &str = "export-key";
        let seed: [u8; 32] = match self.vault.find(NAME).await?.map(|s| s.as_slice().try_into()) {
            Some(Ok(seed)) => seed,
            _ => {
                let seed = crate::keys::random::<32>()?;
                self.vault.keep(NAME, zeroize::Zeroizing::new(seed.to_vec())).await?;
                seed
            }
        };
        Ok(hospes_protocol::sign::SecretKey::from_seed(&zeroize::Zeroizing::new(seed)))
    }
}

/// Identity key of a member, or of the coordinator.
fn key_of(membership: &Membership, site: SiteId) -> Option<PublicKey> {
    if site == membership.federation {
        return Some(membership.coordinator);
    }
    membership.roster.document.members.iter().find(|m| m.site == site).map(|m| m.identity)
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
