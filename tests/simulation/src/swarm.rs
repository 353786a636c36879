//! Which faults a seed knows, how often, and when.
//!
//! Not every seed has every fault: with all of them on at once, the common ones would keep the rare ones from ever being
//! met in an interesting state (Groce et al. 2012, "Swarm testing").

use crate::rng::Rng;
use crate::world::Node;

/// Time within which faults happen, in milliseconds.
pub(crate) const FAULTY_MS: i64 = 45_000;

/// Rates and times of one seed.
#[derive(Debug, Clone)]
pub(crate) struct Swarm {
    /// Messages in a thousand that get lost though the session goes on.
    pub(crate) drop: u32,
    /// Messages in a thousand that arrive twice.
    pub(crate) duplicate: u32,
    /// Messages in a thousand that overtake others or are overtaken.
    pub(crate) reorder: u32,
    /// Steps of transfers in a thousand that are cut off.
    pub(crate) cut: u32,
    /// Receipts in a thousand that get lost.
    pub(crate) receipts: u32,
    /// Longest delay of a message, in milliseconds.
    pub(crate) delay_ms: i64,
    /// Longest time of work on data, in milliseconds.
    pub(crate) work_ms: i64,
    /// Work in a thousand that crashes.
    pub(crate) work_crashes: u32,
    /// Shortest time between two relays of one site's checkpoint: mostly long, because relays are most of the traffic.
    pub(crate) relay_ms: i64,
    /// What happens when.
    pub(crate) faults: Vec<(i64, Fault)>,
}

/// Something that happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A site's session breaks.
    Cut(usize),
    /// Nothing passes between a site and the coordinator for so long.
    Partition(usize, i64),
    /// A process is killed between two events.
    Kill(Node),
    /// A process is killed at the so-manieth moment of a transaction or a file from now on.
    Arm(Node, u32),
    /// A clock jumps.
    Clock(Node, i64),
    /// A disk is full for so long.
    DiskFull(Node, i64),
    /// Work at a site is slow from now on for so long.
    Slow(usize, i64),
    /// People of a site do something.
    Person(usize, Act),
    /// The operator cancels the job.
    Cancel,
    /// The operator runs the job again, if it ended without success.
    Rerun,
}

/// What people of a site do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// They take the approval back.
    Revoke,
    /// They suspend it.
    Suspend,
    /// They end the suspension.
    Resume,
    /// They set the strict policy.
    Tighten,
    /// They stop everything.
    Stop,
    /// They end the stop.
    GoOn,
    /// They pause the federation.
    Pause,
    /// They end the pause.
    Unpause,
    /// They stop the run.
    CancelJob,
}

const ACTS: [Act; 9] = [
    Act::Revoke,
    Act::Suspend,
    Act::Resume,
    Act::Tighten,
    Act::Stop,
    Act::GoOn,
    Act::Pause,
    Act::Unpause,
    Act::CancelJob,
];

impl Swarm {
    /// No faults at all.
    pub(crate) fn calm() -> Self {
        Self {
            drop: 0,
            duplicate: 0,
            reorder: 0,
            cut: 0,
            receipts: 0,
            delay_ms: 40,
            work_ms: 1_000,
            work_crashes: 0,
            relay_ms: 5_000,
            faults: Vec::new(),
        }
    }

    /// The faults of a seed.
    pub(crate) fn of(rng: &mut Rng, sites: usize) -> Self {
        let mut rate =
            |most: i64| if rng.per_mille(500) { u32::try_from(rng.between(1, most)).unwrap_or(0) } else { 0 };
        let (drop, duplicate, reorder) = (rate(60), rate(120), rate(120));
        let (cut, receipts, work_crashes) = (rate(150), rate(400), rate(120));
        let delay_ms = if rng.per_mille(300) { 4_000 } else { 80 };
        let work_ms = if rng.per_mille(300) { 12_000 } else { 1_500 };
        let relay_ms = if rng.per_mille(150) { 2_000 } else { 600_000 };
        let mut faults = Vec::new();
        let kinds: Vec<u8> = (0..9).filter(|_| rng.per_mille(330)).collect();
        for kind in kinds {
            for _ in 0..rng.between(1, 4) {
                let at = rng.between(0, FAULTY_MS);
                faults.push((at, fault(rng, kind, sites)));
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        Self { drop, duplicate, reorder, cut, receipts, delay_ms, work_ms, work_crashes, relay_ms, faults }
    }
}

fn fault(rng: &mut Rng, kind: u8, sites: usize) -> Fault {
    let site = rng.index(sites);
    let node = if rng.per_mille(400) { Node::Coordinator } else { Node::Site(site) };
    match kind {
        0 => Fault::Cut(site),
        1 => Fault::Partition(site, rng.between(500, 40_000)),
        2 => Fault::Kill(node),
        3 | 4 => Fault::Arm(node, u32::try_from(rng.between(1, 60)).unwrap_or(1)),
        5 => {
            let far = if rng.per_mille(300) { 3 * 24 * 3_600_000 } else { 200_000 };
            Fault::Clock(node, rng.between(-far, far))
        }
        6 => Fault::DiskFull(node, rng.between(100, 20_000)),
        7 => Fault::Slow(site, rng.between(5_000, 40_000)),
        _ => match rng.index(12) {
            10 => Fault::Cancel,
            11 => Fault::Rerun,
            act => Fault::Person(site, ACTS[act % ACTS.len()]),
        },
    }
}
