//! Many settings of one plan, with real programs: signed once at each site, run setting by setting, the best released.

use anyhow::{Context, Result};
use hospes_tests::federation::{EXAMPLES, Federation};
use serde_json::Value;

/// Learning rates, numbers of updates, and how many settings they make: six, or by hand forty (`HOSPES_SETTINGS=40`).
fn grid() -> (&'static str, &'static str, u64) {
    match std::env::var("HOSPES_SETTINGS").as_deref() {
        Ok("40") => ("0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1", "5, 10, 20, 50, 100", 40),
        _ => ("0.001, 0.01, 0.1", "20, 100", 6),
    }
}

/// The example with these settings; without its local baseline, which would be the same in every run.
fn study(rates: &str, updates: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("{EXAMPLES}/heart/plain.yaml"))?;
    let (text, _) = text.split_once("\n    alone:").context("the example has no local baseline")?;
    let text = text.replace("rounds: 15", "rounds: 2");
    Ok(format!(
        "{text}\nsweep:\n  grid:\n    tasks.train.params.optimizer.sgd.lr: [{rates}]\n    \
         tasks.train.params.local.updates: [{updates}]\n  rank: {{ task: eval, metric: loss }}\n  parallel: 2\n"
    ))
}

#[test]
fn four_hospitals_sign_once_and_the_best_of_many_settings_is_released() -> Result<()> {
    let mut federation = Federation::hearts("sqlite")?;
    let file = federation.folder().join("study.yaml");
    let (rates, updates, count) = grid();
    std::fs::write(&file, study(rates, updates)?)?;
    let id = federation.submit(&file)?;
    let review = federation.site("hungary")?.act("Stefan", &["show", &id])?;
    assert_eq!(review["outputs"]["runs"], count, "{review:#}");
    for site in &federation.sites {
        site.approve(&id)?;
    }
    // In the middle the coordinator is killed; it goes on where it was.
    let sweep = |f: &Federation| Ok::<Value, anyhow::Error>(f.ctl(&["study", "show", &id])?["sweep"].clone());
    let done = |sweep: &Value| {
        sweep["settings"].as_array().into_iter().flatten().filter(|setting| setting["state"] == "success").count()
    };
    federation.until("two settings are done", |f| Ok(done(&sweep(f)?) >= 2))?;
    federation.restart_coordinator()?;
    federation.until("every setting is through", |f| Ok(sweep(f).is_ok_and(|sweep| sweep["state"] == "success")))?;
    let found = sweep(&federation)?;
    assert_eq!(done(&found) as u64, count, "{found:#}");
    let best =
        found["settings"].as_array().and_then(|all| all.iter().find(|s| s["best"] == true)).context("no best")?;
    assert!(
        found["released"] == false && best["figure"].is_null(),
        "a figure is shown before it is released: {found:#}"
    );
    let job = best["job"].as_str().context("no job")?.to_owned();
    for site in &federation.sites {
        federation.until("the site's people hear which one is the best", |_| {
            let jobs = site.act("Anna", &["jobs"])?;
            let held = jobs.as_array().into_iter().flatten().filter(|job| job["held"] == true);
            Ok(held.map(|job| job["job"].as_str()).collect::<Vec<_>>() == [Some(job.as_str())])
        })?;
        site.act("Anna", &["release", &job])?;
        // One approval, many runs.
        let requests = site.act("Anna", &["requests"])?;
        assert_eq!(requests[0]["runs"], serde_json::json!([count, count]), "{requests:#}");
    }
    federation.until("it is released", |f| Ok(sweep(f)?["released"] == true))?;
    let found = sweep(&federation)?;
    let settings = found["settings"].as_array().context("no settings")?;
    let figures: Vec<f64> = settings.iter().filter_map(|setting| setting["figure"].as_f64()).collect();
    assert_eq!(figures.len() as u64, count, "{found:#}");
    let best = settings.iter().find(|s| s["best"] == true).and_then(|s| s["figure"].as_f64()).context("no best")?;
    assert!(figures.iter().all(|figure| best <= *figure), "{figures:?}");
    let models = federation.ctl(&["model", "list"])?;
    assert_eq!(models.as_array().map(Vec::len), Some(1), "only the best model is there: {models:#}");
    let model = models[0]["model"].as_str().context("no model")?;
    let card = federation.ctl(&["model", "card", model])?;
    assert_eq!(card["lineage"]["sweep"]["settings"], count, "{card:#}");
    assert_eq!(card["lineage"]["sweep"]["figure"].as_f64(), Some(best));
    let path = federation.folder().join("best.safetensors");
    federation.ctl(&["model", "get", model, "--output", path.to_str().context("path")?])?;
    assert!(path.exists());
    Ok(())
}
