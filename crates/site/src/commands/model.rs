//! Released models: fetched with their cards, shown, written to files, and used on this site's data.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::view::{
    CopyState, DatasetView, FitView, ModelCard, ModelCopy, ModelExport, PredictionMade, PredictionOffer, RESEARCH_ONLY,
};
use hospes_protocol::id::JobId;
use serde_json::Value;

use super::{Asking, audit, one_of, study};
use crate::arguments::ModelCommand;
use crate::output;

/// Between two looks at how far the model is.
const LOOK: Duration = Duration::from_millis(500);
/// The same for people who wait: how often they are told, in looks.
const TOLD: u32 = 20;

/// `model …`
pub(crate) async fn model(asking: &mut Asking, command: ModelCommand) -> Result<()> {
    match command {
        ModelCommand::Card { job } => {
            let job = study::job(asking, &job).await?.job;
            let card = fetched(asking, job).await?;
            asking.answer(&card, tell)
        }
        ModelCommand::Export { job, file } => {
            let path = audit::new_file(file)?;
            let card = path.with_extension("card.json");
            let job = study::job(asking, &job).await?.job;
            fetched(asking, job).await?;
            let call = Call::ExportModel { job, path: path.clone(), card: card.clone() };
            let export: ModelExport = asking.ask(&call).await?;
            asking.answer(&export, |export| {
                output::say(&format!("Model {} was written to {}.", export.model, path.display()));
                output::say(&format!("{} bytes, SHA-256 {}; the log has it, too.", export.bytes, export.digest));
                output::say(&format!("Its card is {}.", card.display()));
                output::say(RESEARCH_ONLY);
            })
        }
        ModelCommand::Predict { job, dataset, file } => predict(asking, &job, &dataset, file).await,
    }
}

async fn predict(asking: &mut Asking, job: &str, dataset: &str, file: PathBuf) -> Result<()> {
    let path = audit::new_file(file)?;
    let job = study::job(asking, job).await?.job;
    let all: Vec<DatasetView> = asking.ask(&Call::Datasets {}).await?;
    let dataset = one_of("dataset", dataset, &all, |d| vec![d.name.clone(), d.id.to_string()])?;
    let offer: PredictionOffer = asking.ask(&Call::Prediction { job }).await?;
    // What the policy does not allow is refused, and entered in the log, before anybody is asked for a model.
    if offer.allowed {
        fetched(asking, job).await?;
    }
    let call = Call::Predict { job, dataset: dataset.id, path: path.clone() };
    let made: PredictionMade = asking.ask(&call).await?;
    asking.answer(&made, |made| {
        output::say(&made.notice);
        output::say(&format!("Purpose of the study: {}", made.purpose));
        output::say(&format!(
            "What the model {} gives for {} rows of '{}' was written to {}.",
            made.model,
            made.rows,
            dataset.name,
            path.display()
        ));
        if made.incomplete > 0 {
            output::say(&format!("{} rows lack a value that it needs, and have no output.", made.incomplete));
        }
        if made.opted_out > 0 {
            output::say(&format!("{} rows of people who opted out are not in it.", made.opted_out));
        }
        if made.opted_out_since > 0 {
            output::say(&format!(
                "{} patients opted out since this site trained the model; by what columns are scaled or filled was \
                 learned again without them.",
                made.opted_out_since
            ));
        }
        output::say(&format!("{} bytes, SHA-256 {}; the log has it, too.", made.bytes, made.digest));
    })
}

/// The card, when card and model are here. Whoever stops waiting may ask again: what is under way goes on.
async fn fetched(asking: &mut Asking, job: JobId) -> Result<ModelCard> {
    let mut asked = false;
    let mut looks = 0u32;
    loop {
        let copy: ModelCopy = asking.ask(&Call::ModelCopy { job }).await?;
        match (copy.state, copy.card) {
            (CopyState::Here, Some(card)) => return Ok(card),
            (CopyState::Failed, _) if asked => {
                let reason = copy.reason.unwrap_or_default();
                bail!(Fault::new(FaultCode::State, format!("the model did not come: {reason}")));
            }
            (CopyState::None | CopyState::Failed | CopyState::Here, _) if !asked => {
                asking.ask::<Value>(&Call::FetchModel { job }).await?;
                asked = true;
            }
            (CopyState::None, _) => bail!(Fault::new(FaultCode::State, "somebody stopped the fetching of the model")),
            _ => {
                asked = true;
                if looks.is_multiple_of(TOLD) {
                    wait_words(copy.moved);
                }
                looks = looks.saturating_add(1);
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

fn wait_words(moved: Option<(u64, u64)>) {
    match moved {
        Some((so_far, total)) => output::complain(&format!("the model is on its way: {so_far} of {total} bytes")),
        None => output::complain("waiting for the coordinator"),
    }
}

fn tell(card: &ModelCard) {
    let or_not = |text: &str| if text.is_empty() { "not stated".to_owned() } else { text.to_owned() };
    output::say(RESEARCH_ONLY);
    for (name, value) in [
        ("Model", card.model.map_or_else(|| "none".to_owned(), |model| model.to_string())),
        ("Study", card.title.clone()),
        ("Purpose", card.purpose.clone()),
        ("Requester", card.requester.clone()),
        ("Recipients", or_not(&card.recipients.join("; "))),
        ("Kept and withdrawn", or_not(card.retention.as_deref().unwrap_or_default())),
        ("Columns", card.columns.join(", ")),
        ("Made", output::moment(card.at)),
        ("Trained by", format!("{}, {} rounds", card.task, card.rounds)),
        ("Strategy", or_not(&card.strategy)),
        ("Privacy", or_not(&card.privacy)),
    ] {
        output::say(&format!("{name}: {value}"));
    }
    if !card.kept_at_sites.is_empty() {
        let tensors = card.kept_at_sites.join(", ");
        output::say(&format!("It does not work without layers that each site has for itself: {tensors}"));
    }
    output::say("Sites whose updates are in it:");
    let party = |p: &hospes_party::view::ModelParty| vec![p.name.clone(), p.organisation.clone(), p.rounds.to_string()];
    output::table(&["Name", "Organisation", "Rounds"], card.parties.iter().map(party));
    output::say("Figures:");
    let rows = card.figures.iter().flat_map(|of| {
        let place = if of.here { "this site" } else { "all together" };
        let row = |f: &hospes_party::view::ModelFigure| {
            vec![of.task.clone(), place.to_owned(), f.name.replace('_', " "), format!("{:.4}{}", f.value, surety(f))]
        };
        of.figures.iter().map(row).collect::<Vec<_>>()
    });
    output::table(&["Task", "Where", "Figure", "Value"], rows);
    card.fits.iter().for_each(table);
    if let Some(note) = &card.note {
        output::say(note);
    }
}

/// How sure a figure is, as far as it is known.
fn surety(figure: &hospes_party::view::ModelFigure) -> String {
    match (&figure.interval, figure.bound) {
        (Some(interval), _) => format!(" ({:.4} to {:.4})", interval.low, interval.high),
        (None, Some(bound)) => format!(" (± {bound:.4})"),
        (None, None) => String::new(),
    }
}

/// The table of a regression.
fn table(fit: &FitView) {
    output::say(&format!(
        "Regression '{}' ({}) over {} sites: {} rows, {} events, log likelihood {:.4}, AIC {:.4}, deviance {}, C-index {}, {} \
         rounds, {}.",
        fit.task,
        fit.family,
        fit.sites,
        fit.rows,
        fit.events.map_or_else(|| "no".to_owned(), |events| events.to_string()),
        fit.log_likelihood,
        fit.aic,
        fit.deviance.map_or_else(|| "none".to_owned(), |deviance| format!("{deviance:.4}")),
        fit.c_index.map_or_else(|| "none".to_owned(), |index| format!("{index:.4}")),
        fit.iterations,
        if fit.converged { "converged" } else { "not converged" },
    ));
    let or_none = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
    let row = |c: &hospes_party::view::CoefficientView| {
        let ratio = c.ratio.as_ref();
        vec![
            c.name.clone(),
            format!("{:.4}", c.estimate),
            format!("{:.4}", c.error),
            format!("{:.3e}", c.p),
            format!("{:.4} to {:.4}", c.low, c.high),
            or_none(ratio.and_then(|r| r.value)),
        ]
    };
    // 95 or 99.9: what binary fractions leave is no digit of it.
    let interval = format!("{} % interval", (fit.confidence * 1e5).round() / 1e3);
    output::table(&["Term", "Estimate", "Error", "p", &interval, "Ratio"], fit.coefficients.iter().map(row));
}
