//! A member of a round with secure aggregation, as a pure state machine: what the aggregator relays goes in, what the
//! member answers comes out, and with it what must be durable before the answer leaves.

mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hospes_protocol::canon::{CanonError, Canonical, Document};
use hospes_protocol::id::{Digest, SiteId};
use hospes_protocol::sign::{SecretKey, Signature, Signed};
use zeroize::Zeroize as _;

use super::graph::{Graph, Topology};
use super::keys::{Secrets, Seed, commitment, usable};
use super::mask::{Masker, Sign, Stream};
use super::message::{Advertise, Consent, Input, Opening, Relay, Reveal, Revealed, Sent, Share, Step};
use super::refusal::Refusal;
use super::session::{Demands, Past, Session};
use super::setup::Setup;
use super::shamir::Secret;
use super::vector::{Layout, Masked};

/// What a member says in one step. Once per session: it must be durable before `message` is sent, and from then on only
/// this message is sent for this step, as often as it is asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The step.
    pub step: Step,
    /// What the aggregator relayed, as bytes of a [`Relay`]; empty for the first step.
    pub input: Vec<u8>,
    /// What is sent, as bytes of a [`Sent`].
    pub message: Vec<u8>,
}

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixed")
            .field("step", &self.step)
            .field("message", &Digest::of(&self.message))
            .finish_non_exhaustive()
    }
}

/// What a member does after something was relayed to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Make this durable, then send its message.
    Send(Fixed),
    /// Mask the vector with [`Member::masker`], make it durable, then [`Member::commit`].
    Mask,
}

/// Shares that a member holds of one peer's secrets.
struct Held {
    mask: Secret,
    own: Secret,
}

/// A member of one session. Its secrets are erased when it is dropped; its `Debug` shows none of them.
pub struct Member {
    session: Session,
    me: u32,
    trusted: BTreeSet<u32>,
    demands: Demands,
    secrets: Option<Box<Secrets>>,
    at: Step,
    keys: BTreeMap<u32, Advertise>,
    topology: Topology,
    /// U2, once boxes are opened.
    active: BTreeSet<u32>,
    held: BTreeMap<u32, Held>,
    /// What brought the boxes, until the input is fixed.
    boxes: Option<Vec<u8>>,
    fixed: Vec<Fixed>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("party", &self.me).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Member {
    /// Takes part in a round, if its header gives what this site demands and it is later than every round before.
    ///
    /// # Errors
    /// A [`Refusal`] says what the header lacks, or that the round, or its attempt, is an old one.
    pub fn new(setup: Canonical<Setup>, demands: Demands, past: &Past, seed: &Seed) -> Result<Self, Refusal> {
        let member = Self::prepare(setup, demands, seed)?;
        member.session.is_new(past)?;
        Ok(member)
    }

    /// A member after a restart, from the seed and what it fixed, in order. Everything is done again and compared, so
    /// that a member whose records were changed says nothing more.
    ///
    /// # Errors
    /// As [`Member::new`], but the session may be the last one on record; [`Refusal::Record`] where a record does not
    /// lead to its message, or where `past` knows of a consent of this session and the records do not, or the other way
    /// round.
    ///
    /// # Disclosure
    /// What was said before, and nothing else.
    pub fn restore(
        setup: Canonical<Setup>,
        demands: Demands,
        past: &Past,
        seed: &Seed,
        key: &SecretKey,
        records: &[Fixed],
    ) -> Result<Self, Refusal> {
        let mut member = Self::prepare(setup, demands, seed)?;
        if records.is_empty() {
            return Err(Refusal::Record(Step::Keys));
        }
        for record in records {
            let again = member.repeat(record, past, key)?;
            if again.as_ref() != Some(record) {
                return Err(Refusal::Record(record.step));
            }
        }
        member.may_go_on(past)?;
        Ok(member)
    }

    fn prepare(setup: Canonical<Setup>, demands: Demands, seed: &Seed) -> Result<Self, Refusal> {
        let session = Session::new(setup)?;
        let (me, trusted) = session.check(&demands)?;
        let secrets = Secrets::derive(seed, &session.sid(), session.share_threshold());
        Ok(Self {
            session,
            me,
            trusted,
            demands,
            secrets: Some(Box::new(secrets)),
            at: Step::Keys,
            keys: BTreeMap::new(),
            topology: Topology::complete(BTreeSet::new()),
            active: BTreeSet::new(),
            held: BTreeMap::new(),
            boxes: None,
            fixed: Vec::new(),
        })
    }

    fn repeat(&mut self, record: &Fixed, past: &Past, key: &SecretKey) -> Result<Option<Fixed>, Refusal> {
        if record.step == Step::Keys {
            return self.advertise(key).map(Some);
        }
        match self.answer(&Relay::from_bytes(&record.input)?, past, key)? {
            Turn::Send(fixed) => Ok(Some(fixed)),
            // The vector itself is durable beside the record, and never made again.
            Turn::Mask => match Sent::from_bytes(&record.message)? {
                Sent::Input(input) => {
                    let Input { root, bytes, .. } = *input.document;
                    self.commit(Masked { root, bytes }, key).map(Some)
                }
                _ => Ok(None),
            },
        }
    }

    /// Id of the session: digest of its setup.
    pub fn sid(&self) -> Digest {
        self.session.sid()
    }

    /// Layout of the vector that is masked.
    pub fn layout(&self) -> &Layout {
        self.session.layout()
    }

    /// The step that comes next.
    pub fn at(&self) -> Step {
        self.at
    }

    /// What was fixed so far, in order.
    pub fn fixed(&self) -> &[Fixed] {
        &self.fixed
    }

    /// Erases the secrets: the signed result has arrived, or the session is abandoned. Everything is refused from now
    /// on.
    pub fn close(&mut self) {
        self.secrets = None;
        self.held.clear();
        for mut fixed in self.fixed.drain(..) {
            fixed.input.zeroize();
            fixed.message.zeroize();
        }
        if let Some(mut boxes) = self.boxes.take() {
            boxes.zeroize();
        }
        self.at = Step::End;
    }

    /// R0: this member's keys of the round.
    ///
    /// # Errors
    /// [`Refusal::Gone`] after [`Member::close`], [`Refusal::NotMember`] with another identity key.
    ///
    /// # Disclosure
    /// Random keys; nothing about patients.
    pub fn advertise(&mut self, key: &SecretKey) -> Result<Fixed, Refusal> {
        let keys = self.own_keys()?;
        if let Some(done) = self.fixed.first() {
            return Ok(done.clone());
        }
        let sent = Sent::Keys(self.sign(keys, key)?);
        self.fix(Step::Keys, Vec::new(), &sent)
    }

    /// Takes what the aggregator relays. What was relayed before is answered as before; whatever else comes for a step
    /// whose answer is fixed is refused.
    ///
    /// `past` is what is on record now, in the transaction that makes the answer durable, and not when the session began:
    /// another attempt, or a new epoch of the coordinator, may have come between.
    ///
    /// # Errors
    /// A [`Refusal`] says why this member does not go on, and names whose message is wrong or missing. The member stays
    /// where it was.
    ///
    /// # Disclosure
    /// Keys, boxes for peers, a signature; and at the end shares that unmask the sum over at least t sites, never both
    /// shares of one site.
    pub fn on(&mut self, relay: &Relay, past: &Past, key: &SecretKey) -> Result<Turn, Refusal> {
        self.secrets()?;
        self.may_go_on(past)?;
        self.answer(relay, past, key)
    }

    fn may_go_on(&self, past: &Past) -> Result<(), Refusal> {
        self.session.may_go_on(past, self.has_said(Step::Consent))
    }

    fn answer(&mut self, relay: &Relay, past: &Past, key: &SecretKey) -> Result<Turn, Refusal> {
        let input = relay.to_bytes()?;
        let step = self.answers(relay);
        if let Some(done) = self.fixed.iter().find(|fixed| fixed.input == input) {
            return Ok(Turn::Send(done.clone()));
        }
        if self.boxes.as_ref() == Some(&input) {
            return Ok(Turn::Mask);
        }
        if self.has_said(step) || (step == Step::Input && self.boxes.is_some()) {
            return Err(Refusal::Fixed(step));
        }
        if step != self.at || self.boxes.is_some() {
            return Err(Refusal::OutOfTurn { found: step, at: self.at });
        }
        match relay {
            Relay::Keys(keys) => self.on_keys(keys, input, key).map(Turn::Send),
            Relay::Positions(openings) => self.on_positions(openings, input, key).map(Turn::Send),
            Relay::Shares { active, dealt } => self.on_shares(active, dealt, input, key),
            Relay::Inputs(included) => self.on_inputs(included, input, past, key).map(Turn::Send),
            Relay::Consents(consents) => self.on_consents(consents, input, key).map(Turn::Send),
        }
    }

    /// The member's step to which a relay leads.
    fn answers(&self, relay: &Relay) -> Step {
        match relay {
            Relay::Keys(_) => Step::Keys.next(self.has_positions()),
            Relay::Positions(_) => Step::Shares,
            Relay::Shares { .. } => Step::Input,
            Relay::Inputs(_) => Step::Consent,
            Relay::Consents(_) => Step::Reveal,
        }
    }

    fn on_keys(&mut self, all: &[Signed<Advertise>], input: Vec<u8>, key: &SecretKey) -> Result<Fixed, Refusal> {
        let mut keys: BTreeMap<u32, Advertise> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for signed in all {
            let from = self.session.authentic(signed)?;
            let site = self.session.site(from)?;
            if keys.last_key_value().is_some_and(|(last, _)| *last >= from) {
                return Err(Refusal::Twice(site));
            }
            let theirs: &Advertise = &signed.document;
            let is_new =
                [theirs.share_key, theirs.mask_key, theirs.self_key].into_iter().all(|point| known.insert(point));
            if !is_new || !usable(theirs, self.has_positions()) {
                return Err(Refusal::Keys(site));
            }
            keys.insert(from, theirs.clone());
        }
        if keys.get(&self.me) != Some(&self.own_keys()?) {
            return Err(Refusal::OwnMessage);
        }
        let present: BTreeSet<u32> = keys.keys().copied().collect();
        self.session.enough(Step::Keys, &present, self.session.parties(), self.session.least())?;
        if self.has_positions() {
            let opening = Opening { sid: self.sid(), from: self.me, reveal: self.secrets()?.reveal() };
            let sent = Sent::Position(self.sign(opening, key)?);
            self.keys = keys;
            return self.fix(Step::Positions, input, &sent);
        }
        let topology = Topology::complete(present);
        let sent = self.deal(&keys, &topology, key)?;
        (self.keys, self.topology) = (keys, topology);
        self.fix(Step::Shares, input, &sent)
    }

    fn on_positions(&mut self, all: &[Signed<Opening>], input: Vec<u8>, key: &SecretKey) -> Result<Fixed, Refusal> {
        let Graph::Harary { neighbours, .. } = self.session.setup().graph else {
            return Err(Refusal::OutOfTurn { found: Step::Positions, at: self.at });
        };
        let mut reveals = BTreeMap::new();
        for signed in all {
            let from = self.session.authentic(signed)?;
            let site = self.session.site(from)?;
            if reveals.last_key_value().is_some_and(|(last, _)| *last >= from) {
                return Err(Refusal::Twice(site));
            }
            let committed = self.keys.get(&from).and_then(|keys| keys.position);
            if committed != Some(commitment(&self.sid(), from, &signed.document.reveal)) {
                return Err(Refusal::Position(site));
            }
            reveals.insert(from, signed.document.reveal);
        }
        if reveals.get(&self.me) != Some(&self.secrets()?.reveal()) {
            return Err(Refusal::OwnMessage);
        }
        let present: BTreeSet<u32> = reveals.keys().copied().collect();
        self.session.enough(Step::Positions, &present, self.keys.keys().copied(), self.session.least())?;
        let topology = Topology::ring(&self.sid(), &reveals, neighbours);
        self.session.enough_holders(self.me, &topology, &present)?;
        let sent = self.deal(&self.keys, &topology, key)?;
        self.keys.retain(|party, _| present.contains(party));
        self.topology = topology;
        self.fix(Step::Shares, input, &sent)
    }

    /// R2: what masks the vector of this member, block by block. What is masked must be durable before
    /// [`Member::commit`], and may be made anew only as long as it is not committed.
    ///
    /// # Errors
    /// [`Refusal::Fixed`] if the input is committed, [`Refusal::OutOfTurn`] before the boxes are opened,
    /// [`Refusal::Gone`].
    pub fn masker(&self) -> Result<Masker, Refusal> {
        let secrets = self.secrets()?;
        self.may_commit()?;
        let (sid, prg) = (self.sid(), self.session.setup().prg);
        let among = self.session.set_digest(&self.active);
        let mut streams = vec![Stream::new(prg, &secrets.self_mask(&sid), Sign::Plus)];
        for peer in &self.topology.neighbours(self.me) & &self.active {
            let key = self.keys.get(&peer);
            let key = key.and_then(|keys| secrets.pair_mask(&sid, &among, (self.me, peer), &keys.mask_key));
            let key = key.ok_or(Refusal::Keys(self.session.site(peer)?))?;
            streams.push(Stream::new(prg, &key, sign(self.me, peer)));
        }
        let blind = Stream::new(prg, &secrets.blind(), Sign::Plus);
        Ok(Masker::new(self.layout(), streams, blind, self.session.setup().noise.is_some()))
    }

    /// R2: standard deviation of the noise that this member adds to each entry of its tensors, drawn once for a session and
    /// quantised with them; 0 without noise. The row weight has none.
    ///
    /// # Units
    /// Quantisation steps.
    ///
    /// # Errors
    /// As [`Member::masker`].
    ///
    /// # Disclosure
    /// Only what the round's header says, and how many mask.
    pub fn noise_deviation(&self) -> Result<f64, Refusal> {
        self.secrets()?;
        self.may_commit()?;
        let Setup { noise, c, .. } = *self.session.setup();
        let masking = u32::try_from(self.active.len()).unwrap_or(u32::MAX);
        Ok(noise.map_or(0.0, |noise| noise.of_each(masking, c)))
    }

    /// R2: fixes the masked vector, which is durable.
    ///
    /// # Errors
    /// As [`Member::masker`]; [`Refusal::Payload`] if the vector has another length than the round's.
    ///
    /// # Disclosure
    /// Digest and length of a masked vector.
    pub fn commit(&mut self, masked: Masked, key: &SecretKey) -> Result<Fixed, Refusal> {
        self.secrets()?;
        let relayed = self.may_commit()?.to_vec();
        let Masked { root, bytes } = masked;
        if bytes != self.layout().bytes() {
            return Err(Refusal::Payload(self.session.site(self.me)?));
        }
        let peers = self.session.set_digest(&self.active);
        // PRIVACY: the digest of what leaves; the vector under it is masked.
        let input = Input { sid: self.sid(), from: self.me, peers, root, bytes };
        let sent = Sent::Input(self.sign(input, key)?);
        self.boxes = None;
        self.fix(Step::Input, relayed, &sent)
    }

    fn may_commit(&self) -> Result<&[u8], Refusal> {
        match &self.boxes {
            Some(relayed) => Ok(relayed),
            None if self.has_said(Step::Input) => Err(Refusal::Fixed(Step::Input)),
            None => Err(Refusal::OutOfTurn { found: Step::Input, at: self.at }),
        }
    }

    /// R3: signs the set of inputs, if this site can stand for the sum over it.
    fn on_inputs(&mut self, included: &[u32], input: Vec<u8>, past: &Past, key: &SecretKey) -> Result<Fixed, Refusal> {
        let included = self.ordered(included)?;
        let strangers = self.session.sites(&included - &self.active);
        if !strangers.is_empty() {
            return Err(Refusal::Included(strangers));
        }
        if !included.contains(&self.me) {
            return Err(Refusal::NotIncluded);
        }
        self.session.enough(Step::Input, &included, self.active.iter().copied(), self.session.least())?;
        self.session.enough_holders(self.me, &self.topology, &included)?;
        let (found, least) = ((&self.trusted & &included).len(), self.demands.min_trusted_peers as usize);
        if found < least {
            return Err(Refusal::Trusted { found, least });
        }
        self.session.enough_noise(&self.active, &included)?;
        let cohort = self.session.setup().cohort(&included);
        if past.answered.is_some_and(|answered| answered != cohort) {
            return Err(Refusal::OtherCohort);
        }
        // PRIVACY: the word that lets the sum over these sites, and no other, be unmasked.
        let sent = Sent::Consent(self.sign(self.consent(self.me, &included), key)?);
        self.fix(Step::Consent, input, &sent)
    }

    /// R4: reveals shares, if a quorum of those in the sum signed the very set that this site signed.
    fn on_consents(&mut self, all: &[(u32, Signature)], input: Vec<u8>, key: &SecretKey) -> Result<Fixed, Refusal> {
        let included = self.consented()?;
        // Who is named, and how often, before any signature is checked.
        self.ordered(all.iter().map(|(party, _)| party))?;
        let (mut valid, mut invalid) = (BTreeSet::new(), BTreeSet::new());
        for (party, signature) in all {
            let identity = self.session.identity(*party)?;
            let consent = Canonical::new(self.consent(*party, &included)).map_err(unreadable)?;
            if included.contains(party) && identity.verifies(&consent.digest(), signature) {
                valid.insert(*party);
            } else {
                invalid.insert(*party);
            }
        }
        if valid.len() < self.session.quorum() {
            let invalid = self.session.sites(invalid);
            return Err(Refusal::Consents { found: valid.len(), needed: self.session.quorum(), invalid });
        }
        let (mut own, mut mask) = (Vec::new(), Vec::new());
        for (of, held) in &self.held {
            // PRIVACY: of each site one of its two shares, never both.
            if included.contains(of) {
                own.push(Revealed { of: *of, share: Share::new(&held.own) });
            } else {
                mask.push(Revealed { of: *of, share: Share::new(&held.mask) });
            }
        }
        let sent = Sent::Reveal(self.sign(Reveal { sid: self.sid(), from: self.me, own, mask }, key)?);
        self.fix(Step::Reveal, input, &sent)
    }

    /// The set that this member signed, from its record.
    fn consented(&self) -> Result<BTreeSet<u32>, Refusal> {
        let record = self.fixed.iter().find(|fixed| fixed.step == Step::Consent);
        let record = record.ok_or(Refusal::OutOfTurn { found: Step::Reveal, at: self.at })?;
        match Relay::from_bytes(&record.input)? {
            Relay::Inputs(included) => self.ordered(&included),
            _ => Err(Refusal::Record(Step::Consent)),
        }
    }

    fn consent(&self, from: u32, included: &BTreeSet<u32>) -> Consent {
        Consent { sid: self.sid(), from, included: self.session.set_digest(included) }
    }

    /// A list of parties that names each once, in order.
    fn ordered<'a>(&self, parties: impl IntoIterator<Item = &'a u32>) -> Result<BTreeSet<u32>, Refusal> {
        let mut set = BTreeSet::new();
        for party in parties {
            let site: SiteId = self.session.site(*party)?;
            if set.last().is_some_and(|last| last >= party) {
                return Err(Refusal::Twice(site));
            }
            set.insert(*party);
        }
        Ok(set)
    }

    fn has_said(&self, step: Step) -> bool {
        self.fixed.iter().any(|fixed| fixed.step == step)
    }

    fn has_positions(&self) -> bool {
        self.session.setup().graph.has_positions()
    }

    fn secrets(&self) -> Result<&Secrets, Refusal> {
        self.secrets.as_deref().ok_or(Refusal::Gone)
    }

    fn own_keys(&self) -> Result<Advertise, Refusal> {
        Ok(self.secrets()?.advertise(self.sid(), self.me, self.has_positions()))
    }

    fn sign<D: Document>(&self, document: D, key: &SecretKey) -> Result<Signed<D>, Refusal> {
        if key.public() != self.demands.identity {
            return Err(Refusal::NotMember);
        }
        Signed::new(document, key).map_err(unreadable)
    }

    fn fix(&mut self, step: Step, input: Vec<u8>, sent: &Sent) -> Result<Fixed, Refusal> {
        let fixed = Fixed { step, input, message: sent.to_bytes()? };
        self.at = step.next(self.has_positions());
        self.fixed.push(fixed.clone());
        Ok(fixed)
    }
}

/// The member with the lower number adds the mask that both share, the other one takes it off.
pub(super) fn sign(me: u32, peer: u32) -> Sign {
    if me < peer { Sign::Plus } else { Sign::Minus }
}

fn unreadable(error: CanonError) -> Refusal {
    Refusal::Unreadable(error.to_string())
}
