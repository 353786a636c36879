//! A cohort: the rows that one permit opens, for one task of one round.

use std::collections::{BTreeMap, BTreeSet};

use hospes_privacy::disclosure::border::{Table, WITHHELD, grid_at_border, pearson_at_border};
use hospes_privacy::disclosure::{Rule, Verdict, parameters_allowed, share_allowed};
use hospes_protocol::approval::Opening;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{SiteId, Timestamp};
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::model::Inputs;
use hospes_protocol::plan::{self, Coefficients, Component, LabelKind, NnTrain, Plan};
use hospes_protocol::policy::Disclosure;
use hospes_protocol::round::RoundHeader;

use crate::component::{FeatureStatistics, Frame, Matrix, Pipeline, Unknown, cells, level_counts, statistics};
use crate::device::{Compute, Place};
use crate::error::CohortError;
use crate::evaluate::{ClassMetrics, Metrics, NumberMetrics, SurvivalMetrics, leaving};
use crate::opt_out::OptOuts;
use crate::parts::parts_allowed;
use crate::regress;
use crate::snapshot::{Snapshot, SnapshotKey};
use crate::train::{Draws, Goal, Local, Network, Pulse, SiteState, Source, Step, payload};

mod alone;
mod attacking;
mod judging;
mod optimising;
mod predicting;

use alone::baseline;
use judging::{Behind, validate};
pub use optimising::Released;
use optimising::{RowsSecret, Steps};
pub use predicting::{Predicted, Prediction, predict_file};

/// Rows on which a view's losses are always computed, though fewer are trained on: judging many images would take longer
/// than training on some of them.
const LOSS_ROWS: usize = 4_096;

/// Rows of one snapshot without the people who opted out, opened by a permit. It is used up by what is computed on it.
pub struct Cohort {
    opening: Opening,
    plan: Canonical<Plan>,
    frame: Frame,
    public: bool,
    state: Option<SiteState>,
    /// Where the plan trains with differential privacy.
    secret: Option<RowsSecret>,
    place: Place,
    compares: bool,
    /// What training draws from in place of the plan's seed.
    draws: Option<u64>,
}

/// What is asked of a site in one round.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// This site; it makes the order of its batches its own.
    pub site: SiteId,
    /// The round's header, as the permit was given for it.
    pub header: &'a RoundHeader,
    /// The model file that the header names, for tasks that need one.
    pub model: Option<&'a [u8]>,
}

/// An update on its way out, and what the site itself sees of it.
pub struct Update {
    /// The payload in the layout of the round's header. Derived from rows: it leaves through the outbox only.
    pub payload: Vec<u8>,
    /// What the plan announces and is not in it, with the reason: the loss on the rows for validation.
    pub withheld: BTreeMap<String, String>,
    /// For the site's own screen; does not leave.
    pub view: TrainingView,
    /// What noise was added to, where the plan has differential privacy.
    pub released: Option<Released>,
    /// What stays here for the next round of the task.
    pub(crate) state: Option<SiteState>,
}

/// Training as the site's own people see it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct TrainingView {
    /// Training rows.
    pub rows: u64,
    /// Distinct subjects among them.
    pub subjects: u64,
    /// Mean loss on them with the model that came; of many rows, on as many as are trained on, evenly spaced.
    pub loss_before: f64,
    /// Mean loss on the same with the model that was trained.
    pub loss_after: f64,
    /// Whether only one class is among them.
    pub one_class: bool,
    /// Largest absolute entry of the update, before clipping.
    pub largest_change: f64,
    /// Entries that the clip cut.
    pub clipped: u64,
    /// Quality of the model that came on the rows for validation, if the plan has any.
    pub validation: Option<ReportView>,
}

/// A report of figures on its way out, and what the site itself sees.
pub struct Report {
    /// What leaves, under the disclosure rules.
    pub figures: FigureSet,
    /// For the site's own screen; does not leave.
    pub view: ReportView,
    /// The same of the network that was trained here alone, where an evaluation came with one; does not leave.
    pub alone: Option<ReportView>,
}

/// Figures as the site's own people see them.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(clippy::large_enum_variant, reason = "there is one for each report")]
pub enum ReportView {
    /// Quality of a model of a yes/no label.
    Metrics(Metrics),
    /// Quality of a model of several classes.
    Classes(ClassMetrics),
    /// Quality of predictions of a number.
    Number(NumberMetrics),
    /// Quality of predicted risks of an event.
    Survival(SurvivalMetrics),
    /// How well a regression fits so far.
    Regression {
        /// Rows.
        rows: u64,
        /// Log likelihood of this site's rows at the coefficients of the round.
        log_likelihood: f64,
    },
    /// Quality of a model on all rows and on those of each subgroup.
    Grouped {
        /// On all rows.
        all: Box<ReportView>,
        /// Column that makes the subgroups.
        column: String,
        /// Code by code.
        groups: Vec<GroupView>,
        /// Rows without a code, which are in no subgroup.
        ungrouped: u64,
    },
    /// Sums of features.
    Statistics {
        /// Rows.
        rows: u64,
        /// Feature by feature.
        features: Vec<FeatureStatistics>,
    },
}

/// A subgroup as the site's own people see it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct GroupView {
    /// Its code.
    pub code: String,
    /// Rows.
    pub rows: u64,
    /// Whether its figures leave.
    pub leaves: bool,
    /// Quality on its rows; `None` where there are none.
    pub view: Option<ReportView>,
}

impl ReportView {
    /// Rows that it is about.
    ///
    /// # Disclosure
    /// A count, for the site's own view.
    pub fn rows(&self) -> u64 {
        match self {
            Self::Metrics(metrics) => metrics.rows,
            Self::Classes(metrics) => metrics.rows,
            Self::Number(metrics) => metrics.rows,
            Self::Survival(metrics) => metrics.rows,
            Self::Grouped { all, .. } => all.rows(),
            Self::Regression { rows, .. } | Self::Statistics { rows, .. } => *rows,
        }
    }
}

/// Quality of a model outside a round, on public data.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessed {
    /// On all rows.
    pub all: Metrics,
    /// On the rows of each pooled table, in the order of pooling.
    pub by_table: Vec<Metrics>,
}

/// A model fitted outside a round, on public data, with its quality.
pub struct Fit {
    /// Parameters in the order of the plan's tensors.
    pub parameters: Vec<f32>,
    /// Quality on all test rows.
    pub metrics: Metrics,
    /// Quality on the test rows of each pooled table, in the order of pooling.
    pub by_table: Vec<Metrics>,
}

impl std::fmt::Debug for Cohort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cohort(round {}, {} features)", self.opening.round(), self.frame.features.len())
    }
}

impl Cohort {
    /// Opens what the permit names, be it for a round or for a dry run: checks snapshot, columns and time, verifies the
    /// file before any row is used, reads the plan's columns only, and leaves out everybody on the opt-out list.
    ///
    /// # Errors
    /// [`CohortError`] says what did not hold.
    ///
    /// # Disclosure
    /// Nothing yet: rows stay inside, and the permit is used up with them.
    pub fn open(
        permit: impl Into<Opening>,
        snapshot: &Snapshot,
        key: &SnapshotKey,
        opt_outs: &OptOuts,
        plan: &Canonical<Plan>,
        now: Timestamp,
    ) -> Result<Self, CohortError> {
        let opening: Opening = permit.into();
        if now >= opening.deadline() {
            return Err(CohortError::TooLate);
        }
        if opening.snapshot() != snapshot.document.digest() {
            return Err(CohortError::WrongSnapshot);
        }
        let schema = &snapshot.document.schema;
        if plan.data.subject != schema.subject {
            let (place, subject) = ("data.subject".to_owned(), &schema.subject);
            return Err(CohortError::Plan { place, reason: format!("the subject key of this dataset is '{subject}'") });
        }
        let columns: BTreeSet<String> = plan::columns_read(plan);
        if let Some(column) = columns.iter().find(|c| !opening.columns().contains(*c)) {
            return Err(CohortError::ColumnNotPermitted { column: column.clone() });
        }
        let frame = read_frame(plan, snapshot, key, opt_outs)?;
        let has_noise = plan::with_dp(plan).next().is_some();
        let secret = has_noise.then(|| RowsSecret::new(key, opening.snapshot(), &frame.subjects));
        Ok(Self {
            opening,
            plan: plan.clone(),
            frame,
            public: snapshot.document.public,
            state: None,
            secret,
            place: Place::Processor,
            compares: false,
            draws: None,
        })
    }

    /// Gives it what the site kept from the task's last round.
    pub(crate) fn with_state(self, state: Option<SiteState>) -> Self {
        Self { state, ..self }
    }

    /// Says where its networks compute; on the processor where nothing is said.
    pub(crate) fn on(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// Says whether an evaluation also trains the plan's network on this site's rows alone, for its own people; it does not
    /// where nothing is said.
    pub(crate) fn comparing(self, compares: bool) -> Self {
        Self { compares, ..self }
    }

    /// Says what its training draws batches and random changes from; from the plan's seed where nothing is said.
    pub(crate) fn drawing_from(self, seed: u64) -> Self {
        Self { draws: Some(seed), ..self }
    }

    /// Puts several public tables of one plan together, for the pooled figure of a reproduction.
    ///
    /// # Errors
    /// [`CohortError::NotPublic`] if a table is not tagged public; [`CohortError::Plan`] if plans differ.
    ///
    /// # Disclosure
    /// Nothing yet; public data only.
    pub fn pool(tables: Vec<Self>) -> Result<Self, CohortError> {
        let mut rest = tables.into_iter();
        let Some(mut pooled) = rest.next() else {
            return Err(CohortError::NoRowsLeft { task: "pool".into(), empty_columns: Vec::new() });
        };
        for (table, origin) in rest.zip(1u16..) {
            if table.plan.digest() != pooled.plan.digest() {
                return Err(CohortError::Plan { place: "plan".into(), reason: "pooled tables have one plan".into() });
            }
            pooled.public &= table.public;
            pooled.frame.append(&table.frame, origin);
        }
        if pooled.public { Ok(pooled) } else { Err(CohortError::NotPublic) }
    }

    /// Trains for one round and returns the clipped, weighted, quantised difference to the model that came.
    ///
    /// # Errors
    /// [`CohortError`] if the plan cannot be carried out on the data, the model does not fit, time is over, or training
    /// diverges; [`CohortError::Disclosure`] if the site's rules refuse.
    ///
    /// # Disclosure
    /// An update is of at least `min_subset` distinct subjects, leaves out none or as many, and a GLM-like model has no
    /// more parameters than `max_param_ratio` for each of them; otherwise there is none. With it goes, where the plan can
    /// end training early, the loss on the rows for validation, under the same rules as in an evaluation, if no few rows make
    /// up most of it. It can be inverted in part by who reads it; that is what the approval says, what clipping bounds, and
    /// what secure aggregation hides. Where the plan has differential privacy, noise bounds it, and the update is weighed by a
    /// constant of the plan; only that there is an update tells something more, by the rules above. The view holds means over
    /// rows and counts and stays here.
    pub fn train(self, round: Round<'_>, rules: &Disclosure, pulse: &mut Pulse<'_>) -> Result<Update, CohortError> {
        self.check_round(&round)?;
        let task = round.header.task.as_str();
        let Some(Component::NnTrain(params)) = self.plan.tasks.get(task).map(|t| &t.component) else {
            return Err(wrong_component(task, "nn_train"));
        };
        let deadline = self.opening.deadline();
        let mut pipeline = Pipeline::new(&self.plan, self.frame);
        let train_rows = pipeline.table(task, "train")?;
        check_features(&self.plan, task, &train_rows)?;
        let data = train_rows.matrix(task)?;
        let subjects = distinct_subjects(&train_rows);
        let inputs = plan::inputs(&self.plan, task);
        // PRIVACY: an update of few subjects, or of few subjects more than another result, is not even computed.
        check_rules(&mut pipeline, task, params, inputs, subjects, rules)?;
        let source = Source { params, inputs, seed: self.plan.seed, state: self.state.as_ref() };
        let local = Local::begin(&round, source)?;
        let compute = self.place.open()?;
        let mut network = Network::new(&params.model, &data, local.model(), &compute)?;
        network.check(&data, task)?;
        let goal = Goal::new(params.loss, &params.class_weights);
        let validation = match pipeline.is_connected(task, "validate") {
            true => {
                let rows = pipeline.table(task, "validate")?;
                validate(&mut pipeline, &network, &goal, (params, &rows), task, rules)?
            }
            false => None,
        };
        let seen = (params.local.updates as usize).saturating_mul(params.local.batch as usize);
        let fewer = data.spaced(LOSS_ROWS.max(seen));
        let judged = fewer.as_ref().unwrap_or(&data);
        let loss_before = goal.mean(&network.logits(judged), judged);
        let (site, number) = (round.site, round.header.round);
        let mut step = Step::new(&params.optimizer, params.schedule.factor(number, params.rounds));
        let draws = Draws { seed: self.draws.unwrap_or(self.plan.seed), site: site.as_bytes(), task, round: number };
        let (plan, place, owners) = (&self.plan, self.place, &train_rows.subjects);
        let steps = Steps { round, plan, params, goal: &goal, data: &data, subjects: owners, place, deadline, draws };
        let taken = steps.take(&mut network, &mut step, local.correction(), self.secret.as_ref(), pulse)?;
        let trained = finite(network.parameters(), task)?;
        let loss_after = goal.mean(&network.logits(judged), judged);
        let mut ended = local.end(&trained, params.local.updates, step.round_rate())?;
        ended.delta = taken.delta.unwrap_or(ended.delta);
        let largest_change = ended.delta.iter().fold(0f64, |most, entry| most.max(f64::from(entry.abs())));
        let mut withheld = BTreeMap::new();
        if let Some(stop) = &params.early_stop {
            let told = validation.as_ref().and_then(|found| Some((found.told?, found.view.rows())));
            let (loss, rows) = told.unwrap_or((0.0, 0));
            ended.delta.extend(stop.entries(loss, rows, data.rows as u64, params.quantise.clip));
            if told.is_none() {
                withheld.insert(plan::VALIDATION_LOSS.to_owned(), WITHHELD.to_owned());
            }
        }
        let rows = data.rows as u64;
        // PRIVACY: how many rows there are is covered by no noise, so that a constant stands in their place.
        let weight = params.dp.map_or(rows, |dp| dp.weight());
        let encoded = payload::encode(&ended.delta, weight, &round.header.tensors, &params.quantise, draws)?;
        ended.keep_as_sent(source, weight, &encoded)?;
        let view = TrainingView {
            rows,
            subjects,
            loss_before,
            loss_after,
            one_class: is_one_class(&self.plan, &data),
            largest_change,
            clipped: encoded.clipped,
            validation: validation.map(|found| found.view),
        };
        let payload = encoded.into_payload(round.header)?;
        Ok(Update { payload, withheld, view, released: taken.released, state: ended.state })
    }

    /// Computes the figures of an `evaluation`, `statistics`, `glm`, `cox` or `local_baseline` task.
    ///
    /// # Errors
    /// As [`Cohort::train`].
    ///
    /// # Disclosure
    /// The figure set holds what [`at_border`](hospes_privacy::disclosure::border::at_border) lets leave under the site's
    /// rules: nothing about a table that, or whose difference to the dataset or to another reported table, has fewer than
    /// `min_subset` subjects; nothing about a subgroup that, or whose difference to the whole table or to another, breaks a
    /// rule; a model's quality on one class is *withheld*, never *undefined*. The sums of a regression are
    /// of no more coefficients than `max_param_ratio` for each subject, and leave only if no count that they hold, single
    /// or by pairs of values, is small, and if enough rows have a part in them. The views are for the site: a network that was
    /// trained here alone beside an evaluation changes nothing of what leaves.
    pub fn report(self, round: Round<'_>, rules: &Disclosure, pulse: &mut Pulse<'_>) -> Result<Report, CohortError> {
        self.check_round(&round)?;
        let task = round.header.task.clone();
        let component = self.plan.tasks.get(&task).map(|t| t.component.clone());
        match component {
            Some(Component::Statistics(_)) => self.report_statistics(&task, rules),
            Some(component @ (Component::Glm(_) | Component::Cox(_))) => {
                self.report_regression(round, &component, &task, rules)
            }
            Some(Component::Evaluation(params)) => self.report_evaluation(&round, &params, &task, rules, pulse),
            Some(Component::LocalBaseline(params)) => self.report_baseline(&round, &params, &task, rules, pulse),
            _ => Err(wrong_component(&task, "evaluation, statistics, glm, cox or local_baseline")),
        }
    }
}

impl Cohort {
    /// Fits the model of a `local_baseline` task on the rows at hand, outside a round, and judges it.
    ///
    /// # Errors
    /// [`CohortError::NotPublic`] unless every row is tagged public; else as [`Cohort::train`].
    ///
    /// # Disclosure
    /// A model and its quality in full: for public data, in reproductions only.
    pub fn fit(self, task: &str, pulse: &mut Pulse<'_>) -> Result<Fit, CohortError> {
        if !self.public {
            return Err(CohortError::NotPublic);
        }
        match self.plan.tasks.get(task).map(|t| t.component.clone()) {
            Some(Component::LocalBaseline(params)) => {
                check_yes_no(&self.plan, task)?;
                let mut pipeline = Pipeline::new(&self.plan, self.frame);
                let trained = baseline(
                    &mut pipeline,
                    task,
                    &params,
                    &Compute::processor(),
                    b"simulation",
                    self.opening.deadline(),
                    pulse,
                )?;
                let Trained { parameters, outputs, test } = trained;
                let metrics = Metrics::new(&outputs, &test.labels, params.threshold, 0);
                let by_table = by_origin(&outputs, &test, params.threshold);
                Ok(Fit { parameters, metrics, by_table })
            }
            _ => Err(wrong_component(task, "local_baseline")),
        }
    }

    /// Judges given parameters on the rows at the task's `data` port, at the task's threshold, outside a round, table by
    /// table where several were pooled.
    ///
    /// # Errors
    /// [`CohortError::NotPublic`] unless every row is tagged public; else as [`Cohort::report`].
    ///
    /// # Disclosure
    /// A model's quality in full: for public data, in reproductions only.
    pub fn assess(self, task: &str, parameters: &[f32]) -> Result<Assessed, CohortError> {
        if !self.public {
            return Err(CohortError::NotPublic);
        }
        check_yes_no(&self.plan, task)?;
        let (behind, threshold) = match self.plan.tasks.get(task).map(|t| &t.component) {
            Some(Component::LocalBaseline(params)) => {
                (Behind::alone(params, plan::inputs(&self.plan, task)), params.threshold)
            }
            Some(Component::Evaluation(params)) => (self.model_behind(task)?, params.threshold),
            _ => return Err(wrong_component(task, "an evaluation of a trained model")),
        };
        let rows = Pipeline::new(&self.plan, self.frame).table(task, "data")?;
        let data = rows.matrix(task)?;
        let logits = behind.outputs(parameters, &rows, &data, &Compute::processor(), task)?;
        let all = Metrics::new(&logits, &data.labels, threshold, 0);
        Ok(Assessed { all, by_table: by_origin(&logits, &data, threshold) })
    }

    fn report_statistics(self, task: &str, rules: &Disclosure) -> Result<Report, CohortError> {
        let announced = plan::figures(&self.plan, task);
        let mut pipeline = Pipeline::new(&self.plan, self.frame);
        let frame = pipeline.table(task, "data")?;
        check_features(&self.plan, task, &frame)?;
        if frame.rows() == 0 {
            return Err(CohortError::NoRowsLeft { task: task.to_owned(), empty_columns: Vec::new() });
        }
        let (rows, features) = (frame.rows() as u64, statistics(&frame));
        let sums = statistics_sums(&features, rows);
        let levels = level_counts(&frame);
        let table = Table {
            subjects: distinct_subjects(&frame),
            parts_allowed: parts_allowed(&mut pipeline, task, rules)?,
            levels: &levels,
        };
        let figures = leaving(&announced, sums, table, rules);
        Ok(Report { figures, view: ReportView::Statistics { rows, features }, alone: None })
    }

    fn report_regression(
        self,
        round: Round<'_>,
        component: &Component,
        task: &str,
        rules: &Disclosure,
    ) -> Result<Report, CohortError> {
        let announced = plan::round_figures(&self.plan, task, round.header.round);
        let coefficients = Coefficients::of(&self.plan, task).ok_or_else(|| wrong_component(task, "a regression"))?;
        let values = payload::read_model(&round, &coefficients.tensors())?;
        let point = coefficients.from_file(&values).unwrap_or_default();
        let mut pipeline = Pipeline::new(&self.plan, self.frame);
        let frame = pipeline.table(task, "train")?;
        check_features(&self.plan, task, &frame)?;
        let subjects = distinct_subjects(&frame);
        // PRIVACY: the sums of too many coefficients can be solved for the rows.
        check_parameters(task, coefficients.len() as u64, subjects, true, rules)?;
        let sums = regress::sums(component, &frame, &coefficients, &point, task, round.header.round)?;
        let levels = if rules.min_cell > 1 { cells(&frame, component.extra_columns()) } else { Vec::new() };
        // PRIVACY: whoever chooses the coefficients must not choose them so that few rows outweigh all others.
        let shared = share_allowed(rules, sums.effective_rows);
        let parts_allowed = shared && parts_allowed(&mut pipeline, task, rules)?;
        let table = Table { subjects, parts_allowed, levels: &levels };
        let rows = frame.rows();
        let view = ReportView::Regression { rows: rows as u64, log_likelihood: sums.log_likelihood };
        let (grid, grid_rows, pearson_rows) = (sums.grid_cells.clone(), sums.grid_rows, sums.pearson_rows);
        let figures = leaving(&announced, sums.into_figures(rows), table, rules);
        let figures = pearson_at_border(rules, pearson_rows, grid_at_border(rules, &grid, grid_rows, figures));
        Ok(Report { figures, view, alone: None })
    }

    fn check_round(&self, round: &Round<'_>) -> Result<(), CohortError> {
        let place = "round".to_owned();
        if round.header.key() != *self.opening.round() {
            return Err(CohortError::Plan { place, reason: "the permit is for another round".into() });
        }
        if round.header.plan != self.plan.digest() {
            return Err(CohortError::Plan { place, reason: "the round is of another plan".into() });
        }
        Ok(())
    }
}

/// The rows of a snapshot as the plan's `reader` gives them, without people who opted out.
fn read_frame(plan: &Plan, snapshot: &Snapshot, key: &SnapshotKey, opt_outs: &OptOuts) -> Result<Frame, CohortError> {
    let schema = &snapshot.document.schema;
    let (mut frame, mut unknown) = (Frame::for_plan(plan), Unknown::default());
    let columns = plan::columns_read(plan);
    snapshot.read(key, &columns, &mut |batch| frame.push(batch, plan, schema, opt_outs, &mut unknown))?;
    unknown.check()?;
    Ok(frame)
}

/// A model that was trained on one table, and what it gives for another.
struct Trained {
    parameters: Vec<f32>,
    outputs: Vec<f32>,
    test: Matrix,
}

/// The site's rules on an update: whose it is, and how much the model can remember of each.
fn check_rules(
    pipeline: &mut Pipeline<'_>,
    task: &str,
    params: &NnTrain,
    inputs: Inputs,
    subjects: u64,
    rules: &Disclosure,
) -> Result<(), CohortError> {
    let refused = |rule, why| Err(CohortError::Disclosure { task: task.to_owned(), rule, why });
    if subjects < rules.min_subset || !parts_allowed(pipeline, task, rules)? {
        let why = format!(
            "it would tell about fewer than {} patients: those that it uses, or those that set them apart from the \
             dataset or from what another task of the plan uses",
            rules.min_subset
        );
        return refused(Rule::MinSubset, why);
    }
    let parameters = plan::model::parameters(&params.model, inputs);
    check_parameters(task, parameters, subjects, plan::model::is_glm_like(&params.model), rules)
}

/// The site's rule on how many parameters there may be for each patient.
fn check_parameters(
    task: &str,
    parameters: u64,
    subjects: u64,
    glm_like: bool,
    rules: &Disclosure,
) -> Result<(), CohortError> {
    match parameters_allowed(rules, parameters, subjects, glm_like) {
        Some(Verdict::Refused) => {
            let most = rules.max_param_ratio.unwrap_or_default();
            let why = format!("{parameters} parameters for {subjects} patients, the policy allows {most} for each");
            Err(CohortError::Disclosure { task: task.to_owned(), rule: Rule::MaxParamRatio, why })
        }
        _ => Ok(()),
    }
}

fn wrong_component(task: &str, wanted: &str) -> CohortError {
    CohortError::Plan { place: format!("tasks.{task}"), reason: format!("is not {wanted}") }
}

/// The features that arrive must be those that the plan promises, one by one: the model's columns are nothing else.
fn check_features(plan: &Plan, task: &str, frame: &Frame) -> Result<(), CohortError> {
    if plan::features(plan, task) == frame.columns() {
        Ok(())
    } else {
        let reason = "the features that arrive are not those that the plan promises".to_owned();
        Err(CohortError::Plan { place: format!("tasks.{task}"), reason })
    }
}

/// A model outside a round, in a reproduction, is judged by its scores for yes or no.
fn check_yes_no(plan: &Plan, task: &str) -> Result<(), CohortError> {
    match plan.data.label.kind() {
        Ok(LabelKind::YesNo(_)) => Ok(()),
        _ => {
            let reason = "outside a round, only models of a yes/no label are judged".to_owned();
            Err(CohortError::Plan { place: format!("tasks.{task}"), reason })
        }
    }
}

/// Whether all rows are of one class, where there are classes.
fn is_one_class(plan: &Plan, data: &Matrix) -> bool {
    let has_classes = matches!(plan.data.label.kind(), Ok(LabelKind::YesNo(_) | LabelKind::Classes(_)));
    has_classes && data.labels.windows(2).all(|pair| pair[0] == pair[1])
}

fn finite(parameters: Vec<f32>, task: &str) -> Result<Vec<f32>, CohortError> {
    if parameters.iter().all(|p| p.is_finite()) {
        Ok(parameters)
    } else {
        Err(CohortError::Diverged { task: task.to_owned() })
    }
}

fn distinct_subjects(frame: &Frame) -> u64 {
    frame.subjects.iter().collect::<BTreeSet<_>>().len() as u64
}

fn by_origin(logits: &[f32], test: &Matrix, threshold: f64) -> Vec<Metrics> {
    let tables = test.origin.iter().max().map_or(0, |o| usize::from(*o) + 1);
    let of = |table: usize| {
        let rows = || (0..test.rows).filter(move |r| usize::from(test.origin[*r]) == table);
        let logits: Vec<f32> = rows().map(|r| logits[r]).collect();
        let labels: Vec<f32> = rows().map(|r| test.labels[r]).collect();
        Metrics::new(&logits, &labels, threshold, 0)
    };
    (0..tables).map(of).collect()
}

#[allow(clippy::cast_precision_loss)]
fn statistics_sums(features: &[FeatureStatistics], rows: u64) -> std::collections::BTreeMap<&'static str, Vec<f64>> {
    use plan::figure;
    std::collections::BTreeMap::from([
        (figure::N, vec![rows as f64]),
        (figure::PRESENT, features.iter().map(|f| f.present as f64).collect()),
        (figure::SUM, features.iter().map(|f| f.sum).collect()),
        (figure::SUM_OF_SQUARES, features.iter().map(|f| f.sum_of_squares).collect()),
    ])
}
