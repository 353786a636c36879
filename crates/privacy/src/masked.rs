//! What both ends of a round with secure aggregation need besides its state machines: which session a round's header
//! asks for, how an update as plain mode has it becomes levels to mask, and how a masked update lies in a file.
//!
//! A masked update is a head of [`HEAD_BYTES`], in which its site signed root and length of the vector, and then the
//! vector, block after block: one upload says what it is and who stands for it. The head is the length of the message
//! (u32, little-endian), the message ([`Sent::Input`]), and zeros.

use hospes_protocol::canon::Canonical;
use hospes_protocol::limits;
use hospes_protocol::plan::ROW_WEIGHT_BYTES;
use hospes_protocol::round::RoundHeader;
use zeroize::Zeroizing;

use crate::quantise::ENTRY_BYTES;
use crate::secagg::{Block, Layout, Masked, Prg, Refusal, Sent, Setup};

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
    if header.roster.len() > limits::SECURE_SITES {
        return Err(Refusal::Unusable { field: "roster", reason: "this version takes at most 128 sites" });
    }
    let setup = Setup::new(header, &vec![header.quantise.clip; header.tensors.len()], PRG, None)?;
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
    use hospes_protocol::id::{Digest, JobId, SiteId, StudyId, Timestamp};
    use hospes_protocol::plan::Quantise;
    use hospes_protocol::plan::model::TensorShape;
    use hospes_protocol::round::{Mode, RosterEntry};
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
