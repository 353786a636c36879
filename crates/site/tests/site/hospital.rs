//! A site in a temporary folder, and its people.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A site with its key file and the passphrase files of its people.
pub(crate) struct Hospital {
    folder: TempDir,
}

impl Hospital {
    /// A folder without a site.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key-file"), "the key file's own passphrase\n").unwrap();
        Self { folder }
    }

    /// A site whose administrator is Ida.
    pub(crate) fn new() -> Self {
        let site = Self::empty();
        let init = site.run("Ida", &["init", "--administrator", "Ida", "--key-file"]);
        assert!(init.status.success(), "{}", words(&init));
        site
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file with the passphrase of a person, who has it from now on.
    pub(crate) fn passphrase(&self, person: &str) -> PathBuf {
        let path = self.path(&format!("{person}.passphrase"));
        if !path.exists() {
            std::fs::write(&path, format!("{person} walks through the ward\n")).unwrap();
        }
        path
    }

    /// The program, ready for arguments.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hospes-site"));
        for proxy in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(proxy);
        }
        command
            .arg("--data")
            .arg(self.data())
            .env("HOSPES_KEY_PASSPHRASE_FILE", self.path("key-file"))
            .env_remove("HOSPES_DATA")
            .env_remove("HOSPES_DEVICE")
            .env_remove("HOSPES_PERSON")
            .env_remove("CREDENTIALS_DIRECTORY")
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command as a person.
    pub(crate) fn run(&self, person: &str, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(["--as", person, "--passphrase-file"]).arg(self.passphrase(person)).args(arguments);
        command.output().unwrap()
    }

    /// The answer to a person, as JSON.
    pub(crate) fn ask(&self, person: &str, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.run(person, &all);
        assert!(output.status.success(), "{arguments:?}: {}", words(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The exit code and what was complained about.
    pub(crate) fn refused(&self, person: &str, arguments: &[&str]) -> (i32, String) {
        let output = self.run(person, arguments);
        assert!(!output.status.success(), "{arguments:?} went well: {}", words(&output));
        (output.status.code().unwrap(), words(&output))
    }

    /// Adds a person with a role, who then chooses a passphrase.
    pub(crate) fn add(&self, person: &str, role: &str) {
        let added = self.ask("Ida", &["user", "add", person, "--role", role]);
        let code = added["done"]["code"].as_str().unwrap().to_owned();
        self.ask(person, &["user", "activate", person, "--code", &code]);
    }

    /// Starts the engine and waits until it listens.
    pub(crate) fn start(&self) -> Running {
        self.start_with(&[])
    }

    /// Starts it with further arguments.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Running {
        self.start_by(self.command().arg("run").args(arguments), &self.data().join("engine.sock"))
    }

    /// Starts the engine by this command and waits until it listens on this socket.
    pub(crate) fn start_by(&self, command: &mut Command, socket: &Path) -> Running {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let running = Running(child);
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the engine does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }
}

/// Everything that a process said.
pub(crate) fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A running engine; killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Asks it to end, as systemd does, and waits; the exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.0.id()
    }

    /// Kills it without warning.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The heart data of a hospital.
pub(crate) fn heart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/heart/hungary.csv")
}
