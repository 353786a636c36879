//! Enrolment, renewal and diagnosis.

use std::sync::Arc;

use hospes_protocol::enrol::Invitation;
use hospes_protocol::id::Digest;
use hospes_protocol::sign::SecretKey;
use hospes_protocol::version::Version;
use hospes_protocol::words;
use zeroize::Zeroizing;

use super::coordinator::{Authority, Coordinator, Options, now};
use super::proxies::ConnectProxy;
use super::site::{Site, config, identity};
use crate::config::Executor;
use crate::error::PartyError;
use crate::link::{
    Enrolled, LinkConfig, LinkError, LinkEvent, Outcome, ProxyChoice, Reach, Reached, Step, diagnose,
    diagnose_invitation,
};
use crate::tests::World;
use crate::view::{Approach, Enrolment};

fn key() -> SecretKey {
    SecretKey::from_seed(&[11; 32])
}

fn reach() -> Reach {
    Reach::new(ProxyChoice::None, Arc::new(now))
}

async fn enrol(
    invitation: &Invitation,
    typed: &str,
    organisation: &str,
    identity: &SecretKey,
    reach: &Reach,
) -> Result<Enrolled, LinkError> {
    Reached::by(invitation.clone(), typed, reach).await?.enrol(organisation, identity).await
}

#[tokio::test]
async fn an_invitation_becomes_a_membership_whose_session_opens() {
    let coordinator = Coordinator::start().await;
    let invitation = coordinator.invitation();
    let typed = words::of_digest(&invitation.ca);
    let enrolled = enrol(&invitation, &typed, "Cleveland Clinic", &key(), &reach()).await.unwrap();
    assert_eq!(enrolled.site, identity().site_id());
    assert_eq!(enrolled.federation, coordinator.federation());
    assert_eq!(enrolled.roster.document.members[0].organisation, "Cleveland Clinic");
    let member = LinkConfig {
        chain_pem: enrolled.chain_pem,
        key_pem: enrolled.key_pem,
        ca_pem: enrolled.ca_pem,
        urls: vec![enrolled.url],
        ..config(&coordinator)
    };
    let mut site = Site::start(member);
    assert!(matches!(site.event().await, LinkEvent::Connected(_)));
}

#[tokio::test]
async fn enrolment_passes_a_proxy() {
    let coordinator = Coordinator::start().await;
    let proxy = ConnectProxy::start(None, false).await;
    let invitation = coordinator.invitation();
    let typed = words::of_digest(&invitation.ca);
    let through = ProxyChoice::Url(Zeroizing::new(format!("http://{}", proxy.address)));
    enrol(&invitation, &typed, "Clinic", &key(), &Reach::new(through, Arc::new(now))).await.unwrap();
    assert_eq!(proxy.heads.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn wrong_words_stop_enrolment_before_anything_is_sent() {
    let coordinator = Coordinator::start().await;
    let invitation = coordinator.invitation();
    coordinator.kill();
    let other = words::of_digest(&Digest::of(b"another CA"));
    let differ = enrol(&invitation, &other, "Clinic", &key(), &reach()).await.unwrap_err();
    assert!(matches!(differ, LinkError::WordsDiffer), "{differ}");
    let mistyped = enrol(&invitation, "one two three", "Clinic", &key(), &reach()).await.unwrap_err();
    assert!(matches!(mistyped, LinkError::WordsMistyped), "{mistyped}");
}

#[tokio::test]
async fn an_expired_or_used_invitation_is_refused_in_words() {
    let coordinator = Coordinator::start().await;
    let mut invitation = coordinator.invitation();
    let typed = words::of_digest(&invitation.ca);
    invitation.expires = now().plus_millis(-1);
    let late = enrol(&invitation, &typed, "Clinic", &key(), &reach()).await.unwrap_err();
    assert!(matches!(late, LinkError::InvitationExpired(_)), "{late}");
    let mut used = coordinator.invitation();
    used.secret = vec![8; 32];
    let used = enrol(&used, &typed, "Clinic", &key(), &reach()).await.unwrap_err();
    assert_eq!(used.to_string(), "the coordinator refuses: the invitation was used already");
}

#[tokio::test]
async fn an_inspected_connection_is_refused_at_enrolment_and_its_issuer_named() {
    let inspector = Authority::new("Ward TLS inspection");
    let coordinator = Coordinator::start_with(Options { server_ca: Some(inspector), ..Options::default() }).await;
    let invitation = coordinator.invitation();
    let typed = words::of_digest(&invitation.ca);
    let error = enrol(&invitation, &typed, "Clinic", &key(), &reach()).await.unwrap_err();
    assert!(
        matches!(&error, LinkError::Intercepted { issuer, .. } if issuer.contains("Ward TLS inspection")),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_clock_is_told_at_enrolment() {
    let coordinator = Coordinator::start().await;
    coordinator.state().clock_ms = 3 * 86_400_000;
    let invitation = coordinator.invitation();
    let typed = words::of_digest(&invitation.ca);
    let error = enrol(&invitation, &typed, "Clinic", &key(), &reach()).await.unwrap_err();
    assert!(matches!(error, LinkError::Clock(_)), "{error}");
    assert!(error.to_string().contains("3 days behind"), "{error}");
}

#[tokio::test]
async fn an_invitation_is_not_used_up_where_no_version_is_spoken_by_both() {
    let coordinator = Coordinator::start().await;
    coordinator.state().version = Some(Version(99));
    let invitation = coordinator.invitation();
    let typed = words::of_digest(&invitation.ca);
    let error = enrol(&invitation, &typed, "Clinic", &key(), &reach()).await.unwrap_err();
    assert!(error.to_string().contains("update the older of the two"), "{error}");
    assert!(coordinator.state().members.is_empty());
}

#[tokio::test]
async fn a_certificate_past_two_thirds_of_its_life_is_renewed_with_a_new_key() {
    let coordinator = Coordinator::start().await;
    let (chain_pem, key_pem) = coordinator.authority.client(coordinator.federation(), identity().site_id(), -25, 5);
    let old = key_pem.clone();
    let due = LinkConfig { chain_pem, key_pem: Zeroizing::new(key_pem), ..config(&coordinator) };
    let mut site = Site::start(due.clone());
    let ((chain_pem, key_pem), _) = site
        .until(|event| match event {
            LinkEvent::CertificateRenewed { chain_pem, key_pem } => Some((chain_pem, key_pem)),
            _ => None,
        })
        .await;
    assert!(!key_pem.contains(old.trim()), "the key is the old one");
    assert!(key_pem.contains(chain_pem.trim()), "the certificate does not travel with its key");
    // After a crash between the engine's two writes the new key meets the old certificate, and still works.
    let mut site = Site::start(LinkConfig { key_pem, ..due });
    site.connected().await;
}

fn outcomes(steps: &[Step]) -> Vec<(&str, Outcome)> {
    steps.iter().map(|s| (s.test.as_str(), s.outcome)).collect()
}

#[tokio::test]
async fn a_diagnosis_of_a_good_way_is_good_in_every_step() {
    let coordinator = Coordinator::start().await;
    let steps = diagnose(&config(&coordinator), 0, true).await;
    assert!(steps.iter().all(|s| s.outcome == Outcome::Good && s.finding.ends_with('.')), "{steps:#?}");
    let names: Vec<_> = steps.iter().map(|s| s.test.as_str()).collect();
    assert_eq!(names, ["address", "proxy", "name", "tcp", "tls", "answer", "clock", "certificate", "session"]);
    assert!(steps.iter().any(|s| s.finding.contains("TLS 1.3") && s.finding.contains("X25519MLKEM768")), "{steps:#?}");
}

/// The tests before joining, in order.
const BEFORE: [&str; 10] =
    ["invitation", "authority", "address", "proxy", "name", "tcp", "tls", "answer", "clock", "version"];

/// What fails of [`BEFORE`], after which everything is skipped.
fn fails_at(steps: &[Step], at: &str) -> Step {
    let from = BEFORE.iter().position(|test| *test == at).unwrap();
    let expected = BEFORE.iter().enumerate().filter(|(_, test)| **test != "authority").map(|(i, test)| {
        let outcome = if i < from { Outcome::Good } else { Outcome::Skipped };
        (*test, if i == from { Outcome::Failed } else { outcome })
    });
    assert_eq!(outcomes(steps), expected.collect::<Vec<_>>(), "{steps:#?}");
    steps.iter().find(|step| step.test == at).unwrap().clone()
}

#[tokio::test]
async fn a_way_is_tested_before_joining_and_the_invitation_is_as_good_afterwards() {
    let coordinator = Coordinator::start().await;
    let invitation = coordinator.invitation();
    let hospital = Authority::new("Ward authority").pem();
    let steps = diagnose_invitation(&invitation, &reach(), Some(&hospital)).await;
    assert_eq!(outcomes(&steps), BEFORE.map(|test| (test, Outcome::Good)), "{steps:#?}");
    assert!(steps.iter().all(|s| s.finding.ends_with('.') && s.request.is_none()), "{steps:#?}");
    assert!(steps.iter().any(|s| s.test == "answer" && s.finding.contains("'Hearts'")), "{steps:#?}");
    assert!(coordinator.state().members.is_empty());
    let typed = words::of_digest(&invitation.ca);
    enrol(&invitation, &typed, "Clinic", &key(), &reach()).await.unwrap();
}

#[tokio::test]
async fn a_test_before_joining_names_the_step_that_fails_and_what_to_ask() {
    let inspector = Authority::new("Ward TLS inspection");
    let inspected = Coordinator::start_with(Options { server_ca: Some(inspector), ..Options::default() }).await;
    let tls = fails_at(&diagnose_invitation(&inspected.invitation(), &reach(), None).await, "tls");
    assert!(tls.finding.contains("Ward TLS inspection") && tls.request.unwrap().contains("exempt"), "{}", tls.finding);

    let coordinator = Coordinator::start().await;
    let another = Invitation { ca: Digest::of(b"another CA"), ..coordinator.invitation() };
    fails_at(&diagnose_invitation(&another, &reach(), None).await, "tls");

    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = Invitation { url: format!("https://{closed}"), ..coordinator.invitation() };
    let tcp = fails_at(&diagnose_invitation(&nobody, &reach(), None).await, "tcp");
    assert!(tcp.request.unwrap().contains("outbound TCP"), "{}", tcp.finding);

    let proxy = ConnectProxy::start(None, true).await;
    let through = ProxyChoice::Url(Zeroizing::new(format!("http://{}", proxy.address)));
    let refuses = Reach::new(through, Arc::new(now));
    let tcp = fails_at(&diagnose_invitation(&coordinator.invitation(), &refuses, None).await, "tcp");
    assert!(tcp.finding.contains("403") && tcp.request.unwrap().contains("CONNECT"), "{}", tcp.finding);

    let nonsense = Invitation { url: "http://plain.example".into(), ..coordinator.invitation() };
    fails_at(&diagnose_invitation(&nonsense, &reach(), None).await, "address");

    coordinator.state().clock_ms = 86_400_000;
    let clock = fails_at(&diagnose_invitation(&coordinator.invitation(), &reach(), None).await, "clock");
    assert!(clock.request.unwrap().contains("NTP"), "{}", clock.finding);
    coordinator.state().clock_ms = 0;
    coordinator.state().version = Some(Version(99));
    fails_at(&diagnose_invitation(&coordinator.invitation(), &reach(), None).await, "version");
}

#[tokio::test]
async fn what_is_wrong_here_is_told_and_the_way_is_tested_all_the_same() {
    let coordinator = Coordinator::start().await;
    let late = Invitation { expires: now().plus_millis(-1), ..coordinator.invitation() };
    let steps = diagnose_invitation(&late, &reach(), Some("no certificate at all")).await;
    let failed: Vec<_> = steps.iter().filter(|s| s.outcome != Outcome::Good).map(|s| s.test.as_str()).collect();
    assert_eq!(failed, ["invitation", "authority"], "{steps:#?}");
    assert!(steps[0].finding.contains("ask the operator for a new one"), "{steps:#?}");
    assert!(steps[1].request.as_ref().unwrap().contains("PEM"), "{steps:#?}");
}

/// A site whose engine runs, with an administrator.
async fn engine(folder: &std::path::Path) -> World {
    let mut world = World::create_at(folder, Executor::Thread, now().as_millis()).await;
    world.staff().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_tests_the_way_before_joining_and_nothing_is_written() {
    let (folder, coordinator) = (tempfile::tempdir().unwrap(), Coordinator::start().await);
    let proxy = ConnectProxy::start(None, false).await;
    let world = engine(folder.path()).await;
    let approach = Approach {
        invitation: coordinator.invitation().to_string(),
        proxy: Some(format!("http://{}", proxy.address)),
        extra_ca: None,
    };
    let size = async || world.handle.status().await.unwrap().ledger.entries;
    let before = size().await;
    let steps = world.handle.diagnose_invitation(world.who("ana"), approach.clone()).await.unwrap();
    assert!(steps.iter().all(|step| step.outcome == Outcome::Good), "{steps:#?}");
    assert_eq!(proxy.heads.lock().unwrap().len(), 2);
    assert_eq!(size().await, before);
    assert!(world.handle.memberships(world.who("ana")).await.unwrap().is_empty());
    // An invitation can name any machine of the hospital's network.
    let denied = world.handle.diagnose_invitation(world.who("sam"), approach.clone()).await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })), "{denied:?}");
    assert_eq!(proxy.heads.lock().unwrap().len(), 2);
    let missing = Approach { extra_ca: Some(folder.path().join("no-such.pem")), ..approach.clone() };
    let missing = world.handle.diagnose_invitation(world.who("ana"), missing).await;
    assert!(matches!(missing, Err(PartyError::Input { place: "extra_ca", .. })), "{missing:?}");
    let damaged = Approach { invitation: "hospes1:abc".into(), ..approach };
    let damaged = world.handle.diagnose_invitation(world.who("ana"), damaged).await;
    assert!(matches!(damaged, Err(PartyError::Input { place: "invitation", .. })), "{damaged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_enrols_again_keeps_its_identity_and_shows_it_to_no_other_coordinator() {
    let (folder, coordinator) = (tempfile::tempdir().unwrap(), Coordinator::start().await);
    let other = Coordinator::start_with(Options { seed: 98, ..Options::default() }).await;
    let proxy = ConnectProxy::start(None, false).await;
    let world = engine(folder.path()).await;
    let enrolment = |to: &Coordinator, again| {
        let invitation = to.invitation();
        Enrolment {
            words: words::of_digest(&invitation.ca),
            invitation: invitation.to_string(),
            organisation: "Cleveland Clinic".into(),
            proxy: Some(format!("http://{}", proxy.address)),
            extra_ca: None,
            again,
        }
    };
    let enrol = async |enrolment| world.handle.enrol(world.who("ana"), enrolment).await;
    let first = enrol(enrolment(&coordinator, None)).await.unwrap();
    // Revoked, or the certificate lost: whoever invites it again need not know how a site keeps its key.
    for again in [Some(first.federation), None] {
        let after = enrol(enrolment(&coordinator, again)).await.unwrap();
        assert_eq!((after.site, after.identity), (first.site, first.identity));
    }
    assert_eq!(coordinator.state().members.len(), 1);
    world.handle.leave(world.who("ana"), first.federation, "we merge".into()).await.unwrap();
    let after = enrol(enrolment(&coordinator, None)).await.unwrap();
    assert_eq!((after.site, after.left, after.paused), (first.site, None, None));

    let refused = enrol(enrolment(&other, Some(first.federation))).await;
    assert!(matches!(refused, Err(PartyError::State(_))), "{refused:?}");
    assert!(other.state().members.is_empty(), "the other coordinator was told who this is");
    // One that says that it is of a federation which it does not have the CA of.
    let impostor = Coordinator::start().await;
    let refused = enrol(enrolment(&impostor, None)).await;
    assert!(matches!(refused, Err(PartyError::State(_))), "{refused:?}");
    assert!(impostor.state().members.is_empty(), "somebody else's coordinator was told who this is");
    let elsewhere = enrol(enrolment(&other, None)).await.unwrap();
    assert_ne!(elsewhere.identity, first.identity);
    let unknown = enrol(enrolment(&coordinator, Some(identity().site_id()))).await;
    assert!(matches!(unknown, Err(PartyError::NotFound(_))), "{unknown:?}");
    // A file that is of no use is told before the invitation is used up.
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let before = coordinator.state().members.len();
    let refused = enrol(Enrolment { extra_ca: Some(empty), ..enrolment(&coordinator, None) }).await;
    assert!(matches!(refused, Err(PartyError::Input { place: "extra_ca", .. })), "{refused:?}");
    assert_eq!(coordinator.state().members.len(), before);
}

#[tokio::test]
async fn a_diagnosis_names_what_failed_and_what_to_ask() {
    let coordinator = Coordinator::start().await;
    let proxy = ConnectProxy::start(Some("Basic x"), false).await;
    let url = Zeroizing::new(format!("http://{}", proxy.address));
    let steps = diagnose(&LinkConfig { proxy: ProxyChoice::Url(url), ..config(&coordinator) }, 0, true).await;
    assert_eq!(
        outcomes(&steps)[3..],
        [
            ("tcp", Outcome::Failed),
            ("tls", Outcome::Skipped),
            ("answer", Outcome::Skipped),
            ("clock", Outcome::Skipped),
            ("certificate", Outcome::Skipped),
            ("session", Outcome::Skipped)
        ]
    );
    assert!(steps[3].request.as_ref().unwrap().contains("user name and password"), "{steps:#?}");

    coordinator.state().clock_ms = 86_400_000;
    let steps = diagnose(&config(&coordinator), 0, true).await;
    let clock = steps.iter().find(|s| s.test == "clock").unwrap();
    assert_eq!(clock.outcome, Outcome::Failed);
    assert!(clock.request.as_ref().unwrap().contains("NTP"), "{clock:?}");

    let nowhere = LinkConfig { urls: vec!["https://no-such-host.invalid".into()], ..config(&coordinator) };
    let steps = diagnose(&nowhere, 0, true).await;
    let name = steps.iter().find(|s| s.test == "name").unwrap();
    assert_eq!(name.outcome, Outcome::Failed);
    assert!(name.request.as_ref().unwrap().contains("no-such-host.invalid"), "{name:?}");
}
