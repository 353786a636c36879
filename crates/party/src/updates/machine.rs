//! Which package a machine takes, and how its administrator installs it.

use std::path::Path;

use hospes_protocol::release::{Manifest, Package, PackageFormat};

/// What says which system this is.
const OS_RELEASE: &str = "/etc/os-release";
/// The window, which only the larger package has.
const WINDOW: &str = "/usr/bin/hospes";

/// The package of a version for the machine that this runs on.
pub(super) fn package(manifest: &Manifest) -> Option<&Package> {
    let format = format(&std::fs::read_to_string(OS_RELEASE).unwrap_or_default())?;
    let name = if Path::new(WINDOW).exists() { "hospes" } else { "hospes-site" };
    manifest.package(name, format, std::env::consts::ARCH)
}

/// What installs a package that lies in the present folder.
pub(super) fn command(package: &Package) -> String {
    let program = match package.format {
        PackageFormat::Deb => "apt install",
        PackageFormat::Rpm => "dnf install",
    };
    format!("sudo {program} ./{}", package.file)
}

/// What kind of package the system takes whose `os-release` this is.
fn format(os_release: &str) -> Option<PackageFormat> {
    let value = |line: &str| line.split_once('=').map(|(_, value)| value.trim_matches(['"', '\'']).to_owned());
    let lines = os_release.lines().filter(|line| line.starts_with("ID=") || line.starts_with("ID_LIKE="));
    let names: Vec<String> = lines.filter_map(value).collect();
    names.iter().flat_map(|names| names.split_whitespace()).find_map(|name| match name {
        "debian" | "ubuntu" => Some(PackageFormat::Deb),
        "fedora" | "rhel" | "centos" => Some(PackageFormat::Rpm),
        name if name.contains("suse") => Some(PackageFormat::Rpm),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_takes_the_packages_of_its_family() {
        for (text, expected) in [
            ("NAME=\"Debian GNU/Linux\"\nID=debian\n", Some(PackageFormat::Deb)),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some(PackageFormat::Deb)),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Some(PackageFormat::Rpm)),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", Some(PackageFormat::Rpm)),
            ("ID=nixos\n", None),
            ("BUILD_ID=debian\n", None),
            ("", None),
        ] {
            assert_eq!(format(text), expected, "{text}");
        }
    }
}
