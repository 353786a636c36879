//! The aggregator of a round with secure aggregation, as a pure state machine: messages of members go in, what is
//! relayed comes out, and in the end what takes the masks off the sum, or who is to blame that nothing does.
//!
//! It trusts no member, and no member trusts it. Who is waited for, and how long, is not decided here:
//! [`round::coordinator`](hospes_protocol::round::coordinator) decides, and [`Aggregator::close`] is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use curve25519_dalek::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, SiteId};
use hospes_protocol::sign::{Signature, Signed};

use super::graph::{Graph, Topology};
use super::keys::{commitment, pair_mask, self_mask, usable};
use super::mask::{Sign, Stream, Unmasker};
use super::member::sign;
use super::message::{
    Accusation, Advertise, BOX_BYTES, Consent, Delivery, Fault, Input, Opening, Point, Relay, Reveal, Revealed, Sealed,
    Sent, Shares, Step,
};
use super::refusal::Refusal;
use super::session::Session;
use super::setup::Setup;
use super::shamir::{Claim, Commitments, Secret, combine, hold, lagrange};
use super::vector::{Layout, Masked};

/// What a member dealt.
struct Dealt {
    shares: Signed<Shares>,
    boxes: BTreeMap<u32, [u8; BOX_BYTES]>,
    mask: Commitments,
    own: Commitments,
}

/// What a member revealed: shares of others' secrets.
struct Revelation {
    own: BTreeMap<u32, Secret>,
    mask: BTreeMap<u32, Secret>,
}

/// One site says that another dealt wrongly to it. Either may lie: the next roster leaves out one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accused {
    /// Who says so, and signed it.
    pub by: SiteId,
    /// Who is accused.
    pub of: SiteId,
    /// Of what.
    pub fault: Fault,
}

/// The aggregator of one session.
pub struct Aggregator {
    session: Session,
    at: Step,
    /// Digest of what each member said in each step, so that repetition is harmless and contradiction is named.
    said: BTreeMap<(Step, u32), Digest>,
    keys: BTreeMap<u32, Signed<Advertise>>,
    openings: BTreeMap<u32, Signed<Opening>>,
    topology: Topology,
    dealt: BTreeMap<u32, Dealt>,
    inputs: BTreeMap<u32, Masked>,
    /// U3, once inputs are closed.
    included: BTreeSet<u32>,
    consents: BTreeMap<u32, Signature>,
    revealed: BTreeMap<u32, Revelation>,
    accused: Option<Accused>,
}

impl fmt::Debug for Aggregator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregator").field("sid", &self.session.sid()).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Aggregator {
    /// Opens a session.
    ///
    /// # Errors
    /// A [`Refusal`] names what is wrong with the setup.
    pub fn new(setup: Canonical<Setup>) -> Result<Self, Refusal> {
        Ok(Self {
            session: Session::new(setup)?,
            at: Step::Keys,
            said: BTreeMap::new(),
            keys: BTreeMap::new(),
            openings: BTreeMap::new(),
            topology: Topology::complete(BTreeSet::new()),
            dealt: BTreeMap::new(),
            inputs: BTreeMap::new(),
            included: BTreeSet::new(),
            consents: BTreeMap::new(),
            revealed: BTreeMap::new(),
            accused: None,
        })
    }

    /// Id of the session.
    pub fn sid(&self) -> Digest {
        self.session.sid()
    }

    /// Layout of the vectors.
    pub fn layout(&self) -> &Layout {
        self.session.layout()
    }

    /// The step whose messages are taken now.
    pub fn at(&self) -> Step {
        self.at
    }

    /// The accusation that ended the attempt, if one did.
    pub fn accused(&self) -> Option<Accused> {
        self.accused
    }

    /// Party numbers of the members whose inputs count; empty before they are closed.
    pub fn included(&self) -> &BTreeSet<u32> {
        &self.included
    }

    /// Takes a message from the site that the connection authenticated, and says its party number. The same message
    /// again changes nothing.
    ///
    /// With [`Sent::Input`] comes what the staged upload has under its blocks (see [`Tree`](super::Tree)).
    ///
    /// # Errors
    /// A [`Refusal`] says why it does not count; nothing changed then. It is always the sender's doing, whomever the
    /// message names.
    ///
    /// # Disclosure
    /// Who sent something; no function of patients' rows.
    pub fn accept(&mut self, sender: SiteId, sent: Sent, received: Option<Masked>) -> Result<u32, Refusal> {
        let party = self.session.party(sender)?;
        let (step, digest) = self.authentic(party, &sent)?;
        if self.is_known(step, party, digest)? {
            return Ok(party);
        }
        match sent {
            Sent::Keys(keys) => self.on_keys(party, keys)?,
            Sent::Position(opening) => self.on_position(party, opening)?,
            Sent::Shares { shares, boxes } => self.on_shares(party, shares, boxes)?,
            Sent::Input(input) => self.on_input(party, &input.document, received)?,
            Sent::Consent(consent) => self.on_consent(party, &consent)?,
            Sent::Reveal(reveal) => self.on_reveal(party, &reveal.document)?,
            Sent::Accusation(accusation) => self.on_accusation(party, &accusation.document)?,
        }
        self.said.insert((step, party), digest);
        Ok(party)
    }

    /// For which step a message is that this party signed, and its digest.
    fn authentic(&self, party: u32, sent: &Sent) -> Result<(Step, Digest), Refusal> {
        let session = &self.session;
        let (step, digest, result) = match sent {
            Sent::Keys(signed) => (Step::Keys, signed.document.digest(), session.authentic_of(party, signed)),
            Sent::Position(signed) => (Step::Positions, signed.document.digest(), session.authentic_of(party, signed)),
            Sent::Shares { shares, .. } => {
                (Step::Shares, shares.document.digest(), session.authentic_of(party, shares))
            }
            Sent::Input(signed) => (Step::Input, signed.document.digest(), session.authentic_of(party, signed)),
            Sent::Consent(signed) => (Step::Consent, signed.document.digest(), session.authentic_of(party, signed)),
            Sent::Reveal(signed) => (Step::Reveal, signed.document.digest(), session.authentic_of(party, signed)),
            Sent::Accusation(signed) => (Step::End, signed.document.digest(), session.authentic_of(party, signed)),
        };
        result.map(|()| (step, digest))
    }

    /// Whether a member said the same before; refuses what contradicts it, or does not belong here.
    fn is_known(&self, step: Step, party: u32, digest: Digest) -> Result<bool, Refusal> {
        let site = self.session.site(party)?;
        match self.said.get(&(step, party)) {
            Some(before) if *before == digest => return Ok(true),
            Some(_) => return Err(Refusal::Contradiction(site)),
            None => {}
        }
        // An accusation comes instead of an input.
        let due = if step == Step::End { Step::Input } else { step };
        if self.at != due {
            return Err(Refusal::OutOfTurn { found: step, at: self.at });
        }
        if !self.took_part(party) {
            return Err(malformed(site, "it was left out in an earlier step"));
        }
        Ok(false)
    }

    /// Whether a member took part in the step before this one.
    fn took_part(&self, party: u32) -> bool {
        match self.at {
            Step::Keys => true,
            Step::Positions => self.keys.contains_key(&party),
            Step::Shares => !self.topology.holders(party).is_empty(),
            Step::Input => self.dealt.contains_key(&party),
            Step::Consent | Step::Reveal | Step::End => self.included.contains(&party),
        }
    }

    fn on_keys(&mut self, party: u32, signed: Signed<Advertise>) -> Result<(), Refusal> {
        if !self.are_new(&signed.document) || !usable(&signed.document, self.has_positions()) {
            return Err(Refusal::Keys(self.session.site(party)?));
        }
        self.keys.insert(party, signed);
        Ok(())
    }

    /// Whether three keys are three, and nobody else's.
    fn are_new(&self, keys: &Advertise) -> bool {
        let points = |keys: &Advertise| [keys.share_key, keys.mask_key, keys.self_key];
        let mine = points(keys);
        let is_distinct = mine[0] != mine[1] && mine[0] != mine[2] && mine[1] != mine[2];
        is_distinct && !self.keys.values().flat_map(|other| points(&other.document)).any(|other| mine.contains(&other))
    }

    fn on_position(&mut self, party: u32, signed: Signed<Opening>) -> Result<(), Refusal> {
        let committed = self.keys.get(&party).and_then(|keys| keys.document.position);
        if committed != Some(commitment(&self.sid(), party, &signed.document.reveal)) {
            return Err(Refusal::Position(self.session.site(party)?));
        }
        self.openings.insert(party, signed);
        Ok(())
    }

    fn on_shares(&mut self, party: u32, shares: Signed<Shares>, boxes: Vec<Sealed>) -> Result<(), Refusal> {
        let site = self.session.site(party)?;
        let keys = self.keys.get(&party).ok_or(Refusal::Unknown(party))?;
        let (mask, own) = self.session.commitments(&shares.document, &keys.document).ok_or(malformed(
            site,
            "its commitments are not as many as the threshold, are no points, or do not begin with its keys",
        ))?;
        let neighbours: Vec<u32> = self.topology.neighbours(party).into_iter().collect();
        let listed: Vec<u32> = shares.document.boxes.iter().map(|b| b.to).collect();
        let given: Vec<u32> = boxes.iter().map(|b| b.to).collect();
        if listed != neighbours || given != neighbours {
            return Err(malformed(site, "its boxes are not those of its neighbours, one each"));
        }
        let signed = shares.document.boxes.iter().map(|b| b.digest);
        if !signed.eq(boxes.iter().map(|b| Digest::of(&b.sealed))) {
            return Err(malformed(site, "a box is not the one that it signed"));
        }
        let boxes = boxes.into_iter().map(|b| (b.to, b.sealed)).collect();
        self.dealt.insert(party, Dealt { shares, boxes, mask, own });
        Ok(())
    }

    fn on_input(&mut self, party: u32, input: &Input, received: Option<Masked>) -> Result<(), Refusal> {
        let site = self.session.site(party)?;
        let active: BTreeSet<u32> = self.dealt.keys().copied().collect();
        let Input { peers, root, bytes, .. } = *input;
        if peers != self.session.set_digest(&active) {
            return Err(malformed(site, "it is masked with other peers than those whose shares were relayed"));
        }
        let masked = Masked { root, bytes };
        if bytes != self.layout().bytes() || received != Some(masked) {
            return Err(Refusal::Payload(site));
        }
        self.inputs.insert(party, masked);
        Ok(())
    }

    fn on_consent(&mut self, party: u32, signed: &Signed<Consent>) -> Result<(), Refusal> {
        let site = self.session.site(party)?;
        if signed.document.included != self.session.set_digest(&self.included) {
            return Err(malformed(site, "it signed another set of inputs than the one that was announced"));
        }
        // Whose it is was checked when the message came.
        let signature = signed.signatures.first().ok_or(Refusal::Unsigned(site))?.signature;
        self.consents.insert(party, signature);
        Ok(())
    }

    fn on_reveal(&mut self, party: u32, reveal: &Reveal) -> Result<(), Refusal> {
        let site = self.session.site(party)?;
        let active: BTreeSet<u32> = self.dealt.keys().copied().collect();
        let held = &self.topology.holders(party) & &active;
        let open = |all: &[Revealed], of: BTreeSet<u32>| {
            if !all.iter().map(|revealed| &revealed.of).eq(&of) {
                return Err(malformed(site, "it revealed shares of other sites than it should, or both of one"));
            }
            let shares = all.iter().map(|revealed| Some((revealed.of, revealed.share.open()?)));
            shares.collect::<Option<BTreeMap<u32, Secret>>>().ok_or(malformed(site, "a share is no number"))
        };
        let own = open(&reveal.own, &held & &self.included)?;
        let mask = open(&reveal.mask, &held - &self.included)?;
        let revelation = Revelation { own, mask };
        if let Some(of) = self.wrong_share(party, &revelation) {
            return Err(Refusal::Share { from: site, of: self.session.site(of)? });
        }
        self.revealed.insert(party, revelation);
        Ok(())
    }

    /// Whose share is wrong, if one is: all of one member are checked in one batch.
    fn wrong_share(&self, from: u32, revelation: &Revelation) -> Option<u32> {
        let place = from + 1;
        let claim = |of: &u32, share: &Secret, is_own: bool| {
            let dealt = self.dealt.get(of)?;
            let commitments = if is_own { &dealt.own } else { &dealt.mask };
            Some((*of, Claim { commitments, place, share: share.clone() }))
        };
        let own = revelation.own.iter().filter_map(|(of, share)| claim(of, share, true));
        let mask = revelation.mask.iter().filter_map(|(of, share)| claim(of, share, false));
        let (owners, claims): (Vec<u32>, Vec<Claim>) = own.chain(mask).unzip();
        if hold(&claims) {
            return None;
        }
        let wrong = claims.iter().position(|claim| !hold(std::slice::from_ref(claim))).unwrap_or_default();
        owners.get(wrong).copied()
    }

    fn on_accusation(&mut self, party: u32, accusation: &Accusation) -> Result<(), Refusal> {
        let by = self.session.site(party)?;
        let dealt = self.dealt.contains_key(&accusation.of);
        if !dealt || !self.topology.neighbours(party).contains(&accusation.of) {
            return Err(malformed(by, "it accuses a site that dealt nothing to it"));
        }
        if self.inputs.contains_key(&party) {
            return Err(malformed(by, "it accuses a site after it masked its input with what that site dealt"));
        }
        let of = self.session.site(accusation.of)?;
        self.accused = Some(Accused { by, of, fault: accusation.fault });
        self.at = Step::End;
        Ok(())
    }

    /// Ends a step with those members, of all whose messages were taken, that are still in the round.
    ///
    /// # Errors
    /// [`Refusal::TooFew`], [`Refusal::TooFewHolders`], [`Refusal::TooFewShares`] or [`Refusal::Noise`] names who is
    /// missing: the attempt is over.
    /// [`Refusal::OutOfTurn`] at the end.
    ///
    /// # Disclosure
    /// Who takes part.
    pub fn close(&mut self, with: &BTreeSet<u32>) -> Result<(), Refusal> {
        let Self { session, keys, openings, dealt, inputs, consents, revealed, .. } = self;
        match self.at {
            Step::Keys => {
                keys.retain(|party, _| with.contains(party));
                session.enough(Step::Keys, &parties(keys), session.parties(), session.least())?;
                self.topology = Topology::complete(parties(keys));
            }
            Step::Positions => {
                openings.retain(|party, _| with.contains(party));
                let present = parties(openings);
                session.enough(Step::Positions, &present, keys.keys().copied(), session.least())?;
                keys.retain(|party, _| present.contains(party));
                let reveals: BTreeMap<u32, Point> =
                    openings.iter().map(|(party, opening)| (*party, opening.document.reveal)).collect();
                if let Graph::Harary { neighbours, .. } = session.setup().graph {
                    self.topology = Topology::ring(&session.sid(), &reveals, neighbours);
                }
                holders(session, &self.topology, &present, &present)?;
            }
            Step::Shares => {
                dealt.retain(|party, _| with.contains(party));
                let present = parties(dealt);
                session.enough(Step::Shares, &present, keys.keys().copied(), session.least())?;
                holders(session, &self.topology, &present, &present)?;
            }
            Step::Input => {
                inputs.retain(|party, _| with.contains(party));
                let present = parties(inputs);
                session.enough(Step::Input, &present, dealt.keys().copied(), session.least())?;
                holders(session, &self.topology, &parties(dealt), &present)?;
                session.enough_noise(&parties(dealt), &present)?;
                self.included = present;
            }
            Step::Consent => {
                consents.retain(|party, _| with.contains(party));
                session.enough(Step::Consent, &parties(consents), self.included.iter().copied(), session.quorum())?;
            }
            Step::Reveal => revealed.retain(|party, _| with.contains(party)),
            Step::End => return Err(Refusal::OutOfTurn { found: Step::End, at: Step::End }),
        }
        if self.at == Step::Reveal {
            self.secrets()?;
        }
        self.at = self.at.next(self.has_positions());
        Ok(())
    }

    /// What is relayed to a member now that the step before is closed.
    ///
    /// # Errors
    /// [`Refusal::OutOfTurn`] before the first step is closed and at the end.
    ///
    /// # Disclosure
    /// What other members signed, and boxes that only this member can open.
    pub fn relay(&self, to: u32) -> Result<Relay, Refusal> {
        Ok(match self.at {
            Step::Shares if self.has_positions() => Relay::Positions(self.openings.values().cloned().collect()),
            Step::Positions | Step::Shares => Relay::Keys(self.keys.values().cloned().collect()),
            Step::Input => {
                let neighbours = self.topology.neighbours(to);
                let dealt = self.dealt.iter().filter(|(from, _)| neighbours.contains(*from));
                let delivery =
                    |dealt: &Dealt| Some(Delivery { shares: dealt.shares.clone(), sealed: *dealt.boxes.get(&to)? });
                let active = self.dealt.keys().copied().collect();
                Relay::Shares { active, dealt: dealt.filter_map(|(_, dealt)| delivery(dealt)).collect() }
            }
            Step::Consent => Relay::Inputs(self.included.iter().copied().collect()),
            Step::Reveal => Relay::Consents(self.consents.iter().map(|(party, s)| (*party, *s)).collect()),
            Step::Keys | Step::End => return Err(Refusal::OutOfTurn { found: self.at, at: self.at }),
        })
    }

    /// What takes the masks off the sum over [`Aggregator::included`].
    ///
    /// # Errors
    /// [`Refusal::OutOfTurn`] before everything is revealed, or after an accusation.
    pub fn unmasker(&self) -> Result<Unmasker, Refusal> {
        if self.at != Step::End || self.accused.is_some() {
            return Err(Refusal::OutOfTurn { found: Step::End, at: self.at });
        }
        let (sid, prg) = (self.sid(), self.session.setup().prg);
        let among = self.session.set_digest(&parties(&self.dealt));
        let mut streams = Vec::new();
        for (of, secret) in self.secrets()? {
            if self.included.contains(&of) {
                streams.push(Stream::new(prg, &self_mask(&secret, &sid), Sign::Minus));
                continue;
            }
            for peer in &self.topology.neighbours(of) & &self.included {
                let peer_key = self.keys.get(&peer).map(|keys| keys.document.mask_key);
                let key = peer_key.and_then(|peer_key| pair_mask(&secret, &sid, &among, (of, peer), &peer_key));
                let key = key.ok_or(Refusal::Keys(self.session.site(peer)?))?;
                // What the peer added is taken off, and the other way round.
                let opposite = if sign(peer, of) == Sign::Plus { Sign::Minus } else { Sign::Plus };
                streams.push(Stream::new(prg, &key, opposite));
            }
        }
        let inputs = u32::try_from(self.included.len()).unwrap_or(u32::MAX);
        Ok(Unmasker::new(self.layout(), streams, inputs, self.session.setup().noise_steps()))
    }

    /// The self-mask of everybody in the sum, and the mask key of everybody who is missing from it.
    fn secrets(&self) -> Result<BTreeMap<u32, Secret>, Refusal> {
        // In the complete graph the same members hold the shares of all secrets, so that their factors are the same.
        let mut factors: BTreeMap<Vec<u32>, Vec<Scalar>> = BTreeMap::new();
        let mut secrets = BTreeMap::new();
        for of in self.dealt.keys() {
            let is_own = self.included.contains(of);
            let needed = self.session.share_threshold() as usize;
            let of_one = |revelation: &Revelation| {
                let shares = if is_own { &revelation.own } else { &revelation.mask };
                shares.get(of).cloned()
            };
            let there = self.revealed.iter().filter_map(|(from, all)| Some((from + 1, of_one(all)?)));
            let (places, shares): (Vec<u32>, Vec<Secret>) = there.take(needed).unzip();
            if shares.len() < needed {
                let silent = self.topology.holders(*of).into_iter().filter(|party| !self.revealed.contains_key(party));
                let (of, missing) = (self.session.site(*of)?, self.session.sites(silent));
                return Err(Refusal::TooFewShares { of, present: shares.len(), needed, missing });
            }
            let factors = factors.entry(places).or_insert_with_key(|places| lagrange(places));
            let secret = combine(factors, shares.iter());
            let public = self.keys.get(of).map(|keys| (keys.document.self_key, keys.document.mask_key));
            let public = public.map(|(own, mask)| if is_own { own } else { mask });
            if public != Some(Point::of(&RistrettoPoint::mul_base(&secret))) {
                return Err(Refusal::Keys(self.session.site(*of)?));
            }
            secrets.insert(*of, secret);
        }
        Ok(secrets)
    }

    fn has_positions(&self) -> bool {
        self.session.setup().graph.has_positions()
    }
}

fn parties<T>(all: &BTreeMap<u32, T>) -> BTreeSet<u32> {
    all.keys().copied().collect()
}

fn malformed(site: SiteId, reason: &'static str) -> Refusal {
    Refusal::Malformed { site, reason }
}

/// No member goes on, and no secret of one is found again, with fewer of its holders than reconstruct one.
fn holders(
    session: &Session,
    topology: &Topology,
    members: &BTreeSet<u32>,
    present: &BTreeSet<u32>,
) -> Result<(), Refusal> {
    members.iter().try_for_each(|of| session.enough_holders(*of, topology, present))
}
