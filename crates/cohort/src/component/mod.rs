//! The components of a plan at the site: fixed pieces of code that turn one table into the next.

mod frame;
mod imputation;
mod one_hot;
mod pipeline;
mod scale;
mod split;
mod statistics;

pub(crate) use frame::{Feature, Frame, Matrix, Pixels, Unknown};
pub(crate) use pipeline::Pipeline;
pub use statistics::FeatureStatistics;
pub(crate) use statistics::{cells, level_counts, statistics};
