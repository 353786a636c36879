//! Regressions over sites against those on pooled rows by statsmodels and lifelines, which share nothing with ours.
//!
//! Each site's rows go through permit, cohort and report; the coordinator's own sums and steps make the fit. Everything that
//! a hospital would publish is compared: coefficients, errors, p values, intervals, likelihood, deviance, AIC, C.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use hospes_cohort::Round;
use hospes_cohort::train::{Progress, Pulse};
use hospes_coordinator::aggregate::newton::{Fit, Newton, Next, Regression, Stop};
use hospes_coordinator::aggregate::reduce::{self, Input};
use hospes_protocol::canon::{self, Canonical};
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::{self, Coefficients, Plan};
use hospes_protocol::policy::Policy;
use hospes_sim::{Federation, read_plan};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::heart::SITES;

const ZERO: Timestamp = Timestamp::from_millis(0);
/// Largest relative difference, to 1 at least.
const NEAR: f64 = 1e-6;

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// One regression: the plan's part, and what the other implementation is asked for.
struct Case {
    name: &'static str,
    files: &'static str,
    features: &'static [&'static str],
    label: Value,
    component: Value,
}

const SURVIVAL: [&str; 4] = ["baltimore", "annapolis", "frederick", "salisbury"];

fn cases() -> Vec<Case> {
    let case = |name, features, label, component| Case { name, files: "heart", features, label, component };
    let glm = |params: Value| json!({ "component": "glm", "params": params });
    let ill = || json!({ "column": "num", "positive": "> 0" });
    let both = |family: &str| glm(json!({ "family": family, "offset": "log_exposure", "weights": "weight" }));
    const FINDINGS: &[&str] = &["age", "sex", "trestbps", "thalach", "exang", "oldpeak"];
    const FEW: &[&str] = &["sex", "thalach", "oldpeak"];
    let cox_of = |name, event: &str, time: &str, params: Value| Case {
        name,
        files: "survival",
        features: &["fin", "age", "wexp", "mar", "paro", "prio"],
        label: json!({ "column": event, "positive": "== 1", "time": time }),
        component: json!({ "component": "cox", "params": params }),
    };
    let cox = |name, params: Value| cox_of(name, "arrest", "week", params);
    vec![
        case("binomial", FINDINGS, ill(), glm(json!({ "family": "binomial" }))),
        case("binomial_offset_weights", FEW, ill(), both("binomial")),
        case(
            "gaussian",
            &["age", "sex", "exang", "oldpeak"],
            json!({ "column": "thalach" }),
            glm(json!({ "family": "gaussian" })),
        ),
        case("gaussian_offset_weights", &["age", "sex"], json!({ "column": "thalach" }), both("gaussian")),
        case(
            "gaussian_through_zero",
            FEW,
            json!({ "column": "trestbps" }),
            glm(json!({ "family": "gaussian", "intercept": false })),
        ),
        case("poisson", FINDINGS, json!({ "column": "num" }), glm(json!({ "family": "poisson" }))),
        case("poisson_offset_weights", FEW, json!({ "column": "num" }), both("poisson")),
        cox("cox_efron", json!({ "ties": "efron", "time_grid": { "width": 13.0, "intervals": 4 } })),
        cox("cox_breslow", json!({ "ties": "breslow" })),
        cox_of("cox_from_time_zero", "seen", "late", json!({ "time_grid": { "width": 11.0, "intervals": 4 } })),
    ]
}

impl Case {
    fn sites(&self) -> [&'static str; 4] {
        if self.files == "heart" { SITES } else { SURVIVAL }
    }

    fn plan(&self) -> Plan {
        let subject = if self.files == "heart" { "subject_id" } else { "id" };
        let mut fit = self.component.clone();
        fit["inputs"] = json!({ "train": "rows.data" });
        let plan = json!({
            "schema": "hospes/plan/v1",
            "name": self.name,
            "data": { "subject": subject, "label": self.label, "columns": self.features },
            "tasks": {
                "read": { "component": "reader" },
                "rows": { "component": "imputation", "inputs": { "data": "read" }, "params": { "method": "drop_rows" } },
                "fit": fit,
            },
        });
        read_plan(&plan.to_string()).unwrap()
    }

    /// What the script is asked for.
    fn question(&self, data: &Path) -> Value {
        let params = &self.component["params"];
        let mut question = json!({
            "name": self.name,
            "sites": self.sites().map(|s| (s, self.path(data, s))).into_iter().collect::<BTreeMap<_, _>>(),
            "features": self.features,
            "label": self.label["column"],
            "time": self.label["time"],
            "ties": params["ties"],
            "grid": params["time_grid"],
            "family": params["family"],
            "intercept": params["intercept"].as_bool().unwrap_or(true),
            "offset": params["offset"],
            "weights": params["weights"],
        });
        if self.label["positive"] == "> 0" {
            question["above"] = json!(0);
        }
        question
    }

    fn path(&self, data: &Path, site: &str) -> PathBuf {
        data.join(self.files).join(format!("{site}.csv"))
    }
}

/// The example's files, with a column of exposures and one of weights; those of survival also from the eighth week on, in
/// which some were arrested at time 0 already and others, of every fourth the arrest was not seen, were last heard of then.
fn data() -> &'static Path {
    static DATA: OnceLock<tempfile::TempDir> = OnceLock::new();
    DATA.get_or_init(|| {
        let made = tempfile::tempdir().unwrap();
        for (name, sites) in [("heart", SITES), ("survival", SURVIVAL)] {
            std::fs::create_dir(made.path().join(name)).unwrap();
            for site in sites {
                let file = format!("{name}/{site}.csv");
                let text = std::fs::read_to_string(folder("../../examples").join(&file)).unwrap();
                let widened = text.lines().enumerate().map(|(row, line)| match row {
                    0 => format!("{line},log_exposure,weight,late,seen\n"),
                    _ => {
                        let (exposure, weight) = ((row * 7 % 11) as f64 / 8.0 - 0.5, 0.5 + (row % 5) as f64 / 4.0);
                        let [late, seen] = if name == "survival" { from_week_eight(row, line) } else { [0, 0] };
                        format!("{line},{exposure},{weight},{late},{seen}\n")
                    }
                });
                std::fs::write(made.path().join(&file), widened.collect::<String>()).unwrap();
            }
        }
        made
    })
    .path()
}

/// The week, and whether an arrest was seen in it.
fn from_week_eight(row: usize, line: &str) -> [u32; 2] {
    let cells: Vec<u32> = line.split(',').skip(1).take(2).map(|cell| cell.parse().unwrap()).collect();
    [cells[0].saturating_sub(8), if row.is_multiple_of(4) { 0 } else { cells[1] }]
}

fn coefficients_file(of: &Coefficients, point: &[f64]) -> Vec<u8> {
    let values = of.file_values(point);
    let mut rest = values.as_slice();
    let mut tensors = Vec::new();
    for shape in of.tensors() {
        let (mine, others) = rest.split_at(usize::try_from(shape.len()).unwrap());
        rest = others;
        let sides: Vec<usize> = shape.shape.iter().map(|n| usize::try_from(*n).unwrap()).collect();
        tensors.push((shape.name, sides, mine.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()));
    }
    let views = tensors.iter().map(|(n, s, b)| (n.as_str(), TensorView::new(Dtype::F32, s.clone(), b).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// The fit over the sites and its number of rounds, by rounds as a coordinator runs them.
fn federated(plan: &Plan, files: &[(String, PathBuf)], policy: &Policy) -> Result<(Fit, u32), Stop> {
    let paths: Vec<_> = files.iter().map(|(name, path)| (name.clone(), path.as_path())).collect();
    let federation = Federation::new(plan, &paths).unwrap();
    let plan = Canonical::new(plan.clone()).unwrap();
    let regression = Regression::of(&plan, "fit").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut newton = Newton::start(&regression.coefficients);
    let (mut number, mut rounds) = (1, 0);
    while number <= regression.component.rounds() {
        rounds += 1;
        let figures = plan::round_figures(&plan, "fit", number);
        let file = coefficients_file(&regression.coefficients, newton.point());
        let header = federation.header(&plan, "fit", number, Some(canon::digest("model", 1, &file))).unwrap();
        let inputs: Vec<Input> = federation
            .members()
            .iter()
            .map(|member| {
                let cohort = federation.open(member, &plan, &header).unwrap();
                let round = Round { site: member.site(), header: &header, model: Some(&file) };
                let mut go_on = |_: Progress| true;
                let pulse = &mut Pulse { now: &|| ZERO, progress: &mut go_on };
                let report = cohort.report(round, &policy.disclosure, pulse).unwrap_or_else(|e| panic!("{e}"));
                plan::check_figures(&figures, &report.figures).unwrap();
                let path = folder.path().join(member.site().to_string());
                std::fs::write(&path, Canonical::new(report.figures).unwrap().bytes()).unwrap();
                Input { site: member.site(), path }
            })
            .collect();
        let pooled = reduce::pool(&figures, &inputs).unwrap();
        number = match newton.advance(&regression, &pooled)? {
            Next::Round => number + 1,
            Next::Last => regression.component.rounds(),
            Next::Done(fit) => return Ok((*fit, rounds)),
        };
    }
    Err(Stop::Failed(newton.unfinished(&regression)))
}

fn fitted(case: &Case) -> Fit {
    let files: Vec<_> = case.sites().iter().map(|s| ((*s).to_owned(), case.path(data(), s))).collect();
    let (fit, rounds) = federated(&case.plan(), &files, &Policy::public_data()).unwrap_or_else(|e| panic!("{e:?}"));
    assert!(rounds <= 10, "{}: {rounds} rounds", case.name);
    fit
}

/// What the other implementations find: run where `cargo xtask test` has installed them (`HOSPES_PYTHON`), and what they
/// found when the files were written otherwise. Both must agree.
fn independent() -> &'static Value {
    static FOUND: OnceLock<Value> = OnceLock::new();
    FOUND.get_or_init(|| {
        let committed = folder("tests/pooled/expected.json");
        let kept = std::fs::read_to_string(&committed).ok().map(|text| serde_json::from_str::<Value>(&text).unwrap());
        let Some(python) = std::env::var_os("HOSPES_PYTHON") else {
            return kept.expect("tests/pooled/expected.json is missing; run `cargo xtask test`");
        };
        let questions: Vec<Value> = cases().iter().map(|case| case.question(data())).collect();
        let mut child = Command::new(python)
            .arg(folder("tests/pooled/fit.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        serde_json::to_writer(child.stdin.take().unwrap(), &questions).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "the script failed; its errors are above");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        match (kept, std::env::var_os("HOSPES_WRITE_EXPECTED")) {
            (_, Some(_)) => std::fs::write(&committed, &output.stdout).unwrap(),
            (Some(kept), None) => compare_trees("", &found, &kept),
            (None, None) => panic!("{} is missing", committed.display()),
        }
        found
    })
}

#[expect(clippy::print_stdout, reason = "a test that passes says how near it came")]
fn near(what: &str, found: f64, wanted: f64) {
    let difference = (found - wanted).abs() / wanted.abs().max(1.0);
    assert!(difference <= NEAR, "{what}: {found} instead of {wanted}");
    println!("{difference:.1e} {what}");
}

fn compare_trees(place: &str, found: &Value, kept: &Value) {
    match (found, kept) {
        (Value::Object(found), Value::Object(kept)) => {
            assert!(found.keys().eq(kept.keys()), "{place}: other keys than in expected.json");
            found.iter().for_each(|(key, value)| compare_trees(&format!("{place}.{key}"), value, &kept[key]));
        }
        _ => near(place, found.as_f64().unwrap(), kept.as_f64().unwrap()),
    }
}

/// Every coefficient with all its figures.
fn compare_table(name: &str, fit: &Fit, table: &Value) {
    assert_eq!(fit.coefficients.len(), table.as_object().unwrap().len(), "{name}");
    for found in &fit.coefficients {
        let wanted = &table[&found.name];
        let of = |figure: &str| wanted[figure].as_f64().unwrap_or_else(|| panic!("{name}: no {figure}"));
        let what = |figure: &str| format!("{name}, {figure} of {}", found.name);
        near(&what("estimate"), found.estimate, of("estimate"));
        near(&what("error"), found.error, of("error"));
        near(&what("p"), found.p, of("p"));
        near(&what("low"), found.low, of("low"));
        near(&what("high"), found.high, of("high"));
        // Of small ones, too, six digits.
        near(&what("error"), found.error / of("error"), 1.0);
        near(&what("statistic"), found.statistic, of("estimate") / of("error"));
        if let Some(ratio) = &found.ratio {
            near(&what("ratio"), ratio.value.unwrap(), of("estimate").exp());
            near(&what("ratio's low"), ratio.low.unwrap(), of("low").exp());
            near(&what("ratio's high"), ratio.high.unwrap(), of("high").exp());
        }
    }
}

#[test]
fn generalised_linear_models_are_those_of_statsmodels_on_pooled_rows() {
    for case in cases().iter().filter(|case| case.component["component"] == "glm") {
        let (fit, wanted) = (fitted(case), &independent()[case.name]);
        compare_table(case.name, &fit, &wanted["coefficients"]);
        let figures = [
            ("n", Some(fit.n)),
            ("log_likelihood", Some(fit.log_likelihood)),
            ("null_log_likelihood", Some(fit.null_log_likelihood)),
            ("aic", Some(fit.aic)),
            ("deviance", fit.deviance),
            ("null_deviance", fit.null_deviance),
            ("pearson", fit.pearson),
            ("dispersion", fit.dispersion),
            ("residual_degrees", fit.residual_degrees),
        ];
        for (name, found) in figures {
            near(&format!("{}, {name}", case.name), found.unwrap(), wanted[name].as_f64().unwrap());
        }
    }
}

#[test]
fn coxs_models_are_those_of_statsmodels_and_lifelines_stratified_by_site() {
    for case in cases().iter().filter(|case| case.component["component"] == "cox") {
        let (fit, wanted) = (fitted(case), &independent()[case.name]);
        for (library, wanted) in wanted.as_object().unwrap() {
            let name = format!("{}, {library}", case.name);
            compare_table(&name, &fit, &wanted["coefficients"]);
            near(&name, fit.log_likelihood, wanted["log_likelihood"].as_f64().unwrap());
            for (interval, hazard) in wanted["hazards"].as_object().into_iter().flatten() {
                let found = fit.baseline[interval.parse::<usize>().unwrap()].hazard.unwrap();
                // Hazards are small: they must agree to six digits of their own.
                near(&name, found / hazard.as_f64().unwrap(), 1.0);
            }
            near(&name, fit.concordance.as_ref().unwrap().index, wanted["concordance"].as_f64().unwrap());
            near(&name, fit.aic, wanted["aic"].as_f64().unwrap());
            // lifelines does not tell these.
            if library == "statsmodels" {
                near(&name, fit.null_log_likelihood, wanted["null_log_likelihood"].as_f64().unwrap());
                assert_eq!(fit.events, wanted["events"].as_f64());
            }
        }
        assert_eq!(fit.n, 432.0);
        assert!(fit.coefficients.iter().all(|c| c.ratio.as_ref().is_some_and(|r| r.of == "hazard")));
    }
    let efron = &cases()[7];
    let fit = fitted(efron);
    // Every event lies within the grid of 52 weeks, and the baseline only falls.
    assert_eq!(fit.baseline.iter().map(|i| i.events).sum::<f64>(), 114.0);
    let survival: Vec<f64> = fit.baseline.iter().map(|i| i.survival.unwrap()).collect();
    assert!(survival.len() == 4 && survival.is_sorted_by(|a, b| a > b), "{survival:?}");
}

#[test]
fn a_site_that_withholds_its_sums_stops_the_fit() {
    let case = &cases()[0];
    let files: Vec<_> = case.sites().iter().map(|s| ((*s).to_owned(), case.path(data(), s))).collect();
    let mut policy = Policy::public_data();
    (policy.disclosure.min_cell, policy.disclosure.min_subset) = (3, 3);
    let stop = federated(&case.plan(), &files, &policy).unwrap_err();
    assert!(matches!(stop, Stop::Withheld(sites) if !sites.is_empty()));
}

#[test]
fn the_examples_are_valid_and_fit() {
    let text = std::fs::read_to_string(folder("../../examples/survival/study.yaml")).unwrap();
    let plan = read_plan(&text).unwrap();
    let mut named = plan.clone();
    let task = named.tasks.remove("hazards").unwrap();
    named.tasks.insert("fit".into(), task);
    let files = SURVIVAL.map(|s| (s.to_owned(), folder(&format!("../../examples/survival/{s}.csv"))));
    let (fit, _) = federated(&named, &files, &Policy::public_data()).unwrap();
    assert_eq!((fit.coefficients.len(), fit.baseline.len()), (6, 4));
}
