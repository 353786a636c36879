//! What a curious coordinator could find out about single patients from what this site would send, tried by the site on
//! its own rows before anybody signs.
//!
//! Two attacks, without and with the protections that the plan has. `membership`: whether a patient was trained on, told by
//! the loss of a model (Yeom, Giacomelli, Fredrikson, Jha 2018), and by how likely that loss is beside those of models of the
//! same work that had the patient and that had not (Carlini, Chien, Nasr, Song, Terzis, Tramèr 2022). `inversion`: what rows
//! hold, from the update of a first layer (Phong, Aono, Hayashi, Wang, Moriai 2018). Both are given more than most
//! coordinators have: the row of each candidate, and rows of many patients who are like them.
//!
//! It is an aid and no proof: others attack better, and that an attack finds nothing bounds nothing. Such a bound is what
//! differential privacy gives.

mod inversion;
mod membership;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hospes_privacy::dp::{DiscreteGaussian, Source};
use hospes_protocol::canon;
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::model::parameters;
use hospes_protocol::plan::{self, Loss, NnTrain, Schedule, Strategy};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::membership::{Losses, judge};
use crate::component::Matrix;
use crate::device::Compute;
use crate::error::CohortError;
use crate::evaluate::Interval;
use crate::opt_out::SubjectHash;
use crate::train::{self, Correction, Course, Draws, Goal, Network, Progress, Pulse, Step, Work, dp, stream};

/// Fewer subjects tell nothing: a model has half of them, and a threshold is judged on half of them.
const FEWEST_SUBJECTS: usize = 60;
/// Subjects whose membership is asked for, at most.
const MOST_SCORED: usize = 1_000;
/// Halves that models are trained on, each with the other half.
const REPEATS: usize = 8;
/// The same for models that stand in for the other sites of a sum.
const STAND_INS: usize = 4;
/// Sites of a sum, at most: a sum over more hides more.
const MOST_SITES: u32 = 4;
/// Parameters of a model, at most: the eight that stand in for other sites are held at once.
const MOST_PARAMETERS: u64 = 8 << 20;
/// Time that all attacks on one task may take.
const ATTACK_MS: i64 = 60_000;
/// Part of it that training is planned for.
const TRAINING_MS: i64 = 40_000;

/// What attacks on a task's update found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Attack {
    /// They were tried.
    Found(AttackScores),
    /// There are too few patients to say anything.
    TooFew {
        /// Those that are trained on.
        subjects: u64,
        /// Fewest with which it is tried.
        least: u64,
    },
    /// It took too long.
    TooSlow {
        /// The time that it may take.
        seconds: u32,
    },
    /// Nothing is tried on this training.
    Untried(Untried),
    /// It failed, in words that hold nothing of rows.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Why attacks are not tried on some training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum Untried {
    /// The loss is one of all patients together, so that none has its own.
    Loss,
    /// Layers stay at the site, without which whoever has the others computes nothing.
    KeptLayers,
    /// The model is too large.
    TooLarge,
}

/// Scores of attacks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct AttackScores {
    /// Patients whose membership was asked for.
    pub subjects: u64,
    /// Pairs of models, each of which was trained on a random half of the patients.
    pub repeats: u32,
    /// Rounds of local work by this site alone that each stands for.
    pub rounds: u32,
    /// Rounds that the plan has; fewer were taken where time was short.
    pub planned: u32,
    /// Whether a patient was trained on: without protection first.
    pub membership: Vec<Membership>,
    /// What rows hold, where the first layer of the model gives it away; else empty.
    pub inversion: Vec<Inversion>,
}

/// What stands between the update and whoever attacks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Guard {
    /// Nothing: it is read as it is.
    None,
    /// Only a sum is read.
    Masked {
        /// Sites in it.
        sites: u32,
    },
    /// Each patient's part is clipped, and noise is added.
    Noise,
}

/// How well membership was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Under what.
    pub guard: Guard,
    /// By the loss alone.
    pub by_loss: Told,
    /// By comparing it with the losses of other models.
    pub compared: Told,
}

/// How well members were told from others by one score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Area under the ROC curve: 0.5 is guessing, 1 is certain.
    pub auc: f64,
    /// Its interval, over resamples of the patients.
    pub auc_interval: Interval,
    /// Share of members that are found less that of others that are taken for some, at a threshold that was chosen on one
    /// half of the patients, on the other half: 0 is guessing, 1 is certain.
    pub advantage: f64,
    /// Its interval, over resamples of the patients of that other half.
    pub advantage_interval: Interval,
}

/// What was found of rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct Inversion {
    /// Under what.
    pub guard: Guard,
    /// Columns that differ from row to row.
    pub columns: u64,
    /// Share of them that was found of the row that is found best, to a tenth of a standard deviation.
    pub recovered: f64,
    /// The same for as many guesses by somebody who knows each column's values by themselves.
    pub guessed: f64,
}

/// The training that is attacked.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) params: &'a NnTrain,
    /// Seed, site and task. What is drawn for an attack follows from them, so that it can be repeated.
    pub(crate) draws: Draws<'a>,
    /// The model from which it starts.
    pub(crate) start: &'a [f32],
    pub(crate) data: &'a Matrix,
    /// Whose each row is.
    pub(crate) subjects: &'a [SubjectHash],
    pub(crate) compute: &'a Compute,
    /// Of all that the permit is for.
    pub(crate) deadline: Timestamp,
}

/// Clip and noise of training with differential privacy.
#[derive(Clone, Copy)]
pub(crate) struct Noise {
    pub(crate) rules: dp::Rules,
    /// Standard deviation over the clip.
    pub(crate) noise_multiplier: f64,
}

/// Tries all attacks: on the plain update, on a sum over `sites` of them, and on one with noise.
///
/// The answer follows from rows, plan and site alone, but for `rounds`, of which there are fewer where a round takes long.
///
/// # Errors
/// [`CohortError`] where training itself fails, and [`CohortError::Cancelled`].
pub(crate) fn attack(
    target: &Target<'_>,
    sites: Option<u32>,
    noise: Option<Noise>,
    pulse: &mut Pulse<'_>,
) -> Result<Attack, CohortError> {
    let Target { params, data, .. } = *target;
    if params.loss == Loss::Cox {
        return Ok(Attack::Untried(Untried::Loss));
    }
    if !plan::kept(params, data.inputs()).is_empty() {
        return Ok(Attack::Untried(Untried::KeptLayers));
    }
    if parameters(&params.model, data.inputs()) > MOST_PARAMETERS {
        return Ok(Attack::Untried(Untried::TooLarge));
    }
    let (people, of_row) = people(target.subjects);
    if people.len() < FEWEST_SUBJECTS {
        let least = FEWEST_SUBJECTS as u64;
        return Ok(Attack::TooFew { subjects: people.len() as u64, least });
    }
    let sites = sites.map(|sites| sites.clamp(2, MOST_SITES));
    let pairs = REPEATS + sites.map_or(0, |_| STAND_INS) + noise.map_or(0, |_| REPEATS * NOISY as usize);
    let ends = (pulse.now)().plus_millis(ATTACK_MS).min(target.deadline);
    let goal = Goal::new(params.loss, &params.class_weights);
    let models = u32::try_from(2 * pairs).unwrap_or(u32::MAX);
    let target = *target;
    let mut run = Run { target, goal, people, of_row, ends, models, trained: 0, rounds: None, told: 0, pulse };
    match run.all(sites, noise) {
        Ok(scores) => Ok(Attack::Found(scores)),
        Err(CohortError::TooLate) => {
            Ok(Attack::TooSlow { seconds: u32::try_from(ATTACK_MS / 1_000).unwrap_or(u32::MAX) })
        }
        Err(error) => Err(error),
    }
}

/// The subjects, and which of them each row is of.
fn people(subjects: &[SubjectHash]) -> (Vec<SubjectHash>, Vec<usize>) {
    let mut numbers: BTreeMap<SubjectHash, usize> = subjects.iter().map(|subject| (*subject, 0)).collect();
    numbers.values_mut().enumerate().for_each(|(number, of)| *of = number);
    let of_row = subjects.iter().map(|subject| numbers[subject]).collect();
    (numbers.into_keys().collect(), of_row)
}

/// Plain models that take as long as one with noise, whose gradients are clipped patient by patient (ADR 0040).
const NOISY: u32 = 3;

/// The attacks on one task, under way.
struct Run<'t, 'r, 'p> {
    target: Target<'t>,
    goal: Goal,
    people: Vec<SubjectHash>,
    /// Whose each row is, by the place in `people`.
    of_row: Vec<usize>,
    ends: Timestamp,
    /// Models to train.
    models: u32,
    trained: u32,
    /// Rounds for each; found out with the first model.
    rounds: Option<u32>,
    /// Hundredths that were told of.
    told: u32,
    pulse: &'r mut Pulse<'p>,
}

/// Subjects whose membership is asked for, with their rows.
struct Scored {
    /// By their places among all.
    people: Vec<usize>,
    data: Matrix,
    /// Whose each row is, by the place in `people`.
    of_row: Vec<usize>,
}

/// Two models of one pair: of the subjects on this side, and of those on the other.
struct Pair {
    /// The side of each subject.
    sides: Vec<bool>,
    /// Parameters of the models of the sides `false` and `true`.
    models: [Vec<f32>; 2],
}

impl Run<'_, '_, '_> {
    fn all(&mut self, sites: Option<u32>, noise: Option<Noise>) -> Result<AttackScores, CohortError> {
        let scored = self.scored();
        let (plain, masked) = self.losses_of_pairs(&scored, sites, None)?;
        let hashes: Vec<SubjectHash> = scored.people.iter().map(|number| self.people[*number]).collect();
        let Draws { seed, site, task, .. } = self.target.draws;
        let key = canon::digest("attack-resamples", 1, &[&seed.to_le_bytes()[..], site, task.as_bytes()].concat());
        let judged = |guard, losses: &Losses| judge(guard, losses, &hashes, key);
        let mut membership = vec![judged(Guard::None, &plain)];
        if let (Some(losses), Some(sites)) = (&masked, sites) {
            membership.push(judged(Guard::Masked { sites }, losses));
        }
        if noise.is_some() {
            match self.losses_of_pairs(&scored, None, noise) {
                Ok((losses, _)) => membership.push(judged(Guard::Noise, &losses)),
                // What is finished is told.
                Err(CohortError::TooLate) => {}
                Err(error) => return Err(error),
            }
        }
        let inversion = match self.inversion(sites, noise) {
            Err(CohortError::TooLate) => Vec::new(),
            tried => tried?,
        };
        Ok(AttackScores {
            subjects: scored.people.len() as u64,
            repeats: u32::try_from(REPEATS).unwrap_or(u32::MAX),
            rounds: self.rounds(),
            planned: self.target.params.rounds,
            membership,
            inversion,
        })
    }

    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(self.target.params.rounds).max(1)
    }

    fn stream(&self, purpose: &str, number: usize) -> ChaCha20Rng {
        let Draws { seed, site, task, .. } = self.target.draws;
        stream(purpose, seed, site, task, u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn scored(&self) -> Scored {
        let mut people = shuffled(self.people.len(), &mut self.stream("attack-candidates", 0));
        people.truncate(MOST_SCORED);
        let mut place = vec![None; self.people.len()];
        people.iter().enumerate().for_each(|(at, number)| place[*number] = Some(at));
        let rows: Vec<usize> = (0..self.of_row.len()).filter(|row| place[self.of_row[*row]].is_some()).collect();
        let of_row = rows.iter().filter_map(|row| place[self.of_row[*row]]).collect();
        Scored { people, data: self.target.data.of_rows(&rows), of_row }
    }

    /// A random half of the subjects and the other, and a model of each. The same number gives the same halves.
    fn pair(&mut self, number: usize, noise: Option<Noise>) -> Result<Pair, CohortError> {
        let order = shuffled(self.people.len(), &mut self.stream("attack-halves", number));
        let mut sides = vec![false; order.len()];
        order.iter().take(order.len() / 2).for_each(|subject| sides[*subject] = true);
        let mut models = [Vec::new(), Vec::new()];
        for (side, model) in [false, true].into_iter().zip(&mut models) {
            let rows: Vec<usize> = (0..self.of_row.len()).filter(|row| sides[self.of_row[*row]] == side).collect();
            *model = self.model_of(&rows, noise, 2 * number + usize::from(side))?;
            self.trained += noise.map_or(1, |_| NOISY);
        }
        Ok(Pair { sides, models })
    }

    /// The model after all rounds of the site's local work on these rows.
    fn model_of(&mut self, rows: &[usize], noise: Option<Noise>, number: usize) -> Result<Vec<f32>, CohortError> {
        let data = self.target.data.of_rows(rows);
        let keys: Vec<usize> = rows.iter().map(|row| self.of_row[*row]).collect();
        let mut network = self.network(&data, self.target.start)?;
        let mut round = 1;
        while round <= self.rounds() {
            let began = (self.pulse.now)();
            self.round(&mut network, &data, &keys, noise, (number, round))?;
            if self.rounds.is_none() {
                let took = (self.pulse.now)().since(began).max(1);
                let fit = TRAINING_MS / took.saturating_mul(i64::from(self.models.max(1)));
                let fit = u32::try_from(fit).unwrap_or(u32::MAX).max(1);
                self.rounds = Some(self.target.params.rounds.max(1).min(fit));
            }
            round += 1;
        }
        finite(network.parameters(), self.target.draws.task)
    }

    fn network(&self, data: &Matrix, parameters: &[f32]) -> Result<Network, CohortError> {
        Network::new(&self.target.params.model, data, parameters, self.target.compute)
    }

    /// The local work of one round. `keys`: whose each row is.
    fn round(
        &mut self,
        network: &mut Network,
        data: &Matrix,
        keys: &[usize],
        noise: Option<Noise>,
        (number, round): (usize, u32),
    ) -> Result<(), CohortError> {
        let Target { params, draws, .. } = self.target;
        let (models, trained, rounds) = (self.models.max(1), self.trained, self.rounds());
        let ends = self.ends;
        let now = self.pulse.now;
        let (progress, told) = (&mut *self.pulse.progress, &mut self.told);
        let mut tell = |within: Progress| {
            let of_model = (u64::from(round - 1) * 100 + u64::from(within.done)) / u64::from(rounds);
            let done = (u64::from(trained) * 100 + of_model.min(100)) / u64::from(models);
            let done = u32::try_from(done).unwrap_or(100).min(100);
            // A word for each hundredth of all, not of each model's round.
            if done <= *told {
                return true;
            }
            *told = done;
            progress(Progress { done, total: 100 })
        };
        let mut pulse = Pulse { now, progress: &mut tell };
        let goal = &self.goal;
        let (augment, work) = (params.augment.as_ref(), Work { units: params.local.updates, steps: 1 });
        let schedule = &Schedule::Constant;
        let mut step = Step::new(&params.optimizer, params.schedule.factor(round, params.rounds));
        let Some(Noise { rules, noise_multiplier }) = noise else {
            let correction = match params.strategy {
                Strategy::FedProx { mu } => Correction::Proximal { mu },
                _ => Correction::None,
            };
            let (batch, draws) = (params.local.batch, Draws { round, ..draws });
            let course = Course { goal, augment, batch, work, schedule, draws, correction };
            return train::train(network, &mut step, data, course, ends, &mut pulse);
        };
        // Of nothing that leaves: it is fixed, so that an answer can be repeated.
        let material = [&draws.seed.to_le_bytes()[..], &(number as u64).to_le_bytes(), &round.to_le_bytes()].concat();
        let key = canon::digest("attack-noise", 1, &material);
        let (subjects, secret) = (dp::Subjects::of(keys), dp::Secret::from_bytes(*key.as_bytes()));
        let task = draws.task;
        let course = dp::Course { goal, augment, work, schedule, task, rules, subjects: &subjects, secret: &secret };
        let mut source = Source::new(&Zeroizing::new(*key.as_bytes()), &canon::digest("attack-draws", 1, &material));
        let mut failed = None;
        let mut add = |sum: &mut [i64], sensitivity: f64| match DiscreteGaussian::new(noise_multiplier * sensitivity) {
            Ok(gaussian) => {
                sum.iter_mut().for_each(|value| *value = value.saturating_add(gaussian.draw(&mut source)));
            }
            Err(error) => failed = Some(error.to_string()),
        };
        dp::train(network, &mut step, data, &course, &mut add, ends, &mut pulse)?;
        match failed {
            Some(reason) => Err(CohortError::Plan { place: format!("tasks.{task}.params"), reason }),
            None => Ok(()),
        }
    }

    /// Losses of the candidates by models that had them and that had not: of one site's models, and of means of those of so
    /// many sites, of which one had them or not and the others had not.
    fn losses_of_pairs(
        &mut self,
        scored: &Scored,
        sites: Option<u32>,
        noise: Option<Noise>,
    ) -> Result<(Losses, Option<Losses>), CohortError> {
        let mut others = Vec::new();
        if sites.is_some() {
            for number in REPEATS..REPEATS + STAND_INS {
                others.push(self.pair(number, noise)?);
            }
        }
        let (mut plain, mut masked) = (Losses::default(), Losses::default());
        for number in 0..REPEATS {
            let pair = self.pair(number, noise)?;
            plain.push(&pair.sides, &scored.people, &self.both(&pair.models, scored)?);
            if let Some(sites) = sites {
                let found = self.masked(&pair, &others, number, sites, scored)?;
                masked.push(&pair.sides, &scored.people, &found);
            }
        }
        Ok((plain, sites.map(|_| masked)))
    }

    /// The losses of the candidates by each of two models.
    fn both(&self, models: &[Vec<f32>; 2], scored: &Scored) -> Result<[Vec<f64>; 2], CohortError> {
        let losses = |model: &[f32]| self.losses(model, &scored.data, &scored.of_row, scored.people.len());
        Ok([losses(&models[0])?, losses(&models[1])?])
    }

    /// The same by the means of each model and those that stand in for other sites: for each candidate, those that were
    /// trained without it.
    fn masked(
        &self,
        pair: &Pair,
        others: &[Pair],
        number: usize,
        sites: u32,
        scored: &Scored,
    ) -> Result<[Vec<f64>; 2], CohortError> {
        let mut found = [vec![0.0; scored.people.len()], vec![0.0; scored.people.len()]];
        // Others for each pair, so that what stands for them is not known from one pair to the next.
        let others: Vec<&Pair> = others.iter().cycle().skip(number).take(sites as usize - 1).collect();
        for combination in 0..1usize << others.len() {
            let side = |at: usize| (combination >> at) & 1 == 1;
            let lacks = |person: usize| others.iter().enumerate().all(|(at, other)| other.sides[person] != side(at));
            let rows: Vec<usize> =
                (0..scored.of_row.len()).filter(|row| lacks(scored.people[scored.of_row[*row]])).collect();
            if rows.is_empty() {
                continue;
            }
            let data = scored.data.of_rows(&rows);
            let of_row: Vec<usize> = rows.iter().map(|row| scored.of_row[*row]).collect();
            for (model, losses) in pair.models.iter().zip(&mut found) {
                let mut parts = vec![model.as_slice()];
                parts.extend(others.iter().enumerate().map(|(at, other)| &*other.models[usize::from(side(at))]));
                let here = self.losses(&mean(&parts), &data, &of_row, losses.len())?;
                of_row.iter().for_each(|at| losses[*at] = here[*at]);
            }
        }
        Ok(found)
    }

    /// The mean loss of each of so many candidates over its rows; 0 for one that has none among these.
    fn losses(&self, model: &[f32], data: &Matrix, of_row: &[usize], people: usize) -> Result<Vec<f64>, CohortError> {
        if (self.pulse.now)() >= self.ends {
            return Err(CohortError::TooLate);
        }
        let outputs = self.network(data, model)?.logits(data);
        let mut sums = vec![(0.0f64, 0u32); people];
        for (at, term) in of_row.iter().zip(self.goal.terms(&outputs, data)) {
            sums[*at].0 += membership::bounded(term);
            sums[*at].1 += 1;
        }
        Ok(sums.into_iter().map(|(sum, rows)| sum / f64::from(rows.max(1))).collect())
    }
}

/// The numbers below `count` in a random order (Durstenfeld 1964).
fn shuffled(count: usize, stream: &mut ChaCha20Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(last + 1, stream));
    }
    order
}

/// A number below another; its bias is below 2⁻⁴⁰ for as many rows as there can be.
fn below(bound: usize, stream: &mut ChaCha20Rng) -> usize {
    let product = u128::from(stream.next_u64()) * bound as u128;
    usize::try_from(product >> 64).unwrap_or_default()
}

/// The mean of some models.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn mean(models: &[&[f32]]) -> Vec<f32> {
    let length = models.first().map_or(0, |model| model.len());
    let sum = |at: usize| models.iter().map(|model| f64::from(model[at])).sum::<f64>();
    (0..length).map(|at| (sum(at) / models.len() as f64) as f32).collect()
}

fn finite(parameters: Vec<f32>, task: &str) -> Result<Vec<f32>, CohortError> {
    match parameters.iter().all(|parameter| parameter.is_finite()) {
        true => Ok(parameters),
        false => Err(CohortError::Diverged { task: task.to_owned() }),
    }
}
