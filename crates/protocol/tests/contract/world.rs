//! What the tests share.

use hospes_protocol::plan::Plan;

/// The heart plan as a researcher writes it.
pub(crate) const HEART: &str = include_str!("heart.yaml");

/// The heart plan, read.
pub(crate) fn heart() -> Plan {
    hospes_protocol::plan::read(HEART).unwrap_or_else(|e| panic!("{e}"))
}
