//! A clinic's way with the installed service: one of the staff sets its site up in the window, two of them work with it from
//! accounts of their own, and a run goes on when the one with the window is logged off in the middle of it.
//!
//! The service is started by systemd with all that its unit locks in, on a copy of this machine; where nobody can make one,
//! this tests nothing and says so. What the service does with a first run that is broken off, made twice or meets a command is
//! tested where no window is needed (`crates/ipc/tests/ipc/first_run.rs`, `crates/site/tests/site/staff.rs`).

use anyhow::{Context, Result, ensure};
use hospes_tests::copy::Copy;
use hospes_tests::federation::{EXAMPLES, Federation};
use hospes_tests::packages;
use hospes_tests::seat::{ACCOUNT, Seat};
use hospes_tests::window::Desktop;
use serde_json::Value;

use super::{ADMINISTRATOR, SITE, TABLE, first_run, passphrase, study_of};

/// The other member.
const OTHER: &str = "hungary";
/// The account of the one who signs second.
const COLLEAGUE: &str = "beata";
/// Who is added: name, role as the command line has it, and under which account they work.
const STAFF: [(&str, &str, &str); 2] =
    [("Stefan", "data-steward", ACCOUNT), ("Anna", "data-access-approver", COLLEAGUE)];
/// Rounds of training, so many that they go on while the window is closed.
const ROUNDS: u32 = 60;

/// Asks for the first person as a window does; there is no other way to be refused without one.
const SET_UP: &str = "
import json, socket, struct
place = socket.socket(socket.AF_UNIX)
place.connect('/run/hospes/staff.sock')
call = {'command': 'set_up', 'args': {'name': 'Eve', 'passphrase': 'a passphrase for nothing'}}
request = json.dumps({'id': 1, 'call': call}).encode()
place.sendall(struct.pack('>I', len(request)) + request)
length, = struct.unpack('>I', place.recv(4, socket.MSG_WAITALL))
print(place.recv(length, socket.MSG_WAITALL).decode())
";

/// A command of somebody of the staff, `$1`.
const COMMAND: &str = r#"
person=$1; shift
exec hospes-site --staff --json --as "$person" --passphrase-file "$HOME/$person.passphrase" "$@"
"#;

/// Logs somebody off as hard as can be: every process of their account is killed, the window with its desktop among them, as
/// if it had crashed. Whose a process is stands in its status: the files of one that forbids core dumps are root's. One that
/// has ended and is not waited for yet has no program any more.
const LOG_OFF: &str = r#"
user=$(id -u ACCOUNT)
for look in $(seq 100); do
    goes_on=
    for process in /proc/[0-9]*; do
        grep -qs "^Uid:[[:space:]]*$user[[:space:]]" "$process/status" || continue
        readlink "$process/exe" > /dev/null 2>&1 || continue
        goes_on=yes
        kill -KILL "${process#/proc/}" 2>/dev/null || true
    done
    [ -n "$goes_on" ] || exit 0
    sleep 0.1
done
echo 'somebody is still there' >&2; exit 1
"#;

#[test]
fn two_of_the_staff_work_with_the_service_which_goes_on_when_one_is_logged_off() -> Result<()> {
    if let Err(why) = Copy::possible() {
        eprintln!("the service was not started: {why:#}");
        return Ok(());
    }
    let mut federation = Federation::new("sqlite")?;
    federation.join_with_hearts(OTHER)?;
    let seat = Seat::take(&packages::shared()?)?;
    staff_have_accounts(&seat)?;
    nothing_is_made_on_a_full_disk(&seat)?;
    let desktop = Desktop::start(seat)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let window = desktop.open().await?;
        let pictures = ["30-the-service-waits", "31-keys-of-the-service", "32-what-is-left-to-do"];
        first_run(&window, "nobody has set it up yet", "/var/lib/hospes", pictures).await?;
        let seat = desktop.seat();
        the_log_says_who_set_it_up(seat)?;
        staffed(seat)?;
        joins(seat, &federation)?;

        let study = federation.submit(&study_of(&federation, ROUNDS)?)?;
        federation.site(OTHER)?.approve(&study)?;
        // The administrator's window shows what comes and what others do, with nobody's hand on it.
        window.shows("A study asks for your data").await?;
        signed_from_two_accounts(seat, &federation, &study)?;
        window.shows("Nothing waits for a decision").await?;
        federation.until("training began", |f| Ok(trained(&f.ctl(&["study", "show", &study])?) >= 2))?;
        seat.administer(&LOG_OFF.replace("ACCOUNT", ACCOUNT))?;
        let before = trained(&federation.ctl(&["study", "show", &study])?);
        ensure!(before < ROUNDS, "training ended before somebody was logged off");
        let answer = federation.finished(&study)?;
        ensure!(answer["jobs"][0]["state"] == "success" && trained(&answer) == ROUNDS, "{answer:#}");
        let sent = asks(seat, ACCOUNT, "Stefan", &["egress"])?;
        let of_training = sent.as_array().context("no egress")?.iter().filter(|sent| {
            sent["study"].as_str() == Some(&study) && sent["round"]["task"] == "train" && !sent["left"].is_null()
        });
        ensure!(of_training.count() == ROUNDS as usize, "the service left rounds out: {sent:#}");
        Ok(())
    })
}

/// What somebody of the staff is answered, under this account of the machine.
fn asks(seat: &Seat, account: &str, person: &str, command: &[&str]) -> Result<Value> {
    let arguments: Vec<&str> = [person].iter().chain(command).copied().collect();
    let text = seat.run_as(account, COMMAND, &arguments)?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

/// Two accounts of the machine, which the group lets in, and what their people know and have.
fn staff_have_accounts(seat: &Seat) -> Result<()> {
    seat.administer(&format!("useradd --create-home --shell /bin/sh {COLLEAGUE}"))?;
    let people = [(ADMINISTRATOR, ACCOUNT)].into_iter().chain(STAFF.map(|(person, _, account)| (person, account)));
    for (person, account) in people {
        seat.administer(&format!("usermod -aG hospes {account}"))?;
        let write = "umask 077; printf %s \"$2\" > \"$HOME/$1.passphrase\"";
        seat.run_as(account, write, &[person, &passphrase(person)])?;
    }
    seat.put(TABLE, &std::fs::read_to_string(format!("{EXAMPLES}/heart/{SITE}.csv"))?)?;
    seat.put("policy.toml", &std::fs::read_to_string(format!("{EXAMPLES}/policies/public-data.toml"))?)
}

/// The service waits on a disk without room, and makes nothing there.
fn nothing_is_made_on_a_full_disk(seat: &Seat) -> Result<()> {
    let begin = "systemctl stop hospes-site
        mount -t tmpfs -o size=16m,mode=700 tmpfs /var/lib/hospes
        chown hospes-site:hospes /var/lib/hospes
        systemctl start hospes-site
        for look in $(seq 100); do test -S /run/hospes/staff.sock && exit 0; sleep 0.1; done; exit 1";
    seat.administer(begin)?;
    let said = seat.run_as(COLLEAGUE, "exec /usr/bin/python3 -c \"$1\"", &[SET_UP])?;
    ensure!(said.contains("disk_full") && said.contains("nothing was made"), "{said}");
    ensure!(seat.administer("ls -A /var/lib/hospes")? == "handed", "something was laid down");
    seat.administer("systemctl stop hospes-site; umount /var/lib/hospes; systemctl start hospes-site").map(drop)
}

fn the_log_says_who_set_it_up(seat: &Seat) -> Result<()> {
    let account = seat.run("id -u", &[])?;
    let log = asks(seat, ACCOUNT, ADMINISTRATOR, &["audit", "list"])?;
    let mut entries = log["entries"].as_array().context("no entries")?.iter();
    let added = entries.find(|entry| entry["action"] == "person_added").context("nobody was added")?;
    let said = format!("by the socket for staff, account {} of the machine", account.trim());
    ensure!(added["detail"].as_str().is_some_and(|detail| detail.contains(&said)), "{added:#}");
    ensure!(seat.administer("stat -c '%a %U' /var/lib/hospes/keys.sealed")? == "600 hospes-site", "another's keys");
    Ok(())
}

/// The administrator adds the others, who choose their passphrases under their own accounts.
fn staffed(seat: &Seat) -> Result<()> {
    for (person, role, account) in STAFF {
        let added = asks(seat, ACCOUNT, ADMINISTRATOR, &["user", "add", person, "--role", role])?;
        let code = added["done"]["code"].as_str().with_context(|| format!("no code in {added}"))?;
        asks(seat, account, person, &["user", "activate", person, "--code", code])?;
    }
    let home = seat.run("printf %s \"$HOME\"", &[])?;
    asks(seat, ACCOUNT, ADMINISTRATOR, &["policy", "set", &format!("{home}/policy.toml")])?;
    let (file, name) = (format!("{home}/{TABLE}"), "heart");
    let add = ["dataset", "add", &file, "--name", name, "--subject", "subject_id", "--public"];
    ensure!(asks(seat, ACCOUNT, "Stefan", &add)?["name"] == name, "no dataset");
    ensure!(seat.administer("ls -A /var/lib/hospes/handed")?.is_empty(), "what was handed over is still there");
    Ok(())
}

fn joins(seat: &Seat, federation: &Federation) -> Result<()> {
    let invitation = federation.ctl(&["invite", SITE])?;
    let text = |field: &str| invitation[field].as_str().map(str::to_owned).context("no invitation");
    let (line, words) = (text("invitation")?, text("ca_words")?);
    let enrol = ["enrol", &line, "--words", &words, "--organisation", "Cleveland Clinic"];
    asks(seat, ACCOUNT, ADMINISTRATOR, &enrol)?;
    federation.until("the service hears of the other member", |_| {
        Ok(asks(seat, ACCOUNT, ADMINISTRATOR, &["peers", "list"])?.as_array().is_some_and(|peers| !peers.is_empty()))
    })?;
    let other = federation.site(OTHER)?.status()?;
    let words = other["memberships"][0]["words"].as_str().context("no words")?.to_owned();
    asks(seat, ACCOUNT, ADMINISTRATOR, &["peers", "verify", OTHER, "--words", &words]).map(drop)
}

/// Each signs what they read, under their own account.
fn signed_from_two_accounts(seat: &Seat, federation: &Federation, study: &str) -> Result<()> {
    federation.until("the study is offered to the service", |_| {
        let requests = asks(seat, ACCOUNT, "Stefan", &["requests"])?;
        Ok(requests.as_array().is_some_and(|all| all.iter().any(|request| request["study"].as_str() == Some(study))))
    })?;
    let review = asks(seat, ACCOUNT, "Stefan", &["show", study])?;
    let read = review["read"]["digest"].as_str().with_context(|| format!("no digest in {review}"))?;
    let first = asks(seat, ACCOUNT, "Stefan", &["approve", study, "--digest", read, "--yes"])?;
    let digest = first["digest"].as_str().with_context(|| format!("no digest in {first}"))?;
    asks(seat, COLLEAGUE, "Anna", &["approve", study, "--digest", digest, "--yes"]).map(drop)
}

/// Rounds of training that have a result.
fn trained(study: &Value) -> u32 {
    let tasks = study["jobs"][0]["tasks"].as_array();
    let train = tasks.and_then(|tasks| tasks.iter().find(|task| task["task"] == "train"));
    let done = train.and_then(|task| task["done"].as_u64()).unwrap_or_default();
    u32::try_from(done).unwrap_or(u32::MAX)
}
