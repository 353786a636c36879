//! Everything that touches patient rows: sources, profile, features, Burn training and evaluation.
