//! Studies: check, submit, follow.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hospes_protocol::canon::Canonical;
use hospes_protocol::plan;
use hospes_protocol::study::{StudyFile, egress_in_all, read_terms};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::arguments::{StudyCommand, StudySource};
use crate::client::{Client, Failure, FailureKind};
use crate::{fit, output, sweep};

/// How often a study that is watched is asked for.
const GLANCE: Duration = Duration::from_millis(500);
/// How long a coordinator that does not answer is waited for while one watches; it may be starting again.
const ABSENCE: Duration = Duration::from_secs(300);
/// States in which nothing more happens.
const ENDED: [&str; 4] = ["success", "failed", "timeout", "cancelled"];

/// `study …`, but for what needs no coordinator.
pub(crate) async fn study(client: &Client, command: StudyCommand, json: bool) -> Result<()> {
    match command {
        StudyCommand::Validate(source) => validate(&source, json),
        StudyCommand::Schema => Ok(()),
        StudyCommand::Submit(source) => submit(client, &source, json).await,
        StudyCommand::List => {
            let studies = client.get("studies").await?;
            if json {
                return output::json(&studies);
            }
            let columns = [
                ("Study", "study"),
                ("Title", "title"),
                ("State", "state"),
                ("Submitted by", "submitted_by"),
                ("Submitted", "submitted"),
            ];
            output::table(&columns, &studies);
            Ok(())
        }
        StudyCommand::Show { study } => {
            let found = find(client, &study).await?;
            if json {
                return output::json(&found);
            }
            tell(&found);
            Ok(())
        }
        StudyCommand::Watch { study } => watch(client, &study, json).await,
        StudyCommand::Fits { study } => {
            let found = find(client, &study).await?;
            let job = last_job(&found).ok_or_else(|| Failure::new(FailureKind::Refused, "the study has no run yet"))?;
            let fits = client.get(&format!("jobs/{}/fits", output::text(&job["job"]))).await?;
            if json {
                return output::json(&fits);
            }
            fit::tell(&fits);
            Ok(())
        }
        StudyCommand::Start { study } => {
            let answer = client.post(&format!("studies/{}/start", output::segment(&study)), &json!({})).await?;
            output::done(&answer, "A run starts.", json)
        }
        StudyCommand::Withdraw { study, reason } => {
            let path = format!("studies/{}/withdraw", output::segment(&study));
            let answer = client.post(&path, &json!({ "reason": reason })).await?;
            output::done(&answer, "The study is withdrawn.", json)
        }
        StudyCommand::Cancel { study, reason } => {
            let found = find(client, &study).await?;
            if sweep::of(&found).is_some() {
                let words = "the study has many settings, and when one stops the next one runs; `hospesctl study withdraw` \
                             takes the whole study back";
                bail!(Failure::new(FailureKind::Refused, words));
            }
            let running = last_job(&found).filter(|job| !ENDED.contains(&output::text(&job["state"]).as_str()));
            let words = "nothing of this study runs; `hospesctl study withdraw` takes the study itself back";
            let job = running.ok_or_else(|| Failure::new(FailureKind::Refused, words))?;
            let path = format!("jobs/{}/cancel", output::text(&job["job"]));
            let answer = client.post(&path, &json!({ "reason": reason })).await?;
            output::done(&answer, "The run is stopped.", json)
        }
        StudyCommand::Rerun { study } => {
            let found = find(client, &study).await?;
            let job = last_job(&found).ok_or_else(|| Failure::new(FailureKind::Refused, "the study has no run yet"))?;
            let path = format!("jobs/{}/rerun", output::text(&job["job"]));
            output::done(&client.post(&path, &json!({})).await?, "It runs again.", json)
        }
    }
}

/// `study validate`: every mistake at once, and what would leave each site.
pub(crate) fn validate(source: &StudySource, json: bool) -> Result<()> {
    let study = read(source)?;
    let digest = Canonical::new(study.plan.clone())?.digest();
    let columns: Vec<String> = plan::columns_read(&study.plan).into_iter().collect();
    let plan = Canonical::new(study.plan.clone())?;
    let runs = match &study.sweep {
        Some(sweep) => sweep.plans(&plan)?,
        None => vec![plan],
    };
    let egress: Vec<Value> = egress_in_all(&runs)
        .iter()
        .map(|e| json!({ "task": e.task, "name": e.name, "shape": e.shape, "bytes": e.bytes, "times": e.times }))
        .collect();
    if json {
        let name = &study.plan.name;
        return output::json(&json!({
            "valid": true, "plan": name, "digest": digest, "columns": columns, "runs": runs.len(), "egress": egress
        }));
    }
    output::say(&format!("'{}' is valid.", study.terms.title));
    output::say(&format!("It reads {} columns: {}.", columns.len(), columns.join(", ")));
    if let Some(many) = &study.sweep {
        output::say(&sweep::sentence(many));
    }
    output::say(&match runs.len() {
        1 => "What leaves each site in one run:".to_owned(),
        count => format!("What leaves each site in all {count} runs:"),
    });
    let columns = [("Task", "task"), ("What", "name"), ("Shape", "shape"), ("Bytes", "bytes"), ("Times", "times")];
    output::table(&columns, &Value::Array(egress));
    output::say(&format!("Digest of the plan: {digest}"));
    Ok(())
}

/// Reads and checks a study here, so that every mistake is told at once and without a network.
fn read(source: &StudySource) -> Result<StudyFile> {
    let text = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let wrong = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Usage, format!("{} has mistakes:\n{error}", path.display()))
    };
    match (&source.file, &source.terms, &source.plan) {
        (Some(file), ..) => Ok(StudyFile::read(&text(file)?).map_err(|error| wrong(file, &error))?),
        (None, Some(terms), Some(plan)) => Ok(StudyFile {
            terms: read_terms(&text(terms)?).map_err(|error| wrong(terms, &error))?,
            plan: plan::read(&text(plan)?).map_err(|error| wrong(plan, &error))?,
            sweep: None,
        }),
        _ => bail!(Failure::new(FailureKind::Usage, "say where the study is: a file, or --terms and --plan")),
    }
}

async fn submit(client: &Client, source: &StudySource, json: bool) -> Result<()> {
    let study = read(source)?;
    let body = json!({ "terms": study.terms, "plan": study.plan, "sweep": study.sweep });
    let answer = client.post("studies", &body).await?;
    if json {
        return output::json(&answer);
    }
    let id = output::text(&answer["study"]);
    output::say(&format!("Study {id} is offered to its members."));
    output::say(&format!("Follow it with: hospesctl study watch {id}"));
    Ok(())
}

/// Follows a study until its last run ends, or it is withdrawn.
async fn watch(client: &Client, study: &str, json: bool) -> Result<()> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {bar:30} {pos}/{len}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    let mut answered = Instant::now();
    let found = loop {
        match find(client, study).await {
            Ok(found) => {
                answered = Instant::now();
                let state = output::text(&last_job(&found).unwrap_or(&Value::Null)["state"]);
                let is_over = sweep::of(&found).map_or(ENDED.contains(&state.as_str()), sweep::is_over);
                if is_over || found["state"] == "withdrawn" {
                    break found;
                }
                match sweep::of(&found).filter(|many| many["state"] == "running") {
                    Some(many) => sweep::show(&bar, many),
                    None => show(&bar, &found),
                }
            }
            Err(error) if is_absence(&error) && answered.elapsed() < ABSENCE => {
                bar.set_message("the coordinator does not answer; trying again");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(GLANCE).await;
    };
    bar.finish_and_clear();
    if json {
        output::json(&found)?;
    } else {
        tell(&found);
    }
    if let Some(many) = sweep::of(&found).filter(|many| sweep::is_over(many)) {
        return sweep::outcome(many);
    }
    let job = last_job(&found).cloned().unwrap_or_default();
    let words = match (output::text(&job["state"]).as_str(), output::text(&job["reason"])) {
        ("success", _) => return Ok(()),
        ("", _) => "the study was withdrawn before it ran".to_owned(),
        (state, reason) if reason.is_empty() => format!("the run ended as {state}"),
        (state, reason) => format!("the run ended as {state}: {reason}"),
    };
    bail!(Failure::new(FailureKind::Refused, words))
}

fn is_absence(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.kind == FailureKind::NotReachable)
}

fn show(bar: &ProgressBar, study: &Value) {
    let Some(job) = last_job(study) else {
        let waiting: Vec<String> = study["decisions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|d| d["decision"] == "waiting")
            .map(|d| output::text(&d["name"]))
            .collect();
        return bar.set_message(format!("waiting for the decisions of {}", waiting.join(", ")));
    };
    let sum = |field: &str| {
        job["tasks"].as_array().into_iter().flatten().filter_map(|task| task[field].as_u64()).sum::<u64>()
    };
    bar.set_length(sum("rounds"));
    bar.set_position(sum("done"));
    bar.set_message(format!("{} {}", output::text(&job["state"]), output::text(&job["detail"])));
}

async fn find(client: &Client, study: &str) -> Result<Value> {
    client.get(&format!("studies/{}", output::segment(study))).await
}

fn last_job(study: &Value) -> Option<&Value> {
    study["jobs"].as_array()?.last()
}

fn tell(study: &Value) {
    output::say(&format!("{} ({})", output::text(&study["title"]), output::text(&study["state"])));
    output::say("What each site decided:");
    let columns = [("Site", "name"), ("Decision", "decision"), ("Until", "expires"), ("Reason", "reason")];
    output::table(&columns, &study["decisions"]);
    if study["jobs"].as_array().is_none_or(Vec::is_empty) {
        return output::say("It has not run yet.");
    }
    if let Some(many) = sweep::of(study) {
        return sweep::tell(many);
    }
    output::say("Runs:");
    output::table(
        &[("Run", "job"), ("State", "state"), ("Detail", "detail"), ("Reason", "reason"), ("Model", "model")],
        &study["jobs"],
    );
}
