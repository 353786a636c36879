//! Networks that are trained on this site's rows alone: a plan's `local_baseline`, and, where a plan has none, the network of
//! its training, beside the one of all sites that an evaluation judges.

use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::{self, Component, LocalBaseline, NnTrain, Plan, Start};

use super::{ReportView, Trained, check_features, finite};
use crate::component::{Frame, Matrix, Pipeline};
use crate::device::Compute;
use crate::error::CohortError;
use crate::evaluate::{Asked, Judged};
use crate::train::{self, Batches, Correction, Course, Draws, Goal, Network, Pulse, Step, Work};

/// Longest, in milliseconds, that a site trains alone for a comparison that the plan does not ask for.
const LONGEST_MS: i64 = 2 * 60 * 1_000;
/// What part of the time that is left for the round that may take: what leaves waits for it.
const PART: i64 = 4;

/// Until when it may go on.
pub(super) fn until(now: Timestamp, deadline: Timestamp) -> Timestamp {
    now.plus_millis((deadline.since(now) / PART).min(LONGEST_MS))
}

/// The training whose network an evaluation judges, if the plan has no site train alone for the same rows. None of a training
/// that begins with a model from elsewhere, which this site does not have: a network that begins with the plan's seed is no
/// equal to it.
pub(super) fn unplanned<'p>(plan: &'p Plan, evaluation: &str) -> Option<(&'p str, &'p NnTrain)> {
    let task = plan.tasks.get(evaluation)?;
    let rows = plan::source(plan, task, "data")?;
    let is_planned = plan.tasks.values().any(|other| {
        matches!(other.component, Component::LocalBaseline(_)) && plan::source(plan, other, "data") == Some(rows)
    });
    let trained = plan::source(plan, task, "model")?.task;
    match &plan.tasks.get(trained)?.component {
        Component::NnTrain(params) if !is_planned && params.init == Start::Seed => Some((trained, &**params)),
        _ => None,
    }
}

/// Trains on this site's rows as many steps as the plan has in all rounds together, and judges what comes of it. Nothing
/// comes from the others, no noise is added (what comes of it stays here), and no step is left out by `early_stop` or a round
/// that was passed over.
///
/// # Errors
/// [`CohortError::TooLate`] after `until`, else as training.
pub(super) fn beside(
    pipeline: &mut Pipeline<'_>,
    (task, params): (&str, &NnTrain),
    (rows, asked): (&Frame, Asked<'_>),
    compute: &Compute,
    site: &[u8],
    until: Timestamp,
    pulse: &mut Pulse<'_>,
) -> Result<ReportView, CohortError> {
    let plan = pipeline.plan();
    let train_rows = pipeline.table(task, "train")?;
    check_features(plan, task, &train_rows)?;
    let (data, test) = (train_rows.matrix(task)?, rows.matrix(task)?);
    let course = Course {
        goal: &Goal::new(params.loss, &params.class_weights),
        augment: params.augment.as_ref(),
        batch: params.local.batch,
        work: Work { units: params.rounds, steps: params.local.updates },
        schedule: &params.schedule,
        draws: Draws { seed: plan.seed, site, task, round: 1 },
        correction: Correction::None,
    };
    let how = (&params.model, &params.optimizer);
    let (_, outputs) = train_here(plan, how, (&data, &test), compute, course, until, pulse)?;
    Judged { rows, outputs: &outputs, loss: params.loss }.view(Asked { calibration_bins: 0, ..asked })
}

/// Trains on the rows at `train` from initial values by the plan's seed and applies it to those at `data`.
pub(super) fn baseline(
    pipeline: &mut Pipeline<'_>,
    task: &str,
    params: &LocalBaseline,
    compute: &Compute,
    site: &[u8],
    deadline: Timestamp,
    pulse: &mut Pulse<'_>,
) -> Result<Trained, CohortError> {
    let plan = pipeline.plan();
    let train_rows = pipeline.table(task, "train")?;
    check_features(plan, task, &train_rows)?;
    let data = train_rows.matrix(task)?;
    let test = pipeline.table(task, "data")?.matrix(task)?;
    let steps = u32::try_from(Batches::per_epoch(data.rows, params.batch)).map_err(|_| CohortError::Plan {
        place: format!("tasks.{task}.params.batch"),
        reason: "too many updates for this many rows".into(),
    })?;
    let course = Course {
        goal: &Goal::new(params.loss, &params.class_weights),
        augment: params.augment.as_ref(),
        batch: params.batch,
        work: Work { units: params.epochs, steps },
        schedule: &params.schedule,
        draws: Draws { seed: plan.seed, site, task, round: 1 },
        correction: Correction::None,
    };
    let how = (&params.model, &params.optimizer);
    let (parameters, outputs) = train_here(plan, how, (&data, &test), compute, course, deadline, pulse)?;
    Ok(Trained { parameters, outputs, test })
}

/// Parameters of a network that was trained from initial values by the plan's seed, and what it gives for other rows.
fn train_here(
    plan: &Plan,
    (model, optimizer): (&plan::Model, &plan::Optimizer),
    (data, test): (&Matrix, &Matrix),
    compute: &Compute,
    course: Course<'_>,
    deadline: Timestamp,
    pulse: &mut Pulse<'_>,
) -> Result<(Vec<f32>, Vec<f32>), CohortError> {
    let task = course.draws.task;
    let initial = plan::model::initial(model, plan::inputs(plan, task), plan.seed);
    let mut network = Network::new(model, data, &initial, compute)?;
    network.check(test, task)?;
    train::train(&mut network, &mut Step::new(optimizer, 1.0), data, course, deadline, pulse)?;
    let parameters = finite(network.parameters(), task)?;
    Ok((parameters, network.logits(test)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_takes_a_part_of_the_time_and_no_longer_than_its_own_limit() {
        let at = Timestamp::from_millis;
        assert_eq!(until(at(1_000), at(41_000)), at(11_000));
        assert_eq!(until(at(1_000), at(3_600_000)), at(1_000 + LONGEST_MS));
    }
}
