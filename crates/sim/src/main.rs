//! `hospes-sim`: federations in one process, on a researcher's own or public files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use hospes_protocol::plan::Plan;
use hospes_sim::{Federation, Overrides, Summary, assess, baseline, baseline_task, read_plan};
use serde::Serialize;

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
    /// Judge a model file at every site, and on all rows scaled together as published figures often are.
    Assess(AssessArgs),
}

#[derive(Args)]
struct AssessArgs {
    /// Plan or study file with an `evaluation` task.
    #[arg(long)]
    plan: PathBuf,
    /// The model, a safetensors file.
    #[arg(long)]
    model: PathBuf,
    /// A site and its file, such as `cleveland=cleveland.csv`; once for each site.
    #[arg(long = "site", required = true, value_parser = parse_site)]
    sites: Vec<(String, PathBuf)>,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
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
    match Cli::parse().command {
        Command::Baseline(args) => run_baseline(&args),
        Command::Assess(args) => run_assess(&args),
    }
}

fn plan_of(path: &Path) -> Result<Plan> {
    read_plan(&std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
}

fn federation_of(plan: &Plan, sites: &[(String, PathBuf)]) -> Result<Federation> {
    let files: Vec<_> = sites.iter().map(|(name, path)| (name.clone(), path.as_path())).collect();
    Federation::new(plan, &files)
}

fn run_baseline(args: &BaselineArgs) -> Result<()> {
    let mut plan = plan_of(&args.plan)?;
    let changes = Overrides { epochs: args.epochs, batch: args.batch, learning_rate: args.lr };
    let task = baseline_task(&mut plan, changes)?;
    let federation = federation_of(&plan, &args.sites)?;
    #[allow(clippy::print_stderr)]
    let result = baseline(&federation, &plan, &task, &args.seeds, &mut |step| {
        if !args.json {
            eprintln!("{step}");
        }
    })?;
    let rows = result.rows.iter().map(|row| {
        let spread = |s: &Summary| format!("{:.3} ± {:.3}", s.mean, s.sd);
        let sites = row.sites.iter().map(|s| format!("{:.3}", s.mean)).collect();
        (row.method.clone(), sites, [spread(&row.all), spread(&row.all_scaled_together)])
    });
    let title = format!("accuracy on test rows, mean over {} seeds", result.seeds.len());
    print(&title, "trained on", &result.sites, rows.collect(), args.json.then_some(&result))
}

fn run_assess(args: &AssessArgs) -> Result<()> {
    let plan = plan_of(&args.plan)?;
    let model = std::fs::read(&args.model).with_context(|| format!("cannot read {}", args.model.display()))?;
    let result = assess(&federation_of(&plan, &args.sites)?, &plan, &model)?;
    let digits = |x: f64| format!("{x:.3}");
    let sites = result.accuracy.iter().copied().map(digits).collect();
    let row = (result.model.short(), sites, [digits(result.all), digits(result.all_scaled_together)]);
    print("accuracy on test rows", "model", &result.sites, vec![row], args.json.then_some(&result))
}

/// One line: what it is about, a figure for each site, both figures for all.
type Line = (String, Vec<String>, [String; 2]);

#[allow(clippy::print_stdout)]
fn print<R: Serialize>(title: &str, first: &str, sites: &[String], lines: Vec<Line>, json: Option<&R>) -> Result<()> {
    if let Some(result) = json {
        println!("{}", serde_json::to_string_pretty(result)?);
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    let last = ["all", "all, scaled together"].map(str::to_owned);
    table.set_header([first.to_owned()].into_iter().chain(sites.iter().cloned()).chain(last));
    for (name, figures, all) in lines {
        table.add_row([name].into_iter().chain(figures).chain(all));
    }
    println!("simulation: {title}\n{table}");
    Ok(())
}
