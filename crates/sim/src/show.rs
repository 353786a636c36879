//! What a run gave, for people: the figures that the sites let leave, and the tables of fits.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a command was asked for, or why it cannot")]

use comfy_table::Table;
use serde_json::Value;

/// Prints a sentence.
pub(crate) fn say(words: &str) {
    println!("{words}");
}

/// Says what went wrong, beside what was asked for.
pub(crate) fn complain(words: &str) {
    eprintln!("{words}");
}

/// Prints the figures over all sites together of each evaluation, and the coefficients of each fit.
pub(crate) fn figures(seed: u64, card: Option<&Value>, fits: &[Value]) {
    let of_all = |metrics: &&Value| metrics["site"].is_null();
    let evaluations = card.and_then(|card| card["metrics"].as_array()).into_iter().flatten().filter(of_all);
    let mut table = table(&["task", "figure", "value"]);
    for metrics in evaluations {
        let task = metrics["task"].as_str().unwrap_or_default();
        let numbers = metrics.as_object().into_iter().flatten();
        for (name, value) in numbers.filter(|(name, _)| !name.ends_with("_bound")) {
            if let Some(value) = value.as_f64() {
                table.add_row([task.to_owned(), name.replace('_', " "), short(value)]);
            }
        }
    }
    if !table.is_empty() {
        println!("simulation: seed {seed}, all sites together\n{table}");
    }
    for fit in fits {
        let task = fit["task"].as_str().unwrap_or_default();
        println!("simulation: seed {seed}, fit '{task}' on the rows of all sites\n{}", coefficients(fit));
    }
}

/// Prints what the card says of how updates were protected.
pub(crate) fn protection(card: Option<&Value>) {
    if let Some(words) = card.and_then(|card| card["privacy"].as_str()) {
        println!("simulation: {words}");
    }
}

fn coefficients(fit: &Value) -> Table {
    let mut table = table(&["coefficient", "estimate", "error", "p"]);
    for found in fit["coefficients"].as_array().into_iter().flatten() {
        let number = |name: &str| found[name].as_f64().map(short).unwrap_or_default();
        let name = found["name"].as_str().unwrap_or_default().to_owned();
        table.add_row([name, number("estimate"), number("error"), number("p")]);
    }
    table
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(head.to_vec());
    table
}

/// Four digits after the point; whole numbers as they are.
fn short(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.4}") }
}
