//! Stories over whole processes.

mod kill;
mod regression;
mod round;
mod sweep;
mod window;
