//! Memory of both daemons when nothing happens, before and after a job.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::demo::cast::HOSPITALS;
use crate::demo::federation::Federation;
use crate::demo::process::Programs;
use crate::demo::site::Site;
use crate::demo::{Trained, trained};

/// Time after which a daemon counts as idle.
const SETTLE: Duration = Duration::from_secs(10);

/// Resident memory of a coordinator with one connected site, and of that site, in megabytes.
///
/// # Errors
/// If they do not start.
pub(super) fn idle(programs: &Programs) -> Result<BTreeMap<String, f64>> {
    let folder = tempfile::Builder::new().prefix("hospes-").tempdir()?;
    let federation = Federation::open(programs, folder.path())?;
    let site = Site::open(programs, folder.path(), &HOSPITALS[0])?;
    let (invitation, words) = federation.invite(HOSPITALS[0].name)?;
    site.enrol(&invitation, &words)?;
    std::thread::sleep(SETTLE);
    let measured = [("idle_coordinator", federation.process()), ("idle_site", site.process())];
    measured.into_iter().map(|(name, process)| Ok((name.to_owned(), resident_megabytes(process)?))).collect()
}

/// The same of both after the demo's job: what it took is given back.
///
/// # Errors
/// If the job does not succeed.
pub(super) fn after_a_job(root: &Path, programs: &Programs) -> Result<BTreeMap<String, f64>> {
    let folder = tempfile::Builder::new().prefix("hospes-").tempdir()?;
    let Trained { federation, sites, .. } = trained(root, programs, folder.path())?;
    std::thread::sleep(SETTLE);
    let most = sites.iter().map(|site| resident_megabytes(site.process())).collect::<Result<Vec<_>>>()?;
    let most = most.into_iter().fold(0.0, f64::max);
    Ok([
        ("after_job_coordinator".to_owned(), resident_megabytes(federation.process())?),
        ("after_job_site".to_owned(), most),
    ]
    .into())
}

/// Resident set of a process.
fn resident_megabytes(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).context("read the process's status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the status has no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}
