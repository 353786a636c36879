//! Debian's package and RPM's hold the same files and do the same on a machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use hospes_tests::{packages, program};

/// What accounts, folders and the key's passphrase are made by, in both.
const PREPARE: &str = include_str!("../../packaging/linux/prepare.sh");

/// Permissions, owner and group of a file.
type Kept = (String, String, String);

#[test]
fn both_kinds_of_packages_hold_the_same_files_and_do_the_same() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (programs, out) = (folder.path().join("programs"), folder.path().join("dist"));
    std::fs::create_dir(&programs)?;
    for name in ["hospes", "hospes-site", "hospesctl"] {
        // What lies where does not depend on what it does, and a small one is packed in a moment.
        std::fs::copy("/bin/true", programs.join(name))?;
    }
    let mut dist = Command::new(program("xtask")?);
    dist.args(["dist", "--profile", "dev", "--as-version", packages::VERSION, "--programs"]).arg(&programs);
    said(dist.arg("--out").arg(&out))?;
    for package in ["hospes", "hospes-site"] {
        let deb = out.join(packages::file(package, packages::VERSION)?);
        let rpm = out.join(format!("{package}-{}-1.{}.rpm", packages::VERSION, std::env::consts::ARCH));
        let (of_deb, of_rpm) = (deb_files(&deb)?, rpm_files(&rpm)?);
        assert_eq!(of_rpm, of_deb, "{package}");
        ensure!(of_rpm.contains_key("/usr/lib/systemd/system/hospes-site.service"), "{package}: {of_rpm:?}");
        for (path, (permissions, owner, group)) in &of_rpm {
            ensure!((owner.as_str(), group.as_str()) == ("root", "root"), "{path} belongs to {owner}:{group}");
            ensure!(!permissions.contains('s'), "{path}: {permissions}");
        }
        scripts(package, &deb, &rpm)?;
        relations(package, &rpm)?;
    }
    Ok(())
}

/// Files of a Debian package; folders are none of it.
fn deb_files(deb: &Path) -> Result<BTreeMap<String, Kept>> {
    let list = said(Command::new("dpkg-deb").arg("--contents").arg(deb))?;
    let read = |line: &str| {
        let mut fields = line.split_whitespace();
        let (permissions, owner) = (fields.next()?, fields.next()?);
        let (owner, group) = owner.split_once('/')?;
        let path = fields.nth(3)?.strip_prefix('.')?;
        Some((path.to_owned(), (permissions.to_owned(), owner.to_owned(), group.to_owned())))
    };
    let files = list.lines().filter(|line| !line.starts_with('d'));
    files.map(|line| read(line).with_context(|| format!("dpkg-deb says '{line}'"))).collect()
}

/// Files of an RPM package.
fn rpm_files(rpm: &Path) -> Result<BTreeMap<String, Kept>> {
    let format = r"[%{FILENAMES}\t%{FILEMODES:perms}\t%{FILEUSERNAME}\t%{FILEGROUPNAME}\n]";
    let list = said(asked(rpm).args(["--queryformat", format]))?;
    let read = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        Some((fields.next()?, (fields.next()?, fields.next()?, fields.next()?)))
    };
    list.lines().map(|line| read(line).with_context(|| format!("rpm says '{line}'"))).collect()
}

/// What both do when they are installed, upgraded and removed.
fn scripts(package: &str, deb: &Path, rpm: &Path) -> Result<()> {
    let of_deb = |name: &str| said(Command::new("dpkg-deb").arg("--info").arg(deb).arg(name));
    let of_rpm = said(asked(rpm).arg("--scripts"))?;
    let all = [of_deb("postinst")?, of_deb("prerm")?, of_deb("postrm")?, of_rpm.clone()];
    for script in &all {
        ensure!(!script.contains("@PREPARE@") && !script.contains("@PACKAGE@"), "{package}: not filled in:\n{script}");
    }
    for script in [&all[0], &of_rpm] {
        ensure!(script.contains(PREPARE.trim_end()), "{package} prepares nothing:\n{script}");
        for step in ["daemon-reload", "start hospes-site.service"] {
            ensure!(script.contains(step), "{package} does not {step}:\n{script}");
        }
    }
    for script in [&all[1], &of_rpm] {
        ensure!(script.contains("stop hospes-site.service"), "{package} leaves an old service running:\n{script}");
    }
    // Only a purge takes the data, which RPM does not know.
    ensure!(!of_rpm.contains("rm -rf"), "{package} deletes:\n{of_rpm}");
    Ok(())
}

/// Window and service, or the service alone: one of them on a machine, and what both need.
fn relations(package: &str, rpm: &Path) -> Result<()> {
    let other = if package == "hospes" { "hospes-site" } else { "hospes" };
    let list = |what: &str| -> Result<Vec<String>> {
        Ok(said(asked(rpm).arg(what))?.lines().map(|line| line.trim().to_owned()).collect())
    };
    ensure!(list("--conflicts")?.iter().any(|name| name == other), "{package} does not take the place of {other}");
    let requires = list("--requires")?;
    for needed in ["systemd", "dbus"] {
        ensure!(requires.iter().any(|name| name == needed), "{package} does not need {needed}: {requires:?}");
    }
    Ok(())
}

/// A question about a package that is not installed.
fn asked(rpm: &Path) -> Command {
    let mut command = Command::new("rpm");
    command.args(["--query", "--nosignature", "--nodigest", "--package"]).arg(rpm);
    command
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let wrong = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed:\n{wrong}");
    Ok(String::from_utf8(output.stdout)?)
}
