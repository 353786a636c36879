//! Models: list, card, download.

use std::fs::File;
use std::io::Write as _;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::arguments::ModelCommand;
use crate::client::{Client, Failure, FailureKind};
use crate::output;

/// `model …`
pub(crate) async fn model(client: &Client, command: ModelCommand, json: bool) -> Result<()> {
    match command {
        ModelCommand::List => {
            let models = client.get("models").await?;
            if json {
                return output::json(&models);
            }
            let columns = [
                ("Model", "model"),
                ("Study", "study"),
                ("Task", "task"),
                ("Round", "round"),
                ("Bytes", "bytes"),
                ("Released", "released"),
            ];
            output::table(&columns, &models);
            Ok(())
        }
        ModelCommand::Card { model } => {
            let digest = find(client, &model).await?;
            output::json(&client.get(&format!("models/{digest}/card")).await?)
        }
        ModelCommand::Get { model, output } => {
            let digest = find(client, &model).await?;
            let mut file = File::create_new(&output).with_context(|| format!("make {}", output.display()))?;
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
                bar.set_style(style);
            }
            let path = format!("models/{digest}/file");
            let result = client
                .download(&path, &mut file, &mut |done, length| {
                    bar.set_length(length.unwrap_or(done));
                    bar.set_position(done);
                })
                .await;
            bar.finish_and_clear();
            if result.is_err() {
                // A part of a model must not pass for one.
                let _ = std::fs::remove_file(&output);
            }
            result?;
            file.flush()?;
            crate::output::say(&format!("Model {digest} was written to {}.", output.display()));
            Ok(())
        }
    }
}

/// The one model whose digest begins with what was typed.
async fn find(client: &Client, typed: &str) -> Result<String> {
    let models = client.get("models").await?;
    let digests = models.as_array().into_iter().flatten().filter_map(|m: &Value| m["model"].as_str());
    let mut fits: Vec<&str> = digests.filter(|digest| digest.starts_with(typed)).collect();
    fits.dedup();
    match fits.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => bail!(Failure::new(FailureKind::Refused, format!("there is no model '{typed}'"))),
        _ => bail!(Failure::new(FailureKind::Usage, format!("'{typed}' fits several models; type more of it"))),
    }
}
