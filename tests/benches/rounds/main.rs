//! Rounds of a real coordinator process with scripted sites: the real link over mutual TLS on loopback, real permits,
//! durable payloads, but no training, so that what is measured is what federation costs.
//!
//! Prints a line `measured NAME VALUE` for each figure; `cargo xtask bench` sets them beside the targets.

#![allow(clippy::print_stdout)]

mod coordinator;
mod masks;
mod site;
mod witness;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;

use coordinator::Coordinator;
use site::{Script, Site};

/// Units of the hidden layer that make a model of 10 million parameters from ten features.
const FORTY_MEGABYTES: u32 = 833_333;

const FED_AVG: &str = "fed_avg: {}";
/// One for each way to work on updates: with moments, with control variates, in whole numbers, entry by entry, in pairs.
/// With the number of sites: what looks at pairs of updates takes as many looks at the model as there are pairs.
const STRATEGIES: [(&str, &str, usize); 5] = [
    ("fed_adam", "fed_adam: { lr: 0.01 }", 200),
    ("scaffold", "scaffold: {}", 200),
    ("norm_bound", "norm_bound: { norm_l2: 1.0 }", 200),
    ("median", "median: {}", 200),
    ("multi_krum", "multi_krum: { byzantine: 2, keep: 10 }", 20),
];

/// One measurement.
struct Scenario {
    sites: usize,
    /// How updates become the next model, as in a plan.
    strategy: &'static str,
    /// Units of a hidden layer; without one, the model has eleven parameters.
    hidden: Option<u32>,
    rounds: u32,
    /// Whether each site writes its payload durably in every round, as a real one does; otherwise the first serves for
    /// all, because the disk of a machine that plays 200 sites is not what is measured.
    fresh: bool,
    /// With secure aggregation.
    masked: bool,
}

/// What was measured.
struct Measured {
    /// Median time from one round's opening to the next.
    round: Duration,
    /// Most memory that the coordinator held, above what it held when idle, in MiB.
    peak_mib: f64,
}

fn main() -> Result<()> {
    // Cargo passes `--bench`; a filter would be the only other argument.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok().context("install the TLS provider")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (name, sites, masked) in
        [("empty_round_2", 2, false), ("empty_round_10", 10, false), ("empty_round_10_masked", 10, true)]
    {
        if name.contains(&filter) {
            let scenario = Scenario { sites, strategy: FED_AVG, hidden: None, rounds: 40, fresh: true, masked };
            let measured = runtime.block_on(run(&scenario))?;
            println!("measured {name} {:.3}", measured.round.as_secs_f64() * 1e3);
        }
    }
    if "round_40mb_2".contains(&filter) || "coordinator_peak_2".contains(&filter) {
        let hidden = Some(FORTY_MEGABYTES);
        let scenario = Scenario { sites: 2, strategy: FED_AVG, hidden, rounds: 6, fresh: true, masked: false };
        let measured = runtime.block_on(run(&scenario))?;
        println!("measured round_40mb_2 {:.3}", measured.round.as_secs_f64() * 1e3);
        println!("measured coordinator_peak_2 {:.3}", measured.peak_mib);
    }
    for sites in [20, 200] {
        let name = format!("coordinator_peak_{sites}");
        if name.contains(&filter) {
            let hidden = Some(FORTY_MEGABYTES);
            let scenario = Scenario { sites, strategy: FED_AVG, hidden, rounds: 2, fresh: false, masked: false };
            println!("measured {name} {:.3}", runtime.block_on(run(&scenario))?.peak_mib);
        }
    }
    for (kind, strategy, sites) in STRATEGIES {
        let name = format!("coordinator_peak_{sites}_{kind}");
        if name.contains(&filter) {
            // An update of scaffold is twice as long as the model.
            let hidden = Some(if kind == "scaffold" { FORTY_MEGABYTES / 2 } else { FORTY_MEGABYTES });
            let scenario = Scenario { sites, strategy, hidden, rounds: 2, fresh: false, masked: false };
            println!("measured {name} {:.3}", runtime.block_on(run(&scenario))?.peak_mib);
        }
    }
    Ok(())
}

async fn run(scenario: &Scenario) -> Result<Measured> {
    let folder = tempfile::Builder::new().prefix("hospes-").tempdir()?;
    let mut coordinator = Coordinator::start(folder.path()).await?;
    let mut sites = Vec::new();
    for number in 0..scenario.sites {
        let (invitation, words) = coordinator.invite(&format!("site-{number}"))?;
        sites.push(Site::enrol(number, &invitation, &words).await?);
    }
    let script = Script { folder: folder.path().to_owned(), fresh: scenario.fresh };
    let (opened, mut openings) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for site in sites {
        // The first site keeps the time.
        let clock = (site.number == 0).then(|| opened.clone());
        tasks.spawn(site.play(script.clone(), clock));
    }
    drop(opened);
    coordinator.wait_until_connected(scenario.sites).await?;
    let idle = coordinator.resident_mib()?;
    coordinator.forget_peak()?;
    coordinator.submit(&study(scenario))?;
    while let Some(played) = tasks.join_next().await {
        played.context("a site panicked")?.with_context(|| coordinator.tail())?;
    }
    let peak_mib = coordinator.peak_mib()? - idle;
    coordinator.stop();
    // A round that is offered again, after a reconnection or another attempt, counts from its first opening.
    let mut moments: BTreeMap<u32, Instant> = BTreeMap::new();
    while let Some((round, moment)) = openings.recv().await {
        moments.entry(round).or_insert(moment);
    }
    ensure!(moments.len() == scenario.rounds as usize, "{} rounds were opened", moments.len());
    let moments: Vec<Instant> = moments.into_values().collect();
    let mut rounds: Vec<Duration> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
    rounds.sort();
    let round = rounds.get(rounds.len() / 2).copied().context("one round tells no time")?;
    Ok(Measured { round, peak_mib })
}

/// A study whose only federated task is training.
fn study(scenario: &Scenario) -> String {
    let hidden = scenario.hidden.map(|out| format!("{{ linear: {{ out: {out} }} }}, {{ relu: {{}} }}, "));
    format!(
        r#"
terms:
  title: Benchmark
  purpose: Measures how long a round takes. No data are used.
  requester: {{ name: Benchmark, organisation: Benchmark }}
plan:
  schema: hospes/plan/v1
  name: benchmark
  data:
    subject: subject
    label: {{ column: label, positive: "> 0" }}
    columns: [a, b, c, d, e, f, g, h, i, j]
  tasks:
    read: {{ component: reader }}
    train:
      component: nn_train
      inputs: {{ train: read }}
      params:
        model: [{}{{ linear: {{ out: 1 }} }}]
        loss: binary_cross_entropy
        optimizer: {{ sgd: {{ lr: 0.001 }} }}
        rounds: {}
        local: {{ updates: 1, batch: 1 }}
        strategy: {{ {} }}
        privacy: {{ {}: {{}} }}
        quantise: {{ clip: 4.0, bits: 32, n_max: {} }}
"#,
        hidden.unwrap_or_default(),
        scenario.rounds,
        scenario.strategy,
        if scenario.masked { "secure_aggregation" } else { "plain" },
        site::ROWS,
    )
}
