//! `kill -9` of whole processes while a study runs: coordinator and sites, one after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hospes_tests::federation::{EXAMPLES, Federation, Site};
use serde_json::Value;

/// Rounds of training, so many that they go on while every process is killed.
const ROUNDS: u32 = 60;
/// Who is killed, in this order; `None` is the coordinator.
const VICTIMS: [Option<&str>; 8] =
    [None, Some("cleveland"), None, Some("hungary"), Some("switzerland"), None, Some("long_beach"), None];

#[test]
fn a_study_goes_on_though_every_process_is_killed_and_every_ledger_verifies() -> Result<()> {
    let mut federation = Federation::hearts("sqlite")?;
    let plan = std::fs::read_to_string(format!("{EXAMPLES}/heart/plain.yaml"))?;
    let longer = plan.replace("rounds: 15", &format!("rounds: {ROUNDS}"));
    ensure!(longer != plan, "the example's number of rounds has another form");
    let file = federation.folder().join("study.yaml");
    std::fs::write(&file, longer)?;
    let study = federation.submit(&file)?;
    for site in &federation.sites {
        site.approve(&study)?;
    }
    federation.until("training began", |f| Ok(published(f, &study) >= 2))?;
    for (number, victim) in VICTIMS.iter().enumerate() {
        // Not the same moment of a round each time: training, writing, sending, taking the sum.
        std::thread::sleep(Duration::from_millis(90 * number as u64));
        let before = published(&federation, &study);
        match victim {
            None => federation.restart_coordinator()?,
            Some(name) => federation.site_mut(name)?.restart()?,
        }
        let what = format!("rounds go on after {} was killed", victim.unwrap_or("the coordinator"));
        federation.until(&what, |f| Ok(published(f, &study) > before))?;
    }
    let answer = federation.ctl(&["study", "show", &study])?;
    ensure!(last_run(&answer)["state"] == "running", "it ended before everybody was killed: {answer:#}");

    let answer = federation.finished(&study)?;
    assert_eq!(last_run(&answer)["state"], "success", "{answer:#}");
    for site in &federation.sites {
        all_is_over_and_proven(&federation, site)?;
    }
    Ok(())
}

/// Rounds of training that have a result, as the coordinator tells it; none while it does not answer.
fn published(federation: &Federation, study: &str) -> u64 {
    let Ok(answer) = federation.ctl(&["study", "show", study]) else { return 0 };
    let tasks = last_run(&answer)["tasks"].as_array().cloned().unwrap_or_default();
    tasks.iter().find(|task| task["task"] == "train").and_then(|task| task["done"].as_u64()).unwrap_or_default()
}

fn last_run(study: &Value) -> &Value {
    study["jobs"].as_array().and_then(|jobs| jobs.last()).unwrap_or(&Value::Null)
}

/// Invariant I7 at this site, and that its ledger tells of every payload that left, once.
fn all_is_over_and_proven(federation: &Federation, site: &Site) -> Result<()> {
    let open = |state: &Value| ["offered", "working", "committed", "acknowledged"].iter().any(|open| state == open);
    federation.until("the site has heard that the run is over", |_| {
        let jobs = site.act("Stefan", &["jobs"])?;
        let rounds = jobs[0]["rounds"].as_array().context("no rounds")?;
        Ok(jobs[0]["state"] == "success" && rounds.iter().all(|round| !open(&round["state"])))
    })?;
    let egress = site.act("Stefan", &["egress"])?;
    let egress = egress.as_array().context("no egress")?;
    let rounds: BTreeSet<String> = egress.iter().map(|sent| sent["round"].to_string()).collect();
    assert_eq!(rounds.len(), egress.len(), "{}: a round has two payloads", site.name);
    for sent in egress {
        assert_ne!(sent["state"], "waiting", "{}: {sent:#}", site.name);
    }
    let export = federation.folder().join(format!("{}.jsonl", site.name));
    let path = export.to_str().context("path")?;
    site.act("Petra", &["audit", "export", path])?;
    let known = federation.known_of(&site.name)?;
    let known: Vec<&str> = ["audit", "verify", path].into_iter().chain(known.iter().map(String::as_str)).collect();
    let report = federation.ctl(&known)?;
    assert!(report["finding"].is_null(), "{report:#}");
    Ok(())
}
