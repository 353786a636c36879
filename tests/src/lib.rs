//! Tests over whole processes: a federation of real programs, faults, the window.
//!
//! The programs must have been built (`cargo build --workspace --bins`); `cargo xtask test` does so.

#![allow(clippy::print_stderr)]

mod browser;
pub mod copy;
pub mod devhost;
pub mod federation;
pub mod packages;
pub mod seat;
pub mod window;

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Path of one of our programs, beside the running test.
///
/// # Errors
/// If it was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.ancestors().nth(2).context("the test lies in no target folder")?;
    let path = folder.join(name);
    anyhow::ensure!(path.exists(), "{} is not built; run `cargo build --workspace --bins`", path.display());
    Ok(path)
}
