//! Enrolment, renewal and diagnosis.

use std::sync::Arc;

use hospes_protocol::id::Digest;
use hospes_protocol::sign::SecretKey;
use hospes_protocol::words;
use zeroize::Zeroizing;

use super::coordinator::{Authority, Coordinator, Options, now};
use super::proxies::ConnectProxy;
use super::site::{Site, config, identity};
use crate::link::{
    LinkConfig, LinkError, LinkEvent, Outcome, ProxyChoice, Reach, Step, diagnose, diagnose_invitation, enrol,
};

fn key() -> SecretKey {
    SecretKey::from_seed(&[11; 32])
}

fn reach() -> Reach {
    Reach::new(ProxyChoice::None, Arc::new(now))
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
    assert_eq!(names, ["address", "proxy", "name", "tcp", "tls", "clock", "certificate", "session"]);
    assert!(steps.iter().any(|s| s.finding.contains("TLS 1.3") && s.finding.contains("X25519MLKEM768")), "{steps:#?}");
    let before = diagnose_invitation(&coordinator.invitation(), &reach()).await;
    assert!(before.iter().all(|s| s.outcome == Outcome::Good), "{before:#?}");
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
