//! Secure aggregation: the coordinator learns the sum of the sites' updates and nothing of one of them, even if it
//! lies, invents sites and colludes with some, and a round finishes although some sites drop out.
//!
//! The protocol is that of Bonawitz et al. 2017 ("Practical secure aggregation for privacy-preserving machine
//! learning", active-adversary variant), above 128 parties over the graph of Bell et al. 2020. Both roles are pure
//! state machines:
//!
//! | step | member | aggregator |
//! |---|---|---|
//! | R0 | [`Member::advertise`] | [`Aggregator::accept`], then [`Aggregator::close`], [`Aggregator::relay`] |
//! | R1 | [`Member::on`] [`Relay::Keys`]; above 128 parties positions come between: [`Relay::Positions`] | the same |
//! | R2 | [`Member::on`] [`Relay::Shares`], [`Member::masker`], [`Member::commit`] | with the staged vector's [`Tree`] |
//! | R3 | [`Member::on`] [`Relay::Inputs`] | the same |
//! | R4 | [`Member::on`] [`Relay::Consents`] | then [`Aggregator::unmasker`] |
//!
//! Each step of a member takes what is on record at that time ([`Past`]), and the aggregator who sent something.
//!
//! What it deliberately does not do: no network, no clock, no randomness, no files. A member says each thing once; what
//! must be durable before it leaves comes out with it as a [`Fixed`]. It does not see a wrong *input*: a poisoned
//! update hides under masks, and a site's clip binds honest sites only. It does not replace differential privacy.
//!
//! Start reading at [`Setup`] (what a round is), then [`Member`].

mod aggregator;
mod graph;
#[doc(hidden)]
pub mod kernels;
mod keys;
mod mask;
mod member;
mod message;
mod refusal;
mod session;
mod setup;
mod shamir;
mod vector;

#[cfg(test)]
mod tests;

pub use aggregator::{Accused, Aggregator};
pub use graph::{Adversary, COMPLETE, Degree, FEWEST, Graph, MOST, Thresholds};
pub use keys::Seed;
pub use mask::{Masker, Prg, Unmasker};
pub use member::{Fixed, Member, Turn};
pub use message::{
    Accusation, Advertise, BOX_BYTES, BoxDigest, Consent, Delivery, Fault, Input, Opening, Point, RELAY_BYTES, Relay,
    Reveal, Revealed, SENT_BYTES, Sealed, Sent, Share, Shares, Step,
};
pub use refusal::Refusal;
pub use session::{Demands, Past};
pub use setup::{Noise, Setup, Tensor};
pub use vector::{BLOCK_ENTRIES, Block, Layout, Masked, Part, Scale, Tree, WIDEST_BITS, noise_bound, width};
