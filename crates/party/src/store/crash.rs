//! For tests: a process that kills itself at a chosen transaction, as `kill -9` would.

use crate::seam::Moment;

/// Kills this process if `HOSPES_TEST_CRASH` is `<step>:<moment>`.
pub(crate) fn point(step: &str, moment: Moment) {
    let Ok(wanted) = std::env::var("HOSPES_TEST_CRASH") else { return };
    if wanted == format!("{step}:{moment:?}") {
        let this = rustix::process::getpid();
        let _ = rustix::process::kill_process(this, rustix::process::Signal::KILL);
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}
