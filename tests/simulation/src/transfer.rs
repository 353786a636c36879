//! Uploads and downloads, in place of the gRPC calls: the same steps on the same entrances, each an event of its own that
//! can be cut off.

use std::path::PathBuf;

use bytes::Bytes;
use hospes_coordinator::aggregate::staging::{Incoming, Refused, StagedUpload, Standing, UploadRequest};
use hospes_coordinator::schedule::{self, RejectionCode};
use hospes_coordinator::store::results::Fetch;
use hospes_party::link::{LinkEvent, Receipt};
use hospes_protocol::id::Digest;
use hospes_protocol::message::Upload;
use tokio::sync::oneshot;

use crate::template::{coordinator_key, site_id};
use crate::truth::short;
use crate::world::{Event, Node, World, locked};

/// Bytes of a chunk: few, so that small payloads have several.
const CHUNK: usize = 24;

/// An upload under way.
pub(crate) struct Uploading {
    pub(crate) upload: Upload,
    path: PathBuf,
    stage: Stage,
}

enum Stage {
    /// The engine is asked next.
    Idle,
    /// The engine said yes; the coordinator is asked next.
    Allowed(Vec<u8>),
    /// Chunks go to this process of the coordinator.
    Sending(u64, Box<Incoming>, Vec<u8>),
    /// All is there; the schedule of this process is asked next.
    Complete(u64, Box<StagedUpload>),
    /// The receipt is on its way.
    Receipt(Box<Receipt>),
}

impl Uploading {
    pub(crate) fn new(upload: Upload, path: PathBuf) -> Self {
        Self { upload, path, stage: Stage::Idle }
    }
}

/// A download under way.
pub(crate) struct Downloading {
    pub(crate) digest: Digest,
    to: PathBuf,
    /// What was fetched and is on its way.
    fetched: Option<Vec<u8>>,
}

impl Downloading {
    pub(crate) fn new(digest: Digest, to: PathBuf) -> Self {
        Self { digest, to, fetched: None }
    }
}

/// What an upload does next.
enum Next {
    /// This stage, after so many milliseconds.
    Go(Stage, i64),
    /// All over again, after a pause.
    Again,
    /// The coordinator does not take it.
    Refused(String),
    /// It is over.
    Over,
}

impl World<'_> {
    /// The next step of an upload.
    pub(crate) async fn upload(&mut self, site: usize, life: u64, number: u64) {
        if self.hospitals[site].life != life {
            return;
        }
        let Some(entry) = self.hospitals[site].uploads.get_mut(&number) else { return };
        let upload = entry.upload.clone();
        let stage = std::mem::replace(&mut entry.stage, Stage::Idle);
        let path = entry.path.clone();
        let cut = self.swarm.cut;
        let next = match stage {
            Stage::Idle => self.ask_leave(site, &upload, path).await,
            _ if !self.reaches(site) => Next::Again,
            _ if self.rng.per_mille(cut) => Next::Again,
            Stage::Allowed(bytes) => self.begin(site, &upload, bytes).await,
            Stage::Sending(process, ..) | Stage::Complete(process, _) if process != self.life => Next::Again,
            Stage::Sending(process, incoming, bytes) => self.send_chunk(site, process, incoming, bytes).await,
            Stage::Complete(_, staged) => self.confirm(site, &upload, *staged).await,
            Stage::Receipt(receipt) => self.take_receipt(site, &upload, *receipt).await,
        };
        // The engine may have taken it back meanwhile, or its process died.
        if self.hospitals[site].life != life || !self.hospitals[site].uploads.contains_key(&number) {
            return;
        }
        match next {
            Next::Go(stage, wait) => {
                if let Some(entry) = self.hospitals[site].uploads.get_mut(&number) {
                    entry.stage = stage;
                }
                self.after(wait, Event::Upload { site, life, upload: number });
            }
            Next::Again => {
                let wait = self.rng.between(300, 4_000);
                self.after(wait, Event::Upload { site, life, upload: number });
            }
            Next::Refused(reason) => {
                self.note(Node::Site(site), format!("upload of {} refused: {reason}", short(upload.round())));
                self.hospitals[site].uploads.remove(&number);
                self.hear(site, LinkEvent::UploadRefused { upload, reason }).await;
            }
            Next::Over => drop(self.hospitals[site].uploads.remove(&number)),
        }
    }

    async fn ask_leave(&mut self, site: usize, upload: &Upload, path: PathBuf) -> Next {
        if !self.reaches(site) {
            return Next::Again;
        }
        let Ok(bytes) = std::fs::read(path) else { return Next::Refused("the payload file cannot be read".into()) };
        if (Digest::of(&bytes), bytes.len() as u64) != (upload.digest(), upload.bytes()) {
            return Next::Refused("the payload file is not what was entered in the ledger".into());
        }
        let (reply, mut answer) = oneshot::channel();
        self.hear(site, LinkEvent::MayLeave { upload: upload.clone(), reply }).await;
        match answer.try_recv() {
            Ok(Ok(())) => Next::Go(Stage::Allowed(bytes), self.rng.between(1, 60)),
            Ok(Err(_)) => Next::Over,
            Err(_) => Next::Again,
        }
    }

    /// What the port does with a header: asks how much is there, and goes on from it.
    async fn begin(&mut self, site: usize, upload: &Upload, bytes: Vec<u8>) -> Next {
        self.leaves(site, upload);
        let Some(process) = &self.coordinator else { return Next::Again };
        let (staging, store) = (process.staging.clone(), process.store.clone());
        let request = UploadRequest {
            site: site_id(site),
            kind: upload.kind(),
            study: upload.study(),
            round: upload.round().clone(),
            digest: upload.digest(),
            length: upload.bytes(),
        };
        let (life, wait) = (self.life, self.rng.between(1, 60));
        match staging.status(&request).await {
            Ok(Standing::Offset(_) | Standing::Complete) => {}
            Err(Refused::Over(reason)) => {
                return match store.counted(&request).await {
                    Ok(true) => Next::Go(Stage::Complete(life, Box::new(staging.confirmed(request))), wait),
                    Ok(false) => Next::Refused(reason),
                    Err(_) => Next::Again,
                };
            }
            Err(other) => return self.refused(site, upload, other).await,
        }
        match staging.begin(request).await {
            Ok(incoming) => Next::Go(Stage::Sending(life, Box::new(incoming), bytes), wait),
            Err(other) => self.refused(site, upload, other).await,
        }
    }

    async fn send_chunk(&mut self, site: usize, life: u64, mut incoming: Box<Incoming>, bytes: Vec<u8>) -> Next {
        let Some(upload) = self.uploading(site, &bytes) else { return Next::Over };
        self.leaves(site, &upload);
        let wait = self.rng.between(1, 60);
        let offset = usize::try_from(incoming.offset()).unwrap_or(usize::MAX);
        if offset >= bytes.len() {
            return match self.beside_schedule(incoming.finish()).await {
                Some(Ok(staged)) => Next::Go(Stage::Complete(life, Box::new(staged)), wait),
                Some(Err(other)) => self.refused(site, &upload, other).await,
                None => Next::Again,
            };
        }
        let chunk = Bytes::copy_from_slice(&bytes[offset..bytes.len().min(offset + CHUNK)]);
        let mut hash = *blake3::hash(&chunk).as_bytes();
        let damaged = self.swarm.cut / 3;
        if self.rng.per_mille(damaged) {
            hash[0] ^= 1;
        }
        match incoming.append(offset as u64, chunk, hash).await {
            Ok(()) => Next::Go(Stage::Sending(life, incoming, bytes), wait),
            Err(other) => self.refused(site, &upload, other).await,
        }
    }

    /// The upload that has this payload.
    fn uploading(&self, site: usize, bytes: &[u8]) -> Option<Upload> {
        let digest = Digest::of(bytes);
        self.hospitals[site].uploads.values().find(|u| u.upload.digest() == digest).map(|u| u.upload.clone())
    }

    /// What the port makes of a refusal.
    async fn refused(&mut self, site: usize, upload: &Upload, refused: Refused) -> Next {
        match refused {
            Refused::Over(reason) => Next::Refused(reason),
            Refused::Wrong(reason) => {
                let round = upload.round().clone();
                let event = schedule::Event::UploadRefused { site: site_id(site), round, reason: reason.clone() };
                self.coordinate(vec![event]).await;
                Next::Refused(reason)
            }
            Refused::Offset { .. }
            | Refused::Damaged(_)
            | Refused::Anew
            | Refused::TakenOver
            | Refused::NoSpace
            | Refused::Failed(_) => Next::Again,
        }
    }

    async fn confirm(&mut self, site: usize, upload: &Upload, staged: StagedUpload) -> Next {
        let (reply, mut answer) = oneshot::channel();
        let event = schedule::Event::Uploaded { site: site_id(site), upload: staged, reply };
        self.coordinate(vec![event]).await;
        match answer.try_recv() {
            Ok(Ok(receipt)) => {
                self.note(
                    Node::Coordinator,
                    format!("confirms {} of {}", short(upload.round()), Node::Site(site).name()),
                );
                self.truth.acknowledged(site, upload.round(), upload.digest());
                let lost = self.swarm.receipts;
                if self.rng.per_mille(lost) {
                    self.note(Node::Coordinator, "the receipt is lost");
                    return Next::Again;
                }
                let wait = self.rng.between(1, self.swarm.delay_ms);
                Next::Go(Stage::Receipt(receipt), wait)
            }
            Ok(Err(rejection)) if rejection.code == RejectionCode::Unavailable => Next::Again,
            Ok(Err(rejection)) => Next::Refused(rejection.message),
            Err(_) => Next::Again,
        }
    }

    async fn take_receipt(&mut self, site: usize, upload: &Upload, receipt: Receipt) -> Next {
        let said = &receipt.document;
        let holds = receipt.signed_by(&coordinator_key().public())
            && said.digest == upload.digest()
            && said.round == *upload.round()
            && said.site == site_id(site);
        if !holds {
            self.truth.violation(format!("{} got a receipt that does not hold", Node::Site(site).name()));
        }
        self.hear(site, LinkEvent::Uploaded { upload: upload.clone(), receipt }).await;
        Next::Over
    }

    /// Something derived leaves a site: not if its people took it back.
    fn leaves(&mut self, site: usize, upload: &Upload) {
        if let Some(reason) = self.hospitals[site].barred {
            let words =
                format!("{} sent {} although its store says: {reason}", Node::Site(site).name(), short(upload.round()));
            self.truth.violation(words);
        }
    }

    /// The next step of a download.
    pub(crate) async fn download(&mut self, site: usize, life: u64, number: u64) {
        if self.hospitals[site].life != life {
            return;
        }
        let Some(entry) = self.hospitals[site].downloads.get_mut(&number) else { return };
        let (digest, to, fetched) = (entry.digest, entry.to.clone(), entry.fetched.take());
        let cut = self.swarm.cut;
        if !self.reaches(site) || self.rng.per_mille(cut) {
            let wait = self.rng.between(300, 4_000);
            return self.after(wait, Event::Download { site, life, download: number });
        }
        let event = match fetched {
            Some(bytes) => {
                self.hospitals[site].downloads.remove(&number);
                let full = locked(&self.doom(Node::Site(site))).disk_is_full;
                let made = self
                    .beside_engine(site, async |hold| !full && hold.make_file("download", &to, &bytes).await.is_ok());
                let Some(stored) = made.await else { return };
                if stored {
                    LinkEvent::Downloaded { digest, path: to }
                } else {
                    LinkEvent::DownloadFailed { digest, reason: "the model cannot be stored".into() }
                }
            }
            None => match self.fetch(site, digest).await {
                Some(bytes) => {
                    if let Some(entry) = self.hospitals[site].downloads.get_mut(&number) {
                        entry.fetched = Some(bytes);
                    }
                    let wait = self.rng.between(5, 400);
                    return self.after(wait, Event::Download { site, life, download: number });
                }
                None => {
                    self.hospitals[site].downloads.remove(&number);
                    LinkEvent::DownloadFailed { digest, reason: "there is no such model".into() }
                }
            },
        };
        self.hear(site, event).await;
    }

    async fn fetch(&self, site: usize, digest: Digest) -> Option<Vec<u8>> {
        let process = self.coordinator.as_ref()?;
        let allowed = process.store.fetch(site_id(site), digest).await.is_ok_and(|allowed| allowed != Fetch::No);
        if !allowed {
            return None;
        }
        let size = process.models.size(digest).await.ok()??;
        process.models.read(digest, 0..size).await.ok().map(|bytes| bytes.to_vec())
    }
}
