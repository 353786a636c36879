//! The real packages on a real system: installed, laid down, started, upgraded, replaced, removed, purged.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use hospes_tests::copy::Copy;
use hospes_tests::packages;
use serde_json::Value;

/// Turns a database back into one of the first schema: the tables of that schema, and all others as they are, with the
/// columns that both have.
const AGE: &str = r#"
import sqlite3, os, re
path = '/var/lib/hospes/site.db'
old = sqlite3.connect(path)
old.execute('PRAGMA wal_checkpoint(TRUNCATE)')
new = sqlite3.connect(path + '.aged')
new.executescript(open('/mnt/0001_site.sql').read())
have = {name for (name,) in new.execute('SELECT name FROM sqlite_master')}
objects = old.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'table' DESC").fetchall()
shared = {name for kind, name, _, _ in objects if kind == 'table' and name in have}
# What later versions added was not there yet.
later = set(re.findall(r'CREATE (?:TABLE|INDEX|UNIQUE INDEX|TRIGGER|VIEW) (\w+)', open('/mnt/later.sql').read()))
for kind, name, table, sql in objects:
    if name not in have and not (table in shared) and not ({name, table} & later):
        new.execute(sql)
for (name,) in old.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall():
    columns = lambda db: [row[1] for row in db.execute(f'PRAGMA table_info("{name}")')]
    both = ', '.join(f'"{c}"' for c in columns(new) if c in columns(old))
    if both:
        marks = ', '.join('?' * len(both.split(', ')))
        new.executemany(f'INSERT INTO "{name}" ({both}) VALUES ({marks})', old.execute(f'SELECT {both} FROM "{name}"'))
new.execute('PRAGMA user_version = 1')
new.commit(); new.close(); old.close()
owner = os.stat(path)
os.replace(path + '.aged', path)
os.chown(path, owner.st_uid, owner.st_gid); os.chmod(path, 0o600)
for rest in ('-wal', '-shm'):
    if os.path.exists(path + rest): os.remove(path + rest)
"#;

/// What the schema of a database is.
const SCHEMA: &str = "import sqlite3, sys; print(sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True).execute('PRAGMA user_version').fetchone()[0])";

#[test]
fn a_package_is_installed_upgraded_replaced_and_removed_and_only_purge_takes_the_data() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::copy(packages::shared()?, folder.path().join(packages::file("hospes", packages::VERSION)?))?;
    packages::make(folder.path(), "hospes", "1.1.0")?;
    packages::make(folder.path(), "hospes-site", "1.1.0")?;
    if let Err(why) = Copy::possible() {
        // Root in a container without privileges, or nobody who may become root: what is in the packages is still checked.
        eprintln!("the packages were made but not installed: {why:#}");
        return contents(folder.path());
    }
    contents(folder.path())?;
    schemas(folder.path())?;
    std::fs::write(folder.path().join("age.py"), AGE)?;
    std::fs::write(folder.path().join("schema.py"), SCHEMA)?;
    std::fs::write(folder.path().join("passphrase"), "a long enough passphrase of ida")?;
    let copy = Copy::boot(folder.path())?;
    installed(&copy)?;
    laid_down_and_upgraded(&copy)?;
    staff(&copy)?;
    upgraded_while_running(&copy)?;
    removed_and_replaced(&copy)
}

/// The schema of the first version, and what later ones added to it.
fn schemas(folder: &Path) -> Result<()> {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/party/src/store");
    let mut later = String::new();
    for file in std::fs::read_dir(store)? {
        let path = file?.path();
        if path.ends_with("0001_site.sql") {
            std::fs::copy(&path, folder.join("0001_site.sql"))?;
        } else if path.extension().is_some_and(|kind| kind == "sql") {
            later.push_str(&std::fs::read_to_string(&path)?);
        }
    }
    std::fs::write(folder.join("later.sql"), later).context("write the later schemas")
}

/// What the packages promise before they are installed.
fn contents(folder: &Path) -> Result<()> {
    for (package, version) in [("hospes", packages::VERSION), ("hospes-site", "1.1.0")] {
        let file = folder.join(packages::file(package, version)?);
        let list = Command::new("dpkg-deb").arg("--contents").arg(&file).output()?;
        let list = String::from_utf8(list.stdout)?;
        for line in list.lines() {
            ensure!(line.contains(" root/root "), "{package}: {line}");
            ensure!(!line.starts_with("-rws") && !line[..10].contains('s'), "{package}: {line}");
            // Nothing that anybody but root may write.
            ensure!(line.starts_with('l') || (&line[5..6] != "w" && &line[8..9] != "w"), "{package}: {line}");
        }
        let has_window = list.lines().any(|line| line.ends_with("./usr/bin/hospes"));
        ensure!(has_window == (package == "hospes"), "{package} has a window: {has_window}");
        licences(&file, package)?;
    }
    Ok(())
}

/// Licences of others ask that their texts go with the programs.
fn licences(file: &Path, package: &str) -> Result<()> {
    let read = r#"dpkg-deb --fsys-tarfile "$1" | tar --extract --to-stdout "$2" | gzip --decompress"#;
    let place = format!("./usr/share/doc/{package}/third-party-licences.txt.gz");
    let texts = Command::new("sh").args(["-c", read, "sh"]).arg(file).arg(&place).output()?;
    let texts = String::from_utf8(texts.stdout)?;
    for library in ["\nserde ", "\nburn ", "\nreact ", "\n@fontsource-variable/inter ", "\nRust standard library "] {
        ensure!(texts.contains(library), "{place} does not name '{}'", library.trim());
    }
    ensure!(texts.contains("Permission is hereby granted"), "{place} has no text of a licence");
    let ours = include_str!("../../third-party-licences.txt");
    ensure!(texts == ours, "{place} is not third-party-licences.txt of this repository");
    Ok(())
}

/// Who the running service says belongs to the site; root reaches it by its socket.
fn people(copy: &Copy) -> Result<String> {
    let ask = "HOSPES_DATA=/var/lib/hospes hospes-site --as ida --passphrase-file /mnt/passphrase --json user list";
    // A service that was just started needs a moment until it answers.
    copy.run(&format!("for i in $(seq 50); do {ask} 2>/dev/null && exit 0; sleep 0.2; done; {ask}"))
}

/// Waits until the service says that its site is so far.
fn has_phase(copy: &Copy, phase: &str) -> Result<()> {
    let ask = format!("hospes-site --staff --json status 2>/dev/null | grep -q '\"phase\": \"{phase}\"'");
    let waits = format!(
        "for i in $(seq 100); do if {ask}; then exit 0; fi; sleep 0.2; done; hospes-site --staff status; exit 1"
    );
    copy.run(&waits).map(drop)
}

fn is_active(copy: &Copy) -> Result<bool> {
    Ok(copy.try_run("systemctl --quiet is-active hospes-site")?.status.success())
}

fn installed(copy: &Copy) -> Result<()> {
    copy.install(&packages::file("hospes", packages::VERSION)?)?;
    copy.run("systemd-analyze verify --man=no hospes-site.service")?;
    copy.run("desktop-file-validate /usr/share/applications/hospes.desktop")?;
    copy.run("appstreamcli validate --no-net /usr/share/metainfo/org.hospes.hospes.metainfo.xml")?;
    copy.run("systemctl --quiet is-enabled hospes-site")?;
    // It waits for somebody who sets its site up, and has made nothing yet.
    ensure!(is_active(copy)?, "the service does not wait for a site");
    has_phase(copy, "empty")?;
    ensure!(copy.run("ls -A /var/lib/hospes")? == "handed", "something was laid down for nobody");
    ensure!(copy.run("stat -c '%a %U' /var/lib/hospes")? == "700 hospes-site");
    ensure!(copy.run("id -nG hospes-site")?.split(' ').any(|group| group == "hospes"));
    ensure!(copy.run("getent passwd hospes-site")?.ends_with(":/usr/sbin/nologin"));
    ensure!(copy.run("stat -c %a /etc/credstore.encrypted/hospes-key-passphrase")? == "600");
    copy.run("dpkg --verify hospes").and_then(|changed| {
        ensure!(changed.is_empty(), "{changed}");
        Ok(())
    })
}

/// The upgrade finds a database of an older schema, as the former version would have left it.
fn laid_down_and_upgraded(copy: &Copy) -> Result<()> {
    copy.run("hospes-as-service --passphrase-file /mnt/passphrase init --administrator ida --key-file")?;
    has_phase(copy, "set_up").context("the service that waited does not find its site")?;
    copy.run("systemctl stop hospes-site")?;
    copy.run("/usr/bin/python3 /mnt/age.py")?;
    ensure!(copy.run("/usr/bin/python3 /mnt/schema.py /var/lib/hospes/site.db")? == "1");
    copy.install(&packages::file("hospes", "1.1.0")?)?;
    ensure!(people(copy)?.contains("ida"), "ida is gone after the upgrade");
    ensure!(is_active(copy)?, "the upgrade did not start the service");
    ensure!(copy.run("/usr/bin/python3 /mnt/schema.py /var/lib/hospes/site.schema-1.db")? == "1");
    ensure!(copy.run("stat -c '%a %U' /var/lib/hospes/site.schema-1.db")? == "600 hospes-site");
    ensure!(copy.run("/usr/bin/python3 /mnt/schema.py /var/lib/hospes/site.db")? != "1", "nothing was migrated");
    // What runs is what the unit says: another account, locked in.
    let process = "$(systemctl show --value --property MainPID hospes-site)";
    ensure!(copy.run(&format!("stat -c %U /proc/{process}"))? == "hospes-site");
    let status = copy.run(&format!("cat /proc/{process}/status"))?;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
        ensure!(status.contains(line), "the service runs without '{line}':\n{status}");
    }
    let stranger = copy.try_run("setpriv --reuid nobody --clear-groups ls /var/lib/hospes")?;
    ensure!(!stranger.status.success(), "anybody can read the site's folder");
    Ok(())
}

/// What a command answers that must not go well.
fn refused(copy: &Copy, command: &str, words: &str) -> Result<()> {
    let output = copy.try_run(command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains(words), "{command}: {}, {said}", output.status);
    Ok(())
}

/// Staff under an account of their own reach the service by its group, and hand it files that it cannot read itself.
fn staff(copy: &Copy) -> Result<()> {
    ensure!(copy.run("stat -c '%a %U %G' /run/hospes")? == "750 hospes-site hospes");
    ensure!(copy.run("stat -c '%a %U %G' /run/hospes/staff.sock")? == "660 hospes-site hospes");
    copy.run("useradd --create-home clara; chmod 700 /home/clara")?;
    copy.run("install --owner clara --mode 600 /mnt/passphrase /home/clara/passphrase")?;
    let by = |person: &str, command: &str| {
        let clara = "setpriv --reuid clara --regid clara --init-groups env HOME=/home/clara USER=clara";
        format!("{clara} hospes-site --staff --as {person} --passphrase-file /home/clara/passphrase --json {command}")
    };
    refused(copy, &by("ida", "user list"), "usermod -aG hospes clara")?;
    copy.run("usermod -aG hospes clara")?;
    let added: Value = serde_json::from_str(&copy.run(&by("ida", "user add stefan --role data-steward"))?)?;
    let code = added["done"]["code"].as_str().context("no code for stefan")?;
    copy.run(&by("stefan", &format!("user activate stefan --code {code}")))?;
    copy.run("(echo id,age; for i in $(seq 40); do echo p$i,$((i % 9)); done) > /home/clara/cohort.csv")?;
    copy.run("chown clara /home/clara/cohort.csv; chmod 600 /home/clara/cohort.csv")?;
    let add = "dataset add /home/clara/cohort.csv --name cohort --subject id";
    let dataset: Value = serde_json::from_str(&copy.run(&by("stefan", add))?)?;
    ensure!(dataset["subjects"] == 40, "{dataset}");
    copy.run(&by("ida", "audit export /home/clara/log.jsonl"))?;
    ensure!(copy.run("stat -c '%a %U' /home/clara/log.jsonl")? == "600 clara");
    ensure!(copy.run("ls -A /var/lib/hospes/handed")?.is_empty(), "what was handed over is still there");
    copy.run("systemctl stop hospes-site")?;
    refused(copy, &by("ida", "status"), "sudo systemctl enable --now hospes-site")?;
    copy.run("systemctl start hospes-site")?;
    ensure!(people(copy)?.contains("stefan"));
    Ok(())
}

/// The scripts stop the former version and start the new one.
fn upgraded_while_running(copy: &Copy) -> Result<()> {
    let process = "systemctl show --value --property MainPID hospes-site";
    let before = copy.run(process)?;
    copy.run(&format!("dpkg --force-unsafe-io --install /mnt/{} 2>&1", packages::file("hospes", "1.1.0")?))?;
    ensure!(is_active(copy)? && copy.run(process)? != before, "the service was not started anew");
    // What its administrator stopped for good stays stopped.
    copy.run("systemctl --quiet disable --now hospes-site")?;
    let scripts = "/var/lib/dpkg/info/hospes";
    copy.run(&format!("{scripts}.prerm upgrade 1.2.0; {scripts}.postinst configure 1.1.0"))?;
    ensure!(!is_active(copy)?, "the upgrade started a service that was disabled");
    copy.run("systemctl --quiet enable --now hospes-site")?;
    ensure!(people(copy)?.contains("ida"));
    Ok(())
}

fn removed_and_replaced(copy: &Copy) -> Result<()> {
    // The service alone takes the place of window and service, and of the data.
    copy.install(&packages::file("hospes-site", "1.1.0")?)?;
    ensure!(copy.run("! test -e /usr/bin/hospes; systemctl start hospes-site; echo ok")? == "ok");
    ensure!(people(copy)?.contains("ida"), "ida is gone after the packages changed places");
    copy.run("dpkg --purge hospes 2>&1")?;
    ensure!(is_active(copy)? && people(copy)?.contains("ida"), "purging what was replaced took the other's data");
    copy.run("dpkg --remove hospes-site 2>&1")?;
    ensure!(!is_active(copy)?, "a removed service runs");
    copy.run("! test -e /usr/bin/hospes-site; test -s /var/lib/hospes/site.db")?;
    copy.run("test -e /etc/credstore.encrypted/hospes-key-passphrase")?;
    copy.run("dpkg --purge hospes-site 2>&1")?;
    copy.run("! test -e /var/lib/hospes; ! test -e /etc/credstore.encrypted/hospes-key-passphrase")?;
    let left = copy.run("find /etc/systemd /usr/lib/systemd -name 'hospes*'")?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}
