//! The card of a model, or of a run that ended with tables alone: one small answer, asked for until the coordinator gives it or says no.

use std::sync::Arc;

use hospes_protocol::grpc as wire;
use hospes_protocol::id::{Digest, JobId};
use hospes_protocol::limits;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::{Context, Patience, Stop, of_status};
use crate::link::LinkEvent;
use crate::link::session::Line;

/// Gets a card, or learns that it cannot be had.
pub(super) async fn run(context: Arc<Context>, job: JobId, model: Option<Digest>) {
    let seed = model.unwrap_or_else(|| Digest::of(job.to_string().as_bytes()));
    let mut back_off = context.back_off(&seed);
    loop {
        let Some(line) = context.line().await else { return };
        match attempt(&context, &line, job, model).await {
            Ok(card) => return context.tell(LinkEvent::Card { job, model, card }).await,
            Err(Stop::Refused(reason)) => return context.tell(LinkEvent::CardRefused { job, model, reason }).await,
            Err(Stop::Withdrawn) => return,
            Err(Stop::Cut(reason)) => {
                tracing::info!(%job, %reason, "no card yet, it is asked for again");
            }
        }
        sleep(back_off.next()).await;
    }
}

async fn attempt(context: &Context, line: &Line, job: JobId, model: Option<Digest>) -> Result<Vec<u8>, Stop> {
    let patience = Patience::new(context);
    let mut client = line.client.clone();
    // A run that ended with tables has no model, and names none.
    let names_none = model.is_none();
    let model = model.map(|model| model.as_bytes().to_vec()).unwrap_or_default();
    let request = wire::ModelCardRequest { job: job.to_string(), model };
    let work = async { client.model_card(request).await.map_err(|status| said(&status, names_none)) };
    let card = context.watched(line, &patience, work).await?.into_inner().card;
    if card.len() > limits::CARD_BYTES {
        let reason = format!("its card has {} bytes, more than {} (limit CARD_BYTES)", card.len(), limits::CARD_BYTES);
        return Err(Stop::Refused(reason));
    }
    Ok(card)
}

/// A coordinator of an older version knows no such call, or none for a run without a model.
fn said(status: &Status, names_none: bool) -> Stop {
    match status.code() {
        Code::InvalidArgument if names_none => Stop::Refused(
            "the coordinator's version gives no tables to sites yet; ask its operator to update it".into(),
        ),
        Code::Unimplemented => Stop::Refused(
            "the coordinator's version gives no models to sites yet; ask its operator to update it".into(),
        ),
        _ => of_status(status),
    }
}
