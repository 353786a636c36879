//! Stories over whole processes.

mod kill;
mod regression;
mod round;
mod screens;
mod sweep;
mod window;
