//! A site's side of a round.
