//! The link against a real tonic server over real TLS, real proxies and real cuts.

pub(crate) mod coordinator;
mod enrolment;
mod masks;
mod permits;
pub(crate) mod proxies;
mod sessions;
mod site;
mod transfers;
mod ways;
