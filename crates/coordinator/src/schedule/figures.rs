//! What the figures of a job's evaluations say, for the card of its model: of each site, and of all together.

use std::collections::BTreeMap;

use hospes_protocol::id::SiteId;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::{self, Plan, SCORE_BINS, Subgroups, figure};
use hospes_protocol::quality::{self, Group, NumberSums};

use crate::models::{CardMetrics, CardSubgroup, FurtherMetrics};
use crate::store::results::FiguresRow;

/// Figures of a model's quality, row by row of the store. `summed`: of each task, how many sites are in its sum; under masks
/// there are no rows of theirs that would tell.
pub(super) fn card(rows: &[FiguresRow], plan: &Plan, summed: &BTreeMap<String, u32>) -> Vec<CardMetrics> {
    let judges = |row: &&FiguresRow| {
        let known = |name| row.figures.sums.contains_key(name) || row.figures.withheld.contains_key(name);
        known(figure::CORRECT) || known(figure::SQUARED_ERROR_SUM) || known(figure::PAIRS_COMPARABLE)
    };
    rows.iter().filter(judges).map(|row| one(row, rows, plan, summed)).collect()
}

/// One row, of a site or of all together, with its subgroups.
fn one(row: &FiguresRow, rows: &[FiguresRow], plan: &Plan, summed: &BTreeMap<String, u32>) -> CardMetrics {
    let names: Vec<String> = plan::figures_of_whole(plan, &row.task).into_iter().map(|f| f.name.into()).collect();
    // What of one site stands for itself, and of all together for the sites that show it.
    let behind: Vec<&FigureSet> = match row.site {
        Some(_) => vec![&row.figures],
        None => {
            let sites = rows.iter().filter(|other| other.task == row.task && other.site.is_some());
            sites.map(|other| &other.figures).collect()
        }
    };
    let whole = cut(&row.figures, &names, |name| name.to_owned());
    let mut found = metrics(row.task.clone(), row.site, &whole);
    if row.site.is_none() && plan::masks::is_masked(plan, &row.task) {
        let sites = summed.get(&row.task).copied().unwrap_or_default();
        found.further.calibration_sites = found.further.calibration_slope.map(|_| sites);
        if let Some(subgroups) = plan::subgroups(plan, &row.task) {
            let of = |code: &String| masked_subgroup(row, &names, subgroups, code, sites);
            found.subgroups = subgroups.codes.iter().map(of).collect();
        }
        return found;
    }
    if row.site.is_none() {
        let own: Vec<FigureSet> = behind.iter().map(|set| cut(set, &names, |name| name.to_owned())).collect();
        found.further.calibrate_together(&own);
    }
    if let Some(subgroups) = plan::subgroups(plan, &row.task) {
        let of = |code: &String| subgroup(row, &behind, &names, subgroups, code);
        found.subgroups = subgroups.codes.iter().map(of).collect();
    }
    found
}

/// A subgroup of the sum of masked figures, which is of all its sites or withheld.
fn masked_subgroup(
    row: &FiguresRow,
    names: &[String],
    subgroups: Subgroups<'_>,
    code: &str,
    sites: u32,
) -> CardSubgroup {
    let set = cut(&row.figures, names, |name| subgroups.figure(name, code));
    let mut metrics = metrics(row.task.clone(), None, &set);
    metrics.further.calibration_sites = metrics.further.calibration_slope.map(|_| sites);
    let sites = if set.sums.is_empty() { 0 } else { sites };
    CardSubgroup { column: subgroups.column.to_owned(), code: code.to_owned(), sites, metrics }
}

fn subgroup(
    row: &FiguresRow,
    behind: &[&FigureSet],
    names: &[String],
    subgroups: Subgroups<'_>,
    code: &str,
) -> CardSubgroup {
    let sets: Vec<FigureSet> = behind.iter().map(|set| cut(set, names, |name| subgroups.figure(name, code))).collect();
    let shown: Vec<FigureSet> = sets.iter().filter(|set| !set.sums.is_empty()).cloned().collect();
    let together = if shown.is_empty() { sum(&sets) } else { sum(&shown) };
    let mut metrics = metrics(row.task.clone(), row.site, &together);
    if row.site.is_none() {
        metrics.further.calibrate_together(&shown);
    }
    let sites = u32::try_from(shown.len()).unwrap_or(u32::MAX);
    CardSubgroup { column: subgroups.column.to_owned(), code: code.to_owned(), sites, metrics }
}

/// The figures of a set that have these names, under the names that they have for all rows.
fn cut(set: &FigureSet, names: &[String], named: impl Fn(&str) -> String) -> FigureSet {
    let all = || names.iter().map(|name| (name, named(name)));
    let sums = all().filter_map(|(name, key)| Some((name.clone(), set.sums.get(&key)?.clone())));
    let withheld = all().filter_map(|(name, key)| Some((name.clone(), set.withheld.get(&key)?.clone())));
    FigureSet { sums: sums.collect(), withheld: withheld.collect() }
}

/// Figures added up, name by name; what one of the sets withholds is withheld.
fn sum(sets: &[FigureSet]) -> FigureSet {
    let withheld: BTreeMap<String, String> = sets.iter().flat_map(|set| set.withheld.clone()).collect();
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, values) in sets.iter().flat_map(|set| &set.sums).filter(|(name, _)| !withheld.contains_key(*name)) {
        let total = sums.entry(name.clone()).or_insert_with(|| vec![0.0; values.len()]);
        total.iter_mut().zip(values).for_each(|(total, value)| *total += value);
    }
    FigureSet { sums, withheld }
}

impl FurtherMetrics {
    /// Slope and intercept of the recalibration over all sites that have one: not every site can, such as one where a
    /// score separates the classes.
    fn calibrate_together(&mut self, sites: &[FigureSet]) {
        let has = |set: &&FigureSet| set.sums.contains_key(figure::RECALIBRATION_WEIGHTED);
        let with: Vec<FigureSet> = sites.iter().filter(has).cloned().collect();
        let without = |set: FigureSet| FigureSet { withheld: BTreeMap::new(), ..set };
        let count = u32::try_from(with.len()).unwrap_or(u32::MAX);
        let found = recalibration(&sum(&with.into_iter().map(without).collect::<Vec<_>>()));
        self.calibrate(found);
        self.calibration_sites = found.map(|_| count);
    }

    fn calibrate(&mut self, found: Option<quality::Recalibration>) {
        self.calibration_slope = found.map(|f| f.slope);
        self.calibration_slope_error = found.map(|f| f.slope_error);
        self.calibration_intercept = found.map(|f| f.intercept);
        self.calibration_intercept_error = found.map(|f| f.intercept_error);
    }
}

fn recalibration(figures: &FigureSet) -> Option<quality::Recalibration> {
    let list = |name: &str| figures.sums.get(name).map(Vec::as_slice);
    let information = list(figure::RECALIBRATION_INFORMATION)?.try_into().ok()?;
    quality::recalibration(information, list(figure::RECALIBRATION_WEIGHTED)?.try_into().ok()?)
}

/// What figures say about how good a model is.
pub(super) fn metrics(task: String, site: Option<SiteId>, figures: &FigureSet) -> CardMetrics {
    let one = |name: &str| figures.sums.get(name).and_then(|values| values.first()).copied();
    let n = one(figure::N);
    let mean = |name: &str| Some(one(name)? / n.filter(|n| *n > 0.0)?);
    let scores = figures.sums.get(figure::SCORES_POSITIVE).zip(figures.sums.get(figure::SCORES_NEGATIVE));
    let auc = scores.and_then(|(positive, negative)| auc(positive, negative));
    CardMetrics {
        task,
        site,
        n,
        accuracy: mean(figure::CORRECT),
        loss: mean(figure::LOSS_SUM),
        brier: mean(figure::BRIER_SUM),
        auc: auc.map(|(value, _)| value),
        auc_bound: auc.map(|(_, bound)| bound),
        further: further(figures),
        withheld: figures.withheld.clone(),
        subgroups: Vec::new(),
    }
}

/// What follows from the sums of one site, or from those of all: the same arithmetic as at the sites.
fn further(figures: &FigureSet) -> FurtherMetrics {
    let list = |name: &str| figures.sums.get(name).map(Vec::as_slice);
    let one = |name: &str| list(name).and_then(|values| values.first()).copied();
    let scores = list(figure::SCORES_POSITIVE).zip(list(figure::SCORES_NEGATIVE));
    let ranking = scores.and_then(|(positive, negative)| {
        // The histograms begin with the lowest score.
        let bins = positive.iter().zip(negative).rev();
        quality::ranking(&bins.map(|(p, n)| Group { positives: *p, negatives: *n }).collect::<Vec<_>>())
    });
    let bins = usize::try_from(SCORE_BINS).unwrap_or(usize::MAX);
    let classes = list(figure::CLASS_SCORES_POSITIVE).zip(list(figure::CLASS_SCORES_NEGATIVE));
    let areas: Vec<Option<(f64, f64)>> = classes.map_or_else(Vec::new, |(positive, negative)| {
        positive.chunks(bins).zip(negative.chunks(bins)).map(|(p, n)| auc(p, n)).collect()
    });
    let numbers =
        [figure::N, figure::ABSOLUTE_ERROR_SUM, figure::SQUARED_ERROR_SUM, figure::LABEL_SUM, figure::LABEL_SQUARE_SUM]
            .map(one);
    let errors = match numbers {
        [Some(rows), Some(absolute), Some(squared), Some(label), Some(label_squared)] => {
            quality::errors(NumberSums { rows, absolute, squared, label, label_squared })
        }
        _ => None,
    };
    let pairs = one(figure::PAIRS_CONCORDANT).zip(one(figure::PAIRS_TIED)).zip(one(figure::PAIRS_COMPARABLE));
    let confusion = list(figure::CLASS_CONFUSION);
    let mut found = FurtherMetrics {
        ks: ranking.as_ref().map(|r| r.ks.value),
        ks_bound: ranking.as_ref().map(|r| r.ks.bound),
        average_precision: ranking.as_ref().map(|r| r.average_precision.value),
        average_precision_bound: ranking.as_ref().map(|r| r.average_precision.bound),
        gains: ranking.iter().flat_map(|r| &r.gains).map(|g| [g.share, g.gain, g.lift]).collect(),
        gain_bound: ranking.as_ref().map(|r| r.gain_bound),
        precision_recall: ranking.iter().flat_map(|r| &r.precision_recall).map(|(r, p)| [*r, *p]).collect(),
        macro_f1: confusion.and_then(|cells| quality::macro_f1(cells, cells.len().isqrt())),
        class_auc: areas.iter().map(|area| area.map(|(value, _)| value)).collect(),
        class_auc_bound: areas.iter().map(|area| area.map(|(_, bound)| bound)).collect(),
        rmse: errors.map(|e| e.rmse),
        mae: errors.map(|e| e.mae),
        r_squared: errors.and_then(|e| e.r_squared),
        c_index: pairs.and_then(|((right, tied), all)| quality::concordance(right, tied, all)),
        ..FurtherMetrics::default()
    };
    found.calibrate(recalibration(figures));
    found
}

/// Area under the ROC curve from counts by score bin, pairs within one bin counting half (Hanley, McNeil 1982, the
/// Wilcoxon statistic), and how far that can be off: half the fraction of pairs within one bin.
fn auc(positive: &[f64], negative: &[f64]) -> Option<(f64, f64)> {
    let pairs = positive.iter().sum::<f64>() * negative.iter().sum::<f64>();
    if pairs <= 0.0 {
        return None;
    }
    let (mut below, mut right, mut tied) = (0.0, 0.0, 0.0);
    for (p, n) in positive.iter().zip(negative) {
        right += p * below;
        tied += p * n;
        below += n;
    }
    Some(((right + tied / 2.0) / pairs, tied / 2.0 / pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_of_bins_equals_the_count_of_pairs() {
        // Positives score in bins 2, 2, 3; negatives in 1, 2: of 6 pairs 4 are right, 2 are tied.
        assert_eq!(auc(&[0.0, 0.0, 2.0, 1.0], &[0.0, 1.0, 1.0, 0.0]), Some((5.0 / 6.0, 1.0 / 6.0)));
        assert_eq!(auc(&[1.0], &[0.0]), None);
    }

    fn sums<const N: usize>(figures: [(&str, Vec<f64>); N]) -> FigureSet {
        let sums = figures.map(|(name, values)| (name.to_owned(), values)).into();
        FigureSet { sums, withheld: std::collections::BTreeMap::new() }
    }

    #[test]
    fn histograms_give_ranking_figures_with_their_bounds() {
        // From the highest bin: 2 positive; 1 and 1; 2 negative.
        let scores = [(figure::SCORES_POSITIVE, vec![0.0, 1.0, 2.0]), (figure::SCORES_NEGATIVE, vec![2.0, 1.0, 0.0])];
        let found = further(&sums(scores));
        assert!((found.ks.unwrap() - 2.0 / 3.0).abs() < 1e-12 && (found.ks_bound.unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert!((found.average_precision.unwrap() - (2.0 / 3.0 + 0.75 / 3.0)).abs() < 1e-12);
        assert!((found.average_precision_bound.unwrap() - 0.25 / 3.0).abs() < 1e-12);
        assert_eq!(
            (found.gains.len(), found.gains[4], found.precision_recall.len()),
            (10, [0.5, 5.0 / 6.0, 5.0 / 3.0], 3)
        );
        assert_eq!(further(&sums([(figure::N, vec![3.0])])), FurtherMetrics::default());
    }

    #[test]
    fn figures_of_other_labels_are_computed_from_their_sums() {
        let number = further(&sums([
            (figure::N, vec![3.0]),
            (figure::ABSOLUTE_ERROR_SUM, vec![2.0]),
            (figure::SQUARED_ERROR_SUM, vec![4.0]),
            (figure::LABEL_SUM, vec![6.0]),
            (figure::LABEL_SQUARE_SUM, vec![14.0]),
        ]));
        assert_eq!((number.mae, number.r_squared), (Some(2.0 / 3.0), Some(-1.0)));
        let survival = further(&sums([
            (figure::PAIRS_COMPARABLE, vec![4.0]),
            (figure::PAIRS_CONCORDANT, vec![2.0]),
            (figure::PAIRS_TIED, vec![1.0]),
        ]));
        assert_eq!(survival.c_index, Some(0.625));
        let bins = |at: usize| (0..256).map(|b| f64::from(u8::from(b == at))).collect::<Vec<f64>>();
        let classes = further(&sums([
            (figure::CLASS_CONFUSION, vec![1.0, 0.0, 0.0, 1.0]),
            (figure::CLASS_SCORES_POSITIVE, [bins(200), bins(9)].concat()),
            (figure::CLASS_SCORES_NEGATIVE, [bins(100), bins(9)].concat()),
        ]));
        assert_eq!((classes.macro_f1, classes.class_auc), (Some(1.0), vec![Some(1.0), Some(0.5)]));
        assert_eq!(classes.class_auc_bound, [Some(0.0), Some(0.5)]);
    }

    const PLAN: &str = r#"
schema: hospes/plan/v1
name: by-sex
data:
  subject: id
  label: { column: y, positive: "> 0" }
  columns: [x]
  variables: { sex: { category: { codes: [f, m] } } }
tasks:
  read: { component: reader }
  train:
    component: nn_train
    inputs: { train: read }
    params:
      model: [{ linear: { out: 1 } }]
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      rounds: 1
      local: { updates: 1, batch: 1 }
      strategy: { fed_avg: {} }
      privacy: { plain: {} }
  eval: { component: evaluation, inputs: { model: train.model, data: read }, params: { subgroup: sex } }
"#;

    /// A report with what is shown of the whole and of the subgroups; everything else is withheld.
    fn report(plan: &Plan, site: Option<u8>, shown: &[(&str, Vec<f64>)]) -> FiguresRow {
        let mut figures = FigureSet { sums: BTreeMap::new(), withheld: BTreeMap::new() };
        for figure in plan::figures(plan, "eval") {
            let name = figure.name.to_string();
            match shown.iter().find(|(shown, _)| *shown == name) {
                Some((_, values)) => drop(figures.sums.insert(name, values.clone())),
                None => drop(figures.withheld.insert(name, "withheld".into())),
            }
        }
        let site = site.map(|n| SiteId::from_bytes([n; 16]));
        FiguresRow { task: "eval".into(), site, figures }
    }

    #[test]
    fn a_subgroup_of_all_sites_is_of_those_that_show_it() {
        let plan = plan::read(PLAN).unwrap_or_else(|e| panic!("{e}"));
        let rows = [
            report(
                &plan,
                Some(1),
                &[
                    ("n", vec![100.0]),
                    ("correct", vec![80.0]),
                    ("n[sex=f]", vec![60.0]),
                    ("correct[sex=f]", vec![51.0]),
                    ("recalibration_information", vec![4.0, 1.0, 9.0]),
                    ("recalibration_weighted", vec![1.7, 8.3]),
                    ("recalibration_information[sex=f]", vec![1.0, 0.0, 1.0]),
                    ("recalibration_weighted[sex=f]", vec![0.5, 2.0]),
                ],
            ),
            report(
                &plan,
                Some(2),
                &[("n", vec![50.0]), ("correct", vec![45.0]), ("n[sex=f]", vec![40.0]), ("correct[sex=f]", vec![39.0])],
            ),
            report(&plan, None, &[("n", vec![150.0]), ("correct", vec![125.0])]),
        ];
        let card = card(&rows, &plan, &BTreeMap::new());
        let [one, two, all] = card.as_slice() else { panic!("{card:?}") };
        assert_eq!((all.accuracy, all.further.calibration_sites), (Some(125.0 / 150.0), Some(1)));
        assert!((all.further.calibration_slope.unwrap() - 0.9).abs() < 1e-12);
        assert_eq!(all.further.calibration_slope, one.further.calibration_slope);
        assert_eq!((one.further.calibration_sites, two.further.calibration_slope), (None, None));
        // What is withheld of the whole is told by its name there, and that of subgroups with the subgroup.
        assert!(all.withheld.contains_key("confusion") && all.withheld.keys().all(|name| !name.contains('[')));
        let [f, m] = all.subgroups.as_slice() else { panic!("{all:?}") };
        assert_eq!((f.column.as_str(), f.code.as_str(), f.sites, f.metrics.n), ("sex", "f", 2, Some(100.0)));
        assert_eq!((f.metrics.accuracy, f.metrics.further.calibration_slope), (Some(0.9), Some(2.0)));
        assert_eq!(f.metrics.further.calibration_sites, Some(1));
        assert_eq!((m.code.as_str(), m.sites, m.metrics.n, m.metrics.accuracy), ("m", 0, None, None));
        assert!(m.metrics.withheld.contains_key("n"));
        assert_eq!(one.subgroups[0].metrics.accuracy, Some(0.85));
        assert_eq!((two.subgroups[0].sites, two.subgroups[1].sites), (1, 0));
    }

    #[test]
    fn of_masked_figures_the_card_says_of_how_many_sites_their_sum_is() {
        let text = PLAN.replace("subgroup: sex }", "subgroup: sex, privacy: { secure_aggregation: {} } }");
        let plan = plan::read(&text).unwrap_or_else(|e| panic!("{e}"));
        let shown = [
            ("n", vec![150.0]),
            ("correct", vec![120.0]),
            ("recalibration_information", vec![4.0, 1.0, 9.0]),
            ("recalibration_weighted", vec![1.7, 8.3]),
            ("n[sex=f]", vec![60.0]),
            ("correct[sex=f]", vec![51.0]),
        ];
        let card = card(&[report(&plan, None, &shown)], &plan, &BTreeMap::from([("eval".to_owned(), 3)]));
        let [all] = card.as_slice() else { panic!("{card:?}") };
        assert_eq!((all.site, all.accuracy, all.further.calibration_sites), (None, Some(0.8), Some(3)));
        let [f, m] = all.subgroups.as_slice() else { panic!("{all:?}") };
        assert_eq!((f.sites, f.metrics.accuracy, m.sites, m.metrics.n), (3, Some(0.85), 0, None));
    }

    #[test]
    fn withheld_figures_leave_their_metrics_out() {
        let sums = [("n".to_owned(), vec![10.0]), ("correct".to_owned(), vec![8.0])].into();
        let withheld = [("loss_sum".to_owned(), "min_cell".to_owned())].into();
        let found = metrics("eval".into(), None, &FigureSet { sums, withheld });
        assert_eq!((found.accuracy, found.loss, found.auc), (Some(0.8), None, None));
        assert_eq!(found.withheld["loss_sum"], "min_cell");
    }
}
