//! The hospital's engine: state, store, keys, jobs, link; one event loop behind a Handle.
