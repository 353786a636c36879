//! `cargo xtask bench`: a release build, measured against the targets.
//!
//! Kernels are measured by criterion in the crates that hold them; rounds by whole processes
//! (`tests/benches/rounds.rs`), which prints a line `measured NAME VALUE` for each figure, and those with secure aggregation
//! by their state machines (`crates/privacy/benches/secure_rounds.rs`) likewise; idle memory here.

mod memory;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::demo::figures::table;
use crate::demo::process::Programs;
use crate::machine::{self, cargo, target_folder};

/// What is to be reached.
struct Target {
    /// Name under which it is measured.
    name: &'static str,
    /// In words.
    what: &'static str,
    /// The figure.
    limit: f64,
    unit: Unit,
}

/// Units, and with them which direction is better.
#[derive(Clone, Copy)]
enum Unit {
    Milliseconds,
    MiB,
    Megabytes,
    Kilobytes,
    PerSecond,
    Times,
}

impl Unit {
    fn shown(self, value: f64) -> String {
        match self {
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::MiB => format!("{value:.0} MiB"),
            Self::Megabytes => format!("{value:.0} MB"),
            Self::Kilobytes => format!("{value:.0} kB"),
            Self::Times => format!("{value:.2} times"),
            Self::PerSecond if value >= 1e9 => format!("{:.2} G/s", value / 1e9),
            Self::PerSecond if value >= 1e6 => format!("{:.1} M/s", value / 1e6),
            Self::PerSecond if value >= 1e3 => format!("{:.1} k/s", value / 1e3),
            Self::PerSecond => format!("{value:.1} /s"),
        }
    }

    /// How many times as good as it must be; below 1 is a miss.
    fn ratio(self, measured: f64, limit: f64) -> f64 {
        match self {
            Self::PerSecond => measured / limit,
            Self::Milliseconds | Self::MiB | Self::Megabytes | Self::Kilobytes | Self::Times => limit / measured,
        }
    }
}

const TARGETS: &[Target] = &[
    Target { name: "empty_round_2", what: "empty round, 2 sites, mutual TLS", limit: 50.0, unit: Unit::Milliseconds },
    Target { name: "empty_round_10", what: "empty round, 10 sites, mutual TLS", limit: 50.0, unit: Unit::Milliseconds },
    Target {
        name: "empty_round_10_masked",
        what: "the same with secure aggregation, 10 sites",
        limit: 150.0,
        unit: Unit::Milliseconds,
    },
    Target {
        name: "round_40mb_2",
        what: "round with a 40 MB model, 2 sites, outbox and staged upload durable",
        limit: 1_000.0,
        unit: Unit::Milliseconds,
    },
    Target { name: "exact_sum", what: "exact weighted sum of updates, one core", limit: 0.8e9, unit: Unit::PerSecond },
    Target { name: "mask", what: "masks expanded and taken off a sum, one core", limit: 1e9, unit: Unit::PerSecond },
    Target {
        name: "shamir_split",
        what: "one secret split among 100, 67 of whom reconstruct it",
        limit: 1.3,
        unit: Unit::Milliseconds,
    },
    Target { name: "shamir_combine", what: "the same combined again", limit: 1.0, unit: Unit::Milliseconds },
    Target {
        name: "secagg_upload_ratio",
        what: "masked upload against 32-bit floats, 100 sites, 16 bits",
        limit: 0.75,
        unit: Unit::Times,
    },
    Target {
        name: "secagg_cpu_100",
        what: "whole masked round, 100 sites, 1 M parameters: CPU time of all",
        limit: 30_000.0,
        unit: Unit::Milliseconds,
    },
    Target {
        name: "dp_noise",
        what: "discrete Gaussian noise drawn, numbers on one core",
        limit: 2e6,
        unit: Unit::PerSecond,
    },
    Target {
        name: "dp_account",
        what: "ε of 30,000 steps at a rate of 1/1,000, both directions, on one core",
        limit: 4.0,
        unit: Unit::PerSecond,
    },
    Target {
        name: "coordinator_peak_2",
        what: "coordinator's peak memory above idle, 2 sites, 40 MB model",
        limit: 128.0,
        unit: Unit::MiB,
    },
    Target {
        name: "coordinator_peak_20",
        what: "coordinator's peak memory above idle, 20 sites, 40 MB model",
        limit: 128.0,
        unit: Unit::MiB,
    },
    Target {
        name: "coordinator_peak_200",
        what: "coordinator's peak memory above idle, 200 sites, 40 MB model",
        limit: 128.0,
        unit: Unit::MiB,
    },
    Target {
        name: "coordinator_peak_200_fed_adam",
        what: "the same, with moments (fed_adam)",
        limit: 128.0,
        unit: Unit::MiB,
    },
    Target {
        name: "coordinator_peak_200_scaffold",
        what: "the same, with control variates (scaffold)",
        limit: 128.0,
        unit: Unit::MiB,
    },
    Target { name: "coordinator_peak_200_norm_bound", what: "the same, norm_bound", limit: 128.0, unit: Unit::MiB },
    Target { name: "coordinator_peak_200_median", what: "the same, median", limit: 128.0, unit: Unit::MiB },
    Target { name: "coordinator_peak_20_multi_krum", what: "20 sites, multi_krum", limit: 128.0, unit: Unit::MiB },
    Target {
        name: "train_mlp",
        what: "local training of an MLP on the CPU, time against PyTorch's",
        limit: 1.2,
        unit: Unit::Times,
    },
    Target {
        name: "train_cnn",
        what: "local training of a small CNN on the CPU, time against PyTorch's",
        limit: 1.2,
        unit: Unit::Times,
    },
    Target {
        name: "dp_mlp",
        what: "a step of DP-SGD of an MLP on the CPU, time against a plain step",
        limit: 3.0,
        unit: Unit::Times,
    },
    Target {
        name: "dp_cnn",
        what: "a step of DP-SGD of a small CNN on the CPU, time against a plain step",
        limit: 3.0,
        unit: Unit::Times,
    },
    Target { name: "idle_site", what: "idle resident memory of hospes-site", limit: 30.0, unit: Unit::Megabytes },
    Target {
        name: "idle_coordinator",
        what: "idle resident memory of hospes-coordinator",
        limit: 30.0,
        unit: Unit::Megabytes,
    },
    Target {
        name: "after_job_site",
        what: "resident memory of hospes-site after a job, the largest of four",
        limit: 30.0,
        unit: Unit::Megabytes,
    },
    Target {
        name: "after_job_coordinator",
        what: "resident memory of hospes-coordinator after a job",
        limit: 30.0,
        unit: Unit::Megabytes,
    },
    Target {
        name: "window_start",
        what: "the app, from its start to the sign-in",
        limit: 1_500.0,
        unit: Unit::Milliseconds,
    },
    Target {
        name: "window_memory",
        what: "idle memory of all processes of the app (PSS)",
        limit: 280.0,
        unit: Unit::Megabytes,
    },
    Target {
        name: "ingest",
        what: "rows of 2 M surveyed, typed, hashed, compressed, encrypted and made durable",
        limit: 200e3,
        unit: Unit::PerSecond,
    },
    Target {
        name: "ledger_append",
        what: "ledger: entries appended, one fsync a batch",
        limit: 5e3,
        unit: Unit::PerSecond,
    },
    Target {
        name: "ledger_verify",
        what: "ledger: entries verified offline, one core",
        limit: 200e3,
        unit: Unit::PerSecond,
    },
    Target { name: PAGE, what: "ledger: a page of 100 of a million entries", limit: 100.0, unit: Unit::Milliseconds },
];

/// Figures without a target: name, words, unit.
const REPORTS: &[(&str, &str, Unit)] = &[
    ("secagg_cpu_10", "masked round of 10 sites, 1 M parameters: CPU time of all", Unit::Milliseconds),
    ("secagg_site_10", "… of one site", Unit::Milliseconds),
    ("secagg_coordinator_10", "… of the coordinator", Unit::Milliseconds),
    ("secagg_up_10", "… bytes that one site sends", Unit::Kilobytes),
    ("secagg_down_10", "… bytes that one site hears", Unit::Kilobytes),
    ("secagg_site_100", "masked round of 100 sites: CPU time of one site", Unit::Milliseconds),
    ("secagg_coordinator_100", "… of the coordinator", Unit::Milliseconds),
    ("secagg_up_100", "… bytes that one site sends", Unit::Kilobytes),
    ("secagg_down_100", "… bytes that one site hears", Unit::Kilobytes),
    ("secagg_cpu_1000", "masked round of 1,000 sites, a graph: CPU time of all", Unit::Milliseconds),
    ("secagg_site_1000", "… of one site", Unit::Milliseconds),
    ("secagg_coordinator_1000", "… of the coordinator", Unit::Milliseconds),
    ("secagg_up_1000", "… bytes that one site sends", Unit::Kilobytes),
    ("secagg_down_1000", "… bytes that one site hears", Unit::Kilobytes),
];

/// Benchmarks of criterion whose time is the figure: the benchmark's full id, and the name of its target.
const TIMED: &[(&str, &str)] = &[("shamir/split_100_67", "shamir_split"), ("shamir/combine_100_67", "shamir_combine")];

/// Benchmarks of criterion: the benchmark's full id, and the name of its target.
const KERNELS: &[(&str, &str)] = &[
    ("exact_sum/add_block", "exact_sum"),
    ("secagg/unmask", "mask"),
    ("dp_noise/draw", "dp_noise"),
    ("dp_account/epsilon", "dp_account"),
    ("ledger/append_one_fsync_a_batch", "ledger_append"),
    ("ledger/verify", "ledger_verify"),
    ("ledger/page_of_100", PAGE),
];
/// The one kernel of which a person waits for each.
const PAGE: &str = "ledger_page";

/// Measures what has `filter` in its name, and prints one table.
///
/// # Errors
/// If something does not build or run, or no name has the filter in it. A figure that misses its target is no error.
pub(crate) fn run(root: &Path, filter: &str) -> Result<()> {
    let wanted = |name: &str| name.contains(filter);
    let any = |names: &[&str]| names.iter().any(|name| wanted(name));
    let reports = REPORTS.iter().map(|(name, ..)| *name);
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).chain(reports).collect();
    ensure!(any(&names), "nothing that is measured has '{filter}' in its name; there are: {}", names.join(", "));
    machine::ready_to_compile()?;
    let programs = Programs::build(&["hospes-coordinator", "hospes-site", "hospesctl"], true)?;
    let mut measured = BTreeMap::new();
    if any(&["idle_site", "idle_coordinator"]) {
        measured.extend(memory::idle(&programs)?);
    }
    if any(&["after_job_site", "after_job_coordinator"]) {
        measured.extend(memory::after_a_job(root, &programs)?);
    }
    if any(&KERNELS.iter().chain(TIMED).map(|(_, name)| *name).collect::<Vec<_>>()) {
        let mut kernels = cargo()?;
        kernels.args([
            "bench",
            "--locked",
            "--workspace",
            "--bench",
            "exact_sum",
            "--bench",
            "secagg",
            "--bench",
            "dp_noise",
            "--bench",
            "dp_account",
            "--bench",
            "ledger",
        ]);
        machine::step("measure kernels", &mut kernels)?;
        for (id, name) in KERNELS {
            let a_second = throughput(id)?;
            measured.insert((*name).to_owned(), if *name == PAGE { 1e3 / a_second } else { a_second });
        }
        for (id, name) in TIMED {
            measured.insert((*name).to_owned(), milliseconds(id)?);
        }
    }
    if names.iter().any(|name| name.starts_with("secagg_") && wanted(name)) {
        println!("── measure masked rounds");
        let mut rounds = cargo()?;
        rounds.args(["bench", "--locked", "--workspace", "--bench", "secure_rounds", "--", filter]);
        measured.extend(measurements(rounds.stderr(Stdio::inherit()))?);
    }
    if names.iter().any(|name| (name.contains("round_") || name.contains("_peak_")) && wanted(name)) {
        measured.extend(rounds(filter)?);
    }
    if any(&["train_mlp", "train_cnn"]) {
        measured.extend(training(root)?);
    }
    if any(&["dp_mlp", "dp_cnn"]) {
        println!("── measure DP-SGD");
        let mut steps = cargo()?;
        steps.args(["bench", "--locked", "--workspace", "--bench", "dp_sgd"]).stderr(Stdio::inherit());
        measured.extend(measurements(&mut steps)?);
    }
    if any(&["window_start", "window_memory"]) {
        machine::ready_to_test(root)?;
        Programs::build(&["hospes", "hospes-site"], true)?;
        println!("── measure the window");
        let mut window = cargo()?;
        window.args(["bench", "--locked", "--workspace", "--bench", "window"]).stderr(Stdio::inherit());
        measured.extend(measurements(&mut window)?);
    }
    if any(&["ingest"]) {
        println!("── measure ingest");
        let mut ingest = cargo()?;
        ingest.args(["bench", "--locked", "--workspace", "--bench", "ingest"]).stderr(Stdio::inherit());
        measured.extend(measurements(&mut ingest)?);
    }
    measured.retain(|name, _| wanted(name));
    print(&measured, filter);
    Ok(())
}

/// Elements a second of one criterion benchmark, from the files that it leaves.
fn throughput(id: &str) -> Result<f64> {
    let elements = left_by(id, "benchmark.json")?["throughput"]["Elements"].as_f64();
    let elements = elements.with_context(|| format!("the benchmark '{id}' names no elements"))?;
    Ok(elements / milliseconds(id)? * 1e3)
}

/// Median time of one criterion benchmark.
fn milliseconds(id: &str) -> Result<f64> {
    let nanoseconds = left_by(id, "estimates.json")?["median"]["point_estimate"].as_f64();
    nanoseconds.map(|time| time / 1e6).with_context(|| format!("the benchmark '{id}' names no time"))
}

/// A file that a criterion benchmark left.
fn left_by(id: &str, name: &str) -> Result<Value> {
    let path = target_folder()?.join("criterion").join(id).join("new").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// Rounds of whole processes.
fn rounds(filter: &str) -> Result<BTreeMap<String, f64>> {
    println!("── measure rounds");
    let mut bench = cargo()?;
    bench.args(["bench", "--locked", "--workspace", "--bench", "rounds", "--", filter]);
    bench.env("HOSPES_PROGRAMS", target_folder()?.join("release")).stderr(Stdio::inherit());
    let output = bench.output().context("start the rounds")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("the rounds failed ({})\n{text}", output.status);
    }
    Ok(text.lines().filter_map(measurement).collect())
}

/// Local training here and in PyTorch: how many times as long ours takes for the same steps.
fn training(root: &Path) -> Result<BTreeMap<String, f64>> {
    println!("── measure training");
    let mut bench = cargo()?;
    bench.args(["bench", "--locked", "--workspace", "--bench", "training"]).stderr(Stdio::inherit());
    let ours = measurements(&mut bench)?;
    let mut script = Command::new(machine::torch()?);
    let theirs = measurements(script.arg(root.join("crates/sim/benches/training.py")))?;
    Ok(ours.into_iter().filter_map(|(name, steps)| Some((name.clone(), theirs.get(&name)? / steps))).collect())
}

/// What a command prints as measured.
fn measurements(command: &mut Command) -> Result<BTreeMap<String, f64>> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{command:?} failed ({})\n{text}", output.status);
    }
    Ok(text.lines().filter_map(measurement).collect())
}

/// Reads `measured NAME VALUE`.
fn measurement(line: &str) -> Option<(String, f64)> {
    let mut words = line.strip_prefix("measured ")?.split(' ');
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

fn print(measured: &BTreeMap<String, f64>, filter: &str) {
    let mut rows = table(&["what", "ours", "must reach", "ratio"]);
    for target in TARGETS.iter().filter(|target| target.name.contains(filter)) {
        let value = measured.get(target.name).copied();
        let (ours, ratio) = match value {
            Some(value) => {
                let ratio = target.unit.ratio(value, target.limit);
                (target.unit.shown(value), format!("{ratio:.2}×{}", if ratio < 1.0 { " MISSED" } else { "" }))
            }
            None => ("not measured".to_owned(), "MISSED".to_owned()),
        };
        rows.add_row(vec![target.what.to_owned(), ours, target.unit.shown(target.limit), ratio]);
    }
    for (name, what, unit) in REPORTS.iter().filter(|(name, ..)| name.contains(filter)) {
        let ours = measured.get(*name).map_or("not measured".to_owned(), |value| unit.shown(*value));
        rows.add_row(vec![(*what).to_owned(), ours, String::new(), String::new()]);
    }
    println!("\n{}\n{rows}", machine_words());
    println!("   ratio: how many times as good as it must be");
}

/// The machine, so that figures can be compared.
fn machine_words() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let version = Command::new("rustc").arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&version).trim().to_owned();
    format!("{} · {cores} cores · {version}", model.trim_start_matches([' ', '\t', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_better_in_both_directions() {
        assert!(Unit::Milliseconds.ratio(25.0, 50.0) > 1.0);
        assert!(Unit::PerSecond.ratio(1e9, 0.8e9) > 1.0);
        assert!(Unit::MiB.ratio(200.0, 128.0) < 1.0);
        let shown = [2.5e9, 2.5e6, 2.5e3, 2.5].map(|value| Unit::PerSecond.shown(value));
        assert_eq!(shown, ["2.50 G/s", "2.5 M/s", "2.5 k/s", "2.5 /s"]);
    }

    #[test]
    fn only_lines_that_measure_are_read() {
        assert_eq!(measurement("measured empty_round_2 12.5"), Some(("empty_round_2".to_owned(), 12.5)));
        assert_eq!(measurement("a measured line"), None);
        assert_eq!(measurement("measured empty_round_2 fast"), None);
    }

    #[test]
    fn every_kernel_has_a_target() {
        for (_, name) in KERNELS.iter().chain(TIMED) {
            assert!(TARGETS.iter().any(|target| target.name == *name), "{name}");
        }
    }
}
