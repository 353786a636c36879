//! A federation of real programs on loopback: a coordinator, sites, their people and their data.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::program;
use crate::window::free_port;

/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// The example with its data, plan and policies.
pub const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

/// A person of a site: name and role as the command line has it.
pub const PEOPLE: [(&str, &str); 3] =
    [("Stefan", "data-steward"), ("Anna", "data-access-approver"), ("Petra", "privacy-officer")];
/// First person of every site.
pub const ADMINISTRATOR: &str = "Ada";

/// A program that is killed with whoever holds it.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let output = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Self { child, log })
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether it ended by itself.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("── {}", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A coordinator and its sites.
pub struct Federation {
    /// Sites.
    pub sites: Vec<Site>,
    /// The coordinator's process.
    pub coordinator: Running,
    port: u16,
    database: String,
    folder: TempDir,
}

/// A site.
pub struct Site {
    /// Name in the federation.
    pub name: String,
    /// Data folder.
    pub data: PathBuf,
    /// The engine's process.
    pub engine: Running,
    secrets: PathBuf,
}

impl Federation {
    /// A coordinator on the database that is named (`sqlite`, or a PostgreSQL URL), without sites.
    ///
    /// # Errors
    /// If a program does not do what it should.
    pub fn new(database: &str) -> Result<Self> {
        Self::scheduled(database, &[])
    }

    /// Likewise, with other times in the coordinator's schedule, in milliseconds.
    ///
    /// # Errors
    /// If a program does not do what it should.
    pub fn scheduled(database: &str, times: &[(&str, u64)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let home = folder.path().join("coordinator");
        let listen = format!("127.0.0.1:{port}");
        let url = format!("https://{listen}");
        let mut init = Command::new(program("hospes-coordinator")?);
        init.arg("--data").arg(&home).args(["init", "--name", "Heart Federation", "--url", &url]);
        output(init.args(["--listen", &listen, "--database", database]))?;
        set_times(&home.join("coordinator.toml"), times)?;
        let mut token = Command::new(program("hospes-coordinator")?);
        let token = output(token.arg("--data").arg(&home).args(["token", "create", "Olga", "--role", "operator"]))?;
        std::fs::write(folder.path().join("token"), token)?;
        let coordinator = start_coordinator(folder.path())?;
        let federation = Self { sites: Vec::new(), coordinator, port, database: database.to_owned(), folder };
        federation.until("the coordinator answers", |f| Ok(f.ctl(&["whoami"]).is_ok()))?;
        Ok(federation)
    }

    /// The four hospitals with their people, data and the public-data policy, enrolled and verified with each other.
    ///
    /// # Errors
    /// If a program does not do what it should.
    pub fn hearts(database: &str) -> Result<Self> {
        Self::of(database, &["cleveland", "hungary", "switzerland", "long_beach"])
    }

    /// Some of the four hospitals, likewise.
    ///
    /// # Errors
    /// If a program does not do what it should.
    pub fn of(database: &str, names: &[&str]) -> Result<Self> {
        let mut federation = Self::new(database)?;
        for name in names {
            federation.join_with_hearts(name)?;
        }
        federation.verify_peers()?;
        Ok(federation)
    }

    /// So many sites with the data of the four hospitals by turns. The first compared words with all others, and they with
    /// it, and it vouches for them. The coordinator soon does without a site that is gone.
    ///
    /// # Errors
    /// If a program does not do what it should.
    pub fn crowd(database: &str, sites: usize) -> Result<Self> {
        const DATA: [&str; 4] = ["cleveland", "hungary", "switzerland", "long_beach"];
        let mut federation = Self::scheduled(database, &[("patience_ms", 8_000), ("grace_ms", 2_000)])?;
        let all: Vec<(String, &str)> = (0..sites).map(|n| (format!("site-{n}"), DATA[n % DATA.len()])).collect();
        federation.sites = at_once(&all, |(name, data)| {
            let site = federation.joined(name, &PEOPLE[..2])?;
            site.furnish(data)?;
            Ok(site)
        })?;
        federation.until("the roster reaches everybody", |f| {
            let members = |site: &Site| -> Result<bool> {
                Ok(site.status()?["memberships"][0]["members"].as_u64() == Some(sites as u64))
            };
            Ok(f.sites.iter().map(members).collect::<Result<Vec<bool>>>()?.into_iter().all(|all| all))
        })?;
        let (first, others) = federation.sites.split_first().context("no sites")?;
        let words = first.words()?;
        at_once(others, |site| {
            site.act(ADMINISTRATOR, &["peers", "verify", &first.name, "--words", &words])?;
            first.act(ADMINISTRATOR, &["peers", "verify", &site.name, "--words", &site.words()?])?;
            first.act(ADMINISTRATOR, &["peers", "vouch", &site.name])
        })?;
        at_once(others, |site| {
            federation.until("the first site's word is heard", |_| {
                let peers = site.act(ADMINISTRATOR, &["peers", "list"])?;
                let peers = peers.as_array().context("no peers")?;
                Ok(peers.iter().all(|peer| peer["trust"] != "asserted_only"))
            })
        })?;
        Ok(federation)
    }

    /// Both signatures of every site under a study.
    ///
    /// # Errors
    /// With what a site said.
    pub fn sign_everywhere(&self, study: &str) -> Result<()> {
        at_once(&self.sites, |site| site.sign(study)).map(drop)
    }

    /// One of the four hospitals joins, with its people, its data and the public-data policy.
    ///
    /// # Errors
    /// If a program does not do what it should.
    pub fn join_with_hearts(&mut self, name: &str) -> Result<()> {
        self.join(name)?;
        self.site(name)?.furnish(name)
    }

    /// A new site with its people joins.
    ///
    /// # Errors
    /// If a program does not do what it should.
    pub fn join(&mut self, name: &str) -> Result<()> {
        let site = self.joined(name, &PEOPLE)?;
        self.sites.push(site);
        Ok(())
    }

    fn joined(&self, name: &str, people: &[(&str, &str)]) -> Result<Site> {
        let invitation = self.ctl(&["invite", name])?;
        let site = Site::new(self.folder.path(), name, people)?;
        let text = |field: &str| invitation[field].as_str().map(str::to_owned).context("no invitation");
        let (invitation, words) = (text("invitation")?, text("ca_words")?);
        site.act(
            ADMINISTRATOR,
            &["enrol", &invitation, "--words", &words, "--organisation", &format!("{name} clinic")],
        )?;
        Ok(site)
    }

    /// Every site compares the words of every other.
    ///
    /// # Errors
    /// If a word does not fit.
    pub fn verify_peers(&self) -> Result<()> {
        let members = self.sites.len();
        let mut words = Vec::new();
        for site in &self.sites {
            self.until("the roster reaches everybody", |_| {
                Ok(site.status()?["memberships"][0]["members"].as_u64() == Some(members as u64))
            })?;
            words.push((site.name.clone(), site.words()?));
        }
        for site in &self.sites {
            for (name, words) in words.iter().filter(|(name, _)| *name != site.name) {
                site.act(ADMINISTRATOR, &["peers", "verify", name, "--words", words])?;
            }
        }
        Ok(())
    }

    /// A site by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn site(&self, name: &str) -> Result<&Site> {
        self.sites.iter().find(|s| s.name == name).with_context(|| format!("no site {name}"))
    }

    /// A site by its name, to be killed or started.
    ///
    /// # Errors
    /// If there is none.
    pub fn site_mut(&mut self, name: &str) -> Result<&mut Site> {
        self.sites.iter_mut().find(|s| s.name == name).with_context(|| format!("no site {name}"))
    }

    /// Runs `hospesctl` as the operator.
    ///
    /// # Errors
    /// With what it said.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(program("hospesctl")?);
        command
            .args(["--json", "--url", &format!("https://127.0.0.1:{}", self.port)])
            .arg("--token-file")
            .arg(self.folder.path().join("token"))
            .arg("--ca")
            .arg(self.folder.path().join("coordinator/ca.pem"))
            .args(arguments);
        json(&mut command)
    }

    /// What an auditor of a site's log needs to know from elsewhere, as arguments of `audit verify`: the site's key, the keys
    /// of the other sites here, and the last checkpoint of its log that the coordinator saw.
    ///
    /// # Errors
    /// If a command fails.
    pub fn known_of(&self, site: &str) -> Result<Vec<String>> {
        let identity = |name: &str| -> Result<String> {
            let shown = self.ctl(&["sites", "show", name])?;
            Ok(shown["identity"].as_str().context("no identity key")?.to_owned())
        };
        let mut arguments = vec!["--origin".to_owned(), identity(site)?];
        for other in self.sites.iter().filter(|other| other.name != site) {
            arguments.extend(["--member".to_owned(), identity(&other.name)?]);
        }
        let note = self.ctl(&["audit", "checkpoint", "--site", site])?;
        let path = self.folder().join(format!("{site}-seen.txt"));
        std::fs::write(&path, note["checkpoint"].as_str().context("no checkpoint")?)?;
        arguments.extend(["--checkpoint".to_owned(), path.to_str().context("path")?.to_owned()]);
        Ok(arguments)
    }

    /// Kills the coordinator and starts it again.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart_coordinator(&mut self) -> Result<()> {
        if !self.coordinator.has_ended()? {
            self.coordinator.kill()?;
        }
        self.coordinator = start_coordinator(self.folder.path())?;
        Ok(())
    }

    /// The database that the coordinator uses.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until something holds.
    ///
    /// # Errors
    /// If it does not come to hold, or cannot be asked.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        // Who asks starts a program, and a person's program derives a key from the passphrase: asked ever more seldom.
        let mut pause = Duration::from_millis(100);
        while !holds(self)? {
            ensure!(Instant::now() < end, "it did not come to this: {what}");
            std::thread::sleep(pause);
            pause = (pause * 3 / 2).min(Duration::from_secs(1));
        }
        Ok(())
    }

    /// Submits a study file and waits until every site has it; returns its id.
    ///
    /// # Errors
    /// With what the coordinator said.
    pub fn submit(&self, file: &Path) -> Result<String> {
        let file = file.to_str().context("a path that is no text")?;
        let answer = self.ctl(&["study", "submit", file])?;
        let study = answer["study"].as_str().context("no study in the answer")?.to_owned();
        for site in &self.sites {
            self.until("the study is offered", |_| {
                Ok(site
                    .act("Stefan", &["requests"])?
                    .as_array()
                    .is_some_and(|all| all.iter().any(|request| request["study"].as_str() == Some(&study))))
            })?;
        }
        Ok(study)
    }

    /// Waits until the last run of a study has ended; returns the study as `hospesctl study show` has it.
    ///
    /// # Errors
    /// If it does not end.
    pub fn finished(&self, study: &str) -> Result<Value> {
        let mut last = Value::Null;
        let ended = ["success", "failed", "timeout", "cancelled"];
        self.until("the run ends", |f| {
            // The coordinator may be starting again.
            if let Ok(answer) = f.ctl(&["study", "show", study]) {
                last = answer;
            }
            let jobs = last["jobs"].as_array();
            Ok(jobs
                .and_then(|jobs| jobs.last())
                .is_some_and(|job| job["state"].as_str().is_some_and(|state| ended.contains(&state))))
        })
        .with_context(|| format!("last seen: {last:#}"))?;
        Ok(last)
    }
}

impl Site {
    fn new(folder: &Path, name: &str, people: &[(&str, &str)]) -> Result<Self> {
        let data = folder.join(name);
        let secrets = folder.join(format!("{name}.secrets"));
        std::fs::create_dir_all(&secrets)?;
        std::fs::write(secrets.join("key-file"), format!("the key file of {name}"))?;
        for person in PEOPLE.iter().map(|(person, _)| *person).chain([ADMINISTRATOR]) {
            std::fs::write(secrets.join(person), format!("the passphrase of {person} at {name}"))?;
        }
        let mut init = site_command(&data, &secrets)?;
        init.arg("--passphrase-file").arg(secrets.join(ADMINISTRATOR));
        json(init.args(["init", "--administrator", ADMINISTRATOR, "--key-file"]))?;
        let engine = Running::start(site_command(&data, &secrets)?.arg("run"), folder.join(format!("{name}.log")))?;
        let site = Self { name: name.to_owned(), data, engine, secrets };
        site.until_it_answers()?;
        for &(person, role) in people {
            let outcome = site.act(ADMINISTRATOR, &["user", "add", person, "--role", role])?;
            let code = outcome["done"]["code"].as_str().with_context(|| format!("no code in {outcome}"))?;
            site.act(person, &["user", "activate", person, "--code", code])?;
        }
        Ok(site)
    }

    /// Runs `hospes-site` as a person; the answer as JSON.
    ///
    /// # Errors
    /// With what it said.
    pub fn act(&self, person: &str, arguments: &[&str]) -> Result<Value> {
        let mut command = site_command(&self.data, &self.secrets)?;
        command.args(["--as", person, "--passphrase-file"]).arg(self.secrets.join(person)).args(arguments);
        json(&mut command).with_context(|| format!("{person} at {}", self.name))
    }

    /// A person's passphrase, for typing.
    ///
    /// # Errors
    /// If there is no such person.
    pub fn passphrase(&self, person: &str) -> Result<String> {
        Ok(std::fs::read_to_string(self.secrets.join(person))?)
    }

    /// State of the site.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub fn status(&self) -> Result<Value> {
        json(site_command(&self.data, &self.secrets)?.arg("status"))
    }

    /// Both signatures under a study.
    ///
    /// # Errors
    /// With what the site said.
    pub fn approve(&self, study: &str) -> Result<()> {
        // Nobody signs without naming what they read.
        ensure!(self.act("Stefan", &["approve", study, "--yes"]).is_err(), "signed whatever there was");
        let review = self.act("Stefan", &["show", study])?;
        let read = review["read"]["digest"].as_str().with_context(|| format!("no digest in {review}"))?;
        let first = self.act("Stefan", &["approve", study, "--digest", read, "--yes"])?;
        let digest = first["digest"].as_str().with_context(|| format!("no digest in {first}"))?;
        ensure!(self.act("Anna", &["approve", study, "--yes"]).is_err(), "signed whatever there was");
        self.act("Anna", &["approve", study, "--digest", digest, "--yes"])?;
        Ok(())
    }

    /// Both signatures under a study, by people who read what they sign.
    ///
    /// # Errors
    /// With what the site said.
    pub fn sign(&self, study: &str) -> Result<()> {
        let review = self.act("Stefan", &["show", study])?;
        let read = review["read"]["digest"].as_str().with_context(|| format!("no digest in {review}"))?;
        let first = self.act("Stefan", &["approve", study, "--digest", read, "--yes"])?;
        let digest = first["digest"].as_str().with_context(|| format!("no digest in {first}"))?;
        self.act("Anna", &["approve", study, "--digest", digest, "--yes"])?;
        Ok(())
    }

    /// The words of this site's key in its only federation.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub fn words(&self) -> Result<String> {
        Ok(self.status()?["memberships"][0]["words"].as_str().context("no words")?.to_owned())
    }

    /// The public-data policy, and the data of one of the four hospitals.
    fn furnish(&self, data: &str) -> Result<()> {
        self.act(ADMINISTRATOR, &["policy", "set", &format!("{EXAMPLES}/policies/public-data.toml")])?;
        let file = format!("{EXAMPLES}/heart/{data}.csv");
        let add = ["dataset", "add", &file, "--name", "heart", "--subject", "subject_id", "--public"];
        self.act("Stefan", &add)?;
        Ok(())
    }

    /// Starts the engine again after it was killed.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&mut self) -> Result<()> {
        if !self.engine.has_ended()? {
            self.engine.kill()?;
        }
        let log = self.engine.log.clone();
        self.engine = Running::start(site_command(&self.data, &self.secrets)?.arg("run"), log)?;
        self.until_it_answers()
    }

    fn until_it_answers(&self) -> Result<()> {
        until_heard(&self.engine, &self.data.join("engine.sock"))
    }
}

/// A service without a site, which waits for its staff; it is killed with whoever holds it.
pub struct Waiting {
    /// The socket by which they reach it.
    pub socket: PathBuf,
    _service: Running,
}

impl Waiting {
    /// Starts one, with all that it has in a new folder.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(folder: &Path) -> Result<Self> {
        let (run, secrets) = (folder.join("run"), folder.join("secrets"));
        // Nothing is sent to a socket where others could answer.
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(&run)?;
        std::fs::create_dir(&secrets)?;
        std::fs::write(secrets.join("key-file"), "the key file of a service")?;
        let socket = std::fs::canonicalize(&run)?.join("staff.sock");
        let mut command = site_command(&folder.join("data"), &secrets)?;
        command.arg("run").arg(format!("--staff={}", socket.display()));
        let service = Running::start(&mut command, folder.join("service.log"))?;
        until_heard(&service, &socket)?;
        Ok(Self { socket, _service: service })
    }
}

/// Does the same with all, three at a time, in their order: most of it is waiting for keys that follow from passphrases.
fn at_once<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let (work, mut done) = (&work, Vec::new());
    for some in all.chunks(3) {
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|one| scope.spawn(move || work(one))).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|ended| ended.unwrap_or_else(|_| bail!("a thread panicked"))).collect::<Vec<_>>()
        });
        for result in results {
            done.push(result?);
        }
    }
    Ok(done)
}

/// Other times in a coordinator's settings.
fn set_times(settings: &Path, times: &[(&str, u64)]) -> Result<()> {
    let mut lines: Vec<String> = std::fs::read_to_string(settings)?.lines().map(str::to_owned).collect();
    for (name, ms) in times {
        let of_name = |line: &&mut String| line.split_once(" = ").is_some_and(|(key, _)| key == *name);
        let line = lines.iter_mut().find(of_name).with_context(|| format!("no {name} in {}", settings.display()))?;
        *line = format!("{name} = {ms}");
    }
    std::fs::write(settings, lines.join("\n"))?;
    Ok(())
}

/// Waits until a program listens on its socket.
fn until_heard(program: &Running, socket: &Path) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        ensure!(Instant::now() < end, "the engine does not answer:\n{}", program.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn start_coordinator(folder: &Path) -> Result<Running> {
    let mut command = Command::new(program("hospes-coordinator")?);
    Running::start(command.arg("--data").arg(folder.join("coordinator")).arg("serve"), folder.join("coordinator.log"))
}

fn site_command(data: &Path, secrets: &Path) -> Result<Command> {
    let mut command = Command::new(program("hospes-site")?);
    command.arg("--json").arg("--data").arg(data).env("HOSPES_KEY_PASSPHRASE_FILE", secrets.join("key-file"));
    command.env("NO_PROXY", "127.0.0.1");
    Ok(command)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn json(command: &mut Command) -> Result<Value> {
    let text = output(command)?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}
