//! The seat of somebody of a clinic's staff: a machine with the package, and their account on it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::copy::{Copy, Network};
use crate::program;

/// Their account, where they have one of their own.
pub const ACCOUNT: &str = "clinic";

/// A machine with the package, as one person sees it.
pub struct Seat {
    place: Place,
    programs: PathBuf,
    /// The site's data folder, where it is not the account's own.
    data: Option<PathBuf>,
}

enum Place {
    /// A copy of this machine, on which the package was installed as on a clinic's.
    Copy(Copy),
    /// A folder of this machine, into which the package was unpacked.
    Folder { home: PathBuf, _files: TempDir },
}

fn home_of(account: &str) -> PathBuf {
    Path::new("/home").join(account)
}

impl Seat {
    /// Installs a package, in a copy of this machine, or of the Debian whose files lie in the folder `HOSPES_DEBIAN`; where
    /// no copy can be made, it is only unpacked, and this says so.
    ///
    /// # Errors
    /// If it cannot be installed, with what was said.
    pub fn take(package: &Path) -> Result<Self> {
        if let Err(why) = Copy::possible() {
            // Root in a container without privileges, or nobody who may become root: the programs are still used.
            eprintln!("the package was unpacked but not installed: {why:#}");
            return Self::unpacked(package);
        }
        let folder = package.parent().context("the package lies in no folder")?;
        let file = package.file_name().and_then(OsStr::to_str).context("the package has no name")?;
        let debian = std::env::var_os("HOSPES_DEBIAN").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let copy = Copy::of(&debian, folder, &Network::Shared)?;
        copy.install(file)?;
        copy.run(&format!("useradd --create-home --shell /bin/sh {ACCOUNT}"))?;
        // Only root may make it, and the X server is not root's.
        copy.run("install -d -m 1777 /tmp/.X11-unix")?;
        Ok(Self { place: Place::Copy(copy), programs: "/usr/bin".into(), data: None })
    }

    fn unpacked(package: &Path) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let done = Command::new("dpkg-deb").arg("--extract").arg(package).arg(files.path()).status()?;
        ensure!(done.success(), "{} cannot be unpacked", package.display());
        let home = files.path().join("home");
        std::fs::create_dir(&home)?;
        let programs = files.path().join("usr/bin");
        Ok(Self { place: Place::Folder { home, _files: files }, programs, data: None })
    }

    /// A seat at this machine itself, with the programs beside the tests; its window is one on the site in this folder.
    ///
    /// # Errors
    /// If they were not built, or there is no room for a home.
    pub fn here(data: &Path) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let home = files.path().join("home");
        std::fs::create_dir(&home)?;
        let programs = program("hospes")?.parent().context("the programs lie in no folder")?.to_owned();
        Ok(Self { place: Place::Folder { home, _files: files }, programs, data: Some(data.to_owned()) })
    }

    /// Whether the machine has the package's service, which waits for its site and does not let this person in yet.
    pub fn has_service(&self) -> bool {
        matches!(self.place, Place::Copy(_))
    }

    /// Where a program of the package lies there.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Writes a file into the person's home.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, name: &str, text: &str) -> Result<()> {
        let mut writing = self.start("cat > \"$HOME/$1\"", &[name])?;
        writing.stdin.take().context("a shell without an input")?.write_all(text.as_bytes())?;
        ensure!(writing.wait()?.success(), "{name} cannot be written at the seat");
        Ok(())
    }

    /// Reads a file of the person's home.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, name: &str) -> Result<String> {
        self.run("cat \"$HOME/$1\"", &[name])
    }

    /// Runs a shell script as this person, with its arguments; what it printed.
    ///
    /// # Errors
    /// With what it said, if it did not end well.
    pub fn run(&self, script: &str, arguments: &[&str]) -> Result<String> {
        self.run_as(ACCOUNT, script, arguments)
    }

    /// Runs a shell script under another account of the machine, in its own home; what it printed.
    ///
    /// # Errors
    /// As [`Seat::run`].
    pub fn run_as(&self, account: &str, script: &str, arguments: &[&str]) -> Result<String> {
        let output = self.shell(account, script, arguments).stdin(Stdio::null()).output().context("start a shell")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "at the seat, {account} failed ({}):\n{script}\n{said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a shell script as whoever administers the machine; what it printed.
    ///
    /// # Errors
    /// With what it said, if it did not end well, or where the machine is not this test's own.
    pub fn administer(&self, script: &str) -> Result<String> {
        match &self.place {
            Place::Copy(copy) => copy.run(script),
            Place::Folder { .. } => bail!("nobody administers the machine that runs this test"),
        }
    }

    /// Starts a shell script that reads what it is given.
    pub(crate) fn start(&self, script: &str, arguments: &[&str]) -> Result<Child> {
        let mut shell = self.shell(ACCOUNT, script, arguments);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start a shell")
    }

    fn shell(&self, account: &str, script: &str, arguments: &[&str]) -> Command {
        let (mut command, home) = match &self.place {
            Place::Copy(copy) => {
                let mut enter = copy.enter();
                let (user, group) = (format!("--reuid={account}"), format!("--regid={account}"));
                enter.args(["setpriv", "--init-groups", &user, &group, "env"]);
                (enter, home_of(account))
            }
            Place::Folder { home, .. } => (Command::new("env"), home.clone()),
        };
        let (home, programs) = (home.display(), self.programs.display());
        command.args(["-i", "LANG=C.UTF-8", "NO_PROXY=127.0.0.1"]);
        command.arg(format!("PATH={programs}:/usr/bin:/bin")).arg(format!("HOME={home}"));
        command.arg(format!("XDG_RUNTIME_DIR={home}/.runtime"));
        command.args(self.data.iter().map(|data| format!("HOSPES_DATA={}", data.display())));
        command.args(["sh", "-eu", "-c", script, "sh"]).args(arguments);
        command
    }
}
