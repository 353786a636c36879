//! Between the frames of the wire and the messages of [`crate::message`]. What comes from the wire is hostile until it
//! went through here: lengths, ids and enumerations are parsed strictly, signed documents by their own rules.

use std::str::FromStr;

use super as wire;
use crate::approval::{Refusal, RefusalCode};
use crate::canon::Canonical;
use crate::id::{Digest, RoundKey, SiteId, Timestamp};
use crate::limits;
use crate::message::{
    Decision, FromSite, Hello, RoundOutcome, RoundReply, SecureMessage, ToSite, Upload, UploadKind, Welcome, Witness,
};
use crate::sign::{PublicKey, Signed};
use crate::version::Version;

/// A frame that cannot be a message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the frame's {field} {reason}")]
pub struct WireError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

fn wrong(field: &'static str, reason: impl Into<String>) -> WireError {
    WireError { field, reason: reason.into() }
}

fn need<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| wrong(field, "is missing"))
}

fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| wrong(field, format!("has {} bytes, expected {N}", bytes.len())))
}

fn parsed<T: FromStr>(field: &'static str, text: &str) -> Result<T, WireError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| wrong(field, e.to_string()))
}

fn text(field: &'static str, text: String) -> Result<String, WireError> {
    if text.chars().count() > limits::TEXT_CHARS {
        return Err(wrong(field, format!("is longer than {} characters", limits::TEXT_CHARS)));
    }
    Ok(text)
}

fn site(field: &'static str, bytes: &[u8]) -> Result<SiteId, WireError> {
    Ok(SiteId::from_bytes(fixed(field, bytes)?))
}

fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, WireError> {
    Ok(Digest::from_bytes(fixed(field, bytes)?))
}

fn signed<D: crate::canon::Document>(field: &'static str, bytes: &[u8]) -> Result<Box<Signed<D>>, WireError> {
    Signed::from_bytes(bytes).map(Box::new).map_err(|e| wrong(field, e.to_string()))
}

fn signed_bytes<D: crate::canon::Document>(field: &'static str, signed: &Signed<D>) -> Result<Vec<u8>, WireError> {
    signed.to_bytes().map_err(|e| wrong(field, e.to_string()))
}

// Refusals and keys

impl From<Refusal> for wire::Refusal {
    fn from(refusal: Refusal) -> Self {
        let code = serde_json::to_value(refusal.code).ok();
        let code = code.and_then(|c| c.as_str().map(str::to_owned)).unwrap_or_default();
        Self { code, detail: refusal.detail }
    }
}

impl TryFrom<wire::Refusal> for Refusal {
    type Error = WireError;
    fn try_from(refusal: wire::Refusal) -> Result<Self, WireError> {
        let code: RefusalCode = serde_json::from_value(serde_json::Value::String(refusal.code))
            .map_err(|_| wrong("refusal.code", "is not known here"))?;
        Ok(Self { code, detail: text("refusal.detail", refusal.detail)? })
    }
}

impl From<RoundKey> for wire::RoundKey {
    fn from(key: RoundKey) -> Self {
        Self { job: key.job.to_string(), task: key.task, epoch: key.epoch, round: key.round, attempt: key.attempt }
    }
}

impl TryFrom<wire::RoundKey> for RoundKey {
    type Error = WireError;
    fn try_from(key: wire::RoundKey) -> Result<Self, WireError> {
        if key.task.chars().count() > limits::NAME_CHARS {
            return Err(wrong("round.task", format!("is longer than {} characters", limits::NAME_CHARS)));
        }
        Ok(Self {
            job: parsed("round.job", &key.job)?,
            task: key.task,
            epoch: key.epoch,
            round: key.round,
            attempt: key.attempt,
        })
    }
}

fn round_key(key: Option<wire::RoundKey>) -> Result<RoundKey, WireError> {
    need("round", key)?.try_into()
}

// Frames of a site

/// Puts a site's message on the wire.
///
/// # Errors
/// [`WireError`] only if a document is too large to be sent.
pub fn site_frame(message: FromSite) -> Result<wire::SiteFrame, WireError> {
    use wire::site_frame::Body;
    let body = match message {
        FromSite::Hello(hello) => Body::Hello(wire::Hello {
            versions: hello.versions.into_iter().map(|v| v.0).collect(),
            site: hello.site.as_bytes().to_vec(),
            software: hello.software,
            at_ms: hello.at.as_millis(),
            epoch: hello.epoch,
        }),
        FromSite::Heartbeat { at } => Body::Heartbeat(wire::Heartbeat { at_ms: at.as_millis() }),
        FromSite::Decision { study, decision } => {
            Body::Decision(wire::Decision { study: study.to_string(), decision: Some(decision_to_wire(decision)) })
        }
        FromSite::Reserved { job, refusal } => {
            Body::Reserved(wire::Reserved { job: job.to_string(), refusal: refusal.map(Into::into) })
        }
        FromSite::RoundReply { round, reply } => Body::RoundReply(wire::RoundReply {
            round: Some(round.into()),
            reply: Some(match reply {
                RoundReply::Working => wire::round_reply::Reply::Working(wire::Empty {}),
                RoundReply::Refused(refusal) => wire::round_reply::Reply::Refused(refusal.into()),
                RoundReply::Failed(reason) => wire::round_reply::Reply::Failed(reason),
                RoundReply::Withdrawn(refusal) => wire::round_reply::Reply::Withdrawn(refusal.into()),
            }),
        }),
        FromSite::Progress { round, done, total } => {
            Body::Progress(wire::Progress { round: Some(round.into()), done, total })
        }
        FromSite::Release { job } => Body::Release(wire::Release { job: job.to_string() }),
        FromSite::SecureStep { round, message } => Body::SecureStep(secure_step(round, message)),
        FromSite::Vouch(vouch) => Body::Vouch(signed_bytes("vouch", &vouch)?),
        FromSite::Witness(witness) => Body::Witness(witness.into()),
        FromSite::Goodbye => Body::Goodbye(wire::Goodbye { reason: String::new() }),
    };
    Ok(wire::SiteFrame { body: Some(body) })
}

/// Reads a site's frame.
///
/// # Errors
/// [`WireError`] names the field.
pub fn from_site(frame: wire::SiteFrame) -> Result<FromSite, WireError> {
    use wire::site_frame::Body;
    Ok(match need("body", frame.body)? {
        Body::Hello(hello) => FromSite::Hello(Hello {
            versions: hello.versions.into_iter().take(64).map(Version).collect(),
            site: site("hello.site", &hello.site)?,
            software: text("hello.software", hello.software)?,
            at: Timestamp::from_millis(hello.at_ms),
            epoch: hello.epoch,
        }),
        Body::Heartbeat(beat) => FromSite::Heartbeat { at: Timestamp::from_millis(beat.at_ms) },
        Body::Decision(decision) => FromSite::Decision {
            study: parsed("decision.study", &decision.study)?,
            decision: decision_from_wire(need("decision", decision.decision)?)?,
        },
        Body::Reserved(reserved) => FromSite::Reserved {
            job: parsed("reserved.job", &reserved.job)?,
            refusal: reserved.refusal.map(TryInto::try_into).transpose()?,
        },
        Body::RoundReply(reply) => FromSite::RoundReply {
            round: round_key(reply.round)?,
            reply: match need("round_reply.reply", reply.reply)? {
                wire::round_reply::Reply::Working(_) => RoundReply::Working,
                wire::round_reply::Reply::Refused(refusal) => RoundReply::Refused(refusal.try_into()?),
                wire::round_reply::Reply::Failed(reason) => RoundReply::Failed(text("round_reply.failed", reason)?),
                wire::round_reply::Reply::Withdrawn(refusal) => RoundReply::Withdrawn(refusal.try_into()?),
            },
        },
        Body::Progress(progress) => {
            FromSite::Progress { round: round_key(progress.round)?, done: progress.done, total: progress.total }
        }
        Body::Release(release) => FromSite::Release { job: parsed("release.job", &release.job)? },
        Body::SecureStep(step) => {
            FromSite::SecureStep { round: round_key(step.round)?, message: SecureMessage::new(step.message) }
        }
        Body::Vouch(bytes) => FromSite::Vouch(signed("vouch", &bytes)?),
        Body::Witness(witness) => FromSite::Witness(witness.try_into()?),
        Body::Goodbye(_) => FromSite::Goodbye,
    })
}

fn secure_step(round: RoundKey, message: SecureMessage) -> wire::SecureStep {
    wire::SecureStep { round: Some(round.into()), message: message.into_bytes() }
}

fn decision_to_wire(decision: Decision) -> wire::decision::Decision {
    use wire::decision::Decision as Wire;
    match decision {
        Decision::Approved { approval, expires, one_person } => Wire::Approved(wire::Approved {
            approval: approval.as_bytes().to_vec(),
            expires_ms: expires.as_millis(),
            one_person,
        }),
        Decision::Refused(refusal) => Wire::Refused(refusal.into()),
        Decision::Suspended => Wire::Suspended(wire::Empty {}),
        Decision::Revoked => Wire::Revoked(wire::Empty {}),
        Decision::Expired => Wire::Expired(wire::Empty {}),
    }
}

fn decision_from_wire(decision: wire::decision::Decision) -> Result<Decision, WireError> {
    use wire::decision::Decision as Wire;
    Ok(match decision {
        Wire::Approved(approved) => Decision::Approved {
            approval: digest("decision.approval", &approved.approval)?,
            expires: Timestamp::from_millis(approved.expires_ms),
            one_person: approved.one_person,
        },
        Wire::Refused(refusal) => Decision::Refused(refusal.try_into()?),
        Wire::Suspended(_) => Decision::Suspended,
        Wire::Revoked(_) => Decision::Revoked,
        Wire::Expired(_) => Decision::Expired,
    })
}

// Frames of the coordinator

/// Puts a coordinator's message on the wire.
///
/// # Errors
/// [`WireError`] only if a document is too large to be sent.
pub fn coordinator_frame(message: ToSite) -> Result<wire::CoordinatorFrame, WireError> {
    use wire::coordinator_frame::Body;
    let job = |job: crate::id::JobId| wire::Job { job: job.to_string() };
    let body = match message {
        ToSite::Welcome(welcome) => Body::Welcome(wire::Welcome {
            version: welcome.version.0,
            federation: welcome.federation.as_bytes().to_vec(),
            identity: welcome.identity.as_bytes().to_vec(),
            at_ms: welcome.at.as_millis(),
            epoch: welcome.epoch,
        }),
        ToSite::Heartbeat { at } => Body::Heartbeat(wire::Heartbeat { at_ms: at.as_millis() }),
        ToSite::Roster(roster) => Body::Roster(signed_bytes("roster", &roster)?),
        ToSite::Vouch(vouch) => Body::Vouch(signed_bytes("vouch", &vouch)?),
        ToSite::Study(study) => Body::Study(signed_bytes("study", &study)?),
        ToSite::StudyWithdrawn { study } => Body::StudyWithdrawn(wire::StudyWithdrawn { study: study.to_string() }),
        ToSite::JobReserve { job, study, plan } => Body::JobReserve(wire::JobReserve {
            job: job.to_string(),
            study: study.to_string(),
            plan: plan.bytes().to_vec(),
        }),
        ToSite::JobStart { job: id } => Body::JobStart(job(id)),
        ToSite::JobRollback { job: id } => Body::JobRollback(job(id)),
        ToSite::RoundOpen(header) => Body::RoundOpen(signed_bytes("round_open", &header)?),
        ToSite::Relay { round, message } => Body::Relay(secure_step(round, message)),
        ToSite::RoundClosed { round, outcome } => Body::RoundClosed(wire::RoundClosed {
            round: Some(round.into()),
            outcome: Some(match outcome {
                RoundOutcome::Published { model, included } => {
                    wire::round_closed::Outcome::Published(wire::Published {
                        model: model.map(|m| m.as_bytes().to_vec()),
                        included: included.iter().map(|s| s.as_bytes().to_vec()).collect(),
                    })
                }
                RoundOutcome::Abandoned(reason) => wire::round_closed::Outcome::Abandoned(reason),
            }),
        }),
        ToSite::JobEnded { job, state, reason, model } => Body::JobEnded(wire::JobEnded {
            job: job.to_string(),
            state,
            reason,
            model: model.map(|m| m.as_bytes().to_vec()),
        }),
        ToSite::Witness(witness) => Body::Witness(witness.into()),
        ToSite::Goodbye { reason } => Body::Goodbye(wire::Goodbye { reason }),
    };
    Ok(wire::CoordinatorFrame { body: Some(body) })
}

/// Reads a coordinator's frame.
///
/// # Errors
/// [`WireError`] names the field.
pub fn to_site(frame: wire::CoordinatorFrame) -> Result<ToSite, WireError> {
    use wire::coordinator_frame::Body;
    Ok(match need("body", frame.body)? {
        Body::Welcome(welcome) => ToSite::Welcome(Welcome {
            version: Version(welcome.version),
            federation: site("welcome.federation", &welcome.federation)?,
            identity: PublicKey::from_bytes(fixed("welcome.identity", &welcome.identity)?),
            at: Timestamp::from_millis(welcome.at_ms),
            epoch: welcome.epoch,
        }),
        Body::Heartbeat(beat) => ToSite::Heartbeat { at: Timestamp::from_millis(beat.at_ms) },
        Body::Roster(bytes) => ToSite::Roster(signed("roster", &bytes)?),
        Body::Vouch(bytes) => ToSite::Vouch(signed("vouch", &bytes)?),
        Body::Study(bytes) => ToSite::Study(signed("study", &bytes)?),
        Body::StudyWithdrawn(withdrawn) => ToSite::StudyWithdrawn { study: parsed("study", &withdrawn.study)? },
        Body::JobReserve(reserve) => ToSite::JobReserve {
            job: parsed("job_reserve.job", &reserve.job)?,
            study: parsed("job_reserve.study", &reserve.study)?,
            plan: Box::new(Canonical::parse(&reserve.plan).map_err(|e| wrong("job_reserve.plan", e.to_string()))?),
        },
        Body::JobStart(job) => ToSite::JobStart { job: parsed("job", &job.job)? },
        Body::JobRollback(job) => ToSite::JobRollback { job: parsed("job", &job.job)? },
        Body::RoundOpen(bytes) => ToSite::RoundOpen(signed("round_open", &bytes)?),
        Body::Relay(relay) => {
            ToSite::Relay { round: round_key(relay.round)?, message: SecureMessage::new(relay.message) }
        }
        Body::RoundClosed(closed) => ToSite::RoundClosed {
            round: round_key(closed.round)?,
            outcome: match need("round_closed.outcome", closed.outcome)? {
                wire::round_closed::Outcome::Published(published) => outcome_from_wire(published)?,
                wire::round_closed::Outcome::Abandoned(reason) => {
                    RoundOutcome::Abandoned(text("round_closed.abandoned", reason)?)
                }
            },
        },
        Body::JobEnded(ended) => ToSite::JobEnded {
            job: parsed("job_ended.job", &ended.job)?,
            state: text("job_ended.state", ended.state)?,
            reason: ended.reason.map(|r| text("job_ended.reason", r)).transpose()?,
            model: ended.model.map(|m| digest("job_ended.model", &m)).transpose()?,
        },
        Body::Witness(witness) => ToSite::Witness(witness.try_into()?),
        Body::Goodbye(goodbye) => ToSite::Goodbye { reason: text("goodbye.reason", goodbye.reason)? },
    })
}

fn outcome_from_wire(published: wire::Published) -> Result<RoundOutcome, WireError> {
    if published.included.len() > limits::ROSTER_SITES {
        return Err(wrong("published.included", format!("names more than {} sites", limits::ROSTER_SITES)));
    }
    Ok(RoundOutcome::Published {
        model: published.model.map(|m| digest("published.model", &m)).transpose()?,
        included: published.included.iter().map(|s| site("published.included", s)).collect::<Result<_, _>>()?,
    })
}

// Witnessing

/// Nodes of a consistency proof of the largest log; a longer one is refused.
const PROOF_NODES: usize = 128;

impl From<Witness> for wire::Witness {
    fn from(witness: Witness) -> Self {
        use wire::witness::Body;
        let (origin, body) = match witness {
            Witness::Show { origin, checkpoint, old_size, proof } => {
                let proof = proof.iter().map(|d| d.as_bytes().to_vec()).collect();
                (origin, Body::Show(wire::Show { checkpoint, old_size, proof }))
            }
            Witness::ProveFrom { origin, size } => (origin, Body::ProveFrom(size)),
            Witness::Cosigned { origin, size, witness, cosignature } => {
                (origin, Body::Cosigned(wire::Cosigned { size, witness: witness.as_bytes().to_vec(), cosignature }))
            }
            Witness::Contradiction { origin, witness, detail } => {
                (origin, Body::Contradiction(wire::Contradiction { witness: witness.as_bytes().to_vec(), detail }))
            }
        };
        Self { origin: origin.as_bytes().to_vec(), body: Some(body) }
    }
}

impl TryFrom<wire::Witness> for Witness {
    type Error = WireError;
    fn try_from(witness: wire::Witness) -> Result<Self, WireError> {
        use wire::witness::Body;
        let origin = site("witness.origin", &witness.origin)?;
        Ok(match need("witness.body", witness.body)? {
            Body::Show(show) => {
                if show.proof.len() > PROOF_NODES {
                    return Err(wrong("witness.proof", format!("has more than {PROOF_NODES} nodes")));
                }
                let proof = show.proof.iter().map(|d| digest("witness.proof", d)).collect::<Result<_, _>>()?;
                let checkpoint = show.checkpoint;
                if checkpoint.len() > limits::CHECKPOINT_BYTES {
                    let reason = format!("is longer than {} bytes", limits::CHECKPOINT_BYTES);
                    return Err(wrong("witness.checkpoint", reason));
                }
                Self::Show { origin, checkpoint, old_size: show.old_size, proof }
            }
            Body::ProveFrom(size) => Self::ProveFrom { origin, size },
            Body::Cosigned(cosigned) => Self::Cosigned {
                origin,
                size: cosigned.size,
                witness: site("witness.witness", &cosigned.witness)?,
                cosignature: text("witness.cosignature", cosigned.cosignature)?,
            },
            Body::Contradiction(contradiction) => Self::Contradiction {
                origin,
                witness: site("witness.witness", &contradiction.witness)?,
                detail: text("witness.detail", contradiction.detail)?,
            },
        })
    }
}

// Uploads

/// What the coordinator is told about an upload before its bytes come. Unlike [`Upload`] it proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// What it is.
    pub kind: UploadKind,
    /// Study.
    pub study: crate::id::StudyId,
    /// Round.
    pub round: RoundKey,
    /// SHA-256 of the payload.
    pub digest: Digest,
    /// Length of the payload.
    pub bytes: u64,
}

impl From<&Upload> for wire::UploadHeader {
    fn from(upload: &Upload) -> Self {
        let kind = match upload.kind() {
            UploadKind::Update => wire::upload_header::Kind::Update,
            UploadKind::Figures => wire::upload_header::Kind::Figures,
        };
        Self {
            kind: kind.into(),
            study: upload.study().to_string(),
            round: Some(upload.round().clone().into()),
            digest: upload.digest().as_bytes().to_vec(),
            length: upload.bytes(),
        }
    }
}

impl TryFrom<wire::UploadHeader> for Announced {
    type Error = WireError;
    fn try_from(header: wire::UploadHeader) -> Result<Self, WireError> {
        let kind = match header.kind() {
            wire::upload_header::Kind::Update => UploadKind::Update,
            wire::upload_header::Kind::Figures => UploadKind::Figures,
            wire::upload_header::Kind::Unspecified => return Err(wrong("upload.kind", "is not known here")),
        };
        if header.length > limits::OBJECT_BYTES {
            return Err(wrong("upload.length", format!("is more than {} bytes", limits::OBJECT_BYTES)));
        }
        Ok(Self {
            kind,
            study: parsed("upload.study", &header.study)?,
            round: round_key(header.round)?,
            digest: digest("upload.digest", &header.digest)?,
            bytes: header.length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{JobId, StudyId};
    use proptest::prelude::*;
    use prost::Message;

    fn round() -> RoundKey {
        let job = JobId::new(Timestamp::from_millis(1), [3; 10]);
        RoundKey { job, task: "train".into(), epoch: 2, round: 3, attempt: 1 }
    }

    #[test]
    fn site_messages_survive_the_wire() {
        let a = SiteId::of_key(&[1; 32]);
        let messages = vec![
            FromSite::Hello(Hello {
                versions: vec![Version::V1],
                site: a,
                software: "x".into(),
                at: Timestamp::from_millis(5),
                epoch: 1,
            }),
            FromSite::Decision {
                study: StudyId::new(Timestamp::from_millis(1), [1; 10]),
                decision: Decision::Refused(Refusal::new(RefusalCode::Policy, "no")),
            },
            FromSite::RoundReply { round: round(), reply: RoundReply::Working },
            FromSite::SecureStep { round: round(), message: SecureMessage::new(vec![1, 2, 3]) },
            FromSite::Witness(Witness::Show {
                origin: a,
                checkpoint: "c".into(),
                old_size: 1,
                proof: vec![Digest::of(b"x")],
            }),
            FromSite::Goodbye,
        ];
        for message in messages {
            let before = format!("{message:?}");
            let frame = site_frame(message).unwrap();
            let bytes = frame.encode_to_vec();
            let after = from_site(wire::SiteFrame::decode(&bytes[..]).unwrap()).unwrap();
            assert_eq!(before, format!("{after:?}"));
        }
    }

    #[test]
    fn coordinator_messages_survive_the_wire() {
        let a = SiteId::of_key(&[1; 32]);
        let messages = vec![
            ToSite::RoundClosed {
                round: round(),
                outcome: RoundOutcome::Published { model: Some(Digest::of(b"m")), included: vec![a] },
            },
            ToSite::Relay { round: round(), message: SecureMessage::new(vec![4, 5]) },
            ToSite::JobEnded { job: round().job, state: "success".into(), reason: None, model: None },
            ToSite::Witness(Witness::Cosigned { origin: a, size: 4, witness: a, cosignature: "s".into() }),
        ];
        for message in messages {
            let before = format!("{message:?}");
            let bytes = coordinator_frame(message).unwrap().encode_to_vec();
            let after = to_site(wire::CoordinatorFrame::decode(&bytes[..]).unwrap()).unwrap();
            assert_eq!(before, format!("{after:?}"));
        }
    }

    #[test]
    fn a_checkpoint_may_carry_the_cosignatures_of_a_large_federation_and_no_more_than_its_limit() {
        let with = |length: usize| {
            let checkpoint = "x".repeat(length);
            let show = Witness::Show { origin: SiteId::of_key(&[1; 32]), checkpoint, old_size: 0, proof: Vec::new() };
            to_site(coordinator_frame(ToSite::Witness(show)).unwrap())
        };
        assert!(with(134 * 1_000).is_ok(), "a thousand witnesses");
        let error = with(limits::CHECKPOINT_BYTES + 1).unwrap_err();
        assert_eq!(error.field, "witness.checkpoint");
    }

    proptest! {
        #[test]
        fn frames_of_arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(frame) = wire::SiteFrame::decode(&bytes[..]) {
                let _ = from_site(frame);
            }
            if let Ok(frame) = wire::CoordinatorFrame::decode(&bytes[..]) {
                let _ = to_site(frame);
            }
            if let Ok(header) = wire::UploadHeader::decode(&bytes[..]) {
                let _ = Announced::try_from(header);
            }
        }
    }
}
