//! The coordinator's process in the simulation: the real schedule on its real store, its files and its sessions.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use hospes_coordinator::aggregate::staging::{FreeSpace, Staging};
use hospes_coordinator::models::Models;
use hospes_coordinator::schedule::{self, Command, Rejection, Reply};
use hospes_coordinator::simulation::{ByHand, Fate, Hold, Planted as Bug};
use hospes_coordinator::store::Store;
use hospes_coordinator::store::jobs::JobRow;
use tokio::sync::oneshot;

use crate::run::Planted;
use crate::template::{caller, context, database, settings};
use crate::world::{Doom, Event, Node, World, locked};

/// A running process.
pub(crate) struct Coordinator {
    pub(crate) schedule: ByHand,
    pub(crate) hold: Arc<Hold>,
    pub(crate) store: Store,
    pub(crate) staging: Staging,
    pub(crate) models: Models,
    /// Results in the queue.
    due: usize,
    recovers: bool,
}

fn hold(doom: Arc<Mutex<Doom>>, planted: Option<Planted>) -> Arc<Hold> {
    let bug = match planted {
        Some(Planted::DoubleCount) => Some(Bug::DoubleCount),
        Some(Planted::LostAcknowledgement) => Some(Bug::LostAcknowledgement),
        // The others are bugs of sites.
        _ => None,
    };
    let fate = move |what: &'static str, when| {
        let mut doom = locked(&doom);
        if doom.meet(what, &format!("{when:?}")) {
            return Fate::Die;
        }
        if doom.disk_is_full && when == hospes_coordinator::simulation::Moment::During {
            return Fate::DiskFull;
        }
        Fate::GoOn
    };
    Hold::new(Box::new(fate), bug)
}

/// Free space that ends when the disk is said to be full.
fn free(doom: Arc<Mutex<Doom>>) -> FreeSpace {
    Arc::new(move |_| Ok(if locked(&doom).disk_is_full { 0 } else { 1 << 40 }))
}

impl World<'_> {
    pub(crate) async fn start_coordinator(&mut self) -> Result<()> {
        if self.coordinator.is_some() {
            return Ok(());
        }
        let node = Node::Coordinator;
        let hold = hold(self.doom(node), self.planted);
        let store = hold.open(&database(&self.folder)).await?;
        let free = free(self.doom(node));
        let settings = settings(self.swarm.relay_ms, self.template.colluding);
        let context = context(&self.folder, store.clone(), &hold, self.clock(node), free, settings)?;
        let (staging, models) = (context.staging.clone(), context.models.clone());
        let loaded = Box::pin(hold.clone().live(ByHand::load(context, hold.clone()))).await;
        match loaded {
            Some(Ok(schedule)) => {
                self.life += 1;
                self.note(node, "starts");
                let recovers = false;
                let process = Coordinator { schedule, hold, store, staging, models, due: 0, recovers };
                self.finish_step(process).await;
            }
            other => {
                let at = self.died_at(node);
                let why = match other.and_then(Result::err) {
                    Some(error) => format!("cannot start: {error}"),
                    None => format!("dies at its start {at}"),
                };
                store.close().await;
                self.note(node, why);
                let wait = self.rng.between(500, 10_000);
                self.after(wait, Event::Restart(node));
            }
        }
        Ok(())
    }

    /// Applies events to the schedule, and does what follows.
    pub(crate) async fn coordinate(&mut self, events: Vec<schedule::Event>) {
        let Some(mut process) = self.coordinator.take() else { return };
        match process.hold.clone().live(process.schedule.apply(events)).await {
            Some(()) => self.finish_step(process).await,
            None => self.coordinator_dies(process, "dies").await,
        }
    }

    async fn finish_step(&mut self, mut process: Coordinator) {
        if process.hold.clone().live(process.schedule.work()).await.is_none() {
            return self.coordinator_dies(process, "dies in the background").await;
        }
        let new = process.schedule.results().saturating_sub(process.due);
        for _ in 0..new {
            process.due += 1;
            let wait = self.rng.between(1, 400);
            self.after(wait, Event::Result(self.life));
        }
        if new > 0 {
            self.truth.keep_models(&process.models);
        }
        if process.schedule.has_failed() && !process.recovers {
            process.recovers = true;
            self.note(Node::Coordinator, "a step failed");
            self.after(1_000, Event::Recover(self.life));
        }
        let sleep = i64::try_from(process.schedule.sleep().as_millis()).unwrap_or(i64::MAX);
        let wakes_at = self.now + sleep.max(1);
        if wakes_at < self.wakes_at || self.wakes_at <= self.now {
            self.wakes_at = wakes_at;
            self.at(wakes_at, Event::Wake);
        }
        self.coordinator = Some(process);
        self.carry_to_sites();
    }

    pub(crate) async fn coordinator_dies(&mut self, process: Coordinator, how: &str) {
        let at = self.died_at(Node::Coordinator);
        self.note(Node::Coordinator, format!("{how} {at}"));
        let Coordinator { schedule, store, .. } = process;
        drop(schedule);
        store.close().await;
        self.break_all();
        let wait = self.rng.between(200, 15_000);
        self.after(wait, Event::Restart(Node::Coordinator));
    }

    /// Does work beside the schedule, as the port does; `None` if there is no process, or it died of it.
    pub(crate) async fn beside_schedule<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let hold = self.coordinator.as_ref()?.hold.clone();
        let done = hold.live(work).await;
        if done.is_none()
            && let Some(process) = self.coordinator.take()
        {
            self.coordinator_dies(process, "dies").await;
        }
        done
    }

    pub(crate) async fn wake(&mut self) {
        if self.wakes_at <= self.now {
            self.coordinate(Vec::new()).await;
        }
    }

    pub(crate) async fn hear_result(&mut self, life: u64) {
        if life != self.life {
            return;
        }
        let Some(mut process) = self.coordinator.take() else { return };
        if process.schedule.has_failed() {
            self.coordinator = Some(process);
            return self.after(500, Event::Result(life));
        }
        process.due = process.due.saturating_sub(1);
        match process.hold.clone().live(process.schedule.hear_result()).await {
            Some(()) => self.finish_step(process).await,
            None => self.coordinator_dies(process, "dies").await,
        }
    }

    pub(crate) async fn recover(&mut self, life: u64) {
        if life != self.life {
            return;
        }
        let Some(mut process) = self.coordinator.take() else { return };
        process.recovers = false;
        match process.hold.clone().live(process.schedule.recover()).await {
            Some(()) => {
                let word = if process.schedule.has_failed() { "cannot load yet" } else { "has loaded again" };
                self.note(Node::Coordinator, word);
                self.finish_step(process).await;
            }
            None => self.coordinator_dies(process, "dies").await,
        }
    }

    /// Asks the schedule as an operator does.
    pub(crate) async fn command(&mut self, command: Command) -> Option<Result<Reply, Rejection>> {
        let (reply, mut answer) = oneshot::channel();
        self.coordinate(vec![schedule::Event::Operator { command, reply }]).await;
        answer.try_recv().ok()
    }

    pub(crate) async fn job(&self) -> Option<JobRow> {
        let store = self.coordinator.as_ref()?.store.clone();
        store.jobs(Some(self.template.study)).await.ok()?.into_iter().next()
    }

    pub(crate) async fn cancel(&mut self) {
        let Some(job) = self.job().await else { return };
        let done = self.command(Command::Cancel { job: job.job, by: caller(), reason: "a test".into() }).await;
        self.note(Node::Coordinator, format!("cancel: {}", word(&done)));
        self.cancelled = true;
    }

    /// Says whether the schedule took it.
    pub(crate) async fn rerun(&mut self) -> bool {
        let Some(job) = self.job().await else { return false };
        let done = self.command(Command::Rerun { job: job.job, by: caller() }).await;
        self.note(Node::Coordinator, format!("rerun: {}", word(&done)));
        matches!(done, Some(Ok(_)))
    }

    /// Whether nothing runs at the coordinator.
    pub(crate) fn is_idle(&self) -> bool {
        self.coordinator.as_ref().is_some_and(|process| process.schedule.is_idle() && process.due == 0)
    }
}

fn word(done: &Option<Result<Reply, Rejection>>) -> &'static str {
    match done {
        Some(Ok(_)) => "done",
        Some(Err(_)) => "rejected",
        None => "no answer",
    }
}
