//! Stories over whole processes.

mod devhost;
mod kill;
mod package;
mod regression;
mod round;
mod sweep;
mod window;
