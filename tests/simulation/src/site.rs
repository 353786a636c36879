//! A site's process in the simulation: the real engine on its real store, what its link carries, and its work on data.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hospes_party::Session;
use hospes_party::link::LinkCommand;
use hospes_party::simulation::{Ending, Fate, Hold, Moment, Planted as Bug, Site, Work};
use hospes_protocol::message::{Decision, FromSite, RoundReply, UploadKind, Witness};
use hospes_protocol::plan;
use tokio::sync::mpsc;

use crate::run::Planted;
use crate::template::{SITES, site_config, site_folder};
use crate::transfer::{Downloading, Uploading};
use crate::truth::short;
use crate::world::{Event, Node, TICK_MS, World, locked};

type Links = Arc<Mutex<Vec<mpsc::Receiver<LinkCommand>>>>;

/// A running process.
pub(crate) struct Process {
    pub(crate) site: Site,
    pub(crate) hold: Arc<Hold>,
}

/// A site: its folder, and its process where there is one.
pub(crate) struct Hospital {
    pub(crate) folder: PathBuf,
    pub(crate) process: Option<Process>,
    /// Number of the process.
    pub(crate) life: u64,
    /// Links that the engine opened and that are not taken up yet.
    links: Links,
    /// What the engine asks of its link; `None` while it has none.
    pub(crate) commands: Option<mpsc::Receiver<LinkCommand>>,
    pub(crate) session: Option<u64>,
    /// Whether the session's greeting was answered.
    pub(crate) welcomed: bool,
    pub(crate) outbox: VecDeque<FromSite>,
    pub(crate) uploads: BTreeMap<u64, Uploading>,
    pub(crate) downloads: BTreeMap<u64, Downloading>,
    work: BTreeMap<u64, Work>,
    pub(crate) partitions: u32,
    pub(crate) slow: bool,
    /// The administrator, logged in with this process.
    pub(crate) ana: Option<Session>,
    /// Whether people stopped or paused something.
    pub(crate) held: bool,
    /// Why nothing derived may leave, as the site's own store has it.
    pub(crate) barred: Option<&'static str>,
}

impl Hospital {
    pub(crate) fn new(index: usize, folder: &Path) -> Self {
        Self {
            folder: site_folder(folder, index),
            process: None,
            life: 0,
            links: Arc::default(),
            commands: None,
            session: None,
            welcomed: false,
            outbox: VecDeque::new(),
            uploads: BTreeMap::new(),
            downloads: BTreeMap::new(),
            work: BTreeMap::new(),
            partitions: 0,
            slow: false,
            ana: None,
            held: false,
            barred: None,
        }
    }

    /// Forgets what only the process knew.
    fn forget(&mut self) {
        locked(&self.links).clear();
        self.commands = None;
        self.session = None;
        self.welcomed = false;
        self.outbox.clear();
        self.uploads.clear();
        self.downloads.clear();
        self.work.clear();
        self.ana = None;
    }
}

impl World<'_> {
    pub(crate) async fn start_site(&mut self, site: usize) {
        if self.hospitals[site].process.is_some() {
            return;
        }
        let node = Node::Site(site);
        let doom = self.doom(node);
        let fate = move |what: &'static str, when: Moment| {
            let mut doom = locked(&doom);
            if doom.meet(what, &format!("{when:?}")) {
                return Fate::Die;
            }
            if doom.disk_is_full && when == Moment::During { Fate::DiskFull } else { Fate::GoOn }
        };
        let bug = match self.planted {
            Some(Planted::SkippedPermitCheck) => Some(Bug::SkippedPermitCheck),
            // One site has another processor.
            Some(Planted::PrgDiffers) if site == SITES - 1 => Some(Bug::OtherKeystream),
            Some(Planted::ShareRevealedTwice) => Some(Bug::RevealedAnew),
            Some(Planted::SumSignedTwice) => Some(Bug::SumAgreedAnew),
            Some(Planted::PrgDiffers | Planted::DoubleCount | Planted::LostAcknowledgement) | None => None,
        };
        let hold = Hold::new(Box::new(fate), bug);
        let links = self.hospitals[site].links.clone();
        let spawn_link = Arc::new(move |_, _| {
            let (sender, commands) = mpsc::channel(1_024);
            locked(&links).push(commands);
            sender
        });
        let config = site_config(&self.hospitals[site].folder, self.clock(node), spawn_link);
        let opened = hold.clone().live(Box::pin(Site::open(config, hold.clone()))).await;
        match opened {
            Some(Ok(opened)) => {
                self.hospitals[site].life = self.number();
                self.hospitals[site].process = Some(Process { site: opened, hold });
                self.note(node, "starts");
                let life = self.rng.between(1, TICK_MS);
                self.after(life, Event::Tick(site));
                self.after_site(site);
                if self.now > 0 {
                    self.look(site).await;
                }
            }
            other => {
                hold.bury().await;
                self.hospitals[site].forget();
                let at = self.died_at(node);
                let why = match other.and_then(Result::err) {
                    Some(error) => format!("cannot start: {error}"),
                    None => format!("dies at its start {at}"),
                };
                self.note(node, why);
                let wait = self.rng.between(500, 10_000);
                self.after(wait, Event::Restart(node));
            }
        }
    }

    /// Does something with a site's engine, and what follows; `None` if there is no process, or it died of it.
    pub(crate) async fn at_site<T>(&mut self, site: usize, work: impl AsyncFnOnce(&mut Site) -> T) -> Option<T> {
        let mut process = self.hospitals[site].process.take()?;
        match process.hold.clone().live(work(&mut process.site)).await {
            Some(done) => {
                self.hospitals[site].process = Some(process);
                self.after_site(site);
                Some(done)
            }
            None => {
                self.site_dies(site, process, "dies").await;
                None
            }
        }
    }

    /// Does work beside a site's engine, as its worker and its link do; `None` if there is no process, or it died of it.
    pub(crate) async fn beside_engine<T>(&mut self, site: usize, work: impl AsyncFnOnce(&Hold) -> T) -> Option<T> {
        let hold = self.hospitals[site].process.as_ref()?.hold.clone();
        let done = hold.live(work(&hold)).await;
        if done.is_none()
            && let Some(process) = self.hospitals[site].process.take()
        {
            self.site_dies(site, process, "dies").await;
        }
        done
    }

    pub(crate) async fn site_dies(&mut self, site: usize, process: Process, how: &str) {
        let node = Node::Site(site);
        let at = self.died_at(node);
        self.note(node, format!("{how} {at}"));
        let Process { site: engine, hold } = process;
        drop(engine);
        hold.bury().await;
        if let Some(number) = self.hospitals[site].session {
            if let Some(session) = self.sessions.get_mut(&number) {
                session.broken = true;
            }
            let within = if self.rng.per_mille(500) { 500 } else { 35_000 };
            let wait = self.rng.between(1, within);
            self.after(wait, Event::CoordinatorLoses(number));
        }
        self.hospitals[site].forget();
        let wait = self.rng.between(200, 15_000);
        self.after(wait, Event::Restart(node));
    }

    /// Takes up what the engine wants of its link and of its workers.
    fn after_site(&mut self, site: usize) {
        // What was said to a link that another one replaces comes first: that it is to close, for one.
        self.hear_engine(site);
        let links = std::mem::take(&mut *locked(&self.hospitals[site].links));
        if let Some(commands) = links.into_iter().next_back() {
            let hospital = &mut self.hospitals[site];
            hospital.commands = Some(commands);
            let life = hospital.life;
            let wait = self.rng.between(10, 1_500);
            self.after(wait, Event::Dial(site, life));
            self.hear_engine(site);
        }
        let ordered = self.hospitals[site].process.as_ref().map(|p| p.site.ordered()).unwrap_or_default();
        for work in ordered {
            self.note(Node::Site(site), format!("works on {}", short(work.round())));
            self.truth.ordered(site, work.round());
            let slow = if self.hospitals[site].slow { self.rng.between(5_000, 40_000) } else { 0 };
            let wait = slow + self.rng.between(50, self.swarm.work_ms);
            let (number, life) = (self.number(), self.hospitals[site].life);
            self.hospitals[site].work.insert(number, work);
            self.after(wait, Event::Worked { site, life, work: number });
        }
    }

    fn hear_engine(&mut self, site: usize) {
        while let Some(command) = self.hospitals[site].commands.as_mut().and_then(|c| c.try_recv().ok()) {
            self.command_link(site, command);
        }
    }

    fn command_link(&mut self, site: usize, command: LinkCommand) {
        match command {
            LinkCommand::Send(message) => {
                self.truth.said(site, &message);
                self.lie_about_sums(site, &message);
                self.send_to_coordinator(site, message);
            }
            LinkCommand::Upload { upload, path } => {
                let same = |u: &Uploading| u.upload.round() == upload.round() && u.upload.digest() == upload.digest();
                if !self.hospitals[site].uploads.values().any(same) {
                    let (number, life) = (self.number(), self.hospitals[site].life);
                    self.hospitals[site].uploads.insert(number, Uploading::new(upload, path));
                    self.after(1, Event::Upload { site, life, upload: number });
                }
            }
            LinkCommand::Withdraw { round, digest } => {
                self.hospitals[site].uploads.retain(|_, u| *u.upload.round() != round || u.upload.digest() != digest);
            }
            LinkCommand::Download { digest, to, .. } => {
                if !self.hospitals[site].downloads.values().any(|d| d.digest == digest) {
                    let (number, life) = (self.number(), self.hospitals[site].life);
                    self.hospitals[site].downloads.insert(number, Downloading::new(digest, to));
                    self.after(1, Event::Download { site, life, download: number });
                }
            }
            // Nobody asks for a model's card here: it is a person's wish, and no part of a run.
            LinkCommand::Card { .. } => {}
            LinkCommand::Forget { digest } => self.hospitals[site].downloads.retain(|_, d| d.digest != digest),
            LinkCommand::Close => {
                self.note(Node::Site(site), "closes its link");
                if let Some(number) = self.hospitals[site].session.take() {
                    if let Some(session) = self.sessions.get_mut(&number) {
                        session.broken = true;
                    }
                    self.after(20, Event::CoordinatorLoses(number));
                }
                let hospital = &mut self.hospitals[site];
                hospital.commands = None;
                hospital.welcomed = false;
                hospital.outbox.clear();
                hospital.uploads.clear();
                hospital.downloads.clear();
            }
        }
    }

    pub(crate) async fn tick(&mut self, site: usize) {
        // One train of ticks for each process; a process that died ends its own.
        if self.at_site(site, async |s| s.tick().await).await.is_some() {
            self.after(TICK_MS, Event::Tick(site));
        }
    }

    /// A worker is done.
    pub(crate) async fn worked(&mut self, site: usize, life: u64, work: u64) {
        if self.hospitals[site].life != life {
            return;
        }
        let Some(work) = self.hospitals[site].work.remove(&work).filter(|work| !work.is_stopped()) else { return };
        let node = Node::Site(site);
        let round = work.round().clone();
        let crashes = self.swarm.work_crashes;
        let ending = if self.rng.per_mille(crashes) {
            self.note(node, format!("the worker on {} crashes", short(&round)));
            Ending::crashed()
        } else if locked(&self.doom(node)).disk_is_full {
            self.note(node, format!("no room for {}", short(&round)));
            Ending::disk_full()
        } else {
            let payload = self.truth.payload(site, work.header(), work.plan());
            let is_figures = plan::masks::reports_figures(work.plan(), &round.task);
            let kind = if is_figures { UploadKind::Figures } else { UploadKind::Update };
            let (now, is_masked) = (self.time_at(node), work.header().is_secure());
            let done = self.beside_engine(site, async |hold| work.carry_out(hold, now, kind, &payload).await).await;
            let Some(done) = done else { return };
            self.note(node, format!("is done with {}", short(&round)));
            if is_masked {
                self.truth.is_to_be_masked(site, &round);
            }
            self.truth.made(site, &round, payload);
            done.unwrap_or_else(|_| Ending::disk_full())
        };
        self.at_site(site, async move |s| s.finish(round, ending).await).await;
    }
}

/// A message's name in the trace.
pub(crate) fn word_of(message: &FromSite) -> String {
    match message {
        FromSite::Hello(_) => "hello".into(),
        FromSite::Heartbeat { .. } => "heartbeat".into(),
        FromSite::Decision { decision, .. } => match decision {
            Decision::Approved { .. } => "approved".into(),
            Decision::Refused(_) => "refused".into(),
            Decision::Suspended => "suspended".into(),
            Decision::Revoked => "revoked".into(),
            Decision::Expired => "expired".into(),
        },
        FromSite::Reserved { refusal: None, .. } => "reserved".into(),
        FromSite::Reserved { refusal: Some(refusal), .. } => format!("cannot reserve: {}", refusal.detail),
        FromSite::RoundReply { round, reply } => match reply {
            RoundReply::Working => format!("works on {}", short(round)),
            RoundReply::Refused(refusal) => format!("refuses {}: {}", short(round), refusal.detail),
            RoundReply::Failed(reason) => format!("failed {}: {reason}", short(round)),
            RoundReply::Withdrawn(refusal) => format!("withdraws {}: {}", short(round), refusal.detail),
        },
        FromSite::Progress { round, .. } => format!("progress of {}", short(round)),
        FromSite::Release { .. } => "release".into(),
        FromSite::SecureStep { round, .. } => format!("says a step of {}", short(round)),
        FromSite::Vouch(_) => "vouch".into(),
        FromSite::Witness(Witness::Show { .. }) => "witness show".into(),
        FromSite::Witness(Witness::ProveFrom { .. }) => "witness prove from".into(),
        FromSite::Witness(Witness::Cosigned { .. }) => "witness cosigned".into(),
        FromSite::Witness(Witness::Contradiction { detail, .. }) => format!("witness contradiction: {detail}"),
        FromSite::Goodbye => "goodbye".into(),
    }
}

/// Whether a message takes a site out of rounds, rightly.
pub(crate) fn takes_back(message: &FromSite) -> bool {
    match message {
        FromSite::Decision { decision, .. } => !matches!(decision, Decision::Approved { .. }),
        _ => false,
    }
}
