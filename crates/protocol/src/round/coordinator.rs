//! A round as the coordinator sees it: events and the time go in, actions come out, nothing else happens.
//!
//! The deadline is one *by progress*: a site is waited for as long as it shows signs of work at least every
//! [`Round::patience`](Round::open) milliseconds, but never past the header's deadline. A round goes on without those
//! who are silent, as soon as nobody else is waited for and enough inputs are in.

use std::collections::{BTreeMap, BTreeSet};

use super::{Mode, Phase, RoundHeader};
use crate::id::{Digest, SiteId, Timestamp};
use crate::message::RoundReply;

/// What a site sends in a round, in this order. Plain mode has only [`Step::Input`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Its round keys (R0).
    Keys,
    /// Shares of its secrets (R1).
    Shares,
    /// Its input (plain), or its masked input (R2).
    Input,
    /// Its signature under the set of inputs (R3).
    Consent,
    /// The shares that unmask the sum (R4).
    Reveal,
}

/// What happens to a round.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A site answered the offer, or gave up later.
    Reply {
        /// Site.
        site: SiteId,
        /// What it said.
        reply: RoundReply,
    },
    /// A site shows that it works: steps of training, or bytes of an upload.
    Progress {
        /// Site.
        site: SiteId,
    },
    /// What a site owes in a step is complete and durable here.
    Sent {
        /// Site.
        site: SiteId,
        /// Which step.
        step: Step,
        /// Digest of what it sent.
        digest: Digest,
    },
    /// A site may not take part any more: revoked, suspended, or its people took the approval back.
    Excluded {
        /// Site.
        site: SiteId,
        /// Why.
        reason: String,
    },
    /// The sum was taken and its result is durable.
    Reduced,
    /// The sum could not be taken.
    NotReduced {
        /// Why.
        reason: String,
        /// Whether another attempt may succeed.
        again: bool,
    },
    /// With secure aggregation: what sites said in a step leads to no sum, or one accuses another. Another attempt may
    /// succeed.
    Broken {
        /// Why.
        reason: String,
    },
    /// Somebody stopped the job.
    Cancelled {
        /// Why.
        reason: String,
    },
    /// Time passed.
    Tick,
}

/// What the coordinator has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Confirm what a site sent; `first` is false if it was confirmed before.
    Acknowledge {
        /// Site.
        site: SiteId,
        /// Which step.
        step: Step,
        /// Digest of what it sent.
        digest: Digest,
        /// Whether it is new.
        first: bool,
    },
    /// Tell a site that what it sent does not count, and why.
    Decline {
        /// Site.
        site: SiteId,
        /// Why.
        reason: String,
    },
    /// A site is out of this round; what it sent so far, if anything, is not used.
    Out {
        /// Site.
        site: SiteId,
        /// Why.
        reason: String,
    },
    /// The round entered a phase, and these sites' messages of the step before count in it. In plain mode
    /// [`Phase::Committed`], in secure mode [`Phase::Revealed`], means: take the sum over [`Round::included`].
    Entered {
        /// Phase.
        phase: Phase,
        /// Sites that count.
        with: Vec<SiteId>,
    },
    /// The round is over.
    Ended(Phase),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    heard: Timestamp,
    sent: BTreeMap<Step, Digest>,
    out: Option<String>,
    /// Whether it took part in all steps so far, so that it is waited for in this one.
    live: bool,
}

/// A round in the coordinator's eyes.
#[derive(Debug, Clone)]
pub struct Round {
    mode: Mode,
    deadline: Timestamp,
    patience_ms: i64,
    phase: Phase,
    members: BTreeMap<SiteId, Member>,
    included: Vec<SiteId>,
    roster: Vec<SiteId>,
}

/// What is known of a round after a restart, from the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durable {
    /// Inputs that were confirmed.
    pub inputs: BTreeMap<SiteId, Digest>,
    /// Sites that are out, and why.
    pub out: BTreeMap<SiteId, String>,
    /// Sites whose inputs were fixed, if they were.
    pub included: Option<Vec<SiteId>>,
    /// With secure aggregation: its steps. Of the step [`Step::Input`] only who went on is said here.
    pub steps: BTreeMap<Step, Taken>,
}

/// What is known of one step of a round with secure aggregation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// What was confirmed.
    pub sent: BTreeMap<SiteId, Digest>,
    /// Sites with which the round went on, if the step is over.
    pub with: Option<Vec<SiteId>>,
}

impl Round {
    /// Opens a round for everybody in the header's roster who is asked for an input.
    ///
    /// # Units
    /// `patience_ms`: how long a site may be silent, in milliseconds.
    pub fn open(header: &RoundHeader, patience_ms: i64, now: Timestamp) -> Self {
        let roster: Vec<SiteId> = header.asked().collect();
        let member = Member { heard: now, sent: BTreeMap::new(), out: None, live: true };
        Self {
            mode: header.mode.clone(),
            deadline: header.deadline,
            patience_ms: patience_ms.max(1),
            phase: Phase::Offered,
            members: roster.iter().map(|site| (*site, member.clone())).collect(),
            included: Vec::new(),
            roster,
        }
    }

    /// A round as the store knows it, after a restart. Every site gets its patience anew; what was confirmed counts.
    pub fn restore(header: &RoundHeader, patience_ms: i64, durable: Durable, now: Timestamp) -> (Self, Vec<Action>) {
        let mut round = Self::open(header, patience_ms, now);
        for (site, reason) in durable.out {
            if let Some(member) = round.members.get_mut(&site) {
                member.out = Some(reason);
                member.live = false;
            }
        }
        let mut actions = Vec::new();
        if round.is_secure() {
            round.restore_steps(durable.inputs, durable.steps, now, &mut actions);
            return (round, actions);
        }
        round.restore_sent(Step::Input, durable.inputs);
        if let Some(included) = durable.included {
            round.included.clone_from(&included);
            round.phase = Phase::Committed;
            actions.push(Action::Entered { phase: Phase::Committed, with: included });
        } else {
            round.settle(now, &mut actions);
        }
        (round, actions)
    }

    fn restore_sent(&mut self, step: Step, sent: BTreeMap<SiteId, Digest>) {
        for (site, digest) in sent {
            if let Some(member) = self.members.get_mut(&site) {
                member.sent.insert(step, digest);
                if self.phase == Phase::Offered {
                    self.phase = Phase::Working;
                }
            }
        }
    }

    /// Takes the steps of a round with secure aggregation again, those that are over with the sites that they went on
    /// with then.
    fn restore_steps(
        &mut self,
        mut inputs: BTreeMap<SiteId, Digest>,
        mut steps: BTreeMap<Step, Taken>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        for step in [Step::Keys, Step::Shares, Step::Input, Step::Consent, Step::Reveal] {
            let Taken { sent, with } = steps.remove(&step).unwrap_or_default();
            let sent = if step == Step::Input { std::mem::take(&mut inputs) } else { sent };
            self.restore_sent(step, sent);
            let Some(with) = with else { break };
            self.enter(step, &with, now);
        }
        if self.phase == Phase::Revealed {
            actions.push(Action::Entered { phase: Phase::Revealed, with: self.included.clone() });
        } else {
            self.settle(now, actions);
        }
    }

    /// Phase that the round is in.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Sites whose inputs are in the result, in roster order; empty before [`Phase::Committed`].
    pub fn included(&self) -> &[SiteId] {
        &self.included
    }

    /// Digest of a site's input, if it is in.
    pub fn input(&self, site: SiteId) -> Option<Digest> {
        self.members.get(&site).filter(|m| m.out.is_none()).and_then(|m| m.sent.get(&Step::Input)).copied()
    }

    /// Sites that are out, and why.
    pub fn out(&self) -> impl Iterator<Item = (SiteId, &str)> {
        self.members.iter().filter_map(|(site, m)| m.out.as_deref().map(|reason| (*site, reason)))
    }

    /// Sites that something is still expected from.
    pub fn awaited(&self) -> impl Iterator<Item = SiteId> {
        let step = self.step();
        self.members
            .iter()
            .filter(move |(_, m)| m.live && step.is_some_and(|step| !m.sent.contains_key(&step)))
            .map(|(site, _)| *site)
    }

    /// When the next [`Event::Tick`] is due; `None` if time changes nothing.
    pub fn wake(&self) -> Option<Timestamp> {
        self.step()?;
        let silent = self.awaited().filter_map(|site| self.members.get(&site)).map(|m| self.silent_from(m)).max();
        // Nothing changes before the last of those that are waited for has become silent.
        Some(silent.unwrap_or(self.deadline).min(self.deadline))
    }

    /// Applies an event. Whatever comes, in whatever order and however often, is safe: what does not fit the phase
    /// changes nothing, or is declined.
    pub fn on(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase.is_terminal() {
            if let Event::Sent { site, step, digest } = event {
                actions.push(self.after_the_end(site, step, digest));
            }
            return actions;
        }
        match event {
            Event::Reply { site, reply } => self.reply(site, reply, now, &mut actions),
            Event::Progress { site } => self.heard(site, now),
            Event::Sent { site, step, digest } => self.sent(site, step, digest, now, &mut actions),
            Event::Excluded { site, reason } => self.exclude(site, reason, &mut actions),
            Event::Cancelled { reason } => self.end(Phase::Failed(reason), &mut actions),
            Event::Broken { reason } => self.end(Phase::Abandoned(reason), &mut actions),
            Event::Reduced if self.is_reducing() => self.end(Phase::Published, &mut actions),
            Event::NotReduced { reason, again } if self.is_reducing() => {
                let end = if again { Phase::Abandoned(reason) } else { Phase::Failed(reason) };
                self.end(end, &mut actions);
            }
            Event::Reduced | Event::NotReduced { .. } | Event::Tick => {}
        }
        self.settle(now, &mut actions);
        actions
    }

    fn is_secure(&self) -> bool {
        matches!(self.mode, Mode::SecureAggregation { .. })
    }

    /// Whether nothing is waited for but the sum.
    fn is_reducing(&self) -> bool {
        if self.is_secure() { self.phase == Phase::Revealed } else { self.phase == Phase::Committed }
    }

    /// What sites owe in this phase.
    fn step(&self) -> Option<Step> {
        match (&self.phase, self.is_secure()) {
            (Phase::Offered | Phase::Working, false) | (Phase::Shared, _) => Some(Step::Input),
            (Phase::Offered | Phase::Working, true) => Some(Step::Keys),
            (Phase::Advertised, _) => Some(Step::Shares),
            (Phase::Committed, true) => Some(Step::Consent),
            (Phase::Agreed, _) => Some(Step::Reveal),
            (Phase::Committed, false)
            | (Phase::Revealed | Phase::Published | Phase::Abandoned(_) | Phase::Failed(_), _) => None,
        }
    }

    /// How many sites must have sent what this phase is about.
    fn needed(&self) -> usize {
        let needed = match (&self.mode, &self.phase) {
            (Mode::Plain { k_min }, _) => *k_min,
            (Mode::Turn { .. }, _) => 1,
            (Mode::SecureAggregation { t, .. }, Phase::Committed | Phase::Agreed) => *t,
            (Mode::SecureAggregation { t, k_min, .. }, _) => (*t).max(*k_min),
        };
        needed as usize
    }

    fn silent_from(&self, member: &Member) -> Timestamp {
        member.heard.plus_millis(self.patience_ms)
    }

    fn heard(&mut self, site: SiteId, now: Timestamp) {
        if let Some(member) = self.members.get_mut(&site).filter(|m| m.live) {
            member.heard = member.heard.max(now);
            if self.phase == Phase::Offered {
                self.phase = Phase::Working;
            }
        }
    }

    fn reply(&mut self, site: SiteId, reply: RoundReply, now: Timestamp, actions: &mut Vec<Action>) {
        match reply {
            RoundReply::Working => self.heard(site, now),
            RoundReply::Refused(refusal) => self.exclude(site, format!("refused: {refusal}"), actions),
            RoundReply::Withdrawn(refusal) => self.exclude(site, format!("withdrawn: {refusal}"), actions),
            RoundReply::Failed(reason) => self.exclude(site, format!("failed: {reason}"), actions),
        }
    }

    fn sent(&mut self, site: SiteId, step: Step, digest: Digest, now: Timestamp, actions: &mut Vec<Action>) {
        let owed = self.step();
        let decline = |reason: &str| Action::Decline { site, reason: reason.to_owned() };
        let Some(member) = self.members.get_mut(&site) else {
            return actions.push(decline("this site is not asked in this round"));
        };
        if let Some(reason) = &member.out {
            let reason = format!("this site is out of the round: {reason}");
            return actions.push(decline(&reason));
        }
        match member.sent.get(&step) {
            Some(before) if *before == digest => {
                return actions.push(Action::Acknowledge { site, step, digest, first: false });
            }
            Some(_) => return actions.push(decline("something else was confirmed for this step before")),
            None => {}
        }
        if owed != Some(step) || !member.live {
            return actions.push(decline("too late, or too early, for this step of the round"));
        }
        member.sent.insert(step, digest);
        member.heard = member.heard.max(now);
        if self.phase == Phase::Offered {
            self.phase = Phase::Working;
        }
        actions.push(Action::Acknowledge { site, step, digest, first: true });
    }

    fn after_the_end(&self, site: SiteId, step: Step, digest: Digest) -> Action {
        match self.members.get(&site).filter(|m| m.out.is_none()).and_then(|m| m.sent.get(&step)) {
            Some(before) if *before == digest => Action::Acknowledge { site, step, digest, first: false },
            _ => Action::Decline { site, reason: "the round is over".to_owned() },
        }
    }

    fn exclude(&mut self, site: SiteId, reason: String, actions: &mut Vec<Action>) {
        // Inputs that are fixed stay in the result: in secure mode they could not be taken out of the sum, and in plain
        // mode the sum may already be written.
        let fixed = !self.included.is_empty();
        let Some(member) = self.members.get_mut(&site).filter(|m| m.live) else { return };
        member.live = false;
        if !fixed {
            member.out = Some(reason.clone());
            actions.push(Action::Out { site, reason });
        }
    }

    /// Moves on if nobody is waited for any more or the time is up; gives up as soon as it cannot succeed.
    fn settle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        while let Some(step) = self.step() {
            let (mut sent, mut open, mut silent) = (0usize, 0usize, 0usize);
            for member in self.members.values().filter(|m| m.live || m.sent.contains_key(&step) && m.out.is_none()) {
                if member.sent.contains_key(&step) {
                    sent += 1;
                } else if self.silent_from(member) <= now {
                    silent += 1;
                } else {
                    open += 1;
                }
            }
            let late = now >= self.deadline;
            let needed = self.needed();
            if sent + open + silent < needed {
                let reason = format!("{} sites are left, {needed} are needed{}", sent + open + silent, self.why());
                return self.end(Phase::Abandoned(reason), actions);
            }
            if open > 0 && !late {
                return;
            }
            if sent < needed {
                let waited = if late { "the deadline passed" } else { "the other sites are silent" };
                let reason = format!("{sent} of the {needed} sites needed have answered, and {waited}{}", self.why());
                return self.end(Phase::Abandoned(reason), actions);
            }
            self.advance(step, now, actions);
        }
    }

    /// The reasons of those that are out, for people.
    fn why(&self) -> String {
        let reasons: Vec<String> = self.out().take(8).map(|(site, reason)| format!("{site} {reason}")).collect();
        if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) }
    }

    fn advance(&mut self, step: Step, now: Timestamp, actions: &mut Vec<Action>) {
        let counts = |site: &&SiteId| {
            self.members.get(*site).is_some_and(|member| member.out.is_none() && member.sent.contains_key(&step))
        };
        let with: Vec<SiteId> = self.roster.iter().filter(counts).copied().collect();
        self.enter(step, &with, now);
        actions.push(Action::Entered { phase: self.phase.clone(), with });
    }

    /// The step is over, and these sites go on.
    fn enter(&mut self, step: Step, with: &[SiteId], now: Timestamp) {
        self.phase = match step {
            Step::Keys => Phase::Advertised,
            Step::Shares => Phase::Shared,
            Step::Input => Phase::Committed,
            Step::Consent => Phase::Agreed,
            Step::Reveal => Phase::Revealed,
        };
        let going: BTreeSet<SiteId> = with.iter().copied().collect();
        for (site, member) in &mut self.members {
            if going.contains(site) {
                member.heard = member.heard.max(now);
            } else {
                member.live = false;
            }
        }
        if step == Step::Input {
            self.included = with.to_vec();
            // The header's deadline is for inputs; what follows touches no data and gets its own time.
            self.deadline = self.deadline.max(now.plus_millis(self.patience_ms));
        }
    }

    fn end(&mut self, phase: Phase, actions: &mut Vec<Action>) {
        self.phase = phase.clone();
        actions.push(Action::Ended(phase));
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
