//! A regression over four real processes: approved, fitted, held, released, printed.

use std::path::Path;

use anyhow::{Context, Result};
use hospes_tests::federation::{EXAMPLES, Federation};
use serde_json::Value;

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
    for site in &federation.sites {
        site.act("Anna", &["release", id])?;
    }
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
    Ok(())
}
