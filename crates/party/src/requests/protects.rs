//! What protects what leaves: the review, the approval and its entries say the same about it.

use hospes_privacy::dp::{self, Promise};
use hospes_privacy::secagg::Thresholds;
use hospes_protocol::approval::{Peer, PrivacyStatement, Trust};
use hospes_protocol::plan::{self, DpMode, Plan};
use hospes_protocol::policy::{Partner, Policy};
use hospes_protocol::round::Mode;

const READABLE: &str = "The coordinator can read this site's update and figures: they leave unmasked.";
const MASKED: &str =
    "This site's update leaves masked: the coordinator can read the sum over all sites, and not this site's part.";
const FIGURES: &str = "The coordinator can read this site's figures: they leave unmasked.";
const SUMS: &str =
    "This site's figures leave masked: the coordinator can read their sums over all sites, and not this site's part.";
const UNPROTECTED: &str = "Neither secure aggregation nor differential privacy protects the outputs: no bound on what they \
                           tell about a patient holds.";
const NO_NOISE: &str = "There is no differential privacy: no bound on what the sum over all sites tells about a patient \
                        holds.";
const WITHOUT_NOISE: &str = "What leaves besides the updates with noise has none: no bound on what it tells about a patient \
                             holds.";
const ONE_RUN: &str = "That is for one run: each further run that the approval allows adds to it.";
const UNREACHABLE: &str = "The updates are to carry noise, but no noise reaches the bound that the plan asks for: its training \
                           will fail.";

/// What of some plans leaves, and whether it is masked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Protects {
    /// Updates that are masked.
    masked: bool,
    /// Figures that are masked.
    sums: bool,
    /// Updates that are not.
    updates: bool,
    /// Figures that are not.
    figures: bool,
    /// Updates with noise.
    noisy: bool,
    /// Updates with noise that the sites share.
    shared: bool,
    /// Updates or figures without.
    bare: bool,
}

impl Protects {
    pub(super) fn of<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> Self {
        let mut found = Self::default();
        for plan in plans {
            found.noisy |= plan::with_dp(plan).next().is_some();
            found.shared |= plan::with_dp(plan).any(|(_, _, dp)| dp.mode == DpMode::Distributed);
            found.bare |= !plan::without_dp(plan).is_empty();
            for task in plan.tasks.values().filter(|task| task.component.rounds() > 0) {
                let kind = match (task.component.reports_figures(), task.component.is_masked()) {
                    (false, true) => &mut found.masked,
                    (false, false) => &mut found.updates,
                    (true, true) => &mut found.sums,
                    (true, false) => &mut found.figures,
                };
                *kind = true;
            }
        }
        found
    }

    /// Whether nothing of this site by itself can be read outside.
    pub(super) fn is_whole(self) -> bool {
        self.is_masked() && !self.figures
    }

    /// Whether updates are masked, each of them; of a study without any, some of its figures.
    pub(super) fn is_masked(self) -> bool {
        (self.masked || self.sums) && !self.updates
    }

    /// What must be read first.
    pub(super) fn banners(self) -> Vec<String> {
        if !self.is_masked() {
            return vec![READABLE.to_owned()];
        }
        let said = [(self.figures, FIGURES), (self.masked, MASKED), (self.sums, SUMS)];
        said.into_iter().filter(|(holds, _)| *holds).map(|(_, words)| words.to_owned()).collect()
    }

    /// Whether the sites share noise.
    pub(super) fn is_shared(self) -> bool {
        self.shared
    }

    /// What holds of the outputs of these plans.
    pub(super) fn bound<'a>(self, plans: impl IntoIterator<Item = &'a Plan>) -> Vec<String> {
        let plans: Vec<&Plan> = plans.into_iter().collect();
        let mut said = match Promise::of(plans.iter().copied()) {
            Ok(None) => return vec![(if self.is_masked() { NO_NOISE } else { UNPROTECTED }).to_owned()],
            Ok(Some(promise)) if plans.len() == 1 => vec![promised(promise), ONE_RUN.to_owned()],
            Ok(Some(promise)) => vec![promised(promise)],
            Err(_) => vec![UNREACHABLE.to_owned()],
        };
        if self.bare {
            said.push(WITHOUT_NOISE.to_owned());
        }
        said
    }

    /// What an approval says about it.
    pub(super) fn statement(self) -> PrivacyStatement {
        let mut unprotected = Vec::new();
        if !self.is_masked() {
            unprotected.push("updates: the coordinator can read this site's update".to_owned());
        }
        if self.figures || !(self.masked || self.sums) {
            unprotected.push("figures: the coordinator can read this site's figures".to_owned());
        }
        match (self.noisy, self.bare) {
            (false, _) => {
                unprotected.push("no differential privacy: no bound on what the updates tell holds".to_owned());
            }
            (true, true) => {
                unprotected.push("no noise: no bound on what leaves besides noisy updates holds".to_owned())
            }
            (true, false) => {}
        }
        PrivacyStatement { secure_aggregation: self.is_masked(), unprotected }
    }
}

/// What noise bounds, in words. ε is rounded up, so that what is said holds.
fn promised(promise: Promise) -> String {
    let Promise { epsilon, delta, shared } = promise;
    let epsilon = (epsilon * 100.0).ceil() / 100.0;
    if shared {
        return format!(
            "The sum of the updates over the sites carries noise, of which this site adds a part; it bounds what all sums \
             together tell about any one patient of this site, as long as no more sites collude with the coordinator than a \
             round counts on: differential privacy with epsilon {epsilon} and delta {delta}. The smaller epsilon is, the less \
             can be told."
        );
    }
    format!(
        "The updates carry noise, drawn here, which bounds what all of them together tell about any one patient of this \
         site: differential privacy with epsilon {epsilon} and delta {delta}. The smaller epsilon is, the less can be told."
    )
}

/// What this site demands of a masked round of all these sites.
fn bounds(policy: &Policy, peers: &[Peer]) -> (u32, u32, Thresholds) {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let sites = count(peers.len()).saturating_add(1);
    let asserted = count(peers.iter().filter(|peer| peer.trust == Trust::AssertedOnly).count());
    let partners: Vec<Partner> = peers.iter().map(Partner::from).collect();
    let least = policy.fewest(&partners).0;
    (sites, asserted, Thresholds::new(sites, policy.training.colluding, asserted, least))
}

/// How the updates of such a round would travel.
pub(super) fn mode(policy: &Policy, peers: &[Peer]) -> Mode {
    let (_, _, bounds) = bounds(policy, peers);
    Mode::SecureAggregation { c: bounds.corrupt, t: bounds.quorum, k_min: bounds.k_min }
}

/// How many hospitals may be switched off in a masked round of all these sites, as this site demands it, and whom it knows
/// from the coordinator only.
pub(super) fn survives(policy: &Policy, peers: &[Peer]) -> String {
    let (sites, asserted, bounds) = bounds(policy, peers);
    let known = match asserted {
        0 => "Every other site's key is verified here or vouched for.".to_owned(),
        some => format!("{some} of the other sites are asserted by the coordinator only, and count as its own."),
    };
    if bounds.quorum.max(bounds.k_min) > sites {
        return format!(
            "{known} With so many of them no masked round of these {sites} sites is safe, and this site takes part in \
             none: compare keys with more sites."
        );
    }
    let (before, after) = bounds.survives(sites);
    let hospitals = |number: u32| match number {
        0 => "no hospital".to_owned(),
        1 => "one hospital".to_owned(),
        more => format!("{more} hospitals"),
    };
    format!(
        "Of {sites} sites {} may be switched off before their update arrived, and {} after that. {known}",
        hospitals(before),
        hospitals(after)
    )
}

/// What it costs that shared noise is enough, too, when sites are missing from a round of all these.
pub(super) fn price(policy: &Policy, peers: &[Peer]) -> Option<String> {
    let (sites, _, bounds) = bounds(policy, peers);
    let missing = sites.checked_sub(bounds.quorum.max(bounds.k_min))?;
    let price = dp::price(sites, missing, bounds.corrupt)?;
    Some(format!(
        "While no site is missing, the sum has {price:.2} times the variance of noise that the bound needs, so that it also \
         holds with {missing} of the sites missing."
    ))
}

/// What protects what a run sends among these sites, and how many of them its masked rounds can do without.
pub(crate) fn protection(plan: &Plan, policy: &Policy, peers: &[Peer]) -> Vec<String> {
    let protects = Protects::of([plan]);
    let mut sentences = protects.banners();
    if protects.is_masked() {
        sentences.push(survives(policy, peers));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::sign::SecretKey;

    fn peers(trusts: &[Trust]) -> Vec<Peer> {
        let peer = |(n, trust): (u8, &Trust)| {
            let identity = SecretKey::from_seed(&[n; 32]).public();
            let (name, organisation) = (format!("site {n}"), format!("hospital {n}"));
            Peer { site: identity.site_id(), name, organisation, identity, trust: *trust }
        };
        (1u8..).zip(trusts).map(peer).collect()
    }

    #[test]
    fn how_many_may_be_switched_off_is_said_in_hospitals_and_who_is_only_asserted() {
        let policy = Policy::strict();
        let words = survives(&policy, &peers(&[Trust::VerifiedHere; 3]));
        assert!(
            words.starts_with("Of 4 sites one hospital may be switched off before their update arrived"),
            "{words}"
        );
        assert!(words.contains("and one hospital after that. Every other site's key is verified"), "{words}");
        let three = survives(&policy, &peers(&[Trust::VouchedFor; 2]));
        assert!(three.starts_with("Of 3 sites no hospital"), "{three}");
        let asserted = [Trust::AssertedOnly, Trust::AssertedOnly, Trust::VerifiedHere];
        let words = survives(&policy, &peers(&asserted));
        assert!(words.contains("no hospital") && words.contains("2 of the other sites are asserted"), "{words}");
        let words = survives(&policy, &peers(&[Trust::AssertedOnly; 3]));
        assert!(words.contains("takes part in none"), "{words}");
    }

    #[test]
    fn what_is_said_first_is_what_can_be_read() {
        let with = |masked, updates, figures| Protects { masked, updates, figures, ..Protects::default() };
        assert_eq!(with(false, true, true).banners(), [READABLE]);
        assert_eq!(with(true, true, false).banners(), [READABLE], "one of two trainings is not masked");
        assert_eq!(with(true, false, true).banners(), [FIGURES, MASKED]);
        assert_eq!(with(true, false, false).banners(), [MASKED]);
        let sums = |masked, updates, figures| Protects { sums: true, ..with(masked, updates, figures) };
        assert_eq!(sums(true, false, false).banners(), [MASKED, SUMS]);
        assert_eq!(sums(false, false, false).banners(), [SUMS], "a regression alone");
        assert_eq!(sums(false, false, true).banners(), [FIGURES, SUMS]);
        assert_eq!(sums(false, true, false).banners(), [READABLE], "masks for figures hide no update");
        assert!(sums(false, false, false).is_whole() && !sums(false, true, false).is_whole());
        assert_eq!(sums(false, false, false).statement().unprotected.len(), 1);
        assert!(with(true, false, false).is_whole() && !with(true, false, true).is_whole());
        assert!(with(true, false, true).statement().secure_aggregation);
        assert_eq!(with(false, true, true).statement().unprotected.len(), 3);
        assert_eq!(with(true, false, false).statement().unprotected.len(), 1);
    }

    #[test]
    fn what_noise_bounds_is_said_with_what_has_none() {
        let text = "schema: hospes/plan/v1
name: p
data: { subject: id, label: { column: y, positive: '> 0' }, columns: [a, b] }
tasks:
  read: { component: reader }
  train:
    component: nn_train
    inputs: { train: read }
    params:
      model: [{ linear: { out: 1 } }]
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      rounds: 20
      local: { updates: 5, batch: 8 }
      strategy: { fed_avg: {} }
      privacy: { plain: {} }
      dp: { mode: local, epsilon: 2, delta: 1.0e-5, clip_norm_l2: 1.0, sampling_rate: 0.1, expected_batch: 8 }
";
        let noisy = plan::read(text).unwrap();
        let said = |plan: &Plan| Protects::of([plan]).bound([plan]);
        let first = promised(Promise { epsilon: 2.0, delta: 1e-5, shared: false });
        assert!(first.contains("epsilon 2 and delta 0.00001."), "{first}");
        assert_eq!(said(&noisy), [first.clone(), ONE_RUN.to_owned()]);
        let named =
            |plan: &Plan| Protects::of([plan]).statement().unprotected.iter().any(|part| part.contains("no noise"));
        let mut judged = noisy.clone();
        let eval = "  eval: { component: evaluation, inputs: { model: train.model, data: read } }";
        judged.tasks.extend(plan::read(&format!("{text}{eval}\n")).unwrap().tasks);
        assert_eq!(said(&judged), [first, ONE_RUN.to_owned(), WITHOUT_NOISE.to_owned()]);
        assert!(named(&judged) && !named(&noisy));
        let words = promised(Promise { epsilon: 1.234_1, delta: 1e-6, shared: false });
        assert!(words.contains("epsilon 1.24 and delta 0.000001"), "{words}");
        let words = promised(Promise { epsilon: 1.0, delta: 1e-6, shared: true });
        assert!(words.contains("of which this site adds a part") && words.contains("epsilon 1 and"), "{words}");
        let price = price(&Policy::strict(), &peers(&[Trust::VerifiedHere; 3])).unwrap();
        assert!(price.contains("has 2.00 times") && price.ends_with("with 1 of the sites missing."), "{price}");
    }
}
