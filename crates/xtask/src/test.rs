//! Every check and test, in the order in which they fail fastest.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::machine::{cargo, npm, python, ready_to_test, step};
use crate::{codegen, tidy};

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
    step("clippy", cargo()?.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // Tests of whole processes start the programs that this builds.
    step("build", cargo()?.args(["build", "--locked", "--workspace", "--bins"]))?;
    let mut tests = cargo()?;
    tests.args(["nextest", "run", "--locked", "--workspace"]).env("HOSPES_PYTHON", python(root)?);
    step("tests", &mut tests)?;
    step("documentation tests", cargo()?.args(["test", "--locked", "--workspace", "--doc", "--quiet"]))?;
    if changes()? != before {
        bail!("the tests changed the work tree:\n{}", changes()?);
    }
    println!("All checks and tests passed.");
    Ok(())
}

/// What git says is changed.
fn changes() -> Result<String> {
    let output = Command::new("git").args(["status", "--porcelain"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
