//! A regression over four real processes: approved, fitted, held, released, printed.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use hospes_tests::federation::{EXAMPLES, Federation};
use serde_json::Value;

use crate::screens::the_table_of_a_regression_is_released_and_looked_at;

#[test]
fn four_hospitals_fit_one_regression_and_its_table_is_held_until_they_release_it() -> Result<()> {
    let federation = Federation::hearts("sqlite")?;
    let study = federation.submit(Path::new(&format!("{EXAMPLES}/heart/regression.yaml")))?;
    for site in &federation.sites {
        site.approve(&study)?;
    }
    let answer = federation.finished(&study)?;
    let job = answer["jobs"].as_array().and_then(|jobs| jobs.last()).context("no run")?;
    assert_eq!(job["state"], "success", "{answer:#}");
    let fits = || federation.ctl(&["study", "fits", &study]);
    assert!(fits().is_err_and(|error| error.to_string().contains("held until the people of")));
    let id = job["job"].as_str().context("no id")?;
    let site = federation.site("cleveland")?;
    for other in federation.sites.iter().filter(|other| other.name != site.name) {
        other.act("Anna", &["release", id])?;
    }
    // The last of them in the window, which then has the table.
    the_table_of_a_regression_is_released_and_looked_at(&federation, site, id)?;
    federation.until("the table is released", |_| Ok(fits().is_ok()))?;
    let found = fits()?;
    let fit = &found[0];
    assert_eq!((&fit["family"], &fit["n"], &fit["converged"]), (&"binomial".into(), &486.0.into(), &true.into()));
    let odds = |name: &str| {
        let all = fit["coefficients"].as_array().into_iter().flatten();
        all.filter(|c| c["name"] == name).find_map(|c| c["ratio"]["value"].as_f64()).context(name.to_owned())
    };
    // Men, and pain of no kind but none, go together with the disease; a fast heart does not.
    assert!(odds("sex")? > 2.0 && odds("cp_4")? > 1.5 && odds("thalach")? < 1.0, "{found:#}");
    // The model of the fit was judged by every hospital.
    let model = job["model"].as_str().context("no model")?;
    federation.until("there is a card", |f| Ok(f.ctl(&["model", "card", model]).is_ok()))?;
    let card = federation.ctl(&["model", "card", model])?;
    let all = |m: &&Value| m["task"] == "quality" && m["site"].is_null();
    let judged = card["metrics"].as_array().into_iter().flatten().find(all).context("no figures")?;
    assert!(judged["auc"].as_f64().is_some_and(|auc| auc > 0.8), "{card:#}");
    assert_eq!(&card["fits"][0]["coefficients"], &fit["coefficients"]);
    survival(&federation)
}

/// A run that ends with a table and no model, on other data of the same sites.
fn survival(federation: &Federation) -> Result<()> {
    for (site, file) in federation.sites.iter().zip(["baltimore", "annapolis", "frederick", "salisbury"]) {
        let file = format!("{EXAMPLES}/survival/{file}.csv");
        site.act("Stefan", &["dataset", "add", &file, "--name", "survival", "--subject", "id", "--public"])?;
    }
    // Under masks the sums of the partial likelihood, its pairs and its grid are the same.
    let plain = std::fs::read_to_string(format!("{EXAMPLES}/survival/study.yaml"))?;
    let masked =
        plain.replace("        ties: efron\n", "        ties: efron\n        privacy: { secure_aggregation: {} }\n");
    ensure!(masked != plain, "the example has another form");
    let file = federation.folder().join("survival.yaml");
    std::fs::write(&file, masked)?;
    let study = federation.submit(&file)?;
    for site in &federation.sites {
        site.approve(&study)?;
    }
    let answer = federation.finished(&study)?;
    let job = answer["jobs"].as_array().and_then(|jobs| jobs.last()).context("no run")?;
    assert_eq!((&job["state"], &job["model"]), (&"success".into(), &Value::Null), "{answer:#}");
    let id = job["job"].as_str().context("no id")?;
    let site = &federation.sites[0];
    let held = site.act("Stefan", &["model", "card", id]);
    assert!(held.is_err_and(|error| format!("{error:#}").contains("release them first")));
    for site in &federation.sites {
        site.act("Anna", &["release", id])?;
    }
    let fits = || federation.ctl(&["study", "fits", &study]);
    federation.until("the table is released", |_| Ok(fits().is_ok()))?;
    let fit = &fits()?[0];
    // Whoever took part sees the same table.
    let card = site.act("Stefan", &["model", "card", id])?;
    let hazard = |of: &Value| of["coefficients"][0]["ratio"]["value"].as_f64().context("no hazard ratio");
    let (here, there) = (hazard(&card["fits"][0])?, hazard(fit)?);
    assert!((here - there).abs() < 1e-12 && card["model"].is_null(), "{card:#}");
    assert_eq!((&card["fits"][0]["rows"], &card["parties"].as_array().map(Vec::len)), (&fit["n"], &Some(4)));
    // The partial likelihood of all four strata, as statsmodels has it.
    let likelihood = fit["log_likelihood"].as_f64().context("no likelihood")?;
    assert!((likelihood + 505.304_201_385_306).abs() < 1e-6, "{fit:#}");
    assert_eq!((&fit["events"], fit["baseline"].as_array().map(Vec::len)), (&114.0.into(), Some(4)));
    Ok(())
}
