//! The machine: what must be installed on it, and how commands are run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Debian packages that building needs.
const BUILD_PACKAGES: &[&str] = &[
    "build-essential",
    "cmake",
    "pkg-config",
    "libwebkit2gtk-4.1-dev",
    "libayatana-appindicator3-dev",
    "librsvg2-dev",
    "libssl-dev",
    "libdbus-1-dev",
];
/// Debian packages that tests need besides.
const TEST_PACKAGES: &[&str] = &[
    "appstream",
    "desktop-file-utils",
    "systemd",
    "dbus",
    "gnome-keyring",
    "webkit2gtk-driver",
    "xvfb",
    "xauth",
    "xdotool",
    "postgresql",
    "git",
    "python3",
    "python3-venv",
    "libvulkan1",
    "mesa-vulkan-drivers",
];
/// Debian packages that making packages needs.
const PACK_PACKAGES: &[&str] = &["dpkg-dev", "binutils", "rpm"];
/// Oldest Node.js that builds the page.
const NODE: (u32, u32) = (20, 19);
/// Node.js for machines that have an older one, from the npm registry.
const NODE_PACKAGE: &str = "node@22.21.1";
/// What runs the tests.
const NEXTEST: &str = "cargo-nextest@0.9.143";
/// What our training is measured against, and what it needs.
const TORCH: [&str; 2] = ["torch==2.15.0", "numpy==2.4.6"];

/// Where builds go, so that a fresh clone finds what an earlier one compiled.
pub(crate) fn target_folder() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => std::path::absolute(PathBuf::from(folder)).context("CARGO_TARGET_DIR is no path"),
        None => Ok(cache_folder()?.join("target")),
    }
}

fn cache_folder() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    Ok(base.context("neither HOME nor XDG_CACHE_HOME is set")?.join("hospes"))
}

/// A cargo command that builds into the shared folder.
pub(crate) fn cargo() -> Result<Command> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.env("CARGO_TARGET_DIR", target_folder()?);
    #[cfg(unix)]
    cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper(Path::new("/usr/bin/env"))?);
    // What cargo says of this program; build scripts that look at it would run anew, and all that rests on them.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    Ok(cargo)
}

/// A link to a program that starts the compiler of our own crates; the link's path is this checkout's alone. Cargo tells two
/// checkouts in one folder apart by nothing else, and would take what the other one compiled for its own wherever that is
/// newer than the sources. Dependencies are compiled without it, and shared.
///
/// No script: a shell drops the variables that cargo sets for programs with a hyphen in their name.
///
/// # Errors
/// If it cannot be made.
#[cfg(unix)]
pub(crate) fn wrapper(starts: &Path) -> Result<PathBuf> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    let mut checkout = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut checkout);
    let folder = target_folder()?.join("checkouts").join(format!("{:016x}", checkout.finish()));
    // A program that is many finds by its name which one it is asked to be.
    let link = folder.join(starts.file_name().context("a program without a name")?);
    if std::fs::read_link(&link).is_ok_and(|found| found == starts) {
        return Ok(link);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    // In one step: another build of this checkout may start compilers through it.
    let new = folder.join(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&new);
    std::os::unix::fs::symlink(starts, &new).with_context(|| format!("make {}", new.display()))?;
    std::fs::rename(&new, &link).with_context(|| format!("make {}", link.display()))?;
    Ok(link)
}

/// Elsewhere the program itself.
#[cfg(not(unix))]
pub(crate) fn wrapper(starts: &Path) -> Result<PathBuf> {
    Ok(starts.to_owned())
}

/// Runs a command and says how long it took.
///
/// # Errors
/// If it cannot be started or does not end well.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<()> {
    println!("── {name}");
    let start = Instant::now();
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    println!("   {name}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Installs what compiling the programs without a window needs and is missing: a C compiler.
///
/// # Errors
/// If it is missing and cannot be installed.
pub(crate) fn ready_to_compile() -> Result<()> {
    if works(Command::new("cc").arg("--version")) { Ok(()) } else { install(&["build-essential"]) }
}

/// Installs what building everything and testing need and is missing, and builds the page, for a browser too.
///
/// # Errors
/// If something is missing and cannot be installed.
pub(crate) fn ready_to_test(root: &Path) -> Result<()> {
    install(&[BUILD_PACKAGES, TEST_PACKAGES, PACK_PACKAGES].concat())?;
    if !works(cargo()?.args(["fmt", "--version"])) || !works(cargo()?.args(["clippy", "--version"])) {
        step("install rustfmt and clippy", Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))?;
    }
    if !works(cargo()?.args(["nextest", "--version"])) {
        step("install cargo-nextest", cargo()?.args(["install", "--locked", NEXTEST]))?;
    }
    build_page(root)?;
    step("build the page for a browser", npm(root)?.args(["run", "--silent", "build:devhost"]))
}

/// Installs what building the programs with their window needs and is missing, and builds the page.
///
/// # Errors
/// If something is missing and cannot be installed.
pub(crate) fn ready_to_build(root: &Path) -> Result<()> {
    install(BUILD_PACKAGES)?;
    build_page(root)
}

/// Installs what making packages needs and is missing.
///
/// # Errors
/// If it is missing and cannot be installed.
pub(crate) fn ready_to_pack() -> Result<()> {
    install(PACK_PACKAGES)
}

/// A Python with the libraries that fit regressions on pooled rows and account for privacy, for the tests that compare ours
/// with theirs. It is made anew when the list of libraries changes.
///
/// # Errors
/// If there is no Python, or the libraries cannot be installed.
pub(crate) fn python(root: &Path) -> Result<PathBuf> {
    let wanted = root.join("crates/sim/tests/pooled/requirements.txt");
    let list = std::fs::read(&wanted).with_context(|| format!("read {}", wanted.display()))?;
    let folder = cache_folder()?.join("python");
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.txt"));
    if std::fs::read(&stamp).is_ok_and(|have| have == list) && works(Command::new(&python).arg("--version")) {
        return Ok(python);
    }
    step("make a Python environment", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]).arg(&wanted);
    step("install statsmodels, lifelines and dp-accounting", &mut pip)?;
    std::fs::write(&stamp, list)?;
    Ok(python)
}

/// A Python with PyTorch, in a folder of its own for each version: what our training is measured against.
///
/// # Errors
/// If there is no Python, or it cannot be installed.
pub(crate) fn torch() -> Result<PathBuf> {
    let folder = cache_folder()?.join(TORCH[0]);
    let python = folder.join("bin/python");
    if !works(Command::new(&python).args(["-c", "import torch, numpy"])) {
        step("make a Python environment", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(TORCH);
        step("install PyTorch", &mut pip)?;
    }
    Ok(python)
}

/// Installs the Debian packages among these that are missing.
fn install(packages: &[&str]) -> Result<()> {
    if !works(Command::new("dpkg-query").arg("--version")) {
        // Not Debian or a relative: the build says what it misses.
        return Ok(());
    }
    let missing: Vec<&&str> = packages.iter().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let apt = |arguments: &[&str]| {
        let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0");
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.arg("apt-get");
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        command
    };
    step("apt-get update", &mut apt(&["update"]))?;
    let mut command = apt(&["install", "-y", "--no-install-recommends"]);
    step(&format!("install {}", missing.iter().map(|m| **m).collect::<Vec<_>>().join(" ")), command.args(missing))
}

fn installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).stderr(Stdio::null()).output();
    query.is_ok_and(|o| o.stdout.ends_with(b"ok installed"))
}

fn works(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Builds the page that the desktop app embeds.
fn build_page(root: &Path) -> Result<()> {
    let wanted = root.join("ui/package-lock.json");
    let list = std::fs::read(&wanted).with_context(|| format!("read {}", wanted.display()))?;
    let stamp = root.join("ui/node_modules/.installed.json");
    if !std::fs::read(&stamp).is_ok_and(|have| have == list) {
        let mut packages = npm(root)?;
        step("install the page's packages", packages.args(["ci", "--no-audit", "--no-fund", "--silent"]))?;
        std::fs::write(&stamp, list)?;
    }
    step("build the page", npm(root)?.args(["run", "--silent", "build"]))
}

/// npm in the page's folder, with a Node.js that is new enough.
///
/// # Errors
/// If there is no Node.js and none can be installed.
pub(crate) fn npm(root: &Path) -> Result<Command> {
    if !works(Command::new("npm").arg("--version")) {
        install(&["nodejs", "npm"])?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(root.join("ui"));
    if node_version(Path::new("node")).is_none_or(|version| version < NODE) {
        let folder = cache_folder()?.join("node");
        let node = folder.join("node_modules/node/bin");
        if node_version(&node.join("node")).is_none_or(|version| version < NODE) {
            std::fs::create_dir_all(&folder)?;
            let mut command = Command::new("npm");
            command.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(NODE_PACKAGE);
            step("install a newer Node.js", &mut command)?;
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(node).chain(std::env::split_paths(&path));
        npm.env("PATH", std::env::join_paths(paths)?);
    }
    Ok(npm)
}

/// Major and minor version of a Node.js, if it runs.
fn node_version(node: &Path) -> Option<(u32, u32)> {
    let output = Command::new(node).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut parts = text.trim().trim_start_matches('v').split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}
