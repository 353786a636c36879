//! Two thousand schedules of faults, the same trace for the same seed, a death at every moment of a file, and six bugs that
//! must be found.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use hospes_simulation::{FILE_MOMENTS, Options, Planted, Template, on_one_thread, replay, run};

/// Runs seeds; none has a finding.
fn schedules(seeds: Range<u64>) -> Result<()> {
    on_one_thread(async move {
        let template = Template::make().await?;
        let mut successes = 0;
        for seed in seeds {
            let options = Options::default();
            let outcome = Box::pin(run(&template, seed, options)).await?;
            assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{}", outcome.violations, replay(seed, options));
            successes += u64::from(outcome.ended == "success");
        }
        // A federation that never gets anywhere breaks no rule either.
        assert!(successes > 160, "only {successes} jobs came to a result");
        Ok(())
    })
}

/// Several tests, so that all cores have some.
macro_rules! schedules {
    ($($name:ident: $seeds:expr;)*) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                schedules($seeds)
            }
        )*
    };
}

schedules! {
    schedules_of_faults_break_no_rule_1: 0..500;
    schedules_of_faults_break_no_rule_2: 500..1_000;
    schedules_of_faults_break_no_rule_3: 1_000..1_500;
    schedules_of_faults_break_no_rule_4: 1_500..2_000;
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    on_one_thread(async {
        let (one, other) = (Template::make().await?, Template::make().await?);
        for seed in 0..12 {
            let first = Box::pin(run(&one, seed, Options::default())).await?;
            let second = Box::pin(run(&other, seed, Options::default())).await?;
            assert_eq!(first, second, "{}", replay(seed, Options::default()));
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn without_faults_every_job_succeeds() {
    on_one_thread(async {
        let template = Template::make().await?;
        for seed in 0..5 {
            let options = Options { calm: true, ..Options::default() };
            let outcome = Box::pin(run(&template, seed, options)).await?;
            // Of two plans with a round more: moments, and a regression.
            let rounds = if seed % 5 == 2 || seed % 5 == 4 { 3 } else { 2 };
            let replay = replay(seed, options);
            assert_eq!((outcome.ended.as_str(), outcome.published), ("success", rounds), "{replay}");
            assert_eq!(outcome.violations, [] as [String; 0], "{replay}");
            assert_eq!((outcome.receipts, outcome.deaths), (3 * rounds, 0), "{replay}");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn schedules_of_faults_break_no_rule_in_masked_rounds() -> Result<()> {
    on_one_thread(async {
        let template = Template::masked().await?;
        let mut successes = 0;
        for seed in 0..100 {
            let options = Options { masked: true, ..Options::default() };
            let outcome = Box::pin(run(&template, seed, options)).await?;
            assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{}", outcome.violations, replay(seed, options));
            successes += u64::from(outcome.ended == "success");
        }
        // Of three sites each must be there in every step.
        assert!(successes > 10, "only {successes} jobs came to a result");
        Ok(())
    })
}

#[test]
fn masked_rounds_are_the_same_for_the_same_seed_and_succeed_without_faults() -> Result<()> {
    on_one_thread(async {
        let template = Template::masked().await?;
        for seed in 0..3 {
            let options = Options { masked: true, ..Options::default() };
            let first = Box::pin(run(&template, seed, options)).await?;
            assert_eq!(first, Box::pin(run(&template, seed, options)).await?, "{}", replay(seed, options));
            let options = Options { calm: true, ..options };
            let outcome = Box::pin(run(&template, seed, options)).await?;
            let replay = replay(seed, options);
            assert_eq!(outcome.violations, [] as [String; 0], "{replay}");
            // A regression takes a round more.
            let rounds = if seed % 3 == 1 { 3 } else { 2 };
            let ended = (outcome.ended.as_str(), outcome.published, outcome.receipts, outcome.deaths);
            assert_eq!(ended, ("success", rounds, 3 * rounds, 0), "{replay}");
        }
        Ok(())
    })
}

/// Whatever was written, made durable or named when its process died: the next one makes of it what the rules allow. One seed
/// of each plan, and one with masks.
#[test]
fn a_process_that_dies_at_any_moment_of_a_file_breaks_no_rule() -> Result<()> {
    on_one_thread(async {
        let (plain, with_masks) = (Template::make().await?, Template::masked().await?);
        for moment in FILE_MOMENTS {
            for seed in 0..6 {
                let masked = seed == 5;
                let options = Options { calm: true, masked, dies_at: Some(moment), ..Options::default() };
                let template = if masked { &with_masks } else { &plain };
                let outcome = Box::pin(run(template, seed, options)).await?;
                let replay = replay(seed, options);
                assert_eq!(outcome.violations, [] as [String; 0], "{replay}");
                assert!(outcome.deaths > 0, "nobody died at {moment}\n{replay}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_seed_that_takes_too_long_names_the_command_that_replays_it() {
    let ended: Result<()> = on_one_thread(async {
        let template = Template::make().await?;
        let options = Options { limit: Some(Duration::ZERO), ..Options::default() };
        Box::pin(run(&template, 3, options)).await.map(drop)
    });
    let words = format!("{:#}", ended.unwrap_err());
    assert!(words.starts_with("replay it: cargo run -p hospes-simulation -- --seed 3 --trace: it did not"), "{words}");
}

/// A planted bug is found within so many seeds, by the rule that it breaks, and without the bug that rule holds.
fn is_found(planted: Planted, words: &str, seeds: u64, clean: Options) -> Result<()> {
    on_one_thread(async move {
        let template = match (clean.masked, clean.lies) {
            (true, true) => Template::lied_to().await?,
            (true, false) => Template::masked().await?,
            (false, _) => Template::make().await?,
        };
        for seed in 0..seeds {
            let options = Options { planted: Some(planted), ..clean };
            let outcome = Box::pin(run(&template, seed, options)).await?;
            if let Some(found) = outcome.violations.iter().find(|found| found.contains(words)) {
                let without = Box::pin(run(&template, seed, clean)).await?;
                let replay = replay(seed, clean);
                assert_eq!(without.violations, [] as [String; 0], "{found}: also without the bug\n{replay}");
                return Ok(());
            }
        }
        panic!("{planted:?} was not found within {seeds} seeds");
    })
}

const MASKED: Options =
    Options { planted: None, calm: false, masked: true, lies: false, trace: false, dies_at: None, limit: None };

#[test]
fn a_double_count_is_found() -> Result<()> {
    is_found(Planted::DoubleCount, "counted twice", 2_000, Options::default())
}

#[test]
fn a_lost_acknowledgement_is_found() -> Result<()> {
    is_found(Planted::LostAcknowledgement, "an acknowledged update is lost", 2_000, Options::default())
}

#[test]
fn a_skipped_permit_check_is_found() -> Result<()> {
    is_found(Planted::SkippedPermitCheck, "although its store says", 2_000, Options::default())
}

#[test]
fn a_generator_of_masks_that_differs_by_processor_is_found() -> Result<()> {
    is_found(Planted::PrgDiffers, "it does not follow from the updates", 40, MASKED)
}

#[test]
fn a_share_that_is_revealed_twice_is_found() -> Result<()> {
    is_found(Planted::ShareRevealedTwice, "revealed both shares of a peer", 40, Options { lies: true, ..MASKED })
}

#[test]
fn a_set_of_inputs_that_is_signed_twice_is_found() -> Result<()> {
    is_found(Planted::SumSignedTwice, "agreed to two sums", 40, Options { lies: true, ..MASKED })
}

/// Whatever a coordinator says of a second set of inputs, sites stand for one, and what they say of it breaks no rule.
#[test]
fn schedules_of_faults_break_no_rule_where_a_coordinator_lies_about_sums() -> Result<()> {
    on_one_thread(async {
        let template = Template::lied_to().await?;
        for seed in 0..25 {
            let options = Options { lies: true, ..MASKED };
            let outcome = Box::pin(run(&template, seed, options)).await?;
            assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{}", outcome.violations, replay(seed, options));
        }
        Ok(())
    })
}
