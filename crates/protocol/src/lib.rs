//! The contract between a site and a coordinator.
//!
//! This crate holds the nouns of the system, the canonical bytes that are signed, the plan language and its checks,
//! approvals and permits, the round as a pure state machine for both roles, and the wire format. It does no I/O, reads
//! no clock and draws no randomness: time and random bytes come in as arguments (invariant I5).
//!
//! Start reading at [`plan::Plan`] (what a researcher submits), then [`approval::Approval::permit`] (the only way to be
//! allowed to touch data), then [`round`] (how a round goes).

pub mod approval;
pub mod canon;
pub mod enrol;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod id;
pub mod limits;
pub mod look;
pub mod memo;
pub mod message;
pub mod plan;
pub mod policy;
pub mod quality;
pub mod release;
pub mod round;
pub mod sign;
pub mod study;
pub mod text;
pub mod version;
pub mod words;

/// The committed JSON Schemas, for editors: file below this crate's folder, and its text. `xtask codegen` writes them.
pub fn schema_files() -> [(&'static str, String); 4] {
    [
        ("schema/plan.schema.json", plan::json_schema()),
        ("schema/terms.schema.json", study::json_schema()),
        ("schema/study.schema.json", study::StudyFile::json_schema()),
        ("schema/policy.schema.json", policy::Policy::json_schema()),
    ]
}
