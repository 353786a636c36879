//! Newton's method over rounds: sites send the gradient and the second derivatives of the likelihood at given
//! coefficients, and this takes the next step. For the canonical links of `glm` it is iteratively reweighted least
//! squares (McCullagh, Nelder 1989, section 2.5). What it ends at is the fit on the rows of all sites together.
//!
//! Nothing here reads a file or the time: a [`Newton`] is plain data, kept in the store from round to round, and every
//! report moves it on.

mod fit;
mod solve;
mod tails;

use hospes_protocol::id::SiteId;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::{self, Coefficients, Component, Family, Plan, figure};
use serde::{Deserialize, Serialize};

use super::reduce::Pooled;

pub use fit::{Coefficient, Concordance, Fit, Interval, Ratio};
use solve::Solution;

/// How much a likelihood may fall from one step to the next, relative to its size: sums of many rows are not exact.
const ROUNDING: f64 = 1e-10;
/// The step of the intercept alone, in standard errors, below which the model without features counts as fitted.
const NULL_STEP: f64 = 1e-7;
/// Relative to a coefficient, the most by which what its file says can be off: 48 bits are kept. A step that moves the
/// linear predictor by no more than that of all of them together leads nowhere.
const RESOLUTION: f64 = 1.0 / 140_737_488_355_328.0;
/// By how much of itself a standard error may have changed with the last step of a method that has arrived. Near a maximum
/// it changes by about as much as the linear predictor. Where there is none, each step is one of about 1 in it, and the
/// standard error grows by √e with each, so that in standard errors the steps become as small as one likes. Between the two
/// is what rounding makes of the errors where columns nearly depend on each other.
const SETTLED: f64 = 0.1;
/// Part of the deviance without features that a fit leaves only where the features tell the label exactly.
const EXACT: f64 = 1e-20;
/// How often a step is halved.
const HALVINGS: u32 = 30;
/// How much larger a standard error may become than it was at the start. It grows without end where the outcome is
/// separated by a feature; where events are rare, it grows by the square root of one over their frequency.
const RUNAWAY: f64 = 1e4;
/// Size of a column, the root of a diagonal entry of the information, below which masks, which round each site's sums to
/// multiples of 2^-96, could change that entry by more than 2^-40 of itself: 2^-25.
const SMALLEST: f64 = 1.0 / 33_554_432.0;

/// A `glm` or `cox` task, as far as the coordinator needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Regression {
    /// Name of the task.
    pub task: String,
    /// Its parameters.
    pub component: Component,
    /// Its coefficients.
    pub coefficients: Coefficients,
}

impl Regression {
    /// That of a task; `None` for a task that is no regression.
    pub fn of(plan: &Plan, task: &str) -> Option<Self> {
        let coefficients = Coefficients::of(plan, task)?;
        Some(Self { task: task.to_owned(), component: plan.tasks.get(task)?.component.clone(), coefficients })
    }

    /// Whether it ends with a model that predicts, besides the table of coefficients.
    pub fn makes_model(&self) -> bool {
        matches!(self.component, Component::Glm(_))
    }

    fn newton(&self) -> plan::Newton {
        match &self.component {
            Component::Glm(glm) => glm.newton.clone(),
            Component::Cox(cox) => cox.newton.clone(),
            _ => plan::Newton::default(),
        }
    }

    fn family(&self) -> Option<Family> {
        match &self.component {
            Component::Glm(glm) => Some(glm.family),
            _ => None,
        }
    }

    /// Rounds in which Newton's method may take a step.
    pub fn steps(&self) -> u32 {
        self.newton().rounds
    }
}

/// Where the method stands between two rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Newton {
    /// Sites whose rows are in the fit, in the order of their ids; empty before the first report.
    sites: Vec<SiteId>,
    /// Reports so far.
    rounds: u32,
    stage: Stage,
    /// Where the next report is taken, exactly as its file says it.
    point: Vec<f64>,
    /// The last point at which the likelihood had not fallen, and the step from there.
    base: Option<Base>,
    halvings: u32,
    null: Option<Null>,
    /// Standard errors of the first step with all coefficients.
    start: Vec<f64>,
    /// Those of the last one.
    #[serde(default)]
    errors: Vec<f64>,
    /// The fit that only lacks what leaves once.
    fit: Option<Box<Fit>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// The next report is of a point that belongs to a fit over other sites.
    Restart,
    /// The intercept alone.
    Null,
    /// All coefficients.
    All,
    /// It converged; the next report is of what leaves once, at the coefficients that were found.
    Last,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base {
    point: Vec<f64>,
    log_likelihood: f64,
    step: Vec<f64>,
}

/// The model without features.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Null {
    log_likelihood: f64,
    deviance: Option<f64>,
}

/// What comes after a report.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Another round.
    Round,
    /// It converged; the task's last round asks for what leaves once.
    Last,
    /// It is done.
    Done(Box<Fit>),
}

/// Why there is no fit.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// These sites withheld figures that a fit needs.
    Withheld(Vec<SiteId>),
    /// Other sites reported than before; those that are missing and those that are new. A fit over others would be
    /// another fit. Run again, it begins anew with those that are there.
    Others {
        /// Not there any more.
        missing: Vec<SiteId>,
        /// There for the first time.
        new: Vec<SiteId>,
    },
    /// The data give none, in words.
    Failed(String),
}

/// Sums over all sites at one point.
struct Report<'a> {
    score: &'a [f64],
    information: &'a [f64],
    log_likelihood: f64,
    deviance: Option<f64>,
    is_masked: bool,
    sum: &'a FigureSet,
}

impl Newton {
    /// The beginning: every coefficient is 0.
    pub fn start(coefficients: &Coefficients) -> Self {
        Self {
            sites: Vec::new(),
            rounds: 0,
            stage: Stage::Null,
            point: vec![0.0; coefficients.len()],
            base: None,
            halvings: 0,
            null: None,
            start: Vec::new(),
            errors: Vec::new(),
            fit: None,
        }
    }

    /// Where the next report is taken.
    pub fn point(&self) -> &[f64] {
        &self.point
    }

    /// Whether sums over these sites go on with the fit: each of them is of the same.
    pub fn goes_on_with(&self, sites: &[SiteId]) -> bool {
        let mut sites = sites.to_vec();
        sites.sort_unstable();
        self.sites.is_empty() || self.sites == sites
    }

    /// Takes the sites' reports at [`Newton::point`], and moves it on.
    ///
    /// # Errors
    /// [`Stop`] says why there is no fit. After [`Stop::Others`] this is ready to begin anew.
    pub fn advance(&mut self, regression: &Regression, pooled: &Pooled) -> Result<Next, Stop> {
        if let (Stage::Last, Some(fit)) = (self.stage, &self.fit) {
            return Ok(Next::Done(Box::new(fit.completed(regression, pooled))));
        }
        self.check_sites(pooled)?;
        let report = Report::read(pooled)?;
        self.rounds += 1;
        let next = match self.stage {
            Stage::Restart => {
                self.point = vec![0.0; regression.coefficients.len()];
                self.stage = Stage::Null;
                Next::Round
            }
            Stage::Null if regression.coefficients.intercept => self.null_step(regression, &report)?,
            Stage::Null | Stage::All | Stage::Last => {
                self.note_null(regression, &report)?;
                self.full_step(regression, &report)?
            }
        };
        if !matches!(next, Next::Done(_)) {
            self.settle(regression)?;
        }
        Ok(next)
    }

    /// Why it did not converge in the rounds that there were.
    pub fn unfinished(&self, regression: &Regression) -> String {
        // Of a gaussian model they are known up to the size of a residual only.
        let base = self.base.iter().filter(|_| regression.family() != Some(Family::Gaussian));
        let steps = base.flat_map(|base| base.step.iter().zip(&self.errors).map(|(s, e)| (s / e).abs()));
        let worst = steps.zip(&regression.coefficients.names).max_by(|a, b| a.0.total_cmp(&b.0));
        let detail = worst.map_or_else(String::new, |(step, name)| {
            format!("; the last step moved the coefficient of '{name}' most, by {step:.1e} of its standard errors")
        });
        format!(
            "the fit did not converge in {} rounds{detail}; allow more with newton.rounds, or look whether the outcome is \
             separated by a feature",
            self.rounds
        )
    }

    /// Every report of a fit must be of the same sites, and none may hold back what the fit is made of: only Pearson's
    /// statistic describes it and no more.
    fn check_sites(&mut self, pooled: &Pooled) -> Result<(), Stop> {
        let mut sites: Vec<SiteId> = pooled.sites.iter().map(|(site, _)| *site).collect();
        sites.sort_unstable();
        let known = std::mem::replace(&mut self.sites, sites.clone());
        let without = |all: &[SiteId], but: &[SiteId]| all.iter().filter(|s| !but.contains(s)).copied().collect();
        // A run that begins anew takes whoever is there, which need not be those over whom the last one stopped.
        if !known.is_empty() && known != sites && self.stage != Stage::Restart {
            (self.stage, self.rounds, self.halvings) = (Stage::Restart, 0, 0);
            (self.base, self.null) = (None, None);
            self.start.clear();
            self.errors.clear();
            return Err(Stop::Others { missing: without(&known, &sites), new: without(&sites, &known) });
        }
        let withholds = |set: &FigureSet| set.withheld.keys().any(|name| name != figure::PEARSON);
        let is_held = |set: &Option<FigureSet>| set.as_ref().is_some_and(withholds);
        let withheld: Vec<SiteId> =
            pooled.sites.iter().filter(|(_, set)| is_held(set)).map(|(site, _)| *site).collect();
        if !withheld.is_empty() {
            return Err(Stop::Withheld(withheld));
        }
        // Under masks only the sum says that somebody does.
        let held = pooled.sum.withheld.iter().find(|(name, _)| pooled.is_masked() && *name != figure::PEARSON);
        held.map_or(Ok(()), |(name, words)| Err(Stop::Failed(held_back(name, words))))
    }

    /// Keeps the model without features, once it is fitted.
    fn note_null(&mut self, regression: &Regression, report: &Report<'_>) -> Result<(), Stop> {
        if self.stage != Stage::Null {
            return Ok(());
        }
        if let (Some(Family::Gaussian), Some(deviance)) = (regression.family(), report.deviance) {
            let intercept = if regression.coefficients.intercept { self.point[0] } else { 0.0 };
            // Σwy², of which a label that is the same in all rows leaves what the intercept's file cannot say.
            let squares = report.information[0] * intercept * intercept + deviance;
            if deviance <= 4.0 * RESOLUTION * RESOLUTION * squares {
                return Err(Stop::Failed(one_value(regression)));
            }
        }
        self.null = Some(Null { log_likelihood: report.log_likelihood, deviance: report.deviance });
        self.stage = Stage::All;
        Ok(())
    }

    /// Fits the intercept alone. It is the model that others are compared with, and a start from which Newton's method
    /// converges where it would not from 0, as with counts of a large exposure.
    fn null_step(&mut self, regression: &Regression, report: &Report<'_>) -> Result<Next, Stop> {
        if self.halve(regression, report.log_likelihood)? {
            return Ok(Next::Round);
        }
        let (score, information) = (report.score[0], report.information[0]);
        let events = report.one(figure::EVENTS).filter(|_| regression.family() == Some(Family::Binomial));
        let is_one_value = events.is_some_and(|events| events == 0.0 || Some(events) == report.one(figure::N));
        if is_one_value || information <= 0.0 || !information.is_finite() {
            return Err(Stop::Failed(one_value(regression)));
        }
        let (error, step) = (report.residual(regression) / information.sqrt(), score / information);
        if step.abs() < NULL_STEP * error || step.abs() <= RESOLUTION * self.point[0].abs() {
            self.note_null(regression, report)?;
            return self.full_step(regression, report);
        }
        let first = self.base.is_none();
        let step = match &regression.component {
            Component::Glm(glm) if first && glm.family == Family::Poisson => {
                // At 0 the information is Σw·e^offset, and with the score it is Σwy.
                positive(regression, (score + information) / information)?.ln()
            }
            Component::Glm(glm) if first && glm.family == Family::Binomial && glm.offset.is_none() => {
                // At 0 the information is Σw/4, and the score is Σw(y − 1/2).
                let positives = score / (4.0 * information) + 0.5;
                (positive(regression, positives)? / positive(regression, 1.0 - positives)?).ln()
            }
            _ => step,
        };
        let mut steps = vec![0.0; self.point.len()];
        steps[0] = step;
        self.go(report.log_likelihood, steps);
        Ok(Next::Round)
    }

    fn full_step(&mut self, regression: &Regression, report: &Report<'_>) -> Result<Next, Stop> {
        if self.halve(regression, report.log_likelihood)? {
            return Ok(Next::Round);
        }
        let null = self.null.and_then(|null| null.deviance);
        // Sums of rows are not exact: nothing but their rounding is left.
        let told = report.deviance.zip(null).is_some_and(|(deviance, null)| deviance <= EXACT * null);
        if told && regression.family() == Some(Family::Gaussian) {
            return Err(Stop::Failed(TOLD.to_owned()));
        }
        let solved = solve::solve(report.information, report.score);
        let solution = solved.map_err(|at| self.singular(regression, report, at))?;
        self.check_growth(regression, &solution.errors)?;
        if report.is_masked
            && let Some(at) = solution.sizes.iter().position(|size| *size < SMALLEST)
        {
            return Err(Stop::Failed(too_small(&regression.coefficients.names[at])));
        }
        let tolerance = regression.newton().tolerance * report.residual(regression);
        let has_arrived = self.stands_still(&solution, tolerance);
        let Solution { step, errors, .. } = solution;
        self.errors.clone_from(&errors);
        if has_arrived {
            let estimates: Vec<f64> = self.point.iter().zip(&step).map(|(at, step)| at + step).collect();
            let null = self.null.unwrap_or(Null { log_likelihood: report.log_likelihood, deviance: report.deviance });
            let found = fit::Found { estimates, errors, null, sites: self.sites.clone(), rounds: self.rounds };
            self.point.clone_from(&found.estimates);
            let fit = Box::new(found.table(regression, report.sum).map_err(Stop::Failed)?);
            if regression.component.rounds() == regression.steps() {
                return Ok(Next::Done(fit));
            }
            (self.stage, self.fit) = (Stage::Last, Some(fit));
            return Ok(Next::Last);
        }
        self.go(report.log_likelihood, step);
        Ok(Next::Round)
    }

    /// Why there is no step: the column at this place is a sum of those before it.
    fn singular(&self, regression: &Regression, report: &Report<'_>, at: usize) -> Stop {
        let name = &regression.coefficients.names[at];
        let is_cox = matches!(regression.component, Component::Cox(_));
        if !self.start.is_empty() {
            return Stop::Failed(separated(name));
        }
        if is_cox && report.one(figure::EVENTS) == Some(0.0) {
            return Stop::Failed(NO_EVENT.to_owned());
        }
        let place = if is_cox {
            "whenever a row has the event, all rows of its site that are still observed have the same value of it"
        } else {
            "on the rows of all sites it is constant"
        };
        Stop::Failed(format!(
            "the coefficient of '{name}' cannot be found: {place}, or it is a sum of the others before it; leave it out, \
             or drop one code of its category"
        ))
    }

    /// Takes note of the first standard errors, and looks whether one has run away since.
    fn check_growth(&mut self, regression: &Regression, errors: &[f64]) -> Result<(), Stop> {
        if self.start.is_empty() {
            self.start = errors.to_vec();
        }
        let names = &regression.coefficients.names;
        // With a feature the intercept runs away too, and is not what separates.
        let skipped = usize::from(regression.coefficients.intercept && names.len() > 1);
        let growth = errors.iter().zip(&self.start).map(|(now, start)| now / start);
        let fastest = growth.zip(names).skip(skipped).max_by(|a, b| a.0.total_cmp(&b.0));
        match fastest.filter(|(growth, _)| *growth > RUNAWAY) {
            // Those of a gaussian model do not depend on the coefficients.
            Some((_, name)) if regression.family() != Some(Family::Gaussian) => Err(Stop::Failed(separated(name))),
            _ => Ok(()),
        }
    }

    /// Whether neither the coefficients move any more, by so many standard errors at a residual of 1, nor these themselves.
    fn stands_still(&self, Solution { step, errors, sizes }: &Solution, tolerance: f64) -> bool {
        let predictors: f64 = self.point.iter().zip(sizes).map(|(at, size)| at.abs() * size).sum();
        let longest = tolerance + RESOLUTION * predictors;
        let mut changes = errors.iter().zip(&self.errors).map(|(now, before)| (now / before - 1.0).abs());
        // Before the first step there are none, and nothing tells whether they stay.
        !self.errors.is_empty()
            && step.iter().zip(errors).all(|(step, error)| step.abs() <= longest * error)
            && changes.all(|change| change < SETTLED)
    }

    /// Halves the last step if the likelihood fell by it.
    fn halve(&mut self, regression: &Regression, log_likelihood: f64) -> Result<bool, Stop> {
        let Some(base) = &self.base else { return Ok(false) };
        if log_likelihood >= base.log_likelihood - ROUNDING * (1.0 + base.log_likelihood.abs()) {
            return Ok(false);
        }
        self.halvings += 1;
        if self.halvings > HALVINGS {
            let reason = format!(
                "no step of '{}' makes the likelihood larger; the features may differ too much in size: scale them",
                regression.task
            );
            return Err(Stop::Failed(reason));
        }
        let part = 0.5f64.powi(i32::try_from(self.halvings).unwrap_or(i32::MAX));
        self.point = base.point.iter().zip(&base.step).map(|(at, step)| at + part * step).collect();
        Ok(true)
    }

    fn go(&mut self, log_likelihood: f64, step: Vec<f64>) {
        let next = self.point.iter().zip(&step).map(|(at, step)| at + step).collect();
        let point = std::mem::replace(&mut self.point, next);
        self.base = Some(Base { point, log_likelihood, step });
        self.halvings = 0;
    }

    /// Makes the point what its file can say, so that the next report is of this very point.
    fn settle(&mut self, regression: &Regression) -> Result<(), Stop> {
        let coefficients = &regression.coefficients;
        let settled = coefficients.from_file(&coefficients.file_values(&self.point)).unwrap_or_default();
        if !settled.iter().all(|value| value.is_finite()) || settled.len() != self.point.len() {
            return Err(Stop::Failed("the coefficients grew beyond all numbers; scale the features".to_owned()));
        }
        self.point = settled;
        Ok(())
    }
}

const NO_EVENT: &str = "no row of any site has the event, so there is nothing to fit";
const TOLD: &str = "the features tell the label exactly, so that nothing is left to estimate errors from; leave out the \
                    one that the label was computed from";

fn too_small(name: &str) -> String {
    format!("the values of '{name}' are too small for sums under masks; scale it, or give it in another unit")
}

fn held_back(name: &str, words: &str) -> String {
    format!(
        "'{name}' is {words}, and under masks nobody but these knows which; leave out features with rare values, scale \
         large ones, or run it without the sites that hold the sums back"
    )
}

fn one_value(regression: &Regression) -> String {
    let offset = match &regression.component {
        Component::Glm(glm) if glm.offset.is_some() && glm.family == Family::Gaussian => " less its offset",
        _ => "",
    };
    format!("the label{offset} is the same in all rows, so there is nothing to fit")
}

fn positive(regression: &Regression, value: f64) -> Result<f64, Stop> {
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err(Stop::Failed(one_value(regression))) }
}

fn separated(name: &str) -> String {
    format!(
        "the coefficient of '{name}' grows without end: the outcome is separated by it, alone or with others, so that no \
         finite one fits best; leave it out, or put its rare codes together"
    )
}

impl<'a> Report<'a> {
    fn read(pooled: &'a Pooled) -> Result<Self, Stop> {
        let sum = &pooled.sum;
        let missing = |name: &str| Stop::Failed(format!("the sum of '{name}' over the sites is no number"));
        let values = |name: &str| sum.sums.get(name).map(Vec::as_slice).ok_or_else(|| missing(name));
        let one = |name: &str| sum.sums.get(name).and_then(|values| values.first()).copied();
        let report = Self {
            score: values(figure::SCORE)?,
            information: values(figure::INFORMATION)?,
            log_likelihood: one(figure::LOG_LIKELIHOOD).ok_or_else(|| missing(figure::LOG_LIKELIHOOD))?,
            deviance: one(figure::DEVIANCE),
            is_masked: pooled.is_masked(),
            sum,
        };
        let entries = plan::triangle(report.score.len() as u64);
        if report.score.is_empty() || report.information.len() as u64 != entries {
            return Err(missing(figure::INFORMATION));
        }
        Ok(report)
    }

    fn one(&self, name: &str) -> Option<f64> {
        self.sum.sums.get(name).and_then(|values| values.first()).copied()
    }

    /// Size of a residual, by which standard errors are multiplied: sites compute with 1, and that of a gaussian model is in
    /// the unit of its label.
    fn residual(&self, regression: &Regression) -> f64 {
        match (regression.family(), self.deviance, self.one(figure::N)) {
            (Some(Family::Gaussian), Some(deviance), Some(n)) if n > 0.0 => (deviance / n).sqrt(),
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests;
