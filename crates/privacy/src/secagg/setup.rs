//! What a round with secure aggregation is: the header whose digest is the session's id, and what both sides check of
//! it.

use std::collections::BTreeSet;

use hospes_protocol::canon::Document;
use hospes_protocol::id::{Digest, FederationId, JobId, SiteId, StudyId};
use hospes_protocol::limits;
use hospes_protocol::plan::Quantise;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::version::Version;
use serde::{Deserialize, Serialize};

use super::graph::{FEWEST, Graph, MOST, quorum};
use super::mask::Prg;
use super::refusal::Refusal;
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
    /// Standard deviation of the sum's noise, in each tensor's own quantisation steps, that is left when as many sites are
    /// missing as may be and those that collude take theirs off.
    pub sigma_steps: f64,
    /// Most sites of those that mask (U2) that may be missing from the sum (`d_max`).
    pub d_max: u32,
}

impl Setup {
    /// The setup that a round's header asks for; graph and widths follow by rule.
    ///
    /// # Shapes
    /// `clips` has one clip for each tensor of the header, in its order: that of the header's quantiser, where the plan
    /// knows no other. The two vectors of `scaffold` have two.
    ///
    /// # Errors
    /// [`Refusal::Unusable`] or [`Refusal::Size`] names what nobody could take part in.
    pub fn new(header: &RoundHeader, clips: &[f64], prg: Prg, noise: Option<Noise>) -> Result<Self, Refusal> {
        let Mode::SecureAggregation { c, t, k_min } = header.mode else {
            return Err(Refusal::Unusable { field: "mode", reason: "it is not secure aggregation" });
        };
        let n = size(&header.roster)?;
        let Quantise { bits, n_max, .. } = header.quantise;
        if clips.len() != header.tensors.len() {
            return Err(Refusal::Unusable { field: "clips", reason: "there is not one for each tensor" });
        }
        check_noise(noise, t.max(k_min), c)?;
        let spread = spread(noise, t.max(k_min), c, header.parameters());
        let tensors = header.tensors.iter().zip(clips).map(|(tensor, &clip)| -> Result<Tensor, Refusal> {
            let TensorShape { name, shape } = tensor.clone();
            let width = width_of(n, Scale::new(clip, bits).map_err(|_| UNUSABLE_SCALE)?.most(), spread)?;
            Ok(Tensor { name, shape, clip, bits, width })
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
        check_noise(self.noise, self.t.max(self.k_min), self.c)?;
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

    /// 2·z·σ of a coordinate of the sum, with the most noise that a sum can have; 0 without noise.
    ///
    /// # Units
    /// Quantisation steps.
    pub fn noise_steps(&self) -> f64 {
        spread(self.noise, self.t.max(self.k_min), self.c, self.entries())
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

    pub(super) fn site(&self, party: u32) -> Option<SiteId> {
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

impl Noise {
    /// Standard deviation of the noise that each of `masking` members (U2) adds: σ/√(|U2| − d_max − max(c, 1)), so that
    /// σ is left without those who are missing and those who look (specs/differential-privacy.md; who looks knows its own
    /// noise, so that c = 0 is never right). Infinite where nobody's noise would be left.
    ///
    /// # Units
    /// Quantisation steps.
    pub(super) fn of_each(&self, masking: u32, c: u32) -> f64 {
        let left = f64::from(masking) - f64::from(self.d_max) - f64::from(c.max(1));
        if left > 0.0 { self.sigma_steps / left.sqrt() } else { f64::INFINITY }
    }
}

fn check_noise(noise: Option<Noise>, least: u32, c: u32) -> Result<(), Refusal> {
    let Some(noise) = noise else { return Ok(()) };
    let unusable = |reason| Err(Refusal::Unusable { field: "noise", reason });
    if !(noise.sigma_steps.is_finite() && noise.sigma_steps > 0.0) {
        return unusable("its σ is not above 0");
    }
    if noise.of_each(least, c).is_infinite() {
        return unusable("with so many missing, no honest site's noise is left in the smallest sum");
    }
    Ok(())
}

/// 2·z·σ of the noisiest sum: with nobody missing after R2, of as few members as may mask, who add the most each.
fn spread(noise: Option<Noise>, least: u32, c: u32, entries: u64) -> f64 {
    noise.map_or(0.0, |noise| 2.0 * noise_bound(noise.of_each(least, c) * f64::from(least).sqrt(), entries))
}

fn width_of(n: u32, most: u64, noise_steps: f64) -> Result<u32, Refusal> {
    width(n, most, noise_steps).ok_or(Refusal::Unusable { field: "width", reason: "a sum would not fit into 63 bits" })
}
