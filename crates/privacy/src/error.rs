//! What can be wrong with numbers that come in.

/// An error of this crate. It names places, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrivacyError {
    /// A value that is NaN or infinite.
    #[error("entry {index} of tensor '{tensor}' is NaN or infinite")]
    NotFinite {
        /// Tensor.
        tensor: String,
        /// Entry in it, row-major, from 0.
        index: usize,
    },
    /// Tensors that are not those of the round.
    #[error("the update does not have the round's tensors: {0}")]
    Shape(String),
    /// A payload of another length than its tensors need.
    #[error("the payload has {found} bytes instead of {expected}")]
    Length {
        /// Bytes that there should be.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// A payload of few bits that is not coded as it should be.
    #[error("the update cannot be read: {0}")]
    Coded(&'static str),
    /// A row weight outside of its bounds.
    #[error("the row weight must lie between 1 and {n_max}")]
    Weight {
        /// Largest weight.
        n_max: u32,
    },
    /// A parameter of the quantiser that cannot be used.
    #[error("quantise.{place} {reason}")]
    Parameter {
        /// Which.
        place: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A parameter of noise, or of what it costs, that cannot be used.
    #[error("{place} {reason}")]
    Account {
        /// Which.
        place: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A level that a sum has no room for.
    #[error("entry {index} of part {part} of the vector is above its largest level")]
    Level {
        /// Part of the vector, 0 for the row weight.
        part: usize,
        /// Entry in it, from 0.
        index: u64,
    },
    /// A value of a figure that a masked sum has no room for.
    #[error("value {index} of the figure '{figure}' cannot be masked: {rule}")]
    Figure {
        /// Figure.
        figure: String,
        /// Value in it, from 0.
        index: usize,
        /// What it must be.
        rule: &'static str,
    },
    /// A report that is not the one that a round asks for.
    #[error("the report is not the round's: {0}")]
    Report(String),
    /// More sites than a sum is made for.
    #[error("more than {} updates in one sum", crate::sum::SUM_SITES)]
    TooManySites,
    /// No update to take the mean of.
    #[error("there is no update to take the mean of")]
    Empty,
}
