//! Stories over whole processes.

mod kill;
mod round;
mod sweep;
mod window;
