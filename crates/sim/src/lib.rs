//! Federations in one process, for researchers and for reproduction. Everything it prints is marked *simulation*.
//!
//! It reads files that a researcher may read anyway, freezes them in a temporary folder like a site would, and opens
//! them through approvals that it signs itself; the rule that a cohort opens with a permit only (invariant I2) holds
//! here too. It is no way around a site's approval: a snapshot that a site registered opens with the site's key only,
//! and what is fitted outside a round must be tagged public, which this crate does to its own copies alone.
//!
//! Start reading at [`Federation::new`], then [`baseline()`] and [`assess()`].

mod assess;
mod baseline;
mod federation;
mod study;

pub use assess::{Assessment, assess};
pub use baseline::{Baseline, Row, Summary, baseline};
pub use federation::{Federation, Member};
pub use study::{Overrides, baseline_task, read_plan};
