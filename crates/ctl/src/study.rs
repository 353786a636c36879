//! Studies: check, submit, follow.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hospes_protocol::study::StudyFile;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::arguments::StudyCommand;
use crate::client::{Client, Failure, FailureKind};
use crate::output;

/// How often a study that is watched is asked for.
const GLANCE: Duration = Duration::from_millis(500);

/// `study …`
pub(crate) async fn study(client: &Client, command: StudyCommand, json: bool) -> Result<()> {
    match command {
        StudyCommand::Validate { file } => {
            let study = read(&file)?;
            if json {
                return output::json(&json!({ "valid": true, "plan": study.plan.name }));
            }
            output::say(&format!("'{}' is valid.", study.terms.title));
            Ok(())
        }
        StudyCommand::Submit { file } => submit(client, &file, json).await,
        StudyCommand::List => {
            let studies = client.get("studies").await?;
            if json {
                return output::json(&studies);
            }
            let columns = [("Study", "study"), ("Title", "title"), ("State", "state"), ("Submitted", "submitted")];
            output::table(&columns, &studies);
            Ok(())
        }
        StudyCommand::Show { study } => {
            let study = client.get(&format!("studies/{study}")).await?;
            if json {
                return output::json(&study);
            }
            tell(&study);
            Ok(())
        }
        StudyCommand::Watch { study } => watch(client, &study, json).await,
        StudyCommand::Start { study } => {
            done(client.post(&format!("studies/{study}/start"), &json!({})).await?, "A run starts.", json)
        }
        StudyCommand::Cancel { study, reason } => {
            let body = json!({ "reason": reason });
            done(client.post(&format!("studies/{study}/withdraw"), &body).await?, "The study is withdrawn.", json)
        }
        StudyCommand::Rerun { study } => {
            let found = client.get(&format!("studies/{study}")).await?;
            let job = last_job(&found).context("the study has no run yet")?;
            let job = output::text(&job["job"]);
            done(client.post(&format!("jobs/{job}/rerun"), &json!({})).await?, "It runs again.", json)
        }
    }
}

fn done(answer: Value, words: &str, json: bool) -> Result<()> {
    if json {
        return output::json(&answer);
    }
    output::say(words);
    Ok(())
}

/// Reads and checks a study file here, so that every mistake is told at once and without a network.
fn read(file: &Path) -> Result<StudyFile> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    StudyFile::read(&text)
        .map_err(|error| Failure::new(FailureKind::Usage, format!("{} has mistakes:\n{error}", file.display())).into())
}

async fn submit(client: &Client, file: &Path, json: bool) -> Result<()> {
    let study = read(file)?;
    let body = json!({ "terms": study.terms, "plan": study.plan });
    let answer = client.post("studies", &body).await?;
    if json {
        return output::json(&answer);
    }
    output::say(&format!("Study {} is offered to its members.", output::text(&answer["study"])));
    output::say("Follow it with: hospesctl study watch STUDY");
    Ok(())
}

/// Follows the last run until it ends.
async fn watch(client: &Client, study: &str, json: bool) -> Result<()> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    loop {
        let found = client.get(&format!("studies/{study}")).await?;
        let job = last_job(&found);
        let state = job.map_or_else(|| output::text(&found["state"]), |job| output::text(&job["state"]));
        let detail = job.map(|job| output::text(&job["detail"])).unwrap_or_default();
        bar.set_message(format!("{state} {detail}"));
        bar.tick();
        let ended = ["success", "failed", "timeout", "cancelled"].contains(&state.as_str());
        if ended || output::text(&found["state"]) == "withdrawn" {
            bar.finish_and_clear();
            if json {
                output::json(&found)?;
            } else {
                tell(&found);
            }
            if state != "success" {
                let reason = job.map(|job| output::text(&job["reason"])).unwrap_or_default();
                bail!(Failure::new(FailureKind::Refused, format!("the run ended as {state}: {reason}")));
            }
            return Ok(());
        }
        tokio::time::sleep(GLANCE).await;
    }
}

fn last_job(study: &Value) -> Option<&Value> {
    study["jobs"].as_array()?.last()
}

fn tell(study: &Value) {
    output::say(&format!("{} ({})", output::text(&study["title"]), output::text(&study["state"])));
    output::say("What each site decided:");
    output::table(&[("Site", "name"), ("Decision", "decision"), ("Reason", "reason")], &study["decisions"]);
    output::say("Runs:");
    output::table(
        &[("Run", "job"), ("State", "state"), ("Detail", "detail"), ("Reason", "reason"), ("Model", "model")],
        &study["jobs"],
    );
}
