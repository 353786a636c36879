//! A job in memory, and the rules that need nothing else.

use std::collections::{BTreeMap, BTreeSet};

use hospes_privacy::secagg::Aggregator;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId, StudyId, Timestamp};
use hospes_protocol::plan::{self, Component, Plan, Strategy};
use hospes_protocol::round::RoundHeader;
use hospes_protocol::round::coordinator::Round;
use hospes_protocol::sign::Signed;

use super::secure::Pair;
use crate::store::jobs::{JobMemberRow, JobRow, JobState, MemberState, TaskRow, TaskState};
use crate::store::rounds::RoundState;

/// A job that this replica runs.
pub(super) struct Job {
    pub job: JobId,
    pub study: StudyId,
    pub plan: Canonical<Plan>,
    /// Which setting of its study it runs, from 1.
    pub setting: Option<u32>,
    pub state: JobState,
    pub members: BTreeMap<SiteId, Member>,
    /// Tasks in the order in which they run.
    pub tasks: Vec<Task>,
    /// Until when members may answer whether they can run it.
    pub reserve_until: Timestamp,
    /// Until when a member that has no room for it is left alone.
    pub put_off: Option<Timestamp>,
    pub round: Option<LiveRound>,
    /// Whether the initial model of the current task is being made.
    pub preparing: bool,
    /// The highest attempt at the present round so far.
    pub last_attempt: u32,
    /// Attempts at the present round that failed since this replica runs the job.
    pub failures: u32,
    /// Whose turn it was last in the current task, where sites train one after the other.
    pub turn: Option<SiteId>,
    /// Sites that had their turn in the present round and of which nothing came, and how often.
    pub skipped: BTreeMap<SiteId, u32>,
    /// No round opens before.
    pub hold_until: Timestamp,
    /// Until when a member that has just lost its connection is waited for.
    pub grace_until: Option<Timestamp>,
    /// Since when this replica runs the job; members that did not connect since count as lost then.
    pub since: Timestamp,
    /// Since when too few members are connected.
    pub starved: Option<Timestamp>,
    /// Sites of which one accused the other in a round with secure aggregation, since this replica runs the job.
    pub apart: Vec<Pair>,
    /// When the lease was renewed last.
    pub leased: Timestamp,
}

/// A member of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub state: MemberState,
    /// Until when its approval is in force; `None` if it is not.
    pub approved: Option<Timestamp>,
}

/// A task of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub name: String,
    pub state: TaskState,
    pub rounds: u32,
    pub done: u32,
    pub model: Option<Digest>,
}

/// A round that is open, or whose sum is being taken.
pub(super) struct LiveRound {
    pub key: RoundKey,
    pub header: Signed<RoundHeader>,
    pub machine: Round,
    /// The session of a round with secure aggregation. Without it such a round has no sum.
    pub masks: Option<Box<Aggregator>>,
    /// When a site that repeated an earlier step was last told anew what had followed.
    pub told: BTreeMap<SiteId, Timestamp>,
    /// State in the store.
    pub stored: RoundState,
}

/// Who can be in a round now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Quorum {
    /// These, in roster order.
    Ready(Vec<SiteId>),
    /// Somebody has just lost the connection; look again then.
    Until(Timestamp),
    /// Too few.
    Starved,
}

impl Job {
    pub(super) fn new(
        row: &JobRow,
        plan: Canonical<Plan>,
        members: &[JobMemberRow],
        approved: &BTreeMap<SiteId, Timestamp>,
        tasks: &[TaskRow],
        now: Timestamp,
    ) -> Self {
        let member = |m: &JobMemberRow| Member { state: m.state, approved: approved.get(&m.site).copied() };
        let task =
            |t: &TaskRow| Task { name: t.task.clone(), state: t.state, rounds: t.rounds, done: t.done, model: t.model };
        Self {
            job: row.job,
            study: row.study,
            plan,
            setting: row.setting,
            state: row.state,
            // Who refused takes no part in this run: it is neither asked nor told.
            members: members.iter().filter(|m| m.state != MemberState::Refused).map(|m| (m.site, member(m))).collect(),
            tasks: tasks.iter().map(task).collect(),
            reserve_until: now,
            put_off: None,
            round: None,
            preparing: false,
            last_attempt: 0,
            failures: 0,
            turn: None,
            skipped: BTreeMap::new(),
            hold_until: now,
            grace_until: None,
            since: now,
            starved: None,
            apart: Vec::new(),
            leased: now,
        }
    }

    /// The federated task whose turn it is.
    pub(super) fn current(&self) -> Option<&Task> {
        self.tasks.iter().find(|task| task.rounds > 0 && task.state != TaskState::Success)
    }

    pub(super) fn task_mut(&mut self, name: &str) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.name == name)
    }

    /// The model that a round of a task starts from: its own newest, or that of the task it evaluates.
    pub(super) fn model_of(&self, task: &Task) -> Option<Digest> {
        match &self.plan.tasks.get(&task.name)?.component {
            Component::NnTrain(_) | Component::Glm(_) | Component::Cox(_) => task.model,
            Component::Evaluation(_) => {
                let source = plan::source(&self.plan, &self.plan.tasks[&task.name], "model")?;
                self.tasks.iter().find(|t| t.name == source.task)?.model
            }
            _ => None,
        }
    }

    /// The model of the last task that trains one.
    pub(super) fn final_model(&self) -> Option<Digest> {
        self.tasks.iter().rev().filter(|task| self.trains(&task.name)).find_map(|task| task.model)
    }

    /// How the updates of a task become a model; `None` for one that trains none.
    pub(super) fn strategy(&self, task: &str) -> Option<&Strategy> {
        match &self.plan.tasks.get(task)?.component {
            Component::NnTrain(train) => Some(&train.strategy),
            _ => None,
        }
    }

    /// Fewest sites with which a round of a task can have a result.
    pub(super) fn fewest(&self, task: &str) -> u32 {
        self.strategy(task).map_or(2, |strategy| strategy.fewest().max(2))
    }

    /// Whose turn it is among those that can be in a round: the first after the last one in the order of their ids, from
    /// the beginning after the end. Who had a turn in this round already, of which nothing came, waits until the
    /// others had theirs.
    pub(super) fn next_turn(&self, ready: &[SiteId]) -> Option<SiteId> {
        let after = |site: &&SiteId| self.turn.is_none_or(|last| **site > last);
        let order = ready.iter().filter(after).chain(ready.iter().filter(|site| !after(site)));
        // Of equals the first.
        order.min_by_key(|site| self.skipped.get(*site)).copied()
    }

    /// Whether a task trains a model.
    fn trains(&self, task: &str) -> bool {
        let component = self.plan.tasks.get(task).map(|t| &t.component);
        component.is_some_and(|c| matches!(c, Component::NnTrain(_) | Component::Glm(_)))
    }

    /// Whether the rounds of a task start from what the round before gave: a model or coefficients.
    pub(super) fn starts_from_model(&self, task: &str) -> bool {
        self.trains(task) || self.plan.tasks.get(task).is_some_and(|t| matches!(t.component, Component::Cox(_)))
    }

    /// Whether a member may be in a round: it can run the job, and its approval is in force.
    fn may_join(&self, site: SiteId, now: Timestamp) -> bool {
        self.members
            .get(&site)
            .is_some_and(|m| m.state == MemberState::Reserved && m.approved.is_some_and(|until| until > now))
    }

    /// Who can be in a round that opens now, at least so many. A member that lost its connection a moment ago is waited
    /// for.
    pub(super) fn quorum(
        &self,
        fewest: u32,
        now: Timestamp,
        grace_ms: i64,
        locked: &BTreeSet<SiteId>,
        connected: impl Fn(SiteId) -> bool,
        lost: impl Fn(SiteId) -> Timestamp,
    ) -> Quorum {
        let fewest = fewest as usize;
        let may_join = |site: &SiteId| self.may_join(*site, now) && !locked.contains(site);
        let may: Vec<SiteId> = self.members.keys().copied().filter(may_join).collect();
        let until = may.iter().filter(|s| !connected(**s)).map(|s| lost(*s).plus_millis(grace_ms)).filter(|t| *t > now);
        if may.len() >= fewest
            && let Some(until) = until.max()
        {
            return Quorum::Until(until);
        }
        let ready: Vec<SiteId> = may.into_iter().filter(|site| connected(*site)).collect();
        if ready.len() < fewest { Quorum::Starved } else { Quorum::Ready(ready) }
    }

    /// Whether a site is asked in the present round.
    pub(super) fn is_in_round(&self, site: SiteId) -> bool {
        self.round.as_ref().is_some_and(|round| round.header.document.asked().any(|asked| asked == site))
    }

    /// Sites that are asked in the present round.
    pub(super) fn asked(&self) -> BTreeSet<SiteId> {
        self.round.as_ref().map(|round| round.header.document.asked().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(members: &[(u8, MemberState, Option<i64>)]) -> Job {
        let text = include_str!("testdata/plan.yaml");
        let plan = Canonical::new(plan::read(text).unwrap()).unwrap();
        let at = Timestamp::from_millis(0);
        let row = JobRow {
            job: JobId::new(at, [1; 10]),
            study: StudyId::new(at, [2; 10]),
            state: JobState::Running,
            reason: None,
            created: at,
            created_by: "a".into(),
            started: None,
            ended: None,
            model: None,
            setting: None,
            figure: None,
            chosen: None,
        };
        let mut job = Job::new(&row, plan, &[], &BTreeMap::new(), &[], at);
        for (id, state, approved) in members {
            let approved = approved.map(Timestamp::from_millis);
            job.members.insert(SiteId::from_bytes([*id; 16]), Member { state: *state, approved });
        }
        job
    }

    fn site(id: u8) -> SiteId {
        SiteId::from_bytes([id; 16])
    }

    #[test]
    fn only_reserved_members_with_an_approval_in_force_are_in_a_round() {
        use MemberState::{Asked, Reserved};
        let job = job(&[
            (1, Reserved, Some(100)),
            (2, Reserved, Some(100)),
            (3, Asked, Some(100)),
            (4, Reserved, None),
            (5, Reserved, Some(10)),
        ]);
        let lost = |_| Timestamp::from_millis(-1_000);
        let now = Timestamp::from_millis(10);
        let ready = job.quorum(2, now, 50, &BTreeSet::new(), |_| true, lost);
        assert_eq!(ready, Quorum::Ready(vec![site(1), site(2)]));
        assert_eq!(job.quorum(2, now, 50, &BTreeSet::new(), |s| s == site(1), lost), Quorum::Starved);
        let locked = BTreeSet::from([site(2)]);
        assert_eq!(job.quorum(2, now, 50, &locked, |_| true, lost), Quorum::Starved, "a locked site is in a round");
    }

    #[test]
    fn turns_go_round_and_who_gives_nothing_is_passed_over_until_the_next_round() {
        let mut job = job(&[]);
        let ready = [1, 2, 3].map(site);
        let mut order = Vec::new();
        for _ in 0..4 {
            job.turn = job.next_turn(&ready);
            order.push(job.turn.unwrap());
        }
        assert_eq!(order, [1, 2, 3, 1].map(site));
        // Site 2 drops in its turn, then site 3 too, then site 1, so that they are tried once more, in the same order.
        for (dropped, next) in [(2, 3), (3, 1), (1, 2), (2, 3), (3, 1)] {
            *job.skipped.entry(site(dropped)).or_insert(0) += 1;
            assert_eq!(job.next_turn(&ready), Some(site(next)));
        }
        // Who is gone has no turn, and who comes back has its own place in the order.
        job.skipped.clear();
        job.turn = Some(site(2));
        assert_eq!(job.next_turn(&[site(1), site(2)]), Some(site(1)));
        assert_eq!(job.next_turn(&ready), Some(site(3)));
        assert_eq!(job.next_turn(&[]), None);
    }

    #[test]
    fn a_member_that_has_just_lost_its_connection_is_waited_for_until_the_grace_ends() {
        use MemberState::Reserved;
        let job = job(&[(1, Reserved, Some(999)), (2, Reserved, Some(999)), (3, Reserved, Some(999))]);
        let connected = |s| s != site(3);
        let lost = |_| Timestamp::from_millis(100);
        let at = |ms| job.quorum(2, Timestamp::from_millis(ms), 50, &BTreeSet::new(), connected, lost);
        assert_eq!(at(120), Quorum::Until(Timestamp::from_millis(150)));
        assert_eq!(at(150), Quorum::Ready(vec![site(1), site(2)]));
    }
}
