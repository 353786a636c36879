//! Privacy mathematics only: clip, noise, accountants, quantise, exact sums, secure aggregation, disclosure rules,
//! matching of data-use terms.
//!
//! What it does: it turns an update into the integers that travel ([`quantise`]), puts few bits into less space
//! ([`coding`]), adds them exactly and independently of their order ([`sum`]), masks updates so that only their sum is
//! learned ([`secagg`], [`masked`], of figures [`figures`]), draws exact noise and accounts for it ([`dp`]), and says what
//! the site's policy lets leave ([`disclosure`]) and whether a dataset's terms of use fit a request ([`duo`]).
//!
//! What it deliberately does not do: no I/O, no clock, no randomness (invariant I5), and no decision: it returns
//! findings; `party` and `protocol::approval` refuse.
//!
//! Start reading at [`quantise::Quantiser`], [`dp::epsilon()`] and [`disclosure::review()`].

pub mod coding;
pub mod disclosure;
pub mod dp;
pub mod duo;
mod error;
pub mod figures;
pub mod masked;
pub mod quantise;
pub mod secagg;
pub mod sum;

pub use error::PrivacyError;
