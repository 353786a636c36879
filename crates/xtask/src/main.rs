//! Repository tasks: `cargo xtask tidy | codegen | icons | test | demo | reproduce | bench | dist | manifest`.
//!
//! Each installs what it needs and is missing. Nothing here is part of the product.

#![expect(clippy::print_stdout, reason = "these tasks speak to whoever started them")]

mod bench;
mod codegen;
mod demo;
mod dist;
mod icons;
mod machine;
mod reproduce;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Repository tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks that the tree keeps its own rules.
    Tidy,
    /// Writes the generated files.
    Codegen {
        /// Only say whether they are current.
        #[arg(long)]
        check: bool,
    },
    /// Draws the app's icons from `icons/mark.svg`.
    Icons,
    /// Installs what is missing and runs every check and test.
    Test,
    /// Four hospitals train one model: the main job on real data, with every part as a process of its own. Where there is
    /// a screen, the staff of one hospital decide in its app.
    Demo {
        /// Tell all of it in the terminal.
        #[arg(long)]
        terminal: bool,
        /// Keep the folder with the databases and logs.
        #[arg(long)]
        keep: bool,
    },
    /// Runs a published experiment and sets our figures beside the published ones.
    Reproduce {
        /// Which: `heart`, `breast`, `breastmnist`.
        experiment: String,
    },
    /// Measures a release build against the targets.
    Bench {
        /// Only what has this in its name, such as `idle` or `train_cnn`.
        #[arg(default_value = "")]
        filter: String,
    },
    /// Makes the packages that a clinic installs, with checksums and a bill of materials.
    Dist(dist::Options),
    /// Signs what `dist` made: the file by which sites hear of a newer version.
    Manifest(dist::Signing),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let root = root()?;
    std::env::set_current_dir(&root)?;
    match Arguments::parse().task {
        Task::Tidy => tidy::run(&root),
        Task::Codegen { check } => codegen::run(&root, check),
        Task::Icons => icons::draw(&root),
        Task::Test => test::run(&root),
        Task::Demo { terminal, keep } => demo::run(&root, terminal, keep),
        Task::Reproduce { experiment } => reproduce::run(&root, &experiment),
        Task::Bench { filter } => bench::run(&root, &filter),
        Task::Dist(options) => dist::run(&root, &options),
        Task::Manifest(options) => dist::sign(&options),
    }
}

/// The repository's top folder.
fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).map(Path::to_path_buf);
    root.ok_or_else(|| anyhow::anyhow!("the repository's folder is gone"))
}
