//! What a site gets of the results that it has a part in: the card of the model, and with it leave to download the file.
//! That it took them stands in the ledger before the first byte goes out.

use hospes_ledger::{Action, Actor, ObjectKind, Purpose};
use hospes_protocol::id::{Digest, JobId, SiteId};
use hospes_protocol::limits;
use tonic::Status;

use super::Shared;
use super::grpc::internal;
use crate::Error;
use crate::models::Card;
use crate::store::results::{Access, ModelState};

impl Shared {
    /// The card of a job's model, for a site that has a part in it.
    pub(super) async fn card_for(&self, site: SiteId, job: JobId, model: Digest) -> Result<Vec<u8>, Status> {
        let store = &self.register.store;
        let rows = store.model(model).await.map_err(|e| internal(&e))?;
        let row = rows.into_iter().find(|row| row.job == job && row.state == ModelState::Final);
        let has_part = store.has_part(job, site).await.map_err(|e| internal(&e))?;
        // Who has no part in it does not learn whether there is such a job.
        let Some(row) = row.filter(|_| has_part) else {
            return Err(Status::not_found(format!("job {job} has no model {model} in which this site has a part")));
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
        let Some(card) = row.card else {
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

    /// Enters that a site takes something of a job's results. If that cannot be written, nothing is given out. A site may
    /// ask as often as it likes, so that what it repeats is counted.
    pub(super) async fn given(&self, site: SiteId, job: JobId, model: Digest, what: &str) -> Result<(), Status> {
        let written = async {
            let register = &self.register;
            let study = register.store.job(job).await?.map(|job| job.study);
            let entry = register.audit.entry(self.now(), Actor::peer(site), Action::ModelExported);
            let entry = entry.object(ObjectKind::Model, model, Some(model));
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
