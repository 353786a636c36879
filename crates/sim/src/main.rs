//! `hospes-sim`: federations in one process, on a researcher's own or public files.

mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use hospes_protocol::plan::Plan;
use hospes_sim::{
    Assessment, Federation, Live, Overrides, Summary, assess, baseline, baseline_task, read_plan, read_study, set,
};
use serde::Serialize;
use serde_json::Value;

/// Federations in one process, on a researcher's own or public files. Nothing here asks a hospital or leaves the
/// machine; everything printed is a simulation.
#[derive(Parser)]
#[command(name = "hospes-sim", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Run a plan: a coordinator and a site for each file, as they ship, in this process.
#[derive(Args)]
struct RunArgs {
    /// Plan or study file.
    #[arg(required = true)]
    plan: Option<PathBuf>,
    /// A site's file, such as `a.csv`, or `name=a.csv`; once for each site.
    #[arg(long = "site", required = true, value_parser = parse_file)]
    sites: Vec<(String, PathBuf)>,
    /// Another value at a place of the plan, such as `tasks.train.params.optimizer.sgd.lr=0.01`; the value is JSON.
    #[arg(long = "set", value_parser = parse_change)]
    changes: Vec<(String, Value)>,
    /// Seeds instead of the plan's, separated by commas; one run for each.
    #[arg(long, value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Folder for the models.
    #[arg(long)]
    out: Option<PathBuf>,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
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
    /// A site and its file, such as `cleveland=cleveland.csv`; once for each site. Which rows are drawn for the test follows
    /// from name and seed: give those with which the model was trained.
    #[arg(long = "site", required = true, value_parser = parse_site)]
    sites: Vec<(String, PathBuf)>,
    /// Seed instead of the plan's.
    #[arg(long)]
    seed: Option<u64>,
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
    /// One row only, such as `pooled` or `cleveland alone`.
    #[arg(long)]
    only: Option<String>,
    /// Another value at a place of the plan; the value is JSON.
    #[arg(long = "set", value_parser = parse_change)]
    changes: Vec<(String, Value)>,
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

fn parse_file(text: &str) -> Result<(String, PathBuf), String> {
    if text.contains('=') {
        return parse_site(text);
    }
    let path = PathBuf::from(text);
    match path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) {
        Some(name) => Ok((name, path)),
        None => Err("expected a file, or <name>=<file>".to_owned()),
    }
}

fn parse_change(text: &str) -> Result<(String, Value), String> {
    let (place, value) = text.split_once('=').ok_or("expected <place>=<value>")?;
    // A bare word is a text.
    Ok((place.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()))))
}

fn main() -> ExitCode {
    match command(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show::complain(&format!("hospes-sim: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn command(cli: Cli) -> Result<()> {
    match cli.command {
        Some(Command::Baseline(args)) => run_baseline(&args),
        Some(Command::Assess(args)) => run_assess(&args),
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(Box::pin(run(&cli.run)))
        }
    }
}

/// Runs of one plan.
#[derive(Serialize)]
struct Runs {
    /// Always `simulation`.
    kind: &'static str,
    sites: Vec<String>,
    runs: Vec<OneRun>,
}

#[derive(Serialize)]
struct OneRun {
    seed: u64,
    /// The model judged on every site's test rows, if the plan evaluates one of a yes/no label.
    assessment: Option<Assessment>,
    /// Why it was not judged; the card has the figures that the sites let leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_assessed: Option<String>,
    /// The model's card: what the sites let leave.
    card: Option<Value>,
    /// The tables of the regressions that the plan fits.
    fits: Vec<Value>,
}

async fn run(args: &RunArgs) -> Result<()> {
    let path = args.plan.as_deref().context("which plan?")?;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (terms, plan) = read_study(&text)?;
    let plan = set(&plan, &args.changes)?;
    let files: Vec<_> = args.sites.iter().map(|(name, path)| (name.clone(), path.as_path())).collect();
    let live = Live::start(&plan.data.subject, &files).await?;
    let seeds = if args.seeds.is_empty() { vec![plan.seed] } else { args.seeds.clone() };
    let mut runs = Vec::new();
    for seed in seeds {
        let plan = Plan { seed, ..plan.clone() };
        #[allow(clippy::print_stderr)]
        let mut tell = |step: &str| {
            if !args.json {
                eprintln!("seed {seed}: {step}");
            }
        };
        let run = live.run(&terms, &plan, &mut tell).await.with_context(|| format!("seed {seed}"))?;
        if let (Some(folder), Some(model)) = (&args.out, &run.model) {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join(format!("seed-{seed}.safetensors")), model)?;
        }
        let judged = match &run.model {
            Some(model) if evaluates(&plan) => {
                let judge = || assess(&federation_of(&plan, &args.sites)?, &plan, model);
                judge().map(Some).map_err(|error| format!("{error:#}"))
            }
            _ => Ok(None),
        };
        let (assessment, not_assessed) = judged.map_or_else(|why| (None, Some(why)), |judged| (judged, None));
        runs.push(OneRun { seed, assessment, not_assessed, card: run.card, fits: run.fits });
    }
    let sites = args.sites.iter().map(|(name, _)| name.clone()).collect();
    show(&Runs { kind: "simulation", sites, runs }, args.json)
}

fn evaluates(plan: &Plan) -> bool {
    plan.tasks.values().any(|t| matches!(t.component, hospes_protocol::plan::Component::Evaluation(_)))
}

/// The figures of each run, as far as they are defined.
fn show(result: &Runs, json: bool) -> Result<()> {
    let digits = |x: f64| format!("{x:.3}");
    let lines = result.runs.iter().filter_map(|run| {
        let judged = run.assessment.as_ref()?;
        let sites = judged.accuracy.iter().copied().map(digits).collect();
        Some((format!("seed {}", run.seed), sites, [digits(judged.all), digits(judged.all_scaled_together)]))
    });
    let lines: Vec<Line> = lines.collect();
    if json || !lines.is_empty() {
        print("accuracy on test rows", "federated", &result.sites, lines, json.then_some(result))?;
        if !json {
            // The same for every seed: it follows from the plan.
            show::protection(result.runs.first().and_then(|run| run.card.as_ref()));
        }
        return Ok(());
    }
    for run in &result.runs {
        show::figures(run.seed, run.card.as_ref(), &run.fits);
        show::protection(run.card.as_ref());
        if run.card.is_none() && run.fits.is_empty() {
            show::say(&format!("simulation: seed {}: the plan leaves neither a model nor a fit", run.seed));
        }
    }
    Ok(())
}

fn plan_of(path: &Path) -> Result<Plan> {
    read_plan(&std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
}

fn federation_of(plan: &Plan, sites: &[(String, PathBuf)]) -> Result<Federation> {
    let files: Vec<_> = sites.iter().map(|(name, path)| (name.clone(), path.as_path())).collect();
    Federation::new(plan, &files)
}

fn run_baseline(args: &BaselineArgs) -> Result<()> {
    let mut plan = set(&plan_of(&args.plan)?, &args.changes)?;
    let changes = Overrides { epochs: args.epochs, batch: args.batch, learning_rate: args.lr };
    let task = baseline_task(&mut plan, changes)?;
    let federation = federation_of(&plan, &args.sites)?;
    #[allow(clippy::print_stderr)]
    let result = baseline(&federation, &plan, &task, args.only.as_deref(), &args.seeds, &mut |step| {
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
    let plan = Plan { seed: args.seed.unwrap_or(plan.seed), ..plan };
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
