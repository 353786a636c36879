//! What must hold, kept apart from the system: what each site made, what was acknowledged, and what follows for the
//! models that are published.

use std::collections::{BTreeMap, BTreeSet};

use hospes_coordinator::aggregate::newton::Fit;
use hospes_coordinator::models::Models;
use hospes_privacy::figures;
use hospes_privacy::quantise::Quantiser;
use hospes_privacy::secagg::Sent;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, JobId, RoundKey};
use hospes_protocol::message::{FigureSet, FromSite, RoundReply, ToSite};
use hospes_protocol::plan::masks::Form;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::plan::{self, Adaptive, Coefficients, Figure, Plan, Quantise};
use hospes_protocol::policy::EgressKind;
use hospes_protocol::round::RoundHeader;

use crate::fit;
use crate::rng::Rng;
use crate::site::takes_back;
use crate::world::Node;

/// How far a published parameter may be from the one that is computed here in double precision.
const TOLERANCE: f64 = 2e-6;

/// A site's round, whichever attempt: site, job, task, epoch, number.
type OneRound = (usize, JobId, String, u64, u32);

/// Everything that is known from outside.
#[derive(Default)]
pub(crate) struct Truth {
    payloads: BTreeMap<(usize, RoundKey), Vec<u8>>,
    /// Those of them that must not leave as they are.
    masked: BTreeSet<(usize, RoundKey)>,
    acknowledged: BTreeMap<(usize, RoundKey), Digest>,
    ordered: BTreeMap<(usize, RoundKey), u32>,
    /// Rounds that a site left by its own word.
    left: BTreeSet<(usize, RoundKey)>,
    /// Rounds that the coordinator opened, and those that it closed.
    opened: BTreeSet<RoundKey>,
    closed: BTreeSet<RoundKey>,
    /// Rounds that were open when a site's people took something back, or when the coordinator heard of it: that site may
    /// be left out of them, and of no others.
    taken_back: BTreeSet<(usize, RoundKey)>,
    models: BTreeMap<Digest, Vec<f32>>,
    /// Sets of inputs that sites agreed to, by round without its attempt.
    agreed: BTreeMap<OneRound, (u32, Digest)>,
    /// Of whose secrets sites revealed shares: self-masks, and mask keys.
    revealed: BTreeMap<(usize, RoundKey), [BTreeSet<u32>; 2]>,
    pub(crate) violations: Vec<String>,
    pub(crate) receipts: u64,
}

/// A round's name without its job, which is another one in every run.
pub(crate) fn short(key: &RoundKey) -> String {
    format!("{}/{}.{}", key.task, key.round, key.attempt)
}

fn letter(site: usize) -> &'static str {
    Node::Site(site).name()
}

/// What a site's work gives in a round: a function of site, task, round and attempt alone, and of each another.
fn payload(site: usize, header: &RoundHeader, plan: &Plan) -> Vec<u8> {
    let name = format!("{site}/{}/{}/{}", header.task, header.round, header.attempt);
    let mut seed = [0; 8];
    seed.copy_from_slice(&Digest::of(name.as_bytes()).as_bytes()[..8]);
    let mut rng = Rng::new(u64::from_le_bytes(seed));
    // Exact in both number types, and within the clip.
    let mut value = || f64::from(i16::try_from(rng.between(-2_048, 2_048)).unwrap_or(0)) / 4_096.0;
    if plan::masks::reports_figures(plan, &header.task) {
        let mut set = FigureSet { sums: BTreeMap::new(), withheld: BTreeMap::new() };
        for figure in plan::figures(plan, &header.task) {
            // Under masks a count is one.
            let is_count = header.is_secure() && Form::of(&figure.name) == Some(Form::Count);
            let of_rows = |value: f64| if is_count { (value * 4_096.0).abs() } else { value };
            let values = (0..figure.values).map(|_| of_rows(value())).collect();
            set.sums.insert(figure.name.into_owned(), values);
        }
        return reported(header, plan, set);
    }
    #[allow(clippy::cast_possible_truncation, reason = "a multiple of 1/4096 below 1 is exact")]
    let tensors: Vec<Vec<f32>> =
        header.tensors.iter().map(|t| (0..t.len()).map(|_| value() as f32).collect()).collect();
    let slices: Vec<&[f32]> = tensors.iter().map(Vec::as_slice).collect();
    let rows = 10 + 7 * site as u64;
    let quantiser = Quantiser::new(&header.quantise);
    let encoded = quantiser.and_then(|q| q.encode(rows, &header.tensors, &slices, &mut || 0));
    encoded.map(hospes_privacy::quantise::Payload::into_bytes).unwrap_or_default()
}

/// A report as the worker leaves it: to be sent, or to be masked.
fn reported(header: &RoundHeader, plan: &Plan, set: FigureSet) -> Vec<u8> {
    if header.is_secure() {
        let announced = plan::round_figures(plan, &header.task, header.round);
        return figures::levels(&announced, &set).map(|levels| levels.to_vec()).unwrap_or_default();
    }
    Canonical::new(set).map(|set| set.bytes().to_vec()).unwrap_or_default()
}

/// The report that a worker left, by what its round's header asks for.
fn report_of(header: &RoundHeader, payload: &[u8]) -> Option<FigureSet> {
    let Some((_, tensors)) = header.tensors.split_first() else {
        return Canonical::<FigureSet>::parse(payload).ok().map(Canonical::into_inner);
    };
    let figure = |tensor: &TensorShape| Figure {
        name: tensor.name.clone().into(),
        values: tensor.shape.first().copied().unwrap_or_default(),
        kind: EgressKind::Metrics,
    };
    let announced: Vec<Figure> = tensors.iter().map(figure).collect();
    let (levels, _) = payload.get(8..)?.as_chunks::<4>();
    let levels: Vec<u64> = levels.iter().map(|level| u64::from(u32::from_le_bytes(*level))).collect();
    figures::report(&announced, 1, &levels).ok()
}

/// The row weight of an update and its weighted entries.
fn decode(payload: &[u8], rules: &Quantise) -> (f64, Vec<f64>) {
    let mut head = [0; 8];
    head.copy_from_slice(&payload[..8]);
    let weight = u64::from_le_bytes(head) as f64 / f64::from(rules.n_max);
    let step = 2.0 * rules.clip / f64::from(u32::MAX);
    let (entries, _) = payload[8..].as_chunks::<4>();
    (weight, entries.iter().map(|e| f64::from(u32::from_le_bytes(*e)) * step - rules.clip).collect())
}

/// The parameters of a model's file.
fn parameters(file: &[u8]) -> Option<Vec<f32>> {
    let length = usize::try_from(u64::from_le_bytes(*file.first_chunk::<8>()?)).ok()?;
    let (entries, _) = file.get(8 + length..)?.as_chunks::<4>();
    Some(entries.iter().map(|e| f32::from_le_bytes(*e)).collect())
}

/// How the coordinator steps from the mean of a round's updates, with what it keeps of the rounds before.
#[derive(Clone)]
pub(crate) struct Server {
    adaptive: Option<Adaptive>,
    /// First and second moment of each parameter; they begin at 0.
    moments: Vec<[f64; 2]>,
}

impl Server {
    pub(crate) fn new(adaptive: Option<&Adaptive>) -> Self {
        Self { adaptive: adaptive.cloned(), moments: Vec::new() }
    }

    /// By how much each parameter moves: by the mean, or as Reddi et al. 2021 have it for FedAdam.
    fn step(&mut self, mean: &[f64]) -> Vec<f64> {
        let Some(adaptive) = &self.adaptive else { return mean.to_vec() };
        self.moments.resize(mean.len(), [0.0; 2]);
        let moved = self.moments.iter_mut().zip(mean).map(|([first, second], by)| {
            *first = adaptive.beta1 * *first + (1.0 - adaptive.beta1) * by;
            *second = adaptive.beta2 * *second + (1.0 - adaptive.beta2) * by * by;
            adaptive.lr * *first / (second.sqrt() + adaptive.tau)
        });
        moved.collect()
    }
}

impl Truth {
    /// What a site's work gives in a round; of a regression, the sums of its rows at the coefficients that came.
    pub(crate) fn payload(&self, site: usize, header: &RoundHeader, plan: &Plan) -> Vec<u8> {
        let Some(coefficients) = Coefficients::of(plan, &header.task) else { return payload(site, header, plan) };
        let file = header.model.and_then(|model| self.models.get(&model));
        let Some(point) = file.and_then(|values| coefficients.from_file(values)) else { return Vec::new() };
        reported(header, plan, fit::report(site, &point))
    }

    /// The fit is that of the rows of its sites, each once.
    pub(crate) fn check_fit(&mut self, found: &Fit) {
        let sites: Vec<usize> = found.sites.iter().filter_map(|id| crate::run::site_of(*id)).collect();
        let estimates: Vec<f64> = found.coefficients.iter().map(|c| c.estimate).collect();
        let expected = fit::pooled(&sites);
        let near = expected.iter().zip(&estimates).all(|(a, b)| (a - b).abs() < 1e-9);
        if expected.len() != estimates.len() || !near || found.n != fit::rows(&sites) {
            self.violation(format!(
                "the fit is not that of the rows of {sites:?}: {estimates:?} instead of {expected:?}"
            ));
        }
    }

    pub(crate) fn violation(&mut self, words: String) {
        if !self.violations.contains(&words) {
            self.violations.push(words);
        }
    }

    /// An engine ordered work under a permit.
    pub(crate) fn ordered(&mut self, site: usize, round: &RoundKey) {
        let count = self.ordered.entry((site, round.clone())).or_default();
        *count += 1;
        let count = *count;
        if count > 1 {
            self.violation(format!("{} used its permit for {} {count} times", letter(site), short(round)));
        }
    }

    pub(crate) fn made(&mut self, site: usize, round: &RoundKey, payload: Vec<u8>) {
        self.payloads.insert((site, round.clone()), payload);
    }

    /// What a site's work gives in this round leaves masked.
    pub(crate) fn is_to_be_masked(&mut self, site: usize, round: &RoundKey) {
        self.masked.insert((site, round.clone()));
    }

    pub(crate) fn acknowledged(&mut self, site: usize, round: &RoundKey, digest: Digest) {
        self.receipts += 1;
        let before = self.acknowledged.insert((site, round.clone()), digest);
        if before.is_some_and(|before| before != digest) {
            self.violation(format!("two payloads of {} were acknowledged for {}", letter(site), short(round)));
        }
        let known = (site, round.clone());
        let made = self.payloads.get(&known).map(|payload| Digest::of(payload));
        let what = if !self.masked.contains(&known) {
            (made != Some(digest)).then_some("is not the one it made")
        } else {
            // Whether it is the masked one shows in the sum.
            (made == Some(digest)).then_some("left without masks")
        };
        let Some(what) = what else { return };
        self.violation(format!("a payload of {} for {} {what}", letter(site), short(round)));
    }

    /// A site said something that may rightly take its input out of a round.
    pub(crate) fn said(&mut self, site: usize, message: &FromSite) {
        if let FromSite::RoundReply { round, reply } = message
            && !matches!(reply, RoundReply::Working)
        {
            self.left.insert((site, round.clone()));
        }
        if let FromSite::SecureStep { round, message } = message {
            self.said_a_step(site, round, message.bytes());
        }
        self.hear_taken_back(site, message);
    }

    /// A site agrees to one sum in a round, whatever the attempt, and of each peer it reveals one of two shares.
    fn said_a_step(&mut self, site: usize, round: &RoundKey, message: &[u8]) {
        match Sent::from_bytes(message) {
            Ok(Sent::Consent(signed)) => {
                let now = (round.attempt, signed.document.included);
                let key = (site, round.job, round.task.clone(), round.epoch, round.round);
                if *self.agreed.entry(key).or_insert(now) != now {
                    self.violation(format!("{} agreed to two sums in {}", letter(site), short(round)));
                }
            }
            Ok(Sent::Reveal(signed)) => {
                let [own, mask] = self.revealed.entry((site, round.clone())).or_default();
                own.extend(signed.document.own.iter().map(|revealed| revealed.of));
                mask.extend(signed.document.mask.iter().map(|revealed| revealed.of));
                if !own.is_disjoint(mask) {
                    self.violation(format!("{} revealed both shares of a peer in {}", letter(site), short(round)));
                }
            }
            Ok(_) => {}
            Err(refusal) => self.violation(format!("{} said what is no message: {refusal}", letter(site))),
        }
    }

    /// The coordinator told somebody of a round.
    pub(crate) fn told(&mut self, message: &ToSite) {
        match message {
            ToSite::RoundOpen(header) => drop(self.opened.insert(header.document.key())),
            ToSite::RoundClosed { round, .. } => drop(self.closed.insert(round.clone())),
            _ => {}
        }
    }

    /// A site's word that it takes something back is said, or heard, which may be long after, or twice.
    pub(crate) fn hear_taken_back(&mut self, site: usize, message: &FromSite) {
        if takes_back(message) {
            self.taken_back.extend(self.opened.difference(&self.closed).map(|round| (site, round.clone())));
        }
    }

    /// Reads models that are new on the shelf; the coordinator deletes those that it needs no more.
    pub(crate) fn keep_models(&mut self, models: &Models) {
        for digest in models.list().unwrap_or_default() {
            if let std::collections::btree_map::Entry::Vacant(place) = self.models.entry(digest)
                && let Some(read) = std::fs::read(models.path(digest)).ok().and_then(|file| parameters(&file))
            {
                place.insert(read);
            }
        }
    }

    /// A published round: everything acknowledged is in it unless its site took it back, and everything in it was made
    /// and acknowledged.
    pub(crate) fn check_included(&mut self, round: &RoundKey, included: &[usize], roster: &[usize]) {
        for site in roster {
            let known = (*site, round.clone());
            let is_in = included.contains(site);
            let taken_back = self.taken_back.contains(&known) || self.left.contains(&known);
            match (self.acknowledged.contains_key(&known), is_in) {
                (true, false) if !taken_back => {
                    let words = "an acknowledged update is lost:";
                    self.violation(format!("{words} {} is not in {}", letter(*site), short(round)));
                }
                // Complete and durable, but its confirmation was not: it counts all the same.
                (false, true) if !self.payloads.contains_key(&known) => {
                    self.violation(format!("{} is in {} and made nothing", letter(*site), short(round)));
                }
                _ => {}
            }
        }
    }

    /// The model of a round is the one before plus what the weighted mean of the updates in it, each once, moves it by.
    pub(crate) fn check_model(&mut self, header: &RoundHeader, model: Digest, included: &[usize], server: &mut Server) {
        let round = header.key();
        let (Some(before), Some(after)) =
            (header.model.and_then(|m| self.models.get(&m)).cloned(), self.models.get(&model).cloned())
        else {
            return self.violation(format!("a model of {} was never on the shelf", short(&round)));
        };
        let once: BTreeMap<usize, u32> = included.iter().map(|site| (*site, 1)).collect();
        let earlier = server.clone();
        if self.fits(header, (&before, &after), &once, server) {
            return;
        }
        let sites: Vec<usize> = header.roster.iter().filter_map(|e| crate::run::site_of(e.site)).collect();
        let found = counts(&sites).find(|counts| self.fits(header, (&before, &after), counts, &mut earlier.clone()));
        let words = match found {
            Some(counts) => {
                let twice: Vec<&str> = counts.iter().filter(|(_, n)| **n > 1).map(|(site, _)| letter(*site)).collect();
                let without: Vec<&str> =
                    included.iter().filter(|s| counts.get(s).is_none_or(|n| *n == 0)).map(|s| letter(*s)).collect();
                format!("counted twice: {twice:?}, not counted: {without:?}")
            }
            None => "it does not follow from the updates".to_owned(),
        };
        self.violation(format!("the model of {} is wrong: {words}", short(&round)));
    }

    fn fits(
        &self,
        header: &RoundHeader,
        (before, after): (&[f32], &[f32]),
        counts: &BTreeMap<usize, u32>,
        server: &mut Server,
    ) -> bool {
        let mut sum = vec![0.0; before.len()];
        let mut weights = 0.0;
        for (site, count) in counts.iter().filter(|(_, count)| **count > 0) {
            let Some(payload) = self.payloads.get(&(*site, header.key())) else { return false };
            let (weight, entries) = decode(payload, &header.quantise);
            weights += weight * f64::from(*count);
            for (sum, entry) in sum.iter_mut().zip(entries) {
                *sum += entry * f64::from(*count);
            }
        }
        if weights <= 0.0 || before.len() != after.len() {
            return false;
        }
        sum.iter_mut().for_each(|sum| *sum /= weights);
        let moved = server.step(&sum);
        let mut pairs = before.iter().zip(after).zip(moved);
        pairs.all(|((before, after), by)| (f64::from(*before) + by - f64::from(*after)).abs() < TOLERANCE)
    }

    /// The pooled figures of a round are the sum over those in it, each once.
    pub(crate) fn check_figures(&mut self, header: &RoundHeader, pooled: &FigureSet, included: &[usize]) {
        let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for site in included {
            let Some(payload) = self.payloads.get(&(*site, header.key())) else { continue };
            let Some(set) = report_of(header, payload) else { continue };
            for (name, values) in &set.sums {
                let sum = sums.entry(name.clone()).or_insert_with(|| vec![0.0; values.len()]);
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
        let same = |name: &String, sum: &Vec<f64>| {
            pooled.sums.get(name).is_some_and(|found| found.iter().zip(sum).all(|(f, s)| (f - s).abs() < 1e-9))
        };
        if let Some(name) = sums.iter().find(|(name, sum)| !same(name, sum)).map(|(name, _)| name.clone()) {
            let round = short(&header.key());
            self.violation(format!("the figure '{name}' of {round} is not the sum of the sites' figures, each once"));
        }
    }
}

/// All ways to count each of these sites never, once or twice.
fn counts(sites: &[usize]) -> impl Iterator<Item = BTreeMap<usize, u32>> {
    let sites = sites.to_vec();
    let ways = 3u32.pow(u32::try_from(sites.len()).unwrap_or(0));
    (0..ways).map(move |way| {
        let mut rest = way;
        sites
            .iter()
            .map(|site| {
                let count = rest % 3;
                rest /= 3;
                (*site, count)
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use hospes_protocol::id::{StudyId, Timestamp};
    use hospes_protocol::message::{Decision, RoundOutcome};

    use super::*;

    fn round(round: u32) -> RoundKey {
        let job = JobId::new(Timestamp::from_millis(1), [1; 10]);
        RoundKey { job, task: "train".into(), epoch: 1, round, attempt: 1 }
    }

    #[test]
    fn whoever_takes_back_is_excused_for_the_rounds_that_are_open_then() {
        let study = StudyId::new(Timestamp::from_millis(1), [1; 10]);
        let suspended = FromSite::Decision { study, decision: Decision::Suspended };
        let lost = |site: usize, number: u32| {
            let mut truth = Truth::default();
            for n in 1..=3 {
                truth.made(0, &round(n), vec![1]);
                truth.made(1, &round(n), vec![1]);
            }
            truth.opened.insert(round(1));
            let outcome = RoundOutcome::Abandoned("over".into());
            truth.told(&ToSite::RoundClosed { round: round(1), outcome });
            truth.opened.insert(round(2));
            truth.said(0, &suspended);
            truth.opened.insert(round(3));
            truth.acknowledged(site, &round(number), Digest::of(&[1]));
            truth.check_included(&round(number), &[], &[site]);
            truth.violations
        };
        assert!(lost(0, 2).is_empty(), "the round that was open");
        assert!(lost(0, 1)[0].contains("is lost"), "a round that was over");
        assert!(lost(0, 3)[0].contains("is lost"), "a round that was opened later");
        assert!(lost(1, 2)[0].contains("is lost"), "of another site");
    }
}
