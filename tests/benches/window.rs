//! The app's window on a desktop: how long it takes from its start to the sign-in, with the engine of its own site and a
//! keychain, and what all of its processes hold once somebody is in and does nothing.
//!
//! Prints a line `measured NAME VALUE` for each figure; `cargo xtask bench` sets them beside the targets. The driver's own time
//! is in them, and up to a tenth of a second until it looks again.

#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hospes_tests::seat::Seat;
use hospes_tests::window::{Desktop, Window};

/// Starts of which the median is taken.
const STARTS: usize = 5;
/// Time after which a window counts as idle.
const SETTLE: Duration = Duration::from_secs(15);
/// How long an app that was closed may take to be gone.
const GONE: Duration = Duration::from_secs(30);
const PERSON: &str = "Ada";
const PASSPHRASE: &str = "a long enough passphrase of Ada";

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = Desktop::start(Seat::here(&folder.path().join("data"))?)?;
    // As the system names a program that runs.
    let app = std::fs::canonicalize(desktop.seat().program("hospes"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let window = desktop.open().await?;
        laid_down(&window).await?;
        window.close().await?;

        let mut starts = Vec::new();
        for _ in 0..STARTS {
            gone(&app)?;
            let begin = Instant::now();
            let window = desktop.open().await?;
            window.shows("Sign in").await?;
            starts.push(begin.elapsed());
            window.close().await?;
        }
        starts.sort();
        println!("measured window_start {:.3}", starts[STARTS / 2].as_secs_f64() * 1e3);

        gone(&app)?;
        let window = desktop.open().await?;
        window.shows("Sign in").await?;
        window.type_into("name", PERSON).await?;
        window.type_into("passphrase", PASSPHRASE).await?;
        window.press("Sign in").await?;
        window.shows(&format!("Good day, {PERSON}")).await?;
        tokio::time::sleep(SETTLE).await;
        println!("measured window_memory {:.3}", proportional_megabytes(&app)?);
        window.close().await
    })
}

/// The first start: a site of this account, with its keys in the keychain.
async fn laid_down(window: &Window) -> Result<()> {
    window.shows("Welcome to Hospes").await?;
    window.press("Continue").await?;
    window.shows("Who is the first administrator?").await?;
    window.type_into("name", PERSON).await?;
    window.type_into("passphrase", PASSPHRASE).await?;
    window.type_into("again", PASSPHRASE).await?;
    window.press("Continue").await?;
    window.shows("In the keychain of this machine").await?;
    window.press("Set up this site").await?;
    window.shows(&format!("Good day, {PERSON}")).await
}

/// Waits until no process of the app is left.
fn gone(app: &Path) -> Result<()> {
    let end = Instant::now() + GONE;
    while !processes(app)?.is_empty() {
        ensure!(Instant::now() < end, "the app goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The app's processes, and those that they started.
fn processes(app: &Path) -> Result<Vec<u32>> {
    let mut parents = HashMap::new();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // What has ended meanwhile has none of these.
        let Ok(status) = std::fs::read_to_string(process.path().join("status")) else { continue };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parents.extend(parent.and_then(|parent| parent.trim().parse::<u32>().ok()).map(|parent| (id, parent)));
        if std::fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == app) {
            found.push(id);
        }
    }
    // Whoever is started by one of them is one, too.
    let is_below = |mut id: u32| {
        while let Some(parent) = parents.get(&id) {
            if found.contains(parent) {
                return true;
            }
            id = *parent;
        }
        false
    };
    let below: Vec<u32> = parents.keys().copied().filter(|id| !found.contains(id) && is_below(*id)).collect();
    found.extend(below);
    Ok(found)
}

/// What the app's processes hold, with each shared page counted once over all that share it.
fn proportional_megabytes(app: &Path) -> Result<f64> {
    let all = processes(app)?;
    ensure!(!all.is_empty(), "the app is not found; it lets only root look into it");
    let mut kib = 0.0;
    for process in all {
        let path = format!("/proc/{process}/smaps_rollup");
        let held = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = held.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        kib += line.trim().trim_end_matches("kB").trim().parse::<f64>()?;
    }
    Ok(kib * 1024.0 / 1e6)
}
