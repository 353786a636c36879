//! Whole federations in one process: the real engine of each site and the real schedule of the coordinator on their real
//! stores, under a seeded scheduler that loses, delays, doubles and reorders messages, cuts and partitions connections,
//! kills processes at any moment of any transaction and any file, turns clocks, fills disks, slows sites, and lets people
//! change their minds.
//!
//! What it does not do: TLS, HTTP/2 and gRPC are replaced by [`network`] and [`transfer`], training by payloads that are
//! known beforehand, and a killed process loses its memory but nothing that it wrote to a file.
//!
//! Start reading at [`run()`] (one seed), then `world` (the queue), then `truth` (what must hold).

mod coordinator;
mod ended;
mod fit;
mod liar;
mod network;
mod people;
mod rng;
mod run;
mod site;
mod swarm;
mod template;
mod transfer;
mod truth;
mod world;

pub use run::{Options, Outcome, Planted, run};
pub use template::Template;
pub use world::FILE_MOMENTS;

/// The command that replays a seed.
pub fn replay(seed: u64, options: Options) -> String {
    let calm = if options.calm { " --calm" } else { "" };
    let masked = if options.masked { " --masked" } else { "" };
    let lies = if options.lies { " --lies" } else { "" };
    let death = options.dies_at.map_or(String::new(), |moment| format!(" --dies-at {moment}"));
    let bug = match options.planted {
        None => "",
        Some(Planted::DoubleCount) => " --planted double-count",
        Some(Planted::LostAcknowledgement) => " --planted lost-acknowledgement",
        Some(Planted::SkippedPermitCheck) => " --planted skipped-permit-check",
        Some(Planted::PrgDiffers) => " --planted prg-differs",
        Some(Planted::ShareRevealedTwice) => " --planted share-revealed-twice",
        Some(Planted::SumSignedTwice) => " --planted sum-signed-twice",
    };
    format!("cargo run -p hospes-simulation -- --seed {seed} --trace{calm}{masked}{lies}{death}{bug}")
}

/// Runs something on one thread, as all simulation must.
///
/// # Errors
/// If there is no runtime to be had, and what `work` says.
pub fn on_one_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    stay_on_one_core();
    // Nothing here waits for a socket.
    tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(work)
}

/// Keeps this thread, and those that it starts, on one core. The stores have threads of their own, which take turns with
/// it, and to wake one on another core takes longer than most of what it is asked for.
fn stay_on_one_core() {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    // Tests that run side by side have places of their own in their group, which has as many as there are cores.
    let place = std::env::var("NEXTEST_TEST_GROUP_SLOT").ok().and_then(|place| place.parse().ok());
    let place = place.unwrap_or_else(|| std::process::id() as usize);
    if let Some(core) = cores.get(place % cores.len().max(1)) {
        core_affinity::set_for_current(*core);
    }
}
