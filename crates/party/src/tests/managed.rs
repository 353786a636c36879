//! What the hospital's IT set holds in the engine, whoever asks and however often.

use std::os::unix::fs::PermissionsExt as _;

use hospes_protocol::approval::RefusalCode;
use hospes_protocol::enrol::Invitation;

use super::*;
use crate::error::PartyError;
use crate::view::{Approach, ComputeLimits, Enrolment, SignInRules};

/// A file that the IT laid down; the user who runs the tests plays root.
fn file(folder: &Path, text: &str) -> ManagedFile {
    let path = folder.join("managed.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    ManagedFile::at(path, rustix::process::geteuid().as_raw())
}

/// A site with its people on a machine that is managed.
async fn managed(folder: &Path, text: &str) -> World {
    let file = file(folder, text);
    let mut world = World::create_with(folder, |config| config.managed = file).await;
    world.staff().await;
    world
}

/// The words of a refusal, which always say whose it is.
fn refused<T: std::fmt::Debug>(done: Result<T, PartyError>) -> String {
    match done {
        Err(PartyError::Managed(words)) if words.contains("set by your IT, in ") => words,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_keeps_the_engine_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let world = managed(folder.path(), "").await;
    world.handle.shut_down().await.unwrap();
    let path = folder.path().join("managed.toml");
    for (text, mode, words) in [
        ("[policy]\nat_least = \"none\"\n", 0o644, "line 2: "),
        ("[politics]\n", 0o644, "line 1: "),
        ("", 0o666, "chmod go-w"),
    ] {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let Err(wrong) = open(world.config.clone()).await else { panic!("it started with {text:?}") };
        assert!(matches!(wrong, PartyError::ManagedFile { .. }), "{wrong}");
        assert!(wrong.to_string().contains(words), "{wrong}");
        assert!(matches!(initialise(&world.config).await, Err(PartyError::ManagedFile { .. })));
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    open(world.config.clone()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_policy_is_set_that_is_looser_than_the_floor() {
    let folder = tempfile::tempdir().unwrap();
    let world = managed(folder.path(), "[policy]\nat_least = \"datashield\"\n").await;
    let (ana, loose) = (world.who("ana"), Policy::public_data().to_toml().unwrap());
    let words = refused(world.handle.set_policy(ana, loose.clone(), pass("ana")).await);
    assert!(words.contains("'datashield'") && words.contains("disclosure.min_cell from 3 to 1"), "{words}");
    assert_eq!(world.entered("policy_changed", "refused").await, 1);
    let preview = world.handle.policy_preview(ana, loose).await.unwrap();
    assert!(preview.below.iter().any(|words| words.contains("disclosure.min_cell")), "{preview:?}");
    // Nothing but the floor counts: this one loosens the present policy, and is not below it.
    let preview = world.handle.policy_preview(ana, Policy::datashield().to_toml().unwrap()).await.unwrap();
    assert!(preview.below.is_empty() && !preview.loosens.is_empty(), "{preview:?}");
    world.set_policy(&Policy::datashield()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_policy_from_before_the_floor_no_work_is_done_until_it_is_replaced() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    world.handle.shut_down().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    world.config.managed = file(folder.path(), "[policy]\nat_least = \"strict\"\n");
    world.handle = open(world.config.clone()).await.unwrap();
    world.log_everybody_in().await;
    let alarms = world.alarms().await;
    assert!(alarms.iter().any(|a| a.contains("at least as strict as 'strict'")), "{alarms:?}");
    world.connect().await;
    world.start_job_expecting(&study, job(1), RefusalCode::Stopped).await;
    // Stricter than before, so that one signature is enough.
    world.set_policy(&Policy::strict()).await;
    let refusal = world.reserve(&study, job(2)).await;
    assert!(refusal.is_none_or(|refusal| refusal.code != RefusalCode::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_federations_on_the_list_are_joined_and_worked_for() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[joining]\nonly = [\"one.example\"]\nextra_ca = \"/nowhere/hospital-ca.pem\"\n";
    let mut world = managed(folder.path(), text).await;
    let invitation = |url: &str| {
        let expires = Timestamp::from_millis(START + DAY);
        let site = "Site 1".to_owned();
        Invitation { url: url.into(), ca: Digest::of(b"ca"), site, secret: vec![1; 32], expires }.to_string()
    };
    let enrolment = |url: &str| Enrolment {
        invitation: invitation(url),
        words: "these are none".into(),
        organisation: "Hospital 1".into(),
        proxy: None,
        extra_ca: None,
        again: None,
    };
    let approach = |url: &str| Approach { invitation: invitation(url), proxy: None, extra_ca: None };
    let words = refused(world.handle.enrol(world.who("ana"), enrolment("https://other.example")).await);
    assert!(words.contains("other.example"), "{words}");
    refused(world.handle.diagnose_invitation(world.who("ana"), approach("https://other.example")).await);
    assert_eq!(world.entered("enrolled", "refused").await, 1);
    let joins = world.handle.enrol(world.who("ana"), enrolment("https://one.example:8443")).await;
    assert!(matches!(joins, Err(PartyError::Fingerprint(_))), "{joins:?}");
    // Nobody named certificates, so that the IT's are taken.
    let tested = world.handle.diagnose_invitation(world.who("ana"), approach("https://one.example")).await;
    assert!(matches!(tested, Err(PartyError::Input { place: "extra_ca", .. })), "{tested:?}");
    // A federation that was joined before.
    world.set_policy(&Policy::public_data()).await;
    world.add_dataset("Cleveland", "cleveland.csv", true).await;
    world.join().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.start_job_expecting(&study, job(1), RefusalCode::Stopped).await;
}

#[test]
fn a_way_that_somebody_names_comes_before_the_one_of_the_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[joining]\nproxy = \"http://proxy.example:3128\"\nextra_ca = \"/etc/ca.pem\"\n";
    let managed = file(folder.path(), text).read().unwrap();
    let (proxy, extra_ca) = (Some("http://proxy.example:3128".to_owned()), Some(PathBuf::from("/etc/ca.pem")));
    assert_eq!(managed.way(None, None), (proxy.clone(), extra_ca));
    let own = Some(PathBuf::from("own.pem"));
    assert_eq!(managed.way(None, own.clone()), (proxy, own));
    assert_eq!(managed.way(Some("http://other:1".into()), None).0, Some("http://other:1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_training_are_not_widened() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[compute]\nmost_share_percent = 50\nmost_threads = 4\nquiet = [\"mon-fri 08:00-17:30\"]\n\
                pause_while_active = true\n";
    let world = managed(folder.path(), text).await;
    let (handle, ana) = (&world.handle, world.who("ana"));
    let held = handle.compute_limits(ana).await.unwrap();
    let quiet: Vec<_> = held.quiet.iter().map(ToString::to_string).collect();
    assert_eq!((held.share, held.threads, held.yields), (50, Some(4), true));
    assert_eq!(quiet, ["mon,tue,wed,thu,fri 08:00-17:30"]);
    for (wider, words) in [
        (ComputeLimits { share: 51, ..held.clone() }, "at most 50 percent"),
        (ComputeLimits { threads: None, ..held.clone() }, "at most 4 threads"),
        (ComputeLimits { threads: Some(5), ..held.clone() }, "at most 4 threads"),
        (ComputeLimits { quiet: Vec::new(), ..held.clone() }, "mon,tue,wed,thu,fri 08:00-17:30 must stay"),
        (ComputeLimits { yields: false, ..held.clone() }, "somebody works"),
    ] {
        let said = refused(handle.set_compute_limits(ana, wider).await);
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(handle.compute_limits(ana).await.unwrap(), held);
    assert_eq!(world.entered("settings_changed", "refused").await, 5);
    let mut stricter = ComputeLimits { share: 20, threads: Some(1), ..held };
    stricter.quiet.extend(super::share::always_quiet().quiet);
    handle.set_compute_limits(ana, stricter.clone()).await.unwrap();
    assert_eq!(handle.compute_limits(ana).await.unwrap(), stricter);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_kept_for_as_long_as_the_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = managed(folder.path(), "").await;
    world.handle.set_audit_retention(world.who("ana"), Some(24), pass("ana")).await.unwrap();
    world.handle.shut_down().await.unwrap();
    world.config.managed = file(folder.path(), "[audit]\nleast_retention_months = 120\n");
    world.handle = open(world.config.clone()).await.unwrap();
    world.log_everybody_in().await;
    let (handle, ana) = (&world.handle, world.who("ana"));
    assert_eq!(handle.audit_retention(ana).await.unwrap(), Some(120), "what was set before is too short");
    let words = refused(handle.set_audit_retention(ana, Some(119), pass("ana")).await);
    assert!(words.contains("at least 120 months"), "{words}");
    for longer in [Some(120), None] {
        handle.set_audit_retention(ana, longer, pass("ana")).await.unwrap();
        assert_eq!(handle.audit_retention(ana).await.unwrap(), longer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_the_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let world = managed(folder.path(), "[sessions]\nmost_idle_minutes = 5\n").await;
    world.pass_time(4 * MINUTE);
    world.handle.active(world.who("ana")).await.unwrap();
    world.pass_time(5 * MINUTE + 1);
    assert!(matches!(world.handle.active(world.who("ana")).await, Err(PartyError::NoSession)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_signing_in_are_not_loosened() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[sessions]\nmost_idle_minutes = 5\nmost_tries = 4\nleast_wait_minutes = 30\n";
    let world = managed(folder.path(), text).await;
    let (handle, ana) = (&world.handle, world.who("ana"));
    let held = handle.sign_in_rules(ana).await.unwrap();
    // Nobody set any: the usual ones where they are stricter, the IT's elsewhere.
    assert_eq!(held, SignInRules { idle_minutes: 5, tries: 3, longest_wait_minutes: 30 });
    for (looser, words) in [
        (SignInRules { idle_minutes: 6, ..held }, "at most 5 idle minutes"),
        (SignInRules { tries: 5, ..held }, "at most 4 wrong passphrases"),
        (SignInRules { longest_wait_minutes: 29, ..held }, "at least 30 minutes"),
    ] {
        let said = refused(handle.set_sign_in_rules(ana, looser, pass("ana")).await);
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(world.entered("settings_changed", "refused").await, 3);
    assert_eq!(handle.sign_in_rules(ana).await.unwrap(), held);
    let stricter = SignInRules { idle_minutes: 2, tries: 4, longest_wait_minutes: 60 };
    handle.set_sign_in_rules(ana, stricter, pass("ana")).await.unwrap();
    assert_eq!(handle.sign_in_rules(ana).await.unwrap(), stricter);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_model_is_written_to_a_file_where_the_it_forbids_it() {
    let folder = tempfile::tempdir().unwrap();
    let world = managed(folder.path(), "[models]\nexport = false\n").await;
    let place = |name: &str| folder.path().join(name);
    let export = world.handle.export_model(world.who("sam"), job(1), place("m.safetensors"), place("m.card.json"));
    assert!(refused(export.await).contains("models may not be written to files"));
    assert_eq!(world.entered("model_exported", "refused").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_are_for_no_site_whose_floor_does_not_allow_them() {
    let folder = tempfile::tempdir().unwrap();
    let world = managed(folder.path(), "").await;
    let mut policy = Policy::strict();
    policy.models.predict = hospes_protocol::policy::Predict::Cohort;
    world.set_policy(&policy).await;
    let dataset = world.add_dataset("Cleveland", "cleveland.csv", true).await.id;
    world.handle.shut_down().await.unwrap();
    // The file came after the policy.
    file(folder.path(), "[policy]\nat_least = \"strict\"\n");
    let handle = open(world.config.clone()).await.unwrap();
    let session = handle.log_in("sam".into(), pass("sam")).await.unwrap();
    let said = refused(handle.predict(&session, job(1), dataset, folder.path().join("scores.csv")).await);
    assert!(said.contains("predictions are allowed"), "{said}");
    let again = handle.log_in("ana".into(), pass("ana")).await.unwrap();
    let set = handle.set_policy(&again, policy.to_toml().unwrap(), pass("ana")).await;
    assert!(refused(set).contains("predictions are allowed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_managed_can_be_seen_by_everybody_and_stands_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let world = managed(folder.path(), "[models]\nexport = false\n").await;
    let managed = world.handle.managed().await.unwrap();
    assert!(managed.no_export && managed.file.as_deref().is_some_and(|file| file.ends_with("managed.toml")));
    let query = crate::view::AuditQuery { limit: 1_000, ..Default::default() };
    let page = world.handle.audit(world.who("ana"), query).await.unwrap();
    let started = page.entries.iter().find(|entry| entry.action == "engine_started").unwrap();
    assert!(format!("{started:?}").contains("managed"), "{started:?}");
    world.assert_ledger_intact().await;
}
