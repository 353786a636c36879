//! `cargo xtask demo`: a coordinator and four hospitals, each a process of its own, from enrolment to a proven model. Where
//! there is a screen, the staff of one hospital decide in its app.

pub(crate) mod cast;
pub(crate) mod federation;
pub(crate) mod figures;
pub(crate) mod process;
pub(crate) mod site;
mod window;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use cast::{ADMINISTRATOR, HOSPITALS, PUBLISHED_FEDERATED, PUBLISHED_POOLED, STEWARD};
use federation::Federation;
use figures::{Assessment, Baseline, Figures, shown, table};
use process::{Programs, json};
use site::{Site, text_at};

use crate::machine;

/// Packages whose programs the demo runs; the last one with a screen only.
const PROGRAMS: [&str; 5] = ["hospes-coordinator", "hospes-site", "hospesctl", "hospes-sim", "hospes"];

/// Seeds over which the demo averages what needs no federation: with five, as published, two of the hospitals with few
/// rows differ by more from one five to the next than the tolerance.
const BASELINE_SEEDS: u32 = 10;

/// Of four members, with one of them in league with whoever writes the log: any two sets of so many share an honest one.
const NEEDED_WITNESSES: usize = 3;

/// Runs the demo.
///
/// # Errors
/// What went wrong, with the end of the log of the process that it went wrong in.
pub(crate) fn run(root: &Path, terminal: bool, keep: bool) -> Result<()> {
    let with_window = !terminal && window::has_display();
    let programs = if with_window {
        machine::ready_to_build(root)?;
        Programs::build(&PROGRAMS, false)?
    } else {
        if !terminal {
            println!("This machine has no screen, so the demo is told here instead of in the app's window.");
        }
        machine::ready_to_compile()?;
        Programs::build(&PROGRAMS[..4], false)?
    };
    let folder = tempfile::Builder::new().prefix("hospes-").tempdir().context("make a folder for the demo")?;
    let start = Instant::now();
    let result = Stage { root, programs: &programs, folder: folder.path(), chapter: 0 }.play(with_window);
    // Not before the processes that use it have ended.
    if keep {
        println!("\nEverything is kept in {}", folder.keep().display());
    }
    if result.is_ok() {
        println!("\nThe demo took {:.0} s after the build.", start.elapsed().as_secs_f64());
    }
    result
}

/// A federation of the four hospitals that has trained a model and goes on running.
///
/// # Errors
/// As [`run`].
pub(crate) fn trained<'a>(root: &'a Path, programs: &'a Programs, folder: &'a Path) -> Result<Trained<'a>> {
    Stage { root, programs, folder, chapter: 0 }.train()
}

/// What the demo has when a model was trained.
pub(crate) struct Trained<'a> {
    pub(crate) federation: Federation<'a>,
    pub(crate) sites: Vec<Site<'a>>,
    job: String,
    model: String,
}

/// Where the demo is played.
struct Stage<'a> {
    root: &'a Path,
    programs: &'a Programs,
    folder: &'a Path,
    chapter: u32,
}

impl<'a> Stage<'a> {
    fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        println!("\n{}. {title}", self.chapter);
    }

    fn example(&self, path: &str) -> PathBuf {
        self.root.join("examples").join(path)
    }

    fn play(self, with_window: bool) -> Result<()> {
        let (programs, root) = (self.programs, self.root);
        std::thread::scope(|scope| {
            // What the same rows give without a federation takes a while and needs nobody; it is ready in time.
            let baseline = scope.spawn(|| baseline(programs, root, BASELINE_SEEDS));
            let baseline = || baseline.join().unwrap_or_else(|_| bail!("the simulation panicked"));
            if with_window { self.show(baseline) } else { self.tell(baseline) }
        })
    }

    /// Three hospitals sign as in the terminal; in the window of the fourth, whoever sits before it decides.
    fn show(mut self, baseline: impl FnOnce() -> Result<Baseline>) -> Result<()> {
        let (federation, sites, study) = self.offered()?;
        let (here, others) = sites.split_first().context("there are no hospitals")?;
        self.chapter("What a data steward reads, under the strict policy that a new site has");
        review(here, &study)?;
        self.chapter("Three hospitals declare their data public, and six eyes decide at each");
        self.declare_public(&sites)?;
        self.sign(others, &study)?;
        self.chapter("At the fourth one, its staff decide in the window");
        let mut app = here.window()?;
        window::explain(here);
        let enter = window::Enter::listen();
        let Some(model) = window::follow(&federation, others, (&mut app, &enter), &study)? else {
            say("The demo ends here; run it again to see the end, or with --terminal to be told all of it.");
            return Ok(());
        };
        self.chapter("What was learnt, what left, and how it can be proven");
        self.conclude(&federation, &sites, &model, baseline)?;
        say("The window stays open until the demo ends: look into its audit log, then press Enter here.");
        enter.wait(&mut app)
    }

    fn tell(mut self, baseline: impl FnOnce() -> Result<Baseline>) -> Result<()> {
        let Trained { federation, sites, job, model } = self.train()?;
        self.chapter("What was learnt, what left, and how it can be proven");
        each(&sites, |site| site.release(&job))?;
        self.conclude(&federation, &sites, &model, baseline)
    }

    fn train(&mut self) -> Result<Trained<'a>> {
        let (federation, sites, study) = self.offered()?;
        self.chapter("What Cleveland's data steward reads, under the strict policy that a new site has");
        review(&sites[0], &study)?;
        self.chapter("The hospitals declare their data public, and six eyes decide at each");
        self.declare_public(&sites)?;
        self.sign(&sites, &study)?;
        self.chapter("Fifteen rounds of masked training, then evaluation");
        let (job, model) = train(&federation, &sites, &study)?;
        Ok(Trained { federation, sites, job, model })
    }

    /// A federation of four hospitals with people and data, to which a study is offered.
    fn offered(&mut self) -> Result<(Federation<'a>, Vec<Site<'a>>, String)> {
        self.chapter("A coordinator and four hospitals start, each with its own keys, database and ledger");
        let (programs, folder) = (self.programs, self.folder);
        let federation = Federation::open(programs, folder)?;
        let sites = each(&HOSPITALS, |hospital| Site::open(programs, folder, hospital))?;
        say(&format!("coordinator (process {}) and {} sites run on this machine", federation.process(), sites.len()));
        self.chapter("Each hospital's administrator names its people, and its data steward registers its data");
        self.people_and_data(&sites)?;
        self.chapter("The hospitals join the federation and compare the words of each other's keys");
        enrol(&federation, &sites)?;
        self.chapter("A researcher submits a study");
        let study = self.submit(&federation, &sites)?;
        Ok((federation, sites, study))
    }

    fn people_and_data(&self, sites: &[Site<'_>]) -> Result<()> {
        let counts = each(sites, |site| {
            site.add_people()?;
            site.add_data(&self.example(&format!("heart/{}.csv", site.hospital.name)))
        })?;
        for (site, (rows, subjects)) in sites.iter().zip(counts) {
            say(&format!("{:<12} {rows} rows of {subjects} patients, frozen and encrypted", site.hospital.name));
        }
        Ok(())
    }

    fn submit(&self, federation: &Federation<'_>, sites: &[Site<'_>]) -> Result<String> {
        let path = self.example("heart/study.yaml");
        let path = path.to_str().context("the example's path is no text")?;
        federation.told("researcher", &["study", "validate", path])?;
        let answer = federation.asked("researcher", &["study", "submit", path])?;
        let study = text_at(&answer, "study").context("the study has no id")?;
        for site in sites {
            let offered = site.wait_for_request()?;
            ensure!(offered == study, "{} was offered study {offered}, not {study}", site.hospital.name);
        }
        say(&format!("study {study} is valid and offered to all four"));
        Ok(study)
    }

    fn declare_public(&self, sites: &[Site<'_>]) -> Result<()> {
        let policy = self.example("policies/public-data.toml");
        let policy = policy.to_str().context("the example's path is no text")?;
        each(sites, |site| site.told(&ADMINISTRATOR, &["policy", "set", policy]))?;
        Ok(())
    }

    fn sign(&self, sites: &[Site<'_>], study: &str) -> Result<()> {
        each(sites, |site| site.sign(study))?;
        for site in sites {
            say(&format!(
                "{:<12} olga (privacy officer) agrees, stefan (data steward) and amara (data-access approver) sign",
                site.hospital.name
            ));
        }
        Ok(())
    }

    fn conclude(
        &self,
        federation: &Federation<'_>,
        sites: &[Site<'_>],
        model: &str,
        baseline: impl FnOnce() -> Result<Baseline>,
    ) -> Result<()> {
        let card = federation.asked("researcher", &["model", "card", model])?;
        let figures = Figures::of_card(&card)?;
        let file = self.folder.join("model.safetensors");
        let path = file.to_str().context("the folder's path is no text")?;
        federation.told("researcher", &["model", "get", model, "--output", path])?;
        let assessment = assess(self.programs, self.root, &file)?;
        figures.confirm(&assessment)?;
        let baseline = baseline()?;
        accuracies(&figures, &assessment, &baseline);
        masked(sites)?;
        self.proofs(federation, sites)?;
        let misses = baseline.misses();
        ensure!(misses.is_empty(), "too far from the published figures: {}", misses.join(", "));
        ensure!(
            assessment.is_as_published(),
            "the federated accuracy {} lies outside the published {}",
            shown(assessment.together),
            spread(PUBLISHED_FEDERATED)
        );
        Ok(())
    }

    /// Each hospital's auditor exports the ledger; anybody can verify it, without the program that wrote it, against the
    /// keys of the others and what the others saw.
    fn proofs(&self, federation: &Federation<'_>, sites: &[Site<'_>]) -> Result<()> {
        let keys =
            sites.iter().map(|site| federation.identity(Some(site.hospital.name))).collect::<Result<Vec<_>>>()?;
        let witnessed = each(sites, Site::wait_for_settled)?;
        let mut proofs = table(&["ledger", "entries", "witnesses", "settled", "payloads sent", "bytes that left"]);
        for ((site, origin), witnessed) in sites.iter().zip(&keys).zip(&witnessed) {
            let (payloads, bytes) = site.left()?;
            let seen = self.folder.join("seen-by-the-coordinator.txt");
            std::fs::write(
                &seen,
                federation.told("operator", &["audit", "checkpoint", "--site", site.hospital.name])?,
            )?;
            // After that, since the log goes on growing: an export must hold all that was seen before it.
            let export = site.export()?;
            let others: Vec<&String> = keys.iter().filter(|key| *key != origin).collect();
            let entries = verified(federation, &export, origin, &others, &seen)?;
            proofs.add_row(vec![
                site.hospital.name.to_owned(),
                entries.to_string(),
                witnessed["witnesses"].to_string(),
                "yes".to_owned(),
                payloads.to_string(),
                bytes.to_string(),
            ]);
        }
        println!("\n{proofs}");
        // What a hospital saw of the coordinator's log, before that is exported.
        let seen = sites.first().context("there are no hospitals")?.seen_of_coordinator()?;
        let own = self.folder.join("coordinator.jsonl");
        let path = own.to_str().context("the folder's path is no text")?;
        federation.told("operator", &["audit", "export", path])?;
        let origin = federation.identity(None)?;
        verified(federation, &own, &origin, &keys.iter().collect::<Vec<_>>(), &seen)?;
        say("all five ledgers, the coordinator's too, were exported and verified offline by hospesctl audit verify");
        self.altered(federation, path, &origin)
    }

    /// One changed byte in the middle of a ledger is found.
    fn altered(&self, federation: &Federation<'_>, export: &str, origin: &str) -> Result<()> {
        let mut bytes = std::fs::read(export)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let altered = self.folder.join("altered.jsonl");
        std::fs::write(&altered, bytes)?;
        let altered = altered.to_string_lossy();
        let found = federation.refused("operator", &["audit", "verify", &altered, "--origin", origin])?;
        paragraph("   ", &format!("with one bit changed: {}", found.lines().next_back().unwrap_or_default()));
        Ok(())
    }
}

/// Verifies a log offline: it is of this party, holds what others saw of it, and as many of these members cosigned it as
/// make a fork show. Gives its number of entries.
fn verified(federation: &Federation<'_>, export: &Path, origin: &str, members: &[&String], seen: &Path) -> Result<u64> {
    let (file, seen) = (export.to_string_lossy(), seen.to_string_lossy());
    let mut arguments = vec!["audit", "verify", &*file, "--origin", origin, "--checkpoint", &*seen];
    members.iter().for_each(|key| arguments.extend(["--member", key.as_str()]));
    let report = federation.asked("operator", &arguments)?;
    let not_checked = report["not_checked"].as_array().context("the report does not say what was not checked")?;
    ensure!(not_checked.is_empty(), "of {file} it was not checked: {not_checked:?}");
    let witnesses = report["witnesses"].as_array().into_iter().flatten().filter(|w| w["member"] == true).count();
    ensure!(witnesses >= NEEDED_WITNESSES, "{witnesses} of {} members cosigned {file}", members.len());
    report["entries"].as_u64().context("the report has no number of entries")
}

/// Does the same for each, at the same time; the first error of the list counts.
fn each<'t, T: Sync, R: Send>(items: &'t [T], work: impl Fn(&'t T) -> Result<R> + Sync) -> Result<Vec<R>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| work(item))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread of the demo panicked")))
            .collect()
    })
}

fn say(words: &str) {
    println!("   {words}");
}

/// Words in lines of a readable length, the later ones indented a little more.
fn paragraph(indent: &str, words: &str) {
    let mut line = indent.to_owned();
    let mut is_empty = true;
    for word in words.split_whitespace() {
        if !is_empty && line.chars().count() + word.chars().count() > 110 {
            println!("{line}");
            line = format!("{indent} ");
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    println!("{line}");
}

/// Every update left masked: the coordinator has read the sum of all four in each round, and no hospital's part.
fn masked(sites: &[Site<'_>]) -> Result<()> {
    let updates: usize = each(sites, Site::masked)?.into_iter().sum();
    ensure!(updates > 0, "no update left");
    say(&format!(
        "all {updates} updates left masked: the coordinator read the sum of each round, and no hospital's part of it;"
    ));
    say("the figures of the evaluation it read one by one, as the policy for public data lets it");
    Ok(())
}

fn enrol(federation: &Federation<'_>, sites: &[Site<'_>]) -> Result<()> {
    for site in sites {
        let (invitation, words) = federation.invite(site.hospital.name)?;
        if site.hospital.name == HOSPITALS[0].name {
            say("an invitation goes by mail, and the coordinator's twelve words by telephone:");
            say(&format!("  {words}"));
        }
        site.enrol(&invitation, &words)?;
    }
    for site in sites {
        site.wait_for_peers(HOSPITALS.len() - 1)?;
    }
    let words = each(sites, Site::words)?;
    each(sites, |site| {
        for (other, words) in HOSPITALS.iter().zip(&words).filter(|(other, _)| other.name != site.hospital.name) {
            site.told(&ADMINISTRATOR, &["peers", "verify", other.name, "--words", words])?;
        }
        site.all_are_verified()
    })?;
    say(
        "all four are members. Each administrator reads the twelve words of its key to the other three, who type them:",
    );
    say(&format!("  {:<12} {}", HOSPITALS[0].name, words[0]));
    say(
        "Now each counts the others as verified. With three of whom it had the coordinator's word only, it would join no",
    );
    say("masked round: they might all be the coordinator's own.");
    Ok(())
}

fn review(site: &Site<'_>, study: &str) -> Result<()> {
    for line in site.told(&STEWARD, &["show", study])?.lines() {
        println!("   │ {line}");
    }
    let review = site.asked(&STEWARD, &["show", study])?;
    let findings = review["findings"].as_array().context("the review has no findings")?;
    let refusing: Vec<&Value> = findings.iter().filter(|f| f["refuses"] == true).collect();
    ensure!(!refusing.is_empty(), "the strict policy refuses nothing");
    say("the strict policy refuses it, by these rules:");
    for finding in refusing {
        paragraph("     ", &format!("{}: {}", text(&finding["rule"]), text(&finding["words"])));
    }
    let read = text(&review["read"]["digest"]);
    let refusal = site.refused(&STEWARD, &["approve", study, "--digest", read, "--yes"])?;
    let refusal = refusal.lines().next_back().unwrap_or_default();
    paragraph("   ", &format!("who signs all the same is told: {refusal}"));
    Ok(())
}

fn train(federation: &Federation<'_>, sites: &[Site<'_>], study: &str) -> Result<(String, String)> {
    let start = Instant::now();
    let watched = federation.asked("researcher", &["study", "watch", study])?;
    let seconds = start.elapsed().as_secs_f64();
    let run = watched["jobs"].as_array().and_then(|runs| runs.last()).context("the study has no run")?;
    let (job, model) = (text(&run["job"]).to_owned(), text(&run["model"]).to_owned());
    ensure!(!model.is_empty(), "the run left no model");
    let held = each(sites, Site::wait_for_held)?;
    ensure!(held.iter().all(|held| *held == job), "a hospital holds the results of another run than {job}");
    say(&format!("run {job} succeeded in {seconds:.1} s; its results are held until each hospital releases them"));
    Ok((job, model))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A question to `hospes-sim` about the example's files.
fn simulate(programs: &Programs, root: &Path, arguments: &[&str]) -> Result<Value> {
    let example = root.join("examples/heart");
    let mut command = programs.command("hospes-sim");
    // Where all rows lie in one place, there is nothing to hide by masks.
    command.args(arguments).arg("--json").arg("--plan").arg(example.join("plain.yaml"));
    for hospital in &HOSPITALS {
        let file = example.join(format!("{}.csv", hospital.name));
        command.arg("--site").arg(format!("{}={}", hospital.name, file.display()));
    }
    json(&mut command, &[])
}

/// Pooled and local models, mean over so many seeds.
fn baseline(programs: &Programs, root: &Path, seeds: u32) -> Result<Baseline> {
    let seeds = (1..=seeds).map(|seed| seed.to_string()).collect::<Vec<_>>().join(",");
    Baseline::read(&simulate(programs, root, &["baseline", "--seeds", &seeds])?)
}

/// A model file, judged on the example's files.
fn assess(programs: &Programs, root: &Path, model: &Path) -> Result<Assessment> {
    let model = model.to_str().context("the model's path is no text")?;
    Assessment::read(&simulate(programs, root, &["assess", "--model", model])?)
}

fn spread((mean, sd): (f64, f64)) -> String {
    format!("{} ± {}", shown(mean), shown(sd))
}

fn accuracies(figures: &Figures, assessment: &Assessment, baseline: &Baseline) {
    let mut here = table(&["accuracy on its own test rows", "rows", "alone", "together", "published FedAvg"]);
    for (i, hospital) in HOSPITALS.iter().enumerate() {
        here.add_row(vec![
            hospital.name.to_owned(),
            format!("{:.0}", figures.federated[i].rows),
            shown(figures.alone[i].value),
            shown(figures.federated[i].value),
            shown(hospital.published_federated),
        ]);
    }
    println!("\n   PUBLIC DATA: what each hospital reported of this run\n{here}");
    let mut all = table(&["accuracy on the test rows of all four", "ours", "published"]);
    all.add_row(vec!["together (this run)".to_owned(), shown(assessment.together), spread(PUBLISHED_FEDERATED)]);
    all.add_row(vec!["all rows in one place (simulated)".to_owned(), shown(baseline.pooled), spread(PUBLISHED_POOLED)]);
    for (hospital, value) in HOSPITALS.iter().zip(&baseline.alone) {
        let method = format!("{} alone (simulated)", hospital.name);
        all.add_row(vec![method, shown(*value), shown(hospital.published_alone)]);
    }
    println!("\n{all}");
    say("The model was downloaded and judged again on the example's files: the hospitals reported what it does.");
    say("The second table scales all rows together, as the published figures do (FLamby, Fed-Heart-Disease, five");
    say("seeds); one run of federated averaging varies by about .03 from seed to seed, there and here.");
}
