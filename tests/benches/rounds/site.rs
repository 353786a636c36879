//! A scripted site: the real link and real permits; instead of training, a payload of noise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use hospes_party::link::{
    self, Enrolled, ExtraCa, LinkCommand, LinkConfig, LinkEvent, ProxyChoice, Reach, Reached, Timing,
};
use hospes_party::system_clock;
use hospes_protocol::approval::{
    Approval, ApprovalDocument, ApprovalSignature, ApprovalState, Circumstances, Computation, DataScope, Envelope,
    Peer, Permit, PrivacyStatement, ReleaseRule, Role, RunLimits, Signer, SnapshotFacts, Spent, Trust,
};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, Digest, PersonId, Timestamp};
use hospes_protocol::message::{Decision, FromSite, RoundReply, SecureMessage, ToSite, Upload, UploadKind};
use hospes_protocol::plan;
use hospes_protocol::policy::Policy;
use hospes_protocol::round::RoundHeader;
use hospes_protocol::sign::SecretKey;
use hospes_protocol::study::Study;
use tokio::sync::mpsc;

use crate::masks::{Answer, Parts};
use crate::witness::Witnessed;

/// Rows that every site claims; the plan's `n_max` too, so that every value of the quantiser is within bounds.
pub(crate) const ROWS: u64 = 1_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What all sites do alike.
#[derive(Clone)]
pub(crate) struct Script {
    /// Where payloads and models lie.
    pub(crate) folder: PathBuf,
    /// Whether each site writes a new payload in every round.
    pub(crate) fresh: bool,
}

/// An enrolled site.
pub(crate) struct Site {
    pub(crate) number: usize,
    enrolled: Enrolled,
}

impl Site {
    pub(crate) async fn enrol(number: usize, invitation: &str, words: &str) -> Result<Self> {
        let key = SecretKey::from_seed(&seed(number, 1));
        let reach = Reach::new(ProxyChoice::None, system_clock());
        let organisation = format!("Organisation {number}");
        let reached = Reached::by(invitation.parse()?, words, &reach).await?;
        let enrolled = reached.enrol(&organisation, &key).await?;
        Ok(Self { number, enrolled })
    }

    /// Takes part until the job has ended, and tells when each round was opened.
    pub(crate) async fn play(
        self,
        script: Script,
        opened: Option<mpsc::UnboundedSender<(u32, Instant)>>,
    ) -> Result<()> {
        let (events, mut heard) = mpsc::channel(256);
        let say = link::spawn(self.link(), events);
        let mut study = None;
        let mut round: Option<Canonical<RoundHeader>> = None;
        let key = SecretKey::from_seed(&seed(self.number, 1));
        let mut parts = Parts::new(key, &script.folder, self.number);
        let mut witnessed = Witnessed::new(SecretKey::from_seed(&seed(self.number, 1)), self.enrolled.coordinator);
        while let Some((_, event)) = heard.recv().await {
            if let LinkEvent::Message(message) = &event
                && let Some(reply) = witnessed.hear(message)
            {
                say.send(LinkCommand::Send(FromSite::Witness(reply))).await?;
            }
            match event {
                LinkEvent::MayLeave { reply, .. } => {
                    reply.send(Ok(())).ok().context("the link does not wait for the answer")?;
                }
                LinkEvent::UploadRefused { reason, .. } | LinkEvent::DownloadFailed { reason, .. } => bail!(reason),
                LinkEvent::Downloaded { path, .. } => {
                    std::fs::remove_file(path)?;
                    let (Some(study), Some(header)) = (&study, &round) else { bail!("a model that nobody asked for") };
                    if header.is_secure() {
                        let answer = parts.begin(header)?;
                        self.give(&say, study, header, answer).await?;
                    } else {
                        self.answer(&script, &say, study, header).await?;
                    }
                }
                LinkEvent::Message(ToSite::Relay { round: of, message }) => {
                    let (Some(study), Some(header)) = (&study, &round) else { bail!("a step of no round") };
                    if header.key() == of {
                        let answer = parts.hear(header, message.bytes())?;
                        self.give(&say, study, header, answer).await?;
                    }
                }
                LinkEvent::Message(ToSite::Study(offered)) => {
                    let approval = offered.document.digest();
                    let expires = system_clock()().plus_millis(DAY_MS);
                    let decision = Decision::Approved { approval, expires, one_person: false };
                    say.send(LinkCommand::Send(FromSite::Decision { study: offered.document.id, decision })).await?;
                    study = Some(offered.document);
                }
                LinkEvent::Message(ToSite::JobReserve { job, .. }) => {
                    say.send(LinkCommand::Send(FromSite::Reserved { job, refusal: None })).await?;
                }
                LinkEvent::Message(ToSite::RoundOpen(header)) => {
                    if let Some(opened) = &opened {
                        opened.send((header.document.round, Instant::now()))?;
                    }
                    let header = header.document;
                    let working = FromSite::RoundReply { round: header.key(), reply: RoundReply::Working };
                    say.send(LinkCommand::Send(working)).await?;
                    match header.model {
                        Some(digest) => {
                            let to = script.folder.join(format!("model-{}-{}", self.number, header.round));
                            say.send(LinkCommand::Download {
                                digest,
                                to,
                                most_bytes: hospes_protocol::limits::OBJECT_BYTES,
                            })
                            .await?;
                        }
                        None => self.answer(&script, &say, study.as_ref().context("no study")?, &header).await?,
                    }
                    round = Some(header);
                }
                LinkEvent::Message(ToSite::JobEnded { state, reason, .. }) => {
                    ensure!(state == "success", "the run ended as {state}: {reason:?}");
                    let _ = say.send(LinkCommand::Close).await;
                    return Ok(());
                }
                LinkEvent::Stopped { reason } => bail!(reason),
                _ => {}
            }
        }
        bail!("the link ended before the run did")
    }

    fn link(&self) -> LinkConfig {
        let enrolled = &self.enrolled;
        LinkConfig {
            federation: enrolled.federation,
            coordinator: enrolled.coordinator,
            site: enrolled.site,
            urls: vec![enrolled.url.clone()],
            ca_pem: enrolled.ca_pem.clone(),
            chain_pem: enrolled.chain_pem.clone(),
            key_pem: enrolled.key_pem.clone(),
            proxy: ProxyChoice::None,
            extra_ca: ExtraCa::None,
            epoch: 1,
            software: "benchmark".into(),
            clock: system_clock(),
            jitter_seed: self.number as u64,
            timing: Timing::default(),
        }
    }

    /// Makes the payload and hands it to the link.
    async fn answer(
        &self,
        script: &Script,
        say: &mpsc::Sender<LinkCommand>,
        study: &Canonical<Study>,
        header: &Canonical<RoundHeader>,
    ) -> Result<()> {
        let permit = self.permit(study, header)?;
        let (folder, number, fresh) = (script.folder.clone(), self.number, script.fresh);
        let (parameters, round) = (header.parameters(), header.round);
        let (path, digest, bytes) =
            tokio::task::spawn_blocking(move || payload(&folder, number, fresh, parameters, round)).await??;
        let upload = Upload::new(&permit, UploadKind::Update, digest, bytes);
        say.send(LinkCommand::Upload { upload, path }).await?;
        Ok(())
    }

    /// Gives the link what a step of a masked round led to.
    async fn give(
        &self,
        say: &mpsc::Sender<LinkCommand>,
        study: &Canonical<Study>,
        header: &Canonical<RoundHeader>,
        answer: Answer,
    ) -> Result<()> {
        match answer {
            Answer::Nothing => {}
            Answer::Say(message) => {
                let message = SecureMessage::new(message);
                say.send(LinkCommand::Send(FromSite::SecureStep { round: header.key(), message })).await?;
            }
            Answer::Upload { path, digest, bytes } => {
                let upload = Upload::new(&self.permit(study, header)?, UploadKind::Update, digest, bytes);
                say.send(LinkCommand::Upload { upload, path }).await?;
            }
        }
        Ok(())
    }

    fn permit(&self, study: &Canonical<Study>, header: &Canonical<RoundHeader>) -> Result<Permit> {
        let now = system_clock()();
        let policy = Policy::public_data();
        let (snapshot, columns) = (Digest::of(b"snapshot"), plan::columns_read(&study.plan));
        let peers = header.roster.iter().filter(|entry| entry.site != self.enrolled.site);
        let peers = peers.map(|entry| Peer {
            site: entry.site,
            name: "peer".into(),
            organisation: "peer".into(),
            identity: entry.identity,
            trust: Trust::AssertedOnly,
        });
        let document = Canonical::new(ApprovalDocument {
            id: ApprovalId::new(now, [1; 10]),
            at: now,
            four_eyes: policy.approval.four_eyes,
            opinion: None,
            envelope: Envelope {
                federation: self.enrolled.federation,
                site: self.enrolled.site,
                study: study.id,
                study_digest: study.digest(),
                terms: study.terms.clone(),
                roster: peers.collect(),
                computation: Computation {
                    plan: study.plan.clone(),
                    ranges: BTreeMap::new(),
                    max_runs: 1,
                    settings: BTreeSet::new(),
                },
                data: DataScope {
                    dataset: "none".into(),
                    snapshot,
                    columns: columns.clone(),
                    columns_available: 12,
                    subjects: ROWS,
                    series: None,
                },
                egress: plan::egress(&study.plan),
                privacy: PrivacyStatement { secure_aggregation: false, unprotected: Vec::new() },
                limits: RunLimits { not_before: now, expires: now.plus_millis(DAY_MS), round_seconds: 3_600 },
                policy: policy.digest()?,
                release: ReleaseRule::Automatic,
                checklist: BTreeMap::new(),
            },
        })?;
        let (signatures, signers) = self.people(document.digest(), now)?;
        let circumstances = Circumstances {
            now,
            plan: study.plan.clone(),
            header: header.clone(),
            snapshot: SnapshotFacts { digest: snapshot, columns, subjects: ROWS, public: true, version: None },
            policy,
            state: ApprovalState::Active,
            spent: Spent { epoch: header.epoch, ..Spent::default() },
            signers,
            peers: BTreeMap::new(),
            stopped: None,
        };
        Approval { document, signatures }.permit(&circumstances).map_err(Into::into)
    }

    /// The two people who sign.
    fn people(&self, approval: Digest, at: Timestamp) -> Result<(Vec<ApprovalSignature>, Vec<Signer>)> {
        let mut signed = (Vec::new(), Vec::new());
        for (who, role) in [(2, Role::DataSteward), (3, Role::DataAccessApprover)] {
            let (key, person) = (SecretKey::from_seed(&seed(self.number, who)), PersonId::new(at, [who; 10]));
            signed.0.push(ApprovalSignature::new(approval, person, role, at, &key)?);
            let roles = BTreeSet::from([role]);
            signed.1.push(Signer { person, key: key.public(), roles, external: false, enabled: true });
        }
        Ok(signed)
    }
}

/// A payload file: row weight, then noise, which does not compress. A new one in every round where the script wants
/// that; otherwise the first one serves for all.
fn payload(folder: &Path, number: usize, fresh: bool, parameters: u64, round: u32) -> Result<(PathBuf, Digest, u64)> {
    let name = if fresh { format!("payload-{number}-{round}") } else { format!("payload-{number}") };
    let path = folder.join(name);
    if !path.exists() {
        let mut bytes = ROWS.to_le_bytes().to_vec();
        bytes.resize(usize::try_from(parameters * 4)? + 8, 0);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (number as u64) << 32 ^ u64::from(round);
        for chunk in bytes[8..].chunks_mut(8) {
            // Marsaglia's xorshift64.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        let mut file = File::create(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        return Ok((path, Digest::of(&bytes), bytes.len() as u64));
    }
    let mut bytes = Vec::new();
    File::open(&path)?.read_to_end(&mut bytes)?;
    Ok((path, Digest::of(&bytes), bytes.len() as u64))
}

fn seed(number: usize, purpose: u8) -> [u8; 32] {
    let mut seed = [purpose; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    seed
}
