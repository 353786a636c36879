//! A study with many settings: signed once, run setting by setting, released once.

use hospes_protocol::approval::RefusalCode;

use super::*;
use crate::error::PartyError;
use crate::requests::text::render;

const LR: &str = "tasks.train.params.optimizer.sgd.lr";

/// Three learning rates, two at a time.
fn many() -> Study {
    let file = serde_json::json!({
        "terms": { "title": "t", "purpose": "p", "requester": { "name": "n", "organisation": "o" } },
        "plan": small_plan(1),
        "sweep": { "grid": { LR: [0.0005, 0.002, 0.004] }, "rank": { "task": "eval" }, "parallel": 2 },
    });
    let file = hospes_protocol::study::StudyFile::read(&file.to_string()).unwrap_or_else(|e| panic!("{e}"));
    Study { sweep: file.sweep, ..study(1, file.plan) }
}

/// The study as one of its settings runs it.
fn run(study: &Study, setting: u32) -> Study {
    Study { plan: study.run(Some(setting)).unwrap(), ..study.clone() }
}

/// Reserves, starts, trains and evaluates one setting, and says that it succeeded.
async fn do_all(world: &mut World, study: &Study, setting: u8) {
    let this = run(study, u32::from(setting));
    world.start_job(&this, job(setting)).await;
    for task in ["train", "eval"] {
        let round = header(&this, job(setting), task, 1, 1, world.now());
        world.open_round(round.clone()).await;
        if task == "train" {
            world.serve_model(&this).await;
        }
        let (upload, path) = world.expect_upload().await;
        world.take(&upload, &path).await;
        world.close_round(&round).await;
    }
    let reason = Some(format!("setting {setting} of the study is done"));
    world.send(ToSite::JobEnded { job: job(setting), state: "success".into(), reason, model: None }).await;
    world.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_says_in_plain_words_what_many_settings_mean_and_counts_all_that_leaves() {
    let mut world = World::new().await;
    let study = many();
    world.connect().await;
    world.offer(&study).await;
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    assert!(review.approvable, "{:?}", review.findings);
    let text = render(&review);
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "It asks for 3 runs of this plan, one for each listed setting, in which optimizer.sgd.lr of 'train' lies between \
         0.0005 and 0.004; at most 2 at a time.",
        "The settings: 1: optimizer.sgd.lr of 'train' 0.0005; 2: optimizer.sgd.lr of 'train' 0.002; 3:",
        "Which result is used: the model with the highest accuracy in 'eval', over all sites together; the others are \
         deleted",
        "? study.sweep: it trains 3 models on the same patients and judges each on the same test rows",
        "Everything that leaves in all 3 runs:",
        "Times and bytes are counted over all 3 runs.",
    ] {
        assert!(flat.contains(part), "'{part}' is missing in\n{text}");
    }
    let outputs = &review.outputs;
    let listed: u64 = outputs.items.iter().map(|i| i.bytes * u64::from(i.times)).sum();
    assert_eq!((outputs.runs, outputs.bytes_in_all), (3, listed));
    assert_eq!(outputs.bytes_in_all, 3 * outputs.bytes_per_run);
    let updates = outputs.items.iter().find(|i| i.task == "train" && i.name == "0.weight").unwrap();
    assert_eq!(updates.times, 3, "one update in each run");
    // What the study lists is what is signed; the first signer cannot make it wider.
    let wider = Approving { max_runs: 5, ..exactly(study.id) };
    let refused = world.sign("sam", wider).await;
    assert!(matches!(&refused, Err(PartyError::Input { .. })), "{refused:?}");
    // Nor by rows of other versions, which could be subtracted from each other.
    assert_eq!(review.data.series, None);
    let bounds = crate::view::SeriesBounds { fewest: 1, most: 1_000 };
    let later = Approving { series: Some(bounds), ..exactly(study.id) };
    let refused = world.sign("sam", later).await;
    assert!(matches!(&refused, Err(PartyError::Input { place: "series", .. })), "{refused:?}");
    world.approve(&study).await;
    let signed = render(&world.handle.review(world.who("ava"), study.id, None).await.unwrap());
    assert!(signed.contains("Runs: 3"), "{signed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_settings_run_at_a_time_under_one_approval_and_nothing_beside_them() {
    let mut world = World::new().await;
    let study = many();
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    let (first, second) = (run(&study, 1), run(&study, 3));
    world.start_job(&first, job(1)).await;
    world.start_job(&second, job(3)).await;
    // Both are open at the same time; each gets its permit and its own update.
    let rounds = [(&first, 1), (&second, 3)].map(|(s, n)| header(s, job(n), "train", 1, 1, world.now()));
    for round in &rounds {
        world.open_round(round.clone()).await;
    }
    world.serve_model(&first).await;
    let mut payloads = Vec::new();
    for _ in &rounds {
        let (upload, path) = world.expect_upload().await;
        payloads.push((upload.round().job, world.take(&upload, &path).await));
    }
    payloads.sort();
    assert_eq!(payloads.iter().map(|(job, _)| *job).collect::<Vec<_>>(), [job(1), job(3)]);
    assert_ne!(payloads[0].1, payloads[1].1, "another learning rate gives another update");
    assert_eq!(world.entered("permit_minted", "success").await, 2);
    // The plan itself is none of its settings, nor is one that lies between two of them.
    world.start_job_expecting(&study, job(9), RefusalCode::OutsideEnvelope).await;
    let mut between = study.plan.clone().into_inner();
    if let Component::NnTrain(train) = &mut between.tasks.get_mut("train").unwrap().component {
        train.optimizer = plan::Optimizer::Sgd { lr: 0.003, momentum: 0.0 };
    }
    let between = Study { plan: Canonical::new(between).unwrap(), ..study.clone() };
    world.start_job_expecting(&between, job(10), RefusalCode::OutsideEnvelope).await;
    // Three runs were signed; a third one is taken, a fourth is not.
    let third = run(&study, 2);
    world.start_job(&third, job(2)).await;
    world.open_round(header(&third, job(2), "train", 1, 1, world.now())).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    world.start_job_expecting(&run(&study, 2), job(4), RefusalCode::RunsUsedUp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_chosen_settings_results_wait_for_release_and_one_is_chosen_only() {
    let mut world = World::new().await;
    let study = many();
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    for setting in 1..=3 {
        do_all(&mut world, &study, setting).await;
    }
    let held = async |world: &World| {
        let jobs = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap();
        assert!(jobs.iter().all(|j| j.state == "success"), "{jobs:?}");
        jobs.into_iter().filter(|j| j.held).map(|j| j.job).collect::<Vec<_>>()
    };
    assert_eq!(held(&world).await, [], "nothing is to be released before one is chosen");
    let chosen = |n: u8| ToSite::JobEnded {
        job: job(n),
        state: "success".into(),
        reason: None,
        model: Some(Digest::of(b"best")),
    };
    world.send(chosen(2)).await;
    world.settle().await;
    assert_eq!(held(&world).await, [job(2)]);
    // Said again, and said of another one, it changes nothing.
    world.send(chosen(2)).await;
    world.send(chosen(3)).await;
    world.settle().await;
    assert_eq!(held(&world).await, [job(2)]);
    world.handle.release(world.who("ava"), job(2)).await.unwrap();
    let released = world
        .expect("the release", |c| match c {
            LinkCommand::Send(FromSite::Release { job }) => Some(*job),
            _ => None,
        })
        .await;
    assert_eq!(released, job(2));
    world.send(chosen(1)).await;
    world.settle().await;
    assert_eq!(held(&world).await, []);
    assert!(world.handle.release(world.who("ava"), job(1)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_asked_about_again_and_again_does_not_end_by_silence() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create_with(temporary.path(), |config| config.runs_at_a_time = 1).await;
    world.furnish().await;
    let study = many();
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    let [first, second] = [run(&study, 1), run(&study, 2)];
    let state = async |world: &World, n: u8| {
        let jobs = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap();
        jobs.into_iter().find(|j| j.job == job(n)).unwrap().state
    };
    // What is silent is looked for in the same step in which such a leap of the clock is noticed and entered.
    let pass = async |world: &World, millis: i64| {
        let before = world.entered("clock_anomaly", "success").await;
        world.pass_time(millis);
        while world.entered("clock_anomaly", "success").await == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.settle().await;
    };
    world.reserved(&first, job(1)).await;
    world.start_job_expecting(&second, job(2), RefusalCode::Busy).await;
    for _ in 0..2 {
        pass(&world, 4 * DAY).await;
        assert_eq!([state(&world, 1).await, state(&world, 2).await], ["waiting", "ready"]);
        world.send(ToSite::JobRollback { job: job(1) }).await;
        world.reserved(&first, job(1)).await;
        world.start_job_expecting(&second, job(2), RefusalCode::Busy).await;
    }
    // Put off for the last time after 12 days, it ends a week later and not before.
    pass(&world, 4 * DAY).await;
    world.send(ToSite::JobRollback { job: job(1) }).await;
    world.settle().await;
    pass(&world, 6 * DAY).await;
    assert_eq!([state(&world, 1).await, state(&world, 2).await], ["ready", "timeout"]);
    pass(&world, 2 * DAY).await;
    assert_eq!(state(&world, 1).await, "timeout");
    // Both may run again, and one that waits for room for it is not silent either.
    world.reserved(&first, job(1)).await;
    world.start_job_expecting(&second, job(2), RefusalCode::Busy).await;
    pass(&world, 2 * 3_600_000).await;
    assert_eq!([state(&world, 1).await, state(&world, 2).await], ["waiting", "ready"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_entered_once_until_another_answer_is_given() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create_with(temporary.path(), |config| config.runs_at_a_time = 1).await;
    world.furnish().await;
    let study = many();
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    let [first, second] = [run(&study, 1), run(&study, 2)];
    world.reserved(&first, job(1)).await;
    world.start_job_expecting(&second, job(2), RefusalCode::Busy).await;
    let mut entries = 1;
    for _ in 0..2 {
        world.handle.stop(world.who("ana"), Some("an incident".into())).await.unwrap();
        // One that waits here, and one of which nothing is known here.
        for n in [2, 2, 3, 3, 2, 3] {
            world.start_job_expecting(&second, job(n), RefusalCode::Stopped).await;
        }
        entries += 2;
        assert_eq!(world.entered("job_started", "refused").await, entries);
        world.handle.stop(world.who("ana"), None).await.unwrap();
        // The same reason is news again after another one.
        world.start_job_expecting(&second, job(3), RefusalCode::Busy).await;
        world.start_job_expecting(&second, job(2), RefusalCode::Busy).await;
        entries = world.entered("job_started", "refused").await;
    }
    assert_eq!(entries, 6, "two each time, and the first time that there is no room for each");
    let jobs = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap();
    let waits = jobs.iter().find(|j| j.job == job(2)).unwrap();
    assert!(waits.reason.as_ref().unwrap().contains("are taken at a time"), "people see why it waits: {waits:?}");
    // Asked about with another plan, it is not that run.
    let other = Study { plan: run(&study, 3).plan, ..study.clone() };
    world.start_job_expecting(&other, job(2), RefusalCode::Header).await;
    let jobs = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!(jobs.iter().find(|j| j.job == job(2)).unwrap().reason, waits.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_run_that_waits_for_room_is_not_one_too_many_when_it_is_asked_about_again() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create_with(temporary.path(), |config| config.runs_at_a_time = 1).await;
    world.furnish().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    world.reserved(&study, job(0)).await;
    // The approval is for one run, and so many may be begun besides.
    let last = u8::try_from(limits::SPARE_JOBS).unwrap();
    for n in 1..=last {
        world.start_job_expecting(&study, job(n), RefusalCode::Busy).await;
    }
    world.start_job_expecting(&study, job(last), RefusalCode::Busy).await;
    world.start_job_expecting(&study, job(last + 1), RefusalCode::RunsUsedUp).await;
    world.send(ToSite::JobEnded { job: job(0), state: "failed".into(), reason: None, model: None }).await;
    world.start_job(&study, job(last)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_of_refusals_fills_the_ledger() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let other = JobId::new(world.now(), [77; 10]);
    for n in 0..limits::REFUSALS + 20 {
        // A round of a run that was never reserved: each of another number.
        let round = u32::try_from(n).unwrap() + 1;
        world.open_round(header(&study, other, "train", round, 1, world.now())).await;
        let reply = world.expect_reply().await;
        assert!(matches!(&reply, RoundReply::Refused(r) if r.code == RefusalCode::Header), "{reply:?}");
    }
    assert_eq!(world.entered("permit_refused", "refused").await, limits::REFUSALS);
    world.pass_time(3_600_000);
    world.open_round(header(&study, other, "train", 1, 2, world.now())).await;
    world.expect_reply().await;
    assert_eq!(world.entered("permit_refused", "refused").await, limits::REFUSALS + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_given_back_can_be_taken_again() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create_with(temporary.path(), |config| config.runs_at_a_time = 1).await;
    world.furnish().await;
    let study = many();
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    let [first, second] = [run(&study, 1), run(&study, 2)];
    world.reserved(&first, job(1)).await;
    for _ in 0..3 {
        world.start_job_expecting(&second, job(2), RefusalCode::Busy).await;
    }
    assert_eq!(world.entered("job_started", "refused").await, 1, "asking again is counted, not entered");
    // Not every site had room for the first one: here its place is free, and the second one gets it.
    world.send(ToSite::JobRollback { job: job(1) }).await;
    world.reserved(&second, job(2)).await;
    world.start_job_expecting(&first, job(1), RefusalCode::Busy).await;
    world.send(ToSite::JobRollback { job: job(2) }).await;
    world.start_job(&first, job(1)).await;
    // What runs is not rolled back.
    world.send(ToSite::JobRollback { job: job(1) }).await;
    world.start_job_expecting(&second, job(2), RefusalCode::Busy).await;
    world.send(ToSite::JobEnded { job: job(1), state: "failed".into(), reason: None, model: None }).await;
    world.start_job(&second, job(2)).await;
    // It failed, so it may run again, when there is room.
    world.start_job_expecting(&first, job(1), RefusalCode::Busy).await;
}
