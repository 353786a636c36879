//! The table of a fit, as it is published: estimates with their errors, and how well the model fits.

use hospes_protocol::id::SiteId;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::{Component, Cox, Family, Glm, figure};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Null, Pooled, Regression, tails};

/// A fitted regression. Its numbers are those of the fit on the rows of all sites together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// Task of the plan.
    pub task: String,
    /// `gaussian`, `binomial`, `poisson` or `cox`.
    pub family: String,
    /// Sites whose rows are in it.
    #[schema(value_type = Vec<String>)]
    pub sites: Vec<SiteId>,
    /// Rows.
    pub n: f64,
    /// Rows with the event (binomial, cox).
    pub events: Option<f64>,
    /// Coefficients: the intercept first, then the features in the plan's order.
    pub coefficients: Vec<Coefficient>,
    /// `z`, or `t` where the dispersion is estimated.
    pub statistic: String,
    /// Level of the confidence intervals.
    pub confidence: f64,
    /// Log likelihood; of cox the partial one.
    pub log_likelihood: f64,
    /// Log likelihood of the model with the intercept only; of cox without coefficients.
    pub null_log_likelihood: f64,
    /// −2·log likelihood + 2·parameters; a gaussian model has the variance as one more, as in R.
    pub aic: f64,
    /// Deviance (not of cox).
    pub deviance: Option<f64>,
    /// Deviance of the model with the intercept only.
    pub null_deviance: Option<f64>,
    /// Pearson's chi-squared statistic (not of cox); left out where a site withheld it.
    pub pearson: Option<f64>,
    /// Dispersion: of a gaussian model estimated, else 1 (not of cox).
    pub dispersion: Option<f64>,
    /// Rows less coefficients (not of cox).
    pub residual_degrees: Option<f64>,
    /// Harrell's C, over pairs of rows of the same site (cox); left out where the sites of its last round were others.
    pub concordance: Option<Concordance>,
    /// Baseline hazard on the plan's time grid; left out where a site withheld it or the plan has no grid.
    pub baseline: Vec<Interval>,
    /// Rounds that the method took.
    pub iterations: u32,
    /// Whether the last step was below the plan's tolerance, and the standard errors had settled.
    pub converged: bool,
}

/// One coefficient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Coefficient {
    /// `(intercept)` or the feature.
    pub name: String,
    /// Estimate.
    pub estimate: f64,
    /// Standard error.
    pub error: f64,
    /// Estimate over standard error.
    pub statistic: f64,
    /// Two-sided p value of its being 0.
    pub p: f64,
    /// Lower end of the confidence interval.
    pub low: f64,
    /// Upper end of the confidence interval.
    pub high: f64,
    /// The effect as a ratio, with its interval (not of gaussian models and intercepts).
    pub ratio: Option<Ratio>,
}

/// An effect as a ratio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// `odds`, `rate` or `hazard`.
    pub of: String,
    /// e to the estimate; none where that is too large to be a number, as of a feature in very small units.
    pub value: Option<f64>,
    /// Lower end; none where it is too large.
    pub low: Option<f64>,
    /// Upper end; none where it is too large.
    pub high: Option<f64>,
}

impl Ratio {
    fn new(of: &str, estimate: f64, low: f64, high: f64) -> Self {
        let ratio = |log: f64| Some(log.exp()).filter(|ratio| ratio.is_finite());
        Self { of: of.to_owned(), value: ratio(estimate), low: ratio(low), high: ratio(high) }
    }
}

/// How often the model orders a pair of rows as what happened did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Concordance {
    /// (concordant + tied/2) / all pairs.
    pub index: f64,
    /// Pairs ordered rightly.
    pub concordant: f64,
    /// Pairs ordered wrongly.
    pub discordant: f64,
    /// Pairs that the model gives the same hazard.
    pub tied: f64,
}

/// The baseline in one interval of time: of a row whose features are all 0, over the sites together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// After this time.
    pub from: f64,
    /// Up to this time.
    pub to: f64,
    /// Events.
    pub events: f64,
    /// Events for each unit of time under observation; none where nobody was observed.
    pub hazard: Option<f64>,
    /// Probability of no event up to the end of the interval.
    pub survival: Option<f64>,
}

/// Where Newton's method ended.
pub(super) struct Found {
    pub(super) estimates: Vec<f64>,
    /// Standard errors at a dispersion of 1.
    pub(super) errors: Vec<f64>,
    pub(super) null: Null,
    pub(super) sites: Vec<SiteId>,
    pub(super) rounds: u32,
}

impl Found {
    /// The table of the fit.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn table(self, regression: &Regression, sum: &FigureSet) -> Result<Fit, String> {
        let fit = match &regression.component {
            Component::Glm(glm) => self.glm_table(regression, glm, sum)?,
            Component::Cox(cox) => self.cox_table(regression, cox, sum)?,
            _ => return Err(format!("'{}' is no regression", regression.task)),
        };
        // What is no number has no form in the store, and could not be read again.
        match fit.first_that_is_none() {
            Some(what) => Err(format!("the fit gives no number for {what}")),
            None => Ok(fit),
        }
    }

    fn glm_table(self, regression: &Regression, glm: &Glm, sum: &FigureSet) -> Result<Fit, String> {
        let (n, deviance) = (one(sum, figure::N)?, one(sum, figure::DEVIANCE)?);
        let parameters = count(self.estimates.len());
        let degrees = n - parameters;
        if degrees <= 0.0 {
            return Err(format!("{parameters} coefficients cannot be fitted on {n} rows"));
        }
        let gaussian = glm.family == Family::Gaussian;
        // Of a gaussian model the deviance is Pearson's statistic.
        let dispersion = if gaussian { deviance / degrees } else { 1.0 };
        let sent = one(sum, figure::LOG_LIKELIHOOD)?;
        // The variance that fits best takes the place of the 1 with which the sites compute.
        let of = |sent: f64, deviance: f64| match glm.family {
            Family::Gaussian => {
                let two_pi = (2.0 * std::f64::consts::PI).ln();
                sent + 0.5 * (deviance + n * two_pi) - 0.5 * n * (two_pi + (deviance / n).ln() + 1.0)
            }
            Family::Binomial | Family::Poisson => sent,
        };
        let log_likelihood = of(sent, deviance);
        let null_deviance = self.null.deviance.unwrap_or(deviance);
        let null_log_likelihood = of(self.null.log_likelihood, null_deviance);
        let tail =
            |statistic: f64| if gaussian { tails::student(statistic, degrees) } else { tails::normal(statistic) };
        let (family, ratio) = match glm.family {
            Family::Gaussian => ("gaussian", None),
            Family::Binomial => ("binomial", Some("odds")),
            Family::Poisson => ("poisson", Some("rate")),
        };
        let variance_too = if gaussian { 1.0 } else { 0.0 };
        Ok(Fit {
            coefficients: self.coefficients(regression, dispersion.sqrt(), &tail, glm.confidence, ratio),
            statistic: (if gaussian { "t" } else { "z" }).to_owned(),
            log_likelihood,
            null_log_likelihood,
            aic: -2.0 * log_likelihood + 2.0 * (parameters + variance_too),
            deviance: Some(deviance),
            null_deviance: Some(null_deviance),
            pearson: one(sum, figure::PEARSON).ok(),
            dispersion: Some(dispersion),
            residual_degrees: Some(degrees),
            events: one(sum, figure::EVENTS).ok(),
            ..self.head(regression, family, n, glm.confidence)
        })
    }

    fn cox_table(self, regression: &Regression, cox: &Cox, sum: &FigureSet) -> Result<Fit, String> {
        let (n, events) = (one(sum, figure::N)?, one(sum, figure::EVENTS)?);
        let log_likelihood = one(sum, figure::LOG_LIKELIHOOD)?;
        Ok(Fit {
            coefficients: self.coefficients(regression, 1.0, &tails::normal, cox.confidence, Some("hazard")),
            log_likelihood,
            null_log_likelihood: self.null.log_likelihood,
            aic: -2.0 * log_likelihood + 2.0 * count(self.estimates.len()),
            events: Some(events),
            ..self.head(regression, "cox", n, cox.confidence)
        })
    }

    /// What both tables begin with.
    fn head(&self, regression: &Regression, family: &str, n: f64, confidence: f64) -> Fit {
        Fit {
            task: regression.task.clone(),
            family: family.to_owned(),
            sites: self.sites.clone(),
            n,
            events: None,
            coefficients: Vec::new(),
            statistic: "z".to_owned(),
            confidence,
            log_likelihood: 0.0,
            null_log_likelihood: 0.0,
            aic: 0.0,
            deviance: None,
            null_deviance: None,
            pearson: None,
            dispersion: None,
            residual_degrees: None,
            concordance: None,
            baseline: Vec::new(),
            iterations: self.rounds,
            converged: true,
        }
    }

    fn coefficients(
        &self,
        regression: &Regression,
        spread: f64,
        tail: &dyn Fn(f64) -> f64,
        confidence: f64,
        ratio: Option<&str>,
    ) -> Vec<Coefficient> {
        let reach = tails::quantile(tail, 1.0 - confidence);
        let names = regression.coefficients.names.iter().enumerate();
        let one = |((index, name), (estimate, error)): ((usize, &String), (&f64, &f64))| {
            let error = error * spread;
            let (low, high) = (estimate - reach * error, estimate + reach * error);
            let is_feature = index >= usize::from(regression.coefficients.intercept);
            let of = |of: &str| Ratio::new(of, *estimate, low, high);
            let statistic = estimate / error;
            Coefficient {
                name: name.clone(),
                estimate: *estimate,
                error,
                statistic,
                p: tail(statistic),
                low,
                high,
                ratio: ratio.filter(|_| is_feature).map(of),
            }
        };
        names.zip(self.estimates.iter().zip(&self.errors)).map(one).collect()
    }
}

impl Fit {
    /// The first of its numbers that is infinite or NaN, in words.
    fn first_that_is_none(&self) -> Option<String> {
        let whole = [
            ("n", Some(self.n)),
            ("events", self.events),
            ("the log likelihood", Some(self.log_likelihood)),
            ("the log likelihood without features", Some(self.null_log_likelihood)),
            ("AIC", Some(self.aic)),
            ("the deviance", self.deviance),
            ("the deviance without features", self.null_deviance),
            ("Pearson's statistic", self.pearson),
            ("the dispersion", self.dispersion),
        ];
        let is_none = |value: f64| !value.is_finite();
        if let Some((what, _)) = whole.into_iter().find(|(_, value)| value.is_some_and(is_none)) {
            return Some(what.to_owned());
        }
        let numbers = |c: &Coefficient| [c.estimate, c.error, c.statistic, c.p, c.low, c.high];
        let coefficient = self.coefficients.iter().find(|c| numbers(c).into_iter().any(is_none))?;
        Some(format!("the coefficient of '{}'", coefficient.name))
    }

    /// The fit with what its last round gave. Of other sites than its own it takes nothing.
    pub(super) fn completed(&self, regression: &Regression, pooled: &Pooled) -> Self {
        let mut fit = self.clone();
        let mut sites: Vec<SiteId> = pooled.sites.iter().map(|(site, _)| *site).collect();
        sites.sort_unstable();
        if let (Component::Cox(cox), true) = (&regression.component, sites == fit.sites) {
            fit.concordance = concordance(&pooled.sum);
            fit.baseline = baseline(cox, &pooled.sum);
        }
        fit
    }
}

fn concordance(sum: &FigureSet) -> Option<Concordance> {
    match sum.sums.get(figure::PAIRS).map(Vec::as_slice) {
        Some([concordant, discordant, tied]) if concordant + discordant + tied > 0.0 => Some(Concordance {
            index: (concordant + tied / 2.0) / (concordant + discordant + tied),
            concordant: *concordant,
            discordant: *discordant,
            tied: *tied,
        }),
        _ => None,
    }
}

/// Hazards that are constant within each interval: events over exposure (Breslow 1974 on a grid).
fn baseline(cox: &Cox, sum: &FigureSet) -> Vec<Interval> {
    let (Some(grid), Some(events), Some(exposure)) =
        (&cox.time_grid, sum.sums.get(figure::GRID_EVENTS), sum.sums.get(figure::GRID_EXPOSURE))
    else {
        return Vec::new();
    };
    let mut cumulative = Some(0.0);
    let intervals = events.iter().zip(exposure).enumerate().map(|(index, (events, exposure))| {
        let hazard = (*exposure > 0.0).then(|| events / exposure);
        cumulative = cumulative.zip(hazard).map(|(sum, hazard)| sum + hazard * grid.width);
        Interval {
            from: count(index) * grid.width,
            to: count(index + 1) * grid.width,
            events: *events,
            hazard,
            survival: cumulative.map(|sum: f64| (-sum).exp()),
        }
    });
    intervals.collect()
}

fn one(sum: &FigureSet, name: &str) -> Result<f64, String> {
    let found = sum.sums.get(name).and_then(|values| values.first()).copied();
    found.ok_or_else(|| format!("the sum of '{name}' over the sites is no number"))
}

#[expect(clippy::cast_precision_loss, reason = "numbers of coefficients and intervals lie far below 2^53")]
fn count(number: usize) -> f64 {
    number as f64
}
