//! Evaluations: which model is judged on which rows, and what of its quality leaves.

use std::collections::BTreeMap;

use hospes_privacy::disclosure::border::{Table, WITHHELD, rows_only};
use hospes_privacy::disclosure::share_allowed;
use hospes_privacy::disclosure::subgroups::shown;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::model::Inputs;
use hospes_protocol::plan::{
    self, Component, Evaluation, Family, Figure, LocalBaseline, Loss, NnTrain, Plan, Subgroups, figure,
};
use hospes_protocol::policy::{Disclosure, EgressKind};

use super::{
    Cohort, GroupView, Report, ReportView, Round, alone, baseline, check_features, distinct_subjects, wrong_component,
};
use crate::component::{Frame, Matrix, Pipeline};
use crate::device::Compute;
use crate::error::CohortError;
use crate::evaluate::{Asked, Judged, label_levels, leaving};
use crate::parts::{Cells, judged_again, parts_allowed};
use crate::train::{Goal, Network, Pulse, Source, payload};

/// A model that an evaluation judges, or that is used.
pub(super) struct Behind {
    pub(super) model: plan::Model,
    pub(super) inputs: Inputs,
    pub(super) loss: Loss,
    /// Column that is added to the outputs.
    pub(super) offset: Option<String>,
    /// The training that it comes from; `None` for a regression.
    pub(super) train: Option<NnTrain>,
}

impl Behind {
    /// The model that a task trains; `None` for a task that trains none.
    pub(super) fn of(plan: &Plan, task: &str) -> Option<Self> {
        let inputs = plan::inputs(plan, task);
        match &plan.tasks.get(task)?.component {
            Component::NnTrain(params) => Some(Self {
                model: params.model.clone(),
                loss: params.loss,
                inputs,
                offset: None,
                train: Some((**params).clone()),
            }),
            Component::Glm(glm) => Some(Self {
                model: glm.model(),
                loss: match glm.family {
                    Family::Gaussian => Loss::Mse,
                    Family::Binomial => Loss::BinaryCrossEntropy,
                    Family::Poisson => Loss::Poisson,
                },
                inputs,
                offset: glm.offset.clone(),
                train: None,
            }),
            _ => None,
        }
    }

    /// A model that was trained at one place only.
    pub(super) fn alone(params: &LocalBaseline, inputs: Inputs) -> Self {
        let LocalBaseline { model, loss, .. } = params;
        Self { model: model.clone(), inputs, loss: *loss, offset: None, train: None }
    }

    /// What the model gives for each row, with the offset of a regression.
    ///
    /// # Errors
    /// [`CohortError`] if the model does not fit the rows, or the offset is missing in one.
    pub(super) fn outputs(
        &self,
        parameters: &[f32],
        rows: &Frame,
        data: &Matrix,
        compute: &Compute,
        task: &str,
    ) -> Result<Vec<f32>, CohortError> {
        let network = Network::new(&self.model, data, parameters, compute)?;
        network.check(data, task)?;
        let mut outputs = network.logits(data);
        if let Some(column) = &self.offset {
            let offset = rows.extra(column)?;
            let missing = offset.iter().filter(|value| value.is_nan()).count() as u64;
            if missing > 0 {
                let (task, column) = (task.to_owned(), column.clone());
                return Err(CohortError::MissingValues { task, column, rows: missing });
            }
            #[allow(clippy::cast_possible_truncation)]
            outputs.iter_mut().zip(offset).for_each(|(output, offset)| *output = (f64::from(*output) + offset) as f32);
        }
        Ok(outputs)
    }
}

impl Cohort {
    pub(super) fn report_evaluation(
        self,
        round: &Round<'_>,
        params: &Evaluation,
        task: &str,
        rules: &Disclosure,
        pulse: &mut Pulse<'_>,
    ) -> Result<Report, CohortError> {
        let (behind, place) = (self.model_behind(task)?, self.place);
        let parameters = match &behind.train {
            Some(params) => {
                let (seed, state) = (self.plan.seed, self.state.as_ref());
                Source { params, inputs: behind.inputs, seed, state }.finished(round)?
            }
            None => payload::read_model(round, &plan::model::tensors(&behind.model, behind.inputs))?,
        };
        let mut pipeline = Pipeline::new(&self.plan, self.frame);
        let rows = pipeline.table(task, "data")?;
        check_features(&self.plan, task, &rows)?;
        let compute = place.open()?;
        let outputs = behind.outputs(&parameters, &rows, &rows.matrix(task)?, &compute, task)?;
        let judged = Judged { rows: &rows, outputs: &outputs, loss: behind.loss };
        let Evaluation { threshold, calibration_bins, .. } = *params;
        let asked = Asked { plan: &self.plan, task, threshold, calibration_bins, in_full: true };
        let parts = parts_allowed(&mut pipeline, task, rules)? && !judged_again(&mut pipeline, task, rules)?;
        let whole = reported(&judged, asked, parts, rules)?;
        let report = match plan::subgroups(&self.plan, task) {
            Some(subgroups) => by_subgroup(&mut pipeline, &judged, asked, subgroups, whole, rules)?,
            None => whole,
        };
        let Some(training) = alone::unplanned(&self.plan, task).filter(|_| self.compares) else { return Ok(report) };
        let until = alone::until((pulse.now)(), self.opening.deadline());
        let (judged_rows, site) = ((&*rows, asked), round.site.as_bytes());
        let beside = alone::beside(&mut pipeline, training, judged_rows, &compute, site, until, pulse);
        match beside {
            Err(CohortError::Cancelled) => Err(CohortError::Cancelled),
            // The plan did not ask for it: what it lacks, or the time for it, is no failure of the round.
            beside => Ok(Report { alone: beside.ok(), ..report }),
        }
    }

    pub(super) fn report_baseline(
        self,
        round: &Round<'_>,
        params: &LocalBaseline,
        task: &str,
        rules: &Disclosure,
        pulse: &mut Pulse<'_>,
    ) -> Result<Report, CohortError> {
        let place = self.place;
        let mut pipeline = Pipeline::new(&self.plan, self.frame);
        let rows = pipeline.table(task, "data")?;
        let parts = parts_allowed(&mut pipeline, task, rules)?;
        let (site, deadline) = (round.site, self.opening.deadline());
        let compute = place.open()?;
        let trained = baseline(&mut pipeline, task, params, &compute, site.as_bytes(), deadline, pulse)?;
        let judged = Judged { rows: &rows, outputs: &trained.outputs, loss: params.loss };
        let threshold = params.threshold;
        let asked = Asked { plan: &self.plan, task, threshold, calibration_bins: 0, in_full: true };
        reported(&judged, asked, parts, rules)
    }

    /// Training of the model that an evaluation judges, and what it takes.
    pub(super) fn model_behind(&self, task: &str) -> Result<Behind, CohortError> {
        let found = self.plan.tasks.get(task).and_then(|t| plan::source(&self.plan, t, "model"));
        let trained = found.and_then(|source| Behind::of(&self.plan, source.task));
        trained.ok_or_else(|| wrong_component(task, "an evaluation of a trained model"))
    }
}

/// How good the model that came is on the rows for validation.
pub(super) struct Validated {
    pub(super) view: ReportView,
    /// The mean loss, if the plan asks for it and it may leave.
    pub(super) told: Option<f64>,
}

/// Judges the model that came on the rows for validation; `None` if there are none.
///
/// # Errors
/// [`CohortError`] if the model cannot be applied to them, or a table that they are compared with cannot be made.
pub(super) fn validate(
    pipeline: &mut Pipeline<'_>,
    network: &Network,
    goal: &Goal,
    (params, rows): (&NnTrain, &Frame),
    task: &str,
    rules: &Disclosure,
) -> Result<Option<Validated>, CohortError> {
    if rows.rows() == 0 {
        return Ok(None);
    }
    let plan = pipeline.plan();
    let data = rows.matrix(task)?;
    network.check(&data, task)?;
    let outputs = network.logits(&data);
    let judged = Judged { rows, outputs: &outputs, loss: params.loss };
    // Without intervals: a thousand resamples in every round would take longer than the training.
    let view = judged.view(Asked { plan, task, threshold: 0.5, calibration_bins: 10, in_full: false })?;
    if params.early_stop.is_none() {
        return Ok(Some(Validated { view, told: None }));
    }
    // PRIVACY: a loss leaves where an evaluation on the same rows would tell it.
    let sums = view.sums(rules);
    let figure = |(name, values): (&&'static str, &Vec<f64>)| Figure {
        name: (*name).into(),
        values: values.len() as u64,
        kind: EgressKind::Loss,
    };
    let announced: Vec<Figure> = sums.iter().map(figure).collect();
    let parts_allowed = Cells::of_loss(pipeline, task, rules)?.allow(rows, rules);
    // PRIVACY: it is not the loss of an evaluation, but that of training, with a weight for each class.
    let shared = share_allowed(rules, goal.effective_rows(&outputs, &data));
    let leaves = shared && in_full(&left(&announced, &view, rows, plan, parts_allowed, rules));
    let loss = goal.mean(&outputs, &data);
    Ok(Some(Validated { view, told: Some(loss).filter(|loss| leaves && loss.is_finite()) }))
}

/// The quality on all rows, with what of it leaves.
fn reported(
    judged: &Judged<'_>,
    asked: Asked<'_>,
    parts_allowed: bool,
    rules: &Disclosure,
) -> Result<Report, CohortError> {
    let view = judged.view(asked)?;
    let announced = plan::figures_of_whole(asked.plan, asked.task);
    let figures = left(&announced, &view, judged.rows, asked.plan, parts_allowed, rules);
    Ok(Report { figures, view, alone: None })
}

/// What leaves of the quality on a table.
fn left(
    announced: &[Figure],
    view: &ReportView,
    rows: &Frame,
    plan: &Plan,
    parts_allowed: bool,
    rules: &Disclosure,
) -> FigureSet {
    let levels = label_levels(rows, plan);
    let table = Table { subjects: distinct_subjects(rows), parts_allowed, levels: &levels };
    let set = leaving(announced, view.sums(rules), table, rules);
    // PRIVACY: it looks as if some count were small, so that whoever chose the model gets no answer about the one row.
    if view.is_shared(rules) { set } else { rows_only(set) }
}

/// Whether more than the number of rows leaves.
fn in_full(figures: &FigureSet) -> bool {
    figures.sums.keys().any(|name| name != figure::N)
}

/// The report with the figures of each subgroup: of those that may leave beside the whole.
fn by_subgroup(
    pipeline: &mut Pipeline<'_>,
    judged: &Judged<'_>,
    asked: Asked<'_>,
    subgroups: Subgroups<'_>,
    whole: Report,
    rules: &Disclosure,
) -> Result<Report, CohortError> {
    let announced = plan::figures_of_whole(asked.plan, asked.task);
    let count = subgroups.codes.len();
    let members = judged.rows.group_rows(subgroups.column, count)?;
    let cells = Cells::of(pipeline, asked.task, rules)?;
    let figures_of = |rows: &[usize], asked: Asked<'_>| -> Result<(FigureSet, ReportView), CohortError> {
        let (part, view) = judged.part(rows, asked)?;
        let parts_allowed = cells.allow(&part, rules);
        Ok((left(&announced, &view, &part, asked.plan, parts_allowed, rules), view))
    };
    let mut sets: Vec<Option<(FigureSet, ReportView)>> = Vec::with_capacity(count);
    for rows in &members[..count] {
        sets.push(if rows.is_empty() { None } else { Some(figures_of(rows, asked)?) });
    }
    // PRIVACY: the rest of the whole is a table too. Its sums are the difference, whoever computes it.
    let quiet = Asked { in_full: false, ..asked };
    let sizes: Vec<u64> = members.iter().map(|rows| rows.len() as u64).collect();
    let mut allowed = |groups: &[usize]| match groups {
        [group] if *group < count => sets[*group].as_ref().is_some_and(|(set, _)| in_full(set)),
        _ => {
            let mut rows: Vec<usize> = groups.iter().flat_map(|group| &members[*group]).copied().collect();
            rows.sort_unstable();
            figures_of(&rows, quiet).is_ok_and(|(set, _)| in_full(&set))
        }
    };
    // PRIVACY: what may not be told of all rows is not told in parts that add up to it.
    let shown = if in_full(&whole.figures) { shown(&sizes, &mut allowed) } else { vec![false; count] };
    let mut figures = whole.figures;
    let mut groups = Vec::with_capacity(count);
    for ((code, is_shown), set) in subgroups.codes.iter().zip(shown).zip(sets) {
        let (set, view) = set.map_or((None, None), |(set, view)| (Some(set), Some(view)));
        add(&mut figures, &announced, set.filter(|_| is_shown), |name| subgroups.figure(name, code));
        let rows = view.as_ref().map_or(0, ReportView::rows);
        groups.push(GroupView { code: code.clone(), rows, leaves: is_shown, view });
    }
    let ungrouped = sizes.last().copied().unwrap_or_default();
    let column = subgroups.column.to_owned();
    let view = ReportView::Grouped { all: Box::new(whole.view), column, groups, ungrouped };
    Ok(Report { figures, view, alone: None })
}

/// Adds the figures of a subgroup under their own names; of one that is not shown, all as withheld.
fn add(to: &mut FigureSet, announced: &[Figure], set: Option<FigureSet>, named: impl Fn(&str) -> String) {
    let set = set.unwrap_or_else(|| FigureSet {
        sums: BTreeMap::new(),
        withheld: announced.iter().map(|figure| (figure.name.to_string(), WITHHELD.to_owned())).collect(),
    });
    to.sums.extend(set.sums.into_iter().map(|(name, values)| (named(&name), values)));
    to.withheld.extend(set.withheld.into_iter().map(|(name, words)| (named(&name), words)));
}
