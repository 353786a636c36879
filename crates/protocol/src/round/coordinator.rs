//! The coordinator's side of a round.
