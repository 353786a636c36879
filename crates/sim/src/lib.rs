//! Federations in one process, for researchers and for reproduction.
