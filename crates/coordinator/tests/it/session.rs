//! Sessions over real TLS and tonic: who is let in, who is not, and why a session ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use hospes_coordinator::ca::Ca;
use hospes_protocol::grpc::federation_client::FederationClient;
use hospes_protocol::grpc::{self as wire, SiteFrame, federation_server};
use hospes_protocol::id::{JobId, RoundKey, Timestamp};
use hospes_protocol::limits::{CLOCK_SKEW_MS, FRAME_BYTES};
use hospes_protocol::message::{FromSite, ToSite};
use hospes_protocol::version::Version;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};

use crate::site::{Credentials, Session, channel, csr, tls, tls_key};
use crate::world::World;

fn now(world: &World) -> Timestamp {
    (world.time.clock())()
}

fn progress(done: u32) -> FromSite {
    let job = JobId::new(Timestamp::from_millis(1), [3; 10]);
    let round = RoundKey { job, task: "train".into(), epoch: 1, round: 1, attempt: 1 };
    FromSite::Progress { round, done, total: 9 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_opens_carries_messages_and_ends_in_order() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let mut session = site.session(site.hello(now(&world))).await.unwrap();
    assert!(matches!(session.hear().await, Some(ToSite::Welcome(w)) if w.federation == world.home.federation()));
    session.say(progress(4)).await;
    world.heard.wait(&format!("progress 4 of {}", site.id)).await;
    let (_, view) = world.api("GET", &format!("/api/v1/sites/{}", site.id), None).await;
    assert_eq!(view["state"], "active");
    assert_eq!(view["software"], "test 1");
    assert!(view["online_since"].is_string() && view["certificates"].as_array().unwrap().len() == 1, "{view}");
    assert_eq!(world.coordinator.sessions(), 1);
    session.say(FromSite::Goodbye).await;
    world.heard.wait(&format!("left {}", site.id)).await;
    assert_eq!(world.coordinator.sessions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_keep_a_session_and_silence_ends_it() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let mut session = site.session(site.hello(now(&world))).await.unwrap();
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        session.say(FromSite::Heartbeat { at: now(&world) }).await;
    }
    assert_eq!(world.coordinator.sessions(), 1, "a living session was ended");
    let reason = session.goodbye().await;
    assert!(reason.contains("nothing was heard"), "{reason}");
    world.heard.wait(&format!("left {}", site.id)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_certificate_is_refused() {
    let world = World::new().await;
    let plain = channel(world.coordinator.address().port(), tls(world.ca(), None)).await.unwrap();
    let refused = Session::open(FederationClient::new(plain.clone())).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = FederationClient::new(plain).upload_status(wire::UploadHeader::default()).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

/// Calls with a body that begins so and never ends; the status of the answer.
async fn unending(mut channel: Channel, call: &str, begins: usize) -> Code {
    let start = Ok::<_, std::io::Error>(Bytes::from(vec![0; begins]));
    let body = axum::body::Body::from_stream(futures::stream::iter([start]).chain(futures::stream::pending()));
    let request = http::Request::post(format!("http://localhost/{}/{call}", federation_server::SERVICE_NAME))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(body))
        .unwrap();
    let answer = channel.ready().await.unwrap().call(request);
    let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("it waits for the body").unwrap();
    let code = answer.headers()["grpc-status"].to_str().unwrap().parse::<i32>().unwrap();
    Code::from(code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_read_only_of_those_with_a_certificate_and_only_a_small_one_in_time() {
    // Strangers are answered before any limit of time plays a part.
    let world = World::with(|s| s.limits.greeting_ms = 3_600_000).await;
    let plain = channel(world.coordinator.address().port(), tls(world.ca(), None)).await.unwrap();
    for call in ["UploadStatus", "Download", "Upload", "Session"] {
        assert_eq!(unending(plain.clone(), call, 100).await, Code::Unauthenticated, "{call}");
    }
    let site = world.enrolled("Cleveland", 1).await;
    assert_eq!(unending(site.channel().await.unwrap(), "UploadStatus", 9 << 10).await, Code::InvalidArgument);
    let world = World::with(|s| s.limits.greeting_ms = 1_000).await;
    let site = world.enrolled("Cleveland", 1).await;
    assert_eq!(unending(site.channel().await.unwrap(), "Download", 10).await, Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_a_certificate_take_no_place_of_a_site_and_must_ask_for_something() {
    let world = World::with(|s| {
        s.limits.anonymous_connections = 4;
        s.limits.connections = 3;
        s.limits.greeting_ms = 1_000;
    })
    .await;
    let site = world.enrolled("Cleveland", 1).await;
    let port = world.coordinator.address().port();
    let connect = async || {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(tls(world.ca(), None))).connect(name, stream).await
    };
    let mut strangers = Vec::new();
    for _ in 0..12 {
        if let Ok(stream) = connect().await {
            strangers.push(stream);
        }
    }
    // Whoever asks nothing is shown out.
    for mut stranger in strangers {
        let mut nothing = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stranger.read_to_end(&mut nothing)).await;
        assert!(closed.is_ok() && nothing.is_empty(), "a connection that asks nothing stays open");
    }
    // Four that ask, and go on asking: the fifth finds no place, a site does.
    let ask = async || {
        let mut stream = connect().await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"HTTP/1.1 200");
        Ok::<_, std::io::Error>(stream)
    };
    let mut busy = Vec::new();
    for _ in 0..500 {
        match ask().await {
            Ok(stream) => busy.push(stream),
            // The place of one that was shown out may not be free in the very same moment.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        if busy.len() == 4 {
            break;
        }
    }
    assert!(busy.len() == 4 && ask().await.is_err(), "{} were let in, and one more", busy.len());
    let mut session = site.session(site.hello(now(&world))).await.unwrap();
    assert!(matches!(session.hear().await, Some(ToSite::Welcome(_))), "strangers keep a site out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_certificate_is_refused_in_the_handshake() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    // Another authority that names the same site and federation.
    let (foreign, _) = Ca::create("Test", now(&world)).unwrap();
    let key = tls_key();
    let issued =
        foreign.issue_client(&csr(&key), world.home.federation(), site.id, now(&world), 3_600_000).unwrap().unwrap();
    let credentials = Credentials { certificate_pem: issued.pem, key_der: key.serialize_der() };
    assert_refused(&world, &credentials).await;
    // One of our authority that is not in the store: TLS lets it in, the store does not.
    let issued = world
        .home
        .ca
        .issue_client(&csr(&key), world.home.federation(), site.id, now(&world), 3_600_000)
        .unwrap()
        .unwrap();
    let credentials = Credentials { certificate_pem: issued.pem, key_der: key.serialize_der() };
    let channel = channel(world.coordinator.address().port(), tls(world.ca(), Some(&credentials))).await.unwrap();
    let refused = Session::open(FederationClient::new(channel)).await.err().unwrap();
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains("did not issue"), "{refused}");
}

/// In TLS 1.3 the client learns of a refused certificate only when it reads.
async fn assert_refused(world: &World, credentials: &Credentials) {
    let port = world.coordinator.address().port();
    if let Ok(channel) = channel(port, tls(world.ca(), Some(credentials))).await {
        let refused = Session::open(FederationClient::new(channel)).await.err().expect("the certificate was taken");
        // Whatever tonic calls a broken connection; the service itself would have said `PermissionDenied`.
        assert!(!matches!(refused.code(), Code::PermissionDenied | Code::Unauthenticated), "{refused}");
    }
    assert_eq!(world.coordinator.sessions(), 0);
    assert_eq!(world.heard.count("joined"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_refused() {
    let world = World::with(|s| s.certificate_seconds = 60).await;
    let site = world.enrolled("Cleveland", 1).await;
    world.time.by(61_000);
    assert_refused(&world, &site.credentials).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_on_an_open_connection_is_refused_at_the_next_call() {
    let world = World::with(|s| s.certificate_seconds = 60).await;
    let site = world.enrolled("Cleveland", 1).await;
    let client = site.client().await;
    let mut session = Session::open(client.clone()).await.unwrap();
    session.say(FromSite::Hello(site.hello(now(&world)))).await;
    assert!(session.hear().await.is_some());
    world.time.by(61_000);
    let refused = Session::open(client).await.err().expect("an expired certificate was taken");
    assert!(refused.message().contains("ended at"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_ends_the_session_and_keeps_the_site_out() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let mut session = site.session(site.hello(now(&world))).await.unwrap();
    assert!(session.hear().await.is_some());
    let path = format!("/api/v1/sites/{}/revoke", site.id);
    let (status, _) = world.api("POST", &path, Some(json!({ "reason": "contract ended" }))).await;
    assert_eq!(status, 204);
    let reason = session.goodbye().await;
    assert!(reason.contains("contract ended"), "{reason}");
    world.heard.wait(&format!("locked {}", site.id)).await;
    let refused = site.session(site.hello(now(&world))).await.err().expect("a revoked site was let in");
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains("contract ended"), "{refused}");
    assert!(world.store.roster().await.unwrap().unwrap().document.members.is_empty());
    assert_eq!(world.api("POST", &path, Some(json!({ "reason": "again" }))).await.0, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_revoked_before_it_greets_gets_no_session() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let mut session = Session::open(site.client().await).await.unwrap();
    let path = format!("/api/v1/sites/{}/revoke", site.id);
    assert_eq!(world.api("POST", &path, Some(json!({ "reason": "contract ended" }))).await.0, 204);
    session.say(FromSite::Hello(site.hello(now(&world)))).await;
    let reason = session.goodbye().await;
    assert!(reason.contains("contract ended"), "{reason}");
    assert_eq!((world.coordinator.sessions(), world.heard.count("joined")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_brings_no_new_burst_and_sessions_are_counted() {
    let world = World::with(|s| s.limits.messages_per_second = 1).await;
    let site = world.enrolled("Cleveland", 1).await;
    let client = site.client().await;
    let (mut refused, mut sessions) = (None, 0);
    while refused.is_none() && sessions < 60 {
        match Session::open(client.clone()).await {
            Err(status) => refused = Some(status),
            Ok(mut session) => {
                sessions += 1;
                session.say(FromSite::Hello(site.hello(now(&world)))).await;
                for done in 0..12 {
                    session.say(progress(done)).await;
                }
                if sessions <= 8 {
                    assert!(session.goodbye().await.contains("messages a second"));
                }
                if sessions == 8 {
                    // Five at once and one a second; if each session had its own, five of each would have passed.
                    let passed = world.heard.count("progress");
                    assert!(passed < 40, "{passed} messages passed");
                }
            }
        }
    }
    let refused = refused.expect("sessions without end");
    assert!(refused.code() == Code::Unavailable && refused.message().contains("too often"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_names_the_site_and_a_greeting_cannot() {
    let world = World::new().await;
    let (one, two) = (world.enrolled("Cleveland", 1).await, world.enrolled("Hungary", 2).await);
    let mut session = one.session(two.hello(now(&world))).await.unwrap();
    let reason = session.goodbye().await;
    assert!(reason.contains(&one.id.to_string()) && reason.contains(&two.id.to_string()), "{reason}");
    assert_eq!(world.heard.count("joined"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_off_by_a_day_is_told_so() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    for skew in [-86_400_000, 86_400_000, CLOCK_SKEW_MS + 10_000] {
        let mut session = site.session(site.hello(now(&world).plus_millis(skew))).await.unwrap();
        let reason = session.goodbye().await;
        assert!(reason.contains("the clocks differ too much"), "{reason}");
    }
    assert_eq!(world.heard.count("joined"), 0);
    let mut session = site.session(site.hello(now(&world).plus_millis(CLOCK_SKEW_MS - 10_000))).await.unwrap();
    assert!(matches!(session.hear().await, Some(ToSite::Welcome(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_common_version_a_missing_greeting_and_a_second_one_are_refused() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let mut hello = site.hello(now(&world));
    hello.versions = vec![Version(99)];
    let reason = site.session(hello).await.unwrap().goodbye().await;
    assert!(reason.contains("update the older"), "{reason}");
    let mut session = Session::open(site.client().await).await.unwrap();
    session.say(progress(1)).await;
    assert!(session.goodbye().await.contains("must be the greeting"));
    let mut silent = Session::open(site.client().await).await.unwrap();
    assert!(silent.goodbye().await.contains("no first message"));
    let mut twice = site.session(site.hello(now(&world))).await.unwrap();
    twice.say(FromSite::Hello(site.hello(now(&world)))).await;
    assert!(twice.goodbye().await.contains("second greeting"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_frame_and_one_that_is_no_message_end_the_session() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let mut session = site.session(site.hello(now(&world))).await.unwrap();
    assert!(session.hear().await.is_some());
    let large = SiteFrame { body: Some(wire::site_frame::Body::Vouch(vec![0; FRAME_BYTES + 1])) };
    session.out.send(large).await.unwrap();
    let reason = session.goodbye().await;
    assert!(reason.contains("larger than allowed"), "{reason}");
    let mut session = site.session(site.hello(now(&world))).await.unwrap();
    session.out.send(SiteFrame { body: None }).await.unwrap();
    assert!(session.goodbye().await.contains("missing"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_messages_ends_the_session() {
    let world = World::with(|s| s.limits.messages_per_second = 10).await;
    let site = world.enrolled("Cleveland", 1).await;
    let mut session = site.session(site.hello(now(&world))).await.unwrap();
    assert!(session.hear().await.is_some());
    let out = session.out.clone();
    tokio::spawn(async move {
        for done in 0..1_000 {
            let frame = hospes_protocol::grpc::convert::site_frame(progress(done)).unwrap();
            if out.send(frame).await.is_err() {
                return;
            }
        }
    });
    assert!(session.goodbye().await.contains("messages a second"));
    world.heard.wait(&format!("left {}", site.id)).await;
    assert!(world.heard.count("progress") <= 60, "{} messages passed", world.heard.count("progress"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_session_of_a_site_ends_the_first() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let mut first = site.session(site.hello(now(&world))).await.unwrap();
    assert!(first.hear().await.is_some());
    let mut second = site.session(site.hello(now(&world))).await.unwrap();
    assert!(first.goodbye().await.contains("newer session"));
    assert!(matches!(second.hear().await, Some(ToSite::Welcome(_))));
    assert_eq!(world.coordinator.sessions(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_coordinator_says_goodbye_and_closes_its_port() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let mut session = site.session(site.hello(now(&world))).await.unwrap();
    assert!(session.hear().await.is_some());
    let port = world.coordinator.address().port();
    let ending = tokio::spawn(async move { session.goodbye().await });
    tokio::time::timeout(Duration::from_secs(8), world.coordinator.stop()).await.expect("it does not stop");
    assert!(ending.await.unwrap().contains("restarting"));
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err(), "the port is still open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_exchange_is_hybrid_post_quantum_and_old_tls_is_refused() {
    let world = World::new().await;
    let connect = async |config: rustls::ClientConfig| {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", world.coordinator.address().port())).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let stream = connect(tls(world.ca(), None)).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(world.ca()).unwrap();
    let old = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert!(connect(old).await.is_err(), "TLS 1.2 was spoken");
}
