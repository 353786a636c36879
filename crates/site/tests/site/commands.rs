//! Commands, their words and their exit codes.

use hospes_protocol::enrol::Invitation;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::words::of_digest;

use crate::hospital::{Hospital, heart, words};

fn invitation(url: &str) -> (String, String) {
    let ca = Digest::of(b"a CA");
    let invitation = Invitation {
        url: url.into(),
        ca,
        site: "Hungary".into(),
        secret: vec![7; 32],
        expires: Timestamp::from_millis(4_000_000_000_000),
    };
    (invitation.to_string(), of_digest(&ca))
}

#[test]
fn a_folder_without_a_site_is_told_and_one_with_a_site_is_kept() {
    let site = Hospital::empty();
    let (code, said) = site.refused("Ida", &["status"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("hospes-site init"), "{said}");
    let site = Hospital::new();
    let (code, said) = site.refused("Ida", &["init", "--administrator", "Eve", "--key-file"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("holds a site already"), "{said}");
    assert_eq!(site.ask("Ida", &["user", "list"])[0]["name"], "Ida");
}

#[test]
fn a_backup_brings_the_site_back_into_another_folder_and_only_with_its_passphrase() {
    let site = Hospital::new();
    let (file, secret, wrong) = (site.path("site.hospes-backup"), site.path("in the safe"), site.path("wrong"));
    std::fs::write(&secret, "a passphrase that lies in the safe\n").unwrap();
    std::fs::write(&wrong, "another passphrase\n").unwrap();
    let [file, secret, wrong] = [&file, &secret, &wrong].map(|path| path.to_str().unwrap());
    let made = site.ask("Ida", &["backup", file, "--backup-passphrase-file", secret]);
    assert_eq!(made["bytes"].as_u64(), Some(std::fs::metadata(file).unwrap().len()));
    let restore = ["restore", file, "--key-file", "--backup-passphrase-file"];
    let (code, said) = site.refused("Ida", &[&restore[..], &[secret]].concat());
    assert!(code == 3 && said.contains("holds a site already"), "{code}: {said}");
    let other = Hospital::empty();
    let (code, said) = other.refused("Ida", &[&restore[..], &[wrong]].concat());
    assert!(code == 6 && said.contains("the passphrase is wrong"), "{code}: {said}");
    let restored = other.ask("Ida", &[&restore[..], &[secret]].concat());
    assert_eq!(restored["entries"], made["entries"]);
    assert_eq!(other.ask("Ida", &["user", "list"])[0]["name"], "Ida");
    assert!(other.ask("Ida", &["alarms"]).to_string().contains("restored from a backup"));
    assert_eq!(other.ask("Ida", &["confirm-restore"])["done"]["code"], serde_json::Value::Null);
    let (code, said) = other.refused("Ida", &["confirm-restore"]);
    assert!(code == 3 && said.contains("no restored backup waits"), "{code}: {said}");
}

#[test]
fn updates_are_looked_for_only_where_an_administrator_said() {
    let site = Hospital::new();
    assert_eq!(site.ask("Ida", &["updates", "show"])["source"], serde_json::Value::Null);
    let (code, said) = site.refused("Ida", &["updates", "check"]);
    assert!(code == 3 && said.contains("no address is set"), "{code}: {said}");
    let key = "ab".repeat(32);
    let set = |from| ["updates", "set", "--from", from, "--key", &key];
    let (code, said) = site.refused("Ida", &set("http://updates.example/hospes-release.json"));
    assert!(code == 2 && said.contains("https://"), "{code}: {said}");
    let url = "https://updates.example/hospes-release.json";
    assert_eq!(site.ask("Ida", &set(url))["source"]["url"], url);
    let log = site.ask("Ida", &["audit", "list"]).to_string();
    assert!(log.contains(&format!("at {url}, under the key {key}")), "{log}");
    let file = site.path("newer.deb");
    let (code, said) = site.refused("Ida", &["updates", "save", file.to_str().unwrap()]);
    assert!(code == 3 && said.contains("no newer version"), "{code}: {said}");
    assert_eq!(site.ask("Ida", &["updates", "off"])["source"], serde_json::Value::Null);
}

#[test]
fn without_a_keychain_init_says_what_to_do() {
    let site = Hospital::empty();
    let (code, said) = site.refused("Ida", &["init", "--administrator", "Ida"]);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("keychain"), "{said}");
    // A site that was not made leaves nothing that stands in the way of the next attempt.
    let again = site.run("Ida", &["init", "--administrator", "Ida", "--key-file"]);
    assert!(again.status.success(), "{}", words(&again));
}

#[test]
fn init_checks_what_was_typed_before_it_makes_anything_and_finishes_what_was_half_made() {
    let site = Hospital::empty();
    std::fs::write(site.passphrase("Ida"), "short\n").unwrap();
    let (code, said) = site.refused("Ida", &["init", "--administrator", "Ida", "--key-file"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("at least 10 characters"), "{said}");
    let nameless = site.refused("Ida", &["init", "--administrator", " ", "--key-file"]);
    assert_eq!(nameless.0, 2, "{}", nameless.1);
    assert!(!site.data().join("site.db").exists());
    // A site that was made, and then the power failed before it had an administrator.
    let secrets = hospes_party::keys::SecretPlace::File {
        path: site.data().join("keys.sealed"),
        passphrase: hospes_party::Passphrase::from("the key file's own passphrase".to_owned()),
    };
    let config = hospes_party::Config::new(site.data(), secrets, "unused".into());
    tokio::runtime::Runtime::new().unwrap().block_on(hospes_party::initialise(&config)).unwrap();
    std::fs::write(site.data().join("site.toml"), "secrets = \"file\"\n").unwrap();
    std::fs::remove_file(site.passphrase("Ida")).unwrap();
    let again = site.run("Ida", &["init", "--administrator", "Ida", "--key-file"]);
    assert!(again.status.success(), "{}", words(&again));
    assert_eq!(site.ask("Ida", &["user", "list"])[0]["name"], "Ida");
}

#[test]
fn a_missing_passphrase_and_unreadable_settings_are_called_what_they_are() {
    let site = Hospital::new();
    let untold = site.command().args(["--as", "Ida", "user", "list"]).output().unwrap();
    assert_eq!(untold.status.code(), Some(6), "{}", words(&untold));
    let mut command = site.command();
    command.env_remove("HOSPES_KEY_PASSPHRASE_FILE").arg("status");
    let untold = command.output().unwrap();
    assert_eq!(untold.status.code(), Some(6), "{}", words(&untold));
    let mut command = site.command();
    command.env("CREDENTIALS_DIRECTORY", site.path("nowhere")).arg("status");
    let missing = command.output().unwrap();
    assert_eq!(missing.status.code(), Some(6), "{}", words(&missing));
    std::fs::remove_file(site.data().join("site.toml")).unwrap();
    std::fs::create_dir(site.data().join("site.toml")).unwrap();
    let (code, said) = site.refused("Ida", &["status"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cannot be read") && !said.contains("holds no site"), "{said}");
}

#[test]
fn a_stop_needs_a_reason_and_only_a_word_ends_it() {
    let site = Hospital::new();
    assert_eq!(site.refused("Ida", &["stop"]).0, 2);
    assert_eq!(site.refused("Ida", &["stop", "--reason", " "]).0, 2);
    site.ask("Ida", &["stop", "--reason", "a break-in"]);
    assert_eq!(site.refused("Ida", &["stop"]).0, 2);
    assert_eq!(site.ask("Ida", &["status"])["stopped"], "a break-in");
    site.ask("Ida", &["stop", "--end"]);
    assert!(site.ask("Ida", &["status"])["stopped"].is_null());
}

#[test]
fn wrong_people_and_wrong_passphrases_are_refused_with_their_codes() {
    let site = Hospital::new();
    let nobody = site.command().args(["user", "list"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(6), "{}", words(&nobody));
    assert!(words(&nobody).contains("--as NAME"));
    let (code, said) = site.refused("Eve", &["user", "list"]);
    assert_eq!(code, 6, "{said}");
    std::fs::write(site.path("key-file"), "another\n").unwrap();
    let (code, said) = site.refused("Ida", &["status"]);
    assert_eq!(code, 6, "{said}");
}

#[test]
fn roles_are_enforced_and_people_can_be_changed() {
    let site = Hospital::new();
    site.add("Olga", "auditor");
    site.add("Stefan", "data-steward");
    let (code, said) = site.refused("Olga", &["user", "add", "Eve", "--role", "administrator"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("administrator"), "{said}");
    site.ask("Ida", &["user", "roles", "Olga", "--role", "auditor", "--role", "privacy-officer"]);
    let people = site.ask("Ida", &["user", "list"]);
    let olga = people.as_array().unwrap().iter().find(|p| p["name"] == "Olga").unwrap();
    assert_eq!(olga["roles"].as_array().map(Vec::len), Some(2), "{olga}");
    site.ask("Ida", &["user", "disable", "Olga"]);
    assert_eq!(site.refused("Olga", &["user", "list"]).0, 6);
    let new = site.path("new");
    std::fs::write(&new, "quite another passphrase\n").unwrap();
    site.ask("Stefan", &["user", "passphrase", "--new-file", new.to_str().unwrap()]);
    assert_eq!(site.refused("Stefan", &["user", "list"]).0, 6);
    std::fs::copy(&new, site.passphrase("Stefan")).unwrap();
    site.ask("Stefan", &["user", "list"]);
}

#[test]
fn a_dataset_is_surveyed_registered_listed_and_profiled_and_its_rows_stay_where_they_are() {
    let site = Hospital::new();
    site.add("Stefan", "data-steward");
    let file = heart();
    let file = file.to_str().unwrap();
    let survey = site.ask("Stefan", &["dataset", "survey", file]);
    assert!(survey["rows"].as_u64() > Some(100), "{survey}");
    let added = site.ask(
        "Stefan",
        &["dataset", "add", file, "--name", "heart", "--subject", "subject_id", "--public", "--duo", "DUO:0000042"],
    );
    assert_eq!(added["public"], true);
    let table = words(&site.run("Stefan", &["dataset", "list"]));
    assert!(table.contains("heart") && table.contains("Patients"), "{table}");
    let profile = words(&site.run("Stefan", &["dataset", "profile", "heart"]));
    assert!(profile.starts_with("This does not leave."), "{profile}");
    let (code, said) = site.refused("Stefan", &["dataset", "profile", "liver"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("there is no dataset 'liver'"), "{said}");
    // The administrator registers no data.
    assert_eq!(site.refused("Ida", &["dataset", "survey", file]).0, 3);
}

#[test]
fn what_means_missing_and_how_strictly_identifiers_are_looked_for_is_chosen() {
    let site = Hospital::new();
    site.add("Stefan", "data-steward");
    let file = site.path("labs.csv");
    let mut text = "subject_id,temp,visit\n".to_owned();
    for i in 0..40 {
        let temp = if i % 4 == 0 { 999 } else { 36 + i % 3 };
        text.push_str(&format!("P-{i},{temp},2024-03\n"));
    }
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let said = words(&site.run("Stefan", &["dataset", "survey", file]));
    assert!(said.contains("Missing are: empty cells, '?', 'NA', 'N/A', '-9'."), "{said}");
    assert!(said.contains("Column 'temp': does this mean missing? 999: 10. It is read as a value."), "{said}");
    let choices = ["--missing", "999", "--missing", "-9", "--scan", "hipaa-safe-harbor"];
    let said = words(&site.run("Stefan", &[&["dataset", "survey", file][..], &choices[..]].concat()));
    assert!(said.contains("Missing are: empty cells, '999', '-9'.") && said.contains("999: 10"), "{said}");
    assert!(!said.contains("does this mean missing?"), "{said}");
    let bare = site.ask("Stefan", &["dataset", "survey", file, "--missing", ""]);
    assert_eq!(bare["missing"].as_array().map(Vec::len), Some(0), "{bare}");

    let add = ["dataset", "add", file, "--name", "labs", "--subject", "subject_id", "--public"];
    let added = site.ask("Stefan", &[&add[..], &choices[..]].concat());
    assert!(added["missing"][0] == "999" && added["missing"][1] == "-9", "{added}");
    let visit = added["columns"].as_array().unwrap().iter().find(|c| c["name"] == "visit").unwrap();
    assert_eq!(visit["masked"], true, "{added}");
    assert_eq!(site.refused("Stefan", &["dataset", "survey", file, "--scan", "none"]).0, 2);
}

#[test]
fn a_model_predicts_for_no_run_and_no_dataset_that_are_not_there() {
    let site = Hospital::new();
    site.add("Stefan", "data-steward");
    let file = heart();
    let add = ["dataset", "add", file.to_str().unwrap(), "--name", "heart", "--subject", "subject_id", "--public"];
    site.ask("Stefan", &add);
    let scores = site.path("scores.csv");
    let predict = |dataset: &str| {
        site.refused("Stefan", &["model", "predict", "01", "--dataset", dataset, scores.to_str().unwrap()])
    };
    let (code, said) = predict("heart");
    assert!(code == 1 && said.contains("there is no run '01'"), "{code}: {said}");
    // Without a dataset nothing is asked.
    assert_eq!(site.refused("Stefan", &["model", "predict", "01", scores.to_str().unwrap()]).0, 2);
    assert!(!scores.exists());
}

#[test]
fn wrong_words_and_an_unreachable_coordinator_have_their_codes() {
    let site = Hospital::new();
    let (invitation, right) = invitation("https://127.0.0.1:1");
    let other = of_digest(&Digest::of(b"another CA"));
    let enrol =
        |words: &str| site.refused("Ida", &["enrol", &invitation, "--words", words, "--organisation", "Clinic"]);
    let (code, said) = enrol(&other);
    assert_eq!(code, 5, "{said}");
    let (code, said) = enrol("one two three");
    assert_eq!(code, 5, "{said}");
    let direct = site.run("Ida", &["enrol", &invitation, "--words", &right, "--organisation", "Clinic"]);
    assert_eq!(direct.status.code(), Some(4), "{}", words(&direct));
    let damaged = site.refused("Ida", &["enrol", "hospes1:abc", "--words", &right, "--organisation", "Clinic"]);
    assert_eq!(damaged.0, 2, "{}", damaged.1);
}

#[test]
fn the_doctor_names_what_is_in_the_way_and_what_to_ask() {
    let site = Hospital::new();
    let well = site.ask("Ida", &["doctor"]);
    for test in ["disk", "managed"] {
        assert!(well.as_array().unwrap().iter().any(|s| s["test"] == test && s["outcome"] == "good"), "{well}");
    }
    let (invitation, _) = invitation("https://127.0.0.1:1");
    let (code, said) = site.refused("Ida", &["doctor", "--invitation", &invitation]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("MEND") && said.contains("Ask the IT department"), "{said}");
    // A proxy is one on the way to the coordinator of an invitation; that one refuses all.
    let proxy = ["--proxy", "http://127.0.0.1:2"];
    let (_, said) = site.refused("Ida", &[&["doctor", "--invitation", &invitation], &proxy[..]].concat());
    assert!(said.contains("127.0.0.1:2"), "{said}");
    assert_eq!(site.refused("Ida", &[&["doctor"], &proxy[..]].concat()).0, 2);
    // The hospital's own certificates are looked at before the invitation is used.
    let file = site.path("own.pem");
    std::fs::write(&file, "no certificate").unwrap();
    let own = ["--extra-ca", file.to_str().unwrap()];
    let (code, said) = site.refused("Ida", &[&["doctor", "--invitation", &invitation], &own[..]].concat());
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("MEND    authority") && said.contains("PEM form"), "{said}");
    std::fs::remove_file(&file).unwrap();
    let (code, said) = site.refused("Ida", &[&["doctor", "--invitation", &invitation], &own[..]].concat());
    assert_eq!(code, 2, "{said}");
    assert_eq!(site.refused("Ida", &[&["doctor"], &own[..]].concat()).0, 2);
}

#[test]
fn what_networks_are_trained_on_is_set_and_overridden_by_the_command_line() {
    let site = Hospital::new();
    let doctor = |arguments: &[&str]| {
        let steps = site.ask("Ida", &[&["doctor"], arguments].concat());
        let device = steps.as_array().unwrap().iter().find(|s| s["test"] == "device").unwrap();
        device["finding"].as_str().unwrap().to_owned()
    };
    let set = site.ask("Ida", &["device", "set", "cpu"]);
    assert!(set["choice"] == "cpu" && set["decided_by"] == "people", "{set}");
    assert!(doctor(&[]).ends_with("threads, as chosen."), "{}", doctor(&[]));
    let named = doctor(&["--device", "virtual:9"]);
    assert!(named.contains("virtual:9, is not among those"), "{named}");
    let (code, said) = site.refused("Ida", &["device", "set", "the fast one"]);
    assert!(code == 2 && said.contains("is no device: write auto, cpu, gpu"), "{said}");
    site.add("Stefan", "data-steward");
    assert_eq!(site.refused("Stefan", &["device", "set", "gpu"]).0, 3);

    let running = site.start_with(&["--device", "gpu"]);
    let (code, said) = site.refused("Ida", &["device", "set", "auto"]);
    assert!(code == 3 && said.contains("was started with --device gpu"), "{said}");
    assert_eq!(running.end(), Some(0));
    let kept = words(&site.run("Ida", &["device", "show"]));
    assert!(kept.contains("Networks are trained on the processor only (cpu)."), "{kept}");
}

#[test]
fn the_rules_of_signing_in_are_shown_and_set_within_their_bounds() {
    let site = Hospital::new();
    let shown = words(&site.run("Ida", &["sign-in", "show"]));
    assert!(
        shown.contains("after 10 minutes") && shown.contains("3 wrong") && shown.contains("to 15 minutes"),
        "{shown}"
    );
    let set = site.ask("Ida", &["sign-in", "set", "--idle", "5", "--tries", "4"]);
    assert!(set["idle_minutes"] == 5 && set["tries"] == 4 && set["longest_wait_minutes"] == 15, "{set}");
    // Each command opens the engine anew: it was kept.
    assert_eq!(site.ask("Ida", &["sign-in", "show"]), set);
    let (code, said) = site.refused("Ida", &["sign-in", "set", "--idle", "61"]);
    assert!(code == 2 && said.contains("idle_minutes: 61 cannot be: from 2 to 60 minutes"), "{said}");
    site.add("Stefan", "data-steward");
    assert_eq!(site.refused("Stefan", &["sign-in", "set", "--tries", "10"]).0, 3);
    assert_eq!(site.ask("Stefan", &["sign-in", "show"]), set);
}

#[test]
fn another_way_is_for_a_federation_and_a_pause_for_a_run() {
    let site = Hospital::new();
    assert_eq!(site.ask("Ida", &["network", "show"]).as_array().map(Vec::len), Some(0));
    let (_, said) = site.refused("Ida", &["network", "set", "--proxy", "http://proxy.example:3128"]);
    assert!(said.contains("belongs to no federation yet"), "{said}");
    assert_eq!(site.refused("Ida", &["network", "set", "--proxy", "http://p:1", "--usual-proxy"]).0, 2);
    let (_, said) = site.refused("Ida", &["pause", "01", "--reason", "a question is open"]);
    assert!(said.contains("there is no run '01'"), "{said}");
    assert_eq!(site.refused("Ida", &["pause", "01"]).0, 2, "neither a reason nor an end");
}

#[test]
fn usage_errors_and_completions() {
    let site = Hospital::empty();
    assert_eq!(site.refused("Ida", &["frobnicate"]).0, 2);
    let bounds = site.refused("Ida", &["approve", "study", "--series", "--patients", "9"]);
    assert!(bounds.0 == 2 && bounds.1.contains("is not of the form 280..450"), "{}", bounds.1);
    assert_eq!(site.refused("Ida", &["approve", "study", "--patients", "1..9"]).0, 2, "without --series");
    let shell = site.command().args(["completions", "bash"]).output().unwrap();
    assert!(shell.status.success() && words(&shell).contains("-F _hospes__site"), "{}", words(&shell));
    let help = words(&site.command().arg("--help").output().unwrap());
    assert!(help.contains("enrol") && !help.contains("worker"), "{help}");
}

#[test]
fn the_policy_is_shown_and_a_wrong_one_is_refused_with_its_place() {
    let site = Hospital::new();
    let shown = words(&site.run("Ida", &["policy", "show"]));
    assert!(shown.contains("min_subjects"), "{shown}");
    let file = site.path("policy.toml");
    std::fs::write(&file, shown.replace("min_subjects", "min_subject")).unwrap();
    let (code, said) = site.refused("Ida", &["policy", "set", file.to_str().unwrap()]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("min_subject"), "{said}");
}
