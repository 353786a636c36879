//! The RPM package, by `rpmbuild`, which finds out itself which shared libraries the programs need.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::contents::{Contents, Product};
use super::{Release, output};

/// Builds the package from what lies in `folder`; its path.
///
/// # Errors
/// If rpmbuild refuses.
pub(super) fn build(contents: &Contents, folder: &Path, release: &Release, root: &Path, out: &Path) -> Result<PathBuf> {
    let place = tempfile::tempdir()?;
    let text = spec(contents, release, root)?;
    let file = place.path().join("hospes.spec");
    std::fs::write(&file, text)?;
    // It cleans the build root when it is done, and the layout is still wanted.
    let copy = place.path().join("root");
    output(Command::new("cp").args(["-a", "--reflink=auto"]).arg(folder).arg(&copy))?;
    let mut build = Command::new("rpmbuild");
    build.arg("-bb").arg("--quiet").arg("--buildroot").arg(&copy);
    build.args(["--define", &format!("_topdir {}", place.path().display())]);
    build.args(["--define", &format!("_rpmdir {}", out.display())]);
    build.args(["--define", "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm"]);
    build.arg(&file);
    output(release.dated(&mut build))?;
    let name = format!("{}-{}-1.{}.rpm", contents.product.name(), release.package_version(), std::env::consts::ARCH);
    let package = out.join(name);
    ensure!(package.exists(), "rpmbuild made no {}", package.display());
    Ok(package)
}

/// The spec file, filled in.
fn spec(contents: &Contents, release: &Release, root: &Path) -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"));
    let product = contents.product;
    let mut relations = String::new();
    let other = product.other().name();
    writeln!(relations, "Conflicts: {other}")?;
    let mut recommends = vec!["vulkan-loader", "mesa-vulkan-drivers"];
    if product.has_window() {
        writeln!(relations, "Provides: {other} = {}", release.package_version())?;
        // Opened at run time, so that no linker names it.
        writeln!(relations, "Requires: libayatana-appindicator3.so.1()(64bit)")?;
        recommends.extend(["google-noto-sans-cjk-fonts", "gnome-keyring"]);
    }
    for package in recommends {
        writeln!(relations, "Recommends: {package}")?;
    }
    let mut files = String::new();
    for place in contents.places() {
        let kind = match place {
            place if place.ends_with("/copyright") => "%license ",
            place if place.starts_with("usr/share/doc/") => "%doc ",
            _ => "",
        };
        let mode = if place.contains("bin/") { "0755" } else { "0644" };
        writeln!(files, "%attr({mode}, root, root) {kind}/{place}")?;
    }
    let payload = if release.is_dev { "w0.ufdio" } else { "w19.zstdio" };
    Ok(read("packaging/rpm/hospes.spec")?
        .replace("@PREPARE@\n", &read("packaging/linux/prepare.sh")?)
        .replace("@PACKAGE@", product.name())
        .replace("@VERSION@", &release.package_version())
        .replace("@SUMMARY@", &capital(product))
        .replace("@DESCRIPTION@", product.description())
        .replace("@RELATIONS@", relations.trim_end())
        .replace("@PAYLOAD@", payload)
        .replace("@FILES@", files.trim_end()))
}

/// RPM's summaries begin with a capital letter, Debian's with a small one.
fn capital(product: Product) -> String {
    let summary = product.summary();
    let (first, rest) = summary.split_at(1);
    first.to_uppercase() + rest
}
