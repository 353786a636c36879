//! One real round and more: four hospitals, signed, trained, proven.

use std::path::Path;

use anyhow::{Context, Result};
use hospes_tests::federation::{EXAMPLES, Federation};

#[test]
fn four_hospitals_train_one_model_and_every_ledger_verifies() -> Result<()> {
    let federation = Federation::hearts("sqlite")?;
    let study = federation.submit(Path::new(&format!("{EXAMPLES}/heart/study.yaml")))?;
    for site in &federation.sites {
        site.approve(&study)?;
    }
    let answer = federation.finished(&study)?;
    let job = answer["jobs"].as_array().and_then(|jobs| jobs.last()).context("no run")?;
    assert_eq!(job["state"], "success", "{answer:#}");

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
