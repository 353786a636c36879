//! Where secrets and values lie, and where they do not.

use std::process::{Command, Stdio};

use hospes_protocol::message::ToSite;

use super::*;
use crate::config::KnownKeys;
use crate::error::PartyError;
use crate::keys::{KeyError, Vault};

const ROLE: &str = "HOSPES_TEST_KEYCHAIN";
const THIS: &str = "tests::secrets::the_keychain_keeps_secrets_or_says_in_words_why_not";

/// Runs this test again, as a child with another role, in a home of its own.
fn child(program: &str, before: &[&str], role: &str, with_keyrings: bool) -> std::process::Output {
    let home = tempfile::tempdir().unwrap();
    let runtime = home.path().join("runtime");
    std::fs::create_dir_all(&runtime).unwrap();
    std::fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let keyrings = home.path().join(".local/share/keyrings");
    std::fs::create_dir_all(keyrings.parent().unwrap()).unwrap();
    match with_keyrings {
        true => std::fs::create_dir(&keyrings).unwrap(),
        // A file in its place: the daemon cannot make the folder, and has no default collection.
        false => std::fs::write(&keyrings, "").unwrap(),
    }
    let mut command = Command::new(program);
    command.args(before);
    if program == "dbus-run-session" {
        command.arg(std::env::current_exe().unwrap());
    }
    command
        .args(["--exact", THIS])
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", &runtime)
        .env_remove("XDG_DATA_HOME")
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .env(ROLE, role)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program} cannot be run ({e}); the packages dbus and gnome-keyring are needed"))
}

/// The real Secret Service, in a D-Bus session with GNOME Keyring as a desktop has them; then the two ways in which a
/// server lacks it.
#[tokio::test(flavor = "multi_thread")]
async fn the_keychain_keeps_secrets_or_says_in_words_why_not() {
    let place = SecretPlace::Keychain { service: "hospes-test".into() };
    match std::env::var(ROLE).as_deref() {
        Ok("a desktop") => {
            let vault = Vault::create(place.clone(), KdfCost::for_tests()).await.unwrap();
            assert!(vault.find("data-key").await.unwrap().is_none());
            vault.keep("data-key", Zeroizing::new(vec![0, 159, 146, 150, 255])).await.unwrap();
            let again = Vault::open(place.clone()).await.unwrap();
            assert_eq!(again.read("data-key").await.unwrap().as_slice(), [0, 159, 146, 150, 255]);
            again.destroy("data-key").await.unwrap();
            again.destroy("data-key").await.unwrap();
            assert!(matches!(again.read("data-key").await, Err(KeyError::Missing { .. })));
            a_keychain_that_goes_on_late_carries_nothing_out(&again).await;
            a_new_site_has_no_keys_of_a_restore_that_was_broken_off(&again, place).await;
        }
        Ok("no collection") => {
            let vault = Vault::open(place).await.unwrap();
            let refused = vault.keep("data-key", Zeroizing::new(vec![1])).await.unwrap_err();
            assert!(matches!(refused, KeyError::KeychainLocked { .. }), "{refused:?}");
            assert!(refused.to_string().contains("no default collection"), "{refused}");
        }
        Ok("no session") => {
            let refused = match Vault::open(place).await {
                Ok(vault) => vault.keep("data-key", Zeroizing::new(vec![1])).await.unwrap_err(),
                Err(refused) => refused,
            };
            assert!(matches!(refused, KeyError::NoKeychain), "{refused:?}");
            assert!(refused.to_string().contains("sealed file"), "{refused}");
        }
        _ => {
            let unlocked =
                "printf 'pw\\n' | gnome-keyring-daemon --unlock --components=secrets >/dev/null; exec \"$@\"";
            let desktop = ["--", "sh", "-c", unlocked, "sh"];
            let this = std::env::current_exe().unwrap();
            for (program, before, role, keyrings) in [
                ("dbus-run-session", &desktop[..], "a desktop", true),
                ("dbus-run-session", &desktop[..], "no collection", false),
                (this.to_str().unwrap(), &[][..], "no session", false),
            ] {
                let output = child(program, before, role, keyrings);
                let said =
                    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && said.contains("1 passed"), "{role}: {said}");
            }
        }
    }
}

/// It hangs, and goes on when nobody waits any more.
async fn a_keychain_that_goes_on_late_carries_nothing_out(vault: &Vault) {
    vault.keep("data-key", Zeroizing::new(vec![1])).await.unwrap();
    let bus = zbus::Connection::session().await.unwrap();
    let name = "org.freedesktop.DBus";
    let proxy = zbus::Proxy::new(&bus, name, "/org/freedesktop/DBus", name).await.unwrap();
    let keyring: u32 = proxy.call("GetConnectionUnixProcessID", &("org.freedesktop.secrets",)).await.unwrap();
    let keyring = rustix::process::Pid::from_raw(i32::try_from(keyring).unwrap()).unwrap();
    rustix::process::kill_process(keyring, rustix::process::Signal::STOP).unwrap();
    let late = vault.waited_for(Duration::from_millis(300)).keep("data-key", Zeroizing::new(vec![2])).await;
    rustix::process::kill_process(keyring, rustix::process::Signal::CONT).unwrap();
    assert!(matches!(late, Err(KeyError::KeychainSilent(_))), "{late:?}");
    // Long enough for what was given up to come, if it came.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(vault.read("data-key").await.unwrap().as_slice(), [1]);
}

/// The keys are gone that it had put there, and no others: what lies there may be of a site whose folder was moved away.
async fn a_new_site_has_no_keys_of_a_restore_that_was_broken_off(vault: &Vault, place: SecretPlace) {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, ..) = configure(folder.path(), Executor::Thread);
    config.secrets = place;
    std::fs::create_dir(&config.folder).unwrap();
    let unfinished = config.folder.join("restore.unfinished");
    for (mark, stays) in [("a backup is being restored here\n", true), ("restored-into-the-keychain\n", false)] {
        vault.keep("data-key", Zeroizing::new(vec![7])).await.unwrap();
        std::fs::write(&unfinished, mark).unwrap();
        crate::backup::give_up(&config).await.unwrap();
        assert_eq!(vault.find("data-key").await.unwrap().is_some(), stays, "{mark}");
        assert!(!unfinished.exists());
    }
}

/// Values of one patient that stand once in the source, in the forms in which a computer may keep them.
struct Canary {
    subject: &'static str,
    /// Of two columns.
    numbers: [f64; 2],
}

const CANARY: Canary = Canary { subject: "CANARY-7f3a9c51", numbers: [271.828_182_845_9, 314.159_265_358_9] };
/// Folder of the test below, as it starts itself again.
const CANARY_FOLDER: &str = "HOSPES_TEST_CANARY";
const CANARY_TEST: &str = "tests::secrets::i1_a_canary_value_is_found_nowhere_outside_its_source";

impl Canary {
    /// Each form, as what must all be found in one place: the four bytes of one number stand here and there by chance.
    fn forms(&self) -> Vec<(String, Vec<Vec<u8>>)> {
        let mut forms = vec![("the subject".to_owned(), vec![self.subject.as_bytes().to_vec()])];
        for number in self.numbers {
            forms.push((format!("{number} as text"), vec![number.to_string().into_bytes()]));
            forms.push((format!("{number} as f64"), vec![number.to_le_bytes().to_vec()]));
        }
        // As a child trains on them.
        #[allow(clippy::cast_possible_truncation)]
        let singles = self.numbers.map(|number| (number as f32).to_le_bytes().to_vec());
        forms.push(("the numbers as f32".to_owned(), singles.to_vec()));
        forms
    }

    /// Forms of it in these bytes.
    fn found(&self, bytes: &[u8]) -> Vec<String> {
        let is_here = |form: &Vec<u8>| bytes.windows(form.len()).any(|window| window == form);
        self.forms().into_iter().filter(|(_, parts)| parts.iter().all(is_here)).map(|(what, _)| what).collect()
    }

    /// Files under a folder that hold it.
    fn found_in(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        // What is gone meanwhile holds nothing.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                found.extend(self.found_in(&path));
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            found.extend(self.found(&bytes).into_iter().map(|what| format!("{what} in {}", path.display())));
        }
        found
    }
}

/// A value of one patient is nowhere outside its source, also when the child that trains on it is killed in the middle:
/// not in the database or its log, not in snapshots, payloads, models, scratch or temporary files, and not in what engine
/// and child print.
#[test]
fn i1_a_canary_value_is_found_nowhere_outside_its_source() {
    if let Some(folder) = std::env::var_os(CANARY_FOLDER) {
        let folder = PathBuf::from(folder);
        return tokio::runtime::Runtime::new().unwrap().block_on(hunt(&folder));
    }
    // Once more in a process of its own: its temporary files and those of its child lie where they are looked for, and
    // what both print is kept.
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("searched/temporary");
    std::fs::create_dir_all(&temporary).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CANARY_TEST, "--nocapture"])
        .env(CANARY_FOLDER, folder.path())
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(CANARY.found(&[output.stdout, output.stderr].concat()), Vec::<String>::new(), "{said}");
}

/// Puts the canary into a cohort, trains on it under `folder/searched`, and looks there.
async fn hunt(folder: &Path) {
    let (source, searched) = (folder.join("source"), folder.join("searched"));
    std::fs::create_dir(&source).unwrap();
    let csv = std::fs::read_to_string(heart("cleveland.csv")).unwrap();
    let row = csv.lines().nth(1).unwrap();
    let mut cells: Vec<String> = row.split(',').map(str::to_owned).collect();
    let [one, two] = CANARY.numbers.map(|number| number.to_string());
    (cells[0], cells[4], cells[5]) = (CANARY.subject.into(), one, two);
    let path = source.join("cohort.csv");
    std::fs::write(&path, csv.replacen(row, &cells.join(","), 1)).unwrap();
    assert_eq!(CANARY.found_in(&source).len(), 3, "the canary is in its source");
    // A child would write its temporary files here.
    assert!(std::env::temp_dir().starts_with(&searched));

    let program = std::env::current_exe().unwrap().parent().unwrap().join("../examples/worker");
    let now = crate::config::system_clock()().as_millis();
    let mut world = World::create_at(&searched, Executor::Child { program }, now).await;
    world.staff().await;
    world.set_policy(&Policy::public_data()).await;
    let dataset = NewDataset {
        name: "Cohort".into(),
        path,
        query: None,
        sheet: None,
        missing: None,
        scan: Default::default(),
        subject: "subject_id".into(),
        kinds: BTreeMap::new(),
        mask: BTreeSet::new(),
        keep: BTreeSet::new(),
        public: true,
        duo: vec!["DUO:0000042".into()],
    };
    let view = world.handle.add_dataset(world.who("sam"), dataset).await.unwrap();
    let profile = world.handle.profile(world.who("sam"), view.id).await.unwrap().profile;
    let profile = serde_json::to_string(&profile).unwrap();
    assert!(profile.contains("271.828"), "the steward sees the largest value: {profile}");
    world.join().await;
    // Long work, so that it can be killed in the middle.
    let mut plan = small_plan(2);
    if let Component::NnTrain(train) = &mut plan.tasks.get_mut("train").unwrap().component {
        train.local.updates = 1_000_000;
    }
    let study = world.running(plan).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    world
        .expect("progress", |c| match c {
            LinkCommand::Send(FromSite::Progress { done, .. }) if *done > 0 => Some(()),
            _ => None,
        })
        .await;
    assert_eq!(CANARY.found_in(&searched), Vec::<String>::new(), "while it trains");
    world.handle.cancel_job(world.who("sam"), job(1), "killed in the middle".into()).await.unwrap();
    world.send(ToSite::JobRollback { job: job(1) }).await;
    world.settle().await;
    assert_eq!(CANARY.found_in(&searched), Vec::<String>::new(), "after it was killed");
    for format in AuditFormat::ALL {
        let export = searched.join(format!("ledger.{format}"));
        world.handle.export_audit_as(world.who("ana"), None, *format, export).await.unwrap();
    }
    assert_eq!(CANARY.found_in(&searched), Vec::<String>::new(), "after an export");
}

/// Known keys are those of a simulation: the one that ids are hashed under is kept as it was given, and no patient's data
/// come under it.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_whose_keys_are_known_takes_public_data_only() {
    let temporary = tempfile::tempdir().unwrap();
    let keys = Arc::new(KnownKeys { identity: key(1), subjects: [7; 32] });
    let mut world = World::create_with(temporary.path(), |config| config.known_keys = Some(keys)).await;
    let vault = Vault::open(world.config.secrets.clone()).await.unwrap();
    assert_eq!(vault.read("subject-key").await.unwrap().as_slice(), [7; 32]);
    assert_ne!(vault.read("data-key").await.unwrap().as_slice(), [7; 32]);
    world.staff().await;
    let private = NewDataset {
        name: "Cohort".into(),
        path: heart("cleveland.csv"),
        query: None,
        sheet: None,
        missing: None,
        scan: Default::default(),
        subject: "subject_id".into(),
        kinds: BTreeMap::new(),
        mask: BTreeSet::new(),
        keep: BTreeSet::new(),
        public: false,
        duo: vec!["DUO:0000042".into()],
    };
    let refused = world.handle.add_dataset(world.who("sam"), private).await.unwrap_err();
    assert!(matches!(refused, PartyError::Input { place: "public", .. }), "{refused}");
    world.set_policy(&Policy::public_data()).await;
    world.add_dataset("Cleveland", "cleveland.csv", true).await;
}
