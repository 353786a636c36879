//! Everything that touches patient rows: sources, profile, features, Burn training and evaluation.
//!
//! Rows are read here and nowhere else (invariant I1). Public items return counts, sums, models and files that only
//! this crate can open; an error names file, line, column and rule, never a value. Every public function says under
//! `# Disclosure` what its return value tells about patients. One writes of single rows for people to read,
//! [`predict_file`], and takes a leave for it.
//!
//! The crate draws no conclusion about *whether* data may be used: that is `Approval::permit` in the protocol crate,
//! and [`Cohort::open`] takes its [`Permit`](hospes_protocol::approval::Permit) by value (invariant I2), or one for a dry
//! run, with which nothing leaves. It sends nothing, keeps no database and holds no key longer than a call.
//!
//! Start reading at [`source::survey`] (what is in a file), then [`snapshot::freeze`] (the encrypted copy that is
//! registered), then [`Cohort`] (what a permit opens), then [`worker`] (the child process that does it).

mod attack;
mod cohort;
mod component;
pub mod device;
mod error;
pub mod evaluate;
pub mod opt_out;
mod parts;
pub mod pool;
mod preview;
pub mod profile;
mod regress;
pub mod scan;
pub mod schema;
pub mod snapshot;
pub mod source;
pub mod train;
pub mod worker;

pub use attack::{Attack, AttackScores, Guard, Inversion, Membership, Told, Untried};
pub use cohort::{
    Assessed, Cohort, Fit, GroupView, Predicted, Prediction, Released, Report, ReportView, Round, TrainingView, Update,
    predict_file,
};
pub use component::FeatureStatistics;
pub use error::{CohortError, Outward};
pub use preview::{Preview, TensorPreview};

/// What a process does first that will have rows or keys in memory: it leaves no image of itself, whatever kills it.
///
/// # Disclosure
/// Nothing; it keeps rows from being disclosed by a crash.
pub fn forbid_core_dumps() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        // Lowering one's own limits cannot fail; were it to, the other one still holds.
        let _ = setrlimit(Resource::Core, none);
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}
