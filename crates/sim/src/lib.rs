//! Federations in one process, for researchers and for reproduction. Everything it prints is marked *simulation*.
//!
//! It reads files that a researcher may read anyway, freezes them in a temporary folder like a site would, and opens
//! them through approvals that it signs itself; the rule that a cohort opens with a permit only (invariant I2) holds
//! here too. It is no way around a site's approval: a snapshot that a site registered opens with the site's key only,
//! and what is fitted outside a round must be tagged public, which this crate does to its own copies alone.
//!
//! [`Live`] is a whole federation, coordinator and sites as they ship; [`Federation`] only opens the sites' rows, for
//! what no federation computes: the pooled fit, and a model judged on all rows together.
//!
//! Start reading at [`Live::start`] and [`Live::run`], then [`Federation::new`], [`baseline()`] and [`assess()`].

mod assess;
mod baseline;
mod federation;
mod live;
mod study;

pub use assess::{Assessment, assess};
pub use baseline::{Baseline, Row, Summary, baseline};
pub use federation::{Federation, Member};
pub use live::{Live, Run};
pub use study::{Overrides, baseline_task, read_plan, read_study, set};
