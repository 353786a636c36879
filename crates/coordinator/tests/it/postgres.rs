//! A PostgreSQL server of this test's own, from the installed binaries, on a socket in a temporary folder. The tests over
//! whole processes include this file too.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Postgres {
    folder: tempfile::TempDir,
    server: Child,
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_on(None)
    }

    /// One that also listens on this port of 127.0.0.1.
    pub fn start_on(port: Option<u16>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let account = account();
        if let Some((user, group)) = account {
            chown(&data, Some(user), Some(group)).unwrap();
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let program = |name: &str| {
            let mut command = Command::new(binaries().join(name));
            command.current_dir(folder.path()).stdin(Stdio::null());
            if let Some((user, group)) = account {
                command.uid(user).gid(group);
            }
            command
        };
        let made = program("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let server = program("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args([
                "-c",
                if port.is_some() { "listen_addresses=127.0.0.1" } else { "listen_addresses=" },
                "-c",
                format!("port={}", port.unwrap_or(5432)).as_str(),
                "-c",
                "fsync=off",
                "-c",
                "shared_buffers=16MB",
                "-c",
                "max_connections=20",
            ])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let postgres = Self { folder, server };
        postgres.wait();
        postgres
    }

    /// URL of the database that is there from the start.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// URL of another database.
    pub fn url_of(&self, name: &str) -> String {
        format!("postgres://postgres@localhost/{name}?host={}", self.folder.path().display())
    }

    /// Waits until the server says in its own file that it takes connections; its socket is there before that.
    fn wait(&self) {
        let status = self.folder.path().join("data/postmaster.pid");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            let text = fs::read_to_string(&status).unwrap_or_default();
            if text.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("PostgreSQL did not start: {}", fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(process) = rustix::process::Pid::from_raw(i32::try_from(self.server.id()).unwrap_or(0)) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::INT);
        }
        let _ = self.server.wait();
    }
}

/// The newest installed version's programs.
fn binaries() -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed (Debian package postgresql)")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|path| path.join("initdb").exists())
        .collect();
    versions.sort_by_key(|path| {
        path.parent().and_then(Path::file_name).and_then(|v| v.to_str()?.parse::<u32>().ok()).unwrap_or(0)
    });
    versions.pop().expect("no PostgreSQL server programs")
}

/// PostgreSQL refuses to run as root; then it runs as `postgres` or `nobody`.
pub fn account() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("an unprivileged account"))
}
