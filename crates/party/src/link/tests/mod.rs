//! The link against a real tonic server over real TLS, real proxies and real cuts.

mod coordinator;
mod enrolment;
mod permits;
mod proxies;
mod sessions;
mod site;
mod transfers;
mod ways;
