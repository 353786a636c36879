//! What a model card says about differential privacy.

use hospes_privacy::dp::{Curve, Training};
use hospes_protocol::plan::{self, Component, DpMode, Plan};

const NONE: &str = "No differential privacy was used.";
const UNKNOWN: &str = "The differential privacy that the plan asks for cannot be accounted for; no bound is known.";

const RUN_ALONE: &str =
    " That is of this run alone: what other runs of the study released about the same patients adds to it.";

/// What noise the updates of a task carried, and what bound follows from it.
pub(crate) fn words(plan: &Plan, task: &str) -> String {
    let Some(Component::NnTrain(train)) = plan.tasks.get(task).map(|task| &task.component) else {
        return NONE.to_owned();
    };
    let Some(dp) = train.dp else { return NONE.to_owned() };
    // No site trains without an account of it.
    let Ok(Some(training)) = Training::of(train, plan::inputs(plan, task)) else { return UNKNOWN.to_owned() };
    let (release, delta) = (training.release(), training.delta());
    // Upwards, so that what is said holds.
    let up = |epsilon: f64| (epsilon * 1e4).ceil() / 1e4;
    let (reported, check) = (up(training.epsilons().worst()), up(Curve::of(&[release]).epsilon(delta).epsilon));
    let who = match dp.mode {
        DpMode::Local => "Each site added noise to its own updates (differential privacy for patients, local noise)",
        DpMode::Distributed => {
            "Each site added a part of the noise of the sums (differential privacy for patients, distributed noise, as long as \
             no more sites were missing or colluded than a round counted on)"
        }
    };
    let mut words = format!(
        "{who}: epsilon {reported} at \
         delta {} for adding or removing one patient of a site, over all {} steps, in each of which every patient is drawn \
         by themselves with a chance of {}, with gradients clipped to {} and noise of {} times that (privacy loss \
         distributions; by Renyi divergences, as a check, epsilon {check}).",
        delta.value(),
        release.times(),
        release.sampling_rate(),
        dp.clip_norm_l2,
        release.noise_multiplier()
    );
    words.push_str(RUN_ALONE);
    let others: Vec<&str> = plan::without_dp(plan);
    if !others.is_empty() {
        words.push_str(&format!(" What left of {} had no noise.", others.join(", ")));
    }
    let more: Vec<&str> = plan::with_dp(plan).map(|(name, _, _)| name).filter(|name| *name != task).collect();
    if !more.is_empty() {
        words.push_str(&format!(" {} released more about the same patients, with noise of its own.", more.join(", ")));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_privacy::dp::{Delta, Release, epsilon};

    #[test]
    fn a_card_says_the_epsilon_of_the_steps_that_were_taken() {
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
      dp: { mode: local, noise_multiplier: 2, delta: 1.0e-5, clip_norm_l2: 1.5, sampling_rate: 0.1, expected_batch: 8 }
  eval: { component: evaluation, inputs: { model: train.model, data: read } }
";
        let mut plan = plan::read(text).unwrap();
        let exact = epsilon(&[Release::new(0.1, 2.0, 100).unwrap()], Delta::new(1e-5).unwrap()).worst();
        let found = words(&plan, "train");
        assert!(found.contains(&format!("epsilon {} at delta 0.00001", (exact * 1e4).ceil() / 1e4)), "{found}");
        assert!(found.contains(RUN_ALONE), "{found}");
        assert!(found.contains("over all 100 steps") && found.ends_with("What left of eval had no noise."), "{found}");
        let Some(Component::NnTrain(train)) = plan.tasks.get_mut("train").map(|task| &mut task.component) else {
            panic!()
        };
        train.dp = None;
        assert_eq!(words(&plan, "train"), NONE);
    }
}
