//! The tables of regressions: as a card has them, as people see them, and as a file for other programs.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use futures::FutureExt as _;
use hospes_ledger::{Action, ObjectKind};
use hospes_protocol::id::{Digest, JobId, SiteId};
use hospes_protocol::plan::{Coefficients, Component, Family, INTERCEPT, Plan};
use hospes_protocol::text::{in_bytes, shown};
use serde::Deserialize;

use super::Job;
use crate::audit::Because as _;
use crate::datasets::VIEWERS;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::Handle;
use crate::new_file::{Part, free};
use crate::people::Session;
use crate::requests;
use crate::view::{CoefficientView, FitView, RESEARCH_ONLY, RatioView, TableExport};

/// Characters of a name that are shown.
const NAME_CHARS: usize = 200;

/// What is read of a fit. What a newer coordinator says besides is for whoever reads the card.
#[derive(Deserialize)]
pub(super) struct Fit {
    task: String,
    family: String,
    #[serde(default)]
    sites: Vec<SiteId>,
    n: f64,
    events: Option<f64>,
    coefficients: Vec<Coefficient>,
    statistic: String,
    confidence: f64,
    log_likelihood: f64,
    null_log_likelihood: f64,
    aic: f64,
    deviance: Option<f64>,
    null_deviance: Option<f64>,
    concordance: Option<Concordance>,
    iterations: u32,
    converged: bool,
}

#[derive(Deserialize)]
struct Coefficient {
    name: String,
    estimate: f64,
    error: f64,
    statistic: f64,
    p: f64,
    low: f64,
    high: f64,
    ratio: Option<Ratio>,
}

#[derive(Deserialize)]
struct Ratio {
    of: String,
    value: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
}

#[derive(Deserialize)]
struct Concordance {
    index: f64,
}

impl Fit {
    pub(super) fn task(&self) -> &str {
        &self.task
    }

    /// Whether it is of a regression of this plan, of its family.
    pub(super) fn is_of(&self, plan: &Plan) -> bool {
        kind(plan, &self.task).is_some_and(|(family, _)| self.family == family)
    }

    /// Holds it against the plan, and its numbers against what they mean: a table whose terms, levels or intervals are others
    /// would be read, and exported, as that of the study.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), String> {
        let ratio = kind(plan, &self.task).and_then(|(_, ratio)| ratio);
        let names = Coefficients::of(plan, &self.task).map(|of| of.names).unwrap_or_default();
        let all = &self.coefficients;
        let has_ratio = |c: &Coefficient| {
            let of = c.ratio.as_ref().map(|r| r.of.as_str());
            of == ratio.filter(|_| c.name != INTERCEPT)
        };
        let wrong = [
            ("coefficients are not those of the plan", !all.iter().map(|c| &c.name).eq(&names)),
            ("ratios are not those of its family", !all.iter().all(has_ratio)),
            ("statistic is neither z nor t", !matches!(self.statistic.as_str(), "z" | "t")),
            ("level of intervals is no share", !(self.confidence > 0.0 && self.confidence < 1.0)),
            ("count of rows or events is no count", !(is_count(self.n) && self.events.is_none_or(is_count))),
            ("C-index is no share", !self.concordance.as_ref().is_none_or(|c| is_share(c.index))),
            ("errors, p values or intervals cannot be", !all.iter().all(Coefficient::is_sound)),
        ];
        match wrong.iter().find(|(_, wrong)| *wrong) {
            Some((what, _)) => {
                Err(format!("the coordinator's card has a table of '{}' whose {what}", shown(&self.task, NAME_CHARS)))
            }
            None => Ok(()),
        }
    }

    /// The table as people see it.
    pub(super) fn view(&self) -> FitView {
        let name = |text: &str| shown(text, NAME_CHARS);
        let ratio = |r: &Ratio| RatioView { of: name(&r.of), value: r.value, low: r.low, high: r.high };
        let coefficient = |c: &Coefficient| CoefficientView {
            name: name(&c.name),
            estimate: c.estimate,
            error: c.error,
            statistic: c.statistic,
            p: c.p,
            low: c.low,
            high: c.high,
            ratio: c.ratio.as_ref().map(ratio),
        };
        FitView {
            task: name(&self.task),
            family: name(&self.family),
            sites: u32::try_from(self.sites.len()).unwrap_or(u32::MAX),
            rows: self.n,
            events: self.events,
            coefficients: self.coefficients.iter().map(coefficient).collect(),
            statistic: name(&self.statistic),
            confidence: self.confidence,
            log_likelihood: self.log_likelihood,
            null_log_likelihood: self.null_log_likelihood,
            aic: self.aic,
            deviance: self.deviance,
            null_deviance: self.null_deviance,
            c_index: self.concordance.as_ref().map(|c| c.index),
            iterations: self.iterations,
            converged: self.converged,
        }
    }

    /// The table as CSV (RFC 4180, UTF-8): a row for each coefficient, in which the figures of the whole fit are repeated.
    fn csv(&self) -> String {
        let mut out = format!("{}\r\n", COLUMNS.join(","));
        // As Rust writes them in programs: with all digits, and an exponent where they are tiny.
        let number = |value: f64| format!("{value:?}");
        let or_empty = |value: Option<f64>| value.map(number).unwrap_or_default();
        for c in &self.coefficients {
            let ratio = c.ratio.as_ref();
            let cells = [
                cell(&self.task),
                cell(&self.family),
                cell(&c.name),
                number(c.estimate),
                number(c.error),
                cell(&self.statistic),
                number(c.statistic),
                number(c.p),
                number(self.confidence),
                number(c.low),
                number(c.high),
                cell(ratio.map(|r| r.of.as_str()).unwrap_or_default()),
                or_empty(ratio.and_then(|r| r.value)),
                or_empty(ratio.and_then(|r| r.low)),
                or_empty(ratio.and_then(|r| r.high)),
                number(self.n),
                or_empty(self.events),
                self.sites.len().to_string(),
                number(self.log_likelihood),
                number(self.null_log_likelihood),
                number(self.aic),
                or_empty(self.deviance),
                or_empty(self.null_deviance),
                or_empty(self.concordance.as_ref().map(|c| c.index)),
                self.converged.to_string(),
                cell(RESEARCH_ONLY),
            ];
            // Writing to a text cannot fail.
            let _ = write!(out, "{}\r\n", cells.join(","));
        }
        out
    }
}

impl Coefficient {
    /// Whether its numbers can be those of one estimate.
    fn is_sound(&self) -> bool {
        let mut ends = self.ratio.iter().flat_map(|r| [r.value, r.low, r.high]).flatten();
        self.error >= 0.0
            && is_share(self.p)
            && (self.low..=self.high).contains(&self.estimate)
            && ends.all(|end| end >= 0.0)
    }
}

/// What the plan's regressions are called, and their effects as ratios; `None` for a task that is none.
fn kind(plan: &Plan, task: &str) -> Option<(&'static str, Option<&'static str>)> {
    match &plan.tasks.get(task)?.component {
        Component::Glm(glm) => Some(match glm.family {
            Family::Gaussian => ("gaussian", None),
            Family::Binomial => ("binomial", Some("odds")),
            Family::Poisson => ("poisson", Some("rate")),
        }),
        Component::Cox(_) => Some(("cox", Some("hazard"))),
        _ => None,
    }
}

/// What rounding leaves of a share.
const ROUNDING: f64 = 1e-6;
/// A number that counts rows: beyond 2⁵³ not every one is a number of its own.
const ROWS: f64 = 9_007_199_254_740_992.0;

fn is_share(value: f64) -> bool {
    (-ROUNDING..=1.0 + ROUNDING).contains(&value)
}

fn is_count(value: f64) -> bool {
    (0.0..=ROWS).contains(&value)
}

/// Columns of the file, in the order of the cells.
const COLUMNS: [&str; 26] = [
    "task",
    "family",
    "term",
    "estimate",
    "standard_error",
    "statistic",
    "statistic_value",
    "p",
    "confidence",
    "low",
    "high",
    "ratio",
    "ratio_value",
    "ratio_low",
    "ratio_high",
    "rows",
    "events",
    "sites",
    "log_likelihood",
    "null_log_likelihood",
    "aic",
    "deviance",
    "null_deviance",
    "c_index",
    "converged",
    "notice",
];

/// A text as a cell that no spreadsheet takes for a formula (OWASP, CSV injection): names of columns come from outside.
fn cell(text: &str) -> String {
    let text = shown(text, NAME_CHARS).replace('"', "\"\"");
    let sign = |c| matches!(c, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠');
    let guard = if text.trim_start().starts_with(sign) { "'" } else { "" };
    format!("\"{guard}{text}\"")
}

impl Handle {
    /// Writes the table of a released regression to a new file (CSV). The log has an entry about it, with the file's digest,
    /// before it has its name.
    ///
    /// # Disclosure
    /// The table was made of sums over the rows of all sites, and all of them have released it.
    ///
    /// # Errors
    /// [`PartyError::State`] if it is not here or not released; [`PartyError::NotFound`] if the run has no such regression;
    /// [`PartyError::File`], also if the file exists; [`PartyError::DiskFull`], [`PartyError::Denied`].
    pub async fn export_table(
        &self,
        session: &Session,
        job: JobId,
        task: String,
        path: PathBuf,
    ) -> Result<TableExport, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.export_table(s, job, task, path).boxed()).await
    }
}

impl Engine {
    /// Writes the table of a released regression to a new file, once the log has the entry about it.
    async fn export_table(
        &mut self,
        session: Session,
        job: JobId,
        task: String,
        path: PathBuf,
    ) -> Result<TableExport, PartyError> {
        let acting = self.inside(&session, "export the table of a regression", VIEWERS).await?;
        self.held_to(&acting, Action::ModelExported, self.managed.check_export()).await?;
        free(&path)?;
        let mut conn = self.reader().await?;
        let found = Job::read(&mut conn, job).await?;
        // PRIVACY: what is held is shown to nobody, and a card is kept of what was released only.
        let result = found.released_result()?;
        let study = requests::study(&mut conn, found.study).await?.study.digest();
        drop(conn);
        let card = self.kept_card(&found, result, study);
        let card = card.ok_or_else(|| PartyError::state("the table is not here yet; fetch the results first"))?;
        let fit = card
            .fit(&task)
            .ok_or_else(|| PartyError::NotFound(format!("regression '{}' of the run", shown(&task, 100))))?;
        let text = fit.csv();
        let fail = |source| PartyError::file("write", &path, source);
        let part = Part::create(&path).map_err(fail)?;
        part.file().write_all(text.as_bytes()).and_then(|()| part.file().sync_all()).map_err(fail)?;
        let export = TableExport { bytes: text.len() as u64, digest: Digest::of(text.as_bytes()) };
        let entry = self
            .entry(acting.actor(), Action::ModelExported)
            .object(ObjectKind::Job, job, None)
            .object(ObjectKind::Export, "table", Some(export.digest))
            .purpose(found.purpose())
            .because(format!("the table of the regression '{task}', {}", in_bytes(export.bytes)));
        self.name_entered("export the table of a regression", entry, vec![(part, &path)]).await?;
        self.notify(crate::view::Notice::Jobs);
        Ok(export)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(term: &str) -> Fit {
        let site = SiteId::from_bytes([1; 16]);
        let table = serde_json::json!({
            "task": "hazards", "family": "cox", "sites": [site, SiteId::from_bytes([2; 16])], "n": 432.0, "events": 114.0,
            "coefficients": [{
                "name": term, "estimate": -0.5, "error": 0.25, "statistic": -2.0, "p": 0.0455, "low": -0.99, "high": -0.01,
                "ratio": { "of": "hazard", "value": 0.6065, "low": 0.3716, "high": null },
            }],
            "statistic": "z", "confidence": 0.95, "log_likelihood": -505.3, "null_log_likelihood": -520.0, "aic": 1012.6,
            "deviance": null, "null_deviance": null, "pearson": null, "dispersion": null, "residual_degrees": null,
            "concordance": { "index": 0.65, "concordant": 6.0, "discordant": 3.0, "tied": 1.0 }, "baseline": [],
            "iterations": 5, "converged": true, "something_newer": 1,
        });
        serde_json::from_value(table).unwrap()
    }

    #[test]
    fn a_file_has_each_coefficient_with_the_figures_of_the_fit() {
        let csv = fit("age").csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!((lines.len(), lines[0].split(',').count(), lines[1].split(',').count()), (2, 26, 27));
        assert_eq!(
            lines[1],
            "\"hazards\",\"cox\",\"age\",-0.5,0.25,\"z\",-2.0,0.0455,0.95,-0.99,-0.01,\"hazard\",0.6065,0.3716,,432.0,114.0,2,-505.3,\
             -520.0,1012.6,,,0.65,true,\"Research use only, not for diagnosis or treatment.\""
        );
    }

    #[test]
    fn a_name_from_outside_is_no_formula_and_ends_no_cell() {
        for hostile in ["=1+1", "@SUM(A1)", " +1", "＝1"] {
            assert!(cell(hostile).starts_with("\"'"), "{hostile}");
        }
        assert_eq!(cell("a\",\"b"), "\"a\"\",\"\"b\"");
        assert_eq!(cell("a\r\nb"), "\"a\\u{d}\\u{a}b\"");
        assert!(fit("=cmd|' /C calc'!A0").csv().contains("\"'=cmd|' /C calc'!A0\""));
    }

    #[test]
    fn a_table_is_shown_as_it_is() {
        let view = fit("a\u{202E}ge").view();
        assert_eq!((view.sites, view.rows, view.events, view.c_index), (2, 432.0, Some(114.0), Some(0.65)));
        let [age] = view.coefficients.as_slice() else { panic!("{view:?}") };
        assert_eq!((age.name.as_str(), age.low, age.high), ("a\\u{202e}ge", -0.99, -0.01));
        let ratio = age.ratio.as_ref().unwrap();
        assert_eq!((ratio.of.as_str(), ratio.value, ratio.high), ("hazard", Some(0.6065), None));
    }
}
