//! The released model of a run on its way here, because somebody asked for it: first its card, which the coordinator gives
//! when all sites that took part have released the results, then its file, and a copy of both for whoever wants to take it
//! to other programs.

use std::path::{Path, PathBuf};

use hospes_ledger::{Action, Actor, ObjectKind};
use hospes_protocol::id::{Digest, FederationId, JobId};
use hospes_protocol::plan::Component;
use hospes_protocol::text::shown;

use super::Job;
use super::card::Card;
use super::work::longest_model;
use crate::audit::Because as _;
use crate::datasets::VIEWERS;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::link::LinkCommand;
use crate::new_file::Part;
use crate::people::Session;
use crate::view::{CopyState, ModelCard, ModelCopy, Notice};
use crate::{memberships, requests};

const COX: &str = "the run ended without a model: a Cox regression ends with a table of coefficients, and each site has a \
                   baseline hazard of its own, so that no risk follows from the coefficients alone";

/// A released model that somebody asked for. It is gone with the process; whoever still wants it asks again.
pub(crate) struct Fetching {
    federation: FederationId,
    /// `None` for a run that ended with tables of regressions alone: there is a card, and no file.
    model: Option<Digest>,
    by: Actor,
    phase: Phase,
}

enum Phase {
    AwaitsCard,
    AwaitsModel { most_bytes: u64, moved: Option<(u64, u64)> },
    Failed(String),
}

impl Fetching {
    /// Whether somebody still wants this file: a card that is on its way is followed by it.
    pub(super) fn wants(&self, federation: FederationId, model: Digest) -> bool {
        self.federation == federation && self.model == Some(model) && !matches!(self.phase, Phase::Failed(_))
    }

    /// Whether it waits for this file.
    fn awaits(&self, federation: FederationId, model: Digest) -> bool {
        self.federation == federation && self.model == Some(model) && matches!(self.phase, Phase::AwaitsModel { .. })
    }
}

impl Job {
    /// The model, if this site has released it.
    pub(super) fn released_model(&self) -> Result<Digest, PartyError> {
        match (self.release.as_str(), self.model) {
            ("released", Some(model)) => Ok(model),
            ("released", None) => {
                Err(PartyError::state(if self.is_cox() { COX } else { "the run ended without a model" }))
            }
            ("held", _) => Err(PartyError::state("the results are held; release them first")),
            _ => Err(PartyError::state("the run has no results in which this site has a part")),
        }
    }

    /// What it ended with, if this site has released it: a model, or `None` for tables of regressions alone.
    pub(super) fn released_result(&self) -> Result<Option<Digest>, PartyError> {
        match (self.release.as_str(), self.model) {
            ("released", None) if self.is_cox() => Ok(None),
            _ => self.released_model().map(Some),
        }
    }

    fn is_cox(&self) -> bool {
        self.plan.tasks.values().any(|task| matches!(task.component, Component::Cox(_)))
    }
}

impl Engine {
    /// Asks the coordinator for the released model of a run, or the card of its tables.
    pub(crate) async fn fetch_model(&mut self, session: Session, job: JobId) -> Result<(), PartyError> {
        let acting = self.inside(&session, "fetch a model", VIEWERS).await?;
        let mut conn = self.reader().await?;
        let found = Job::read(&mut conn, job).await?;
        drop(conn);
        let model = found.released_result()?;
        if self.fetching.get(&job).is_some_and(|f| !matches!(f.phase, Phase::Failed(_))) {
            return Ok(());
        }
        let fetching = Fetching { federation: found.federation, model, by: acting.actor(), phase: Phase::AwaitsCard };
        self.fetching.insert(job, fetching);
        self.command(found.federation, LinkCommand::Card { job, model });
        self.notify(Notice::Jobs);
        Ok(())
    }

    /// Nobody wants the model of a run any more.
    pub(crate) async fn stop_fetching(&mut self, session: Session, job: JobId) -> Result<(), PartyError> {
        self.inside(&session, "fetch a model", VIEWERS).await?;
        // The card of tables alone is one small answer, which changes nothing when it comes.
        if let Some(Fetching { federation, model: Some(model), phase: Phase::AwaitsCard, .. }) =
            self.fetching.remove(&job)
        {
            // A file that is on its way is forgotten once nothing waits for it.
            let wanted = self.fetching.values().any(|f| f.wants(federation, model));
            if !self.downloads.contains(&(federation, model)) && !wanted {
                self.command(federation, LinkCommand::Forget { digest: model });
            }
        }
        self.notify(Notice::Jobs);
        Ok(())
    }

    /// What this site has of the released model of a run.
    pub(crate) async fn model_copy(&mut self, session: Session, job: JobId) -> Result<ModelCopy, PartyError> {
        self.inside(&session, "see a model's card", VIEWERS).await?;
        let mut conn = self.reader().await?;
        let found = Job::read(&mut conn, job).await?;
        let Ok(model) = found.released_result() else {
            return Ok(ModelCopy { state: CopyState::None, card: None, moved: None, reason: None });
        };
        let study = requests::study(&mut conn, found.study).await?.study;
        let site = memberships::by_id(&mut conn, found.federation).await?.site;
        drop(conn);
        let kept = self.kept_card(&found, model, study.digest());
        let card: Option<ModelCard> = kept.map(|card| card.view(&found, &study, site));
        let is_here = card.is_some() && model.is_none_or(|model| self.model_path(found.federation, model).exists());
        let (state, moved, reason) = match self.fetching.get(&job).map(|f| &f.phase) {
            Some(Phase::AwaitsCard) => (CopyState::Asked, None, None),
            Some(Phase::AwaitsModel { moved, .. }) => (CopyState::Coming, *moved, None),
            Some(Phase::Failed(reason)) => (CopyState::Failed, None, Some(reason.clone())),
            None if is_here => (CopyState::Here, None, None),
            None => (CopyState::None, None, None),
        };
        Ok(ModelCopy { state, card, moved, reason })
    }

    /// The card of a run's result that was kept. One that does not fit any more is as good as none: it is asked for again.
    pub(super) fn kept_card(&self, job: &Job, model: Option<Digest>, study: Digest) -> Option<Card> {
        let bytes = std::fs::read(self.card_path(job.job)).ok()?;
        Card::read(&bytes, job, model, study).ok()
    }

    /// The coordinator gave the card of a model, or of a run that ended with tables alone.
    pub(crate) async fn on_card(
        &mut self,
        federation: FederationId,
        job: JobId,
        model: Option<Digest>,
        card: &[u8],
    ) -> Result<(), PartyError> {
        if !self.awaits_card(federation, job, model) {
            return Ok(());
        }
        let mut conn = self.reader().await?;
        let found = Job::read(&mut conn, job).await?;
        let study = requests::study(&mut conn, found.study).await?.study.digest();
        drop(conn);
        let phase = match (self.take_card(&found, model, study, card), model) {
            (Ok(most_bytes), Some(model)) => {
                self.download(federation, model, most_bytes);
                Phase::AwaitsModel { most_bytes, moved: None }
            }
            (Ok(_), None) => return self.on_tables(federation, &found).await,
            // It may repeat what the card says.
            (Err(reason), _) => Phase::Failed(shown(&reason, 400)),
        };
        self.set_fetching(job, phase);
        Ok(())
    }

    /// The coordinator does not give the card of a model.
    pub(crate) fn on_card_refused(
        &mut self,
        federation: FederationId,
        job: JobId,
        model: Option<Digest>,
        reason: &str,
    ) {
        if self.awaits_card(federation, job, model) {
            self.set_fetching(job, Phase::Failed(shown(reason, 400)));
        }
    }

    /// Checks and keeps a card; how long the file of its model can be at most, 0 where there is none.
    fn take_card(&self, job: &Job, model: Option<Digest>, study: Digest, bytes: &[u8]) -> Result<u64, String> {
        let card = Card::read(bytes, job, model, study)?;
        let most_bytes = match model {
            Some(_) => longest_model(&job.plan, card.task())
                .ok_or("the coordinator's card names a task that trains no model in the plan")?,
            None => 0,
        };
        let path = self.card_path(job.job);
        let kept = write_new(&path, bytes).map_err(|error| PartyError::file("write", &path, error));
        kept.map_err(|error| match &error {
            PartyError::File { source, .. } => format!("the card cannot be kept: {source}"),
            other => format!("the card cannot be kept: {other}"),
        })?;
        Ok(most_bytes)
    }

    /// The tables of a run came, which are all that there is of it.
    async fn on_tables(&mut self, federation: FederationId, job: &Job) -> Result<(), PartyError> {
        let Some(by) = self.fetching.get(&job.job).map(|f| f.by.clone()) else { return Ok(()) };
        let mut entry = self
            .entry(Actor::peer(federation), Action::ModelReceived)
            .object(ObjectKind::Job, job.job, None)
            .purpose(job.purpose())
            .because("the released tables of its regressions");
        entry.on_behalf = Some(by);
        match self.record("take released tables", &entry).await {
            Ok(()) => drop(self.fetching.remove(&job.job)),
            Err(error) => {
                // What the log does not have is not shown.
                let _ = std::fs::remove_file(self.card_path(job.job));
                self.set_fetching(job.job, Phase::Failed(error.to_string()));
                return Err(error);
            }
        }
        self.notify(Notice::Jobs);
        Ok(())
    }

    /// The file of a model came.
    pub(super) async fn on_fetched(&mut self, federation: FederationId, model: Digest) -> Result<(), PartyError> {
        for job in self.fetching_of(federation, model) {
            let Some(by) = self.fetching.get(&job).map(|f| f.by.clone()) else { continue };
            let mut conn = self.reader().await?;
            let purpose = Job::read(&mut conn, job).await?.purpose();
            drop(conn);
            let mut entry = self
                .entry(Actor::peer(federation), Action::ModelReceived)
                .object(ObjectKind::Model, model.short(), Some(model))
                .purpose(purpose)
                .because("the released model, with its card");
            entry.on_behalf = Some(by);
            match self.record("take a released model", &entry).await {
                Ok(()) => drop(self.fetching.remove(&job)),
                Err(error) => {
                    self.set_fetching(job, Phase::Failed(error.to_string()));
                    return Err(error);
                }
            }
        }
        self.notify(Notice::Jobs);
        Ok(())
    }

    /// The file of a model cannot be had.
    pub(super) fn on_fetch_failed(&mut self, federation: FederationId, model: Digest, reason: &str) {
        for job in self.fetching_of(federation, model) {
            self.set_fetching(job, Phase::Failed(shown(reason, 400)));
        }
    }

    /// So much of a file came.
    pub(crate) fn on_moved(&mut self, federation: FederationId, digest: Digest, so_far: u64, total: u64) {
        let jobs = self.fetching_of(federation, digest);
        for job in &jobs {
            if let Some(Phase::AwaitsModel { moved, .. }) = self.fetching.get_mut(job).map(|f| &mut f.phase) {
                *moved = Some((so_far, total));
            }
        }
        if !jobs.is_empty() {
            self.notify(Notice::Jobs);
        }
    }

    /// After a connection is asked for again what did not come before it was cut.
    pub(super) fn repeat_fetches(&mut self, federation: FederationId) {
        let mut cards = Vec::new();
        let mut files = Vec::new();
        for (job, fetching) in self.fetching.iter().filter(|(_, f)| f.federation == federation) {
            match fetching.phase {
                Phase::AwaitsCard => cards.push((*job, fetching.model)),
                Phase::AwaitsModel { most_bytes, .. } => files.extend(fetching.model.map(|model| (model, most_bytes))),
                Phase::Failed(_) => {}
            }
        }
        for (job, model) in cards {
            self.command(federation, LinkCommand::Card { job, model });
        }
        for (model, most_bytes) in files {
            self.download(federation, model, most_bytes);
        }
    }

    fn awaits_card(&self, federation: FederationId, job: JobId, model: Option<Digest>) -> bool {
        let awaits =
            |f: &Fetching| f.federation == federation && f.model == model && matches!(f.phase, Phase::AwaitsCard);
        self.fetching.get(&job).is_some_and(awaits)
    }

    fn fetching_of(&self, federation: FederationId, model: Digest) -> Vec<JobId> {
        self.fetching.iter().filter(|(_, f)| f.awaits(federation, model)).map(|(job, _)| *job).collect()
    }

    fn set_fetching(&mut self, job: JobId, phase: Phase) {
        if let Some(fetching) = self.fetching.get_mut(&job) {
            fetching.phase = phase;
        }
        self.notify(Notice::Jobs);
    }

    /// Where the card of a run's model lies.
    pub(super) fn card_path(&self, job: JobId) -> PathBuf {
        self.config.models().join(format!("{job}.card.json"))
    }
}

/// Writes a file of the engine's own in the place of an older one.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let part = Part::create(path)?;
    std::io::Write::write_all(&mut part.file(), bytes)?;
    part.file().sync_all()?;
    part.keep(path)
}

#[cfg(test)]
mod tests {
    use hospes_protocol::canon::Canonical;
    use hospes_protocol::id::{StudyId, Timestamp};
    use hospes_protocol::sign::SecretKey;
    use hospes_protocol::study::StudyFile;

    use super::*;

    #[test]
    fn it_is_said_why_a_cox_regression_has_no_model_to_fetch_or_to_predict_with() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/survival/study.yaml");
        let plan = StudyFile::read(&std::fs::read_to_string(path).unwrap()).unwrap().plan;
        let at = Timestamp::from_millis(1);
        let job = Job {
            job: JobId::new(at, [1; 10]),
            study: StudyId::new(at, [1; 10]),
            federation: SecretKey::from_seed(&[1; 32]).public().site_id(),
            plan: Canonical::new(plan).unwrap(),
            dataset: None,
            state: "success".into(),
            reason: None,
            model: None,
            release: "released".into(),
            released: Some(at),
            at,
        };
        assert_eq!(job.released_result().unwrap(), None, "it has tables");
        let held = Job { release: "held".into(), ..job };
        assert!(held.released_result().unwrap_err().to_string().contains("release them first"));
        let job = Job { release: "released".into(), ..held };
        let words = job.released_model().unwrap_err().to_string();
        assert!(words.contains("Cox regression ends with a table of coefficients"), "{words}");
    }
}
