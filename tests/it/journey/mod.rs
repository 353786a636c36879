//! A clinic's whole way with the package, in the window alone: installed, laid down, staffed, joined, its data
//! registered, a study read and signed by two people, trained with three other hospitals, its model and its audit log
//! taken out; then what an auditor asks, answered from the log alone; then one byte of it altered, and who notices.
//!
//! What it does not cover: a service behind the window, since the site is one of the account's own ([`service`] has that); a
//! desktop with a window manager, a tray and a notification area; a keychain that is locked. The package is installed, by apt and with all its
//! scripts, on a copy of the machine that built it, where everything that it depends on is there already; or on a Debian
//! that has nothing of that, where `HOSPES_DEBIAN` names one (CONTRIBUTING.md). Where nobody can make a copy of this
//! machine, the package is only unpacked.

mod auditor;
mod two_seats;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hospes_tests::federation::{EXAMPLES, Federation};
use hospes_tests::packages;
use hospes_tests::seat::Seat;
use hospes_tests::window::{Desktop, Window};

/// The site of the window, as the federation calls it, and the others.
const SITE: &str = "cleveland";
const OTHERS: [&str; 3] = ["hungary", "switzerland", "long_beach"];
const TITLE: &str = "Heart disease risk from routine findings";
/// Rounds of training: enough that there are several.
const ROUNDS: u32 = 3;
/// How long an app that is opened again may take to its sign-in, and a site to find what was altered, on one busy core.
const START: Duration = Duration::from_secs(120);
const FOUND: Duration = Duration::from_secs(120);
/// How long a run may take, on one busy core.
const RUN: Duration = Duration::from_secs(180);

const ADMINISTRATOR: &str = "Ada";
/// Whom the administrator adds: name, and role as the window calls it.
const STAFF: [(&str, &str); 3] = [("Stefan", "data steward"), ("Anna", "data-access approver"), ("Petra", "auditor")];

/// Files in the person's home.
const TABLE: &str = "cleveland.csv";
const MODEL: &str = "model.safetensors";
const LOG: &str = "log.jsonl";
const ANNEX: &str = "annex.json";
const EVIDENCE: &str = "evidence.jsonl";

/// Changes one byte of the database: in the hash under which the log has an entry.
const ALTER: &str = r"
import sqlite3, sys
site, entry = sqlite3.connect(sys.argv[1]), int(sys.argv[2])
(hashes,) = site.execute('SELECT hashes FROM ledger_tile WHERE level = 0 AND tile = 0').fetchone()
assert len(hashes) < 256 * 32, 'the first tile is full: the next checkpoint would not show what is altered in it'
altered = bytearray(hashes)
altered[32 * entry] ^= 1
site.execute('UPDATE ledger_tile SET hashes = ? WHERE level = 0 AND tile = 0', (bytes(altered),))
site.commit()
site.close()
";

fn passphrase(person: &str) -> String {
    format!("a long enough passphrase of {person}")
}

#[test]
fn a_clinic_goes_from_the_package_to_a_proven_log_in_the_window_alone() -> Result<()> {
    let mut federation = Federation::new("sqlite")?;
    for name in OTHERS {
        federation.join_with_hearts(name)?;
    }
    let seat = Seat::take(&packages::shared()?)?;
    seat.put(TABLE, &std::fs::read_to_string(format!("{EXAMPLES}/heart/{SITE}.csv"))?)?;
    let desktop = Desktop::start(seat)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let window = desktop.open().await?;
        laid_down(&desktop, &window).await?;
        ensure!(desktop.seat().read(".local/share/hospes/site.toml")?.contains("keychain"), "the keys lie elsewhere");
        let codes = staffed(&window).await?;
        takes_public_data(&window).await?;
        joins(&window, &federation).await?;
        window.press("Sign out").await?;
        i6_the_page_can_do_nothing_else(&window).await?;

        let study = federation.submit(&study_of(&federation, ROUNDS)?)?;
        for site in &federation.sites {
            site.approve(&study)?;
        }
        arrives(&window, &codes, "Stefan").await?;
        registers_the_data(&desktop, &window).await?;
        signs(&window, "Stefan", "Sign as data steward", "Waits for the second signature").await?;
        window.press("Sign out").await?;
        arrives(&window, &codes, "Anna").await?;
        signs(&window, "Anna", "Sign as data-access approver", "Approved").await?;
        trains(&window).await?;
        takes_the_model(&desktop, &window, &federation, &study).await?;
        window.press("Sign out").await?;

        arrives(&window, &codes, "Petra").await?;
        let signed = audits(&desktop, &window, &federation, &study).await?;
        desktop.end(window).await?;
        is_altered_and_noticed(&desktop, &federation, signed).await.with_context(|| desktop.said())
    })
}

/// The first start: a site of this account, by choice; language, first administrator, keys in the keychain.
async fn laid_down(desktop: &Desktop, window: &Window) -> Result<()> {
    if desktop.seat().has_service() {
        // The service waits for its staff, and this person is none of them. A window makes no second site beside the
        // service's unless somebody wants one.
        window.shows("Your account may not use the service of this machine").await?;
        window.keep("00-the-service-is-for-others").await?;
        window.press("Try out on this account").await?;
        window.press_in_dialog("Try out").await?;
    }
    let pictures = ["01-first-start", "02-keys", "03-what-is-left-to-do"];
    first_run(window, "Welcome to Hospes", "In the keychain of this machine", pictures).await
}

/// The steps of a first run, from the page that says `greets` over the one about keys that says `keys` to the home screen.
async fn first_run(window: &Window, greets: &str, keys: &str, pictures: [&str; 3]) -> Result<()> {
    let [first, second, last] = pictures;
    window.shows(greets).await?;
    window.keep(first).await?;
    window.press("Continue").await?;
    window.shows("Who is the first administrator?").await?;
    window.type_into("name", ADMINISTRATOR).await?;
    window.type_into("passphrase", &passphrase(ADMINISTRATOR)).await?;
    window.type_into("again", &passphrase(ADMINISTRATOR)).await?;
    window.press("Continue").await?;
    window.shows(keys).await?;
    window.keep(second).await?;
    window.press("Set up this site").await?;
    window.shows(&format!("Good day, {ADMINISTRATOR}")).await?;
    window.keep(last).await
}

/// The others are added; gives the code that each is handed.
async fn staffed(window: &Window) -> Result<BTreeMap<&'static str, String>> {
    window.follow("Settings").await?;
    let mut codes = BTreeMap::new();
    for (name, role) in STAFF {
        window.press("Add a person").await?;
        window.type_into("person", name).await?;
        window.choose(role).await?;
        window.type_into("signing", &passphrase(ADMINISTRATOR)).await?;
        window.press_in_dialog("Add").await?;
        // In the list, and with it the code.
        window.shows(name).await?;
        codes.insert(name, window.read("p > span[translate='no']").await?);
    }
    ensure!(codes.values().collect::<BTreeSet<_>>().len() == STAFF.len(), "one code for two people");
    window.keep("04-people").await?;
    Ok(codes)
}

/// The policy for public data, which one person sets while the site is set up.
async fn takes_public_data(window: &Window) -> Result<()> {
    window.turn_to("Policy").await?;
    window.paste("policy", &std::fs::read_to_string(format!("{EXAMPLES}/policies/public-data.toml"))?).await?;
    window.shows("It loosens protection").await?;
    window.press("Set this policy").await?;
    window.type_into("signing", &passphrase(ADMINISTRATOR)).await?;
    window.press_in_dialog("Set this policy").await?;
    window.shows("this site runs under the policy for public data").await?;
    window.keep("05-policy").await
}

/// The invitation is pasted, the coordinator's words come by another way, and those of one other member.
async fn joins(window: &Window, federation: &Federation) -> Result<()> {
    let invitation = federation.ctl(&["invite", SITE])?;
    let text = |field: &str| invitation[field].as_str().map(str::to_owned).context("no invitation");
    window.follow("Federations").await?;
    window.press("Join a federation").await?;
    window.paste("invitation", &text("invitation")?).await?;
    window.press("Read it").await?;
    window.shows("This site will be known as").await?;
    window.paste("words", &text("ca_words")?).await?;
    window.type_into("organisation", "Cleveland Clinic").await?;
    window.keep("06-invitation").await?;
    window.press("Join a federation").await?;
    window.press_about("Compare words", "hungary").await?;
    let other = federation.site("hungary")?.status()?;
    window.paste("words", other["memberships"][0]["words"].as_str().context("no words")?).await?;
    window.press_in_dialog("Compare").await?;
    window.shows("Verified here").await?;
    window.shows("Connected since").await?;
    window.keep("07-members").await
}

/// Files, programs, network, other commands: whatever a page that was taken over would try is refused, and nobody hears
/// of it.
async fn i6_the_page_can_do_nothing_else(window: &Window) -> Result<()> {
    window.shows("I have a one-time code").await?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let mut attempts = window.attempts(listener.local_addr()?.port()).await?;
    // The way in which they are tried works.
    let may = attempts.remove("what it may").unwrap_or_default();
    assert!(may.starts_with("got") && may.contains("phase"), "{may}");
    assert!(attempts.len() > 20, "{attempts:?}");
    let allowed: Vec<_> = attempts.iter().filter(|(_, answer)| !answer.starts_with("refused")).collect();
    assert!(allowed.is_empty(), "the page may: {allowed:?}");
    // Of what is linked into the app, by its permissions and nothing else.
    for name in
        ["choose a file", "notify", "start with the session", "make a window", "close the window", "send an event"]
    {
        let answer = attempts.get(name).map(String::as_str).unwrap_or_default();
        assert!(answer.contains("not allowed"), "{name}: {answer}");
    }
    let none = attempts.get("call an engine's command that is none").map(String::as_str).unwrap_or_default();
    assert!(none.contains("the command cannot be read"), "{none}");
    let heard = listener.accept().map(|_| ()).map_err(|e| e.kind());
    assert_eq!(heard, Err(std::io::ErrorKind::WouldBlock), "the page reached the network");
    Ok(())
}

/// The example's study, with so many rounds.
fn study_of(federation: &Federation, rounds: u32) -> Result<PathBuf> {
    let plan = std::fs::read_to_string(format!("{EXAMPLES}/heart/plain.yaml"))?;
    let other = plan.replace("rounds: 15", &format!("rounds: {rounds}"));
    ensure!(other != plan, "the example's number of rounds has another form");
    let file = federation.folder().join("study.yaml");
    std::fs::write(&file, other)?;
    Ok(file)
}

/// Somebody comes to the window: with their code and a passphrase that they choose, and signed in by that from then on.
async fn arrives(window: &Window, codes: &BTreeMap<&str, String>, person: &str) -> Result<()> {
    window.press("I have a one-time code").await?;
    window.shows("Choose your passphrase").await?;
    window.type_into("name", person).await?;
    window.type_into("code", codes.get(person).context("no code")?).await?;
    window.type_into("passphrase", &passphrase(person)).await?;
    window.type_into("again", &passphrase(person)).await?;
    window.press("Choose this passphrase").await?;
    window.shows(&format!("Good day, {person}")).await
}

/// The wizard, with the file from the dialog of the operating system.
async fn registers_the_data(desktop: &Desktop, window: &Window) -> Result<()> {
    window.follow("Datasets").await?;
    window.press("Register a dataset").await?;
    window.press("Choose a file").await?;
    desktop.answer("Choose the table to register", TABLE)?;
    window.shows("The file can be read").await?;
    window.keep("08-file").await?;
    window.press("Continue").await?;
    window.shows("Which columns?").await?;
    window.pick("Column that tells patients apart", "subject_id").await?;
    window.keep("09-columns").await?;
    window.press("Continue").await?;
    window.shows("What may it be used for?").await?;
    window.type_into("dataset", "heart").await?;
    window.choose("These are public data").await?;
    window.press("Continue").await?;
    window.shows("Is this right?").await?;
    window.keep("10-check").await?;
    window.press("Register this dataset").await?;
    window.shows("this dataset is tagged public").await?;
    window.keep("11-dataset").await
}

/// One person reads the request in its parts and signs it.
async fn signs(window: &Window, person: &str, button: &str, then: &str) -> Result<()> {
    window.follow("Requests").await?;
    window.follow(TITLE).await?;
    window.shows("The coordinator can read this site's update").await?;
    window.shows("not stated").await?;
    window.turn_to("Setting").await?;
    window.shows(if person == "Stefan" { "one, if the first signer" } else { "Digest of the approval" }).await?;
    window.turn_to("What leaves").await?;
    window.shows("leave this site:").await?;
    if person == "Stefan" {
        window.answer_all("Yes").await?;
    }
    window.keep(&format!("12-review-{person}")).await?;
    window.type_into("signing", &passphrase(person)).await?;
    window.press(button).await?;
    window.shows(then).await?;
    window.keep(&format!("13-signed-{person}")).await
}

/// The run begins with the second signature, and ends.
async fn trains(window: &Window) -> Result<()> {
    window.follow("Jobs").await?;
    window.follow(TITLE).await?;
    window.shows("Left this site so far").await?;
    window.keep("14-run").await?;
    // The badge of a run that went well.
    window.shows_within("Ended", RUN).await?;
    window.shows("See its results").await?;
    window.keep("15-run-ended").await
}

/// Its figures, its release by all four, and the model in a file.
async fn takes_the_model(desktop: &Desktop, window: &Window, federation: &Federation, study: &str) -> Result<()> {
    window.follow("See its results").await?;
    window.shows("This site alone against federated").await?;
    window.keep("16-compared").await?;
    window.turn_to("Judged by eval").await?;
    for figure in ["Area under the ROC curve", "Brier score", "Calibration", "Precision and recall"] {
        window.shows(figure).await?;
    }
    window.keep("17-figures").await?;
    window.press("Release the results").await?;
    window.press_in_dialog("Release the results").await?;
    window.shows("This site released the results").await?;
    let shown = federation.ctl(&["study", "show", study])?;
    let job = shown["jobs"][0]["job"].as_str().with_context(|| format!("no run in {shown:#}"))?;
    for site in &federation.sites {
        federation.until("the results are held there", |_| Ok(site.act("Anna", &["release", job]).is_ok()))?;
    }
    window.press("Fetch model and card").await?;
    window.shows("Model and card are at this site").await?;
    window.press("Choose a place and export").await?;
    desktop.answer("Save the model and its card", MODEL)?;
    window.shows(&format!("The model was written to {MODEL}")).await?;
    window.keep("18-model").await
}

/// What an auditor reads in the window, takes out of it, and finds in that. Gives the entry of the second signature.
async fn audits(desktop: &Desktop, window: &Window, federation: &Federation, study: &str) -> Result<u64> {
    window.follow("What left").await?;
    window.shows("Heart Federation").await?;
    window.shows("Arrival confirmed").await?;
    window.keep("19-what-left").await?;
    window.follow("Audit log").await?;
    window.pick("What", "Requests and approvals: all").await?;
    window.press("Show these").await?;
    for text in ["First signature", "Stefan", "Second signature", "Anna", &format!("for: {TITLE}")] {
        window.shows(text).await?;
    }
    window.press("Verify the whole log").await?;
    window.shows("The log is intact").await?;
    window.shows("Log witnessed").await?;
    window.keep("20-audit").await?;
    // What others know comes first: the log goes on growing, and an export must hold all that was seen before it.
    let known = federation.known_of(SITE)?;
    window.press("Choose a place and export").await?;
    desktop.answer("Save the audit log", LOG)?;
    window.shows(&format!("written to {LOG}")).await?;
    window.keep("21-export").await?;
    let command = window.read("pre[translate='no']").await?;
    window.pick("Form", "Names and documents").await?;
    window.press("Choose a place and export").await?;
    desktop.answer("Save the audit log", ANNEX)?;
    window.shows(&format!("written to {ANNEX}")).await?;
    auditor::finds(desktop.seat(), federation, study, &command, &known)
}

/// Somebody changes the database while the app is closed. The window says so, at home and in the log; so does another
/// hospital that had cosigned the log; and whoever verifies the evidence against what the coordinator saw finds it, too.
async fn is_altered_and_noticed(desktop: &Desktop, federation: &Federation, entry: u64) -> Result<()> {
    let alter = "/usr/bin/python3 -c \"$1\" \"$HOME/.local/share/hospes/site.db\" \"$2\"";
    desktop.seat().run(alter, &[ALTER, &entry.to_string()])?;
    let window = desktop.open().await?;
    window.shows_within("Sign in", START).await?;
    window.type_into("name", "Petra").await?;
    window.type_into("passphrase", &passphrase("Petra")).await?;
    window.press("Sign in").await?;
    window.shows("Good day, Petra").await?;
    window.shows_within("this site's audit log is not intact", FOUND).await?;
    // At home, beside the log.
    window.shows("Not intact").await?;
    window.keep("22-alarm-at-home").await?;
    window.follow("Open the audit log").await?;
    // In the log, under the day on which it was found.
    window.shows(&format!(": entry {entry} is the first that is wrong")).await?;
    window.shows("Leave this machine as it is").await?;
    window.keep("23-alarm-in-the-log").await?;
    let witness = federation.site("hungary")?;
    let words = format!("the log of '{SITE}' contradicts what was seen of it before");
    federation.until("another hospital notices", |_| {
        let alarms = witness.act("Petra", &["alarms"])?;
        let alarms = alarms.as_array().context("no list of alarms")?;
        Ok(alarms.iter().any(|alarm| alarm["words"].as_str().is_some_and(|said| said.contains(&words))))
    })?;
    evidence_does_not_verify(desktop, federation)?;
    desktop.end(window).await
}

/// The log that the altered site gives out is not the one that the coordinator saw.
fn evidence_does_not_verify(desktop: &Desktop, federation: &Federation) -> Result<()> {
    let seat = desktop.seat();
    seat.put("petra", &passphrase("Petra"))?;
    let export = "hospes-site --data \"$HOME/.local/share/hospes\" --as Petra --passphrase-file \"$HOME/petra\" \
                  audit export \"$HOME/$1\"";
    seat.run(export, &[EVIDENCE])?;
    let file = federation.folder().join(EVIDENCE);
    std::fs::write(&file, seat.read(EVIDENCE)?)?;
    let known = federation.known_of(SITE)?;
    let verify = ["audit", "verify", file.to_str().context("a path that is no text")?];
    let verified = federation.ctl(&verify.into_iter().chain(known.iter().map(String::as_str)).collect::<Vec<_>>());
    let Err(refused) = verified else { anyhow::bail!("what was altered verifies") };
    ensure!(refused.to_string().contains("the log is not intact"), "{refused:#}");
    Ok(())
}
