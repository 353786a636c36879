//! Replays a seed with its trace, or runs many.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use hospes_simulation::{FILE_MOMENTS, Options, Planted, Template, on_one_thread, replay, run};

/// Whole federations under a seeded scheduler of faults.
#[derive(Parser)]
struct Arguments {
    /// Runs this seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Runs these seeds: `A..B`, without B.
    #[arg(long)]
    seeds: Option<String>,
    /// Prints what happens.
    #[arg(long)]
    trace: bool,
    /// No faults.
    #[arg(long)]
    calm: bool,
    /// With secure aggregation.
    #[arg(long)]
    masked: bool,
    /// With a coordinator that lies about whose inputs count; with --masked.
    #[arg(long, requires = "masked")]
    lies: bool,
    /// Kills each process once, when it first comes to this moment of a file.
    #[arg(long, value_parser = PossibleValuesParser::new(FILE_MOMENTS))]
    dies_at: Option<String>,
    /// Real seconds that a seed may take.
    #[arg(long, default_value_t = 120)]
    limit_s: u64,
    /// Puts in a bug on purpose.
    #[arg(long)]
    planted: Option<Bug>,
    /// Stops at the first finding.
    #[arg(long)]
    first: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bug {
    DoubleCount,
    LostAcknowledgement,
    SkippedPermitCheck,
    PrgDiffers,
    ShareRevealedTwice,
    SumSignedTwice,
}

#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let planted = arguments.planted.map(|bug| match bug {
        Bug::DoubleCount => Planted::DoubleCount,
        Bug::LostAcknowledgement => Planted::LostAcknowledgement,
        Bug::SkippedPermitCheck => Planted::SkippedPermitCheck,
        Bug::PrgDiffers => Planted::PrgDiffers,
        Bug::ShareRevealedTwice => Planted::ShareRevealedTwice,
        Bug::SumSignedTwice => Planted::SumSignedTwice,
    });
    let seeds = match (&arguments.seeds, arguments.seed) {
        (Some(text), _) => {
            let (from, to) = text.split_once("..").context("--seeds: write A..B")?;
            from.parse()?..to.parse()?
        }
        (None, seed) => seed.unwrap_or(0)..seed.unwrap_or(0) + 1,
    };
    let options = Options {
        planted,
        calm: arguments.calm,
        masked: arguments.masked,
        lies: arguments.lies,
        trace: arguments.trace,
        dies_at: FILE_MOMENTS.into_iter().find(|moment| arguments.dies_at.as_deref() == Some(*moment)),
        limit: Some(Duration::from_secs(arguments.limit_s)),
    };
    on_one_thread(async move {
        let template = match (options.masked, options.lies) {
            (true, true) => Template::lied_to().await?,
            (true, false) => Template::masked().await?,
            (false, _) => Template::make().await?,
        };
        let (start, count) = (Instant::now(), seeds.end - seeds.start);
        let (mut found, mut events, mut receipts, mut published) = (0u64, 0, 0, 0);
        let mut ends = std::collections::BTreeMap::<String, u64>::new();
        for seed in seeds {
            let outcome = match Box::pin(run(&template, seed, options)).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    println!("seed {seed}: {error:#}");
                    found += 1;
                    if arguments.first {
                        break;
                    }
                    continue;
                }
            };
            events += outcome.events;
            receipts += outcome.receipts;
            published += outcome.published;
            *ends.entry(outcome.ended.clone()).or_default() += 1;
            for words in &outcome.violations {
                println!("seed {seed}: {words}\n    {}", replay(seed, options));
            }
            found += u64::from(!outcome.violations.is_empty());
            if found > 0 && arguments.first {
                break;
            }
            if count == 1 {
                println!("{outcome:#?}");
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{count} seeds in {seconds:.1} s: {events} events, {receipts} receipts, {published} published rounds; jobs \
             ended {ends:?}; {found} seeds with findings"
        );
        Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
