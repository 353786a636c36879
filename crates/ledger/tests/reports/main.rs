//! Reports of an audit log, made from real exports: what they say, what hostile text does to them, and that the standards
//! they name are kept.

#![allow(clippy::unwrap_used)]

mod claims;
mod fhir;
mod fixture;
mod hostile;
