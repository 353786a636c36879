//! Every check and test, in the order in which they fail fastest.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::machine::{cargo, npm, python, ready_to_test, step, wrapper};
use crate::{codegen, tidy};

/// What `cargo clippy -- -D warnings` tells the driver.
const DENY_WARNINGS: &str = "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__";

/// Installs what is missing and runs every check and test; the work tree stays clean.
///
/// # Errors
/// The first check that fails.
pub(crate) fn run(root: &Path) -> Result<()> {
    ready_to_test(root)?;
    let before = changes()?;
    step("format", cargo()?.args(["fmt", "--all", "--check"]))?;
    println!("── tidy and generated files");
    tidy::run(root)?;
    codegen::run(root, true)?;
    step("check the page", npm(root)?.args(["run", "--silent", "check"]))?;
    let linting = |mut cargo: Command| -> Result<Command> {
        cargo.env("RUSTC_WORKSPACE_WRAPPER", clippy_driver()?).env("CLIPPY_ARGS", DENY_WARNINGS);
        Ok(cargo)
    };
    // Tests of whole processes start the programs that this builds.
    let mut build = linting(cargo()?)?;
    step("build and lint", build.args(["build", "--locked", "--workspace", "--all-targets"]))?;
    let mut tests = linting(cargo()?)?;
    tests.args(["nextest", "run", "--locked", "--workspace"]).env("HOSPES_PYTHON", python(root)?);
    // One more than there are cores: tests of whole processes and of windows wait much of their time.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get() + 1);
    tests.env("NEXTEST_TEST_THREADS", threads.to_string());
    step("tests", &mut tests)?;
    let mut examples = linting(cargo()?)?;
    step("documentation tests", examples.args(["test", "--locked", "--workspace", "--doc", "--quiet"]))?;
    if changes()? != before {
        bail!("the tests changed the work tree:\n{}", changes()?);
    }
    println!("All checks and tests passed.");
    Ok(())
}

/// Clippy's compiler, in a wrapper of this checkout's. In place of rustc it lints our sources in the pass that compiles them, and dependencies, which are
/// not linted, are compiled once; `cargo clippy` would go over both a second time.
fn clippy_driver() -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("ask rustc for its folder")?;
    wrapper(&Path::new(String::from_utf8(output.stdout)?.trim()).join("bin/clippy-driver"))
}

/// What git says is changed.
fn changes() -> Result<String> {
    let output = Command::new("git").args(["status", "--porcelain"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
