//! However a seed ends, whoever looks is told the command that replays it.

use std::any::Any;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::FutureExt as _;

/// Real time that a seed may take. It needs a fraction of a second.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// Time beyond its limit in which work can still come to a point where it is stopped.
const GRACE: Duration = Duration::from_secs(5);

/// Does a seed's work. An error, a panic and no end within the limit become errors that name `replay`; work that is stuck
/// where nothing can stop it ends the process, and `replay` is the last thing that this says.
///
/// # Errors
/// Those of `work`, a panic in it, and no end within `limit`.
pub(crate) async fn named<T>(replay: &str, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let _watched = watch(replay, limit)?;
    let work = AssertUnwindSafe(work).catch_unwind();
    let ended = match tokio::time::timeout(limit, work).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(panic)) => Err(anyhow!("it panicked: {}", words(&*panic))),
        Err(_) => Err(anyhow!("it did not come to an end within {} s", limit.as_secs())),
    };
    ended.with_context(|| format!("replay it: {replay}"))
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// Ends the process if the sender that this gives still exists when limit and grace are over. A thread watches, because the
/// one that works may be what is stuck.
fn watch(replay: &str, limit: Duration) -> Result<mpsc::Sender<()>> {
    let (watched, end) = mpsc::channel();
    let replay = replay.to_owned();
    let watch = move || {
        if end.recv_timeout(limit.saturating_add(GRACE)) == Err(RecvTimeoutError::Timeout) {
            // Not by a macro: a test's output is kept until it ends, and it never does. If it cannot be said, so be it.
            let _ = writeln!(std::io::stderr(), "a seed is stuck; replay it: {replay}");
            std::process::abort();
        }
    };
    std::thread::Builder::new().name("watch".into()).spawn(watch).context("start a thread that watches a seed")?;
    Ok(watched)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{Options, on_one_thread, replay};

    const STUCK: &str = "HOSPES_TEST_STUCK";
    const THIS: &str = "ended::tests::work_that_never_gives_way_ends_the_process_with_the_command";

    /// What is said of a seed whose work ends so.
    fn said(work: impl Future<Output = Result<()>>) -> String {
        let replay = replay(7, Options { calm: true, ..Options::default() });
        let error = on_one_thread(named(&replay, Duration::from_millis(50), work)).unwrap_err();
        format!("{error:#}")
    }

    #[test]
    fn an_error_a_panic_and_a_hang_name_the_command_that_replays_the_seed() {
        const COMMAND: &str = "replay it: cargo run -p hospes-simulation -- --seed 7 --trace --calm: ";
        assert_eq!(said(async { Err(anyhow!("no disk")) }), format!("{COMMAND}no disk"));
        assert_eq!(said(async { panic!("in words") }), format!("{COMMAND}it panicked: in words"));
        let number = 3;
        assert_eq!(said(async { panic!("in {number} words") }), format!("{COMMAND}it panicked: in 3 words"));
        assert_eq!(said(std::future::pending()), format!("{COMMAND}it did not come to an end within 0 s"));
    }

    #[test]
    fn work_that_never_gives_way_ends_the_process_with_the_command() {
        if std::env::var_os(STUCK).is_some() {
            let words = said(async {
                std::thread::sleep(Duration::from_secs(60));
                Ok(())
            });
            panic!("nothing ended it: {words}");
        }
        let child = Command::new(std::env::current_exe().unwrap()).args(["--exact", THIS]).env(STUCK, "1").output();
        let output = child.unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{words}");
        assert!(words.contains("stuck; replay it: cargo run -p hospes-simulation -- --seed 7"), "{words}");
    }
}
