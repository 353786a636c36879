//! R1 at a member: it deals shares of its secrets to its neighbours, and opens what they dealt to it.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::id::Digest;
use hospes_protocol::sign::SecretKey;

use super::{Held, Member, Turn};
use crate::secagg::graph::Topology;
use crate::secagg::message::{Accusation, Advertise, BoxDigest, Delivery, Fault, Sealed, Sent, Shares, Step};
use crate::secagg::refusal::Refusal;
use crate::secagg::shamir::{Claim, Commitments, hold};

/// What became of the boxes.
enum Boxes {
    Sound(BTreeMap<u32, Held>),
    Faulty { of: u32, fault: Fault },
}

impl Member {
    /// R1: the boxes for every neighbour.
    pub(super) fn deal(
        &self,
        keys: &BTreeMap<u32, Advertise>,
        topology: &Topology,
        key: &SecretKey,
    ) -> Result<Sent, Refusal> {
        let (secrets, sid) = (self.secrets()?, self.sid());
        let mut boxes = Vec::new();
        for peer in topology.neighbours(self.me) {
            let site = self.session.site(peer)?;
            let sealed = keys.get(&peer).and_then(|keys| secrets.seal(&sid, self.me, peer, &keys.share_key));
            boxes.push(Sealed { to: peer, sealed: sealed.ok_or(Refusal::Keys(site))? });
        }
        let shares = Shares {
            sid,
            from: self.me,
            mask: secrets.mask_polynomial.commit(),
            own: secrets.own_polynomial.commit(),
            boxes: boxes.iter().map(|b| BoxDigest { to: b.to, digest: Digest::of(&b.sealed) }).collect(),
        };
        Ok(Sent::Shares { shares: self.sign(shares, key)?, boxes })
    }

    pub(super) fn on_shares(
        &mut self,
        active: &[u32],
        dealt: &[Delivery],
        input: Vec<u8>,
        key: &SecretKey,
    ) -> Result<Turn, Refusal> {
        let active = self.ordered(active)?;
        let strangers = self.session.sites(active.iter().copied().filter(|party| !self.keys.contains_key(party)));
        if !strangers.is_empty() {
            return Err(Refusal::Included(strangers));
        }
        if !active.contains(&self.me) {
            return Err(Refusal::OwnMessage);
        }
        self.session.enough(Step::Shares, &active, self.keys.keys().copied(), self.session.least())?;
        self.session.enough_holders(self.me, &self.topology, &active)?;
        match self.open(&self.deliveries(&active, dealt)?)? {
            Boxes::Sound(held) => {
                (self.active, self.held, self.boxes) = (active, held, Some(input));
                Ok(Turn::Mask)
            }
            Boxes::Faulty { of, fault } => {
                let accusation = Accusation { sid: self.sid(), from: self.me, of, fault };
                let sent = Sent::Accusation(self.sign(accusation, key)?);
                self.fix(Step::End, input, &sent).map(Turn::Send)
            }
        }
    }

    /// What each neighbour that is still there dealt to this member. What does not fit here is the coordinator's doing.
    fn deliveries<'a>(
        &self,
        active: &BTreeSet<u32>,
        dealt: &'a [Delivery],
    ) -> Result<BTreeMap<u32, &'a Delivery>, Refusal> {
        let expected = &self.topology.neighbours(self.me) & active;
        let mut deliveries = BTreeMap::new();
        for delivery in dealt {
            let from = self.session.authentic(&delivery.shares)?;
            let site = self.session.site(from)?;
            if !expected.contains(&from) {
                return Err(Refusal::Included(vec![site]));
            }
            let mut boxes = delivery.shares.document.boxes.iter();
            if boxes.find(|b| b.to == self.me).is_none_or(|b| b.digest != Digest::of(&delivery.sealed)) {
                return Err(Refusal::Box(site));
            }
            if deliveries.insert(from, delivery).is_some() {
                return Err(Refusal::Twice(site));
            }
        }
        match expected.iter().find(|party| !deliveries.contains_key(*party)) {
            Some(missing) => Err(Refusal::Box(self.session.site(*missing)?)),
            None => Ok(deliveries),
        }
    }

    /// Opens the boxes and checks the shares. What does not fit here was dealt so by its sender, who signed it.
    fn open(&self, deliveries: &BTreeMap<u32, &Delivery>) -> Result<Boxes, Refusal> {
        let (secrets, sid, place) = (self.secrets()?, self.sid(), self.me + 1);
        let mut held = BTreeMap::new();
        let mut commitments: BTreeMap<u32, (Commitments, Commitments)> = BTreeMap::new();
        for (&of, delivery) in deliveries {
            let keys = self.keys.get(&of).ok_or(Refusal::Unknown(of))?;
            let Some(both) = self.session.commitments(&delivery.shares.document, keys) else {
                return Ok(Boxes::Faulty { of, fault: Fault::Commitments });
            };
            let Some((mask, own)) = secrets.open(&sid, self.me, of, &keys.share_key, &delivery.sealed) else {
                return Ok(Boxes::Faulty { of, fault: Fault::Box });
            };
            commitments.insert(of, both);
            held.insert(of, Held { mask, own });
        }
        let mut all = Vec::new();
        for (of, (mask, own)) in &commitments {
            if let Some(shares) = held.get(of) {
                all.push((*of, Claim { commitments: mask, place, share: shares.mask.clone() }));
                all.push((*of, Claim { commitments: own, place, share: shares.own.clone() }));
            }
        }
        let (owners, claims): (Vec<u32>, Vec<Claim>) = all.into_iter().unzip();
        if !hold(&claims) {
            // One by one, to say whose it is.
            let wrong = claims.iter().position(|claim| !hold(std::slice::from_ref(claim))).unwrap_or_default();
            let of = owners.get(wrong).copied().unwrap_or(self.me);
            return Ok(Boxes::Faulty { of, fault: Fault::Share });
        }
        if self.topology.holders(self.me).contains(&self.me) {
            let (mask, own) = (secrets.mask_polynomial.share(place), secrets.own_polynomial.share(place));
            held.insert(self.me, Held { mask, own });
        }
        Ok(Boxes::Sound(held))
    }
}
