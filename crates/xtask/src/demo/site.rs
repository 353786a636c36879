//! One hospital of the demo: its folder, its running engine, and its people at the command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cast::{ADMINISTRATOR, APPROVER, AUDITOR, Hospital, OFFICER, Person, STEWARD};
use super::process::{Daemon, Programs, both, json, output};

/// Name under which a hospital's file is registered.
const DATASET: &str = "Cardiology";
/// Time that an engine gets to start, to connect, or to hear of something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hospital with its engine.
pub(crate) struct Site<'a> {
    /// Which.
    pub(crate) hospital: &'static Hospital,
    programs: &'a Programs,
    /// Folder of everything of this hospital.
    folder: PathBuf,
    engine: Daemon,
}

impl<'a> Site<'a> {
    /// Lays the site down with its first administrator, and starts its engine.
    ///
    /// # Errors
    /// With the end of the engine's log.
    pub(crate) fn open(programs: &'a Programs, root: &Path, hospital: &'static Hospital) -> Result<Self> {
        let folder = root.join(hospital.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).with_context(|| format!("write {name} of {}", hospital.name))
        };
        write("key-file.passphrase", &format!("the key file of {}", hospital.name))?;
        for person in [&ADMINISTRATOR, &STEWARD, &APPROVER, &OFFICER, &AUDITOR] {
            write(&format!("{}.passphrase", person.name), person.passphrase)?;
        }
        let mut init = command(programs, &folder, Some(&ADMINISTRATOR));
        output(init.args(["init", "--key-file", "--administrator", ADMINISTRATOR.name]), &[])?;
        let mut run = command(programs, &folder, None);
        run.arg("run");
        let mut engine = Daemon::start(hospital.name, &mut run, &folder.join("engine.log"))?;
        let socket = folder.join("data/engine.sock");
        engine.wait_for("its engine answers", PATIENCE, || Ok(socket.exists()))?;
        Ok(Self { hospital, programs, folder, engine })
    }

    /// Id of the engine's process.
    pub(crate) fn process(&self) -> u32 {
        self.engine.id()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| format!("{}\n{}", self.hospital.name, self.engine.tail()))
    }

    /// What a person at this hospital reads on their terminal.
    ///
    /// # Errors
    /// If the command is refused or fails, with the end of the engine's log.
    pub(crate) fn told(&self, person: &Person, arguments: &[&str]) -> Result<String> {
        let mut command = command(self.programs, &self.folder, Some(person));
        let output = self.explain(output(command.args(arguments), &[]))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same for machines.
    ///
    /// # Errors
    /// As [`Site::told`], or if the answer is no JSON.
    pub(crate) fn asked(&self, person: &Person, arguments: &[&str]) -> Result<Value> {
        let mut command = command(self.programs, &self.folder, Some(person));
        self.explain(json(command.arg("--json").args(arguments), &[]))
    }

    /// A command that must not succeed; gives what it says.
    ///
    /// # Errors
    /// If it succeeds.
    pub(crate) fn refused(&self, person: &Person, arguments: &[&str]) -> Result<String> {
        let mut command = command(self.programs, &self.folder, Some(person));
        let answer: Output = command.args(arguments).output()?;
        ensure!(!answer.status.success(), "{} should have been refused:\n{}", arguments.join(" "), both(&answer));
        Ok(both(&answer))
    }

    /// Adds the other people; each chooses a passphrase with the code that the administrator handed over.
    ///
    /// # Errors
    /// As [`Site::told`].
    pub(crate) fn add_people(&self) -> Result<()> {
        for person in [&STEWARD, &APPROVER, &OFFICER, &AUDITOR] {
            let added = self.asked(&ADMINISTRATOR, &["user", "add", person.name, "--role", person.role])?;
            let code = text_at(&added, "code").context("adding a person gave no code")?;
            self.told(person, &["user", "activate", person.name, "--code", &code])?;
        }
        Ok(())
    }

    /// Registers the hospital's file; gives the number of rows and of patients.
    ///
    /// # Errors
    /// As [`Site::asked`].
    pub(crate) fn add_data(&self, file: &Path) -> Result<(u64, u64)> {
        let file = file.to_str().context("the example's path is no text")?;
        let arguments = ["dataset", "add", file, "--name", DATASET, "--subject", "subject_id", "--public"];
        let dataset = self.asked(&STEWARD, &arguments)?;
        let number = |key: &str| dataset[key].as_u64().with_context(|| format!("the dataset has no {key}"));
        Ok((number("rows")?, number("subjects")?))
    }

    /// Joins the federation with an invitation and the words that came by another way.
    ///
    /// # Errors
    /// As [`Site::told`].
    pub(crate) fn enrol(&self, invitation: &str, words: &str) -> Result<()> {
        let organisation = self.hospital.organisation;
        self.told(&ADMINISTRATOR, &["enrol", invitation, "--words", words, "--organisation", organisation])?;
        Ok(())
    }

    /// The twelve words of this site's key, which its staff read to others over the telephone.
    ///
    /// # Errors
    /// As [`Site::asked`].
    pub(crate) fn words(&self) -> Result<String> {
        let federation = self.asked(&ADMINISTRATOR, &["federation", "words"])?;
        text_at(&federation, "words").context("the site is in no federation")
    }

    /// That every other member is verified here.
    ///
    /// # Errors
    /// If one is not.
    pub(crate) fn all_are_verified(&self) -> Result<()> {
        let peers = self.asked(&ADMINISTRATOR, &["peers", "list"])?;
        let verified = peers.as_array().is_some_and(|list| list.iter().all(|peer| peer["trust"] == "verified_here"));
        ensure!(verified, "{} did not verify everybody: {peers:#}", self.hospital.name);
        Ok(())
    }

    /// Number of updates that left, each of which must have been masked.
    ///
    /// # Errors
    /// As [`Site::asked`], or if one left as it was.
    pub(crate) fn masked(&self) -> Result<usize> {
        let egress = self.asked(&AUDITOR, &["egress"])?;
        let updates: Vec<&Value> = egress.as_array().into_iter().flatten().filter(|e| e["kind"] == "update").collect();
        let bare = updates.iter().find(|update| update["protection"] != "masked");
        ensure!(bare.is_none(), "an update of {} left unmasked: {bare:?}", self.hospital.name);
        Ok(updates.len())
    }

    /// Waits until so many other members are known here.
    ///
    /// # Errors
    /// If they are not in time.
    pub(crate) fn wait_for_peers(&self, count: usize) -> Result<()> {
        self.wait("the other members are known", |site| {
            let peers = site.asked(&ADMINISTRATOR, &["peers", "list"])?;
            Ok(peers.as_array().is_some_and(|list| list.len() >= count).then_some(()))
        })
    }

    /// Waits until a study is offered here; gives its id.
    ///
    /// # Errors
    /// If none is in time.
    pub(crate) fn wait_for_request(&self) -> Result<String> {
        self.wait("the study is offered", |site| {
            let requests = site.asked(&STEWARD, &["requests"])?;
            Ok(text_at(&requests, "study"))
        })
    }

    /// Waits until the job that ran here holds its results for a person; gives its id.
    ///
    /// # Errors
    /// If it does not in time.
    pub(crate) fn wait_for_held(&self) -> Result<String> {
        self.wait("the results are held", |site| {
            let jobs = site.asked(&APPROVER, &["jobs"])?;
            let held = jobs.as_array().and_then(|list| list.iter().find(|job| job["held"] == true));
            Ok(held.and_then(|job| job["job"].as_str()).map(str::to_owned))
        })
    }

    /// Waits until enough of the others have cosigned this site's log, as it was shown last; gives how it is witnessed.
    ///
    /// # Errors
    /// If they have not in time.
    pub(crate) fn wait_for_settled(&self) -> Result<Value> {
        self.wait("its log is settled", |site| {
            let status = site.status()?;
            let witnessed = status["ledger"]["witnessed"].as_array().context("the status has no witnesses")?;
            // Its own log, and not the coordinator's.
            let own = witnessed.iter().find(|log| log["origin"] != log["federation"]);
            Ok(own.filter(|log| log["settled"] == true).cloned())
        })
    }

    /// Asks until there is an answer.
    fn wait<T>(&self, what: &str, mut ask: impl FnMut(&Self) -> Result<Option<T>>) -> Result<T> {
        let start = std::time::Instant::now();
        loop {
            if let Some(answer) = ask(self)? {
                return Ok(answer);
            }
            let tail = || format!("{}: {what} took longer than {} s", self.hospital.name, PATIENCE.as_secs());
            self.explain((start.elapsed() < PATIENCE).then_some(()).with_context(tail))?;
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// The command that opens the app on this hospital, and the file for what it prints.
    pub(super) fn app(&self) -> (Command, PathBuf) {
        let mut command = self.programs.command("hospes");
        command.env("HOSPES_DATA", self.folder.join("data"));
        (command, self.file("app.log"))
    }

    /// Opinion and both signatures, as three people.
    ///
    /// # Errors
    /// As [`Site::told`].
    pub(crate) fn sign(&self, study: &str) -> Result<()> {
        self.told(&OFFICER, &["opinion", study, "agree", "--text", "Public data; nothing of a patient leaves."])?;
        let review = self.asked(&STEWARD, &["show", study])?;
        let read = text_at(&review["read"], "digest").context("the review does not say what was read")?;
        let first = self.asked(&STEWARD, &["approve", study, "--digest", &read, "--yes"])?;
        let digest = text_at(&first, "digest").context("the first signature gave no digest")?;
        self.told(&APPROVER, &["approve", study, "--digest", &digest, "--yes"])?;
        Ok(())
    }

    /// Releases the results of a run.
    ///
    /// # Errors
    /// As [`Site::told`].
    pub(crate) fn release(&self, job: &str) -> Result<()> {
        self.told(&APPROVER, &["release", job])?;
        Ok(())
    }

    /// Payloads and bytes that left.
    ///
    /// # Errors
    /// As [`Site::asked`].
    pub(crate) fn left(&self) -> Result<(usize, u64)> {
        let egress = self.asked(&AUDITOR, &["egress"])?;
        let list = egress.as_array().context("egress is no list")?;
        let sent: Vec<u64> = list.iter().filter(|e| e["state"] == "sent").filter_map(|e| e["bytes"].as_u64()).collect();
        Ok((sent.len(), sent.iter().sum()))
    }

    /// State of the site: ledger and witnesses.
    ///
    /// # Errors
    /// As [`Site::asked`].
    pub(crate) fn status(&self) -> Result<Value> {
        self.asked(&AUDITOR, &["status"])
    }

    /// The last checkpoint that this site saw of the coordinator's log, in a file.
    ///
    /// # Errors
    /// As [`Site::told`], or if the file cannot be written.
    pub(crate) fn seen_of_coordinator(&self) -> Result<PathBuf> {
        let file = self.file("seen-of-the-coordinator.txt");
        std::fs::write(&file, self.told(&AUDITOR, &["audit", "checkpoint", "--of", "coordinator"])?)?;
        Ok(file)
    }

    /// Writes the ledger for the auditor.
    ///
    /// # Errors
    /// As [`Site::told`].
    pub(crate) fn export(&self) -> Result<PathBuf> {
        let file = self.file("ledger.jsonl");
        let path = file.to_str().context("the folder's path is no text")?.to_owned();
        self.told(&AUDITOR, &["audit", "export", &path])?;
        Ok(file)
    }
}

fn command(programs: &Programs, folder: &Path, person: Option<&Person>) -> Command {
    let mut command = programs.command("hospes-site");
    command.arg("--data").arg(folder.join("data"));
    command.env("HOSPES_KEY_PASSPHRASE_FILE", folder.join("key-file.passphrase"));
    if let Some(person) = person {
        let passphrase = folder.join(format!("{}.passphrase", person.name));
        command.args(["--as", person.name]).arg("--passphrase-file").arg(passphrase);
    }
    command
}

/// The first text under this key, at any depth.
pub(crate) fn text_at(value: &Value, key: &str) -> Option<String> {
    match value {
        Value::Object(fields) => fields
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| fields.values().find_map(|inner| text_at(inner, key))),
        Value::Array(items) => items.iter().find_map(|item| text_at(item, key)),
        _ => None,
    }
}
