//! Rounds with secure aggregation: what sites say goes to the session's aggregator, which says what is relayed and, in the
//! end, what takes the masks off the sum. Who is waited for, and how long, is the round's own machine's to say.
//!
//! Both are made anew after a restart from what the store has: what sites said, and with whom each step went on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hospes_ledger::{Action as Done, Actor, ObjectKind};
use hospes_privacy::masked;
use hospes_privacy::secagg::{Aggregator, Masked, Refusal, Sent, Thresholds, Unmasker};
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::message::{self, ToSite};
use hospes_protocol::plan::{Coefficients, Component, Plan, Strategy};
use hospes_protocol::round::coordinator::{Action, Event, Step as Stage};
use hospes_protocol::round::{Mode, Phase, RoundHeader};

use super::driver::Driver;
use super::fits;
use super::job::LiveRound;
use super::rounds::short;
use super::step::{After, Step};
use super::{Rejection, RejectionCode, Settings};
use crate::Error;
use crate::aggregate::content;
use crate::aggregate::reduce::Input;
use crate::aggregate::staging::StagedUpload;
use crate::store::jobs::JobState;
use crate::store::rounds::{RoundRow, RoundState, UploadRow};
use crate::store::secure::SecureMessage;

/// The steps of a round, in order.
const STAGES: [Stage; 5] = [Stage::Keys, Stage::Shares, Stage::Input, Stage::Consent, Stage::Reveal];

/// Whether a strategy keeps something at the coordinator from one round to the next, besides the model.
fn has_moments(strategy: &Strategy) -> bool {
    matches!(strategy, Strategy::FedAdam(_) | Strategy::FedYogi(_) | Strategy::FedAdagrad(_))
}

/// Two sites of which one says that the other dealt wrongly to it.
pub(super) type Pair = (SiteId, SiteId);

/// What a round of so many sites offers them.
pub(super) fn mode(settings: &Settings, sites: u32, fewest: u32) -> Mode {
    let bounds = Thresholds::new(sites, settings.colluding, 0, settings.min_parties.max(fewest));
    Mode::SecureAggregation { c: bounds.corrupt, t: bounds.quorum, k_min: bounds.k_min }
}

/// Fewest sites that a masked round can have under these settings.
pub(super) fn fewest(settings: &Settings) -> u32 {
    let most = u32::try_from(limits::SECURE_SITES).unwrap_or(u32::MAX);
    let fits = |sites: &u32| match mode(settings, *sites, 0) {
        Mode::SecureAggregation { t, k_min, .. } => t.max(k_min) <= *sites,
        _ => false,
    };
    (3..=most).find(fits).unwrap_or(most)
}

/// Leaves out one site of each pair that can not work together, as long as enough are left: the one that stands in more
/// pairs, of two that stand in as many the accused.
pub(super) fn apart(sites: &[SiteId], pairs: &[Pair], fewest: u32) -> Vec<SiteId> {
    let mut left: BTreeSet<SiteId> = sites.iter().copied().collect();
    for (by, of) in pairs {
        if left.contains(by) && left.contains(of) && left.len() > fewest as usize {
            let pairs_of = |site: &SiteId| pairs.iter().filter(|(by, of)| by == site || of == site).count();
            left.remove(if pairs_of(by) > pairs_of(of) { by } else { of });
        }
    }
    sites.iter().copied().filter(|site| left.contains(site)).collect()
}

/// The aggregator of a round that opens; none for a round without masks.
///
/// # Errors
/// A [`Refusal`] says why nobody could take part.
pub(super) fn open(header: &RoundHeader, plan: &Plan) -> Result<Option<Box<Aggregator>>, Refusal> {
    if !header.is_secure() {
        return Ok(None);
    }
    Aggregator::new(masked::session_of(header, plan)?).map(|masks| Some(Box::new(masks)))
}

/// What of a round is in the store.
pub(super) struct Known {
    pub messages: Vec<SecureMessage>,
    pub steps: BTreeMap<Stage, Vec<SiteId>>,
    /// Masked updates that were confirmed, and where they lie.
    pub inputs: Vec<(SiteId, PathBuf)>,
}

impl Known {
    /// Reads what the store has of a round.
    pub(super) async fn read(context: &super::Context, key: &RoundKey, confirmed: &[UploadRow]) -> Result<Self, Error> {
        let inputs = confirmed.iter().map(|row| (row.site, context.staging.path(key, row.site, row.digest)));
        Ok(Self {
            messages: context.store.secure_messages(key).await?,
            steps: context.store.secure_steps(key).await?,
            inputs: inputs.collect(),
        })
    }

    /// The aggregator as it was. The same messages make the same aggregator.
    ///
    /// # Errors
    /// Why it cannot be made, in words: the attempt is then over.
    pub(super) fn restore(&self, header: &RoundHeader, plan: &Plan) -> Result<Option<Box<Aggregator>>, String> {
        let Some(mut masks) = open(header, plan).map_err(|refusal| refusal.to_string())? else { return Ok(None) };
        for stage in STAGES {
            for said in self.messages.iter().filter(|said| said.step == stage) {
                let sent = Sent::from_bytes(&said.message).map_err(|refusal| refusal.to_string())?;
                masks.accept(said.site, sent, None).map_err(|refusal| refusal.to_string())?;
            }
            for (site, path) in self.inputs.iter().filter(|_| stage == Stage::Input) {
                let (sent, vector) = content::head(path).map_err(|error| error.to_string())?;
                masks.accept(*site, sent, Some(vector)).map_err(|refusal| refusal.to_string())?;
            }
            let Some(with) = self.steps.get(&stage) else { break };
            masks.close(&parties(header, with)).map_err(|refusal| refusal.to_string())?;
        }
        Ok(Some(masks))
    }
}

fn party(header: &RoundHeader, site: SiteId) -> Option<u32> {
    let place = header.roster.iter().position(|entry| entry.site == site)?;
    u32::try_from(place).ok()
}

fn parties(header: &RoundHeader, sites: &[SiteId]) -> BTreeSet<u32> {
    sites.iter().filter_map(|site| party(header, *site)).collect()
}

/// For which step a message is; none for one that belongs to no step here.
fn stage_of(sent: &Sent) -> Option<Stage> {
    match sent {
        Sent::Keys(_) => Some(Stage::Keys),
        Sent::Shares { .. } => Some(Stage::Shares),
        Sent::Consent(_) => Some(Stage::Consent),
        Sent::Reveal(_) => Some(Stage::Reveal),
        // Inputs are uploads, positions are for rounds that this version has not, an accusation ends the attempt.
        Sent::Input(_) | Sent::Position(_) | Sent::Accusation(_) => None,
    }
}

/// The step that is over in a phase.
fn closed_by(phase: &Phase) -> Option<Stage> {
    Some(match phase {
        Phase::Advertised => Stage::Keys,
        Phase::Shared => Stage::Shares,
        Phase::Committed => Stage::Input,
        Phase::Agreed => Stage::Consent,
        Phase::Revealed => Stage::Reveal,
        Phase::Offered | Phase::Working | Phase::Published | Phase::Abandoned(_) | Phase::Failed(_) => return None,
    })
}

/// Why a job cannot run again from this round of a task, if it cannot.
///
/// # Errors
/// [`Error::Database`] or [`Error::Corrupt`].
pub(super) async fn agreed(
    context: &super::Context,
    job: JobId,
    task: &str,
    round: u32,
) -> Result<Option<String>, Error> {
    let next = |row: &&RoundRow| row.key.task == task && row.key.round == round && row.key.epoch == context.epoch;
    let rows = context.store.rounds(job, LAST_ROUNDS).await?;
    for row in rows.iter().filter(next).filter(|row| row.included.is_some()) {
        if context.store.round_header(&row.key).await?.document.is_secure() {
            return Ok(Some(format!(
                "sites agreed to a sum in round {round} of '{task}' and it was not taken; they join no other attempt at \
                 the round; start the study's next job instead (`hospesctl study start`), which counts as another run"
            )));
        }
    }
    Ok(None)
}

/// Why no sum of a fit is asked for over other sites.
const OTHERS: &str = "a fit under masks is of the same sites from its first round to its last, and these are others \
                      than in the rounds before; it goes on when those are connected";

/// Shortest time between two answers to a site that repeats an earlier step, which an honest one does once a minute.
const TOLD_AGAIN_MS: i64 = 5_000;

/// Attempts at a job's next round are among so many of its last rounds.
const LAST_ROUNDS: u32 = 100;

impl LiveRound {
    fn take(&mut self, site: SiteId, sent: Sent, vector: Option<Masked>) -> Result<(), Refusal> {
        let masks = self.masks.as_mut().ok_or(Refusal::Unusable { field: "mode", reason: "it has no masks" })?;
        masks.accept(site, sent, vector).map(drop)
    }

    /// What is relayed to a site now, if something is.
    pub(super) fn relay_to(&self, site: SiteId) -> Option<ToSite> {
        let party = party(&self.header.document, site)?;
        let relay = self.masks.as_ref()?.relay(party).ok()?;
        let message = message::SecureMessage::new(relay.to_bytes().ok()?);
        Some(ToSite::Relay { round: self.key.clone(), message })
    }

    /// Whether a site that repeats an earlier step is told anew now what followed. It can repeat a short message as often
    /// as it likes, and what is relayed can be long.
    fn is_told_again(&mut self, site: SiteId, now: Timestamp) -> bool {
        let is_due = self.told.get(&site).is_none_or(|told| now.since(*told).saturating_abs() >= TOLD_AGAIN_MS);
        if is_due {
            self.told.insert(site, now);
        }
        is_due
    }

    /// What takes the masks off the sum over these inputs.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if they are not those that the sites agreed to.
    pub(super) fn unmasker(&self, inputs: &[Input]) -> Result<Unmasker, Error> {
        let masks = self.masks.as_ref().ok_or_else(|| Error::corrupt("masked sum", "its session is gone"))?;
        let sites: Vec<SiteId> = inputs.iter().map(|input| input.site).collect();
        if parties(&self.header.document, &sites) != *masks.included() || sites.len() != masks.included().len() {
            return Err(Error::corrupt("masked sum", "its inputs are not those that the sites agreed to"));
        }
        masks.unmasker().map_err(|refusal| Error::corrupt("masked sum", refusal))
    }
}

impl Driver {
    /// A site said something in a step of a round with secure aggregation.
    pub(super) async fn secure_step(
        &mut self,
        step: &mut Step,
        site: SiteId,
        round: &RoundKey,
        said: message::SecureMessage,
    ) -> Result<(), Error> {
        let Some(found) = self.job_of(round) else { return Ok(()) };
        let job = found.job;
        if !found.is_in_round(site) {
            tracing::warn!(%site, %round, "a step of a site that is not in the round is ignored");
            return Ok(());
        }
        let Some(live) = self.jobs.get_mut(&job).and_then(|job| job.round.as_mut()) else { return Ok(()) };
        let sent = match Sent::from_bytes(said.bytes()) {
            Ok(Sent::Input(_)) => Err(Refusal::Unreadable("a masked input is an upload".to_owned())),
            other => other,
        };
        let stage = sent.as_ref().ok().and_then(stage_of);
        let taken = sent.and_then(|sent| live.take(site, sent, None));
        if let Err(refusal) = taken {
            return Box::pin(self.spoiled(step, job, site, refusal)).await;
        }
        let Some(stage) = stage else { return Box::pin(self.accused(step, job)).await };
        let event = Event::Sent { site, step: stage, digest: Digest::of(said.bytes()) };
        let actions = live.machine.on(event, step.now);
        let said_before = actions.iter().any(|action| matches!(action, Action::Acknowledge { first: false, .. }));
        if said_before
            && live.machine.awaited().any(|awaited| awaited == site)
            && live.is_told_again(site, step.now)
            && let Some(relay) = live.relay_to(site)
        {
            // What it was told after that step may be lost.
            step.send(site, relay);
        }
        if actions.iter().any(|action| matches!(action, Action::Acknowledge { first: true, .. })) {
            let said = SecureMessage { step: stage, site, message: said.into_bytes() };
            let (context, now) = (self.context.clone(), step.now);
            step.job(&context, job).await?.insert_secure_message(round, &said, now).await?;
        }
        // What is said in a step is confirmed by what is relayed after it.
        let rest = actions.into_iter().filter(|a| !matches!(a, Action::Acknowledge { .. } | Action::Decline { .. }));
        Box::pin(self.act(step, job, rest.collect(), None)).await.map(drop)
    }

    /// Takes what a site signed of its masked update, which is durable here; for a round without masks there is nothing to
    /// take.
    pub(super) async fn take_input(
        &mut self,
        step: &mut Step,
        job: JobId,
        upload: &StagedUpload,
    ) -> Result<Option<Rejection>, Error> {
        let site = upload.request().site;
        let Some(live) = self.jobs.get_mut(&job).and_then(|job| job.round.as_mut()) else { return Ok(None) };
        // What is not waited for is for the machine to answer; its file may be gone.
        let is_due = *live.machine.phase() == Phase::Shared && live.machine.awaited().any(|awaited| awaited == site);
        if !live.header.document.is_secure() || !is_due {
            return Ok(None);
        }
        let (sent, vector) = match content::head(upload.path()) {
            Ok(head) => head,
            Err(error) => {
                // One file that cannot be read stops neither the others nor the start of the schedule.
                tracing::error!(error = &error as &dyn std::error::Error, %site, %job, "a masked update cannot be read");
                let words = "the coordinator cannot read the update that it has; its log says why";
                return Ok(Some(Rejection::new(RejectionCode::Unavailable, words)));
            }
        };
        let Err(refusal) = live.take(site, sent, Some(vector)) else { return Ok(None) };
        let words = refusal.to_string();
        Box::pin(self.spoiled(step, job, site, refusal)).await?;
        Ok(Some(Rejection::new(RejectionCode::Invalid, words)))
    }

    /// What a site said does not count. What comes too late, or too early, changes nothing; whoever says something wrong
    /// is not waited for any more.
    async fn spoiled(&mut self, step: &mut Step, job: JobId, site: SiteId, refusal: Refusal) -> Result<(), Error> {
        tracing::warn!(%site, %job, %refusal, "a step of a site does not count");
        if matches!(refusal, Refusal::OutOfTurn { .. }) {
            return Ok(());
        }
        let Some(found) = self.jobs.get(&job) else { return Ok(()) };
        let Some(round) = &found.round else { return Ok(()) };
        let name = short(&round.key);
        let entry = self.job_entry(step.now, Actor::peer(site), Done::UploadRefused, found.study, job);
        let entry = entry.object(ObjectKind::Round, &name, None).refused(&refusal);
        let about = format!("{job}/{name}");
        step.record_limited(&self.context, site, about, entry);
        self.round_event(step, job, Event::Excluded { site, reason: format!("is out: {refusal}") }).await
    }

    /// One site accuses another: the attempt is over, and the next one does without one of the two.
    async fn accused(&mut self, step: &mut Step, job: JobId) -> Result<(), Error> {
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let accused = found.round.as_ref().and_then(|round| round.masks.as_ref()?.accused());
        let Some(accused) = accused else { return Ok(()) };
        found.apart.push((accused.by, accused.of));
        let times = found.apart.iter().filter(|pair| **pair == (accused.by, accused.of)).count();
        let reason = format!(
            "site {} says that what site {} dealt to it cannot be used ({:?}), {times} times so far; one of them is \
             wrong, and the next attempt does without one",
            accused.by, accused.of, accused.fault
        );
        self.round_event(step, job, Event::Broken { reason }).await
    }

    /// A round is over in which sites may have agreed to a sum, and there is none. They join no other attempt at it, so that
    /// the job goes on with the next round, with new training from the same model.
    pub(super) async fn pass_over(
        &mut self,
        step: &mut Step,
        job: JobId,
        key: &RoundKey,
        reason: &str,
    ) -> Result<(), Error> {
        let context = self.context.clone();
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        // What is kept from round to round besides the model belongs to the round before, which is not there then.
        let goes_on = match found.plan.tasks.get(&key.task).map(|task| &task.component) {
            Some(Component::NnTrain(train)) => train.early_stop.is_none() && !has_moments(&train.strategy),
            // A regression takes its step from the next report at the same coefficients; after the last round with a step
            // there is none.
            Some(Component::Glm(glm)) => key.round < glm.newton.rounds,
            Some(Component::Cox(cox)) => key.round < cox.newton.rounds,
            _ => false,
        };
        let Some(task) = found.task_mut(&key.task).filter(|task| goes_on && key.round < task.rounds) else {
            let reason = format!(
                "sites agreed to a sum in round {} and it was not taken, because {reason}; they join no other attempt \
                 at the round, and the task cannot do without it: start a new run",
                key.round
            );
            return self.end_job(step, job, JobState::Failed, &reason, None).await;
        };
        task.done = key.round;
        let model = task.model;
        found.last_attempt = 0;
        step.job(&context, job).await?.set_task_progress(job, &key.task, key.round, model).await
    }

    /// Why the sum over these sites is not asked for, if it is not: a fit over some sites of a round is another fit, and whoever
    /// agreed to their sum agrees to no sum over all at the same coefficients.
    async fn incomplete(&self, job: JobId, with: &[SiteId]) -> Result<Option<String>, Error> {
        let Some(found) = self.jobs.get(&job) else { return Ok(None) };
        let Some(round) = found.round.as_ref().filter(|round| round.stored == RoundState::Open) else {
            return Ok(None);
        };
        if Coefficients::of(&found.plan, &round.key.task).is_none() {
            return Ok(None);
        }
        let mut absent = fits::absent(round);
        absent.retain(|(site, _)| !with.contains(site));
        if !absent.is_empty() {
            return fits::missing(&self.context, &absent).await.map(Some);
        }
        // PRIVACY: of two sums at nearly the same coefficients the difference is what those sent who are in one only.
        let kept = self.context.store.newton(job, &round.key.task).await?;
        let goes_on = kept.is_none_or(|newton| newton.goes_on_with(with));
        Ok((!goes_on).then(|| OTHERS.to_owned()))
    }

    /// A round with secure aggregation entered a phase: the step before it is over, and what it gave is relayed.
    pub(super) async fn secure_entered(
        &mut self,
        step: &mut Step,
        job: JobId,
        phase: &Phase,
        with: &[SiteId],
    ) -> Result<(), Error> {
        let context = self.context.clone();
        let Some(stage) = closed_by(phase) else { return Ok(()) };
        if stage == Stage::Input
            && let Some(reason) = self.incomplete(job, with).await?
        {
            return Box::pin(self.round_event(step, job, Event::Broken { reason })).await;
        }
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let study = found.study;
        let Some(round) = found.round.as_mut() else { return Ok(()) };
        let key = round.key.clone();
        // Restored at its end, it is closed already: only the sum is left to take.
        let is_closed = stage == Stage::Reveal && round.unmasks();
        if !is_closed {
            let parties = parties(&round.header.document, with);
            let masks = round.masks.as_mut().ok_or_else(|| Error::corrupt("round", "its session is gone"))?;
            if let Err(refusal) = masks.close(&parties) {
                let reason = refusal.to_string();
                return Box::pin(self.round_event(step, job, Event::Broken { reason })).await;
            }
            let tx = step.job(&context, job).await?;
            tx.close_secure_step(&key, stage, with).await?;
            if stage == Stage::Input && round.stored == RoundState::Open {
                tx.commit_round(&key, with).await?;
                round.stored = RoundState::Committed;
            }
        }
        match stage {
            Stage::Reveal => step.after.push(After::Reduce(job)),
            // What each is told is for that site alone.
            Stage::Shares => {
                let relays = with.iter().filter_map(|site| Some((*site, round.relay_to(*site)?)));
                relays.for_each(|(site, relay)| step.send(site, relay));
            }
            Stage::Keys | Stage::Input | Stage::Consent => {
                if let Some(relay) = with.first().and_then(|site| round.relay_to(*site)) {
                    step.send_all(with.iter().copied(), relay);
                }
            }
        }
        if stage == Stage::Input {
            step.after.push(After::Close(key));
            step.live(study, Some(job), "inputs fixed", format!("{} sites", with.len()));
        }
        Ok(())
    }
}

impl LiveRound {
    /// Whether everything is there to take the masks off the sum.
    fn unmasks(&self) -> bool {
        self.masks.as_ref().is_some_and(|masks| masks.unmasker().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(n: u8) -> SiteId {
        SiteId::from_bytes([n; 16])
    }

    #[test]
    fn a_round_offers_what_sites_demand_that_know_each_other() {
        let settings = Settings::default();
        assert_eq!(fewest(&settings), 3);
        let bounds = [3u32, 4, 5, 7, 10].map(|n| match mode(&settings, n, 2) {
            Mode::SecureAggregation { c, t, k_min } => (c, t, k_min),
            other => panic!("{other:?}"),
        });
        // specs/secure-aggregation.md, "Thresholds".
        assert_eq!(bounds, [(1, 3, 3), (1, 3, 3), (1, 4, 3), (2, 5, 4), (3, 7, 5)]);
        // Where the operator counts more as corrupt, or wants more in a sum, it takes more sites.
        assert_eq!(fewest(&Settings { colluding: Some(2), ..Settings::default() }), 4);
        assert_eq!(fewest(&Settings { min_parties: 6, ..Settings::default() }), 6);
    }

    #[test]
    fn of_two_sites_that_cannot_work_together_one_is_left_out_and_never_more_than_can_be_spared() {
        let sites = [1, 2, 3, 4].map(site);
        assert_eq!(apart(&sites, &[], 3), sites);
        assert_eq!(apart(&sites, &[(site(1), site(3))], 3), [1, 2, 4].map(site));
        // Who accuses everybody is the one to go.
        let all = [(site(1), site(3)), (site(1), site(2))];
        assert_eq!(apart(&sites, &all, 3), [2, 3, 4].map(site));
        assert_eq!(apart(&sites, &all, 4), sites);
    }
}
