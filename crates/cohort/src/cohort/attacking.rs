//! Attacks on what a training task would send, tried before anybody signs.

use hospes_privacy::dp::Training;
use hospes_protocol::plan::{self, Component, DpMode};

use super::{Cohort, Round, check_features, wrong_component};
use crate::attack::{Attack, Noise, Target, attack};
use crate::component::Pipeline;
use crate::error::CohortError;
use crate::train::dp::Rules;
use crate::train::{Draws, Local, Pulse, Source};

impl Cohort {
    /// Tries what somebody who reads the update of a training task could find out about single patients. The rules on the
    /// update are asked where it is made.
    ///
    /// # Errors
    /// As [`Cohort::train`].
    ///
    /// # Disclosure
    /// Scores of attacks, for the site's own view: how well they did over all patients, and nothing of one.
    pub(crate) fn attack(self, round: Round<'_>, pulse: &mut Pulse<'_>) -> Result<Attack, CohortError> {
        self.check_round(&round)?;
        let task = round.header.task.as_str();
        let Some(Component::NnTrain(params)) = self.plan.tasks.get(task).map(|t| &t.component) else {
            return Err(wrong_component(task, "nn_train"));
        };
        let deadline = self.opening.deadline();
        let rows = Pipeline::new(&self.plan, self.frame).table(task, "train")?;
        check_features(&self.plan, task, &rows)?;
        let data = rows.matrix(task)?;
        let inputs = plan::inputs(&self.plan, task);
        let source = Source { params, inputs, seed: self.plan.seed, state: self.state.as_ref() };
        let local = Local::begin(&round, source)?;
        let compute = self.place.open()?;
        let target = Target {
            params,
            draws: Draws { seed: self.plan.seed, site: round.site.as_bytes(), task, round: 1 },
            start: local.model(),
            data: &data,
            subjects: &rows.subjects,
            compute: &compute,
            deadline,
        };
        let sites = round.header.is_secure().then(|| round.header.k_min());
        let wrong = |reason: String| CohortError::Plan { place: format!("tasks.{task}.params.dp"), reason };
        let training = Training::of(params, inputs).map_err(|error| wrong(error.to_string()))?;
        let noise = match params.dp.zip(training) {
            // Noise that the sites share is in the sum, and in no update that could be attacked by itself.
            Some((dp, training)) if dp.mode == DpMode::Local => Some(Noise {
                rules: Rules::new(dp.clip_norm_l2, dp.sampling_rate, dp.expected_batch, task)?,
                noise_multiplier: training.release().noise_multiplier(),
            }),
            _ => None,
        };
        attack(&target, sites, noise, pulse)
    }
}
