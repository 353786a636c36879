//! A round as a site sees it: events and the time go in, actions come out, nothing else happens.
//!
//! Whether the site takes part is not decided here: [`Approval::permit`](crate::approval::Approval::permit) decides,
//! and its answer is an event. In secure mode the messages of the middle steps are each made durable before they are
//! sent; [`Event::Made`] says that one is.

use crate::approval::{Refusal, RefusalCode};
use crate::id::{Digest, Timestamp};
use crate::message::{RoundOutcome, RoundReply};
use crate::round::coordinator::Step;

/// How long a site waits, after the deadline, to hear how a round ended to which it gave its input: a day.
pub const OUTCOME_WAIT_MS: i64 = 24 * 60 * 60 * 1_000;

/// Where a site is in a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The header came; whether a permit is given is not known yet.
    Offered,
    /// A permit was given; training, or the report, is under way.
    Working,
    /// Round keys are out (secure aggregation).
    Advertised,
    /// Shares are out (secure aggregation).
    Shared,
    /// The input is durable and recorded here, and on its way.
    Committed(Digest),
    /// The coordinator confirmed the input.
    Acknowledged(Digest),
    /// The signature under the set of inputs is out (secure aggregation).
    Agreed(Digest),
    /// Shares are revealed (secure aggregation).
    Revealed(Digest),
    /// The round has a result.
    Published {
        /// New model, if it is one.
        model: Option<Digest>,
        /// Whether this site's input is in it.
        included: bool,
    },
    /// The round ended without a result.
    Abandoned(String),
    /// The site does not take part.
    Refused(Refusal),
    /// The site tried and failed.
    Failed(String),
    /// The input was made and never left, or its leaving was stopped.
    Withdrawn(Refusal),
}

impl State {
    /// Whether nothing more happens here in this round.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Published { .. } | Self::Abandoned(_) | Self::Refused(_) | Self::Failed(_) | Self::Withdrawn(_)
        )
    }
}

/// What happens at the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A permit was given and recorded.
    Permitted {
        /// Until when.
        deadline: Timestamp,
    },
    /// No permit was given, and that is recorded.
    Refused(Refusal),
    /// Training goes on.
    Progress {
        /// Steps done.
        done: u32,
        /// Steps in all.
        total: u32,
    },
    /// The message of a step is durable and recorded (budget, outbox, ledger).
    Made {
        /// Which step; plain mode has only [`Step::Input`].
        step: Step,
        /// Digest of the message or payload.
        digest: Digest,
    },
    /// It could not be computed; the reason holds no data value.
    Failed(String),
    /// The coordinator confirmed what was sent in a step.
    Confirmed {
        /// Which step.
        step: Step,
        /// Digest that it confirmed.
        digest: Digest,
    },
    /// The coordinator does not want what was sent.
    Declined(String),
    /// An approval was taken back, suspended or expired, or the outbox was refused at its last question.
    Withdrawn(Refusal),
    /// The coordinator offered the round again, after a reconnection.
    OfferedAgain,
    /// The coordinator said how the round ended, and whether this site's input is in it.
    Closed {
        /// How.
        outcome: RoundOutcome,
        /// Whether this site's input is in it.
        included: bool,
    },
    /// Time passed.
    Tick,
}

/// What the site has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the work that the permit allows.
    Work,
    /// Stop the work.
    Stop,
    /// Say this to the coordinator.
    Reply(RoundReply),
    /// Tell the coordinator how far the work is.
    Progress {
        /// Steps done.
        done: u32,
        /// Steps in all.
        total: u32,
    },
    /// Send what was made for a step, now or as soon as there is a connection.
    Send {
        /// Which step.
        step: Step,
        /// Digest of the message or payload.
        digest: Digest,
    },
    /// Delete the payload: it has arrived, or will never be sent.
    Erase(Digest),
}

/// A round in a site's eyes.
#[derive(Debug, Clone)]
pub struct Round {
    state: State,
    secure: bool,
    deadline: Timestamp,
    told: Option<(u32, u32)>,
}

impl Round {
    /// A round that was just offered, with the deadline of its header.
    pub fn offered(secure: bool, deadline: Timestamp) -> Self {
        Self { state: State::Offered, secure, deadline, told: None }
    }

    /// A round as the store knows it, after a restart. What was under way as work is lost and must fail; what was
    /// committed is sent again.
    pub fn restore(secure: bool, deadline: Timestamp, state: State) -> (Self, Vec<Action>) {
        let mut round = Self { state, secure, deadline, told: None };
        let actions = match round.state {
            State::Working => round.on(Event::Failed("the site was restarted while it worked".to_owned()), deadline),
            State::Committed(digest) => vec![Action::Send { step: Step::Input, digest }],
            _ => Vec::new(),
        };
        (round, actions)
    }

    /// Where it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When the next [`Event::Tick`] is due; `None` if time changes nothing.
    pub fn wake(&self) -> Option<Timestamp> {
        match &self.state {
            state if state.is_terminal() => None,
            State::Acknowledged(_) | State::Agreed(_) | State::Revealed(_) => Some(self.given_up()),
            _ => Some(self.deadline),
        }
    }

    /// Applies an event. What does not fit the state changes nothing.
    pub fn on(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        if self.state.is_terminal() {
            return self.after_the_end(&event);
        }
        match event {
            Event::Permitted { deadline } => self.permitted(deadline),
            Event::Refused(refusal) => self.refused(refusal),
            Event::Progress { done, total } => self.progress(done, total),
            Event::Made { step, digest } => self.made(step, digest),
            Event::Failed(reason) => self.failed(reason),
            Event::Confirmed { step, digest } => self.confirmed(step, digest),
            Event::Declined(reason) => self.over(State::Abandoned(reason)),
            Event::Withdrawn(refusal) => self.withdrawn(refusal),
            Event::OfferedAgain => self.offered_again(),
            Event::Closed { outcome, included } => self.closed(outcome, included),
            Event::Tick => self.tick(now),
        }
    }

    fn given_up(&self) -> Timestamp {
        self.deadline.plus_millis(OUTCOME_WAIT_MS)
    }

    fn permitted(&mut self, deadline: Timestamp) -> Vec<Action> {
        if self.state != State::Offered {
            return Vec::new();
        }
        self.deadline = self.deadline.min(deadline);
        self.state = State::Working;
        vec![Action::Reply(RoundReply::Working), Action::Work]
    }

    fn refused(&mut self, refusal: Refusal) -> Vec<Action> {
        if self.state != State::Offered {
            return Vec::new();
        }
        self.state = State::Refused(refusal.clone());
        vec![Action::Reply(RoundReply::Refused(refusal))]
    }

    fn progress(&mut self, done: u32, total: u32) -> Vec<Action> {
        if self.state != State::Working || self.told == Some((done, total)) {
            return Vec::new();
        }
        self.told = Some((done, total));
        vec![Action::Progress { done, total }]
    }

    fn made(&mut self, step: Step, digest: Digest) -> Vec<Action> {
        let next = match (step, self.secure, &self.state) {
            (Step::Keys, true, State::Working) => State::Advertised,
            (Step::Shares, true, State::Advertised) => State::Shared,
            (Step::Input, false, State::Working) | (Step::Input, true, State::Shared) => State::Committed(digest),
            // The set of inputs may be announced before this input's receipt gets here: they travel by different ways.
            (Step::Consent, true, State::Committed(input) | State::Acknowledged(input)) => State::Agreed(*input),
            (Step::Reveal, true, State::Agreed(input)) => State::Revealed(*input),
            _ => return Vec::new(),
        };
        self.state = next;
        vec![Action::Send { step, digest }]
    }

    fn failed(&mut self, reason: String) -> Vec<Action> {
        let failing = matches!(self.state, State::Offered | State::Working | State::Advertised | State::Shared);
        if !failing {
            return Vec::new();
        }
        self.state = State::Failed(reason.clone());
        vec![Action::Stop, Action::Reply(RoundReply::Failed(reason))]
    }

    fn confirmed(&mut self, step: Step, digest: Digest) -> Vec<Action> {
        match self.state {
            State::Committed(input) if step == Step::Input && input == digest => {
                self.state = State::Acknowledged(input);
                vec![Action::Erase(input)]
            }
            _ => Vec::new(),
        }
    }

    fn withdrawn(&mut self, refusal: Refusal) -> Vec<Action> {
        let reply = Action::Reply(RoundReply::Withdrawn(refusal.clone()));
        let actions = match self.state {
            State::Offered | State::Working | State::Advertised | State::Shared => vec![Action::Stop, reply],
            State::Committed(input) => vec![Action::Erase(input), reply],
            // It has left; what the coordinator already has cannot be taken back, but it is told.
            State::Acknowledged(_) | State::Agreed(_) | State::Revealed(_) => return vec![reply],
            _ => return Vec::new(),
        };
        self.state = State::Withdrawn(refusal);
        actions
    }

    fn offered_again(&self) -> Vec<Action> {
        match &self.state {
            State::Working | State::Advertised | State::Shared => vec![Action::Reply(RoundReply::Working)],
            State::Committed(digest) => {
                vec![Action::Reply(RoundReply::Working), Action::Send { step: Step::Input, digest: *digest }]
            }
            _ => Vec::new(),
        }
    }

    fn closed(&mut self, outcome: RoundOutcome, included: bool) -> Vec<Action> {
        self.over(match outcome {
            RoundOutcome::Published { model, .. } => State::Published { model, included },
            RoundOutcome::Abandoned(reason) => State::Abandoned(reason),
        })
    }

    /// Ends the round for a reason that does not lie here, and cleans up what was under way.
    fn over(&mut self, end: State) -> Vec<Action> {
        let actions = match self.state {
            State::Offered | State::Working | State::Advertised | State::Shared => vec![Action::Stop],
            State::Committed(digest) => vec![Action::Erase(digest)],
            _ => Vec::new(),
        };
        self.state = end;
        actions
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Action> {
        let late = || Refusal::new(RefusalCode::TooLate, "the round's deadline has passed");
        match &self.state {
            State::Offered if now >= self.deadline => self.refused(late()),
            State::Working | State::Advertised | State::Shared if now >= self.deadline => {
                self.failed("the work was not done before the round's deadline".to_owned())
            }
            State::Committed(_) if now >= self.deadline => self.withdrawn(late()),
            State::Acknowledged(_) | State::Agreed(_) | State::Revealed(_) if now >= self.given_up() => {
                self.over(State::Abandoned("the coordinator never said how the round ended".to_owned()))
            }
            _ => Vec::new(),
        }
    }

    /// A coordinator that lost the answer asks again; everything else comes too late to change anything.
    fn after_the_end(&self, event: &Event) -> Vec<Action> {
        match (event, &self.state) {
            (Event::OfferedAgain, State::Refused(refusal)) => {
                vec![Action::Reply(RoundReply::Refused(refusal.clone()))]
            }
            (Event::OfferedAgain, State::Failed(reason)) => vec![Action::Reply(RoundReply::Failed(reason.clone()))],
            (Event::OfferedAgain, State::Withdrawn(refusal)) => {
                vec![Action::Reply(RoundReply::Withdrawn(refusal.clone()))]
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
