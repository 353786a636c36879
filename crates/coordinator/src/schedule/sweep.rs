//! Studies with many settings: one job for each, so many at a time as are wanted and the sites have room for, and at the
//! end the best of them.

use std::collections::{BTreeMap, BTreeSet};

use hospes_ledger::{Action, Actor, ObjectKind, Purpose};
use hospes_protocol::approval::Refusal;
use hospes_protocol::id::{JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::message::ToSite;
use hospes_protocol::study::{Direction, Metric, Rank, Study, Sweep};
use hospes_protocol::text;

use super::driver::Driver;
use super::job::Job;
use super::step::{After, Step};
use super::studies::REASON_CHARS;
use super::work::Made;
use super::{figures, studies};
use crate::Error;
use crate::store::jobs::{JobRow, JobState, MemberState};
use crate::store::rounds::RoundState;
use crate::store::sweeps::{SweepRow, SweepState};

/// Sweeps of this replica that somebody has to look at.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// Something of them changed.
    due: BTreeSet<StudyId>,
    /// Since when too few sites have approved to go on.
    starved: BTreeMap<StudyId, Timestamp>,
}

impl Sweeps {
    /// Something of a study changed; it may have no settings at all.
    pub(super) fn look_at(&mut self, study: StudyId) {
        self.due.insert(study);
    }

    /// When one has to be looked at: at once, or when it has waited for approvals for long enough. One that has and was
    /// looked at is in the hands of another replica; it is looked at with the others of that replica.
    pub(super) fn wake(&self, now: Timestamp, quorum_ms: i64) -> Option<Timestamp> {
        let due = (!self.due.is_empty()).then_some(Timestamp::from_millis(0));
        let later = self.starved.values().map(|since| since.plus_millis(quorum_ms)).filter(|then| *then > now);
        later.chain(due).min()
    }

    fn take(&mut self, now: Timestamp, quorum_ms: i64) -> Vec<StudyId> {
        let over = self.starved.iter().filter(|(_, since)| now.since(**since) >= quorum_ms).map(|(study, _)| *study);
        let over: Vec<StudyId> = over.collect();
        self.due.extend(over);
        std::mem::take(&mut self.due).into_iter().collect()
    }
}

impl Driver {
    /// Looks at every sweep of which something changed.
    pub(super) async fn tick_sweeps(&mut self, step: &mut Step) -> Result<(), Error> {
        for study in self.sweeps.take(step.now, self.context.settings.quorum_ms) {
            self.advance_sweep(step, study).await?;
        }
        Ok(())
    }

    /// Begins to run a study's settings; the result is the first job, if one could be made.
    pub(super) async fn begin_sweep(
        &mut self,
        step: &mut Step,
        study: &Study,
        by: &str,
        actor: Actor,
    ) -> Result<Option<JobId>, Error> {
        let context = self.context.clone();
        let Some(sweep) = &study.sweep else { return Ok(None) };
        let now = step.now;
        if !step.tx(&context).await?.insert_sweep(study.id, by, now).await? {
            return Ok(None);
        }
        let purpose = Purpose { study: Some(study.id), ..Purpose::default() };
        let mut entry = context.audit.entry(step.now, actor, Action::JobStarted).purpose(purpose);
        entry = entry.object(ObjectKind::Study, study.id, None);
        let words = format!("{} settings are run, at most {} at a time", sweep.len(), sweep.parallel);
        entry.reason = Some(words.clone());
        step.record(entry);
        step.live(study.id, None, "settings running", words);
        self.advance_sweep(step, study.id).await?;
        Ok(self.jobs.values().filter(|job| job.study == study.id).map(|job| job.job).min())
    }

    /// Makes the next jobs of a sweep, if there is room for them, or ends it.
    async fn advance_sweep(&mut self, step: &mut Step, study: StudyId) -> Result<(), Error> {
        self.flush(step).await?;
        let context = self.context.clone();
        let running = |row: &SweepRow| row.state == SweepState::Running;
        let Some(row) = context.store.sweep(study).await?.filter(running) else {
            self.sweeps.starved.remove(&study);
            return Ok(());
        };
        let (now, lease_ms) = (step.now, context.settings.lease_ms);
        if !step.tx(&context).await?.lease_sweep(study, &context.replica, now, lease_ms).await? {
            return Ok(());
        }
        let document = studies::document(&context, study).await?;
        let Some(sweep) = &document.sweep else { return Err(Error::corrupt("study", "it has no settings")) };
        let jobs = context.store.jobs(Some(study)).await?;
        let made: BTreeSet<u32> = jobs.iter().filter_map(|job| job.setting).collect();
        let mut open = jobs.iter().filter(|job| !job.state.is_terminal()).count();
        let mut left = (1..=sweep.len()).filter(|setting| !made.contains(setting)).peekable();
        let approved = self.approved(study, now).await?;
        // A job that a site has no room for waits for its turn; another one would have to as well.
        let waits = self.jobs.values().any(|job| job.study == study && job.put_off.is_some());
        let most = usize::try_from(sweep.parallel).unwrap_or(usize::MAX);
        while approved.len() >= 2 && !waits && open < most {
            let Some(setting) = left.next() else { break };
            self.make_job(step, &document, Some(setting), &approved, &row.created_by, Actor::Engine).await?;
            open += 1;
        }
        if open > 0 {
            self.sweeps.starved.remove(&study);
            return Ok(());
        }
        let count = left.count();
        if count == 0 {
            return self.end_sweep(step, &document, sweep, &jobs, None).await;
        }
        let since = *self.sweeps.starved.entry(study).or_insert(now);
        if now.since(since) < context.settings.quorum_ms {
            return Ok(());
        }
        let reason =
            format!("fewer than two sites' approvals were in force for too long; {count} settings were not run");
        self.end_sweep(step, &document, sweep, &jobs, Some(reason)).await
    }

    /// Ranks the jobs of a sweep and chooses the best; of the others nothing but their figures is kept.
    async fn end_sweep(
        &mut self,
        step: &mut Step,
        study: &Study,
        sweep: &Sweep,
        jobs: &[JobRow],
        reason: Option<String>,
    ) -> Result<(), Error> {
        let context = self.context.clone();
        self.sweeps.starved.remove(&study.id);
        let mut judged = Vec::new();
        for job in jobs.iter().filter(|job| job.state == JobState::Success && job.model.is_some()) {
            judged.push(self.judged(job, &sweep.rank).await?);
        }
        judged.sort_by_key(|one| one.setting);
        let ranking = ranking(&judged, sweep.rank.direction);
        let now = step.now;
        let tx = step.tx(&context).await?;
        for (i, one) in judged.iter().enumerate() {
            tx.rank_job(one.job, one.figure, ranking.why_not(&judged, i).as_deref()).await?;
        }
        let best = ranking.best.map(|i| &judged[i]);
        let mut free = Vec::new();
        for job in jobs.iter().filter(|job| best.is_none_or(|best| best.job != job.job)) {
            free.extend(tx.drop_models_of(job.job).await?);
        }
        let (state, words) = match best {
            Some(best) => (SweepState::Success, best.words(sweep, ranking.among.len())),
            None => (SweepState::Failed, "no setting gave a model whose figure is known".to_owned()),
        };
        let reason = match (best, reason) {
            (Some(_), reason) => reason,
            (None, reason) => Some(reason.map_or(words.clone(), |reason| format!("{reason}; {words}"))),
        };
        tx.end_sweep(study.id, state, reason.as_deref(), now).await?;
        if let Some(best) = best {
            tx.choose_job(best.job, now).await?;
        }
        step.after.extend(free.into_iter().map(After::Delete));
        self.tell_choice(step, study, jobs, best, &words).await
    }

    async fn tell_choice(
        &self,
        step: &mut Step,
        study: &Study,
        jobs: &[JobRow],
        best: Option<&Judged>,
        words: &str,
    ) -> Result<(), Error> {
        let Some(row) = best.and_then(|best| jobs.iter().find(|job| job.job == best.job)) else {
            let purpose = Purpose { study: Some(study.id), ..Purpose::default() };
            let entry = self.context.audit.entry(step.now, Actor::Engine, Action::JobEnded).purpose(purpose);
            step.record(entry.object(ObjectKind::Study, study.id, None).failed(words));
            step.live(study.id, None, "settings ended", words.to_owned());
            return Ok(());
        };
        let mut entry = self.job_entry(step.now, Actor::Engine, Action::JobEnded, study.id, row.job);
        if let Some(model) = row.model {
            entry = entry.object(ObjectKind::Model, model, Some(model));
            step.live_model(study.id, row.job, "settings ended", words.to_owned(), model);
        }
        entry.reason = Some(words.to_owned());
        step.record(entry);
        let members = self.context.store.job_members(row.job).await?;
        let members = members.iter().filter(|m| m.state != MemberState::Refused).map(|m| m.site);
        let chosen = JobRow { chosen: Some(step.now), ..row.clone() };
        step.send_all(members, studies::ended(&chosen));
        step.after.push(After::Card(row.job));
        Ok(())
    }

    /// The study was withdrawn: nothing of it is run any more, and no model of it is kept.
    pub(super) async fn cancel_sweep(&mut self, step: &mut Step, study: StudyId, reason: &str) -> Result<(), Error> {
        let context = self.context.clone();
        let now = step.now;
        if !step.tx(&context).await?.end_sweep(study, SweepState::Cancelled, Some(reason), now).await? {
            return Ok(());
        }
        for job in context.store.jobs(Some(study)).await? {
            let free = step.tx(&context).await?.drop_models_of(job.job).await?;
            step.after.extend(free.into_iter().map(After::Delete));
        }
        Ok(())
    }

    /// A model was made for a job that is over by now. Its file goes, unless another job has the same one.
    pub(super) async fn forget_model(&self, step: &mut Step, made: Made) -> Result<(), Error> {
        if self.context.store.model(made.model).await?.is_empty() {
            step.after.push(After::Delete(made.model));
        }
        Ok(())
    }

    /// The figure of a successful job by which it is ranked, and the sites over which it was taken.
    async fn judged(&self, job: &JobRow, rank: &Rank) -> Result<Judged, Error> {
        let store = &self.context.store;
        let figures = store.figures(job.job).await?;
        let pooled = figures.iter().find(|row| row.task == rank.task && row.site.is_none());
        let metrics = pooled.map(|row| figures::metrics(row.task.clone(), None, &row.figures));
        let figure = metrics.and_then(|m| match rank.metric {
            Metric::Accuracy => m.accuracy,
            Metric::Auc => m.auc,
            Metric::Brier => m.brier,
            Metric::Loss => m.loss,
            Metric::AveragePrecision => m.further.average_precision,
            Metric::MacroF1 => m.further.macro_f1,
            Metric::Rmse => m.further.rmse,
            Metric::Mae => m.further.mae,
            Metric::RSquared => m.further.r_squared,
            Metric::CIndex => m.further.c_index,
        });
        let rounds = store.rounds(job.job, ROUNDS).await?;
        let last = rounds.into_iter().rev().find(|r| r.key.task == rank.task && r.state == RoundState::Published);
        let sites = last.and_then(|round| round.included).unwrap_or_default().into_iter().collect();
        Ok(Judged { job: job.job, setting: job.setting.unwrap_or_default(), figure, sites })
    }

    /// A member has as many runs as it takes at a time: the job gives up its places everywhere and waits, so that no two
    /// jobs wait for each other.
    pub(super) async fn wait_for_room(
        &mut self,
        step: &mut Step,
        site: SiteId,
        job: JobId,
        busy: &Refusal,
    ) -> Result<(), Error> {
        let context = self.context.clone();
        let reason = text::shown(&busy.detail, REASON_CHARS);
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        found.put_off = Some(step.now.plus_millis(context.settings.busy_ms));
        let study = found.study;
        let tx = step.job(&context, job).await?;
        for (member, entry) in &mut found.members {
            let why = (*member == site).then_some(reason.as_str());
            if entry.state == MemberState::Reserved || why.is_some() {
                entry.state = MemberState::Asked;
                tx.set_job_member(job, *member, MemberState::Asked, why).await?;
            }
        }
        let others: Vec<SiteId> = found.members.keys().copied().filter(|member| *member != site).collect();
        step.send_all(others, ToSite::JobRollback { job });
        let entry = self.job_entry(step.now, Actor::peer(site), Action::JobStarted, study, job).refused(&reason);
        step.record_limited(&context, site, job, entry);
        step.live(study, Some(job), "job waiting", format!("{site} has no room for it yet: {reason}"));
        Ok(())
    }

    /// A job is over: its study's next setting may have its turn, and those that wait for room are asked about again.
    pub(super) fn job_is_over(&mut self, over: &Job, now: Timestamp) {
        if over.setting.is_some() {
            self.sweeps.look_at(over.study);
        }
        for job in self.jobs.values_mut() {
            job.put_off = job.put_off.map(|until| until.min(now));
        }
    }
}

/// Rounds of a job among which that of the evaluation is looked for.
const ROUNDS: u32 = 1_000;

/// A setting's result.
#[derive(Debug, Clone, PartialEq)]
struct Judged {
    job: JobId,
    setting: u32,
    figure: Option<f64>,
    sites: BTreeSet<SiteId>,
}

impl Judged {
    fn words(&self, sweep: &Sweep, among: usize) -> String {
        let Rank { task, metric, direction } = &sweep.rank;
        format!(
            "setting {} of {} is the best: it has the {} {} in '{task}' of {among} that can be compared",
            self.setting,
            sweep.len(),
            direction.as_str(),
            metric.as_str(),
        )
    }
}

/// Which results can be compared with each other, and which of them is the best.
#[derive(Debug, Default, PartialEq)]
struct Ranking {
    /// Places in the list of results.
    among: Vec<usize>,
    best: Option<usize>,
}

/// Ranks results. Only those over one and the same set of sites are compared, since a figure over other patients says
/// nothing about which setting is better: the largest set counts, among equals that of the most results. Of equal figures
/// the first is the best.
fn ranking(results: &[Judged], direction: Direction) -> Ranking {
    let mut groups: BTreeMap<&BTreeSet<SiteId>, Vec<usize>> = BTreeMap::new();
    for (i, result) in results.iter().enumerate().filter(|(_, result)| result.figure.is_some()) {
        groups.entry(&result.sites).or_default().push(i);
    }
    let Some((_, among)) = groups.into_iter().max_by_key(|(sites, members)| (sites.len(), members.len())) else {
        return Ranking::default();
    };
    let mut best: Option<usize> = None;
    for i in among.iter().copied() {
        let better = best.is_none_or(|before| match direction {
            Direction::Highest => results[i].figure > results[before].figure,
            Direction::Lowest => results[i].figure < results[before].figure,
        });
        if better {
            best = Some(i);
        }
    }
    Ranking { among, best }
}

impl Ranking {
    /// Why a result is not compared with the others; `None` if it is.
    fn why_not(&self, results: &[Judged], i: usize) -> Option<String> {
        if self.among.contains(&i) {
            return None;
        }
        if results[i].figure.is_none() {
            return Some("not ranked: its figure was withheld by a site, or is not defined".to_owned());
        }
        let ours = results[i].sites.len();
        let theirs = self.among.first().map_or(0, |first| results[*first].sites.len());
        Some(format!("not ranked: it was judged at other sites ({ours}) than those that are compared ({theirs})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_that_another_replica_holds_is_no_reason_to_wake_at_once() {
        let (study, at) = (StudyId::new(Timestamp::from_millis(0), [1; 10]), Timestamp::from_millis);
        let mut sweeps = Sweeps::default();
        sweeps.starved.insert(study, at(10));
        assert_eq!(sweeps.wake(at(50), 100), Some(at(110)));
        assert_eq!((sweeps.take(at(109), 100), sweeps.take(at(110), 100)), (vec![], vec![study]));
        assert_eq!(sweeps.wake(at(110), 100), None);
        sweeps.look_at(study);
        assert_eq!(sweeps.wake(at(110), 100), Some(at(0)));
    }

    fn result(setting: u8, figure: Option<f64>, sites: &[u8]) -> Judged {
        Judged {
            job: JobId::new(Timestamp::from_millis(0), [setting; 10]),
            setting: u32::from(setting),
            figure,
            sites: sites.iter().map(|n| SiteId::from_bytes([*n; 16])).collect(),
        }
    }

    #[test]
    fn the_best_is_the_first_of_those_that_can_be_compared() {
        let all = [1, 2, 3, 4];
        let results = [
            result(1, Some(0.7), &all),
            result(2, Some(0.9), &all),
            result(3, None, &all),
            // Better, but on other patients.
            result(4, Some(0.99), &all[..3]),
            result(5, Some(0.9), &all),
            result(6, Some(0.2), &all),
        ];
        let ranked = ranking(&results, Direction::Highest);
        assert_eq!((ranked.among.as_slice(), ranked.best), ([0, 1, 4, 5].as_slice(), Some(1)));
        assert_eq!(ranking(&results, Direction::Lowest).best, Some(5));
        let said: Vec<bool> = (0..6).map(|i| ranked.why_not(&results, i).is_some()).collect();
        assert_eq!(said, [false, false, true, true, false, false]);
        assert!(ranked.why_not(&results, 2).unwrap().contains("withheld"));
        assert!(ranked.why_not(&results, 3).unwrap().contains("other sites (3) than those that are compared (4)"));
    }

    #[test]
    fn without_a_figure_there_is_no_best() {
        assert_eq!(ranking(&[], Direction::Highest), Ranking::default());
        assert_eq!(ranking(&[result(1, None, &[1, 2])], Direction::Highest), Ranking::default());
        let few = [result(1, Some(0.5), &[1, 2]), result(2, Some(0.6), &[3, 4]), result(3, Some(0.4), &[1, 2])];
        assert_eq!(ranking(&few, Direction::Highest).best, Some(0), "the larger group is compared");
    }
}
