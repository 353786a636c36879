//! The gRPC service for sites. Every call shows a client certificate, or is refused before its body is read, and every
//! call asks the store whether the certificate is still good.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::middleware::{self, Next};
use axum::{Router, http};
use bytes::Bytes;
use futures::Stream;
use hospes_protocol::grpc::convert::Announced;
use hospes_protocol::grpc::federation_server::{Federation, FederationServer};
use hospes_protocol::grpc::{
    self as wire, CoordinatorFrame, DownloadPart, DownloadRequest, ModelCardReply, ModelCardRequest, SiteFrame,
    UploadHeader, UploadPart, UploadProgress, UploadReceipt, download_part, upload_part,
};
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId};
use hospes_protocol::limits;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

use super::listen::Connection;
use super::rate::{Transfer, Turn};
use super::{Shared, session};
use crate::Error;
use crate::aggregate::staging::{Incoming, Refused, StagedUpload, Standing, UploadRequest};
use crate::ca::Peer;
use crate::schedule::{Event, RejectionCode};
use crate::store::results::Fetch;

/// Frames that may wait between a session and its connection.
const FRAMES: usize = 8;
/// Chunks that may wait between the disk and a download's connection.
const CHUNKS: usize = 1;
/// Bytes of a call that sends one small message.
const UNARY_BYTES: usize = 8 << 10;
/// Calls that send more than one message.
const STREAMS: [&str; 2] = ["/Session", "/Upload"];

type FrameStream = Pin<Box<dyn Stream<Item = Result<CoordinatorFrame, Status>> + Send>>;
type PartStream = Pin<Box<dyn Stream<Item = Result<DownloadPart, Status>> + Send>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let patience = Duration::from_millis(shared.limits().greeting_ms);
    let service = FederationServer::new(Sites(shared))
        .max_decoding_message_size(limits::FRAME_BYTES)
        .max_encoding_message_size(limits::FRAME_BYTES)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Zstd);
    // Only the service's own paths: what is unknown is for the REST router to answer.
    let path = format!("/{}/{{*call}}", wire::federation_server::SERVICE_NAME);
    Router::new()
        .route_service(&path, service)
        .layer(middleware::from_fn(move |request, next| door(patience, request, next)))
}

/// Refuses who shows no certificate before anything of the body is read, and takes little and not for long where one
/// message is expected.
async fn door(patience: Duration, request: http::Request<Body>, next: Next) -> http::Response<Body> {
    if request.extensions().get::<Connection>().is_none_or(|c| c.peer.is_none()) {
        return Status::unauthenticated("a client certificate of this federation is needed").into_http();
    }
    if STREAMS.iter().any(|call| request.uri().path().ends_with(call)) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(patience, axum::body::to_bytes(body, UNARY_BYTES)).await {
        Ok(Ok(bytes)) => next.run(http::Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(_)) => Status::invalid_argument(format!("this call takes at most {UNARY_BYTES} bytes")).into_http(),
        Err(_) => Status::deadline_exceeded("the call's message did not come in time").into_http(),
    }
}

/// The service.
#[derive(Clone)]
struct Sites(Arc<Shared>);

impl Sites {
    /// The site that calls, if it is let in.
    async fn admit<T>(&self, request: &Request<T>) -> Result<SiteId, Status> {
        let peer = peer(request)?;
        match self.0.admit(Some(&peer)).await {
            Ok(Ok(site)) => Ok(site),
            Ok(Err(reason)) => Err(Status::permission_denied(reason)),
            Err(error) => Err(internal(&error)),
        }
    }

    /// A place for a transfer of the site that calls. It is taken before the store is asked: whoever locks the site out
    /// in between ends the transfer.
    async fn place<T>(&self, request: &Request<T>) -> Result<(SiteId, Transfer), Status> {
        let place = self.0.transfers.enter(peer(request)?.site).ok_or_else(too_many)?;
        Ok((self.admit(request).await?, place))
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.0.limits().silence_ms)
    }

    /// Reads the header and goes on with the upload; returns when it is durable, with the schedule's receipt.
    async fn receive(
        &self,
        site: SiteId,
        place: &Transfer,
        mut parts: Streaming<UploadPart>,
        given_up: &CancellationToken,
    ) -> Result<UploadReceipt, Status> {
        let Some(upload_part::Part::Header(header)) = self.next(place, &mut parts).await? else {
            return Err(Status::invalid_argument("an upload starts with its header"));
        };
        let asked = request(site, header)?;
        let turn = tokio::select! {
            turn = self.0.transfers.turn(site) => turn,
            () = given_up.cancelled() => return Err(Status::cancelled("the call was given up")),
            () = place.end().cancelled() => return Err(locked_out()),
        };
        let (round, length) = (asked.round.clone(), asked.length);
        let begun = match self.0.staging.begin(asked.clone()).await {
            Err(Refused::Over(_)) if self.counted(&asked).await? => {
                return self.confirm(site, self.0.staging.confirmed(asked)).await;
            }
            begun => begun,
        };
        let mut incoming = self.noted(site, &round, begun).await?;
        while let Some(part) = self.next(place, &mut parts).await? {
            let upload_part::Part::Chunk(chunk) = part else {
                return Err(Status::invalid_argument("a second header"));
            };
            append(&mut incoming, chunk).await?;
            if incoming.offset() < length && turn.as_ref().is_some_and(Turn::is_over) {
                return Err(others_wait());
            }
        }
        let finished = incoming.finish().await;
        let upload = self.noted(site, &round, finished).await?;
        self.confirm(site, upload).await
    }

    /// Whether an upload of a round that is over was confirmed, and only its receipt got lost.
    async fn counted(&self, asked: &UploadRequest) -> Result<bool, Status> {
        self.0.register.store.counted(asked).await.map_err(|e| internal(&e))
    }

    /// Asks the schedule for the receipt.
    async fn confirm(&self, site: SiteId, upload: StagedUpload) -> Result<UploadReceipt, Status> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Status::unavailable(Error::Stopping.to_string());
        self.0.events.send(Event::Uploaded { site, upload, reply }).await.map_err(|_| stopping())?;
        let receipt = answer.await.map_err(|_| stopping())?.map_err(|rejection| match rejection.code {
            RejectionCode::Unavailable => Status::unavailable(rejection.message),
            _ => Status::failed_precondition(rejection.message),
        })?;
        let signature = receipt.signatures.first().map(|s| s.signature.as_bytes().to_vec()).unwrap_or_default();
        let document = &receipt.document;
        Ok(UploadReceipt { digest: document.digest.as_bytes().to_vec(), at_ms: document.at.as_millis(), signature })
    }

    /// What staging says. A payload that is not what the round asks for stands in the ledger.
    async fn noted<T>(&self, site: SiteId, round: &RoundKey, result: Result<T, Refused>) -> Result<T, Status> {
        match result {
            Ok(done) => Ok(done),
            Err(error) => {
                if let Refused::Wrong(reason) = &error {
                    let event = Event::UploadRefused { site, round: round.clone(), reason: reason.clone() };
                    // A schedule that has stopped records nothing any more.
                    let _ = self.0.events.send(event).await;
                }
                Err(refused(error))
            }
        }
    }

    /// The next part; an upload may take any time in all, but not be silent.
    async fn next(
        &self,
        place: &Transfer,
        parts: &mut Streaming<UploadPart>,
    ) -> Result<Option<upload_part::Part>, Status> {
        let part = tokio::select! {
            biased;
            () = place.end().cancelled() => return Err(locked_out()),
            part = tokio::time::timeout(self.patience(), parts.message()) => part,
        };
        match part {
            Ok(part) => part?
                .map(|p| p.part.ok_or_else(|| Status::invalid_argument("a part that is neither header nor chunk")))
                .transpose(),
            Err(_) => Err(Status::deadline_exceeded("nothing more of the upload came; ask how far it got and go on")),
        }
    }
}

#[tonic::async_trait]
impl Federation for Sites {
    type SessionStream = FrameStream;
    type DownloadStream = PartStream;

    async fn session(&self, request: Request<Streaming<SiteFrame>>) -> Result<Response<FrameStream>, Status> {
        let site = self.admit(&request).await?;
        if !self.0.openings.take(site, Instant::now()) {
            return Err(Status::unavailable("this site opens sessions too often; wait a minute"));
        }
        let (frames, outbound) = mpsc::channel(FRAMES);
        let peer = peer(&request)?;
        tokio::spawn(Box::pin(session::run(self.0.clone(), peer, request.into_inner(), frames)));
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound).map(Ok))))
    }

    async fn upload_status(&self, request: Request<UploadHeader>) -> Result<Response<UploadProgress>, Status> {
        let site = self.admit(&request).await?;
        let asked = self::request(site, request.into_inner())?;
        let length = asked.length;
        let progress = match self.0.staging.status(&asked).await {
            Ok(Standing::Offset(offset)) => {
                self.0.transfers.keep_turn(site).await;
                UploadProgress { offset, over: None }
            }
            Ok(Standing::Complete) => UploadProgress { offset: length, over: None },
            Err(Refused::Over(_)) if self.counted(&asked).await? => UploadProgress { offset: length, over: None },
            Err(Refused::Over(reason)) => UploadProgress { offset: 0, over: Some(reason) },
            Err(other) => return Err(refused(other)),
        };
        Ok(Response::new(progress))
    }

    async fn upload(&self, request: Request<Streaming<UploadPart>>) -> Result<Response<UploadReceipt>, Status> {
        let (site, place) = self.place(&request).await?;
        // A task of its own: when the call is cut off, work on files goes on to its end, and keeps the place until then.
        let (sites, parts) = (self.clone(), request.into_inner());
        let given_up = CancellationToken::new();
        let _guard = given_up.clone().drop_guard();
        let work = tokio::spawn(Box::pin(async move { sites.receive(site, &place, parts, &given_up).await }));
        work.await.map_err(|_| Status::internal("the upload was given up"))?.map(Response::new)
    }

    async fn download(&self, request: Request<DownloadRequest>) -> Result<Response<PartStream>, Status> {
        let (site, place) = self.place(&request).await?;
        let DownloadRequest { digest, offset } = request.into_inner();
        let model = digest_of(digest)?;
        let allowed = self.0.register.store.fetch(site, model).await.map_err(|e| internal(&e))?;
        let size =
            if allowed == Fetch::No { None } else { self.0.models.size(model).await.map_err(|e| internal(&e))? };
        let Some(size) = size else {
            return Err(Status::not_found(format!("there is no model {model} for this site")));
        };
        if offset > size {
            return Err(Status::out_of_range(format!("the model has {size} bytes, the offset is {offset}")));
        }
        if let Fetch::Result(job) = allowed {
            self.0.given(site, job, Some(model), "its file, to a site that took part").await?;
        }
        let (parts, outbound) = mpsc::channel(CHUNKS);
        let shared = self.0.clone();
        let patience = self.patience();
        let end = place.end().clone();
        // What already waits for the wire does not go out any more when the site is locked out.
        let outbound = futures::StreamExt::take_until(ReceiverStream::new(outbound), end.clone().cancelled_owned());
        let reason = futures::stream::once(async move { end.is_cancelled().then(locked_out) });
        tokio::spawn(async move {
            let turn = tokio::select! {
                turn = shared.transfers.turn(site) => turn,
                () = parts.closed() => return,
                () = place.end().cancelled() => return,
            };
            let about = DownloadPart { part: Some(download_part::Part::Length(size)) };
            let mut next = Ok(about);
            let mut at = offset;
            // A reader that does not read gives its place up; it can go on later from where it is.
            loop {
                let last = next.is_err() || at >= size;
                let sent = tokio::select! {
                    biased;
                    () = place.end().cancelled() => return,
                    sent = parts.send_timeout(next, patience) => sent,
                };
                if sent.is_err() || last {
                    return;
                }
                if turn.as_ref().is_some_and(Turn::is_over) {
                    next = Err(others_wait());
                    continue;
                }
                let read = shared.models.read(model, at..size.min(at + limits::CHUNK_BYTES as u64)).await;
                next = read.map_err(|e| internal(&e)).map(|data| chunk(&mut at, data));
            }
        });
        Ok(Response::new(Box::pin(outbound.chain(reason.filter_map(|status| status.map(Err))))))
    }

    async fn model_card(&self, request: Request<ModelCardRequest>) -> Result<Response<ModelCardReply>, Status> {
        // A place as for a transfer, so that nobody has the store look for many cards at the same time.
        let (site, _place) = self.place(&request).await?;
        let ModelCardRequest { job, model } = request.into_inner();
        let job: JobId = job.parse().map_err(|_| Status::invalid_argument("the job has no id"))?;
        // A run that ended with tables has no model.
        let model = if model.is_empty() { None } else { Some(digest_of(model)?) };
        let card = self.0.card_for(site, job, model).await?;
        Ok(Response::new(ModelCardReply { card }))
    }
}

fn digest_of(bytes: Vec<u8>) -> Result<Digest, Status> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| Status::invalid_argument("the digest must have 32 bytes"))?;
    Ok(Digest::from_bytes(bytes))
}

/// One chunk of a download; moves `at` behind it.
fn chunk(at: &mut u64, data: Bytes) -> DownloadPart {
    let offset = *at;
    *at += data.len() as u64;
    let hash = blake3::hash(&data).as_bytes().to_vec();
    DownloadPart { part: Some(download_part::Part::Chunk(wire::Chunk { offset, data, hash })) }
}

/// What a header announces, with the site of the certificate.
fn request(site: SiteId, header: UploadHeader) -> Result<UploadRequest, Status> {
    let Announced { kind, study, round, digest, bytes } =
        Announced::try_from(header).map_err(|e| Status::invalid_argument(e.to_string()))?;
    Ok(UploadRequest { site, kind, study, round, digest, length: bytes })
}

async fn append(incoming: &mut Incoming, chunk: wire::Chunk) -> Result<(), Status> {
    if chunk.data.len() > limits::CHUNK_BYTES {
        return Err(Status::invalid_argument(format!("a chunk has at most {} bytes", limits::CHUNK_BYTES)));
    }
    let hash: [u8; 32] =
        chunk.hash.try_into().map_err(|_| Status::invalid_argument("a chunk's hash must have 32 bytes"))?;
    incoming.append(chunk.offset, chunk.data, hash).await.map_err(refused)
}

/// Whose certificate the connection of a call has shown.
fn peer<T>(request: &Request<T>) -> Result<Arc<Peer>, Status> {
    let peer = request.extensions().get::<Connection>().and_then(|c| c.peer.clone());
    peer.ok_or_else(|| Status::unauthenticated("a client certificate of this federation is needed"))
}

fn locked_out() -> Status {
    Status::permission_denied("the operator has locked this site out")
}

/// Waiting within the call would hold a window and a chunk; whoever asks anew waits for nothing but the answer.
fn others_wait() -> Status {
    Status::unavailable("it is the turn of others who wait; ask how far it got and go on")
}

fn too_many() -> Status {
    Status::resource_exhausted("too many transfers of this site at the same time; wait for one to end")
}

fn refused(refused: Refused) -> Status {
    let message = refused.to_string();
    match refused {
        Refused::Over(_) => Status::failed_precondition(message),
        Refused::Wrong(_) => Status::invalid_argument(message),
        Refused::Offset { .. } => Status::out_of_range(message),
        Refused::Damaged(_) | Refused::Anew => Status::data_loss(message),
        Refused::TakenOver => Status::aborted(message),
        Refused::NoSpace => Status::resource_exhausted(message),
        Refused::Failed(error) => internal(&error),
    }
}

/// What the caller learns of a failure of ours is a reference under which the log has the rest.
pub(super) fn internal(error: &Error) -> Status {
    Status::internal(format!("the coordinator failed; its log says why under {}", super::rest::log(error)))
}
