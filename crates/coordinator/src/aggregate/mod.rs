//! Stage, then reduce: uploads become durable files first, and a round reads all of them block by block when it closes.

pub mod content;
mod each;
pub mod newton;
pub mod reduce;
pub mod staging;
mod step;
mod updates;
