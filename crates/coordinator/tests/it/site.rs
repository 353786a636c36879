//! What a site does, written directly on reqwest, rustls and tonic.

use std::sync::Arc;
use std::time::Duration;

use hospes_protocol::enrol::{EnrolAnswer, EnrolRequest, FederationInfo, Invitation, RenewAnswer, RenewRequest};
use hospes_protocol::grpc::CoordinatorFrame;
use hospes_protocol::grpc::SiteFrame;
use hospes_protocol::grpc::convert::{site_frame, to_site};
use hospes_protocol::grpc::federation_client::FederationClient;
use hospes_protocol::id::{SiteId, Timestamp};
use hospes_protocol::message::{FromSite, Hello, ToSite};
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::study::MemberStatement;
use hospes_protocol::version::Version;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::world::World;

/// A client certificate with its key.
#[derive(Clone)]
pub struct Credentials {
    pub certificate_pem: String,
    pub key_der: Vec<u8>,
}

pub struct Site {
    pub id: SiteId,
    pub answer: EnrolAnswer,
    pub credentials: Credentials,
    port: u16,
    ca: CertificateDer<'static>,
}

/// TLS as a site speaks it. Its own clock plays no part in these tests: the coordinator's does.
pub fn tls(ca: CertificateDer<'static>, credentials: Option<&Credentials>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match credentials {
        None => builder.with_no_client_auth(),
        Some(credentials) => {
            let certificate = CertificateDer::from_pem_slice(credentials.certificate_pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(credentials.key_der.clone()));
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    }
}

/// Nothing here takes longer; what does shows the line that waits.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn https(ca: CertificateDer<'static>, credentials: Option<&Credentials>) -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls(ca, credentials));
    builder.no_proxy().timeout(PATIENCE).build().unwrap()
}

pub fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

pub fn tls_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// A statement as this seed's site makes it.
pub fn statement(world: &World, name: &str, seed: u8) -> Signed<MemberStatement> {
    let key = SecretKey::from_seed(&[seed; 32]);
    let statement = MemberStatement {
        federation: world.home.federation(),
        name: name.into(),
        organisation: format!("Hospital {seed}"),
        identity: key.public(),
    };
    Signed::new(statement, &key).unwrap()
}

/// Posts an enrolment; the answer, or status and problem.
pub async fn post_enrol(world: &World, request: &EnrolRequest) -> Result<EnrolAnswer, (u16, serde_json::Value)> {
    let body = serde_json::to_string(request).unwrap();
    let answer = world
        .client()
        .post(world.url("/enrol"))
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    if status == 201 {
        Ok(serde_json::from_str(&text).unwrap())
    } else {
        Err((status, serde_json::from_str(&text).unwrap()))
    }
}

impl Site {
    pub async fn enrol(world: &World, invitation: &Invitation, seed: u8) -> Result<Self, (u16, serde_json::Value)> {
        let info: FederationInfo =
            world.client().get(world.url("/federation")).send().await.unwrap().json().await.unwrap();
        assert_eq!(info.identity.site_id(), info.federation);
        assert_eq!(info.versions, hospes_protocol::version::SUPPORTED);
        let key = tls_key();
        let statement = statement(world, &invitation.site, seed);
        let request = EnrolRequest::new(&invitation.secret, csr(&key), &statement).unwrap();
        let answer = post_enrol(world, &request).await?;
        let credentials = Credentials { certificate_pem: answer.certificate_pem.clone(), key_der: key.serialize_der() };
        let id = SecretKey::from_seed(&[seed; 32]).public().site_id();
        assert_eq!(answer.site, id);
        Ok(Self { id, answer, credentials, port: world.coordinator.address().port(), ca: world.ca() })
    }

    pub fn https(&self) -> reqwest::Client {
        https(self.ca.clone(), Some(&self.credentials))
    }

    /// Renews the certificate; status and problem if refused.
    pub async fn renew(&mut self, world: &World) -> Result<(), (u16, String)> {
        let key = tls_key();
        let body = serde_json::to_string(&RenewRequest { csr_pem: csr(&key) }).unwrap();
        let post = self.https().post(world.url("/renew")).header("content-type", "application/json").body(body);
        let answer = post.send().await.map_err(|e| (0, format!("{e:?}")))?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(|e| (0, format!("{e:?}")))?;
        if status != 200 {
            return Err((status, text));
        }
        let renewed: RenewAnswer = serde_json::from_str(&text).unwrap();
        self.credentials = Credentials { certificate_pem: renewed.certificate_pem, key_der: key.serialize_der() };
        Ok(())
    }

    pub async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        channel(self.port, tls(self.ca.clone(), Some(&self.credentials))).await
    }

    pub async fn client(&self) -> FederationClient<Channel> {
        FederationClient::new(self.channel().await.unwrap())
    }

    pub fn hello(&self, at: Timestamp) -> Hello {
        Hello { versions: vec![Version::V1], site: self.id, software: "test 1".into(), at, epoch: 1 }
    }

    /// Opens a session and says hello.
    pub async fn session(&self, hello: Hello) -> Result<Session, tonic::Status> {
        let session = Session::open(self.client().await).await?;
        session.say(FromSite::Hello(hello)).await;
        Ok(session)
    }
}

pub async fn channel(port: u16, mut config: ClientConfig) -> Result<Channel, tonic::transport::Error> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let dial = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    tokio::time::timeout(PATIENCE, endpoint.connect_with_connector(dial)).await.expect("no connection")
}

/// A site's end of a session.
pub struct Session {
    pub out: mpsc::Sender<SiteFrame>,
    pub frames: tonic::Streaming<CoordinatorFrame>,
}

impl Session {
    pub async fn open(mut client: FederationClient<Channel>) -> Result<Self, tonic::Status> {
        let (out, frames) = mpsc::channel(16);
        let answer = tokio::time::timeout(PATIENCE, client.session(ReceiverStream::new(frames)));
        let answer = answer.await.expect("no answer to a session")?;
        Ok(Self { out, frames: answer.into_inner() })
    }

    pub async fn say(&self, message: FromSite) {
        let _ = self.out.send(site_frame(message).unwrap()).await;
    }

    /// The next message that is no heartbeat; `None` at the end.
    pub async fn hear(&mut self) -> Option<ToSite> {
        let next = async {
            loop {
                match self.frames.message().await.ok().flatten().map(|f| to_site(f).unwrap()) {
                    Some(ToSite::Heartbeat { .. }) => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), next).await.expect("nothing was heard")
    }

    /// Waits for the goodbye and the end of the stream; returns the reason.
    pub async fn goodbye(&mut self) -> String {
        loop {
            match self.hear().await {
                Some(ToSite::Goodbye { reason }) => {
                    assert!(self.hear().await.is_none(), "the stream goes on after the goodbye");
                    return reason;
                }
                Some(_) => {}
                None => panic!("the stream ended without a goodbye"),
            }
        }
    }
}
