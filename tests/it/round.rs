//! One real round and more: four hospitals and a coordinator on PostgreSQL, signed, trained, revoked, proven.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use hospes_tests::federation::{EXAMPLES, Federation, Site};
use serde_json::Value;

use crate::postgres::Postgres;

/// Rounds of training, so many that they go on while a site revokes.
const ROUNDS: u64 = 40;

#[test]
fn four_hospitals_train_one_model_and_every_ledger_verifies() -> Result<()> {
    let server = Postgres::start();
    let federation = Federation::hearts(&server.url())?;
    let study = federation.submit(Path::new(&format!("{EXAMPLES}/heart/plain.yaml")))?;
    let tried = federation.site("hungary")?.act("Stefan", &["dry-run", &study])?;
    assert_eq!(tried["state"], "done", "{tried:#}");
    assert!(left(federation.site("hungary")?, &study)?.is_empty(), "something left before anybody signed");
    for site in &federation.sites {
        site.approve(&study)?;
    }
    let answer = federation.finished(&study)?;
    let job = answer["jobs"].as_array().and_then(|jobs| jobs.last()).context("no run")?;
    assert_eq!(job["state"], "success", "{answer:#}");
    the_first_rounds_sent_what_the_dry_run_showed(federation.site("hungary")?, &study, &tried)?;
    after_a_site_revokes_nothing_leaves_it_and_the_others_finish(&federation)?;

    for site in &federation.sites {
        // What others know comes first: the log goes on growing, and an export must hold all that was seen before it.
        let known = federation.known_of(&site.name)?;
        let export = federation.folder().join(format!("{}.jsonl", site.name));
        let path = export.to_str().context("path")?;
        site.act("Petra", &["audit", "export", path])?;
        let verify = |path: &str| {
            let known = known.iter().map(String::as_str);
            federation.ctl(&["audit", "verify", path].into_iter().chain(known).collect::<Vec<_>>())
        };
        let report = verify(path)?;
        assert!(report["finding"].is_null() && report["not_checked"] == serde_json::json!([]), "{report:#}");
        let members = report["witnesses"].as_array().context("no witnesses")?.iter().filter(|w| w["member"] == true);
        assert!(report["known_found"] == 1 && members.count() >= 1, "{report:#}");
        // What a member kept of the coordinator's log is good for the same.
        let note = site.act("Petra", &["audit", "checkpoint", "--of", "coordinator"])?;
        assert!(note.as_str().is_some_and(|note| note.contains('\u{2014}')), "{note}");

        // One changed byte is found.
        let mut text = std::fs::read(&export)?;
        let middle = text.len() / 2;
        text[middle] ^= 1;
        let altered = federation.folder().join("altered.jsonl");
        std::fs::write(&altered, text)?;
        assert!(verify(altered.to_str().context("path")?).is_err());
    }
    Ok(())
}

/// An evaluation aside, which in a run judges a model that was trained.
fn the_first_rounds_sent_what_the_dry_run_showed(site: &Site, study: &str, tried: &Value) -> Result<()> {
    let egress = site.act("Stefan", &["egress"])?;
    for task in ["train", "alone"] {
        let of_task =
            |sent: &&Value| sent["study"] == study && sent["round"]["task"] == task && sent["round"]["round"] == 1;
        let sent = egress.as_array().and_then(|all| all.iter().find(of_task)).context("nothing left")?;
        let messages = tried["messages"].as_array().context("no messages")?;
        let shown = messages.iter().find(|message| message["task"] == task).context("it was not tried")?;
        assert_eq!(sent["digest"], shown["made"]["digest"], "{shown:#}");
        assert_eq!(sent["bytes"], shown["made"]["bytes"], "{shown:#}");
    }
    Ok(())
}

/// Another study of the same sites, in the middle of which one takes its approval back.
fn after_a_site_revokes_nothing_leaves_it_and_the_others_finish(federation: &Federation) -> Result<()> {
    let plan = std::fs::read_to_string(format!("{EXAMPLES}/heart/plain.yaml"))?;
    let longer = plan.replace("rounds: 15", &format!("rounds: {ROUNDS}"));
    ensure!(longer != plan, "the example's number of rounds has another form");
    let file = federation.folder().join("longer.yaml");
    std::fs::write(&file, longer)?;
    let study = federation.submit(&file)?;
    for site in &federation.sites {
        site.approve(&study)?;
    }
    federation.until("training began", |f| Ok(rounds_done(&f.ctl(&["study", "show", &study])?) >= 2))?;
    let site = federation.site("hungary")?;
    site.act("Anna", &["revoke", &study, "--reason", "the patients' council asked for it"])?;
    let gone = left(site, &study)?;
    assert!(gone.len() >= 2, "it took no part before: {gone:?}");
    let before = rounds_done(&federation.ctl(&["study", "show", &study])?);
    ensure!(before < ROUNDS, "training ended before the site revoked");

    let answer = federation.finished(&study)?;
    assert_eq!(answer["jobs"][0]["state"], "success", "{answer:#}");
    assert_eq!(rounds_done(&answer), ROUNDS, "{answer:#}");
    assert_eq!(left(site, &study)?, gone, "something left after the approval was revoked");
    // Training and the figures of the others went on without it.
    for other in federation.sites.iter().filter(|other| other.name != site.name) {
        assert!(left(other, &study)?.len() > gone.len(), "{} did not go on", other.name);
    }
    Ok(())
}

/// Rounds of training that have a result in the only run of a study.
fn rounds_done(study: &Value) -> u64 {
    let tasks = study["jobs"][0]["tasks"].as_array();
    let train = tasks.and_then(|tasks| tasks.iter().find(|task| task["task"] == "train"));
    train.and_then(|task| task["done"].as_u64()).unwrap_or_default()
}

/// Rounds of a study whose payload this site let go, and when.
fn left(site: &Site, study: &str) -> Result<Vec<(String, String)>> {
    let egress = site.act("Stefan", &["egress"])?;
    let all = egress.as_array().context("no egress")?.iter();
    let gone = all.filter(|sent| sent["study"] == study && !sent["left"].is_null());
    Ok(gone.map(|sent| (sent["round"].to_string(), sent["left"].to_string())).collect())
}
