//! Regressions as tables.

use serde_json::{Map, Value, json};

use crate::output;

/// Prints the fits of a run.
pub(crate) fn tell(fits: &Value) {
    let fits = fits.as_array().map(Vec::as_slice).unwrap_or_default();
    if fits.is_empty() {
        return output::say("The run has no regression.");
    }
    for fit in fits {
        output::say(&heading(fit));
        coefficients(fit);
        output::fields(
            &[
                ("Rows", "n"),
                ("Events", "events"),
                ("Log likelihood", "log_likelihood"),
                ("Null model's", "null_log_likelihood"),
                ("AIC", "aic"),
                ("Deviance", "deviance"),
                ("Null deviance", "null_deviance"),
                ("Dispersion", "dispersion"),
                ("Residual degrees", "residual_degrees"),
                ("C-index", "c_index"),
                ("Rounds", "iterations"),
            ],
            &figures(fit),
        );
        baseline(fit);
    }
}

fn heading(fit: &Value) -> String {
    let sites = fit["sites"].as_array().map_or(0, Vec::len);
    let family = match fit["family"].as_str() {
        Some("cox") => "Cox's model, stratified by site".to_owned(),
        Some(family) => format!("{family} regression"),
        None => "regression".to_owned(),
    };
    format!("{}: {family}, on the rows of {sites} sites", output::text(&fit["task"]))
}

fn coefficients(fit: &Value) {
    let percent = fit["confidence"].as_f64().unwrap_or(0.95) * 100.0;
    let ratio = fit["coefficients"].as_array().into_iter().flatten().find_map(|c| c["ratio"]["of"].as_str());
    let rows: Vec<Value> = fit["coefficients"].as_array().into_iter().flatten().map(row).collect();
    let interval = format!("{percent:.0} % interval");
    let ratio_name = ratio.map(|of| format!("{} ratio", title(of)));
    let ratio_interval = format!("its {interval}");
    let statistic = output::text(&fit["statistic"]);
    let mut columns = vec![
        ("Coefficient", "name"),
        ("Estimate", "estimate"),
        ("Error", "error"),
        (statistic.as_str(), "statistic"),
        ("p", "p"),
        (interval.as_str(), "interval"),
    ];
    if let Some(name) = &ratio_name {
        columns.extend([(name.as_str(), "ratio"), (ratio_interval.as_str(), "ratio_interval")]);
    }
    output::table(&columns, &Value::Array(rows));
}

/// One coefficient as a line of text.
fn row(coefficient: &Value) -> Value {
    let four = |value: &Value| value.as_f64().map(|v| format!("{v:.4}")).unwrap_or_default();
    let or_large = |number: String| if number.is_empty() { "> 1e308".to_owned() } else { number };
    let span = |of: &Value| format!("{} to {}", or_large(four(&of["low"])), or_large(four(&of["high"])));
    let ratio = &coefficient["ratio"];
    json!({
        "name": coefficient["name"],
        "estimate": four(&coefficient["estimate"]),
        "error": four(&coefficient["error"]),
        "statistic": coefficient["statistic"].as_f64().map(|v| format!("{v:.3}")),
        "p": coefficient["p"].as_f64().map(p_value),
        "interval": span(coefficient),
        // An effect of one unit that is beyond all numbers: the estimate says it.
        "ratio": if ratio.is_null() { String::new() } else { or_large(four(&ratio["value"])) },
        "ratio_interval": if ratio.is_null() { String::new() } else { span(ratio) },
    })
}

/// As journals print it.
fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

/// The fit's figures, rounded for people.
fn figures(fit: &Value) -> Value {
    let mut figures = Map::new();
    for name in ["log_likelihood", "null_log_likelihood", "aic", "deviance", "null_deviance", "dispersion"] {
        if let Some(value) = fit[name].as_f64() {
            figures.insert(name.to_owned(), json!(format!("{value:.4}")));
        }
    }
    for name in ["n", "events", "residual_degrees", "iterations"] {
        if let Some(value) = fit[name].as_f64() {
            figures.insert(name.to_owned(), json!(format!("{value}")));
        }
    }
    if let Some(index) = fit["concordance"]["index"].as_f64() {
        figures.insert("c_index".to_owned(), json!(format!("{index:.4}")));
    }
    Value::Object(figures)
}

fn baseline(fit: &Value) {
    let intervals = fit["baseline"].as_array().map(Vec::as_slice).unwrap_or_default();
    if intervals.is_empty() {
        return;
    }
    let short = |value: &Value| value.as_f64().map(|v| format!("{v:.6}"));
    let row = |interval: &Value| {
        json!({
            "time": format!("{} to {}", output::text(&interval["from"]), output::text(&interval["to"])),
            "events": interval["events"].as_f64().map(|v| format!("{v}")),
            "hazard": short(&interval["hazard"]),
            "survival": short(&interval["survival"]),
        })
    };
    output::say("Baseline, where every feature is 0:");
    let columns = [("Time", "time"), ("Events", "events"), ("Hazard", "hazard"), ("Survival", "survival")];
    output::table(&columns, &Value::Array(intervals.iter().map(row).collect()));
}

fn title(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coefficient_is_a_line_with_its_ratio() {
        let found = row(&json!({
            "name": "age", "estimate": -0.05, "error": 0.02, "statistic": -2.5, "p": 0.0124, "low": -0.0892, "high": -0.0108,
            "ratio": { "of": "hazard", "value": 0.9512, "low": 0.9147, "high": 0.9893 }
        }));
        assert_eq!((&found["estimate"], &found["p"]), (&json!("-0.0500"), &json!("0.012")));
        assert_eq!(found["ratio_interval"], "0.9147 to 0.9893");
        assert_eq!(row(&json!({ "name": "(intercept)", "p": 1e-9 }))["p"], "< 0.001");
        assert_eq!(
            (title("odds"), heading(&json!({ "task": "fit", "family": "cox", "sites": [1, 2] }))),
            ("Odds".to_owned(), "fit: Cox's model, stratified by site, on the rows of 2 sites".to_owned())
        );
    }
}
