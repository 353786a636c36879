//! Secure aggregation over real processes: the same model as without, runs in which processes are killed at whatever step
//! their round is in, and ten sites of which two are.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hospes_tests::federation::{EXAMPLES, Federation, Site};
use serde_json::Value;

/// Rounds of training of which the models are compared.
const COMPARED: u32 = 4;
/// Rounds of training, so many that they go on while every process is killed.
const ROUNDS: u32 = 40;
/// Who is killed, in this order; `None` is the coordinator.
const VICTIMS: [Option<&str>; 5] = [Some("cleveland"), None, Some("hungary"), None, Some("long_beach")];

#[test]
fn four_hospitals_train_the_same_model_under_masks_and_go_on_though_they_are_killed() -> Result<()> {
    // All of them compared their words: whom a site does not know from elsewhere counts as the coordinator's own, and no sum
    // of four is safe then.
    let mut federation = Federation::hearts("sqlite")?;
    let (_, plain) = trained(&federation, COMPARED, false)?;
    let (study, masked) = trained(&federation, COMPARED, true)?;
    let model = |answer: &Value| last_run(answer)["model"].as_str().map(str::to_owned).context("no model");
    assert_eq!(model(&plain)?, model(&masked)?, "the masked sum is another one than the plain");
    for site in &federation.sites {
        every_update_left_masked(site, &study)?;
    }

    let study = submit(&federation, ROUNDS, true)?;
    federation.until("training began", |f| Ok(done(f, &study) >= 2))?;
    for (number, victim) in VICTIMS.iter().enumerate() {
        // Not the same step of a round each time.
        std::thread::sleep(Duration::from_millis(70 * number as u64));
        let before = done(&federation, &study);
        match victim {
            None => federation.restart_coordinator()?,
            Some(name) => federation.site_mut(name)?.restart()?,
        }
        let what = format!("rounds go on after {} was killed", victim.unwrap_or("the coordinator"));
        federation.until(&what, |f| Ok(done(f, &study) > before))?;
    }
    let answer = federation.ctl(&["study", "show", &study])?;
    ensure!(last_run(&answer)["state"] == "running", "it ended before everybody was killed: {answer:#}");
    let answer = federation.finished(&study)?;
    assert_eq!(last_run(&answer)["state"], "success", "{answer:#}");
    Ok(())
}

/// Sites of the large federation, and its rounds.
const CROWD: usize = 10;
const CROWD_ROUNDS: u32 = 12;

#[test]
fn ten_sites_finish_though_two_are_killed_at_random_steps_of_random_rounds() -> Result<()> {
    let mut federation = Federation::crowd("sqlite", CROWD)?;
    let study = federation.submit(&for_a_crowd(&federation)?)?;
    federation.sign_everywhere(&study)?;
    federation.until("training began", |f| Ok(done(f, &study) >= 1))?;
    let mut random = [0u8; 4];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    let [first, other, pauses @ ..] = random.map(usize::from);
    let first = first % CROWD;
    let victims = [first, (first + 1 + other % (CROWD - 1)) % CROWD];
    let told = format!("{victims:?} killed after {pauses:?} times 12 ms");
    for (victim, pause) in victims.into_iter().zip(pauses) {
        // Anywhere in a round, or the next.
        std::thread::sleep(Duration::from_millis(12 * pause as u64));
        federation.sites[victim].engine.kill()?;
    }
    let before = done(&federation, &study);
    federation.until("rounds go on without the two", |f| Ok(done(f, &study) > before)).context(told.clone())?;
    // One of them comes back, and is in the rounds that follow; of ten three may be missing.
    federation.sites[victims[0]].restart()?;
    let answer = federation.finished(&study).context(told.clone())?;
    assert_eq!(last_run(&answer)["state"], "success", "{told}: {answer:#}");
    let (_, survivor) =
        federation.sites.iter().enumerate().find(|(n, _)| !victims.contains(n)).context("nobody is left")?;
    let egress = survivor.act("Stefan", &["egress"])?;
    let all = egress.as_array().context("no egress")?;
    assert!(!all.is_empty() && all.iter().all(|sent| sent["protection"] == "masked"), "{told}: {egress:#}");
    Ok(())
}

/// The example's training alone, masked, with little work in each round.
fn for_a_crowd(federation: &Federation) -> Result<PathBuf> {
    let text = std::fs::read_to_string(written(federation, CROWD_ROUNDS, true)?)?;
    let (training, _) = text.split_once("    eval: {").context("the example's tasks have another order")?;
    let scored = ["    test_rows:", "    hot_test:", "    scale_test:"];
    let lines = training.lines().filter(|line| !scored.iter().any(|start| line.starts_with(start)));
    let text = lines.collect::<Vec<_>>().join("\n").replace("updates: 100", "updates: 5");
    let file = federation.folder().join("crowd.yaml");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// The heart study with so many rounds, approved everywhere and run to its end.
fn trained(federation: &Federation, rounds: u32, is_masked: bool) -> Result<(String, Value)> {
    let study = submit(federation, rounds, is_masked)?;
    let answer = federation.finished(&study)?;
    ensure!(last_run(&answer)["state"] == "success", "{answer:#}");
    Ok((study, answer))
}

fn submit(federation: &Federation, rounds: u32, is_masked: bool) -> Result<String> {
    let study = federation.submit(&written(federation, rounds, is_masked)?)?;
    for site in &federation.sites {
        site.approve(&study)?;
    }
    Ok(study)
}

/// The example's study file with so many rounds, masked or not.
fn written(federation: &Federation, rounds: u32, is_masked: bool) -> Result<PathBuf> {
    let example = if is_masked { "study" } else { "plain" };
    let whole = std::fs::read_to_string(format!("{EXAMPLES}/heart/{example}.yaml"))?;
    let mut text = whole.replace("rounds: 15", &format!("rounds: {rounds}"));
    ensure!(text != whole, "the example's number of rounds has another form");
    // A site answers for one set of sites, and of those that are killed one may be missing.
    if is_masked && rounds == COMPARED {
        let judged = "inputs: { model: train.model, data: scale_test.data }";
        let masked = text.replace(judged, &format!("{judged}, params: {{ privacy: {{ secure_aggregation: {{}} }} }}"));
        ensure!(masked != text, "the example has no '{judged}'");
        text = masked;
    }
    // Sites train from one model for one set of sites. Where some are killed the set is not always the same, so that this study
    // must not come by the models of the other one.
    if rounds != COMPARED {
        let other = text.replace("seed: 4", &format!("seed: {rounds}"));
        ensure!(other != text, "the example has another seed");
        text = other;
    }
    let file = federation.folder().join(format!("{rounds}-{is_masked}.yaml"));
    std::fs::write(&file, text)?;
    Ok(file)
}

/// What left of this study, and of no other, was masked, but for what each hospital learns alone.
fn every_update_left_masked(site: &Site, study: &str) -> Result<()> {
    let egress = site.act("Stefan", &["egress"])?;
    let all = egress.as_array().context("no egress")?;
    let (masked, plain): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|sent| sent["protection"] == "masked");
    let of = |kind: &str| masked.iter().filter(|sent| sent["kind"] == kind).count();
    assert_eq!((of("update"), of("figures")), (COMPARED as usize, 1), "{egress:#}");
    assert!(masked.iter().all(|sent| sent["study"] == study), "{egress:#}");
    assert!(plain.iter().all(|sent| sent["study"] != study || sent["kind"] == "figures"), "{egress:#}");
    Ok(())
}

/// Rounds of training that are behind, as the coordinator tells it; none while it does not answer.
fn done(federation: &Federation, study: &str) -> u64 {
    let Ok(answer) = federation.ctl(&["study", "show", study]) else { return 0 };
    let tasks = last_run(&answer)["tasks"].as_array().cloned().unwrap_or_default();
    tasks.iter().find(|task| task["task"] == "train").and_then(|task| task["done"].as_u64()).unwrap_or_default()
}

fn last_run(study: &Value) -> &Value {
    study["jobs"].as_array().and_then(|jobs| jobs.last()).unwrap_or(&Value::Null)
}
