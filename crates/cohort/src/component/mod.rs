//! The components of a plan at the site: fixed pieces of code that turn one table into the next.

mod frame;
mod imputation;
mod one_hot;
mod pipeline;
mod scale;
mod split;
mod statistics;

#[cfg(test)]
pub(crate) use frame::Feature;
pub(crate) use frame::{Frame, Matrix, Unknown};
pub(crate) use pipeline::Pipeline;
pub use statistics::FeatureStatistics;
pub(crate) use statistics::{cells, level_counts, statistics};
