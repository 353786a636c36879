//! The smallest program that can be a party's worker; the tests of the child executor start it.

use std::process::ExitCode;

fn main() -> ExitCode {
    hospes_party::worker()
}
