//! What both ends of a round with secure aggregation need besides its state machines: which session a round's header
//! asks for, how an update as plain mode has it becomes levels to mask, and how a masked update lies in a file.
//!
//! A masked update is a head of [`HEAD_BYTES`], in which its site signed root and length of the vector, and then the
//! vector, block after block: one upload says what it is and who stands for it. The head is the length of the message
//! (u32, little-endian), the message ([`Sent::Input`]), and zeros.

use hospes_protocol::canon::Canonical;
use hospes_protocol::id::Digest;
use hospes_protocol::limits;
use hospes_protocol::plan::{self, Component, Plan, ROW_WEIGHT_BYTES};
use hospes_protocol::round::{Mode, RoundHeader};
use zeroize::Zeroizing;

use crate::PrivacyError;
use crate::dp::{DiscreteGaussian, Source, Training};
use crate::quantise::ENTRY_BYTES;
use crate::secagg::{Block, Layout, Masked, Member, Noise, Prg, Refusal, Sent, Setup};

/// Bytes of the head of a masked update.
pub const HEAD_BYTES: usize = 1024;
/// What makes the masks of every round of this version; a header that could name another one would need a field of its
/// own.
const PRG: Prg = Prg::Aes128Ctr;

/// The session that a round's header asks for. Site and coordinator both ask here, so that they cannot differ: the
/// header says who takes part in what, and everything else follows by rule.
///
/// # Errors
/// A [`Refusal`] names what nobody could take part in.
///
/// # Disclosure
/// Only what the round's header says, which every party has; nothing of any rows.
pub fn session(header: &RoundHeader) -> Result<Canonical<Setup>, Refusal> {
    with_noise(header, None)
}

/// The session that a round's header asks for, with the noise that its plan has the sites share.
///
/// # Errors
/// As [`session`], also if there is no such noise.
///
/// # Disclosure
/// Only what header and plan say, which every party has; nothing of any rows.
pub fn session_of(header: &RoundHeader, plan: &Plan) -> Result<Canonical<Setup>, Refusal> {
    with_noise(header, noise(header, plan)?)
}

/// The noise that a plan has the sites of a round share; `None` if each adds its own, or none. As many may be missing after
/// they masked as the round can do without.
///
/// # Errors
/// [`Refusal::Unusable`] if it cannot be accounted for.
///
/// # Disclosure
/// A function of parameters, not of rows.
pub fn noise(header: &RoundHeader, plan: &Plan) -> Result<Option<Noise>, Refusal> {
    let Mode::SecureAggregation { t, k_min, .. } = header.mode else { return Ok(None) };
    let Some(Component::NnTrain(train)) = plan.tasks.get(&header.task).map(|task| &task.component) else {
        return Ok(None);
    };
    let unusable = |_: PrivacyError| Refusal::Unusable {
        field: "noise",
        reason: "it has too few or too many steps; write another quantise.clip",
    };
    let sigma = Training::shared(train, plan::inputs(plan, &header.task)).map_err(unusable)?;
    let sites = u32::try_from(header.roster.len()).unwrap_or(u32::MAX);
    Ok(sigma.map(|sigma_steps| Noise { sigma_steps, d_max: sites.saturating_sub(t.max(k_min)) }))
}

/// This site's part of a session's noise, for each entry of its update, before that is masked; `None` where it adds none.
/// `secret`: random bytes of this session alone, so that a restart draws the same again, as what is masked is said once.
///
/// # Errors
/// As [`Member::masker`], and [`Refusal::Unusable`] if no such noise can be drawn.
///
/// # Disclosure
/// Noise: whoever learns it takes it off. It is added, and forgotten.
pub fn own_noise(member: &Member, secret: &Zeroizing<[u8; 32]>) -> Result<Option<(DiscreteGaussian, Source)>, Refusal> {
    let deviation = member.noise_deviation()?;
    if deviation <= 0.0 {
        return Ok(None);
    }
    let unusable = |_: PrivacyError| Refusal::Unusable { field: "noise", reason: "no such noise can be drawn" };
    let gaussian = DiscreteGaussian::new(deviation).map_err(unusable)?;
    Ok(Some((gaussian, Source::new(secret, &Digest::of(b"hospes/secagg/noise/v1")))))
}

fn with_noise(header: &RoundHeader, noise: Option<Noise>) -> Result<Canonical<Setup>, Refusal> {
    if header.roster.len() > limits::SECURE_SITES {
        return Err(Refusal::Unusable { field: "roster", reason: "this version takes at most 128 sites" });
    }
    let setup = Setup::new(header, &vec![header.quantise.clip; header.tensors.len()], PRG, noise)?;
    Canonical::new(setup).map_err(|e| Refusal::Unreadable(e.to_string()))
}

/// Bytes of a whole masked update.
///
/// # Disclosure
/// Only what the round's header says: the length does not depend on rows.
pub fn file_bytes(layout: &Layout) -> u64 {
    layout.bytes().saturating_add(HEAD_BYTES as u64)
}

/// The head of a masked update, of the bytes of its site's [`Sent::Input`].
///
/// # Errors
/// [`Refusal::Unreadable`] if the message is longer than any such message.
///
/// # Disclosure
/// The same message in another form.
pub fn head(message: &[u8]) -> Result<Vec<u8>, Refusal> {
    let length = u32::try_from(message.len()).ok().filter(|length| *length as usize + 4 <= HEAD_BYTES);
    let length = length.ok_or_else(|| Refusal::Unreadable("it is too long for the head of an update".to_owned()))?;
    let mut head = length.to_le_bytes().to_vec();
    head.extend_from_slice(message);
    head.resize(HEAD_BYTES, 0);
    Ok(head)
}

/// What the head of a masked update says: the site's message, and what it signs in it of the vector. The signature is not
/// checked here.
///
/// # Errors
/// [`Refusal::Unreadable`] says what did not fit.
///
/// # Disclosure
/// The same message in another form.
pub fn read_head(head: &[u8]) -> Result<(Sent, Masked), Refusal> {
    let wrong = |reason: &str| Refusal::Unreadable(reason.to_owned());
    let (length, rest) = head.split_first_chunk::<4>().ok_or_else(|| wrong("the head of the update is too short"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (message, zeros) = rest.split_at_checked(length).ok_or_else(|| wrong("the head of the update is too long"))?;
    if head.len() != HEAD_BYTES || zeros.iter().any(|byte| *byte != 0) {
        return Err(wrong("something follows the message in the head of the update"));
    }
    let sent = Sent::from_bytes(message)?;
    let Sent::Input(input) = &sent else { return Err(wrong("the head of the update is no message of its step")) };
    let masked = Masked { root: input.document.root, bytes: input.document.bytes };
    Ok((sent, masked))
}

/// Bytes of the levels of a block, as [`Quantiser::encode`](crate::quantise::Quantiser::encode) makes an update: the row
/// weight of eight bytes, every entry of four.
///
/// # Disclosure
/// Only what the round's header says.
pub fn level_bytes(block: &Block) -> usize {
    let each = if block.part == 0 { ROW_WEIGHT_BYTES } else { ENTRY_BYTES };
    block.entries.saturating_mul(usize::try_from(each).unwrap_or(usize::MAX))
}

/// The levels of a block, from their bytes.
///
/// # Shapes
/// `bytes` has [`level_bytes`] of the block; what is left over is not read.
///
/// # Disclosure
/// The update itself: it is masked before it leaves.
pub fn levels(block: &Block, bytes: &[u8]) -> Zeroizing<Vec<u64>> {
    Zeroizing::new(match block.part {
        0 => bytes.as_chunks::<8>().0.iter().map(|level| u64::from_le_bytes(*level)).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|level| u64::from(u32::from_le_bytes(*level))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::id::{JobId, SiteId, StudyId, Timestamp};
    use hospes_protocol::plan::Quantise;
    use hospes_protocol::plan::model::TensorShape;
    use hospes_protocol::round::RosterEntry;
    use hospes_protocol::sign::{SecretKey, Signed};
    use hospes_protocol::version::Version;

    use crate::quantise::Quantiser;
    use crate::secagg::Input;

    fn header(sites: u8) -> RoundHeader {
        let identity = |n: u8| SecretKey::from_seed(&[n + 1; 32]).public();
        RoundHeader {
            protocol: Version::V1,
            federation: SiteId::of_key(&[0; 32]),
            study: StudyId::new(Timestamp::from_millis(1), [1; 10]),
            job: JobId::new(Timestamp::from_millis(2), [2; 10]),
            task: "train".into(),
            epoch: 1,
            round: 1,
            attempt: 1,
            model: Some(Digest::of(b"model")),
            plan: Digest::of(b"plan"),
            roster: (0..sites).map(identity).map(|key| RosterEntry { site: key.site_id(), identity: key }).collect(),
            mode: Mode::SecureAggregation { c: 1, t: 3, k_min: 3 },
            tensors: vec![TensorShape { name: "0.weight".into(), shape: vec![2, 3] }],
            quantise: Quantise { clip: 4.0, bits: 32, n_max: 100 },
            deadline: Timestamp::from_millis(1_000),
        }
    }

    #[test]
    fn an_update_of_plain_mode_is_read_as_the_levels_that_are_masked() {
        let setup = session(&header(4)).unwrap();
        let layout = setup.layout().unwrap();
        let values = [0.0f32, 1.0, -4.0, 100.0, -0.25, 3.5];
        let plain = Quantiser::new(&header(4).quantise).unwrap();
        let bytes = plain.encode(50, &header(4).tensors, &[&values], &mut || 0).unwrap().into_bytes();
        let mut rest = bytes.as_slice();
        let mut read = Vec::new();
        for block in layout.blocks() {
            let (mine, others) = rest.split_at(level_bytes(&block));
            read.extend(levels(&block, mine).iter().copied());
            rest = others;
        }
        assert!(rest.is_empty(), "both ways have the same entries");
        assert_eq!(read[0], 50);
        let entries = bytes[8..].as_chunks::<4>().0.iter().map(|b| u64::from(u32::from_le_bytes(*b)));
        assert!(read[1..].iter().copied().eq(entries));
        // 34 bits hold the sum of four sites' 32.
        assert_eq!(file_bytes(&layout), 1024 + 2 + 26);
    }

    #[test]
    fn entries_of_16_bits_of_a_hundred_sites_take_three_quarters_of_32_bits() {
        let entries = 100_000;
        let header = RoundHeader {
            mode: Mode::SecureAggregation { c: 33, t: 67, k_min: 35 },
            tensors: vec![TensorShape { name: "0.weight".into(), shape: vec![entries] }],
            quantise: Quantise { bits: 16, ..header(100).quantise },
            ..header(100)
        };
        let layout = session(&header).unwrap().layout().unwrap();
        // The sum of a hundred levels has 23 bits (specs/performance.md).
        assert_eq!(file_bytes(&layout), 1024 + 2 + (entries * 23).div_ceil(8));
        assert!(file_bytes(&layout) * 4 <= Quantiser::payload_bytes(entries) * 3);
    }

    #[test]
    fn a_head_gives_back_its_message_and_nothing_else_passes_for_one() {
        let input =
            Input { sid: Digest::of(b"sid"), from: 3, peers: Digest::of(b"u2"), root: Digest::of(b"r"), bytes: 9 };
        let sent = Sent::Input(Signed::new(input, &SecretKey::from_seed(&[4; 32])).unwrap());
        let message = sent.to_bytes().unwrap();
        let whole = head(&message).unwrap();
        assert_eq!(whole.len(), HEAD_BYTES);
        let (again, masked) = read_head(&whole).unwrap();
        assert_eq!((again.to_bytes().unwrap(), masked.root, masked.bytes), (message.clone(), Digest::of(b"r"), 9));
        let mut padded = whole.clone();
        padded[HEAD_BYTES - 1] = 1;
        let mut long = whole.clone();
        long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        for wrong in [&whole[..HEAD_BYTES - 1], &padded[..], &long[..], &[0u8; HEAD_BYTES][..], &[][..]] {
            assert!(read_head(wrong).is_err());
        }
        assert!(head(&[0; HEAD_BYTES]).is_err());
    }

    fn plan(dp: &str) -> Plan {
        let text = format!(
            "schema: hospes/plan/v1
name: p
data: {{ subject: id, label: {{ column: y, positive: '> 0' }}, columns: [a, b] }}
tasks:
  read: {{ component: reader }}
  train:
    component: nn_train
    inputs: {{ train: read }}
    params:
      model: [{{ linear: {{ out: 1 }} }}]
      loss: binary_cross_entropy
      optimizer: {{ sgd: {{ lr: 0.1 }} }}
      rounds: 20
      local: {{ updates: 1, batch: 8 }}
      strategy: {{ fed_avg: {{}} }}
      privacy: {{ secure_aggregation: {{}} }}
      dp: {{ {dp}, delta: 1.0e-5, clip_norm_l2: 1.0, sampling_rate: 0.1, expected_batch: 8 }}
"
        );
        plan::read(&text).unwrap()
    }

    #[test]
    fn a_session_has_the_noise_of_its_plan_and_is_another_without() {
        let shared = plan("mode: distributed, noise_multiplier: 2.0");
        let found = noise(&header(4), &shared).unwrap().unwrap();
        // Of four, one may be missing after it masked (specs/differential-privacy.md).
        assert_eq!(found.d_max, 1);
        assert!(found.sigma_steps > 1e5, "{found:?}");
        assert_eq!(noise(&header(10), &shared).unwrap().map(|noise| noise.d_max), Some(7), "its t is 3");
        let own = plan("mode: local, noise_multiplier: 2.0");
        assert_eq!(noise(&header(4), &own).unwrap(), None);
        let with = session_of(&header(4), &shared).unwrap();
        let without = session_of(&header(4), &own).unwrap();
        assert_ne!(with.digest(), without.digest());
        assert_eq!(without.digest(), session(&header(4)).unwrap().digest());
        assert!(with.tensors[0].width >= without.tensors[0].width && with.noise == Some(found));
    }

    #[test]
    fn headers_that_give_no_session_are_refused() {
        let plain = RoundHeader { mode: Mode::Plain { k_min: 3 }, ..header(4) };
        assert!(matches!(session(&plain), Err(Refusal::Unusable { field: "mode", .. })));
        assert!(matches!(session(&header(129)), Err(Refusal::Unusable { field: "roster", .. })));
        let few = RoundHeader { mode: Mode::SecureAggregation { c: 1, t: 2, k_min: 3 }, ..header(4) };
        assert!(matches!(session(&few), Err(Refusal::Unusable { field: "t", .. })));
        assert!(session(&header(2)).is_err());
    }
}
