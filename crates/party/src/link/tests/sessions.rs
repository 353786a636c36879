//! Sessions: greeting, heartbeats, silence, cuts, certificates, clocks, proxies.

use std::sync::Arc;
use std::time::Duration;

use hospes_protocol::id::{JobId, Timestamp};
use hospes_protocol::message::{FromSite, ToSite};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::version::Version;
use tokio::time::sleep;
use tonic::Status;
use zeroize::Zeroizing;

use super::coordinator::{Authority, Coordinator, Options, now};
use super::proxies::{ConnectProxy, Line};
use super::site::{Site, config, identity};
use crate::link::{ExtraCa, LinkCommand, LinkEvent, ProxyChoice};

fn job() -> JobId {
    JobId::new(Timestamp::from_millis(1), [3; 10])
}

#[tokio::test]
async fn a_session_greets_beats_carries_messages_and_says_goodbye() {
    let coordinator = Coordinator::start().await;
    let mut site = Site::start(config(&coordinator));
    let LinkEvent::Connected(welcome) = site.event().await else { panic!("not connected") };
    assert_eq!(welcome.federation, coordinator.federation());
    site.tell(LinkCommand::Send(FromSite::Release { job: job() })).await;
    coordinator.say(ToSite::JobStart { job: job() }).await;
    let LinkEvent::Message(ToSite::JobStart { job: started }) = site.event().await else { panic!("no message") };
    assert_eq!(started, job());
    sleep(Duration::from_millis(500)).await;
    site.tell(LinkCommand::Close).await;
    assert!(site.ended().await);
    let heard = coordinator.state().heard.clone();
    assert!(heard.iter().filter(|h| h.starts_with("Heartbeat")).count() >= 3, "{heard:?}");
    assert!(heard.iter().any(|h| h.starts_with("Release")), "{heard:?}");
    assert_eq!(heard.last().map(String::as_str), Some("Goodbye"));
}

#[tokio::test]
async fn what_is_said_while_the_line_is_down_arrives_after_it_is_up_again() {
    let coordinator = Coordinator::start().await;
    let mut site = Site::start(config(&coordinator));
    site.connected().await;
    coordinator.kill();
    site.disconnected().await;
    site.tell(LinkCommand::Send(FromSite::Release { job: job() })).await;
    let coordinator = coordinator.start_again().await;
    site.connected().await;
    sleep(Duration::from_millis(300)).await;
    assert!(coordinator.state().heard.iter().any(|h| h.starts_with("Release")));
}

#[tokio::test]
async fn a_cut_line_is_noticed_and_the_session_comes_back() {
    let coordinator = Coordinator::start().await;
    let line = Line::to(coordinator.address, &[]).await;
    let mut site = Site::start(crate::link::LinkConfig { urls: vec![line.url()], ..config(&coordinator) });
    site.connected().await;
    line.cut();
    site.disconnected().await;
    site.connected().await;
}

#[tokio::test]
async fn a_silent_coordinator_counts_as_gone() {
    let coordinator = Coordinator::start().await;
    coordinator.state().silent = true;
    let mut site = Site::start(config(&coordinator));
    site.connected().await;
    let reason = site.disconnected().await;
    assert!(reason.contains("did not answer within"), "{reason}");
}

#[tokio::test]
async fn a_goodbye_of_the_coordinator_is_told_and_followed_by_a_new_session() {
    let coordinator = Coordinator::start().await;
    let mut site = Site::start(config(&coordinator));
    site.connected().await;
    coordinator.say(ToSite::Goodbye { reason: "the coordinator is restarting".into() }).await;
    let reason = site.disconnected().await;
    assert!(reason.contains("restarting"), "{reason}");
    site.connected().await;
}

#[tokio::test]
async fn a_clock_off_by_a_day_is_said_in_words_and_no_work_begins() {
    let coordinator = Coordinator::start().await;
    coordinator.state().clock_ms = -86_400_000;
    let mut site = Site::start(config(&coordinator));
    let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("connected with a wrong clock") };
    assert!(reason.contains("24 hours ahead of the coordinator's"), "{reason}");
}

#[tokio::test]
async fn a_site_whose_own_clock_is_a_day_behind_is_told_so() {
    let coordinator = Coordinator::start().await;
    let clock = Arc::new(|| now().plus_millis(-86_400_000));
    let mut site = Site::start(crate::link::LinkConfig { clock, ..config(&coordinator) });
    let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("connected with a wrong clock") };
    assert!(reason.contains("24 hours behind the coordinator's"), "{reason}");
}

#[tokio::test]
async fn a_clock_that_goes_wrong_during_a_session_ends_it() {
    let coordinator = Coordinator::start().await;
    let mut site = Site::start(config(&coordinator));
    site.connected().await;
    coordinator.state().clock_ms = 3_600_000;
    let reason = site.disconnected().await;
    assert!(reason.contains("60 minutes behind"), "{reason}");
}

#[tokio::test]
async fn another_identity_key_is_refused() {
    let coordinator = Coordinator::start().await;
    coordinator.state().pretend = Some(SecretKey::from_seed(&[5; 32]).public());
    let mut site = Site::start(config(&coordinator));
    let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("connected to a stranger") };
    assert!(reason.contains("not the coordinator that the site enrolled with"), "{reason}");
}

#[tokio::test]
async fn a_version_that_this_side_does_not_speak_is_refused_in_words() {
    let coordinator = Coordinator::start().await;
    coordinator.state().version = Some(Version(99));
    let mut site = Site::start(config(&coordinator));
    let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("connected") };
    assert!(reason.contains("update the older of the two"), "{reason}");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_named_with_its_issuer() {
    let inspector = Authority::new("Hospital TLS inspection");
    let coordinator = Coordinator::start_with(Options { server_ca: Some(inspector), ..Options::default() }).await;
    let mut site = Site::start(config(&coordinator));
    let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("connected through an inspector") };
    assert!(reason.contains("Hospital TLS inspection"), "{reason}");
    assert!(reason.contains("not by the federation's CA"), "{reason}");
}

#[tokio::test]
async fn a_hospitals_own_ca_is_accepted_where_the_site_says_so() {
    let hospital = Authority::new("Hospital CA");
    let pem = hospital.pem();
    let coordinator = Coordinator::start_with(Options { server_ca: Some(hospital), ..Options::default() }).await;
    let extra_ca = ExtraCa::Pem(pem);
    let mut site = Site::start(crate::link::LinkConfig { extra_ca, ..config(&coordinator) });
    assert!(matches!(site.event().await, LinkEvent::Connected(_)));
}

#[tokio::test]
async fn an_expired_certificate_of_the_coordinator_is_refused_with_the_dates() {
    let coordinator = Coordinator::start_with(Options { server_days: (-20, -10), ..Options::default() }).await;
    let mut site = Site::start(config(&coordinator));
    let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("connected") };
    assert!(reason.contains("it was good until"), "{reason}");
}

#[tokio::test]
async fn an_expired_certificate_of_the_site_is_told_before_dialling() {
    let coordinator = Coordinator::start().await;
    let (chain_pem, key_pem) = coordinator.authority.client(coordinator.federation(), identity().site_id(), -20, -10);
    let expired = crate::link::LinkConfig { chain_pem, key_pem: Zeroizing::new(key_pem), ..config(&coordinator) };
    let mut site = Site::start(expired);
    let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("connected") };
    assert!(reason.contains("enrol again"), "{reason}");
    assert!(coordinator.state().heard.is_empty());
}

#[tokio::test]
async fn a_foreign_certificate_of_the_site_is_refused_and_the_reason_told() {
    let coordinator = Coordinator::start().await;
    let foreign = Authority::new("Another federation");
    let (chain_pem, key_pem) = foreign.client(coordinator.federation(), identity().site_id(), -2, 30);
    let foreign = crate::link::LinkConfig { chain_pem, key_pem: Zeroizing::new(key_pem), ..config(&coordinator) };
    let mut site = Site::start(foreign);
    let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("connected") };
    assert!(reason.contains("does not accept this site's certificate"), "{reason}");
}

#[tokio::test]
async fn a_certificate_revoked_at_tls_stops_the_link_for_good() {
    let coordinator = Coordinator::start_with(Options { revoked: true, ..Options::default() }).await;
    let mut site = Site::start(config(&coordinator));
    let LinkEvent::Stopped { reason } = site.event().await else { panic!("not stopped") };
    assert!(reason.contains("revoked"), "{reason}");
}

#[tokio::test]
async fn a_revocation_that_nobody_proved_to_have_said_is_not_final() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let coordinator = Coordinator::start().await;
    let forger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = vec![format!("https://{}", forger.local_addr().unwrap())];
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = forger.accept().await.unwrap();
            let mut hello = [0; 512];
            stream.read_exact(&mut hello).await.unwrap();
            // A TLS alert in plaintext (RFC 8446, section 6): fatal, certificate_revoked.
            stream.write_all(&[0x15, 3, 3, 0, 2, 2, 44]).await.unwrap();
        }
    });
    let mut site = Site::start(crate::link::LinkConfig { urls, ..config(&coordinator) });
    for _ in 0..2 {
        let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("it gave up") };
        assert!(reason.contains("revoked"), "{reason}");
    }
}

#[tokio::test]
async fn a_revoked_site_stops_and_a_suspended_one_tries_again() {
    let coordinator = Coordinator::start().await;
    coordinator.state().refuse = Some(Status::permission_denied("the operator suspended this site: audit"));
    let mut site = Site::start(config(&coordinator));
    let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("not disconnected") };
    assert!(reason.contains("suspended this site: audit"), "{reason}");
    coordinator.state().refuse = None;
    site.connected().await;
    coordinator.state().refuse = Some(Status::permission_denied("the operator revoked this site: left"));
    coordinator.say(ToSite::Goodbye { reason: "revoked".into() }).await;
    let reason = loop {
        if let LinkEvent::Stopped { reason } = site.event().await {
            break reason;
        }
    };
    assert!(reason.contains("revoked this site: left"), "{reason}");
}

#[tokio::test]
async fn an_alternate_takes_over_and_the_preferred_one_is_taken_up_again() {
    let preferred = Coordinator::start().await;
    let line = Line::to(preferred.address, &[]).await;
    preferred.kill();
    sleep(Duration::from_millis(50)).await;
    let alternate = Coordinator::listening_for(&preferred).await;
    let urls = vec![line.url(), alternate.url()];
    let mut site = Site::start(crate::link::LinkConfig { urls, ..config(&preferred) });
    site.disconnected().await;
    site.connected().await;
    let _preferred = preferred.start_again().await;
    let reason = site.disconnected().await;
    assert!(reason.contains("preferred"), "{reason}");
    site.connected().await;
    assert_eq!(alternate.state().heard.last().map(String::as_str), Some("Goodbye"));
}

#[tokio::test]
async fn a_proxy_with_credentials_is_passed() {
    let coordinator = Coordinator::start().await;
    let proxy = ConnectProxy::start(Some("Basic bnVyc2U6d2FyZCA3"), false).await;
    let url = Zeroizing::new(format!("http://nurse:ward%207@{}", proxy.address));
    let through = crate::link::LinkConfig { proxy: ProxyChoice::Url(url), ..config(&coordinator) };
    let mut site = Site::start(through);
    assert!(matches!(site.event().await, LinkEvent::Connected(_)));
    let heads = proxy.heads.lock().unwrap().clone();
    assert!(heads[0].starts_with(&format!("CONNECT {} HTTP/1.1\r\n", coordinator.address)), "{heads:?}");
}

#[tokio::test]
async fn a_proxy_that_wants_credentials_or_refuses_is_named() {
    let coordinator = Coordinator::start().await;
    for (wants, refuses, words) in
        [(Some("Basic x"), false, "asks for a user name and password"), (None, true, "answers 403")]
    {
        let proxy = ConnectProxy::start(wants, refuses).await;
        let url = Zeroizing::new(format!("http://{}", proxy.address));
        let through = crate::link::LinkConfig { proxy: ProxyChoice::Url(url), ..config(&coordinator) };
        let mut site = Site::start(through);
        let LinkEvent::Disconnected { reason, .. } = site.event().await else { panic!("connected") };
        assert!(reason.contains(words) && reason.contains(&proxy.address.to_string()), "{reason}");
    }
}

#[tokio::test]
async fn an_engine_that_does_not_listen_loses_nothing_and_the_session_holds() {
    let coordinator = Coordinator::start().await;
    let mut site = Site::start(config(&coordinator));
    site.connected().await;
    for _ in 0..500 {
        coordinator.say(ToSite::JobStart { job: job() }).await;
    }
    sleep(Duration::from_secs(2)).await;
    for taken in 0..500 {
        let event = site.event().await;
        assert!(matches!(event, LinkEvent::Message(ToSite::JobStart { .. })), "after {taken}: {event:?}");
    }
}
