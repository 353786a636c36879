//! The privacy ledger: what was released of the site's patients, over all studies and federations.

use hospes_protocol::id::{DatasetId, StudyId, Timestamp};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The account of a pool of subjects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct PoolAccount {
    /// Most ε, by the policy.
    pub epsilon: f64,
    /// The δ at which it is counted.
    pub delta: f64,
    /// ε of everything with noise that was released, by Rényi divergences.
    pub spent: f64,
    /// What part of the budget that takes, from 0 to 1, as the filter counts it.
    pub share: f64,
    /// Releases without differential privacy. With one of them no bound holds.
    pub unprotected: u64,
    /// When the backup was made after which it is not known what was released; then no bound holds either.
    pub lost: Option<Timestamp>,
}

/// A pool of subjects: patients of datasets that have some in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct PoolView {
    /// The dataset that it began with.
    pub id: DatasetId,
    /// Names of its datasets, without those that were removed.
    pub datasets: Vec<String>,
    /// Patients, each once, those of removed datasets among them.
    pub patients: u64,
    /// What was spent, of how much.
    pub account: PoolAccount,
    /// By study, the newest first.
    pub studies: Vec<PoolStudy>,
    /// Over time, the oldest first: a point for each task of a run, of the newest ones.
    pub points: Vec<PoolPoint>,
}

/// What one study took of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct PoolStudy {
    /// Study.
    pub study: StudyId,
    /// Its title.
    pub title: String,
    /// Name of its federation.
    pub federation_name: String,
    /// First release.
    pub first: Timestamp,
    /// Last release.
    pub last: Timestamp,
    /// Releases with noise.
    pub bounded: u64,
    /// Releases without.
    pub unprotected: u64,
    /// ε of those with noise, of this study alone, by privacy loss distributions: the number that is reported.
    pub epsilon: Option<f64>,
    /// The same by Rényi divergences: the cross-check.
    pub renyi: Option<f64>,
}

/// How the account of a pool stood after a task of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct PoolPoint {
    /// When its last release was entered.
    pub at: Timestamp,
    /// Title of the study.
    pub title: String,
    /// Task.
    pub task: String,
    /// ε so far of everything with noise.
    pub spent: f64,
    /// Releases so far without.
    pub unprotected: u64,
}

/// The privacy part of a review: this study, spent, left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct StudyBudget {
    /// Patients of the pool.
    pub patients: u64,
    /// How the account stands before the study.
    pub account: PoolAccount,
    /// ε of all runs that the study asks for, of its releases with noise alone; `None` where there are none.
    pub epsilon: Option<f64>,
    /// What part of the budget they take, from 0 to 1.
    pub share: f64,
    /// Whether they fit into what is left.
    pub fits: bool,
    /// Tasks whose releases nothing bounds.
    pub unprotected: Vec<String>,
}
