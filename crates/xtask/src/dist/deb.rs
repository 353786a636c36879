//! The Debian package, by `dpkg-deb`; what it depends on, by `dpkg-shlibdeps`.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::contents::{Contents, Product};
use super::{MAINTAINER, Release, output};

/// Builds the package from what lies in `folder`; its path.
///
/// # Errors
/// If a tool refuses.
pub(super) fn build(contents: &Contents, folder: &Path, release: &Release, root: &Path, out: &Path) -> Result<PathBuf> {
    let control = folder.join("DEBIAN");
    std::fs::create_dir_all(&control)?;
    std::fs::set_permissions(&control, std::fs::Permissions::from_mode(0o755))?;
    for script in ["postinst", "prerm", "postrm"] {
        let path = control.join(script);
        std::fs::write(&path, filled(root, &format!("packaging/deb/{script}"), contents.product)?)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    let sums = output(Command::new("md5sum").args(contents.places()).current_dir(folder))?;
    std::fs::write(control.join("md5sums"), sums)?;
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let text = description(contents, folder, release, architecture)?;
    std::fs::write(control.join("control"), text)?;
    let name = format!("{}_{}_{architecture}.deb", contents.product.name(), release.package_version());
    let package = out.join(name);
    let mut pack = Command::new("dpkg-deb");
    // Packages for tests are made in seconds; what people download is small.
    pack.args(if release.is_dev { ["-Znone", "-z0"] } else { ["-Zxz", "-z9"] });
    pack.args(["--root-owner-group", "--build"]).arg(folder).arg(&package);
    output(release.dated(&mut pack))?;
    std::fs::remove_dir_all(&control)?;
    Ok(package)
}

/// A script of the package.
fn filled(root: &Path, script: &str, product: Product) -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"));
    let prepare = read("packaging/linux/prepare.sh")?;
    Ok(read(script)?.replace("@PREPARE@\n", &prepare).replace("@PACKAGE@", product.name()))
}

/// The control file.
fn description(contents: &Contents, folder: &Path, release: &Release, architecture: &str) -> Result<String> {
    let product = contents.product;
    let version = release.package_version();
    let mut kibibytes = 0;
    for place in contents.places() {
        kibibytes += std::fs::metadata(folder.join(place))?.len().div_ceil(1024);
    }
    let mut depends = libraries(contents, folder)?;
    depends.push_str(", systemd (>= 252), default-dbus-system-bus | dbus-system-bus");
    if product.has_window() {
        // Opened at run time, so that no linker names it.
        depends.push_str(", libayatana-appindicator3-1");
    }
    let mut text = String::new();
    writeln!(text, "Package: {}\nVersion: {version}\nArchitecture: {architecture}", product.name())?;
    writeln!(text, "Section: science\nPriority: optional\nMaintainer: {MAINTAINER}")?;
    writeln!(text, "Homepage: https://github.com/hospes/hospes\nInstalled-Size: {kibibytes}")?;
    writeln!(text, "Depends: {depends}")?;
    let recommends = match product {
        Product::Hospes => {
            "libvulkan1, mesa-vulkan-drivers | vulkan-icd, fonts-noto-cjk, gnome-keyring | kwalletmanager | keepassxc"
        }
        Product::HospesSite => "libvulkan1, mesa-vulkan-drivers | vulkan-icd",
    };
    writeln!(text, "Recommends: {recommends}")?;
    let other = product.other().name();
    // They hold the same files; the one that is installed later takes the place of the other, and its data.
    writeln!(text, "Conflicts: {other}\nReplaces: {other}")?;
    if product.has_window() {
        writeln!(text, "Provides: {other} (= {version})")?;
    }
    writeln!(text, "Description: {}", product.summary())?;
    for line in product.description().lines() {
        writeln!(text, " {line}")?;
    }
    Ok(text)
}

/// The packages whose shared libraries the programs are linked to.
fn libraries(contents: &Contents, folder: &Path) -> Result<String> {
    let place = tempfile::tempdir()?;
    // The tool reads nothing but the names from it.
    std::fs::create_dir(place.path().join("debian"))?;
    let control = "Source: hospes\nMaintainer: none\n\nPackage: hospes\nArchitecture: any\nDescription: none\n";
    std::fs::write(place.path().join("debian/control"), control)?;
    let mut tool = Command::new("dpkg-shlibdeps");
    tool.arg("-O").args(contents.programs().map(|program| folder.join(program))).current_dir(place.path());
    let said = output(&mut tool)?;
    let found = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    Ok(found.context("dpkg-shlibdeps named no library")?.to_owned())
}
