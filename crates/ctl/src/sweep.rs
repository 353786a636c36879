//! Studies with many settings: how far they are, and which is the best.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use hospes_protocol::study::Sweep;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::client::{Failure, FailureKind};
use crate::output;

/// States in which nothing more happens.
const ENDED: [&str; 3] = ["success", "failed", "cancelled"];

/// What a study's settings are, in one sentence.
pub(crate) fn sentence(sweep: &Sweep) -> String {
    let ranges: Vec<String> = sweep
        .ranges()
        .iter()
        .map(|(place, range)| format!("{place} lies between {} and {}", range.min, range.max))
        .collect();
    format!(
        "It asks for {} runs, one for each setting, in which {}; at most {} at a time. The model with the {} {} in '{}' is \
         released.",
        sweep.len(),
        ranges.join(", "),
        sweep.parallel,
        sweep.rank.direction.as_str(),
        sweep.rank.metric.as_str(),
        sweep.rank.task
    )
}

/// The settings of a study as the coordinator tells them, if it has many.
pub(crate) fn of(study: &Value) -> Option<&Value> {
    study["sweep"].is_object().then(|| &study["sweep"])
}

/// Whether nothing more happens.
pub(crate) fn is_over(sweep: &Value) -> bool {
    ENDED.contains(&output::text(&sweep["state"]).as_str())
}

/// Shows how many settings are through.
pub(crate) fn show(bar: &ProgressBar, sweep: &Value) {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for setting in sweep["settings"].as_array().into_iter().flatten() {
        *counts.entry(output::text(&setting["state"])).or_default() += 1;
    }
    let done = ["success", "failed", "timeout", "cancelled"].iter().filter_map(|state| counts.get(*state)).sum();
    bar.set_length(counts.values().sum());
    bar.set_position(done);
    let words: Vec<String> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    bar.set_message(format!("settings: {}", words.join(", ")));
}

/// Tells the settings with their figures.
pub(crate) fn tell(sweep: &Value) {
    let metric = output::text(&sweep["metric"]);
    output::say(&format!(
        "Settings ({}), best by the {} {metric}:",
        output::text(&sweep["state"]),
        output::text(&sweep["direction"])
    ));
    let line = |setting: &Value| {
        let values = setting["values"].as_object().into_iter().flatten();
        let values: Vec<String> = values.map(|(place, value)| format!("{} {value}", brief(place))).collect();
        json!({
            "setting": setting["setting"],
            "values": values.join(", "),
            "state": setting["state"],
            "figure": setting["figure"].as_f64().map(|figure| format!("{figure:.4}")),
            "best": if setting["best"] == true { "best" } else { "" },
            "reason": setting["reason"],
        })
    };
    let lines: Vec<Value> = sweep["settings"].as_array().into_iter().flatten().map(line).collect();
    let columns = [
        ("Setting", "setting"),
        ("Values", "values"),
        ("State", "state"),
        (metric.as_str(), "figure"),
        ("", "best"),
        ("Reason", "reason"),
    ];
    output::table(&columns, &Value::Array(lines));
    if sweep["best"].is_number() && sweep["released"] == false {
        output::say("The figures are shown when every site that took part has released the results.");
    }
}

/// Which setting a model in a list comes from: `7, the best: 0.8750`.
pub(crate) fn chosen(model: &Value) -> String {
    let Some(setting) = model["setting"].as_u64() else { return String::new() };
    match (model["best"] == true, model["figure"].as_f64()) {
        (true, Some(figure)) => format!("{setting}, the best: {figure:.4}"),
        (true, None) => format!("{setting}, the best"),
        (false, _) => setting.to_string(),
    }
}

/// What a card says about the search of which its model is the best.
pub(crate) fn tell_choice(sweep: &Value) {
    if !sweep.is_object() {
        return;
    }
    let number = |field: &str| output::text(&sweep[field]);
    let rank = |field: &str| output::text(&sweep["rank"][field]);
    let figure = sweep["figure"].as_f64().map(|figure| format!(" ({figure:.4})")).unwrap_or_default();
    output::say(&format!(
        "Setting {} of {}: of {} that gave a model and {} that could be compared it has the {} {}{figure} in '{}'.",
        number("setting"),
        number("settings"),
        number("done"),
        number("compared"),
        rank("direction"),
        rank("metric"),
        rank("task")
    ));
    for (place, value) in sweep["values"].as_object().into_iter().flatten() {
        output::say(&format!("  {} = {value}", output::visible(place)));
    }
    output::say(&output::text(&sweep["note"]));
}

/// How a study with many settings ended.
///
/// # Errors
/// [`Failure`] if no setting was chosen.
pub(crate) fn outcome(sweep: &Value) -> Result<()> {
    match (output::text(&sweep["state"]).as_str(), output::text(&sweep["reason"])) {
        ("success", _) => Ok(()),
        (state, reason) if reason.is_empty() => {
            bail!(Failure::new(FailureKind::Refused, format!("the settings ended as {state}")))
        }
        (state, reason) => {
            bail!(Failure::new(FailureKind::Refused, format!("the settings ended as {state}: {reason}")))
        }
    }
}

/// The last parts of a place: `sgd.lr` for `tasks.train.params.optimizer.sgd.lr`.
fn brief(place: &str) -> String {
    let parts: Vec<&str> = place.split('.').collect();
    output::visible(&parts[parts.len().saturating_sub(2)..].join("."))
}
