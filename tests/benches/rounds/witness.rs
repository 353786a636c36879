//! A scripted site as a witness: as a real one, it shows its ledger when a round closes, and cosigns what it is shown.

use std::collections::BTreeMap;

use hospes_ledger::tree::proof::consistency;
use hospes_ledger::tree::{leaf_hash, root_of};
use hospes_ledger::{Checkpoint, Seen, Verdict, Witnessing};
use hospes_party::system_clock;
use hospes_protocol::id::{Digest, SiteId};
use hospes_protocol::message::{ToSite, Witness};
use hospes_protocol::sign::{PublicKey, SecretKey};

/// Entries that a real site makes in a round: offer, permit, work, update prepared, sent, receipt, end.
const ENTRIES: u32 = 7;

/// A site's own ledger, and what it saw of others'.
pub(crate) struct Witnessed {
    key: SecretKey,
    coordinator: PublicKey,
    leaves: Vec<Digest>,
    /// Size that the coordinator cosigned last.
    cosigned: u64,
    members: BTreeMap<SiteId, PublicKey>,
    seen: BTreeMap<SiteId, Seen>,
}

impl Witnessed {
    pub(crate) fn new(key: SecretKey, coordinator: PublicKey) -> Self {
        let (leaves, members, seen) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { key, coordinator, leaves, cosigned: 0, members, seen }
    }

    /// What a site says to a message, as far as witnessing goes.
    pub(crate) fn hear(&mut self, message: &ToSite) -> Option<Witness> {
        let own = self.key.public().site_id();
        match message {
            ToSite::Roster(roster) => {
                self.members = roster.document.members.iter().map(|m| (m.site, m.identity)).collect();
                None
            }
            ToSite::RoundClosed { .. } => {
                let entry =
                    |n: u32| leaf_hash(&[self.leaves.len() as u64, u64::from(n)].map(u64::to_be_bytes).concat());
                let entries: Vec<Digest> = (0..ENTRIES).map(entry).collect();
                self.leaves.extend(entries);
                self.show(self.cosigned)
            }
            ToSite::Witness(Witness::Cosigned { origin, size, witness, .. }) => {
                if *origin == own && *witness == self.coordinator.site_id() {
                    self.cosigned = self.cosigned.max(*size);
                }
                None
            }
            ToSite::Witness(Witness::ProveFrom { origin, size }) if *origin == own => self.show(*size),
            ToSite::Witness(Witness::Show { origin, checkpoint, old_size, proof }) => {
                self.judge(*origin, checkpoint, *old_size, proof)
            }
            _ => None,
        }
    }

    fn show(&self, old_size: u64) -> Option<Witness> {
        let (origin, size) = (self.key.public().site_id(), self.leaves.len() as u64);
        let checkpoint = Checkpoint { origin, size, root: root_of(&self.leaves) }.sign(&self.key).note();
        let part = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let hash =
            |span: &hospes_ledger::tree::proof::Span| self.leaves.get(part(span.start)..part(span.end)).map(root_of);
        let proof = consistency(old_size, size)?.iter().map(hash).collect::<Option<Vec<Digest>>>()?;
        Some(Witness::Show { origin, checkpoint, old_size, proof })
    }

    fn judge(&mut self, origin: SiteId, note: &str, old_size: u64, proof: &[Digest]) -> Option<Witness> {
        let relayed = origin != self.coordinator.site_id();
        let key = if relayed { *self.members.get(&origin)? } else { self.coordinator };
        let seen = self.seen.get(&origin).copied();
        let verdict =
            Witnessing { origin: key, key: &self.key, seen, relayed }.judge(note, old_size, proof, system_clock()());
        if let Verdict::Cosigned { checkpoint, .. } = &verdict {
            self.seen.insert(origin, Seen::from(checkpoint.checkpoint()));
        }
        Some(verdict.reply(origin, self.key.public().site_id()))
    }
}
