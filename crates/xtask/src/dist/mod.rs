//! `cargo xtask dist`: the packages that a clinic installs, their checksums and their bill of materials.
//!
//! Two packages, each as .deb and .rpm: `hospes` is the window with the service, one file for a workstation; `hospes-site`
//! is the service alone, for servers. They take each other's place on a machine and use the same data. Debian's and RPM's
//! own tools make them, without root, so that what they compute (shared libraries above all) is what their systems
//! expect. The same commit gives the same bytes: every time stamp is the commit's.

mod contents;
mod deb;
mod licences;
mod manifest;
mod rpm;
mod sbom;
mod shipped;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::contents::{Contents, Product};
pub(crate) use self::manifest::{Signing, sign};
use self::shipped::Shipped;
use crate::machine::{self, cargo, step, target_folder};

/// Programs that are shipped.
const PROGRAMS: &[&str] = &["hospes", "hospes-site", "hospesctl"];
/// What the programs are shipped for, and on which they can be built besides; together they name every library of others.
const TARGETS: &[&str] = &["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-pc-windows-msvc"];
/// Every library of others with the texts of its licence: in the packages and in the app, for people to read.
pub(crate) const THIRD_PARTY: &str = "third-party-licences.txt";
/// Name of the profile whose packages are for tests: not compressed.
const DEV: &str = "dev";

/// Who answers for the packages. Mail to an address would be read by nobody, so reports go where SECURITY.md says.
const MAINTAINER: &str = "The Hospes maintainers <maintainers@hospes.invalid>";

/// What is to be made.
#[derive(Args)]
pub(crate) struct Options {
    /// Cargo profile of the programs; packages from `dev` are for tests.
    #[arg(long, default_value = "dist")]
    profile: String,
    /// Folder with programs that were built before; nothing is built then.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Where the packages go.
    #[arg(long, value_name = "FOLDER", default_value = "dist")]
    out: PathBuf,
    /// Only this package.
    #[arg(long, value_enum)]
    package: Option<Product>,
    /// Only this format.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Another version than the workspace's: for tests of upgrades.
    #[arg(long, value_name = "VERSION")]
    as_version: Option<String>,
}

/// Formats of packages.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Debian, Ubuntu.
    Deb,
    /// Fedora, Red Hat, SUSE.
    Rpm,
}

/// What every package of one run has in common.
struct Release {
    version: String,
    /// Seconds since 1970 that stand for "now".
    epoch: u64,
    /// Whether the packages are for tests.
    is_dev: bool,
}

/// Makes the packages.
///
/// # Errors
/// If a program does not build, or a tool is missing or refuses.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    machine::ready_to_pack()?;
    let release = release(options)?;
    let programs = match &options.programs {
        Some(folder) => folder.clone(),
        None => build(root, options, release.epoch)?,
    };
    // Absolute, because the tools work in folders of their own.
    std::fs::create_dir_all(&options.out).with_context(|| format!("make {}", options.out.display()))?;
    let out = std::fs::canonicalize(&options.out)?;
    let shipped = Shipped::read(root, &[])?;
    let mut made = Vec::new();
    let scratch = tempfile::tempdir()?;
    for product in [Product::Hospes, Product::HospesSite] {
        if options.package.is_some_and(|only| only != product) {
            continue;
        }
        let contents = Contents::of(product, root, &programs, &release)?;
        let folder = scratch.path().join(product.name());
        contents.lay_out(&folder)?;
        for format in [Format::Deb, Format::Rpm] {
            if options.format.is_some_and(|only| only != format) {
                continue;
            }
            made.push(match format {
                Format::Deb => deb::build(&contents, &folder, &release, root, &out)?,
                Format::Rpm => rpm::build(&contents, &folder, &release, root, &out)?,
            });
        }
    }
    let bill = out.join(format!("hospes-{}.cdx.json", release.version));
    let text = serde_json::to_string_pretty(&sbom::cyclonedx(&shipped, &release))?;
    std::fs::write(&bill, text + "\n").with_context(|| format!("write {}", bill.display()))?;
    made.push(bill);
    checksums(&out, &made)?;
    for path in &made {
        let bytes = std::fs::metadata(path)?.len();
        println!("   {} ({:.1} MB)", path.display(), bytes as f64 / 1e6);
    }
    Ok(())
}

/// What stands in [`THIRD_PARTY`].
///
/// # Errors
/// If the sources of a library are not on this machine, or a library brings no text and none is known for its licence.
pub(crate) fn third_party(root: &Path) -> Result<String> {
    let apache = std::fs::read_to_string(root.join("LICENSE")).context("read LICENSE")?;
    licences::text(&Shipped::read(root, TARGETS)?, &apache)
}

/// Version and time of what is made.
fn release(options: &Options) -> Result<Release> {
    let version = options.as_version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    ensure!(
        version.starts_with(|c: char| c.is_ascii_digit()) && version.chars().all(is_fit),
        "'{version}' is no version; it must be as in Cargo.toml, such as 1.2.3 or 1.2.3-beta.1"
    );
    Ok(Release { version, epoch: epoch()?, is_dev: options.profile == DEV })
}

impl Release {
    /// The version as both package managers order it: before 1.2.3 comes 1.2.3~beta.1.
    fn package_version(&self) -> String {
        self.version.replacen('-', "~", 1).replace('-', ".")
    }

    /// `SOURCE_DATE_EPOCH` for a tool.
    fn dated<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("SOURCE_DATE_EPOCH", self.epoch.to_string()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC")
    }
}

/// The time that stands for "now": `SOURCE_DATE_EPOCH`, or the commit's.
fn epoch() -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given.parse().with_context(|| format!("SOURCE_DATE_EPOCH is '{given}', which is no number of seconds"));
    }
    let output = Command::new("git").args(["log", "-1", "--format=%ct"]).output().context("start git")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().context("this is no git checkout; set SOURCE_DATE_EPOCH to the time of its sources")
}

/// Builds the programs; the folder in which they then lie.
fn build(root: &Path, options: &Options, epoch: u64) -> Result<PathBuf> {
    machine::ready_to_build(root)?;
    let mut build = cargo()?;
    build.args(["build", "--locked", "--workspace", "--profile", &options.profile]);
    for program in PROGRAMS {
        build.args(["--bin", program]);
    }
    if options.profile != DEV {
        // As tauri-cli does: the page comes from the program, never from a development server.
        build.args(["--features", "tauri/custom-protocol"]);
        // No path of the machine that built them is left in the programs.
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
        let mut flags = vec![format!("--remap-path-prefix={}=/hospes", root.display())];
        flags.extend(home.map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
        build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        // These flags tell checkouts apart already, and leave the programs the same for each.
        build.env_remove("RUSTC_WORKSPACE_WRAPPER");
    }
    build.env("SOURCE_DATE_EPOCH", epoch.to_string());
    step(&format!("build the programs, profile {}", options.profile), &mut build)?;
    let folder = if options.profile == DEV { "debug" } else { &options.profile };
    Ok(target_folder()?.join(folder))
}

/// Writes `SHA256SUMS` as `sha256sum --check` reads it.
fn checksums(out: &Path, files: &[PathBuf]) -> Result<()> {
    let mut text = String::new();
    let mut sorted: Vec<&PathBuf> = files.iter().collect();
    sorted.sort();
    for path in sorted {
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_name().and_then(|name| name.to_str()).context("a package without a name")?;
        writeln!(text, "{}  {name}", hex(&Sha256::digest(&bytes)))?;
    }
    std::fs::write(out.join("SHA256SUMS"), text).context("write SHA256SUMS")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Unwrap safety: writing to a string does not fail.
        #[allow(clippy::unwrap_used)]
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// What a tool prints.
///
/// # Errors
/// If it cannot be started or does not end well, with what it said.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({})\n{said}", command.get_program().display(), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no text", command.get_program().display()))
}

/// A text in a JSON value, or nothing.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release_of(version: &str) -> Result<Release> {
        release(&Options {
            profile: DEV.into(),
            programs: None,
            out: "dist".into(),
            package: None,
            format: None,
            as_version: Some(version.into()),
        })
    }

    #[test]
    fn a_version_before_a_release_is_ordered_before_it() -> Result<()> {
        assert_eq!(release_of("1.2.3-beta.1")?.package_version(), "1.2.3~beta.1");
        assert_eq!(release_of("1.2.3")?.package_version(), "1.2.3");
        Ok(())
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for version in ["", "v1", "1.2;reboot", "1 2"] {
            assert!(release_of(version).is_err(), "{version}");
        }
    }

    #[test]
    fn checksums_are_as_sha256sum_reads_them() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("a.deb");
        std::fs::write(&file, "abc")?;
        checksums(folder.path(), &[file])?;
        output(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder.path()))?;
        let sums = std::fs::read_to_string(folder.path().join("SHA256SUMS"))?;
        assert!(sums.starts_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.deb"), "{sums}");
        Ok(())
    }
}
