//! What a site gets of the results that it has a part in: the card of the model, and with it leave to download the file, or
//! the card of a run that ended with tables of regressions alone.
//! That it took them stands in the ledger before the first byte goes out.

use hospes_ledger::{Action, Actor, Ledger, ObjectKind, Purpose};
use hospes_protocol::id::{Digest, JobId, SiteId};
use hospes_protocol::{limits, plan};
use tonic::Status;

use super::Shared;
use super::grpc::internal;
use crate::Error;
use crate::models::{Card, CardParty, Lineage, NOTICE, protection};
use crate::store::jobs::JobState;
use crate::store::results::{Access, ModelState};

impl Shared {
    /// The card of a job's model, for a site that has a part in it; without a model, that of a job that ended with tables.
    pub(super) async fn card_for(&self, site: SiteId, job: JobId, model: Option<Digest>) -> Result<Vec<u8>, Status> {
        let store = &self.register.store;
        let has_part = store.has_part(job, site).await.map_err(|e| internal(&e))?;
        let kept = match model {
            // Who has no part in it does not learn whether there is such a job, nor has a card made.
            _ if !has_part => None,
            Some(model) => {
                let rows = store.model(model).await.map_err(|e| internal(&e))?;
                let row = rows.into_iter().find(|row| row.job == job && row.state == ModelState::Final);
                row.map(|row| row.card)
            }
            None => self.tables(job).await.map_err(|e| internal(&e))?.map(Some),
        };
        let Some(kept) = kept else {
            let what = model.map_or_else(|| "tables without a model".to_owned(), |model| format!("model {model}"));
            return Err(Status::not_found(format!("job {job} has no {what} in which this site has a part")));
        };
        let held = match store.access(job).await.map_err(|e| internal(&e))? {
            Access::Released => None,
            Access::NotReady => Some("the job has not ended with success".to_owned()),
            Access::NotChosen => Some("settings of the study still run, or another one is the best".to_owned()),
            Access::Held(sites) => {
                let names = self.names_of(&sites).await.map_err(|e| internal(&e))?;
                Some(format!("the results are held until the people of {names} release them"))
            }
        };
        if let Some(held) = held {
            return Err(Status::failed_precondition(held));
        }
        let Some(card) = kept else {
            return Err(Status::unavailable("the card is not made yet"));
        };
        let card = for_site(&card, site).map_err(|e| internal(&e))?;
        if card.len() > limits::CARD_BYTES {
            let words =
                format!("the card has {} bytes, more than {} (limit CARD_BYTES)", card.len(), limits::CARD_BYTES);
            return Err(Status::failed_precondition(words));
        }
        self.given(site, job, model, "its card, to a site that took part").await?;
        Ok(card)
    }

    /// The card of a job that ended with tables of regressions and no model, as a Cox regression does; of any other there is
    /// none. It is made when it is asked for, of what is kept anyway.
    async fn tables(&self, job: JobId) -> Result<Option<String>, Error> {
        let store = &self.register.store;
        let row = store.job(job).await?.filter(|row| row.state == JobState::Success && row.model.is_none());
        let fits = store.fits(job).await?;
        let (Some(row), Some(task)) = (row, fits.first().map(|fit| fit.task.clone())) else { return Ok(None) };
        let study = store.study(row.study).await?.ok_or_else(|| Error::corrupt("study", "it is gone"))?.signed()?;
        let plan = study.document.run(row.setting).map_err(|e| Error::corrupt("study", e))?;
        let terms = &study.document.terms;
        let checkpoint = {
            let mut connection = store.read().await?;
            Ledger::on(&mut *connection).own_checkpoint(self.federation()).await?
        };
        let columns = plan::columns_read(&plan).into_iter().filter(|column| *column != plan.data.subject);
        let card = Card {
            model: None,
            notice: NOTICE.to_owned(),
            title: terms.title.clone(),
            purpose: terms.purpose.clone(),
            requester: format!("{}, {}", terms.requester.name, terms.requester.organisation),
            recipients: terms.recipients.clone(),
            retention: terms.retention.clone(),
            columns: columns.collect(),
            parties: self.parties(job).await?,
            privacy: protection(&plan, &task),
            metrics: Vec::new(),
            fits,
            tensors: Vec::new(),
            strategy: String::new(),
            kept_at_sites: Vec::new(),
            lineage: Lineage {
                study: row.study,
                study_digest: study.document.digest(),
                plan: plan.digest(),
                job,
                rounds: store.published_rounds(job, &task).await?,
                task,
                early_stop: None,
                initial: None,
                at: row.ended.unwrap_or(row.created),
                checkpoint: checkpoint.map(|c| c.checkpoint().text()).unwrap_or_default(),
                sweep: None,
            },
        };
        serde_json::to_string(&card).map(Some).map_err(|e| Error::corrupt("card", e))
    }

    /// Sites that took part in a job.
    async fn parties(&self, job: JobId) -> Result<Vec<CardParty>, Error> {
        let store = &self.register.store;
        let mut parties = Vec::new();
        for (site, rounds) in store.took_part(job, None).await? {
            let known = store.site(site).await?;
            let (name, organisation) = known.map(|s| (s.name, s.organisation)).unwrap_or_default();
            parties.push(CardParty { site, name, organisation, rounds });
        }
        Ok(parties)
    }

    /// Enters that a site takes something of a job's results. If that cannot be written, nothing is given out. A site may
    /// ask as often as it likes, so that what it repeats is counted.
    pub(super) async fn given(
        &self,
        site: SiteId,
        job: JobId,
        model: Option<Digest>,
        what: &str,
    ) -> Result<(), Status> {
        let written = async {
            let register = &self.register;
            let study = register.store.job(job).await?.map(|job| job.study);
            let entry = register.audit.entry(self.now(), Actor::peer(site), Action::ModelExported);
            let entry = match model {
                Some(model) => entry.object(ObjectKind::Model, model, Some(model)),
                None => entry.object(ObjectKind::Job, job, None),
            };
            let mut entry = entry.purpose(Purpose { study, job: Some(job), approval: None });
            entry.reason = Some(what.to_owned());
            // Each by itself: who asks for the card again and again must not hide that it took the file.
            let about = format!("{job}: {what}");
            let Some(entry) = register.audit.limited(site, about, entry) else { return Ok(()) };
            let mut tx = register.store.begin("give_model").await?;
            register.audit.record(&mut tx, &[entry]).await?;
            tx.commit().await
        };
        written.await.map_err(|error: Error| internal(&error))
    }

    async fn names_of(&self, sites: &[SiteId]) -> Result<String, Error> {
        let mut names = Vec::with_capacity(sites.len());
        for site in sites {
            names.push(self.register.store.site(*site).await?.map(|known| known.name).unwrap_or_default());
        }
        Ok(names.join(", "))
    }
}

/// A card as it was kept, as one site gets it.
fn for_site(card: &str, site: SiteId) -> Result<Vec<u8>, Error> {
    let card: Card = serde_json::from_str(card).map_err(|e| Error::corrupt("card", e))?;
    serde_json::to_vec_pretty(&card.for_site(site)).map_err(|e| Error::corrupt("card", e))
}
