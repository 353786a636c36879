//! Stories over whole processes.

mod kill;
mod regression;
mod round;
mod window;
