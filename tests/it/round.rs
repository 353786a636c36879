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
        let export = federation.folder().join(format!("{}.jsonl", site.name));
        let path = export.to_str().context("path")?;
        site.act("Petra", &["audit", "export", path])?;
        let report = federation.ctl(&["audit", "verify", path])?;
        assert!(report["finding"].is_null(), "{report:#}");
        assert!(report["witnesses"].as_array().is_some_and(|w| w.len() >= 2), "{report:#}");

        // One changed byte is found.
        let mut text = std::fs::read(&export)?;
        let middle = text.len() / 2;
        text[middle] ^= 1;
        let altered = federation.folder().join("altered.jsonl");
        std::fs::write(&altered, text)?;
        assert!(federation.ctl(&["audit", "verify", altered.to_str().context("path")?]).is_err());
    }
    Ok(())
}
