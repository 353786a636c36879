//! One payload on its way to the coordinator.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hospes_protocol::grpc::{self as wire, upload_part::Part};
use hospes_protocol::id::Timestamp;
use hospes_protocol::limits;
use hospes_protocol::message::{Upload, UploadReceipt};
use hospes_protocol::sign::{DocumentSignature, Signature, Signed};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::{Context, Patience, Report, Stop, of_status, sha256_of_file};
use crate::link::session::Line;
use crate::link::{LinkEvent, Receipt};

/// The engine's leave is asked for again if getting ready took longer.
const LEAVE_HOLDS: Duration = Duration::from_secs(5);

/// Gets a payload to the coordinator, or learns that it must not or cannot go.
pub(super) async fn run(context: Arc<Context>, upload: Upload, path: PathBuf) {
    let Ok(_slot) = context.up.acquire().await else { return };
    if let Err(reason) = check_file(path.clone(), &upload).await {
        return context.tell(LinkEvent::UploadRefused { upload, reason }).await;
    }
    let mut back_off = context.back_off(&upload.digest());
    let mut there = 0;
    loop {
        let Some(mut line) = context.line().await else { return };
        let before = there;
        let reason = match attempt(&context, &mut line, &upload, &path, &mut there).await {
            Ok(receipt) => return context.tell(LinkEvent::Uploaded { upload, receipt }).await,
            Err(Stop::Withdrawn) => return,
            Err(Stop::Refused(reason)) => {
                return context.tell(LinkEvent::UploadRefused { upload, reason }).await;
            }
            Err(Stop::Cut(reason)) => reason,
        };
        tracing::info!(digest = %upload.digest().short(), %reason, "upload cut, will be resumed");
        if there > before {
            // It gets on: it was cut on its way, or it was the turn of others.
            back_off.reset();
        }
        sleep(back_off.next()).await;
    }
}

/// Whether the file is what was entered in the ledger. Nothing else may leave.
async fn check_file(path: PathBuf, upload: &Upload) -> Result<(), String> {
    match sha256_of_file(b"", path).await {
        Ok(found) if found == (upload.digest(), upload.bytes()) => Ok(()),
        Ok(_) => Err("the payload file is not what was entered in the ledger; nothing was sent".to_owned()),
        Err(error) => Err(format!("the payload file cannot be read ({error}); nothing was sent")),
    }
}

/// PRIVACY: nothing of an upload, not even its digest, leaves before the engine said yes to this attempt.
async fn ask_leave(context: &Context, upload: &Upload) -> Result<(), Stop> {
    let (reply, answer) = oneshot::channel();
    context.tell(LinkEvent::MayLeave { upload: upload.clone(), reply }).await;
    match answer.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Stop::Withdrawn),
        Err(_) => Err(Stop::Cut("the engine did not answer".into())),
    }
}

/// Goes on with an upload; `there` becomes how many bytes the coordinator has.
async fn attempt(
    context: &Context,
    line: &mut Line,
    upload: &Upload,
    path: &Path,
    there: &mut u64,
) -> Result<Receipt, Stop> {
    ask_leave(context, upload).await?;
    let asked = Instant::now();
    let header = wire::UploadHeader::from(upload);
    let mut client = line.client.clone();
    let patience = Patience::new(context);
    let status = async { client.upload_status(header.clone()).await.map_err(|s| of_status(&s)) };
    let status = context.watched(line, &patience, status).await?.into_inner();
    if status.offset > upload.bytes() {
        return Err(Stop::Refused("the coordinator claims to have more bytes than there are".into()));
    }
    *there = status.offset;
    if let Some(over) = status.over.filter(|_| status.offset < upload.bytes()) {
        return Err(Stop::Refused(over));
    }
    if asked.elapsed() > LEAVE_HOLDS {
        ask_leave(context, upload).await?;
    }
    // Where all of it is there already, the header alone fetches the receipt.
    let (parts, outgoing) = mpsc::channel(1);
    let feed = feed(context, &patience, upload, header, path, status.offset, parts);
    let mut client = line.client.clone();
    let call = async { client.upload(ReceiverStream::new(outgoing)).await.map_err(|s| of_status(&s)) };
    let both = async {
        // A coordinator that refuses answers before everything was read; then the feed ends by itself.
        let (fed, answered) = tokio::join!(feed, call);
        fed?;
        answered
    };
    let receipt = context.watched(line, &patience, both).await?.into_inner();
    check_receipt(context, upload, receipt).map_err(Stop::Refused)
}

/// Sends the header and then the chunks from `offset`, each as HTTP/2 has room for it.
async fn feed(
    context: &Context,
    patience: &Patience,
    upload: &Upload,
    header: wire::UploadHeader,
    path: &Path,
    mut offset: u64,
    parts: mpsc::Sender<wire::UploadPart>,
) -> Result<(), Stop> {
    let unreadable = |e: io::Error| Stop::Refused(format!("the payload file cannot be read ({e})"));
    let mut report = Report::new(context, upload.digest(), upload.bytes());
    if parts.send(wire::UploadPart { part: Some(Part::Header(header)) }).await.is_err() {
        return Ok(());
    }
    let mut file = File::open(path).await.map_err(unreadable)?;
    file.seek(SeekFrom::Start(offset)).await.map_err(unreadable)?;
    while offset < upload.bytes() {
        let left = usize::try_from(upload.bytes() - offset).unwrap_or(usize::MAX);
        let mut data = vec![0; left.min(limits::CHUNK_BYTES)];
        file.read_exact(&mut data).await.map_err(unreadable)?;
        let hash = blake3::hash(&data).as_bytes().to_vec();
        let length = data.len() as u64;
        let chunk = wire::Chunk { offset, data: data.into(), hash };
        if parts.send(wire::UploadPart { part: Some(Part::Chunk(chunk)) }).await.is_err() {
            return Ok(());
        }
        offset += length;
        report.at(offset);
    }
    patience.verifying();
    Ok(())
}

/// Whether the coordinator signed for exactly this.
fn check_receipt(context: &Context, upload: &Upload, receipt: wire::UploadReceipt) -> Result<Receipt, String> {
    let wrong = || "the coordinator's receipt does not hold".to_owned();
    if receipt.digest != upload.digest().as_bytes() {
        return Err(wrong());
    }
    let config = &context.config;
    let document = UploadReceipt {
        federation: config.federation,
        site: config.site,
        round: upload.round().clone(),
        digest: upload.digest(),
        at: Timestamp::from_millis(receipt.at_ms),
    };
    let document = hospes_protocol::canon::Canonical::new(document).map_err(|_| wrong())?;
    let signature = Signature::from_bytes(receipt.signature.try_into().map_err(|_| wrong())?);
    let signature = DocumentSignature { key: config.coordinator, signature };
    let receipt = Signed { document, signatures: vec![signature] };
    if receipt.signed_by(&config.coordinator) { Ok(receipt) } else { Err(wrong()) }
}
