//! Models that came of jobs. Card and file are held until every site that took part has released the results, and who
//! takes them stands in the ledger before the first byte goes out.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hospes_ledger::{Action, ObjectKind, Purpose};
use hospes_protocol::id::{Digest, JobId};
use hospes_protocol::limits::CHUNK_BYTES;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Id, Someone};
use super::sweep::figure;
use super::{Answer, Problem};
use crate::enrol::actor;
use crate::serve::Shared;
use crate::store::Caller;
use crate::store::results::{Access, ModelRow, ModelState};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(models)).routes(routes!(card)).routes(routes!(file))
}

/// A model.
#[derive(Serialize, ToSchema)]
struct ModelView {
    /// Digest.
    model: String,
    /// Study.
    study: String,
    /// Title of the study.
    title: String,
    /// Job that made it.
    job: String,
    /// Task that made it.
    task: String,
    /// Round that made it.
    round: u32,
    /// Bytes of its file.
    bytes: u64,
    /// When it was made (RFC 3339).
    at: String,
    /// Which setting of its study it comes from, where that has many.
    setting: Option<u32>,
    /// Whether it is the best of them.
    best: bool,
    /// The figure by which settings are ranked, once the results are released.
    figure: Option<f64>,
    /// Whether every site that took part has released it.
    released: bool,
    /// Names of the sites that have not.
    waiting_for: Vec<String>,
}

/// Final models of studies that the caller may see, newest first.
#[utoipa::path(get, path = "/api/v1/models", tag = "models",
    responses((status = 200, body = Vec<ModelView>), (status = 401, body = Problem)))]
async fn models(State(shared): State<Arc<Shared>>, Someone(caller): Someone) -> Answer<Json<Vec<ModelView>>> {
    let store = &shared.register.store;
    let names = shared.names().await?;
    let mut views = Vec::new();
    for row in store.models().await?.into_iter().take(1_000) {
        let Some(job) = store.job(row.job).await? else { continue };
        let Some(study) = store.study(job.study).await?.filter(|study| caller.may_see(study)) else { continue };
        let access = store.access(row.job).await?;
        let waiting_for = match &access {
            Access::Held(sites) => sites.iter().map(|s| names.get(s).cloned().unwrap_or_default()).collect(),
            Access::Released | Access::NotReady | Access::NotChosen => Vec::new(),
        };
        let released = access == Access::Released;
        views.push(ModelView {
            model: row.model.to_string(),
            study: job.study.to_string(),
            title: study.title,
            job: row.job.to_string(),
            task: row.task,
            round: row.round,
            bytes: row.bytes,
            at: row.at.to_string(),
            setting: job.setting,
            best: job.chosen.is_some(),
            figure: Some(&job).filter(|_| released).and_then(figure),
            released,
            waiting_for,
        });
    }
    Ok(Json(views))
}

/// The card of a model: data, purpose, parties, privacy, figures, lineage.
#[utoipa::path(get, path = "/api/v1/models/{model}/card", tag = "models", params(("model" = String, Path)),
    responses((status = 200, content_type = "application/json", body = Object), (status = 401, body = Problem),
              (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn card(State(shared): State<Arc<Shared>>, Someone(caller): Someone, Id(model): Id<Digest>) -> Answer<Response> {
    let row = shared.released(&caller, model).await?;
    let card = row.card.clone().ok_or_else(|| Problem::not_found(format!("model {model} has no card")))?;
    // It has the figures, which the sites release like the model.
    shared.taken(&caller, row.job, Some(row.model), "its card".into()).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], card).into_response())
}

/// The file of a model (safetensors).
#[utoipa::path(get, path = "/api/v1/models/{model}/file", tag = "models", params(("model" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 401, body = Problem),
              (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn file(State(shared): State<Arc<Shared>>, Someone(caller): Someone, Id(model): Id<Digest>) -> Answer<Response> {
    let row = shared.released(&caller, model).await?;
    let size = shared.models.size(model).await?;
    let size = size.ok_or_else(|| Problem::not_found(format!("the file of model {model} is gone")))?;
    shared.taken(&caller, row.job, Some(row.model), format!("its file, {size} bytes")).await?;
    let models = shared.models.clone();
    let blocks = futures::stream::try_unfold(0u64, move |at| {
        let models = models.clone();
        async move {
            if at >= size {
                return Ok::<_, std::io::Error>(None);
            }
            let end = size.min(at + CHUNK_BYTES as u64);
            let block = models.read(model, at..end).await.map_err(std::io::Error::other)?;
            let next = at + block.len() as u64;
            Ok(Some((block, next)))
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.safetensors\"", model.short())),
    ];
    Ok((headers, Body::from_stream(blocks)).into_response())
}

impl Shared {
    /// The final model under this digest, as the result of a run whose results the caller may have: runs with one seed and one
    /// history make the same model. If there is none, what stands against one of the caller's own.
    async fn released(&self, caller: &Caller, model: Digest) -> Answer<ModelRow> {
        let mut against: Option<Problem> = None;
        let rows = self.register.store.model(model).await?;
        for row in rows.into_iter().filter(|row| row.state == ModelState::Final) {
            match self.may_use(caller, row.job).await {
                Ok(()) => return Ok(row),
                Err(problem) if against.as_ref().is_none_or(Problem::is_forbidden) => against = Some(problem),
                Err(_) => {}
            }
        }
        Err(against.unwrap_or_else(|| Problem::not_found(format!("there is no model {model}"))))
    }

    /// Enters who takes what of a job's results. If that cannot be written, nothing is given out.
    pub(super) async fn taken(&self, caller: &Caller, job: JobId, model: Option<Digest>, what: String) -> Answer<()> {
        let register = &self.register;
        let study = register.store.job(job).await?.map(|job| job.study);
        let entry = register.audit.entry(self.now(), actor(caller), Action::ModelExported);
        let entry = match model {
            Some(model) => entry.object(ObjectKind::Model, model, Some(model)),
            None => entry.object(ObjectKind::Job, job, None),
        };
        let mut entry = entry.purpose(Purpose { study, job: Some(job), approval: None });
        entry.reason = Some(what);
        let mut tx = register.store.begin("export_model").await?;
        register.audit.record(&mut tx, &[entry]).await?;
        Ok(tx.commit().await?)
    }

    /// Whether the caller may have the results of a job.
    pub(super) async fn may_use(&self, caller: &Caller, job: JobId) -> Answer<()> {
        let found = self.register.store.job(job).await?;
        let found = found.ok_or_else(|| Problem::not_found(format!("there is no job {job}")))?;
        self.own(caller, found.study).await?;
        match self.register.store.access(job).await? {
            Access::Released => Ok(()),
            Access::NotChosen => {
                let words =
                    "settings of its study still run, or another one is the best; the best model only is released";
                Err(Problem::conflict(words))
            }
            Access::NotReady => Err(Problem::conflict("the job has not ended with success")),
            Access::Held(sites) => {
                let names = self.names().await?;
                let names: Vec<&str> = sites.iter().filter_map(|s| names.get(s)).map(String::as_str).collect();
                let names = names.join(", ");
                Err(Problem::conflict(format!("the results are held until the people of {names} release them")))
            }
        }
    }
}
