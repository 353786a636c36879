//! The scheduler: a queue of what happens when, virtual time, and one event after the other.
//!
//! Each event is applied whole, store and all, before the next is chosen, so that the order of everything is the seed's
//! although the stores have threads of their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use hospes_party::Clock;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::message::{FromSite, ToSite};

use crate::coordinator::Coordinator;
use crate::liar::Liar;
use crate::network::Session;
use crate::rng::Rng;
use crate::run::Planted;
use crate::site::Hospital;
use crate::swarm::{FAULTY_MS, Fault, Swarm};
use crate::template::{Prepared, SITES, START};
use crate::truth::Truth;

/// Between two looks of a site at what time alone changes.
pub(crate) const TICK_MS: i64 = 20_000;

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Coordinator,
    Site(usize),
}

impl Node {
    /// Place in lists with one place for each node.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Coordinator => SITES,
            Self::Site(site) => site,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        ["A", "B", "C", "D", "E", "F"].get(self.index()).filter(|_| self != Self::Coordinator).unwrap_or(&"coordinator")
    }
}

/// Something that is to happen.
pub(crate) enum Event {
    Tick(usize),
    Wake,
    Dial(usize, u64),
    ToSite { session: u64, message: Arc<ToSite> },
    ToCoordinator { session: u64, message: FromSite },
    SiteLoses(u64),
    CoordinatorLoses(u64),
    Upload { site: usize, life: u64, upload: u64 },
    Download { site: usize, life: u64, download: u64 },
    Worked { site: usize, life: u64, work: u64 },
    Result(u64),
    Recover(u64),
    Restart(Node),
    Fault(Fault),
    Heal(Healing),
}

/// The end of a fault that lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Healing {
    Partition(usize),
    Disk(Node),
    Slow(usize),
}

/// What is about to happen to a process, shared with its seam.
#[derive(Debug, Default)]
pub(crate) struct Doom {
    /// Moments of transactions and files until it dies.
    pub(crate) dies_in: Option<u32>,
    /// One of [`FILE_MOMENTS`] at which it dies.
    dies_at: Option<&'static str>,
    pub(crate) disk_is_full: bool,
    /// Where it died.
    pub(crate) died_at: Option<String>,
}

impl Doom {
    /// Counts a moment; `true` if the process dies at it.
    pub(crate) fn meet(&mut self, what: &str, when: &str) -> bool {
        if let Some(left) = &mut self.dies_in {
            *left = left.saturating_sub(1);
        }
        let is_the_last = self.dies_in.take_if(|left| *left == 0).is_some();
        let is_named = self.dies_at.take_if(|at| *at == format!("{what}-{when}").to_lowercase()).is_some();
        if is_the_last || is_named {
            self.died_at = Some(format!("{when} '{what}'"));
        }
        is_the_last || is_named
    }
}

/// Every moment of a file at which a process can die: the coordinator's of uploads and models, a site's of what its worker
/// and its link make.
pub const FILE_MOMENTS: [&str; 12] = [
    "upload-written",
    "upload-durable",
    "upload-named",
    "model-written",
    "model-durable",
    "model-named",
    "payload-written",
    "payload-durable",
    "payload-named",
    "download-written",
    "download-durable",
    "download-named",
];

/// Everything.
pub(crate) struct World<'t> {
    pub(crate) template: &'t Prepared,
    pub(crate) folder: PathBuf,
    pub(crate) rng: Rng,
    pub(crate) swarm: Swarm,
    pub(crate) planted: Option<Planted>,
    pub(crate) now: i64,
    pub(crate) hospitals: Vec<Hospital>,
    pub(crate) coordinator: Option<Coordinator>,
    /// Number of the coordinator's process.
    pub(crate) life: u64,
    pub(crate) wakes_at: i64,
    pub(crate) sessions: BTreeMap<u64, Session>,
    pub(crate) truth: Truth,
    pub(crate) lies: bool,
    pub(crate) liar: Liar,
    pub(crate) calm: bool,
    /// Whether somebody cancelled the job.
    pub(crate) cancelled: bool,
    dooms: Vec<Arc<Mutex<Doom>>>,
    clocks: Vec<Arc<AtomicI64>>,
    queue: BTreeMap<(i64, u64), Event>,
    numbers: u64,
    trace: String,
    loud: bool,
    pub(crate) events: u64,
    /// Deaths at a moment of a transaction or a file.
    pub(crate) deaths: u64,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'t> World<'t> {
    pub(crate) fn new(
        template: &'t Prepared,
        folder: PathBuf,
        mut rng: Rng,
        swarm: Option<Swarm>,
        planted: Option<Planted>,
        loud: bool,
    ) -> Self {
        let swarm = swarm.unwrap_or_else(|| Swarm::of(&mut rng, SITES));
        let clock = || Arc::new(AtomicI64::new(START));
        Self {
            hospitals: (0..SITES).map(|index| Hospital::new(index, &folder)).collect(),
            coordinator: None,
            life: 0,
            wakes_at: i64::MAX,
            sessions: BTreeMap::new(),
            truth: Truth::default(),
            lies: false,
            liar: Liar::default(),
            calm: false,
            cancelled: false,
            dooms: (0..=SITES).map(|_| Arc::default()).collect(),
            clocks: (0..=SITES).map(|_| clock()).collect(),
            queue: BTreeMap::new(),
            numbers: 0,
            trace: String::new(),
            events: 0,
            deaths: 0,
            now: 0,
            template,
            folder,
            rng,
            swarm,
            planted,
            loud,
        }
    }

    /// A number that nothing else has.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Puts an event into the queue.
    pub(crate) fn at(&mut self, time: i64, event: Event) {
        let number = self.number();
        self.queue.insert((time.max(self.now), number), event);
    }

    pub(crate) fn after(&mut self, millis: i64, event: Event) {
        self.at(self.now + millis.max(0), event);
    }

    /// Writes a line of the trace.
    pub(crate) fn note(&mut self, who: Node, what: impl std::fmt::Display) {
        let from = self.trace.len();
        // A string takes whatever is written.
        let _ = writeln!(self.trace, "{:>9} {:11} {what}", self.now, who.name());
        if self.loud {
            #[allow(clippy::print_stdout, reason = "the trace that was asked for")]
            {
                print!("{}", &self.trace[from..]);
            }
        }
    }

    /// Digest of everything that happened.
    pub(crate) fn trace_digest(&self) -> Digest {
        Digest::of(self.trace.as_bytes())
    }

    pub(crate) fn doom(&self, node: Node) -> Arc<Mutex<Doom>> {
        self.dooms[node.index()].clone()
    }

    /// Lets each process die once, when it first comes to this moment of a file.
    pub(crate) fn let_die_at(&self, moment: &'static str) {
        for doom in &self.dooms {
            locked(doom).dies_at = Some(moment);
        }
    }

    /// Where a process died, in words; nowhere if somebody killed it.
    pub(crate) fn died_at(&mut self, node: Node) -> String {
        let at = locked(&self.doom(node)).died_at.take();
        self.deaths += u64::from(at.is_some());
        at.unwrap_or_default()
    }

    /// A node's clock, which runs with the world's and can be turned.
    pub(crate) fn clock(&self, node: Node) -> Clock {
        let clock = self.clocks[node.index()].clone();
        Arc::new(move || Timestamp::from_millis(clock.load(Ordering::Relaxed)))
    }

    pub(crate) fn time_at(&self, node: Node) -> Timestamp {
        Timestamp::from_millis(self.clocks[node.index()].load(Ordering::Relaxed))
    }

    pub(crate) fn turn(&self, node: Node, millis: i64) {
        self.clocks[node.index()].fetch_add(millis, Ordering::Relaxed);
    }

    /// Sets all clocks right.
    fn set_clocks(&self) {
        for clock in &self.clocks {
            clock.store(START + self.now, Ordering::Relaxed);
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, to: i64) {
        let passed = to - self.now;
        if passed > 0 {
            self.now = to;
            for clock in &self.clocks {
                clock.fetch_add(passed, Ordering::Relaxed);
            }
        }
    }

    /// Starts all processes and puts the seed's faults into the queue.
    pub(crate) async fn start(&mut self) -> Result<()> {
        Box::pin(self.restart(Node::Coordinator)).await?;
        for site in 0..SITES {
            Box::pin(self.restart(Node::Site(site))).await?;
        }
        for (at, fault) in self.swarm.faults.clone() {
            self.at(at, Event::Fault(fault));
        }
        Ok(())
    }

    /// Applies what is in the queue until a time, or until `over` says that it is enough.
    pub(crate) async fn run_until(&mut self, end: i64, over: impl Fn(&Self) -> bool) -> Result<()> {
        while !over(self) {
            let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) else {
                self.pass(end);
                return Ok(());
            };
            let ((time, _), event) = entry.remove_entry();
            self.pass(time);
            self.events += 1;
            Box::pin(self.apply(event)).await?;
        }
        Ok(())
    }

    async fn apply(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Tick(site) => self.tick(site).await,
            Event::Wake => self.wake().await,
            Event::Dial(site, life) => self.dial(site, life).await,
            Event::ToSite { session, message } => self.arrive_at_site(session, message).await,
            Event::ToCoordinator { session, message } => self.arrive_at_coordinator(session, message).await,
            Event::SiteLoses(session) => self.site_loses(session).await,
            Event::CoordinatorLoses(session) => self.coordinator_loses(session).await,
            Event::Upload { site, life, upload } => self.upload(site, life, upload).await,
            Event::Download { site, life, download } => self.download(site, life, download).await,
            Event::Worked { site, life, work } => self.worked(site, life, work).await,
            Event::Result(life) => self.hear_result(life).await,
            Event::Recover(life) => self.recover(life).await,
            Event::Restart(node) => Box::pin(self.restart(node)).await?,
            Event::Fault(fault) if !self.calm => self.fault(fault).await,
            Event::Fault(_) => {}
            Event::Heal(healing) => self.heal(healing),
        }
        Ok(())
    }

    pub(crate) async fn restart(&mut self, node: Node) -> Result<()> {
        match node {
            Node::Coordinator => Box::pin(self.start_coordinator()).await,
            Node::Site(site) => {
                Box::pin(self.start_site(site)).await;
                Ok(())
            }
        }
    }

    async fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(site) => self.cut_site(site, 50),
            Fault::Partition(site, millis) => {
                self.note(Node::Site(site), format!("is cut off for {millis} ms"));
                self.hospitals[site].partitions += 1;
                self.after(millis, Event::Heal(Healing::Partition(site)));
                self.cut_site(site, 35_000);
            }
            Fault::Kill(node) => self.kill(node).await,
            Fault::Arm(node, moments) => {
                self.note(node, format!("will die at the {moments}th moment of a transaction or a file"));
                locked(&self.doom(node)).dies_in = Some(moments);
            }
            Fault::Clock(node, millis) => {
                self.note(node, format!("clock jumps by {millis} ms"));
                self.turn(node, millis);
            }
            Fault::DiskFull(node, millis) => {
                self.note(node, format!("disk is full for {millis} ms"));
                locked(&self.doom(node)).disk_is_full = true;
                self.after(millis, Event::Heal(Healing::Disk(node)));
            }
            Fault::Slow(site, millis) => {
                self.note(Node::Site(site), format!("is slow for {millis} ms"));
                self.hospitals[site].slow = true;
                self.after(millis, Event::Heal(Healing::Slow(site)));
            }
            Fault::Person(site, act) => self.person(site, act).await,
            Fault::Cancel => self.cancel().await,
            Fault::Rerun => {
                self.rerun().await;
            }
        }
    }

    async fn kill(&mut self, node: Node) {
        match node {
            Node::Coordinator => {
                if let Some(process) = self.coordinator.take() {
                    self.coordinator_dies(process, "killed").await;
                }
            }
            Node::Site(site) => {
                if let Some(process) = self.hospitals[site].process.take() {
                    self.site_dies(site, process, "killed").await;
                }
            }
        }
    }

    fn heal(&mut self, healing: Healing) {
        match healing {
            Healing::Partition(site) => {
                let partitions = &mut self.hospitals[site].partitions;
                *partitions = partitions.saturating_sub(1);
            }
            Healing::Disk(node) => locked(&self.doom(node)).disk_is_full = false,
            Healing::Slow(site) => self.hospitals[site].slow = false,
        }
    }

    /// Faults end: from here on everything works, and what is down comes up again.
    pub(crate) async fn heal_all(&mut self) -> Result<()> {
        self.pass(FAULTY_MS.max(self.now));
        self.calm = true;
        let faults = std::mem::take(&mut self.swarm.faults);
        self.swarm = Swarm { faults, ..Swarm::calm() };
        for site in 0..SITES {
            self.hospitals[site].partitions = 0;
            self.hospitals[site].slow = false;
        }
        for doom in &self.dooms {
            *locked(doom) = Doom::default();
        }
        self.set_clocks();
        if self.coordinator.is_none() {
            Box::pin(self.restart(Node::Coordinator)).await?;
        }
        for site in 0..SITES {
            if self.hospitals[site].process.is_none() {
                Box::pin(self.restart(Node::Site(site))).await?;
            }
            self.end_holds(site).await;
        }
        self.note(Node::Coordinator, "all faults are over");
        Ok(())
    }

    /// Ends all processes, so that the folder can go.
    pub(crate) async fn close(mut self) {
        if let Some(process) = self.coordinator.take() {
            drop(process.schedule);
            process.store.close().await;
        }
        for hospital in &mut self.hospitals {
            if let Some(process) = hospital.process.take() {
                drop(process.site);
                process.hold.bury().await;
            }
        }
    }
}
