//! A copy of this machine that boots in a second: its files under an overlay in memory, with a systemd of its own.
//!
//! Packages are installed there as on a clinic's machine, with their scripts, accounts and units, while this machine stays
//! as it is and nothing is left when the copy ends. It needs root (or `sudo` without a password) and a kernel that lets it
//! make namespaces, as Debian's and hosted runners' do; a container without privileges does not.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long systemd may take to start, on two busy cores.
const BOOT: Duration = Duration::from_secs(60);

/// Makes the copy's file systems and becomes its first process. `$1` is a folder, `$2` one that the copy sees as `/mnt`, `$3`
/// the files that it is a copy of, and `$4` a command in front of its first program, or nothing.
///
/// `/sys` and `/proc/sys` cannot be written, so that nothing in it changes the kernel's settings; `/dev` has only what every
/// program expects; `fstab` is empty, so that no disk is mounted.
const FIRST: &str = r#"
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$3,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts
mkdir -m 1777 dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount --bind "$2" mnt
: > etc/fstab
rm -f usr/sbin/policy-rc.d
mkdir run/old
pivot_root . run/old
cd /
umount -l run/old
# As at every boot: what systemd mounts for a unit in a process of its own (credentials) has to arrive here.
mount --make-rshared /
exec env -i container=copy PATH=/usr/sbin:/usr/bin:/sbin:/bin $4 \
    /lib/systemd/systemd --system --unit=sysinit.target --log-target=journal
"#;

/// What a copy has of the network.
pub enum Network {
    /// A loopback of its own.
    Own,
    /// This machine's, which it uses and cannot change: what listens on this loopback is reached from both.
    Shared,
}

/// The running copy.
pub struct Copy {
    shell: Child,
    /// The copy's first process, as this machine counts.
    first: u32,
    _folder: tempfile::TempDir,
}

impl Copy {
    /// Whether this machine lets us make one, and if not, why.
    ///
    /// # Errors
    /// In words.
    pub fn possible() -> Result<()> {
        ensure!(Path::new("/lib/systemd/systemd").exists(), "there is no systemd on this machine");
        let tried = root("unshare").args(["--mount", "--pid", "--cgroup", "--net", "--fork", "true"]).output()?;
        ensure!(tried.status.success(), "no namespaces: {}", String::from_utf8_lossy(&tried.stderr).trim());
        Ok(())
    }

    /// Boots a copy, which sees `folder` as `/mnt`, without this machine's network.
    ///
    /// # Errors
    /// If its systemd does not come up, with what was said.
    pub fn boot(folder: &Path) -> Result<Self> {
        Self::of(Path::new("/"), folder, &Network::Own)
    }

    /// Boots a copy of the system whose files lie in `files`.
    ///
    /// # Errors
    /// As [`Copy::boot`].
    pub fn of(files: &Path, folder: &Path, network: &Network) -> Result<Self> {
        let own = tempfile::tempdir()?;
        let log = std::fs::File::create(own.path().join("boot.log"))?;
        let place = own.path().join("copy");
        std::fs::create_dir(&place)?;
        let mut unshare = root("unshare");
        unshare.args(["--mount", "--pid", "--cgroup", "--ipc", "--uts", "--fork", "--kill-child"]);
        let limited = match network {
            Network::Own => {
                unshare.arg("--net");
                ""
            }
            Network::Shared => "setpriv --bounding-set=-net_admin --inh-caps=-net_admin",
        };
        unshare.args(["--propagation", "private", "sh", "-c", FIRST, "first"]).arg(&place).arg(folder);
        unshare.arg(files).arg(limited);
        let shell =
            unshare.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("start unshare")?;
        let mut copy = Self { shell, first: 0, _folder: own };
        let end = Instant::now() + BOOT;
        loop {
            if let Some(status) = copy.shell.try_wait()? {
                let said = std::fs::read_to_string(copy._folder.path().join("boot.log"))?;
                bail!("the copy of this machine did not boot ({status}):\n{said}");
            }
            if copy.first == 0 {
                copy.first = systemd_below(copy.shell.id()).unwrap_or(0);
            } else if copy.run("systemctl is-system-running | grep -qE 'running|degraded'").is_ok() {
                // systemd-run and others speak to systemd over it.
                copy.run("systemctl start dbus.socket")?;
                return Ok(copy);
            }
            ensure!(Instant::now() < end, "the systemd of the copy does not come up");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Installs a package that lies in `/mnt`, as docs/install.md says, with the dependencies that are there already.
    ///
    /// # Errors
    /// With what apt said.
    pub fn install(&self, file: &str) -> Result<()> {
        let apt = "apt-get install --yes --no-install-recommends -o Dpkg::Options::=--force-unsafe-io";
        self.run(&format!("{apt} /mnt/{file} 2>&1")).map(drop)
    }

    /// A command with root's rights in the copy: what is added to it is the program and its arguments.
    pub fn enter(&self) -> Command {
        let mut enter = root("nsenter");
        enter.args(["--target", &self.first.to_string(), "--all"]);
        enter
    }

    /// Runs a shell script as root in the copy; what it printed.
    ///
    /// # Errors
    /// With what it said, if it did not end well.
    pub fn run(&self, script: &str) -> Result<String> {
        let output = self.try_run(script)?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "in the copy, this failed ({}):\n{script}\n{text}\n{said}", output.status);
        Ok(text)
    }

    /// Runs a shell script as root in the copy, however it ends.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn try_run(&self, script: &str) -> Result<Output> {
        let mut enter = self.enter();
        enter.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        enter.args(["DEBIAN_FRONTEND=noninteractive", "HOME=/root", "LANG=C.UTF-8", "sh", "-eu", "-c", script]);
        enter.stdin(Stdio::null()).output().context("enter the copy")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Its first process takes all others along.
        let _ = root("kill").args(["-KILL", &self.first.to_string()]).output();
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A command with root's rights.
fn root(program: &str) -> Command {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0");
    if is_root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", program]);
    command
}

/// The first descendant of a process that has become systemd.
fn systemd_below(process: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split_whitespace().filter_map(|child| child.parse().ok()).find_map(|child: u32| {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        if name.trim() == "systemd" { Some(child) } else { systemd_below(child) }
    })
}
