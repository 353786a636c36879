//! Models: list, card, download.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Result, bail};
use hospes_protocol::id::Digest;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::arguments::ModelCommand;
use crate::client::{Client, Failure, FailureKind};
use crate::fit;
use crate::output::{self, NewFile};
use crate::sweep;

/// `model …`
pub(crate) async fn model(client: &Client, command: ModelCommand, json: bool) -> Result<()> {
    match command {
        ModelCommand::List => {
            let mut models = client.get("models").await?;
            if json {
                return output::json(&models);
            }
            for model in models.as_array_mut().into_iter().flatten() {
                model["chosen"] = json!(sweep::chosen(model));
            }
            let columns = [
                ("Model", "model"),
                ("Study", "title"),
                ("Task", "task"),
                ("Round", "round"),
                ("Setting", "chosen"),
                ("Bytes", "bytes"),
                ("Released", "released"),
                ("Waiting for", "waiting_for"),
            ];
            output::table(&columns, &models);
            Ok(())
        }
        ModelCommand::Card { model } => {
            let digest = find(client, &model).await?;
            let card = client.get(&format!("models/{digest}/card")).await?;
            if json {
                return output::json(&card);
            }
            tell(&card);
            Ok(())
        }
        ModelCommand::Get { model, output } => get(client, &model, &output, json).await,
    }
}

async fn get(client: &Client, typed: &str, path: &Path, as_json: bool) -> Result<()> {
    let digest = find(client, typed).await?;
    let file = NewFile::create(path)?;
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let mut writer = Hashing { file, hash: Sha256::new_with_prefix(b"hospes/model/v1\0") };
    let result = client
        .download(&format!("models/{digest}/file"), &mut writer, &mut |done, length| {
            bar.set_length(length.unwrap_or(done));
            bar.set_position(done);
        })
        .await;
    bar.finish_and_clear();
    result?;
    let found = Digest::from_bytes(writer.hash.finalize().into()).to_string();
    if found != digest {
        let words = format!("what came is not model {digest}: its digest is {found}; try again");
        bail!(Failure::new(FailureKind::NotVerified, words));
    }
    writer.file.keep()?;
    let words = format!("Model {digest} was written to {}.", path.display());
    output::done(&json!({ "model": digest, "file": path }), &words, as_json)
}

/// Writes and hashes.
struct Hashing {
    file: NewFile,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The one model whose digest begins with what was typed.
async fn find(client: &Client, typed: &str) -> Result<String> {
    let models = client.get("models").await?;
    let digests = models.as_array().into_iter().flatten().filter_map(|m: &Value| m["model"].as_str());
    let mut fits: Vec<&str> = digests.filter(|digest| digest.starts_with(typed)).collect();
    fits.sort_unstable();
    fits.dedup();
    match fits.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => {
            bail!(Failure::new(FailureKind::Refused, format!("there is no model '{typed}'; see hospesctl model list")))
        }
        _ => bail!(Failure::new(FailureKind::Usage, format!("'{typed}' fits several models; type more of it"))),
    }
}

fn tell(card: &Value) {
    output::fields(
        &[
            ("Model", "model"),
            ("Study", "title"),
            ("Purpose", "purpose"),
            ("Requester", "requester"),
            ("Privacy", "privacy"),
        ],
        card,
    );
    let texts = |list: &Value| list.as_array().into_iter().flatten().map(output::text).collect::<Vec<_>>().join(", ");
    output::say(&format!("Columns: {}", texts(&card["columns"])));
    output::say("Sites whose updates are in it:");
    output::table(&[("Name", "name"), ("Organisation", "organisation"), ("Rounds", "rounds")], &card["parties"]);
    let mut names = std::collections::BTreeMap::new();
    for party in card["parties"].as_array().into_iter().flatten() {
        names.insert(output::text(&party["site"]), output::text(&party["name"]));
    }
    let mut metrics = card["metrics"].clone();
    for row in metrics.as_array_mut().into_iter().flatten() {
        let site = output::text(&row["site"]);
        row["where"] = json!(if site.is_empty() { "all together" } else { names.get(&site).unwrap_or(&site).as_str() });
        round_off(row);
    }
    if card["fits"].as_array().is_some_and(|fits| !fits.is_empty()) {
        fit::tell(&card["fits"]);
    }
    output::say("Figures:");
    output::table(
        &[
            ("Task", "task"),
            ("Site", "where"),
            ("Rows", "n"),
            ("Accuracy", "accuracy"),
            ("AUC", "auc"),
            ("Brier", "brier"),
            ("Loss", "loss"),
            ("Withheld", "withheld"),
        ],
        &metrics,
    );
    further(&metrics);
    subgroups(&metrics);
    let lineage = &card["lineage"];
    output::fields(&[("Plan", "plan"), ("Study", "study"), ("Job", "job"), ("Task", "task"), ("Made", "at")], lineage);
    if let Some(stop) = lineage["early_stop"].as_object() {
        let part = |key: &str| stop.get(key).map(output::text).unwrap_or_default();
        output::say(&format!(
            "Training ended early, after {} of {} rounds, with the model of round {}: its loss on the rows for validation, {}, \
             was the best.",
            part("rounds"),
            part("planned"),
            part("round"),
            part("loss")
        ));
    }
    sweep::tell_choice(&lineage["sweep"]);
    let rounds = lineage["rounds"].as_array().map_or(0, Vec::len);
    output::say(&format!(
        "{rounds} rounds; everything with --json. Research use only, not for diagnosis or treatment."
    ));
}

/// Four digits are what anybody reads.
fn round_off(row: &mut Value) {
    let further = ["average_precision", "ks", "macro_f1", "rmse", "mae", "r_squared", "c_index"];
    for figure in ["accuracy", "loss", "brier", "auc"].into_iter().chain(further) {
        if let Some(value) = row[figure].as_f64() {
            row[figure] = json!(format!("{value:.4}"));
        }
    }
    for figure in ["calibration_slope", "calibration_intercept"] {
        if let Some(value) = row[figure].as_f64() {
            let error = row[format!("{figure}_error")].as_f64().unwrap_or_default();
            row[figure] = json!(format!("{value:.3} ± {error:.3}"));
        }
    }
}

/// The subgroups of each evaluation, where the plan has any.
fn subgroups(metrics: &Value) {
    let mut rows = Vec::new();
    for row in metrics.as_array().into_iter().flatten() {
        for subgroup in row["subgroups"].as_array().into_iter().flatten() {
            let mut line = subgroup["metrics"].clone();
            round_off(&mut line);
            line["where"] = row["where"].clone();
            line["which"] =
                json!(format!("{} = {}", output::text(&subgroup["column"]), output::text(&subgroup["code"])));
            line["sites"] = subgroup["sites"].clone();
            if line["n"].is_null() {
                line["n"] = json!("withheld");
            }
            rows.push(line);
        }
    }
    if rows.is_empty() {
        return;
    }
    output::say("Subgroups (of all sites together: of those that show it):");
    let rows = Value::Array(rows);
    let fixed = [("Task", "task"), ("Site", "where"), ("Subgroup", "which"), ("Sites", "sites"), ("Rows", "n")];
    let some = [("Accuracy", "accuracy"), ("AUC", "auc"), ("Brier", "brier"), ("Loss", "loss")];
    output::table(&[&fixed[..], &there(&some, &rows), &there(&FURTHER, &rows)].concat(), &rows);
}

/// Figures that only some labels have, by the titles of their columns.
const FURTHER: [(&str, &str); 9] = [
    ("Average precision", "average_precision"),
    ("KS", "ks"),
    ("Calibration slope ± SE", "calibration_slope"),
    ("intercept ± SE", "calibration_intercept"),
    ("Macro F1", "macro_f1"),
    ("RMSE", "rmse"),
    ("MAE", "mae"),
    ("R²", "r_squared"),
    ("C-index", "c_index"),
];

/// Those that any row has.
fn there(all: &[(&'static str, &'static str)], rows: &Value) -> Vec<(&'static str, &'static str)> {
    let has = |key: &str| rows.as_array().into_iter().flatten().any(|row| !row[key].is_null());
    all.iter().copied().filter(|(_, key)| has(key)).collect()
}

/// Figures that only some labels have: a column for each that any row has.
fn further(metrics: &Value) {
    let columns = there(&FURTHER, metrics);
    if !columns.is_empty() {
        output::table(&[&[("Task", "task"), ("Site", "where")], columns.as_slice()].concat(), metrics);
    }
}
