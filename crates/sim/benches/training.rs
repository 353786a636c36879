//! Local training as a site does it, on the CPU: optimiser steps a second of an MLP and of a small CNN. The same steps in
//! PyTorch are in `training.py`; `cargo xtask bench` runs both and prints the ratio.
//!
//! Prints a line `measured NAME STEPS_PER_SECOND` for each model. The time runs from the first hundredth of the steps to
//! the last, so that reading the data is not in it.

#![allow(clippy::print_stdout)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use hospes_cohort::train::{Progress, Pulse};
use hospes_cohort::worker::ENVIRONMENT;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::{self, Plan};
use hospes_sim::Federation;

/// Training rows of the MLP.
const ROWS: usize = 4_096;
/// Features of the MLP.
const FEATURES: usize = 30;
/// Rows of a batch.
const BATCH: usize = 32;

fn main() -> Result<()> {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    // As a worker's process is started; what it says goes to the same place.
    if std::env::var_os(ENVIRONMENT[0].0).is_none() {
        let status =
            Command::new(std::env::current_exe()?).args(std::env::args().skip(1)).envs(ENVIRONMENT).status()?;
        ensure!(status.success(), "{status}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    if "train_mlp".contains(&filter) {
        let table = folder.path().join("table.csv");
        std::fs::write(&table, synthetic()?)?;
        let columns: Vec<String> = (0..FEATURES).map(|i| format!("x{i}")).collect();
        let data =
            format!("{{ subject: id, label: {{ column: y, positive: \"> 0\" }}, columns: [{}] }}", columns.join(", "));
        let plan = plan(&data, "{ preset: { mlp: { hidden: [128, 128] } } }", 20)?;
        println!("measured train_mlp {:.3}", steps_per_second(&plan, &table, ROWS, 20)?);
    }
    if "train_cnn".contains(&filter) {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/breastmnist/site_1.npz");
        let data = "{ subject: subject_id, label: { column: label, positive: \"== 0\" }, \
                    image: { column: image, channels: 1, height: 28, width: 28 } }";
        let plan = plan(data, "{ preset: { cnn_small: { out: 1 } } }", 10)?;
        println!("measured train_cnn {:.3}", steps_per_second(&plan, &images, IMAGES, 10)?);
    }
    Ok(())
}

/// Rows of the first site of the BreastMNIST example, all folds together.
const IMAGES: usize = 260;

/// Numbers that look like standardised features, and a label that depends on the first ones.
fn synthetic() -> Result<String> {
    let mut state = 1u64;
    let mut next = || {
        // Knuth's MMIX generator; the upper bits.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(state >> 33).unwrap_or(0)) / f64::from(1u32 << 31) * 2.0 - 1.0
    };
    let mut text = String::from("id,y");
    for i in 0..FEATURES {
        write!(text, ",x{i}")?;
    }
    for row in 0..ROWS {
        let values: Vec<f64> = (0..FEATURES).map(|_| next()).collect();
        let label = u8::from(values[0] + values[1] * values[2] > 0.0);
        write!(text, "\np{row},{label}")?;
        for value in values {
            write!(text, ",{value:.5}")?;
        }
    }
    text.push('\n');
    Ok(text)
}

fn plan(data: &str, model: &str, epochs: u32) -> Result<Plan> {
    let text = format!(
        r"
schema: hospes/plan/v1
name: benchmark
data: {data}
tasks:
  read: {{ component: reader }}
  alone:
    component: local_baseline
    inputs: {{ train: read, data: read }}
    params:
      model: {model}
      loss: binary_cross_entropy
      optimizer: {{ adam: {{ lr: 0.001 }} }}
      epochs: {epochs}
      batch: {BATCH}
"
    );
    Ok(plan::read(&text)?)
}

#[allow(clippy::cast_precision_loss)]
fn steps_per_second(plan: &Plan, file: &Path, rows: usize, epochs: usize) -> Result<f64> {
    let federation = Federation::new(plan, &[("one".into(), file), ("two".into(), file)])?;
    let plan = Canonical::new(plan.clone())?;
    let header = federation.header(&plan, "alone", 1, None)?;
    let member = federation.members().first().context("no site")?;
    let cohort = federation.open(member, &plan, &header)?;
    let mut times: Vec<(u32, Instant)> = Vec::new();
    let mut note = |progress: Progress| {
        times.push((progress.done, Instant::now()));
        true
    };
    cohort.fit("alone", &mut Pulse { now: &|| Timestamp::from_millis(0), progress: &mut note })?;
    let (first, last) = times.first().zip(times.last()).context("it told of no progress")?;
    let steps = rows.div_ceil(BATCH) * epochs;
    let part = f64::from(last.0 - first.0) / 100.0;
    Ok(steps as f64 * part / (last.1 - first.1).as_secs_f64())
}
