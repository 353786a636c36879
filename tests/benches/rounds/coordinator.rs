//! The coordinator's process, and what is asked of it from outside.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Time that the coordinator gets to start, and sites to connect.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Coordinator {
    programs: PathBuf,
    folder: PathBuf,
    url: String,
    child: Child,
}

impl Coordinator {
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let programs = std::env::var_os("HOSPES_PROGRAMS").context("say in HOSPES_PROGRAMS where the programs are")?;
        let programs = PathBuf::from(programs);
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let url = format!("https://{address}");
        let data = folder.join("coordinator");
        let command = || {
            let mut command = Command::new(programs.join("hospes-coordinator"));
            command.arg("--data").arg(&data).stdin(Stdio::null());
            command
        };
        output(command().args(["init", "--name", "Benchmark", "--url", &url, "--listen", &address]))?;
        unhurried(&data.join("coordinator.toml"))?;
        let token = output(command().args(["token", "create", "bench", "--role", "operator"]))?;
        std::fs::write(folder.join("token"), token.trim())?;
        let log = File::create(folder.join("coordinator.log"))?;
        let child = command().arg("serve").env("RUST_LOG", "warn").stdout(Stdio::null()).stderr(log).spawn()?;
        let coordinator = Self { programs, folder: folder.to_owned(), url, child };
        let start = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            ensure!(start.elapsed() < PATIENCE, "the coordinator does not listen\n{}", coordinator.tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(coordinator)
    }

    fn ctl(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(self.programs.join("hospesctl"));
        command.args(["--json", "--url", &self.url]).arg("--ca").arg(self.folder.join("coordinator/ca.pem"));
        command.arg("--token-file").arg(self.folder.join("token")).args(arguments).env("NO_PROXY", "127.0.0.1");
        Ok(serde_json::from_str(&output(&mut command)?)?)
    }

    /// An invitation and the words of the CA.
    pub(crate) fn invite(&self, name: &str) -> Result<(String, String)> {
        let answer = self.ctl(&["invite", name])?;
        let text = |key: &str| answer[key].as_str().map(str::to_owned).with_context(|| format!("no {key}"));
        Ok((text("invitation")?, text("ca_words")?))
    }

    pub(crate) async fn wait_until_connected(&self, sites: usize) -> Result<()> {
        let start = Instant::now();
        loop {
            let answer = self.ctl(&["sites", "list"])?;
            let online = answer.as_array().into_iter().flatten().filter(|site| !site["online_since"].is_null());
            if online.count() == sites {
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "not all sites connect\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) fn submit(&self, study: &str) -> Result<()> {
        let path = self.folder.join("study.yaml");
        std::fs::write(&path, study)?;
        self.ctl(&["study", "submit", path.to_str().context("a folder whose path is no text")?])?;
        Ok(())
    }

    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("coordinator.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Makes the kernel measure the peak from now on (proc(5), clear_refs).
    pub(crate) fn forget_peak(&self) -> Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").context("reset the peak of memory")
    }

    pub(crate) fn resident_mib(&self) -> Result<f64> {
        self.status("VmRSS:")
    }

    pub(crate) fn peak_mib(&self) -> Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, key: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }

    pub(crate) fn stop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Many sites enrol from one address at once here, which a coordinator takes for an attack.
fn unhurried(settings: &Path) -> Result<()> {
    let text = std::fs::read_to_string(settings)?;
    let lines = text
        .lines()
        .map(|line| if line.starts_with("enrolments_per_minute") { "enrolments_per_minute = 100000" } else { line });
    let text = lines.collect::<Vec<_>>().join("\n");
    ensure!(text.contains("= 100000"), "the settings have no limit on enrolments any more");
    std::fs::write(settings, text)?;
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
