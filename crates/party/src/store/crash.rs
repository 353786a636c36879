//! For tests: a process that kills itself at a chosen transaction, as `kill -9` would.

/// When, relative to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before it begins.
    Before,
    /// After its last statement, before it is committed.
    During,
    /// After it is durable.
    After,
}

/// Kills this process if `HOSPES_TEST_CRASH` is `<step>:<moment>`.
pub(crate) fn point(step: &str, moment: Moment) {
    let Ok(wanted) = std::env::var("HOSPES_TEST_CRASH") else { return };
    if wanted == format!("{step}:{moment:?}") {
        let this = rustix::process::getpid();
        let _ = rustix::process::kill_process(this, rustix::process::Signal::KILL);
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}
