//! A small coordinator: its own CA, one TLS port for gRPC and HTTP/1.1, uploads staged in memory, and switches that make it
//! misbehave.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::Stream;
use hospes_protocol::canon::Canonical;
use hospes_protocol::enrol::{EnrolAnswer, EnrolRequest, FederationInfo, Invitation, RenewAnswer, RenewRequest};
use hospes_protocol::grpc::convert::{Announced, coordinator_frame, from_site};
use hospes_protocol::grpc::federation_server::{Federation, FederationServer};
use hospes_protocol::grpc::{self as wire, download_part, upload_part};
use hospes_protocol::id::{Digest, FederationId, SiteId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::message::{FromSite, ToSite, UploadReceipt, Welcome};
use hospes_protocol::sign::{PublicKey, SecretKey, Signed};
use hospes_protocol::study::{Member, MemberStatement, Roster};
use hospes_protocol::version::{SUPPORTED, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

/// How a coordinator shall misbehave, and what it has seen.
#[derive(Default)]
pub(super) struct State {
    /// Added to the clock in welcome and heartbeat.
    pub(super) clock_ms: i64,
    /// Identity key said in the welcome, where it is not the coordinator's own.
    pub(super) pretend: Option<PublicKey>,
    /// Version said in the welcome and before enrolment, where it is not the first.
    pub(super) version: Option<Version>,
    /// Answer to every session and transfer.
    pub(super) refuse: Option<Status>,
    /// No heartbeats.
    pub(super) silent: bool,
    /// Signs receipts with another key.
    pub(super) forge_receipts: bool,
    /// Sends this instead of a model.
    pub(super) wrong_model: bool,
    /// Cannot send models now.
    pub(super) refuse_models: bool,
    /// Says that the round is over.
    pub(super) over: Option<String>,
    /// Takes so many bytes of an upload and then reads no more.
    pub(super) stall_after: Option<u64>,
    /// Bytes of uploads that are durable.
    pub(super) staged: HashMap<Digest, Vec<u8>>,
    /// Models that can be had.
    pub(super) models: HashMap<Digest, Vec<u8>>,
    /// Cards that can be had, by job.
    pub(super) cards: HashMap<String, Vec<u8>>,
    /// Answer to whoever asks for a card, once.
    pub(super) refuse_card: Option<Status>,
    /// Offsets at which uploads went on.
    pub(super) resumed_at: Vec<u64>,
    /// Calls for the standing of an upload.
    pub(super) asked: u32,
    /// What sites said.
    pub(super) heard: Vec<String>,
    /// Open sessions, to say something or to end them.
    pub(super) sessions: Vec<mpsc::Sender<Result<wire::CoordinatorFrame, Status>>>,
    /// Enrolled members.
    pub(super) members: Vec<Member>,
    /// The site that receipts are for, where it is not the one of [`super::site`].
    pub(super) site: Option<SiteId>,
    /// Is told what sites say, as they say it.
    pub(super) ear: Option<mpsc::UnboundedSender<FromSite>>,
}

/// A running coordinator.
pub(super) struct Coordinator {
    pub(super) address: SocketAddr,
    pub(super) key: Arc<SecretKey>,
    pub(super) authority: Arc<Authority>,
    pub(super) state: Arc<Mutex<State>>,
    listener: tokio::task::JoinHandle<()>,
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The real time.
pub(super) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

fn at(days: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::days(days)
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // A test's clock may be set to any day.
        (params.not_before, params.not_after) = (at(-4_000), at(4_000));
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// A certificate for a server on this machine, from a day to a day.
    pub(crate) fn server(&self, from: i64, until: i64) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        (params.not_before, params.not_after) = (at(from), at(until));
        let certificate = params.signed_by(&key, self.issuer()).unwrap();
        (vec![certificate.der().clone(), self.der()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// A client certificate from a day to a day, for a key that is made here.
    pub(super) fn client(&self, federation: FederationId, site: SiteId, from: i64, until: i64) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = client_params(federation, site, at(from), at(until));
        (params.signed_by(&key, self.issuer()).unwrap().pem(), key.serialize_pem())
    }

    fn sign(&self, csr: &str, federation: FederationId, site: SiteId) -> String {
        let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let params = client_params(federation, site, at(-2), at(30));
        params.signed_by(&request.public_key, self.issuer()).unwrap().pem()
    }

    /// A list that revokes every client certificate of [`Authority::client`].
    fn revocations(&self) -> CertificateRevocationListDer<'static> {
        let list = rcgen::CertificateRevocationListParams {
            this_update: at(-1),
            next_update: at(30),
            crl_number: 1u64.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: 77u64.into(),
                revocation_time: at(-1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(self.issuer()).unwrap().der().clone()
    }
}

fn client_params(
    federation: FederationId,
    site: SiteId,
    from: OffsetDateTime,
    until: OffsetDateTime,
) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.serial_number = Some(77u64.into());
    params.distinguished_name.push(DnType::CommonName, site.to_string());
    params.subject_alt_names = vec![SanType::URI(format!("hospes://{federation}/{site}").try_into().unwrap())];
    (params.not_before, params.not_after) = (from, until);
    params
}

/// What a coordinator is started with.
pub(super) struct Options {
    /// Who issues its own certificate, if not its own CA.
    pub(super) server_ca: Option<Authority>,
    /// From which day to which its certificate is good.
    pub(super) server_days: (i64, i64),
    /// Whether all client certificates are revoked at TLS.
    pub(super) revoked: bool,
    /// Seed of its identity key, which makes the federation.
    pub(super) seed: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { server_ca: None, server_days: (-2, 30), revoked: false, seed: 99 }
    }
}

impl Coordinator {
    pub(super) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub(super) async fn start_with(options: Options) -> Self {
        let authority = Arc::new(Authority::new("Test federation"));
        let key = Arc::new(SecretKey::from_seed(&[options.seed; 32]));
        Self::listen(options, authority, key, Arc::default(), "127.0.0.1:0".parse().unwrap()).await
    }

    async fn listen(
        options: Options,
        authority: Arc<Authority>,
        key: Arc<SecretKey>,
        state: Arc<Mutex<State>>,
        address: SocketAddr,
    ) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(tls(&authority, &options)));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Inside { key: Arc::clone(&key), authority: Arc::clone(&authority), state: Arc::clone(&state) };
        let listener = tokio::spawn(accept(listener, acceptor, inside));
        Self { address, key, authority, state, listener }
    }

    /// Stops at once, without a goodbye; connections that are open break.
    pub(super) fn kill(&self) {
        self.listener.abort();
        self.state().sessions.clear();
    }

    /// Starts again on the same port with the same state.
    pub(super) async fn start_again(&self) -> Self {
        let (authority, key, state) = (Arc::clone(&self.authority), Arc::clone(&self.key), Arc::clone(&self.state));
        Self::listen(Options::default(), authority, key, state, self.address).await
    }

    /// Another coordinator of the same federation, on a port and with a state of its own.
    pub(super) async fn listening_for(other: &Self) -> Self {
        let (authority, key) = (Arc::clone(&other.authority), Arc::clone(&other.key));
        Self::listen(Options::default(), authority, key, Arc::default(), "127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn federation(&self) -> FederationId {
        self.key.public().site_id()
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(super) fn invitation(&self) -> Invitation {
        Invitation {
            url: self.url(),
            ca: Digest::of(&self.authority.der()),
            site: "Cleveland".into(),
            secret: vec![7; 32],
            expires: now().plus_millis(600_000),
        }
    }

    /// Says something in every open session.
    pub(super) async fn say(&self, message: ToSite) {
        let sessions = self.state().sessions.clone();
        for session in sessions {
            let _ = session.send(Ok(coordinator_frame(message.clone()).unwrap())).await;
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn tls(authority: &Authority, options: &Options) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).unwrap();
    let mut verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).allow_unauthenticated();
    if options.revoked {
        verifier = verifier.with_crls([authority.revocations()]);
    }
    let (from, until) = options.server_days;
    let (chain, key) = options.server_ca.as_ref().unwrap_or(authority).server(from, until);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, inside: Inside) {
    // Connections end with the listener.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, inside) = (acceptor.clone(), inside.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let known = stream.get_ref().1.peer_certificates().is_some();
            let service = hyper::service::service_fn(move |request| answer(inside.clone(), known, request));
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    inside: Inside,
    known: bool,
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    if request.uri().path().starts_with("/hospes.") {
        if !known {
            return Ok(Status::unauthenticated("a client certificate is needed").into_http());
        }
        let mut service = FederationServer::new(inside);
        return service.call(request).await;
    }
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let (status, body) = inside.rest(&path, known, &body);
    let body = tonic::body::Body::new(Full::new(Bytes::from(body)).map_err(|never| match never {}));
    Ok(http::Response::builder().status(status).body(body).unwrap())
}

#[derive(Clone)]
struct Inside {
    key: Arc<SecretKey>,
    authority: Arc<Authority>,
    state: Arc<Mutex<State>>,
}

impl Inside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn refused(&self) -> Result<(), Status> {
        self.state().refuse.clone().map_or(Ok(()), Err)
    }

    fn rest(&self, path: &str, known: bool, body: &[u8]) -> (u16, Vec<u8>) {
        let federation = self.key.public().site_id();
        match path {
            "/federation" => {
                let (at, version) = {
                    let state = self.state();
                    (now().plus_millis(state.clock_ms), state.version)
                };
                let versions = version.map_or_else(|| SUPPORTED.to_vec(), |only| vec![only]);
                let identity = self.key.public();
                let info = FederationInfo { federation, name: "Hearts".into(), identity, at, versions };
                (200, serde_json::to_vec(&info).unwrap())
            }
            "/enrol" => self.enrol(&serde_json::from_slice(body).unwrap()),
            "/renew" if known => {
                let request: RenewRequest = serde_json::from_slice(body).unwrap();
                let certificate_pem =
                    self.authority.sign(&request.csr_pem, federation, super::site::identity().site_id());
                let answer = RenewAnswer { certificate_pem, expires: now().plus_millis(86_400_000) };
                (200, serde_json::to_vec(&answer).unwrap())
            }
            _ => (404, br#"{"detail":"there is no such page"}"#.to_vec()),
        }
    }

    fn enrol(&self, request: &EnrolRequest) -> (u16, Vec<u8>) {
        if request.secret_bytes() != Some(vec![7; 32]) {
            return (403, br#"{"detail":"the invitation was used already"}"#.to_vec());
        }
        let statement: Signed<MemberStatement> = request.signed_statement().unwrap();
        let stated = (*statement.document).clone();
        assert!(statement.signed_by(&stated.identity), "the statement is not signed");
        let (site, federation) = (stated.identity.site_id(), self.key.public().site_id());
        let member = Member {
            site,
            name: stated.name,
            organisation: stated.organisation,
            identity: stated.identity,
            statement: statement.signatures[0].signature,
        };
        let mut state = self.state();
        // Who enrols again takes their own place.
        state.members.retain(|known| known.site != site);
        state.members.push(member);
        let roster = Roster { federation, version: 1, at: now(), members: state.members.clone() };
        let roster = Signed::new(roster, &self.key).unwrap();
        let answer = EnrolAnswer {
            site,
            federation,
            name: "Hearts".into(),
            identity: self.key.public(),
            certificate_pem: self.authority.sign(&request.csr_pem, federation, site),
            ca_pem: self.authority.pem(),
            roster: data_encoding::BASE64.encode(&roster.to_bytes().unwrap()),
        };
        (201, serde_json::to_vec(&answer).unwrap())
    }

    async fn converse(
        self,
        mut inbound: Streaming<wire::SiteFrame>,
        out: mpsc::Sender<Result<wire::CoordinatorFrame, Status>>,
    ) {
        let Ok(Some(frame)) = inbound.message().await else { return };
        let FromSite::Hello(_) = from_site(frame).unwrap() else { panic!("no hello") };
        let (welcome, silent) = {
            let state = self.state();
            let welcome = Welcome {
                version: state.version.unwrap_or(Version::V1),
                federation: self.key.public().site_id(),
                identity: state.pretend.unwrap_or_else(|| self.key.public()),
                at: now().plus_millis(state.clock_ms),
                epoch: 1,
            };
            (welcome, state.silent)
        };
        let _ = out.send(Ok(coordinator_frame(ToSite::Welcome(welcome)).unwrap())).await;
        let mut beat = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                frame = inbound.message() => match frame {
                    Ok(Some(frame)) => {
                        let message = from_site(frame).unwrap();
                        let goodbye = matches!(message, FromSite::Goodbye);
                        {
                            let mut state = self.state();
                            state.heard.push(format!("{message:?}"));
                            if let Some(ear) = &state.ear {
                                let _ = ear.send(message);
                            }
                        }
                        if goodbye {
                            return;
                        }
                    }
                    _ => return,
                },
                _ = beat.tick(), if !silent => {
                    let at = now().plus_millis(self.state().clock_ms);
                    if out.send(Ok(coordinator_frame(ToSite::Heartbeat { at }).unwrap())).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn receive(&self, mut parts: Streaming<wire::UploadPart>) -> Result<wire::UploadReceipt, Status> {
        let Some(upload_part::Part::Header(header)) = parts.message().await?.and_then(|p| p.part) else {
            return Err(Status::invalid_argument("no header"));
        };
        let announced = Announced::try_from(header).unwrap();
        let offset = self.state().staged.entry(announced.digest).or_default().len() as u64;
        self.state().resumed_at.push(offset);
        while let Some(part) = parts.message().await? {
            let Some(upload_part::Part::Chunk(chunk)) = part.part else {
                return Err(Status::invalid_argument("no chunk"));
            };
            if self.state().stall_after.is_some_and(|limit| chunk.offset >= limit) {
                std::future::pending::<()>().await;
            }
            let mut state = self.state();
            let staged = state.staged.entry(announced.digest).or_default();
            if chunk.offset != staged.len() as u64 {
                return Err(Status::out_of_range("ask for the standing"));
            }
            if chunk.hash != blake3::hash(&chunk.data).as_bytes() {
                return Err(Status::data_loss("damaged"));
            }
            staged.extend_from_slice(&chunk.data);
        }
        let mut state = self.state();
        let staged = state.staged.entry(announced.digest).or_default();
        if staged.len() as u64 != announced.bytes {
            return Err(Status::out_of_range("not all of it"));
        }
        if Digest::of(staged) != announced.digest {
            return Err(Status::invalid_argument("another payload than announced"));
        }
        let forge = std::mem::take(&mut state.forge_receipts);
        let key = if forge { SecretKey::from_seed(&[1; 32]) } else { SecretKey::from_seed(&self.key.to_seed()) };
        let document = UploadReceipt {
            federation: self.key.public().site_id(),
            site: state.site.unwrap_or_else(|| super::site::identity().site_id()),
            round: announced.round,
            digest: announced.digest,
            at: now(),
        };
        let document = Canonical::new(document).unwrap();
        Ok(wire::UploadReceipt {
            digest: document.digest.as_bytes().to_vec(),
            at_ms: document.at.as_millis(),
            signature: key.sign(&document.digest()).as_bytes().to_vec(),
        })
    }
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Federation for Inside {
    type SessionStream = Boxed<wire::CoordinatorFrame>;
    type DownloadStream = Boxed<wire::DownloadPart>;

    async fn session(
        &self,
        request: Request<Streaming<wire::SiteFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        self.refused()?;
        let (out, frames) = mpsc::channel(16);
        self.state().sessions.push(out.clone());
        tokio::spawn(self.clone().converse(request.into_inner(), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }

    async fn upload_status(
        &self,
        request: Request<wire::UploadHeader>,
    ) -> Result<Response<wire::UploadProgress>, Status> {
        self.refused()?;
        let announced = Announced::try_from(request.into_inner()).unwrap();
        let mut state = self.state();
        state.asked += 1;
        let offset = state.staged.get(&announced.digest).map_or(0, Vec::len) as u64;
        Ok(Response::new(wire::UploadProgress { offset, over: state.over.clone() }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<wire::UploadPart>>,
    ) -> Result<Response<wire::UploadReceipt>, Status> {
        self.refused()?;
        self.receive(request.into_inner()).await.map(Response::new)
    }

    async fn download(
        &self,
        request: Request<wire::DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let wire::DownloadRequest { digest, offset } = request.into_inner();
        let digest = Digest::from_bytes(digest.try_into().unwrap());
        let mut state = self.state();
        if state.refuse_models {
            state.resumed_at.push(offset);
            return Err(Status::unavailable("not now"));
        }
        let mut model =
            state.models.get(&digest).cloned().ok_or_else(|| Status::not_found("there is no such model"))?;
        if state.wrong_model {
            model[0] ^= 1;
        }
        state.resumed_at.push(offset);
        let mut parts = vec![wire::DownloadPart { part: Some(download_part::Part::Length(model.len() as u64)) }];
        let mut offset = usize::try_from(offset).unwrap();
        for data in model[offset.min(model.len())..].chunks(limits::CHUNK_BYTES) {
            let hash = blake3::hash(data).as_bytes().to_vec();
            let chunk = wire::Chunk { offset: offset as u64, data: Bytes::copy_from_slice(data), hash };
            offset += data.len();
            parts.push(wire::DownloadPart { part: Some(download_part::Part::Chunk(chunk)) });
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(parts).map(Ok))))
    }

    async fn model_card(
        &self,
        request: Request<wire::ModelCardRequest>,
    ) -> Result<Response<wire::ModelCardReply>, Status> {
        let mut state = self.state();
        if let Some(refusal) = state.refuse_card.take() {
            return Err(refusal);
        }
        let card = state.cards.get(&request.into_inner().job).cloned();
        let card = card.ok_or_else(|| Status::failed_precondition("the results are held"))?;
        Ok(Response::new(wire::ModelCardReply { card }))
    }
}
