//! Witnessing: parties check that each other's ledgers only ever grow, and cosign what they saw.
//!
//! Everything here is a function of its arguments. The caller keeps what was seen last ([`Seen`]) with
//! [`crate::Ledger::put_peer`], sends the replies, and writes entries only for the first checkpoint of a peer, for a
//! contradiction and for a missed deadline: an entry for every cosignature would feed itself.

use hospes_protocol::id::{Digest, SiteId, Timestamp};
use hospes_protocol::message::Witness;
use hospes_protocol::sign::{PublicKey, SecretKey};

use crate::limits;
use crate::note::{Checkpoint, Cosignature, SignedCheckpoint};
use crate::tree::verify_consistency;

/// Longest time between two witnessings of one ledger, in milliseconds; missing it is entered as `witness_late`.
pub const INTERVAL_MS: i64 = 10 * 60 * 1_000;
/// Time after which a coordinator checkpoint that is not settled is an alarm, in milliseconds.
pub const UNSETTLED_ALARM_MS: i64 = 24 * 60 * 60 * 1_000;

/// The largest checkpoint of a peer that this party accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Entries.
    pub size: u64,
    /// Root.
    pub root: Digest,
}

impl From<&Checkpoint> for Seen {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self { size: checkpoint.size, root: checkpoint.root }
    }
}

/// A witness at work on the ledger of one peer.
#[derive(Debug, Clone, Copy)]
pub struct Witnessing<'a> {
    /// Identity key of the ledger that is shown.
    pub origin: PublicKey,
    /// Key with which this party cosigns.
    pub key: &'a SecretKey,
    /// What was seen of that ledger so far.
    pub seen: Option<Seen>,
    /// Whether a third party (the coordinator) brought the checkpoint. A relay may bring an old one, a ledger's own
    /// party may not: it would have lost entries.
    pub relayed: bool,
}

/// What a witness makes of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is consistent with all that was seen. Keep it as seen, keep the cosignature, send the reply.
    Cosigned {
        /// The checkpoint, cosigned.
        checkpoint: Box<SignedCheckpoint>,
        /// This party's cosignature.
        cosignature: Cosignature,
        /// Whether it is the first of this ledger.
        first: bool,
    },
    /// It cannot be judged without another proof.
    ProveFrom {
        /// Size that was seen.
        size: u64,
    },
    /// It contradicts what was seen: the ledger was rewritten, truncated or forked. Keep the note as evidence.
    Contradiction {
        /// What was found, in words.
        detail: String,
        /// Whether the origin's own signature is on the evidence; without it nobody is proven wrong.
        signed: bool,
    },
}

impl Witnessing<'_> {
    /// Judges a checkpoint of the ledger that was shown with a proof from `old_size`.
    pub fn judge(&self, note: &str, old_size: u64, proof: &[Digest], now: Timestamp) -> Verdict {
        let contradiction = |signed, detail: String| Verdict::Contradiction { detail, signed };
        let mut signed = match SignedCheckpoint::parse(note, &self.origin) {
            Ok(signed) => signed,
            Err(error) => return contradiction(false, error.to_string()),
        };
        let shown = *signed.checkpoint();
        if shown.size > limits::ENTRIES || proof.len() > limits::PROOF_HASHES {
            return contradiction(false, "the checkpoint or its proof is larger than any ledger can be".into());
        }
        if let Some(seen) = self.seen {
            if shown.size == seen.size && shown.root != seen.root {
                return contradiction(true, format!("two different ledgers of {} entries were shown", seen.size));
            }
            if shown.size < seen.size {
                if self.relayed {
                    return Verdict::ProveFrom { size: seen.size };
                }
                return contradiction(
                    true,
                    format!("{} entries are shown where {} were before: the tail is gone", shown.size, seen.size),
                );
            }
            if shown.size > seen.size {
                if old_size != seen.size {
                    return Verdict::ProveFrom { size: seen.size };
                }
                if !verify_consistency(seen.size, &seen.root, shown.size, &shown.root, proof) {
                    return contradiction(
                        true,
                        format!("the {} entries shown do not begin with the {} seen before", shown.size, seen.size),
                    );
                }
            }
        }
        let cosignature = shown.cosign(self.key, now);
        signed.add(&cosignature);
        Verdict::Cosigned { checkpoint: Box::new(signed), cosignature, first: self.seen.is_none() }
    }
}

impl Verdict {
    /// The message that answers the one that showed the checkpoint of `origin`.
    pub fn reply(&self, origin: SiteId, witness: SiteId) -> Witness {
        match self {
            Self::Cosigned { checkpoint, cosignature, .. } => Witness::Cosigned {
                origin,
                size: checkpoint.checkpoint().size,
                witness,
                cosignature: cosignature.line(),
            },
            Self::ProveFrom { size } => Witness::ProveFrom { origin, size: *size },
            Self::Contradiction { detail, .. } => Witness::Contradiction { origin, witness, detail: detail.clone() },
        }
    }
}

/// Whether enough members cosigned a checkpoint of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Any two sets of so many members share an honest one: no other ledger can be settled too.
    Settled,
    /// Not yet.
    Waiting {
        /// Cosignatures of members.
        have: u32,
        /// Needed.
        need: u32,
    },
    /// With one or two members a fork cannot be excluded, however many cosign.
    ForkCannotBeExcluded,
}

/// Whether `cosigned` of `members` member sites settle a checkpoint if at most `colluding` of them help the
/// coordinator to lie: ⌊(members + colluding) / 2⌋ + 1 are needed.
pub fn settled(members: u32, colluding: u32, cosigned: u32) -> Settlement {
    if members <= 2 {
        return Settlement::ForkCannotBeExcluded;
    }
    let need = needed(members, colluding);
    if cosigned >= need { Settlement::Settled } else { Settlement::Waiting { have: cosigned, need } }
}

/// Cosignatures that settle a checkpoint. More than `members` means that nothing can: too many may collude.
pub fn needed(members: u32, colluding: u32) -> u32 {
    u32::try_from((u64::from(members) + u64::from(colluding)) / 2 + 1).unwrap_or(u32::MAX)
}

/// Longest time during which nobody vouched for the ledger, in milliseconds: the largest gap between its first entry,
/// the cosignatures in order of time, and `until`. The whole time if there is no cosignature.
pub fn longest_unwitnessed_ms(first_entry: Timestamp, cosigned: &mut [Timestamp], until: Timestamp) -> i64 {
    cosigned.sort_unstable();
    let mut last = first_entry;
    let mut longest = 0;
    for at in cosigned.iter().copied().chain([until]) {
        let at = at.max(last).min(until.max(last));
        longest = longest.max(at.since(last));
        last = at;
    }
    longest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation)]

    use super::*;
    use crate::tree::proof::{Span, consistency};
    use crate::tree::{leaf_hash, root_of};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_999);

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn leaves(n: u64, fork: u64) -> Vec<Digest> {
        (0..n).map(|i| leaf_hash(&[i.to_be_bytes(), (fork * u64::from(i >= 5)).to_be_bytes()].concat())).collect()
    }

    fn checkpoint(leaves: &[Digest]) -> SignedCheckpoint {
        let origin = key(1).public().site_id();
        Checkpoint { origin, size: leaves.len() as u64, root: root_of(leaves) }.sign(&key(1))
    }

    fn proof(leaves: &[Digest], old: u64) -> Vec<Digest> {
        let hash = |span: &Span| root_of(&leaves[span.start as usize..span.end as usize]);
        consistency(old, leaves.len() as u64).unwrap().iter().map(hash).collect()
    }

    fn judge(seen: &[Digest], shown: &[Digest], old: u64, relayed: bool) -> Verdict {
        let witness = key(2);
        let seen = Some(Seen { size: seen.len() as u64, root: root_of(seen) });
        Witnessing { origin: key(1).public(), key: &witness, seen, relayed }.judge(
            &checkpoint(shown).note(),
            old,
            &proof(shown, old),
            NOW,
        )
    }

    #[test]
    fn a_ledger_that_grew_is_cosigned_and_the_cosignature_verifies() {
        let Verdict::Cosigned { checkpoint: signed, cosignature, first } =
            judge(&leaves(7, 0), &leaves(20, 0), 7, false)
        else {
            panic!("not cosigned")
        };
        assert!(!first);
        let (line, witness) = (cosignature.line(), key(2).public());
        assert_eq!(Cosignature::verify(&line, signed.checkpoint(), &witness).unwrap(), cosignature);
        assert_eq!(cosignature.at(), Timestamp::from_millis(1_700_000_000_000));
        assert_eq!(signed.cosigned_by(&witness), Some(cosignature));
        assert!(Cosignature::verify(&line, signed.checkpoint(), &key(3).public()).is_err());
        let other = Checkpoint { size: 21, ..*signed.checkpoint() };
        assert!(Cosignature::verify(&line, &other, &witness).is_err());
    }

    #[test]
    fn an_unknown_size_is_answered_by_a_request_for_a_proof() {
        assert_eq!(judge(&leaves(7, 0), &leaves(20, 0), 3, false), Verdict::ProveFrom { size: 7 });
    }

    #[test]
    fn a_fork_a_rewrite_and_a_dropped_tail_are_contradictions() {
        for verdict in [
            judge(&leaves(7, 0), &leaves(7, 1), 7, false),
            judge(&leaves(7, 0), &leaves(20, 1), 7, false),
            judge(&leaves(7, 0), &leaves(5, 0), 5, false),
        ] {
            assert!(matches!(verdict, Verdict::Contradiction { signed: true, .. }), "{verdict:?}");
        }
        // The coordinator may relay an old checkpoint; that proves nothing against the ledger's party.
        assert_eq!(judge(&leaves(7, 0), &leaves(5, 0), 5, true), Verdict::ProveFrom { size: 7 });
        let witness = key(2);
        let forged = Witnessing { origin: key(9).public(), key: &witness, seen: None, relayed: false };
        let verdict = forged.judge(&checkpoint(&leaves(7, 0)).note(), 0, &[], NOW);
        assert!(matches!(verdict, Verdict::Contradiction { signed: false, .. }));
    }

    #[test]
    fn two_settling_sets_share_an_honest_member() {
        assert_eq!(settled(2, 0, 2), Settlement::ForkCannotBeExcluded);
        assert_eq!(settled(4, 0, 2), Settlement::Waiting { have: 2, need: 3 });
        assert_eq!(settled(4, 0, 3), Settlement::Settled);
        for members in 3..200u32 {
            for colluding in 0..members {
                // Two sets of that size overlap in more members than can collude.
                let overlap = i64::from(2 * needed(members, colluding)) - i64::from(members);
                assert!(overlap > i64::from(colluding));
            }
        }
    }

    #[test]
    fn the_longest_unwitnessed_interval_counts_both_ends() {
        let t = Timestamp::from_millis;
        assert_eq!(longest_unwitnessed_ms(t(0), &mut [], t(50)), 50);
        assert_eq!(longest_unwitnessed_ms(t(0), &mut [t(40), t(10)], t(50)), 30);
        assert_eq!(longest_unwitnessed_ms(t(0), &mut [t(5), t(10)], t(50)), 40);
        assert_eq!(longest_unwitnessed_ms(t(30), &mut [t(5), t(100)], t(50)), 20);
    }

    proptest! {
        #[test]
        fn every_growth_is_cosigned_and_every_fork_is_not(old in 6u64..60, more in 1u64..60) {
            let honest = judge(&leaves(old, 0), &leaves(old + more, 0), old, false);
            let cosigned = matches!(honest, Verdict::Cosigned { .. });
            prop_assert!(cosigned);
            let forked = judge(&leaves(old, 0), &leaves(old + more, 1), old, false);
            let refused = matches!(forked, Verdict::Contradiction { .. });
            prop_assert!(refused);
        }

        #[test]
        fn one_changed_byte_of_a_note_is_never_accepted(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let note = checkpoint(&leaves(7, 0)).note();
            let mut bytes = note.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(changed) = String::from_utf8(bytes) {
                prop_assert!(SignedCheckpoint::parse(&changed, &key(1).public()).is_err());
            }
        }

        #[test]
        fn arbitrary_notes_never_panic(note in ".{0,300}") {
            let _ = SignedCheckpoint::read(&note);
        }
    }
}
