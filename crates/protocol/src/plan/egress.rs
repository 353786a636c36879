//! What leaves a site when a plan runs: every tensor and every figure, by name, size and number of times.

use std::borrow::Cow;
use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::{Flow, subgroups};
use super::dp::DpMode;
use super::graph::order;
use super::label::LabelKind;
use super::masks::{Form, SHOWN};
use super::model::TensorShape;
use super::problem::Problems;
use super::regress::triangle;
use super::train::{Privacy, Strategy};
use super::update::{VALIDATION_LOSS, update_tensors};
use super::{Component, Family, Plan};
use crate::limits;
use crate::message::FigureSet;
use crate::policy::EgressKind;
use crate::text;

/// Something that leaves the site when the plan runs, as the reviewer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Task that sends it.
    pub task: String,
    /// Its kind, which the policy allows or not.
    pub kind: EgressKind,
    /// Its name, such as `0.weight` or `confusion`.
    pub name: String,
    /// Shape of a tensor, or the number of figures.
    pub shape: Vec<u64>,
    /// Bytes each time (of figures, and of updates of few bits: at most).
    pub bytes: u64,
    /// How many times in one run.
    pub times: u32,
    /// To whom.
    pub to: String,
}

/// One figure of a report: a name and the number of values under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Name, such as `confusion`; of a subgroup, `confusion[sex=1]`.
    pub name: Cow<'static, str>,
    /// Number of values.
    pub values: u64,
    /// Kind for the policy.
    pub kind: EgressKind,
}

impl Figure {
    /// Most bytes that it takes in a report: its name and its values, with the heads of both.
    pub(super) fn most_bytes(&self) -> u64 {
        let head = FIGURE_BYTES;
        self.values.saturating_mul(FIGURE_BYTES).saturating_add(2 * head + self.name.len() as u64)
    }
}

/// Names of the figures. Each is a list of sums over the site's rows, so that those of several sites can be added.
pub mod figure {
    /// Rows, one value. In `nn_train`, the weight of the site's update.
    pub const N: &str = "n";
    /// Rows predicted rightly at the plan's threshold, one value.
    pub const CORRECT: &str = "correct";
    /// Sum of the loss over the rows, one value.
    pub const LOSS_SUM: &str = "loss_sum";
    /// Sum of (score − label)² over the rows, one value.
    pub const BRIER_SUM: &str = "brier_sum";
    /// True positives, false positives, true negatives, false negatives at the plan's threshold.
    pub const CONFUSION: &str = "confusion";
    /// Positive rows by score: [`SCORE_BINS`](super::SCORE_BINS) bins of equal width over 0 to 1, the last one closed.
    /// ROC curve and AUC of many sites come from the sums of these and the next.
    pub const SCORES_POSITIVE: &str = "scores_positive";
    /// Negative rows by score, in the same bins.
    pub const SCORES_NEGATIVE: &str = "scores_negative";
    /// Rows by true and predicted class: for each class of the plan the rows of that class, by the class with the highest
    /// output.
    pub const CLASS_CONFUSION: &str = "class_confusion";
    /// For each class: rows of that class by its probability, in the same bins. One-versus-rest AUC comes from these and
    /// the next.
    pub const CLASS_SCORES_POSITIVE: &str = "class_scores_positive";
    /// For each class: rows of other classes by its probability.
    pub const CLASS_SCORES_NEGATIVE: &str = "class_scores_negative";
    /// Sum of |label − prediction|, one value.
    pub const ABSOLUTE_ERROR_SUM: &str = "absolute_error_sum";
    /// Sum of (label − prediction)², one value.
    pub const SQUARED_ERROR_SUM: &str = "squared_error_sum";
    /// Sum of the labels, one value.
    pub const LABEL_SUM: &str = "label_sum";
    /// Sum of the squares of the labels, one value.
    pub const LABEL_SQUARE_SUM: &str = "label_square_sum";
    /// Rows with an event, one value.
    pub const EVENTS: &str = "events";
    /// Pairs of rows of this site of which the earlier event is known, one value.
    pub const PAIRS_COMPARABLE: &str = "pairs_comparable";
    /// Those of them in which the earlier event has the higher predicted risk, one value.
    pub const PAIRS_CONCORDANT: &str = "pairs_concordant";
    /// Those of them in which both have the same predicted risk, one value.
    pub const PAIRS_TIED: &str = "pairs_tied";
    /// For each bin of the calibration curve: rows.
    pub const CALIBRATION_ROWS: &str = "calibration_rows";
    /// For each bin of the calibration curve: sum of the scores.
    pub const CALIBRATION_SCORES: &str = "calibration_scores";
    /// For each bin of the calibration curve: positive rows.
    pub const CALIBRATION_POSITIVES: &str = "calibration_positives";
    /// Of the logistic recalibration logit P = intercept + slope · logit(score) of this site: the information at its own
    /// solution, the upper triangle row by row. Summed, that of the estimate that weighs each site's by its precision.
    pub const RECALIBRATION_INFORMATION: &str = "recalibration_information";
    /// The same information times the solution, intercept first.
    pub const RECALIBRATION_WEIGHTED: &str = "recalibration_weighted";
    /// For each feature: rows in which it is not missing.
    pub const PRESENT: &str = "present";
    /// For each feature: sum of its values.
    pub const SUM: &str = "sum";
    /// For each feature: sum of the squares of its values.
    pub const SUM_OF_SQUARES: &str = "sum_of_squares";
    /// Of a regression, at the coefficients of the round: the gradient of the log likelihood, for each coefficient.
    pub const SCORE: &str = "score";
    /// Of a regression: minus the second derivatives of the log likelihood, the upper triangle row by row.
    pub const INFORMATION: &str = "information";
    /// Of a regression: the log likelihood, one value; of a gaussian one with a variance of 1.
    pub const LOG_LIKELIHOOD: &str = "log_likelihood";
    /// Of a `glm`: the sum of the rows' weights, one value.
    pub const WEIGHTS: &str = "weights";
    /// Of a `glm`: the deviance, one value.
    pub const DEVIANCE: &str = "deviance";
    /// Of a `glm`: Pearson's chi-squared statistic, one value.
    pub const PEARSON: &str = "pearson";
    /// Of `cox`: pairs of rows of this site that the model orders rightly, wrongly, and equally.
    pub const PAIRS: &str = "pairs";
    /// Of `cox`, for each interval of the time grid: events.
    pub const GRID_EVENTS: &str = "grid_events";
    /// Of `cox`, for each interval of the time grid: time under observation, each row's times its relative hazard.
    pub const GRID_EXPOSURE: &str = "grid_exposure";
}

/// Bins of the score histograms.
pub const SCORE_BINS: u64 = 256;
/// Most classes of a label of which score histograms are reported; of more they would fill a document.
const CLASS_CURVES: u64 = 32;
/// Bytes of the row weight at the head of an update.
pub const ROW_WEIGHT_BYTES: u64 = 8;
/// Entries of an update of few bits that are coded together.
pub const CHUNK_ENTRIES: u64 = 1 << 14;
/// Bytes in front of them, which say how long they are.
pub const CHUNK_HEAD_BYTES: u64 = 4;
/// Most bytes of one figure in canonical CBOR: one for the type, eight for the number.
const FIGURE_BYTES: u64 = 9;
/// Most bits of one entry of a figure under masks: the sum over all sites has to fit.
const MASKED_BITS: u64 = masked_bits(32);
/// Who receives what leaves.
const RECEIVER: &str = "coordinator";
/// Who receives a part of a sum, and what of it.
const SUMMED: &str = "coordinator, as a sum over all sites";
/// Who can read an update that makes a model by itself: whoever gets the models before and after.
const ALL: &str = "coordinator and other sites";

/// Figures that a task reports in all its rounds, in order; empty for one that reports none, as `nn_train`, whose tensors
/// leave instead. Those of subgroups come last, code by code.
pub fn figures(plan: &Plan, task: &str) -> Vec<Figure> {
    let mut list = figures_of_whole(plan, task);
    if let Some(subgroups) = subgroups(plan, task) {
        let of = |code: &String, figure: &Figure| Figure {
            name: subgroups.figure(&figure.name, code).into(),
            ..figure.clone()
        };
        let more: Vec<Figure> =
            subgroups.codes.iter().flat_map(|code| list.iter().map(move |figure| of(code, figure))).collect();
        list.extend(more);
    }
    list
}

/// Figures of all rows of a task: those that it reports without those of subgroups.
pub fn figures_of_whole(plan: &Plan, task: &str) -> Vec<Figure> {
    flow_figures(plan, &Flow::of(plan, &mut Problems::default()), task)
}

/// Figures that a task reports in one of its rounds, from 1.
pub fn round_figures(plan: &Plan, task: &str, round: u32) -> Vec<Figure> {
    let mut list = figures(plan, task);
    if let Some(found) = plan.tasks.get(task) {
        list.retain(|figure| is_in_round(&found.component, &figure.name, round));
    }
    list
}

/// Whether a figure leaves in this round. Most tasks have one round, or report the same in each.
///
/// PRIVACY: a site's pairs and grid depend on the coefficients; they leave for those of the fit and for no others.
fn is_in_round(component: &Component, name: &str, round: u32) -> bool {
    let Component::Cox(_) = component else { return true };
    let is_last = round >= component.rounds();
    match name {
        // What the disclosure rules look at in each report.
        figure::N | figure::EVENTS => true,
        figure::PAIRS | figure::GRID_EVENTS | figure::GRID_EXPOSURE => is_last,
        _ => !is_last,
    }
}

fn flow_figures(plan: &Plan, flow: &Flow<'_>, task: &str) -> Vec<Figure> {
    let Some(found) = plan.tasks.get(task) else { return Vec::new() };
    match &found.component {
        Component::Evaluation(evaluation) => {
            let bins = u64::from(evaluation.calibration_bins);
            let calibration = [figure::CALIBRATION_ROWS, figure::CALIBRATION_SCORES, figure::CALIBRATION_POSITIVES];
            let mut list = quality(plan);
            if matches!(plan.data.label.kind(), Ok(LabelKind::YesNo(_))) {
                list.extend(calibration.map(|name| Figure { values: bins, ..metric(name) }));
                list.push(Figure { values: 3, ..metric(figure::RECALIBRATION_INFORMATION) });
                list.push(Figure { values: 2, ..metric(figure::RECALIBRATION_WEIGHTED) });
            }
            list
        }
        Component::LocalBaseline(_) => quality(plan),
        Component::Statistics(_) => {
            let width = flow.width(task);
            let of = |name| Figure { values: width, ..metric(name) };
            vec![
                Figure { kind: EgressKind::N, ..metric(figure::N) },
                of(figure::PRESENT),
                of(figure::SUM),
                of(figure::SUM_OF_SQUARES),
            ]
        }
        Component::Glm(glm) => {
            let mut list = newton(flow.width(task) + u64::from(glm.intercept));
            list.extend([figure::WEIGHTS, figure::DEVIANCE, figure::PEARSON].map(metric));
            if glm.family == Family::Binomial {
                list.push(metric(figure::EVENTS));
            }
            list
        }
        Component::Cox(cox) => {
            let mut list = newton(flow.width(task));
            list.push(metric(figure::EVENTS));
            list.push(Figure { values: 3, ..metric(figure::PAIRS) });
            if let Some(grid) = &cox.time_grid {
                let values = u64::from(grid.intervals);
                list.extend([figure::GRID_EVENTS, figure::GRID_EXPOSURE].map(|name| Figure { values, ..metric(name) }));
            }
            list
        }
        Component::Reader(_)
        | Component::Imputation(_)
        | Component::OneHot(_)
        | Component::DataSplit(_)
        | Component::FeatureScale(_)
        | Component::NnTrain(_) => Vec::new(),
    }
}

/// One value.
fn metric(name: &'static str) -> Figure {
    Figure { name: Cow::Borrowed(name), values: 1, kind: EgressKind::Metrics }
}

/// What Newton's method needs of a site for so many coefficients.
fn newton(coefficients: u64) -> Vec<Figure> {
    vec![
        Figure { kind: EgressKind::N, ..metric(figure::N) },
        Figure { values: coefficients, ..metric(figure::SCORE) },
        Figure { values: triangle(coefficients), ..metric(figure::INFORMATION) },
        Figure { kind: EgressKind::Loss, ..metric(figure::LOG_LIKELIHOOD) },
    ]
}

/// How good a model is on a table, by the kind of the plan's label.
fn quality(plan: &Plan) -> Vec<Figure> {
    let metrics = |name, values| Figure { values, ..metric(name) };
    let loss = Figure { kind: EgressKind::Loss, ..metric(figure::LOSS_SUM) };
    let mut list = vec![Figure { kind: EgressKind::N, ..metric(figure::N) }];
    match plan.data.label.kind() {
        Ok(LabelKind::YesNo(_)) => list.extend([
            metrics(figure::CORRECT, 1),
            loss,
            metrics(figure::BRIER_SUM, 1),
            metrics(figure::CONFUSION, 4),
            metrics(figure::SCORES_POSITIVE, SCORE_BINS),
            metrics(figure::SCORES_NEGATIVE, SCORE_BINS),
        ]),
        Ok(LabelKind::Classes(classes)) => {
            let classes = classes as u64;
            list.extend([metrics(figure::CORRECT, 1), loss, metrics(figure::CLASS_CONFUSION, classes * classes)]);
            if classes <= CLASS_CURVES {
                let histograms = [figure::CLASS_SCORES_POSITIVE, figure::CLASS_SCORES_NEGATIVE];
                list.extend(histograms.map(|name| metrics(name, classes * SCORE_BINS)));
            }
        }
        Ok(LabelKind::Number) => list.extend(
            [figure::ABSOLUTE_ERROR_SUM, figure::SQUARED_ERROR_SUM, figure::LABEL_SUM, figure::LABEL_SQUARE_SUM]
                .map(|name| metrics(name, 1)),
        ),
        Ok(LabelKind::Survival(_)) => list.extend(
            [figure::EVENTS, figure::PAIRS_COMPARABLE, figure::PAIRS_CONCORDANT, figure::PAIRS_TIED]
                .map(|name| metrics(name, 1)),
        ),
        // A plan that passed the check has a kind of label.
        Err(_) => list.clear(),
    }
    list
}

/// Whether a report holds exactly the figures that were announced: each one there with so many finite values or
/// withheld with a reason, and nothing else.
///
/// # Errors
/// What is wrong, in words.
pub fn check_figures(announced: &[Figure], set: &FigureSet) -> Result<(), String> {
    let names: BTreeSet<&str> = announced.iter().map(|f| &*f.name).collect();
    if let Some(extra) = set.sums.keys().chain(set.withheld.keys()).find(|name| !names.contains(name.as_str())) {
        return Err(format!("'{}' was not announced", text::shown(extra, 60)));
    }
    for figure in announced {
        match (set.sums.get(&*figure.name), set.withheld.get(&*figure.name)) {
            (None, None) => return Err(format!("'{}' is missing", figure.name)),
            (Some(_), Some(_)) => return Err(format!("'{}' is there and withheld at once", figure.name)),
            (Some(values), None) if values.len() as u64 != figure.values => {
                return Err(format!("'{}' has {} values instead of {}", figure.name, values.len(), figure.values));
            }
            (Some(values), None) if !values.iter().all(|v| v.is_finite()) => {
                return Err(format!("'{}' holds NaN or infinity", figure.name));
            }
            (None, Some(reason)) => text::check_text(reason)
                .map_err(|wrong| format!("the reason why '{}' is withheld {wrong}", figure.name))?,
            (Some(_), None) => {}
        }
    }
    Ok(())
}

/// Most bits of one entry under masks whose levels have so many: the sum over all sites has to fit.
const fn masked_bits(bits: u8) -> u64 {
    bits as u64 + limits::SECURE_SITES.ilog2() as u64
}

/// What the heads of the chunks of so many entries take.
fn chunk_heads(entries: u64) -> u64 {
    entries.div_ceil(CHUNK_ENTRIES).saturating_mul(CHUNK_HEAD_BYTES)
}

/// What leaves a site in one run, item by item, in the order in which the tasks run.
pub fn egress(plan: &Plan) -> Vec<Egress> {
    let flow = Flow::of(plan, &mut Problems::default());
    order(plan).into_iter().flat_map(|name| task_egress(plan, &flow, name)).collect()
}

fn task_egress(plan: &Plan, flow: &Flow<'_>, name: &str) -> Vec<Egress> {
    let component = &plan.tasks[name].component;
    let times = component.rounds();
    let item = |kind, what: &str, shape: Vec<u64>, bytes| Egress {
        task: name.to_owned(),
        kind,
        name: what.to_owned(),
        shape,
        bytes,
        times,
        to: RECEIVER.to_owned(),
    };
    if let Component::NnTrain(train) = component {
        let to = if train.strategy == (Strategy::Cyclic {}) { ALL } else { RECEIVER };
        let item = |kind, what: &str, shape, bytes| Egress { to: to.to_owned(), ..item(kind, what, shape, bytes) };
        let tensors = update_tensors(train, flow.inputs(name));
        let entries = tensors.iter().map(TensorShape::len).fold(0u64, u64::saturating_add);
        let (entry_bits, heads) = match train.privacy {
            // Entries of few bits are coded: at most this, and what says how long they have become.
            Privacy::Plain {} if train.quantise.bits < 32 => (u64::from(train.quantise.bits), chunk_heads(entries)),
            Privacy::Plain {} => (u64::from(train.quantise.bits), 0),
            // A masked entry is as wide as the sum over all sites: at most this, and a bit more with noise that they share.
            Privacy::SecureAggregation {} => {
                let shares = train.dp.is_some_and(|dp| dp.mode == DpMode::Distributed);
                (masked_bits(train.quantise.bits) + u64::from(shares), 0)
            }
        };
        // PRIVACY: the weight is part of the payload, as every weighted mean needs it: it leaves where updates leave. A
        // number of rows that is told by itself is a figure of kind `n`.
        let weight = item(EgressKind::Update, figure::N, vec![1], ROW_WEIGHT_BYTES.saturating_add(heads));
        let update = tensors.into_iter().map(|tensor| {
            let bytes = tensor.len().saturating_mul(entry_bits).div_ceil(8);
            // PRIVACY: inside a masked sum no site's loss is told.
            let is_told = tensor.name == VALIDATION_LOSS && train.privacy == (Privacy::Plain {});
            let kind = if is_told { EgressKind::Loss } else { EgressKind::Update };
            item(kind, &tensor.name, tensor.shape, bytes)
        });
        return std::iter::once(weight).chain(update).collect();
    }
    let whole = flow_figures(plan, flow, name);
    let is_masked = component.is_masked();
    let line = |f: &Figure, what: &str, shape: Vec<u64>, parts: u64| {
        if !is_masked {
            return item(f.kind, what, shape, f.values.saturating_mul(parts).saturating_mul(FIGURE_BYTES));
        }
        // PRIVACY: inside a masked sum no figure of this site is told: as with an update, what is read is the sum.
        let pieces = Form::of(&f.name).map_or(0, Form::pieces);
        let bits = f.values.saturating_mul(pieces).saturating_mul(MASKED_BITS);
        let bytes = bits.div_ceil(8).saturating_mul(parts);
        Egress { to: SUMMED.to_owned(), ..item(EgressKind::Update, what, shape, bytes) }
    };
    let one = |f: &Figure| {
        let rounds = (1..=times).filter(|round| is_in_round(component, &f.name, *round)).count();
        let times = u32::try_from(rounds).unwrap_or(u32::MAX);
        Egress { times, ..line(f, &f.name, vec![f.values], 1) }
    };
    let mut list: Vec<Egress> = whole.iter().map(one).collect();
    if let Some(subgroups) = subgroups(plan, name) {
        // One line for all codes: a person reads the list.
        let codes = subgroups.codes.len() as u64;
        let named = |f: &Figure| format!("{} by {}", f.name, subgroups.column);
        let each = |f: &Figure| line(f, &named(f), vec![codes, f.values], codes);
        list.extend(whole.iter().map(each));
    }
    if is_masked {
        // Which of them this site holds back: how many sites do is all that is read.
        let flags = figures(plan, name).len() as u64;
        let bytes = flags.saturating_mul(MASKED_BITS).div_ceil(8);
        list.push(Egress { to: SUMMED.to_owned(), ..item(EgressKind::Update, SHOWN, vec![flags], bytes) });
    }
    list
}
