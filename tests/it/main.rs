//! Stories over whole processes.

mod kill;
mod package;
mod regression;
mod round;
mod sweep;
mod window;
