//! Studies and members: submission, offers, decisions, vouches, sessions that begin.

use std::collections::{BTreeMap, BTreeSet};

use hospes_ledger::{Action, Actor, Object, ObjectKind, Purpose};
use hospes_privacy::quantise::Quantiser;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::message::{Decision, Hello, RoundOutcome, ToSite, Welcome};
use hospes_protocol::plan::{self, Component, Plan, Problem};
use hospes_protocol::sign::Signed;
use hospes_protocol::study::{Study, Sweep, Terms, Vouch};
use hospes_protocol::{text, version};

use super::driver::Driver;
use super::lifecycle::elsewhere;
use super::step::{After, Step};
use super::{Answer, Rejection, RejectionCode, Reply};
use crate::store::jobs::{JobRow, JobState, MemberState};
use crate::store::rounds::{RoundRow, RoundState};
use crate::store::{Caller, SiteRow, SiteState, StudyRow, StudyState, name_key};
use crate::{Error, enrol, random};

/// Ended jobs of which a site is told again when it connects.
const ENDED_JOBS: u32 = 50;
/// Withdrawn studies of which a site is told again when it connects.
const WITHDRAWN_STUDIES: u32 = 50;
/// For how long, in milliseconds: a week; those whose results wait for its release, for good.
const ENDED_FOR_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
/// Rounds of each of its jobs of which a site is told again when it connects. A site works on one round of a job after
/// the other and hears of them in order, so that it can have missed the end of its last one only; the others are spare.
const CLOSED_ROUNDS: u32 = 4;
/// Vouches of one member that are relayed at once in ten minutes; those beyond wait for each member's next greeting.
const VOUCHES: u32 = 100;
const VOUCHES_MS: i64 = 10 * 60 * 1_000;
/// Characters of a reason that comes from a site.
pub(super) const REASON_CHARS: usize = 300;

impl Driver {
    /// Tells a site that has just connected everything that it may have missed.
    pub(super) async fn greet(&mut self, step: &mut Step, site: SiteId, hello: &Hello) -> Result<(), Error> {
        let version = match version::negotiate(&hello.versions) {
            Ok(version) => version,
            Err(none) => {
                step.send(site, ToSite::Goodbye { reason: none.to_string() });
                step.after.push(After::EndSession(site));
                return Ok(());
            }
        };
        let welcome = Welcome {
            version,
            federation: self.context.federation(),
            identity: self.context.key.public(),
            at: step.now,
            epoch: self.context.epoch,
        };
        step.send(site, ToSite::Welcome(welcome));
        let store = &self.context.store;
        if let Some(roster) = store.roster().await? {
            step.send(site, ToSite::Roster(Box::new(roster)));
        }
        for vouch in store.vouches().await? {
            step.send(site, ToSite::Vouch(Box::new(vouch)));
        }
        for study in store.undecided(site).await? {
            step.send(site, ToSite::Study(Box::new(study.signed()?)));
        }
        let ended_jobs = store.ended_jobs_of(site, step.now.plus_millis(-ENDED_FOR_MS), ENDED_JOBS).await?;
        // First how its rounds ended: when a study or a job is over, a site takes back what it believes still waits, and
        // a receipt may have been lost.
        let running = self.jobs.values().filter(|job| job.members.contains_key(&site)).map(|job| job.job);
        for job in ended_jobs.iter().map(|row| row.job).chain(running) {
            for round in store.closed_rounds_of(site, job, CLOSED_ROUNDS).await? {
                step.send(site, closed_message(&round));
            }
        }
        for study in store.withdrawn_studies_of(site, WITHDRAWN_STUDIES).await? {
            step.send(site, ToSite::StudyWithdrawn { study });
        }
        for job in &ended_jobs {
            step.send(site, ended(job));
        }
        if !self.keys.contains_key(&site) {
            self.read_keys().await?;
        }
        self.greet_jobs(step, site).await?;
        self.witnesses.joined(site, step.now);
        self.show(vec![site]);
        Ok(())
    }

    /// Tells a site what is going on in the jobs that it is a member of.
    pub(super) async fn greet_jobs(&mut self, step: &mut Step, site: SiteId) -> Result<(), Error> {
        for job in self.jobs.values().filter(|job| job.members.contains_key(&site)) {
            match job.state {
                JobState::Waiting if job.members[&site].state == MemberState::Asked && job.put_off.is_none() => {
                    let plan = Box::new(job.plan.clone());
                    step.send(site, ToSite::JobReserve { job: job.job, study: job.study, plan });
                }
                JobState::Running => {
                    step.send(site, ToSite::JobStart { job: job.job });
                    if let Some(closed) = self.context.store.last_closed_round(job.job).await? {
                        step.send(site, closed_message(&closed));
                    }
                    let open = job.round.as_ref().filter(|round| round.machine.awaited().any(|s| s == site));
                    if let Some(round) = open {
                        step.send(site, ToSite::RoundOpen(Box::new(round.header.clone())));
                        if let Some(relay) = round.relay_to(site) {
                            step.send(site, relay);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the members' identity keys anew.
    pub(super) async fn read_keys(&mut self) -> Result<(), Error> {
        self.keys = self.context.store.sites().await?.iter().map(|s| (s.site, s.identity)).collect();
        Ok(())
    }

    pub(super) async fn spread_roster(&mut self, step: &mut Step) -> Result<(), Error> {
        self.read_keys().await?;
        if let Some(roster) = self.context.store.roster().await? {
            step.send_all(self.sessions.sites().map(|(site, _)| site), ToSite::Roster(Box::new(roster)));
        }
        Ok(())
    }

    /// A site was suspended or revoked: it drops out of everything, and its session ends.
    pub(super) async fn lock(&mut self, step: &mut Step, site: SiteId, reason: &str) -> Result<(), Error> {
        let reason = format!("the operator locked this site out: {}", text::shown(reason, REASON_CHARS));
        let jobs: Vec<JobId> = self.jobs.values().filter(|j| j.members.contains_key(&site)).map(|j| j.job).collect();
        for job in jobs {
            self.withdraw_member(step, job, site, &reason).await?;
        }
        step.send(site, ToSite::Goodbye { reason });
        step.after.push(After::EndSession(site));
        Ok(())
    }

    /// Keeps a vouch, if it is one, and relays it.
    pub(super) async fn vouch(&mut self, step: &mut Step, site: SiteId, vouch: Signed<Vouch>) -> Result<(), Error> {
        let context = self.context.clone();
        let said = &vouch.document;
        let holds = said.by == site
            && said.site != site
            && said.federation == context.federation()
            && self.keys.get(&site).is_some_and(|key| vouch.signed_by(key))
            && self.keys.get(&said.site) == Some(&said.identity);
        let actor = Actor::peer(site);
        let entry = context.audit.entry(step.now, actor, Action::PeerVouched).object(ObjectKind::Site, said.site, None);
        if !holds {
            let entry = entry.refused("the vouch does not hold: another voucher, site, key or federation");
            step.record_limited(&context, site, "", entry);
            return Ok(());
        }
        if step.tx(&context).await?.put_vouch(&vouch).await? {
            step.record_limited(&context, site, said.site, entry);
            if self.vouches.take(site, step.now, VOUCHES_MS, VOUCHES) {
                step.send_all(self.sessions.after(site), ToSite::Vouch(Box::new(vouch)));
            }
        }
        Ok(())
    }

    /// Checks a study, signs it and offers it.
    pub(super) async fn submit(
        &mut self,
        step: &mut Step,
        terms: Terms,
        text: &str,
        sweep: Option<Sweep>,
        by: &Caller,
    ) -> Answer {
        self.flush(step).await?;
        let (open, most) = (self.context.store.open_studies(by.id).await?, self.context.settings.open_studies);
        if open >= most {
            let reason = format!(
                "{open} studies of {} are open already, and {most} are allowed (schedule.open_studies in the \
                 coordinator's settings); withdraw those that are not needed any more",
                by.name
            );
            return Ok(Err(Rejection::new(RejectionCode::Conflict, reason)));
        }
        let sites = self.context.store.sites().await?;
        let (plan, members) = match check(&terms, text, sweep.as_ref(), &sites) {
            Ok(checked) => checked,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let study = Study {
            id: StudyId::new(step.now, random()?),
            federation: self.context.federation(),
            submitted: step.now,
            terms,
            plan,
            sweep,
            members: members.clone(),
        };
        let row = StudyRow {
            study: study.id,
            title: study.terms.title.clone(),
            submitted_by: by.name.clone(),
            submitter: by.id,
            submitted: step.now,
            state: StudyState::Offered,
            plan: study.plan.digest(),
            document: Vec::new(),
        };
        let signed = match Signed::new(study, &self.context.key) {
            Ok(signed) => signed,
            Err(error) => return Ok(Err(Rejection::new(RejectionCode::Invalid, error.to_string()))),
        };
        let row = StudyRow { document: signed.to_bytes()?, ..row };
        self.offer(step, &row, &signed, &members, by).await?;
        Ok(Ok(Reply::Study(row.study)))
    }

    async fn offer(
        &mut self,
        step: &mut Step,
        row: &StudyRow,
        signed: &Signed<Study>,
        members: &[SiteId],
        by: &Caller,
    ) -> Result<(), Error> {
        let context = self.context.clone();
        step.tx(&context).await?.insert_study(row, members).await?;
        let purpose = Purpose { study: Some(row.study), ..Purpose::default() };
        let entry = context
            .audit
            .entry(step.now, enrol::actor(by), Action::StudySubmitted)
            .purpose(purpose)
            .object(ObjectKind::Study, row.study, Some(signed.document.digest()))
            .object(ObjectKind::Plan, &signed.document.plan.name, Some(row.plan));
        step.record(entry);
        let mut entry = context.audit.entry(step.now, Actor::Engine, Action::StudyOffered).purpose(purpose);
        entry.objects = members.iter().take(hospes_ledger::limits::OBJECTS).map(site_object).collect();
        step.record(entry);
        step.live(row.study, None, "study offered", format!("{} to {} sites", row.title, members.len()));
        step.send_all(members.iter().copied(), ToSite::Study(Box::new(signed.clone())));
        Ok(())
    }

    /// Takes a study back.
    pub(super) async fn withdraw(&mut self, step: &mut Step, study: StudyId, by: &Caller, reason: &str) -> Answer {
        self.flush(step).await?;
        let context = self.context.clone();
        let Some(row) = context.store.study(study).await? else { return Ok(Err(no_study(study))) };
        let reason = text::shown(reason, REASON_CHARS);
        let open = context.store.jobs(Some(study)).await?.into_iter().filter(|job| !job.state.is_terminal());
        let running: Vec<JobId> = open.map(|row| row.job).collect();
        if running.iter().any(|job| !self.jobs.contains_key(job)) {
            // That one would go on with a study that nobody has any more.
            return Ok(Err(elsewhere()));
        }
        for job in running {
            let reason = format!("the study was withdrawn: {reason}");
            self.end_job(step, job, JobState::Cancelled, &reason, Some(by)).await?;
        }
        if !step.tx(&context).await?.withdraw_study(study).await? {
            return Ok(Err(Rejection::new(RejectionCode::Conflict, "the study was withdrawn before")));
        }
        self.cancel_sweep(step, study, &format!("the study was withdrawn: {reason}")).await?;
        let mut entry = context
            .audit
            .entry(step.now, enrol::actor(by), Action::StudyWithdrawn)
            .purpose(Purpose { study: Some(study), ..Purpose::default() })
            .object(ObjectKind::Study, study, None);
        entry.reason = Some(reason.clone());
        step.record(entry);
        step.live(study, None, "study withdrawn", reason);
        step.send_all(row.signed()?.document.members.iter().copied(), ToSite::StudyWithdrawn { study });
        Ok(Ok(Reply::Done))
    }

    /// A site's people decided.
    pub(super) async fn decision(
        &mut self,
        step: &mut Step,
        site: SiteId,
        study: StudyId,
        decision: Decision,
    ) -> Result<(), Error> {
        let context = self.context.clone();
        let (decision, now) = (shown(decision), step.now);
        // A site that was locked out in this moment may still take something back, but not agree to anything.
        let is_locked = step.tx(&context).await?.site(site).await?.is_none_or(|row| row.state.is_locked());
        let purpose = Purpose { study: Some(study), ..Purpose::default() };
        let entry = context.audit.entry(now, Actor::peer(site), Action::DecisionReceived).purpose(purpose);
        if is_locked && matches!(decision, Decision::Approved { .. }) {
            step.record_limited(&context, site, "", entry.refused("the operator has locked this site out"));
            return Ok(());
        }
        match step.tx(&context).await?.decided(study, site).await? {
            None => {
                tracing::warn!(%site, %study, "a decision on a study that this site was not asked about is ignored");
                return Ok(());
            }
            // Said again, because the study was offered again.
            Some(Some(before)) if before == decision => return Ok(()),
            Some(_) => step.tx(&context).await?.set_decision(study, site, &decision, now).await?,
        };
        let entry = match &decision {
            Decision::Approved { approval, .. } => entry.object(ObjectKind::Approval, "approved", Some(*approval)),
            Decision::Refused(refusal) => entry.refused(refusal),
            Decision::Suspended => entry.refused("suspended"),
            Decision::Revoked => entry.refused("revoked"),
            Decision::Expired => entry.refused("expired"),
        };
        step.record_limited(&context, site, study, entry);
        step.live(study, None, "decision received", format!("{site} {}", word(&decision)));
        let approved = until(Some(&decision), step.now);
        let jobs: Vec<JobId> = self.jobs.values().filter(|job| job.study == study).map(|job| job.job).collect();
        for job in &jobs {
            if let Some(member) = self.jobs.get_mut(job).and_then(|j| j.members.get_mut(&site)) {
                member.approved = approved;
            }
            if approved.is_none() {
                let reason = format!("the site's approval is {}", word(&decision));
                self.withdraw_member(step, *job, site, &reason).await?;
            }
        }
        // Settings may have waited for it.
        self.sweeps.look_at(study);
        if jobs.is_empty() {
            self.flush(step).await?;
            self.start_if_all_decided(step, study).await?;
        }
        Ok(())
    }

    /// Reads anew which members' approvals are in force.
    pub(super) async fn reload_approvals(&mut self, now: Timestamp) -> Result<(), Error> {
        let studies: BTreeSet<StudyId> = self.jobs.values().map(|job| job.study).collect();
        for study in studies {
            let approved = self.approved(study, now).await?;
            for job in self.jobs.values_mut().filter(|job| job.study == study) {
                for (site, member) in &mut job.members {
                    member.approved = approved.get(site).copied();
                }
            }
        }
        Ok(())
    }

    /// Sites that approved a study, and until when.
    pub(super) async fn approved(&self, study: StudyId, now: Timestamp) -> Result<BTreeMap<SiteId, Timestamp>, Error> {
        let locked = self.context.store.locked_sites().await?;
        let decisions = self.context.store.decisions(study).await?;
        let approved = decisions.iter().filter(|m| !locked.contains(&m.site));
        Ok(approved.filter_map(|m| until(m.decision.as_ref(), now).map(|t| (m.site, t))).collect())
    }
}

/// Until when a decision lets a site take part; `None` if it does not.
pub(super) fn until(decision: Option<&Decision>, now: Timestamp) -> Option<Timestamp> {
    match decision {
        Some(Decision::Approved { expires, .. }) if *expires > now => Some(*expires),
        _ => None,
    }
}

fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Approved { .. } => "approved",
        Decision::Refused(_) => "refused",
        Decision::Suspended => "suspended",
        Decision::Revoked => "revoked",
        Decision::Expired => "expired",
    }
}

/// A decision whose words can be shown.
fn shown(decision: Decision) -> Decision {
    match decision {
        Decision::Refused(mut refusal) => {
            refusal.detail = text::shown(&refusal.detail, REASON_CHARS);
            Decision::Refused(refusal)
        }
        other => other,
    }
}

fn site_object(site: &SiteId) -> Object {
    Object { kind: ObjectKind::Site, id: site.to_string(), digest: None }
}

pub(super) fn no_study(study: StudyId) -> Rejection {
    Rejection::new(RejectionCode::NotFound, format!("there is no study {study}"))
}

/// How a job ended, for a site. Of many settings only the one that was chosen has a model to be released.
pub(super) fn ended(job: &JobRow) -> ToSite {
    let others = job.setting.filter(|_| job.chosen.is_none() && job.state == JobState::Success);
    ToSite::JobEnded {
        job: job.job,
        state: job.state.as_str().to_owned(),
        reason: job.reason.clone().or_else(|| others.map(not_chosen)),
        model: job.model.filter(|_| others.is_none()),
    }
}

/// Why a setting's results are not used, or not yet.
pub(super) fn not_chosen(setting: u32) -> String {
    format!("setting {setting} of the study is done; the results of the best one only are used")
}

/// What was submitted.
pub(super) async fn document(context: &super::Context, study: StudyId) -> Result<Canonical<Study>, Error> {
    let row = context.store.study(study).await?.ok_or_else(|| Error::corrupt("study", "it is gone"))?;
    Ok(row.signed()?.document)
}

/// How a round ended, for a site.
fn closed_message(round: &RoundRow) -> ToSite {
    let outcome = if round.state == RoundState::Published {
        RoundOutcome::Published { model: round.model, included: round.included.clone().unwrap_or_default() }
    } else {
        RoundOutcome::Abandoned(round.reason.clone().unwrap_or_default())
    };
    ToSite::RoundClosed { round: round.key.clone(), outcome }
}

/// Whether a study can be offered as things are: its plan, and the members that it means.
pub(crate) fn check(
    terms: &Terms,
    text: &str,
    sweep: Option<&Sweep>,
    sites: &[SiteRow],
) -> Result<(Canonical<Plan>, Vec<SiteId>), Rejection> {
    let wrong = |reason: String| Rejection::new(RejectionCode::Invalid, reason);
    check_terms(terms)?;
    let plan = plan::read(text).map_err(|e| Rejection {
        code: RejectionCode::Invalid,
        message: e.to_string(),
        problems: e.problems,
    })?;
    if let Some(rejection) = unavailable(&plan) {
        return Err(rejection);
    }
    if let Some(sweep) = sweep {
        let of_runs =
            |problems| Rejection { problems, ..Rejection::new(RejectionCode::Invalid, "the settings do not fit") };
        let runs = sweep.plans(&plan).map_err(|e| Rejection { message: e.to_string(), ..of_runs(e.problems) })?;
        if let Some(rejection) = runs.iter().find_map(|run| unavailable(run)) {
            return Err(rejection);
        }
    }
    let members = resolve(&plan, sites).map_err(wrong)?;
    if let Some(rejection) = too_few(&plan, members.len()) {
        return Err(rejection);
    }
    Ok((Canonical::new(plan).map_err(|e| wrong(e.to_string()))?, members))
}

/// Terms that people will read and sign must say who asks for what, in characters that can be read.
fn check_terms(terms: &Terms) -> Result<(), Rejection> {
    let wrong =
        |field: &str, reason: &str| Err(Rejection::new(RejectionCode::Invalid, format!("terms.{field} {reason}")));
    let names = [
        ("title", &terms.title),
        ("requester.name", &terms.requester.name),
        ("requester.organisation", &terms.requester.organisation),
    ];
    for (field, value) in names {
        if let Err(reason) = text::check_name(value) {
            return wrong(field, &reason);
        }
    }
    if terms.purpose.trim().is_empty() {
        return wrong("purpose", "is empty");
    }
    // Every other text, however deep it lies.
    let tree = serde_json::to_value(terms).unwrap_or_default();
    match hidden(&tree, "terms") {
        Some(reason) => Err(Rejection::new(RejectionCode::Invalid, reason)),
        None => Ok(()),
    }
}

/// The first text that cannot be shown as it is.
fn hidden(value: &serde_json::Value, place: &str) -> Option<String> {
    match value {
        serde_json::Value::String(text) => text::check_text(text).err().map(|reason| format!("{place} {reason}")),
        serde_json::Value::Array(items) => {
            items.iter().enumerate().find_map(|(i, item)| hidden(item, &format!("{place}.{i}")))
        }
        serde_json::Value::Object(fields) => {
            fields.iter().find_map(|(name, field)| hidden(field, &format!("{place}.{name}")))
        }
        _ => None,
    }
}

/// What the plan language knows and this version's aggregation does not.
fn unavailable(plan: &Plan) -> Option<Rejection> {
    let problems: Vec<Problem> = plan
        .tasks
        .iter()
        .filter_map(|(name, task)| match &task.component {
            Component::NnTrain(train) => Quantiser::new(&train.quantise)
                .err()
                .map(|error| Problem { place: format!("tasks.{name}.params.quantise"), reason: error.to_string() }),
            _ => None,
        })
        .collect();
    let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    (!problems.is_empty()).then_some(Rejection { code: RejectionCode::Invalid, message, problems })
}

/// Strategies that need more sites than the study has: else everybody would sign what cannot end well.
fn too_few(plan: &Plan, members: usize) -> Option<Rejection> {
    let problems = plan.tasks.iter().filter_map(|(name, task)| {
        let Component::NnTrain(train) = &task.component else { return None };
        let (strategy, needed) = (train.strategy.name(), train.strategy.fewest());
        let reason = format!("{strategy} as it is set needs {needed} sites in a round, and the study has {members}");
        (usize::try_from(needed).unwrap_or(usize::MAX) > members)
            .then(|| Problem { place: format!("tasks.{name}.params.strategy"), reason })
    });
    let problems: Vec<Problem> = problems.collect();
    let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    (!problems.is_empty()).then_some(Rejection { code: RejectionCode::Invalid, message, problems })
}

/// Members that a plan's selectors mean, in order of their ids.
fn resolve(plan: &Plan, sites: &[SiteRow]) -> Result<Vec<SiteId>, String> {
    let able = |s: &&SiteRow| matches!(s.state, SiteState::Enrolled | SiteState::Active);
    let mut members = BTreeSet::new();
    for (i, selector) in plan.parties.members.iter().enumerate() {
        let name = selector.strip_prefix("site:").unwrap_or(selector);
        if name == "*" {
            members.extend(sites.iter().filter(able).map(|s| s.site));
            continue;
        }
        match sites.iter().find(|s| name_key(&s.name) == name_key(name)) {
            Some(site) if able(&site) => members.insert(site.site),
            Some(site) => return Err(format!("parties.members.{i}: the site '{name}' is {}", site.state)),
            None => {
                let known: Vec<&str> = sites.iter().filter(able).map(|s| s.name.as_str()).take(10).collect();
                return Err(format!("parties.members.{i}: no site '{name}'; there is {}", known.join(", ")));
            }
        };
    }
    if members.len() < 2 {
        return Err(format!("parties.members: {} sites are named, a study needs at least two", members.len()));
    }
    Ok(members.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::study::Requester;

    fn terms() -> Terms {
        let requester = Requester { name: "A".into(), organisation: "B".into(), ..Requester::default() };
        Terms { title: "T".into(), purpose: "P".into(), requester, ..Terms::default() }
    }

    #[test]
    fn terms_that_nobody_could_read_are_refused_by_place() {
        assert_eq!(check_terms(&terms()), Ok(()));
        let empty = check_terms(&Terms { purpose: " ".into(), ..terms() }).unwrap_err();
        assert_eq!(empty.message, "terms.purpose is empty");
        let reordered = Terms { recipients: vec!["ok".into(), "a\u{202e}b".into()], ..terms() };
        assert!(check_terms(&reordered).unwrap_err().message.starts_with("terms.recipients.1 "));
    }

    #[test]
    fn an_approval_counts_until_it_expires() {
        let at = Timestamp::from_millis;
        let digest = hospes_protocol::id::Digest::of(b"a");
        let approved = Decision::Approved { approval: digest, expires: at(10), one_person: false };
        assert_eq!(until(Some(&approved), at(9)), Some(at(10)));
        assert_eq!(until(Some(&approved), at(10)), None);
        assert_eq!(until(Some(&Decision::Revoked), at(0)), None);
        assert_eq!(until(None, at(0)), None);
    }
}
