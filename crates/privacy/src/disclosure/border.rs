//! The rules that concern figures, applied to a report before it leaves.
//!
//! Under a policy that protects counts (`min_cell` above 1) the figures of a report are compared with each other by
//! whoever receives them: a histogram less a count at a threshold is a smaller count. So only one group of figures can
//! leave, and whatever keeps it here keeps everything but the number of rows, always in the same words: that only one
//! class is present, or that one count is small, is itself something that must not leave.

use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::figure;
use hospes_protocol::policy::Disclosure;

use super::{count_allowed, share_allowed};

/// Why a figure is withheld, whatever the rule.
pub const WITHHELD: &str = "withheld by a disclosure rule of the site";

/// Figures that leave under a policy that protects counts. Those by score do not: they could be compared with the counts
/// at the threshold. What is not named here stays.
const SHOWN: &[&str] = &[
    figure::N,
    figure::CORRECT,
    figure::LOSS_SUM,
    figure::BRIER_SUM,
    figure::CONFUSION,
    figure::CLASS_CONFUSION,
    figure::ABSOLUTE_ERROR_SUM,
    figure::SQUARED_ERROR_SUM,
    figure::LABEL_SUM,
    figure::LABEL_SQUARE_SUM,
    figure::EVENTS,
    figure::PAIRS_COMPARABLE,
    figure::PAIRS_CONCORDANT,
    figure::PAIRS_TIED,
    figure::RECALIBRATION_INFORMATION,
    figure::RECALIBRATION_WEIGHTED,
    figure::PRESENT,
    figure::SUM,
    figure::SUM_OF_SQUARES,
    figure::SCORE,
    figure::INFORMATION,
    figure::LOG_LIKELIHOOD,
    figure::WEIGHTS,
    figure::DEVIANCE,
    figure::PEARSON,
    figure::PAIRS,
    figure::GRID_EVENTS,
    figure::GRID_EXPOSURE,
];

/// The table that a report is about, as the site counted it.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// Distinct subjects in it.
    pub subjects: u64,
    /// Whether [`subset_allowed`](super::subset_allowed) holds for it and for all that its figures depend on.
    pub parts_allowed: bool,
    /// Rows by value, for each feature, and label that is a number, that takes few values.
    pub levels: &'a [Vec<u64>],
}

/// The report as it may leave.
///
/// - Everything is withheld about fewer than `min_subset` subjects, about a part of the data that sets a smaller part
///   apart, about a small number of rows, and about a table in which a subject has several rows: counts of rows would
///   hide how few people they are of.
/// - Score histograms and calibration bins are always withheld, because they can be compared with the confusion counts,
///   and so is every figure that this function does not know.
/// - Everything but the number of rows is withheld if only one class is present, or no event or nothing else, or if a
///   count (of a confusion matrix, of rows with or without an event or a feature, of rows with one value of a feature or
///   label with few values) lies between 1 and `min_cell` − 1.
/// - The recalibration is of sums over all rows, of which the site has made sure that enough have a part in them.
/// - Counts of pairs are of no patients; they leave with the counts of events, whose number bounds them.
///
/// A policy with `min_cell` and `min_subset` of 1, which only public data may have, shows every count: there all of it
/// leaves.
///
/// # Disclosure
/// Under a policy that protects counts: nothing, the number of rows, or that and sums over at least `min_subset`
/// subjects whose counts are 0 or at least `min_cell`. Which of the three it is tells that a rule held something back,
/// and not which.
pub fn at_border(policy: &Disclosure, table: Table<'_>, set: FigureSet) -> FigureSet {
    let mut set = set;
    let rows = one(&set, figure::N);
    let protects = policy.min_cell > 1 || policy.min_subset > 1;
    let people = !protects || rows.is_some_and(|rows| rows == table.subjects as f64);
    let enough = table.subjects >= policy.min_subset && rows.is_some_and(|rows| allowed(policy, rows));
    if !(table.parts_allowed && people && enough) {
        withhold_all(&mut set, &[]);
        return set;
    }
    if !protects {
        return set;
    }
    let rows = rows.unwrap_or(0.0);
    let shown = !one_class(&set)
        && all_allowed(policy, &set, figure::CONFUSION)
        && all_allowed(policy, &set, figure::CLASS_CONFUSION)
        && one(&set, figure::EVENTS).is_none_or(|events| allowed(policy, events) && allowed(policy, rows - events))
        && one(&set, figure::CORRECT).is_none_or(|correct| allowed(policy, correct) && allowed(policy, rows - correct))
        && moments_allowed(policy, &set, rows)
        && table.levels.iter().flatten().all(|count| count_allowed(policy, *count));
    // PRIVACY: one group of figures leaves, or none.
    withhold_all(&mut set, if shown { SHOWN } else { &[figure::N] });
    set
}

/// A report without its figures on a time grid, if one of the counts that they show lies between 1 and `min_cell` − 1:
/// events in an interval or after the last, rows that enter an interval; or if few rows outweigh all others in the exposure
/// of some interval, whose effective number `rows` is. The other figures hold none of these, so that they leave or stay as
/// before, and a fit needs no grid.
///
/// # Disclosure
/// What is left of the report; that the grid is withheld tells that some count is small or some row large, and not which.
pub fn grid_at_border(policy: &Disclosure, cells: &[u64], rows: f64, set: FigureSet) -> FigureSet {
    let mut set = set;
    if !(share_allowed(policy, rows) && cells.iter().all(|count| count_allowed(policy, *count))) {
        withhold(&mut set, figure::GRID_EVENTS);
        withhold(&mut set, figure::GRID_EXPOSURE);
    }
    set
}

/// A report of which the number of rows is left, if it was there.
///
/// # Disclosure
/// As of a report in which some count is small.
pub fn rows_only(set: FigureSet) -> FigureSet {
    let mut set = set;
    withhold_all(&mut set, &[figure::N]);
    set
}

/// A report without Pearson's statistic, if few rows outweigh all others in it. No other figure holds what it does.
///
/// # Disclosure
/// What is left of the report; that the statistic is withheld tells that some row is large in it, and not which.
pub fn pearson_at_border(policy: &Disclosure, rows: f64, set: FigureSet) -> FigureSet {
    let mut set = set;
    if !share_allowed(policy, rows) {
        withhold(&mut set, figure::PEARSON);
    }
    set
}

fn withhold(set: &mut FigureSet, name: &str) {
    if set.sums.remove(name).is_some() {
        set.withheld.insert(name.to_owned(), WITHHELD.to_owned());
    }
}

fn withhold_all(set: &mut FigureSet, but: &[&str]) {
    let names: Vec<String> = set.sums.keys().filter(|name| !but.contains(&name.as_str())).cloned().collect();
    names.iter().for_each(|name| withhold(set, name));
}

fn one(set: &FigureSet, name: &str) -> Option<f64> {
    set.sums.get(name).and_then(|values| values.first()).copied()
}

/// Whether a number is a count that may be shown.
fn allowed(policy: &Disclosure, value: f64) -> bool {
    // 2^53: every whole number up to there is a double.
    let whole = (0.0..=9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = value as u64;
    whole && count_allowed(policy, count)
}

fn all_allowed(policy: &Disclosure, set: &FigureSet, name: &str) -> bool {
    set.sums.get(name).is_none_or(|values| values.iter().all(|v| allowed(policy, *v)))
}

/// Whether all rows are of one class, by the confusion counts, the events or, without them, by the score histograms.
fn one_class(set: &FigureSet) -> bool {
    if let Some([tp, fp, tn, fn_]) = set.sums.get(figure::CONFUSION).map(Vec::as_slice) {
        return tp + fn_ == 0.0 || fp + tn == 0.0;
    }
    if let Some(cells) = set.sums.get(figure::CLASS_CONFUSION) {
        return cells.chunks(cells.len().isqrt().max(1)).filter(|class| class.iter().any(|n| *n > 0.0)).count() < 2;
    }
    if let (Some(events), Some(rows)) = (one(set, figure::EVENTS), one(set, figure::N)) {
        return events == 0.0 || events == rows;
    }
    let empty = |name: &str| set.sums.get(name).is_some_and(|bins| bins.iter().sum::<f64>() == 0.0);
    empty(figure::SCORES_POSITIVE) || empty(figure::SCORES_NEGATIVE)
}

/// Whether every feature is there in enough rows, and missing in none or enough.
fn moments_allowed(policy: &Disclosure, set: &FigureSet, rows: f64) -> bool {
    let Some(present) = set.sums.get(figure::PRESENT) else { return true };
    present.iter().all(|p| allowed(policy, *p) && allowed(policy, rows - p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::policy::Policy;
    use proptest::prelude::*;

    fn set(figures: &[(&str, &[f64])]) -> FigureSet {
        let sums = figures.iter().map(|(name, values)| ((*name).to_owned(), values.to_vec())).collect();
        FigureSet { sums, withheld: std::collections::BTreeMap::new() }
    }

    fn quality(confusion: [f64; 4]) -> FigureSet {
        let [tp, fp, tn, fn_] = confusion;
        set(&[
            (figure::N, &[tp + fp + tn + fn_]),
            (figure::CORRECT, &[tp + tn]),
            (figure::LOSS_SUM, &[12.5]),
            (figure::BRIER_SUM, &[3.25]),
            (figure::CONFUSION, &confusion),
            (figure::SCORES_POSITIVE, &[fn_, tp]),
            (figure::SCORES_NEGATIVE, &[tn, fp]),
            (figure::CALIBRATION_ROWS, &[tn + fn_, tp + fp]),
            (figure::CALIBRATION_SCORES, &[4.5, 40.5]),
            (figure::CALIBRATION_POSITIVES, &[fn_, tp]),
        ])
    }

    fn table(subjects: u64) -> Table<'static> {
        Table { subjects, parts_allowed: true, levels: &[] }
    }

    fn strict(subjects: u64, figures: FigureSet) -> FigureSet {
        at_border(&Policy::strict().disclosure, table(subjects), figures)
    }

    fn left(set: &FigureSet) -> Vec<&str> {
        assert!(set.withheld.values().all(|reason| reason == WITHHELD));
        set.sums.keys().map(String::as_str).collect()
    }

    const ONE_GROUP: [&str; 5] = [figure::BRIER_SUM, figure::CONFUSION, figure::CORRECT, figure::LOSS_SUM, figure::N];

    #[test]
    fn large_counts_leave_as_they_are_but_in_one_group_only() {
        let figures = quality([40.0, 12.0, 50.0, 11.0]);
        let out = strict(113, figures.clone());
        assert_eq!(left(&out), ONE_GROUP);
        assert!(out.sums.iter().all(|(name, values)| figures.sums[name] == *values));
        assert_eq!(at_border(&Policy::public_data().disclosure, table(113), figures.clone()), figures);
    }

    #[test]
    fn a_figure_that_is_not_known_stays() {
        let out = strict(100, set(&[(figure::N, &[100.0]), ("a new figure", &[50.0])]));
        assert_eq!(left(&out), [figure::N]);
        assert_eq!(out.withheld["a new figure"], WITHHELD);
    }

    #[test]
    fn a_small_count_and_a_single_class_leave_the_same_trace() {
        let small = strict(104, quality([40.0, 3.0, 50.0, 11.0]));
        assert_eq!(left(&small), [figure::N]);
        for confusion in [[40.0, 0.0, 0.0, 20.0], [0.0, 30.0, 40.0, 0.0]] {
            let rows = confusion.iter().sum::<f64>();
            let out = strict(if rows == 60.0 { 60 } else { 70 }, quality(confusion));
            assert_eq!((left(&out), &out.withheld), (vec![figure::N], &small.withheld));
            let public = at_border(&Policy::public_data().disclosure, table(60), quality(confusion));
            assert!(public.withheld.is_empty());
        }
        // The number of errors is n less those right.
        let out = strict(100, set(&[(figure::N, &[100.0]), (figure::CORRECT, &[97.0])]));
        assert!(!out.sums.contains_key(figure::CORRECT));
    }

    #[test]
    fn rows_that_are_not_people_let_nothing_leave() {
        // Twelve visits of one patient are no cell of twelve.
        let out = strict(102, quality([40.0, 12.0, 50.0, 11.0]));
        assert!(out.sums.is_empty());
        let public = at_border(&Policy::public_data().disclosure, table(102), quality([40.0, 12.0, 50.0, 11.0]));
        assert!(public.withheld.is_empty());
    }

    #[test]
    fn a_part_that_sets_few_apart_lets_nothing_leave() {
        let table = Table { parts_allowed: false, ..table(113) };
        let out = at_border(&Policy::strict().disclosure, table, quality([40.0, 12.0, 50.0, 11.0]));
        assert!(out.sums.is_empty());
    }

    #[test]
    fn few_subjects_or_rows_let_nothing_leave() {
        assert!(strict(9, quality([40.0, 12.0, 50.0, 11.0])).sums.is_empty());
        assert!(strict(100, set(&[(figure::N, &[9.0]), (figure::LOSS_SUM, &[1.0])])).sums.is_empty());
        assert!(strict(100, set(&[(figure::LOSS_SUM, &[1.0])])).sums.is_empty());
    }

    #[test]
    fn statistics_with_few_missing_values_or_a_rare_value_are_withheld() {
        let statistics = |present: f64, levels: &[Vec<u64>]| {
            let figures = set(&[
                (figure::N, &[100.0]),
                (figure::PRESENT, &[100.0, present]),
                (figure::SUM, &[5_000.5, 103.0]),
                (figure::SUM_OF_SQUARES, &[400_000.25, 109.0]),
            ]);
            let table = Table { levels, ..table(100) };
            left(&at_border(&Policy::strict().disclosure, table, figures)).len()
        };
        assert_eq!(statistics(100.0, &[vec![60, 40]]), 4);
        assert_eq!(statistics(80.0, &[]), 4);
        assert_eq!((statistics(97.0, &[]), statistics(4.0, &[])), (1, 1));
        // 97 coded 1 and 3 coded 2: the sum would tell.
        assert_eq!(statistics(100.0, &[vec![100], vec![97, 3]]), 1);
    }

    #[test]
    fn classes_leave_only_if_every_cell_is_large_and_more_than_one_class_is_there() {
        let of = |cells: [u32; 9]| {
            let people = cells.iter().sum::<u32>();
            let (rows, cells) = (f64::from(people), cells.map(f64::from));
            let figures = set(&[
                (figure::N, &[rows]),
                (figure::CORRECT, &[cells[0] + cells[4] + cells[8]]),
                (figure::CLASS_CONFUSION, &cells),
                (figure::CLASS_SCORES_POSITIVE, &[rows]),
                (figure::CLASS_SCORES_NEGATIVE, &[rows]),
            ]);
            let out = strict(u64::from(people), figures);
            left(&out).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let shown = [figure::CLASS_CONFUSION, figure::CORRECT, figure::N];
        assert_eq!(of([20, 0, 10, 12, 30, 0, 0, 0, 15]), shown);
        assert_eq!(of([20, 0, 9, 12, 30, 0, 0, 0, 15]), [figure::N]);
        assert_eq!(of([20, 30, 10, 0, 0, 0, 0, 0, 0]), [figure::N]);
    }

    #[test]
    fn numbers_and_times_follow_the_same_rules() {
        let number = |levels: &[Vec<u64>]| {
            let figures = set(&[
                (figure::N, &[100.0]),
                (figure::ABSOLUTE_ERROR_SUM, &[12.5]),
                (figure::SQUARED_ERROR_SUM, &[20.5]),
                (figure::LABEL_SUM, &[103.0]),
                (figure::LABEL_SQUARE_SUM, &[109.0]),
            ]);
            left(&at_border(&Policy::strict().disclosure, Table { levels, ..table(100) }, figures)).len()
        };
        // 97 labels of 1 and 3 of 2: the sums would tell.
        assert_eq!((number(&[]), number(&[vec![97, 3]])), (5, 1));
        let survival = |events: f64| {
            let pairs = [figure::PAIRS_COMPARABLE, figure::PAIRS_CONCORDANT, figure::PAIRS_TIED];
            let mut figures = set(&[(figure::N, &[100.0]), (figure::EVENTS, &[events])]);
            figures.sums.extend(pairs.map(|name| (name.to_owned(), vec![7.0])));
            left(&strict(100, figures)).len()
        };
        assert_eq!([40.0, 3.0, 97.0, 0.0, 100.0].map(survival), [5, 1, 1, 1, 1]);
    }

    #[test]
    fn sums_of_a_regression_leave_as_one_group_or_not_at_all() {
        let names = [figure::SCORE, figure::INFORMATION, figure::LOG_LIKELIHOOD, figure::EVENTS, figure::PAIRS];
        let leave = |events: f64, levels: &[Vec<u64>], subjects: u64| {
            let mut figures = set(&names.map(|name| (name, [1.5].as_slice())));
            figures.sums.insert(figure::N.into(), vec![100.0]);
            figures.sums.insert(figure::EVENTS.into(), vec![events]);
            let table = Table { levels, ..table(subjects) };
            left(&at_border(&Policy::strict().disclosure, table, figures)).len()
        };
        assert_eq!(leave(40.0, &[vec![60, 40], vec![50, 0, 10, 40]], 100), 6);
        // Few events, few without one, a small cell of two features.
        assert_eq!((leave(4.0, &[], 100), leave(96.0, &[], 100)), (1, 1));
        // Everybody, or nobody: the labels of all.
        assert_eq!((leave(0.0, &[], 100), leave(100.0, &[], 100)), (1, 1));
        assert_eq!(leave(40.0, &[vec![50, 1, 9, 40]], 100), 1);
        assert_eq!((leave(40.0, &[], 99), leave(40.0, &[], 9)), (0, 0));
    }

    #[test]
    fn a_grid_with_a_small_count_stays_and_the_rest_leaves() {
        let figures = || set(&[(figure::N, &[50.0]), (figure::GRID_EVENTS, &[10.0]), (figure::GRID_EXPOSURE, &[9.5])]);
        let policy = Policy::strict().disclosure;
        assert_eq!(left(&grid_at_border(&policy, &[10, 0, 50], 10.0, figures())).len(), 3);
        assert_eq!(left(&grid_at_border(&policy, &[10, 3, 50], 10.0, figures())), [figure::N]);
        assert_eq!(left(&grid_at_border(&policy, &[10, 0, 50], 9.9, figures())), [figure::N]);
        assert_eq!(left(&grid_at_border(&policy, &[10, 0, 50], f64::NAN, figures())), [figure::N]);
        assert_eq!(left(&grid_at_border(&Policy::public_data().disclosure, &[3], 1.0, figures())).len(), 3);
    }

    #[test]
    fn a_statistic_that_few_rows_make_up_stays_and_the_rest_leaves() {
        let figures = || set(&[(figure::N, &[50.0]), (figure::DEVIANCE, &[10.0]), (figure::PEARSON, &[9.5])]);
        let policy = Policy::strict().disclosure;
        assert_eq!(left(&pearson_at_border(&policy, 10.0, figures())).len(), 3);
        assert_eq!(left(&pearson_at_border(&policy, 9.9, figures())), [figure::DEVIANCE, figure::N]);
        assert_eq!(left(&pearson_at_border(&Policy::public_data().disclosure, 1.0, figures())).len(), 3);
    }

    #[test]
    fn what_should_be_a_count_and_is_none_is_withheld() {
        for bad in [-1.0, 10.5, f64::NAN, 1e300] {
            let out = strict(100, set(&[(figure::N, &[100.0]), (figure::CORRECT, &[bad])]));
            assert!(!out.sums.contains_key(figure::CORRECT));
        }
    }

    proptest! {
        #[test]
        fn no_small_count_leaves(confusion in prop::array::uniform4(0u32..40), people in any::<bool>()) {
            let policy = Policy::strict().disclosure;
            let figures = quality(confusion.map(f64::from));
            let names = figures.sums.len();
            let rows: u64 = confusion.iter().map(|n| u64::from(*n)).sum();
            let out = strict(if people { rows } else { rows / 2 }, figures);
            prop_assert!(people || out.sums.is_empty());
            prop_assert!([0, 1, ONE_GROUP.len()].contains(&out.sums.len()));
            prop_assert_eq!(out.sums.len() + out.withheld.len(), names);
            for (name, values) in &out.sums {
                if ![figure::LOSS_SUM, figure::BRIER_SUM, figure::CALIBRATION_SCORES].contains(&name.as_str()) {
                    prop_assert!(values.iter().all(|v| *v == 0.0 || *v >= policy.min_cell as f64), "{}", name);
                }
            }
            let [tp, fp, tn, fn_] = confusion;
            if tp + fn_ == 0 || fp + tn == 0 {
                prop_assert!(out.sums.len() <= 1);
            }
        }
    }
}
