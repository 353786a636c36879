//! `hospes-sim`: federations in one process, on a researcher's own or public files.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use hospes_sim::{Baseline, Federation, Overrides, Summary, baseline, baseline_task, read_plan};

/// Federations in one process, on a researcher's own or public files. Nothing here asks a hospital or leaves the
/// machine; everything printed is a simulation.
#[derive(Parser)]
#[command(name = "hospes-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train on pooled rows and at each site alone, and judge every model at every site.
    Baseline(BaselineArgs),
}

#[derive(Args)]
struct BaselineArgs {
    /// Plan or study file with one `local_baseline` task.
    #[arg(long)]
    plan: PathBuf,
    /// A site and its file, such as `cleveland=cleveland.csv`; once for each site.
    #[arg(long = "site", required = true, value_parser = parse_site)]
    sites: Vec<(String, PathBuf)>,
    /// Seeds, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 4, 5])]
    seeds: Vec<u64>,
    /// Passes over the training rows, instead of the plan's.
    #[arg(long)]
    epochs: Option<u32>,
    /// Rows of a batch, instead of the plan's.
    #[arg(long)]
    batch: Option<u32>,
    /// Learning rate, instead of the plan's.
    #[arg(long)]
    lr: Option<f64>,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn parse_site(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("expected <name>=<file>".to_owned()),
    }
}

fn main() -> Result<()> {
    let Command::Baseline(args) = Cli::parse().command;
    let text = std::fs::read_to_string(&args.plan).with_context(|| format!("cannot read {}", args.plan.display()))?;
    let mut plan = read_plan(&text)?;
    let changes = Overrides { epochs: args.epochs, batch: args.batch, learning_rate: args.lr };
    let task = baseline_task(&mut plan, changes)?;
    let files: Vec<_> = args.sites.iter().map(|(name, path)| (name.clone(), path.as_path())).collect();
    let federation = Federation::new(&plan, &files)?;
    let quiet = args.json;
    #[allow(clippy::print_stderr)]
    let result = baseline(&federation, &plan, &task, &args.seeds, &mut |step| {
        if !quiet {
            eprintln!("{step}");
        }
    })?;
    print(&result, args.json)
}

#[allow(clippy::print_stdout)]
fn print(result: &Baseline, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(result)?);
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    let head = ["trained on".to_owned()]
        .into_iter()
        .chain(result.sites.iter().cloned())
        .chain(["all".into(), "all, scaled together".into()]);
    table.set_header(head);
    for row in &result.rows {
        let mean = |s: &Summary| format!("{:.3}", s.mean);
        let spread = |s: &Summary| format!("{:.3} ± {:.3}", s.mean, s.sd);
        let all = [spread(&row.all), spread(&row.all_scaled_together)];
        let cells = [row.method.clone()].into_iter().chain(row.sites.iter().map(mean)).chain(all);
        table.add_row(cells);
    }
    println!("simulation: accuracy on test rows, mean over {} seeds", result.seeds.len());
    println!("{table}");
    Ok(())
}
