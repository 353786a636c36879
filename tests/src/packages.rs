//! The packages that tests install, made of the programs beside the tests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::program;

/// Version of the package that several tests install.
pub const VERSION: &str = "1.0.0";
/// Age from which on what another run made is deleted; none takes so long.
const OLD: Duration = Duration::from_secs(3 * 3_600);

/// Name of a package's file on this machine.
///
/// # Errors
/// If dpkg does not say which kind of machine this is.
pub fn file(package: &str, version: &str) -> Result<String> {
    let output = Command::new("dpkg").arg("--print-architecture").output().context("start dpkg")?;
    Ok(format!("{package}_{version}_{}.deb", String::from_utf8(output.stdout)?.trim()))
}

/// Makes a package in the folder `out`; its path.
///
/// # Errors
/// With what was said, if it cannot be made.
pub fn make(out: &Path, package: &str, version: &str) -> Result<PathBuf> {
    let mut dist = Command::new(program("xtask")?);
    dist.args(["dist", "--profile", "dev", "--format", "deb", "--package", package, "--as-version", version]);
    let output = dist.arg("--programs").arg(programs()?).arg("--out").arg(out).output()?;
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "no package:\n{said}{wrong}");
    Ok(out.join(file(package, version)?))
}

/// The package of window and service, in [`VERSION`]: made once in each run of the tests, whichever of them asks first.
///
/// # Errors
/// As [`make`].
pub fn shared() -> Result<PathBuf> {
    let all = programs()?.join("packages");
    // Each test is a process of its own under nextest, which names the run to them.
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| std::process::id().to_string());
    let folder = all.join(run);
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let package = folder.join(file("hospes", VERSION)?);
    if !package.exists() {
        forget(&all)?;
        // One that was not finished has another place.
        std::fs::rename(make(&folder.join("making"), "hospes", VERSION)?, &package)?;
    }
    Ok(package)
}

/// Deletes what earlier runs made.
fn forget(all: &Path) -> Result<()> {
    for run in std::fs::read_dir(all)? {
        let run = run?;
        let age = SystemTime::now().duration_since(run.metadata()?.modified()?);
        if age.is_ok_and(|age| age > OLD) {
            std::fs::remove_dir_all(run.path())?;
        }
    }
    Ok(())
}

/// The folder of our programs.
fn programs() -> Result<PathBuf> {
    Ok(program("hospes-site")?.parent().context("the programs lie in no folder")?.to_owned())
}
