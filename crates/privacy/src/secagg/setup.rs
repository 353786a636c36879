//! What a round with secure aggregation is: the header whose digest is the session's id, what both sides check of it,
//! and what one site demands of it.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::approval::Trust;
use hospes_protocol::canon::{Canonical, Document};
use hospes_protocol::id::{Digest, FederationId, JobId, SiteId, StudyId};
use hospes_protocol::limits;
use hospes_protocol::plan::Quantise;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::{PublicKey, Signed};
use hospes_protocol::version::Version;
use serde::{Deserialize, Serialize};

use super::graph::{FEWEST, Graph, MOST, Thresholds, quorum};
use super::mask::Prg;
use super::message::{Advertise, Point, Shares, Stamped, Step};
use super::refusal::Refusal;
use super::shamir::Commitments;
use super::vector::{Layout, Part, Scale, noise_bound, width};

/// Everything that a round's masks depend on. Its digest is the session's id (`sid`), so that sites that were told
/// different things make masks that do not cancel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Version of the wire protocol.
    pub protocol: Version,
    /// Federation.
    pub federation: FederationId,
    /// Study.
    pub study: StudyId,
    /// Job.
    pub job: JobId,
    /// Task of the plan.
    pub task: String,
    /// Incarnation of the coordinator.
    pub epoch: u64,
    /// Round, from 1.
    pub round: u32,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Digest of the model that sites start from.
    pub model: Option<Digest>,
    /// Digest of the plan.
    pub plan: Digest,
    /// Members in order; a member's index is its party number.
    pub roster: Vec<RosterEntry>,
    /// Members.
    pub n: u32,
    /// Sites that may collude with the coordinator.
    pub c: u32,
    /// Sites that must agree; without a graph also the shares that reconstruct a secret.
    pub t: u32,
    /// Fewest sites in a sum.
    pub k_min: u32,
    /// Who shares with whom.
    pub graph: Graph,
    /// What makes the masks.
    pub prg: Prg,
    /// Tensors of the vector in order.
    pub tensors: Vec<Tensor>,
    /// Rows from which a site's weight no longer grows.
    pub n_max: u32,
    /// Bits of the sum of weights.
    pub weight_width: u32,
    /// Noise that the sites add, if they do.
    pub noise: Option<Noise>,
}

impl Document for Setup {
    const KIND: &'static str = "secagg/setup";
    const VERSION: u32 = 1;
}

/// A tensor and how it is put into the ring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Name.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Largest absolute value of an entry.
    pub clip: f64,
    /// Bits of one site's level.
    pub bits: u8,
    /// Bits of a coordinate of the sum.
    pub width: u32,
}

/// Noise that all sites together add.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Standard deviation of the sum's noise in quantisation steps, with everybody in it.
    pub sigma_steps: f64,
    /// Most sites that may be missing from the sum (`d_max`).
    pub d_max: u32,
}

impl Setup {
    /// The setup that a round's header asks for; graph and widths follow by rule.
    ///
    /// # Errors
    /// [`Refusal::Unusable`] or [`Refusal::Size`] names what nobody could take part in.
    pub fn new(header: &RoundHeader, prg: Prg, noise: Option<Noise>) -> Result<Self, Refusal> {
        let Mode::SecureAggregation { c, t, k_min } = header.mode else {
            return Err(Refusal::Unusable { field: "mode", reason: "it is not secure aggregation" });
        };
        let n = size(&header.roster)?;
        let Quantise { clip, bits, n_max } = header.quantise;
        let spread = spread(noise, header.parameters());
        let tensors = header.tensors.iter().map(|TensorShape { name, shape }| -> Result<Tensor, Refusal> {
            let width = width_of(n, Scale::new(clip, bits).map_err(|_| UNUSABLE_SCALE)?.most(), spread)?;
            Ok(Tensor { name: name.clone(), shape: shape.clone(), clip, bits, width })
        });
        let setup = Self {
            protocol: header.protocol,
            federation: header.federation,
            study: header.study,
            job: header.job,
            task: header.task.clone(),
            epoch: header.epoch,
            round: header.round,
            attempt: header.attempt,
            model: header.model,
            plan: header.plan,
            roster: header.roster.clone(),
            n,
            c,
            t,
            k_min,
            graph: Graph::of(n, c).ok_or(NO_GRAPH)?,
            prg,
            tensors: tensors.collect::<Result<_, Refusal>>()?,
            n_max,
            weight_width: width_of(n, u64::from(n_max), 0.0)?,
            noise,
        };
        setup.layout()?;
        Ok(setup)
    }

    /// Checks everything that does not depend on who looks, and gives the layout of a vector: first the row weight,
    /// then the tensors.
    ///
    /// # Errors
    /// [`Refusal::Size`], [`Refusal::Roster`], [`Refusal::Unusable`].
    pub fn layout(&self) -> Result<Layout, Refusal> {
        let n = size(&self.roster)?;
        let mut seen = BTreeSet::new();
        for entry in &self.roster {
            if entry.identity.site_id() != entry.site || !seen.insert(entry.site) {
                return Err(Refusal::Roster(entry.site));
            }
        }
        let rule = |holds: bool, field, reason| if holds { Ok(()) } else { Err(Refusal::Unusable { field, reason }) };
        rule(self.n == n, "n", "it is not the length of the roster")?;
        rule(self.c >= 1 || n == FEWEST, "c", "only a round of three may count nobody as corrupt")?;
        rule(self.t == quorum(n, self.c), "t", "it is not ⌊(n + c)/2⌋ + 1")?;
        rule(self.k_min >= self.c.saturating_add(2), "k_min", "it is below c + 2")?;
        rule(self.k_min <= n && self.t <= n, "k_min", "more sites are needed than there are")?;
        if Graph::of(n, self.c) != Some(self.graph) {
            return Err(NO_GRAPH);
        }
        rule(self.n_max >= 1, "n_max", "it must be at least 1")?;
        if let Some(Noise { sigma_steps, d_max }) = self.noise {
            rule(sigma_steps.is_finite() && sigma_steps > 0.0, "noise", "its σ is not above 0")?;
            rule(d_max < n, "noise", "it counts on more missing sites than there are")?;
        }
        let spread = self.noise_steps();
        let weight_width = width_of(n, u64::from(self.n_max), 0.0)?;
        rule(self.weight_width == weight_width, "weight_width", "it is not the width of the sum of weights")?;
        let mut parts = vec![Part { entries: 1, most: u64::from(self.n_max), width: self.weight_width }];
        for tensor in &self.tensors {
            let most = Scale::new(tensor.clip, tensor.bits).map_err(|_| UNUSABLE_SCALE)?.most();
            rule(tensor.width == width_of(n, most, spread)?, "width", "it is not the least in which no sum wraps")?;
            parts.push(Part { entries: tensor.entries(), most, width: tensor.width });
        }
        rule(self.entries() <= limits::MODEL_PARAMETERS, "tensors", "they have more entries than a model may have")?;
        Ok(Layout::new(parts))
    }

    /// Entries of all tensors.
    fn entries(&self) -> u64 {
        self.tensors.iter().fold(0u64, |sum, tensor| sum.saturating_add(tensor.entries()))
    }

    /// 2·z·σ of a coordinate of the sum; 0 without noise.
    ///
    /// # Units
    /// Quantisation steps.
    pub fn noise_steps(&self) -> f64 {
        spread(self.noise, self.entries())
    }

    /// Names the set of sites whose inputs count, whatever their party numbers: what a site keeps of a static figure.
    ///
    /// # Disclosure
    /// Who takes part, which every member knows.
    pub fn cohort(&self, included: &BTreeSet<u32>) -> Digest {
        let mut sites: Vec<SiteId> = included.iter().filter_map(|party| self.site(*party)).collect();
        sites.sort_unstable();
        Digest::of(&sites.iter().flat_map(|site| *site.as_bytes()).collect::<Vec<u8>>())
    }

    fn site(&self, party: u32) -> Option<SiteId> {
        self.roster.get(party as usize).map(|entry| entry.site)
    }
}

impl Tensor {
    fn entries(&self) -> u64 {
        self.shape.iter().fold(1u64, |product, side| product.saturating_mul(*side))
    }
}

const UNUSABLE_SCALE: Refusal =
    Refusal::Unusable { field: "quantise", reason: "the clip or the bits are out of their bounds" };
const NO_GRAPH: Refusal =
    Refusal::Unusable { field: "graph", reason: "it is not the one that protects so many sites, or there is none" };

fn size(roster: &[RosterEntry]) -> Result<u32, Refusal> {
    let n = u32::try_from(roster.len()).ok().filter(|n| (FEWEST..=MOST).contains(n));
    n.ok_or(Refusal::Size(roster.len()))
}

fn spread(noise: Option<Noise>, entries: u64) -> f64 {
    noise.map_or(0.0, |noise| 2.0 * noise_bound(noise.sigma_steps, entries))
}

fn width_of(n: u32, most: u64, noise_steps: f64) -> Result<u32, Refusal> {
    width(n, most, noise_steps).ok_or(Refusal::Unusable { field: "width", reason: "a sum would not fit into 63 bits" })
}

/// What one site demands of a round, from its policy, its approval and what it remembers.
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
    /// For a static function of the data (statistics, evaluation of one model): the cohort that it was answered for
    /// before, of the same snapshot, task and model; see [`Setup::cohort`].
    pub answered: Option<Digest>,
}

/// What a site remembers of earlier rounds of a job's task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Past {
    /// Epoch of the coordinator that this site approved.
    pub epoch: u64,
    /// Last round and attempt of this epoch that it took part in.
    pub last: Option<(u32, u32)>,
    /// Last round in which it signed a set of inputs (R3), whatever the epoch's attempt.
    pub consented: Option<u32>,
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

    /// Fewest sites of U1, U2 and U3: max(t, k_min).
    pub(super) fn least(&self) -> usize {
        self.setup.t.max(self.setup.k_min) as usize
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

    pub(super) fn identity(&self, party: u32) -> Result<PublicKey, Refusal> {
        let entry = self.setup.roster.get(party as usize);
        entry.map(|entry| entry.identity).ok_or(Refusal::Unknown(party))
    }

    /// Who signed a message of this session.
    pub(super) fn authentic<D: Stamped>(&self, signed: &Signed<D>) -> Result<u32, Refusal> {
        let party = signed.document.sender();
        let site = self.site(party)?;
        if signed.document.sid() != self.sid() {
            return Err(Refusal::OtherRound(site));
        }
        // One signature: a list of them would only cost time.
        if signed.signatures.len() != 1 || !signed.signed_by(&self.identity(party)?) {
            return Err(Refusal::Unsigned(site));
        }
        Ok(party)
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
        Ok((me, trusted))
    }

    /// Checks that the round is a new one.
    pub(super) fn check_past(&self, past: &Past) -> Result<(), Refusal> {
        let Setup { epoch, round, attempt, .. } = *self.setup();
        if epoch != past.epoch {
            return Err(Refusal::Epoch { found: epoch, approved: past.epoch });
        }
        if past.consented.is_some_and(|consented| consented >= round) {
            return Err(Refusal::AgreedBefore);
        }
        if past.last.is_some_and(|last| last >= (round, attempt)) {
            return Err(Refusal::Replayed { round, attempt });
        }
        Ok(())
    }
}
