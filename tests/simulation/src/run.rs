//! One seed: a run with faults, its calm end, and the checks.

use std::io::BufReader;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hospes_coordinator::store::jobs::JobState;
use hospes_coordinator::store::rounds::RoundState;
use hospes_ledger::Ledger;
use hospes_ledger::verify::{Expectations, verify};
use hospes_party::view::Page;
use hospes_protocol::id::{Digest, SiteId};
use hospes_protocol::sign::PublicKey;

use crate::ended;
use crate::rng::Rng;
use crate::swarm::{FAULTY_MS, Swarm};
use crate::template::{SITES, Template, coordinator_key, federation, site_id, site_key};
use crate::truth::{Server, short};
use crate::world::{Node, World};

/// After the faults a run gets so much time of its own to come to its end.
const CALM_MS: i64 = 20 * 60_000;
const DAY_MS: i64 = 24 * 3_600_000;

/// A bug that is put in on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// An update is added twice to a sum.
    DoubleCount,
    /// An acknowledged update is forgotten.
    LostAcknowledgement,
    /// The permit is not asked for again before something leaves.
    SkippedPermitCheck,
    /// One site's processor makes other masks of the same keys.
    PrgDiffers,
    /// A site reveals shares for a second set of inputs.
    ShareRevealedTwice,
    /// A site signs a second set of inputs.
    SumSignedTwice,
}

/// How a run is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A bug to be found.
    pub planted: Option<Planted>,
    /// No faults at all.
    pub calm: bool,
    /// With secure aggregation.
    pub masked: bool,
    /// With a coordinator that tells sites of a second set of inputs, and colludes with the other sites in it.
    pub lies: bool,
    /// Prints what happens.
    pub trace: bool,
    /// One of [`FILE_MOMENTS`](crate::FILE_MOMENTS): each process dies once, when it first comes to it.
    pub dies_at: Option<&'static str>,
    /// Real time that it may take, instead of two minutes.
    pub limit: Option<Duration>,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Digest of everything that happened, in order.
    pub trace: Digest,
    /// What must not be.
    pub violations: Vec<String>,
    /// How the job ended: `success`, `failed`, `timeout`, `cancelled`, or `none` if there was none.
    pub ended: String,
    /// Events that were applied.
    pub events: u64,
    /// Receipts that the coordinator gave.
    pub receipts: u64,
    /// Rounds that were published.
    pub published: u64,
    /// Processes that died at a moment of a transaction or a file.
    pub deaths: u64,
}

/// Runs one seed.
///
/// # Errors
/// A panic, no end within the limit, and what cannot be a finding: a file system or runtime that fails. Each with the
/// command that replays the seed.
pub async fn run(template: &Template, seed: u64, options: Options) -> Result<Outcome> {
    let limit = options.limit.unwrap_or(ended::LIMIT);
    ended::named(&crate::replay(seed, options), limit, Box::pin(run_one(template, seed, options))).await
}

async fn run_one(template: &Template, seed: u64, options: Options) -> Result<Outcome> {
    let template = template.of(seed, options.masked, options.lies)?;
    let folder = template.copy()?;
    let swarm = options.calm.then(Swarm::calm);
    let rng = Rng::new(seed);
    let mut world = World::new(template, folder.path().to_owned(), rng, swarm, options.planted, options.trace);
    world.lies = options.lies;
    if let Some(moment) = options.dies_at {
        world.let_die_at(moment);
    }
    Box::pin(world.start()).await?;
    // Whoever dies at a moment of a file does so while there may be faults.
    let faulty = if options.calm && options.dies_at.is_none() { 0 } else { FAULTY_MS };
    world.run_until(faulty, |_| false).await?;
    Box::pin(world.heal_all()).await?;
    settle(&mut world).await?;
    let job = world.job().await;
    let ended = job.as_ref().map_or("none", |job| job.state.as_str()).to_owned();
    let why = job.and_then(|job| job.reason).map_or(String::new(), |reason| format!(": {reason}"));
    world.note(Node::Coordinator, format!("the job is: {ended}{why}"));
    let published = check(&mut world).await?;
    let outcome = Outcome {
        trace: world.trace_digest(),
        violations: std::mem::take(&mut world.truth.violations),
        ended,
        events: world.events,
        receipts: world.truth.receipts,
        published,
        deaths: world.deaths,
    };
    world.close().await;
    Ok(outcome)
}

/// Lets a healed federation come to rest: as long as something runs, and then days, if a site still waits.
async fn settle(world: &mut World<'_>) -> Result<()> {
    // Sites have heard and told again what they owe each other before anything counts as idle.
    let end = world.now + 25_000;
    world.run_until(end, |_| false).await?;
    let end = world.now + CALM_MS;
    world.run_until(end, World::is_idle).await?;
    if world.rng.per_mille(500) && world.job().await.is_some_and(|job| job.state.may_become(JobState::Waiting)) {
        let taken = world.rerun().await;
        let end = world.now + CALM_MS;
        world.run_until(end, World::is_idle).await?;
        let barred = world.hospitals.iter().any(|hospital| hospital.barred.is_some());
        if taken && !barred && !world.cancelled && world.job().await.is_none_or(|j| j.state != JobState::Success) {
            world.truth.violation("a run that nothing stands against was run again and did not succeed".into());
        }
    }
    let rest = world.now + 1_500;
    world.run_until(rest, |_| false).await?;
    for days in [0, 0, 2, 9] {
        if unfinished(world).await?.is_empty() {
            return Ok(());
        }
        // A message that got lost within a session is said again in the next one.
        for site in 0..SITES {
            world.cut_site(site, 20);
        }
        let end = world.now + 20_000;
        world.run_until(end, |_| false).await?;
        if days > 0 {
            world.note(Node::Coordinator, format!("{days} days pass"));
            let to = world.now + days * DAY_MS;
            world.pass(to);
            let end = world.now + 60_000;
            world.run_until(end, |_| false).await?;
        }
    }
    for words in unfinished(world).await? {
        world.truth.violation(words);
    }
    Ok(())
}

/// What has not come to an end.
async fn unfinished(world: &mut World<'_>) -> Result<Vec<String>> {
    let mut open = Vec::new();
    let store = world.coordinator.as_ref().context("the coordinator is down")?.store.clone();
    for job in store.jobs(Some(world.template.study)).await? {
        if !job.state.is_terminal() {
            open.push(format!("the coordinator's job is {}", job.state));
        }
        for round in store.open_rounds(job.job).await? {
            open.push(format!("round {} is open at the coordinator", short(&round.key)));
        }
    }
    for site in 0..SITES {
        let name = Node::Site(site).name();
        let session = world.ana(site).await.context("nobody can log in")?;
        let asked = async move |s: &mut hospes_party::simulation::Site| {
            s.ask(async move |h| {
                Ok::<_, hospes_party::PartyError>((h.jobs(&session, Page::default()).await?, h.status().await?))
            })
            .await
        };
        let (jobs, status) = world.at_site(site, asked).await.context("a site is down")??;
        for job in jobs {
            use hospes_party::view::{JobState, RoundState};
            let ended = |state: RoundState| {
                use RoundState::{Abandoned, Failed, Published, Refused, Withdrawn};
                matches!(state, Published | Abandoned | Refused | Failed | Withdrawn)
            };
            if matches!(job.state, JobState::Ready | JobState::Waiting | JobState::Running) {
                open.push(format!("the job is {} at {name}", job.state));
            }
            for round in job.rounds.iter().filter(|round| !ended(round.state)) {
                open.push(format!("round {} is {} at {name}", short(&round.round), round.state));
            }
        }
        if status.outbox > 0 || status.working > 0 {
            open.push(format!("{} uploads wait and {} works run at {name}", status.outbox, status.working));
        }
    }
    Ok(open)
}

/// Which site has this id.
pub(crate) fn site_of(id: SiteId) -> Option<usize> {
    (0..SITES).find(|site| site_id(*site) == id)
}

/// Checks what is durable in the end; says how many rounds were published.
async fn check(world: &mut World<'_>) -> Result<u64> {
    let store = world.coordinator.as_ref().context("the coordinator is down")?.store.clone();
    let mut published = 0;
    for job in store.jobs(Some(world.template.study)).await? {
        let figures = store.figures(job.job).await?;
        let mut rounds = store.rounds(job.job, 1_000).await?;
        rounds.retain(|round| round.state == RoundState::Published);
        rounds.sort_by_key(|round| (round.key.round, round.key.attempt));
        let mut server = Server::new(world.template.adaptive.as_ref());
        for round in rounds {
            published += 1;
            let header = store.round_header(&round.key).await?.document;
            let sites = |ids: &[SiteId]| ids.iter().filter_map(|id| site_of(*id)).collect::<Vec<_>>();
            let included = sites(&round.included.clone().unwrap_or_default());
            let roster = sites(&header.roster.iter().map(|e| e.site).collect::<Vec<_>>());
            world.truth.check_included(&round.key, &included, &roster);
            if world.template.fit.as_ref() == Some(&round.key.task) {
                continue;
            }
            match round.model {
                Some(model) => world.truth.check_model(&header, model, &included, &mut server),
                None => {
                    let pooled = figures.iter().find(|f| f.task == round.key.task && f.site.is_none());
                    match pooled {
                        Some(pooled) => world.truth.check_figures(&header, &pooled.figures, &included),
                        None => world.truth.violation(format!("no figures of {}", short(&round.key))),
                    }
                }
            }
        }
        if let Some(task) = &world.template.fit {
            let fits = store.fits(job.job).await?;
            match fits.iter().find(|fit| fit.task == *task) {
                Some(fit) => world.truth.check_fit(fit),
                None if job.state == JobState::Success => {
                    world.truth.violation("a job ended well without its fit".into())
                }
                None => {}
            }
        }
    }
    check_ledgers(world).await?;
    Ok(published)
}

/// Every ledger verifies, holds every checkpoint that others saw of it, and nobody found a contradiction.
async fn check_ledgers(world: &mut World<'_>) -> Result<()> {
    let members: Vec<PublicKey> =
        (0..SITES).map(|site| site_key(site).public()).chain([coordinator_key().public()]).collect();
    let mut known: Vec<(SiteId, String)> = Vec::new();
    let mut exports = Vec::new();
    for site in 0..SITES {
        let path = world.folder.join(format!("export-{site}"));
        let to = path.clone();
        let session = world.ana(site).await.context("nobody can log in")?;
        let asked = async move |s: &mut hospes_party::simulation::Site| {
            s.ask(async move |h| {
                h.export_audit(&session, Some(federation()), to).await?;
                let mut notes = Vec::new();
                for origin in (0..SITES).map(site_id).chain([federation()]) {
                    if let Ok(note) = h.checkpoint_note(&session, federation(), origin).await {
                        notes.push((origin, note));
                    }
                }
                Ok::<_, hospes_party::PartyError>((notes, h.status().await?.alarms))
            })
            .await
        };
        let (notes, alarms) = world.at_site(site, asked).await.context("a site is down")??;
        known.extend(notes);
        let name = Node::Site(site).name();
        for alarm in alarms.iter().filter(|a| ["contradicts", "which never left"].iter().any(|w| a.words.contains(w))) {
            world.truth.violation(format!("{name} raised an alarm: {}", alarm.words));
        }
        exports.push((name, site_key(site).public(), path));
    }
    let path = world.folder.join("export");
    let process = world.coordinator.as_ref().context("the coordinator is down")?;
    let mut connection = process.store.read().await?;
    let mut file = std::fs::File::create(&path)?;
    let now = world.time_at(Node::Coordinator);
    Ledger::on(&mut *connection).export(&coordinator_key(), now, &mut file).await?;
    for site in 0..SITES {
        if let Some(peer) = Ledger::on(&mut *connection).peer(site_id(site)).await? {
            known.push((site_id(site), peer.note));
        }
    }
    drop(connection);
    exports.push(("the coordinator", coordinator_key().public(), path));
    for (name, key, path) in exports {
        let mine = known.iter().filter(|(origin, _)| *origin == key.site_id()).map(|(_, note)| note.clone());
        let expected = Expectations { origins: vec![key], known: mine.collect(), members: members.clone() };
        let report = verify(&mut BufReader::new(std::fs::File::open(path)?), &expected)?;
        if let Some(finding) = report.finding {
            world.truth.violation(format!("the ledger of {name} does not verify: {finding}"));
        }
    }
    Ok(())
}
