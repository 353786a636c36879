//! `cargo xtask reproduce`: published experiments, run through the whole system, our figures beside the published ones.
//!
//! Federated rows come from `hospes-sim`: a coordinator and the sites' engines as they ship, in one process. Pooled and
//! local rows, which no federation computes, come from the same training code on the same files.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::demo::figures::{shown, table};
use crate::demo::process::{Programs, json};
use crate::machine;

/// Seeds of each federated and pooled row, as in the published figures.
const SEEDS: usize = 5;
/// Seeds of rows of one site alone. The smallest has 30 training rows, and means of five seeds differ there by up to .06.
const LOCAL_SEEDS: usize = 40;

/// A published experiment.
struct Experiment {
    name: &'static str,
    /// Folder below `examples`.
    folder: &'static str,
    /// Its study there. Some rows need strategies that look at each update, which excludes masks.
    study: &'static str,
    sites: &'static [&'static str],
    /// Ending of the sites' files.
    ending: &'static str,
    figure: Figure,
    methods: &'static [Method],
    /// Rows of pooled and of local training; empty where the plan has no baseline.
    baselines: &'static [Baseline],
}

/// What is compared: on the test rows of all sites, scaled together.
#[derive(Clone, Copy)]
enum Figure {
    Accuracy,
    Auc,
}

/// A federated row.
struct Method {
    name: &'static str,
    /// What differs from the example's plan, as `hospes-sim --set` takes it.
    changes: &'static [&'static str],
    published: &'static str,
    /// Where our mean must lie.
    within: Option<(f64, f64)>,
}

/// A row of pooled or local training.
struct Baseline {
    /// `pooled`, or a site.
    name: &'static str,
    changes: &'static [&'static str],
    published: &'static str,
    within: Option<(f64, f64)>,
}

const EXPERIMENTS: &[Experiment] = &[HEART, BREAST, BREASTMNIST];

/// FLamby's Fed-Heart-Disease: linear model, batch 4, 15 rounds of 100 updates; learning rates as published.
const HEART: Experiment = Experiment {
    name: "heart",
    folder: "heart",
    study: "plain.yaml",
    sites: &["cleveland", "hungary", "switzerland", "long_beach"],
    ending: "csv",
    figure: Figure::Accuracy,
    methods: &[
        Method {
            name: "FedAvg",
            changes: &[],
            published: ".748 ± .027 (numpy .763 ± .025)",
            within: Some((0.72, 0.80)),
        },
        Method {
            name: "FedProx, mu .01",
            changes: &[r#"tasks.train.params.strategy={"fed_prox":{"mu":0.01}}"#],
            published: ".748",
            within: Some((0.72, 0.80)),
        },
        Method {
            name: "Scaffold",
            changes: &[
                r#"tasks.train.params.strategy={"scaffold":{"lr":1.0}}"#,
                r#"tasks.train.params.quantise.clip=64.0"#,
            ],
            published: ".748",
            within: Some((0.72, 0.80)),
        },
        Method {
            name: "Cyclic",
            changes: &[r#"tasks.train.params.strategy={"cyclic":{}}"#, "tasks.train.params.optimizer.sgd.lr=0.01"],
            published: ".785",
            within: None,
        },
        Method {
            name: "FedAdam",
            changes: &[
                r#"tasks.train.params.strategy={"fed_adam":{"lr":0.01}}"#,
                "tasks.train.params.optimizer.sgd.lr=0.01",
            ],
            published: ".779 (numpy .786)",
            within: Some((0.76, 0.80)),
        },
        Method {
            name: "FedYogi",
            changes: &[
                r#"tasks.train.params.strategy={"fed_yogi":{"lr":0.01}}"#,
                "tasks.train.params.optimizer.sgd.lr=0.003162",
            ],
            published: ".779 (numpy .783)",
            within: Some((0.76, 0.80)),
        },
        Method {
            name: "FedAdagrad",
            changes: &[
                r#"tasks.train.params.strategy={"fed_adagrad":{"lr":0.316228}}"#,
                "tasks.train.params.optimizer.sgd.lr=0.003162",
            ],
            published: ".779 (numpy .783)",
            within: Some((0.76, 0.80)),
        },
    ],
    baselines: &[
        Baseline { name: "pooled", changes: &[], published: ".7953 ± .003", within: Some((0.785, 0.805)) },
        Baseline { name: "cleveland", changes: &[], published: ".784", within: Some((0.754, 0.814)) },
        Baseline { name: "hungary", changes: &[], published: ".727", within: Some((0.697, 0.757)) },
        Baseline { name: "switzerland", changes: &[], published: ".483", within: Some((0.453, 0.513)) },
        Baseline { name: "long_beach", changes: &[], published: ".611", within: Some((0.581, 0.641)) },
    ],
};

const MLP: &str = r#"tasks.train.params.model={"preset":{"mlp":{"hidden":[128]}}}"#;
const MLP3: &str = r#"tasks.train.params.model={"preset":{"mlp":{"hidden":[128,128,128]}}}"#;

/// FATE's breast files: UniFed (arXiv 2207.10308) ran them in several systems.
const BREAST: Experiment = Experiment {
    name: "breast",
    folder: "breast",
    study: "study.yaml",
    sites: &["guest", "host"],
    ending: "csv",
    figure: Figure::Auc,
    methods: &[
        Method {
            name: "FedAvg, logistic regression",
            changes: &[],
            published: ".982 (Flower, FedML), .988 (TFF)",
            within: Some((0.985, 1.0)),
        },
        Method {
            name: "FedAvg, MLP 128",
            changes: &[MLP],
            published: ".984 (FATE), .987 (Flower)",
            within: Some((0.985, 1.0)),
        },
        Method {
            name: "FedAvg, MLP 128 × 3",
            changes: &[MLP3],
            published: ".986 (FATE), .987 (Flower)",
            within: Some((0.985, 1.0)),
        },
    ],
    baselines: &[
        Baseline { name: "pooled", changes: &[], published: ".987", within: None },
        Baseline { name: "guest", changes: &[], published: "", within: None },
        Baseline { name: "host", changes: &[], published: "", within: None },
    ],
};

/// MedMNIST v2: ResNet-18 reaches an area of .901 on images of 28 × 28 pixels; ours is a network of two convolutions.
const BREASTMNIST: Experiment = Experiment {
    name: "breastmnist",
    folder: "breastmnist",
    study: "study.yaml",
    sites: &["site_1", "site_2", "site_3"],
    ending: "npz",
    figure: Figure::Auc,
    methods: &[Method {
        name: "FedAvg, small CNN",
        changes: &[],
        published: ".901 (ResNet-18, pooled)",
        within: Some((0.88, 1.0)),
    }],
    baselines: &[Baseline { name: "pooled", changes: &[], published: ".901 (ResNet-18)", within: None }],
};

/// Sets our figures beside published ones.
///
/// # Errors
/// If there is no such experiment, or our figures lie too far from the published ones.
pub(crate) fn run(root: &Path, name: &str) -> Result<()> {
    let Some(experiment) = EXPERIMENTS.iter().find(|experiment| experiment.name == name) else {
        let known: Vec<&str> = EXPERIMENTS.iter().map(|experiment| experiment.name).collect();
        bail!("there is no experiment '{name}'; there is {}", known.join(", "));
    };
    machine::ready_to_compile()?;
    let programs = Programs::build(&["hospes-sim"], false)?;
    let simulation = Simulation { programs: &programs, root, experiment };
    let what = match experiment.figure {
        Figure::Accuracy => "accuracy on the test rows of all sites",
        Figure::Auc => "area under the ROC curve on the test rows of all sites",
    };
    let mut rows = table(&[what, "seeds", "ours, mean ± sd", "published", "must lie within"]);
    let mut misses = Vec::new();
    let mut add = |name: String, seeds: usize, ours: Spread, published: &str, within: Option<(f64, f64)>| {
        let band = within.map(|(low, high)| format!("{} to {}", shown(low), shown(high)));
        let missed = within.is_some_and(|(low, high)| !(low..=high).contains(&ours.mean));
        let mark = if missed { " MISSED" } else { "" };
        rows.add_row(vec![
            name.clone(),
            seeds.to_string(),
            format!("{} ± {}", shown(ours.mean), shown(ours.sd)),
            published.to_owned(),
            format!("{}{mark}", band.unwrap_or_default()),
        ]);
        if missed {
            misses.push(format!("{name}: {}", shown(ours.mean)));
        }
    };
    for method in experiment.methods {
        println!("── {}", method.name);
        let ours = simulation.federated(method).with_context(|| method.name.to_owned())?;
        add(method.name.to_owned(), SEEDS, ours, method.published, method.within);
    }
    for baseline in experiment.baselines {
        let (name, seeds) = match baseline.name {
            "pooled" => ("pooled".to_owned(), SEEDS),
            site => (format!("{site} alone"), LOCAL_SEEDS),
        };
        println!("── {name}");
        let ours = simulation.baseline(baseline, &name, seeds)?;
        add(name, seeds, ours, baseline.published, baseline.within);
    }
    println!("\n   simulation\n{rows}\n   how these were made, and why some differ: docs/reproduction.md");
    ensure!(misses.is_empty(), "too far from the published figures: {}", misses.join(", "));
    Ok(())
}

#[derive(Clone, Copy)]
struct Spread {
    mean: f64,
    sd: f64,
}

impl Spread {
    /// Mean and standard deviation (ddof = 1).
    #[expect(clippy::cast_precision_loss, reason = "a handful of seeds")]
    fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n.max(1.0);
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Self { mean, sd: if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 } }
    }
}

/// One experiment on the example's files.
struct Simulation<'a> {
    programs: &'a Programs,
    root: &'a Path,
    experiment: &'a Experiment,
}

impl Simulation<'_> {
    fn federated(&self, method: &Method) -> Result<Spread> {
        let answer = self.simulate(&[], method.changes, SEEDS)?;
        let field = match self.experiment.figure {
            Figure::Accuracy => "all_scaled_together",
            Figure::Auc => "auc_all_scaled_together",
        };
        let runs = answer["runs"].as_array().context("the simulation has no runs")?;
        let figures: Option<Vec<f64>> = runs.iter().map(|run| run["assessment"][field].as_f64()).collect();
        let figures = figures.with_context(|| format!("a run has no {field}"))?;
        ensure!(figures.len() == SEEDS, "{} runs instead of {SEEDS}", figures.len());
        Ok(Spread::of(&figures))
    }

    fn baseline(&self, baseline: &Baseline, name: &str, seeds: usize) -> Result<Spread> {
        let answer = self.simulate(&["baseline", "--only", name, "--plan"], baseline.changes, seeds)?;
        let rows = answer["rows"].as_array().context("the simulation has no rows")?;
        let row = rows.iter().find(|row| row["method"] == name).with_context(|| format!("no row '{name}'"))?;
        let figure = match self.experiment.figure {
            Figure::Accuracy => &row["all_scaled_together"],
            Figure::Auc => &row["auc_all_scaled_together"],
        };
        let number = |field: &str| figure[field].as_f64().with_context(|| format!("'{name}' has no {field}"));
        Ok(Spread { mean: number("mean")?, sd: number("sd")? })
    }

    fn simulate(&self, first: &[&str], changes: &[&str], seeds: usize) -> Result<Value> {
        let folder = self.root.join("examples").join(self.experiment.folder);
        let seeds: Vec<String> = (1..=seeds).map(|seed| seed.to_string()).collect();
        let mut command = self.programs.command("hospes-sim");
        command.args(first).arg(folder.join(self.experiment.study)).args(["--json", "--seeds", &seeds.join(",")]);
        for site in self.experiment.sites {
            let file = folder.join(format!("{site}.{}", self.experiment.ending));
            command.arg("--site").arg(format!("{site}={}", file.display()));
        }
        for change in changes {
            command.args(["--set", change]);
        }
        json(&mut command, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_has_its_files_and_changes_that_can_be_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        for experiment in EXPERIMENTS {
            let folder = root.join(experiment.folder);
            assert!(folder.join(experiment.study).exists(), "{}", experiment.name);
            for site in experiment.sites {
                assert!(folder.join(format!("{site}.{}", experiment.ending)).exists(), "{site}");
            }
            let changes = experiment.methods.iter().flat_map(|m| m.changes);
            for change in changes.chain(experiment.baselines.iter().flat_map(|b| b.changes)) {
                let (_, value) = change.split_once('=').unwrap();
                serde_json::from_str::<Value>(value).unwrap();
            }
        }
    }

    #[test]
    fn spreads_are_means_and_standard_deviations() {
        let spread = Spread::of(&[1.0, 2.0, 3.0]);
        assert_eq!((spread.mean, spread.sd), (2.0, 1.0));
        assert_eq!(Spread::of(&[5.0]).sd, 0.0);
    }
}
