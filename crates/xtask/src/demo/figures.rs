//! Figures of the demo: read from the model's card, set beside the published ones.

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use serde_json::Value;

use super::cast::{HOSPITALS, PUBLISHED_FEDERATED, PUBLISHED_POOLED, TOLERANCE_ALONE, TOLERANCE_POOLED};

/// What the same rows give without a federation: trained in one place, or at each hospital alone. Simulated, because
/// nobody could do it: every model is judged on the test rows of all.
pub(crate) struct Baseline {
    /// Trained on the rows of all.
    pub(crate) pooled: f64,
    /// Trained by each hospital alone.
    pub(crate) alone: Vec<f64>,
}

impl Baseline {
    /// Reads what `hospes-sim baseline --json` printed.
    ///
    /// # Errors
    /// If a row is missing.
    pub(crate) fn read(answer: &Value) -> Result<Self> {
        let of = |method: &str| {
            let rows = answer["rows"].as_array().context("the simulation has no rows")?;
            let row = rows.iter().find(|row| row["method"] == method);
            let figure = row.and_then(|row| row["all_scaled_together"]["mean"].as_f64());
            figure.with_context(|| format!("the simulation has no row '{method}'"))
        };
        let alone = HOSPITALS.iter().map(|h| of(&format!("{} alone", h.name))).collect::<Result<Vec<f64>>>()?;
        Ok(Self { pooled: of("pooled")?, alone })
    }

    /// What lies outside the published figures by more than the tolerance, in words.
    pub(crate) fn misses(&self) -> Vec<String> {
        let pooled = ("pooled", self.pooled, PUBLISHED_POOLED.0, TOLERANCE_POOLED);
        let alone =
            HOSPITALS.iter().zip(&self.alone).map(|(h, value)| (h.name, *value, h.published_alone, TOLERANCE_ALONE));
        let misses =
            std::iter::once(pooled).chain(alone).filter(|(_, ours, theirs, most)| (ours - theirs).abs() > *most);
        misses.map(|(name, ours, theirs, _)| format!("{name}: {} instead of {}", shown(ours), shown(theirs))).collect()
    }
}

/// Accuracy of one model on one hospital's test rows, or on those of all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Accuracy {
    /// Test rows.
    pub(crate) rows: f64,
    /// Fraction that was predicted rightly.
    pub(crate) value: f64,
}

/// What the demo measured.
pub(crate) struct Figures {
    /// For each hospital, its own model on its own test rows.
    pub(crate) alone: Vec<Accuracy>,
    /// For each hospital, the federated model on its test rows.
    pub(crate) federated: Vec<Accuracy>,
}

/// The federated model, judged again by `hospes-sim` on the example's files.
pub(crate) struct Assessment {
    /// On each hospital's test rows, as that hospital scales them.
    pub(crate) each: Vec<f64>,
    /// On the test rows of all, scaled together, as the published figure was made.
    pub(crate) together: f64,
}

impl Figures {
    /// Reads a model's card.
    ///
    /// # Errors
    /// If a figure is missing, or was made from other rows than the published ones.
    pub(crate) fn of_card(card: &Value) -> Result<Self> {
        let site = |name: &str| {
            let parties = card["parties"].as_array().context("the card has no parties")?;
            let party =
                parties.iter().find(|p| p["name"] == name).with_context(|| format!("{name} is not on the card"))?;
            Ok::<Value, anyhow::Error>(party["site"].clone())
        };
        let each = |task: &str| {
            HOSPITALS.iter().map(|h| accuracy(card, task, &site(h.name)?)).collect::<Result<Vec<Accuracy>>>()
        };
        let (alone, federated) = (each("alone")?, each("eval")?);
        for (hospital, figure) in HOSPITALS.iter().zip(&federated) {
            let expected = f64::from(hospital.test_rows);
            ensure!(figure.rows == expected, "{} used {} test rows, not {expected}", hospital.name, figure.rows);
        }
        Ok(Self { alone, federated })
    }

    /// Whether what the hospitals reported is what the model really does on their rows.
    ///
    /// # Errors
    /// Names the first hospital for which it is not.
    pub(crate) fn confirm(&self, assessment: &Assessment) -> Result<()> {
        for ((hospital, reported), found) in HOSPITALS.iter().zip(&self.federated).zip(&assessment.each) {
            let differs = (reported.value - found).abs() > 1e-9;
            ensure!(!differs, "{} reported {}, its rows give {found}", hospital.name, reported.value);
        }
        Ok(())
    }
}

impl Assessment {
    /// Reads what `hospes-sim assess --json` printed.
    ///
    /// # Errors
    /// If a figure is missing.
    pub(crate) fn read(answer: &Value) -> Result<Self> {
        let each = answer["accuracy"].as_array().context("the assessment has no accuracy")?;
        let each: Vec<f64> = each.iter().filter_map(Value::as_f64).collect();
        ensure!(each.len() == HOSPITALS.len(), "the assessment has {} figures", each.len());
        let together = answer["all_scaled_together"].as_f64().context("the assessment has no figure for all")?;
        Ok(Self { each, together })
    }

    /// Whether the figure lies within the published spread.
    pub(crate) fn is_as_published(&self) -> bool {
        (self.together - PUBLISHED_FEDERATED.0).abs() <= PUBLISHED_FEDERATED.1
    }
}

fn accuracy(card: &Value, task: &str, site: &Value) -> Result<Accuracy> {
    let metrics = card["metrics"].as_array().context("the card has no metrics")?;
    let found = metrics.iter().find(|m| m["task"] == task && m["site"] == *site);
    let found = found.with_context(|| format!("the card has no figures of '{task}' for {site}"))?;
    let number = |key: &str| found[key].as_f64().with_context(|| format!("'{task}' has no {key} for {site}"));
    Ok(Accuracy { rows: number("n")?, value: number("accuracy")? })
}

/// A line under the head and one at each end.
const LINES: TableStyle = {
    let line = LineStyle::none().fill('─').junction('─');
    TableStyle::new().top_border(line).header_separator(line).bottom_border(line)
};

/// A table whose columns after the first are numbers.
pub(crate) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(LINES).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// An accuracy as the papers print it.
pub(crate) fn shown(value: f64) -> String {
    format!("{value:.3}").trim_start_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_card_without_a_hospital_is_named() {
        let card = json!({ "parties": [{ "name": "cleveland", "site": "a" }],
            "metrics": [{ "task": "alone", "site": "a", "n": 104.0, "accuracy": 0.75 }] });
        let error = Figures::of_card(&card).err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("hungary is not on the card"));
    }

    #[test]
    fn figures_are_found_by_site_and_confirmed_by_the_assessment() {
        let parties: Vec<Value> =
            HOSPITALS.iter().map(|h| json!({ "name": h.name, "site": format!("id-{}", h.name) })).collect();
        let mut metrics = Vec::new();
        for hospital in &HOSPITALS {
            let site = format!("id-{}", hospital.name);
            for (task, accuracy) in [("eval", 0.7), ("alone", 0.6)] {
                metrics.push(json!({ "task": task, "site": site, "n": hospital.test_rows, "accuracy": accuracy }));
            }
        }
        let figures = Figures::of_card(&json!({ "parties": parties, "metrics": metrics })).unwrap();
        assert_eq!(figures.federated[3], Accuracy { rows: 45.0, value: 0.7 });
        assert_eq!(figures.alone[3], Accuracy { rows: 45.0, value: 0.6 });
        let answer = |last: f64| json!({ "accuracy": [0.7, 0.7, 0.7, last], "all_scaled_together": 0.75 });
        let assessment = Assessment::read(&answer(0.7)).unwrap();
        assert!(assessment.is_as_published() && figures.confirm(&assessment).is_ok());
        let other = figures.confirm(&Assessment::read(&answer(0.71)).unwrap()).unwrap_err();
        assert!(other.to_string().contains("long_beach reported 0.7"));
    }

    #[test]
    fn rows_outside_the_tolerance_are_named() {
        let row = |method: &str, mean: f64| json!({ "method": method, "all_scaled_together": { "mean": mean } });
        let answer = json!({ "rows": [row("pooled", 0.796), row("cleveland alone", 0.79), row("hungary alone", 0.728),
            row("switzerland alone", 0.511), row("long_beach alone", 0.57)] });
        assert_eq!(Baseline::read(&answer).unwrap().misses(), vec!["long_beach: .570 instead of .611"]);
    }

    #[test]
    fn accuracies_are_shown_as_the_papers_print_them() {
        assert_eq!((shown(0.748), shown(1.0)), (".748".to_owned(), "1.000".to_owned()));
    }
}
