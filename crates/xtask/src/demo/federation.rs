//! The coordinator of the demo, and its operator and researcher at the command line.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::process::{Daemon, Programs, both, free_port, json, output};
use super::site::text_at;

/// Time that the coordinator gets to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// The coordinator's process and folder.
pub(crate) struct Federation<'a> {
    programs: &'a Programs,
    folder: PathBuf,
    url: String,
    server: Daemon,
}

impl<'a> Federation<'a> {
    /// Makes a coordinator, its operator's and its researcher's tokens, and starts it.
    ///
    /// # Errors
    /// With the end of its log.
    pub(crate) fn open(programs: &'a Programs, root: &Path) -> Result<Self> {
        let folder = root.join("coordinator");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("passphrase"), "the operator opens the key files")?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let url = format!("https://{address}");
        let init = ["init", "--name", "Heart Federation", "--url", &url, "--listen", &address];
        output(coordinator(programs, &folder).args(init), &[])?;
        for role in ["operator", "researcher"] {
            let token = output(coordinator(programs, &folder).args(["token", "create", role, "--role", role]), &[])?;
            std::fs::write(folder.join(format!("{role}.token")), token.stdout.trim_ascii())?;
        }
        let log = folder.join("coordinator.log");
        let mut server = Daemon::start("coordinator", coordinator(programs, &folder).arg("serve"), &log)?;
        server.wait_for("it listens", PATIENCE, || Ok(std::net::TcpStream::connect(&address).is_ok()))?;
        Ok(Self { programs, folder, url, server })
    }

    /// `hospesctl` in the hands of this role.
    fn ctl(&self, role: &str) -> Command {
        let mut command = self.programs.command("hospesctl");
        command.args(["--url", &self.url]).arg("--ca").arg(self.folder.join("data/ca.pem"));
        command.arg("--token-file").arg(self.folder.join(format!("{role}.token")));
        command
    }

    /// What the operator or the researcher gets as JSON.
    ///
    /// # Errors
    /// If the command fails, with the end of the coordinator's log.
    pub(crate) fn asked(&self, role: &str, arguments: &[&str]) -> Result<Value> {
        json(self.ctl(role).arg("--json").args(arguments), &[]).with_context(|| self.server.tail())
    }

    /// What the operator or the researcher reads.
    ///
    /// # Errors
    /// If the command fails, with the end of the coordinator's log.
    pub(crate) fn told(&self, role: &str, arguments: &[&str]) -> Result<String> {
        let output = output(self.ctl(role).args(arguments), &[]).with_context(|| self.server.tail())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A command that must not succeed; gives what it says.
    ///
    /// # Errors
    /// If it succeeds.
    pub(crate) fn refused(&self, role: &str, arguments: &[&str]) -> Result<String> {
        let answer = self.ctl(role).args(arguments).output()?;
        ensure!(!answer.status.success(), "{} should have been refused:\n{}", arguments.join(" "), both(&answer));
        Ok(both(&answer))
    }

    /// The identity key of a site, or of the coordinator.
    ///
    /// # Errors
    /// As [`Federation::asked`].
    pub(crate) fn identity(&self, site: Option<&str>) -> Result<String> {
        let answer = match site {
            Some(name) => self.asked("operator", &["sites", "show", name])?,
            None => self.asked("operator", &["whoami"])?,
        };
        text_at(&answer, "identity").context("there is no identity key in the answer")
    }

    /// An invitation for a site, and the words that go by telephone.
    ///
    /// # Errors
    /// As [`Federation::asked`].
    pub(crate) fn invite(&self, name: &str) -> Result<(String, String)> {
        let answer = self.asked("operator", &["invite", name])?;
        let text = |key: &str| text_at(&answer, key).with_context(|| format!("the invitation has no {key}"));
        Ok((text("invitation")?, text("ca_words")?))
    }

    /// Id of the coordinator's process.
    pub(crate) fn process(&self) -> u32 {
        self.server.id()
    }
}

fn coordinator(programs: &Programs, folder: &Path) -> Command {
    let mut command = programs.command("hospes-coordinator");
    command.arg("--data").arg(folder.join("data")).env("HOSPES_PASSPHRASE_FILE", folder.join("passphrase"));
    command
}
