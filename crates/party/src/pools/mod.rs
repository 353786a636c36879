//! The site's own privacy ledger: what was released of whom, over all studies and federations.
//!
//! The account is a pool of subjects, not a dataset: who registers the same patients again has no new budget (`members`).
//! Each payload is charged in the transaction that enters it in the outbox, and what the budget does not admit is refused
//! before anything is computed and again in that transaction. A Rényi filter enforces ([`Budget`]): its order follows from
//! the policy alone. A release without differential privacy is entered as such; nothing bounds it, and the pool says so from
//! then on (`show`). Why so: docs/adr/0042-privacy-ledger.md.

mod members;
mod show;

use hospes_cohort::Released;
use hospes_privacy::dp::{Budget, Curve, Delta, Release, Training};
use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::id::{DatasetId, Digest, RoundKey, StudyId, Timestamp};
use hospes_protocol::plan::{self, Component, Plan};
use hospes_protocol::policy::PrivacyRules;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::error::PartyError;
use crate::store::{At as _, Tx, bad_column, from_json, parse, set_setting, setting, signed, to_json, unsigned};

pub(crate) use members::{Joining, join};
pub(crate) use show::study_budget;

/// Name of the setting that says since when it is not known what was released.
const LOST: &str = "privacy_lost";
/// Bytes of a divergence in the database.
const BYTES: usize = 8;

/// What a release costs the subjects whose rows are in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Charge {
    /// Noisy sums of what each subject adds at most.
    Bounded(Release),
    /// Nothing bounds what it tells about one person.
    Unprotected,
}

impl Charge {
    /// Whether what the worker says of its steps with noise is what would be charged.
    pub(crate) fn is_met(&self, released: Option<Released>) -> bool {
        match self {
            Self::Bounded(release) => released.is_some_and(|released| released.steps == release.times()),
            Self::Unprotected => true,
        }
    }

    /// As the database has it; the log, too, so that it can be computed again.
    fn kept(&self) -> Option<String> {
        match self {
            Self::Bounded(release) => Some(to_json(release)),
            Self::Unprotected => None,
        }
    }

    fn read(kept: Option<String>) -> Result<Self, PartyError> {
        Ok(match kept {
            Some(text) => Self::Bounded(from_json(&text, "release")?),
            None => Self::Unprotected,
        })
    }
}

/// What one round of a task costs: the only place that says so.
pub(crate) fn charge_of(plan: &Plan, task: &str) -> Charge {
    match plan.tasks.get(task).map(|task| &task.component) {
        // PRIVACY: nothing but the noisy update leaves, whose weight is a constant of the plan. Noise that cannot be found is
        // never drawn, and trains nothing.
        Some(Component::NnTrain(train)) => {
            let training = Training::of(train, plan::inputs(plan, task)).ok().flatten();
            let round = training.and_then(|training| training.part(u64::from(train.local.updates)).ok());
            round.map_or(Charge::Unprotected, Charge::Bounded)
        }
        // Statistics, regressions and evaluations send exact sums.
        _ => Charge::Unprotected,
    }
}

/// What is charged, for what, in the step that enters a payload in the outbox.
pub(crate) struct Spending<'a> {
    pub(crate) key: &'a RoundKey,
    pub(crate) study: StudyId,
    /// Of the dataset that was read.
    pub(crate) pool: Option<DatasetId>,
    pub(crate) charge: Charge,
}

/// What an entry of the log names of a spending.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spent {
    /// The pool, and the charge.
    pub(crate) id: String,
    /// Of the curve that the pool has spent now.
    pub(crate) digest: Digest,
}

/// A pool as the database has it, without its members.
struct Pool {
    id: DatasetId,
    subjects: u64,
    curve: Curve,
}

impl Pool {
    fn from_row(row: &SqliteRow) -> Result<Self, PartyError> {
        let id: String = row.try_get("id").at("read a pool")?;
        let subjects: i64 = row.try_get("subjects").at("read a pool")?;
        let curve: Vec<u8> = row.try_get("curve").at("read a pool")?;
        Ok(Self { id: parse(&id, "id")?, subjects: unsigned(subjects), curve: read_curve(&curve)? })
    }

    async fn read(conn: &mut SqliteConnection, id: DatasetId) -> Result<Self, PartyError> {
        let sql = "SELECT id, subjects, curve FROM pools WHERE id = ?1";
        let row = sqlx::query(sql).bind(id.to_string()).fetch_one(conn).await.at("read a pool")?;
        Self::from_row(&row)
    }

    async fn all(conn: &mut SqliteConnection) -> Result<Vec<Self>, PartyError> {
        let rows = sqlx::query("SELECT id, subjects, curve FROM pools ORDER BY at, id").fetch_all(conn).await;
        rows.at("read pools")?.iter().map(Self::from_row).collect()
    }

    /// Whether anything with noise was released of it.
    fn has_spent(&self) -> bool {
        self.curve != Curve::default()
    }

    /// ε of everything with noise that was released of it.
    fn epsilon(&self, delta: Delta) -> f64 {
        if self.has_spent() { self.curve.epsilon(delta).epsilon } else { 0.0 }
    }
}

fn read_curve(bytes: &[u8]) -> Result<Curve, PartyError> {
    let (numbers, rest) = bytes.as_chunks::<BYTES>();
    if !rest.is_empty() {
        return Err(bad_column("curve"));
    }
    let numbers: Vec<f64> = numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    Curve::try_from(numbers).map_err(|_| bad_column("curve"))
}

fn curve_bytes(curve: &Curve) -> Vec<u8> {
    let numbers: Vec<f64> = curve.clone().into();
    numbers.into_iter().flat_map(f64::to_le_bytes).collect()
}

/// The policy's budget of a pool; `None` for one that admits nothing.
fn budget(rules: &PrivacyRules) -> Option<(Budget, Delta)> {
    let delta = Delta::new(rules.delta).ok()?;
    Some((Budget::new(rules.epsilon_per_pool, delta).ok()?, delta))
}

/// δ ≤ 1/(10·N) (specs/approvals-and-policy.md).
fn is_small(rules: &PrivacyRules, pool: &Pool) -> bool {
    rules.delta * 10.0 * pool.subjects as f64 <= 1.0
}

/// Why a charge is refused, if it is. A round that was charged before is not charged again.
///
/// A coordinator hears only that the site's data or its rules stand against it, as after an opt-out: what others released of
/// the same patients is not its business (`Refusal::outward`).
pub(crate) async fn against(
    conn: &mut SqliteConnection,
    spending: &Spending<'_>,
    rules: &PrivacyRules,
) -> Result<Option<Refusal>, PartyError> {
    let Charge::Bounded(release) = spending.charge else { return Ok(None) };
    if is_charged(conn, spending.key).await? {
        return Ok(None);
    }
    let refuse = |words: String| Ok(Some(Refusal::new(RefusalCode::Snapshot, words)));
    if let Some(since) = lost(conn).await? {
        return refuse(format!(
            "what left this site after the backup of {since} is not known here, so that no budget of differential privacy \
             can be kept to"
        ));
    }
    let Some(pool) = spending.pool else { return refuse(NOT_COUNTED.to_owned()) };
    let pool = Pool::read(conn, pool).await?;
    let Some((budget, delta)) = budget(rules) else {
        return refuse("the policy's epsilon_per_pool and delta together admit no release".to_owned());
    };
    if !is_small(rules, &pool) {
        let subjects = pool.subjects;
        return refuse(format!(
            "the policy's delta is above 1/(10·{subjects}), for the {subjects} patients of this budget"
        ));
    }
    if budget.admits(&pool.curve, &Curve::of(&[release])) {
        return Ok(None);
    }
    let (spent, most) = (pool.epsilon(delta), rules.epsilon_per_pool);
    refuse(format!(
        "the privacy budget of these patients is spent: {spent:.2} of at most {most}, over all studies and federations, and \
         this release does not fit into the rest"
    ))
}

/// What is said of a dataset whose snapshot could not be read when pools came.
const NOT_COUNTED: &str = "the patients of this dataset are in no privacy budget yet, because its copy could not be read \
                           when the engine started; register it again";

/// Charges a pool, within the step that enters the payload in the outbox; what is to be named in the log. Whoever asks has
/// asked [`against`] in the same step.
///
/// # Errors
/// [`PartyError::State`] if the budget does not admit it: the step must not happen.
pub(crate) async fn spend(
    tx: &mut Tx,
    spending: &Spending<'_>,
    rules: &PrivacyRules,
    now: Timestamp,
) -> Result<Option<Spent>, PartyError> {
    if let Some(refusal) = against(tx.conn(), spending, rules).await? {
        return Err(PartyError::state(refusal.detail));
    }
    // Of a dataset in no pool only what nothing bounds is admitted.
    let Some(pool) = spending.pool else { return Ok(None) };
    if is_charged(tx.conn(), spending.key).await? {
        return Ok(None);
    }
    let step = tx.step();
    let mut pool = Pool::read(tx.conn(), pool).await?;
    if let Charge::Bounded(release) = spending.charge {
        pool.curve = pool.curve.plus(&Curve::of(&[release]));
    }
    let release = spending.charge.kept();
    let bytes = curve_bytes(&pool.curve);
    let digest = Digest::of(&bytes);
    sqlx::query("UPDATE pools SET curve = ?2 WHERE id = ?1")
        .bind(pool.id.to_string())
        .bind(bytes)
        .execute(tx.conn())
        .await
        .at(step)?;
    let epsilon = budget(rules).map_or(0.0, |(_, delta)| pool.epsilon(delta));
    let RoundKey { job, task, epoch, round, attempt } = spending.key;
    sqlx::query(
        "INSERT INTO spendings (job, task, epoch, round, attempt, study, pool, release, epsilon, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .bind(job.to_string())
    .bind(task)
    .bind(signed(*epoch))
    .bind(i64::from(*round))
    .bind(i64::from(*attempt))
    .bind(spending.study.to_string())
    .bind(pool.id.to_string())
    .bind(release.as_deref())
    .bind(epsilon)
    .bind(now.as_millis())
    .execute(tx.conn())
    .await
    .at(step)?;
    let charge = release.as_deref().unwrap_or("unprotected");
    Ok(Some(Spent { id: format!("{} {charge}", pool.id), digest }))
}

/// Notes the entry of the log that names what was charged, within the step that appends it.
pub(crate) async fn note_entry(tx: &mut Tx, key: &RoundKey, entry: u64) -> Result<(), PartyError> {
    let step = tx.step();
    sqlx::query(
        "UPDATE spendings SET entry = ?6 WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5",
    )
    .bind(key.job.to_string())
    .bind(&key.task)
    .bind(signed(key.epoch))
    .bind(i64::from(key.round))
    .bind(i64::from(key.attempt))
    .bind(signed(entry))
    .execute(tx.conn())
    .await
    .at(step)?;
    Ok(())
}

/// Whether what a round costs is bounded, and its entry is not among the first so many of the log, which the coordinator has
/// cosigned. Until it is, the payload does not leave: a site that is restored from a backup then hears of a log with that
/// entry, and cannot forget a bounded charge unseen.
pub(crate) async fn is_unwitnessed(
    conn: &mut SqliteConnection,
    key: &RoundKey,
    cosigned: u64,
) -> Result<bool, PartyError> {
    let entry: Option<Option<i64>> = sqlx::query_scalar(
        "SELECT entry FROM spendings
         WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5 AND release IS NOT NULL",
    )
    .bind(key.job.to_string())
    .bind(&key.task)
    .bind(signed(key.epoch))
    .bind(i64::from(key.round))
    .bind(i64::from(key.attempt))
    .fetch_optional(conn)
    .await
    .at("read the privacy ledger")?;
    Ok(entry.is_some_and(|entry| entry.is_none_or(|entry| unsigned(entry) >= cosigned)))
}

async fn is_charged(conn: &mut SqliteConnection, key: &RoundKey) -> Result<bool, PartyError> {
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM spendings WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5",
    )
    .bind(key.job.to_string())
    .bind(&key.task)
    .bind(signed(key.epoch))
    .bind(i64::from(key.round))
    .bind(i64::from(key.attempt))
    .fetch_optional(conn)
    .await
    .at("read the privacy ledger")?;
    Ok(found.is_some())
}

/// When the backup was made after which it is not known what was released, if so.
async fn lost(conn: &mut SqliteConnection) -> Result<Option<Timestamp>, PartyError> {
    let Some(millis) = setting(conn, LOST).await? else { return Ok(None) };
    Ok(Some(Timestamp::from_millis(parse(&millis, LOST)?)))
}

/// What was released since then is not known any more, within the step that says so. It holds for pools that are registered
/// later, too: which patients they share with what is lost cannot be told. The earliest such time stays.
pub(crate) async fn lose(conn: &mut SqliteConnection, since: Timestamp) -> Result<(), PartyError> {
    let since = lost(conn).await?.map_or(since, |before| before.min(since));
    set_setting(conn, LOST, Some(&since.as_millis().to_string())).await
}
