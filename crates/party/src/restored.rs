//! After a restored backup: what this site must not do before its people and its witnesses have looked.
//!
//! A backup is older than what happened since. Opt-outs, revocations and signatures may be missing here, and other
//! parties may have seen entries of the log that are gone. So a restored site opens no link and trains nothing until two
//! people have confirmed it (one, while it is set up). Then it asks each coordinator for the last checkpoint of this
//! site's log that it has cosigned: if the log here contains it, nothing is lost. If it does not, the tail of the log is
//! lost, which is entered and shown once. Showing a log that contradicts the one before would only make every witness say
//! so for ever; instead all approvals and all verifications of keys end, of other federations too, since one log has the
//! revocations of them all, and the site joins that federation again under a new identity, as a log that nobody has seen yet.

use std::collections::BTreeMap;

use hospes_ledger::{Action, Actor, Ledger, LedgerError, ObjectKind, SignedCheckpoint};
use hospes_protocol::approval::Role;
use hospes_protocol::id::{Digest, FederationId, StudyId, Timestamp};
use hospes_protocol::message::{FromSite, Witness};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteConnection;

use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::memberships::{self, Membership};
use crate::people::{self, Acting, Passphrase, ProposedChange, Session};
use crate::pools;
use crate::requests;
use crate::store::{At as _, Tx, from_json, set_setting, setting, to_json};
use crate::view::{LostTail, Notice, Outcome, RestoredFederation, RestoredView};

const ADMINISTRATOR: &[Role] = &[Role::Administrator];
/// Name of the setting.
const SETTING: &str = "restored";
/// What the coordinator hears while nothing leaves.
pub(crate) const HELD: &str = "this site was restored from a backup, and its people look into it";
/// The alarm after the first start.
const RESTORED: &str = "This site was restored from a backup. Until an administrator and a second person confirm that \
                        (Settings, Backup), it connects to no federation and nothing is computed or sent. What happened \
                        since the backup is gone here: first import the opt-outs again, revoke what was revoked, and \
                        look at who has which role";
/// A coordinator's answer that would hide a lost tail.
const HIDES: &str = "asked what it has seen of this site's log, the coordinator named less than it has cosigned; nothing is \
                     computed until it names the rest. Ask the operator";

/// What is left to be done after a backup was restored. There is none where nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restored {
    /// SHA-256 of the backup.
    backup: Digest,
    /// When it was made, and entries of the log in it.
    made: Timestamp,
    entries: u64,
    /// When it was restored.
    at: Timestamp,
    /// From which account of the machine, where somebody of the staff asked the service for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<u32>,
    /// Whether the log has it.
    is_entered: bool,
    is_confirmed: bool,
    /// Federations with which this site cannot go on yet.
    federations: BTreeMap<FederationId, Check>,
}

/// How far the comparison with a federation's witness is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Check {
    /// It has not answered.
    Open,
    /// It has seen entries that are not here.
    Lost {
        /// Entries of the log that it has seen.
        seen: u64,
    },
}

impl Restored {
    /// Of a backup that is restored now.
    pub(crate) fn new(
        backup: Digest,
        made: Timestamp,
        entries: u64,
        at: Timestamp,
        federations: Vec<FederationId>,
    ) -> Self {
        let federations = federations.into_iter().map(|federation| (federation, Check::Open)).collect();
        Self { backup, made, entries, at, account: None, is_entered: false, is_confirmed: false, federations }
    }

    /// The same, asked for from this account of the machine.
    pub(crate) fn asked_from(self, account: Option<u32>) -> Self {
        Self { account, ..self }
    }

    /// The change that two people sign.
    fn change(&self) -> ProposedChange {
        ProposedChange::Restored { backup: self.backup, made: self.made }
    }

    fn is_done(&self) -> bool {
        self.is_entered && self.is_confirmed && self.federations.is_empty()
    }
}

/// What is left to be done.
pub(crate) async fn read(conn: &mut SqliteConnection) -> Result<Option<Restored>, PartyError> {
    setting(conn, SETTING).await?.map(|text| from_json(&text, SETTING)).transpose()
}

/// Keeps it, within a step, for as long as something is left.
pub(crate) async fn write(conn: &mut SqliteConnection, restored: &Restored) -> Result<(), PartyError> {
    let left = (!restored.is_done()).then(|| to_json(restored));
    set_setting(conn, SETTING, left.as_deref()).await
}

/// Whether nobody has confirmed the restored backup.
pub(crate) async fn is_unconfirmed(conn: &mut SqliteConnection) -> Result<bool, PartyError> {
    Ok(read(conn).await?.is_some_and(|restored| !restored.is_confirmed))
}

/// How far the comparison with a federation's witness is; `None` where there is nothing to compare.
pub(crate) async fn check(conn: &mut SqliteConnection, federation: FederationId) -> Result<Option<Check>, PartyError> {
    Ok(read(conn).await?.and_then(|restored| restored.federations.get(&federation).copied()))
}

/// Whether nothing derived may leave to a federation. While one witness has not answered, nothing is computed for any:
/// what this site did for that one counts for all. A federation that was left is asked when it is joined again.
pub(crate) async fn holds(conn: &mut SqliteConnection, federation: FederationId) -> Result<bool, PartyError> {
    let Some(restored) = read(conn).await? else { return Ok(false) };
    if !restored.is_confirmed || restored.federations.contains_key(&federation) {
        return Ok(true);
    }
    for (other, check) in &restored.federations {
        if *check == Check::Open && memberships::left(conn, *other).await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Within the step in which the site leaves a federation: one that has not said what it has seen of the log is not waited for
/// any more, and what left for it after the backup stays unknown.
pub(crate) async fn leave(conn: &mut SqliteConnection, federation: FederationId) -> Result<(), PartyError> {
    let Some(restored) = read(conn).await? else { return Ok(()) };
    if restored.federations.get(&federation) == Some(&Check::Open) {
        pools::lose(conn, restored.made).await?;
    }
    Ok(())
}

/// Within the step in which the site joins a federation under another identity than before: nobody has seen that log yet.
pub(crate) async fn forget(conn: &mut SqliteConnection, federation: FederationId) -> Result<(), PartyError> {
    let Some(mut restored) = read(conn).await? else { return Ok(()) };
    if restored.federations.remove(&federation).is_some() {
        write(conn, &restored).await?;
    }
    Ok(())
}

/// Takes the confirmation in, within the step of whoever signed last.
pub(crate) async fn confirm(engine: &Engine, tx: &mut Tx, acting: &Acting, backup: Digest) -> Result<(), PartyError> {
    let waits = read(tx.conn()).await?.filter(|restored| !restored.is_confirmed && restored.backup == backup);
    let Some(mut restored) = waits else { return Err(nothing_waits()) };
    restored.is_confirmed = true;
    write(tx.conn(), &restored).await?;
    let entry = engine
        .entry(acting.signing(), Action::BackupRestored)
        .object(ObjectKind::Backup, "backup", Some(backup))
        .because("confirmed");
    engine.append(tx, &entry).await.map(drop)
}

fn nothing_waits() -> PartyError {
    PartyError::state("no restored backup waits to be confirmed")
}

/// What the proposal says to whoever signs second.
pub(crate) fn words(made: Timestamp) -> String {
    format!(
        "go on after the backup of {made} was restored: everything since then (opt-outs, revocations, roles, new keys) is \
         gone here, and was entered again where it must be"
    )
}

impl Engine {
    /// Enters, at the first start, that a backup was restored.
    pub(crate) async fn enter_restored(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let found = read(&mut conn).await?.filter(|restored| !restored.is_entered);
        drop(conn);
        let Some(mut restored) = found else { return Ok(()) };
        self.forget_sessions().await?;
        let mut tx = self.store.begin("enter a restored backup").await?;
        restored.is_entered = true;
        write(tx.conn(), &restored).await?;
        let mut words = format!("made {}, with {} entries of the log", restored.made, restored.entries);
        if let Some(account) = restored.account {
            // Nobody had logged in: the machine says at least from where they came.
            words += &format!("; restored by the socket for staff, account {account} of the machine");
        }
        let entry = self
            .entry(Actor::Engine, Action::BackupRestored)
            .object(ObjectKind::Backup, "backup", Some(restored.backup))
            .because(words);
        self.append(&mut tx, &entry).await?;
        self.alarm(&mut tx, None, RESTORED).await?;
        tx.commit().await
    }

    pub(crate) async fn restored(&mut self, session: Session) -> Result<Option<RestoredView>, PartyError> {
        self.acting(&session, "see settings", &[]).await?;
        let mut conn = self.reader().await?;
        let Some(restored) = read(&mut conn).await? else { return Ok(None) };
        let mut federations = Vec::new();
        for (federation, check) in &restored.federations {
            let name = memberships::by_id(&mut conn, *federation).await?.name;
            let lost = match check {
                Check::Open => None,
                Check::Lost { seen } => Some(LostTail { seen: *seen, restored: restored.entries }),
            };
            federations.push(RestoredFederation { federation: *federation, name, lost });
        }
        let Restored { backup, made, entries, at, is_confirmed, .. } = restored;
        Ok(Some(RestoredView { backup, made, entries, at, confirmed: is_confirmed, federations }))
    }

    pub(crate) async fn confirm_restore(
        &mut self,
        session: Session,
        passphrase: Passphrase,
    ) -> Result<Outcome, PartyError> {
        let acting = self.inside(&session, "confirm a restored backup", ADMINISTRATOR).await?;
        let key = self.unlock(acting.person, passphrase).await?;
        let mut tx = self.store.begin("confirm a restored backup").await?;
        let waits = read(tx.conn()).await?.filter(|restored| !restored.is_confirmed);
        let Some(restored) = waits else { return Err(nothing_waits()) };
        let change = restored.change();
        if people::waits(&mut tx, &change).await? {
            return Err(PartyError::state("it is confirmed already, and waits for another person's signature"));
        }
        let outcome = self.do_or_propose(tx, &acting, &key, change).await?;
        if matches!(outcome, Outcome::Done { .. }) {
            self.open_links().await?;
        }
        Ok(outcome)
    }

    /// Asks a coordinator what it has seen of this site's log, where that is not known after a restored backup. True while
    /// this site's log is not to be shown there.
    pub(crate) async fn asks_witness(&mut self, federation: FederationId) -> Result<bool, PartyError> {
        let mut conn = self.reader().await?;
        let Some(check) = check(&mut conn, federation).await? else { return Ok(false) };
        let origin = memberships::by_id(&mut conn, federation).await?.site;
        let size = Ledger::on(&mut *conn).cosigned_size(origin, federation).await.at("ask a witness")?;
        drop(conn);
        let now = self.now();
        if let Some(link) = self.links.get_mut(&federation) {
            link.shown = Some(now);
        }
        if check == Check::Open {
            self.say(federation, FromSite::Witness(Witness::ProveFrom { origin, size }));
        }
        Ok(true)
    }

    /// The coordinator says what it has seen of this site's log: the last checkpoint that it cosigned, or nothing.
    pub(crate) async fn on_seen(&mut self, federation: FederationId, note: &str) -> Result<(), PartyError> {
        let mut tx = self.store.begin("compare with a witness").await?;
        if check(tx.conn(), federation).await? != Some(Check::Open) {
            return Ok(());
        }
        let membership = memberships::by_id(tx.conn(), federation).await?;
        let mut ledger = Ledger::on(tx.conn());
        let cosigned = ledger.cosigned_size(membership.site, federation).await.at("compare with a witness")?;
        let Some((size, root)) = self.seen(&membership, note).await? else { return Ok(()) };
        if size < cosigned {
            self.alarm(&mut tx, Some(federation), HIDES).await?;
            return tx.commit().await;
        }
        if size == 0 {
            return self.nothing_lost(tx, federation).await;
        }
        let is_here = match Ledger::on(tx.conn()).root(size).await {
            Ok(here) => here == root,
            Err(LedgerError::OutOfRange { .. }) => false,
            Err(error) => return Err(error).at("compare with a witness"),
        };
        match is_here {
            true => self.nothing_lost(tx, federation).await,
            false => self.tail_lost(tx, federation, size, root).await,
        }
    }

    /// What a coordinator's note says, if this site and the coordinator signed it.
    async fn seen(&self, membership: &Membership, note: &str) -> Result<Option<(u64, Digest)>, PartyError> {
        if note.is_empty() {
            return Ok(Some((0, Digest::of(b""))));
        }
        let own = self.identity(membership).await?.public();
        let signed = match SignedCheckpoint::parse(note, &own) {
            Ok(signed) if signed.cosigned_by(&membership.coordinator).is_some() => signed,
            _ => {
                let federation = membership.federation;
                tracing::warn!(%federation, "a checkpoint that is not signed by this site and its witness says nothing");
                return Ok(None);
            }
        };
        let seen = signed.checkpoint();
        Ok(Some((seen.size, seen.root)))
    }

    /// The log here has everything that the witness has seen: this site goes on with the federation.
    async fn nothing_lost(&mut self, mut tx: Tx, federation: FederationId) -> Result<(), PartyError> {
        forget(tx.conn(), federation).await?;
        let entry = self
            .entry(Actor::Engine, Action::BackupRestored)
            .object(ObjectKind::Federation, federation, None)
            .because("compared with the witness: every entry that it has seen is here");
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Settings);
        Box::pin(self.repeat_what_is_owed(federation)).await
    }

    /// The witness has seen entries that are not here. It is entered and shown once, and the approvals and the verifications of
    /// other sites' keys end: whether they were revoked in what is lost cannot be known, for whichever federation they were given.
    async fn tail_lost(
        &mut self,
        mut tx: Tx,
        federation: FederationId,
        seen: u64,
        root: Digest,
    ) -> Result<(), PartyError> {
        let Some(mut restored) = read(tx.conn()).await? else { return Ok(()) };
        restored.federations.insert(federation, Check::Lost { seen });
        write(tx.conn(), &restored).await?;
        // PRIVACY: what left since the backup was charged in what is lost. Neither the checkpoint nor a receipt says what it
        // was, so that no budget can be kept to any more.
        pools::lose(tx.conn(), restored.made).await?;
        let words = format!(
            "the end of this site's log is lost: the coordinator has cosigned {seen} entries of it, and the backup that was \
             restored has {}, or others. Nothing is computed for this federation under the identity so far, and all \
             approvals of this site have ended, since some may have been revoked in what is lost, and so have all verifications \
             of other sites' keys: compare their words anew. Ask the operator to revoke that identity and to send a new \
             invitation; this site then joins under a new one, and studies are approved anew",
            restored.entries
        );
        self.alarm(&mut tx, Some(federation), &words).await?;
        let entry = self
            .entry(Actor::peer(federation), Action::WitnessFailed)
            .object(ObjectKind::Checkpoint, seen, Some(root))
            .failed(&words);
        self.append(&mut tx, &entry).await?;
        let reason = "the end of this site's log was lost when a backup was restored";
        let mut studies: Vec<StudyId> = Vec::new();
        for membership in memberships::all(tx.conn()).await? {
            studies.extend(requests::end_approvals(self, &mut tx, membership.federation, reason).await?);
            self.end_all_verifications(&mut tx, &membership, reason).await?;
        }
        tx.commit().await?;
        for study in studies {
            self.say_decision(study).await?;
        }
        for notice in [Notice::Settings, Notice::Requests, Notice::Federations, Notice::Audit] {
            self.notify(notice);
        }
        self.recheck_work().await
    }
}
