//! Stories over whole processes.

mod round;
mod window;
