//! Processes of the demo: started, watched, asked, and ended with it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::machine::{cargo, step, target_folder};

/// Lines of a log that are shown when something fails.
const TAIL_LINES: usize = 25;
/// Time that a process gets to end by itself, after it was asked to.
const GOODBYE: Duration = Duration::from_secs(10);

/// Folder of the built programs.
pub(crate) struct Programs(PathBuf);

impl Programs {
    /// Builds these programs, unless `HOSPES_PROGRAMS` names a folder that has them. With the features that the whole
    /// workspace selects, so that tests, demo and benchmarks share what was compiled.
    ///
    /// # Errors
    /// If they do not build.
    pub(crate) fn build(programs: &[&str], release: bool) -> Result<Self> {
        if let Some(folder) = std::env::var_os("HOSPES_PROGRAMS") {
            return Ok(Self(folder.into()));
        }
        let mut build = cargo()?;
        build.args(["build", "--locked", "--workspace"]);
        for program in programs {
            build.args(["--bin", program]);
        }
        if release {
            build.arg("--release");
        }
        step("build the programs", &mut build)?;
        Ok(Self(target_folder()?.join(if release { "release" } else { "debug" })))
    }

    /// A command of one program, without a terminal: what it does not find in its arguments or environment is an error.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.0.join(program));
        command.stdin(Stdio::null()).env("NO_COLOR", "1").env("NO_PROXY", "127.0.0.1").env_remove("RUST_BACKTRACE");
        command
    }
}

/// A program that runs for as long as this value lives.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program; what it prints goes to a log file.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// If the system does not say.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits until `ready` says so; the process must live until then.
    ///
    /// # Errors
    /// If it ends, or is not ready in time; both with the end of its log.
    pub(crate) fn wait_for(
        &mut self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}\n{}", self.name, self.tail());
            }
            match ready() {
                Ok(true) => return Ok(()),
                Ok(false) if start.elapsed() > patience => {
                    bail!("{}: {what} took longer than {} s\n{}", self.name, patience.as_secs(), self.tail())
                }
                Err(error) if start.elapsed() > patience => {
                    return Err(error.context(format!("{}: {what}\n{}", self.name, self.tail())));
                }
                Ok(false) | Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        format!("── end of the log of {} ──\n{}", self.name, lines[from..].join("\n"))
    }

    /// Asks it to end, and ends it if it does not.
    pub(crate) fn stop(&mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).stderr(Stdio::null()).status();
        let start = Instant::now();
        while asked.is_ok() && start.elapsed() < GOODBYE {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// Runs a command to its end, with these lines on its standard input.
///
/// # Errors
/// If it does not end well; with what it printed.
pub(crate) fn output(command: &mut Command, lines: &[&str]) -> Result<Output> {
    let mut child = command
        .stdin(if lines.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    if let Some(mut input) = child.stdin.take() {
        // A program that asks fewer questions closes its input early.
        let _ = input.write_all(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{} ({})\n{}", words(command), output.status, both(&output));
    }
    Ok(output)
}

/// The program and its arguments without the folders they lie in.
pub(crate) fn words(command: &Command) -> String {
    let short = |text: &std::ffi::OsStr| {
        let path = Path::new(text);
        path.file_name().filter(|_| path.is_absolute()).unwrap_or(text).to_string_lossy().into_owned()
    };
    let arguments = command.get_args().map(short);
    std::iter::once(short(command.get_program())).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// What a command printed, both streams.
pub(crate) fn both(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    text.iter().filter(|t| !t.is_empty()).cloned().collect::<Vec<_>>().join("\n")
}

/// Reads what a command printed as JSON.
///
/// # Errors
/// If it is none.
pub(crate) fn json(command: &mut Command, lines: &[&str]) -> Result<Value> {
    let output = output(command, lines)?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} printed no JSON: {}", words(command), both(&output)))
}

/// A port that nothing listens on at the moment.
///
/// # Errors
/// If the machine has none left.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
