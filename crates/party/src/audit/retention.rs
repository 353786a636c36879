//! Retention: after so many months, who, what about and why are erased from the log's entries. When something happened,
//! what it was and how it ended stay, and every proof holds.

use hospes_ledger::{Action, Actor, Erasure, Ledger, ObjectKind, Retention};
use hospes_protocol::approval::Role;
use sqlx::sqlite::SqliteConnection;

use super::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::{Acting, Passphrase, ProposedChange, Session, phase};
use crate::store::{At as _, Tx, set_setting, setting};
use crate::view::{Notice, Outcome, Phase};

/// Entries looked at in one step, so that the engine does nothing else for no longer than a moment.
const BATCH: u64 = 5_000;
/// Between two erasures, in milliseconds; each is an entry itself.
const ERASE_MS: i64 = 24 * 3_600 * 1_000;

/// Names of the settings.
const SETTING: &str = "audit_retention_months";
const ERASED_TO: &str = "audit_erased_to";

/// Months that somebody set; `None` keeps entries for good.
async fn months(conn: &mut SqliteConnection) -> Result<Option<u32>, PartyError> {
    let months: Option<u32> = setting(conn, SETTING).await?.and_then(|text| text.parse().ok());
    Ok(months.filter(|months| Retention::MONTHS.contains(months)))
}

/// Sets the months, within a step.
pub(crate) async fn store(
    engine: &Engine,
    tx: &mut Tx,
    acting: &Acting,
    months: Option<u32>,
) -> Result<(), PartyError> {
    // Here, because a proposal may be older than what the IT set.
    engine.managed.check_retention(months)?;
    set_setting(tx.conn(), SETTING, months.map(|m| m.to_string()).as_deref()).await?;
    let entry = engine
        .entry(acting.signing(), Action::SettingsChanged)
        .object(ObjectKind::Settings, "audit retention", None)
        .because(words(months));
    engine.append(tx, &entry).await?;
    Ok(())
}

/// A setting in words.
pub(crate) fn words(months: Option<u32>) -> String {
    match months {
        Some(months) => format!("entries of the audit log are erased after {months} months"),
        None => "entries of the audit log are kept for good".to_owned(),
    }
}

impl Engine {
    pub(crate) async fn audit_retention(&mut self, session: Session) -> Result<Option<u32>, PartyError> {
        self.acting(&session, "see settings", &[]).await?;
        let mut conn = self.reader().await?;
        self.retention(&mut conn).await
    }

    /// Months after which entries are erased: those that somebody set, or more where the hospital's IT wants more.
    async fn retention(&self, conn: &mut SqliteConnection) -> Result<Option<u32>, PartyError> {
        Ok(self.managed.at_least_kept(months(conn).await?))
    }

    pub(crate) async fn set_audit_retention(
        &mut self,
        session: Session,
        wanted: Option<u32>,
        passphrase: Passphrase,
    ) -> Result<Outcome, PartyError> {
        let acting = self.acting(&session, "change the retention of the audit log", &[Role::Administrator]).await?;
        let allowed = Retention::MONTHS;
        if wanted.is_some_and(|months| !allowed.contains(&months)) {
            let reason = format!("between {} and {} months, or none", allowed.start(), allowed.end());
            return Err(PartyError::input("retention", reason));
        }
        self.held_to(&acting, Action::SettingsChanged, self.managed.check_retention(wanted)).await?;
        let key = self.unlock(acting.person, passphrase).await?;
        let mut tx = self.store.begin("change the retention").await?;
        // Erasing sooner takes evidence away; keeping longer does not.
        let forever = u32::MAX;
        let sooner = wanted.unwrap_or(forever) < self.retention(tx.conn()).await?.unwrap_or(forever);
        let outcome = if sooner && phase(tx.conn()).await? == Phase::Operating {
            self.do_or_propose(tx, &acting, &key, ProposedChange::AuditRetention { months: wanted }).await?
        } else {
            store(self, &mut tx, &acting, wanted).await?;
            tx.commit().await?;
            Outcome::Done { code: None }
        };
        self.notify(Notice::Settings);
        Ok(outcome)
    }

    /// Erases a batch of what is older than the rule says, once a day and until none is left.
    pub(crate) async fn tick_retention(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        // Whoever reads the log would hold on to what is erased, and the engine would wait.
        if now.since(self.erased) < ERASE_MS || self.watch.is_reading() {
            return Ok(());
        }
        let mut conn = self.reader().await?;
        let Some(rule) = self.retention(&mut conn).await?.and_then(Retention::of_months) else {
            self.erased = now;
            return Ok(());
        };
        drop(conn);
        let mut tx = self.store.begin("erase old entries").await?;
        // What an approval in force rests on stays, however old.
        let open: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(at) FROM approvals WHERE state IN ('partly_approved', 'active', 'suspended')",
        )
        .fetch_one(tx.conn())
        .await
        .at("erase old entries")?;
        let before = rule.before(now).as_millis();
        let erasure = Erasure {
            before_ms: open.map_or(before, |open| open.min(before)),
            actor: None,
            fields: Retention::FIELDS.to_vec(),
            rule: rule.to_string(),
        };
        let start = setting(tx.conn(), ERASED_TO).await?.and_then(|text| text.parse().ok()).unwrap_or(0);
        let (changed, next) = Ledger::on(tx.conn()).erase_from(&erasure, start, BATCH).await.at("erase old entries")?;
        if let Some(next) = next {
            set_setting(tx.conn(), ERASED_TO, Some(&next.to_string())).await?;
        }
        if changed > 0 {
            // Without this entry, its time, its rule and its range, no verification takes the erasure for ours.
            let entry = self
                .entry(Actor::Engine, Action::AuditErased)
                .object(ObjectKind::Entries, Retention::names(&(start..=next.unwrap_or(start).saturating_sub(1))), None)
                .because(rule.tells(changed));
            self.append(&mut tx, &entry).await?;
        }
        tx.commit().await?;
        if next.is_none() {
            self.erased = now;
            // What was erased is overwritten in the file, and must not stay in its log either.
            self.store.merge_log().await?;
        }
        if changed > 0 {
            self.notify(Notice::Audit);
        }
        Ok(())
    }
}
