//! What people see of the privacy ledger.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use hospes_privacy::dp::{Curve, Delta, Release, epsilon};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{DatasetId, StudyId, Timestamp};
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::policy::{Policy, PrivacyRules};
use hospes_protocol::text::shown;
use sqlx::sqlite::SqliteConnection;

use super::{Charge, Pool, budget, charge_of, is_small, lost};
use crate::datasets::{self, Dataset};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::Session;
use crate::requests;
use crate::store::{At as _, parse, unsigned};
use crate::view::{PoolAccount, PoolPoint, PoolStudy, PoolView, StudyBudget};

/// Points over time that are shown of a pool.
const POINTS: i64 = 500;

/// The privacy ledger as it stands; the ε of each study is still to be computed, which takes a while.
pub(crate) struct LedgerOrder {
    rules: PrivacyRules,
    pools: Vec<(PoolView, Vec<Vec<Release>>)>,
}

impl LedgerOrder {
    /// Computes it, away from the loop that owns the state.
    pub(crate) fn run(self) -> Vec<PoolView> {
        let delta = Delta::new(self.rules.delta).ok();
        let pool = |(mut view, releases): (PoolView, Vec<Vec<Release>>)| {
            for (study, releases) in view.studies.iter_mut().zip(releases) {
                let Some(delta) = delta.filter(|_| !releases.is_empty()) else { continue };
                study.epsilon = Some(epsilon(&releases, delta).worst());
                study.renyi = Some(Curve::of(&releases).epsilon(delta).epsilon);
            }
            view
        };
        self.pools.into_iter().map(pool).collect()
    }
}

impl Engine {
    pub(crate) async fn privacy(&mut self, session: Session) -> Result<LedgerOrder, PartyError> {
        self.inside(&session, "see the privacy ledger", &[]).await?;
        let mut conn = self.reader().await?;
        let rules = requests::policy::current(&mut conn).await?.privacy;
        let datasets = datasets::all(&mut conn).await?;
        let mut pools = Vec::new();
        for pool in Pool::all(&mut conn).await? {
            let named = datasets.iter().filter(|d| d.pool == Some(pool.id));
            let names = named.map(|d| shown(&d.name, 200)).collect();
            pools.push(view(&mut conn, &pool, names, &rules).await?);
        }
        Ok(LedgerOrder { rules, pools })
    }
}

async fn view(
    conn: &mut SqliteConnection,
    pool: &Pool,
    datasets: Vec<String>,
    rules: &PrivacyRules,
) -> Result<(PoolView, Vec<Vec<Release>>), PartyError> {
    let (studies, releases) = studies(conn, pool.id).await?;
    let points = points(conn, pool.id, &studies).await?;
    let account = account(conn, pool, rules).await?;
    Ok((PoolView { id: pool.id, datasets, patients: pool.subjects, account, studies, points }, releases))
}

/// How the account of a pool stands.
async fn account(conn: &mut SqliteConnection, pool: &Pool, rules: &PrivacyRules) -> Result<PoolAccount, PartyError> {
    let unprotected: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM spendings WHERE pool = ?1 AND release IS NULL")
        .bind(pool.id.to_string())
        .fetch_one(&mut *conn)
        .await
        .at("read the privacy ledger")?;
    let (spent, share) = match budget(rules) {
        Some((budget, delta)) => (pool.epsilon(delta), 1.0 - budget.left(&pool.curve)),
        // It admits nothing more, whatever was spent.
        None => (Delta::new(rules.delta).map_or(0.0, |delta| pool.epsilon(delta)), 1.0),
    };
    Ok(PoolAccount {
        epsilon: rules.epsilon_per_pool,
        delta: rules.delta,
        spent,
        share,
        unprotected: unsigned(unprotected),
        lost: lost(conn).await?,
    })
}

/// What each study took, the newest first, with its releases.
async fn studies(
    conn: &mut SqliteConnection,
    pool: DatasetId,
) -> Result<(Vec<PoolStudy>, Vec<Vec<Release>>), PartyError> {
    let rows: Vec<(String, Option<String>, i64, i64, i64)> = sqlx::query_as(
        "SELECT study, release, COUNT(*), MIN(at), MAX(at) FROM spendings WHERE pool = ?1 GROUP BY study, release",
    )
    .bind(pool.to_string())
    .fetch_all(&mut *conn)
    .await
    .at("read the privacy ledger")?;
    let mut found: BTreeMap<StudyId, (PoolStudy, Vec<Release>)> = BTreeMap::new();
    for (study, release, count, first, last) in rows {
        let study: StudyId = parse(&study, "study")?;
        let (first, last) = (Timestamp::from_millis(first), Timestamp::from_millis(last));
        let (view, releases) = match found.entry(study) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let (title, federation_name) = named(conn, study).await?;
                let (bounded, unprotected, epsilon, renyi) = (0, 0, None, None);
                let none =
                    PoolStudy { study, title, federation_name, first, last, bounded, unprotected, epsilon, renyi };
                new.insert((none, Vec::new()))
            }
        };
        (view.first, view.last) = (view.first.min(first), view.last.max(last));
        match Charge::read(release)? {
            Charge::Bounded(release) => {
                view.bounded += unsigned(count);
                // So many of the same.
                releases.push(release.repeated(unsigned(count)));
            }
            Charge::Unprotected => view.unprotected += unsigned(count),
        }
    }
    let mut all: Vec<(PoolStudy, Vec<Release>)> = found.into_values().collect();
    all.sort_by_key(|(study, _)| std::cmp::Reverse(study.last));
    Ok(all.into_iter().unzip())
}

/// Title of a study and name of its federation.
async fn named(conn: &mut SqliteConnection, study: StudyId) -> Result<(String, String), PartyError> {
    let offered = requests::study(conn, study).await?;
    let federation = crate::memberships::by_id(conn, offered.federation).await?;
    Ok((shown(&offered.study.terms.title, 200), shown(&federation.name, 200)))
}

/// How the account went, the oldest first.
async fn points(
    conn: &mut SqliteConnection,
    pool: DatasetId,
    studies: &[PoolStudy],
) -> Result<Vec<PoolPoint>, PartyError> {
    let rows: Vec<(String, String, i64, f64, i64)> = sqlx::query_as(
        "SELECT study, task, last, epsilon, bare FROM (
             SELECT study, task, MAX(at) AS last, MAX(epsilon) AS epsilon,
                    SUM(SUM(release IS NULL)) OVER (ORDER BY MAX(at), MIN(rowid)) AS bare
             FROM spendings WHERE pool = ?1 GROUP BY job, task
         ) ORDER BY last DESC, bare DESC LIMIT ?2",
    )
    .bind(pool.to_string())
    .bind(POINTS)
    .fetch_all(conn)
    .await
    .at("read the privacy ledger")?;
    let mut points = Vec::with_capacity(rows.len());
    let mut spent: f64 = 0.0;
    for (study, task, last, epsilon, bare) in rows.into_iter().rev() {
        let study: StudyId = parse(&study, "study")?;
        let title = studies.iter().find(|s| s.study == study).map(|s| s.title.clone()).unwrap_or_default();
        // What was spent stays spent, also where two pools became one since.
        spent = spent.max(epsilon);
        let at = Timestamp::from_millis(last);
        points.push(PoolPoint { at, title, task: shown(&task, 100), spent, unprotected: unsigned(bare) });
    }
    Ok(points)
}

/// What a study would take of the pool of a dataset, over all its runs: each setting of a sweep once, and another study's one
/// plan as often as an approval allows.
pub(crate) async fn study_budget(
    conn: &mut SqliteConnection,
    dataset: &Dataset,
    runs: &[Canonical<Plan>],
    allowed: u32,
    policy: &Policy,
) -> Result<Option<StudyBudget>, PartyError> {
    let again = if runs.len() == 1 { u64::from(allowed.max(1)) } else { 1 };
    let (mut releases, mut unprotected): (Vec<Release>, Vec<String>) = (Vec::new(), Vec::new());
    for run in runs {
        // A task that sends several things sends them in the same rounds.
        let rounds: BTreeMap<String, u32> = plan::egress(run).into_iter().map(|item| (item.task, item.times)).collect();
        for (task, times) in rounds {
            match charge_of(run, &task) {
                Charge::Bounded(release) => releases.push(release.repeated(again.saturating_mul(times.into()))),
                Charge::Unprotected if unprotected.contains(&task) => {}
                Charge::Unprotected => unprotected.push(task),
            }
        }
    }
    let pool = match dataset.pool {
        Some(pool) => Pool::read(conn, pool).await?,
        None if releases.is_empty() => return Ok(None),
        // Nobody in it is counted.
        None => Pool { id: dataset.id, subjects: 0, curve: Curve::default() },
    };
    let account = account(conn, &pool, &policy.privacy).await?;
    let cost = Curve::of(&releases);
    let (mut share, mut fits, mut epsilon) = (0.0, true, None);
    if !releases.is_empty() {
        let most = budget(&policy.privacy);
        share = most.map_or(1.0, |(budget, _)| 1.0 - budget.left(&cost));
        fits = account.lost.is_none()
            && dataset.pool.is_some()
            && is_small(&policy.privacy, &pool)
            && most.is_some_and(|(budget, _)| budget.admits(&pool.curve, &cost));
        epsilon = most.map(|(_, delta)| cost.epsilon(delta).epsilon);
    }
    let unprotected = unprotected.iter().map(|task| shown(task, 100)).collect();
    Ok(Some(StudyBudget { patients: pool.subjects, account, epsilon, share, fits, unprotected }))
}
