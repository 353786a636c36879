//! A strategy's part at the site: which model a round starts from, what is added to gradients, what is sent, and what
//! stays here for the next round.

use std::collections::HashMap;

use hospes_protocol::plan::model::{Inputs, TensorShape};
use hospes_protocol::plan::{self, NnTrain, Strategy};

use super::state::SiteState;
use super::{Correction, payload};
use crate::cohort::Round;
use crate::error::CohortError;

/// A training task with what a row gives its model.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) params: &'a NnTrain,
    pub(crate) inputs: Inputs,
    /// The plan's seed, from which tensors begin that were never trained here.
    pub(crate) seed: u64,
    /// What the site kept from the round before, if there was one.
    pub(crate) state: Option<&'a SiteState>,
}

/// What a site starts a round from.
pub(crate) struct Local<'a> {
    source: Source<'a>,
    /// Values of the round's tensors as they came.
    came: Vec<f32>,
    /// The whole model.
    model: Vec<f32>,
    /// The site's control variate, of `scaffold`.
    control: Option<Vec<f32>>,
}

/// What a round ends with.
pub(crate) struct Ended {
    /// Values of the model's tensors on their way out: differences to what came.
    pub(crate) delta: Vec<f32>,
    /// What stays.
    pub(crate) state: Option<SiteState>,
}

impl<'a> Local<'a> {
    /// Reads the round's model file and completes it with what stayed at the site.
    ///
    /// # Errors
    /// [`CohortError::Model`] if the file is not the one that the round names or does not fit the plan;
    /// [`CohortError::Format`] if what stayed does not fit it.
    pub(crate) fn begin(round: &Round<'_>, source: Source<'a>) -> Result<Self, CohortError> {
        let Source { params, inputs, .. } = source;
        let tensors = plan::tensors(params, inputs);
        if round.header.tensors != plan::update_tensors(params, inputs) {
            return Err(CohortError::Model { reason: "the round's tensors are not those of the plan's model".into() });
        }
        let came = payload::read_model(round, &tensors)?;
        let model = source.whole(&tensors, &came)?;
        let control = match params.strategy {
            Strategy::Scaffold { .. } => {
                let controls = controls(&tensors);
                let length = controls.iter().map(|t| t.len()).sum::<u64>();
                Some(match source.state {
                    Some(state) => state.values(&controls)?,
                    None => vec![0.0; usize::try_from(length).unwrap_or(usize::MAX)],
                })
            }
            _ => None,
        };
        Ok(Self { source, came, model, control })
    }

    /// Parameters of the whole model.
    pub(crate) fn model(&self) -> &[f32] {
        &self.model
    }

    /// What is added to each gradient.
    pub(crate) fn correction(&self) -> Correction {
        match (&self.source.params.strategy, &self.control) {
            (Strategy::FedProx { mu }, _) => Correction::Proximal { mu: *mu },
            (Strategy::Scaffold { .. }, Some(mine)) => {
                Correction::Control(self.common().iter().zip(mine).map(|(c, mine)| c - mine).collect())
            }
            _ => Correction::None,
        }
    }

    /// The control variate of all sites: the last of the tensors that came.
    fn common(&self) -> &[f32] {
        let length = self.control.as_ref().map_or(0, Vec::len);
        &self.came[self.came.len().saturating_sub(length)..]
    }

    /// What is sent and what stays after so many steps of this learning rate.
    ///
    /// # Errors
    /// [`CohortError::Format`] if what stays cannot be written.
    pub(crate) fn end(self, trained: &[f32], updates: u32, lr: f64) -> Result<Ended, CohortError> {
        let Source { params, inputs, .. } = self.source;
        let (all, tensors) = (plan::model::tensors(&params.model, inputs), plan::tensors(params, inputs));
        let after = Parts::of(&all, trained);
        // PRIVACY: only the tensors of the round leave; those that the strategy keeps are not among them.
        let travels = after.take(&plan::model_tensors(params, inputs));
        let mut delta: Vec<f32> = travels.iter().zip(&self.came).map(|(after, before)| after - before).collect();
        let kept = plan::kept(params, inputs);
        if !kept.is_empty() {
            return Ok(Ended { delta, state: Some(SiteState::of(&kept, &after.take(&kept))?) });
        }
        if let Some(part) = params.top_k {
            if let Some(state) = self.source.state {
                let owed = state.values(&tensors)?;
                delta.iter_mut().zip(owed).for_each(|(entry, owed)| *entry += owed);
            }
            // Less what will have been sent of it: see `keep_as_sent`.
            let state = SiteState::of(&tensors, &delta)?;
            keep_largest(&mut delta, part);
            return Ok(Ended { delta, state: Some(state) });
        }
        let Some(mine) = &self.control else { return Ok(Ended { delta, state: None }) };
        // Karimireddy et al. 2020, Algorithm 1, option II: cᵢ⁺ = cᵢ − c + (x − yᵢ) / (K·η).
        let controls = controls(&tensors);
        let names: Vec<TensorShape> = controls.iter().map(trained_name).collect();
        let (x, y) = (Parts::of(&all, &self.model).take(&names), after.take(&names));
        let steps = f64::from(updates.max(1)) * lr;
        #[allow(clippy::cast_possible_truncation)]
        let clip = params.quantise.clip as f32;
        // What is kept is what is sent, so it is clipped as that will be: c stays the mean of all cᵢ, but for a site whose
        // cᵢ was erased because somebody opted out: what it had sent of it stays in c.
        #[allow(clippy::cast_possible_truncation)]
        let change = x.iter().zip(&y).zip(self.common()).map(|((x, y), c)| {
            let mean_gradient = (f64::from(*x) - f64::from(*y)) / steps;
            ((mean_gradient - f64::from(*c)) as f32).clamp(-clip, clip)
        });
        let change: Vec<f32> = change.collect();
        let next: Vec<f32> = mine.iter().zip(&change).map(|(mine, change)| mine + change).collect();
        delta.extend(change);
        Ok(Ended { delta, state: Some(SiteState::of(&controls, &next)?) })
    }
}

impl Ended {
    /// Brings what stays up to date with what was sent, which is not all that was meant.
    ///
    /// Of `scaffold`, the control variate moves by what was sent: rounded to few bits the two differ, and c would drift away
    /// from the mean of all cᵢ. With `top_k`, what was not sent stays owed, be it for its size, its rounding or the clip.
    ///
    /// # Errors
    /// [`CohortError::Format`] if what stays cannot be read or written.
    pub(crate) fn keep_as_sent(
        &mut self,
        source: Source<'_>,
        rows: u64,
        encoded: &payload::Encoded,
    ) -> Result<(), CohortError> {
        let Source { params, inputs, .. } = source;
        let Some(state) = &self.state else { return Ok(()) };
        let (tensors, rules) = (plan::tensors(params, inputs), &params.quantise);
        if params.top_k.is_some() {
            let sent = encoded.sent(rows, rules, 0, entries(&tensors))?;
            let meant = state.values(&tensors)?;
            let owed: Vec<f32> = meant.iter().zip(&sent).map(|(meant, sent)| meant - sent).collect();
            self.state = Some(SiteState::of(&tensors, &owed)?);
            return Ok(());
        }
        // Of 32 bits, nothing is lost but what a clip or a double would lose as well.
        if rules.bits == 32 || !matches!(params.strategy, Strategy::Scaffold { .. }) {
            return Ok(());
        }
        let controls = controls(&tensors);
        // They are the last of the round's tensors.
        let (all, kept) = (entries(&tensors), entries(&controls));
        let first = all.saturating_sub(kept);
        let meant = self.delta.get(first..all).unwrap_or_default();
        let sent = encoded.sent(rows, rules, first, kept)?;
        let next = state.values(&controls)?;
        let next = next.iter().zip(meant).zip(&sent).map(|((next, meant), sent)| next - meant + sent);
        self.state = Some(SiteState::of(&controls, &next.collect::<Vec<f32>>())?);
        Ok(())
    }
}

/// Entries of all tensors.
fn entries(tensors: &[TensorShape]) -> usize {
    usize::try_from(tensors.iter().map(TensorShape::len).sum::<u64>()).unwrap_or(usize::MAX)
}

/// Sets all entries to 0 but the largest: this part of them, rounded up. Of equals the first ones are kept.
fn keep_largest(entries: &mut [f32], part: f64) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = ((entries.len() as f64 * part).ceil() as usize).max(1);
    if count >= entries.len() {
        return;
    }
    let mut sizes: Vec<f32> = entries.iter().map(|entry| entry.abs()).collect();
    let least = *sizes.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1;
    let mut equals = count - entries.iter().filter(|entry| entry.abs() > least).count();
    for entry in entries {
        if entry.abs() > least {
            continue;
        }
        if entry.abs() == least && equals > 0 {
            equals -= 1;
        } else {
            *entry = 0.0;
        }
    }
}

impl Source<'_> {
    /// The whole model of values that travel and of those that stay.
    fn whole(&self, tensors: &[TensorShape], came: &[f32]) -> Result<Vec<f32>, CohortError> {
        let kept = plan::kept(self.params, self.inputs);
        let mine = match self.state {
            _ if kept.is_empty() => Vec::new(),
            Some(state) => state.values(&kept)?,
            None => plan::initial_kept(self.params, self.inputs, self.seed),
        };
        let mut parts = Parts::of(tensors, came);
        parts.add(&kept, &mine);
        Ok(parts.take(&plan::model::tensors(&self.params.model, self.inputs)))
    }

    /// The model that a task ended with, completed with what stayed at the site, for judging it here.
    ///
    /// # Errors
    /// As [`Local::begin`], and [`CohortError::Model`] if nothing is left of what stayed here: initial values in its place
    /// would be judged as if they had been trained.
    pub(crate) fn finished(&self, round: &Round<'_>) -> Result<Vec<f32>, CohortError> {
        if self.state.is_none() && !plan::kept(self.params, self.inputs).is_empty() {
            let reason =
                "the layers that stayed at this site are not here any more, so the model cannot be judged here";
            return Err(CohortError::Model { reason: reason.into() });
        }
        let tensors = plan::model_tensors(self.params, self.inputs);
        self.whole(&tensors, &payload::read_model(round, &tensors)?)
    }
}

fn controls(tensors: &[TensorShape]) -> Vec<TensorShape> {
    tensors.iter().filter(|t| t.name.starts_with(plan::CONTROL)).cloned().collect()
}

/// The tensor that a control variate belongs to.
fn trained_name(control: &TensorShape) -> TensorShape {
    let name = control.name.strip_prefix(plan::CONTROL).unwrap_or(&control.name).to_owned();
    TensorShape { name, shape: control.shape.clone() }
}

/// Values by the names of their tensors.
struct Parts<'a>(HashMap<String, &'a [f32]>);

impl<'a> Parts<'a> {
    fn of(tensors: &[TensorShape], values: &'a [f32]) -> Self {
        let mut parts = Self(HashMap::new());
        parts.add(tensors, values);
        parts
    }

    fn add(&mut self, tensors: &[TensorShape], values: &'a [f32]) {
        let mut rest = values;
        for tensor in tensors {
            let length = usize::try_from(tensor.len()).unwrap_or(usize::MAX).min(rest.len());
            let (mine, others) = rest.split_at(length);
            self.0.insert(tensor.name.clone(), mine);
            rest = others;
        }
    }

    /// The values of these tensors one after the other.
    fn take(&self, tensors: &[TensorShape]) -> Vec<f32> {
        tensors.iter().filter_map(|t| self.0.get(&t.name)).flat_map(|values| values.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use hospes_protocol::plan::{Component, Plan};

    use super::*;
    use crate::train::Draws;

    const PLAN: &str = r#"
schema: hospes/plan/v1
name: small
seed: 7
data:
  subject: subject_id
  label: { column: outcome, positive: "> 0" }
  columns: [x, y, z]
tasks:
  read: { component: reader }
  full: { component: imputation, inputs: { data: read }, params: { method: drop_rows } }
  train:
    component: nn_train
    inputs: { train: full.data }
    params:
      model: [{ linear: { out: 1 } }]
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      rounds: 2
      local: { updates: 10, batch: 4 }
      strategy: { scaffold: {} }
      privacy: { plain: {} }
      quantise: { clip: 1.0, bits: 8, n_max: 100 }
"#;

    #[test]
    fn the_largest_entries_are_kept_and_of_equals_the_first() {
        let kept = |part| {
            let mut entries = [0.5f32, -2.0, 0.0, 2.0, -0.5, 1.0];
            keep_largest(&mut entries, part);
            entries
        };
        assert_eq!(kept(0.01), [0.0, -2.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(kept(0.5), [0.0, -2.0, 0.0, 2.0, 0.0, 1.0]);
        assert_eq!(kept(0.6), [0.5, -2.0, 0.0, 2.0, 0.0, 1.0]);
        assert_eq!(kept(0.99), [0.5, -2.0, 0.0, 2.0, -0.5, 1.0]);
        keep_largest(&mut [], 0.5);
    }

    #[test]
    fn with_top_k_all_that_was_not_sent_stays_owed() {
        let text =
            PLAN.replace("scaffold: {}", "fed_avg: {}").replace("      quantise", "      top_k: 0.25\n      quantise");
        let plan: Plan = plan::read(&text).unwrap_or_else(|e| panic!("{e}"));
        let Component::NnTrain(params) = &plan.tasks["train"].component else { panic!("no training") };
        let inputs = plan::inputs(&plan, "train");
        let tensors = plan::tensors(params, inputs);
        let owed = SiteState::of(&tensors, &[0.25, 0.0, 0.0, 0.0]).unwrap();
        let source = Source { params, inputs, seed: plan.seed, state: Some(&owed) };
        let came = vec![0.0f32; 4];
        let local = Local { source, model: came.clone(), came, control: None };
        let mut ended = local.end(&[0.25, 0.3, -0.2, 0.004], 10, 0.1).unwrap();
        assert_eq!(ended.delta, [0.5, 0.0, 0.0, 0.0], "with what was owed, the first is the largest");
        let draws = Draws { seed: plan.seed, site: b"site", task: "train", round: 2 };
        let encoded = payload::encode(&ended.delta, 50, &tensors, &params.quantise, draws).unwrap();
        ended.keep_as_sent(source, 50, &encoded).unwrap();
        let sent = encoded.sent(50, &params.quantise, 0, 4).unwrap();
        assert!((sent[0] - 0.5).abs() < 0.02 && sent[1..].iter().all(|sent| sent.abs() < 0.01), "{sent:?}");
        let kept = ended.state.unwrap().values(&tensors).unwrap();
        for ((kept, sent), meant) in kept.iter().zip(&sent).zip([0.5, 0.3, -0.2, 0.004]) {
            assert!((kept + sent - meant).abs() < 1e-6, "{kept} {sent} {meant}");
        }
    }

    #[test]
    fn of_few_bits_scaffold_keeps_what_it_sent() {
        let plan: Plan = plan::read(PLAN).unwrap_or_else(|e| panic!("{e}"));
        let Component::NnTrain(params) = &plan.tasks["train"].component else { panic!("no training") };
        let inputs = plan::inputs(&plan, "train");
        let source = Source { params, inputs, seed: plan.seed, state: None };
        let tensors = plan::tensors(params, inputs);
        let controls = controls(&tensors);
        // Three weights and a bias, and the control variate of each.
        let delta = vec![0.1f32, -0.2, 0.3, 0.05, 0.011, -0.013, 0.5, 0.0007];
        let before = [1.0f32, -2.0, 3.0, 0.0];
        let meant: Vec<f32> = before.iter().zip(&delta[4..]).map(|(before, change)| before + change).collect();
        let mut ended = Ended { delta, state: Some(SiteState::of(&controls, &meant).unwrap()) };
        let draws = Draws { seed: plan.seed, site: b"site", task: "train", round: 1 };
        let encoded = payload::encode(&ended.delta, 50, &tensors, &params.quantise, draws).unwrap();
        ended.keep_as_sent(source, 50, &encoded).unwrap();
        let sent = encoded.sent(50, &params.quantise, 4, 4).unwrap();
        let kept = ended.state.unwrap().values(&controls).unwrap();
        for ((kept, before), sent) in kept.iter().zip(before).zip(&sent) {
            assert!((kept - before - sent).abs() < 1e-6, "{kept} {before} {sent}");
        }
        assert!(kept.iter().zip(&meant).any(|(kept, meant)| (kept - meant).abs() > 1e-4), "{kept:?}");
    }
}
