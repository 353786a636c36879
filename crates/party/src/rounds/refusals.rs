//! What a coordinator causes as often as it likes, and how much of it is entered in the ledger one by one. A ledger that
//! fills the disk stops the site: what is refused as before, or beyond a limit, is counted in the hourly summary instead.

use std::collections::HashMap;

use hospes_ledger::{Action, Actor, Entry};
use hospes_protocol::approval::Refusal;
use hospes_protocol::id::{Digest, FederationId, JobId, Timestamp};
use hospes_protocol::limits;

use crate::engine::Engine;
use crate::error::PartyError;
use crate::store::{At as _, Tx, signed};
use crate::view::Notice;

/// How long a limit within an hour is good for, in milliseconds.
const HOUR_MS: i64 = 3_600 * 1_000;
/// Runs of which the last refusal is remembered, and documents.
const REMEMBERED: usize = 1_000;
/// Raised where a document is refused without an entry: whoever reads the log has to know that there was more.
const MUCH_IS_REFUSED: &str = "more of what the coordinator sent was refused within an hour than is entered one by one \
                               (limit REFUSALS); the rest is counted in the log. Ask the operator what is wrong";
/// Why a federation cannot offer another study now. Each is an alarm too, so that it says what helps.
const MANY_WAIT: &str = "as many requests of this federation as the site keeps wait for a decision here (limit STUDIES). \
                         Decide on those; then it can be submitted anew";
const MANY_CAME: &str = "the federation offered as many requests within an hour as the site takes (limit STUDIES). Later \
                         it can be submitted anew";

/// What is limited within an hour, for each federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Often {
    Refusal,
    Roster,
    Vouch,
    /// A vouch of a member that was verified here; those of others, which may be invented, must not hide it.
    TrustedVouch,
    Study,
    /// A first checkpoint of a log.
    First,
    TrustedFirst,
    /// A contradiction that nothing proves.
    Contradiction,
    TrustedContradiction,
    /// A proof from beyond the end of this site's log is asked for.
    LostTail,
    /// Somebody else answers for the coordinator.
    Stranger,
    /// Another epoch is named.
    Epoch,
    /// The clocks differ.
    Clock,
}

impl Often {
    fn most(self) -> usize {
        match self {
            Self::Refusal => limits::REFUSALS,
            Self::Roster | Self::Vouch | Self::TrustedVouch => limits::MEMBER_ENTRIES,
            Self::Study => limits::STUDIES,
            Self::First | Self::TrustedFirst | Self::Contradiction | Self::TrustedContradiction | Self::LostTail => {
                limits::WITNESS_ENTRIES
            }
            Self::Stranger | Self::Epoch | Self::Clock => limits::GREETINGS,
        }
    }
}

/// What was refused lately, and how often what is limited happened.
#[derive(Default)]
pub(crate) struct Refusals {
    last: HashMap<(FederationId, JobId), Refusal>,
    /// Documents that were not taken, and why.
    documents: HashMap<(FederationId, Digest), String>,
    /// How often, and since when that is counted.
    counted: HashMap<(FederationId, Often), (Timestamp, usize)>,
}

impl Refusals {
    /// Whether this is what was last said about a run.
    pub(super) fn is_repeated(&self, federation: FederationId, job: JobId, refusal: &Refusal) -> bool {
        self.last.get(&(federation, job)) == Some(refusal)
    }

    /// Remembers the answer about a run, once it is durable.
    pub(super) fn remember(&mut self, federation: FederationId, job: JobId, answer: Option<&Refusal>) {
        match answer {
            None => drop(self.last.remove(&(federation, job))),
            Some(refusal) => {
                if self.last.len() >= REMEMBERED {
                    self.last.clear();
                }
                self.last.insert((federation, job), refusal.clone());
            }
        }
    }

    /// Whether another refusal of a federation is entered now; the entry counts.
    pub(super) fn is_entered(&mut self, federation: FederationId, now: Timestamp) -> bool {
        self.take(federation, Often::Refusal, now)
    }

    /// Whether a document was refused before for the same reason.
    fn is_known(&self, federation: FederationId, document: Digest, reason: &str) -> bool {
        self.documents.get(&(federation, document)).is_some_and(|known| known == reason)
    }

    /// Remembers why a document was refused, once it is durable.
    fn know(&mut self, federation: FederationId, document: Digest, reason: &str) {
        if self.documents.len() >= REMEMBERED {
            self.documents.clear();
        }
        self.documents.insert((federation, document), reason.to_owned());
    }

    /// Counts once more; false if that is more than the limit within an hour.
    fn take(&mut self, federation: FederationId, what: Often, now: Timestamp) -> bool {
        let (since, count) = self.counted.entry((federation, what)).or_insert((now, 0));
        if !is_within_an_hour(*since, now) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= what.most()
    }

    /// Whether it may happen once more now.
    fn has_room(&self, federation: FederationId, what: Often, now: Timestamp) -> bool {
        let counted = self.counted.get(&(federation, what));
        counted.is_none_or(|(since, count)| !is_within_an_hour(*since, now) || *count < what.most())
    }
}

fn is_within_an_hour(since: Timestamp, now: Timestamp) -> bool {
    (0..HOUR_MS).contains(&now.since(since))
}

impl Engine {
    /// Whether the next refusal of a federation is entered, and so may come with an alarm in words of its own. Beyond the
    /// limit each would be another one, and alarms that nobody has seen stay.
    pub(crate) fn enters_refusal(&self, federation: FederationId) -> bool {
        self.refusals.has_room(federation, Often::Refusal, self.now())
    }

    /// Ends a step in which a document that the coordinator sent is not taken. The same one, refused for the same reason,
    /// is entered once, and none beyond the limit.
    pub(crate) async fn refuse_document(
        &mut self,
        mut tx: Tx,
        federation: FederationId,
        document: Digest,
        entry: Entry,
        reason: &str,
    ) -> Result<(), PartyError> {
        if self.refusals.is_known(federation, document, reason) {
            self.count_control(federation, false, "refused again");
        } else {
            if !self.enters_refusal(federation) {
                self.alarm(&mut tx, Some(federation), MUCH_IS_REFUSED).await?;
            }
            self.enter_refusal(&mut tx, federation, entry, reason).await?;
        }
        tx.commit().await?;
        self.refusals.know(federation, document, reason);
        self.notify(Notice::Audit);
        Ok(())
    }

    /// Enters that a roster was taken; beyond the limit it is only counted.
    pub(crate) async fn enter_roster(
        &mut self,
        tx: &mut Tx,
        federation: FederationId,
        entry: &Entry,
    ) -> Result<(), PartyError> {
        let counted = "roster taken without an entry (limit MEMBER_ENTRIES)";
        self.enter_often(tx, federation, Often::Roster, entry, counted).await
    }

    /// Enters that a vouch was taken; beyond the limit it is only counted.
    pub(crate) async fn enter_vouch(
        &mut self,
        tx: &mut Tx,
        federation: FederationId,
        is_trusted: bool,
        entry: &Entry,
    ) -> Result<(), PartyError> {
        let what = if is_trusted { Often::TrustedVouch } else { Often::Vouch };
        let counted = "vouch taken without an entry (limit MEMBER_ENTRIES)";
        self.enter_often(tx, federation, what, entry, counted).await
    }

    /// Enters the first checkpoint of a log; beyond the limit it is only counted. Logs of those whose keys are known from
    /// elsewhere than the coordinator (`is_known`) have a limit of their own, which no invented member uses up.
    pub(crate) async fn enter_first_checkpoint(
        &mut self,
        tx: &mut Tx,
        federation: FederationId,
        is_known: bool,
        entry: &Entry,
    ) -> Result<(), PartyError> {
        let what = if is_known { Often::TrustedFirst } else { Often::First };
        let counted = "first checkpoint taken without an entry (limit WITNESS_ENTRIES)";
        self.enter_often(tx, federation, what, entry, counted).await
    }

    /// Whether another contradiction that nothing proves is kept and entered now; if not, it is counted.
    pub(crate) fn keeps_contradiction(&mut self, federation: FederationId, is_known: bool) -> bool {
        let what = if is_known { Often::TrustedContradiction } else { Often::Contradiction };
        let is_kept = self.refusals.take(federation, what, self.now());
        if !is_kept {
            self.count_control(federation, false, "contradiction without an entry (limit WITNESS_ENTRIES)");
        }
        is_kept
    }

    /// Enters that a proof from beyond the end of this site's log was asked for; beyond the limit it is only counted.
    pub(crate) async fn enter_lost_tail(
        &mut self,
        tx: &mut Tx,
        federation: FederationId,
        entry: &Entry,
    ) -> Result<(), PartyError> {
        let counted = "proof beyond the log's end asked for without an entry (limit WITNESS_ENTRIES)";
        self.enter_often(tx, federation, Often::LostTail, entry, counted).await
    }

    /// Enters what is wrong with a greeting; beyond the limit it is only counted. Each action has a limit of its own: that
    /// clocks differ, which happens, must hide nothing else.
    pub(crate) async fn enter_greeting(
        &mut self,
        tx: &mut Tx,
        federation: FederationId,
        action: Action,
        words: &str,
    ) -> Result<(), PartyError> {
        let (what, counted) = match &action {
            Action::PeerRefused => (Often::Stranger, "greeting of a stranger without an entry (limit GREETINGS)"),
            Action::SettingsChanged => (Often::Epoch, "greeting in another epoch without an entry (limit GREETINGS)"),
            _ => (Often::Clock, "greeting at another time without an entry (limit GREETINGS)"),
        };
        let entry = self.entry(Actor::peer(federation), action).refused(words);
        self.enter_often(tx, federation, what, &entry, counted).await
    }

    async fn enter_often(
        &mut self,
        tx: &mut Tx,
        federation: FederationId,
        what: Often,
        entry: &Entry,
        counted: &'static str,
    ) -> Result<(), PartyError> {
        if self.refusals.take(federation, what, self.now()) {
            return self.append(tx, entry).await.map(drop);
        }
        self.count_control(federation, false, counted);
        Ok(())
    }

    /// Why a federation cannot offer another study now: so many wait for a decision here, or came within the hour.
    pub(crate) async fn against_another_study(
        &self,
        tx: &mut Tx,
        federation: FederationId,
    ) -> Result<Option<&'static str>, PartyError> {
        let step = tx.step();
        let waiting: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM studies WHERE federation = ?1 AND state IN ('received', 'under_review')",
        )
        .bind(federation.to_string())
        .fetch_one(tx.conn())
        .await
        .at(step)?;
        if usize::try_from(waiting).is_ok_and(|waiting| waiting >= limits::STUDIES) {
            return Ok(Some(MANY_WAIT));
        }
        Ok((!self.refusals.has_room(federation, Often::Study, self.now())).then_some(MANY_CAME))
    }

    /// Counts a study that is taken. Those that were withdrawn before anybody here had a say are forgotten, but for the
    /// newest: offering and taking back must not fill the disk either.
    pub(crate) async fn count_study(&mut self, tx: &mut Tx, federation: FederationId) -> Result<(), PartyError> {
        self.refusals.take(federation, Often::Study, self.now());
        let step = tx.step();
        sqlx::query(
            "DELETE FROM studies WHERE study IN (
                SELECT study FROM studies WHERE federation = ?1 AND state = 'withdrawn'
                   AND study NOT IN (SELECT study FROM opinions)
                   AND study NOT IN (SELECT study FROM approvals)
                   AND study NOT IN (SELECT study FROM jobs)
                ORDER BY at DESC, study DESC LIMIT -1 OFFSET ?2)",
        )
        .bind(federation.to_string())
        .bind(signed(limits::STUDIES as u64))
        .execute(tx.conn())
        .await
        .at(step)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::approval::RefusalCode;
    use hospes_protocol::id::SiteId;

    #[test]
    fn so_many_are_entered_in_an_hour_of_each_federation() {
        let mut refusals = Refusals::default();
        let (one, other) = (SiteId::from_bytes([1; 16]), SiteId::from_bytes([2; 16]));
        let mut entered = |federation, ms| refusals.is_entered(federation, Timestamp::from_millis(ms));
        let first = (0..500).filter(|n| entered(one, *n)).count();
        assert_eq!(first, limits::REFUSALS);
        assert!(entered(other, 500) && !entered(one, HOUR_MS - 1) && entered(one, HOUR_MS));
        // A clock that was turned back does not silence the ledger.
        assert!(entered(one, 5));
    }

    #[test]
    fn vouches_of_invented_members_use_up_nothing_that_a_verified_one_has() {
        let mut refusals = Refusals::default();
        let (federation, now) = (SiteId::from_bytes([1; 16]), Timestamp::from_millis(0));
        let entered = (0..500).filter(|_| refusals.take(federation, Often::Vouch, now)).count();
        assert_eq!(entered, limits::MEMBER_ENTRIES);
        assert!(!refusals.has_room(federation, Often::Vouch, now));
        assert!(refusals.take(federation, Often::TrustedVouch, now) && refusals.take(federation, Often::Roster, now));
        assert!(refusals.has_room(federation, Often::Vouch, Timestamp::from_millis(HOUR_MS)));
    }

    #[test]
    fn a_document_is_known_by_why_it_was_refused() {
        let mut refusals = Refusals::default();
        let federation = SiteId::from_bytes([1; 16]);
        refusals.know(federation, Digest::of(b"one"), "forged");
        assert!(refusals.is_known(federation, Digest::of(b"one"), "forged"));
        assert!(!refusals.is_known(federation, Digest::of(b"one"), "too many"));
        assert!(!refusals.is_known(SiteId::from_bytes([2; 16]), Digest::of(b"one"), "forged"));
        for n in 0..3 * REMEMBERED {
            refusals.know(federation, Digest::of(&n.to_le_bytes()), "forged");
        }
        assert!(refusals.documents.len() <= REMEMBERED);
    }

    #[test]
    fn a_refusal_is_repeated_until_another_answer_is_given() {
        let mut refusals = Refusals::default();
        let (federation, job) = (SiteId::from_bytes([1; 16]), JobId::new(Timestamp::from_millis(1), [1; 10]));
        let [stopped, revoked] = [RefusalCode::Stopped, RefusalCode::Revoked].map(|code| Refusal::new(code, "words"));
        assert!(!refusals.is_repeated(federation, job, &stopped));
        refusals.remember(federation, job, Some(&stopped));
        assert!(refusals.is_repeated(federation, job, &stopped) && !refusals.is_repeated(federation, job, &revoked));
        refusals.remember(federation, job, None);
        assert!(!refusals.is_repeated(federation, job, &stopped));
        for n in 0..3 * REMEMBERED {
            let job = JobId::new(Timestamp::from_millis(i64::try_from(n).unwrap()), [0; 10]);
            refusals.remember(federation, job, Some(&stopped));
        }
        assert!(refusals.last.len() <= REMEMBERED);
    }
}
