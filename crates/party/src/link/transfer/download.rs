//! One model on its way here: into a partial file that survives cuts and restarts, verified whole, made durable, moved.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hospes_protocol::grpc::{self as wire, download_part::Part};
use hospes_protocol::id::Digest;
use hospes_protocol::limits;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::time::sleep;
use tonic::Streaming;

use super::{Context, Patience, Report, Stop, of_status, sha256_of_file};
use crate::link::LinkEvent;
use crate::link::session::Line;

/// What is hashed before a model's bytes, as `canon::digest("model", 1, …)` does.
const MODEL_PREFIX: &[u8] = b"hospes/model/v1\0";
/// Whole downloads that may turn out to be something else before the link gives up.
const WRONG_DIGESTS: u32 = 3;

/// Gets a model, or learns that it cannot be had.
pub(super) async fn run(context: Arc<Context>, digest: Digest, to: PathBuf, most_bytes: u64) {
    let Ok(_slot) = context.down.acquire().await else { return };
    if digest_of(to.clone()).await.is_ok_and(|found| found == digest) {
        return context.tell(LinkEvent::Downloaded { digest, path: to }).await;
    }
    let partial = partial(&to);
    let mut back_off = context.back_off(&digest);
    let (mut wrong, mut here) = (0, 0);
    loop {
        let Some(line) = context.line().await else { return };
        match attempt(&context, line, digest, &partial, most_bytes).await {
            Ok(()) => match settle(&partial, &to, digest).await {
                Ok(true) => return context.tell(LinkEvent::Downloaded { digest, path: to }).await,
                Ok(false) => {
                    wrong += 1;
                    if wrong == WRONG_DIGESTS {
                        let reason = "the coordinator sends another model than it announced".to_owned();
                        return context.tell(LinkEvent::DownloadFailed { digest, reason }).await;
                    }
                }
                Err(error) => {
                    let reason = format!("the model cannot be stored ({error})");
                    return context.tell(LinkEvent::DownloadFailed { digest, reason }).await;
                }
            },
            Err(Stop::Refused(reason)) => return context.tell(LinkEvent::DownloadFailed { digest, reason }).await,
            Err(Stop::Withdrawn) => return,
            Err(Stop::Cut(reason)) => {
                tracing::info!(digest = %digest.short(), %reason, "download cut, will be resumed");
                let length = tokio::fs::metadata(&partial).await.map_or(0, |file| file.len());
                if length > here {
                    back_off.reset();
                }
                here = length;
            }
        }
        sleep(back_off.next()).await;
    }
}

/// Where a download grows.
fn partial(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    to.with_file_name(name)
}

async fn attempt(context: &Context, line: Line, digest: Digest, partial: &Path, most_bytes: u64) -> Result<(), Stop> {
    let stored = |e: io::Error| Stop::Refused(format!("the model cannot be stored ({e})"));
    let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(partial).await.map_err(stored)?;
    // Each chunk goes where it belongs: of an earlier link, which is closed, the last write may come after this.
    let offset = file.seek(SeekFrom::End(0)).await.map_err(stored)?;
    let patience = Patience::new(context);
    let mut client = line.client.clone();
    let request = wire::DownloadRequest { digest: digest.as_bytes().to_vec(), offset };
    let work = async {
        let mut parts = client.download(request).await.map_err(|s| of_status(&s))?.into_inner();
        let total = match next(&mut parts).await? {
            Some(Part::Length(total)) if total <= most_bytes.min(limits::OBJECT_BYTES) => total,
            Some(Part::Length(total)) => {
                let reason = format!("the file has {total} bytes; the plan's model has at most {most_bytes}");
                return Err(Stop::Refused(reason));
            }
            _ => return Err(Stop::Refused("the coordinator did not say how long the model is".into())),
        };
        if offset > total {
            // A partial file of something else; begin again.
            file.set_len(0).await.map_err(stored)?;
            return Err(Stop::Cut("the partial file is longer than the model".into()));
        }
        let mut report = Report::new(context, digest, total);
        receive(&mut parts, &mut file, offset, total, &mut report).await
    };
    let received = context.watched(&line, &patience, work).await;
    // What arrived is kept for the next attempt.
    file.flush().await.map_err(stored)?;
    received
}

async fn receive(
    parts: &mut Streaming<wire::DownloadPart>,
    file: &mut File,
    mut offset: u64,
    total: u64,
    report: &mut Report<'_>,
) -> Result<(), Stop> {
    while offset < total {
        let Some(Part::Chunk(chunk)) = next(parts).await? else {
            return Err(Stop::Cut("the model ended too early".into()));
        };
        let length = chunk.data.len() as u64;
        if chunk.offset != offset || length == 0 || chunk.data.len() > limits::CHUNK_BYTES || length > total - offset {
            return Err(Stop::Cut("a chunk does not follow the one before".into()));
        }
        if chunk.hash != blake3::hash(&chunk.data).as_bytes() {
            return Err(Stop::Cut("a chunk was damaged on its way".into()));
        }
        file.write_all(&chunk.data).await.map_err(|e| Stop::Refused(format!("the model cannot be stored ({e})")))?;
        offset += length;
        report.at(offset);
    }
    Ok(())
}

async fn next(parts: &mut Streaming<wire::DownloadPart>) -> Result<Option<Part>, Stop> {
    Ok(parts.message().await.map_err(|s| of_status(&s))?.and_then(|p| p.part))
}

/// Verifies the partial file, makes it durable and moves it to its place; `false`, and it is gone, if it is another model.
async fn settle(partial: &Path, to: &Path, digest: Digest) -> io::Result<bool> {
    if digest_of(partial.to_owned()).await? != digest {
        tokio::fs::remove_file(partial).await?;
        return Ok(false);
    }
    File::open(partial).await?.sync_all().await?;
    tokio::fs::rename(partial, to).await?;
    if let Some(folder) = to.parent() {
        File::open(folder).await?.sync_all().await?;
    }
    Ok(true)
}

/// The digest of a model's file, in constant memory.
async fn digest_of(path: PathBuf) -> io::Result<Digest> {
    sha256_of_file(MODEL_PREFIX, path).await.map(|(digest, _)| digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_models_digest_is_the_one_of_the_canonical_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        std::fs::write(&path, b"weights").unwrap();
        let found = digest_of(path.clone()).await.unwrap();
        assert_eq!(found, hospes_protocol::canon::digest("model", 1, b"weights"));
        assert_eq!(partial(&path), folder.path().join("model.part"));
    }
}
