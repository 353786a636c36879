//! What one site demands of a round and remembers of earlier ones, and what both roles ask of a session all the time.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::approval::Trust;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, SiteId};
use hospes_protocol::sign::{PublicKey, Signed};

use super::graph::{Graph, Thresholds, Topology};
use super::message::{Advertise, Point, Shares, Stamped, Step};
use super::refusal::Refusal;
use super::setup::{Noise, Setup};
use super::shamir::Commitments;
use super::vector::Layout;

/// What one site demands of a round, from its policy, its approval and what it fetched.
#[derive(Debug, Clone)]
pub struct Demands {
    /// This site's identity key.
    pub identity: PublicKey,
    /// Every other site of the approval, and how this site trusts its key now.
    pub peers: BTreeMap<PublicKey, Trust>,
    /// Fewest sites in a sum.
    pub min_parties: u32,
    /// Fewest peers in a sum that are verified here or vouched for.
    pub min_trusted_peers: u32,
    /// Sites that may collude, where the policy says so (c₀).
    pub corrupt: Option<u32>,
    /// Digest of the model that this site fetched.
    pub model: Option<Digest>,
    /// Noise that the approved plan asks for; `None` if it asks for none. The header must say the same.
    pub noise: Option<Noise>,
}

/// What a site has on record of a job's task. It is read anew for each step, in the transaction that makes the step's
/// answer durable: two sessions may be open at once, and only one of them may be agreed to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Past {
    /// Epoch of the coordinator that this site approved.
    pub epoch: u64,
    /// Last round and attempt of this epoch that it took part in.
    pub last: Option<(u32, u32)>,
    /// Last round and attempt of this epoch in which it signed a set of inputs (R3).
    pub consented: Option<(u32, u32)>,
    /// The cohort that the same was answered for before, in whichever job and epoch: a static function of the data
    /// (statistics, evaluation), or training from this model; see [`Setup::cohort`]. It counts as answered from the
    /// consent (R3) on, whatever became of the sum.
    pub answered: Option<Digest>,
}

/// A setup with what both roles ask of it all the time.
#[derive(Debug, Clone)]
pub(super) struct Session {
    setup: Canonical<Setup>,
    layout: Layout,
}

impl Session {
    pub(super) fn new(setup: Canonical<Setup>) -> Result<Self, Refusal> {
        let layout = setup.layout()?;
        Ok(Self { setup, layout })
    }

    pub(super) fn sid(&self) -> Digest {
        self.setup.digest()
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Shares that reconstruct a secret.
    pub(super) fn share_threshold(&self) -> u32 {
        match self.setup.graph {
            Graph::Complete {} => self.setup.t,
            Graph::Harary { threshold, .. } => threshold,
        }
    }

    /// Fewest sites of U1, U2 and U3: max(t, k_min), and in a graph n − D, for whose D missing its degree was found.
    pub(super) fn least(&self) -> usize {
        let Setup { n, t, k_min, graph, .. } = *self.setup();
        let drawn = match graph {
            Graph::Complete {} => 0,
            Graph::Harary { missing, .. } => n.saturating_sub(missing),
        };
        t.max(k_min).max(drawn) as usize
    }

    /// Sites that must sign one set of inputs.
    pub(super) fn quorum(&self) -> usize {
        self.setup.t as usize
    }

    /// All party numbers.
    pub(super) fn parties(&self) -> std::ops::Range<u32> {
        0..self.setup.n
    }

    /// The site with a party number, for words.
    pub(super) fn site(&self, party: u32) -> Result<SiteId, Refusal> {
        self.setup.site(party).ok_or(Refusal::Unknown(party))
    }

    /// The sites with these party numbers, for words.
    pub(super) fn sites(&self, parties: impl IntoIterator<Item = u32>) -> Vec<SiteId> {
        parties.into_iter().filter_map(|party| self.setup.site(party)).collect()
    }

    /// The party number of a site.
    pub(super) fn party(&self, site: SiteId) -> Result<u32, Refusal> {
        let found = (0u32..).zip(&self.setup.roster).find(|(_, entry)| entry.site == site);
        found.map(|(party, _)| party).ok_or(Refusal::Stranger(site))
    }

    pub(super) fn identity(&self, party: u32) -> Result<PublicKey, Refusal> {
        let entry = self.setup.roster.get(party as usize);
        entry.map(|entry| entry.identity).ok_or(Refusal::Unknown(party))
    }

    /// Whose message of this session this is, by the name in it, which its signature must bear out.
    pub(super) fn authentic<D: Stamped>(&self, signed: &Signed<D>) -> Result<u32, Refusal> {
        let party = signed.document.sender();
        self.authentic_of(party, signed)?;
        Ok(party)
    }

    /// Refuses a message that is not one of this party in this session. The refusal names the party, whoever the
    /// message names.
    pub(super) fn authentic_of<D: Stamped>(&self, party: u32, signed: &Signed<D>) -> Result<(), Refusal> {
        let site = self.site(party)?;
        if signed.document.sid() != self.sid() {
            return Err(Refusal::OtherRound(site));
        }
        // One signature: a list of them would only cost time.
        let is_its_own = signed.document.sender() == party && signed.signatures.len() == 1;
        if !is_its_own || !signed.signed_by(&self.identity(party)?) {
            return Err(Refusal::Unsigned(site));
        }
        Ok(())
    }

    /// The commitments of a member, if they are of the right number and begin with the keys that it advertised.
    pub(super) fn commitments(&self, shares: &Shares, keys: &Advertise) -> Option<(Commitments, Commitments)> {
        let parse = |points: &[Point], key: &Point| {
            let fits = points.len() == self.share_threshold() as usize && points.first() == Some(key);
            fits.then(|| Commitments::parse(points)).flatten()
        };
        Some((parse(&shares.mask, &keys.mask_key)?, parse(&shares.own, &keys.self_key)?))
    }

    /// Names a set of parties of this session.
    pub(super) fn set_digest(&self, set: &BTreeSet<u32>) -> Digest {
        let mut bytes = b"hospes/secagg/set/v1\0".to_vec();
        bytes.extend_from_slice(self.sid().as_bytes());
        bytes.extend(set.iter().flat_map(|party| party.to_be_bytes()));
        Digest::of(&bytes)
    }

    /// Refuses to go on with fewer than `needed` of those who were there before.
    pub(super) fn enough(
        &self,
        step: Step,
        present: &BTreeSet<u32>,
        before: impl IntoIterator<Item = u32>,
        needed: usize,
    ) -> Result<(), Refusal> {
        if present.len() >= needed {
            return Ok(());
        }
        let missing = self.sites(before.into_iter().filter(|party| !present.contains(party)));
        Err(Refusal::TooFew { step, present: present.len(), needed, missing })
    }

    /// Refuses to go on if fewer of the holders of a member's shares are present than reconstruct a secret. With so
    /// many, one of them at least is honest and shares a mask with the member that stays on until the sum is taken
    /// (Bell et al. 2020, §4.3); with fewer, its self-mask alone would hide its input.
    pub(super) fn enough_holders(&self, of: u32, topology: &Topology, present: &BTreeSet<u32>) -> Result<(), Refusal> {
        let (holders, needed) = (topology.holders(of), self.share_threshold() as usize);
        let found = holders.intersection(present).count();
        if found >= needed {
            return Ok(());
        }
        let missing = self.sites(&holders - present);
        Err(Refusal::TooFewHolders { of: self.site(of)?, present: found, needed, missing })
    }

    /// Refuses a sum that lost more noise than was planned for.
    pub(super) fn enough_noise(&self, active: &BTreeSet<u32>, included: &BTreeSet<u32>) -> Result<(), Refusal> {
        let Some(noise) = self.setup.noise else { return Ok(()) };
        let gone = active - included;
        let (missing, most) = (gone.len(), noise.d_max as usize);
        if missing > most { Err(Refusal::Noise { missing, most, sites: self.sites(gone) }) } else { Ok(()) }
    }

    /// Checks the header against what a site demands, and finds the site in it: its party number, and those of the
    /// peers that it knows from elsewhere than the coordinator.
    pub(super) fn check(&self, demands: &Demands) -> Result<(u32, BTreeSet<u32>), Refusal> {
        let setup = self.setup();
        let (mut me, mut trusted) = (None, BTreeSet::new());
        for (party, entry) in (0u32..).zip(&setup.roster) {
            if entry.identity == demands.identity {
                me = Some(party);
                continue;
            }
            match demands.peers.get(&entry.identity) {
                None => return Err(Refusal::NotApproved(entry.site)),
                Some(Trust::AssertedOnly) => {}
                Some(Trust::VouchedFor | Trust::VerifiedHere) => drop(trusted.insert(party)),
            }
        }
        let me = me.ok_or(Refusal::NotMember)?;
        // As many as the roster has, which fit.
        let asserted = setup.n - 1 - u32::try_from(trusted.len()).unwrap_or(setup.n - 1);
        let demanded = Thresholds::new(setup.n, demands.corrupt, asserted, demands.min_parties);
        let least = |field, found: u32, least: u32| {
            let refusal = Refusal::Terms { field, found: u64::from(found), least: u64::from(least) };
            if found >= least { Ok(()) } else { Err(refusal) }
        };
        // A header that offers more than this site demands is as good: another site may demand it.
        least("c", setup.c, demanded.corrupt)?;
        least("t", setup.t, demanded.quorum)?;
        least("k_min", setup.k_min, demanded.k_min)?;
        if trusted.len() < demands.min_trusted_peers as usize {
            return Err(Refusal::Trusted { found: trusted.len(), least: demands.min_trusted_peers as usize });
        }
        if setup.model != demands.model {
            return Err(Refusal::Model);
        }
        if setup.noise != demands.noise {
            return Err(Refusal::OtherNoise);
        }
        Ok((me, trusted))
    }

    /// Checks that the round is a new one.
    pub(super) fn is_new(&self, past: &Past) -> Result<(), Refusal> {
        let Setup { round, attempt, .. } = *self.setup();
        self.is_epoch(past)?;
        if past.consented.is_some_and(|(consented, _)| consented >= round) {
            return Err(Refusal::AgreedBefore);
        }
        if past.last.is_some_and(|last| last >= (round, attempt)) {
            return Err(Refusal::Replayed { round, attempt });
        }
        Ok(())
    }

    /// Checks that a session that was begun may still go on, and that its member's records know of the consent that is
    /// on record for it, and the other way round.
    pub(super) fn may_go_on(&self, past: &Past, has_consented: bool) -> Result<(), Refusal> {
        let Setup { round, attempt, .. } = *self.setup();
        self.is_epoch(past)?;
        if past.consented.is_some_and(|consented| consented.0 >= round && consented != (round, attempt)) {
            return Err(Refusal::AgreedBefore);
        }
        if past.last.is_some_and(|last| last > (round, attempt)) {
            return Err(Refusal::Replayed { round, attempt });
        }
        if has_consented != (past.consented == Some((round, attempt))) {
            return Err(Refusal::Record(Step::Consent));
        }
        Ok(())
    }

    fn is_epoch(&self, past: &Past) -> Result<(), Refusal> {
        let found = self.setup.epoch;
        if found == past.epoch { Ok(()) } else { Err(Refusal::Epoch { found, approved: past.epoch }) }
    }
}
