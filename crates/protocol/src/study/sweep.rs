//! A sweep: one study that runs its plan with many settings, each once, and keeps the best.
//!
//! A setting gives numbers for places of the plan; everything else is as in the plan. What the site's people sign follows
//! from it: the range of each number, the digest of each run's plan, as many runs as there are settings.
//!
//! PRIVACY: a sweep looks at the same rows again and again, so that two of its reports can be compared. It may vary how
//! a model is trained and nothing else: never which rows are read, never the threshold at which one model is judged.
//! And no result may be the same in two runs, since a second copy would tell only what changed in the data between them.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::{Study, TermsError};
use crate::approval::{Computation, Range};
use crate::canon::{CanonError, Canonical};
use crate::id::Digest;
use crate::plan::{self, Egress, LabelKind, Plan, Problem};

/// The settings with which a study's plan is run, and by which figure the best of them is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// One run each: numbers by place in the plan, the same places in each.
    pub settings: Vec<Setting>,
    /// Which run is the best.
    pub rank: Rank,
    /// Runs that are wanted at a time.
    pub parallel: u32,
}

/// Numbers by place in the plan, such as `tasks.train.params.optimizer.sgd.lr`. Counts and seeds are whole.
pub type Setting = BTreeMap<String, f64>;

/// Which run of a sweep is the best.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rank {
    /// Evaluation whose figure decides.
    pub task: String,
    /// The figure, over all sites together.
    pub metric: Metric,
    /// Whether the best is the highest or the lowest.
    pub direction: Direction,
}

/// A figure of an evaluation by which models are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Rows predicted rightly, as a fraction.
    Accuracy,
    /// Area under the ROC curve.
    Auc,
    /// Mean of (score − label)².
    Brier,
    /// Mean loss.
    Loss,
    /// Average precision.
    AveragePrecision,
    /// Mean F1 over the classes.
    MacroF1,
    /// Root of the mean squared error.
    Rmse,
    /// Mean absolute error.
    Mae,
    /// Part of the label's variance that is explained.
    RSquared,
    /// Harrell's C, over pairs of rows of the same site.
    CIndex,
}

impl Metric {
    const ALL: [Self; 10] = [
        Self::Accuracy,
        Self::Auc,
        Self::Brier,
        Self::Loss,
        Self::AveragePrecision,
        Self::MacroF1,
        Self::Rmse,
        Self::Mae,
        Self::RSquared,
        Self::CIndex,
    ];

    /// The figures by which models of a kind of label can be ranked, the usual one first.
    pub fn of(kind: LabelKind) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |metric| metric.is_of(kind))
    }

    fn is_of(self, kind: LabelKind) -> bool {
        match self {
            Self::Accuracy | Self::Loss => matches!(kind, LabelKind::YesNo(_) | LabelKind::Classes(_)),
            Self::Auc | Self::Brier | Self::AveragePrecision => matches!(kind, LabelKind::YesNo(_)),
            Self::MacroF1 => matches!(kind, LabelKind::Classes(_)),
            Self::Rmse | Self::Mae | Self::RSquared => matches!(kind, LabelKind::Number),
            Self::CIndex => matches!(kind, LabelKind::Survival(_)),
        }
    }

    /// Its word, as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Auc => "auc",
            Self::Brier => "brier",
            Self::Loss => "loss",
            Self::AveragePrecision => "average_precision",
            Self::MacroF1 => "macro_f1",
            Self::Rmse => "rmse",
            Self::Mae => "mae",
            Self::RSquared => "r_squared",
            Self::CIndex => "c_index",
        }
    }

    /// Where better models lie.
    pub fn direction(self) -> Direction {
        match self {
            Self::Accuracy | Self::Auc | Self::AveragePrecision | Self::MacroF1 | Self::RSquared | Self::CIndex => {
                Direction::Highest
            }
            Self::Brier | Self::Loss | Self::Rmse | Self::Mae => Direction::Lowest,
        }
    }
}

/// Where the best lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The highest figure is the best.
    Highest,
    /// The lowest figure is the best.
    Lowest,
}

impl Direction {
    /// Its word, as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Highest => "highest",
            Self::Lowest => "lowest",
        }
    }
}

/// A sweep as a researcher writes it: either `grid` or `settings`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    /// Values by place in the plan, such as `tasks.train.params.optimizer.sgd.lr`; every combination is one setting.
    #[serde(default)]
    pub grid: BTreeMap<String, Vec<f64>>,
    /// One setting each: a number for every place, the same places in all.
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// Which run is the best.
    pub rank: RankFile,
    /// Runs that are wanted at a time; one, if it is left out.
    #[serde(default = "one")]
    pub parallel: u32,
}

/// Which run of a sweep is the best, as a researcher writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RankFile {
    /// Evaluation whose figure decides.
    pub task: String,
    /// The figure, over all sites together. If it is left out: accuracy, of a number rmse, of a time to an event c_index.
    #[serde(default)]
    pub metric: Option<Metric>,
    /// Whether the best is the highest or the lowest; it follows from the figure.
    #[serde(default)]
    pub direction: Option<Direction>,
}

pub(super) fn problem(place: &str, reason: &str) -> Problem {
    Problem { place: place.into(), reason: reason.into() }
}

fn one() -> u32 {
    1
}

impl Sweep {
    /// The smallest and the largest number of each place.
    pub fn ranges(&self) -> BTreeMap<String, Range> {
        let mut ranges: BTreeMap<String, Range> = BTreeMap::new();
        for (place, value) in self.settings.iter().flatten() {
            let range = ranges.entry(place.clone()).or_insert(Range { min: *value, max: *value });
            range.min = range.min.min(*value);
            range.max = range.max.max(*value);
        }
        ranges
    }

    /// Number of settings.
    pub fn len(&self) -> u32 {
        u32::try_from(self.settings.len()).unwrap_or(u32::MAX)
    }

    /// Whether there are none, which no sweep that was checked has.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    /// The plans of its settings, in their order.
    ///
    /// # Errors
    /// [`TermsError`] lists what does not fit the plan.
    pub fn plans(&self, plan: &Plan) -> Result<Vec<Canonical<Plan>>, TermsError> {
        self.check(plan).map_err(|problems| TermsError { problems })
    }

    /// The plan of one setting.
    ///
    /// # Errors
    /// What is wrong with it, place by place; a sweep that was checked with this plan has none.
    fn plan(&self, plan: &Plan, setting: &Setting) -> Result<Canonical<Plan>, Vec<Problem>> {
        apply(plan, setting).and_then(canonical)
    }
}

/// A plan with other numbers at some places, checked.
pub(super) fn apply(plan: &Plan, setting: &Setting) -> Result<Plan, Vec<Problem>> {
    let wrong = |reason: String| vec![problem("", &reason)];
    let mut tree = serde_json::to_value(plan).map_err(|e| wrong(e.to_string()))?;
    for (place, value) in setting {
        put(&mut tree, place, *value).map_err(|reason| vec![problem(place, &reason)])?;
    }
    let run: Plan = serde_json::from_value(tree).map_err(|e| wrong(e.to_string()))?;
    plan::check(&run).map_err(|error| error.problems)?;
    Ok(run)
}

pub(super) fn canonical(run: Plan) -> Result<Canonical<Plan>, Vec<Problem>> {
    Canonical::new(run).map_err(|e: CanonError| vec![problem("", &e.to_string())])
}

/// Puts a number in the place of another one of the same kind.
fn put(tree: &mut Value, place: &str, value: f64) -> Result<(), String> {
    let leaf = place.split('.').try_fold(tree, |tree, key| match tree {
        Value::Object(fields) => fields.get_mut(key),
        Value::Array(items) => key.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
        _ => None,
    });
    let Some(leaf @ Value::Number(_)) = leaf else {
        return Err("is no number in the plan; write the number there that the sweep starts from".to_owned());
    };
    *leaf = if leaf.is_f64() {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| format!("is {value}; it must be a finite number"))?
    } else {
        whole(value).map(Value::from).ok_or_else(|| format!("is {value}; it must be a whole number from 0 on"))?
    };
    Ok(())
}

/// A number that counts something, exactly.
fn whole(value: f64) -> Option<u64> {
    // 2^53: up to there a float holds every whole number.
    let exact = (0.0..=9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked in the line above")]
    exact.then_some(value as u64)
}

impl Study {
    /// Plans of its runs: one for each setting of a sweep, in their order, else the plan itself.
    ///
    /// # Errors
    /// [`TermsError`] lists what is wrong with a sweep that does not fit its plan.
    pub fn runs(&self) -> Result<Vec<Canonical<Plan>>, TermsError> {
        match &self.sweep {
            None => Ok(vec![self.plan.clone()]),
            Some(sweep) => sweep.plans(&self.plan),
        }
    }

    /// Plan of one run; `setting` counts from 1 and is `None` for a study without a sweep.
    ///
    /// # Errors
    /// [`TermsError`] if there is no such setting, or its plan is not valid.
    pub fn run(&self, setting: Option<u32>) -> Result<Canonical<Plan>, TermsError> {
        let none = |what: &str| TermsError { problems: vec![problem("sweep", what)] };
        match (&self.sweep, setting) {
            (None, None) => Ok(self.plan.clone()),
            (Some(sweep), Some(number)) => {
                let index = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
                let setting = index.and_then(|i| sweep.settings.get(i));
                let setting = setting.ok_or_else(|| none("has no such setting"))?;
                sweep.plan(&self.plan, setting).map_err(|problems| TermsError { problems })
            }
            (None, Some(_)) => Err(none("is missing")),
            (Some(_), None) => Err(none("is run setting by setting")),
        }
    }

    /// What an approval of exactly this study allows: its plan once, or each setting of its sweep.
    ///
    /// # Errors
    /// [`TermsError`] lists what is wrong with a sweep that does not fit its plan.
    pub fn computation(&self) -> Result<Computation, TermsError> {
        let (ranges, max_runs, settings) = match &self.sweep {
            None => (BTreeMap::new(), 1, BTreeSet::new()),
            Some(sweep) => {
                let digests: BTreeSet<Digest> = self.runs()?.iter().map(Canonical::digest).collect();
                (sweep.ranges(), sweep.len(), digests)
            }
        };
        Ok(Computation { plan: self.plan.clone(), ranges, max_runs, settings })
    }

    /// What leaves a site in one run, whichever of its runs it is: of each item the most times.
    ///
    /// # Errors
    /// [`TermsError`] lists what is wrong with a sweep that does not fit its plan.
    pub fn egress(&self) -> Result<Vec<Egress>, TermsError> {
        Ok(gather(&self.runs()?, u32::max))
    }
}

/// What leaves a site when all these plans run: of each item all its times.
pub fn egress_in_all(plans: &[Canonical<Plan>]) -> Vec<Egress> {
    gather(plans, u32::saturating_add)
}

/// The items of several plans, each once, in the order in which they first come.
fn gather(plans: &[Canonical<Plan>], times: fn(u32, u32) -> u32) -> Vec<Egress> {
    let mut found: Vec<Egress> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for item in plans.iter().flat_map(|plan| plan::egress(plan)) {
        let Egress { task, kind, name, shape, bytes, times: _, to } = &item;
        let key = format!("{task}\0{kind:?}\0{name}\0{shape:?}\0{bytes}\0{to}");
        match places.get(&key) {
            Some(at) => found[*at].times = times(found[*at].times, item.times),
            None => {
                places.insert(key, found.len());
                found.push(item);
            }
        }
    }
    found
}
